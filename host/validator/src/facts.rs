//! What planning and settling have to know of a task: numbers that its manifest and its plugin say.

use std::collections::BTreeMap;

use nineteen_domain::policy::{Layout, Policy};
use nineteen_domain::task::SpeedReference;
use nineteen_domain::{PeriodId, TaskName};
use nineteen_schedule::{InTime, TaskSpec};
use serde::{Deserialize, Serialize};

use crate::registry::{LiveTask, Tasks};

const HOUR_US: u64 = 3_600_000_000;
/// To the first unit, where a task's reference says nothing of it.
const FIRST_UNIT_MS: u64 = 1_000;

/// What a settlement used of a task; kept with it, so that it can be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// Weight in the set, in [0, 1].
    pub weight: f64,
    /// Units that a probe is expected to take; at least 1.
    pub expected_units: u64,
    /// What speed is measured against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<SpeedReference>,
}

/// A stretch of periods in which a task was scored by the same rules. What was scored in another one is no part of a miner's
/// history: the numbers mean something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// `major.minor` of the task's version: a change of scoring is at least a minor bump.
    pub version: String,
    /// The first period that was planned with it.
    pub since: PeriodId,
}

/// Which epoch a version of a task belongs to.
pub(crate) fn epoch(version: &semver::Version) -> String {
    format!("{}.{}", version.major, version.minor)
}

/// The epochs of a period, after those of the period that was settled before. A task that was away for a while goes on in its
/// epoch.
pub(crate) fn epochs(
    tasks: &Tasks,
    period: PeriodId,
    before: &BTreeMap<TaskName, Epoch>,
) -> BTreeMap<TaskName, Epoch> {
    let mut all = before.clone();
    for (name, task) in &tasks.by_name {
        let version = epoch(&task.manifest.version);
        match all.get(name) {
            Some(runs) if runs.version == version => {}
            // Whatever was settled before there were epochs is of the first.
            None => drop(all.insert(name.clone(), Epoch { version, since: PeriodId(0) })),
            Some(_) => drop(all.insert(name.clone(), Epoch { version, since: period })),
        }
    }
    all
}

/// Those of the live tasks.
pub(crate) fn of(tasks: &Tasks) -> BTreeMap<TaskName, TaskFacts> {
    let facts = |t: &LiveTask| TaskFacts {
        weight: t.weight,
        expected_units: t.expected_units,
        speed: t.manifest.speed,
    };
    tasks.by_name.values().map(|t| (t.manifest.name.clone(), facts(t))).collect()
}

/// The same for the planner.
pub(crate) fn specs(tasks: &Tasks, period_us: u64, policy: &Policy) -> Vec<TaskSpec> {
    let cap = |per_hour: u64| {
        let scaled = u128::from(per_hour) * u128::from(period_us) / u128::from(HOUR_US);
        u64::try_from(scaled).unwrap_or(u64::MAX).max(1)
    };
    let spec = |t: &LiveTask| TaskSpec {
        name: t.manifest.name.clone(),
        cap_per_period: cap(t.manifest.cap_per_hour),
        expected_units: t.expected_units,
        in_time: Some(in_time(t, policy)),
    };
    tasks.by_name.values().map(|t| spec(t)).collect()
}

/// Until when an answer of a window counts: the policy's patience times the task's reference, or where it has
/// none, the limit on a whole reply.
fn in_time(t: &LiveTask, policy: &Policy) -> InTime {
    let patience = match policy.planning.layout {
        Layout::Windows(w) => w.patience,
        Layout::Even | Layout::Burst(_) => 1.0,
    };
    match t.manifest.speed.filter(SpeedReference::is_usable) {
        Some(speed) => InTime {
            first_us: micros(patience * 1e3 * millis(speed.first_unit_ms.unwrap_or(FIRST_UNIT_MS))),
            unit_us: patience * 1e6 / speed.units_per_s,
        },
        None => InTime { first_us: t.manifest.limits.total_ms.saturating_mul(1_000), unit_us: 0.0 },
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a reply")]
const fn millis(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a length of time; saturates")]
const fn micros(x: f64) -> u64 {
    x as u64
}
