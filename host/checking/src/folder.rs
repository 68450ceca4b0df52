//! A model's folder: what `model.toml` promises and whether the files keep it.
//!
//! For: naming the one file that is missing, cut or altered before a runtime trips over it. Not for: making
//! models, that is `tasks/models`. The one idea: sizes are checked at every start, digests whenever a file's
//! size or time of change differs from those noted beside it when its digest was last right.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nineteen_domain::id::{Digest, ModelName};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::CheckingError;
use crate::runtime::one_line;

/// The graph's file.
pub(crate) const GRAPH: &str = "model.onnx";
/// Where verified digests are noted, beside the model.
const STAMP: &str = ".verified.toml";

/// An image pipeline's own manifest, in the layout that Hugging Face uses.
const INDEX: &str = "model_index.json";

/// What kind of model it is, with what only that kind has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Text {
        eos_ids: Vec<u32>,
        context: usize,
    },
    Embedding {
        max_length: usize,
        dimension: usize,
        normalise: bool,
    },
    /// A picture's vector, classes or faces; its executor reads the rest of the manifest.
    Vision,
    /// An image pipeline; its executor reads the folder.
    Diffusion,
    /// A graph of which the host knows nothing but its tensors.
    Tensors,
}

/// A folder whose files are as promised.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) precision: String,
    pub(crate) kind: Kind,
}

#[derive(Deserialize)]
struct Manifest {
    kind: String,
    precision: String,
    #[serde(default)]
    eos_ids: Vec<u32>,
    context: Option<usize>,
    pooling: Option<String>,
    #[serde(default)]
    normalise: bool,
    max_length: Option<usize>,
    dimension: Option<usize>,
    source: Option<String>,
    #[serde(default)]
    recipe_version: u32,
    files: BTreeMap<String, FileEntry>,
}

impl Manifest {
    /// Which model it is, on whatever machine it was made: its source with the digest, the recipe's version and the
    /// precision. Where no source is named, its files.
    fn identity(&self) -> Digest {
        let made_of = match &self.source {
            Some(source) => format!("{source} recipe {}", self.recipe_version),
            None => self.files.iter().map(|(name, file)| format!("{name} {}\n", file.sha256)).collect(),
        };
        Digest::of(format!("{} {} {made_of}", self.kind, self.precision).as_bytes())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    bytes: u64,
    sha256: String,
}

/// Which model a folder holds, the same on every machine, and the precision of its weights; reads `model.toml` alone.
///
/// # Errors
/// [`CheckingError::ModelFile`] if it is missing or no manifest.
pub fn identity(models: &Path, folder: &ModelName) -> Result<(Digest, String), CheckingError> {
    let folder = models.join(folder.as_str());
    let path = folder.join("model.toml");
    if !path.exists() && folder.join(INDEX).is_file() {
        return Ok((bare_identity(&folder)?, UNSTATED.to_owned()));
    }
    let manifest: Manifest =
        toml::from_str(&read_text(&path)?).map_err(|e| wrong(&path, one_line(&e.to_string())))?;
    Ok((manifest.identity(), manifest.precision))
}

/// The precision of a pipeline that came without a `model.toml`.
const UNSTATED: &str = "unstated";

/// Which pipeline a folder without `model.toml` holds: names and sizes of its files, and the content of those that say
/// how it is put together.
fn bare_identity(folder: &Path) -> Result<Digest, CheckingError> {
    let mut all = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).map_err(|e| wrong(&dir, e.to_string()))? {
            let path = entry.map_err(|e| wrong(&dir, e.to_string()))?.path();
            let meta = std::fs::metadata(&path).map_err(|e| wrong(&path, e.to_string()))?;
            if meta.is_dir() {
                waiting.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let digest = if name.ends_with(".json") {
                sha256(&path).map_err(|e| wrong(&path, e.to_string()))?.hex()
            } else {
                String::new()
            };
            all.push(format!("{name} {} {digest}\n", meta.len()));
        }
    }
    all.sort_unstable();
    Ok(Digest::of(all.concat().as_bytes()))
}

#[derive(Default, Serialize, Deserialize, PartialEq)]
struct Stamp(BTreeMap<String, Noted>);

#[derive(Serialize, Deserialize, PartialEq)]
struct Noted {
    bytes: u64,
    /// Decimal text: TOML's integers are signed.
    changed_ns: String,
    sha256: String,
}

pub(crate) fn wrong(path: &Path, why: impl Into<String>) -> CheckingError {
    CheckingError::ModelFile { path: path.to_path_buf(), why: why.into() }
}

