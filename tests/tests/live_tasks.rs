//! Promise: tasks are taken in, upgraded, switched off, removed and rolled back on a validator that runs; what is refused
//! changes nothing; what was changed survives a kill; and what was settled stays as it was scored.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails is meant to panic")]

use nineteen_tests::live::{SECOND, run};

#[test]
fn tasks_change_on_a_validator_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let changed = match run(dir.path()) {
        Ok(changed) => changed,
        Err(e) => panic!("{e}; everything is kept in {}", dir.keep().display()),
    };
    eprintln!("{changed:#?}");
    assert!(changed.books.periods >= 6 && changed.books.answered > 20);
    let weights: Vec<(&str, i64)> =
        changed.with_second.iter().map(|(n, w)| (n.as_str(), (w * 1000.0).round() as i64)).collect();
    assert_eq!(weights, [("embed-minilm-l6", 750), (SECOND, 250)]);
    assert!(changed.rows_of_second >= 2, "the miners were asked for the task that came in");
    // The upgrade opened an epoch of its own, and going back another one.
    assert_eq!(changed.epochs, ["0.1", "0.2", "0.1"]);
    for step in ["shelf", "verify", "cache", "describe", "models", "swap"] {
        assert!(changed.steps.iter().any(|s| s == step), "{step}");
    }
    let words = [
        "is there already",
        "raise `version`",
        "refuses its parameters",
        "is not there; there are",
        "embeddings.wasm",
        "'nobody' is not there",
        "no/such/folder",
        "all-unheard-of",
        "is the only one that runs",
    ];
    assert_eq!(changed.refusals.len(), words.len());
    for (refusal, word) in changed.refusals.iter().zip(words) {
        assert!(refusal.contains(word), "{word} in {refusal}");
    }
    assert_eq!(changed.over_the_kill.0, changed.over_the_kill.1, "a start goes on with what ran");
    assert_eq!(changed.back.0, changed.back.1);
}
