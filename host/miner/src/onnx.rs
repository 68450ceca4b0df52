//! The honest engine: the same executors that validators check with.

use std::sync::Arc;

use nineteen_checking::{
    CheckingError, Embedded, Executors, GenerateEnd, GenerateRequest, GeneratedToken,
};
use nineteen_domain::meet::BoxFuture;
use tokio::sync::mpsc;

use crate::backend::{Backend, BackendError};
use crate::config::Operation;

/// Serves what `Executors` serve. The caller keeps the executors' end: it stops them after the miner.
#[derive(Debug, Clone)]
pub struct OnnxBackend {
    executors: Arc<Executors>,
}

impl OnnxBackend {
    /// An engine over running executors.
    #[must_use]
    pub const fn new(executors: Arc<Executors>) -> Self {
        Self { executors }
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

impl Backend for OnnxBackend {
    fn serves(&self, operation: Operation, model: &str) -> bool {
        match operation {
            Operation::Chat => self.executors.text(model).is_some(),
            Operation::Embeddings => self.executors.embedding(model).is_some(),
        }
    }

    fn chat(
        &self,
        model: &str,
        request: GenerateRequest,
        tokens: mpsc::Sender<GeneratedToken>,
    ) -> BoxFuture<'_, Result<GenerateEnd, BackendError>> {
        let model = self.executors.text(model).ok_or_else(|| missing(model));
        Box::pin(async move { model?.generate(request, tokens).await.map_err(translate) })
    }

    fn embed(&self, model: &str, texts: Vec<String>) -> BoxFuture<'_, Result<Embedded, BackendError>> {
        let model = self.executors.embedding(model).ok_or_else(|| missing(model));
        Box::pin(async move { model?.embed(texts).await.map_err(translate) })
    }
}
