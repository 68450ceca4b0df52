//! The live tasks: read a task set, load its plugins, and hand out one immutable snapshot.
//!
//! A snapshot is what everybody else sees; a change of tasks is a new snapshot (invariant 6).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nineteen_domain::task::{Manifest, TaskSet};
use nineteen_domain::{Calibration, Digest, MasterSeed, ModelName, TaskName, calibration};
use nineteen_sandbox::vectors::{self, Vectors};
use nineteen_sandbox::{Assets, ComponentSource, Plugin, Sandbox};

use crate::error::ValidatorError;

/// Requests synthesised at load to learn how much work one asks for.
const SAMPLE_REQUESTS: u32 = 32;
/// A calibration has some ten kilobytes.
const MOST_CALIBRATION_BYTES: u64 = 4 << 20;

/// One live task.
#[derive(Debug, Clone)]
pub struct LiveTask {
    /// As written.
    pub manifest: Manifest,
    /// Where its `task.toml` lies.
    pub folder: PathBuf,
    /// Share of the subnet's reward, in [0, 1].
    pub weight: f64,
    /// Its component, loaded.
    pub plugin: Arc<Plugin>,
    /// Mean units that one synthetic request asks for; at least 1.
    pub expected_units: u64,
    /// What its plugin judges honesty by; without one nobody is accused.
    pub calibration: Option<Calibration>,
    /// Exchanges of which its author says what comes out; played at load, and when the plugin fails.
    pub vectors: Arc<Vectors>,
    /// What it took to make the task live, in order.
    pub steps: Vec<(&'static str, Duration)>,
}

/// All live tasks, by name.
#[derive(Debug)]
pub struct Tasks {
    /// Name and version of the set.
    pub set: TaskSet,
    /// The tasks.
    pub by_name: BTreeMap<TaskName, Arc<LiveTask>>,
}

/// A manifest and the weight that the set gives it, before its plugin is loaded.
#[derive(Debug)]
pub struct Declared {
    /// Where it was read.
    pub file: PathBuf,
    /// As written.
    pub manifest: Manifest,
    /// In [0, 1].
    pub weight: f64,
}

impl Tasks {
    /// The plugin of a task.
    #[must_use]
    pub fn plugin(&self, task: &TaskName) -> Option<&Arc<Plugin>> {
        self.by_name.get(task).map(|t| &t.plugin)
    }
}

/// Name, version and policy of a set, without its tasks.
///
/// # Errors
/// [`ValidatorError::File`].
pub fn read_head(file: &Path) -> Result<TaskSet, ValidatorError> {
    let set: TaskSet = read_toml(file)?;
    Ok(TaskSet { tasks: Vec::new(), ..set })
}

/// The manifest in a task's folder, held to what every manifest is held to.
///
/// # Errors
/// [`ValidatorError::File`] with file, field and way out.
pub fn read_manifest(folder: &Path) -> Result<Manifest, ValidatorError> {
    let file = folder.join("task.toml");
    let manifest: Manifest = read_toml(&file)?;
    check_manifest(&file, &manifest)?;
    Ok(manifest)
}

/// Reads `taskset.toml` and the manifests it names.
///
/// # Errors
/// [`ValidatorError::File`] with file, field and way out.
pub fn read_set(file: &Path) -> Result<(TaskSet, Vec<Declared>), ValidatorError> {
    let set: TaskSet = read_toml(file)?;
    let refuse = |why: String| ValidatorError::File { file: file.to_owned(), why };
    if set.tasks.is_empty() {
        return Err(refuse("task: a set needs at least one [[task]]".into()));
    }
    if let Some(t) = set.tasks.iter().find(|t| !(0.0..=1.0).contains(&t.weight)) {
        return Err(refuse(format!("task '{}': weight {} is outside 0 to 1", t.folder, t.weight)));
    }
    let sum: f64 = set.tasks.iter().map(|t| t.weight).sum();
    if (sum - 1.0).abs() > 1e-9 {
        return Err(refuse(format!("task: the weights sum to {sum}, not to 1: change them so that they do")));
    }
    if set.share_multiplier.is_some_and(|m| !(m.is_finite() && m > 0.0)) {
        return Err(refuse("share_multiplier: use a number above 0".into()));
    }
    let base = file.parent().unwrap_or(Path::new("."));
    let mut declared: Vec<Declared> = Vec::with_capacity(set.tasks.len());
    for entry in &set.tasks {
        let file = base.join(&entry.folder).join("task.toml");
        let manifest: Manifest = read_toml(&file)?;
        check_manifest(&file, &manifest)?;
        if declared.iter().any(|d| d.manifest.name == manifest.name) {
            return Err(refuse(format!("task '{}' is in the set twice", manifest.name)));
        }
        declared.push(Declared { file, manifest, weight: entry.weight });
    }
    Ok((set, declared))
}

fn read_toml<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, ValidatorError> {
    let refuse = |why: String| ValidatorError::File { file: file.to_owned(), why };
    let text = std::fs::read_to_string(file).map_err(|e| refuse(format!("cannot be read: {e}")))?;
    toml::from_str(&text).map_err(|e| {
        let line = e.span().map_or(1, |s| text.get(..s.start).map_or(1, |t| t.matches('\n').count() + 1));
        refuse(format!("line {line}: {}", e.message()))
    })
}

fn check_manifest(file: &Path, m: &Manifest) -> Result<(), ValidatorError> {
    let refuse = |why: String| Err(ValidatorError::File { file: file.to_owned(), why });
    if let Some((field, asked, cap)) = m.budget.excess() {
        return refuse(format!("budget.{field}: {asked} is more than this host allows ({cap})"));
    }
    if !m.path.starts_with('/') || m.path.contains(['?', '#', ' ', '\r', '\n']) {
        return refuse(format!("path: '{}' is not a plain absolute path", m.path));
    }
    if m.component.is_empty() || m.component.contains(['/', '\\', '.']) {
        return refuse(format!("component: '{}' is a name without folder and ending", m.component));
    }
    if m.cap_per_hour == 0 {
        return refuse(
            "cap_per_hour: 0 would pay nobody; use the most that one miner may be credited with".into(),
        );
    }
    let host = host_version();
    if !m.host.matches(&host) {
        return refuse(format!("host: this task asks for nineteen {}, this is {host}", m.host));
    }
    Ok(())
}

/// The version that manifests are held against.
#[must_use]
pub fn host_version() -> semver::Version {
    env!("CARGO_PKG_VERSION").parse().unwrap_or(semver::Version::new(0, 0, 0))
}

/// Loads every plugin of the set. `grace` of a single bad task is not given at start: a validator that
/// would silently run another set than its neighbours is worse than one that says why it does not start.
///
/// # Errors
/// The first task that does not load, with the sandbox's reason.
pub async fn load(
    file: &Path,
    components: &Path,
    sandbox: &Sandbox,
    secret: &MasterSeed,
) -> Result<Tasks, ValidatorError> {
    let (set, declared) = read_set(file)?;
    let mut by_name = BTreeMap::new();
    for d in declared {
        let live = load_one(d, components, sandbox, secret).await?;
        by_name.insert(live.manifest.name.clone(), Arc::new(live));
    }
    Ok(Tasks { set, by_name })
}

/// The same for a validator that runs `before`: what is in both sets is not loaded again, whatever its weight. An error
/// leaves what runs as it is.
///
/// # Errors
/// As [`load`].
pub async fn load_after(
    before: &Tasks,
    file: &Path,
    components: &Path,
    sandbox: &Sandbox,
    secret: &MasterSeed,
) -> Result<Tasks, ValidatorError> {
    let (set, declared) = read_set(file)?;
    let mut by_name = BTreeMap::new();
    for d in declared {
        let digest = component_digest(&d, components)?;
        let calibration = read_calibration(&d.file, &d.manifest)?;
        let runs = before.by_name.get(&d.manifest.name).filter(|runs| {
            runs.manifest == d.manifest
                && Some(runs.plugin.digest()) == digest
                && read_vectors(&d.file).is_ok_and(|v| v == runs.vectors)
                && runs.calibration.as_ref() == calibration.as_ref().map(|(_, read)| read)
        });
        let live = match runs {
            Some(runs) => {
                let folder = d.file.parent().unwrap_or(Path::new(".")).to_owned();
                LiveTask { weight: d.weight, folder, ..LiveTask::clone(runs) }
            }
            None => load_plugin(d, calibration, components, sandbox, secret).await?,
        };
        by_name.insert(live.manifest.name.clone(), Arc::new(live));
    }
    Ok(Tasks { set, by_name })
}

/// Compiles every component of a set that is not live yet, so that taking it up later is quick. What does not load is said,
/// and does not keep the others.
///
/// # Errors
/// A set that cannot be read.
pub async fn warm(file: &Path, components: &Path, sandbox: &Sandbox) -> Result<(), ValidatorError> {
    let (_, declared) = read_set(file)?;
    for d in declared {
        let (path, expected) = component_of(&d.file, &d.manifest, components)?;
        let assets = shipped(read_calibration(&d.file, &d.manifest)?.map(|(bytes, _)| bytes));
        if let Err(e) = sandbox.load(ComponentSource::Path(path), expected, &d.manifest, assets).await {
            tracing::warn!(error = %e, "a task of the set that waits does not load");
        }
    }
    Ok(())
}

/// Loads one task by its folder, with everything beside it.
///
/// # Errors
/// As [`load`].
pub async fn load_task(
    folder: &Path,
    components: &Path,
    sandbox: &Sandbox,
    secret: &MasterSeed,
) -> Result<LiveTask, ValidatorError> {
    let file = folder.join("task.toml");
    let manifest = read_manifest(folder)?;
    load_one(Declared { file, manifest, weight: 1.0 }, components, sandbox, secret).await
}

/// Loads the plugin of one task by its folder, without a calibration that may be beside it: for making one anew.
///
/// # Errors
/// As [`load`].
pub async fn load_uncalibrated(
    folder: &Path,
    components: &Path,
    sandbox: &Sandbox,
    secret: &MasterSeed,
) -> Result<LiveTask, ValidatorError> {
    let file = folder.join("task.toml");
    let manifest: Manifest = read_toml(&file)?;
    check_manifest(&file, &manifest)?;
    let declared = Declared { file, manifest, weight: 1.0 };
    load_plugin(declared, None, components, sandbox, secret).await
}

/// Loads the plugin of one task of the set, with what is shipped with it: for playing receipts again. `given`
/// is another component than the one that runs here, of which no digest is expected.
///
/// # Errors
/// As [`load`].
pub async fn plugin_of(
    set: &Path,
    task: &TaskName,
    components: &Path,
    given: Option<&Path>,
    sandbox: &Sandbox,
) -> Result<Arc<Plugin>, ValidatorError> {
    let (_, declared) = read_set(set)?;
    let Some(d) = declared.into_iter().find(|d| d.manifest.name == *task) else {
        let why = format!("task '{task}' is not in this set: choose the set that has it with paths.taskset");
        return Err(ValidatorError::File { file: set.to_owned(), why });
    };
    let calibration = read_calibration(&d.file, &d.manifest)?.map(|(bytes, _)| bytes);
    let mut manifest = d.manifest.clone();
    let (path, expected) = match given {
        Some(path) => {
            manifest.digest = None;
            (path.to_owned(), None)
        }
        None => component_of(&d.file, &manifest, components)?,
    };
    sandbox
        .load(ComponentSource::Path(path), expected, &manifest, shipped(calibration))
        .await
        .map_err(|e| ValidatorError::Load { task: task.clone(), why: e.to_string() })
}

/// What a plugin can read beside its manifest.
fn shipped(calibration: Option<Vec<u8>>) -> Assets {
    Assets::new(calibration.map(|bytes| (calibration::FILE.to_owned(), bytes.into())).into_iter().collect())
}

/// The vectors beside a manifest; none where there is no file.
fn read_vectors(manifest_file: &Path) -> Result<Arc<Vectors>, ValidatorError> {
    let file = manifest_file.with_file_name(vectors::FILE);
    let refuse = |why: String| ValidatorError::File { file: file.clone(), why };
    let bytes = match std::fs::metadata(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Arc::default()),
        Ok(meta) if meta.len() > vectors::MOST_BYTES => {
            return Err(refuse(format!("{} bytes are more than {}", meta.len(), vectors::MOST_BYTES)));
        }
        _ => std::fs::read(&file).map_err(|e| refuse(format!("cannot be read: {e}")))?,
    };
    Vectors::read(&bytes).map(Arc::new).map_err(|e| refuse(e.to_string()))
}

