//! What the machine is told, what it asks for, and what of it goes to disk.
//!
//! Everything here is data. The validator turns each [`Effect`] into work (HTTP, disk, checkers) and each
//! result of that work into an [`Event`]; a simulator does the same with a made-up clock.

use std::collections::{BTreeMap, BTreeSet};

use nineteen_domain::ledger::{PeriodRow, ProbeClass};
use nineteen_domain::policy::Policy;
use nineteen_domain::{Digest, Hotkey, PeriodId, ProbeId, TaskName, Uid};
use serde::{Deserialize, Serialize};

/// What the machine is set up with. Times are microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleConfig {
    /// Length of a scoring period; above 0.
    pub period_us: u64,
    /// How long before the end of a period the announcements of the next are asked for; above 0 and below
    /// `period_us`. Longer than the announcement's own timeout, or slow miners count as silent.
    pub announce_lead_us: u64,
    /// How long after the end of a period its probes may still finish and be judged. At least the longest
    /// total timeout of a reply: a probe that is still out when it is over is booked as ours.
    pub settle_grace_us: u64,
    /// Shares, layout and multiplier of the plan.
    pub policy: Policy,
    /// The tasks; names unique. Changed by [`Event::Tasks`].
    pub tasks: Vec<TaskSpec>,
    /// Probes under way at once; above 0.
    pub max_in_flight: usize,
    /// Of them to one miner in one task; above 0. Times the number of miners that may hang at once it should
    /// stay below `max_in_flight`, so that they cannot use it up.
    pub max_in_flight_per_miner: usize,
    /// Answers that are judged at once; above 0.
    pub max_checks: usize,
    /// Answers that wait for a judgement at most; beyond it those of whoever has most of them waiting are
    /// let go unchecked. Above 0.
    pub max_backlog: usize,
    /// Number of the subnet: part of what the beacon hashes.
    pub netuid: u16,
    /// Time between blocks; above 0.
    pub block_us: u64,
}

/// A task, as far as planning is concerned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name.
    pub name: TaskName,
    /// The most units per *period* that one miner is credited with.
    pub cap_per_period: u64,
    /// Units that a probe is expected to take, as measured over what `synthesize` makes; 0 counts as 1.
    pub expected_units: u64,
    /// Within what time an answer of a window counts as delivered; `None` is any time.
    pub in_time: Option<InTime>,
}

/// The time in which an answer counts as delivered: `first_us + units·unit_us`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct InTime {
    /// Microseconds to the first unit.
    pub first_us: u64,
    /// Microseconds per unit; at least 0, finite.
    pub unit_us: f64,
}

impl InTime {
    /// What an answer of this many units may take, in microseconds; saturating.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a length of time; casting saturates and takes NaN for 0"
    )]
    pub fn allows_us(self, units: u64) -> u64 {
        self.first_us.saturating_add((units as f64 * self.unit_us) as u64)
    }
}

/// A miner of the metagraph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MinerRef {
    /// Its place now.
    pub uid: Uid,
    /// Its key: history follows it.
    pub hotkey: Hotkey,
}

