//! Secrets and what is derived from them.
//!
//! Invariant 8: every probe's seed is derived for itself with a keyed hash, so revealing one reveals
//! neither the master nor any other.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::{Digest, PeriodId, ProbeId};

/// 32 bytes that decide one synthetic request. Given to `synthesize`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed from bytes that were drawn or derived elsewhere.
    #[must_use]
    pub const fn from_bytes(raw: [u8; 32]) -> Self {
        Self(raw)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits: for telling a seed that is no secret any more.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// What commits to this seed without telling it: the SHA-256 of its bytes.
    #[must_use]
    pub fn commitment(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// The place of a probe in the order that this seed gives to all probes, lowest first: the first eight bytes of
    /// BLAKE3, keyed with the seed, of period (u64), slot (u32), the miner's 32 bytes and the task's name; numbers are
    /// little-endian.
    #[must_use]
    pub fn rank(&self, probe: &ProbeId) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&probe.period.0.to_le_bytes());
        hasher.update(&probe.slot.to_le_bytes());
        hasher.update(probe.miner.as_bytes());
        hasher.update(probe.task.as_str().as_bytes());
        let mut first = [0; 8];
        first.iter_mut().zip(hasher.finalize().as_bytes()).for_each(|(to, byte)| *to = *byte);
        u64::from_le_bytes(first)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(secret)")
    }
}

/// The validator's own secret, from which all its draws derive.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterSeed([u8; 32]);

impl MasterSeed {
    /// A secret that was drawn from the operating system's randomness or read from the store.
    #[must_use]
    pub const fn from_bytes(raw: [u8; 32]) -> Self {
        Self(raw)
    }

    /// The bytes, for the store alone.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The seed of one probe's request.
    #[must_use]
    pub fn probe(&self, probe: &ProbeId) -> Seed {
        self.derive("probe", &probe.key())
    }

    /// The seed by which answers of a period are chosen for the checkers: committed to at its start, told at its end.
    #[must_use]
    pub fn choice(&self, period: PeriodId) -> Seed {
        self.derive("choice", &period.0.to_string())
    }

    /// A seed for any other purpose; `label` separates purposes, `about` separates uses within one.
    #[must_use]
    pub fn derive(&self, label: &str, about: &str) -> Seed {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(label.len() as u64).to_le_bytes());
        hasher.update(label.as_bytes());
        hasher.update(about.as_bytes());
        Seed(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for MasterSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterSeed(secret)")
    }
}

/// Reproducible draws from a [`Seed`]: BLAKE3's extendable output, read in order.
#[derive(Debug)]
pub struct Draws(blake3::OutputReader);

impl Draws {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self(blake3::Hasher::new_keyed(seed.as_bytes()).finalize_xof())
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        let mut raw = [0; 8];
        self.0.fill(&mut raw);
        u64::from_le_bytes(raw)
    }

    /// Uniform in [0, 1), 53 bits.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let shown = format!("{:?} {:?}", MasterSeed::from_bytes([7; 32]), Seed::from_bytes([7; 32]));
        assert_eq!(shown, "MasterSeed(secret) Seed(secret)");
    }

    #[test]
    fn labels_cannot_run_into_each_other() {
        let m = MasterSeed::from_bytes([1; 32]);
        assert_ne!(m.derive("ab", "c"), m.derive("a", "bc"));
        assert_eq!(m.derive("ab", "c"), m.derive("ab", "c"));
    }

    #[test]
    fn draws_are_uniform_and_repeatable() {
        let seed = Seed::from_bytes([3; 32]);
        let (mut a, mut b) = (Draws::new(&seed), Draws::new(&seed));
        let mean = (0..4096)
            .map(|_| {
                let x = a.unit();
                assert_eq!(x.to_bits(), b.unit().to_bits());
                x
            })
            .sum::<f64>()
            / 4096.0;
        assert!((mean - 0.5).abs() < 0.03, "{mean}");
    }
}
