//! The steps from a photograph to a verdict, as the manifest declares them.
//!
//! A subnet can leave steps out or name other models; what no list can say is a step that uses what no step before it has
//! made. Which checks are asked follows from this list alone: nothing about it is written into the host.

use nineteen_pictures::judge::Safety;
use serde::Deserialize;

/// One step.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Finds the face.
    Detect(Detect),
    /// Puts the face's five points where the next model expects them.
    Align {},
    /// Makes the face's vector.
    Identify {
        /// What makes it.
        model: String,
    },
    /// Gives the pipeline that vector.
    Condition {
        /// How.
        with: With,
    },
    /// Makes the portrait.
    Generate {
        /// The pipeline; absent, the task's own.
        model: Option<String>,
    },
    /// What is asked of a reply.
    Check(Box<Demands>),
}

/// How the pipeline is given a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum With {
    /// Tokens made from its vector, behind those of the text.
    ImagePrompt,
}

/// How faces are found.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detect {
    /// What finds them.
    pub model: String,
    /// Score from which a face is one.
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// This near to the threshold nobody is blamed.
    #[serde(default = "margin")]
    pub margin: f64,
}

const fn threshold() -> f64 {
    0.5
}
const fn margin() -> f64 {
    0.2
}

impl Detect {
    /// Score from which a face may be one.
    #[must_use]
    pub fn low(&self) -> f64 {
        self.threshold - self.margin
    }

    /// Score from which nobody doubts it.
    #[must_use]
    pub fn high(&self) -> f64 {
        self.threshold + self.margin
    }
}

/// What is asked of a reply beside being like our own portrait.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Demands {
    /// It shows exactly one face.
    pub one_face: bool,
    /// Cosine to the photograph's face that it must reach, where our own portrait does.
    pub identity: Option<f64>,
    /// Mean absolute difference up to which the photograph counts as returned.
    pub warp: Option<f64>,
    /// The vision model whose vectors of the reply and of our own portrait are compared.
    pub prompt: Option<String>,
    /// It must be nearer to our portrait than to one from another seed.
    pub decoy: bool,
    /// What has to be flagged.
    pub safety: Option<Safety>,
}

/// The steps with what they need in place.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// How the face is found, if it is.
    pub detect: Option<&'a Detect>,
    /// Whether the next model gets the face's points.
    pub align: bool,
    /// What makes the face's vector, if one is made.
    pub identify: Option<&'a str>,
    /// Whether the pipeline gets it.
    pub condition: bool,
    /// The pipeline.
    pub model: &'a str,
    /// What is asked of a reply.
    pub demands: Demands,
}

impl<'a> Plan<'a> {
    /// Reads the steps in order; `model` is the task's own pipeline.
    ///
    /// # Errors
    /// The step that stands where it cannot, in words for the author of a manifest.
    pub fn new(steps: &'a [Step], model: &'a str) -> Result<Self, String> {
        let mut plan = Self {
            detect: None,
            align: false,
            identify: None,
            condition: false,
            model,
            demands: Demands::default(),
        };
        let (mut generated, mut checked) = (false, false);
        for (i, step) in steps.iter().enumerate() {
            let wrong = |words: &str| Err(format!("workflow: step {} {words}", i + 1));
            if checked {
                return wrong("stands behind check, which is the last");
            }
            if generated && !matches!(step, Step::Check(_)) {
                return wrong("stands behind generate, where only check can");
            }
            match step {
                Step::Detect(_) if plan.detect.is_some() => return wrong("detects a second time"),
                Step::Detect(d) => {
                    if d.model.is_empty() || d.margin < 0.0 || d.low() <= 0.0 || d.high() >= 1.0 {
                        return wrong(
                            "(detect) needs a model, 0 < threshold - margin, threshold + margin < 1",
                        );
                    }
                    plan.detect = Some(d);
                }
                Step::Align {} if plan.detect.is_none() => return wrong("(align) needs detect before it"),
                Step::Align {} if plan.identify.is_some() => return wrong("(align) stands behind identify"),
                Step::Align {} => plan.align = true,
                Step::Identify { model } if model.is_empty() || plan.identify.is_some() => {
                    return wrong("(identify) needs a model, once");
                }
                Step::Identify { model } => plan.identify = Some(model),
                Step::Condition { with: With::ImagePrompt } if plan.identify.is_none() => {
                    return wrong("(condition) needs identify before it");
                }
                Step::Condition { with: With::ImagePrompt } => plan.condition = true,
                Step::Generate { model } => {
                    plan.model = model.as_deref().unwrap_or(plan.model);
                    generated = true;
                }
                Step::Check(_) if !generated => return wrong("(check) needs generate before it"),
                Step::Check(demands) => {
                    demands.validate(&plan).map_err(|words| format!("workflow: step {} {words}", i + 1))?;
                    plan.demands = demands.as_ref().clone();
                    checked = true;
                }
            }
        }
        if !generated || plan.model.is_empty() {
            return Err("workflow: nothing is generated".to_owned());
        }
        Ok(plan)
    }

