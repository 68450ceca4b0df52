//! Making the plan of a period: how much of whose capacity is tested, and when each probe leaves.
//!
//! Pure: the same settings, announcements and seed give the same plan. Every miner's share and offset are
//! drawn from a seed of its own, so that knowing one tells nothing of another.

use std::collections::{BTreeMap, BTreeSet};

use nineteen_domain::ledger::{PeriodRow, WindowResult};
use nineteen_domain::policy::{Layout, Planning, Windows};
use nineteen_domain::seed::Draws;
use nineteen_domain::{Hotkey, MasterSeed, PeriodId, TaskName};
use nineteen_mechanism::clamp_capacity;

use crate::error::ScheduleError;
use crate::types::{
    Announcement, BeaconShare, MinerRef, NOT_ANNOUNCED, PeriodPlan, PlanEntry, PlannedWindow, SILENT,
    ScheduleConfig, TaskSpec,
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
    if config.max_checks == 0 {
        return setting("max_checks", 0, "at least 1");
    }
    if config.max_backlog == 0 {
        return setting("max_backlog", 0, "at least 1");
    }
    if config.block_us == 0 {
        return setting("block_us", 0, "a block has to last");
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
    match planning.layout {
        Layout::Windows(w) => {
            if w.secret == 0 || w.secret > 100 || w.least_probes == 0 {
                return refuse("secret windows and probes of a window are at least 1, windows at most 100");
            }
            if !(0.0..=10.0).contains(&w.beacons_per_period) || !(0.0..1.0).contains(&w.outside) {
                return refuse("beacons_per_period has to be in [0, 10], outside in [0, 1)");
            }
            if !(1.0..=10.0).contains(&w.head_room) || !(1.0..=1_000.0).contains(&w.patience) {
                return refuse("head_room has to be in [1, 10], patience in [1, 1000]");
            }
        }
        Layout::Burst(b) if b.size == 0 => return refuse("a burst has at least 1 probe"),
        Layout::Burst(_) | Layout::Even => {}
    }
    if !(planning.share_multiplier > 0.0 && planning.share_multiplier.is_finite()) {
        return refuse("its share multiplier has to be a finite number above 0");
    }
    Ok(())
}

/// The plan of the period that starts at `started_us`, for these miners with what they announced. `streak` says
/// for how many periods in a row a miner sustained every window of a task.
pub(crate) fn make(
    config: &ScheduleConfig,
    seed: &MasterSeed,
    period: PeriodId,
    started_us: u64,
    miners: &[MinerRef],
    announced: &BTreeMap<Hotkey, Announcement>,
    streak: impl Fn(&TaskName, &Hotkey) -> u32,
) -> PeriodPlan {
    let silent = Err(SILENT.to_owned());
    let mut entries = Vec::with_capacity(config.tasks.len().saturating_mul(miners.len()));
    for task in &config.tasks {
        let mut of_task: Vec<PlanEntry> = miners
            .iter()
            .map(|miner| {
                let given = match announced.get(&miner.hotkey).unwrap_or(&silent) {
                    Ok(all) => all.get(&task.name).cloned().unwrap_or_else(|| Err(NOT_ANNOUNCED.to_owned())),
                    Err(fault) => Err(fault.clone()),
                };
                entry(task, *miner, given)
            })
            .collect();
        let span = Span { period, started_us, period_us: config.period_us };
        lay(&config.policy.planning, seed, span, task, &mut of_task, &streak);
        entries.append(&mut of_task);
    }
    entries.sort_by(|a, b| (&a.task, a.miner).cmp(&(&b.task, b.miner)));
    PeriodPlan {
        period,
        started_us,
        ended_us: started_us.saturating_add(config.period_us),
        policy: config.policy.name.clone(),
        choice: Some(seed.choice(period).commitment()),
        entries,
    }
}

/// Units that a period is expected to ask of a miner with this capacity: `A₀` of the `default` rules.
#[must_use]
pub fn expected_asked(planning: &Planning, capacity: u64, expected_units: u64) -> f64 {
    let expected_units = expected_units.max(1);
    let mean = planning.mean_share();
    let probes = match planning.layout {
        Layout::Even | Layout::Burst(_) => f64::from(probes(capacity, mean, expected_units)),
        Layout::Windows(w) => {
            let n = Numbers::of(&w, capacity, expected_units, mean, mean);
            f64::from(n.windows * n.per_window + n.outside) + w.beacons_per_period * f64::from(n.per_beacon)
        }
    };
    probes * float(expected_units)
}

/// An entry without probes.
fn entry(task: &TaskSpec, miner: MinerRef, given: Result<f64, String>) -> PlanEntry {
    let clamped = given.and_then(|announced| {
        clamp_capacity(announced, task.cap_per_period)
            .map(|capacity| (announced, capacity))
            .map_err(|fault| fault.code().to_owned())
    });
    let (announced, capacity, fault) = match clamped {
        Ok((announced, capacity)) => (Some(announced), capacity, None),
        Err(fault) => (None, 0, Some(fault)),
    };
    PlanEntry {
        task: task.name.clone(),
        miner: miner.hotkey,
        uid: miner.uid,
        announced,
        fault,
        capacity,
        share: 0.0,
        expected_units: task.expected_units.max(1),
        due_us: Vec::new(),
        windows: Vec::new(),
        beacon: None,
        in_time: task.in_time,
    }
}

/// A period, as far as laying probes out needs it.
#[derive(Clone, Copy)]
struct Span {
    period: PeriodId,
    started_us: u64,
    period_us: u64,
}

/// Gives the entries of one task their probes.
fn lay(
    planning: &Planning,
    seed: &MasterSeed,
    span: Span,
    task: &TaskSpec,
    entries: &mut [PlanEntry],
    streak: &impl Fn(&TaskName, &Hotkey) -> u32,
) {
    let about = |miner: &Hotkey| format!("{:020}/{}/{miner}", span.period.0, task.name);
    let serving = entries.iter_mut().filter(|e| e.capacity > 0);
    match planning.layout {
        Layout::Even | Layout::Burst(_) => {
            for e in serving {
                let mut draws = Draws::new(&seed.derive("plan", &about(&e.miner)));
                e.share = share(planning, draws.unit());
                let n = probes(e.capacity, e.share, e.expected_units);
                e.due_us = match planning.layout {
                    Layout::Burst(b) => bursts(span, n, b.size.max(1), &mut draws),
                    _ => evenly(span.started_us, span.period_us, n, draws.unit()),
                };
            }
        }
        Layout::Windows(w) => {
            // One share for all: windows that are shared have one length, or they would not overlap.
            let of_task = format!("{:020}/{}", span.period.0, task.name);
            let mut draws = Draws::new(&seed.derive("plan-windows", &of_task));
            let drawn = share(planning, draws.unit());
            let starts = starts(&w, span, draws, entries, drawn, planning.mean_share());
            for e in entries.iter_mut().filter(|e| e.capacity > 0) {
                e.share = drawn;
                let faster = w.head_room_after > 0 && streak(&e.task, &e.miner) >= w.head_room_after;
                let draws = Draws::new(&seed.derive("plan", &about(&e.miner)));
                lay_windows(&w, span, &starts, e, faster, planning.mean_share(), draws);
            }
        }
    }
}

/// How many probes of which kind a miner gets in a period with windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbers {
    windows: u32,
    per_window: u32,
    per_beacon: u32,
    outside: u32,
}

