//! The host's check kinds, typed: what `docs/checks.md` says in words.
//!
//! A kind says how it is asked and how its answer is read; [`crate::Cx`] does the rest. A new capability of
//! the host is a new type here, or in the author's own crate: nothing else changes.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::openai::Message;
use crate::types::{Answer, Check};

mod pictures;
mod tensors;

pub use pictures::{
    Classes, Compared, Face, Fault, Features, Generated, ImageFacts, ImageFeatures, ImageGenerate, Landmarks,
    VisionClassify, VisionEmbed, VisionFaces, Warp,
};

pub use tensors::{Dtype, NamedTensor, TensorsRun};

/// A check kind: how it is asked, and how its answer is read.
pub trait Kind {
    /// The typed answer.
    type Answer;
    /// As it crosses the boundary. Equal checks must give equal bytes: this is how answers find back.
    fn check(&self) -> Check;
    /// The typed answer.
    ///
    /// # Errors
    /// What is wrong with it; never the miner's fault.
    fn read(&self, answer: &Answer) -> Result<Self::Answer, String>;
}

fn ask(kind: &str, model: &str, params: &impl Serialize) -> Check {
    // Only maps with keys that are no strings, or a `Serialize` that fails, could make this fail.
    let params = serde_json::to_string(params).unwrap_or_default();
    Check { kind: kind.to_owned(), model: Some(model.to_owned()), params, blobs: Vec::new() }
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, String> {
    serde_json::from_str(&answer.params).map_err(|e| e.to_string())
}

/// Anything but version 1 is refused, never guessed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct V1;

impl Serialize for V1 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for V1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            1 => Ok(Self),
            other => Err(serde::de::Error::custom(format!("version {other} where 1 was asked for"))),
        }
    }
}

/// `text.tokenize`.
#[derive(Debug, Clone, Copy)]
pub struct TextTokenize<'a> {
    /// The model whose tokenizer is used.
    pub model: &'a str,
    /// The text; no special tokens are added.
    pub text: &'a str,
}

/// Token ids.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Tokenized {
    version: V1,
    /// The ids.
    pub ids: Vec<u32>,
}

impl Kind for TextTokenize<'_> {
    type Answer = Tokenized;
    fn check(&self) -> Check {
        #[derive(Serialize)]
        struct Params<'a> {
            version: V1,
            text: &'a str,
        }
        ask("text.tokenize", self.model, &Params { version: V1, text: self.text })
    }
    fn read(&self, answer: &Answer) -> Result<Tokenized, String> {
        read(answer)
    }
}

/// `text.render`.
#[derive(Debug, Clone, Copy)]
pub struct TextRender<'a> {
    /// The model whose chat template is used.
    pub model: &'a str,
    /// The chat.
    pub messages: &'a [Message],
    /// Whether the assistant's turn is opened.
    pub add_generation_prompt: bool,
}

/// A chat as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rendered {
    version: V1,
    /// The text.
    pub text: String,
    /// Its ids.
    pub ids: Vec<u32>,
}

impl Kind for TextRender<'_> {
    type Answer = Rendered;
    fn check(&self) -> Check {
        #[derive(Serialize)]
        struct Params<'a> {
            version: V1,
            messages: &'a [Message],
            add_generation_prompt: bool,
        }
        let params = Params {
            version: V1,
            messages: self.messages,
            add_generation_prompt: self.add_generation_prompt,
        };
        ask("text.render", self.model, &params)
    }
    fn read(&self, answer: &Answer) -> Result<Rendered, String> {
        read(answer)
    }
}

/// How the tokens of a completion were drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "class", rename_all = "lowercase")]
pub enum Sampler {
    /// The most probable token.
    Greedy,
    /// Gumbel-max with counter-based noise: reproducible by the checker.
    Seeded {
        /// 0 to 2^53 - 1.
        seed: u64,
        /// 16 lower-case hex digits.
        request_id: String,
        /// Above 0.
        temperature: f64,
        /// In (0, 1].
        top_p: f64,
        /// 0 is all.
        top_k: u32,
    },
    /// Any draw from the tempered distribution.
    Unseeded {
        /// Above 0.
        temperature: f64,
        /// In (0, 1].
        top_p: f64,
        /// 0 is all.
        top_k: u32,
    },
}

impl Sampler {
    /// `greedy`, `seeded` or `unseeded`.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Seeded { .. } => "seeded",
            Self::Unseeded { .. } => "unseeded",
        }
    }
}

/// What the miner gave of its completion.
#[derive(Debug, Clone, Copy)]
pub enum Completion<'a> {
    /// Token ids, an end-of-sequence token included if one was sampled.
    Ids(&'a [u32]),
    /// Text alone: the checker tokenises it behind the prompt.
    Text {
        /// The text.
        text: &'a str,
        /// Whether an end-of-sequence token followed.
        finished: bool,
    },
}

