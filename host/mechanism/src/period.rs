//! Step 5 of a period: what one miner's requests of one task say about it.

use nineteen_domain::ledger::Tally;

use crate::{float, unit};

/// The period score (MECHANISM, step 5): with `u = max(c − consumed, 0)/max(c, 1)`, `p4` and `p5` the shares
/// of rate-limited and failed requests,
/// `s = max((1 − p4 − p5)(1 − p4·u)(1 − p5·u)², 0)`, in [0, 1].
///
/// `None` if nothing was asked or the capacity is 0. Requests that ended in a fault of ours are in no share.
#[must_use]
pub fn period_score(tally: &Tally, capacity: u64) -> Option<f64> {
    let total = tally.total();
    if total == 0 || capacity == 0 {
        return None;
    }
    let c = float(capacity);
    let unqueried = ((c - float(tally.consumed)) / c).max(0.0);
    let p4 = float(tally.rate_limited) / float(total);
    let p5 = float(tally.failed) / float(total);
    let good = (1.0 - p4 - p5).max(0.0);
    Some(unit(good * (1.0 - p4 * unqueried) * (1.0 - p5 * unqueried).powi(2)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(total: u64, rate_limited: u64, failed: u64, consumed: u64) -> Tally {
        Tally { answered: total - rate_limited - failed, rate_limited, failed, consumed, ..Tally::default() }
    }

    #[test]
    fn the_published_vectors_hold() {
        for (total, p4, p5, c, consumed, expected) in [
            (10, 1, 0, 100, 7, 0.8163),
            (10, 0, 1, 100, 7, 0.740384),
            (10, 1, 1, 100, 7, 0.596914),
            (10, 5, 0, 100, 100, 0.5),
            (10, 3, 0, 100, 50, 0.595),
            (10, 0, 3, 100, 50, 0.50575),
            (20, 2, 3, 60_000, 4_044, 0.503097),
            (10, 0, 10, 100, 0, 0.0),
        ] {
            let s = period_score(&tally(total, p4, p5, consumed), c).unwrap();
            assert!((s - expected).abs() < 1e-6, "{total} {p4} {p5} {c} {consumed}: {s} for {expected}");
        }
    }

    #[test]
    fn there_is_no_score_where_nothing_was_asked_or_announced() {
        assert_eq!(period_score(&Tally::default(), 100), None);
        assert_eq!(period_score(&tally(10, 0, 0, 5), 0), None);
        assert_eq!(period_score(&Tally { ours: 9, ..Tally::default() }, 100), None);
    }

    #[test]
    fn a_miner_that_served_all_it_announced_pays_for_its_misses_alone() {
        assert_eq!(period_score(&tally(10, 2, 0, 100), 100), Some(0.8));
        assert_eq!(period_score(&tally(10, 0, 2, 1_000), 100), Some(0.8));
    }

    fn any_tally() -> impl Strategy<Value = Tally> {
        (any::<[u64; 6]>()).prop_map(|[answered, rate_limited, failed, ours, consumed, asked]| Tally {
            answered,
            rate_limited,
            failed,
            ours,
            consumed,
            asked,
        })
    }

    proptest! {
        #[test]
        fn a_score_is_in_range_for_every_tally(t in any_tally(), c in any::<u64>()) {
            if let Some(s) = period_score(&t, c) {
                prop_assert!((0.0..=1.0).contains(&s));
            }
        }

        #[test]
        fn a_fault_of_ours_changes_nothing(t in any_tally(), c in any::<u64>(), ours in any::<u64>()) {
            prop_assert_eq!(period_score(&Tally { ours, ..t }, c), period_score(&t, c));
        }

        #[test]
        fn a_miss_less_never_lowers_the_score(
            (total, p4, p5) in (1_u64..500).prop_flat_map(|n| (Just(n), 0..=n)).prop_flat_map(|(n, a)| (Just(n), Just(a), 0..=n - a)),
            consumed in 0_u64..2_000,
        ) {
            let s = |p4, p5| period_score(&tally(total, p4, p5, consumed), 1_000).unwrap();
            if p4 > 0 { prop_assert!(s(p4 - 1, p5) >= s(p4, p5)); }
            if p5 > 0 { prop_assert!(s(p4, p5 - 1) >= s(p4, p5)); }
        }
    }
}
