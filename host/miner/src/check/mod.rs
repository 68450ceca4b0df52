//! Does a miner speak the protocol? Asked from outside, of any miner, and told line by line with what to do.
//!
//! Not a judge of quality or speed: validators measure those. Nothing here depends on our own miner; the
//! messages are held against the same JSON Schemas that `docs/schemas/` publishes.
//!
//! The one idea: each promise of `docs/protocol.md` is one line, and a line that fails does not hide the next.

mod chat;
mod embeddings;
mod pictures;
mod report;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use nineteen_domain::ledger::ProbeClass;
use nineteen_domain::task::ReplyLimits;
use nineteen_domain::{Ending, Exchange, Hotkey};
use nineteen_wire::auth::{self, BtAuth, Scheme as _};
use nineteen_wire::schema::Schema;
use nineteen_wire::{Announcement, Auth, CAPACITY_PATH, Call, Client, ClientConfig, Keypair, Parts, Target};
use serde_json::{Value, json};

use crate::config::Operation;

pub use report::{Line, Report, Status};

/// Whom to ask, as whom, and for which models.
#[derive(Debug, Clone)]
pub struct Options {
    /// The miner's literal address and port.
    pub addr: SocketAddr,
    /// The hotkey that it should answer as.
    pub hotkey: Hotkey,
    /// Signs the requests. Has to be one that the miner serves (see `allowed_validators`).
    pub keypair: Arc<Keypair>,
    /// A model to ask for chat; `None` leaves chat out.
    pub chat_model: Option<String>,
    /// A model to ask for embeddings; `None` leaves embeddings out.
    pub embedding_model: Option<String>,
    /// A pipeline to ask for images; `None` leaves images out.
    pub image_model: Option<String>,
    /// A pipeline to ask for avatars; `None` leaves avatars out.
    pub avatar_model: Option<String>,
}

/// Reads `http://1.2.3.4:8091`, or the same without the scheme.
///
/// # Errors
/// A sentence: names are not resolved, because validators do not either.
pub fn address(url: &str) -> Result<SocketAddr, String> {
    let plain = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    plain.parse().map_err(|_| {
        let shown: String = url.chars().take(80).collect();
        format!(
            "'{shown}' is not http://IP:PORT with a literal IP address: that is how validators reach a miner"
        )
    })
}

const PERIOD_S: u64 = 3600;

/// Asks the miner everything; takes a few seconds and a few hundred tokens.
///
/// Private addresses are allowed: this asks a miner that the operator named.
pub async fn run(options: Options) -> Report {
    let mut config = ClientConfig::new(Arc::clone(&options.keypair));
    config.allow_private = true;
    config.denied_ports.clear();
    let probe = Probe {
        client: Client::new(config),
        keypair: options.keypair,
        scheme: BtAuth::default(),
        target: Target { addr: options.addr, hotkey: options.hotkey },
    };
    let mut report = Report::default();
    if !capacity(&probe, &mut report).await {
        return report;
    }
    signatures(&probe, &mut report).await;
    let asked = [
        (Operation::Chat, &options.chat_model),
        (Operation::Embeddings, &options.embedding_model),
        (Operation::Images, &options.image_model),
        (Operation::Avatars, &options.avatar_model),
    ];
    let asked: Vec<Operation> = asked.into_iter().filter(|(_, m)| m.is_some()).map(|(o, _)| o).collect();
    errors(&probe, &asked, &mut report).await;
    if let Some(model) = &options.chat_model {
        chat::check(&probe, model, &mut report).await;
    }
    if let Some(model) = &options.embedding_model {
        embeddings::check(&probe, model, &mut report).await;
    }
    if let Some(model) = &options.image_model {
        pictures::images(&probe, model, &mut report).await;
    }
    if let Some(model) = &options.avatar_model {
        pictures::avatars(&probe, model, &mut report).await;
    }
    report
}

/// How requests are made and replies looked at.
struct Probe {
    client: Client,
    keypair: Arc<Keypair>,
    scheme: BtAuth,
    target: Target,
}

const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";

impl Operation {
    const fn path(self) -> &'static str {
        match self {
            Self::Chat => CHAT,
            Self::Embeddings => EMBEDDINGS,
            Self::Images => "/v1/images/generations",
            Self::Avatars => "/v1/avatars",
        }
    }
}

impl Probe {
    async fn send(&self, call: &Call) -> Exchange {
        let listed = ["content-type", "retry-after"].map(str::to_owned);
        let sent = self.client.call(&self.target, call, &ReplyLimits::default(), &listed).await;
        sent.unwrap_or_else(|_| Exchange::without_reply(Ending::Refused, 0))
    }

