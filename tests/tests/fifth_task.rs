//! Promise: a task that nobody planned for comes in as a folder: its own model, its own kind of work, no line of the host.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails is meant to panic")]

use nineteen_tests::fifth::run;

#[test]
fn a_task_that_nobody_planned_for_pays_who_does_it() {
    let dir = tempfile::tempdir().unwrap();
    let ran = match run(dir.path()) {
        Ok(ran) => ran,
        Err(e) => panic!("{e}; everything is kept in {}", dir.keep().display()),
    };
    eprintln!("{ran:#?}");
    let (quality, judged) = ran.judged.get("honest").unwrap();
    assert!(*judged >= 3 && *quality > 0.99, "{ran:?}");
    // Half of the work is worth less than half: rows that are checked cannot be foreseen.
    assert!(ran.judged.get("every-second").unwrap().0 < 0.5, "{ran:?}");
    assert!(*ran.shares.get("every-second").unwrap() < 0.2, "{ran:?}");
    assert!(*ran.shares.get("honest").unwrap() > 0.8, "{ran:?}");
    for (task, (written, same)) in &ran.receipts {
        assert!(*written >= 3 && same == written, "{task}: {ran:?}");
    }
    assert_eq!(ran.receipts.len(), 2, "{ran:?}");
    assert_eq!(ran.forged.trim_end().lines().count(), 1, "{}", ran.forged);
    for cheat in ["guesses", "always-txt", "boasts"] {
        assert!(ran.judged.get(cheat).unwrap().0 < 0.2, "{cheat}: {ran:?}");
        assert!(*ran.shares.get(cheat).unwrap() < 0.02, "{cheat}: {ran:?}");
    }
}
