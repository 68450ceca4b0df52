//! The manifest's `[params]`: typed, with defaults, and their bounds. `schema.json` says the same to others.

use serde::Deserialize;

/// Parameters of the task; see `schema.json` for what each means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// In requests, and for the checker.
    pub model: String,
    /// More is cut to this.
    #[serde(default = "max_tokens_cap")]
    pub max_tokens_cap: u32,
    /// Where a client says nothing.
    #[serde(default = "default_max_tokens")]
    pub default_max_tokens: u32,
    /// Prompt and completion together.
    #[serde(default = "context_tokens")]
    pub context_tokens: u32,
    /// Mean margin in nats at which quality is 0.
    #[serde(default = "delta")]
    pub delta: f64,
    /// The most that one token's margin counts, in nats.
    #[serde(default = "margin_cap")]
    pub margin_cap: f64,
    /// The most that each sampler class may earn.
    #[serde(default)]
    pub samplers: Samplers,
    /// Unseeded: |Z| up to which nothing is lost.
    #[serde(default = "z_free")]
    pub z_free: f64,
    /// Unseeded: |Z| at which quality is 0.
    #[serde(default = "z_zero")]
    pub z_zero: f64,
    /// Unseeded: share of tokens outside the support at which quality is 0.
    #[serde(default = "outside_zero")]
    pub outside_zero: f64,
    /// What synthetic chats are like.
    #[serde(default)]
    pub synthetic: Synthetic,
}

const fn max_tokens_cap() -> u32 {
    512
}
const fn default_max_tokens() -> u32 {
    256
}
const fn context_tokens() -> u32 {
    2048
}
const fn delta() -> f64 {
    0.1
}
const fn margin_cap() -> f64 {
    1.0
}
const fn z_free() -> f64 {
    2.0
}
const fn z_zero() -> f64 {
    6.0
}
const fn outside_zero() -> f64 {
    0.05
}

/// The most that each class may earn, in [0, 1]; 0 refuses it. A weaker test has a lower cap, or cheats
/// would choose it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Samplers {
    /// Temperature 0.
    pub greedy: f64,
    /// Gumbel-max with the request's seed.
    pub seeded: f64,
    /// Anything from the tempered distribution.
    pub unseeded: f64,
}

impl Default for Samplers {
    fn default() -> Self {
        Self { greedy: 1.0, seeded: 1.0, unseeded: 0.5 }
    }
}

/// What synthetic chats are like. Temperature, `top_p`, `top_k` and `max_tokens` are in [`crate::synth`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Synthetic {
    /// Share of streamed requests.
    pub stream_share: f64,
    /// Share of chats that open with a system message.
    pub system_share: f64,
    /// Share of clients that bring a seed of their own.
    pub client_seed_share: f64,
    /// Weights of 1, 2, 3 … turns of the user.
    pub turns: Vec<f64>,
    /// Words of one turn: median of the log-normal.
    pub words_median: f64,
    /// Deviation of its logarithm.
    pub words_sigma: f64,
    /// Share of first turns that bring pasted material.
    pub pasted_share: f64,
    /// Its mean length in words: gamma with shape 1.5.
    pub pasted_words_mean: f64,
    /// Tokens that a reply would take if it were not cut.
    pub reply_tokens_mean: f64,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self {
            stream_share: 0.7,
            system_share: 0.3,
            client_seed_share: 0.08,
            turns: vec![0.6, 0.2, 0.12, 0.05, 0.03],
            words_median: 22.0,
            words_sigma: 0.7,
            pasted_share: 0.2,
            pasted_words_mean: 90.0,
            reply_tokens_mean: 180.0,
        }
    }
}

impl Params {
    /// Bounds that types cannot say.
    ///
    /// # Errors
    /// Which parameter, and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let s = &self.synthetic;
        let rules = [
            (!self.model.is_empty(), "model must not be empty"),
            ((1..=32_768).contains(&self.max_tokens_cap), "max_tokens_cap must be 1 to 32768"),
            ((1..=32_768).contains(&self.default_max_tokens), "default_max_tokens must be 1 to 32768"),
            (self.context_tokens >= 128, "context_tokens must be at least 128"),
            (positive(self.delta), "delta must be above 0"),
            (positive(self.margin_cap), "margin_cap must be above 0"),
            (
                unit(self.samplers.greedy) && unit(self.samplers.seeded) && unit(self.samplers.unseeded),
                "samplers must be within 0 and 1",
            ),
            (
                self.z_free >= 0.0 && self.z_free < self.z_zero && self.z_zero.is_finite(),
                "z_free must be at least 0 and below z_zero",
            ),
            (
                positive(self.outside_zero) && unit(self.outside_zero),
                "outside_zero must be above 0, at most 1",
            ),
            (
                unit(s.stream_share)
                    && unit(s.system_share)
                    && unit(s.client_seed_share)
                    && unit(s.pasted_share),
                "shares in synthetic must be within 0 and 1",
            ),
            (
                (1..=8).contains(&s.turns.len())
                    && s.turns.iter().all(|w| *w >= 0.0 && w.is_finite())
                    && s.turns.iter().any(|w| *w > 0.0),
                "synthetic.turns must be 1 to 8 weights, not all 0",
            ),
            (
                positive(s.words_median) && (0.0..=3.0).contains(&s.words_sigma),
                "synthetic.words_median must be above 0, words_sigma within 0 and 3",
            ),
            (
                s.pasted_words_mean >= 0.0
                    && s.pasted_words_mean.is_finite()
                    && positive(s.reply_tokens_mean),
                "synthetic.pasted_words_mean must be at least 0, reply_tokens_mean above 0",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, words)| Err((*words).to_owned()))
    }

    /// What this sampler class may earn.
    #[must_use]
    pub fn cap(&self, class: &str) -> f64 {
        match class {
            "greedy" => self.samplers.greedy,
            "seeded" => self.samplers.seeded,
            "unseeded" => self.samplers.unseeded,
            _ => 0.0,
        }
    }
}
