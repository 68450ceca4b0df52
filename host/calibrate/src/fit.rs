//! From observations to tables.

use std::collections::BTreeMap;

use nineteen_domain::calibration::{CalibratedModel, Class, Logistic, Suspect, VERSION};
use nineteen_domain::{Calibration, TaskName};

use crate::pictures;
use crate::setting::Observed;

/// Nats of margin: equal up to rounding, rounding of half precisions, flips of near ties, other tokens.
const MARGINS: [f64; 11] = [1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.4, 0.8, 1.6, 1e6];
/// Nats of surprise beyond the entropy, for draws that cannot be repeated.
const SURPRISES: [f64; 12] = [-3.0, -2.0, -1.25, -0.75, -0.4, -0.1, 0.2, 0.6, 1.2, 2.0, 3.0, 1e6];
/// Relative errors of a row.
const ERRORS: [f64; 13] = [1e-6, 3e-6, 1e-5, 1e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 0.16, 0.4];
/// Parts of the way to a suspect's row: half-precision noise lies about 0, the suspect at 1.
const LEANINGS: [f64; 12] = [-0.3, -0.1, -0.03, 0.03, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.2];
/// Logarithms of the odds that a picture is another.
const ODDS: [f64; 14] = [-10.0, -8.0, -6.5, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.5, 4.0, 6.0, 9.0];
/// The most that one unit may say, in nats: a table is no better than the counts in it.
const MOST: f64 = 5.0;
/// What an exchange's sum may be divided by. At least 1.5: devices are noisier than what stands for them here.
const DESIGNS: [f64; 14] = [1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0];

/// Tables for every class that was observed. `q_0` of a bin is the largest share of any honest condition with one
/// standard error and one unit on top, so that it dominates them; `q_k` has half a unit added to every bin.
#[must_use]
pub fn fit(
    task: &TaskName,
    model: CalibratedModel,
    made_with: BTreeMap<String, String>,
    observed: &[Observed],
) -> Calibration {
    let mut classes: BTreeMap<&str, Vec<&Observed>> = BTreeMap::new();
    for o in observed {
        classes.entry(&o.class).or_default().push(o);
    }
    let measured: Vec<(String, Logistic, Vec<Observed>)> = classes
        .iter()
        .filter(|(_, of)| of.iter().any(|o| !o.features.is_empty()))
        .filter_map(|(name, of)| {
            let logistic = pictures::regress(of)?;
            let mut of: Vec<Observed> = of.iter().map(|o| (*o).clone()).collect();
            // Who breaks a rule is judged by the rule.
            of.retain(|o| o.violation.is_none() && !o.features.is_empty());
            pictures::measure(&logistic, &mut of);
            Some(((*name).to_owned(), logistic, of))
        })
        .collect();
    let exchanges = observed.iter().map(|o| o.exchange + 1).max().unwrap_or(0);
    let units = observed.iter().map(|o| o.statistic.len()).max().unwrap_or(0);
    let units = units.max(u32::from(!measured.is_empty()) as usize);
    let mut classes: BTreeMap<String, Class> =
        classes.into_iter().map(|(name, of)| (name.to_owned(), class(name, &of))).collect();
    for (name, logistic, of) in measured {
        let made = class(&name, &of.iter().collect::<Vec<_>>());
        classes.insert(name, Class { logistic: Some(logistic), ..made });
    }
    Calibration {
        version: VERSION,
        task: task.clone(),
        model,
        made_with,
        exchanges,
        units: u32::try_from(units).unwrap_or(u32::MAX),
        golden: None,
        classes,
    }
}

fn class(name: &str, observed: &[&Observed]) -> Class {
    let (statistic, edges) = match name {
        "rows" => ("relative error of a row", &ERRORS[..]),
        matched if matched.starts_with("matched.") => ("part of the way to the suspect's row", &LEANINGS[..]),
        "images" | "avatars" => ("logarithm of the odds that it is another picture", &ODDS[..]),
        "unseeded" => ("surprise beyond the entropy, nats", &SURPRISES[..]),
        _ => ("margin, nats", &MARGINS[..]),
    };
    let mut class = Class {
        statistic: statistic.into(),
        edges: edges.to_vec(),
        design_effect: 1.0,
        logistic: None,
        honest: BTreeMap::new(),
        suspects: BTreeMap::new(),
    };
    let bins = edges.len() + 1;
    for o in observed {
        let counts = if o.honest {
            class.honest.entry(o.condition.clone()).or_insert_with(|| vec![0; bins])
        } else {
            let fresh = || Suspect { counts: vec![0; bins], lambda: vec![0.0; bins] };
            &mut class.suspects.entry(o.condition.clone()).or_insert_with(fresh).counts
        };
        for x in &o.statistic {
            let bin = if x.is_nan() { edges.len() } else { edges.partition_point(|e| e < x) };
            if let Some(count) = counts.get_mut(bin) {
                *count += 1;
            }
        }
    }
    let dominating: Vec<f64> = (0..bins)
        .map(|bin| class.honest.values().map(|counts| upper_share(counts, bin)).fold(0.0, f64::max))
        .collect();
    for suspect in class.suspects.values_mut() {
        let all: u64 = suspect.counts.iter().sum();
        let q = |n: u64| (float(n) + 0.5) / (float(all) + 0.5 * float(bins as u64));
        suspect.lambda = suspect
            .counts
            .iter()
            .zip(&dominating)
            .map(|(n, q0)| if *q0 > 0.0 { (q(*n) / q0).ln().clamp(-MOST, MOST) } else { 0.0 })
            .collect();
    }
    class.design_effect = design_effect(&class, observed);
    let unfair: Vec<String> = class
        .suspects
        .iter()
        .filter(|(_, s)| !is_fair(&class, s, class.design_effect, observed))
        .map(|(name, _)| name.clone())
        .collect();
    // A table that would accuse honest miners is worse than none.
    class.suspects.retain(|name, _| !unfair.contains(name));
    class
}