    async fn get(&self, path_and_query: &str, auth: Auth) -> Exchange {
        let path_and_query = path_and_query.to_owned();
        let call = Call {
            method: Method::GET,
            path_and_query,
            content_type: None,
            body: Bytes::new(),
            streamed: false,
            auth,
        };
        self.send(&call).await
    }

    /// Posts JSON. A 429 is waited for, three times: a busy miner is not a wrong one.
    async fn post(&self, path: &str, body: &Value) -> Exchange {
        let streamed = body.get("stream") == Some(&Value::Bool(true));
        let call = Call {
            method: Method::POST,
            path_and_query: path.to_owned(),
            content_type: Some("application/json".into()),
            body: Bytes::from(body.to_string()),
            streamed,
            auth: Auth::Sign,
        };
        let mut exchange = self.send(&call).await;
        for _ in 0..3 {
            if exchange.status != 429 {
                break;
            }
            let retry = header(&exchange, "retry-after").and_then(|v| v.parse().ok()).unwrap_or(1_u64);
            tokio::time::sleep(std::time::Duration::from_secs(retry.clamp(1, 10))).await;
            exchange = self.send(&call).await;
        }
        exchange
    }

    fn signed(&self, parts: &Parts<'_>) -> Vec<(HeaderName, HeaderValue)> {
        self.scheme.sign(&self.keypair, parts)
    }
}

fn header<'x>(exchange: &'x Exchange, name: &str) -> Option<&'x str> {
    exchange.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

/// A sentence about an exchange that did not go as it should.
fn describe(exchange: &Exchange) -> String {
    match ProbeClass::of(exchange) {
        ProbeClass::Answered => "200".into(),
        ProbeClass::RateLimited => "429, rate limited".into(),
        class => {
            let body = exchange.body();
            let body: String = String::from_utf8_lossy(&body).chars().take(120).collect();
            format!("status {}, {class:?} {body}", exchange.status)
        }
    }
}

fn parsed(exchange: &Exchange) -> Option<Value> {
    serde_json::from_slice(&exchange.body()).ok()
}

fn schema(report: &mut Report, name: String, schema: Schema, value: Option<&Value>) -> bool {
    let found = match value {
        None => Err(vec!["the body is not JSON".to_owned()]),
        Some(value) => schema.check(value),
    };
    let advice = format!("see docs/schemas/{}", schema.file());
    match found {
        Ok(()) => report.hold(name, true, Status::Fail, schema.file(), ""),
        Err(found) => report.hold(name, false, Status::Fail, found.join("; "), &advice),
    }
}

/// Whether the miner can be talked to at all.
async fn capacity(probe: &Probe, report: &mut Report) -> bool {
    let path = |period: u64| format!("{CAPACITY_PATH}?period_s={period}");
    let reply = probe.get(&path(PERIOD_S), Auth::Sign).await;
    let advice = "GET /nineteen/v1/capacity?period_s=N, signed for this miner's hotkey, has to give 200; check address, hotkey, clock and the list of allowed validators";
    if !report.hold("capacity.answers", reply.status == 200, Status::Fail, describe(&reply), advice) {
        return false;
    }
    schema(report, "capacity.schema".into(), Schema::Capacity, parsed(&reply).as_ref());
    let announced = match Announcement::read(&reply, PERIOD_S) {
        Ok(a) => a,
        Err(e) => {
            report.add("capacity.read", Status::Fail, e.to_string(), "without it no capacity counts");
            return true;
        }
    };
    for (task, units) in &announced.capacities {
        let name = format!("capacity.{}", task.chars().take(64).collect::<String>());
        match units {
            Ok(units) => report.add(name, Status::Ok, format!("{units} per {PERIOD_S} s"), ""),
            Err(e) => {
                let advice = "announce a finite number of at least 0 under the task's name, once";
                report.add(name, Status::Fail, e.to_string(), advice);
            }
        }
    }
    let some = announced.capacities.values().any(|c| c.is_ok_and(|units| units > 0.0));
    let advice = "nothing above 0 is announced: validators will ask for nothing; use the subnet's task names";
    report.hold("capacity.some", some, Status::Warn, format!("{} tasks", announced.capacities.len()), advice);
    let half = Announcement::read(&probe.get(&path(PERIOD_S / 2), Auth::Sign).await, PERIOD_S / 2);
    let scaled = half.as_ref().is_ok_and(|half| {
        announced.capacities.iter().all(|(task, whole)| match (whole, half.of(task)) {
            (Ok(whole), Ok(half)) => (half * 2.0 - whole).abs() <= 2.0 + whole.abs() * 0.05,
            _ => true,
        })
    });
    let seen = match &half {
        Ok(_) => "half the period".to_owned(),
        Err(e) => e.to_string(),
    };
    let advice = "capacities are per period of the length asked for: answer half the units, and the same period_s, for half the period";
    report.hold("capacity.scales", scaled, Status::Warn, seen, advice);
    true
}

