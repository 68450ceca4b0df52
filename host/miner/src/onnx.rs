//! The honest engine: the same executors that validators check with.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nineteen_checking::{
    CheckingError, EmbeddingModel, Executors, GenerateRequest, GeneratedToken, Prompt, TextModel,
};
use nineteen_domain::check::{Answer, Check, Evidence};
use nineteen_domain::meet::{BoxFuture, Checker};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::backend::{
    Backend, BackendError, ChatEnd, ChatWork, Embedded, Face, Finish, Picture, PictureWork, Token,
};
use crate::config::Operation;

const GENERATE: &str = "image.generate";

/// Serves what the executors serve. Holds handles only: the caller keeps the executors and stops them after
/// the miner.
#[derive(Clone)]
pub struct OnnxBackend {
    texts: BTreeMap<String, TextModel>,
    embeddings: BTreeMap<String, EmbeddingModel>,
    /// Pictures are made as a validator makes them for comparison: by the same checks.
    checker: Arc<dyn Checker>,
    /// Names of pipelines.
    pipelines: Vec<String>,
}

impl std::fmt::Debug for OnnxBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxBackend")
            .field("texts", &self.texts.keys())
            .field("embeddings", &self.embeddings.keys())
            .field("pipelines", &self.pipelines)
            .finish()
    }
}

impl OnnxBackend {
    /// An engine over running executors, with all of their models.
    #[must_use]
    pub fn new(executors: &Executors) -> Self {
        let checker = executors.checker();
        let kinds = checker.kinds();
        let pipelines = kinds.iter().find(|(kind, _)| kind == GENERATE).map(|(_, m)| m.clone());
        let names: Vec<String> = kinds.into_iter().flat_map(|(_, models)| models).collect();
        Self {
            pipelines: pipelines.unwrap_or_default(),
            checker,
            texts: names.iter().filter_map(|n| Some((n.clone(), executors.text(n)?))).collect(),
            embeddings: names.iter().filter_map(|n| Some((n.clone(), executors.embedding(n)?))).collect(),
        }
    }
}

fn translate(e: CheckingError) -> BackendError {
    match e {
        CheckingError::TooLong { .. } | CheckingError::BadParameters(_) | CheckingError::Invalid(_) => {
            BackendError::BadRequest(e.to_string())
        }
        other => BackendError::Failed(other.to_string()),
    }
}

fn missing(model: &str) -> BackendError {
    BackendError::Failed(format!("the model '{model}' is not loaded"))
}

async fn generate(
    model: &TextModel,
    work: ChatWork,
    tokens: mpsc::Sender<Token>,
) -> Result<ChatEnd, BackendError> {
    let request = GenerateRequest {
        prompt: Prompt::Messages(work.messages),
        max_tokens: work.max_tokens,
        sampler: work.sampling,
        logprobs: work.logprobs,
        stop: work.stop,
    };
    // Room for every token on both sides: neither the engine nor this hand-over ever waits for the client.
    let (sender, mut drawn) = mpsc::channel(usize::try_from(work.max_tokens).unwrap_or(1).max(1));
    let hand_over = async move {
        while let Some(GeneratedToken { id, text, logprob, bytes }) = drawn.recv().await {
            if tokens.send(Token { id, text, bytes, logprob }).await.is_err() {
                // Dropping the receiver is what cancels the generation.
                return;
            }
        }
    };
    let (end, ()) = tokio::join!(model.generate(request, sender), hand_over);
    let end = end.map_err(translate)?;
    let finish = match end.finish {
        nineteen_checking::Finish::Stop => Finish::Stop,
        nineteen_checking::Finish::Length => Finish::Length,
        nineteen_checking::Finish::Cancelled => {
            return Err(BackendError::Failed(
                "the generation was cancelled: the executors are stopping".into(),
            ));
        }
    };
    Ok(ChatEnd { finish, prompt_tokens: end.prompt_tokens, completion_tokens: end.completion_tokens })
}

impl Backend for OnnxBackend {
    fn serves(&self, operation: Operation, model: &str) -> bool {
        match operation {
            Operation::Chat => self.texts.contains_key(model),
            Operation::Embeddings => self.embeddings.contains_key(model),
            Operation::Images | Operation::Avatars => self.pipelines.iter().any(|p| p == model),
        }
    }

