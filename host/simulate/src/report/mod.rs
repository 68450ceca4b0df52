//! What a run came to: as data, as text, as a page.

mod html;
mod plot;
mod table;

use serde::Serialize;

use crate::agreement::AgreementReport;
use crate::scale::ScaleReport;
use crate::strategies::StrategyRow;
use crate::usage::Timing;
use crate::{Options, What};

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What it was made with.
    pub parameters: Parameters,
    /// By policy; empty unless it was asked for.
    pub scale: Vec<ScaleReport>,
    /// By strategy; empty unless it was asked for.
    pub strategies: Vec<StrategyRow>,
    /// By policy; empty unless it was asked for.
    pub agreement: Vec<AgreementReport>,
    /// What it cost: differs between two runs with the same options, as nothing else does.
    pub timing: Timing,
}

/// What a report was made with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameters {
    /// Version of this program.
    pub version: String,
    /// Miners.
    pub miners: u32,
    /// Tasks.
    pub tasks: u32,
    /// Periods of 60 minutes.
    pub periods: u64,
    /// Names of the policies.
    pub policies: Vec<String>,
    /// First seed.
    pub seed: u64,
    /// Number of seeds.
    pub seeds: u32,
    /// Validators of the agreement run.
    pub validators: u32,
    /// What was asked.
    pub what: String,
}

impl Parameters {
    pub(crate) fn of(options: &Options, periods: u64) -> Self {
        let what = match &options.what {
            What::Scale => "scale".to_owned(),
            What::Strategies { only: None } => "strategies".to_owned(),
            What::Strategies { only: Some(only) } => format!("strategies: {}", only.join(", ")),
            What::Agreement => "agreement".to_owned(),
            What::All => "all".to_owned(),
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            miners: options.miners,
            tasks: options.tasks,
            periods,
            policies: options.policies.iter().map(|p| p.name.clone()).collect(),
            seed: options.seed,
            seeds: options.seeds,
            validators: options.validators,
            what,
        }
    }

    /// In one line, for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "nineteen {}: {}; {} miners, {} tasks, {} periods of 60 min, {} validators, seeds {} to {}",
            self.version,
            self.what,
            self.miners,
            self.tasks,
            self.periods,
            self.validators,
            self.seed,
            self.seed.wrapping_add(u64::from(self.seeds.saturating_sub(1))),
        )
    }
}

impl Report {
    /// Plain text tables.
    #[must_use]
    pub fn table(&self) -> String {
        table::of(self)
    }

    /// One page of HTML with everything in it: no scripts, nothing from elsewhere, readable in dark and light.
    #[must_use]
    pub fn html(&self) -> String {
        html::of(self)
    }
}
