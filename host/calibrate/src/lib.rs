//! Calibration: what honest miners' answers look like to the checker, and what those of each suspect look like.
//!
//! The model of a task is run honestly under different conditions (precisions, threads, batches) and as every suspect
//! (other weights, another sampler, another prompt). All answers are replayed through the reference exactly as a
//! validator replays a miner's, and the numbers that come out are binned. [`fit`] makes the tables of
//! [`nineteen_domain::Calibration`], [`evaluate`] says what they are worth on answers that they were not made from.
//!
//! Not for: judging. The one idea: a threshold that was not measured on this model is wrong, so measuring has to be
//! one command.

mod error;
pub mod evaluate;
mod fit;
mod golden;
pub mod pictures;
mod report;
mod rows;
mod setting;
mod text;
mod tricks;
mod weights;

pub use error::CalibrateError;
pub use fit::fit;
pub use golden::golden;
pub use pictures::observe_pictures;
pub use report::html;
pub use rows::observe_rows;
pub use setting::{Observed, Setting, Task};
pub use text::observe_text;
pub use weights::{Change, LayerError, write_variant};
