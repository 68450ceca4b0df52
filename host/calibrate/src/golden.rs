//! The check whose answer is written down.

use nineteen_checking::measured;
use nineteen_domain::calibration::Golden;
use serde_json::json;

use crate::error::CalibrateError;
use crate::setting::Setting;

const QUESTION: &str = "Name the four seasons, and one colour for each of them.";
const ANSWER: &str = "Spring is green, summer is yellow, autumn is red and brown, and winter is white.";
const ROWS: usize = 32;
/// Nats: bfloat16 weights and products are off by some hundredths, int8 by a tenth, other models by more.
const NATS: f64 = 0.1;
/// Of a number of a row with length 1.
const OF_A_ROW: f64 = 2e-3;
/// Of the mean brightness of a sixteenth by a sixteenth of the picture, in [0, 1]: half precision is off by a hundredth of it,
/// other weights by several times as much.
const OF_A_PIXEL: f64 = 0.02;

/// Asks the reference what its own golden numbers are.
///
/// # Errors
/// [`CalibrateError`] when it cannot be started or does not answer.
pub async fn golden(setting: &Setting) -> Result<Golden, CalibrateError> {
    let executors = setting.reference().await?;
    let model = &setting.task.model;
    let mut golden = if let Some(text) = executors.text(model.as_str()) {
        let ids = text.tokenize(ANSWER)?;
        let params = json!({
            "version": 1,
            "messages": [{ "role": "user", "content": QUESTION }],
            "completion_ids": ids,
            "sampler": { "class": "greedy" },
            "top": 0,
        });
        Golden {
            kind: "text.replay".into(),
            params: params.to_string(),
            field: "logprob".into(),
            expects: Vec::new(),
            tolerance: NATS,
        }
    } else if executors.image(model.as_str()).is_some() {
        let params = json!({
            "version": 1, "prompt": QUESTION, "seed": 19, "steps": 4, "guidance": 3.0, "width": 64, "height": 64,
        });
        Golden {
            kind: "image.generate".into(),
            params: params.to_string(),
            field: "luma".into(),
            expects: Vec::new(),
            tolerance: OF_A_PIXEL,
        }
    } else {
        let params = json!({ "version": 1, "texts": [QUESTION] });
        Golden {
            kind: "embedding.embed".into(),
            params: params.to_string(),
            field: "rows".into(),
            expects: Vec::new(),
            tolerance: OF_A_ROW,
        }
    };
    let checker = executors.checker();
    let mut expects = measured(checker.as_ref(), model, &golden).await.map_err(CalibrateError::Request)?;
    if golden.field == "rows" {
        expects.truncate(ROWS);
    }
    // Six digits say all that a tolerance of a thousandth asks for.
    golden.expects = expects.iter().map(|x| (x * 1e6).round() / 1e6).collect();
    drop(checker);
    executors.stop().await;
    Ok(golden)
}
