//! When a plugin is at fault and not the bytes that it was given: it is switched off for a while, then tried again.
//!
//! The control exchange decides about each failure ([`crate::control`]): a miner whose bytes make a plugin fail that works
//! otherwise pays for it alone. A task is switched off only where the plugin fails its control exchange, or where it fails on the
//! bytes of so many miners that the bytes cannot be what is wrong. The rest is two periods, then four, up to 64.
//!
//! What rests is not asked of anybody and gives its weight to the others; nothing of it is held against a miner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nineteen_domain::{Digest, Hotkey, PeriodId, TaskName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::control::Controls;
use crate::error::ValidatorError;
use crate::registrar::{Off, Registrar};

/// Judgements that wait to be looked at; more are not looked at.
pub(crate) const QUEUE: usize = 1_024;
/// Fewer miners than these are not many, whatever part of all they are.
const MANY: usize = 5;
/// A rest is at most 2 to this power, in periods.
const LONGEST: u32 = 6;

/// What a judgement says of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It came to a judgement.
    Judged,
    /// It failed, and its control exchange passes.
    BytesFail {
        /// Of its failure.
        code: String,
    },
    /// It failed, and so does its control exchange, or there is none.
    PluginFails {
        /// Of its failure.
        code: String,
        /// `Some(false)`: the control exchange fails.
        control: Option<bool>,
    },
}

/// One judgement.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) task: TaskName,
    pub(crate) miner: Hotkey,
    pub(crate) period: PeriodId,
    /// Of the plugin that judged: another one begins anew.
    pub(crate) component: Digest,
    pub(crate) found: Found,
}

/// What is remembered of a task: one period, at most as many miners as were asked in it.
#[derive(Debug, Default)]
struct Ledger {
    period: PeriodId,
    component: Option<Digest>,
    asked: BTreeSet<Hotkey>,
    failed: BTreeMap<String, BTreeSet<Hotkey>>,
}

impl Ledger {
    /// Why the task has to rest, if it has to.
    fn see(&mut self, seen: &Seen) -> Option<String> {
        if self.period != seen.period || self.component != Some(seen.component) {
            *self = Self { period: seen.period, component: Some(seen.component), ..Self::default() };
        }
        self.asked.insert(seen.miner);
        let code = match &seen.found {
            Found::Judged => return None,
            Found::PluginFails { code, control: Some(false) } => {
                return Some(format!("its plugin fails its control exchange ({code})"));
            }
            Found::BytesFail { code } | Found::PluginFails { code, .. } => code,
        };
        let failed = self.failed.entry(code.clone()).or_default();
        failed.insert(seen.miner);
        let (failed, asked) = (failed.len(), self.asked.len());
        (failed >= MANY && failed * 2 >= asked)
            .then(|| format!("its plugin fails on the bytes of {failed} of {asked} miners ({code})"))
    }
}

/// Watches over the plugins. Made by [`crate::Validator::health`].
pub struct Health {
    watched: mpsc::Receiver<Seen>,
    board: Arc<Board>,
    controls: Arc<Controls>,
    registrar: Arc<Registrar>,
    ledgers: BTreeMap<TaskName, Ledger>,
    /// How often in a row a task had to rest, and until when.
    rests: BTreeMap<TaskName, (u32, PeriodId)>,
}

impl Health {
    pub(crate) fn new(
        watched: mpsc::Receiver<Seen>,
        board: Arc<Board>,
        controls: Arc<Controls>,
        registrar: Arc<Registrar>,
    ) -> Self {
        Self { watched, board, controls, registrar, ledgers: BTreeMap::new(), rests: BTreeMap::new() }
    }

