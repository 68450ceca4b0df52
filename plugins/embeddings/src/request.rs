//! Requests: from what a client says, and from a seed. A synthetic request is invented as a client's and
//! passes through the same [`admit`], so nothing in the body tells one from the other.

use nineteen_sdk::{Refusal, Request, Rng, Synthetic};
use serde::{Deserialize, Serialize};

use crate::params::Params;

/// The path on the miner.
pub const PATH: &str = "/v1/embeddings";

/// The body that miners get: exactly these fields, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Name of the model.
    pub model: String,
    /// The texts, also where the client gave a single string.
    pub input: Vec<String>,
    /// How vectors are written.
    pub encoding_format: Encoding,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Lists of numbers.
    #[default]
    Float,
    /// Little-endian `f32`, in base64.
    Base64,
}

/// A body as clients send it; other fields are ignored.
#[derive(Debug, Clone, Deserialize)]
pub struct Client {
    /// A text or a list of texts.
    pub input: Input,
    /// `float` where it is left out.
    pub encoding_format: Option<Encoding>,
    /// Only the model's own length is possible.
    pub dimensions: Option<u64>,
}

/// A text or a list of texts.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "`input` must be a text or a list of texts; token ids are not possible here")]
pub enum Input {
    /// One.
    Text(String),
    /// Several.
    Texts(Vec<String>),
}

/// The request for a client's body.
///
/// # Errors
/// A refusal in OpenAI's terms.
pub fn admit(p: &Params, client: Client) -> Result<Request, Refusal> {
    let invalid = |message: String| Err(Refusal::bad_request("invalid_value", message));
    let input = match client.input {
        Input::Text(text) => vec![text],
        Input::Texts(texts) => texts,
    };
    if input.is_empty() || input.len() > p.max_inputs {
        return invalid(format!("`input` has {} texts; 1 to {} are possible", input.len(), p.max_inputs));
    }
    if let Some(i) = input.iter().position(|t| t.is_empty() || t.len() > p.max_input_bytes) {
        return invalid(format!("`input[{i}]` must have 1 to {} bytes", p.max_input_bytes));
    }
    if let Some(asked) = client.dimensions
        && usize::try_from(asked) != Ok(p.dimension)
    {
        return invalid(format!("`dimensions` is {asked}; this model has {}", p.dimension));
    }
    let body =
        Body { model: p.model.clone(), input, encoding_format: client.encoding_format.unwrap_or_default() };
    match serde_json::to_vec(&body) {
        Ok(bytes) => Ok(Request::json(PATH, bytes, false)),
        Err(e) => invalid(e.to_string()),
    }
}

/// A synthetic request: one text, or a geometric number of them; each with its own length.
///
/// # Errors
/// When the parameters leave no room for a text.
pub fn synthesize(p: &Params, rng: &mut Rng) -> Result<Synthetic, String> {
    let s = &p.synthetic;
    for _ in 0..16 {
        let single = rng.chance(s.single_share);
        let mut texts = 1;
        if !single {
            texts = 2.min(p.max_inputs);
            let more = 1.0 - 1.0 / (s.inputs_mean - 1.0).max(1.0);
            while texts < p.max_inputs && rng.chance(more) {
                texts += 1;
            }
        }
        let mut text = || {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
            let words = rng.lognormal(s.words_median, s.words_sigma).clamp(1.0, 600.0).round() as usize;
            nineteen_corpus::passage(rng, words)
        };
        let input =
            if single { Input::Text(text()) } else { Input::Texts((0..texts).map(|_| text()).collect()) };
        let encoding_format = rng.chance(s.base64_share).then_some(Encoding::Base64);
        if let Ok(request) = admit(p, Client { input, encoding_format, dimensions: None }) {
            return Ok(Synthetic { expected_units: texts as u64, request });
        }
    }
    Err("max_input_bytes leaves no room for a text: raise it or lower synthetic.words_median".to_owned())
}

#[cfg(test)]
mod tests;
