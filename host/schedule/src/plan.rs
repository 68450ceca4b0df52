//! Making the plan of a period: how much of whose capacity is tested, and when each probe leaves.
//!
//! Pure: the same settings, announcements and seed give the same plan. Every miner's share and offset are
//! drawn from a seed of its own, so that knowing one tells nothing of another.

use std::collections::{BTreeMap, BTreeSet};

use nineteen_domain::policy::{Layout, Planning};
use nineteen_domain::seed::Draws;
use nineteen_domain::{Hotkey, MasterSeed, PeriodId};
use nineteen_mechanism::clamp_capacity;

use crate::error::ScheduleError;
use crate::types::{
    Announcement, MinerRef, NOT_ANNOUNCED, PeriodPlan, PlanEntry, SILENT, ScheduleConfig, TaskSpec,
};

/// The most probes of one miner, task and period, however large its capacity and small its probes.
pub const MAX_PROBES_PER_ENTRY: u32 = 10_000;

/// Whether these settings make a schedule.
pub(crate) fn check(config: &ScheduleConfig) -> Result<(), ScheduleError> {
    let setting = |setting, given, rule| Err(ScheduleError::Setting { setting, given, rule });
    if config.period_us == 0 {
        return setting("period_us", 0, "a period has to last");
    }
    if config.announce_lead_us == 0 || config.announce_lead_us >= config.period_us {
        return setting("announce_lead_us", config.announce_lead_us, "above 0 and below the period");
    }
    if config.max_in_flight == 0 {
        return setting("max_in_flight", 0, "at least 1");
    }
    if config.max_in_flight_per_miner == 0 {
        return setting("max_in_flight_per_miner", 0, "at least 1");
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = config.tasks.iter().find(|t| !seen.insert(&t.name)) {
        return Err(ScheduleError::DuplicateTask(twice.name.clone()));
    }
    let planning = &config.policy.planning;
    let refuse = |rule| Err(ScheduleError::Policy { policy: config.policy.name.clone(), rule });
    if !planning.shares.iter().all(|o| o.share > 0.0 && o.share <= 1.0 && o.probability >= 0.0) {
        return refuse("every share has to be above 0 and at most 1, every probability at least 0");
    }
    let sum: f64 = planning.shares.iter().map(|o| o.probability).sum();
    let sums_to_one = (sum - 1.0).abs() <= 1e-9;
    if !sums_to_one {
        return refuse("the probabilities of its shares have to sum to 1");
    }
    if !(planning.share_multiplier > 0.0 && planning.share_multiplier.is_finite()) {
        return refuse("its share multiplier has to be a finite number above 0");
    }
    Ok(())
}

/// The plan of the period that starts at `started_us`, for these miners with what they announced.
pub(crate) fn make(
    config: &ScheduleConfig,
    seed: &MasterSeed,
    period: PeriodId,
    started_us: u64,
    miners: &[MinerRef],
    announced: &BTreeMap<Hotkey, Announcement>,
) -> PeriodPlan {
    let silent = Err(SILENT.to_owned());
    let mut entries: Vec<PlanEntry> = config
        .tasks
        .iter()
        .flat_map(|task| miners.iter().map(move |miner| (task, miner)))
        .map(|(task, miner)| {
            let given = match announced.get(&miner.hotkey).unwrap_or(&silent) {
                Ok(all) => all.get(&task.name).cloned().unwrap_or_else(|| Err(NOT_ANNOUNCED.to_owned())),
                Err(fault) => Err(fault.clone()),
            };
            entry(config, seed, period, started_us, task, *miner, given)
        })
        .collect();
    entries.sort_by(|a, b| (&a.task, a.miner).cmp(&(&b.task, b.miner)));
    PeriodPlan {
        period,
        started_us,
        ended_us: started_us.saturating_add(config.period_us),
        policy: config.policy.name.clone(),
        entries,
    }
}

fn entry(
    config: &ScheduleConfig,
    seed: &MasterSeed,
    period: PeriodId,
    started_us: u64,
    task: &TaskSpec,
    miner: MinerRef,
    given: Result<f64, String>,
) -> PlanEntry {
    let clamped = given.and_then(|announced| {
        clamp_capacity(announced, task.cap_per_period)
            .map(|capacity| (announced, capacity))
            .map_err(|fault| fault.code().to_owned())
    });
    let mut entry = PlanEntry {
        task: task.name.clone(),
        miner: miner.hotkey,
        uid: miner.uid,
        announced: None,
        fault: None,
        capacity: 0,
        share: 0.0,
        expected_units: task.expected_units.max(1),
        due_us: Vec::new(),
    };
    match clamped {
        Ok((announced, capacity)) => {
            entry.announced = Some(announced);
            entry.capacity = capacity;
        }
        Err(fault) => entry.fault = Some(fault),
    }
    if entry.capacity > 0 {
        let about = format!("{:020}/{}/{}", period.0, task.name, miner.hotkey);
        let mut draws = Draws::new(&seed.derive("plan", &about));
        let planning = &config.policy.planning;
        entry.share = share(planning, draws.unit());
        let probes = probes(entry.capacity, entry.share, entry.expected_units);
        entry.due_us = match planning.layout {
            Layout::Even => evenly(started_us, config.period_us, probes, draws.unit()),
        };
    }
    entry
}

/// The share at this point of the distribution, times the multiplier; never more than was announced.
fn share(planning: &Planning, at: f64) -> f64 {
    let mut reached = 0.0;
    let drawn = planning.shares.iter().find(|odds| {
        reached += odds.probability;
        at < reached
    });
    // Probabilities sum to 1 up to rounding: what is past the last is the last.
    let share = drawn.or(planning.shares.last()).map_or(0.0, |odds| odds.share);
    (share * planning.share_multiplier).clamp(0.0, 1.0)
}

/// `max(1, round(capacity · share / expected))`, at most [`MAX_PROBES_PER_ENTRY`].
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of probes, clamped to its range before the cast"
)]
fn probes(capacity: u64, share: f64, expected_units: u64) -> u32 {
    let wanted = capacity as f64 * share / expected_units as f64;
    wanted.round().clamp(1.0, f64::from(MAX_PROBES_PER_ENTRY)) as u32
}

