//! `Q`: how good a miner's answers of this task were, starting from what is thought of somebody unknown.

use nineteen_domain::ledger::QualitySample;
use nineteen_domain::policy::DefaultScoring;

use super::{age, aged};
use crate::samples::{worst, worth};
use crate::settlement::{At, QualityParts};
use crate::{float, unit, within};

/// `Q = ((κ q₀ + Σ w q)/(κ + Σ w))^a`, `w = 0.5^(age/sample_half_life)`, over `samples`: those that count,
/// newest first, all of this task. A prior stands where Subnet 19 borrowed samples of other tasks.
pub(crate) fn quality(rules: &DefaultScoring, samples: &[&QualitySample], at: At) -> QualityParts {
    let (mut weight, mut sum, mut plain) = (0.0, 0.0, 0.0);
    for s in samples {
        let w = aged(age(s.at_us, at), rules.sample_half_life);
        let q = worth(s);
        weight += w;
        sum += w * q;
        plain += q;
    }
    let mean = posterior(rules, weight, sum);
    QualityParts {
        own_samples: samples.len(),
        borrowed_samples: 0,
        weight,
        plain_mean: if samples.is_empty() { 0.0 } else { unit(plain / float(samples.len() as u64)) },
        mean,
        squared: false,
        quality: mean.powf(within(rules.quality_exponent, 1.0, 1e3)),
        worst: worst(samples),
    }
}

/// `(κ q₀ + sum)/(κ + weight)`, in [0, 1]: `q₀` where there is neither a prior's weight nor a sample.
fn posterior(rules: &DefaultScoring, weight: f64, sum: f64) -> f64 {
    let (prior, prior_quality) = (within(rules.prior_samples, 0.0, 1e12), unit(rules.prior_quality));
    let total = prior + weight;
    if total > 0.0 { unit((prior * prior_quality + sum) / total) } else { prior_quality }
}
