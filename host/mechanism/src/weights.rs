//! The last step: shares become the u16 vector that the chain takes, exactly as the official SDK makes it.
//!
//! Clipping to a subnet's maximum weight is a step of its own, before the rounding, and only subnets with such
//! a limit take it.

use nineteen_domain::Uid;

/// Weights that no vector can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// NaN, an infinity or a negative number among them.
    #[error("a weight is not a finite number of at least 0: nothing was set")]
    NotAWeight,
    /// A clip was asked of nothing.
    #[error("all weights are zero: there is nothing to clip")]
    AllZero,
    /// The limit is not in (0, 1].
    #[error("the maximum weight has to be above 0 and at most 1")]
    Limit,
}

impl WeightError {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotAWeight => "mechanism.weights.not-a-weight",
            Self::AllZero => "mechanism.weights.all-zero",
            Self::Limit => "mechanism.weights.limit",
        }
    }
}

fn checked<'a>(mut weights: impl Iterator<Item = &'a f64>) -> Result<(), WeightError> {
    if weights.all(|w| w.is_finite() && *w >= 0.0) { Ok(()) } else { Err(WeightError::NotAWeight) }
}

/// Scales to a maximum of 65535, rounds (ties to even, as the SDK's language does) and drops zeros; the order
/// stays. All zero gives an empty vector.
///
/// # Errors
/// [`WeightError::NotAWeight`].
pub fn u16_weights(weights: &[(Uid, f64)]) -> Result<Vec<(Uid, u16)>, WeightError> {
    checked(weights.iter().map(|(_, w)| w))?;
    let top = weights.iter().map(|(_, w)| *w).fold(0.0, f64::max);
    if top == 0.0 {
        return Ok(Vec::new());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a weight over the maximum is in [0, 1]"
    )]
    let quantised = |w: f64| ((w / top) * f64::from(u16::MAX)).round_ties_even() as u16;
    Ok(weights.iter().map(|(uid, w)| (*uid, quantised(*w))).filter(|(_, v)| *v != 0).collect())
}

/// Shares that sum to 1, none above `limit`: weights within the limit are only normalised, others are cut at
/// the height that puts the largest share on the limit. Where no vector can keep it (`n·limit ≤ 1`), and
/// where the positive weights are too few to, every share is `1/n`, as the SDK has it.
///
/// # Errors
/// [`WeightError`]; nothing that is not a weight is clipped.
pub fn clip_to_max_weight(weights: &[f64], limit: f64) -> Result<Vec<f64>, WeightError> {
    /// The SDK's guard against a division by zero; part of its result.
    const EPSILON: f64 = 1e-7;

    checked(weights.iter())?;
    if !(limit > 0.0 && limit <= 1.0) {
        return Err(WeightError::Limit);
    }
    let top = weights.iter().copied().fold(0.0, f64::max);
    if top == 0.0 {
        return Err(WeightError::AllZero);
    }
    // Finite weights can have an infinite sum, and some have a sum whose inverse is: scaled, neither happens.
    let scaled: Vec<f64> = weights.iter().map(|w| w / top).collect();
    let total: f64 = scaled.iter().sum();
    let shares: Vec<f64> = scaled.iter().map(|w| w / total).collect();
    let n = count(shares.len());
    let even = || vec![1.0 / n; shares.len()];
    if n * limit <= 1.0 {
        return Ok(even());
    }
    let mut ascending = shares.clone();
    ascending.sort_by(f64::total_cmp);
    if ascending.last().is_none_or(|s| *s <= limit) {
        return Ok(shares);
    }
    // A share may stay if, were every larger one cut down to it, it would still be below the limit.
    let (mut below, mut kept_sum, mut running) = (0.0, 0.0, 0.0);
    let mut larger = n;
    for share in ascending {
        larger -= 1.0;
        running += share;
        if share / (larger * share + running + EPSILON) < limit {
            below += 1.0;
            kept_sum = running;
        }
    }
    let cutoff = (limit * kept_sum - EPSILON) / (1.0 - limit * (n - below));
    let cut: Vec<f64> = shares.iter().map(|s| s.min(cutoff)).collect();
    let cut_total: f64 = cut.iter().sum();
    let normalised: Vec<f64> = cut.iter().map(|s| s / cut_total).collect();
    Ok(if normalised.iter().all(|s| (0.0..=1.0).contains(s)) { normalised } else { even() })
}

