//! Every strategy against honest play on the same hardware.
//!
//! For each, two subnets are run with the same seed: the owner plays the strategy, or the same machines are
//! played honestly (one hotkey per machine, what it sustains announced). The rest of the subnet, its requests
//! included, is the same. The ratio of the two rewards is what the strategy is worth: below 1 it does not pay.

use std::collections::BTreeMap;

use nineteen_domain::policy::Policy;
use serde::Serialize;

use crate::error::SimulateError;
use crate::jobs;
use crate::machine::{Machine, float};
use crate::population::{honest, in_full, machine, others, standard};
use crate::setting::{Checks, Work};
use crate::stats::Spread;
use crate::strategy::Strategy;
use crate::strategy::announcing::{Absent, Oscillating};
use crate::strategy::cheating::{Buffers, Cheats, ReRegisters};
use crate::strategy::honest::{Honest, Queues};
use crate::strategy::owning::Pools;
use crate::strategy::selective::{
    Early, EasyOnly, FailsHalf, RateLimitsAll, WakesForBeacons, WakesForWindows,
};
use crate::world::{Owner, Setup, World};

/// Judged answers per hotkey and period.
const CHECKS: u64 = 10;

/// What a strategy is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Same {
    /// One ordinary machine.
    One,
    /// Two ordinary machines, each with a hotkey.
    Two,
    /// A fast and a slow machine, each with a hotkey.
    FastAndSlow,
}

