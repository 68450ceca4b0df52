//! What is counted about a miner: classes of probes, tallies, period rows, quality samples.

use serde::{Deserialize, Serialize};

use crate::exchange::{Ending, Exchange, Phase};
use crate::id::{Hotkey, PeriodId, ProbeId, TaskName, Uid};

/// Why a request counts as failed by the miner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// No connection, or no HTTP.
    Refused,
    /// The connection did not stand in time.
    ConnectTimeout,
    /// No byte of the body in time.
    FirstByteTimeout,
    /// No complete event in time.
    IdleTimeout,
    /// Not finished in time.
    TotalTimeout,
    /// The connection broke.
    Disconnected,
    /// More bytes or chunks than allowed.
    TooLarge,
    /// Any status but 200 and 429.
    Status,
    /// 200, but the bytes are not a reply of this task.
    Malformed,
}

impl Failure {
    /// Kebab-case word, as it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect-timeout",
            Self::FirstByteTimeout => "first-byte-timeout",
            Self::IdleTimeout => "idle-timeout",
            Self::TotalTimeout => "total-timeout",
            Self::Disconnected => "disconnected",
            Self::TooLarge => "too-large",
            Self::Status => "status",
            Self::Malformed => "malformed",
        }
    }
}

/// A fault of ours: counted and visible, never the miner's (invariant 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OursFault {
    /// The validator stopped while the probe was under way.
    Interrupted,
    /// The plugin failed on this request before anything was sent.
    Plugin,
    /// The validator could not send (no socket, no memory, disk full).
    Host,
    /// It never left: its miner already had its fill of ours under way. In no tally, but the window that it
    /// belongs to counts it as not delivered.
    HeldBack,
}

/// Every request ends in exactly one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "class", content = "why")]
pub enum ProbeClass {
    /// 200, complete, parsed.
    Answered,
    /// 429, also on a stream.
    RateLimited,
    /// The miner's failure.
    Failed(Failure),
    /// Ours: not counted.
    Ours(OursFault),
}

impl ProbeClass {
    /// The class that the transport alone decides. `Answered` may still become `Failed(Malformed)` when
    /// the task's plugin cannot read the bytes.
    #[must_use]
    pub const fn of(exchange: &Exchange) -> Self {
        match exchange.ending {
            // A 429 is a 429 however its body ends.
            _ if exchange.status == 429 => Self::RateLimited,
            Ending::Complete if exchange.status == 200 => Self::Answered,
            Ending::Complete => Self::Failed(Failure::Status),
            Ending::Refused => Self::Failed(Failure::Refused),
            Ending::Timeout(Phase::Connect) => Self::Failed(Failure::ConnectTimeout),
            Ending::Timeout(Phase::FirstByte) => Self::Failed(Failure::FirstByteTimeout),
            Ending::Timeout(Phase::Idle) => Self::Failed(Failure::IdleTimeout),
            Ending::Timeout(Phase::Total) => Self::Failed(Failure::TotalTimeout),
            Ending::Disconnected => Self::Failed(Failure::Disconnected),
            Ending::TooLarge => Self::Failed(Failure::TooLarge),
        }
    }
}

/// Requests of one (miner, task, period) by class, and the volume served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Answered requests.
    pub answered: u64,
    /// 429s.
    pub rate_limited: u64,
    /// The miner's failures.
    pub failed: u64,
    /// Our faults; in no formula.
    pub ours: u64,
    /// Units of work served by answered requests, as `count` read them from the bytes.
    pub consumed: u64,
    /// Units expected of every request but ours, answered or not.
    pub asked: u64,
}

impl Tally {
    /// Requests that count: all but ours.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.answered.saturating_add(self.rate_limited).saturating_add(self.failed)
    }

    /// Books one request. `units` are those served (answered) and `expected` those asked for.
    pub const fn book(&mut self, class: ProbeClass, units: u64, expected: u64) {
        match class {
            ProbeClass::Answered => {
                self.answered = self.answered.saturating_add(1);
                self.consumed = self.consumed.saturating_add(units);
            }
            ProbeClass::RateLimited => self.rate_limited = self.rate_limited.saturating_add(1),
            ProbeClass::Failed(_) => self.failed = self.failed.saturating_add(1),
            ProbeClass::Ours(OursFault::HeldBack) => return,
            ProbeClass::Ours(_) => {
                self.ours = self.ours.saturating_add(1);
                return;
            }
        }
        self.asked = self.asked.saturating_add(expected);
    }
}

/// Who said when a window starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowKind {
    /// This validator, in secret.
    Secret,
    /// The beacon: the same moment for every validator.
    Beacon,
}

