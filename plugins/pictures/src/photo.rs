//! A client's photograph made plain: decoded under limits before anything looks at it, turned upright, cropped, shrunk and
//! written anew, so that no metadata and no trick of a file reaches a miner.

use nineteen_sdk::Refusal;
use png::{BitDepth, ColorType, Decoder, Encoder, Limits, Transformations};
use serde::Deserialize;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// No side is longer, whatever `max_pixels` allows.
const MOST_SIDE: u32 = 16_384;
/// Passes over a progressive file.
const MOST_SCANS: usize = 20;

/// What is decoded at all.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PhotoLimits {
    /// Bytes of the file.
    pub max_bytes: usize,
    /// Pixels by its header.
    pub max_pixels: u64,
}

impl Default for PhotoLimits {
    fn default() -> Self {
        Self { max_bytes: 2 << 20, max_pixels: 1 << 20 }
    }
}

impl PhotoLimits {
    /// Bounds that types cannot say.
    ///
    /// # Errors
    /// Which parameter, and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let bytes = (1..=16 << 20).contains(&self.max_bytes);
        if bytes && (1..=4096 * 4096).contains(&self.max_pixels) {
            Ok(())
        } else {
            Err("photo.max_bytes must be 1 to 16777216, photo.max_pixels 1 to 16777216".to_owned())
        }
    }
}

/// Pixels, three bytes each, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `3 × width × height` bytes.
    pub rgb: Vec<u8>,
}

fn invalid(code: &str, words: impl Into<String>) -> Refusal {
    Refusal::bad_request(code, format!("`image`: {}", words.into()))
}

fn unreadable(why: impl std::fmt::Display) -> Refusal {
    invalid("invalid_image", format!("it cannot be decoded: {why}"))
}

/// The photograph as a PNG of this size: its middle, as much of it as has the size's proportions.
///
/// # Errors
/// A refusal that says what is wrong with the file.
pub fn plain(bytes: &[u8], limits: PhotoLimits, width: u32, height: u32) -> Result<Vec<u8>, Refusal> {
    let (picture, orientation) = decode(bytes, limits)?;
    let upright = |w, h| if orientation > 4 { (h, w) } else { (w, h) };
    let (w, h) = upright(width, height);
    png(&upright_of(&fitted(&picture, w, h), orientation)).map_err(unreadable)
}

/// A PNG or JPEG, and how it lies (1 to 8, by EXIF).
///
/// # Errors
/// A refusal that says what is wrong with the file.
pub fn decode(bytes: &[u8], limits: PhotoLimits) -> Result<(Picture, u8), Refusal> {
    if bytes.len() > limits.max_bytes {
        let words = format!("{} bytes; at most {} are possible", bytes.len(), limits.max_bytes);
        return Err(Refusal { status: 413, ..invalid("image_too_large", words) });
    }
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Ok((decode_png(bytes, limits)?, 1)),
        [0xff, 0xd8, ..] => decode_jpeg(bytes, limits),
        _ => Err(invalid("invalid_image", "neither PNG nor JPEG")),
    }
}

/// Before any pixel has a place in memory.
fn within(limits: PhotoLimits, width: u64, height: u64) -> Result<(), Refusal> {
    let side = u64::from(MOST_SIDE);
    if width == 0 || height == 0 {
        return Err(invalid("invalid_image", "it has no pixels"));
    }
    if width > side || height > side || width.saturating_mul(height) > limits.max_pixels {
        let words = format!("{width} × {height} pixels; at most {} are possible", limits.max_pixels);
        return Err(Refusal { status: 413, ..invalid("image_too_large", words) });
    }
    Ok(())
}

fn decode_png(bytes: &[u8], limits: PhotoLimits) -> Result<Picture, Refusal> {
    // Four channels of 16 bits, and as much again for the decoder.
    let memory = usize::try_from(limits.max_pixels.saturating_mul(16)).unwrap_or(usize::MAX);
    let mut decoder = Decoder::new_with_limits(
        std::io::Cursor::new(bytes),
        Limits { bytes: memory.saturating_add(1 << 20) },
    );
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let info = decoder.read_header_info().map_err(unreadable)?;
    let (width, height) = (info.width, info.height);
    within(limits, width.into(), height.into())?;
    let mut reader = decoder.read_info().map_err(unreadable)?;
    if reader.info().animation_control.is_some() {
        return Err(invalid("invalid_image", "it is animated"));
    }
    let size = reader.output_buffer_size().ok_or_else(|| unreadable("it is too large"))?;
    let mut raw = vec![0; size];
    let frame = reader.next_frame(&mut raw).map_err(unreadable)?;
    // The rest of the file counts as well: what ends early is no picture.
    reader.finish().map_err(unreadable)?;
    if (frame.width, frame.height, frame.bit_depth) != (width, height, BitDepth::Eight) {
        return Err(unreadable("its frame is not what its header says"));
    }
    let over_white = |value: u8, alpha: u8| {
        let mixed = u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha));
        u8::try_from((mixed + 127) / 255).unwrap_or(255)
    };
    let rgb: Vec<u8> = match frame.color_type {
        ColorType::Rgb => raw,
        ColorType::Rgba => raw
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|[r, g, b, a]| [r, g, b].map(|v| over_white(*v, *a)))
            .collect(),
        ColorType::Grayscale => raw.iter().flat_map(|v| [*v; 3]).collect(),
        ColorType::GrayscaleAlpha => {
            raw.as_chunks::<2>().0.iter().flat_map(|[v, a]| [over_white(*v, *a); 3]).collect()
        }
        ColorType::Indexed => return Err(unreadable("a palette that it does not have")),
    };
    Ok(Picture { width, height, rgb })
}

