//! Remembering that a step was done, and noticing when it must be done again.
//!
//! A stamp holds a *key*, the hash of everything that the step's outcome depends on, and what it made with sizes.
//! The step is fresh when the key is the same and everything it made is still there at its size. Contents of
//! outputs are not hashed: half a gigabyte of models would cost a second each time, and nothing is ever put in
//! place half-written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cache::{self, Cache};

/// Folders that are never a source.
const NO_SOURCE: [&str; 4] = ["target", "__pycache__", "node_modules", ".git"];

/// Collects what a step depends on.
pub(crate) struct Key(Sha256);

impl Key {
    /// `version` names the step and changes when its code does something else with the same inputs.
    pub(crate) fn new(version: &str) -> Key {
        Key(Sha256::new()).text(version)
    }

    /// Adds bytes. The length goes first, so that no two sequences of parts look alike.
    fn part(mut self, bytes: &[u8]) -> Key {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds words.
    pub(crate) fn text(self, text: &str) -> Key {
        self.part(text.as_bytes())
    }

    /// Adds a file, or every file below a folder: relative path and content, in order of the paths.
    pub(crate) fn tree(mut self, path: &Path) -> Result<Key> {
        let mut files = Vec::new();
        list(path, &mut files).with_context(|| format!("{} cannot be read", path.display()))?;
        files.sort();
        self = self.text(&files.len().to_string());
        for file in files {
            let name = file.strip_prefix(path).unwrap_or(&file);
            let bytes = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            self = self.text(&name.to_string_lossy()).part(&bytes);
        }
        Ok(self)
    }

    /// The key: 64 hexadecimal digits.
    pub(crate) fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

/// Every file at or below `path`, but not in folders that hold no sources.
fn list(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if NO_SOURCE.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        list(&entry.path(), files)?;
    }
    Ok(())
}

/// What is written when a step is done.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    key: String,
    /// Bytes by path, relative to the cache's root.
    made: BTreeMap<String, u64>,
}

fn place(cache: &Cache, step: &str) -> PathBuf {
    cache.path("stamps").join(format!("{step}.toml"))
}

/// Whether the step was done with this key and everything that it made is still there.
pub(crate) fn fresh(cache: &Cache, step: &str, key: &str) -> bool {
    let Ok(text) = fs::read_to_string(place(cache, step)) else { return false };
    let Ok(stamp) = toml::from_str::<Stamp>(&text) else { return false };
    let there = |(path, bytes): (&String, &u64)| {
        fs::metadata(cache.path(path)).is_ok_and(|meta| meta.is_file() && meta.len() == *bytes)
    };
    stamp.key == key && stamp.made.iter().all(there)
}

/// Writes that the step is done and made these files (and all files below these folders).
pub(crate) fn write(cache: &Cache, step: &str, key: &str, outputs: &[PathBuf]) -> Result<()> {
    let mut files = Vec::new();
    for output in outputs {
        list(output, &mut files)
            .with_context(|| format!("{} should have been made and was not", output.display()))?;
    }
    let mut made = BTreeMap::new();
    for file in files {
        let bytes = fs::metadata(&file).with_context(|| format!("{} cannot be read", file.display()))?.len();
        let name = file.strip_prefix(cache.root()).unwrap_or(&file);
        made.insert(name.to_string_lossy().into_owned(), bytes);
    }
    let text = toml::to_string(&Stamp { key: key.to_owned(), made }).context("a stamp cannot be written")?;
    cache::write(&place(cache, step), text.as_bytes())
}

/// Forgets that a step was done: the first thing a step does when it begins again.
pub(crate) fn forget(cache: &Cache, step: &str) {
    // A stamp that stays only makes the step look fresh if its outputs are all there, too.
    let _ = cache::remove(&place(cache, step));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(folder: &Path) -> String {
        Key::new("test/1").tree(folder).unwrap().finish()
    }

    #[test]
    fn the_key_follows_names_and_contents_and_ignores_build_folders() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/a.rs"), "a").unwrap();
        let first = key(folder.path());
        assert_eq!(first, key(folder.path()));

        fs::create_dir_all(folder.path().join("target")).unwrap();
        fs::write(folder.path().join("target/junk"), "j").unwrap();
        assert_eq!(first, key(folder.path()), "what a build leaves is no source");

        fs::write(folder.path().join("src/a.rs"), "b").unwrap();
        let second = key(folder.path());
        assert_ne!(first, second);
        fs::rename(folder.path().join("src/a.rs"), folder.path().join("src/b.rs")).unwrap();
        assert_ne!(second, key(folder.path()), "a renamed file is another source");
    }

    #[test]
    fn parts_cannot_flow_into_each_other() {
        assert_ne!(Key::new("ab").text("c").finish(), Key::new("a").text("bc").finish());
    }

    #[test]
    fn a_step_is_fresh_until_its_key_or_what_it_made_changes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned()).unwrap();
        let model = cache.path("models/m/model.onnx");
        cache::write(&model, b"weights").unwrap();
        assert!(!fresh(&cache, "models", "k"), "never done");

        write(&cache, "models", "k", &[cache.path("models")]).unwrap();
        assert!(fresh(&cache, "models", "k"));
        assert!(!fresh(&cache, "models", "other key"));

        fs::write(&model, b"weig").unwrap();
        assert!(!fresh(&cache, "models", "k"), "an output was cut short");
        fs::write(&model, b"weights").unwrap();
        assert!(fresh(&cache, "models", "k"));
        forget(&cache, "models");
        assert!(!fresh(&cache, "models", "k"));
    }

    #[test]
    fn a_damaged_stamp_means_do_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned()).unwrap();
        cache::write(&cache.path("stamps/models.toml"), b"key = \"k\"\n[made").unwrap();
        assert!(!fresh(&cache, "models", "k"));
    }

    #[test]
    fn a_step_that_made_nothing_is_not_done() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned()).unwrap();
        let error = write(&cache, "models", "k", &[cache.path("models")]).unwrap_err();
        assert!(error.to_string().contains("should have been made"), "{error}");
        assert!(!fresh(&cache, "models", "k"));
    }
}
