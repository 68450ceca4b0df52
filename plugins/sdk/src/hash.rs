//! Fingerprints: short names of long things, for comparing answers between miners and over time.
//!
//! FNV-1a with 128 bits. Not cryptographic, and it need not be: two miners that go to the trouble of making
//! their answers collide only make themselves look like copies.

/// An FNV-1a hash in the making.
#[derive(Debug, Clone, Copy)]
pub struct Fingerprint(u128);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fingerprint {
    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 ^= u128::from(*byte);
            self.0 = self.0.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, n: u64) -> Self {
        self.bytes(&n.to_le_bytes())
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn finish(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// 32 bytes, to seed draws with.
    #[must_use]
    pub fn seed(self) -> [u8; 32] {
        let mut seed = [0; 32];
        let halves = self.finish().into_iter().chain(self.number(1).finish());
        seed.iter_mut().zip(halves).for_each(|(s, h)| *s = h);
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fnv_1a_as_published() {
        // Test vectors of the FNV reference: the empty string and "a".
        assert_eq!(Fingerprint::default().finish(), 0x6c62272e07bb014262b821756295c58d_u128.to_be_bytes());
        let a = Fingerprint::default().bytes(b"a").finish();
        assert_eq!(a, 0xd228cb696f1a8caf78912b704e4a8964_u128.to_be_bytes());
    }

    #[test]
    fn different_things_have_different_names() {
        let name = |n: u64| Fingerprint::default().number(n).finish();
        assert_eq!(name(1), name(1));
        assert_ne!(name(1), name(256));
    }
}
