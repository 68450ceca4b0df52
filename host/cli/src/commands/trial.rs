//! `nineteen task test`: a task on a live miner, or on what was recorded of one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use nineteen_domain::ledger::ProbeClass;
use nineteen_domain::meet::{BoxFuture, Checker};
use nineteen_domain::{Check, Evidence, Hotkey, MasterSeed, Outcome};
use nineteen_sandbox::vectors::{self, Expected, Grade, Vector, Vectors, said};
use nineteen_validator::registry;
use nineteen_wire::client::{Client, ClientConfig, Target};
use nineteen_wire::keys;
use serde::Serialize;

use crate::commands::author::task_of;
use crate::commands::validator::{executors, runtime, sandbox};
use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// How far a quality may move between recording and playing again, on other executors.
const SLACK: f64 = 0.05;

#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// The project, or the folder of a task.
    #[arg(default_value = ".")]
    task: PathBuf,
    /// A live miner: literal address and port. Requests are those of a validator, signed with the configured hotkey.
    #[arg(
        long,
        value_name = "IP:PORT",
        requires = "hotkey",
        conflicts_with = "recorded",
        required_unless_present = "recorded"
    )]
    miner: Option<SocketAddr>,
    /// The miner's hotkey (SS58).
    #[arg(long, value_name = "SS58")]
    hotkey: Option<Hotkey>,
    /// Vectors to play, as `--record` writes them.
    #[arg(long, value_name = "FILE")]
    recorded: Option<PathBuf>,
    /// Requests to the miner.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    requests: u32,
    /// Write the judged exchanges with their evidence as vectors of grade `perfect`.
    #[arg(long, value_name = "FILE", conflicts_with = "recorded")]
    record: Option<PathBuf>,
    /// Another seed asks for other things.
    #[arg(long, default_value_t = 19)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One exchange.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    class: String,
    ms: u64,
    counted: Option<u64>,
    units: Option<u64>,
    quality: Option<f64>,
    outcome: String,
    rounds: u32,
    ok: bool,
}

/// For a task that asks for nothing, and one whose models are not here.
struct Nobody;

impl Checker for Nobody {
    fn check(&self, check: Check) -> BoxFuture<'_, Evidence> {
        Box::pin(async move { Evidence::Unavailable(format!("{} is not served here", check.kind)) })
    }

    fn kinds(&self) -> Vec<(String, Vec<String>)> {
        Vec::new()
    }
}

pub(crate) async fn run(args: Test, config: Config) -> Result<(), Failure> {
    let folder = task_of(&args.task)?;
    let (sandbox, secret) =
        (sandbox(&config)?, MasterSeed::from_bytes([0; 32]).derive("task test", &args.seed.to_string()));
    let secret = MasterSeed::from_bytes(*secret.as_bytes());
    let live = registry::load_task(&folder, &config.paths.components(), &sandbox, &secret)
        .await
        .map_err(Failure::input)?;
    let rows = match (&args.recorded, args.miner, args.hotkey) {
        (Some(file), ..) => {
            let bytes =
                std::fs::read(file).map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
            let vectors =
                Vectors::read(&bytes).map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
            recorded(&live, vectors).await?
        }
        (None, Some(addr), Some(hotkey)) => {
            asked(&args, &live, Target { addr, hotkey }, &secret, &config).await?
        }
        _ => return Err(Failure::input("--miner needs --hotkey, the miner's own")),
    };
    if args.json {
        print::json(&rows)?;
    } else {
        let mut table =
            print::table(&["exchange", "class", "ms", "counted", "units", "quality", "rounds", "outcome"]);
        for r in &rows {
            let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
            table.add_row(vec![
                r.name.clone(),
                r.class.clone(),
                r.ms.to_string(),
                number(r.counted),
                number(r.units),
                print::maybe(r.quality),
                r.rounds.to_string(),
                r.outcome.chars().take(80).collect(),
            ]);
        }
        print::out(&table.to_string())?;
    }
    let wrong = rows.iter().filter(|r| !r.ok).count();
    if wrong == 0 {
        Ok(())
    } else {
        Err(Failure::running(format!("{wrong} of {} are not as they should be", rows.len())))
    }
}

