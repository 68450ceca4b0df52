//! DPM-Solver++ with one or two steps of memory (Lu et al. 2022), with training's sigmas or Karras's.

use serde_json::Value;

use super::betas::Defaults;
use super::euler::last_sigma;
use super::{Config, Draw, Prediction, Scheduler, Training, at, both, tables};
use crate::error::CheckingError;

/// Runs shorter than this end with a step of first order where `lower_order_final` is set.
const SHORT: usize = 15;

pub(super) struct Dpm {
    times: Vec<f64>,
    /// One more than times.
    sigmas: Vec<f32>,
    prediction: Prediction,
    second_order: bool,
    heun: bool,
    /// Whether the last step is of first order.
    plain_end: bool,
    /// The estimate of the picture that the step before made.
    before: Option<Vec<f32>>,
}

/// How a sigma splits into what is left of the picture and what is noise, and the logarithm of their ratio.
fn parts(sigma: f32) -> (f32, f32, f32) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    let noise = sigma * alpha;
    (alpha, noise, alpha.ln() - noise.ln())
}

impl Dpm {
    pub(super) fn new(config: &Config, karras: Option<bool>, steps: usize) -> Result<Self, CheckingError> {
        let training = Training::read(config, &Defaults::LINSPACE)?.lifted();
        config.only("algorithm_type", &Value::from("dpmsolver++"))?;
        config.only("thresholding", &Value::Bool(false))?;
        for field in [
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_lu_lambdas",
            "use_flow_sigmas",
            "use_dynamic_shifting",
        ] {
            config.only(field, &Value::Bool(false))?;
        }
        config.absent("variance_type")?;
        let second_order = config.count("solver_order", Some(2), 1, 2)? == 2;
        let heun = match config.word("solver_type", "midpoint")? {
            "midpoint" => false,
            "heun" => true,
            other => {
                let why = format!("is '{other}'; served are midpoint and heun");
                return Err(config.refuse("solver_type", why));
            }
        };
        let table = training.sigmas();
        let floor = config.number("lambda_min_clipped")?.unwrap_or(f64::NEG_INFINITY) as f32;
        let ratio = |alpha: &&f32| alpha.sqrt().ln() - (1.0 - **alpha).sqrt().ln();
        let end = training.alphas.iter().filter(|alpha| ratio(alpha) >= floor).count();
        let karras = match (karras, config.flag("use_karras_sigmas", false)?) {
            (Some(named), _) => named,
            (None, configured) => configured,
        };
        let smallest = config.number("sigma_min")?.or(table.first().map(|s| f64::from(*s)));
        let largest = config.number("sigma_max")?.or(table.last().map(|s| f64::from(*s)));
        let (times, sigmas) = if karras {
            let sigmas = tables::karras(largest.unwrap_or(1.0), smallest.unwrap_or(1.0), steps);
            let times = sigmas.iter().map(|s| tables::time_of(*s, &table));
            // Only the cosine schedule keeps what is behind the point, and then it is cut off.
            let times = times.map(|t| if training.cosine { t.trunc() } else { t.round_ties_even() });
            (times.collect(), sigmas)
        } else {
            let times = tables::times(&training, steps, end, true, 1)?;
            let sigmas = times.iter().map(|t| tables::interpolate(&table, *t)).collect::<Vec<_>>();
            (times, sigmas)
        };
        let mut sigmas: Vec<f32> = sigmas.into_iter().map(|s| s as f32).collect();
        let last = last_sigma(config, &table)?;
        sigmas.push(last);
        let lower = config.flag("lower_order_final", true)? && steps < SHORT;
        let plain_end = config.flag("euler_at_final", false)? || lower || last == 0.0;
        let prediction = training.prediction;
        Ok(Self { times, sigmas, prediction, second_order, heun, plain_end, before: None })
    }
}

impl Scheduler for Dpm {
    fn timesteps(&self) -> &[f64] {
        &self.times
    }

    fn noised(&self, step: usize, latents: &[f32], noise: &[f32]) -> Result<Vec<f32>, CheckingError> {
        let (kept, added, _) = parts(at(&self.sigmas, step)?);
        Ok(both(latents, noise, |latent, noise| kept * latent + added * noise))
    }

    fn step(
        &mut self,
        step: usize,
        answer: &[f32],
        latents: &[f32],
        _draw: &mut Draw<'_>,
    ) -> Result<Vec<f32>, CheckingError> {
        let (kept, noise, ratio) = parts(at(&self.sigmas, step)?);
        let (kept_to, noise_to, ratio_to) = parts(at(&self.sigmas, step + 1)?);
        let prediction = self.prediction;
        let picture = both(answer, latents, |answer, latent| match prediction {
            Prediction::Epsilon => (latent - noise * answer) / kept,
            Prediction::Sample => answer,
            Prediction::Velocity => kept * latent - noise * answer,
        });
        let h = ratio_to - ratio;
        let (shrink, pull) = (noise_to / noise, kept_to * ((-h).exp() - 1.0));
        let mut next = both(latents, &picture, |latent, picture| shrink * latent - pull * picture);
        let last = step + 1 == self.times.len();
        let before = self.before.take().filter(|_| self.second_order && !(last && self.plain_end));
        if let Some(before) = before {
            // The slope since the step before, on the scale of this one.
            let (_, _, ratio_before) = parts(at(&self.sigmas, step.saturating_sub(1))?);
            let by = 1.0 / ((ratio - ratio_before) / h);
            let bend = if self.heun { kept_to * (((-h).exp() - 1.0) / h + 1.0) } else { -(0.5 * pull) };
            for (next, (picture, before)) in next.iter_mut().zip(picture.iter().zip(&before)) {
                *next += bend * (by * (picture - before));
            }
        }
        self.before = Some(picture);
        Ok(next)
    }
}
