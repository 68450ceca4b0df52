//! The published numbers of `default` (MECHANISM), each as it stands in a settlement.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside functions marked as such"
)]

mod common;

use common::{AT, HOUR_US, NOW_US, alone, default_rules, near, row, sample, tasks, unknown, window};
use nineteen_domain::Uid;
use nineteen_domain::ledger::{Judgement, PeriodRow, QualitySample, Tally, WindowResult};
use nineteen_domain::policy::Policy;
use nineteen_domain::task::SpeedReference;
use nineteen_mechanism::{At, MinerTaskInput, Settlement, Standing, settle};

fn only(input: MinerTaskInput) -> Standing {
    alone(&Policy::default_rules(), input)
}

/// A period of this age: what it asked, and its score.
fn asked(age: u64, asked: u64, score: f64) -> PeriodRow {
    PeriodRow { tally: Tally { asked, ..Tally::default() }, score: Some(score), ..row(1, "chat", age) }
}

fn with_rows(expected_asked: f64, rows: Vec<PeriodRow>) -> Standing {
    only(MinerTaskInput { expected_asked, rows, ..unknown(1, "chat", 100) })
}

fn p(expected_asked: f64, rows: Vec<PeriodRow>) -> f64 {
    with_rows(expected_asked, rows).reliability.normalised_period_score
}

/// Samples of these qualities, all of the same age in hours.
fn samples(age: u64, qualities: &[f64]) -> Vec<QualitySample> {
    (0..)
        .zip(qualities)
        .map(|(slot, q)| QualitySample {
            at_us: NOW_US - age * HOUR_US,
            ..sample(1, "chat", slot, *q, 100, 1_000_000)
        })
        .collect()
}

fn with_samples(samples: Vec<QualitySample>) -> Standing {
    only(MinerTaskInput { samples, ..unknown(1, "chat", 100) })
}

fn q(age: u64, qualities: &[f64]) -> f64 {
    with_samples(samples(age, qualities)).quality.quality
}

/// A row with windows that ran at `capacity`.
fn windows(capacity: u64, windows: Vec<WindowResult>) -> PeriodRow {
    PeriodRow { capacity, windows, ..row(1, "chat", 0) }
}

fn with_windows(capacity: u64, rows: Vec<PeriodRow>) -> Standing {
    only(MinerTaskInput { rows, ..unknown(1, "chat", capacity) })
}

fn l(tried: usize, sustained: usize) -> f64 {
    let of = (0..tried).map(|n| window(if n < sustained { 1_000 } else { 0 })).collect();
    with_windows(100, vec![windows(100, of)]).credit.quantile
}

#[test]
fn the_published_reliabilities_hold() {
    near(p(100.0, vec![asked(0, 100, 1.0), asked(1, 100, 0.5), asked(2, 100, 0.0)]), 0.400351, 1e-6);
    near(p(4_000.0, vec![asked(0, 4_000, 0.9)]), 0.45, 1e-12);
    near(p(100.0, (0..24).map(|age| asked(age, 100, 1.0)).collect()), 0.860860, 1e-6);
    near(p(100.0, (48..72).map(|age| asked(age, 100, 1.0)).collect()), 0.001508, 1e-6);
    let every_other = |age| asked(age, 100, if age % 2 == 0 { 0.0 } else { 1.0 });
    near(p(100.0, (0..24).map(every_other).collect()), 0.393229, 1e-6);
}

#[test]
fn a_period_in_which_everything_failed_weighs_as_much_as_a_good_one() {
    let s = with_rows(100.0, vec![asked(0, 100, 1.0), asked(0, 100, 0.0)]);
    assert_eq!((s.reliability.mean, s.reliability.asked), (0.5, 200.0));
}

#[test]
fn a_period_without_a_score_or_beyond_the_horizon_does_not_count() {
    let mut nothing_asked = asked(0, 0, 0.0);
    nothing_asked.score = None;
    let s = with_rows(100.0, vec![asked(0, 100, 1.0), nothing_asked, asked(169, 100, 0.0)]);
    assert_eq!((s.reliability.rows_used, s.reliability.normalised_period_score), (1, 0.5));
}

#[test]
fn the_running_period_counts_with_what_it_has() {
    let mut running = asked(0, 100, 1.0);
    running.ended_us = NOW_US + HOUR_US / 2;
    let s = with_rows(100.0, vec![running]);
    assert_eq!((s.reliability.rows[0].age, s.reliability.normalised_period_score), (0.0, 0.5));
}