#[expect(clippy::cast_precision_loss, reason = "vectors are far shorter than 2^53")]
const fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Row {
        kind: String,
        uids: Vec<u16>,
        weights: Vec<f64>,
        result: Option<(Vec<u16>, Vec<u16>)>,
        error: Option<String>,
        #[serde(rename = "clipped_0.1")]
        clipped: Option<Vec<f64>>,
    }

    fn rows() -> Vec<Row> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/wire/weights.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn every_vector_of_the_official_sdk_is_met_exactly() {
        let rows = rows();
        assert_eq!(rows.len(), 49);
        for row in rows {
            let given: Vec<_> = row.uids.iter().copied().map(Uid).zip(row.weights).collect();
            match (u16_weights(&given), row.result) {
                (Ok(ours), Some((uids, values))) => {
                    let theirs: Vec<_> = uids.into_iter().map(Uid).zip(values).collect();
                    assert_eq!(ours, theirs, "{} of {}", row.kind, given.len());
                }
                (Err(_), None) => assert!(row.error.is_some()),
                (ours, theirs) => panic!("{}: {ours:?} for {theirs:?}", row.kind),
            }
        }
    }

    #[test]
    fn every_clip_of_the_official_sdk_is_met() {
        let mut seen = 0;
        for row in rows() {
            let total: f64 = row.weights.iter().sum();
            let Some(theirs) = row.clipped else { continue };
            let shares: Vec<f64> = row.weights.iter().map(|w| w / total).collect();
            let ours = clip_to_max_weight(&shares, 0.1).unwrap();
            assert_eq!(ours.len(), theirs.len());
            for (a, b) in ours.iter().zip(&theirs) {
                assert!((a - b).abs() < 1e-9, "{} of {}: {a} for {b}", row.kind, theirs.len());
            }
            seen += 1;
        }
        assert!(seen >= 12, "{seen}");
    }

    #[test]
    fn what_the_sdk_refuses_is_refused() {
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(u16_weights(&[(Uid(1), 1.0), (Uid(2), bad)]), Err(WeightError::NotAWeight));
            assert_eq!(clip_to_max_weight(&[1.0, bad], 0.5), Err(WeightError::NotAWeight));
        }
        assert_eq!(clip_to_max_weight(&[], 0.5), Err(WeightError::AllZero));
        assert_eq!(clip_to_max_weight(&[0.0], 0.5), Err(WeightError::AllZero));
        assert_eq!(clip_to_max_weight(&[1.0], f64::NAN), Err(WeightError::Limit));
    }

    #[test]
    fn a_half_is_rounded_to_even() {
        // 65535 · 1/65535 · {0.5, 1.5, 2.5} with a maximum that makes the products exact.
        let top = 65_535.0;
        let w = [(Uid(0), top), (Uid(1), 0.5), (Uid(2), 1.5), (Uid(3), 2.5)];
        let exact = w.iter().all(|(_, w)| (w / top) * 65_535.0 == *w);
        assert!(exact, "the division has to be undone exactly for this to test ties");
        assert_eq!(u16_weights(&w).unwrap(), [(Uid(0), 65_535), (Uid(2), 2), (Uid(3), 2)]);
    }

    proptest! {
        #[test]
        fn a_vector_has_a_maximum_of_65535_or_is_empty(
            w in prop::collection::vec(prop_oneof![Just(0.0), 0.0..f64::MAX, 0.0..1e-300], 0..40),
        ) {
            let given: Vec<_> = (0..).map(Uid).zip(w).collect();
            let out = u16_weights(&given).unwrap();
            let top = out.iter().map(|(_, v)| *v).max();
            prop_assert_eq!(top, given.iter().any(|(_, w)| *w > 0.0).then_some(u16::MAX));
        }

        #[test]
        fn a_clip_is_a_distribution(
            w in prop::collection::vec(prop_oneof![Just(0.0), 0.0..f64::MAX, 0.0..1.0, 0.0..1e-300], 1..40),
            limit in 0.001..1.0,
        ) {
            if let Ok(s) = clip_to_max_weight(&w, limit) {
                prop_assert!(s.iter().all(|s| (0.0..=1.0).contains(s)));
                prop_assert!((s.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            }
        }
    }
}
