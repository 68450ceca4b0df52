//! What `default` promises every miner (MECHANISM, "Properties"), over generated subnets: several miners,
//! tasks, rows, windows and samples, under the shipped policy and under others within the documented ranges.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside functions marked as such"
)]

mod common;

use std::collections::BTreeMap;

use common::{
    AT, HOUR_US, NOW_US, any_inputs, default_rules, hostile, key, name, row, sample, tasks, unknown,
};
use nineteen_domain::ledger::{Judgement, PeriodRow, QualitySample, Tally, WindowKind, WindowResult};
use nineteen_domain::policy::{DefaultScoring, HonestyRules, Policy, Scoring};
use nineteen_domain::task::SpeedReference;
use nineteen_domain::{Hotkey, PeriodId, TaskName, Uid};
use nineteen_mechanism::{At, MinerTaskInput, Settlement, Standing, period_score, settle};
use proptest::prelude::*;
use proptest::sample::Index;

const TASKS: [&str; 2] = ["chat", "embed"];

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The shipped policy, or one within the documented ranges.
fn policy() -> impl Strategy<Value = Policy> {
    let half = 0.5..50.0;
    (
        any::<bool>(),
        (half.clone(), half.clone(), half, 0.1..20.0, 0.0..=1.0, 1.0..5.0),
        (0.0..1.0, 0.0..=1.0, 0.0..2.0, 0.01..0.99, 0.3..=1.0, 1.0..8.0),
        (0.5..4.0, 1.0..200.0),
    )
        .prop_map(|(shipped, a, b, c)| {
            let mut policy = Policy::default_rules();
            if !shipped {
                *default_rules(&mut policy) = DefaultScoring {
                    row_half_life: a.0,
                    sample_half_life: a.1,
                    window_half_life: a.2,
                    prior_samples: a.3,
                    prior_quality: a.4,
                    quality_exponent: a.5,
                    speed_percentile: b.0,
                    throughput_part: b.1,
                    unknown_speed: b.2,
                    capacity_quantile: b.3,
                    sustained_at: b.4,
                    shortfall_exponent: b.5,
                    sharpness: c.0,
                    horizon: c.1,
                    honesty: HonestyRules::default(),
                };
            }
            policy
        })
}

fn scored(row: PeriodRow) -> PeriodRow {
    PeriodRow { score: period_score(&row.tally, row.capacity), ..row }
}

/// Requests of a row are all of this size, so that one more or less served is a known volume.
const REQUEST: u64 = 50;

fn a_row() -> impl Strategy<Value = (u64, Option<u64>, [u64; 3], Vec<WindowResult>)> {
    let window = (any::<bool>(), 0_u64..48, 1_u64..1_000, 0.0..1.5_f64).prop_map(
        |(head_room, hours, asked, delivered)| WindowResult {
            kind: WindowKind::Secret,
            started_us: NOW_US - hours * HOUR_US,
            rate: if head_room { 1.25 } else { 1.0 },
            asked,
            delivered: ((asked as f64 * delivered) as u64).min(asked),
        },
    );
    (
        0_u64..48,
        prop::option::of(1_u64..5_000),
        [0_u64..20, 0_u64..4, 0_u64..4],
        prop::collection::vec(window, 0..3),
    )
}

fn a_sample() -> impl Strategy<Value = (u64, f64, u8, u64, u64, Option<u64>)> {
    (
        0_u64..3_000,
        prop_oneof![Just(1.0), 0.0..=1.0],
        0_u8..8,
        0_u64..1_000,
        1_u64..10_000_000,
        prop::option::of(1_u64..1_000_000),
    )
}

