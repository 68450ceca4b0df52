//! Windows, the beacon, users' requests and the line for the checkers.

use nineteen_domain::ledger::WindowKind;
use nineteen_domain::policy::Layout;
use nineteen_domain::{MasterSeed, PeriodId};
use nineteen_schedule::{
    Effect, Event, OrganicRequest, PeriodPlan, Resume, Schedule, ScheduleConfig, starts_window,
};

use crate::sim::{Character, S, START, World, block, key, miner, task, windows};

fn only_chat() -> ScheduleConfig {
    let mut config = windows();
    config.tasks.truncate(1);
    config
}

fn without_beacon(mut config: ScheduleConfig) -> ScheduleConfig {
    if let Layout::Windows(w) = &mut config.policy.planning.layout {
        w.beacons_per_period = 0.0;
    }
    config
}

fn plans(w: &World) -> Vec<PeriodPlan> {
    w.log
        .iter()
        .filter_map(|(_, e)| if let Effect::StorePlan(p) = e { Some(p.clone()) } else { None })
        .collect()
}

#[test]
fn all_miners_of_a_task_are_in_the_same_windows_each_at_its_own_rate() {
    let mut w = World::new(
        without_beacon(only_chat()),
        vec![
            (miner(1), Character::honest(60_000.0, 0.0, S / 10)),
            (miner(2), Character::honest(20_000.0, 0.0, S / 10)),
        ],
    );
    w.run_until(START + 300 * S);
    for plan in plans(&w) {
        let starts = |n: usize| plan.entries[n].windows.iter().map(|w| w.started_us).collect::<Vec<_>>();
        assert_eq!(starts(0), starts(1), "shared");
        assert_eq!(plan.entries[0].share, plan.entries[1].share, "of one length");
        for e in &plan.entries {
            let interval = 60.0 * S as f64 * e.expected_units as f64 / e.capacity as f64;
            for window in &e.windows {
                let first = window.first_slot as usize;
                let due = &e.due_us[first..first + window.probes as usize];
                assert!((due[0] - window.started_us) as f64 <= interval, "each has a phase of its own");
                let interval = interval / window.rate;
                assert!(due.windows(2).all(|d| ((d[1] - d[0]) as f64 - interval).abs() < 2.0));
                assert!(due.iter().all(|d| (plan.started_us..plan.ended_us).contains(d)));
            }
            let asked = e.due_us.len() as u64 * e.expected_units;
            assert!(asked <= e.capacity, "never more than was announced: {asked} of {}", e.capacity);
        }
    }
    assert!(w.outcomes.len() >= 3);
    for row in w.outcomes.iter().flat_map(|o| &o.rows) {
        assert_eq!(row.windows.len(), 2);
        assert!(row.windows.iter().all(|w| w.asked > 0 && w.delivered == w.asked), "{row:?}");
    }
}

#[test]
fn a_miner_with_a_tenth_of_what_it_announced_fails_its_windows_and_no_other_miner_does() {
    let mut config = without_beacon(only_chat());
    config.max_in_flight_per_miner = 4;
    let mut w = World::new(
        config,
        vec![
            (miner(1), Character::honest(60_000.0, 0.0, S)),
            // Serves one after the other, 3 s each: late, but it answers all that it is asked in the end.
            (miner(2), Character { answers_after_us: 9 * S, ..Character::honest(60_000.0, 0.0, S) }),
        ],
    );
    w.run_until(START + 300 * S);
    let shares = |n: u8| -> Vec<f64> {
        let rows = w.outcomes.iter().flat_map(|o| &o.rows).filter(|r| r.miner == key(n));
        rows.flat_map(|r| &r.windows).filter_map(|w| w.delivered_share()).collect()
    };
    assert!(shares(1).iter().all(|d| *d == 1.0));
    assert!(!shares(2).is_empty() && shares(2).iter().all(|d| *d < 0.5), "{:?}", shares(2));
}

#[test]
fn probes_that_a_full_miner_holds_up_are_held_back_and_its_window_shows_it() {
    let mut config = without_beacon(only_chat());
    config.max_in_flight_per_miner = 1;
    let mut w = World::new(config, vec![(miner(1), Character::honest(60_000.0, 0.0, 19 * S))]);
    w.run_until(START + 200 * S);
    assert!(!w.held.is_empty());
    let windows: Vec<_> = w.outcomes.iter().flat_map(|o| &o.rows).flat_map(|r| r.windows.clone()).collect();
    assert!(!windows.is_empty() && windows.iter().all(|w| w.delivered_share() < Some(0.5)), "{windows:?}");
}

#[test]
fn the_beacon_starts_the_same_windows_for_validators_with_different_secrets() {
    let config = only_chat();
    let run = |secret: u8| {
        let mut w = World::new(config.clone(), vec![(miner(1), Character::honest(60_000.0, 0.0, S))]);
        w.schedule =
            Schedule::new(config.clone(), MasterSeed::from_bytes([secret; 32]), Resume::default()).unwrap();
        w.event(Event::Metagraph(w.present.clone()));
        for second in 0..300 {
            w.run_until(START + second * S);
            let number = w.now / (12 * S);
            w.event(Event::Block(block(number)));
        }
        let started: Vec<(u64, u64)> = w.stored_windows.iter().map(|w| (w.block, w.started_us)).collect();
        let rows = w.outcomes.iter().flat_map(|o| &o.rows);
        let kinds = rows.flat_map(|r| &r.windows).filter(|w| w.kind == WindowKind::Beacon).count();
        let secret: Vec<u64> = plans(&w)[0].entries[0].windows.iter().map(|w| w.started_us).collect();
        (started, kinds, secret)
    };
    let (one, other) = (run(1), run(2));
    assert!(one.0.len() >= 3, "{:?}", one.0);
    assert_eq!(one.0, other.0);
    assert!(one.1 >= 2, "beacon windows are in the rows");
    assert_ne!(one.2, other.2, "the secret ones differ");
    for (number, _) in &one.0 {
        assert!(starts_window(&block(*number).hash, 19, &task("chat"), 0.8));
    }
}

