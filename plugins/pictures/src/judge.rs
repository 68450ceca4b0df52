//! What is said of a picture beside our own regeneration of it.
//!
//! The distances are those that the host's calibration fits: their names in the verdict's reasons are a contract. Each is
//! at least 0, and 0 for equal pictures.

use nineteen_sdk::checks::{Classes, Compared, Fault, Features, ImageFacts, Kind};
use nineteen_sdk::hash::Fingerprint;
use nineteen_sdk::{Check, Cx, Ending, Exchange, Request, Stop, Verdict, clip, clip_unit};
use serde::Deserialize;

use crate::request::Body;

/// From this share of one colour on a picture is blank.
const BLANK: f64 = 0.995;

/// How replies are judged: `[params.judgement]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Judgement {
    /// Formats that a reply may have.
    pub formats: Vec<String>,
    /// Bytes of a reply's file.
    pub max_picture_bytes: usize,
    /// Without a calibration: mean absolute difference of pixels in [0, 1] at which quality is 0.
    pub epsilon: f64,
    /// With one: probability of honesty from which quality is 1.
    pub quality_full: f64,
}

impl Default for Judgement {
    fn default() -> Self {
        Self { formats: vec!["png".to_owned()], max_picture_bytes: 8 << 20, epsilon: 0.1, quality_full: 0.5 }
    }
}

impl Judgement {
    /// Bounds that types cannot say.
    ///
    /// # Errors
    /// Which parameter, and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let known = |f: &String| matches!(f.as_str(), "png" | "jpeg" | "webp" | "gif");
        let share = |x: f64| x > 0.0 && x <= 1.0;
        let rules = [
            (
                !self.formats.is_empty() && self.formats.iter().all(known),
                "judgement.formats must be of png, jpeg, webp, gif",
            ),
            (
                (1..=16 << 20).contains(&self.max_picture_bytes),
                "judgement.max_picture_bytes must be 1 to 16777216",
            ),
            (share(self.epsilon), "judgement.epsilon must be above 0, at most 1"),
            (share(self.quality_full), "judgement.quality_full must be above 0, at most 1"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, words)| Err((*words).to_owned()))
    }
}

/// What must be flagged, and how sure a classifier has to be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Safety {
    /// The classifier.
    pub model: String,
    /// Name of its class for what need not be flagged.
    #[serde(default = "safe")]
    pub safe: String,
    /// Probability of anything else from which a picture is to be flagged.
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// This near to the threshold nobody is blamed: two machines' arithmetic may fall on either side.
    #[serde(default = "margin")]
    pub margin: f64,
}

fn safe() -> String {
    "safe".to_owned()
}
const fn threshold() -> f64 {
    0.5
}
const fn margin() -> f64 {
    0.3
}

/// A classifier's word on one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Surely need not be flagged.
    Safe,
    /// Too near to the threshold.
    Doubtful,
    /// Surely has to be.
    Forbidden,
}

impl Safety {
    /// Bounds that types cannot say.
    ///
    /// # Errors
    /// Which parameter, and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let (low, high) = (self.threshold - self.margin, self.threshold + self.margin);
        if !self.model.is_empty() && self.margin >= 0.0 && low > 0.0 && high < 1.0 {
            Ok(())
        } else {
            Err("safety: a model, and 0 < threshold - margin, threshold + margin < 1".to_owned())
        }
    }

    /// The word on one of the classified pictures, and the probability that it has to be flagged.
    ///
    /// # Errors
    /// [`Stop::Inconclusive`] where the classifier has no such class.
    pub fn sight(&self, classes: &Classes, picture: usize) -> Result<(Sight, f64), Stop> {
        let p = classes.of(picture, &self.safe).ok_or_else(|| {
            Stop::Inconclusive(format!("evidence: {} has no class {}", self.model, self.safe))
        })?;
        let p = 1.0 - p;
        let sight = if p >= self.threshold + self.margin {
            Sight::Forbidden
        } else if p <= self.threshold - self.margin {
            Sight::Safe
        } else {
            Sight::Doubtful
        };
        Ok((sight, p))
    }

    /// What a flag in place of a picture is worth, by the word on our own regeneration.
    ///
    /// # Errors
    /// A violation where the flag is false, [`Stop::Inconclusive`] near the threshold.
    pub fn flagged(&self, classes: &Classes, body: &Body, exchange: &Exchange) -> Result<Verdict, Stop> {
        let (sight, p) = self.sight(classes, 0)?;
        match sight {
            Sight::Safe => Err(false_flag(p)),
            Sight::Doubtful => {
                Err(Stop::Inconclusive(format!("the flag: our own picture is doubtful, {p:.3}")))
            }
            Sight::Forbidden => {
                let units = body.units();
                let units_by_chunk = exchange.units_at_the_end(units);
                let mut verdict = Verdict { quality: 1.0, units, units_by_chunk, ..Verdict::default() };
                verdict.because("flagged", 1.0);
                verdict.because("unsafe.reference", p);
                Ok(verdict)
            }
        }
    }

    /// Whether a picture should have been flagged.
    ///
    /// # Errors
    /// A violation where it surely should.
    pub fn shown(&self, classes: &Classes, picture: usize) -> Result<f64, Stop> {
        match self.sight(classes, picture)? {
            (Sight::Forbidden, p) => Err(Stop::violation(
                "unsafe.unflagged",
                format!("shown, though unsafe with probability {p:.3}"),
            )),
            (_, p) => Ok(p),
        }
    }
}

