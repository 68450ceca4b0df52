//! What training fixed: how much of the picture is left at each time, and what the model answers.

use serde_json::Value;

use super::{Config, Prediction, Spacing, at};
use crate::error::CheckingError;

/// The fields that every class has, read and computed.
#[derive(Debug)]
pub(super) struct Training {
    /// ᾱ at every time of training, single precision.
    pub(super) alphas: Vec<f32>,
    pub(super) prediction: Prediction,
    pub(super) spacing: Spacing,
    pub(super) offset: usize,
    /// Whether the last ᾱ was made 0.
    pub(super) zero_snr: bool,
    pub(super) cosine: bool,
}

/// What a class takes where the file says nothing.
pub(super) struct Defaults {
    pub(super) beta_start: f64,
    pub(super) beta_end: f64,
    pub(super) schedule: &'static str,
    pub(super) spacing: &'static str,
}

impl Defaults {
    pub(super) const LEADING: Self =
        Self { beta_start: 0.0001, beta_end: 0.02, schedule: "linear", spacing: "leading" };
    pub(super) const LINSPACE: Self =
        Self { beta_start: 0.0001, beta_end: 0.02, schedule: "linear", spacing: "linspace" };
    pub(super) const LCM: Self =
        Self { beta_start: 0.00085, beta_end: 0.012, schedule: "scaled_linear", spacing: "leading" };
}

/// More times than any model is trained with; it bounds what a file can make us compute.
const MOST_TIMES: usize = 10_000;

impl Training {
    pub(super) fn read(config: &Config, defaults: &Defaults) -> Result<Self, CheckingError> {
        let times = config.count("num_train_timesteps", Some(1000), 2, MOST_TIMES)?;
        let schedule = config.word("beta_schedule", defaults.schedule)?;
        let betas = match config.get("trained_betas") {
            Some(value) => given(config, value, times)?,
            None => computed(config, defaults, schedule, times)?,
        };
        let zero_snr = config.flag("rescale_betas_zero_snr", false)?;
        let betas = if zero_snr { rescaled(&betas) } else { betas };
        let prediction = match config.word("prediction_type", "epsilon")? {
            "epsilon" => Prediction::Epsilon,
            "v_prediction" => Prediction::Velocity,
            "sample" => Prediction::Sample,
            other => {
                let why = format!("is '{other}'; served are epsilon, v_prediction and sample");
                return Err(config.refuse("prediction_type", why));
            }
        };
        let spacing = match config.word("timestep_spacing", defaults.spacing)? {
            "linspace" => Spacing::Linspace,
            "leading" => Spacing::Leading,
            "trailing" => Spacing::Trailing,
            other => {
                let why = format!("is '{other}'; served are linspace, leading and trailing");
                return Err(config.refuse("timestep_spacing", why));
            }
        };
        Ok(Self {
            alphas: products(&betas),
            prediction,
            spacing,
            offset: config.count("steps_offset", Some(0), 0, times - 1)?,
            zero_snr,
            cosine: schedule == "squaredcos_cap_v2",
        })
    }

    /// Times of training.
    pub(super) fn times(&self) -> usize {
        self.alphas.len()
    }

    pub(super) fn alpha(&self, time: i64) -> Result<f32, CheckingError> {
        at(&self.alphas, usize::try_from(time).unwrap_or(usize::MAX))
    }

    /// Gives the last ᾱ a value above 0, as the classes that divide by it do: half precision's smallest.
    pub(super) fn lifted(mut self) -> Self {
        if self.zero_snr
            && let Some(last) = self.alphas.last_mut()
        {
            *last = 1.0 / 16_777_216.0;
        }
        self
    }

    /// σ = √((1−ᾱ)/ᾱ) at every time.
    pub(super) fn sigmas(&self) -> Vec<f32> {
        self.alphas.iter().map(|a| ((1.0 - a) / a).sqrt()).collect()
    }
}

fn given(config: &Config, value: &Value, times: usize) -> Result<Vec<f32>, CheckingError> {
    let betas: Option<Vec<f32>> =
        value.as_array().and_then(|all| all.iter().map(|v| v.as_f64().map(|v| v as f32)).collect());
    match betas {
        Some(betas) if betas.len() == times && betas.iter().all(|b| (0.0..=1.0).contains(b)) => Ok(betas),
        _ => Err(config.refuse("trained_betas", format!("is not a list of {times} numbers from 0 to 1"))),
    }
}

fn computed(
    config: &Config,
    defaults: &Defaults,
    schedule: &str,
    times: usize,
) -> Result<Vec<f32>, CheckingError> {
    let bound = |field, default| {
        let value = config.finite(field, default)?;
        if (0.0..1.0).contains(&value) { Ok(value) } else { Err(config.refuse(field, "is not from 0 to 1")) }
    };
    let (start, end) = (bound("beta_start", defaults.beta_start)?, bound("beta_end", defaults.beta_end)?);
    match schedule {
        "linear" => Ok(linspace(start as f32, end as f32, times)),
        "scaled_linear" => {
            let roots = linspace(start.sqrt() as f32, end.sqrt() as f32, times);
            Ok(roots.into_iter().map(|root| root * root).collect())
        }
        "squaredcos_cap_v2" => {
            let kept = |i: usize| {
                let t = i as f64 / times as f64;
                ((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos().powi(2)
            };
            Ok((0..times).map(|i| (1.0 - kept(i + 1) / kept(i)).min(0.999) as f32).collect())
        }
        other => {
            let why = format!("is '{other}'; served are linear, scaled_linear and squaredcos_cap_v2");
            Err(config.refuse("beta_schedule", why))
        }
    }
}

/// `torch.linspace` in single precision: from the nearer end, so that both ends are exact.
fn linspace(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / (n - 1) as f32;
    (0..n)
        .map(|i| if i < n / 2 { start + step * i as f32 } else { end - step * (n - 1 - i) as f32 })
        .collect()
}

/// `torch.cumprod` of 1 − β: the running product is kept in double precision.
fn products(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0_f64;
    betas
        .iter()
        .map(|beta| {
            product *= f64::from(1.0 - beta);
            product as f32
        })
        .collect()
}

/// Betas that leave nothing of the picture at the last time (Lin et al. 2024, algorithm 1).
fn rescaled(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = products(betas).into_iter().map(f32::sqrt).collect();
    let (first, last) = (roots.first().copied().unwrap_or(1.0), roots.last().copied().unwrap_or(0.0));
    let scale = first / (first - last);
    let mut before = 1.0;
    roots
        .into_iter()
        .map(|root| {
            let root = (root - last) * scale;
            let kept = root * root;
            let alpha = kept / before;
            before = kept;
            1.0 - alpha
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescaled_betas_end_in_nothing_and_keep_their_beginning() {
        let roots = linspace(0.00085_f32.sqrt(), 0.012_f32.sqrt(), 1000);
        let betas: Vec<f32> = roots.iter().map(|r| r * r).collect();
        let (plain, zero) = (products(&betas), products(&rescaled(&betas)));
        assert!((plain[0] - zero[0]).abs() < 1e-6);
        assert_eq!(zero[999], 0.0);
        assert!(zero.windows(2).all(|w| w[1] < w[0]));
    }

    #[test]
    fn both_ends_of_a_linspace_are_exact() {
        let line = linspace(0.1, 0.7, 1000);
        assert_eq!((line[0], line[999], line.len()), (0.1, 0.7, 1000));
    }
}
