//! Processes that die, that hold the store, that run into a limit. The children are this test binary
//! again, told by the environment which role to play.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, but not their helpers"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nineteen_domain::PeriodId;
use nineteen_store::{Booked, Options, Store, StoreError};

mod common;
use common::{body, finished, options, probe};

const ROLE: &str = "NINETEEN_STORE_ROLE";
const DIR: &str = "NINETEEN_STORE_DIR";
const CYCLE: &str = "NINETEEN_STORE_CYCLE";
const RETRY: &str = "NINETEEN_STORE_RETRY";
const WRITERS: u32 = 4;
const CYCLES: u32 = 40;

/// The children begin here; in an ordinary run there is no role to play.
#[test]
fn the_children_of_the_other_tests() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = std::env::var(DIR).unwrap();
    match role.as_str() {
        "append" => append_until_killed(Path::new(&dir)),
        "hold" => hold_until_killed(Path::new(&dir)),
        "fill" => fill_until_full(Path::new(&dir)),
        other => panic!("no such role: {other}"),
    }
}

fn say(line: &str) {
    // One write per line, so that lines of different threads do not mix.
    std::io::stdout().lock().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

fn append_until_killed(dir: &Path) {
    let store = Store::open(dir, options()).unwrap();
    let cycle: u32 = std::env::var(CYCLE).unwrap().parse().unwrap();
    for slot in std::env::var(RETRY).unwrap().split_whitespace() {
        let slot = slot.parse().unwrap();
        let booked = store.append_all(vec![body(slot, 300), finished(slot)]).wait().unwrap();
        say(&format!("ack {slot} {}", if booked == Booked::New { "new" } else { "old" }));
    }
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = store.clone();
            scope.spawn(move || {
                for i in 0.. {
                    let slot = cycle * 1_000_000 + writer * 100_000 + i;
                    let booked = store.append_all(vec![body(slot, 300), finished(slot)]).wait().unwrap();
                    assert_eq!(booked, Booked::New);
                    say(&format!("ack {slot} new"));
                }
            });
        }
    });
}

fn hold_until_killed(dir: &Path) {
    let _store = Store::open(dir, options()).unwrap();
    say("ready");
    std::thread::sleep(Duration::from_secs(60));
}

fn fill_until_full(dir: &Path) {
    let options = Options { segment_bytes: u64::MAX, ..options() };
    let store = Store::open(dir, options).unwrap();
    for slot in 0..1_000 {
        match store.append_all(vec![body(slot, 300_000), finished(slot)]).wait() {
            Ok(_) => say(&format!("ack {slot} new")),
            Err(e) => {
                say(&format!("full {slot} {} {e}", e.code()));
                break;
            }
        }
    }
    // What fits still goes in, and the big one still does not.
    store.append(finished(5_000)).wait().unwrap();
    say("ack 5000 new");
    let again = store.append(body(6_000, 300_000)).wait().unwrap_err();
    say(&format!("again 6000 {} {again}", again.code()));
    store.append(body(7_000, 10)).wait().unwrap();
    say("ack 7000 new");
}

fn child(role: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    role_of(&mut command, role, dir);
    command
}

fn role_of(command: &mut Command, role: &str, dir: &Path) {
    command
        .args(["--exact", "the_children_of_the_other_tests", "--nocapture"])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
}

