//! What the sandbox costs, side by side in one run: through [`Plugin`], on bare wasmtime with the same settings, in Extism, and
//! as a native function.
//!
//! `cargo xtask bench sandbox [-- --json]` builds the contenders and runs this. All do the same work on the same exchange:
//! the tasks are the templates of `nineteen task new` in Rust, Python and JavaScript, the native function and the Extism plugin
//! come from `benches/sandbox/work.rs`, which is the template's scoring. They take turns in short batches, so that a machine that is
//! busy is busy for all; a figure is the median over the batches.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that fails says so loudly"
)]

mod bare;
#[path = "../../tests/common/mod.rs"]
mod common;
mod extism;
#[path = "../../../../benches/sandbox/work.rs"]
mod work;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bare::Bare;
use bytes::Bytes;
use common::{Guest, manifest, request as echo_request};
use extism::Extism;
use nineteen_domain::task::{Budget, Manifest};
use nineteen_domain::{Chunk, Ending, Exchange, Outcome, Request, Seed};
use nineteen_sandbox::{Assets, ComponentSource, Plugin, Sandbox, SandboxConfig, Scoring};
use wasmtime::component::Component;

const BATCHES: usize = 31;
const BATCH_TIME: Duration = Duration::from_millis(20);
/// Exchanges in one call of `score-batch`.
const TOGETHER: usize = 64;
/// Instances that live at once where memory is measured.
const LIVE: usize = 24;
/// Calls whose 99th percentile is looked at, in each round.
const CALLS: usize = 4_000;
const ROUNDS: usize = 7;
/// What the budget of a call that never ends allows, milliseconds.
const DEADLINE_MS: u64 = 10;
const OVERRUNS: usize = 200;

/// Who takes turns: does so many calls, and says how many nanoseconds they took.
type Contestant<'a> = (&'static str, Box<dyn FnMut(u64) -> f64 + 'a>);

fn timed<'a>(mut call: impl FnMut() + 'a) -> Box<dyn FnMut(u64) -> f64 + 'a> {
    Box::new(move |calls| {
        let began = Instant::now();
        (0..calls).for_each(|_| call());
        began.elapsed().as_nanos() as f64
    })
}

