//! From pixels to a graph's input.

use super::manifest::{Layout, Manifest, Order};
use crate::diffusion::Pixels;
use crate::pixels::resized;

impl Manifest {
    /// The picture as the graph takes it: brought to size, coloured in order, scaled.
    pub(crate) fn prepare(&self, picture: &Pixels) -> Vec<f32> {
        let [width, height] = self.size();
        let brought = match self.input.resize {
            Some(side) => {
                let whole = resized(picture, side, side);
                middle(&whole, width, height)
            }
            None if picture.width == width && picture.height == height => picture.clone(),
            None => resized(picture, width, height),
        };
        let value = |pixel: &[u8; 3], channel: usize| {
            let from = if self.input.order == Order::Rgb { channel } else { 2 - channel };
            let at = |list: &[f32; 3]| list.get(channel).copied().unwrap_or(1.0);
            let raw = f32::from(pixel.get(from).copied().unwrap_or(0));
            (raw / self.input.scale - at(&self.input.mean)) / at(&self.input.deviation)
        };
        let pixels = brought.rgb.as_chunks::<3>().0;
        match self.input.layout {
            Layout::Nchw => (0..3).flat_map(|c| pixels.iter().map(move |p| value(p, c))).collect(),
            Layout::Nhwc => pixels.iter().flat_map(|p| (0..3).map(move |c| value(p, c))).collect(),
        }
    }
}

fn middle(picture: &Pixels, width: usize, height: usize) -> Pixels {
    let (left, top) =
        ((picture.width - width.min(picture.width)) / 2, (picture.height - height.min(picture.height)) / 2);
    let rows = picture.rgb.chunks(picture.width.max(1) * 3).skip(top).take(height);
    let rgb = rows.flat_map(|row| row.iter().skip(left * 3).take(width * 3).copied()).collect();
    Pixels { width, height, rgb }
}