#[test]
fn while_the_beacons_window_runs_nothing_else_of_its_task_is_asked() {
    let config = only_chat();
    let mut w = World::new(config, vec![(miner(1), Character::honest(60_000.0, 0.0, S / 10))]);
    for second in 0..600 {
        w.run_until(START + second * S);
        let number = w.now / (12 * S);
        w.event(Event::Block(block(number)));
    }
    let plans = plans(&w);
    let mut seen = 0;
    for window in &w.stored_windows {
        let Some(plan) = plans.iter().find(|p| p.period == window.period) else { continue };
        let entry = &plan.entries[0];
        let share = entry.beacon.unwrap();
        let end = window.started_us + share.interval_us * u64::from(share.probes);
        for (probe, at) in &w.left {
            if probe.period == window.period && probe.slot < 1_000_000 && *at > window.started_us + S / 100 {
                assert!(
                    *at + S / 100 >= end || *at >= end - S / 100,
                    "{probe:?} left at {at} inside {window:?}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 0);
}

#[test]
fn who_sustains_everything_is_tried_faster_and_cannot_lose_by_it() {
    let mut w =
        World::new(without_beacon(only_chat()), vec![(miner(1), Character::honest(60_000.0, 0.0, S))]);
    w.run_until(START + 600 * S);
    let rates: Vec<f64> = plans(&w).iter().map(|p| p.entries[0].windows.last().unwrap().rate).collect();
    assert!(rates[..4].iter().all(|r| *r == 1.0), "{rates:?}");
    assert!(rates[6..].iter().all(|r| *r == 1.25), "{rates:?}");
    // A restart knows the streak from its rows.
    assert!(w.outcomes.last().unwrap().rows[0].windows.iter().any(|w| w.rate == 1.25));
}

#[test]
fn users_go_first_and_their_volume_takes_the_place_of_that_miners_own_probes() {
    let mut config = without_beacon(only_chat());
    config.policy.planning.share_multiplier = 20.0;
    let two = vec![
        (miner(1), Character::honest(60_000.0, 0.0, S / 10)),
        (miner(2), Character::honest(60_000.0, 0.0, S / 10)),
    ];
    let mut w = World::new(config, two);
    w.run_until(START + 6 * S);
    let planned =
        |w: &World, n: u8| plans(w)[0].entries.iter().find(|e| e.miner == key(n)).unwrap().due_us.len();
    for id in 0..12 {
        w.event(Event::OrganicAsked(OrganicRequest {
            id,
            task: task("chat"),
            miner: key(1),
            expected_units: 300,
        }));
    }
    w.run_until(START + 90 * S);
    let outcome = w.outcomes.iter().find(|o| o.period == PeriodId(0)).unwrap();
    let of = |n: u8| outcome.rows.iter().find(|r| r.miner == key(n)).unwrap();
    let left = |n: u8| w.left.keys().filter(|p| p.period == PeriodId(0) && p.miner == key(n)).count();
    assert_eq!(of(1).tally.answered, left(1) as u64 + 12);
    assert!(left(1) < planned(&w, 1), "its own probes were removed");
    assert_eq!(left(2), planned(&w, 2), "nobody else's were");
    assert_eq!(of(1).windows.len(), 2, "but never its windows");
    assert_eq!(of(1).tally.consumed, 300 * of(1).tally.answered);
}

#[test]
fn users_wait_for_room_like_everybody_and_never_behind_probes() {
    let mut config = without_beacon(only_chat());
    config.max_in_flight_per_miner = 1;
    let mut w = World::new(config, vec![(miner(1), Character::honest(60_000.0, 0.0, S))]);
    w.run_until(START + 6 * S);
    for id in 0..2 {
        let (task, miner) = (task("chat"), key(1));
        w.event(Event::OrganicAsked(OrganicRequest { id, task, miner, expected_units: 300 }));
    }
    w.run_until(START + 30 * S);
    let first = w.log.iter().position(|(_, e)| matches!(e, Effect::DispatchOrganic(0))).unwrap();
    let second = w.log.iter().position(|(_, e)| matches!(e, Effect::DispatchOrganic(1))).unwrap();
    let between = w.log[first..second].iter().filter(|(_, e)| matches!(e, Effect::Dispatch(_))).count();
    assert_eq!(between, 0);
}

#[test]
fn the_line_for_the_checkers_is_bounded_and_seen() {
    let mut config = without_beacon(only_chat());
    config.max_checks = 1;
    config.max_backlog = 3;
    config.policy.planning.share_multiplier = 20.0;
    let mut w = World::new(config, vec![(miner(1), Character::honest(60_000.0, 0.0, S))]);
    w.max_checks = 1;
    w.judge_us = 50 * S;
    w.run_until(START + 200 * S);
    let unchecked = w.log.iter().filter(|(_, e)| matches!(e, Effect::Unchecked(_))).count();
    let status = w.schedule.status();
    assert!(unchecked > 0 && status.unchecked == unchecked as u64);
    assert!(status.backlog <= 3);
    assert!(!w.outcomes.is_empty(), "a full line holds up no period");
    let answered: u64 = w.outcomes.iter().flat_map(|o| &o.rows).map(|r| r.tally.answered).sum();
    let left = w.left.keys().filter(|p| w.outcomes.iter().any(|o| o.period == p.period)).count();
    assert_eq!(answered, left as u64, "unchecked volume counts");
}
