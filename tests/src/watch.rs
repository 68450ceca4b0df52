//! An author changes a line, and a validator that runs has it a moment later.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stage::{Running, Stage, TASK, wait};
use crate::{Result, cache, nineteen, run as run_nineteen};

/// What came of it.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Seconds from each saved change to the generation that has it.
    pub live_after_s: Vec<f64>,
    /// Versions that ran, in order.
    pub versions: Vec<String>,
    /// Whether a change that does not compile left what ran alone.
    pub broken_is_harmless: bool,
}

const NAME: &str = "watched";

fn says(dir: &Path, args: &[&str]) -> Result<()> {
    let out = run_nineteen(dir, &[&["--config", "nineteen.toml", "--log", "off"], args].concat(), &[])?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{args:?}: {}", String::from_utf8_lossy(&out.stderr)).into())
}

fn version(stage: &Stage) -> Option<String> {
    let tasks = crate::get(stage.operator(), "/v1/tasks").ok()?;
    let named = |t: &&Value| t.get("name").and_then(Value::as_str) == Some(NAME);
    Some(tasks.as_array()?.iter().find(named)?.get("version")?.as_str()?.to_owned())
}

/// Plays a run in this empty folder.
///
/// # Errors
/// What kept it from going on.
pub fn run(dir: &Path) -> Result<Watched> {
    let (stage, miners) = Stage::with_tasks(dir, &[TASK])?;
    says(dir, &["task", "new", NAME, "--lang", "rust"])?;
    says(dir, &["task", "build", NAME])?;
    let validator = stage.validator()?;
    stage.listens()?;
    says(dir, &["tasks", "add", &format!("{NAME}/task"), "--weight", "0.5"])?;
    let mut versions = vec![version(&stage).ok_or("it does not run")?];
    let mut watch = Command::new(nineteen());
    watch
        .args(["--config", "nineteen.toml", "--log", "off", "task", "watch", NAME])
        .current_dir(dir)
        .env("NINETEEN_CACHE", cache())
        .stdin(Stdio::null())
        .stdout(fs::File::create(dir.join("watch.out"))?)
        .stderr(fs::File::create(dir.join("watch.err"))?);
    let watching = Running(watch.spawn()?);
    let changes = |from: &str| version(&stage).is_some_and(|now| now != from);
    // It hands over what is there first.
    let first = versions.last().cloned().unwrap_or_default();
    wait(Duration::from_secs(120), "the task is handed over", || changes(&first))?;
    versions.push(version(&stage).ok_or("it does not run")?);

    let source = dir.join(NAME).join("src/lib.rs");
    let text = fs::read_to_string(&source)?;
    let mut live_after_s = Vec::new();
    for n in 0..3 {
        let ran = versions.last().cloned().unwrap_or_default();
        fs::write(&source, text.replacen("\"amber\"", &format!("\"amber{n}\""), 1))?;
        let saved = Instant::now();
        wait(Duration::from_secs(120), "a change is live", || changes(&ran))?;
        live_after_s.push(saved.elapsed().as_secs_f64());
        versions.push(version(&stage).ok_or("it does not run")?);
    }
    let ran = versions.last().cloned().unwrap_or_default();
    fs::write(&source, format!("{text}\nfn broken("))?;
    let complained = || fs::read_to_string(dir.join("watch.err")).is_ok_and(|t| t.contains("src/lib.rs"));
    wait(Duration::from_secs(120), "what does not compile is said", complained)?;
    let broken_is_harmless = version(&stage).as_deref() == Some(&ran);
    drop(watching);
    stage.stop(validator)?;
    drop(miners);
    Ok(Watched { live_after_s, versions, broken_is_harmless })
}
