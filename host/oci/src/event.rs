//! What a courier says while it works, and what it hands over at the end.

use std::fmt;

use nineteen_domain::Digest;
use serde::Serialize;

use crate::unpack::Unpacked;

/// What goes on, for a person who waits. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A tag or range became a digest.
    Resolved {
        /// The tag that was chosen.
        tag: String,
        /// What it points at.
        digest: Digest,
    },
    /// Bytes are coming.
    Fetching {
        /// Which file.
        file: String,
        /// Bytes so far.
        got: u64,
        /// Bytes in all.
        of: u64,
    },
    /// A file is being sent.
    Sending {
        /// Which file.
        file: String,
        /// Bytes in all.
        bytes: u64,
    },
    /// The registry has a file already.
    There {
        /// Which file.
        file: String,
    },
    /// The registry is away, and the cache speaks for it.
    Away {
        /// What happened.
        why: String,
    },
    /// A file of the cache was not what its name says; it was removed.
    Damaged {
        /// Which file.
        file: String,
    },
    /// What was pulled is good, but the cache does not keep it.
    NotKept {
        /// What the cache says.
        why: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolved { tag, digest } => write!(f, "{tag} is {digest}"),
            Self::Fetching { file, got, of } => write!(f, "fetching {file}: {got} of {of} bytes"),
            Self::Sending { file, bytes } => write!(f, "sending {file}: {bytes} bytes"),
            Self::There { file } => write!(f, "{file}: there already"),
            Self::Away { why } => write!(f, "the registry is away ({why}): served from the cache"),
            Self::Damaged { file } => write!(f, "{file}: damaged in the cache, removed"),
            Self::NotKept { why } => write!(f, "not kept in the cache: {why}"),
        }
    }
}

/// Where a task came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
#[non_exhaustive]
pub enum Origin {
    /// From the registry, at least in part.
    Registry,
    /// All of it was in the cache, and nobody had to be asked.
    Cache,
    /// The registry is away (or not to be asked), and the cache said what the tag was when it was last seen.
    CacheAlone {
        /// Why the registry was not heard.
        why: String,
    },
}

/// A task that was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// Digest of its manifest: names every byte of it.
    pub digest: Digest,
    /// The tag that was chosen; none when a digest was asked for.
    pub tag: Option<String>,
    /// Where it came from.
    pub origin: Origin,
    /// The task.
    pub task: Unpacked,
}

/// What was published.
#[derive(Debug, Clone, Serialize)]
pub struct Published {
    /// Digest of the task's manifest.
    pub digest: Digest,
    /// Its tag.
    pub tag: String,
    /// Digest of the artifact with the component alone.
    pub component_artifact: Digest,
    /// Its tag.
    pub component_tag: String,
    /// Bytes of files that were sent.
    pub sent_bytes: u64,
    /// Whether the very same task was there already, and nothing was done.
    pub unchanged: bool,
}
