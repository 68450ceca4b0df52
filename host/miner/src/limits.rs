//! How much is served at once and per minute; the rest is told, at once, when to come back.
//!
//! The one idea: a 429 is cheap and honest, a reply that comes too late is neither, so a request waits only
//! as long as the operator said and never behind more others than the operator said.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::TaskConfig;
use crate::error::ApiError;

/// A bucket that holds some seconds' worth (one thing at least) and fills at that rate. Its level may go below zero
/// when the cost is known only afterwards.
#[derive(Debug)]
struct Bucket {
    per_s: f64,
    most: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_minute: f64, burst_s: u32, now: Instant) -> Self {
        let per_s = per_minute / 60.0;
        let most = (per_s * f64::from(burst_s)).max(1.0);
        Self { per_s, most, level: most, at: now }
    }

    /// `Ok` if something is left, else how long until there is.
    fn look(&mut self, least: f64, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = passed.mul_add(self.per_s, self.level).min(self.most);
        let missing = least - self.level;
        if missing <= 0.0 {
            return Ok(());
        }
        Err(Duration::try_from_secs_f64(missing / self.per_s).unwrap_or(Duration::from_secs(3600)))
    }
}

#[derive(Debug)]
struct Buckets {
    requests: Option<Bucket>,
    units: Option<Bucket>,
}

/// The gate before one task's model.
#[derive(Debug)]
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
    patience: Duration,
    buckets: Mutex<Buckets>,
}

/// A place at the model; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Arc<Gate>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Charges the units that the work took.
    pub(crate) fn charge(&self, units: u32) {
        if let Some(b) = &mut self.gate.lock().units {
            b.level -= f64::from(units);
        }
    }
}

/// Counts a waiter for as long as it lives, also when its client goes away.
struct Waiting<'g>(&'g AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Gate {
    pub(crate) fn new(task: &TaskConfig) -> Self {
        let now = Instant::now();
        Self {
            places: Arc::new(Semaphore::new(task.concurrency)),
            waiting: AtomicUsize::new(0),
            queue: task.queue,
            patience: Duration::from_millis(task.queue_ms),
            buckets: Mutex::new(Buckets {
                requests: task.requests_per_minute.map(|r| Bucket::new(r, task.burst_s, now)),
                units: task.units_per_minute.map(|r| Bucket::new(r, task.burst_s, now)),
            }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Buckets> {
        // A std mutex: held for a few additions, never across an await.
        self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Both buckets, the stricter one speaks; a request is taken from its bucket only if both agree.
    fn rate(&self, now: Instant) -> Result<(), ApiError> {
        let mut buckets = self.lock();
        let units = buckets.units.as_mut().map_or(Ok(()), |b| b.look(f64::EPSILON, now));
        let requests = buckets.requests.as_mut().map_or(Ok(()), |b| b.look(1.0, now));
        let wait = units.err().into_iter().chain(requests.err()).max();
        if let Some(wait) = wait {
            let s = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
            return Err(ApiError::rate_limited("the rate limit of this task is reached", s));
        }
        if let Some(b) = &mut buckets.requests {
            b.level -= 1.0;
        }
        Ok(())
    }

    /// A place, perhaps after a wait; or 429.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Place, ApiError> {
        self.rate(Instant::now())?;
        let place = |permit| Place { gate: Arc::clone(self), _permit: permit };
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place(permit));
        }
        let full = || ApiError::rate_limited("all places of this task are taken", 1);
        if self.waiting.fetch_add(1, SeqCst) >= self.queue {
            self.waiting.fetch_sub(1, SeqCst);
            return Err(full());
        }
        let _waiting = Waiting(&self.waiting);
        match tokio::time::timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(place(permit)),
            _ => Err(full()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn a_bucket_says_when_to_come_back() {
        let t = Instant::now();
        let mut b = Bucket::new(60.0, 60, t);
        assert!(b.look(1.0, t).is_ok());
        b.level -= 90.0;
        let wait = b.look(1.0, t).unwrap_err();
        assert!(near(wait.as_secs_f64(), 31.0), "{wait:?}");
        assert!(b.look(1.0, t + Duration::from_secs(32)).is_ok());
        b.look(0.0, t + Duration::from_secs(9_999)).unwrap();
        assert!(near(b.level, 60.0), "never more than a minute's worth");
    }

    #[test]
    fn a_short_burst_is_one_thing_at_least() {
        let t = Instant::now();
        assert!(near(Bucket::new(600.0, 3, t).level, 30.0));
        assert!(near(Bucket::new(9.0, 1, t).level, 1.0));
    }
}