/// What a miner announced: units per period and task, or the stable code of the fault, for one task or for
/// the whole announcement. A task that is not in the map was not announced.
pub type Announcement = Result<BTreeMap<TaskName, Result<f64, String>>, String>;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Time passed. Sent when [`crate::Schedule::next_wake_us`] says so; harmless at any other time.
    Tick,
    /// The miners of the subnet as of now. Periods begin with the first of these. One that is missing from
    /// it gets no further probe; a new one is asked to announce for the next period.
    Metagraph(Vec<MinerRef>),
    /// The tasks as of now; applies from the next plan.
    Tasks(Vec<TaskSpec>),
    /// A miner answered to [`Effect::Announce`], or did not. The first answer counts.
    Announced {
        /// The period that was asked about.
        period: PeriodId,
        /// Who.
        miner: Hotkey,
        /// What.
        result: Announcement,
    },
    /// The plan of this period is on disk: its probes may leave.
    PlanStored {
        /// Which.
        period: PeriodId,
    },
    /// A block of the chain, of which the beacon is read. One that was seen already is ignored.
    Block(Block),
    /// The start of this window is on disk: its probes may leave.
    WindowStored {
        /// Which.
        window: StartedWindow,
    },
    /// A probe ended. Only the first end of a probe is booked.
    Finished(FinishedProbe),
    /// A user asks this miner: takes room before every probe of it. Answered by [`Effect::DispatchOrganic`].
    OrganicAsked(OrganicRequest),
    /// A user's request ended. It counts like a probe, in the period that runs.
    OrganicFinished {
        /// Which.
        id: u64,
        /// Its class.
        class: ProbeClass,
        /// Units served; 0 unless answered.
        units: u64,
    },
    /// How much of the checkers each (task, miner) has earned: shares of effective volume, in [0, 1].
    Standing(Vec<(TaskName, Hotkey, f64)>),
    /// The reply to this probe was judged, or never will be. Lets its period settle before the grace is over.
    Judged {
        /// Which.
        probe: ProbeId,
    },
    /// The outcome of this period is on disk.
    Settled {
        /// Which.
        period: PeriodId,
    },
    /// Start nothing more. What is under way may finish.
    Shutdown,
}

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedProbe {
    /// Which.
    pub probe: ProbeId,
    /// Its class, after `count` has read the bytes: a reply that cannot be read is `Failed(Malformed)`.
    pub class: ProbeClass,
    /// Units served, as `count` read them; 0 unless answered.
    pub units: u64,
    /// From the last byte of the request to the end of the reply, in microseconds.
    #[serde(default)]
    pub took_us: u64,
}

/// A block of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// A window that the beacon started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StartedWindow {
    /// In which period.
    pub period: PeriodId,
    /// Of which task.
    pub task: TaskName,
    /// The how manieth of that period and task, from 0; below [`MAX_BEACONS`].
    pub index: u32,
    /// By which block.
    pub block: u64,
    /// When its probes begin to leave, microseconds of the Unix epoch.
    pub started_us: u64,
}

/// Windows that the beacon starts in one period and task at most.
pub const MAX_BEACONS: u32 = 3;
/// Where the places of a beacon window's probes begin: `(index + 1)·BEACON_SLOTS`.
pub const BEACON_SLOTS: u32 = 1_000_000;

/// A user's request to one miner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganicRequest {
    /// The caller's name for it; unique among those that have not ended.
    pub id: u64,
    /// Of which task.
    pub task: TaskName,
    /// To whom.
    pub miner: Hotkey,
    /// Units that it is expected to take; 0 counts as 1.
    pub expected_units: u64,
}

/// Something to be done. Effects of one step are in the order in which they shall begin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Ask these miners what they announce for this period; answer each with [`Event::Announced`]. Silence
    /// until the deadline counts as [`SILENT`].
    Announce {
        /// Which.
        period: PeriodId,
        /// Whom.
        miners: Vec<MinerRef>,
        /// When the plan is made without those that are still silent, microseconds of the Unix epoch.
        deadline_us: u64,
    },
    /// Write this to disk, then say [`Event::PlanStored`]. No probe of it leaves before.
    StorePlan(PeriodPlan),
    /// Write this down, then say [`Event::WindowStored`].
    StoreWindow(StartedWindow),
    /// Write down that this probe leaves, send it, then say [`Event::Finished`].
    Dispatch(PlannedProbe),
    /// There is room for this user's request: send it, then say [`Event::OrganicFinished`].
    DispatchOrganic(u64),
    /// The probe was answered and it is its turn: judge the stored exchange, then say [`Event::Judged`]. Never
    /// more than `max_checks` at once. After a restart this comes again for answers that were not judged.
    Judge(ProbeId),
    /// More answers wait than can be judged: this one never will be. Its volume counts all the same.
    Unchecked(ProbeId),
    /// This probe left before a crash, or its period's grace is over: write down that it ended by our doing, unless
    /// another end of it is on the books already, then say by [`Event::Finished`] which end they hold. A later end
    /// of it is not booked.
    Interrupted(ProbeId),
    /// This probe never leaves: its miner had its fill under way for as long as a probe of a window waits. Write
    /// that down as an end of the class `Ours(HeldBack)`; no answer is expected.
    HeldBack(ProbeId),
    /// The period is over and every probe booked: write the rows down and set weights, then say
    /// [`Event::Settled`]. Comes once; after a crash before that event it comes again, with the same rows.
    Settle(PeriodOutcome),
    /// After [`Event::Shutdown`]: nothing is under way any more.
    Drained,
}

