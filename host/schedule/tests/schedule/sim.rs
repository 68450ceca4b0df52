//! A small world around the machine: a made-up clock, miners that take their time, and a disk that survives
//! crashes. What the machine asks for happens here, and every promise is checked while it does.

use std::collections::{BTreeMap, BTreeSet};

use nineteen_domain::ledger::{Failure, OursFault, ProbeClass};
use nineteen_domain::policy::{Layout, Policy};
use nineteen_domain::{Hotkey, MasterSeed, PeriodId, ProbeId, TaskName, Uid};
use nineteen_schedule::{
    Announcement, Block, Effect, Event, FinishedProbe, InTime, MinerRef, PeriodOutcome, Resume, Schedule,
    ScheduleConfig, StartedWindow, TaskSpec,
};

pub(crate) const S: u64 = 1_000_000;
pub(crate) const START: u64 = 1_790_000_000 * S;

pub(crate) fn task(name: &str) -> TaskName {
    TaskName::new(name).unwrap()
}

pub(crate) fn key(n: u8) -> Hotkey {
    Hotkey::from_bytes([n; 32])
}

pub(crate) fn miner(n: u8) -> MinerRef {
    MinerRef { uid: Uid(n.into()), hotkey: key(n) }
}

pub(crate) fn config() -> ScheduleConfig {
    let mut policy = Policy::sn19_2025_01();
    policy.planning.share_multiplier = 4.0;
    let spec = |name, cap_per_period, expected_units| TaskSpec {
        name: task(name),
        cap_per_period,
        expected_units,
        in_time: None,
    };
    ScheduleConfig {
        period_us: 60 * S,
        announce_lead_us: 5 * S,
        settle_grace_us: 20 * S,
        policy,
        tasks: vec![spec("chat", 60_000, 300), spec("embed", 1_000, 20)],
        max_in_flight: 32,
        max_in_flight_per_miner: 2,
        max_checks: 64,
        max_backlog: 10_000,
        netuid: 19,
        block_us: 12 * S,
    }
}

/// The same with windows; the beacon starts about four a period.
pub(crate) fn windows() -> ScheduleConfig {
    let mut config = config();
    config.policy = Policy::default_rules();
    config.policy.planning.share_multiplier = 4.0;
    if let Layout::Windows(w) = &mut config.policy.planning.layout {
        w.beacons_per_period = 4.0;
    }
    for task in &mut config.tasks {
        task.in_time = Some(InTime { first_us: 5 * S, unit_us: 0.0 });
    }
    config
}

/// A hash that differs from block to block.
pub(crate) fn block(number: u64) -> Block {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    Block { number, hash }
}

/// What a miner is like.
#[derive(Debug, Clone)]
pub(crate) struct Character {
    /// `None`: never answers to an announcement.
    pub(crate) announces: Option<Announcement>,
    pub(crate) answers_after_us: u64,
    pub(crate) class: ProbeClass,
}

impl Character {
    pub(crate) fn honest(chat: f64, embed: f64, answers_after_us: u64) -> Self {
        Self {
            announces: Some(Ok(BTreeMap::from([(task("chat"), Ok(chat)), (task("embed"), Ok(embed))]))),
            answers_after_us,
            class: ProbeClass::Answered,
        }
    }
}

/// Everything that happens later, by time and order of its making.
type Later = BTreeMap<(u64, u64), Event>;

pub(crate) struct World {
    pub(crate) now: u64,
    /// The latest time that the machine was ever told: the clock may go back.
    latest: u64,
    pub(crate) schedule: Schedule,
    pub(crate) miners: BTreeMap<Hotkey, Character>,
    pub(crate) present: Vec<MinerRef>,
    later: Later,
    made: u64,
    /// How long the disk, an announcement and a judgement take.
    pub(crate) disk_us: u64,
    pub(crate) judge_us: u64,
    pub(crate) max_checks: usize,
    // The disk.
    pub(crate) disk: Resume,
    pub(crate) settled: BTreeMap<PeriodId, PeriodOutcome>,
    // The record.
    pub(crate) stored_plans: BTreeSet<PeriodId>,
    pub(crate) stored_windows: BTreeSet<StartedWindow>,
    pub(crate) held: BTreeSet<ProbeId>,
    pub(crate) checking: BTreeSet<ProbeId>,
    /// Users' requests that ended, by (period, task, miner).
    pub(crate) organic: BTreeMap<(PeriodId, TaskName, Hotkey), u64>,
    asked_organic: BTreeMap<u64, (TaskName, Hotkey)>,
    pub(crate) left: BTreeMap<ProbeId, u64>,
    pub(crate) outcomes: Vec<PeriodOutcome>,
    pub(crate) log: Vec<(u64, Effect)>,
    pub(crate) under_way: BTreeSet<ProbeId>,
    pub(crate) drained: bool,
}