/// Everything that has to be refused for its signature.
async fn signatures(probe: &Probe, report: &mut Report) {
    let path = format!("{CAPACITY_PATH}?period_s={PERIOD_S}");
    let parts =
        Parts { method: "GET", path_and_query: &path, body: b"", receiver: Some(probe.target.hotkey) };
    let other_receiver = Parts { receiver: Some(probe.keypair.hotkey()), ..parts };
    let nobody = Parts { receiver: None, ..parts };
    let other_path = Parts { path_and_query: "/nineteen/v1/capacity?period_s=1", ..parts };
    let other_body = Parts { body: b"x", ..parts };
    let old = auth::now_ns().saturating_sub(60_000_000_000);
    for (name, headers, advice) in [
        (
            "auth.unsigned",
            Vec::new(),
            "refuse requests without a signature with 401: anyone could spend this miner's capacity",
        ),
        (
            "auth.receiver",
            probe.signed(&other_receiver),
            "refuse requests signed for another receiver with 401: another miner could relay its validator's requests",
        ),
        ("auth.no-receiver", probe.signed(&nobody), "refuse requests signed for no receiver with 401"),
        (
            "auth.path",
            probe.signed(&other_path),
            "check the signature over path and query exactly as received",
        ),
        ("auth.body", probe.signed(&other_body), "check the signature over the raw body"),
        (
            "auth.stale",
            probe.scheme.sign_at(&probe.keypair, &parts, old),
            "refuse nonces older than 10 s with 401",
        ),
    ] {
        let reply = probe.get(&path, Auth::Given(headers)).await;
        refused(report, name, &reply, advice);
    }
    let once = probe.signed(&parts);
    let first = probe.get(&path, Auth::Given(once.clone())).await;
    let again = probe.get(&path, Auth::Given(once)).await;
    let advice = "remember nonces for at least 24 s and refuse the second use with 401";
    if first.status == 200 {
        refused(report, "auth.replay", &again, advice);
    } else {
        report.add(
            "auth.replay",
            Status::Warn,
            describe(&first),
            "the first use was refused, so the second tells nothing",
        );
    }
}

fn refused(report: &mut Report, name: &str, reply: &Exchange, advice: &str) {
    let ok = reply.status == 401 && Schema::Error.check(&parsed(reply).unwrap_or_default()).is_ok();
    let status = if reply.status == 401 || reply.status == 403 { Status::Warn } else { Status::Fail };
    let advice = match status {
        Status::Warn => "refused as it should be; make it a 401 with the body of docs/schemas/error.json",
        _ => advice,
    };
    report.hold(name, ok, status, format!("status {}", reply.status), advice);
}

/// Everything else that has to be refused, and how.
async fn errors(probe: &Probe, asked: &[Operation], report: &mut Report) {
    let reply = probe.get("/nineteen/v1/nothing-here", Auth::Sign).await;
    let advice = "an unknown path is 404 with the body of docs/schemas/error.json";
    error(report, "error.path".into(), &reply, 404, advice);
    for operation in asked {
        let model = "no-such-model";
        let body = match operation {
            Operation::Chat => {
                json!({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4})
            }
            Operation::Embeddings => json!({"model": model, "input": ["Hello"]}),
            Operation::Images | Operation::Avatars => json!({
                "model": model, "prompt": "a circle", "steps": 1, "guidance": 1, "width": 64, "height": 64,
            }),
        };
        let reply = probe.post(operation.path(), &body).await;
        let name = format!("error.model.{}", operation.as_str());
        error(report, name, &reply, 404, "an unknown model is 404 with code model_not_found");
        let reply = probe.post(operation.path(), &json!("no request")).await;
        let name = format!("error.body.{}", operation.as_str());
        error(report, name, &reply, 400, "a body that is no request is 400, not 200 and not 500");
    }
}

fn error(report: &mut Report, name: String, reply: &Exchange, status: u16, advice: &str) {
    let body = Schema::Error.check(&parsed(reply).unwrap_or_default());
    let seen = match &body {
        Ok(()) => format!("status {}", reply.status),
        Err(found) => format!("status {}; {}", reply.status, found.join("; ")),
    };
    // FastAPI and its like say 422 where OpenAI says 400.
    let near = (400..500).contains(&reply.status) && reply.status != 429;
    let bad = if near { Status::Warn } else { Status::Fail };
    report.hold(name, reply.status == status && body.is_ok(), bad, seen, advice);
}
