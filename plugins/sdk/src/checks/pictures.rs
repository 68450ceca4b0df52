//! Kinds that make pictures, compare them and look at them. Pictures travel as blobs, in the format they came in.

use serde::{Deserialize, Deserializer, Serialize};

use super::{Kind, V1, ask, read};
use crate::types::{Answer, Check};

fn with_blobs<'a>(mut check: Check, blobs: impl Iterator<Item = &'a [u8]>) -> Check {
    check.blobs = blobs.map(<[u8]>::to_vec).collect();
    check
}

/// `image.generate`.
#[derive(Debug, Clone, Copy)]
pub struct ImageGenerate<'a> {
    /// The pipeline.
    pub model: &'a str,
    /// What the picture shall show.
    pub prompt: &'a str,
    /// What it shall not show.
    pub negative_prompt: &'a str,
    /// Of the noise: 0 to 2^53 - 1.
    pub seed: u64,
    /// Denoising steps.
    pub steps: u32,
    /// Weight of the prompt; up to 1 the negative prompt plays no part.
    pub guidance: f64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Absent is the pipeline's own.
    pub scheduler: Option<&'a str>,
    /// `torch` or `philox`.
    pub noise: &'a str,
    /// A picture to begin from, and how much of it is given up, in (0, 1].
    pub init: Option<(&'a [u8], f64)>,
    /// A face's vector, for pipelines with an image prompt.
    pub identity: Option<&'a [f32]>,
}

/// A picture that a pipeline made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The picture as PNG.
    pub png: Vec<u8>,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl Kind for ImageGenerate<'_> {
    type Answer = Generated;
    fn check(&self) -> Check {
        #[derive(Serialize)]
        struct Params<'a> {
            version: V1,
            prompt: &'a str,
            negative_prompt: &'a str,
            seed: u64,
            steps: u32,
            guidance: f64,
            width: u32,
            height: u32,
            #[serde(skip_serializing_if = "Option::is_none")]
            scheduler: Option<&'a str>,
            noise: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            strength: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            identity: Option<bool>,
        }
        let params = Params {
            version: V1,
            prompt: self.prompt,
            negative_prompt: self.negative_prompt,
            seed: self.seed,
            steps: self.steps,
            guidance: self.guidance,
            width: self.width,
            height: self.height,
            scheduler: self.scheduler,
            noise: self.noise,
            strength: self.init.map(|(_, strength)| strength),
            identity: self.identity.map(|_| true),
        };
        let mut check = ask("image.generate", self.model, &params);
        check.blobs.extend(self.init.map(|(picture, _)| picture.to_vec()));
        check
            .blobs
            .extend(self.identity.map(|face| face.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()));
        check
    }
    fn read(&self, answer: &Answer) -> Result<Generated, String> {
        #[derive(Deserialize)]
        struct Given {
            #[expect(dead_code, reason = "read to refuse any other version")]
            version: V1,
            width: u32,
            height: u32,
        }
        let Given { width, height, .. } = read(answer)?;
        match answer.blobs.first() {
            Some(png) if (width, height) == (self.width, self.height) && !png.is_empty() => {
                Ok(Generated { png: png.clone(), width, height })
            }
            Some(_) => {
                Err(format!("{width} × {height} pixels, {} × {} were asked for", self.width, self.height))
            }
            None => Err("no picture".to_owned()),
        }
    }
}

/// `image.features`.
#[derive(Debug, Clone, Copy)]
pub struct ImageFeatures<'a> {
    /// The picture that facts are wanted of.
    pub picture: &'a [u8],
    /// Pictures that it is compared with.
    pub others: &'a [&'a [u8]],
    /// Whether the warp is looked for under which each of these comes nearest.
    pub warp: bool,
}

/// What a picture is, or why it is none, and how it differs from others.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Features {
    version: V1,
    /// Absent where the picture cannot be decoded.
    pub image: Option<ImageFacts>,
    /// Why not.
    pub fault: Option<Fault>,
    /// One entry for each of the others; empty where the picture cannot be decoded.
    pub compared: Vec<Compared>,
}

/// Why bytes are not one still picture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// `not-an-image`, `too-large`, `truncated`, `lies` or `animated`.
    pub code: String,
    /// For people.
    pub words: String,
}

