//! What validators want the tasks to weigh, by stake.
//!
//! Not for signatures, nor for who may vote: what arrives here are ballots of validators, one of each. Nobody
//! votes with more than its stake, whatever numbers are on its ballot.

use std::collections::{BTreeMap, BTreeSet};

use nineteen_domain::TaskName;

/// A validator's ballot.
#[derive(Debug, Clone, PartialEq)]
pub struct Vote {
    /// Its stake, in rao.
    pub stake: u64,
    /// What it wants each task to weigh: finite, at least 0; only the proportions matter. A task that is
    /// missing is voted 0.
    pub weights: BTreeMap<TaskName, f64>,
}

/// What each of `tasks` weighs: `Σ stake·vote/Σ stake` over valid ballots, each of them normalised to a sum of
/// 1 over `tasks` first. Every task is in the result, in [0, 1], and all sum to 1; where everybody votes 0 it
/// is 0.
///
/// A ballot is void, and its stake does not count, if any number on it is negative or not finite, or if none
/// for a task of the set is above 0. Entries for other tasks are left out otherwise. The result is empty if no
/// valid ballot has stake. It does not depend on the order of the ballots, to the last bit: validators compute
/// it each for itself.
#[must_use]
pub fn task_weights(votes: &[Vote], tasks: &BTreeSet<TaskName>) -> BTreeMap<TaskName, f64> {
    let valid: Vec<(f64, BTreeMap<&TaskName, f64>)> = votes
        .iter()
        .filter(|v| v.stake > 0)
        .filter_map(|v| Some((crate::float(v.stake), ballot(v, tasks)?)))
        .collect();
    let weights: BTreeMap<&TaskName, f64> = tasks
        .iter()
        .map(|task| {
            let backed = valid.iter().map(|(stake, ballot)| stake * ballot.get(task).copied().unwrap_or(0.0));
            (task, sum(backed.collect()))
        })
        .collect();
    let total: f64 = weights.values().sum();
    if total <= 0.0 {
        return BTreeMap::new();
    }
    weights.into_iter().map(|(task, w)| (task.clone(), crate::unit(w / total))).collect()
}

/// The ballot over `tasks`, normalised; `None` if it is void.
fn ballot<'a>(vote: &Vote, tasks: &'a BTreeSet<TaskName>) -> Option<BTreeMap<&'a TaskName, f64>> {
    if !vote.weights.values().all(|w| w.is_finite() && *w >= 0.0) {
        return None;
    }
    let of = |task| vote.weights.get(task).copied().unwrap_or(0.0);
    // Finite numbers can have an infinite sum, and some have one whose inverse is: scaled, neither happens.
    let top = tasks.iter().map(of).fold(0.0, f64::max);
    if top <= 0.0 {
        return None;
    }
    let total: f64 = tasks.iter().map(|t| of(t) / top).sum();
    Some(tasks.iter().map(|t| (t, of(t) / top / total)).collect())
}

