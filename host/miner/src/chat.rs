//! `POST /v1/chat/completions`: one completion, whole or as a stream of events.
//!
//! The one idea: the generation lives inside the response. When the client goes, the response is dropped, and
//! with it the generation and its place; nothing has to be told.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::backend::{BackendError, ChatEnd, ChatWork, Message, Sampler, Token};
use crate::config::Operation;
use crate::error::ApiError;
use crate::limits::Place;
use crate::server::{MinerState, parse};

const DEFAULT_MAX_TOKENS: u32 = 256;
const MAX_MESSAGES: usize = 1024;
const MAX_STOPS: usize = 4;

/// The request's body. Fields that would change the answer and are not served are refused, not ignored.
#[derive(Deserialize)]
struct ChatBody {
    model: String,
    messages: Vec<Message>,
    #[serde(alias = "max_completion_tokens")]
    max_tokens: Option<u32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    seed: Option<u64>,
    request_id: Option<String>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    logprobs: bool,
    #[serde(default)]
    return_token_ids: bool,
    stop: Option<Stop>,
    n: Option<u32>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

const UNSERVED: [&str; 10] = [
    "tools",
    "functions",
    "logit_bias",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "response_format",
    "min_p",
    "top_logprobs",
    "audio",
];

fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(n) => n.as_f64().is_some_and(|n| n != 0.0),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty() && o.get("type") != Some(&json!("text")),
        _ => true,
    }
}

/// What the response has to look like.
#[derive(Debug, Clone)]
struct Shape {
    id: String,
    created: u64,
    model: String,
    logprobs: bool,
    token_ids: bool,
    usage: bool,
    sampler: &'static str,
}

impl ChatBody {
    fn sampler(&self) -> Result<Sampler, ApiError> {
        let temperature = self.temperature.unwrap_or(1.0);
        if !(0.0..=2.0).contains(&temperature) {
            return Err(ApiError::bad(Some("temperature"), "temperature is not in 0 to 2"));
        }
        let top_p = self.top_p.unwrap_or(1.0);
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(ApiError::bad(Some("top_p"), "top_p is not in (0, 1]"));
        }
        // vLLM writes "all" as -1 or 0.
        let top_k = u32::try_from(self.top_k.unwrap_or(0).max(0))
            .map_err(|_| ApiError::bad(Some("top_k"), "top_k is too large"))?;
        if self.seed.is_some_and(|s| s > (1 << 53) - 1) {
            return Err(ApiError::bad(Some("seed"), "seed is not in 0 to 2^53 - 1"));
        }
        let request = self.request_id.as_deref().map(|id| {
            nineteen_checking::request_number(id)
                .map_err(|_| ApiError::bad(Some("request_id"), "request_id is not 16 lower-case hex digits"))
        });
        let request = request.transpose()?;
        Ok(match (self.seed, request) {
            _ if temperature == 0.0 => Sampler::Greedy,
            (Some(seed), Some(request)) => Sampler::Seeded { seed, request, temperature, top_p, top_k },
            _ => Sampler::Unseeded { temperature, top_p, top_k },
        })
    }

    fn work(self, most: u32) -> Result<(ChatWork, Shape, bool), ApiError> {
        if self.messages.is_empty() || self.messages.len() > MAX_MESSAGES {
            return Err(ApiError::bad(Some("messages"), "expected 1 to 1024 messages"));
        }
        if self.n.is_some_and(|n| n != 1) {
            return Err(ApiError::bad(Some("n"), "only n = 1 is served"));
        }
        if let Some(field) = UNSERVED.into_iter().find(|f| self.rest.get(*f).is_some_and(asks_for_something))
        {
            return Err(ApiError::bad(Some(field), format!("'{field}' is not served")));
        }
        let max_tokens = self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS.min(most));
        if !(1..=most).contains(&max_tokens) {
            return Err(ApiError::bad(Some("max_tokens"), format!("max_tokens is not in 1 to {most}")));
        }
        let sampler = self.sampler()?;
        let stop = match self.stop {
            None => Vec::new(),
            Some(Stop::One(s)) => vec![s],
            Some(Stop::Many(all)) => all,
        };
        if stop.len() > MAX_STOPS || stop.iter().any(|s| s.len() > 256) {
            return Err(ApiError::bad(Some("stop"), "expected at most 4 texts of at most 256 bytes"));
        }
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id =
            self.request_id.unwrap_or_else(|| format!("{:016x}", created.as_nanos() & u128::from(u64::MAX)));
        let shape = Shape {
            id: format!("chatcmpl-{id}"),
            created: created.as_secs(),
            model: self.model.clone(),
            logprobs: self.logprobs,
            token_ids: self.return_token_ids,
            usage: self.stream_options.is_some_and(|o| o.include_usage),
            sampler: sampler.class(),
        };
        let work = ChatWork {
            model: self.model,
            messages: self.messages,
            max_tokens,
            sampling: sampler,
            logprobs: self.logprobs,
            stop,
        };
        Ok((work, shape, self.stream))
    }
}