/// Median nanoseconds of one call of each, taking turns.
fn race(contestants: &mut [Contestant<'_>]) -> Vec<(&'static str, f64)> {
    let sizes: Vec<u64> = contestants
        .iter_mut()
        .map(|(_, run)| {
            run(1);
            let mut calls = 1;
            loop {
                let took = run(calls);
                if took >= BATCH_TIME.as_nanos() as f64 / 2.0 {
                    return ((calls as f64 * BATCH_TIME.as_nanos() as f64 / took) as u64).max(1);
                }
                calls *= 2;
            }
        })
        .collect();
    let mut times = vec![Vec::with_capacity(BATCHES); contestants.len()];
    for _ in 0..BATCHES {
        for (((_, run), size), times) in contestants.iter_mut().zip(&sizes).zip(&mut times) {
            // Who comes after a process on another core would pay for waking this one, and for what is in its caches.
            run((*size / 8).max(1));
            times.push(run(*size) / *size as f64);
        }
    }
    contestants.iter().zip(times).map(|((who, _), all)| (*who, quantile(all, 0.5))).collect()
}

fn quantile(mut all: Vec<f64>, q: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    all[((all.len() - 1) as f64 * q).round() as usize]
}

/// The task of a language, loaded in the sandbox and linked on bare wasmtime.
struct Contender {
    lang: &'static str,
    wasm: PathBuf,
    manifest: Manifest,
    plugin: Arc<Plugin>,
    bare: Bare,
    /// What the cache of wasmtime would hold.
    compiled: PathBuf,
}

impl Contender {
    fn load(
        lang: &'static str,
        contenders: &Path,
        scratch: &Path,
        sandbox: &Sandbox,
        runtime: &tokio::runtime::Runtime,
    ) -> Self {
        let task = contenders.join(lang).join("task");
        let text = std::fs::read_to_string(task.join("task.toml")).expect("the task's manifest");
        let manifest: Manifest = toml::from_str(&text).expect("the task's manifest");
        let wasm = task.join(format!("bench-{lang}.wasm"));
        let source = ComponentSource::Path(wasm.clone());
        let plugin =
            runtime.block_on(sandbox.load(source, None, &manifest, Assets::none())).expect("it loads");
        let bytes = std::fs::read(&wasm).expect("the component");
        let component = Component::new(sandbox.engine(), &bytes).expect("it compiles");
        let compiled = scratch.join(format!("{lang}.cwasm"));
        std::fs::write(&compiled, component.serialize().expect("it is written")).expect("it is written");
        let bare = Bare::new(sandbox.engine(), &component, &manifest).expect("it links");
        Self { lang, wasm, manifest, plugin, bare, compiled }
    }
}

/// An exchange of the template's task, as the miner of its README answers.
fn exchange() -> (Request, Exchange, Vec<u8>) {
    let texts = ["amber bridge cloud dune", "ember field grove", "kettle lantern meadow night orchard"];
    let told: Vec<String> = texts.iter().map(|t| t.to_uppercase()).collect();
    let body = serde_json::json!({ "op": "upper", "texts": texts }).to_string();
    let reply = serde_json::json!({ "texts": told }).to_string();
    let mut input = u32::try_from(body.len()).expect("a short body").to_le_bytes().to_vec();
    input.extend_from_slice(body.as_bytes());
    input.extend_from_slice(reply.as_bytes());
    let request = Request {
        path: "/v1/transform".into(),
        content_type: "application/json".into(),
        body: body.into(),
        streamed: false,
    };
    let exchange = Exchange {
        status: 200,
        headers: vec![("content-type".into(), "application/json".into())],
        chunks: vec![Chunk { at_us: 7_000, data: Bytes::from(reply) }],
        ended_us: 7_000,
        ending: Ending::Complete,
    };
    (request, exchange, input)
}

/// One row of the report: what, in which language, by whom, how much.
struct Row {
    what: &'static str,
    lang: &'static str,
    who: &'static str,
    value: f64,
    unit: &'static str,
}

#[derive(Default)]
struct Report {
    rows: Vec<Row>,
    goals: Vec<(String, f64, &'static str, bool)>,
}

impl Report {
    fn put(
        &mut self,
        what: &'static str,
        lang: &'static str,
        unit: &'static str,
        found: &[(&'static str, f64)],
    ) {
        let words: Vec<String> = found.iter().map(|(who, v)| format!("{who} {}", shown(*v, unit))).collect();
        println!("{what:<34}{lang:<8}{}", words.join("   "));
        self.rows.extend(found.iter().map(|(who, value)| Row { what, lang, who, value: *value, unit }));
    }

    fn find(&self, what: &str, lang: &str, who: &str) -> Option<f64> {
        self.rows.iter().find(|r| r.what == what && r.lang == lang && r.who == who).map(|r| r.value)
    }

    fn goal(&mut self, words: String, value: Option<f64>, unit: &'static str, met: impl Fn(f64) -> bool) {
        match value {
            None => println!("  not measured   {words}"),
            Some(value) => {
                let met = met(value);
                let word = if met { "met" } else { "MISSED" };
                println!("  {word:<13}  {words}: {}", shown(value, unit));
                self.goals.push((words, value, unit, met));
            }
        }
    }
}

fn shown(value: f64, unit: &str) -> String {
    match unit {
        "ns" if value >= 1e6 => format!("{:.2} ms", value / 1e6),
        "ns" if value >= 1e3 => format!("{:.1} µs", value / 1e3),
        "ns" => format!("{value:.0} ns"),
        "bytes" if value >= 1048576.0 => format!("{:.1} MiB", value / 1048576.0),
        "bytes" => format!("{:.0} KiB", value / 1024.0),
        "calls/s" => format!("{value:.0}/s"),
        _ => format!("{value:.2} {unit}"),
    }
}

fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: f64 = text.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * 4096.0
}

const FRESH: &str = "fresh instance and one call";
const WARM: &str = "a call of a live instance";
const BOTH: &str = "fresh calls on all cores";
const MEMORY: &str = "memory of a live instance";
const LOAD: &str = "load from the cache";

fn main() {
    // Cargo passes `--bench`; a word is a filter on the name of this bench.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if !args.iter().filter(|a| !a.starts_with("--")).all(|w| "sandbox".contains(w.as_str())) {
        return;
    }
    let Some(contenders) = std::env::var_os("NINETEEN_CONTENDERS").map(PathBuf::from) else {
        eprintln!(
            "NINETEEN_CONTENDERS is not set: run this as `cargo xtask bench sandbox`, which builds what it needs"
        );
        return;
    };
    let scratch = tempfile::tempdir().expect("a folder");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sandbox = Sandbox::new(SandboxConfig {
        cache_dir: scratch.path().join("compiled"),
        max_component_bytes: 64 << 20,
        compile_timeout: Duration::from_secs(300),
        max_concurrent_calls: 2 * LIVE as u32,
        host_version: semver::Version::new(0, 1, 0),
    })
    .expect("a sandbox");
    let (request, exchange, input) = exchange();
    let mut report = Report::default();
    let mut plain = Extism::start(&contenders, scratch.path(), false, &input);
    let mut pooled = Extism::start(&contenders, scratch.path(), true, &input);
    if plain.is_none() {
        println!("Extism was not built: its columns are missing");
    }
    println!("score of one exchange of {} bytes; {cores} cores; medians of {BATCHES} batches\n", input.len());

    let right = work::right(&request.body, &exchange.body()).expect("an exchange");
    for extism in [&plain, &pooled].into_iter().flatten() {
        assert_eq!(extism.said, right);
    }
    for lang in ["rust", "python", "js"] {
        let it = Contender::load(lang, &contenders, scratch.path(), &sandbox, &runtime);
        agree(&it, &request, &exchange, right);
        let (plain, pooled) = match lang {
            "rust" => (plain.as_mut(), pooled.as_mut()),
            _ => (None, None),
        };
        measure(&it, &sandbox, &runtime, (&request, &exchange), (plain, pooled), cores, &mut report);
    }
    chat(&sandbox, &runtime, &mut report);
    deadline(&runtime, &mut report);
    neighbours(&contenders, &runtime, (&request, &exchange), &mut report);
    goals(&mut report);
    if args.iter().any(|a| a == "--json") {
        for r in &report.rows {
            let line = serde_json::json!({ "bench": "sandbox", "what": r.what, "guest": r.lang, "who": r.who, "value": r.value, "unit": r.unit });
            println!("{line}");
        }
        for (words, value, unit, met) in &report.goals {
            println!(
                "{}",
                serde_json::json!({ "bench": "sandbox", "goal": words, "value": value, "unit": unit, "met": met })
            );
        }
    }
}

/// All say the same before anything is timed.
fn agree(it: &Contender, request: &Request, exchange: &Exchange, (right, asked): (u64, u64)) {
    let quality = right as f64 / asked as f64;
    match it.plugin.score(request, exchange, &[]) {
        Ok(Outcome::Scored(v)) => assert_eq!((v.quality, v.units), (quality, right)),
        other => panic!("{}: {other:?}", it.lang),
    }
    assert_eq!(it.bare.score(request, exchange).expect("a score"), Some((quality, right)));
}

fn measure(
    it: &Contender,
    sandbox: &Sandbox,
    runtime: &tokio::runtime::Runtime,
    (request, exchange): (&Request, &Exchange),
    (mut plain, pooled): (Option<&mut Extism>, Option<&mut Extism>),
    cores: usize,
    report: &mut Report,
) {
    let Contender { lang, plugin, bare, .. } = it;

    let mut all: Vec<Contestant<'_>> = vec![
        ("nineteen", timed(|| drop(black_box(plugin.score(request, exchange, &[]))))),
        ("wasmtime", timed(|| drop(black_box(bare.score(request, exchange))))),
        (
            "native",
            timed(|| {
                black_box(work::right(black_box(&request.body), black_box(&exchange.body())));
            }),
        ),
    ];
    if let Some(extism) = plain.as_deref_mut() {
        all.push(("extism", Box::new(|n| extism.order(&format!("fresh {n}")))));
    }
    if let Some(extism) = pooled {
        all.push(("extism-pooled", Box::new(|n| extism.order(&format!("fresh {n}")))));
    }
    report.put(FRESH, lang, "ns", &race(&mut all));
    drop(all);

    let (mut store, instance) = bare.instance().expect("an instance");
    let batch: Vec<Scoring> = (0..TOGETHER)
        .map(|_| Scoring { request: request.clone(), exchange: exchange.clone(), evidence: Vec::new() })
        .collect();
    let mut all: Vec<Contestant<'_>> = vec![(
        "wasmtime",
        timed(|| drop(black_box(bare.score_in(&mut store, &instance, request, exchange)))),
    )];
    // A component of 0.2 takes several exchanges in a call: what a call costs, divided.
    if plugin.wit_version().minor >= 2 {
        let mut run = timed(|| drop(black_box(plugin.score_batch(&batch))));
        all.push(("nineteen-batch", Box::new(move |n| run(n) / TOGETHER as f64)));
    }
    if let Some(extism) = plain.as_deref_mut() {
        all.push(("extism", Box::new(|n| extism.order(&format!("warm {n}")))));
    }
    report.put(WARM, lang, "ns", &race(&mut all));
    drop(all);

    let each = (500_000_000.0 / report.find(FRESH, lang, "nineteen").expect("measured")).max(2.0) as u64;
    let rate = |call: &(dyn Fn() + Sync)| {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| (0..each).for_each(|_| call()));
            }
        });
        (cores as u64 * each) as f64 / began.elapsed().as_secs_f64()
    };
    let mut rates: Vec<(&'static str, Vec<f64>)> = vec![("nineteen", vec![]), ("wasmtime", vec![])];
    if plain.is_some() {
        rates.push(("extism", vec![]));
    }
    for _ in 0..5 {
        for (who, rates) in &mut rates {
            rates.push(match (*who, plain.as_deref_mut()) {
                ("nineteen", _) => rate(&|| drop(black_box(plugin.score(request, exchange, &[])))),
                ("extism", Some(extism)) => {
                    let n = (each / 8).max(2);
                    (cores as u64 * n) as f64 / (extism.order(&format!("threads {cores} {n}")) / 1e9)
                }
                _ => rate(&|| drop(black_box(bare.score(request, exchange)))),
            });
        }
    }
    let rates: Vec<_> = rates.into_iter().map(|(who, all)| (who, quantile(all, 0.5))).collect();
    report.put(BOTH, lang, "calls/s", &rates);

    let before = resident();
    let live: Vec<_> = (0..LIVE)
        .map(|_| {
            let (mut store, instance) = bare.instance().expect("an instance");
            bare.score_in(&mut store, &instance, request, exchange).expect("a score");
            (store, instance)
        })
        .collect();
    let mut memory = vec![("wasmtime, same pool", (resident() - before).max(0.0) / LIVE as f64)];
    drop(live);
    if let Some(extism) = plain.as_deref_mut() {
        memory.push(("extism", extism.order(&format!("live {LIVE}")) / LIVE as f64));
    }
    report.put(MEMORY, lang, "bytes", &memory);

    let load = || {
        let source = ComponentSource::Path(it.wasm.clone());
        runtime.block_on(sandbox.load(source, None, &it.manifest, Assets::none())).expect("it loads")
    };
    let mut all: Vec<Contestant<'_>> = vec![
        ("nineteen", timed(|| drop(black_box(load())))),
        (
            "wasmtime, unchecked",
            timed(|| {
                #[allow(unsafe_code, reason = "written by this process a moment ago")]
                // SAFETY: `Contender::load` serialised it with this very engine into a folder of our own.
                let component = unsafe { Component::deserialize_file(sandbox.engine(), &it.compiled) };
                let component = component.expect("it was written by this engine");
                drop(black_box(Bare::new(sandbox.engine(), &component, &it.manifest)));
            }),
        ),
    ];
    if let Some(extism) = plain {
        all.push(("extism", Box::new(|n| extism.order(&format!("load {n}")))));
    }
    let found = race(&mut all);
    drop(all);
    let steps: Vec<String> =
        load().load_steps().iter().map(|(s, t)| format!("{s} {:.0} µs", t.as_secs_f64() * 1e6)).collect();
    report.put(LOAD, lang, "ns", &found);
    println!("{:<42}{}", "", steps.join(", "));
}

