//! `nineteen task`: work on one task by itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nineteen_calibrate::{
    Observed, Setting, Task, evaluate, fit, golden, html, observe_pictures, observe_rows, observe_text,
    pictures,
};
use nineteen_domain::calibration::{self, CalibratedModel};
use nineteen_domain::{Calibration, MasterSeed, ModelName};
use nineteen_miner::Operation;
use nineteen_validator::registry::{self, LiveTask};

use crate::commands::validator::{runtime, sandbox, served_by_reference};
use crate::commands::{author, trial};
use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// Characters of a chat or a text: attention costs the square of it.
const MOST_BYTES: usize = 700;

/// Work on one task by itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Begin a task: a project that builds and passes its check as it is.
    New(author::New),
    /// Build a project: its component goes into its task's folder.
    Build(author::Build),
    /// Try whether a task keeps the contract: every promise on the component itself.
    Check(author::Check),
    /// Try a task on a live miner, or on recorded exchanges.
    Test(trial::Test),
    /// Measure fuel, time and memory of a task's calls, and what its budget leaves.
    Bench(author::Bench),
    /// Put everything of a task into one folder, with its digest.
    Pack(author::Pack),
    /// Build a project whenever it changes, and hand it to the validator that runs.
    Watch(author::Watch),
    /// Measure how much noise honest miners make in a task and how much every suspect makes.
    ///
    /// Runs the task's model under honest conditions (precisions, threads, batches) and as every suspect (other weights,
    /// samplers, prompts), replays all answers as a validator does, and writes `calibration.json` into the task's folder,
    /// with a report beside the observations where asked. Takes about a quarter of an hour on two cores for a model of
    /// 135 million parameters.
    Calibrate(Calibrate),
    /// Publish a task's folder, with its component, to a container registry.
    Publish(crate::commands::publish::Args),
    /// Pull a task from a container registry; what was pulled stays in the cache.
    Pull(crate::commands::pull::Args),
}

#[derive(Debug, clap::Args)]
struct Calibrate {
    /// The task: its name in the task set, or its folder.
    task: String,
    /// Exchanges a condition; half of them, of other requests, only measure what the tables are worth.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u32).range(8..=4096))]
    exchanges: u32,
    /// The most tokens, or rows, of one exchange.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u32).range(4..=1024))]
    units: u32,
    /// Requests whose body is longer are passed over: they take longer and say no more about the model. Default: 700, and
    /// no such limit for pictures.
    #[arg(long)]
    most_bytes: Option<usize>,
    /// Another seed makes other requests.
    #[arg(long, default_value_t = 19)]
    seed: u64,
    /// Where the calibration is written; default: `calibration.json` in the task's folder.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a report with the tables and what they separate.
    #[arg(long, value_name = "HTML")]
    report: Option<PathBuf>,
    /// Write every observation as JSON lines.
    #[arg(long, value_name = "FILE")]
    observations: Option<PathBuf>,
    /// Make the tables from observations that were written before, instead of running anything but the golden check.
    #[arg(long, value_name = "FILE", conflicts_with = "observations")]
    from: Option<PathBuf>,
    /// Print the separation as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, config: Config) -> Result<(), Failure> {
    match args.command {
        Command::New(args) => author::new(&args),
        Command::Build(args) => author::build(&args, &config),
        Command::Check(args) => author::check(&args, &config).await,
        Command::Test(args) => trial::run(args, config).await,
        Command::Bench(args) => author::bench(&args, &config).await,
        Command::Pack(args) => author::pack(&args, &config),
        Command::Watch(args) => author::watch(&args, &config).await,
        Command::Calibrate(args) => calibrate(args, config).await,
        Command::Publish(args) => crate::commands::publish::run(args, config).await,
        Command::Pull(args) => crate::commands::pull::run(args, config).await,
    }
}

