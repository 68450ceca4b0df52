//! What Subnet 19 did in August 2025, and plain comparison, on the same numbers: for comparison only.

use nineteen_calibrate::Observed;
use nineteen_calibrate::evaluate::Baseline;

/// All of them.
pub(crate) const BASELINES: [Baseline; 2] = [
    Baseline { name: "sn19 (ranks, 5 positions)", score: subnet_19 },
    Baseline { name: "exact match", score: exact },
];

/// Ranks below a bound that grows with the temperature, at most five failures; then the mean distance of probabilities at
/// the first, the last and three more positions, 1 up to 0.125, falling to 0.5 at 0.25, else 0.
fn subnet_19(o: &Observed) -> f64 {
    let t = o.temperature;
    let most = if t <= 0.5 { 10.0 } else { (10.0 + (t - 0.5) * 3.0 * 40.0).floor() };
    if o.rank.iter().filter(|r| f64::from(**r) >= most).count() > 5 {
        return 0.0;
    }
    let n = o.logprob.len().min(o.claimed.len());
    if n == 0 {
        return 0.0;
    }
    // Three others at places that the exchange's number fixes: this is no game against a miner.
    let mut places = vec![0, n - 1];
    places.extend([7, 13, 29].map(|step| (o.exchange as usize * step + step) % n));
    let at = |list: &[f64], i: usize| list.get(i).copied().unwrap_or(f64::NEG_INFINITY).exp();
    let apart = |i: &usize| (at(&o.logprob, *i) - at(&o.claimed, *i)).abs().min(1.0);
    let mean = places.iter().map(apart).sum::<f64>() / places.len() as f64;
    match mean {
        d if d <= 0.125 => 1.0,
        d if d <= 0.25 => 1.0 - 0.5 * (d - 0.125) / 0.125,
        _ => 0.0,
    }
}

/// The share of tokens that the reference itself draws.
fn exact(o: &Observed) -> f64 {
    let same = o.same.iter().filter(|s| **s).count();
    same as f64 / o.same.len().max(1) as f64
}

/// Holds the rule against the vectors of the procedure's description: a comparison with a wrong rule would be worth nothing.
pub(crate) fn check() -> Result<(), String> {
    let observed = |rank: u32, apart: f64| Observed {
        class: "seeded".into(),
        condition: "x".into(),
        honest: true,
        exchange: 0,
        statistic: vec![0.0; 20],
        rank: vec![rank; 20],
        logprob: vec![0.5_f64.ln(); 20],
        claimed: vec![(0.5 - apart).ln(); 20],
        same: vec![true; 20],
        temperature: 0.8,
        features: std::collections::BTreeMap::new(),
        violation: None,
    };
    for (rank, distance, score) in [
        (0, 0.10, 1.0),
        (0, 0.15, 0.9),
        (0, 0.20, 0.7),
        (0, 0.25, 0.5),
        (0, 0.26, 0.0),
        (45, 0.0, 1.0),
        (46, 0.0, 0.0),
    ] {
        let got = subnet_19(&observed(rank, distance));
        if (got - score).abs() > 1e-9 {
            return Err(format!("rank {rank}, distance {distance}: {got} instead of {score}"));
        }
    }
    Ok(())
}
