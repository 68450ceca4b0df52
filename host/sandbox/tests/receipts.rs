//! A verdict can be had again from its receipt, to the bit, on any machine; and a receipt that was changed is
//! refused with the name of what was changed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly, like tests"
)]

#[allow(dead_code, reason = "the bench uses all of it")]
#[path = "../benches/sandbox/bare.rs"]
mod bare;
mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Echo, Guest, House, config, exchange, manifest, request};
use nineteen_domain::task::{Budget, Manifest};
use nineteen_domain::{Answer, Digest, Evidence, Exchange, Hotkey, PeriodId, ProbeId, TaskName};
use nineteen_sandbox::receipt::{Bodies, Decision, Receipt, ReceiptError};
use nineteen_sandbox::{Assets, ComponentSource, Plugin, Sandbox};

/// Two rounds of checks, randomness from a closed WASI, and numbers that a careless compiler would round
/// otherwise: quality is a fold of the bits of all inputs.
fn guest() -> Guest {
    Guest {
        wit_imports: "import wasi:random/random@0.2.6;",
        wat: r#"(import "wasi:random/random@0.2.6" "get-random-u64" (func $roll (result i64)))"#.into(),
        ..Guest::scoring(
            "(if (i32.lt_u (call $evidence (local.get 0)) (i32.const 2))
               (then (return (call $need (call $evidence (local.get 0))))))
             (call $scored
               (f64.div (f64.sqrt (f64.convert_i64_u (i64.and (call $roll) (i64.const 0xFFFFF)))) (f64.const 1024.1))
               (i64.load offset=64 (local.get 0)))",
        )
    }
}

async fn judged(plugin: &Arc<Plugin>) -> Bodies {
    let judged = plugin.judge(request(), exchange(), Arc::new(Echo::default())).await;
    assert!(judged.result.is_ok(), "{judged:?}");
    Bodies { request: request(), exchange: exchange(), evidence: judged.transcript }
}

fn probe() -> ProbeId {
    let task = TaskName::new("echo-task").unwrap();
    ProbeId { period: PeriodId(3), task, miner: Hotkey::from_bytes([7; 32]), slot: 1 }
}

async fn receipt(plugin: &Arc<Plugin>) -> Receipt {
    let (bodies, plugin) = (judged(plugin).await, plugin.clone());
    tokio::task::spawn_blocking(move || Receipt::make(&plugin, Some(probe()), bodies).unwrap()).await.unwrap()
}

async fn verify(receipt: &Receipt, plugin: &Arc<Plugin>) -> Result<(), ReceiptError> {
    let (receipt, plugin) = (receipt.clone(), plugin.clone());
    tokio::task::spawn_blocking(move || receipt.verify(&plugin, None)).await.unwrap()
}

#[tokio::test]
async fn a_receipt_survives_its_file_and_is_verified_on_another_machine() {
    let house = House::new();
    let plugin = house.load(&guest()).await;
    let written = receipt(&plugin).await;
    assert_eq!(
        written.rounds.iter().map(|r| (r.given, r.asked)).collect::<Vec<_>>(),
        [(0, 1), (1, 1), (2, 0)]
    );
    assert!(written.rounds.iter().all(|r| r.fuel > 0));
    let read = Receipt::from_bytes(&written.to_bytes().unwrap()).unwrap();
    assert_eq!(read, written);
    let elsewhere = House::new().load(&guest()).await;
    verify(&read, &elsewhere).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_bits_are_the_same_whatever_runs_beside_it_and_however_instances_are_made() {
    let house = House::new();
    let plugin = house.load(&guest()).await;
    let receipt = receipt(&plugin).await;
    // Calls at a time: one, and more threads than places.
    for (calls, pooling) in [(1, true), (4, true), (16, true), (1, false), (4, false)] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.max_concurrent_calls = calls;
        let sandbox = if pooling { Sandbox::new(config) } else { Sandbox::without_pool(config) };
        let other = House { sandbox: sandbox.unwrap(), dir };
        let plugin = other.load(&guest()).await;
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (receipt, plugin) = (receipt.clone(), plugin.clone());
            all.spawn(async move { verify(&receipt, &plugin).await });
        }
        for verified in all.join_all().await {
            assert_eq!(verified, Ok(()), "{calls} calls at a time, pooling {pooling}");
        }
    }
}

