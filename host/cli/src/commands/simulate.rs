//! `nineteen simulate`.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use nineteen_domain::policy::Policy;
use nineteen_simulate::{Options, What};

use crate::commands::policy;
use crate::error::Failure;
use crate::print;

/// Attack a policy with models of miners on a simulated clock: the same planning and settling code, no network.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to find out.
    #[arg(long, value_enum, default_value_t = Study::Scale)]
    study: Study,
    /// Policy; as often as needed. Default: `default`, and both for strategies and agreement.
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// Policy from a TOML file; as often as needed. `nineteen policy` prints one to start from.
    #[arg(long, value_name = "FILE")]
    policy_file: Vec<PathBuf>,
    /// Miners of the subnet.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=4096))]
    miners: u32,
    /// Tasks of the subnet.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    tasks: u32,
    /// Simulated days.
    #[arg(long, default_value_t = 7.0)]
    days: f64,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 19)]
    seed: u64,
    /// Repetitions with seeds of their own, for strategies.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    seeds: u32,
    /// Validators, for agreement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=64))]
    validators: u32,
    /// Strategies by name, separated by commas; all when absent.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    strategies: Option<Vec<String>>,
    /// Threads; all processors when absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Write a report with plots to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Study {
    /// A large subnet: who earns what, and what it costs to compute.
    Scale,
    /// Every strategy against honest play on the same hardware.
    Strategies,
    /// How alike several validators with different secrets judge.
    Agreement,
    /// All three.
    All,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut policies = args.policy.iter().map(|name| policy::named(name)).collect::<Result<Vec<_>, _>>()?;
    for file in &args.policy_file {
        policies.push(policy::from_file(file)?);
    }
    if policies.is_empty() {
        let all: &[&str] = if args.study == Study::Scale { &["default"] } else { &Policy::NAMES };
        policies = all.iter().map(|name| policy::named(name)).collect::<Result<_, _>>()?;
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = policies.iter().find(|p| !names.insert(&p.name)) {
        return Err(Failure::input(format!(
            "two policies are called '{}': change the name in a file",
            twice.name
        )));
    }
    if !(args.days > 0.0 && args.days <= 365.0) {
        return Err(Failure::input("--days: use a number above 0, at most 365"));
    }
    if let Some(file) = &args.html {
        // Said before the work, not after.
        std::fs::write(file, b"").map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
    }
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let options = Options {
        miners: args.miners,
        tasks: args.tasks,
        days: args.days,
        policies,
        seed: args.seed,
        seeds: args.seeds,
        validators: args.validators,
        threads: threads.max(1),
        what: match args.study {
            Study::Scale => What::Scale,
            Study::Strategies => What::Strategies { only: args.strategies.clone() },
            Study::Agreement => What::Agreement,
            Study::All => What::All,
        },
        progress: Some(Arc::new(progress)),
    };
    let report = nineteen_simulate::run(&options).map_err(Failure::input)?;
    progress_done();
    if let Some(file) = &args.html {
        std::fs::write(file, report.html())
            .map_err(|e| Failure::running(format!("{}: {e}", file.display())))?;
    }
    if args.json { print::json(&report) } else { print::out(&report.table()) }
}

/// One line on a terminal, nothing elsewhere.
fn progress(doing: &str, part: f64) {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        let _gone = write!(err, "\r\x1b[K{:3.0} %  {doing}", part * 100.0).and_then(|()| err.flush());
    }
}

fn progress_done() {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        let _gone = write!(err, "\r\x1b[K").and_then(|()| err.flush());
    }
}
