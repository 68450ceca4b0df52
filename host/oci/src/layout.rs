//! How a task lies in an artifact: media types, the manifest as we write it, and what we accept of others'.
//!
//! The first layer is the component, with config and media type as `wkg` and its libraries write them; the others
//! are the task's files, each under its path. A second artifact under the tag `component-<version>` holds the
//! component alone, because `wkg oci pull` takes artifacts of one layer only.

use std::collections::{BTreeMap, BTreeSet};

use nineteen_domain::Digest;
use nineteen_domain::calibration;
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use serde::{Deserialize, Serialize};

use crate::component::Surface;
use crate::refusal::{Refusal, cut};
use crate::settings::Limits;

/// Of the manifest.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Of the config: what the component imports and exports, as `wkg` writes it.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.wasm.config.v0+json";
/// Of the component, always the first layer.
pub const COMPONENT_MEDIA_TYPE: &str = "application/wasm";
/// Of `task.toml`.
pub const TASK_MEDIA_TYPE: &str = "application/vnd.nineteen.task.v1+toml";
/// Of `calibration.json`.
pub const CALIBRATION_MEDIA_TYPE: &str = "application/vnd.nineteen.calibration.v1+json";
/// Of every other file of the task.
pub const ASSET_MEDIA_TYPE: &str = "application/vnd.nineteen.asset.v1";
/// How tags of artifacts with the component alone begin; the version follows.
pub const COMPONENT_TAG_PREFIX: &str = "component-";

/// The manifest of a task.
pub(crate) const TASK_FILE: &str = "task.toml";

/// A path inside the task; the key is the OCI specification's, and other tools name files by it.
pub(crate) const TITLE: &str = "org.opencontainers.image.title";
const VERSION: &str = "org.opencontainers.image.version";

/// What a manifest says of one blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// Path inside the task; `None` for the config.
    pub path: Option<String>,
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub bytes: u64,
}

impl Descriptor {
    pub(crate) fn of(path: Option<&str>, media_type: &str, bytes: &[u8]) -> Self {
        Self {
            path: path.map(str::to_owned),
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            bytes: bytes.len() as u64,
        }
    }

    fn written(&self) -> OciDescriptor {
        OciDescriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.to_string(),
            size: i64::try_from(self.bytes).unwrap_or(i64::MAX),
            annotations: self.path.clone().map(|path| BTreeMap::from([(TITLE.to_owned(), path)])),
            ..OciDescriptor::default()
        }
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> &str {
        self.path.as_deref().unwrap_or("config")
    }
}

/// The config, in the order of keys that `oci-wasm` writes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenConfig<'a> {
    created: &'static str,
    author: Option<&'a str>,
    architecture: &'static str,
    os: &'static str,
    layer_digests: Vec<Digest>,
    component: WrittenComponent<'a>,
}

#[derive(Serialize)]
struct WrittenComponent<'a> {
    exports: &'a [String],
    imports: &'a [String],
    target: Option<&'a str>,
}

/// The config for these layers. The time is that of no clock, or the same task would have another digest each time.
pub(crate) fn config(surface: &Surface, layers: &[&Descriptor]) -> Result<Vec<u8>, Refusal> {
    let written = WrittenConfig {
        created: "1970-01-01T00:00:00Z",
        author: None,
        architecture: "wasm",
        os: "wasip2",
        layer_digests: layers.iter().map(|layer| layer.digest).collect(),
        component: WrittenComponent { exports: &surface.exports, imports: &surface.imports, target: None },
    };
    json("config", &written)
}

/// The manifest over a config and layers.
pub(crate) fn manifest(
    name: &str,
    version: &semver::Version,
    config: &Descriptor,
    layers: &[&Descriptor],
) -> Result<Vec<u8>, Refusal> {
    let written = OciImageManifest {
        media_type: Some(MANIFEST_MEDIA_TYPE.to_owned()),
        config: config.written(),
        layers: layers.iter().map(|layer| layer.written()).collect(),
        annotations: Some(BTreeMap::from([
            (TITLE.to_owned(), name.to_owned()),
            (VERSION.to_owned(), version.to_string()),
        ])),
        ..OciImageManifest::default()
    };
    json("manifest", &written)
}

