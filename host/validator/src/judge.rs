//! From an exchange to a sample: run the plugin's rounds, decide whose fault a failure is, record.

use std::sync::{Arc, Mutex, PoisonError};

use nineteen_domain::ledger::{Judgement, QualitySample};
use nineteen_domain::meet::{Checker, Clock};
use nineteen_domain::policy::Policy;
use nineteen_domain::{Digest, Exchange, Outcome, ProbeId, Request};
use nineteen_sandbox::{Judged, Plugin};
use nineteen_store::{Record, Store};
use tokio::sync::mpsc;

use crate::board::Board;
use crate::control::Controls;
use crate::error::ValidatorError;
use crate::facts;
use crate::fingerprints::{self, Fingerprints};
use crate::health::{self, Found, Seen};
use crate::registry::LiveTask;
use crate::streams::Streams;

/// Judges exchanges and books what it finds.
pub struct Judge {
    tasks: Arc<Board>,
    checker: Arc<dyn Checker>,
    store: Store,
    clock: Arc<dyn Clock>,
    pub(crate) controls: Arc<Controls>,
    health: mpsc::Sender<Seen>,
    /// Taken once, by whoever watches the tasks' health.
    watched: Mutex<Option<mpsc::Receiver<Seen>>>,
    streams: Streams,
    fingerprints: Fingerprints,
    period_us: u64,
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge").field("tasks", &self.tasks).finish_non_exhaustive()
    }
}

impl Judge {
    /// A judge of these tasks; evidence is weighed as `policy` says. `period_us` is the length of a period.
    #[must_use]
    pub fn new(
        tasks: Arc<Board>,
        checker: Arc<dyn Checker>,
        store: Store,
        clock: Arc<dyn Clock>,
        policy: &Policy,
        period_us: u64,
    ) -> Self {
        let streams = Streams::new(store.clone(), policy);
        let (health, watched) = mpsc::channel(health::QUEUE);
        Self {
            tasks,
            checker,
            store,
            clock,
            controls: Arc::default(),
            health,
            watched: Mutex::new(Some(watched)),
            streams,
            fingerprints: Fingerprints::default(),
            period_us,
        }
    }

    /// What is found of the plugins, judgement by judgement; `None` when somebody watches it already.
    pub(crate) fn watched(&self) -> Option<mpsc::Receiver<Seen>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Nobody waits for who watches the health: what does not fit into the queue is not seen.
    fn saw(&self, probe: &ProbeId, plugin: &Plugin, found: Found) {
        let seen = Seen {
            task: probe.task.clone(),
            miner: probe.miner,
            period: probe.period,
            component: plugin.digest(),
            found,
        };
        let _ = self.health.try_send(seen);
    }

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
        self.exchange(probe, request, exchange).await.map(|_| ())
    }

    /// Runs the plugin's rounds on an exchange and books evidence and sample. Returns when both are on disk.
    ///
    /// # Errors
    /// When nothing can be kept any more; what goes wrong with the exchange is in the sample.
    pub async fn exchange(
        &self,
        probe: ProbeId,
        request: Request,
        exchange: Exchange,
    ) -> Result<QualitySample, ValidatorError> {
        // With the plugin that made the request, though another may run by now.
        let tasks = self.tasks.of(probe.period);
        let task = tasks.by_name.get(&probe.task);
        let epoch = task.map(|t| facts::epoch(&t.manifest.version)).unwrap_or_default();
        let (sample, suspicions) = match task {
            Some(task) => {
                let plugin = &task.plugin;
                let judged = plugin.judge(request.clone(), exchange.clone(), Arc::clone(&self.checker)).await;
                let mut sample = self.sample(&probe, &exchange, task, &judged).await;
                if let Ok(Outcome::Scored(verdict)) = &judged.result {
                    let asked = Digest::of(&request.body);
                    match self.fingerprints.see(&probe.task, &verdict.fingerprints, asked, probe.miner) {
                        Some(fingerprints::Seen::Replayed) => {
                            sample.reasons.push(("answer.replayed".into(), 1.0))
                        }
                        Some(fingerprints::Seen::Copied) => {
                            sample.reasons.push(("answer.copied".into(), 1.0))
                        }
                        None => {}
                    }
                }
                if matches!(judged.result, Ok(Outcome::Scored(_))) {
                    self.controls.remember(&probe.task, &request, &exchange, &judged.transcript);
                }
                if !judged.transcript.is_empty() {
                    let evidence =
                        Record::EvidenceBody { probe: probe.clone(), transcript: judged.transcript };
                    self.store.append(evidence).await?;
                }
                let suspicions = match judged.result {
                    Ok(Outcome::Scored(verdict)) => verdict.suspicions,
                    _ => Vec::new(),
                };
                (sample, suspicions)
            }
            None => {
                let gone = Judgement::Inconclusive("the task is no longer live".into());
                (self.blank(&probe, &exchange, gone), Vec::new())
            }
        };
        self.streams.book(sample, suspicions, &epoch).await
    }

    async fn sample(
        &self,
        probe: &ProbeId,
        exchange: &Exchange,
        task: &LiveTask,
        judged: &Judged,
    ) -> QualitySample {
        if judged.result.is_ok() {
            self.saw(probe, &task.plugin, Found::Judged);
        }
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
            Err(e) if e.is_guest_fault() => {
                let code = e.code().to_owned();
                match self.controls.try_on(task).await {
                    Some(true) => {
                        tracing::warn!(%probe, error = %e, "the plugin fails on this miner's bytes and passes on the control");
                        self.saw(probe, &task.plugin, Found::BytesFail { code });
                        self.blank(probe, exchange, Judgement::Violation(format!("{}: {e}", e.code())))
                    }
                    control => {
                        tracing::error!(%probe, error = %e, ?control, "the plugin failed; nothing is held against the miner");
                        self.saw(probe, &task.plugin, Found::PluginFails { code, control });
                        self.blank(probe, exchange, Judgement::Inconclusive(format!("{}: {e}", e.code())))
                    }
                }
            }
            Err(e) => {
                tracing::error!(%probe, error = %e, "the host failed; nothing is held against the miner");
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
            suspicion: None,
        }
    }
}

