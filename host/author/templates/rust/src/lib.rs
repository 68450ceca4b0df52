//! {{name}}: texts are changed in a way that is told, and what comes back is held against the same change made here.
//!
//! A task is five pure functions. The SDK turns this trait into the component's exports; `cargo test` runs the same code
//! natively.

use std::collections::BTreeMap;

use nineteen_sdk::{
    ClientCall, Cx, Description, Exchange, Refusal, Request, Rng, Stop, Synthetic, Task, Verdict, openai,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

const OPERATION: &str = "transform";
const PATH: &str = "/v1/transform";
const WORDS: &[&str] = &[
    "amber", "bridge", "cloud", "dune", "ember", "field", "grove", "harbour", "island", "jade", "kettle", "lantern",
    "meadow", "night", "orchard", "pebble", "quarry", "river", "stone", "timber", "under", "valley", "willow", "yarn",
];

/// `[params]` of `task.toml`. Unknown keys are refused: a typing error in a manifest should not become a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Texts of one request, at most.
    pub max_texts: usize,
    /// Bytes of one text, at most.
    pub max_bytes: usize,
}

/// What can be done with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Character by character, from the end.
    Reverse,
    /// In capitals.
    Upper,
    /// Words in alphabetical order, with one blank between them.
    SortWords,
}

impl Op {
    /// The right answer.
    pub fn of(self, text: &str) -> String {
        match self {
            Self::Reverse => text.chars().rev().collect(),
            Self::Upper => text.to_uppercase(),
            Self::SortWords => {
                let mut words: Vec<&str> = text.split_whitespace().collect();
                words.sort_unstable();
                words.join(" ")
            }
        }
    }
}

/// What miners get, and what clients send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// What to do.
    pub op: Op,
    /// With what.
    pub texts: Vec<String>,
}

#[derive(Deserialize)]
struct Reply {
    texts: Vec<String>,
}

/// The task.
#[derive(Debug)]
pub struct Transform;

impl Task for Transform {
    type Params = Params;

    fn validate(p: &Params) -> Result<(), String> {
        if (1..=1024).contains(&p.max_texts) && (16..=100_000).contains(&p.max_bytes) {
            Ok(())
        } else {
            Err("max_texts: 1 to 1024; max_bytes: 16 to 100000".into())
        }
    }

    fn describe(_: &Params) -> Result<Description, String> {
        Ok(Description {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            modality: "text",
            unit: "texts",
            operations: vec![OPERATION],
            streaming: false,
            // A task that needs a model names kind and model here, and task.toml grants them.
            checks: BTreeMap::new(),
            params_schema: RawValue::from_string(SCHEMA.into()).map_err(|e| e.to_string())?,
            reply_extras: Vec::new(),
        })
    }

    /// Invented as a client's and passed through the same [`admit`]: nothing tells one from the other.
    fn synthesize(p: &Params, rng: &mut Rng) -> Result<Synthetic, String> {
        let op = *rng.pick(&[Op::Reverse, Op::Upper, Op::SortWords]).ok_or("no operation")?;
        let count = 1 + rng.below(p.max_texts as u64);
        let texts = (0..count).map(|_| {
            let words = 1 + rng.below(12);
            let text: Vec<&str> = (0..words).map(|_| rng.word(WORDS)).collect();
            let text = text.join(" ");
            nineteen_sdk::clip(&text, p.max_bytes).to_owned()
        });
        let body = Body { op, texts: texts.collect() };
        let request = admit(p, body).map_err(|refusal| refusal.message)?;
        Ok(Synthetic { request, expected_units: count })
    }

    fn admit(p: &Params, call: ClientCall<'_>, _: &mut Rng) -> Result<Request, Refusal> {
        if call.operation != OPERATION {
            let message = format!("this task serves {OPERATION}, not {}", nineteen_sdk::clip(call.operation, 60));
            return Err(Refusal { status: 404, code: "unknown_operation".into(), message });
        }
        admit(p, openai::client_body(call.content_type, call.body)?)
    }

    fn count(_: &Params, request: &Request, exchange: &Exchange) -> Option<u64> {
        let asked: Body = serde_json::from_slice(&request.body).ok()?;
        let reply: Reply = serde_json::from_slice(&exchange.body()).ok()?;
        // More than was asked for is a violation, and never volume.
        Some(reply.texts.len().min(asked.texts.len()) as u64)
    }

    fn score(_: &Params, _: &mut Cx, request: &Request, exchange: &Exchange) -> Result<Verdict, Stop> {
        let asked: Body = serde_json::from_slice(&request.body)
            .map_err(|e| Stop::Inconclusive(format!("request: {e}")))?;
        if exchange.status != 200 {
            return Err(Stop::violation("reply.status", exchange.status.to_string()));
        }
        let reply: Reply = serde_json::from_slice(&exchange.body())
            .map_err(|e| Stop::violation("reply.shape", e.to_string()))?;
        if reply.texts.len() != asked.texts.len() {
            let words = format!("{} texts for {}", reply.texts.len(), asked.texts.len());
            return Err(Stop::violation("reply.count", words));
        }
        // A task whose answers only a model can judge asks for a check here: `let answer = cx.check(…)?;`
        let right = asked.texts.iter().zip(&reply.texts).filter(|(text, said)| asked.op.of(text) == **said).count();
        let mut verdict = Verdict {
            quality: nineteen_sdk::clip_unit(right as f64 / asked.texts.len() as f64),
            units: right as u64,
            units_by_chunk: exchange.units_at_the_end(right as u64),
            ..Verdict::default()
        };
        verdict.because("texts.right", right as f64);
        Ok(verdict)
    }
}

fn admit(p: &Params, body: Body) -> Result<Request, Refusal> {
    let invalid = |message: String| Err(Refusal::bad_request("invalid_value", message));
    if body.texts.is_empty() || body.texts.len() > p.max_texts {
        return invalid(format!("`texts` has {}; 1 to {} are possible", body.texts.len(), p.max_texts));
    }
    if let Some(i) = body.texts.iter().position(|t| t.is_empty() || t.len() > p.max_bytes) {
        return invalid(format!("`texts[{i}]` must have 1 to {} bytes", p.max_bytes));
    }
    match serde_json::to_vec(&body) {
        Ok(bytes) => Ok(Request::json(PATH, bytes, false)),
        Err(e) => invalid(e.to_string()),
    }
}

const SCHEMA: &str = r#"{
  "type": "object", "additionalProperties": false, "required": ["max_texts", "max_bytes"],
  "properties": {
    "max_texts": {"type": "integer", "minimum": 1, "maximum": 1024},
    "max_bytes": {"type": "integer", "minimum": 16, "maximum": 100000}
  }
}"#;

nineteen_sdk::export!(Transform);

#[cfg(test)]
mod tests {
    use super::*;

    const P: Params = Params { max_texts: 4, max_bytes: 100 };

    #[test]
    fn a_seed_always_makes_the_same_request() {
        let make = |seed: u8| Transform::synthesize(&P, &mut Rng::new(&[seed; 32]));
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }

    #[test]
    fn words_are_sorted() {
        assert_eq!(Op::SortWords.of("  b a "), "a b");
    }
}
