//! The end of a period: rows to disk, the mechanism's settlement, weights to the chain.

use std::collections::BTreeMap;
use std::sync::Arc;

use nineteen_domain::ledger::{Judgement, PeriodRow, QualitySample};
use nineteen_domain::meet::{Chain, Clock, Metagraph};
use nineteen_domain::policy::{Policy, Scoring};
use nineteen_domain::{Hotkey, PeriodId, TaskName, Uid};
use nineteen_mechanism::{At, MinerTaskInput, Settlement, honesty, settle};
use nineteen_schedule::{PeriodOutcome, expected_asked};
use nineteen_store::{Booked, Record, Store, WeightsSet};
use serde::{Deserialize, Serialize};

use crate::board::Board;
use crate::error::ValidatorError;
use crate::facts::{self, Epoch, TaskFacts};
use crate::streams;

/// Samples of one (miner, task) that are read at most.
const MOST_SAMPLES: usize = 10_000;

/// What the store keeps of a settled period: enough to explain every weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettledPeriod {
    /// What happened.
    pub outcome: PeriodOutcome,
    /// What it came to.
    pub settlement: Settlement,
    /// Weights of the tasks then.
    pub task_weights: BTreeMap<TaskName, f64>,
    /// What was known of the tasks then.
    #[serde(default)]
    pub tasks: BTreeMap<TaskName, TaskFacts>,
    /// In which epoch of scoring each task was, with those of tasks that are away.
    #[serde(default)]
    pub epochs: BTreeMap<TaskName, Epoch>,
    /// The policy, every number of it.
    #[serde(default)]
    pub policy: Option<Policy>,
}

/// What settling needs.
pub(crate) struct Settler {
    pub(crate) store: Store,
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: Policy,
    pub(crate) tasks: Arc<Board>,
    pub(crate) period_us: u64,
    pub(crate) hotkey: Hotkey,
}

impl Settler {
    /// Settles once: a period that is settled already is left as it is, and its weights are not set again.
    /// Says who has earned how much of the checkers.
    pub(crate) async fn settle(
        self: Arc<Self>,
        outcome: PeriodOutcome,
    ) -> Result<Vec<(TaskName, Hotkey, f64)>, ValidatorError> {
        let metagraph = self.chain.metagraph().await?;
        let this = Arc::clone(&self);
        let settled = tokio::task::spawn_blocking(move || this.compute(outcome, &metagraph))
            .await
            .map_err(|e| ValidatorError::Part { part: "settlement", why: e.to_string() })??;
        let mut records: Vec<Record> = settled.outcome.rows.iter().cloned().map(Record::Row).collect();
        records.push(Record::Settled {
            period: settled.outcome.period,
            settlement: serde_json::to_value(&settled)
                .map_err(|e| ValidatorError::Part { part: "settlement", why: e.to_string() })?,
        });
        let standing: Vec<_> =
            settled.settlement.standings.iter().map(|s| (s.task.clone(), s.miner, s.volume_share)).collect();
        if self.store.append_all(records).await? == Booked::AlreadyBooked {
            return Ok(standing);
        }
        tracing::info!(
            period = %settled.outcome.period,
            miners = settled.settlement.weights.len(),
            unjudged = settled.outcome.unjudged,
            "period settled"
        );
        // Sealing a segment drops old ones too, but a quiet store seals none.
        if let Err(e) = self.store.retain(self.clock.now_us()).await {
            tracing::warn!(error = %e, "old segments could not be dropped");
        }
        self.set_weights(&settled.settlement).await?;
        Ok(standing)
    }

    async fn set_weights(&self, settlement: &Settlement) -> Result<(), ValidatorError> {
        if settlement.u16s.is_empty() {
            tracing::warn!("nobody earned anything: no weights are set");
            return Ok(());
        }
        // A refusal is written down and shown; the next period tries again with newer weights.
        let refused =
            self.chain.set_weights(self.hotkey, &settlement.u16s).await.err().map(|e| e.to_string());
        match &refused {
            None => tracing::info!(uids = settlement.u16s.len(), "weights set"),
            Some(why) => tracing::error!(why, "weights not set"),
        }
        let record = WeightsSet { at_us: self.clock.now_us(), weights: settlement.u16s.clone(), refused };
        self.store.append(Record::WeightsSet(record)).await?;
        Ok(())
    }