/// A file of the folder as text.
pub(crate) fn read_text(path: &Path) -> Result<String, CheckingError> {
    std::fs::read_to_string(path).map_err(|e| wrong(path, e.to_string()))
}

/// A file of the folder as JSON.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value, CheckingError> {
    serde_json::from_str(&read_text(path)?).map_err(|e| wrong(path, one_line(&e.to_string())))
}

impl Folder {
    /// Reads `model.toml` of `<models>/<folder>` and verifies every file that it lists.
    pub(crate) fn open(models: &Path, folder: &ModelName) -> Result<Self, CheckingError> {
        let path = models.join(folder.as_str());
        let toml_path = path.join("model.toml");
        if !toml_path.exists() && path.join(INDEX).is_file() {
            return Ok(Self { path, precision: UNSTATED.to_owned(), kind: Kind::Diffusion });
        }
        let manifest: Manifest = toml::from_str(&read_text(&toml_path)?)
            .map_err(|e| wrong(&toml_path, one_line(&e.to_string())))?;
        let missing = |field: &str| wrong(&toml_path, format!("'{field}' is missing or 0"));
        let above_zero = |value: Option<usize>, field| value.filter(|v| *v > 0).ok_or_else(|| missing(field));
        let kind = match manifest.kind.as_str() {
            "text" => {
                let context = above_zero(manifest.context, "context")?;
                Kind::Text { eos_ids: manifest.eos_ids.clone(), context }
            }
            "embedding" => {
                if manifest.pooling.as_deref() != Some("mean") {
                    return Err(wrong(&toml_path, "'pooling' has to be \"mean\", the one that is served"));
                }
                Kind::Embedding {
                    max_length: above_zero(manifest.max_length, "max_length")?,
                    dimension: above_zero(manifest.dimension, "dimension")?,
                    normalise: manifest.normalise,
                }
            }
            "vision" => Kind::Vision,
            "diffusion" => Kind::Diffusion,
            "tensors" => Kind::Tensors,
            other => {
                let known = "'text', 'embedding', 'vision', 'diffusion' or 'tensors'";
                return Err(wrong(&toml_path, format!("kind '{other}' is not {known}")));
            }
        };
        let needed: &[&str] = match kind {
            Kind::Text { .. } | Kind::Embedding { .. } => &[GRAPH, "tokenizer.json"],
            Kind::Vision | Kind::Tensors => &[GRAPH],
            Kind::Diffusion => &[INDEX],
        };
        if let Some(missing) = needed.iter().find(|name| !manifest.files.contains_key(**name)) {
            return Err(wrong(&toml_path, format!("[files] has to list {missing}")));
        }
        verify(&path, &manifest.files)?;
        Ok(Self { path, precision: manifest.precision, kind })
    }

    pub(crate) fn graph(&self) -> PathBuf {
        self.path.join(GRAPH)
    }
}

fn verify(folder: &Path, files: &BTreeMap<String, FileEntry>) -> Result<(), CheckingError> {
    let stamp_path = folder.join(STAMP);
    let old: Stamp = std::fs::read_to_string(&stamp_path)
        .ok()
        .and_then(|text| toml::from_str(&text).ok())
        .unwrap_or_default();
    let mut new = Stamp::default();
    // Sizes first: a cut file is told apart from an altered one without reading half a gigabyte.
    let mut found = Vec::new();
    for (name, entry) in files {
        let path = folder.join(name);
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('\\');
        if name.split('/').count() > 2 || !name.split('/').all(plain) {
            return Err(wrong(&folder.join("model.toml"), format!("'{name}' is no plain file name")));
        }
        let meta = match std::fs::metadata(&path) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return Err(wrong(&path, "it is no file")),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(wrong(&path, "it is missing")),
            Err(e) => return Err(wrong(&path, e.to_string())),
        };
        if meta.len() != entry.bytes {
            return Err(wrong(&path, format!("it has {} bytes instead of {}", meta.len(), entry.bytes)));
        }
        let changed = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let changed_ns = changed.map(|d| d.as_nanos().to_string()).unwrap_or_default();
        found.push((name, path, entry, changed_ns));
    }
    for (name, path, entry, changed_ns) in found {
        let noted = Noted { bytes: entry.bytes, changed_ns, sha256: entry.sha256.clone() };
        if noted.changed_ns.is_empty() || old.0.get(name) != Some(&noted) {
            let digest = sha256(&path).map_err(|e| wrong(&path, e.to_string()))?;
            if digest.hex() != entry.sha256 {
                return Err(wrong(
                    &path,
                    "its sha256 is not the one in model.toml, so it was altered or damaged",
                ));
            }
        }
        new.0.insert(name.clone(), noted);
    }
    if new != old {
        note(folder, &stamp_path, &new);
    }
    Ok(())
}

