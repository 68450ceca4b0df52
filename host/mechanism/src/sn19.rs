//! `sn19-2025-01`: the rules that Subnet 19 published and ran in January 2025, number for number.
//!
//! Not for improving them: their holes (a period in which everything failed weighs nothing, borrowed samples
//! of other tasks, ranks that ignore margins) are part of what is reproduced. MECHANISM names them and the
//! `default` policy closes them. Two additions are ours, where the original raised an error or depended on the
//! order of a table: nothing is divided by a zero sum, and equally fast miners share their places.

use nineteen_domain::ledger::{PeriodRow, QualitySample};
use nineteen_domain::policy::Sn19Scoring;

use crate::samples::{counted, percentile, seconds, worst, worth};
use crate::settlement::{
    CreditParts, MinerTaskInput, QualityParts, ReliabilityParts, RowUsed, SpeedParts, Standing,
};
use crate::share::share;
use crate::{float, unit, within};

/// Standings of one task, in the order of `inputs`, all of which are of that task.
pub(crate) fn task(
    rules: &Sn19Scoring,
    task_weight: f64,
    inputs: &[&MinerTaskInput],
    now_us: u64,
) -> Vec<Standing> {
    let young = |s: &QualitySample| recent(s.at_us, rules.sample_window_s, now_us);
    let mut standings: Vec<Standing> = inputs
        .iter()
        .map(|input| {
            let own = counted(&input.samples, young);
            let missing = rules.min_samples.saturating_sub(own.len());
            let mut borrowed = counted(&input.other_samples, young);
            borrowed.truncate(missing);
            Standing {
                miner: input.miner,
                uid: input.uid,
                task: input.task.clone(),
                task_weight,
                capacity: input.capacity,
                reliability: reliability(rules, &input.rows, now_us),
                speed: SpeedParts {
                    metric: metric(rules, own.iter().chain(&borrowed).copied()),
                    ..SpeedParts::default()
                },
                quality: quality(rules, rules.square_exempt.contains(&input.task), &own, &borrowed),
                credit: CreditParts::default(),
                honesty: 1.0,
                effective_volume: 0.0,
                volume_share: 0.0,
                share: 0.0,
            }
        })
        .collect();
    rank(rules, &mut standings);
    for s in &mut standings {
        s.effective_volume =
            s.quality.quality * s.speed.factor * s.reliability.normalised_period_score * float(s.capacity);
    }
    share(rules.sharpness, &mut standings);
    standings
}

/// Whether something that happened at `at_us` is at most `window_s` old. What seems to come from the future
/// (a clock was set back) is new.
const fn recent(at_us: u64, window_s: u64, now_us: u64) -> bool {
    now_us.saturating_sub(at_us) <= window_s.saturating_mul(1_000_000)
}

/// `P = m·Σ w s/Σ w`, `w_i = consumed_i/Σ consumed · decay^i` by row, newest first, over rows with a score.
fn reliability(rules: &Sn19Scoring, rows: &[PeriodRow], now_us: u64) -> ReliabilityParts {
    let decay = unit(rules.row_decay);
    let mut used: Vec<(&PeriodRow, f64)> = rows
        .iter()
        .filter(|r| recent(r.ended_us, rules.row_window_s, now_us))
        .filter_map(|r| r.score.map(|s| (r, unit(s))))
        .collect();
    used.sort_by(|(a, x), (b, y)| {
        (b.ended_us, b.period, b.tally.consumed)
            .cmp(&(a.ended_us, a.period, a.tally.consumed))
            .then(x.total_cmp(y))
    });
    let consumed: f64 = used.iter().map(|(r, _)| float(r.tally.consumed)).sum();
    let mut factor = 1.0;
    let weights: Vec<f64> = used
        .iter()
        .map(|(r, _)| {
            let w = if consumed > 0.0 { float(r.tally.consumed) / consumed * factor } else { 0.0 };
            factor *= decay;
            w
        })
        .collect();
    let total: f64 = weights.iter().sum();
    let part = |w: f64| if total > 0.0 { unit(w / total) } else { 0.0 };
    let mean = unit(used.iter().zip(&weights).map(|((_, s), w)| part(*w) * s).sum());
    let confidence = if used.len() >= rules.full_rows { 1.0 } else { unit(rules.newcomer_multiplier) };
    ReliabilityParts {
        rows_used: used.len(),
        rows: used
            .iter()
            .zip(&weights)
            .take(Standing::SHOWN_ROWS)
            .map(|((r, score), w)| RowUsed {
                period: r.period,
                score: *score,
                consumed: r.tally.consumed,
                asked: r.tally.asked,
                age: 0.0,
                weight: part(*w),
            })
            .collect(),
        mean,
        confidence,
        asked: 0.0,
        expected_asked: 0.0,
        normalised_period_score: mean * confidence,
    }
}

/// `Q = mean(q^exponent)`, squared at or below the policy's bound unless the task is exempt; 0 without samples.
fn quality(
    rules: &Sn19Scoring,
    exempt: bool,
    own: &[&QualitySample],
    borrowed: &[&QualitySample],
) -> QualityParts {
    let exponent = within(rules.quality_exponent, 0.0, 1e3);
    let qs: Vec<f64> = own.iter().chain(borrowed).map(|s| worth(s)).collect();
    let mean_of = |xs: &mut dyn Iterator<Item = f64>| {
        if qs.is_empty() { 0.0 } else { unit(xs.sum::<f64>() / float(qs.len() as u64)) }
    };
    let mean = mean_of(&mut qs.iter().map(|q| q.powf(exponent)));
    let squared = !exempt && !qs.is_empty() && mean <= unit(rules.square_at_or_below);
    QualityParts {
        own_samples: own.len(),
        borrowed_samples: borrowed.len(),
        weight: float(qs.len() as u64),
        plain_mean: mean_of(&mut qs.iter().copied()),
        mean,
        squared,
        quality: if squared { mean * mean } else { mean },
        worst: worst(own),
    }
}

/// The policy's percentile of `q·units/second`.
fn metric<'a>(rules: &Sn19Scoring, samples: impl Iterator<Item = &'a QualitySample>) -> Option<f64> {
    percentile(rules.speed_percentile, samples.map(|s| worth(s) * float(s.units) / seconds(s)).collect())
}

/// `bonus = width·(.5 − r/(N−1))` by descending metric among those that have one; 0 for one alone.
fn rank(rules: &Sn19Scoring, standings: &mut [Standing]) {
    let metrics: Vec<f64> = standings.iter().filter_map(|s| s.speed.metric).collect();
    let n = metrics.len();
    // At most 2, so that `1 + bonus` is not negative.
    let width = within(rules.speed_bonus_width, 0.0, 2.0);
    for s in standings {
        s.speed.ranked = n;
        s.speed.factor = 1.0;
        let Some(own) = s.speed.metric else { continue };
        let faster = metrics.iter().filter(|m| **m > own).count();
        let equal = metrics.iter().filter(|m| **m == own).count();
        let rank = float(faster as u64) + float(equal.saturating_sub(1) as u64) / 2.0;
        s.speed.rank = Some(rank);
        if n > 1 {
            s.speed.factor = 1.0 + width * (0.5 - rank / float(n as u64 - 1));
        }
    }
}
