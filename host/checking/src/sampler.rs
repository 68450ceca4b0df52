//! The sampler classes: how a token is drawn from a row of logits, and how far a token is from the one that
//! would have been drawn.
//!
//! For: generation and replay, which call the same code. Not for: judging, a margin is evidence and the plugin
//! decides. The one idea: seeded sampling is an argmax over `ℓ + T·g` with noise that everybody can compute, so
//! what an honest miner returns is bound to the model as tightly as a greedy answer. `docs/protocol.md`,
//! "Samplers", is the specification.

use nineteen_domain::seed::{Draws, Seed};

use crate::error::CheckingError;
use crate::philox::{Noise, gumbel, gumbel_ceiling};
use crate::reduce::{self, Row};

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampler {
    /// The largest logit, ties to the lowest id.
    Greedy,
    /// Gumbel-max with counter-based noise.
    Seeded {
        /// Key of the noise.
        seed: u64,
        /// Tells requests with the same seed apart.
        request: u64,
        /// Above 0.
        temperature: f64,
        /// In (0, 1]; 1 keeps everything.
        top_p: f64,
        /// 0 keeps everything.
        top_k: u32,
    },
    /// Drawn from the tempered distribution with the operating system's randomness.
    Unseeded {
        /// Above 0.
        temperature: f64,
        /// In (0, 1]; 1 keeps everything.
        top_p: f64,
        /// 0 keeps everything.
        top_k: u32,
    },
}

/// How far a token is from the one that the sampler draws.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Margin {
    /// Nats; negative only for a token outside the support whose own noise is high.
    pub(crate) margin: f64,
    pub(crate) in_support: bool,
}

impl Sampler {
    /// The class's name in the protocol.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Seeded { .. } => "seeded",
            Self::Unseeded { .. } => "unseeded",
        }
    }

    /// Temperature and support, or why they are no parameters of a sampler.
    pub(crate) fn validate(&self) -> Result<(), CheckingError> {
        let (Self::Seeded { temperature, top_p, .. } | Self::Unseeded { temperature, top_p, .. }) = self
        else {
            return Ok(());
        };
        if !(1e-3..=1e3).contains(temperature) {
            return Err(CheckingError::BadParameters(format!(
                "temperature {temperature} is not in 0.001 to 1000 (0 is the class 'greedy')"
            )));
        }
        if !(*top_p > 0.0 && *top_p <= 1.0) {
            return Err(CheckingError::BadParameters(format!("top_p {top_p} is not in (0, 1]")));
        }
        Ok(())
    }
}

/// The tokens that may be drawn.
enum Support<'a> {
    All,
    /// Largest logit first.
    Only(&'a [(u32, f32)]),
}

/// Draws and measures; keeps its buffers between rows.
pub(crate) struct Drawer {
    sampler: Sampler,
    kept: Vec<(u32, f32)>,
    ids: Vec<u32>,
    draws: Option<Draws>,
}

impl Drawer {
    pub(crate) fn new(sampler: Sampler) -> Result<Self, CheckingError> {
        sampler.validate()?;
        let draws = if matches!(sampler, Sampler::Unseeded { .. }) {
            let mut raw = [0; 32];
            getrandom::fill(&mut raw)
                .map_err(|e| CheckingError::System(format!("no randomness to be had: {e}")))?;
            Some(Draws::new(&Seed::from_bytes(raw)))
        } else {
            None
        };
        Ok(Self { sampler, kept: Vec::new(), ids: Vec::new(), draws })
    }

    /// The token for position `t` of the completion; `None` if a logit is not finite.
    pub(crate) fn draw(&mut self, logits: &[f32], t: u32) -> Option<u32> {
        let (max, _) = reduce::survey(logits, f32::INFINITY)?;
        match self.sampler {
            Sampler::Greedy => Some(reduce::position(logits, max)),
            Sampler::Seeded { seed, request, temperature, top_p, top_k } => {
                let noise = Noise::new(seed, request);
                let support = self.support(logits, max, temperature, top_p, top_k);
                Some(best(logits, max, &support, noise, t, temperature).0)
            }
            Sampler::Unseeded { temperature, top_p, top_k } => {
                let u = self.draws.as_mut()?.unit();
                self.support(logits, max, temperature, top_p, top_k);
                if self.kept.is_empty() {
                    reduce::top(logits, logits.len(), &mut self.kept);
                }
                let weight = |l: f32| ((f64::from(l) - f64::from(max)) / temperature).exp();
                let target = u * self.kept.iter().map(|(_, l)| weight(*l)).sum::<f64>();
                let mut sum = 0.0;
                let drawn = self.kept.iter().find(|(_, l)| {
                    sum += weight(*l);
                    sum > target
                });
                drawn.or(self.kept.last()).map(|(id, _)| *id)
            }
        }
    }

