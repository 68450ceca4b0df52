//! From effective volume to a share of a task: the one step that looks at all miners at once.

use crate::settlement::Standing;
use crate::{unit, within};

/// Two shares of one miner, both in [0, 1]; over all miners each sums to 1, or is 0 when nobody earned
/// anything.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Share {
    /// `x = E/ΣE`.
    pub(crate) of_volume: f64,
    /// `S = x^k/Σx^k`.
    pub(crate) sharpened: f64,
}

/// The shares of effective volumes, each of which is finite and at least 0, in their order. Computed from
/// `E/max E`: the same numbers, and no power of a tiny share that would underflow to nothing for everybody.
pub(crate) fn shares(sharpness: f64, volumes: &[f64]) -> Vec<Share> {
    let top = volumes.iter().copied().fold(0.0, f64::max);
    if top <= 0.0 {
        return vec![Share::default(); volumes.len()];
    }
    let k = within(sharpness, 0.0, 1e3);
    let relative = |e: f64| e / top;
    // No share for nothing, also at k = 0.
    let sharp = |e: f64| if e > 0.0 { relative(e).powf(k) } else { 0.0 };
    let volume: f64 = volumes.iter().map(|e| relative(*e)).sum();
    let sharpened: f64 = volumes.iter().map(|e| sharp(*e)).sum();
    volumes
        .iter()
        .map(|e| Share { of_volume: unit(relative(*e) / volume), sharpened: unit(sharp(*e) / sharpened) })
        .collect()
}

/// Writes the shares into the standings of one task.
pub(crate) fn share(sharpness: f64, standings: &mut [Standing]) {
    let volumes: Vec<f64> = standings.iter().map(|s| s.effective_volume).collect();
    for (standing, share) in standings.iter_mut().zip(shares(sharpness, &volumes)) {
        standing.volume_share = share.of_volume;
        standing.share = share.sharpened;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_shares_hold_at_every_sharpness() {
        let volumes = [57_000.0, 63_136.485, 14_400.0];
        for (k, expected) in [(1.0, [0.423677, 0.469289, 0.107034]), (4.0, [0.398506, 0.599870, 0.001623])] {
            for (share, expected) in shares(k, &volumes).iter().zip(expected) {
                assert!((share.sharpened - expected).abs() < 1e-6, "{k}: {share:?} for {expected}");
            }
        }
        let default = shares(1.0, &[41_945.492, 31_084.110, 5_138.589]);
        for (share, expected) in default.iter().zip([0.536606, 0.397657, 0.065738]) {
            assert!((share.sharpened - expected).abs() < 1e-6 && share.sharpened == share.of_volume);
        }
    }

    #[test]
    fn no_volume_is_no_share_and_a_tiny_one_does_not_underflow() {
        assert_eq!(shares(4.0, &[0.0, 0.0]), [Share::default(); 2]);
        assert_eq!(shares(4.0, &[]), []);
        assert_eq!(shares(4.0, &[1e-300])[0].sharpened, 1.0);
        let flat: Vec<f64> = shares(0.0, &[1.0, 0.0, 3.0]).iter().map(|s| s.sharpened).collect();
        assert_eq!(flat, [0.5, 0.0, 0.5]);
    }
}
