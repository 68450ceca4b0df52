//! Facts about one picture.

use super::{Hashes, Plane, channel, count, luma};
use crate::diffusion::Pixels;

/// Numbers of pixels in [0, 1].
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Four hashes.
    pub hashes: Hashes,
    /// Of red, green and blue.
    pub mean: [f64; 3],
    /// Of red, green and blue.
    pub deviation: [f64; 3],
    /// Share of the most frequent colour, at five bits a channel: 1 for a blank picture.
    pub most_common: f64,
    /// Mean difference of neighbours' brightness.
    pub gradient: f64,
    /// Variance of brightness against the mean of its four neighbours.
    pub sharpness: f64,
    /// Mean step of brightness across every eighth column and row, over that elsewhere: above 1 for coarse JPEG.
    pub blockiness: f64,
    /// Share of the variance that is lost at half the size: near 0 for what was enlarged.
    pub high_frequencies: f64,
}

/// Looks at a picture.
#[must_use]
pub fn facts(picture: &Pixels) -> Facts {
    let light = luma(picture);
    let planes = [0, 1, 2].map(|c| channel(picture, c));
    let mean = planes.each_ref().map(Plane::mean);
    let deviation = planes.each_ref().map(|p| variance(p).sqrt());
    let mut colours = vec![0_usize; 1 << 15];
    for pixel in picture.rgb.as_chunks::<3>().0 {
        let colour = pixel.iter().fold(0, |all, v| (all << 5) | usize::from(v >> 3));
        if let Some(seen) = colours.get_mut(colour) {
            *seen += 1;
        }
    }
    let most = colours.into_iter().max().unwrap_or(0);
    let (gradient, blockiness) = steps(&light);
    Facts {
        hashes: Hashes::of(picture),
        mean,
        deviation,
        most_common: count(most) / count(light.values.len()),
        gradient,
        sharpness: sharpness(&light),
        blockiness,
        high_frequencies: high_frequencies(&light),
    }
}

pub(super) fn variance(plane: &Plane) -> f64 {
    let mean = plane.mean();
    plane.values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count(plane.values.len())
}

fn places(plane: &Plane) -> impl Iterator<Item = (isize, isize)> + use<> {
    let signed = |n: usize| isize::try_from(n).unwrap_or(isize::MAX);
    let (width, height) = (signed(plane.width), signed(plane.height));
    (0..height).flat_map(move |y| (0..width).map(move |x| (x, y)))
}

/// The mean step between neighbours, and that on the grid of eight over that beside it.
fn steps(light: &Plane) -> (f64, f64) {
    let (mut on, mut off) = ((0.0, 0_usize), (0.0, 0_usize));
    for (x, y) in places(light) {
        for (across, dx, dy) in [(x, 1, 0), (y, 0, 1)] {
            let step = (light.at(x + dx, y + dy) - light.at(x, y)).abs();
            let to = if across % 8 == 7 { &mut on } else { &mut off };
            to.0 += step;
            to.1 += 1;
        }
    }
    let (grid, beside) = (on.0 / count(on.1), off.0 / count(off.1));
    ((on.0 + off.0) / count(on.1 + off.1), (grid + 1e-3) / (beside + 1e-3))
}

fn sharpness(light: &Plane) -> f64 {
    let around = |x: isize, y: isize| {
        (light.at(x - 1, y) + light.at(x + 1, y) + light.at(x, y - 1) + light.at(x, y + 1)) / 4.0
    };
    let values = places(light).map(|(x, y)| light.at(x, y) - around(x, y)).collect();
    variance(&Plane { width: light.width, height: light.height, values })
}

fn high_frequencies(light: &Plane) -> f64 {
    let all = variance(light);
    if all < 1e-9 {
        return 0.0;
    }
    let half = light.resized(light.width.div_ceil(2), light.height.div_ceil(2));
    let back = half.resized(light.width, light.height);
    let lost: f64 = light.values.iter().zip(&back.values).map(|(a, b)| (a - b) * (a - b)).sum();
    lost / count(light.values.len()) / all
}
