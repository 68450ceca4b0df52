//! A few numbers about a few numbers.

use serde::Serialize;

use crate::machine::float;

/// A distribution, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The sample's standard deviation; 0 of fewer than two.
    pub deviation: f64,
    /// The least.
    pub min: f64,
    /// The 10th percentile.
    pub p10: f64,
    /// The median.
    pub median: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of these values; all 0 of none.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else { return Self::default() };
        let n = float(sorted.len() as u64);
        let mean = sorted.iter().sum::<f64>() / n;
        let squares = sorted.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        Self {
            mean,
            deviation: if sorted.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 },
            min: *min,
            p10: quantile(&sorted, 0.1),
            median: quantile(&sorted, 0.5),
            p90: quantile(&sorted, 0.9),
            max: *max,
        }
    }
}

/// Between the two nearest of ascending values; 0 of none.
pub(crate) fn quantile(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = p.clamp(0.0, 1.0) * float(last as u64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place below the length")]
    let below = at.floor() as usize;
    let lower = sorted.get(below).copied().unwrap_or(0.0);
    let upper = sorted.get(below + 1).copied().unwrap_or(lower);
    lower + (upper - lower) * (at - at.floor())
}

/// Cosine of the angle between two vectors, the shorter one filled with zeros; 0 where one is 0.
pub(crate) fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let both = norm(a) * norm(b);
    if both > 0.0 { (dot / both).clamp(-1.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values() {
        let s = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((s.min, s.median, s.max, s.mean), (1.0, 2.5, 4.0, 2.5));
        assert_eq!(Spread::of(&[]), Spread::default());
        assert!((quantile(&[0.0, 1.0], 0.1) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn a_cosine_is_of_directions() {
        assert!((cosine(&[1.0, 2.0], &[2.0, 4.0]) - 1.0).abs() < 1e-12);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 1.0]), 0.0);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
    }
}
