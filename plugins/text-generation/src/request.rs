//! From what a client says to what a miner gets. The only way to make a request: synthetic chats are
//! invented as clients' chats and pass through the same function, so no field, order or format tells one
//! from the other.

use nineteen_sdk::hash::Fingerprint;
use nineteen_sdk::openai::Message;
use nineteen_sdk::{Refusal, Request, Rng, clip};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::params::Params;

/// The path on the miner.
pub const PATH: &str = "/v1/chat/completions";

/// Messages that a chat may have.
const MAX_MESSAGES: usize = 256;

/// The body that miners get: exactly these fields, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// Name of the model.
    pub model: String,
    /// The chat.
    pub messages: Vec<Message>,
    /// The most tokens of the completion, the end-of-sequence token included.
    pub max_tokens: u32,
    /// 0 is greedy.
    pub temperature: f64,
    /// In (0, 1].
    pub top_p: f64,
    /// 0 is all.
    pub top_k: u32,
    /// 0 to 2^53 - 1, so that every JSON reader keeps it.
    pub seed: u64,
    /// 16 lower-case hex digits.
    pub request_id: String,
    /// Whether the reply streams.
    pub stream: bool,
    /// Only where it streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Always.
    pub logprobs: bool,
    /// Always.
    pub return_token_ids: bool,
}

/// OpenAI's `stream_options`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOptions {
    /// Always.
    pub include_usage: bool,
}

/// A chat as clients send it. Fields that are not here are ignored, as OpenAI's own clients expect of
/// servers; fields that would change the answer and that the protocol does not know are refused.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Chat {
    /// The chat.
    #[serde(default)]
    pub messages: Vec<ClientMessage>,
    /// The most tokens.
    pub max_tokens: Option<i64>,
    /// The newer name of the same.
    pub max_completion_tokens: Option<i64>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// In (0, 1].
    pub top_p: Option<f64>,
    /// 0 and -1 are all.
    pub top_k: Option<i64>,
    /// Any integer.
    pub seed: Option<i64>,
    /// Whether the reply streams.
    pub stream: Option<bool>,
    pub(crate) n: Option<Value>,
    pub(crate) best_of: Option<Value>,
    pub(crate) tools: Option<Value>,
    pub(crate) functions: Option<Value>,
    pub(crate) tool_choice: Option<Value>,
    pub(crate) function_call: Option<Value>,
    pub(crate) stop: Option<Value>,
    pub(crate) logit_bias: Option<Value>,
    pub(crate) presence_penalty: Option<Value>,
    pub(crate) frequency_penalty: Option<Value>,
    pub(crate) repetition_penalty: Option<Value>,
    pub(crate) min_p: Option<Value>,
    pub(crate) response_format: Option<Value>,
    pub(crate) top_logprobs: Option<Value>,
    pub(crate) audio: Option<Value>,
}

/// A message as clients send it.
#[derive(Debug, Clone, Deserialize)]
pub struct ClientMessage {
    /// `system`, `developer`, `user` or `assistant`.
    pub role: String,
    /// Text, or a list of parts.
    pub content: Option<Content>,
}

/// Content as clients send it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Parts; only text is known here.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Debug, Clone, Deserialize)]
pub struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: String,
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::bad_request("invalid_value", message)
}

impl Chat {
    /// What would change the answer in a way that the protocol has no word for.
    fn unsupported(&self) -> Option<&'static str> {
        let differs = |given: &Option<Value>, neutral: &[Value]| {
            given.as_ref().is_some_and(|v| !v.is_null() && !neutral.contains(v))
        };
        let (no, yes) = (|x: f64| Value::from(x), |x: i64| Value::from(x));
        let none = [Value::Array(vec![]), Value::from("none")];
        let zero = [no(0.0), yes(0)];
        let one = [no(1.0), yes(1)];
        let nothing = [Value::Array(vec![]), Value::from("")];
        let text = [serde_json::json!({"type": "text"})];
        let empty = [serde_json::json!({})];
        let fields: [(&'static str, &Option<Value>, &[Value]); 15] = [
            ("n", &self.n, &one),
            ("best_of", &self.best_of, &one),
            ("tools", &self.tools, &none),
            ("functions", &self.functions, &none),
            ("tool_choice", &self.tool_choice, &none),
            ("function_call", &self.function_call, &none),
            ("stop", &self.stop, &nothing),
            ("logit_bias", &self.logit_bias, &empty),
            ("presence_penalty", &self.presence_penalty, &zero),
            ("frequency_penalty", &self.frequency_penalty, &zero),
            ("repetition_penalty", &self.repetition_penalty, &one),
            ("min_p", &self.min_p, &zero),
            ("response_format", &self.response_format, &text),
            ("top_logprobs", &self.top_logprobs, &zero),
            ("audio", &self.audio, &[]),
        ];
        fields.iter().find(|(_, given, neutral)| differs(given, neutral)).map(|(name, _, _)| *name)
    }
}

