//! What is run on a machine that is set up: demo, tests, benches, lints, the book.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::child::{self, Failed};
use crate::progress::{Progress, seconds};
use crate::steps::{Site, contenders, tools};
use crate::tally::Tally;
use crate::{Ending, cargo};

/// How long fetching the advisories may take before they count as out of reach.
const ADVISORIES_LIMIT: Duration = Duration::from_secs(60);

/// One part of `cargo xtask lint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lint {
    /// Formatting
    Fmt,
    /// Clippy, warnings as errors
    Clippy,
    /// Licences, bans and sources of dependencies
    Deny,
}

/// Cargo in the workspace of the host, told where the cache is.
fn host(site: &Site) -> Command {
    let mut command = cargo();
    command.current_dir(&site.repo).env("NINETEEN_CACHE", site.cache.root());
    command
}

/// Cargo in the workspace of the plugins, for this machine and not for WebAssembly: their logic is ordinary Rust.
fn guest(site: &Site) -> Command {
    let mut command = host(site);
    command.current_dir(site.repo.join("plugins"));
    command.env("CARGO_TARGET_DIR", site.cache.path("plugins-target"));
    command
}

/// How a command of cargo's ended, as xtask's own end: cargo has said why.
fn ending(status: ExitStatus) -> Ending {
    if status.success() { Ending::Good } else { Ending::Failed }
}

/// Builds the `nineteen` binary. Features are those of the whole workspace, as in the tests: another choice of
/// features would compile wasmtime a second time.
fn build_nineteen(site: &Site) -> Result<Option<PathBuf>> {
    let mut command = host(site);
    command.args(["build", "--workspace", "--bin", "nineteen"]);
    if !child::openly(&mut command)?.success() {
        return Ok(None);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| site.repo.join("target"), PathBuf::from);
    let file = site.repo.join(target).join("debug").join(format!("nineteen{}", std::env::consts::EXE_SUFFIX));
    Ok(Some(file))
}

/// Runs the demo. On Unix xtask becomes it, so that signals and the exit code are the demo's own.
pub(crate) fn demo(site: &Site, arguments: &[String]) -> Result<Ending> {
    eprintln!(
        "demo: compiling what is not compiled yet (the first time takes minutes, most of them wasmtime)"
    );
    let Some(nineteen) = build_nineteen(site)? else { return Ok(Ending::Failed) };
    let mut command = Command::new(nineteen);
    command.current_dir(&site.repo).env("NINETEEN_CACHE", site.cache.root()).arg("demo").args(arguments);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let error = command.exec();
        Err(error).context("the demo cannot be started")
    }
    #[cfg(not(unix))]
    Ok(ending(child::openly(&mut command)?))
}

/// Runs every test of both workspaces: unit, integration, documentation and end to end.
pub(crate) fn test(site: &Site, filter: Option<&str>) -> Result<Ending> {
    let began = Instant::now();
    let mut tally = Tally::default();
    let mut took = Vec::new();
    // The end-to-end tests run it.
    if build_nineteen(site)?.is_none() {
        return Ok(Ending::Failed);
    }
    for (name, mut command) in [("host", host(site)), ("plugins", guest(site))] {
        let stage = Instant::now();
        eprintln!("test: {name}");
        command.args(["test", "--workspace", "--no-fail-fast"]);
        command.args(filter.map(|filter| ["--", filter]).into_iter().flatten());
        let before = tally.failed();
        let status = child::watched(&mut command, |line| tally.look(line))?;
        tally.ended(status.success(), before);
        took.push(format!("{name} {}", seconds(stage.elapsed())));
    }
    println!("\n{} ({})", tally.line(began.elapsed()), took.join(", "));
    Ok(if tally.is_good() { Ending::Good } else { Ending::Failed })
}

/// Runs the crash test for as long as it is told to.
pub(crate) fn soak(site: &Site, minutes: u64, seed: Option<u64>) -> Result<Ending> {
    if build_nineteen(site)?.is_none() {
        return Ok(Ending::Failed);
    }
    let mut command = host(site);
    command.args([
        "test",
        "--workspace",
        "--test",
        "kills",
        "--",
        "--ignored",
        "--nocapture",
        "--exact",
        "soak",
    ]);
    command.env("NINETEEN_SOAK_MINUTES", minutes.to_string());
    if let Some(seed) = seed {
        command.env("NINETEEN_SOAK_SEED", seed.to_string());
    }
    eprintln!("soak: kills a validator for {minutes} min, then holds its books against its miners'");
    Ok(ending(child::openly(&mut command)?))
}

/// Feeds the sandbox what nobody thought of, for as long as it is told to. In a process of its own: what ends it is kept.
pub(crate) fn fuzz(site: &Site, minutes: u64, seed: Option<u64>) -> Result<Ending> {
    let mut command = host(site);
    command.args([
        "test",
        "--workspace",
        "--test",
        "hostile",
        "--",
        "--ignored",
        "--nocapture",
        "--exact",
        "fuzz::fuzz",
    ]);
    command.env("NINETEEN_FUZZ_SECONDS", minutes.saturating_mul(60).to_string());
    if let Some(seed) = seed {
        command.env("NINETEEN_FUZZ_SEED", seed.to_string());
    }
    eprintln!(
        "fuzz: mutants of the hostile corpus for {minutes} min; what is new is kept in host/sandbox/tests/corpus"
    );
    let ending = ending(child::openly(&mut command)?);
    let (current, kept) =
        (site.repo.join("host/sandbox/tests/corpus/current"), "host/sandbox/tests/corpus/crash.wasm");
    if current.is_file() {
        std::fs::rename(&current, site.repo.join(kept)).context("the input cannot be kept")?;
        eprintln!("fuzz: it ended early; what it was at is {kept}, and the tests replay it from now on");
    }
    Ok(ending)
}

