//! Which signed nonces were seen, so that no request is served twice.
//!
//! Not a clock: the caller says what time it is. The one idea: **forgetting never re-opens a door.** What
//! is forgotten, because it is old or because there is too much of it, raises a floor under the signer's
//! nonces, and nothing below the floor is fresh again, also when the clock is set back.

use std::collections::{BTreeSet, HashMap};

use nineteen_domain::Hotkey;

/// Why a nonce is not new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotNew {
    /// Seen before.
    Replayed,
    /// Below what this store remembers.
    Forgotten,
    /// Too many signers at once; none of the present ones has gone quiet.
    Full,
}

#[derive(Debug, Default)]
struct Signer {
    seen: BTreeSet<u128>,
    floor: u128,
}

/// Nonces by signer, at most `signers × per_signer` of them.
#[derive(Debug)]
pub(crate) struct ReplayStore {
    signers: HashMap<Hotkey, Signer>,
    retention_ns: u128,
    max_signers: usize,
    per_signer: usize,
    /// The latest time that was ever claimed.
    latest_ns: u128,
}

impl ReplayStore {
    pub(crate) fn new(retention_ns: u128, max_signers: usize, per_signer: usize) -> Self {
        Self {
            signers: HashMap::new(),
            retention_ns,
            max_signers,
            per_signer: per_signer.max(1),
            latest_ns: 0,
        }
    }

    /// Records a nonce whose signature was verified, or says why it is not new.
    pub(crate) fn record(&mut self, signer: Hotkey, nonce: u128, now_ns: u128) -> Result<(), NotNew> {
        self.latest_ns = self.latest_ns.max(now_ns);
        let horizon = self.latest_ns.saturating_sub(self.retention_ns);
        if nonce < horizon {
            return Err(NotNew::Forgotten);
        }
        if !self.signers.contains_key(&signer) && self.signers.len() >= self.max_signers {
            // A signer whose newest nonce is past the horizon is covered by the horizon itself.
            self.signers.retain(|_, s| s.floor.max(s.seen.last().copied().unwrap_or(0)) >= horizon);
            if self.signers.len() >= self.max_signers {
                return Err(NotNew::Full);
            }
        }
        let entry = self.signers.entry(signer).or_default();
        if nonce < entry.floor {
            return Err(NotNew::Forgotten);
        }
        entry.seen = entry.seen.split_off(&horizon);
        if !entry.seen.insert(nonce) {
            return Err(NotNew::Replayed);
        }
        while entry.seen.len() > self.per_signer {
            if let Some(oldest) = entry.seen.pop_first() {
                entry.floor = oldest.saturating_add(1);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.signers.values().map(|s| s.seen.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u128 = 1_000_000_000;

    fn key(n: u8) -> Hotkey {
        Hotkey::from_bytes([n; 32])
    }

    #[test]
    fn a_nonce_is_new_once_per_signer() {
        let mut store = ReplayStore::new(24 * S, 8, 8);
        assert_eq!(store.record(key(1), 100 * S, 100 * S), Ok(()));
        assert_eq!(store.record(key(1), 100 * S, 101 * S), Err(NotNew::Replayed));
        assert_eq!(store.record(key(2), 100 * S, 101 * S), Ok(()));
    }

    #[test]
    fn a_clock_set_back_does_not_make_an_old_request_new() {
        let mut store = ReplayStore::new(24 * S, 8, 8);
        store.record(key(1), 100 * S, 100 * S).unwrap();
        store.record(key(1), 200 * S, 200 * S).unwrap();
        assert_eq!(store.record(key(1), 100 * S, 100 * S), Err(NotNew::Forgotten));
    }

    #[test]
    fn a_flood_is_bounded_and_still_no_replay_passes() {
        let mut store = ReplayStore::new(24 * S, 2, 4);
        for n in 0..1000 {
            store.record(key(1), 100 * S + n, 100 * S).unwrap();
        }
        assert_eq!(store.len(), 4);
        for n in 0..996 {
            assert_eq!(store.record(key(1), 100 * S + n, 100 * S), Err(NotNew::Forgotten), "{n}");
        }
        for n in 996..1000 {
            assert_eq!(store.record(key(1), 100 * S + n, 100 * S), Err(NotNew::Replayed), "{n}");
        }
        store.record(key(2), 100 * S, 100 * S).unwrap();
        assert_eq!(store.record(key(3), 100 * S, 100 * S), Err(NotNew::Full));
        assert_eq!(store.record(key(3), 200 * S, 200 * S), Ok(()), "quiet signers make room");
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_order_nothing_is_new_twice(
            events in proptest::collection::vec((0_u8..3, 0_u128..40, 0_u128..60), 1..200),
        ) {
            let mut store = ReplayStore::new(10, 2, 5);
            let mut accepted = std::collections::HashSet::new();
            for (who, nonce, now) in events {
                if store.record(key(who), nonce, now).is_ok() {
                    assert!(accepted.insert((who, nonce)), "{who} {nonce} twice");
                }
                assert!(store.len() <= 2 * 5);
            }
        }
    }
}
