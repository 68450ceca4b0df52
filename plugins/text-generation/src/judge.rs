//! Whether a reply is what the model would have said.
//!
//! First what the bytes alone contradict, then one replay: every token's margin under the agreed sampler.
//! Whatever the miner reports about its answer is evidence against it, never for it: units are the tokens
//! that the checker counted, and a token counts as delivered when both its id and its text had arrived.

use nineteen_sdk::checks::{Completion, Replayed, Sampler, TextReplay};
use nineteen_sdk::hash::Fingerprint;
use nineteen_sdk::{Cx, Ending, Exchange, Request, Stop, Verdict, clip, clip_unit};

use crate::params::Params;
use crate::reply::{self, Finish, Reply};
use crate::request::{Body, at_most_tokens};

/// Shorter answers are alike by chance ("Yes."), and say nothing about copying.
const FINGERPRINTED_FROM: usize = 8;

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
    let reply = reply::read(request.streamed, exchange)?;
    let sampler = sampler(&asked, reply.sampler.as_deref())?;
    let cap = p.cap(sampler.class());
    if cap <= 0.0 {
        return Err(Stop::violation("sampler.refused", format!("{} is not accepted here", sampler.class())));
    }
    claims(&asked, &reply)?;

    let replay = cx
        .check(TextReplay {
            model: &p.model,
            messages: &asked.messages,
            completion: reply.ids.as_deref().map_or(
                Completion::Text { text: &reply.content, finished: reply.finish == Finish::Stop },
                Completion::Ids,
            ),
            sampler: &sampler,
            top: 0,
        })
        .map_err(|stop| blame(p, &asked, &reply, stop))?;
    agrees(&asked, &reply, &replay)?;

    let mut verdict = Verdict::default();
    let quality = match &sampler {
        Sampler::Unseeded { top_p, top_k, .. } => {
            unseeded(p, &replay, *top_p < 1.0 || *top_k > 0, &mut verdict)
        }
        Sampler::Greedy | Sampler::Seeded { .. } => margins(p, &replay, &mut verdict)?,
    };
    verdict.quality = cap * quality;
    if let Some(calibration) = cx.calibration()? {
        let class =
            if replay.retokenised { format!("{}.text", sampler.class()) } else { sampler.class().into() };
        verdict.suspicions = calibration.suspicions(&class, surprise(&sampler, &replay));
    }
    verdict.units = units(&reply, &replay);
    verdict.units_by_chunk = if request.streamed {
        delivered(&reply, &replay, verdict.units, exchange.chunks.len())
    } else {
        exchange.units_at_the_end(verdict.units)
    };
    if replay.ids.len() >= FINGERPRINTED_FROM {
        let print = replay.ids.iter().fold(Fingerprint::default(), |f, id| f.bytes(&id.to_le_bytes()));
        verdict.fingerprints.push(print.finish().to_vec());
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of tokens are far below 2^53")]
    verdict.because("tokens", replay.ids.len() as f64);
    verdict.because("rank.mean", mean(replay.rank.iter().map(|r| f64::from(*r))));
    verdict.because("logprob.mean", mean(replay.logprob.iter().copied()));
    verdict.because("entropy.mean", mean(replay.entropy.iter().copied()));
    verdict.because("retokenised", f64::from(u8::from(replay.retokenised)));
    verdict.because("sampler.cap", cap);
    if let Some(claimed) = &reply.logprobs
        && sampler.class() != "unseeded"
        && !replay.retokenised
    {
        let apart = claimed.iter().zip(&replay.logprob).map(|(a, b)| (a - b).abs());
        verdict.because("logprob.claimed.apart", mean(apart));
    }
    Ok(verdict)
}

/// The sampler to judge by: what the request asks, unless the reply says that it drew without the seed.
fn sampler(asked: &Body, claimed: Option<&str>) -> Result<Sampler, Stop> {
    let Body { temperature, top_p, top_k, .. } = *asked;
    let seeded = || Sampler::Seeded {
        seed: asked.seed,
        request_id: asked.request_id.clone(),
        temperature,
        top_p,
        top_k,
    };
    match claimed {
        None | Some("greedy" | "seeded" | "unseeded") if temperature <= 0.0 => Ok(Sampler::Greedy),
        None | Some("seeded") => Ok(seeded()),
        Some("unseeded") => Ok(Sampler::Unseeded { temperature, top_p, top_k }),
        Some("greedy") => Err(Stop::violation(
            "sampler.greedy",
            format!("greedy, where temperature {temperature} was asked for"),
        )),
        Some(other) => {
            Err(Stop::violation("sampler.unknown", format!("`{}` is no sampler class", clip(other, 40))))
        }
    }
}