impl World {
    pub(crate) fn new(config: ScheduleConfig, miners: Vec<(MinerRef, Character)>) -> Self {
        let mut world = Self {
            now: START,
            latest: START,
            schedule: Schedule::new(config, MasterSeed::from_bytes([9; 32]), Resume::default()).unwrap(),
            present: miners.iter().map(|(m, _)| *m).collect(),
            miners: miners.into_iter().map(|(m, c)| (m.hotkey, c)).collect(),
            later: Later::new(),
            made: 0,
            disk_us: 1_000,
            max_checks: 64,
            judge_us: 100_000,
            disk: Resume::default(),
            settled: BTreeMap::new(),
            stored_plans: BTreeSet::new(),
            stored_windows: BTreeSet::new(),
            held: BTreeSet::new(),
            checking: BTreeSet::new(),
            organic: BTreeMap::new(),
            asked_organic: BTreeMap::new(),
            left: BTreeMap::new(),
            outcomes: Vec::new(),
            log: Vec::new(),
            under_way: BTreeSet::new(),
            drained: false,
        };
        world.event(Event::Metagraph(world.present.clone()));
        world
    }

    fn later(&mut self, after_us: u64, event: Event) {
        self.made += 1;
        self.later.insert((self.now + after_us, self.made), event);
    }

    /// Lets an event happen now.
    pub(crate) fn event(&mut self, event: Event) {
        self.latest = self.latest.max(self.now);
        let event = self.as_booked(event);
        self.remember(&event);
        let effects = self.schedule.step(self.now, event);
        for effect in effects {
            self.obey(effect);
        }
        assert!(
            self.schedule.next_wake_us().is_none_or(|t| t > self.now),
            "a wake-up in the past never ends"
        );
    }

    /// An event that is not true: nothing of it is on disk.
    pub(crate) fn rumour(&mut self, event: Event) {
        let effects = self.schedule.step(self.now, event);
        for effect in effects {
            self.obey(effect);
        }
    }

    /// Who writes an end down and comes second says the first.
    fn as_booked(&self, event: Event) -> Event {
        match event {
            Event::Finished(f) => {
                let known = self.disk.finished.iter().find(|known| known.probe == f.probe);
                Event::Finished(known.cloned().unwrap_or(f))
            }
            other => other,
        }
    }

    /// What the validator writes down before it tells the machine.
    fn remember(&mut self, event: &Event) {
        match event {
            Event::PlanStored { period } => {
                self.stored_plans.insert(*period);
            }
            Event::Finished(f) => {
                self.under_way.remove(&f.probe);
                if !self.disk.finished.iter().any(|known| known.probe == f.probe) {
                    self.disk.finished.push(f.clone());
                }
            }
            Event::WindowStored { window } if self.stored_windows.insert(window.clone()) => {
                self.disk.windows.push(window.clone());
            }
            Event::OrganicAsked(r) => {
                self.asked_organic.insert(r.id, (r.task.clone(), r.miner));
            }
            Event::OrganicFinished { id, .. } => {
                if let Some((task, miner)) = self.asked_organic.remove(id)
                    && let Some(period) = self.schedule.status().running
                {
                    *self.organic.entry((period, task, miner)).or_default() += 1;
                }
            }
            Event::Judged { probe } => {
                self.checking.remove(probe);
                self.disk.judged.insert(probe.clone());
            }
            Event::Settled { period } => {
                self.disk.plans.retain(|p| p.period != *period);
            }
            _ => {}
        }
    }

