//! Promise: a cheating miner ends with a fifth of an equal honest miner's effective volume at most, or it is said which
//! one does not and why.
//!
//! Every kind of the zoo is a process. All get the same requests through the validator's own client; their answers are
//! judged by the real plugins and the real checker, and settled beside an honest miner's. The two have the same
//! capacity and windows: what is compared is what their answers are worth. Times are taken while nothing computes:
//! every answer is prepared beforehand (see [`REHEARSE`]), and judging comes after.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use nineteen_checking::{ExecutorConfig, Executors, ModelConfig, Provider, Runtime, RuntimeConfig};
use nineteen_domain::ledger::{
    Failure, Judgement, PeriodRow, ProbeClass, QualitySample, Tally, WindowKind, WindowResult,
};
use nineteen_domain::meet::{BoxFuture, Checker, Clock};
use nineteen_domain::policy::{Policy, Scoring};
use nineteen_domain::{
    Check, Digest, Evidence, Exchange, Hotkey, MasterSeed, ModelName, PeriodId, ProbeId, Request, Synthetic,
    TaskName, Uid,
};
use nineteen_mechanism::{At, MinerTaskInput, Standing, honesty, period_score, settle};
use nineteen_sandbox::{Plugin, Sandbox, SandboxConfig};
use nineteen_store::{Options, Store};
use nineteen_tests::zoo::{KINDS, Kind, MODELS, PATIENT, REHEARSE, Task, oracle};
use nineteen_tests::{cache, repository};
use nineteen_validator::registry::{self, LiveTask, Tasks};
use nineteen_validator::{Judge, SystemClock};
use nineteen_wire::Keypair;
use nineteen_wire::client::{Client, ClientConfig, Target};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Of an honest miner's effective volume, for a cheat.
const MOST: f64 = 0.2;
/// The same for kinds that cannot be told apart: none of them gains anything, within the noise of the clock.
const NO_GAIN: f64 = 1.1;

const CANNOT_BE_TOLD_APART: &[(&str, &str)] = &[
    (
        "relay",
        "the right tokens from a machine that does the work, at its pace. A miner that keeps the protocol refuses \
         requests that are signed for another, so this is a machine of its own with two hotkeys; both are asked in the \
         same windows, and the capacity that one machine sustains is credited once",
    ),
    ("bundled", "the right tokens in the same time; tokens are counted by the replay and never by chunk"),
    (
        "burst",
        "the right tokens in the same time; what it loses is the factor for the first unit, which comes last",
    ),
    (
        "unseeded",
        "no cheat: the right model and distribution, said to be drawn without the seed. The manifest pays half, because \
         the test is weaker",
    ),
    (
        "slightly-hotter",
        "a temperature that is a tenth too high moves a token in thirty: 200 tokens can be too few for the test. It \
         saves the miner nothing",
    ),
    ("lower-cased", "the model's own tokenizer lower-cases: the rows are the right ones to the bit"),
];

/// Requests that every kind gets: two of the rarer sort (greedy chats, single texts), six of the other.
const RARE: usize = 2;
const COMMON: usize = 6;
/// Tokens of an answer at most: enough for a verdict, and little to generate.
const TOKENS: i64 = 24;
const HOUR_US: u64 = 3_600_000_000;
const CAPACITY: u64 = 50_000;

/// A process that ends with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

struct Seat {
    kind: &'static Kind,
    target: Target,
    _process: Running,
}

impl Seat {
    fn take(kind: &'static Kind, n: u8, oracle: SocketAddr, relay: Option<SocketAddr>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nineteen-zoo"));
        command.args(["--kind", kind.name, "--oracle", &format!("http://{oracle}")]);
        if let Some(addr) = relay {
            command.args(["--relay", &format!("http://{addr}")]);
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr: SocketAddr = line.trim().parse().unwrap_or_else(|e| panic!("{}: {line:?}: {e}", kind.name));
        let hotkey = Keypair::from_seed([n; 32]).hotkey();
        Self { kind, target: Target { addr, hotkey }, _process: Running(process) }
    }
}

/// The real checker, which is asked the same about many kinds.
struct Remembering {
    checker: Arc<dyn Checker>,
    known: Mutex<HashMap<Digest, Evidence>>,
}

impl Checker for Remembering {
    fn check(&self, check: Check) -> BoxFuture<'_, Evidence> {
        Box::pin(async move {
            let digest = check.digest();
            let known = self.known.lock().unwrap().get(&digest).cloned();
            if let Some(evidence) = known {
                return evidence;
            }
            let evidence = self.checker.check(check).await;
            self.known.lock().unwrap().insert(digest, evidence.clone());
            evidence
        })
    }

