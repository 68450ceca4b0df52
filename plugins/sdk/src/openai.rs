//! The pieces of OpenAI's API that several tasks share.
//!
//! Not for whole bodies: what a task sends and reads is the task's own business.

use serde::{Deserialize, Serialize};

use crate::types::Refusal;

/// A message of a chat, as miners and the checker get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Plain text.
    pub content: String,
}

impl Message {
    /// A message.
    #[must_use]
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into() }
    }
}

/// Token counts that a reply claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the completion; embeddings have none.
    #[serde(default)]
    pub completion_tokens: u64,
    /// Their sum.
    #[serde(default)]
    pub total_tokens: u64,
}

/// Whether a media type is JSON, whatever its parameters.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// A client's body as `T`, or the refusal that tells the client what is wrong with it.
///
/// Deeper nesting than 127 levels is refused by the parser, so hostile bodies cannot exhaust the stack.
///
/// # Errors
/// 400 `invalid_body`, or 415 when the body is not called JSON.
pub fn client_body<'a, T: Deserialize<'a>>(content_type: &str, body: &'a [u8]) -> Result<T, Refusal> {
    if !is_json(content_type) {
        let message = format!("the body must be application/json, not {}", crate::clip(content_type, 60));
        return Err(Refusal { status: 415, code: "unsupported_media_type".to_owned(), message });
    }
    serde_json::from_slice(body).map_err(|e| Refusal::bad_request("invalid_body", e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_nesting_is_refused_and_not_a_stack_overflow() {
        let bomb = "[".repeat(100_000);
        let refused = client_body::<serde::de::IgnoredAny>("application/json", bomb.as_bytes()).unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (400, "invalid_body"));
    }

    #[test]
    fn json_is_json_with_or_without_a_charset() {
        assert!(is_json("application/json") && is_json("Application/JSON; charset=utf-8"));
        assert!(!is_json("text/plain") && !is_json(""));
    }
}
