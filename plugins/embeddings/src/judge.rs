//! Whether vectors are what the model gives for these texts.
//!
//! First what the bytes alone contradict: count, order, length, numbers, norm. Then rows are recomputed and
//! compared: relative error `|e - r| / |r|` against the reference `r`.
//!
//! Which rows, where not all are recomputed? A plugin has no randomness of its own, and a choice that the
//! reply's bytes alone decide could be tried out by the miner before it answers. The time at which the reply
//! ended, in microseconds by the validator's clock, is in the exchange, so a replay of the judgement chooses
//! the same rows; and the miner cannot know it beforehand. It is hashed together with the reply.

use nineteen_sdk::checks::EmbeddingEmbed;
use nineteen_sdk::hash::Fingerprint;
use nineteen_sdk::{Cx, Ending, Exchange, Request, Rng, Stop, Verdict, clip_unit};

use crate::params::Params;
use crate::reply::{self, Reply};
use crate::request::Body;

/// A row this near to a reference is that reference's row, whatever the precision.
const SAME: f64 = 0.05;
/// References this far apart are of different texts.
const DIFFERENT: f64 = 0.2;

/// Judges one exchange.
///
/// # Errors
/// More evidence needed, a violation, or no judgement possible.
pub fn score(p: &Params, cx: &mut Cx, request: &Request, exchange: &Exchange) -> Result<Verdict, Stop> {
    let asked: Body = serde_json::from_slice(&request.body)
        .map_err(|e| Stop::Inconclusive(format!("request: this task did not make it: {e}")))?;
    if exchange.ending != Ending::Complete {
        return Err(Stop::violation("reply.incomplete", "the reply broke off"));
    }
    if exchange.status != 200 {
        return Err(Stop::violation("reply.status", format!("{}", exchange.status)));
    }
    let reply = reply::read(exchange)?;
    let rows = rows(p, &asked, &reply)?;

    let chosen = chosen(p, &asked, &rows, exchange);
    let pairs: Vec<(usize, &str, &[f32])> =
        chosen.iter().filter_map(|i| Some((*i, asked.input.get(*i)?.as_str(), *rows.get(*i)?))).collect();
    let texts: Vec<&str> = pairs.iter().map(|(_, text, _)| *text).collect();
    let asked = p.models().map(|model| EmbeddingEmbed { model, texts: &texts }).collect::<Vec<_>>();
    let mut computed = cx
        .checks(asked)
        .map_err(|stop| if stop.is_invalid() { Stop::Inconclusive(format!("{stop:?}")) } else { stop })?
        .into_iter();
    let reference = computed.next().ok_or_else(|| Stop::Inconclusive("evidence: no answer".into()))?;
    if reference.rows.iter().any(|r| r.len() != p.dimension || norm(r) == 0.0 || norm(r).is_nan()) {
        return Err(Stop::Inconclusive(format!("evidence: the model has no {} dimensions", p.dimension)));
    }
    let compared: Vec<(usize, &[f32], &[f32])> =
        pairs.iter().zip(&reference.rows).map(|((i, _, given), r)| (*i, *given, r.as_slice())).collect();
    no_swaps(&compared)?;

    let errors: Vec<f64> = compared.iter().map(|(_, given, r)| apart(given, r).min(p.epsilon_cap)).collect();
    let mean = errors.iter().sum::<f64>() / counted(errors.len()).max(1.0);
    let units = rows.len() as u64;
    let mut verdict = Verdict {
        quality: 1.0 - clip_unit(mean / p.epsilon),
        units,
        units_by_chunk: exchange.units_at_the_end(units),
        ..Verdict::default()
    };
    let calibration = cx.calibration()?;
    if let Some(calibration) = &calibration {
        let apart = compared.iter().map(|(_, given, r)| apart(given, r));
        verdict.suspicions = calibration.suspicions("rows", apart);
    }
    for (suspect, theirs) in p.suspects.iter().zip(computed) {
        let class = format!("matched.{suspect}");
        let leanings: Vec<f64> =
            compared.iter().zip(&theirs.rows).map(|((_, given, r), k)| leaning(given, r, k)).collect();
        verdict.because(&class, leanings.iter().sum::<f64>() / counted(leanings.len()).max(1.0));
        if let Some(calibration) = &calibration {
            verdict.suspicions.extend(calibration.suspicions(&class, leanings.into_iter()));
        }
    }
    verdict.because("epsilon.mean", mean);
    verdict.because("epsilon.max", errors.iter().copied().fold(0.0, f64::max));
    verdict.because("rows", counted(rows.len()));
    verdict.because("rows.checked", counted(compared.len()));
    if compared.len() == rows.len()
        && let Some(usage) = reply.usage
    {
        // Whether special tokens count is not agreed upon, so this is told and not judged.
        let tokens: u64 = reference.tokens.iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "counts of tokens are far below 2^53")]
        verdict.because("usage.apart", usage.prompt_tokens.abs_diff(tokens) as f64);
    }
    let print = rows.iter().fold(Fingerprint::default(), |f, row| f.bytes(&rounded(row)));
    verdict.fingerprints.push(print.finish().to_vec());
    Ok(verdict)
}

