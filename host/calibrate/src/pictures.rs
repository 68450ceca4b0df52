//! Pictures of a pipeline, honest ones and those of every suspect, as the task's own plugin sees them.
//!
//! The distances between a picture and the reference's are the plugin's business: it is asked to judge, and what it says in
//! its reasons is what is fitted. So what is calibrated is what is used.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use nineteen_checking::{Pixels, pixels};
use nineteen_domain::calibration::Logistic;
use nineteen_domain::check::{Check, Evidence};
use nineteen_domain::id::Digest;
use nineteen_domain::meet::{BoxFuture, Checker};
use nineteen_domain::{Chunk, Ending, Exchange, ModelName, Outcome, Request};
use nineteen_miner::{Backend, OnnxBackend, Picture, PictureWork, TaskConfig, picture_reply, picture_work};

use crate::error::CalibrateError;
use crate::setting::{From, Observed, Setting, Weights};
use crate::weights::Change;

/// Asks the task's plugin for its judgement.
pub type Judging<'a> =
    &'a (dyn Fn(Request, Exchange, Arc<dyn Checker>) -> BoxFuture<'static, Result<Outcome, String>> + Sync);

const WEIGHTS: [Weights; 6] = [
    Weights::honest("fp32", From::Own),
    Weights { name: "fp32-two-threads", honest: true, from: From::Own, intra: 2 },
    Weights::honest("fp16-weights", From::Changed(Change::Fp16 { activations: false })),
    Weights::honest("bf16-weights", From::Changed(Change::Bf16 { activations: false })),
    Weights::suspect("int8-weights", From::Changed(Change::Int8)),
    Weights::suspect("int4", From::Changed(Change::Int4)),
];
/// What is done with the reference's own weights.
const TRICKS: [Trick; 16] = [
    Trick::OtherSeed,
    Trick::HalfSteps,
    Trick::OneStepLess,
    Trick::OtherScheduler,
    Trick::NoGuidance,
    Trick::OtherPrompt,
    Trick::Cached,
    Trick::SameForAll,
    Trick::Noise,
    Trick::Jpeg30,
    Trick::Upscaled,
    Trick::Shifted,
    Trick::Photo,
    Trick::WarpedPhoto,
    Trick::OtherPerson,
    Trick::TwoFaces,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trick {
    OtherSeed,
    HalfSteps,
    OneStepLess,
    OtherScheduler,
    NoGuidance,
    OtherPrompt,
    Cached,
    SameForAll,
    Noise,
    Jpeg30,
    Upscaled,
    Shifted,
    /// Avatars: the photograph itself.
    Photo,
    /// Avatars: the photograph, moved, shrunk and mirrored.
    WarpedPhoto,
    /// Avatars: somebody else's.
    OtherPerson,
    /// Avatars: the portrait twice, side by side.
    TwoFaces,
}

impl Trick {
    const fn name(self) -> &'static str {
        match self {
            Self::OtherSeed => "other-seed",
            Self::HalfSteps => "half-steps",
            Self::OneStepLess => "one-step-less",
            Self::OtherScheduler => "other-scheduler",
            Self::NoGuidance => "no-guidance",
            Self::OtherPrompt => "other-prompt",
            Self::Cached => "cached",
            Self::SameForAll => "same-for-all",
            Self::Noise => "noise",
            Self::Jpeg30 => "jpeg-30",
            Self::Upscaled => "upscaled",
            Self::Shifted => "shifted",
            Self::Photo => "photograph",
            Self::WarpedPhoto => "warped-photograph",
            Self::OtherPerson => "other-person",
            Self::TwoFaces => "two-faces",
        }
    }

    /// Whether it takes a photograph.
    const fn of_faces(self) -> bool {
        matches!(self, Self::Photo | Self::WarpedPhoto | Self::OtherPerson | Self::TwoFaces)
    }
}

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
    let own: Vec<Picture> = all(&honest, &works).await?;
    let mut seen = Vec::new();
    let see = |name: &'static str, is_honest: bool, pictures: Vec<Picture>| {
        let remembered = Arc::clone(&remembered);
        async move {
            let mut seen = Vec::with_capacity(pictures.len());
            for ((picture, request), exchange) in pictures.iter().zip(&setting.requests).zip(0..) {
                let reply = replied(&picture_reply(setting.task.model.as_str(), picture));
                let outcome = judge(request.clone(), reply, Arc::clone(&remembered))
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
        seen.extend(see(weights.name, weights.honest, made).await?);
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
    Ok(seen)
}

fn named(works: &[PictureWork], model: &ModelName) -> Vec<PictureWork> {
    works.iter().cloned().map(|w| PictureWork { model: model.to_string(), safety: None, ..w }).collect()
}

async fn all(engine: &OnnxBackend, works: &[PictureWork]) -> Result<Vec<Picture>, CalibrateError> {
    let mut made = Vec::with_capacity(works.len());
    for work in works {
        let picture = engine.picture(work.clone()).await;
        made.push(picture.map_err(|e| CalibrateError::Request(e.to_string()))?);
    }
    Ok(made)
}

async fn tricked(
    trick: Trick,
    engine: &OnnxBackend,
    works: &[PictureWork],
    own: &[Picture],
) -> Result<Vec<Picture>, CalibrateError> {
    let with = |change: &dyn Fn(usize, PictureWork) -> PictureWork| -> Vec<PictureWork> {
        works.iter().cloned().enumerate().map(|(n, w)| change(n, w)).collect()
    };
    let next = |n: usize| works.get((n + 1) % works.len().max(1));
    let drawn = |change: &dyn Fn(&Pixels) -> Option<Pixels>| -> Result<Vec<Picture>, CalibrateError> {
        own.iter()
            .map(|p| {
                let bad = || CalibrateError::Request("a picture of our own cannot be read".into());
                let picture = decoded(&p.png).ok_or_else(bad)?;
                let changed = change(&picture).ok_or_else(bad)?;
                Ok(Picture { png: Bytes::from(pixels::encode_png(&changed)), flagged: p.flagged })
            })
            .collect()
    };
    match trick {
        Trick::OtherSeed => all(engine, &with(&|_, w| PictureWork { seed: w.seed ^ 1, ..w })).await,
        Trick::HalfSteps => all(engine, &with(&|_, w| PictureWork { steps: w.steps.div_ceil(2), ..w })).await,
        Trick::OneStepLess => {
            all(engine, &with(&|_, w| PictureWork { steps: (w.steps - 1).max(1), ..w })).await
        }
        Trick::OtherScheduler => {
            let other = |w: &PictureWork| match w.scheduler.as_deref() {
                Some("euler") => "ddim",
                _ => "euler",
            };
            all(engine, &with(&|_, w| PictureWork { scheduler: Some(other(&w).into()), ..w })).await
        }
        Trick::NoGuidance => all(engine, &with(&|_, w| PictureWork { guidance: 1.0, ..w })).await,
        Trick::OtherPrompt => {
            let prompt = |n: usize, w: &PictureWork| next(n).map_or(w.prompt.clone(), |o| o.prompt.clone());
            all(engine, &with(&|n, w| PictureWork { prompt: prompt(n, &w), ..w })).await
        }
        Trick::Cached => {
            let mut turned = own.to_vec();
            turned.rotate_left(1);
            Ok(turned)
        }
        Trick::SameForAll => Ok(own.first().map(|p| vec![p.clone(); own.len()]).unwrap_or_default()),
        Trick::Noise => drawn(&|picture| Some(noisy(picture))),
        Trick::Jpeg30 => drawn(&|picture| decoded(&pixels::encode_jpeg(picture, 30))),
        Trick::Upscaled => drawn(&|p| {
            let small = pixels::resized(p, p.width / 2, p.height / 2);
            Some(pixels::resized(&small, p.width, p.height))
        }),
        Trick::Shifted => drawn(&|picture| Some(pixels::shifted(picture, 1, 1))),
        Trick::Photo => photographs(works, &|photo| photo),
        Trick::WarpedPhoto => photographs(works, &|photo| {
            let small = pixels::resized(&photo, photo.width * 7 / 8, photo.height * 7 / 8);
            laid(&photo, &mirrored(&small), 4, 5)
        }),
        Trick::OtherPerson => {
            let face = |n: usize, w: &PictureWork| next(n).map_or(w.face.clone(), |o| o.face.clone());
            all(engine, &with(&|n, w| PictureWork { face: face(n, &w), ..w })).await
        }
        Trick::TwoFaces => drawn(&|p| {
            let half = pixels::resized(p, p.width / 2, p.height / 2);
            let grey = Pixels { width: p.width, height: p.height, rgb: vec![128; p.rgb.len()] };
            Some(laid(&laid(&grey, &half, 0, p.height / 4), &half, p.width / 2, p.height / 4))
        }),
    }
}

fn photographs(
    works: &[PictureWork],
    change: &dyn Fn(Pixels) -> Pixels,
) -> Result<Vec<Picture>, CalibrateError> {
    works
        .iter()
        .map(|w| {
            let photo = w.face.as_ref().and_then(|f| decoded(&f.photo));
            let photo = photo.ok_or_else(|| CalibrateError::Request("a photograph cannot be read".into()))?;
            Ok(Picture { png: Bytes::from(pixels::encode_png(&change(photo))), flagged: false })
        })
        .collect()
}

fn mirrored(p: &Pixels) -> Pixels {
    let rows = p.rgb.chunks(p.width.max(1) * 3);
    let rgb = rows.flat_map(|row| row.as_chunks::<3>().0.iter().rev().flatten().copied()).collect();
    Pixels { width: p.width, height: p.height, rgb }
}

/// One picture upon another, its upper left corner at this place.
fn laid(under: &Pixels, over: &Pixels, left: usize, top: usize) -> Pixels {
    let mut rgb = under.rgb.clone();
    for (y, row) in over.rgb.chunks(over.width.max(1) * 3).enumerate() {
        let start = ((top + y) * under.width + left) * 3;
        let most = under.width.saturating_sub(left) * 3;
        for (to, from) in rgb.iter_mut().skip(start).take(most).zip(row) {
            *to = *from;
        }
    }
    Pixels { width: under.width, height: under.height, rgb }
}

fn decoded(bytes: &[u8]) -> Option<Pixels> {
    pixels::decode(bytes, &pixels::DecodeLimits::default()).ok().map(|d| d.pixels)
}

/// Up to six of 255 more or less, the same for the same picture.
fn noisy(picture: &Pixels) -> Pixels {
    let mut state =
        u64::from_le_bytes(*Digest::of(&picture.rgb).as_bytes().first_chunk::<8>().unwrap_or(&[1; 8]));
    let rgb = picture.rgb.iter().map(|v| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let off = u8::try_from((state >> 33) % 13).unwrap_or(6);
        v.saturating_add(off).saturating_sub(6)
    });
    Pixels { width: picture.width, height: picture.height, rgb: rgb.collect() }
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

/// Logistic regression of dishonesty on the distances' logarithms, both sides weighing the same. Suspects that barely differ
/// (weights in 8 bits) are left to the tables.
#[must_use]
pub fn regress(observed: &[&Observed]) -> Option<Logistic> {
    let usable: Vec<&&Observed> = observed.iter().filter(|o| o.violation.is_none()).collect();
    let first = usable.first()?;
    let features: Vec<String> =
        DISTANCES.iter().filter(|d| first.features.contains_key(**d)).map(|d| (*d).to_owned()).collect();
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
        let z = if o.violation.is_some() { f64::INFINITY } else { logistic.odds(&o.features).unwrap_or(0.0) };
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
