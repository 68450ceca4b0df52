//! The published numbers of `sn19-2025-01`, and what holds of its settlements for every input.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside functions marked as such"
)]

mod common;

use common::{
    AT, HOUR_US, NOW_US, alone, any_inputs, hostile, name, near, row, sample, tasks, unknown, window,
};
use nineteen_domain::Uid;
use nineteen_domain::ledger::{Judgement, PeriodRow, QualitySample, Tally};
use nineteen_domain::policy::{Policy, Scoring, Sn19Scoring};
use nineteen_mechanism::{At, MinerTaskInput, Settlement, Standing, settle};
use proptest::prelude::*;

/// Rows newest first: (consumed, score).
fn rows(miner: u16, task: &str, of: &[(u64, Option<f64>)]) -> Vec<PeriodRow> {
    of.iter()
        .zip(0..)
        .map(|((consumed, score), age)| PeriodRow {
            tally: Tally { consumed: *consumed, ..Tally::default() },
            score: *score,
            ..row(miner, task, age)
        })
        .collect()
}

/// Samples in one second each: (quality, metric).
fn samples(miner: u16, task: &str, of: &[(f64, u64)]) -> Vec<QualitySample> {
    of.iter()
        .zip(0..)
        .map(|((q, metric), slot)| {
            let units = if *q > 0.0 { (*metric as f64 / q) as u64 } else { *metric };
            sample(miner, task, slot, *q, units, 1_000_000)
        })
        .collect()
}

fn input(miner: u16, task: &str, capacity: u64) -> MinerTaskInput {
    MinerTaskInput {
        rows: rows(miner, task, &[(100, Some(1.0)); 9]),
        samples: samples(miner, task, &[(1.0, 50)]),
        ..unknown(miner, task, capacity)
    }
}

fn rules(policy: &mut Policy) -> &mut Sn19Scoring {
    let Scoring::Sn19(rules) = &mut policy.scoring else { unreachable!("Subnet 19's policy") };
    rules
}

fn settled(inputs: &[MinerTaskInput]) -> Settlement {
    settle(&Policy::sn19_2025_01(), &tasks(&[("chat", 1.0)]), inputs, AT)
}

fn only(input: MinerTaskInput) -> Standing {
    alone(&Policy::sn19_2025_01(), input)
}

fn p_of(of: &[(u64, Option<f64>)]) -> f64 {
    only(MinerTaskInput { rows: rows(1, "chat", of), ..input(1, "chat", 1) })
        .reliability
        .normalised_period_score
}

#[test]
fn the_published_period_histories_hold() {
    near(p_of(&[(100, Some(1.0)), (100, Some(0.5)), (100, Some(0.0))]), 0.178571, 1e-6);
    near(p_of(&[(100, Some(0.8)); 9]), 0.8, 1e-12);
    let mut ten = vec![(100, Some(0.5)); 10];
    ten[0] = (300, Some(1.0));
    near(p_of(&ten), 0.875183, 1e-6);
}

#[test]
fn a_period_without_a_score_is_no_row() {
    let mut of = vec![(100, Some(0.8)); 8];
    of.push((100, None));
    near(p_of(&of), 0.2, 1e-12);
}

#[test]
fn rows_of_more_than_three_days_are_no_rows() {
    let mut old = rows(1, "chat", &[(100, Some(0.8)); 9]);
    for r in &mut old {
        r.ended_us -= 80 * HOUR_US;
    }
    let s = only(MinerTaskInput { rows: old, ..input(1, "chat", 1) });
    assert_eq!((s.reliability.rows_used, s.reliability.normalised_period_score), (0, 0.0));
}

#[test]
fn nothing_served_is_worth_nothing() {
    assert_eq!(p_of(&[(0, Some(1.0)); 9]), 0.0);
    assert_eq!(p_of(&[]), 0.0);
}

