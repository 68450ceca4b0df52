//! Whatever happens in whatever order: nothing panics, and no probe is booked twice or lost.

use std::collections::BTreeMap;

use crate::sim::{Character, S, World, block, config, failing, key, miner, task, windows};
use nineteen_domain::ledger::{OursFault, ProbeClass};
use nineteen_domain::{PeriodId, ProbeId};
use nineteen_schedule::{Event, FinishedProbe, MinerRef, TaskSpec};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Do {
    /// Let this many things happen.
    Run(u8),
    /// Kill it, and start it after this many seconds.
    Crash(u64),
    /// The clock jumps, also back.
    Jump(i64),
    /// An event out of the blue.
    Say(Event),
    /// The nth probe that ever left ends (again).
    End(usize, ProbeClass, u64),
    /// The nth probe that ever left is judged (again).
    Judge(usize),
    /// These miners are there now.
    Subnet(Vec<u8>),
}

fn class() -> impl Strategy<Value = ProbeClass> {
    prop_oneof![
        Just(ProbeClass::Answered),
        Just(ProbeClass::RateLimited),
        Just(failing()),
        Just(ProbeClass::Ours(OursFault::Host)),
    ]
}

fn probe() -> impl Strategy<Value = ProbeId> {
    (0_u64..4, 0_u8..6, 0_u32..40, any::<bool>()).prop_map(|(period, m, slot, chat)| ProbeId {
        period: PeriodId(period),
        task: task(if chat { "chat" } else { "nonsense" }),
        miner: key(m),
        slot,
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Tick),
        (0_u64..5).prop_map(|p| Event::PlanStored { period: PeriodId(p) }),
        (0_u64..5).prop_map(|p| Event::Settled { period: PeriodId(p) }),
        (probe(), class(), any::<u64>()).prop_map(|(probe, class, units)| Event::Finished(FinishedProbe {
            probe,
            class,
            units,
            took_us: units
        })),
        (0_u64..40).prop_map(|n| Event::Block(block(n))),
        (probe(), any::<f64>()).prop_map(|(probe, share)| Event::Standing(vec![(
            probe.task,
            probe.miner,
            share
        )])),
        any::<u64>().prop_map(|id| Event::OrganicFinished { id, class: ProbeClass::Answered, units: 9 }),
        probe().prop_map(|probe| Event::Judged { probe }),
        (0_u64..5, 0_u8..6, prop_oneof![any::<f64>(), Just(f64::NAN), 0.0..100_000.0]).prop_map(
            |(p, m, x)| {
                Event::Announced {
                    period: PeriodId(p),
                    miner: key(m),
                    result: Ok(BTreeMap::from([(task("chat"), Ok(x))])),
                }
            }
        ),
        (0_u64..1_000, 0_u64..1_000).prop_map(|(cap_per_period, expected_units)| {
            let spec = TaskSpec { name: task("chat"), cap_per_period, expected_units, in_time: None };
            Event::Tasks(vec![spec.clone(), spec])
        }),
    ]
}

fn action() -> impl Strategy<Value = Do> {
    prop_oneof![
        8 => (1_u8..60).prop_map(Do::Run),
        1 => (0_u64..200).prop_map(Do::Crash),
        1 => (-100_i64..200).prop_map(Do::Jump),
        3 => event().prop_map(Do::Say),
        2 => (any::<usize>(), class(), any::<u64>()).prop_map(|(n, c, u)| Do::End(n, c, u)),
        1 => any::<usize>().prop_map(Do::Judge),
        1 => prop::collection::vec(0_u8..6, 0..6).prop_map(Do::Subnet),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The world asserts at every step: plan before probe, no probe leaves twice, every settled row counts
    /// each probe that left exactly once, a second settlement equals the first, no wake-up in the past.
    #[test]
    fn no_order_of_events_books_a_probe_twice_or_panics(
        actions in prop::collection::vec(action(), 1..80),
        delays in prop::array::uniform4(0_u64..40 * S),
        in_windows in any::<bool>(),
    ) {
        let config = if in_windows { windows() } else { config() };
        let mut w = World::new(
            config.clone(),
            (1..=4)
                .zip(delays)
                .map(|(n, delay)| (miner(n), Character::honest(20_000.0 * f64::from(n), 300.0, delay)))
                .collect(),
        );
        for n in [0, 5] {
            w.miners.insert(key(n), Character { class: failing(), ..Character::honest(1e9, 1e9, S) });
        }
        for action in actions {
            match action {
                Do::Run(n) => {
                    for _ in 0..n {
                        w.next(u64::MAX);
                        let number = w.now / (12 * S);
                        w.event(Event::Block(block(number)));
                    }
                }
                Do::Crash(s) => w.crash(config.clone(), s * S),
                Do::Jump(s) => {
                    w.now = w.now.saturating_add_signed(s * S as i64);
                    if s < 0 {
                        // Where a clock went back behind a period's end and then all was lost but the disk, the
                        // period runs on, and its only settlement has more in it than the one nobody saw.
                        w.settled.retain(|p, _| w.disk.plans.iter().all(|plan| plan.period != *p));
                    }
                    w.event(Event::Tick);
                }
                // The world's own record of what is on disk has to stay true: a claim that it was written is
                // only made out of the blue where the world already holds it.
                Do::Say(Event::PlanStored { period }) => {
                    if w.disk.plans.iter().any(|p| p.period == period) {
                        w.event(Event::PlanStored { period });
                    }
                }
                Do::Say(Event::Settled { period }) => {
                    if w.settled.contains_key(&period) {
                        w.event(Event::Settled { period });
                    }
                }
                Do::Say(Event::Finished(f)) => {
                    if !w.left.contains_key(&f.probe) {
                        w.rumour(Event::Finished(f));
                    }
                }
                Do::Say(event) => w.event(event),
                Do::End(n, class, units) => {
                    if let Some(probe) = w.left.keys().nth(n % w.left.len().max(1)).cloned() {
                        w.event(Event::Finished(FinishedProbe { probe, class, units, took_us: units % (9 * S) }));
                    }
                }
                Do::Judge(n) => {
                    if let Some(probe) = w.left.keys().nth(n % w.left.len().max(1)).cloned() {
                        w.event(Event::Judged { probe });
                    }
                }
                Do::Subnet(miners) => {
                    w.present = miners.into_iter().map(miner).collect::<Vec<MinerRef>>();
                    w.event(Event::Metagraph(w.present.clone()));
                }
            }
        }
        // And it still runs.
        let settled = w.outcomes.len();
        let until = w.now + 400 * S;
        w.run_until(until);
        prop_assert!(w.outcomes.len() > settled);
    }
}
