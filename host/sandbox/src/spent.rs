//! What a plugin's calls used of their budgets, since it was loaded. Counted without locks; the numbers of one line may be of
//! slightly different moments.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Call;

/// Calls of one function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// How many.
    pub calls: u64,
    /// Of them ended by a budget, a trap or a broken rule.
    pub failed: u64,
    /// Units of fuel of all of them.
    pub fuel: u64,
    /// The most that one used.
    pub most_fuel: u64,
    /// Microseconds of all of them.
    pub micros: u64,
    /// The longest, microseconds.
    pub most_micros: u64,
    /// The most linear memory of one, bytes.
    pub most_memory: u64,
    /// The most that went into one, bytes.
    pub most_bytes_in: u64,
}

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    failed: AtomicU64,
    fuel: AtomicU64,
    most_fuel: AtomicU64,
    micros: AtomicU64,
    most_micros: AtomicU64,
    most_memory: AtomicU64,
    most_bytes_in: AtomicU64,
}

/// One place for each function.
#[derive(Debug, Default)]
pub(crate) struct Meter([Counters; Call::ALL.len()]);

/// One call.
pub(crate) struct Used {
    pub(crate) ok: bool,
    pub(crate) fuel: u64,
    pub(crate) took: Duration,
    pub(crate) memory: u64,
    pub(crate) bytes_in: u64,
}

impl Meter {
    pub(crate) fn count(&self, call: Call, used: &Used) {
        let place = Call::ALL.iter().position(|c| *c == call);
        let Some(c) = place.and_then(|i| self.0.get(i)) else { return };
        let micros = u64::try_from(used.took.as_micros()).unwrap_or(u64::MAX);
        c.calls.fetch_add(1, Relaxed);
        c.failed.fetch_add(u64::from(!used.ok), Relaxed);
        c.fuel.fetch_add(used.fuel, Relaxed);
        c.most_fuel.fetch_max(used.fuel, Relaxed);
        c.micros.fetch_add(micros, Relaxed);
        c.most_micros.fetch_max(micros, Relaxed);
        c.most_memory.fetch_max(used.memory, Relaxed);
        c.most_bytes_in.fetch_max(used.bytes_in, Relaxed);
    }

    /// By function; those that were never called are left out.
    pub(crate) fn read(&self) -> BTreeMap<String, Spent> {
        let all = Call::ALL.iter().zip(&self.0).filter(|(_, c)| c.calls.load(Relaxed) > 0);
        all.map(|(call, c)| {
            let spent = Spent {
                calls: c.calls.load(Relaxed),
                failed: c.failed.load(Relaxed),
                fuel: c.fuel.load(Relaxed),
                most_fuel: c.most_fuel.load(Relaxed),
                micros: c.micros.load(Relaxed),
                most_micros: c.most_micros.load(Relaxed),
                most_memory: c.most_memory.load(Relaxed),
                most_bytes_in: c.most_bytes_in.load(Relaxed),
            };
            (call.name().to_owned(), spent)
        })
        .collect()
    }
}
