//! How two pictures differ.

use super::{Hashes, Plane, channel, count, luma};
use crate::diffusion::Pixels;

/// Both pictures are looked at in this size where theirs may differ.
const SIDE: usize = 64;
/// Side of a window of SSIM, and how far windows are apart.
const WINDOW: usize = 8;
const APART: usize = 4;

/// Distances and likenesses of two pictures. Pixels are in [0, 1] unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Differing bits of 64.
    pub perceptual: u32,
    /// Differing bits of 64.
    pub difference: u32,
    /// Differing bits of 64.
    pub average: u32,
    /// Differing bits of 42.
    pub colour: u32,
    /// Structural similarity of brightness at 64 × 64, mean over windows of 8 × 8: 1 for equal pictures.
    pub ssim: f64,
    /// Mean difference of brightness at 64 × 64.
    pub luma_error: f64,
    /// Mean difference of all channels at full size; `None` where sizes differ.
    pub error: Option<f64>,
    /// The largest, 0 to 255.
    pub largest: Option<u8>,
    /// Peak signal to noise in decibels; 100 for equal pictures.
    pub psnr: Option<f64>,
    /// Correlation of the gradients of brightness at 64 × 64.
    pub gradients: f64,
    /// Mean distance of colours in CIE Lab (1976) at 64 × 64.
    pub lab: f64,
}

/// Compares two pictures.
#[must_use]
pub fn compare(a: &Pixels, b: &Pixels) -> Compared {
    let (ha, hb) = (Hashes::of(a), Hashes::of(b));
    let (la, lb) = (luma(a).resized(SIDE, SIDE), luma(b).resized(SIDE, SIDE));
    let same_size = a.width == b.width && a.height == b.height && a.rgb.len() == b.rgb.len();
    let pairs = || a.rgb.iter().zip(&b.rgb).map(|(x, y)| x.abs_diff(*y));
    let n = count(a.rgb.len());
    let error = same_size.then(|| pairs().map(f64::from).sum::<f64>() / n / 255.0);
    let square =
        same_size.then(|| pairs().map(|d| f64::from(d) * f64::from(d)).sum::<f64>() / n / (255.0 * 255.0));
    Compared {
        perceptual: (ha.perceptual ^ hb.perceptual).count_ones(),
        difference: (ha.difference ^ hb.difference).count_ones(),
        average: (ha.average ^ hb.average).count_ones(),
        colour: (ha.colour ^ hb.colour).count_ones(),
        ssim: ssim(&la, &lb),
        luma_error: mean_error(&la, &lb),
        error,
        largest: same_size.then(|| pairs().max().unwrap_or(0)),
        psnr: square.map(|s| if s > 0.0 { (-10.0 * s.log10()).min(100.0) } else { 100.0 }),
        gradients: gradients(&la, &lb),
        lab: lab_distance(a, b),
    }
}

fn mean_error(a: &Plane, b: &Plane) -> f64 {
    a.values.iter().zip(&b.values).map(|(x, y)| (x - y).abs()).sum::<f64>() / count(a.values.len())
}

/// Wang, Bovik, Sheikh and Simoncelli (2004), with flat windows and the usual constants 0.01² and 0.03².
fn ssim(a: &Plane, b: &Plane) -> f64 {
    let (c1, c2) = (1e-4, 9e-4);
    let window = |p: &Plane, x: usize, y: usize| -> Vec<f64> {
        let rows = p.values.chunks(p.width.max(1)).skip(y).take(WINDOW);
        rows.flat_map(|row| row.iter().skip(x).take(WINDOW).copied()).collect()
    };
    let (mut sum, mut windows) = (0.0, 0_usize);
    for y in (0..=a.height.saturating_sub(WINDOW)).step_by(APART) {
        for x in (0..=a.width.saturating_sub(WINDOW)).step_by(APART) {
            let (p, q) = (window(a, x, y), window(b, x, y));
            let n = count(p.len());
            let (mp, mq) = (p.iter().sum::<f64>() / n, q.iter().sum::<f64>() / n);
            let (mut vp, mut vq, mut both) = (0.0, 0.0, 0.0);
            for (x, y) in p.iter().zip(&q) {
                vp += (x - mp) * (x - mp);
                vq += (y - mq) * (y - mq);
                both += (x - mp) * (y - mq);
            }
            let (vp, vq, both) = (vp / n, vq / n, both / n);
            sum += (2.0 * mp * mq + c1) * (2.0 * both + c2) / ((mp * mp + mq * mq + c1) * (vp + vq + c2));
            windows += 1;
        }
    }
    sum / count(windows)
}

fn gradients(a: &Plane, b: &Plane) -> f64 {
    let slopes = |p: &Plane| -> Vec<f64> {
        let signed = |n: usize| isize::try_from(n).unwrap_or(isize::MAX);
        let mut all = Vec::with_capacity(2 * p.values.len());
        for y in 0..signed(p.height) {
            for x in 0..signed(p.width) {
                all.push(p.at(x + 1, y) - p.at(x - 1, y));
                all.push(p.at(x, y + 1) - p.at(x, y - 1));
            }
        }
        all
    };
    let (p, q) = (slopes(a), slopes(b));
    let (mut pp, mut qq, mut pq) = (0.0, 0.0, 0.0);
    for (x, y) in p.iter().zip(&q) {
        pp += x * x;
        qq += y * y;
        pq += x * y;
    }
    // Two blank pictures have the same slopes: none.
    if pp + qq < 1e-12 { 1.0 } else { pq / (pp * qq).sqrt().max(1e-12) }
}

