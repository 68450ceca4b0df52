//! Whether a reply is a portrait of the person on the photograph, as the workflow makes it from this seed.
//!
//! Everything that is asked of a reply is first asked of our own portrait: where ours shows no face either, or is no more
//! like the photograph than the reply, the pipeline is to blame and not the miner. Near a detector's or a classifier's
//! threshold nobody is blamed.
//!
//! The decoy, a portrait from another seed, must not be foreseen, and a plugin has no randomness of its own. The time at
//! which the reply ended, in microseconds by the validator's clock, is in the exchange: it decides the decoy's seed, so a
//! replay of the judgement makes the same decoy.

use nineteen_pictures::judge::{
    self, Round, distances, false_flag, file, got, got_some, is_blank, judged, not_blank, turned, whole,
};
use nineteen_pictures::reply::{self, Reply};
use nineteen_pictures::request::Body;
use nineteen_pictures::unbase64;
use nineteen_sdk::checks::{
    Face, Features, ImageFeatures, ImageGenerate, Landmarks, VisionClassify, VisionEmbed, VisionFaces,
};
use nineteen_sdk::hash::Fingerprint;
use nineteen_sdk::{Cx, Exchange, Request, Rng, Stop, Verdict};

use crate::params::Params;
use crate::workflow::{Detect, Plan};

/// A likeness to the photograph that is this much lower than ours is no noise.
const LESS_ALIKE: f64 = 0.1;
/// Nearer to the decoy by this much is no noise: mean absolute difference.
const NEARER: f64 = 0.01;

/// Judges one exchange.
///
/// # Errors
/// More evidence needed, a violation, or no judgement possible.
pub fn score(p: &Params, cx: &mut Cx, request: &Request, exchange: &Exchange) -> Result<Verdict, Stop> {
    let body = judge::asked(request)?;
    let plan = p.plan().map_err(Stop::Inconclusive)?;
    let photo = body.image.as_deref().and_then(unbase64);
    let photo = photo
        .ok_or_else(|| Stop::Inconclusive("request: this task did not make it: no photograph".into()))?;
    whole(exchange)?;
    match reply::read(exchange, p.judgement.max_picture_bytes)? {
        Reply::Flagged => flagged(&plan, cx, &body, &photo, exchange),
        Reply::NoFace => match plan.detect {
            Some(detect) => no_face(cx, detect, &photo),
            None => Err(Stop::violation("reply.empty", "no step of the workflow looks for a face")),
        },
        Reply::Picture(picture) => portrait(p, &plan, cx, (&body, exchange), &photo, &picture),
    }
}

/// A miner that says that there is no face on the photograph, by what we see there. Right, it is worth nothing and costs
/// nothing.
fn no_face(cx: &mut Cx, detect: &Detect, photo: &[u8]) -> Result<Verdict, Stop> {
    let best = best(cx.check(looking(detect, &[photo]))?.first());
    match best.map_or(0.0, |face| face.score) {
        score if score >= detect.high() => Err(Stop::violation(
            "photo.false_no_face",
            format!("said that there is no face, though one is there with score {score:.3}"),
        )),
        score if score >= detect.low() => {
            Err(Stop::Inconclusive(format!("the photograph's face is doubtful, {score:.3}")))
        }
        _ => {
            let mut verdict = Verdict { quality: 1.0, ..Verdict::default() };
            verdict.because("photo.no_face", 1.0);
            Ok(verdict)
        }
    }
}

/// Doubtful faces included: what to make of a score is decided here.
fn looking<'a>(detect: &'a Detect, pictures: &'a [&'a [u8]]) -> VisionFaces<'a> {
    VisionFaces { model: &detect.model, pictures, threshold: detect.low() }
}

fn best(faces: Option<&Vec<Face>>) -> Option<Face> {
    faces.and_then(|of| of.first()).copied()
}

