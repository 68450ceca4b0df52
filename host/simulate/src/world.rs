//! The simulated subnet: validators, miners and a chain on one made-up clock.
//!
//! A heap of what happens, by time and order of its making. Validators are the schedule's own code; disks answer
//! at once. A task is a world of its own: miners' machines, a validator's schedule and its checkers are divided
//! by task, and only weights bring tasks together.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use nineteen_domain::ledger::{Failure, OursFault, ProbeClass};
use nineteen_domain::policy::{Layout, Policy};
use nineteen_domain::{Hotkey, ProbeId, Uid};
use nineteen_schedule::{Block, Effect, Event, FinishedProbe, MinerRef, PlannedProbe, starts_window};

use crate::error::SimulateError;
use crate::machine::{Machine, float, micros};
use crate::rng::Rng;
use crate::setting::{BLOCK_US, Checks, GRACE_US, LENGTH_SPREAD, NETUID, START_US, Work};
use crate::strategy::{Asked, Reply, Seen, Strategy};
use crate::validator::{Answer, Validator};

/// How long an announcement, a 429 or a failure takes, in microseconds.
const QUICK_US: u64 = 60_000;

/// What a world is made of.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) policy: Policy,
    pub(crate) work: Work,
    pub(crate) periods: u64,
    pub(crate) validators: usize,
    pub(crate) seed: u64,
    pub(crate) checks: Checks,
    /// Weights are computed at the end of every so many periods.
    pub(crate) settle_every: u64,
}

/// Someone with machines and hotkeys.
pub(crate) struct Owner {
    /// For reports.
    pub(crate) kind: &'static str,
    /// Number of hotkeys.
    pub(crate) keys: usize,
    pub(crate) machines: Vec<Machine>,
    pub(crate) strategy: Box<dyn Strategy>,
}

/// A hotkey that was ever registered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) hotkey: Hotkey,
    pub(crate) owner: usize,
    /// Which of its owner's.
    pub(crate) index: usize,
    pub(crate) uid: Uid,
    /// Still registered.
    pub(crate) here: bool,
}

#[derive(Debug)]
enum Happening {
    Start(usize),
    Wake(usize),
    Block(Block),
    Finished(usize, FinishedProbe),
    Judged(usize, ProbeId),
}

/// When something happens; what, is kept beside, so that the heap moves little.
#[derive(Debug)]
struct Entry {
    at_us: u64,
    made: u64,
    place: usize,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.made == other.made
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The earliest is the greatest: what a heap gives first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.made).cmp(&(self.at_us, self.made))
    }
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) rate_limited: u64,
    pub(crate) failed: u64,
    pub(crate) held_back: u64,
    pub(crate) judged: u64,
    pub(crate) unchecked: u64,
    pub(crate) interrupted: u64,
}

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) owners: Vec<Owner>,
    pub(crate) keys: Vec<Key>,
    pub(crate) validators: Vec<Validator>,
    pub(crate) counts: Counts,
    heap: BinaryHeap<Entry>,
    /// What happens, by the places that the heap names.
    happenings: Vec<Option<Happening>>,
    /// Places of them that are empty.
    empty: Vec<usize>,
    made: u64,
    now_us: u64,
    block: u64,
    per_block: f64,
}

impl World {
    pub(crate) fn new(setup: Setup, owners: Vec<Owner>) -> Result<Self, SimulateError> {
        let per_block = match setup.policy.planning.layout {
            Layout::Windows(w) => w.beacons_per_period * float(BLOCK_US) / float(setup.work.period_us),
            Layout::Even | Layout::Burst(_) => 0.0,
        };
        let mut world = Self {
            validators: (0..setup.validators).map(|v| Validator::new(&setup, v)).collect::<Result<_, _>>()?,
            setup,
            keys: Vec::new(),
            owners,
            counts: Counts::default(),
            heap: BinaryHeap::new(),
            happenings: Vec::new(),
            empty: Vec::new(),
            made: 0,
            now_us: START_US,
            block: 0,
            per_block,
        };
        let places: Vec<(usize, usize)> = world
            .owners
            .iter()
            .enumerate()
            .flat_map(|(o, owner)| (0..owner.keys).map(move |i| (o, i)))
            .collect();
        for (owner, index) in places {
            let uid = Uid(u16::try_from(world.keys.len())
                .map_err(|_| SimulateError::Setup { why: "more hotkeys than a subnet has places".into() })?);
            world.register(owner, index, uid);
        }
        for v in 0..world.setup.validators {
            let mut rng = Rng::of(&[world.setup.seed, 11, v as u64]);
            // The first starts with the clock; the others somewhere in its period.
            let offset = if v == 0 { 0.0 } else { rng.unit() };
            let after = micros(offset * float(world.setup.work.period_us));
            world.push(START_US + after, Happening::Start(v));
        }
        world.next_block();
        Ok(world)
    }

