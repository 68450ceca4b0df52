//! Files of sets on this machine: kept by digest, and laid out as a folder that a registry reads.
//!
//! Nothing is ever half-written: a file is written beside its place and renamed, a folder too.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nineteen_domain::task::{Manifest, TaskEntry, TaskSet};
use nineteen_domain::{Calibration, Digest, TaskName, calibration};

use crate::refusal::Refusal;
use crate::set::{Entry, SET_FILE, Set, from_toml, text_of};
use crate::source::{SourceError, blob_path, read_bounded};

/// Bytes of a manifest.
pub(crate) const MOST_MANIFEST_BYTES: u64 = 256 << 10;
/// Bytes of a calibration.
pub(crate) const MOST_CALIBRATION_BYTES: u64 = 4 << 20;
/// Components from interpreters have some 18 MB.
pub(crate) const MOST_COMPONENT_BYTES: u64 = 64 << 20;
pub(crate) const MANIFEST_FILE: &str = "task.toml";

/// Something is wrong with files of ours.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be read, or is too long.
    #[error("{0}")]
    Read(#[from] SourceError),
    /// A file is not what it has to be.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// The rule.
        why: String,
    },
    /// A set cannot be made of this.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

impl FileError {
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn content(path: &Path, why: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), why: why.into() }
    }
}

/// Writes a whole file or nothing. Folders above it are made.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(FileError::io(folder))?;
    let mut beside = tempfile::NamedTempFile::new_in(folder).map_err(FileError::io(folder))?;
    beside.write_all(bytes).and_then(|()| beside.as_file().sync_all()).map_err(FileError::io(path))?;
    #[cfg(unix)]
    {
        // Temporary files are private; what is written here is served and read by others.
        use std::os::unix::fs::PermissionsExt as _;
        let open = std::fs::Permissions::from_mode(0o644);
        beside.as_file().set_permissions(open).map_err(FileError::io(path))?;
    }
    beside.persist(path).map_err(|e| FileError::Io { path: path.to_owned(), source: e.error })?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<(), FileError> {
    std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(FileError::io(folder))
}

/// Files by digest, in `blobs/sha256/`.
#[derive(Debug, Clone)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// In this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Where a file lies, or would.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(blob_path(digest))
    }

    /// A file, if it is here and is what its name says.
    #[must_use]
    pub fn read(&self, digest: &Digest, most: u64) -> Option<Vec<u8>> {
        read_bounded(&self.path(digest), most).ok().filter(|bytes| Digest::of(bytes) == *digest)
    }

    /// Keeps a file.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, FileError> {
        let digest = Digest::of(bytes);
        write_whole(&self.path(&digest), bytes)?;
        Ok(digest)
    }

    /// Removes every file that none of these names.
    pub(crate) fn prune(&self, named: &std::collections::BTreeSet<String>) -> Result<(), FileError> {
        prune(&self.folder.join("blobs/sha256"), named)
    }
}

/// Removes what is in a folder and not named.
pub(crate) fn prune(folder: &Path, named: &std::collections::BTreeSet<String>) -> Result<(), FileError> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten().filter(|e| !named.contains(&*e.file_name().to_string_lossy())) {
        let path = entry.path();
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(FileError::io(&path))?;
    }
    Ok(())
}

/// Digests that a task names, each with the most bytes of its file.
pub(crate) fn files_of(entry: &Entry) -> impl Iterator<Item = (Digest, u64)> {
    [
        Some((entry.manifest, MOST_MANIFEST_BYTES)),
        entry.calibration.map(|c| (c, MOST_CALIBRATION_BYTES)),
        Some((entry.component, MOST_COMPONENT_BYTES)),
    ]
    .into_iter()
    .flatten()
}

/// The manifest of a task, from its bytes.
pub(crate) fn manifest(task: &TaskName, bytes: &[u8]) -> Result<Manifest, Refusal> {
    let refuse =
        |e: Refusal| Refusal::TaskFile { task: task.clone(), file: MANIFEST_FILE, why: e.to_string() };
    let most = usize::try_from(MOST_MANIFEST_BYTES).unwrap_or(usize::MAX);
    text_of(bytes, most).and_then(from_toml).map_err(refuse)
}