/// The rows in the order of the texts, if nothing about them is wrong by itself.
fn rows<'a>(p: &Params, asked: &Body, reply: &'a Reply) -> Result<Vec<&'a [f32]>, Stop> {
    if reply.data.len() != asked.input.len() {
        let words = format!("{} rows for {} texts", reply.data.len(), asked.input.len());
        return Err(Stop::violation("rows.count", words));
    }
    let mut rows = Vec::with_capacity(reply.data.len());
    for (i, row) in reply.data.iter().enumerate() {
        if row.index != i {
            return Err(Stop::violation("rows.order", format!("row {i} says that it is row {}", row.index)));
        }
        let vector = row.embedding.0.as_slice();
        if vector.len() != p.dimension {
            let words = format!("row {i} has {} numbers, not {}", vector.len(), p.dimension);
            return Err(Stop::violation("vector.dimension", words));
        }
        if !vector.iter().all(|x| x.is_finite()) {
            return Err(Stop::violation("vector.finite", format!("row {i} has numbers that are none")));
        }
        let length = norm(vector);
        let off = (length - 1.0).abs();
        if off.is_nan() || off > p.norm_tolerance {
            return Err(Stop::violation("vector.norm", format!("row {i} has length {length:.4}, not 1")));
        }
        rows.push(vector);
    }
    Ok(rows)
}

/// Rows to recompute, ascending: all, or a draw that the miner could not foresee. Rows that are equal bit
/// for bit though their texts are not come first: that is how a reply is filled up.
fn chosen(p: &Params, asked: &Body, rows: &[&[f32]], exchange: &Exchange) -> Vec<usize> {
    let n = rows.len();
    if n <= p.rows_checked {
        return (0..n).collect();
    }
    let named: Vec<[u8; 16]> = rows
        .iter()
        .map(|row| row.iter().fold(Fingerprint::default(), |f, x| f.bytes(&x.to_le_bytes())).finish())
        .collect();
    let mut order: Vec<usize> = Vec::with_capacity(n);
    for (i, name) in named.iter().enumerate() {
        let twin = named
            .iter()
            .zip(&asked.input)
            .position(|(other, text)| other == name && asked.input.get(i).is_some_and(|own| own != text));
        if let Some(twin) = twin {
            order.extend([i, twin]);
        }
    }
    let seed = named.iter().fold(Fingerprint::default().number(exchange.ended_us), |f, name| f.bytes(name));
    let mut rng = Rng::new(&seed.seed());
    let mut rest: Vec<usize> = (0..n).collect();
    while !rest.is_empty() {
        let at = usize::try_from(rng.below(rest.len() as u64)).unwrap_or(0);
        order.push(rest.swap_remove(at));
    }
    let mut taken = Vec::with_capacity(p.rows_checked);
    for i in order {
        if taken.len() < p.rows_checked && !taken.contains(&i) {
            taken.push(i);
        }
    }
    taken.sort_unstable();
    taken
}

/// A row that is another text's, or two texts' at once, is no noise.
fn no_swaps(compared: &[(usize, &[f32], &[f32])]) -> Result<(), Stop> {
    for (i, given, own) in compared {
        if apart(given, own) < DIFFERENT {
            continue;
        }
        for (j, other_given, other) in compared.iter().filter(|(j, _, _)| j != i) {
            if apart(own, other) < DIFFERENT {
                continue;
            }
            if given == other_given {
                let words = format!("rows {i} and {j} are the same, their texts are not");
                return Err(Stop::violation("rows.duplicate", words));
            }
            if apart(given, other) < SAME {
                return Err(Stop::violation("rows.swapped", format!("row {i} is the vector of text {j}")));
            }
        }
    }
    Ok(())
}

/// `|a - b| / |b|`, in double precision.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
    squares.sqrt() / norm(b)
}

/// The matched filter: how much of the way from the reference `r` to a suspect's row `k` the given row has gone,
/// `⟨e − r, k − r⟩/|k − r|²`. 1 is the suspect's own row; 0 where the two models agree, which tells nothing. At most 2 either
/// way.
fn leaning(e: &[f32], r: &[f32], k: &[f32]) -> f64 {
    let mut along = 0.0;
    let mut whole = 0.0;
    for ((e, r), k) in e.iter().zip(r).zip(k) {
        let way = f64::from(*k) - f64::from(*r);
        along += (f64::from(*e) - f64::from(*r)) * way;
        whole += way * way;
    }
    if whole > 0.0 { (along / whole).clamp(-2.0, 2.0) } else { 0.0 }
}

fn norm(v: &[f32]) -> f64 {
    v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// Three decimals of every number: two copies of one answer agree in them, whatever the way they are written.
fn rounded(row: &[f32]) -> Vec<u8> {
    #[expect(clippy::cast_possible_truncation, reason = "numbers of a vector of length 1, times 1000")]
    row.iter().flat_map(|x| ((x * 1000.0).round() as i16).to_le_bytes()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^53")]
const fn counted(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests;
