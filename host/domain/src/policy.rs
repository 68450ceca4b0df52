//! A policy: the parameters of the mechanism as data. It is in the task set and shown to miners.
//!
//! `mechanism` holds the formulas; this module holds the numbers they are fed with. The only policy of
//! this storey is `sn19-2025-01`; a second kind is a second variant of [`Scoring`].

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Evenly spread with a random offset, as Subnet 19 sends them.
    Even,
}

/// The rules from period score to weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "rules", deny_unknown_fields)]
pub enum Scoring {
    /// Subnet 19 as of January 2025 (MECHANISM, `sn19-2025-01`).
    #[serde(rename = "sn19-2025-01")]
    Sn19(Sn19Scoring),
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

impl Policy {
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
