//! Latent consistency models: the picture is estimated at once, noised less, estimated again (Luo et al. 2023).

use super::betas::Defaults;
use super::ddim::{clipping, mixed};
use super::{Config, Draw, Prediction, Scheduler, Training, at, both};
use crate::error::CheckingError;

/// The deviation that training's data is taken to have.
const SIGMA_DATA: f32 = 0.5;

pub(super) struct Lcm {
    training: Training,
    times: Vec<f64>,
    clip: Option<f32>,
    /// What times are multiplied by in the boundary condition.
    scaling: f32,
}

impl Lcm {
    pub(super) fn new(config: &Config, steps: usize) -> Result<Self, CheckingError> {
        let training = Training::read(config, &Defaults::LCM)?;
        let clip = clipping(config, false)?;
        config.flag("set_alpha_to_one", true)?;
        let scaling = config.finite("timestep_scaling", 10.0)? as f32;
        let all = training.times();
        let original = config.count("original_inference_steps", Some(50), 1, all)?;
        if steps > original {
            return Err(CheckingError::BadParameters(format!(
                "{steps} steps, and this model was distilled to {original}: take fewer"
            )));
        }
        // The times of distillation, largest first, and of these evenly spaced ones.
        let stride = all / original;
        let times = (0..steps)
            .map(|i| (i as f64 * (original as f64 / steps as f64)).floor() as usize)
            .map(|place| ((original - place.min(original - 1)) * stride - 1) as f64)
            .collect();
        Ok(Self { training, times, clip, scaling })
    }
}

impl Scheduler for Lcm {
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
        draw: &mut Draw<'_>,
    ) -> Result<Vec<f32>, CheckingError> {
        let time = at(&self.times, step)?;
        let alpha = self.training.alpha(time as i64)?;
        let (kept, added) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let scaled = time as f32 * self.scaling;
        let square = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let (skip, out) = (SIGMA_DATA * SIGMA_DATA / square, scaled / square.sqrt());
        let (prediction, clip) = (self.training.prediction, self.clip);
        let picture = both(answer, latents, |answer, latent| {
            let picture = match prediction {
                Prediction::Epsilon => (latent - added * answer) / kept,
                Prediction::Sample => answer,
                Prediction::Velocity => kept * latent - added * answer,
            };
            let picture = clip.map_or(picture, |range| picture.clamp(-range, range));
            out * picture + skip * latent
        });
        match self.times.get(step + 1) {
            Some(next) => Ok(mixed(self.training.alpha(*next as i64)?, &picture, &draw(latents.len()))),
            None => Ok(picture),
        }
    }
}
