//! One validator of the simulated subnet: its schedule, its memory of rows and samples, its weights.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use nineteen_domain::ledger::{Judgement, QualitySample};
use nineteen_domain::{Hotkey, MasterSeed, ProbeId, TaskName, Uid};
use nineteen_mechanism::{At, MinerTaskInput, settle};
use nineteen_schedule::{PeriodOutcome, Resume, Schedule, expected_asked};

use crate::error::SimulateError;
use crate::machine::float;
use crate::rng::Rng;
use crate::world::{Key, Setup, key_of};

/// An answer that may be judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) quality: f64,
    pub(crate) units: u64,
    pub(crate) response_us: u64,
    pub(crate) first_unit_us: u64,
}

/// Who has earned how much of the checkers.
type Standing = Vec<(TaskName, Hotkey, f64)>;

pub(crate) struct Validator {
    pub(crate) schedule: Schedule,
    /// When it asked to be woken, microseconds of the Unix epoch.
    pub(crate) wake_us: Option<u64>,
    /// When its next period begins, as far as is known.
    pub(crate) next_start_us: u64,
    /// Rows and samples of those that are registered, as the mechanism takes them.
    inputs: Vec<MinerTaskInput>,
    /// Place among `inputs`, by hotkey's number.
    places: BTreeMap<usize, usize>,
    /// Answers that were not judged, by hotkey's number, period and slot. Never walked through.
    answers: HashMap<(usize, u64, u32), Answer, RandomState>,
    /// Probes that left, by period that is not settled.
    sent: BTreeMap<u64, u64>,
    /// Settled periods.
    pub(crate) settled: u64,
    /// Settlements that gave weights.
    pub(crate) weighed: u64,
    /// Newest weights, by hotkey's number.
    pub(crate) weights: Vec<f64>,
    /// Sum of weights, by hotkey's number.
    pub(crate) earned: Vec<f64>,
    /// The newest settlement: announced capacity, and what of it is credited, by hotkey's number.
    pub(crate) credited: Vec<(f64, f64)>,
}

impl Validator {
    pub(crate) fn new(setup: &Setup, v: usize) -> Result<Self, SimulateError> {
        let secret = MasterSeed::from_bytes(Rng::of(&[setup.seed, 10, v as u64]).bytes());
        let config = setup.work.schedule(&setup.policy, setup.checks);
        Ok(Self {
            schedule: Schedule::new(config, secret, Resume::default())?,
            wake_us: None,
            next_start_us: 0,
            inputs: Vec::new(),
            places: BTreeMap::new(),
            answers: HashMap::default(),
            sent: BTreeMap::new(),
            settled: 0,
            weighed: 0,
            weights: Vec::new(),
            earned: Vec::new(),
            credited: Vec::new(),
        })
    }

    pub(crate) fn sent(&mut self, period: u64) {
        *self.sent.entry(period).or_default() += 1;
    }

    pub(crate) fn answered(&mut self, key: usize, probe: &ProbeId, answer: Answer) {
        self.answers.insert((key, probe.period.0, probe.slot), answer);
    }

    pub(crate) fn forget(&mut self, key: usize, probe: &ProbeId) {
        self.answers.remove(&(key, probe.period.0, probe.slot));
    }

    /// A checker is done with this answer.
    pub(crate) fn judged(&mut self, key: usize, probe: &ProbeId, now_us: u64, period_us: u64) {
        let Some(answer) = self.answers.remove(&(key, probe.period.0, probe.slot)) else { return };
        let Some(input) = self.places.get(&key).and_then(|at| self.inputs.get_mut(*at)) else {
            // Judged before its first period is settled.
            return self.early(key, probe, answer, now_us, period_us);
        };
        input.samples.push(sample(probe, answer, now_us, period_us));
    }

    fn early(&mut self, key: usize, probe: &ProbeId, answer: Answer, now_us: u64, period_us: u64) {
        let input = MinerTaskInput {
            miner: probe.miner,
            uid: Uid(0),
            task: probe.task.clone(),
            capacity: 0,
            expected_asked: 0.0,
            speed: None,
            honesty: 1.0,
            rows: Vec::new(),
            samples: vec![sample(probe, answer, now_us, period_us)],
            other_samples: Vec::new(),
        };
        self.places.insert(key, self.inputs.len());
        self.inputs.push(input);
    }

