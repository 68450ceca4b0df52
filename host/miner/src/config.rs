//! What an operator writes down: what is served, how much of it, and to whom.
//!
//! The one idea: no number here is a secret lever; a miner that announces what it can serve and refuses the
//! rest with 429 needs nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use nineteen_domain::{Hotkey, ModelName, TaskName};
use serde::{Deserialize, Serialize};

use crate::error::MinerError;

/// What users call a kind of work, and the path that serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// `POST /v1/chat/completions`.
    #[serde(rename = "chat.completions")]
    Chat,
    /// `POST /v1/embeddings`.
    #[serde(rename = "embeddings")]
    Embeddings,
    /// `POST /v1/images/generations`.
    #[serde(rename = "images.generations")]
    Images,
    /// `POST /v1/avatars`.
    #[serde(rename = "avatars")]
    Avatars,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Embeddings, Self::Images, Self::Avatars];

    /// As manifests write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat.completions",
            Self::Embeddings => "embeddings",
            Self::Images => "images.generations",
            Self::Avatars => "avatars",
        }
    }
}

/// The miner's section of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinerConfig {
    /// Literal address and port to listen on.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// Hotkeys that are served; absent means everyone who can sign. Anyone can make a key, so set it on a
    /// public subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_validators: Option<Vec<Hotkey>>,
    /// Connections at once, 1 to 65,536; more wait to be accepted.
    #[serde(default = "connections")]
    pub max_connections: usize,
    /// Bytes of a request's body, 1 KiB to 64 MiB.
    #[serde(default = "body_bytes")]
    pub max_body_bytes: usize,
    /// File to which one JSON line is appended for every signed request: when, whose, which path, and the SHA-256
    /// of its body, so that it can be held against what a validator says that it asked. Absent is no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<PathBuf>,
    /// What is served, by the subnet's task names; at least one.
    pub tasks: BTreeMap<TaskName, TaskConfig>,
}

/// One task as this miner serves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// Kind of work.
    pub operation: Operation,
    /// The model, by the name that requests use. Two tasks may share one; their requests look alike, so the
    /// limits of the first by name then hold for both together.
    pub model: ModelName,
    /// Units of work per hour that are announced, finite and ≥ 0; scaled to the period that a validator asks for.
    pub capacity_per_hour: f64,
    /// Requests worked on at once, 1 to 4,096.
    #[serde(default = "one")]
    pub concurrency: usize,
    /// Requests that may wait for a place; the next gets 429. 0 to 4,096.
    #[serde(default = "queue")]
    pub queue: usize,
    /// Milliseconds that a request waits at most before it gets 429.
    #[serde(default = "queue_ms")]
    pub queue_ms: u64,
    /// Requests per minute; absent is no limit. Above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<f64>,
    /// Units (completion tokens, texts, steps over 64 × 64 pixels) per minute; absent is no limit. Above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units_per_minute: Option<f64>,
    /// Seconds' worth of these two limits that may come at once after a quiet time, 1 to 3,600.
    #[serde(default = "burst_s")]
    pub burst_s: u32,
    /// Pictures: the classifier whose word decides whether one is flagged; absent flags nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<ModelName>,
    /// Avatars: what finds the face in the photograph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detect: Option<ModelName>,
    /// Avatars: what makes the vector of a face that the pipeline is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identify: Option<ModelName>,
    /// Tokens (for pictures, units) per second that one reply is held to, for a machine that also does other work; absent is as
    /// fast as it goes. Above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace_tokens_per_s: Option<f64>,
    /// Completion tokens that one request may ask for, 1 to 1,048,576; more is refused with 400.
    #[serde(default = "max_tokens")]
    pub max_tokens: u32,
}

const fn listen() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8091)
}
const fn connections() -> usize {
    256
}
const fn body_bytes() -> usize {
    4 << 20
}
const fn one() -> usize {
    1
}
const fn queue() -> usize {
    16
}
const fn queue_ms() -> u64 {
    5_000
}
const fn burst_s() -> u32 {
    60
}
const fn max_tokens() -> u32 {
    4_096
}

impl TaskConfig {
    /// One request at a time, announced as nothing: for a miner that nobody but its owner asks.
    #[must_use]
    pub const fn one_at_a_time(operation: Operation, model: ModelName) -> Self {
        Self {
            operation,
            model,
            capacity_per_hour: 0.0,
            concurrency: 1,
            queue: 16,
            queue_ms: 60_000,
            requests_per_minute: None,
            units_per_minute: None,
            burst_s: 60,
            safety: None,
            detect: None,
            identify: None,
            pace_tokens_per_s: None,
            max_tokens: 4_096,
        }
    }

    /// Every model that it takes.
    pub fn models(&self) -> impl Iterator<Item = &ModelName> {
        std::iter::once(&self.model).chain(&self.safety).chain(&self.detect).chain(&self.identify)
    }
}