fn example() -> Vec<MinerTaskInput> {
    let of = |miner, capacity, p: f64, qs: &[(f64, u64)]| MinerTaskInput {
        rows: rows(miner, "chat", &[(100, Some(p)); 9]),
        samples: samples(miner, "chat", qs),
        ..input(miner, "chat", capacity)
    };
    let a: Vec<_> = (0..10).map(|i| (1.0, 50 + 2 * i)).collect();
    let mut b = vec![(1.0, 70); 10];
    b[4].0 = 0.5;
    let mut c = vec![(1.0, 40); 10];
    c[2].0 = 0.0;
    c[7].0 = 0.0;
    vec![of(1, 60_000, 0.95, &a), of(2, 60_000, 0.90, &b), of(3, 30_000, 1.0, &c)]
}

#[test]
fn the_worked_example_holds_at_every_step() {
    let s = settled(&example());
    let expected = [
        (1.0, 56.0, 0.0, 57_000.0, 0.423677, 0.398506),
        (0.935355, 70.0, 0.25, 63_136.485, 0.469289, 0.599870),
        (0.64, 40.0, -0.25, 14_400.0, 0.107034, 0.001623),
    ];
    for (standing, (q, metric, bonus, volume, x, share)) in s.standings.iter().zip(expected) {
        near(standing.quality.quality, q, 1e-6);
        near(standing.speed.metric.unwrap(), metric, 1e-9);
        near(standing.speed.factor, 1.0 + bonus, 1e-12);
        near(standing.effective_volume, volume, 1e-3);
        near(standing.volume_share, x, 1e-6);
        near(standing.share, share, 1e-6);
    }
    assert_eq!(s.u16s, [(Uid(1), 43_536), (Uid(2), 65_535), (Uid(3), 177)]);
}

#[test]
fn the_worked_example_holds_at_the_older_sharpnesses() {
    for (k, expected) in [(2.0, [0.4365, 0.5356, 0.0279]), (3.0, [0.4210, 0.5722, 0.0068])] {
        let mut policy = Policy::sn19_2025_01();
        rules(&mut policy).sharpness = k;
        let s = settle(&policy, &tasks(&[("chat", 1.0)]), &example(), AT);
        for (standing, share) in s.standings.iter().zip(expected) {
            near(standing.share, share, 5e-5);
        }
    }
}

#[test]
fn a_low_mean_is_squared_unless_the_task_is_exempt() {
    let of = |policy: &Policy| {
        let half = MinerTaskInput { samples: samples(1, "chat", &[(0.25, 10); 4]), ..input(1, "chat", 1) };
        settle(policy, &tasks(&[("chat", 1.0)]), &[half], AT).standings.remove(0).quality
    };
    let mut policy = Policy::sn19_2025_01();
    let q = of(&policy);
    assert_eq!((q.mean, q.squared, q.quality, q.plain_mean), (0.125, true, 0.015625, 0.25));
    rules(&mut policy).square_exempt = vec![name("chat")];
    let q = of(&policy);
    assert_eq!((q.squared, q.quality), (false, 0.125));
}

#[test]
fn few_samples_are_topped_up_to_fifty_with_the_newest_of_other_tasks() {
    let mut i = input(1, "chat", 1);
    i.samples = (0..20).map(|n| sample(1, "chat", n, 1.0, 10, 1_000_000)).collect();
    // The newest thirty are perfect, the older ones worthless.
    i.other_samples =
        (0..60).map(|n| sample(1, "embed", n, if n < 30 { 1.0 } else { 0.0 }, 10, 1_000_000)).collect();
    i.other_samples.reverse();
    let q = only(i.clone()).quality;
    assert_eq!((q.own_samples, q.borrowed_samples, q.quality), (20, 30, 1.0));
    i.samples = (0..50).map(|n| sample(1, "chat", n, 1.0, 10, 1_000_000)).collect();
    assert_eq!(only(i).quality.borrowed_samples, 0);
}

