//! What a calibration is worth on answers that it was not made from.
//!
//! A stream is exchanges of one condition drawn with replacement, each a contiguous block of tokens, cut at the length
//! that is asked about. So a stream of 512 tokens knows no more than the pool it is drawn from; the pool's size is in the
//! result.

use std::collections::BTreeMap;

use nineteen_domain::calibration::Class;
use nineteen_domain::ledger::Stream;
use nineteen_domain::policy::HonestyRules;
use nineteen_domain::seed::{Draws, Seed};
use nineteen_domain::{Calibration, Digest};
use nineteen_mechanism::honesty;
use serde::Serialize;

use crate::setting::Observed;

/// Units at which separation is measured.
pub const LENGTHS: [usize; 4] = [16, 64, 256, 512];
/// Share of honest streams that may be accused where detection is measured.
pub const FALSE_ALARMS: f64 = 1e-3;
/// Streams a suspect.
const STREAMS: usize = 2_000;
/// Honest streams that the threshold is taken from.
const HONEST_STREAMS: usize = 10_000;
/// Exchanges of a stream that is watched for false alarms.
const WATCHED: usize = 60;
/// Exchanges after which nobody waits for a decision any longer.
const MOST_EXCHANGES: usize = 400;

/// Another rule that scores one exchange, to compare with; larger is better for the miner.
#[derive(Debug, Clone, Copy)]
pub struct Baseline {
    /// Its name in tables.
    pub name: &'static str,
    /// Score of an exchange, in [0, 1].
    pub score: fn(&Observed) -> f64,
}

/// Separation of one suspect from honest answers, at each of [`LENGTHS`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Separation {
    /// Area under the curve of detection over false alarms.
    pub auc: [f64; 4],
    /// Share of streams above the threshold that [`FALSE_ALARMS`] of the honest ones exceed.
    pub detected: [f64; 4],
}

/// One suspect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub suspect: String,
    /// Held-out exchanges of it.
    pub exchanges: usize,
    /// By this calibration.
    pub ours: Separation,
    /// By the rules that it is compared with.
    pub baselines: BTreeMap<String, Separation>,
    /// Median units until the sequential test accuses at α = 10⁻³, one stream; `None` for never within 400 exchanges.
    pub units_to_decision: Option<usize>,
}

/// One class of answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassReport {
    /// Honest held-out exchanges.
    pub honest_exchanges: usize,
    /// By suspect.
    pub rows: Vec<Row>,
    /// Of honest streams watched for 60 exchanges each, by condition: how many, and how many the sequential test accused
    /// at α = 10⁻³.
    pub watched: BTreeMap<String, (usize, usize)>,
    /// The largest mean of `e^Λ` over the held-out exchanges of an honest condition; at most 1 is what the bound rests on.
    pub worst_mean_e: f64,
}

impl ClassReport {
    /// Streams, accusations, and the 95 % interval of their rate (Wilson).
    #[must_use]
    pub fn false_alarms(&self) -> (usize, usize, (f64, f64)) {
        let (streams, accused) =
            self.watched.values().fold((0, 0), |(s, a), (streams, accused)| (s + streams, a + accused));
        let (n, z) = (streams.max(1) as f64, 1.96_f64);
        let p = accused as f64 / n;
        let middle = p + z * z / (2.0 * n);
        let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + z * z / n;
        (streams, accused, (((middle - half) / scale).max(0.0), (middle + half) / scale))
    }
}

/// An exchange with `Λ_k` after each unit.
struct Prefixed<'a> {
    of: &'a Observed,
    /// `[unit][suspect]`.
    sums: Vec<Vec<f64>>,
}

struct Pools<'a> {
    honest: BTreeMap<&'a str, Vec<Prefixed<'a>>>,
    suspects: BTreeMap<&'a str, Vec<Prefixed<'a>>>,
    names: Vec<&'a str>,
    baselines: &'a [Baseline],
}

/// Every class of the calibration on these exchanges. The same arguments give the same result.
#[must_use]
pub fn evaluate(
    calibration: &Calibration,
    held_out: &[Observed],
    baselines: &[Baseline],
) -> BTreeMap<String, ClassReport> {
    let classes = calibration.classes.iter();
    classes
        .filter_map(|(name, class)| {
            let of: Vec<&Observed> = held_out.iter().filter(|o| o.class == *name).collect();
            let pools = pools(class, &of, baselines);
            let any = !pools.honest.is_empty();
            any.then(|| (name.clone(), report(name, &pools)))
        })
        .collect()
}