/// The chat plugin of this repository, on a reply like a miner's.
fn chat(sandbox: &Sandbox, runtime: &tokio::runtime::Runtime, report: &mut Report) {
    let Some(components) = std::env::var_os("NINETEEN_COMPONENTS") else { return };
    let Ok(bytes) = std::fs::read(Path::new(&components).join("text-generation.wasm")) else { return };
    let task = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tasks/chat-smollm2-135m/task.toml");
    let text = std::fs::read_to_string(task).expect("the task's manifest");
    let manifest: Manifest = toml::from_str(&text).expect("the task's manifest");
    let source = ComponentSource::Bytes(bytes.clone().into());
    let plugin = runtime.block_on(sandbox.load(source, None, &manifest, Assets::none())).expect("it loads");
    let component = Component::new(sandbox.engine(), &bytes).expect("it compiles");
    let bare = Bare::new(sandbox.engine(), &component, &manifest).expect("it links");
    let made = plugin.synthesize(&Seed::from_bytes([7; 32])).expect("a request").request;
    let logprobs: Vec<_> = (0..64)
        .map(|i| serde_json::json!({"token": format!(" w{i}"), "logprob": -0.25, "bytes": [32, 119]}))
        .collect();
    let body = serde_json::json!({
        "id": "x", "object": "chat.completion", "created": 1, "model": "smollm2-135m-instruct",
        "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": " word".repeat(64)},
            "token_ids": (100..164).collect::<Vec<_>>(), "logprobs": {"content": logprobs}}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 64, "total_tokens": 104},
    });
    let (_, mut exchange, _) = exchange();
    exchange.chunks[0].data = body.to_string().into();
    let found = race(&mut [
        ("nineteen", timed(|| drop(black_box(plugin.score(&made, &exchange, &[]))))),
        ("wasmtime", timed(|| drop(black_box(bare.score(&made, &exchange))))),
    ]);
    report.put("chat: first round of 64 tokens", "rust", "ns", &found);
}

