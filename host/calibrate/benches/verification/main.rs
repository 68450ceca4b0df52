//! What verification is worth and what it costs, in one run: on exchanges that the shipped calibrations were not made
//! from, beside Subnet 19's rules of August 2025 and exact match on identical numbers.
//!
//! `cargo xtask bench verification [-- --exchanges N] [--units N] [--costs] [--json]`. A quarter of an hour to an hour on two
//! cores; `--costs` measures only what a check costs, in two minutes.

mod baselines;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nineteen_calibrate::evaluate::{ClassReport, LENGTHS, Separation, evaluate};
use nineteen_calibrate::{Observed, Setting, Task, observe_rows, observe_text};
use nineteen_checking::{
    Completion, ExecutorConfig, Executors, GenerateRequest, Prompt, ReplayRequest, Runtime, RuntimeConfig,
    Sampler,
};
use nineteen_domain::{Calibration, MasterSeed, calibration};
use nineteen_sandbox::{Sandbox, SandboxConfig};
use nineteen_validator::registry;

const CHAT: &str = "chat-smollm2-135m";
const MODEL: &str = "smollm2-135m-instruct";
const EMBED: &str = "embed-minilm-l6";
/// No seed that a calibration was made with.
const SEED: &str = "held-out";
/// The goals: AUC by 64 units for the first, by 512 for the second.
const COARSE: [&str; 6] =
    ["int4", "int8-dynamic", "two-layers-removed", "half-depth", "wrong-seed", "layer-removed"];
const FINE: [&str; 4] = ["int8-weights", "hotter", "colder", "hidden-system"];
const MOST_BYTES: usize = 700;
const ROUNDS: usize = 3;
/// Prompts of the cost's measurement.
const PROMPTS: [usize; 2] = [64, 512];

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

struct Collected {
    calibration: Calibration,
    observed: Vec<Observed>,
}

async fn collect(
    cache: &Path,
    runtime: &Arc<Runtime>,
    task: &str,
    exchanges: u32,
) -> Result<Collected, Failure> {
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
    let mut requests = Vec::new();
    for n in 0..exchanges.saturating_mul(20) {
        let request = live.plugin.synthesize(&secret.derive(SEED, &n.to_string()))?.request;
        // As calibrations are made.
        if request.body.len() <= MOST_BYTES && requests.len() < exchanges as usize {
            requests.push(request);
        }
    }
    let scratch = tempfile::Builder::new().prefix("verification-").tempdir_in(cache)?;
    let setting = Setting {
        task: Task { name: live.manifest.name.clone(), model: calibration.model.name.clone() },
        beside: Vec::new(),
        models_dir: cache.join("models"),
        scratch: scratch.path().to_owned(),
        runtime: Arc::clone(runtime),
        requests,
        units: number("--units", 48),
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        honest_only: false,
    };
    let begun = Instant::now();
    let mut tell = |what: String| eprintln!("{:>6.0} s  {task}: {what}", begun.elapsed().as_secs_f64());
    let observed = if task == CHAT {
        observe_text(&setting, &mut tell).await?
    } else {
        observe_rows(&setting, &mut tell).await?
    };
    Ok(Collected { calibration, observed })
}