/// One miner in one task: who and which is said later.
fn a_miner() -> impl Strategy<Value = MinerTaskInput> {
    let reference = (1.0..500.0, prop::option::of(1_u64..1_000))
        .prop_map(|(units_per_s, first_unit_ms)| SpeedReference { units_per_s, first_unit_ms });
    (
        (1_u64..5_000, 1.0..500.0, prop_oneof![Just(1.0), 0.0..=1.0], prop::option::of(reference)),
        prop::collection::vec(a_row(), 1..5),
        prop::collection::vec(a_sample(), 0..6),
    )
        .prop_map(|((capacity, expected_asked, honesty, speed), rows, samples)| MinerTaskInput {
            expected_asked,
            honesty,
            speed,
            rows: rows
                .into_iter()
                .zip(0..)
                .map(|((hours, other_capacity, [answered, rate_limited, failed], windows), n)| {
                    scored(PeriodRow {
                        period: PeriodId(n),
                        capacity: other_capacity.unwrap_or(capacity),
                        tally: Tally {
                            answered,
                            rate_limited,
                            failed,
                            ours: 0,
                            consumed: answered * REQUEST,
                            asked: (answered + rate_limited + failed) * REQUEST,
                        },
                        windows,
                        ..row(0, TASKS[0], hours)
                    })
                })
                .collect(),
            samples: samples
                .into_iter()
                .zip(0..)
                .map(|((minutes, quality, kind, units, response_us, first_unit_us), slot)| QualitySample {
                    judgement: if kind == 0 { Judgement::Violation("v".into()) } else { Judgement::Scored },
                    first_unit_us,
                    at_us: NOW_US - minutes * HOUR_US / 60,
                    ..sample(0, TASKS[0], slot, quality, units, response_us)
                })
                .collect(),
            ..unknown(0, TASKS[0], capacity)
        })
}

fn of_miner(input: MinerTaskInput, n: u16, task: &str) -> MinerTaskInput {
    MinerTaskInput { miner: key(n), uid: Uid(n), task: name(task), ..input }
}

/// Two to four places, miner by miner over both tasks; the weights of the tasks.
fn subnet() -> impl Strategy<Value = (Vec<MinerTaskInput>, BTreeMap<TaskName, f64>)> {
    (prop::collection::vec(a_miner(), 2..5), 0.05..1.0, 0.05..1.0).prop_map(|(inputs, chat, embed)| {
        let inputs = inputs
            .into_iter()
            .zip(0_u16..)
            .map(|(input, n)| of_miner(input, n / 2, TASKS[usize::from(n % 2)]))
            .collect();
        (inputs, tasks(&[("chat", chat), ("embed", embed)]))
    })
}

fn standing<'a>(s: &'a Settlement, of: &MinerTaskInput) -> &'a Standing {
    s.standings.iter().find(|x| x.miner == of.miner && x.task == of.task).unwrap()
}

fn weight(s: &Settlement, of: Hotkey) -> f64 {
    s.weights.iter().filter(|w| w.miner == of).map(|w| w.weight).sum()
}

