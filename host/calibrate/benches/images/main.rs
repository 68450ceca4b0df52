//! What checking pictures is worth and what it costs, in one run: seconds a step against Python's runtime on the same graphs,
//! a check against a generation, memory, and how every cheat is told from honest pictures on prompts that the shipped
//! calibrations were not made from.
//!
//! `cargo xtask bench images [-- --exchanges N] [--costs] [--json]`. Some ten minutes on two cores; `--costs` leaves the cheats
//! out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nineteen_calibrate::{Observed, Setting, Task, observe_pictures, pictures};
use nineteen_checking::{ExecutorConfig, Executors, ImageRequest, Noise, Runtime, RuntimeConfig};
use nineteen_domain::check::{Check, Evidence};
use nineteen_domain::meet::BoxFuture;
use nineteen_domain::{Calibration, MasterSeed, ModelName, calibration};
use nineteen_miner::{Operation, TaskConfig};
use nineteen_sandbox::{Sandbox, SandboxConfig};
use nineteen_validator::registry::{self, LiveTask};
use serde_json::json;

const IMAGES: &str = "image-world-scenes";
const AVATARS: &str = "avatar-world-portraits";
const PIPELINE: &str = "world-scenes";
/// No seed that a calibration was made with.
const SEED: &str = "held-out";
const STEPS: usize = 12;
const ROUNDS: usize = 9;
/// Share of honest pictures that may be called another's where detection is measured.
const FALSE_ALARMS: f64 = 1e-3;
/// The table reports these without a goal.
const REPORTED: [&str; 4] = ["bf16-weights", "int8-weights", "int4", "jpeg-30"];

type Failure = Box<dyn std::error::Error>;

fn cache() -> Result<PathBuf, Failure> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("NINETEEN_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|p| p.join("nineteen")))
        .or_else(|| from("HOME").map(|p| p.join(".cache/nineteen")))
        .ok_or_else(|| "none of NINETEEN_CACHE, XDG_CACHE_HOME and HOME is set".into())
}

fn number(name: &str, default: u32) -> u32 {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|a| a == name);
    at.and_then(|at| args.get(at + 1)).and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64()
}

/// Seconds of a picture here and in Python, and of the rest of a check.
struct Costs {
    ours_s: f64,
    python_s: Option<f64>,
    rest_s: f64,
    memory_mib: f64,
}

async fn costs(cache: &Path, runtime: &Arc<Runtime>) -> Result<Costs, Failure> {
    let before = resident_mib();
    let config = ExecutorConfig {
        models_dir: cache.join("models"),
        threads_per_model: 1,
        intra_threads: 1,
        queue: 4,
        models: vec![
            ModelName::new(PIPELINE)?.into(),
            ModelName::new("world-clip")?.into(),
            ModelName::new("world-safety")?.into(),
        ],
    };
    let runtime = Arc::clone(runtime);
    let executors = tokio::task::spawn_blocking(move || Executors::start(runtime, config)).await??;
    let model = executors.image(PIPELINE).ok_or("the pipeline is not served")?;
    let request = |seed: u64| ImageRequest {
        prompt: "a large flat red circle in the centre on a grey background".into(),
        negative_prompt: Some(String::new()),
        seed,
        steps: STEPS,
        guidance: 3.0,
        width: 64,
        height: 64,
        scheduler: None,
        noise: Noise::Torch,
        init: None,
        identity: None,
    };
    model.generate(request(0)).await?;
    let (mut times, mut rest) = (Vec::new(), Vec::new());
    let checker = executors.checker();
    for seed in 1..=ROUNDS as u64 {
        let begun = Instant::now();
        let made = model.generate(request(seed)).await?;
        times.push(begun.elapsed());
        let png = bytes::Bytes::from(nineteen_checking::pixels::encode_png(&made.pixels));
        let begun = Instant::now();
        let pair = vec![png.clone(), png];
        for (kind, model, params) in [
            ("image.features", None, json!({"version": 1})),
            ("vision.embed", Some("world-clip"), json!({"version": 1})),
            ("vision.classify", Some("world-safety"), json!({"version": 1})),
        ] {
            let check = Check {
                kind: kind.into(),
                model: model.map(str::to_owned),
                params: params.to_string(),
                blobs: pair.clone(),
            };
            if let Evidence::Unavailable(why) = checker.check(check).await {
                return Err(why.into());
            }
        }
        rest.push(begun.elapsed());
    }
    let memory_mib = resident_mib() - before;
    drop(checker);
    executors.stop().await;
    let python_s = python(&cache.join("models").join(PIPELINE))?;
    Ok(Costs { ours_s: median(times), python_s, rest_s: median(rest), memory_mib })
}

