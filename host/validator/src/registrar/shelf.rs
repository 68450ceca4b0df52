//! What a validator runs, on disk: every version of a task as a folder of its own, and generations that name them.
//!
//! ```text
//! versions/<task>-<version>-<digest>/   task.toml, component, components.lock, calibration.json, …
//! generations/<number>/                 taskset.toml, generation.json
//! current                               the number of the generation that runs
//! ```
//! A generation's `taskset.toml` is an ordinary task set: whatever reads those reads a generation. Folders are written beside
//! their place and renamed, `current` is renamed last: a crash at any moment leaves what ran.
//!
//! Not for loading: [`crate::registry`] does that.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nineteen_domain::Digest;
use nineteen_domain::task::{TaskEntry, TaskSet};
use nineteen_oci::{Limits, Packed};
use serde::{Deserialize, Serialize};

use super::listing::{Entry, Listing};
use crate::error::ValidatorError;
use crate::registry;

/// Generations that are kept to go back to.
const KEPT: usize = 16;
/// Bytes of a file of ours.
const MOST_BYTES: u64 = 1 << 20;
const CURRENT: &str = "current";
const GENERATION: &str = "generation.json";
const TASKSET: &str = "taskset.toml";

/// Who made a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The task set that the configuration names.
    Start,
    /// The operator.
    Operator,
    /// A signed set that came into force.
    Subnet,
    /// The host, because of a plugin.
    Host,
}

/// One state of the tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Counts up.
    pub number: u64,
    /// Since when, microseconds of the Unix epoch.
    pub at_us: u64,
    /// Who made it.
    pub by: By,
    /// What was done, in words.
    pub what: String,
    /// Identity of the task set that it began with: another one replaces everything that was changed here.
    pub base: Digest,
    /// The generation whose tasks these are: itself, or the one that was gone back to.
    pub content_of: u64,
    /// The one before; `None` for the first since the base.
    pub before: Option<u64>,
    /// The tasks.
    pub tasks: Listing,
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Shelf {
    folder: PathBuf,
}

fn io(file: &Path) -> impl Fn(std::io::Error) -> ValidatorError + '_ {
    move |e| ValidatorError::File { file: file.to_owned(), why: e.to_string() }
}

fn wrong(file: &Path, why: impl Into<String>) -> ValidatorError {
    ValidatorError::File { file: file.to_owned(), why: why.into() }
}

impl Shelf {
    /// In this folder, which is made with the first generation.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The task set file of a generation.
    #[must_use]
    pub fn taskset(&self, generation: u64) -> PathBuf {
        self.folder.join("generations").join(generation.to_string()).join(TASKSET)
    }

    /// Where events are written down.
    pub(super) fn events_file(&self) -> PathBuf {
        self.folder.join("events.jsonl")
    }

    /// A version's folder.
    #[must_use]
    pub fn version(&self, name: &str) -> PathBuf {
        self.folder.join("versions").join(name)
    }