/// A flag where nothing is to be flagged; `p` is the probability that our own picture is unsafe.
#[must_use]
pub fn false_flag(p: f64) -> Stop {
    Stop::violation("unsafe.false_flag", format!("withheld, though unsafe with probability {p:.3} only"))
}

/// Several checks in one round, each answered for itself: what one of them cannot say does not hide the others.
#[derive(Debug, Default)]
pub struct Round {
    needed: Vec<Check>,
}

/// An answer, a reason why there is none, or nothing yet.
pub type Found<A> = Option<Result<A, Stop>>;

impl Round {
    /// Asks.
    pub fn ask<K: Kind>(&mut self, cx: &mut Cx, kind: K) -> Found<K::Answer> {
        match cx.check(kind) {
            Err(Stop::Need(checks)) => {
                self.needed
                    .extend(checks.into_iter().filter(|c| !self.needed.contains(c)).collect::<Vec<_>>());
                None
            }
            found => Some(found),
        }
    }

    /// Asks, if there is something to ask.
    pub fn ask_some<K: Kind>(&mut self, cx: &mut Cx, kind: Option<K>) -> Option<Found<K::Answer>> {
        kind.map(|kind| self.ask(cx, kind))
    }

    /// The round's end.
    ///
    /// # Errors
    /// [`Stop::Need`] as long as an answer is missing.
    pub fn end(self) -> Result<(), Stop> {
        if self.needed.is_empty() { Ok(()) } else { Err(Stop::Need(self.needed)) }
    }
}

/// What was found in a round that has ended.
///
/// # Errors
/// The reason why there is nothing.
pub fn got<A>(found: Found<A>) -> Result<A, Stop> {
    found.unwrap_or_else(|| {
        Err(Stop::Inconclusive("evidence: asked for and neither given nor refused".to_owned()))
    })
}

/// The same for what need not have been asked.
///
/// # Errors
/// The reason why there is nothing.
pub fn got_some<A>(found: Option<Found<A>>) -> Result<Option<A>, Stop> {
    found.map(got).transpose()
}

/// The request's body.
///
/// # Errors
/// [`Stop::Inconclusive`] for one that this task did not make.
pub fn asked(request: &Request) -> Result<Body, Stop> {
    serde_json::from_slice(&request.body)
        .map_err(|e| Stop::Inconclusive(format!("request: this task did not make it: {e}")))
}

/// Whether there is a whole reply of status 200.
///
/// # Errors
/// A violation.
pub fn whole(exchange: &Exchange) -> Result<(), Stop> {
    if exchange.ending != Ending::Complete {
        return Err(Stop::violation("reply.incomplete", "the reply broke off"));
    }
    if exchange.status != 200 {
        return Err(Stop::violation("reply.status", format!("{}", exchange.status)));
    }
    Ok(())
}

/// What a picture's file contradicts by itself.
///
/// # Errors
/// A violation.
pub fn file<'a>(j: &Judgement, body: &Body, features: &'a Features) -> Result<&'a ImageFacts, Stop> {
    let image = match (&features.image, &features.fault) {
        (Some(image), _) => image,
        (None, Some(fault)) => return Err(faulty(fault)),
        (None, None) => return Err(Stop::Inconclusive("evidence: neither facts nor a fault".to_owned())),
    };
    if !j.formats.contains(&image.format) {
        let words = format!("{}, where {} was asked for", clip(&image.format, 20), j.formats.join(" or "));
        return Err(Stop::violation("image.format", words));
    }
    if (image.width, image.height) != (body.width, body.height) {
        let words = format!("{} × {}, not {} × {}", image.width, image.height, body.width, body.height);
        return Err(Stop::violation("image.size", words));
    }
    if image.trailing_bytes > 0 {
        return Err(Stop::violation(
            "image.trailing",
            format!("{} bytes behind its end", image.trailing_bytes),
        ));
    }
    if image.alpha {
        return Err(Stop::violation("image.alpha", "pixels that can be seen through"));
    }
    Ok(image)
}

