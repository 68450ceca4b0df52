//! A miner of our own that goes through the same pipeline as everybody's: what it is accused of, honest miners are.
//!
//! It serves the reference models over HTTP under a key that is derived from the validator's secret, so it is nobody in
//! the metagraph and is never paid. Every now and then it is asked one synthetic request of every task, and its answer is
//! judged, tested and kept like any other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nineteen_domain::ledger::Judgement;
use nineteen_domain::meet::Clock;
use nineteen_domain::{Hotkey, MasterSeed, PeriodId, ProbeId, TaskName};
use nineteen_mechanism::honesty;
use nineteen_store::{Store, StoreError};
use nineteen_wire::client::{Client, Target};
use nineteen_wire::keys::Keypair;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::error::ValidatorError;
use crate::judge::Judge;
use crate::registry::Tasks;
use crate::run::SystemClock;

/// Judged answers of one task that a report looks at.
const SHOWN: usize = 10_000;

/// The key that the control miner of this validator serves under.
#[must_use]
pub fn control_key(secret: &MasterSeed) -> Keypair {
    Keypair::from_seed(*secret.derive("control-miner", "").as_bytes())
}

/// How the control miner fared in one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlScore {
    /// Answers judged.
    pub judged: usize,
    /// Of them with a violation, which an honest miner has none of.
    pub violations: usize,
    /// Mean quality of the scored ones.
    pub quality: f64,
    /// Answers at which the test accused it: the live rate of false accusations is this over `judged`.
    pub accused: usize,
    /// `ln` of the evidence against it now; `None` without a calibration.
    pub evidence: Option<f64>,
}

/// How the control miner fared, by task; tasks that it was not asked in are left out.
///
/// # Errors
/// As the store's.
pub fn control_scores<'a>(
    store: &Store,
    tasks: impl Iterator<Item = &'a TaskName>,
) -> Result<BTreeMap<TaskName, ControlScore>, StoreError> {
    let miner = control_key(&store.master_seed()?).hotkey();
    let mut scores = BTreeMap::new();
    for task in tasks {
        let mut samples = store.samples(&miner, task, 0, SHOWN)?;
        samples.retain(|s| !matches!(s.judgement, Judgement::Inconclusive(_)));
        if samples.is_empty() {
            continue;
        }
        let scored = samples.iter().filter(|s| matches!(s.judgement, Judgement::Scored));
        let qualities: Vec<f64> = scored.map(|s| s.quality).collect();
        let at = |s: &&nineteen_domain::ledger::QualitySample| {
            s.suspicion.as_ref().is_some_and(|x| x.stream.accused_us == Some(s.at_us))
        };
        #[expect(clippy::cast_precision_loss, reason = "counts of samples are far below 2^53")]
        let quality = qualities.iter().sum::<f64>() / qualities.len().max(1) as f64;
        let score = ControlScore {
            judged: samples.len(),
            violations: samples.len() - qualities.len(),
            quality,
            accused: samples.iter().filter(at).count(),
            evidence: crate::streams::newest(&samples).map(honesty::evidence),
        };
        scores.insert(task.clone(), score);
    }
    Ok(scores)
}

/// Asks the control miner.
#[derive(Debug)]
pub struct ControlMiner {
    /// The live tasks.
    pub tasks: Arc<Board>,
    /// The tasks that it serves, as they were when it was set up: it is not asked for work of another kind.
    pub serves: Arc<Tasks>,
    /// The validator's judge.
    pub judge: Arc<Judge>,
    /// Signs as the validator, and reaches loopback.
    pub client: Client,
    /// Where it serves.
    pub addr: SocketAddr,
    /// Its key.
    pub hotkey: Hotkey,
    /// The validator's secret.
    pub secret: MasterSeed,
    /// Time between two rounds.
    pub every: Duration,
}

impl ControlMiner {
    /// Asks every task once a round until `stop`.
    ///
    /// # Errors
    /// When nothing can be kept any more.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ValidatorError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.every) => {}
            }
            for name in self.serves.by_name.keys() {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    asked = self.ask(name) => asked?,
                }
            }
        }
    }

    async fn ask(&self, name: &TaskName) -> Result<(), ValidatorError> {
        let (now, then) = (self.tasks.now(), self.serves.by_name.get(name));
        let (Some(task), Some(then)) = (now.by_name.get(name), then) else { return Ok(()) };
        if (&task.manifest.grants, &task.manifest.operation)
            != (&then.manifest.grants, &then.manifest.operation)
        {
            return Ok(());
        }
        // In no period: the seconds of the clock number its probes, and no plan has them.
        let slot = u32::try_from(SystemClock.now_us() / 1_000_000 % (1 << 32)).unwrap_or(0);
        let probe = ProbeId { period: PeriodId(0), task: name.clone(), miner: self.hotkey, slot };
        let (plugin, seed) = (Arc::clone(&task.plugin), self.secret.probe(&probe));
        let made = tokio::task::spawn_blocking(move || plugin.synthesize(&seed)).await;
        let request = match made {
            Ok(Ok(made)) => made.request,
            Ok(Err(e)) => {
                tracing::error!(task = %name, error = %e, "no request for the control miner");
                return Ok(());
            }
            Err(e) => return Err(ValidatorError::Part { part: "control miner", why: e.to_string() }),
        };
        let target = Target { addr: self.addr, hotkey: self.hotkey };
        let m = &task.manifest;
        match self.client.try_post(&target, &request, &m.limits, &m.headers).await {
            Ok(exchange) => {
                let sample = self.judge.exchange(probe, request, exchange).await?;
                if let Judgement::Violation(why) = &sample.judgement {
                    tracing::error!(task = %name, why, "the control miner is blamed: honest miners may be too");
                }
            }
            Err(fault) => tracing::warn!(task = %name, ?fault, "the control miner was not reached"),
        }
        Ok(())
    }
}
