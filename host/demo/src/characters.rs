//! Miners that do not play fair, as backends behind the reference miner's own protocol code.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nineteen_checking::{Executors, TextModel};
use nineteen_domain::Digest;
use nineteen_domain::meet::BoxFuture;
use nineteen_miner::{
    Backend, BackendError, ChatEnd, ChatWork, Embedded, Finish, Operation, Picture, PictureWork, Token,
};
use tokio::sync::mpsc;

/// One request in this many fails.
const FLAKY_EVERY: u64 = 4;

/// What a miner of the demo does instead of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Character {
    /// Does the work, and fails now and then.
    Flaky,
    /// Serves int8 models under the names of the fp32 ones.
    Int8,
    /// Sends the same text to everybody, vectors made of hashes, and pictures of a single step.
    Impostor,
}

impl Character {
    /// The folder of weights, among `models`, that it serves under the name of another model.
    #[must_use]
    pub fn stands_in(self, model: &str, models: &Path) -> Option<String> {
        // Of small models that only look at pictures there is none: nobody would save by it.
        let folder = format!("{model}-int8");
        (self == Self::Int8 && models.join(&folder).is_dir()).then_some(folder)
    }

    /// Puts itself between the protocol and the honest backend.
    #[must_use]
    pub fn wrap(self, honest: Arc<dyn Backend>, executors: &Executors) -> Arc<dyn Backend> {
        match self {
            Self::Int8 => honest,
            Self::Flaky => Arc::new(Flaky {
                honest,
                chats: AtomicU64::new(0),
                batches: AtomicU64::new(0),
                pictures: AtomicU64::new(0),
            }),
            Self::Impostor => {
                let text = executors.text("smollm2-135m-instruct");
                Arc::new(Impostor { honest, text })
            }
        }
    }
}

impl fmt::Display for Character {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flaky => "flaky",
            Self::Int8 => "int8",
            Self::Impostor => "impostor",
        })
    }
}

impl FromStr for Character {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        [Self::Flaky, Self::Int8, Self::Impostor]
            .into_iter()
            .find(|c| c.to_string() == s)
            .ok_or_else(|| format!("'{s}' is no character; there are flaky, int8 and impostor"))
    }
}

struct Flaky {
    honest: Arc<dyn Backend>,
    chats: AtomicU64,
    batches: AtomicU64,
    pictures: AtomicU64,
}

fn fails(seen: &AtomicU64) -> Result<(), BackendError> {
    if seen.fetch_add(1, Ordering::Relaxed) % FLAKY_EVERY == FLAKY_EVERY / 2 {
        return Err(BackendError::Failed("out of memory".into()));
    }
    Ok(())
}

impl Backend for Flaky {
    fn serves(&self, operation: Operation, model: &str) -> bool {
        self.honest.serves(operation, model)
    }

    fn chat(
        &self,
        work: ChatWork,
        tokens: mpsc::Sender<Token>,
    ) -> BoxFuture<'_, Result<ChatEnd, BackendError>> {
        Box::pin(async move {
            fails(&self.chats)?;
            self.honest.chat(work, tokens).await
        })
    }

    fn embed(&self, model: &str, texts: Vec<String>) -> BoxFuture<'_, Result<Embedded, BackendError>> {
        let model = model.to_owned();
        Box::pin(async move {
            fails(&self.batches)?;
            self.honest.embed(&model, texts).await
        })
    }

    fn picture(&self, work: PictureWork) -> BoxFuture<'_, Result<Picture, BackendError>> {
        Box::pin(async move {
            fails(&self.pictures)?;
            self.honest.picture(work).await
        })
    }
}

/// Knows the tokenizer, so that its canned text has the right ids, and never runs the model.
struct Impostor {
    honest: Arc<dyn Backend>,
    text: Option<TextModel>,
}

const CANNED: &str = "That is a great question! There are several things to consider here. First, think about what \
    you want to achieve. Second, look at the options that you have. Finally, choose the one that suits you best, and \
    do not hesitate to ask if you need more help with it.";

impl Backend for Impostor {
    fn serves(&self, operation: Operation, model: &str) -> bool {
        self.honest.serves(operation, model)
    }

    fn chat(
        &self,
        work: ChatWork,
        tokens: mpsc::Sender<Token>,
    ) -> BoxFuture<'_, Result<ChatEnd, BackendError>> {
        Box::pin(async move {
            let failed = |e: &dyn fmt::Display| BackendError::Failed(e.to_string());
            let model = self.text.as_ref().ok_or_else(|| failed(&"no tokenizer"))?;
            let messages: Vec<_> = work
                .messages
                .iter()
                .map(|m| nineteen_checking::Message { role: m.role.clone(), content: m.content.clone() })
                .collect();
            let prompt = model.render(&messages).map_err(|e| failed(&e))?.ids.len();
            let mut ids = model.tokenize(CANNED).map_err(|e| failed(&e))?;
            let most = usize::try_from(work.max_tokens).unwrap_or(usize::MAX);
            let finish = if ids.len() < most { Finish::Stop } else { Finish::Length };
            ids.truncate(most);
            if finish == Finish::Stop {
                ids.extend(model.eos_ids().first());
            }
            let sent = ids.len();
            for id in ids {
                let text = if model.eos_ids().contains(&id) { String::new() } else { model.decode(&[id]) };
                let token = Token { id, bytes: text.clone().into_bytes(), text, logprob: Some(-0.1) };
                if tokens.send(token).await.is_err() {
                    break;
                }
            }
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            Ok(ChatEnd { finish, prompt_tokens: count(prompt), completion_tokens: count(sent) })
        })
    }

    fn embed(&self, _model: &str, texts: Vec<String>) -> BoxFuture<'_, Result<Embedded, BackendError>> {
        Box::pin(async move {
            let vectors = texts.iter().map(|t| made_up(t)).collect();
            let words: usize = texts.iter().map(|t| t.split_whitespace().count() + 2).sum();
            Ok(Embedded { vectors, prompt_tokens: u32::try_from(words).unwrap_or(u32::MAX) })
        })
    }

    /// One step instead of as many as were asked for: a picture of the right kind for a tenth of the work.
    fn picture(&self, work: PictureWork) -> BoxFuture<'_, Result<Picture, BackendError>> {
        self.honest.picture(PictureWork { steps: 1, ..work })
    }
}

/// 384 numbers of length 1 that look like a vector and know nothing.
fn made_up(text: &str) -> Vec<f32> {
    let mut seed = *Digest::of(text.as_bytes()).as_bytes();
    let mut out = Vec::with_capacity(384);
    while out.len() < 384 {
        seed = *Digest::of(&seed).as_bytes();
        out.extend(seed.iter().map(|b| (f32::from(*b) - 127.5) / 127.5));
    }
    let norm = out.iter().map(|x| x * x).sum::<f32>().sqrt();
    out.iter_mut().for_each(|x| *x /= norm);
    out
}
