use super::*;
use proptest::prelude::*;

const LIMITS: PhotoLimits = PhotoLimits { max_bytes: 1 << 20, max_pixels: 256 * 256 };

fn gradient(width: u32, height: u32) -> Picture {
    let rgb =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [(4 * x) as u8, (4 * y) as u8, 128])).collect();
    Picture { width, height, rgb }
}

fn refused(bytes: &[u8]) -> Refusal {
    plain(bytes, LIMITS, 64, 64).unwrap_err()
}

/// A PNG of chunks as they are given, with right checksums.
fn chunks(of: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in of {
        file.extend((data.len() as u32).to_be_bytes());
        let body: Vec<u8> = name.iter().chain(data).copied().collect();
        file.extend(&body);
        let mut crc = u32::MAX;
        for byte in &body {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        file.extend((!crc).to_be_bytes());
    }
    file
}

fn header(width: u32, height: u32) -> (&'static [u8; 4], Vec<u8>) {
    (b"IHDR", [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat())
}

/// Chunks of a right file.
fn taken_apart(file: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
    let mut rest = &file[8..];
    let mut all = Vec::new();
    while rest.len() >= 12 {
        let n = u32::from_be_bytes(*rest.first_chunk().unwrap()) as usize;
        all.push((*rest[4..].first_chunk().unwrap(), rest[8..8 + n].to_vec()));
        rest = &rest[12 + n..];
    }
    all
}

#[test]
fn a_plain_picture_of_the_right_size_stays_as_it_is() {
    let file = png(&gradient(64, 64)).unwrap();
    assert_eq!(plain(&file, LIMITS, 64, 64).unwrap(), file, "the same pixels, the same bytes");
    let (again, _) = decode(&file, LIMITS).unwrap();
    assert_eq!(again, gradient(64, 64));
}

#[test]
fn metadata_never_comes_out_at_the_other_end() {
    let file = png(&gradient(64, 64)).unwrap();
    let mut parts = taken_apart(&file);
    parts.insert(1, (*b"tEXt", b"Author\0a name that must not travel".to_vec()));
    parts.insert(2, (*b"eXIf", b"MM\0*\0\0\0\x08\0\0 a place that must not travel".to_vec()));
    let tagged: Vec<(&[u8; 4], Vec<u8>)> = parts.iter().map(|(n, d)| (n, d.clone())).collect();
    let mut tagged = chunks(&tagged);
    tagged.extend(b"behind the end");
    assert_eq!(plain(&tagged, LIMITS, 64, 64).unwrap(), file);
}

#[test]
fn the_middle_is_cut_out_and_shrunk_by_area() {
    let wide = Picture {
        width: 4,
        height: 2,
        rgb: [[9; 3], [10; 3], [20; 3], [9; 3], [9; 3], [30; 3], [40; 3], [9; 3]].concat(),
    };
    assert_eq!(fitted(&wide, 1, 1).rgb, [25; 3]);
    assert_eq!(fitted(&wide, 2, 2).rgb, [[10; 3], [20; 3], [30; 3], [40; 3]].concat());
    assert_eq!(fitted(&gradient(3, 5), 64, 64).rgb.len(), 3 * 64 * 64);
    for (w, h) in [(1, 1), (1, 200), (255, 3), (64, 64)] {
        let out = plain(&png(&gradient(w, h)).unwrap(), LIMITS, 64, 48).unwrap();
        let (picture, _) = decode(&out, LIMITS).unwrap();
        assert_eq!((picture.width, picture.height), (64, 48));
    }
}

#[test]
fn photographs_that_lie_on_their_side_are_put_upright() {
    let p = Picture { width: 2, height: 1, rgb: vec![1, 1, 1, 2, 2, 2] };
    let first = |o: u8| {
        let out = upright_of(&p, o);
        (out.width, out.rgb[0])
    };
    let all: Vec<(u32, u8)> = (1..=8).map(first).collect();
    assert_eq!(all, [(2, 1), (2, 2), (2, 2), (2, 1), (1, 1), (1, 1), (1, 2), (1, 2)]);
    let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
    let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0";
    assert_eq!((orientation(big), orientation(little), orientation(b"II")), (6, 8, 1));
    for n in 0..big.len() {
        assert!(orientation(&big[..n]) <= 8);
    }
}

#[test]
fn bombs_and_lies_are_refused_before_they_cost_anything() {
    let deflated =
        taken_apart(&png(&gradient(64, 64)).unwrap()).into_iter().find(|(n, _)| n == b"IDAT").unwrap().1;
    let bomb = chunks(&[header(50_000, 50_000), (b"IDAT", deflated.clone()), (b"IEND", vec![])]);
    assert_eq!((refused(&bomb).status, refused(&bomb).code.as_str()), (413, "image_too_large"));
    let lies = chunks(&[header(64, 200), (b"IDAT", deflated.clone()), (b"IEND", vec![])]);
    assert_eq!(refused(&lies).code, "invalid_image");
    let none = chunks(&[header(0, 64), (b"IDAT", deflated.clone()), (b"IEND", vec![])]);
    assert_eq!(refused(&none).code, "invalid_image");
    let moves = chunks(&[
        header(64, 64),
        (b"acTL", [2_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat()),
        (b"IDAT", deflated),
        (b"IEND", vec![]),
    ]);
    assert!(refused(&moves).message.contains("animated"), "{}", refused(&moves).message);
    assert_eq!(refused(&vec![0; 2 << 20]).status, 413);
    for other in [&b"GIF89a"[..], b"RIFF....WEBP", b"<svg>", b"", b"\x89PNG"] {
        assert_eq!(refused(other).code, "invalid_image");
    }
}

#[test]
fn a_file_that_ends_early_is_no_picture() {
    let file = png(&gradient(64, 64)).unwrap();
    for n in 0..file.len() - 12 {
        assert_eq!(refused(&file[..n]).code, "invalid_image", "{n} of {} bytes", file.len());
    }
}

#[test]
fn grey_palettes_sixteen_bits_and_glass_become_three_bytes_a_pixel() {
    for (color, depth, palette, data, pixel) in [
        (ColorType::Grayscale, BitDepth::Eight, None, vec![7], [7; 3]),
        (ColorType::Grayscale, BitDepth::One, None, vec![0x80], [255; 3]),
        (ColorType::GrayscaleAlpha, BitDepth::Eight, None, vec![7, 0], [255; 3]),
        (ColorType::Rgba, BitDepth::Eight, None, vec![1, 2, 3, 255], [1, 2, 3]),
        (ColorType::Rgb, BitDepth::Sixteen, None, vec![9, 0, 8, 0, 7, 0], [9, 8, 7]),
        (ColorType::Indexed, BitDepth::Eight, Some(vec![4, 5, 6]), vec![0], [4, 5, 6]),
    ] {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 1, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&data).unwrap();
        writer.finish().unwrap();
        assert_eq!(decode(&bytes, LIMITS).unwrap().0.rgb, pixel, "{color:?} {depth:?}");
    }
}

/// 24 × 16 pixels, red growing by 10 to the right, green by 15 downwards; EXIF says that it lies on its side (6).
const TURNED: &[u8] = include_bytes!("../../testing/turned.jpg");
/// The same, progressive, without EXIF.
const PROGRESSIVE: &[u8] = include_bytes!("../../testing/progressive.jpg");

#[test]
fn jpeg_is_read_and_put_upright() {
    let (lying, how) = decode(TURNED, LIMITS).unwrap();
    let (progressive, straight) = decode(PROGRESSIVE, LIMITS).unwrap();
    assert_eq!((lying.width, lying.height, how, straight), (24, 16, 6, 1));
    for picture in [&lying, &progressive] {
        let apart = picture.rgb.iter().enumerate().map(|(i, v)| {
            let (x, y) = ((i / 3) % 24, i / 3 / 24);
            v.abs_diff([10 * x as u8, 15 * y as u8, 128][i % 3])
        });
        assert!(apart.map(u32::from).sum::<u32>() / 1152 < 12);
    }
    let (grey, _) = decode(include_bytes!("../../testing/grey.jpg"), LIMITS).unwrap();
    assert!(grey.rgb.len() == 3 * 16 * 16 && grey.rgb.iter().all(|v| v.abs_diff(90) < 3));
    let out = plain(TURNED, LIMITS, 16, 24).unwrap();
    let (upright, _) = decode(&out, LIMITS).unwrap();
    assert_eq!(upright, upright_of(&lying, 6));
    assert!(!out.windows(4).any(|w| w == b"Exif" || w == b"eXIf"));
}

#[test]
fn a_jpeg_that_ends_early_or_is_too_large_is_refused() {
    for file in [TURNED, PROGRESSIVE] {
        let headers = file.len() / 2;
        for n in 0..headers {
            assert!(plain(&file[..n], LIMITS, 16, 16).is_err(), "{n} of {} bytes", file.len());
        }
    }
    let at = PROGRESSIVE.windows(2).position(|w| w == [0xff, 0xc2]).unwrap();
    let mut bomb = PROGRESSIVE.to_vec();
    bomb[at + 5..at + 9].copy_from_slice(&[0x3f, 0xff, 0x3f, 0xff]);
    assert_eq!((refused(&bomb).status, refused(&bomb).code.as_str()), (413, "image_too_large"));
}

proptest! {
    #[test]
    fn a_jpeg_with_bytes_changed_is_refused_or_decoded(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4), turned in any::<bool>(),
    ) {
        let mut file = if turned { TURNED.to_vec() } else { PROGRESSIVE.to_vec() };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Err(refusal) = plain(&file, LIMITS, 8, 8) {
            prop_assert!(refusal.status == 400 || refusal.status == 413);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), jpeg in any::<bool>()) {
        let start: &[u8] = if jpeg { b"\xff\xd8\xff" } else { b"\x89PNG\r\n\x1a\n" };
        let file = [start, &bytes].concat();
        prop_assert!(plain(&file, LIMITS, 64, 64).is_err());
    }

    #[test]
    fn a_picture_with_a_byte_changed_is_refused_or_decoded(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut file = png(&gradient(16, 16)).unwrap();
        let at = at.index(file.len());
        file[at] = byte;
        if let Err(refusal) = plain(&file, LIMITS, 8, 8) {
            prop_assert!(refusal.status == 400 || refusal.status == 413);
        }
    }
}
