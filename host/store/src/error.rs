//! What can go wrong with a store, each with a stable code and the way out.

use std::path::{Path, PathBuf};

/// An error of the store. It is `Clone` because one failed sync answers every writer of its group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open.
    #[error(
        "the store in {} is in use by process {}: ask that process, or stop it first",
        .dir.display(), .pid.map_or_else(|| "(not yet known)".to_owned(), |p| p.to_string())
    )]
    Locked {
        /// The store's folder.
        dir: PathBuf,
        /// Who holds it; `None` in the instant between its taking the lock and its writing the number.
        pid: Option<u32>,
    },
    /// There is no store where one was expected.
    #[error("there is no store in {}: check the path, or start a validator to create it", .dir.display())]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// The folder holds something, but not a store.
    #[error("{}: {why}; use an empty folder, or restore that file from a backup", .file.display())]
    NotAStore {
        /// The file that is missing or unreadable.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A later version of the program wrote this store.
    #[error(
        "the store in {} has schema {found}, this program knows up to {known}: run the newer version that \
         wrote it, or use another folder", .dir.display()
    )]
    SchemaNewer {
        /// The store's folder.
        dir: PathBuf,
        /// The schema it has.
        found: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// Acknowledged bytes have changed or gone. Never raised for the torn tail that a crash leaves.
    #[error("{} is damaged at byte {offset}: {why}; {way_out}", .file.display())]
    Corrupt {
        /// The segment.
        file: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong.
        why: String,
        /// What to do.
        way_out: String,
    },
    /// No room. Nothing of what was appended is kept, and nothing acknowledged is lost.
    #[error("no room for {}: {why}; free space and go on, nothing that was acknowledged is lost", .file.display())]
    Full {
        /// What was to grow.
        file: PathBuf,
        /// How much is missing, or what the operating system said.
        why: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {why}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        why: String,
    },
    /// A write could not be undone or a sync failed: what the disk holds is known again after a restart.
    #[error("the store takes no more records since: {why}; fix the disk, then restart")]
    Poisoned {
        /// The first failure.
        why: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A record, or several that were appended as one, is too long.
    #[error(
        "{bytes} bytes of records in one append are above the limit of {cap}: split them, or lower the task's limits"
    )]
    TooLarge {
        /// Their length.
        bytes: usize,
        /// The most that is taken.
        cap: usize,
    },
    /// A record cannot be written as or read from CBOR.
    #[error("a record cannot be {action}: {why}")]
    Codec {
        /// "encoded" or "decoded".
        action: &'static str,
        /// The codec's words.
        why: String,
    },
    /// The materialised view fails; the journal is whole.
    #[error("the view in {} fails: {why}; stop, remove that folder and start again: it is rebuilt", .dir.display())]
    View {
        /// The view's folder.
        dir: PathBuf,
        /// What it said.
        why: String,
    },
    /// The master seed is gone although plans depend on it.
    #[error("{} is gone, and plans were made with it: restore it from a backup, or use another folder", .file.display())]
    SeedMissing {
        /// Where it should be.
        file: PathBuf,
    },
    /// The master seed's file is not what it should be.
    #[error("{}: {why}", .file.display())]
    SeedUnfit {
        /// The file.
        file: PathBuf,
        /// What is wrong, and the way out.
        why: String,
    },
}

impl StoreError {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "store.locked",
            Self::Missing { .. } => "store.missing",
            Self::NotAStore { .. } => "store.not-a-store",
            Self::SchemaNewer { .. } => "store.schema-newer",
            Self::Corrupt { .. } => "store.corrupt",
            Self::Full { .. } => "store.full",
            Self::Io { .. } => "store.io",
            Self::Poisoned { .. } => "store.poisoned",
            Self::Closed => "store.closed",
            Self::TooLarge { .. } => "store.too-large",
            Self::Codec { .. } => "store.codec",
            Self::View { .. } => "store.view",
            Self::SeedMissing { .. } => "store.seed-missing",
            Self::SeedUnfit { .. } => "store.seed-unfit",
        }
    }

    /// An error of the operating system; one that means "no room" becomes [`StoreError::Full`].
    pub(crate) fn io(path: &Path, action: &'static str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let why = error.to_string();
        if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            return Self::Full { file: path.to_owned(), why };
        }
        Self::Io { path: path.to_owned(), action, why }
    }
}

/// `Result` with the store's error.
pub type Result<T> = std::result::Result<T, StoreError>;
