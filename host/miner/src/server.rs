//! Sockets, routes, and who may ask: everything before a request reaches a model.
//!
//! The one idea: a request is read whole, under limits, and its signature checked, before a handler sees it;
//! so no handler can forget to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nineteen_domain::{Hotkey, TaskName};
use nineteen_wire::auth::{self, BtAuth, Policy, Scheme};
use nineteen_wire::{Keypair, Parts};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::backend::Backend;
use crate::config::{MinerConfig, Operation, TaskConfig};
use crate::error::{ApiError, MinerError};
use crate::limits::Gate;

/// Until the headers of a request are there, and then until its body is.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// What running requests get to finish when the miner stops.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes of the read buffer, which bounds a request's headers.
const BUFFER: usize = 64 << 10;

/// A task as it is being served.
pub(crate) struct Served {
    pub(crate) config: TaskConfig,
    pub(crate) gate: Arc<Gate>,
}

/// What every handler sees.
pub struct MinerState {
    pub(crate) backend: Arc<dyn Backend>,
    tasks: BTreeMap<TaskName, Served>,
    hotkey: Hotkey,
    scheme: BtAuth,
    max_body_bytes: usize,
    access_log: Option<AccessLog>,
}

impl std::fmt::Debug for MinerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MinerState").field("hotkey", &self.hotkey).finish_non_exhaustive()
    }
}

impl MinerState {
    /// Checks the configuration against the engine.
    ///
    /// # Errors
    /// [`MinerError::Config`], or [`MinerError::Model`] for a model that the engine does not serve.
    pub fn new(
        config: &MinerConfig,
        backend: Arc<dyn Backend>,
        keypair: &Keypair,
    ) -> Result<Arc<Self>, MinerError> {
        config.validate()?;
        let mut tasks = BTreeMap::new();
        for (name, task) in &config.tasks {
            if !backend.serves(task.operation, task.model.as_str()) {
                return Err(MinerError::Model {
                    task: name.to_string(),
                    model: task.model.to_string(),
                    operation: task.operation.as_str(),
                });
            }
            let gate = Arc::new(Gate::new(task));
            tasks.insert(name.clone(), Served { config: task.clone(), gate });
        }
        let policy = Policy { allowed: config.allowed(), ..Policy::default() };
        Ok(Arc::new(Self {
            backend,
            tasks,
            hotkey: keypair.hotkey(),
            scheme: BtAuth::new(policy),
            max_body_bytes: config.max_body_bytes,
            access_log: config.access_log.as_deref().map(AccessLog::open).transpose()?,
        }))
    }

    /// The task that a request of this operation for this model belongs to.
    pub(crate) fn task(&self, operation: Operation, model: &str) -> Result<&Served, ApiError> {
        self.tasks
            .values()
            .find(|t| t.config.operation == operation && t.config.model.as_str() == model)
            .ok_or_else(|| ApiError::unknown_model(model))
    }
}

/// The whole service behind its signature check, to be wrapped or served.
pub fn router(state: Arc<MinerState>) -> Router {
    Router::new()
        .route(nineteen_wire::CAPACITY_PATH, get(capacity))
        .route("/v1/chat/completions", post(crate::chat::handle))
        .route("/v1/embeddings", post(crate::embeddings::handle))
        .route("/v1/images/generations", post(crate::pictures::images))
        .route("/v1/avatars", post(crate::pictures::avatars))
        .fallback(async || ApiError::unknown_path())
        .method_not_allowed_fallback(async || ApiError::wrong_method())
        .layer(middleware::from_fn_with_state(Arc::clone(&state), authenticate))
        .with_state(state)
}

/// Reads the body, checks the signature over exactly what came, and hands both on.
async fn authenticate(State(state): State<Arc<MinerState>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let limit = state.max_body_bytes;
    let collected = tokio::time::timeout(READ_TIMEOUT, Limited::new(body, limit).collect()).await;
    let Ok(Ok(body)) = collected else { return ApiError::too_large(limit).into_response() };
    let body = body.to_bytes();
    let signed = Parts {
        method: parts.method.as_str(),
        path_and_query: parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        body: &body,
        receiver: Some(state.hotkey),
    };
    match state.scheme.verify(&parts.headers, &signed, auth::now_ns()) {
        Ok(signer) => {
            if let Some(log) = &state.access_log {
                log.write(&signer, parts.uri.path(), &body);
            }
            let mut request = Request::from_parts(parts, axum::body::Body::from(body));
            request.extensions_mut().insert(Signer(signer));
            next.run(request).await
        }
        Err(e) => {
            tracing::debug!(code = e.code(), "refused: {e}");
            ApiError::unauthorized(&e).into_response()
        }
    }
}

/// Who signed the request.
#[derive(Debug, Clone, Copy)]
struct Signer(Hotkey);

#[derive(Deserialize)]
struct CapacityQuery {
    period_s: Option<u64>,
}

async fn capacity(
    State(state): State<Arc<MinerState>>,
    Extension(Signer(signer)): Extension<Signer>,
    query: Result<Query<CapacityQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let period_s = match query {
        Ok(Query(q)) => q.period_s.unwrap_or(3600),
        Err(_) => return ApiError::bad(Some("period_s"), "period_s is not a number").into_response(),
    };
    if !(1..=604_800).contains(&period_s) {
        return ApiError::bad(Some("period_s"), "period_s is not 1 to 604800").into_response();
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 604800")]
    let share = period_s as f64 / 3600.0;
    let capacities: BTreeMap<&TaskName, f64> =
        state.tasks.iter().map(|(name, t)| (name, t.config.capacity_per_hour * share)).collect();
    tracing::debug!(validator = %signer, period_s, "announced");
    Json(json!({"protocol": nineteen_wire::PROTOCOL, "period_s": period_s, "capacities": capacities}))
        .into_response()
}

/// Reads a JSON body; what is wrong with it is told.
pub(crate) fn parse<'b, T: Deserialize<'b>>(body: &'b Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| {
        let why: String = e.to_string().chars().take(200).collect();
        ApiError::bad(None, format!("the body is not a request of this endpoint: {why}"))
    })
}

/// Serves until `shutdown`, then lets running requests finish for ten seconds.
///
/// The listener is the caller's, so that a port in use is the caller's clear error.
///
/// # Errors
/// [`MinerError`] if the configuration, the engine and each other do not fit. Once it serves, no client and
/// no accept error ends it.
pub async fn serve(
    config: MinerConfig,
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    keypair: impl Into<Arc<Keypair>>,
    shutdown: CancellationToken,
) -> Result<(), MinerError> {
    let keypair: Arc<Keypair> = keypair.into();
    let app = router(MinerState::new(&config, backend, &keypair)?);
    serve_router(app, listener, config.max_connections, shutdown).await;
    Ok(())
}

/// Serves any router with this miner's socket rules: Nagle off (a stream would stall 40 ms), headers within
/// ten seconds, `max_connections` at once, graceful stop. For wrapped routers.
pub async fn serve_router(
    app: Router,
    listener: TcpListener,
    max_connections: usize,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < max_connections => match accepted {
                Ok((stream, _)) => {
                    // A socket that is gone already fails on its first read.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(connection(stream, app.clone(), shutdown.clone()));
                }
                Err(e) => {
                    // EMFILE and its like pass; spinning on them would not help.
                    tracing::warn!("cannot accept a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!("requests still running after ten seconds were cut");
    }
    connections.shutdown().await;
}

async fn connection(stream: tokio::net::TcpStream, app: Router, shutdown: CancellationToken) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!("a connection ended: {e}");
    }
}
