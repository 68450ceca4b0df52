//! What can go wrong here, each with a stable code and what to do about it.

use std::path::PathBuf;

/// Why the runtime, a model or a check is not available.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckingError {
    /// No library at the place where it has to be.
    #[error(
        "no ONNX Runtime library at {path} ({source_of_path}): run `cargo xtask setup`, or set ORT_DYLIB_PATH to a libonnxruntime 1.31"
    )]
    LibraryMissing {
        /// Where it was looked for.
        path: PathBuf,
        /// Who named that place: `configuration`, `ORT_DYLIB_PATH` or `cache`.
        source_of_path: &'static str,
    },
    /// A file is there, but it is not ONNX Runtime or does not load.
    #[error("{path} does not load as ONNX Runtime: {why}; run `cargo xtask setup` to fetch the right one")]
    LibraryUnusable {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        why: String,
    },
    /// ONNX Runtime of another line.
    #[error("{path} is ONNX Runtime {found}, but 1.31.x is needed: run `cargo xtask setup`")]
    LibraryVersion {
        /// The file.
        path: PathBuf,
        /// The version that it states.
        found: String,
    },
    /// The process has loaded another library already; ONNX Runtime is one per process.
    #[error(
        "this process has already loaded {loaded}; {asked} cannot be loaded beside it: restart with one configuration"
    )]
    LibraryOther {
        /// The one in use.
        loaded: PathBuf,
        /// The one asked for.
        asked: PathBuf,
    },
    /// An execution provider that was asked for does not start. There is no fallback.
    #[error(
        "the execution provider '{provider}' cannot start: {why}; take it out of the configuration, or install what it needs (`cargo xtask setup --gpu`)"
    )]
    Provider {
        /// `cpu`, `cuda` or `tensorrt`.
        provider: &'static str,
        /// What it said.
        why: String,
    },
    /// A file of a model's folder is missing, cut, altered or unreadable.
    #[error("{path}: {why}; run `cargo xtask setup`")]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The model's graph is not one that these executors can serve.
    #[error("the model '{model}' cannot be served: {why}")]
    Model {
        /// Its name.
        model: String,
        /// What does not fit.
        why: String,
    },
    /// No such model is being served.
    #[error("no model '{model}' is served here: add it to the configuration's models")]
    UnknownModel {
        /// The name that was asked for.
        model: String,
    },
    /// What was to be checked cannot have come from this model: ids outside the vocabulary and the like.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The question itself is malformed.
    #[error("bad parameters: {0}")]
    BadParameters(String),
    /// Parameters of a form that this host does not know.
    #[error("unknown version {version} of {kind}: this host speaks version 1")]
    UnknownVersion {
        /// The check's kind.
        kind: String,
        /// The version that was asked for.
        version: u64,
    },
    /// A prompt that leaves no room in the model's context.
    #[error("the prompt has {tokens} tokens, the model's context is {context}: shorten it")]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// The model's context.
        context: usize,
    },
    /// The model computed something that is no number.
    #[error(
        "the model '{model}' gave logits that are not finite: its files may be damaged; run `cargo xtask setup`"
    )]
    NotFinite {
        /// Its name.
        model: String,
    },
    /// The runtime refused or failed.
    #[error("the model '{model}' failed: {why}")]
    Inference {
        /// Its name.
        model: String,
        /// What the runtime said.
        why: String,
    },
    /// The executors are stopping or have stopped.
    #[error("the executors have stopped: start them again")]
    Stopped,
    /// A thread could not be started, or the like.
    #[error("the operating system refused: {0}")]
    System(String),
}

impl CheckingError {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::LibraryMissing { .. } => "checking.library.missing",
            Self::LibraryUnusable { .. } => "checking.library.unusable",
            Self::LibraryVersion { .. } => "checking.library.version",
            Self::LibraryOther { .. } => "checking.library.other",
            Self::Provider { .. } => "checking.provider",
            Self::ModelFile { .. } => "checking.model.file",
            Self::Model { .. } => "checking.model.unfit",
            Self::UnknownModel { .. } => "checking.model.unknown",
            Self::Invalid(_) => "checking.invalid",
            Self::BadParameters(_) => "checking.parameters",
            Self::UnknownVersion { .. } => "checking.version",
            Self::TooLong { .. } => "checking.too-long",
            Self::NotFinite { .. } => "checking.not-finite",
            Self::Inference { .. } => "checking.inference",
            Self::Stopped => "checking.stopped",
            Self::System(_) => "checking.system",
        }
    }
}
