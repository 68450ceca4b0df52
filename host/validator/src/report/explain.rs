//! The whole chain for one miner and one task, in numbers and in words.

use nineteen_domain::ledger::{Judgement, PeriodRow, QualitySample};
use nineteen_domain::{Hotkey, PeriodId, ProbeId, TaskName, Uid};
use nineteen_mechanism::Standing;
use serde::{Deserialize, Serialize};

use crate::settle::SettledPeriod;

/// Samples that are listed.
const SHOWN_SAMPLES: usize = 8;

/// A judged probe, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeStory {
    /// Which.
    pub probe: ProbeId,
    /// In [0, 1].
    pub quality: f64,
    /// Units verified.
    pub units: u64,
    /// Microseconds from the request's last byte to the reply's last.
    pub response_us: u64,
    /// Scored, violation, inconclusive; and why.
    pub judgement: Judgement,
    /// Codes and numbers of the verdict.
    pub reasons: Vec<(String, f64)>,
}

/// Why a miner earns what it earns in a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whose.
    pub miner: Hotkey,
    /// Its place.
    pub uid: Uid,
    /// Which task.
    pub task: TaskName,
    /// The settled period that it is about.
    pub period: PeriodId,
    /// Policy.
    pub policy: String,
    /// Every period with its probes by class and its score, newest first.
    pub rows: Vec<PeriodRow>,
    /// Faults of the announcement in this period, by code.
    pub faults: Vec<String>,
    /// The mechanism's numbers.
    pub standing: Standing,
    /// The worst judged probes, worst first, then the newest.
    pub probes: Vec<ProbeStory>,
    /// The miner's weight over all tasks, in [0, 1].
    pub weight: f64,
    /// The same as the chain gets it.
    pub weight_u16: u16,
    /// The chain in words, one step a line.
    pub words: Vec<String>,
}

pub(super) fn explain(
    settled: &SettledPeriod,
    standing: &Standing,
    rows: Vec<PeriodRow>,
    samples: Vec<QualitySample>,
    unit: &str,
) -> Explanation {
    let weight =
        settled.settlement.weights.iter().find(|w| w.miner == standing.miner).map_or(0.0, |w| w.weight);
    let weight_u16 =
        settled.settlement.u16s.iter().find(|(uid, _)| *uid == standing.uid).map_or(0, |(_, weight)| *weight);
    let faults: Vec<String> = settled
        .outcome
        .faults
        .iter()
        .filter(|(miner, task, _)| *miner == standing.miner && *task == standing.task)
        .map(|(_, _, code)| code.clone())
        .collect();
    let words = words(settled, standing, &rows, &samples, &faults, unit, weight, weight_u16);
    Explanation {
        miner: standing.miner,
        uid: standing.uid,
        task: standing.task.clone(),
        period: settled.outcome.period,
        policy: settled.settlement.policy.clone(),
        rows,
        faults,
        standing: standing.clone(),
        probes: stories(samples),
        weight,
        weight_u16,
        words,
    }
}

fn stories(mut samples: Vec<QualitySample>) -> Vec<ProbeStory> {
    samples.sort_by(|a, b| a.quality.total_cmp(&b.quality).then(b.at_us.cmp(&a.at_us)));
    samples.truncate(SHOWN_SAMPLES);
    let story = |s: QualitySample| ProbeStory {
        probe: s.probe,
        quality: s.quality,
        units: s.units,
        response_us: s.response_us,
        judgement: s.judgement,
        reasons: s.reasons,
    };
    samples.into_iter().map(story).collect()
}

