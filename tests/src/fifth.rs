//! A task that the host was not made for, taken in by a validator that runs: files of which miners say what kind they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nineteen_checking::{
    Dtype, ExecutorConfig, Executors, Named, Provider, Runtime, RuntimeConfig, TensorModel,
};
use nineteen_domain::meet::Neuron;
use nineteen_domain::{Hotkey, ModelName, TaskName, Uid};
use nineteen_store::{Options, Store};
use nineteen_wire::keys::create_keyfile;
use serde_json::{Value, json};

use crate::stage::{PERIOD_S, Stage, TASK, wait};
use crate::{Result, cache, repository, run as nineteen};

/// The task.
pub const FILES: &str = "file-kinds";
/// The miners, by what they do.
pub const MINERS: [&str; 5] = ["honest", "guesses", "always-txt", "boasts", "every-second"];

/// Receipts by task: those written, and those that say the same elsewhere, with the checks run again.
pub type Receipts = BTreeMap<String, (usize, usize)>;

/// What came of it.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Mean quality and number of the judged answers, by miner.
    pub judged: BTreeMap<String, (f64, usize)>,
    /// Share of the task's reward in the last settlement, by miner.
    pub shares: BTreeMap<String, f64>,
    /// What `task test` said of the honest miner.
    pub tested: bool,
    /// Receipts of the run.
    pub receipts: Receipts,
    /// What `receipt verify` said of one in which a byte was changed.
    pub forged: String,
}

/// magika's features, written down here for themselves.
fn featured(file: &[u8]) -> Vec<i32> {
    let block = file.len().min(4_096);
    let head = file.get(..block).unwrap_or_default();
    let white = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
    let head = head.get(head.iter().take_while(|b| white(b)).count()..).unwrap_or_default();
    let tail = file.get(file.len() - block..).unwrap_or_default();
    let tail =
        tail.get(..tail.len() - tail.iter().rev().take_while(|b| white(b)).count()).unwrap_or_default();
    let mut all = vec![256; 2_048];
    for (to, from) in all.iter_mut().zip(head.iter().take(1_024)) {
        *to = i32::from(*from);
    }
    for (to, from) in all.iter_mut().rev().zip(tail.iter().rev().take(1_024)) {
        *to = i32::from(*from);
    }
    all
}

#[derive(Clone)]
struct Miner {
    what: &'static str,
    model: TensorModel,
    labels: Arc<Vec<String>>,
}

impl Miner {
    async fn results(&self, files: &[Vec<u8>]) -> Option<Vec<Value>> {
        let features = files.iter().flat_map(|f| featured(f)).flat_map(i32::to_le_bytes).collect::<Vec<u8>>();
        let input = Named {
            name: "bytes".into(),
            dtype: Dtype::I32,
            dims: vec![files.len(), 2_048],
            data: features.into(),
        };
        let given = self.model.run(vec![input], vec!["target_label".into()]).await.ok()?;
        let numbers =
            given.first()?.data.as_chunks::<4>().0.iter().map(|w| f32::from_le_bytes(*w)).collect::<Vec<_>>();
        let results = numbers.chunks(self.labels.len()).map(|row| {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i);
            json!({ "label": self.labels.get(best), "score": row.get(best) })
        });
        Some(results.collect())
    }
}

async fn announce(Query(asked): Query<BTreeMap<String, u64>>) -> Json<Value> {
    let period_s = asked.get("period_s").copied().unwrap_or(0);
    Json(json!({ "protocol": "nineteen/1", "period_s": period_s, "capacities": { FILES: 60 * period_s } }))
}

