//! Every component of the corpus, cut short and with flipped bits: whatever becomes of it, the host goes on.
//! The seed is fixed, so a failure is there again tomorrow.

use bytes::Bytes;
use nineteen_sandbox::LoadFault;

use crate::common::{Guest, House, manifest};
use crate::corpus::{Case, all, small};

/// Mutants of one component of the table.
const EACH: usize = 4;

/// Draws below `n`.
pub(crate) struct Draws(blake3::OutputReader);

impl Draws {
    pub(crate) fn new(seed: &[u8]) -> Self {
        Self(blake3::Hasher::new().update(seed).finalize_xof())
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        let mut word = [0; 8];
        self.0.fill(&mut word);
        (u64::from_le_bytes(word) % n.max(1) as u64) as usize
    }
}

#[tokio::test]
async fn a_file_cut_anywhere_is_refused() {
    let house = House::new();
    let whole = Guest::default().build();
    for keep in (0..whole.len()).step_by(97).chain([4, 8, whole.len() - 1]) {
        let refused = house.try_load(whole.slice(..keep), &manifest()).await.unwrap_err();
        let fault = refused.fault().unwrap();
        // A cut at a section's end leaves a smaller component, which then has no task.
        assert!(
            matches!(fault, LoadFault::Malformed(_) | LoadFault::NotWasm | LoadFault::NoTask),
            "{keep}: {refused}"
        );
    }
    house.still_serves().await;
}

#[tokio::test]
async fn a_flipped_byte_never_panics() {
    let house = House::new();
    let whole = Guest::default().build();
    for at in (8..whole.len()).step_by(211) {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 0x41;
        // Some flips change a name or a constant and still load.
        let _ = house.try_load(flipped.into(), &manifest()).await;
    }
    house.still_serves().await;
}

#[tokio::test]
async fn every_hostile_component_cut_short_is_refused() {
    let house = House::new();
    for Case { name, bytes, manifest, .. } in all() {
        let mut draws = Draws::new(name.as_bytes());
        for _ in 0..EACH {
            let keep = draws.below(bytes.len());
            let cut = house.try_load(bytes.slice(..keep), &manifest).await;
            assert!(cut.is_err(), "{name}, cut to {keep} of {}", bytes.len());
        }
    }
    house.still_serves().await;
}

#[tokio::test]
async fn every_hostile_component_with_flipped_bits_is_survived() {
    let house = House::new();
    let mut loaded = 0;
    for Case { name, bytes, .. } in all() {
        // The large ones take long to compile and say nothing new.
        if bytes.is_empty() || bytes.len() > 20_000 {
            continue;
        }
        let mut draws = Draws::new(name.as_bytes());
        for _ in 0..EACH {
            let mut flipped = bytes.to_vec();
            for _ in 0..=draws.below(3) {
                let at = draws.below(flipped.len());
                flipped[at] ^= 1 << draws.below(8);
            }
            let mut manifest = small();
            manifest.budget.fuel = 500_000;
            match house.try_load(Bytes::from(flipped), &manifest).await {
                Ok(plugin) => {
                    loaded += 1;
                    let (request, exchange) = (crate::common::request(), crate::common::exchange());
                    let checker = std::sync::Arc::new(crate::common::Echo::default());
                    let _ = plugin.judge(request, exchange, checker).await;
                }
                Err(refused) => {
                    assert!(!refused.code().is_empty(), "{name}: {refused}");
                    assert_eq!(refused.to_string().lines().count(), 1, "{name}: {refused}");
                }
            }
        }
    }
    assert!(loaded > 0, "some flips change a constant and still load");
    house.still_serves().await;
}
