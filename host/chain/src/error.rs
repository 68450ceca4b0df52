//! What can go wrong with the folder of a local subnet.

use std::path::{Path, PathBuf};

use nineteen_domain::meet::ChainError;

/// Each message is one line and names the file, the field and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubnetError {
    /// A file cannot be read or written.
    #[error("{}: cannot {action}: {why}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        why: String,
    },
    /// There is no subnet in the folder.
    #[error("{} does not exist: give the folder of a local subnet, or write that file (netuid and [[neurons]])", .file.display())]
    Missing {
        /// `subnet.toml` in that folder.
        file: PathBuf,
    },
    /// The file does not parse: wrong syntax, an unknown field, a value of the wrong kind.
    #[error("{}, line {line}: {why}", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The line, from 1; 0 when it is not known.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A value breaks a rule.
    #[error("{}: {field}: {why}", .file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// The field, e.g. `neurons[2].hotkey`.
        field: String,
        /// What is wrong, and what would be right.
        why: String,
    },
}

impl SubnetError {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "chain.io",
            Self::Missing { .. } => "chain.missing",
            Self::Syntax { .. } => "chain.syntax",
            Self::Field { .. } => "chain.field",
        }
    }

    pub(crate) fn io(file: &Path, action: &'static str, error: &std::io::Error) -> Self {
        Self::Io { file: file.to_owned(), action, why: error.to_string() }
    }
}

impl From<SubnetError> for ChainError {
    fn from(e: SubnetError) -> Self {
        Self::Unavailable(e.to_string())
    }
}