#[tokio::test]
async fn the_bits_are_those_of_a_compilation_and_of_the_cache() {
    let house = House::new();
    let receipt = receipt(&house.load(&guest()).await).await;
    let again = House { sandbox: Sandbox::new(config(house.dir.path())).unwrap(), dir: house.dir };
    let plugin = again.load(&guest()).await;
    assert_eq!(again.sandbox.compilations(), 0);
    verify(&receipt, &plugin).await.unwrap();
}

/// The same numbers without WASI and in one round: what an instance that lives can be asked again and again.
fn one_round() -> Guest {
    Guest::scoring(
        "(call $scored
           (f64.div (f64.sqrt (f64.convert_i64_u (i64.load offset=64 (local.get 0)))) (f64.const 1024.1))
           (i64.load offset=64 (local.get 0)))",
    )
}

#[tokio::test]
async fn the_bits_are_those_of_an_instance_that_has_lived_through_other_exchanges() {
    let (house, bytes) = (House::new(), one_round().build());
    let plugin = house.try_load(bytes.clone(), &manifest()).await.unwrap();
    let engine = house.sandbox.engine();
    let component = wasmtime::component::Component::new(engine, &bytes).unwrap();
    let bare = bare::Bare::new(engine, &component, &manifest()).unwrap();
    let (mut store, instance) = bare.instance().unwrap();
    for ended_us in [30, 7, 1 << 19, 30, 12_345, 7] {
        let one = Exchange { ended_us, ..exchange() };
        let bodies = Bodies { request: request(), exchange: one.clone(), evidence: Vec::new() };
        let fresh = plugin.clone();
        let receipt =
            tokio::task::spawn_blocking(move || Receipt::make(&fresh, Some(probe()), bodies).unwrap()).await;
        let receipt = receipt.unwrap();
        verify(&receipt, &plugin).await.unwrap();
        let Decision::Scored(verdict) = &receipt.decision else { panic!("{receipt:?}") };
        let (quality, units) = bare.score_in(&mut store, &instance, &request(), &one).unwrap().unwrap();
        assert_eq!((quality.to_bits(), units), (verdict.quality.to_bits(), verdict.units));
    }
}

/// Where receipts lie that builds of this host made, and the component that they are of.
const MADE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/receipts");

async fn fixture() -> (House, Arc<Plugin>) {
    let (house, bytes) = (House::new(), std::fs::read(format!("{MADE}/guest.wasm")).unwrap());
    let plugin = house.try_load(bytes.into(), &manifest()).await.unwrap();
    (house, plugin)
}

#[tokio::test]
async fn the_bits_are_those_of_a_debug_and_of_a_release_build_of_the_host() {
    let (_house, plugin) = fixture().await;
    let own = receipt(&plugin).await;
    for build in ["debug", "release"] {
        let file = std::fs::read(format!("{MADE}/{build}.receipt")).unwrap();
        let made = Receipt::from_bytes(&file).unwrap();
        verify(&made, &plugin).await.unwrap();
        assert_eq!((&made.decision, &made.rounds), (&own.decision, &own.rounds), "{build}");
    }
}

/// `cargo test -p nineteen-sandbox --test receipts -- --ignored`, and once more with `--release`.
#[tokio::test]
#[ignore = "writes the receipt of the build that it is run in"]
async fn write_the_receipt_of_this_build() {
    std::fs::create_dir_all(MADE).unwrap();
    let component = format!("{MADE}/guest.wasm");
    if !std::path::Path::new(&component).is_file() {
        std::fs::write(&component, guest().build()).unwrap();
    }
    let (_house, plugin) = fixture().await;
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    std::fs::write(format!("{MADE}/{build}.receipt"), receipt(&plugin).await.to_bytes().unwrap()).unwrap();
}

