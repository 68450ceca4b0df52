//! A task's calibration: how much noise honest miners make, and how much every suspect makes.
//!
//! `nineteen task calibrate` writes it beside the task's manifest; the host holds it against the model that it serves
//! and hands it to the plugin, which looks `λ = ln q_k/q_0` up for every number that it measures. The plugin's view of
//! the same file is `nineteen_sdk::calibration`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, ModelName, TaskName};

/// Name of the file in the task's folder, and of the asset that the plugin reads.
pub const FILE: &str = "calibration.json";
/// The only version there is.
pub const VERSION: u32 = 1;
/// Bins, suspects and classes of a file that is believed at most.
const MOST: usize = 64;

/// What `calibration.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Of this form: 1.
    pub version: u32,
    /// Whose.
    pub task: TaskName,
    /// The reference.
    pub model: CalibratedModel,
    /// Versions of what it was made with: `nineteen`, `onnxruntime`, the provider.
    pub made_with: BTreeMap<String, String>,
    /// Exchanges a condition, and the most units of one.
    pub exchanges: u32,
    /// The most units (tokens, rows) of one exchange.
    pub units: u32,
    /// What the reference answers to a fixed check: a checker that answers otherwise does not hold that model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<Golden>,
    /// By class of answers that are compared with each other: `greedy`, `seeded`, …
    pub classes: BTreeMap<String, Class>,
}

/// Which model a calibration is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibratedModel {
    /// Name under which it is served.
    pub name: ModelName,
    /// What it was made from: the checker's identity of the model, the same on every machine.
    pub identity: Digest,
    /// Of its weights.
    pub precision: String,
}

/// A check whose answer is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Its kind.
    pub kind: String,
    /// Its parameters, JSON.
    pub params: String,
    /// The numbers of the answer: its list of that name, or under `rows` the first numbers of its blob.
    pub field: String,
    /// What they are.
    pub expects: Vec<f64>,
    /// How far the root of the mean square of the differences may be from 0; above every honest precision and below
    /// every other model.
    pub tolerance: f64,
}

/// Tables of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// What is binned, e.g. `margin`; for people.
    pub statistic: String,
    /// Ascending: bin `b` holds numbers above edge `b - 1` and up to edge `b`; the last bin what is above all edges, or no
    /// number.
    pub edges: Vec<f64>,
    /// Units of one exchange are not independent: the sum over them is divided by this, at least 1.
    pub design_effect: f64,
    /// Where what is binned is not measured as such: how several numbers become one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logistic: Option<Logistic>,
    /// Units in each bin by honest condition.
    pub honest: BTreeMap<String, Vec<u64>>,
    /// By suspect.
    pub suspects: BTreeMap<String, Suspect>,
}

/// A logistic regression of dishonesty on several distances: `z = bias + Σ w (ln(x + 10⁻⁴) − mean)/deviation`, the
/// logarithm of the odds that an answer is not what was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logistic {
    /// Names of the distances, each at least 0 and 0 for equal answers.
    pub features: Vec<String>,
    /// Of the logarithms.
    pub mean: Vec<f64>,
    /// Of the logarithms; above 0.
    pub deviation: Vec<f64>,
    /// One a feature.
    pub weights: Vec<f64>,
    /// What is left.
    pub bias: f64,
}

impl Logistic {
    /// `z` of these distances; `None` if one that it needs is not there. What is no number counts as 1.
    #[must_use]
    pub fn odds(&self, distances: &BTreeMap<String, f64>) -> Option<f64> {
        let rows = self.features.iter().zip(&self.mean).zip(&self.deviation).zip(&self.weights);
        rows.map(|(((name, mean), deviation), w)| {
            let x = distances.get(name)?;
            let x = if x.is_finite() { x.max(0.0) } else { 1.0 };
            Some(w * ((x + 1e-4).ln() - mean) / deviation)
        })
        .sum::<Option<f64>>()
        .map(|sum| sum + self.bias)
    }

    fn is_whole(&self) -> bool {
        let n = self.features.len();
        let numbers = self.mean.iter().chain(&self.weights).chain([&self.bias]);
        (1..=MOST).contains(&n)
            && [&self.mean, &self.deviation, &self.weights].iter().all(|list| list.len() == n)
            && numbers.into_iter().all(|x| x.is_finite())
            && self.deviation.iter().all(|d| d.is_finite() && *d > 0.0)
    }
}

/// A suspect's table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspect {
    /// Units in each bin.
    pub counts: Vec<u64>,
    /// `ln q_k/q_0` of each bin, finite.
    pub lambda: Vec<f64>,
}

