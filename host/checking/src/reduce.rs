//! What leaves the executor of a row of logits: a handful of numbers instead of the whole vocabulary.
//!
//! For: argmax, log-sum-exp, rank, entropy, variance of the information content and the top, of the plain
//! softmax at temperature 1 or of a tempered one. Not for: noise and support, which are the sampler's. The one
//! idea: two passes over the row, both written so that the compiler turns them into vector code; sums run over
//! blocks in `f32` lanes and leave each block in `f64`.

use std::cmp::Ordering;

/// Lanes that are summed side by side.
const LANES: usize = 16;
/// Values that one lane sums in `f32` before it is drained into `f64`.
const DEPTH: usize = 16;

/// The numbers of one row. Logarithms are natural.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Row {
    /// The lowest id with the largest logit.
    pub(crate) argmax: u32,
    /// Its logit.
    pub(crate) max: f32,
    /// How many logits are strictly larger than that of the token asked about.
    pub(crate) rank: u32,
    /// `ln Σ exp(z − max z)` of the (tempered) logits `z = ℓ / T`.
    pub(crate) log_sum: f64,
    /// `−Σ p ln p`, in nats.
    pub(crate) entropy: f64,
    /// `Σ p (ln p)² − H²`.
    pub(crate) varentropy: f64,
    /// 1 / T.
    pub(crate) inverse_temperature: f64,
}

impl Row {
    /// The log-probability of a token with this logit.
    pub(crate) fn logprob(&self, logit: f32) -> f64 {
        (f64::from(logit) - f64::from(self.max)) * self.inverse_temperature - self.log_sum
    }
}

/// Largest logit and how many exceed `than`; `None` if any value is not finite or the row is empty.
pub(crate) fn survey(logits: &[f32], than: f32) -> Option<(f32, u32)> {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut above = [0_u32; LANES];
    let mut strange = [0_u32; LANES];
    let (blocks, rest) = logits.as_chunks::<LANES>();
    for block in blocks {
        for (((value, largest), above), strange) in
            block.iter().zip(&mut largest).zip(&mut above).zip(&mut strange)
        {
            // Written as selections, not `f32::max`, whose rules for NaN cost vector instructions.
            *largest = if *value > *largest { *value } else { *largest };
            *above += u32::from(*value > than);
            // NaN and the infinities are the values whose exponent is all ones.
            *strange |= u32::from(value.to_bits() & 0x7F80_0000 == 0x7F80_0000);
        }
    }
    let mut max = largest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut count: u32 = above.iter().sum();
    let mut odd: u32 = strange.iter().sum();
    for value in rest {
        max = max.max(*value);
        count += u32::from(*value > than);
        odd += u32::from(!value.is_finite());
    }
    (odd == 0 && !logits.is_empty()).then_some((max, count))
}

/// The lowest id whose logit equals `max`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "vocabularies are below 2^32, checked when a model is loaded"
)]
pub(crate) fn position(logits: &[f32], max: f32) -> u32 {
    // Whole blocks are compared without a branch, then the block that holds it is searched.
    let mut start = 0;
    for block in logits.chunks(256) {
        if block.iter().fold(false, |found, v| found | (*v == max)) {
            return (start + block.iter().position(|v| *v == max).unwrap_or(0)) as u32;
        }
        start += block.len();
    }
    0
}

/// `exp` for arguments from −87 to 0, relative error below 4e-7; smaller arguments count as −87.
///
/// Cody and Waite's reduction with the polynomial of Cephes' `expf`. Rounding to the nearest integer is done by
/// adding 1.5 · 2²³, which needs no instruction beyond the baseline's.
// Always, because the loop around it becomes vector code only with it inlined.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_6e-1;
    p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    // `shifted` holds the integer in its low bits, 0x4B40_0000 above it.
    let exponent = shifted.to_bits().wrapping_sub(0x4B40_0000).wrapping_add(127) << 23;
    e * f32::from_bits(exponent)
}