/// Facts about one picture.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ImageFacts {
    /// `png`, `jpeg`, `webp` or `gif`.
    pub format: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Whether any pixel is not opaque.
    pub alpha: bool,
    /// Bytes behind the picture's end.
    pub trailing_bytes: u64,
    /// Of the decoded pixels, in hex.
    pub pixels_sha256: String,
    /// Share of the most common colour.
    pub most_common: f64,
    /// Deviation of each channel, pixels in [0, 1].
    pub deviation: [f64; 3],
}

/// JSON has no number for what is none: `null` stands for it.
fn real<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// How another picture differs.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Compared {
    /// Bits of the perceptual hash that differ.
    pub perceptual: u32,
    /// Bits of the difference hash that differ.
    pub difference: u32,
    /// Bits of the average hash that differ.
    pub average: u32,
    /// Bits of the colour hash that differ.
    pub colour: u32,
    /// 1 is equal.
    #[serde(deserialize_with = "real")]
    pub ssim: f64,
    /// Mean absolute difference of brightness at 64 × 64 pixels.
    #[serde(deserialize_with = "real")]
    pub luma_error: f64,
    /// Mean absolute difference at full size; absent where sizes differ.
    pub error: Option<f64>,
    /// Correlation of gradients; 1 is equal.
    #[serde(deserialize_with = "real")]
    pub gradients: f64,
    /// Mean CIE76 distance.
    #[serde(deserialize_with = "real")]
    pub lab: f64,
    /// Only where it was asked for.
    pub warp: Option<Warp>,
}

/// The warp under which another picture comes nearest.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Warp {
    /// Mean absolute difference that is left, pixels in [0, 1].
    pub error: f64,
    /// Whether it is a mirror image.
    pub mirrored: bool,
}

impl Kind for ImageFeatures<'_> {
    type Answer = Features;
    fn check(&self) -> Check {
        #[derive(Serialize)]
        struct Params {
            version: V1,
            warp: bool,
        }
        let mut check = ask("image.features", "", &Params { version: V1, warp: self.warp });
        check.model = None;
        with_blobs(check, std::iter::once(self.picture).chain(self.others.iter().copied()))
    }
    fn read(&self, answer: &Answer) -> Result<Features, String> {
        let features: Features = read(answer)?;
        match (&features.image, &features.fault) {
            (Some(_), None) if features.compared.len() == self.others.len() => Ok(features),
            (None, Some(_)) => Ok(features),
            (Some(_), None) => {
                Err(format!("{} comparisons with {} pictures", features.compared.len(), self.others.len()))
            }
            _ => Err("either facts or a fault".to_owned()),
        }
    }
}

/// Five points of a face in pixels: left eye, right eye, nose, left and right corner of the mouth.
pub type Landmarks = [[f64; 2]; 5];

/// `vision.embed`.
#[derive(Debug, Clone, Copy)]
pub struct VisionEmbed<'a> {
    /// The model.
    pub model: &'a str,
    /// The pictures.
    pub pictures: &'a [&'a [u8]],
    /// For a model of faces: where the face of each picture is.
    pub faces: Option<&'a [Landmarks]>,
}

impl Kind for VisionEmbed<'_> {
    /// A row for each picture, all of one length.
    type Answer = Vec<Vec<f32>>;
    fn check(&self) -> Check {
        #[derive(Serialize)]
        struct Params<'a> {
            version: V1,
            #[serde(skip_serializing_if = "Option::is_none")]
            faces: Option<&'a [Landmarks]>,
        }
        let check = ask("vision.embed", self.model, &Params { version: V1, faces: self.faces });
        with_blobs(check, self.pictures.iter().copied())
    }
    fn read(&self, answer: &Answer) -> Result<Self::Answer, String> {
        #[derive(Deserialize)]
        struct Given {
            #[expect(dead_code, reason = "read to refuse any other version")]
            version: V1,
            dimension: usize,
        }
        let given: Given = read(answer)?;
        let (Some(blob), 1..) = (answer.blobs.first(), given.dimension) else {
            return Err("no rows".to_owned());
        };
        let (words, rest) = blob.as_chunks::<4>();
        if !rest.is_empty() || words.len() != given.dimension.saturating_mul(self.pictures.len()) {
            return Err(format!("{} bytes for {} rows", blob.len(), self.pictures.len()));
        }
        let rows = words.chunks(given.dimension);
        Ok(rows.map(|row| row.iter().map(|word| f32::from_le_bytes(*word)).collect()).collect())
    }
}

/// `vision.classify`.
#[derive(Debug, Clone, Copy)]
pub struct VisionClassify<'a> {
    /// The model.
    pub model: &'a str,
    /// The pictures.
    pub pictures: &'a [&'a [u8]],
}

