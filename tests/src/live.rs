//! Tasks that change while a validator runs: taken in, upgraded, switched off and on, gone back on, removed; refused ones; and
//! a kill in the middle of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nineteen_domain::TaskName;
use nineteen_store::{Options, Store};
use serde_json::Value;

use crate::books::{Books, audit};
use crate::stage::{PERIOD_S, Stage, TASK, wait};
use crate::{Result, repository, run as nineteen};

/// The task that comes in: the same plugin under another name.
pub const SECOND: &str = "embed-second";

/// What came of it.
#[derive(Debug, Clone)]
pub struct Changed {
    /// Of the whole run.
    pub books: Books,
    /// Weights in the settlement after the second task came in.
    pub with_second: Vec<(String, f64)>,
    /// The epochs of the first task in the settlements, in their order, each once.
    pub epochs: Vec<String>,
    /// Rows of the first miner in the second task.
    pub rows_of_second: usize,
    /// Steps that the events show.
    pub steps: Vec<String>,
    /// Words of the refused changes.
    pub refusals: Vec<String>,
    /// Generation before the kill, and after the start.
    pub over_the_kill: (u64, u64),
    /// Folder of the first task before its upgrade, and after it was rolled back.
    pub back: (String, String),
}

/// A folder with a task of this name and version beside the repository's.
fn task(dir: &Path, name: &str, version: &str, epsilon: &str) -> Result<PathBuf> {
    let folder = dir.join(format!("made/{name}-{version}"));
    fs::create_dir_all(&folder)?;
    let text = fs::read_to_string(repository().join("tasks").join(TASK).join("task.toml"))?;
    let text = text
        .replace(&format!("name = \"{TASK}\""), &format!("name = \"{name}\""))
        .replace("version = \"0.1.0\"", &format!("version = \"{version}\""))
        .replace("epsilon = 0.2", &format!("epsilon = {epsilon}"));
    fs::write(folder.join("task.toml"), text)?;
    Ok(folder)
}

fn says(stage: &Stage, args: &[&str]) -> Result<Value> {
    let all: Vec<&str> = ["--config", "nineteen.toml", "--log", "off"]
        .iter()
        .chain(args)
        .chain(&["--json"])
        .copied()
        .collect();
    let out = nineteen(&stage.dir, &all, &[])?;
    if !out.status.success() {
        return Err(format!("{args:?}: {}", String::from_utf8_lossy(&out.stderr)).into());
    }
    Ok(serde_json::from_slice(&out.stdout)?)
}

fn refused(stage: &Stage, args: &[&str]) -> Result<String> {
    let all: Vec<&str> = ["--config", "nineteen.toml", "--log", "off"].iter().chain(args).copied().collect();
    let out = nineteen(&stage.dir, &all, &[])?;
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    if out.status.code() != Some(2) || words.trim_end().lines().count() != 1 || words.contains("panicked") {
        return Err(
            format!("{args:?} was to be refused with one line: {:?} {words}", out.status.code()).into()
        );
    }
    Ok(words)
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    Ok(value
        .pointer(pointer)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("{pointer}: {value}"))?
        .to_owned())
}

fn generation(stage: &Stage) -> Result<u64> {
    let token_free = crate::get(stage.operator(), "/v1/registry")?;
    token_free.pointer("/generation/number").and_then(Value::as_u64).ok_or_else(|| "no generation".into())
}