/// That what was done to one miner lowers neither what it earns nor its share, and moves no other's effective
/// volume.
fn never_lowers(
    policy: &Policy,
    (inputs, weights): &(Vec<MinerTaskInput>, BTreeMap<TaskName, f64>),
    whose: usize,
    change: impl FnOnce(&mut MinerTaskInput),
) -> Result<(), TestCaseError> {
    let before = settle(policy, weights, inputs, AT);
    let mut changed = inputs.clone();
    change(&mut changed[whose]);
    let after = settle(policy, weights, &changed, AT);
    let own = &inputs[whose];
    let at_least = |a: f64, b: f64| a >= b * (1.0 - 1e-9) - 1e-14;
    let (a, b) = (standing(&after, own), standing(&before, own));
    prop_assert!(at_least(a.effective_volume, b.effective_volume), "{a:#?} after {b:#?}");
    prop_assert!(at_least(a.share, b.share), "{} after {}", a.share, b.share);
    prop_assert!(at_least(weight(&after, own.miner), weight(&before, own.miner)));
    for (a, b) in after.standings.iter().zip(&before.standings) {
        prop_assert!(
            (&a.miner, &a.task) == (&own.miner, &own.task) || a.effective_volume == b.effective_volume
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn more_verified_units_never_lower_ones_own_share(
        policy in policy(), subnet in subnet(), who in any::<Index>(), which in any::<Index>(),
        more in 1_u64..5_000,
    ) {
        never_lowers(&policy, &subnet, who.index(subnet.0.len()), |i| {
            if !i.samples.is_empty() {
                let n = which.index(i.samples.len());
                i.samples[n].units += more;
            }
            // Of what was asked in a period, too: longer answers.
            let n = which.index(i.rows.len());
            i.rows[n].tally.consumed += more;
            i.rows[n] = scored(i.rows[n].clone());
        })?;
    }

    #[test]
    fn a_better_sample_never_lowers_ones_own_share(
        policy in policy(), subnet in subnet(), who in any::<Index>(), which in any::<Index>(),
        better in 0.0..=1.0_f64,
    ) {
        never_lowers(&policy, &subnet, who.index(subnet.0.len()), |i| {
            if !i.samples.is_empty() {
                let n = which.index(i.samples.len());
                // A violation less, where it was one.
                i.samples[n].judgement = Judgement::Scored;
                i.samples[n].quality = i.samples[n].quality.max(better);
            }
        })?;
    }

    #[test]
    fn being_faster_never_lowers_ones_own_share(
        policy in policy(), subnet in subnet(), who in any::<Index>(), which in any::<Index>(),
        factor in 0.0..1.0_f64,
    ) {
        let less = |us: u64| (us as f64 * factor) as u64;
        never_lowers(&policy, &subnet, who.index(subnet.0.len()), |i| {
            if !i.samples.is_empty() {
                let n = which.index(i.samples.len());
                i.samples[n].response_us = less(i.samples[n].response_us);
                i.samples[n].first_unit_us = i.samples[n].first_unit_us.map(less);
            }
        })?;
    }

    #[test]
    fn one_miss_fewer_never_lowers_ones_own_share(
        policy in policy(), subnet in subnet(), who in any::<Index>(), which in any::<Index>(),
        limited in any::<bool>(),
    ) {
        never_lowers(&policy, &subnet, who.index(subnet.0.len()), |i| {
            let n = which.index(i.rows.len());
            let t = &mut i.rows[n].tally;
            let misses = if limited { &mut t.rate_limited } else { &mut t.failed };
            if *misses > 0 {
                *misses -= 1;
                t.answered += 1;
                t.consumed += REQUEST;
            }
            i.rows[n] = scored(i.rows[n].clone());
        })?;
    }

    #[test]
    fn one_more_sustained_window_never_lowers_ones_own_share(
        policy in policy(), subnet in subnet(), who in any::<Index>(), which in any::<Index>(),
        delivered in 0.0..=1.0_f64, hours in 0_u64..48, head_room in any::<bool>(),
    ) {
        let whose = who.index(subnet.0.len());
        // One that was tried delivers more.
        never_lowers(&policy, &subnet, whose, |i| {
            let n = which.index(i.rows.len());
            if let Some(w) = i.rows[n].windows.first_mut() {
                w.delivered = w.delivered.max((w.asked as f64 * delivered).ceil() as u64);
            }
        })?;
        // One more is tried at what is announced now, and sustained.
        never_lowers(&policy, &subnet, whose, |i| {
            let window = WindowResult {
                kind: WindowKind::Beacon,
                started_us: NOW_US - hours * HOUR_US,
                rate: if head_room { 1.25 } else { 1.0 },
                asked: 100,
                delivered: 100,
            };
            i.rows.push(PeriodRow {
                capacity: i.capacity,
                score: None,
                windows: vec![window],
                ..row(0, TASKS[0], hours)
            });
        })?;
    }

    #[test]
    fn a_clearer_conscience_never_lowers_ones_own_share(
        policy in policy(), subnet in subnet(), who in any::<Index>(), honesty in 0.0..=1.0_f64,
    ) {
        never_lowers(&policy, &subnet, who.index(subnet.0.len()), |i| i.honesty = i.honesty.max(honesty))?;
    }
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), prop::array::uniform14(hostile())).prop_map(|(shipped, x)| {
        let mut policy = Policy::default_rules();
        if !shipped {
            policy.scoring = Scoring::Default(DefaultScoring {
                row_half_life: x[0],
                sample_half_life: x[1],
                prior_samples: x[2],
                prior_quality: x[3],
                quality_exponent: x[4],
                speed_percentile: x[5],
                throughput_part: x[6],
                unknown_speed: x[7],
                window_half_life: x[8],
                capacity_quantile: x[9],
                sustained_at: x[10],
                shortfall_exponent: x[11],
                sharpness: x[12],
                horizon: x[13],
                honesty: HonestyRules::default(),
            });
        }
        policy
    })
}

