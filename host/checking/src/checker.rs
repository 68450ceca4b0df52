//! Checks in, evidence out: the kinds of `docs/checks.md`.
//!
//! For: reading parameters strictly, asking the right model, writing the answer down. Not for: computing. The one
//! idea: a check is named by its digest. While one is being answered, others that ask exactly the same wait for
//! the same answer instead of computing it again.

mod pictures;
mod tensors;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{Shared, WeakShared};
use nineteen_domain::check::{Answer, Check, Evidence};
use nineteen_domain::id::Digest;
use nineteen_domain::meet::{self, BoxFuture};
use serde::{Deserialize, Serialize};

use crate::embedding::EmbeddingModel;
use crate::error::CheckingError;
use crate::image::ImageModel;
use crate::runtime::{Provider, one_line};
use crate::sampler::Sampler;
use crate::template::Message;
use crate::tensors::TensorModel;
use crate::text::{Completion, Prompt, ReplayRequest, TextModel};
use crate::vision::VisionModel;
use pictures::{FEATURES, GENERATE, VISION};

/// Bytes of parameters that are read at all.
const MOST_PARAMS: usize = 8 << 20;
/// The version of every kind's parameters and answers.
const VERSION: u64 = 1;

const RENDER: &str = "text.render";
const TOKENIZE: &str = "text.tokenize";
const REPLAY: &str = "text.replay";
const EMBED: &str = "embedding.embed";

type Running = Shared<BoxFuture<'static, Evidence>>;
type Waiting = WeakShared<BoxFuture<'static, Evidence>>;

/// Answers checks with the models that are being served.
#[derive(Default)]
pub(crate) struct Checker {
    models: Arc<Models>,
    /// One entry a check under way; dead ones leave with the next check. A plain mutex: held for a look-up.
    running: Mutex<HashMap<Digest, Waiting>>,
}

#[derive(Default)]
pub(crate) struct Models {
    pub(crate) texts: BTreeMap<String, TextModel>,
    pub(crate) embeddings: BTreeMap<String, EmbeddingModel>,
    pub(crate) images: BTreeMap<String, ImageModel>,
    pub(crate) visions: BTreeMap<String, VisionModel>,
    pub(crate) tensors: BTreeMap<String, TensorModel>,
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RenderParams {
    #[serde(rename = "version")]
    _version: u64,
    messages: Vec<Message>,
    #[serde(default = "yes")]
    add_generation_prompt: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenizeParams {
    #[serde(rename = "version")]
    _version: u64,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbedParams {
    #[serde(rename = "version")]
    _version: u64,
    texts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayParams {
    #[serde(rename = "version")]
    _version: u64,
    messages: Vec<Message>,
    completion_ids: Option<Vec<u32>>,
    completion_text: Option<String>,
    finished: Option<bool>,
    sampler: SamplerParams,
    #[serde(default)]
    top: u8,
}

#[derive(Deserialize)]
#[serde(tag = "class", rename_all = "lowercase", deny_unknown_fields)]
enum SamplerParams {
    // With braces: serde lets unknown fields of a tagged unit variant pass.
    Greedy {},
    Seeded { seed: u64, request_id: String, temperature: f64, top_p: f64, top_k: u32 },
    Unseeded { temperature: f64, top_p: f64, top_k: u32 },
}

/// What every answer begins with.
#[derive(Serialize)]
struct Head<'a> {
    version: u64,
    model: &'a str,
    precision: &'a str,
    provider: Provider,
}

#[derive(Serialize)]
struct RenderAnswer<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    text: String,
    ids: Vec<u32>,
}

#[derive(Serialize)]
struct TokenizeAnswer<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    ids: Vec<u32>,
}

#[derive(Serialize)]
struct EmbedAnswer<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    dimension: usize,
    tokens: Vec<u32>,
    truncated: Vec<bool>,
}

impl TryFrom<SamplerParams> for Sampler {
    type Error = CheckingError;