/// What the bytes contradict by themselves.
fn claims(asked: &Body, reply: &Reply) -> Result<(), Stop> {
    let allowed = u64::from(asked.max_tokens);
    let usage = reply.usage;
    if usage.completion_tokens > allowed {
        let words = format!("usage says {} of {allowed} tokens", usage.completion_tokens);
        return Err(Stop::violation("tokens.too_many", words));
    }
    if usage.prompt_tokens.checked_add(usage.completion_tokens) != Some(usage.total_tokens) {
        return Err(Stop::violation("usage.total", "the total is not the sum"));
    }
    let Some(ids) = &reply.ids else {
        if reply.content.is_empty() && reply.finish == Finish::Length {
            return Err(Stop::violation("reply.empty", "neither text nor tokens"));
        }
        return Ok(());
    };
    let n = ids.len() as u64;
    if n > allowed {
        return Err(Stop::violation("tokens.too_many", format!("{n} of {allowed} tokens")));
    }
    if usage.completion_tokens != n {
        let words = format!("usage says {} tokens, token_ids has {n}", usage.completion_tokens);
        return Err(Stop::violation("usage.completion", words));
    }
    if let Some(logprobs) = &reply.logprobs
        && logprobs.len() != ids.len()
    {
        let words = format!("{} log-probabilities for {n} tokens", logprobs.len());
        return Err(Stop::violation("logprobs.count", words));
    }
    Ok(())
}

/// A check that cannot be computed is the reply's fault when the checker says so, except where the prompt
/// alone may have filled the context: that would be ours.
fn blame(p: &Params, asked: &Body, reply: &Reply, stop: Stop) -> Stop {
    let tokens = reply.ids.as_ref().map_or(reply.content.len(), Vec::len);
    let surely_fits = at_most_tokens(&asked.messages) + tokens <= p.context_tokens as usize;
    match stop {
        Stop::Unavailable(why) if why.starts_with("invalid: ") => {
            if why.contains("context") && !surely_fits {
                Stop::Inconclusive(why)
            } else {
                Stop::violation("tokens.invalid", why.trim_start_matches("invalid: "))
            }
        }
        other => other,
    }
}

/// What the replay contradicts.
fn agrees(asked: &Body, reply: &Reply, replay: &Replayed) -> Result<(), Stop> {
    let Some((last, before)) = replay.ids.split_last() else {
        return Err(Stop::violation("reply.empty", "neither text nor tokens"));
    };
    if reply.ids.as_ref().is_some_and(|ids| *ids != replay.ids) {
        return Err(Stop::Inconclusive("evidence: the replay is of other ids".to_owned()));
    }
    if before.iter().any(|id| replay.eos_ids.contains(id)) {
        return Err(Stop::violation("tokens.after_eos", "tokens after the end of the sequence"));
    }
    if reply.usage.prompt_tokens != replay.prompt_tokens {
        let words =
            format!("usage says {}, the prompt has {}", reply.usage.prompt_tokens, replay.prompt_tokens);
        return Err(Stop::violation("usage.prompt", words));
    }
    let n = replay.ids.len() as u64;
    let allowed = u64::from(asked.max_tokens);
    if reply.ids.is_none() {
        // Tokenising text again need not give the tokens that were drawn, but nearly as many.
        let said = reply.usage.completion_tokens;
        if said > n + n / 4 + 4 || n > said + said / 4 + 4 {
            let words = format!("usage says {said} tokens, the text has about {n}");
            return Err(Stop::violation("usage.completion", words));
        }
        if reply.finish == Finish::Length && said != allowed {
            let words = format!("length, after {said} of {allowed} tokens");
            return Err(Stop::violation("finish.early", words));
        }
        return Ok(());
    }
    match (reply.finish, replay.eos_ids.contains(last)) {
        (Finish::Stop, true) => {}
        (Finish::Length, false) if n == allowed => {}
        (Finish::Length, false) => {
            return Err(Stop::violation("finish.early", format!("length, after {n} of {allowed} tokens")));
        }
        (Finish::Stop, false) => {
            return Err(Stop::violation("finish.stop", "stop, without an end-of-sequence token"));
        }
        (Finish::Length, true) => {
            return Err(Stop::violation("finish.length", "length, with an end-of-sequence token"));
        }
    }
    // A character that the last token left incomplete is shown by some decoders and held back by others.
    let whole = |text: &str| text.trim_end_matches('\u{fffd}').len();
    if reply.content.get(..whole(&reply.content)) != replay.text.get(..whole(&replay.text)) {
        return Err(Stop::violation("text.other", "the text is not what the token ids say"));
    }
    Ok(())
}

