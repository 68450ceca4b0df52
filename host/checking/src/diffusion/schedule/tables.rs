//! Times and sigmas of a run, as NumPy makes them: in double precision, halves rounded to even.

use super::{Spacing, Training};
use crate::error::CheckingError;

/// `numpy.linspace(0, end, n)`.
pub(super) fn linspace(end: f64, n: usize) -> Vec<f64> {
    let step = end / n.saturating_sub(1).max(1) as f64;
    (0..n).map(|i| if i > 0 && i + 1 == n { end } else { i as f64 * step }).collect()
}

/// `numpy.arange(from, 0, -step)`.
fn falling(from: f64, step: f64) -> Vec<f64> {
    let n = (-from / -step).ceil().max(0.0) as usize;
    let difference = (from - step) - from;
    (0..n).map(|i| from + i as f64 * difference).collect()
}

/// The times of a run, largest first.
///
/// `whole` rounds evenly spaced times, which the classes that look ᾱ up do. `extra` times are made and the last of
/// them dropped; the DPM solver makes one. `end` is one above the largest time.
pub(super) fn times(
    training: &Training,
    steps: usize,
    end: usize,
    whole: bool,
    extra: usize,
) -> Result<Vec<f64>, CheckingError> {
    let all = training.times();
    if steps > all {
        let why = format!("{steps} steps, and the model was trained with {all} times: take fewer");
        return Err(CheckingError::BadParameters(why));
    }
    let mut times = match training.spacing {
        Spacing::Linspace => {
            let mut times = linspace(end.saturating_sub(1) as f64, steps + extra);
            if whole {
                times.iter_mut().for_each(|t| *t = t.round_ties_even());
            }
            times.reverse();
            times
        }
        Spacing::Leading => {
            let ratio = end / (steps + extra);
            (0..steps + extra).rev().map(|i| (i * ratio + training.offset) as f64).collect()
        }
        Spacing::Trailing => {
            let made = falling(end as f64, all as f64 / steps as f64);
            made.into_iter().map(|t| t.round_ties_even() - 1.0).collect()
        }
    };
    if training.spacing != Spacing::Trailing {
        times.truncate(steps);
    }
    let inside = |t: &f64| *t >= 0.0 && *t <= (all - 1) as f64;
    if times.len() != steps || !times.iter().all(inside) {
        return Err(CheckingError::BadParameters(format!(
            "{steps} steps do not fit this schedule of {all} times: take another number"
        )));
    }
    Ok(times)
}

/// `numpy.interp` over the whole numbers from 0.
pub(super) fn interpolate(table: &[f32], at: f64) -> f64 {
    let last = table.len().saturating_sub(1);
    let read = |i: usize| f64::from(table.get(i.min(last)).copied().unwrap_or(0.0));
    let low = (at.max(0.0).floor() as usize).min(last);
    if low == last {
        return read(last);
    }
    (read(low + 1) - read(low)) * (at - low as f64) + read(low)
}

/// Sigmas spaced as Karras et al. (2022) do, ρ = 7, largest first.
pub(super) fn karras(largest: f64, smallest: f64, steps: usize) -> Vec<f64> {
    let (high, low) = (largest.powf(1.0 / 7.0), smallest.powf(1.0 / 7.0));
    linspace(1.0, steps).into_iter().map(|ramp| (high + ramp * (low - high)).powf(7.0)).collect()
}

/// The time at which training had a sigma: between two of its times, linear in the logarithm.
pub(super) fn time_of(sigma: f64, sigmas: &[f32]) -> f64 {
    let log = sigma.max(1e-10).ln();
    let logs: Vec<f32> = sigmas.iter().map(|s| f64::from(*s).ln() as f32).collect();
    let below = logs.iter().rposition(|l| f64::from(*l) <= log).unwrap_or(0);
    let low = below.min(logs.len().saturating_sub(2));
    let read = |i: usize| logs.get(i).copied().unwrap_or(0.0);
    let share = (f64::from(read(low)) - log) / f64::from(read(low) - read(low + 1));
    let share = share.clamp(0.0, 1.0);
    (1.0 - share) * low as f64 + share * (low + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_shall_and_interpolation_meets_its_points() {
        assert_eq!(linspace(999.0, 1), [0.0]);
        assert_eq!(linspace(999.0, 4), [0.0, 333.0, 666.0, 999.0]);
        assert_eq!(falling(1000.0, 250.0), [1000.0, 750.0, 500.0, 250.0]);
        let table = [1.0, 3.0, 7.0];
        assert_eq!([0.0, 0.5, 1.0, 2.0, 9.0].map(|t| interpolate(&table, t)), [1.0, 2.0, 3.0, 7.0, 7.0]);
    }

    #[test]
    fn a_time_gives_its_sigma_back() {
        let sigmas: Vec<f32> = (1..=100).map(|i| i as f32 / 10.0).collect();
        for i in [0, 1, 50, 98, 99] {
            assert!((time_of(f64::from(sigmas[i]), &sigmas) - i as f64).abs() < 1e-3);
        }
        assert_eq!(time_of(1e9, &sigmas), 99.0);
        assert_eq!(time_of(0.0, &sigmas), 0.0);
    }
}