    fn kinds(&self) -> Vec<(String, Vec<String>)> {
        self.checker.kinds()
    }
}

/// The validator's side.
struct Stage {
    tasks: Arc<Tasks>,
    judge: Judge,
    client: Client,
    policy: Policy,
    requests: BTreeMap<Task, Vec<Synthetic>>,
    oracle: SocketAddr,
    _server: JoinSet<std::io::Result<()>>,
}

/// The repository's tasks, with short answers and little patience.
fn taskset(folder: &Path) -> PathBuf {
    let mut set = "name = 'zoo'\nversion = '1.0.0'\npolicy = 'default'\n".to_owned();
    for task in [Task::Chat, Task::Embeddings] {
        let (from, to) = (repository().join("tasks").join(task.name()), folder.join(task.name()));
        fs::create_dir(&to).unwrap();
        let text = fs::read_to_string(from.join("task.toml")).unwrap();
        let mut manifest: toml::Table = toml::from_str(&text).unwrap();
        if task == Task::Chat {
            let mut put = |section: &str, key: &str, number: i64| {
                let section = manifest.get_mut(section).and_then(toml::Value::as_table_mut).unwrap();
                section.insert(key.to_owned(), toml::Value::Integer(number));
            };
            put("params", "max_tokens_cap", TOKENS);
            put("params", "default_max_tokens", TOKENS);
            put("limits", "first_byte_ms", 4_000);
            put("limits", "idle_ms", 1_500);
            put("limits", "total_ms", 6_000);
        }
        fs::write(to.join("task.toml"), toml::to_string(&manifest).unwrap()).unwrap();
        let calibration = from.join(nineteen_domain::calibration::FILE);
        if calibration.is_file() {
            fs::copy(calibration, to.join(nineteen_domain::calibration::FILE)).unwrap();
        }
        set += &format!("[[task]]\nfolder = '{}'\nweight = 0.5\n", task.name());
    }
    let file = folder.join("taskset.toml");
    fs::write(&file, set).unwrap();
    file
}

/// Synthetic requests as they come, but for shares, so that every run has some of both sorts; no long prompts, and of the
/// drawn answers those at temperatures where a sampler decides something.
fn requests(plugin: &Plugin, secret: &MasterSeed, task: Task) -> Vec<Synthetic> {
    let (mut rare, mut common, mut chosen) = (RARE, COMMON, Vec::new());
    for n in 0..2_000 {
        let made = plugin.synthesize(&secret.derive("zoo", &n.to_string())).unwrap();
        let body: Value = serde_json::from_slice(&made.request.body).unwrap();
        let (is_rare, fits) = match task {
            Task::Chat => {
                let temperature = body["temperature"].as_f64().unwrap();
                let drawn = temperature >= 0.6 && body["max_tokens"] == TOKENS;
                (temperature <= 0.0, (temperature <= 0.0 || drawn) && made.request.body.len() < 2_000)
            }
            Task::Embeddings => {
                let texts = body["input"].as_array().unwrap().len();
                (texts == 1, texts <= 16)
            }
        };
        let room = if is_rare { &mut rare } else { &mut common };
        if fits && *room > 0 {
            *room -= 1;
            chosen.push(made);
        }
    }
    assert_eq!(chosen.len(), RARE + COMMON, "{task:?}");
    chosen
}

