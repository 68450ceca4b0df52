//! From a task's folder to an artifact: the same folder and component give the same bytes, everywhere and always.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use nineteen_domain::task::Manifest;
use nineteen_domain::{Calibration, Digest, calibration};

use crate::component;
use crate::layout::{
    self, COMPONENT_MEDIA_TYPE, CONFIG_MEDIA_TYPE, Descriptor, LOCK_FILE, Layout, TASK_FILE, expected_type,
    is_path, is_reserved,
};
use crate::refusal::Refusal;
use crate::settings::Limits;

/// Bytes with what the manifest says of them.
#[derive(Debug, Clone)]
pub struct Blob {
    /// What the manifest says.
    pub descriptor: Descriptor,
    /// The bytes.
    pub bytes: Bytes,
}

impl Blob {
    pub(crate) fn new(path: Option<&str>, media_type: &str, bytes: Bytes) -> Self {
        Self { descriptor: Descriptor::of(path, media_type, &bytes), bytes }
    }
}

/// A manifest with its config, as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Artifact {
    pub(crate) manifest: Bytes,
    pub(crate) digest: Digest,
    pub(crate) config: Blob,
}

/// A task, packed.
#[derive(Debug, Clone)]
pub struct Packed {
    manifest: Manifest,
    task: Artifact,
    component_alone: Artifact,
    /// The component first.
    layers: Vec<Blob>,
}

impl Packed {
    /// Packs a task's folder. The component is `<component>.wasm` in the folder itself or else in `components`.
    ///
    /// Every file of the folder is taken but hidden ones, components and `components.lock`.
    ///
    /// # Errors
    /// [`Refusal::File`] with the file and the way out; [`Refusal::TooLarge`], [`Refusal::TooManyLayers`].
    pub fn from_folder(folder: &Path, components: &Path, limits: &Limits) -> Result<Self, Refusal> {
        let mut files = BTreeMap::new();
        collect(folder, "", limits, &mut files)?;
        let at = folder.join(TASK_FILE);
        let text = files.get(TASK_FILE).ok_or_else(|| Refusal::File {
            file: at.clone(),
            why: "not there: name the folder of a task".into(),
        })?;
        let manifest = read_manifest(text).map_err(|why| Refusal::File { file: at.clone(), why })?;
        let name = format!("{}.wasm", manifest.component);
        let beside =
            [folder, components].into_iter().find(|place| place.join(&name).is_file()).ok_or_else(|| {
                Refusal::File {
                    file: components.join(&name),
                    why: format!("not there, nor in {}: build the component first", folder.display()),
                }
            })?;
        let component = read_bounded(&beside.join(&name), limits.layer_bytes)?;
        let lock = beside.join(LOCK_FILE);
        if let Some(locked) =
            locked(&lock, &manifest.component)?.filter(|locked| *locked != Digest::of(&component))
        {
            return Err(Refusal::File {
                file: beside.join(&name),
                why: format!("its digest is not the {locked} of {}: build it anew", lock.display()),
            });
        }
        Self::new(files, component, limits).map_err(|refusal| match refusal {
            Refusal::Artifact { what, why } => Refusal::File { file: folder.join(what), why },
            other => other,
        })
    }

