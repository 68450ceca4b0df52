//! Why a set is not taken, each reason one line for the operator's log and a stable code.

use nineteen_domain::{Digest, Hotkey, TaskName};

use crate::set::{Moment, utc};

/// Why a set is not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Longer than any honest one.
    #[error("{bytes} bytes are too many: at most {most}")]
    TooLong {
        /// Bytes given.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// Not the TOML that it has to be.
    #[error("line {line}: {why}")]
    Toml {
        /// From 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// A local set, which names folders and not digests.
    #[error(
        "it has no 'format': a local set that names folders cannot be signed; make one with `nineteen subnet init`"
    )]
    Local,
    /// A form that this host does not read.
    #[error("format {given} is not read here ({known} is): upgrade nineteen")]
    Format {
        /// The set's.
        given: u32,
        /// Ours.
        known: u32,
    },
    /// A field breaks its rule.
    #[error("{field}: {why}")]
    Field {
        /// Which.
        field: String,
        /// The rule.
        why: String,
    },
    /// There is nothing to run.
    #[error("task: a set needs at least one [[task]]")]
    NoTasks,
    /// The weights do not sum to 1.
    #[error("task: the weights sum to {sum}, not to 1: change them so that they do")]
    Weights {
        /// What they sum to.
        sum: f64,
    },
    /// No policy of this name ships.
    #[error("policy: '{name}' does not ship with this host: upgrade nineteen, or have the set write it out")]
    UnknownPolicy {
        /// Its name.
        name: String,
    },
    /// The policy of this name has other numbers here than where it was signed.
    #[error(
        "policy_digest: the policy '{name}' of this host is {ours}, the set means {signed}: upgrade nineteen, or have the set write it out"
    )]
    OtherPolicy {
        /// Its name.
        name: String,
        /// Of the numbers that are meant.
        signed: Digest,
        /// Of our numbers.
        ours: Digest,
    },
    /// The signatures' file cannot be read.
    #[error("taskset.sig: {why}")]
    SignatureFile {
        /// What is wrong.
        why: String,
    },
    /// Nobody signed.
    #[error("the set is not signed: its owners sign with `nineteen subnet sign`")]
    Unsigned,
    /// The signatures are of another set: one of the two files is older, or was changed.
    #[error(
        "the signatures are of {signed}, the set is {this}: one of the two files was changed after signing"
    )]
    OtherBytes {
        /// What was signed.
        signed: Digest,
        /// What is offered.
        this: Digest,
    },
    /// Too few of those whose word counts have signed.
    #[error("{have} of {need} signatures that {whose} needs{}", stray(*strangers, *broken))]
    TooFew {
        /// Whose keys are asked for.
        whose: Whose,
        /// Valid ones of different keys.
        have: u32,
        /// How many it takes.
        need: u32,
        /// Signatures by keys that do not count here.
        strangers: u32,
        /// Signatures of owners' keys that do not hold for this set.
        broken: u32,
    },
    /// A set of another subnet.
    #[error("name: it is '{given}', this validator follows '{followed}'")]
    OtherName {
        /// The set's.
        given: String,
        /// Ours.
        followed: String,
    },
    /// Older than what was accepted.
    #[error("sequence {given} is older than {accepted}, which was accepted before: the source went back")]
    Older {
        /// The set's.
        given: u64,
        /// The newest that was accepted.
        accepted: u64,
    },
    /// Two sets of one number: the owners signed two different ones, or a key is in wrong hands.
    #[error(
        "sequence {sequence} was signed twice: {accepted} was accepted, this is {given}; ask the owners which they mean"
    )]
    Twice {
        /// The number.
        sequence: u64,
        /// Accepted before.
        accepted: Digest,
        /// Offered now.
        given: Digest,
    },
    /// The version does not grow.
    #[error("version {given} is not above {accepted}, which was accepted before")]
    Version {
        /// The set's.
        given: semver::Version,
        /// The newest that was accepted.
        accepted: semver::Version,
    },
    /// Nobody takes it up any more.
    #[error("it expired at {}", utc(*expired_unix_s))]
    Expired {
        /// Second of the Unix epoch.
        expired_unix_s: u64,
    },
    /// Published later than now.
    #[error("it says that it was published at {published}, which has not come: is a clock wrong?")]
    FromTheFuture {
        /// What it says.
        published: Moment,
    },
    /// It takes effect sooner after its publishing than the set that runs promised.
    #[error("it takes effect {given} {unit} after it was published; the set that runs promised {promised}")]
    ShortNotice {
        /// From published to effective.
        given: u64,
        /// The promise.
        promised: u64,
        /// `seconds` or `blocks`.
        unit: &'static str,
    },
    /// A file that the set names is not what it has to be.
    #[error("task '{task}': {file}: {why}")]
    TaskFile {
        /// Whose.
        task: TaskName,
        /// `task.toml`, `calibration.json` or the component.
        file: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// Whose keys are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The keys that this validator trusts at first.
    First,
    /// The owner that the set in force names.
    Running,
    /// The owner that the new set itself names: who takes over has to show that the keys are there.
    Next,
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::First => "the owner trusted at first ([subnet] keys)",
            Self::Running => "the owner of the running set",
            Self::Next => "the owner that it names for the next set",
        })
    }
}

fn stray(strangers: u32, broken: u32) -> String {
    match (strangers, broken) {
        (0, 0) => String::new(),
        (s, 0) => format!("; {s} more by keys that do not count here"),
        (0, b) => format!("; {b} more do not hold for this set"),
        (s, b) => format!("; {s} more by keys that do not count here, {b} do not hold for this set"),
    }
}

impl Refusal {
    /// Stable code for logs, events and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "taskset.too-long",
            Self::Toml { .. } => "taskset.toml",
            Self::Local => "taskset.local",
            Self::Format { .. } => "taskset.format",
            Self::Field { .. } => "taskset.field",
            Self::NoTasks => "taskset.no-tasks",
            Self::Weights { .. } => "taskset.weights",
            Self::UnknownPolicy { .. } => "taskset.unknown-policy",
            Self::OtherPolicy { .. } => "taskset.other-policy",
            Self::SignatureFile { .. } => "taskset.signature-file",
            Self::Unsigned => "taskset.unsigned",
            Self::OtherBytes { .. } => "taskset.other-bytes",
            Self::TooFew { .. } => "taskset.too-few-signatures",
            Self::OtherName { .. } => "taskset.other-name",
            Self::Older { .. } => "taskset.older",
            Self::Twice { .. } => "taskset.signed-twice",
            Self::Version { .. } => "taskset.version",
            Self::Expired { .. } => "taskset.expired",
            Self::FromTheFuture { .. } => "taskset.from-the-future",
            Self::ShortNotice { .. } => "taskset.short-notice",
            Self::TaskFile { .. } => "taskset.task-file",
        }
    }
}

/// Which keys signed, and what else lay there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Owners whose signature holds, each once, sorted.
    pub signers: Vec<Hotkey>,
    /// Signatures by keys that do not count.
    pub strangers: u32,
    /// Signatures of owners' keys that do not hold.
    pub broken: u32,
}
