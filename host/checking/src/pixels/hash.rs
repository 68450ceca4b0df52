//! Four hashes of 64 bits or less: alike pictures have few bits that differ.

use super::{Plane, channel, luma};
use crate::diffusion::Pixels;

/// Brightness that differs by less, half a step of 8 bits, counts as equal: otherwise rounding would set the bits of
/// whatever is blank.
const EVEN: f64 = 1.0 / 512.0;

/// Hashes of one picture. Distances are counts of differing bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashes {
    /// The 8 × 8 lowest frequencies of brightness at 32 × 32 (cosine transform), each against their median.
    pub perceptual: u64,
    /// Brightness at 9 × 8, each place against its neighbour on the right.
    pub difference: u64,
    /// Brightness at 8 × 8, each against the mean.
    pub average: u64,
    /// Shares of black, grey, and of faint and bright pixels in six hues, in three bits each: 14 × 3 bits.
    pub colour: u64,
}

impl Hashes {
    /// Of a picture.
    #[must_use]
    pub fn of(picture: &Pixels) -> Self {
        let light = luma(picture);
        Self {
            perceptual: perceptual(&light),
            difference: difference(&light),
            average: average(&light),
            colour: colour(picture),
        }
    }
}

fn bits(all: impl Iterator<Item = bool>) -> u64 {
    all.take(64).fold(0, |bits, bit| (bits << 1) | u64::from(bit))
}

fn average(light: &Plane) -> u64 {
    let small = light.resized(8, 8);
    let mean = small.mean();
    bits(small.values.iter().map(|v| *v > mean + EVEN))
}

fn difference(light: &Plane) -> u64 {
    let small = light.resized(9, 8);
    let rows = small.values.chunks(9);
    bits(rows.flat_map(|row| row.iter().zip(row.iter().skip(1)).map(|(left, right)| *right > left + EVEN)))
}

fn perceptual(light: &Plane) -> u64 {
    const N: usize = 32;
    let small = light.resized(N, N);
    let wave = |k: usize, n: usize| {
        let (k, n) = (super::count(k + 1) - 1.0, super::count(n + 1) - 1.0);
        (std::f64::consts::PI * k * (2.0 * n + 1.0) / (2.0 * super::count(N))).cos()
    };
    let mut low = Vec::with_capacity(64);
    for v in 0..8 {
        for u in 0..8 {
            let mut sum = 0.0;
            for (y, row) in small.values.chunks(N).enumerate() {
                let line: f64 = row.iter().enumerate().map(|(x, l)| l * wave(u, x)).sum();
                sum += line * wave(v, y);
            }
            low.push(sum);
        }
    }
    // Without the mean brightness, which is no structure.
    let mut sorted: Vec<f64> = low.iter().skip(1).copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    // What a wave of that height would sum up to, were it nowhere else.
    let even = EVEN * super::count(N * N) / 4.0;
    bits(low.iter().map(|v| *v > median + even))
}

fn colour(picture: &Pixels) -> u64 {
    let planes = [0, 1, 2].map(|c| channel(picture, c).resized(32, 32));
    let [red, green, blue] = &planes;
    let mut shares = [0.0_f64; 14];
    let one = 1.0 / super::count(red.values.len());
    for ((r, g), b) in red.values.iter().zip(&green.values).zip(&blue.values) {
        let (most, least) = (r.max(*g).max(*b), r.min(*g).min(*b));
        let spread = most - least;
        let saturation = if most > 0.0 { spread / most } else { 0.0 };
        let place = if most < 0.125 {
            0
        } else if saturation < 0.17 {
            1
        } else {
            let hue = if most <= *r {
                (g - b) / spread
            } else if most <= *g {
                2.0 + (b - r) / spread
            } else {
                4.0 + (r - g) / spread
            };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and 5")]
            let sector = (hue.rem_euclid(6.0) as usize).min(5);
            sector + if saturation > 0.6 { 8 } else { 2 }
        };
        if let Some(share) = shares.get_mut(place) {
            *share += one;
        }
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and 7")]
    let level = |share: f64| (share * 8.0).min(7.0) as u64;
    // Three bits as a thermometer would waste none: neighbours differ in one bit (Gray).
    shares.iter().fold(0, |bits, share| {
        let l = level(*share);
        (bits << 3) | (l ^ (l >> 1))
    })
}
