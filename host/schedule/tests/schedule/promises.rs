//! What the schedule promises, over a made-up clock.

use std::collections::BTreeMap;

use crate::sim::{Character, S, START, World, config, failing, key, miner, task};
use nineteen_domain::PeriodId;
use nineteen_domain::ledger::ProbeClass;
use nineteen_schedule::{
    Effect, Event, FinishedProbe, NOT_ANNOUNCED, Resume, SILENT, Schedule, ScheduleError, TaskSpec,
};

fn three() -> World {
    World::new(
        config(),
        vec![
            (miner(1), Character::honest(60_000.0, 1_000.0, S / 5)),
            (miner(2), Character::honest(30_000.0, 500.0, 2 * S)),
            (miner(3), Character { class: failing(), ..Character::honest(1e9, 0.0, S / 10) }),
        ],
    )
}

/// Into the first period, to a moment when a probe is under way.
fn run_until_something_is_out(w: &mut World) {
    w.run_until(START + 20 * S);
    while w.under_way.is_empty() {
        w.next(START + 40 * S);
    }
}

#[test]
fn three_periods_run_and_settle_once_each_in_order() {
    let mut w = three();
    w.run_until(START + 215 * S);
    let settled: Vec<u64> = w.outcomes.iter().map(|o| o.period.0).collect();
    assert_eq!(settled, [0, 1, 2]);
    for o in &w.outcomes {
        assert_eq!((o.rows.len(), o.skipped, o.unjudged), (6, 0, 0));
        for row in &o.rows {
            let nothing = row.miner == key(3) && row.task == task("embed");
            assert_eq!(row.tally.total() == 0, nothing, "{row:?}");
            assert_eq!(row.score.is_none(), nothing);
            if row.miner == key(3) && !nothing {
                assert_eq!((row.score, row.capacity), (Some(0.0), 60_000));
            }
        }
    }
}

#[test]
fn periods_follow_one_another_without_a_gap() {
    let mut w = three();
    w.run_until(START + 300 * S);
    let periods = w.periods_of_log();
    assert!(periods.len() >= 5);
    for pair in periods.windows(2) {
        assert_eq!(pair[0].3, pair[1].2, "a period begins where the last ended");
        assert!(pair[1].0 < pair[1].2, "and is planned before");
    }
    // No probe-free stretch either: the longest pause is of the order of the distance between probes.
    let mut times: Vec<u64> = w.left.values().copied().collect();
    times.sort_unstable();
    assert!(times.windows(2).all(|t| t[1] - t[0] < 10 * S));
}

#[test]
fn no_probe_leaves_before_its_plan_is_on_disk() {
    let mut w = three();
    w.disk_us = 7 * S;
    // `World` asserts it at every dispatch; here the disk is slower than the first probes are due.
    w.run_until(START + 100 * S);
    let first = w.left.values().min().unwrap();
    assert!(*first >= START + 7 * S);
}

#[test]
fn without_a_disk_nothing_ever_leaves() {
    let mut w = three();
    w.disk_us = 1 << 50;
    w.run_until(START + 600 * S);
    assert!(w.left.is_empty());
    assert_eq!(w.periods_of_log().len(), 1, "and plans do not pile up");
}

#[test]
fn a_slow_miner_holds_up_nobody_else() {
    let mut w = World::new(
        config(),
        vec![
            (miner(1), Character::honest(60_000.0, 1_000.0, 19 * S)),
            (miner(2), Character::honest(60_000.0, 1_000.0, S / 10)),
        ],
    );
    w.run_until(START + 59 * S);
    let plan = w.schedule.plan(PeriodId(0)).unwrap().clone();
    let mut slow = 0;
    for probe in plan.probes() {
        if probe.id.miner == key(2) && probe.due_us < START + 58 * S {
            assert_eq!(w.left[&probe.id], probe.due_us, "the fast one's probes leave when they are due");
        }
        slow += usize::from(probe.id.miner == key(1) && w.left.contains_key(&probe.id));
    }
    // Two tasks with two each, for 60 s of answers that take 19.
    assert!(slow <= 16, "the slow one never has more than two of a task under way: {slow} left");
    w.run_until(START + 100 * S);
    assert!(w.outcomes[0].skipped > 0, "what it had no room for is skipped");
}

