//! Signed sets in a container registry: publishing them there, and following them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use nineteen_domain::Digest;
use nineteen_domain::meet::BoxFuture;
use nineteen_oci::{Courier, Reference, Refusal, SetFiles};
use nineteen_taskset::{
    Fetched, FileError, Now, Published, SET_FILE, SIGNATURES_FILE, Set, Source, SourceError,
};

use crate::commands::publish::{courier, failure, tell};
use crate::config::Config;
use crate::error::Failure;

/// A set that is to be published.
pub(super) struct Signed<'a> {
    pub(super) text: &'a [u8],
    pub(super) signatures: &'a [u8],
    pub(super) files: &'a BTreeMap<Digest, PathBuf>,
    pub(super) set: &'a Set,
}

fn reference(text: &str, field: &str) -> Result<Reference, Failure> {
    text.parse().map_err(|e| Failure::input(format!("{field}: {e}")))
}

/// What `subnet.source = "oci://…"` means.
pub(super) fn source(text: &str, config: &Config) -> Result<Arc<dyn Source>, Failure> {
    let reference = reference(text, "subnet.source")?;
    Ok(Arc::new(OciSource { courier: courier(config)?, reference }))
}

/// Publishes as to a folder, which holds the set that is there now, and sends the folder: the same refusals apply.
pub(super) async fn publish(
    signed: &Signed<'_>,
    to: &str,
    config: &Config,
    now: Now,
    refuse: &dyn Fn(FileError) -> Failure,
) -> Result<Published, Failure> {
    let (reference, courier) = (reference(to, "--to")?, courier(config)?);
    let io = |e: std::io::Error| Failure::running(format!("no folder to publish from: {e}"));
    let folder = tempfile::tempdir().map_err(io)?;
    match courier.fetch_set(&reference, None).await {
        Ok((set, signatures)) => {
            std::fs::write(folder.path().join(SET_FILE), set).map_err(io)?;
            std::fs::write(folder.path().join(SIGNATURES_FILE), signatures).map_err(io)?;
        }
        Err(Refusal::NotFound { .. } | Refusal::UnknownTag { .. }) => {}
        Err(e) => return Err(failure(e)),
    }
    let done = nineteen_taskset::publish(signed.text, signed.signatures, signed.files, folder.path(), now)
        .map_err(refuse)?;
    let mut files = Vec::with_capacity(signed.files.len());
    for entry in std::fs::read_dir(folder.path().join("blobs/sha256")).map_err(io)? {
        files.push(std::fs::read(entry.map_err(io)?.path()).map_err(io)?.into());
    }
    let files = SetFiles {
        name: signed.set.name.clone(),
        version: signed.set.version.clone(),
        sequence: signed.set.sequence,
        set: signed.text.to_vec().into(),
        signatures: signed.signatures.to_vec().into(),
        files,
    };
    courier.publish_set(&files, &reference, &tell).await.map_err(failure)?;
    Ok(done)
}

/// A registry that is followed.
struct OciSource {
    courier: Courier,
    reference: Reference,
}

impl std::fmt::Debug for OciSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OciSource").field(&self.place()).finish()
    }
}

impl OciSource {
    async fn set(&self, sequence: Option<u64>) -> Result<Fetched, SourceError> {
        let fetched = self.courier.fetch_set(&self.reference, sequence).await;
        let (set, signatures) = fetched.map_err(|e| self.says(e))?;
        Ok(Fetched { set: set.to_vec(), signatures: signatures.to_vec() })
    }

    /// A registry's refusal in the words of sources.
    fn says(&self, refusal: Refusal) -> SourceError {
        let place = self.place();
        match refusal {
            Refusal::NotFound { .. } | Refusal::UnknownTag { .. } => SourceError::NotFound { place },
            Refusal::TooSlow { seconds, .. } => SourceError::TooSlow { place, seconds },
            Refusal::TooLarge { most, .. } => SourceError::TooLong { place, most },
            refusal if refusal.is_away() => SourceError::Away { place, why: refusal.to_string() },
            refusal => SourceError::Setting { place, why: refusal.to_string() },
        }
    }
}

impl Source for OciSource {
    fn place(&self) -> String {
        format!("oci://{}", self.reference)
    }

    fn fetch(&self) -> BoxFuture<'_, Result<Fetched, SourceError>> {
        Box::pin(self.set(None))
    }

    fn fetch_at(&self, sequence: u64) -> BoxFuture<'_, Result<Fetched, SourceError>> {
        Box::pin(self.set(Some(sequence)))
    }

    fn blob<'a>(&'a self, digest: &'a Digest, most: u64) -> BoxFuture<'a, Result<Vec<u8>, SourceError>> {
        Box::pin(async move {
            let file = self.courier.set_file(&self.reference, digest, most).await;
            file.map(|bytes| bytes.to_vec()).map_err(|e| self.says(e))
        })
    }
}
