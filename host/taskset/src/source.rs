//! Where sets come from. A source brings bytes; whether they are worth anything is not its business.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use nineteen_domain::Digest;
use nineteen_domain::meet::BoxFuture;

use crate::set::{MOST_SET_BYTES, SET_FILE, SIGNATURES_FILE};
use crate::signature::MOST_SIGNATURE_BYTES;

/// A set and its signatures, as the source gave them.
#[derive(Clone, PartialEq, Eq)]
pub struct Fetched {
    /// `taskset.toml`, at most 256 KiB.
    pub set: Vec<u8>,
    /// `taskset.sig`, at most 64 KiB.
    pub signatures: Vec<u8>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetched({} and {} bytes)", self.set.len(), self.signatures.len())
    }
}

/// Why a source gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nobody is there, or the connection broke.
    #[error("{place}: {why}")]
    Away {
        /// File or address.
        place: String,
        /// What happened.
        why: String,
    },
    /// It is not there.
    #[error("{place}: not found")]
    NotFound {
        /// File or address.
        place: String,
    },
    /// It took too long.
    #[error("{place}: no whole answer within {seconds} s")]
    TooSlow {
        /// Address.
        place: String,
        /// The limit.
        seconds: u64,
    },
    /// It is longer than anything honest.
    #[error("{place}: more than {most} bytes")]
    TooLong {
        /// File or address.
        place: String,
        /// The limit.
        most: u64,
    },
    /// It ended before the length that it stated.
    #[error("{place}: the answer ended early")]
    Truncated {
        /// Address.
        place: String,
    },
    /// It sends elsewhere.
    #[error("{place}: it redirects to {to}, another host: name the right address in subnet.source")]
    Elsewhere {
        /// Address.
        place: String,
        /// Where to, cut to 200 characters.
        to: String,
    },
    /// It redirects in circles.
    #[error("{place}: more than {most} redirects")]
    Circles {
        /// Address.
        place: String,
        /// The limit.
        most: u32,
    },
    /// The certificate is not trusted, or TLS is not spoken.
    #[error("{place}: TLS: {why}")]
    Tls {
        /// Address.
        place: String,
        /// What happened.
        why: String,
    },
    /// It answers with another status than success.
    #[error("{place}: status {status}")]
    Status {
        /// Address.
        place: String,
        /// HTTP's.
        status: u16,
    },
    /// The source's own description is wrong.
    #[error("{place}: {why}")]
    Setting {
        /// File or address.
        place: String,
        /// The rule.
        why: String,
    },
    /// The file is another than the one that its digest names.
    #[error("{place}: it is {found}, {asked} was asked for")]
    Digest {
        /// File or address.
        place: String,
        /// What came.
        found: Digest,
        /// What was asked for.
        asked: Digest,
    },
}

impl SourceError {
    /// Stable code for logs, events and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Away { .. } => "source.away",
            Self::NotFound { .. } => "source.not-found",
            Self::TooSlow { .. } => "source.too-slow",
            Self::TooLong { .. } => "source.too-long",
            Self::Truncated { .. } => "source.truncated",
            Self::Elsewhere { .. } => "source.elsewhere",
            Self::Circles { .. } => "source.circles",
            Self::Tls { .. } => "source.tls",
            Self::Status { .. } => "source.status",
            Self::Setting { .. } => "source.setting",
            Self::Digest { .. } => "source.digest",
        }
    }
}

/// A place that sets are published at: a folder, a web server, a registry.
///
/// Every answer is bounded in size and time by the source itself. The layout of a folder and of a server is the
/// same: `taskset.toml`, `taskset.sig`, `history/<sequence>/` with the same two of every set, and
/// `blobs/sha256/<hex>` with every file that sets name.
pub trait Source: Send + Sync + fmt::Debug {
    /// For people: a path or an address, without credentials.
    fn place(&self) -> String;

    /// The newest set.
    fn fetch(&self) -> BoxFuture<'_, Result<Fetched, SourceError>>;

    /// The set of this number. Only asked when keys were rotated meanwhile.
    fn fetch_at(&self, sequence: u64) -> BoxFuture<'_, Result<Fetched, SourceError>>;

    /// A file by its digest, at most so many bytes. The caller compares the digest.
    fn blob<'a>(&'a self, digest: &'a Digest, most: u64) -> BoxFuture<'a, Result<Vec<u8>, SourceError>>;
}

/// Path of a set in the layout; `None` is the newest.
pub(crate) fn set_folder(sequence: Option<u64>) -> String {
    sequence.map(|n| format!("history/{n}/")).unwrap_or_default()
}

/// Path of a file in the layout.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A folder on this machine, or mounted into it.
#[derive(Debug, Clone)]
pub struct FolderSource {
    folder: PathBuf,
}

impl FolderSource {
    /// Of a folder, or of the `taskset.toml` in it.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let named = path.file_name().is_some_and(|n| n == SET_FILE);
        let folder = if named { path.parent().unwrap_or(Path::new(".")) } else { path };
        Self { folder: folder.to_owned() }
    }

    async fn read(&self, path: String, most: u64) -> Result<Vec<u8>, SourceError> {
        let file = self.folder.join(path);
        let place = file.display().to_string();
        let away = SourceError::Away { place, why: "reading was given up".into() };
        tokio::task::spawn_blocking(move || read_bounded(&file, most)).await.map_err(|_| away)?
    }

    async fn read_set(&self, sequence: Option<u64>) -> Result<Fetched, SourceError> {
        let folder = set_folder(sequence);
        let set = self.read(format!("{folder}{SET_FILE}"), MOST_SET_BYTES as u64).await?;
        let signatures = self.read(format!("{folder}{SIGNATURES_FILE}"), MOST_SIGNATURE_BYTES as u64).await;
        Ok(Fetched { set, signatures: unsigned_if_missing(signatures)? })
    }
}

/// A set without a file of signatures is unsigned, which is refused in words of its own.
pub(crate) fn unsigned_if_missing(signatures: Result<Vec<u8>, SourceError>) -> Result<Vec<u8>, SourceError> {
    match signatures {
        Err(SourceError::NotFound { .. }) => Ok(Vec::new()),
        other => other,
    }
}

/// A plain file of at most so many bytes. Never waits on a pipe or a device.
pub(crate) fn read_bounded(file: &Path, most: u64) -> Result<Vec<u8>, SourceError> {
    let place = file.display().to_string();
    let away = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => SourceError::NotFound { place: place.clone() },
        _ => SourceError::Away { place: place.clone(), why: e.to_string() },
    };
    let meta = std::fs::metadata(file).map_err(away)?;
    if !meta.is_file() {
        return Err(SourceError::Away { place, why: "it is not a plain file".into() });
    }
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(away)?;
    opened.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(away)?;
    if bytes.len() as u64 > most { Err(SourceError::TooLong { place, most }) } else { Ok(bytes) }
}

impl Source for FolderSource {
    fn place(&self) -> String {
        self.folder.display().to_string()
    }

    fn fetch(&self) -> BoxFuture<'_, Result<Fetched, SourceError>> {
        Box::pin(self.read_set(None))
    }

    fn fetch_at(&self, sequence: u64) -> BoxFuture<'_, Result<Fetched, SourceError>> {
        Box::pin(self.read_set(Some(sequence)))
    }

    fn blob<'a>(&'a self, digest: &'a Digest, most: u64) -> BoxFuture<'a, Result<Vec<u8>, SourceError>> {
        Box::pin(self.read(blob_path(digest), most))
    }
}
