//! What a task's calls cost: fuel, time, memory, and the room that the budget leaves.

use std::path::Path;
use std::time::{Duration, Instant};

use nineteen_domain::Seed;
use nineteen_sandbox::{Sandbox, SandboxConfig};
use serde::Serialize;

use crate::check::load;
use crate::error::AuthorError;

/// One function.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Its name.
    pub call: String,
    /// Calls that were timed.
    pub calls: usize,
    /// Units of fuel of one call, the mean.
    pub fuel: u64,
    /// And the most.
    pub most_fuel: u64,
    /// Microseconds of one call, with a fresh instance: the median.
    pub median_us: f64,
    /// And the 99th percentile.
    pub p99_us: f64,
    /// The most linear memory, bytes.
    pub memory: u64,
    /// What is left of the budget that is used most, in [0, 1].
    pub room: f64,
    /// Which that is.
    pub tightest: &'static str,
}

/// What was measured of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bench {
    /// The task's name.
    pub task: String,
    /// Bytes of the component.
    pub component_bytes: u64,
    /// What loading took, microseconds by step: `compile` the first time, `cache` later.
    pub load_us: Vec<(String, f64)>,
    /// Function by function.
    pub lines: Vec<Line>,
    /// Stacks that were seen, outermost function first, and how often; where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<(Vec<String>, u64)>,
}

/// Measures for about so long a function, on this thread's core. With `watch`, also where the time goes; figures are worse then.
///
/// # Errors
/// A task that does not load; a call that fails.
pub async fn bench(
    task: &Path,
    component: Option<&Path>,
    config: SandboxConfig,
    each: Duration,
    watch: bool,
) -> Result<Bench, AuthorError> {
    let start = |e: nineteen_sandbox::SandboxError| AuthorError::file(&config.cache_dir, e.to_string());
    let sandbox = Sandbox::new(config.clone()).map_err(start)?;
    let (plugin, vectors) = load(task, component, &sandbox).await?;
    let manifest = plugin.manifest().clone();
    let own = task.join(format!("{}.wasm", manifest.component));
    let component_bytes = std::fs::metadata(component.unwrap_or(&own)).map_or(0, |m| m.len());
    let load_us = plugin.load_steps().iter().map(|(s, t)| ((*s).to_owned(), t.as_secs_f64() * 1e6)).collect();
    let watched = watch.then(|| plugin.watch_stacks());
    let run = move || -> Result<Vec<Line>, AuthorError> {
        let mut times: Vec<(&'static str, Vec<f64>)> = Vec::new();
        let mut n = 0_u8;
        let mut next = || {
            n = n.wrapping_add(1);
            Seed::from_bytes([n; 32])
        };
        times.push(("synthesize", time(each, || plugin.synthesize(&next()).map(drop))?));
        let made = plugin.synthesize(&Seed::from_bytes([7; 32]))?.request;
        let admit = || {
            plugin
                .admit(&manifest.operation, &made.content_type, &made.body, &Seed::from_bytes([7; 32]))
                .map(drop)
        };
        times.push(("admit", time(each, admit)?));
        let mut at = 0;
        let all = vectors.all();
        if !all.is_empty() {
            let mut turn = || {
                at = (at + 1) % all.len();
                all.get(at)
            };
            times.push((
                "count",
                time(each, || turn().map_or(Ok(()), |v| plugin.count(&v.request, &v.exchange).map(drop)))?,
            ));
            times.push((
                "score",
                time(each, || {
                    turn().map_or(Ok(()), |v| plugin.score(&v.request, &v.exchange, &v.evidence).map(drop))
                })?,
            ));
        }
        let (spent, b) = (plugin.spent(), manifest.budget);
        let lines = times.into_iter().filter_map(|(call, mut us)| {
            us.sort_by(f64::total_cmp);
            let s = spent.get(call)?;
            let parts = [
                ("fuel", part(s.most_fuel, b.fuel)),
                ("memory_bytes", part(s.most_memory, b.memory_bytes)),
                ("bytes_in", part(s.most_bytes_in, b.bytes_in)),
            ];
            let (tightest, used) = parts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
            let percentile = |p: usize| us.get((us.len() * p / 100).min(us.len().saturating_sub(1))).copied();
            Some(Line {
                call: call.into(),
                calls: us.len(),
                fuel: s.fuel / s.calls.max(1),
                most_fuel: s.most_fuel,
                median_us: percentile(50)?,
                p99_us: percentile(99)?,
                memory: s.most_memory,
                room: 1.0 - used,
                tightest,
            })
        });
        Ok(lines.collect())
    };
    let name = read_name(task)?;
    let failed = |e: tokio::task::JoinError| AuthorError::file(task, e.to_string());
    let lines = tokio::task::spawn_blocking(run).await.map_err(failed)??;
    let stacks = watched.map(|s| s.read().into_iter().collect()).unwrap_or_default();
    Ok(Bench { task: name, component_bytes, load_us, lines, stacks })
}

fn read_name(task: &Path) -> Result<String, AuthorError> {
    crate::project::read_manifest(task).map(|m| m.name.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "parts of a budget")]
fn part(used: u64, of: u64) -> f64 {
    used as f64 / of.max(1) as f64
}

/// Microseconds of every call, for about so long.
fn time(
    each: Duration,
    mut call: impl FnMut() -> Result<(), nineteen_sandbox::CallError>,
) -> Result<Vec<f64>, AuthorError> {
    for _ in 0..4 {
        call()?;
    }
    let (begun, mut us) = (Instant::now(), Vec::new());
    while begun.elapsed() < each && us.len() < 1_000_000 {
        let one = Instant::now();
        call()?;
        us.push(one.elapsed().as_secs_f64() * 1e6);
    }
    Ok(us)
}
