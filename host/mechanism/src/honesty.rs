//! `π`: does a miner serve what it claims to? A sequential test that may be looked at after every exchange.
//!
//! An exchange says of every named suspect `k` (the calibration's: int8 weights, another sampler, …) how much more
//! probable it is under `k` than under honesty: `Λ_k = ln q_k/q_0`. `q_0` dominates every honest condition of the
//! calibration, so `e^Λ_k` is an *e-value*: an honest miner's has a mean of at most 1 whatever came before. A product of
//! such values is a bet against honesty at fair odds, and by Ville's inequality an honest miner's wealth ever exceeds
//! `1/α` with probability `α` at most, however long and however often it is looked at.
//!
//! Forgetting old exchanges would void that. A miner that turns bad after a good month is caught all the same: the bet
//! is spread over all times at which it might start, `w_s = 1/(s(s + 1))`, which sum to 1 (Shin, Ramdas, Rinaldo,
//! "E-detectors", 2023, has the idea). One half is bet on one suspect from its start to the end, in equal parts of
//! 1/16 on each name, the other half on suspects that take turns, exchange by exchange; both are wealths that honest
//! miners cannot grow, so their mean is one.

use nineteen_domain::ledger::{Stream, Suspect};
use nineteen_domain::policy::HonestyRules;

use crate::{float, within};

/// The most suspects of a stream that have a name; later ones are not bet on.
pub const MOST_SUSPECTS: usize = 16;
/// The most that one exchange may say, in nats: beyond it nothing is gained and sums might overflow.
const MOST: f64 = 600.0;

/// Takes the next exchange into a stream: `Λ` by suspect, in nats; what is not named says nothing (0). NaN counts as 0.
/// `at_us` is when it was judged, microseconds of the Unix epoch.
pub fn observe(stream: &mut Stream, rules: &HonestyRules, exchange: &[(String, f64)], at_us: u64) {
    let said = |name: &str| {
        let of = exchange.iter().filter(|(n, _)| n == name).map(|(_, l)| *l).next_back();
        of.filter(|l| !l.is_nan()).map_or(0.0, |l| l.clamp(-MOST, MOST))
    };
    let before = stream.exchanges;
    if before == 0 {
        stream.mixed = f64::NEG_INFINITY;
    }
    for (name, _) in exchange {
        if stream.suspects.len() < MOST_SUSPECTS && stream.suspects.iter().all(|s| s.name != *name) {
            // As if it had been named from the first exchange on, and every one of them had said nothing.
            stream.suspects.push(Suspect { name: name.clone(), wealth: (1.0 - unspent(before)).ln() });
        }
    }
    stream.exchanges = before.saturating_add(1);
    let start = unspent(before) - unspent(stream.exchanges);
    let step = |wealth: f64, lambda: f64| lambda + ln_sum(wealth, start.ln());
    for suspect in &mut stream.suspects {
        suspect.wealth = step(suspect.wealth, said(&suspect.name));
    }
    let named: Vec<f64> = stream.suspects.iter().map(|s| said(&s.name)).collect();
    stream.mixed = step(stream.mixed, ln_mean_over_all(&named));
    if evidence(stream) >= threshold(rules) {
        stream.accused_us = Some(at_us);
        stream.accused_of = worst(stream).map(|s| s.name.clone());
    }
}

/// `ln` of the wealth of a bet against the miner's honesty; 0 before the first exchange, and as a rule below 0 for honest
/// ones. More than [`threshold`] is an accusation.
#[must_use]
pub fn evidence(stream: &Stream) -> f64 {
    if stream.exchanges == 0 {
        return 0.0;
    }
    let rest = unspent(stream.exchanges).ln();
    let on_one: Vec<f64> = stream.suspects.iter().map(|s| ln_sum(s.wealth, rest)).collect();
    ln_sum(ln_mean_over_all(&on_one), ln_sum(stream.mixed, rest)) - std::f64::consts::LN_2
}

/// `ln(streams/α)`: what evidence has to exceed.
#[must_use]
pub fn threshold(rules: &HonestyRules) -> f64 {
    (f64::from(rules.streams.max(1)) / within(rules.alpha, 1e-300, 1.0)).ln()
}

/// The suspect that most was won by betting on.
#[must_use]
pub fn worst(stream: &Stream) -> Option<&Suspect> {
    stream.suspects.iter().max_by(|a, b| a.wealth.total_cmp(&b.wealth))
}