/// The request for a chat; `rng` draws what the protocol needs.
///
/// # Errors
/// A refusal in OpenAI's terms.
pub fn admit(params: &Params, chat: Chat, rng: &mut Rng) -> Result<Request, Refusal> {
    if let Some(field) = chat.unsupported() {
        let message = format!("`{field}` is not supported here: leave it out");
        return Err(Refusal::bad_request("unsupported_parameter", message));
    }
    let temperature = chat.temperature.unwrap_or(1.0);
    if !(0.0..=2.0).contains(&temperature) {
        return Err(invalid(format!("`temperature` is {temperature}; it must be within 0 and 2")));
    }
    let top_p = chat.top_p.unwrap_or(1.0);
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(invalid(format!("`top_p` is {top_p}; it must be above 0 and at most 1")));
    }
    let top_k = match chat.top_k.unwrap_or(0) {
        -1 => 0,
        k => u32::try_from(k).map_err(|_| invalid(format!("`top_k` is {k}; it must be -1, 0 or more")))?,
    };
    let asked = match chat.max_completion_tokens.or(chat.max_tokens) {
        None => params.default_max_tokens,
        Some(n) if n < 1 => return Err(invalid(format!("`max_tokens` is {n}; it must be at least 1"))),
        Some(n) => u32::try_from(n).unwrap_or(u32::MAX),
    };
    let stream = chat.stream.unwrap_or(false);
    let messages = messages(chat.messages)?;
    let room = params.context_tokens.saturating_sub(about_tokens(&messages));
    if room < 8 {
        let message =
            format!("the messages leave no room in the context of {} tokens", params.context_tokens);
        return Err(Refusal::bad_request("context_length_exceeded", message));
    }
    let (seed, request) = noise(chat.seed, rng);
    let body = Body {
        model: params.model.clone(),
        messages,
        max_tokens: asked.min(params.max_tokens_cap).min(room),
        // Below this, dividing logits by it says nothing any more; other servers draw the same line.
        temperature: if temperature < 1e-5 { 0.0 } else { temperature },
        top_p,
        top_k,
        seed,
        request_id: format!("{request:016x}"),
        stream,
        stream_options: stream.then_some(StreamOptions { include_usage: true }),
        logprobs: true,
        return_token_ids: true,
    };
    let bytes = serde_json::to_vec(&body).map_err(|e| invalid(e.to_string()))?;
    Ok(Request::json(PATH, bytes, stream))
}

/// Seed (53 bits) and request id of the noise. A client who brings a seed gets the same noise every time,
/// which is what a seed is for; it is hashed, so that 42 does not stand out among drawn ones.
fn noise(client: Option<i64>, rng: &mut Rng) -> (u64, u64) {
    let mut own = client.map(|seed| {
        Rng::new(&Fingerprint::default().bytes(b"client seed").number(seed.cast_unsigned()).seed())
    });
    let rng = own.as_mut().unwrap_or(rng);
    (rng.bits() >> 11, rng.bits())
}

fn messages(given: Vec<ClientMessage>) -> Result<Vec<Message>, Refusal> {
    if given.is_empty() || given.len() > MAX_MESSAGES {
        return Err(invalid(format!(
            "`messages` has {} entries; 1 to {MAX_MESSAGES} are possible",
            given.len()
        )));
    }
    let mut messages = Vec::with_capacity(given.len());
    for (i, message) in given.into_iter().enumerate() {
        let role = match message.role.as_str() {
            "developer" => "system",
            role @ ("system" | "user" | "assistant") => role,
            other => {
                let other = clip(other, 40);
                return Err(invalid(format!(
                    "`messages[{i}].role` is `{other}`; system, developer, user and assistant are possible"
                )));
            }
        };
        let content = match message.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                if let Some(part) = parts.iter().find(|p| p.kind != "text") {
                    let kind = clip(&part.kind, 40);
                    return Err(invalid(format!(
                        "`messages[{i}].content` has a part `{kind}`; only text is possible"
                    )));
                }
                parts.into_iter().map(|p| p.text).collect::<Vec<_>>().join("\n")
            }
            None => return Err(invalid(format!("`messages[{i}].content` is missing"))),
        };
        messages.push(Message::new(role, content));
    }
    if !messages.iter().any(|m| m.role == "user" && !m.content.trim().is_empty()) {
        return Err(invalid("`messages` has no message of role `user` with text"));
    }
    Ok(messages)
}

/// A careful guess at the tokens of a rendered chat: rather too many, because a miner that gets more than its
/// context refuses. Three letters or blanks a token; digits, signs and bytes of other scripts one each.
fn about_tokens(messages: &[Message]) -> u32 {
    let bytes = messages.iter().flat_map(|m| m.content.bytes());
    let (mut letters, mut others) = (0_usize, 0_usize);
    for byte in bytes {
        if byte.is_ascii_alphabetic() || byte == b' ' { letters += 1 } else { others += 1 }
    }
    u32::try_from(letters / 3 + others + 8 * messages.len() + 32).unwrap_or(u32::MAX)
}

/// What no rendered chat can exceed: a token has at least one byte, and templates add little.
#[must_use]
pub fn at_most_tokens(messages: &[Message]) -> usize {
    messages.iter().map(|m| m.content.len() + m.role.len() + 32).sum::<usize>() + 256
}

#[cfg(test)]
mod tests;
