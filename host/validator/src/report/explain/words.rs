//! The chain in words: every number was kept at settlement, nothing is computed that decides anything.

use std::fmt::Write as _;

use nineteen_domain::ledger::{Judgement, PeriodRow, QualitySample, WindowKind};
use nineteen_domain::policy::Scoring;
use nineteen_mechanism::{Standing, WindowUsed};

use super::{Gain, Known};

/// Lines that are listed of periods and of windows.
const SHOWN: usize = 6;

pub(super) fn words(
    known: &Known<'_>,
    rows: &[PeriodRow],
    samples: &[QualitySample],
    faults: &[String],
    gains: &[Gain],
    (weight, weight_u16): (f64, u16),
) -> Vec<String> {
    let (s, unit) = (known.standing, known.unit);
    let mut out = announced(s, rows, faults, unit);
    if let Some(newest) = rows.first() {
        out.extend(period(newest, unit));
    }
    out.extend(credit(known));
    out.extend(reliability(s));
    out.push(quality(s));
    out.extend(why_low(samples));
    out.extend(honesty(s, samples));
    out.push(speed(s, unit));
    out.push(format!(
        "effective volume E = Q · π · f · P · capacity · L = {:.4} · {:.4} · {:.4} · {:.4} · {} · {:.4} = {:.2}",
        s.quality.quality,
        s.honesty,
        s.speed.factor,
        s.reliability.normalised_period_score,
        s.capacity,
        s.credit.factor,
        s.effective_volume
    ));
    out.push(format!(
        "{:.2} % of all effective volume of the task; share {:.2} % under {}'s sharpness",
        s.volume_share * 100.0,
        s.share * 100.0,
        known.settled.settlement.policy
    ));
    out.push(format!(
        "this task weighs {:.2}: it brings {:.4}; over all tasks the weight is {weight:.4}, {weight_u16} of 65535 on the chain",
        s.task_weight,
        s.task_weight * s.share
    ));
    out.push(advice(gains));
    out
}

/// What the sequential test says of its answers.
fn honesty(s: &Standing, samples: &[QualitySample]) -> Option<String> {
    let stream = crate::streams::newest(samples)?;
    let mut line = format!(
        "honesty π = {:.4}: {} exchanges tested, the evidence against it is e^{:.1}",
        s.honesty,
        stream.exchanges,
        nineteen_mechanism::honesty::evidence(stream)
    );
    if let Some(suspect) = nineteen_mechanism::honesty::worst(stream) {
        let _ = write!(line, ", the most for '{}'", suspect.name);
    }
    if let Some(of) = &stream.accused_of {
        let _ = write!(line, "; accused of '{of}'");
    }
    Some(line)
}

fn announced(s: &Standing, rows: &[PeriodRow], faults: &[String], unit: &str) -> Vec<String> {
    let mut out = Vec::new();
    match rows.first().and_then(|r| r.announced) {
        Some(announced) => out.push(format!(
            "announced {announced:.0} {unit} a period; {} after the task's cap, of which {:.0} credited",
            s.capacity,
            volume(s.capacity) * s.credit.factor
        )),
        None => {
            out.push(format!("announced nothing that counts ({}); credited 0 {unit}", faults.join(", ")));
        }
    }
    out
}

/// What the running numbers of one period come to (MECHANISM, step 5).
fn period(r: &PeriodRow, unit: &str) -> Vec<String> {
    let t = &r.tally;
    let score = r.score.map_or_else(|| "none".to_owned(), |s| format!("{s:.4}"));
    let u = (volume(r.capacity) - volume(t.consumed)).max(0.0) / volume(r.capacity.max(1));
    let total = volume(t.total().max(1));
    let (p4, p5) = (volume(t.rate_limited) / total, volume(t.failed) / total);
    vec![
        format!(
            "period {}: {} probes: {} answered, {} rate-limited, {} failed, {} ours; {} of {} {unit} delivered; period score {score}",
            r.period,
            t.total(),
            t.answered,
            t.rate_limited,
            t.failed,
            t.ours,
            t.consumed,
            r.capacity
        ),
        format!(
            "  (1 − {p4:.3} − {p5:.3}) · (1 − {p4:.3}·u) · (1 − {p5:.3}·u)², with u = {u:.3} of the announced volume left unqueried"
        ),
    ]
}

fn credit(known: &Known<'_>) -> Vec<String> {
    let s = known.standing;
    if !matches!(known.settled.policy.as_ref().map(|p| &p.scoring), Some(Scoring::Default(_))) {
        return vec!["capacity is believed as announced under this policy: L = 1".into()];
    }
    let c = &s.credit;
    let mut out = vec![format!(
        "windows: {:.2} of {:.2} (older ones weigh less) were sustained at the announced rate: L = {:.4}",
        c.sustained, c.tried, c.factor
    )];
    if c.shown < c.quantile {
        out.push(format!(
            "  capped at {:.4}: what its best window delivered, or what the windows of one kind say alone",
            c.shown
        ));
    }
    out.extend(c.windows.iter().take(SHOWN).map(window));
    if c.windows.len() > SHOWN {
        out.push(format!("  and {} older", c.windows.len() - SHOWN));
    }
    if let Some(best) = head_room(s) {
        out.push(best);
    }
    out
}