#[expect(clippy::too_many_arguments, reason = "the chain has that many links")]
fn words(
    settled: &SettledPeriod,
    s: &Standing,
    rows: &[PeriodRow],
    samples: &[QualitySample],
    faults: &[String],
    unit: &str,
    weight: f64,
    weight_u16: u16,
) -> Vec<String> {
    let mut out = Vec::new();
    let newest = rows.first();
    match newest.and_then(|r| r.announced) {
        Some(announced) => out.push(format!(
            "announced {announced:.0} {unit} a period; credited {} after the task's cap",
            s.capacity
        )),
        None => out.push(format!("announced nothing that counts ({}); credited 0 {unit}", faults.join(", "))),
    }
    if let Some(r) = newest {
        let t = &r.tally;
        let score = r.score.map_or_else(|| "none".to_owned(), |s| format!("{s:.4}"));
        out.push(format!(
            "period {}: {} probes: {} answered, {} rate-limited, {} failed, {} ours; {} of {} {unit} delivered; period score {score}",
            r.period, t.total(), t.answered, t.rate_limited, t.failed, t.ours, t.consumed, r.capacity
        ));
        out.push(unqueried(r));
    }
    let p = &s.reliability;
    out.push(format!(
        "reliability P = {:.4}: mean of {} period scores {:.4}, newest weighing most, × {} for {}",
        p.normalised_period_score,
        p.rows_used,
        p.mean,
        p.newcomer_multiplier,
        if p.newcomer_multiplier < 1.0 { "a newcomer" } else { "a full record" }
    ));
    let q = &s.quality;
    out.push(format!(
        "quality Q = {:.4}: {} samples of this task{}, plain mean {:.4}, with the policy's exponent {:.4}{}",
        q.quality,
        q.own_samples,
        if q.borrowed_samples > 0 {
            format!(" and {} of its other tasks", q.borrowed_samples)
        } else {
            String::new()
        },
        q.plain_mean,
        q.mean,
        if q.squared { ", squared because it is low" } else { "" }
    ));
    out.extend(why_low(samples));
    match (s.speed.metric, s.speed.rank) {
        (Some(metric), Some(rank)) => out.push(format!(
            "speed {metric:.2} verified {unit} a second (quality included): place {} of {}, bonus {:+.3}",
            rank + 1.0,
            s.speed.ranked,
            s.speed.bonus
        )),
        _ => out.push("speed: no verified sample, no bonus".into()),
    }
    out.push(format!(
        "effective volume E = Q · (1 + bonus) · P · capacity = {:.4} · {:.4} · {:.4} · {} = {:.2}",
        q.quality,
        1.0 + s.speed.bonus,
        p.normalised_period_score,
        s.capacity,
        s.effective_volume
    ));
    out.push(format!(
        "{:.2} % of all effective volume of the task; share {:.2} % under {}'s sharpness",
        s.volume_share * 100.0,
        s.share * 100.0,
        settled.settlement.policy
    ));
    out.push(format!(
        "this task weighs {:.2}: it brings {:.4}; over all tasks the weight is {weight:.4}, {weight_u16} of 65535 on the chain",
        s.task_weight,
        s.task_weight * s.share
    ));
    out
}

/// What misses cost, with the share left unqueried that multiplies them (MECHANISM, step 5).
#[expect(clippy::cast_precision_loss, reason = "counts and volumes of a period are far below 2^53")]
fn unqueried(r: &PeriodRow) -> String {
    let c = r.capacity.max(1) as f64;
    let u = (r.capacity as f64 - r.tally.consumed as f64).max(0.0) / c;
    let total = r.tally.total().max(1) as f64;
    let (p4, p5) = (r.tally.rate_limited as f64 / total, r.tally.failed as f64 / total);
    format!(
        "  (1 − {p4:.3} − {p5:.3}) · (1 − {p4:.3}·u) · (1 − {p5:.3}·u)², with u = {u:.3} of the announced volume left unqueried"
    )
}

fn why_low(samples: &[QualitySample]) -> Vec<String> {
    let mut out = Vec::new();
    let violations: Vec<&str> = samples
        .iter()
        .filter_map(|s| if let Judgement::Violation(why) = &s.judgement { Some(why.as_str()) } else { None })
        .collect();
    if let Some(first) = violations.first() {
        out.push(format!("  {} answers broke a rule, the last: {first}", violations.len()));
    }
    let scored: Vec<&QualitySample> = samples.iter().filter(|s| s.judgement == Judgement::Scored).collect();
    if let Some(worst) =
        scored.iter().min_by(|a, b| a.quality.total_cmp(&b.quality)).filter(|w| w.quality < 0.999)
    {
        let reasons: Vec<String> =
            worst.reasons.iter().take(6).map(|(code, value)| format!("{code} {value:.5}")).collect();
        out.push(format!(
            "  worst sample {}: quality {:.4} ({})",
            worst.probe.slot,
            worst.quality,
            reasons.join(", ")
        ));
    }
    let ours = samples.iter().filter(|s| matches!(s.judgement, Judgement::Inconclusive(_))).count();
    if ours > 0 {
        out.push(format!("  {ours} answers could not be judged, a fault of ours: they count for nothing"));
    }
    out
}