impl Numbers {
    /// In proportion to the capacity; together (with as many beacon windows as there are on average) never more
    /// than was announced, but always one.
    fn of(w: &Windows, capacity: u64, expected_units: u64, share: f64, mean_share: f64) -> Self {
        let whole = float(capacity) / float(expected_units);
        let allowed = whole_number(whole.floor()).max(1);
        let secret = w.secret.max(1);
        let beacons = w.beacons_per_period.max(0.0);
        let in_windows = whole * (1.0 - w.outside) / (f64::from(secret) + beacons);
        let most = allowed / secret.saturating_add(whole_number(beacons.ceil())).saturating_add(1);
        let per_window = |share: f64| {
            whole_number((in_windows * share).round()).max(w.least_probes).min(most).clamp(1, MAX_PER_WINDOW)
        };
        let windows = secret.min(allowed);
        let left = allowed - windows;
        let outside = whole_number((whole * share * w.outside).round()).clamp(1, MAX_PER_WINDOW).min(left);
        Self {
            windows,
            per_window: per_window(share),
            per_beacon: if beacons > 0.0 && left > 0 { per_window(mean_share) } else { 0 },
            outside,
        }
    }
}

/// The most probes of one miner in one window.
const MAX_PER_WINDOW: u32 = MAX_PROBES_PER_ENTRY / 4;

/// Microseconds between probes at the announced rate; at least 1.
fn interval_us(period_us: u64, capacity: u64, expected_units: u64) -> f64 {
    (float(period_us) * float(expected_units) / float(capacity.max(1))).max(1.0)
}

/// When the windows at secret times start: each within a part of the period of its own, so that none overlap,
/// and early enough for the longest of any miner's.
fn starts(
    w: &Windows,
    span: Span,
    mut draws: Draws,
    entries: &[PlanEntry],
    share: f64,
    mean_share: f64,
) -> Vec<u64> {
    let secret = w.secret.max(1);
    let part = float(span.period_us) / f64::from(secret);
    let longest = entries
        .iter()
        .filter(|e| e.capacity > 0)
        .map(|e| {
            let n = Numbers::of(w, e.capacity, e.expected_units, share, mean_share);
            f64::from(n.per_window) * interval_us(span.period_us, e.capacity, e.expected_units)
        })
        .fold(0.0, f64::max)
        .min(part);
    (0..secret)
        .map(|i| {
            let into = f64::from(i) * part + draws.unit() * (part - longest);
            span.started_us.saturating_add(micros(into).min(span.period_us.saturating_sub(1)))
        })
        .collect()
}

