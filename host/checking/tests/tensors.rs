//! `tensors.run` with a real graph: what magika's own library says of files, and what becomes of everything that does not fit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use nineteen_checking::{ExecutorConfig, Executors, Provider, Runtime, RuntimeConfig};
use nineteen_domain::check::{Check, Evidence};
use nineteen_domain::id::ModelName;
use nineteen_domain::meet::Checker;

fn cache() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("NINETEEN_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("nineteen")))
        .or_else(|| var("HOME").map(|p| p.join(".cache/nineteen")))
        .unwrap_or_default()
}

fn served() -> (Executors, Arc<dyn Checker>) {
    let runtime = Runtime::load(&RuntimeConfig {
        library: None,
        cache_onnxruntime_dir: cache().join("onnxruntime"),
        providers: vec![Provider::Cpu],
    })
    .unwrap();
    let config = ExecutorConfig {
        models_dir: cache().join("models"),
        threads_per_model: 1,
        intra_threads: 1,
        queue: 4,
        models: vec![ModelName::new("magika-v3-3").unwrap().into()],
    };
    let executors = Executors::start(runtime, config).expect("run `cargo xtask setup --only example`");
    let checker = executors.checker();
    (executors, checker)
}

fn run(params: &str, blobs: Vec<Bytes>) -> Check {
    Check { kind: "tensors.run".into(), model: Some("magika-v3-3".into()), params: params.into(), blobs }
}

fn bytes(rows: usize, of: i32) -> Bytes {
    std::iter::repeat_n(of, rows * 2_048).flat_map(i32::to_le_bytes).collect::<Vec<u8>>().into()
}

const ONE: &str =
    r#"{"version":1,"inputs":[{"name":"bytes","dtype":"i32","dims":[1,2048]}],"outputs":["target_label"]}"#;

#[tokio::test]
async fn probabilities_come_back_under_their_name_and_rows_alike_are_alike_in_a_batch() {
    let (executors, checker) = served();
    assert!(checker.kinds().contains(&("tensors.run".into(), vec!["magika-v3-3".into()])));
    let Evidence::Answered(one) = checker.check(run(ONE, vec![bytes(1, 65)])).await else { panic!() };
    let said: serde_json::Value = serde_json::from_str(&one.params).unwrap();
    assert_eq!(said["outputs"][0]["name"], "target_label");
    assert_eq!(said["outputs"][0]["dims"], serde_json::json!([1, 214]));
    let numbers =
        |b: &Bytes| b.as_chunks::<4>().0.iter().map(|w| f32::from_le_bytes(*w)).collect::<Vec<f32>>();
    let row = numbers(&one.blobs[0]);
    assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-3);
    let two = ONE.replace("[1,2048]", "[2,2048]");
    let both: Bytes = [bytes(1, 65), bytes(1, 256)].concat().into();
    let Evidence::Answered(two) = checker.check(run(&two, vec![both])).await else { panic!() };
    let rows = numbers(&two.blobs[0]);
    assert!(rows.iter().zip(&row).all(|(a, b)| (a - b).abs() < 1e-5));
    executors.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_by_the_tensors_name() {
    let (executors, checker) = served();
    let whole = || vec![bytes(1, 1)];
    for (from, to, blobs, word) in [
        ("\"bytes\"", "\"words\"", whole(), "no input 'words'; it has 'bytes'"),
        ("i32", "f32", whole(), "takes"),
        ("[1,2048]", "[2048]", whole(), "has the shape"),
        ("[1,2048]", "[1,2047]", vec![bytes(1, 1).slice(..2_047 * 4)], "has the shape"),
        ("[1,2048]", "[2,2048]", whole(), "bytes, which is not"),
        ("[1,2048]", "[0,2048]", vec![Bytes::new()], "is empty"),
        ("[1,2048]", "[18446744073709551615,2048]", whole(), "which is not"),
        ("[1,2048]", "[1,1,1,1,1,1,1,1,2048]", whole(), "dimensions"),
        ("target_label", "target", whole(), "no output 'target'; it has 'target_label'"),
        ("[\"target_label\"]", "[\"target_label\",\"target_label\"]", whole(), "asked for twice"),
        ("\"version\":1", "\"version\":2", whole(), "version"),
        ("\"version\":1", "\"version\":1,\"more\":1", whole(), "more"),
        ("i32", "i33", whole(), "i33"),
        ("i32", "i32", vec![], "blobs"),
        ("i32", "i32", vec![bytes(1, 1), bytes(1, 1)], "blobs"),
        (
            "[{",
            "[{\"name\":\"bytes\",\"dtype\":\"u8\",\"dims\":[1]},{",
            vec![Bytes::from_static(b"x"), bytes(1, 1)],
            "takes",
        ),
    ] {
        let params = ONE.replacen(from, to, 1);
        match checker.check(run(&params, blobs)).await {
            Evidence::Unavailable(why) => {
                assert!(why.contains(word) && why.lines().count() == 1, "{word} in {why}");
            }
            Evidence::Answered(a) => panic!("{params}: {}", a.params),
        }
    }
    // Too much, in each way.
    let rows = (1 << 20) / (2_048 * 4) + 1;
    let large = ONE.replace("[1,2048]", &format!("[{rows},2048]"));
    let Evidence::Unavailable(why) = checker.check(run(&large, vec![bytes(rows, 1)])).await else { panic!() };
    assert!(why.contains("are the most"), "{why}");
    // And it still serves.
    assert!(matches!(checker.check(run(ONE, whole())).await, Evidence::Answered(_)));
    executors.stop().await;
}
