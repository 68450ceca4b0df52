//! What the user reads when something goes wrong: one line and an exit code.

use std::fmt;

/// A failure at the edge. 2: something given to us is wrong, and the line says what to do; 1: it went
/// wrong while running.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code.
    pub code: u8,
    line: String,
}

impl Failure {
    /// Bad input, or something missing that the user can provide.
    pub(crate) fn input(line: impl fmt::Display) -> Self {
        Self { code: 2, line: one_line(&line.to_string()) }
    }

    /// Went wrong while running.
    pub(crate) fn running(line: impl fmt::Display) -> Self {
        Self { code: 1, line: one_line(&line.to_string()) }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}