/// The calibration beside a manifest, as bytes for the plugin and as we read it.
fn read_calibration(
    manifest_file: &Path,
    m: &Manifest,
) -> Result<Option<(Vec<u8>, Calibration)>, ValidatorError> {
    let file = manifest_file.with_file_name(calibration::FILE);
    let again = format!("; remove the file, or make it anew: nineteen task calibrate {}", m.name);
    let refuse = |why: String| ValidatorError::File { file: file.clone(), why: why + &again };
    let bytes = match std::fs::metadata(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(meta) if meta.len() > MOST_CALIBRATION_BYTES => {
            return Err(refuse(format!("{} bytes are no calibration", meta.len())));
        }
        _ => std::fs::read(&file).map_err(|e| refuse(format!("cannot be read: {e}")))?,
    };
    let read = Calibration::read(&bytes).map_err(&refuse)?;
    if read.task != m.name {
        return Err(refuse(format!("task: it is of '{}', not of '{}'", read.task, m.name)));
    }
    if !m.grants.values().flatten().any(|granted| *granted == read.model.name) {
        return Err(refuse(format!("model.name: '{}' is not granted to this task", read.model.name)));
    }
    Ok(Some((bytes, read)))
}

/// Refuses tasks whose calibration is of another model than the one that is served.
///
/// # Errors
/// [`ValidatorError::Load`] with the way out. `identity` says what a served model is made from.
pub fn hold_calibrations<E: std::fmt::Display>(
    tasks: &Tasks,
    identity: impl Fn(&ModelName) -> Result<Digest, E>,
) -> Result<(), ValidatorError> {
    for (name, task) in &tasks.by_name {
        let Some(c) = &task.calibration else { continue };
        let refuse = |why: String| ValidatorError::Load { task: name.clone(), why };
        let served = identity(&c.model.name).map_err(|e| refuse(e.to_string()))?;
        if served != c.model.identity {
            return Err(refuse(format!(
                "{}: model.identity: it was made with another '{}' ({}) than the one that is served ({served}); \
                 make it anew: nineteen task calibrate {name}",
                calibration::FILE,
                c.model.name,
                c.model.identity
            )));
        }
    }
    Ok(())
}

