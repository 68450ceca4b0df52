//! Promise: a miner that changes its address, capacity, place or hotkey in the middle of a period is followed, and
//! loses nothing that it did.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails is meant to panic")]

use nineteen_domain::Uid;
use nineteen_tests::moves::{NEW_PLACE, run};

#[test]
fn miners_that_move_in_the_middle_of_a_period_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let moved = match run(dir.path()) {
        Ok(moved) => moved,
        Err(e) => panic!("{e}; everything is kept in {}", dir.keep().display()),
    };
    eprintln!("{moved:?}");
    assert!(moved.books.periods >= 4 && moved.books.answered > 20, "{moved:?}");
    // The address: nothing more at the old one, and the probes of the same plan go to the new one.
    let (old, new) = moved.old_and_new_address;
    assert!(old == 0 && new > 0, "{moved:?}");
    // The capacity: what was announced stands for its period, the new one from the next.
    assert_eq!((moved.capacities.first(), moved.capacities.last()), (Some(&100), Some(&50)), "{moved:?}");
    assert!(moved.capacities.is_sorted_by(|a, b| a >= b), "{moved:?}");
    // The place: rows follow the hotkey, and it is paid where it is now.
    assert_eq!((moved.places.first(), moved.places.last()), (Some(&Uid(2)), Some(&NEW_PLACE)), "{moved:?}");
    // The hotkey: whoever took the place begins anew, and whoever left gets nothing more.
    let (left, came) = &moved.left_and_came;
    assert!(moved.after_leaving == 0 && left.first() == Some(&0), "{moved:?}");
    assert!(!came.is_empty() && came.iter().all(|period| !left.contains(period)), "{moved:?}");
    assert_eq!(moved.paid, [Uid(1), Uid(3), NEW_PLACE], "{moved:?}");
}
