//! `POST /v1/images/generations` and `POST /v1/avatars`: pictures as PNG in base64.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::backend::{BackendError, Face, Picture, PictureWork};
use crate::config::{Operation, TaskConfig};
use crate::error::ApiError;
use crate::server::{MinerState, parse};

const MOST_STEPS: u32 = 150;
const MOST_SIDE: u32 = 2048;
/// Pixels of one unit of work: a step over this many.
const PIXELS: u64 = 64 * 64;

#[derive(Deserialize)]
struct PictureBody {
    model: String,
    prompt: String,
    #[serde(default)]
    negative_prompt: String,
    #[serde(default)]
    seed: u64,
    steps: u32,
    guidance: f32,
    width: u32,
    height: u32,
    scheduler: Option<String>,
    noise: Option<String>,
    /// Base64: what an image begins from, or the photograph of an avatar.
    image: Option<String>,
    strength: Option<f32>,
    n: Option<u32>,
    response_format: Option<String>,
}

pub(crate) async fn images(State(state): State<Arc<MinerState>>, body: Bytes) -> Result<Response, ApiError> {
    serve(&state, Operation::Images, parse(&body)?).await
}

pub(crate) async fn avatars(State(state): State<Arc<MinerState>>, body: Bytes) -> Result<Response, ApiError> {
    serve(&state, Operation::Avatars, parse(&body)?).await
}

async fn serve(state: &MinerState, operation: Operation, body: PictureBody) -> Result<Response, ApiError> {
    let served = state.task(operation, &body.model)?;
    let config = &served.config;
    let units = units(&body);
    let work = work(body, config)?;
    let place = served.gate.enter().await?;
    let started = Instant::now();
    let model = work.model.clone();
    let reply = match state.backend.picture(work).await {
        Ok(picture) => picture_reply(&model, &picture),
        // An answer and no failure: whether there is a face is looked at like everything else.
        Err(BackendError::NoFace) => {
            replied(&model, &json!({"b64_json": null, "flagged": false, "no_face": true}))
        }
        Err(e) => return Err(e.into()),
    };
    place.charge(units);
    if let Some(pace) = config.pace_tokens_per_s {
        let after = Duration::try_from_secs_f64(f64::from(units) / pace).unwrap_or_default();
        tokio::time::sleep_until(started + after).await;
    }
    Ok(Json(reply).into_response())
}

/// What a request's body asks an engine for, as the reference miner reads it.
///
/// # Errors
/// Why it is no request, in words.
pub fn picture_work(body: &[u8], config: &TaskConfig) -> Result<PictureWork, String> {
    let body: PictureBody = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    work(body, config).map_err(|e| e.body().to_string())
}

/// A picture as the reference miner answers with it.
#[must_use]
pub fn picture_reply(model: &str, picture: &Picture) -> Value {
    let shown = if picture.flagged { Value::Null } else { Value::String(STANDARD.encode(&picture.png)) };
    replied(model, &json!({"b64_json": shown, "flagged": picture.flagged}))
}

fn replied(model: &str, entry: &Value) -> Value {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    json!({"created": created, "model": model, "data": [entry]})
}

fn work(body: PictureBody, config: &TaskConfig) -> Result<PictureWork, ApiError> {
    check(&body)?;
    let image = match &body.image {
        Some(text) => {
            let bytes = STANDARD.decode(text);
            Some(Bytes::from(bytes.map_err(|_| ApiError::bad(Some("image"), "'image' is no base64"))?))
        }
        None => None,
    };
    let (init, face) = match (config.operation, image, body.strength) {
        (Operation::Avatars, Some(photo), None) => {
            let models = config.detect.as_ref().zip(config.identify.as_ref());
            let (detect, identify) = models.ok_or_else(|| ApiError::unknown_model(&body.model))?;
            (None, Some(Face { photo, detect: detect.to_string(), identify: identify.to_string() }))
        }
        (Operation::Avatars, _, _) => {
            return Err(ApiError::bad(Some("image"), "an avatar takes an 'image' and no 'strength'"));
        }
        (_, None, None) => (None, None),
        (_, Some(image), Some(strength)) => (Some((image, strength)), None),
        _ => return Err(ApiError::bad(Some("strength"), "'image' and 'strength' come together")),
    };
    Ok(PictureWork {
        model: body.model,
        prompt: body.prompt,
        negative_prompt: body.negative_prompt,
        seed: body.seed,
        steps: body.steps,
        guidance: body.guidance,
        width: body.width,
        height: body.height,
        scheduler: body.scheduler,
        noise: body.noise,
        init,
        face,
        safety: config.safety.as_ref().map(ToString::to_string),
    })
}

fn check(body: &PictureBody) -> Result<(), ApiError> {
    if !(1..=MOST_STEPS).contains(&body.steps) {
        return Err(ApiError::bad(Some("steps"), "expected 1 to 150 steps"));
    }
    if !(0.0..=50.0).contains(&body.guidance) {
        return Err(ApiError::bad(Some("guidance"), "expected a guidance of 0 to 50"));
    }
    for (name, side) in [("width", body.width), ("height", body.height)] {
        if side == 0 || side > MOST_SIDE || side % 8 != 0 {
            return Err(ApiError::bad(Some(name), "expected a multiple of 8 up to 2048"));
        }
    }
    if body.n.is_some_and(|n| n != 1) {
        return Err(ApiError::bad(Some("n"), "one picture a request is served"));
    }
    if body.response_format.as_deref().is_some_and(|f| f != "b64_json") {
        return Err(ApiError::bad(Some("response_format"), "only b64_json is served"));
    }
    Ok(())
}

/// Work as validators count it: steps over 64 × 64 pixels, rounded up.
fn units(body: &PictureBody) -> u32 {
    let work = u64::from(body.steps) * u64::from(body.width) * u64::from(body.height);
    u32::try_from(work.div_ceil(PIXELS)).unwrap_or(u32::MAX)
}
