//! Child processes of the demo: started, watched, started again, and never left behind.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

/// How long a process has to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// One process of the small subnet.
#[derive(Debug)]
pub(crate) struct Actor {
    /// Shown to the user.
    pub(crate) name: String,
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    child: Child,
    /// Times it was started again.
    pub(crate) restarts: u32,
}

impl Actor {
    /// Starts it; its output goes to `<logs>/<name>.log`.
    pub(crate) fn start(name: &str, program: &Path, args: Vec<String>, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let child = spawn(program, &args, &log).with_context(|| format!("{name} does not start"))?;
        Ok(Self { name: name.to_owned(), program: program.to_owned(), args, log, child, restarts: 0 })
    }

    /// `Some(words)` if it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some(status.to_string()),
            Ok(None) => None,
            Err(e) => Some(e.to_string()),
        }
    }

    /// Starts it again with the same arguments.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.program, &self.args, &self.log)?;
        self.restarts += 1;
        Ok(())
    }

    /// The process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The last line that it wrote, for an error message.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it wrote nothing").trim().to_owned()
    }

    /// Where it writes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Asks it to end, waits, and ends it.
    pub(crate) async fn stop(mut self) {
        if let Some(pid) =
            self.child.id().and_then(|p| i32::try_from(p).ok()).and_then(rustix::process::Pid::from_raw)
        {
            // An error means that it is gone already.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_err() {
            let _gone = self.child.kill().await;
        }
    }
}

fn spawn(program: &Path, args: &[String], log: &Path) -> Result<Child> {
    let out: File = OpenOptions::new().create(true).append(true).open(log)?;
    let err = out.try_clone()?;
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| program.display().to_string())
}