    /// Takes in what a period came to. `Some` if weights were computed.
    pub(crate) fn settle(
        &mut self,
        setup: &Setup,
        outcome: PeriodOutcome,
        keys: &[Key],
        now_us: u64,
    ) -> Result<Option<Standing>, SimulateError> {
        let period = outcome.period.0;
        let booked = outcome.rows.iter().map(|r| r.tally.total() + r.tally.ours).sum();
        let sent = self.sent.remove(&period).unwrap_or(0);
        if sent != booked {
            return Err(SimulateError::NotBookedOnce { period, sent, booked });
        }
        self.next_start_us = outcome.ended_us.saturating_add(setup.work.period_us);
        let since = now_us.saturating_sub(setup.policy.horizon_us(setup.work.period_us));
        for row in outcome.rows {
            let key = key_of(&row.miner);
            let at = *self.places.entry(key).or_insert_with(|| {
                self.inputs.push(MinerTaskInput {
                    miner: row.miner,
                    uid: row.uid,
                    task: row.task.clone(),
                    capacity: 0,
                    expected_asked: 0.0,
                    speed: None,
                    honesty: 1.0,
                    rows: Vec::new(),
                    samples: Vec::new(),
                    other_samples: Vec::new(),
                });
                self.inputs.len() - 1
            });
            let Some(input) = self.inputs.get_mut(at) else { continue };
            input.uid = row.uid;
            input.speed = Some(setup.work.speed);
            input.capacity = row.capacity;
            input.expected_asked =
                expected_asked(&setup.policy.planning, row.capacity, setup.work.expected_units);
            let old = input.rows.iter().take_while(|r| r.ended_us < since).count();
            input.rows.drain(..old);
            let old = input.samples.iter().take_while(|s| s.at_us < since).count();
            input.samples.drain(..old);
            input.rows.push(row);
        }
        self.drop_gone(keys);
        self.settled += 1;
        if self.settled > setup.periods || !self.settled.is_multiple_of(setup.settle_every.max(1)) {
            return Ok(None);
        }
        let at = At { now_us, period_us: setup.work.period_us };
        let weights_of_tasks = BTreeMap::from([(setup.work.task.clone(), 1.0)]);
        let settlement = settle(&setup.policy, &weights_of_tasks, &self.inputs, at);
        self.weighed += 1;
        self.weights = vec![0.0; keys.len()];
        self.credited = vec![(0.0, 0.0); keys.len()];
        self.earned.resize(keys.len(), 0.0);
        for line in &settlement.weights {
            let key = key_of(&line.miner);
            if let Some(w) = self.weights.get_mut(key) {
                *w = line.weight;
            }
            if let Some(e) = self.earned.get_mut(key) {
                *e += line.weight;
            }
        }
        for s in &settlement.standings {
            if let Some(c) = self.credited.get_mut(key_of(&s.miner)) {
                *c = (float(s.capacity), float(s.capacity) * s.credit.factor);
            }
        }
        Ok(Some(settlement.standings.into_iter().map(|s| (s.task, s.miner, s.volume_share)).collect()))
    }

    /// Whoever left the subnet is paid nothing.
    fn drop_gone(&mut self, keys: &[Key]) {
        let here = |input: &MinerTaskInput| keys.get(key_of(&input.miner)).is_some_and(|k| k.here);
        if self.inputs.iter().all(here) {
            return;
        }
        self.inputs.retain(here);
        self.places = self.inputs.iter().enumerate().map(|(at, input)| (key_of(&input.miner), at)).collect();
    }
}

fn sample(probe: &ProbeId, answer: Answer, now_us: u64, period_us: u64) -> QualitySample {
    QualitySample {
        probe: probe.clone(),
        judgement: Judgement::Scored,
        quality: answer.quality,
        units: answer.units,
        response_us: answer.response_us,
        first_unit_us: Some(answer.first_unit_us),
        at_us: now_us,
        reasons: Vec::new(),
        period_us,
        suspicion: None,
    }
}