fn json(what: &str, value: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value).map_err(|e| Refusal::Artifact { what: what.to_owned(), why: e.to_string() })
}

/// A manifest that was read and found to be a task's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) config: Descriptor,
    pub(crate) component: Descriptor,
    /// `task.toml` and what lies beside it.
    pub(crate) files: Vec<Descriptor>,
}

impl Layout {
    /// Everything that must be fetched, small before large as far as the manifest says so.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.files).chain(std::iter::once(&self.component))
    }

    /// Reads a manifest that somebody sent.
    pub(crate) fn read(what: &str, bytes: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        let refuse = |why: String| Refusal::Artifact { what: what.to_owned(), why };
        let media_type = |part: &str, found: &str, expected: &str| Refusal::MediaType {
            what: format!("{what}: {part}"),
            found: cut(found, 200),
            expected: expected.to_owned(),
        };
        // First only what says what it is: an index of images is no broken manifest.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            media_type: Option<String>,
        }
        let no_json = |e: serde_json::Error| {
            refuse(format!("its manifest cannot be read: {}", cut(&e.to_string(), 200)))
        };
        let head: Head = serde_json::from_slice(bytes).map_err(no_json)?;
        if let Some(found) = head.media_type.filter(|found| found != MANIFEST_MEDIA_TYPE) {
            return Err(media_type("manifest", &found, MANIFEST_MEDIA_TYPE));
        }
        let read: OciImageManifest = serde_json::from_slice(bytes).map_err(no_json)?;
        if read.schema_version != 2 {
            return Err(refuse(format!("its manifest has schemaVersion {}, not 2", read.schema_version)));
        }
        if read.config.media_type != CONFIG_MEDIA_TYPE {
            return Err(media_type("config", &read.config.media_type, CONFIG_MEDIA_TYPE));
        }
        if read.layers.len() > limits.layers {
            return Err(Refusal::TooManyLayers {
                what: what.to_owned(),
                count: read.layers.len(),
                most: limits.layers,
            });
        }
        let config = descriptor(what, &read.config, None, limits.manifest_bytes)?;
        let mut layers = read.layers.iter();
        let first = layers.next().ok_or_else(|| refuse("it has no layers".into()))?;
        if first.media_type != COMPONENT_MEDIA_TYPE {
            return Err(media_type("layer 1", &first.media_type, COMPONENT_MEDIA_TYPE));
        }
        let component = descriptor(what, first, title(first), limits.layer_bytes)?;
        let mut files: Vec<Descriptor> = Vec::new();
        let mut paths = BTreeSet::new();
        for (n, layer) in layers.enumerate() {
            let part = format!("layer {}", n + 2);
            let path = title(layer).ok_or_else(|| refuse(format!("{part} has no path in {TITLE}")))?;
            if !is_path(&path) {
                return Err(refuse(format!("{part}: '{}' is no path inside a task", cut(&path, 200))));
            }
            let expected = expected_type(&path);
            if layer.media_type != expected {
                return Err(media_type(&path, &layer.media_type, expected));
            }
            // Also by case: one of them would overwrite the other on some disks.
            if !paths.insert(path.to_ascii_lowercase()) {
                return Err(refuse(format!("'{path}' is in it twice")));
            }
            files.push(descriptor(what, layer, Some(path), limits.layer_bytes)?);
        }
        // A folder and a file cannot have one name.
        for path in &paths {
            let parents = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
            if let Some(both) = parents.into_iter().find(|parent| paths.contains(*parent)) {
                return Err(refuse(format!("'{both}' is a file and a folder in it")));
            }
        }
        if !files.iter().any(|file| file.path.as_deref() == Some(TASK_FILE)) {
            return Err(refuse(format!("it has no {TASK_FILE}: a component by itself is no task")));
        }
        let read = Self { config, component, files };
        let sum = read.blobs().fold(0_u64, |sum, blob| sum.saturating_add(blob.bytes));
        if sum > limits.task_bytes {
            return Err(Refusal::TooLarge { what: what.to_owned(), most: limits.task_bytes });
        }
        Ok(read)
    }

    /// Holds the config against the layers.
    pub(crate) fn check_config(&self, what: &str, bytes: &[u8]) -> Result<(), Refusal> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Read {
            architecture: String,
            layer_digests: Vec<Digest>,
        }
        let refuse = |why: String| Refusal::Artifact { what: format!("{what}: config"), why };
        let read: Read = serde_json::from_slice(bytes)
            .map_err(|e| refuse(format!("cannot be read: {}", cut(&e.to_string(), 200))))?;
        if read.architecture != "wasm" {
            return Err(refuse(format!("architecture: '{}' is not wasm", cut(&read.architecture, 40))));
        }
        let layers = std::iter::once(&self.component).chain(&self.files).map(|layer| layer.digest);
        if !layers.eq(read.layer_digests) {
            return Err(refuse("layerDigests: not those of the manifest".into()));
        }
        Ok(())
    }
}

