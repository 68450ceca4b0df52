//! What is calibrated, and what is seen.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use nineteen_checking::{CheckingError, ExecutorConfig, Executors, ModelConfig, Runtime};
use nineteen_domain::{ModelName, Request, TaskName};
use serde::{Deserialize, Serialize};

use crate::error::CalibrateError;
use crate::weights::{Change, write_variant};

/// The reference that answers are held against.
#[derive(Debug, Clone)]
pub struct Task {
    /// Whose calibration it is.
    pub name: TaskName,
    /// The model of the task.
    pub model: ModelName,
}

/// Everything that observing needs.
#[derive(Debug)]
pub struct Setting {
    /// What is calibrated.
    pub task: Task,
    /// What else the task's checks are asked of.
    pub beside: Vec<ModelName>,
    /// Folder of the models' folders.
    pub models_dir: PathBuf,
    /// A folder in which one changed model at a time is written; some gigabytes.
    pub scratch: PathBuf,
    /// The runtime.
    pub runtime: Arc<Runtime>,
    /// The task's own synthetic requests, one an exchange.
    pub requests: Vec<Request>,
    /// The most units (tokens, rows) of one exchange.
    pub units: u32,
    /// Sessions that compute at once; one a core is best.
    pub threads: usize,
    /// Whether suspects are left out.
    pub honest_only: bool,
}

/// One answer as the checker sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Class of answers that it is compared with.
    pub class: String,
    /// Honest condition or suspect.
    pub condition: String,
    /// Whether the condition is an honest one.
    pub honest: bool,
    /// Number of the request.
    pub exchange: u32,
    /// What is binned, one a unit; infinite outside the sampler's support.
    #[serde(with = "finite_or_null")]
    pub statistic: Vec<f64>,
    /// Text: how many tokens the reference prefers.
    #[serde(default)]
    pub rank: Vec<u32>,
    /// Text: the reference's log-probability at temperature 1.
    #[serde(default)]
    pub logprob: Vec<f64>,
    /// Text: what the miner's own model gave.
    #[serde(default)]
    pub claimed: Vec<f64>,
    /// Text: whether each token is the one that the reference itself draws.
    #[serde(default)]
    pub same: Vec<bool>,
    /// Text: temperature of the request.
    #[serde(default)]
    pub temperature: f64,
    /// Pictures: what the plugin measured, by the names of its reasons.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, f64>,
    /// Pictures: the rule that the answer broke, if it broke one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violation: Option<String>,
}

/// JSON has no infinity.
mod finite_or_null {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(all: &[f64], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(all.iter().map(|x| x.is_finite().then_some(*x)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f64>, D::Error> {
        let all = Vec::<Option<f64>>::deserialize(d)?;
        Ok(all.into_iter().map(|x| x.unwrap_or(f64::INFINITY)).collect())
    }
}

/// Weights under which the model is run.
pub(crate) struct Weights {
    pub(crate) name: &'static str,
    pub(crate) honest: bool,
    pub(crate) from: From,
    /// Threads of one session.
    pub(crate) intra: usize,
    /// Whether the runtime may rewrite graphs before it runs them.
    pub(crate) optimised: bool,
}

pub(crate) enum From {
    /// As they are.
    Own,
    /// A folder beside the model's, with this ending; left out where there is none.
    Beside(&'static str),
    Changed(Change),
}

impl Weights {
    pub(crate) const fn honest(name: &'static str, from: From) -> Self {
        Self { name, honest: true, from, intra: 1, optimised: true }
    }

    pub(crate) const fn suspect(name: &'static str, from: From) -> Self {
        Self { name, honest: false, from, intra: 1, optimised: true }
    }
}

impl Setting {
    /// Starts the model with its own weights.
    pub(crate) async fn reference(&self) -> Result<Executors, CalibrateError> {
        self.start(self.models_dir.clone(), self.task.model.clone(), (1, true)).await
    }

    /// Starts the model with other weights; `None` where this model cannot have them.
    pub(crate) async fn with(
        &self,
        weights: &Weights,
    ) -> Result<Option<(Executors, ModelName)>, CalibrateError> {
        let (dir, name) = match weights.from {
            From::Own => (self.models_dir.clone(), self.task.model.clone()),
            From::Beside(ending) => {
                let name = self.named(ending)?;
                if !self.models_dir.join(name.as_str()).is_dir() {
                    return Ok(None);
                }
                (self.models_dir.clone(), name)
            }
            From::Changed(change) => {
                let name = self.named("changed")?;
                let (models, model, to, changed) =
                    (self.models_dir.clone(), self.task.model.clone(), self.scratch.clone(), name.clone());
                let write = move || write_variant(&models, &model, change, &to, &changed);
                let written = tokio::task::spawn_blocking(write).await.map_err(lost)??;
                if !written {
                    return Ok(None);
                }
                (self.scratch.clone(), name)
            }
        };
        Ok(Some((self.start(dir, name.clone(), (weights.intra, weights.optimised)).await?, name)))
    }

    fn named(&self, ending: &str) -> Result<ModelName, CalibrateError> {
        let name = format!("{}-{ending}", self.task.model);
        ModelName::new(&name).map_err(|e| CalibrateError::Request(e.to_string()))
    }

    async fn start(
        &self,
        dir: PathBuf,
        model: ModelName,
        (intra, optimised): (usize, bool),
    ) -> Result<Executors, CalibrateError> {
        for name in &self.beside {
            // A changed model lies in a folder of its own; what it is used with is linked to from there.
            let (from, to) = (self.models_dir.join(name.as_str()), dir.join(name.as_str()));
            if !to.exists() {
                let from = std::path::absolute(from).map_err(|e| CheckingError::System(e.to_string()))?;
                std::os::unix::fs::symlink(from, &to).map_err(|e| CalibrateError::file(&to, e))?;
            }
        }
        let config = ExecutorConfig {
            models_dir: dir,
            threads_per_model: (self.threads / intra).max(1),
            intra_threads: intra,
            queue: 16,
            models: std::iter::once(model)
                .chain(self.beside.iter().cloned())
                .map(ModelConfig::from)
                .collect(),
        };
        let runtime =
            if optimised { Arc::clone(&self.runtime) } else { Arc::new(self.runtime.unoptimised()) };
        let started = tokio::task::spawn_blocking(move || Executors::start(runtime, config)).await;
        Ok(started.map_err(lost)??)
    }
}

fn lost(e: tokio::task::JoinError) -> CalibrateError {
    CheckingError::System(format!("a thread of the calibration failed: {e}")).into()
}