#[test]
fn what_is_no_expectation_counts_as_one_unit() {
    for senseless in [f64::NAN, f64::INFINITY, 0.0, -5.0] {
        assert_eq!(p(senseless, vec![asked(0, 3, 1.0)]), 0.75);
    }
}

#[test]
fn the_published_qualities_hold() {
    near(q(0, &[]), 0.125, 1e-12);
    near(q(0, &[1.0; 5]), 0.421875, 1e-12);
    near(q(0, &[1.0; 50]), 0.869741, 1e-6);
    let mut mixed = [1.0; 50];
    mixed[45..].fill(0.0);
    near(q(0, &mixed), 0.644159, 1e-6);
    near(q(24, &[1.0; 50]), 0.770255, 1e-6);
}

#[test]
fn samples_of_other_tasks_and_inconclusive_ones_have_no_part_in_quality() {
    let mut input = MinerTaskInput { samples: samples(0, &[1.0; 5]), ..unknown(1, "chat", 100) };
    let mut ours = samples(0, &[0.0]);
    ours[0].judgement = Judgement::Inconclusive("checker.down".into());
    input.samples.extend(ours);
    input.samples.extend(samples(169, &[0.0; 5]));
    input.other_samples = samples(0, &[0.0; 45]);
    let quality = only(input).quality;
    assert_eq!((quality.own_samples, quality.borrowed_samples, quality.weight), (5, 0, 5.0));
    assert_eq!((quality.quality, quality.plain_mean, quality.squared), (0.421875, 1.0, false));
}

#[test]
fn a_violation_is_worth_nothing_and_served_nothing() {
    let mut of = samples(0, &[1.0; 2]);
    of[1].judgement = Judgement::Violation("text.after-eos".into());
    let s = with_samples(of);
    assert_eq!((s.quality.mean, s.quality.worst.len()), (0.5, 1));
    assert_eq!(s.speed.metric, Some(0.0));
}

fn reference(units_per_s: f64, first_unit_ms: Option<u64>) -> Option<SpeedReference> {
    Some(SpeedReference { units_per_s, first_unit_ms })
}

#[test]
fn the_published_factors_of_speed_hold() {
    for (r, expected) in [
        (0.0_f64, 0.0),
        (0.25, 0.666667),
        (0.5, 0.828427),
        (1.0, 1.0),
        (1.001, 1.00025),
        (2.0, 1.171573),
        (4.0, 1.333333),
    ] {
        let mut one = sample(1, "chat", 0, 1.0, (r * 1_000.0).round() as u64, 1_000_000);
        let fast = |samples, speed| only(MinerTaskInput { samples, speed, ..unknown(1, "chat", 9) }).speed;
        let speed = fast(vec![one.clone()], reference(1_000.0, None));
        assert_eq!((speed.ratio, speed.first_unit_ratio), (Some(r), None));
        near(speed.factor, f64::powf(expected, 2.0 / 3.0), 1e-6);
        // The time to the first unit alone: units as the reference's.
        if r > 0.0 {
            one.units = 1_000;
            one.first_unit_us = Some((1e6 / r) as u64);
            let speed = fast(vec![one], reference(1_000.0, Some(1_000)));
            near(speed.first_unit_ratio.unwrap(), r, 1e-5);
            near(speed.factor, f64::powf(expected, 1.0 / 3.0), 1e-5);
        }
    }
}

#[test]
fn speed_is_the_thirtieth_percentile_and_the_median() {
    let of: Vec<_> = (0..10)
        .map(|n| QualitySample {
            first_unit_us: (n < 4).then_some(u64::from(n) * 1_000),
            ..sample(1, "chat", n, 1.0, u64::from(n), 1_000_000)
        })
        .collect();
    let speed = with_samples(of).speed;
    assert_eq!((speed.metric, speed.first_unit_us), (Some(3.0), Some(1_500.0)));
    assert_eq!((speed.rank, speed.ranked), (None, 0));
}

#[test]
fn without_a_reference_everybodys_speed_is_one() {
    for speed in [None, reference(0.0, None), reference(f64::NAN, None), reference(1.0, Some(0))] {
        let parts = only(MinerTaskInput { speed, ..unknown(1, "chat", 1) }).speed;
        assert_eq!((parts.factor, parts.ratio), (1.0, None));
    }
}

