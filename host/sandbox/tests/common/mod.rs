//! Real components, written by hand: a core module in WAT, the WIT embedded, encoded in process.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nineteen_domain::meet::{BoxFuture, Checker};
use nineteen_domain::task::Manifest;
use nineteen_domain::{Answer, Check, Chunk, Ending, Evidence, Exchange, Request, Seed};
use nineteen_sandbox::{Assets, ComponentSource, Plugin, Sandbox, SandboxConfig, SandboxError};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

pub const WIT_0_1: &str = include_str!("../../../../wit/0.1/task.wit");
pub const WIT_0_2: &str = include_str!("../../../../wit/0.2/task.wit");

/// A little of WASI: a component imports no more of an interface than it uses.
const WASI: &str = r"
package wasi:random@0.2.6 { interface random { get-random-u64: func() -> u64; } }
package wasi:clocks@0.2.6 {
  interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
  interface monotonic-clock {
    use wasi:io/poll@0.2.6.{pollable};
    now: func() -> u64;
    subscribe-duration: func(when: u64) -> pollable;
  }
}
package wasi:io@0.2.6 { interface poll { resource pollable { block: func(); } } }
package wasi:sockets@0.2.6 { interface instance-network { resource network; instance-network: func() -> network; } }
";

pub const DESCRIPTION: &str = r#"{"name":"echo","version":"1.2.3","modality":"text","unit":"tokens","operations":["echo"],"streaming":false,"checks":{"text.replay":["m"]},"params_schema":{},"from_the_future":1}"#;

/// Takes from the end of the memory, and grows it.
const REALLOC: &str = "
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (if (i32.gt_u (global.get $heap) (i32.shl (memory.size) (i32.const 16)))
      (then (drop (memory.grow (i32.add (i32.const 1) (i32.shr_u
        (i32.sub (global.get $heap) (i32.shl (memory.size) (i32.const 16))) (i32.const 16)))))))
    (local.get $at)";

/// A guest. Every function has an innocent default; a test replaces the one that it is about.
#[derive(Clone)]
pub struct Guest {
    pub version: &'static str,
    /// More imports of the world, in WIT.
    pub wit_imports: &'static str,
    /// The same in the core module, and functions.
    pub wat: String,
    pub pages: u32,
    /// Body of `cabi_realloc`, with a local `$at`.
    pub realloc: String,
    pub description: String,
    pub describe: String,
    pub synthesize: String,
    pub admit: String,
    pub count: String,
    pub score: String,
    /// `score-batch`, from 0.2 on.
    pub score_batch: String,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            version: "0.1.0",
            wit_imports: "",
            wat: String::new(),
            pages: 2,
            realloc: REALLOC.into(),
            description: DESCRIPTION.into(),
            describe: "(call $text (i32.const 0) (i32.const 4096) (global.get $said))".into(),
            synthesize: "(call $request (i32.const 1032) (local.get 2) (local.get 3))
                (i64.store (i32.const 1064) (i64.const 7)) (i32.const 1024)"
                .into(),
            admit: "(call $request (i32.const 1028) (local.get 6) (local.get 7)) (i32.const 1024)".into(),
            // The number of chunks.
            count: "(i32.store8 (i32.const 1024) (i32.const 1))
                (i64.store (i32.const 1032) (i64.load32_u offset=56 (local.get 0))) (i32.const 1024)"
                .into(),
            score: "(call $scored (f64.const 0.5) (i64.const 3))".into(),
            score_batch: "(unreachable)".into(),
        }
    }
}

impl Guest {
    /// One that differs in `score`.
    pub fn scoring(score: &str) -> Self {
        Self { score: score.into(), ..Self::default() }
    }

    fn knows_batches(&self) -> bool {
        self.version.starts_with("0.2")
    }

