//! Promise: a signed set may change the policy, and every validator settles under it from the stated moment on, without anybody
//! at the keyboard and with nothing lost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails is meant to panic")]

use nineteen_tests::policy::run;

#[test]
fn a_set_with_another_policy_is_settled_under_from_its_moment_on() {
    let dir = tempfile::tempdir().unwrap();
    let changed = match run(dir.path()) {
        Ok(changed) => changed,
        Err(e) => panic!("{e}; everything is kept in {}", dir.keep().display()),
    };
    eprintln!("{changed:?}");
    assert_eq!(changed.starts, 2);
    assert_eq!(changed.scorings.len(), 2, "{changed:?}");
    assert!(changed.books.periods >= 4 && changed.books.answered > 0, "{changed:?}");
}
