//! Each budget and rule by itself: what the error says, and that its numbers are right.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::{Echo, Guest, House, exchange, manifest, request, seed};
use nineteen_domain::task::{Budget, Manifest};
use nineteen_domain::{Admission, Chunk, Evidence, Outcome};
use nineteen_sandbox::{Call, CallError};

fn with_budget(budget: Budget) -> Manifest {
    Manifest { budget, ..manifest() }
}

/// `score` of a guest that fails in it.
async fn score_of(house: &House, guest: Guest, manifest: &Manifest) -> CallError {
    let plugin = house.load_as(&guest, manifest).await;
    let failed = tokio::task::spawn_blocking(move || plugin.score(&request(), &exchange(), &[]))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(failed.at().task, manifest.name);
    assert_eq!(failed.at().call, Call::Score);
    assert!(failed.is_guest_fault());
    let shown = failed.to_string();
    assert!(shown.starts_with("task echo-task: score: "), "{shown}");
    house.still_serves().await;
    failed
}

#[tokio::test]
async fn a_good_plugin_answers_every_call() {
    let house = House::new();
    let plugin = house.load(&Guest::default()).await;
    assert_eq!(plugin.description().name, "echo");
    assert_eq!(plugin.wit_version().to_string(), "0.1.0");

    let made = plugin.synthesize(&seed(9)).unwrap();
    assert_eq!(
        (made.request.path.as_str(), &made.request.body[..], made.expected_units),
        ("/v1/echo", &[9; 32][..], 7)
    );
    let Admission::Admitted(admitted) = plugin.admit("echo", "text/plain", b"hello", &seed(0)).unwrap()
    else {
        panic!("refused")
    };
    assert_eq!(&admitted.body[..], b"hello");
    assert_eq!(plugin.count(&request(), &exchange()), Ok(Some(2)), "the chunks arrive in the guest");
    let Ok(Outcome::Scored(verdict)) = plugin.score(&request(), &exchange(), &[]) else {
        panic!("not scored")
    };
    assert_eq!((verdict.quality, verdict.units), (0.5, 3));
}

#[tokio::test]
async fn an_infinite_loop_runs_out_of_fuel() {
    let house = House::new();
    // An empty loop is the slowest way to burn fuel; a busy machine shall not make it a matter of time.
    let budget = Budget { wall_ms: Budget::CAP.wall_ms, ..Budget::default() };
    let looping = Guest::scoring("(loop $l (br $l)) (unreachable)");
    let failed = score_of(&house, looping, &with_budget(budget)).await;
    assert!(matches!(failed, CallError::Fuel { budget: 400_000_000, .. }), "{failed}");
    assert!(failed.to_string().contains("fuel: 400000000 units"), "{failed}");
}

#[tokio::test]
async fn a_loop_with_fuel_to_burn_runs_out_of_wall_time() {
    let house = House::new();
    let budget = Budget { fuel: Budget::CAP.fuel, wall_ms: 50, ..Budget::default() };
    let started = std::time::Instant::now();
    let failed =
        score_of(&house, Guest::scoring("(loop $l (br $l)) (unreachable)"), &with_budget(budget)).await;
    assert!(matches!(failed, CallError::WallTime { budget_ms: 50, .. }), "{failed}");
    assert!(started.elapsed().as_secs() < 10);
}

#[tokio::test]
async fn a_memory_bomb_is_stopped_at_its_budget() {
    let house = House::new();
    let bomb = Guest::scoring("(loop $l (drop (memory.grow (i32.const 64))) (br $l)) (unreachable)");
    let failed = score_of(&house, bomb, &manifest()).await;
    let CallError::Memory { asked, budget, .. } = failed else { panic!("{failed}") };
    assert!(asked > budget && budget == 64 << 20);
}

#[tokio::test]
async fn memory_that_a_component_begins_with_counts_too() {
    let house = House::new();
    let large = Guest { pages: 2000, ..Guest::default() };
    let refused = house.try_load(large.build(), &manifest()).await.unwrap_err();
    assert_eq!(refused.code(), "sandbox.memory", "{refused}");
    house.still_serves().await;
}