    /// Packs files by their paths, `task.toml` among them, with a component.
    ///
    /// # Errors
    /// [`Refusal::Artifact`] with the path and what is wrong with it; [`Refusal::TooLarge`],
    /// [`Refusal::TooManyLayers`].
    pub fn new(files: BTreeMap<String, Bytes>, component: Bytes, limits: &Limits) -> Result<Self, Refusal> {
        let refuse = |what: &str, why: String| Refusal::Artifact { what: what.to_owned(), why };
        let text = files.get(TASK_FILE).ok_or_else(|| refuse(TASK_FILE, "not there".into()))?;
        let manifest = read_manifest(text).map_err(|why| refuse(TASK_FILE, why))?;
        let name = format!("{}.wasm", manifest.component);
        if let Some(named) = manifest.digest.filter(|named| *named != Digest::of(&component)) {
            return Err(refuse(TASK_FILE, format!("digest: {named} is not that of {name}")));
        }
        if !manifest.version.build.is_empty() {
            return Err(refuse(
                TASK_FILE,
                "version: a tag cannot carry build metadata: leave out '+…'".into(),
            ));
        }
        if let Some(bytes) = files.get(calibration::FILE) {
            let read = Calibration::read(bytes).map_err(|why| refuse(calibration::FILE, why.to_string()))?;
            if read.task != manifest.name {
                return Err(refuse(calibration::FILE, format!("task: it is of '{}'", read.task)));
            }
        }
        let surface = component::surface(&component).map_err(|why| refuse(&name, why))?;
        let mut layers = vec![Blob::new(Some(&name), COMPONENT_MEDIA_TYPE, component)];
        for (path, bytes) in files {
            if !is_path(&path) {
                return Err(refuse(
                    &path,
                    "use a-z, 0-9, '.', '_', '-' in names, and folders 8 deep at most".into(),
                ));
            }
            layers.push(Blob::new(Some(&path), expected_type(&path), bytes));
        }
        let all: Vec<&Descriptor> = layers.iter().map(|layer| &layer.descriptor).collect();
        let artifact = |layers: &[&Descriptor]| -> Result<Artifact, Refusal> {
            let config = Blob::new(None, CONFIG_MEDIA_TYPE, layout::config(&surface, layers)?.into());
            let bytes =
                layout::manifest(manifest.name.as_str(), &manifest.version, &config.descriptor, layers)?;
            Ok(Artifact { digest: Digest::of(&bytes), manifest: bytes.into(), config })
        };
        let task = artifact(&all)?;
        let component_alone = artifact(all.get(..1).unwrap_or_default())?;
        // What we would not take from others we do not make.
        Layout::read(manifest.name.as_str(), &task.manifest, limits)?;
        Ok(Self { manifest, task, component_alone, layers })
    }

    /// `task.toml`, as read.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The digest that names the task, with every byte in it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.task.digest
    }

    /// The digest that names the artifact with the component alone.
    #[must_use]
    pub fn component_artifact_digest(&self) -> Digest {
        self.component_alone.digest
    }

    /// The digest of the component.
    #[must_use]
    pub fn component_digest(&self) -> Digest {
        // A pack begins with the component: `new` puts it there.
        self.layers.first().map_or(Digest::of(b""), |layer| layer.descriptor.digest)
    }

    /// Writes the task into a folder that is not there yet, or empty, as pulling it would.
    ///
    /// # Errors
    /// [`Refusal::File`] if something is there already, or cannot be written. Then nothing is left behind.
    pub fn write_into(&self, folder: &Path) -> Result<(), Refusal> {
        // The component comes first: `new` puts it there.
        let (component, files) = self.layers.split_first().ok_or_else(|| Refusal::Artifact {
            what: self.manifest.name.to_string(),
            why: "it has no component".into(),
        })?;
        let files = files.iter().filter_map(|l| Some((l.descriptor.path.as_deref()?, l.bytes.as_ref())));
        crate::unpack::write_into(folder, &self.manifest.component, &component.bytes, files)
    }

    /// The manifest's bytes.
    #[must_use]
    pub fn manifest_bytes(&self) -> &Bytes {
        &self.task.manifest
    }

    /// The layers, the component first, then files by path.
    #[must_use]
    pub fn layers(&self) -> &[Blob] {
        &self.layers
    }

    /// The config's blob.
    #[must_use]
    pub fn config(&self) -> &Blob {
        &self.task.config
    }

    pub(crate) fn task(&self) -> &Artifact {
        &self.task
    }

    pub(crate) fn component_alone(&self) -> &Artifact {
        &self.component_alone
    }
}

