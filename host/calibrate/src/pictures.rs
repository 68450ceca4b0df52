//! Pictures of a pipeline, honest ones and those of every suspect, as the task's own plugin sees them.
//!
//! The distances between a picture and the reference's are the plugin's business: it is asked to judge, and what it says in
//! its reasons is what is fitted. So what is calibrated is what is used.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use nineteen_domain::calibration::Logistic;
use nineteen_domain::check::{Check, Evidence};
use nineteen_domain::id::Digest;
use nineteen_domain::meet::{BoxFuture, Checker};
use nineteen_domain::{Chunk, Ending, Exchange, ModelName, Outcome, Request};
use nineteen_miner::{
    Backend, BackendError, OnnxBackend, Picture, PictureWork, TaskConfig, picture_reply, picture_work,
};

use crate::error::CalibrateError;
use crate::setting::{From, Observed, Setting, Weights};
use crate::tricks::{TRICKS, all, tricked};
use crate::weights::Change;

/// Asks the task's plugin for its judgement.
pub type Judging<'a> =
    &'a (dyn Fn(Request, Exchange, Arc<dyn Checker>) -> BoxFuture<'static, Result<Outcome, String>> + Sync);

const WEIGHTS: [Weights; 8] = [
    Weights::honest("fp32", From::Own),
    Weights { intra: 2, ..Weights::honest("fp32-two-threads", From::Own) },
    Weights { optimised: false, ..Weights::honest("fp32-unoptimised", From::Own) },
    Weights::honest("fp16", From::Changed(Change::Fp16 { activations: true })),
    // Three bits less than the half precision that pipelines are published in: other weights.
    Weights::suspect("bf16-weights", From::Changed(Change::Bf16 { activations: false })),
    Weights::suspect("int8-weights", From::Changed(Change::Int8)),
    Weights::suspect("int4", From::Changed(Change::Int4)),
    Weights::suspect("other-weights", From::Changed(Change::Other)),
];
/// Makes every picture under every honest condition and as every suspect, and has the plugin judge it against the reference.
/// `served` says how a miner serves the task.
///
/// # Errors
/// [`CalibrateError`] when a request is none of pictures, a file is wrong or an executor fails.
pub async fn observe_pictures(
    setting: &Setting,
    class: &str,
    served: &TaskConfig,
    judge: Judging<'_>,
    tell: &mut (dyn FnMut(String) + Send),
) -> Result<Vec<Observed>, CalibrateError> {
    let works: Result<Vec<PictureWork>, CalibrateError> = setting
        .requests
        .iter()
        .map(|r| picture_work(&r.body, served).map_err(CalibrateError::Request))
        .collect();
    let works = works?;
    tell("loading the reference".into());
    let reference = setting.reference().await?;
    let remembered: Arc<dyn Checker> = Arc::new(Remembered::new(reference.checker()));
    let honest = OnnxBackend::new(&reference);
    let (mut own, mut asked, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for (work, request) in works.into_iter().zip(&setting.requests) {
        match honest.picture(work.clone()).await {
            Ok(picture) => {
                own.push(picture);
                asked.push(request);
                kept.push(work);
            }
            // A photograph in which the detector misses the face is a question with another answer.
            Err(BackendError::NoFace) => {}
            Err(e) => return Err(CalibrateError::Request(e.to_string())),
        }
    }
    let works = kept;
    let mut seen = Vec::new();
    let see = |name: &'static str, is_honest: bool, pictures: Vec<Option<Picture>>| {
        let (remembered, asked) = (Arc::clone(&remembered), &asked);
        async move {
            let mut seen = Vec::with_capacity(pictures.len());
            for ((picture, request), exchange) in pictures.iter().zip(asked).zip(0..) {
                let Some(picture) = picture else { continue };
                let reply = replied(&picture_reply(setting.task.model.as_str(), picture));
                let outcome = judge((*request).clone(), reply, Arc::clone(&remembered))
                    .await
                    .map_err(CalibrateError::Request)?;
                let (features, violation) = match outcome {
                    Outcome::Scored(verdict) => (verdict.reasons.into_iter().collect(), None),
                    Outcome::Violation(why) => (BTreeMap::new(), Some(why)),
                    // Nothing is known of it, so nothing is learnt.
                    Outcome::Inconclusive(_) | Outcome::Need(_) => continue,
                };
                seen.push(Observed {
                    class: class.to_owned(),
                    condition: name.to_owned(),
                    honest: is_honest,
                    exchange,
                    statistic: Vec::new(),
                    rank: Vec::new(),
                    logprob: Vec::new(),
                    claimed: Vec::new(),
                    same: Vec::new(),
                    temperature: 0.0,
                    features,
                    violation,
                });
            }
            Ok::<_, CalibrateError>(seen)
        }
    };
    for (n, weights) in WEIGHTS.iter().enumerate() {
        if setting.honest_only && !weights.honest {
            continue;
        }
        tell(format!("{} of {}: {}", n + 1, WEIGHTS.len(), weights.name));
        let Some((miner, name)) = setting.with(weights).await? else {
            tell(format!("{} is left out: this pipeline cannot be had that way", weights.name));
            continue;
        };
        let made = all(&OnnxBackend::new(&miner), &named(&works, &name)).await?;
        let made = made.into_iter().zip(&own);
        // What a miner does about flags is not told by its weights, nor its weights by a picture that it withholds.
        let of = |(p, own): (Picture, &Picture)| {
            (weights.honest || !own.flagged).then_some(Picture { flagged: own.flagged, ..p })
        };
        let flagged = made.map(of).collect();
        seen.extend(see(weights.name, weights.honest, flagged).await?);
        miner.stop().await;
    }
    for trick in TRICKS {
        if setting.honest_only {
            break;
        }
        if trick.of_faces() && works.iter().any(|w| w.face.is_none()) {
            continue;
        }
        tell(trick.name().to_owned());
        seen.extend(see(trick.name(), false, tricked(trick, &honest, &works, &own).await?).await?);
    }
    drop((honest, remembered));
    reference.stop().await;
    match seen.iter().find_map(|o| o.violation.as_ref().filter(|_| o.honest).zip(Some(o))) {
        Some((why, o)) => Err(CalibrateError::Request(format!(
            "an honest picture ({}, request {}) breaks a rule of the task, so the rule is too strict: {why}",
            o.condition, o.exchange
        ))),
        None => Ok(seen),
    }
}

