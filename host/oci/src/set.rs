//! Signed task sets in a registry: an artifact of the set, its signatures, and every file that it names.
//!
//! For: a subnet's owner who publishes to a registry, and validators that follow it there. Not for: deciding whether a set is
//! worth anything; that is signatures' business, and the registry is a courier. The one idea: every set has a tag of its own,
//! `set-<sequence>`, and one tag moves to the newest.

use bytes::Bytes;
use nineteen_domain::Digest;
use oci_client::manifest::{OciDescriptor, OciImageManifest};

use crate::courier::Courier;
use crate::event::Event;
use crate::layout::{self, Descriptor, MANIFEST_MEDIA_TYPE};
use crate::pack::{Artifact, Blob};
use crate::reference::{Reference, Wanted};
use crate::refusal::{Refusal, cut};
use crate::registry::Registry;

/// Of the config, which is empty.
pub const SET_CONFIG_MEDIA_TYPE: &str = "application/vnd.nineteen.set.config.v1+json";
/// Of `taskset.toml`.
pub const SET_MEDIA_TYPE: &str = "application/vnd.nineteen.set.v1+toml";
/// Of `taskset.sig`.
pub const SIGNATURES_MEDIA_TYPE: &str = "application/vnd.nineteen.signatures.v1+json";
/// Of a file that the set names by its digest.
pub const SET_FILE_MEDIA_TYPE: &str = "application/vnd.nineteen.set.file.v1";

const SET: &str = "taskset.toml";
const SIGNATURES: &str = "taskset.sig";
/// Tags with the number of their set.
const TAG_PREFIX: &str = "set-";
const NEWEST: &str = "latest";
/// Three files a task, and more tasks than anybody has.
const MOST_LAYERS: usize = 4_096;

/// A signed set with its files.
#[derive(Debug, Clone)]
pub struct SetFiles {
    /// Name of the set.
    pub name: String,
    /// Its version.
    pub version: semver::Version,
    /// Its number.
    pub sequence: u64,
    /// `taskset.toml`.
    pub set: Bytes,
    /// `taskset.sig`.
    pub signatures: Bytes,
    /// Every file that it names.
    pub files: Vec<Bytes>,
}

/// The tag that moves to the newest set.
fn newest(of: &Reference) -> Result<String, Refusal> {
    match &of.wanted {
        Wanted::Tag(tag) if tag.starts_with(TAG_PREFIX) => Err(refused(
            of,
            "tags that begin with set- hold one set each: name one that moves, or none for latest",
        )),
        Wanted::Tag(tag) => Ok(tag.clone()),
        Wanted::Range(range) if *range == semver::VersionReq::STAR => Ok(NEWEST.into()),
        _ => Err(refused(of, "a set is followed under a tag, because it is the tag that moves")),
    }
}

fn refused(of: &Reference, why: &str) -> Refusal {
    Refusal::Reference { given: of.to_string(), why: why.into() }
}

impl Courier {
    /// Publishes a set: its files, the artifact under `set-<sequence>`, then under the tag that is followed.
    ///
    /// # Errors
    /// A [`Refusal`] of the reference, of the registry or about it.
    pub async fn publish_set(
        &self,
        files: &SetFiles,
        to: &Reference,
        tell: &(dyn Fn(Event) + Sync),
    ) -> Result<Digest, Refusal> {
        let tag = newest(to)?;
        let mut layers = vec![
            Blob::new(Some(SET), SET_MEDIA_TYPE, files.set.clone()),
            Blob::new(Some(SIGNATURES), SIGNATURES_MEDIA_TYPE, files.signatures.clone()),
        ];
        for file in &files.files {
            let path = format!("files/{}", Digest::of(file).hex());
            layers.push(Blob::new(Some(&path), SET_FILE_MEDIA_TYPE, file.clone()));
        }
        let config = Blob::new(None, SET_CONFIG_MEDIA_TYPE, Bytes::from_static(b"{}"));
        let all: Vec<&Descriptor> = layers.iter().map(|l| &l.descriptor).collect();
        let bytes = layout::manifest(&files.name, &files.version, &config.descriptor, &all)?;
        let artifact = Artifact { digest: Digest::of(&bytes), manifest: bytes.into(), config };
        self.within(&to.to_string(), async {
            let registry = self.open(&to.place).await?;
            registry.log_in().await?;
            for blob in layers.iter().chain([&artifact.config]) {
                let file = blob.descriptor.name().to_owned();
                if registry.has(&blob.descriptor.digest).await? {
                    tell(Event::There { file });
                    continue;
                }
                tell(Event::Sending { file, bytes: blob.descriptor.bytes });
                registry.push_blob(&tag, blob).await?;
            }
            registry.push_manifest(&format!("{TAG_PREFIX}{}", files.sequence), &artifact).await?;
            registry.push_manifest(&tag, &artifact).await?;
            Ok(artifact.digest)
        })
        .await
    }

