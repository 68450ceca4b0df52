//! Where a registry may send us, and how much it may send.
//!
//! `oci-client` follows redirects to any host and reads answers to their end. Instead of forking it, every
//! connection that it makes goes through this: a proxy on loopback, inside this process, that connects to the hosts
//! that were agreed on and to no other, counts what comes back, and cuts the line past the allowance. TLS goes
//! through it unopened. It knows nothing of registries.
//!
//! A password that is drawn anew for each gate keeps other users of the machine out.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONNECTION, HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::place::split_authority;
use crate::refusal::cut;

/// Connections at once; the client makes one or two.
const MOST_CONNECTIONS: usize = 16;

/// A host that may be talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

impl Peer {
    pub(crate) fn new(authority: &str, tls: bool) -> Self {
        let (host, port) = split_authority(authority, if tls { 443 } else { 80 });
        Self { host, port, tls }
    }
}

/// Why the gate closed. The first reason counts: what follows is its consequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Closed {
    /// A host that was not agreed on.
    Elsewhere(String),
    /// An agreed host, but in the clear.
    InTheClear(String),
    /// More than the allowance.
    TooMuch,
    /// A host that cannot be reached.
    Unreachable(String, String),
}

/// The gate. Dropping it cuts every connection.
pub(crate) struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

struct Shared {
    peers: Vec<Peer>,
    connect: Duration,
    idle: Duration,
    /// Bytes that may still come.
    left: AtomicU64,
    closed: Mutex<Option<Closed>>,
    /// Where a request without the password wanted to go: after a redirect to another host the client leaves it out.
    stray: Mutex<Option<String>>,
    /// What `Proxy-Authorization` must say.
    pass: String,
    secret: String,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shared.tasks.close();
    }
}