/// A guest that never ends.
fn endless(runtime: &tokio::runtime::Runtime) -> (common::House, Arc<Plugin>) {
    let house = common::House::new();
    let mut manifest = manifest();
    manifest.budget.wall_ms = DEADLINE_MS;
    manifest.budget.fuel = Budget::CAP.fuel;
    let plugin =
        runtime.block_on(house.load_as(&Guest::scoring("(loop $l (br $l)) (unreachable)"), &manifest));
    (house, plugin)
}

/// How long after its deadline a call that never ends is ended.
fn deadline(runtime: &tokio::runtime::Runtime, report: &mut Report) {
    let (_house, plugin) = endless(runtime);
    let (request, exchange) = (echo_request(), common::exchange());
    let over: Vec<f64> = (0..OVERRUNS)
        .map(|_| {
            let began = Instant::now();
            plugin.score(&request, &exchange, &[]).expect_err("it never ends");
            (began.elapsed().as_nanos() as f64 - DEADLINE_MS as f64 * 1e6).max(0.0)
        })
        .collect();
    let found = [
        ("median", quantile(over.clone(), 0.5)),
        ("p99", quantile(over.clone(), 0.99)),
        ("most", quantile(over, 1.0)),
    ];
    report.put("overrun past a deadline of 10 ms", "", "ns", &found);
}

