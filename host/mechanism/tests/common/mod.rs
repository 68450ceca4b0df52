//! Miners, their rows and their samples, as the tests of both kinds of rules need them.
#![allow(dead_code, reason = "every test binary uses a part of these")]

use std::collections::BTreeMap;

use nineteen_domain::ledger::{Judgement, PeriodRow, QualitySample, Tally, WindowKind, WindowResult};
use nineteen_domain::policy::{DefaultScoring, Policy, Scoring};
use nineteen_domain::task::SpeedReference;
use nineteen_domain::{Hotkey, PeriodId, ProbeId, TaskName, Uid};
use nineteen_mechanism::{At, MinerTaskInput, Standing, settle};
use proptest::prelude::*;

pub(crate) const HOUR_US: u64 = 3_600_000_000;
pub(crate) const NOW_US: u64 = 1_790_000_000_000_000;
pub(crate) const AT: At = At { now_us: NOW_US, period_us: HOUR_US };

pub(crate) fn name(s: &str) -> TaskName {
    TaskName::new(s).unwrap()
}

pub(crate) fn key(n: u16) -> Hotkey {
    let mut raw = [0; 32];
    raw[..2].copy_from_slice(&n.to_le_bytes());
    Hotkey::from_bytes(raw)
}

pub(crate) fn tasks(of: &[(&str, f64)]) -> BTreeMap<TaskName, f64> {
    of.iter().map(|(t, w)| (name(t), *w)).collect()
}

pub(crate) fn near(a: f64, b: f64, eps: f64) {
    assert!((a - b).abs() <= eps, "{a} for {b}");
}

/// A perfect period that ended `age` hours ago and asked for nothing yet.
pub(crate) fn row(miner: u16, task: &str, age: u64) -> PeriodRow {
    PeriodRow {
        period: PeriodId(10_000 - age),
        task: name(task),
        miner: key(miner),
        uid: Uid(miner),
        announced: None,
        capacity: 0,
        tally: Tally::default(),
        score: Some(1.0),
        windows: Vec::new(),
        started_us: NOW_US - (age + 1) * HOUR_US,
        ended_us: NOW_US - age * HOUR_US,
    }
}

pub(crate) fn sample(
    miner: u16,
    task: &str,
    slot: u32,
    quality: f64,
    units: u64,
    response_us: u64,
) -> QualitySample {
    QualitySample {
        probe: ProbeId { period: PeriodId(1), task: name(task), miner: key(miner), slot },
        judgement: Judgement::Scored,
        quality,
        units,
        response_us,
        first_unit_us: None,
        at_us: NOW_US - u64::from(slot) * 1_000_000,
        reasons: Vec::new(),
        period_us: HOUR_US,
        suspicion: None,
    }
}

/// A window of 1000 units at the announced rate, now.
pub(crate) fn window(delivered: u64) -> WindowResult {
    WindowResult { kind: WindowKind::Secret, started_us: NOW_US, rate: 1.0, asked: 1_000, delivered }
}

/// A miner of which nothing is known.
pub(crate) fn unknown(miner: u16, task: &str, capacity: u64) -> MinerTaskInput {
    MinerTaskInput {
        miner: key(miner),
        uid: Uid(miner),
        task: name(task),
        capacity,
        expected_asked: 100.0,
        speed: None,
        honesty: 1.0,
        rows: Vec::new(),
        samples: Vec::new(),
        other_samples: Vec::new(),
    }
}

pub(crate) fn default_rules(policy: &mut Policy) -> &mut DefaultScoring {
    let Scoring::Default(rules) = &mut policy.scoring else { unreachable!("a default policy") };
    rules
}

/// One miner alone under a policy.
pub(crate) fn alone(policy: &Policy, input: MinerTaskInput) -> Standing {
    let weights = BTreeMap::from([(input.task.clone(), 1.0)]);
    settle(policy, &weights, &[input], AT).standings.remove(0)
}

pub(crate) fn hostile() -> impl Strategy<Value = f64> {
    prop_oneof![
        0.0..=1.0,
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-1.0),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
    ]
}

pub(crate) fn count() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..100_000, Just(0), Just(u64::MAX), any::<u64>()]
}

/// Anything that the types allow, of six miners and three tasks.
fn any_input() -> impl Strategy<Value = MinerTaskInput> {
    let windows = prop::collection::vec((hostile(), count(), count(), 0_u64..200), 0..3);
    let a_row = ([count(), count(), count()], prop::option::of(hostile()), 0_u64..100, windows);
    let one = || (hostile(), count(), count(), prop::option::of(count()), 0_u64..200, 0_u8..4);
    let reference = (hostile(), prop::option::of(count()))
        .prop_map(|(units_per_s, first_unit_ms)| SpeedReference { units_per_s, first_unit_ms });
    (
        (0_u16..6, 0_usize..3, count(), hostile(), hostile(), prop::option::of(reference)),
        prop::collection::vec(a_row, 0..8),
        prop::collection::vec(one(), 0..8),
        prop::collection::vec(one(), 0..8),
    )
        .prop_map(|((miner, task, capacity, expected_asked, honesty, speed), rows, own, others)| {
            let task = ["chat", "embed", "image"][task];
            let make = |of: Vec<(f64, u64, u64, Option<u64>, u64, u8)>| -> Vec<QualitySample> {
                of.into_iter()
                    .zip(0..)
                    .map(|((q, units, response_us, first_unit_us, hours, kind), slot)| QualitySample {
                        first_unit_us,
                        at_us: NOW_US - hours * HOUR_US,
                        judgement: match kind {
                            0 => Judgement::Violation("v".into()),
                            1 => Judgement::Inconclusive("i".into()),
                            _ => Judgement::Scored,
                        },
                        ..sample(miner, task, slot, q, units, response_us)
                    })
                    .collect()
            };
            MinerTaskInput {
                expected_asked,
                honesty,
                speed,
                rows: rows
                    .into_iter()
                    .zip(0..)
                    .map(|(([consumed, asked, capacity], score, hours, windows), n)| PeriodRow {
                        period: PeriodId(n),
                        capacity,
                        tally: Tally { consumed, asked, ..Tally::default() },
                        score,
                        windows: windows
                            .into_iter()
                            .map(|(rate, asked, delivered, hours)| WindowResult {
                                kind: WindowKind::Beacon,
                                started_us: NOW_US - hours * HOUR_US,
                                rate,
                                asked,
                                delivered,
                            })
                            .collect(),
                        ..row(miner, task, hours)
                    })
                    .collect(),
                samples: make(own),
                other_samples: make(others),
                ..unknown(miner, task, capacity)
            }
        })
}

/// Up to `most` of these, one for each miner and task.
pub(crate) fn any_inputs(most: usize) -> impl Strategy<Value = Vec<MinerTaskInput>> {
    prop::collection::vec(any_input(), 0..most).prop_map(|mut all| {
        all.sort_by(|a, b| (&a.task, a.miner).cmp(&(&b.task, b.miner)));
        all.dedup_by(|a, b| (&a.task, a.miner) == (&b.task, b.miner));
        all
    })
}
