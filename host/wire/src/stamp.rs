//! A TCP stream that notes when bytes crossed it.
//!
//! Not a parser. The one idea: the time of a chunk is when `read` handed its bytes to this process, noted
//! before any layer above has seen them; how long HTTP parsing, the caller or another task then takes moves
//! no stamp. (Time that the bytes lay in the kernel while the whole runtime was busy is not seen here; the
//! socket is read eagerly, chunk by chunk, whenever the task runs.)

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What was noted, in microseconds since the connection stood. One task reads and writes it, so relaxed
/// atomics are plain cells that may move between threads.
#[derive(Debug)]
pub(crate) struct Marks {
    base: Instant,
    read_us: AtomicU64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    written_us: AtomicU64,
    limit: AtomicU64,
    over: AtomicBool,
}

impl Marks {
    fn now_us(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
    /// When the last read returned, the one that saw the end included.
    pub(crate) fn read_us(&self) -> u64 {
        self.read_us.load(Relaxed)
    }
    /// How many reads returned so far.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }
    /// Bytes read so far, headers and framing included.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Relaxed)
    }
    /// When the last byte so far left; 0 before the first.
    pub(crate) fn written_us(&self) -> u64 {
        self.written_us.load(Relaxed)
    }
    /// Bytes after which reading fails.
    pub(crate) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Relaxed);
    }
    /// Whether that happened.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }
    pub(crate) const fn base(&self) -> Instant {
        self.base
    }
}

#[derive(Debug)]
pub(crate) struct Stamped {
    inner: TcpStream,
    marks: Arc<Marks>,
}

impl Stamped {
    /// Wraps a connection that stands since now. Fails reading after `limit` bytes.
    pub(crate) fn new(inner: TcpStream, limit: u64) -> (Self, Arc<Marks>) {
        let marks = Arc::new(Marks {
            base: Instant::now(),
            read_us: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            written_us: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
            over: AtomicBool::new(false),
        });
        (Self { inner, marks: Arc::clone(&marks) }, marks)
    }

    fn wrote(&self, done: &Poll<io::Result<usize>>) {
        if matches!(done, Poll::Ready(Ok(1..))) {
            self.marks.written_us.store(self.marks.now_us(), Relaxed);
        }
    }
}

impl AsyncRead for Stamped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        if matches!(done, Poll::Ready(Ok(()))) {
            let m = &self.marks;
            m.read_us.store(m.now_us(), Relaxed);
            m.reads.fetch_add(1, Relaxed);
            let got = u64::try_from(buf.filled().len().saturating_sub(before)).unwrap_or(u64::MAX);
            let all = m.read_bytes.fetch_add(got, Relaxed).saturating_add(got);
            if all > m.limit.load(Relaxed) {
                m.over.store(true, Relaxed);
                return Poll::Ready(Err(io::Error::other("the reply is larger than its limit")));
            }
        }
        done
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(&done);
        done
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(&done);
        done
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
