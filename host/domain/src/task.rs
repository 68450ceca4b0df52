//! A task as its manifest (`task.toml`) says it, the task set, and what a plugin says of itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{Digest, ModelName, TaskName};
use crate::policy::Policy;

/// What a call of a plugin may spend. Every limit is on by default (invariant 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Units of wasmtime fuel per call: the semantic, deterministic limit.
    pub fuel: u64,
    /// Wall time of one call in milliseconds: the safety net.
    pub wall_ms: u64,
    /// Bytes over all linear memories of a call.
    pub memory_bytes: u64,
    /// Bytes lowered into the guest per call.
    pub bytes_in: u64,
    /// Bytes lifted out of the guest per call.
    pub bytes_out: u64,
    /// Rounds of `score` per exchange.
    pub rounds: u32,
    /// Checks per exchange, over all rounds.
    pub checks: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            fuel: 400_000_000,
            wall_ms: 2_000,
            memory_bytes: 64 << 20,
            bytes_in: 16 << 20,
            bytes_out: 4 << 20,
            rounds: 4,
            checks: 8,
        }
    }
}

impl Budget {
    /// The most that a manifest may ask for.
    pub const CAP: Self = Self {
        fuel: 20_000_000_000,
        wall_ms: 20_000,
        memory_bytes: 512 << 20,
        bytes_in: 64 << 20,
        bytes_out: 32 << 20,
        rounds: 16,
        checks: 64,
    };

    /// The field that exceeds [`Budget::CAP`], if any: name, asked, cap.
    #[must_use]
    pub fn excess(&self) -> Option<(&'static str, u64, u64)> {
        let c = Self::CAP;
        [
            ("fuel", self.fuel, c.fuel),
            ("wall_ms", self.wall_ms, c.wall_ms),
            ("memory_bytes", self.memory_bytes, c.memory_bytes),
            ("bytes_in", self.bytes_in, c.bytes_in),
            ("bytes_out", self.bytes_out, c.bytes_out),
            ("rounds", self.rounds.into(), c.rounds.into()),
            ("checks", self.checks.into(), c.checks.into()),
        ]
        .into_iter()
        .find(|(_, asked, cap)| asked > cap)
    }
}

/// Hard limits on a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplyLimits {
    /// Milliseconds until the connection stands.
    pub connect_ms: u64,
    /// Milliseconds from the last byte of the request to the first byte of the body.
    pub first_byte_ms: u64,
    /// Milliseconds between complete events of a stream (or reads of a body).
    pub idle_ms: u64,
    /// Milliseconds to the end.
    pub total_ms: u64,
    /// Bytes of body.
    pub body_bytes: u64,
    /// Chunks, as read from the socket.
    pub chunks: u32,
    /// Bytes of one event of a stream.
    pub event_bytes: u64,
    /// Bytes of status line and headers.
    pub header_bytes: u64,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self {
            connect_ms: 2_000,
            first_byte_ms: 10_000,
            idle_ms: 10_000,
            total_ms: 60_000,
            body_bytes: 4 << 20,
            chunks: 16_384,
            event_bytes: 256 << 10,
            header_bytes: 16 << 10,
        }
    }
}

/// What miners' speed is measured against. It belongs to the task, so that no miner moves another's factor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeedReference {
    /// Verified units per second of one request that earn the factor 1; above 0.
    pub units_per_s: f64,
    /// Milliseconds to the first verified unit of a stream that earn the factor 1; above 0. Absent where
    /// nothing streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_unit_ms: Option<u64>,
}

impl SpeedReference {
    /// Whether it can be divided by.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.units_per_s.is_finite() && self.units_per_s > 0.0 && self.first_unit_ms != Some(0)
    }
}

