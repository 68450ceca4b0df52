//! A reply as typed data: what the bytes say, before anything is believed.
//!
//! Streamed or not, the result is the same [`Reply`], plus, for a stream, how far text and ids had come at
//! the end of each event. Nothing here judges; a reply that cannot be read is a violation with the reason.

use nineteen_sdk::openai::Usage;
use nineteen_sdk::{Exchange, Stop, clip, sse};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What the bytes say.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// All text.
    pub content: String,
    /// Token ids, where the reply gives them.
    pub ids: Option<Vec<u32>>,
    /// Claimed log-probabilities, where the reply gives them.
    pub logprobs: Option<Vec<f64>>,
    /// `stop` or `length`.
    pub finish: Finish,
    /// Claimed counts.
    pub usage: Usage,
    /// Claimed sampler class.
    pub sampler: Option<String>,
    /// For a stream: how far it had come after each event.
    pub steps: Vec<Step>,
}

/// Why the completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// An end-of-sequence token.
    Stop,
    /// As many tokens as were allowed.
    Length,
}

/// How far a stream had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Index of the chunk that completed the event.
    pub chunk: usize,
    /// Bytes of text so far.
    pub bytes: usize,
    /// Ids so far.
    pub ids: usize,
}

/// A whole completion, or one event of a stream: the same shape but for `message` and `delta`.
#[derive(Debug, Deserialize)]
struct Piece {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    nineteen: Option<Claim>,
    error: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    delta: Option<Said>,
    message: Option<Said>,
    finish_reason: Option<String>,
    token_ids: Option<Vec<u32>>,
    logprobs: Option<Logprobs>,
}

#[derive(Debug, Deserialize)]
struct Said {
    content: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Logprobs {
    content: Option<Vec<Logprob>>,
}

#[derive(Debug, Deserialize)]
struct Logprob {
    logprob: f64,
}

#[derive(Debug, Deserialize)]
struct Claim {
    sampler: Option<String>,
}

/// A reply in the making.
#[derive(Debug, Default)]
struct Draft {
    content: String,
    ids: Vec<u32>,
    has_ids: bool,
    logprobs: Vec<f64>,
    has_logprobs: bool,
    finish: Option<Finish>,
    usage: Option<Usage>,
    sampler: Option<String>,
}

impl Draft {
    fn take(&mut self, piece: Piece) -> Result<(), Stop> {
        if piece.error.is_some() {
            return Err(Stop::violation("reply.error", "an error where an answer was promised"));
        }
        self.usage = piece.usage.or(self.usage);
        if let Some(sampler) = piece.nineteen.and_then(|c| c.sampler) {
            self.sampler = Some(sampler);
        }
        let mut choices = piece.choices.into_iter();
        let Some(choice) = choices.next() else { return Ok(()) };
        if choice.index != 0 || choices.next().is_some() {
            return Err(Stop::violation("reply.choices", "more than the one choice that was asked for"));
        }
        let said = choice.delta.or(choice.message).and_then(|s| s.content).unwrap_or_default();
        let ids = choice.token_ids.unwrap_or_default();
        if self.finish.is_some() && !(said.is_empty() && ids.is_empty()) {
            return Err(Stop::violation("stream.after_finish", "text or tokens after the finish reason"));
        }
        self.content.push_str(&said);
        self.has_ids |= !ids.is_empty();
        self.ids.extend(ids);
        if let Some(list) = choice.logprobs.and_then(|l| l.content) {
            self.has_logprobs = true;
            self.logprobs.extend(list.iter().map(|l| l.logprob));
        }
        self.finish = match choice.finish_reason.as_deref() {
            None => self.finish,
            Some("stop") => Some(Finish::Stop),
            Some("length") => Some(Finish::Length),
            Some(other) => {
                let words = format!("`{}` is neither stop nor length", clip(other, 40));
                return Err(Stop::violation("finish.unknown", words));
            }
        };
        Ok(())
    }

    fn finish(self, steps: Vec<Step>) -> Result<Reply, Stop> {
        let missing = |what: &str| Stop::violation("reply.incomplete", format!("no {what}"));
        Ok(Reply {
            content: self.content,
            ids: self.has_ids.then_some(self.ids),
            logprobs: self.has_logprobs.then_some(self.logprobs),
            finish: self.finish.ok_or_else(|| missing("finish_reason"))?,
            usage: self.usage.ok_or_else(|| missing("usage"))?,
            sampler: self.sampler,
            steps,
        })
    }
}

fn piece(bytes: &[u8]) -> Result<Piece, Stop> {
    serde_json::from_slice(bytes).map_err(|e| Stop::violation("reply.malformed", e.to_string()))
}

const DONE: &[u8] = b"[DONE]";

/// Reads a whole reply.
///
/// # Errors
/// A violation that says what is wrong with the bytes.
pub fn read(streamed: bool, exchange: &Exchange) -> Result<Reply, Stop> {
    let mut draft = Draft::default();
    if !streamed {
        draft.take(piece(&exchange.body())?)?;
        return draft.finish(Vec::new());
    }
    let mut steps = Vec::new();
    let mut done = false;
    for event in sse::events(&exchange.chunks) {
        if done {
            return Err(Stop::violation("stream.after_done", "an event after [DONE]"));
        }
        if event.data == DONE {
            done = true;
            continue;
        }
        draft.take(piece(&event.data)?)?;
        steps.push(Step { chunk: event.chunk, bytes: draft.content.len(), ids: draft.ids.len() });
    }
    if !done {
        return Err(Stop::violation("stream.done", "the stream ends without [DONE]"));
    }
    draft.finish(steps)
}

/// Tokens that the bytes claim so far, also of a stream that broke off; `None` when they are no reply.
#[must_use]
pub fn claimed(streamed: bool, exchange: &Exchange) -> Option<u64> {
    let mut draft = Draft::default();
    if streamed {
        let mut events = sse::events(&exchange.chunks);
        // What broke off in the middle of an event is no malformed event.
        if exchange.ending != nineteen_sdk::Ending::Complete
            && events.last().is_some_and(|e| piece(&e.data).is_err())
        {
            events.pop();
        }
        for event in events.iter().filter(|e| e.data != DONE) {
            draft.take(piece(&event.data).ok()?).ok()?;
        }
    } else {
        draft.take(piece(&exchange.body()).ok()?).ok()?;
    }
    if draft.has_ids { Some(draft.ids.len() as u64) } else { draft.usage.map(|u| u.completion_tokens) }
}
