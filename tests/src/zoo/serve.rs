//! One kind of the zoo as a server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::oracle::{Asker, Written};
use super::{Kind, Plan, REHEARSE, Result, Seen, Task, chat, rows};

struct Zoo {
    kind: &'static Kind,
    oracle: Asker,
    chats: Seen<Written>,
    rows: Seen<Vec<Vec<f32>>>,
}

/// Answers as this kind does, until it is dropped. A relay needs another kind's address.
///
/// # Errors
/// When the listener fails, or the relay has nobody to pass requests on to.
pub async fn serve(
    listener: TcpListener,
    kind: &'static Kind,
    oracle: SocketAddr,
    relay: Option<SocketAddr>,
) -> Result<()> {
    if kind.name == "relay" {
        return pass_on(listener, relay.ok_or("--relay is missing")?).await;
    }
    let zoo = Zoo { kind, oracle: Asker::new(oracle), chats: Seen::default(), rows: Seen::default() };
    let mut router: Router<Arc<Zoo>> = Router::new();
    for path in ["/v1/chat/completions", "/v1/embeddings"] {
        router = router.route(path, post(answer)).route(&format!("{REHEARSE}{path}"), post(rehearse));
    }
    // Tokens leave when they are made, as an honest miner's do.
    let listener = listener.tap_io(|stream| {
        if let Err(e) = stream.set_nodelay(true) {
            eprintln!("TCP_NODELAY: {e}");
        }
    });
    let router: Router = router.with_state(Arc::new(zoo));
    Ok(axum::serve(listener, router).await?)
}

/// Bytes there and back: the other machine cannot tell who asks, nor the asker who answers.
async fn pass_on(listener: TcpListener, to: SocketAddr) -> Result<()> {
    let mut open = JoinSet::new();
    loop {
        let (mut asker, _) = listener.accept().await?;
        open.spawn(async move {
            let mut other = TcpStream::connect(to).await?;
            asker.set_nodelay(true)?;
            other.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut asker, &mut other).await
        });
        while open.try_join_next().is_some() {}
    }
}

impl Zoo {
    async fn plan(&self, body: &[u8]) -> Result<Plan> {
        match self.kind.task {
            Task::Chat => chat::plan(self.kind.name, body, &self.oracle, &self.chats).await,
            Task::Embeddings => rows::plan(self.kind.name, body, &self.oracle, &self.rows).await,
        }
    }
}

async fn rehearse(State(zoo): State<Arc<Zoo>>, body: Bytes) -> Response {
    match zoo.plan(&body).await {
        Ok(_) => StatusCode::OK.into_response(),
        Err(e) => failed(&e.to_string()),
    }
}

async fn answer(State(zoo): State<Arc<Zoo>>, body: Bytes) -> Response {
    match zoo.plan(&body).await {
        Ok(plan) => send(plan),
        Err(e) => failed(&e.to_string()),
    }
}

fn failed(why: &str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, why.to_owned()).into_response()
}

fn send(plan: Plan) -> Response {
    let content_type = if plan.streamed { "text/event-stream" } else { "application/json" };
    let state = (Instant::now(), plan.pieces.into_iter(), plan.forever);
    let pieces = futures_util::stream::unfold(state, |(mut due, mut pieces, forever)| async move {
        let (pause, bytes) = pieces.next().or_else(|| forever.clone())?;
        // From when the last one was due, so that many short pauses do not add up to a longer one.
        due += pause;
        tokio::time::sleep_until(due).await;
        Some((Ok::<_, Infallible>(bytes), (due, pieces, forever)))
    });
    ([(CONTENT_TYPE, content_type)], Body::from_stream(pieces)).into_response()
}