#[test]
fn a_miner_without_a_sample_has_the_speed_of_the_unknown() {
    let parts = only(MinerTaskInput { speed: reference(50.0, Some(200)), ..unknown(1, "chat", 1) }).speed;
    assert_eq!((parts.metric, parts.ratio, parts.first_unit_ratio), (None, Some(0.25), None));
    near(parts.factor, f64::powf(2.0 / 3.0, 2.0 / 3.0), 1e-12);
}

#[test]
fn the_published_credits_hold() {
    for (tried, sustained, expected) in [
        (0, 0, 0.1),
        (1, 1, 0.316228),
        (1, 0, 0.051317),
        (5, 5, 0.681292),
        (20, 20, 0.896151),
        (20, 15, 0.602673),
        (100, 100, 0.977460),
    ] {
        near(l(tried, sustained), expected, 1e-6);
    }
    // 7.5 tried and 6.25 sustained: five sustained and one missed now, three sustained a day ago, one of them
    // when half as much was announced.
    let old = WindowResult { started_us: NOW_US - 24 * HOUR_US, ..window(1_000) };
    let mut of = vec![window(1_000); 5];
    of.extend([window(0), old, old]);
    let s = with_windows(120, vec![windows(120, of), windows(60, vec![old])]);
    assert_eq!((s.credit.tried, s.credit.sustained), (7.5, 6.25));
    near(s.credit.factor, 0.580380, 1e-6);
}

#[test]
fn a_window_at_less_than_is_announced_now_proves_only_that_much() {
    let small = || windows(10, vec![window(1_000); 20]);
    near(with_windows(10, vec![small()]).credit.factor, 0.896151, 1e-6);
    let now_more = with_windows(100, vec![small()]).credit;
    assert_eq!(now_more.tried, 20.0);
    near(now_more.sustained, 2.0, 1e-12);
    near(now_more.windows[0].sustained, 0.1, 1e-12);
}

#[test]
fn announcing_what_one_can_serve_gets_the_credit_back() {
    let half = || windows(200, vec![window(500); 20]);
    let boasting = with_windows(200, vec![half()]);
    let honest = with_windows(100, vec![half()]);
    near(honest.credit.factor, 0.896151, 1e-6);
    // Twice as much, and less than half of what the truth is credited with.
    assert!(2.0 * boasting.credit.factor < 0.5 * honest.credit.factor, "{}", boasting.credit.factor);
}

#[test]
fn head_room_can_only_teach() {
    let faster = |delivered| WindowResult { rate: 1.25, ..window(delivered) };
    let of = |extra| with_windows(100, vec![windows(100, vec![window(1_000), extra])]).credit;
    let missed = of(faster(500));
    assert_eq!((missed.tried, missed.sustained, missed.windows.len()), (1.0, 1.0, 2));
    assert!(missed.windows.iter().any(|w| w.capacity == 125.0 && w.weight == 0.0));
    let sustained = of(faster(950));
    assert_eq!((sustained.tried, sustained.sustained), (2.0, 2.0));
    // Sustained when little was announced: failing it must not have paid more.
    let less = with_windows(100, vec![windows(100, vec![window(1_000)]), windows(10, vec![faster(1_000)])]);
    assert_eq!((less.credit.tried, less.credit.sustained), (1.0, 1.0));
}

#[test]
fn a_window_that_asked_nothing_or_is_too_old_was_none() {
    let empty = WindowResult { asked: 0, delivered: 0, ..window(0) };
    let old = WindowResult { started_us: NOW_US - 169 * HOUR_US, ..window(0) };
    let no_rate = WindowResult { rate: f64::NAN, ..window(0) };
    let credit = with_windows(100, vec![windows(100, vec![empty, old, no_rate])]).credit;
    assert_eq!((credit.tried, credit.windows.len()), (0.0, 0));
    near(credit.factor, 0.1, 1e-12);
}

/// A miner of the example.
struct Example {
    capacity: u64,
    of_fifty: (usize, f64),
    units_per_s: u64,
    first_unit_us: u64,
    asked: u64,
    score: f64,
    sustained: usize,
    honesty: f64,
}