fn lab_distance(a: &Pixels, b: &Pixels) -> f64 {
    let lab = |p: &Pixels| -> Vec<[f64; 3]> {
        let planes = [0, 1, 2].map(|c| channel(p, c).resized(SIDE, SIDE));
        let [red, green, blue] = &planes;
        let rows = red.values.iter().zip(&green.values).zip(&blue.values);
        rows.map(|((r, g), b)| to_lab([*r, *g, *b])).collect()
    };
    let (p, q) = (lab(a), lab(b));
    let apart = |x: &[f64; 3], y: &[f64; 3]| -> f64 {
        x.iter().zip(y).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
    };
    p.iter().zip(&q).map(|(x, y)| apart(x, y)).sum::<f64>() / count(p.len())
}

/// sRGB to CIE Lab under D65.
fn to_lab(rgb: [f64; 3]) -> [f64; 3] {
    let [r, g, b] = rgb.map(|c| if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) });
    let x = (0.412_456_4 * r + 0.357_576_1 * g + 0.180_437_5 * b) / 0.950_47;
    let y = 0.212_672_9 * r + 0.715_152_2 * g + 0.072_175 * b;
    let z = (0.019_333_9 * r + 0.119_192 * g + 0.950_304_1 * b) / 1.088_83;
    let [x, y, z] = [x, y, z].map(|t| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 });
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// How one picture is best laid upon another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warp {
    /// Mean difference of brightness that is left, at 32 × 32, where the two overlap.
    pub error: f64,
    /// Whether it is the mirror image.
    pub mirrored: bool,
    /// To the right and down, in parts of the side.
    pub shift: [f64; 2],
    /// Above 1 is larger.
    pub scale: f64,
    /// Degrees, clockwise.
    pub turn: f64,
}

/// Looks for the shift, turn, scale or mirror image under which `b` comes nearest to `a`: a coarse search over all, then a
/// finer one around the best.
#[must_use]
pub fn nearest_warp(a: &Pixels, b: &Pixels) -> Warp {
    const N: usize = 32;
    let (a, b) = (luma(a).resized(N, N), luma(b).resized(N, N));
    let mut best = Warp { error: f64::INFINITY, mirrored: false, shift: [0.0, 0.0], scale: 1.0, turn: 0.0 };
    let mut offer = |warp: Warp| {
        let error = left(&a, &b, &warp);
        if error < best.error {
            best = Warp { error, ..warp };
        }
        best
    };
    let mut found = offer(Warp { error: 0.0, mirrored: false, shift: [0.0, 0.0], scale: 1.0, turn: 0.0 });
    for mirrored in [false, true] {
        for scale in [0.8, 0.9, 1.0, 1.12, 1.25] {
            for turn in [-12.0, -6.0, 0.0, 6.0, 12.0] {
                for x in [-0.12, -0.06, 0.0, 0.06, 0.12] {
                    for y in [-0.12, -0.06, 0.0, 0.06, 0.12] {
                        found = offer(Warp { error: 0.0, mirrored, shift: [x, y], scale, turn });
                    }
                }
            }
        }
    }
    let mut step = 0.5;
    for _ in 0..4 {
        let [x, y] = found.shift;
        for (dx, dy, ds, dt) in [
            (0.06, 0.0, 1.0, 0.0),
            (-0.06, 0.0, 1.0, 0.0),
            (0.0, 0.06, 1.0, 0.0),
            (0.0, -0.06, 1.0, 0.0),
            (0.0, 0.0, 1.1, 0.0),
            (0.0, 0.0, 1.0 / 1.1, 0.0),
            (0.0, 0.0, 1.0, 6.0),
            (0.0, 0.0, 1.0, -6.0),
        ] {
            let scale = found.scale * 1.0_f64.mul_add(1.0 - step, ds * step);
            let shift = [x + dx * step, y + dy * step];
            found = offer(Warp { error: 0.0, shift, scale, turn: found.turn + dt * step, ..found });
        }
        step *= 0.6;
    }
    found
}

/// The mean difference where the warped picture covers the other; infinite where it covers less than half.
fn left(a: &Plane, b: &Plane, warp: &Warp) -> f64 {
    let n = count(a.width);
    let (sin, cos) = warp.turn.to_radians().sin_cos();
    let [sx, sy] = warp.shift;
    let (mut sum, mut seen) = (0.0, 0_usize);
    for (row, line) in a.values.chunks(a.width.max(1)).enumerate() {
        for (column, value) in line.iter().enumerate() {
            let x = (count(column + 1) - 0.5) / n - 0.5 - sx;
            let y = (count(row + 1) - 0.5) / n - 0.5 - sy;
            let (u, v) = ((cos * x + sin * y) / warp.scale, (cos * y - sin * x) / warp.scale);
            let u = if warp.mirrored { -u } else { u };
            let (u, v) = ((u + 0.5) * n - 0.5, (v + 0.5) * n - 0.5);
            if u < -0.5 || v < -0.5 || u > n - 0.5 || v > n - 0.5 {
                continue;
            }
            let (fu, fv) = (u.floor(), v.floor());
            #[expect(clippy::cast_possible_truncation, reason = "within the plane's sides")]
            let (x0, y0) = (fu as isize, fv as isize);
            let (pu, pv) = (u - fu, v - fv);
            let top = b.at(x0, y0) * (1.0 - pu) + b.at(x0 + 1, y0) * pu;
            let bottom = b.at(x0, y0 + 1) * (1.0 - pu) + b.at(x0 + 1, y0 + 1) * pu;
            sum += (value - (top * (1.0 - pv) + bottom * pv)).abs();
            seen += 1;
        }
    }
    if seen * 2 < a.values.len() { f64::INFINITY } else { sum / count(seen) }
}