/// `1 - clip(mean margin / delta)`, each margin clipped: one token that a backend's rounding pushed out of
/// the support costs a little, a wrong model costs everything.
fn margins(p: &Params, replay: &Replayed, verdict: &mut Verdict) -> Result<f64, Stop> {
    if replay.margin.len() != replay.ids.len() {
        return Err(Stop::Inconclusive("evidence: the replay has no margins".to_owned()));
    }
    let clipped = |m: &f64| if m.is_nan() { p.margin_cap } else { m.clamp(0.0, p.margin_cap) };
    let average = mean(replay.margin.iter().map(clipped));
    verdict.because("margin.mean", average);
    verdict.because("margin.max", replay.margin.iter().map(clipped).fold(0.0, f64::max));
    Ok(1.0 - clip_unit(average / p.delta))
}

/// `Z = sum(-ln p - H) / sqrt(sum V)` over the tokens, of the tempered distribution. Where top-k or top-p cut
/// it, an honest draw is more probable than the uncut entropy expects, so only improbable answers count.
fn unseeded(p: &Params, replay: &Replayed, cut: bool, verdict: &mut Verdict) -> f64 {
    let surplus: f64 = replay.logprob.iter().zip(&replay.entropy).map(|(l, h)| -l - h).sum();
    let variance: f64 = replay.varentropy.iter().sum();
    // Where nothing was left to chance, any surplus is impossible.
    let z = if variance > 1e-9 { surplus / variance.sqrt() } else { surplus * 1e3 };
    let distance = if cut { z.max(0.0) } else { z.abs() };
    let strange = (distance - p.z_free) / (p.z_zero - p.z_free);
    let outside = mean(replay.in_support.iter().map(|inside| f64::from(u8::from(!inside))));
    verdict.because("z", z);
    verdict.because("support.outside", outside);
    // NaN, from an infinite surplus over an infinite variance, must not pass for perfect.
    let strange = if strange.is_nan() { 1.0 } else { clip_unit(strange) };
    (1.0 - strange) * (1.0 - clip_unit(outside / p.outside_zero))
}

/// What the calibration bins, token by token: the margin, or for unseeded draws how much less probable the token was
/// than the row's entropy expects, in nats. Infinite outside the support.
fn surprise<'a>(sampler: &Sampler, replay: &'a Replayed) -> impl Iterator<Item = f64> + 'a {
    let unseeded = matches!(sampler, Sampler::Unseeded { .. });
    (0..replay.ids.len()).map(move |t| {
        let at = |list: &[f64]| list.get(t).copied().unwrap_or(f64::INFINITY);
        match replay.in_support.get(t) {
            Some(false) => f64::INFINITY,
            _ if unseeded => -at(&replay.logprob) - at(&replay.entropy),
            _ => at(&replay.margin),
        }
    })
}

fn units(reply: &Reply, replay: &Replayed) -> u64 {
    let counted = replay.ids.len() as u64;
    if replay.retokenised { counted.min(reply.usage.completion_tokens) } else { counted }
}

/// Tokens by the chunk with which they had arrived: text and, where the reply gives ids, the id.
fn delivered(reply: &Reply, replay: &Replayed, units: u64, chunks: usize) -> Vec<u64> {
    let mut by_chunk = vec![0_u64; chunks];
    let mut ends = replay.text_ends.iter().enumerate().peekable();
    let mut left = units;
    for (i, step) in reply.steps.iter().enumerate() {
        let last = i + 1 == reply.steps.len();
        let mut arrived = 0;
        let here = |t: usize, end: u64| {
            let id_is_here = reply.ids.is_none() || t < step.ids;
            last || (id_is_here && usize::try_from(end).is_ok_and(|end| end <= step.bytes))
        };
        while ends.next_if(|(t, end)| here(*t, **end)).is_some() {
            arrived += 1;
        }
        let arrived = if last { left } else { left.min(arrived) };
        left -= arrived;
        if let Some(slot) = by_chunk.get_mut(step.chunk) {
            *slot += arrived;
        }
    }
    by_chunk
}

/// 0 for nothing.
fn mean(all: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = all.fold((0.0, 0.0), |(sum, n), x| (sum + x, n + 1.0));
    if n > 0.0 { sum / n } else { 0.0 }
}

#[cfg(test)]
mod tests;
