//! The models, for all kinds at once: every question is computed once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use nineteen_checking::{
    Completion, Executors, Finish, GenerateRequest, Message, Prompt, ReplayRequest, Sampler, TextModel,
    request_number,
};
use nineteen_domain::Ending;
use nineteen_wire::Keypair;
use nineteen_wire::client::{Auth, Call, Client, ClientConfig, Target};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, mpsc};

use super::{PATIENT, Result};

/// How tokens are drawn.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Draw {
    pub(crate) class: Class,
    pub(crate) seed: u64,
    pub(crate) request_id: String,
    pub(crate) temperature: f64,
    pub(crate) top_p: f64,
    pub(crate) top_k: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    Greedy,
    Seeded,
    Unseeded,
}

impl Draw {
    fn sampler(&self) -> Result<Sampler> {
        let Self { seed, temperature, top_p, top_k, .. } = *self;
        Ok(match self.class {
            Class::Greedy => Sampler::Greedy,
            Class::Seeded => {
                let request = request_number(&self.request_id)?;
                Sampler::Seeded { seed, request, temperature, top_p, top_k }
            }
            Class::Unseeded => Sampler::Unseeded { temperature, top_p, top_k },
        })
    }
}

/// A token as it goes into a reply.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) id: u32,
    pub(crate) text: String,
    pub(crate) logprob: f64,
}

/// What a model wrote.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) tokens: Vec<Token>,
    /// `stop` or `length`.
    pub(crate) finish: String,
    /// The model's end-of-sequence token.
    pub(crate) eos: u32,
}

#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Write {
        model: String,
        messages: Vec<Message>,
        draw: Draw,
        max_tokens: u32,
    },
    /// The model's log-probabilities of somebody's tokens.
    Evidence {
        model: String,
        messages: Vec<Message>,
        ids: Vec<u32>,
    },
    /// Tokens of a prompt.
    Length {
        model: String,
        messages: Vec<Message>,
    },
    Embed {
        model: String,
        texts: Vec<String>,
    },
}

struct Oracle {
    executors: Arc<Executors>,
    /// By the bytes of the question. A std mutex: held for a look-up.
    known: Mutex<HashMap<Bytes, Arc<OnceCell<Bytes>>>>,
}

/// Answers the zoo's questions at this listener, until it is dropped.
///
/// # Errors
/// When the listener fails.
pub async fn answer(listener: TcpListener, executors: Arc<Executors>) -> std::io::Result<()> {
    let oracle = Arc::new(Oracle { executors, known: Mutex::default() });
    let router: Router = Router::new().route("/", post(asked)).with_state(oracle);
    axum::serve(listener, router).await
}

async fn asked(State(oracle): State<Arc<Oracle>>, question: Bytes) -> Response {
    match oracle.known(question).await {
        Ok(answer) => answer.into_response(),
        Err(e) => (StatusCode::BAD_REQUEST, e.to_string()).into_response(),
    }
}

impl Oracle {
    async fn known(&self, question: Bytes) -> Result<Bytes> {
        let cell = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(question.clone()).or_default())
        };
        cell.get_or_try_init(|| self.compute(&question)).await.cloned()
    }

    fn text(&self, model: &str) -> Result<TextModel> {
        self.executors.text(model).ok_or_else(|| format!("'{model}' is no text model here").into())
    }

    async fn compute(&self, question: &[u8]) -> Result<Bytes> {
        let question: Ask = serde_json::from_slice(question)?;
        let answer = match question {
            Ask::Write { model, messages, draw, max_tokens } => {
                let model = self.text(&model)?;
                serde_json::to_vec(&write(&model, messages, &draw, max_tokens).await?)?
            }
            Ask::Evidence { model, messages, ids } => {
                let (prompt, completion) = (Prompt::Messages(messages), Completion::Ids(ids));
                let request = ReplayRequest { prompt, completion, sampler: Sampler::Greedy, top: 0 };
                serde_json::to_vec(&self.text(&model)?.replay(request).await?.logprob)?
            }
            Ask::Length { model, messages } => {
                serde_json::to_vec(&self.text(&model)?.render(&messages)?.ids.len())?
            }
            Ask::Embed { model, texts } => {
                let found = self.executors.embedding(&model);
                let model = found.ok_or_else(|| format!("'{model}' embeds nothing here"))?;
                serde_json::to_vec(&model.embed(texts).await?.rows)?
            }
        };
        Ok(answer.into())
    }
}

async fn write(model: &TextModel, messages: Vec<Message>, draw: &Draw, max_tokens: u32) -> Result<Written> {
    // Room for every token: nobody reads before the end.
    let (sender, mut drawn) = mpsc::channel(usize::try_from(max_tokens)?.max(1));
    let request = GenerateRequest {
        prompt: Prompt::Messages(messages),
        max_tokens,
        sampler: draw.sampler()?,
        logprobs: true,
        stop: Vec::new(),
    };
    let end = model.generate(request, sender).await?;
    let finish = match end.finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Cancelled => return Err("the generation was cancelled".into()),
    };
    let eos = model.eos_ids().first().copied().unwrap_or_default();
    let mut written = Written { tokens: Vec::new(), finish: finish.to_owned(), eos };
    while let Some(token) = drawn.recv().await {
        // Rounding may put the logarithm of a probability a hair above 0.
        let logprob = token.logprob.unwrap_or_default().min(0.0);
        written.tokens.push(Token { id: token.id, text: token.text, logprob });
    }
    Ok(written)
}

/// The oracle as a kind asks it.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    client: Client,
    oracle: Target,
}

impl Asker {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        let keypair = Arc::new(Keypair::generate());
        let oracle = Target { addr, hotkey: keypair.hotkey() };
        let mut config = ClientConfig::new(keypair);
        config.allow_private = true;
        Self { client: Client::new(config), oracle }
    }

    async fn ask<T: DeserializeOwned>(&self, question: &Ask) -> Result<T> {
        let call = Call {
            method: Method::POST,
            path_and_query: "/".to_owned(),
            content_type: Some("application/json".to_owned()),
            body: serde_json::to_vec(question)?.into(),
            streamed: false,
            auth: Auth::Given(Vec::new()),
        };
        let called = self.client.call(&self.oracle, &call, &PATIENT, &[]).await;
        let exchange = called.map_err(|fault| format!("the oracle was not asked: {fault:?}"))?;
        let body = exchange.body();
        if exchange.status != 200 || exchange.ending != Ending::Complete {
            let words = String::from_utf8_lossy(&body);
            return Err(format!("the oracle: {} {:?} {words}", exchange.status, exchange.ending).into());
        }
        Ok(serde_json::from_slice(&body)?)
    }

    pub(crate) async fn write(
        &self,
        model: &str,
        messages: &[Message],
        draw: &Draw,
        max_tokens: u32,
    ) -> Result<Written> {
        let (model, messages, draw) = (model.to_owned(), messages.to_vec(), draw.clone());
        self.ask(&Ask::Write { model, messages, draw, max_tokens }).await
    }

    pub(crate) async fn evidence(
        &self,
        model: &str,
        messages: &[Message],
        ids: Vec<u32>,
    ) -> Result<Vec<f64>> {
        self.ask(&Ask::Evidence { model: model.to_owned(), messages: messages.to_vec(), ids }).await
    }

    pub(crate) async fn length(&self, model: &str, messages: &[Message]) -> Result<usize> {
        self.ask(&Ask::Length { model: model.to_owned(), messages: messages.to_vec() }).await
    }

    pub(crate) async fn embed(&self, model: &str, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        self.ask(&Ask::Embed { model: model.to_owned(), texts }).await
    }
}
