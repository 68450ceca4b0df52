//! End to end: one file per promise made in the README. This library finds the binary and the cache.

mod books;
pub mod moves;
pub mod soak;
mod stage;
pub mod zoo;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub use books::Books;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The `nineteen` binary of this build, beside the tests.
///
/// # Panics
/// When it is not there: `cargo xtask test` builds it first.
#[must_use]
#[expect(clippy::panic, reason = "a test without its binary is a failed test, said in words")]
pub fn nineteen() -> PathBuf {
    let found = std::env::current_exe().ok().and_then(|exe| {
        let folder = exe.parent()?.parent()?;
        Some(folder.join("nineteen")).filter(|p| p.is_file())
    });
    found.unwrap_or_else(|| {
        panic!("the nineteen binary is not built: run `cargo xtask test`, or `cargo build -p nineteen-cli`")
    })
}

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// The cache that `cargo xtask setup` fills: the rule of `nineteen` and xtask.
#[must_use]
pub fn cache() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("NINETEEN_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("nineteen")))
        .or_else(|| var("HOME").map(|p| p.join(".cache/nineteen")))
        .unwrap_or_default()
}

/// Runs `nineteen` with these arguments in this folder and waits.
///
/// # Errors
/// When it does not start.
pub fn run(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> std::io::Result<Output> {
    Command::new(nineteen())
        .args(args)
        .current_dir(folder)
        .env("NINETEEN_CACHE", cache())
        .env_remove("ORT_DYLIB_PATH")
        .envs(env.iter().copied())
        .output()
}