/// `task.toml`: what a task weighs in work, which models it may ask, and what it may spend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The task's name.
    pub name: TaskName,
    /// Its own version. A change of scoring is at least a minor bump.
    pub version: semver::Version,
    /// Versions of the host that it runs on.
    pub host: semver::VersionReq,
    /// The component, by name: `<components folder>/<component>.wasm`.
    pub component: String,
    /// Its digest; where absent, the components folder's own lock decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The operation of users that it serves, e.g. `chat.completions`.
    pub operation: String,
    /// The path on the miner, e.g. `/v1/chat/completions`.
    pub path: String,
    /// Unit of volume, e.g. `tokens`.
    pub unit: String,
    /// The most units per hour that one miner is credited with; scaled to the length of a period.
    pub cap_per_hour: u64,
    /// Reply headers that the plugin may see, lower case.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Check kinds granted, each with the models it may be asked of.
    #[serde(default)]
    pub grants: BTreeMap<String, Vec<ModelName>>,
    /// What a call may spend.
    #[serde(default)]
    pub budget: Budget,
    /// Hard limits on a reply.
    #[serde(default)]
    pub limits: ReplyLimits,
    /// What speed is measured against; absent, everybody's speed counts as 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<SpeedReference>,
    /// Parameters for the plugin, given to it as JSON in every call.
    #[serde(default)]
    pub params: serde_json::Map<String, serde_json::Value>,
}

impl Manifest {
    /// The parameters as the JSON text that the plugin gets.
    #[must_use]
    pub fn params_json(&self) -> String {
        serde_json::Value::Object(self.params.clone()).to_string()
    }

    /// Whether the task may ask this check of this model. A check without a model needs the kind alone.
    #[must_use]
    pub fn grants(&self, kind: &str, model: Option<&str>) -> bool {
        self.grants
            .get(kind)
            .is_some_and(|models| model.is_none_or(|m| models.iter().any(|g| g.as_str() == m)))
    }
}

/// `taskset.toml`: which tasks a subnet runs and what each weighs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSet {
    /// Name of the set.
    pub name: String,
    /// Its version.
    pub version: semver::Version,
    /// The policy: the name of one that ships, or one written out.
    pub policy: PolicyChoice,
    /// Multiplies the share of capacity that the policy tests (Subnet 19's
    /// `CAPACITY_TO_SCORE_MULTIPLIER`); short periods need more of it to see anything. Above 0; absent is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_multiplier: Option<f64>,
    /// The tasks; weights sum to 1 within 1e-9.
    #[serde(rename = "task")]
    pub tasks: Vec<TaskEntry>,
}

/// Which policy a task set has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PolicyChoice {
    /// `policy = "default"`.
    Named(String),
    /// `[policy]` with every number written out.
    Written(Box<Policy>),
}

impl PolicyChoice {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Written(policy) => &policy.name,
        }
    }

    /// The policy; `None` when none of this name ships.
    #[must_use]
    pub fn policy(&self) -> Option<Policy> {
        match self {
            Self::Named(name) => Policy::named(name),
            Self::Written(policy) => Some((**policy).clone()),
        }
    }
}

impl<'de> Deserialize<'de> for PolicyChoice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // By hand, so that a slip in a written policy is named and not only "no variant fits".
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = PolicyChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a policy, or a policy written out")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<PolicyChoice, E> {
                Ok(PolicyChoice::Named(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PolicyChoice, A::Error> {
                let policy = Policy::deserialize(MapAccessDeserializer::new(map))?;
                Ok(PolicyChoice::Written(Box::new(policy)))
            }
        }
        from.deserialize_any(Either)
    }
}

/// A task of the set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskEntry {
    /// Folder of its `task.toml`, relative to the set's file.
    pub folder: String,
    /// In [0, 1].
    pub weight: f64,
}

/// What a plugin says of itself, for given parameters. JSON across the boundary; unknown fields are
/// ignored, so that an older host runs a newer plugin's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Name of the plugin, e.g. `text-generation`.
    pub name: String,
    /// Version of the plugin.
    pub version: semver::Version,
    /// e.g. `text`, `vector`, `image`.
    pub modality: String,
    /// Unit of volume, e.g. `tokens`.
    pub unit: String,
    /// Operations of users it admits, e.g. `["chat.completions"]`.
    pub operations: Vec<String>,
    /// Whether replies may stream.
    pub streaming: bool,
    /// Checks it will ask for, each with its models.
    pub checks: BTreeMap<String, Vec<String>>,
    /// JSON schema of its parameters.
    pub params_schema: serde_json::Value,
    /// Fields of a reply that a client gets only if it asked for them.
    #[serde(default)]
    pub reply_extras: Vec<String>,
}