async fn classify(State(miner): State<Miner>, Json(asked): Json<Value>) -> Json<Value> {
    let files = asked.get("files").and_then(Value::as_array).cloned().unwrap_or_default();
    let files: Vec<Vec<u8>> = files.iter().filter_map(|f| STANDARD.decode(f.as_str()?).ok()).collect();
    let guess = |n: usize| {
        let label = miner.labels.get(n * 37 % miner.labels.len().max(1));
        json!({ "label": label, "score": 0.95 })
    };
    let results = match miner.what {
        "guesses" => (0..files.len()).map(guess).collect(),
        "always-txt" => files.iter().map(|_| json!({ "label": "txt", "score": 0.99 })).collect(),
        _ => miner.results(&files).await.unwrap_or_default(),
    };
    // Computes every second file and guesses the others.
    let results = if miner.what == "every-second" {
        results.into_iter().enumerate().map(|(n, r)| if n % 2 == 0 { r } else { guess(n) }).collect()
    } else {
        results
    };
    // Right labels, and a certainty that was not computed.
    let results = if miner.what == "boasts" {
        let sure = |r: &Value| json!({ "label": r.get("label"), "score": 0.5 });
        results.iter().map(sure).collect()
    } else {
        results
    };
    Json(json!({ "results": results }))
}

fn executors() -> Result<Executors> {
    let runtime = Runtime::load(&RuntimeConfig {
        library: None,
        cache_onnxruntime_dir: cache().join("onnxruntime"),
        providers: vec![Provider::Cpu],
    })?;
    Ok(Executors::start(
        runtime,
        ExecutorConfig {
            models_dir: cache().join("models"),
            threads_per_model: 1,
            intra_threads: 1,
            queue: 8,
            models: vec![ModelName::new("magika-v3-3")?.into()],
        },
    )?)
}

/// Plays a run in this empty folder.
///
/// # Errors
/// What kept it from going on.
pub fn run(dir: &Path) -> Result<Ran> {
    let project = repository().join("examples/file-kinds");
    let project_text = project.display().to_string();
    let built = nineteen(dir, &["task", "build", &project_text], &[])?;
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned().into());
    }
    let labels = std::fs::read_to_string(project.join("src/labels.txt"))?;
    let labels: Arc<Vec<String>> = Arc::new(labels.lines().map(str::to_owned).collect());
    let executors = executors()?;
    let model = executors.tensors("magika-v3-3").ok_or("the model is not served")?;

    let (stage, miners) = Stage::with_tasks(dir, &[TASK])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut keys: BTreeMap<&str, (Hotkey, SocketAddr)> = BTreeMap::new();
    for (n, what) in MINERS.into_iter().enumerate() {
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))?;
        let axon = listener.local_addr()?;
        let miner = Miner { what, model: model.clone(), labels: Arc::clone(&labels) };
        let app = Router::new()
            .route("/nineteen/v1/capacity", get(announce))
            .route("/v1/files/classify", post(classify))
            .with_state(miner);
        runtime.spawn(async move { axum::serve(listener, app).await });
        let hotkey = create_keyfile(dir.join(format!("{what}.key")))?.hotkey();
        let uid = Uid(u16::try_from(20 + n)?);
        stage.change(|neurons| {
            neurons.push(Neuron { uid, hotkey, axon: Some(axon), stake: 0.0, validator_permit: false });
        })?;
        keys.insert(what, (hotkey, axon));
    }

    // As the author tries it, on the honest miner.
    let (hotkey, axon) = keys.get("honest").copied().ok_or("no honest miner")?;
    let record = dir.join("recorded.jsonl").display().to_string();
    let (axon, honest) = (axon.to_string(), hotkey.to_string());
    let test = ["--config", "nineteen.toml", "--log", "off", "task", "test", &project_text, "--miner", &axon];
    let test = [&test[..], &["--hotkey", &honest, "--requests", "4", "--record", &record]].concat();
    let out = nineteen(dir, &test, &[])?;
    let again = ["--log", "off", "task", "test", &project_text, "--recorded", &record];
    let tested = out.status.success() && nineteen(dir, &again, &[])?.status.success();
    if !tested {
        return Err(format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        )
        .into());
    }

    // Taken in while the validator runs: its model is loaded then.
    let validator = stage.validator()?;
    stage.listens()?;
    let folder = project.join("task").display().to_string();
    let add = ["--config", "nineteen.toml", "--log", "off", "tasks", "add", &folder, "--weight", "0.5"];
    let added = nineteen(dir, &add, &[])?;
    if !added.status.success() {
        return Err(String::from_utf8_lossy(&added.stderr).into_owned().into());
    }
    let settled = || crate::get(stage.operator(), "/v1/status").ok()?.pointer("/settled")?.as_u64();
    let until = settled().unwrap_or(0) + 7;
    wait(Duration::from_secs(PERIOD_S * 18), "periods are settled", || settled() >= Some(until))?;
    stage.stop(validator)?;
    drop(miners);
    runtime.shutdown_background();

    let (receipts, forged) = receipts(dir)?;
    let store = Store::open_existing(&dir.join("data"), Options::default())?;
    let task = TaskName::new(FILES)?;
    let (period, kept) = store.latest_settlement()?.ok_or("nothing was settled")?;
    let standings =
        kept.pointer("/settlement/standings").and_then(Value::as_array).cloned().unwrap_or_default();
    let (mut judged, mut shares) = (BTreeMap::new(), BTreeMap::new());
    for (what, (hotkey, _)) in &keys {
        let samples = store.samples(hotkey, &task, 0, 1_000)?;
        #[expect(clippy::cast_precision_loss, reason = "a few samples")]
        let mean = samples.iter().map(|s| s.quality).sum::<f64>() / samples.len().max(1) as f64;
        judged.insert((*what).to_owned(), (mean, samples.len()));
        let of = |s: &&Value| {
            s.get("task").and_then(Value::as_str) == Some(FILES)
                && s.get("miner").and_then(Value::as_str) == Some(hotkey.to_string().as_str())
        };
        let share = standings.iter().find(of).and_then(|s| s.get("share")).and_then(Value::as_f64);
        shares.insert(
            (*what).to_owned(),
            share.ok_or_else(|| format!("{what} has no standing in period {period}"))?,
        );
    }
    Ok(Ran { judged, shares, tested, receipts, forged })
}

