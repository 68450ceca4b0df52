//! Cheating miners, each a process of its own that answers over HTTP.
//!
//! The one idea: what a kind *says* is decided here, what a model *computes* is asked of one [`oracle`], which keeps
//! every answer. All kinds get the same requests, so what the right model writes is computed once for the whole zoo, and
//! a kind's speed is the pace that it sets itself. Kinds are as good as a cheat can be: prompt tokens, finish reasons and
//! shapes are right wherever the deviation leaves them right.

mod chat;
pub mod oracle;
mod rows;
pub mod serve;
mod traps;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use nineteen_domain::task::ReplyLimits;

/// What goes wrong inside the zoo; never part of a verdict.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// Models that the oracle serves: what the tasks ask for, and what the cheats put in its place.
pub const MODELS: [&str; 4] =
    ["smollm2-135m-instruct", "smollm2-135m-instruct-int8", "all-minilm-l6-v2", "all-minilm-l6-v2-int8"];

/// Before a path: prepares the answer to that request and sends none, so that no kind's time has the oracle's in it.
pub const REHEARSE: &str = "/rehearse";

/// For replies that wait for a model.
pub const PATIENT: ReplyLimits = ReplyLimits {
    connect_ms: 10_000,
    first_byte_ms: 300_000,
    idle_ms: 60_000,
    total_ms: 300_000,
    body_bytes: 8 << 20,
    chunks: 16_384,
    event_bytes: 1 << 20,
    header_bytes: 16 << 10,
};

/// Which task a kind cheats in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// `chat-smollm2-135m`
    Chat,
    /// `embed-minilm-l6`
    Embeddings,
}

impl Task {
    /// Its name, and that of its folder.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat-smollm2-135m",
            Self::Embeddings => "embed-minilm-l6",
        }
    }

    /// The kind that cheats are measured against.
    #[must_use]
    pub const fn honest(self) -> &'static str {
        match self {
            Self::Chat => "honest",
            Self::Embeddings => "honest-rows",
        }
    }
}

/// A kind of miner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name, for `--kind`.
    pub name: &'static str,
    /// Where it cheats.
    pub task: Task,
    /// What it does.
    pub what: &'static str,
}

const fn chat(name: &'static str, what: &'static str) -> Kind {
    Kind { name, task: Task::Chat, what }
}

const fn rows(name: &'static str, what: &'static str) -> Kind {
    Kind { name, task: Task::Embeddings, what }
}

/// The zoo. Honest ones first: they are what the others are measured against.
pub const KINDS: &[Kind] = &[
    chat("honest", "the right model, as asked"),
    rows("honest-rows", "the right model, as asked"),
    // Another model, prompt or sampler.
    chat("int8", "the dynamic int8 model writes, twice as fast"),
    chat("int8-evidence", "the int8 model writes, the right model prefills the evidence"),
    chat("int8-unseeded", "the int8 model writes, and says unseeded to be judged by the weaker test"),
    chat("int8-no-ids", "the int8 model writes, and leaves ids and log-probabilities out"),
    chat("hidden-prompt", "slips a system prompt in"),
    chat("cut-prompt", "reads half of every message"),
    chat("greedy", "greedy, whatever was asked for"),
    chat("hotter", "a temperature of 1.3 times what was asked for"),
    chat("slightly-hotter", "a temperature of 1.1 times what was asked for"),
    chat("wrong-seed", "a seed of its own"),
    chat("best-of-seeds", "the likeliest answer of three seeds of its own"),
    chat("unseeded", "draws without the seed, and says so"),
    // Other tokens than were drawn.
    chat("early-eos", "half an answer, and an end-of-sequence token that was not drawn"),
    chat("after-eos", "goes on after the end"),
    chat("other-finish", "half an answer that says that it is as long as was allowed"),
    chat("too-many-tokens", "more tokens than were allowed"),
    chat("padded-usage", "counts more tokens than it sends"),
    chat("other-text", "right ids beside a text of its own"),
    chat("no-text", "right ids and no text"),
    chat("filler-text", "a blank at once, then the right answer"),
    chat("filler-token", "a token at once that was not drawn, then the right answer"),
    // Other timing.
    chat("bundled", "eight tokens an event"),
    chat("burst", "keeps all tokens back and sends them in one burst"),
    chat("endless-tokens", "never stops sending"),
    chat("endless-comments", "keeps the connection open with comments"),
    chat("slow-drip", "the right answer, a byte at a time"),
    // Somebody else's work.
    chat("replayed", "one answer for every request"),
    chat("copied", "the right model's answer to another miner's request"),
    chat("relay", "passes requests on to another miner's machine"),
    // No work at all.
    chat("error-inside", "status 200 and an error inside"),
    chat("empty", "an empty answer"),
    chat("canned", "a friendly sentence without ids"),
    // Bytes that are to break the plugin.
    chat("garbage", "random bytes"),
    chat("nesting", "JSON nested 200,000 deep"),
    chat("numbers", "numbers that no type holds"),
    chat("not-utf-8", "the right answer with a byte in it that is no UTF-8"),
    chat("fuel-bomb", "megabytes of empty events or choices, to cost fuel and memory"),
    // Embeddings.
    rows("int8-rows", "the int8 model, twice as fast"),
    rows("random-rows", "random vectors of length 1"),
    rows("one-row", "one text's row for all texts"),
    rows("swapped-rows", "the right rows in reverse order"),
    rows("replayed-rows", "the rows of one request for every request"),
    rows("cut-texts", "reads eight words of every text"),
    rows("prefixed-texts", "puts `query: ` before every text, as other models want it"),
    rows("long-rows", "rows that are not normalised"),
    rows("short-rows", "rows with a number left out"),
    rows("not-numbers", "rows of null and NaN"),
    rows("lower-cased", "keeps rows by the text in lower case"),
];

/// The kind of this name.
///
/// # Errors
/// When there is none.
pub fn kind(name: &str) -> Result<&'static Kind> {
    KINDS.iter().find(|k| k.name == name).ok_or_else(|| format!("the zoo has no '{name}'").into())
}

/// What is sent, and when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) streamed: bool,
    /// Each with the pause before it.
    pub(crate) pieces: Vec<(Duration, Bytes)>,
    /// What follows again and again.
    pub(crate) forever: Option<(Duration, Bytes)>,
}

impl Plan {
    pub(crate) fn at_once(streamed: bool, bytes: impl Into<Bytes>) -> Self {
        Self { streamed, pieces: vec![(Duration::ZERO, bytes.into())], forever: None }
    }
}

/// How long this much takes at a pace per second; no time at an infinite one.
#[expect(clippy::cast_precision_loss, reason = "a few tokens")]
pub(crate) fn after(units: usize, per_s: f64) -> Duration {
    Duration::try_from_secs_f64(units as f64 / per_s).unwrap_or_default()
}

/// Answers that were given, by request.
#[derive(Debug, Default)]
pub(crate) struct Seen<T>(Mutex<Vec<(String, T)>>);

impl<T: Clone> Seen<T> {
    /// Remembers the right answer; gives the first one of all, or the first one to another request.
    pub(crate) fn instead(&self, key: &str, right: &T, another: bool) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.iter().all(|(k, _)| k != key) {
            all.push((key.to_owned(), right.clone()));
        }
        let found = all.iter().find(|(k, _)| !another || k != key);
        found.map_or_else(|| right.clone(), |(_, answer)| answer.clone())
    }
}
