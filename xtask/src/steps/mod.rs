//! What a machine needs before `cargo` can do the rest: one module a step.
//!
//! Every step is the same three moves: compute the key of its inputs, return at once if a stamp with that key is
//! fresh, else do the work and write the stamp last. A step that was interrupted has no stamp, so it begins again,
//! and finds what it had finished (downloads, compiled crates) where it left it.

pub(crate) mod author;
pub(crate) mod contenders;
pub(crate) mod example;
pub(crate) mod models;
pub(crate) mod onnxruntime;
pub(crate) mod plugins;
pub(crate) mod python;
pub(crate) mod registry;
pub(crate) mod toolchain;
pub(crate) mod tools;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::cache::Cache;
use crate::progress::seconds;

/// What steps work with.
pub(crate) struct Site {
    /// The clone.
    pub(crate) repo: PathBuf,
    /// The folder outside it.
    pub(crate) cache: Cache,
}

impl Site {
    /// This clone and this user's cache.
    pub(crate) fn open() -> Result<Site> {
        // Cargo sets it for `cargo xtask`, so a clone that was moved after compiling still finds itself.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let repo = manifest.parent().map(Path::to_owned).context("the repository's folder is not known")?;
        Ok(Site { repo, cache: Cache::open()? })
    }
}

/// A step of `cargo xtask setup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// A Python environment for the model recipes
    Python,
    /// The inference library
    Onnxruntime,
    /// The two models
    Models,
    /// A compiler for WebAssembly
    Toolchain,
    /// The task components
    Plugins,
    /// A container registry, for the tests (not part of a plain setup)
    Registry,
    /// What makes components of Python and JavaScript (not part of a plain setup)
    Author,
    /// The model of the example of a fifth task (not part of a plain setup)
    Example,
    /// cargo-deny and mdbook, for `lint` and `book` (not part of a plain setup)
    Tools,
}

/// Brings the machine to where `cargo` can do the rest; `only` limits it to a step and those that it needs.
pub(crate) fn setup(site: &Site, gpu: bool, only: Option<Step>) -> Result<()> {
    let began = Instant::now();
    let lock = site.cache.lock()?;
    site.cache.sweep(&lock);
    let mut worked = false;
    let steps = match only {
        Some(step) => vec![step],
        None => vec![Step::Python, Step::Onnxruntime, Step::Models, Step::Toolchain, Step::Plugins],
    };
    for step in steps {
        worked |= match step {
            Step::Python => python::ensure(site).context("step python"),
            Step::Onnxruntime => onnxruntime::ensure(site, gpu).context("step onnxruntime"),
            Step::Models => models::ensure(site).context("step models"),
            Step::Toolchain => toolchain::ensure(site).map(|(_, worked)| worked).context("step toolchain"),
            Step::Plugins => plugins::ensure(site).context("step plugins"),
            Step::Registry => registry::ensure(site).context("step registry"),
            Step::Author => author::ensure(site).context("step author"),
            Step::Example => example::ensure(site).context("step example"),
            Step::Tools => tools::ensure(site).context("step tools"),
        }?;
    }
    let took = seconds(began.elapsed());
    let root = site.cache.root().display();
    if worked {
        eprintln!("setup: done in {took}; everything is in {root}");
    } else {
        eprintln!("setup: everything is in place in {root} ({took})");
    }
    Ok(())
}

/// What to do when something could not be fetched.
pub(crate) const RESUMES: &str =
    "check the network, then run the same command again: it goes on where it stopped";