    /// The newest set, or the one of this number: `taskset.toml` and its signatures, which are not looked at.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] where there is none; a [`Refusal`] of the registry or about it.
    pub async fn fetch_set(
        &self,
        from: &Reference,
        sequence: Option<u64>,
    ) -> Result<(Bytes, Bytes), Refusal> {
        self.within(&from.to_string(), async {
            let registry = self.open(&from.place).await?;
            let layers = layers(&registry, from, sequence).await?;
            let set = fetch(&registry, from, &layers, |l| l.path.as_deref() == Some(SET), SET).await?;
            let signed = |l: &Descriptor| l.path.as_deref() == Some(SIGNATURES);
            Ok((set, fetch(&registry, from, &layers, signed, SIGNATURES).await?))
        })
        .await
    }

    /// A file of the newest set by its digest, at most so many bytes.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] where the set has no such file; [`Refusal::TooLarge`]; as [`Courier::fetch_set`].
    pub async fn set_file(&self, from: &Reference, digest: &Digest, most: u64) -> Result<Bytes, Refusal> {
        self.within(&from.to_string(), async {
            let registry = self.open(&from.place).await?;
            let layers = layers(&registry, from, None).await?;
            let what = digest.to_string();
            if layers.iter().any(|l| l.digest == *digest && l.bytes > most) {
                return Err(Refusal::TooLarge { what: format!("{from}: {what}"), most });
            }
            fetch(&registry, from, &layers, |l| l.digest == *digest, &what).await
        })
        .await
    }
}

async fn fetch(
    registry: &Registry,
    from: &Reference,
    layers: &[Descriptor],
    wanted: impl Fn(&Descriptor) -> bool,
    what: &str,
) -> Result<Bytes, Refusal> {
    let found = layers.iter().find(|l| wanted(l));
    let found = found.ok_or_else(|| Refusal::NotFound { what: format!("{from}: {what}") })?;
    registry.blob(found, &|_| {}).await
}

/// What a set's manifest names.
async fn layers(
    registry: &Registry,
    from: &Reference,
    sequence: Option<u64>,
) -> Result<Vec<Descriptor>, Refusal> {
    let tag = match sequence {
        Some(n) => format!("{TAG_PREFIX}{n}"),
        None => newest(from)?,
    };
    let what = format!("{}:{tag}", from.place);
    let found = registry.manifest_of_tag(&tag).await?;
    let refuse = |why: String| Refusal::Artifact { what: what.clone(), why };
    let read: OciImageManifest = serde_json::from_slice(&found.bytes)
        .map_err(|e| refuse(format!("its manifest cannot be read: {}", cut(&e.to_string(), 200))))?;
    let media_type = |found: &str, expected: &str| Refusal::MediaType {
        what: what.clone(),
        found: cut(found, 200),
        expected: expected.into(),
    };
    if let Some(found) = read.media_type.as_deref().filter(|t| *t != MANIFEST_MEDIA_TYPE) {
        return Err(media_type(found, MANIFEST_MEDIA_TYPE));
    }
    if read.config.media_type != SET_CONFIG_MEDIA_TYPE {
        return Err(media_type(&read.config.media_type, SET_CONFIG_MEDIA_TYPE));
    }
    if read.layers.len() > MOST_LAYERS {
        return Err(Refusal::TooManyLayers {
            what: what.clone(),
            count: read.layers.len(),
            most: MOST_LAYERS,
        });
    }
    let one = |layer: &OciDescriptor| {
        let path = layer.annotations.as_ref().and_then(|a| a.get(layout::TITLE)).cloned();
        layout::descriptor(&what, layer, path, u64::MAX)
    };
    read.layers.iter().map(one).collect()
}