async fn load_one(
    d: Declared,
    components: &Path,
    sandbox: &Sandbox,
    secret: &MasterSeed,
) -> Result<LiveTask, ValidatorError> {
    let calibration = read_calibration(&d.file, &d.manifest)?;
    load_plugin(d, calibration, components, sandbox, secret).await
}

async fn load_plugin(
    d: Declared,
    calibration: Option<(Vec<u8>, Calibration)>,
    components: &Path,
    sandbox: &Sandbox,
    secret: &MasterSeed,
) -> Result<LiveTask, ValidatorError> {
    let Declared { file, manifest, weight } = d;
    let (path, expected) = component_of(&file, &manifest, components)?;
    if expected.is_none() {
        return Err(ValidatorError::File {
            file,
            why: format!(
                "digest: missing, and '{}' is not in {}: add the digest or run `cargo xtask setup`",
                manifest.component,
                components.join("components.lock").display()
            ),
        });
    }
    let source = ComponentSource::Path(path);
    let (bytes, calibration) = calibration.unzip();
    let plugin = sandbox
        .load(source, expected, &manifest, shipped(bytes))
        .await
        .map_err(|e| ValidatorError::Load { task: manifest.name.clone(), why: e.to_string() })?;
    let mut steps = plugin.load_steps().to_vec();
    let begun = Instant::now();
    let vectors = read_vectors(&file)?;
    let (playing, played) = (Arc::clone(&vectors), Arc::clone(&plugin));
    tokio::task::spawn_blocking(move || playing.play(&played))
        .await
        .map_err(|e| ValidatorError::Load { task: manifest.name.clone(), why: e.to_string() })?
        .map_err(|e| ValidatorError::Load { task: manifest.name.clone(), why: e.to_string() })?;
    steps.push(("vectors", begun.elapsed()));
    let begun = Instant::now();
    let expected_units = expected_units(&plugin, secret, &manifest.name).await?;
    steps.push(("sample", begun.elapsed()));
    tracing::info!(task = %manifest.name, digest = %plugin.digest(), wit = %plugin.wit_version(), expected_units, "task is live");
    let folder = file.parent().unwrap_or(Path::new(".")).to_owned();
    Ok(LiveTask { manifest, folder, weight, plugin, expected_units, calibration, vectors, steps })
}