impl Example {
    fn input(&self, miner: u16) -> MinerTaskInput {
        let (worse, quality) = self.of_fifty;
        let samples = (0..50)
            .map(|slot| QualitySample {
                first_unit_us: Some(self.first_unit_us),
                at_us: NOW_US,
                ..sample(
                    miner,
                    "chat",
                    slot,
                    if (slot as usize) < worse { quality } else { 1.0 },
                    self.units_per_s,
                    1_000_000,
                )
            })
            .collect();
        let rows = (0..24)
            .map(|age| PeriodRow {
                capacity: self.capacity,
                tally: Tally { asked: self.asked, ..Tally::default() },
                score: Some(self.score),
                windows: (0..2)
                    .map(|w| 2 * age as usize + w)
                    .map(|n| window(if n < self.sustained { 1_000 } else { 0 }))
                    .collect(),
                ..row(miner, "chat", age)
            })
            .collect();
        MinerTaskInput {
            expected_asked: self.asked as f64,
            speed: reference(50.0, Some(200)),
            honesty: self.honesty,
            rows,
            samples,
            ..unknown(miner, "chat", self.capacity)
        }
    }
}

fn example() -> Settlement {
    let a = Example {
        capacity: 60_000,
        of_fifty: (0, 0.0),
        units_per_s: 60,
        first_unit_us: 200_000,
        asked: 4_000,
        score: 0.95,
        sustained: 48,
        honesty: 1.0,
    };
    let b = Example { of_fifty: (5, 0.5), units_per_s: 70, score: 0.90, sustained: 44, ..a };
    let c = Example {
        capacity: 30_000,
        of_fifty: (10, 0.0),
        units_per_s: 40,
        first_unit_us: 400_000,
        asked: 2_000,
        score: 1.0,
        honesty: 0.5,
        ..a
    };
    let inputs = [a.input(1), b.input(2), c.input(3)];
    settle(&Policy::default_rules(), &tasks(&[("chat", 1.0)]), &inputs, AT)
}

#[test]
fn the_worked_example_holds() {
    let s = example();
    let expected = [(41_945.492, 0.536606), (31_084.110, 0.397657), (5_138.589, 0.065738)];
    for (standing, (volume, share)) in s.standings.iter().zip(expected) {
        near(standing.effective_volume, volume, 1e-3);
        near(standing.share, share, 1e-6);
        near(standing.volume_share, share, 1e-6);
    }
    assert_eq!(s.u16s, [(Uid(1), 65_535), (Uid(2), 48_565), (Uid(3), 8_028)]);
}

#[test]
fn effective_volume_is_the_product_of_what_is_shown() {
    for s in example().standings {
        let product = s.quality.quality
            * s.honesty
            * s.speed.factor
            * s.reliability.normalised_period_score
            * s.capacity as f64
            * s.credit.factor;
        near(s.effective_volume, product, 1e-9);
    }
}

#[test]
fn the_chain_of_numbers_survives_being_written_down() {
    let s = example();
    let mut bytes = Vec::new();
    ciborium::into_writer(&s, &mut bytes).unwrap();
    assert_eq!(ciborium::from_reader::<Settlement, _>(bytes.as_slice()).unwrap(), s);
}

#[test]
fn when_nobody_earned_anything_nothing_is_set() {
    let s = settle(&Policy::default_rules(), &tasks(&[("chat", 1.0)]), &[unknown(1, "chat", 100)], AT);
    assert!(s.u16s.is_empty() && s.weights.iter().all(|w| w.weight == 0.0));
}

#[test]
fn a_prior_of_no_weight_says_what_it_says_only_where_nothing_is_known() {
    let mut policy = Policy::default_rules();
    default_rules(&mut policy).prior_samples = 0.0;
    let q = |samples| alone(&policy, MinerTaskInput { samples, ..unknown(1, "chat", 1) }).quality.mean;
    assert_eq!([q(Vec::new()), q(samples(0, &[1.0]))], [0.5, 1.0]);
}

#[test]
fn a_period_without_length_divides_nothing() {
    let at = At { period_us: 0, ..AT };
    let input = MinerTaskInput { rows: vec![asked(0, 100, 1.0)], ..unknown(1, "chat", 100) };
    let s = settle(&Policy::default_rules(), &tasks(&[("chat", 1.0)]), &[input], at);
    assert_eq!(s.standings[0].reliability.normalised_period_score, 0.5);
}
