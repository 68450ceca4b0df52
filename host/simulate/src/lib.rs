//! The subnet on a simulated clock: the library behind `nineteen simulate`.
//!
//! The schedule and the mechanism are the validator's own code; miners, the chain, the network and the checkers
//! are models. So what is found here is found about the rules that pay, not about a copy of them. Three
//! questions are asked:
//!
//! * [`What::Strategies`]: does anything pay better than honest work on the same hardware?
//! * [`What::Agreement`]: do validators that draw different probes at different times come to the same weights?
//! * [`What::Scale`]: what does a whole subnet come to over days, and what does it cost to compute?
//!
//! What the models leave out: users' requests, faults of ours, the content of requests and answers (a quality
//! is drawn instead of measured), registration fees, and that machines batch.
//!
//! The same options give the same report, byte for byte but for [`Report::timing`].

mod agreement;
mod error;
mod jobs;
mod machine;
mod population;
mod report;
mod rng;
mod scale;
mod setting;
mod stats;
/// Strategies and what they are worth.
pub mod strategies;
mod strategy;
mod usage;
mod validator;
mod world;

use std::fmt;
use std::sync::Arc;

use nineteen_domain::policy::Policy;

pub use agreement::{AgreementPoint, AgreementReport};
pub use error::SimulateError;
pub use report::{Parameters, Report};
pub use scale::{KindRow, ScaleReport};
pub use stats::Spread;
pub use usage::Timing;

/// Hears how far a run is: what it does, and the part of that which is done, in [0, 1].
pub type Progress = Arc<dyn Fn(&str, f64) + Send + Sync>;

/// What shall be simulated.
#[derive(Clone)]
pub struct Options {
    /// Miners of the subnet, 1 to 4096. Strategies are played among at most 8 honest others, and agreement is
    /// measured over at most 24.
    pub miners: u32,
    /// Tasks of the scale run, 1 to 256.
    pub tasks: u32,
    /// Days, above 0 and at most 60, in periods of 60 minutes.
    pub days: f64,
    /// Policies to compare, the reader's own first; names unique.
    pub policies: Vec<Policy>,
    /// What all draws begin with.
    pub seed: u64,
    /// Repetitions of strategies and agreement, with this many seeds from `seed` on; 1 to 1000.
    pub seeds: u32,
    /// Validators of the agreement run, 2 to 64.
    pub validators: u32,
    /// Threads, at least 1.
    pub threads: usize,
    /// What is asked.
    pub what: What,
    /// Hears how far it is.
    pub progress: Option<Progress>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("miners", &self.miners)
            .field("tasks", &self.tasks)
            .field("days", &self.days)
            .field("seed", &self.seed)
            .field("seeds", &self.seeds)
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

/// A question to the simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A whole subnet.
    Scale,
    /// Strategies against honesty.
    Strategies {
        /// These of [`strategies::NAMES`]; `None` is all.
        only: Option<Vec<String>>,
    },
    /// Validators against each other.
    Agreement,
    /// All of them.
    All,
}

/// Honest miners that strategies are played among, at most.
const OTHERS: usize = 8;
/// Miners that validators are compared over, at most.
const COMPARED: usize = 24;

/// Simulates.
///
/// # Errors
/// [`SimulateError`] for options out of range, for a policy that makes no schedule, and for a probe that was not
/// booked exactly once, which would be a defect.
pub fn run(options: &Options) -> Result<Report, SimulateError> {
    check(options)?;
    let watch = usage::Watch::start();
    let periods = periods(options.days);
    let told = |what: &'static str| {
        move |part: f64| {
            if let Some(progress) = &options.progress {
                progress(what, part);
            }
        }
    };
    let miners = options.miners as usize;
    let wants = |what: &What| options.what == *what || options.what == What::All;
    let scale = if wants(&What::Scale) {
        let scale = scale::Scale {
            policies: &options.policies,
            miners,
            tasks: options.tasks as usize,
            periods,
            seed: options.seed,
            threads: options.threads,
        };
        scale.run(told("scale"))?
    } else {
        Vec::new()
    };
    let only = match &options.what {
        What::Strategies { only } => Some(only.as_deref()),
        What::All => Some(None),
        What::Scale | What::Agreement => None,
    };
    let strategies = match only {
        Some(only) => {
            let comparison = strategies::Comparison {
                policies: &options.policies,
                only,
                others: miners.min(OTHERS),
                periods,
                seed: options.seed,
                seeds: options.seeds,
                threads: options.threads,
            };
            comparison.run(told("strategies"))?
        }
        None => Vec::new(),
    };
    let agreement = if wants(&What::Agreement) {
        let agreement = agreement::Agreement {
            policies: &options.policies,
            miners: miners.min(COMPARED),
            validators: options.validators as usize,
            periods,
            seed: options.seed,
            seeds: options.seeds,
            threads: options.threads,
        };
        agreement.run(told("agreement"))?
    } else {
        Vec::new()
    };
    Ok(Report {
        parameters: Parameters::of(options, periods),
        scale,
        strategies,
        agreement,
        timing: watch.read(),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 1440: days are checked")]
fn periods(days: f64) -> u64 {
    ((days * 24.0).round() as u64).max(1)
}

fn check(options: &Options) -> Result<(), SimulateError> {
    let refuse = |option, given: String, rule| Err(SimulateError::Option { option, given, rule });
    if !(1..=4096).contains(&options.miners) {
        return refuse("miners", options.miners.to_string(), "1 to 4096");
    }
    if !(1..=256).contains(&options.tasks) {
        return refuse("tasks", options.tasks.to_string(), "1 to 256");
    }
    if !(options.days > 0.0 && options.days <= 60.0) {
        return refuse("days", options.days.to_string(), "above 0 and at most 60");
    }
    if !(1..=1000).contains(&options.seeds) {
        return refuse("seeds", options.seeds.to_string(), "1 to 1000");
    }
    if !(2..=64).contains(&options.validators) {
        return refuse("validators", options.validators.to_string(), "2 to 64");
    }
    if options.threads == 0 {
        return refuse("threads", "0".into(), "at least 1");
    }
    let mut names: Vec<&str> = options.policies.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    let before = names.len();
    names.dedup();
    if names.is_empty() || names.len() != before {
        return refuse("policies", before.to_string(), "at least one, and no name twice");
    }
    Ok(())
}
