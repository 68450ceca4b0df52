//! Files of strangers: what Pillow writes is read as Pillow reads it, and what is not one still picture says why.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that fails is meant to panic"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nineteen_checking::Pixels;
use nineteen_checking::pixels::{DecodeLimits, Decoded, Fault, compare, decode, encode_jpeg, facts, resized};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    width: usize,
    height: usize,
    files: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    file: String,
    rgb: String,
}

static PILLOW: LazyLock<Fixture> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/vision/files.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

fn file(name: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(&PILLOW.files[name].file).unwrap()
}

fn read(bytes: &[u8]) -> Result<Decoded, Fault> {
    decode(bytes, &DecodeLimits::default()).map_err(|e| {
        let said = e.to_string();
        assert!(said.starts_with(e.fault.code()) && !said.contains('\n') && said.len() < 900, "{said}");
        e.fault
    })
}

/// A PNG's chunk with its checksum.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc.sum().to_be_bytes()].concat()
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

/// An RGB picture of eight bits whose rows are these, whatever its header says.
fn png(width: u32, height: u32, rows: &[u8], between: &[Vec<u8>]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    out.extend(chunk(b"IHDR", &header));
    out.extend(between.concat());
    out.extend(chunk(b"IDAT", &deflated(rows)));
    out.extend(chunk(b"IEND", &[]));
    out
}

/// Rows of black: a filter's number and three bytes a pixel.
fn black(width: usize, height: usize) -> Vec<u8> {
    vec![0; height * (1 + 3 * width)]
}