/// What runs over and over on another core.
type Neighbour<'a> = Box<dyn Fn() + Sync + 'a>;

/// How far a task's 99th percentile moves while another task, on another core, behaves, or does nothing but misbehave.
fn neighbours(
    contenders: &Path,
    runtime: &tokio::runtime::Runtime,
    (request, exchange): (&Request, &Exchange),
    report: &mut Report,
) {
    let (house, endless) = endless(runtime);
    let mut manifest = manifest();
    manifest.budget.fuel = 5_000_000;
    let hog = "(loop $l (drop (memory.grow (i32.const 16))) (br $l)) (unreachable)";
    let hog = runtime.block_on(house.load_as(&Guest::scoring(hog), &manifest));
    let traps = runtime.block_on(house.load_as(&Guest::scoring("(unreachable)"), &manifest));
    let scratch = tempfile::tempdir().expect("a folder");
    // One sandbox for all, as in a validator.
    let good = Contender::load("rust", contenders, scratch.path(), &house.sandbox, runtime);
    let measured = || -> Vec<f64> {
        (0..CALLS)
            .map(|_| {
                let began = Instant::now();
                drop(black_box(good.plugin.score(request, exchange, &[])));
                began.elapsed().as_nanos() as f64
            })
            .collect()
    };
    let (bad_request, bad_exchange) = (echo_request(), common::exchange());
    let honest = || drop(black_box(good.plugin.score(request, exchange, &[])));
    let hostile = |plugin: &Plugin| drop(black_box(plugin.score(&bad_request, &bad_exchange, &[])));
    // The honest one shows what two processors of this machine cost each other, whoever runs there.
    let neighbours: [(&'static str, Neighbour<'_>); 5] = [
        ("beside honest", Box::new(honest)),
        ("beside endless", Box::new(|| hostile(&endless))),
        ("beside memory", Box::new(|| hostile(&hog))),
        ("beside traps", Box::new(|| hostile(&traps))),
        (
            "beside hostile",
            Box::new(|| [&endless, &hog, &traps].into_iter().for_each(|plugin| hostile(plugin))),
        ),
    ];
    let mut alone = Vec::new();
    let mut beside = vec![Vec::new(); neighbours.len()];
    for _ in 0..ROUNDS {
        alone.push(quantile(measured(), 0.99));
        for ((_, call), beside) in neighbours.iter().zip(&mut beside) {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        call();
                    }
                });
                beside.push(quantile(measured(), 0.99));
                stop.store(true, Ordering::Relaxed);
            });
        }
    }
    let mut found = vec![("alone", quantile(alone, 0.5))];
    found.extend(neighbours.iter().zip(beside).map(|((who, _), all)| (*who, quantile(all, 0.5))));
    report.put("p99 of fresh calls", "rust", "ns", &found);
}

