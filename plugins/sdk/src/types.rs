//! What crosses the boundary, as plain Rust: the author's side of `wit/0.1/task.wit`.
//!
//! Not for meaning: what a body or a check's parameters say is read in [`crate::openai`] and
//! [`crate::checks`]. These types exist beside the generated ones so that a task compiles, and is tested,
//! without wasm.

use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A POST to the path that the task's manifest fixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Starts with `/`.
    pub path: String,
    /// The body's media type.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the reply is a stream of server-sent events.
    pub streamed: bool,
}

impl Request {
    /// A request with a JSON body.
    #[must_use]
    pub fn json(path: &str, body: Vec<u8>, streamed: bool) -> Self {
        Self { path: path.to_owned(), content_type: "application/json".to_owned(), body, streamed }
    }
}

/// Bytes and when they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Microseconds since the last byte of the request left, by the validator's clock.
    pub at_us: u64,
    /// What one read from the socket gave; ends anywhere, also inside a character.
    pub data: Vec<u8>,
}

/// The phase in which time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Until the connection stood.
    Connect,
    /// Until the first byte of the body.
    FirstByte,
    /// Between two complete events, or two reads.
    Idle,
    /// Until the end.
    Total,
}

/// How a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The whole reply was read.
    Complete,
    /// No connection, or no HTTP.
    Refused,
    /// Too slow.
    Timeout(Phase),
    /// The connection broke.
    Disconnected,
    /// More than the task allows.
    TooLarge,
}

/// What the host saw of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// HTTP status; 0 when there was none.
    pub status: u16,
    /// The headers that the manifest lists, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub chunks: Vec<Chunk>,
    /// Microseconds to the end.
    pub ended_us: u64,
    /// How it ended.
    pub ending: Ending,
}

impl Exchange {
    /// The body in one piece.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.chunks.iter().map(|c| c.data.len()).sum());
        self.chunks.iter().for_each(|c| whole.extend_from_slice(&c.data));
        whole
    }

    /// Units of a reply that is worth something only when it is whole: all of them in the last chunk that
    /// brought bytes.
    #[must_use]
    pub fn units_at_the_end(&self, units: u64) -> Vec<u64> {
        let last = self.chunks.iter().rposition(|c| !c.data.is_empty());
        (0..self.chunks.len()).map(|i| if Some(i) == last { units } else { 0 }).collect()
    }
}

/// Something that the host's executors shall compute, as it crosses the boundary. Authors use the typed
/// kinds of [`crate::checks`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// e.g. `text.replay`.
    pub kind: String,
    /// The model it is asked of.
    pub model: Option<String>,
    /// JSON.
    pub params: String,
    /// Bytes beside the parameters.
    pub blobs: Vec<Vec<u8>>,
}

/// An executor's answer, as it crosses the boundary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// JSON.
    pub params: String,
    /// Bytes beside it.
    pub blobs: Vec<Vec<u8>>,
}

/// The answer, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// The executor answered.
    Answered(Answer),
    /// It could not.
    Unavailable(String),
}

/// A judged exchange.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Verdict {
    /// In [0, 1].
    pub quality: f64,
    /// Units of work verified.
    pub units: u64,
    /// The same by chunk of the exchange, or empty.
    pub units_by_chunk: Vec<u64>,
    /// `ln q_k / q_0` by named suspect; finite.
    pub suspicions: Vec<(String, f64)>,
    /// Compared by the host between miners and over time.
    pub fingerprints: Vec<Vec<u8>>,
    /// Why: code and number; finite.
    pub reasons: Vec<(String, f64)>,
}

impl Verdict {
    /// Adds a reason; a number that is not finite is left out, because the host would refuse the verdict.
    pub fn because(&mut self, code: &str, number: f64) {
        if number.is_finite() {
            self.reasons.push((code.to_owned(), number));
        }
    }
}

/// A synthetic request and the units of work that its reply is expected to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthetic {
    /// What is sent.
    pub request: Request,
    /// At least 1.
    pub expected_units: u64,
}

/// Why a client's body does not become a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 400 to 499.
    pub status: u16,
    /// Short, e.g. `invalid_value`.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A 400.
    #[must_use]
    pub fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self { status: 400, code: code.to_owned(), message: message.into() }
    }
}

/// What a client sent to the gateway.
#[derive(Debug, Clone, Copy)]
pub struct ClientCall<'a> {
    /// e.g. `chat.completions`.
    pub operation: &'a str,
    /// The body's media type.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// Who a task is and what it wants.
#[derive(Debug, Serialize)]
pub struct Description {
    /// e.g. `text-generation`.
    pub name: &'static str,
    /// The plugin's semver.
    pub version: &'static str,
    /// e.g. `text`.
    pub modality: &'static str,
    /// Unit of volume, e.g. `tokens`.
    pub unit: &'static str,
    /// Operations of users it admits.
    pub operations: Vec<&'static str>,
    /// Whether replies may stream.
    pub streaming: bool,
    /// Checks it will ask for, each with its models.
    pub checks: BTreeMap<&'static str, Vec<String>>,
    /// JSON schema of the parameters.
    pub params_schema: Box<RawValue>,
    /// Fields of a reply that a client gets only if it asked for them.
    pub reply_extras: Vec<&'static str>,
}