/// `text.replay`: one prefill over prompt and completion.
#[derive(Debug, Clone, Copy)]
pub struct TextReplay<'a> {
    /// The model that was asked for.
    pub model: &'a str,
    /// The chat.
    pub messages: &'a [Message],
    /// What came back.
    pub completion: Completion<'a>,
    /// How it was drawn.
    pub sampler: &'a Sampler,
    /// Most probable tokens wanted per position, 0 to 20.
    pub top: u8,
}

/// One entry per token of the completion in every list that is not empty.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Replayed {
    version: V1,
    /// Tokens of the rendered prompt.
    pub prompt_tokens: u64,
    /// Whether the ids are the checker's own, from text.
    pub retokenised: bool,
    /// Ids that end a sequence.
    pub eos_ids: Vec<u32>,
    /// The completion's ids.
    pub ids: Vec<u32>,
    /// Their text without special tokens.
    pub text: String,
    /// Bytes of text after each token.
    pub text_ends: Vec<u64>,
    /// Nats; infinite where the executor gives none for this token; empty under `unseeded`.
    #[serde(deserialize_with = "reals")]
    pub margin: Vec<f64>,
    /// 0 is the most probable token.
    #[serde(default)]
    pub rank: Vec<u32>,
    /// Nats.
    #[serde(deserialize_with = "reals")]
    pub logprob: Vec<f64>,
    /// Nats.
    #[serde(deserialize_with = "reals")]
    pub entropy: Vec<f64>,
    /// Nats squared.
    #[serde(default, deserialize_with = "reals")]
    pub varentropy: Vec<f64>,
    /// Whether the token lies within top-k and top-p.
    #[serde(default)]
    pub in_support: Vec<bool>,
}

impl Replayed {
    /// Whether every list has the length it must have.
    ///
    /// # Errors
    /// The list that has not.
    pub fn consistent(&self) -> Result<(), String> {
        let n = self.ids.len();
        let lists = [
            ("text_ends", self.text_ends.len(), false),
            ("margin", self.margin.len(), true),
            ("rank", self.rank.len(), true),
            ("logprob", self.logprob.len(), false),
            ("entropy", self.entropy.len(), false),
            ("varentropy", self.varentropy.len(), true),
            ("in_support", self.in_support.len(), true),
        ];
        match lists.iter().find(|(_, len, may_be_empty)| *len != n && !(*may_be_empty && *len == 0)) {
            Some((name, len, _)) => Err(format!("{name} has {len} entries for {n} tokens")),
            None => Ok(()),
        }
    }
}

/// JSON has no infinity: `null` stands for it.
fn reals<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    struct Reals;
    impl<'de> serde::de::Visitor<'de> for Reals {
        type Value = Vec<f64>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of numbers, or null")
        }
        fn visit_unit<E>(self) -> Result<Vec<f64>, E> {
            Ok(Vec::new())
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<f64>, A::Error> {
            let mut all = Vec::with_capacity(seq.size_hint().unwrap_or(128).min(4096));
            while let Some(x) = seq.next_element::<Option<f64>>()? {
                all.push(x.unwrap_or(f64::INFINITY));
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(Reals)
}

impl Kind for TextReplay<'_> {
    type Answer = Replayed;
    fn check(&self) -> Check {
        #[derive(Serialize)]
        struct Params<'a> {
            version: V1,
            messages: &'a [Message],
            #[serde(skip_serializing_if = "Option::is_none")]
            completion_ids: Option<&'a [u32]>,
            #[serde(skip_serializing_if = "Option::is_none")]
            completion_text: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            finished: Option<bool>,
            sampler: &'a Sampler,
            top: u8,
        }
        let (completion_ids, completion_text, finished) = match self.completion {
            Completion::Ids(ids) => (Some(ids), None, None),
            Completion::Text { text, finished } => (None, Some(text), Some(finished)),
        };
        let params = Params {
            version: V1,
            messages: self.messages,
            completion_ids,
            completion_text,
            finished,
            sampler: self.sampler,
            top: self.top,
        };
        ask("text.replay", self.model, &params)
    }
    fn read(&self, answer: &Answer) -> Result<Replayed, String> {
        let replayed: Replayed = read(answer)?;
        replayed.consistent()?;
        Ok(replayed)
    }
}

/// `embedding.embed`.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingEmbed<'a, S> {
    /// The model that was asked for.
    pub model: &'a str,
    /// 1 to 256 texts.
    pub texts: &'a [S],
}

/// Rows of the same length, one per text.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// The vectors.
    pub rows: Vec<Vec<f32>>,
    /// Tokens of each text as the model read it.
    pub tokens: Vec<u64>,
}

