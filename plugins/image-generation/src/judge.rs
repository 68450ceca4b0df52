//! Whether a reply is what the pipeline makes of this prompt and this seed.
//!
//! First what the file contradicts by itself, then our own picture from the same noise, then the two beside each other. A
//! picture is only generated for a file that is worth it. Where the miner withholds its picture as unsafe, ours decides
//! whether that was right; near the classifier's threshold nobody is blamed.

use nineteen_pictures::judge::{
    self, Round, distances, false_flag, file, got, got_some, is_blank, judged, not_blank, turned, whole,
};
use nineteen_pictures::reply::{self, Reply};
use nineteen_pictures::request::Body;
use nineteen_pictures::unbase64;
use nineteen_sdk::checks::{ImageFeatures, ImageGenerate, VisionClassify, VisionEmbed};
use nineteen_sdk::{Cx, Exchange, Request, Stop, Verdict};

use crate::params::Params;

/// Judges one exchange.
///
/// # Errors
/// More evidence needed, a violation, or no judgement possible.
pub fn score(p: &Params, cx: &mut Cx, request: &Request, exchange: &Exchange) -> Result<Verdict, Stop> {
    let body = judge::asked(request)?;
    whole(exchange)?;
    let picture = match reply::read(exchange, p.judgement.max_picture_bytes)? {
        Reply::Picture(picture) => picture,
        Reply::Flagged => return flagged(p, cx, &body, exchange),
        Reply::NoFace => return Err(Stop::violation("reply.empty", "no face was looked for")),
    };
    let alone = cx.check(ImageFeatures { picture: &picture, others: &[], warp: false })?;
    let image = file(&p.judgement, &body, &alone)?;
    let ours = regenerated(p, cx, &body)?;

    let both = [picture.as_slice(), ours.as_slice()];
    let mut round = Round::default();
    let compared = round.ask(cx, ImageFeatures { picture: &picture, others: &[&ours], warp: false });
    let classes = p.safety.as_ref().map(|s| VisionClassify { model: &s.model, pictures: &both });
    let classes = round.ask_some(cx, classes);
    let rows = p.vision.as_ref().map(|model| VisionEmbed { model, pictures: &both, faces: None });
    let rows = round.ask_some(cx, rows);
    let blank = is_blank(image).then_some(ImageFeatures { picture: &ours, others: &[], warp: false });
    let blank = round.ask_some(cx, blank);
    round.end()?;

    let unsafe_by = match (&p.safety, got_some(classes)?) {
        (Some(safety), Some(classes)) => Some((safety.shown(&classes, 0)?, safety.sight(&classes, 1)?.1)),
        _ => None,
    };
    if let Some(ours) = got_some(blank)? {
        not_blank(&ours)?;
    }
    let cosine = got_some(rows)?.map(|rows| turned(&rows, 0, 1)).transpose()?;
    let compared = got(compared)?.compared;
    let compared = compared.first().ok_or_else(|| Stop::Inconclusive("evidence: no comparison".into()))?;
    let distances = distances(compared, cosine)?;
    let mut verdict = judged(&p.judgement, cx, "images", &distances, (&body, exchange), image)?;
    if let Some((reply, reference)) = unsafe_by {
        verdict.because("unsafe.reply", reply);
        verdict.because("unsafe.reference", reference);
    }
    Ok(verdict)
}

/// Our own picture of what was asked for.
fn regenerated(p: &Params, cx: &mut Cx, body: &Body) -> Result<Vec<u8>, Stop> {
    let ours_to_know =
        || Stop::Inconclusive("request: this task did not make it: its `image` is no base64".into());
    let init = match &body.image {
        Some(image) => Some(unbase64(image).ok_or_else(ours_to_know)?),
        None => None,
    };
    let generated = cx.check(ImageGenerate {
        model: &p.model,
        prompt: &body.prompt,
        negative_prompt: &body.negative_prompt,
        seed: body.seed,
        steps: body.steps,
        guidance: body.guidance,
        width: body.width,
        height: body.height,
        scheduler: Some(&body.scheduler),
        noise: &body.noise,
        init: init.as_deref().zip(body.strength),
        identity: None,
    })?;
    Ok(generated.png)
}

/// A flag in place of a picture: by what we see when we make it ourselves.
fn flagged(p: &Params, cx: &mut Cx, body: &Body, exchange: &Exchange) -> Result<Verdict, Stop> {
    // Where nothing is ever unsafe, a flag is a refusal to work.
    let Some(safety) = &p.safety else { return Err(false_flag(0.0)) };
    let ours = regenerated(p, cx, body)?;
    let classes = cx.check(VisionClassify { model: &safety.model, pictures: &[&ours] })?;
    safety.flagged(&classes, body, exchange)
}

#[cfg(test)]
mod tests;
