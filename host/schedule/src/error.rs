//! Why a machine cannot be set up.

use nineteen_domain::TaskName;

/// Settings that make no schedule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// A length of time or a limit is out of range.
    #[error("{setting} is {given}: {rule}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What was given.
        given: u64,
        /// What it has to be.
        rule: &'static str,
    },
    /// A task occurs twice.
    #[error("task '{0}' is listed twice: list it once")]
    DuplicateTask(TaskName),
    /// The policy's distribution of shares is none.
    #[error("policy '{policy}' cannot be planned with: {rule}")]
    Policy {
        /// Its name.
        policy: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
}

impl ScheduleError {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Setting { .. } => "schedule.setting",
            Self::DuplicateTask(_) => "schedule.duplicate-task",
            Self::Policy { .. } => "schedule.policy",
        }
    }
}
