//! How an owner of machines plays: what it announces, and what it does with each request.
//!
//! An owner has one or more hotkeys and one or more machines. Hotkey `i` stands in front of machine
//! `i mod machines`, unless its strategy does otherwise.

pub(crate) mod announcing;
pub(crate) mod cheating;
pub(crate) mod honest;
pub(crate) mod owning;
pub(crate) mod selective;

use crate::machine::{Machine, Quality, Served, Style, micros};
use crate::rng::Rng;
use crate::setting::Work;

/// Someone is asked what it announces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Of which task.
    pub(crate) work: &'a Work,
    /// Which of its hotkeys.
    pub(crate) key: usize,
    /// How many it has.
    pub(crate) keys: usize,
    /// By which validator.
    pub(crate) validator: usize,
    /// Of how many, of equal stake.
    pub(crate) validators: usize,
    /// The how manieth period of that validator, from 0.
    pub(crate) period: u64,
    /// Periods of the run.
    pub(crate) periods: u64,
    /// When that period begins, microseconds of the Unix epoch.
    pub(crate) now_us: u64,
}

/// A request, as a miner sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// Of which task.
    pub(crate) work: &'a Work,
    /// To which of its hotkeys.
    pub(crate) key: usize,
    /// From which validator.
    pub(crate) validator: usize,
    /// When, microseconds of the Unix epoch.
    pub(crate) now_us: u64,
    /// How long the answer will be, in units; seen from the request.
    pub(crate) units: u64,
}

/// What comes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reply {
    /// 429, at once.
    RateLimited,
    /// A failure, at once.
    Failed,
    /// An answer.
    Answered {
        /// When.
        served: Served,
        /// In [0, 1].
        quality: f64,
    },
}

/// A way to play. Told everything that a miner could know, in the order in which it happens.
pub(crate) trait Strategy: Send {
    /// Units per period for this validator; `None` is silence.
    fn announce(&mut self, asked: &Asked<'_>, machines: &[Machine]) -> Option<f64> {
        Some(honest::announcement(asked, machines))
    }

    /// What it does with a request.
    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        honest::reply(seen, machines, rng)
    }

    /// A block started a window of the task: everybody sees that.
    fn beacon(&mut self, _now_us: u64) {}

    /// A validator set weights: its own, by hotkey, and the mean of all. True: a new hotkey takes the place of
    /// the first.
    fn weighed(&mut self, _own: &[f64], _mean: f64) -> bool {
        false
    }
}

/// The machine of a hotkey.
fn of_key(key: usize, machines: &mut [Machine]) -> Option<&mut Machine> {
    let n = machines.len().max(1);
    machines.get_mut(key % n)
}

/// Serves on this machine in this style, or answers 429 where that would take too long.
fn serve(machine: Option<&mut Machine>, seen: &Seen<'_>, style: Style, rng: &mut Rng) -> Reply {
    let Some(machine) = machine else { return Reply::Failed };
    // Drawn whether needed or not: the next draw is the same for every strategy.
    let (fails, quality) = (rng.unit() < machine.fail_rate, style.quality.draw(rng));
    match machine.serve(seen.now_us, seen.units, style) {
        Some(_) if fails => Reply::Failed,
        Some(served) => Reply::Answered { served, quality },
        None => Reply::RateLimited,
    }
}

/// How long an honest miner lets a request wait for a slot, times what the reference takes for one.
const PATIENT: f64 = 1.5;

/// As an honest miner serves: the right model, and a short queue.
pub(crate) fn honest_style(work: &Work) -> Style {
    Style { speed: 1.0, quality: Quality::HONEST, wait_us: micros(PATIENT * work.reference_us()) }
}
