//! The machine: what follows from an event at a time.
//!
//! Each step first takes the event in and then does everything that has become possible by now, in this order:
//! drop what is too late, send what is due, close what is over, give up what is past its grace, settle the
//! oldest period, announce, plan. So every rule stands in one place, whichever event made it apply.

use std::collections::{BTreeMap, BTreeSet};

use nineteen_domain::ledger::{OursFault, PeriodRow, ProbeClass};
use nineteen_domain::policy::{Layout, Scoring, Windows};
use nineteen_domain::{Hotkey, MasterSeed, PeriodId, ProbeId, Seed, TaskName, Uid};

use crate::beacon::starts_window;
use crate::checks::CheckQueue;
use crate::error::ScheduleError;
use crate::period::Period;
use crate::plan;
use crate::queue::Queue;
use crate::types::{
    Announcement, Block, Effect, Event, FinishedProbe, MinerRef, OrganicRequest, PeriodPlan, Resume,
    ScheduleConfig, StartedWindow, Status,
};

/// A probe that was due before its period's end may leave this long after it: timers are not exact.
const LATE_US: u64 = 1_000_000;

/// The schedule of one validator. See the crate for what it promises.
#[derive(Debug)]
pub struct Schedule {
    config: ScheduleConfig,
    seed: MasterSeed,
    /// The secret order of the period that was last asked for.
    choice: Option<(PeriodId, Seed)>,
    /// Taken in by the first step, which is the first to know the time.
    resume: Option<Resume>,
    /// The metagraph; nothing is asked or sent before there is one.
    miners: Option<BTreeMap<Hotkey, Uid>>,
    /// Planned and not settled.
    periods: BTreeMap<PeriodId, Period>,
    queue: Queue,
    checks: CheckQueue,
    /// Requests of users that have not ended, and whether they left.
    organic: BTreeMap<u64, (OrganicRequest, bool)>,
    /// The newest block that was read.
    block: u64,
    /// For how many settled periods in a row every window was sustained.
    streaks: BTreeMap<(TaskName, Hotkey), u32>,
    /// Rows that were handed out and are not known to be on disk.
    unsettled_rows: Vec<PeriodRow>,
    announcing: Option<Announcing>,
    next_period: PeriodId,
    /// End of the newest planned period: where the next begins.
    tail_us: Option<u64>,
    stopping: bool,
    drained: bool,
}

#[derive(Debug)]
struct Announcing {
    period: PeriodId,
    deadline_us: u64,
    asked: BTreeMap<Hotkey, Uid>,
    answers: BTreeMap<Hotkey, Announcement>,
}

impl Schedule {
    /// A machine that goes on from what is on disk; [`Resume::default`] at the first start. Nothing happens
    /// before the first [`Schedule::step`].
    ///
    /// # Errors
    /// [`ScheduleError`] for settings that make no schedule.
    pub fn new(config: ScheduleConfig, seed: MasterSeed, resume: Resume) -> Result<Self, ScheduleError> {
        plan::check(&config)?;
        Ok(Self {
            queue: Queue::new(config.max_in_flight, config.max_in_flight_per_miner),
            checks: CheckQueue::new(config.max_checks, config.max_backlog),
            organic: BTreeMap::new(),
            block: 0,
            streaks: BTreeMap::new(),
            unsettled_rows: Vec::new(),
            config,
            seed,
            choice: None,
            resume: Some(resume),
            miners: None,
            periods: BTreeMap::new(),
            announcing: None,
            next_period: PeriodId(0),
            tail_us: None,
            stopping: false,
            drained: false,
        })
    }

    /// Takes an event in at this time, microseconds of the Unix epoch, and says what shall be done. Events that
    /// make no sense (any more) are ignored.
    pub fn step(&mut self, now_us: u64, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(resume) = self.resume.take() {
            self.go_on(now_us, resume, &mut effects);
        }
        self.take_in(now_us, event, &mut effects);
        self.advance(now_us, &mut effects);
        effects
    }

    /// When the machine wants an [`Event::Tick`]; always after the time of the last step. `None` while it waits
    /// for other events alone.
    #[must_use]
    pub fn next_wake_us(&self) -> Option<u64> {
        let grace = self.config.settle_grace_us;
        let periods = self.periods.values().filter_map(|p| {
            let end = p.plan.ended_us;
            match (p.closed, p.is_waiting() && !p.is_overdue()) {
                (false, _) => Some(end),
                (true, true) => Some(end.saturating_add(grace)),
                (true, false) => None,
            }
        });
        let starting = if self.stopping || self.miners.is_none() {
            [None, None]
        } else {
            let announce = match &self.announcing {
                Some(a) => Some(a.deadline_us),
                None if self.has_room_for_a_period() => self.announce_us(),
                None => None,
            };
            [self.queue.next_due_us(), announce]
        };
        periods.chain(starting.into_iter().flatten()).chain(self.queue.next_expiry_us()).min()
    }