/// What came of one window, in which probes left at the announced rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WindowResult {
    /// Who said when.
    pub kind: WindowKind,
    /// Its start, microseconds of the Unix epoch.
    pub started_us: u64,
    /// Times the announced rate; above 1 it tried head-room and can cost nothing.
    pub rate: f64,
    /// Units expected of its probes, all but ours.
    pub asked: u64,
    /// Of them, those of probes that were answered in time; at most `asked`.
    pub delivered: u64,
}

impl WindowResult {
    /// Delivered share in [0, 1]; `None` when nothing was asked: no window was tried then.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
    pub fn delivered_share(&self) -> Option<f64> {
        (self.asked > 0).then(|| (self.delivered as f64 / self.asked as f64).min(1.0))
    }
}

/// A settled period of one (miner, task).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeriodRow {
    /// Which period.
    pub period: PeriodId,
    /// Which task.
    pub task: TaskName,
    /// Whose.
    pub miner: Hotkey,
    /// The place it had then.
    pub uid: Uid,
    /// What it announced, as read; `None` when the announcement was a fault.
    pub announced: Option<f64>,
    /// Units per period after clamping to the task's cap.
    pub capacity: u64,
    /// Requests by class.
    pub tally: Tally,
    /// In [0, 1]; `None` when nothing was asked or the capacity is 0.
    pub score: Option<f64>,
    /// Its windows, in the order of their starts; none under layouts without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowResult>,
    /// Start of the period, microseconds of the Unix epoch.
    pub started_us: u64,
    /// Its end, microseconds of the Unix epoch.
    pub ended_us: u64,
}

/// How an exchange was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// A verdict.
    Scored,
    /// A rule of the task was broken; quality 0.
    Violation(String),
    /// Our fault: the sample has no part in any score.
    Inconclusive(String),
}

/// One judged exchange, as the mechanism sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QualitySample {
    /// Which probe.
    pub probe: ProbeId,
    /// How it was judged.
    pub judgement: Judgement,
    /// In [0, 1]; 0 for a violation.
    pub quality: f64,
    /// Units verified.
    pub units: u64,
    /// From the last byte of the request to the last of the reply.
    pub response_us: u64,
    /// To the first chunk with a verified unit, or to where an even delivery of all of them would have begun if that is
    /// later; for streams.
    pub first_unit_us: Option<u64>,
    /// When it was judged, microseconds of the Unix epoch.
    pub at_us: u64,
    /// Why: code and number, from the verdict.
    pub reasons: Vec<(String, f64)>,
    /// Length of the period that the probe was asked in, in microseconds: ages are counted in periods.
    pub period_us: u64,
    /// What it says against the miner, where the task has a calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicion: Option<Box<Suspicion>>,
}

/// What one judged exchange says about a miner's honesty, and all of them so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suspicion {
    /// `Λ_k = ln q_k/q_0` of this exchange, by named suspect.
    pub exchange: Vec<(String, f64)>,
    /// The stream with it.
    pub stream: Stream,
    /// The score epoch of the task that it belongs to; streams of other epochs are not gone on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
}

/// Evidence about one (miner, task), exchange after exchange: what a sequential test has to remember. Follows the
/// hotkey. It is kept with the newest sample, so that neither can be on disk without the other.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Stream {
    /// Exchanges so far.
    pub exchanges: u64,
    /// By named suspect, in the order in which they were first named.
    pub suspects: Vec<Suspect>,
    /// `ln` of the wealth that was bet on suspects taking turns; minus infinity before the first exchange.
    pub mixed: f64,
    /// When the evidence last was more than the policy's α allows, microseconds of the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accused_us: Option<u64>,
    /// Of what, then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accused_of: Option<String>,
}

/// One suspect of a [`Stream`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its name in the calibration, e.g. `int8`.
    pub name: String,
    /// `ln` of the wealth that was bet on it.
    pub wealth: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_429_is_a_429_however_its_body_ends() {
        for ending in [Ending::Complete, Ending::Disconnected, Ending::Timeout(Phase::Idle), Ending::TooLarge]
        {
            let x = Exchange { status: 429, ..Exchange::without_reply(ending, 5) };
            assert_eq!(ProbeClass::of(&x), ProbeClass::RateLimited);
        }
    }

    #[test]
    fn our_fault_is_in_no_total() {
        let mut t = Tally::default();
        t.book(ProbeClass::Ours(OursFault::Interrupted), 10, 10);
        assert_eq!((t.total(), t.asked, t.consumed, t.ours), (0, 0, 0, 1));
        t.book(ProbeClass::Failed(Failure::Status), 0, 10);
        t.book(ProbeClass::Answered, 9, 10);
        assert_eq!((t.total(), t.asked, t.consumed), (2, 20, 9));
    }
}