/// Writes the stamp whole or not at all. A folder that cannot be written to is hashed at every start instead.
fn note(folder: &Path, stamp_path: &Path, stamp: &Stamp) {
    let temporary = folder.join(format!("{STAMP}.{}", std::process::id()));
    let written = toml::to_string(stamp)
        .map_err(|e| e.to_string())
        .and_then(|text| std::fs::write(&temporary, text).map_err(|e| e.to_string()))
        .and_then(|()| std::fs::rename(&temporary, stamp_path).map_err(|e| e.to_string()));
    if let Err(why) = written {
        // Nothing depends on the stamp but the time of the next start.
        let _ = std::fs::remove_file(&temporary);
        tracing::debug!(folder = %folder.display(), %why, "verified digests could not be noted");
    }
}

fn sha256(path: &Path) -> std::io::Result<Digest> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_bytes(hasher.finalize().into())),
            n => hasher.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dir: &Path) -> ModelName {
        let folder = dir.join("m");
        std::fs::create_dir_all(&folder).unwrap();
        let mut files = String::new();
        for (name, content) in [(GRAPH, "graph"), ("tokenizer.json", "{}")] {
            std::fs::write(folder.join(name), content).unwrap();
            let sha = Digest::of(content.as_bytes()).hex();
            files += &format!("\"{name}\" = {{ bytes = {}, sha256 = \"{sha}\" }}\n", content.len());
        }
        std::fs::write(
            folder.join("model.toml"),
            format!("kind = \"text\"\nprecision = \"fp32\"\neos_ids = [2]\ncontext = 128\nextra = 1\n[files]\n{files}"),
        )
        .unwrap();
        ModelName::new("m").unwrap()
    }

    fn refusal(dir: &Path, name: &ModelName) -> String {
        let err = Folder::open(dir, name).unwrap_err();
        assert_eq!(err.code(), "checking.model.file");
        let text = err.to_string();
        assert!(text.contains("cargo xtask setup") && !text.contains('\n'), "{text}");
        text
    }

    #[test]
    fn a_whole_folder_opens_and_is_noted_as_verified() {
        let dir = tempfile::tempdir().unwrap();
        let name = made(dir.path());
        let folder = Folder::open(dir.path(), &name).unwrap();
        assert_eq!(folder.kind, Kind::Text { eos_ids: vec![2], context: 128 });
        assert!(dir.path().join("m").join(STAMP).is_file());
        Folder::open(dir.path(), &name).unwrap();
    }

    #[test]
    fn missing_cut_and_altered_files_are_named_each_in_its_way() {
        let dir = tempfile::tempdir().unwrap();
        let name = made(dir.path());
        Folder::open(dir.path(), &name).unwrap();
        let graph = dir.path().join("m").join(GRAPH);
        // The same length, so only the digest can tell; the note of the first start must not hide it.
        std::fs::write(&graph, "grapf").unwrap();
        std::fs::File::options().write(true).open(&graph).unwrap().set_modified(UNIX_EPOCH).unwrap();
        assert!(refusal(dir.path(), &name).contains("sha256"));
        std::fs::write(&graph, "gra").unwrap();
        assert!(refusal(dir.path(), &name).contains("3 bytes instead of 5"));
        std::fs::remove_file(&graph).unwrap();
        let text = refusal(dir.path(), &name);
        assert!(text.contains("model.onnx") && text.contains("missing"), "{text}");
    }

    #[test]
    fn a_folder_that_is_not_there_and_a_broken_manifest_are_one_line_each() {
        let dir = tempfile::tempdir().unwrap();
        let text = refusal(dir.path(), &ModelName::new("nowhere").unwrap());
        assert!(text.contains("model.toml"), "{text}");
        let name = made(dir.path());
        std::fs::write(dir.path().join("m/model.toml"), "kind = [\n").unwrap();
        refusal(dir.path(), &name);
    }

    #[test]
    fn a_manifest_cannot_reach_out_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let name = made(dir.path());
        let path = dir.path().join("m/model.toml");
        let text = std::fs::read_to_string(&path).unwrap() + "\"../x\" = { bytes = 1, sha256 = \"\" }\n";
        std::fs::write(&path, text).unwrap();
        assert!(refusal(dir.path(), &name).contains("no plain file name"));
    }
}