impl Calibration {
    /// Reads and validates a file's bytes.
    ///
    /// # Errors
    /// What is wrong, by field.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let this: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        this.validate()?;
        Ok(this)
    }

    /// Bounds that types cannot say.
    ///
    /// # Errors
    /// What is wrong, by field.
    pub fn validate(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("version: {} is not {VERSION}", self.version));
        }
        if let Some(golden) = &self.golden {
            let finite = golden.expects.iter().all(|x| x.is_finite()) && golden.tolerance > 0.0;
            if golden.expects.is_empty() || !finite {
                return Err("golden: use finite numbers and a tolerance above 0".into());
            }
        }
        if self.classes.len() > MOST {
            return Err(format!("classes: more than {MOST}"));
        }
        self.classes.iter().try_for_each(|(name, class)| {
            class.validate().map_err(|(field, why)| format!("classes.{name}.{field}: {why}"))
        })
    }
}

impl Class {
    /// The bin of a number.
    #[must_use]
    pub fn bin(&self, x: f64) -> usize {
        if x.is_nan() { self.edges.len() } else { self.edges.partition_point(|edge| *edge < x) }
    }

    fn validate(&self) -> Result<(), (String, String)> {
        let refuse = |field: &str, why: &str| Err((field.to_owned(), why.to_owned()));
        let bins = self.edges.len() + 1;
        if !(2..=MOST).contains(&bins) || !self.edges.iter().all(|e| e.is_finite()) || !self.edges.is_sorted()
        {
            return refuse("edges", "use 1 to 63 finite numbers in ascending order");
        }
        if !(1.0..=1e3).contains(&self.design_effect) {
            return refuse("design_effect", "use a number from 1 to 1000");
        }
        if self.logistic.as_ref().is_some_and(|l| !l.is_whole()) {
            return refuse("logistic", "one finite mean, deviation above 0 and weight for every feature");
        }
        if self.suspects.len() > MOST || self.honest.is_empty() {
            return refuse("suspects", "at most 64, and at least one honest condition");
        }
        if let Some((name, _)) = self.honest.iter().find(|(_, counts)| counts.len() != bins) {
            return refuse(&format!("honest.{name}"), "one count for every bin");
        }
        let fits = |s: &Suspect| {
            s.counts.len() == bins && s.lambda.len() == bins && s.lambda.iter().all(|l| l.is_finite())
        };
        match self.suspects.iter().find(|(_, s)| !fits(s)) {
            Some((name, _)) => {
                refuse(&format!("suspects.{name}"), "one count and one finite lambda for every bin")
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class() -> Class {
        Class {
            statistic: "margin".into(),
            edges: vec![0.0, 1.0],
            design_effect: 1.0,
            logistic: None,
            honest: BTreeMap::from([("fp32".into(), vec![1, 0, 0])]),
            suspects: BTreeMap::from([(
                "int8".into(),
                Suspect { counts: vec![1, 1, 1], lambda: vec![0.0; 3] },
            )]),
        }
    }

    #[test]
    fn numbers_fall_into_the_bin_that_ends_at_the_edge() {
        let bins: Vec<usize> =
            [f64::NEG_INFINITY, 0.0, 0.5, 1.0, 1.1, f64::INFINITY, f64::NAN].map(|x| class().bin(x)).into();
        assert_eq!(bins, [0, 0, 1, 1, 2, 2, 2]);
    }

    #[test]
    fn several_distances_become_one_number() {
        let logistic = Logistic {
            features: vec!["error".into(), "ssim".into()],
            mean: vec![(1e-4_f64).ln(), 0.0],
            deviation: vec![1.0, 2.0],
            weights: vec![2.0, 1.0],
            bias: -3.0,
        };
        let z = |error: f64, ssim: f64| {
            logistic.odds(&BTreeMap::from([("error".into(), error), ("ssim".into(), ssim)])).unwrap()
        };
        assert!((z(0.0, 0.9999) + 3.0).abs() < 1e-9);
        assert!(z(0.5, 0.9999) > 5.0 && z(f64::NAN, 0.0).is_finite());
        assert_eq!(logistic.odds(&BTreeMap::new()), None);
        let mut class = class();
        class.logistic = Some(Logistic { deviation: vec![1.0, 0.0], ..logistic });
        assert_eq!(class.validate().unwrap_err().0, "logistic");
    }

    #[test]
    fn a_table_that_does_not_fit_is_named() {
        assert_eq!(class().validate(), Ok(()));
        let field = |change: fn(&mut Class)| {
            let mut class = class();
            change(&mut class);
            class.validate().unwrap_err().0
        };
        assert_eq!(field(|c| c.edges = vec![1.0, 0.0]), "edges");
        assert_eq!(field(|c| c.edges = vec![]), "edges");
        assert_eq!(field(|c| c.design_effect = 0.5), "design_effect");
        assert_eq!(field(|c| c.honest.clear()), "suspects");
        assert_eq!(field(|c| c.honest.values_mut().for_each(|v| v.push(1))), "honest.fp32");
        assert_eq!(field(|c| c.suspects.values_mut().for_each(|s| s.lambda.clear())), "suspects.int8");
        assert_eq!(field(|c| c.suspects.values_mut().for_each(|s| s.lambda.fill(f64::NAN))), "suspects.int8");
    }
}