/// The face on the photograph.
fn face_of(detect: Option<&Detect>, found: Option<Vec<Vec<Face>>>) -> Result<Option<Face>, Stop> {
    let (Some(detect), Some(found)) = (detect, found) else { return Ok(None) };
    match best(found.first()) {
        Some(face) if face.score >= detect.threshold => Ok(Some(face)),
        Some(face) => {
            Err(Stop::Inconclusive(format!("the photograph's face is doubtful, {:.3}", face.score)))
        }
        None => Err(Stop::violation(
            "photo.no_face",
            "answered, though there is no face on the photograph: `no_face` is due",
        )),
    }
}

fn row(rows: Vec<Vec<f32>>) -> Result<Vec<f32>, Stop> {
    rows.into_iter().next().ok_or_else(|| Stop::Inconclusive("evidence: no vector".to_owned()))
}

/// What the pipeline makes with this seed.
fn generating<'a>(
    plan: &Plan<'a>,
    body: &'a Body,
    seed: u64,
    identity: Option<&'a [f32]>,
) -> ImageGenerate<'a> {
    ImageGenerate {
        model: plan.model,
        prompt: &body.prompt,
        negative_prompt: &body.negative_prompt,
        seed,
        steps: body.steps,
        guidance: body.guidance,
        width: body.width,
        height: body.height,
        scheduler: Some(&body.scheduler),
        noise: &body.noise,
        init: None,
        identity: identity.filter(|_| plan.condition),
    }
}

/// A flag in place of a portrait: by what we see when we make it ourselves.
fn flagged(
    plan: &Plan<'_>,
    cx: &mut Cx,
    body: &Body,
    photo: &[u8],
    exchange: &Exchange,
) -> Result<Verdict, Stop> {
    let Some(safety) = &plan.demands.safety else { return Err(false_flag(0.0)) };
    let found = plan.detect.map(|d| cx.check(looking(d, &[photo]))).transpose()?;
    let face = face_of(plan.detect, found)?;
    let points: Option<Vec<Landmarks>> = aligned(plan, face.as_slice());
    let identity = plan.identify.filter(|_| plan.condition);
    let identity =
        identity.map(|model| cx.check(VisionEmbed { model, pictures: &[photo], faces: points.as_deref() }));
    let identity = identity.transpose()?.map(row).transpose()?;
    let ours = cx.check(generating(plan, body, body.seed, identity.as_deref()))?.png;
    let classes = cx.check(VisionClassify { model: &safety.model, pictures: &[&ours] })?;
    safety.flagged(&classes, body, exchange)
}

/// The points of these faces, where the next model is to get them.
fn aligned(plan: &Plan<'_>, faces: &[Face]) -> Option<Vec<Landmarks>> {
    plan.align.then(|| faces.iter().map(|f| f.landmarks).collect())
}

