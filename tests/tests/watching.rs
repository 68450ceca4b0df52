//! Promise: `nineteen task watch` brings what an author saves into a validator that runs, and what does not compile nowhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails is meant to panic")]

use nineteen_tests::watch::run;

#[test]
fn what_an_author_saves_runs_a_moment_later() {
    let dir = tempfile::tempdir().unwrap();
    let watched = match run(dir.path()) {
        Ok(watched) => watched,
        Err(e) => panic!("{e}; everything is kept in {}", dir.keep().display()),
    };
    eprintln!("{watched:#?}");
    assert_eq!(watched.live_after_s.len(), 3);
    let mut different = watched.versions.clone();
    different.dedup();
    assert_eq!(different.len(), 5, "{watched:?}");
    assert!(watched.versions[1..].iter().all(|v| v.starts_with("0.1.1-dev.")), "{watched:?}");
    assert!(watched.broken_is_harmless, "{watched:?}");
}
