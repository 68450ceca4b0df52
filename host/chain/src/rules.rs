//! The chain's checks on weights, pure and in the chain's order (subtensor, `pallets/subtensor/src/subnets/
//! weights.rs`, `do_set_weights`).
//!
//! Three of its checks cannot fail here: `WeightVecNotEqualSize`, because uids and values arrive in pairs,
//! the existence of the mechanism, because a local subnet has one, and commit-reveal's own, because
//! nothing is committed. `UidVecNotAscending` is ours: the chain takes any order, but weights are compared
//! and archived in one canonical form.

use nineteen_domain::meet::{ChainError, Neuron};
use nineteen_domain::{Hotkey, Uid};

use crate::subnet::{Rules, Subnet};

/// Which rule refuses, by the chain's own name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Netuid 0 has no weights of this kind.
    CanNotSetRootNetworkWeights,
    /// More entries than the subnet has neurons.
    UidsLengthExceedUidsInSubNet,
    /// The validator is not in the metagraph.
    HotKeyNotRegisteredInSubNet,
    /// Its stake is below the subnet's threshold.
    NotEnoughStakeToSetWeights,
    /// The subnet asks for a later version of the mechanism.
    IncorrectWeightVersionKey,
    /// The subnet takes commitments instead of weights.
    CommitRevealEnabled,
    /// The last weights are too recent.
    SettingWeightsTooFast,
    /// Without a permit, a neuron may weigh only itself.
    NeuronNoValidatorPermit,
    /// A uid occurs twice.
    DuplicateUids,
    /// A uid is nobody's.
    UidVecContainInvalidOne,
    /// Too few entries.
    WeightVecLengthIsLow,
    /// One share is too large.
    MaxWeightExceeded,
    /// Ours: uids are to ascend.
    UidVecNotAscending,
}

impl Refusal {
    /// The chain's name of the rule.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::CanNotSetRootNetworkWeights => "CanNotSetRootNetworkWeights",
            Self::UidsLengthExceedUidsInSubNet => "UidsLengthExceedUidsInSubNet",
            Self::HotKeyNotRegisteredInSubNet => "HotKeyNotRegisteredInSubNet",
            Self::NotEnoughStakeToSetWeights => "NotEnoughStakeToSetWeights",
            Self::IncorrectWeightVersionKey => "IncorrectWeightVersionKey",
            Self::CommitRevealEnabled => "CommitRevealEnabled",
            Self::SettingWeightsTooFast => "SettingWeightsTooFast",
            Self::NeuronNoValidatorPermit => "NeuronNoValidatorPermit",
            Self::DuplicateUids => "DuplicateUids",
            Self::UidVecContainInvalidOne => "UidVecContainInvalidOne",
            Self::WeightVecLengthIsLow => "WeightVecLengthIsLow",
            Self::MaxWeightExceeded => "MaxWeightExceeded",
            Self::UidVecNotAscending => "UidVecNotAscending",
        }
    }

    fn because(self, why: impl Into<String>) -> ChainError {
        ChainError::Refused { code: self.code().to_owned(), why: why.into() }
    }
}

/// What the checks depend on besides the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// Who sets them.
    pub validator: Hotkey,
    /// The block now.
    pub block: u64,
    /// The block at which this validator last set weights; 0 when it never did.
    pub last_update: u64,
    /// The version of the mechanism that made them.
    pub version_key: u64,
}

/// Whether the subnet takes these weights.
///
/// # Errors
/// [`ChainError::Refused`] with the code of the first rule that refuses, in the chain's order.
pub fn check(subnet: &Subnet, now: &Situation, weights: &[(Uid, u16)]) -> Result<(), ChainError> {
    let rules: &Rules = &subnet.rules;
    let n = subnet.neurons.len();
    if subnet.netuid == 0 {
        return Err(Refusal::CanNotSetRootNetworkWeights
            .because("netuid 0 is the root network: use the subnet's own number"));
    }
    if weights.len() > n {
        let why = format!("{} uids were given, the subnet has {n}", weights.len());
        return Err(Refusal::UidsLengthExceedUidsInSubNet.because(why));
    }
    let Some(neuron) = subnet.neurons.iter().find(|x| x.hotkey == now.validator) else {
        let why = format!("{} is not registered on subnet {}: register it", now.validator, subnet.netuid);
        return Err(Refusal::HotKeyNotRegisteredInSubNet.because(why));
    };
    if neuron.stake < rules.stake_threshold {
        let why = format!("its stake is {}, at least {} is needed", neuron.stake, rules.stake_threshold);
        return Err(Refusal::NotEnoughStakeToSetWeights.because(why));
    }
    if rules.weights_version != 0 && now.version_key < rules.weights_version {
        let why = format!(
            "the subnet asks for version {}, these are of {}: update",
            rules.weights_version, now.version_key
        );
        return Err(Refusal::IncorrectWeightVersionKey.because(why));
    }
    if rules.commit_reveal {
        return Err(Refusal::CommitRevealEnabled.because("this subnet takes commitments only, which a local subnet does not play: set rules.commit_reveal = false"));
    }
    let passed = now.block.saturating_sub(now.last_update);
    if now.last_update != 0 && passed < rules.weights_rate_limit {
        let why =
            format!("{passed} blocks since the last weights, {} are needed: wait", rules.weights_rate_limit);
        return Err(Refusal::SettingWeightsTooFast.because(why));
    }
    let of_itself = matches!(weights, [(uid, _)] if *uid == neuron.uid);
    if !(neuron.validator_permit || of_itself || subnet.owner == Some(now.validator)) {
        let why = format!("uid {} has no validator permit, and only itself may it weigh without", neuron.uid);
        return Err(Refusal::NeuronNoValidatorPermit.because(why));
    }
    check_vector(&subnet.neurons, rules, of_itself, weights)
}

fn check_vector(
    neurons: &[Neuron],
    rules: &Rules,
    of_itself: bool,
    weights: &[(Uid, u16)],
) -> Result<(), ChainError> {
    let mut uids: Vec<Uid> = weights.iter().map(|(uid, _)| *uid).collect();
    let ascending = uids.is_sorted();
    uids.sort_unstable();
    if let Some(twice) = uids.windows(2).find_map(|w| w.first().filter(|a| w.last() == Some(a))) {
        return Err(Refusal::DuplicateUids.because(format!("uid {twice} occurs twice")));
    }
    if let Some(nobody) = uids.iter().find(|uid| !neurons.iter().any(|x| x.uid == **uid)) {
        return Err(Refusal::UidVecContainInvalidOne
            .because(format!("there is no uid {nobody}: read the metagraph again")));
    }
    let least = usize::from(rules.min_allowed_weights).min(neurons.len());
    if !of_itself && weights.len() < least {
        let why = format!("{} entries, at least {least} are needed", weights.len());
        return Err(Refusal::WeightVecLengthIsLow.because(why));
    }
    if !of_itself && exceeds(weights, rules.max_weight_limit) {
        let why = format!("one share is above {} of 65535: clip before scaling", rules.max_weight_limit);
        return Err(Refusal::MaxWeightExceeded.because(why));
    }
    if !ascending {
        return Err(Refusal::UidVecNotAscending.because("sort the weights by uid"));
    }
    Ok(())
}

/// Whether the largest share of the sum is above `limit` of 65535.
fn exceeds(weights: &[(Uid, u16)], limit: u16) -> bool {
    let sum: u64 = weights.iter().map(|(_, w)| u64::from(*w)).sum();
    let most = weights.iter().map(|(_, w)| u64::from(*w)).max().unwrap_or(0);
    most * u64::from(u16::MAX) > sum * u64::from(limit)
}
