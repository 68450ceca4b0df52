//! Inputs that nobody thought of: mutants of the corpus, loaded, and called where they load, so that what they return is lifted.
//!
//! Without instrumentation of the compiler: an input is kept when it comes to an end that none before came to (another refusal,
//! another failure, another place). `cargo xtask fuzz` runs it for an hour in a process of its own; the file `current` beside
//! the corpus is what it was at when that process ended early. What is kept lies in `tests/corpus` and is replayed by every run
//! of the tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nineteen_domain::Outcome;

use crate::common::{Echo, House, exchange, request, seed};
use crate::corpus::{all, small};
use crate::mutation::Draws;

/// Larger ones take long to compile and say nothing new.
const MOST_BYTES: usize = 20_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The kept inputs, by name.
fn kept() -> Vec<(String, Bytes)> {
    let mut files: Vec<_> = std::fs::read_dir(folder()).unwrap().flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "wasm"));
    files.sort();
    files.into_iter().map(|p| (p.display().to_string(), std::fs::read(p).unwrap().into())).collect()
}

/// What becomes of an input, without its numbers: two inputs with the same end say the same.
async fn end(house: &House, bytes: Bytes) -> String {
    let mut manifest = small();
    manifest.budget.fuel = 500_000;
    let said = match house.try_load(bytes, &manifest).await {
        Err(refused) => {
            assert_eq!(refused.to_string().lines().count(), 1, "{refused}");
            format!("refused {} {refused}", refused.code())
        }
        Ok(plugin) => {
            let asked = Arc::clone(&plugin);
            let calls = tokio::task::spawn_blocking(move || {
                let made = asked.synthesize(&seed(1)).map_err(|e| e.to_string());
                let admitted =
                    asked.admit("echo", "text/plain", b"hello", &seed(1)).map_err(|e| e.to_string());
                let counted = asked.count(&request(), &exchange()).map_err(|e| e.to_string());
                format!("{:?} {:?} {:?}", made.err(), admitted.err(), counted.err())
            });
            let calls = calls.await.unwrap();
            let judged = plugin.judge(request(), exchange(), Arc::new(Echo::default())).await;
            match judged.result {
                Ok(Outcome::Scored(v)) => {
                    assert!((0.0..=1.0).contains(&v.quality), "{}", v.quality);
                    format!("scored {calls}")
                }
                Ok(Outcome::Need(_)) => panic!("the rounds ended undecided"),
                Ok(_) => format!("decided {calls}"),
                Err(failed) => format!("failed {} {failed} {calls}", failed.code()),
            }
        }
    };
    said.chars().filter(|c| !c.is_ascii_digit()).take(160).collect()
}

fn mutant(draws: &mut Draws, from: &[Bytes]) -> Vec<u8> {
    let mut bytes = from[draws.below(from.len())].to_vec();
    for _ in 0..=draws.below(4) {
        let at = draws.below(bytes.len().max(1));
        let len = (draws.below(64) + 1).min(bytes.len() - at.min(bytes.len()));
        match draws.below(7) {
            0..=2 if !bytes.is_empty() => bytes[at] ^= 1 << draws.below(8),
            3 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][draws.below(5)],
            4 => drop(bytes.splice(at..at + len, [])),
            5 => {
                let copy = bytes[at..at + len].to_vec();
                let to = draws.below(bytes.len() + 1);
                drop(bytes.splice(to..to, copy));
            }
            _ => {
                let other = &from[draws.below(from.len())];
                let begin = draws.below(other.len() + 1);
                let piece = other[begin..(begin + len).min(other.len())].to_vec();
                let to = draws.below(bytes.len() + 1);
                drop(bytes.splice(to..to, piece));
            }
        }
    }
    bytes.truncate(MOST_BYTES);
    bytes
}

#[tokio::test]
async fn what_the_fuzzer_kept_is_survived() {
    let house = House::new();
    let kept = kept();
    assert!(kept.len() >= 40, "{} inputs are kept", kept.len());
    for (name, bytes) in kept {
        eprintln!("{name}");
        end(&house, bytes).await;
    }
    house.still_serves().await;
}

#[tokio::test]
#[ignore = "takes as long as it is told to: cargo xtask fuzz"]
async fn fuzz() {
    let number =
        |name: &str, usual: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(usual);
    let (seconds, start) = (number("NINETEEN_FUZZ_SECONDS", 60), number("NINETEEN_FUZZ_SEED", 19));
    let house = House::new();
    let mut from: Vec<Bytes> =
        all().into_iter().map(|c| c.bytes).filter(|b| b.len() <= MOST_BYTES && !b.is_empty()).collect();
    from.extend(kept().into_iter().map(|(_, bytes)| bytes));
    let mut ends: BTreeSet<String> = BTreeSet::new();
    for bytes in from.clone() {
        ends.insert(end(&house, bytes).await);
    }
    let (current, mut draws) = (folder().join("current"), Draws::new(&start.to_le_bytes()));
    let (begun, mut ran, mut new) = (Instant::now(), 0_u64, 0_u64);
    let mut told = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        let bytes = mutant(&mut draws, &from);
        std::fs::write(&current, &bytes).unwrap();
        let found = end(&house, bytes.clone().into()).await;
        ran += 1;
        if ends.insert(found) {
            new += 1;
            let name = blake3::hash(&bytes).to_hex();
            std::fs::write(folder().join(format!("{}.wasm", &name[..16])), &bytes).unwrap();
            from.push(bytes.into());
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            let rate = ran as f64 / begun.elapsed().as_secs_f64();
            eprintln!("{ran} inputs, {rate:.0} a second, {new} kept, {} ends", ends.len());
        }
        if ran % 1_000 == 0 {
            house.still_serves().await;
        }
    }
    house.still_serves().await;
    std::fs::remove_file(current).unwrap();
    eprintln!("{ran} inputs in {seconds} s, {new} kept, {} ends; seed {start}", ends.len());
}