    fn try_from(params: SamplerParams) -> Result<Self, CheckingError> {
        Ok(match params {
            SamplerParams::Greedy {} => Self::Greedy,
            SamplerParams::Seeded { seed, request_id, temperature, top_p, top_k } => {
                Self::Seeded { seed, request: request_number(&request_id)?, temperature, top_p, top_k }
            }
            SamplerParams::Unseeded { temperature, top_p, top_k } => {
                Self::Unseeded { temperature, top_p, top_k }
            }
        })
    }
}

/// The number of a request id of 16 lower-case hex digits, most significant first.
///
/// # Errors
/// [`CheckingError::BadParameters`] for anything else.
pub fn request_number(id: &str) -> Result<u64, CheckingError> {
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if id.len() == 16
        && id.bytes().all(lower_hex)
        && let Ok(number) = u64::from_str_radix(id, 16)
    {
        return Ok(number);
    }
    Err(CheckingError::BadParameters("a request_id has 16 lower-case hex digits".into()))
}

impl Checker {
    pub(crate) fn new(models: Models) -> Self {
        Self { models: Arc::new(models), running: Mutex::default() }
    }

    /// The computation of this check: the one under way, or a new one.
    fn running(&self, check: Check) -> Running {
        let digest = check.digest();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = running.get(&digest).and_then(WeakShared::upgrade) {
            return shared;
        }
        running.retain(|_, waiting| waiting.upgrade().is_some());
        let models = Arc::clone(&self.models);
        let future: BoxFuture<'static, Evidence> = Box::pin(async move {
            match models.answer(check).await {
                Ok(answer) => Evidence::Answered(answer),
                Err(e) => Evidence::Unavailable(e.to_string()),
            }
        });
        let shared = future.shared();
        if let Some(waiting) = shared.downgrade() {
            running.insert(digest, waiting);
        }
        shared
    }
}

impl meet::Checker for Checker {
    fn check(&self, check: Check) -> BoxFuture<'_, Evidence> {
        Box::pin(self.running(check))
    }

    fn kinds(&self) -> Vec<(String, Vec<String>)> {
        let texts: Vec<String> = self.models.texts.keys().cloned().collect();
        let embeddings: Vec<String> = self.models.embeddings.keys().cloned().collect();
        let images: Vec<String> = self.models.images.keys().cloned().collect();
        let seeing = |kind: &str| -> Vec<String> {
            let of = self.models.visions.iter().filter(|(_, m)| m.kind() == kind);
            of.map(|(name, _)| name.clone()).collect()
        };
        let mut kinds = vec![
            (RENDER, texts.clone()),
            (TOKENIZE, texts.clone()),
            (REPLAY, texts),
            (EMBED, embeddings),
            (GENERATE, images),
        ];
        kinds.extend(VISION.map(|kind| (kind, seeing(kind))));
        kinds.push((tensors::RUN, self.models.tensors.keys().cloned().collect()));
        kinds.retain(|(_, models)| !models.is_empty());
        // The one that needs no model.
        kinds.push((FEATURES, Vec::new()));
        kinds.into_iter().map(|(kind, models)| (kind.to_owned(), models)).collect()
    }
}

/// Strictly: the version first, so that a newer form is told apart from a mistake.
fn read<T: for<'de> Deserialize<'de>>(kind: &str, params: &str) -> Result<T, CheckingError> {
    let bad =
        |e: serde_json::Error| CheckingError::BadParameters(format!("{kind}: {}", one_line(&e.to_string())));
    let Versioned { version } = serde_json::from_str(params).map_err(bad)?;
    if version != VERSION {
        return Err(CheckingError::UnknownVersion { kind: kind.to_owned(), version });
    }
    serde_json::from_str(params).map_err(bad)
}

fn write(answer: &impl Serialize, blobs: Vec<Bytes>) -> Result<Answer, CheckingError> {
    let params = serde_json::to_string(answer).map_err(|e| CheckingError::System(e.to_string()))?;
    Ok(Answer { params, blobs })
}

