//! What a call costs: through [`Plugin`], on bare wasmtime, and as a native function, side by side in one run.
//!
//! `cargo bench -p nineteen-sandbox --profile dev [-- --json]`. All three do the same work on the same
//! exchange. Bare wasmtime has the same engine, a fresh instance, fuel, epoch deadline and store limits, and
//! bindings from the same WIT; what [`Plugin`] adds is the count of calls at a time, sizes of arguments, the
//! mapping between the domain and the WIT, and the rules of the contract. Goal: at most 1.2 × bare.
//!
//! The three take turns in short batches, so that a machine that is busy is busy for all of them; a figure
//! is the median over the batches. With `NINETEEN_COMPONENTS` (the folder of built components) the chat
//! plugin itself is measured too, where it is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly, like tests"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Guest, House, manifest, request};
use nineteen_domain::task::{Budget, Manifest};
use nineteen_domain::{Chunk, Ending, Exchange, Outcome, Request, Seed, Verdict};
use nineteen_sandbox::{Assets, ComponentSource, Plugin};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store, StoreLimits, StoreLimitsBuilder};

const BATCHES: usize = 41;
const BATCH_TIME: Duration = Duration::from_millis(15);

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1",
        world: "nineteen:task/plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
    });
}

use bindings::nineteen::task::{assets, log, types};

/// The data of a bare store.
struct Bare(StoreLimits);

impl types::Host for Bare {}
impl log::Host for Bare {
    fn write(&mut self, _: log::Level, _: String, _: Vec<(String, String)>) -> wasmtime::Result<()> {
        Ok(())
    }
}
impl assets::Host for Bare {
    fn read(&mut self, _: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// Bare wasmtime: linked once, a fresh instance a call.
struct BarePlugin {
    engine: Engine,
    linked: bindings::PluginPre<Bare>,
    params: String,
    budget: Budget,
}

impl BarePlugin {
    fn new(engine: &Engine, bytes: &[u8], manifest: &Manifest) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(engine);
        bindings::Plugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
        let linked = linker.instantiate_pre(&Component::new(engine, bytes)?)?;
        Ok(Self {
            engine: engine.clone(),
            linked: bindings::PluginPre::new(linked)?,
            params: manifest.params_json(),
            budget: manifest.budget,
        })
    }

    fn store(&self) -> wasmtime::Result<Store<Bare>> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(usize::try_from(self.budget.memory_bytes)?)
            .trap_on_grow_failure(true)
            .build();
        let mut store = Store::new(&self.engine, Bare(limits));
        store.limiter(|state| &mut state.0);
        store.set_epoch_deadline(1000);
        store.set_fuel(self.budget.fuel)?;
        Ok(store)
    }

    fn count(&self, request: &Request, exchange: &Exchange) -> wasmtime::Result<Option<u64>> {
        let mut store = self.store()?;
        let guest = self.linked.instantiate(&mut store)?;
        let chunks = chunks(exchange);
        guest.nineteen_task_task().call_count(
            &mut store,
            &self.params,
            lower(request),
            exchange_of(exchange, &headers(exchange), &chunks),
        )
    }

    fn score(&self, request: &Request, exchange: &Exchange) -> wasmtime::Result<types::Outcome> {
        let mut store = self.store()?;
        let guest = self.linked.instantiate(&mut store)?;
        let chunks = chunks(exchange);
        guest.nineteen_task_task().call_score(
            &mut store,
            &self.params,
            lower(request),
            exchange_of(exchange, &headers(exchange), &chunks),
            &[],
        )
    }
}

fn lower(r: &Request) -> types::RequestParam<'_> {
    types::RequestParam { path: &r.path, content_type: &r.content_type, body: &r.body, streamed: r.streamed }
}

fn headers(e: &Exchange) -> Vec<(&str, &str)> {
    e.headers.iter().map(|(k, v)| (&**k, &**v)).collect()
}

fn chunks(e: &Exchange) -> Vec<types::Chunk<'_>> {
    e.chunks.iter().map(|c| types::Chunk { at_us: c.at_us, data: &c.data }).collect()
}

fn exchange_of<'a>(
    e: &Exchange,
    headers: &'a [(&'a str, &'a str)],
    chunks: &'a [types::Chunk<'a>],
) -> types::Exchange<'a> {
    types::Exchange {
        status: e.status,
        headers,
        chunks,
        ended_us: e.ended_us,
        ending: types::Ending::Complete,
    }
}

