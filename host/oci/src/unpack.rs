//! From an artifact to a task again: what was fetched, held against itself, and written whole or not at all.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use nineteen_domain::task::Manifest;
use nineteen_domain::{Calibration, Digest, calibration};

use crate::layout::{LOCK_FILE, Layout, TASK_FILE};
use crate::pack::read_manifest;
use crate::refusal::Refusal;

/// A task as it came. Not loaded, and not judged: what it may do is decided by whoever loads it.
#[derive(Debug, Clone)]
pub struct Unpacked {
    manifest: Manifest,
    files: BTreeMap<String, Bytes>,
    component: Bytes,
    component_digest: Digest,
}

impl Unpacked {
    /// Puts together what a layout names; `blobs` holds bytes that were verified against their digests.
    pub(crate) fn new(what: &str, layout: &Layout, blobs: &BTreeMap<Digest, Bytes>) -> Result<Self, Refusal> {
        let refuse = |file: &str, why: String| Refusal::Artifact { what: format!("{what}: {file}"), why };
        let get = |digest: &Digest| {
            blobs.get(digest).cloned().ok_or_else(|| refuse(&digest.to_string(), "missing".into()))
        };
        layout.check_config(what, &get(&layout.config.digest)?)?;
        let mut files = BTreeMap::new();
        for file in &layout.files {
            files.insert(file.name().to_owned(), get(&file.digest)?);
        }
        let component = get(&layout.component.digest)?;
        let text = files.get(TASK_FILE).ok_or_else(|| refuse(TASK_FILE, "missing".into()))?;
        let manifest = read_manifest(text).map_err(|why| refuse(TASK_FILE, why))?;
        if let Some(named) = manifest.digest.filter(|named| *named != layout.component.digest) {
            return Err(refuse(TASK_FILE, format!("digest: {named} is not that of the component in it")));
        }
        if let Some(bytes) = files.get(calibration::FILE) {
            let read = Calibration::read(bytes).map_err(|why| refuse(calibration::FILE, why.to_string()))?;
            if read.task != manifest.name {
                return Err(refuse(calibration::FILE, format!("task: it is of '{}'", read.task)));
            }
        }
        Ok(Self { manifest, files, component, component_digest: layout.component.digest })
    }

    /// `task.toml`, as read.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The component's bytes, unseen by any engine.
    #[must_use]
    pub fn component(&self) -> &Bytes {
        &self.component
    }

    /// The component's digest.
    #[must_use]
    pub fn component_digest(&self) -> Digest {
        self.component_digest
    }

    /// `calibration.json`, if the task has one. It is of this task, and its own checks passed.
    #[must_use]
    pub fn calibration(&self) -> Option<&Bytes> {
        self.files.get(calibration::FILE)
    }

    /// Every file by its path inside the task, `task.toml` and the calibration among them.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, Bytes> {
        &self.files
    }

    /// Bytes of everything together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().chain([&self.component]).map(|bytes| bytes.len() as u64).sum()
    }

    /// Writes the task into a folder that is not there yet, or empty: its files, its component, and a
    /// `components.lock`, so that the folder serves as `paths.components` of this task.
    ///
    /// # Errors
    /// [`Refusal::File`] if something is there already, or cannot be written. Then nothing is left behind.
    pub fn write_into(&self, folder: &Path) -> Result<(), Refusal> {
        let files = self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_ref()));
        write_into(folder, &self.manifest.component, &self.component, files)
    }
}

/// Writes a task's files, its component and a `components.lock` into a folder, all or none.
pub(crate) fn write_into<'a>(
    folder: &Path,
    component_name: &str,
    component: &[u8],
    files: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), Refusal> {
    if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Refusal::File {
            file: folder.to_owned(),
            why: "is not empty: name a folder that is not there yet".into(),
        });
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| Refusal::io(parent, &e))?;
    let made = tempfile::Builder::new()
        .prefix(".unfinished-task-")
        .tempdir_in(parent)
        .map_err(|e| Refusal::io(parent, &e))?;
    let name = format!("{component_name}.wasm");
    let lock = format!("[digests]\n{component_name} = \"{}\"\n", Digest::of(component));
    let write = |path: &str, bytes: &[u8]| {
        let file = made.path().join(path);
        let write = || -> std::io::Result<()> {
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&file, bytes)
        };
        write().map_err(|e| Refusal::io(&file, &e))
    };
    for (path, bytes) in files {
        write(path, bytes)?;
    }
    write(&name, component)?;
    write(LOCK_FILE, lock.as_bytes())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // The folder was made for us alone, and a task is no secret.
        std::fs::set_permissions(made.path(), std::fs::Permissions::from_mode(0o755))
            .map_err(|e| Refusal::io(made.path(), &e))?;
    }
    std::fs::rename(made.path(), folder).map_err(|e| Refusal::io(folder, &e))?;
    // It has another name now: there is nothing to delete.
    let _ = made.keep();
    Ok(())
}
