//! Two versions of the WIT at once, through one trait; batches say what `score` says; 0.1 never changes.
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
use std::sync::atomic::Ordering;

use common::{Echo, Guest, House, exchange, manifest, request};
use nineteen_domain::task::{Budget, Manifest};
use nineteen_domain::{Digest, Outcome};
use nineteen_sandbox::{CallError, Plugin, Scoring};

/// SHA-256 of every file of a released version.
const FROZEN: [(&str, &str); 1] =
    [("0.1/task.wit", "sha256:cb7e7be709fcd31447daf41966661204f4ada5c5be550cc206a63df3588e5752")];

#[test]
fn a_released_wit_never_changes() {
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(format!("{wit}/0.1")).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("0.1/{}", path.file_name().unwrap().to_string_lossy());
        found.insert(name, Digest::of(&std::fs::read(&path).unwrap()).to_string());
    }
    let frozen: BTreeMap<_, _> = FROZEN.map(|(name, digest)| (name.to_owned(), digest.to_owned())).into();
    assert_eq!(
        found, frozen,
        "wit/0.1 is released: components built for it run on every host that serves it. Undo the change \
         (git checkout wit/0.1). What is to be new goes into the folder of the next version, with a module in \
         host/sandbox/src/abi and a rung on its ladder."
    );
}

/// Scores with the time of the exchange's end as units. In a batch, item k of `$batch` is at `$item`, its time in
/// `$ended`, and its outcome goes to `$out`.
fn timed(alone: &str, batched: &str) -> Guest {
    let alone = format!(
        "(local $ended i64) (local.set $ended (i64.load offset=64 (local.get 0))) {alone}
         (call $scored (f64.const 0.5) (local.get $ended))"
    );
    let batch = format!(
        "(local $i i32) (local $item i32) (local $out i32) (local $ended i64) (local $before i64)
         (block $done (loop $next
           (br_if $done (i32.ge_u (local.get $i) (local.get 3)))
           (local.set $item (i32.add (local.get 2) (i32.mul (local.get $i) (i32.const 80))))
           (local.set $out (i32.add (i32.const 8192) (i32.mul (local.get $i) (i32.const 56))))
           (local.set $ended (i64.load offset=56 (local.get $item)))
           (i32.store8 (local.get $out) (i32.const 1))
           (f64.store offset=8 (local.get $out) (f64.const 0.5))
           {batched}
           (i64.store offset=16 (local.get $out) (local.get $ended))
           (local.set $before (local.get $ended))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))
         (i32.store (i32.const 1024) (i32.const 8192)) (i32.store (i32.const 1028) (local.get 3))
         (i32.const 1024)"
    );
    Guest { version: "0.2.0", score_batch: batch, ..Guest::scoring(&alone) }
}

fn batch(times: &[u64]) -> Vec<Scoring> {
    let one = |ended_us: &u64| Scoring {
        request: request(),
        exchange: nineteen_domain::Exchange { ended_us: *ended_us, ..exchange() },
        evidence: Vec::new(),
    };
    times.iter().map(one).collect()
}

async fn scored(plugin: &Arc<Plugin>, times: &[u64]) -> Vec<Result<Outcome, CallError>> {
    let (plugin, batch) = (plugin.clone(), batch(times));
    tokio::task::spawn_blocking(move || plugin.score_batch(&batch)).await.unwrap()
}

/// Units; 0 for anything but a verdict.
fn units(results: &[Result<Outcome, CallError>]) -> Vec<u64> {
    let units = |r: &Result<_, _>| match r {
        Ok(Outcome::Scored(v)) => v.units,
        _ => 0,
    };
    results.iter().map(units).collect()
}

#[tokio::test]
async fn components_of_both_versions_run_side_by_side_and_say_the_same() {
    let house = House::new();
    let old = house.load(&Guest::default()).await;
    let new = house.load(&Guest { version: "0.2.0", ..Guest::default() }).await;
    assert_eq!(
        (old.wit_version().to_string(), new.wit_version().to_string()),
        ("0.1.0".into(), "0.2.0".into())
    );
    for plugin in [&old, &new] {
        assert_eq!(plugin.count(&request(), &exchange()), Ok(Some(2)));
        assert!(plugin.synthesize(&common::seed(1)).is_ok());
        assert!(plugin.admit("echo", "text/plain", b"x", &common::seed(1)).is_ok());
    }
    let judge = |plugin: Arc<Plugin>| async move {
        plugin.judge(request(), exchange(), Arc::new(Echo::default())).await
    };
    let (a, b) = (judge(old).await, judge(new).await);
    assert_eq!((a.result, a.fuel), (b.result, b.fuel));
}

#[tokio::test]
async fn a_component_that_knows_no_batches_scores_each_alone() {
    let house = House::new();
    let old = Guest { version: "0.1.0", ..timed("", "") };
    let plugin = house.load(&old).await;
    assert_eq!(units(&scored(&plugin, &[5, 6, 7]).await), [5, 6, 7]);
    assert!(scored(&plugin, &[]).await.is_empty());
}

#[tokio::test]
async fn a_batch_gives_one_outcome_each_in_order_whatever_its_size() {
    let house = House::new();
    let plugin = house.load(&timed("", "")).await;
    for n in [0, 1, 2, 63, 64, 65, 150] {
        let times: Vec<u64> = (1..=n).collect();
        assert_eq!(units(&scored(&plugin, &times).await), times);
    }
    assert!(!plugin.batches_are_distrusted());
}

