//! `L`: how much of what a miner announces it has shown that it can serve.
//!
//! A window says something about the capacity it was run at, which need not be the one announced now:
//!
//! * at *less* than now, it proves only that much of what is announced: one that was sustained counts as
//!   `ran at/announced now`. So nobody sustains small windows and then announces much.
//! * at *more* than now, it counts by what it delivered of what is announced now. So a miner that announced
//!   too much gets its credit back by announcing what it can serve.
//! * *head-room*, faster than announced, can only teach: unless it was sustained and proves all that is
//!   announced now, it counts for nothing.
//!
//! Windows of the two kinds are counted together, but neither may be made up for by the other: a machine that is
//! announced in full to several validators sustains the secret windows of each and fails those that the beacon
//! starts for all of them at once.
//!
//! And never more is credited than the best window delivered: a quantile alone is never zero, so whoever has few
//! windows behind it could make up for failing them by announcing a hundred times as much.

use nineteen_domain::ledger::{PeriodRow, WindowKind, WindowResult};
use nineteen_domain::policy::DefaultScoring;

use super::{age, aged, beta, is_kept};
use crate::settlement::{At, CreditParts, Standing, WindowUsed};
use crate::{float, unit, within};

/// The lower quantile of Beta(k + 1, n − k + 1), n windows tried and k sustained, each aged by
/// `0.5^(age/window_half_life)`; `capacity` is what is announced now, in units per period. A capacity of 0 is
/// proved by no window.
pub(crate) fn credit(rules: &DefaultScoring, capacity: u64, rows: &[PeriodRow], at: At) -> CreditParts {
    let mut used: Vec<WindowUsed> = rows
        .iter()
        .flat_map(|row| row.windows.iter().map(move |window| (row, window)))
        .filter_map(|(row, window)| used(rules, capacity, row, window, at))
        .collect();
    // Newest first, and in one order whatever the caller's.
    used.sort_by(|a, b| {
        let key = |w: &WindowUsed| (w.result.started_us, w.period, w.result.asked, w.result.delivered);
        key(b)
            .cmp(&key(a))
            .then_with(|| a.result.kind.cmp(&b.result.kind))
            .then_with(|| a.result.rate.total_cmp(&b.result.rate))
            .then_with(|| a.capacity.total_cmp(&b.capacity))
    });
    let tried: f64 = used.iter().map(|w| w.weight).sum();
    let sustained: f64 = used.iter().map(|w| w.sustained).sum();
    let quantile = beta::lower_quantile(tried, sustained, rules.capacity_quantile);
    let shown = shown(rules, &used, capacity).min(weaker_kind(&used));
    used.truncate(Standing::SHOWN_ROWS);
    // A week has hundreds of windows, and thousands of standings are kept at once.
    used.shrink_to_fit();
    CreditParts { tried, sustained, quantile, shown, factor: quantile.min(shown), windows: used }
}

/// The most that a window showed, over what is announced now, in [0, 1]: all that it ran at if it was sustained,
/// else what it delivered of it; 1 where none was tried.
fn shown(rules: &DefaultScoring, used: &[WindowUsed], capacity: u64) -> f64 {
    let tried = || used.iter().filter(|w| w.weight > 0.0);
    if tried().next().is_none() {
        return 1.0;
    }
    let of = |w: &WindowUsed| {
        let delivered = w.result.delivered_share().unwrap_or(0.0);
        if degree(rules, delivered) < 1.0 { delivered * w.capacity } else { w.capacity }
    };
    unit(tried().map(of).fold(0.0, f64::max) / float(capacity.max(1)))
}

/// `(k + 1)/(n + 1)` of the kind of window that was sustained less, in (0, 1]: 1 while nothing was missed, so that
/// a first window of a kind lowers nothing.
fn weaker_kind(used: &[WindowUsed]) -> f64 {
    [WindowKind::Secret, WindowKind::Beacon]
        .into_iter()
        .map(|kind| {
            let of = || used.iter().filter(|w| w.result.kind == kind);
            let tried: f64 = of().map(|w| w.weight).sum();
            let sustained: f64 = of().map(|w| w.sustained).sum();
            unit((sustained + 1.0) / (tried + 1.0))
        })
        .fold(1.0, f64::min)
}

