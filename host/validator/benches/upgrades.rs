//! 100 upgrades of a task while 200 calls are in flight: what a call waits for because of them, whether any fails, and whether
//! memory comes back. `cargo xtask bench upgrades`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a bench: what fails is meant to panic"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nineteen_domain::meet::BoxFuture;
use nineteen_domain::{MasterSeed, Seed};
use nineteen_sandbox::{Sandbox, SandboxConfig};
use nineteen_validator::registrar::{Change, Ground, Registrar, Setup, Shelf, identity};
use nineteen_validator::registry::{self, Tasks};
use nineteen_validator::{Board, SystemClock, ValidatorError};

const CALLS: usize = 200;
const UPGRADES: u32 = 100;
/// How long a miner takes to answer.
const ANSWER: Duration = Duration::from_millis(500);

struct Bare;

impl Ground for Bare {
    fn prepare<'a>(&'a self, _: &'a Tasks) -> BoxFuture<'a, Result<(), ValidatorError>> {
        Box::pin(async { Ok(()) })
    }
    fn let_go(&self, _: &[Arc<Tasks>]) {}
}

fn cache() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("NINETEEN_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("nineteen")))
        .or_else(|| var("HOME").map(|p| p.join(".cache/nineteen")))
        .unwrap_or_default()
}

/// Resident memory, MiB.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = text.split_whitespace().nth(1).and_then(|p| p.parse().ok()).unwrap_or(0.0);
    pages * 4096.0 / f64::from(1 << 20)
}

/// Microseconds: of getting a snapshot, and of a whole call.
#[derive(Default)]
struct Seen {
    snapshot: Vec<f64>,
    call: Vec<f64>,
}

fn percentile(of: &mut [f64], p: f64) -> f64 {
    of.sort_by(f64::total_cmp);
    of[((of.len() - 1) as f64 * p) as usize]
}

fn phase(board: &Arc<Board>, name: &str, during: impl FnOnce()) -> (Seen, u64) {
    let (stop, failed) = (AtomicBool::new(false), AtomicU64::new(0));
    let all = Mutex::new(Seen::default());
    std::thread::scope(|scope| {
        for n in 0..CALLS {
            let (stop, failed, all) = (&stop, &failed, &all);
            let board = Arc::clone(board);
            scope.spawn(move || {
                let mut seen = Seen::default();
                let mut i = n as u64;
                while !stop.load(Relaxed) {
                    i += CALLS as u64;
                    let begun = Instant::now();
                    let tasks = board.now();
                    seen.snapshot.push(begun.elapsed().as_secs_f64() * 1e6);
                    let task = tasks.by_name.values().next().unwrap();
                    let seed = Seed::from_bytes(std::array::from_fn(|k| i.to_le_bytes()[k % 8]));
                    let made = task.plugin.synthesize(&seed);
                    seen.call.push(begun.elapsed().as_secs_f64() * 1e6);
                    // The miner thinks; then the call goes on with the tasks that it began with.
                    std::thread::sleep(ANSWER);
                    if made.is_err() || task.plugin.synthesize(&seed) != made {
                        failed.fetch_add(1, Relaxed);
                    }
                }
                let mut all = all.lock().unwrap();
                all.snapshot.extend(seen.snapshot);
                all.call.extend(seen.call);
            });
        }
        std::thread::sleep(Duration::from_millis(500));
        during();
        stop.store(true, Relaxed);
    });
    let mut seen = all.into_inner().unwrap();
    let (snapshot, call) = (percentile(&mut seen.snapshot, 0.999), percentile(&mut seen.call, 0.999));
    println!(
        "{name:<20} {:>9} calls   snapshot p99.9 {snapshot:>9.1} us   call p99.9 {call:>10.1} us   failed {}",
        seen.call.len(),
        failed.load(Relaxed)
    );
    let failed = failed.load(Relaxed);
    (seen, failed)
}

fn version(dir: &Path, n: u32) -> PathBuf {
    let folder = dir.join(format!("v{n}"));
    std::fs::create_dir_all(&folder).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tasks/embed-minilm-l6/task.toml");
    let text = std::fs::read_to_string(source).unwrap();
    let text = text
        .replace("version = \"0.1.0\"", &format!("version = \"0.1.{n}\""))
        .replace("epsilon = 0.2", &format!("epsilon = 0.2{:03}", n % 1000));
    std::fs::write(folder.join("task.toml"), text).unwrap();
    folder
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let components = cache().join("components");
    let sandbox = Sandbox::new(SandboxConfig {
        cache_dir: cache().join("compiled"),
        max_component_bytes: 64 << 20,
        compile_timeout: Duration::from_secs(180),
        max_concurrent_calls: 256,
        host_version: registry::host_version(),
    })
    .unwrap();
    let first = version(dir.path(), 0);
    let taskset = dir.path().join("taskset.toml");
    let text = format!(
        "name = 'b'\nversion = '1.0.0'\npolicy = 'default'\n[[task]]\nfolder = {first:?}\nweight = 1.0\n"
    );
    std::fs::write(&taskset, text).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let secret = MasterSeed::from_bytes([7; 32]);
    let tasks = runtime.block_on(registry::load(&taskset, &components, &sandbox, &secret)).unwrap();
    let board = Arc::new(Board::new(tasks));
    let base = identity(&taskset, &components).unwrap();
    let setup = Setup {
        board: Arc::clone(&board),
        sandbox: Arc::new(sandbox),
        secret,
        ground: Arc::new(Bare),
        clock: Arc::new(SystemClock),
        shelf: Shelf::new(dir.path().join("live")),
        components,
        follows: None,
    };
    let registrar = Registrar::start(setup, None, base, &taskset).unwrap();
    println!(
        "{CALLS} calls in flight on {} cores",
        std::thread::available_parallelism().map_or(1, |n| n.get())
    );
    let (mut quiet, _) = phase(&board, "without upgrades", || std::thread::sleep(Duration::from_secs(8)));
    let mut swaps = Vec::new();
    let mut hundred = |name: &str, first: u32| {
        phase(&board, name, || {
            for n in first..first + UPGRADES {
                let changed = runtime
                    .block_on(registrar.change(Change::Upgrade { folder: version(dir.path(), n) }))
                    .unwrap();
                let micros: u64 = changed.steps.iter().map(|s| s.micros).sum();
                swaps.push(micros as f64);
            }
        })
    };
    // The allocator keeps what the first hundred took: memory is compared after them.
    let (_, failed_first) = hundred("100 upgrades", 1);
    let before = resident();
    let (mut busy, failed) = hundred("100 upgrades more", 1 + UPGRADES);
    let failed = failed + failed_first;
    assert_eq!(board.in_use().len(), 1, "nobody holds on to what ran before");
    let after = resident();
    println!(
        "an upgrade under load: median {:.1} ms, most {:.1} ms",
        percentile(&mut swaps, 0.5) / 1e3,
        percentile(&mut swaps, 1.0) / 1e3
    );
    let pause = percentile(&mut busy.snapshot, 0.999) - percentile(&mut quiet.snapshot, 0.999);
    println!("pause at the 99.9th percentile: {:.3} ms (goal: at most 1)", pause.max(0.0) / 1e3);
    println!(
        "call p99.9 with upgrades over without: {:.2}",
        percentile(&mut busy.call, 0.999) / percentile(&mut quiet.call, 0.999)
    );
    println!("memory: {before:.1} MiB after the first hundred, {after:.1} MiB after the second");
    println!("failed calls: {failed} (goal: 0)");
}