fn decode_jpeg(bytes: &[u8], limits: PhotoLimits) -> Result<(Picture, u8), Refusal> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MOST_SIDE as usize)
        .set_max_height(MOST_SIDE as usize)
        .jpeg_set_max_scans(MOST_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| unreadable(format!("{e:?}")))?;
    let info = decoder.info().ok_or_else(|| unreadable("it has no header"))?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    within(limits, width.into(), height.into())?;
    let rgb = decoder.decode().map_err(|e| unreadable(format!("{e:?}")))?;
    if rgb.len() as u64 != 3 * u64::from(width) * u64::from(height) {
        return Err(unreadable("its pixels are not as many as its header says"));
    }
    let turned = decoder.exif().map_or(1, |exif| orientation(exif));
    Ok((Picture { width, height, rgb }, turned))
}

/// The orientation (tag 0x0112) of the first directory of a TIFF header, as EXIF has it; 1 where there is none.
fn orientation(exif: &[u8]) -> u8 {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let little = exif.starts_with(b"II");
    let two = |at: usize| {
        let bytes = *exif.get(at..)?.first_chunk::<2>()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let four = |at: usize| {
        let bytes = *exif.get(at..)?.first_chunk::<4>()?;
        usize::try_from(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }).ok()
    };
    let found = || {
        let directory = four(4)?;
        let entries = usize::from(two(directory)?);
        let places = (0..entries.min(256)).map(|n| directory.saturating_add(2 + 12 * n));
        let place = places.into_iter().find(|at| two(*at) == Some(0x0112))?;
        u8::try_from(two(place.saturating_add(8))?).ok().filter(|o| (1..=8).contains(o))
    };
    found().unwrap_or(1)
}

/// Turned and mirrored as EXIF's number says.
fn upright_of(p: &Picture, orientation: u8) -> Picture {
    let (w, h) = (p.width as usize, p.height as usize);
    let turned = orientation > 4;
    let (out_w, out_h) = if turned { (h, w) } else { (w, h) };
    let mut rgb = Vec::with_capacity(p.rgb.len());
    for y in 0..out_h {
        for x in 0..out_w {
            let (from_x, from_y) = match orientation {
                2 => (w - 1 - x, y),
                3 => (w - 1 - x, h - 1 - y),
                4 => (x, h - 1 - y),
                5 => (y, x),
                6 => (y, h - 1 - x),
                7 => (w - 1 - y, h - 1 - x),
                8 => (w - 1 - y, x),
                _ => (x, y),
            };
            let at = 3 * (from_y * w + from_x);
            rgb.extend_from_slice(p.rgb.get(at..at + 3).unwrap_or(&[0; 3]));
        }
    }
    let (width, height) = if turned { (p.height, p.width) } else { (p.width, p.height) };
    Picture { width, height, rgb }
}

/// The middle of a picture in another size: every pixel is the mean of the area that it covers.
#[must_use]
pub fn fitted(p: &Picture, width: u32, height: u32) -> Picture {
    let (w, h) = (f64::from(p.width), f64::from(p.height));
    let scale = (w / f64::from(width)).min(h / f64::from(height));
    let (left, top) = ((w - scale * f64::from(width)) / 2.0, (h - scale * f64::from(height)) / 2.0);
    let columns = cover(left, scale, width, p.width);
    let rows = cover(top, scale, height, p.height);
    let stride = 3 * p.width as usize;
    let mut rgb = Vec::with_capacity(3 * width as usize * height as usize);
    for row in &rows {
        for column in &columns {
            let (mut sum, mut area) = ([0.0_f64; 3], 0.0);
            for (y, tall) in row {
                for (x, wide) in column {
                    let at = y * stride + 3 * x;
                    let weight = tall * wide;
                    for (total, value) in sum.iter_mut().zip(p.rgb.get(at..at + 3).unwrap_or(&[0; 3])) {
                        *total += weight * f64::from(*value);
                    }
                    area += weight;
                }
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "means of bytes")]
            rgb.extend(sum.map(|total| (total / area).round().clamp(0.0, 255.0) as u8));
        }
    }
    Picture { width, height, rgb }
}

/// For each of `n` cells of this length the pixels that it covers, and how much of each.
fn cover(begin: f64, length: f64, n: u32, pixels: u32) -> Vec<Vec<(usize, f64)>> {
    (0..n)
        .map(|i| {
            let (from, to) = (begin + length * f64::from(i), begin + length * f64::from(i + 1));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the picture")]
            let first = from.max(0.0).floor() as u32;
            let mut cells = Vec::new();
            for x in first..pixels {
                let (a, b) = (f64::from(x).max(from), f64::from(x + 1).min(to));
                if f64::from(x) >= to {
                    break;
                }
                if b > a {
                    cells.push((x as usize, b - a));
                }
            }
            // Rounding may leave a cell at the very edge with nothing.
            if cells.is_empty() {
                cells.push((first.min(pixels.saturating_sub(1)) as usize, 1.0));
            }
            cells
        })
        .collect()
}

/// A PNG of these pixels and nothing else; the same bytes for the same pixels.
///
/// # Errors
/// When there are not three bytes a pixel.
pub fn png(p: &Picture) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, p.width, p.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    writer.write_image_data(&p.rgb).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