    fn compute(
        &self,
        outcome: PeriodOutcome,
        metagraph: &Metagraph,
    ) -> Result<SettledPeriod, ValidatorError> {
        let at = At { now_us: self.clock.now_us(), period_us: self.period_us };
        // Invariant: history follows the hotkey, pay needs a place in the subnet now.
        let place = |miner: &Hotkey| metagraph.by_hotkey(miner).map(|n| n.uid);
        let live = self.tasks.of(outcome.period);
        let tasks = facts::of(&live);
        let before =
            self.store.latest_settlement()?.and_then(|(_, kept)| epochs_of(&kept)).unwrap_or_default();
        let epochs = facts::epochs(&live, outcome.period, &before);
        let inputs = inputs(&self.store, &self.policy, &tasks, &epochs, &outcome.rows, place, at)?;
        let task_weights = tasks.iter().map(|(task, facts)| (task.clone(), facts.weight)).collect();
        let settlement = settle(&self.policy, &task_weights, &inputs, at);
        let policy = Some(self.policy.clone());
        Ok(SettledPeriod { outcome, settlement, task_weights, tasks, epochs, policy })
    }
}

/// The epochs in a settlement as it is kept.
fn epochs_of(kept: &serde_json::Value) -> Option<BTreeMap<TaskName, Epoch>> {
    serde_json::from_value(kept.get("epochs")?.clone()).ok()
}

/// What was known of everybody in these rows at that time: what a settlement is made of. `place` says where a
/// miner stands, `None` that it has left.
pub(crate) fn inputs(
    store: &Store,
    policy: &Policy,
    tasks: &BTreeMap<TaskName, TaskFacts>,
    epochs: &BTreeMap<TaskName, Epoch>,
    newest: &[PeriodRow],
    place: impl Fn(&Hotkey) -> Option<Uid>,
    at: At,
) -> Result<Vec<MinerTaskInput>, ValidatorError> {
    let since = at.now_us.saturating_sub(policy.horizon_us(at.period_us));
    let begins = |task: &TaskName| epochs.get(task).map_or(PeriodId(0), |e| e.since);
    let mut samples: BTreeMap<(TaskName, Hotkey), Vec<QualitySample>> = BTreeMap::new();
    for row in newest {
        let mut found = store.samples(&row.miner, &row.task, since, MOST_SAMPLES)?;
        let begins = begins(&row.task);
        found.retain(|s| {
            s.at_us <= at.now_us
                && s.probe.period >= begins
                && !matches!(s.judgement, Judgement::Inconclusive(_))
        });
        samples.insert((row.task.clone(), row.miner), found);
    }
    let borrows = matches!(policy.scoring, Scoring::Sn19(_));
    let mut inputs = Vec::with_capacity(newest.len());
    for row in newest {
        let Some(uid) = place(&row.miner) else { continue };
        let mut rows: Vec<PeriodRow> = store.rows(&row.miner, &row.task, since)?;
        rows.retain(|r| r.period < row.period && r.period >= begins(&row.task));
        rows.push(row.clone());
        let other_samples = samples
            .iter()
            .filter(|((task, miner), _)| borrows && *miner == row.miner && *task != row.task)
            .flat_map(|(_, s)| s.iter().cloned())
            .collect();
        let facts = tasks.get(&row.task);
        let own = samples.get(&(row.task.clone(), row.miner)).cloned().unwrap_or_default();
        inputs.push(MinerTaskInput {
            miner: row.miner,
            uid,
            task: row.task.clone(),
            capacity: row.capacity,
            expected_asked: expected_asked(
                &policy.planning,
                row.capacity,
                facts.map_or(1, |f| f.expected_units),
            ),
            speed: facts.and_then(|f| f.speed),
            honesty: pi(policy, &own, at),
            rows,
            samples: own,
            other_samples,
        });
    }
    Ok(inputs)
}

/// `π` from the stream that the newest sample left; 1 where the task has no calibration or the policy no use for it.
fn pi(policy: &Policy, samples: &[QualitySample], at: At) -> f64 {
    let (Scoring::Default(rules), Some(stream)) = (&policy.scoring, streams::newest(samples)) else {
        return 1.0;
    };
    #[expect(clippy::cast_precision_loss, reason = "times in microseconds are below 2^53 for 285 years")]
    let periods = |us: u64| at.now_us.saturating_sub(us) as f64 / at.period_us.max(1) as f64;
    honesty::honesty(stream, &rules.honesty, stream.accused_us.map(periods))
}
