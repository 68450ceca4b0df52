//! Faces: which places of a detector's grid are one, and how a face is brought to where a model expects it.

use crate::diffusion::Pixels;
use crate::pixels::byte;

/// Left eye, right eye, nose, left and right corner of the mouth, as the beholder sees them: x and y in pixels.
pub type Landmarks = [[f64; 2]; 5];

/// Two boxes that share more than this of their union are of one face.
const OVERLAP: f64 = 0.4;
/// The most faces of a picture.
const MOST: usize = 32;

/// A face in a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// In [0, 1].
    pub score: f64,
    /// Left, top, right, bottom in pixels.
    pub place: [f64; 4],
    /// In pixels.
    pub landmarks: Landmarks,
}

/// Places above the threshold, the most certain first, one for each face.
pub(crate) fn strongest(
    scores: &[f32],
    boxes: &[f32],
    landmarks: &[f32],
    picture: &Pixels,
    threshold: f32,
) -> Vec<Face> {
    let (w, h) = (crate::pixels::count(picture.width), crate::pixels::count(picture.height));
    let places = scores.iter().zip(boxes.as_chunks::<4>().0).zip(landmarks.as_chunks::<10>().0);
    let mut faces: Vec<Face> = places
        .filter(|((score, _), _)| **score >= threshold)
        .map(|((score, b), l)| {
            let [left, top, right, bottom] = b.map(f64::from);
            let mut points = [[0.0; 2]; 5];
            for (point, [x, y]) in points.iter_mut().zip(l.as_chunks::<2>().0) {
                *point = [f64::from(*x) * w, f64::from(*y) * h];
            }
            Face {
                score: f64::from(*score),
                place: [left * w, top * h, right * w, bottom * h],
                landmarks: points,
            }
        })
        .collect();
    faces.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Face> = Vec::new();
    for face in faces {
        if kept.len() < MOST && kept.iter().all(|k| overlap(&k.place, &face.place) <= OVERLAP) {
            kept.push(face);
        }
    }
    kept
}

/// What two boxes share of their union.
fn overlap(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let area = |[l, t, r, b]: &[f64; 4]| (r - l).max(0.0) * (b - t).max(0.0);
    let ([al, at, ar, ab], [bl, bt, br, bb]) = (a, b);
    let shared = area(&[al.max(*bl), at.max(*bt), ar.min(*br), ab.min(*bb)]);
    shared / (area(a) + area(b) - shared).max(1e-9)
}