    /// The core module.
    pub fn core(&self) -> String {
        let Self { version, wat, pages, realloc, describe, synthesize, admit, count, score, .. } = self;
        let batch = if self.knows_batches() {
            format!(
                r#"(func (export "nineteen:task/task@{version}#score-batch") (param i32 i32 i32 i32) (result i32) {})"#,
                self.score_batch
            )
        } else {
            String::new()
        };
        let task = format!("nineteen:task/task@{version}");
        let said = self.description.replace('"', "\\22");
        let said_len = self.description.len();
        format!(
            r#"(module
  {wat}
  (memory (export "memory") {pages})
  (global $heap (mut i32) (i32.const 65536))
  (global $said i32 (i32.const {said_len}))
  (data (i32.const 2048) "/v1/echo")
  (data (i32.const 2064) "application/json")
  (data (i32.const 2100) "text.replay")
  (data (i32.const 2120) "m")
  (data (i32.const 2140) "{{\22n\22:0}}")
  (data (i32.const 4096) "{said}")
  (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    {realloc})
  ;; A request to /v1/echo with this body.
  (func $request (param $at i32) (param $body i32) (param $len i32)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store offset=0 (local.get $at) (i32.const 2048)) (i32.store offset=4 (local.get $at) (i32.const 8))
    (i32.store offset=8 (local.get $at) (i32.const 2064)) (i32.store offset=12 (local.get $at) (i32.const 16))
    (i32.store offset=16 (local.get $at) (local.get $body)) (i32.store offset=20 (local.get $at) (local.get $len))
    (i32.store8 offset=24 (local.get $at) (i32.const 0)))
  ;; A case of a variant with text, as describe returns it.
  (func $text (param $case i32) (param $at i32) (param $len i32) (result i32)
    (i32.store8 (i32.const 1024) (local.get $case))
    (i32.store (i32.const 1028) (local.get $at)) (i32.store (i32.const 1032) (local.get $len)) (i32.const 1024))
  (func $scored (param $quality f64) (param $units i64) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 1))
    (f64.store (i32.const 1032) (local.get $quality)) (i64.store (i32.const 1040) (local.get $units))
    (i32.const 1024))
  ;; Needs one check, text.replay of m with parameters {{"n":<n>}}.
  (func $need (param $n i32) (result i32)
    (i32.store8 (i32.const 2145) (i32.add (i32.const 48) (local.get $n)))
    (i32.store (i32.const 1280) (i32.const 2100)) (i32.store (i32.const 1284) (i32.const 11))
    (i32.store8 (i32.const 1288) (i32.const 1))
    (i32.store (i32.const 1292) (i32.const 2120)) (i32.store (i32.const 1296) (i32.const 1))
    (i32.store (i32.const 1300) (i32.const 2140)) (i32.store (i32.const 1304) (i32.const 7))
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1032) (i32.const 1280)) (i32.store (i32.const 1036) (i32.const 1)) (i32.const 1024))
  ;; Pieces of evidence that score was given.
  (func $evidence (param $args i32) (result i32) (i32.load offset=84 (local.get $args)))
  (func (export "{task}#describe") (param i32 i32) (result i32) {describe})
  (func (export "{task}#synthesize") (param i32 i32 i32 i32) (result i32) {synthesize})
  (func (export "{task}#admit") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) {admit})
  (func (export "{task}#count") (param i32) (result i32) {count})
  (func $score (export "{task}#score") (param i32) (result i32) {score})
  {batch})"#
        )
    }

    /// The component.
    pub fn build(&self) -> Bytes {
        let mut core = wat::parse_str(self.core()).expect("the WAT of a test");
        let mut resolve = Resolve::default();
        let (wit, own) = if self.knows_batches() {
            (WIT_0_2, "nineteen:task@0.2.0")
        } else {
            (WIT_0_1, "nineteen:task@0.1.0")
        };
        let wit = wit.replace(own, &format!("nineteen:task@{}", self.version));
        resolve.push_str("task.wit", &wit).expect("the frozen WIT");
        let world = format!(
            "package test:guest;\n{WASI}\nworld guest {{ include nineteen:task/plugin@{}; {} }}",
            self.version, self.wit_imports
        );
        let package = resolve.push_str("guest.wit", &world).expect("the WIT of a test");
        let world = resolve.select_world(&[package], Some("guest")).expect("its world");
        embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).expect("metadata");
        let mut encoder = ComponentEncoder::default();
        encoder.validate(true).module(&core).expect("a module");
        encoder.encode().expect("a component").into()
    }
}

pub fn manifest() -> Manifest {
    serde_json::from_value(serde_json::json!({
        "name": "echo-task", "version": "1.0.0", "host": ">=0.1", "component": "echo",
        "operation": "echo", "path": "/v1/echo", "unit": "tokens", "cap_per_hour": 1000,
        "grants": {"text.replay": ["m"]}, "params": {"model": "m"},
    }))
    .expect("the manifest of a test")
}

pub struct House {
    pub sandbox: Sandbox,
    pub dir: tempfile::TempDir,
}

pub fn config(dir: &std::path::Path) -> SandboxConfig {
    SandboxConfig {
        cache_dir: dir.join("compiled"),
        max_component_bytes: 1 << 20,
        compile_timeout: Duration::from_secs(60),
        max_concurrent_calls: 4,
        host_version: semver::Version::new(0, 1, 0),
    }
}

impl House {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self { sandbox: Sandbox::new(config(dir.path())).expect("a sandbox"), dir }
    }

    pub async fn load(&self, guest: &Guest) -> Arc<Plugin> {
        self.load_as(guest, &manifest()).await
    }

    pub async fn load_as(&self, guest: &Guest, manifest: &Manifest) -> Arc<Plugin> {
        self.try_load(guest.build(), manifest).await.expect("a component that loads")
    }

    pub async fn try_load(&self, bytes: Bytes, manifest: &Manifest) -> Result<Arc<Plugin>, SandboxError> {
        self.sandbox.load(ComponentSource::Bytes(bytes), None, manifest, Assets::none()).await
    }

    /// The host keeps serving: a good component loads and judges.
    pub async fn still_serves(&self) {
        let plugin = self.load(&Guest::default()).await;
        let judged = plugin.judge(request(), exchange(), Arc::new(Echo::default())).await;
        assert!(matches!(judged.result, Ok(nineteen_domain::Outcome::Scored(_))), "{judged:?}");
    }
}

pub fn seed(byte: u8) -> Seed {
    Seed::from_bytes([byte; 32])
}

pub fn request() -> Request {
    Request {
        path: "/v1/echo".into(),
        content_type: "application/json".into(),
        body: Bytes::from_static(b"{}"),
        streamed: false,
    }
}

pub fn exchange() -> Exchange {
    let chunk = |at_us, data: &'static [u8]| Chunk { at_us, data: Bytes::from_static(data) };
    Exchange {
        status: 200,
        headers: vec![("content-type".into(), "application/json".into())],
        chunks: vec![chunk(10, b"hel"), chunk(20, b"lo")],
        ended_us: 30,
        ending: Ending::Complete,
    }
}

/// Answers every check with its own parameters, and counts them.
#[derive(Default)]
pub struct Echo(pub AtomicU32);

impl Checker for Echo {
    fn check(&self, check: Check) -> BoxFuture<'_, Evidence> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Evidence::Answered(Answer { params: check.params, blobs: check.blobs }) })
    }

    fn kinds(&self) -> Vec<(String, Vec<String>)> {
        vec![("text.replay".into(), vec!["m".into()])]
    }
}
