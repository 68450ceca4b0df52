//! Conformance vectors: exchanges of which a task's author says what comes out of them.
//!
//! For: a component that is loaded shows that it judges as its author meant, under its real budget, before it is live; and when
//! it fails later, they say whether it is broken or the bytes are. Not for: judging whether what the author meant is wise.
//!
//! The file is `vectors.jsonl` beside `task.toml`, one vector a line:
//! ```json
//! {"name": "all right", "grade": "perfect",
//!  "request": {"path": "/v1/x", "body": "{}"},
//!  "exchange": {"body": "{\"ok\":true}"},
//!  "evidence": [],
//!  "expect": {"scored": {"quality": [1.0, 1.0], "units": 1}}}
//! ```

use std::fmt;

use bytes::Bytes;
use nineteen_domain::check::Answer;
use nineteen_domain::{Check, Chunk, Ending, Evidence, Exchange, Outcome, Request};
use serde::{Deserialize, Serialize};

use crate::error::CallError;
use crate::plugin::Plugin;

/// The file beside `task.toml`.
pub const FILE: &str = "vectors.jsonl";
/// Bytes of the file.
pub const MOST_BYTES: u64 = 8 << 20;
/// Vectors of a task: each is played at every load.
pub const MOST_VECTORS: usize = 256;
/// When the last byte of an exchange came that says nothing of it: microseconds.
const USUAL_US: u64 = 200_000;

/// How good the answer of a vector is, for holding answers of different grades against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// No answer of this task at all, or a hostile one.
    Garbage,
    /// Nearly right.
    Perturbed,
    /// Right.
    Perfect,
}

/// What comes out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Expected {
    /// A verdict.
    Scored {
        /// From, to; both in [0, 1].
        quality: (f64, f64),
        /// Units that are verified; absent, any number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        units: Option<u64>,
    },
    /// A violation whose words begin with this code.
    Violation(String),
    /// No judgement.
    Inconclusive,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scored { quality: (low, high), units: Some(units) } => {
                write!(f, "a quality of {low} to {high} and {units} units")
            }
            Self::Scored { quality: (low, high), units: None } => write!(f, "a quality of {low} to {high}"),
            Self::Violation(code) => write!(f, "the violation '{code}'"),
            Self::Inconclusive => f.write_str("no judgement"),
        }
    }
}

/// One exchange and what is expected of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    /// For people.
    pub name: String,
    /// How good the answer is.
    pub grade: Grade,
    /// What was asked.
    pub request: Request,
    /// What came.
    pub exchange: Exchange,
    /// What the checks said then, in the order in which they were asked for.
    pub evidence: Vec<(Check, Evidence)>,
    /// What comes out.
    pub expected: Expected,
}

/// The vectors of a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Vectors(Vec<Vector>);

/// Why vectors are none, or a plugin does not fit them.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VectorFault {
    /// The file.
    #[error("{FILE}: line {line}: {why}")]
    Line {
        /// From 1.
        line: usize,
        /// Field, reason.
        why: String,
    },
    /// The whole file.
    #[error("{FILE}: {0}")]
    File(String),
    /// What comes out is something else.
    #[error("{FILE}: '{name}': expected was {expected}, and it says {said}")]
    Other {
        /// Of the vector.
        name: String,
        /// What was meant.
        expected: Expected,
        /// What came out.
        said: String,
    },
    /// The plugin fails.
    #[error("{FILE}: '{name}': {error}")]
    Fails {
        /// Of the vector.
        name: String,
        /// How.
        error: CallError,
    },
}

/// Bytes as text where they are text, else in base64.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Bits {
    Text(String),
    Base64 { base64: String },
}

impl Bits {
    fn bytes(self) -> Result<Bytes, String> {
        use base64::Engine as _;
        match self {
            Self::Text(text) => Ok(text.into_bytes().into()),
            Self::Base64 { base64 } => base64::engine::general_purpose::STANDARD
                .decode(base64)
                .map(Into::into)
                .map_err(|e| format!("base64: {e}")),
        }
    }

    fn of(bytes: &[u8]) -> Self {
        use base64::Engine as _;
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64 { base64: base64::engine::general_purpose::STANDARD.encode(bytes) },
        }
    }
}