    fn obey(&mut self, effect: Effect) {
        self.log.push((self.now, effect.clone()));
        match effect {
            Effect::Announce { period, miners, deadline_us } => {
                assert!(deadline_us > self.now);
                for m in miners {
                    if let Some(result) = self.miners.get(&m.hotkey).and_then(|c| c.announces.clone()) {
                        self.later(50_000, Event::Announced { period, miner: m.hotkey, result });
                    }
                }
            }
            Effect::StorePlan(plan) => {
                self.disk.next_period = plan.period.0 + 1;
                let period = plan.period;
                self.disk.plans.push(plan);
                self.later(self.disk_us, Event::PlanStored { period });
            }
            Effect::Dispatch(probe) => {
                assert!(self.stored_plans.contains(&probe.id.period), "the plan was not on disk");
                assert!(self.left.insert(probe.id.clone(), self.now).is_none(), "{:?} left twice", probe.id);
                assert!(probe.due_us <= self.latest);
                self.disk.dispatched.insert(probe.id.clone());
                self.under_way.insert(probe.id.clone());
                let character = self.miners[&probe.id.miner].clone();
                let units = if character.class == ProbeClass::Answered { probe.expected_units } else { 0 };
                let took_us = character.answers_after_us;
                let end = FinishedProbe { probe: probe.id, class: character.class, units, took_us };
                self.later(character.answers_after_us, Event::Finished(end));
            }
            Effect::Judge(probe) => {
                assert!(self.left.contains_key(&probe), "{probe:?} was never asked");
                assert!(self.checking.insert(probe.clone()), "{probe:?} is being judged already");
                assert!(self.checking.len() <= self.max_checks);
                self.later(self.judge_us, Event::Judged { probe });
            }
            Effect::Unchecked(_) => {}
            Effect::DispatchOrganic(id) => {
                let end = Event::OrganicFinished { id, class: ProbeClass::Answered, units: 300 };
                self.later(2 * S, end);
            }
            Effect::StoreWindow(window) => self.later(self.disk_us, Event::WindowStored { window }),
            Effect::HeldBack(probe) => {
                assert!(!self.left.contains_key(&probe), "{probe:?} left and was held back");
                assert!(self.held.insert(probe.clone()));
                let class = ProbeClass::Ours(OursFault::HeldBack);
                self.disk.finished.push(FinishedProbe { probe, class, units: 0, took_us: 0 });
            }
            Effect::Interrupted(probe) => {
                self.under_way.remove(&probe);
                let class = ProbeClass::Ours(OursFault::Interrupted);
                // The first end on the books is the end; who writes is served in the order of asking.
                let known = self.disk.finished.iter().find(|f| f.probe == probe).cloned();
                let end = known.unwrap_or_else(|| {
                    let end = FinishedProbe { probe, class, units: 0, took_us: 0 };
                    self.disk.finished.push(end.clone());
                    end
                });
                self.later(self.disk_us, Event::Finished(end));
            }
            Effect::Settle(outcome) => {
                self.check(&outcome);
                let period = outcome.period;
                self.outcomes.push(outcome.clone());
                self.settled.insert(period, outcome);
                self.later(self.disk_us, Event::Settled { period });
            }
            Effect::Drained => self.drained = true,
        }
    }

    /// Invariant 4: every probe that left is in exactly one row, once; the others are skipped.
    fn check(&self, outcome: &PeriodOutcome) {
        let plan = self.disk.plans.iter().find(|p| p.period == outcome.period).unwrap();
        assert_eq!(outcome.rows.len(), plan.entries.len());
        for row in &outcome.rows {
            let left = self
                .left
                .keys()
                .filter(|p| p.period == row.period && p.task == row.task && p.miner == row.miner)
                .count();
            let organic = self.organic.get(&(row.period, row.task.clone(), row.miner)).copied().unwrap_or(0);
            assert_eq!(row.tally.total() + row.tally.ours, left as u64 + organic, "{row:?}");
        }
        let left = self.left.keys().filter(|p| p.period == outcome.period).count();
        let windows = self.stored_windows.iter().filter(|w| w.period == outcome.period);
        let of_beacons: usize = windows.map(|w| plan.beacon_probes(w).count()).sum();
        assert_eq!(outcome.skipped as usize + left, plan.len() + of_beacons);
        for row in &outcome.rows {
            for w in &row.windows {
                assert!(w.asked > 0 && w.delivered <= w.asked, "{w:?}");
            }
        }
        assert!(self.under_way.iter().all(|p| p.period != outcome.period));
        if let Some(before) = self.settled.get(&outcome.period) {
            // How many replies it settled without is no part of the promise: after the crash the checker had
            // longer for them.
            let again = PeriodOutcome { unjudged: before.unjudged, ..outcome.clone() };
            assert_eq!(before, &again, "a second settlement after a crash has the same rows");
        }
    }

    /// The next thing happens, if it does by this time.
    pub(crate) fn next(&mut self, by_us: u64) -> bool {
        let event = self.later.first_key_value().map(|((t, _), _)| *t);
        let tick = self.schedule.next_wake_us();
        let Some(at) = [event, tick].into_iter().flatten().min().filter(|t| *t <= by_us) else {
            self.now = self.now.max(by_us);
            return false;
        };
        self.now = self.now.max(at);
        if event == Some(at)
            && let Some((_, event)) = self.later.pop_first()
        {
            self.event(event);
        } else {
            self.event(Event::Tick);
        }
        true
    }

    pub(crate) fn run_until(&mut self, by_us: u64) {
        while self.next(by_us) {}
    }

    /// `kill -9`: only the disk stays. Comes up again after this long.
    pub(crate) fn crash(&mut self, config: ScheduleConfig, down_us: u64) {
        self.later.clear();
        self.under_way.clear();
        self.checking.clear();
        self.now += down_us;
        self.stored_plans = self.disk.plans.iter().map(|p| p.period).collect();
        self.schedule = Schedule::new(config, MasterSeed::from_bytes([9; 32]), self.disk.clone()).unwrap();
        self.event(Event::Metagraph(self.present.clone()));
    }

    pub(crate) fn periods_of_log(&self) -> Vec<(u64, PeriodId, u64, u64)> {
        self.log
            .iter()
            .filter_map(|(at, e)| match e {
                Effect::StorePlan(p) => Some((*at, p.period, p.started_us, p.ended_us)),
                _ => None,
            })
            .collect()
    }
}

pub(crate) fn failing() -> ProbeClass {
    ProbeClass::Failed(Failure::Status)
}
