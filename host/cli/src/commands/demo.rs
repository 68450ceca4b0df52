//! `nineteen demo`, and the hidden command of its miners.

use std::path::PathBuf;

use nineteen_demo::{CAST, Character, Options, Outcome};
use nineteen_domain::policy::Policy;
use nineteen_validator::replay::Replay;
use nineteen_validator::report::{MinerScores, Scores, TaskScores};

use crate::commands::miner;
use crate::config::{Config, default_cache};
use crate::error::Failure;
use crate::print;

/// Run a small subnet on this machine and print who earned what.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Length of a scoring period in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(20..=3600))]
    period_s: u64,
    /// Periods to play.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1000))]
    periods: u64,
    /// Policy that the subnet is settled under; the other one is shown beside it.
    #[arg(long, value_name = "NAME", default_value = "default")]
    policy: String,
    /// Write the result as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder to play in; kept afterwards. Default: a new one in the cache.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Task set to play with.
    #[arg(long, value_name = "FILE", default_value = "tasks/taskset.toml")]
    taskset: PathBuf,
}

/// One miner of the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct MinerArgs {
    /// What it does instead of the work.
    #[arg(long)]
    character: Character,
}

pub(crate) async fn miner(args: MinerArgs, config: Config) -> Result<(), Failure> {
    miner::serve(config, Some(args.character)).await
}

pub(crate) async fn run(args: Args, config_given: bool) -> Result<(), Failure> {
    if config_given {
        return Err(Failure::input("the demo writes its own configuration: leave --config out"));
    }
    if !args.taskset.is_file() {
        return Err(Failure::input(format!(
            "{}: no such task set; run the demo in the repository, or name one with --taskset",
            args.taskset.display()
        )));
    }
    let policy = Policy::named(&args.policy).ok_or_else(|| {
        Failure::input(format!(
            "--policy: '{}' does not ship; use one of {}",
            args.policy,
            Policy::NAMES.join(", ")
        ))
    })?;
    let other = Policy::NAMES.into_iter().find(|n| *n != policy.name).and_then(Policy::named);
    let program = std::env::current_exe().map_err(|e| Failure::running(format!("where am I? {e}")))?;
    let cache = default_cache();
    let dir = match args.dir {
        Some(dir) => fresh(dir)?,
        None => fresh(cache.join("demo").join(std::process::id().to_string()))?,
    };
    if let Some(file) = &args.json {
        // Said before four minutes of play, not after.
        std::fs::write(file, b"{}\n").map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
    }
    let options = Options {
        program,
        cache,
        taskset: args.taskset,
        dir,
        beside: other.unwrap_or_else(|| policy.clone()),
        policy,
        period_s: args.period_s,
        periods: args.periods,
        quiet: false,
    };
    let outcome = tokio::select! {
        outcome = nineteen_demo::play(&options) => outcome.map_err(|e| Failure::running(format!("{e:#}")))?,
        asked = super::validator::asked_to_stop() => {
            asked?;
            return Err(Failure::running("stopped before the end"));
        }
    };
    if let Some(file) = &args.json {
        let text =
            serde_json::to_string_pretty(&Written { scores: &outcome.scores, beside: &outcome.beside })
                .map_err(Failure::running)?;
        std::fs::write(file, text + "\n")
            .map_err(|e| Failure::running(format!("{}: {e}", file.display())))?;
    }
    show(&outcome)
}

/// What `--json` writes.
#[derive(serde::Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    scores: &'a Scores,
    /// The last period under the other policy.
    beside: &'a Replay,
}

fn fresh(dir: PathBuf) -> Result<PathBuf, Failure> {
    let taken = std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some());
    if taken {
        return Err(Failure::input(format!("{}: not empty; name a new folder with --dir", dir.display())));
    }
    std::fs::create_dir_all(&dir).map_err(|e| Failure::input(format!("{}: {e}", dir.display())))?;
    std::path::absolute(&dir).map_err(|e| Failure::input(format!("{}: {e}", dir.display())))
}

fn show(outcome: &Outcome) -> Result<(), Failure> {
    let scores = &outcome.scores;
    let head = [
        "miner",
        "uid",
        "task",
        "capacity",
        "ok/429/failed",
        "L",
        "P",
        "quality",
        "Q",
        "speed",
        "E",
        "share",
        "weight",
        "u16",
        "beside",
    ];
    let mut table = print::table(&head);
    for miner in &scores.miners {
        let mut first = true;
        for (task, t) in &miner.tasks {
            let other = outcome.beside.miners.iter().find(|m| m.hotkey == miner.hotkey);
            table.add_row(row(miner, task.as_str(), t, first, other.map_or(0.0, |m| m.replayed)));
            first = false;
        }
    }
    print::out(&format!(
        "\nPolicy {}, {} periods settled ('beside': the weight that the same answers earn under {}):\n\n{table}\n",
        scores.policy,
        scores.period.0 + 1,
        outcome.beside.policy
    ))?;
    for role in &CAST {
        print::out(&format!("  {:<12} {}", role.kind, role.about))?;
    }
    print::out(&format!("\nPictures, the checker's beside them: {}", outcome.gallery.display()))?;
    let config = outcome.config.display();
    let task = scores.tasks.first().map_or("", |t| t.name.as_str());
    print::out(&format!(
        "\nWhy? Ask for any miner and task:\n  nineteen explain --config {config} --miner 4 --task {task}\n  \
         nineteen scores  --config {config}\n  nineteen weights --config {config} --json\n\
         (from a checkout: cargo run -q -p nineteen-cli -- explain …; the book begins at docs/SUMMARY.md)"
    ))
}

fn row(miner: &MinerScores, task: &str, t: &TaskScores, first: bool, other: f64) -> Vec<String> {
    let once = |text: String| if first { text } else { String::new() };
    vec![
        once(miner.kind.clone().unwrap_or_else(|| miner.hotkey.to_string())),
        once(miner.uid.to_string()),
        task.to_owned(),
        t.capacity.to_string(),
        format!("{}/{}/{}", t.probes.answered, t.probes.rate_limited, t.probes.failed),
        print::number(t.credit),
        print::number(t.reliability),
        print::number(t.quality_mean),
        print::number(t.quality),
        print::maybe(t.speed),
        print::number(t.effective_volume),
        print::number(t.share),
        once(print::number(miner.weight)),
        once(miner.weight_u16.to_string()),
        once(print::number(other)),
    ]
}
