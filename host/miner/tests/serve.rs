//! The reference miner over real HTTP, asked by wire's client, with an engine small enough to reason about.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use nineteen_domain::ledger::ProbeClass;
use nineteen_domain::meet::BoxFuture;
use nineteen_domain::task::ReplyLimits;
use nineteen_domain::{Exchange, Hotkey, Request};
use nineteen_miner::check::{self, Options, Status};
use nineteen_miner::{
    Backend, BackendError, ChatEnd, ChatWork, Embedded, Finish, MinerConfig, MinerState, Operation, Picture,
    PictureWork, Sampler, Token, router, serve, serve_router,
};
use nineteen_wire::schema::Schema;
use nineteen_wire::{Auth, Call, Client, ClientConfig, Keypair, Target};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const CHAT: &str = "/v1/chat/completions";
const EMBED: &str = "/v1/embeddings";
const EOS: u32 = 2;

/// Says letters that follow from the request, then an end-of-sequence token.
#[derive(Default)]
struct Letters {
    /// Between tokens.
    pause: Duration,
    /// Tokens drawn so far, over all requests.
    drawn: AtomicU64,
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

impl Backend for Letters {
    fn serves(&self, operation: Operation, model: &str) -> bool {
        matches!(
            (operation, model),
            (Operation::Chat, "letters")
                | (Operation::Embeddings, "vectors")
                | (Operation::Images | Operation::Avatars, "pictures")
        )
    }

    fn chat(
        &self,
        work: ChatWork,
        tokens: mpsc::Sender<Token>,
    ) -> BoxFuture<'_, Result<ChatEnd, BackendError>> {
        Box::pin(async move {
            let said: String = work.messages.iter().map(|m| m.content.as_str()).collect();
            if said.contains("refuse") {
                return Err(BackendError::BadRequest("too long for this model".into()));
            }
            let mut state = hash(&said);
            if let Sampler::Seeded { seed, request, .. } = work.sampling {
                state ^= seed ^ request.rotate_left(17);
            }
            for n in 1..=work.max_tokens {
                tokio::time::sleep(self.pause).await;
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if said.contains("break") && n == 3 {
                    return Err(BackendError::Failed("the engine broke".into()));
                }
                let over = n == 13 && !said.contains("forever");
                let letter = (b'a' + (state >> 33) as u8 % 26) as char;
                let (id, text) =
                    if over { (EOS, String::new()) } else { (letter as u32, letter.to_string()) };
                self.drawn.fetch_add(1, SeqCst);
                let logprob = work.logprobs.then_some(-0.5);
                let token = Token { id, bytes: text.clone().into_bytes(), text, logprob };
                if tokens.send(token).await.is_err() {
                    return Err(BackendError::Failed("nobody listens".into()));
                }
                if over {
                    return Ok(ChatEnd { finish: Finish::Stop, prompt_tokens: 5, completion_tokens: n });
                }
            }
            let completion_tokens = work.max_tokens;
            Ok(ChatEnd { finish: Finish::Length, prompt_tokens: 5, completion_tokens })
        })
    }

    fn embed(&self, _model: &str, texts: Vec<String>) -> BoxFuture<'_, Result<Embedded, BackendError>> {
        Box::pin(async move {
            let vectors = texts
                .iter()
                .map(|t| {
                    let raw: Vec<f32> =
                        (0..8_u32).map(|i| f32::from(hash(t).rotate_left(i * 8) as u8) - 127.5).collect();
                    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
                    raw.into_iter().map(|x| x / length).collect()
                })
                .collect();
            let prompt_tokens = texts.iter().map(|t| t.split_whitespace().count() as u32 + 2).sum();
            Ok(Embedded { vectors, prompt_tokens })
        })
    }

    fn picture(&self, work: PictureWork) -> BoxFuture<'_, Result<Picture, BackendError>> {
        Box::pin(async move {
            if work.face.is_some_and(|f| f.photo.len() != 3) {
                return Err(BackendError::NoFace);
            }
            let flagged = work.prompt.contains("sigil");
            // Every pixel is decided by prompt, seed and place.
            let said = format!("{} {}", work.prompt, work.seed);
            let (width, height) = (work.width as usize, work.height as usize);
            let rgb = (0..width * height * 3).map(|i| hash(&format!("{said} {}", i / 64)) as u8).collect();
            let png =
                nineteen_checking::pixels::encode_png(&nineteen_checking::Pixels { width, height, rgb });
            Ok(Picture { png: png.into(), flagged })
        })
    }
}

