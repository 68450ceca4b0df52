//! Draws that repeat. Not secret: nothing here protects anything, and every run prints its seed.
//!
//! One stream per thing that is random, named by numbers (seed, purpose, validator, key, probe …), so that one
//! miner's behaviour moves nobody else's draws: a strategy and the honesty that it is compared with meet the
//! same requests. The generator is SplitMix64, chosen for its speed and because any start is as good as another.

/// A stream of draws.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The stream of this name.
    pub(crate) fn of(name: &[u64]) -> Self {
        Self(name.iter().fold(GOLDEN, |h, n| mix(h.rotate_left(5) ^ mix(n.wrapping_add(GOLDEN)))))
    }

    /// 64 uniform bits.
    pub(crate) const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Uniform in [0, 1), 53 bits.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    pub(crate) const fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Normal with mean 0 and variance 1 (Box and Muller, one of the pair).
    pub(crate) fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// 32 bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        for eight in out.chunks_exact_mut(8) {
            eight.copy_from_slice(&self.bits().to_le_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_and_names_do_not_run_into_each_other() {
        assert_eq!(Rng::of(&[1, 2]).bits(), Rng::of(&[1, 2]).bits());
        assert_ne!(Rng::of(&[1, 2]).bits(), Rng::of(&[2, 1]).bits());
        assert_ne!(Rng::of(&[1]).bits(), Rng::of(&[1, 0]).bits());
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut rng = Rng::of(&[7]);
        let n = 100_000;
        let mean = (0..n).map(|_| rng.unit()).sum::<f64>() / f64::from(n);
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        let normals: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = normals.iter().sum::<f64>() / f64::from(n);
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }
}
