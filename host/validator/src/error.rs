//! What can go wrong in the validator, with a stable code and the way out.

use std::path::PathBuf;

use nineteen_domain::TaskName;
use nineteen_domain::meet::ChainError;

/// Why the validator does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ValidatorError {
    /// A task set or manifest is wrong.
    #[error("{}: {why}", file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// Field, reason, way out.
        why: String,
    },
    /// A task's plugin does not load.
    #[error("task {task}: {why}")]
    Load {
        /// Which task.
        task: TaskName,
        /// The sandbox's words.
        why: String,
    },
    /// A task needs a check or model that this host does not serve.
    #[error("task {task}: {why}")]
    Checks {
        /// Which task.
        task: TaskName,
        /// What is missing and how to get it.
        why: String,
    },
    /// A folder cannot be put on the shelf of tasks.
    #[error("{why}")]
    Shelf {
        /// File, reason, way out.
        why: String,
    },
    /// The policy is not known here.
    #[error("{}: policy: '{name}' is not known to this host; it knows {}", file.display(), nineteen_domain::policy::Policy::NAMES.join(" and "))]
    Policy {
        /// The task set.
        file: PathBuf,
        /// The policy it names.
        name: String,
    },
    /// The store failed: what cannot be kept must not be acted on, so the validator stops.
    #[error("{0}")]
    Store(#[from] nineteen_store::StoreError),
    /// The chain refused or is away.
    #[error("{0}")]
    Chain(#[from] ChainError),
    /// A part of the host ended before it should.
    #[error("the {part} stopped: {why}")]
    Part {
        /// Which part.
        part: &'static str,
        /// Why.
        why: String,
    },
}

impl ValidatorError {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "validator.file",
            Self::Load { .. } => "validator.load",
            Self::Checks { .. } => "validator.checks",
            Self::Shelf { .. } => "validator.shelf",
            Self::Policy { .. } => "validator.policy",
            Self::Store(e) => e.code(),
            Self::Chain(_) => "validator.chain",
            Self::Part { .. } => "validator.part",
        }
    }
}
