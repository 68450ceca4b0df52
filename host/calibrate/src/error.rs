//! What stops a calibration.

use std::path::{Path, PathBuf};

use nineteen_checking::CheckingError;

/// Why there is no calibration.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// A file of the model, or one that is to be written.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A synthetic request that does not say what is needed.
    #[error("the task's requests cannot be calibrated with: {0}")]
    Request(String),
    /// An executor.
    #[error(transparent)]
    Checking(#[from] CheckingError),
}

impl CalibrateError {
    pub(crate) fn file(path: &Path, why: impl ToString) -> Self {
        Self::File { path: path.to_owned(), why: why.to_string() }
    }
}