/// Runs the benches whose names contain `name`, side by side with what they are measured against.
pub(crate) fn bench(site: &Site, name: Option<&str>, arguments: &[String]) -> Result<Ending> {
    let mut all = Ending::Good;
    for bench in ["inference", "images", "period", "sandbox", "upgrades", "verification"]
        .into_iter()
        .filter(|b| name.is_none_or(|n| b.contains(n)))
    {
        if bench == "sandbox" {
            let Some(nineteen) = build_nineteen(site)? else { return Ok(Ending::Failed) };
            let lock = site.cache.lock()?;
            contenders::ensure(site, &nineteen).context("step contenders")?;
            drop(lock);
        }
        let mut command = host(site);
        // The profile of the tests: a second one would compile wasmtime a second time, and dependencies are
        // optimised in it.
        command.args(["bench", "--workspace", "--bench", bench, "--profile", "dev", "--"]).args(arguments);
        command
            .env("NINETEEN_COMPONENTS", site.cache.path("components"))
            .env("NINETEEN_CONTENDERS", contenders::folder(site))
            .env("NINETEEN_PYTHON", site.cache.python());
        if !child::openly(&mut command)?.success() {
            all = Ending::Failed;
        }
    }
    Ok(all)
}

/// Runs the lints, or one of them. All are run even when one fails.
pub(crate) fn lint(site: &Site, only: Option<Lint>) -> Result<Ending> {
    let mut all = Ending::Good;
    let wants = |lint| only.is_none_or(|only| only == lint);
    let mut run = |mut command: Command, what: &str| -> Result<()> {
        let began = Instant::now();
        let good = child::openly(&mut command)?.success();
        eprintln!("lint: {what} {} ({})", if good { "is clean" } else { "FAILED" }, seconds(began.elapsed()));
        if !good {
            all = Ending::Failed;
        }
        Ok(())
    };
    type Workspace = fn(&Site) -> Command;
    let workspaces: [(&str, Workspace, PathBuf); 2] =
        [("host", host, site.repo.clone()), ("plugins", guest, site.repo.join("plugins"))];
    for (name, workspace, folder) in &workspaces {
        if wants(Lint::Fmt) {
            let mut command = workspace(site);
            command.args(["fmt", "--all", "--check"]);
            run(command, &format!("formatting of {name}"))?;
        }
        if wants(Lint::Clippy) {
            let mut command = workspace(site);
            command.args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
            run(command, &format!("clippy of {name}"))?;
        }
        if wants(Lint::Deny) {
            run(
                deny_check(site, folder, &["bans", "licenses", "sources"])?,
                &format!("dependencies of {name}"),
            )?;
        }
    }
    if wants(Lint::Deny) && advisories_reachable(site)? {
        for (name, _, folder) in &workspaces {
            run(deny_check(site, folder, &["advisories"])?, &format!("advisories for {name}"))?;
        }
    }
    Ok(all)
}

/// cargo-deny on the workspace in a folder, by the rules of this repository.
fn deny(site: &Site, folder: &Path) -> Result<Command> {
    let mut command = tools::command(site, tools::DENY)?;
    command.current_dir(folder).args(["--locked", "--log-level", "error", "--manifest-path"]);
    command.arg(folder.join("Cargo.toml")).arg("--config").arg(site.repo.join("deny.toml"));
    Ok(command)
}

/// Its checks by name.
fn deny_check(site: &Site, folder: &Path, checks: &[&str]) -> Result<Command> {
    let mut command = deny(site, folder)?;
    command.args(["check", "--hide-inclusion-graph"]).args(checks);
    Ok(command)
}

/// The advisories are a git repository. Where only package registries can be reached, they cannot be checked, and
/// that is said with the reason, not failed on.
fn advisories_reachable(site: &Site) -> Result<bool> {
    let progress = Progress::start("advisories: fetching the database of known vulnerabilities");
    let mut fetch = deny(site, &site.repo)?;
    fetch.args(["fetch", "db"]).env("GIT_TERMINAL_PROMPT", "0");
    match child::quietly(&mut fetch, &progress, &site.cache.log("cargo-deny"), Some(ADVISORIES_LIMIT)) {
        Ok(()) => {
            progress.done("");
            Ok(true)
        }
        // Only a fetch that was tried and failed is excused: a command line it does not understand (code 2), or a
        // program that does not start, is a fault of ours that must not look like a missing network.
        Err(error) if error.downcast_ref::<Failed>().is_some_and(|failed| failed.code != Some(2)) => {
            drop(progress);
            eprintln!("lint: advisories NOT CHECKED, their database could not be fetched: {error:#}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Builds the book and checks that its links lead somewhere. Gives the folder it is in.
pub(crate) fn book(site: &Site) -> Result<PathBuf> {
    crate::wit::ensure(&site.repo)?;
    let out = site.repo.join("target/book");
    let mut command = tools::command(site, tools::MDBOOK)?;
    command.arg("build").arg(site.repo.join("docs")).arg("--dest-dir").arg(&out);
    if !child::openly(&mut command)?.success() {
        bail!("the book does not build: the lines above say why");
    }
    let broken = crate::links::broken(&site.repo.join("docs"))?;
    if !broken.is_empty() {
        bail!("links that lead nowhere: {}", broken.join("; "));
    }
    Ok(out)
}

/// Everything that must pass before a change is taken: the same script as everywhere else.
pub(crate) fn ci(site: &Site) -> Result<Ending> {
    let mut command = Command::new("bash");
    command.arg(site.repo.join(".ci/run")).current_dir(&site.repo);
    Ok(ending(child::openly(&mut command)?))
}
