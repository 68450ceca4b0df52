//! Chats like people's: what the corpus invents, with the settings that clients send.
//!
//! A synthetic chat is invented as a *client's* chat and goes through [`crate::request::admit`] like any
//! other. The settings' distributions, before capping:
//!
//! | setting | distribution |
//! |---|---|
//! | `temperature` | left out (1) 30 %; 0.7 20 %; 0 14 %; one decimal of 0.1 to 1.3 26 %; two decimals of 0 to 1.2 10 % |
//! | `top_p` | left out (1) 70 %; 0.95 10 %; 0.9 10 %; 0.8 5 %; two decimals of 0.5 to 0.99 5 % |
//! | `top_k` | left out (all) 82 %; 50 8 %; 40 6 %; 20 4 % |
//! | `max_tokens` | left out 25 %; a round number 50 %; log-normal with median 140 25 % |
//! | `seed` | left out, but for `synthetic.client_seed_share` |

use nineteen_corpus::{ChatShape, Role};
use nineteen_sdk::{Rng, Synthetic};

use crate::params::Params;
use crate::request::{Body, Chat, ClientMessage, Content, admit};

/// A synthetic request.
///
/// # Errors
/// When the parameters leave no room for a chat.
pub fn synthesize(p: &Params, rng: &mut Rng) -> Result<Synthetic, String> {
    // A chat that is too long for the context is thrown away like a client's would be refused.
    for _ in 0..16 {
        let chat = invent(p, rng);
        let Ok(request) = admit(p, chat, rng) else { continue };
        let body: Body = serde_json::from_slice(&request.body).map_err(|e| e.to_string())?;
        return Ok(Synthetic { expected_units: expected(p, body.max_tokens), request });
    }
    Err("the context is too short for any chat: raise context_tokens or lower synthetic.words_median"
        .to_owned())
}

/// Replies would be exponentially long around their mean, were they not cut: `m (1 - exp(-cut / m))`.
fn expected(p: &Params, cut: u32) -> u64 {
    let m = p.synthetic.reply_tokens_mean;
    let tokens = m * (1.0 - (-f64::from(cut) / m).exp());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 1 and 32768")]
    let tokens = tokens.clamp(1.0, f64::from(cut)).round() as u64;
    tokens
}

fn invent(p: &Params, rng: &mut Rng) -> Chat {
    let s = &p.synthetic;
    let weights: Vec<(usize, f64)> = s.turns.iter().enumerate().map(|(i, w)| (i + 1, *w)).collect();
    let turns = rng.weighted(&weights).copied().unwrap_or(1);
    let shape = ChatShape {
        turns,
        system: rng.chance(s.system_share),
        words: (0..turns).map(|_| words(rng.lognormal(s.words_median, s.words_sigma))).collect(),
        pasted_words: if rng.chance(s.pasted_share) {
            words(rng.gamma(1.5, s.pasted_words_mean / 1.5))
        } else {
            0
        },
    };
    let messages = nineteen_corpus::chat(rng, &shape)
        .into_iter()
        .map(|(role, text)| ClientMessage {
            role: match role {
                Role::System => "system".to_owned(),
                Role::User => "user".to_owned(),
                Role::Assistant => "assistant".to_owned(),
            },
            content: Some(Content::Text(text)),
        })
        .collect();
    Chat {
        messages,
        temperature: temperature(rng),
        top_p: top_p(rng),
        top_k: rng
            .weighted(&[(None, 0.82), (Some(50), 0.08), (Some(40), 0.06), (Some(20), 0.04)])
            .copied()
            .flatten(),
        max_tokens: max_tokens(rng),
        seed: rng.chance(s.client_seed_share).then(|| client_seed(rng)),
        stream: Some(rng.chance(s.stream_share)),
        ..Chat::default()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn words(x: f64) -> usize {
    x.clamp(2.0, 1500.0).round() as usize
}

/// A decimal fraction as a client would type it: 7 tenths is 0.7, not 0.7000000000000001.
fn decimal(units: i64, of: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "at most three digits")]
    let units = units as f64;
    units / of
}

fn temperature(rng: &mut Rng) -> Option<f64> {
    let shares = [(None, 0.30), (Some('7'), 0.20), (Some('0'), 0.14), (Some('d'), 0.26), (Some('c'), 0.10)];
    match rng.weighted(&shares).copied().flatten()? {
        '7' => Some(0.7),
        '0' => Some(0.0),
        'd' => Some(decimal(rng.between(1, 13), 10.0)),
        _ => Some(decimal(rng.between(0, 120), 100.0)),
    }
}

fn top_p(rng: &mut Rng) -> Option<f64> {
    let fixed = [(None, 0.70), (Some(0.95), 0.10), (Some(0.9), 0.10), (Some(0.8), 0.05), (Some(0.0), 0.05)];
    match rng.weighted(&fixed).copied().flatten()? {
        given if given > 0.0 => Some(given),
        _ => Some(decimal(rng.between(50, 99), 100.0)),
    }
}

fn max_tokens(rng: &mut Rng) -> Option<i64> {
    const ROUND: [i64; 12] = [50, 64, 100, 128, 150, 200, 256, 300, 400, 500, 512, 1000];
    match rng.weighted(&[(0, 0.25), (1, 0.50), (2, 0.25)]) {
        Some(1) => rng.pick(&ROUND).copied(),
        Some(2) => i64::try_from(words(rng.lognormal(140.0, 0.8).max(16.0))).ok(),
        _ => None,
    }
}

fn client_seed(rng: &mut Rng) -> i64 {
    const LIKED: [i64; 9] = [42, 42, 42, 0, 1, 7, 123, 1234, 1337];
    if rng.chance(0.6) {
        rng.pick(&LIKED).copied().unwrap_or(42)
    } else {
        rng.between(0, i64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests;
