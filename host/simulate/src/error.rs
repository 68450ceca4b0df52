//! What can go wrong.

/// A run that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// An option is out of range.
    #[error("{option} is {given}: {rule}")]
    Option {
        /// Which.
        option: &'static str,
        /// As given.
        given: String,
        /// What it has to be.
        rule: &'static str,
    },
    /// No strategy has this name.
    #[error("there is no strategy {given:?}; there are: {}", crate::strategies::NAMES.join(", "))]
    Strategy {
        /// As given.
        given: String,
    },
    /// The policy makes no schedule.
    #[error("the policy makes no schedule: {0}")]
    Schedule(#[from] nineteen_schedule::ScheduleError),
    /// The simulated subnet could not be set up.
    #[error("the simulated subnet could not be set up: {why}")]
    Setup {
        /// Why.
        why: String,
    },
    /// A probe was booked twice or not at all. A defect of ours: please report it with the seed.
    #[error("period {period}: {sent} probes left and {booked} were booked; a defect, please report the seed")]
    NotBookedOnce {
        /// Which period.
        period: u64,
        /// Probes that left.
        sent: u64,
        /// Probes in its rows.
        booked: u64,
    },
}

impl SimulateError {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Option { .. } => "simulate.option",
            Self::Strategy { .. } => "simulate.strategy",
            Self::Schedule(e) => e.code(),
            Self::Setup { .. } => "simulate.setup",
            Self::NotBookedOnce { .. } => "simulate.not-booked-once",
        }
    }
}