/// Whether a calibration is one, and of this task.
pub(crate) fn check_calibration(task: &TaskName, bytes: &[u8]) -> Result<(), Refusal> {
    let refuse = |why: String| Refusal::TaskFile { task: task.clone(), file: calibration::FILE, why };
    let read = Calibration::read(bytes).map_err(refuse)?;
    if read.task == *task { Ok(()) } else { Err(refuse(format!("it is of '{}'", read.task))) }
}

/// Lays a set out as the folder that a registry reads: `taskset.toml` in the local form, and `tasks/<name>/` with manifest,
/// calibration, component and lock. A folder that is there already is replaced.
///
/// # Errors
/// [`FileError`]: a file is missing or changed; the folder is then as it was.
pub fn checkout(set: &Set, kept: &Kept, into: &Path) -> Result<(), FileError> {
    let above = into.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(above).map_err(FileError::io(above))?;
    let beside = tempfile::Builder::new().prefix(".new-").tempdir_in(above).map_err(FileError::io(above))?;
    for (path, part) in layout(set, kept)? {
        let bytes = match part {
            Part::Text(bytes) => bytes,
            Part::Blob(digest, most) => read(kept, &digest, most)?,
        };
        write_whole(&beside.path().join(path), &bytes)?;
    }
    if into.exists() {
        std::fs::remove_dir_all(into).map_err(FileError::io(into))?;
    }
    std::fs::rename(beside.path(), into).map_err(FileError::io(into))?;
    // Renamed away: there is nothing left to clean.
    let _ = beside.keep();
    sync_folder(above)
}

/// Whether a folder is what [`checkout`] makes of the set.
pub(crate) fn is_checked_out(set: &Set, kept: &Kept, into: &Path) -> bool {
    let same = |(path, part): (PathBuf, Part)| {
        let path = into.join(path);
        match part {
            Part::Text(bytes) => read_bounded(&path, bytes.len() as u64).is_ok_and(|found| found == bytes),
            Part::Blob(digest, most) => read_bounded(&path, most).is_ok_and(|b| Digest::of(&b) == digest),
        }
    };
    layout(set, kept).is_ok_and(|files| files.into_iter().all(same))
}

/// Components are large: they are named here, and read one at a time.
enum Part {
    Text(Vec<u8>),
    Blob(Digest, u64),
}

fn read(kept: &Kept, digest: &Digest, most: u64) -> Result<Vec<u8>, FileError> {
    let gone = || FileError::content(&kept.path(digest), "it is missing or was changed");
    kept.read(digest, most).ok_or_else(gone)
}

fn layout(set: &Set, kept: &Kept) -> Result<Vec<(PathBuf, Part)>, FileError> {
    let no_toml = |e: toml::ser::Error| FileError::content(Path::new(SET_FILE), e.to_string());
    let mut files = Vec::new();
    for t in &set.tasks {
        let folder = PathBuf::from("tasks").join(t.name.as_str());
        let text = read(kept, &t.manifest, MOST_MANIFEST_BYTES)?;
        let component = manifest(&t.name, &text)?.component;
        files.push((folder.join(MANIFEST_FILE), Part::Text(text)));
        if let Some(digest) = &t.calibration {
            files.push((folder.join(calibration::FILE), Part::Blob(*digest, MOST_CALIBRATION_BYTES)));
        }
        // Beside its manifest: two tasks may have two versions of one component.
        files.push((folder.join(format!("{component}.wasm")), Part::Blob(t.component, MOST_COMPONENT_BYTES)));
        let lock = BTreeMap::from([("digests", BTreeMap::from([(component, t.component)]))]);
        let lock = toml::to_string(&lock).map_err(no_toml)?.into_bytes();
        files.push((folder.join("components.lock"), Part::Text(lock)));
    }
    let local = TaskSet {
        name: set.name.clone(),
        version: set.version.clone(),
        policy: set.policy.clone(),
        share_multiplier: set.share_multiplier,
        tasks: set
            .tasks
            .iter()
            .map(|t| TaskEntry { folder: format!("tasks/{}", t.name), weight: t.weight })
            .collect(),
    };
    let text = toml::to_string(&local).map_err(no_toml)?.into_bytes();
    files.push((SET_FILE.into(), Part::Text(text)));
    Ok(files)
}
