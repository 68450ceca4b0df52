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
    suspects: BTreeMap<String, Suspect>,
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
}
