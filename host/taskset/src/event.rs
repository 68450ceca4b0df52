//! What a follower did, for the log, the operator's API and a journal.

use nineteen_domain::{Digest, Hotkey};
use serde::{Deserialize, Serialize};

use crate::limits::Objection;
use crate::plan::Plan;
use crate::set::{Moment, Now};

/// An event and when it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// When.
    pub at: Now,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened. Nothing is said twice in a row: a source that stays away is away once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The source does not answer; what runs runs on.
    SourceAway {
        /// Stable code.
        code: String,
        /// One line.
        why: String,
    },
    /// The source answers again.
    SourceBack {
        /// Seconds that it was away.
        away_s: u64,
    },
    /// A set was not taken.
    Refused {
        /// Its digest, where it could be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        set: Option<Digest>,
        /// Stable code.
        code: String,
        /// One line.
        why: String,
    },
    /// A set waits for the operator's word.
    Held {
        /// Which.
        set: Digest,
        /// Its version.
        version: semver::Version,
        /// Why.
        objections: Vec<Objection>,
    },
    /// A set was accepted and waits for its moment.
    Pending {
        /// Which.
        set: Digest,
        /// Its version.
        version: semver::Version,
        /// Its moment.
        effective: Moment,
        /// Who signed.
        signers: Vec<Hotkey>,
        /// The set that waited before and does not any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead_of: Option<Digest>,
    },
    /// The moment has come, and the operator holds: what runs runs on.
    Waiting {
        /// Which.
        set: Digest,
        /// The operator's reason.
        why: String,
    },
    /// A set waited until nobody takes it up any more.
    Lapsed {
        /// Which.
        set: Digest,
    },
    /// A set is in force.
    InForce {
        /// Which.
        set: Digest,
        /// Its version.
        version: semver::Version,
        /// What ran before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Digest>,
        /// What the registry has to do.
        plan: Plan,
    },
    /// Other keys sign from now on.
    Rotated {
        /// These.
        keys: Vec<Hotkey>,
        /// And so many of them.
        threshold: u32,
    },
    /// The validator had missed sets that changed the keys, and followed them one by one.
    CaughtUp {
        /// Up to this number.
        sequence: u64,
    },
    /// The configuration names other keys than before: the operator decided whom to trust.
    Retrusted {
        /// These.
        keys: Vec<Hotkey>,
    },
    /// The running set has expired: the owner is silent, or the source hides what is newer. It runs on.
    Stale {
        /// Which.
        set: Digest,
        /// Second of the Unix epoch.
        expired_unix_s: u64,
    },
}
