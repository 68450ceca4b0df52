//! What people ask a validator: scores, weights, tasks, and why.
//!
//! The same reports are made from a running validator's store and from a store at rest. Everything comes
//! from what was kept at settlement; nothing is computed anew, so a report cannot disagree with the weights.

mod explain;

use std::collections::BTreeMap;
use std::sync::Arc;

use nineteen_domain::ledger::{PeriodRow, Tally};
use nineteen_domain::task::Manifest;
use nineteen_domain::{Hotkey, PeriodId, TaskName, Uid};
use nineteen_sandbox::Spent;
use nineteen_schedule::Status;
use nineteen_store::{Store, StoreError, WeightsSet};
use serde::{Deserialize, Serialize};

pub use explain::{Explanation, ProbeStory};

use crate::board::Board;
use crate::control_miner::{ControlScore, control_scores};
use crate::facts;
use crate::registry::{Declared, LiveTask};
use crate::run::Live;
use crate::settle::SettledPeriod;

/// Periods whose scores a report lists.
const SHOWN_PERIODS: usize = 48;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It needs a settled period.
    #[error("{0}")]
    NotYet(String),
    /// No such miner or task.
    #[error("{0}")]
    Unknown(String),
    /// The store cannot be read.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl ReportError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotYet(_) => "report.not-yet",
            Self::Unknown(_) => "report.unknown",
            Self::Store(e) => e.code(),
        }
    }
}

/// Makes reports. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reports {
    store: Store,
    tasks: Known,
    live: Option<Arc<Live>>,
}

/// Where the tasks are known from.
#[derive(Debug, Clone)]
enum Known {
    Live(Arc<Board>),
    Written(Arc<Vec<TaskLine>>),
}

/// A task of the set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskLine {
    /// Its name.
    pub name: TaskName,
    /// Its version.
    pub version: String,
    /// Its weight, in [0, 1].
    pub weight: f64,
    /// Unit of volume.
    pub unit: String,
    /// Path on the miner.
    pub path: String,
    /// The most units per hour that one miner is credited with.
    pub cap_per_hour: u64,
    /// Component by name.
    pub component: String,
    /// Digest of the component that runs; absent when no validator runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// WIT version that it was built against; absent when no validator runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wit: Option<String>,
    /// Units that one probe is expected to take; absent when no validator runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_units: Option<u64>,
    /// Granted checks and models.
    pub grants: BTreeMap<String, Vec<String>>,
}

/// `nineteen tasks show`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// As it is listed.
    #[serde(flatten)]
    pub line: TaskLine,
    /// Where its files lie.
    pub folder: std::path::PathBuf,
    /// As written.
    pub manifest: Manifest,
    /// Whether it has a calibration: without one nobody is accused.
    pub calibrated: bool,
    /// `major.minor`: what was scored in another epoch is no part of a history.
    pub epoch: String,
    /// What loading took, microseconds by step.
    pub loaded: Vec<(String, u64)>,
    /// What its calls used since they were loaded, by function.
    pub spent: BTreeMap<String, Spent>,
}

/// `nineteen scores`, and the demo's `--json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The last settled period.
    pub period: PeriodId,
    /// Periods settled in all that the first task's rows show.
    pub periods: usize,
    /// Policy that it was settled under.
    pub policy: String,
    /// The tasks.
    pub tasks: Vec<TaskLine>,
    /// Highest weight first.
    pub miners: Vec<MinerScores>,
}

/// One miner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MinerScores {
    /// Its place.
    pub uid: Uid,
    /// Its key.
    pub hotkey: Hotkey,
    /// What it is; known to the demo alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// By task.
    pub tasks: BTreeMap<TaskName, TaskScores>,
    /// In [0, 1].
    pub weight: f64,
    /// As the chain gets it.
    pub weight_u16: u16,
}

/// One miner in one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskScores {
    /// As announced; `None` for a fault.
    pub announced: Option<f64>,
    /// Units per period after clamping.
    pub capacity: u64,
    /// Probes by outcome, over the listed periods.
    pub probes: Tally,
    /// Newest first; `None` where nothing was asked.
    pub period_scores: Vec<Option<f64>>,
    /// `P`.
    pub reliability: f64,
    /// `Q`.
    pub quality: f64,
    /// Mean quality of the samples before any exponent.
    pub quality_mean: f64,
    /// Samples that counted.
    pub samples: usize,
    /// The policy's percentile of verified units per second; `None` without samples.
    pub speed: Option<f64>,
    /// What speed multiplies effective volume with.
    pub speed_factor: f64,
    /// What part of the capacity is credited, in [0, 1].
    pub credit: f64,
    /// `E`.
    pub effective_volume: f64,
    /// `S`, in [0, 1].
    pub share: f64,
}

