//! How a follower stands, for people and programs; also read beside a validator that runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nineteen_domain::{Digest, Hotkey, TaskName};
use serde::Serialize;

use crate::event::Stamped;
use crate::follower::{FollowerError, folder_of};
use crate::set::{Moment, Now, Owner, SET_FILE, Set};
use crate::state::{Operator, State, Stored, last_events};

const EVENTS_IN_STATUS: usize = 12;

/// One set in a status.
#[derive(Debug, Clone, Serialize)]
pub struct SetLine {
    /// The subnet.
    pub name: String,
    /// Its version.
    pub version: semver::Version,
    /// Its number.
    pub sequence: u64,
    /// What identifies it.
    pub digest: Digest,
    /// Its moment.
    pub effective: Moment,
    /// Until when it is taken up.
    pub expires_unix_s: u64,
    /// Who signed it.
    pub signers: Vec<Hotkey>,
    /// Since when it runs, or waits.
    pub since: Now,
    /// Tasks and weights.
    pub tasks: BTreeMap<TaskName, f64>,
}

/// A set that waits for the operator's word.
#[derive(Debug, Clone, Serialize)]
pub struct HeldLine {
    /// Which.
    pub set: Digest,
    /// Its version.
    pub version: semver::Version,
    /// Why, in words.
    pub objections: Vec<String>,
}

/// How a follower stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// In force.
    pub running: Option<SetLine>,
    /// Accepted, waiting for its moment.
    pub pending: Option<SetLine>,
    /// Waiting for the operator's word.
    pub held: Option<HeldLine>,
    /// The operator's reason for holding everything.
    pub hold: Option<String>,
    /// Whose signatures the next set needs.
    pub owner: Owner,
    /// Since when the source does not answer, and why.
    pub away: Option<(Now, String)>,
    /// The last refusal, if nothing was taken since: when, code, line.
    pub refused: Option<(Now, String, String)>,
    /// When the source was last seen with nothing new.
    pub looked: Option<Now>,
    /// The last events, oldest first.
    pub events: Vec<Stamped>,
}

impl Status {
    /// Of a folder, also of one that a validator is following in. `None`: nothing was ever followed there.
    ///
    /// # Errors
    /// [`FollowerError::File`].
    pub fn read(folder: &Path) -> Result<Option<Self>, FollowerError> {
        State::read(folder)?.map(|state| Self::of(folder, &state)).transpose()
    }

    /// Of the set in force in a folder: its `taskset.toml` in the local form, with its tasks beside it.
    ///
    /// # Errors
    /// As [`Status::read`].
    pub fn running_file(folder: &Path) -> Result<Option<PathBuf>, FollowerError> {
        Ok(Self::running_set(folder)?.map(|set| folder_of(folder, &set.digest()).join(SET_FILE)))
    }

    /// The set in force in a folder, as it was signed.
    ///
    /// # Errors
    /// As [`Status::read`].
    pub fn running_set(folder: &Path) -> Result<Option<Set>, FollowerError> {
        let state = State::read(folder)?;
        Ok(state.and_then(|s| s.running).and_then(|s| s.read().ok()))
    }

    pub(crate) fn of(folder: &Path, state: &State) -> Result<Self, FollowerError> {
        let line = |stored: &Option<Stored>| {
            let stored = stored.as_ref()?;
            let set = stored.read().ok()?;
            Some(SetLine {
                digest: set.digest(),
                effective: set.effective,
                expires_unix_s: set.expires_unix_s,
                sequence: set.sequence,
                signers: stored.signers.clone(),
                since: stored.since,
                tasks: set.tasks.iter().map(|t| (t.name.clone(), t.weight)).collect(),
                name: set.name,
                version: set.version,
            })
        };
        let running = state.running.as_ref().and_then(|s| s.read().ok()).filter(|_| !state.retrusted);
        Ok(Self {
            running: line(&state.running),
            pending: line(&state.pending),
            held: state.held.as_ref().map(|h| HeldLine {
                set: h.set,
                version: h.version.clone(),
                objections: h.objections.iter().map(ToString::to_string).collect(),
            }),
            hold: Operator::read(folder)?.hold,
            owner: running.map_or_else(|| state.trusted.clone(), |s| s.owner),
            away: state.away.as_ref().map(|a| (a.since, a.why.clone())),
            refused: state.refused.as_ref().map(|r| (r.at, r.code.clone(), r.why.clone())),
            looked: state.looked,
            events: last_events(folder, EVENTS_IN_STATUS),
        })
    }
}