impl<S: AsRef<str>> Kind for EmbeddingEmbed<'_, S> {
    type Answer = Embedded;
    fn check(&self) -> Check {
        #[derive(Serialize)]
        struct Params<'a> {
            version: V1,
            texts: Vec<&'a str>,
        }
        let texts = self.texts.iter().map(AsRef::as_ref).collect();
        ask("embedding.embed", self.model, &Params { version: V1, texts })
    }
    fn read(&self, answer: &Answer) -> Result<Embedded, String> {
        #[derive(Deserialize)]
        struct Given {
            #[expect(dead_code, reason = "read to refuse any other version")]
            version: V1,
            dimension: usize,
            tokens: Vec<u64>,
            #[serde(default, rename = "truncated")]
            _truncated: IgnoredAny,
        }
        let given: Given = read(answer)?;
        let (Some(blob), 1..) = (answer.blobs.first(), given.dimension) else {
            return Err("no rows".to_owned());
        };
        let (words, rest) = blob.as_chunks::<4>();
        if !rest.is_empty() || words.len() != given.dimension.saturating_mul(self.texts.len()) {
            return Err(format!("{} bytes for {} rows", blob.len(), self.texts.len()));
        }
        let rows = words
            .chunks(given.dimension)
            .map(|row| row.iter().map(|word| f32::from_le_bytes(*word)).collect())
            .collect();
        Ok(Embedded { rows, tokens: given.tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_asked_for_as_the_checks_page_says() {
        let messages = [Message::new("user", "hi")];
        let sampler = Sampler::Seeded {
            seed: 42,
            request_id: "00c0ffee00c0ffee".into(),
            temperature: 0.7,
            top_p: 0.95,
            top_k: 50,
        };
        let ids = TextReplay {
            model: "m",
            messages: &messages,
            completion: Completion::Ids(&[1, 2]),
            sampler: &sampler,
            top: 0,
        };
        assert_eq!(
            ids.check().params,
            r#"{"version":1,"messages":[{"role":"user","content":"hi"}],"completion_ids":[1,2],"sampler":{"class":"seeded","seed":42,"request_id":"00c0ffee00c0ffee","temperature":0.7,"top_p":0.95,"top_k":50},"top":0}"#
        );
        let text = TextReplay { completion: Completion::Text { text: "a", finished: true }, ..ids };
        assert!(text.check().params.contains(r#""completion_text":"a","finished":true,"#));
        assert!(!text.check().params.contains("completion_ids"));
        let greedy = serde_json::to_string(&Sampler::Greedy).unwrap();
        assert_eq!(greedy, r#"{"class":"greedy"}"#);
    }

    #[test]
    fn an_answer_of_another_version_or_with_uneven_lists_is_refused() {
        let kind = TextReplay {
            model: "m",
            messages: &[],
            completion: Completion::Ids(&[1]),
            sampler: &Sampler::Greedy,
            top: 0,
        };
        let answer = |version: u8, margin: &str| Answer {
            params: format!(
                r#"{{"version":{version},"model":"m","prompt_tokens":3,"retokenised":false,"eos_ids":[2],"ids":[1],"text":"a","text_ends":[1],"margin":{margin},"rank":[0],"logprob":[-0.5],"entropy":[0.5],"varentropy":[0.1],"p_eos":[0.1],"in_support":[true],"top":[[]]}}"#
            ),
            blobs: vec![],
        };
        assert_eq!(kind.read(&answer(1, "[0.25]")).unwrap().margin, [0.25]);
        assert_eq!(kind.read(&answer(1, "[null]")).unwrap().margin, [f64::INFINITY]);
        assert!(kind.read(&answer(1, "[]")).unwrap().margin.is_empty());
        assert!(kind.read(&answer(1, "[0.1,0.2]")).unwrap_err().contains("margin"));
        assert!(kind.read(&answer(2, "[0.25]")).unwrap_err().contains("version 2"));
    }

    #[test]
    fn rows_come_back_in_order_and_only_when_they_are_whole() {
        let kind = EmbeddingEmbed { model: "e", texts: &["a", "b"] };
        let params = r#"{"version":1,"model":"e","dimension":2,"tokens":[1,1],"truncated":[false,false]}"#;
        let blob: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let answer = |blob: &[u8]| Answer { params: params.into(), blobs: vec![blob.to_vec()] };
        assert_eq!(kind.read(&answer(&blob)).unwrap().rows, [[1.0, 2.0], [3.0, 4.0]]);
        assert!(kind.read(&answer(&blob[..12])).is_err());
        assert!(kind.read(&answer(&blob[..15])).is_err());
        assert!(kind.read(&Answer { params: params.into(), blobs: vec![] }).is_err());
    }
}
