//! A policy: the parameters of the mechanism as data. It is in the task set and shown to miners.
//!
//! `mechanism` holds the formulas; this module holds the numbers they are fed with. Two policies ship:
//! [`Policy::sn19_2025_01`] reproduces what Subnet 19 published, [`Policy::default_rules`] keeps its promises and
//! closes its holes. A further kind is a further variant of [`Scoring`].

use serde::{Deserialize, Serialize};

use crate::id::TaskName;

/// How a period is planned and how its outcome becomes weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// e.g. `sn19-2025-01`.
    pub name: String,
    /// How probes are planned.
    pub planning: Planning,
    /// How they are scored.
    pub scoring: Scoring,
}

/// Planning of a period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planning {
    /// Share of the announced capacity to test, and its probability. Probabilities sum to 1.
    pub shares: Vec<ShareOdds>,
    /// Multiplies the drawn share (Subnet 19's `CAPACITY_TO_SCORE_MULTIPLIER`); above 0.
    pub share_multiplier: f64,
    /// How probes lie in the period.
    pub layout: Layout,
}

/// One row of the distribution of tested shares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareOdds {
    /// Share of the announced capacity, in (0, 1].
    pub share: f64,
    /// Its probability.
    pub probability: f64,
}

/// How probes lie in the period.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Evenly spread with a random offset, as Subnet 19 sends them.
    Even,
    /// In groups that leave at once, at secret times: whether a miner is available, not how much it can do.
    Burst(Burst),
    /// In windows at the announced rate, shared by all miners of a task.
    Windows(Windows),
}

/// Groups of probes that leave at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// Probes of a group; at least 1.
    pub size: u32,
}

/// Windows in which probes leave at the rate that the miner announced, so that one with a tenth of what it
/// announced cannot keep up. All miners of a task are in the same windows: several hotkeys in front of one
/// machine fail together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// Windows of a period that start at this validator's secret times; at least 1.
    pub secret: u32,
    /// Windows that a period has on average because the beacon says so: the same for every validator, and
    /// known to nobody before its block. At least 0; 0 is none.
    pub beacons_per_period: f64,
    /// Part of the tested volume that goes to probes outside the windows, in [0, 1).
    pub outside: f64,
    /// Probes of a window at least, however little of the capacity that is: a rate shows only in several.
    /// At least 1; never more than the announced capacity.
    pub least_probes: u32,
    /// An answer is in time within this many times what the task's reference takes; at least 1.
    pub patience: f64,
    /// After this many periods in a row with every window sustained, one window of the next is faster. 0 is
    /// never. It can only teach: failed, it counts for nothing.
    pub head_room_after: u32,
    /// How much faster: times the announced rate, at least 1.
    pub head_room: f64,
}

/// The rules from period score to weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "rules", deny_unknown_fields)]
pub enum Scoring {
    /// Subnet 19 as of January 2025 (MECHANISM, `sn19-2025-01`).
    #[serde(rename = "sn19-2025-01")]
    Sn19(Sn19Scoring),
    /// The rules of this project (MECHANISM, `default`).
    Default(DefaultScoring),
}

/// Parameters of the `default` rules. All ages are in periods of wall-clock time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultScoring {
    /// Age at which a period's row weighs half; above 0.
    pub row_half_life: f64,
    /// Age at which a quality sample weighs half; above 0.
    pub sample_half_life: f64,
    /// Samples that the prior on quality is worth: `κ`, above 0.
    pub prior_samples: f64,
    /// What the prior says: `q₀`, in [0, 1].
    pub prior_quality: f64,
    /// Exponent on the mean quality: `a`, at least 1. What sharpens the market is here, where splitting or
    /// merging hotkeys moves nothing.
    pub quality_exponent: f64,
    /// Percentile of verified units per second, in [0, 1).
    pub speed_percentile: f64,
    /// Part of throughput in the exponents of speed; that of the first unit is the rest. In [0, 1].
    pub throughput_part: f64,
    /// Ratio to the reference that a miner without a sample is taken to have; at least 0.
    pub unknown_speed: f64,
    /// Age at which a window weighs half; above 0.
    pub window_half_life: f64,
    /// Lower quantile of what the windows say about the announced capacity, in (0, 1).
    pub capacity_quantile: f64,
    /// Delivered share of a window's volume from which it is sustained, in (0, 1].
    pub sustained_at: f64,
    /// Below that, a window counts `(delivered/sustained_at)` to this power; at least 1. High enough that
    /// announcing more than one serves loses, finite so that one miss in a short window is not all of it.
    pub shortfall_exponent: f64,
    /// Exponent `k` on the share of effective volume; 1, so that neither merging nor splitting pays.
    pub sharpness: f64,
    /// Rows, windows and samples are looked at this far back, in periods; above 0.
    pub horizon: f64,
    /// What is made of evidence that a miner does not serve what it claims to.
    #[serde(default)]
    pub honesty: HonestyRules,
}