/// The share of a bin with a standard error and one unit added, at most 1.
fn upper_share(counts: &[u64], bin: usize) -> f64 {
    let all = float(counts.iter().sum());
    if all < 1.0 {
        return 0.0;
    }
    let share = counts.get(bin).map_or(0.0, |n| float(*n)) / all;
    (share + (share * (1.0 - share) / all).sqrt() + 1.0 / all).min(1.0)
}

/// By how much exchanges' sums have to be divided so that no honest condition wins by betting against itself: the least of
/// [`DESIGNS`] at which the mean of `e^Λ` over its exchanges, with three standard errors on top, is at most one for every
/// suspect. Tokens of one answer are not independent (a text that is tokenised otherwise is off from there to its end), and
/// this is what says how much.
fn design_effect(class: &Class, observed: &[&Observed]) -> f64 {
    let most = DESIGNS.last().copied().unwrap_or(1.0);
    let fair = |design: &&f64| class.suspects.values().all(|s| is_fair(class, s, **design, observed));
    DESIGNS.iter().find(fair).copied().unwrap_or(most)
}

/// Whether betting on this suspect pays no honest condition.
fn is_fair(class: &Class, suspect: &Suspect, design: f64, observed: &[&Observed]) -> bool {
    let at = |x: &f64| suspect.lambda.get(class.bin(*x)).copied().unwrap_or(0.0);
    class.honest.keys().all(|condition| {
        let of = observed.iter().filter(|o| o.honest && o.condition == *condition && !o.statistic.is_empty());
        let e: Vec<f64> = of.map(|o| (o.statistic.iter().map(at).sum::<f64>() / design).exp()).collect();
        let n = float(e.len() as u64).max(1.0);
        let mean = e.iter().sum::<f64>() / n;
        let variance = e.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        mean + 3.0 * (variance / n).sqrt() <= 1.0
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts of units are far below 2^53")]
const fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use nineteen_domain::{Digest, ModelName};

    use super::*;

    fn observed(condition: &str, honest: bool, exchange: u32, statistic: Vec<f64>) -> Observed {
        Observed {
            class: "seeded.text".into(),
            condition: condition.into(),
            honest,
            exchange,
            statistic,
            rank: vec![],
            logprob: vec![],
            claimed: vec![],
            same: vec![],
            temperature: 0.8,
            features: BTreeMap::new(),
            violation: None,
        }
    }

    fn fitted(observed: &[Observed]) -> Class {
        let model = CalibratedModel {
            name: ModelName::new("m").unwrap(),
            identity: Digest::of(b"m"),
            precision: "fp32".into(),
        };
        let made = fit(&TaskName::new("t").unwrap(), model, BTreeMap::new(), observed);
        assert_eq!(made.validate(), Ok(()));
        made.classes.into_values().next().unwrap()
    }

    /// Suspects are off at every other token.
    fn suspects() -> Vec<Observed> {
        (0..20).map(|n| observed("bad", false, n, [0.0, 0.5].repeat(20))).collect()
    }

    #[test]
    fn tokens_that_are_off_one_by_one_are_summed_and_those_that_are_off_together_hardly() {
        let alone = |n: u32| {
            let mut x = vec![0.0; 40];
            x[n as usize] = 0.5;
            observed("fp32", true, n, x)
        };
        let scattered: Vec<Observed> = (0..20).map(alone).chain(suspects()).collect();
        let class = fitted(&scattered);
        assert!(class.design_effect <= 2.0, "{}", class.design_effect);
        let lambda = &class.suspects["bad"].lambda;
        assert!(lambda[class.bin(0.0)] < 0.0 && lambda[class.bin(0.5)] > 2.0, "{lambda:?}");

        // As many tokens off, all of them in one answer.
        let together =
            |n: u32| observed("fp32", true, n, if n == 7 { [0.5].repeat(20) } else { vec![0.0; 40] });
        let clustered: Vec<Observed> = (0..20).map(together).chain(suspects()).collect();
        let class = fitted(&clustered);
        assert!(class.design_effect >= 8.0, "{}", class.design_effect);
    }

    #[test]
    fn q0_dominates_every_honest_condition() {
        let of = |condition: &str, off: usize| {
            let mut x = vec![0.0; 100];
            x[..off].fill(0.5);
            observed(condition, true, 0, x)
        };
        let class = fitted(&[of("a", 1), of("b", 10), observed("bad", false, 0, vec![0.5; 100])]);
        // 10 of 100, a standard error of 3 and one unit.
        let q0 = 0.14;
        let qk = 100.5 / (100.0 + 0.5 * 12.0);
        let lambda = class.suspects["bad"].lambda[class.bin(0.5)];
        assert!((lambda - f64::ln(qk / q0)).abs() < 1e-9, "{lambda}");
    }
}