/// Counts the bytes of the reply; scores with the sum of their values.
fn guest() -> Guest {
    // A chunk is (at-us: u64, data: pointer, length), 16 bytes. Chunks of the exchange are at 52 and 56.
    let each = |body: &str| {
        format!(
            "(local.set $at (i32.load offset=52 (local.get 0)))
             (local.set $end (i32.add (local.get $at) (i32.shl (i32.load offset=56 (local.get 0)) (i32.const 4))))
             (block $done (loop $l
               (br_if $done (i32.eq (local.get $at) (local.get $end)))
               {body}
               (local.set $at (i32.add (local.get $at) (i32.const 16))) (br $l)))"
        )
    };
    let locals = "(local $at i32) (local $end i32) (local $p i32) (local $q i32) (local $n i64)";
    let count = format!(
        "{locals} {} (i32.store8 (i32.const 1024) (i32.const 1)) (i64.store (i32.const 1032) (local.get $n)) (i32.const 1024)",
        each("(local.set $n (i64.add (local.get $n) (i64.load32_u offset=12 (local.get $at))))")
    );
    let score = format!(
        "{locals} {} (call $scored (f64.const 1) (local.get $n))",
        each(
            "(local.set $p (i32.load offset=8 (local.get $at)))
             (local.set $q (i32.add (local.get $p) (i32.load offset=12 (local.get $at))))
             (block $eaten (loop $b
               (br_if $eaten (i32.eq (local.get $p) (local.get $q)))
               (local.set $n (i64.add (local.get $n) (i64.load8_u (local.get $p))))
               (local.set $p (i32.add (local.get $p) (i32.const 1))) (br $b)))"
        )
    );
    Guest { count, score, ..Guest::default() }
}

fn native_count(exchange: &Exchange) -> Option<u64> {
    Some(exchange.chunks.iter().map(|c| c.data.len() as u64).sum())
}

fn native_score(exchange: &Exchange) -> Outcome {
    let units = exchange.chunks.iter().flat_map(|c| c.data.iter()).map(|b| u64::from(*b)).sum();
    Outcome::Scored(Verdict {
        quality: 1.0,
        units,
        units_by_chunk: Vec::new(),
        suspicions: Vec::new(),
        fingerprints: Vec::new(),
        reasons: Vec::new(),
    })
}

fn reply(chunks: usize, bytes: usize) -> Exchange {
    let chunk =
        |i: usize| Chunk { at_us: i as u64 * 7000, data: Bytes::from(vec![b'a' + (i % 26) as u8; bytes]) };
    Exchange {
        status: 200,
        headers: vec![("content-type".into(), "text/event-stream".into())],
        chunks: (0..chunks).map(chunk).collect(),
        ended_us: chunks as u64 * 7000,
        ending: Ending::Complete,
    }
}

/// Median nanoseconds of one call of each, taking turns.
fn race(runners: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let sizes: Vec<usize> = runners
        .iter_mut()
        .map(|run| {
            run();
            let began = Instant::now();
            let mut calls = 0_usize;
            while began.elapsed() < BATCH_TIME {
                run();
                calls += 1;
            }
            calls.max(1)
        })
        .collect();
    let mut times = vec![Vec::with_capacity(BATCHES); runners.len()];
    for _ in 0..BATCHES {
        for ((run, size), times) in runners.iter_mut().zip(&sizes).zip(&mut times) {
            let began = Instant::now();
            (0..*size).for_each(|_| run());
            times.push(began.elapsed().as_nanos() as f64 / *size as f64);
        }
    }
    times
        .into_iter()
        .map(|mut all| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        })
        .collect()
}

/// One line of the table.
struct Line {
    what: String,
    plugin_ns: f64,
    bare_ns: f64,
    native_ns: Option<f64>,
}

impl Line {
    fn ratio(&self) -> f64 {
        self.plugin_ns / self.bare_ns
    }
}

fn us(ns: f64) -> String {
    format!("{:.2} µs", ns / 1000.0)
}