/// How evidence against a miner is weighed. Only tasks with a calibration have any.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HonestyRules {
    /// Probability that an honest miner is ever accused, over all streams together; in (0, 1).
    pub alpha: f64,
    /// Streams (miners times tasks) that share `alpha`; at least 1.
    pub streams: u32,
    /// Belief before any evidence that a miner is a cheat, in [0, 1).
    pub prior: f64,
    /// How long an accused miner earns nothing in that task, in periods.
    pub sentence: f64,
}

impl Default for HonestyRules {
    fn default() -> Self {
        // 256 miners on 16 tasks.
        Self { alpha: 1e-3, streams: 4_096, prior: 0.02, sentence: 24.0 }
    }
}

/// Parameters of Subnet 19's rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sn19Scoring {
    /// Decay of a period's weight per row, newest first.
    pub row_decay: f64,
    /// Rows from which the newcomer's multiplier is 1.
    pub full_rows: usize,
    /// Multiplier below that many rows.
    pub newcomer_multiplier: f64,
    /// Rows are looked at this far back, in seconds.
    pub row_window_s: u64,
    /// Quality samples are looked at this far back, in seconds.
    pub sample_window_s: u64,
    /// Fewer samples than this are topped up with the miner's other tasks'.
    pub min_samples: usize,
    /// Exponent on each sample's quality.
    pub quality_exponent: f64,
    /// Mean at or below which the mean is squared.
    pub square_at_or_below: f64,
    /// Tasks whose mean is never squared (Subnet 19 spared its avatar task).
    #[serde(default)]
    pub square_exempt: Vec<TaskName>,
    /// Percentile of the speed metric, in [0, 1).
    pub speed_percentile: f64,
    /// Width of the speed bonus: ranks give from `+width/2` to `−width/2`.
    pub speed_bonus_width: f64,
    /// Exponent `k` on the share of effective volume.
    pub sharpness: f64,
}

impl Planning {
    /// Mean of the tested share of the announced capacity, multiplier included, in [0, 1].
    #[must_use]
    pub fn mean_share(&self) -> f64 {
        self.shares
            .iter()
            .map(|o| (o.share * self.share_multiplier).clamp(0.0, 1.0) * o.probability)
            .sum::<f64>()
            .clamp(0.0, 1.0)
    }
}

impl Policy {
    /// Names of the policies that ship, the one to use first.
    pub const NAMES: [&str; 2] = ["default", "sn19-2025-01"];

    /// The policy of this name, if it ships.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "default" => Some(Self::default_rules()),
            "sn19-2025-01" => Some(Self::sn19_2025_01()),
            _ => None,
        }
    }

    /// How far back rows and samples have to be read for a settlement, in microseconds.
    #[must_use]
    pub fn horizon_us(&self, period_us: u64) -> u64 {
        match &self.scoring {
            Scoring::Sn19(s) => s.row_window_s.max(s.sample_window_s).saturating_mul(1_000_000),
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a length of time; casting saturates"
            )]
            Scoring::Default(s) => (s.horizon.max(0.0) * period_us as f64) as u64,
        }
    }

    /// What keeps Subnet 19's promises and closes its holes.
    #[must_use]
    pub fn default_rules() -> Self {
        let sn19 = Self::sn19_2025_01();
        Self {
            name: "default".into(),
            planning: Planning {
                layout: Layout::Windows(Windows {
                    secret: 2,
                    beacons_per_period: 1.0,
                    outside: 0.2,
                    least_probes: 8,
                    patience: 2.5,
                    head_room_after: 4,
                    head_room: 1.25,
                }),
                ..sn19.planning
            },
            scoring: Scoring::Default(DefaultScoring {
                row_half_life: 4.0,
                sample_half_life: 24.0,
                prior_samples: 5.0,
                prior_quality: 0.5,
                quality_exponent: 3.0,
                speed_percentile: 0.3,
                throughput_part: 2.0 / 3.0,
                unknown_speed: 0.25,
                window_half_life: 24.0,
                capacity_quantile: 0.1,
                sustained_at: 0.95,
                shortfall_exponent: 2.0,
                sharpness: 1.0,
                horizon: 168.0,
                honesty: HonestyRules::default(),
            }),
        }
    }

    /// The published mechanism of January 2025.
    #[must_use]
    pub fn sn19_2025_01() -> Self {
        let odds = |share, probability| ShareOdds { share, probability };
        Self {
            name: "sn19-2025-01".into(),
            planning: Planning {
                shares: vec![odds(0.04, 0.5), odds(0.08, 0.4), odds(0.12, 0.095), odds(0.8, 0.005)],
                share_multiplier: 1.0,
                layout: Layout::Even,
            },
            scoring: Scoring::Sn19(Sn19Scoring {
                row_decay: 0.5,
                full_rows: 9,
                newcomer_multiplier: 0.25,
                row_window_s: 3 * 86_400,
                sample_window_s: 5 * 86_400,
                min_samples: 50,
                quality_exponent: 1.5,
                square_at_or_below: 0.85,
                square_exempt: Vec::new(),
                speed_percentile: 0.3,
                speed_bonus_width: 0.5,
                sharpness: 4.0,
            }),
        }
    }
}
