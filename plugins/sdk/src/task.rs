//! The trait an author writes, and the context that hides the rounds.
//!
//! `score` is called again and again, each time with more evidence, until it decides. An author does not
//! see this: [`Cx::check`] returns the answer when there is one, and otherwise stops the function with `?`;
//! the next call runs through the same lines and gets further. The function must therefore be a pure
//! function of its arguments, which it is anyway: there is nothing else to read.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::calibration::{self, Calibration};
use crate::checks::Kind;
use crate::rng::Rng;
use crate::types::{
    Check, ClientCall, Description, Evidence, Exchange, Refusal, Request, Synthetic, Verdict,
};

/// A task of the subnet.
pub trait Task {
    /// The manifest's `[params]`. Derive `Deserialize` with `deny_unknown_fields`: a typing error in a
    /// manifest should not become a default.
    type Params: DeserializeOwned;

    /// Bounds that types cannot say; run before every other function.
    ///
    /// # Errors
    /// In words for the author of a manifest: which parameter, what it may be.
    fn validate(_params: &Self::Params) -> Result<(), String> {
        Ok(())
    }

    /// Who the task is, for these parameters.
    ///
    /// # Errors
    /// In words for the author of a manifest.
    fn describe(params: &Self::Params) -> Result<Description, String>;

    /// A request like those of users.
    ///
    /// # Errors
    /// When parameters leave no request to make.
    fn synthesize(params: &Self::Params, rng: &mut Rng) -> Result<Synthetic, String>;

    /// A client's body as a request; `rng` is for what the protocol needs (seeds, ids).
    ///
    /// # Errors
    /// A refusal for the client.
    fn admit(params: &Self::Params, call: ClientCall<'_>, rng: &mut Rng) -> Result<Request, Refusal>;

    /// Units that the bytes claim, before any check; `None` when they are no reply of this task.
    fn count(params: &Self::Params, request: &Request, exchange: &Exchange) -> Option<u64>;

    /// Judges one exchange.
    ///
    /// # Errors
    /// [`Stop`]: more evidence needed, a violation, or no judgement possible.
    fn score(
        params: &Self::Params,
        cx: &mut Cx,
        request: &Request,
        exchange: &Exchange,
    ) -> Result<Verdict, Stop>;
}

/// Why `score` ends without a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// These checks are asked for; the host calls again.
    Need(Vec<Check>),
    /// A rule of the task is broken (`code: words`): quality 0.
    Violation(String),
    /// A check could not be answered. Becomes `inconclusive`, unless the author decides otherwise: a reason
    /// that begins with `invalid: ` speaks of the reply (see [`Stop::is_invalid`]).
    Unavailable(String),
    /// A fault of the validator's: says nothing about the miner.
    Inconclusive(String),
}

impl Stop {
    /// A broken rule: a stable code and words that say what was found.
    #[must_use]
    pub fn violation(code: &str, words: impl AsRef<str>) -> Self {
        Self::Violation(format!("{code}: {}", words.as_ref()))
    }

    /// Whether the executor found the check itself impossible, e.g. ids outside the vocabulary.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Unavailable(reason) if reason.starts_with("invalid: "))
    }
}

/// The evidence so far, and what was shipped with the task.
#[derive(Debug, Default)]
pub struct Cx {
    evidence: Vec<(Check, Evidence)>,
    /// Beside what the host gives; for tests.
    assets: BTreeMap<String, Vec<u8>>,
}

impl Cx {
    /// A context with this evidence; for the SDK's adapter and for tests.
    #[must_use]
    pub const fn new(evidence: Vec<(Check, Evidence)>) -> Self {
        Self { evidence, assets: BTreeMap::new() }
    }

    /// The same with a file of the task's; for tests, which have no host that ships any.
    #[must_use]
    pub fn with_asset(mut self, name: &str, bytes: &[u8]) -> Self {
        self.assets.insert(name.to_owned(), bytes.to_vec());
        self
    }

    /// A file that was shipped with the task.
    #[must_use]
    pub fn asset(&self, name: &str) -> Option<Vec<u8>> {
        let given = self.assets.get(name).cloned();
        #[cfg(target_arch = "wasm32")]
        let given = given.or_else(|| crate::guest::bindings::nineteen::task::assets::read(name));
        given
    }

    /// The task's calibration, if it has one.
    ///
    /// # Errors
    /// [`Stop::Inconclusive`] for one that cannot be read: the host refuses those, so it is no fault of a miner's.
    pub fn calibration(&self) -> Result<Option<Calibration>, Stop> {
        let read = |bytes: Vec<u8>| Calibration::read(&bytes);
        self.asset(calibration::ASSET)
            .map(read)
            .transpose()
            .map_err(|e| Stop::Inconclusive(format!("{}: {e}", calibration::ASSET)))
    }

    /// The answer to one check.
    ///
    /// # Errors
    /// [`Stop::Need`] as long as there is none, [`Stop::Unavailable`] when there will be none.
    pub fn check<K: Kind>(&mut self, kind: K) -> Result<K::Answer, Stop> {
        let mut needed = Vec::new();
        let found = self.find(&kind, &mut needed);
        found.unwrap_or(Err(Stop::Need(needed)))
    }

