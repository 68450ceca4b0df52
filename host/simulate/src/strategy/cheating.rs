//! Strategies that serve something else than was asked for.

use super::{Asked, Reply, Seen, Strategy, honest, honest_style, of_key, serve};
use crate::machine::{Machine, Quality, Served, Style};
use crate::rng::Rng;

/// How much faster the cheap model is.
const CHEAP_SPEED: f64 = 3.0;

/// Serves the cheap model with this probability and announces what that makes room for.
#[derive(Debug)]
pub(crate) struct Cheats {
    /// In [0, 1].
    pub(crate) probability: f64,
}

impl Cheats {
    fn announcement(&self, asked: &Asked<'_>, machines: &[Machine]) -> f64 {
        honest::announcement(asked, machines) / (1.0 - self.probability * (1.0 - 1.0 / CHEAP_SPEED))
    }

    fn answer(&self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        let honest = honest_style(seen.work);
        let cheap = Style { speed: CHEAP_SPEED, quality: Quality::CHEAP, ..honest };
        let style = if rng.unit() < self.probability { cheap } else { honest };
        serve(of_key(seen.key, machines), seen, style, rng)
    }
}

impl Strategy for Cheats {
    fn announce(&mut self, asked: &Asked<'_>, machines: &[Machine]) -> Option<f64> {
        Some(self.announcement(asked, machines))
    }

    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        self.answer(seen, machines, rng)
    }
}

/// Sends the whole answer in one burst at its end.
#[derive(Debug)]
pub(crate) struct Buffers;

impl Strategy for Buffers {
    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        match honest::reply(seen, machines, rng) {
            Reply::Answered { served, quality } => {
                Reply::Answered { served: Served { first_us: served.end_us, ..served }, quality }
            }
            other => other,
        }
    }
}

/// Cheats always, and comes back under a new hotkey when its share drops.
#[derive(Debug)]
pub(crate) struct ReRegisters {
    pub(crate) cheats: Cheats,
    /// Settlements since the last registration.
    pub(crate) age: u32,
    /// The most that this hotkey earned in one.
    pub(crate) best: f64,
}

impl Strategy for ReRegisters {
    fn announce(&mut self, asked: &Asked<'_>, machines: &[Machine]) -> Option<f64> {
        Some(self.cheats.announcement(asked, machines))
    }

    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        self.cheats.answer(seen, machines, rng)
    }

    fn weighed(&mut self, own: &[f64], mean: f64) -> bool {
        let weight: f64 = own.iter().sum();
        self.age += 1;
        self.best = self.best.max(weight);
        let caught = self.age >= 12 && weight < 0.5 * mean.max(self.best);
        if caught {
            self.age = 0;
            self.best = 0.0;
        }
        caught
    }
}