#[test]
fn old_and_inconclusive_samples_count_for_nothing() {
    let mut i = input(1, "chat", 1);
    let mut old = sample(1, "chat", 7, 0.0, 10, 1_000_000);
    old.at_us = NOW_US - 6 * 24 * HOUR_US;
    let mut ours = sample(1, "chat", 8, 0.0, 10, 1_000_000);
    ours.judgement = Judgement::Inconclusive("checker.down".into());
    i.samples.extend([old, ours]);
    let q = only(i).quality;
    assert_eq!((q.own_samples, q.quality), (1, 1.0));
}

#[test]
fn a_violation_is_worth_nothing_whatever_quality_it_claims() {
    let mut i = input(1, "chat", 1);
    i.samples[0].judgement = Judgement::Violation("text.after-eos".into());
    let s = only(i);
    assert_eq!((s.quality.quality, s.effective_volume, s.share), (0.0, 0.0, 0.0));
    assert_eq!(s.quality.worst.len(), 1);
}

#[test]
fn equally_fast_miners_share_their_places() {
    let s = settled(&[input(1, "chat", 5), input(2, "chat", 5), input(3, "chat", 5)]);
    for standing in &s.standings {
        assert_eq!((standing.speed.rank, standing.speed.factor), (Some(1.0), 1.0));
    }
}

#[test]
fn one_miner_alone_has_no_bonus_and_takes_all() {
    let s = settled(&[input(7, "chat", 5)]);
    assert_eq!(s.standings[0].speed.factor, 1.0);
    assert_eq!(s.u16s, [(Uid(7), 65_535)]);
}

#[test]
fn when_nobody_earned_anything_nothing_is_set() {
    let s = settled(&[input(1, "chat", 0), input(2, "chat", 0)]);
    assert!(s.u16s.is_empty());
    assert!(s.weights.iter().all(|w| w.weight == 0.0));
    assert!(settled(&[]).weights.is_empty());
}

#[test]
fn a_task_that_nobody_serves_leaves_its_weight_to_the_others() {
    let weights = tasks(&[("chat", 0.5), ("embed", 0.5)]);
    let s = settle(
        &Policy::sn19_2025_01(),
        &weights,
        &[input(1, "chat", 5), input(2, "chat", 5), input(1, "embed", 0)],
        AT,
    );
    assert_eq!(s.weights.iter().map(|w| w.weight).collect::<Vec<_>>(), [0.5, 0.5]);
}

#[test]
fn the_chain_of_numbers_survives_being_written_down() {
    let s = settled(&example());
    let mut bytes = Vec::new();
    ciborium::into_writer(&s, &mut bytes).unwrap();
    assert_eq!(ciborium::from_reader::<Settlement, _>(bytes.as_slice()).unwrap(), s);
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), prop::array::uniform7(hostile()), 0_usize..20, 0_usize..60).prop_map(
        |(published, x, full_rows, min_samples)| {
            let mut policy = Policy::sn19_2025_01();
            if !published {
                *rules(&mut policy) = Sn19Scoring {
                    row_decay: x[0],
                    full_rows,
                    newcomer_multiplier: x[1],
                    min_samples,
                    quality_exponent: x[2],
                    square_at_or_below: x[3],
                    speed_percentile: x[4],
                    speed_bonus_width: x[5],
                    sharpness: x[6],
                    ..rules(&mut policy).clone()
                };
            }
            policy
        },
    )
}