/// `Σ e^d`, `Σ d e^d`, `Σ d² e^d` over `d = (ℓ − max) · scale`.
fn moments(logits: &[f32], max: f32, scale: f32) -> (f64, f64, f64) {
    let (mut s0, mut s1, mut s2) = (0.0_f64, 0.0_f64, 0.0_f64);
    for block in logits.chunks(LANES * DEPTH) {
        let (mut a0, mut a1, mut a2) = ([0.0_f32; LANES], [0.0_f32; LANES], [0.0_f32; LANES]);
        let (lines, rest) = block.as_chunks::<LANES>();
        for line in lines {
            for (((value, a0), a1), a2) in line.iter().zip(&mut a0).zip(&mut a1).zip(&mut a2) {
                let d = (*value - max) * scale;
                let d = if d < -87.0 { -87.0 } else { d };
                let e = exp(d);
                *a0 += e;
                *a1 += d * e;
                *a2 += d * d * e;
            }
        }
        for value in rest {
            let d = ((*value - max) * scale).max(-87.0);
            let e = exp(d);
            s0 += f64::from(e);
            s1 += f64::from(d * e);
            s2 += f64::from(d * d * e);
        }
        s0 += a0.iter().map(|v| f64::from(*v)).sum::<f64>();
        s1 += a1.iter().map(|v| f64::from(*v)).sum::<f64>();
        s2 += a2.iter().map(|v| f64::from(*v)).sum::<f64>();
    }
    (s0, s1, s2)
}

/// Reduces a row about the token whose logit is `of`, at `temperature` (1 for the plain softmax).
/// `None` if a value is not finite.
pub(crate) fn reduce(logits: &[f32], of: f32, temperature: f64) -> Option<Row> {
    let (max, rank) = survey(logits, of)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a temperature needs no more than single precision here"
    )]
    let (s0, s1, s2) = moments(logits, max, (1.0 / temperature) as f32);
    Some(finish(position(logits, max), max, rank, temperature, s0, s1, s2))
}

/// The same over the tokens of a support alone, renormalised; in `f64`, because supports are small.
pub(crate) fn reduce_within(logits: &[f32], of: f32, temperature: f64, support: &[u32]) -> Option<Row> {
    let (max, rank) = survey(logits, of)?;
    let (mut s0, mut s1, mut s2) = (0.0_f64, 0.0_f64, 0.0_f64);
    for id in support {
        let value = logits.get(*id as usize)?;
        let d = (f64::from(*value) - f64::from(max)) / temperature;
        let e = d.exp();
        s0 += e;
        s1 += d * e;
        s2 += d * d * e;
    }
    Some(finish(position(logits, max), max, rank, temperature, s0, s1, s2))
}

fn finish(argmax: u32, max: f32, rank: u32, temperature: f64, s0: f64, s1: f64, s2: f64) -> Row {
    let (mean, log_sum) = (s1 / s0, s0.ln());
    Row {
        argmax,
        max,
        rank,
        log_sum,
        entropy: (log_sum - mean).max(0.0),
        varentropy: (s2 / s0 - mean * mean).max(0.0),
        inverse_temperature: 1.0 / temperature,
    }
}

