//! Whether a model that is served is the one that a calibration was made with: a check whose answer is known.
//!
//! Files can be right and the machine wrong: a provider that computes nonsense, a driver that changed. A model that
//! fails is put into quarantine: every check of it is unavailable, so whatever depends on it is inconclusive, never zero.

use std::collections::BTreeMap;
use std::sync::Arc;

use nineteen_domain::calibration::Golden;
use nineteen_domain::check::{Check, Evidence};
use nineteen_domain::id::ModelName;
use nineteen_domain::meet::{BoxFuture, Checker};

/// The numbers of a golden check as this checker gives them.
///
/// # Errors
/// Why there are none, in words.
pub async fn measured(checker: &dyn Checker, model: &ModelName, golden: &Golden) -> Result<Vec<f64>, String> {
    let check = Check {
        kind: golden.kind.clone(),
        model: Some(model.to_string()),
        params: golden.params.clone(),
        blobs: Vec::new(),
    };
    let answer = match checker.check(check).await {
        Evidence::Answered(answer) => answer,
        Evidence::Unavailable(why) => return Err(why),
    };
    if golden.field == "rows" {
        let blob = answer.blobs.first().map(|b| b.as_ref()).unwrap_or_default();
        return Ok(blob.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect());
    }
    let params: serde_json::Value = serde_json::from_str(&answer.params).map_err(|e| e.to_string())?;
    let list = params.get(&golden.field).and_then(serde_json::Value::as_array);
    let list = list.ok_or_else(|| format!("the answer has no list '{}'", golden.field))?;
    Ok(list.iter().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect())
}

/// Whether a model answers its golden check as it should.
///
/// # Errors
/// How far it is off, in words.
pub async fn answers_as_known(
    checker: &dyn Checker,
    model: &ModelName,
    golden: &Golden,
) -> Result<(), String> {
    let got = measured(checker, model, golden).await?;
    if got.len() < golden.expects.len() {
        return Err(format!("{} numbers instead of {}", got.len(), golden.expects.len()));
    }
    let squares = golden.expects.iter().zip(&got).map(|(a, b)| (a - b) * (a - b));
    #[expect(clippy::cast_precision_loss, reason = "a golden check has some dozen numbers")]
    let off = (squares.sum::<f64>() / golden.expects.len().max(1) as f64).sqrt();
    // Not `off > tolerance`: NaN is off too.
    if off <= golden.tolerance {
        return Ok(());
    }
    Err(format!("its golden numbers are off by {off:.4}, at most {} is another precision", golden.tolerance))
}

/// The checker without these models: whatever is asked of them is unavailable, with the reason.
#[must_use]
pub fn quarantined(checker: Arc<dyn Checker>, models: BTreeMap<ModelName, String>) -> Arc<dyn Checker> {
    if models.is_empty() {
        return checker;
    }
    let models = models.into_iter().map(|(model, why)| (model.to_string(), why)).collect();
    Arc::new(Quarantine { checker, models })
}

struct Quarantine {
    checker: Arc<dyn Checker>,
    /// Why, by name.
    models: BTreeMap<String, String>,
}

impl Checker for Quarantine {
    fn check(&self, check: Check) -> BoxFuture<'_, Evidence> {
        match check.model.as_ref().and_then(|model| self.models.get(model)) {
            Some(why) => {
                let why = format!("quarantined: {why}");
                Box::pin(async move { Evidence::Unavailable(why) })
            }
            None => self.checker.check(check),
        }
    }

    fn kinds(&self) -> Vec<(String, Vec<String>)> {
        self.checker.kinds()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nineteen_domain::check::Answer;

    use super::*;

    struct Says(&'static str);

    impl Checker for Says {
        fn check(&self, _: Check) -> BoxFuture<'_, Evidence> {
            let blobs = vec![Bytes::from([0.5_f32, 0.25].map(f32::to_le_bytes).concat())];
            Box::pin(async move { Evidence::Answered(Answer { params: self.0.into(), blobs }) })
        }

        fn kinds(&self) -> Vec<(String, Vec<String>)> {
            vec![]
        }
    }

    fn golden(field: &str, expects: &[f64]) -> Golden {
        Golden {
            kind: "k".into(),
            params: "{}".into(),
            field: field.into(),
            expects: expects.to_vec(),
            tolerance: 0.1,
        }
    }

    #[tokio::test]
    async fn another_models_numbers_are_told_from_another_precisions() {
        let model = ModelName::new("m").unwrap();
        let says = Says(r#"{"logprob":[-1.05,-2.0,-3.0]}"#);
        assert_eq!(answers_as_known(&says, &model, &golden("logprob", &[-1.0, -2.0])).await, Ok(()));
        assert_eq!(answers_as_known(&says, &model, &golden("rows", &[0.5, 0.3])).await, Ok(()));
        for (says, field, expects) in [
            (r#"{"logprob":[-1.5,-2.0]}"#, "logprob", &[-1.0, -2.0][..]),
            (r#"{"logprob":[null,-2.0]}"#, "logprob", &[-1.0, -2.0]),
            (r#"{"logprob":[-1.0]}"#, "logprob", &[-1.0, -2.0]),
            (r#"{"other":[]}"#, "logprob", &[-1.0]),
            ("[", "logprob", &[-1.0]),
            ("{}", "rows", &[0.5, 0.9]),
        ] {
            let wrong = answers_as_known(&Says(says), &model, &golden(field, expects)).await;
            assert!(wrong.is_err(), "{says}");
        }
    }

    #[tokio::test]
    async fn a_model_in_quarantine_answers_nothing_and_others_do() {
        let (bad, good) = (ModelName::new("bad").unwrap(), ModelName::new("good").unwrap());
        let checker = quarantined(Arc::new(Says("{}")), BTreeMap::from([(bad.clone(), "off".to_owned())]));
        let ask = |model: &ModelName| Check {
            kind: "k".into(),
            model: Some(model.to_string()),
            params: "{}".into(),
            blobs: vec![],
        };
        assert_eq!(checker.check(ask(&bad)).await, Evidence::Unavailable("quarantined: off".into()));
        assert!(matches!(checker.check(ask(&good)).await, Evidence::Answered(_)));
    }
}
