//! The loop of a validator: announce → plan → dispatch → judge → settle.
//!
//! What decides is elsewhere: `schedule` says what to do when, `mechanism` turns what happened into weights,
//! plugins judge. This crate does what they say (HTTP, disk, checks, chain) and tells them how it went.
//!
//! **Architecture invariants kept here:** 2 (`control`: whose fault a plugin's failure is), 4 (`sender`: a
//! probe is on disk before it leaves, its end before it counts) and 6 (`board`: one immutable snapshot, exchanged by
//! `registrar` alone).

mod board;
mod control;
mod control_miner;
mod error;
mod facts;
mod fingerprints;
pub mod gallery;
mod health;
mod judge;
pub mod receipts;
pub mod registrar;
pub mod registry;
pub mod replay;
pub mod report;
mod resume;
mod run;
mod sender;
mod settle;
mod streams;

pub use board::Board;
pub use control_miner::{ControlMiner, ControlScore, control_key, control_scores};
pub use error::ValidatorError;
pub use facts::{Epoch, TaskFacts};
pub use health::Health;
pub use judge::Judge;
pub use run::{Live, Parts, Settings, SystemClock, Validator};
pub use settle::SettledPeriod;
