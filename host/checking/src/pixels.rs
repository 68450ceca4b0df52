//! Pictures as bytes and as pixels: what a stranger's file holds, facts about it, and how two pictures differ.
//!
//! For: deciding under limits whether bytes are one still picture, and numbers by which two pictures are told apart. Not
//! for: judging. The one idea: everything is plain double-precision arithmetic in a fixed order, so two machines differ by
//! no more than the last place of their cosine; the decoders' results are fixed by the formats.

mod compare;
mod container;
mod decode;
mod facts;
mod hash;
mod resize;

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};

pub use compare::{Compared, Warp, compare, nearest_warp};
pub use decode::{BadImage, DecodeLimits, Decoded, Fault, decode};
pub use facts::{Facts, facts};
pub use hash::Hashes;
pub(crate) use resize::byte;
pub use resize::{resized, shifted};

use crate::diffusion::Pixels;

/// The picture as PNG; the same bytes for the same pixels. Empty if it has not 3 bytes a pixel.
#[must_use]
pub fn encode_png(picture: &Pixels) -> Vec<u8> {
    let mut out = Vec::new();
    let encoder =
        PngEncoder::new_with_quality(Cursor::new(&mut out), CompressionType::Default, FilterType::Adaptive);
    match sides(picture) {
        Some((w, h)) if encoder.write_image(&picture.rgb, w, h, ExtendedColorType::Rgb8).is_ok() => out,
        _ => Vec::new(),
    }
}

/// The picture as JPEG of this quality, 1 to 100. Empty if it has not 3 bytes a pixel.
#[must_use]
pub fn encode_jpeg(picture: &Pixels, quality: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let encoder = JpegEncoder::new_with_quality(Cursor::new(&mut out), quality.clamp(1, 100));
    match sides(picture) {
        Some((w, h)) if encoder.write_image(&picture.rgb, w, h, ExtendedColorType::Rgb8).is_ok() => out,
        _ => Vec::new(),
    }
}

fn sides(picture: &Pixels) -> Option<(u32, u32)> {
    let whole = picture.width.checked_mul(picture.height)?.checked_mul(3)? == picture.rgb.len();
    let sides = (u32::try_from(picture.width).ok()?, u32::try_from(picture.height).ok()?);
    (whole && sides.0 > 0 && sides.1 > 0).then_some(sides)
}

/// A plane of numbers, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plane {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) values: Vec<f64>,
}

impl Plane {
    /// The value at a place; edges are repeated.
    pub(crate) fn at(&self, x: isize, y: isize) -> f64 {
        let clamp = |v: isize, n: usize| usize::try_from(v).unwrap_or(0).min(n.saturating_sub(1));
        let (x, y) = (clamp(x, self.width), clamp(y, self.height));
        self.values.get(y * self.width + x).copied().unwrap_or(0.0)
    }

    pub(crate) fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / count(self.values.len())
    }
}

/// At least 1, so that it can be divided by.
#[expect(clippy::cast_precision_loss, reason = "pictures have far fewer than 2^53 pixels")]
pub(crate) fn count(n: usize) -> f64 {
    n.max(1) as f64
}

/// Brightness in [0, 1], by the weights of Rec. 601.
pub(crate) fn luma(picture: &Pixels) -> Plane {
    let values = picture
        .rgb
        .as_chunks::<3>()
        .0
        .iter()
        .map(|[r, g, b]| (0.299 * f64::from(*r) + 0.587 * f64::from(*g) + 0.114 * f64::from(*b)) / 255.0);
    Plane { width: picture.width, height: picture.height, values: values.collect() }
}

/// One colour in [0, 1]: 0 red, 1 green, 2 blue.
pub(crate) fn channel(picture: &Pixels, which: usize) -> Plane {
    let of = |p: &[u8; 3]| f64::from(p.get(which).copied().unwrap_or(0)) / 255.0;
    let values = picture.rgb.as_chunks::<3>().0.iter().map(of).collect();
    Plane { width: picture.width, height: picture.height, values }
}

#[cfg(test)]
mod tests;
