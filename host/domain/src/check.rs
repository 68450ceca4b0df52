//! What a plugin asks the host's executors to compute, and what they answered.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// Something that the host's own executors shall compute. A new capability is a new *kind*.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Check {
    /// e.g. `text.replay`.
    pub kind: String,
    /// The model it is asked of, where the kind needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// JSON text; what it means is the kind's business.
    pub params: String,
    /// Bytes beside the parameters, as the kind defines.
    #[serde(default)]
    pub blobs: Vec<Bytes>,
}

impl Check {
    /// Digest over kind, model, parameters and blobs, each with its length: the identity under which
    /// evidence is recorded and identical checks are shared.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut all = Vec::new();
        let mut put = |bytes: &[u8]| {
            all.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            all.extend_from_slice(bytes);
        };
        put(self.kind.as_bytes());
        match &self.model {
            Some(model) => {
                put(b"model");
                put(model.as_bytes());
            }
            None => put(b""),
        }
        put(self.params.as_bytes());
        self.blobs.iter().for_each(|b| put(b));
        Digest::of(&all)
    }
}

/// An executor's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// JSON text, as the kind defines; carries the execution provider that computed it.
    pub params: String,
    /// Bytes beside it, as the kind defines.
    #[serde(default)]
    pub blobs: Vec<Bytes>,
}

/// The answer to a check, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The executor answered.
    Answered(Answer),
    /// It could not: a fault of ours, or a check that cannot be computed. Never a miner's fault as such.
    Unavailable(String),
}