#[test]
fn what_is_still_out_when_the_grace_is_over_is_ours_and_its_late_end_is_not_booked() {
    let mut w = World::new(config(), vec![(miner(1), Character::honest(300.0, 0.0, 70 * S))]);
    w.run_until(START + 81 * S);
    let row = &w.outcomes[0].rows[0];
    assert_eq!((row.tally.ours, row.tally.total(), row.score), (1, 0, None));
    w.run_until(START + 150 * S);
    assert_eq!(w.outcomes.iter().filter(|o| o.period == PeriodId(0)).count(), 1);
}

/// It was written down while the grace ran out: the rows say what the books say.
#[test]
fn an_end_that_is_on_the_books_when_the_grace_is_over_counts() {
    let mut w = World::new(config(), vec![(miner(1), Character::honest(300.0, 0.0, 70 * S))]);
    w.run_until(START + 79 * S);
    let probe = w.under_way.first().unwrap().clone();
    assert_eq!((probe.period, w.under_way.len()), (PeriodId(0), 1));
    w.disk.finished.push(FinishedProbe { probe, class: ProbeClass::RateLimited, units: 0, took_us: 9 });
    w.run_until(START + 81 * S);
    let tally = w.outcomes[0].rows[0].tally;
    assert_eq!((tally.ours, tally.rate_limited, tally.total()), (0, 1, 1));
}

#[test]
fn a_second_end_of_a_probe_is_not_booked() {
    let mut w = three();
    w.run_until(START + 30 * S);
    let ended: Vec<FinishedProbe> = w.disk.finished.clone();
    assert!(!ended.is_empty());
    for f in ended {
        let again = FinishedProbe { class: ProbeClass::RateLimited, units: 1 << 60, ..f };
        assert!(w.schedule.step(w.now, Event::Finished(again)).is_empty());
    }
    w.run_until(START + 100 * S);
    assert!(w.outcomes[0].rows.iter().all(|r| r.tally.rate_limited == 0));
}

#[test]
fn announcements_that_are_faults_cost_that_miner_or_task_alone() {
    let bad = |announces| Character { announces, ..Character::honest(0.0, 0.0, S) };
    let one_task = |x| Some(Ok(BTreeMap::from([(task("chat"), x), (task("surplus"), Ok(5.0))])));
    let mut w = World::new(
        config(),
        vec![
            (miner(1), Character::honest(60_000.0, 1_000.0, S)),
            (miner(2), bad(None)),
            (miner(3), bad(Some(Err("wire.announce.format".into())))),
            (miner(4), bad(one_task(Ok(f64::NAN)))),
            (miner(5), bad(one_task(Err("wire.capacity.not-a-number".into())))),
            (miner(6), bad(one_task(Ok(300.0)))),
        ],
    );
    w.run_until(START + 90 * S);
    let faults: BTreeMap<_, _> =
        w.outcomes[0].faults.iter().map(|(m, t, f)| ((m.as_bytes()[0], t.as_str()), f.as_str())).collect();
    let expected = BTreeMap::from([
        ((2, "chat"), SILENT),
        ((2, "embed"), SILENT),
        ((3, "chat"), "wire.announce.format"),
        ((3, "embed"), "wire.announce.format"),
        ((4, "chat"), "mechanism.capacity.not-finite"),
        ((4, "embed"), NOT_ANNOUNCED),
        ((5, "chat"), "wire.capacity.not-a-number"),
        ((5, "embed"), NOT_ANNOUNCED),
        ((6, "embed"), NOT_ANNOUNCED),
    ]);
    assert_eq!(faults, expected);
    let asked: Vec<_> = w.outcomes[0]
        .rows
        .iter()
        .filter(|r| r.tally.total() > 0)
        .map(|r| (r.uid.0, r.task.as_str()))
        .collect();
    assert_eq!(asked, [(1, "chat"), (6, "chat"), (1, "embed")]);
    // The silent one held up the first period until the deadline, and no later one at all.
    assert_eq!(w.outcomes[0].started_us, START + 5 * S);
}

