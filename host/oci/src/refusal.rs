//! Everything that can be refused, each as one line that says what to do about it.

use std::path::PathBuf;

use nineteen_domain::Digest;

use crate::credentials::{PASSWORD_VARIABLE, USERNAME_VARIABLE};

/// Why a task was not packed, published, pulled or kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The text is no reference to a task.
    #[error("'{given}' is no reference: {why}; write registry/repository:1.2.3, :^1.2 or @sha256:…")]
    Reference {
        /// What was offered, cut to 200 characters.
        given: String,
        /// The rule that it breaks.
        why: String,
    },
    /// A file of a task is not what it has to be.
    #[error("{file}: {why}")]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// What came is no task, or is packed in a way that nobody packs.
    #[error("{what}: {why}")]
    Artifact {
        /// Reference, digest or file inside the artifact.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The media type is not the one that belongs there.
    #[error("{what}: the media type is '{found}', not {expected}: this is no task of nineteen")]
    MediaType {
        /// Which part.
        what: String,
        /// What it says, cut to 200 characters.
        found: String,
        /// What belongs there.
        expected: String,
    },
    /// Other bytes than the digest promises.
    #[error(
        "{what}: the bytes have another digest than {expected}: the registry, or something on the way, changed them"
    )]
    DigestMismatch {
        /// Which part.
        what: String,
        /// What was promised.
        expected: String,
    },
    /// The bytes ended early.
    #[error("{what}: it ended after {got} of {expected} bytes: try again, or ask the registry's owner")]
    Truncated {
        /// Which part.
        what: String,
        /// Bytes that came.
        got: u64,
        /// Bytes that were promised.
        expected: u64,
    },
    /// More bytes than are taken.
    #[error("{what}: more than {most} bytes, the most that is taken")]
    TooLarge {
        /// Which part.
        what: String,
        /// The limit in bytes.
        most: u64,
    },
    /// More layers than a task has.
    #[error("{what}: {count} layers, and a task has at most {most}")]
    TooManyLayers {
        /// Which artifact.
        what: String,
        /// How many.
        count: usize,
        /// The limit.
        most: usize,
    },
    /// More tags than are read.
    #[error("{what}: more than {most} tags: name one tag or digest instead of a range")]
    TooManyTags {
        /// Which repository.
        what: String,
        /// The limit.
        most: usize,
    },
    /// The registry sends elsewhere.
    #[error(
        "{registry} sends us to {to}, another host: add it to oci.also_hosts if that is where it keeps its files"
    )]
    Elsewhere {
        /// Whom we asked.
        registry: String,
        /// Where it sends us, cut to 200 characters.
        to: String,
    },
    /// No such tag.
    #[error("{place}: no tag '{tag}'; there is {there}")]
    UnknownTag {
        /// The repository.
        place: String,
        /// What was asked for.
        tag: String,
        /// What exists, or "nothing".
        there: String,
    },
    /// No version fits the range.
    #[error("{place}: no version fits {range}; there is {there}")]
    NoVersion {
        /// The repository.
        place: String,
        /// What was asked for.
        range: String,
        /// What exists, or "nothing".
        there: String,
    },
    /// Nothing with this digest, or no such repository.
    #[error("{what}: not there")]
    NotFound {
        /// Reference.
        what: String,
    },
    /// A tag holds another version than it says.
    #[error("{what}: the tag says {tag}, its task.toml says {version}: one of them is wrong")]
    WrongVersion {
        /// Reference.
        what: String,
        /// The tag.
        tag: String,
        /// `version` of `task.toml`.
        version: String,
    },
    /// A published version would change.
    #[error(
        "{what}: published already, with other content ({there}): raise the version in task.toml, or --replace"
    )]
    Taken {
        /// Reference.
        what: String,
        /// Digest of what is there.
        there: Digest,
    },
    /// The registry wants to know who we are, or does not believe it.
    #[error(
        "{registry}: not authorised {given}: set {USERNAME_VARIABLE} and {PASSWORD_VARIABLE}, or log in with a tool \
         that writes docker's config.json"
    )]
    Unauthorized {
        /// Whom we asked.
        registry: String,
        /// "without credentials", or as whom.
        given: String,
    },
    /// The credentials cannot be used.
    #[error("{source_name}: {why}")]
    Credentials {
        /// Variable or file.
        source_name: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The registry's certificate is not one that we trust.
    #[error(
        "{registry}: its certificate is not trusted ({why}): name its authority's certificate in oci.ca_file"
    )]
    NotTrusted {
        /// Whom we asked.
        registry: String,
        /// In TLS's words.
        why: String,
    },
    /// Plain HTTP to somebody who is not on this machine.
    #[error("{registry}: plain HTTP leaves this machine unprotected: use TLS, or add it to oci.plain_http")]
    PlainHttp {
        /// Whom we were to ask.
        registry: String,
    },
    /// Nobody answers.
    #[error("{registry}: no answer: {why}")]
    Away {
        /// Whom we asked.
        registry: String,
        /// What happened.
        why: String,
    },
    /// It took too long.
    #[error("{what}: not done within {seconds} s")]
    TooSlow {
        /// What was under way.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// It answered in a way that no registry answers, or with an error of its own.
    #[error("{registry}: {why}")]
    Registry {
        /// Whom we asked.
        registry: String,
        /// What it said, cut to 300 characters.
        why: String,
    },
    /// Offline, and not in the cache.
    #[error("{what}: not in the cache, and {why}")]
    NotCached {
        /// Reference.
        what: String,
        /// Why nobody was asked.
        why: String,
    },
    /// What is pinned leaves no room.
    #[error(
        "{cache}: no room for {bytes} bytes beside what is pinned: raise oci.cache_bytes or unpin something"
    )]
    CacheFull {
        /// The folder.
        cache: PathBuf,
        /// What was to be kept.
        bytes: u64,
    },
}

