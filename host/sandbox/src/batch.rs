//! Several exchanges of one task in one call, so that they share what a call costs.
//!
//! The one idea: **`score` has the last word.** A batch is a shortcut to what `score` would say of each exchange
//! alone. Whatever goes wrong in it, each exchange is then asked alone on a fresh instance, so that no miner's
//! bytes cost another miner anything; and of every batch one exchange, drawn here, is asked alone in any case.
//! A plugin whose batches do not say the same gets no more of them.
//!
//! A batch that fails costs at most as much again as its exchanges alone.

use std::sync::atomic::Ordering;

use nineteen_domain::task::Budget;
use nineteen_domain::{Check, Evidence, Exchange, Outcome, Request};
use wasmtime::Store;

use crate::abi::{Broken, Desk, InStore, Scored};
use crate::contract;
use crate::error::{Call, CallError};
use crate::inputs::{put, put_evidence, put_exchange, size_of_scoring};
use crate::plugin::{Metered, Plugin};
use crate::receipt::same_outcome;

/// The most exchanges in one call.
const MOST: usize = 64;

/// An exchange to be scored, and the evidence so far.
#[derive(Debug, Clone)]
pub struct Scoring {
    /// What was asked.
    pub request: Request,
    /// What came back.
    pub exchange: Exchange,
    /// In the order in which it was asked for.
    pub evidence: Vec<(Check, Evidence)>,
}

impl Plugin {
    /// One round of several exchanges: one result for each, in their order, and each what [`Plugin::score`]
    /// gives for it alone. For a component whose WIT knows no batches it is that.
    ///
    /// # Errors
    /// Each exchange its own, as [`Plugin::score`]; one does not touch another's.
    pub fn score_batch(&self, batch: &[Scoring]) -> Vec<Result<Outcome, CallError>> {
        self.score_batch_metered(batch).into_iter().map(|m| m.result).collect()
    }

    /// The fuel of a batch is divided evenly.
    pub(crate) fn score_batch_metered(&self, batch: &[Scoring]) -> Vec<Metered<Outcome>> {
        self.pieces(batch).into_iter().flat_map(|piece| self.score_piece(piece)).collect()
    }

    /// Cuts a batch so that each piece fits the caps of one call.
    fn pieces<'a>(&self, batch: &'a [Scoring]) -> Vec<&'a [Scoring]> {
        let fixed = self.params_len();
        let mut pieces = Vec::new();
        let mut rest = batch;
        while !rest.is_empty() {
            let mut bytes = fixed;
            let fits = rest.iter().take(MOST).take_while(|one| {
                bytes = bytes.saturating_add(size_of_scoring(one));
                bytes <= Budget::CAP.bytes_in
            });
            let (piece, left) = rest.split_at(fits.count().max(1));
            pieces.push(piece);
            rest = left;
        }
        pieces
    }

    fn score_piece(&self, piece: &[Scoring]) -> Vec<Metered<Outcome>> {
        let too_large = |one: &Scoring| {
            size_of_scoring(one).saturating_add(self.params_len()) > self.shared.budget.bytes_in
        };
        if piece.len() < 2 || self.distrusted.load(Ordering::Relaxed) || piece.iter().any(too_large) {
            return piece.iter().map(|one| self.score_alone(one)).collect();
        }
        let Metered { result, fuel } = match self.guest().score_batch(self, self.params(), piece) {
            Scored::Alone(each) => return each,
            Scored::Together(all) => all,
        };
        let alone = || piece.iter().map(|one| self.score_alone(one)).collect();
        let outcomes = match result {
            Ok(outcomes) if outcomes.len() == piece.len() => outcomes,
            Ok(outcomes) => {
                self.distrust(&format!("{} exchanges gave {} outcomes", piece.len(), outcomes.len()));
                return alone();
            }
            Err(broken) => {
                tracing::debug!(task = %self.task(), error = %broken, "a batch failed: its exchanges are asked alone");
                return alone();
            }
        };
        let share = fuel / (piece.len() as u64);
        let mut scored: Vec<Metered<Outcome>> = Vec::with_capacity(piece.len());
        for (one, outcome) in piece.iter().zip(outcomes) {
            scored.push(match contract::outcome(&outcome, &one.exchange) {
                Ok(()) => Metered { result: Ok(outcome), fuel: share },
                Err(_) => self.score_alone(one),
            });
        }
        let drawn = draw(piece.len());
        if let (Some(one), Some(said)) = (piece.get(drawn), scored.get(drawn)) {
            let again = self.score_alone(one);
            let same = match (&said.result, &again.result) {
                (Ok(a), Ok(b)) => same_outcome(a, b).is_ok(),
                // Two errors are two calls of `score` alone.
                (Err(a), Err(b)) => a == b,
                _ => false,
            };
            if !same {
                self.distrust("an exchange was scored otherwise in a batch than alone");
                return alone();
            }
        }
        scored
    }

    fn score_alone(&self, one: &Scoring) -> Metered<Outcome> {
        self.score_metered(&one.request, &one.exchange, &one.evidence)
    }

    fn distrust(&self, why: &str) {
        self.distrusted.store(true, Ordering::Relaxed);
        tracing::error!(task = %self.task(), digest = %self.digest(), why, "score-batch breaks its contract: from now on every exchange is scored alone");
    }

    /// Whether this component's batches differed from its `score`; from then on it gets none.
    #[must_use]
    pub fn batches_are_distrusted(&self) -> bool {
        self.distrusted.load(Ordering::Relaxed)
    }
}

/// One of so many, such that a plugin cannot foretell it. Of no effect on results of a plugin that keeps the
/// contract.
fn draw(of: usize) -> usize {
    // Without randomness the first is as good as none: the system that has none does not start a sandbox.
    let drawn = getrandom::u32().unwrap_or(0);
    usize::try_from(drawn).unwrap_or(0).checked_rem(of).unwrap_or(0)
}

impl Desk for Plugin {
    fn alone(&self, one: &Scoring, call: &mut InStore<'_, Outcome>) -> Metered<Outcome> {
        self.score_with(&one.request, &one.exchange, &one.evidence, |store| call(store))
    }

    fn together(&self, batch: &[Scoring], call: &mut InStore<'_, Vec<Outcome>>) -> Metered<Vec<Outcome>> {
        let times = batch.len() as u64;
        let (own, cap) = (&self.shared.budget, Budget::CAP);
        // The memory of one; the rest grows with the exchanges, up to what any task may ask for.
        let budget = Budget {
            fuel: own.fuel.saturating_mul(times).min(cap.fuel),
            wall_ms: own.wall_ms.saturating_mul(times).min(cap.wall_ms),
            bytes_in: own.bytes_in.saturating_mul(times).min(cap.bytes_in),
            bytes_out: own.bytes_out.saturating_mul(times).min(cap.bytes_out),
            ..*own
        };
        let bytes_in = batch.iter().fold(0_u64, |n, one| n.saturating_add(size_of_scoring(one)));
        let inputs = |dice: &mut blake3::Hasher| {
            put(dice, &times.to_le_bytes());
            for one in batch {
                put_exchange(dice, &one.request, &one.exchange);
                put_evidence(dice, &one.evidence);
            }
        };
        let body = |store: &mut Store<_>| -> Result<_, Broken> { call(store) };
        self.run_within(budget, Call::ScoreBatch, bytes_in, inputs, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_drawn() {
        let mut seen = [false; 4];
        for _ in 0..400 {
            seen[draw(4)] = true;
        }
        assert_eq!(seen, [true; 4]);
        assert_eq!(draw(0), 0);
    }
}