fn faulty(fault: &Fault) -> Stop {
    let code = match fault.code.as_str() {
        "too-large" => "image.too_large",
        "truncated" => "image.truncated",
        "lies" => "image.lies",
        "animated" => "image.animated",
        _ => "image.undecodable",
    };
    Stop::violation(code, clip(&fault.words, 200))
}

/// Whether a picture is of one colour.
#[must_use]
pub fn is_blank(image: &ImageFacts) -> bool {
    image.most_common >= BLANK || image.deviation.iter().all(|d| *d < 1e-3)
}

/// A blank picture is a violation where ours is none.
///
/// # Errors
/// That violation.
pub fn not_blank(ours: &Features) -> Result<(), Stop> {
    match &ours.image {
        Some(image) if !is_blank(image) => {
            Err(Stop::violation("image.blank", "one colour, where ours shows something"))
        }
        _ => Ok(()),
    }
}

/// `1 − cos`, 0 to 2.
///
/// # Errors
/// [`Stop::Inconclusive`] where a row is missing, or has no direction.
pub fn turned(rows: &[Vec<f32>], a: usize, b: usize) -> Result<f64, Stop> {
    let no = || Stop::Inconclusive("evidence: a vector without a direction".to_owned());
    let (a, b) = (rows.get(a).ok_or_else(no)?, rows.get(b).ok_or_else(no)?);
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    if cosine.is_finite() { Ok((1.0 - cosine).clamp(0.0, 2.0)) } else { Err(no()) }
}

/// The distances between a picture and our regeneration; what is no number is 1.
///
/// # Errors
/// [`Stop::Inconclusive`] where their sizes differ: the picture's was looked at, so ours is wrong.
pub fn distances(c: &Compared, cosine: Option<f64>) -> Result<Vec<(&'static str, f64)>, Stop> {
    let error =
        c.error.ok_or_else(|| Stop::Inconclusive("evidence: our picture has another size".to_owned()))?;
    let mut all = vec![
        ("error", error),
        ("luma_error", c.luma_error),
        ("ssim", 1.0 - c.ssim),
        ("perceptual", f64::from(c.perceptual)),
        ("difference", f64::from(c.difference)),
        ("average", f64::from(c.average)),
        ("colour", f64::from(c.colour)),
        ("gradients", 1.0 - c.gradients),
        ("lab", c.lab),
    ];
    all.extend(cosine.map(|c| ("cosine", c)));
    for (_, x) in &mut all {
        *x = if x.is_finite() { x.max(0.0) } else { 1.0 };
    }
    Ok(all)
}

/// The verdict on a picture of these distances: by the task's calibration of this class, or by its scale where there is
/// none.
///
/// # Errors
/// [`Stop::Inconclusive`] for a calibration that cannot be read.
pub fn judged(
    j: &Judgement,
    cx: &Cx,
    class: &str,
    distances: &[(&'static str, f64)],
    (body, exchange): (&Body, &Exchange),
    image: &ImageFacts,
) -> Result<Verdict, Stop> {
    let units = body.units();
    let mut verdict =
        Verdict { units, units_by_chunk: exchange.units_at_the_end(units), ..Verdict::default() };
    let calibration = cx.calibration()?;
    let odds = calibration.as_ref().and_then(|c| c.logistic(class, distances));
    let of = |name: &str| distances.iter().find(|(n, _)| *n == name).map_or(0.0, |(_, x)| *x);
    verdict.quality = match odds {
        Some(z) => clip_unit(1.0 / (1.0 + z.exp()) / j.quality_full),
        None => (1.0 - clip_unit(of("error") / j.epsilon)) * clip_unit(1.0 - of("cosine")),
    };
    if let (Some(calibration), Some(z)) = (&calibration, odds) {
        verdict.suspicions = calibration.suspicions(class, std::iter::once(z));
        verdict.because("odds", z);
    }
    for (name, x) in distances {
        verdict.because(name, *x);
    }
    // The pixels alone: hashes and vectors of small pictures of one world are often equal, and honest miners must not look
    // like copies of each other's answers to other prompts.
    verdict.fingerprints.push(Fingerprint::default().bytes(image.pixels_sha256.as_bytes()).finish().to_vec());
    Ok(verdict)
}

#[cfg(test)]
mod tests;
