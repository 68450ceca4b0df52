//! The promise of the sequential test, by simulation: honest miners are accused no more often than α allows, also when
//! their tokens depend on each other, and cheats are found in the numbers of tokens that the book says.

#![allow(
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a test that fails is meant to panic"
)]

use nineteen_domain::ledger::Stream;
use nineteen_domain::policy::HonestyRules;
use nineteen_mechanism::honesty::{evidence, observe};

/// Uniform draws that repeat (SplitMix64).
struct Draws(u64);

impl Draws {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn bin(&mut self, q: &[f64]) -> usize {
        let at = self.unit();
        let mut reached = 0.0;
        q.iter()
            .position(|p| {
                reached += p;
                at < reached
            })
            .unwrap_or(q.len() - 1)
    }
}

/// Two honest conditions, bins of a token's margin.
const HONEST: [[f64; 4]; 2] = [[0.97, 0.02, 0.008, 0.002], [0.95, 0.035, 0.012, 0.003]];
/// Two suspects.
const SUSPECTS: [(&str, [f64; 4]); 2] =
    [("int8", [0.80, 0.10, 0.06, 0.04]), ("greedy", [0.60, 0.15, 0.15, 0.10])];
const TOKENS: usize = 48;

/// One exchange's `Λ`: tokens that repeat the one before with this probability, divided by the design effect.
fn exchange(draws: &mut Draws, truth: &[f64], sticky: f64, design: f64) -> Vec<(String, f64)> {
    let dominating = |bin: usize| HONEST.iter().map(|q| q[bin]).fold(0.0, f64::max);
    let mut sums = [0.0; SUSPECTS.len()];
    let mut bin = draws.bin(truth);
    for _ in 0..TOKENS {
        if draws.unit() >= sticky {
            bin = draws.bin(truth);
        }
        for (sum, (_, q)) in sums.iter_mut().zip(&SUSPECTS) {
            *sum += (q[bin] / dominating(bin)).ln() / design;
        }
    }
    SUSPECTS.iter().zip(sums).map(|((name, _), sum)| ((*name).to_owned(), sum)).collect()
}

/// Exchanges until an accusation, if there is one within `most`.
fn until_accused(
    draws: &mut Draws,
    rules: &HonestyRules,
    truth: &[f64],
    sticky: f64,
    most: u64,
) -> Option<u64> {
    let mut stream = Stream::default();
    (1..=most).find(|at| {
        observe(&mut stream, rules, &exchange(draws, truth, sticky, 2.5), *at);
        assert!(evidence(&stream).is_finite());
        stream.accused_us.is_some()
    })
}

#[test]
fn honest_miners_are_accused_no_more_often_than_alpha_allows() {
    let (streams, alpha) = (4_000, 0.02);
    let rules = HonestyRules { alpha, streams: 1, ..HonestyRules::default() };
    for (condition, truth) in HONEST.iter().enumerate() {
        for sticky in [0.0, 0.3] {
            let mut draws = Draws(19 + condition as u64);
            let accused = (0..streams)
                .filter(|_| until_accused(&mut draws, &rules, truth, sticky, 60).is_some())
                .count();
            let rate = accused as f64 / f64::from(streams);
            // Three standard deviations of a rate of exactly α.
            let bound = alpha + 3.0 * (alpha / f64::from(streams)).sqrt();
            eprintln!("condition {condition}, sticky {sticky}: {accused} of {streams} accused, α {alpha}");
            assert!(rate <= bound, "{accused} of {streams} honest streams accused");
        }
    }
}

#[test]
fn a_cheat_is_accused_soon_at_the_bound_of_a_whole_subnet() {
    let rules = HonestyRules::default();
    for (name, truth) in &SUSPECTS {
        let mut draws = Draws(7);
        let mut took: Vec<u64> = (0..200)
            .map(|_| until_accused(&mut draws, &rules, truth, 0.3, 200).unwrap_or(u64::MAX))
            .collect();
        took.sort_unstable();
        eprintln!("{name}: median {} exchanges of {TOKENS} tokens, at most {}", took[100], took[199]);
        assert!(took[100] <= 8 && took[199] <= 40, "{name}: {took:?}");
    }
}