fn acks(child: &mut Child) -> impl Iterator<Item = (u32, bool)> + use<> {
    let out = BufReader::new(child.stdout.take().unwrap());
    out.lines().filter_map(|line| {
        let line = line.ok()?;
        let mut words = line.strip_prefix("ack ")?.split(' ');
        // A line that the kill cut short acknowledges nothing.
        let slot = words.next()?.parse().ok()?;
        matches!(words.next()?, "new" | "old").then_some((slot, line.ends_with("new")))
    })
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_is_there_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = BTreeSet::new();
    let mut in_flight: Vec<u32> = Vec::new();
    let mut found_in_flight = 0;
    for cycle in 0..CYCLES {
        let retry: Vec<_> = in_flight.drain(..).map(|s| s.to_string()).collect();
        let mut running = child("append", dir.path())
            .env(CYCLE, cycle.to_string())
            .env(RETRY, retry.join(" "))
            .spawn()
            .unwrap();
        let lines = acks(&mut running);
        let killer = std::thread::spawn(move || {
            // From "while it opens" to "well under way".
            let millis = u64::from((cycle * 7_919) % 251) + 5;
            std::thread::sleep(Duration::from_millis(millis));
            running.kill().unwrap();
            running.wait().unwrap();
        });
        let mut next: BTreeMap<u32, u32> = BTreeMap::new();
        for (slot, new) in lines {
            assert!(acked.insert(slot), "{slot} was acknowledged twice");
            if slot / 1_000_000 == cycle {
                next.insert((slot / 100_000) % 10, slot + 1);
            } else if !new {
                found_in_flight += 1;
            }
        }
        killer.join().unwrap();
        in_flight.extend(next.values());

        let store = Store::open(dir.path(), options()).unwrap();
        let there: Vec<u32> = store.finished(PeriodId(1)).map(|f| f.unwrap().probe.slot).collect();
        let set: BTreeSet<u32> = there.iter().copied().collect();
        assert_eq!(there.len(), set.len());
        let lost: Vec<_> = acked.difference(&set).collect();
        assert!(lost.is_empty(), "cycle {cycle}: lost {lost:?}");
        // Of what was not acknowledged, each writer had at most one append under way.
        assert!(set.len() - acked.len() <= (WRITERS * (cycle + 1)) as usize);
        for slot in acked.iter().rev().take(50) {
            let (request, exchange) = store.exchange(&probe(1, *slot)).unwrap().unwrap();
            assert_eq!(request.body, slot.to_string());
            assert_eq!(exchange.body_len(), 300);
        }
        let report = store.verify().unwrap();
        assert!(report.is_sound(), "cycle {cycle}: {report:?}");
    }
    assert!(acked.len() > 200, "only {} appends were tried", acked.len());
    println!("{} acknowledged over {CYCLES} kills, {found_in_flight} found on retry", acked.len());
}

#[test]
fn a_second_process_is_told_who_holds_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = child("hold", dir.path()).spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap() == "ready"));
    let err = Store::open_existing(dir.path(), options()).unwrap_err();
    assert!(matches!(err, StoreError::Locked { pid: Some(pid), .. } if pid == holder.id()), "{err}");
    assert!(err.to_string().contains(&holder.id().to_string()));
    holder.kill().unwrap();
    holder.wait().unwrap();
    // The kernel gave the lock back; nothing has to be cleaned up by hand.
    Store::open_existing(dir.path(), options()).unwrap();
}

/// The limit on a file's size stands for the full disk: a write is cut short and then refused.
#[test]
fn a_full_disk_is_an_error_and_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut limited = Command::new("sh");
    // 512-byte blocks; the signal is ignored so that the write itself fails.
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap());
    role_of(&mut limited, "fill", dir.path());
    let out = limited.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}");
    let word = |line: &str, n: usize| line.split(' ').nth(n).unwrap_or_default().to_owned();
    let acked: BTreeSet<u32> =
        text.lines().filter(|l| l.starts_with("ack ")).map(|l| word(l, 1).parse().unwrap()).collect();
    let full = text.lines().find(|l| l.starts_with("full ")).expect("it ran full");
    assert_eq!(word(full, 2), "store.full", "{full}");
    assert!(full.contains("free space"), "{full}");
    let again = text.lines().find(|l| l.starts_with("again ")).unwrap();
    assert_eq!(word(again, 2), "store.full", "{again}");
    let refused: u32 = word(full, 1).parse().unwrap();
    assert!(refused > 5);

    let store = Store::open(dir.path(), options()).unwrap();
    for slot in &acked {
        let whole = if *slot == 7_000 { 10 } else { 300_000 };
        if *slot != 5_000 {
            assert_eq!(store.exchange(&probe(1, *slot)).unwrap().unwrap().1.body_len(), whole);
        }
        assert_eq!(store.finished_probe(&probe(1, *slot)).unwrap().is_some(), *slot != 7_000);
    }
    // What was refused is not there at all: neither its body nor the ledger's word of it.
    for slot in [refused, 6_000] {
        assert_eq!(store.exchange(&probe(1, slot)).unwrap(), None);
        assert_eq!(store.finished_probe(&probe(1, slot)).unwrap(), None);
    }
    assert!(store.verify().unwrap().is_sound());
    // With room again, the same append goes through.
    let booked = store.append_all(vec![body(refused, 300_000), finished(refused)]).wait();
    assert_eq!(booked, Ok(Booked::New));
}