    /// How far `y` is from what this sampler draws at `t`; `None` for the unseeded class. Logits are finite
    /// and `max` is the largest.
    pub(crate) fn margin(&mut self, logits: &[f32], max: f32, t: u32, y: u32) -> Option<Margin> {
        let own = *logits.get(y as usize)?;
        match self.sampler {
            Sampler::Greedy => Some(Margin { margin: f64::from(max) - f64::from(own), in_support: true }),
            Sampler::Seeded { seed, request, temperature, top_p, top_k } => {
                let noise = Noise::new(seed, request);
                let support = self.support(logits, max, temperature, top_p, top_k);
                let in_support = match &support {
                    Support::All => true,
                    Support::Only(kept) => kept.iter().any(|(id, _)| *id == y),
                };
                let (_, score) = best(logits, max, &support, noise, t, temperature);
                let own = f64::from(own) + temperature * gumbel(noise.word(t, y));
                Some(Margin { margin: score - own, in_support })
            }
            Sampler::Unseeded { .. } => None,
        }
    }

    /// The row of the distribution that the log-probabilities of a replay speak of, and whether `y` can be
    /// drawn from it: the plain softmax, or for the unseeded class the tempered one over its support. A token
    /// outside gets its row of the tempered softmax without truncation for the log-probability alone.
    pub(crate) fn reduce(&mut self, logits: &[f32], y: u32) -> Option<(Row, f64, bool)> {
        let own = *logits.get(y as usize)?;
        let Sampler::Unseeded { temperature, top_p, top_k } = self.sampler else {
            let row = reduce::reduce(logits, own, 1.0)?;
            return Some((row, row.logprob(own), true));
        };
        let (max, _) = reduce::survey(logits, own)?;
        match self.support(logits, max, temperature, top_p, top_k) {
            Support::All => {
                let row = reduce::reduce(logits, own, temperature)?;
                Some((row, row.logprob(own), true))
            }
            Support::Only(kept) => {
                let inside = kept.iter().any(|(id, _)| *id == y);
                self.ids.clear();
                self.ids.extend(self.kept.iter().map(|(id, _)| *id));
                let row = reduce::reduce_within(logits, own, temperature, &self.ids)?;
                let logprob = if inside {
                    row.logprob(own)
                } else {
                    reduce::reduce(logits, own, temperature)?.logprob(own)
                };
                Some((row, logprob, inside))
            }
        }
    }

    /// Whether `id` was in the support of the row last reduced. Only the unseeded class truncates there.
    pub(crate) fn was_kept(&self, id: u32) -> bool {
        !matches!(self.sampler, Sampler::Unseeded { .. })
            || self.kept.is_empty()
            || self.kept.iter().any(|(have, _)| *have == id)
    }

    /// top-k, then the smallest prefix of the tempered softmax over it whose sum reaches top-p. `kept` is empty
    /// when everything is kept.
    fn support(&mut self, logits: &[f32], max: f32, temperature: f64, top_p: f64, top_k: u32) -> Support<'_> {
        let n = logits.len();
        let k = if top_k == 0 { n } else { n.min(top_k as usize) };
        self.kept.clear();
        if k == n && top_p >= 1.0 {
            return Support::All;
        }
        let weight = |l: f32| {
            let d = (f64::from(l) - f64::from(max)) / temperature;
            // 2^32 such weights are below half a unit in the last place of the total, which is at least 1.
            if d < -80.0 { 0.0 } else { d.exp() }
        };
        if k < n {
            reduce::top(logits, k, &mut self.kept);
            if top_p < 1.0 {
                let total: f64 = self.kept.iter().map(|(_, l)| weight(*l)).sum();
                let mut keep = self.kept.len();
                let mut sum = 0.0;
                for (i, (_, l)) in self.kept.iter().enumerate() {
                    sum += weight(*l) / total;
                    if sum >= top_p {
                        keep = i + 1;
                        break;
                    }
                }
                self.kept.truncate(keep);
            }
            return Support::Only(&self.kept);
        }
        // The whole vocabulary: its total is needed, its order only as far as the prefix reaches.
        let total: f64 = logits.iter().map(|l| weight(*l)).sum();
        let mut reach = 64;
        loop {
            reduce::top(logits, reach, &mut self.kept);
            let mut sum = 0.0;
            let mut keep = None;
            for (i, (_, l)) in self.kept.iter().enumerate() {
                sum += weight(*l) / total;
                if sum >= top_p {
                    keep = Some(i + 1);
                    break;
                }
            }
            if let Some(keep) = keep {
                self.kept.truncate(keep);
                break;
            }
            if reach >= n {
                break;
            }
            reach = reach.saturating_mul(8);
        }
        Support::Only(&self.kept)
    }
}

