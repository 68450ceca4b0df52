//! Draws that the seed alone decides.
//!
//! ChaCha with 8 rounds, keyed with the 32 bytes that the host gives: the same request on every machine, and
//! nothing of the next one to be learnt from this one. Only `ln`, `exp` and `sqrt` are used beside
//! arithmetic; within a component they are code of the component, so bits do not depend on the host.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// Seeded draws.
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream of this seed. Shorter or longer seeds than 32 bytes are cut or filled with zeros.
    #[must_use]
    pub fn new(seed: &[u8]) -> Self {
        let mut key = [0; 32];
        key.iter_mut().zip(seed).for_each(|(k, s)| *k = *s);
        Self(ChaCha8Rng::from_seed(key))
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1), 53 bits.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether an event of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform in `0..n`; 0 when `n` is 0. Multiply and shift: the bias is below n / 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(n);
        (wide >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = high.saturating_sub(low).max(0).unsigned_abs().saturating_add(1);
        low.saturating_add_unsigned(self.below(span))
    }

    /// One of them; `None` when there are none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.below(of.len() as u64)).ok()?)
    }

    /// One of the words, `""` when there are none.
    pub fn word<'a>(&mut self, of: &[&'a str]) -> &'a str {
        self.pick(of).copied().unwrap_or_default()
    }

    /// One of them by weight; weights are not negative and need not sum to 1. `None` when nothing weighs.
    pub fn weighted<'a, T>(&mut self, of: &'a [(T, f64)]) -> Option<&'a T> {
        let total: f64 = of.iter().map(|(_, w)| w.max(0.0)).sum();
        let mut left = self.unit() * total;
        let mut last = None;
        for (item, weight) in of.iter().filter(|(_, w)| *w > 0.0) {
            if left < *weight {
                return Some(item);
            }
            left -= weight;
            last = Some(item);
        }
        last
    }

    /// Standard normal, by Marsaglia's polar method.
    pub fn normal(&mut self) -> f64 {
        // Each try succeeds with probability pi/4; 64 tries fail once in 10^42.
        for _ in 0..64 {
            let (x, y) = (self.unit().mul_add(2.0, -1.0), self.unit().mul_add(2.0, -1.0));
            let s = x.mul_add(x, y * y);
            if s > 0.0 && s < 1.0 {
                return x * (-2.0 * s.ln() / s).sqrt();
            }
        }
        0.0
    }

    /// Log-normal with this median; `sigma` is the deviation of the logarithm.
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// Gamma, by Marsaglia and Tsang. Mean `shape * scale`; both above 0.
    pub fn gamma(&mut self, shape: f64, scale: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.unit()).powf(1.0 / shape);
            return self.gamma(shape + 1.0, scale) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        for _ in 0..256 {
            let x = self.normal();
            let v = c.mul_add(x, 1.0).powi(3);
            let u = 1.0 - self.unit();
            if v > 0.0 && u.ln() < (0.5 * x).mul_add(x, d) - d * v + d * v.ln() {
                return d * v * scale;
            }
        }
        shape * scale
    }

    /// A rank in `0..n` with probability proportional to `1 / (rank + 1)^exponent`; 0 when `n` is 0.
    pub fn zipf(&mut self, n: usize, exponent: f64) -> usize {
        let weight = |rank: usize| {
            #[expect(clippy::cast_precision_loss, reason = "ranks are far below 2^53")]
            let place = rank as f64 + 1.0;
            place.powf(-exponent)
        };
        let mut left = self.unit() * (0..n).map(weight).sum::<f64>();
        for rank in 0..n {
            left -= weight(rank);
            if left < 0.0 {
                return rank;
            }
        }
        n.saturating_sub(1)
    }

    /// An independent stream.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        let mut key = [0; 32];
        self.0.fill_bytes(&mut key);
        Self::new(&key)
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "counts of a test are far below 2^53")]
mod tests {
    use super::*;

    const N: usize = 20_000;

    fn mean_and_deviation(draw: impl FnMut() -> f64) -> (f64, f64) {
        let all: Vec<f64> = std::iter::repeat_with(draw).take(N).collect();
        let mean = all.iter().sum::<f64>() / N as f64;
        (mean, (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / N as f64).sqrt())
    }

    #[test]
    fn the_seed_alone_decides() {
        let draws = |seed: &[u8]| -> Vec<u64> {
            let mut rng = Rng::new(seed);
            (0..8).map(|_| rng.bits()).collect()
        };
        assert_eq!(draws(&[7; 32]), draws(&[7; 32]));
        assert_ne!(draws(&[7; 32]), draws(&[8; 32]));
    }

    #[test]
    fn distributions_have_the_moments_they_are_named_for() {
        let mut rng = Rng::new(&[1; 32]);
        let (mean, deviation) = mean_and_deviation(|| rng.normal());
        assert!(mean.abs() < 0.03 && (deviation - 1.0).abs() < 0.03, "{mean} {deviation}");
        for (shape, scale) in [(0.5, 2.0), (3.0, 1.5)] {
            let (mean, deviation) = mean_and_deviation(|| rng.gamma(shape, scale));
            let expected = (shape * scale, f64::sqrt(shape) * scale);
            assert!((mean / expected.0 - 1.0).abs() < 0.05, "{mean} {expected:?}");
            assert!((deviation / expected.1 - 1.0).abs() < 0.08, "{deviation} {expected:?}");
        }
        let (mean, _) = mean_and_deviation(|| rng.lognormal(10.0, 0.5));
        assert!((mean / (10.0 * f64::exp(0.125)) - 1.0).abs() < 0.03, "{mean}");
    }

    #[test]
    fn choices_follow_their_weights() {
        let mut rng = Rng::new(&[2; 32]);
        let hits =
            (0..N).filter(|_| rng.weighted(&[("a", 1.0), ("b", 0.0), ("c", 3.0)]) == Some(&"c")).count();
        assert!((hits as f64 / N as f64 - 0.75).abs() < 0.02);
        assert!((0..N).all(|_| rng.weighted(&[("a", 1.0), ("b", 0.0)]) == Some(&"a")));
        let firsts = (0..N).filter(|_| rng.zipf(3, 1.0) == 0).count();
        assert!((firsts as f64 / N as f64 - 6.0 / 11.0).abs() < 0.02);
        assert!((0..N).all(|_| (3..=5).contains(&rng.between(3, 5))));
    }

    #[test]
    fn nothing_to_choose_from_is_no_panic() {
        let mut rng = Rng::new(&[]);
        assert_eq!((rng.below(0), rng.zipf(0, 1.0), rng.word(&[])), (0, 0, ""));
        assert!(rng.pick::<u8>(&[]).is_none() && rng.weighted::<u8>(&[]).is_none());
    }
}
