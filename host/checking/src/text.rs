//! The text executor: chats rendered, tokens generated, completions replayed in one prefill.
//!
//! For: the miner (generation) and the checker (replay), through one code path for templates, tokens, samplers
//! and numbers. Not for: HTTP, prompts' contents, verdicts. The one idea: replaying is cheap because all rows
//! come from one pass and only a few numbers a row leave this module.

use std::collections::BTreeMap;
use std::sync::Arc;

use nineteen_domain::id::ModelName;
use ort::session::Session;
use serde::Serialize;
use tokenizers::Tokenizer;
use tokio::sync::{mpsc, oneshot};

use crate::error::CheckingError;
use crate::folder::{self, Folder};
use crate::graph::Graph;
use crate::lane::{Intake, Lane};
use crate::pieces::Pieces;
use crate::runtime::{Provider, one_line};
use crate::sampler::Sampler;
use crate::template::{ChatTemplate, Message};

mod generate;
mod replay;
mod together;

/// The most bytes of text that are rendered or tokenised in one go; no context is filled by so much text.
const MOST_BYTES: usize = 1 << 20;
/// The most completions that are sampled in one batch.
pub const MOST_TOGETHER: usize = 32;

/// A chat as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// As the model's chat template renders it, with the generation prompt.
    pub text: String,
    /// Its ids; no special tokens beyond those of the template.
    pub ids: Vec<u32>,
}

/// What a completion follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Rendered with the model's template.
    Messages(Vec<Message>),
    /// Taken as it is.
    Ids(Vec<u32>),
}

/// Asks for tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// What to continue.
    pub prompt: Prompt,
    /// At least 1; a final end-of-sequence token counts.
    pub max_tokens: u32,
    /// How tokens are drawn.
    pub sampler: Sampler,
    /// Whether each token carries its log-probability.
    pub logprobs: bool,
    /// Texts that end the completion and are not part of it; empty ones are ignored.
    pub stop: Vec<String>,
}

/// One sampled token.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedToken {
    /// Its id.
    pub id: u32,
    /// The text that it completes, valid UTF-8; often empty (special tokens, unfinished characters, text held
    /// back because a stop string may have begun). All pieces together are the completion's text.
    pub text: String,
    /// Under the plain softmax at temperature 1, in nats; `None` where it was not asked for.
    pub logprob: Option<f64>,
    /// The bytes that the token stands for, whatever `text` shows of them.
    pub bytes: Vec<u8>,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// An end-of-sequence token or a stop string.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
    /// The receiver went away, or the executors are stopping.
    Cancelled,
}

/// The end of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerateEnd {
    /// Why.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens sampled, a final end-of-sequence token included.
    pub completion_tokens: u32,
}

/// A completion as a miner returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// Its ids.
    Ids(Vec<u32>),
    /// Its text alone: tokenised here, behind the prompt.
    Text {
        /// What the miner says it said.
        text: String,
        /// Whether the miner says that it ended by itself, so that an end-of-sequence token follows.
        finished: bool,
    },
}

/// Asks what the model makes of a completion.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayRequest {
    /// What was to be continued.
    pub prompt: Prompt,
    /// How it was continued.
    pub completion: Completion,
    /// How tokens are said to have been drawn.
    pub sampler: Sampler,
    /// How many of the likeliest tokens each row lists, 0 to 20.
    pub top: u8,
}

/// What the model makes of a completion; arrays have one entry a token. Serialises as the answer of
/// `text.replay` (`docs/checks.md`).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    /// Of this answer's form.
    pub version: u32,
    /// The model's name.
    pub model: String,
    /// `fp32`, `fp16` or `int8-dynamic`.
    pub precision: String,
    /// What computed it.
    pub provider: Provider,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Whether the ids were made here from the text.
    pub retokenised: bool,
    /// The model's end-of-sequence ids.
    pub eos_ids: Vec<u32>,
    /// The completion's ids.
    pub ids: Vec<u32>,
    /// Decoded without special tokens; an unfinished character at the end is left out.
    pub text: String,
    /// Bytes of `text` that the first `t + 1` tokens complete.
    pub text_ends: Vec<u32>,
    /// Distance in nats from what the sampler draws; empty for the unseeded class. Below 0 only where
    /// `in_support` is false.
    pub margin: Vec<f64>,
    /// How many tokens have a strictly larger logit.
    pub rank: Vec<u32>,
    /// Natural log-probability of the token.
    pub logprob: Vec<f64>,
    /// Of the row, in nats.
    pub entropy: Vec<f64>,
    /// Variance of the information content, in nats².
    pub varentropy: Vec<f64>,
    /// Probability of the end-of-sequence tokens together.
    pub p_eos: Vec<f64>,
    /// Whether the token is in the sampler's support.
    pub in_support: Vec<bool>,
    /// The likeliest tokens with their log-probabilities.
    pub top: Vec<Vec<(u32, f64)>>,
}

