//! A whole subnet for days: who earns what, how much is asked, and what it costs to compute.
//!
//! Tasks are independent of each other but for the last sum, so each is a world of its own with a schedule, a
//! part of the checkers and of the miners' machines of its own; threads take them in turns, and every miner's
//! weight is the mean of its weights over tasks (all tasks weigh the same here, and each is served). Subnet 19's
//! topping up with other tasks' samples is therefore left out.

use nineteen_domain::policy::Policy;
use serde::Serialize;

use crate::error::SimulateError;
use crate::jobs;
use crate::machine::float;
use crate::population::{KINDS, mixed};
use crate::setting::{Checks, Work};
use crate::world::{Counts, Setup, World};

/// Judged answers per miner, task and period.
const CHECKS: u64 = 2;
/// Units that a request takes on average: longer ones than elsewhere, so that a machine gets some fifteen probes
/// in a period, as miners of Subnet 19 did.
const UNITS: u64 = 1_000;
/// Weights are computed at the end of every so many periods.
pub(crate) const SETTLE_EVERY: u64 = 4;

/// A whole subnet under one policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScaleReport {
    /// Name of the policy.
    pub policy: String,
    /// Miners.
    pub miners: usize,
    /// Tasks.
    pub tasks: usize,
    /// Periods.
    pub periods: u64,
    /// Periods between two settlements.
    pub settle_every: u64,
    /// Probes that left.
    pub sent: u64,
    /// Of them answered.
    pub answered: u64,
    /// 429s.
    pub rate_limited: u64,
    /// Failures.
    pub failed: u64,
    /// Probes of windows that never left, because their miner had its fill of them under way.
    pub held_back: u64,
    /// Answers that were judged.
    pub judged: u64,
    /// Answers that were let go unchecked.
    pub unchecked: u64,
    /// Credited part of all that was announced last, in [0, 1].
    pub credited: f64,
    /// By kind of miner.
    pub kinds: Vec<KindRow>,
}

/// What a kind of miner came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KindRow {
    /// Its name.
    pub kind: String,
    /// How many of them.
    pub miners: usize,
    /// Weight of one of them, mean over settlements, tasks and them.
    pub weight: f64,
    /// That over the same of `honest`; 0 where there is none.
    pub of_honest: f64,
    /// What all of them earned, in [0, 1].
    pub share: f64,
    /// Credited part of what they announced last, in [0, 1].
    pub credited: f64,
}

/// A subnet to be run.
pub(crate) struct Scale<'a> {
    pub(crate) policies: &'a [Policy],
    pub(crate) miners: usize,
    pub(crate) tasks: usize,
    pub(crate) periods: u64,
    pub(crate) seed: u64,
    pub(crate) threads: usize,
}

/// What one task came to.
struct OfTask {
    counts: Counts,
    /// By kind: weight earned, capacity announced, capacity credited.
    kinds: Vec<(f64, f64, f64)>,
    settlements: u64,
}

impl Scale<'_> {
    pub(crate) fn run(&self, done: impl Fn(f64) + Sync) -> Result<Vec<ScaleReport>, SimulateError> {
        let jobs: Vec<(&Policy, usize)> =
            self.policies.iter().flat_map(|p| (0..self.tasks).map(move |t| (p, t))).collect();
        let results = jobs::all(self.threads, &jobs, |(policy, task)| self.one(policy, *task), done)?;
        Ok(self
            .policies
            .iter()
            .map(|policy| {
                let of: Vec<&OfTask> = jobs
                    .iter()
                    .zip(&results)
                    .filter(|((p, _), _)| p.name == policy.name)
                    .map(|(_, r)| r)
                    .collect();
                self.merged(policy, &of)
            })
            .collect())
    }

    fn one(&self, policy: &Policy, task: usize) -> Result<OfTask, SimulateError> {
        let setup = Setup {
            policy: policy.clone(),
            work: Work::named(&format!("task-{task:02}"), UNITS)?,
            periods: self.periods,
            validators: 1,
            seed: self.seed.wrapping_add(1_000_003 * task as u64),
            checks: Checks::per_key(self.miners, CHECKS),
            settle_every: SETTLE_EVERY.min(self.periods.max(1)),
        };
        let mut world = World::new(setup, mixed(self.miners, 1, self.seed))?;
        world.run()?;
        let Some(validator) = world.validators.first() else {
            return Err(SimulateError::Setup { why: "no validator".into() });
        };
        let kinds = KINDS
            .iter()
            .map(|kind| {
                let mut sums = (0.0, 0.0, 0.0);
                for (at, key) in world.keys.iter().enumerate() {
                    if world.owners.get(key.owner).is_some_and(|o| o.kind == *kind) {
                        sums.0 += validator.earned.get(at).copied().unwrap_or(0.0);
                        let (announced, credited) = validator.credited.get(at).copied().unwrap_or_default();
                        sums.1 += announced;
                        sums.2 += credited;
                    }
                }
                sums
            })
            .collect();
        Ok(OfTask { counts: world.counts, kinds, settlements: validator.weighed })
    }

    fn merged(&self, policy: &Policy, tasks: &[&OfTask]) -> ScaleReport {
        let count = |of: fn(&Counts) -> u64| tasks.iter().map(|t| of(&t.counts)).sum::<u64>();
        let settlements = float(tasks.iter().map(|t| t.settlements).sum::<u64>()).max(1.0);
        let owners = mixed(self.miners, 1, self.seed);
        let ratio = |x: f64, of: f64| if of > 0.0 { x / of } else { 0.0 };
        let sum = |kind: usize| {
            tasks
                .iter()
                .filter_map(|t| t.kinds.get(kind))
                .fold((0.0, 0.0, 0.0), |s, k| (s.0 + k.0, s.1 + k.1, s.2 + k.2))
        };
        let mut kinds: Vec<KindRow> = KINDS
            .iter()
            .enumerate()
            .map(|(at, kind)| {
                let miners = owners.iter().filter(|o| o.kind == *kind).count();
                let (earned, announced, credited) = sum(at);
                KindRow {
                    kind: (*kind).to_owned(),
                    miners,
                    weight: ratio(earned / settlements, float(miners as u64)),
                    of_honest: 0.0,
                    share: earned / settlements,
                    credited: ratio(credited, announced),
                }
            })
            .filter(|k| k.miners > 0)
            .collect();
        let honest = kinds.iter().find(|k| k.kind == "honest").map_or(0.0, |k| k.weight);
        kinds.iter_mut().for_each(|k| k.of_honest = ratio(k.weight, honest));
        let (announced, credited) = (0..KINDS.len()).map(sum).fold((0.0, 0.0), |s, k| (s.0 + k.1, s.1 + k.2));
        ScaleReport {
            policy: policy.name.clone(),
            miners: self.miners,
            tasks: self.tasks,
            periods: self.periods,
            settle_every: SETTLE_EVERY.min(self.periods.max(1)),
            sent: count(|c| c.sent),
            answered: count(|c| c.answered),
            rate_limited: count(|c| c.rate_limited),
            failed: count(|c| c.failed),
            held_back: count(|c| c.held_back),
            judged: count(|c| c.judged),
            unchecked: count(|c| c.unchecked),
            credited: ratio(credited, announced),
            kinds,
        }
    }
}
