//! Honest play, which everything else is compared with.

use super::{Asked, Reply, Seen, Strategy, honest_style, of_key, serve};
use crate::machine::{Machine, Style, float, micros};
use crate::rng::Rng;

/// Part of what a machine could do at best that an honest miner announces: requests differ in length, and those
/// of several validators may come together.
pub(crate) const UTILISATION: f64 = 0.9;

/// What its own machine sustains, divided over the hotkeys in front of it and over validators.
pub(crate) fn announcement(asked: &Asked<'_>, machines: &[Machine]) -> f64 {
    let n = machines.len().max(1);
    // Hotkeys in front of the same machine.
    let sharing = (0..asked.keys).filter(|k| k % n == asked.key % n).count().max(1);
    machines.get(asked.key % n).map_or(0.0, |m| m.units_per_period(asked.work, 1.0)) * UTILISATION
        / float(sharing as u64)
        / float(asked.validators.max(1) as u64)
}

/// Served if a slot is free or soon will be, else a 429.
pub(crate) fn reply(seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
    serve(of_key(seen.key, machines), seen, honest_style(seen.work), rng)
}

/// Announces this many times what it sustains, and serves honestly what it can.
#[derive(Debug)]
pub(crate) struct Honest {
    /// 1 is honest.
    pub(crate) announces: f64,
}

/// As [`Honest`], but lets requests wait for this many times what the reference takes for one: overload shows
/// late.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) announces: f64,
    pub(crate) patient: f64,
}

impl Strategy for Queues {
    fn announce(&mut self, asked: &Asked<'_>, machines: &[Machine]) -> Option<f64> {
        Some(announcement(asked, machines) * self.announces)
    }

    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        let wait_us = micros(self.patient * seen.work.reference_us());
        let style = Style { wait_us, ..honest_style(seen.work) };
        serve(of_key(seen.key, machines), seen, style, rng)
    }
}

impl Strategy for Honest {
    fn announce(&mut self, asked: &Asked<'_>, machines: &[Machine]) -> Option<f64> {
        Some(announcement(asked, machines) * self.announces)
    }
}
