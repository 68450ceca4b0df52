//! What a check found, line by line.

use std::fmt;

use serde::Serialize;

/// How a line went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As the protocol says.
    Ok,
    /// Allowed, but it will cost the miner something, or could not be told.
    Warn,
    /// Against the protocol.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Stable name, e.g. `chat.stream.done`.
    pub name: String,
    /// How it went.
    pub status: Status,
    /// What was seen.
    pub seen: String,
    /// What to do about it; empty when nothing.
    pub advice: String,
}

/// All lines, in the order in which they were looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// The lines.
    pub lines: Vec<Line>,
}

impl Report {
    /// Whether nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.lines.iter().all(|l| l.status != Status::Fail)
    }

    /// The line of this name.
    #[must_use]
    pub fn line(&self, name: &str) -> Option<&Line> {
        self.lines.iter().find(|l| l.name == name)
    }

    pub(super) fn add(
        &mut self,
        name: impl Into<String>,
        status: Status,
        seen: impl Into<String>,
        advice: &str,
    ) {
        // What a miner sent is shown cut, and without control characters: it goes to a terminal.
        let seen: String =
            seen.into().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        let advice = if status == Status::Ok { String::new() } else { advice.to_owned() };
        self.lines.push(Line { name: name.into(), status, seen, advice });
    }

    /// `Ok` if it holds, else `bad`; whether it holds.
    pub(super) fn hold(
        &mut self,
        name: impl Into<String>,
        holds: bool,
        bad: Status,
        seen: impl Into<String>,
        advice: &str,
    ) -> bool {
        self.add(name, if holds { Status::Ok } else { bad }, seen, advice);
        holds
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|l| l.name.len()).max().unwrap_or(0);
        for line in &self.lines {
            let mark = match line.status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            writeln!(f, "{mark}  {:width$}  {}", line.name, line.seen)?;
            if !line.advice.is_empty() {
                writeln!(f, "      {:width$}  → {}", "", line.advice)?;
            }
        }
        let count = |s| self.lines.iter().filter(|l| l.status == s).count();
        write!(
            f,
            "{} ok, {} to look at, {} failed",
            count(Status::Ok),
            count(Status::Warn),
            count(Status::Fail)
        )
    }
}