impl Stage {
    async fn set(folder: &Path) -> Self {
        let secret = MasterSeed::from_bytes([19; 32]);
        let sandbox = Sandbox::new(SandboxConfig {
            cache_dir: cache().join("compiled"),
            max_component_bytes: 64 << 20,
            compile_timeout: Duration::from_secs(180),
            max_concurrent_calls: 16,
            host_version: registry::host_version(),
        })
        .unwrap();
        let components = cache().join("components");
        let tasks = registry::load(&taskset(folder), &components, &sandbox, &secret).await;
        let tasks = Arc::new(tasks.unwrap_or_else(|e| panic!("{e}")));
        let board =
            nineteen_validator::registry::Tasks { set: tasks.set.clone(), by_name: tasks.by_name.clone() };

        let models: Vec<ModelConfig> = MODELS.iter().map(|m| ModelName::new(*m).unwrap().into()).collect();
        let start = move || {
            let cache_onnxruntime_dir = cache().join("onnxruntime");
            let providers = vec![Provider::Cpu];
            let runtime = Runtime::load(&RuntimeConfig { library: None, cache_onnxruntime_dir, providers });
            Executors::start(
                runtime.unwrap_or_else(|e| panic!("{e}")),
                ExecutorConfig {
                    models_dir: cache().join("models"),
                    threads_per_model: 2,
                    intra_threads: 1,
                    queue: 64,
                    models,
                },
            )
        };
        let executors = tokio::task::spawn_blocking(start).await.unwrap();
        let executors = Arc::new(executors.unwrap_or_else(|e| panic!("{e}")));
        let checker = Remembering { checker: executors.checker(), known: Mutex::default() };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let oracle = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(oracle::answer(listener, executors));

        let mut made = BTreeMap::new();
        for task in [Task::Chat, Task::Embeddings] {
            let (plugin, secret) = (Arc::clone(&live(&tasks, task).plugin), secret.clone());
            let chosen = tokio::task::spawn_blocking(move || requests(&plugin, &secret, task)).await.unwrap();
            made.insert(task, chosen);
        }
        let policy = Policy::default_rules();
        let store = Store::open(&folder.join("data"), Options::default()).unwrap();
        let (checker, clock) = (Arc::new(checker), Arc::new(SystemClock));
        let judge = Judge::new(
            Arc::new(nineteen_validator::Board::new(board)),
            checker,
            store,
            clock,
            &policy,
            HOUR_US,
        );
        let mut client = ClientConfig::new(Arc::new(Keypair::from_seed([0xEE; 32])));
        client.allow_private = true;
        Self { tasks, judge, client: Client::new(client), policy, requests: made, oracle, _server: server }
    }

    fn live(&self, task: Task) -> &Arc<LiveTask> {
        live(&self.tasks, task)
    }

    /// The miner prepares its answers.
    async fn rehearse(&self, seat: &Seat) {
        let asked = self.requests[&seat.kind.task].iter().map(|made| async move {
            let path = format!("{REHEARSE}{}", made.request.path);
            let request = Request { path, streamed: false, ..made.request.clone() };
            let exchange = self.client.try_post(&seat.target, &request, &PATIENT, &[]).await.unwrap();
            let words = String::from_utf8_lossy(&exchange.body()).into_owned();
            assert_eq!(exchange.status, 200, "{}: {words}", seat.kind.name);
        });
        join_all(asked).await;
    }

    /// All requests at once, as the validator sends them.
    async fn ask(&self, seat: &Seat) -> Vec<Exchange> {
        let m = &self.live(seat.kind.task).manifest;
        let asked = self.requests[&seat.kind.task].iter().map(|made| async move {
            self.client.try_post(&seat.target, &made.request, &m.limits, &m.headers).await.unwrap()
        });
        join_all(asked).await
    }

    /// Classes and samples of what a miner answered, as the validator books them.
    async fn judge(&self, seat: &Seat, exchanges: Vec<Exchange>) -> Judged {
        let task = self.live(seat.kind.task);
        let (mut tally, mut samples, mut failure) = (Tally::default(), Vec::new(), None);
        for ((made, exchange), slot) in self.requests[&seat.kind.task].iter().zip(exchanges).zip(0..) {
            let (mut class, mut units) = (ProbeClass::of(&exchange), 0);
            if class == ProbeClass::Answered {
                match count(&task.plugin, &made.request, &exchange).await {
                    Some(counted) => units = counted,
                    None => class = ProbeClass::Failed(Failure::Malformed),
                }
            }
            tally.book(class, units, made.expected_units);
            if let ProbeClass::Failed(why) = class {
                failure = failure.or(Some(why));
            }
            // What was not answered is not judged: it has failed.
            if class == ProbeClass::Answered {
                let (miner, period) = (seat.target.hotkey, PeriodId(1));
                let probe = ProbeId { period, task: task.manifest.name.clone(), miner, slot };
                let request = made.request.clone();
                samples.push(self.judge.exchange(probe, request, exchange).await.unwrap());
            }
        }
        Judged { kind: seat.kind, miner: seat.target.hotkey, tally, samples, failure }
    }