fn named(works: &[PictureWork], model: &ModelName) -> Vec<PictureWork> {
    works.iter().cloned().map(|w| PictureWork { model: model.to_string(), safety: None, ..w }).collect()
}

fn replied(reply: &serde_json::Value) -> Exchange {
    let data = Bytes::from(reply.to_string());
    let chunks = vec![Chunk { at_us: 1_000_000, data }];
    Exchange { status: 200, headers: Vec::new(), chunks, ended_us: 1_000_000, ending: Ending::Complete }
}

/// The reference answers the same question once: every condition asks for the same pictures.
struct Remembered {
    checker: Arc<dyn Checker>,
    known: Mutex<HashMap<Digest, Evidence>>,
}

impl Remembered {
    fn new(checker: Arc<dyn Checker>) -> Self {
        Self { checker, known: Mutex::default() }
    }
}

impl Checker for Remembered {
    fn check(&self, check: Check) -> BoxFuture<'_, Evidence> {
        Box::pin(async move {
            if check.kind != "image.generate" {
                return self.checker.check(check).await;
            }
            let digest = check.digest();
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
            if let Some(known) = known {
                return known;
            }
            let evidence = self.checker.check(check).await;
            let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(digest, evidence.clone());
            evidence
        })
    }

    fn kinds(&self) -> Vec<(String, Vec<String>)> {
        self.checker.kinds()
    }
}

/// Distances that the fit may use, as plugins name them in their reasons: 0 for equal pictures.
pub const DISTANCES: [&str; 11] = [
    "error",
    "luma_error",
    "ssim",
    "perceptual",
    "difference",
    "average",
    "colour",
    "cosine",
    "gradients",
    "lab",
    "identity",
];
/// Keeps weights finite where honest and dishonest do not overlap at all.
const RIDGE: f64 = 1e-2;
const ROUNDS: usize = 4_000;
/// What withheld a picture with reason looks innocent.
const NOT_COMPARED: f64 = -50.0;

