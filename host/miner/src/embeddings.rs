//! `POST /v1/embeddings`: vectors of texts, as numbers or as base64 of little-endian f32.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::Operation;
use crate::error::ApiError;
use crate::server::{MinerState, parse};

const MAX_INPUTS: usize = 2048;

#[derive(Deserialize)]
struct EmbeddingsBody {
    model: String,
    input: Input,
    #[serde(default)]
    encoding_format: Encoding,
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

impl Encoding {
    fn write(self, vector: &[f32]) -> Value {
        match self {
            Self::Float => json!(vector),
            Self::Base64 => {
                let raw: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                Value::String(base64::engine::general_purpose::STANDARD.encode(raw))
            }
        }
    }
}

pub(crate) async fn handle(State(state): State<Arc<MinerState>>, body: Bytes) -> Result<Response, ApiError> {
    let body: EmbeddingsBody = parse(&body)?;
    let served = state.task(Operation::Embeddings, &body.model)?;
    let texts = match body.input {
        Input::One(text) => vec![text],
        Input::Many(texts) => texts,
    };
    if !(1..=MAX_INPUTS).contains(&texts.len()) {
        return Err(ApiError::bad(Some("input"), "expected 1 to 2048 texts"));
    }
    if body.dimensions.is_some() {
        return Err(ApiError::bad(Some("dimensions"), "'dimensions' is not served"));
    }
    let place = served.gate.enter().await?;
    let started = Instant::now();
    let embedded = state.backend.embed(&body.model, texts).await?;
    let tokens = embedded.prompt_tokens;
    // The unit of volume is a text, as validators count it.
    place.charge(u32::try_from(embedded.vectors.len()).unwrap_or(u32::MAX));
    if let Some(pace) = served.config.pace_tokens_per_s {
        let after = Duration::try_from_secs_f64(f64::from(tokens) / pace).unwrap_or_default();
        tokio::time::sleep_until(started + after).await;
    }
    let data: Vec<Value> = embedded
        .vectors
        .iter()
        .enumerate()
        .map(|(i, v)| json!({"object": "embedding", "index": i, "embedding": body.encoding_format.write(v)}))
        .collect();
    Ok(Json(json!({
        "object": "list", "data": data, "model": body.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
    .into_response())
}
