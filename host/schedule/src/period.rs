//! One planned period: which probes are out, what is booked, whether it may settle.
//!
//! A probe that was taken from the queue is in `out` until it is booked, and only what is in `out` can be
//! booked: that is all there is to "exactly once".

use std::collections::BTreeMap;

use nineteen_domain::ledger::{PeriodRow, ProbeClass, Tally, WindowKind, WindowResult};
use nineteen_domain::{Hotkey, ProbeId, TaskName};
use nineteen_mechanism::period_score;

use crate::hash::HashSet;
use crate::types::{
    BEACON_SLOTS, MAX_BEACONS, OrganicRequest, PeriodOutcome, PeriodPlan, PlannedProbe, StartedWindow,
};

/// Below this part of a window's probes it shows no rate: it was not tried then.
const ENOUGH: f64 = 0.8;

/// What came of one window for one entry, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    /// Probes that it should have.
    planned: u32,
    /// Of them, those that never counted: we were down or too busy, or it was broken off.
    gone: u32,
    asked: u64,
    delivered: u64,
}

#[derive(Debug)]
pub(crate) struct Period {
    pub(crate) plan: PeriodPlan,
    /// The plan is on disk.
    pub(crate) stored: bool,
    /// Over: nothing more of it leaves.
    pub(crate) closed: bool,
    /// Its outcome was handed out.
    pub(crate) settling: bool,
    /// Windows that the beacon started, and whether that is on disk.
    beacons: BTreeMap<StartedWindow, bool>,
    /// Under way. Hashed: asked millions of times, walked through once.
    out: HashSet<ProbeId>,
    /// The grace is over, and the driver was told to end what was still out.
    overdue: bool,
    /// Answered and not judged.
    unjudged: HashSet<ProbeId>,
    /// By entry of the plan.
    tallies: Vec<Tally>,
    /// By entry of the plan: those at secret times, then the beacon's.
    windows: Vec<Vec<Window>>,
    skipped: u64,
    given_up: u64,
}

impl Period {
    pub(crate) fn new(mut plan: PeriodPlan, stored: bool) -> Self {
        // Looked up by halving below; a plan from disk is not trusted to be in order or without doubles.
        plan.entries.sort_by(|a, b| (&a.task, a.miner).cmp(&(&b.task, b.miner)));
        plan.entries.dedup_by(|a, b| (&a.task, a.miner) == (&b.task, b.miner));
        let tallies = vec![Tally::default(); plan.entries.len()];
        let windows = plan
            .entries
            .iter()
            .map(|e| e.windows.iter().map(|w| Window { planned: w.probes, ..Window::default() }).collect())
            .collect();
        Self {
            plan,
            stored,
            closed: false,
            settling: false,
            beacons: BTreeMap::new(),
            out: HashSet::default(),
            overdue: false,
            unjudged: HashSet::default(),
            tallies,
            windows,
            skipped: 0,
            given_up: 0,
        }
    }

    fn entry(&self, task: &TaskName, miner: Hotkey) -> Option<usize> {
        self.plan.entries.binary_search_by(|e| (&e.task, e.miner).cmp(&(task, miner))).ok()
    }

    /// The window that a place of this entry belongs to.
    fn window(&mut self, at: usize, slot: u32) -> Option<&mut Window> {
        let planned = &self.plan.entries.get(at)?.windows;
        let index = match slot.checked_div(BEACON_SLOTS) {
            Some(0) | None => {
                planned.iter().position(|w| slot.checked_sub(w.first_slot).is_some_and(|i| i < w.probes))?
            }
            Some(n) => planned.len() + n as usize - 1,
        };
        self.windows.get_mut(at)?.get_mut(index)
    }

    /// A window that the beacon started, by a block that started none of this task before. `None` when there
    /// have been enough of them.
    pub(crate) fn start_window(&mut self, task: &TaskName, block: u64, now_us: u64) -> Option<StartedWindow> {
        let mut of_task = self.beacons.keys().filter(|w| w.task == *task);
        if of_task.any(|w| w.block == block) {
            return None;
        }
        let index = self.beacons.keys().filter(|w| w.task == *task).map(|w| w.index + 1).max().unwrap_or(0);
        let window =
            StartedWindow { period: self.plan.period, task: task.clone(), index, block, started_us: now_us };
        (index < MAX_BEACONS).then(|| {
            self.beacons.insert(window.clone(), false);
            window
        })
    }

