//! What all runs have in common: the task, its references, and how a validator is set up.

use nineteen_domain::TaskName;
use nineteen_domain::policy::{Layout, Policy};
use nineteen_domain::task::SpeedReference;
use nineteen_schedule::{InTime, ScheduleConfig, TaskSpec};

use crate::error::SimulateError;
use crate::machine::{float, micros};

/// When simulated time begins, microseconds of the Unix epoch.
pub(crate) const START_US: u64 = 1_790_000_000_000_000;
/// Length of a period, in microseconds.
pub(crate) const PERIOD_US: u64 = 3_600_000_000;
/// Time between blocks, in microseconds.
pub(crate) const BLOCK_US: u64 = 12_000_000;
/// How long after its end a period waits for answers and judgements, in microseconds.
pub(crate) const GRACE_US: u64 = 120_000_000;
/// Number of the subnet.
pub(crate) const NETUID: u16 = 19;
/// Standard deviation of the logarithm of a request's length.
pub(crate) const LENGTH_SPREAD: f64 = 0.5;

/// Work of the simulated task: a stream of units, as a chat's tokens are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Work {
    /// Its name.
    pub(crate) task: TaskName,
    /// Units that a request takes on average.
    pub(crate) expected_units: u64,
    /// The most units per period that one hotkey is credited with.
    pub(crate) cap_per_period: u64,
    /// What speed is measured against.
    pub(crate) speed: SpeedReference,
    /// Length of a period, in microseconds.
    pub(crate) period_us: u64,
}

impl Work {
    /// The task of all runs, under this name, with requests of this many units on average.
    pub(crate) fn named(name: &str, expected_units: u64) -> Result<Self, SimulateError> {
        Ok(Self {
            task: TaskName::new(name).map_err(|e| SimulateError::Setup { why: e.to_string() })?,
            expected_units,
            cap_per_period: 20_000_000,
            speed: SpeedReference { units_per_s: 50.0, first_unit_ms: Some(300) },
            period_us: PERIOD_US,
        })
    }

    /// What the reference takes for a request of average length, in microseconds.
    pub(crate) fn reference_us(&self) -> f64 {
        float(self.speed.first_unit_ms.unwrap_or(0)) * 1e3
            + float(self.expected_units) / self.speed.units_per_s * 1e6
    }

    /// The task as the schedule sees it; `in_time` as the validator computes it from the policy's patience.
    fn spec(&self, policy: &Policy) -> TaskSpec {
        let patience = match policy.planning.layout {
            Layout::Windows(w) => w.patience,
            Layout::Even | Layout::Burst(_) => 1.0,
        };
        TaskSpec {
            name: self.task.clone(),
            cap_per_period: self.cap_per_period,
            expected_units: self.expected_units,
            in_time: Some(InTime {
                first_us: micros(patience * float(self.speed.first_unit_ms.unwrap_or(0)) * 1e3),
                unit_us: patience * 1e6 / self.speed.units_per_s,
            }),
        }
    }

    /// A validator's schedule of this one task.
    pub(crate) fn schedule(&self, policy: &Policy, checks: Checks) -> ScheduleConfig {
        ScheduleConfig {
            period_us: self.period_us,
            announce_lead_us: 30_000_000,
            settle_grace_us: GRACE_US,
            policy: policy.clone(),
            tasks: vec![self.spec(policy)],
            max_in_flight: 4_096,
            max_in_flight_per_miner: 64,
            max_checks: checks.at_once,
            max_backlog: checks.backlog,
            netuid: NETUID,
            block_us: BLOCK_US,
        }
    }
}

/// How much of what is answered is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checks {
    /// At once.
    pub(crate) at_once: usize,
    /// How long one takes, in microseconds.
    pub(crate) each_us: u64,
    /// Answers that wait at most.
    pub(crate) backlog: usize,
}

impl Checks {
    /// As many checks as give each of these hotkeys so many per period on average.
    pub(crate) fn per_key(keys: usize, per_period: u64) -> Self {
        let wanted = (keys.max(1) as u64).saturating_mul(per_period.max(1));
        Self { at_once: 2, each_us: (2 * PERIOD_US / wanted).max(1), backlog: keys.max(1).saturating_mul(4) }
    }
}
