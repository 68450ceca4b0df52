//! End to end: one file per promise made in the README. This library finds the binary and the cache.

mod books;
pub mod fifth;
pub mod live;
pub mod moves;
pub mod newcomer;
pub mod policy;
pub mod registry;
pub mod soak;
mod stage;
pub mod watch;
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

/// What an operator's API says.
pub(crate) fn get(addr: std::net::SocketAddr, path: &str) -> Result<serde_json::Value> {
    let (status, body) =
        ask(addr, &format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n"))?;
    if status == 200 {
        Ok(serde_json::from_str(&body)?)
    } else {
        Err(format!("{path}: {status}: {body}").into())
    }
}

/// The status of a change that shows this token.
pub(crate) fn post(addr: std::net::SocketAddr, path: &str, token: &str) -> Result<u16> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-length: 0\r\n");
    ask(addr, &format!("{head}authorization: Bearer {token}\r\n\r\n")).map(|(status, _)| status)
}

/// One exchange, by hand: what is tested does not test itself.
fn ask(addr: std::net::SocketAddr, request: &str) -> Result<(u16, String)> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok((status, body.to_owned()))
}
