//! `subnet.toml`: the state of a local subnet, as a person writes it.
//!
//! ```toml
//! netuid = 19
//!
//! [blocks]                      # how blocks pass; this is the default
//! from = "time"                 # or "counter": the number in the file `block`
//! genesis_us = 1730000000000000 # microseconds of the Unix epoch
//! block_ms = 12000
//!
//! [rules]                       # all have the chain's defaults
//! weights_rate_limit = 100
//!
//! [[neurons]]
//! uid = 0
//! hotkey = "5Fxune7f71ZbpP2FoY3mhYcmM596Erhv1gRue4nsPwkxMR4n"
//! stake = 1000.0
//! validator_permit = true
//!
//! [[neurons]]
//! uid = 1
//! hotkey = "5DAAnrj7VHTznn2AWBemMuyBwZWs6FNFjdyVXUeYum3PTXFy"
//! axon = "127.0.0.1:8091"
//! ```

use std::path::Path;

use nineteen_domain::Hotkey;
use nineteen_domain::meet::Neuron;
use serde::{Deserialize, Serialize};

use crate::error::SubnetError;

/// The most neurons of a subnet.
const MAX_NEURONS: usize = 4_096;
/// The most bytes of `subnet.toml`.
pub(crate) const MAX_BYTES: u64 = 4 << 20;

/// The subnet: who is on it and what its rules are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Its number; 0 is the root network.
    pub netuid: u16,
    /// Its owner, who sets weights without a permit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Hotkey>,
    /// How blocks pass.
    #[serde(default)]
    pub blocks: Blocks,
    /// Its hyperparameters.
    #[serde(default)]
    pub rules: Rules,
    /// Its neurons, in any order; uids and hotkeys unique.
    #[serde(default)]
    pub neurons: Vec<Neuron>,
}

/// How blocks pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "from", deny_unknown_fields)]
pub enum Blocks {
    /// With the clock of this machine.
    Time {
        /// When block 0 was, microseconds of the Unix epoch.
        genesis_us: u64,
        /// Milliseconds per block; above 0.
        block_ms: u64,
    },
    /// When somebody counts on: the block is the number in the file `block`, and 0 without it.
    Counter,
}

impl Default for Blocks {
    /// The chain's 12 seconds, from the start of 2024 on.
    fn default() -> Self {
        Self::Time { genesis_us: 1_704_067_200_000_000, block_ms: 12_000 }
    }
}

/// Hyperparameters that decide which weights are taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Blocks between two weights of one validator.
    pub weights_rate_limit: u64,
    /// The fewest entries, or all neurons where there are fewer.
    pub min_allowed_weights: u16,
    /// The largest share, of 65535.
    pub max_weight_limit: u16,
    /// Stake in TAO below which no weights are taken.
    pub stake_threshold: f64,
    /// The lowest version of the mechanism that is taken; 0 takes any.
    pub weights_version: u64,
    /// Whether the subnet takes commitments only.
    pub commit_reveal: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            weights_rate_limit: 100,
            min_allowed_weights: 1,
            max_weight_limit: u16::MAX,
            stake_threshold: 0.0,
            weights_version: 0,
            commit_reveal: false,
        }
    }
}

impl Subnet {
    /// Reads the text of `file` and checks what the types cannot. Neurons come out by ascending uid.
    ///
    /// # Errors
    /// [`SubnetError::Syntax`] with the line, or [`SubnetError::Field`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, SubnetError> {
        let mut subnet: Self = toml::from_str(text).map_err(|e| SubnetError::Syntax {
            file: file.to_owned(),
            line: e
                .span()
                .map_or(0, |s| 1 + text.as_bytes().iter().take(s.start).filter(|b| **b == b'\n').count()),
            // One line, whatever the parser has to say.
            why: e.message().split('\n').collect::<Vec<_>>().join("; "),
        })?;
        subnet.validate(file)?;
        subnet.neurons.sort_by_key(|n| n.uid);
        Ok(subnet)
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`SubnetError::Field`], naming the field as in `file`.
    pub fn validate(&self, file: &Path) -> Result<(), SubnetError> {
        let wrong = |field: String, why: String| SubnetError::Field { file: file.to_owned(), field, why };
        if let Blocks::Time { block_ms: 0, .. } = self.blocks {
            return Err(wrong("blocks.block_ms".into(), "a block takes at least 1 millisecond".into()));
        }
        let threshold = self.rules.stake_threshold;
        if !(threshold.is_finite() && threshold >= 0.0) {
            return Err(wrong("rules.stake_threshold".into(), "give a finite number, 0 or above".into()));
        }
        if self.neurons.len() > MAX_NEURONS {
            let why = format!("{} neurons, a subnet has at most {MAX_NEURONS}", self.neurons.len());
            return Err(wrong("neurons".into(), why));
        }
        let (mut uids, mut hotkeys) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
        for (i, neuron) in self.neurons.iter().enumerate() {
            if let Some(other) = uids.insert(neuron.uid, i) {
                let why =
                    format!("uid {} is taken by neurons[{other}]: give each neuron its own", neuron.uid);
                return Err(wrong(format!("neurons[{i}].uid"), why));
            }
            if let Some(other) = hotkeys.insert(neuron.hotkey, i) {
                let why = format!("this hotkey is that of neurons[{other}] too: it can have one uid only");
                return Err(wrong(format!("neurons[{i}].hotkey"), why));
            }
            if !(neuron.stake.is_finite() && neuron.stake >= 0.0) {
                let why = format!("a stake is a finite number, 0 or above, not {}", neuron.stake);
                return Err(wrong(format!("neurons[{i}].stake"), why));
            }
            if neuron.axon.is_some_and(|a| a.port() == 0) {
                let why = "port 0 is none: give the port that the miner listens on".to_owned();
                return Err(wrong(format!("neurons[{i}].axon"), why));
            }
        }
        Ok(())
    }
}