fn portrait(
    p: &Params,
    plan: &Plan<'_>,
    cx: &mut Cx,
    (body, exchange): (&Body, &Exchange),
    photo: &[u8],
    picture: &[u8],
) -> Result<Verdict, Stop> {
    let demands = &plan.demands;
    // What the two files are.
    let mut round = Round::default();
    let alone = round.ask(cx, ImageFeatures { picture, others: &[photo], warp: demands.warp.is_some() });
    let photos = [photo];
    let found = round.ask_some(cx, plan.detect.map(|d| looking(d, &photos)));
    round.end()?;
    let alone = got(alone)?;
    let image = file(&p.judgement, body, &alone)?;
    let face = face_of(plan.detect, got_some(found)?)?;

    let People { person, faces } = people(plan, cx, (photo, face), picture)?;
    let (ours, decoy) = portraits(plan, cx, (body, exchange), person.as_deref())?;

    // The reply beside them.
    let both = [picture, ours.as_slice()];
    let beside: Vec<&[u8]> = std::iter::once(ours.as_slice()).chain(decoy.as_deref()).collect();
    let own = [ours.as_slice()];
    let mut round = Round::default();
    let compared = round.ask(cx, ImageFeatures { picture, others: &beside, warp: false });
    let our_faces = round.ask_some(cx, plan.detect.filter(|_| faces.is_some()).map(|d| looking(d, &own)));
    let classes = demands.safety.as_ref().map(|s| VisionClassify { model: &s.model, pictures: &both });
    let classes = round.ask_some(cx, classes);
    let rows = demands.prompt.as_ref().map(|model| VisionEmbed { model, pictures: &both, faces: None });
    let rows = round.ask_some(cx, rows);
    let looks_returned = match (demands.warp, warped(&alone)) {
        (Some(bound), Some(error)) if error < bound => Some(bound),
        _ => None,
    };
    let warp = looks_returned.map(|_| ImageFeatures { picture: &ours, others: &photos, warp: true });
    let warp = round.ask_some(cx, warp);
    let blank = is_blank(image).then_some(ImageFeatures { picture: &ours, others: &[], warp: false });
    let blank = round.ask_some(cx, blank);
    round.end()?;

    let unsafe_reply = match (&demands.safety, got_some(classes)?) {
        (Some(safety), Some(classes)) => Some(safety.shown(&classes, 0)?),
        _ => None,
    };
    if let Some(ours) = got_some(blank)? {
        not_blank(&ours)?;
    }
    if let (Some(bound), Some(ours)) = (looks_returned, got_some(warp)?) {
        not_returned(bound, &ours)?;
    }
    let our_faces = got_some(our_faces)?.and_then(|all| all.into_iter().next());
    if let (Some(detect), Some(theirs), Some(ours)) = (plan.detect, &faces, &our_faces)
        && demands.one_face
    {
        one_face(detect, theirs, ours)?;
    }
    let compared = got(compared)?.compared;
    let likeness = likeness(
        plan,
        cx,
        person.as_deref(),
        (picture, best(faces.as_ref())),
        (&ours, best(our_faces.as_ref())),
    )?;
    if let (Some(bound), Some(l)) = (demands.identity, &likeness) {
        l.same_person(bound)?;
    }
    let first = compared.first().ok_or_else(|| Stop::Inconclusive("evidence: no comparison".into()))?;
    let cosine = got_some(rows)?.map(|rows| turned(&rows, 0, 1)).transpose()?;
    let mut distances = distances(first, cosine)?;
    let lead = match (first.error, compared.get(1).and_then(|c| c.error)) {
        (Some(ours), Some(decoy)) if decoy + NEARER < ours => {
            let words = format!("{decoy:.4} from a portrait of another seed, {ours:.4} from this one's");
            return Err(Stop::violation("decoy.nearer", words));
        }
        (Some(ours), Some(decoy)) => Some(decoy - ours),
        _ => None,
    };
    distances.extend(likeness.as_ref().map(|l| ("identity", l.apart)));
    let mut verdict = judged(&p.judgement, cx, "avatars", &distances, (body, exchange), image)?;
    let more = [
        ("unsafe.reply", unsafe_reply),
        ("warp", warped(&alone)),
        ("decoy.lead", lead),
        ("identity.reply", likeness.as_ref().and_then(|l| l.reply)),
        ("identity.reference", likeness.as_ref().and_then(|l| l.reference)),
    ];
    for (code, number) in more {
        if let Some(number) = number {
            verdict.because(code, number);
        }
    }
    Ok(verdict)
}

/// Who is where, as far as the workflow wants to know.
struct People {
    /// The vector of the person on the photograph.
    person: Option<Vec<f32>>,
    /// The faces of the reply.
    faces: Option<Vec<Face>>,
}

fn people(
    plan: &Plan<'_>,
    cx: &mut Cx,
    (photo, face): (&[u8], Option<Face>),
    picture: &[u8],
) -> Result<People, Stop> {
    let (photos, pictures) = ([photo], [picture]);
    let points = aligned(plan, face.as_slice());
    let mut round = Round::default();
    let embed = |model| VisionEmbed { model, pictures: &photos, faces: points.as_deref() };
    let person = round.ask_some(cx, plan.identify.map(embed));
    let faces = plan.detect.filter(|_| plan.looks_for_faces()).map(|d| looking(d, &pictures));
    let faces = round.ask_some(cx, faces);
    round.end()?;
    let person = got_some(person)?.map(row).transpose()?;
    Ok(People { person, faces: got_some(faces)?.and_then(|all| all.into_iter().next()) })
}