async fn calibrate(args: Calibrate, config: Config) -> Result<(), Failure> {
    let folder = folder_of(&args.task, &config)?;
    let out = args.out.clone().unwrap_or_else(|| folder.join(calibration::FILE));
    let secret = MasterSeed::from_bytes([0; 32]);
    let sandbox = sandbox(&config)?;
    let live = registry::load_uncalibrated(&folder, &config.paths.components(), &sandbox, &secret)
        .await
        .map_err(Failure::input)?;
    let (kind, model) = granted(&live)?;
    let models_dir = config.paths.models();
    let (identity, precision) = nineteen_checking::identity(&models_dir, &model).map_err(Failure::input)?;
    let runtime = runtime(&config)?;
    let most_bytes =
        args.most_bytes.unwrap_or(if matches!(kind, Kind::Pictures) { usize::MAX } else { MOST_BYTES });
    let mut requests = Vec::new();
    for n in 0..args.exchanges.saturating_mul(20) {
        let seed = secret.derive("calibrate", &format!("{}/{n}", args.seed));
        let request = live.plugin.synthesize(&seed).map_err(Failure::running)?.request;
        if request.body.len() <= most_bytes && requests.len() < args.exchanges as usize {
            requests.push(request);
        }
    }
    if requests.len() < args.exchanges as usize {
        return Err(Failure::input(format!(
            "--most-bytes {most_bytes}: too few of the task's requests are as short; use a larger number"
        )));
    }
    let scratch = tempfile::Builder::new()
        .prefix("calibrate-")
        .tempdir_in(&config.paths.cache)
        .map_err(|e| Failure::input(format!("{}: {e}", config.paths.cache.display())))?;
    let made_with = BTreeMap::from([
        ("nineteen".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("onnxruntime".to_owned(), runtime.version().to_string()),
        (
            "provider".to_owned(),
            runtime.providers().iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        ),
    ]);
    let setting = Setting {
        task: Task { name: live.manifest.name.clone(), model: model.clone() },
        beside: beside(&live, &model),
        models_dir,
        scratch: scratch.path().to_owned(),
        runtime,
        requests,
        units: args.units,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        honest_only: false,
    };
    let begun = std::time::Instant::now();
    let mut tell = |what: String| eprintln!("{:>6.0} s  {what}", begun.elapsed().as_secs_f64());
    let observed = match (&args.from, kind) {
        (Some(file), _) => read_observations(file)?,
        (None, Kind::Text) => observe_text(&setting, &mut tell).await.map_err(Failure::input)?,
        (None, Kind::Rows) => observe_rows(&setting, &mut tell).await.map_err(Failure::input)?,
        (None, Kind::Pictures) => {
            let served = served_by_reference(&live.manifest).ok_or_else(|| {
                Failure::input(format!("task '{}': operation: no pictures", live.manifest.name))
            })?;
            let plugin = std::sync::Arc::clone(&live.plugin);
            let judge = move |request, exchange, checker| -> nineteen_domain::meet::BoxFuture<'static, _> {
                let plugin = std::sync::Arc::clone(&plugin);
                Box::pin(async move {
                    plugin.judge(request, exchange, checker).await.result.map_err(|e| e.to_string())
                })
            };
            let class = if served.operation == Operation::Avatars { "avatars" } else { "images" };
            observe_pictures(&setting, class, &served, &judge, &mut tell).await.map_err(Failure::input)?
        }
    };
    if let Some(file) = &args.observations {
        let lines: Result<Vec<String>, _> = observed.iter().map(serde_json::to_string).collect();
        let lines = lines.map_err(Failure::running)?.join("\n") + "\n";
        std::fs::write(file, lines).map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
    }
    // Even requests make the tables, odd ones say what they are worth.
    let (tables, mut held_out): (Vec<Observed>, Vec<Observed>) =
        observed.into_iter().partition(|o| o.exchange.is_multiple_of(2));
    let model = CalibratedModel { name: model, identity, precision };
    let mut made = fit(&setting.task.name, model, made_with, &tables);
    made.golden = Some(golden(&setting).await.map_err(Failure::input)?);
    made.validate().map_err(Failure::running)?;
    for class in made.classes.values() {
        if let Some(logistic) = &class.logistic {
            pictures::measure(logistic, &mut held_out);
        }
    }
    tell("evaluating on the other half".into());
    let worth = evaluate::evaluate(&made, &held_out, &[]);
    if let Some(file) = &args.report {
        let page = html(&made, &worth, "On requests that the tables were not made from");
        std::fs::write(file, page).map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
    }
    write_whole(&out, &made)?;
    if args.json {
        return print::json(&worth);
    }
    for (class, report) in &worth {
        let (streams, accused, (_, high)) = report.false_alarms();
        print::out(&format!(
            "{class}: {accused} of {streams} honest streams accused (at most {high:.5} with 95 % confidence)"
        ))?;
        for row in &report.rows {
            let verdict = row.units_to_decision.map_or("never".to_owned(), |u| u.to_string());
            print::out(&format!(
                "  {:<20} AUC by 64 {:.4}, by 512 {:.4}; units to a verdict {verdict}",
                row.suspect, row.ours.auc[1], row.ours.auc[3]
            ))?;
        }
    }
    print::out(&format!("written: {}", out.display()))
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Rows,
    Pictures,
}

/// What the task's checks are asked of beside the model that is calibrated.
fn beside(live: &LiveTask, model: &ModelName) -> Vec<ModelName> {
    let pictures = live.manifest.grants.contains_key("image.generate");
    let all = live.manifest.grants.values().flatten().filter(|m| pictures && *m != model);
    all.cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

fn read_observations(file: &Path) -> Result<Vec<Observed>, Failure> {
    let text =
        std::fs::read_to_string(file).map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
    let line = |(n, line): (usize, &str)| {
        let refuse = |e| format!("{}: line {}: {e}; use a file of --observations", file.display(), n + 1);
        serde_json::from_str(line).map_err(|e| Failure::input(refuse(e)))
    };
    text.lines().enumerate().map(line).collect()
}

/// What the task is granted says what it is judged by.
fn granted(live: &LiveTask) -> Result<(Kind, ModelName), Failure> {
    let kinds =
        [(Kind::Text, "text.replay"), (Kind::Rows, "embedding.embed"), (Kind::Pictures, "image.generate")];
    for (kind, name) in kinds {
        if let Some(model) = live.manifest.grants.get(name).and_then(|models| models.first()) {
            return Ok((kind, model.clone()));
        }
    }
    Err(Failure::input(format!(
        "task '{}': grants: none of text.replay, embedding.embed and image.generate, the checks that can be calibrated",
        live.manifest.name
    )))
}

fn folder_of(task: &str, config: &Config) -> Result<PathBuf, Failure> {
    let beside = config.paths.taskset.parent().unwrap_or(Path::new(".")).join(task);
    [PathBuf::from(task), beside.clone()].into_iter().find(|f| f.join("task.toml").is_file()).ok_or_else(
        || Failure::input(format!("task '{task}': no task.toml in {task} or {}", beside.display())),
    )
}

/// Whole or not at all.
fn write_whole(file: &Path, made: &Calibration) -> Result<(), Failure> {
    let refuse = |e: std::io::Error| Failure::input(format!("{}: {e}", file.display()));
    let text = serde_json::to_string_pretty(made).map_err(Failure::running)? + "\n";
    let folder = file.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::NamedTempFile::new_in(folder).map_err(refuse)?;
    std::fs::write(temporary.path(), text).map_err(refuse)?;
    temporary.persist(file).map_err(|e| refuse(e.error))?;
    Ok(())
}
