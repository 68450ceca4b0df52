//! Gaussian noise from a seed: torch's CPU generator, or Philox.
//!
//! For: the very numbers that a miner drew, in the order in which a run draws them. Not for: secrets. The one
//! idea: one generator a run, from the initial latents to the last step's noise.

use crate::philox::philox4x32_10;

/// Which generator a run draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Noise {
    /// `torch.Generator("cpu").manual_seed(seed)` and `torch.randn`: MT19937 of the seed's low 32 bits, single
    /// precision. What diffusers draws on any machine if it is given that generator.
    Torch,
    /// Philox4x32-10. Value `i` of draw `d` comes from the counter `[d, 0, i's low word, i's high word]` under the
    /// key `[seed's low word, seed's high word]`: of the four words the first two, `a` and `b`, give
    /// `√(−2 ln((a + ½)·2⁻³²)) · sin(2π (b + ½)·2⁻³²)` in double precision, rounded to single. Draw 0 is the first
    /// of a run.
    Philox,
}

/// A generator in the middle of a run.
pub(crate) enum Generator {
    Torch(Box<Torch>),
    Philox { key: [u32; 2], draw: u32 },
}

impl Generator {
    pub(crate) fn new(noise: Noise, seed: u64) -> Self {
        match noise {
            Noise::Torch => Self::Torch(Box::new(Torch::new(seed))),
            Noise::Philox => Self::Philox { key: [seed as u32, (seed >> 32) as u32], draw: 0 },
        }
    }

    /// `n` standard normal values.
    pub(crate) fn normal(&mut self, n: usize) -> Vec<f32> {
        match self {
            Self::Torch(torch) => torch.normal(n),
            Self::Philox { key, draw } => {
                let values = (0..n as u64).map(|i| {
                    let [a, b, ..] = philox4x32_10([*draw, 0, i as u32, (i >> 32) as u32], *key);
                    let unit = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
                    ((-2.0 * unit(a).ln()).sqrt() * (std::f64::consts::TAU * unit(b)).sin()) as f32
                });
                let values = values.collect();
                *draw = draw.wrapping_add(1);
                values
            }
        }
    }
}

/// Words of MT19937's state, and how far the recurrence looks ahead.
const STATE: usize = 624;
const AHEAD: usize = 397;
/// From this many values on torch fills with uniforms first and transforms sixteen at a time.
const VECTOR: usize = 16;

/// MT19937 (Matsumoto, Nishimura 1998) and torch's two ways from its words to normal values.
pub(crate) struct Torch {
    state: [u32; STATE],
    at: usize,
    /// The second value of the last pair of the scalar path. It outlives a draw, as in torch.
    kept: Option<f64>,
}

impl Torch {
    fn new(seed: u64) -> Self {
        let mut state = [0; STATE];
        let mut last = seed as u32;
        for (i, word) in state.iter_mut().enumerate() {
            if i > 0 {
                last = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
            }
            *word = last;
        }
        Self { state, at: STATE, kept: None }
    }

    fn word(&mut self) -> u32 {
        if self.at >= STATE {
            self.renew();
        }
        let mut y = self.state.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn renew(&mut self) {
        let read = |state: &[u32; STATE], i: usize| state.get(i % STATE).copied().unwrap_or(0);
        for i in 0..STATE {
            let mixed = (read(&self.state, i) & 0x8000_0000) | (read(&self.state, i + 1) & 0x7fff_ffff);
            let twist = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            let next = read(&self.state, i + AHEAD) ^ (mixed >> 1) ^ twist;
            if let Some(word) = self.state.get_mut(i) {
                *word = next;
            }
        }
        self.at = 0;
    }

    /// Uniform in [0, 1) with 24 bits.
    fn single(&mut self) -> f32 {
        (self.word() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// Uniform in [0, 1) with 53 bits; the first word is the upper one.
    fn double(&mut self) -> f64 {
        let word = (u64::from(self.word()) << 32) | u64::from(self.word());
        (word & ((1 << 53) - 1)) as f64 / 9_007_199_254_740_992.0
    }

    fn normal(&mut self, n: usize) -> Vec<f32> {
        if n < VECTOR {
            return (0..n).map(|_| self.scalar() as f32).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.single()).collect();
        values.as_chunks_mut::<VECTOR>().0.iter_mut().for_each(transform);
        if !n.is_multiple_of(VECTOR)
            && let Some(tail) = values.last_chunk_mut::<VECTOR>()
        {
            // What is left over is not a chunk, so torch draws the last sixteen values anew.
            tail.iter_mut().for_each(|v| *v = self.single());
            transform(tail);
        }
        values
    }

    fn scalar(&mut self) -> f64 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        let (angle, radius) = (self.double(), self.double());
        let radius = (-2.0 * (-radius).ln_1p()).sqrt();
        let angle = std::f64::consts::TAU * angle;
        self.kept = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// Box and Muller's transform of eight pairs, the members of a pair eight places apart. Every intermediate is rounded
/// to single precision where torch rounds it; the functions themselves are computed in double.
fn transform(chunk: &mut [f32; VECTOR]) {
    let (first, second) = chunk.split_at_mut(VECTOR / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let log = f64::from(1.0 - *a).ln() as f32;
        let radius = (-2.0 * log).sqrt();
        let angle = f64::from(std::f32::consts::TAU * *b);
        *a = radius * angle.cos() as f32;
        *b = radius * angle.sin() as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        seed: u64,
        shape: Vec<usize>,
        values: Vec<f64>,
    }

    #[test]
    fn torch_values_are_torchs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/diffusion/torch_randn.json");
        let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(cases.len(), 36);
        let mut worst = 0.0_f64;
        for case in cases {
            let have = Generator::new(Noise::Torch, case.seed).normal(case.shape.iter().product());
            for (have, want) in have.iter().zip(&case.values) {
                let far = (f64::from(*have) - want).abs();
                assert!(far <= 1e-6, "{} {:?}: {have} {want}", case.seed, case.shape);
                worst = worst.max(far);
            }
        }
        println!("furthest from torch: {worst:e}");
    }

    #[test]
    fn draws_go_on_where_the_last_one_ended() {
        for noise in [Noise::Torch, Noise::Philox] {
            let mut one = Generator::new(noise, 7);
            let (a, b) = (one.normal(64), one.normal(64));
            assert_ne!(a, b);
            let mut again = Generator::new(noise, 7);
            assert_eq!((a, b), (again.normal(64), again.normal(64)));
        }
        let mut torch = Generator::new(Noise::Torch, 0);
        let pieces: Vec<f32> = [torch.normal(1), torch.normal(2)].concat();
        assert_eq!(pieces, Generator::new(Noise::Torch, 0).normal(3));
    }

    #[test]
    fn philox_values_are_standard_normal_and_depend_on_every_coordinate() {
        let of = |seed| Generator::new(Noise::Philox, seed).normal(40_000);
        let values = of(1 << 40);
        assert_ne!(values, of(0));
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 40_000.0;
        let square = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 40_000.0;
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.03, "{mean} {square}");
        assert!(values.iter().all(|v| v.is_finite()));
    }
}