/// Our own portrait, and one from another seed where the workflow wants it.
fn portraits(
    plan: &Plan<'_>,
    cx: &mut Cx,
    (body, exchange): (&Body, &Exchange),
    person: Option<&[f32]>,
) -> Result<(Vec<u8>, Option<Vec<u8>>), Stop> {
    let mut round = Round::default();
    let ours = round.ask(cx, generating(plan, body, body.seed, person));
    let other = plan.demands.decoy.then(|| generating(plan, body, decoy_seed(body, exchange), person));
    let decoy = round.ask_some(cx, other);
    round.end()?;
    Ok((got(ours)?.png, got_some(decoy)?.map(|d| d.png)))
}

fn decoy_seed(body: &Body, exchange: &Exchange) -> u64 {
    let print = Fingerprint::default().bytes(b"decoy").number(body.seed).number(exchange.ended_us);
    let seed = Rng::new(&print.seed()).bits() >> 11;
    if seed == body.seed { seed ^ 1 } else { seed }
}

/// How near the photograph comes to a picture, however it is warped.
fn warped(features: &Features) -> Option<f64> {
    Some(features.compared.first()?.warp?.error)
}

fn not_returned(bound: f64, ours: &Features) -> Result<(), Stop> {
    match warped(ours) {
        Some(error) if error >= bound => Err(Stop::violation(
            "photo.returned",
            format!("the photograph, warped, within {bound}; our own portrait is {error:.4} away from it"),
        )),
        _ => Ok(()),
    }
}

/// Exactly one face, where ours surely shows exactly one.
fn one_face(detect: &Detect, theirs: &[Face], ours: &[Face]) -> Result<(), Stop> {
    let sure = |faces: &[Face]| faces.iter().filter(|f| f.score >= detect.high()).count();
    if sure(ours) != 1 || ours.len() != 1 {
        return Ok(());
    }
    if theirs.is_empty() {
        return Err(Stop::violation("faces.none", "no face, where ours shows one"));
    }
    match sure(theirs) {
        n if n > 1 => Err(Stop::violation("faces.several", format!("{n} faces, where ours shows one"))),
        _ => Ok(()),
    }
}

/// How alike reply, our own portrait and photograph are.
struct Likeness {
    /// `1 − cos` between reply and ours, 0 to 2.
    apart: f64,
    /// Cosine between reply and photograph.
    reply: Option<f64>,
    /// Cosine between ours and photograph.
    reference: Option<f64>,
}

/// Absent where the workflow does not identify. Where ours shows no face, there is nothing to hold the reply against.
fn likeness(
    plan: &Plan<'_>,
    cx: &mut Cx,
    person: Option<&[f32]>,
    (picture, face): (&[u8], Option<Face>),
    (ours, our_face): (&[u8], Option<Face>),
) -> Result<Option<Likeness>, Stop> {
    let (Some(model), Some(person), Some(_)) = (plan.identify, person, plan.demands.identity) else {
        return Ok(None);
    };
    let Some(our_face) = our_face else {
        return Ok(Some(Likeness { apart: 0.0, reply: None, reference: None }));
    };
    let Some(face) = face else { return Ok(Some(Likeness { apart: 1.0, reply: None, reference: None })) };
    let points = aligned(plan, &[face, our_face]);
    let mut rows = cx.check(VisionEmbed { model, pictures: &[picture, ours], faces: points.as_deref() })?;
    rows.push(person.to_vec());
    let cosine = |a: usize| turned(&rows, a, 2).map(|apart| 1.0 - apart);
    Ok(Some(Likeness { apart: turned(&rows, 0, 1)?, reply: Some(cosine(0)?), reference: Some(cosine(1)?) }))
}

impl Likeness {
    /// Nobody else, where ours is the person on the photograph.
    fn same_person(&self, bound: f64) -> Result<(), Stop> {
        match (self.reply, self.reference) {
            (Some(reply), Some(ours)) if reply < bound && ours >= bound && ours - reply > LESS_ALIKE => {
                let words = format!("likeness {reply:.3} to the photograph, ours has {ours:.3}");
                Err(Stop::violation("identity.other", words))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