#[test]
fn a_changed_capacity_applies_from_the_next_period() {
    let mut w = three();
    w.run_until(START + 10 * S);
    w.miners.insert(key(1), Character::honest(600.0, 1_000.0, S / 5));
    let change = Event::Announced {
        period: PeriodId(0),
        miner: key(1),
        result: Ok(BTreeMap::from([(task("chat"), Ok(1.0))])),
    };
    w.event(change);
    w.run_until(START + 160 * S);
    let of = |n: usize| w.outcomes[n].rows.iter().find(|r| r.miner == key(1)).unwrap().capacity;
    assert_eq!((of(0), of(1)), (60_000, 600));
}

#[test]
fn who_leaves_gets_nothing_more_and_who_comes_is_asked_for_the_next_period() {
    let mut w = three();
    w.run_until(START + 20 * S);
    w.miners.insert(key(4), Character::honest(300.0, 20.0, S));
    w.present = vec![miner(1), miner(3), miner(4)];
    w.event(Event::Metagraph(w.present.clone()));
    w.run_until(START + 160 * S);
    assert!(w.left.iter().all(|(p, at)| p.miner != key(2) || *at <= START + 20 * S));
    assert!(w.outcomes[0].skipped > 0);
    assert_eq!(w.outcomes[0].rows.len(), 6, "what it did until then is booked");
    let miners: Vec<u16> = w.outcomes[1].rows.iter().map(|r| r.uid.0).collect();
    assert_eq!(miners, [1, 3, 4, 1, 3, 4]);
}

#[test]
fn who_comes_while_announcements_are_gathered_is_asked_as_well() {
    let mut w = World::new(
        config(),
        vec![(miner(2), Character { announces: None, ..Character::honest(0.0, 0.0, S) })],
    );
    w.run_until(START + S);
    w.miners.insert(key(1), Character::honest(300.0, 20.0, S));
    w.present.push(miner(1));
    w.event(Event::Metagraph(w.present.clone()));
    w.run_until(START + 6 * S);
    assert_eq!(w.schedule.plan(PeriodId(0)).unwrap().entries.iter().filter(|e| e.capacity > 0).count(), 2);
}

#[test]
fn a_miner_that_changed_its_place_keeps_its_probes() {
    let mut w = three();
    w.run_until(START + 20 * S);
    w.present[0].uid.0 = 200;
    w.event(Event::Metagraph(w.present.clone()));
    w.run_until(START + 100 * S);
    assert_eq!(w.outcomes[0].skipped, 0);
}

#[test]
fn a_new_set_of_tasks_applies_from_the_next_plan() {
    let mut w = three();
    w.run_until(START + 20 * S);
    w.event(Event::Tasks(vec![TaskSpec {
        name: task("chat"),
        cap_per_period: 100,
        expected_units: 1,
        in_time: None,
    }]));
    w.run_until(START + 160 * S);
    assert_eq!(w.outcomes[0].rows.len(), 6);
    assert_eq!(w.outcomes[1].rows.len(), 3);
    assert!(w.outcomes[1].rows.iter().all(|r| r.capacity == 100));
}

#[test]
fn a_period_waits_for_its_judgements_but_not_longer_than_the_grace() {
    let mut w = three();
    w.judge_us = 10 * S;
    w.run_until(START + 75 * S);
    assert_eq!((w.outcomes.len(), w.outcomes[0].unjudged), (1, 0));
    let mut w = three();
    w.judge_us = 1 << 50;
    w.run_until(START + 79 * S);
    assert!(w.outcomes.is_empty());
    w.run_until(START + 81 * S);
    assert!(w.outcomes[0].unjudged > 0);
}

