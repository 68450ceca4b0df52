//! What a run cost this machine.

use std::time::Instant;

use serde::Serialize;

use crate::machine::float;

/// Time and memory of a run: the only part of a report that differs between two runs with the same options.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Timing {
    /// Seconds that passed.
    pub wall_s: f64,
    /// Seconds that its threads computed; 0 where the system does not say.
    pub cpu_s: f64,
    /// The most memory that this process ever held, in bytes; 0 where the system does not say.
    pub peak_rss_bytes: u64,
}

/// A stopwatch.
#[derive(Debug)]
pub(crate) struct Watch {
    began: Instant,
    cpu_s: f64,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), cpu_s: cpu_s() }
    }

    pub(crate) fn read(&self) -> Timing {
        Timing {
            wall_s: self.began.elapsed().as_secs_f64(),
            cpu_s: (cpu_s() - self.cpu_s).max(0.0),
            peak_rss_bytes: peak_rss_bytes(),
        }
    }
}

/// `VmHWM` of this process.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// User and system time of this process, in ticks of which Linux shows 100 a second.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything: fields are counted from behind it, the 14th and 15th of all.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    float(ticks) / 100.0
}
