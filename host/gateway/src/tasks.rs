//! Routes about tasks: what runs and what ran, and the changes.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use nineteen_domain::TaskName;
use nineteen_validator::registrar::{Change, RegistrarError};
use serde::{Deserialize, Serialize};

use crate::server::{Api, answer, error};

/// What a change needs beside the task's name; an empty body is one that needs nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asked {
    /// For `add` and `upgrade`: the task's folder on the validator's machine, as an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// For `add`: what part of the whole it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route(
            "/v1/registry",
            get(|State(api): State<Api>| async move { axum::Json(api.registrar.registered()) }),
        )
        .route(
            "/v1/tasks/events",
            get(|State(api): State<Api>| async move { axum::Json(api.registrar.events()) }),
        )
        .route("/v1/tasks/{name}", get(show))
        .route("/v1/tasks/{name}/{change}", post(change))
        .route("/v1/rollback", post(roll_back))
}

async fn show(State(api): State<Api>, Path(name): Path<String>) -> Response {
    answer(api.reports, move |r| r.task(&name)).await
}

async fn roll_back(State(api): State<Api>, headers: HeaderMap) -> Response {
    perform(api, &headers, Ok(Change::Rollback { task: None })).await
}

async fn change(
    State(api): State<Api>,
    Path((name, verb)): Path<(String, String)>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Response {
    perform(api, &headers, read(&name, &verb, &body)).await
}

fn read(name: &str, verb: &str, body: &[u8]) -> Result<Change, String> {
    let asked: Asked = match body {
        [] => Asked::default(),
        body => serde_json::from_slice(body).map_err(|e| format!("the body: {e}"))?,
    };
    let task = TaskName::new(name).map_err(|e| format!("the task's name: {e}"))?;
    let folder = || {
        let folder =
            asked.folder.clone().ok_or("folder: name the task's folder on the validator's machine")?;
        if folder.is_absolute() { Ok(folder) } else { Err("folder: use an absolute path") }
    };
    let weight = || asked.weight.ok_or("weight: say which part of the whole the task takes");
    Ok(match verb {
        "add" => Change::Add { folder: folder()?, weight: weight()? },
        "upgrade" => Change::Upgrade { folder: folder()? },
        "disable" => Change::Disable { task },
        "enable" => Change::Enable { task },
        "remove" => Change::Remove { task },
        "rollback" => Change::Rollback { task: Some(task) },
        _ => {
            return Err(format!(
                "'{verb}' is no change: use add, upgrade, disable, enable, remove or rollback"
            ));
        }
    })
}

async fn perform(api: Api, headers: &HeaderMap, change: Result<Change, String>) -> Response {
    let shown = headers.get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
    if !shown.is_some_and(|shown| api.token.is(shown)) {
        let why = "changes need `Authorization: Bearer` with the token that lies beside the validator's data";
        return error(StatusCode::UNAUTHORIZED, "gateway.token", why);
    }
    let change = match change {
        Ok(change) => change,
        Err(why) => return error(StatusCode::BAD_REQUEST, "gateway.change", &why),
    };
    match api.registrar.change(change).await {
        Ok(changed) => axum::Json(changed).into_response(),
        Err(e) => {
            let status = match e {
                RegistrarError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
                RegistrarError::Follows(_) => StatusCode::CONFLICT,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            error(status, e.code(), &e.to_string())
        }
    }
}
