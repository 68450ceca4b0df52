//! Does a task keep the contract? Every promise of the contract is tried on the component itself.
//!
//! What is tried: the same inputs give the same bits, twice and on another kind of instance; answers of better grades are worth
//! more; any cut of the same bytes is worth the same; garbage never makes it fail; synthetic requests vary, and are what a
//! client could have sent; half of every budget is left.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use nineteen_domain::{Admission, Chunk, Evidence, Exchange, Outcome, Seed};
use nineteen_sandbox::vectors::{self, Grade, Vector, Vectors, said};
use nineteen_sandbox::{Assets, ComponentSource, Plugin, Sandbox, SandboxConfig, Scoring};
use serde::Serialize;

use crate::error::AuthorError;
use crate::project::read_manifest;

/// Synthetic requests that are drawn.
const SEEDS: u8 = 64;
/// Of them different ones, at least.
const DIFFERENT: usize = 32;
/// The version of the contract that brought `score-batch`.
const FIRST_WITH_BATCHES: semver::Version = semver::Version::new(0, 2, 0);

/// What may be used of a budget: the rest is for requests that are larger than these.
const MOST_OF_BUDGET: f64 = 0.5;

/// One promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub promise: &'static str,
    /// Whether it is kept.
    pub kept: bool,
    /// What was found.
    pub words: String,
}

/// What was found of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The task's name.
    pub task: String,
    /// Its component's digest.
    pub component: String,
    /// The contract that it was built against.
    pub wit: String,
    /// Promise by promise.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether all are kept.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.findings.iter().all(|f| f.kept)
    }
}

/// Loads a task's folder: manifest, component (there, or given), calibration and vectors.
pub(crate) async fn load(
    task: &Path,
    component: Option<&Path>,
    sandbox: &Sandbox,
) -> Result<(Arc<Plugin>, Vectors), AuthorError> {
    let manifest = read_manifest(task)?;
    let own = task.join(format!("{}.wasm", manifest.component));
    let file = component.unwrap_or(&own);
    if !file.is_file() {
        return Err(AuthorError::file(
            file,
            "not there: run `nineteen task build`, or name it with --component",
        ));
    }
    let calibration = task.join(nineteen_domain::calibration::FILE);
    let assets = match std::fs::read(&calibration) {
        Ok(bytes) => Assets::new([(nineteen_domain::calibration::FILE.to_owned(), bytes.into())].into()),
        Err(_) => Assets::none(),
    };
    let plugin = sandbox
        .load(ComponentSource::Path(file.to_owned()), None, &manifest, assets)
        .await
        .map_err(|e| AuthorError::file(&task.join("task.toml"), e.to_string()))?;
    let at = task.join(vectors::FILE);
    let vectors = match std::fs::read(&at) {
        Ok(bytes) => Vectors::read(&bytes).map_err(|e| AuthorError::file(&at, e.to_string()))?,
        Err(_) => Vectors::default(),
    };
    Ok((plugin, vectors))
}

