//! Which promises of `default` Subnet 19's rules do not keep, each by the smallest counter-example we know and
//! beside it what `default` makes of the same. The book quotes these numbers.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside functions marked as such"
)]

mod common;

use common::{AT, HOUR_US, alone, name, near, row, sample, tasks, unknown, window};
use nineteen_domain::ledger::{PeriodRow, QualitySample, Tally};
use nineteen_domain::policy::Policy;
use nineteen_mechanism::{MinerTaskInput, Settlement, period_score, settle};

fn both() -> [Policy; 2] {
    [Policy::sn19_2025_01(), Policy::default_rules()]
}

fn settled(policy: &Policy, inputs: &[MinerTaskInput]) -> Settlement {
    settle(policy, &tasks(&[("chat", 1.0)]), inputs, AT)
}

/// Requests of ten units each: how many were answered, how many failed; a hundred would be all.
fn period(age: u64, answered: u64, failed: u64) -> PeriodRow {
    let tally = Tally {
        answered,
        failed,
        consumed: answered * 10,
        asked: (answered + failed) * 10,
        ..Tally::default()
    };
    let windows = vec![window(1_000); 2];
    PeriodRow { capacity: 1_000, tally, score: period_score(&tally, 1_000), windows, ..row(1, "chat", age) }
}

/// Twelve perfect periods, ten perfect answers at 50 units per second.
fn good(miner: u16, capacity: u64) -> MinerTaskInput {
    MinerTaskInput {
        rows: (0..12).map(|age| PeriodRow { capacity, ..period(age, 10, 0) }).collect(),
        samples: (0..10).map(|n| sample(miner, "chat", n, 1.0, 50, 1_000_000)).collect(),
        ..unknown(miner, "chat", capacity)
    }
}

fn faster(input: MinerTaskInput, units: u64) -> MinerTaskInput {
    let samples = input.samples.into_iter().map(|s| QualitySample { units, ..s }).collect();
    MinerTaskInput { samples, ..input }
}

/// Reliability with this as the newest period, before eleven perfect ones.
fn reliability(policy: &Policy, newest: PeriodRow) -> f64 {
    let mut input = good(1, 1_000);
    input.rows[0] = newest;
    alone(policy, input).reliability.normalised_period_score
}

#[test]
fn merging_hotkeys_pays_under_sn19() {
    let [sn19, default] = both().map(|policy| {
        let two = settled(&policy, &[good(1, 500), good(2, 500), good(3, 1_000)]);
        let one = settled(&policy, &[good(1, 1_000), good(3, 1_000)]);
        (two.weights[0].weight + two.weights[1].weight, one.weights[0].weight)
    });
    near(sn19.0, 1.0 / 9.0, 1e-12);
    near(sn19.1, 0.5, 1e-12);
    near(default.0, 0.5, 1e-12);
    near(default.1, 0.5, 1e-12);
}

#[test]
fn one_miss_fewer_costs_under_sn19() {
    // The newest period: ten of ten failed, or nine.
    let [sn19, default] =
        both().map(|policy| [period(0, 0, 10), period(0, 1, 9)].map(|newest| reliability(&policy, newest)));
    // Nothing served weighs nothing, whatever failed.
    near(sn19[0], 1.0, 1e-12);
    near(sn19[1], 0.909159, 1e-6);
    assert!(default[1] > default[0], "{default:?}");
}

#[test]
fn more_verified_volume_costs_under_sn19() {
    // A poor newest period, in which the answers were longer.
    let [sn19, default] = both().map(|policy| {
        [50, 100].map(|consumed| {
            let mut newest = period(0, 5, 5);
            newest.tally.consumed = consumed;
            newest.score = period_score(&newest.tally, newest.capacity);
            reliability(&policy, newest)
        })
    });
    assert!(sn19[1] < sn19[0] - 0.1, "{sn19:?}");
    assert!(default[1] > default[0], "{default:?}");
}

#[test]
fn others_move_ones_effective_volume_under_sn19() {
    // A third miner is or is not faster by a hair.
    let [sn19, default] = both().map(|policy| {
        [50, 51].map(|units| {
            let of = [good(1, 1_000), faster(good(2, 1_000), 40), faster(good(3, 1_000), units)];
            settled(&policy, &of).standings[0].effective_volume
        })
    });
    near(sn19[0], 1_125.0, 1e-9);
    near(sn19[1], 1_000.0, 1e-9);
    assert_eq!(default[0], default[1]);
}

#[test]
fn sustained_windows_are_worth_nothing_under_sn19() {
    let [sn19, default] = both().map(|policy| {
        [0, 1_000].map(|delivered| {
            let mut input = good(1, 1_000);
            for r in &mut input.rows {
                r.windows = vec![window(delivered); 2];
            }
            alone(&policy, input).effective_volume
        })
    });
    // Every announcement is believed.
    assert_eq!(sn19[0], sn19[1]);
    assert!(default[1] > 100.0 * default[0], "{default:?}");
}

#[test]
fn a_task_of_weight_zero_moves_weights_under_sn19() {
    // Poor answers of a task that pays nothing are borrowed for one that does.
    let [sn19, default] = both().map(|policy| {
        let mut input = good(1, 1_000);
        input.other_samples = (0..40).map(|n| sample(1, "embed", n, 0.5, 50, 1_000_000)).collect();
        let of = [input, good(2, 1_000)];
        let weights = tasks(&[("chat", 1.0), ("embed", 0.0)]);
        let with = settle(&policy, &weights, &of, AT);
        assert!(with.standings.iter().all(|s| s.task == name("chat")));
        with.weights[0].weight
    });
    assert!(sn19 < 0.02, "{sn19}");
    near(default, 0.5, 1e-12);
}

#[test]
fn a_miner_that_left_keeps_its_reliability_under_sn19() {
    let [sn19, default] = both().map(|policy| {
        let mut input = good(1, 1_000);
        for r in &mut input.rows {
            r.ended_us -= 48 * HOUR_US;
        }
        alone(&policy, input).reliability.normalised_period_score
    });
    near(sn19, 1.0, 1e-12);
    assert!(default < 0.002, "{default}");
}

#[test]
fn the_last_announcement_is_believed_under_sn19() {
    // Served a thousand in every period and announces ten thousand now.
    let [sn19, default] = both().map(|policy| {
        let honest = alone(&policy, good(1, 1_000)).effective_volume;
        let boast = MinerTaskInput { capacity: 10_000, expected_asked: 1_000.0, ..good(1, 1_000) };
        alone(&policy, boast).effective_volume / honest
    });
    near(sn19, 10.0, 1e-9);
    assert!(default < 0.5, "{default}");
}