#[test]
fn what_pillow_writes_is_read_as_pillow_reads_it() {
    for (name, entry) in PILLOW.files.iter().filter(|(name, _)| !name.ends_with("-moving")) {
        let read = read(&file(name)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!((read.pixels.width, read.pixels.height), (PILLOW.width, PILLOW.height), "{name}");
        assert!(name.starts_with(read.format), "{name}");
        assert_eq!((read.alpha, read.trailing_bytes), (name == "png-alpha", 0), "{name}");
        let wanted = BASE64_STANDARD.decode(&entry.rgb).unwrap();
        let worst = wanted.iter().zip(&read.pixels.rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // Formats that fix the numbers are read exactly; the cosine transforms of two decoders round apart.
        let most = match read.format {
            "jpeg" if name == "jpeg-cmyk" => 6,
            "jpeg" => 3,
            "webp" if name == "webp-lossy" => 6,
            _ => 0,
        };
        assert!(worst <= most, "{name}: {worst} above {most}");
    }
}

#[test]
fn the_quality_that_pillow_was_told_shows() {
    for quality in [10_u8, 30, 50, 75, 95] {
        let found = read(&file(&format!("jpeg-{quality}"))).unwrap().jpeg_quality.unwrap();
        assert!(found.abs_diff(quality) <= 3, "{found} for {quality}");
    }
    assert_eq!(read(&file("png-grey")).unwrap().jpeg_quality, None);
}

#[test]
fn what_moves_is_refused_in_every_format() {
    for name in ["png-moving", "webp-moving", "gif-moving"] {
        assert_eq!(read(&file(name)), Err(Fault::Animated), "{name}");
    }
}

#[test]
fn a_small_file_of_many_zeros_is_refused_by_its_header_at_once() {
    // The rows of a few of 50,000 lines; a decoder that trusted the header would ask for 7.5 GB.
    let bomb = png(50_000, 50_000, &black(50_000, 40), &[]);
    assert_eq!(read(&bomb), Err(Fault::TooLarge));
    let mut gif = file("gif");
    gif[6..10].copy_from_slice(&[0xFF; 4]);
    assert_eq!(read(&gif), Err(Fault::TooLarge));
    // Within the canvas, and one frame that is not.
    let mut gif = file("gif");
    let palette = 3 << ((gif[10] & 7) + 1);
    let frame = 13 + palette;
    let at = gif[frame..].iter().position(|b| *b == 0x2C).unwrap() + frame;
    gif[at + 5..at + 9].copy_from_slice(&[0xFF; 4]);
    assert!(read(&gif).is_err());
    let many = DecodeLimits { most_bytes: 20, ..DecodeLimits::default() };
    assert_eq!(decode(&file("gif"), &many).unwrap_err().fault, Fault::TooLarge);
    let few = DecodeLimits { most_pixels: 24 * 16 - 1, ..DecodeLimits::default() };
    for name in ["png-grey", "jpeg-75", "webp-lossy", "webp-lossless", "gif"] {
        assert_eq!(decode(&file(name), &few).unwrap_err().fault, Fault::TooLarge, "{name}");
    }
}

#[test]
fn comments_that_would_unfold_to_much_are_not_unfolded() {
    let zeros = deflated(&vec![0; 64 << 20]);
    let text = chunk(b"zTXt", &[b"comment\0\0", &zeros[..]].concat());
    let profile = chunk(b"iCCP", &[b"profile\0\0", &zeros[..]].concat());
    for between in [text, profile] {
        // Either is an answer; what counts is that it comes soon.
        let _ = read(&png(8, 8, &black(8, 8), &[between]));
    }
}

#[test]
fn a_header_that_says_another_size_than_the_rows_have_lies() {
    assert!(read(&png(8, 8, &black(8, 8), &[])).is_ok());
    assert_eq!(read(&png(8, 9, &black(8, 8), &[])), Err(Fault::Lies), "a row is missing");
    assert_eq!(read(&png(0, 8, &black(8, 8), &[])), Err(Fault::Lies), "no width");
    let mut broken = png(8, 8, &black(8, 8), &[]);
    broken[20] ^= 1;
    assert_eq!(read(&broken), Err(Fault::Lies), "the header's checksum");
}

#[test]
fn a_file_is_cut_at_whatever_length_it_is_cut() {
    for name in ["png-grey", "jpeg-75", "jpeg-progressive", "webp-lossy", "webp-lossless", "gif"] {
        let whole = file(name);
        for length in 0..whole.len() {
            let fault = read(&whole[..length]).expect_err(name);
            // The first bytes alone say which format it is.
            let known = [Fault::Truncated, Fault::NotAnImage];
            assert!(known.contains(&fault), "{name} cut to {length} of {}: {fault:?}", whole.len());
            assert!(
                length * 2 < whole.len() || fault == Fault::Truncated,
                "{name} cut to {length}: {fault:?}"
            );
        }
    }
}

#[test]
fn what_follows_a_picture_is_counted_and_changes_nothing() {
    for name in ["png-palette", "jpeg-75", "webp-lossy", "gif"] {
        let (whole, more) = (file(name), b"\xFF\xD9 and more \xFF\xD9");
        let read = read(&[&whole[..], more].concat()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(read.trailing_bytes, more.len(), "{name}");
        assert_eq!(read.pixels, decode(&whole, &DecodeLimits::default()).unwrap().pixels, "{name}");
    }
}

#[test]
fn what_only_begins_like_a_picture_is_none() {
    for bytes in [&b""[..], b"\x89PNG", b"BM", b"<svg xmlns=''/>", b"II*\0", b"{\"image\":1}", &[0; 4096]] {
        assert_eq!(read(bytes), Err(Fault::NotAnImage));
    }
    // A page behind a picture's first bytes.
    for start in [&b"\x89PNG\r\n\x1a\n"[..], b"\xFF\xD8\xFF\xE0", b"GIF89a", b"RIFF\x10\0\0\0WEBPVP8 "] {
        assert!(read(&[start, &[b'<'; 600]].concat()).is_err());
    }
}

/// A scene with edges at every scale.
fn scene(side: usize) -> Pixels {
    let mut state = 1_u32;
    let rgb = (0..side * side)
        .flat_map(|i| {
            let (x, y) = (i % side, i / side);
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grain = (state >> 27) as u8;
            let inside = x.abs_diff(side / 3).pow(2) + y.abs_diff(side / 2).pow(2) < (side / 4).pow(2);
            if inside { [200 + grain, 30, 60] } else { [60 + grain, 170, (x * 120 / side) as u8 + 80] }
        })
        .collect();
    Pixels { width: side, height: side, rgb }
}

#[test]
fn a_blank_picture_shows_and_its_hashes_do_not_tremble() {
    let blank = |v: u8| Pixels { width: 50, height: 31, rgb: [v, v / 2, 255 - v].repeat(50 * 31) };
    for v in [0, 3, 97, 128, 254] {
        let facts = facts(&blank(v));
        assert!((facts.most_common - 1.0).abs() < 1e-12);
        assert!(facts.gradient < 1e-12 && facts.sharpness < 1e-12 && facts.high_frequencies < 1e-12);
        assert!(facts.deviation.iter().all(|d| *d < 1e-9));
        // Rounding alone must not set bits: two blank pictures look alike.
        let c = compare(&blank(v), &blank(64));
        assert_eq!((c.difference, c.average), (0, 0), "{v}");
        assert!(c.perceptual <= 1, "{v}: {}", c.perceptual);
    }
}

#[test]
fn what_was_enlarged_is_told_from_what_is_of_its_size() {
    let native = scene(128);
    let enlarged = resized(&resized(&native, 64, 64), 128, 128);
    let twice = facts(&native).high_frequencies / facts(&enlarged).high_frequencies;
    assert!(twice > 4.0, "{twice}");
}

#[test]
fn hashes_outlive_a_coarse_jpeg_and_a_change_of_size() {
    let a = scene(128);
    let coarse = read(&encode_jpeg(&a, 30)).unwrap().pixels;
    let c = compare(&a, &coarse);
    assert!(c.perceptual <= 6 && c.average <= 4 && c.difference <= 10, "{c:?}");
    assert!(facts(&coarse).blockiness > 1.2 * facts(&a).blockiness);
    let small = resized(&a, 90, 90);
    let c = compare(&a, &small);
    assert!(c.perceptual <= 4 && c.average <= 3 && c.difference <= 6 && c.error.is_none(), "{c:?}");
}