fn json_type() -> String {
    "application/json".into()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRequest {
    path: String,
    #[serde(default = "json_type")]
    content_type: String,
    body: Bits,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    streamed: bool,
}

const fn ok() -> u16 {
    200
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenExchange {
    #[serde(default = "ok")]
    status: u16,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    /// The body in one chunk, or `chunks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Bits>,
    /// Microseconds and bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chunks: Vec<(u64, Bits)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_us: Option<u64>,
    #[serde(default = "complete")]
    ending: Ending,
}

const fn complete() -> Ending {
    Ending::Complete
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEvidence {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    params: serde_json::Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    blobs: Vec<Bits>,
    /// The answer's parameters, or `unavailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    answer_blobs: Vec<Bits>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unavailable: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    grade: Grade,
    request: WrittenRequest,
    exchange: WrittenExchange,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    evidence: Vec<WrittenEvidence>,
    expect: Expected,
}

fn all(bits: Vec<Bits>) -> Result<Vec<Bytes>, String> {
    bits.into_iter().map(Bits::bytes).collect()
}

impl Written {
    fn read(self) -> Result<Vector, String> {
        if let Expected::Scored { quality: (low, high), .. } = &self.expect
            && !(0.0 <= *low && low <= high && *high <= 1.0)
        {
            return Err(format!("expect.scored.quality: {low} to {high} is no range within 0 to 1"));
        }
        let e = self.exchange;
        let chunks = match e.body {
            Some(_) if !e.chunks.is_empty() => return Err("exchange: either body or chunks".into()),
            Some(body) => vec![Chunk { at_us: e.ended_us.unwrap_or(USUAL_US), data: body.bytes()? }],
            None => {
                let chunk = |(at_us, bits): (u64, Bits)| Ok(Chunk { at_us, data: bits.bytes()? });
                e.chunks.into_iter().map(chunk).collect::<Result<_, String>>()?
            }
        };
        let last = chunks.last().map_or(USUAL_US, |c| c.at_us);
        let evidence = self.evidence.into_iter().map(|e| {
            let params = match e.params {
                serde_json::Value::String(text) => text,
                value => value.to_string(),
            };
            let check = Check { kind: e.kind, model: e.model, params, blobs: all(e.blobs)? };
            let evidence = match (e.answer, e.unavailable) {
                (Some(params), None) => Evidence::Answered(Answer { params, blobs: all(e.answer_blobs)? }),
                (None, Some(why)) => Evidence::Unavailable(why),
                _ => return Err(format!("evidence of {}: either answer or unavailable", check.kind)),
            };
            Ok((check, evidence))
        });
        Ok(Vector {
            name: self.name,
            grade: self.grade,
            request: Request {
                path: self.request.path,
                content_type: self.request.content_type,
                body: self.request.body.bytes()?,
                streamed: self.request.streamed,
            },
            exchange: Exchange {
                status: e.status,
                headers: e.headers,
                ended_us: e.ended_us.unwrap_or(last),
                chunks,
                ending: e.ending,
            },
            evidence: evidence.collect::<Result<_, String>>()?,
            expected: self.expect,
        })
    }

    fn of(v: &Vector) -> Self {
        let evidence = v.evidence.iter().map(|(check, evidence)| {
            let (answer, answer_blobs, unavailable) = match evidence {
                Evidence::Answered(a) => {
                    (Some(a.params.clone()), a.blobs.iter().map(|b| Bits::of(b)).collect(), None)
                }
                Evidence::Unavailable(why) => (None, Vec::new(), Some(why.clone())),
            };
            WrittenEvidence {
                kind: check.kind.clone(),
                model: check.model.clone(),
                // As text: the bytes that were asked for, whatever order a parser gives to keys.
                params: serde_json::Value::String(check.params.clone()),
                blobs: check.blobs.iter().map(|b| Bits::of(b)).collect(),
                answer,
                answer_blobs,
                unavailable,
            }
        });
        Self {
            name: v.name.clone(),
            grade: v.grade,
            request: WrittenRequest {
                path: v.request.path.clone(),
                content_type: v.request.content_type.clone(),
                body: Bits::of(&v.request.body),
                streamed: v.request.streamed,
            },
            exchange: WrittenExchange {
                status: v.exchange.status,
                headers: v.exchange.headers.clone(),
                body: None,
                chunks: v.exchange.chunks.iter().map(|c| (c.at_us, Bits::of(&c.data))).collect(),
                ended_us: Some(v.exchange.ended_us),
                ending: v.exchange.ending,
            },
            evidence: evidence.collect(),
            expect: v.expected.clone(),
        }
    }
}

impl Vector {
    /// As a line of the file.
    ///
    /// # Errors
    /// None that a vector which was read or recorded can cause; the encoder's words.
    pub fn line(&self) -> Result<String, VectorFault> {
        serde_json::to_string(&Written::of(self)).map_err(|e| VectorFault::File(e.to_string()))
    }

    /// Lets a plugin count and judge it, and holds what comes out against what is expected. A call of the plugin: use a
    /// blocking thread.
    ///
    /// # Errors
    /// [`VectorFault::Other`], [`VectorFault::Fails`].
    pub fn play(&self, plugin: &Plugin) -> Result<Outcome, VectorFault> {
        let fails = |error: CallError| VectorFault::Fails { name: self.name.clone(), error };
        plugin.count(&self.request, &self.exchange).map_err(fails)?;
        let outcome = plugin.score(&self.request, &self.exchange, &self.evidence).map_err(fails)?;
        let fits = match (&self.expected, &outcome) {
            (Expected::Scored { quality: (low, high), units }, Outcome::Scored(v)) => {
                (*low..=*high).contains(&v.quality) && units.is_none_or(|u| u == v.units)
            }
            (Expected::Violation(code), Outcome::Violation(why)) => why.starts_with(code.as_str()),
            (Expected::Inconclusive, Outcome::Inconclusive(_)) => true,
            _ => false,
        };
        if fits {
            return Ok(outcome);
        }
        let (name, expected) = (self.name.clone(), self.expected.clone());
        Err(VectorFault::Other { name, expected, said: said(&outcome) })
    }
}

/// An outcome in words.
#[must_use]
pub fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Scored(v) => format!("a quality of {} and {} units", v.quality, v.units),
        Outcome::Violation(why) => format!("a violation: {why}"),
        Outcome::Inconclusive(why) => format!("no judgement: {why}"),
        Outcome::Need(checks) => {
            let asked: Vec<&str> = checks.iter().map(|c| c.kind.as_str()).collect();
            format!("that it needs evidence that the vector does not hold: {}", asked.join(", "))
        }
    }
}

impl Vectors {
    /// Reads a file of them. Blank lines are passed over.
    ///
    /// # Errors
    /// [`VectorFault::Line`], [`VectorFault::File`].
    pub fn read(bytes: &[u8]) -> Result<Self, VectorFault> {
        if bytes.len() as u64 > MOST_BYTES {
            return Err(VectorFault::File(format!("{} bytes are more than {MOST_BYTES}", bytes.len())));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| VectorFault::File(e.to_string()))?;
        let mut vectors = Vec::new();
        for (n, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let fault = |why: String| VectorFault::Line { line: n + 1, why };
            if vectors.len() >= MOST_VECTORS {
                return Err(fault(format!("more than {MOST_VECTORS} vectors: each is played at every load")));
            }
            let written: Written = serde_json::from_str(line).map_err(|e| fault(e.to_string()))?;
            vectors.push(written.read().map_err(fault)?);
        }
        Ok(Self(vectors))
    }

    /// All of them, in the file's order.
    #[must_use]
    pub fn all(&self) -> &[Vector] {
        &self.0
    }

    /// Plays all of them; see [`Vector::play`].
    ///
    /// # Errors
    /// The first that does not fit.
    pub fn play(&self, plugin: &Plugin) -> Result<(), VectorFault> {
        self.0.iter().try_for_each(|v| v.play(plugin).map(drop))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails is meant to panic")]
mod tests {
    use super::*;

    const LINE: &str = r#"{"name":"n","grade":"perfect","request":{"path":"/v1/x","body":"{}"},"exchange":{"body":{"base64":"/w=="}},"evidence":[{"kind":"text.tokenize","model":"m","params":{"a":1},"answer":"{}","answer_blobs":[{"base64":"AAE="}]}],"expect":{"scored":{"quality":[0.5,1.0],"units":3}}}"#;

    #[test]
    fn a_line_says_as_little_as_it_can_and_comes_back_whole() {
        let read = Vectors::read(LINE.as_bytes()).unwrap();
        let v = &read.all()[0];
        assert_eq!((v.exchange.status, v.exchange.ending), (200, Ending::Complete));
        assert_eq!(v.exchange.chunks[0].data.as_ref(), [0xff]);
        assert_eq!(v.evidence[0].0.params, r#"{"a":1}"#);
        let again = Vectors::read(v.line().unwrap().as_bytes()).unwrap();
        assert_eq!(again, read);
    }

    #[test]
    fn slips_are_named_with_their_line() {
        for (from, to, word) in [
            ("\"perfect\"", "\"best\"", "best"),
            ("[0.5,1.0]", "[0.5,1.5]", "quality"),
            ("\"units\":3", "\"unit\":3", "unit"),
            ("\"answer\":\"{}\"", "\"answer\":\"{}\",\"unavailable\":\"x\"", "either answer or unavailable"),
            ("/w==", "/w=", "base64"),
        ] {
            let text = format!("\n{}", LINE.replace(from, to));
            let words = Vectors::read(text.as_bytes()).unwrap_err().to_string();
            assert!(words.contains("line 2") && words.contains(word), "{words}");
        }
        assert!(Vectors::read(&[0xff]).is_err());
        let many = format!("{LINE}\n").repeat(MOST_VECTORS + 1);
        assert!(Vectors::read(many.as_bytes()).unwrap_err().to_string().contains("line 257"));
    }
}