#[tokio::test]
async fn a_batch_is_one_call() {
    let house = House::new();
    // Alone it would trap: what it says can only come from the batch.
    let odd = timed("(if (i64.eqz (i64.rem_u (local.get $ended) (i64.const 2))) (then (unreachable)))", "");
    let mut seen = 0;
    for _ in 0..40 {
        // The one that is asked alone is drawn; while it is an odd one, the even ones stand.
        let plugin = house.load(&odd).await;
        if units(&scored(&plugin, &[1, 2, 3]).await) == [1, 2, 3] {
            seen += 1;
        }
    }
    assert!((10..=39).contains(&seen), "two of three draws find nothing: {seen} of 40");
}

#[tokio::test]
async fn one_that_traps_costs_the_others_nothing() {
    let house = House::new();
    let trap = "(if (i64.eq (local.get $ended) (i64.const 666)) (then (unreachable)))";
    let plugin = house.load(&timed(trap, trap)).await;
    let results = scored(&plugin, &[1, 666, 3]).await;
    assert_eq!(units(&results), [1, 0, 3]);
    assert!(matches!(results[1], Err(CallError::Trap { .. })), "{:?}", results[1]);
    assert_eq!(results[1].as_ref().unwrap_err().at().call.name(), "score", "it is asked alone");
    assert!(!plugin.batches_are_distrusted(), "a trap is no lie");
    house.still_serves().await;
}

#[tokio::test]
async fn one_that_loops_costs_the_others_nothing() {
    let house = House::new();
    let spin = "(if (i64.eq (local.get $ended) (i64.const 666)) (then (loop $l (br $l))))";
    let frugal = Manifest { budget: Budget { fuel: 1_000_000, ..Budget::default() }, ..manifest() };
    let plugin = house.load_as(&timed(spin, spin), &frugal).await;
    let results = scored(&plugin, &[1, 666, 3]).await;
    assert_eq!(units(&results), [1, 0, 3]);
    assert!(matches!(results[1], Err(CallError::Fuel { budget: 1_000_000, .. })), "{:?}", results[1]);
}

#[tokio::test]
async fn one_too_large_for_a_call_costs_the_others_nothing() {
    let house = House::new();
    let plugin = house.load(&timed("", "")).await;
    let mut items = batch(&[1, 2, 3]);
    items[1].request.body = vec![0; 17 << 20].into();
    let results = tokio::task::spawn_blocking(move || plugin.score_batch(&items)).await.unwrap();
    assert_eq!(units(&results), [1, 0, 3]);
    assert!(matches!(results[1], Err(CallError::BytesIn { .. })), "{:?}", results[1]);
}

#[tokio::test]
async fn an_outcome_that_breaks_a_rule_is_asked_for_again_alone_and_the_others_stand() {
    let house = House::new();
    let nan = "(if (i64.eq (local.get $ended) (i64.const 777)) (then (f64.store offset=8 (local.get $out) (f64.const nan))))";
    let plugin = house.load(&timed("", nan)).await;
    assert_eq!(units(&scored(&plugin, &[1, 777, 3]).await), [1, 777, 3]);
}

#[tokio::test]
async fn a_batch_in_which_one_exchange_changes_anothers_outcome_is_found_out() {
    let house = House::new();
    // What came before is in what comes after: a leak, or a plot.
    let leak = "(local.set $ended (i64.add (local.get $ended) (local.get $before)))";
    let plugin = house.load(&timed("", leak)).await;
    let mut batches = 0;
    while !plugin.batches_are_distrusted() {
        let _ = scored(&plugin, &[10, 20, 30]).await;
        batches += 1;
        assert!(batches < 64, "two of three draws find it");
    }
    assert_eq!(units(&scored(&plugin, &[10, 20, 30]).await), [10, 20, 30], "from now on each alone");
}

#[tokio::test]
async fn a_batch_with_another_number_of_outcomes_decides_nothing() {
    let house = House::new();
    let short = timed("", "");
    let short = Guest {
        score_batch: short.score_batch.replace(
            "(i32.store (i32.const 1028) (local.get 3))",
            "(i32.store (i32.const 1028) (i32.sub (local.get 3) (i32.const 1)))",
        ),
        ..short
    };
    let plugin = house.load(&short).await;
    assert_eq!(units(&scored(&plugin, &[1, 2, 3]).await), [1, 2, 3]);
    assert!(plugin.batches_are_distrusted());
}

#[tokio::test]
async fn the_rounds_of_a_batch_are_the_rounds_of_each() {
    let house = House::new();
    // As many checks as the time of the exchange says, one a round.
    let asks = "(if (i64.lt_u (i64.extend_i32_u (call $evidence (local.get 0))) (local.get $ended))
        (then (return (call $need (call $evidence (local.get 0))))))";
    let batch_asks =
        "(if (i64.lt_u (i64.load32_u offset=76 (local.get $item)) (local.get $ended)) (then (unreachable)))";
    let plugin = house.load(&timed(asks, batch_asks)).await;
    let checker = Arc::new(Echo::default());
    let exchanges: Vec<_> = batch(&[2, 0, 1, 9]).into_iter().map(|s| (s.request, s.exchange)).collect();
    let judged = plugin.judge_batch(exchanges.clone(), checker.clone()).await;
    assert_eq!(judged.iter().map(|j| j.rounds).collect::<Vec<_>>(), [3, 1, 2, 4]);
    assert!(matches!(judged[3].result, Err(CallError::Rounds { .. })), "{:?}", judged[3].result);
    assert_eq!(checker.0.load(Ordering::Relaxed), 2 + 1 + 3);
    for ((request, exchange), together) in exchanges.into_iter().zip(&judged) {
        let alone = plugin.judge(request, exchange, Arc::new(Echo::default())).await;
        assert_eq!((alone.result, alone.transcript), (together.result.clone(), together.transcript.clone()));
    }
}
