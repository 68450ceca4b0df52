//! A newcomer's walk: a task of each language from nothing to a validator that pays for it, and back.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::Query;
use axum::routing::{get, post};
use nineteen_domain::ledger::Judgement;
use nineteen_domain::meet::Neuron;
use nineteen_domain::{TaskName, Uid};
use nineteen_store::{Options, Store};
use nineteen_wire::keys::create_keyfile;
use serde_json::{Value, json};

use crate::registry::Registry;
use crate::stage::{PERIOD_S, Stage, TASK, wait};
use crate::{Result, repository, run as nineteen};

/// The tasks, each in another language.
pub const TASKS: [(&str, &str); 3] = [("walk-rust", "rust"), ("walk-python", "python"), ("walk-js", "js")];

/// What came of it.
#[derive(Debug, Clone)]
pub struct Walked {
    /// Seconds of building, by task.
    pub built_s: BTreeMap<String, f64>,
    /// Seconds between the stated moment and the generation that has the new tasks: not below 0.
    pub late_s: f64,
    /// Tasks that ran before, with the new set, and after the rollback.
    pub ran: [Vec<String>; 3],
    /// Mean quality of the miner's scored answers, by task, and how many.
    pub judged: BTreeMap<String, (f64, usize)>,
    /// Answers that were held against it, and those that were not judged, each with the reason.
    pub others: Vec<(String, Judgement)>,
    /// The weight that the chain has of the miner that serves the new tasks, and of one that does not.
    pub weights: (u16, u16),
}

pub(crate) fn says(dir: &Path, args: &[&str]) -> Result<String> {
    let all: Vec<&str> = ["--log", "off"].iter().chain(args).copied().collect();
    let out = nineteen(dir, &all, &[])?;
    if out.status.success() {
        return Ok(String::from_utf8(out.stdout)?);
    }
    let words = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    Err(format!("{args:?}: {words}").into())
}

fn json(dir: &Path, args: &[&str]) -> Result<Value> {
    let all: Vec<&str> = args.iter().chain(&["--json"]).copied().collect();
    Ok(serde_json::from_str(&says(dir, &all)?)?)
}

/// The miner that the README of the template describes: it checks no signatures, because this one is alone with its validator.
async fn serve(listener: tokio::net::TcpListener) -> std::io::Result<()> {
    async fn announce(Query(asked): Query<BTreeMap<String, u64>>) -> axum::Json<Value> {
        let period_s = asked.get("period_s").copied().unwrap_or(0);
        let capacities: BTreeMap<&str, u64> = TASKS.iter().map(|(task, _)| (*task, 300 * period_s)).collect();
        axum::Json(json!({ "protocol": "nineteen/1", "period_s": period_s, "capacities": capacities }))
    }
    async fn transform(axum::Json(asked): axum::Json<Value>) -> axum::Json<Value> {
        let texts = asked.get("texts").and_then(Value::as_array).cloned().unwrap_or_default();
        let texts = texts.iter().filter_map(Value::as_str).map(|text| {
            match asked.get("op").and_then(Value::as_str) {
                Some("reverse") => text.chars().rev().collect(),
                Some("upper") => text.to_uppercase(),
                _ => {
                    let mut words: Vec<&str> = text.split_whitespace().collect();
                    words.sort_unstable();
                    words.join(" ")
                }
            }
        });
        axum::Json(json!({ "texts": texts.collect::<Vec<String>>() }))
    }
    let app =
        Router::new().route("/nineteen/v1/capacity", get(announce)).route("/v1/transform", post(transform));
    axum::serve(listener, app).await
}

/// The local task set of the owner.
pub(crate) fn local(dir: &Path, version: &str, policy: &str, tasks: &[(&str, f64)]) -> Result<()> {
    let mut text = format!("name = \"walk\"\nversion = \"{version}\"\npolicy = \"{policy}\"\n");
    text += "share_multiplier = 6.0\n";
    for (folder, weight) in tasks {
        text += &format!("[[task]]\nfolder = \"{folder}\"\nweight = {weight:?}\n");
    }
    Ok(fs::write(dir.join("owner/tasks/taskset.toml"), text)?)
}