fn goals(report: &mut Report) {
    println!();
    let of = |what: &str, lang: &str, a: &str, b: &str| {
        Some(report.find(what, lang, a)? / report.find(what, lang, b)?)
    };
    let overheads: Vec<(&'static str, Option<f64>)> =
        ["rust", "python", "js"].map(|lang| (lang, of(FRESH, lang, "nineteen", "wasmtime"))).into();
    let (extism, pooled) =
        (of(FRESH, "rust", "extism", "nineteen"), of(FRESH, "rust", "extism-pooled", "nineteen"));
    let chat = of("chat: first round of 64 tokens", "rust", "nineteen", "wasmtime");
    let moved = of("p99 of fresh calls", "rust", "beside hostile", "alone").map(|x| (x - 1.0) * 100.0);
    let (fresh, load) = (report.find(FRESH, "rust", "nineteen"), report.find(LOAD, "rust", "nineteen"));
    let overrun = report.find("overrun past a deadline of 10 ms", "", "p99");
    report.goal("fresh call, times faster than Extism (at least 5)".into(), extism, "x", |x| x >= 5.0);
    report.goal("the same with Extism's instances in a pool".into(), pooled, "x", |x| x >= 5.0);
    for (lang, x) in overheads {
        report.goal(format!("overhead over bare wasmtime, {lang} (at most 1.1)"), x, "x", |x| x <= 1.1);
    }
    report.goal("overhead over bare wasmtime, chat (at most 1.1)".into(), chat, "x", |x| x <= 1.1);
    report.goal("fresh call, Rust (near 12 µs)".into(), fresh, "ns", |ns| ns <= 15_000.0);
    report.goal("load from the cache, Rust (near 250 µs)".into(), load, "ns", |ns| ns <= 300_000.0);
    report.goal("overrun past 10 ms, p99 (at most 5 ms)".into(), overrun, "ns", |ns| ns <= 5e6);
    report.goal("p99 beside hostile tasks moves (under 20 %)".into(), moved, "%", |x| x < 20.0);
}
