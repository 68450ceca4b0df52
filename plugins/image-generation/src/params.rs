//! The manifest's `[params]`: typed, with defaults, and their bounds. `schema.json` says the same to others.

use nineteen_pictures::caption::Synthetic;
use nineteen_pictures::judge::{Judgement, Safety};
use nineteen_pictures::photo::PhotoLimits;
use nineteen_pictures::request::Bounds;
use serde::Deserialize;

/// Parameters of the task; see `schema.json` for what each means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The pipeline: in requests, and for the checker.
    pub model: String,
    /// The model whose vectors of the reply and of the regeneration are compared; absent, pixels alone are.
    pub vision: Option<String>,
    /// What has to be flagged; absent, nothing may be.
    pub safety: Option<Safety>,
    /// Whether a client may give a picture to begin from.
    #[serde(default)]
    pub image_to_image: bool,
    /// How much of it is given up where the client does not say.
    #[serde(default = "default_strength")]
    pub default_strength: f64,
    /// What of such a picture is decoded.
    #[serde(default)]
    pub photo: PhotoLimits,
    /// What clients may ask for.
    #[serde(default)]
    pub requests: Bounds,
    /// How replies are judged.
    #[serde(default)]
    pub judgement: Judgement,
    /// What synthetic requests are like.
    pub synthetic: Synthetic,
}

const fn default_strength() -> f64 {
    0.6
}

impl Params {
    /// Bounds that types cannot say.
    ///
    /// # Errors
    /// Which parameter, and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        if self.model.is_empty() || self.vision.as_ref().is_some_and(String::is_empty) {
            return Err("model and vision must not be empty".to_owned());
        }
        if !(self.default_strength > 0.0 && self.default_strength <= 1.0) {
            return Err("default_strength must be above 0, at most 1".to_owned());
        }
        self.safety.as_ref().map_or(Ok(()), Safety::validate)?;
        self.photo.validate()?;
        self.requests.validate()?;
        self.judgement.validate()?;
        self.synthetic.validate()
    }
}