/// Holds a task to the contract. `cache` is where compiled components are kept.
///
/// # Errors
/// A task that does not load at all, in the host's words.
pub async fn check(
    task: &Path,
    component: Option<&Path>,
    config: SandboxConfig,
) -> Result<Report, AuthorError> {
    let start = |e: nineteen_sandbox::SandboxError| AuthorError::file(&config.cache_dir, e.to_string());
    let pooled = Sandbox::new(config.clone()).map_err(start)?;
    let mapped = Sandbox::without_pool(config.clone()).map_err(start)?;
    let (plugin, vectors) = load(task, component, &pooled).await?;
    let (again, _) = load(task, component, &mapped).await?;
    let work = move || report(&plugin, &again, &vectors);
    let failed = |e: tokio::task::JoinError| AuthorError::file(task, e.to_string());
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn report(plugin: &Plugin, again: &Plugin, vectors: &Vectors) -> Report {
    let findings = vec![
        finding("loads", Ok(format!("{}, no import that is not granted", plugin.description().name))),
        finding("synthetic requests vary", synthetic(plugin, again)),
        finding("clients can send what is synthetic", admitted(plugin)),
        finding("bodies of clients never make it fail", refused(plugin)),
        finding("vectors come out as meant", meant(plugin, vectors)),
        finding("the same inputs give the same bits", same(plugin, again, vectors)),
        finding("a batch says what each exchange alone does", batched(plugin, vectors)),
        finding("better answers are worth more", graded(plugin, vectors)),
        finding("any cut of the bytes is worth the same", cut(plugin, vectors)),
        finding("garbage never makes it fail", garbage(plugin, vectors)),
        finding("missing evidence is held against nobody", unavailable(plugin, vectors)),
        finding("half of every budget is left", room(plugin)),
    ];
    Report {
        task: plugin.task().to_string(),
        component: plugin.digest().to_string(),
        wit: plugin.wit_version().to_string(),
        findings,
    }
}

fn finding(promise: &'static str, found: Result<String, String>) -> Finding {
    match found {
        Ok(words) => Finding { promise, kept: true, words },
        Err(words) => Finding { promise, kept: false, words },
    }
}

fn seed(n: u8) -> Seed {
    Seed::from_bytes(std::array::from_fn(|i| n.wrapping_mul(31).wrapping_add(u8::try_from(i).unwrap_or(0))))
}

fn differ<T: PartialEq + Debug>(what: &str, a: &T, b: &T) -> Result<(), String> {
    if a == b {
        return Ok(());
    }
    let short = |x: &T| format!("{x:?}").chars().take(160).collect::<String>();
    Err(format!("{what} says {} and then {}: it is no pure function of its inputs", short(a), short(b)))
}

fn synthetic(plugin: &Plugin, again: &Plugin) -> Result<String, String> {
    let (mut bodies, mut units) = (BTreeSet::new(), Vec::new());
    let path = plugin.manifest().path.as_str();
    for n in 0..SEEDS {
        let made = plugin.synthesize(&seed(n)).map_err(|e| e.to_string())?;
        differ("synthesize", &made, &plugin.synthesize(&seed(n)).map_err(|e| e.to_string())?)?;
        differ(
            "synthesize on another instance",
            &made,
            &again.synthesize(&seed(n)).map_err(|e| e.to_string())?,
        )?;
        if made.request.path != path {
            return Err(format!(
                "a request goes to {:?}, and the manifest's path is {path:?}",
                made.request.path
            ));
        }
        units.push(made.expected_units);
        bodies.insert(made.request.body);
    }
    units.sort_unstable();
    if bodies.len() < DIFFERENT {
        return Err(format!("{SEEDS} seeds make {} requests: miners would know them by heart", bodies.len()));
    }
    let (least, most) = (units.first().copied().unwrap_or(0), units.last().copied().unwrap_or(0));
    let bytes = bodies.iter().map(Bytes::len).max().unwrap_or(0);
    Ok(format!("{} of {SEEDS} seeds differ; {least} to {most} units, {bytes} bytes at most", bodies.len()))
}

fn admitted(plugin: &Plugin) -> Result<String, String> {
    let manifest = plugin.manifest();
    for n in 0..SEEDS {
        let r = plugin.synthesize(&seed(n)).map_err(|e| e.to_string())?.request;
        match plugin
            .admit(&manifest.operation, &r.content_type, &r.body, &seed(n))
            .map_err(|e| e.to_string())?
        {
            Admission::Admitted(a) if a.path == manifest.path => {}
            Admission::Admitted(a) => return Err(format!("it is sent to {:?}", a.path)),
            Admission::Refused(r) => {
                return Err(format!(
                    "seed {n}: admit refuses what synthesize made: {}: {}",
                    r.code, r.message
                ));
            }
        }
    }
    Ok("admit takes what synthesize makes: a miner cannot tell them apart by what is possible".into())
}

fn refused(plugin: &Plugin) -> Result<String, String> {
    let operation = plugin.manifest().operation.clone();
    let made = plugin.synthesize(&seed(0)).map_err(|e| e.to_string())?.request;
    let mut refusals = 0;
    for body in mutations(&made.body) {
        match plugin.admit(&operation, &made.content_type, &body, &seed(1)).map_err(|e| e.to_string())? {
            Admission::Refused(r) if (400..500).contains(&r.status) => refusals += 1,
            Admission::Refused(r) => return Err(format!("a refusal has the status {}", r.status)),
            Admission::Admitted(_) => {}
        }
    }
    Ok(format!("{refusals} refused with a status and a message"))
}

fn meant(plugin: &Plugin, vectors: &Vectors) -> Result<String, String> {
    let all = vectors.all();
    for grade in [Grade::Perfect, Grade::Perturbed, Grade::Garbage] {
        if !all.iter().any(|v| v.grade == grade) {
            let name = format!("{grade:?}").to_lowercase();
            return Err(format!("{} has no vector of grade {name}: write one down", vectors::FILE));
        }
    }
    vectors.play(plugin).map_err(|e| e.to_string())?;
    Ok(format!("{} vectors", all.len()))
}

fn score(plugin: &Plugin, v: &Vector, exchange: &Exchange) -> Result<Outcome, String> {
    plugin.score(&v.request, exchange, &v.evidence).map_err(|e| format!("'{}': {e}", v.name))
}

fn same(plugin: &Plugin, again: &Plugin, vectors: &Vectors) -> Result<String, String> {
    for v in vectors.all() {
        let first = format!("{:?}", score(plugin, v, &v.exchange)?);
        differ("score", &first, &format!("{:?}", score(plugin, v, &v.exchange)?))?;
        differ("score on another instance", &first, &format!("{:?}", score(again, v, &v.exchange)?))?;
    }
    Ok("twice, and on an instance of another kind".into())
}

/// The host falls back on `score` where a batch fails or differs, so that only the author can notice.
fn batched(plugin: &Plugin, vectors: &Vectors) -> Result<String, String> {
    if *plugin.wit_version() < FIRST_WITH_BATCHES {
        return Ok("its version of the contract knows none".into());
    }
    let one = |v: &Vector| Scoring {
        request: v.request.clone(),
        exchange: v.exchange.clone(),
        evidence: v.evidence.clone(),
    };
    // Twice, so that there are two of one vector, too.
    let batch: Vec<Scoring> = vectors.all().iter().chain(vectors.all()).map(one).collect();
    for (v, said) in vectors.all().iter().chain(vectors.all()).zip(plugin.score_batch(&batch)) {
        let said = said.map_err(|e| format!("'{}': {e}", v.name))?;
        differ("score-batch", &format!("{:?}", score(plugin, v, &v.exchange)?), &format!("{said:?}"))?;
    }
    let failed = plugin.spent().get("score-batch").map_or(0, |s| s.failed);
    if failed > 0 {
        return Err("score-batch fails where score does not: the host would score each exchange alone".into());
    }
    if plugin.batches_are_distrusted() {
        return Err(
            "score-batch gives other outcomes than score: the host would score each exchange alone".into()
        );
    }
    Ok(format!("{} exchanges in one call", batch.len()))
}

fn worth(outcome: &Outcome) -> Option<f64> {
    match outcome {
        Outcome::Scored(v) => Some(v.quality),
        Outcome::Violation(_) => Some(0.0),
        Outcome::Inconclusive(_) | Outcome::Need(_) => None,
    }
}

fn graded(plugin: &Plugin, vectors: &Vectors) -> Result<String, String> {
    let mut range = [(f64::INFINITY, f64::NEG_INFINITY); 3];
    for v in vectors.all() {
        let Some(worth) = worth(&score(plugin, v, &v.exchange)?) else { continue };
        let Some((low, high)) = range.get_mut(v.grade as usize) else { continue };
        (*low, *high) = (low.min(worth), high.max(worth));
    }
    let [garbage, perturbed, perfect] = range;
    if perfect.0 < perturbed.1 || perturbed.0 < garbage.1 {
        return Err(format!(
            "garbage is worth up to {}, nearly right {} to {}, right at least {}",
            garbage.1, perturbed.0, perturbed.1, perfect.0
        ));
    }
    Ok(format!(
        "right {} and more, nearly right {} to {}, garbage {} at most",
        perfect.0, perturbed.0, perturbed.1, garbage.1
    ))
}

/// The same bytes at the same times, in pieces of this size.
fn pieces(exchange: &Exchange, size: usize) -> Exchange {
    let cut = exchange.chunks.iter().flat_map(|c| {
        c.data.chunks(size.max(1)).map(|piece| Chunk { at_us: c.at_us, data: Bytes::copy_from_slice(piece) })
    });
    Exchange { chunks: cut.take(16_384).collect(), ..exchange.clone() }
}

fn cut(plugin: &Plugin, vectors: &Vectors) -> Result<String, String> {
    let mut tried = 0;
    for v in vectors.all() {
        let whole = score(plugin, v, &v.exchange)?;
        let bytes: usize = v.exchange.chunks.iter().map(|c| c.data.len()).sum();
        for size in [1, 7, 64, 1_000] {
            if bytes / size > 16_000 {
                continue;
            }
            tried += 1;
            let other = score(plugin, v, &pieces(&v.exchange, size))?;
            let alike = match (&whole, &other) {
                (Outcome::Scored(a), Outcome::Scored(b)) => {
                    a.quality.to_bits() == b.quality.to_bits() && a.units == b.units
                }
                (Outcome::Violation(a), Outcome::Violation(b)) => a == b,
                (Outcome::Inconclusive(_), Outcome::Inconclusive(_))
                | (Outcome::Need(_), Outcome::Need(_)) => true,
                _ => false,
            };
            if !alike {
                let (whole, other) = (said(&whole), said(&other));
                return Err(format!("'{}': whole it is {whole}, in pieces of {size} bytes {other}", v.name));
            }
        }
    }
    Ok(format!("{tried} cuts"))
}

/// What bytes become on their way and in bad hands.
fn mutations(bytes: &[u8]) -> Vec<Bytes> {
    let mut all: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        b"NaN".to_vec(),
        b"[".repeat(100_000),
        b"{\"a\":".repeat(10_000),
        vec![b' '; 100_000],
    ];
    for n in 1..8 {
        all.push(bytes.get(..bytes.len() * n / 8).unwrap_or_default().to_vec());
    }
    for n in 0..24_usize {
        let mut flipped = bytes.to_vec();
        let len = flipped.len().max(1);
        if let Some(b) = flipped.get_mut(n * 131 % len) {
            *b ^= 1 << (n % 8);
        }
        all.push(flipped);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        for (from, to) in [("\"", ""), ("[", "{"), (":", ","), ("1", "1e999"), ("0", "-0.0"), ("a", "\u{0}")]
        {
            all.push(text.replace(from, to).into_bytes());
        }
    }
    all.push([bytes, bytes].concat());
    all.into_iter().map(Into::into).collect()
}

