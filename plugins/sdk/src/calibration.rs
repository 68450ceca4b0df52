//! The task's `calibration.json` as a plugin uses it: tables of `λ = ln q_k/q_0` that the host's `nineteen task
//! calibrate` has written. The host refuses a file that does not fit, so here it is only read.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Name of the asset.
pub const ASSET: &str = "calibration.json";

/// What a plugin needs of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Calibration {
    classes: BTreeMap<String, Class>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Class {
    edges: Vec<f64>,
    design_effect: f64,
    /// How several distances become the one number that is binned.
    logistic: Option<Logistic>,
    suspects: BTreeMap<String, Suspect>,
}

/// `z = bias + Σ w (ln(x + 10⁻⁴) − mean)/deviation`: the logarithm of the odds that an answer is not what was asked for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Logistic {
    features: Vec<String>,
    mean: Vec<f64>,
    deviation: Vec<f64>,
    weights: Vec<f64>,
    bias: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Suspect {
    lambda: Vec<f64>,
}

impl Calibration {
    /// Reads the asset's bytes.
    ///
    /// # Errors
    /// Why they are no calibration.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| e.to_string())
    }

    /// `z` of these distances by the class's regression: the larger, the less likely is an honest answer. Each distance
    /// is at least 0, and 0 for equal answers; what is not finite counts as 1. `None` where the class has no regression,
    /// or a distance that it needs is not among them.
    #[must_use]
    pub fn logistic(&self, class: &str, distances: &[(&str, f64)]) -> Option<f64> {
        let l = self.classes.get(class)?.logistic.as_ref()?;
        let rows = l.features.iter().zip(&l.mean).zip(&l.deviation).zip(&l.weights);
        let sum: Option<f64> = rows
            .map(|(((name, mean), deviation), w)| {
                let (_, x) = distances.iter().find(|(given, _)| given == name)?;
                let x = if x.is_finite() { x.max(0.0) } else { 1.0 };
                Some(w * ((x + 1e-4).ln() - mean) / deviation)
            })
            .sum();
        sum.map(|sum| sum + l.bias).filter(|z| z.is_finite())
    }

    /// `Λ_k` of one exchange by suspect: the sum over its numbers, divided by the class's design effect. Empty where the
    /// class is not calibrated. What is not finite falls into the last bin.
    pub fn suspicions(&self, class: &str, numbers: impl Iterator<Item = f64>) -> Vec<(String, f64)> {
        let Some(class) = self.classes.get(class) else { return Vec::new() };
        let mut counts = vec![0.0_f64; class.edges.len() + 1];
        for x in numbers {
            let bin = if x.is_nan() { class.edges.len() } else { class.edges.partition_point(|e| *e < x) };
            if let Some(count) = counts.get_mut(bin) {
                *count += 1.0;
            }
        }
        let sum = |s: &Suspect| s.lambda.iter().zip(&counts).map(|(l, n)| l * n).sum::<f64>();
        let divided = |s: &Suspect| sum(s) / class.design_effect.max(1.0);
        class.suspects.iter().map(|(name, s)| (name.clone(), divided(s))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"version":1,"classes":{"greedy":{"statistic":"margin","edges":[0.0,1.0],
        "design_effect":2.0,"suspects":{"int8":{"counts":[1,1,1],"lambda":[-1.0,2.0,8.0]}}}}}"#;

    #[test]
    fn what_the_host_wrote_is_read() {
        // Tests run in their package's folder.
        let tasks = std::path::Path::new("../../tasks");
        for (task, class) in [("chat-smollm2-135m", "seeded"), ("embed-minilm-l6", "rows")] {
            let c = Calibration::read(&std::fs::read(tasks.join(task).join(ASSET)).unwrap()).unwrap();
            let honest = c.suspicions(class, std::iter::repeat_n(0.0, 20));
            assert!(honest.len() >= 5 && honest.iter().all(|(_, l)| *l <= 0.0), "{honest:?}");
            let wrong = c.suspicions(class, std::iter::repeat_n(0.5, 20));
            assert!(wrong.iter().any(|(_, l)| *l > 10.0), "{wrong:?}");
        }
    }

    #[test]
    fn sums_are_divided_by_the_design_effect() {
        let c = Calibration::read(FILE.as_bytes()).unwrap();
        let said = c.suspicions("greedy", [0.0, 0.0, 0.5, f64::INFINITY].into_iter());
        assert_eq!(said, [("int8".to_owned(), 4.0)]);
        assert!(c.suspicions("seeded", [0.0].into_iter()).is_empty());
        assert!(Calibration::read(b"{}").is_err());
    }

    #[test]
    fn distances_become_the_odds_that_the_host_fits() {
        let file = FILE.replace(
            r#""design_effect""#,
            r#""logistic":{"features":["error","ssim"],"mean":[-9.210340371976182,0.0],"deviation":[1.0,2.0],
            "weights":[2.0,1.0],"bias":-3.0},"design_effect""#,
        );
        let c = Calibration::read(file.as_bytes()).unwrap();
        let z = |error: f64, ssim: f64| c.logistic("greedy", &[("ssim", ssim), ("error", error)]);
        assert!((z(0.0, 0.9999).unwrap() + 3.0).abs() < 1e-9);
        assert!(z(0.5, 0.9999).unwrap() > 5.0);
        assert!(z(f64::NAN, -1.0).unwrap().is_finite());
        assert_eq!(c.logistic("greedy", &[("error", 0.1)]), None, "a distance is missing");
        assert_eq!(c.logistic("seeded", &[("error", 0.1), ("ssim", 0.1)]), None);
        let without = Calibration::read(FILE.as_bytes()).unwrap();
        assert_eq!(without.logistic("greedy", &[("error", 0.1), ("ssim", 0.1)]), None);
    }
}