/// When the first verified unit came, or when an even delivery of all of them would have had to begin, whichever is
/// later: `2·mean − last` of the units' arrivals. For an even stream the two are the same; a miner that sends one token at
/// once and the rest in a burst at the end is as late as its burst.
#[expect(clippy::cast_precision_loss, reason = "times in microseconds are below 2^53 for 285 years")]
fn first_unit(exchange: &Exchange, units_by_chunk: &[u64]) -> Option<u64> {
    let arrivals = exchange.chunks.iter().zip(units_by_chunk).filter(|(_, units)| **units > 0);
    let arrivals: Vec<(u64, u64)> = arrivals.map(|(chunk, units)| (chunk.at_us, *units)).collect();
    let (first, last) = (arrivals.first()?.0, arrivals.last()?.0);
    let units: f64 = arrivals.iter().map(|(_, n)| *n as f64).sum();
    let sum: f64 = arrivals.iter().map(|(at, n)| *at as f64 * *n as f64).sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and a cast of what is too large saturates"
    )]
    let twice_mean = (2.0 * sum / units) as u64;
    Some(first.max(twice_mean.saturating_sub(last)))
}

#[cfg(test)]
mod tests {
    use nineteen_domain::{Chunk, Ending};

    use super::*;

    fn begins(arrivals: &[(u64, u64)]) -> Option<u64> {
        let chunks =
            arrivals.iter().map(|(at_us, _)| Chunk { at_us: *at_us, data: Default::default() }).collect();
        let exchange =
            Exchange { status: 200, headers: vec![], chunks, ended_us: 9_999, ending: Ending::Complete };
        first_unit(&exchange, &arrivals.iter().map(|(_, units)| *units).collect::<Vec<_>>())
    }

    #[test]
    fn an_even_stream_begins_with_its_first_unit() {
        let even: Vec<(u64, u64)> = (1..=20).map(|n| (n * 100, 1)).collect();
        assert_eq!(begins(&even), Some(100));
        // Twos in every second chunk are as even.
        let bundled: Vec<(u64, u64)> = (1..=10).map(|n| (n * 200, 2)).collect();
        assert_eq!(begins(&bundled), Some(200));
        assert_eq!(begins(&[(500, 7)]), Some(500));
        assert_eq!(begins(&[(500, 0)]), None);
        assert_eq!(begins(&[]), None);
    }

    #[test]
    fn a_token_at_once_and_a_burst_at_the_end_begins_with_the_burst() {
        let begun = begins(&[(10, 1), (2_000, 19)]).unwrap();
        assert!((1_800..=2_000).contains(&begun), "{begun}");
        assert_eq!(begins(&[(u64::MAX, u64::MAX), (u64::MAX, u64::MAX)]), Some(u64::MAX));
    }
}
