//! The real models, found where `cargo xtask setup` puts them. Absent models fail the tests: a check that is
//! skipped in silence checks nothing.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use nineteen_checking::{
    ExecutorConfig, Executors, GenerateEnd, GenerateRequest, GeneratedToken, Message, Prompt, Provider,
    Runtime, RuntimeConfig, Sampler, TextModel,
};
use nineteen_domain::id::ModelName;

pub(crate) const CHAT: &str = "smollm2-135m-instruct";
pub(crate) const INT8: &str = "smollm2-135m-instruct-int8";
pub(crate) const EMBED: &str = "all-minilm-l6-v2";

pub(crate) fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("NINETEEN_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|p| p.join("nineteen")))
        .or_else(|| from("HOME").map(|p| p.join(".cache/nineteen")))
        .expect("NINETEEN_CACHE, XDG_CACHE_HOME or HOME is set")
}

pub(crate) fn runtime_config(providers: Vec<Provider>) -> RuntimeConfig {
    RuntimeConfig { library: None, cache_onnxruntime_dir: cache().join("onnxruntime"), providers }
}

pub(crate) fn runtime() -> Arc<Runtime> {
    Runtime::load(&runtime_config(vec![Provider::Cpu])).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn start(models: &[&str]) -> Executors {
    let models = models.iter().map(|m| ModelName::new(*m).unwrap().into()).collect();
    let config = ExecutorConfig {
        models_dir: cache().join("models"),
        threads_per_model: 1,
        intra_threads: 1,
        queue: 16,
        models,
    };
    Executors::start(runtime(), config).unwrap_or_else(|e| panic!("{e}"))
}

/// Shared by the tests of one binary: loading takes seconds.
pub(crate) static ALL: LazyLock<Executors> = LazyLock::new(|| start(&[CHAT, INT8, EMBED]));

pub(crate) fn fixture(name: &str) -> serde_json::Value {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn user(text: &str) -> Vec<Message> {
    vec![Message { role: "user".into(), content: text.into() }]
}

pub(crate) async fn generate(
    model: &TextModel,
    messages: Vec<Message>,
    max_tokens: u32,
    sampler: Sampler,
) -> (Vec<GeneratedToken>, GenerateEnd) {
    let (tokens, mut out) = tokio::sync::mpsc::channel(max_tokens as usize);
    let request = GenerateRequest {
        prompt: Prompt::Messages(messages),
        max_tokens,
        sampler,
        logprobs: true,
        stop: Vec::new(),
    };
    let end = model.generate(request, tokens).await.unwrap();
    let mut all = Vec::new();
    while let Some(token) = out.recv().await {
        all.push(token);
    }
    (all, end)
}