/// `nineteen weights`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// When, microseconds of the Unix epoch.
    pub at_us: u64,
    /// Whether the chain took them.
    pub taken: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Max-scaled u16 by uid, ascending.
    pub weights: Vec<(Uid, u16)>,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidatorStatus {
    /// Version of the program.
    pub version: String,
    /// Where the schedule stands; absent when no validator runs.
    pub schedule: Option<Status>,
    /// The last settled period.
    pub settled: Option<PeriodId>,
    /// Weights that the chain took, in all that are kept.
    pub weights_taken: usize,
    /// How our own miner fared, by task: its accusations are false ones.
    #[serde(default)]
    pub control: BTreeMap<TaskName, ControlScore>,
    /// Records in the store, by kind.
    pub store: serde_json::Value,
}

impl Reports {
    /// Of a running validator.
    #[must_use]
    pub const fn running(store: Store, tasks: Arc<Board>, live: Arc<Live>) -> Self {
        Self { store, tasks: Known::Live(tasks), live: Some(live) }
    }

    /// The lines of the tasks as they are now.
    fn lines(&self) -> Vec<TaskLine> {
        let tasks = match &self.tasks {
            Known::Written(lines) => return lines.as_ref().clone(),
            Known::Live(board) => board.now(),
        };
        tasks.by_name.values().map(|t| live_line(t)).collect()
    }

    /// Of a store at rest.
    #[must_use]
    pub fn at_rest(store: Store, tasks: &[Declared]) -> Self {
        Self { store, tasks: Known::Written(Arc::new(declared_lines(tasks))), live: None }
    }

    /// Where the validator stands.
    ///
    /// # Errors
    /// [`ReportError::Store`].
    pub fn status(&self) -> Result<ValidatorStatus, ReportError> {
        Ok(ValidatorStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            schedule: self.live.as_ref().map(|l| l.status()),
            settled: self.store.latest_settlement()?.map(|(p, _)| p),
            weights_taken: self.store.weights(1_000)?.iter().filter(|w| w.refused.is_none()).count(),
            control: control_scores(&self.store, self.lines().iter().map(|t| &t.name))?,
            store: serde_json::to_value(self.store.counts()?).unwrap_or_default(),
        })
    }

    /// The tasks.
    ///
    /// # Errors
    /// None today; the signature is that of the other reports.
    pub fn tasks(&self) -> Result<Vec<TaskLine>, ReportError> {
        Ok(self.lines())
    }

    /// One task that runs: its manifest, its component, and what its calls used of their budgets.
    ///
    /// # Errors
    /// [`ReportError::Unknown`] with the names of those that run.
    pub fn task(&self, name: &str) -> Result<TaskReport, ReportError> {
        let Known::Live(board) = &self.tasks else {
            return Err(ReportError::NotYet(
                "no validator runs: the manifest is in the task's folder".into(),
            ));
        };
        let tasks = board.now();
        let found = TaskName::new(name).ok().and_then(|name| tasks.by_name.get(&name).cloned());
        let Some(t) = found else {
            let names: Vec<&str> = tasks.by_name.keys().map(TaskName::as_str).collect();
            return Err(ReportError::Unknown(format!(
                "task '{name}' does not run; these do: {} (`nineteen tasks` lists those that rest)",
                names.join(", ")
            )));
        };
        Ok(TaskReport {
            line: live_line(&t),
            folder: t.folder.clone(),
            manifest: t.manifest.clone(),
            calibrated: t.calibration.is_some(),
            epoch: facts::epoch(&t.manifest.version),
            loaded: t.steps.iter().map(|(step, took)| ((*step).to_owned(), micros(*took))).collect(),
            spent: t.plugin.spent(),
        })
    }

    /// The last weights.
    ///
    /// # Errors
    /// [`ReportError::NotYet`] before the first.
    pub fn weights(&self) -> Result<Weights, ReportError> {
        let last: Option<WeightsSet> = self.store.weights(1)?.into_iter().next();
        let last = last.ok_or_else(|| ReportError::NotYet("no weights have been set yet".into()))?;
        Ok(Weights {
            at_us: last.at_us,
            taken: last.refused.is_none(),
            refused: last.refused,
            weights: last.weights,
        })
    }

    /// Every miner and task of the last settled period.
    ///
    /// # Errors
    /// [`ReportError::NotYet`] before the first.
    pub fn scores(&self) -> Result<Scores, ReportError> {
        let settled = self.settled()?;
        let u16s: BTreeMap<Uid, u16> = settled.settlement.u16s.iter().copied().collect();
        let mut periods = 0;
        let mut miners: Vec<MinerScores> = settled
            .settlement
            .weights
            .iter()
            .map(|w| MinerScores {
                uid: w.uid,
                hotkey: w.miner,
                kind: None,
                tasks: BTreeMap::new(),
                weight: w.weight,
                weight_u16: u16s.get(&w.uid).copied().unwrap_or(0),
            })
            .collect();
        for s in &settled.settlement.standings {
            let rows = self.rows(&s.miner, &s.task)?;
            periods = periods.max(rows.len());
            let now = settled.outcome.rows.iter().find(|r| r.miner == s.miner && r.task == s.task);
            let scores = TaskScores {
                announced: now.and_then(|r| r.announced),
                capacity: s.capacity,
                probes: sum(&rows),
                period_scores: rows.iter().map(|r| r.score).collect(),
                reliability: s.reliability.normalised_period_score,
                quality: s.quality.quality,
                quality_mean: s.quality.plain_mean,
                samples: s.quality.own_samples,
                speed: s.speed.metric,
                speed_factor: s.speed.factor,
                credit: s.credit.factor,
                effective_volume: s.effective_volume,
                share: s.share,
            };
            if let Some(miner) = miners.iter_mut().find(|m| m.hotkey == s.miner) {
                miner.tasks.insert(s.task.clone(), scores);
            }
        }
        miners.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.uid.cmp(&b.uid)));
        Ok(Scores {
            period: settled.outcome.period,
            periods,
            policy: settled.settlement.policy,
            tasks: self.lines(),
            miners,
        })
    }

    /// Why a miner earns what it earns. `miner` is a uid or a hotkey.
    ///
    /// # Errors
    /// [`ReportError::NotYet`] before the first settled period, [`ReportError::Unknown`] with what is known.
    pub fn explain(&self, miner: &str, task: &str) -> Result<Explanation, ReportError> {
        let settled = self.settled()?;
        let tasks = || settled.task_weights.keys().map(TaskName::as_str).collect::<Vec<_>>().join(", ");
        let task =
            TaskName::new(task).ok().filter(|t| settled.task_weights.contains_key(t)).ok_or_else(|| {
                ReportError::Unknown(format!("task '{task}' is not in the set; it has {}", tasks()))
            })?;
        let wanted = |uid: Uid, hotkey: &Hotkey| uid.to_string() == miner || hotkey.to_string() == miner;
        let standing = settled
            .settlement
            .standings
            .iter()
            .find(|s| s.task == task && wanted(s.uid, &s.miner))
            .ok_or_else(|| {
                let uids: Vec<String> =
                    settled.settlement.weights.iter().map(|w| w.uid.to_string()).collect();
                ReportError::Unknown(format!(
                    "miner '{miner}' was not in period {}; use a hotkey or one of the uids {}",
                    settled.outcome.period,
                    uids.join(", ")
                ))
            })?;
        let rows = self.rows(&standing.miner, &task)?;
        let samples = self.store.samples(&standing.miner, &task, 0, 1_000)?;
        let lines = self.lines();
        let unit = lines.iter().find(|t| t.name == task).map_or("units", |t| t.unit.as_str());
        let ends = self.store.finished(settled.outcome.period);
        let ends = ends
            .filter(|f| f.as_ref().map_or(true, |f| f.probe.task == task && f.probe.miner == standing.miner))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(explain::explain(&explain::Known { settled: &settled, standing, unit }, rows, samples, ends))
    }

    fn rows(&self, miner: &Hotkey, task: &TaskName) -> Result<Vec<PeriodRow>, ReportError> {
        let mut rows = self.store.rows(miner, task, 0)?;
        rows.truncate(SHOWN_PERIODS);
        Ok(rows)
    }

    fn settled(&self) -> Result<SettledPeriod, ReportError> {
        let not_yet = || ReportError::NotYet("no period has been settled yet".into());
        let (period, kept) = self.store.latest_settlement()?.ok_or_else(not_yet)?;
        serde_json::from_value(kept).map_err(|e| {
            ReportError::NotYet(format!(
                "the settlement of period {period} was written by another version: {e}"
            ))
        })
    }
}

