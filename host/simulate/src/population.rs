//! Who is in the subnet.

use crate::machine::Machine;
use crate::rng::Rng;
use crate::strategy::announcing::{InFull, Oscillating};
use crate::strategy::cheating::Cheats;
use crate::strategy::honest::Honest;
use crate::strategy::selective::FailsHalf;
use crate::world::Owner;

/// Slots of an ordinary machine.
pub(crate) const SLOTS: usize = 2;

/// An ordinary machine: as fast as the reference.
pub(crate) fn standard() -> Machine {
    machine(50.0)
}

/// A machine of this many units per second and slot.
pub(crate) fn machine(units_per_s: f64) -> Machine {
    Machine::new(SLOTS, units_per_s, 250_000)
}

/// One hotkey in front of one machine, honest.
pub(crate) fn honest(kind: &'static str, machine: Machine) -> Owner {
    Owner { kind, keys: 1, machines: vec![machine], strategy: Box::new(Honest { announces: 1.0 }) }
}

/// Honest miners of speeds around the reference's.
pub(crate) fn others(n: usize, seed: u64) -> Vec<Owner> {
    (0..n)
        .map(|i| {
            let mut rng = Rng::of(&[seed, 20, i as u64]);
            honest("other", machine(50.0 * (0.25 * rng.normal()).exp()))
        })
        .collect()
}

/// Kinds of [`mixed`], in the order of its reports.
pub(crate) const KINDS: [&str; 9] = [
    "honest-fast",
    "honest",
    "honest-slow",
    "careful",
    "over-2x",
    "over-10x",
    "cheat-30",
    "fails-half",
    "oscillates",
];

/// A mixed subnet: in every sixteen, ten honest ones of three speeds, and one of each other kind. `slots` is what
/// a machine has.
pub(crate) fn mixed(n: usize, slots: usize, seed: u64) -> Vec<Owner> {
    (0..n)
        .map(|i| {
            let mut rng = Rng::of(&[seed, 21, i as u64]);
            let own = (0.1 * rng.normal()).exp();
            let of = |speed: f64| Machine::new(slots, speed * own, 250_000);
            let announcing = |kind, announces| Owner {
                kind,
                keys: 1,
                machines: vec![of(50.0)],
                strategy: Box::new(Honest { announces }),
            };
            match i % 16 {
                0 | 5 | 10 => honest("honest-fast", of(75.0)),
                1 | 6 | 11 | 14 => honest("honest", of(50.0)),
                2 | 7 | 12 => honest("honest-slow", of(30.0)),
                3 => announcing("careful", 0.5),
                4 => announcing("over-2x", 2.0),
                8 => announcing("over-10x", 10.0),
                9 => Owner { strategy: Box::new(Cheats { probability: 0.3 }), ..announcing("cheat-30", 1.0) },
                13 => Owner { strategy: Box::new(FailsHalf::default()), ..announcing("fails-half", 1.0) },
                _ => Owner {
                    strategy: Box::new(Oscillating { low_periods: 5, low: 0.25, high: 4.0 }),
                    ..announcing("oscillates", 1.0)
                },
            }
        })
        .collect()
}

/// One machine behind this many hotkeys, each announced in full to every validator.
pub(crate) fn in_full(kind: &'static str, keys: usize) -> Owner {
    Owner { kind, keys, machines: vec![standard()], strategy: Box::new(InFull) }
}