impl Gate {
    /// Opens a gate to these hosts.
    pub(crate) async fn open(peers: Vec<Peer>, connect: Duration, idle: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut raw = [0_u8; 24];
        getrandom::fill(&mut raw).map_err(|e| std::io::Error::other(e.to_string()))?;
        let secret = hex::encode(raw);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            peers,
            connect,
            idle,
            left: AtomicU64::new(0),
            closed: Mutex::new(None),
            stray: Mutex::new(None),
            pass: format!("Basic {}", STANDARD.encode(format!("gate:{secret}"))),
            secret,
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        shared.tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, stop })
    }

    /// The proxy's address with its password: for the client alone, never for a log.
    pub(crate) fn url(&self) -> String {
        format!("http://gate:{}@{}", self.shared.secret, self.address)
    }

    /// From now on so many bytes may come; what closed it before is forgotten.
    pub(crate) fn allow(&self, bytes: u64) {
        self.shared.left.store(bytes, Ordering::Relaxed);
        *self.shared.closed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.shared.stray.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Where somebody without the password wanted to go. Only worth something when the client says that the gate
    /// asked it for one.
    pub(crate) fn stray(&self) -> Option<String> {
        self.shared.stray.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why it closed, if it did.
    pub(crate) fn closed(&self) -> Option<Closed> {
        self.shared.closed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn close(&self, why: Closed) {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// Takes from the allowance; false when it is used up.
    fn take(&self, bytes: usize) -> bool {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes as u64));
        if taken.is_err() {
            self.close(Closed::TooMuch);
        }
        taken.is_ok()
    }

    /// The agreed host that is meant, or why there is none.
    fn peer(&self, authority: &str, tls: bool) -> Result<Peer, Closed> {
        let asked = Peer::new(authority, tls);
        if self.peers.contains(&asked) {
            return Ok(asked);
        }
        if !tls && self.peers.iter().any(|peer| peer.tls && peer.host == asked.host) {
            return Err(Closed::InTheClear(cut(authority, 200)));
        }
        Err(Closed::Elsewhere(cut(authority, 200)))
    }

    async fn connect(&self, peer: &Peer) -> Result<TcpStream, Closed> {
        let away = |why: String| Closed::Unreachable(format!("{}:{}", peer.host, peer.port), why);
        match tokio::time::timeout(self.connect, TcpStream::connect((peer.host.as_str(), peer.port))).await {
            Ok(Ok(stream)) => {
                // It is a hint: without it the line is slower and not wrong.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(e)) => Err(away(e.to_string())),
            Err(_) => Err(away(format!("no connection within {} s", self.connect.as_secs_f32()))),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            // Out of files, most likely: not a reason to spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        if !from.ip().is_loopback() {
            continue;
        }
        let inner = Arc::clone(&shared);
        shared.tasks.spawn(async move {
            let _slot = slot;
            let stop = inner.stop.clone();
            let service = service_fn(move |request| {
                let shared = Arc::clone(&inner);
                async move { Ok::<_, Infallible>(answer(request, &shared).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::select! {
                () = stop.cancelled() => {}
                // The client sees for itself that the line broke.
                _ = connection => {}
            }
        });
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Body> {
    let said = request.headers().get(PROXY_AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    if !same(said, shared.pass.as_bytes()) {
        let authority = request.uri().authority().map(|a| cut(a.as_str(), 200));
        *shared.stray.lock().unwrap_or_else(PoisonError::into_inner) = authority;
        return empty(StatusCode::PROXY_AUTHENTICATION_REQUIRED);
    }
    let done = if request.method() == Method::CONNECT {
        tunnel(request, shared).await
    } else {
        forward(request, shared).await
    };
    done.unwrap_or_else(|why| {
        let status = match why {
            Closed::Unreachable(..) => StatusCode::BAD_GATEWAY,
            _ => StatusCode::FORBIDDEN,
        };
        shared.close(why);
        empty(status)
    })
}

/// Compares in a time that does not depend on where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0_u8, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// TLS: bytes go through as they are.
async fn tunnel(request: Request<Incoming>, shared: &Arc<Shared>) -> Result<Response<Body>, Closed> {
    let authority = request.uri().authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
    let peer = shared.peer(&authority, true)?;
    let stream = shared.connect(&peer).await?;
    let inner = Arc::clone(shared);
    shared.tasks.spawn(async move {
        let stop = inner.stop.clone();
        let through = async {
            let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
            let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(upgraded));
            let (mut from_peer, mut to_peer) = stream.into_split();
            let out = async {
                let copied = tokio::io::copy(&mut from_client, &mut to_peer).await;
                // Only says that nothing follows.
                let _ = to_peer.shutdown().await;
                copied.map(|_| ())
            };
            let back = async {
                counted(&mut from_peer, &mut to_client, &inner).await;
                let _ = to_client.shutdown().await;
            };
            tokio::pin!(out);
            // When the peer is done, so are we; when the client is, the peer's last words are still for it.
            tokio::select! {
                () = back => {}
                () = async { let _ = out.await; std::future::pending::<()>().await } => {}
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = through => {}
        }
    });
    Ok(empty(StatusCode::OK))
}

async fn counted(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    shared: &Shared,
) {
    let mut buffer = vec![0_u8; 16 << 10];
    // A line on which nothing moves is cut: the client asks anew if it wants more.
    while let Ok(Ok(n)) = tokio::time::timeout(shared.idle, from.read(&mut buffer)).await {
        let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else { return };
        if !shared.take(n) || to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// Plain HTTP: one request, one connection.
async fn forward(mut request: Request<Incoming>, shared: &Arc<Shared>) -> Result<Response<Body>, Closed> {
    let authority = request.uri().authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
    let peer = shared.peer(&authority, false)?;
    let away = |why: String| Closed::Unreachable(format!("{}:{}", peer.host, peer.port), why);
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    *request.uri_mut() = path.parse::<Uri>().map_err(|e| away(e.to_string()))?;
    let host = HeaderValue::from_str(&authority).map_err(|e| away(e.to_string()))?;
    let headers = request.headers_mut();
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove("proxy-connection");
    headers.insert(HOST, host);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let stream = shared.connect(&peer).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| away(e.to_string()))?;
    let stop = shared.stop.clone();
    shared.tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            // What broke it comes to the body, too.
            _ = connection => {}
        }
    });
    let answered = tokio::time::timeout(shared.idle, sender.send_request(request)).await;
    let response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(e)) => return Err(away(words(&e))),
        Err(_) => return Err(away(format!("no answer within {} s", shared.idle.as_secs_f32()))),
    };
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONNECTION);
    let inner = Arc::clone(shared);
    let counted = body.into_data_stream().map(move |data| {
        let data = data.map_err(|e| std::io::Error::other(words(&e)))?;
        if inner.take(data.len()) {
            Ok(Frame::data(data))
        } else {
            Err(std::io::Error::other("past the allowance"))
        }
    });
    Ok(Response::from_parts(parts, BodyExt::boxed(StreamBody::new(counted))))
}

/// An error with its causes, which hyper keeps apart.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = inner.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_passes_without_the_password() {
        let gate =
            Gate::open(vec![Peer::new("127.0.0.1:1", false)], Duration::from_secs(1), Duration::from_secs(1))
                .await
                .unwrap();
        for head in ["GET http://127.0.0.1:1/ HTTP/1.1", "CONNECT 127.0.0.1:1 HTTP/1.1"] {
            for header in ["", "Proxy-Authorization: Basic Z2F0ZTo=\r\n"] {
                let mut stream = TcpStream::connect(gate.address).await.unwrap();
                stream.write_all(format!("{head}\r\nhost: a\r\n{header}\r\n").as_bytes()).await.unwrap();
                let mut said = [0; 12];
                stream.read_exact(&mut said).await.unwrap();
                assert_eq!(&said, b"HTTP/1.1 407");
            }
        }
        assert_eq!(gate.closed(), None, "a stranger's knocking closes nothing");
    }

    #[test]
    fn a_peer_is_host_port_and_whether_it_is_protected() {
        assert_eq!(Peer::new("R.example", true), Peer { host: "r.example".into(), port: 443, tls: true });
        assert_eq!(Peer::new("[::1]:5000", false), Peer { host: "::1".into(), port: 5000, tls: false });
        assert_ne!(Peer::new("a:443", true), Peer::new("a:443", false));
    }
}
