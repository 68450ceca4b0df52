//! What a plugin decides.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::exchange::Request;

/// A judged exchange. Invariant 1: a function of component, WIT version, parameters, request, exchange
/// and evidence, and of nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// In [0, 1].
    pub quality: f64,
    /// Units of work verified.
    pub units: u64,
    /// The same by chunk of the exchange; empty where the task has no notion of it. The host divides by
    /// its own clock.
    #[serde(default)]
    pub units_by_chunk: Vec<u64>,
    /// `ln q_k / q_0` by named suspect.
    #[serde(default)]
    pub suspicions: Vec<(String, f64)>,
    /// Compared by the host between miners and over time.
    #[serde(default)]
    pub fingerprints: Vec<Bytes>,
    /// Why: code and number, e.g. `("margin.mean", 0.0004)`.
    #[serde(default)]
    pub reasons: Vec<(String, f64)>,
}

/// What one round of `score` says.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// More evidence, please.
    Need(Vec<Check>),
    /// Judged.
    Scored(Verdict),
    /// The reply breaks a rule of the task: quality 0, and why.
    Violation(String),
    /// A fault of ours: says nothing about the miner.
    Inconclusive(String),
}

/// A synthetic request and the work it is expected to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthetic {
    /// What is sent.
    pub request: Request,
    /// Units of work expected of the reply; at least 1.
    pub expected_units: u64,
}

/// Why a client's body does not become a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// HTTP status for the client, 400 to 499.
    pub status: u16,
    /// Short code, e.g. `invalid_value`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// What becomes of a client's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The request that goes to a miner.
    Admitted(Request),
    /// The refusal that goes to the client.
    Refused(Refusal),
}