/// Gives one entry its windows and, outside them, the probes that keep the rest of the period honest.
fn lay_windows(
    w: &Windows,
    span: Span,
    starts: &[u64],
    e: &mut PlanEntry,
    faster: bool,
    mean_share: f64,
    mut draws: Draws,
) {
    let n = Numbers::of(w, e.capacity, e.expected_units, e.share, mean_share);
    let interval = interval_us(span.period_us, e.capacity, e.expected_units);
    let last_us = span.started_us.saturating_add(span.period_us.saturating_sub(1));
    let used: Vec<u64> = starts.iter().copied().take(n.windows as usize).collect();
    let length = micros(f64::from(n.per_window) * interval);
    let free = |at: u64| {
        used.iter().all(|s| at.saturating_add(micros(interval)) < *s || at > s.saturating_add(length))
    };
    // Every miner has a moment of its own within its interval, and with every validator another one: else all that
    // ask in the beacon's window would ask at once, and a rate that is sustained would look like a burst.
    let phase = draws.unit();
    // Outside: at random in equal parts of the period, drawn again a few times where that is inside a window.
    let part = float(span.period_us) / f64::from(n.outside.max(1));
    for i in 0..n.outside {
        let mut draw =
            || span.started_us.saturating_add(micros((f64::from(i) + draws.unit()) * part)).min(last_us);
        let mut at = draw();
        for _ in 0..8 {
            if free(at) {
                break;
            }
            at = draw();
        }
        e.due_us.push(at);
    }
    for (i, start) in used.iter().enumerate() {
        let head_room = faster && i + 1 == used.len();
        let rate = if head_room { w.head_room.max(1.0) } else { 1.0 };
        e.windows.push(PlannedWindow {
            rate,
            first_slot: u32::try_from(e.due_us.len()).unwrap_or(u32::MAX),
            probes: n.per_window,
            started_us: *start,
        });
        e.due_us
            .extend((0..n.per_window).map(|k| {
                start.saturating_add(micros((phase + f64::from(k)) * interval / rate)).min(last_us)
            }));
    }
    e.beacon = (n.per_beacon > 0).then(|| BeaconShare {
        probes: n.per_beacon,
        interval_us: micros(interval).max(1),
        phase_us: micros(phase * interval),
    });
}

/// Whether this row sustained every window at the announced rate; `None` when it had none. That a faster one was
/// not sustained says nothing.
#[must_use]
pub fn sustained(row: &PeriodRow, sustained_at: f64) -> Option<bool> {
    let mut at_rate = row.windows.iter().filter(|w| w.rate <= 1.0).filter_map(WindowResult::delivered_share);
    let first = at_rate.next()?;
    Some(first >= sustained_at && at_rate.all(|d| d >= sustained_at))
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
fn probes(capacity: u64, share: f64, expected_units: u64) -> u32 {
    let wanted = float(capacity) * share / float(expected_units);
    whole_number(wanted.round()).clamp(1, MAX_PROBES_PER_ENTRY)
}

/// `start + (i + offset)·period/n`: ascending, all within the period.
fn evenly(started_us: u64, period_us: u64, n: u32, offset: f64) -> Vec<u64> {
    (0..n)
        .map(|i| {
            let into = (f64::from(i) + offset) / f64::from(n) * float(period_us);
            started_us.saturating_add(micros(into).min(period_us.saturating_sub(1)))
        })
        .collect()
}

/// Groups of `size`, each at a random time in its part of the period: ascending, all within the period.
fn bursts(span: Span, n: u32, size: u32, draws: &mut Draws) -> Vec<u64> {
    let groups = n.div_ceil(size);
    let mut due = Vec::with_capacity(n as usize);
    for g in 0..groups {
        let into = (f64::from(g) + draws.unit()) / f64::from(groups) * float(span.period_us);
        let at = span.started_us.saturating_add(micros(into).min(span.period_us.saturating_sub(1)));
        due.resize(due.len() + size.min(n - g * size) as usize, at);
    }
    due
}

/// `u64` as a double: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "rounding above 2^53 is meant")]
const fn float(n: u64) -> f64 {
    n as f64
}

/// Whole microseconds; negative and NaN are 0, too much is the most.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casting saturates, as meant")]
const fn micros(x: f64) -> u64 {
    x as u64
}

/// A number of probes; negative and NaN are 0, too much is the most.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casting saturates, as meant")]
const fn whole_number(x: f64) -> u32 {
    x as u32
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
                in_time: None,
            }],
            max_in_flight: 64,
            max_in_flight_per_miner: 4,
            max_checks: 2,
            max_backlog: 100,
            netuid: 19,
            block_us: 12_000_000,
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
        make(&config(), &seed, PeriodId(period), 0, &[miner(1)], &all, |_, _| 0).entries.remove(0)
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
