//! Strategies of who owns what: several machines behind a hotkey, several hotkeys before a machine.

use super::{Asked, Reply, Seen, Strategy, honest, honest_style, serve};
use crate::machine::{Machine, float};
use crate::rng::Rng;

/// All machines behind every hotkey: each request goes where it is done first. Announces all of them, divided
/// over its hotkeys.
#[derive(Debug)]
pub(crate) struct Pools;

impl Strategy for Pools {
    fn announce(&mut self, asked: &Asked<'_>, machines: &[Machine]) -> Option<f64> {
        let all: f64 = machines.iter().map(|m| m.units_per_period(asked.work, 1.0)).sum();
        Some(all * honest::UTILISATION / float((asked.keys * asked.validators).max(1) as u64))
    }

    fn reply(&mut self, seen: &Seen<'_>, machines: &mut [Machine], rng: &mut Rng) -> Reply {
        let style = honest_style(seen.work);
        let end =
            |m: &Machine| m.clone().serve(seen.now_us, seen.units, style).map_or(u64::MAX, |s| s.end_us);
        let best = machines.iter_mut().min_by_key(|m| end(m));
        serve(best, seen, style, rng)
    }
}