fn python(folder: &Path) -> Result<Option<f64>, Failure> {
    let Some(python) = std::env::var_os("NINETEEN_PYTHON").filter(|v| !v.is_empty()) else { return Ok(None) };
    let ran = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/images/steps.py"))
        .arg(folder)
        .args([STEPS.to_string(), ROUNDS.to_string()])
        .output()?;
    if !ran.status.success() {
        return Err(format!("steps.py: {}", String::from_utf8_lossy(&ran.stderr).trim()).into());
    }
    Ok(Some(String::from_utf8_lossy(&ran.stdout).trim().parse()?))
}

/// Resident memory of this process.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}

/// One cheat.
#[derive(serde::Serialize)]
struct Row {
    cheat: String,
    pictures: usize,
    /// Of them refused by a rule, without any comparison.
    violations: usize,
    auc: f64,
    detected: f64,
}

/// How every suspect is told from honest pictures, one picture at a time.
fn rows(observed: &[Observed]) -> Vec<Row> {
    let z = |o: &Observed| o.statistic.first().copied().unwrap_or(0.0);
    let mut honest: Vec<f64> = observed.iter().filter(|o| o.honest).map(z).collect();
    honest.sort_unstable_by(f64::total_cmp);
    let n = honest.len().max(1) as f64;
    let allowed = (FALSE_ALARMS * n).floor() as usize;
    let threshold = honest.iter().rev().nth(allowed).copied().unwrap_or(f64::INFINITY);
    let mut by: BTreeMap<&str, Vec<&Observed>> = BTreeMap::new();
    observed.iter().filter(|o| !o.honest).for_each(|o| by.entry(&o.condition).or_default().push(o));
    by.into_iter()
        .map(|(cheat, of)| {
            let all = of.len().max(1) as f64;
            let above = |x: f64| {
                let below = honest.partition_point(|h| *h < x) as f64;
                let equal = honest.partition_point(|h| *h <= x) as f64 - below;
                (below + equal / 2.0) / n
            };
            Row {
                cheat: cheat.to_owned(),
                pictures: of.len(),
                violations: of.iter().filter(|o| o.violation.is_some()).count(),
                auc: of.iter().map(|o| above(z(o))).sum::<f64>() / all,
                detected: of.iter().filter(|o| z(o) > threshold).count() as f64 / all,
            }
        })
        .collect()
}

struct Cheats {
    honest: usize,
    rows: Vec<Row>,
}

async fn cheats(cache: &Path, runtime: &Arc<Runtime>, task: &str) -> Result<Cheats, Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tasks").join(task);
    let calibration = Calibration::read(&std::fs::read(folder.join(calibration::FILE))?)?;
    let sandbox = Sandbox::new(SandboxConfig {
        cache_dir: cache.join("compiled"),
        max_component_bytes: 64 << 20,
        compile_timeout: Duration::from_secs(180),
        max_concurrent_calls: 4,
        host_version: registry::host_version(),
    })?;
    let secret = MasterSeed::from_bytes([1; 32]);
    let live = registry::load_uncalibrated(&folder, &cache.join("components"), &sandbox, &secret).await?;
    let requests: Result<Vec<_>, _> = (0..number("--exchanges", 100))
        .map(|n| live.plugin.synthesize(&secret.derive(SEED, &n.to_string())).map(|s| s.request))
        .collect();
    let scratch = tempfile::Builder::new().prefix("images-").tempdir_in(cache)?;
    let model = calibration.model.name.clone();
    let setting = Setting {
        task: Task { name: live.manifest.name.clone(), model: model.clone() },
        beside: beside(&live, &model),
        models_dir: cache.join("models"),
        scratch: scratch.path().to_owned(),
        runtime: Arc::clone(runtime),
        requests: requests?,
        units: 1,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        honest_only: false,
    };
    let plugin = Arc::clone(&live.plugin);
    let judge = move |request, exchange, checker| -> BoxFuture<'static, _> {
        let plugin = Arc::clone(&plugin);
        Box::pin(
            async move { plugin.judge(request, exchange, checker).await.result.map_err(|e| e.to_string()) },
        )
    };
    let begun = Instant::now();
    let mut tell = |what: String| eprintln!("{:>6.0} s  {task}: {what}", begun.elapsed().as_secs_f64());
    let class = if task == AVATARS { "avatars" } else { "images" };
    let mut observed = observe_pictures(&setting, class, &served(&live, model), &judge, &mut tell).await?;
    let of_class = calibration.classes.get(class).and_then(|c| c.logistic.as_ref());
    pictures::measure(of_class.ok_or("the calibration has no regression")?, &mut observed);
    Ok(Cheats { honest: observed.iter().filter(|o| o.honest).count(), rows: rows(&observed) })
}

