//! Strategies that answer some requests and not others.

use std::collections::BTreeMap;

use super::{Asked, Reply, Seen, Strategy, honest};
use crate::machine::{Machine, float, micros};
use crate::rng::Rng;

/// Answers short requests alone and announces more for it.
#[derive(Debug)]
pub(crate) struct EasyOnly {
    /// Up to this many times the average length.
    pub(crate) up_to: f64,
}

impl Strategy for EasyOnly {
    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        if float(seen.units) > self.up_to * float(seen.work.expected_units) {
            return Reply::RateLimited;
        }
        honest::reply(seen, machines, rng)
    }
}

/// Answers in the first part of each validator's period alone.
#[derive(Debug)]
pub(crate) struct Early {
    /// Which part, in [0, 1].
    pub(crate) part: f64,
    /// Start of the period that runs, by validator.
    pub(crate) began_us: BTreeMap<usize, u64>,
}

impl Strategy for Early {
    fn announce(&mut self, asked: &Asked<'_>, machines: &[Machine]) -> Option<f64> {
        self.began_us.insert(asked.validator, asked.now_us);
        Some(honest::announcement(asked, machines))
    }

    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        let began = self.began_us.get(&seen.validator).copied().unwrap_or(0);
        if seen.now_us.saturating_sub(began) > micros(self.part * float(seen.work.period_us)) {
            return Reply::RateLimited;
        }
        honest::reply(seen, machines, rng)
    }
}

/// Answers once requests come at the rate that it announced: a window seems to have begun.
#[derive(Debug, Default)]
pub(crate) struct WakesForWindows {
    /// By validator and hotkey: the announced interval, and when requests came last.
    lines: BTreeMap<(usize, usize), (f64, Vec<u64>)>,
}

impl Strategy for WakesForWindows {
    fn announce(&mut self, asked: &Asked<'_>, machines: &[Machine]) -> Option<f64> {
        let announced = honest::announcement(asked, machines);
        let interval = float(asked.work.period_us) * float(asked.work.expected_units) / announced.max(1.0);
        self.lines.entry((asked.validator, asked.key)).or_default().0 = interval;
        Some(announced)
    }

    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        let (interval, last) = self.lines.entry((seen.validator, seen.key)).or_default();
        let regular = last.last().is_some_and(|t| {
            let gap = float(seen.now_us.saturating_sub(*t));
            gap > 0.7 * *interval && gap < 1.3 * *interval
        });
        *last = vec![seen.now_us];
        if regular { honest::reply(seen, machines, rng) } else { Reply::RateLimited }
    }
}

/// Answers while a window of the beacon lasts: the chain tells it when.
#[derive(Debug)]
pub(crate) struct WakesForBeacons {
    /// How long it stays awake, in microseconds.
    pub(crate) awake_us: u64,
    /// Until when, microseconds of the Unix epoch.
    pub(crate) until_us: u64,
}

impl Strategy for WakesForBeacons {
    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        if seen.now_us > self.until_us {
            return Reply::RateLimited;
        }
        honest::reply(seen, machines, rng)
    }

    fn beacon(&mut self, now_us: u64) {
        self.until_us = now_us.saturating_add(self.awake_us);
    }
}

/// Never answers.
#[derive(Debug)]
pub(crate) struct RateLimitsAll;

impl Strategy for RateLimitsAll {
    fn reply(&mut self, _: &Seen<'_>, _: &mut [Machine], _: &mut Rng) -> Reply {
        Reply::RateLimited
    }
}

/// Fails every second request.
#[derive(Debug, Default)]
pub(crate) struct FailsHalf {
    odd: bool,
}

impl Strategy for FailsHalf {
    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        self.odd = !self.odd;
        if self.odd { Reply::Failed } else { honest::reply(seen, machines, rng) }
    }
}
