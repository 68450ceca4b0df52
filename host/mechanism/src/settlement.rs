//! What goes into a settlement and what comes out: data, and the choice of the rules.
//!
//! A [`Settlement`] carries every number between a miner's rows and its weight. `explain` and the demo's table
//! show these and compute nothing themselves.

use std::collections::BTreeMap;

use nineteen_domain::ledger::{PeriodRow, QualitySample, WindowResult};
use nineteen_domain::policy::{Policy, Scoring};
use nineteen_domain::task::SpeedReference;
use nineteen_domain::{Hotkey, PeriodId, TaskName, Uid};
use serde::{Deserialize, Serialize};

use crate::{default, sn19};

/// What is known of one miner and one task. At most one per (miner, task); order does not matter, nor does
/// that of rows and samples: both are put newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct MinerTaskInput {
    /// Its key.
    pub miner: Hotkey,
    /// Its place now.
    pub uid: Uid,
    /// The task.
    pub task: TaskName,
    /// Clamped capacity, units per period, of the newest period.
    pub capacity: u64,
    /// Units that a period is expected to ask of it at this capacity: `A₀` of the `default` rules, which take
    /// what is no number above 0 for 1.
    pub expected_asked: f64,
    /// What its speed is measured against, for rules that use references.
    pub speed: Option<SpeedReference>,
    /// Posterior that it serves what it claims to, in [0, 1]; 1 where nobody tests that.
    pub honesty: f64,
    /// Its settled periods of this task, and what the running one has so far.
    pub rows: Vec<PeriodRow>,
    /// Its judged exchanges of this task; inconclusive ones are left out here.
    pub samples: Vec<QualitySample>,
    /// Its judged exchanges of other tasks, for rules that borrow them.
    pub other_samples: Vec<QualitySample>,
}

/// A period that counted, and what it weighed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowUsed {
    /// Which.
    pub period: PeriodId,
    /// Its score, in [0, 1].
    pub score: f64,
    /// Units served in it.
    pub consumed: u64,
    /// Units asked for in it.
    #[serde(default)]
    pub asked: u64,
    /// Its age in periods; 0 under rules that count rows.
    #[serde(default)]
    pub age: f64,
    /// Its part of the weighted mean, in [0, 1]; all parts sum to 1 unless nothing was served.
    pub weight: f64,
}

/// How the normalised period score came about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ReliabilityParts {
    /// Periods that counted.
    pub rows_used: usize,
    /// The newest of them, at most [`Standing::SHOWN_ROWS`].
    pub rows: Vec<RowUsed>,
    /// Weighted mean of their scores, in [0, 1].
    pub mean: f64,
    /// Multiplier for miners of whom little is known, in [0, 1]: Subnet 19's for few rows, or `A/(A + A₀)`.
    pub confidence: f64,
    /// `A`, aged units asked for; 0 under rules that count rows.
    #[serde(default)]
    pub asked: f64,
    /// `A₀`, the same.
    #[serde(default)]
    pub expected_asked: f64,
    /// Product of mean and confidence: `P`.
    pub normalised_period_score: f64,
}

/// How the quality came about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct QualityParts {
    /// Samples of this task that counted.
    pub own_samples: usize,
    /// Samples borrowed from the miner's other tasks.
    pub borrowed_samples: usize,
    /// Aged weight of the samples; their number under rules that do not age them.
    #[serde(default)]
    pub weight: f64,
    /// Mean of the samples' quality, before exponent and prior; for people.
    pub plain_mean: f64,
    /// What `Q` is made of: mean of quality to the policy's exponent, or the mean with the prior; in [0, 1].
    pub mean: f64,
    /// Whether that was squared.
    pub squared: bool,
    /// `Q`, in [0, 1].
    pub quality: f64,
    /// The worst of this task's samples, worst first, at most [`Standing::SHOWN_SAMPLES`], none of them perfect.
    pub worst: Vec<QualitySample>,
}

/// How the factor of speed came about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SpeedParts {
    /// The policy's percentile of units per second, Subnet 19's times quality; `None` without samples.
    pub metric: Option<f64>,
    /// Median microseconds to the first verified unit of a stream; `None` where no sample has one.
    #[serde(default)]
    pub first_unit_us: Option<f64>,
    /// Metric over the task's reference; `None` under rules that rank.
    #[serde(default)]
    pub ratio: Option<f64>,
    /// The task's reference over the time to the first unit; `None` where nothing streams.
    #[serde(default)]
    pub first_unit_ratio: Option<f64>,
    /// Place among those with samples, 0 the fastest, equals share the mean of their places; `None` under
    /// rules that do not rank.
    pub rank: Option<f64>,
    /// How many were ranked.
    pub ranked: usize,
    /// What effective volume is multiplied with: at least 0, 1 for the reference or the middle place.
    pub factor: f64,
}

/// How much of the announced capacity is credited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreditParts {
    /// Aged number of windows tried: `n`.
    pub tried: f64,
    /// Of them sustained: `k`; a window below the present capacity counts in proportion.
    pub sustained: f64,
    /// What windows tried and sustained say: the lower quantile, in [0, 1].
    #[serde(default)]
    pub quantile: f64,
    /// What caps it, in [0, 1], 1 where no window was tried: the most that a window delivered over what is announced
    /// now, or what the kind of window that was sustained less says alone.
    #[serde(default)]
    pub shown: f64,
    /// `L`, the smaller of the two, in [0, 1]; 1 under rules that believe every announcement.
    pub factor: f64,
    /// The newest windows, newest first, at most [`Standing::SHOWN_ROWS`].
    #[serde(default)]
    pub windows: Vec<WindowUsed>,
}

