//! `P`: how a miner's periods went, and how much has been seen of it.

use nineteen_domain::ledger::PeriodRow;
use nineteen_domain::policy::DefaultScoring;

use super::{age, aged, is_kept};
use crate::settlement::{At, ReliabilityParts, RowUsed, Standing};
use crate::{float, unit};

/// `P = A/(A + A₀) · Σ w s/Σ w` over rows that have a score, `w = asked · 0.5^(age/row_half_life)`, `A = Σ w`.
///
/// A row weighs what was *asked*, so a period in which everything failed weighs as much as one that went well.
/// `A₀` is what a period is expected to ask, in the task's unit; what is no number above 0 counts as 1.
pub(crate) fn reliability(
    rules: &DefaultScoring,
    rows: &[PeriodRow],
    expected_asked: f64,
    at: At,
) -> ReliabilityParts {
    let expected_asked =
        if expected_asked.is_finite() && expected_asked > 0.0 { expected_asked } else { 1.0 };
    let mut used: Vec<(&PeriodRow, f64, f64)> = rows
        .iter()
        .filter_map(|r| r.score.map(|s| (r, unit(s), age(r.ended_us, at))))
        .filter(|(_, _, age)| is_kept(rules, *age))
        .collect();
    // Newest first, and in one order whatever the caller's.
    used.sort_by(|(a, x, _), (b, y, _)| {
        (b.ended_us, b.period, b.tally.asked, b.tally.consumed)
            .cmp(&(a.ended_us, a.period, a.tally.asked, a.tally.consumed))
            .then(x.total_cmp(y))
    });
    let weights: Vec<f64> =
        used.iter().map(|(r, _, age)| float(r.tally.asked) * aged(*age, rules.row_half_life)).collect();
    let asked: f64 = weights.iter().sum();
    let part = |w: f64| if asked > 0.0 { unit(w / asked) } else { 0.0 };
    let mean = unit(used.iter().zip(&weights).map(|((_, s, _), w)| part(*w) * s).sum());
    let confidence = unit(asked / (asked + expected_asked));
    ReliabilityParts {
        rows_used: used.len(),
        rows: used
            .iter()
            .zip(&weights)
            .take(Standing::SHOWN_ROWS)
            .map(|((r, score, age), w)| RowUsed {
                period: r.period,
                score: *score,
                consumed: r.tally.consumed,
                asked: r.tally.asked,
                age: *age,
                weight: part(*w),
            })
            .collect(),
        mean,
        confidence,
        asked,
        expected_asked,
        normalised_period_score: mean * confidence,
    }
}