impl MinerConfig {
    /// A miner of these tasks with the defaults of everything else.
    #[must_use]
    pub const fn serving(listen: SocketAddr, tasks: BTreeMap<TaskName, TaskConfig>) -> Self {
        Self {
            listen,
            allowed_validators: None,
            max_connections: connections(),
            max_body_bytes: body_bytes(),
            access_log: None,
            tasks,
        }
    }

    /// Reads a TOML text; every key is known or an error.
    ///
    /// # Errors
    /// [`MinerError::Config`] with the place and the reason.
    pub fn from_toml(text: &str) -> Result<Self, MinerError> {
        let config: Self = toml::from_str(text)
            .map_err(|e| MinerError::Config { key: "miner".into(), why: e.to_string() })?;
        config.validate()?;
        Ok(config)
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`MinerError::Config`] naming the first key that is out of range.
    pub fn validate(&self) -> Result<(), MinerError> {
        let fail = |key: String, why: &str| Err(MinerError::Config { key, why: why.to_owned() });
        if self.tasks.is_empty() {
            return fail("tasks".into(), "at least one task has to be served");
        }
        if !(1..=65_536).contains(&self.max_connections) {
            return fail("max_connections".into(), "expected 1 to 65536");
        }
        if !(1024..=64 << 20).contains(&self.max_body_bytes) {
            return fail("max_body_bytes".into(), "expected 1024 to 67108864");
        }
        for (name, task) in &self.tasks {
            let key = |field: &str| format!("tasks.{name}.{field}");
            if !(task.capacity_per_hour.is_finite() && task.capacity_per_hour >= 0.0) {
                return fail(key("capacity_per_hour"), "expected a finite number, 0 or more");
            }
            if !(1..=4096).contains(&task.concurrency) {
                return fail(key("concurrency"), "expected 1 to 4096");
            }
            if task.queue > 4096 {
                return fail(key("queue"), "expected 0 to 4096");
            }
            if !(1..=3_600).contains(&task.burst_s) {
                return fail(key("burst_s"), "expected 1 to 3600");
            }
            let avatars = task.operation == Operation::Avatars;
            for (field, model) in [("detect", &task.detect), ("identify", &task.identify)] {
                if model.is_some() != avatars {
                    return fail(key(field), "avatars need a model here, nothing else takes one");
                }
            }
            let pictures = avatars || task.operation == Operation::Images;
            if task.safety.is_some() && !pictures {
                return fail(key("safety"), "only images.generations and avatars take one");
            }
            if !(1..=1 << 20).contains(&task.max_tokens) {
                return fail(key("max_tokens"), "expected 1 to 1048576");
            }
            for (field, rate) in [
                ("requests_per_minute", task.requests_per_minute),
                ("units_per_minute", task.units_per_minute),
                ("pace_tokens_per_s", task.pace_tokens_per_s),
            ] {
                if rate.is_some_and(|r| !(r.is_finite() && r > 0.0)) {
                    return fail(key(field), "expected a finite number above 0, or leave it out");
                }
            }
        }
        Ok(())
    }

    pub(crate) fn allowed(&self) -> Option<BTreeSet<Hotkey>> {
        self.allowed_validators.as_ref().map(|v| v.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        listen = "127.0.0.1:8091"
        [tasks.chat-smollm2-135m]
        operation = "chat.completions"
        model = "smollm2-135m-instruct"
        capacity_per_hour = 90000
        units_per_minute = 1500
    "#;

    #[test]
    fn an_operator_writes_little() {
        let c = MinerConfig::from_toml(GOOD).unwrap();
        let task = c.tasks.values().next().unwrap();
        assert_eq!((task.concurrency, task.queue, task.pace_tokens_per_s), (1, 16, None));
        assert_eq!(MinerConfig::from_toml(&toml::to_string(&c).unwrap()).unwrap(), c);
    }

    #[test]
    fn no_wrong_line_is_silently_accepted() {
        for (from, to) in [
            ("capacity_per_hour = 90000", "capacity_per_hour = -1"),
            ("capacity_per_hour = 90000", "capacity_per_hour = nan"),
            ("capacity_per_hour = 90000", "capacity_per_huor = 9"),
            ("units_per_minute = 1500", "units_per_minute = 0"),
            ("units_per_minute = 1500", "concurrency = 0"),
            ("units_per_minute = 1500", "burst_s = 0"),
            ("units_per_minute = 1500", "cheat = true"),
            ("\"chat.completions\"", "\"chat\""),
            ("\"chat.completions\"", "\"avatars\""),
            ("units_per_minute = 1500", "safety = \"world-safety\""),
            ("listen = ", "listens = "),
        ] {
            let e = MinerConfig::from_toml(&GOOD.replace(from, to)).unwrap_err();
            assert_eq!(e.code(), "miner.config", "{to}");
        }
        assert!(MinerConfig::from_toml("tasks = {}").is_err());
    }
}
