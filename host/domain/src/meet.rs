//! The traits at which several rooms meet.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::check::{Check, Evidence};
use crate::id::{Hotkey, Uid};

/// A future that somebody else drives.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that answers checks: executors on this machine, or a server elsewhere.
pub trait Checker: Send + Sync {
    /// Answers one check. Never fails: what cannot be answered is [`Evidence::Unavailable`] with a reason.
    /// Dropping the future gives the work up.
    fn check(&self, check: Check) -> BoxFuture<'_, Evidence>;

    /// The kinds served, each with the models it may be asked of.
    fn kinds(&self) -> Vec<(String, Vec<String>)>;
}

/// Time, as the validator sees it.
pub trait Clock: Send + Sync {
    /// Microseconds of the Unix epoch.
    fn now_us(&self) -> u64;
}

/// A neuron of the metagraph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neuron {
    /// Its place.
    pub uid: Uid,
    /// Its key.
    pub hotkey: Hotkey,
    /// Literal IP address and port at which it serves; `None` when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axon: Option<std::net::SocketAddr>,
    /// Stake in TAO.
    #[serde(default)]
    pub stake: f64,
    /// Whether it may set weights.
    #[serde(default)]
    pub validator_permit: bool,
}

/// The subnet at one block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metagraph {
    /// Subnet number.
    pub netuid: u16,
    /// Block at which it was read.
    pub block: u64,
    /// All neurons, uids unique and ascending.
    pub neurons: Vec<Neuron>,
}

/// The newest block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// Time between blocks in microseconds; above 0.
    pub block_us: u64,
}

impl Metagraph {
    /// The neuron of this hotkey.
    #[must_use]
    pub fn by_hotkey(&self, hotkey: &Hotkey) -> Option<&Neuron> {
        self.neurons.iter().find(|n| n.hotkey == *hotkey)
    }
}

/// Why the chain did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It cannot be reached or read now.
    #[error("the chain cannot be read: {0}")]
    Unavailable(String),
    /// It refuses these weights; the code is the chain's own name for the rule.
    #[error("the chain refuses the weights: {code}: {why}")]
    Refused {
        /// e.g. `SettingWeightsTooFast`.
        code: String,
        /// For people.
        why: String,
    },
}

/// Where the metagraph comes from and the weights go to.
pub trait Chain: Send + Sync {
    /// The subnet as it is now.
    fn metagraph(&self) -> BoxFuture<'_, Result<Metagraph, ChainError>>;

    /// The newest block: the beacon is read of it. Cheap; asked for several times a block.
    fn head(&self) -> BoxFuture<'_, Result<Head, ChainError>>;

    /// Sets this validator's weights: max-scaled u16, uids unique and ascending, no zeros.
    fn set_weights<'a>(
        &'a self,
        validator: Hotkey,
        weights: &'a [(Uid, u16)],
    ) -> BoxFuture<'a, Result<(), ChainError>>;
}