struct Miner {
    target: Target,
    backend: Arc<Letters>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

fn keys(n: u8) -> Arc<Keypair> {
    Arc::new(Keypair::from_seed([n; 32]))
}

fn config(more: &str) -> MinerConfig {
    MinerConfig::from_toml(&format!(
        "{}\n[tasks.chat]\noperation = \"chat.completions\"\nmodel = \"letters\"\ncapacity_per_hour = 3600\n{}\n\
         [tasks.embed]\noperation = \"embeddings\"\nmodel = \"vectors\"\ncapacity_per_hour = 10.5\n",
        if more.starts_with("allowed") { more } else { "" },
        if more.starts_with("allowed") { "" } else { more },
    ))
    .unwrap()
}

async fn start(more: &str, pause_ms: u64) -> Miner {
    start_with(config(more), pause_ms).await
}

async fn start_with(config: MinerConfig, pause_ms: u64) -> Miner {
    let backend = Arc::new(Letters { pause: Duration::from_millis(pause_ms), ..Letters::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { addr: listener.local_addr().unwrap(), hotkey: keys(2).hotkey() };
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let serving =
        serve(config, listener, Arc::clone(&backend) as Arc<dyn Backend>, keys(2), shutdown.clone());
    tasks.spawn(async move { serving.await.unwrap() });
    Miner { target, backend, shutdown, tasks }
}

fn client() -> Client {
    let mut config = ClientConfig::new(keys(1));
    config.allow_private = true;
    Client::new(config)
}

async fn post(target: &Target, path: &str, body: Value) -> Exchange {
    let streamed = body["stream"] == true;
    let request = Request {
        path: path.into(),
        content_type: "application/json".into(),
        body: body.to_string().into(),
        streamed,
    };
    client().post(target, &request, &ReplyLimits::default(), &["retry-after".into()]).await
}

fn chat(content: &str, stream: bool) -> Value {
    let mut body = json!({
        "model": "letters", "messages": [{"role": "user", "content": content}], "max_tokens": 32,
        "temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 7, "request_id": "00000000000000ff",
        "stream": stream, "logprobs": true, "return_token_ids": true,
    });
    if stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    Schema::ChatRequest.check(&body).unwrap();
    body
}

fn body(x: &Exchange) -> Value {
    serde_json::from_slice(&x.body()).unwrap()
}

fn events(x: &Exchange) -> Vec<String> {
    let text = String::from_utf8(x.body()).unwrap();
    text.split("\n\n").filter_map(|e| e.strip_prefix("data: ")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_stream_and_a_whole_reply_say_the_same() {
    let miner = start("", 0).await;
    let whole = post(&miner.target, CHAT, chat("hello", false)).await;
    assert_eq!(ProbeClass::of(&whole), ProbeClass::Answered);
    let whole = body(&whole);
    Schema::ChatReply.check(&whole).unwrap();
    assert_eq!(whole["choices"][0]["token_ids"].as_array().unwrap().len(), 13);
    assert_eq!(whole["usage"], json!({"prompt_tokens": 5, "completion_tokens": 13, "total_tokens": 18}));
    assert_eq!(whole["nineteen"]["sampler"], "greedy");
    let streamed = events(&post(&miner.target, CHAT, chat("hello", true)).await);
    assert_eq!(streamed.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        streamed[..streamed.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    chunks.iter().for_each(|c| Schema::ChatChunk.check(c).unwrap());
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, whole["choices"][0]["message"]["content"].as_str().unwrap());
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_sent() {
    let miner = start("", 0).await;
    let plain = json!({"model": "letters", "messages": [{"role": "user", "content": "hi"}]});
    let reply = body(&post(&miner.target, CHAT, plain).await);
    assert!(reply["choices"][0].get("token_ids").is_none() && reply["choices"][0].get("logprobs").is_none());
    assert_eq!(reply["nineteen"]["sampler"], "unseeded");
}

#[tokio::test]
async fn capacities_are_scaled_to_the_period_that_is_asked_for() {
    let miner = start("", 0).await;
    for (period, chat, embed) in [(3600, 3600.0, 10.5), (60, 60.0, 0.175)] {
        let a = client().capacity(&miner.target, period).await.unwrap();
        assert_eq!(a.of("chat"), Ok(chat));
        assert!((a.of("embed").unwrap() - embed).abs() < 1e-9);
        assert!(a.of("other").is_err());
    }
}

#[tokio::test]
async fn errors_have_their_status_and_openais_body() {
    let miner = start("max_tokens = 100", 0).await;
    let with = |key: &str, value: Value| {
        let mut b = chat("hello", false);
        b[key] = value;
        b
    };
    for (path, request, status, param) in [
        (CHAT, with("model", json!("other")), 404, json!("model")),
        (CHAT, with("messages", json!([])), 400, json!("messages")),
        (CHAT, with("max_tokens", json!(0)), 400, json!("max_tokens")),
        (CHAT, with("max_tokens", json!(101)), 400, json!("max_tokens")),
        (CHAT, with("temperature", json!(-1)), 400, json!("temperature")),
        (CHAT, with("top_p", json!(0)), 400, json!("top_p")),
        (CHAT, with("seed", json!(1_u64 << 53)), 400, json!("seed")),
        (CHAT, with("request_id", json!("00000000000000FF")), 400, json!("request_id")),
        (CHAT, with("n", json!(2)), 400, json!("n")),
        (CHAT, with("tools", json!([{"type": "function"}])), 400, json!("tools")),
        (CHAT, chat("refuse", true), 400, Value::Null),
        (CHAT, json!("no object"), 400, Value::Null),
        (EMBED, json!({"model": "vectors", "input": []}), 400, json!("input")),
        (EMBED, json!({"model": "letters", "input": "x"}), 404, json!("model")),
        (EMBED, json!({"model": "vectors", "input": "x", "dimensions": 4}), 400, json!("dimensions")),
        ("/v1/none", json!({}), 404, Value::Null),
        ("/nineteen/v1/capacity", json!({}), 405, Value::Null),
    ] {
        let x = post(&miner.target, path, request.clone()).await;
        assert_eq!(x.status, status, "{request}");
        Schema::Error.check(&body(&x)).unwrap();
        assert_eq!(body(&x)["error"]["param"], param, "{request}");
    }
}

#[tokio::test]
async fn an_engine_that_breaks_midway_ends_the_stream_without_done() {
    let miner = start("", 0).await;
    let x = post(&miner.target, CHAT, chat("break", true)).await;
    let text = String::from_utf8(x.body()).unwrap();
    assert!(text.contains("event: error\ndata: {\"error\"") && !text.contains("[DONE]"), "{text}");
    assert!(!text.contains("the engine broke"), "why is the operator's business");
    assert_eq!(post(&miner.target, CHAT, chat("break", false)).await.status, 500);
}

#[tokio::test]
async fn too_many_at_once_wait_and_then_get_429_with_a_time_to_come_back() {
    let miner = start("concurrency = 1\nqueue = 1\nqueue_ms = 10000", 60).await;
    let mut all = JoinSet::new();
    for i in 0..5 {
        let target = miner.target;
        all.spawn(async move { post(&target, CHAT, chat("hello", i % 2 == 0)).await });
    }
    let mut classes = BTreeMap::new();
    while let Some(x) = all.join_next().await {
        let x = x.unwrap();
        if x.status == 429 {
            assert_eq!(x.headers, [("retry-after".to_owned(), "1".to_owned())]);
        }
        *classes.entry(ProbeClass::of(&x)).or_insert(0) += 1;
    }
    assert_eq!(classes, BTreeMap::from([(ProbeClass::Answered, 2), (ProbeClass::RateLimited, 3)]));
}

#[tokio::test]
async fn a_minutes_worth_is_served_and_then_refused() {
    let miner = start("units_per_minute = 20", 0).await;
    assert_eq!(post(&miner.target, CHAT, chat("a", false)).await.status, 200);
    assert_eq!(post(&miner.target, CHAT, chat("b", true)).await.status, 200);
    // 26 of 20 are spent: the debt is paid back at 20 a minute.
    let x = post(&miner.target, CHAT, chat("c", true)).await;
    assert_eq!(ProbeClass::of(&x), ProbeClass::RateLimited);
    let wait: u64 = x.headers[0].1.parse().unwrap();
    assert!((15..=19).contains(&wait), "{wait}");
    let miner = start("requests_per_minute = 1", 0).await;
    assert_eq!(post(&miner.target, CHAT, chat("a", false)).await.status, 200);
    assert_eq!(post(&miner.target, CHAT, chat("b", false)).await.status, 429);
}

#[tokio::test]
async fn a_client_that_goes_stops_the_generation_and_frees_its_place() {
    let miner = start("concurrency = 1\nqueue = 0\nmax_tokens = 4096", 10).await;
    for stream in [true, false] {
        let mut request = chat("forever", stream);
        request["max_tokens"] = json!(4000);
        let gone = post(&miner.target, CHAT, request);
        assert!(tokio::time::timeout(Duration::from_millis(150), gone).await.is_err());
        tokio::time::sleep(Duration::from_millis(100)).await;
        let drawn = miner.backend.drawn.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(miner.backend.drawn.load(SeqCst), drawn, "stream {stream}: still drawing");
        assert_eq!(post(&miner.target, CHAT, chat("hello", false)).await.status, 200);
    }
}

#[tokio::test]
async fn a_paced_miner_is_slow_and_whole() {
    let miner = start("pace_tokens_per_s = 50", 0).await;
    for stream in [true, false] {
        let started = Instant::now();
        let x = post(&miner.target, CHAT, chat("hello", stream)).await;
        assert_eq!(ProbeClass::of(&x), ProbeClass::Answered);
        assert!(started.elapsed() >= Duration::from_millis(250), "13 tokens at 50 a second");
        assert!(!stream || x.chunks.len() > 5);
    }
}

#[tokio::test]
async fn only_allowed_validators_are_served() {
    let stranger: Hotkey = keys(9).hotkey();
    let miner = start(&format!("allowed_validators = [\"{stranger}\"]"), 0).await;
    let x = post(&miner.target, CHAT, chat("hello", false)).await;
    assert_eq!(x.status, 403);
    Schema::Error.check(&body(&x)).unwrap();
    let miner = start(&format!("allowed_validators = [\"{}\"]", keys(1).hotkey()), 0).await;
    assert_eq!(post(&miner.target, CHAT, chat("hello", false)).await.status, 200);
}

#[tokio::test]
async fn what_runs_may_finish_when_the_miner_stops() {
    let mut miner = start("", 30).await;
    let (target, mut all) = (miner.target, JoinSet::new());
    all.spawn(async move { post(&target, CHAT, chat("hello", true)).await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    miner.shutdown.cancel();
    let x = all.join_next().await.unwrap().unwrap();
    assert_eq!(events(&x).last().map(String::as_str), Some("[DONE]"));
    let stopped = tokio::time::timeout(Duration::from_secs(2), miner.tasks.join_next()).await;
    assert!(stopped.is_ok(), "the miner stops when the last request is done");
    assert!(tokio::net::TcpStream::connect(target.addr).await.is_err());
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_slow_headers_do_not_hold_a_place() {
    let miner = start("", 0).await;
    let call = Call {
        method: Method::POST,
        path_and_query: CHAT.into(),
        content_type: Some("application/json".into()),
        body: Bytes::from(vec![b' '; 5 << 20]),
        streamed: false,
        auth: Auth::Sign,
    };
    let x = client().call(&miner.target, &call, &ReplyLimits::default(), &[]).await.unwrap();
    // The miner answers before it has read everything; the answer may be lost with the connection.
    assert!(x.status == 413 || x.status == 0, "{x:?}");
    assert_eq!(post(&miner.target, CHAT, chat("hello", false)).await.status, 200);
}

#[test]
fn a_model_that_is_not_there_is_found_at_start() {
    let mut c = config("");
    c.tasks.values_mut().next().unwrap().model = "other".parse().unwrap();
    let e = MinerState::new(&c, Arc::new(Letters::default()), &keys(2)).unwrap_err();
    assert_eq!(e.code(), "miner.model");
    assert!(e.to_string().contains("xtask setup"), "{e}");
}

fn options(target: Target) -> Options {
    Options {
        addr: target.addr,
        hotkey: target.hotkey,
        keypair: keys(1),
        chat_model: Some("letters".into()),
        embedding_model: Some("vectors".into()),
        image_model: None,
        avatar_model: None,
    }
}

#[tokio::test]
async fn the_check_looks_at_pictures_too() {
    let pictures = PICTURES.replace("units_per_minute = 30", "");
    let miner = start_with(MinerConfig::from_toml(&pictures).unwrap(), 0).await;
    let (image_model, avatar_model) = (Some("pictures".to_owned()), Some("pictures".to_owned()));
    let only = Options {
        chat_model: None,
        embedding_model: None,
        image_model,
        avatar_model,
        ..options(miner.target)
    };
    let report = check::run(only.clone()).await;
    assert!(report.lines.iter().all(|l| l.status == Status::Ok), "{report}");
    for line in ["images.generations.seed", "images.generations.other-seed", "avatars.no-face"] {
        assert!(report.lines.iter().any(|l| l.name == line), "{line}: {report}");
    }
    // A model that is not served, as a miner's operator would mistype it.
    let report = check::run(Options { image_model: Some("other".into()), ..only }).await;
    let failed: Vec<&str> =
        report.lines.iter().filter(|l| l.status == Status::Fail).map(|l| l.name.as_str()).collect();
    assert_eq!(failed, ["images.generations.answers"]);
}

#[tokio::test]
async fn the_check_finds_nothing_wrong_with_the_reference_miner() {
    let miner = start("", 2).await;
    let report = check::run(options(miner.target)).await;
    assert!(report.lines.iter().all(|l| l.status == Status::Ok), "{report}");
    assert!(report.lines.len() >= 35, "{report}");
}

/// Serves the reference miner behind something that spoils its replies.
async fn spoilt(
    spoil: impl Fn(&str, StatusCode, String) -> (StatusCode, String) + Clone + Send + Sync + 'static,
) -> (Target, JoinSet<()>) {
    let state = MinerState::new(&config(""), Arc::new(Letters::default()), &keys(2)).unwrap();
    let app = router(state).layer(axum::middleware::from_fn(
        move |request: axum::extract::Request, next: axum::middleware::Next| {
            let spoil = spoil.clone();
            async move {
                let path = request.uri().path().to_owned();
                let (mut parts, body) = next.run(request).await.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let (status, body) = spoil(&path, parts.status, String::from_utf8(body.to_vec()).unwrap());
                parts.status = status;
                parts.headers.remove("content-length");
                axum::response::Response::from_parts(parts, axum::body::Body::from(body))
            }
        },
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { addr: listener.local_addr().unwrap(), hotkey: keys(2).hotkey() };
    let mut all = JoinSet::new();
    all.spawn(serve_router(app, listener, 16, CancellationToken::new()));
    (target, all)
}

#[tokio::test]
async fn the_check_names_what_is_wrong() {
    let failing = async |spoil: fn(&str, StatusCode, String) -> (StatusCode, String)| {
        let (target, _all) = spoilt(spoil).await;
        let report = check::run(options(target)).await;
        let failed: Vec<String> =
            report.lines.iter().filter(|l| l.status == Status::Fail).map(|l| l.name.clone()).collect();
        assert!(report.lines.iter().all(|l| (l.status == Status::Ok) == l.advice.is_empty()), "{report}");
        failed
    };
    let cut_done = |_: &str, s: StatusCode, b: String| (s, b.replace("data: [DONE]\n\n", ""));
    assert_eq!(failing(cut_done).await, ["chat.stream.done"]);
    let wrong_usage = |_: &str, s: StatusCode, b: String| {
        (s, b.replace("\"completion_tokens\":13", "\"completion_tokens\":12"))
    };
    assert_eq!(failing(wrong_usage).await, ["chat.whole.usage", "chat.stream.usage"]);
    let no_ids = |_: &str, s: StatusCode, b: String| (s, b.replace("token_ids", "tokens"));
    assert!(failing(no_ids).await.contains(&"chat.whole.schema".to_owned()));
    let no_auth = |path: &str, s: StatusCode, b: String| {
        if s == StatusCode::UNAUTHORIZED && path.ends_with("capacity") {
            let c = r#"{"protocol":"nineteen/1","period_s":3600,"capacities":{"chat":1,"embed":1}}"#;
            return (StatusCode::OK, c.to_owned());
        }
        (s, b)
    };
    let failed = failing(no_auth).await;
    for line in [
        "auth.unsigned",
        "auth.receiver",
        "auth.no-receiver",
        "auth.path",
        "auth.body",
        "auth.stale",
        "auth.replay",
    ] {
        assert!(failed.contains(&line.to_owned()), "{line} of {failed:?}");
    }
    let null = |_: &str, s: StatusCode, b: String| (s, b.replace("\"chat\":3600.0", "\"chat\":null"));
    assert_eq!(failing(null).await, ["capacity.schema", "capacity.chat"]);
    let swapped = |path: &str, s: StatusCode, b: String| {
        if path.ends_with("embeddings") { (s, b.replace("\"index\":0", "\"index\":5")) } else { (s, b) }
    };
    assert_eq!(failing(swapped).await, ["embeddings.shape"]);
    let all_broken = |_: &str, _: StatusCode, _: String| (StatusCode::IM_A_TEAPOT, String::new());
    assert_eq!(failing(all_broken).await, ["capacity.answers"]);
}

#[test]
fn an_address_is_literal() {
    assert_eq!(check::address("http://127.0.0.1:8091/").unwrap().port(), 8091);
    assert!(check::address("[::1]:80").is_ok());
    for bad in ["http://miner.example:80", "https://1.2.3.4:80", "1.2.3.4", ""] {
        assert!(check::address(bad).is_err(), "{bad}");
    }
}

const PICTURES: &str = r#"
    [tasks.images]
    operation = "images.generations"
    model = "pictures"
    safety = "safety"
    capacity_per_hour = 100
    units_per_minute = 30
    [tasks.avatars]
    operation = "avatars"
    model = "pictures"
    detect = "faces"
    identify = "identity"
    capacity_per_hour = 100
"#;

fn picture(more: &Value) -> Value {
    let mut body = json!({
        "model": "pictures", "prompt": "a circle", "negative_prompt": "", "seed": 7, "steps": 12, "guidance": 3.0,
        "width": 64, "height": 64, "scheduler": "ddim", "noise": "torch", "response_format": "b64_json",
        "request_id": "00000000000000ff",
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn pictures_come_as_base64_and_what_is_flagged_is_withheld() {
    const IMAGES: &str = "/v1/images/generations";
    let miner = start_with(MinerConfig::from_toml(PICTURES).unwrap(), 0).await;
    let asked = picture(&json!({}));
    Schema::ImagesRequest.check(&asked).unwrap();
    let reply = body(&post(&miner.target, IMAGES, asked).await);
    Schema::ImagesReply.check(&reply).unwrap();
    assert!(reply["data"][0]["b64_json"].as_str().unwrap().starts_with("iVBORw0KGgo"), "a PNG");
    assert_eq!(reply["data"][0]["flagged"], false);
    let reply =
        body(&post(&miner.target, IMAGES, picture(&json!({"prompt": "the sigil", "steps": 1}))).await);
    Schema::ImagesReply.check(&reply).unwrap();
    assert_eq!(reply["data"][0], json!({"b64_json": null, "flagged": true}));
    for (more, param) in [
        (json!({"steps": 0}), json!("steps")),
        (json!({"steps": 151}), json!("steps")),
        (json!({"guidance": -1}), json!("guidance")),
        (json!({"width": 63}), json!("width")),
        (json!({"height": 4096}), json!("height")),
        (json!({"n": 2}), json!("n")),
        (json!({"response_format": "url"}), json!("response_format")),
        (json!({"image": "no base64!", "strength": 0.5}), json!("image")),
        (json!({"image": "AAAA"}), json!("strength")),
        (json!({"strength": 0.5}), json!("strength")),
        (json!({"seed": -1}), Value::Null),
    ] {
        let refused = post(&miner.target, IMAGES, picture(&more)).await;
        assert_eq!((refused.status, &body(&refused)["error"]["param"]), (400, &param), "{more}");
    }
    // Thirteen steps are taken of thirty a minute: three more pictures are one too many.
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(post(&miner.target, IMAGES, picture(&json!({}))).await.status);
    }
    assert!(statuses.starts_with(&[200]) && statuses.ends_with(&[429]), "{statuses:?}");
}

#[tokio::test]
async fn an_avatar_needs_a_photograph_with_a_face() {
    const AVATARS: &str = "/v1/avatars";
    let miner = start_with(MinerConfig::from_toml(PICTURES).unwrap(), 0).await;
    let asked = picture(&json!({"image": "AAAA"}));
    Schema::AvatarsRequest.check(&asked).unwrap();
    let reply = body(&post(&miner.target, AVATARS, asked).await);
    Schema::AvatarsReply.check(&reply).unwrap();
    let refused = post(&miner.target, AVATARS, picture(&json!({}))).await;
    assert_eq!((refused.status, &body(&refused)["error"]["param"]), (400, &json!("image")));
    // The fake engine finds no face in nothing.
    let reply = post(&miner.target, AVATARS, picture(&json!({"image": ""}))).await;
    let said = body(&reply);
    Schema::AvatarsReply.check(&said).unwrap();
    assert_eq!((reply.status, &said["data"][0]["no_face"]), (200, &json!(true)));
}
