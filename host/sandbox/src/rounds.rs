//! The rounds of `score`: ask, check, ask again, until the plugin decides or a budget ends it.
//!
//! No instance is alive while checks run, so a slow executor costs no slot and no wall time of the task.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;
use nineteen_domain::meet::Checker;
use nineteen_domain::{Check, Digest, Evidence, Exchange, Outcome, Request};

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
    fn may_ask(&self, checks: &[Check], asked: &mut HashSet<Digest>, rounds: u32) -> Result<(), CallError> {
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