    /// Whether faces are looked for in replies.
    #[must_use]
    pub const fn looks_for_faces(&self) -> bool {
        self.demands.one_face || self.demands.identity.is_some()
    }
}

impl Demands {
    fn validate(&self, plan: &Plan<'_>) -> Result<(), String> {
        let refuse = |words: &str| Err(format!("(check) {words}"));
        if self.one_face && plan.detect.is_none() {
            return refuse("one_face needs detect");
        }
        if self.identity.is_some() && (plan.identify.is_none() || plan.detect.is_none()) {
            return refuse("identity needs detect and identify");
        }
        if self.identity.is_some_and(|x| !(-1.0..=1.0).contains(&x)) {
            return refuse("identity must be within -1 and 1");
        }
        if self.warp.is_some_and(|x| !(x > 0.0 && x < 1.0)) {
            return refuse("warp must be above 0 and below 1");
        }
        if self.prompt.as_ref().is_some_and(String::is_empty) {
            return refuse("prompt must name a model");
        }
        self.safety.as_ref().map_or(Ok(()), Safety::validate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(steps: &str) -> Result<(bool, bool, bool), String> {
        let steps: Vec<Step> = serde_json::from_str(steps).map_err(|e| e.to_string())?;
        Plan::new(&steps, "own").map(|p| (p.detect.is_some(), p.condition, p.model == "own"))
    }

    #[test]
    fn steps_may_be_left_out() {
        let detect = r#"{"do":"detect","model":"f"}"#;
        let whole = format!(
            r#"[{detect},{{"do":"align"}},{{"do":"identify","model":"i"}},{{"do":"condition","with":"image-prompt"}},
            {{"do":"generate"}},{{"do":"check","one_face":true,"identity":0.6,"decoy":true,"safety":{{"model":"s"}}}}]"#
        );
        assert_eq!(plan(&whole), Ok((true, true, true)));
        assert_eq!(plan(r#"[{"do":"generate","model":"other"}]"#), Ok((false, false, false)));
        assert_eq!(
            plan(&format!(r#"[{detect},{{"do":"generate"}},{{"do":"check","one_face":true}}]"#)),
            Ok((true, false, true))
        );
    }

    #[test]
    fn a_step_that_uses_what_is_not_there_is_named() {
        for (steps, words) in [
            (r"[]", "nothing is generated"),
            (r#"[{"do":"align"},{"do":"generate"}]"#, "step 1 (align)"),
            (r#"[{"do":"condition","with":"image-prompt"},{"do":"generate"}]"#, "identify before it"),
            (r#"[{"do":"check"},{"do":"generate"}]"#, "generate before it"),
            (r#"[{"do":"generate"},{"do":"generate"}]"#, "only check"),
            (r#"[{"do":"generate"},{"do":"check"},{"do":"check"}]"#, "the last"),
            (r#"[{"do":"generate"},{"do":"check","one_face":true}]"#, "one_face needs detect"),
            (r#"[{"do":"generate"},{"do":"check","identity":0.5}]"#, "identity needs"),
            (r#"[{"do":"generate"},{"do":"check","warp":0}]"#, "warp"),
            (r#"[{"do":"generate"},{"do":"check","smile":true}]"#, "smile"),
            (r#"[{"do":"upscale"},{"do":"generate"}]"#, "upscale"),
            (r#"[{"do":"detect","model":"f","margin":0.5},{"do":"generate"}]"#, "margin"),
            (r#"[{"do":"detect","model":"f"},{"do":"detect","model":"f"},{"do":"generate"}]"#, "second"),
            (
                r#"[{"do":"identify","model":"i"},{"do":"condition","with":"control-net"},{"do":"generate"}]"#,
                "control-net",
            ),
        ] {
            let said = plan(steps).unwrap_err();
            assert!(said.contains(words), "{steps}: {said}");
        }
    }
}