#[tokio::test]
async fn a_deep_recursion_overflows_its_own_stack() {
    let house = House::new();
    let deep = Guest::scoring("(i32.add (i32.const 1) (call $score (local.get 0)))");
    let failed = score_of(&house, deep, &manifest()).await;
    assert!(matches!(failed, CallError::Stack { .. }), "{failed}");
}

/// A verdict whose first fingerprint claims so many bytes.
fn fingerprint_of(bytes: u32) -> String {
    format!(
        "(i32.store (i32.const 1280) (i32.const 0)) (i32.store (i32.const 1284) (i32.const {bytes}))
         (i32.store (i32.const 1064) (i32.const 1280)) (i32.store (i32.const 1068) (i32.const 1))
         (call $scored (f64.const 1) (i64.const 1))"
    )
}

#[tokio::test]
async fn a_list_of_one_gib_that_is_not_there_is_a_broken_contract() {
    let house = House::new();
    let failed = score_of(&house, Guest::scoring(&fingerprint_of(1 << 30)), &manifest()).await;
    assert!(matches!(failed, CallError::Contract { .. }), "{failed}");
}

#[tokio::test]
async fn a_list_of_one_gib_that_is_there_is_too_much_memory() {
    let house = House::new();
    let grow = format!("(drop (memory.grow (i32.const 16384))) {}", fingerprint_of(1 << 30));
    let failed = score_of(&house, Guest::scoring(&grow), &manifest()).await;
    assert!(matches!(failed, CallError::Memory { asked, .. } if asked > 1 << 30), "{failed}");
}

#[tokio::test]
async fn a_result_larger_than_its_budget_is_never_lifted() {
    let house = House::new();
    let grow = format!("(drop (memory.grow (i32.const 200))) {}", fingerprint_of(8 << 20));
    let failed = score_of(&house, Guest::scoring(&grow), &manifest()).await;
    assert!(matches!(failed, CallError::BytesOut { budget, .. } if budget == 4 << 20), "{failed}");
}

#[tokio::test]
async fn one_chunk_shown_ten_million_times_is_a_result_larger_than_its_budget() {
    // A list of empty lists: small in the guest, large in the host.
    let house = House::new();
    let many = "(drop (memory.grow (i32.const 900)))
        (i32.store (i32.const 1064) (i32.const 131072)) (i32.store (i32.const 1068) (i32.const 7000000))
        (call $scored (f64.const 1) (i64.const 1))";
    let failed = score_of(&house, Guest::scoring(many), &manifest()).await;
    assert!(matches!(failed, CallError::BytesOut { .. }), "{failed}");
}

#[tokio::test]
async fn a_trap_says_where_it_was() {
    let house = House::new();
    let failed = score_of(&house, Guest::scoring("(unreachable)"), &manifest()).await;
    let CallError::Trap { message, .. } = &failed else { panic!("{failed}") };
    assert!(message.contains("unreachable") && message.contains("score"), "{message}");
}

#[tokio::test]
async fn arguments_beyond_their_budget_are_not_lowered() {
    let house = House::new();
    let plugin = house.load(&Guest::default()).await;
    let mut large = exchange();
    large.chunks.push(Chunk { at_us: 40, data: vec![0; 17 << 20].into() });
    let failed = plugin.count(&request(), &large).unwrap_err();
    assert!(matches!(failed, CallError::BytesIn { bytes, budget, .. } if bytes > budget), "{failed}");
    house.still_serves().await;
}

#[tokio::test]
async fn many_empty_chunks_are_bytes_too() {
    let house = House::new();
    let plugin = house.load(&Guest::default()).await;
    let mut many = exchange();
    many.chunks = vec![Chunk { at_us: 1, data: bytes::Bytes::new() }; 1_100_000];
    let failed = plugin.count(&request(), &many).unwrap_err();
    assert!(matches!(failed, CallError::BytesIn { .. }), "{failed}");
}

