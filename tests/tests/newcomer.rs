//! Promise: whoever has never seen this host writes a task in Rust, Python or JavaScript, and it is built, checked, packed,
//! published, signed into a set, taken up by a running validator at the stated time, scored, and rolled back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails is meant to panic")]

use nineteen_domain::ledger::Judgement;
use nineteen_tests::newcomer::{TASKS, run};

#[test]
fn a_newcomer_walks_from_nothing_to_a_paid_task_in_three_languages() {
    let dir = tempfile::tempdir().unwrap();
    let walked = match run(dir.path()) {
        Ok(walked) => walked,
        Err(e) => panic!("{e}; everything is kept in {}", dir.keep().display()),
    };
    eprintln!("{walked:#?}");
    let [before, with, after] = &walked.ran;
    assert_eq!((before.len(), with.len()), (1, 4));
    assert_eq!(before, after, "a rollback brings back what ran");
    // The moment is looked at every five seconds, and what waits is compiled by then.
    assert!((0.0..=20.0).contains(&walked.late_s), "{walked:?}");
    for (task, _) in TASKS {
        let (quality, judged) = walked.judged.get(task).unwrap();
        assert!(*judged >= 2 && (quality - 1.0).abs() < 1e-9, "{task}: {walked:?}");
    }
    // A machine that is busy may fail to judge; it may not hold that against anybody.
    let accused: Vec<_> =
        walked.others.iter().filter(|(_, j)| matches!(j, Judgement::Violation(_))).collect();
    assert!(accused.is_empty(), "{walked:?}");
    assert!(walked.weights.0 > 0, "{walked:?}");
}