/// What the handles and threads of one model share.
pub(crate) struct Shared {
    pub(crate) model: String,
    pub(crate) precision: String,
    pub(crate) provider: Provider,
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
    pub(crate) eos_ids: Vec<u32>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) pieces: Pieces,
    template: ChatTemplate,
}

/// Work for a thread that owns a session.
pub(crate) enum Job {
    Generate(
        GenerateRequest,
        mpsc::Sender<GeneratedToken>,
        oneshot::Sender<Result<GenerateEnd, CheckingError>>,
    ),
    Together(Vec<GenerateRequest>, oneshot::Sender<Result<Vec<Vec<GeneratedToken>>, CheckingError>>),
    Replay(ReplayRequest, oneshot::Sender<Result<Replay, CheckingError>>),
}

/// A handle on a text model that is being served. Cheap to clone.
#[derive(Clone)]
pub struct TextModel {
    pub(crate) shared: Arc<Shared>,
    pub(crate) lane: Arc<Lane<Job>>,
}

impl std::fmt::Debug for TextModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextModel").field("model", &self.shared.model).finish_non_exhaustive()
    }
}

impl TextModel {
    /// The name under which it is served.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.model
    }

    /// Of its weights: `fp32`, `fp16` or `int8-dynamic`.
    #[must_use]
    pub fn precision(&self) -> &str {
        &self.shared.precision
    }

    /// What computes.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.shared.provider
    }

    /// Its end-of-sequence ids.
    #[must_use]
    pub fn eos_ids(&self) -> &[u32] {
        &self.shared.eos_ids
    }

    /// Number of token ids; valid ones are below it.
    #[must_use]
    pub fn vocab(&self) -> usize {
        self.shared.vocabulary
    }

    /// The most tokens of prompt and completion together.
    #[must_use]
    pub fn context(&self) -> usize {
        self.shared.context
    }

    /// Renders a chat with the model's own template, ready for its answer. Takes milliseconds for long chats.
    ///
    /// # Errors
    /// [`CheckingError::BadParameters`] if the template refuses the messages or they are over 1 MiB.
    pub fn render(&self, messages: &[Message]) -> Result<Rendered, CheckingError> {
        self.shared.render(messages, true)
    }

    /// The ids of a text, no special tokens added.
    ///
    /// # Errors
    /// [`CheckingError::BadParameters`] if it is over 1 MiB.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, CheckingError> {
        self.shared.tokenize(text)
    }

    /// The text of ids without special tokens, as a stream of them would show it.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut growing = crate::pieces::Growing::default();
        ids.iter().map(|id| growing.push(&self.shared.pieces, *id)).collect()
    }

    /// Samples tokens and sends each as it is drawn. Dropping the receiver, or this future, cancels between two
    /// tokens. A channel with room for `max_tokens` never makes the executor wait for its reader.
    ///
    /// # Errors
    /// [`CheckingError::TooLong`], [`CheckingError::BadParameters`], or a fault of the model or executors.
    pub async fn generate(
        &self,
        request: GenerateRequest,
        tokens: mpsc::Sender<GeneratedToken>,
    ) -> Result<GenerateEnd, CheckingError> {
        let (reply, answer) = oneshot::channel();
        self.lane.submit(Job::Generate(request, tokens, reply)).await?;
        answer.await.unwrap_or_else(|_| Err(self.shared.lost()))
    }

    /// Samples the tokens of up to [`MOST_TOGETHER`] completions in one batch: each pass reads the weights once for all of
    /// them. Rounding differs from [`TextModel::generate`] as between batches anywhere. Stop strings are not served.
    ///
    /// # Errors
    /// As [`TextModel::generate`]; [`CheckingError::BadParameters`] for more completions.
    pub async fn generate_together(
        &self,
        requests: Vec<GenerateRequest>,
    ) -> Result<Vec<Vec<GeneratedToken>>, CheckingError> {
        let (reply, answer) = oneshot::channel();
        self.lane.submit(Job::Together(requests, reply)).await?;
        answer.await.unwrap_or_else(|_| Err(self.shared.lost()))
    }

    /// What the model makes of a completion: one prefill. Dropping the future gives it up if it has not begun.
    ///
    /// # Errors
    /// [`CheckingError::Invalid`] if the completion cannot be this model's; [`CheckingError::TooLong`],
    /// [`CheckingError::BadParameters`], or a fault of the model or executors.
    pub async fn replay(&self, request: ReplayRequest) -> Result<Replay, CheckingError> {
        let (reply, answer) = oneshot::channel();
        self.lane.submit(Job::Replay(request, reply)).await?;
        answer.await.unwrap_or_else(|_| Err(self.shared.lost()))
    }
}

