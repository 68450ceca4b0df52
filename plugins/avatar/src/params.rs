//! The manifest's `[params]`: typed, with defaults, and their bounds. `schema.json` says the same to others.

use nineteen_pictures::caption::Synthetic;
use nineteen_pictures::judge::Judgement;
use nineteen_pictures::photo::PhotoLimits;
use nineteen_pictures::request::Bounds;
use serde::Deserialize;

use crate::workflow::{Plan, Step};

/// Parameters of the task; see `schema.json` for what each means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The pipeline, where the workflow names no other: in requests, and for the checker.
    pub model: String,
    /// Side of the photograph as miners get it, in pixels.
    #[serde(default = "photo_side")]
    pub photo_side: u32,
    /// What of a client's photograph is decoded.
    #[serde(default)]
    pub photo: PhotoLimits,
    /// Where a client says nothing but sends a photograph.
    #[serde(default = "default_prompt")]
    pub default_prompt: String,
    /// From the photograph to the verdict.
    pub workflow: Vec<Step>,
    /// What clients may ask for.
    #[serde(default)]
    pub requests: Bounds,
    /// How replies are judged.
    #[serde(default)]
    pub judgement: Judgement,
    /// What synthetic requests are like.
    pub synthetic: Synthetic,
    /// Their photographs.
    #[serde(default)]
    pub studio: Studio,
}

/// Synthetic photographs: drawn faces.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Studio {
    /// Photographs that are not of the task's size.
    pub odd_share: f64,
}

impl Default for Studio {
    fn default() -> Self {
        Self { odd_share: 0.3 }
    }
}

const fn photo_side() -> u32 {
    64
}

fn default_prompt() -> String {
    "a portrait".to_owned()
}

impl Params {
    /// The workflow with what its steps need in place.
    ///
    /// # Errors
    /// The step that stands where it cannot.
    pub fn plan(&self) -> Result<Plan<'_>, String> {
        Plan::new(&self.workflow, &self.model)
    }

    /// Bounds that types cannot say.
    ///
    /// # Errors
    /// Which parameter, and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let rules = [
            (!self.model.is_empty(), "model must not be empty"),
            (
                (16..=1024).contains(&self.photo_side) && self.photo_side.is_multiple_of(8),
                "photo_side must be a multiple of 8 from 16 to 1024",
            ),
            (!self.default_prompt.trim().is_empty(), "default_prompt must not be empty"),
            ((1..=16).contains(&self.workflow.len()), "workflow must have 1 to 16 steps"),
            ((0.0..=1.0).contains(&self.studio.odd_share), "studio.odd_share must be within 0 and 1"),
        ];
        if let Some((_, words)) = rules.iter().find(|(holds, _)| !holds) {
            return Err((*words).to_owned());
        }
        self.plan()?;
        self.photo.validate()?;
        self.requests.validate()?;
        self.judgement.validate()?;
        self.synthetic.validate()
    }
}
