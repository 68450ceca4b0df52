//! Strategies of the announcement: when it is how large, to whom.

use super::{Asked, Reply, Seen, Strategy, honest};
use crate::machine::{Machine, float};
use crate::rng::Rng;

/// Little for `low` periods, then much for one: credit earned cheaply, spent dearly.
#[derive(Debug)]
pub(crate) struct Oscillating {
    pub(crate) low_periods: u64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Strategy for Oscillating {
    fn announce(&mut self, asked: &Asked<'_>, machines: &[Machine]) -> Option<f64> {
        let times =
            if asked.period % (self.low_periods + 1) < self.low_periods { self.low } else { self.high };
        Some(honest::announcement(asked, machines) * times)
    }
}

/// The whole machine, to every validator and for every hotkey.
#[derive(Debug)]
pub(crate) struct InFull;

impl Strategy for InFull {
    fn announce(&mut self, asked: &Asked<'_>, machines: &[Machine]) -> Option<f64> {
        let alone = Asked { keys: 1, key: 0, validators: 1, ..*asked };
        Some(honest::announcement(&alone, machines))
    }
}

/// Honest, but away for a part of the run.
#[derive(Debug)]
pub(crate) struct Absent {
    /// From which part of the run, in [0, 1].
    pub(crate) from: f64,
    /// To which.
    pub(crate) to: f64,
    /// Whether it is away now; as of the last announcement.
    pub(crate) away: bool,
}

impl Strategy for Absent {
    fn announce(&mut self, asked: &Asked<'_>, machines: &[Machine]) -> Option<f64> {
        let at = float(asked.period) / float(asked.periods.max(1));
        self.away = (self.from..self.to).contains(&at);
        (!self.away).then(|| honest::announcement(asked, machines))
    }

    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        if self.away { Reply::Failed } else { honest::reply(seen, machines, rng) }
    }
}
