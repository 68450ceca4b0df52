//! The end of a period: rows to disk, the mechanism's settlement, weights to the chain.

use std::collections::BTreeMap;
use std::sync::Arc;

use nineteen_domain::ledger::{Judgement, PeriodRow, QualitySample};
use nineteen_domain::meet::{Chain, Clock, Metagraph};
use nineteen_domain::policy::{Policy, Scoring};
use nineteen_domain::{Hotkey, TaskName};
use nineteen_mechanism::{MinerTaskInput, Settlement, settle};
use nineteen_schedule::PeriodOutcome;
use nineteen_store::{Booked, Record, Store, WeightsSet};
use serde::{Deserialize, Serialize};

use crate::error::ValidatorError;

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
}

/// What settling needs.
pub(crate) struct Settler {
    pub(crate) store: Store,
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: Policy,
    pub(crate) task_weights: BTreeMap<TaskName, f64>,
    pub(crate) hotkey: Hotkey,
}

impl Settler {
    /// Settles once: a period that is settled already is left as it is, and its weights are not set again.
    pub(crate) async fn settle(self: Arc<Self>, outcome: PeriodOutcome) -> Result<(), ValidatorError> {
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
        if self.store.append_all(records).await? == Booked::AlreadyBooked {
            return Ok(());
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
        self.set_weights(&settled.settlement).await
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
        let now_us = self.clock.now_us();
        let Scoring::Sn19(scoring) = &self.policy.scoring;
        let ago = |seconds: u64| now_us.saturating_sub(seconds.saturating_mul(1_000_000));
        let (rows_since, samples_since) = (ago(scoring.row_window_s), ago(scoring.sample_window_s));
        let mut samples: BTreeMap<(TaskName, Hotkey), Vec<QualitySample>> = BTreeMap::new();
        for row in &outcome.rows {
            let mut found = self.store.samples(&row.miner, &row.task, samples_since, MOST_SAMPLES)?;
            found.retain(|s| !matches!(s.judgement, Judgement::Inconclusive(_)));
            samples.insert((row.task.clone(), row.miner), found);
        }
        let mut inputs = Vec::with_capacity(outcome.rows.len());
        for row in &outcome.rows {
            // Invariant: history follows the hotkey, pay needs a place in the subnet now.
            let Some(neuron) = metagraph.by_hotkey(&row.miner) else { continue };
            let mut rows: Vec<PeriodRow> = self.store.rows(&row.miner, &row.task, rows_since)?;
            rows.retain(|r| r.period != row.period);
            rows.push(row.clone());
            let other_samples = samples
                .iter()
                .filter(|((task, miner), _)| *miner == row.miner && *task != row.task)
                .flat_map(|(_, s)| s.iter().cloned())
                .collect();
            inputs.push(MinerTaskInput {
                miner: row.miner,
                uid: neuron.uid,
                task: row.task.clone(),
                capacity: row.capacity,
                rows,
                samples: samples.get(&(row.task.clone(), row.miner)).cloned().unwrap_or_default(),
                other_samples,
            });
        }
        let settlement = settle(&self.policy, &self.task_weights, &inputs, now_us);
        Ok(SettledPeriod { outcome, settlement, task_weights: self.task_weights.clone() })
    }
}
