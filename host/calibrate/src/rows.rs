//! Rows of an embedding model, honest ones and those of every suspect, against the reference's.

use futures_util::future::try_join_all;
use nineteen_checking::EmbeddingModel;
use nineteen_domain::Request;
use serde::Deserialize;

use crate::error::CalibrateError;
use crate::setting::{From, Observed, Setting, Weights};
use crate::weights::Change;

const WEIGHTS: [Weights; 9] = [
    Weights::honest("fp32", From::Own),
    Weights { name: "fp32-two-threads", honest: true, from: From::Own, intra: 2 },
    Weights::honest("bf16-weights", From::Changed(Change::Bf16 { activations: false })),
    Weights::honest("fp16", From::Changed(Change::Fp16 { activations: true })),
    Weights::honest("bf16", From::Changed(Change::Bf16 { activations: true })),
    Weights::suspect("int8-dynamic", From::Beside("int8")),
    Weights::suspect("int8-weights", From::Changed(Change::Int8)),
    Weights::suspect("int4", From::Changed(Change::Int4)),
    Weights::suspect("layer-removed", From::Changed(Change::Without { layers: 1 })),
];
/// Words that a miner that saves work reads.
const WORDS_READ: usize = 12;

#[derive(Deserialize)]
struct Body {
    input: Input,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
}

/// Runs the task's model under every honest condition and as every suspect, and measures `|e − ê|/|ê|` of every row.
/// `tell` is told what is under way.
///
/// # Errors
/// [`CalibrateError`] when a request has no texts, a file is wrong or an executor fails.
pub async fn observe_rows(
    setting: &Setting,
    tell: &mut (dyn FnMut(String) + Send),
) -> Result<Vec<Observed>, CalibrateError> {
    let texts: Result<Vec<Vec<String>>, CalibrateError> =
        setting.requests.iter().map(|r| texts(r, setting.units as usize)).collect();
    let texts = texts?;
    tell("loading the reference".into());
    let executors = setting.reference().await?;
    let none = || CalibrateError::Request(format!("'{}' is no embedding model", setting.task.model));
    let reference = executors.embedding(setting.task.model.as_str()).ok_or_else(none)?.clone();
    let mut right = Vec::with_capacity(texts.len());
    for texts in &texts {
        // Each exchange by itself, as a check computes it.
        right.push(reference.embed(texts.clone()).await?.rows);
    }
    let mut seen = Vec::new();
    let mut see = |name: &str, honest: bool, given: Vec<Vec<Vec<f32>>>| {
        for ((rows, right), exchange) in given.iter().zip(&right).zip(0..) {
            let statistic = rows.iter().zip(right).map(|(e, r)| apart(e, r)).collect();
            seen.push(Observed {
                class: "rows".into(),
                condition: name.to_owned(),
                honest,
                exchange,
                statistic,
                rank: Vec::new(),
                logprob: Vec::new(),
                claimed: Vec::new(),
                same: Vec::new(),
                temperature: 0.0,
            });
        }
    };
    for (n, weights) in WEIGHTS.iter().enumerate() {
        if setting.honest_only && !weights.honest {
            continue;
        }
        tell(format!("{} of {}: {}", n + 1, WEIGHTS.len(), weights.name));
        let Some((miner, name)) = setting.with(weights).await? else {
            tell(format!("{} is left out: this model cannot be had that way", weights.name));
            continue;
        };
        let model = miner.embedding(name.as_str()).ok_or_else(none)?.clone();
        // All exchanges at once: they share batches, which is the widest padding there is.
        see(weights.name, weights.honest, all(&model, &texts).await?);
        if n == 0 {
            see("fp32-row-by-row", true, one_by_one(&model, &texts).await?);
        }
        if n == 0 && !setting.honest_only {
            let prefixed = changed(&texts, |t| format!("query: {t}"));
            see("prefixed", false, all(&model, &prefixed).await?);
            let short = changed(&texts, |t| t.split(' ').take(WORDS_READ).collect::<Vec<_>>().join(" "));
            see("truncated-texts", false, all(&model, &short).await?);
        }
        drop(model);
        miner.stop().await;
    }
    drop(reference);
    executors.stop().await;
    Ok(seen)
}

async fn all(model: &EmbeddingModel, texts: &[Vec<String>]) -> Result<Vec<Vec<Vec<f32>>>, CalibrateError> {
    let embedded = try_join_all(texts.iter().map(|t| model.embed(t.clone()))).await?;
    Ok(embedded.into_iter().map(|e| e.rows).collect())
}

async fn one_by_one(
    model: &EmbeddingModel,
    texts: &[Vec<String>],
) -> Result<Vec<Vec<Vec<f32>>>, CalibrateError> {
    let mut rows = Vec::with_capacity(texts.len());
    for texts in texts {
        let mut of_one = Vec::with_capacity(texts.len());
        for text in texts {
            of_one.extend(model.embed(vec![text.clone()]).await?.rows);
        }
        rows.push(of_one);
    }
    Ok(rows)
}

fn changed(texts: &[Vec<String>], change: impl Fn(&String) -> String) -> Vec<Vec<String>> {
    texts.iter().map(|all| all.iter().map(&change).collect()).collect()
}

fn texts(request: &Request, most: usize) -> Result<Vec<String>, CalibrateError> {
    let body: Body = serde_json::from_slice(&request.body)
        .map_err(|e| CalibrateError::Request(format!("a body has no texts: {e}")))?;
    let mut texts = match body.input {
        Input::One(text) => vec![text],
        Input::Many(texts) => texts,
    };
    texts.truncate(most.max(1));
    Ok(texts)
}

/// `|a − b|/|b|`, in double precision.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let off: f64 = a.iter().zip(b).map(|(x, y)| square(f64::from(*x) - f64::from(*y))).sum();
    let size: f64 = b.iter().map(|y| square(f64::from(*y))).sum();
    (off / size).sqrt()
}
