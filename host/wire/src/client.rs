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

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use nineteen_domain::ledger::{OursFault, ProbeClass};
use nineteen_domain::task::ReplyLimits;
use nineteen_domain::{Chunk, Ending, Exchange, Hotkey, Phase, Request};
use tokio::net::TcpSocket;

use crate::address;
use crate::announce::{AnnounceFault, Announcement};
use crate::auth::{BtAuth, Parts, Scheme};
use crate::keys::Keypair;
use crate::sse::Events;
use crate::stamp::{Marks, Stamped};

/// Bytes of an error's body that are read; no honest error is longer.
const ERROR_BODY: u64 = 64 << 10;
/// Raw bytes beyond the headers that may arrive before the final status line (100s, the start of the body).
const HEAD_SLACK: u64 = 64 << 10;
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

type Connection = hyper::client::conn::http1::Connection<TokioIo<Stamped>, Full<Bytes>>;

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

fn us(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
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

/// Reads one reply.
struct Reader<'l> {
    connection: Option<Connection>,
    marks: Arc<Marks>,
    limits: &'l ReplyLimits,
}

/// Polls `future`, and the connection that it depends on, in one task.
async fn drive<F: Future>(connection: &mut Option<Connection>, mut future: Pin<&mut F>) -> F::Output {
    std::future::poll_fn(|cx| {
        // What has arrived is taken before the socket is read again: the marks are still those of its read.
        if let Poll::Ready(done) = future.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        if let Some(c) = connection {
            // Its error reaches the future too, with the cause.
            if Pin::new(c).poll(cx).is_ready() {
                *connection = None;
            }
        }
        future.as_mut().poll(cx)
    })
    .await
}

