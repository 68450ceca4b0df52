//! `f`: how fast a miner's answers came, against references that belong to the task.
//!
//! Not a rank: where a miner stands moves nobody else's factor, and being faster by a hair is worth a hair.

use nineteen_domain::ledger::QualitySample;
use nineteen_domain::policy::DefaultScoring;
use nineteen_domain::task::SpeedReference;

use crate::samples::{percentile, units_per_s};
use crate::settlement::SpeedParts;
use crate::{float, unit, within};

/// `f = f_v^part · f_t^(1 − part)`, each of them [`factor`] of a ratio: `r_v` the policy's percentile of
/// verified units per second over the reference's, `r_t` the reference's time to the first verified unit over
/// the median of `samples`. In [0, 2]; 1 where the task has no reference that can be divided by.
pub(crate) fn speed(
    rules: &DefaultScoring,
    reference: Option<&SpeedReference>,
    samples: &[&QualitySample],
) -> SpeedParts {
    let metric = percentile(rules.speed_percentile, samples.iter().map(|s| units_per_s(s)).collect());
    let first_unit_us = median(samples.iter().filter_map(|s| s.first_unit_us).map(float).collect());
    let parts = SpeedParts { metric, first_unit_us, factor: 1.0, ..SpeedParts::default() };
    let Some(reference) = reference.filter(|r| r.is_usable()) else { return parts };
    let ratio = within(metric.map_or(rules.unknown_speed, |m| m / reference.units_per_s), 0.0, f64::MAX);
    let first_unit_ratio = reference
        .first_unit_ms
        .zip(first_unit_us)
        // A unit within the clock's microsecond took one.
        .map(|(reference_ms, own_us)| float(reference_ms) * 1e3 / own_us.max(1.0));
    let throughput_part = unit(rules.throughput_part);
    SpeedParts {
        ratio: Some(ratio),
        first_unit_ratio,
        factor: factor(ratio).powf(throughput_part)
            * first_unit_ratio.map_or(1.0, factor).powf(1.0 - throughput_part),
        ..parts
    }
}

/// `2√r/(1 + √r)` of a ratio of at least 0: 0 for nothing, 1 for the reference, below 2 however fast.
fn factor(ratio: f64) -> f64 {
    let root = ratio.sqrt();
    2.0 * root / (1.0 + root)
}

/// The middle value, or the mean of the two in the middle; `None` of nothing.
fn median(mut values: Vec<f64>) -> Option<f64> {
    let at = values.len().checked_sub(1)? / 2;
    let is_even = values.len().is_multiple_of(2);
    let (_, lower, above) = values.select_nth_unstable_by(at, f64::total_cmp);
    let upper = if is_even { above.iter().copied().min_by(f64::total_cmp) } else { None };
    Some(f64::midpoint(*lower, upper.unwrap_or(*lower)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_factor_hold() {
        for (ratio, expected) in [
            (0.0, 0.0),
            (0.25, 0.666667),
            (0.5, 0.828427),
            (1.0, 1.0),
            (1.001, 1.00025),
            (2.0, 1.171573),
            (4.0, 1.333333),
        ] {
            assert!((factor(ratio) - expected).abs() < 1e-6, "{ratio}: {}", factor(ratio));
        }
        assert_eq!(factor(f64::MAX), 2.0);
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0]), Some(5.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0, 8.0, 0.0]), Some(3.0));
    }
}
