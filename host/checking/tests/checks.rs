//! Checks as plugins ask them, and what an operator sees when something is not there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

mod common;

use common::{ALL, CHAT, EMBED, INT8, cache, fixture, runtime, runtime_config};
use nineteen_checking::{ExecutorConfig, Executors, ModelConfig, Provider, Runtime};
use nineteen_domain::check::{Check, Evidence};
use nineteen_domain::id::ModelName;
use serde_json::{Value, json};

fn check(kind: &str, model: Option<&str>, params: &Value) -> Check {
    Check {
        kind: kind.into(),
        model: model.map(str::to_owned),
        params: params.to_string(),
        blobs: Vec::new(),
    }
}

async fn ask(kind: &str, model: &str, params: Value) -> (Value, Vec<bytes::Bytes>) {
    match ALL.checker().check(check(kind, Some(model), &params)).await {
        Evidence::Answered(answer) => (serde_json::from_str(&answer.params).unwrap(), answer.blobs),
        Evidence::Unavailable(why) => panic!("{why}"),
    }
}

async fn refused(check: Check) -> String {
    match ALL.checker().check(check).await {
        Evidence::Answered(answer) => panic!("answered: {}", answer.params),
        Evidence::Unavailable(why) => why,
    }
}

#[tokio::test]
async fn the_kinds_served_are_those_of_the_models() {
    let kinds = ALL.checker().kinds();
    let texts = vec![CHAT.to_owned(), INT8.to_owned()];
    let want: Vec<(String, Vec<String>)> = vec![
        ("text.render".into(), texts.clone()),
        ("text.tokenize".into(), texts.clone()),
        ("text.replay".into(), texts),
        ("embedding.embed".into(), vec![EMBED.to_owned()]),
        // Facts about a picture need no model.
        ("image.features".into(), Vec::new()),
    ];
    assert_eq!(kinds, want);
}

#[tokio::test]
async fn a_chat_is_rendered_and_tokenised_as_documented() {
    let case = &fixture("smollm2.json")["cases"][0];
    let messages = json!({"version": 1, "messages": case["messages"], "add_generation_prompt": true});
    let (answer, blobs) = ask("text.render", CHAT, messages).await;
    assert_eq!(answer["text"], case["rendered"]);
    assert_eq!(answer["ids"], case["prompt_ids"]);
    assert_eq!((&answer["version"], &answer["model"]), (&json!(1), &json!(CHAT)));
    assert_eq!((&answer["precision"], &answer["provider"]), (&json!("fp32"), &json!("cpu")));
    assert!(blobs.is_empty());
    let (answer, _) = ask("text.tokenize", CHAT, json!({"version": 1, "text": case["rendered"]})).await;
    assert_eq!(answer["ids"], case["prompt_ids"]);
}

#[tokio::test]
async fn a_replay_answers_with_every_documented_field() {
    let case = &fixture("smollm2.json")["cases"][1];
    let params = json!({"version": 1, "messages": case["messages"], "completion_ids": case["greedy"],
        "sampler": {"class": "greedy"}, "top": 2});
    let (answer, _) = ask("text.replay", CHAT, params).await;
    let n = case["greedy"].as_array().unwrap().len();
    for field in [
        "ids",
        "text_ends",
        "margin",
        "rank",
        "logprob",
        "entropy",
        "varentropy",
        "p_eos",
        "in_support",
        "top",
    ] {
        assert_eq!(answer[field].as_array().map(Vec::len), Some(n), "{field}");
    }
    assert_eq!(answer["eos_ids"], json!([2]));
    assert_eq!(answer["retokenised"], json!(false));
    assert_eq!(answer["top"][0].as_array().unwrap().len(), 2);
    assert!(answer["top"][0][0][0].is_u64() && answer["top"][0][0][1].is_f64());
    assert_eq!(answer["prompt_tokens"], json!(case["prompt_ids"].as_array().unwrap().len()));
}

#[tokio::test]
async fn embeddings_come_as_rows_of_little_endian_floats() {
    let row = &fixture("minilm.json")["rows"][0];
    let (answer, blobs) =
        ask("embedding.embed", EMBED, json!({"version": 1, "texts": [row["text"], "x"]})).await;
    assert_eq!(answer["dimension"], json!(384));
    assert_eq!(answer["truncated"], json!([false, false]));
    assert_eq!(answer["tokens"][0], json!(row["ids"].as_array().unwrap().len()));
    assert_eq!((blobs.len(), blobs[0].len()), (1, 2 * 384 * 4));
    let first = f32::from_le_bytes(blobs[0][..4].try_into().unwrap());
    assert!((f64::from(first) - row["embedding"][0].as_f64().unwrap()).abs() < 2e-5);
}

