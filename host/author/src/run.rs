//! Other people's programs: bounded in time, and quiet unless they fail.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::AuthorError;

/// A first build compiles a standard library.
const LONGEST: Duration = Duration::from_secs(900);
/// Lines of a failure that are shown.
const LINES: usize = 40;

/// Runs a program to its end and gives what it printed; its words are the error's when it fails.
pub(crate) fn run(command: &mut Command, program: &str, missing: &str) -> Result<String, AuthorError> {
    let fail = |why: String| AuthorError::Program { program: program.to_owned(), why };
    let out = tempfile::tempfile().map_err(|e| fail(e.to_string()))?;
    let err = tempfile::tempfile().map_err(|e| fail(e.to_string()))?;
    let handles = out.try_clone().and_then(|o| Ok((o, err.try_clone()?)));
    let (to_out, to_err) = handles.map_err(|e| fail(e.to_string()))?;
    let mut child = command.stdin(Stdio::null()).stdout(to_out).stderr(to_err).spawn().map_err(|e| {
        let way = if e.kind() == std::io::ErrorKind::NotFound {
            format!("not found: {missing}")
        } else {
            e.to_string()
        };
        fail(way)
    })?;
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|e| fail(e.to_string()))? {
            Some(status) => break status,
            None if begun.elapsed() > LONGEST => {
                // Gone already where this fails.
                let _ = child.kill();
                let _ = child.wait();
                return Err(fail(format!("took longer than {} s", LONGEST.as_secs())));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let printed = read(out).map_err(|e| fail(e.to_string()))?;
    if status.success() {
        return Ok(printed);
    }
    let said = read(err).unwrap_or_default();
    let said = if said.trim().is_empty() { printed } else { said };
    let lines: Vec<&str> = said.lines().collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n");
    Err(fail(format!("{status}\n{last}")))
}

fn read(mut file: std::fs::File) -> std::io::Result<String> {
    use std::io::Seek as _;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(16 << 20).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a program is there.
pub(crate) fn on_path(name: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(name).is_file())
}

/// The first of these that is a file.
pub(crate) fn first<'a>(places: impl IntoIterator<Item = &'a Path>) -> Option<&'a Path> {
    places.into_iter().find(|p| p.is_file())
}