    /// Where the machine stands, at the time of the last step.
    #[must_use]
    pub fn status(&self) -> Status {
        let running = self.periods.values().find(|p| !p.closed);
        Status {
            running: running.map(|p| p.plan.period),
            ends_us: running.map(|p| p.plan.ended_us),
            choice: running.and_then(|p| p.plan.choice),
            settling: self.periods.values().filter(|p| p.closed).map(|p| p.plan.period).collect(),
            announcing: self.announcing.as_ref().map(|a| a.period),
            in_flight: self.queue.in_flight(),
            waiting: self.queue.waiting(),
            planned: self.queue.planned(),
            unjudged: self.periods.values().map(Period::unjudged).sum(),
            backlog: self.checks.backlog(),
            unchecked: self.checks.dropped(),
        }
    }

    /// The plan of a period that is not settled.
    #[must_use]
    pub fn plan(&self, period: PeriodId) -> Option<&PeriodPlan> {
        self.periods.get(&period).map(|p| &p.plan)
    }

    /// Builds the periods that were not settled up again. What had left and not ended is ours; what had not
    /// left and is not due yet will leave; the rest is skipped, for a burst of what is overdue would test
    /// something else than the plan meant.
    fn go_on(&mut self, now_us: u64, resume: Resume, effects: &mut Vec<Effect>) {
        let mut finished: BTreeMap<ProbeId, FinishedProbe> = BTreeMap::new();
        let mut unjudged = Vec::new();
        for f in resume.finished {
            finished.entry(f.probe.clone()).or_insert(f);
        }
        self.next_period = PeriodId(resume.next_period);
        self.streaks = resume.streaks.into_iter().map(|(task, miner, n)| ((task, miner), n)).collect();
        self.block = resume.windows.iter().map(|w| w.block).max().unwrap_or(0);
        for plan in resume.plans {
            self.next_period = self.next_period.max(plan.period.next());
            self.tail_us = self.tail_us.max(Some(plan.ended_us));
            if self.periods.contains_key(&plan.period) {
                continue;
            }
            let mut period = Period::new(plan, true);
            let mut probes: Vec<_> = period.plan.probes().collect();
            let of = period.plan.period;
            for window in resume.windows.iter().filter(|w| w.period == of) {
                probes.extend(period.window_stored(window));
            }
            for probe in probes {
                if let Some(end) = finished.get(&probe.id) {
                    if end.class == ProbeClass::Ours(OursFault::HeldBack) {
                        period.hold_back(&probe.id);
                        continue;
                    }
                    period.sent(probe.id.clone());
                    period.finish(&probe.id, end.class, end.units, end.took_us);
                    if end.class == ProbeClass::Answered && !resume.judged.contains(&probe.id) {
                        period.await_judgement(probe.id.clone());
                        unjudged.push(probe.id);
                    }
                } else if resume.dispatched.contains(&probe.id) {
                    period.sent(probe.id.clone());
                    period.finish(&probe.id, ProbeClass::Ours(OursFault::Interrupted), 0, 0);
                    effects.push(Effect::Interrupted(probe.id));
                } else if probe.due_us < now_us {
                    period.skip(&probe.id);
                } else {
                    self.queue.add(probe);
                }
            }
            self.periods.insert(period.plan.period, period);
        }
        for probe in unjudged {
            self.check(probe, effects);
        }
    }

    /// Its place in the secret order of its period. The last period's seed is kept: answers come by period.
    fn rank(&mut self, probe: &ProbeId) -> u64 {
        let choice = match self.choice.take() {
            Some((period, seed)) if period == probe.period => seed,
            _ => self.seed.choice(probe.period),
        };
        let rank = choice.rank(probe);
        self.choice = Some((probe.period, choice));
        rank
    }

    /// Puts an answer into the line for the checkers.
    fn check(&mut self, probe: ProbeId, effects: &mut Vec<Effect>) {
        let rank = self.rank(&probe);
        if let Some(gone) = self.checks.add(rank, probe) {
            if let Some(period) = self.periods.get_mut(&gone.period) {
                period.judged(&gone);
            }
            effects.push(Effect::Unchecked(gone));
        }
    }