/// What a classifier says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Classes {
    version: V1,
    /// Names.
    pub classes: Vec<String>,
    /// A row for each picture, in the order of the names.
    pub probabilities: Vec<Vec<f64>>,
}

impl Classes {
    /// The probability of a class for one picture.
    #[must_use]
    pub fn of(&self, picture: usize, class: &str) -> Option<f64> {
        let column = self.classes.iter().position(|name| name == class)?;
        self.probabilities.get(picture)?.get(column).copied().filter(|p| (0.0..=1.0).contains(p))
    }
}

impl Kind for VisionClassify<'_> {
    type Answer = Classes;
    fn check(&self) -> Check {
        #[derive(Serialize)]
        struct Params {
            version: V1,
        }
        with_blobs(ask("vision.classify", self.model, &Params { version: V1 }), self.pictures.iter().copied())
    }
    fn read(&self, answer: &Answer) -> Result<Classes, String> {
        let classes: Classes = read(answer)?;
        let even = classes.probabilities.iter().all(|row| row.len() == classes.classes.len());
        if classes.probabilities.len() == self.pictures.len() && even {
            Ok(classes)
        } else {
            Err(format!("{} rows for {} pictures", classes.probabilities.len(), self.pictures.len()))
        }
    }
}

/// `vision.faces`.
#[derive(Debug, Clone, Copy)]
pub struct VisionFaces<'a> {
    /// The model.
    pub model: &'a str,
    /// The pictures.
    pub pictures: &'a [&'a [u8]],
    /// Score from which a face is one, in [0, 1].
    pub threshold: f64,
}

/// A face that was found.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Face {
    /// In [0, 1].
    pub score: f64,
    /// Left, top, right, bottom, in pixels.
    #[serde(rename = "box")]
    pub place: [f64; 4],
    /// Its points.
    pub landmarks: Landmarks,
}

