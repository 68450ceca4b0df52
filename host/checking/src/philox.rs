//! Philox4x32-10, the counter-based generator behind the seeded sampler.
//!
//! For: the same 32 random bits for (seed, request, position, token) on any machine, in any order, without
//! state. Not for: secrets, it is no cipher. The one idea: randomness is a pure function of its coordinates,
//! so a checker can draw exactly the numbers that a miner drew, for one token alone.
//!
//! Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); the known answers in
//! the tests are those published with Random123.

const MULTIPLIERS: (u32, u32) = (0xD251_1F53, 0xCD9E_8D57);
const WEYL: (u32, u32) = (0x9E37_79B9, 0xBB67_AE85);

/// High and low half of the 64-bit product.
const fn halves(a: u32, b: u32) -> (u32, u32) {
    let product = (a as u64) * (b as u64);
    ((product >> 32) as u32, product as u32)
}

/// Ten rounds of Philox4x32: four random words for a counter and a key.
#[must_use]
pub const fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    let mut round = 0;
    while round < 10 {
        let (hi0, lo0) = halves(MULTIPLIERS.0, c0);
        let (hi1, lo1) = halves(MULTIPLIERS.1, c2);
        (c0, c1, c2, c3) = (hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0);
        k0 = k0.wrapping_add(WEYL.0);
        k1 = k1.wrapping_add(WEYL.1);
        round += 1;
    }
    [c0, c1, c2, c3]
}

/// The noise of one request: a seed, and a number that tells requests with the same seed apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noise {
    key: [u32; 2],
    request: [u32; 2],
}

impl Noise {
    #[expect(clippy::cast_possible_truncation, reason = "the low and high words are what is wanted")]
    pub(crate) const fn new(seed: u64, request: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], request: [request as u32, (request >> 32) as u32] }
    }

    /// The words of tokens `4 * block .. 4 * block + 4` at position `t` of the completion.
    pub(crate) const fn block(&self, t: u32, block: u32) -> [u32; 4] {
        let [low, high] = self.request;
        philox4x32_10([block, t, low, high], self.key)
    }

    /// The word of token `v` at position `t`.
    pub(crate) const fn word(&self, t: u32, v: u32) -> u32 {
        let [a, b, c, d] = self.block(t, v / 4);
        match v % 4 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        }
    }
}

/// `u = (x + 0.5) · 2⁻³²`, strictly inside (0, 1).
pub(crate) fn unit(word: u32) -> f64 {
    (f64::from(word) + 0.5) * (1.0 / 4_294_967_296.0)
}

/// The standard Gumbel variate of a word, `−ln(−ln u)`.
pub(crate) fn gumbel(word: u32) -> f64 {
    -(-unit(word).ln()).ln()
}

/// Never below [`gumbel`] of the same word, and free of logarithms: `−ln u ≥ 1 − u ≥ 2^−(z+1)` where `z` counts
/// the leading zeros of `!word`.
pub(crate) fn gumbel_ceiling(word: u32) -> f64 {
    f64::from((!word).leading_zeros() + 1) * std::f64::consts::LN_2 + 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_known_answers_hold() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_word_is_the_lane_of_its_block() {
        let noise = Noise::new(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        let block = philox4x32_10([25, 7, 0x7654_3210, 0xfedc_ba98], [0x89ab_cdef, 0x0123_4567]);
        for (lane, v) in (100..104).enumerate() {
            assert_eq!(noise.word(7, v), block[lane]);
        }
    }

    #[test]
    fn the_extreme_words_give_finite_noise() {
        assert!(gumbel(0).is_finite() && gumbel(u32::MAX).is_finite());
        assert!((gumbel(u32::MAX) - 33.0 * std::f64::consts::LN_2).abs() < 1e-6);
    }

    #[test]
    fn the_ceiling_is_never_below_the_noise() {
        let noise = Noise::new(42, 1);
        for v in 0..100_000 {
            let word = noise.word(0, v);
            assert!(gumbel_ceiling(word) >= gumbel(word), "{word:#x}");
        }
        for bit in 0..32 {
            for word in [!0_u32 << bit, !(1 << bit), !((1_u64 << (bit + 1)) - 1) as u32] {
                assert!(gumbel_ceiling(word) >= gumbel(word), "{word:#x}");
            }
        }
    }
}