/// Mean over a few synthetic requests that are sent to nobody.
async fn expected_units(
    plugin: &Arc<Plugin>,
    secret: &MasterSeed,
    task: &TaskName,
) -> Result<u64, ValidatorError> {
    let (plugin, task) = (Arc::clone(plugin), task.clone());
    let seeds: Vec<_> =
        (0..SAMPLE_REQUESTS).map(|i| secret.derive("expected-units", &format!("{task}/{i}"))).collect();
    let name = task.clone();
    let run = move || {
        let mut sum: u64 = 0;
        for seed in &seeds {
            sum = sum.saturating_add(plugin.synthesize(seed)?.expected_units);
        }
        Ok(sum / u64::from(SAMPLE_REQUESTS))
    };
    let result: Result<u64, nineteen_sandbox::CallError> = tokio::task::spawn_blocking(run)
        .await
        .map_err(|e| ValidatorError::Load { task: name, why: e.to_string() })?;
    let mean = result.map_err(|e| ValidatorError::Load { task, why: e.to_string() })?;
    Ok(mean.max(1))
}

/// Where the component of a task is, and the digest that it has to have: beside its `task.toml`, as a pulled task has it, or
/// among the configured ones.
fn component_of(
    file: &Path,
    manifest: &Manifest,
    components: &Path,
) -> Result<(PathBuf, Option<Digest>), ValidatorError> {
    let name = format!("{}.wasm", manifest.component);
    let own = file.parent().unwrap_or(Path::new("."));
    let place = if own.join(&name).is_file() { own } else { components };
    let expected = match manifest.digest {
        Some(digest) => Some(digest),
        None => read_lock(place)?.get(&manifest.component).copied(),
    };
    Ok((place.join(name), expected))
}

