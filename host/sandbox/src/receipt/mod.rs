//! Receipts: a verdict with all that it came from, so that anybody can have it again.
//!
//! A receipt names what judged (component, WIT version, parameters, budget, shipped data), holds what was
//! judged (request, exchange, evidence: whole, or as digests where the bodies are somebody's own), and what
//! came out (each round with its fuel, and the decision). [`Receipt::verify`] plays the rounds again on fresh
//! instances from the recorded evidence alone: no model runs, and every bit must be the same on any machine.
//!
//! It proves that this component says this of these bytes. It does not say who sent the bytes: that is what
//! signatures on the wire are for. How far the *evidence* moves from machine to machine is [`drift`]'s business.
//!
//! A file is `magic(7) ‖ version(1) ‖ SHA-256(32) ‖ CBOR`: what is damaged is told from what is false.

pub mod drift;
mod file;
mod play;

use std::collections::BTreeMap;

use nineteen_domain::task::Budget;
use nineteen_domain::{Check, Digest, Evidence, Exchange, ProbeId, Request, TaskName, Verdict};
use serde::{Deserialize, Serialize};

pub use file::{MOST_BYTES, VERSION};
pub(crate) use play::same_outcome;

use crate::error::CallError;

/// A verdict and all that it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The task that it was judged for.
    pub task: TaskName,
    /// The probe that it was, where it was one.
    pub probe: Option<ProbeId>,
    /// Digest of the component.
    pub component: Digest,
    /// Version of `nineteen:task` in the component's type.
    pub wit: semver::Version,
    /// Engine and settings of the machine that wrote the receipt. Another one gives the same bits; if it does
    /// not, this says where to look.
    pub engine: String,
    /// Digest of the parameters' JSON, as the plugin is given it.
    pub params: Digest,
    /// Digests of the data shipped with the task, by name.
    pub assets: BTreeMap<String, Digest>,
    /// What a call could spend.
    pub budget: Budget,
    /// Digests of what was judged.
    pub inputs: Inputs,
    /// The same, whole; absent where it stays with whom it belongs to.
    pub bodies: Option<Bodies>,
    /// Calls of `score`, in order; at least one.
    pub rounds: Vec<Round>,
    /// What came out.
    pub decision: Decision,
}

/// Digests of [`Bodies`], each over its CBOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Of the request.
    pub request: Digest,
    /// Of the exchange.
    pub exchange: Digest,
    /// Of all checks and their evidence.
    pub evidence: Digest,
}

/// What was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bodies {
    /// What was asked.
    pub request: Request,
    /// What came back.
    pub exchange: Exchange,
    /// Every check and its evidence, in the order in which they were asked for.
    pub evidence: Vec<(Check, Evidence)>,
}

impl Bodies {
    /// Their digests.
    ///
    /// # Errors
    /// [`ReceiptError::Write`], which no bodies of ours cause.
    pub fn digests(&self) -> Result<Inputs, ReceiptError> {
        Ok(Inputs {
            request: file::digest(&self.request)?,
            exchange: file::digest(&self.exchange)?,
            evidence: file::digest(&self.evidence)?,
        })
    }
}

/// One call of `score`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// Pieces of evidence that it was given.
    pub given: u32,
    /// Checks that it asked for; 0 in the last round.
    pub asked: u32,
    /// Units of fuel that it took.
    pub fuel: u64,
}

/// What came out of the rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// A verdict.
    Scored(Verdict),
    /// The reply breaks a rule of the task.
    Violation(String),
    /// It says nothing about the miner.
    Inconclusive(String),
    /// The plugin failed within its budget or contract: [`CallError::code`].
    Failed(String),
}

/// What a receipt is made from and held against: a plugin as it runs here.
impl Receipt {
    /// Judges recorded bodies and writes down what comes out. `evidence` must be all that the plugin asks for.
    ///
    /// Calls the plugin: use a blocking thread.
    ///
    /// # Errors
    /// [`ReceiptError::Evidence`] when the plugin asks for something else, and [`ReceiptError::Unrepeatable`]
    /// for what depends on the machine.
    pub fn make(
        plugin: &crate::Plugin,
        probe: Option<ProbeId>,
        bodies: Bodies,
    ) -> Result<Self, ReceiptError> {
        let (rounds, decision) = play::play(plugin, &bodies)?;
        Ok(Self {
            task: plugin.task().clone(),
            probe,
            component: plugin.digest(),
            wit: plugin.wit_version().clone(),
            engine: plugin.engine_fingerprint(),
            params: params_digest(plugin),
            assets: plugin.asset_digests(),
            budget: plugin.manifest().budget,
            inputs: bodies.digests()?,
            bodies: Some(bodies),
            rounds,
            decision,
        })
    }

    /// The same without bodies: digests say what it was about to those who have them.
    #[must_use]
    pub fn without_bodies(self) -> Self {
        Self { bodies: None, ..self }
    }

