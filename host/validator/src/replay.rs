//! `nineteen replay`: recorded periods under another policy or other weights of tasks.
//!
//! Each settled period is settled again from the same rows and samples, at the time at which it was settled then,
//! and the weights are put side by side. What cannot be replayed is said: windows are only there where the
//! recorded policy had them, and what a miner would have done under other rules nobody knows. Never writes.

use std::collections::BTreeMap;

use nineteen_domain::policy::Policy;
use nineteen_domain::{Hotkey, PeriodId, TaskName, Uid};
use nineteen_mechanism::{At, Settlement, settle};
use nineteen_store::Store;
use serde::{Deserialize, Serialize};

use crate::error::ValidatorError;
use crate::settle::{SettledPeriod, inputs};

/// What is replayed, and under what.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Rules instead of the recorded ones.
    pub policy: Option<Policy>,
    /// Weights of tasks instead of the recorded ones; a task that is not named keeps its own.
    pub task_weights: BTreeMap<TaskName, f64>,
    /// The first period; absent is the oldest that is kept.
    pub from: Option<PeriodId>,
    /// The last period; absent is the newest.
    pub to: Option<PeriodId>,
}

/// How every weight would have moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Name of the policy that was asked about, or `as recorded`.
    pub policy: String,
    /// Weights of the tasks that were asked about, where they differ.
    pub task_weights: BTreeMap<TaskName, f64>,
    /// One per period, oldest first.
    pub periods: Vec<ReplayedPeriod>,
    /// Every miner of any of them, by what its mean weight moves, the largest gain first.
    pub miners: Vec<Moved>,
    /// What has to be known to read it.
    pub notes: Vec<String>,
}

/// One period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplayedPeriod {
    /// Which.
    pub period: PeriodId,
    /// Name of the policy that it was settled under.
    pub recorded_policy: String,
    /// Cosine of the two vectors of weights, in [0, 1]; `None` when either is all zero.
    pub cosine: Option<f64>,
    /// By miner, ascending by uid.
    pub miners: Vec<Moved>,
}

/// One miner's weight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// Its place.
    pub uid: Uid,
    /// Its key.
    pub hotkey: Hotkey,
    /// Weight as it was, in [0, 1].
    pub recorded: f64,
    /// As it would have been.
    pub replayed: f64,
}

impl Moved {
    /// Gain, in [−1, 1].
    #[must_use]
    pub fn by(&self) -> f64 {
        self.replayed - self.recorded
    }
}

/// Settles recorded periods anew. Blocks; reads the store alone.
///
/// # Errors
/// [`ValidatorError`] when the store cannot be read or holds no settled period in the range.
pub fn replay(store: &Store, question: &Question) -> Result<Replay, ValidatorError> {
    let part = |why: String| ValidatorError::Part { part: "replay", why };
    let mut periods = Vec::new();
    let mut notes = Vec::new();
    let mut sums: BTreeMap<(Uid, Hotkey), (f64, f64)> = BTreeMap::new();
    let (first, last) = (question.from.unwrap_or(PeriodId(0)), question.to.unwrap_or(PeriodId(u64::MAX)));
    for period in store.settled_periods()?.into_iter().filter(|p| (first..=last).contains(p)) {
        let Some(kept) = store.settlement(period)? else { continue };
        let settled: SettledPeriod = serde_json::from_value(kept).map_err(|e| {
            part(format!("the settlement of period {period} was written by another version: {e}"))
        })?;
        if settled.outcome.rows.iter().all(|r| r.windows.is_empty()) && question.policy.is_some() {
            notes.push(format!("period {period} was run without windows: no capacity was shown in it"));
        }
        let again = anew(store, question, &settled)?;
        let was = by_miner(&settled.settlement);
        let is = by_miner(&again);
        let miners: Vec<Moved> = was
            .keys()
            .chain(is.keys().filter(|k| !was.contains_key(*k)))
            .map(|(uid, hotkey)| Moved {
                uid: *uid,
                hotkey: *hotkey,
                recorded: was.get(&(*uid, *hotkey)).copied().unwrap_or(0.0),
                replayed: is.get(&(*uid, *hotkey)).copied().unwrap_or(0.0),
            })
            .collect();
        for m in &miners {
            let (recorded, replayed) = sums.entry((m.uid, m.hotkey)).or_default();
            *recorded += m.recorded;
            *replayed += m.replayed;
        }
        periods.push(ReplayedPeriod {
            period,
            recorded_policy: settled.settlement.policy.clone(),
            cosine: cosine(&miners),
            miners,
        });
    }
    if periods.is_empty() {
        return Err(part("no settled period lies in the range: let the validator settle one first".into()));
    }
    #[expect(clippy::cast_precision_loss, reason = "a number of periods")]
    let n = periods.len() as f64;
    let mut miners: Vec<Moved> = sums
        .into_iter()
        .map(|((uid, hotkey), (was, is))| Moved { uid, hotkey, recorded: was / n, replayed: is / n })
        .collect();
    miners.sort_by(|a, b| b.by().total_cmp(&a.by()).then(a.uid.cmp(&b.uid)));
    Ok(Replay {
        policy: question.policy.as_ref().map_or_else(|| "as recorded".into(), |p| p.name.clone()),
        task_weights: question.task_weights.clone(),
        periods,
        miners,
        notes,
    })
}

fn anew(store: &Store, question: &Question, settled: &SettledPeriod) -> Result<Settlement, ValidatorError> {
    let recorded = &settled.settlement;
    let recorded_policy = settled.policy.clone().or_else(|| Policy::named(&recorded.policy));
    let policy = question.policy.clone().or(recorded_policy).ok_or_else(|| ValidatorError::Part {
        part: "replay",
        why: format!(
            "period {} was settled under the policy '{}', which does not ship with this version: name one with --policy",
            settled.outcome.period, recorded.policy
        ),
    })?;
    let length = settled.outcome.ended_us.saturating_sub(settled.outcome.started_us);
    let at = At { now_us: recorded.at_us, period_us: length };
    let places: BTreeMap<Hotkey, Uid> = recorded.weights.iter().map(|w| (w.miner, w.uid)).collect();
    let place = |miner: &Hotkey| places.get(miner).copied();
    let inputs = inputs(store, &policy, &settled.tasks, &settled.epochs, &settled.outcome.rows, place, at)?;
    let mut weights = settled.task_weights.clone();
    for (task, weight) in &question.task_weights {
        weights.insert(task.clone(), *weight);
    }
    Ok(settle(&policy, &weights, &inputs, at))
}

fn by_miner(settlement: &Settlement) -> BTreeMap<(Uid, Hotkey), f64> {
    settlement.weights.iter().map(|w| ((w.uid, w.miner), w.weight)).collect()
}

fn cosine(miners: &[Moved]) -> Option<f64> {
    let dot: f64 = miners.iter().map(|m| m.recorded * m.replayed).sum();
    let norm = |of: fn(&Moved) -> f64| miners.iter().map(|m| of(m).powi(2)).sum::<f64>().sqrt();
    let both = norm(|m| m.recorded) * norm(|m| m.replayed);
    (both > 0.0).then(|| (dot / both).min(1.0))
}
