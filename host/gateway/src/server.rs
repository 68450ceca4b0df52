//! The operator's API: JSON, loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use nineteen_validator::registrar::Registrar;
use nineteen_validator::report::{ReportError, Reports};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::token::Token;
use crate::{metrics, tasks};

/// Bytes of a request: a path and a number.
const MOST_BODY_BYTES: usize = 64 << 10;

/// Why the API does not serve.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address is taken or not ours.
    #[error("cannot listen on {addr}: {source}; choose another with validator.listen")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server stopped.
    #[error("the operator's API stopped: {0}")]
    Serve(std::io::Error),
}

impl GatewayError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "gateway.bind",
            Self::Serve(_) => "gateway.serve",
        }
    }
}

/// Takes the port, before anything else is started: a port in use is said at once.
///
/// # Errors
/// [`GatewayError::Bind`].
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(addr).await.map_err(|source| GatewayError::Bind { addr, source })
}

/// What the API shows, and what it changes.
#[derive(Debug, Clone)]
pub struct Api {
    /// What reads.
    pub reports: Reports,
    /// What changes the tasks.
    pub registrar: Arc<Registrar>,
    /// Whoever changes something has to show it.
    pub token: Arc<Token>,
}

impl FromRef<Api> for Reports {
    fn from_ref(api: &Api) -> Self {
        api.reports.clone()
    }
}

/// Serves until `stop`.
///
/// # Errors
/// [`GatewayError::Serve`].
pub async fn serve(listener: TcpListener, api: Api, stop: CancellationToken) -> Result<(), GatewayError> {
    let app = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(|State(r): State<Reports>| answer(r, |r| r.status())))
        .route("/v1/tasks", get(|State(r): State<Reports>| answer(r, |r| r.tasks())))
        .route("/v1/scores", get(|State(r): State<Reports>| answer(r, |r| r.scores())))
        .route("/v1/weights", get(|State(r): State<Reports>| answer(r, |r| r.weights())))
        .route("/v1/explain", get(explain))
        .merge(tasks::routes())
        .layer(DefaultBodyLimit::max(MOST_BODY_BYTES))
        .with_state(api);
    axum::serve(listener, app)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(GatewayError::Serve)
}

async fn health(State(reports): State<Reports>) -> Response {
    answer(reports, |r| r.status()).await
}

async fn metrics(State(reports): State<Reports>) -> Response {
    match tokio::task::spawn_blocking(move || reports.status()).await {
        Ok(Ok(status)) => {
            ([(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::text(&status))
                .into_response()
        }
        _ => error(StatusCode::SERVICE_UNAVAILABLE, "gateway.metrics", "no numbers now; see the log"),
    }
}

#[derive(serde::Deserialize)]
struct Explain {
    miner: String,
    task: String,
}

async fn explain(State(reports): State<Reports>, Query(q): Query<Explain>) -> Response {
    answer(reports, move |r| r.explain(&q.miner, &q.task)).await
}

/// Runs a report off the reactor, because the store blocks. What the client sees and what the log sees
/// are apart.
pub(crate) async fn answer<T, F>(reports: Reports, make: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce(&Reports) -> Result<T, ReportError> + Send + 'static,
{
    match tokio::task::spawn_blocking(move || make(&reports)).await {
        Ok(Ok(report)) => axum::Json(report).into_response(),
        Ok(Err(e)) => {
            let status = match e {
                ReportError::NotYet(_) => StatusCode::SERVICE_UNAVAILABLE,
                ReportError::Unknown(_) => StatusCode::NOT_FOUND,
                ReportError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            error(status, e.code(), &e.to_string())
        }
        Err(e) => {
            tracing::error!(error = %e, "a report failed");
            error(StatusCode::INTERNAL_SERVER_ERROR, "gateway.internal", "the report failed; see the log")
        }
    }
}

pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, axum::Json(serde_json::json!({"error": {"code": code, "message": message}}))).into_response()
}