/// The token of the support with the largest `ℓ + T·g`, ties to the lowest id, and that score.
#[expect(
    clippy::cast_possible_truncation,
    reason = "vocabularies are below 2^32, checked when a model is loaded"
)]
fn best(
    logits: &[f32],
    max: f32,
    support: &Support<'_>,
    noise: Noise,
    t: u32,
    temperature: f64,
) -> (u32, f64) {
    let mut winner = (u32::MAX, f64::NEG_INFINITY);
    let mut offer = |id: u32, logit: f32, word: u32| {
        let logit = f64::from(logit);
        // Most tokens cannot win with any noise that their word allows: no logarithms for them.
        if logit + temperature * gumbel_ceiling(word) < winner.1 {
            return;
        }
        let score = logit + temperature * gumbel(word);
        if score > winner.1 || (score >= winner.1 && id < winner.0) {
            winner = (id, score);
        }
    };
    match support {
        Support::Only(kept) => kept.iter().for_each(|(id, logit)| offer(*id, *logit, noise.word(t, *id))),
        Support::All => {
            let likeliest = reduce::position(logits, max);
            offer(likeliest, max, noise.word(t, likeliest));
            // A word's noise is at most 33 ln 2, so far-off blocks need no words at all.
            let reach = 33.0 * std::f64::consts::LN_2 * temperature + 1e-6;
            let start = f64::from(max) + temperature * gumbel(noise.word(t, likeliest));
            for (block, four) in logits.chunks(4).enumerate() {
                let largest = four.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                if f64::from(largest) + reach < start {
                    continue;
                }
                let words = noise.block(t, block as u32);
                for (lane, (logit, word)) in four.iter().zip(words).enumerate() {
                    offer((block * 4 + lane) as u32, *logit, word);
                }
            }
        }
    }
    winner
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seeded(seed: u64, temperature: f64, top_p: f64, top_k: u32) -> Sampler {
        Sampler::Seeded { seed, request: 0x00c0_ffee_00c0_ffee, temperature, top_p, top_k }
    }

    /// The specification, word for word and slow.
    fn specified(logits: &[f32], s: Sampler, t: u32) -> (u32, Vec<u32>) {
        let Sampler::Seeded { seed, request, temperature, top_p, top_k } = s else { unreachable!() };
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
        if top_k > 0 {
            ids.truncate(top_k as usize);
        }
        if top_p < 1.0 {
            let w: Vec<f64> = ids
                .iter()
                .map(|i| {
                    ((f64::from(logits[*i as usize]) - f64::from(logits[ids[0] as usize])) / temperature)
                        .exp()
                })
                .collect();
            let total: f64 = w.iter().sum();
            let mut sum = 0.0;
            let keep = w.iter().position(|w| {
                sum += w / total;
                sum >= top_p
            });
            ids.truncate(keep.map_or(ids.len(), |k| k + 1));
        }
        ids.sort_unstable();
        let score = |v: u32| {
            let word = crate::philox::philox4x32_10(
                [v / 4, t, request as u32, (request >> 32) as u32],
                [seed as u32, (seed >> 32) as u32],
            )[(v % 4) as usize];
            let u = (f64::from(word) + 0.5) * 2f64.powi(-32);
            f64::from(logits[v as usize]) + temperature * -(-u.ln()).ln()
        };
        let mut best = ids[0];
        for id in &ids {
            if score(*id) > score(best) {
                best = *id;
            }
        }
        (best, ids)
    }

    proptest! {
        #[test]
        fn the_fast_sampler_draws_what_the_specification_says(
            logits in prop::collection::vec(-12.0_f32..12.0, 1..700), seed in any::<u64>(), t in 0_u32..4000,
            temperature in 0.05_f64..3.0, top_p in prop_oneof![Just(1.0), 0.05_f64..1.0], top_k in prop_oneof![Just(0_u32), 1_u32..80],
        ) {
            let s = seeded(seed, temperature, top_p, top_k);
            let mut drawer = Drawer::new(s).unwrap();
            let (want, support) = specified(&logits, s, t);
            prop_assert_eq!(drawer.draw(&logits, t), Some(want));
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let own = drawer.margin(&logits, max, t, want).unwrap();
            prop_assert_eq!(own, Margin { margin: 0.0, in_support: true });
            for y in 0..logits.len() as u32 {
                let m = drawer.margin(&logits, max, t, y).unwrap();
                prop_assert_eq!(m.in_support, support.contains(&y));
                prop_assert!(m.margin >= 0.0 || !m.in_support);
            }
        }
    }

    #[test]
    fn the_protocols_worked_examples_hold() {
        let noise = Noise::new(4_503_599_627_370_496, 0x00c0_ffee_00c0_ffee);
        for (t, v, x, g) in [
            (0, 0, 0x24ea_5ce1, -0.660_906_22),
            (0, 1, 0x71fc_461d, 0.211_824_50),
            (0, 49_151, 0x0f0d_3dec, -1.041_577_90),
            (1, 0, 0x93c1_4abe, 0.598_525_18),
            (127, 28, 0xb987_4d2a, 1.133_300_57),
        ] {
            assert_eq!(noise.word(t, v), x);
            assert!((gumbel(x) - g).abs() < 1e-8);
        }
        let logits = [2.0_f32, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5];
        let mut drawer = Drawer::new(seeded(4_503_599_627_370_496, 0.7, 0.9, 4)).unwrap();
        let drawn: Vec<u32> = (0..8).map(|t| drawer.draw(&logits, t).unwrap()).collect();
        assert_eq!(drawn, [2, 2, 0, 1, 1, 2, 0, 0]);
    }

    #[test]
    fn seeded_draws_follow_the_tempered_distribution() {
        let logits = [2.0_f32, 1.0, 0.0, -1.0, 1.5];
        let mut counts = [0_u32; 5];
        let mut drawer = Drawer::new(seeded(7, 0.8, 1.0, 0)).unwrap();
        for t in 0..40_000 {
            counts[drawer.draw(&logits, t).unwrap() as usize] += 1;
        }
        let w: Vec<f64> = logits.iter().map(|l| (f64::from(*l) / 0.8).exp()).collect();
        let total: f64 = w.iter().sum();
        for (n, w) in counts.iter().zip(&w) {
            let p = w / total;
            let sigma = (40_000.0 * p * (1.0 - p)).sqrt();
            assert!((f64::from(*n) - 40_000.0 * p).abs() < 4.5 * sigma, "{counts:?}");
        }
    }

    #[test]
    fn unseeded_draws_stay_in_the_support_and_follow_it() {
        let logits = [3.0_f32, 2.0, 1.0, -9.0];
        let mut drawer = Drawer::new(Sampler::Unseeded { temperature: 1.0, top_p: 1.0, top_k: 2 }).unwrap();
        let first = (0..20_000).filter(|t| drawer.draw(&logits, *t) == Some(0)).count();
        assert!((0..2000).all(|t| drawer.draw(&logits, t).unwrap() < 2));
        let p = 1.0 / (1.0 + (-1.0_f64).exp());
        assert!((first as f64 / 20_000.0 - p).abs() < 0.02, "{first}");
    }

    #[test]
    fn other_seeds_requests_and_positions_are_other_noise() {
        let logits = vec![0.0_f32; 1000];
        let draw = |seed, request, t| {
            let s = Sampler::Seeded { seed, request, temperature: 1.0, top_p: 1.0, top_k: 0 };
            Drawer::new(s).unwrap().draw(&logits, t).unwrap()
        };
        let base = draw(1, 1, 1);
        assert_eq!(base, draw(1, 1, 1));
        for other in [draw(2, 1, 1), draw(1 << 40, 1, 1), draw(1, 2, 1), draw(1, 1 << 40, 1), draw(1, 1, 2)] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_token_outside_the_support_is_said_to_be_outside() {
        let logits = [5.0_f32, 4.9, 4.8, -3.0];
        let mut drawer = Drawer::new(seeded(3, 0.7, 1.0, 3)).unwrap();
        let m = drawer.margin(&logits, 5.0, 0, 3).unwrap();
        assert!(!m.in_support && m.margin > 1.0, "{m:?}");
    }

    #[test]
    fn strange_parameters_and_rows_are_refused_not_panicked_at() {
        for (temperature, top_p) in [
            (0.0, 1.0),
            (-1.0, 1.0),
            (f64::NAN, 1.0),
            (f64::INFINITY, 1.0),
            (1.0, 0.0),
            (1.0, 1.1),
            (1.0, f64::NAN),
        ] {
            assert!(Drawer::new(seeded(1, temperature, top_p, 0)).is_err());
        }
        let mut drawer = Drawer::new(seeded(1, 1.0, 0.9, 10)).unwrap();
        assert_eq!(drawer.draw(&[], 0), None);
        assert_eq!(drawer.draw(&[1.0, f32::NAN], 0), None);
        assert_eq!(drawer.margin(&[1.0, 2.0], 2.0, 0, 2), None);
    }
}
