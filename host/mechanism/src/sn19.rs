//! `sn19-2025-01`: the rules that Subnet 19 published and ran in January 2025, number for number.
//!
//! Not for improving them: their holes (a period in which everything failed weighs nothing, borrowed samples
//! of other tasks, ranks that ignore margins) are part of what is reproduced. MECHANISM names them and the
//! `default` policy closes them. Two additions are ours, where the original raised an error or depended on the
//! order of a table: nothing is divided by a zero sum, and equally fast miners share their places.

use nineteen_domain::ledger::{Judgement, PeriodRow, QualitySample};
use nineteen_domain::policy::Sn19Scoring;

use crate::settlement::{MinerTaskInput, QualityParts, ReliabilityParts, RowUsed, SpeedParts, Standing};
use crate::{float, unit, within};

/// Standings of one task, in the order of `inputs`, all of which are of that task.
pub(crate) fn task(
    rules: &Sn19Scoring,
    task_weight: f64,
    inputs: &[&MinerTaskInput],
    now_us: u64,
) -> Vec<Standing> {
    let mut standings: Vec<Standing> = inputs
        .iter()
        .map(|input| {
            let own = recent_samples(&input.samples, rules.sample_window_s, now_us);
            let missing = rules.min_samples.saturating_sub(own.len());
            let mut borrowed = recent_samples(&input.other_samples, rules.sample_window_s, now_us);
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
                effective_volume: 0.0,
                volume_share: 0.0,
                share: 0.0,
            }
        })
        .collect();
    rank(rules, &mut standings);
    for s in &mut standings {
        s.effective_volume = s.quality.quality
            * (1.0 + s.speed.bonus)
            * s.reliability.normalised_period_score
            * float(s.capacity);
    }
    share(rules, &mut standings);
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
    let newcomer_multiplier =
        if used.len() >= rules.full_rows { 1.0 } else { unit(rules.newcomer_multiplier) };
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
                weight: part(*w),
            })
            .collect(),
        mean,
        newcomer_multiplier,
        normalised_period_score: mean * newcomer_multiplier,
    }
}

/// Samples that count, newest first: judged, and young enough.
fn recent_samples(samples: &[QualitySample], window_s: u64, now_us: u64) -> Vec<&QualitySample> {
    let mut used: Vec<&QualitySample> = samples
        .iter()
        .filter(|s| !matches!(s.judgement, Judgement::Inconclusive(_)) && recent(s.at_us, window_s, now_us))
        .collect();
    used.sort_by(|a, b| b.at_us.cmp(&a.at_us).then_with(|| a.probe.cmp(&b.probe)));
    used
}

/// A violation is worth nothing whatever else its sample says.
fn worth(sample: &QualitySample) -> f64 {
    match sample.judgement {
        Judgement::Scored => unit(sample.quality),
        Judgement::Violation(_) | Judgement::Inconclusive(_) => 0.0,
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
    let mut worst: Vec<&QualitySample> = own.iter().copied().filter(|s| worth(s) < 1.0).collect();
    // Stable: of equally bad ones the newest first.
    worst.sort_by(|a, b| worth(a).total_cmp(&worth(b)));
    QualityParts {
        own_samples: own.len(),
        borrowed_samples: borrowed.len(),
        plain_mean: mean_of(&mut qs.iter().copied()),
        mean,
        squared,
        quality: if squared { mean * mean } else { mean },
        worst: worst.into_iter().take(Standing::SHOWN_SAMPLES).cloned().collect(),
    }
}

/// The percentile `sorted[int(p·n)]` of `q·units/second`. An answer within the clock's microsecond took one.
fn metric<'a>(rules: &Sn19Scoring, samples: impl Iterator<Item = &'a QualitySample>) -> Option<f64> {
    let mut metrics: Vec<f64> =
        samples.map(|s| worth(s) * float(s.units) / (float(s.response_us.max(1)) / 1e6)).collect();
    metrics.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length is a place in it; the last place is the bound"
    )]
    let at = (unit(rules.speed_percentile) * float(metrics.len() as u64)) as usize;
    metrics.get(at.min(metrics.len().saturating_sub(1))).copied()
}

/// `bonus = width·(.5 − r/(N−1))` by descending metric among those that have one; 0 for one alone.
fn rank(rules: &Sn19Scoring, standings: &mut [Standing]) {
    let metrics: Vec<f64> = standings.iter().filter_map(|s| s.speed.metric).collect();
    let n = metrics.len();
    // At most 2, so that `1 + bonus` is not negative.
    let width = within(rules.speed_bonus_width, 0.0, 2.0);
    for s in standings {
        s.speed.ranked = n;
        let Some(own) = s.speed.metric else { continue };
        let faster = metrics.iter().filter(|m| **m > own).count();
        let equal = metrics.iter().filter(|m| **m == own).count();
        let rank = float(faster as u64) + float(equal.saturating_sub(1) as u64) / 2.0;
        s.speed.rank = Some(rank);
        if n > 1 {
            s.speed.bonus = width * (0.5 - rank / float(n as u64 - 1));
        }
    }
}

/// `x = E/ΣE`, `S = x^k/Σx^k`. Both are computed from `E/max E`: the same numbers, and no power of a tiny
/// share that would underflow to nothing for everybody.
fn share(rules: &Sn19Scoring, standings: &mut [Standing]) {
    let top = standings.iter().map(|s| s.effective_volume).fold(0.0, f64::max);
    if top <= 0.0 {
        return;
    }
    let k = within(rules.sharpness, 0.0, 1e3);
    let relative = |s: &Standing| s.effective_volume / top;
    // No share for nothing, also at k = 0.
    let sharp = |s: &Standing| if s.effective_volume > 0.0 { relative(s).powf(k) } else { 0.0 };
    let volume: f64 = standings.iter().map(relative).sum();
    let sharpened: f64 = standings.iter().map(sharp).sum();
    for s in standings {
        s.volume_share = unit(relative(s) / volume);
        s.share = unit(sharp(s) / sharpened);
    }
}