/// Logistic regression of dishonesty on the distances' logarithms, both sides weighing the same. Suspects that barely differ
/// (weights in 8 bits) are left to the tables.
#[must_use]
pub fn regress(observed: &[&Observed]) -> Option<Logistic> {
    let known = |d: &&&str| observed.iter().any(|o| o.features.contains_key(**d));
    let features: Vec<String> = DISTANCES.iter().filter(known).map(|d| (*d).to_owned()).collect();
    // Where a picture was withheld nothing was compared.
    let compared = |o: &&&Observed| features.iter().all(|f| o.features.contains_key(f));
    let usable: Vec<&&Observed> =
        observed.iter().filter(|o| o.violation.is_none()).filter(compared).collect();
    if features.is_empty() {
        return None;
    }
    let logs = |o: &Observed| -> Vec<f64> {
        let of = |name: &String| o.features.get(name).copied().filter(|x| x.is_finite()).unwrap_or(1.0);
        features.iter().map(|f| (of(f).max(0.0) + 1e-4).ln()).collect()
    };
    let rows: Vec<(Vec<f64>, bool)> = usable.iter().map(|o| (logs(o), o.honest)).collect();
    let n = rows.len() as f64;
    let mean: Vec<f64> =
        (0..features.len()).map(|k| rows.iter().filter_map(|(x, _)| x.get(k)).sum::<f64>() / n).collect();
    let deviation: Vec<f64> = mean
        .iter()
        .enumerate()
        .map(|(k, m)| {
            let of = rows.iter().filter_map(|(x, _)| x.get(k));
            (of.map(|x| (x - m) * (x - m)).sum::<f64>() / n).sqrt().max(1e-3)
        })
        .collect();
    let scaled: Vec<(Vec<f64>, bool)> = rows
        .iter()
        .map(|(x, honest)| {
            let z = x.iter().zip(&mean).zip(&deviation).map(|((x, m), d)| (x - m) / d);
            (z.collect(), *honest)
        })
        .collect();
    let honest = scaled.iter().filter(|(_, honest)| *honest).count() as f64;
    if honest < 1.0 || honest >= n {
        return None;
    }
    let (mut weights, mut bias) = (vec![0.0; features.len()], 0.0);
    for _ in 0..ROUNDS {
        let (mut slope, mut level) = (vec![0.0; features.len()], 0.0);
        for (x, is_honest) in &scaled {
            let z = bias + x.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>();
            let p = 1.0 / (1.0 + (-z).exp());
            let share = if *is_honest { 0.5 / honest } else { 0.5 / (n - honest) };
            let off = (p - f64::from(u8::from(!is_honest))) * share;
            slope.iter_mut().zip(x).for_each(|(s, x)| *s += off * x);
            level += off;
        }
        for (w, s) in weights.iter_mut().zip(&slope) {
            // A distance that is larger for honest pictures is chance: its weight stays at 0.
            *w = (*w - 1.0 * (s + RIDGE * *w)).max(0.0);
        }
        bias -= level;
    }
    Some(Logistic { features, mean, deviation, weights, bias })
}

/// Writes `z` of the class's regression into every observation; what broke a rule is beyond every number.
pub fn measure(logistic: &Logistic, observed: &mut [Observed]) {
    for o in observed {
        let odds = logistic.odds(&o.features).unwrap_or(NOT_COMPARED);
        let z = if o.violation.is_some() { f64::INFINITY } else { odds };
        o.statistic = vec![z];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(honest: bool, error: f64) -> Observed {
        Observed {
            class: "images".into(),
            condition: if honest { "fp32" } else { "other-seed" }.into(),
            honest,
            exchange: 0,
            statistic: Vec::new(),
            rank: Vec::new(),
            logprob: Vec::new(),
            claimed: Vec::new(),
            same: Vec::new(),
            temperature: 0.0,
            features: BTreeMap::from([("error".into(), error), ("ssim".into(), error * 2.0)]),
            violation: None,
        }
    }

    #[test]
    fn what_separates_is_found() {
        let mut all: Vec<Observed> = (0..40).map(|n| observed(true, f64::from(n) * 1e-4)).collect();
        all.extend((0..40).map(|n| observed(false, 0.05 + f64::from(n) * 0.01)));
        let logistic = regress(&all.iter().collect::<Vec<_>>()).unwrap();
        measure(&logistic, &mut all);
        let z = |o: &Observed| o.statistic[0];
        let most = all.iter().filter(|o| o.honest).map(z).fold(f64::NEG_INFINITY, f64::max);
        let least = all.iter().filter(|o| !o.honest).map(z).fold(f64::INFINITY, f64::min);
        assert!(most < 0.0 && least > 0.0, "{most} {least}");
        let mut broken = vec![Observed { violation: Some("image.size".into()), ..observed(false, 0.0) }];
        measure(&logistic, &mut broken);
        assert!(z(&broken[0]).is_infinite());
    }

    #[test]
    fn one_side_alone_teaches_nothing() {
        let all = [observed(true, 0.0), observed(true, 0.1)];
        assert_eq!(regress(&all.iter().collect::<Vec<_>>()), None);
    }
}