/// `start + (i + offset)·period/n`: ascending, all within the period.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a period in whole microseconds, bounded by the period"
)]
fn evenly(started_us: u64, period_us: u64, n: u32, offset: f64) -> Vec<u64> {
    (0..n)
        .map(|i| {
            let into = (f64::from(i) + offset) / f64::from(n) * period_us as f64;
            started_us.saturating_add((into as u64).min(period_us.saturating_sub(1)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use nineteen_domain::policy::Policy;
    use nineteen_domain::{TaskName, Uid};
    use proptest::prelude::*;

    use super::*;

    fn config() -> ScheduleConfig {
        ScheduleConfig {
            period_us: 3_600_000_000,
            announce_lead_us: 10_000_000,
            settle_grace_us: 60_000_000,
            policy: Policy::sn19_2025_01(),
            tasks: vec![TaskSpec {
                name: TaskName::new("chat").unwrap(),
                cap_per_period: 60_000,
                expected_units: 300,
            }],
            max_in_flight: 64,
            max_in_flight_per_miner: 4,
        }
    }

    fn miner(n: u8) -> MinerRef {
        MinerRef { uid: Uid(n.into()), hotkey: Hotkey::from_bytes([n; 32]) }
    }

    fn planned(period: u64, announced: f64) -> PlanEntry {
        let all = BTreeMap::from([(
            miner(1).hotkey,
            Ok(BTreeMap::from([(TaskName::new("chat").unwrap(), Ok(announced))])),
        )]);
        let seed = MasterSeed::from_bytes([5; 32]);
        make(&config(), &seed, PeriodId(period), 0, &[miner(1)], &all).entries.remove(0)
    }

    #[test]
    fn shares_are_drawn_as_often_as_the_policy_says() {
        let n = 4_000;
        let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
        for period in 0..n {
            *seen.entry((planned(period, 60_000.0).share * 100.0).round() as u64).or_default() += 1;
        }
        for (share, p) in [(4, 0.5), (8, 0.4), (12, 0.095), (80, 0.005)] {
            let got = f64::from(seen.remove(&share).unwrap_or(0)) / n as f64;
            assert!((got - p).abs() < 4.0 * (p * (1.0 - p) / n as f64).sqrt(), "{share}: {got}");
        }
        assert!(seen.is_empty());
    }

    #[test]
    fn probes_are_in_proportion_to_what_the_miner_itself_announced() {
        for period in 0..50 {
            let (full, half) = (planned(period, 60_000.0), planned(period, 30_000.0));
            assert_eq!(full.share, half.share);
            assert_eq!(full.due_us.len() as f64, (60_000.0 * full.share / 300.0).round());
            assert_eq!(half.due_us.len() as f64, (30_000.0 * full.share / 300.0).round());
        }
    }

    #[test]
    fn whoever_announced_anything_gets_a_probe_and_whoever_announced_nothing_gets_none() {
        assert_eq!(planned(0, 1.0).due_us.len(), 1);
        assert!(planned(0, 0.0).due_us.is_empty());
        assert_eq!(planned(0, 0.0).fault, None);
    }

    #[test]
    fn a_hostile_number_is_a_fault_of_that_entry() {
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            let e = planned(0, bad);
            assert_eq!((e.announced, e.capacity, e.due_us.len()), (None, 0, 0));
            assert!(e.fault.unwrap().starts_with("mechanism.capacity."));
        }
        assert_eq!(planned(0, 1e300).capacity, 60_000);
    }

    #[test]
    fn no_multiplier_makes_us_ask_for_more_than_was_announced() {
        let mut c = config();
        c.policy.planning.share_multiplier = 1e9;
        assert_eq!(share(&c.policy.planning, 0.0), 1.0);
    }

    #[test]
    fn settings_that_make_no_schedule_are_refused_by_name() {
        type Spoil = fn(&mut ScheduleConfig);
        let cases: [(Spoil, &str); 8] = [
            (|c| c.period_us = 0, "period_us"),
            (|c| c.announce_lead_us = c.period_us, "announce_lead_us"),
            (|c| c.max_in_flight = 0, "max_in_flight"),
            (|c| c.max_in_flight_per_miner = 0, "max_in_flight_per_miner"),
            (|c| c.tasks.push(c.tasks[0].clone()), "listed twice"),
            (|c| c.policy.planning.shares.clear(), "sum to 1"),
            (|c| c.policy.planning.shares[0].probability = f64::NAN, "probability"),
            (|c| c.policy.planning.share_multiplier = f64::INFINITY, "multiplier"),
        ];
        assert_eq!(check(&config()), Ok(()));
        for (spoil, word) in cases {
            let mut c = config();
            spoil(&mut c);
            let e = check(&c).unwrap_err();
            assert!(e.to_string().contains(word), "{e} should name {word}");
            assert!(e.code().starts_with("schedule."));
        }
    }

    proptest! {
        #[test]
        fn probes_are_evenly_spread_within_the_period(
            start in 0_u64..1 << 60, period in 1_000_000_u64..1 << 42, n in 1..=MAX_PROBES_PER_ENTRY, offset in 0.0..1.0,
        ) {
            let due = evenly(start, period, n, offset);
            prop_assert_eq!(due.len(), n as usize);
            prop_assert!(due.iter().all(|d| (start..start + period).contains(d)));
            let step = period as f64 / f64::from(n);
            for pair in due.windows(2) {
                prop_assert!(((pair[1] - pair[0]) as f64 - step).abs() <= 2.0);
            }
        }

        #[test]
        fn a_number_of_probes_is_in_range_for_every_capacity(c in 1_u64.., share in 0.0..=1.0, e in 1_u64..) {
            prop_assert!((1..=MAX_PROBES_PER_ENTRY).contains(&probes(c, share, e)));
        }
    }
}
