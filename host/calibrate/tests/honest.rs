//! A thousand honest exchanges under different precisions, threads and batches, against the calibrations that ship: real
//! models, the tables as a validator uses them, and nobody accused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a test that fails is meant to panic"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nineteen_calibrate::{Observed, Setting, Task, observe_rows, observe_text};
use nineteen_checking::{Runtime, RuntimeConfig};
use nineteen_domain::ledger::Stream;
use nineteen_domain::policy::HonestyRules;
use nineteen_domain::{Calibration, Request, calibration};
use nineteen_mechanism::honesty;
use serde_json::{Value, json};

const CHATS: usize = 36;
const TEXTS: usize = 64;
const TOPICS: [&str; 6] = [
    "What is a lighthouse for?",
    "Write one line about rain on a tin roof.",
    "Which is heavier, a litre of oil or of water?",
    "Give me three words that rhyme with stone.",
    "How do I boil an egg?",
    "Why do cats purr, in a few words?",
];

fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("NINETEEN_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|p| p.join("nineteen")))
        .unwrap_or_else(|| from("HOME").unwrap().join(".cache/nineteen"))
}

fn request(path: &str, body: &Value) -> Request {
    Request {
        path: path.into(),
        content_type: "application/json".into(),
        body: body.to_string().into_bytes().into(),
        streamed: false,
    }
}

fn shipped(task: &str) -> Calibration {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tasks").join(task).join(calibration::FILE);
    Calibration::read(&std::fs::read(file).unwrap()).unwrap()
}

fn setting(c: &Calibration, scratch: &Path, requests: Vec<Request>, units: u32) -> Setting {
    let config = RuntimeConfig {
        library: None,
        cache_onnxruntime_dir: cache().join("onnxruntime"),
        providers: vec![],
    };
    Setting {
        task: Task { name: c.task.clone(), model: c.model.name.clone() },
        beside: Vec::new(),
        models_dir: cache().join("models"),
        scratch: scratch.to_owned(),
        runtime: Runtime::load(&config).unwrap(),
        requests,
        units,
        threads: 2,
        honest_only: true,
    }
}

/// One stream a condition and class; how many exchanges there were.
fn nobody_is_accused(c: &Calibration, seen: &[Observed]) -> usize {
    let rules = HonestyRules { alpha: 1e-3, streams: 1, ..HonestyRules::default() };
    let mut streams: BTreeMap<(&str, &str), Stream> = BTreeMap::new();
    let mut highest = f64::NEG_INFINITY;
    for o in seen {
        let class = &c.classes[&o.class];
        let said: Vec<(String, f64)> = class
            .suspects
            .iter()
            .map(|(name, s)| {
                let sum: f64 = o.statistic.iter().map(|x| s.lambda[class.bin(*x)]).sum();
                (name.clone(), sum / class.design_effect)
            })
            .collect();
        let stream = streams.entry((&o.class, &o.condition)).or_default();
        honesty::observe(stream, &rules, &said, 1);
        highest = highest.max(honesty::evidence(stream));
        assert_eq!(
            stream.accused_us, None,
            "{} {} after {} exchanges",
            o.class, o.condition, stream.exchanges
        );
    }
    eprintln!(
        "{}: {} exchanges in {} streams, highest evidence e^{highest:.2}, an accusation needs e^{:.2}",
        c.task,
        seen.len(),
        streams.len(),
        honesty::threshold(&rules)
    );
    seen.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_honest_exchanges_accuse_nobody() {
    let scratch = tempfile::tempdir_in(cache()).unwrap();
    let mut tell = |_: String| {};

    let c = shipped("embed-minilm-l6");
    let texts = (0..TEXTS).map(|n| {
        let input: Vec<String> = (0..=n % 4).map(|i| format!("{} ({n}, {i})", TOPICS[(n + i) % 6])).collect();
        request("/v1/embeddings", &json!({ "input": input }))
    });
    let setting_of_rows = setting(&c, scratch.path(), texts.collect(), 16);
    let rows = nobody_is_accused(&c, &observe_rows(&setting_of_rows, &mut tell).await.unwrap());

    let c = shipped("chat-smollm2-135m");
    let chats = (0..CHATS).map(|n| {
        let temperature = [0.7, 0.8, 1.0][n % 3];
        let body = json!({
            "messages": [{ "role": "user", "content": TOPICS[n % 6] }],
            "temperature": temperature, "top_p": 0.95, "top_k": 0,
            "seed": 1_000 + n, "request_id": format!("{n:016x}"),
        });
        request("/v1/chat/completions", &body)
    });
    let setting_of_chats = setting(&c, scratch.path(), chats.collect(), 6);
    let chats = nobody_is_accused(&c, &observe_text(&setting_of_chats, &mut tell).await.unwrap());
    assert!(rows + chats >= 1_000, "{rows} + {chats}");
}