    /// A window of the beacon is on disk: returns its probes, once.
    pub(crate) fn window_stored(&mut self, window: &StartedWindow) -> Vec<PlannedProbe> {
        if window.index >= MAX_BEACONS || self.beacons.get(window) == Some(&true) {
            return Vec::new();
        }
        self.beacons.insert(window.clone(), true);
        let fixed = |at: usize| self.plan.entries.get(at).map_or(0, |e| e.windows.len());
        for at in 0..self.plan.entries.len() {
            let place = fixed(at) + window.index as usize;
            let Some(entry) = self.plan.entries.get(at).filter(|e| e.task == window.task) else { continue };
            let Some(windows) = self.windows.get_mut(at) else { continue };
            windows.resize(windows.len().max(place + 1), Window::default());
            let (Some(w), Some(share)) = (windows.get_mut(place), entry.beacon) else { continue };
            w.planned = share.probes;
            let sent = entry.beacon_probes(window).filter(|p| p.due_us < self.plan.ended_us).count();
            w.gone = share.probes.saturating_sub(u32::try_from(sent).unwrap_or(u32::MAX));
        }
        self.plan.beacon_probes(window).collect()
    }

    /// How long a window of the beacon lasts for this miner, in microseconds.
    pub(crate) fn beacon_us(&self, task: &TaskName, miner: Hotkey) -> u64 {
        let entry = self.entry(task, miner).and_then(|at| self.plan.entries.get(at));
        entry.and_then(|e| e.beacon).map_or(0, |b| b.interval_us.saturating_mul(b.probes.into()))
    }

    /// The probe left.
    pub(crate) fn sent(&mut self, probe: ProbeId) {
        self.out.insert(probe);
    }

    /// The probe never leaves.
    pub(crate) fn skip(&mut self, probe: &ProbeId) {
        self.skipped = self.skipped.saturating_add(1);
        if let Some(at) = self.entry(&probe.task, probe.miner)
            && let Some(window) = self.window(at, probe.slot)
        {
            window.gone = window.gone.saturating_add(1);
        }
    }

    /// The probe never leaves, because its miner cannot keep up with its window.
    pub(crate) fn hold_back(&mut self, probe: &ProbeId) {
        self.skipped = self.skipped.saturating_add(1);
        let Some(at) = self.entry(&probe.task, probe.miner) else { return };
        let expected = self.plan.entries.get(at).map_or(0, |e| e.expected_units);
        if let Some(window) = self.window(at, probe.slot) {
            window.asked = window.asked.saturating_add(expected);
        }
    }

    /// Books a probe that is under way; says whether it did.
    pub(crate) fn finish(&mut self, probe: &ProbeId, class: ProbeClass, units: u64, took_us: u64) -> bool {
        if !self.out.remove(probe) {
            return false;
        }
        let Some(at) = self.entry(&probe.task, probe.miner) else { return true };
        let Some(entry) = self.plan.entries.get(at) else { return true };
        let expected = entry.expected_units;
        let in_time = entry.in_time.is_none_or(|t| took_us <= t.allows_us(units.max(expected)));
        if let Some(tally) = self.tallies.get_mut(at) {
            tally.book(class, units, expected);
        }
        if let Some(window) = self.window(at, probe.slot) {
            if matches!(class, ProbeClass::Ours(_)) {
                window.gone = window.gone.saturating_add(1);
            } else {
                window.asked = window.asked.saturating_add(expected);
                if class == ProbeClass::Answered && in_time {
                    window.delivered = window.delivered.saturating_add(expected);
                }
            }
        }
        true
    }

    /// Books a user's request; says how many probes' worth of this entry it was.
    pub(crate) fn book_organic(
        &mut self,
        request: &OrganicRequest,
        class: ProbeClass,
        units: u64,
    ) -> Option<u64> {
        let at = self.entry(&request.task, request.miner)?;
        self.tallies.get_mut(at)?.book(class, units, request.expected_units.max(1));
        let per_probe = self.plan.entries.get(at)?.expected_units.max(1);
        Some(if class == ProbeClass::Answered { units / per_probe } else { 0 })
    }