pub(crate) async fn handle(State(state): State<Arc<MinerState>>, body: Bytes) -> Result<Response, ApiError> {
    let body: ChatBody = parse(&body)?;
    let served = state.task(Operation::Chat, &body.model)?;
    let (work, shape, stream) = body.work(served.config.max_tokens)?;
    let place = served.gate.enter().await?;
    let mut generation = Generation::start(&state, work, place, served.config.pace_tokens_per_s);
    if !stream {
        return generation.whole(&shape).await;
    }
    // A failure before the first token is still an HTTP error; after it, the status is gone.
    let first = generation.next().await?;
    let streaming = Streaming {
        shape,
        generation,
        first: Some(first),
        ready: VecDeque::new(),
        begun: false,
        over: false,
    };
    let mut response =
        Response::new(Body::from_stream(futures_util::stream::unfold(streaming, |mut s| async move {
            s.event().await.map(|bytes| (Ok::<_, std::convert::Infallible>(bytes), s))
        })));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

enum Step {
    Token(Token),
    End(ChatEnd),
}

type Work = Pin<Box<dyn Future<Output = Result<ChatEnd, BackendError>> + Send>>;

/// A completion under way.
struct Generation {
    work: Option<Work>,
    ended: Option<Result<ChatEnd, BackendError>>,
    tokens: mpsc::Receiver<Token>,
    place: Place,
    sent: u32,
    pace: Option<f64>,
    started: Instant,
}

impl Generation {
    fn start(state: &MinerState, work: ChatWork, place: Place, pace: Option<f64>) -> Self {
        // Room for every token: a slow client never holds up the engine, and the number is capped.
        let (sender, tokens) = mpsc::channel(usize::try_from(work.max_tokens).unwrap_or(1).max(1));
        let backend = Arc::clone(&state.backend);
        let work: Work = Box::pin(async move { backend.chat(work, sender).await });
        Self { work: Some(work), ended: None, tokens, place, sent: 0, pace, started: Instant::now() }
    }

    async fn next(&mut self) -> Result<Step, ApiError> {
        loop {
            let token = match &mut self.work {
                Some(work) => tokio::select! {
                    biased;
                    token = self.tokens.recv() => token,
                    ended = work.as_mut() => {
                        (self.work, self.ended) = (None, Some(ended));
                        continue;
                    }
                },
                // What was sent before the end is still to be had.
                None => self.tokens.recv().await,
            };
            if let Some(token) = token {
                self.sent = self.sent.saturating_add(1);
                if let Some(due) = self.due() {
                    tokio::time::sleep_until(due).await;
                }
                return Ok(Step::Token(token));
            }
            if let Some(work) = self.work.take() {
                self.ended = Some(work.await);
            }
            let ended = self.ended.take().unwrap_or_else(|| Err(BackendError::Failed("no end".into())));
            return match ended {
                Ok(end) => {
                    self.place.charge(end.completion_tokens);
                    Ok(Step::End(end))
                }
                Err(e) => Err(e.into()),
            };
        }
    }

    /// When the n-th token may leave: n / pace after the start. Not async: a future that borrowed all of this
    /// would have to be `Sync`, and an engine's future need not be.
    fn due(&self) -> Option<Instant> {
        let after = Duration::try_from_secs_f64(f64::from(self.sent) / self.pace?).ok()?;
        Some(self.started + after)
    }

    async fn whole(mut self, shape: &Shape) -> Result<Response, ApiError> {
        let (mut text, mut ids, mut logprobs) = (String::new(), Vec::new(), Vec::new());
        let end = loop {
            match self.next().await? {
                Step::End(end) => break end,
                Step::Token(token) => {
                    logprobs.push(logprob(&token));
                    ids.push(token.id);
                    text.push_str(&token.text);
                }
            }
        };
        let mut choice = json!({
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": end.finish.as_str(),
        });
        if let Some(choice) = choice.as_object_mut() {
            shape.extras(choice, &ids, logprobs);
        }
        Ok(Json(json!({
            "id": shape.id, "object": "chat.completion", "created": shape.created, "model": shape.model,
            "choices": [choice], "usage": usage(&end), "nineteen": {"sampler": shape.sampler},
        }))
        .into_response())
    }
}

fn usage(end: &ChatEnd) -> Value {
    json!({
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens.saturating_add(end.completion_tokens),
    })
}

/// Rounding may put the logarithm of a probability a hair above 0; the protocol says at most 0.
fn logprob(token: &Token) -> Value {
    let text = String::from_utf8_lossy(&token.bytes);
    json!({"token": text, "logprob": token.logprob.map(|l| l.min(0.0)), "bytes": token.bytes})
}

impl Shape {
    fn extras(&self, choice: &mut Map<String, Value>, ids: &[u32], logprobs: Vec<Value>) {
        if self.token_ids {
            choice.insert("token_ids".into(), json!(ids));
        }
        if self.logprobs {
            choice.insert("logprobs".into(), json!({"content": logprobs}));
        }
    }

    fn chunk(&self, choices: &Value, more: Option<(&str, Value)>) -> Bytes {
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": choices,
        });
        if let (Some((key, value)), Some(chunk)) = (more, chunk.as_object_mut()) {
            chunk.insert(key.into(), value);
        }
        Bytes::from(format!("data: {chunk}\n\n"))
    }
}