fn window(w: &WindowUsed) -> String {
    let share = w.result.delivered_share().unwrap_or(0.0) * 100.0;
    let by = match w.result.kind {
        WindowKind::Beacon => "the beacon",
        WindowKind::Secret => "the validator",
    };
    let faster = if w.result.rate > 1.0 {
        format!(" at {:.2} × the announced rate", w.result.rate)
    } else {
        String::new()
    };
    format!(
        "  period {}, started by {by}{faster}: {share:.0} % delivered in time; counts {:.3} of {:.3}",
        w.period, w.sustained, w.weight
    )
}

/// A window faster than announced that was sustained: the miner could announce more.
fn head_room(s: &Standing) -> Option<String> {
    let shown = s.credit.windows.iter().find(|w| w.result.rate > 1.0 && w.sustained > 0.0)?;
    Some(format!(
        "  it sustained {:.2} × what it announced in period {}: {:.0} a period would have been credited too",
        shown.result.rate, shown.period, shown.capacity
    ))
}

fn reliability(s: &Standing) -> Vec<String> {
    let p = &s.reliability;
    let by = if p.expected_asked > 0.0 {
        format!(
            "{:.4} for a record of {:.0} asked against {:.0} expected in one period",
            p.confidence, p.asked, p.expected_asked
        )
    } else {
        let who = if p.confidence < 1.0 { "a newcomer" } else { "a full record" };
        format!("{} for {who}", p.confidence)
    };
    let mut out = vec![format!(
        "reliability P = {:.4}: mean of {} period scores {:.4}, newest weighing most, × {by}",
        p.normalised_period_score, p.rows_used, p.mean
    )];
    out.extend(p.rows.iter().take(SHOWN).map(|r| {
        format!(
            "  period {}: score {:.4}, {:.1} periods old, {:.1} % of the mean",
            r.period,
            r.score,
            r.age,
            r.weight * 100.0
        )
    }));
    out
}

fn quality(s: &Standing) -> String {
    let q = &s.quality;
    format!(
        "quality Q = {:.4}: {} samples of this task{} (weight {:.1}), plain mean {:.4}; by the policy's rule {:.4}{}",
        q.quality,
        q.own_samples,
        if q.borrowed_samples > 0 {
            format!(" and {} of its other tasks", q.borrowed_samples)
        } else {
            String::new()
        },
        q.weight,
        q.plain_mean,
        q.mean,
        if q.squared { ", squared because it is low" } else { "" }
    )
}

fn speed(s: &Standing, unit: &str) -> String {
    let v = &s.speed;
    let Some(metric) = v.metric else {
        return format!("speed: no verified sample, factor {:.4}", v.factor);
    };
    match (v.rank, v.ratio) {
        (Some(rank), _) => format!(
            "speed {metric:.2} verified {unit} a second (quality included): place {} of {}, factor {:.4}",
            rank + 1.0,
            v.ranked,
            v.factor
        ),
        (None, Some(ratio)) => {
            let first = match (v.first_unit_us, v.first_unit_ratio) {
                (Some(us), Some(ratio)) => {
                    format!(", first unit after {:.0} ms, {ratio:.2} × as fast as it", us / 1e3)
                }
                _ => String::new(),
            };
            format!(
                "speed {metric:.2} verified {unit} a second, {ratio:.2} × the task's reference{first}: factor {:.4}",
                v.factor
            )
        }
        (None, None) => {
            format!(
                "speed {metric:.2} verified {unit} a second; the task has no reference: factor {:.4}",
                v.factor
            )
        }
    }
}

fn why_low(samples: &[QualitySample]) -> Vec<String> {
    let mut out = Vec::new();
    let violations: Vec<&str> = samples
        .iter()
        .filter_map(|s| if let Judgement::Violation(why) = &s.judgement { Some(why.as_str()) } else { None })
        .collect();
    if let Some(first) = violations.first() {
        out.push(format!("  {} answers broke a rule, the last: {first}", violations.len()));
    }
    let scored: Vec<&QualitySample> = samples.iter().filter(|s| s.judgement == Judgement::Scored).collect();
    if let Some(worst) =
        scored.iter().min_by(|a, b| a.quality.total_cmp(&b.quality)).filter(|w| w.quality < 0.999)
    {
        let reasons: Vec<String> =
            worst.reasons.iter().take(6).map(|(code, value)| format!("{code} {value:.5}")).collect();
        out.push(format!(
            "  worst sample {}/{}: quality {:.4} ({})",
            worst.probe.period,
            worst.probe.slot,
            worst.quality,
            reasons.join(", ")
        ));
    }
    let ours = samples.iter().filter(|s| matches!(s.judgement, Judgement::Inconclusive(_))).count();
    if ours > 0 {
        out.push(format!("  {ours} answers could not be judged, a fault of ours: they count for nothing"));
    }
    out
}

/// What would raise it most.
fn advice(gains: &[Gain]) -> String {
    let Some(first) = gains.first() else {
        return "nothing holds it back but its size: every factor is at its best or at the reference".into();
    };
    let what = match first.factor.as_str() {
        "quality" => "answer with the model that the task names, at its full precision",
        "reliability" => "miss fewer requests: answer, or announce less",
        "record" => "stay: a longer record alone raises this",
        "speed" => "answer at the task's reference speed",
        "capacity" => "sustain the windows, or announce what can be sustained",
        _ => "answer honestly: the test forgets nothing quickly",
    };
    match first.times {
        Some(times) => format!("what would raise it most: {}, up to {times:.2} × ({what})", first.factor),
        None => format!("what holds it at nothing: {} ({what})", first.factor),
    }
}

/// A volume or a count as a double.
#[expect(clippy::cast_precision_loss, reason = "volumes of a period are far below 2^53")]
const fn volume(n: u64) -> f64 {
    n as f64
}
