//! Other sizes, by areas when smaller and by straight lines when larger.

use super::Plane;
use crate::diffusion::Pixels;

/// What each new place takes of the old ones: first old place, and weights that sum to 1.
fn shares(from: usize, to: usize) -> Vec<(usize, Vec<f64>)> {
    let (old, new) = (super::count(from), super::count(to));
    (0..to)
        .map(|i| {
            let i = super::count(i + 1) - 1.0;
            if to <= from {
                let (begin, end) = (i * old / new, (i + 1.0) * old / new);
                let first = floor(begin, from);
                let last = floor(end - 1e-9, from);
                let covered = |k: usize| {
                    let k = super::count(k + 1) - 1.0;
                    (end.min(k + 1.0) - begin.max(k)).max(0.0)
                };
                let weights: Vec<f64> = (first..=last).map(covered).collect();
                let sum: f64 = weights.iter().sum();
                (first, weights.iter().map(|w| w / sum).collect())
            } else {
                let at = ((i + 0.5) * old / new - 0.5).clamp(0.0, old - 1.0);
                let first = floor(at, from);
                let part = at - at.floor();
                if first + 1 < from { (first, vec![1.0 - part, part]) } else { (first, vec![1.0]) }
            }
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a side's length")]
fn floor(x: f64, below: usize) -> usize {
    (x.max(0.0) as usize).min(below.saturating_sub(1))
}

impl Plane {
    /// The plane at another size, at least 1 × 1.
    pub(crate) fn resized(&self, width: usize, height: usize) -> Self {
        let (columns, rows) = (shares(self.width, width.max(1)), shares(self.height, height.max(1)));
        let mut narrow = Vec::with_capacity(columns.len() * self.height);
        for line in self.values.chunks(self.width.max(1)) {
            for (first, weights) in &columns {
                let taken = line.iter().skip(*first).zip(weights);
                narrow.push(taken.map(|(v, w)| v * w).sum::<f64>());
            }
        }
        let mut values = Vec::with_capacity(columns.len() * rows.len());
        for (first, weights) in &rows {
            for x in 0..columns.len() {
                let taken = narrow.iter().skip(first * columns.len() + x).step_by(columns.len()).zip(weights);
                values.push(taken.map(|(v, w)| v * w).sum::<f64>());
            }
        }
        Self { width: columns.len(), height: rows.len(), values }
    }
}

/// The picture at another size: areas when smaller, straight lines when larger; rounded to the nearest.
#[must_use]
pub fn resized(picture: &Pixels, width: usize, height: usize) -> Pixels {
    let planes = [0, 1, 2].map(|c| super::channel(picture, c).resized(width, height));
    let [red, green, blue] = &planes;
    let mut rgb = Vec::with_capacity(red.values.len() * 3);
    for ((r, g), b) in red.values.iter().zip(&green.values).zip(&blue.values) {
        rgb.extend([*r, *g, *b].map(byte));
    }
    Pixels { width: red.width, height: red.height, rgb }
}

/// The picture moved to the right and down, edges repeated.
#[must_use]
pub fn shifted(picture: &Pixels, right: usize, down: usize) -> Pixels {
    let mut rgb = Vec::with_capacity(picture.rgb.len());
    for y in 0..picture.height {
        for x in 0..picture.width {
            let at = y.saturating_sub(down) * picture.width + x.saturating_sub(right);
            rgb.extend_from_slice(picture.rgb.get(at * 3..at * 3 + 3).unwrap_or(&[0, 0, 0]));
        }
    }
    Pixels { width: picture.width, height: picture.height, rgb }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 255")]
pub(crate) fn byte(v: f64) -> u8 {
    (v * 255.0).round().clamp(0.0, 255.0) as u8
}