fn pools<'a>(class: &'a Class, observed: &[&'a Observed], baselines: &'a [Baseline]) -> Pools<'a> {
    let names: Vec<&str> = class.suspects.keys().map(String::as_str).collect();
    let mut pools = Pools { honest: BTreeMap::new(), suspects: BTreeMap::new(), names, baselines };
    for of in observed.iter().filter(|o| !o.statistic.is_empty()) {
        let mut sum = vec![0.0; class.suspects.len()];
        let sums = of.statistic.iter().map(|x| {
            let bin = class.bin(*x);
            for (sum, suspect) in sum.iter_mut().zip(class.suspects.values()) {
                *sum += suspect.lambda.get(bin).copied().unwrap_or(0.0) / class.design_effect;
            }
            sum.clone()
        });
        let prefixed = Prefixed { of, sums: sums.collect() };
        let pool = if of.honest { &mut pools.honest } else { &mut pools.suspects };
        pool.entry(&of.condition).or_default().push(prefixed);
    }
    pools
}

fn report(name: &str, pools: &Pools<'_>) -> ClassReport {
    let mut draws = Draws::new(&Seed::from_bytes(*Digest::of(name.as_bytes()).as_bytes()));
    let honest: Vec<&Vec<Prefixed<'_>>> = pools.honest.values().collect();
    // Each honest stream is of one condition, all conditions alike.
    let honest_scores: Vec<Vec<Scores>> = LENGTHS
        .iter()
        .map(|length| {
            (0..HONEST_STREAMS)
                .filter_map(|n| {
                    Some(stream(honest.get(n % honest.len())?, pools.baselines, *length, &mut draws))
                })
                .collect()
        })
        .collect();
    let rows = pools.suspects.iter().map(|(suspect, pool)| {
        let scores: Vec<Vec<Scores>> = LENGTHS
            .iter()
            .map(|length| (0..STREAMS).map(|_| stream(pool, pools.baselines, *length, &mut draws)).collect())
            .collect();
        let by = |pick: &dyn Fn(&Scores) -> f64| separation(&scores, &honest_scores, pick);
        let with_text = pool.iter().any(|p| !p.of.claimed.is_empty());
        let baselines = pools
            .baselines
            .iter()
            .enumerate()
            .filter(|_| with_text)
            .map(|(n, b)| (b.name.to_owned(), by(&|s| s.baselines.get(n).copied().unwrap_or(0.0))))
            .collect();
        Row {
            suspect: (*suspect).to_owned(),
            exchanges: pool.len(),
            ours: by(&|s| s.ours),
            baselines,
            units_to_decision: units_to_decision(pools, pool, &mut draws),
        }
    });
    let rows = rows.collect();
    let each = HONEST_STREAMS.div_ceil(honest.len().max(1));
    let watched = pools.honest.iter().map(|(condition, pool)| {
        let accused = (0..each).filter(|_| accused_after(pools, pool, WATCHED, &mut draws).is_some()).count();
        ((*condition).to_owned(), (each, accused))
    });
    ClassReport {
        honest_exchanges: honest.iter().map(|p| p.len()).sum(),
        rows,
        watched: watched.collect(),
        worst_mean_e: worst_mean_e(pools),
    }
}

fn worst_mean_e(pools: &Pools<'_>) -> f64 {
    let mean = |pool: &[Prefixed<'_>], k: usize| {
        let e = |p: &Prefixed<'_>| p.sums.last().and_then(|s| s.get(k)).copied().unwrap_or(0.0).exp();
        pool.iter().map(e).sum::<f64>() / pool.len().max(1) as f64
    };
    let all = pools.honest.values().flat_map(|pool| (0..pools.names.len()).map(|k| mean(pool, k)));
    all.fold(0.0, f64::max)
}

struct Scores {
    /// Larger is more suspicious.
    ours: f64,
    baselines: Vec<f64>,
}

