//! The line between protocol and models: what a request asks for, and what an engine gives.
//!
//! Engines of any kind implement it; messages and samplers are the words of `checking`, everything else is
//! only what the protocol needs.

use bytes::Bytes;
pub use nineteen_checking::{Message, Sampler};
use nineteen_domain::meet::BoxFuture;
use tokio::sync::mpsc;

use crate::config::Operation;

/// A chat to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatWork {
    /// Name of the model.
    pub model: String,
    /// At least one.
    pub messages: Vec<Message>,
    /// At least 1; a final end-of-sequence token counts.
    pub max_tokens: u32,
    /// How tokens are drawn; `docs/protocol.md` defines the classes to the bit.
    pub sampling: Sampler,
    /// Whether tokens carry their log-probability.
    pub logprobs: bool,
    /// Texts that end the completion and are not part of it.
    pub stop: Vec<String>,
}

/// One sampled token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Text that it completes, often empty; all pieces together are the completion.
    pub text: String,
    /// The bytes that the token stands for.
    pub bytes: Vec<u8>,
    /// Under the plain softmax at temperature 1, in nats; present if it was asked for.
    pub logprob: Option<f64>,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// End of sequence, or a stop text.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
}

impl Finish {
    /// As replies write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// The end of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatEnd {
    /// Why.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens sampled, the end-of-sequence token included.
    pub completion_tokens: u32,
}

/// Vectors, in the order of the texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// One for each text, all of one length.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts together, as the model reads them.
    pub prompt_tokens: u32,
}

/// A picture to make.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureWork {
    /// Name of the pipeline.
    pub model: String,
    /// What it shall show.
    pub prompt: String,
    /// What it shall not show.
    pub negative_prompt: String,
    /// Of the noise.
    pub seed: u64,
    /// 1 to 150.
    pub steps: u32,
    /// 0 to 50; up to 1 the negative prompt is not looked at.
    pub guidance: f32,
    /// Pixels, a multiple of 8.
    pub width: u32,
    /// Pixels, a multiple of 8.
    pub height: u32,
    /// By the names of `docs/checks.md`; absent, the pipeline's own.
    pub scheduler: Option<String>,
    /// `torch` or `philox`; absent, `torch`.
    pub noise: Option<String>,
    /// The picture to begin from, and how much of the way to go back into noise, in (0, 1].
    pub init: Option<(Bytes, f32)>,
    /// Whose face it shall have.
    pub face: Option<Face>,
    /// The classifier that decides whether it is flagged.
    pub safety: Option<String>,
}

/// A face that an avatar shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Face {
    /// A photograph in a file's bytes.
    pub photo: Bytes,
    /// The model that finds faces.
    pub detect: String,
    /// The model that makes a face's vector.
    pub identify: String,
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// As PNG.
    pub png: Bytes,
    /// Whether the safety model objects: then it is not shown.
    pub flagged: bool,
}

/// Why an engine gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The request cannot be served by this model: too long for its context, a message that its template
    /// refuses.
    #[error("{0}")]
    BadRequest(String),
    /// The photograph shows no face.
    #[error("no face is found in the photograph")]
    NoFace,
    /// The engine is full now.
    #[error("the model is busy")]
    Busy,
    /// The engine failed.
    #[error("the model failed: {0}")]
    Failed(String),
}

/// An engine. Dropping a future gives its work up.
pub trait Backend: Send + Sync {
    /// Whether it serves this model for this operation.
    fn serves(&self, operation: Operation, model: &str) -> bool;

    /// Samples a completion and sends every token as it is drawn. The sender has room for `max_tokens`.
    fn chat(
        &self,
        work: ChatWork,
        tokens: mpsc::Sender<Token>,
    ) -> BoxFuture<'_, Result<ChatEnd, BackendError>>;

    /// Embeds texts.
    fn embed(&self, model: &str, texts: Vec<String>) -> BoxFuture<'_, Result<Embedded, BackendError>>;

    /// Makes a picture.
    fn picture(&self, work: PictureWork) -> BoxFuture<'_, Result<Picture, BackendError>>;
}
