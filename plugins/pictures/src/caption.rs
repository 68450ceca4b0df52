//! Captions from templates and lists of words, as the manifest gives them.
//!
//! The words are the task's, not the plugin's: a model of another world is another manifest. A caption need not be one
//! that nobody has asked for before, with a small grammar it cannot be; the seed beside it is what makes a request unlike
//! every other.

use std::collections::BTreeMap;

use nineteen_sdk::Rng;
use serde::Deserialize;

/// Slots may name slots, but not forever.
const DEEPEST: usize = 4;

/// What synthetic requests are like.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Synthetic {
    /// Captions with `{slots}`.
    pub templates: Vec<String>,
    /// What each slot may say; entries may hold slots themselves.
    pub words: BTreeMap<String, Vec<String>>,
    /// Slots that people leave out.
    #[serde(default)]
    pub optional: Vec<String>,
    /// How often each of these is left out.
    #[serde(default = "left_out_share")]
    pub left_out_share: f64,
    /// Captions that begin with a capital letter.
    #[serde(default = "capital_share")]
    pub capital_share: f64,
    /// What people do not want to see: templates as well.
    #[serde(default)]
    pub negative: Vec<String>,
    /// Requests with such a negative prompt.
    #[serde(default = "negative_share")]
    pub negative_share: f64,
    /// Captions that ask for what has to be flagged.
    #[serde(default)]
    pub forbidden: Vec<String>,
    /// Requests with such a caption.
    #[serde(default = "forbidden_share")]
    pub forbidden_share: f64,
    /// Clients that bring a seed of their own.
    #[serde(default = "seed_share")]
    pub seed_share: f64,
    /// Clients that say how many steps.
    #[serde(default = "steps_share")]
    pub steps_share: f64,
    /// Clients that say how much guidance.
    #[serde(default = "guidance_share")]
    pub guidance_share: f64,
    /// Clients that name a scheduler.
    #[serde(default = "scheduler_share")]
    pub scheduler_share: f64,
    /// Clients that name a size.
    #[serde(default = "size_share")]
    pub size_share: f64,
}

const fn left_out_share() -> f64 {
    0.25
}
const fn capital_share() -> f64 {
    0.3
}
const fn negative_share() -> f64 {
    0.2
}
const fn forbidden_share() -> f64 {
    0.015
}
const fn seed_share() -> f64 {
    0.25
}
const fn steps_share() -> f64 {
    0.5
}
const fn guidance_share() -> f64 {
    0.4
}
const fn scheduler_share() -> f64 {
    0.15
}
const fn size_share() -> f64 {
    0.5
}

/// Names in braces.
fn slots(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).map(|rest| rest.split_once('}').map_or("", |(name, _)| name))
}

impl Synthetic {
    /// Bounds that types cannot say.
    ///
    /// # Errors
    /// Which parameter, and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        if self.templates.is_empty() {
            return Err("synthetic.templates must not be empty".to_owned());
        }
        let shares = [
            self.left_out_share,
            self.capital_share,
            self.negative_share,
            self.forbidden_share,
            self.seed_share,
            self.steps_share,
            self.guidance_share,
            self.scheduler_share,
            self.size_share,
        ];
        if !shares.iter().all(|x| (0.0..=1.0).contains(x)) {
            return Err("shares in synthetic must be within 0 and 1".to_owned());
        }
        if let Some(slot) = self.optional.iter().find(|slot| !self.words.contains_key(*slot)) {
            return Err(format!("synthetic.optional names {slot}, which has no words"));
        }
        let texts = self.templates.iter().chain(&self.negative).chain(&self.forbidden);
        for template in texts.chain(self.words.values().flatten()) {
            if let Some(slot) = slots(template).find(|slot| self.words.get(*slot).is_none_or(Vec::is_empty)) {
                return Err(format!("synthetic: `{template}` has the slot {{{slot}}}, which has no words"));
            }
        }
        Ok(())
    }

    /// A caption; one that has to be flagged now and then.
    #[must_use]
    pub fn caption(&self, rng: &mut Rng) -> String {
        let forbidden = rng.chance(self.forbidden_share) && !self.forbidden.is_empty();
        let text = self.expand(if forbidden { &self.forbidden } else { &self.templates }, true, rng);
        if rng.chance(self.capital_share) { capitalised(&text) } else { text }
    }

    /// What the picture shall not show, where the client says it.
    #[must_use]
    pub fn negative(&self, rng: &mut Rng) -> Option<String> {
        let said = rng.chance(self.negative_share) && !self.negative.is_empty();
        said.then(|| self.expand(&self.negative, false, rng))
    }

    fn expand(&self, templates: &[String], may_leave_out: bool, rng: &mut Rng) -> String {
        let Some(template) = rng.pick(templates) else { return String::new() };
        tidy(&self.filled(template, may_leave_out, DEEPEST, rng))
    }

    fn filled(&self, template: &str, may_leave_out: bool, depth: usize, rng: &mut Rng) -> String {
        let mut parts = template.split('{');
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (slot, rest) = part.split_once('}').unwrap_or(("", part));
            let optional = may_leave_out && self.optional.iter().any(|o| o == slot);
            if !(optional && rng.chance(self.left_out_share))
                && depth > 0
                && let Some(word) = self.words.get(slot).and_then(|words| rng.pick(words))
            {
                text.push_str(&self.filled(word, may_leave_out, depth - 1, rng));
            }
            text.push_str(rest);
        }
        text
    }
}

