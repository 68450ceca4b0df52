//! cargo-deny and mdbook: found on `PATH`, else compiled once into the cache, in pinned versions.
//!
//! Compiled without optimisation and without what a check does not need (mdbook's server, watcher and search):
//! both take seconds to run and minutes to compile, so the compiling is what counts.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{RESUMES, Site};
use crate::cache;
use crate::child;
use crate::progress::Progress;

/// A program of the checks.
#[derive(Clone, Copy)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    why: &'static str,
    flags: &'static [&'static str],
}

/// Licences, bans and sources of what we depend on.
pub(crate) const DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    why: "checks licences and sources of dependencies",
    flags: &[],
};

/// The book.
pub(crate) const MDBOOK: Tool =
    Tool { name: "mdbook", version: "0.5.4", why: "builds the book", flags: &["--no-default-features"] };

/// The program, installed if it has to be, and whether it had to be.
pub(crate) fn find(site: &Site, tool: Tool) -> Result<(PathBuf, bool)> {
    if let Some(path) = child::on_path(tool.name) {
        return Ok((path, false));
    }
    let root = site.cache.path("tools").join(format!("{}-{}", tool.name, tool.version));
    let program = root.join("bin").join(format!("{}{}", tool.name, std::env::consts::EXE_SUFFIX));
    if program.is_file() {
        return Ok((program, false));
    }
    let progress =
        Progress::start(format!("{} {}: {}; compiled once, some minutes", tool.name, tool.version, tool.why));
    // Kept until it is done, so that an interrupted run goes on with what it had compiled.
    let building = cache::unfinished(&root);
    let mut install = crate::cargo();
    install
        .args(["install", "--locked", "--debug", "--no-track", "--root"])
        .arg(&root)
        .args(tool.flags)
        .arg(format!("{}@{}", tool.name, tool.version))
        .env("CARGO_TARGET_DIR", &building)
        .env_remove("RUSTFLAGS");
    child::quietly(&mut install, &progress, &site.cache.log(tool.name), None)
        .with_context(|| format!("{} {} could not be installed; {RESUMES}", tool.name, tool.version))?;
    // Only room is lost when this fails.
    let _ = cache::remove(&building);
    progress.done("");
    Ok((program, true))
}

/// A command that runs a tool. Takes the cache's lock only while it has to install.
pub(crate) fn command(site: &Site, tool: Tool) -> Result<Command> {
    let lock = site.cache.lock()?;
    let (program, _) = find(site, tool)?;
    drop(lock);
    Ok(Command::new(program))
}

/// Installs both. Tells whether there was anything to do.
pub(crate) fn ensure(site: &Site) -> Result<bool> {
    Ok(find(site, DENY)?.1 | find(site, MDBOOK)?.1)
}