/// `π`, in [0, 1]: 0 while the sentence of an accusation lasts (`since_accused` in periods; `None` without one), else the
/// posterior that the miner is honest, `(1 − ρ)/(1 − ρ + ρ·wealth)`.
#[must_use]
pub fn honesty(stream: &Stream, rules: &HonestyRules, since_accused: Option<f64>) -> f64 {
    if since_accused.is_some_and(|periods| periods < within(rules.sentence, 0.0, f64::MAX)) {
        return 0.0;
    }
    let prior = within(rules.prior, 0.0, 1.0);
    if prior >= 1.0 {
        return 0.0;
    }
    let odds = (prior / (1.0 - prior)).ln() + evidence(stream);
    crate::unit(1.0 / (1.0 + odds.exp()))
}

/// What is not yet bet on any start after `n` exchanges: `1/(n + 1)`.
fn unspent(n: u64) -> f64 {
    1.0 / (float(n) + 1.0)
}

/// `ln(e^a + e^b)`.
fn ln_sum(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// `ln` of the mean over [`MOST_SUSPECTS`] bets, of which those that have no name stay 1.
fn ln_mean_over_all(named: &[f64]) -> f64 {
    let unnamed = float((MOST_SUSPECTS - named.len().min(MOST_SUSPECTS)) as u64);
    let sum = named.iter().fold(unnamed.ln(), |sum, l| ln_sum(sum, *l));
    sum - float(MOST_SUSPECTS as u64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: HonestyRules = HonestyRules { alpha: 1e-3, streams: 1, prior: 0.02, sentence: 24.0 };

    fn after<'a>(exchanges: impl IntoIterator<Item = &'a [(&'a str, f64)]>) -> Stream {
        let mut stream = Stream::default();
        for (at, said) in exchanges.into_iter().enumerate() {
            let said: Vec<(String, f64)> = said.iter().map(|(n, l)| ((*n).to_owned(), *l)).collect();
            observe(&mut stream, &RULES, &said, at as u64);
        }
        stream
    }

    #[test]
    fn nothing_said_is_nothing_known() {
        assert!(evidence(&Stream::default()).abs() < 1e-12);
        let quiet = after([&[][..]; 50]);
        assert!(evidence(&quiet).abs() < 1e-9, "{}", evidence(&quiet));
        let named_late = after([&[][..], &[], &[("int8", 0.0)], &[("int4", 0.0)]]);
        assert!(evidence(&named_late).abs() < 1e-9, "{named_late:?}");
        assert!((honesty(&quiet, &RULES, None) - 0.98).abs() < 1e-9);
    }

    #[test]
    fn a_suspect_is_named_and_accused_and_the_sentence_ends() {
        let caught = after([&[("int8", 4.0), ("greedy", -2.0)][..]; 4]);
        assert!(evidence(&caught) > threshold(&RULES));
        assert_eq!(caught.accused_of.as_deref(), Some("int8"));
        assert_eq!(honesty(&caught, &RULES, Some(23.9)), 0.0);
        assert!(honesty(&caught, &RULES, Some(24.0)) < 0.01, "the evidence stays");
    }

    #[test]
    fn a_good_month_is_no_cover() {
        let mut stream = after([&[("int8", -1.0)][..]; 700]);
        assert!(evidence(&stream) < 0.0);
        let bad = [("int8".to_owned(), 4.0)];
        let more = (1..).find(|at| {
            observe(&mut stream, &RULES, &bad, *at);
            stream.accused_us.is_some()
        });
        assert!(more.is_some_and(|n| n <= 6), "{more:?}");
    }

    #[test]
    fn who_takes_turns_between_suspects_is_caught_as_well() {
        let turns: Vec<&[(&str, f64)]> =
            (0..40)
                .map(|n| {
                    if n % 2 == 0 { &[("a", 6.0), ("b", -20.0)][..] } else { &[("a", -20.0), ("b", 6.0)][..] }
                })
                .collect();
        let stream = after(turns);
        assert!(worst(&stream).is_some_and(|s| s.wealth < 10.0), "neither alone explains it: {stream:?}");
        assert!(stream.accused_us.is_some(), "{}", evidence(&stream));
    }

    #[test]
    fn hostile_numbers_stay_finite() {
        let wild: &[(&str, f64)] = &[("a", f64::INFINITY), ("b", f64::NAN), ("c", f64::NEG_INFINITY)];
        let stream = after([wild; 5_000]);
        assert!(evidence(&stream).is_finite() && (0.0..=1.0).contains(&honesty(&stream, &RULES, None)));
        let many: Vec<(String, f64)> = (0..100).map(|n| (format!("s{n}"), 1.0)).collect();
        let mut stream = Stream::default();
        observe(&mut stream, &RULES, &many, 1);
        assert_eq!(stream.suspects.len(), MOST_SUSPECTS);
    }
}