    fn take_in(&mut self, now_us: u64, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => {}
            Event::Metagraph(miners) => self.metagraph(miners, effects),
            Event::Tasks(tasks) => {
                let mut seen = BTreeSet::new();
                self.config.tasks = tasks.into_iter().filter(|t| seen.insert(t.name.clone())).collect();
            }
            Event::Announced { period, miner, result } => {
                if let Some(a) = self.announcing.as_mut().filter(|a| a.period == period)
                    && a.asked.contains_key(&miner)
                {
                    a.answers.entry(miner).or_insert(result);
                }
            }
            Event::PlanStored { period } => self.plan_stored(now_us, period),
            Event::Block(block) => self.read_block(now_us, block, effects),
            Event::WindowStored { window } => self.window_stored(now_us, &window),
            Event::Finished(f) => {
                if let Some(period) = self.periods.get_mut(&f.probe.period)
                    && period.finish(&f.probe, f.class, f.units, f.took_us)
                {
                    self.queue.done(f.probe.miner, &f.probe.task);
                    if f.class == ProbeClass::Answered {
                        period.await_judgement(f.probe.clone());
                        self.check(f.probe, effects);
                    }
                }
            }
            Event::OrganicAsked(request) => {
                if !self.stopping && !self.organic.contains_key(&request.id) {
                    self.queue.add_organic(request.miner, request.task.clone(), request.id);
                    self.organic.insert(request.id, (request, false));
                }
            }
            Event::OrganicFinished { id, class, units } => self.organic_finished(id, class, units),
            Event::Standing(standing) => self.checks.weigh(standing),
            Event::Judged { probe } => {
                self.checks.done(&probe);
                if let Some(period) = self.periods.get_mut(&probe.period) {
                    period.judged(&probe);
                }
            }
            Event::Settled { period } => {
                if self.periods.get(&period).is_some_and(|p| p.settling) {
                    self.periods.remove(&period);
                    for row in std::mem::take(&mut self.unsettled_rows) {
                        self.count_streak(row);
                    }
                }
            }
            Event::Shutdown => self.stopping = true,
        }
    }

    /// Whoever left gets nothing more; whoever came while announcements are gathered is asked as well.
    fn metagraph(&mut self, miners: Vec<MinerRef>, effects: &mut Vec<Effect>) {
        let miners: BTreeMap<Hotkey, Uid> = miners.into_iter().map(|m| (m.hotkey, m.uid)).collect();
        self.skip(|id| !miners.contains_key(&id.miner));
        if let Some(a) = self.announcing.as_mut().filter(|_| !self.stopping) {
            let new: Vec<MinerRef> = miners
                .iter()
                .filter(|(hotkey, _)| !a.asked.contains_key(hotkey))
                .map(|(hotkey, uid)| MinerRef { uid: *uid, hotkey: *hotkey })
                .collect();
            a.asked.clone_from(&miners);
            if !new.is_empty() {
                effects.push(Effect::Announce { period: a.period, miners: new, deadline_us: a.deadline_us });
            }
        }
        self.miners = Some(miners);
    }

    fn plan_stored(&mut self, now_us: u64, period: PeriodId) {
        let Some(stored) = self.periods.get_mut(&period).filter(|p| !p.stored) else { return };
        stored.stored = true;
        let over = stored.closed || now_us >= stored.plan.ended_us;
        let probes: Vec<_> = stored.plan.probes().collect();
        for probe in probes {
            if !over && self.miners.as_ref().is_some_and(|m| m.contains_key(&probe.id.miner)) {
                self.queue.add(probe);
            } else {
                stored.skip(&probe.id);
            }
        }
    }

    const fn windows(&self) -> Option<Windows> {
        match self.config.policy.planning.layout {
            Layout::Windows(w) => Some(w),
            Layout::Even | Layout::Burst(_) => None,
        }
    }

    /// What a block says to the periods that run.
    fn read_block(&mut self, now_us: u64, block: Block, effects: &mut Vec<Effect>) {
        if self.stopping || block.number <= self.block {
            return;
        }
        self.block = block.number;
        let Some(windows) = self.windows() else { return };
        #[expect(clippy::cast_precision_loss, reason = "a ratio of two lengths of time")]
        let per_block =
            windows.beacons_per_period * self.config.block_us as f64 / self.config.period_us as f64;
        let tasks = self.config.tasks.iter().map(|t| &t.name);
        let chosen: Vec<TaskName> =
            tasks.filter(|t| starts_window(&block.hash, self.config.netuid, t, per_block)).cloned().collect();
        for period in self.periods.values_mut() {
            let runs = (period.plan.started_us..period.plan.ended_us).contains(&now_us);
            if period.stored && !period.closed && runs {
                let started = chosen.iter().filter_map(|t| period.start_window(t, block.number, now_us));
                effects.extend(started.map(Effect::StoreWindow));
            }
        }
    }

    /// The beacon's window goes before what else is planned of its task for as long as it lasts: twice the
    /// announced rate would be more than anybody said.
    fn window_stored(&mut self, now_us: u64, window: &StartedWindow) {
        let Some(period) = self.periods.get_mut(&window.period) else { return };
        let over = period.closed || now_us >= period.plan.ended_us;
        let probes = period.window_stored(window);
        let gone = self.queue.cancel(|id, due_us| {
            id.period == window.period
                && id.task == window.task
                && due_us < window.started_us.saturating_add(period.beacon_us(&id.task, id.miner))
        });
        for id in gone {
            period.skip(&id);
        }
        for probe in probes {
            if !over && self.miners.as_ref().is_some_and(|m| m.contains_key(&probe.id.miner)) {
                self.queue.add(probe);
            } else {
                period.skip(&probe.id);
            }
        }
    }

    /// Books a user's request in the period that runs; its volume takes the place of that miner's own probes
    /// outside windows, of which one stays where there are no windows.
    fn organic_finished(&mut self, id: u64, class: ProbeClass, units: u64) {
        let Some((request, left)) = self.organic.remove(&id) else { return };
        if !left {
            self.queue.withdraw_organic(request.miner, request.task, id);
            return;
        }
        self.queue.done(request.miner, &request.task);
        let Some(period) = self.periods.values_mut().find(|p| p.stored && !p.closed) else { return };
        let Some(worth) = period.book_organic(&request, class, units) else { return };
        let of = |p: &ProbeId| {
            p.period == period.plan.period && p.task == request.task && p.miner == request.miner
        };
        let waiting = self.queue.count_planned(of);
        let floor = usize::from(!period.has_windows(&request.task, request.miner));
        let most = waiting.saturating_sub(floor).min(usize::try_from(worth).unwrap_or(usize::MAX));
        for probe in self.queue.relieve(of, most) {
            period.skip(&probe);
        }
    }

    /// How long a row's miner has sustained everything, with it.
    fn count_streak(&mut self, row: PeriodRow) {
        let sustained_at = match &self.config.policy.scoring {
            Scoring::Default(rules) => rules.sustained_at,
            Scoring::Sn19(_) => 1.0,
        };
        if let Some(sustained) = plan::sustained(&row, sustained_at) {
            let streak = self.streaks.entry((row.task, row.miner)).or_default();
            *streak = if sustained { streak.saturating_add(1) } else { 0 };
        }
    }

    /// Takes probes that have not left out of the queue.
    fn skip(&mut self, unwanted: impl FnMut(&ProbeId) -> bool) {
        for id in self.queue.withdraw(unwanted) {
            if let Some(period) = self.periods.get_mut(&id.period) {
                period.skip(&id);
            }
        }
    }

    fn advance(&mut self, now_us: u64, effects: &mut Vec<Effect>) {
        self.close(now_us.saturating_sub(LATE_US), effects);
        self.dispatch(now_us, effects);
        self.close(now_us, effects);
        while let Some(probe) = self.checks.take() {
            effects.push(Effect::Judge(probe));
        }
        for period in self.periods.values_mut().filter(|p| p.closed && p.is_waiting()) {
            if now_us >= period.plan.ended_us.saturating_add(self.config.settle_grace_us) {
                effects.extend(period.give_up().into_iter().map(Effect::Interrupted));
            }
        }
        // Only the oldest: periods settle in their order, for each one's rows are the next one's history.
        if let Some(mut oldest) = self.periods.first_entry()
            && oldest.get().may_settle()
        {
            oldest.get_mut().settling = true;
            let mut outcome = oldest.get().outcome();
            outcome.choice = Some(self.seed.choice(outcome.period).hex());
            self.unsettled_rows.clone_from(&outcome.rows);
            effects.push(Effect::Settle(outcome));
        }
        self.announce(now_us, effects);
        self.plan_next(now_us, effects);
        if self.stopping && self.queue.in_flight() == 0 && !self.drained {
            self.drained = true;
            effects.push(Effect::Drained);
        }
    }

    /// These never leave, because their miners cannot keep up.
    fn hold_back(&mut self, held: Vec<ProbeId>, effects: &mut Vec<Effect>) {
        for probe in held {
            if let Some(period) = self.periods.get_mut(&probe.period) {
                period.hold_back(&probe);
                effects.push(Effect::HeldBack(probe));
            }
        }
    }

    /// Periods that ended by this time send nothing more.
    fn close(&mut self, by_us: u64, effects: &mut Vec<Effect>) {
        let over: BTreeSet<PeriodId> = self
            .periods
            .values_mut()
            .filter(|p| !p.closed && p.plan.ended_us <= by_us)
            .map(|p| {
                p.closed = true;
                p.plan.period
            })
            .collect();
        if !over.is_empty() {
            let held = self.queue.withdraw_held(|id| over.contains(&id.period));
            self.hold_back(held, effects);
            self.skip(|id| over.contains(&id.period));
        }
    }

    fn dispatch(&mut self, now_us: u64, effects: &mut Vec<Effect>) {
        if self.stopping || self.miners.is_none() {
            return;
        }
        self.queue.release(now_us);
        let held = self.queue.expire(now_us);
        self.hold_back(held, effects);
        while let Some(id) = self.queue.take_organic() {
            if let Some((_, left)) = self.organic.get_mut(&id) {
                *left = true;
                effects.push(Effect::DispatchOrganic(id));
            }
        }
        while let Some(probe) = self.queue.take() {
            if let Some(period) = self.periods.get_mut(&probe.id.period) {
                period.sent(probe.id.clone());
                effects.push(Effect::Dispatch(probe));
            } else {
                self.queue.done(probe.id.miner, &probe.id.task);
            }
        }
    }

    /// When the announcements of the next period are to be asked for; 0 before the first.
    fn announce_us(&self) -> Option<u64> {
        Some(self.tail_us.unwrap_or(0).saturating_sub(self.config.announce_lead_us))
    }

    /// A disk that stores no plan, or never says that it settled, stops the machine instead of filling it.
    fn has_room_for_a_period(&self) -> bool {
        let overlapping = self.config.settle_grace_us / self.config.period_us.max(1);
        let limit = usize::try_from(overlapping.saturating_add(4)).unwrap_or(usize::MAX);
        self.periods.len() < limit && self.periods.values().all(|p| p.stored)
    }

    fn announce(&mut self, now_us: u64, effects: &mut Vec<Effect>) {
        let Some(miners) = self.miners.as_ref().filter(|_| !self.stopping && self.announcing.is_none())
        else {
            return;
        };
        if !self.has_room_for_a_period() || self.announce_us().is_none_or(|at| now_us < at) {
            return;
        }
        let period = self.next_period;
        // Whoever is late (a first start, a restart, a machine that slept) still leaves time for an answer.
        let deadline_us = match self.tail_us {
            Some(tail) if tail > now_us => tail,
            _ => now_us.saturating_add(self.config.announce_lead_us),
        };
        let asked = miners.clone();
        let refs = asked.iter().map(|(hotkey, uid)| MinerRef { uid: *uid, hotkey: *hotkey }).collect();
        effects.push(Effect::Announce { period, miners: refs, deadline_us });
        self.announcing = Some(Announcing { period, deadline_us, asked, answers: BTreeMap::new() });
    }

    fn plan_next(&mut self, now_us: u64, effects: &mut Vec<Effect>) {
        let complete = |a: &Announcing| a.asked.keys().all(|m| a.answers.contains_key(m));
        if self.stopping || !self.announcing.as_ref().is_some_and(|a| complete(a) || now_us >= a.deadline_us)
        {
            return;
        }
        let Some(a) = self.announcing.take() else { return };
        // Without a gap; only who was away for longer than announcing takes begins anew.
        let started_us = match self.tail_us {
            Some(tail) if now_us.saturating_sub(tail) <= self.config.announce_lead_us => tail,
            _ => now_us,
        };
        let miners: Vec<MinerRef> =
            a.asked.iter().map(|(hotkey, uid)| MinerRef { uid: *uid, hotkey: *hotkey }).collect();
        let streak =
            |task: &TaskName, miner: &Hotkey| self.streaks.get(&(task.clone(), *miner)).copied().unwrap_or(0);
        let plan = plan::make(&self.config, &self.seed, a.period, started_us, &miners, &a.answers, streak);
        self.tail_us = Some(plan.ended_us);
        self.next_period = a.period.next();
        effects.push(Effect::StorePlan(plan.clone()));
        self.periods.insert(a.period, Period::new(plan, false));
    }
}
