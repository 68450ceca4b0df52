//! The vocabulary of `nineteen`: what the rooms of the house say to each other.
//!
//! Ids, requests, exchanges, checks, evidence, verdicts, manifests, policies, and the traits at which
//! several rooms meet (a checker, a chain, a clock). Everything here is data or a total function.
//!
//! **Architecture invariant:** this crate does no I/O, knows no clock and does not depend on tokio.
//! What looks asynchronous ([`meet::Checker`]) is a boxed `std` future that somebody else drives.

pub mod calibration;
pub mod check;
pub mod exchange;
pub mod id;
pub mod ledger;
pub mod meet;
pub mod policy;
pub mod seed;
pub mod task;
pub mod verdict;

pub use calibration::Calibration;
pub use check::{Answer, Check, Evidence};
pub use exchange::{Chunk, Ending, Exchange, Phase, Request};
pub use id::{Digest, Hotkey, IdError, ModelName, PeriodId, ProbeId, TaskName, Uid};
pub use seed::{MasterSeed, Seed};
pub use verdict::{Admission, Outcome, Refusal, Synthetic, Verdict};
