//! Independent runs on several threads: what comes out does not depend on how many there are.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::SimulateError;

/// Does every job, at most `threads` at once, and returns what they gave in the order of the jobs; or the error of
/// the first that failed. `done` hears which part of them is done, in [0, 1].
pub(crate) fn all<J: Sync, R: Send>(
    threads: usize,
    jobs: &[J],
    work: impl Fn(&J) -> Result<R, SimulateError> + Sync,
    done: impl Fn(f64) + Sync,
) -> Result<Vec<R>, SimulateError> {
    let next = AtomicUsize::new(0);
    let finished = AtomicUsize::new(0);
    // Plain data behind it: a panic elsewhere leaves nothing half-written.
    let results: Mutex<Vec<Option<Result<R, SimulateError>>>> =
        Mutex::new(jobs.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                while let Some((at, job)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, jobs.get(at)?)))
                {
                    let result = work(job);
                    let failed = result.is_err();
                    if let Ok(mut all) = results.lock()
                        && let Some(place) = all.get_mut(at)
                    {
                        *place = Some(result);
                    }
                    let n = finished.fetch_add(1, Ordering::Relaxed) + 1;
                    #[expect(clippy::cast_precision_loss, reason = "a part of a few thousand jobs")]
                    done(n as f64 / jobs.len() as f64);
                    if failed {
                        next.store(jobs.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut good = Vec::with_capacity(jobs.len());
    let mut missing = false;
    for result in results {
        match result {
            Some(result) => good.push(result?),
            None => missing = true,
        }
    }
    if missing {
        return Err(SimulateError::Setup { why: "a run was broken off".into() });
    }
    Ok(good)
}