/// Writes receipts of the run, verifies them as another machine would, with nothing of its store, and changes one.
fn receipts(dir: &Path) -> Result<(Receipts, String)> {
    let run = |args: &[&str]| {
        nineteen(dir, &[&["--config", "nineteen.toml", "--log", "off", "receipt"], args].concat(), &[])
    };
    let mut all = BTreeMap::new();
    let mut forged = String::new();
    for task in [TASK, FILES] {
        let out = format!("receipts-{task}");
        let written = run(&["export", "--task", task, "--most", "3", "--out", &out])?;
        if !written.status.success() {
            return Err(format!("export: {}", String::from_utf8_lossy(&written.stderr)).into());
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir.join(&out))? {
            files.push(entry?.path().display().to_string());
        }
        std::fs::rename(dir.join("data"), dir.join("data-away"))?;
        let names: Vec<&str> = files.iter().map(String::as_str).collect();
        let verified = run(&[&["verify", "--rerun-checks", "--json"], &names[..]].concat())?;
        std::fs::rename(dir.join("data-away"), dir.join("data"))?;
        let said: Value = serde_json::from_slice(&verified.stdout)
            .map_err(|e| format!("verify: {e}: {}", String::from_utf8_lossy(&verified.stderr)))?;
        let same = |v: &&Value| v.get("same") == Some(&Value::Bool(true)) && v.get("rerun").is_some();
        let same = said.as_array().map_or(0, |all| all.iter().filter(same).count());
        all.insert(task.to_owned(), (files.len(), same));
        if let Some(file) = files.first() {
            let mut bytes = std::fs::read(file)?;
            let at = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1;
            }
            std::fs::write(file, bytes)?;
            let refused = run(&["verify", file])?;
            if refused.status.success() {
                return Err("a forged receipt is verified".into());
            }
            forged = String::from_utf8_lossy(&refused.stderr).into_owned();
        }
    }
    Ok((all, forged))
}
