//! One signed request to one miner, and its reply under hard limits.
//!
//! Not for retries, queues or pools: each call is one attempt. **A fresh connection per request**, on purpose:
//! a kept-alive one that the miner closed a moment ago would look like the miner's failure, and which
//! requests share a connection would tell synthetic traffic from organic. It costs a handshake, and no score,
//! because time counts from the last byte of the request.
//!
//! Synthetic and organic requests take this same path with the same headers in the same order (invariant 5).
//!
//! The one idea: the connection is driven *inside* the caller's future. Dropping the future closes the
//! socket, nothing is spawned, and between two reads of the socket nobody else can move a stamp.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use nineteen_domain::ledger::{OursFault, ProbeClass};
use nineteen_domain::task::ReplyLimits;
use nineteen_domain::{Ending, Exchange, Hotkey, Phase, Request};
use tokio::net::TcpSocket;

use crate::address;
use crate::announce::{AnnounceFault, Announcement};
use crate::auth::{BtAuth, Parts, Scheme};
use crate::keys::Keypair;
use crate::reader::{HEAD_SLACK, Reader, us};
use crate::stamp::Stamped;

/// Read buffer: the most that one chunk holds.
const BUFFER: usize = 64 << 10;
/// The most headers of a reply.
const MAX_HEADERS: usize = 100;

/// Limits on the reply to a capacity request.
pub const ANNOUNCEMENT_LIMITS: ReplyLimits = ReplyLimits {
    connect_ms: 2_000,
    first_byte_ms: 3_000,
    idle_ms: 2_000,
    total_ms: 5_000,
    body_bytes: 64 << 10,
    chunks: 256,
    event_bytes: 64 << 10,
    header_bytes: 16 << 10,
};

/// How a client signs and where it may connect.
#[derive(Clone)]
pub struct ClientConfig {
    /// Signs every request.
    pub keypair: Arc<Keypair>,
    /// How.
    pub scheme: Arc<dyn Scheme>,
    /// Laboratory subnets only: also connect to loopback, private and unique-local addresses.
    pub allow_private: bool,
    /// Ports that are never connected to.
    pub denied_ports: Vec<u16>,
    /// Addresses that are never connected to, e.g. our own public ones.
    pub denied_addresses: Vec<IpAddr>,
}

impl ClientConfig {
    /// `btauth/1`, public addresses only.
    #[must_use]
    pub fn new(keypair: Arc<Keypair>) -> Self {
        Self {
            keypair,
            scheme: Arc::new(BtAuth::default()),
            allow_private: false,
            denied_ports: address::DENIED_PORTS.to_vec(),
            denied_addresses: Vec::new(),
        }
    }
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("keypair", &self.keypair)
            .field("scheme", &self.scheme.name())
            .field("allow_private", &self.allow_private)
            .finish_non_exhaustive()
    }
}

/// Where a miner is and who it has to be: requests are signed for this receiver alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Literal address, as the metagraph has it.
    pub addr: SocketAddr,
    /// The miner's hotkey.
    pub hotkey: Hotkey,
}

/// How a call proves who sent it.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Signed for the target with a fresh nonce.
    Sign,
    /// These headers, as they are. For checking that a miner refuses what it has to refuse.
    Given(Vec<(HeaderName, HeaderValue)>),
}

/// One HTTP request in full. [`Client::try_post`] makes one of a [`Request`].
#[derive(Debug, Clone)]
pub struct Call {
    /// GET or POST.
    pub method: Method,
    /// Path and query, exactly as sent and signed.
    pub path_and_query: String,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
    /// Whether the reply is read as a stream of events.
    pub streamed: bool,
    /// Signed, or not as it should be.
    pub auth: Auth,
}