async fn recorded(live: &registry::LiveTask, vectors: Vectors) -> Result<Vec<Row>, Failure> {
    let plugin = Arc::clone(&live.plugin);
    let play = move || {
        vectors
            .all()
            .iter()
            .map(|v| {
                let played = v.play(&plugin);
                let scored = match &played {
                    Ok(Outcome::Scored(s)) => Some((s.quality, s.units)),
                    _ => None,
                };
                Row {
                    name: v.name.clone(),
                    class: "recorded".into(),
                    ms: v.exchange.ended_us / 1_000,
                    counted: plugin.count(&v.request, &v.exchange).ok().flatten(),
                    units: scored.map(|s| s.1),
                    quality: scored.map(|s| s.0),
                    ok: played.is_ok(),
                    outcome: played.map_or_else(|e| e.to_string(), |o| said(&o)),
                    rounds: 1,
                }
            })
            .collect()
    };
    tokio::task::spawn_blocking(play).await.map_err(Failure::running)
}

async fn asked(
    args: &Test,
    live: &registry::LiveTask,
    target: Target,
    secret: &MasterSeed,
    config: &Config,
) -> Result<Vec<Row>, Failure> {
    let keypair = keys::read_keyfile(&config.identity.hotkey_file).map_err(Failure::input)?;
    let client = Client::new(ClientConfig { allow_private: true, ..ClientConfig::new(Arc::new(keypair)) });
    let models: Vec<_> = live.manifest.grants.values().flatten().cloned().collect();
    let started =
        if models.is_empty() { None } else { Some(executors(config, runtime(config)?, models).await?) };
    let checker = started.as_ref().map_or_else(|| Arc::new(Nobody) as Arc<dyn Checker>, |e| e.checker());
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    for n in 0..args.requests {
        let (plugin, seed) = (Arc::clone(&live.plugin), secret.derive("request", &n.to_string()));
        let made =
            tokio::task::spawn_blocking(move || plugin.synthesize(&seed)).await.map_err(Failure::running)?;
        let request = made.map_err(Failure::running)?.request;
        let exchange = client.post(&target, &request, &live.manifest.limits, &live.manifest.headers).await;
        let class = ProbeClass::of(&exchange);
        let counted = live.plugin.count(&request, &exchange).map_err(Failure::running)?;
        let judged = live.plugin.judge(request.clone(), exchange.clone(), Arc::clone(&checker)).await;
        let scored = match &judged.result {
            Ok(Outcome::Scored(v)) => Some((v.quality, v.units)),
            _ => None,
        };
        if let (Some((quality, units)), true) = (scored, args.record.is_some()) {
            let vector = Vector {
                name: format!("recorded {n}"),
                grade: Grade::Perfect,
                request: request.clone(),
                exchange: exchange.clone(),
                evidence: judged.transcript.clone(),
                expected: Expected::Scored {
                    quality: ((quality - SLACK).max(0.0), (quality + SLACK).min(1.0)),
                    units: Some(units),
                },
            };
            lines.push(vector.line().map_err(Failure::running)?);
        }
        rows.push(Row {
            name: n.to_string(),
            class: format!("{class:?}").to_lowercase(),
            ms: exchange.ended_us / 1_000,
            counted,
            units: scored.map(|s| s.1),
            quality: scored.map(|s| s.0),
            ok: class == ProbeClass::Answered && scored.is_some(),
            outcome: judged.result.map_or_else(|e| e.to_string(), |o| said(&o)),
            rounds: judged.rounds,
        });
    }
    if let Some(executors) = started {
        executors.stop().await;
    }
    if let Some(file) = &args.record {
        let most = lines.len().min(vectors::MOST_VECTORS);
        let text = lines.get(..most).unwrap_or_default().join("\n") + "\n";
        std::fs::write(file, text).map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
    }
    Ok(rows)
}
