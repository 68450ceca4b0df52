//! Sends one probe: synthesise, write down that it leaves, send, write down how it ended.

use std::net::SocketAddr;
use std::sync::Arc;

use nineteen_domain::ledger::{Failure, OursFault, ProbeClass};
use nineteen_domain::meet::Clock;
use nineteen_domain::{Digest, Exchange, MasterSeed, Request};
use nineteen_schedule::{FinishedProbe, PlannedProbe};
use nineteen_store::{Booked, ExchangeBody, Finished, Record, Store};
use nineteen_wire::client::{Client, Target};

use crate::board::Board;
use crate::control::Controls;
use crate::error::ValidatorError;
use crate::registry::LiveTask;

/// What sending needs; shared by all probes under way.
pub(crate) struct Sender {
    pub(crate) tasks: Arc<Board>,
    pub(crate) client: Client,
    pub(crate) store: Store,
    pub(crate) secret: MasterSeed,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) controls: Arc<Controls>,
}

impl Sender {
    /// Sends the probe and returns how it ended, when that is on disk.
    ///
    /// Invariant 4: the intent is durable before the first byte leaves, so that a crash in between books the
    /// probe as ours and never sends it twice.
    pub(crate) async fn send(
        &self,
        probe: PlannedProbe,
        addr: Option<SocketAddr>,
    ) -> Result<FinishedProbe, ValidatorError> {
        let tasks = self.tasks.of(probe.id.period);
        let Some(task) = tasks.by_name.get(&probe.id.task) else {
            return self.book(&probe, ProbeClass::Ours(OursFault::Host), 0, None).await;
        };
        let Some(addr) = addr else {
            // It announced at an address and has none now: nobody answers there.
            return self.book(&probe, ProbeClass::Failed(Failure::Refused), 0, None).await;
        };
        let request = match self.synthesize(task, &probe).await {
            Some(request) => request,
            None => return self.book(&probe, ProbeClass::Ours(OursFault::Plugin), 0, None).await,
        };
        let digest = Some(Digest::of(&request.body));
        let sent = Record::ProbeSent { probe: probe.id.clone(), at_us: self.clock.now_us(), request: digest };
        if self.store.append(sent).await? == Booked::AlreadyBooked {
            return self.book(&probe, ProbeClass::Ours(OursFault::Interrupted), 0, None).await;
        }
        let target = Target { addr, hotkey: probe.id.miner };
        let m = &task.manifest;
        let exchange = match self.client.try_post(&target, &request, &m.limits, &m.headers).await {
            Ok(exchange) => exchange,
            Err(fault) => return self.book(&probe, ProbeClass::Ours(fault), 0, None).await,
        };
        let (class, units) = self.classify(task, &request, &exchange).await;
        self.book(&probe, class, units, Some((request, exchange))).await
    }

    async fn synthesize(&self, task: &Arc<LiveTask>, probe: &PlannedProbe) -> Option<Request> {
        let (plugin, seed) = (Arc::clone(&task.plugin), self.secret.probe(&probe.id));
        let made = tokio::task::spawn_blocking(move || plugin.synthesize(&seed)).await;
        match made {
            Ok(Ok(synthetic)) if synthetic.request.path == task.manifest.path => Some(synthetic.request),
            Ok(Ok(synthetic)) => {
                let (asked, fixed) = (&synthetic.request.path, &task.manifest.path);
                tracing::error!(probe = %probe.id, asked, fixed, "the plugin asks for a path that the manifest does not fix");
                None
            }
            Ok(Err(e)) => {
                tracing::error!(probe = %probe.id, error = %e, "the plugin makes no request");
                None
            }
            Err(e) => {
                tracing::error!(probe = %probe.id, error = %e, "the plugin's thread failed");
                None
            }
        }
    }

    /// The transport decides first; an answer that the plugin cannot read is the miner's failure.
    async fn classify(
        &self,
        task: &Arc<LiveTask>,
        request: &Request,
        exchange: &Exchange,
    ) -> (ProbeClass, u64) {
        let class = ProbeClass::of(exchange);
        if class != ProbeClass::Answered {
            return (class, 0);
        }
        let (plugin, input) = (Arc::clone(&task.plugin), (request.clone(), exchange.clone()));
        let counted = tokio::task::spawn_blocking(move || plugin.count(&input.0, &input.1)).await;
        match counted {
            Ok(Ok(Some(units))) => (ProbeClass::Answered, units),
            Ok(Ok(None)) => (ProbeClass::Failed(Failure::Malformed), 0),
            // Invariant 2: the control exchange decides whose fault it is.
            Ok(Err(e)) if e.is_guest_fault() && self.controls.try_on(task).await == Some(true) => {
                tracing::warn!(error = %e, "the plugin fails to count this miner's bytes and passes on the control");
                (ProbeClass::Failed(Failure::Malformed), 0)
            }
            Ok(Err(e)) => {
                tracing::error!(error = %e, "the plugin failed to count; nothing is held against the miner");
                (ProbeClass::Ours(OursFault::Plugin), 0)
            }
            Err(e) => {
                tracing::error!(error = %e, "the plugin's thread failed");
                (ProbeClass::Ours(OursFault::Host), 0)
            }
        }
    }

    /// Writes the end down; bytes and end in one group, so that no answer counts without its bytes.
    async fn book(
        &self,
        probe: &PlannedProbe,
        class: ProbeClass,
        units: u64,
        bytes: Option<(Request, Exchange)>,
    ) -> Result<FinishedProbe, ValidatorError> {
        let mut records = Vec::with_capacity(2);
        let took_us = bytes.as_ref().map_or(0, |(_, exchange)| exchange.ended_us);
        let digest = bytes.as_ref().map(|(_, exchange)| Digest::of(&exchange.body()));
        if let Some((request, exchange)) = bytes {
            records.push(Record::ExchangeBody(Box::new(ExchangeBody {
                probe: probe.id.clone(),
                request,
                exchange,
            })));
        }
        records.push(Record::ProbeFinished(Finished {
            probe: probe.id.clone(),
            class,
            units,
            expected: probe.expected_units,
            took_us,
            exchange: digest,
            at_us: self.clock.now_us(),
        }));
        self.store.append_all(records).await?;
        // Where the grace ran out a moment before, the probe has an end already, and the books are right.
        let kept = self.store.finished_probe(&probe.id)?;
        let (class, units, took_us) =
            kept.map_or((class, units, took_us), |end| (end.class, end.units, end.took_us));
        tracing::debug!(probe = %probe.id, ?class, units, "probe ended");
        Ok(FinishedProbe { probe: probe.id.clone(), class, units, took_us })
    }
}
