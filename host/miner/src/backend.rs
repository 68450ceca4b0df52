//! The line between protocol and models: what a request asks for, and what an engine gives.
//!
//! The words are those of `checking`'s executors, so that the honest engine is a thin one; an engine of
//! somebody else's translates into them.

use nineteen_checking::{Embedded, GenerateEnd, GenerateRequest, GeneratedToken};
use nineteen_domain::meet::BoxFuture;
use tokio::sync::mpsc;

use crate::config::Operation;

/// Why an engine gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The request cannot be served by this model: too long for its context, a message that its template
    /// refuses.
    #[error("{0}")]
    BadRequest(String),
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
        model: &str,
        request: GenerateRequest,
        tokens: mpsc::Sender<GeneratedToken>,
    ) -> BoxFuture<'_, Result<GenerateEnd, BackendError>>;

    /// Embeds texts: rows in their order, all of one length, and the tokens of each text.
    fn embed(&self, model: &str, texts: Vec<String>) -> BoxFuture<'_, Result<Embedded, BackendError>>;
}