/// Code of a miner that had not answered to the request to announce when the plan was made.
pub const SILENT: &str = "schedule.announce.silent";
/// Code of a task that an announcement did not name.
pub const NOT_ANNOUNCED: &str = "schedule.announce.missing";

/// A probe that shall be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedProbe {
    /// Which.
    pub id: ProbeId,
    /// The miner's place when the plan was made.
    pub uid: Uid,
    /// When it shall leave, microseconds of the Unix epoch.
    pub due_us: u64,
    /// Units that it is expected to take, as the task's average says; at least 1.
    pub expected_units: u64,
    /// How long it may wait for its miner to have room, in microseconds, before that says that the miner cannot
    /// keep up: for probes of windows.
    pub hold_us: Option<u64>,
}

/// The plan of a period. On disk before its first probe leaves; secret until the period is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeriodPlan {
    /// Which.
    pub period: PeriodId,
    /// Its start, microseconds of the Unix epoch.
    pub started_us: u64,
    /// Its end, microseconds of the Unix epoch.
    pub ended_us: u64,
    /// Name of the policy that it was made with.
    pub policy: String,
    /// What commits to the order in which answers are chosen for the checkers, from before the period begins: the SHA-256
    /// of the seed that [`PeriodOutcome::choice`] tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Digest>,
    /// One per miner and task, ascending by (task, miner); also for those that get no probe.
    pub entries: Vec<PlanEntry>,
}

/// What one miner gets of one task in one period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanEntry {
    /// The task.
    pub task: TaskName,
    /// The miner.
    pub miner: Hotkey,
    /// The place it had when the plan was made.
    pub uid: Uid,
    /// What it announced; `None` when that was a fault.
    pub announced: Option<f64>,
    /// Stable code of that fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Units per period after clamping to the task's cap.
    pub capacity: u64,
    /// Share of it that was drawn to be tested, multiplier included, in [0, 1].
    pub share: f64,
    /// Units that one probe is expected to take; at least 1.
    pub expected_units: u64,
    /// When its probes leave: probe `slot` at the place `slot`, ascending within each window and outside them.
    pub due_us: Vec<u64>,
    /// Its windows at secret times, each of them a run of the places of `due_us`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<PlannedWindow>,
    /// What it gets whenever the beacon starts a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beacon: Option<BeaconShare>,
    /// Within what time an answer of a window counts as delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_time: Option<InTime>,
}

/// One miner's part of a window at a secret time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlannedWindow {
    /// Times the announced rate.
    pub rate: f64,
    /// Place of its first probe.
    pub first_slot: u32,
    /// Number of its probes; at least 1.
    pub probes: u32,
    /// Start of the window, the same for every miner of the task; microseconds of the Unix epoch.
    pub started_us: u64,
}

/// One miner's part of a window that the beacon starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeaconShare {
    /// Number of its probes; at least 1.
    pub probes: u32,
    /// Microseconds between them; at least 1.
    pub interval_us: u64,
    /// From the window's start to the first of them, in microseconds; below the interval.
    #[serde(default)]
    pub phase_us: u64,
}

/// What there is on disk when the machine starts. Empty on the first start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Resume {
    /// One above the highest period that was ever planned or settled; 0 on the first start.
    pub next_period: u64,
    /// Plans of the periods that are not settled.
    pub plans: Vec<PeriodPlan>,
    /// Probes of those periods that are known to have left.
    pub dispatched: BTreeSet<ProbeId>,
    /// Probes of those periods that ended, interrupted ones among them. The first of a probe counts.
    pub finished: Vec<FinishedProbe>,
    /// Probes of those periods whose answer was judged.
    pub judged: BTreeSet<ProbeId>,
    /// Windows of those periods that the beacon started.
    #[serde(default)]
    pub windows: Vec<StartedWindow>,
    /// For how many settled periods in a row each (task, miner) sustained every window.
    #[serde(default)]
    pub streaks: Vec<(TaskName, Hotkey, u32)>,
}

