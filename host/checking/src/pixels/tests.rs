use std::io::Cursor;

use image::codecs::gif::GifEncoder;
use image::codecs::webp::WebPEncoder;
use image::{Delay, ExtendedColorType, Frame, RgbaImage};
use proptest::prelude::*;

use super::*;

/// Something with edges, colours and a slope.
fn picture(side: usize) -> Pixels {
    let rgb = (0..side * side)
        .flat_map(|i| {
            let (x, y) = (i % side, i / side);
            let inside = (x + 3).abs_diff(side / 2).pow(2) + y.abs_diff(side / 2).pow(2) < (side / 4).pow(2);
            let stripes = x % 4 < 2 && y * 4 > side * 3;
            match (inside, stripes) {
                (true, _) => [210, 40, 60],
                (_, true) => [20, 20, 20],
                _ => [90, (x * 160 / side + 40) as u8, 200],
            }
        })
        .collect();
    Pixels { width: side, height: side, rgb }
}

fn limits() -> DecodeLimits {
    DecodeLimits::default()
}

fn fault(bytes: &[u8]) -> &'static str {
    decode(bytes, &limits()).unwrap_err().fault.code()
}

/// A PNG of one chunk after the other.
fn png(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in chunks {
        out.extend((data.len() as u32).to_be_bytes());
        let body = [&kind[..], data].concat();
        let crc = body.iter().fold(u32::MAX, |crc, byte| {
            (0..8)
                .fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 })
        });
        out.extend(&body);
        out.extend((!crc).to_be_bytes());
    }
    out
}

fn header(width: u32, height: u32) -> Vec<u8> {
    [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat()
}

/// The compressed rows of an honest file.
fn rows_of(bytes: &[u8]) -> Vec<u8> {
    let (mut at, mut rows) = (8, Vec::new());
    while at + 8 <= bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if &bytes[at + 4..at + 8] == b"IDAT" {
            rows.extend_from_slice(&bytes[at + 8..at + 8 + length]);
        }
        at += 12 + length;
    }
    rows
}

#[test]
fn what_was_written_is_read() {
    let picture = picture(48);
    let png = encode_png(&picture);
    assert_eq!(png, encode_png(&picture));
    let read = decode(&png, &limits()).unwrap();
    assert_eq!((&read.pixels, read.format, read.alpha, read.trailing_bytes), (&picture, "png", false, 0));
    let more = decode(&[&png[..], b"and more"].concat(), &limits()).unwrap();
    assert_eq!(more.trailing_bytes, 8);
    let mut webp = Vec::new();
    WebPEncoder::new_lossless(Cursor::new(&mut webp))
        .encode(&picture.rgb, 48, 48, ExtendedColorType::Rgb8)
        .unwrap();
    let read = decode(&webp, &limits()).unwrap();
    assert_eq!((&read.pixels, read.format), (&picture, "webp"));
}

#[test]
fn the_quality_of_a_jpeg_shows() {
    for quality in [10, 30, 50, 75, 90] {
        let read = decode(&encode_jpeg(&picture(64), quality), &limits()).unwrap();
        let found = read.jpeg_quality.unwrap();
        assert!(found.abs_diff(quality) <= 3, "{found} for {quality}");
    }
}

