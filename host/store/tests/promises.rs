//! What the rooms that use the store rely on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, but not their helpers"
)]

use nineteen_domain::ledger::{Judgement, OursFault, PeriodRow, ProbeClass, QualitySample, Tally};
use nineteen_domain::{Check, Evidence, Hotkey, PeriodId, ProbeId, TaskName, Uid};
use nineteen_store::{Booked, Finished, Record, Store, StoreError, WeightsSet};

mod common;
use common::{body, finished, options, probe};

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options()).unwrap();
    (dir, store)
}

fn sample(slot: u32, at_us: u64) -> QualitySample {
    QualitySample {
        probe: probe(1, slot),
        judgement: Judgement::Scored,
        quality: 0.75,
        units: 10,
        response_us: 100,
        first_unit_us: None,
        at_us,
        reasons: vec![],
        period_us: 60_000_000,
        suspicion: None,
    }
}

fn row(period: u64, miner: u8, task: &str) -> PeriodRow {
    PeriodRow {
        period: PeriodId(period),
        task: TaskName::new(task).unwrap(),
        miner: Hotkey::from_bytes([miner; 32]),
        uid: Uid(miner.into()),
        announced: Some(1.5),
        capacity: 100,
        tally: Tally::default(),
        score: Some(0.1 + 0.2),
        windows: Vec::new(),
        started_us: period * 10,
        ended_us: period * 10 + 10,
    }
}

#[test]
fn a_probe_is_finished_once_and_the_first_word_counts() {
    let (dir, store) = open();
    let interrupted = || {
        Record::ProbeFinished(Finished {
            probe: probe(1, 0),
            class: ProbeClass::Ours(OursFault::Interrupted),
            units: 0,
            expected: 64,
            took_us: 0,
            exchange: None,
            at_us: 9,
        })
    };
    assert_eq!(store.append(finished(0)).wait(), Ok(Booked::New));
    assert_eq!(store.append(interrupted()).wait(), Ok(Booked::AlreadyBooked));
    drop(store);
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!(store.append(interrupted()).wait(), Ok(Booked::AlreadyBooked));
    assert_eq!(store.finished_probe(&probe(1, 0)).unwrap().unwrap().class, ProbeClass::Answered);
    assert_eq!(store.verify().unwrap().records, 1);
}

#[test]
fn of_many_that_race_to_finish_a_probe_one_wins() {
    let (_dir, store) = open();
    let acks: Vec<_> = (0..64).map(|_| store.append(finished(0))).collect();
    let new = acks.into_iter().map(|a| a.wait().unwrap()).filter(|b| *b == Booked::New).count();
    assert_eq!(new, 1);
    assert_eq!(store.verify().unwrap().records, 1);
}

#[test]
fn a_period_settles_once_with_all_its_rows_or_none() {
    let (_dir, store) = open();
    let settle = |w: f64| {
        vec![
            Record::Row(row(1, 1, "chat")),
            Record::Row(row(1, 2, "chat")),
            Record::Settled { period: PeriodId(1), settlement: serde_json::json!({ "w": w }) },
        ]
    };
    store.append(Record::PlanStored { period: PeriodId(1), plan: serde_json::json!({}) }).wait().unwrap();
    assert_eq!(store.unsettled_periods().unwrap(), [PeriodId(1)]);
    assert_eq!(store.append_all(settle(0.1)).wait(), Ok(Booked::New));
    assert_eq!(store.append_all(settle(0.9)).wait(), Ok(Booked::AlreadyBooked));
    assert_eq!(store.unsettled_periods().unwrap(), []);
    assert_eq!(store.latest_settlement().unwrap(), Some((PeriodId(1), serde_json::json!({ "w": 0.1 }))));
    assert_eq!(store.settlement(PeriodId(2)).unwrap(), None);
}