/// What left-out words leave behind goes: blanks, and commas and conjunctions with nothing between them.
fn tidy(text: &str) -> String {
    let spaced = text.replace(',', " , ");
    let mut words: Vec<&str> = Vec::new();
    for word in spaced.split_whitespace() {
        let binds = |w: &str| matches!(w, "," | "and");
        if !(binds(word) && words.last().is_none_or(|last| binds(last))) {
            words.push(word);
        }
    }
    while words.last().is_some_and(|w| matches!(*w, "," | "and")) {
        words.pop();
    }
    words.join(" ").replace(" ,", ",")
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn synthetic(more: &str) -> Synthetic {
        let json = format!(
            r#"{{"templates":["a {{size}} {{colour}} dot {{place}} , on {{ground}}, {{style}}"],
            "words":{{"size":["small","large"],"colour":["red","blue"],"place":["at the {{side}}"],"side":["left","top"],
            "ground":["sand"],"style":["flat","striped"]}},"optional":["size","style","place"]{more}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn captions_vary_and_read_like_captions() {
        let s = synthetic(r#","forbidden":["a sigil"],"negative":["{colour}"],"negative_share":0.5"#);
        s.validate().unwrap();
        let mut rng = Rng::new(&[1; 32]);
        let all: Vec<String> = (0..2_000).map(|_| s.caption(&mut rng)).collect();
        let different: HashSet<&String> = all.iter().collect();
        assert!(different.len() > 50, "{}", different.len());
        for caption in &all {
            let odd = ["  ", " ,", ",,", "{", "}"].iter().any(|odd| caption.contains(odd));
            assert!(!odd && !caption.ends_with([',', ' ']) && !caption.is_empty(), "{caption}");
        }
        let sigils = all.iter().filter(|c| c.to_lowercase() == "a sigil").count();
        assert!((10..60).contains(&sigils), "{sigils} of 2000 ask for the forbidden");
        assert!(all.contains(&"a red dot at the left, on sand, flat".to_owned()), "{:?}", &all[..20]);
        let negatives = (0..1_000).filter_map(|_| s.negative(&mut rng)).collect::<Vec<_>>();
        assert!((430..570).contains(&negatives.len()) && negatives.iter().all(|n| n == "red" || n == "blue"));
    }

    #[test]
    fn a_manifest_that_leaves_a_slot_without_words_is_told_so() {
        assert!(synthetic(r#","negative":["{age}"]"#).validate().unwrap_err().contains("{age}"));
        assert!(synthetic(r#","seed_share":1.5"#).validate().unwrap_err().contains("shares"));
        let round = Synthetic {
            words: BTreeMap::from([("a".into(), vec!["{a}{a}".into()])]),
            optional: vec![],
            templates: vec!["{a}".into()],
            ..synthetic("")
        };
        assert_eq!(round.caption(&mut Rng::new(&[2; 32])), "", "a slot that names itself ends");
    }
}
