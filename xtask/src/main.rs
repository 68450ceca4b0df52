//! `cargo xtask`: what a machine needs before `cargo` can do the rest.
//!
//! ```text
//! cargo xtask demo     set up what is missing, then run a small subnet on this machine
//! cargo xtask test     set up what is missing, then run every test
//! ```
//!
//! It fetches only through the clients that the machine's owner has configured (pip, cargo, rustup, apt) and writes
//! only to one folder outside the clone ([`cache`]). It is not a build system: nothing here knows how a crate is
//! compiled, and what it makes is found by path alone, so anybody may make it in another way.
//!
//! Exit codes: 0 good; 1 tests or lints failed; 2 something is missing or wrong, and one line says what to do.

mod cache;
mod checks;
mod child;
mod links;
mod progress;
mod stamp;
mod steps;
mod tally;
mod wit;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::checks::Lint;
use crate::steps::{Site, Step, setup};

/// Sets up, runs and checks nineteen
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Fetch and build what is missing (demo, test and bench do this by themselves)
    Setup {
        /// Take the inference library with CUDA and TensorRT, too
        #[arg(long)]
        gpu: bool,
        /// One step, and those that it needs
        #[arg(long, value_name = "STEP")]
        only: Option<Step>,
    },
    /// Run a small subnet on this machine and print who earned what
    Demo {
        /// Passed on to `nineteen demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run every test
    Test {
        /// Only tests with this in their name
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
    },
    /// Measure, side by side with what it is measured against; `verification` alone takes half an hour, `images` a quarter
    Bench {
        /// Only benches with this in their name
        name: Option<String>,
        /// Passed on to the bench, behind `--`
        #[arg(last = true, value_name = "ARGUMENT", requires = "name")]
        arguments: Vec<String>,
    },
    /// Kill a validator again and again over a run with real miners, and audit its books
    Soak {
        /// For how long
        #[arg(long, default_value_t = 5)]
        minutes: u64,
        /// Moments of the kills follow from it; printed at the end
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Feed the sandbox mutants of hostile components, and keep what is new
    Fuzz {
        /// For how long
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// Mutants follow from it
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Check formatting, lints and dependencies
    Lint {
        /// One of them
        #[arg(long, value_name = "LINT")]
        only: Option<Lint>,
    },
    /// Build the book and check its links
    Book,
    /// Run everything that must pass before a change is taken
    Ci,
    /// Delete what was fetched and built outside the clone
    CleanCache {
        /// Compiled crates in the cache, too
        #[arg(long)]
        all: bool,
    },
}

/// How a command ended that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All is well.
    Good,
    /// Tests or lints failed, and have said so.
    Failed,
}

/// The cargo that runs us, or the one on `PATH`.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // `cargo run` describes xtask to its child; a grandchild must not take that for itself.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH");
    command
}

fn run(command: Commands) -> Result<Ending> {
    let site = Site::open()?;
    match command {
        Commands::Setup { gpu, only } => setup(&site, gpu, only).map(|()| Ending::Good),
        Commands::Demo { arguments } => {
            setup(&site, false, None)?;
            checks::demo(&site, &arguments)
        }
        Commands::Test { filter } => {
            setup(&site, false, None)?;
            setup(&site, false, Some(Step::Registry))?;
            setup(&site, false, Some(Step::Author))?;
            setup(&site, false, Some(Step::Example))?;
            checks::test(&site, filter.as_deref())
        }
        Commands::Bench { name, arguments } => {
            setup(&site, false, None)?;
            checks::bench(&site, name.as_deref(), &arguments)
        }
        Commands::Soak { minutes, seed } => {
            setup(&site, false, None)?;
            checks::soak(&site, minutes, seed)
        }
        Commands::Fuzz { minutes, seed } => checks::fuzz(&site, minutes, seed),
        Commands::Lint { only } => checks::lint(&site, only),
        Commands::Book => {
            let folder = checks::book(&site)?;
            eprintln!("book: {}", folder.join("index.html").display());
            Ok(Ending::Good)
        }
        Commands::Ci => checks::ci(&site),
        Commands::CleanCache { all } => {
            let lock = site.cache.lock()?;
            let gone: Vec<PathBuf> = site.cache.clean(&lock, all)?;
            for path in &gone {
                eprintln!("deleted {}", path.display());
            }
            if gone.is_empty() {
                eprintln!("there was nothing in {}", site.cache.root().display());
            }
            Ok(Ending::Good)
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(Ending::Good) => ExitCode::SUCCESS,
        Ok(Ending::Failed) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_demo_belongs_to_the_demo() {
        let line = ["cargo xtask", "demo", "--json", "out.json", "--periods", "3"];
        let Commands::Demo { arguments } = Arguments::parse_from(line).command else {
            panic!("not the demo")
        };
        assert_eq!(arguments, ["--json", "out.json", "--periods", "3"]);
    }
}
