//! Periods as a state machine: announce → plan → dispatch → judge → settle.
//!
//! `step(now, event) -> effects`. The validator and a simulator drive the same code.
//!
//! **Architecture invariant:** this crate knows no clock, no socket and no disk. Time comes in as a number,
//! randomness as a [`nineteen_domain::MasterSeed`], and what has to be done goes out as [`Effect`]s.
//!
//! What it promises, each with a test:
//! * the plan of a period is on disk before its first probe leaves;
//! * every probe that left is booked exactly once, also across a crash;
//! * a period settles once, after the one before it, and the next begins where it ended;
//! * a slow miner holds up nobody else;
//! * nothing that a miner does, and no order of events, makes it panic.

mod beacon;
mod checks;
mod error;
mod hash;
mod machine;
mod period;
mod plan;
mod queue;
mod types;

pub use beacon::starts_window;
pub use error::ScheduleError;
pub use machine::Schedule;
pub use plan::{MAX_PROBES_PER_ENTRY, expected_asked, sustained};
pub use types::{
    Announcement, BEACON_SLOTS, BeaconShare, Block, Effect, Event, FinishedProbe, InTime, MAX_BEACONS,
    MinerRef, NOT_ANNOUNCED, OrganicRequest, PeriodOutcome, PeriodPlan, PlanEntry, PlannedProbe,
    PlannedWindow, Resume, SILENT, ScheduleConfig, StartedWindow, Status, TaskSpec,
};
