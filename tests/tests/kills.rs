//! Promise: `kill -9` at any moment loses nothing and counts nothing twice; a period settles once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails is meant to panic")]

use std::time::Duration;

use nineteen_tests::Books;
use nineteen_tests::soak::{Until, run};

fn play(until: Until, seed: u64) -> Books {
    let dir = tempfile::tempdir().unwrap();
    match run(dir.path(), until, seed) {
        Ok(books) => {
            eprintln!("seed {seed}: {books:?}");
            books
        }
        Err(e) => {
            let kept = dir.keep();
            panic!("seed {seed}: {e}; everything is kept in {}", kept.display());
        }
    }
}

#[test]
fn fifty_kills_at_random_moments_leave_books_that_the_miners_agree_with() {
    let books = play(Until::Kills(50), 19);
    assert_eq!(books.kills, 50);
    // It was a run in which things happened, or nothing was tested.
    assert!(books.periods >= 4 && books.received > 50 && books.answered > 30, "{books:?}");
    assert!(books.interrupted > 0, "{books:?}");
}

/// `cargo xtask soak --minutes N`.
#[test]
#[ignore = "runs for as long as it is told to: cargo xtask soak --minutes N"]
fn soak() {
    let minutes: u64 = std::env::var("NINETEEN_SOAK_MINUTES").ok().and_then(|m| m.parse().ok()).unwrap_or(5);
    let seed = std::env::var("NINETEEN_SOAK_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now.as_secs()
    });
    let books = play(Until::Elapsed(Duration::from_secs(60 * minutes)), seed);
    assert!(books.kills > 0 && books.received > 0, "{books:?}");
}
