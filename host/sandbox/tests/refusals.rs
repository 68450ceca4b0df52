//! Every mismatch between a component and this host, in the words that its author reads. The words are kept in
//! `refusals.txt`; after a change that is meant, `NINETEEN_BLESS=1 cargo test --test refusals` writes it anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly, like tests"
)]

mod common;

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use common::{DESCRIPTION, Echo, Guest, House, exchange, manifest, request};
use nineteen_domain::Digest;
use nineteen_domain::task::{Budget, Manifest};
use nineteen_sandbox::{Assets, ComponentSource};

/// A component with these imports and exports, all of them empty instances.
fn hollow(imports: &[&str], exports: &[&str]) -> Bytes {
    let mut wat = String::from("(component\n");
    for import in imports {
        let _ = writeln!(wat, "  (import \"{import}\" (instance))");
    }
    for (n, export) in exports.iter().enumerate() {
        let _ = writeln!(wat, "  (instance $i{n}) (export \"{export}\" (instance $i{n}))");
    }
    wat::parse_str(wat + ")").expect("the WAT of a test").into()
}

const TASK: &str = "nineteen:task/task@0.1.0";

/// What is refused at load: what it is, its bytes and its manifest.
fn at_load() -> Vec<(&'static str, Bytes, Manifest)> {
    let good = || Guest::default().build();
    let says = |from: &str, to: &str| {
        Guest { description: DESCRIPTION.replace(from, to), ..Guest::default() }.build()
    };
    let with = |change: fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        manifest
    };
    let m = manifest;
    vec![
        ("WIT too new", Guest { version: "0.3.0", ..Guest::default() }.build(), m()),
        ("WIT far too new", hollow(&[], &["nineteen:task/task@1.0.0"]), m()),
        ("WIT too old", hollow(&[], &["nineteen:task/task@0.0.7"]), m()),
        ("no task at all", hollow(&[], &["wasi:cli/run@0.2.6"]), m()),
        ("a task without a version", hollow(&[], &["nineteen:task/task"]), m()),
        ("imports of another version", hollow(&["nineteen:task/log@0.2.0"], &[TASK]), m()),
        (
            "old imports of a new task",
            hollow(&["nineteen:task/log@0.1.0"], &["nineteen:task/task@0.2.0"]),
            m(),
        ),
        ("an import that the WIT does not have", hollow(&["nineteen:task/secrets@0.1.0"], &[TASK]), m()),
        ("the network", hollow(&["wasi:sockets/tcp@0.2.6"], &[TASK]), m()),
        ("HTTP", hollow(&["wasi:http/outgoing-handler@0.2.6"], &[TASK]), m()),
        ("WASI 0.3", hollow(&["wasi:clocks/monotonic-clock@0.3.0"], &[TASK]), m()),
        ("an import of somebody else's", hollow(&["acme:keys/store@1.0.0"], &[TASK]), m()),
        ("an interface that lacks a function", hollow(&[], &[TASK]), m()),
        ("a core module", wat::parse_str(Guest::default().core()).unwrap().into(), m()),
        ("text", Bytes::from_static(b"(component)"), m()),
        ("nothing", Bytes::new(), m()),
        ("cut short", good().slice(..good().len() / 2), m()),
        ("larger than the host takes", vec![0; (1 << 20) + 1].into(), m()),
        ("another digest", good(), with(|m| m.digest = Some(Digest::of(b"another")))),
        ("another host", good(), with(|m| m.host = ">=0.7, <0.9".parse().unwrap())),
        (
            "a budget above the cap",
            good(),
            with(|m| m.budget = Budget { fuel: u64::MAX, ..Budget::default() }),
        ),
        ("another unit", good(), with(|m| m.unit = "pictures".into())),
        ("another operation", good(), with(|m| m.operation = "sing".into())),
        ("a kind of check without a grant", good(), with(|m| m.grants.clear())),
        ("a model without a grant", says(r#"["m"]"#, r#"["m","sdxl"]"#), m()),
        ("an unknown kind that was not granted", says("text.replay", "video.replay"), m()),
        ("a description that is none", says(DESCRIPTION, "hello"), m()),
        (
            "parameters that it refuses",
            Guest {
                description: "model: is missing; add params.model".into(),
                describe: "(call $text (i32.const 1) (i32.const 4096) (global.get $said))".into(),
                ..Guest::default()
            }
            .build(),
            m(),
        ),
        (
            "a describe without end",
            Guest { describe: "(loop $l (br $l)) (unreachable)".into(), ..Guest::default() }.build(),
            with(|m| m.budget.fuel = 1_000_000),
        ),
    ]
}

#[tokio::test]
async fn every_mismatch_is_explained_in_words_that_an_author_can_act_on() {
    let house = House::new();
    let mut all =
        String::from("# Written by tests/refusals.rs: what authors and operators read. One refusal each.\n");
    let mut say = |what: &str, code: &str, words: String| {
        let _ = write!(all, "\n{what} [{code}]\n  {words}\n");
    };
    for (what, bytes, manifest) in at_load() {
        let refused = house.try_load(bytes, &manifest).await.expect_err(what);
        assert_eq!(refused.to_string().lines().count(), 1, "{what}: {refused}");
        say(what, refused.code(), refused.to_string());
    }

    let missing = ComponentSource::Path("plugins/echo.wasm".into());
    let refused = house.sandbox.load(missing, None, &manifest(), Assets::none()).await.unwrap_err();
    say("a file that is not there", refused.code(), refused.to_string());

    let mut wide = manifest();
    wide.grants.insert("video.replay".into(), Vec::new());
    let plugin = house.load_as(&Guest::default(), &wide).await;
    let refused = plugin.hold_checks(&[("text.replay".into(), vec!["m".into()])]).unwrap_err();
    say("a grant of a kind that is not known here", refused.code(), refused.to_string());
    let refused = plugin.hold_checks(&[("text.replay".into(), vec!["n".into()])]).unwrap_err();
    say("a grant of a model that is not here", refused.code(), refused.to_string());

    // Not in its description, and asked for all the same.
    let sly = Guest::scoring("(i32.store8 (i32.const 2120) (i32.const 122)) (call $need (i32.const 0))");
    let judged = house.load(&sly).await.judge(request(), exchange(), Arc::new(Echo::default())).await;
    let refused = judged.result.unwrap_err();
    say("a check that was asked for without a grant", refused.code(), refused.to_string());

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/refusals.txt");
    if std::env::var_os("NINETEEN_BLESS").is_some() {
        std::fs::write(path, &all).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    for (kept, said) in kept.lines().zip(all.lines()) {
        assert_eq!(said, kept, "if this is meant: NINETEEN_BLESS=1 cargo test --test refusals");
    }
    assert_eq!(all.lines().count(), kept.lines().count(), "if this is meant: NINETEEN_BLESS=1");
    house.still_serves().await;
}

/// Worlds that components of other hosts are built for, and names that nobody has heard of.
#[tokio::test]
async fn every_import_that_is_not_granted_is_refused_by_its_name() {
    let house = House::new();
    let of = |package: &str, version: &str, interfaces: &[&str]| -> Vec<String> {
        interfaces.iter().map(|i| format!("{package}/{i}@{version}")).collect()
    };
    let all = [
        of(
            "wasi:sockets",
            "0.2.6",
            &[
                "network",
                "instance-network",
                "tcp",
                "tcp-create-socket",
                "udp",
                "udp-create-socket",
                "ip-name-lookup",
            ],
        ),
        of("wasi:sockets", "0.3.0", &["types", "ip-name-lookup"]),
        of("wasi:http", "0.2.6", &["types", "incoming-handler", "outgoing-handler"]),
        of("wasi:http", "0.3.0", &["types", "handler", "client"]),
        of("wasi:clocks", "0.3.0", &["monotonic-clock", "wall-clock", "system-clock"]),
        of("wasi:filesystem", "0.3.0", &["types", "preopens"]),
        of("wasi:random", "0.3.0", &["random", "insecure", "insecure-seed"]),
        of("wasi:nn", "0.2.0-rc-2024-10-28", &["graph", "tensor", "inference", "errors"]),
        of("wasi:keyvalue", "0.2.0-draft", &["store", "atomics", "batch", "watcher"]),
        of("wasi:config", "0.2.0-draft", &["store"]),
        of("wasi:blobstore", "0.2.0-draft", &["blobstore", "container", "types"]),
        of("wasi:messaging", "0.2.0-draft", &["producer", "incoming-handler", "types"]),
        of("wasi:logging", "0.1.0-draft", &["logging"]),
        of("wasi:tls", "0.2.0-draft", &["types"]),
        of("wasi:webgpu", "0.0.1", &["webgpu"]),
        of("nineteen:task", "0.1.0", &["secrets", "task", "wallet"]),
        of("nineteen:host", "0.1.0", &["exec"]),
        of("extism:host", "0.1.0", &["env", "user"]),
        vec!["env".into(), "host".into(), "wasi-snapshot-preview1".into()],
    ];
    for import in all.iter().flatten() {
        let refused = house.try_load(hollow(&[import], &[TASK]), &manifest()).await.expect_err(import);
        let words = refused.to_string();
        assert!(words.contains(import.as_str()) && words.lines().count() == 1, "{import}: {words}");
    }
    house.still_serves().await;
}
