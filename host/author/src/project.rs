//! An author's folder.

use std::path::{Path, PathBuf};

use nineteen_domain::task::Manifest;
use serde::{Deserialize, Serialize};

use crate::error::AuthorError;

/// The file that makes a folder a project.
pub(crate) const FILE: &str = "author.toml";
/// Bytes of a small file.
const MOST_BYTES: u64 = 256 << 10;

/// What a task is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// With the SDK; tens of kilobytes.
    Rust,
    /// Through componentize-py; some 18 MB.
    Python,
    /// Through componentize-js; some 12 MB.
    Js,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    lang: Lang,
    task: PathBuf,
    watch: Vec<PathBuf>,
}

/// A project, read.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its folder.
    pub folder: PathBuf,
    /// What it is written in.
    pub lang: Lang,
    /// The task's folder: `task.toml`, vectors, and the component once it is built.
    pub task: PathBuf,
    /// What is built anew when it changes.
    pub watch: Vec<PathBuf>,
    /// `task.toml`.
    pub manifest: Manifest,
}

impl Project {
    /// Reads a project.
    ///
    /// # Errors
    /// A file that is missing or wrong, with its field.
    pub fn read(folder: &Path) -> Result<Self, AuthorError> {
        let file = folder.join(FILE);
        if !file.is_file() {
            let why = "not there: name the folder of a project, or make one with `nineteen task new NAME`";
            return Err(AuthorError::file(&file, why));
        }
        let written: Written = read_toml(&file)?;
        let inside = |path: &PathBuf| path.is_relative() && !path.components().any(|c| c.as_os_str() == "..");
        if let Some(path) = written.watch.iter().chain([&written.task]).find(|p| !inside(p)) {
            return Err(AuthorError::file(&file, format!("'{}' is not inside the project", path.display())));
        }
        let task = folder.join(&written.task);
        let manifest = read_manifest(&task)?;
        Ok(Self {
            folder: folder.to_owned(),
            lang: written.lang,
            watch: written.watch.iter().map(|p| folder.join(p)).collect(),
            task,
            manifest,
        })
    }

    /// Where the component goes.
    #[must_use]
    pub fn component(&self) -> PathBuf {
        self.task.join(format!("{}.wasm", self.manifest.component))
    }
}

/// `task.toml` of a task's folder.
///
/// # Errors
/// With file, line and field.
pub(crate) fn read_manifest(task: &Path) -> Result<Manifest, AuthorError> {
    let file = task.join("task.toml");
    let manifest: Manifest = read_toml(&file)?;
    if manifest.component.is_empty() || manifest.component.contains(['/', '\\', '.']) {
        let why = format!("component: '{}' is a name without folder and ending", manifest.component);
        return Err(AuthorError::file(&file, why));
    }
    Ok(manifest)
}

fn read_toml<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, AuthorError> {
    let long = std::fs::metadata(file).map_err(AuthorError::io(file))?.len();
    if long > MOST_BYTES {
        return Err(AuthorError::file(file, format!("{long} bytes are too many")));
    }
    let text = std::fs::read_to_string(file).map_err(AuthorError::io(file))?;
    toml::from_str(&text).map_err(|e| {
        let line = e.span().map_or(1, |s| text.get(..s.start).map_or(1, |t| t.matches('\n').count() + 1));
        AuthorError::file(file, format!("line {line}: {}", e.message()))
    })
}
