//! Bytes to one still picture, under limits that hold before anything is allocated.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};

use super::container::{Broken, layout};
use crate::diffusion::Pixels;

/// What is decoded at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes of the file.
    pub most_bytes: usize,
    /// Pixels of a side.
    pub most_side: u32,
    /// Pixels in all.
    pub most_pixels: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { most_bytes: 16 << 20, most_side: 4096, most_pixels: 2048 * 2048 }
    }
}

/// One still picture and what its file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Its pixels; transparency is left out.
    pub pixels: Pixels,
    /// `png`, `jpeg`, `webp` or `gif`.
    pub format: &'static str,
    /// Whether any pixel is not opaque.
    pub alpha: bool,
    /// Of a JPEG, 1 to 100, estimated from its quantisation.
    pub jpeg_quality: Option<u8>,
    /// Bytes behind the picture's end.
    pub trailing_bytes: usize,
}

/// Why bytes are not one still picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They begin like none of the four formats, or cannot be read as the one that they begin like.
    NotAnImage,
    /// More bytes, or more pixels by the header, than are looked at.
    TooLarge,
    /// The file ends before the picture does.
    Truncated,
    /// The file is whole, and the picture is not what its header says.
    Lies,
    /// More than one frame.
    Animated,
}

impl Fault {
    /// As answers write it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotAnImage => "not-an-image",
            Self::TooLarge => "too-large",
            Self::Truncated => "truncated",
            Self::Lies => "lies",
            Self::Animated => "animated",
        }
    }
}

/// Why bytes are not one still picture, in a code and in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {words}", .fault.code())]
pub struct BadImage {
    /// The code.
    pub fault: Fault,
    /// The words: one line.
    pub words: String,
}

fn bad(fault: Fault, words: impl Into<String>) -> BadImage {
    let words: String = words.into();
    BadImage {
        fault,
        words: words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect(),
    }
}

/// Reads a PNG, JPEG, WebP or GIF, told by its first bytes.
///
/// # Errors
/// [`BadImage`] for anything that is not one still picture within the limits.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Decoded, BadImage> {
    if bytes.len() > limits.most_bytes {
        return Err(bad(Fault::TooLarge, format!("{} bytes, at most {}", bytes.len(), limits.most_bytes)));
    }
    let (format, name) = match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => (ImageFormat::Png, "png"),
        Ok(ImageFormat::Jpeg) => (ImageFormat::Jpeg, "jpeg"),
        Ok(ImageFormat::WebP) => (ImageFormat::WebP, "webp"),
        Ok(ImageFormat::Gif) => (ImageFormat::Gif, "gif"),
        _ => return Err(bad(Fault::NotAnImage, "neither PNG, JPEG, WebP nor GIF")),
    };
    let layout = layout(bytes, format);
    let unreadable = |e: image::ImageError| classify(&e, layout.end.err());
    let (width, height) =
        ImageReader::with_format(Cursor::new(bytes), format).into_dimensions().map_err(unreadable)?;
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > limits.most_side || pixels > limits.most_pixels {
        return Err(bad(Fault::TooLarge, format!("{width} × {height} pixels by its header")));
    }
    if width == 0 || height == 0 {
        return Err(bad(Fault::Lies, "no pixels by its header"));
    }
    if layout.moves {
        return Err(bad(Fault::Animated, "more than one frame"));
    }
    // Decoders fill up what is missing, so they are not asked.
    let end = layout.end.map_err(|broken| match broken {
        Broken::Cut => bad(Fault::Truncated, "the file breaks off before its end"),
        Broken::Nonsense => bad(Fault::NotAnImage, format!("what follows its header is no {name}")),
    })?;
    let mut allowed = Limits::default();
    allowed.max_image_width = Some(limits.most_side);
    allowed.max_image_height = Some(limits.most_side);
    // Sixteen bits of four channels, and as much again for the decoder itself.
    allowed.max_alloc = Some(pixels.saturating_mul(16).saturating_add(1 << 20));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(allowed);
    let picture = reader.decode().map_err(unreadable)?;
    if (picture.width(), picture.height()) != (width, height) {
        return Err(bad(Fault::Lies, "its pixels are not as many as its header says"));
    }
    let alpha = picture.color().has_alpha() && is_translucent(&picture);
    let rgb = picture.to_rgb8().into_raw();
    Ok(Decoded {
        pixels: Pixels { width: side(width), height: side(height), rgb },
        format: name,
        alpha,
        jpeg_quality: (format == ImageFormat::Jpeg).then(|| jpeg_quality(bytes)).flatten(),
        trailing_bytes: bytes.len().saturating_sub(end),
    })
}

fn side(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn is_translucent(picture: &DynamicImage) -> bool {
    picture.to_rgba8().as_raw().as_chunks::<4>().0.iter().any(|[_, _, _, a]| *a != 255)
}

/// A file that is whole and cannot be read lies; one that breaks off is cut.
fn classify(e: &image::ImageError, broken: Option<Broken>) -> BadImage {
    let fault = match broken {
        _ if matches!(e, image::ImageError::Limits(_)) => Fault::TooLarge,
        None => Fault::Lies,
        Some(Broken::Cut) => Fault::Truncated,
        Some(Broken::Nonsense) => Fault::NotAnImage,
    };
    bad(fault, e.to_string())
}

/// The table for brightness of the standard's annex K, in zigzag order as files store it.
const STANDARD: [u16; 64] = [
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40,
    58, 51, 61, 60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103,
    104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
];

/// The quality whose scaled standard table is nearest to the file's first one.
fn jpeg_quality(bytes: &[u8]) -> Option<u8> {
    let table = first_table(bytes)?;
    let off = |quality: u8| -> u64 {
        let q = u32::from(quality);
        let scale = if q < 50 { 5000 / q } else { 200 - 2 * q };
        let scaled = |s: u16| ((u32::from(s) * scale + 50) / 100).clamp(1, 255);
        STANDARD.iter().zip(&table).map(|(s, t)| u64::from(scaled(*s).abs_diff(u32::from(*t)))).sum()
    };
    (1..=100).min_by_key(|q| off(*q))
}

fn first_table(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut at = 2_usize;
    loop {
        let [0xFF, kind, high, low] = bytes.get(at..at.checked_add(4)?)? else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind == 0xDB {
            let body = bytes.get(at.checked_add(4)?..at.checked_add(2)?.checked_add(length)?)?;
            let (precision, table) = body.split_first()?;
            return (precision >> 4 == 0).then(|| table.get(..64).map(<[u8]>::to_vec)).flatten();
        }
        at = at.checked_add(2)?.checked_add(length)?;
    }
}