/// A reply as events: one for each token, one with the reason of the end, one with the usage, `[DONE]`.
struct Streaming {
    shape: Shape,
    generation: Generation,
    first: Option<Step>,
    ready: VecDeque<Bytes>,
    begun: bool,
    over: bool,
}

impl Streaming {
    async fn event(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.over {
                return None;
            }
            let step = match self.first.take() {
                Some(step) => Ok(step),
                None => self.generation.next().await,
            };
            match step {
                Ok(Step::Token(token)) => {
                    let chunk = self.token(&token);
                    self.ready.push_back(chunk);
                }
                Ok(Step::End(end)) => self.end(&end),
                // The status is gone: an error event, and no [DONE], so that nobody takes it for a whole reply.
                Err(e) => {
                    self.ready.push_back(Bytes::from(format!("event: error\ndata: {}\n\n", e.body())));
                    self.over = true;
                }
            }
        }
    }

    fn token(&mut self, token: &Token) -> Bytes {
        let mut delta = json!({"content": token.text});
        let mut more = None;
        if !std::mem::replace(&mut self.begun, true) {
            delta = json!({"role": "assistant", "content": token.text});
            more = Some(("nineteen", json!({"sampler": self.shape.sampler})));
        }
        let mut choice = json!({"index": 0, "delta": delta, "finish_reason": null});
        if let Some(choice) = choice.as_object_mut() {
            self.shape.extras(choice, &[token.id], vec![logprob(token)]);
        }
        self.shape.chunk(&json!([choice]), more)
    }

    fn end(&mut self, end: &ChatEnd) {
        let last = json!([{"index": 0, "delta": {}, "finish_reason": end.finish.as_str()}]);
        self.ready.push_back(self.shape.chunk(&last, None));
        if self.shape.usage {
            self.ready.push_back(self.shape.chunk(&json!([]), Some(("usage", usage(end)))));
        }
        self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        self.over = true;
    }
}
