//! Promises that need a look inside: that the view can be rebuilt, that a group is one frame, that
//! retention takes whole segments.

use std::fs;
use std::path::Path;

use nineteen_domain::ledger::ProbeClass;
use nineteen_domain::{Ending, Exchange, PeriodId, Request};

use super::*;
use crate::record::tests::{one_of_each, probe};

fn small_segments() -> Options {
    let forever = Retention { max_bytes: u64::MAX, max_age_us: u64::MAX };
    Options {
        segment_bytes: 4 << 10,
        exchanges: forever,
        evidence: forever,
        ledger: forever,
        min_free_bytes: 0,
        ..Options::default()
    }
}

fn body(slot: u32) -> Record {
    let request =
        Request { path: "/x".into(), content_type: "a/b".into(), body: vec![7; 900].into(), streamed: false };
    let exchange = Exchange::without_reply(Ending::Refused, u64::from(slot));
    Record::ExchangeBody(Box::new(ExchangeBody { probe: probe(1, slot), request, exchange }))
}

fn ended(slot: u32) -> Record {
    Record::ProbeFinished(Finished {
        probe: probe(1, slot),
        class: ProbeClass::Answered,
        units: 1,
        expected: 1,
        took_us: 0,
        exchange: None,
        at_us: u64::from(slot),
    })
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&p).unwrap()))
        .collect();
    all.sort();
    all
}

fn fill(store: &Store) {
    for slot in 0..60 {
        store.append_all(vec![body(slot), ended(slot)]).wait().unwrap();
    }
    for record in one_of_each() {
        store.append(record).wait().unwrap();
    }
    // Longer than the view may hold.
    let plan = serde_json::json!({ "long": "x".repeat(20_000) });
    store.append(Record::PlanStored { period: PeriodId(9), plan }).wait().unwrap();
}

#[test]
fn a_view_that_is_deleted_or_destroyed_is_rebuilt_equal() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small_segments()).unwrap();
    fill(&store);
    let before = store.inner.shared.view.dump();
    assert!(before.len() > 120);
    assert!(before.iter().all(|(_, held)| held.inline.as_ref().is_none_or(|i| i.len() + 16 < 4096)));
    drop(store);

    fs::remove_dir_all(dir.path().join("view")).unwrap();
    let store = Store::open(dir.path(), small_segments()).unwrap();
    assert_eq!(store.inner.shared.view.dump(), before, "deleted");
    drop(store);

    for (what, damage) in [
        ("garbled", (|db: &[u8]| db.iter().map(|b| b ^ 0x5a).collect()) as fn(&[u8]) -> Vec<u8>),
        ("cut", |db| db[..db.len() / 3].to_vec()),
        ("emptied", |_| Vec::new()),
        ("random", |db| (0..db.len()).map(|i| ((i * 2_654_435_761) >> 7) as u8).collect()),
    ] {
        let db = dir.path().join("view/db");
        fs::write(&db, damage(&fs::read(&db).unwrap())).unwrap();
        let store = Store::open(dir.path(), small_segments()).unwrap();
        assert_eq!(store.inner.shared.view.dump(), before, "{what}");
        assert!(store.verify().unwrap().is_sound(), "{what}");
    }
}

#[test]
fn a_view_that_lost_its_newest_records_is_caught_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small_segments()).unwrap();
    fill(&store);
    let before = store.inner.shared.view.dump();
    // Positions were noted at the start only, so this is what a crash leaves of a lazy view.
    for (key, _) in &before[..40] {
        store.inner.shared.view.lose(key);
    }
    let shared = &store.inner.shared;
    for family in Family::ALL {
        let known = shared.view.position(family).unwrap();
        assert!(known.is_some());
        replay(&shared.family_dir(family), family, known, &shared.view).unwrap();
    }
    assert_eq!(shared.view.dump(), before);
}

#[test]
fn appends_that_wait_together_share_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { min_free_bytes: 0, ..Options::default() }).unwrap();
    let acks: Vec<_> = (0..2_000).map(|slot| store.append(ended(slot))).collect();
    for ack in acks {
        assert_eq!(ack.wait(), Ok(Booked::New));
    }
    let mut frames = 0;
    let path = store.inner.shared.family_dir(Family::Ledger);
    let start = Place { seq: 1, offset: 0 };
    segment::walk(&path, Family::Ledger, start, None, |_| {
        frames += 1;
        Ok(())
    })
    .unwrap();
    // Every frame is one fdatasync.
    assert!(frames < 500, "{frames} syncs for 2000 appends");
}

#[test]
fn retention_by_bytes_removes_whole_segments_of_bodies_and_no_score() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small_segments()).unwrap();
    fill(&store);
    drop(store);
    let (bodies, ledger) = (dir.path().join("exchanges"), dir.path().join("ledger"));
    let (before, scores) = (files(&bodies), files(&ledger));
    assert!(before.len() > 10);

    let keep = Retention { max_bytes: 20 << 10, max_age_us: u64::MAX };
    let store = Store::open(dir.path(), Options { exchanges: keep, ..small_segments() }).unwrap();
    let dropped = store.retain(writer::now_us()).wait().unwrap() as usize;
    let after = files(&bodies);
    assert_eq!(after[..], before[dropped..], "the oldest went, and went whole");
    let left: usize = after.iter().map(|(_, b)| b.len()).sum();
    assert!(left <= 20 << 10 && left > 10 << 10, "{left}");
    assert_eq!(files(&ledger), scores);

    assert_eq!(store.exchange(&probe(1, 0)).unwrap(), None);
    assert!(store.exchange(&probe(1, 59)).unwrap().is_some());
    assert_eq!(store.finished(PeriodId(1)).count(), 60);
    assert!(store.verify().unwrap().is_sound());

    let shown = store.inner.shared.view.dump();
    drop(store);
    fs::remove_dir_all(dir.path().join("view")).unwrap();
    let store = Store::open(dir.path(), Options { exchanges: keep, ..small_segments() }).unwrap();
    assert_eq!(store.inner.shared.view.dump(), shown, "a rebuilt view shows what retention left");
}

#[test]
fn retention_by_age_waits_until_the_youngest_record_of_a_segment_is_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let keep = Retention { max_bytes: u64::MAX, max_age_us: DAY_US };
    let store = Store::open(dir.path(), Options { ledger: keep, ..small_segments() }).unwrap();
    fill(&store);
    let now = writer::now_us();
    assert_eq!(store.retain(now).wait(), Ok(0));
    let segments = files(&dir.path().join("ledger")).len() as u64;
    assert!(segments > 2);
    assert_eq!(store.retain(now + 2 * DAY_US).wait(), Ok(segments - 1), "all but the growing one");
    assert_eq!(store.finished(PeriodId(1)).count(), 0);
    assert!(store.exchange(&probe(1, 0)).unwrap().is_some());
    assert!(store.verify().unwrap().is_sound());
    // And it goes on.
    assert_eq!(store.append(ended(5)).wait(), Ok(Booked::New));
}

#[test]
fn segments_are_sealed_by_age_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { segment_age_us: 0, ..small_segments() }).unwrap();
    for slot in 0..3 {
        store.append(ended(slot)).wait().unwrap();
    }
    store.close().unwrap();
    assert_eq!(files(&dir.path().join("ledger")).len(), 4);
    assert_eq!(files(&dir.path().join("evidence")).len(), 1, "an empty one is not sealed");
}
