//! Quantiles of a beta distribution: what so many windows, of which so many were sustained, leave open.
//!
//! The distribution function is the continued fraction of the incomplete beta function, and its inverse a
//! Newton iteration kept between two bounds. The density is built from deviances and Stirling's remainder
//! instead of differences of large logarithms of Γ, so that 1e9 windows cost no digits.

use crate::{unit, within};

/// Aged windows above this many count as this many; nobody runs as many.
const MOST: f64 = 1e9;
/// Counts below this are 0: they move no quantile by more.
const NEXT_TO_NOTHING: f64 = 1e-13;

/// The lower `p` quantile of Beta(k + 1, n − k + 1), in [0, 1], to 1e-12; neither n nor k has to be whole.
/// What is out of range is moved into it: `n` to [0, 1e9], `k` to [0, n], `p` to [0, 1].
pub(crate) fn lower_quantile(n: f64, k: f64, p: f64) -> f64 {
    let n = within(n, 0.0, MOST);
    let k = within(k, 0.0, n);
    let p = unit(p);
    if n - k < NEXT_TO_NOTHING {
        return p.powf(1.0 / (n + 1.0));
    }
    if k < NEXT_TO_NOTHING {
        return -((-p).ln_1p() / (n + 1.0)).exp_m1();
    }
    if p <= 0.0 || p >= 1.0 {
        return p;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // In a tail that is convex up to the mode, Newton's steps from there run down to the root.
    let mut x = k / n;
    let (mut last, mut before) = (1.0_f64, 1.0_f64);
    for _ in 0..200 {
        let density = density(n, k, x);
        let excess = cumulative(n, k, x, density) - p;
        if excess > 0.0 {
            high = x;
        } else {
            low = x;
        }
        let newton = x - excess / density;
        // Outside the bounds, no number, or not closing in: halve.
        let next = if newton > low && newton < high && (newton - x).abs() < 0.5 * before.abs() {
            newton
        } else {
            f64::midpoint(low, high)
        };
        before = last;
        last = next - x;
        x = next;
        if last.abs() <= 1e-16 + 4.0 * f64::EPSILON * x || high - low <= f64::EPSILON * x {
            break;
        }
    }
    unit(x)
}

/// Density of Beta(k + 1, n − k + 1) at `x`, for 0 < k < n and 0 < x < 1.
fn density(n: f64, k: f64, x: f64) -> f64 {
    let m = n - k;
    let log = (n + 1.0).ln() + remainder(n)
        - remainder(k)
        - remainder(m)
        - deviance(k, n * x)
        - deviance(m, n * (1.0 - x))
        + 0.5 * (n.ln() - k.ln() - m.ln() - std::f64::consts::TAU.ln());
    log.exp()
}

/// Stirling's remainder `ln Γ(z + 1) − (z + ½) ln z + z − ½ ln 2π`, for z > 0.
fn remainder(z: f64) -> f64 {
    /// From here on five terms of the series are exact to a double.
    const FAR: f64 = 16.0;
    let series = |z: f64| {
        let i = 1.0 / (z * z);
        (1.0 / 12.0 - i * (1.0 / 360.0 - i * (1.0 / 1260.0 - i * (1.0 / 1680.0 - i / 1188.0)))) / z
    };
    let (mut far, mut product) = (z, 1.0);
    while far < FAR {
        far += 1.0;
        product *= far;
    }
    let rest = |z: f64| (z + 0.5) * z.ln() - z;
    if far > z { series(far) + rest(far) - rest(z) - product.ln() } else { series(z) }
}

/// `x ln(x/m) + m − x`, at least 0, without cancellation where `x` is near `m`.
fn deviance(x: f64, m: f64) -> f64 {
    let v = (x - m) / (x + m);
    if v.abs() >= 0.1 {
        return x * (x / m).ln() + m - x;
    }
    let mut sum = (x - m) * v;
    let mut power = 2.0 * x * v;
    let mut odd = 1.0;
    // |v| < 0.1: each term is less than a hundredth of the last.
    for _ in 0..16 {
        power *= v * v;
        odd += 2.0;
        sum += power / odd;
    }
    sum
}

/// Distribution function of Beta(k + 1, n − k + 1) at `x`, given the density there.
fn cumulative(n: f64, k: f64, x: f64, density: f64) -> f64 {
    let (a, b) = (k + 1.0, n - k + 1.0);
    let front = density * x * (1.0 - x);
    if x * (a + b + 2.0) < a + 1.0 {
        unit(front * fraction(a, b, x) / a)
    } else {
        unit(1.0 - front * fraction(b, a, 1.0 - x) / b)
    }
}

/// The continued fraction of the incomplete beta function by Lentz's method, for x left of the mean.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let held = |y: f64| if y.abs() < 1e-300 { 1e-300 } else { y };
    let mut c = 1.0;
    let mut d = 1.0 / held(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    let mut m = 0.0;
    // About √max(a, b) terms are needed.
    for _ in 0..200_000 {
        m += 1.0;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / held(1.0 + even * d);
        c = held(1.0 + even / c);
        value *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / held(1.0 + odd * d);
        c = held(1.0 + odd / c);
        value *= d * c;
        if (d * c - 1.0).abs() < 4.0 * f64::EPSILON {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_published_quantiles_hold() {
        for (n, k, expected) in [
            (0.0, 0.0, 0.1),
            (1.0, 1.0, 0.316228),
            (1.0, 0.0, 0.051317),
            (5.0, 5.0, 0.681292),
            (20.0, 20.0, 0.896151),
            (20.0, 15.0, 0.602673),
            (100.0, 100.0, 0.977460),
            (7.5, 6.25, 0.580380),
        ] {
            let l = lower_quantile(n, k, 0.1);
            assert!((l - expected).abs() < 1e-6, "{n} {k}: {l} for {expected}");
        }
    }

    #[test]
    fn quantiles_are_exact_to_twelve_digits() {
        // By mpmath with 40 digits.
        for (n, k, p, expected) in [
            (2.0, 1.0, 0.1, 0.195_800_105_659_091_7),
            (7.5, 6.25, 0.1, 0.580_380_000_655_871_1),
            (48.0, 44.0, 0.1, 0.843_448_662_698_521_1),
            (48.3, 0.001, 0.1, 0.002_140_944_811_689_32),
            (104.2, 1.04, 0.1, 0.005_265_217_720_137_114),
            (104.2, 103.9, 0.1, 0.973_645_610_387_432_2),
            (1_000.0, 17.25, 0.1, 0.013_048_295_342_735_46),
            (0.25, 0.125, 0.1, 0.116_177_188_476_960_3),
            (30.0, 15.0, 0.9, 0.612_686_864_575_772_8),
            (30.0, 15.0, 0.5, 0.5),
            (30.0, 15.0, 1e-9, 0.087_617_009_093_108_03),
            (6.0, 0.06, 0.1, 0.017_632_172_069_809_01),
            (1e4, 9_000.5, 0.1, 0.896_108_564_195_386_4),
            (1e4, 3.0, 0.999, 0.001_305_436_597_243_344),
        ] {
            let l = lower_quantile(n, k, p);
            assert!((l - expected).abs() < 1e-12, "{n} {k} {p}: {l:.16} for {expected:.16}");
        }
    }

    #[test]
    fn a_thousand_million_windows_leave_next_to_nothing_open() {
        for share in [0.001, 0.5, 0.999] {
            let l = lower_quantile(1e9, share * 1e9, 0.1);
            // The normal approximation; its error is that of the next order.
            let sigma = (share * (1.0 - share) / 1e9_f64).sqrt();
            assert!((l - (share - 1.281_551_565_544_6 * sigma)).abs() < 1e-8, "{share}: {l}");
        }
        assert!(lower_quantile(1e9, 1e9, 0.1) < 1.0);
        assert_eq!(lower_quantile(f64::MAX, f64::MAX, 0.1), lower_quantile(1e9, 1e9, 0.1));
    }

    #[test]
    fn senseless_counts_and_quantiles_are_moved_into_range() {
        assert_eq!(lower_quantile(f64::NAN, f64::NAN, 0.1), 0.1);
        assert_eq!(lower_quantile(2.0, 5.0, 0.1), lower_quantile(2.0, 2.0, 0.1));
        assert_eq!(lower_quantile(2.0, -5.0, 0.1), lower_quantile(2.0, 0.0, 0.1));
        for k in [0.0, 1.0, 2.0] {
            assert_eq!([-1.0, f64::NAN, 0.0].map(|p| lower_quantile(2.0, k, p)), [0.0; 3]);
            assert_eq!([1.0, f64::INFINITY].map(|p| lower_quantile(2.0, k, p)), [1.0; 2]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_distribution_function_at_the_quantile_is_its_probability(
            n in 0.01..3_000.0_f64,
            share in 0.0..1.0_f64,
            p in 0.001..0.999_f64,
        ) {
            let k = share * n;
            prop_assume!(k > 1e-9 && n - k > 1e-9);
            let x = lower_quantile(n, k, p);
            let back = cumulative(n, k, x, density(n, k, x));
            prop_assert!((back - p).abs() < 1e-10, "{back} for {p}");
        }

        #[test]
        fn more_sustained_is_never_less(
            n in 0.0..500.0_f64,
            share in 0.0..1.0_f64,
            more in 0.0..3.0_f64,
            p in 0.0..1.0_f64,
        ) {
            let k = share * n;
            let l = lower_quantile(n, k, p);
            prop_assert!((0.0..=1.0).contains(&l));
            // One that had been missed, and one more that was tried.
            prop_assert!(lower_quantile(n, (k + more).min(n), p) >= l - 1e-12);
            prop_assert!(lower_quantile(n + more, k + more, p) >= l - 1e-12);
            prop_assert!(lower_quantile(n + more, k, p) <= l + 1e-12);
        }

        #[test]
        fn every_input_has_a_quantile(n in any::<f64>(), k in any::<f64>(), p in any::<f64>()) {
            prop_assert!((0.0..=1.0).contains(&lower_quantile(n.min(1e5), k, p)));
        }
    }
}