/// Sends signed requests. Cheap to clone; holds no connection.
#[derive(Debug, Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    /// A client; says aloud when it may reach private addresses.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        if config.allow_private {
            tracing::warn!("private addresses of miners are allowed: for laboratory subnets only");
        }
        Self { config: Arc::new(config) }
    }

    /// Who signs.
    #[must_use]
    pub fn hotkey(&self) -> Hotkey {
        self.config.keypair.hotkey()
    }

    /// Sends one request and reads the reply. Everything that the miner does or fails to do is in the
    /// exchange. A fault of ours (see [`Client::try_post`]) shows as [`Ending::Refused`]: callers that keep
    /// a ledger use `try_post`, so that it is not booked as the miner's.
    ///
    /// Dropping the future closes the connection at once.
    pub async fn post(
        &self,
        target: &Target,
        request: &Request,
        limits: &ReplyLimits,
        listed_headers: &[String],
    ) -> Exchange {
        self.try_post(target, request, limits, listed_headers)
            .await
            .unwrap_or_else(|_| Exchange::without_reply(Ending::Refused, 0))
    }

    /// [`Client::post`], with faults of ours apart.
    ///
    /// # Errors
    /// [`OursFault::Host`] if this machine could not even try: no file descriptors, ports or memory left, or
    /// the request is none that HTTP can carry. Nothing of it reached the miner.
    pub async fn try_post(
        &self,
        target: &Target,
        request: &Request,
        limits: &ReplyLimits,
        listed_headers: &[String],
    ) -> Result<Exchange, OursFault> {
        let call = Call {
            method: Method::POST,
            path_and_query: request.path.clone(),
            content_type: Some(request.content_type.clone()),
            body: request.body.clone(),
            streamed: request.streamed,
            auth: Auth::Sign,
        };
        self.call(target, &call, limits, listed_headers).await
    }

    /// Asks what the miner announces to us for periods of `period_s` seconds. Bounded by
    /// [`ANNOUNCEMENT_LIMITS`]: five seconds and 64 KiB.
    ///
    /// # Errors
    /// [`AnnounceFault`]; a fault of ours is `Transport(ProbeClass::Ours(..))`.
    pub async fn capacity(&self, target: &Target, period_s: u64) -> Result<Announcement, AnnounceFault> {
        let call = Call {
            method: Method::GET,
            path_and_query: format!("{}?period_s={period_s}", crate::CAPACITY_PATH),
            content_type: None,
            body: Bytes::new(),
            streamed: false,
            auth: Auth::Sign,
        };
        match self.call(target, &call, &ANNOUNCEMENT_LIMITS, &[]).await {
            Ok(exchange) => Announcement::read(&exchange, period_s),
            Err(fault) => Err(AnnounceFault::Transport(ProbeClass::Ours(fault))),
        }
    }

    /// Sends any call; what the other methods are made of.
    ///
    /// # Errors
    /// As [`Client::try_post`].
    pub async fn call(
        &self,
        target: &Target,
        call: &Call,
        limits: &ReplyLimits,
        listed_headers: &[String],
    ) -> Result<Exchange, OursFault> {
        let c = &self.config;
        if let Err(why) =
            address::permitted(target.addr, c.allow_private, &c.denied_ports, &c.denied_addresses)
        {
            tracing::warn!(miner = %target.hotkey, "not connected: {why}");
            return Ok(Exchange::without_reply(Ending::Refused, 0));
        }
        let started = std::time::Instant::now();
        let socket = match target.addr {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }
        .map_err(|e| ours(&e))?;
        let connected =
            tokio::time::timeout(Duration::from_millis(limits.connect_ms), socket.connect(target.addr)).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) if is_ours(&e) => return Err(ours(&e)),
            Ok(Err(_)) => return Ok(Exchange::without_reply(Ending::Refused, us(started.elapsed()))),
            Err(_) => {
                let ending = Ending::Timeout(Phase::Connect);
                return Ok(Exchange::without_reply(ending, us(started.elapsed())));
            }
        };
        // Without it the last piece of a request may wait for an acknowledgement: 40 ms of nothing.
        if stream.set_nodelay(true).is_err() {
            return Ok(Exchange::without_reply(Ending::Disconnected, us(started.elapsed())));
        }
        // Signed only now, so that a slow handshake does not age the nonce.
        let request = self.request(target, call).ok_or(OursFault::Host)?;
        let (stream, marks) = Stamped::new(stream, limits.header_bytes.saturating_add(HEAD_SLACK));
        let header_bytes = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(header_bytes)
            .max_buf_size(header_bytes.clamp(BUFFER, 1 << 20))
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|_| OursFault::Host)?;
        let mut reader = Reader { connection: Some(connection), marks, limits };
        let head = reader.until(pin!(sender.send_request(request)), None).await;
        Ok(match head {
            Err(phase) => reader.no_reply(Ending::Timeout(phase)),
            Ok(Err(e)) => {
                let ending = reader.ending_of(&e);
                reader.no_reply(ending)
            }
            Ok(Ok(reply)) => reader.body(reply, call.streamed, listed_headers).await,
        })
    }

    fn request(&self, target: &Target, call: &Call) -> Option<http::Request<Full<Bytes>>> {
        let accept = if call.streamed { "text/event-stream" } else { "application/json" };
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(HOST, HeaderValue::from_str(&target.addr.to_string()).ok()?);
        if let Some(content_type) = &call.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).ok()?);
            headers.insert(CONTENT_LENGTH, HeaderValue::from(call.body.len()));
        }
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(crate::PROTOCOL));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let auth = match &call.auth {
            Auth::Given(headers) => headers.clone(),
            Auth::Sign => self.config.scheme.sign(
                &self.config.keypair,
                &Parts {
                    method: call.method.as_str(),
                    path_and_query: &call.path_and_query,
                    body: &call.body,
                    receiver: Some(target.hotkey),
                },
            ),
        };
        headers.extend(auth);
        let mut request = http::Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path_and_query.parse().ok()?;
        *request.headers_mut() = headers;
        Some(request)
    }
}

/// No descriptors, ports or memory left on this machine: EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL.
/// An unreachable network stays the miner's: it chose the address.
fn is_ours(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(24 | 23 | 105 | 12 | 99))
}

fn ours(e: &io::Error) -> OursFault {
    tracing::error!("cannot open a socket: {e}; raise the limit of open files or send less at once");
    OursFault::Host
}