#[test]
fn a_file_that_is_no_still_picture_says_why() {
    let honest = encode_png(&picture(32));
    let rows = rows_of(&honest);
    assert_eq!(fault(b"<svg/>"), "not-an-image");
    assert_eq!(fault(b""), "not-an-image");
    // A bomb: no more than its header is read.
    let bomb = png(&[(b"IHDR", header(50_000, 50_000)), (b"IDAT", rows.clone()), (b"IEND", vec![])]);
    assert_eq!(fault(&bomb), "too-large");
    let wide = png(&[(b"IHDR", header(4_000, 4_000)), (b"IDAT", rows.clone()), (b"IEND", vec![])]);
    assert_eq!(fault(&wide), "too-large", "within a side's limit, and not within that of all pixels");
    let lie = png(&[(b"IHDR", header(32, 64)), (b"IDAT", rows.clone()), (b"IEND", vec![])]);
    assert_eq!(fault(&lie), "lies");
    let moving = png(&[
        (b"IHDR", header(32, 32)),
        (b"acTL", [2_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat()),
        (b"IDAT", rows),
        (b"IEND", vec![]),
    ]);
    assert_eq!(fault(&moving), "animated");
    assert_eq!(fault(&honest[..honest.len() / 2]), "truncated");
    let jpeg = encode_jpeg(&picture(32), 80);
    assert_ne!(decode(&jpeg[..jpeg.len() / 8], &limits()), Ok(decode(&jpeg, &limits()).unwrap()));
    let mut gif = Vec::new();
    {
        let mut encoder = GifEncoder::new(&mut gif);
        for shade in [0, 200] {
            let frame = RgbaImage::from_pixel(8, 8, image::Rgba([shade, 0, 0, 255]));
            encoder.encode_frame(Frame::from_parts(frame, 0, 0, Delay::from_numer_denom_ms(10, 1))).unwrap();
        }
    }
    assert_eq!(fault(&gif), "animated");
    let small = DecodeLimits { most_bytes: 100, ..limits() };
    assert_eq!(decode(&honest, &small).unwrap_err().fault, Fault::TooLarge);
}

#[test]
fn see_through_pixels_are_seen() {
    let mut out = Vec::new();
    let mut rgba: Vec<u8> =
        picture(16).rgb.as_chunks::<3>().0.iter().flat_map(|[r, g, b]| [*r, *g, *b, 255]).collect();
    let encode = |rgba: &[u8], out: &mut Vec<u8>| {
        out.clear();
        PngEncoder::new(Cursor::new(out)).write_image(rgba, 16, 16, ExtendedColorType::Rgba8).unwrap();
    };
    encode(&rgba, &mut out);
    assert!(!decode(&out, &limits()).unwrap().alpha, "opaque, though it could be otherwise");
    rgba[3] = 0;
    encode(&rgba, &mut out);
    assert!(decode(&out, &limits()).unwrap().alpha);
}

proptest! {
    #[test]
    fn nobodys_bytes_do_harm(start in 0_usize..5, rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let starts: [&[u8]; 5] = [b"", b"\x89PNG\r\n\x1a\n", b"\xFF\xD8\xFF\xE0", b"GIF89a", b"RIFF\x10\0\0\0WEBPVP8 "];
        let _ = decode(&[starts[start], &rest].concat(), &limits());
    }

    #[test]
    fn a_changed_or_cut_file_does_no_harm(which in 0_usize..4, at in any::<prop::sample::Index>(), to: u8, cut: bool) {
        let picture = picture(24);
        let mut webp = Vec::new();
        WebPEncoder::new_lossless(Cursor::new(&mut webp)).encode(&picture.rgb, 24, 24, ExtendedColorType::Rgb8).unwrap();
        let mut gif = Vec::new();
        GifEncoder::new(&mut gif).encode(&picture.rgb, 24, 24, ExtendedColorType::Rgb8).unwrap();
        let mut file = [encode_png(&picture), encode_jpeg(&picture, 60), webp, gif][which].clone();
        let at = at.index(file.len());
        if cut { file.truncate(at) } else { file[at] = to }
        if let Ok(read) = decode(&file, &limits()) {
            prop_assert_eq!(read.pixels.rgb.len(), read.pixels.width * read.pixels.height * 3);
            let _ = facts(&read.pixels);
        }
    }

    #[test]
    fn any_sizes_can_be_compared(w in 1_usize..40, h in 1_usize..40, v: u8) {
        let odd = Pixels { width: w, height: h, rgb: vec![v; w * h * 3] };
        let c = compare(&odd, &picture(33));
        prop_assert!(c.ssim.is_finite() && c.lab.is_finite() && c.gradients.is_finite());
        prop_assert!(c.error.is_none() || (w == 33 && h == 33));
        let f = facts(&odd);
        prop_assert!(f.high_frequencies.is_finite() && f.blockiness.is_finite());
        prop_assert!((f.most_common - 1.0).abs() < 1e-9, "blank");
    }
}

#[test]
fn equal_pictures_do_not_differ_and_others_do() {
    let (a, b) = (picture(64), picture(64));
    let same = compare(&a, &b);
    assert_eq!((same.perceptual, same.difference, same.average, same.colour), (0, 0, 0, 0));
    assert_eq!((same.error, same.largest, same.psnr), (Some(0.0), Some(0), Some(100.0)));
    assert!((same.ssim - 1.0).abs() < 1e-12 && (same.gradients - 1.0).abs() < 1e-9 && same.lab < 1e-12);
    let other = Pixels { rgb: a.rgb.iter().rev().copied().collect(), ..a.clone() };
    let c = compare(&a, &other);
    assert!(c.ssim < 0.7 && c.error.unwrap() > 0.1 && c.perceptual > 10 && c.lab > 10.0, "{c:?}");
    let coarse = decode(&encode_jpeg(&a, 30), &limits()).unwrap().pixels;
    let c = compare(&a, &coarse);
    assert!(c.error.unwrap() < 0.06 && c.ssim > 0.7 && c.perceptual <= 8, "{c:?}");
    assert!(facts(&coarse).blockiness > facts(&a).blockiness);
}

#[test]
fn what_was_enlarged_has_lost_its_fine_parts() {
    let native = picture(64);
    let enlarged = resized(&resized(&native, 32, 32), 64, 64);
    let (fine, coarse) = (facts(&native).high_frequencies, facts(&enlarged).high_frequencies);
    assert!(coarse * 3.0 < fine, "{coarse} {fine}");
}

#[test]
fn a_photograph_that_was_moved_turned_or_mirrored_is_found() {
    let a = picture(64);
    let mirrored = Pixels {
        rgb: a
            .rgb
            .chunks(64 * 3)
            .flat_map(|row| row.as_chunks::<3>().0.iter().rev().flatten().copied())
            .collect(),
        ..a.clone()
    };
    let small = shifted(&resized(&a, 56, 56), 4, 2);
    for (name, other, most) in [
        ("the same", a.clone(), 1e-9),
        ("mirrored", mirrored, 0.01),
        ("moved", shifted(&a, 5, 3), 0.05),
        ("smaller", small, 0.06),
    ] {
        let warp = nearest_warp(&a, &other);
        assert!(warp.error <= most, "{name}: {warp:?}");
        assert_eq!(warp.mirrored, name == "mirrored");
    }
    let blank = Pixels {
        rgb: a.rgb.iter().enumerate().map(|(i, v)| v.wrapping_mul((i % 251) as u8)).collect(),
        ..a.clone()
    };
    let unlike = nearest_warp(&a, &blank).error;
    assert!(unlike > 0.08, "{unlike}");
}

#[test]
fn sizes_keep_the_mean() {
    let a = picture(60);
    for side in [7, 30, 60, 91] {
        let mean = |p: &Pixels| p.rgb.iter().map(|v| f64::from(*v)).sum::<f64>() / p.rgb.len() as f64;
        let b = resized(&a, side, side);
        assert_eq!((b.width, b.height, b.rgb.len()), (side, side, side * side * 3));
        assert!((mean(&a) - mean(&b)).abs() < 1.5, "{side}");
    }
    assert_eq!(resized(&a, 60, 60), a);
}
