//! The chain, as far as the validator sees it: a metagraph to read and weights to set.
//!
//! This storey has one implementation of [`nineteen_domain::meet::Chain`]: [`LocalSubnet`], a folder that
//! plays the subnet for demos, tests and a first run. It applies the rules of subtensor's `set_weights`
//! in the chain's own order, so that weights which it takes are weights that the chain would take.
//!
//! Not for: knowing how weights were made. They arrive as max-scaled u16.

mod error;
mod local;
mod rules;
mod subnet;

pub use error::SubnetError;
pub use local::{LocalSubnet, SetWeights};
pub use rules::{Refusal, Situation, check};
pub use subnet::{Blocks, Rules, Subnet};