    /// Whether this entry has windows: what its organic volume cannot take away.
    pub(crate) fn has_windows(&self, task: &TaskName, miner: Hotkey) -> bool {
        let entry = self.entry(task, miner).and_then(|at| self.plan.entries.get(at));
        entry.is_some_and(|e| !e.windows.is_empty())
    }

    /// Its answer waits for a judgement.
    pub(crate) fn await_judgement(&mut self, probe: ProbeId) {
        self.unjudged.insert(probe);
    }

    pub(crate) fn judged(&mut self, probe: &ProbeId) {
        self.unjudged.remove(probe);
    }

    /// The grace is over: waits for no judgement, and says once what is still out and to be ended. Those stay out
    /// until their ends are on the books: an answer that is being written down at this moment counts.
    pub(crate) fn give_up(&mut self) -> Vec<ProbeId> {
        let mut late: Vec<ProbeId> =
            if self.overdue { Vec::new() } else { self.out.iter().cloned().collect() };
        self.overdue = true;
        late.sort_unstable();
        self.given_up = self.given_up.saturating_add(self.unjudged.len() as u64);
        self.unjudged.clear();
        late
    }

    pub(crate) fn unjudged(&self) -> usize {
        self.unjudged.len()
    }

    /// Whether probes are out or answers not judged.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.out.is_empty() || !self.unjudged.is_empty()
    }

    /// The grace is over: only the ends of what was still out are waited for, and those come by themselves.
    pub(crate) const fn is_overdue(&self) -> bool {
        self.overdue
    }

    pub(crate) fn may_settle(&self) -> bool {
        // A window that is being written down is on disk before the outcome, or a restart would know of more.
        let written = self.beacons.values().all(|stored| *stored);
        self.stored && self.closed && !self.settling && !self.is_waiting() && written
    }

    /// The windows of an entry that were tried, in the order of their starts.
    fn results(&self, at: usize) -> Vec<WindowResult> {
        let (Some(entry), Some(windows)) = (self.plan.entries.get(at), self.windows.get(at)) else {
            return Vec::new();
        };
        let fixed = entry.windows.len();
        let secret = (0..).zip(&entry.windows).map(|(i, w)| (i, WindowKind::Secret, w.started_us, w.rate));
        let of_task = self.beacons.iter().filter(|(w, stored)| **stored && w.task == entry.task);
        let beacons = of_task.map(|(w, _)| (fixed + w.index as usize, WindowKind::Beacon, w.started_us, 1.0));
        let mut results: Vec<WindowResult> = secret
            .chain(beacons)
            .filter_map(|(place, kind, started_us, rate)| {
                let w = windows.get(place)?;
                let counted = w.planned - w.gone.min(w.planned);
                let tried = w.asked > 0 && f64::from(counted) >= ENOUGH * f64::from(w.planned);
                tried.then(|| WindowResult {
                    kind,
                    started_us,
                    rate,
                    asked: w.asked,
                    delivered: w.delivered.min(w.asked),
                })
            })
            .collect();
        results.sort_by_key(|w| w.started_us);
        results
    }

    pub(crate) fn outcome(&self) -> PeriodOutcome {
        let plan = &self.plan;
        PeriodOutcome {
            period: plan.period,
            started_us: plan.started_us,
            ended_us: plan.ended_us,
            rows: plan
                .entries
                .iter()
                .zip(&self.tallies)
                .enumerate()
                .map(|(at, (e, tally))| PeriodRow {
                    period: plan.period,
                    task: e.task.clone(),
                    miner: e.miner,
                    uid: e.uid,
                    announced: e.announced,
                    capacity: e.capacity,
                    tally: *tally,
                    score: period_score(tally, e.capacity),
                    windows: self.results(at),
                    started_us: plan.started_us,
                    ended_us: plan.ended_us,
                })
                .collect(),
            faults: plan
                .entries
                .iter()
                .filter_map(|e| e.fault.clone().map(|fault| (e.miner, e.task.clone(), fault)))
                .collect(),
            skipped: self.skipped,
            unjudged: self.given_up,
            beacons: self.beacons.iter().filter(|(_, stored)| **stored).map(|(w, _)| w.clone()).collect(),
            choice: None,
        }
    }
}
