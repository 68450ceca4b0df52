//! What can go wrong for an author, with the way out.

use std::path::{Path, PathBuf};

use nineteen_sandbox::CallError;

/// Why a tool gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    /// A file or folder.
    #[error("{}: {why}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Field, reason, way out.
        why: String,
    },
    /// A compiler or another program.
    #[error("{program}: {why}")]
    Program {
        /// Which.
        program: String,
        /// Its last words, or how to get it.
        why: String,
    },
    /// The plugin fails where it must not.
    #[error("{0}")]
    Call(#[from] CallError),
}

impl AuthorError {
    pub(crate) fn file(file: &Path, why: impl Into<String>) -> Self {
        Self::File { file: file.to_owned(), why: why.into() }
    }

    pub(crate) fn io(file: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        move |e| Self::file(file, e.to_string())
    }
}
