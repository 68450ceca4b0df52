//! What was done to the tasks: each change with its steps and how long they took, the newest kept in memory and all of late on
//! disk.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Events that are shown.
const SHOWN: usize = 256;
/// Past this the file begins anew, and the one before is kept beside it.
const MOST_BYTES: u64 = 1 << 20;

/// A part of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The task that it was about, where it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What was done: `shelf`, `verify`, `compile`, `cache`, `describe`, `sample`, `vectors`, `models`, `swap`.
    pub step: String,
    /// How long it took, microseconds.
    pub micros: u64,
}

/// A change of the tasks, or one that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it ended, microseconds of the Unix epoch.
    pub at_us: u64,
    /// In words: `upgrade chat to 0.2.0`.
    pub what: String,
    /// The generation that it made; `None` for one that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Why it was refused; what was live stayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What was done, in order.
    pub steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) struct Events {
    file: PathBuf,
    /// A std mutex: held for a copy or a line.
    newest: Mutex<VecDeque<Event>>,
}

impl Events {
    /// Those of a file, if there are any; a line that is none is passed over.
    pub(super) fn open(file: PathBuf) -> Self {
        let short = std::fs::metadata(&file).is_ok_and(|m| m.len() <= 2 * MOST_BYTES);
        let text = if short { std::fs::read_to_string(&file).unwrap_or_default() } else { String::new() };
        let mut newest: VecDeque<Event> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        while newest.len() > SHOWN {
            newest.pop_front();
        }
        Self { file, newest: Mutex::new(newest) }
    }

    /// The newest first.
    pub(super) fn newest(&self) -> Vec<Event> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// Says it in the log, and keeps it. A disk that refuses costs the line and nothing else.
    pub(super) fn tell(&self, event: Event) {
        let took: u64 = event.steps.iter().map(|s| s.micros).sum();
        match &event.refused {
            None => tracing::info!(generation = event.generation, micros = took, "{}", event.what),
            Some(why) => tracing::warn!(why, "{}: refused; what runs runs on", event.what),
        }
        for s in &event.steps {
            tracing::debug!(task = s.task, step = s.step, micros = s.micros, "step");
        }
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = self.append(&event) {
            tracing::warn!(file = %self.file.display(), error = %e, "an event was not written down");
        }
        newest.push_back(event);
        if newest.len() > SHOWN {
            newest.pop_front();
        }
    }

    fn append(&self, event: &Event) -> std::io::Result<()> {
        if let Some(folder) = self.file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if std::fs::metadata(&self.file).is_ok_and(|m| m.len() > MOST_BYTES) {
            std::fs::rename(&self.file, self.file.with_extension("jsonl.1"))?;
        }
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        std::fs::OpenOptions::new().create(true).append(true).open(&self.file)?.write_all(&line)
    }
}