    /// Runs every validator through its periods.
    pub(crate) fn run(&mut self) -> Result<(), SimulateError> {
        self.run_until(START_US + (self.setup.periods + 1) * self.setup.work.period_us + 2 * GRACE_US)
    }

    /// Runs up to this time, microseconds of the Unix epoch.
    pub(crate) fn run_until(&mut self, by_us: u64) -> Result<(), SimulateError> {
        while self.heap.peek().is_some_and(|e| e.at_us <= by_us) {
            let Some(entry) = self.heap.pop() else { break };
            self.now_us = entry.at_us;
            let Some(what) = self.happenings.get_mut(entry.place).and_then(Option::take) else { continue };
            self.empty.push(entry.place);
            match what {
                Happening::Start(v) => {
                    let here = self.present();
                    self.tell(v, Event::Metagraph(here))?;
                }
                Happening::Wake(v) => {
                    if self.validators.get(v).is_some_and(|x| x.wake_us == Some(entry.at_us)) {
                        self.tell(v, Event::Tick)?;
                    }
                }
                Happening::Finished(v, end) => self.tell(v, Event::Finished(end))?,
                Happening::Judged(v, probe) => {
                    let key = key_of(&probe.miner);
                    if let Some(x) = self.validators.get_mut(v) {
                        x.judged(key, &probe, entry.at_us, self.setup.work.period_us);
                        self.counts.judged += 1;
                    }
                    self.tell(v, Event::Judged { probe })?;
                }
                Happening::Block(block) => {
                    self.owners.iter_mut().for_each(|o| o.strategy.beacon(entry.at_us));
                    for v in 0..self.validators.len() {
                        self.tell(v, Event::Block(block))?;
                    }
                    self.next_block();
                }
            }
        }
        self.now_us = self.now_us.max(by_us);
        Ok(())
    }

    fn push(&mut self, at_us: u64, what: Happening) {
        self.made += 1;
        let place = self.empty.pop().unwrap_or(self.happenings.len());
        match self.happenings.get_mut(place) {
            Some(free) => *free = Some(what),
            None => self.happenings.push(Some(what)),
        }
        self.heap.push(Entry { at_us, made: self.made, place });
    }

    /// The next block that starts a window; the others change nothing.
    fn next_block(&mut self) {
        if self.per_block <= 0.0 {
            return;
        }
        let last = (self.setup.periods + 3) * self.setup.work.period_us / BLOCK_US;
        while self.block < last {
            self.block += 1;
            let hash = Rng::of(&[self.setup.seed, 12, self.block]).bytes();
            if starts_window(&hash, NETUID, &self.setup.work.task, self.per_block) {
                let number = self.block;
                return self.push(START_US + number * BLOCK_US, Happening::Block(Block { number, hash }));
            }
        }
    }

    fn register(&mut self, owner: usize, index: usize, uid: Uid) {
        let at = self.keys.len();
        let mut bytes = Rng::of(&[self.setup.seed, 13, at as u64]).bytes();
        // Its number is in it, so that nothing has to be looked up.
        for (to, from) in bytes.iter_mut().skip(8).zip((at as u64).to_le_bytes()) {
            *to = from;
        }
        self.keys.push(Key { hotkey: Hotkey::from_bytes(bytes), owner, index, uid, here: true });
    }