impl Shared {
    /// Reads the folder's tokenizer and template; the graph's vocabulary is what counts.
    pub(crate) fn load(
        name: &ModelName,
        folder: &Folder,
        provider: Provider,
        eos_ids: &[u32],
        context: usize,
    ) -> Result<Self, CheckingError> {
        let model = name.as_str().to_owned();
        let wrong = |file: &str, why: String| CheckingError::ModelFile { path: folder.path.join(file), why };
        let config = folder::read_json(&folder.path.join("config.json"))?;
        let vocabulary = config
            .get("vocab_size")
            .and_then(serde_json::Value::as_u64)
            .and_then(|v| usize::try_from(v).ok())
            .filter(|v| (1..1 << 24).contains(v))
            .ok_or_else(|| wrong("config.json", "'vocab_size' is missing or absurd".into()))?;
        let (chat, tokens) = chat_template(folder)?;
        let template = ChatTemplate::new(chat, tokens).map_err(|why| wrong("tokenizer_config.json", why))?;
        let mut tokenizer = Tokenizer::from_file(folder.path.join("tokenizer.json"))
            .map_err(|e| wrong("tokenizer.json", one_line(&e.to_string())))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| wrong("tokenizer.json", one_line(&e.to_string())))?;
        let pieces = Pieces::new(&model, &tokenizer, vocabulary)?;
        if eos_ids.is_empty() || eos_ids.iter().any(|id| *id as usize >= vocabulary) {
            return Err(wrong("model.toml", "'eos_ids' is empty or outside the vocabulary".into()));
        }
        Ok(Self {
            model,
            precision: folder.precision.clone(),
            provider,
            vocabulary,
            context,
            eos_ids: eos_ids.to_vec(),
            tokenizer,
            pieces,
            template,
        })
    }

    pub(crate) fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Rendered, CheckingError> {
        within_bytes(messages.iter().map(|m| m.role.len() + m.content.len()).sum())?;
        let text = self.template.render(messages, add_generation_prompt)?;
        let ids = self.tokenize(&text)?;
        Ok(Rendered { text, ids })
    }

    pub(crate) fn tokenize(&self, text: &str) -> Result<Vec<u32>, CheckingError> {
        // A prompt and a completion behind it are tokenised in one piece.
        within_bytes(text.len() / 2)?;
        self.tokenizer.encode_fast(text, false).map(|e| e.get_ids().to_vec()).map_err(|e| {
            CheckingError::BadParameters(format!(
                "the text cannot be tokenised: {}",
                one_line(&e.to_string())
            ))
        })
    }

    /// The prompt's text, where it has one, and its ids.
    fn prompt(&self, prompt: &Prompt) -> Result<(Option<String>, Vec<u32>), CheckingError> {
        let (text, ids) = match prompt {
            Prompt::Messages(messages) => {
                let rendered = self.render(messages, true)?;
                (Some(rendered.text), rendered.ids)
            }
            Prompt::Ids(ids) => (None, ids.clone()),
        };
        if ids.is_empty() {
            return Err(CheckingError::BadParameters("the prompt has no tokens".into()));
        }
        if ids.iter().any(|id| *id as usize >= self.vocabulary) {
            return Err(CheckingError::BadParameters("the prompt has ids outside the vocabulary".into()));
        }
        if ids.len() >= self.context {
            return Err(CheckingError::TooLong { tokens: ids.len(), context: self.context });
        }
        Ok((text, ids))
    }

    fn lost(&self) -> CheckingError {
        CheckingError::Inference {
            model: self.model.clone(),
            why: "the executor gave the job up; its log says why".into(),
        }
    }

    fn not_finite(&self) -> CheckingError {
        CheckingError::NotFinite { model: self.model.clone() }
    }
}