impl Kind for VisionFaces<'_> {
    /// The faces of each picture, the most certain first.
    type Answer = Vec<Vec<Face>>;
    fn check(&self) -> Check {
        #[derive(Serialize)]
        struct Params {
            version: V1,
            threshold: f64,
        }
        let check = ask("vision.faces", self.model, &Params { version: V1, threshold: self.threshold });
        with_blobs(check, self.pictures.iter().copied())
    }
    fn read(&self, answer: &Answer) -> Result<Self::Answer, String> {
        #[derive(Deserialize)]
        struct Given {
            #[expect(dead_code, reason = "read to refuse any other version")]
            version: V1,
            faces: Vec<Vec<Face>>,
        }
        let given: Given = read(answer)?;
        if given.faces.len() == self.pictures.len() {
            Ok(given.faces)
        } else {
            Err(format!("{} rows for {} pictures", given.faces.len(), self.pictures.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATE: ImageGenerate<'static> = ImageGenerate {
        model: "p",
        prompt: "a red circle",
        negative_prompt: "",
        seed: 7,
        steps: 12,
        guidance: 4.0,
        width: 64,
        height: 64,
        scheduler: Some("ddim"),
        noise: "torch",
        init: None,
        identity: None,
    };

    fn answer(params: &str, blobs: &[&[u8]]) -> Answer {
        Answer { params: params.into(), blobs: blobs.iter().map(|b| b.to_vec()).collect() }
    }

    #[test]
    fn pictures_are_asked_for_as_the_checks_page_says() {
        let plain = GENERATE.check();
        assert_eq!((plain.kind.as_str(), plain.model.as_deref()), ("image.generate", Some("p")));
        assert_eq!(
            plain.params,
            r#"{"version":1,"prompt":"a red circle","negative_prompt":"","seed":7,"steps":12,"guidance":4.0,"width":64,"height":64,"scheduler":"ddim","noise":"torch"}"#
        );
        assert!(plain.blobs.is_empty());
        let both =
            ImageGenerate { init: Some((b"png", 0.6)), identity: Some(&[1.0]), scheduler: None, ..GENERATE };
        let both = both.check();
        assert!(
            both.params.ends_with(r#""noise":"torch","strength":0.6,"identity":true}"#),
            "{}",
            both.params
        );
        assert_eq!(both.blobs, [b"png".to_vec(), 1.0_f32.to_le_bytes().to_vec()]);
        let features = ImageFeatures { picture: b"a", others: &[b"b"], warp: true }.check();
        assert_eq!((features.model, features.params.as_str()), (None, r#"{"version":1,"warp":true}"#));
        assert_eq!(features.blobs, [b"a", b"b"]);
        let faces = VisionFaces { model: "f", pictures: &[b"a"], threshold: 0.5 }.check();
        assert_eq!(faces.params, r#"{"version":1,"threshold":0.5}"#);
        let points = [[[1.0, 2.0]; 5]];
        let embed = VisionEmbed { model: "i", pictures: &[b"a"], faces: Some(&points) }.check();
        assert!(embed.params.starts_with(r#"{"version":1,"faces":[[[1.0,2.0],"#), "{}", embed.params);
        assert_eq!(
            VisionEmbed { faces: None, model: "i", pictures: &[b"a"] }.check().params,
            r#"{"version":1}"#
        );
    }

    #[test]
    fn an_answer_that_is_not_whole_is_refused() {
        let right = r#"{"version":1,"model":"p","width":64,"height":64,"timesteps":[],"luma":[]}"#;
        assert_eq!(GENERATE.read(&answer(right, &[b"png"])).unwrap().png, b"png");
        assert!(GENERATE.read(&answer(right, &[])).is_err());
        assert!(GENERATE.read(&answer(&right.replace("64,\"h", "32,\"h"), &[b"png"])).is_err());
        assert!(GENERATE.read(&answer(&right.replace("n\":1", "n\":2"), &[b"png"])).is_err());
        let two = VisionEmbed { model: "i", pictures: &[b"a", b"b"], faces: None };
        let row = |n: usize| vec![0_u8; 4 * n];
        let said = r#"{"version":1,"dimension":2}"#;
        assert_eq!(two.read(&answer(said, &[&row(4)])).unwrap(), [[0.0, 0.0], [0.0, 0.0]]);
        assert!(two.read(&answer(said, &[&row(3)])).is_err());
        let classify = VisionClassify { model: "s", pictures: &[b"a"] };
        let classes = r#"{"version":1,"classes":["safe","forbidden"],"probabilities":[[0.9,0.1]]}"#;
        let classes = classify.read(&answer(classes, &[])).unwrap();
        assert_eq!(
            (classes.of(0, "forbidden"), classes.of(1, "safe"), classes.of(0, "x")),
            (Some(0.1), None, None)
        );
        let uneven = r#"{"version":1,"classes":["safe","forbidden"],"probabilities":[[0.9]]}"#;
        assert!(classify.read(&answer(uneven, &[])).is_err());
        let faces = VisionFaces { model: "f", pictures: &[b"a"], threshold: 0.5 };
        assert!(faces.read(&answer(r#"{"version":1,"faces":[]}"#, &[])).is_err());
        assert!(faces.read(&answer(r#"{"version":1,"faces":[[]]}"#, &[])).unwrap()[0].is_empty());
    }

    #[test]
    fn features_are_facts_or_a_fault_and_never_both() {
        let one = ImageFeatures { picture: b"a", others: &[b"b"], warp: false };
        let facts = r#"{"format":"png","width":8,"height":8,"bytes":9,"alpha":false,"frames":1,"jpeg_quality":null,
            "trailing_bytes":0,"sha256":"","pixels_sha256":"00","perceptual":"","difference":"","average":"","colour":"",
            "mean":[0,0,0],"deviation":[0,0,0],"most_common":1,"gradient":0,"sharpness":0,"blockiness":1,
            "high_frequencies":0}"#;
        let compared = r#"{"perceptual":3,"difference":2,"average":1,"colour":0,"ssim":0.99,"luma_error":0.004,
            "error":null,"largest":null,"psnr":null,"gradients":0.98,"lab":0.7}"#;
        let said = |image: &str, fault: &str, compared: &str| {
            format!(r#"{{"version":1,"image":{image},"fault":{fault},"compared":[{compared}]}}"#)
        };
        let fault = r#"{"code":"lies","words":"it lies"}"#;
        assert!(one.read(&answer(&said(facts, "null", compared), &[])).unwrap().compared[0].error.is_none());
        assert_eq!(one.read(&answer(&said("null", fault, ""), &[])).unwrap().fault.unwrap().code, "lies");
        assert!(one.read(&answer(&said(facts, "null", ""), &[])).is_err());
        assert!(one.read(&answer(&said("null", "null", ""), &[])).is_err());
        assert!(one.read(&answer(&said(facts, fault, compared), &[])).is_err());
    }
}
