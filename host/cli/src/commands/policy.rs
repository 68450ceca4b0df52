//! `nineteen policy`, and the policies that other commands are told.

use std::path::Path;

use nineteen_domain::policy::Policy;

use crate::error::Failure;
use crate::print;

/// Print a policy as TOML: what a task set writes out, and `--policy-file` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Policy that ships: `default` or `sn19-2025-01`.
    #[arg(default_value = "default")]
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let policy = named(&args.name)?;
    if args.json {
        return print::json(&policy);
    }
    let text = toml::to_string(&policy).map_err(Failure::running)?;
    print::out(text.trim_end())
}

/// A policy that ships.
pub(crate) fn named(name: &str) -> Result<Policy, Failure> {
    let none = || format!("policy: '{name}' does not ship; use one of {}", Policy::NAMES.join(", "));
    Policy::named(name).ok_or_else(|| Failure::input(none()))
}

/// A policy that is written out in a file.
pub(crate) fn from_file(file: &Path) -> Result<Policy, Failure> {
    let refuse = |why: String| Failure::input(format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| refuse(format!("cannot be read: {e}")))?;
    toml::from_str(&text).map_err(|e| {
        let line = e.span().map_or(1, |s| text.get(..s.start).map_or(1, |t| t.matches('\n').count() + 1));
        refuse(format!("line {line}: {} (`nineteen policy` prints one to start from)", e.message()))
    })
}
