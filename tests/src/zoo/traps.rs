//! Bytes that are no answer: to waste a validator's time, or to break what reads them.

use std::time::Duration;

use bytes::Bytes;

use super::Plan;

/// The bytes of kinds that need no model; `None` for the others.
pub(crate) fn plan(kind: &str, streamed: bool) -> Option<Plan> {
    let event = |json: String| if streamed { format!("data: {json}\n\ndata: [DONE]\n\n") } else { json };
    let said = if streamed { "delta" } else { "message" };
    Some(match kind {
        "error-inside" => {
            let error = r#"{"error":{"message":"overloaded","type":"server_error","param":null,"code":"internal_error"}}"#;
            Plan::at_once(streamed, event(error.to_owned()))
        }
        "garbage" => Plan::at_once(streamed, noise(4_096)),
        "nesting" => Plan::at_once(streamed, event("[".repeat(200_000))),
        "numbers" => {
            let choice = format!(
                r#"{{"index":0,"{said}":{{"content":"x"}},"token_ids":[18446744073709551616,1e999,-1],"logprobs":{{"content":[{{"token":"x","logprob":-1e999}}]}},"finish_reason":"stop"}}"#
            );
            let usage =
                r#"{"prompt_tokens":1e999,"completion_tokens":-1,"total_tokens":18446744073709551616}"#;
            Plan::at_once(streamed, event(format!(r#"{{"choices":[{choice}],"usage":{usage}}}"#)))
        }
        "fuel-bomb" if streamed => Plan::at_once(true, "data: {}\n\n".repeat(350_000)),
        "fuel-bomb" => {
            let choices = "{},".repeat(1_000_000);
            Plan::at_once(false, format!(r#"{{"choices":[{choices}{{}}]}}"#))
        }
        "endless-comments" => {
            let bytes = Bytes::from_static(if streamed { b": wait\n\n" } else { b" " });
            Plan { streamed, pieces: Vec::new(), forever: Some((Duration::from_millis(100), bytes)) }
        }
        "endless-tokens" if !streamed => {
            let space = (Duration::from_millis(50), Bytes::from_static(b" "));
            let begun = Bytes::from_static(br#"{"object":"chat.completion""#);
            Plan { streamed, pieces: vec![(Duration::ZERO, begun)], forever: Some(space) }
        }
        _ => return None,
    })
}

/// The same with a byte in every text that no UTF-8 has.
pub(crate) fn not_utf8(bytes: &Bytes) -> Bytes {
    const TEXT: &[u8] = br#""content":""#;
    let Some(at) = bytes.windows(TEXT.len()).position(|w| w == TEXT) else { return bytes.clone() };
    let (before, rest) = bytes.split_at(at + TEXT.len());
    [before, b"\xFF".as_slice(), rest].concat().into()
}

/// Bytes without a meaning, always the same ones.
pub(crate) fn noise(len: u32) -> Vec<u8> {
    (1..=len).map(|n| n.wrapping_mul(0x9E37_79B1).rotate_left(7).to_le_bytes()).map(|[_, b, ..]| b).collect()
}
