//! What both kinds of rules ask of judged exchanges: which count, what each is worth, how fast they were.

use nineteen_domain::ledger::{Judgement, QualitySample};

use crate::settlement::Standing;
use crate::{float, unit};

/// Samples that count, newest first: judged, and `kept`. The order does not depend on the caller's.
pub(crate) fn counted(
    samples: &[QualitySample],
    kept: impl Fn(&QualitySample) -> bool,
) -> Vec<&QualitySample> {
    let mut used: Vec<&QualitySample> =
        samples.iter().filter(|s| !matches!(s.judgement, Judgement::Inconclusive(_)) && kept(s)).collect();
    used.sort_by(|a, b| {
        b.at_us
            .cmp(&a.at_us)
            .then_with(|| a.probe.cmp(&b.probe))
            .then_with(|| worth(a).total_cmp(&worth(b)))
            .then_with(|| (a.units, a.response_us).cmp(&(b.units, b.response_us)))
    });
    used
}

/// Quality in [0, 1]; a violation is worth nothing whatever else its sample says.
pub(crate) fn worth(sample: &QualitySample) -> f64 {
    match sample.judgement {
        Judgement::Scored => unit(sample.quality),
        Judgement::Violation(_) | Judgement::Inconclusive(_) => 0.0,
    }
}

/// Seconds that the answer took, above 0: one within the clock's microsecond took one.
pub(crate) fn seconds(sample: &QualitySample) -> f64 {
    float(sample.response_us.max(1)) / 1e6
}

/// Verified units per second, none of them in a violation.
pub(crate) fn units_per_s(sample: &QualitySample) -> f64 {
    match sample.judgement {
        Judgement::Scored => float(sample.units) / seconds(sample),
        Judgement::Violation(_) | Judgement::Inconclusive(_) => 0.0,
    }
}

/// The worst of `used`, worst first and of equally bad ones in the order given, none of them perfect; for
/// people.
pub(crate) fn worst(used: &[&QualitySample]) -> Vec<QualitySample> {
    // Hundreds are looked at for a handful: kept in order as they come, not sorted.
    let mut worst: Vec<(f64, &QualitySample)> = Vec::with_capacity(Standing::SHOWN_SAMPLES + 1);
    for sample in used {
        let q = worth(sample);
        let place = worst.partition_point(|(other, _)| *other <= q);
        if q < 1.0 && place < Standing::SHOWN_SAMPLES {
            worst.insert(place, (q, sample));
            worst.truncate(Standing::SHOWN_SAMPLES);
        }
    }
    worst.into_iter().map(|(_, sample)| sample.clone()).collect()
}

/// The percentile `sorted[int(p·n)]`, the last place being the bound; `None` of nothing.
pub(crate) fn percentile(p: f64, mut values: Vec<f64>) -> Option<f64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length is a place in it; the last place is the bound"
    )]
    let at = (unit(p) * float(values.len() as u64)) as usize;
    let at = at.min(values.len().checked_sub(1)?);
    Some(*values.select_nth_unstable_by(at, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_value_at_its_place() {
        let ten = || (0..10).rev().map(f64::from).collect::<Vec<_>>();
        assert_eq!(percentile(0.3, ten()), Some(3.0));
        assert_eq!(percentile(0.0, ten()), Some(0.0));
        assert_eq!(percentile(1.0, ten()), Some(9.0));
        assert_eq!(percentile(f64::NAN, ten()), Some(0.0));
        assert_eq!(percentile(0.3, Vec::new()), None);
    }
}