fn is_in_range(x: &Standing) -> bool {
    let in_unit = [
        x.reliability.mean,
        x.reliability.confidence,
        x.reliability.normalised_period_score,
        x.quality.plain_mean,
        x.quality.mean,
        x.quality.quality,
        x.credit.factor,
        x.honesty,
        x.volume_share,
        x.share,
    ];
    let at_least_zero = [
        x.reliability.asked,
        x.reliability.expected_asked,
        x.quality.weight,
        x.credit.tried,
        x.credit.sustained,
        x.effective_volume,
        x.task_weight,
    ];
    let optional = [x.speed.metric, x.speed.first_unit_us, x.speed.ratio, x.speed.first_unit_ratio];
    let windows = |w: &nineteen_mechanism::WindowUsed| {
        w.capacity.is_finite() && w.age >= 0.0 && (0.0..=w.weight).contains(&w.sustained) && w.weight <= 1.0
    };
    in_unit.iter().all(|v| (0.0..=1.0).contains(v))
        && at_least_zero.iter().chain(optional.iter().flatten()).all(|v| v.is_finite() && *v >= 0.0)
        && (0.0..=2.0).contains(&x.speed.factor)
        && x.credit.sustained <= x.credit.tried
        && x.credit.windows.iter().all(windows)
        && x.reliability.rows.iter().all(|r| (0.0..=1.0).contains(&r.weight) && r.age.is_finite())
        && (x.speed.rank, x.speed.ranked, x.quality.squared) == (None, 0, false)
}

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn every_number_is_finite_and_in_range_for_every_input(
        policy in any_policy(),
        inputs in any_inputs(5),
        w in prop::array::uniform3(hostile()),
        now_us in prop_oneof![Just(NOW_US), any::<u64>()],
        period_us in prop_oneof![Just(HOUR_US), Just(0), any::<u64>()],
    ) {
        let weights = tasks(&[("chat", w[0]), ("embed", w[1]), ("image", w[2])]);
        let s = settle(&policy, &weights, &inputs, At { now_us, period_us });
        for x in &s.standings {
            prop_assert!(is_in_range(x), "{:?}", x);
        }
        let total: f64 = s.weights.iter().map(|w| w.weight).sum();
        prop_assert!(s.weights.iter().all(|w| (0.0..=1.0).contains(&w.weight)));
        prop_assert!(total == 0.0 || (total - 1.0).abs() < 1e-9);
        prop_assert_eq!(s.u16s.is_empty(), total == 0.0);
        prop_assert!(s.u16s.is_sorted_by(|a, b| a.0 < b.0) && s.u16s.iter().all(|(_, v)| *v > 0));
    }

    #[test]
    fn the_order_of_what_is_known_does_not_matter_to_the_last_bit(
        policy in policy(), (inputs, weights) in subnet(), turn in any::<Index>(),
    ) {
        let straight = settle(&policy, &weights, &inputs, AT);
        let mut turned = inputs;
        turned.reverse();
        let by = turn.index(turned.len());
        turned.rotate_left(by);
        for i in &mut turned {
            i.rows.reverse();
            i.samples.reverse();
            i.rows.iter_mut().for_each(|r| r.windows.reverse());
        }
        prop_assert_eq!(settle(&policy, &weights, &turned, AT), straight);
    }

    #[test]
    fn names_of_miners_and_tasks_do_not_matter(policy in policy(), (inputs, weights) in subnet()) {
        let other = |t: &TaskName| if *t == name("chat") { name("embed") } else { name("chat") };
        let renamed: Vec<_> = inputs
            .iter()
            .map(|i| MinerTaskInput { task: other(&i.task), ..of_miner(i.clone(), 9 - i.uid.0, "chat") })
            .collect();
        let swapped = weights.iter().map(|(t, w)| (other(t), *w)).collect();
        let (a, b) = (settle(&policy, &weights, &inputs, AT), settle(&policy, &swapped, &renamed, AT));
        for (i, r) in inputs.iter().zip(&renamed) {
            let (x, y) = (standing(&a, i), standing(&b, r));
            prop_assert_eq!(x.effective_volume, y.effective_volume);
            prop_assert!((x.share - y.share).abs() < 1e-12);
            prop_assert!((weight(&a, i.miner) - weight(&b, r.miner)).abs() < 1e-12);
        }
    }

    #[test]
    fn splitting_and_merging_hotkeys_gain_nothing(
        mut policy in policy(), (mut inputs, weights) in subnet(), who in any::<Index>(),
    ) {
        default_rules(&mut policy).sharpness = 1.0;
        // Everything twice, so that it has halves.
        for i in &mut inputs {
            *i = scaled(i, 2, 1.0);
        }
        let merged = settle(&policy, &weights, &inputs, AT);
        let owner = inputs[who.index(inputs.len())].miner;
        let mut split = Vec::new();
        for i in &inputs {
            if i.miner == owner {
                split.push(of_miner(halved(i), 100, i.task.as_str()));
                split.push(of_miner(halved(i), 101, i.task.as_str()));
            } else {
                split.push(i.clone());
            }
        }
        let two = settle(&policy, &weights, &split, AT);
        prop_assert!((weight(&merged, owner) - weight(&two, key(100)) - weight(&two, key(101))).abs() < 1e-12);
        for i in inputs.iter().filter(|i| i.miner != owner) {
            prop_assert!((weight(&merged, i.miner) - weight(&two, i.miner)).abs() < 1e-12);
        }
    }

    #[test]
    fn a_task_of_weight_zero_changes_nothing(policy in policy(), (inputs, mut weights) in subnet()) {
        weights.insert(name("embed"), 0.0);
        let with = settle(&policy, &weights, &inputs, AT);
        let one: Vec<_> = inputs.into_iter().filter(|i| i.task == name("chat")).collect();
        let without = settle(&policy, &weights, &one, AT);
        prop_assert_eq!(&with.u16s, &without.u16s);
        for w in &with.weights {
            prop_assert_eq!(w.weight, weight(&without, w.miner));
        }
    }

    #[test]
    fn removing_a_task_renormalises_the_rest(policy in policy(), (inputs, mut weights) in subnet()) {
        let all = settle(&policy, &weights, &inputs, AT);
        weights.remove(&name("embed"));
        let rest = settle(&policy, &weights, &inputs, AT);
        let chat = |s: &Settlement| -> f64 { s.standings.iter().filter(|x| x.task == name("chat")).map(|x| x.share).sum() };
        let paid = chat(&all);
        for (x, y) in all.standings.iter().zip(&rest.standings) {
            prop_assert_eq!((x.effective_volume, x.share), (y.effective_volume, y.share));
            if x.task == name("chat") {
                let expected = if paid > 0.0 { x.share / paid } else { 0.0 };
                prop_assert!((weight(&rest, x.miner) - expected).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_larger_or_smaller_unit_changes_nothing(
        policy in policy(), (inputs, weights) in subnet(), factor in 2_u64..1_000, of_samples in any::<bool>(),
    ) {
        let before = settle(&policy, &weights, &inputs, AT);
        // All capacities and volumes; those of samples only together with the task's reference.
        let units = if of_samples { factor as f64 } else { 1.0 };
        let scaled: Vec<_> = inputs.iter().map(|i| scaled(i, factor, units)).collect();
        let after = settle(&policy, &weights, &scaled, AT);
        for (x, y) in after.standings.iter().zip(&before.standings) {
            prop_assert!((x.share - y.share).abs() < 1e-9);
            let times = y.effective_volume * factor as f64;
            prop_assert!((x.effective_volume - times).abs() <= 1e-9 * times);
        }
    }

    #[test]
    fn a_fault_of_ours_changes_nothing(
        policy in policy(), (inputs, weights) in subnet(), who in any::<Index>(), which in any::<Index>(),
        ours in 1_u64..100, hours in 0_u64..100,
    ) {
        let before = settle(&policy, &weights, &inputs, AT);
        let mut faulty = inputs;
        let whose = who.index(faulty.len());
        let i = &mut faulty[whose];
        // Probes, a window, a period and a judgement of which we made nothing.
        let n = which.index(i.rows.len());
        i.rows[n].tally.ours += ours;
        i.rows[n] = scored(i.rows[n].clone());
        i.rows[n].windows.push(WindowResult {
            kind: WindowKind::Secret,
            started_us: NOW_US - hours * HOUR_US,
            rate: 1.0,
            asked: 0,
            delivered: 0,
        });
        i.rows.push(scored(PeriodRow {
            capacity: i.capacity,
            tally: Tally { ours, ..Tally::default() },
            ..row(0, TASKS[0], hours)
        }));
        i.samples.push(QualitySample {
            judgement: Judgement::Inconclusive("checker.down".into()),
            ..sample(0, TASKS[0], 99, 0.0, 0, 1)
        });
        prop_assert_eq!(settle(&policy, &weights, &faulty, AT), before);
    }

    #[test]
    fn nothing_one_miner_does_moves_anothers_effective_volume(
        policy in policy(), (inputs, weights) in subnet(), anything in any_inputs(4),
    ) {
        let of_first = |i: &MinerTaskInput| i.miner == inputs[0].miner;
        let before = settle(&policy, &weights, &inputs, AT);
        let mut others: Vec<_> = anything.into_iter().filter(|i| !of_first(i)).collect();
        others.extend(inputs.iter().filter(|i| of_first(i)).cloned());
        let after = settle(&policy, &weights, &others, AT);
        for i in inputs.iter().filter(|i| of_first(i)) {
            let blind = |s: &Settlement| Standing { volume_share: 0.0, share: 0.0, ..standing(s, i).clone() };
            prop_assert_eq!(blind(&after), blind(&before));
        }
    }

    #[test]
    fn a_settlement_leaves_every_capacity_as_it_is(policy in policy(), (inputs, weights) in subnet()) {
        let s = settle(&policy, &weights, &inputs, AT);
        for i in &inputs {
            prop_assert_eq!(standing(&s, i).capacity, i.capacity);
        }
    }
}

/// Capacities and volumes, `A₀` included, times `factor`; units of samples and the reference times `units`.
fn scaled(input: &MinerTaskInput, factor: u64, units: f64) -> MinerTaskInput {
    let mut i = input.clone();
    i.capacity *= factor;
    i.expected_asked *= factor as f64;
    for r in &mut i.rows {
        r.capacity *= factor;
        r.tally.asked *= factor;
        r.tally.consumed *= factor;
        for w in &mut r.windows {
            w.asked *= factor;
            w.delivered *= factor;
        }
        r.score = period_score(&r.tally, r.capacity);
    }
    for s in &mut i.samples {
        s.units *= units as u64;
    }
    i.speed = i.speed.map(|s| SpeedReference { units_per_s: s.units_per_s * units, ..s });
    i
}

fn halved(input: &MinerTaskInput) -> MinerTaskInput {
    let mut i = input.clone();
    i.capacity /= 2;
    i.expected_asked /= 2.0;
    for r in &mut i.rows {
        r.capacity /= 2;
        r.tally.asked /= 2;
        r.tally.consumed /= 2;
        for w in &mut r.windows {
            w.asked /= 2;
            w.delivered /= 2;
        }
        r.score = period_score(&r.tally, r.capacity);
    }
    i
}

/// What a machine that serves `CAN` units per period makes of a history of announcements, newest first: a
/// fixed share of each is asked, most of it in three windows at the announced rate, in which it serves what it
/// can and refuses or fails the rest.
const CAN: u64 = 1_000_000;

fn history(announced: &[u64], limited: bool) -> MinerTaskInput {
    const SHARE: f64 = 0.0655;
    const REQUESTS: u64 = 1_000;
    let rows = announced
        .iter()
        .zip(0..)
        .map(|(c, age)| {
            let served = (CAN as f64 / *c as f64).min(1.0);
            let answered = REQUESTS / 5 + ((REQUESTS * 4 / 5) as f64 * served) as u64;
            let asked = *c as f64 * SHARE;
            let missed = REQUESTS - answered;
            scored(PeriodRow {
                capacity: *c,
                tally: Tally {
                    answered,
                    rate_limited: if limited { missed } else { 0 },
                    failed: if limited { 0 } else { missed },
                    ours: 0,
                    consumed: (asked * answered as f64 / REQUESTS as f64) as u64,
                    asked: asked as u64,
                },
                windows: (0..3)
                    .map(|n| WindowResult {
                        kind: WindowKind::Secret,
                        started_us: NOW_US - age * HOUR_US - n * HOUR_US / 3,
                        rate: 1.0,
                        asked: 10_000,
                        delivered: (10_000.0 * served) as u64,
                    })
                    .collect(),
                ..row(1, "chat", age)
            })
        })
        .collect();
    let now = announced[0];
    MinerTaskInput { expected_asked: now as f64 * SHARE, rows, ..unknown(1, "chat", now) }
}

fn effective_volume(input: MinerTaskInput) -> f64 {
    common::alone(&Policy::default_rules(), input).effective_volume
}

proptest! {
    #![proptest_config(cases(10_000))]

    /// Steady boasts, boasts in the last moment, capacities that go up and down: up to a hundred times what
    /// the machine can do, or a hundredth.
    #[test]
    fn no_history_of_announcements_beats_the_honest_one(
        mut factors in prop::collection::vec(-2.0..2.0_f64, 1..20),
        is_steady in any::<bool>(),
        limited in any::<bool>(),
    ) {
        if is_steady {
            let first = factors[0];
            factors.fill(first);
        }
        let announced: Vec<u64> = factors.iter().map(|f| (CAN as f64 * 10_f64.powf(*f)) as u64).collect();
        let honest = effective_volume(history(&vec![CAN; announced.len()], limited));
        prop_assert!(effective_volume(history(&announced, limited)) <= honest * (1.0 + 1e-4));
    }

    #[test]
    fn the_last_announcement_alone_cannot_boast(periods in 1_usize..40, factor in 1.05..1e4_f64) {
        let mut announced = vec![CAN; periods];
        let honest = effective_volume(history(&announced, false));
        let mut boast = history(&announced, false);
        announced[0] = (CAN as f64 * factor) as u64;
        boast.capacity = announced[0];
        boast.expected_asked *= factor;
        prop_assert!(effective_volume(boast) < honest);
    }

    #[test]
    fn one_more_sustained_period_never_lowers_the_credit(periods in 1_usize..60) {
        let of = |n| common::alone(&Policy::default_rules(), history(&vec![CAN; n], false)).credit.factor;
        prop_assert!(of(periods + 1) >= of(periods));
    }
}

#[test]
fn capacities_do_not_drift_down_over_any_number_of_periods() {
    // Each settlement's capacity is what the next period starts from; head-room is missed every time.
    let (mut capacity, mut credited) = (CAN, 0.0);
    let mut rows: Vec<PeriodRow> = Vec::new();
    for period in 1..=400_u64 {
        let now_us = NOW_US + period * HOUR_US;
        let mut row = history(&[capacity], false).rows.remove(0);
        row.period = PeriodId(period);
        row.ended_us = now_us;
        for w in &mut row.windows {
            w.started_us = now_us - HOUR_US / 2;
        }
        row.windows.push(WindowResult { rate: 1.25, delivered: 0, ..row.windows[0] });
        rows.insert(0, row);
        let input = MinerTaskInput { rows: rows.clone(), ..history(&[capacity], false) };
        let s = settle(&Policy::default_rules(), &tasks(&[("chat", 1.0)]), &[input], At { now_us, ..AT });
        let standing = &s.standings[0];
        capacity = nineteen_mechanism::clamp_capacity(standing.capacity as f64, u64::MAX).unwrap();
        let now = standing.capacity as f64 * standing.credit.factor;
        assert!(now >= credited, "period {period}: {now} after {credited}");
        credited = now;
    }
    assert_eq!(capacity, CAN);
    assert!(credited > 0.97 * CAN as f64);
}
