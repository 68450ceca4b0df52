//! What went wrong, for the operator (at start) and for the client (OpenAI's error body), apart.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::backend::BackendError;

/// Why a miner does not start.
#[derive(Debug, thiserror::Error)]
pub enum MinerError {
    /// A key of the configuration.
    #[error("miner configuration: {key}: {why}")]
    Config {
        /// Which key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A configured model is not there.
    #[error(
        "task {task}: no model '{model}' for {operation} here: run `cargo xtask setup`, or correct tasks.{task}.model"
    )]
    Model {
        /// Which task.
        task: String,
        /// Its model.
        model: String,
        /// Its operation.
        operation: &'static str,
    },
    /// A model cannot be loaded.
    #[error("the models cannot be loaded: {0}")]
    Executors(String),
    /// The listener broke.
    #[error("cannot accept connections: {0}")]
    Listener(#[from] std::io::Error),
}

impl MinerError {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "miner.config",
            Self::Model { .. } => "miner.model",
            Self::Executors(_) => "miner.executors",
            Self::Listener(_) => "miner.listener",
        }
    }
}

/// An error as a client sees it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    kind: &'static str,
    code: &'static str,
    param: Option<&'static str>,
    message: String,
    retry_after_s: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after_s: None }
    }

    pub(crate) fn unauthorized(e: &nineteen_wire::AuthError) -> Self {
        match e {
            nineteen_wire::AuthError::NotAllowed(_) => {
                Self::new(StatusCode::FORBIDDEN, "permission_error", "not_allowed", e.to_string())
            }
            nineteen_wire::AuthError::Overloaded => Self::rate_limited(e.to_string(), 30),
            _ => Self::new(
                StatusCode::UNAUTHORIZED,
                "authentication_error",
                "invalid_signature",
                e.to_string(),
            ),
        }
    }

    pub(crate) fn bad(param: Option<&'static str>, message: impl Into<String>) -> Self {
        let e = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_value", message);
        Self { param, ..e }
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the body is longer than {limit} bytes, or came too slowly");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "body_too_large", message)
    }

    pub(crate) fn unknown_model(model: &str) -> Self {
        let shown: String = model.chars().take(80).collect();
        let message = format!("the model '{shown}' is not served here");
        let e = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message);
        Self { param: Some("model"), ..e }
    }

    pub(crate) fn unknown_path() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            "not_found",
            "no such endpoint; see docs/protocol.md",
        )
    }

    pub(crate) fn wrong_method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            "method_not_allowed",
            "this endpoint has another method; see docs/protocol.md",
        )
    }

    pub(crate) fn rate_limited(message: impl Into<String>, retry_after_s: u64) -> Self {
        let e = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded", message);
        Self { retry_after_s: Some(retry_after_s.max(1)), ..e }
    }
}

impl From<BackendError> for ApiError {
    fn from(e: BackendError) -> Self {
        match e {
            BackendError::BadRequest(why) => Self::bad(None, why),
            // Avatars answer with it; nobody else looks for faces.
            BackendError::NoFace => Self::bad(Some("image"), e.to_string()),
            BackendError::Busy => Self::rate_limited(e.to_string(), 1),
            BackendError::Failed(why) => {
                // The client learns that it failed; why is the operator's business.
                tracing::error!("the model failed: {why}");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "server_error",
                    "internal_error",
                    "the model failed",
                )
            }
        }
    }
}

impl ApiError {
    pub(crate) fn body(&self) -> serde_json::Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(s) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(s));
        }
        response
    }
}
