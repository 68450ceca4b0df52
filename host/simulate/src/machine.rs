//! What a miner owns: a machine with slots, served first come, first served.
//!
//! A request occupies a slot for `first unit + units/speed`. When it ends follows from when slots get free, so
//! nothing here waits for a clock. Batching, memory and warm-up are left out.

use crate::rng::Rng;
use crate::setting::Work;

/// How good answers are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quality {
    /// Most likely quality, in [0, 1].
    pub(crate) mean: f64,
    /// Spread; at a mean of 1 it only lowers.
    pub(crate) spread: f64,
}

impl Quality {
    /// The model that the task asks for.
    pub(crate) const HONEST: Self = Self { mean: 1.0, spread: 0.01 };
    /// A much cheaper one.
    pub(crate) const CHEAP: Self = Self { mean: 0.3, spread: 0.05 };

    /// The quality of one answer, in [0, 1].
    pub(crate) fn draw(self, rng: &mut Rng) -> f64 {
        let q = self.mean + self.spread * rng.normal();
        // Mirrored, so that a perfect model's noise is no gain.
        (if q > 1.0 { 2.0 - q } else { q }).clamp(0.0, 1.0)
    }
}

/// A machine, and when each of its slots gets free.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    /// Units per second of one slot.
    pub(crate) units_per_s: f64,
    /// Until the first unit, in microseconds, once a slot is free.
    pub(crate) first_unit_us: u64,
    /// There and back, in microseconds.
    pub(crate) latency_us: u64,
    /// Part of requests that fail for no reason.
    pub(crate) fail_rate: f64,
    free_us: Vec<u64>,
    /// Slot time spent on answers, in microseconds.
    pub(crate) busy_us: u64,
}

/// How a request is served.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Style {
    /// Times the machine's speed: above 1 with a cheaper model.
    pub(crate) speed: f64,
    /// What comes of it.
    pub(crate) quality: Quality,
    /// How long it may wait for a slot, in microseconds.
    pub(crate) wait_us: u64,
}

/// When what happens, in microseconds since the request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Served {
    /// The first unit.
    pub(crate) first_us: u64,
    /// The end.
    pub(crate) end_us: u64,
}

impl Machine {
    pub(crate) fn new(slots: usize, units_per_s: f64, first_unit_us: u64) -> Self {
        Self {
            units_per_s,
            first_unit_us,
            latency_us: 50_000,
            fail_rate: 0.002,
            free_us: vec![0; slots.max(1)],
            busy_us: 0,
        }
    }

    /// How long a slot takes for this many units, in microseconds.
    pub(crate) fn service_us(&self, units: f64, speed: f64) -> f64 {
        float(self.first_unit_us) + units / (self.units_per_s * speed) * 1e6
    }

    /// Units per period that it can serve with every slot always busy.
    pub(crate) fn units_per_period(&self, work: &Work, speed: f64) -> f64 {
        let expected = float(work.expected_units);
        float(self.free_us.len() as u64) * expected * float(work.period_us) / self.service_us(expected, speed)
    }

    /// Takes a request on; `None` if it would wait for longer than it may.
    pub(crate) fn serve(&mut self, now_us: u64, units: u64, style: Style) -> Option<Served> {
        let slot = self.free_us.iter_mut().min()?;
        let start = now_us.max(*slot);
        if start - now_us > style.wait_us {
            return None;
        }
        let speed = self.units_per_s * style.speed;
        let busy = self.first_unit_us + micros(float(units) / speed * 1e6);
        *slot = start + busy;
        self.busy_us += busy;
        let waited = start - now_us + self.latency_us;
        // The first unit of a stream comes with the first step of it.
        Some(Served { first_us: waited + self.first_unit_us, end_us: waited + busy })
    }
}

/// `u64` as a double: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "rounding above 2^53 is meant")]
pub(crate) const fn float(n: u64) -> f64 {
    n as f64
}

/// Whole microseconds (or units); negative and NaN are 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casting saturates, as meant")]
pub(crate) const fn micros(x: f64) -> u64 {
    x as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { speed: 1.0, quality: Quality::HONEST, wait_us: 1_000_000 };

    #[test]
    fn requests_wait_for_a_slot_and_no_longer_than_they_may() {
        let mut m = Machine { latency_us: 0, ..Machine::new(2, 100.0, 500_000) };
        let mut serve = |at| m.serve(at, 100, STYLE).map(|s| (s.first_us, s.end_us));
        assert_eq!(serve(0), Some((500_000, 1_500_000)));
        assert_eq!(serve(0), Some((500_000, 1_500_000)));
        assert_eq!(serve(0), None);
        assert_eq!(serve(500_000), Some((1_500_000, 2_500_000)));
        assert_eq!(m.busy_us, 4_500_000);
    }

    #[test]
    fn a_perfect_model_is_not_better_than_perfect() {
        let mut rng = Rng::of(&[1]);
        for _ in 0..1_000 {
            assert!((0.9..=1.0).contains(&Quality::HONEST.draw(&mut rng)));
            assert!((0.0..=0.6).contains(&Quality::CHEAP.draw(&mut rng)));
        }
    }
}
