//! What a follower remembers, and what its operator told it.
//!
//! Two files with one writer each: `state.json` is the follower's, `operator.json` is written by `nineteen subnet
//! hold|release`, so that a command needs nothing of a validator that runs.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nineteen_domain::{Digest, Hotkey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::Stamped;
use crate::files::{FileError, write_whole};
use crate::limits::Objection;
use crate::refusal::Refusal;
use crate::set::{Now, Owner, Set};
use crate::source::{Fetched, SourceError, read_bounded};

const MOST_STATE_BYTES: u64 = 8 << 20;
/// The journal is turned over at this length: the one before is kept.
const MOST_JOURNAL_BYTES: u64 = 1 << 20;
const MOST_APPROVED: usize = 16;

/// A set as it came, with its signatures: enough to prove to anybody why it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub set: String,
    pub signatures: String,
    pub signers: Vec<Hotkey>,
    /// Since when it is what it is: accepted, or in force.
    pub since: Now,
}

impl Stored {
    pub(crate) fn new(from: &Fetched, signers: Vec<Hotkey>, since: Now) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { set: text(&from.set), signatures: text(&from.signatures), signers, since }
    }

    pub(crate) fn read(&self) -> Result<Set, Refusal> {
        Set::read(self.set.as_bytes())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HeldBack {
    pub set: Digest,
    pub version: semver::Version,
    pub objections: Vec<Objection>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Away {
    pub since: Now,
    pub code: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LastRefusal {
    /// Of the bytes as they came.
    pub bytes: Option<Digest>,
    pub code: String,
    pub why: String,
    pub at: Now,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub version: u32,
    /// The configuration's owner when this was written: another one later is the operator's decision.
    pub trusted: Owner,
    /// Whether the configuration's owner counts instead of the running set's.
    pub retrusted: bool,
    pub running: Option<Stored>,
    pub before: Option<Stored>,
    pub pending: Option<Stored>,
    pub held: Option<HeldBack>,
    /// When the source was last seen with nothing new.
    pub looked: Option<Now>,
    pub away: Option<Away>,
    pub refused: Option<LastRefusal>,
    /// Sets of which [`crate::Event::Waiting`] and [`crate::Event::Stale`] were said.
    pub said: BTreeSet<String>,
}

impl State {
    pub(crate) const VERSION: u32 = 1;

    pub(crate) fn new(trusted: Owner) -> Self {
        Self {
            version: Self::VERSION,
            trusted,
            retrusted: false,
            running: None,
            before: None,
            pending: None,
            held: None,
            looked: None,
            away: None,
            refused: None,
            said: BTreeSet::new(),
        }
    }

    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, FileError> {
        let path = folder.join("state.json");
        let state: Option<Self> = read_json(&path)?;
        match state {
            Some(s) if s.version != Self::VERSION => Err(FileError::content(
                &path,
                format!("version {} is not read here: upgrade nineteen", s.version),
            )),
            other => Ok(other),
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), FileError> {
        write_json(&folder.join("state.json"), self)
    }
}

/// What the operator of a validator told its follower.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Operator {
    /// Nothing new comes into force while this stands: the reason given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// Sets that may come in against the limits; the last 16.
    pub approved: Vec<Digest>,
}

impl Operator {
    /// What was said last; nothing, if nothing was.
    ///
    /// # Errors
    /// [`FileError`]: the file cannot be read. Nobody guesses whether a hold stands.
    pub fn read(folder: &Path) -> Result<Self, FileError> {
        read_json(&folder.join("operator.json")).map(Option::unwrap_or_default)
    }

    /// # Errors
    /// [`FileError::Io`].
    pub fn write(&self, folder: &Path) -> Result<(), FileError> {
        write_json(&folder.join("operator.json"), self)
    }

    /// Lets a set in against the limits.
    pub fn approve(&mut self, set: Digest) {
        self.approved.retain(|d| *d != set);
        self.approved.push(set);
        let over = self.approved.len().saturating_sub(MOST_APPROVED);
        self.approved.drain(..over);
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    match read_bounded(path, MOST_STATE_BYTES) {
        Err(SourceError::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| FileError::content(path, format!("{e}: it was edited; restore it or remove it"))),
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| FileError::content(path, e.to_string()))?;
    write_whole(path, text.as_bytes())
}

fn journals(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("events.jsonl"), folder.join("events.old.jsonl"))
}

/// Adds events to the journal.
pub(crate) fn journal(folder: &Path, events: &[Stamped]) -> Result<(), FileError> {
    if events.is_empty() {
        return Ok(());
    }
    let (new, old) = journals(folder);
    if std::fs::metadata(&new).is_ok_and(|m| m.len() > MOST_JOURNAL_BYTES) {
        std::fs::rename(&new, &old).map_err(FileError::io(&new))?;
    }
    let mut lines = String::new();
    for e in events {
        // An event is plain data: it always has a JSON text.
        lines.push_str(&serde_json::to_string(e).map_err(|e| FileError::content(&new, e.to_string()))?);
        lines.push('\n');
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).open(&new).map_err(FileError::io(&new))?;
    file.write_all(lines.as_bytes()).map_err(FileError::io(&new))
}

/// The last events, oldest first. A line that a crash cut off is passed over.
pub(crate) fn last_events(folder: &Path, most: usize) -> Vec<Stamped> {
    let (new, old) = journals(folder);
    let mut events: Vec<Stamped> = Vec::new();
    for file in [old, new] {
        let bytes = read_bounded(&file, 2 * MOST_JOURNAL_BYTES).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        events.extend(text.lines().filter_map(|l| serde_json::from_str(l).ok()));
    }
    let over = events.len().saturating_sub(most);
    events.drain(..over);
    events
}
