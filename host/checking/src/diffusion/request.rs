//! What is asked for and what comes back.

use super::noise::Noise;
use crate::error::CheckingError;

/// The most pixels of a side.
pub(crate) const MOST_SIDE: usize = 2048;
/// The most steps of a run.
pub(crate) const MOST_STEPS: usize = 150;
/// The largest guidance.
pub(crate) const MOST_GUIDANCE: f64 = 50.0;

/// A picture: 8 bits for red, green and blue, row by row from the top left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `3 · width · height` bytes.
    pub rgb: Vec<u8>,
}

/// One image to generate. The numbers are double precision where diffusers takes a Python number.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRequest {
    /// What it shall show; at most 16 KiB, cut to what the text encoder reads.
    pub prompt: String,
    /// What it shall not show. `None` is the empty text, or nothing at all where the pipeline says so
    /// (`force_zeros_for_empty_prompt`). Only read where guidance is above 1.
    pub negative_prompt: Option<String>,
    /// Of the noise.
    pub seed: u64,
    /// 1 to 150.
    pub steps: usize,
    /// 0 to 50. Above 1 the model is asked twice a step, with the negative prompt too.
    pub guidance: f64,
    /// In pixels: at most 2048, and a multiple of the autoencoder's factor.
    pub width: usize,
    /// As the width.
    pub height: usize,
    /// `ddim`, `euler`, `euler-ancestral`, `dpmpp-2m`, `dpmpp-2m-karras` or `lcm`; `None` is the folder's own.
    pub scheduler: Option<String>,
    /// Which generator the noise comes from.
    pub noise: Noise,
    /// A picture of the request's size to begin with, and how much of the run it goes through, above 0 to 1.
    pub init: Option<(Pixels, f64)>,
    /// The vector that `image_projection` turns into tokens. `None` is the zero vector.
    pub identity: Option<Vec<f32>>,
}

/// A generated image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The picture.
    pub pixels: Pixels,
    /// The latents that the picture was decoded from, `[channels, rows, columns]`, row-major, before they are divided
    /// by the autoencoder's scale.
    pub latent: Vec<f32>,
    /// Its shape.
    pub latent_shape: [usize; 3],
    /// The times at which the model was asked, in order. With a picture to begin with, those that were left.
    pub timesteps: Vec<f64>,
}

impl ImageRequest {
    /// Refuses what no pipeline takes; `factor` is what the autoencoder shrinks a side by.
    pub(crate) fn check(&self, factor: usize) -> Result<(), CheckingError> {
        let refuse = |why: String| Err(CheckingError::BadParameters(why));
        if !(1..=MOST_STEPS).contains(&self.steps) {
            return refuse(format!("steps is {}, 1 to {MOST_STEPS} are taken", self.steps));
        }
        if !(0.0..=MOST_GUIDANCE).contains(&self.guidance) {
            return refuse(format!("guidance is {}, 0 to {MOST_GUIDANCE} is taken", self.guidance));
        }
        for (name, side) in [("width", self.width), ("height", self.height)] {
            if side == 0 || side > MOST_SIDE || side % factor != 0 {
                return refuse(format!(
                    "{name} is {side}, a multiple of {factor} up to {MOST_SIDE} is taken"
                ));
            }
        }
        if let Some((pixels, strength)) = &self.init {
            if pixels.width != self.width || pixels.height != self.height {
                return refuse(format!(
                    "the picture to begin with has {} × {} pixels, the image {} × {}",
                    pixels.width, pixels.height, self.width, self.height
                ));
            }
            if pixels.rgb.len() != 3 * pixels.width * pixels.height {
                return refuse("the picture to begin with has not 3 bytes a pixel".into());
            }
            if !(*strength > 0.0 && *strength <= 1.0) {
                return refuse(format!("strength is {strength}, above 0 to 1 is taken"));
            }
        }
        if self.identity.as_ref().is_some_and(|values| !values.iter().all(|v| v.is_finite())) {
            return refuse("the identity has values that are not finite".into());
        }
        Ok(())
    }

    /// Whether the model is asked with the negative prompt too.
    pub(crate) fn guided(&self) -> bool {
        self.guidance > 1.0
    }
}
