//! What a crash leaves is repaired; what a crash cannot leave is an error that says what to do, and doing
//! it works.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, but not their helpers"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nineteen_domain::PeriodId;
use nineteen_store::{Booked, Options, SCHEMA_VERSION, Store, StoreError};

mod common;
use common::{body, finished, options, probe};

/// A closed store with five segments of the ledger, some 40 records in each.
fn filled() -> (tempfile::TempDir, Options, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 12_000, ..options() };
    let store = Store::open(dir.path(), options).unwrap();
    for slot in 0..150 {
        store.append_all(vec![finished(slot), body(slot, 100)]).wait().unwrap();
    }
    drop(store);
    let mut ledger: Vec<_> =
        fs::read_dir(dir.path().join("ledger")).unwrap().map(|e| e.unwrap().path()).collect();
    ledger.sort();
    assert!(ledger.len() >= 3);
    (dir, options, ledger)
}

fn slots(store: &Store) -> Vec<u32> {
    store.finished(PeriodId(1)).map(|f| f.unwrap().probe.slot).collect()
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Does what the error says behind "restore it from a backup, or …".
fn follow(way_out: &str) {
    let (_, command) = way_out.split_once(": ").expect("a command to copy");
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
}

#[test]
fn a_torn_tail_is_cut_at_any_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger/00000000000000000001.seg");
    let lengths: Vec<u64> = {
        let store = Store::open(dir.path(), options()).unwrap();
        (0..4)
            .map(|slot| {
                store.append(finished(slot)).wait().unwrap();
                fs::metadata(&path).unwrap().len()
            })
            .collect()
    };
    let whole = fs::read(&path).unwrap();
    for cut in (lengths[2]..lengths[3]).rev().step_by(17) {
        fs::write(&path, &whole[..cut as usize]).unwrap();
        // The view never heard of what was torn: it would have been synced before.
        fs::remove_dir_all(dir.path().join("view")).unwrap();
        let store = Store::open(dir.path(), options()).unwrap();
        assert_eq!(slots(&store), [0, 1, 2], "cut at {cut}");
        assert_eq!(store.append(finished(3)).wait(), Ok(Booked::New));
        assert_eq!(slots(&store), [0, 1, 2, 3]);
        drop(store);
        assert_eq!(fs::metadata(&path).unwrap().len(), lengths[3]);
    }
}