fn print(task: &str, reports: &BTreeMap<String, ClassReport>) -> (usize, usize) {
    let mut totals = (0, 0);
    for (class, report) in reports {
        let (streams, accused, (low, high)) = report.false_alarms();
        totals = (totals.0 + streams, totals.1 + accused);
        println!("\n{task}, {class}: {} honest exchanges held out", report.honest_exchanges);
        println!(
            "  honest streams of 60 exchanges accused at α = 0.001: {accused} of {streams}, 95 % interval {low:.5} to \
             {high:.5}; largest mean of e^Λ {:.3}",
            report.worst_mean_e
        );
        let head: String = LENGTHS.map(|l| format!("{l:>7}")).concat();
        println!(
            "  {:<28}{:>32}{:>32}{:>10}  goal",
            "suspect", "AUC by units", "found at 1e-3 by units", "verdict"
        );
        println!("  {:<28}    {head}    {head}", "");
        for row in &report.rows {
            let line = |name: &str, s: &Separation, verdict: &str, goal: &str| {
                let auc: String = s.auc.map(|a| format!("{a:>7.4}")).concat();
                let found: String = s.detected.map(|d| format!("{d:>7.3}")).concat();
                println!("  {name:<28}    {auc}    {found}{verdict:>10}  {goal}");
            };
            let verdict = row.units_to_decision.map_or_else(|| "never".to_owned(), |u| u.to_string());
            let met = |at: usize, least: f64| {
                let auc = row.ours.auc.get(at).copied().unwrap_or(0.0);
                format!(
                    "AUC >= {least} by {}: {}",
                    LENGTHS.get(at).unwrap_or(&0),
                    if auc >= least { "met" } else { "MISSED" }
                )
            };
            let goal = match row.suspect.as_str() {
                s if COARSE.contains(&s) => met(1, 0.999),
                s if FINE.contains(&s) => met(3, 0.99),
                _ => String::new(),
            };
            line(&row.suspect, &row.ours, &verdict, &goal);
            for (name, separation) in &row.baselines {
                line(&format!("    {name}"), separation, "", "");
            }
        }
    }
    totals
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Generating, one replay, and the six forward passes of Subnet 19's procedure, for the same 128 tokens behind a prompt.
async fn costs(
    cache: &Path,
    runtime: &Arc<Runtime>,
    model: &nineteen_domain::ModelName,
    prompt_tokens: usize,
) -> Result<[Duration; 3], Failure> {
    let config = ExecutorConfig {
        models_dir: cache.join("models"),
        threads_per_model: 1,
        intra_threads: 1,
        queue: 4,
        models: vec![model.clone().into()],
    };
    let runtime = Arc::clone(runtime);
    let executors = tokio::task::spawn_blocking(move || Executors::start(runtime, config)).await??;
    let text = executors.text(model.as_str()).ok_or("the chat model is not served")?.clone();
    let words = "A river in winter carries paper boats past the quiet market where copper signals are sold. "
        .repeat(64);
    let prompt: Vec<u32> = text.tokenize(&words)?.into_iter().take(prompt_tokens).collect();
    let (mut made, mut checked, mut six) = (Vec::new(), Vec::new(), Vec::new());
    let mut seed = 0;
    while made.len() < ROUNDS && seed < 200 {
        seed += 1;
        let sampler = Sampler::Seeded { seed, request: 1, temperature: 0.9, top_p: 1.0, top_k: 0 };
        let request = GenerateRequest {
            prompt: Prompt::Ids(prompt.clone()),
            max_tokens: 128,
            sampler,
            logprobs: true,
            stop: Vec::new(),
        };
        let (to, mut from) = tokio::sync::mpsc::channel(256);
        let begun = Instant::now();
        text.generate(request, to).await?;
        let took = begun.elapsed();
        let mut ids = Vec::new();
        while let Some(token) = from.recv().await {
            ids.push(token.id);
        }
        if ids.len() < 128 {
            continue;
        }
        made.push(took);
        let replay = |prompt: Vec<u32>, ids: Vec<u32>, sampler, top| {
            text.replay(ReplayRequest {
                prompt: Prompt::Ids(prompt),
                completion: Completion::Ids(ids),
                sampler,
                top,
            })
        };
        let begun = Instant::now();
        replay(prompt.clone(), ids.clone(), sampler, 0).await?;
        checked.push(begun.elapsed());
        // One pass with the rank in every row, the prompt's too, as `prompt_logprobs` gives them; then the first, the
        // last and three more places with their twenty likeliest.
        let all: Vec<u32> = prompt.iter().chain(&ids).copied().collect();
        let (first, rest) = all.split_at(1);
        let begun = Instant::now();
        replay(first.to_vec(), rest.to_vec(), Sampler::Greedy, 1).await?;
        for place in [0, 127, 31, 64, 96] {
            let before: Vec<u32> =
                prompt.iter().chain(ids.get(..place).unwrap_or_default()).copied().collect();
            replay(before, ids.get(place..=place).unwrap_or_default().to_vec(), Sampler::Greedy, 20).await?;
        }
        six.push(begun.elapsed());
    }
    drop(text);
    executors.stop().await;
    Ok([median(made), median(checked), median(six)])
}

async fn run() -> Result<(), Failure> {
    baselines::check()?;
    let cache = cache()?;
    let runtime = Runtime::load(&RuntimeConfig {
        library: None,
        cache_onnxruntime_dir: cache.join("onnxruntime"),
        providers: vec![],
    })?;
    let json = std::env::args().any(|a| a == "--json");
    let mut all = BTreeMap::new();
    let mut totals = (0, 0);
    if !std::env::args().any(|a| a == "--costs") {
        for (task, exchanges) in [(EMBED, 48), (CHAT, 24)] {
            let Collected { calibration, observed } =
                collect(&cache, &runtime, task, number("--exchanges", exchanges)).await?;
            let reports = evaluate(&calibration, &observed, &baselines::BASELINES);
            if !json {
                let (streams, accused) = print(task, &reports);
                totals = (totals.0 + streams, totals.1 + accused);
            }
            all.insert(task.to_owned(), serde_json::to_value(&reports)?);
        }
    }
    let model = nineteen_domain::ModelName::new(MODEL)?;
    for prompt in PROMPTS {
        let [made, checked, six] = costs(&cache, &runtime, &model, prompt).await?;
        let s = |d: Duration| d.as_secs_f64();
        let (part, times) = (s(checked) / s(made), s(six) / s(checked));
        let goal = |met: bool| if met { "met" } else { "MISSED" };
        if json {
            let of =
                serde_json::json!({ "generate_s": s(made), "check_s": s(checked), "six_forwards_s": s(six) });
            all.insert(format!("costs behind {prompt} tokens"), of);
        } else {
            println!(
                "\none thread, {prompt} + 128 tokens: a check {:.3} s, {part:.3} of generating them (goal 0.08: {}), \
                         {times:.1} times the checks a second of six forward passes (goal 5: {})",
                s(checked),
                goal(part <= 0.08),
                goal(times >= 5.0)
            );
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        println!("\n{} honest streams watched in all, {} accused", totals.0, totals.1);
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run())
}