/// Larger logit first, then the lower id: the order of every list of tokens in this crate.
pub(crate) fn by_logit(a: (u32, f32), b: (u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Puts the `k` largest logits into `out`, in order. Logits are finite.
#[expect(
    clippy::cast_possible_truncation,
    reason = "vocabularies are below 2^32, checked when a model is loaded"
)]
pub(crate) fn top(logits: &[f32], k: usize, out: &mut Vec<(u32, f32)>) {
    out.clear();
    let k = k.min(logits.len());
    if k == 0 {
        return;
    }
    if k > 512 {
        out.extend(logits.iter().enumerate().map(|(id, value)| (id as u32, *value)));
        if k < out.len() {
            out.select_nth_unstable_by(k - 1, |a, b| by_logit(*a, *b));
            out.truncate(k);
        }
        out.sort_unstable_by(|a, b| by_logit(*a, *b));
        return;
    }
    // Few enter a short list after its first fill: one comparison per logit, blocks of them without a branch.
    let mut floor = f32::NEG_INFINITY;
    let mut start = 0_usize;
    for block in logits.chunks(64) {
        if out.len() < k || block.iter().fold(false, |any, v| any | (*v > floor)) {
            for (offset, value) in block.iter().enumerate() {
                if out.len() < k || *value > floor {
                    let entry = ((start + offset) as u32, *value);
                    let place = out.partition_point(|have| by_logit(*have, entry) == Ordering::Less);
                    if out.len() == k {
                        out.pop();
                    }
                    out.insert(place, entry);
                    if out.len() == k {
                        floor = out.last().map_or(floor, |last| last.1);
                    }
                }
            }
        }
        start += block.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow(logits: &[f32], temperature: f64) -> (f64, f64, f64) {
        let z: Vec<f64> = logits.iter().map(|l| f64::from(*l) / temperature).collect();
        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + z.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
        let h = z.iter().map(|v| -(v - lse).exp() * (v - lse)).sum::<f64>();
        let v = z.iter().map(|v| (v - lse).exp() * (v - lse) * (v - lse)).sum::<f64>() - h * h;
        (lse, h, v)
    }

    proptest! {
        #[test]
        fn the_fast_reduction_agrees_with_the_definition(
            logits in prop::collection::vec(-40.0_f32..40.0, 1..900), temperature in 0.2_f64..3.0, y in any::<prop::sample::Index>()
        ) {
            let y = y.index(logits.len());
            let row = reduce(&logits, logits[y], temperature).unwrap();
            let (lse, h, v) = slow(&logits, temperature);
            prop_assert!((row.logprob(logits[y]) - (f64::from(logits[y]) / temperature - lse)).abs() < 2e-5);
            prop_assert!((row.entropy - h).abs() < 2e-5, "{} {h}", row.entropy);
            prop_assert!((row.varentropy - v).abs() < 2e-4, "{} {v}", row.varentropy);
            prop_assert_eq!(row.rank as usize, logits.iter().filter(|l| **l > logits[y]).count());
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!(row.argmax as usize, logits.iter().position(|l| *l == best).unwrap());
        }

        #[test]
        fn the_top_is_that_of_a_full_sort(logits in prop::collection::vec((-20_i8..20).prop_map(f32::from), 0..1500), k in 0_usize..1200) {
            let mut fast = Vec::new();
            top(&logits, k, &mut fast);
            let mut all: Vec<(u32, f32)> = logits.iter().enumerate().map(|(i, l)| (i as u32, *l)).collect();
            all.sort_by(|a, b| by_logit(*a, *b));
            all.truncate(k);
            prop_assert_eq!(fast, all);
        }
    }

    #[test]
    fn a_row_with_anything_but_numbers_is_refused() {
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 15, 16, 40] {
                let mut row = vec![0.5_f32; 41];
                row[place] = strange;
                assert_eq!(reduce(&row, 0.5, 1.0), None, "{strange} at {place}");
            }
        }
        assert_eq!(reduce(&[], 0.0, 1.0), None);
    }

    #[test]
    fn the_exponential_is_accurate_where_it_is_used() {
        for step in 0..870_000 {
            let x = -(step as f32) * 1e-4;
            let (fast, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((fast / exact - 1.0).abs() < 4e-7, "{x}: {fast} {exact}");
        }
    }

    #[test]
    fn a_support_of_everything_changes_nothing() {
        let logits: Vec<f32> = (0..500).map(|i| ((i * 37 % 101) as f32).sqrt()).collect();
        let ids: Vec<u32> = (0..500).collect();
        let (a, b) = (reduce(&logits, 3.0, 0.7).unwrap(), reduce_within(&logits, 3.0, 0.7, &ids).unwrap());
        assert!((a.entropy - b.entropy).abs() < 1e-5 && (a.log_sum - b.log_sum).abs() < 1e-6);
    }
}
