//! DDIM without noise (Song et al. 2021, formulas 12 and 16 with η = 0).

use serde_json::Value;

use super::betas::Defaults;
use super::{Config, Draw, Prediction, Scheduler, Training, at, both, tables};
use crate::error::CheckingError;

pub(super) struct Ddim {
    training: Training,
    times: Vec<f64>,
    /// How far before a time its predecessor lies.
    stride: i64,
    /// ᾱ before time 0.
    last: f32,
    clip: Option<f32>,
}

/// The range that estimates of the picture are cut to, where the file asks for it.
pub(super) fn clipping(config: &Config, default: bool) -> Result<Option<f32>, CheckingError> {
    config.only("thresholding", &Value::Bool(false))?;
    config.finite("dynamic_thresholding_ratio", 0.995)?;
    config.finite("sample_max_value", 1.0)?;
    let range = config.finite("clip_sample_range", 1.0)?;
    if range <= 0.0 {
        return Err(config.refuse("clip_sample_range", "is not above 0"));
    }
    Ok(config.flag("clip_sample", default)?.then_some(range as f32))
}

/// ᾱ·picture + (1−ᾱ)·noise by their roots.
pub(super) fn mixed(alpha: f32, latents: &[f32], noise: &[f32]) -> Vec<f32> {
    let (kept, added) = (alpha.sqrt(), (1.0 - alpha).sqrt());
    both(latents, noise, |latent, noise| kept * latent + added * noise)
}

impl Ddim {
    pub(super) fn new(config: &Config, steps: usize) -> Result<Self, CheckingError> {
        let training = Training::read(config, &Defaults::LEADING)?;
        let first = training.alpha(0)?;
        let last = if config.flag("set_alpha_to_one", true)? { 1.0 } else { first };
        let clip = clipping(config, true)?;
        let times = tables::times(&training, steps, training.times(), true, 0)?;
        let stride = (training.times() / steps) as i64;
        Ok(Self { training, times, stride, last, clip })
    }
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.times
    }

    fn noised(&self, step: usize, latents: &[f32], noise: &[f32]) -> Result<Vec<f32>, CheckingError> {
        Ok(mixed(self.training.alpha(at(&self.times, step)? as i64)?, latents, noise))
    }

    fn step(
        &mut self,
        step: usize,
        answer: &[f32],
        latents: &[f32],
        _draw: &mut Draw<'_>,
    ) -> Result<Vec<f32>, CheckingError> {
        let time = at(&self.times, step)? as i64;
        let alpha = self.training.alpha(time)?;
        let before = time - self.stride;
        let alpha_before = if before < 0 { self.last } else { self.training.alpha(before)? };
        let (kept, added) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (kept_before, added_before) = (alpha_before.sqrt(), (1.0 - alpha_before).sqrt());
        let (prediction, clip) = (self.training.prediction, self.clip);
        Ok(both(answer, latents, |answer, latent| {
            let (picture, noise) = match prediction {
                Prediction::Epsilon => ((latent - added * answer) / kept, answer),
                Prediction::Sample => (answer, (latent - kept * answer) / added),
                Prediction::Velocity => (kept * latent - added * answer, kept * answer + added * latent),
            };
            let picture = clip.map_or(picture, |range| picture.clamp(-range, range));
            kept_before * picture + added_before * noise
        }))
    }
}