fn within_bytes(bytes: usize) -> Result<(), CheckingError> {
    if bytes > MOST_BYTES {
        return Err(CheckingError::BadParameters(format!(
            "{bytes} bytes of text, at most {MOST_BYTES} are taken"
        )));
    }
    Ok(())
}

/// The template's source and the special tokens that it may use, from Hugging Face's files.
fn chat_template(folder: &Folder) -> Result<(String, BTreeMap<String, String>), CheckingError> {
    let path = folder.path.join("tokenizer_config.json");
    let config = folder::read_json(&path)?;
    let text_of = |v: &serde_json::Value| {
        v.as_str().or_else(|| v.get("content").and_then(|c| c.as_str())).map(str::to_owned)
    };
    let tokens = config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.ends_with("_token"))
        .filter_map(|(key, value)| Some((key.clone(), text_of(value)?)))
        .collect();
    let beside = folder.path.join("chat_template.jinja");
    let source = match config.get("chat_template") {
        Some(serde_json::Value::String(source)) => source.clone(),
        Some(serde_json::Value::Array(named)) => named
            .iter()
            .find(|t| t.get("name").and_then(|n| n.as_str()) == Some("default"))
            .and_then(|t| t.get("template").and_then(|t| t.as_str()))
            .map(str::to_owned)
            .ok_or_else(|| CheckingError::ModelFile {
                path: path.clone(),
                why: "'chat_template' has none called 'default'".into(),
            })?,
        _ if beside.is_file() => folder::read_text(&beside)?,
        _ => {
            return Err(CheckingError::ModelFile { path, why: "it has no 'chat_template'".into() });
        }
    };
    Ok((source, tokens))
}

/// A thread's own: the session and what it reads.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) session: Session,
    pub(crate) intake: Intake<Job>,
}

impl Worker {
    /// Works one job off and answers it. A caller that is gone gets no work done.
    pub(crate) fn run(&mut self, job: Job) {
        match job {
            Job::Generate(request, tokens, reply) => {
                if reply.is_closed() {
                    return;
                }
                let end = if self.intake.stopping() {
                    Err(CheckingError::Stopped)
                } else {
                    self.generate(&request, &tokens, || reply.is_closed())
                };
                // The tokens' channel ends before the answer comes, so that a reader can drain it first.
                drop(tokens);
                let _ = reply.send(end);
            }
            Job::Together(requests, reply) => {
                if reply.is_closed() {
                    return;
                }
                let made = if self.intake.stopping() {
                    Err(CheckingError::Stopped)
                } else {
                    self.generate_together(&requests, || reply.is_closed())
                };
                let _ = reply.send(made);
            }
            Job::Replay(request, reply) => {
                if reply.is_closed() {
                    return;
                }
                let answer =
                    if self.intake.stopping() { Err(CheckingError::Stopped) } else { self.replay(&request) };
                let _ = reply.send(answer);
            }
        }
    }

    /// Refuses, before anything depends on it, a graph whose head keeps only the last row, whose vocabulary is
    /// not the configuration's, or whose numbers are none.
    pub(crate) fn prove(&mut self) -> Result<(), CheckingError> {
        let (graph, shared) = (Arc::clone(&self.graph), Arc::clone(&self.shared));
        let mut past = graph.fresh()?;
        for ids in [&[0, 1, 2][..], &[3, 4]] {
            graph.pass(&mut self.session, ids, &mut past, 2, shared.vocabulary, |logits| {
                if logits.iter().all(|v| v.is_finite()) { Ok(()) } else { Err(shared.not_finite()) }
            })?;
        }
        Ok(())
    }
}