/// A row of the comparison.
struct Arm {
    name: &'static str,
    about: &'static str,
    same: Same,
    validators: usize,
    /// Another speed or care of honesty, for orientation: may be worth more than 1.
    reference: bool,
    owner: fn(&'static str) -> Owner,
}

fn one(kind: &'static str, strategy: impl Strategy + 'static) -> Owner {
    Owner { kind, keys: 1, machines: vec![standard()], strategy: Box::new(strategy) }
}

fn announcing(kind: &'static str, announces: f64) -> Owner {
    one(kind, Honest { announces })
}

fn honest_as(same: Same) -> Owner {
    let machines = match same {
        Same::One => vec![standard()],
        Same::Two => vec![standard(), standard()],
        Same::FastAndSlow => fast_and_slow(),
    };
    Owner { kind: "honest", keys: machines.len(), machines, strategy: Box::new(Honest { announces: 1.0 }) }
}

fn fast_and_slow() -> Vec<Machine> {
    vec![machine(75.0), machine(25.0)]
}

/// Every strategy, by name.
pub const NAMES: [&str; 30] = names();

const fn names() -> [&'static str; 30] {
    let mut names = [""; 30];
    let mut at = 0;
    while at < 30 {
        #[expect(clippy::indexing_slicing, reason = "at compile time")]
        {
            names[at] = ARMS[at].name;
        }
        at += 1;
    }
    names
}

const fn arm(name: &'static str, about: &'static str, owner: fn(&'static str) -> Owner) -> Arm {
    Arm { name, about, same: Same::One, validators: 1, reference: false, owner }
}

const ARMS: [Arm; 30] = [
    Arm { reference: true, ..arm("honest-slow", "honest, at .6 of the speed", |k| honest(k, machine(30.0))) },
    Arm {
        reference: true,
        ..arm("honest-fast", "honest, at 1.5 times the speed", |k| honest(k, machine(75.0)))
    },
    Arm {
        reference: true,
        ..arm("careful", "announces 50 % of its best instead of 90 %", |k| announcing(k, 5.0 / 9.0))
    },
    Arm {
        reference: true,
        ..arm("bold", "announces 100 % of its best instead of 90 %", |k| announcing(k, 10.0 / 9.0))
    },
    arm("over-1.5x", "announces 1.5 times what it sustains", |k| announcing(k, 1.5)),
    arm("over-1.5x-queues", "announces 1.5 times what it sustains and lets requests wait long", |k| {
        one(k, Queues { announces: 1.5, patient: 3.0 })
    }),
    arm("over-2x", "announces twice what it sustains", |k| announcing(k, 2.0)),
    arm("over-4x", "announces 4 times what it sustains", |k| announcing(k, 4.0)),
    arm("over-10x", "announces 10 times what it sustains", |k| announcing(k, 10.0)),
    arm("under-4x", "announces a quarter of what it sustains", |k| announcing(k, 0.25)),
    arm("oscillates", "announces a quarter for five periods, four times as much for one", |k| {
        one(k, Oscillating { low_periods: 5, low: 0.25, high: 4.0 })
    }),
    arm("easy-only", "answers only requests below the average length", |k| one(k, EasyOnly { up_to: 1.0 })),
    arm("early", "answers only in the first half of a period", |k| {
        one(k, Early { part: 0.5, began_us: BTreeMap::new() })
    }),
    arm("wakes-for-windows", "answers once requests come at the announced rate", |k| {
        one(k, WakesForWindows::default())
    }),
    arm("wakes-for-beacons", "answers for 2 minutes after a beacon", |k| {
        one(k, WakesForBeacons { awake_us: 120_000_000, until_us: 0 })
    }),
    arm("rate-limits-all", "answers 429 to everything", |k| one(k, RateLimitsAll)),
    arm("fails-half", "fails every second request", |k| one(k, FailsHalf::default())),
    arm("absent", "away for two sevenths of the time", |k| {
        one(k, Absent { from: 3.0 / 7.0, to: 5.0 / 7.0, away: false })
    }),
    arm("sybils-full", "four hotkeys, each announcing the same machine in full", |k| in_full(k, 4)),
    Arm {
        validators: 3,
        ..arm("everyone-full", "announces its machine in full to each of three validators", |k| in_full(k, 1))
    },
    arm("split-4", "four hotkeys with a quarter of the machine each, honest", |k| Owner {
        keys: 4,
        ..announcing(k, 1.0)
    }),
    Arm {
        same: Same::Two,
        ..arm("merge-2", "one hotkey before two machines, honest", |k| Owner {
            machines: vec![standard(), standard()],
            ..one(k, Pools)
        })
    },
    arm("junk-sybils", "an honest hotkey and eight slow ones that shall move others' factors", |k| Owner {
        keys: 9,
        machines: std::iter::once(standard())
            .chain((0..8).map(|_| Machine::new(1, 2.0, 2_000_000)))
            .collect(),
        ..announcing(k, 1.0)
    }),
    Arm {
        same: Same::FastAndSlow,
        ..arm("relays", "two hotkeys, both served where it is done first", |k| Owner {
            keys: 2,
            machines: fast_and_slow(),
            ..one(k, Pools)
        })
    },
    arm("cheat-10", "serves a cheap model one time in ten, and announces for it", |k| {
        one(k, Cheats { probability: 0.1 })
    }),
    arm("cheat-30", "serves a cheap model three times in ten, and announces for it", |k| {
        one(k, Cheats { probability: 0.3 })
    }),
    arm("cheat-all", "serves a cheap model always, and announces for it", |k| {
        one(k, Cheats { probability: 1.0 })
    }),
    arm("re-registers", "serves a cheap model always, and takes a new hotkey when its share drops", |k| {
        one(k, ReRegisters { cheats: Cheats { probability: 1.0 }, age: 0, best: 0.0 })
    }),
    arm("buffers", "sends each answer in one burst at its end", |k| one(k, Buffers)),
    arm("cheat-50", "serves a cheap model every second time, and announces for it", |k| {
        one(k, Cheats { probability: 0.5 })
    }),
];

/// What a strategy came to under one policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StrategyRow {
    /// One of [`NAMES`].
    pub name: String,
    /// What it does.
    pub about: String,
    /// Whether it is honesty of another speed or care: a point of orientation and no attack.
    pub reference: bool,
    /// By policy, in the order of the options.
    pub by_policy: Vec<Worth>,
}

/// What a strategy is worth under one policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worth {
    /// Name of the policy.
    pub policy: String,
    /// Its reward over that of honest play on the same hardware, over the seeds.
    pub of_honest: Spread,
    /// Mean of that, less 1: above 0 it pays.
    pub margin: f64,
    /// Slot time that its machines spent over what honest play spends, mean over seeds: what it saves.
    pub work: f64,
}

/// What all comparisons are made with.
pub(crate) struct Comparison<'a> {
    pub(crate) policies: &'a [Policy],
    pub(crate) only: Option<&'a [String]>,
    pub(crate) others: usize,
    pub(crate) periods: u64,
    pub(crate) seed: u64,
    pub(crate) seeds: u32,
    pub(crate) threads: usize,
}

