//! Whose fault is it when a plugin fails? The control exchange answers.
//!
//! Invariant 2: a fault of ours never lowers a miner's score, and nobody hides behind it. When a plugin
//! traps or overruns on one miner's bytes, the same generation is run on the task's conformance vectors, and where it
//! has none on a *control exchange*: the last
//! one of this task that it judged without trouble, with the evidence of then. If that passes, the plugin
//! works and the bytes are to blame; if it fails too, or there is none yet, the fault is ours.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use nineteen_domain::{Check, Evidence, Exchange, Outcome, Request, TaskName};

use crate::registry::LiveTask;

#[derive(Debug, Clone)]
struct Control {
    request: Request,
    exchange: Exchange,
    transcript: Arc<Vec<(Check, Evidence)>>,
}

/// One control exchange a task. A std mutex: held for a clone, never across an await.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    last_good: Mutex<BTreeMap<TaskName, Control>>,
}

impl Controls {
    pub(crate) fn remember(
        &self,
        task: &TaskName,
        request: &Request,
        exchange: &Exchange,
        transcript: &[(Check, Evidence)],
    ) {
        let control = Control {
            request: request.clone(),
            exchange: exchange.clone(),
            transcript: Arc::new(transcript.to_vec()),
        };
        self.last_good.lock().unwrap_or_else(PoisonError::into_inner).insert(task.clone(), control);
    }

    /// Whether a task's plugin works where it has to, so that a failure elsewhere is the bytes': on the vectors of its author,
    /// and where there are none on the control exchange. `None` as long as there is neither.
    pub(crate) async fn try_on(&self, task: &LiveTask) -> Option<bool> {
        let (plugin, vectors) = (Arc::clone(&task.plugin), Arc::clone(&task.vectors));
        if !vectors.all().is_empty() {
            return Some(
                tokio::task::spawn_blocking(move || vectors.play(&plugin).is_ok()).await.unwrap_or(false),
            );
        }
        let control =
            self.last_good.lock().unwrap_or_else(PoisonError::into_inner).get(plugin.task()).cloned()?;
        let run = move || {
            let counted = plugin.count(&control.request, &control.exchange);
            let scored = plugin.score(&control.request, &control.exchange, &control.transcript);
            matches!(counted, Ok(Some(_))) && matches!(scored, Ok(Outcome::Scored(_)))
        };
        Some(tokio::task::spawn_blocking(run).await.unwrap_or(false))
    }
}