#[tokio::test]
async fn a_changed_receipt_is_refused_by_the_name_of_what_was_changed() {
    let house = House::new();
    let plugin = house.load(&guest()).await;
    let good = receipt(&plugin).await;
    verify(&good, &plugin).await.unwrap();
    type Change = fn(&mut Receipt);
    fn bodies(r: &mut Receipt) -> &mut Bodies {
        r.bodies.as_mut().unwrap()
    }
    /// As a forger would: the digests fit the forged bodies.
    fn fit(r: &mut Receipt) {
        r.inputs = bodies(r).digests().unwrap();
    }
    fn verdict(r: &mut Receipt) -> &mut nineteen_domain::Verdict {
        match &mut r.decision {
            Decision::Scored(v) => v,
            other => panic!("{other:?}"),
        }
    }
    let changes: &[(&str, Change)] = &[
        ("task", |r| r.task = TaskName::new("other").unwrap()),
        ("component", |r| r.component = Digest::of(b"other")),
        ("wit", |r| r.wit = semver::Version::new(0, 1, 9)),
        ("params", |r| r.params = Digest::of(b"{}")),
        ("assets.calibration.json", |r| {
            r.assets.insert("calibration.json".into(), Digest::of(b""));
        }),
        ("budget.fuel", |r| r.budget.fuel += 1),
        ("budget.checks", |r| r.budget.checks = 1),
        ("probe.task", |r| r.probe.as_mut().unwrap().task = TaskName::new("other").unwrap()),
        ("inputs.request", |r| bodies(r).request.body = Bytes::from_static(b"[]")),
        ("inputs.exchange", |r| bodies(r).exchange.ended_us += 1),
        ("inputs.evidence", |r| bodies(r).evidence[1].1 = Evidence::Unavailable("gone".into())),
        ("inputs.exchange", |r| r.inputs.exchange = Digest::of(b"")),
        ("decision.scored.quality", |r| {
            // Randomness comes from all inputs: a forged exchange is another draw.
            bodies(r).exchange.status = 201;
            fit(r);
        }),
        ("decision.scored.quality", |r| {
            let params = r#"{"n":7}"#.to_owned();
            bodies(r).evidence[1].1 = Evidence::Answered(Answer { params, blobs: Vec::new() });
            fit(r);
        }),
        ("evidence[1]", |r| {
            bodies(r).evidence.pop();
            fit(r);
        }),
        ("evidence[0]", |r| {
            bodies(r).evidence.swap(0, 1);
            fit(r);
        }),
        ("evidence[2]", |r| {
            let more = bodies(r).evidence[1].clone();
            bodies(r).evidence.push(more);
            fit(r);
        }),
        ("rounds[1].fuel", |r| r.rounds[1].fuel -= 1),
        ("rounds[0].asked", |r| r.rounds[0].asked = 2),
        ("rounds[2].given", |r| r.rounds[2].given = 3),
        ("rounds", |r| {
            r.rounds.pop();
        }),
        ("decision.scored.quality", |r| {
            let v = verdict(r);
            v.quality = f64::from_bits(v.quality.to_bits() + 1);
        }),
        ("decision.scored.units", |r| verdict(r).units += 1),
        ("decision.scored.units_by_chunk", |r| verdict(r).units_by_chunk.push(1)),
        ("decision.scored.suspicions, their number", |r| verdict(r).suspicions.push(("x".into(), 0.0))),
        ("decision.scored.fingerprints", |r| verdict(r).fingerprints.push(Bytes::new())),
        ("decision.scored.reasons, their number", |r| verdict(r).reasons.push(("x".into(), f64::NAN))),
        ("decision", |r| r.decision = Decision::Violation("rule: broken".into())),
        ("decision", |r| r.decision = Decision::Failed("sandbox.fuel".into())),
    ];
    for (n, (field, change)) in changes.iter().enumerate() {
        let mut changed = good.clone();
        change(&mut changed);
        // Through the file, as a stranger's would come.
        let changed = Receipt::from_bytes(&changed.to_bytes().unwrap()).unwrap();
        let refused = verify(&changed, &plugin).await.expect_err(field);
        assert!(refused.is_difference(), "{n}: {refused}");
        let shown = refused.to_string();
        assert!(shown.starts_with(&format!("{field}: ")), "{n}, {field}: {shown}");
    }
    let mut engine = good.clone();
    engine.engine = "another".into();
    assert_eq!(
        verify(&engine, &plugin).await,
        Ok(()),
        "another engine is no difference as long as the bits are the same"
    );
}

#[tokio::test]
async fn zero_has_a_sign_and_it_counts() {
    let house = House::new();
    let zero = house.load(&Guest::scoring("(call $scored (f64.const 0) (i64.const 1))")).await;
    let mut receipt = receipt(&zero).await;
    verify(&receipt, &zero).await.unwrap();
    let Decision::Scored(verdict) = &mut receipt.decision else { panic!("{receipt:?}") };
    verdict.quality = -0.0;
    let receipt = Receipt::from_bytes(&receipt.to_bytes().unwrap()).unwrap();
    let refused = verify(&receipt, &zero).await.unwrap_err();
    assert_eq!(refused.to_string(), "decision.scored.quality: the receipt says -0.0, and here it is 0.0");
}