/// Plays a run in this empty folder.
///
/// # Errors
/// The promise that was broken, or what kept the run from going on.
pub fn run(dir: &Path) -> Result<Changed> {
    let (stage, miners) = Stage::with_tasks(dir, &[TASK, SECOND])?;
    let validator = stage.validator()?;
    stage.listens()?;
    let period = |stage: &Stage| -> Option<u64> {
        crate::get(stage.operator(), "/v1/status").ok()?.pointer("/settled")?.as_u64()
    };
    let settles = |stage: &Stage, more: u64| -> Result<()> {
        let until = period(stage).map_or(more, |p| p + more);
        wait(Duration::from_secs(PERIOD_S * (more + 6)), "a period is settled", || {
            period(stage) >= Some(until)
        })
    };
    settles(&stage, 0)?;

    // In.
    let second = task(dir, SECOND, "0.1.0", "0.2")?;
    let added = says(&stage, &["tasks", "add", &second.display().to_string(), "--weight", "0.25"])?;
    let steps = added.pointer("/steps").and_then(Value::as_array).ok_or("no steps")?;
    let steps = steps.iter().filter_map(|s| Some(s.get("step")?.as_str()?.to_owned())).collect();
    settles(&stage, 3)?;
    let with_second = crate::get(stage.operator(), "/v1/tasks")?;
    let with_second = with_second.as_array().ok_or("no tasks")?.iter();
    let with_second = with_second
        .filter_map(|t| Some((t.get("name")?.as_str()?.to_owned(), t.get("weight")?.as_f64()?)))
        .collect();

    // What is refused changes nothing.
    let before = generation(&stage)?;
    let mut refusals = Vec::new();
    let folder = |name: &str, version: &str, epsilon: &str| {
        task(dir, name, version, epsilon).map(|f| f.display().to_string())
    };
    refusals.push(refused(&stage, &["tasks", "add", &folder(SECOND, "0.3.0", "0.2")?, "--weight", "0.1"])?);
    refusals.push(refused(&stage, &["tasks", "upgrade", &folder(TASK, "0.0.9", "0.3")?])?);
    refusals.push(refused(&stage, &["tasks", "upgrade", &folder(TASK, "0.4.0", "\"much\"")?])?);
    refusals.push(refused(&stage, &["tasks", "upgrade", &folder("unheard-of", "0.4.0", "0.2")?])?);
    let garbled = task(dir, TASK, "0.5.0", "0.2")?;
    fs::write(garbled.join("embeddings.wasm"), b"\0asm\x0d\0\x01\0 and then nonsense")?;
    refusals.push(refused(&stage, &["tasks", "upgrade", &garbled.display().to_string()])?);
    refusals.push(refused(&stage, &["tasks", "remove", "nobody"])?);
    refusals.push(refused(&stage, &["tasks", "add", "no/such/folder", "--weight", "0.1"])?);
    let model = task(dir, "embed-third", "0.1.0", "0.2")?;
    let other = fs::read_to_string(model.join("task.toml"))?.replace("all-minilm-l6-v2", "all-unheard-of");
    fs::write(model.join("task.toml"), other)?;
    refusals.push(refused(&stage, &["tasks", "add", &model.display().to_string(), "--weight", "0.1"])?);
    // Whoever cannot read the validator's files changes nothing.
    let status = crate::post(stage.operator(), &format!("/v1/tasks/{SECOND}/remove"), "guess")?;
    if status != 401 || generation(&stage)? != before {
        return Err(
            format!("a stranger got {status}, and generation {before} is {}", generation(&stage)?).into()
        );
    }

    // An upgrade of the scoring, a kill right after, and back.
    let show = |stage: &Stage| says(stage, &["tasks", "show", TASK]).and_then(|t| text(&t, "/folder"));
    let ran = show(&stage)?;
    says(&stage, &["tasks", "upgrade", &folder(TASK, "0.2.0", "0.1")?])?;
    let before_kill = generation(&stage)?;
    stage.kill(validator)?;
    let validator = stage.validator()?;
    stage.listens()?;
    let after_start = generation(&stage)?;
    settles(&stage, 3)?;
    says(&stage, &["tasks", "rollback", TASK])?;
    let rolled = show(&stage)?;
    says(&stage, &["tasks", "disable", SECOND])?;
    refusals.push(refused(&stage, &["tasks", "disable", TASK])?);
    says(&stage, &["tasks", "enable", SECOND])?;
    says(&stage, &["tasks", "remove", SECOND])?;
    settles(&stage, 3)?;
    // All of it, back to what had both.
    says(&stage, &["tasks", "rollback"])?;
    let both = crate::get(stage.operator(), "/v1/tasks")?;
    if both.as_array().map(Vec::len) != Some(2) {
        return Err(format!("a rollback brings the removed task back: {both}").into());
    }
    stage.stop(validator)?;
    drop(miners);

    let books = audit(&stage)?;
    let store = Store::open_existing(&dir.join("data"), Options::default())?;
    let mut epochs: Vec<String> = Vec::new();
    for period in store.settled_periods()? {
        let Some(kept) = store.settlement(period)? else { continue };
        let epoch = kept.pointer(&format!("/epochs/{TASK}/version")).and_then(Value::as_str).unwrap_or("");
        if epochs.last().map(String::as_str) != Some(epoch) {
            epochs.push(epoch.to_owned());
        }
    }
    let first = stage.subnet.subnet()?.neurons.get(1).ok_or("no miner")?.hotkey;
    let rows_of_second =
        store.rows(&first, &TaskName::new(SECOND)?, 0)?.iter().filter(|r| r.tally.answered > 0).count();
    let folder_name =
        |path: &str| Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Changed {
        books,
        with_second,
        epochs,
        rows_of_second,
        steps,
        refusals,
        over_the_kill: (before_kill, after_start),
        back: (folder_name(&ran), folder_name(&rolled)),
    })
}
