//! `model.toml` of a vision model: what a picture becomes, and what comes out.

use std::path::Path;

use serde::Deserialize;

use super::face::Landmarks;
use crate::error::CheckingError;
use crate::folder::{read_text, wrong};
use crate::runtime::one_line;

/// What only vision models have in their manifest; the rest is the folder's business.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) input: Input,
    pub(crate) output: Output,
    align: Option<Align>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Input {
    /// Of the graph's input.
    pub(crate) name: String,
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Side to which the whole picture is brought before its middle is taken; absent, no middle is taken.
    pub(crate) resize: Option<usize>,
    pub(crate) layout: Layout,
    pub(crate) order: Order,
    /// Pixels of 0 to 255 are divided by this first.
    pub(crate) scale: f32,
    /// Taken away from each channel, in the order of `order`.
    pub(crate) mean: [f32; 3],
    /// What is left is divided by this.
    pub(crate) deviation: [f32; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layout {
    Nchw,
    Nhwc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    Rgb,
    Bgr,
}

/// What the graph gives.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Output {
    /// One vector a picture.
    Vector {
        name: String,
        dimension: usize,
        #[serde(default)]
        normalise: bool,
    },
    /// Probabilities; the first class is the harmless one.
    Classes { name: String, classes: Vec<String> },
    /// Places with a score, a box (left, top, right, bottom) and five points, all in parts of the picture.
    Faces { scores: String, boxes: String, landmarks: String },
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Align {
    /// Where left eye, right eye, nose and the mouth's corners shall be, in pixels of the input.
    template: [[f64; 2]; 5],
}

impl Manifest {
    pub(crate) fn read(path: &Path) -> Result<Self, CheckingError> {
        let this: Self =
            toml::from_str(&read_text(path)?).map_err(|e| wrong(path, one_line(&e.to_string())))?;
        let refuse = |field: &str, why: &str| Err(wrong(path, format!("{field}: {why}")));
        let i = &this.input;
        if !(1..=2048).contains(&i.width) || !(1..=2048).contains(&i.height) {
            return refuse("input.width, input.height", "use 1 to 2048 pixels");
        }
        if i.resize.is_some_and(|side| side < i.width.max(i.height) || side > 4096) {
            return refuse("input.resize", "use at least the larger side, and at most 4096");
        }
        if !(i.scale.is_finite() && i.scale > 0.0) {
            return refuse("input.scale", "use a number above 0");
        }
        if !i.mean.iter().all(|m| m.is_finite()) || !i.deviation.iter().all(|d| d.is_finite() && *d != 0.0) {
            return refuse("input.mean, input.deviation", "use three finite numbers, no deviation of 0");
        }
        match &this.output {
            Output::Vector { dimension, .. } if !(1..=16_384).contains(dimension) => {
                refuse("output.dimension", "use 1 to 16384")
            }
            Output::Classes { classes, .. } if !(2..=10_000).contains(&classes.len()) => {
                refuse("output.classes", "name at least two classes")
            }
            Output::Classes { .. } | Output::Faces { .. } if this.align.is_some() => {
                refuse("align", "only models that give a vector align faces")
            }
            _ => Ok(this),
        }
    }

    /// Width and height of the input.
    pub(crate) const fn size(&self) -> [usize; 2] {
        [self.input.width, self.input.height]
    }

    /// Where landmarks shall be, for a model of aligned faces.
    pub(crate) fn template(&self) -> Option<Landmarks> {
        self.align.as_ref().map(|a| a.template)
    }

    /// The input's shape for so many pictures.
    pub(crate) fn shape(&self, pictures: i64) -> [i64; 4] {
        let [w, h] = self.size().map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        match self.input.layout {
            Layout::Nchw => [pictures, 3, h, w],
            Layout::Nhwc => [pictures, h, w, 3],
        }
    }

    /// Names of the graph's outputs.
    pub(crate) fn outputs(&self) -> Vec<&str> {
        match &self.output {
            Output::Vector { name, .. } | Output::Classes { name, .. } => vec![name],
            Output::Faces { scores, boxes, landmarks } => vec![scores, boxes, landmarks],
        }
    }
}
