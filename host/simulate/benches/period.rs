//! What a period costs the validator beside network, disk and checking: planning, booking every probe, settling.
//!
//! 256 miners on 16 tasks under `default`, with a week of rows and samples behind each. Goal: at most one second of
//! one processor's time a period.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench that fails is meant to stop")]

use std::collections::{BTreeMap, VecDeque};

use nineteen_domain::ledger::{
    Judgement, PeriodRow, ProbeClass, QualitySample, Tally, WindowKind, WindowResult,
};
use nineteen_domain::policy::Policy;
use nineteen_domain::task::SpeedReference;
use nineteen_domain::{Hotkey, MasterSeed, PeriodId, ProbeId, TaskName, Uid};
use nineteen_mechanism::{At, MinerTaskInput, settle};
use nineteen_schedule::{
    Effect, Event, FinishedProbe, InTime, MinerRef, Resume, Schedule, ScheduleConfig, TaskSpec,
};

const MINERS: u16 = 256;
const TASKS: u16 = 16;
const PERIOD_US: u64 = 3_600_000_000;
const START_US: u64 = 1_790_000_000_000_000;
/// Periods that are behind a settlement.
const ROWS: u64 = 168;
/// Samples of one (miner, task) behind a settlement: three a period.
const SAMPLES: u64 = 3 * ROWS;

/// Seconds that this thread has been on a processor.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

/// The most memory that this process has had, in MiB.
fn peak_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

fn task(n: u16) -> TaskName {
    TaskName::new(format!("task-{n:02}")).unwrap()
}

fn hotkey(n: u16) -> Hotkey {
    let mut raw = [7; 32];
    raw[..2].copy_from_slice(&n.to_be_bytes());
    Hotkey::from_bytes(raw)
}

fn config(policy: Policy) -> ScheduleConfig {
    ScheduleConfig {
        period_us: PERIOD_US,
        announce_lead_us: 30_000_000,
        settle_grace_us: 120_000_000,
        policy,
        tasks: (0..TASKS)
            .map(|n| TaskSpec {
                name: task(n),
                cap_per_period: 500_000,
                expected_units: 300,
                in_time: Some(InTime { first_us: 4_000_000, unit_us: 100_000.0 }),
            })
            .collect(),
        max_in_flight: 256,
        max_in_flight_per_miner: 16,
        max_checks: 4,
        max_backlog: 4_096,
        netuid: 19,
        block_us: 12_000_000,
    }
}

/// One period from the announcements to its outcome; CPU seconds of planning and of booking, and probes.
fn play(policy: Policy) -> (f64, f64, usize, Vec<PeriodRow>) {
    let miners: Vec<MinerRef> = (0..MINERS).map(|n| MinerRef { uid: Uid(n), hotkey: hotkey(n) }).collect();
    let mut schedule =
        Schedule::new(config(policy), MasterSeed::from_bytes([3; 32]), Resume::default()).unwrap();
    let began = cpu_s();
    let mut effects: VecDeque<Effect> = schedule.step(START_US, Event::Metagraph(miners)).into();
    let (mut planned, mut now, mut probes) = (f64::NAN, START_US, 0);
    let mut ends: VecDeque<(u64, ProbeId, u64)> = VecDeque::new();
    loop {
        while let Some(effect) = effects.pop_front() {
            let event = match effect {
                Effect::Announce { period, miners, .. } => {
                    for m in miners {
                        let said = (0..TASKS).map(|n| (task(n), Ok(60_000.0))).collect::<BTreeMap<_, _>>();
                        let event = Event::Announced { period, miner: m.hotkey, result: Ok(said) };
                        effects.extend(schedule.step(now, event));
                    }
                    continue;
                }
                Effect::StorePlan(plan) => Event::PlanStored { period: plan.period },
                Effect::Dispatch(p) => {
                    probes += 1;
                    ends.push_back((now + 5_000_000, p.id, p.expected_units));
                    continue;
                }
                Effect::Judge(probe) => Event::Judged { probe },
                Effect::Settle(outcome) => return (planned - began, cpu_s() - planned, probes, outcome.rows),
                _ => continue,
            };
            if matches!(event, Event::PlanStored { .. }) && planned.is_nan() {
                planned = cpu_s();
            }
            effects.extend(schedule.step(now, event));
        }
        let wake = schedule.next_wake_us().unwrap_or(u64::MAX);
        if let Some((at, probe, units)) = ends.front().cloned().filter(|(at, ..)| *at <= wake) {
            ends.pop_front();
            now = now.max(at);
            let end = FinishedProbe { probe, class: ProbeClass::Answered, units, took_us: 5_000_000 };
            effects.extend(schedule.step(now, Event::Finished(end)));
        } else {
            now = now.max(wake);
            effects.extend(schedule.step(now, Event::Tick));
        }
    }
}