#[test]
fn what_is_sent_and_not_finished_is_known_after_a_restart() {
    let (dir, store) = open();
    for slot in 0..4 {
        let sent = || Record::ProbeSent { probe: probe(1, slot), at_us: 7, request: None };
        assert_eq!(store.append(sent()).wait(), Ok(Booked::New));
        // The second intent is refused: nobody sends a probe twice.
        assert_eq!(store.append(sent()).wait(), Ok(Booked::AlreadyBooked));
    }
    store.append(finished(1)).wait().unwrap();
    drop(store);
    let store = Store::open(dir.path(), options()).unwrap();
    assert!(store.was_sent(&probe(1, 1)).unwrap() && !store.was_sent(&probe(1, 9)).unwrap());
    let open: Vec<_> = store.unfinished_probes(PeriodId(1)).unwrap();
    assert_eq!(open, [(probe(1, 0), 7), (probe(1, 2), 7), (probe(1, 3), 7)]);
    assert_eq!(store.unfinished_probes(PeriodId(2)).unwrap(), []);
}

#[test]
fn plans_come_back_and_the_latest_is_known() {
    let (dir, store) = open();
    assert_eq!(store.latest_period().unwrap(), None);
    let plan = |n: u64| serde_json::json!({ "period": n, "probes": vec![0.1; 5_000] });
    for n in [1, 2, 300] {
        store.append(Record::PlanStored { period: PeriodId(n), plan: plan(n) }).wait().unwrap();
    }
    drop(store);
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!(store.latest_period().unwrap(), Some(PeriodId(300)));
    assert_eq!(store.plan(PeriodId(2)).unwrap(), Some(plan(2)));
    assert_eq!(store.plan(PeriodId(3)).unwrap(), None);
}

#[test]
fn rows_come_newest_first_and_only_of_that_miner_and_task() {
    let (_dir, store) = open();
    let mut records = Vec::new();
    for period in [3, 1, 2, 256] {
        for miner in [1, 2, 255] {
            for task in ["chat", "chat-2", "embed"] {
                records.push(Record::Row(row(period, miner, task)));
            }
        }
    }
    store.append_all(records).wait().unwrap();
    let (miner, task) = (Hotkey::from_bytes([255; 32]), TaskName::new("chat").unwrap());
    let periods = |since| -> Vec<u64> {
        store.rows(&miner, &task, since).unwrap().into_iter().map(|r| r.period.0).collect()
    };
    assert_eq!(periods(0), [256, 3, 2, 1]);
    assert_eq!(periods(30), [256, 3, 2], "a row counts from its end on");
    assert_eq!(periods(31), [256, 3]);
    assert_eq!(periods(u64::MAX), [0_u64; 0]);
    assert_eq!(store.rows(&miner, &task, 0).unwrap()[1], row(3, 255, "chat"), "to the last bit");

    assert_eq!(store.pairs().unwrap().len(), 9);
    assert_eq!(
        store.tasks().unwrap().iter().map(TaskName::as_str).collect::<Vec<_>>(),
        ["chat", "chat-2", "embed"]
    );
    assert_eq!(store.miners().unwrap(), [1, 2, 255].map(|m| Hotkey::from_bytes([m; 32])));
}

#[test]
fn samples_come_newest_first_up_to_a_limit() {
    let (_dir, store) = open();
    for (slot, at_us) in [(0, 50), (1, 10), (2, 70), (3, 70), (4, 30)] {
        assert_eq!(store.append(Record::Sample(sample(slot, at_us))).wait(), Ok(Booked::New));
        // Judged again at another time: once is enough.
        let again = store.append(Record::Sample(sample(slot, at_us + 1_000))).wait();
        assert_eq!(again, Ok(Booked::AlreadyBooked));
    }
    let ProbeId { miner, task, .. } = probe(1, 0);
    let slots = |since, limit| -> Vec<u32> {
        store.samples(&miner, &task, since, limit).unwrap().into_iter().map(|s| s.probe.slot).collect()
    };
    assert_eq!(slots(0, 100), [3, 2, 0, 4, 1]);
    assert_eq!(slots(30, 100), [3, 2, 0, 4]);
    assert_eq!(slots(0, 2), [3, 2]);
    assert_eq!(store.sample(&probe(1, 4)).unwrap(), Some(sample(4, 30)));
    assert_eq!(store.pairs().unwrap(), [(task, miner)]);
}