fn text_head(model: &TextModel) -> Head<'_> {
    Head { version: VERSION, model: model.name(), precision: model.precision(), provider: model.provider() }
}

/// Rendering and tokenising take milliseconds of computing: not on the async threads.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CheckingError> + Send + 'static,
) -> Result<T, CheckingError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(CheckingError::System(e.to_string())))
}

impl Models {
    async fn answer(&self, check: Check) -> Result<Answer, CheckingError> {
        if check.params.len() > MOST_PARAMS {
            return Err(CheckingError::BadParameters(format!("{} bytes of parameters", check.params.len())));
        }
        let kind = check.kind.as_str();
        if kind == FEATURES {
            return pictures::features(check).await;
        }
        // These take blobs.
        let of_pictures = kind == GENERATE || kind == tensors::RUN || VISION.contains(&kind);
        if !of_pictures && ![RENDER, TOKENIZE, REPLAY, EMBED].contains(&kind) {
            return Err(CheckingError::BadParameters(format!(
                "no executor answers checks of the kind '{}'",
                cut(kind)
            )));
        }
        if !of_pictures && !check.blobs.is_empty() {
            return Err(CheckingError::BadParameters(format!("{kind} takes no blobs")));
        }
        let name = check
            .model
            .as_deref()
            .ok_or_else(|| CheckingError::BadParameters(format!("{kind} has to name a model")))?;
        let unknown = || CheckingError::UnknownModel { model: cut(name) };
        let text = || self.texts.get(name).cloned().ok_or_else(unknown);
        match kind {
            GENERATE => self.generate(name, &check).await,
            tensors::RUN => self.tensors(name, &check).await,
            of_vision if VISION.contains(&of_vision) => {
                let (kind, name) = (kind.to_owned(), name.to_owned());
                self.see(&kind, &name, check).await
            }
            RENDER => {
                let (model, params): (_, RenderParams) = (text()?, read(kind, &check.params)?);
                let asked = model.clone();
                let rendered =
                    aside(move || asked.shared.render(&params.messages, params.add_generation_prompt))
                        .await?;
                write(
                    &RenderAnswer { head: text_head(&model), text: rendered.text, ids: rendered.ids },
                    Vec::new(),
                )
            }
            TOKENIZE => {
                let (model, params): (_, TokenizeParams) = (text()?, read(kind, &check.params)?);
                let asked = model.clone();
                let ids = aside(move || asked.tokenize(&params.text)).await?;
                write(&TokenizeAnswer { head: text_head(&model), ids }, Vec::new())
            }
            REPLAY => {
                let (model, params): (_, ReplayParams) = (text()?, read(kind, &check.params)?);
                let replay = model.replay(params.try_into()?).await?;
                write(&replay, Vec::new())
            }
            _ => {
                let model = self.embeddings.get(name).cloned().ok_or_else(unknown)?;
                let params: EmbedParams = read(kind, &check.params)?;
                let embedded = model.embed(params.texts).await?;
                let mut blob = Vec::with_capacity(embedded.rows.len() * model.dimension() * 4);
                embedded.rows.iter().flatten().for_each(|v| blob.extend_from_slice(&v.to_le_bytes()));
                let answer = EmbedAnswer {
                    head: Head {
                        version: VERSION,
                        model: model.name(),
                        precision: model.precision(),
                        provider: model.provider(),
                    },
                    dimension: model.dimension(),
                    tokens: embedded.tokens,
                    truncated: embedded.truncated,
                };
                write(&answer, vec![Bytes::from(blob)])
            }
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

impl TryFrom<ReplayParams> for ReplayRequest {
    type Error = CheckingError;

    fn try_from(params: ReplayParams) -> Result<Self, CheckingError> {
        let completion = match (params.completion_ids, params.completion_text, params.finished) {
            (Some(ids), None, None) => Completion::Ids(ids),
            (None, Some(text), Some(finished)) => Completion::Text { text, finished },
            _ => {
                return Err(CheckingError::BadParameters(
                    "text.replay takes either 'completion_ids', or 'completion_text' with 'finished'".into(),
                ));
            }
        };
        Ok(Self {
            prompt: Prompt::Messages(params.messages),
            completion,
            sampler: params.sampler.try_into()?,
            top: params.top,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(params: &str) -> Result<ReplayRequest, CheckingError> {
        read::<ReplayParams>(REPLAY, params)?.try_into()
    }

    #[test]
    fn the_documented_parameters_are_read() {
        let request = replay(
            r#"{"version":1,"messages":[{"role":"user","content":"…"}],"completion_ids":[1,2,3],
                "sampler":{"class":"seeded","seed":42,"request_id":"00c0ffee00c0ffee","temperature":0.7,"top_p":0.95,"top_k":50},
                "top":5}"#,
        )
        .unwrap();
        let request_number = 0x00c0_ffee_00c0_ffee;
        let sampler =
            Sampler::Seeded { seed: 42, request: request_number, temperature: 0.7, top_p: 0.95, top_k: 50 };
        assert_eq!((request.sampler, request.completion), (sampler, Completion::Ids(vec![1, 2, 3])));
    }

    #[test]
    fn unknown_fields_are_refused_wherever_they_stand() {
        for params in [
            r#"{"version":1,"messages":[],"completion_ids":[1],"sampler":{"class":"greedy"},"extra":1}"#,
            r#"{"version":1,"messages":[],"completion_ids":[1],"sampler":{"class":"greedy","seed":1}}"#,
            r#"{"version":1,"messages":[{"role":"user","content":"x","name":"y"}],"completion_ids":[1],"sampler":{"class":"greedy"}}"#,
            r#"{"version":1,"messages":[],"completion_ids":[1],"completion_text":"x","finished":true,"sampler":{"class":"greedy"}}"#,
            r#"{"version":1,"messages":[],"completion_text":"x","sampler":{"class":"greedy"}}"#,
            r#"{"version":1,"messages":[],"completion_ids":[-1],"sampler":{"class":"greedy"}}"#,
            r#"{"version":1,"messages":[],"completion_ids":[1],"sampler":{"class":"beam"}}"#,
            "[]",
            "",
            "{\"version\":1",
        ] {
            let err = replay(params).unwrap_err();
            assert_eq!(err.code(), "checking.parameters", "{params}: {err}");
        }
    }

    #[test]
    fn an_unknown_version_is_said_to_be_one_even_with_unknown_fields() {
        let err = replay(r#"{"version":2,"new":true}"#).unwrap_err();
        assert!(err.to_string().starts_with("unknown version 2"), "{err}");
    }

    #[test]
    fn the_same_check_is_computed_once_while_it_is_under_way() {
        let checker = Checker::default();
        let check = |params: &str| Check {
            kind: EMBED.into(),
            model: Some("m".into()),
            params: params.into(),
            blobs: Vec::new(),
        };
        let (a, b, c) =
            (checker.running(check("1")), checker.running(check("1")), checker.running(check("2")));
        assert!(a.ptr_eq(&b) && !a.ptr_eq(&c));
        drop((a, b));
        drop(checker.running(check("3")));
        let left = checker.running.lock().unwrap().len();
        assert!(left <= 2, "{left} entries are kept of checks that are gone");
    }

    #[test]
    fn request_ids_are_sixteen_lower_case_hex_digits() {
        assert_eq!(request_number("00c0ffee00c0ffee").unwrap(), 0x00c0_ffee_00c0_ffee);
        for bad in ["", "c0ffee", "00C0FFEE00C0FFEE", "+0c0ffee00c0ffee", "00c0ffee00c0ffeé"] {
            assert!(request_number(bad).is_err(), "{bad}");
        }
    }
}