/// `task.toml` from its bytes. The error names line and field.
pub(crate) fn read_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is no UTF-8".to_owned())?;
    let manifest: Manifest = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |s| text.get(..s.start).map_or(1, |t| t.matches('\n').count() + 1));
        format!("line {line}: {}", crate::refusal::cut(e.message(), 200))
    })?;
    if let Some((field, asked, cap)) = manifest.budget.excess() {
        return Err(format!("budget.{field}: {asked} is more than a host allows ({cap})"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if !(1..=64).contains(&manifest.component.len()) || !manifest.component.bytes().all(plain) {
        return Err("component: use 1 to 64 of a-z, 0-9, '-' and '_', without folder and ending".into());
    }
    Ok(manifest)
}

fn collect(
    folder: &Path,
    prefix: &str,
    limits: &Limits,
    files: &mut BTreeMap<String, Bytes>,
) -> Result<(), Refusal> {
    let entries = std::fs::read_dir(folder).map_err(|e| Refusal::io(folder, &e))?;
    for entry in entries {
        let entry = entry.map_err(|e| Refusal::io(folder, &e))?;
        let (file, name) = (entry.path(), entry.file_name());
        let refuse = |why: &str| Refusal::File { file: file.clone(), why: why.to_owned() };
        let name = name.to_str().ok_or_else(|| refuse("its name is no UTF-8"))?;
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        if name.starts_with('.') || is_reserved(&path) {
            continue;
        }
        let kind = entry.file_type().map_err(|e| Refusal::io(&file, &e))?;
        if !is_path(&path) {
            return Err(refuse("use a-z, 0-9, '.', '_', '-' in names, and folders 8 deep at most"));
        }
        if kind.is_dir() {
            collect(&file, &path, limits, files)?;
        } else if kind.is_file() {
            // The component is a layer, too.
            if files.len() + 1 >= limits.layers {
                return Err(refuse(&format!(
                    "a task has at most {} files: move what is no part of it",
                    limits.layers
                )));
            }
            files.insert(path, read_bounded(&file, limits.layer_bytes)?);
        } else {
            return Err(refuse("is no plain file: a task is packed from files and folders only"));
        }
    }
    Ok(())
}

fn read_bounded(file: &Path, most: u64) -> Result<Bytes, Refusal> {
    let opened = std::fs::File::open(file).map_err(|e| Refusal::io(file, &e))?;
    let mut bytes = Vec::new();
    // One more than allowed, so that it is seen.
    opened.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| Refusal::io(file, &e))?;
    if bytes.len() as u64 > most {
        return Err(Refusal::TooLarge { what: file.display().to_string(), most });
    }
    Ok(bytes.into())
}

/// What a lock says of a component; `None` without lock or entry.
fn locked(lock: &Path, component: &str) -> Result<Option<Digest>, Refusal> {
    #[derive(serde::Deserialize)]
    struct Lock {
        digests: BTreeMap<String, Digest>,
    }
    if !lock.is_file() {
        return Ok(None);
    }
    let bytes = read_bounded(lock, 1 << 20)?;
    let refuse = |why: String| Refusal::File { file: lock.to_owned(), why };
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("is no UTF-8".into()))?;
    let read: Lock = toml::from_str(text).map_err(|e| refuse(e.message().to_owned()))?;
    Ok(read.digests.get(component).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = r#"
        name = "echo"
        version = "0.1.0"
        host = ">=0.1"
        component = "echo"
        operation = "chat.completions"
        path = "/v1/chat/completions"
        unit = "tokens"
        cap_per_hour = 1
    "#;

    fn component() -> Vec<u8> {
        wat::parse_str(r#"(component (instance $i) (export "nineteen:task/task@0.1.0" (instance $i)))"#)
            .unwrap()
    }

    /// A folder with a task, its component and an asset.
    fn folder(task: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("words")).unwrap();
        for (name, bytes) in [
            ("task.toml", task.as_bytes()),
            ("echo.wasm", &component()),
            ("words/a.txt", b"a"),
            (".hidden", b"x"),
        ] {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn pack(folder: &Path) -> Result<Packed, Refusal> {
        Packed::from_folder(folder, Path::new("/nonexistent"), &Limits::default())
    }

    #[test]
    fn the_same_task_has_the_same_digest_everywhere_and_always() {
        let (a, b) = (pack(folder(TASK).path()).unwrap(), pack(folder(TASK).path()).unwrap());
        assert_eq!((a.digest(), a.manifest_bytes()), (b.digest(), b.manifest_bytes()));
        let files = BTreeMap::from([
            ("words/a.txt".to_owned(), Bytes::from_static(b"a")),
            ("task.toml".to_owned(), TASK.into()),
        ]);
        let c = Packed::new(files, component().into(), &Limits::default()).unwrap();
        assert_eq!(a.digest(), c.digest());
        let names: Vec<_> = a.layers().iter().map(|layer| layer.descriptor.name().to_owned()).collect();
        assert_eq!(names, ["echo.wasm", "task.toml", "words/a.txt"]);
        // Written down, so that a change of a library or of ours cannot pass unseen: digests are in signed sets.
        let written = "sha256:b805b701d021b7cbbbf5c6797cd13875be17387b89821793c06b27120a1b6d33";
        assert_eq!(a.digest().to_string(), written, "{}", String::from_utf8_lossy(a.manifest_bytes()));
    }

    #[test]
    fn one_byte_anywhere_is_another_digest() {
        let first = pack(folder(TASK).path()).unwrap().digest();
        for name in ["task.toml", "words/a.txt"] {
            let changed = folder(TASK);
            let file = changed.path().join(name);
            let mut bytes = std::fs::read(&file).unwrap();
            bytes.push(b'\n');
            std::fs::write(file, bytes).unwrap();
            assert_ne!(pack(changed.path()).unwrap().digest(), first, "{name}");
        }
    }

    #[test]
    fn folders_that_are_no_tasks_are_refused_by_file_and_field() {
        type Spoil = fn(&Path);
        let table: [(Spoil, &str); 9] = [
            (|f| std::fs::remove_file(f.join("task.toml")).unwrap(), "name the folder of a task"),
            (|f| std::fs::remove_file(f.join("echo.wasm")).unwrap(), "build the component first"),
            (
                |f| std::fs::write(f.join("echo.wasm"), wat::parse_str("(module)").unwrap()).unwrap(),
                "core module",
            ),
            (|f| std::fs::write(f.join("echo.wasm"), "#!/bin/sh").unwrap(), "no WebAssembly component"),
            (|f| std::os::unix::fs::symlink("/etc/passwd", f.join("words/b")).unwrap(), "no plain file"),
            (|f| std::fs::write(f.join("two words"), "").unwrap(), "two words: use a-z"),
            (|f| std::fs::write(f.join("calibration.json"), "{}").unwrap(), "calibration.json: "),
            (
                |f| (0..70).for_each(|n| std::fs::write(f.join(format!("f{n}")), "").unwrap()),
                "at most 64 files",
            ),
            (
                |f| {
                    let lock = format!("[digests]\necho = \"{}\"\n", Digest::of(b"x"));
                    std::fs::write(f.join("components.lock"), lock).unwrap();
                },
                "build it anew",
            ),
        ];
        for (spoil, says) in table {
            let folder = folder(TASK);
            spoil(folder.path());
            let said = pack(folder.path()).unwrap_err().to_string();
            assert!(said.contains(says) && !said.contains('\n'), "{says}: {said}");
        }
        let digest = format!("digest = \"{}\"\n{TASK}", Digest::of(b"x"));
        for (task, says) in [
            (TASK.replace("0.1.0", "0.1.0+build"), "build metadata"),
            (TASK.replace("\"echo\"", "\"../echo\""), "task.toml: line"),
            (TASK.replace("component = \"echo\"", "component = \"../echo\""), "component: use"),
            (TASK.replace("unit", "unitt"), "line"),
            (format!("{TASK}[budget]\nfuel = 99000000000"), "budget.fuel"),
            (digest, "is not that of echo.wasm"),
        ] {
            let said = pack(folder(&task).path()).unwrap_err().to_string();
            assert!(said.contains(says) && said.contains("task.toml"), "{says}: {said}");
        }
    }
}
