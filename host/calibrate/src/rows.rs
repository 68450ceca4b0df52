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
    Weights { intra: 2, ..Weights::honest("fp32-two-threads", From::Own) },
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
    let mut given: Vec<Given> = Vec::new();
    let mut see =
        |name: &str, honest: bool, rows| given.push(Given { condition: name.to_owned(), honest, rows });
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
    let mut seen = Vec::new();
    for one in &given {
        let statistic = |n: usize, rows: &[Vec<f32>]| -> Vec<f64> {
            rows.iter().zip(right.get(n).into_iter().flatten()).map(|(e, r)| apart(e, r)).collect()
        };
        seen.extend(one.observed("rows", &one.condition, statistic));
    }
    // Suspects that a checker can serve beside the model have a matched filter of their own.
    for weights in WEIGHTS.iter().filter(|w| !w.honest) {
        let From::Beside(ending) = weights.from else { continue };
        let Some(suspect) = given.iter().find(|g| g.condition == weights.name) else { continue };
        let class = format!("matched.{}-{ending}", setting.task.model);
        let condition = format!("matched.{}", weights.name);
        for one in given.iter().filter(|g| g.honest || g.condition == weights.name) {
            let statistic = |n: usize, rows: &[Vec<f32>]| -> Vec<f64> {
                let theirs = suspect.rows.get(n).into_iter().flatten();
                let right = right.get(n).into_iter().flatten();
                rows.iter().zip(right).zip(theirs).map(|((e, r), k)| leaning(e, r, k)).collect()
            };
            let name = if one.honest { &one.condition } else { &condition };
            seen.extend(one.observed(&class, name, statistic));
        }
    }
    Ok(seen)
}

/// What one condition answered: by exchange, rows.
struct Given {
    condition: String,
    honest: bool,
    rows: Vec<Vec<Vec<f32>>>,
}

impl Given {
    fn observed(
        &self,
        class: &str,
        condition: &str,
        statistic: impl Fn(usize, &[Vec<f32>]) -> Vec<f64>,
    ) -> Vec<Observed> {
        let of = |(exchange, (n, rows)): (u32, (usize, &Vec<Vec<f32>>))| Observed {
            class: class.to_owned(),
            condition: condition.to_owned(),
            honest: self.honest,
            exchange,
            statistic: statistic(n, rows),
            rank: Vec::new(),
            logprob: Vec::new(),
            claimed: Vec::new(),
            same: Vec::new(),
            temperature: 0.0,
            features: std::collections::BTreeMap::new(),
            violation: None,
        };
        (0..).zip(self.rows.iter().enumerate()).map(of).collect()
    }
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

/// How much of the way from `r` to the suspect's row `k` the given row has gone; the plugin's own measure.
fn leaning(e: &[f32], r: &[f32], k: &[f32]) -> f64 {
    let (mut along, mut whole) = (0.0, 0.0);
    for ((e, r), k) in e.iter().zip(r).zip(k) {
        let way = f64::from(*k) - f64::from(*r);
        along += (f64::from(*e) - f64::from(*r)) * way;
        whole += way * way;
    }
    if whole > 0.0 { (along / whole).clamp(-2.0, 2.0) } else { 0.0 }
}
