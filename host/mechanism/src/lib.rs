//! From capacity to weight: what a subnet promises its miners, as pure functions of a
//! [`Policy`](nineteen_domain::policy::Policy).
//!
//! The way of a number: [`clamp_capacity`] → [`period_score`] → [`settle`] (normalised period score, quality,
//! speed, effective volume, share, weight) → [`u16_weights`]. [`settle`] keeps every number in between, so
//! that what is shown to a miner is what was computed and never a second computation of it.
//!
//! **Architecture invariant:** no I/O, no clock, no randomness. Every function is total: it is finite and in
//! range for every input, hostile ones included, and divides by no sum without asking whether it is zero.

mod capacity;
mod default;
pub mod honesty;
mod period;
mod samples;
mod settlement;
mod share;
mod sn19;
mod votes;
mod weights;

pub use capacity::{CapacityFault, clamp_capacity};
pub use period::period_score;
pub use settlement::{
    At, CreditParts, MinerTaskInput, QualityParts, ReliabilityParts, RowUsed, Settlement, SpeedParts,
    Standing, WeightLine, WindowUsed, settle,
};
pub use votes::{Vote, task_weights};
pub use weights::{WeightError, clip_to_max_weight, u16_weights};

/// `u64` as a double: exact below 2^53, rounded above, always finite.
#[expect(clippy::cast_precision_loss, reason = "rounding above 2^53 is meant")]
pub(crate) const fn float(n: u64) -> f64 {
    n as f64
}

/// `x` in [0, 1]; NaN is 0.
pub(crate) const fn unit(x: f64) -> f64 {
    within(x, 0.0, 1.0)
}

/// `x` in [lo, hi]; NaN is `lo`.
pub(crate) const fn within(x: f64, lo: f64, hi: f64) -> f64 {
    if x.is_nan() { lo } else { x.clamp(lo, hi) }
}