fn garbage(plugin: &Plugin, vectors: &Vectors) -> Result<String, String> {
    let mut tried = 0;
    for v in vectors.all().iter().filter(|v| v.grade == Grade::Perfect).take(4) {
        let whole: Vec<u8> = v.exchange.chunks.iter().flat_map(|c| c.data.iter().copied()).collect();
        let good = worth(&score(plugin, v, &v.exchange)?);
        for data in mutations(&whole) {
            let same = data == whole;
            let exchange = Exchange { chunks: vec![Chunk { at_us: 1, data }], ..v.exchange.clone() };
            plugin.count(&v.request, &exchange).map_err(|e| format!("'{}': {e}", v.name))?;
            let worth = worth(&score(plugin, v, &exchange)?);
            if !same && worth > good {
                return Err(format!(
                    "'{}': bytes that were changed are worth {worth:?}, those that were not {good:?}",
                    v.name
                ));
            }
            tried += 1;
        }
    }
    Ok(format!("{tried} changed answers"))
}

fn unavailable(plugin: &Plugin, vectors: &Vectors) -> Result<String, String> {
    let mut tried = 0;
    for v in vectors.all().iter().filter(|v| !v.evidence.is_empty()) {
        let none = v.evidence.iter().map(|(check, _)| (check.clone(), Evidence::Unavailable("busy".into())));
        let evidence: Vec<_> = none.collect();
        match plugin.score(&v.request, &v.exchange, &evidence).map_err(|e| format!("'{}': {e}", v.name))? {
            Outcome::Violation(why) if v.grade == Grade::Perfect => {
                return Err(format!("'{}': the executors were busy, and it says: {why}", v.name));
            }
            Outcome::Scored(s) if s.quality > 0.0 && v.grade != Grade::Perfect => {
                return Err(format!("'{}': without evidence it is worth {}", v.name, s.quality));
            }
            _ => tried += 1,
        }
    }
    Ok(if tried == 0 {
        "it asks for no checks".into()
    } else {
        format!("{tried} vectors without their evidence")
    })
}

#[expect(clippy::cast_precision_loss, reason = "parts of a budget")]
fn room(plugin: &Plugin) -> Result<String, String> {
    let (b, mut worst) = (plugin.manifest().budget, Vec::new());
    // A batch has the budget of all of its exchanges, each of which was called alone, too.
    for (call, s) in plugin.spent().into_iter().filter(|(call, _)| call != "score-batch") {
        for (what, used, of) in [
            ("fuel", s.most_fuel, b.fuel),
            ("memory_bytes", s.most_memory, b.memory_bytes),
            ("bytes_in", s.most_bytes_in, b.bytes_in),
        ] {
            worst.push((used as f64 / of.max(1) as f64, call.clone(), what));
        }
    }
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    let Some((part, call, what)) = worst.first() else { return Err("nothing was called".into()) };
    let words = format!("{call} uses {:.1} % of budget.{what}", part * 100.0);
    if *part > MOST_OF_BUDGET {
        Err(format!("{words}: raise it, or do less"))
    } else {
        Ok(format!("{words}, the most of any"))
    }
}
