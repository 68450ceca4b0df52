//! The schedulers: at which times a model is asked, and what is made of its answers.
//!
//! For: the arithmetic of diffusers 0.35, in the precision in which it is done there (single, but for the tables that
//! NumPy makes). Not for: models, pixels or randomness, which are handed in. The one idea: a folder's
//! `scheduler_config.json` decides everything; a field that is not understood is a refusal, never a guess.

mod betas;
mod ddim;
mod dpm;
mod euler;
mod lcm;
mod tables;

use std::path::Path;

use super::config::Config;
use crate::error::CheckingError;
use betas::Training;

/// Draws so many standard normal values.
pub(crate) type Draw<'a> = dyn FnMut(usize) -> Vec<f32> + 'a;

/// One run's schedule. Steps are numbered from 0 and taken in order; image-to-image begins behind 0.
pub(crate) trait Scheduler {
    /// The time of every step, as the model is told.
    fn timesteps(&self) -> &[f64];

    /// What noise is multiplied by to begin a run without a picture.
    fn initial_scale(&self) -> f32 {
        1.0
    }

    /// A picture's latents with noise, as step `step` expects them.
    fn noised(&self, step: usize, latents: &[f32], noise: &[f32]) -> Result<Vec<f32>, CheckingError>;

    /// The latents as the model wants them at `step`.
    fn scaled(&self, _step: usize, latents: &[f32]) -> Result<Vec<f32>, CheckingError> {
        Ok(latents.to_vec())
    }

    /// The latents behind `step`, from the model's answer to those before it.
    fn step(
        &mut self,
        step: usize,
        answer: &[f32],
        latents: &[f32],
        draw: &mut Draw<'_>,
    ) -> Result<Vec<f32>, CheckingError>;
}

/// What a model's answer is an estimate of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prediction {
    /// The noise.
    Epsilon,
    /// `√ᾱ · noise − √(1−ᾱ) · picture`.
    Velocity,
    /// The picture's latents.
    Sample,
}

/// How the times of a run are spread over training's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

/// The schedulers that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Ddim,
    Euler,
    EulerAncestral,
    Dpm,
    Lcm,
}

impl Class {
    /// By the name that diffusers gives its class.
    fn of_diffusers(name: &str) -> Option<Self> {
        Some(match name {
            "DDIMScheduler" => Self::Ddim,
            "EulerDiscreteScheduler" => Self::Euler,
            "EulerAncestralDiscreteScheduler" => Self::EulerAncestral,
            "DPMSolverMultistepScheduler" => Self::Dpm,
            "LCMScheduler" => Self::Lcm,
            _ => return None,
        })
    }
}

/// The names that a request may give: class, and whether Karras's sigmas are used where the name says so.
const NAMES: [(&str, Class, Option<bool>); 6] = [
    ("ddim", Class::Ddim, None),
    ("euler", Class::Euler, None),
    ("euler-ancestral", Class::EulerAncestral, None),
    ("dpmpp-2m", Class::Dpm, Some(false)),
    ("dpmpp-2m-karras", Class::Dpm, Some(true)),
    ("lcm", Class::Lcm, None),
];

/// Every field that these classes write, and those of PNDM and DDPM that stay in the files of models which were saved
/// with another class. A class passes over fields of the others, as diffusers does.
const FIELDS: [&str; 38] = [
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "num_train_timesteps",
    "original_inference_steps",
    "prediction_type",
    "rescale_betas_zero_snr",
    "sample_max_value",
    "set_alpha_to_one",
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_type",
    "steps_offset",
    "thresholding",
    "time_shift_type",
    "timestep_scaling",
    "timestep_spacing",
    "timestep_type",
    "trained_betas",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

/// A folder's schedule: its configuration, read and found good.
#[derive(Debug)]
pub(crate) struct Spec {
    config: Config,
    class: Class,
}

impl Spec {
    /// Reads `scheduler_config.json` of a pipeline's `scheduler` folder.
    pub(crate) fn load(folder: &Path) -> Result<Self, CheckingError> {
        let config = Config::read(&folder.join("scheduler_config.json"))?;
        if let Some(name) = config.names().find(|n| !n.starts_with('_') && !FIELDS.contains(n)) {
            return Err(config.refuse(name, "is not a field of the schedulers that are served"));
        }
        let name = config.word("_class_name", "")?;
        let Some(class) = Class::of_diffusers(name) else {
            let known = "DDIM, EulerDiscrete, EulerAncestralDiscrete, DPMSolverMultistep and LCMScheduler";
            return Err(config.refuse("_class_name", format!("is '{name}'; served are {known}")));
        };
        let spec = Self { class, config };
        // Every value is looked at now, so that a folder is refused when it is loaded and not at its first request.
        spec.build(None, 1)?;
        Ok(spec)
    }

    /// The schedule of a run; `named` takes another class with this folder's values, as `from_config` does.
    pub(crate) fn build(
        &self,
        named: Option<&str>,
        steps: usize,
    ) -> Result<Box<dyn Scheduler>, CheckingError> {
        let (class, karras) = match named {
            None => (self.class, None),
            Some(name) => {
                let found = NAMES.iter().find(|(known, ..)| *known == name);
                let (_, class, karras) = found.ok_or_else(|| {
                    let known: Vec<&str> = NAMES.iter().map(|(name, ..)| *name).collect();
                    CheckingError::BadParameters(format!(
                        "the scheduler '{name}' is not known; served are {}",
                        known.join(", ")
                    ))
                })?;
                (*class, *karras)
            }
        };
        let config = &self.config;
        Ok(match class {
            Class::Ddim => Box::new(ddim::Ddim::new(config, steps)?),
            Class::Euler => Box::new(euler::Euler::new(config, steps)?),
            Class::EulerAncestral => Box::new(euler::Ancestral::new(config, steps)?),
            Class::Dpm => Box::new(dpm::Dpm::new(config, karras, steps)?),
            Class::Lcm => Box::new(lcm::Lcm::new(config, steps)?),
        })
    }
}

/// A value of a table; a place outside it is the caller's mistake.
fn at<T: Copy>(table: &[T], place: usize) -> Result<T, CheckingError> {
    table.get(place).copied().ok_or_else(|| {
        CheckingError::BadParameters(format!(
            "step or time {place} lies outside a schedule of {}",
            table.len()
        ))
    })
}

/// `f` of two tensors, value by value.
fn both(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()
}