/// The digest that the component of a task has to have; `None` where nothing says so.
///
/// # Errors
/// A lock that cannot be read.
pub fn component_digest(d: &Declared, components: &Path) -> Result<Option<Digest>, ValidatorError> {
    component_of(&d.file, &d.manifest, components).map(|(_, digest)| digest)
}

/// Digests of the components that were built on this machine.
fn read_lock(components: &Path) -> Result<BTreeMap<String, Digest>, ValidatorError> {
    #[derive(serde::Deserialize)]
    struct Lock {
        digests: BTreeMap<String, Digest>,
    }
    let file = components.join("components.lock");
    if !file.exists() {
        return Ok(BTreeMap::new());
    }
    read_toml::<Lock>(&file).map(|l| l.digests)
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that fails is meant to panic")]
mod tests {
    use super::*;

    #[test]
    fn a_policy_may_be_written_out_in_the_set() {
        let policy = nineteen_domain::policy::Policy::default_rules();
        let written = toml::to_string(&serde_json::json!({ "policy": policy })).unwrap();
        let set: TaskSet =
            toml::from_str(&format!("name = 's'\nversion = '1.0.0'\ntask = []\n{written}")).unwrap();
        assert_eq!(set.policy.policy(), Some(policy));
    }

    fn set(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("taskset.toml");
        std::fs::write(&file, text).unwrap();
        read_set(&file).unwrap_err().to_string()
    }

    const HEAD: &str = "name = 's'\nversion = '1.0.0'\npolicy = 'sn19-2025-01'\n";

    #[test]
    fn weights_that_do_not_sum_to_one_are_refused_with_their_sum() {
        let e = set(&format!("{HEAD}[[task]]\nfolder='a'\nweight=0.5\n"));
        assert!(e.contains("sum to 0.5"), "{e}");
    }

    #[test]
    fn a_missing_manifest_names_its_file() {
        let e = set(&format!("{HEAD}[[task]]\nfolder='a'\nweight=1.0\n"));
        assert!(e.contains("task.toml") && e.contains("cannot be read"), "{e}");
    }

    #[test]
    fn an_unknown_key_names_its_line() {
        let e = set(&format!("{HEAD}pollicy = 1\n"));
        assert!(e.contains("line 4") && e.contains("pollicy"), "{e}");
    }

    #[test]
    fn calibrations_of_this_repository_are_of_their_tasks_and_broken_ones_are_named() {
        let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tasks/taskset.toml");
        let (_, declared) = read_set(&set).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("task.toml");
        for d in &declared {
            let (bytes, read) = read_calibration(&d.file, &d.manifest).unwrap().expect("it ships with one");
            assert!(read.golden.is_some() && read.classes.values().all(|c| !c.suspects.is_empty()));
            assert!(read_calibration(&here, &d.manifest).unwrap().is_none());
            let refused = |text: &str| {
                std::fs::write(dir.path().join(calibration::FILE), text).unwrap();
                let words = read_calibration(&here, &d.manifest).unwrap_err().to_string();
                std::fs::remove_file(dir.path().join(calibration::FILE)).unwrap();
                assert!(
                    words.contains(calibration::FILE) && words.contains("nineteen task calibrate"),
                    "{words}"
                );
                words
            };
            let good = String::from_utf8(bytes).unwrap();
            assert!(refused("{").contains("EOF"));
            assert!(refused(&good.replace("\"version\": 1", "\"version\": 2")).contains("version: 2"));
            assert!(
                refused(&good.replace(d.manifest.name.as_str(), "other")).contains("task: it is of 'other'")
            );
            let named = format!("\"{}\"", read.model.name);
            assert!(refused(&good.replace(&named, "\"other\"")).contains("model.name"));
            assert!(
                refused(&good.replace("\"design_effect\": ", "\"design_effect\": -"))
                    .contains("design_effect")
            );
        }
    }

    #[test]
    fn the_sets_of_this_repository_are_read() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tasks/taskset.toml");
        let (set, tasks) = read_set(&file).unwrap();
        assert_eq!(set.policy.name(), "default");
        assert_eq!(tasks.len(), 4);
    }
}