#[test]
fn a_crash_in_the_middle_of_a_period_goes_on_where_it_was() {
    let mut w = three();
    run_until_something_is_out(&mut w);
    let plan = w.schedule.plan(PeriodId(0)).unwrap().clone();
    let out = w.under_way.clone();
    let crashed = w.now;
    w.crash(config(), 10 * S);
    assert_eq!(w.schedule.plan(PeriodId(0)), Some(&plan), "the same plan");
    w.run_until(START + 150 * S);
    let o = &w.outcomes[0];
    assert_eq!(o.rows.iter().map(|r| r.tally.ours).sum::<u64>(), out.len() as u64);
    let down = plan.probes().filter(|p| p.due_us > crashed && p.due_us < crashed + 10 * S).count();
    assert!(down > 0);
    assert_eq!(o.skipped, down as u64, "what was due while we were down is skipped, nothing else");
    assert_eq!(w.outcomes.iter().map(|o| o.period.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(w.outcomes[1].started_us, plan.ended_us, "and there is still no gap");
}

#[test]
fn answers_that_were_not_judged_before_a_crash_are_judged_after_it() {
    let mut w = three();
    w.judge_us = 1 << 50;
    w.run_until(START + 30 * S);
    let answered = w.disk.finished.iter().filter(|f| f.class == ProbeClass::Answered).count();
    w.log.clear();
    w.judge_us = S;
    w.crash(config(), S);
    let judged = w.log.iter().filter(|(_, e)| matches!(e, Effect::Judge(_))).count();
    assert_eq!(judged, answered);
}

#[test]
fn a_period_that_ended_while_we_were_down_is_settled_with_what_is_there() {
    let mut w = three();
    w.run_until(START + 30 * S);
    w.crash(config(), 3_600 * S);
    w.run_until(w.now + 2 * S);
    assert_eq!(w.outcomes.len(), 1);
    assert!(w.outcomes[0].rows.iter().any(|r| r.tally.total() > 0));
    let (_, period, started, _) = *w.periods_of_log().last().unwrap();
    assert_eq!(period, PeriodId(1));
    assert!(started > START + 3_600 * S, "no period is made up for the time that we were down");
}

#[test]
fn a_crash_between_settling_and_its_acknowledgement_settles_the_same_again() {
    let mut w = three();
    w.disk_us = 3 * S;
    while w.outcomes.is_empty() {
        w.next(u64::MAX);
    }
    w.crash(config(), S);
    w.run_until(w.now + S);
    assert_eq!(w.outcomes.len(), 2);
    assert_eq!(w.outcomes[0], w.outcomes[1]);
}

#[test]
fn a_restart_with_everything_settled_counts_on() {
    let mut w = three();
    w.run_until(START + 30 * S);
    w.disk = Resume { next_period: 41, ..Resume::default() };
    w.crash(config(), S);
    w.run_until(w.now + S);
    assert_eq!(w.periods_of_log().last().unwrap().1, PeriodId(41));
}

#[test]
fn what_is_on_disk_is_read_back_as_it_was() {
    let mut w = three();
    w.run_until(START + 30 * S);
    let mut bytes = Vec::new();
    ciborium::into_writer(&w.disk, &mut bytes).unwrap();
    assert_eq!(ciborium::from_reader::<Resume, _>(bytes.as_slice()).unwrap(), w.disk);
}

#[test]
fn after_a_shutdown_nothing_starts_and_what_is_out_may_finish() {
    let mut w = three();
    run_until_something_is_out(&mut w);
    let left = w.left.len();
    w.event(Event::Shutdown);
    assert!(!w.drained);
    w.run_until(START + 40 * S);
    assert_eq!(w.left.len(), left);
    assert!(w.drained && w.under_way.is_empty());
    assert_eq!(w.log.iter().filter(|(_, e)| *e == Effect::Drained).count(), 1);
}

#[test]
fn a_machine_that_slept_begins_anew_instead_of_making_up_for_it() {
    let mut w = three();
    w.run_until(START + 20 * S);
    let left = w.left.len();
    w.now += 3_600 * S;
    w.event(Event::Tick);
    assert_eq!(w.left.len(), left, "no burst of what was overdue");
    w.run_until(START + 3_800 * S);
    let (_, _, started, _) = w.periods_of_log()[1];
    assert!(started >= START + 3_600 * S);
}

#[test]
fn an_empty_subnet_is_no_error() {
    let mut w = World::new(config(), Vec::new());
    w.run_until(START + 130 * S);
    assert!(w.outcomes.iter().all(|o| o.rows.is_empty()));
    w.miners.insert(key(1), Character::honest(300.0, 20.0, S));
    w.present.push(miner(1));
    w.event(Event::Metagraph(w.present.clone()));
    w.run_until(START + 260 * S);
    assert_eq!(w.outcomes.last().unwrap().rows.len(), 2);
}

#[test]
fn settings_that_make_no_schedule_are_refused() {
    let mut bad = config();
    bad.max_in_flight = 0;
    let seed = nineteen_domain::MasterSeed::from_bytes([0; 32]);
    let refused = Schedule::new(bad, seed, Resume::default()).unwrap_err();
    assert!(matches!(refused, ScheduleError::Setting { setting: "max_in_flight", .. }));
}