fn history(n: u16, t: u16) -> MinerTaskInput {
    let (miner, task) = (hotkey(n), task(t));
    let ended = |age: u64| START_US - age * PERIOD_US;
    let window = |started_us| WindowResult {
        kind: WindowKind::Secret,
        started_us,
        rate: 1.0,
        asked: 1_200,
        delivered: 1_200,
    };
    MinerTaskInput {
        miner,
        uid: Uid(n),
        task: task.clone(),
        capacity: 60_000,
        expected_asked: 4_000.0,
        speed: Some(SpeedReference { units_per_s: 50.0, first_unit_ms: Some(200) }),
        honesty: 1.0,
        rows: (0..ROWS)
            .map(|age| PeriodRow {
                period: PeriodId(ROWS - age),
                task: task.clone(),
                miner,
                uid: Uid(n),
                announced: Some(60_000.0),
                capacity: 60_000,
                tally: Tally { answered: 13, consumed: 4_000, asked: 4_000, ..Tally::default() },
                score: Some(0.97),
                windows: vec![window(ended(age)); 3],
                started_us: ended(age + 1),
                ended_us: ended(age),
            })
            .collect(),
        samples: (0..SAMPLES)
            .map(|i| QualitySample {
                probe: ProbeId { period: PeriodId(i / 3), task: task.clone(), miner, slot: 0 },
                judgement: Judgement::Scored,
                quality: 0.99,
                units: 300,
                response_us: 5_000_000 + i * 1_000,
                first_unit_us: Some(180_000 + i),
                at_us: START_US - i * PERIOD_US / 3,
                reasons: Vec::new(),
                period_us: PERIOD_US,
                suspicion: None,
            })
            .collect(),
        other_samples: Vec::new(),
    }
}

fn main() {
    for policy in [Policy::default_rules(), Policy::sn19_2025_01()] {
        let (plan, book, probes, rows) = play(policy.clone());
        let before = peak_mib();
        let inputs: Vec<MinerTaskInput> =
            (0..TASKS).flat_map(|t| (0..MINERS).map(move |n| history(n, t))).collect();
        let held = peak_mib();
        let weights = (0..TASKS).map(|t| (task(t), 1.0 / f64::from(TASKS))).collect();
        let began = cpu_s();
        let settled = settle(&policy, &weights, &inputs, At { now_us: START_US, period_us: PERIOD_US });
        let settling = cpu_s() - began;
        println!(
            "{}: {MINERS} miners × {TASKS} tasks, {} rows, {probes} probes: planning {plan:.3} s, booking {book:.3} s, \
             settling over {ROWS} rows and {SAMPLES} samples each {settling:.3} s; together {:.3} s of CPU (goal 1.0)",
            policy.name,
            rows.len(),
            plan + book + settling
        );
        println!(
            "  memory: {before:.0} MiB at its most while the period ran, {:.0} MiB more for the history, {:.0} MiB more for \
             {} standings",
            held - before,
            peak_mib() - held,
            settled.standings.len()
        );
    }
}
