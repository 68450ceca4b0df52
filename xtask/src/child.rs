//! Running commands: quietly with progress, or with their output in the open.
//!
//! A quiet command's output goes to a log file whole and to the progress line by line; only when it fails does the
//! user see what it said last, in one line, with the way to the log.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::progress::Progress;

/// Lines kept for the error message.
const LAST_WORDS: usize = 40;

/// Longest line that is looked at, in bytes; the log has everything.
const LINE: u64 = 64 * 1024;

/// A command that ran and did not succeed.
#[derive(Debug)]
pub(crate) struct Failed {
    what: String,
    how: String,
    /// The exit code; none when it was ended from outside.
    pub(crate) code: Option<i32>,
    /// The line that most likely says why.
    why: String,
    log: PathBuf,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.why.is_empty() { "it said nothing" } else { &self.why };
        write!(f, "{} {}: {why} (all of it: {})", self.what, self.how, self.log.display())
    }
}

impl std::error::Error for Failed {}

/// The name of a command's program, for messages.
fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

/// Runs a command to its end, or kills it after `limit`. Fails with [`Failed`] unless it succeeds.
pub(crate) fn quietly(
    command: &mut Command,
    progress: &Progress,
    log: &Path,
    limit: Option<Duration>,
) -> Result<()> {
    collect(command, progress, log, limit, |_| false).map(|_| ())
}

/// As [`quietly`], and gives the lines of the output that `keep` picks.
pub(crate) fn collect(
    command: &mut Command,
    progress: &Progress,
    log: &Path,
    limit: Option<Duration>,
    keep: impl Fn(&str) -> bool,
) -> Result<Vec<String>> {
    let what = name(command);
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let mut file =
        File::options().create(true).append(true).open(log).with_context(|| format!("{}", log.display()))?;
    // A log that cannot be written is no reason to stop: the command's own outcome decides.
    let _ = writeln!(file, "\n$ {command:?}");

    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{what} cannot be started: is it installed?"))?;
    let (said, lines) = channel();
    for pipe in [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    ]
    .into_iter()
    .flatten()
    {
        let said = said.clone();
        std::thread::spawn(move || read_lines(pipe, &said));
    }
    drop(said);

    let began = Instant::now();
    let mut last = VecDeque::new();
    let mut kept = Vec::new();
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                let _ = writeln!(file, "{line}");
                if keep(&line) {
                    kept.push(line);
                    continue;
                }
                progress.detail(&line);
                if last.len() == LAST_WORDS {
                    last.pop_front();
                }
                last.push_back(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(limit) = limit.filter(|limit| began.elapsed() > *limit) {
            // It may have ended by itself a moment ago.
            let _ = child.kill();
            let _ = child.wait();
            let how = format!("did not end within {} s", limit.as_secs());
            bail!(Failed { what, how, code: None, why: reason(last.make_contiguous()), log: log.to_owned() });
        }
    }
    let status = child.wait().with_context(|| format!("{what} cannot be waited for"))?;
    if status.success() {
        return Ok(kept);
    }
    let how = format!("failed ({status})");
    bail!(Failed { what, how, code: status.code(), why: reason(last.make_contiguous()), log: log.to_owned() })
}

/// Sends every line, also those that only a carriage return ends (progress bars).
fn read_lines(pipe: Box<dyn Read + Send>, said: &Sender<String>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        for part in text.split(['\r', '\n']).filter(|part| !part.trim().is_empty()) {
            if said.send(part.to_owned()).is_err() {
                return;
            }
        }
    }
}

/// The line that most likely says why: the first that speaks of an error, else the last.
fn reason(last: &[String]) -> String {
    let speaks = |line: &&String| {
        let line = line.to_ascii_lowercase();
        line.contains("error:") || line.contains("error[")
    };
    let line = last.iter().find(speaks).or(last.last());
    line.map(|line| line.trim().chars().take(300).collect()).unwrap_or_default()
}

/// What a short command prints, or why there is none. For questions, never for work.
pub(crate) fn ask(command: &mut Command) -> Result<String> {
    let what = name(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{what} cannot be started: is it installed?"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{what} failed ({}): {}", output.status, words.trim().lines().last().unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a command with its output in the open.
pub(crate) fn openly(command: &mut Command) -> Result<ExitStatus> {
    let what = name(command);
    command.status().with_context(|| format!("{what} cannot be started: is it installed?"))
}

/// Runs a command with its output in the open, and shows each line of its standard output to `look`, too.
pub(crate) fn watched(command: &mut Command, mut look: impl FnMut(&str)) -> Result<ExitStatus> {
    let what = name(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{what} cannot be started: is it installed?"))?;
    let mut out = std::io::stdout();
    if let Some(pipe) = child.stdout.take() {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while {
            line.clear();
            reader.read_until(b'\n', &mut line).unwrap_or(0) > 0
        } {
            // A reader of ours that went away (`| head`) does not stop the tests.
            let _ = out.write_all(&line).and_then(|()| out.flush());
            look(&String::from_utf8_lossy(&line));
        }
    }
    child.wait().with_context(|| format!("{what} cannot be waited for"))
}

/// Where a program is found on `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let file = if cfg!(windows) { format!("{program}.exe") } else { program.to_owned() };
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(&file)).find(|path| path.is_file())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_is_one_line_that_says_why_and_where_the_rest_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("logs/x.log");
        let script = "echo looking; echo 'ERROR: no such package: zebra' >&2; echo bye; exit 3";
        let error = quietly(&mut shell(script), &Progress::start("x"), &log, None).unwrap_err();
        let line = error.to_string();
        assert!(line.contains("no such package: zebra") && line.contains("x.log"), "{line}");
        assert!(!line.contains('\n'));
        assert!(fs::read_to_string(log).unwrap().contains("looking"));
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("x.log");
        let began = Instant::now();
        let limit = Some(Duration::from_millis(300));
        let error = quietly(&mut shell("exec sleep 60"), &Progress::start("x"), &log, limit).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn lines_on_both_pipes_arrive_and_a_bar_drawn_with_returns_is_many_lines() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("x.log");
        let script = "printf '10%%\\r20%%\\r\\n'; echo err >&2";
        let mut kept = collect(&mut shell(script), &Progress::start("x"), &log, None, |_| true).unwrap();
        kept.sort();
        assert_eq!(kept, ["10%", "20%", "err"]);
    }

    #[test]
    fn a_program_that_is_not_there_says_so() {
        let error = ask(&mut Command::new("no-such-program-nineteen")).unwrap_err();
        assert!(error.to_string().contains("is it installed?"), "{error}");
    }
}
