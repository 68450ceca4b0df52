//! What a check costs beside what it checks, and embeddings beside Python's runtime.
//!
//! `cargo bench -p nineteen-checking --profile dev [-- --json]`. Both figures are ratios taken in one run on one
//! machine: replay of 128 completion tokens behind 64 of prompt against generating them (goal: at most a tenth),
//! and texts a second over a fixed list against `embed.py` beside this file, where `NINETEEN_PYTHON` names a
//! Python with onnxruntime, tokenizers and numpy. One thread everywhere.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nineteen_checking::{
    Completion, ExecutorConfig, Executors, GenerateRequest, Prompt, Provider, ReplayRequest, Runtime,
    RuntimeConfig, Sampler,
};
use nineteen_domain::id::ModelName;
use serde_json::json;

const CHAT: &str = "smollm2-135m-instruct";
const EMBED: &str = "all-minilm-l6-v2";
const PROMPT: usize = 64;
const COMPLETION: usize = 128;
const ROUNDS: usize = 5;

type Failure = Box<dyn std::error::Error>;

fn cache() -> Result<PathBuf, Failure> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("NINETEEN_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|p| p.join("nineteen")))
        .or_else(|| from("HOME").map(|p| p.join(".cache/nineteen")))
        .ok_or_else(|| "none of NINETEEN_CACHE, XDG_CACHE_HOME and HOME is set".into())
}

/// 128 texts of 4 to 100 words, the same for both sides.
fn texts() -> Vec<String> {
    const WORDS: [&str; 16] = [
        "river",
        "validator",
        "quiet",
        "measure",
        "yellow",
        "engine",
        "seven",
        "under",
        "market",
        "paper",
        "winter",
        "signal",
        "copper",
        "garden",
        "window",
        "answer",
    ];
    (0..128_usize)
        .map(|i| {
            let words: Vec<&str> = (0..4 + (i * 29) % 97)
                .filter_map(|w| WORDS.get((i * 7 + w * 5 + w * w) % 16).copied())
                .collect();
            words.join(" ")
        })
        .collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

async fn replay_against_generation(executors: &Executors) -> Result<(Duration, Duration), Failure> {
    let model = executors.text(CHAT).ok_or("the chat model is not served")?;
    let prompt: Vec<u32> = model.tokenize(&texts().join(". "))?.into_iter().take(PROMPT).collect();
    let sampler = |seed| Sampler::Seeded { seed, request: 1, temperature: 0.7, top_p: 0.95, top_k: 50 };
    let (mut generating, mut replaying) = (Vec::new(), Vec::new());
    // A seed whose answer does not end before 128 tokens.
    let mut seed = 0;
    while generating.len() < ROUNDS {
        seed += 1;
        if seed > 200 {
            return Err("the model ends every answer early".into());
        }
        let (tokens, mut out) = tokio::sync::mpsc::channel(COMPLETION);
        let request = GenerateRequest {
            prompt: Prompt::Ids(prompt.clone()),
            max_tokens: u32::try_from(COMPLETION)?,
            sampler: sampler(seed),
            logprobs: false,
            stop: Vec::new(),
        };
        let start = Instant::now();
        model.generate(request, tokens).await?;
        let took = start.elapsed();
        let mut ids = Vec::new();
        while let Some(token) = out.recv().await {
            ids.push(token.id);
        }
        if ids.len() < COMPLETION {
            continue;
        }
        let request = ReplayRequest {
            prompt: Prompt::Ids(prompt.clone()),
            completion: Completion::Ids(ids),
            sampler: sampler(seed),
            top: 5,
        };
        let start = Instant::now();
        let replay = model.replay(request).await?;
        replaying.push(start.elapsed());
        generating.push(took);
        if replay.margin.iter().any(|m| *m > 1e-3) {
            return Err("an honest answer did not replay; these times mean nothing".into());
        }
    }
    Ok((median(replaying), median(generating)))
}

async fn embedding_rate(executors: &Executors) -> Result<f64, Failure> {
    let model = executors.embedding(EMBED).ok_or("the embedding model is not served")?;
    let texts = texts();
    model.embed(texts.clone()).await?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        model.embed(texts.clone()).await?;
        times.push(start.elapsed());
    }
    Ok(texts.len() as f64 / median(times).as_secs_f64())
}

/// The same list on the same model in Python's runtime, batched the same way.
fn python_rate(models: &Path) -> Result<Option<f64>, Failure> {
    let Some(python) = std::env::var_os("NINETEEN_PYTHON").filter(|v| !v.is_empty()) else { return Ok(None) };
    let list = std::env::temp_dir().join(format!("nineteen-bench-{}.json", std::process::id()));
    std::fs::write(&list, serde_json::to_vec(&texts())?)?;
    let ran = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/embed.py"))
        .args([models.join(EMBED).as_os_str(), list.as_os_str()])
        .arg(ROUNDS.to_string())
        .output();
    std::fs::remove_file(&list)?;
    let ran = ran?;
    if !ran.status.success() {
        return Err(format!("embed.py: {}", String::from_utf8_lossy(&ran.stderr).trim()).into());
    }
    Ok(Some(String::from_utf8_lossy(&ran.stdout).trim().parse()?))
}

fn main() -> Result<(), Failure> {
    let as_json = std::env::args().any(|a| a == "--json");
    let cache = cache()?;
    let runtime = Runtime::load(&RuntimeConfig {
        library: None,
        cache_onnxruntime_dir: cache.join("onnxruntime"),
        providers: vec![Provider::Cpu],
    })?;
    let version = runtime.version().to_owned();
    let models = cache.join("models");
    let executors = Executors::start(
        runtime,
        ExecutorConfig {
            models_dir: models.clone(),
            threads_per_model: 1,
            intra_threads: 1,
            queue: 4,
            models: vec![ModelName::new(CHAT)?.into(), ModelName::new(EMBED)?.into()],
        },
    )?;
    let async_runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (replay, generation) = async_runtime.block_on(replay_against_generation(&executors))?;
    let ours = async_runtime.block_on(embedding_rate(&executors))?;
    let python = python_rate(&models)?;
    async_runtime.block_on(executors.stop());

    let ratio = replay.as_secs_f64() / generation.as_secs_f64();
    if as_json {
        let report = json!({
            "onnxruntime": version,
            "prompt_tokens": PROMPT,
            "completion_tokens": COMPLETION,
            "replay_ms": replay.as_secs_f64() * 1e3,
            "generate_ms": generation.as_secs_f64() * 1e3,
            "replay_over_generate": ratio,
            "embeddings_per_s": ours,
            "python_embeddings_per_s": python,
            "embeddings_over_python": python.map(|p| ours / p),
        });
        println!("{report}");
        return Ok(());
    }
    println!("ONNX Runtime {version}, one thread, medians of {ROUNDS}");
    println!("generate {COMPLETION} tokens after {PROMPT}   {:>9.1} ms", generation.as_secs_f64() * 1e3);
    println!("replay them in one prefill       {:>9.1} ms", replay.as_secs_f64() * 1e3);
    println!("replay / generate                {ratio:>9.3}    (goal: at most 0.100)");
    println!("embeddings                       {ours:>9.1} texts/s");
    match python {
        Some(python) => {
            println!("embeddings in Python             {python:>9.1} texts/s");
            println!("ours / Python's                  {:>9.3}", ours / python);
        }
        None => println!("embeddings in Python             not measured: set NINETEEN_PYTHON"),
    }
    Ok(())
}