    /// Until `stop`.
    ///
    /// # Errors
    /// None: what cannot be switched is said in the log.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ValidatorError> {
        let mut periods = self.board.periods();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(seen) = self.watched.recv() => self.saw(&seen).await,
                Ok(()) = periods.changed() => {
                    let planned = *periods.borrow_and_update();
                    if let Some(planned) = planned {
                        self.wake(PeriodId(planned.0.saturating_add(1))).await;
                    }
                }
            }
        }
    }

    async fn saw(&mut self, seen: &Seen) {
        // Of a plugin that runs: what one that was replaced does is no news.
        let runs = self.board.now().plugin(&seen.task).map(|p| p.digest());
        if runs != Some(seen.component) {
            return;
        }
        let Some(why) = self.ledgers.entry(seen.task.clone()).or_default().see(seen) else { return };
        self.ledgers.remove(&seen.task);
        let times = match self.rests.get(&seen.task) {
            // Survived for as long as it had rested: that is over.
            Some((times, until)) if seen.period.0 < until.0.saturating_add(1 << times) => {
                times.saturating_add(1)
            }
            _ => 1,
        }
        .min(LONGEST);
        let until = PeriodId(seen.period.0.saturating_add(1 + (1 << times)));
        match self.registrar.suspend(&seen.task, why, until, times).await {
            Ok(_) => drop(self.rests.insert(seen.task.clone(), (times, until))),
            Err(e) => {
                tracing::error!(task = %seen.task, error = %e, "a task that fails cannot be switched off")
            }
        }
    }

    /// Tries what has rested long enough for the next period. A plugin that still fails its control exchange rests on.
    async fn wake(&mut self, next: PeriodId) {
        let registered = self.registrar.registered().generation;
        for entry in registered.tasks.entries() {
            let Some(Off::Host { until, times, .. }) = &entry.off else { continue };
            if *until > next {
                continue;
            }
            self.rests.insert(entry.name.clone(), (*times, *until));
            if let Err(e) = self.registrar.resume(&entry.name).await {
                tracing::error!(task = %entry.name, error = %e, "a task cannot be tried again");
                continue;
            }
            let task = self.board.now().by_name.get(&entry.name).cloned();
            let Some(task) = task else { continue };
            if self.controls.try_on(&task).await == Some(false) {
                let times = times.saturating_add(1).min(LONGEST);
                let until = PeriodId(next.0.saturating_add(1 << times));
                let why = "its plugin still fails its control exchange".to_owned();
                if let Err(e) = self.registrar.suspend(&entry.name, why, until, times).await {
                    tracing::error!(task = %entry.name, error = %e, "a task that fails cannot be switched off");
                }
                self.rests.insert(entry.name.clone(), (times, until));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails is meant to panic")]
mod tests {
    use super::*;

    fn seen(miner: u8, period: u64, found: Found) -> Seen {
        Seen {
            task: TaskName::new("chat").unwrap(),
            miner: Hotkey::from_bytes([miner; 32]),
            period: PeriodId(period),
            component: Digest::of(b"component"),
            found,
        }
    }

    fn bytes() -> Found {
        Found::BytesFail { code: "sandbox.trap".into() }
    }

    #[test]
    fn one_miner_never_switches_a_task_off() {
        let mut ledger = Ledger::default();
        for _ in 0..10_000 {
            assert_eq!(ledger.see(&seen(1, 4, bytes())), None);
        }
    }

    #[test]
    fn four_of_four_are_not_many_and_a_minority_neither() {
        let mut ledger = Ledger::default();
        assert!((0..4).all(|m| ledger.see(&seen(m, 4, bytes())).is_none()));
        let mut ledger = Ledger::default();
        (0..40).for_each(|m| assert_eq!(ledger.see(&seen(m, 4, Found::Judged)), None));
        assert!((0..19).all(|m| ledger.see(&seen(m, 4, bytes())).is_none()));
        assert!(ledger.see(&seen(19, 4, bytes())).unwrap().contains("20 of 40"));
    }

    #[test]
    fn a_plugin_that_fails_its_control_exchange_rests_at_once() {
        let fails = |control| Found::PluginFails { code: "sandbox.trap".into(), control };
        assert!(Ledger::default().see(&seen(1, 4, fails(Some(false)))).is_some());
        // Without a control exchange it takes many.
        let mut ledger = Ledger::default();
        assert!((0..4).all(|m| ledger.see(&seen(m, 4, fails(None))).is_none()));
        assert!(ledger.see(&seen(4, 4, fails(None))).is_some());
    }

    #[test]
    fn periods_and_components_are_apart() {
        let mut ledger = Ledger::default();
        for period in 0..10 {
            assert!((0..4).all(|m| ledger.see(&seen(m, period, bytes())).is_none()));
        }
        let mut other = seen(9, 9, bytes());
        other.component = Digest::of(b"another");
        assert_eq!(ledger.see(&other), None);
    }
}