impl Refusal {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Reference { .. } => "oci.reference",
            Self::File { .. } => "oci.file",
            Self::Artifact { .. } => "oci.artifact",
            Self::MediaType { .. } => "oci.media-type",
            Self::DigestMismatch { .. } => "oci.digest",
            Self::Truncated { .. } => "oci.truncated",
            Self::TooLarge { .. } => "oci.too-large",
            Self::TooManyLayers { .. } => "oci.too-many-layers",
            Self::TooManyTags { .. } => "oci.too-many-tags",
            Self::Elsewhere { .. } => "oci.elsewhere",
            Self::UnknownTag { .. } => "oci.unknown-tag",
            Self::NoVersion { .. } => "oci.no-version",
            Self::NotFound { .. } => "oci.not-found",
            Self::WrongVersion { .. } => "oci.wrong-version",
            Self::Taken { .. } => "oci.taken",
            Self::Unauthorized { .. } => "oci.unauthorized",
            Self::Credentials { .. } => "oci.credentials",
            Self::NotTrusted { .. } => "oci.not-trusted",
            Self::PlainHttp { .. } => "oci.plain-http",
            Self::Away { .. } => "oci.away",
            Self::TooSlow { .. } => "oci.too-slow",
            Self::Registry { .. } => "oci.registry",
            Self::NotCached { .. } => "oci.not-cached",
            Self::CacheFull { .. } => "oci.cache-full",
        }
    }

    /// Whether nobody was there, as opposed to somebody who answered badly. Only then may a cache speak for a tag.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::TooSlow { .. })
    }

    /// An error of the file system.
    pub(crate) fn io(file: &std::path::Path, why: &std::io::Error) -> Self {
        Self::File { file: file.to_owned(), why: why.to_string() }
    }
}

/// Somebody else's words on one line without control characters, cut to `most` characters.
pub(crate) fn cut(words: &str, most: usize) -> String {
    let one_line: String =
        words.chars().take(4 * most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let one_line = one_line.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", one_line.get(..at).unwrap_or_default()),
        None => one_line,
    }
}