fn beside(live: &LiveTask, model: &ModelName) -> Vec<ModelName> {
    let all = live.manifest.grants.values().flatten().filter(|m| *m != model).cloned();
    all.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

fn served(live: &LiveTask, model: ModelName) -> TaskConfig {
    let avatars = live.manifest.operation == Operation::Avatars.as_str();
    let operation = if avatars { Operation::Avatars } else { Operation::Images };
    let granted = |kind: &str| live.manifest.grants.get(kind).and_then(|models| models.first()).cloned();
    let mut served = TaskConfig::one_at_a_time(operation, model);
    served.safety = granted("vision.classify");
    if avatars {
        (served.detect, served.identify) = (granted("vision.faces"), granted("vision.embed"));
    }
    served
}

async fn run() -> Result<(), Failure> {
    let cache = cache()?;
    let runtime = Runtime::load(&RuntimeConfig {
        library: None,
        cache_onnxruntime_dir: cache.join("onnxruntime"),
        providers: vec![],
    })?;
    let json = std::env::args().any(|a| a == "--json");
    let c = costs(&cache, &runtime).await?;
    let over_python = c.python_s.map(|p| c.ours_s / p);
    if !json {
        println!("one thread, {STEPS} steps of 64 × 64 pixels with guidance, medians of {ROUNDS}");
        println!(
            "a picture                  {:>8.1} ms, {:.2} ms a step",
            c.ours_s * 1e3,
            c.ours_s * 1e3 / STEPS as f64
        );
        match (c.python_s, over_python) {
            (Some(p), Some(ratio)) => println!(
                "the same in Python         {:>8.1} ms; ours / Python's {ratio:.3} (goal 1.05: {})",
                p * 1e3,
                if ratio <= 1.05 { "met" } else { "MISSED" }
            ),
            _ => println!("the same in Python         not measured: set NINETEEN_PYTHON"),
        }
        println!(
            "a check                    {:>8.1} ms: a picture, and {:.1} ms to compare and look at both; {:.3} of a generation",
            (c.ours_s + c.rest_s) * 1e3,
            c.rest_s * 1e3,
            (c.ours_s + c.rest_s) / c.ours_s
        );
        println!("memory of the three models {:>8.1} MiB", c.memory_mib);
    }
    let mut all = BTreeMap::new();
    for task in [IMAGES, AVATARS] {
        if std::env::args().any(|a| a == "--costs") {
            break;
        }
        let found = cheats(&cache, &runtime, task).await?;
        if !json {
            println!("\n{task}: {} honest pictures; one picture at a time", found.honest);
            println!(
                "{:<18}{:>9}{:>12}{:>9}{:>20}",
                "cheat", "pictures", "violations", "AUC", "found at 1 in 1000"
            );
            for row in &found.rows {
                let goal = match () {
                    () if REPORTED.contains(&row.cheat.as_str()) => "",
                    () if row.auc >= 0.9995 && row.detected >= 0.9995 => "  met",
                    () => "  MISSED",
                };
                println!(
                    "{:<18}{:>9}{:>12}{:>9.4}{:>20.3}{goal}",
                    row.cheat, row.pictures, row.violations, row.auc, row.detected
                );
            }
        }
        all.insert(task, json!({ "honest": found.honest, "cheats": found.rows }));
    }
    if json {
        let costs = json!({
            "picture_s": c.ours_s, "python_s": c.python_s, "over_python": over_python,
            "rest_of_a_check_s": c.rest_s, "memory_mib": c.memory_mib,
        });
        println!("{}", serde_json::to_string_pretty(&json!({ "costs": costs, "tasks": all }))?);
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run())
}
