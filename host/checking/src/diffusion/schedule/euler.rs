//! Euler steps along the probability flow, and the ancestral kind that adds fresh noise (Karras et al. 2022).

use serde_json::Value;

use super::betas::Defaults;
use super::{Config, Draw, Prediction, Scheduler, Spacing, Training, at, both, tables};
use crate::error::CheckingError;

/// What both kinds share: sigmas of a run, one more than it has steps, the last one 0 or training's smallest.
struct Flow {
    times: Vec<f64>,
    sigmas: Vec<f32>,
    prediction: Prediction,
    spacing: Spacing,
}

impl Flow {
    fn initial_scale(&self) -> f32 {
        let largest = self.sigmas.iter().copied().fold(0.0, f32::max);
        match self.spacing {
            Spacing::Linspace | Spacing::Trailing => largest,
            Spacing::Leading => (largest * largest + 1.0).sqrt(),
        }
    }

    fn scaled(&self, step: usize, latents: &[f32]) -> Result<Vec<f32>, CheckingError> {
        let sigma = at(&self.sigmas, step)?;
        let by = (sigma * sigma + 1.0).sqrt();
        Ok(latents.iter().map(|latent| latent / by).collect())
    }

    fn noised(&self, step: usize, latents: &[f32], noise: &[f32]) -> Result<Vec<f32>, CheckingError> {
        let sigma = at(&self.sigmas, step)?;
        Ok(both(latents, noise, |latent, noise| latent + noise * sigma))
    }

    /// From `step`'s sigma to another.
    fn to(
        &self,
        step: usize,
        sigma_to: f32,
        answer: &[f32],
        latents: &[f32],
    ) -> Result<Vec<f32>, CheckingError> {
        let sigma = at(&self.sigmas, step)?;
        let square = sigma * sigma + 1.0;
        let (out, change) = (-sigma / square.sqrt(), sigma_to - sigma);
        let prediction = self.prediction;
        Ok(both(answer, latents, |answer, latent| {
            let picture = match prediction {
                Prediction::Epsilon => latent - sigma * answer,
                Prediction::Sample => answer,
                Prediction::Velocity => answer * out + latent / square,
            };
            latent + (latent - picture) / sigma * change
        }))
    }
}

/// Times in single precision, as these classes keep them.
fn single(times: Vec<f64>) -> Vec<f64> {
    times.into_iter().map(|t| f64::from(t as f32)).collect()
}

pub(super) struct Euler(Flow);

impl Euler {
    pub(super) fn new(config: &Config, steps: usize) -> Result<Self, CheckingError> {
        let training = Training::read(config, &Defaults::LINSPACE)?.lifted();
        config.only("interpolation_type", &Value::from("linear"))?;
        config.only("timestep_type", &Value::from("discrete"))?;
        config.only("use_exponential_sigmas", &Value::Bool(false))?;
        config.only("use_beta_sigmas", &Value::Bool(false))?;
        let table = training.sigmas();
        let mut times = single(tables::times(&training, steps, training.times(), false, 0)?);
        let mut sigmas: Vec<f64> = times.iter().map(|t| tables::interpolate(&table, *t)).collect();
        let (smallest, largest) = (config.number("sigma_min")?, config.number("sigma_max")?);
        if config.flag("use_karras_sigmas", false)? {
            let largest = largest.or(sigmas.first().copied()).unwrap_or(1.0);
            let smallest = smallest.or(sigmas.last().copied()).unwrap_or(1.0);
            sigmas = tables::karras(largest, smallest, steps);
            times = single(sigmas.iter().map(|s| tables::time_of(*s, &table)).collect());
        }
        let mut sigmas: Vec<f32> = sigmas.into_iter().map(|s| s as f32).collect();
        sigmas.push(last_sigma(config, &table)?);
        Ok(Self(Flow { times, sigmas, prediction: training.prediction, spacing: training.spacing }))
    }
}

/// Where a run ends: at no noise, or at the least that training had.
pub(super) fn last_sigma(config: &Config, table: &[f32]) -> Result<f32, CheckingError> {
    match config.word("final_sigmas_type", "zero")? {
        "zero" => Ok(0.0),
        "sigma_min" => at(table, 0),
        other => {
            Err(config.refuse("final_sigmas_type", format!("is '{other}'; served are zero and sigma_min")))
        }
    }
}

impl Scheduler for Euler {
    fn timesteps(&self) -> &[f64] {
        &self.0.times
    }

    fn initial_scale(&self) -> f32 {
        self.0.initial_scale()
    }

    fn noised(&self, step: usize, latents: &[f32], noise: &[f32]) -> Result<Vec<f32>, CheckingError> {
        self.0.noised(step, latents, noise)
    }

    fn scaled(&self, step: usize, latents: &[f32]) -> Result<Vec<f32>, CheckingError> {
        self.0.scaled(step, latents)
    }

    fn step(
        &mut self,
        step: usize,
        answer: &[f32],
        latents: &[f32],
        _draw: &mut Draw<'_>,
    ) -> Result<Vec<f32>, CheckingError> {
        self.0.to(step, at(&self.0.sigmas, step + 1)?, answer, latents)
    }
}

pub(super) struct Ancestral(Flow);

impl Ancestral {
    pub(super) fn new(config: &Config, steps: usize) -> Result<Self, CheckingError> {
        let training = Training::read(config, &Defaults::LINSPACE)?.lifted();
        if training.prediction == Prediction::Sample {
            let why = "is 'sample', which the ancestral scheduler does not know";
            return Err(config.refuse("prediction_type", why));
        }
        let table = training.sigmas();
        let times = single(tables::times(&training, steps, training.times(), false, 0)?);
        let mut sigmas: Vec<f32> = times.iter().map(|t| tables::interpolate(&table, *t) as f32).collect();
        sigmas.push(0.0);
        Ok(Self(Flow { times, sigmas, prediction: training.prediction, spacing: training.spacing }))
    }
}

impl Scheduler for Ancestral {
    fn timesteps(&self) -> &[f64] {
        &self.0.times
    }

    fn initial_scale(&self) -> f32 {
        self.0.initial_scale()
    }

    fn noised(&self, step: usize, latents: &[f32], noise: &[f32]) -> Result<Vec<f32>, CheckingError> {
        self.0.noised(step, latents, noise)
    }

    fn scaled(&self, step: usize, latents: &[f32]) -> Result<Vec<f32>, CheckingError> {
        self.0.scaled(step, latents)
    }

    fn step(
        &mut self,
        step: usize,
        answer: &[f32],
        latents: &[f32],
        draw: &mut Draw<'_>,
    ) -> Result<Vec<f32>, CheckingError> {
        let (from, to) = (at(&self.0.sigmas, step)?, at(&self.0.sigmas, step + 1)?);
        let (from2, to2) = (from * from, to * to);
        // So much fresh noise, and a longer step down that leaves room for it.
        let up = (to2 * (from2 - to2) / from2).sqrt();
        let down = (to2 - up * up).sqrt();
        let stepped = self.0.to(step, down, answer, latents)?;
        // The last step draws too, although nothing of it is added.
        Ok(both(&stepped, &draw(latents.len()), |value, noise| value + noise * up))
    }
}