    /// An honest miner and a cheat, settled side by side.
    fn settle(&self, honest: &Judged, cheat: &Judged) -> (Standing, Standing) {
        let task = self.live(cheat.kind.task);
        let at = At { now_us: SystemClock.now_us(), period_us: HOUR_US };
        let inputs = [(honest, 1), (cheat, 2)].map(|(judged, uid)| self.input(judged, task, Uid(uid), at));
        let weights = BTreeMap::from([(task.manifest.name.clone(), 1.0)]);
        let standings = settle(&self.policy, &weights, &inputs, at).standings;
        let of = |uid| standings.iter().find(|s| s.uid == Uid(uid)).cloned().unwrap();
        (of(1), of(2))
    }

    fn input(&self, judged: &Judged, task: &LiveTask, uid: Uid, at: At) -> MinerTaskInput {
        let Scoring::Default(rules) = &self.policy.scoring else { panic!("the default policy") };
        let streams = judged.samples.iter().filter_map(|s| s.suspicion.as_ref()).map(|s| &s.stream);
        let pi = streams
            .max_by_key(|stream| stream.exchanges)
            .map_or(1.0, |stream| honesty::honesty(stream, &rules.honesty, stream.accused_us.map(|_| 0.0)));
        let window =
            |kind| WindowResult { kind, started_us: at.now_us, rate: 1.0, asked: 1_000, delivered: 1_000 };
        let name: TaskName = task.manifest.name.clone();
        let row = PeriodRow {
            period: PeriodId(1),
            task: name.clone(),
            miner: judged.miner,
            uid,
            announced: None,
            capacity: CAPACITY,
            tally: judged.tally,
            score: period_score(&judged.tally, CAPACITY),
            windows: vec![window(WindowKind::Secret), window(WindowKind::Secret), window(WindowKind::Beacon)],
            started_us: at.now_us.saturating_sub(HOUR_US),
            ended_us: at.now_us,
        };
        MinerTaskInput {
            miner: judged.miner,
            uid,
            task: name,
            capacity: CAPACITY,
            expected_asked: 100.0,
            speed: task.manifest.speed,
            honesty: pi,
            rows: vec![row],
            samples: judged.samples.clone(),
            other_samples: Vec::new(),
        }
    }
}

fn live(tasks: &Tasks, task: Task) -> &Arc<LiveTask> {
    &tasks.by_name[&TaskName::new(task.name()).unwrap()]
}

/// Units that the bytes claim. A plugin that fails on them has judged an honest miner's before, so the bytes are to
/// blame: nothing else would be booked as the miner's failure.
async fn count(plugin: &Arc<Plugin>, request: &Request, exchange: &Exchange) -> Option<u64> {
    let (plugin, request, exchange) = (Arc::clone(plugin), request.clone(), exchange.clone());
    let counted = tokio::task::spawn_blocking(move || plugin.count(&request, &exchange)).await.unwrap();
    counted.unwrap_or_else(|e| {
        assert!(e.is_guest_fault(), "{e}");
        None
    })
}

struct Judged {
    kind: &'static Kind,
    miner: Hotkey,
    tally: Tally,
    samples: Vec<QualitySample>,
    failure: Option<Failure>,
}

