//! One planned period: which probes are out, what is booked, whether it may settle.
//!
//! A probe that was taken from the queue is in `out` until it is booked, and only what is in `out` can be
//! booked: that is all there is to "exactly once".

use std::collections::BTreeSet;

use nineteen_domain::ledger::{OursFault, PeriodRow, ProbeClass, Tally};
use nineteen_domain::{Hotkey, ProbeId, TaskName};
use nineteen_mechanism::period_score;

use crate::types::{PeriodOutcome, PeriodPlan};

#[derive(Debug)]
pub(crate) struct Period {
    pub(crate) plan: PeriodPlan,
    /// The plan is on disk.
    pub(crate) stored: bool,
    /// Over: nothing more of it leaves.
    pub(crate) closed: bool,
    /// Its outcome was handed out.
    pub(crate) settling: bool,
    /// Under way.
    out: BTreeSet<ProbeId>,
    /// Answered and not judged.
    unjudged: BTreeSet<ProbeId>,
    /// By entry of the plan.
    tallies: Vec<Tally>,
    skipped: u64,
    given_up: u64,
}

impl Period {
    pub(crate) fn new(mut plan: PeriodPlan, stored: bool) -> Self {
        // Looked up by halving below; a plan from disk is not trusted to be in order or without doubles.
        plan.entries.sort_by(|a, b| (&a.task, a.miner).cmp(&(&b.task, b.miner)));
        plan.entries.dedup_by(|a, b| (&a.task, a.miner) == (&b.task, b.miner));
        let tallies = vec![Tally::default(); plan.entries.len()];
        Self {
            plan,
            stored,
            closed: false,
            settling: false,
            out: BTreeSet::new(),
            unjudged: BTreeSet::new(),
            tallies,
            skipped: 0,
            given_up: 0,
        }
    }

    fn entry(&self, task: &TaskName, miner: Hotkey) -> Option<usize> {
        self.plan.entries.binary_search_by(|e| (&e.task, e.miner).cmp(&(task, miner))).ok()
    }

    /// The probe left.
    pub(crate) fn sent(&mut self, probe: ProbeId) {
        self.out.insert(probe);
    }

    /// The probe never leaves.
    pub(crate) const fn skip(&mut self) {
        self.skipped = self.skipped.saturating_add(1);
    }

    /// Books a probe that is under way; says whether it did.
    pub(crate) fn finish(&mut self, probe: &ProbeId, class: ProbeClass, units: u64) -> bool {
        if !self.out.remove(probe) {
            return false;
        }
        if let Some(at) = self.entry(&probe.task, probe.miner)
            && let (Some(tally), Some(entry)) = (self.tallies.get_mut(at), self.plan.entries.get(at))
        {
            tally.book(class, units, entry.expected_units);
        }
        true
    }

    /// Its answer waits for a judgement.
    pub(crate) fn await_judgement(&mut self, probe: ProbeId) {
        self.unjudged.insert(probe);
    }

    pub(crate) fn judged(&mut self, probe: &ProbeId) {
        self.unjudged.remove(probe);
    }

    /// The grace is over: books what is still out as ours and waits for no judgement. Returns the former.
    pub(crate) fn give_up(&mut self) -> Vec<ProbeId> {
        let late: Vec<ProbeId> = self.out.iter().cloned().collect();
        for probe in &late {
            self.finish(probe, ProbeClass::Ours(OursFault::Interrupted), 0);
        }
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

    pub(crate) fn may_settle(&self) -> bool {
        self.stored && self.closed && !self.settling && !self.is_waiting()
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
                .map(|(e, tally)| PeriodRow {
                    period: plan.period,
                    task: e.task.clone(),
                    miner: e.miner,
                    uid: e.uid,
                    announced: e.announced,
                    capacity: e.capacity,
                    tally: *tally,
                    score: period_score(tally, e.capacity),
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
        }
    }
}
