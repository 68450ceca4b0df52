//! Receipts of judged exchanges, from what the store keeps of them.
//!
//! For: whoever wants to show, or to check, why an exchange earned what it earned. Not for: judging. A receipt
//! is made by playing the rounds again, and only if what comes out is what was booked then: a receipt of
//! something that was never said would be worse than none.

use nineteen_domain::ledger::{Judgement, QualitySample};
use nineteen_domain::{Hotkey, PeriodId, ProbeId, TaskName};
use nineteen_sandbox::Plugin;
use nineteen_sandbox::receipt::{Bodies, Decision, Receipt, ReceiptError};
use nineteen_store::{Store, StoreError};

/// Judged exchanges of one miner and task that are looked through.
const LOOKED_AT: usize = 20_000;

/// Which exchanges.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this task alone.
    pub task: Option<TaskName>,
    /// Of this miner alone.
    pub miner: Option<Hotkey>,
    /// Of this period alone.
    pub period: Option<PeriodId>,
    /// This one alone.
    pub probe: Option<ProbeId>,
    /// At most so many, the newest of each miner and task first.
    pub most: usize,
}

/// Why there is no receipt of an exchange.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Bodies are kept for a shorter time than scores.
    #[error("the exchange is not kept any more: raise validator.keep_exchanges_days")]
    Gone,
    /// It cannot be played.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The plugin here says something else than was booked.
    #[error("{field}: booked was {booked}, and the component here says {said}: was the task changed since?")]
    Changed {
        /// Field of the sample.
        field: &'static str,
        /// What was booked.
        booked: String,
        /// What comes out now.
        said: String,
    },
}

/// Judged exchanges that are wanted, by task and miner, the newest first. Reads from disk.
///
/// # Errors
/// When the store cannot be read.
pub fn find(store: &Store, wanted: &Wanted) -> Result<Vec<QualitySample>, StoreError> {
    if let Some(probe) = &wanted.probe {
        return Ok(store.sample(probe)?.into_iter().collect());
    }
    let mut found = Vec::new();
    for (task, miner) in store.pairs()? {
        if wanted.task.as_ref().is_some_and(|t| *t != task) || wanted.miner.is_some_and(|m| m != miner) {
            continue;
        }
        for sample in store.samples(&miner, &task, 0, LOOKED_AT)? {
            if found.len() >= wanted.most {
                return Ok(found);
            }
            if wanted.period.is_none_or(|p| p == sample.probe.period) {
                found.push(sample);
            }
        }
    }
    Ok(found)
}

/// What is kept of a probe's exchange and evidence; `None` when it is gone. Reads from disk.
///
/// # Errors
/// When the store cannot be read.
pub fn bodies(store: &Store, probe: &ProbeId) -> Result<Option<Bodies>, StoreError> {
    let Some((request, exchange)) = store.exchange(probe)? else { return Ok(None) };
    let evidence = store.evidence(probe)?.unwrap_or_default();
    Ok(Some(Bodies { request, exchange, evidence }))
}

/// The receipt of a judged exchange. Reads from disk and calls the plugin: use a blocking thread.
///
/// # Errors
/// [`ExportError`].
pub fn export(store: &Store, plugin: &Plugin, sample: &QualitySample) -> Result<Receipt, ExportError> {
    let kept = bodies(store, &sample.probe)?.ok_or(ExportError::Gone)?;
    let receipt = Receipt::make(plugin, Some(sample.probe.clone()), kept)?;
    agrees(sample, &receipt.decision)?;
    Ok(receipt)
}

/// Whether a decision is what was booked. Reasons may have been added to a verdict's own.
fn agrees(sample: &QualitySample, decision: &Decision) -> Result<(), ExportError> {
    let changed = |field, booked: String, said: String| Err(ExportError::Changed { field, booked, said });
    match (&sample.judgement, decision) {
        (Judgement::Scored, Decision::Scored(v)) => {
            if v.quality.to_bits() != sample.quality.to_bits() {
                return changed("quality", sample.quality.to_string(), v.quality.to_string());
            }
            if v.units != sample.units {
                return changed("units", sample.units.to_string(), v.units.to_string());
            }
            Ok(())
        }
        (Judgement::Violation(a), Decision::Violation(b))
        | (Judgement::Inconclusive(a), Decision::Inconclusive(b))
            if a == b =>
        {
            Ok(())
        }
        // Booked as `code: words`.
        (Judgement::Violation(why) | Judgement::Inconclusive(why), Decision::Failed(code))
            if why.starts_with(&format!("{code}: ")) =>
        {
            Ok(())
        }
        (booked, said) => changed("judgement", format!("{booked:?}"), short(said)),
    }
}

fn short(decision: &Decision) -> String {
    match decision {
        Decision::Scored(v) => format!("quality {}", v.quality),
        Decision::Violation(why) => format!("a violation: {why}"),
        Decision::Inconclusive(why) => format!("inconclusive: {why}"),
        Decision::Failed(code) => code.clone(),
    }
}