    fn present(&self) -> Vec<MinerRef> {
        self.keys.iter().filter(|k| k.here).map(|k| MinerRef { uid: k.uid, hotkey: k.hotkey }).collect()
    }

    /// Gives a validator's schedule an event, does what follows, and everything that follows at once from that.
    fn tell(&mut self, v: usize, event: Event) -> Result<(), SimulateError> {
        let mut events = VecDeque::from([event]);
        let mut moved = false;
        while let Some(event) = events.pop_front() {
            let Some(validator) = self.validators.get_mut(v) else { return Ok(()) };
            let effects = validator.schedule.step(self.now_us, event);
            for effect in effects {
                moved |= self.obey(v, effect, &mut events)?;
            }
        }
        if let Some(validator) = self.validators.get_mut(v) {
            let wake = validator.schedule.next_wake_us();
            if wake != validator.wake_us {
                validator.wake_us = wake;
                if let Some(at) = wake {
                    self.push(at, Happening::Wake(v));
                }
            }
        }
        if moved {
            let here = self.present();
            for v in 0..self.validators.len() {
                if self.validators.get(v).is_some_and(|x| x.wake_us.is_some()) {
                    self.tell(v, Event::Metagraph(here.clone()))?;
                }
            }
        }
        Ok(())
    }

    /// Says whether someone registered anew.
    fn obey(
        &mut self,
        v: usize,
        effect: Effect,
        events: &mut VecDeque<Event>,
    ) -> Result<bool, SimulateError> {
        match effect {
            Effect::Announce { period, miners, .. } => {
                // Last first: whether all have answered is then seen at the first that has not.
                for miner in miners.iter().rev() {
                    let announced = self.announced(v, period.0, &miner.hotkey);
                    let task = self.setup.work.task.clone();
                    let result = announced.map(|c| [(task, Ok(c))].into()).ok_or_else(|| "silent".to_owned());
                    events.push_back(Event::Announced { period, miner: miner.hotkey, result });
                }
            }
            Effect::StorePlan(plan) => events.push_back(Event::PlanStored { period: plan.period }),
            Effect::StoreWindow(window) => events.push_back(Event::WindowStored { window }),
            Effect::Dispatch(probe) => self.dispatch(v, probe),
            Effect::Judge(probe) => {
                self.push(self.now_us + self.setup.checks.each_us, Happening::Judged(v, probe));
            }
            Effect::Unchecked(probe) => {
                self.counts.unchecked += 1;
                if let Some(x) = self.validators.get_mut(v) {
                    x.forget(key_of(&probe.miner), &probe);
                }
            }
            Effect::HeldBack(_) => self.counts.held_back += 1,
            Effect::Interrupted(probe) => {
                self.counts.interrupted += 1;
                let class = ProbeClass::Ours(OursFault::Interrupted);
                events.push_back(Event::Finished(FinishedProbe { probe, class, units: 0, took_us: 0 }));
            }
            Effect::Settle(outcome) => {
                let period = outcome.period;
                let Some(x) = self.validators.get_mut(v) else { return Ok(false) };
                let standing = x.settle(&self.setup, outcome, &self.keys, self.now_us)?;
                events.push_back(Event::Settled { period });
                if let Some(standing) = standing {
                    events.push_back(Event::Standing(standing));
                    return Ok(self.weighed(v));
                }
            }
            Effect::DispatchOrganic(_) | Effect::Drained => {}
        }
        Ok(false)
    }

    fn announced(&mut self, validator: usize, period: u64, hotkey: &Hotkey) -> Option<f64> {
        let key = self.keys.get(key_of(hotkey))?;
        let owner = self.owners.get_mut(key.owner)?;
        let began = self.validators.get(validator).map_or(0, |x| x.next_start_us);
        let asked = Asked {
            work: &self.setup.work,
            key: key.index,
            keys: owner.keys,
            validator,
            validators: self.setup.validators,
            period,
            periods: self.setup.periods,
            now_us: began.max(self.now_us),
        };
        owner.strategy.announce(&asked, &owner.machines)
    }