    /// What runs, or ran when the validator stopped.
    ///
    /// # Errors
    /// Files that are not ours any more, with the way out.
    pub fn current(&self) -> Result<Option<Generation>, ValidatorError> {
        let file = self.folder.join(CURRENT);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(&file)(e)),
        };
        let no_number =
            |_| wrong(&file, "is no number: remove it to begin with the task set as it is configured");
        let number = text.trim().parse().map_err(no_number)?;
        self.generation(number).map(Some)
    }

    /// What runs, if it began with this base.
    ///
    /// # Errors
    /// As [`Shelf::current`].
    pub fn current_of(&self, base: &Digest) -> Result<Option<Generation>, ValidatorError> {
        Ok(self.current()?.filter(|g| g.base == *base))
    }

    /// A generation that is kept.
    ///
    /// # Errors
    /// When it is not, or not whole.
    pub fn generation(&self, number: u64) -> Result<Generation, ValidatorError> {
        let file = self.folder.join("generations").join(number.to_string()).join(GENERATION);
        let again = format!(
            "; to begin with the task set as it is configured, remove {}",
            self.folder.join(CURRENT).display()
        );
        let meta = std::fs::metadata(&file).map_err(|e| wrong(&file, format!("{e}{again}")))?;
        if meta.len() > MOST_BYTES {
            return Err(wrong(&file, format!("{} bytes are no generation{again}", meta.len())));
        }
        let bytes = std::fs::read(&file).map_err(|e| wrong(&file, format!("{e}{again}")))?;
        let read: Generation =
            serde_json::from_slice(&bytes).map_err(|e| wrong(&file, format!("{e}{again}")))?;
        if read.number == number {
            Ok(read)
        } else {
            Err(wrong(&file, format!("number: {}{again}", read.number)))
        }
    }

    /// Numbers of the generations that are kept, ascending.
    #[must_use]
    pub fn numbers(&self) -> Vec<u64> {
        let entries = std::fs::read_dir(self.folder.join("generations")).into_iter().flatten().flatten();
        let mut numbers: Vec<u64> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Puts a task's folder, with its component, on the shelf; what is there already is left as it is.
    ///
    /// # Errors
    /// A folder that is no task, with file and way out.
    pub fn put(&self, folder: &Path, components: &Path, weight: f64) -> Result<Entry, ValidatorError> {
        let packed = Packed::from_folder(folder, components, &Limits::default())
            .map_err(|e| ValidatorError::Shelf { why: e.to_string() })?;
        let manifest = packed.manifest();
        let short: String = packed.digest().hex().chars().take(16).collect();
        let name = format!("{}-{}-{short}", manifest.name, manifest.version);
        let entry = Entry {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            folder: name.clone(),
            weight,
            off: None,
        };
        let place = self.version(&name);
        if place.join("task.toml").is_file() {
            return Ok(entry);
        }
        let lock = format!("[digests]\n{} = \"{}\"\n", manifest.component, packed.component_digest());
        let files =
            packed.layers().iter().filter_map(|l| Some((l.descriptor.path.as_deref()?, l.bytes.as_ref())));
        write_folder(&place, files.chain([("components.lock", lock.as_bytes())]))?;
        Ok(entry)
    }

    /// Writes a generation; it is not the current one yet. `head` gives the set's name, version and policy.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, generation: &Generation, head: &TaskSet) -> Result<(), ValidatorError> {
        let place = self.folder.join("generations").join(generation.number.to_string());
        let tasks = generation.tasks.running().into_iter();
        let set = TaskSet {
            tasks: tasks
                .map(|(e, weight)| TaskEntry { folder: format!("../../versions/{}", e.folder), weight })
                .collect(),
            ..head.clone()
        };
        let text = toml::to_string(&set).map_err(|e| wrong(&place.join(TASKSET), e.to_string()))?;
        let json = serde_json::to_vec_pretty(generation)
            .map_err(|e| wrong(&place.join(GENERATION), e.to_string()))?;
        if place.exists() {
            // Left by a change that did not come to its end: it was never current.
            std::fs::remove_dir_all(&place).map_err(io(&place))?;
        }
        write_folder(&place, [(TASKSET, text.as_bytes()), (GENERATION, json.as_slice())])
    }

    /// Makes a written generation the current one, and drops what nobody goes back to.
    ///
    /// # Errors
    /// When the disk refuses; then the one before is current.
    pub fn make_current(&self, number: u64) -> Result<(), ValidatorError> {
        let file = self.folder.join(CURRENT);
        let mut beside = tempfile::NamedTempFile::new_in(&self.folder).map_err(io(&self.folder))?;
        writeln!(beside, "{number}").and_then(|()| beside.as_file().sync_all()).map_err(io(&file))?;
        beside.persist(&file).map_err(|e| io(&file)(e.error))?;
        sync(&self.folder)?;
        if let Err(e) = self.prune(number) {
            tracing::warn!(error = %e, "old generations of tasks could not be dropped");
        }
        Ok(())
    }

    /// The number for the next generation.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.numbers().last().map_or(1, |n| n.saturating_add(1))
    }

    fn prune(&self, current: u64) -> Result<(), ValidatorError> {
        let numbers = self.numbers();
        let from = numbers.len().saturating_sub(KEPT);
        let (old, kept) = numbers.split_at(from);
        let mut named = BTreeSet::new();
        let mut needed: BTreeSet<u64> = kept.iter().copied().collect();
        needed.insert(current);
        for number in &needed {
            let Ok(generation) = self.generation(*number) else { continue };
            named.extend(generation.tasks.entries().iter().map(|e| e.folder.clone()));
        }
        for number in old.iter().filter(|n| !needed.contains(n)) {
            let place = self.folder.join("generations").join(number.to_string());
            std::fs::remove_dir_all(&place).map_err(io(&place))?;
        }
        for entry in std::fs::read_dir(self.folder.join("versions")).into_iter().flatten().flatten() {
            if !named.contains(&*entry.file_name().to_string_lossy()) {
                std::fs::remove_dir_all(entry.path()).map_err(io(&entry.path()))?;
            }
        }
        Ok(())
    }
}

/// What a task set is: its file, and every file of its tasks that decides anything.
///
/// # Errors
/// As [`registry::read_set`], and for components that are not there.
pub fn identity(taskset: &Path, components: &Path) -> Result<Digest, ValidatorError> {
    let (set, declared) = registry::read_set(taskset)?;
    let mut all = serde_json::to_vec(&set).map_err(|e| wrong(taskset, e.to_string()))?;
    for d in &declared {
        let part = serde_json::to_vec(&d.manifest).map_err(|e| wrong(&d.file, e.to_string()))?;
        all.extend_from_slice(Digest::of(&part).hex().as_bytes());
        let component = registry::component_digest(d, components)?;
        all.extend_from_slice(component.map(|c| c.hex()).unwrap_or_default().as_bytes());
        for beside in [nineteen_domain::calibration::FILE, nineteen_sandbox::vectors::FILE] {
            let bytes = std::fs::read(d.file.with_file_name(beside));
            all.extend_from_slice(bytes.map(|b| Digest::of(&b).hex()).unwrap_or_default().as_bytes());
        }
    }
    Ok(Digest::of(&all))
}

fn write_folder<'a>(
    place: &Path,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), ValidatorError> {
    let above = place.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(above).map_err(io(above))?;
    let made = tempfile::Builder::new().prefix(".new-").tempdir_in(above).map_err(io(above))?;
    for (path, bytes) in files {
        let file = made.path().join(path);
        let folder = file.parent().unwrap_or(made.path());
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let mut out = std::fs::File::create(&file).map_err(io(&file))?;
        out.write_all(bytes).and_then(|()| out.sync_all()).map_err(io(&file))?;
    }
    std::fs::rename(made.path(), place).map_err(io(place))?;
    // It has another name now: there is nothing to delete.
    let _ = made.keep();
    sync(above)
}

fn sync(folder: &Path) -> Result<(), ValidatorError> {
    std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(io(folder))
}
