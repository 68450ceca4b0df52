//! Do validators with different secrets, that started at different times, say the same about the same miners?

use nineteen_domain::policy::Policy;
use serde::Serialize;

use crate::error::SimulateError;
use crate::jobs;
use crate::population::{SLOTS, mixed, others};
use crate::setting::{Checks, GRACE_US, START_US, Work};
use crate::stats::{Spread, cosine, quantile};
use crate::world::{Setup, World};

/// After how many periods validators are compared.
pub(crate) const AFTER: [u64; 7] = [1, 2, 4, 8, 16, 24, 48];
/// Judged answers per hotkey and period.
const CHECKS: u64 = 6;

/// How well validators agree under one policy about one kind of subnet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgreementReport {
    /// Name of the policy.
    pub policy: String,
    /// `honest`: honest miners of several speeds; `mixed`: some of them play strategies. Where announcements are
    /// believed, all validators agree about a mixed subnet: on whoever announced most.
    pub population: String,
    /// Validators.
    pub validators: usize,
    /// Miners.
    pub miners: usize,
    /// By number of settled periods, ascending.
    pub after: Vec<AgreementPoint>,
}

/// How well validators agree after so many periods.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgreementPoint {
    /// Periods that every validator has settled at least.
    pub periods: u64,
    /// Cosine of the angle between the newest weights of two validators, over all pairs and seeds.
    pub cosine: Spread,
    /// `Σ min(own weight, median weight)` over miners, over all validators and seeds: what the chain calls trust
    /// in a validator, with equal stakes.
    pub trust: Spread,
}

/// What is compared.
pub(crate) struct Agreement<'a> {
    pub(crate) policies: &'a [Policy],
    pub(crate) miners: usize,
    pub(crate) validators: usize,
    pub(crate) periods: u64,
    pub(crate) seed: u64,
    pub(crate) seeds: u32,
    pub(crate) threads: usize,
}

impl Agreement<'_> {
    pub(crate) fn run(&self, done: impl Fn(f64) + Sync) -> Result<Vec<AgreementReport>, SimulateError> {
        let arms: Vec<(&Policy, bool)> = [false, true]
            .into_iter()
            .flat_map(|mixed| self.policies.iter().map(move |p| (p, mixed)))
            .collect();
        let jobs: Vec<(&Policy, bool, u64)> = arms
            .iter()
            .flat_map(|(p, mixed)| (0..u64::from(self.seeds)).map(move |s| (*p, *mixed, s)))
            .collect();
        let results = jobs::all(self.threads, &jobs, |(p, mixed, seed)| self.one(p, *mixed, *seed), done)?;
        Ok(arms
            .iter()
            .map(|(policy, mixed)| {
                let same = |p: &Policy, m: bool| p.name == policy.name && m == *mixed;
                let of: Vec<&Vec<Seen>> =
                    jobs.iter().zip(&results).filter(|((p, m, _), _)| same(p, *m)).map(|(_, r)| r).collect();
                AgreementReport {
                    policy: policy.name.clone(),
                    population: if *mixed { "mixed" } else { "honest" }.to_owned(),
                    validators: self.validators,
                    miners: self.miners,
                    after: self
                        .after()
                        .enumerate()
                        .map(|(i, periods)| {
                            let all = |what: fn(&Seen) -> &[f64]| -> Vec<f64> {
                                of.iter().filter_map(|r| r.get(i)).flat_map(|s| what(s).to_vec()).collect()
                            };
                            AgreementPoint {
                                periods,
                                cosine: Spread::of(&all(|s| &s.cosines)),
                                trust: Spread::of(&all(|s| &s.trusts)),
                            }
                        })
                        .collect(),
                }
            })
            .collect())
    }

    fn after(&self) -> impl Iterator<Item = u64> {
        let most = self.periods;
        AFTER.into_iter().filter(move |n| *n <= most)
    }

    fn one(&self, policy: &Policy, mix: bool, seed: u64) -> Result<Vec<Seen>, SimulateError> {
        let seed = self.seed.wrapping_add(seed);
        let last = self.after().max().unwrap_or(0);
        let setup = Setup {
            policy: policy.clone(),
            work: Work::named("chat", 300)?,
            // One more, for those that started first are ahead of the others.
            periods: last + 1,
            validators: self.validators,
            seed,
            checks: Checks::per_key(self.miners, CHECKS),
            settle_every: 1,
        };
        let period_us = setup.work.period_us;
        let owners = if mix { mixed(self.miners, SLOTS, seed) } else { others(self.miners, seed) };
        let mut world = World::new(setup, owners)?;
        let mut seen = Vec::new();
        for n in self.after() {
            // By then the one that started last has settled n periods.
            world.run_until(START_US + (n + 1) * period_us + 2 * GRACE_US)?;
            let weights: Vec<&[f64]> = world.validators.iter().map(|v| v.weights.as_slice()).collect();
            seen.push(Seen::of(&weights));
        }
        Ok(seen)
    }
}

/// One look at all validators.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    cosines: Vec<f64>,
    trusts: Vec<f64>,
}

impl Seen {
    fn of(weights: &[&[f64]]) -> Self {
        let cosines = weights
            .iter()
            .enumerate()
            .flat_map(|(i, a)| weights.iter().skip(i + 1).map(|b| cosine(a, b)))
            .collect();
        let miners = weights.iter().map(|w| w.len()).max().unwrap_or(0);
        let medians: Vec<f64> = (0..miners)
            .map(|m| {
                let mut of: Vec<f64> = weights.iter().map(|w| w.get(m).copied().unwrap_or(0.0)).collect();
                of.sort_by(f64::total_cmp);
                quantile(&of, 0.5)
            })
            .collect();
        let trusts = weights.iter().map(|w| w.iter().zip(&medians).map(|(a, b)| a.min(*b)).sum()).collect();
        Self { cosines, trusts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validators_that_say_the_same_agree() {
        let w = [0.5, 0.3, 0.2];
        let s = Seen::of(&[&w, &w, &w]);
        assert!(s.cosines.len() == 3 && s.cosines.iter().all(|c| (c - 1.0).abs() < 1e-12));
        assert!(s.trusts.iter().all(|t| (t - 1.0).abs() < 1e-12));
        let apart = Seen::of(&[&[1.0, 0.0], &[1.0, 0.0], &[0.0, 1.0]]);
        assert_eq!(apart.trusts, [1.0, 1.0, 0.0]);
    }
}