#[test]
fn what_only_the_default_rules_know_changes_nothing() {
    let told = |mut i: MinerTaskInput| {
        i.rows[0].windows = vec![window(0); 9];
        MinerTaskInput { honesty: 0.0, expected_asked: f64::NAN, ..i }
    };
    let (plain, full) = (settled(&example()), settled(&example().into_iter().map(told).collect::<Vec<_>>()));
    assert_eq!(plain, full);
    assert!(plain.standings.iter().all(|s| (s.honesty, s.credit.factor) == (1.0, 1.0)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_number_is_finite_and_in_range_for_every_input(
        policy in any_policy(),
        inputs in any_inputs(12),
        w in prop::array::uniform3(hostile()),
        now in prop_oneof![Just(NOW_US), any::<u64>()],
    ) {
        let weights = tasks(&[("chat", w[0]), ("embed", w[1]), ("image", w[2])]);
        let s = settle(&policy, &weights, &inputs, At { now_us: now, ..AT });
        for x in &s.standings {
            let in_unit = [
                x.reliability.mean, x.reliability.confidence, x.reliability.normalised_period_score,
                x.quality.mean, x.quality.plain_mean, x.quality.quality, x.volume_share, x.share,
            ];
            prop_assert!(in_unit.iter().all(|v| (0.0..=1.0).contains(v)), "{:?}", x);
            prop_assert!(x.reliability.rows.iter().all(|r| (0.0..=1.0).contains(&r.weight)));
            prop_assert!(x.speed.metric.is_none_or(|m| m.is_finite() && m >= 0.0));
            prop_assert!((0.0..=2.0).contains(&x.speed.factor));
            prop_assert!(x.effective_volume.is_finite() && x.effective_volume >= 0.0);
            prop_assert!(x.task_weight.is_finite() && x.task_weight >= 0.0);
        }
        let total: f64 = s.weights.iter().map(|w| w.weight).sum();
        prop_assert!(s.weights.iter().all(|w| (0.0..=1.0).contains(&w.weight)));
        prop_assert!(total == 0.0 || (total - 1.0).abs() < 1e-9);
        prop_assert_eq!(s.u16s.is_empty(), total == 0.0);
        prop_assert!(s.u16s.is_sorted_by(|a, b| a.0 < b.0) && s.u16s.iter().all(|(_, v)| *v > 0));
    }

    #[test]
    fn the_order_of_miners_tasks_rows_and_samples_does_not_matter(
        inputs in any_inputs(12),
        turn in any::<usize>(),
    ) {
        let weights = tasks(&[("chat", 0.5), ("embed", 0.3), ("image", 0.2)]);
        let straight = settle(&Policy::sn19_2025_01(), &weights, &inputs, AT);
        let mut turned = inputs;
        turned.reverse();
        if !turned.is_empty() {
            let by = turn % turned.len();
            turned.rotate_left(by);
        }
        for i in &mut turned {
            i.rows.reverse();
            i.samples.reverse();
            i.other_samples.reverse();
        }
        prop_assert_eq!(&settle(&Policy::sn19_2025_01(), &weights, &turned, AT).weights, &straight.weights);
    }

    #[test]
    fn a_task_of_weight_zero_changes_nothing(inputs in any_inputs(12)) {
        let with = tasks(&[("chat", 0.5), ("embed", 0.5), ("image", 0.0)]);
        let all = settle(&Policy::sn19_2025_01(), &with, &inputs, AT);
        let two: Vec<_> = inputs.into_iter().filter(|i| i.task != name("image")).collect();
        let without = settle(&Policy::sn19_2025_01(), &with, &two, AT);
        prop_assert_eq!(all.u16s, without.u16s);
    }

    #[test]
    fn a_better_sample_never_lowers_ones_own_quality(
        qs in prop::collection::vec(0.0..1.0_f64, 1..60),
        at in any::<usize>(),
    ) {
        let of = |qs: &[f64]| {
            let samples = (0..).zip(qs).map(|(n, q)| sample(1, "chat", n, *q, 10, 1_000_000)).collect();
            only(MinerTaskInput { samples, ..input(1, "chat", 1) }).quality.quality
        };
        let before = of(&qs);
        let mut better = qs;
        let at = at % better.len();
        better[at] = 1.0;
        prop_assert!(of(&better) >= before - 1e-12);
    }
}