#[tokio::test]
async fn numbers_out_of_range_are_a_broken_contract() {
    let house = House::new();
    let reason = "(f64.store (i32.const 1288) (f64.const inf))
        (i32.store (i32.const 1280) (i32.const 2048)) (i32.store (i32.const 1284) (i32.const 3))";
    for (score, says) in [
        ("(call $scored (f64.const nan) (i64.const 1))".to_owned(), "quality is in [0, 1], and is NaN"),
        ("(call $scored (f64.const 1.0000001) (i64.const 1))".to_owned(), "quality is in [0, 1]"),
        ("(call $scored (f64.const -0.1) (i64.const 1))".to_owned(), "quality is in [0, 1]"),
        (
            format!("{reason} (i32.store (i32.const 1072) (i32.const 1280)) (i32.store (i32.const 1076) (i32.const 1)) (call $scored (f64.const 1) (i64.const 1))"),
            "reasons are finite",
        ),
        (
            format!("{reason} (i32.store (i32.const 1056) (i32.const 1280)) (i32.store (i32.const 1060) (i32.const 1)) (call $scored (f64.const 1) (i64.const 1))"),
            "suspicions are finite",
        ),
        (
            "(i32.store (i32.const 1048) (i32.const 1280)) (i32.store (i32.const 1052) (i32.const 1)) (call $scored (f64.const 1) (i64.const 1))".to_owned(),
            "units-by-chunk is empty or has one entry a chunk (2), and has 1",
        ),
        ("(i32.store8 (i32.const 1024) (i32.const 0)) (i32.const 1024)".to_owned(), "need lists at least one check"),
        ("(i32.store8 (i32.const 1024) (i32.const 9)) (i32.const 1024)".to_owned(), "discriminant"),
        ("(i32.const 1025)".to_owned(), "align"),
    ] {
        let plugin = house.load(&Guest::scoring(&score)).await;
        let failed = plugin.score(&request(), &exchange(), &[]).unwrap_err();
        assert!(matches!(failed, CallError::Contract { .. }), "{failed}");
        assert!(failed.to_string().contains(says), "{failed}");
    }
    house.still_serves().await;
}

#[tokio::test]
async fn requests_and_refusals_that_break_the_contract_are_refused() {
    let house = House::new();
    let default = Guest::default();
    let synthesize = |more: &str| Guest {
        synthesize: default.synthesize.replace("(i32.const 1024)", &format!("{more} (i32.const 1024)")),
        ..default.clone()
    };
    for (guest, says) in [
        (synthesize("(i64.store (i32.const 1064) (i64.const 0))"), "expected-units is at least 1"),
        (synthesize("(i32.store8 (i32.const 2048) (i32.const 97))"), "begins with '/'"),
        (synthesize("(i32.store8 (i32.const 2050) (i32.const 97))"), "the manifest fixes path /v1/echo"),
        (synthesize("(i32.store8 (i32.const 2066) (i32.const 10))"), "a content type is visible ASCII"),
    ] {
        let failed = house.load(&guest).await.synthesize(&seed(1)).unwrap_err();
        assert!(
            failed.to_string().starts_with("task echo-task: synthesize: breaks the contract"),
            "{failed}"
        );
        assert!(failed.to_string().contains(says), "{failed}");
    }
    for status in [200, 399, 500] {
        let admit = format!(
            "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store16 (i32.const 1028) (i32.const {status})) (i32.const 1024)"
        );
        let plugin = house.load(&Guest { admit, ..default.clone() }).await;
        let failed = plugin.admit("echo", "text/plain", b"", &seed(0)).unwrap_err();
        assert!(failed.to_string().contains("a refusal's status is 400 to 499"), "{failed}");
    }
    house.still_serves().await;
}