    /// Plays it again with this plugin, and holds every field against what comes out, the bits of every number
    /// among them. `bodies` are looked at where the receipt holds none.
    ///
    /// Calls the plugin: use a blocking thread.
    ///
    /// # Errors
    /// [`ReceiptError::Differs`] with the first field that does; [`ReceiptError::NoBodies`] when there is
    /// nothing to play.
    pub fn verify(&self, plugin: &crate::Plugin, bodies: Option<&Bodies>) -> Result<(), ReceiptError> {
        same("task", &self.task, plugin.task())?;
        same("component", &self.component, &plugin.digest())?;
        same("wit", &self.wit, plugin.wit_version())?;
        same("params", &self.params, &params_digest(plugin))?;
        let here = plugin.asset_digests();
        for name in self.assets.keys().chain(here.keys()) {
            let said = |all: &BTreeMap<String, Digest>| {
                all.get(name).map_or_else(|| "absent".to_owned(), ToString::to_string)
            };
            same(&format!("assets.{name}"), &said(&self.assets), &said(&here))?;
        }
        play::same_budget(&self.budget, &plugin.manifest().budget)?;
        if self.probe.as_ref().is_some_and(|probe| probe.task != self.task) {
            return Err(differs("probe.task", &self.probe.as_ref().map(|p| p.task.to_string()), &self.task));
        }
        let bodies = self.bodies.as_ref().or(bodies).ok_or(ReceiptError::NoBodies)?;
        let found = bodies.digests()?;
        same("inputs.request", &self.inputs.request, &found.request)?;
        same("inputs.exchange", &self.inputs.exchange, &found.exchange)?;
        same("inputs.evidence", &self.inputs.evidence, &found.evidence)?;
        let (rounds, decision) = play::play(plugin, bodies)?;
        play::same_rounds(&self.rounds, &rounds)?;
        play::same_decision(&self.decision, &decision)
    }
}

fn params_digest(plugin: &crate::Plugin) -> Digest {
    Digest::of(plugin.params().as_bytes())
}

fn same<T: PartialEq + std::fmt::Display>(field: &str, said: &T, found: &T) -> Result<(), ReceiptError> {
    if said == found {
        return Ok(());
    }
    Err(ReceiptError::Differs { field: field.to_owned(), said: cut(said), found: cut(found) })
}

fn differs(
    field: impl Into<String>,
    said: &impl std::fmt::Debug,
    found: &impl std::fmt::Debug,
) -> ReceiptError {
    ReceiptError::Differs {
        field: field.into(),
        said: cut(&format_args!("{said:?}")),
        found: cut(&format_args!("{found:?}")),
    }
}

fn cut(what: &impl std::fmt::Display) -> String {
    what.to_string().chars().take(120).collect()
}

/// Why there is no receipt, or why it is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The bytes are no receipt.
    #[error("is no receipt: it does not begin like one")]
    NotReceipt,
    /// Of another version.
    #[error(
        "is a receipt of version {found}, and this host reads {VERSION}: use the version of nineteen that wrote it"
    )]
    Version {
        /// Its version.
        found: u8,
    },
    /// Larger than any receipt.
    #[error("has more than {MOST_BYTES} bytes: no receipt has")]
    TooBig,
    /// Changed or cut since it was written.
    #[error("is damaged or cut short: {0}; export it again")]
    Damaged(String),
    /// It cannot be written.
    #[error("cannot be written: {0}")]
    Write(String),
    /// It holds digests alone.
    #[error("holds digests of request, exchange and evidence, not the bytes: verify it where they are kept")]
    NoBodies,
    /// A field does not say what was found here.
    #[error("{field}: the receipt says {said}, and here it is {found}")]
    Differs {
        /// The first field that differs, e.g. `decision.scored.quality`.
        field: String,
        /// What the receipt says.
        said: String,
        /// What came out here.
        found: String,
    },
    /// The plugin asks for something else than what was recorded.
    #[error("evidence[{place}]: {why}")]
    Evidence {
        /// Place in the recorded evidence.
        place: usize,
        /// What was asked for and what is there.
        why: String,
    },
    /// Time and our own faults are not the same on any two machines.
    #[error("cannot be played again: {0}")]
    Unrepeatable(#[from] CallError),
}

impl ReceiptError {
    /// Whether the receipt was played and says something else: not a fault of what was given.
    #[must_use]
    pub const fn is_difference(&self) -> bool {
        matches!(self, Self::Differs { .. } | Self::Evidence { .. })
    }

    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotReceipt => "receipt.not-a-receipt",
            Self::Version { .. } => "receipt.version",
            Self::TooBig => "receipt.too-big",
            Self::Damaged(_) => "receipt.damaged",
            Self::Write(_) => "receipt.write",
            Self::NoBodies => "receipt.no-bodies",
            Self::Differs { .. } => "receipt.differs",
            Self::Evidence { .. } => "receipt.evidence",
            Self::Unrepeatable(_) => "receipt.unrepeatable",
        }
    }
}
