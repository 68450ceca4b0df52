//! A set with another policy comes into force while a validator runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nineteen_store::{Options, Store};

use crate::books::{Books, audit};
use crate::newcomer::{local, release, says};
use crate::stage::{PERIOD_S, Stage, TASK, wait};
use crate::{Result, repository};

/// What came of it.
#[derive(Debug, Clone)]
pub struct Changed {
    /// Of the whole run.
    pub books: Books,
    /// How often the one process began.
    pub starts: usize,
    /// Kinds of scoring in the settlements, in their order, each change once.
    pub scorings: Vec<String>,
}

/// Plays a run in this empty folder.
///
/// # Errors
/// The promise that was broken, or what kept the run from going on.
pub fn run(dir: &Path) -> Result<Changed> {
    fs::create_dir_all(dir.join("owner/tasks").join(TASK))?;
    for file in ["task.toml", "calibration.json"] {
        let from = repository().join("tasks").join(TASK).join(file);
        fs::copy(from, dir.join("owner/tasks").join(TASK).join(file))?;
    }
    let key = says(dir, &["subnet", "keys", "new", "owner/owner.key"])?.trim().to_owned();
    local(dir, "0.1.0", "default", &[(TASK, 1.0)])?;
    release(dir, "one", &["--owner", &key, "--threshold", "1", "--notice", "0s"], "public")?;
    let (stage, miners) = Stage::with_tasks(dir, &[TASK])?;
    let config = fs::read_to_string(dir.join("nineteen.toml"))?;
    let folder = "[subnet]\nfolder = \"subnet\"\n";
    let follow = format!(
        "{folder}source = \"public\"\nname = \"walk\"\nkeys = [\"{key}\"]\nthreshold = 1\npoll_s = 10\n"
    );
    fs::write(dir.join("nineteen.toml"), config.replacen(folder, &follow, 1))?;
    let validator = stage.validator()?;
    stage.listens()?;
    let settled = || crate::get(stage.operator(), "/v1/status").ok()?.pointer("/settled")?.as_u64();
    wait(Duration::from_secs(PERIOD_S * 8), "a period is settled", || settled() >= Some(1))?;

    local(dir, "0.2.0", "sn19-2025-01", &[(TASK, 1.0)])?;
    release(dir, "two", &["--after", "owner/one/taskset.toml", "--effective-in", "15s"], "public")?;
    let log = || fs::read_to_string(dir.join("nineteen.log")).unwrap_or_default();
    let starts = || log().matches("validator is running").count();
    wait(Duration::from_secs(120), "it has started again", || starts() > 1)?;
    stage.listens()?;
    let until = settled().unwrap_or(0) + 3;
    wait(Duration::from_secs(PERIOD_S * 12), "periods are settled", || settled() >= Some(until))?;
    // The same process all the while: it is this one that stops.
    stage.stop(validator)?;
    drop(miners);

    let books = audit(&stage)?;
    let store = Store::open_existing(&dir.join("data"), Options::default())?;
    let mut scorings: Vec<String> = Vec::new();
    for period in store.settled_periods()?.into_iter().collect::<BTreeSet<_>>() {
        let kept = store.settlement(period)?.ok_or("a settlement is gone")?;
        let scoring = kept.pointer("/policy/scoring").ok_or("a settlement without its policy")?;
        let kind = scoring.as_object().and_then(|s| s.keys().next().cloned());
        scorings.push(kind.unwrap_or_else(|| scoring.to_string()));
    }
    scorings.dedup();
    store.close()?;
    Ok(Changed { books, starts: starts(), scorings })
}