/// The sum of numbers that are at least 0, smallest first: the same in whatever order they come.
fn sum(mut terms: Vec<f64>) -> f64 {
    terms.sort_by(f64::total_cmp);
    terms.iter().sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 4] = ["chat", "embed", "image", "rerank"];

    fn name(s: &str) -> TaskName {
        TaskName::new(s).unwrap()
    }

    fn vote(stake: u64, of: &[(&str, f64)]) -> Vote {
        Vote { stake, weights: of.iter().map(|(t, w)| (name(t), *w)).collect() }
    }

    fn of(votes: &[Vote], tasks: &[&str]) -> Vec<f64> {
        task_weights(votes, &tasks.iter().map(|t| name(t)).collect()).into_values().collect()
    }

    #[test]
    fn a_weight_is_what_the_stake_says() {
        let votes =
            [vote(300, &[("chat", 0.5), ("embed", 0.5)]), vote(100, &[("chat", 1.0), ("embed", 0.0)])];
        assert_eq!(of(&votes, &["chat", "embed"]), [0.625, 0.375]);
    }

    #[test]
    fn a_vote_of_zero_and_a_missing_one_mean_zero() {
        assert_eq!(
            of(&[vote(1, &[("chat", 1.0), ("embed", 0.0)])], &["chat", "embed", "image"]),
            [1.0, 0.0, 0.0]
        );
    }

    #[test]
    fn nobody_votes_with_more_than_its_stake() {
        let votes = [vote(100, &[("chat", 1e300), ("image", f64::MAX)]), vote(100, &[("embed", 1e-300)])];
        let weights = of(&votes, &["chat", "embed", "image"]);
        assert_eq!(weights[1], 0.5);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_ballot_with_a_number_that_is_no_weight_is_void_as_a_whole() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e-300] {
            // Also where the number is for a task that nobody runs.
            for task in ["embed", "unknown"] {
                let votes = [vote(1_000, &[("embed", 1.0), (task, bad)]), vote(1, &[("chat", 1.0)])];
                assert_eq!(of(&votes, &["chat", "embed"]), [1.0, 0.0]);
            }
        }
    }

    #[test]
    fn where_nothing_is_valid_nothing_comes_out() {
        assert!(of(&[], &["chat"]).is_empty());
        assert!(
            of(&[vote(9, &[]), vote(9, &[("chat", 0.0)]), vote(9, &[("unknown", 1.0)])], &["chat"])
                .is_empty()
        );
        assert!(of(&[vote(0, &[("chat", 1.0)])], &["chat"]).is_empty());
        assert!(of(&[vote(9, &[("chat", 1.0)])], &[]).is_empty());
    }

    fn any_vote(number: impl Strategy<Value = f64>) -> impl Strategy<Value = Vote> {
        let stake = prop_oneof![0_u64..10_000, Just(u64::MAX), any::<u64>()];
        let weights = prop::collection::vec((0_usize..4, number), 0..5);
        (stake, weights).prop_map(|(stake, of)| Vote {
            stake,
            weights: of.into_iter().map(|(t, w)| (name(NAMES[t]), w)).collect(),
        })
    }

    /// One that counts.
    fn a_valid_vote() -> impl Strategy<Value = Vote> {
        (any_vote(0.01..=1.0), 1_u64..10_000, 0_usize..3, 0.01..=1.0_f64).prop_map(
            |(mut vote, stake, task, w)| {
                vote.weights.insert(name(NAMES[task]), w);
                Vote { stake, ..vote }
            },
        )
    }

    fn hostile() -> impl Strategy<Value = f64> {
        prop_oneof![8 => 0.0..=1.0, 1 => any::<f64>(), 1 => Just(f64::MAX), 1 => Just(f64::NAN), 1 => Just(0.0)]
    }

    fn votes() -> impl Strategy<Value = Vec<Vote>> {
        prop::collection::vec(any_vote(hostile()), 0..6)
    }

    fn set() -> BTreeSet<TaskName> {
        // One of the names is no task of the set.
        NAMES[..3].iter().map(|t| name(t)).collect()
    }

    fn near(a: &BTreeMap<TaskName, f64>, b: &BTreeMap<TaskName, f64>, eps: f64) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|((t, x), (u, y))| t == u && (x - y).abs() <= eps)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn weights_are_a_distribution_over_the_set_or_nothing(votes in votes()) {
            let weights = task_weights(&votes, &set());
            prop_assert!(weights.values().all(|w| (0.0..=1.0).contains(w)));
            if !weights.is_empty() {
                prop_assert!(weights.keys().eq(set().iter()));
                prop_assert!((weights.values().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }

        #[test]
        fn the_order_of_ballots_does_not_matter_to_the_last_bit(votes in votes(), turn in any::<usize>()) {
            let mut turned = votes.clone();
            turned.reverse();
            if !turned.is_empty() {
                let by = turn % turned.len();
                turned.rotate_left(by);
            }
            prop_assert_eq!(task_weights(&votes, &set()), task_weights(&turned, &set()));
        }

        #[test]
        fn a_ballot_moves_no_more_than_its_stake(
            others in prop::collection::vec(any_vote(0.01..=1.0), 1..5),
            one in a_valid_vote(),
            another in a_valid_vote(),
        ) {
            let another = Vote { stake: one.stake, ..another };
            let counts = |v: &Vote| v.stake > 0 && ballot(v, &set()).is_some();
            let total: f64 = others.iter().chain([&one]).filter(|v| counts(v)).map(|v| crate::float(v.stake)).sum();
            let with = |v: Vote| task_weights(&[others.clone(), vec![v]].concat(), &set());
            let (a, b) = (with(one.clone()), with(another));
            let moved: f64 = a.iter().map(|(t, w)| (w - b.get(t).unwrap()).abs()).sum::<f64>() / 2.0;
            prop_assert!(moved <= crate::float(one.stake) / total + 1e-9);
        }

        #[test]
        fn stake_split_over_equal_ballots_votes_the_same(votes in votes(), stake in 1_u64..1_000_000, part in 0.0..1.0_f64) {
            let mut whole = votes.clone();
            whole.push(vote(stake, &[("chat", 0.2), ("image", 0.8)]));
            let one = (part * stake as f64) as u64;
            let mut split = votes;
            split.push(vote(one, &[("chat", 0.2), ("image", 0.8)]));
            split.push(vote(stake - one, &[("chat", 0.2), ("image", 0.8)]));
            prop_assert!(near(&task_weights(&whole, &set()), &task_weights(&split, &set()), 1e-12));
        }

        #[test]
        fn only_the_proportions_of_a_ballot_matter(
            votes in prop::collection::vec(any_vote(0.01..=1.0), 1..6),
            factor in 1e-200..1e200_f64,
        ) {
            let mut scaled = votes.clone();
            for w in scaled[0].weights.values_mut() {
                *w *= factor;
            }
            prop_assert!(near(&task_weights(&votes, &set()), &task_weights(&scaled, &set()), 1e-12));
        }

        #[test]
        fn a_void_ballot_changes_nothing(votes in votes(), stake in any::<u64>()) {
            let mut more = votes.clone();
            more.push(vote(stake, &[("chat", 0.5), ("embed", f64::NAN)]));
            more.push(vote(stake, &[("rerank", 1.0)]));
            prop_assert_eq!(task_weights(&votes, &set()), task_weights(&more, &set()));
        }

        #[test]
        fn voting_more_for_a_task_never_lowers_it(
            others in prop::collection::vec(any_vote(0.01..=1.0), 0..5),
            one in a_valid_vote(),
            more in 0.0..10.0_f64,
        ) {
            let of = |votes: &[Vote]| task_weights(votes, &set()).get(&name("chat")).copied().unwrap_or(0.0);
            let votes = [vec![one], others].concat();
            let mut raised = votes.clone();
            *raised[0].weights.entry(name("chat")).or_default() += more;
            prop_assert!(of(&raised) >= of(&votes) - 1e-12);
        }
    }
}
