//! The rounds of `score`: ask, check, ask again, until the plugin decides or a budget ends it.
//!
//! No instance is alive while checks run, so a slow executor costs no slot and no wall time of the task.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::future::join_all;
use nineteen_domain::meet::Checker;
use nineteen_domain::{Check, Digest, Evidence, Exchange, Outcome, Request};

use crate::batch::Scoring;
use crate::error::{Call, CallError};
use crate::plugin::{Metered, Plugin};

/// A judged exchange and all that the judgement came from.
#[derive(Debug)]
pub struct Judged {
    /// Never [`Outcome::Need`].
    pub result: Result<Outcome, CallError>,
    /// Every check that was run and its evidence, in the order in which they were asked for.
    pub transcript: Vec<(Check, Evidence)>,
    /// Calls of `score`.
    pub rounds: u32,
    /// Units of fuel of all of them.
    pub fuel: u64,
}

/// An exchange of a batch that is not decided yet.
#[derive(Clone)]
struct Open {
    place: usize,
    scoring: Scoring,
    asked: HashSet<Digest>,
    fuel: u64,
}

impl Plugin {
    /// Judges an exchange: calls `score` on blocking threads, runs the checks that it asks for (granted ones,
    /// side by side), and calls again, for at most `budget.rounds` rounds and `budget.checks` checks.
    ///
    /// Dropping the future gives up the checks; a call that runs then ends within its budget.
    pub async fn judge(
        self: &Arc<Self>,
        request: Request,
        exchange: Exchange,
        checker: Arc<dyn Checker>,
    ) -> Judged {
        let input = Arc::new((request, exchange));
        let mut transcript: Arc<Vec<(Check, Evidence)>> = Arc::default();
        let mut asked = HashSet::new();
        let (mut rounds, mut fuel) = (0, 0_u64);
        let result = loop {
            rounds += 1;
            let Metered { result, fuel: spent } = self.round(&input, &transcript).await;
            fuel = fuel.saturating_add(spent);
            let checks = match result {
                Ok(Outcome::Need(checks)) => checks,
                decided => break decided,
            };
            if let Err(refused) = self.may_ask(&checks, &mut asked, rounds) {
                break Err(refused);
            }
            let evidence = join_all(checks.iter().map(|check| checker.check(check.clone()))).await;
            // The round has ended and given its share of the transcript back: nothing is cloned here.
            Arc::make_mut(&mut transcript).extend(checks.into_iter().zip(evidence));
        };
        let transcript = Arc::try_unwrap(transcript).unwrap_or_else(|shared| (*shared).clone());
        Judged { result, transcript, rounds, fuel }
    }

    /// Judges several exchanges, as [`Plugin::judge`] would each by itself: every round is one batch of those
    /// that are undecided, and the checks of all of them run side by side.
    pub async fn judge_batch(
        self: &Arc<Self>,
        exchanges: Vec<(Request, Exchange)>,
        checker: Arc<dyn Checker>,
    ) -> Vec<Judged> {
        let mut decided: BTreeMap<usize, Judged> = BTreeMap::new();
        let mut open: Vec<Open> = exchanges
            .into_iter()
            .enumerate()
            .map(|(place, (request, exchange))| Open {
                place,
                scoring: Scoring { request, exchange, evidence: Vec::new() },
                asked: HashSet::new(),
                fuel: 0,
            })
            .collect();
        let mut rounds = 0;
        while !open.is_empty() {
            rounds += 1;
            let (back, results) = self.batch_round(open).await;
            let mut next = Vec::new();
            for (mut one, Metered { result, fuel }) in back.into_iter().zip(results) {
                one.fuel = one.fuel.saturating_add(fuel);
                let result = match result {
                    Ok(Outcome::Need(checks)) => match self.may_ask(&checks, &mut one.asked, rounds) {
                        Ok(()) => {
                            next.push((one, checks));
                            continue;
                        }
                        Err(refused) => Err(refused),
                    },
                    decided => decided,
                };
                let transcript = one.scoring.evidence;
                decided.insert(one.place, Judged { result, transcript, rounds, fuel: one.fuel });
            }
            let answers = join_all(next.into_iter().map(|(mut one, checks)| {
                let checker = &checker;
                async move {
                    let evidence = join_all(checks.iter().map(|check| checker.check(check.clone()))).await;
                    one.scoring.evidence.extend(checks.into_iter().zip(evidence));
                    one
                }
            }));
            open = answers.await;
        }
        decided.into_values().collect()
    }

    async fn batch_round(self: &Arc<Self>, open: Vec<Open>) -> (Vec<Open>, Vec<Metered<Outcome>>) {
        let plugin = self.clone();
        let open = Arc::new(open);
        let called = {
            let open = open.clone();
            tokio::task::spawn_blocking(move || {
                let batch: Vec<Scoring> = open.iter().map(|one| one.scoring.clone()).collect();
                plugin.score_batch_metered(&batch)
            })
            .await
        };
        let open = Arc::try_unwrap(open).unwrap_or_else(|shared| (*shared).clone());
        let results = called.unwrap_or_else(|e| {
            let host = || CallError::Host { at: self.at(Call::Score), why: e.to_string() };
            open.iter().map(|_| Metered { result: Err(host()), fuel: 0 }).collect()
        });
        (open, results)
    }

    async fn round(
        self: &Arc<Self>,
        input: &Arc<(Request, Exchange)>,
        transcript: &Arc<Vec<(Check, Evidence)>>,
    ) -> Metered<Outcome> {
        let (plugin, input, transcript) = (self.clone(), input.clone(), transcript.clone());
        let called =
            tokio::task::spawn_blocking(move || plugin.score_metered(&input.0, &input.1, &transcript)).await;
        called.unwrap_or_else(|e| Metered {
            result: Err(CallError::Host { at: self.at(Call::Score), why: e.to_string() }),
            fuel: 0,
        })
    }

    /// Whether these checks may be run in this round.
    pub(crate) fn may_ask(
        &self,
        checks: &[Check],
        asked: &mut HashSet<Digest>,
        rounds: u32,
    ) -> Result<(), CallError> {
        let at = || self.at(Call::Score);
        let budget = &self.shared.budget;
        for check in checks {
            if !self.manifest.grants(&check.kind, check.model.as_deref()) {
                return Err(CallError::NotGranted {
                    at: at(),
                    kind: check.kind.chars().take(80).collect(),
                    model: check.model.as_ref().map(|m| m.chars().take(80).collect()),
                });
            }
            if !asked.insert(check.digest()) {
                let rule = format!("check {} is asked for again, though its evidence was given", check.kind);
                return Err(CallError::Contract { at: at(), rule });
            }
        }
        if asked.len() > budget.checks as usize {
            return Err(CallError::Checks { at: at(), asked: asked.len(), budget: budget.checks });
        }
        if rounds >= budget.rounds {
            return Err(CallError::Rounds { at: at(), budget: budget.rounds });
        }
        Ok(())
    }
}