/// One subnet to be run: a policy, a seed, and an arm or the honesty that arms are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    policy: usize,
    seed: u64,
    validators: usize,
    player: Player,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Player {
    Honest(Same),
    Arm(usize),
}

impl Comparison<'_> {
    /// Runs everything and compares.
    pub(crate) fn run(&self, done: impl Fn(f64) + Sync) -> Result<Vec<StrategyRow>, SimulateError> {
        if let Some(unknown) = self.only.unwrap_or_default().iter().find(|n| !NAMES.contains(&n.as_str())) {
            return Err(SimulateError::Strategy { given: unknown.clone() });
        }
        let wanted: Vec<(usize, &Arm)> = ARMS
            .iter()
            .enumerate()
            .filter(|(_, a)| self.only.is_none_or(|only| only.iter().any(|n| n == a.name)))
            .collect();
        let mut jobs = std::collections::BTreeSet::new();
        for policy in 0..self.policies.len() {
            for seed in 0..u64::from(self.seeds) {
                for (at, arm) in &wanted {
                    let job = Job { policy, seed, validators: arm.validators, player: Player::Arm(*at) };
                    jobs.insert(job);
                    jobs.insert(Job { player: Player::Honest(arm.same), ..job });
                }
            }
        }
        let jobs: Vec<Job> = jobs.into_iter().collect();
        let results = jobs::all(self.threads, &jobs, |job| self.one(*job), done)?;
        let results: BTreeMap<Job, (f64, f64)> = jobs.into_iter().zip(results).collect();
        let worth = |policy: usize, at: usize, arm: &Arm| {
            let pairs: Vec<((f64, f64), (f64, f64))> = (0..u64::from(self.seeds))
                .filter_map(|seed| {
                    let job = Job { policy, seed, validators: arm.validators, player: Player::Arm(at) };
                    let honest = Job { player: Player::Honest(arm.same), ..job };
                    Some((*results.get(&job)?, *results.get(&honest)?))
                })
                .collect();
            let ratio = |x: f64, of: f64| if of > 0.0 { x / of } else { 0.0 };
            let rewards: Vec<f64> = pairs.iter().map(|(own, honest)| ratio(own.0, honest.0)).collect();
            let work: Vec<f64> = pairs.iter().map(|(own, honest)| ratio(own.1, honest.1)).collect();
            let of_honest = Spread::of(&rewards);
            Worth {
                policy: self.policies.get(policy).map(|p| p.name.clone()).unwrap_or_default(),
                margin: of_honest.mean - 1.0,
                of_honest,
                work: Spread::of(&work).mean,
            }
        };
        Ok(wanted
            .into_iter()
            .map(|(at, arm)| StrategyRow {
                name: arm.name.to_owned(),
                about: arm.about.to_owned(),
                reference: arm.reference,
                by_policy: (0..self.policies.len()).map(|p| worth(p, at, arm)).collect(),
            })
            .collect())
    }

    /// Reward and slot time of one subnet's player.
    fn one(&self, job: Job) -> Result<(f64, f64), SimulateError> {
        let policy = self.policies.get(job.policy).cloned();
        let policy = policy.ok_or_else(|| SimulateError::Setup { why: "no such policy".into() })?;
        let seed = self.seed.wrapping_add(job.seed);
        let player = match job.player {
            Player::Honest(same) => honest_as(same),
            Player::Arm(at) => match ARMS.get(at) {
                Some(arm) => (arm.owner)(arm.name),
                None => return Err(SimulateError::Setup { why: "no such arm".into() }),
            },
        };
        let mut owners = others(self.others, seed);
        // Last, so that the others have the same places whatever it has.
        owners.push(player);
        let keys = owners.iter().map(|o| o.keys).sum();
        let setup = Setup {
            policy,
            work: Work::named("chat", 300)?,
            periods: self.periods,
            validators: job.validators,
            seed,
            checks: Checks::per_key(keys, CHECKS),
            settle_every: 1,
        };
        let mut world = World::new(setup, owners)?;
        world.run()?;
        Ok((world.reward(self.others), float(world.busy_us(self.others))))
    }
}