fn title(layer: &OciDescriptor) -> Option<String> {
    layer.annotations.as_ref()?.get(TITLE).cloned()
}

/// The media type of a task's file: its path decides.
pub(crate) fn expected_type(path: &str) -> &'static str {
    match path {
        TASK_FILE => TASK_MEDIA_TYPE,
        calibration::FILE => CALIBRATION_MEDIA_TYPE,
        _ => ASSET_MEDIA_TYPE,
    }
}

pub(crate) fn descriptor(
    what: &str,
    from: &OciDescriptor,
    path: Option<String>,
    most: u64,
) -> Result<Descriptor, Refusal> {
    let name = path.clone().unwrap_or_else(|| from.media_type.clone());
    let refuse = |why: String| Refusal::Artifact { what: format!("{what}: {}", cut(&name, 200)), why };
    if from.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
        return Err(refuse("urls: it lies somewhere else, and nothing is fetched from there".into()));
    }
    let digest =
        from.digest.parse().map_err(|e: nineteen_domain::id::IdError| refuse(cut(&e.to_string(), 200)))?;
    let bytes = u64::try_from(from.size).map_err(|_| refuse(format!("size: {} is below 0", from.size)))?;
    if bytes > most {
        return Err(Refusal::TooLarge { what: format!("{what}: {}", cut(&name, 200)), most });
    }
    Ok(Descriptor { path, media_type: from.media_type.clone(), digest, bytes })
}

/// Whether this is a plain path inside a task: `a-z`, `A-Z`, `0-9`, `.`, `_`, `-` in at most 8 parts, none of
/// them hidden, and none with a meaning to the host.
pub(crate) fn is_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let part =
        |part: &str| (1..=100).contains(&part.len()) && part.bytes().all(plain) && !part.starts_with('.');
    path.split('/').all(part) && path.split('/').count() <= 8 && !is_reserved(path)
}

/// Names beside `task.toml` that pulling makes and packing passes over.
pub(crate) fn is_reserved(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    lower == LOCK_FILE || (!lower.contains('/') && lower.ends_with(".wasm"))
}

/// Digests of the components in a folder, as the host reads it.
pub(crate) const LOCK_FILE: &str = "components.lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_task() {
        for good in ["task.toml", "assets/words.txt", "a/b/c/d/e/f/g/h", "a-b_c.9"] {
            assert!(is_path(good), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            ".ssh/id",
            "a/.b",
            "a\\b",
            "a b",
            "ä",
            "a\0b",
            "C:x",
            "a/b/c/d/e/f/g/h/i",
            "components.lock",
            "Components.LOCK",
            "evil.wasm",
            "x\n",
        ] {
            assert!(!is_path(bad), "{bad}");
        }
    }
}