/// The lines of tasks that no validator runs.
#[must_use]
pub fn declared_lines(tasks: &[Declared]) -> Vec<TaskLine> {
    tasks.iter().map(|d| line(&d.manifest, d.weight)).collect()
}

fn live_line(t: &LiveTask) -> TaskLine {
    TaskLine {
        digest: Some(t.plugin.digest().to_string()),
        wit: Some(t.plugin.wit_version().to_string()),
        expected_units: Some(t.expected_units),
        ..line(&t.manifest, t.weight)
    }
}

fn micros(took: std::time::Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn line(m: &nineteen_domain::task::Manifest, weight: f64) -> TaskLine {
    TaskLine {
        name: m.name.clone(),
        version: m.version.to_string(),
        weight,
        unit: m.unit.clone(),
        path: m.path.clone(),
        cap_per_hour: m.cap_per_hour,
        component: m.component.clone(),
        digest: m.digest.map(|d| d.to_string()),
        wit: None,
        expected_units: None,
        grants: m
            .grants
            .iter()
            .map(|(k, models)| (k.clone(), models.iter().map(ToString::to_string).collect()))
            .collect(),
    }
}

fn sum(rows: &[PeriodRow]) -> Tally {
    rows.iter().fold(Tally::default(), |mut sum, r| {
        sum.answered = sum.answered.saturating_add(r.tally.answered);
        sum.rate_limited = sum.rate_limited.saturating_add(r.tally.rate_limited);
        sum.failed = sum.failed.saturating_add(r.tally.failed);
        sum.ours = sum.ours.saturating_add(r.tally.ours);
        sum.consumed = sum.consumed.saturating_add(r.tally.consumed);
        sum.asked = sum.asked.saturating_add(r.tally.asked);
        sum
    })
}