#[test]
fn bodies_weights_and_counts_are_found_again() {
    let (_dir, store) = open();
    let check = Check { kind: "text.replay".into(), model: None, params: "{}".into(), blobs: vec![] };
    let transcript = vec![(check, Evidence::Unavailable("busy".into()))];
    let weights = |at_us| WeightsSet { at_us, weights: vec![(Uid(3), 65_535)], refused: None };
    let records = vec![
        body(1, 5_000),
        Record::EvidenceBody { probe: probe(1, 1), transcript: transcript.clone() },
        finished(1),
        Record::WeightsSet(weights(5)),
        Record::WeightsSet(weights(6)),
    ];
    assert_eq!(store.append_all(records).wait(), Ok(Booked::New));
    assert_eq!(store.exchange(&probe(1, 1)).unwrap().unwrap().1.body_len(), 5_000);
    assert_eq!(store.exchange(&probe(1, 2)).unwrap(), None);
    assert_eq!(store.evidence(&probe(1, 1)).unwrap(), Some(transcript));
    assert_eq!(store.weights(1).unwrap(), [weights(6)]);
    let counts = store.counts().unwrap();
    assert_eq!(
        (counts.exchanges, counts.evidence, counts.finished, counts.weights, counts.rows),
        (1, 1, 1, 2, 0)
    );
    assert!(counts.families.iter().all(|f| f.segments == 1 && f.bytes > 40));
}

#[test]
fn a_store_is_opened_once_and_found_only_where_one_is() {
    let (dir, store) = open();
    let err = Store::open(dir.path(), options()).unwrap_err();
    assert!(matches!(err, StoreError::Locked { pid: Some(p), .. } if p == std::process::id()), "{err}");
    drop(store);
    Store::open(dir.path(), options()).unwrap();
    let nowhere = dir.path().join("nowhere");
    assert_eq!(Store::open_existing(&nowhere, options()).unwrap_err().code(), "store.missing");
    assert!(!nowhere.exists(), "a mistyped path creates nothing");
}

#[test]
fn a_closed_store_takes_nothing_and_says_so() {
    let (_dir, store) = open();
    store.append(finished(1)).wait().unwrap();
    store.close().unwrap();
    store.close().unwrap();
    assert_eq!(store.append(finished(2)).wait(), Err(StoreError::Closed));
    assert!(store.finished_probe(&probe(1, 1)).unwrap().is_some(), "reading goes on");
}

#[test]
fn an_append_that_is_too_large_is_refused_by_name() {
    let (_dir, store) = open();
    let err = store.append(body(1, 49 << 20)).wait().unwrap_err();
    assert_eq!(err.code(), "store.too-large");
    assert_eq!(store.append(body(1, 40 << 20)).wait(), Ok(Booked::New));
    assert_eq!(store.exchange(&probe(1, 1)).unwrap().unwrap().1.body_len(), 40 << 20);
    assert_eq!(store.append_all(Vec::new()).wait(), Ok(Booked::AlreadyBooked));
}

#[test]
fn the_master_seed_stays_the_same_and_is_in_no_journal() {
    let (dir, store) = open();
    let seed = *store.master_seed().unwrap().expose();
    store.append(finished(1)).wait().unwrap();
    drop(store);
    for folder in ["ledger", "exchanges", "evidence", "view"] {
        for file in std::fs::read_dir(dir.path().join(folder)).unwrap().map(|e| e.unwrap().path()) {
            if file.is_file() {
                let bytes = std::fs::read(file).unwrap();
                assert!(!bytes.windows(8).any(|w| w == &seed[..8]));
            }
        }
    }
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!(*store.master_seed().unwrap().expose(), seed);
    store.append(Record::PlanStored { period: PeriodId(1), plan: serde_json::json!(1) }).wait().unwrap();
    std::fs::remove_file(dir.path().join("seed")).unwrap();
    assert_eq!(store.master_seed().unwrap_err().code(), "store.seed-missing");
}
