//! The honest engine: the same executors that validators check with.

use std::collections::BTreeMap;

use nineteen_checking::{
    CheckingError, EmbeddingModel, Executors, GenerateRequest, GeneratedToken, Prompt, TextModel,
};
use nineteen_domain::meet::BoxFuture;
use tokio::sync::mpsc;

use crate::backend::{Backend, BackendError, ChatEnd, ChatWork, Embedded, Finish, Token};
use crate::config::Operation;

/// Serves what the executors serve. Holds handles only: the caller keeps the executors and stops them after
/// the miner.
#[derive(Debug, Clone)]
pub struct OnnxBackend {
    texts: BTreeMap<String, TextModel>,
    embeddings: BTreeMap<String, EmbeddingModel>,
}

impl OnnxBackend {
    /// An engine over running executors, with all of their models.
    #[must_use]
    pub fn new(executors: &Executors) -> Self {
        let names: Vec<String> =
            executors.checker().kinds().into_iter().flat_map(|(_, models)| models).collect();
        Self {
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
}