#[tokio::test]
async fn the_rounds_end_with_a_verdict_and_the_whole_transcript() {
    let house = House::new();
    let two_rounds = Guest::scoring(
        "(if (result i32) (i32.lt_u (call $evidence (local.get 0)) (i32.const 2))
           (then (call $need (call $evidence (local.get 0))))
           (else (call $scored (f64.const 0.25) (i64.const 2))))",
    );
    let plugin = house.load(&two_rounds).await;
    let checker = Arc::new(Echo::default());
    let judged = plugin.judge(request(), exchange(), checker.clone()).await;
    assert!(matches!(&judged.result, Ok(Outcome::Scored(v)) if v.quality == 0.25), "{judged:?}");
    assert_eq!((judged.rounds, checker.0.load(Ordering::Relaxed)), (3, 2));
    assert!(judged.fuel > 0);
    let asked: Vec<_> = judged.transcript.iter().map(|(check, _)| check.params.as_str()).collect();
    assert_eq!(asked, [r#"{"n":0}"#, r#"{"n":1}"#]);
    assert!(judged.transcript.iter().all(|(_, e)| matches!(e, Evidence::Answered(_))));
    // A receipt replays: the last round again, from the transcript alone.
    assert_eq!(plugin.score(&request(), &exchange(), &judged.transcript), judged.result);
}

#[tokio::test]
async fn endless_rounds_of_checks_end_at_the_budget() {
    let house = House::new();
    let endless = Guest::scoring("(call $need (call $evidence (local.get 0)))");
    let checker = Arc::new(Echo::default());
    let judged = house.load(&endless).await.judge(request(), exchange(), checker.clone()).await;
    let failed = judged.result.unwrap_err();
    assert!(matches!(failed, CallError::Rounds { budget: 4, .. }), "{failed}");
    assert_eq!(judged.rounds, 4);
    assert_eq!(checker.0.load(Ordering::Relaxed), 3, "checks that nobody would read are not run");

    let budget = Budget { rounds: 16, checks: 2, ..Budget::default() };
    let judged = house
        .load_as(&endless, &with_budget(budget))
        .await
        .judge(request(), exchange(), Arc::new(Echo::default()))
        .await;
    let failed = judged.result.unwrap_err();
    assert!(matches!(failed, CallError::Checks { asked: 3, budget: 2, .. }), "{failed}");
    assert_eq!(failed.at().call, Call::Score);
    house.still_serves().await;
}

#[tokio::test]
async fn a_check_that_was_answered_is_not_asked_again() {
    let house = House::new();
    let again = Guest::scoring("(call $need (i32.const 0))");
    let judged = house.load(&again).await.judge(request(), exchange(), Arc::new(Echo::default())).await;
    let failed = judged.result.unwrap_err();
    assert!(failed.to_string().contains("text.replay is asked for again"), "{failed}");
    assert_eq!(judged.rounds, 2);
}

#[tokio::test]
async fn a_check_that_was_not_granted_is_not_run() {
    let house = House::new();
    // It says nothing of the check in its description, and asks for another model.
    let sly = Guest::scoring("(i32.store8 (i32.const 2120) (i32.const 122)) (call $need (i32.const 0))");
    let checker = Arc::new(Echo::default());
    let judged = house.load(&sly).await.judge(request(), exchange(), checker.clone()).await;
    let failed = judged.result.unwrap_err();
    assert_eq!(
        failed.to_string(),
        "task echo-task: score: check text.replay of model z is not granted to task echo-task: add it to grants in the manifest"
    );
    assert_eq!(checker.0.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn hostile_calls_at_a_time_do_not_starve_the_others() {
    // More endless loops than places, then a good call: it waits for a place and gets one.
    let house = House::new();
    let budget = Budget { fuel: 20_000_000, ..Budget::default() };
    let looping =
        house.load_as(&Guest::scoring("(loop $l (br $l)) (unreachable)"), &with_budget(budget)).await;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let plugin = looping.clone();
        all.spawn(async move { plugin.judge(request(), exchange(), Arc::new(Echo::default())).await });
    }
    house.still_serves().await;
    for judged in all.join_all().await {
        assert!(matches!(judged.result, Err(CallError::Fuel { .. })), "{judged:?}");
    }
}

#[tokio::test]
async fn the_same_call_costs_the_same_fuel() {
    let house = House::new();
    let plugin = house.load(&Guest::default()).await;
    let mut fuel = Vec::new();
    for _ in 0..3 {
        fuel.push(plugin.judge(request(), exchange(), Arc::new(Echo::default())).await.fuel);
    }
    assert!(fuel[0] > 0 && fuel.iter().all(|f| *f == fuel[0]), "{fuel:?}");
}
