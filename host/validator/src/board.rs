//! The live tasks over time: what runs now, and what each period that is not settled yet was planned with.
//!
//! **Architecture invariant:** a task changes atomically. Everybody asks the board once and works on the snapshot that it gave;
//! a period is asked about, answered, judged and settled with the tasks that it was planned with, whatever came after.
//!
//! Not for: reading files or loading components ([`crate::registry`]), or deciding when to change.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use nineteen_domain::PeriodId;
use tokio::sync::watch;

use crate::registry::Tasks;

/// Hands out snapshots. Shared by everybody who needs the tasks.
pub struct Board {
    /// A std lock: held for a clone of an `Arc`.
    inner: RwLock<Inner>,
    changes: watch::Sender<u64>,
    periods: watch::Sender<Option<PeriodId>>,
}

struct Inner {
    now: Arc<Tasks>,
    planned: BTreeMap<PeriodId, Arc<Tasks>>,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl Board {
    /// With the tasks that a validator starts with: generation 0.
    #[must_use]
    pub fn new(tasks: Tasks) -> Self {
        let inner = Inner { now: Arc::new(tasks), planned: BTreeMap::new() };
        Self { inner: RwLock::new(inner), changes: watch::Sender::new(0), periods: watch::Sender::new(None) }
    }

    /// What runs now: what the next period is planned with.
    #[must_use]
    pub fn now(&self) -> Arc<Tasks> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner).now)
    }

    /// What a period was planned with; for periods that this process did not plan, what runs now.
    #[must_use]
    pub fn of(&self, period: PeriodId) -> Arc<Tasks> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(inner.planned.get(&period).unwrap_or(&inner.now))
    }

    /// How often the tasks were exchanged since the start.
    #[must_use]
    pub fn generation(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Exchanges the tasks, at once for everybody, and gives those that ran. Periods that are planned keep theirs.
    pub fn swap(&self, tasks: Tasks) -> Arc<Tasks> {
        let before = {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut inner.now, Arc::new(tasks))
        };
        self.changes.send_modify(|generation| *generation += 1);
        before
    }

    /// Wakes whoever has to know of an exchange.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Every snapshot that somebody may still ask for.
    #[must_use]
    pub fn in_use(&self) -> Vec<Arc<Tasks>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.planned.values().chain([&inner.now]).map(Arc::clone).collect()
    }

    /// Told of every period that is planned.
    #[must_use]
    pub fn periods(&self) -> watch::Receiver<Option<PeriodId>> {
        self.periods.subscribe()
    }

    /// A period is planned with these tasks.
    pub(crate) fn plan(&self, period: PeriodId, tasks: Arc<Tasks>) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).planned.insert(period, tasks);
        self.periods.send_replace(Some(period));
    }

    /// A period is settled: nobody asks for the tasks of those before it again. Its own stay until the next one is
    /// settled, for an answer whose judgement the settlement did not wait for is judged by the plugin that asked.
    pub(crate) fn settled(&self, period: PeriodId) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.planned = inner.planned.split_off(&period);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails is meant to panic")]
mod tests {
    use super::*;

    fn set(version: &str) -> Tasks {
        let set =
            toml::from_str(&format!("name = 's'\nversion = '{version}'\ntask = []\npolicy = 'default'\n"));
        Tasks { set: set.unwrap(), by_name: BTreeMap::new() }
    }

    #[test]
    fn a_planned_period_keeps_its_tasks_and_the_next_has_the_new_ones() {
        let board = Board::new(set("1.0.0"));
        let mut told = board.changes();
        let version = |tasks: Arc<Tasks>| tasks.set.version.to_string();
        board.plan(PeriodId(4), board.now());
        assert_eq!(version(board.swap(set("2.0.0"))), "1.0.0");
        assert!(told.has_changed().unwrap());
        assert_eq!(*told.borrow_and_update(), 1);
        assert_eq!((version(board.of(PeriodId(4))), version(board.now())), ("1.0.0".into(), "2.0.0".into()));
        board.plan(PeriodId(5), board.now());
        let _ = board.swap(set("3.0.0"));
        board.settled(PeriodId(4));
        // A judgement that came too late for the settlement is made with the plugin that asked.
        assert_eq!(
            (version(board.of(PeriodId(4))), version(board.of(PeriodId(5)))),
            ("1.0.0".into(), "2.0.0".into())
        );
        board.settled(PeriodId(5));
        // Nobody holds on to what is older.
        assert_eq!(version(board.of(PeriodId(4))), "3.0.0");
        assert_eq!(board.inner.read().unwrap().planned.len(), 1);
    }
}
