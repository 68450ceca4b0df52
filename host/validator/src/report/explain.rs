//! The whole chain for one miner and one task, in numbers and in words.

mod words;

use nineteen_domain::ledger::{Judgement, PeriodRow, ProbeClass, QualitySample};
use nineteen_domain::{Hotkey, PeriodId, ProbeId, TaskName, Uid};
use nineteen_mechanism::Standing;
use nineteen_store::Finished;
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

/// How one probe of the period ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeEnd {
    /// Its place in the plan.
    pub slot: u32,
    /// Its class.
    pub class: ProbeClass,
    /// Units served and units expected.
    pub units: (u64, u64),
    /// Milliseconds from the last byte of the request to the end of the reply.
    pub took_ms: u64,
    /// When it ended, microseconds of the Unix epoch.
    pub at_us: u64,
}

impl ProbeEnd {
    fn of(f: Finished) -> Self {
        Self {
            slot: f.probe.slot,
            class: f.class,
            units: (f.units, f.expected),
            took_ms: f.took_us / 1_000,
            at_us: f.at_us,
        }
    }
}

/// What one factor could bring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// `quality`, `reliability`, `record` (more periods), `speed`, `capacity` or `honesty`.
    pub factor: String,
    /// What effective volume would be multiplied with; `None` when the factor is 0 and nothing else counts.
    pub times: Option<f64>,
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
    /// Every probe of this period by its place, with its class.
    pub ends: Vec<ProbeEnd>,
    /// The worst judged probes, worst first, then the newest.
    pub probes: Vec<ProbeStory>,
    /// What would raise its effective volume, the most first.
    pub gains: Vec<Gain>,
    /// The miner's weight over all tasks, in [0, 1].
    pub weight: f64,
    /// The same as the chain gets it.
    pub weight_u16: u16,
    /// The chain in words, one step a line.
    pub words: Vec<String>,
}

/// What an explanation is made of, beside the miner's own records.
pub(super) struct Known<'a> {
    pub(super) settled: &'a SettledPeriod,
    pub(super) standing: &'a Standing,
    /// Of the task's volume.
    pub(super) unit: &'a str,
}

pub(super) fn explain(
    known: &Known<'_>,
    rows: Vec<PeriodRow>,
    samples: Vec<QualitySample>,
    ends: Vec<Finished>,
) -> Explanation {
    let (settled, standing) = (known.settled, known.standing);
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
    let gains = gains(standing);
    let words = words::words(known, &rows, &samples, &faults, &gains, (weight, weight_u16));
    Explanation {
        miner: standing.miner,
        uid: standing.uid,
        task: standing.task.clone(),
        period: settled.outcome.period,
        policy: settled.settlement.policy.clone(),
        rows,
        faults,
        standing: standing.clone(),
        ends: ends.into_iter().map(ProbeEnd::of).collect(),
        probes: stories(samples),
        gains,
        weight,
        weight_u16,
        words,
    }
}

/// What effective volume would be multiplied with, if one factor alone were as good as it gets without a better
/// machine: misses gone, quality perfect, everything announced credited, speed at the reference. Largest first.
fn gains(s: &Standing) -> Vec<Gain> {
    let times = |now: f64, best: f64| if now > 0.0 { Some((best / now).max(1.0)) } else { None };
    let p = &s.reliability;
    let mut gains: Vec<Gain> = [
        ("quality", times(s.quality.quality, 1.0)),
        ("reliability", times(p.mean, 1.0)),
        ("record", times(p.confidence, 1.0)),
        ("speed", times(s.speed.factor, 1.0)),
        ("capacity", times(s.credit.factor, 1.0)),
        ("honesty", times(s.honesty, 1.0)),
    ]
    .into_iter()
    .map(|(factor, times)| Gain { factor: factor.into(), times })
    .filter(|g| g.times.is_none_or(|t| t > 1.0005))
    .collect();
    // A factor of zero is what keeps everything else from counting.
    gains.sort_by(|a, b| b.times.unwrap_or(f64::MAX).total_cmp(&a.times.unwrap_or(f64::MAX)));
    gains
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