/// The picture turned, scaled and moved so that its landmarks come nearest to the template's, in the sense of least
/// squares (Umeyama 1991), sampled by straight lines with repeated edges. `None` for landmarks that lie in one place, or
/// are no numbers.
pub(crate) fn aligned(
    picture: &Pixels,
    from: &Landmarks,
    to: &Landmarks,
    [width, height]: [usize; 2],
) -> Option<Pixels> {
    let middle = |points: &Landmarks| -> [f64; 2] {
        let sum = points.iter().fold([0.0, 0.0], |[sx, sy], [x, y]| [sx + x, sy + y]);
        sum.map(|s| s / 5.0)
    };
    let ([fx, fy], [tx, ty]) = (middle(from), middle(to));
    // A similarity of the plane is a complex factor: Σ conj(f) t / Σ |f|².
    let (mut real, mut imaginary, mut size) = (0.0, 0.0, 0.0);
    for ([x, y], [u, v]) in from.iter().zip(to) {
        let (x, y, u, v) = (x - fx, y - fy, u - tx, v - ty);
        real += x * u + y * v;
        imaginary += x * v - y * u;
        size += x * x + y * y;
    }
    let (real, imaginary) = (real / size, imaginary / size);
    let square = real * real + imaginary * imaginary;
    if !(size > 1e-6 && square.is_finite() && square > 1e-9) {
        return None;
    }
    let sample = |x: f64, y: f64, channel: usize| -> f64 {
        let (x0, y0) = (x.floor(), y.floor());
        let (ax, ay) = (x - x0, y - y0);
        let at = |x: f64, y: f64| -> f64 {
            let clamp = |v: f64, n: usize| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "clamped to a side"
                )]
                let v = v.clamp(0.0, crate::pixels::count(n) - 1.0) as usize;
                v
            };
            let place = (clamp(y, picture.height) * picture.width + clamp(x, picture.width)) * 3 + channel;
            f64::from(picture.rgb.get(place).copied().unwrap_or(0))
        };
        let top = at(x0, y0) * (1.0 - ax) + at(x0 + 1.0, y0) * ax;
        let bottom = at(x0, y0 + 1.0) * (1.0 - ax) + at(x0 + 1.0, y0 + 1.0) * ax;
        top * (1.0 - ay) + bottom * ay
    };
    let mut rgb = Vec::with_capacity(width * height * 3);
    for row in 0..height {
        for column in 0..width {
            // Where this pixel's middle comes from.
            let (u, v) =
                (crate::pixels::count(column + 1) - 0.5 - tx, crate::pixels::count(row + 1) - 0.5 - ty);
            let x = (u * real + v * imaginary) / square + fx - 0.5;
            let y = (v * real - u * imaginary) / square + fy - 0.5;
            rgb.extend((0..3).map(|c| byte(sample(x, y, c) / 255.0)));
        }
    }
    Some(Pixels { width, height, rgb })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: Landmarks = [[22.0, 24.0], [42.0, 24.0], [32.0, 34.0], [25.0, 44.0], [39.0, 44.0]];

    fn picture() -> Pixels {
        let rgb = (0..64 * 64).flat_map(|i| [(i % 64 * 4) as u8, (i / 64 * 4) as u8, 60]).collect();
        Pixels { width: 64, height: 64, rgb }
    }

    #[test]
    fn landmarks_that_are_where_they_shall_be_change_nothing() {
        assert_eq!(aligned(&picture(), &TEMPLATE, &TEMPLATE, [64, 64]).unwrap(), picture());
    }

    #[test]
    fn a_moved_face_comes_back() {
        let moved = TEMPLATE.map(|[x, y]| [x + 3.0, y - 2.0]);
        let back = aligned(&picture(), &moved, &TEMPLATE, [64, 64]).unwrap();
        let at = |p: &Pixels, x: usize, y: usize| p.rgb[(y * 64 + x) * 3..][..2].to_vec();
        assert_eq!(at(&back, 30, 30), at(&picture(), 33, 28));
        let half = TEMPLATE.map(|[x, y]| [x / 2.0, y / 2.0]);
        let grown = aligned(&picture(), &half, &TEMPLATE, [64, 64]).unwrap();
        assert!(at(&grown, 40, 40)[0].abs_diff(at(&picture(), 20, 20)[0]) <= 3);
    }

    #[test]
    fn landmarks_that_no_face_has_are_refused() {
        for bad in [[[5.0, 5.0]; 5], [[f64::NAN, 1.0]; 5], [[f64::INFINITY, 1.0]; 5]] {
            assert_eq!(aligned(&picture(), &bad, &TEMPLATE, [64, 64]), None);
        }
    }

    #[test]
    fn neighbouring_places_of_one_face_are_one_face() {
        let scores = [0.6, 0.9, 0.8, 0.2];
        let boxes = [0.1, 0.1, 0.5, 0.5, 0.12, 0.1, 0.52, 0.5, 0.6, 0.6, 0.9, 0.9, 0.0, 0.0, 1.0, 1.0];
        let faces = strongest(&scores, &boxes, &[0.5; 40], &picture(), 0.5);
        assert_eq!(faces.iter().map(|f| (f.score * 10.0).round() as i32).collect::<Vec<_>>(), [9, 8]);
        assert_eq!(faces[0].landmarks[0], [32.0, 32.0]);
    }
}