impl Reader<'_> {
    /// The end of the request on the connection's clock. A miner that will not take the request gains no
    /// time by that: past `first_byte_ms` the clock runs anyway.
    fn origin_us(&self) -> u64 {
        self.marks.written_us().min(self.limits.first_byte_ms.saturating_mul(1000))
    }

    fn deadline(&self, progress: Option<u64>) -> (u64, Phase) {
        let l = self.limits;
        let total = self.origin_us().saturating_add(l.total_ms.saturating_mul(1000));
        let (next, phase) = match progress {
            None => (self.origin_us().saturating_add(l.first_byte_ms.saturating_mul(1000)), Phase::FirstByte),
            Some(at) => (at.saturating_add(l.idle_ms.saturating_mul(1000)), Phase::Idle),
        };
        if total <= next { (total, Phase::Total) } else { (next, phase) }
    }

    fn now_us(&self) -> u64 {
        us(self.marks.base().elapsed())
    }

    /// Drives the future until the deadline, which moves while the request is still being written.
    async fn until<F: Future>(
        &mut self,
        mut future: Pin<&mut F>,
        progress: Option<u64>,
    ) -> Result<F::Output, Phase> {
        loop {
            let (at_us, phase) = self.deadline(progress);
            let at = self.marks.base() + Duration::from_micros(at_us);
            let driven = drive(&mut self.connection, future.as_mut());
            if let Ok(done) = tokio::time::timeout_at(at.into(), driven).await {
                return Ok(done);
            }
            if self.now_us() >= self.deadline(progress).0 {
                return Err(phase);
            }
        }
    }

    fn ending_of(&self, e: &hyper::Error) -> Ending {
        if self.marks.is_over() || e.is_parse_too_large() {
            Ending::TooLarge
        } else if e.is_parse() {
            Ending::Refused
        } else {
            Ending::Disconnected
        }
    }

    fn no_reply(&self, ending: Ending) -> Exchange {
        Exchange::without_reply(ending, self.now_us().saturating_sub(self.origin_us()))
    }

    async fn body(
        &mut self,
        reply: http::Response<Incoming>,
        streamed: bool,
        listed: &[String],
    ) -> Exchange {
        let (head, mut body) = reply.into_parts();
        let status = head.status.as_u16();
        let mut chunks = Chunks::new(self.limits, status, streamed);
        let (ending, ended_us) = if let Some(refused) = refusal(&head.headers, &body, chunks.cap) {
            (refused, self.marks.read_us())
        } else {
            // From here on the miner may send its body with the worst framing there is: one byte a chunk.
            let raw = chunks.cap.saturating_mul(8).saturating_add(HEAD_SLACK);
            self.marks.set_limit(self.marks.read_bytes().saturating_add(raw));
            self.fill(&mut body, &mut chunks).await
        };
        let headers = listed
            .iter()
            .filter_map(|name| {
                let value = head.headers.get(name.as_str())?;
                Some((name.to_ascii_lowercase(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            })
            .collect();
        let origin = self.origin_us();
        Exchange {
            status,
            headers,
            chunks: chunks.finish(origin),
            ended_us: ended_us.saturating_sub(origin),
            ending,
        }
    }

    /// Reads to the end of the body or of patience: how it ended, and when on the connection's clock.
    async fn fill(&mut self, body: &mut Incoming, chunks: &mut Chunks) -> (Ending, u64) {
        let mut progress = None;
        loop {
            match self.until(pin!(body.frame()), progress).await {
                Err(phase) => return (Ending::Timeout(phase), self.now_us()),
                Ok(None) => return (Ending::Complete, self.marks.read_us()),
                Ok(Some(Err(e))) => return (self.ending_of(&e), self.marks.read_us()),
                Ok(Some(Ok(frame))) => {
                    let at_us = self.marks.read_us();
                    let Ok(data) = frame.into_data() else { continue };
                    // A body that is always ready never lets the timer speak, so the stamp does.
                    let (deadline, phase) = self.deadline(progress);
                    if at_us > deadline {
                        return (Ending::Timeout(phase), at_us);
                    }
                    match chunks.push(self.marks.reads(), at_us, &data) {
                        Err(TooLarge) => return (Ending::TooLarge, at_us),
                        Ok(true) => progress = Some(at_us),
                        // The first byte ends its phase, whatever it is part of.
                        Ok(false) => progress = progress.or(Some(at_us)),
                    }
                }
            }
        }
    }
}

/// Why a body is not even read.
fn refusal(headers: &HeaderMap, body: &Incoming, cap: u64) -> Option<Ending> {
    let is = |value: &HeaderValue, plain: &str| value.as_bytes().trim_ascii().eq_ignore_ascii_case(plain.as_bytes());
    // We asked for identity: anything else is a bomb, or a proxy that will also break streams.
    let coded = headers.get_all(CONTENT_ENCODING).iter().any(|v| !is(v, "identity"))
        || headers.get_all(TRANSFER_ENCODING).iter().any(|v| !is(v, "chunked"));
    if coded {
        return Some(Ending::Refused);
    }
    (body.size_hint().lower() > cap).then_some(Ending::TooLarge)
}

struct TooLarge;

/// The body as the socket gave it. What one read brought is one chunk, however HTTP framed it.
struct Chunks {
    done: Vec<Chunk>,
    open: BytesMut,
    open_at_us: u64,
    open_read: u64,
    bytes: u64,
    cap: u64,
    max_chunks: usize,
    max_event: u64,
    events: Option<Events>,
}

impl Chunks {
    fn new(limits: &ReplyLimits, status: u16, streamed: bool) -> Self {
        Self {
            done: Vec::new(),
            open: BytesMut::new(),
            open_at_us: 0,
            open_read: 0,
            bytes: 0,
            cap: if status == 200 { limits.body_bytes } else { limits.body_bytes.min(ERROR_BODY) },
            max_chunks: usize::try_from(limits.chunks).unwrap_or(usize::MAX),
            max_event: limits.event_bytes,
            // An error is JSON also where a stream was asked for.
            events: (streamed && status == 200).then(Events::default),
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.done.push(Chunk { at_us: self.open_at_us, data: self.open.split().freeze() });
        }
    }

    /// Takes what a read brought; whether it is progress.
    fn push(&mut self, read: u64, at_us: u64, data: &[u8]) -> Result<bool, TooLarge> {
        if data.is_empty() {
            return Ok(false);
        }
        if read != self.open_read {
            self.close();
            if self.done.len() >= self.max_chunks {
                return Err(TooLarge);
            }
            (self.open_read, self.open_at_us) = (read, at_us);
        }
        let room = usize::try_from(self.cap.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let kept = data.get(..room).unwrap_or(data);
        self.open.extend_from_slice(kept);
        self.bytes = self.bytes.saturating_add(kept.len() as u64);
        if kept.len() < data.len() {
            return Err(TooLarge);
        }
        let Some(events) = &mut self.events else { return Ok(true) };
        let before = events.complete();
        if events.feed(data) > self.max_event {
            return Err(TooLarge);
        }
        Ok(events.complete() > before)
    }

    /// The chunks, stamped from `origin_us` on.
    fn finish(mut self, origin_us: u64) -> Vec<Chunk> {
        self.close();
        for chunk in &mut self.done {
            chunk.at_us = chunk.at_us.saturating_sub(origin_us);
        }
        self.done
    }
}