    /// The answers to several checks, asked for in one round.
    ///
    /// ```
    /// # use nineteen_sdk::{Cx, checks::{EmbeddingEmbed, TextTokenize}, Stop};
    /// # fn f(cx: &mut Cx) -> Result<(), Stop> {
    /// let (words, vector) = cx.checks((
    ///     TextTokenize { model: "a", text: "hello" },
    ///     EmbeddingEmbed { model: "b", texts: &["hello"] },
    /// ))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Cx::check`]; what is missing is asked for together.
    pub fn checks<S: Several>(&mut self, several: S) -> Result<S::Answers, Stop> {
        several.all(self)
    }

    /// `None` when the check is still to be asked; it is then in `needed`.
    fn find<K: Kind>(&self, kind: &K, needed: &mut Vec<Check>) -> Option<Result<K::Answer, Stop>> {
        let check = kind.check();
        let Some((_, evidence)) = self.evidence.iter().find(|(asked, _)| *asked == check) else {
            if !needed.contains(&check) {
                needed.push(check);
            }
            return None;
        };
        Some(match evidence {
            Evidence::Answered(answer) => kind.read(answer).map_err(|e| {
                Stop::Inconclusive(format!("evidence: the answer to {} cannot be read: {e}", check.kind))
            }),
            Evidence::Unavailable(why) => Err(Stop::Unavailable(why.clone())),
        })
    }
}

/// Checks that are asked for together: tuples and lists of [`Kind`]s.
pub trait Several {
    /// Their answers, in order.
    type Answers;
    /// Finds all of them.
    ///
    /// # Errors
    /// As [`Cx::check`].
    fn all(self, cx: &Cx) -> Result<Self::Answers, Stop>;
}

impl<A: Kind, B: Kind> Several for (A, B) {
    type Answers = (A::Answer, B::Answer);
    fn all(self, cx: &Cx) -> Result<Self::Answers, Stop> {
        let mut needed = Vec::new();
        match (cx.find(&self.0, &mut needed), cx.find(&self.1, &mut needed)) {
            (Some(a), Some(b)) => Ok((a?, b?)),
            _ => Err(Stop::Need(needed)),
        }
    }
}

impl<A: Kind, B: Kind, C: Kind> Several for (A, B, C) {
    type Answers = (A::Answer, B::Answer, C::Answer);
    fn all(self, cx: &Cx) -> Result<Self::Answers, Stop> {
        let mut needed = Vec::new();
        let found =
            (cx.find(&self.0, &mut needed), cx.find(&self.1, &mut needed), cx.find(&self.2, &mut needed));
        match found {
            (Some(a), Some(b), Some(c)) => Ok((a?, b?, c?)),
            _ => Err(Stop::Need(needed)),
        }
    }
}

impl<K: Kind> Several for Vec<K> {
    type Answers = Vec<K::Answer>;
    fn all(self, cx: &Cx) -> Result<Self::Answers, Stop> {
        let mut needed = Vec::new();
        let found: Vec<_> = self.iter().map(|k| cx.find(k, &mut needed)).collect();
        if needed.is_empty() { found.into_iter().flatten().collect() } else { Err(Stop::Need(needed)) }
    }
}

/// Reads and validates parameters; what [`crate::export!`] does first in every call.
///
/// # Errors
/// In words for the author of a manifest.
pub fn params<T: Task>(json: &str) -> Result<T::Params, String> {
    let params = serde_json::from_str(json).map_err(|e| format!("params: {e}"))?;
    T::validate(&params).map_err(|e| format!("params: {e}"))?;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{EmbeddingEmbed, TextTokenize};
    use crate::types::Answer;

    const WORDS: TextTokenize<'static> = TextTokenize { model: "m", text: "hi" };
    const VECTOR: EmbeddingEmbed<'static, &str> = EmbeddingEmbed { model: "e", texts: &["hi"] };

    fn ids() -> (Check, Evidence) {
        let params = r#"{"version":1,"model":"m","ids":[7]}"#.to_owned();
        (WORDS.check(), Evidence::Answered(Answer { params, blobs: vec![] }))
    }

    #[test]
    fn a_check_is_asked_once_and_then_answered() {
        let asked = Cx::default().check(WORDS);
        assert_eq!(asked.unwrap_err(), Stop::Need(vec![WORDS.check()]));
        assert_eq!(Cx::new(vec![ids()]).check(WORDS).unwrap().ids, [7]);
    }

    #[test]
    fn several_checks_are_asked_in_one_round_and_only_what_is_missing() {
        let all = Cx::default().checks((WORDS, VECTOR)).unwrap_err();
        assert_eq!(all, Stop::Need(vec![WORDS.check(), VECTOR.check()]));
        let rest = Cx::new(vec![ids()]).checks((WORDS, VECTOR)).unwrap_err();
        assert_eq!(rest, Stop::Need(vec![VECTOR.check()]));
        let twice = Cx::default().checks(vec![WORDS, WORDS]).unwrap_err();
        assert_eq!(twice, Stop::Need(vec![WORDS.check()]), "the same check is asked for once");
    }

    #[test]
    fn an_unavailable_answer_stops_with_its_reason_and_tells_whose_fault_it_is() {
        let stop = |why: &str| {
            Cx::new(vec![(WORDS.check(), Evidence::Unavailable(why.into()))]).check(WORDS).unwrap_err()
        };
        assert!(stop("invalid: id 99999").is_invalid());
        assert!(!stop("busy").is_invalid());
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_ours_not_the_miners() {
        let evidence = Evidence::Answered(Answer { params: "{}".into(), blobs: vec![] });
        let stop = Cx::new(vec![(WORDS.check(), evidence)]).check(WORDS).unwrap_err();
        assert!(matches!(stop, Stop::Inconclusive(_)));
    }
}