impl Judged {
    /// What was held against it first.
    fn words(&self) -> String {
        let said = self.samples.iter().find_map(|s| match &s.judgement {
            Judgement::Violation(why) => Some(why.clone()),
            Judgement::Inconclusive(why) => Some(format!("inconclusive: {why}")),
            Judgement::Scored => None,
        });
        let worst = || {
            let worst = self.samples.iter().min_by(|a, b| a.quality.total_cmp(&b.quality))?;
            let of = ["margin.mean", "z", "epsilon.mean"];
            let (code, x) = worst.reasons.iter().find(|(code, _)| of.contains(&code.as_str()))?;
            Some(format!("{code} {x:.5}"))
        };
        let failed = || {
            self.failure.map(|f| format!("{} of {} {}", self.tally.failed, self.tally.total(), f.as_str()))
        };
        failed().or(said).or_else(worst).unwrap_or_default().chars().take(72).collect()
    }
}

fn line(judged: &Judged, s: &Standing, ratio: f64) -> String {
    format!(
        "{:<17} {:>7.3} {:>6.3} {:>8.2e} {:>11.3} {:>6.3}  {}",
        judged.kind.name,
        s.quality.plain_mean,
        s.speed.factor,
        s.honesty,
        s.reliability.mean,
        ratio,
        judged.words()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cheat_ends_with_a_fifth_of_an_equal_honest_miners_volume_at_most() {
    assert!(KINDS.len() >= 30);
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::set(folder.path()).await;

    let mut seats: Vec<Seat> = Vec::new();
    for (kind, n) in KINDS.iter().zip(1..) {
        let honest = seats.first().map(|s| s.target.addr).filter(|_| kind.name == "relay");
        seats.push(Seat::take(kind, n, stage.oracle, honest));
    }
    // A few at a time: more would wait for each other, and speed would be a lottery.
    futures_util::stream::iter(&seats).for_each_concurrent(4, |seat| stage.rehearse(seat)).await;
    let asked = futures_util::stream::iter(&seats).map(|seat| stage.ask(seat)).buffered(4);
    let exchanges: Vec<Vec<Exchange>> = asked.collect().await;

    // Honest ones first and alone: on their exchanges the plugins prove that they work.
    let mut todo = seats.iter().zip(exchanges);
    let mut honest = BTreeMap::new();
    for (seat, exchanges) in todo.by_ref().take(2) {
        assert_eq!(seat.kind.name, seat.kind.task.honest());
        honest.insert(seat.kind.task, stage.judge(seat, exchanges).await);
    }
    let judged = futures_util::stream::iter(todo).map(|(seat, of)| stage.judge(seat, of)).buffered(2);
    let cheats: Vec<Judged> = judged.collect().await;
    drop(seats);

    let head = ["kind", "quality", "speed", "honesty", "reliability", "ratio"];
    let mut table = vec![format!(
        "{:<17} {:>7} {:>6} {:>8} {:>11} {:>6}",
        head[0], head[1], head[2], head[3], head[4], head[5]
    )];
    for of in honest.values() {
        let (standing, _) = stage.settle(of, of);
        assert!(standing.effective_volume > 0.0, "{}", line(of, &standing, 1.0));
        assert!(standing.quality.plain_mean > 0.99 && standing.honesty > 0.9, "{}", line(of, &standing, 1.0));
        table.push(line(of, &standing, 1.0));
    }
    let mut broken = Vec::new();
    for cheat in &cheats {
        let (baseline, standing) = stage.settle(&honest[&cheat.kind.task], cheat);
        let ratio = standing.effective_volume / baseline.effective_volume;
        table.push(line(cheat, &standing, ratio));
        let why = CANNOT_BE_TOLD_APART.iter().find(|(kind, _)| *kind == cheat.kind.name);
        match why {
            Some((_, why)) if ratio > MOST => table.push(format!("{:17} not told apart: {why}", "")),
            Some(_) => table.push(format!("{:17} told apart after all", "")),
            None => {}
        }
        if ratio > why.map_or(MOST, |_| NO_GAIN) {
            broken.push(format!("{} ({}) has {ratio:.3}", cheat.kind.name, cheat.kind.what));
        }
    }
    println!("{}", table.join("\n"));
    let unknown = |kind: &str| KINDS.iter().all(|k| k.name != kind);
    assert!(!CANNOT_BE_TOLD_APART.iter().any(|(kind, _)| unknown(kind)), "a kind that is not in the zoo");
    assert!(broken.is_empty(), "{}\n{}", broken.join("\n"), table.join("\n"));
}
