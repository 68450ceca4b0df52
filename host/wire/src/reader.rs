//! Reads one reply, to its end or to ours.
//!
//! Not for connecting or signing. The one idea: every wait has a deadline, every count has a limit, and what
//! ends first ends the exchange; there is no way to the end that is not one of [`Ending`]'s.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{CONTENT_ENCODING, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use nineteen_domain::task::ReplyLimits;
use nineteen_domain::{Chunk, Ending, Exchange, Phase};

use crate::sse::Events;
use crate::stamp::{Marks, Stamped};

pub(crate) type Connection = hyper::client::conn::http1::Connection<TokioIo<Stamped>, Full<bytes::Bytes>>;

/// Raw bytes beyond the headers that may arrive before the final status line (100s, the start of the body).
pub(crate) const HEAD_SLACK: u64 = 64 << 10;
/// Bytes of an error's body that are read; no honest error is longer.
const ERROR_BODY: u64 = 64 << 10;
/// Reads one reply.
pub(crate) struct Reader<'l> {
    pub(crate) connection: Option<Connection>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) limits: &'l ReplyLimits,
}

pub(crate) fn us(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
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

    fn total_us(&self) -> u64 {
        self.origin_us().saturating_add(self.limits.total_ms.saturating_mul(1000))
    }

    fn deadline(&self, progress: Option<u64>) -> (u64, Phase) {
        let (l, total) = (self.limits, self.total_us());
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
    pub(crate) async fn until<F: Future>(
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

    pub(crate) fn ending_of(&self, e: &hyper::Error) -> Ending {
        if self.marks.is_over() || e.is_parse_too_large() {
            Ending::TooLarge
        } else if e.is_parse() {
            Ending::Refused
        } else {
            Ending::Disconnected
        }
    }

    pub(crate) fn no_reply(&self, ending: Ending) -> Exchange {
        Exchange::without_reply(ending, self.now_us().saturating_sub(self.origin_us()))
    }

    pub(crate) async fn body(
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
                    // A body that is always ready never lets the timer speak, so the stamp does. For the
                    // total alone: bytes that are there when we come back late were not the miner's pause.
                    if at_us > self.total_us() {
                        return (Ending::Timeout(Phase::Total), at_us);
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
    let is = |value: &HeaderValue, plain: &str| {
        value.as_bytes().trim_ascii().eq_ignore_ascii_case(plain.as_bytes())
    };
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