#[tokio::test]
async fn bodies_that_belong_to_somebody_stay_out_and_it_is_verified_where_they_are() {
    let house = House::new();
    let plugin = house.load(&guest()).await;
    let whole = receipt(&plugin).await;
    let bodies = whole.bodies.clone().unwrap();
    let bare = whole.clone().without_bodies();
    let file = bare.to_bytes().unwrap();
    for secret in [&b"application/json"[..], b"hel", br#"{"n":0}"#] {
        assert!(!file.windows(secret.len()).any(|w| w == secret), "{secret:?} is in the file");
    }
    assert_eq!(verify(&bare, &plugin).await, Err(ReceiptError::NoBodies));
    assert_eq!(bare.verify(&plugin, Some(&bodies)), Ok(()));
    let others = Bodies { exchange: Exchange { ended_us: 31, ..exchange() }, ..bodies };
    let refused = bare.verify(&plugin, Some(&others)).unwrap_err();
    assert!(refused.to_string().starts_with("inputs.exchange: "), "{refused}");
}

#[tokio::test]
async fn a_failure_of_the_plugin_has_a_receipt_too_unless_it_was_a_matter_of_time() {
    let house = House::new();
    let frugal = Manifest { budget: Budget { fuel: 100_000, ..Budget::default() }, ..manifest() };
    let spin = Guest::scoring("(loop $l (br $l)) (unreachable)");
    let plugin = house.load_as(&spin, &frugal).await;
    let bodies = || Bodies { request: request(), exchange: exchange(), evidence: Vec::new() };
    let receipt = Receipt::make(&plugin, None, bodies()).unwrap();
    assert_eq!(receipt.decision, Decision::Failed("sandbox.fuel".into()));
    assert_eq!(receipt.verify(&plugin, None), Ok(()));

    let rich = Manifest {
        budget: Budget { fuel: Budget::CAP.fuel, wall_ms: 30, ..Budget::default() },
        ..manifest()
    };
    let late = house.load_as(&spin, &rich).await;
    let refused = Receipt::make(&late, None, bodies()).unwrap_err();
    assert!(matches!(refused, ReceiptError::Unrepeatable(_)), "{refused}");
}

#[tokio::test]
async fn another_component_or_other_data_of_the_task_is_said() {
    let house = House::new();
    let receipt = receipt(&house.load(&guest()).await).await;
    let other = house.load(&Guest::default()).await;
    let refused = verify(&receipt, &other).await.unwrap_err();
    assert!(refused.to_string().starts_with("component: the receipt says sha256:"), "{refused}");

    let assets = Assets::new([("calibration.json".to_owned(), Bytes::from_static(b"{}"))].into());
    let source = ComponentSource::Bytes(guest().build());
    let shipped = house.sandbox.load(source, None, &manifest(), assets).await.unwrap();
    let refused = verify(&receipt, &shipped).await.unwrap_err();
    assert!(refused.to_string().starts_with("assets.calibration.json: the receipt says absent"), "{refused}");
}

#[tokio::test]
async fn no_bytes_of_a_strangers_file_hurt() {
    let house = House::new();
    let good = receipt(&house.load(&guest()).await).await.to_bytes().unwrap();
    assert_eq!(Receipt::from_bytes(b"hello"), Err(ReceiptError::NotReceipt));
    assert_eq!(Receipt::from_bytes(b""), Err(ReceiptError::NotReceipt));
    let mut newer = good.clone();
    newer[7] = 9;
    assert_eq!(Receipt::from_bytes(&newer), Err(ReceiptError::Version { found: 9 }));
    for keep in 8..good.len() {
        assert!(matches!(Receipt::from_bytes(&good[..keep]), Err(ReceiptError::Damaged(_))), "{keep}");
    }
    for at in 8..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(matches!(Receipt::from_bytes(&flipped), Err(ReceiptError::Damaged(_))), "{at}");
    }
    // A forger makes the digest fit: then the CBOR is read, and is refused or gives another receipt.
    let fitting = |body: &[u8]| {
        let digest = Digest::of(body);
        [&good[..8], digest.as_bytes(), body].concat()
    };
    let body = &good[40..];
    for at in 0..body.len() {
        let mut flipped = body.to_vec();
        flipped[at] ^= 0x80 >> (at % 8);
        let _ = Receipt::from_bytes(&fitting(&flipped));
    }
    for hostile in [
        vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x81; 100_000],
        vec![0xbf; 100_000],
        vec![0xc1; 100_000],
        [body, &[0]].concat(),
    ] {
        assert!(matches!(Receipt::from_bytes(&fitting(&hostile)), Err(ReceiptError::Damaged(_))));
    }
}
