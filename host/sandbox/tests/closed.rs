//! WASI is linked closed: a guest that imports it works, and learns nothing from it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly, like tests"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use common::{Echo, Guest, House, exchange, manifest, request};
use nineteen_domain::{Exchange, Outcome};
use nineteen_sandbox::{Assets, CallError, ComponentSource, Plugin};

/// Scores with one number as its units.
fn guest(wit_imports: &'static str, wat: &str, units: &str) -> Guest {
    Guest { wit_imports, wat: wat.into(), ..Guest::scoring(&format!("(call $scored (f64.const 1) {units})")) }
}

async fn units(plugin: &Arc<Plugin>, exchange: Exchange) -> u64 {
    match plugin.judge(request(), exchange, Arc::new(Echo::default())).await.result {
        Ok(Outcome::Scored(verdict)) => verdict.units,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn randomness_is_a_function_of_the_calls_inputs() {
    let dice = guest(
        "import wasi:random/random@0.2.6;",
        r#"(import "wasi:random/random@0.2.6" "get-random-u64" (func $roll (result i64)))"#,
        "(i64.xor (call $roll) (i64.rotl (call $roll) (i64.const 1)))",
    );
    let house = House::new();
    let plugin = house.load(&dice).await;
    let first = units(&plugin, exchange()).await;
    assert_ne!(first, 0);
    assert_eq!(first, units(&plugin, exchange()).await, "the same inputs, the same bits");
    assert_eq!(first, units(&House::new().load(&dice).await, exchange()).await, "on every host");
    let mut other = exchange();
    other.ended_us += 1;
    assert_ne!(first, units(&plugin, other).await, "other inputs, other bits");
}

#[tokio::test]
async fn the_clocks_stand_still() {
    let clock = guest(
        "import wasi:clocks/wall-clock@0.2.6; import wasi:clocks/monotonic-clock@0.2.6;",
        r#"(import "wasi:clocks/wall-clock@0.2.6" "now" (func $wall (param i32)))
           (import "wasi:clocks/monotonic-clock@0.2.6" "now" (func $mono (result i64)))"#,
        "(block (result i64) (call $wall (i32.const 1536)) (i64.add (call $mono) (i64.load (i32.const 1536))))",
    );
    let house = House::new();
    let plugin = house.load(&clock).await;
    let first = units(&plugin, exchange()).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!((first, first), (units(&plugin, exchange()).await, 946_684_800 + 1_000_000_000));
}

#[tokio::test]
async fn a_guest_that_sleeps_for_an_hour_is_awake_at_once() {
    let sleeper = guest(
        "import wasi:clocks/monotonic-clock@0.2.6; import wasi:io/poll@0.2.6;",
        r#"(import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $sleep (param i64) (result i32)))
           (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
           (import "wasi:io/poll@0.2.6" "[resource-drop]pollable" (func $drop (param i32)))
           (func $hour (local $p i32)
             (local.set $p (call $sleep (i64.const 3600000000000)))
             (call $block (local.get $p)) (call $drop (local.get $p)))"#,
        "(block (result i64) (call $hour) (call $hour) (i64.const 5))",
    );
    let house = House::new();
    let plugin = house.load(&sleeper).await;
    let started = Instant::now();
    assert_eq!(units(&plugin, exchange()).await, 5);
    assert!(started.elapsed().as_secs() < 10);
}

#[tokio::test]
async fn resources_that_are_never_dropped_end_the_call_not_the_host() {
    let hoarder = guest(
        "import wasi:clocks/monotonic-clock@0.2.6;",
        r#"(import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $sleep (param i64) (result i32)))
           (func $hoard (loop $l (drop (call $sleep (i64.const 1))) (br $l)))"#,
        "(block (result i64) (call $hoard) (i64.const 5))",
    );
    let house = House::new();
    let plugin = house.load(&hoarder).await;
    let judged = plugin.judge(request(), exchange(), Arc::new(Echo::default())).await;
    let failed = judged.result.unwrap_err();
    assert!(failed.is_guest_fault(), "{failed}");
    house.still_serves().await;
}

/// Reads asset `greeting` and gives its length; reads it `times` times.
fn reader(times: u32) -> Guest {
    guest(
        "",
        &format!(
            r#"(import "nineteen:task/assets@0.1.0" "read" (func $read (param i32 i32 i32)))
           (data (i32.const 3000) "greeting")
           (func $all (local $n i32)
             (loop $l
               (call $read (i32.const 3000) (i32.const 8) (i32.const 1536))
               (local.set $n (i32.add (local.get $n) (i32.const 1)))
               (br_if $l (i32.lt_u (local.get $n) (i32.const {times})))))"#
        ),
        "(block (result i64) (call $all) (i64.load32_u (i32.const 1544)))",
    )
}

#[tokio::test]
async fn assets_are_read_and_their_bytes_count() {
    let house = House::new();
    let greeting = Bytes::from(vec![b'x'; 1 << 20]);
    let assets = Assets::new(BTreeMap::from([("greeting".to_owned(), greeting)]));
    let load = async |times| {
        let source = ComponentSource::Bytes(reader(times).build());
        house.sandbox.load(source, None, &manifest(), assets.clone()).await.unwrap()
    };
    assert_eq!(units(&load(1).await, exchange()).await, 1 << 20);
    let judged = load(17).await.judge(request(), exchange(), Arc::new(Echo::default())).await;
    let failed = judged.result.unwrap_err();
    assert!(matches!(failed, CallError::BytesIn { .. }), "{failed}");
    house.still_serves().await;
}

#[tokio::test]
async fn a_plugin_that_logs_without_end_is_only_cut_short() {
    let talker = guest(
        "",
        r#"(import "nineteen:task/log@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32)))
           (func $talk (local $n i32)
             (loop $l
               (call $write (i32.const 1) (i32.const 2048) (i32.const 8) (i32.const 0) (i32.const 0))
               (local.set $n (i32.add (local.get $n) (i32.const 1)))
               (br_if $l (i32.lt_u (local.get $n) (i32.const 10000)))))"#,
        "(block (result i64) (call $talk) (i64.const 1))",
    );
    let house = House::new();
    assert_eq!(units(&house.load(&talker).await, exchange()).await, 1);
}