    fn chat(
        &self,
        work: ChatWork,
        tokens: mpsc::Sender<Token>,
    ) -> BoxFuture<'_, Result<ChatEnd, BackendError>> {
        Box::pin(async move {
            let model = self.texts.get(&work.model).ok_or_else(|| missing(&work.model))?;
            generate(model, work, tokens).await
        })
    }

    fn embed(&self, model: &str, texts: Vec<String>) -> BoxFuture<'_, Result<Embedded, BackendError>> {
        let model = self.embeddings.get(model).ok_or_else(|| missing(model));
        Box::pin(async move {
            let embedded = model?.embed(texts).await.map_err(translate)?;
            let prompt_tokens = embedded.tokens.iter().fold(0_u32, |sum, n| sum.saturating_add(*n));
            Ok(Embedded { vectors: embedded.rows, prompt_tokens })
        })
    }

    fn picture(&self, work: PictureWork) -> BoxFuture<'_, Result<Picture, BackendError>> {
        Box::pin(async move {
            let mut params = json!({
                "version": 1, "prompt": work.prompt, "negative_prompt": work.negative_prompt, "seed": work.seed,
                "steps": work.steps, "guidance": work.guidance, "width": work.width, "height": work.height,
            });
            let mut blobs = Vec::new();
            let mut set = |name: &str, value: Value| {
                if let Some(all) = params.as_object_mut() {
                    all.insert(name.to_owned(), value);
                }
            };
            for (name, value) in [("scheduler", work.scheduler), ("noise", work.noise)] {
                if let Some(value) = value {
                    set(name, value.into());
                }
            }
            if let Some((init, strength)) = work.init {
                set("strength", strength.into());
                blobs.push(init);
            }
            if let Some(face) = work.face {
                set("identity", true.into());
                blobs.push(self.identity(face).await?);
            }
            let made = self.ask(GENERATE, &work.model, &params, blobs).await?;
            let none = || BackendError::Failed("the pipeline gave no picture".into());
            let png = made.blobs.into_iter().next().ok_or_else(none)?;
            let flagged = match work.safety {
                None => false,
                Some(model) => {
                    let said = self
                        .ask("vision.classify", &model, &json!({"version": 1}), vec![png.clone()])
                        .await?;
                    forbidden(&read(&said)?)
                }
            };
            Ok(Picture { png, flagged })
        })
    }
}

#[derive(Deserialize)]
struct Faces {
    faces: Vec<Vec<FoundFace>>,
}

#[derive(Deserialize)]
struct FoundFace {
    landmarks: Value,
}

#[derive(Deserialize)]
struct Classes {
    classes: Vec<String>,
    probabilities: Vec<Vec<f64>>,
}

/// Whether the first picture is rather of another class than the first, which is the safe one.
fn forbidden(classes: &Classes) -> bool {
    let of = classes.probabilities.first();
    of.and_then(|p| p.first()).is_some_and(|safe| classes.classes.len() > 1 && *safe < 0.5)
}

fn read<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, BackendError> {
    serde_json::from_str(&answer.params).map_err(|e| BackendError::Failed(e.to_string()))
}

impl OnnxBackend {
    async fn ask(
        &self,
        kind: &str,
        model: &str,
        params: &Value,
        blobs: Vec<Bytes>,
    ) -> Result<Answer, BackendError> {
        let check =
            Check { kind: kind.to_owned(), model: Some(model.to_owned()), params: params.to_string(), blobs };
        match self.checker.check(check).await {
            Evidence::Answered(answer) => Ok(answer),
            Evidence::Unavailable(why) => Err(match why.strip_prefix("invalid: ") {
                Some(theirs) => BackendError::BadRequest(theirs.to_owned()),
                None => BackendError::Failed(why),
            }),
        }
    }

    /// The vector of the most certain face of a photograph: found, aligned, identified.
    async fn identity(&self, face: Face) -> Result<Bytes, BackendError> {
        let found =
            self.ask("vision.faces", &face.detect, &json!({"version": 1}), vec![face.photo.clone()]).await?;
        let found: Faces = read(&found)?;
        let first = found.faces.into_iter().next().and_then(|of| of.into_iter().next());
        let landmarks = first.ok_or(BackendError::NoFace)?.landmarks;
        let params = json!({"version": 1, "faces": [landmarks]});
        let vector = self.ask("vision.embed", &face.identify, &params, vec![face.photo]).await?;
        let none = || BackendError::Failed("the face has no vector".into());
        vector.blobs.into_iter().next().ok_or_else(none)
    }
}