pub(crate) fn release(dir: &Path, name: &str, terms: &[&str], to: &str) -> Result<()> {
    let set = format!("owner/{name}/taskset.toml");
    let mut init = vec!["subnet", "init", "--from", "owner/tasks/taskset.toml", "--out", &set];
    init.extend(terms);
    says(dir, &init)?;
    says(dir, &["subnet", "sign", &set, "--key", "owner/owner.key"])?;
    says(dir, &["subnet", "publish", &set, "--from", "owner/tasks/taskset.toml", "--to", to])?;
    Ok(())
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn names(stage: &Stage) -> Result<Vec<String>> {
    let tasks = crate::get(stage.operator(), "/v1/tasks")?;
    let tasks = tasks.as_array().ok_or("no tasks")?;
    Ok(tasks.iter().filter_map(|t| Some(t.get("name")?.as_str()?.to_owned())).collect())
}

/// Walks, in this empty folder.
///
/// # Errors
/// What did not go as the guides say.
pub fn run(dir: &Path) -> Result<Walked> {
    let registry = Registry::start(dir)?;
    let at = |rest: &str| format!("{}/{rest}", registry.address);

    // As an author.
    let mut built_s = BTreeMap::new();
    for (task, lang) in TASKS {
        says(dir, &["task", "new", task, "--lang", lang])?;
        let began = Instant::now();
        says(dir, &["task", "build", task])?;
        built_s.insert(task.to_owned(), began.elapsed().as_secs_f64());
        says(dir, &["task", "check", task])?;
        says(dir, &["task", "pack", task])?;
        says(dir, &["task", "publish", &format!("{task}/task"), &at(&format!("tasks/{task}"))])?;
    }

    // As the subnet's owner, who takes the tasks from the registry.
    fs::create_dir_all(dir.join("owner/tasks"))?;
    let embed = repository().join("tasks").join(TASK);
    fs::create_dir_all(dir.join("owner/tasks").join(TASK))?;
    for file in ["task.toml", "calibration.json"] {
        fs::copy(embed.join(file), dir.join("owner/tasks").join(TASK).join(file))?;
    }
    for (task, _) in TASKS {
        says(
            dir,
            &["task", "pull", &at(&format!("tasks/{task}:^0.1")), "--into", &format!("owner/tasks/{task}")],
        )?;
    }
    let key = says(dir, &["subnet", "keys", "new", "owner/owner.key"])?.trim().to_owned();
    let place = format!("oci://{}", at("subnets/walk"));
    local(dir, "0.1.0", "default", &[(TASK, 1.0)])?;
    release(dir, "one", &["--owner", &key, "--threshold", "1", "--notice", "0s"], &place)?;

    // As a validator that follows it, and a miner that serves what is to come.
    let (stage, miners) = Stage::with_tasks(dir, &[TASK])?;
    let config = fs::read_to_string(dir.join("nineteen.toml"))?;
    let folder = "[subnet]\nfolder = \"subnet\"\n";
    let follow = format!(
        "{folder}source = \"{place}\"\nname = \"walk\"\nkeys = [\"{key}\"]\nthreshold = 1\npoll_s = 10\n\
         [subnet.limits]\nlargest_weight_change = 1.0\n"
    );
    let config = config.replacen(folder, &follow, 1);
    fs::write(dir.join("nineteen.toml"), config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))?;
    let axon: SocketAddr = listener.local_addr()?;
    let _serving = runtime.spawn(serve(listener));
    let hotkey = create_keyfile(dir.join("newcomer.key"))?.hotkey();
    stage.change(|neurons| {
        neurons.push(Neuron { uid: Uid(7), hotkey, axon: Some(axon), stake: 0.0, validator_permit: false });
    })?;
    let validator = stage.validator()?;
    stage.listens()?;
    let before = names(&stage)?;

    // The second set, for a stated moment.
    local(
        dir,
        "0.2.0",
        "default",
        &[(TASK, 0.4), ("walk-rust", 0.2), ("walk-python", 0.2), ("walk-js", 0.2)],
    )?;
    let due = unix_s() + 45.0;
    release(dir, "two", &["--after", "owner/one/taskset.toml", "--effective-in", "45s"], &place)?;
    wait(Duration::from_secs(120), "the second set is live", || names(&stage).is_ok_and(|n| n.len() == 4))?;
    let registered = crate::get(stage.operator(), "/v1/registry")?;
    let live = registered.pointer("/generation/at_us").and_then(Value::as_f64).ok_or("no generation")? / 1e6;
    let with = names(&stage)?;

    // A few periods of it.
    let settled = || crate::get(stage.operator(), "/v1/status").ok()?.pointer("/settled")?.as_u64();
    let until = settled().unwrap_or(0) + 4;
    wait(Duration::from_secs(PERIOD_S * 12), "periods are settled", || settled() >= Some(until))?;
    let weights = stage.subnet.weights(&stage.validator)?.ok_or("no weights were set")?.weights;
    let weight = |uid: u16| weights.iter().find(|(u, _)| *u == Uid(uid)).map_or(0, |(_, w)| *w);
    let weights = (weight(7), weight(1));
    let config = ["--config", "nineteen.toml"];
    json(dir, &[&config[..], &["tasks", "rollback"]].concat())?;
    let after = names(&stage)?;
    stage.stop(validator)?;
    drop(miners);

    let store = Store::open_existing(&dir.join("data"), Options::default())?;
    let (mut judged, mut others) = (BTreeMap::new(), Vec::new());
    for (task, _) in TASKS {
        let mut samples = store.samples(&hotkey, &TaskName::new(task)?, 0, 1_000)?;
        let unscored = samples.extract_if(.., |s| s.judgement != Judgement::Scored);
        others.extend(unscored.map(|s| (task.to_owned(), s.judgement)));
        #[expect(clippy::cast_precision_loss, reason = "a few samples")]
        let mean = samples.iter().map(|s| s.quality).sum::<f64>() / samples.len().max(1) as f64;
        judged.insert(task.to_owned(), (mean, samples.len()));
    }
    Ok(Walked { built_s, late_s: live - due, ran: [before, with, after], judged, others, weights })
}