/// One stream of this many units.
fn stream(pool: &[Prefixed<'_>], rules: &[Baseline], length: usize, draws: &mut Draws) -> Scores {
    let (mut sums, mut left): (Vec<f64>, usize) = (Vec::new(), length);
    let (mut baselines, mut exchanges) = (vec![0.0; rules.len()], 0.0);
    while left > 0 {
        let Some(drawn) = draw(pool, draws) else { break };
        let n = left.min(drawn.sums.len());
        if let Some(at) = n.checked_sub(1).and_then(|t| drawn.sums.get(t)) {
            sums.resize(at.len(), 0.0);
            sums.iter_mut().zip(at).for_each(|(sum, x)| *sum += x);
        }
        if !drawn.of.claimed.is_empty() {
            let cut = first(drawn.of, n);
            baselines.iter_mut().zip(rules).for_each(|(sum, b)| *sum -= (b.score)(&cut));
            exchanges += 1.0;
        }
        left -= n;
    }
    let most = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let spread: f64 = sums.iter().map(|s| (s - most).exp()).sum();
    let ours = most + (spread / sums.len().max(1) as f64).ln();
    baselines.iter_mut().for_each(|sum| *sum /= f64::max(exchanges, 1.0));
    Scores { ours, baselines }
}

fn draw<'p, 'a>(pool: &'p [Prefixed<'a>], draws: &mut Draws) -> Option<&'p Prefixed<'a>> {
    let at = (draws.unit() * pool.len() as f64) as usize;
    pool.get(at.min(pool.len().checked_sub(1)?))
}

/// The first units of an exchange, for rules that score whole ones.
fn first(of: &Observed, n: usize) -> Observed {
    let cut = |list: &[f64]| list.get(..n.min(list.len())).unwrap_or_default().to_vec();
    Observed {
        class: String::new(),
        condition: String::new(),
        statistic: Vec::new(),
        rank: of.rank.get(..n.min(of.rank.len())).unwrap_or_default().to_vec(),
        logprob: cut(&of.logprob),
        claimed: cut(&of.claimed),
        same: of.same.get(..n.min(of.same.len())).unwrap_or_default().to_vec(),
        features: BTreeMap::new(),
        violation: None,
        ..*of
    }
}

fn separation(suspect: &[Vec<Scores>], honest: &[Vec<Scores>], pick: &dyn Fn(&Scores) -> f64) -> Separation {
    let mut out = Separation { auc: [0.0; 4], detected: [0.0; 4] };
    let slots = out.auc.iter_mut().zip(&mut out.detected);
    for ((auc, detected), (suspect, honest)) in slots.zip(suspect.iter().zip(honest)) {
        let suspect: Vec<f64> = suspect.iter().map(pick).collect();
        let mut honest: Vec<f64> = honest.iter().map(pick).collect();
        honest.sort_unstable_by(f64::total_cmp);
        let below = |x: f64| honest.partition_point(|h| *h < x);
        let upto = |x: f64| honest.partition_point(|h| *h <= x);
        let wins: f64 = suspect.iter().map(|x| (below(*x) + upto(*x)) as f64 / 2.0).sum();
        *auc = wins / (suspect.len() * honest.len()).max(1) as f64;
        // At most this many of the honest lie above.
        let spare = (honest.len() as f64 * FALSE_ALARMS) as usize;
        let threshold = honest.iter().rev().nth(spare).copied().unwrap_or(f64::INFINITY);
        *detected = suspect.iter().filter(|x| **x > threshold).count() as f64 / suspect.len().max(1) as f64;
    }
    out
}

/// Units until the sequential test accuses, within this many exchanges.
fn accused_after(pools: &Pools<'_>, pool: &[Prefixed<'_>], most: usize, draws: &mut Draws) -> Option<usize> {
    let rules = HonestyRules { alpha: FALSE_ALARMS, streams: 1, ..HonestyRules::default() };
    let mut stream = Stream::default();
    let mut units = 0;
    for _ in 0..most {
        let drawn = draw(pool, draws)?;
        let said = drawn.sums.last().into_iter().flatten();
        let said: Vec<(String, f64)> =
            pools.names.iter().zip(said).map(|(name, l)| ((*name).to_owned(), *l)).collect();
        units += drawn.sums.len();
        honesty::observe(&mut stream, &rules, &said, 0);
        if stream.accused_us.is_some() {
            return Some(units);
        }
    }
    None
}

fn units_to_decision(pools: &Pools<'_>, pool: &[Prefixed<'_>], draws: &mut Draws) -> Option<usize> {
    let mut took: Vec<Option<usize>> =
        (0..101).map(|_| accused_after(pools, pool, MOST_EXCHANGES, draws)).collect();
    took.sort_unstable_by_key(|t| t.unwrap_or(usize::MAX));
    took.get(took.len() / 2).copied().flatten()
}
