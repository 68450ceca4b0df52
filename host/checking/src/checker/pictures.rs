//! Checks of pictures: `image.generate`, `image.features` and the three kinds of `vision`.

use bytes::Bytes;
use nineteen_domain::check::{Answer, Check};
use nineteen_domain::id::Digest;
use serde::{Deserialize, Serialize};

use super::{Head, Models, VERSION, aside, cut, read, write};
use crate::diffusion::{ImageRequest, Noise, Pixels};
use crate::error::CheckingError;
use crate::pixels::{self, Compared, DecodeLimits, Facts, Warp};
use crate::vision::{Landmarks, Sight, VisionModel};

pub(super) const GENERATE: &str = "image.generate";
pub(super) const FEATURES: &str = "image.features";
pub(super) const VISION: [&str; 3] = ["vision.embed", "vision.classify", "vision.faces"];
/// Pictures that one check compares or looks at.
const MOST_PICTURES: usize = 16;
/// Side of the picture that stands for a generated one among golden numbers.
const LUMA: usize = 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerateParams {
    #[serde(rename = "version")]
    _version: u64,
    prompt: String,
    #[serde(default)]
    negative_prompt: String,
    seed: u64,
    steps: usize,
    guidance: f64,
    width: usize,
    height: usize,
    scheduler: Option<String>,
    #[serde(default)]
    noise: NoiseParam,
    strength: Option<f64>,
    #[serde(default)]
    identity: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum NoiseParam {
    #[default]
    Torch,
    Philox,
}

#[derive(Serialize)]
struct GenerateAnswer<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    width: usize,
    height: usize,
    timesteps: Vec<f64>,
    /// Mean brightness of a sixteenth each, row by row.
    luma: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeaturesParams {
    #[serde(rename = "version")]
    _version: u64,
    #[serde(default)]
    warp: bool,
}

#[derive(Serialize)]
struct FeaturesAnswer {
    version: u64,
    image: Option<ImageFacts>,
    fault: Option<FaultSaid>,
    compared: Vec<ComparedSaid>,
}

#[derive(Serialize)]
struct FaultSaid {
    code: &'static str,
    words: String,
}

#[derive(Serialize)]
struct ImageFacts {
    format: &'static str,
    width: usize,
    height: usize,
    bytes: usize,
    alpha: bool,
    frames: u32,
    jpeg_quality: Option<u8>,
    trailing_bytes: usize,
    sha256: String,
    pixels_sha256: String,
    perceptual: String,
    difference: String,
    average: String,
    colour: String,
    mean: [f64; 3],
    deviation: [f64; 3],
    most_common: f64,
    gradient: f64,
    sharpness: f64,
    blockiness: f64,
    high_frequencies: f64,
}

#[derive(Serialize)]
struct ComparedSaid {
    perceptual: u32,
    difference: u32,
    average: u32,
    colour: u32,
    ssim: f64,
    luma_error: f64,
    error: Option<f64>,
    largest: Option<u8>,
    psnr: Option<f64>,
    gradients: f64,
    lab: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    warp: Option<WarpSaid>,
}

#[derive(Serialize)]
struct WarpSaid {
    error: f64,
    mirrored: bool,
    shift: [f64; 2],
    scale: f64,
    turn: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbedParams {
    #[serde(rename = "version")]
    _version: u64,
    faces: Option<Vec<Landmarks>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassifyParams {
    #[serde(rename = "version")]
    _version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FacesParams {
    #[serde(rename = "version")]
    _version: u64,
    #[serde(default = "half")]
    threshold: f32,
}

const fn half() -> f32 {
    0.5
}

#[derive(Serialize)]
struct VectorsAnswer<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    dimension: usize,
}

#[derive(Serialize)]
struct ClassesAnswer<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    classes: &'a [String],
    probabilities: Vec<Vec<f32>>,
}

#[derive(Serialize)]
struct FacesAnswer<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    faces: Vec<Vec<FaceSaid>>,
}

#[derive(Serialize)]
struct FaceSaid {
    score: f64,
    #[serde(rename = "box")]
    place: [f64; 4],
    landmarks: Landmarks,
}

/// A file's picture; what is none is the file's fault.
fn picture(bytes: &[u8]) -> Result<Pixels, CheckingError> {
    pixels::decode(bytes, &DecodeLimits::default())
        .map(|d| d.pixels)
        .map_err(|e| CheckingError::Invalid(e.to_string()))
}

fn some_pictures(kind: &str, blobs: &[Bytes]) -> Result<(), CheckingError> {
    if (1..=MOST_PICTURES).contains(&blobs.len()) {
        return Ok(());
    }
    Err(CheckingError::BadParameters(format!(
        "{kind}: {} blobs, 1 to {MOST_PICTURES} are taken",
        blobs.len()
    )))
}

/// Facts about the first blob and how the others differ from it.
pub(super) async fn features(check: Check) -> Result<Answer, CheckingError> {
    if check.model.is_some() {
        return Err(CheckingError::BadParameters(format!("{FEATURES} names no model")));
    }
    let params: FeaturesParams = read(FEATURES, &check.params)?;
    some_pictures(FEATURES, &check.blobs)?;
    aside(move || {
        let Some((first, others)) = check.blobs.split_first() else { return write(&(), Vec::new()) };
        let (image, fault, compared) = match pixels::decode(first, &DecodeLimits::default()) {
            Err(e) => {
                let said = FaultSaid { code: e.fault.code(), words: e.words };
                (None, Some(said), Vec::new())
            }
            Ok(decoded) => {
                let others: Result<Vec<Pixels>, CheckingError> = others.iter().map(|b| picture(b)).collect();
                let compared =
                    others?.iter().map(|other| compared(&decoded.pixels, other, params.warp)).collect();
                (Some(facts_of(first, &decoded)), None, compared)
            }
        };
        write(&FeaturesAnswer { version: VERSION, image, fault, compared }, Vec::new())
    })
    .await
}

fn facts_of(bytes: &[u8], decoded: &pixels::Decoded) -> ImageFacts {
    let Facts { hashes, mean, deviation, most_common, gradient, sharpness, blockiness, high_frequencies } =
        pixels::facts(&decoded.pixels);
    let hex = |bits: u64| format!("{bits:016x}");
    ImageFacts {
        format: decoded.format,
        width: decoded.pixels.width,
        height: decoded.pixels.height,
        bytes: bytes.len(),
        alpha: decoded.alpha,
        frames: 1,
        jpeg_quality: decoded.jpeg_quality,
        trailing_bytes: decoded.trailing_bytes,
        sha256: Digest::of(bytes).hex(),
        pixels_sha256: Digest::of(&decoded.pixels.rgb).hex(),
        perceptual: hex(hashes.perceptual),
        difference: hex(hashes.difference),
        average: hex(hashes.average),
        colour: hex(hashes.colour),
        mean,
        deviation,
        most_common,
        gradient,
        sharpness,
        blockiness,
        high_frequencies,
    }
}

fn compared(a: &Pixels, b: &Pixels, warp: bool) -> ComparedSaid {
    let Compared {
        perceptual,
        difference,
        average,
        colour,
        ssim,
        luma_error,
        error,
        largest,
        psnr,
        gradients,
        lab,
    } = pixels::compare(a, b);
    let warp = warp.then(|| {
        let Warp { error, mirrored, shift, scale, turn } = pixels::nearest_warp(a, b);
        WarpSaid { error, mirrored, shift, scale, turn }
    });
    ComparedSaid {
        perceptual,
        difference,
        average,
        colour,
        ssim,
        luma_error,
        error,
        largest,
        psnr,
        gradients,
        lab,
        warp,
    }
}

impl Models {
    /// Generates a picture and answers with it as PNG.
    pub(super) async fn generate(&self, name: &str, check: &Check) -> Result<Answer, CheckingError> {
        let unknown = || CheckingError::UnknownModel { model: cut(name) };
        let model = self.images.get(name).cloned().ok_or_else(unknown)?;
        let params: GenerateParams = read(GENERATE, &check.params)?;
        let mut blobs = check.blobs.iter();
        let missing = |what: &str| CheckingError::BadParameters(format!("{GENERATE}: {what} has no blob"));
        let init = match params.strength {
            Some(strength) => {
                let blob = blobs.next().cloned().ok_or_else(|| missing("strength"))?;
                let begin = aside(move || picture(&blob)).await?;
                let (w, h) = (params.width, params.height);
                let fitted = if begin.width == w && begin.height == h {
                    begin
                } else if w.max(h) <= 2048 && w.min(h) > 0 {
                    aside(move || Ok(pixels::resized(&begin, w, h))).await?
                } else {
                    begin
                };
                Some((fitted, strength))
            }
            None => None,
        };
        let identity = if params.identity {
            let blob = blobs.next().ok_or_else(|| missing("identity"))?;
            let (numbers, rest) = blob.as_chunks::<4>();
            if !rest.is_empty() || numbers.is_empty() {
                return Err(CheckingError::BadParameters(format!(
                    "{GENERATE}: the identity is no row of f32"
                )));
            }
            Some(numbers.iter().map(|b| f32::from_le_bytes(*b)).collect())
        } else {
            None
        };
        if blobs.next().is_some() {
            return Err(CheckingError::BadParameters(format!("{GENERATE}: more blobs than parameters name")));
        }
        let request = ImageRequest {
            prompt: params.prompt,
            negative_prompt: Some(params.negative_prompt),
            seed: params.seed,
            steps: params.steps,
            guidance: params.guidance,
            width: params.width,
            height: params.height,
            scheduler: params.scheduler,
            noise: match params.noise {
                NoiseParam::Torch => Noise::Torch,
                NoiseParam::Philox => Noise::Philox,
            },
            init,
            identity,
        };
        let made = model.generate(request).await?;
        let (png, luma) = aside(move || {
            let luma = pixels::luma(&made.pixels).resized(LUMA, LUMA).values;
            Ok(((pixels::encode_png(&made.pixels), made), luma))
        })
        .await?;
        let (png, made) = png;
        if png.is_empty() {
            return Err(CheckingError::System("a picture cannot be written as PNG".into()));
        }
        let head = Head {
            version: VERSION,
            model: model.name(),
            precision: model.precision(),
            provider: model.provider(),
        };
        let answer = GenerateAnswer {
            head,
            width: made.pixels.width,
            height: made.pixels.height,
            timesteps: made.timesteps,
            luma,
        };
        write(&answer, vec![Bytes::from(png)])
    }

    /// What a vision model says of each blob.
    pub(super) async fn see(&self, kind: &str, name: &str, check: Check) -> Result<Answer, CheckingError> {
        let unknown = || CheckingError::UnknownModel { model: cut(name) };
        let model = self.visions.get(name).filter(|m| m.kind() == kind).cloned().ok_or_else(unknown)?;
        some_pictures(kind, &check.blobs)?;
        let (faces, threshold) = match kind {
            "vision.embed" => (read::<EmbedParams>(kind, &check.params)?.faces, 0.5),
            "vision.faces" => {
                let FacesParams { threshold, .. } = read(kind, &check.params)?;
                if !(0.0..=1.0).contains(&threshold) {
                    return Err(CheckingError::BadParameters(format!("{kind}: threshold is not in 0 to 1")));
                }
                (None, threshold)
            }
            _ => {
                let ClassifyParams { .. } = read(kind, &check.params)?;
                (None, 0.5)
            }
        };
        let pictures =
            aside(move || check.blobs.iter().map(|b| picture(b)).collect::<Result<Vec<_>, _>>()).await?;
        let seen = model.look(pictures, faces, threshold).await?;
        said(&model, seen)
    }
}

fn said(model: &VisionModel, seen: Sight) -> Result<Answer, CheckingError> {
    let head = Head {
        version: VERSION,
        model: model.name(),
        precision: model.precision(),
        provider: model.provider(),
    };
    match seen {
        Sight::Vectors(rows) => {
            let blob: Vec<u8> = rows.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
            write(&VectorsAnswer { head, dimension: model.dimension() }, vec![Bytes::from(blob)])
        }
        Sight::Classes(probabilities) => {
            write(&ClassesAnswer { head, classes: model.classes(), probabilities }, Vec::new())
        }
        Sight::Faces(found) => {
            let said =
                |f: crate::vision::Face| FaceSaid { score: f.score, place: f.place, landmarks: f.landmarks };
            let faces = found.into_iter().map(|of| of.into_iter().map(said).collect()).collect();
            write(&FacesAnswer { head, faces }, Vec::new())
        }
    }
}
