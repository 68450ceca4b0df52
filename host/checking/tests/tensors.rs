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
    serve(cache().join("models"), "magika-v3-3")
}

fn serve(models_dir: PathBuf, model: &str) -> (Executors, Arc<dyn Checker>) {
    let runtime = Runtime::load(&RuntimeConfig {
        library: None,
        cache_onnxruntime_dir: cache().join("onnxruntime"),
        providers: vec![Provider::Cpu],
    })
    .unwrap();
    let config = ExecutorConfig {
        models_dir,
        threads_per_model: 1,
        intra_threads: 1,
        queue: 4,
        models: vec![ModelName::new(model).unwrap().into()],
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

/// The few words of ONNX's protobuf that a graph of one-step nodes needs: numbers and fields with a length.
mod onnx {
    pub(super) fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }

    pub(super) fn field(field: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap();
        let length = if length < 128 {
            vec![u8::try_from(length).unwrap()]
        } else {
            vec![u8::try_from(length & 127).unwrap() | 128, u8::try_from(length >> 7).unwrap()]
        };
        [vec![field << 3 | 2], length, content.to_vec()].concat()
    }

    /// A tensor of one dimension that is as long as it comes; 1 is f32, 2 u8, 6 i32, 7 i64, 9 bool.
    pub(super) fn tensor(name: &str, made_of: u8) -> Vec<u8> {
        let shape = field(2, &field(1, &field(2, b"n")));
        let tensor = field(1, &[number(1, made_of), shape].concat());
        [field(1, name.as_bytes()), field(2, &tensor)].concat()
    }

    pub(super) fn node(operator: &str, from: &str, to: &str, attribute: &[u8]) -> Vec<u8> {
        let names = [field(1, from.as_bytes()), field(2, to.as_bytes()), field(4, operator.as_bytes())];
        [names.concat(), attribute.to_vec()].concat()
    }
}

/// A graph with an input of every kind: each comes out as it went in, and four outputs are trouble.
fn every_kind() -> Vec<u8> {
    use onnx::{field, node, number, tensor};
    let kinds = [("a", 1), ("b", 6), ("c", 7), ("d", 2), ("e", 9)];
    let to_f64 = field(5, &[field(1, b"to"), number(3, 11), vec![0xa0, 1, 2]].concat());
    let nodes = [
        node("Log", "a", "log", &[]),
        node("Cast", "a", "wide", &to_f64),
        node("NonZero", "e", "where", &[]),
        node("Neg", "a", "less", &[]),
    ];
    let same = kinds.map(|(name, _)| node("Identity", name, &format!("same-{name}"), &[]));
    let graph = [
        nodes.iter().chain(&same).flat_map(|n| field(1, n)).collect::<Vec<u8>>(),
        field(2, b"kinds"),
        kinds.iter().flat_map(|(name, of)| field(11, &tensor(name, *of))).collect(),
        kinds.iter().flat_map(|(name, of)| field(12, &tensor(&format!("same-{name}"), *of))).collect(),
        [("log", 1), ("wide", 11), ("less", 1)]
            .iter()
            .flat_map(|(n, of)| field(12, &tensor(n, *of)))
            .collect(),
        // Its shape has two dimensions: none is said.
        field(12, &[field(1, b"where"), field(2, &field(1, &number(1, 7)))].concat()),
    ];
    [number(1, 8), field(7, &graph.concat()), field(8, &[field(1, b""), number(2, 13)].concat())].concat()
}

#[tokio::test]
async fn tensors_of_every_kind_go_in_and_come_out_bit_by_bit() {
    let models = tempfile::tempdir().unwrap();
    let (folder, graph) = (models.path().join("kinds"), every_kind());
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("model.onnx"), &graph).unwrap();
    let digest = nineteen_domain::Digest::of(&graph).hex();
    let manifest = format!(
        "kind = \"tensors\"\nprecision = \"fp32\"\n[files]\n\"model.onnx\" = {{ bytes = {}, sha256 = \"{digest}\" }}\n",
        graph.len()
    );
    std::fs::write(folder.join("model.toml"), manifest).unwrap();
    let (executors, checker) = serve(models.path().to_owned(), "kinds");

    let data: Vec<(&str, &str, Bytes)> = vec![
        ("a", "f32", [1.5_f32, -0.0].iter().flat_map(|x| x.to_le_bytes()).collect()),
        ("b", "i32", [i32::MIN, 7].iter().flat_map(|x| x.to_le_bytes()).collect()),
        ("c", "i64", [i64::MIN, i64::MAX].iter().flat_map(|x| x.to_le_bytes()).collect()),
        ("d", "u8", Bytes::from_static(&[0, 255])),
        ("e", "bool", Bytes::from_static(&[0, 0])),
    ];
    let ask = |order: &[usize], outputs: &[&str], dims: &str| {
        let inputs: Vec<String> = order
            .iter()
            .map(|i| format!(r#"{{"name":"{}","dtype":"{}","dims":{dims}}}"#, data[*i].0, data[*i].1))
            .collect();
        let params = format!(
            r#"{{"version":1,"inputs":[{}],"outputs":{}}}"#,
            inputs.join(","),
            serde_json::json!(outputs)
        );
        let blobs = order.iter().map(|i| data[*i].2.clone()).collect();
        checker.check(Check { model: Some("kinds".into()), ..run(&params, blobs) })
    };

    // In any order; out in the order that was asked for.
    let Evidence::Answered(said) =
        ask(&[3, 0, 4, 2, 1], &["same-e", "where", "same-c", "less", "same-d", "same-b", "same-a"], "[2]")
            .await
    else {
        panic!()
    };
    let less: Bytes = [-1.5_f32, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let expected = [&data[4].2, &Bytes::new(), &data[2].2, &less, &data[3].2, &data[1].2, &data[0].2];
    assert_eq!(said.blobs.iter().collect::<Vec<_>>(), expected);
    let told: serde_json::Value = serde_json::from_str(&said.params).unwrap();
    let told: Vec<String> = told["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| format!("{} {} {}", o["name"].as_str().unwrap(), o["dtype"].as_str().unwrap(), o["dims"]))
        .collect();
    assert_eq!(
        told,
        [
            "same-e bool [2]",
            "where i64 [1,0]",
            "same-c i64 [2]",
            "less f32 [2]",
            "same-d u8 [2]",
            "same-b i32 [2]",
            "same-a f32 [2]"
        ]
    );

    for (order, outputs, dims, word) in [
        (&[0, 1, 2, 3, 4][..], &["log"][..], "[2]", "not finite"),
        (&[0, 1, 2, 3, 4], &["wide"], "[2]", "not handed out"),
        (&[0, 1, 2, 3, 4], &[], "[2]", ""),
        (&[0, 1, 2, 3], &["less"], "[2]", "'e' is missing"),
        (&[0, 1, 2, 3, 4, 4], &["less"], "[2]", "given twice"),
        (&[0, 1, 2, 3, 4], &["less"], "[]", "bytes, which is not"),
        (&[0, 1, 2, 3, 4], &["less"], "[-2]", "-2"),
        (&[0, 1, 2, 3, 4], &["less"], "[2.5]", "2.5"),
    ] {
        match ask(order, outputs, dims).await {
            Evidence::Unavailable(why) => {
                assert!(why.contains(word) && why.lines().count() == 1, "{word:?} in {why}");
            }
            Evidence::Answered(a) => panic!("{outputs:?} {dims}: {}", a.params),
        }
    }
    executors.stop().await;
}
