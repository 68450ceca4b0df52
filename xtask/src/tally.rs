//! Adding up what several runs of `cargo test` say, so that one line at the end tells the whole.

use std::fmt;
use std::time::Duration;

/// Sums over all `test result:` lines.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    filtered: u64,
    /// Runs that ended badly without a line to say so (a crate that does not compile, a crash).
    broken: u64,
}

impl Tally {
    /// Looks at a line of output; all but result lines are passed over.
    pub(crate) fn look(&mut self, line: &str) {
        let Some(line) = line.trim().strip_prefix("test result: ") else { return };
        let Some((_, counts)) = line.split_once(". ") else { return };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                "filtered" => self.filtered += count,
                _ => {}
            }
        }
    }

    /// Takes in the end of a run, given the failures counted before it began.
    pub(crate) fn ended(&mut self, success: bool, failed_before: u64) {
        if !success && self.failed == failed_before {
            self.broken += 1;
        }
    }

    /// Tests that failed so far.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// Whether tests ran and nothing went wrong. No test at all is no success, except behind a filter.
    pub(crate) fn is_good(&self) -> bool {
        self.failed == 0 && self.broken == 0 && self.passed + self.filtered > 0
    }

    /// The closing line, in cargo's words.
    pub(crate) fn line(&self, took: Duration) -> String {
        let verdict = if self.is_good() { "ok" } else { "FAILED" };
        format!("test result: {verdict}. {self}; finished in {:.2}s", took.as_secs_f64())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed; {} failed; {} ignored; {} filtered out",
            self.passed, self.failed, self.ignored, self.filtered
        )?;
        if self.broken > 0 {
            write!(f, "; {} did not build or ended early", self.broken)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str =
        "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.52s\n";
    const BAD: &str =
        "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";

    #[test]
    fn results_of_many_suites_add_up_to_one_line() {
        let mut tally = Tally::default();
        for line in ["running 12 tests", OK, "test a ... ok", OK] {
            tally.look(line);
        }
        tally.ended(true, 0);
        let line = tally.line(Duration::from_millis(1500));
        assert_eq!(
            line,
            "test result: ok. 24 passed; 0 failed; 2 ignored; 6 filtered out; finished in 1.50s"
        );
    }

    #[test]
    fn one_failure_anywhere_fails_the_whole() {
        let mut tally = Tally::default();
        tally.look(BAD);
        tally.ended(false, 0);
        tally.look(OK);
        tally.ended(true, 2);
        assert!(!tally.is_good());
        assert!(tally.line(Duration::ZERO).starts_with("test result: FAILED. 16 passed; 2 failed;"));
    }

    #[test]
    fn a_crate_that_does_not_compile_is_no_success() {
        let mut tally = Tally::default();
        tally.look(OK);
        tally.ended(false, 0);
        assert!(!tally.is_good());
        assert!(tally.to_string().ends_with("1 did not build or ended early"));
    }

    #[test]
    fn no_tests_at_all_is_no_success_and_a_test_cannot_forge_a_result() {
        assert!(!Tally::default().is_good());
        let mut tally = Tally::default();
        tally.look("panicked at 'test result: ok. 1 passed'");
        assert_eq!(tally, Tally::default());
    }
}