/// A period that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeriodOutcome {
    /// Which.
    pub period: PeriodId,
    /// Its start, microseconds of the Unix epoch.
    pub started_us: u64,
    /// Its end, microseconds of the Unix epoch.
    pub ended_us: u64,
    /// One per entry of the plan, in its order.
    pub rows: Vec<PeriodRow>,
    /// Codes of announcements that were faults.
    pub faults: Vec<(Hotkey, TaskName, String)>,
    /// Planned probes that never left: we were down or too busy, the miner had too many under way already,
    /// or it left the subnet. In no tally.
    pub skipped: u64,
    /// Answers that were not judged when the grace was over; they count in later periods.
    pub unjudged: u64,
    /// Windows that the beacon started, ascending by task and index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beacons: Vec<StartedWindow>,
    /// The seed of the order in which answers were chosen for the checkers, 64 hex digits: [`Seed::rank`] gives every
    /// probe its place.
    ///
    /// [`Seed::rank`]: nineteen_domain::Seed::rank
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<String>,
}

/// Where the machine stands, for people and dashboards.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The period that runs now.
    pub running: Option<PeriodId>,
    /// Its end, microseconds of the Unix epoch.
    pub ends_us: Option<u64>,
    /// What commits to the order in which its answers are chosen for the checkers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Digest>,
    /// Periods that are over and not yet settled.
    pub settling: Vec<PeriodId>,
    /// The period that miners are being asked about.
    pub announcing: Option<PeriodId>,
    /// Probes under way.
    pub in_flight: usize,
    /// Probes that are due and wait for room.
    pub waiting: usize,
    /// Probes of the running period that are not due yet.
    pub planned: usize,
    /// Answers that wait for their judgement and hold up their period.
    pub unjudged: usize,
    /// Answers that wait for a checker, whatever their period.
    pub backlog: usize,
    /// Answers that were let go unchecked since the start.
    pub unchecked: u64,
}

impl PlanEntry {
    /// The id of one of its probes; whether there is one is not asked.
    #[must_use]
    pub fn probe(&self, period: PeriodId, slot: u32) -> ProbeId {
        ProbeId { period, task: self.task.clone(), miner: self.miner, slot }
    }
}

impl PlanEntry {
    /// How long a probe of its windows may wait for room, in microseconds.
    fn hold_us(&self) -> u64 {
        self.in_time.map_or(u64::MAX, |t| t.allows_us(self.expected_units))
    }

    /// Its probes of a window that the beacon started; none where it gets none.
    pub fn beacon_probes<'a>(&'a self, window: &'a StartedWindow) -> impl Iterator<Item = PlannedProbe> + 'a {
        let share = self.beacon.unwrap_or(BeaconShare { probes: 0, interval_us: 1, phase_us: 0 });
        (0..share.probes.min(BEACON_SLOTS)).map(move |i| PlannedProbe {
            id: self.probe(window.period, (window.index.min(MAX_BEACONS) + 1) * BEACON_SLOTS + i),
            uid: self.uid,
            due_us: window
                .started_us
                .saturating_add(share.phase_us)
                .saturating_add(share.interval_us.saturating_mul(i.into())),
            expected_units: self.expected_units,
            hold_us: Some(self.hold_us()),
        })
    }
}

impl PeriodPlan {
    /// Every probe of the plan but those of the beacon's windows, entry by entry.
    pub fn probes(&self) -> impl Iterator<Item = PlannedProbe> + '_ {
        self.entries.iter().flat_map(move |e| {
            (0_u32..).zip(&e.due_us).map(move |(slot, due)| PlannedProbe {
                id: e.probe(self.period, slot),
                uid: e.uid,
                due_us: *due,
                expected_units: e.expected_units,
                hold_us: e
                    .windows
                    .iter()
                    .any(|w| slot.checked_sub(w.first_slot).is_some_and(|i| i < w.probes))
                    .then(|| e.hold_us()),
            })
        })
    }

    /// Every probe of a window that the beacon started, which is one of this period and ends with it.
    pub fn beacon_probes<'a>(&'a self, window: &'a StartedWindow) -> impl Iterator<Item = PlannedProbe> + 'a {
        self.entries
            .iter()
            .filter(move |e| window.period == self.period && e.task == window.task)
            .flat_map(move |e| e.beacon_probes(window))
            .filter(move |p| p.due_us < self.ended_us)
    }

    /// Number of probes, but those of the beacon's windows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.iter().map(|e| e.due_us.len()).sum()
    }

    /// Whether it has no such probe.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
