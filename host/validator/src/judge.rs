//! From an exchange to a sample: run the plugin's rounds, decide whose fault a failure is, record.

use std::sync::Arc;

use nineteen_domain::ledger::{Judgement, QualitySample};
use nineteen_domain::meet::{Checker, Clock};
use nineteen_domain::{Exchange, Outcome, ProbeId, Request};
use nineteen_sandbox::Judged;
use nineteen_store::{Record, Store};

use crate::control::Controls;
use crate::error::ValidatorError;
use crate::registry::Tasks;

/// What judging needs; shared by all judges.
pub(crate) struct Bench {
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) checker: Arc<dyn Checker>,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) controls: Arc<Controls>,
    pub(crate) period_us: u64,
}

impl Bench {
    /// Judges the stored exchange of a probe and records evidence and sample. Returns when both are on disk.
    pub(crate) async fn judge(&self, probe: ProbeId) -> Result<(), ValidatorError> {
        let store = self.store.clone();
        let wanted = probe.clone();
        let found = tokio::task::spawn_blocking(move || store.exchange(&wanted))
            .await
            .map_err(|e| ValidatorError::Part { part: "reader of the store", why: e.to_string() })??;
        let Some((request, exchange)) = found else {
            tracing::warn!(%probe, "the exchange is gone before it was judged");
            return Ok(());
        };
        self.judge_bytes(probe, request, exchange).await.map(|_| ())
    }

    async fn judge_bytes(
        &self,
        probe: ProbeId,
        request: Request,
        exchange: Exchange,
    ) -> Result<QualitySample, ValidatorError> {
        let sample = match self.tasks.by_name.get(&probe.task) {
            Some(task) => {
                let plugin = &task.plugin;
                let judged = plugin.judge(request.clone(), exchange.clone(), Arc::clone(&self.checker)).await;
                let sample = self.sample(&probe, &exchange, plugin, &judged).await;
                if matches!(judged.result, Ok(Outcome::Scored(_))) {
                    self.controls.remember(&probe.task, &request, &exchange, &judged.transcript);
                }
                if !judged.transcript.is_empty() {
                    let evidence =
                        Record::EvidenceBody { probe: probe.clone(), transcript: judged.transcript };
                    self.store.append(evidence).await?;
                }
                sample
            }
            None => {
                self.blank(&probe, &exchange, Judgement::Inconclusive("the task is no longer live".into()))
            }
        };
        self.store.append(Record::Sample(sample.clone())).await?;
        Ok(sample)
    }

    async fn sample(
        &self,
        probe: &ProbeId,
        exchange: &Exchange,
        plugin: &Arc<nineteen_sandbox::Plugin>,
        judged: &Judged,
    ) -> QualitySample {
        match &judged.result {
            Ok(Outcome::Scored(verdict)) => QualitySample {
                quality: verdict.quality,
                units: verdict.units,
                first_unit_us: first_unit(exchange, &verdict.units_by_chunk),
                reasons: verdict.reasons.clone(),
                ..self.blank(probe, exchange, Judgement::Scored)
            },
            Ok(Outcome::Violation(why)) => self.blank(probe, exchange, Judgement::Violation(why.clone())),
            Ok(Outcome::Inconclusive(why)) => {
                self.blank(probe, exchange, Judgement::Inconclusive(why.clone()))
            }
            Ok(Outcome::Need(_)) => {
                self.blank(probe, exchange, Judgement::Inconclusive("the rounds ended undecided".into()))
            }
            // Invariant 2: the control exchange decides whose fault it is.
            Err(e) if e.is_guest_fault() && self.controls.passes(plugin).await => {
                tracing::warn!(%probe, error = %e, "the plugin fails on this miner's bytes and passes on the control");
                self.blank(probe, exchange, Judgement::Violation(format!("{}: {e}", e.code())))
            }
            Err(e) => {
                tracing::error!(%probe, error = %e, "the plugin failed; nothing is held against the miner");
                self.blank(probe, exchange, Judgement::Inconclusive(format!("{}: {e}", e.code())))
            }
        }
    }

    fn blank(&self, probe: &ProbeId, exchange: &Exchange, judgement: Judgement) -> QualitySample {
        QualitySample {
            probe: probe.clone(),
            judgement,
            quality: 0.0,
            units: 0,
            response_us: exchange.ended_us,
            first_unit_us: None,
            at_us: self.clock.now_us(),
            reasons: Vec::new(),
            period_us: self.period_us,
        }
    }
}

/// Arrival of the first chunk that holds a verified unit.
fn first_unit(exchange: &Exchange, units_by_chunk: &[u64]) -> Option<u64> {
    let index = units_by_chunk.iter().position(|u| *u > 0)?;
    exchange.chunks.get(index).map(|c| c.at_us)
}