#[test]
fn a_tail_of_zeros_is_torn_too() {
    let (dir, options, ledger) = filled();
    let last = ledger.last().unwrap();
    let mut bytes = fs::read(last).unwrap();
    bytes.extend_from_slice(&[0; 5_000]);
    fs::write(last, bytes).unwrap();
    let store = Store::open(dir.path(), options).unwrap();
    assert_eq!(slots(&store).len(), 150);
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn acknowledged_records_that_are_gone_are_missed() {
    let (dir, options, ledger) = filled();
    // The tail is cut at a frame's end: it looks whole, but the view knows better.
    let last = fs::OpenOptions::new().write(true).open(ledger.last().unwrap()).unwrap();
    last.set_len(40).unwrap();
    let err = Store::open(dir.path(), options).unwrap_err();
    let StoreError::Corrupt { file, way_out, .. } = &err else { panic!("{err}") };
    assert_eq!(file.file_name(), ledger.last().unwrap().file_name());
    follow(way_out);
    let store = Store::open(dir.path(), options).unwrap();
    assert!(slots(&store).len() < 150);
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn a_flipped_byte_in_the_last_segment_is_damage_and_no_torn_tail() {
    let (dir, options, ledger) = filled();
    let last = ledger.last().unwrap();
    flip(last, 100);
    // Even without the view's knowledge: whole frames stand behind it.
    fs::remove_dir_all(dir.path().join("view")).unwrap();
    let before = fs::read(last).unwrap();
    let err = Store::open(dir.path(), options).unwrap_err();
    let StoreError::Corrupt { file, offset, way_out, .. } = &err else { panic!("{err}") };
    assert_eq!(file.file_name(), last.file_name());
    assert_eq!(*offset, 40, "{err}");
    assert_eq!(fs::read(last).unwrap(), before, "nothing was cut in silence");
    fs::create_dir_all(dir.path().join("view")).unwrap();
    follow(way_out);
    let store = Store::open(dir.path(), options).unwrap();
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn a_flipped_byte_in_the_middle_is_named_with_file_and_offset_and_the_way_out_works() {
    let (dir, options, ledger) = filled();
    let victim = &ledger[1];
    flip(victim, 5_000);
    // The view is whole, so the store opens; looking finds the damage and leaves everything else in use.
    let store = Store::open(dir.path(), options).unwrap();
    assert_eq!(slots(&store).len(), 150);
    let report = store.verify().unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    let name = victim.file_name().unwrap().to_string_lossy().into_owned();
    assert!(report.problems[0].contains("store.corrupt") && report.problems[0].contains(&name));
    drop(store);

    fs::remove_dir_all(dir.path().join("view")).unwrap();
    let err = Store::open(dir.path(), options).unwrap_err();
    let StoreError::Corrupt { file, offset, way_out, .. } = &err else { panic!("{err}") };
    assert_eq!(file.file_name(), victim.file_name());
    assert!(*offset > 4_000 && *offset <= 5_000, "{err}");
    follow(way_out);
    let store = Store::open(dir.path(), options).unwrap();
    let left = slots(&store);
    assert!(left.len() > 100 && left.len() < 150, "{}", left.len());
    assert!(left.contains(&0) && left.contains(&149), "only the rest of that segment is given up");
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn a_damaged_header_has_a_way_out_that_works() {
    let (dir, options, ledger) = filled();
    flip(&ledger[1], 20);
    let err = Store::open(dir.path(), options).unwrap_err();
    let StoreError::Corrupt { way_out, .. } = &err else { panic!("{err}") };
    follow(way_out);
    let store = Store::open(dir.path(), options).unwrap();
    assert!(slots(&store).len() > 50);
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn a_segment_that_is_gone_is_missed_and_the_way_out_works() {
    let (dir, options, ledger) = filled();
    fs::remove_file(&ledger[1]).unwrap();
    let err = Store::open(dir.path(), options).unwrap_err();
    let StoreError::Corrupt { file, way_out, .. } = &err else { panic!("{err}") };
    assert_eq!(file.file_name(), ledger[1].file_name());
    follow(way_out);
    let store = Store::open(dir.path(), options).unwrap();
    // The view still holds what the segment held; nothing new is lost.
    assert_eq!(slots(&store).len(), 150);
    assert!(store.verify().unwrap().problems.is_empty());
}

#[test]
fn a_segment_in_the_wrong_family_is_refused() {
    let (dir, options, ledger) = filled();
    fs::copy(&ledger[1], dir.path().join("exchanges").join(ledger[1].file_name().unwrap())).unwrap();
    let err = Store::open(dir.path(), options).unwrap_err();
    assert!(err.to_string().contains("family 3"), "{err}");
}

#[test]
fn an_interrupted_creation_of_a_segment_is_undone() {
    for junk in [0, 1, 39, 40] {
        let (dir, options, ledger) = filled();
        let next = dir.path().join("ledger").join(format!("{:020}.seg", ledger.len() + 1));
        fs::write(&next, vec![0; junk]).unwrap();
        let store = Store::open(dir.path(), options).unwrap();
        assert_eq!(slots(&store).len(), 150, "{junk}");
        assert_eq!(store.append(finished(999)).wait(), Ok(Booked::New));
    }
}

#[test]
fn arbitrary_bytes_in_place_of_a_segment_never_panic() {
    let (dir, options, ledger) = filled();
    let original = fs::read(&ledger[1]).unwrap();
    for seed in 0..40_usize {
        let mut bytes = original.clone();
        let at = (seed * 7_919) % bytes.len();
        for (i, b) in bytes.iter_mut().skip(at).take(1 + seed * 50).enumerate() {
            *b = (((i + seed) * 2_654_435_761) >> 9) as u8;
        }
        fs::write(&ledger[1], &bytes).unwrap();
        fs::remove_dir_all(dir.path().join("view")).unwrap();
        let err = Store::open(dir.path(), options).map(drop).unwrap_err();
        assert_eq!(err.code(), "store.corrupt", "{seed}: {err}");
    }
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let (dir, options, _) = filled();
    let schema = dir.path().join("schema");
    fs::write(&schema, format!("{}\n", SCHEMA_VERSION + 1)).unwrap();
    let err = Store::open(dir.path(), options).unwrap_err();
    assert_eq!(err.code(), "store.schema-newer");
    assert!(err.to_string().contains("newer version"), "{err}");
    assert_eq!(fs::read_to_string(&schema).unwrap(), format!("{}\n", SCHEMA_VERSION + 1));
    fs::write(&schema, "one").unwrap();
    assert_eq!(Store::open(dir.path(), options).unwrap_err().code(), "store.not-a-store");
    fs::remove_file(&schema).unwrap();
    assert_eq!(Store::open(dir.path(), options).unwrap_err().code(), "store.not-a-store");
}

#[test]
fn too_little_room_is_refused_before_anything_is_written() {
    let (dir, options, _) = filled();
    let store = Store::open(dir.path(), Options { min_free_bytes: u64::MAX, ..options }).unwrap();
    let err = store.append(finished(500)).wait().unwrap_err();
    assert_eq!(err.code(), "store.full");
    assert_eq!(store.finished_probe(&probe(1, 500)).unwrap(), None);
    // A repetition needs no room.
    assert_eq!(store.append(finished(3)).wait(), Ok(Booked::AlreadyBooked));
}