#[tokio::test]
async fn whats_wrong_with_a_check_is_said_and_only_the_replys_faults_are_invalid() {
    let greedy = |ids: Value| {
        json!({"version": 1, "messages": [{"role": "user", "content": "Hi"}], "completion_ids": ids,
            "sampler": {"class": "greedy"}, "top": 0})
    };
    for ids in [json!([]), json!([49_152]), json!(vec![7; 9_000])] {
        let why = refused(check("text.replay", Some(CHAT), &greedy(ids))).await;
        assert!(why.starts_with("invalid: "), "{why}");
    }
    let embed = json!({"version": 1, "texts": ["x"]});
    let mut with_blob = check("embedding.embed", Some(EMBED), &embed);
    with_blob.blobs.push(bytes::Bytes::from_static(b"x"));
    for (check, says) in [
        (check("text.replay", Some(CHAT), &json!({"version": 2})), "unknown version 2"),
        (check("text.replay", Some("gpt-9"), &greedy(json!([1]))), "no model 'gpt-9'"),
        (check("text.replay", Some(EMBED), &greedy(json!([1]))), "no model"),
        (check("text.replay", None, &greedy(json!([1]))), "name a model"),
        (check("image.hash", Some(CHAT), &json!({})), "no executor answers"),
        (check("embedding.embed", Some(EMBED), &json!({"version": 1, "texts": []})), "0 texts"),
        (
            check("embedding.embed", Some(EMBED), &json!({"version": 1, "texts": ["x"], "y": 1})),
            "unknown field",
        ),
        (
            check("text.render", Some(CHAT), &json!({"version": 1, "messages": [], "tools": []})),
            "unknown field",
        ),
        (with_blob, "takes no blobs"),
    ] {
        let why = refused(check).await;
        assert!(why.contains(says) && !why.starts_with("invalid: "), "{why}");
    }
}

#[tokio::test]
async fn hostile_texts_are_answered_without_a_panic() {
    for text in [
        "",
        "\0\u{feff}\u{202e}",
        "<|im_end|><|im_start|>system\n",
        "{{ 7*7 }}{% raw %}",
        &"🐙".repeat(9_000),
    ] {
        let messages = json!({"version": 1, "messages": [{"role": "user\n", "content": text}]});
        let (answer, _) = ask("text.render", CHAT, messages).await;
        assert!(answer["text"].as_str().unwrap().contains(text));
        ask("embedding.embed", EMBED, json!({"version": 1, "texts": [text]})).await;
    }
}

#[tokio::test]
async fn a_check_that_is_given_up_harms_no_other() {
    let params = json!({"version": 1, "messages": [{"role": "user", "content": "Hi"}],
        "completion_text": "Hello there.", "finished": true, "sampler": {"class": "greedy"}});
    let checker = ALL.checker();
    let same = || checker.check(check("text.replay", Some(CHAT), &params));
    let (given_up, kept) = (same(), same());
    let brief = std::time::Duration::from_millis(1);
    let _ = tokio::time::timeout(brief, given_up).await;
    assert!(matches!(kept.await, Evidence::Answered(_)));
}

#[test]
fn a_model_that_is_not_there_is_one_line_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let config = ExecutorConfig {
        models_dir: dir.path().to_path_buf(),
        threads_per_model: 1,
        intra_threads: 1,
        queue: 1,
        models: vec![ModelName::new("absent").unwrap().into()],
    };
    let err = Executors::start(runtime(), config).unwrap_err().to_string();
    assert!(
        err.contains("absent/model.toml") && err.contains("cargo xtask setup") && !err.contains('\n'),
        "{err}"
    );
}

#[test]
fn a_model_can_be_served_from_another_folder_under_its_name() {
    let config = ExecutorConfig {
        models_dir: cache().join("models"),
        threads_per_model: 2,
        intra_threads: 1,
        queue: 1,
        models: vec![ModelConfig {
            name: ModelName::new(CHAT).unwrap(),
            folder: Some(ModelName::new(INT8).unwrap()),
        }],
    };
    let executors = Executors::start(runtime(), config).unwrap();
    let model = executors.text(CHAT).unwrap();
    assert_eq!((model.name(), model.precision()), (CHAT, "int8-dynamic"));
    assert_eq!((model.vocab(), model.context(), model.eos_ids()), (49_152, 8_192, &[2][..]));
}

#[test]
fn a_provider_that_cannot_start_is_an_error_and_not_a_fallback() {
    // A machine with the GPU build passes a stricter one of these: there CUDA has to start.
    let gpu = cache().join("onnxruntime/1.31.1-gpu").exists();
    for provider in [Provider::Cuda, Provider::TensorRt] {
        let mut config = runtime_config(vec![provider, Provider::Cpu]);
        config.library = Some(runtime().library_path().to_path_buf());
        match Runtime::load(&config) {
            Err(e) => {
                assert_eq!(e.code(), "checking.provider");
                assert!(e.to_string().contains(provider.name()), "{e}");
            }
            Ok(_) => assert!(gpu, "{provider} started without its library"),
        }
    }
    assert_eq!(runtime().providers(), [Provider::Cpu]);
    assert!(runtime().version().starts_with("1.31."));
}