impl Default for CreditParts {
    fn default() -> Self {
        Self { tried: 0.0, sustained: 0.0, quantile: 1.0, shown: 1.0, factor: 1.0, windows: Vec::new() }
    }
}

/// A window that counted, and for how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowUsed {
    /// Of which period.
    pub period: PeriodId,
    /// What came of it.
    pub result: WindowResult,
    /// Capacity that it was run at, its rate included, units per period.
    pub capacity: f64,
    /// Its age in periods.
    pub age: f64,
    /// What it adds to the number of windows tried.
    pub weight: f64,
    /// What it adds to the number sustained; at most `weight`.
    pub sustained: f64,
}

/// One miner in one task, with the chain of numbers that leads to its share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Its key.
    pub miner: Hotkey,
    /// Its place.
    pub uid: Uid,
    /// The task.
    pub task: TaskName,
    /// Weight of the task, as it was used: finite, at least 0.
    pub task_weight: f64,
    /// Units per period.
    pub capacity: u64,
    /// `P`.
    pub reliability: ReliabilityParts,
    /// `Q`.
    pub quality: QualityParts,
    /// `f`.
    pub speed: SpeedParts,
    /// `L`.
    #[serde(default)]
    pub credit: CreditParts,
    /// `π`, in [0, 1].
    pub honesty: f64,
    /// `E = Q·π·f·P·c·L`; Subnet 19's has neither `π` nor `L`, which are 1 there.
    pub effective_volume: f64,
    /// `x = E/ΣE`, in [0, 1].
    pub volume_share: f64,
    /// `S = x^k/Σx^k`, in [0, 1].
    pub share: f64,
}

impl Standing {
    /// Rows that are kept for people; older ones weigh next to nothing.
    pub const SHOWN_ROWS: usize = 32;
    /// Samples that are kept for people.
    pub const SHOWN_SAMPLES: usize = 5;
}

/// A miner's weight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WeightLine {
    /// Its place.
    pub uid: Uid,
    /// Its key.
    pub miner: Hotkey,
    /// In [0, 1]; all sum to 1, or are 0 when nobody earned anything.
    pub weight: f64,
}

/// What a period's end comes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settlement {
    /// Name of the policy.
    pub policy: String,
    /// When, microseconds of the Unix epoch.
    pub at_us: u64,
    /// Ascending by task, uid, hotkey.
    pub standings: Vec<Standing>,
    /// Every miner of the input, ascending by uid and hotkey.
    pub weights: Vec<WeightLine>,
    /// What the chain gets: uids unique and ascending, no zeros, maximum 65535; empty when nobody earned
    /// anything.
    pub u16s: Vec<(Uid, u16)>,
}

/// When a settlement is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// Microseconds of the Unix epoch.
    pub now_us: u64,
    /// Length of a period in microseconds; ages are counted in it. 0 counts as 1.
    pub period_us: u64,
}

/// Turns what is known into weights, under the policy's rules. `weights_of_tasks` need not sum to 1: a task
/// that is not in it, or whose weight is not a number above 0, pays nothing, and a task that nobody serves
/// leaves its weight to the others.
#[must_use]
pub fn settle(
    policy: &Policy,
    weights_of_tasks: &BTreeMap<TaskName, f64>,
    inputs: &[MinerTaskInput],
    at: At,
) -> Settlement {
    let now_us = at.now_us;
    let mut sorted: Vec<&MinerTaskInput> = inputs.iter().collect();
    // One order for everything, so that sums of doubles do not depend on the caller's.
    sorted.sort_by(|a, b| (&a.task, a.uid, a.miner).cmp(&(&b.task, b.uid, b.miner)));
    let weight_of = |task: &TaskName| match weights_of_tasks.get(task) {
        Some(w) if w.is_finite() && *w > 0.0 => *w,
        _ => 0.0,
    };
    let mut standings = Vec::with_capacity(sorted.len());
    for of_one_task in sorted.chunk_by(|a, b| a.task == b.task) {
        let Some(first) = of_one_task.first() else { continue };
        let weight = weight_of(&first.task);
        standings.extend(match &policy.scoring {
            Scoring::Sn19(rules) => sn19::task(rules, weight, of_one_task, now_us),
            Scoring::Default(rules) => default::task(rules, weight, of_one_task, at),
        });
    }
    let weights = weigh(&standings);
    let mut by_uid: BTreeMap<Uid, f64> = BTreeMap::new();
    for line in &weights {
        *by_uid.entry(line.uid).or_default() += line.weight;
    }
    let by_uid: Vec<(Uid, f64)> = by_uid.into_iter().collect();
    // Weights are finite and not negative, so nothing is refused.
    let u16s = crate::u16_weights(&by_uid).unwrap_or_default();
    Settlement { policy: policy.name.clone(), at_us: now_us, standings, weights, u16s }
}

/// `W = Σ weight·S`, normalised; 0 for all if nobody earned anything.
fn weigh(standings: &[Standing]) -> Vec<WeightLine> {
    // Weights of tasks are finite, their sum need not be: only their proportions matter.
    let top = standings.iter().map(|s| s.task_weight).fold(0.0, f64::max);
    let mut by_miner: BTreeMap<(Uid, Hotkey), f64> = BTreeMap::new();
    for s in standings {
        let weight = if top > 0.0 { s.task_weight / top } else { 0.0 };
        *by_miner.entry((s.uid, s.miner)).or_default() += weight * s.share;
    }
    let total: f64 = by_miner.values().sum();
    by_miner
        .into_iter()
        .map(|((uid, miner), w)| WeightLine {
            uid,
            miner,
            weight: if total > 0.0 { crate::unit(w / total) } else { 0.0 },
        })
        .collect()
}
