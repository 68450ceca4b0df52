//! `nineteen`: parse, resolve the configuration, wire the rooms together, print.
//!
//! Nothing here is worth testing by itself; what is lives in the library crates. Exit codes: 0 done,
//! 1 went wrong while running, 2 something given to it is wrong (one line on standard error says what to do).

mod commands;
mod config;
mod error;
mod logging;
mod print;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    demo, doctor, gallery, miner, policy, receipt, replay, reports, simulate, subnet, task, tasks, validator,
};
use crate::config::Config;
use crate::error::Failure;

/// A validator for decentralised AI inference: tasks are WebAssembly plugins, checks run on ONNX Runtime.
#[derive(Debug, Parser)]
#[command(name = "nineteen", version, max_term_width = 100)]
struct Cli {
    /// Configuration file; default `nineteen.toml` if there is one. Variables `NINETEEN__SECTION__KEY` override it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is logged, e.g. `info`, `warn,nineteen_wire=debug`. Logs go to standard error.
    #[arg(long, global = true, value_name = "FILTER", env = "NINETEEN_LOG")]
    log: Option<String>,
    /// Log as JSON lines.
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the validator until it is asked to stop.
    Validator(validator::Args),
    /// Run the reference miner, or check somebody's miner.
    Miner(miner::Args),
    /// Run a small subnet on this machine and print who earned what.
    Demo(demo::Args),
    /// Look whether everything the validator needs is here and works.
    Doctor(doctor::Args),
    /// List the tasks, or change them while the validator runs.
    Tasks(tasks::Args),
    /// Work on one task by itself: calibrate it.
    Task(task::Args),
    /// Own a subnet: sign and publish task sets. Validate one: see what its owner proposes, hold, release.
    Subnet(subnet::Args),
    /// Show every miner's scores in the last settled period.
    Scores(reports::JsonArgs),
    /// Show why a miner earns what it earns in a task.
    Explain(reports::ExplainArgs),
    /// Show the last weights.
    Weights(reports::JsonArgs),
    /// Show pictures that were judged: what was asked, the miner's, the checker's, and the verdict.
    Gallery(gallery::Args),
    /// Settle recorded periods again under another policy or other weights of tasks; never writes.
    Replay(replay::Args),
    /// Write down verdicts with all that they came from, and have them again anywhere.
    Receipt(receipt::Args),
    /// Print a policy as TOML.
    Policy(policy::Args),
    /// Attack a policy with models of miners on a simulated clock.
    Simulate(simulate::Args),
    /// Compile a component from standard input to standard output. Not for other use.
    #[command(hide = true, name = nineteen_sandbox::apart::ARGUMENT)]
    CompileComponent {
        /// Calls at a time of the sandbox that it is for.
        calls: u32,
    },
    /// One miner of the demo. Not for other use.
    #[command(hide = true)]
    DemoMiner(demo::MinerArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("nineteen: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let long_running =
        matches!(cli.command, Command::Validator(_) | Command::Miner(_) | Command::DemoMiner(_));
    logging::start(cli.log.as_deref(), cli.log_json, long_running)?;
    match &cli.command {
        Command::Simulate(args) => return simulate::run(args),
        Command::Policy(args) => return policy::run(args),
        Command::CompileComponent { calls } => {
            return nineteen_sandbox::apart::compile(
                *calls,
                std::io::stdin().lock(),
                std::io::stdout().lock(),
            )
            .map_err(Failure::running);
        }
        _ => {}
    }
    let config = || Config::read(cli.config.as_deref());
    let followed = || config().and_then(subnet::as_followed);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::running(format!("the async runtime does not start: {e}")))?;
    runtime.block_on(async {
        match cli.command {
            Command::Validator(args) => validator::run(args, config()?).await,
            Command::Miner(args) => miner::run(args, config).await,
            Command::Demo(args) => demo::run(args, cli.config.is_some()).await,
            Command::Doctor(args) => doctor::run(args, followed()?).await,
            Command::Task(args) => task::run(args, config()?).await,
            Command::Tasks(args) => tasks::run(args, followed()?).await,
            Command::Subnet(args) => subnet::run(args, config()?).await,
            Command::Scores(args) => reports::scores(args, followed()?).await,
            Command::Explain(args) => reports::explain(args, followed()?).await,
            Command::Weights(args) => reports::weights(args, followed()?).await,
            Command::Gallery(args) => gallery::run(args, followed()?).await,
            Command::Replay(args) => replay::run(args, followed()?).await,
            Command::Receipt(args) => receipt::run(args, followed()?).await,
            Command::Simulate(args) => simulate::run(&args),
            Command::Policy(args) => policy::run(&args),
            // Done above, before there is a runtime.
            Command::CompileComponent { .. } => Ok(()),
            Command::DemoMiner(args) => demo::miner(args, config()?).await,
        }
    })
}