/// What one window says; `None` of one that asked for nothing, at no rate, or too long ago.
fn used(
    rules: &DefaultScoring,
    capacity: u64,
    row: &PeriodRow,
    window: &WindowResult,
    at: At,
) -> Option<WindowUsed> {
    let delivered = window.delivered_share()?;
    let age = age(window.started_us, at);
    let is_window = window.rate.is_finite() && window.rate > 0.0 && capacity > 0;
    if !is_window || !is_kept(rules, age) {
        return None;
    }
    let ran_at = float(row.capacity) * window.rate.min(1e6);
    let counts = worth(rules, delivered, window.rate, ran_at / float(capacity));
    let weight = if counts.is_some() { aged(age, rules.window_half_life) } else { 0.0 };
    Some(WindowUsed {
        period: row.period,
        result: *window,
        capacity: ran_at,
        age,
        weight,
        sustained: weight * counts.unwrap_or(0.0),
    })
}

/// How far a window counts as sustained, in [0, 1]; `None` if it counts for nothing. `delivered` is in [0, 1],
/// `rate` above 0, and `of_present` the capacity it ran at over the present one.
fn worth(rules: &DefaultScoring, delivered: f64, rate: f64, of_present: f64) -> Option<f64> {
    if rate > 1.0 && (degree(rules, delivered) < 1.0 || of_present < 1.0) {
        return None;
    }
    Some(if of_present > 1.0 {
        degree(rules, (delivered * of_present).min(1.0))
    } else {
        degree(rules, delivered) * of_present
    })
}

/// 1 from `sustained_at` of the volume on, `(delivered/sustained_at)^shortfall_exponent` below. A threshold
/// outside (0, 1] counts as 1.
fn degree(rules: &DefaultScoring, delivered: f64) -> f64 {
    let at = rules.sustained_at;
    let at = if at > 0.0 && at <= 1.0 { at } else { 1.0 };
    if delivered >= at { 1.0 } else { (delivered / at).powf(within(rules.shortfall_exponent, 1.0, 1e3)) }
}

#[cfg(test)]
mod tests {
    use nineteen_domain::policy::{Policy, Scoring};

    use super::*;

    fn rules() -> DefaultScoring {
        let Scoring::Default(rules) = Policy::default_rules().scoring else { panic!("default rules") };
        rules
    }

    #[test]
    fn a_shortfall_counts_steeply_less_and_95_percent_is_all() {
        let of = |d| degree(&rules(), d);
        assert_eq!([of(1.0), of(0.95), of(0.475), of(0.0)], [1.0, 1.0, 0.25, 0.0]);
        assert!((of(0.9) - (0.9_f64 / 0.95).powi(2)).abs() < 1e-15);
        for senseless in [0.0, -1.0, 2.0, f64::NAN] {
            let rules = DefaultScoring { sustained_at: senseless, ..rules() };
            assert_eq!([degree(&rules, 1.0), degree(&rules, 0.5)], [1.0, 0.25]);
        }
    }

    #[test]
    fn a_window_counts_by_what_it_says_about_the_present_capacity() {
        let of = |delivered, rate, of_present| worth(&rules(), delivered, rate, of_present);
        assert_eq!(of(1.0, 1.0, 1.0), Some(1.0));
        // Announced a tenth then.
        assert_eq!(of(1.0, 1.0, 0.1), Some(0.1));
        // Announced twice as much then, and did half of it.
        assert_eq!(of(0.5, 1.0, 2.0), Some(1.0));
        assert_eq!(of(0.25, 1.0, 2.0), of(0.5, 1.0, 1.0));
    }

    #[test]
    fn head_room_counts_only_where_it_proves_all_that_is_announced() {
        let of = |delivered, of_present| worth(&rules(), delivered, 1.25, of_present);
        assert_eq!(of(1.0, 1.25), Some(1.0));
        assert_eq!(of(0.94, 1.25), None);
        // Sustained, but when a tenth was announced: nothing, or failing it would have paid more.
        assert_eq!(of(1.0, 0.125), None);
    }
}