fn simple(house: &House, runtime: &tokio::runtime::Runtime) -> Vec<Line> {
    let (guest, manifest) = (guest().build(), manifest());
    let plugin = runtime.block_on(house.try_load(guest.clone(), &manifest)).expect("the guest loads");
    let bare = BarePlugin::new(house.sandbox.engine(), &guest, &manifest).expect("the guest links");
    let request = request();
    let mut lines = Vec::new();
    for (size, exchange) in [("512 B", reply(2, 256)), ("128 chunks of 256 B", reply(128, 256))] {
        // All three agree before anything is timed.
        let counted = native_count(&exchange);
        assert_eq!(plugin.count(&request, &exchange), Ok(counted));
        assert_eq!(bare.count(&request, &exchange).expect("a count"), counted);
        assert_eq!(plugin.score(&request, &exchange, &[]), Ok(native_score(&exchange)));

        let times = race(&mut [
            &mut || drop(black_box(plugin.count(black_box(&request), black_box(&exchange)))),
            &mut || drop(black_box(bare.count(black_box(&request), black_box(&exchange)))),
            &mut || {
                black_box(native_count(black_box(&exchange)));
            },
        ]);
        lines.push(line(format!("count, {size}"), &times));
        let times = race(&mut [
            &mut || drop(black_box(plugin.score(black_box(&request), black_box(&exchange), &[]))),
            &mut || drop(black_box(bare.score(black_box(&request), black_box(&exchange)))),
            &mut || drop(black_box(native_score(black_box(&exchange)))),
        ]);
        lines.push(line(format!("score, {size}"), &times));
    }
    lines
}

fn line(what: String, times: &[f64]) -> Line {
    Line { what, plugin_ns: times[0], bare_ns: times[1], native_ns: times.get(2).copied() }
}

/// The chat plugin, on a reply like a miner's.
fn real(house: &House, runtime: &tokio::runtime::Runtime, components: &Path) -> Option<Vec<Line>> {
    let file = components.join("text-generation.wasm");
    let bytes = Bytes::from(std::fs::read(&file).ok()?);
    let task = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tasks/chat-smollm2-135m/task.toml");
    let manifest: Manifest =
        toml::from_str(&std::fs::read_to_string(task).ok()?).expect("the task's manifest");
    let source = ComponentSource::Bytes(bytes.clone());
    let plugin: Arc<Plugin> = runtime
        .block_on(house.sandbox.load(source, None, &manifest, Assets::none()))
        .unwrap_or_else(|e| panic!("{e}"));
    let bare = BarePlugin::new(house.sandbox.engine(), &bytes, &manifest).expect("the component links");
    let made = plugin.synthesize(&Seed::from_bytes([7; 32])).unwrap_or_else(|e| panic!("{e}"));
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
    let mut exchange = reply(1, 1);
    exchange.chunks[0].data = body.to_string().into();
    let times = race(&mut [
        &mut || drop(black_box(plugin.count(black_box(&made.request), black_box(&exchange)))),
        &mut || drop(black_box(bare.count(black_box(&made.request), black_box(&exchange)))),
    ]);
    let count = line("text-generation: count, 64 tokens".into(), &times);
    let times = race(&mut [
        &mut || drop(black_box(plugin.score(black_box(&made.request), black_box(&exchange), &[]))),
        &mut || drop(black_box(bare.score(black_box(&made.request), black_box(&exchange)))),
    ]);
    Some(vec![count, line("text-generation: score, first round".into(), &times)])
}

fn main() {
    // Cargo passes `--bench`; a word is a filter on the name of this bench.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<_> = args.iter().filter(|a| !a.starts_with("--")).collect();
    if !words.iter().all(|w| "sandbox call".contains(w.as_str())) {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let house = House::new();
    let mut lines = simple(&house, &runtime);
    if let Some(components) = std::env::var_os("NINETEEN_COMPONENTS") {
        match real(&house, &runtime, Path::new(&components)) {
            Some(more) => lines.extend(more),
            None => {
                eprintln!("no text-generation.wasm in NINETEEN_COMPONENTS: only the small guest is measured")
            }
        }
    }

    println!("A plugin call: fresh instance, all budgets on (goal: at most 1.2 x bare wasmtime)");
    println!("{:<38}{:>12}{:>12}{:>12}{:>10}{:>12}", "", "plugin", "bare", "native", "x bare", "x native");
    for l in &lines {
        let native = l.native_ns.map_or("-".into(), us);
        let by_native = l.native_ns.map_or("-".into(), |n| format!("{:.0}", l.plugin_ns / n));
        println!(
            "{:<38}{:>12}{:>12}{:>12}{:>10.2}{:>12}",
            l.what,
            us(l.plugin_ns),
            us(l.bare_ns),
            native,
            l.ratio(),
            by_native
        );
    }
    if args.iter().any(|a| a == "--json") {
        for l in &lines {
            let data = serde_json::json!({
                "bench": "sandbox.call", "case": l.what, "plugin_ns": l.plugin_ns, "bare_ns": l.bare_ns,
                "native_ns": l.native_ns, "ratio": l.ratio(), "goal": 1.2,
            });
            println!("{data}");
        }
    }
}