    fn dispatch(&mut self, v: usize, probe: PlannedProbe) {
        let at = key_of(&probe.id.miner);
        let Some(key) = self.keys.get(at) else { return };
        let Some(owner) = self.owners.get_mut(key.owner) else { return };
        let seed = self.setup.seed;
        let mut rng =
            Rng::of(&[seed, 14, v as u64, key.uid.0.into(), probe.id.period.0, probe.id.slot.into()]);
        // Its mean is the expected length.
        let length = (LENGTH_SPREAD * rng.normal() - LENGTH_SPREAD * LENGTH_SPREAD / 2.0).exp();
        let seen = Seen {
            work: &self.setup.work,
            key: key.index,
            validator: v,
            now_us: self.now_us,
            units: micros(length * float(probe.expected_units)).max(1),
        };
        let reply =
            if key.here { owner.strategy.reply(&seen, &mut owner.machines, &mut rng) } else { Reply::Failed };
        self.counts.sent += 1;
        let (class, units, took_us) = match reply {
            Reply::RateLimited => {
                self.counts.rate_limited += 1;
                (ProbeClass::RateLimited, 0, QUICK_US)
            }
            Reply::Failed => {
                self.counts.failed += 1;
                (ProbeClass::Failed(Failure::Status), 0, QUICK_US)
            }
            Reply::Answered { served, quality } => {
                self.counts.answered += 1;
                if let Some(x) = self.validators.get_mut(v) {
                    let answer = Answer {
                        quality,
                        units: seen.units,
                        response_us: served.end_us,
                        first_unit_us: served.first_us,
                    };
                    x.answered(at, &probe.id, answer);
                }
                (ProbeClass::Answered, seen.units, served.end_us)
            }
        };
        if let Some(x) = self.validators.get_mut(v) {
            x.sent(probe.id.period.0);
        }
        let end = FinishedProbe { probe: probe.id, class, units, took_us };
        self.push(self.now_us + took_us, Happening::Finished(v, end));
    }

    /// Tells owners what they earned; says whether one registered anew.
    fn weighed(&mut self, v: usize) -> bool {
        let Some(x) = self.validators.get(v) else { return false };
        let mut own: Vec<Vec<f64>> = self.owners.iter().map(|o| vec![0.0; o.keys]).collect();
        for (key, weight) in self.keys.iter().zip(&x.weights).filter(|(k, _)| k.here) {
            if let Some(w) = own.get_mut(key.owner).and_then(|o| o.get_mut(key.index)) {
                *w = *weight;
            }
        }
        let mean = 1.0 / float(self.owners.len().max(1) as u64);
        let anew: Vec<usize> = self
            .owners
            .iter_mut()
            .zip(&own)
            .enumerate()
            .filter_map(|(at, (owner, own))| owner.strategy.weighed(own, mean).then_some(at))
            .collect();
        for owner in &anew {
            let old = self.keys.iter_mut().find(|k| k.here && k.owner == *owner && k.index == 0);
            let Some(old) = old else { continue };
            old.here = false;
            let uid = old.uid;
            self.register(*owner, 0, uid);
        }
        !anew.is_empty()
    }

    /// What an owner's hotkeys earned: the sum of their weights over all settlements, the mean over validators.
    pub(crate) fn reward(&self, owner: usize) -> f64 {
        let of = |x: &Validator| -> f64 {
            self.keys.iter().zip(&x.earned).filter(|(k, _)| k.owner == owner).map(|(_, e)| *e).sum()
        };
        self.validators.iter().map(of).sum::<f64>() / float(self.validators.len().max(1) as u64)
    }

    /// Slot time that an owner's machines spent, in microseconds.
    pub(crate) fn busy_us(&self, owner: usize) -> u64 {
        self.owners.get(owner).map_or(0, |o| o.machines.iter().map(|m| m.busy_us).sum())
    }
}

/// The number of a hotkey among all that were ever registered.
pub(crate) fn key_of(hotkey: &Hotkey) -> usize {
    let number = hotkey.as_bytes().iter().skip(8).take(8).rev().fold(0_u64, |n, b| n << 8 | u64::from(*b));
    usize::try_from(number).unwrap_or(usize::MAX)
}
