//! The manifest's `[params]`: typed, with defaults, and their bounds. `schema.json` says the same to others.

use serde::Deserialize;

/// Parameters of the task; see `schema.json` for what each means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// In requests, and for the checker.
    pub model: String,
    /// Length of a vector.
    #[serde(default = "dimension")]
    pub dimension: usize,
    /// Texts of one request.
    #[serde(default = "max_inputs")]
    pub max_inputs: usize,
    /// Bytes of one text.
    #[serde(default = "max_input_bytes")]
    pub max_input_bytes: usize,
    /// Rows recomputed.
    #[serde(default = "rows_checked")]
    pub rows_checked: usize,
    /// Mean relative error at which quality is 0.
    #[serde(default = "epsilon")]
    pub epsilon: f64,
    /// The most that one row's relative error counts.
    #[serde(default = "epsilon_cap")]
    pub epsilon_cap: f64,
    /// How far a vector's length may be from 1.
    #[serde(default = "norm_tolerance")]
    pub norm_tolerance: f64,
    /// Models that cheats would use instead, also served by the checkers: a row is held against theirs as well.
    #[serde(default)]
    pub suspects: Vec<String>,
    /// What synthetic requests are like.
    #[serde(default)]
    pub synthetic: Synthetic,
}

const fn dimension() -> usize {
    384
}
const fn max_inputs() -> usize {
    64
}
const fn max_input_bytes() -> usize {
    8192
}
const fn rows_checked() -> usize {
    16
}
const fn epsilon() -> f64 {
    0.2
}
const fn epsilon_cap() -> f64 {
    1.0
}
const fn norm_tolerance() -> f64 {
    0.02
}

/// What synthetic requests are like.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Synthetic {
    /// Requests with one text, given as a plain string.
    pub single_share: f64,
    /// Mean number of texts of the others; at least 2 each.
    pub inputs_mean: f64,
    /// Requests that ask for base64.
    pub base64_share: f64,
    /// Words of one text: median of the log-normal.
    pub words_median: f64,
    /// Deviation of its logarithm.
    pub words_sigma: f64,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self { single_share: 0.45, inputs_mean: 8.0, base64_share: 0.4, words_median: 18.0, words_sigma: 0.9 }
    }
}

impl Params {
    /// What rows are computed with: the task's model, then the suspects.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.model).chain(&self.suspects).map(String::as_str)
    }

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
            ((1..=65_536).contains(&self.dimension), "dimension must be 1 to 65536"),
            ((1..=256).contains(&self.max_inputs), "max_inputs must be 1 to 256"),
            (self.max_input_bytes > 0, "max_input_bytes must be above 0"),
            ((1..=256).contains(&self.rows_checked), "rows_checked must be 1 to 256"),
            (positive(self.epsilon) && positive(self.epsilon_cap), "epsilon and epsilon_cap must be above 0"),
            (
                self.norm_tolerance >= 0.0 && self.norm_tolerance.is_finite(),
                "norm_tolerance must be at least 0",
            ),
            (
                self.suspects.len() <= 4 && !self.suspects.contains(&self.model),
                "suspects must be at most 4 models, and not the task's own",
            ),
            (unit(s.single_share) && unit(s.base64_share), "shares in synthetic must be within 0 and 1"),
            (s.inputs_mean >= 1.0 && s.inputs_mean.is_finite(), "synthetic.inputs_mean must be at least 1"),
            (
                positive(s.words_median) && (0.0..=3.0).contains(&s.words_sigma),
                "synthetic.words_median must be above 0, words_sigma within 0 and 3",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, words)| Err((*words).to_owned()))
    }
}
