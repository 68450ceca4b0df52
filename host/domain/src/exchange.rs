//! A request and what came back: bytes, and the host's own clock on every chunk.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A POST to the path that the task's manifest fixes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Path on the miner, starting with `/`.
    pub path: String,
    /// The body's media type.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
    /// Whether the reply is a stream of server-sent events.
    pub streamed: bool,
}

/// Bytes and when they came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Microseconds since the last byte of the request left.
    pub at_us: u64,
    /// What one read from the socket gave.
    pub data: Bytes,
}

/// The phase of a reply in which time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Until the connection stood.
    Connect,
    /// From the last byte of the request to the first byte of the body.
    FirstByte,
    /// Between two complete events of a stream, or two reads of a body.
    Idle,
    /// From the last byte of the request to the end.
    Total,
}

/// How a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The whole reply was read.
    Complete,
    /// No connection, or no HTTP.
    Refused,
    /// Too slow.
    Timeout(Phase),
    /// The connection broke before the end.
    Disconnected,
    /// More bytes, headers or chunks than the task allows.
    TooLarge,
}

/// What the host saw of a reply: no hotkey, no address, only the headers that the task listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// HTTP status; 0 when there was none.
    pub status: u16,
    /// The listed headers that were present, names in lower case, in the order of the list.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub chunks: Vec<Chunk>,
    /// Microseconds from the last byte of the request to the end.
    pub ended_us: u64,
    /// How it ended.
    pub ending: Ending,
}

impl Exchange {
    /// An exchange without a reply.
    #[must_use]
    pub const fn without_reply(ending: Ending, ended_us: u64) -> Self {
        Self { status: 0, headers: Vec::new(), chunks: Vec::new(), ended_us, ending }
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.chunks.iter().map(|c| c.data.len()).sum()
    }

    /// The body in one piece.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.body_len());
        self.chunks.iter().for_each(|c| all.extend_from_slice(&c.data));
        all
    }

    /// Microseconds to the first byte of the body, if there was one.
    #[must_use]
    pub fn first_byte_us(&self) -> Option<u64> {
        self.chunks.iter().find(|c| !c.data.is_empty()).map(|c| c.at_us)
    }
}
