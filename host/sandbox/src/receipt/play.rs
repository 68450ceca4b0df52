//! The rounds again from recorded evidence, and the comparison to the bit.

use std::collections::HashSet;

use nineteen_domain::task::Budget;
use nineteen_domain::{Check, Outcome, Verdict};

use super::{Bodies, Decision, ReceiptError, Round, differs, same};
use crate::error::CallError;
use crate::plugin::{Metered, Plugin};

/// Calls `score` with what was recorded, round by round, each on a fresh instance.
pub(super) fn play(plugin: &Plugin, bodies: &Bodies) -> Result<(Vec<Round>, Decision), ReceiptError> {
    let Bodies { request, exchange, evidence } = bodies;
    let (mut rounds, mut asked, mut given) = (Vec::new(), HashSet::new(), 0_usize);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let decision = loop {
        let known = evidence.get(..given).unwrap_or(evidence);
        let Metered { result, fuel } = plugin.score_metered(request, exchange, known);
        let mut round = Round { given: number(given), asked: 0, fuel };
        let failed = match result {
            Ok(Outcome::Need(checks)) => {
                round.asked = number(checks.len());
                rounds.push(round);
                match plugin.may_ask(&checks, &mut asked, number(rounds.len())) {
                    Ok(()) => {
                        given = recorded(&checks, bodies, given)?;
                        continue;
                    }
                    Err(refused) => refused,
                }
            }
            Ok(Outcome::Scored(verdict)) => {
                rounds.push(round);
                break Decision::Scored(verdict);
            }
            Ok(Outcome::Violation(why)) => {
                rounds.push(round);
                break Decision::Violation(why);
            }
            Ok(Outcome::Inconclusive(why)) => {
                rounds.push(round);
                break Decision::Inconclusive(why);
            }
            Err(failed) => {
                rounds.push(round);
                failed
            }
        };
        break match failed {
            CallError::Host { .. } | CallError::WallTime { .. } => return Err(failed.into()),
            failed => Decision::Failed(failed.code().to_owned()),
        };
    };
    if given < evidence.len() {
        let why = "it was recorded, and the plugin did not ask for it".to_owned();
        return Err(ReceiptError::Evidence { place: given, why });
    }
    Ok((rounds, decision))
}

/// Whether what is asked for was recorded next; how much evidence there is then.
fn recorded(checks: &[Check], bodies: &Bodies, given: usize) -> Result<usize, ReceiptError> {
    for (n, check) in checks.iter().enumerate() {
        let place = given.saturating_add(n);
        let kind = super::cut(&check.kind);
        match bodies.evidence.get(place) {
            Some((recorded, _)) if recorded == check => {}
            Some((recorded, _)) => {
                let why = format!(
                    "the plugin asks for {kind} ({}), and {} ({}) was recorded",
                    check.digest(),
                    super::cut(&recorded.kind),
                    recorded.digest()
                );
                return Err(ReceiptError::Evidence { place, why });
            }
            None => {
                let why = format!("the plugin asks for {kind}, and nothing was recorded");
                return Err(ReceiptError::Evidence { place, why });
            }
        }
    }
    Ok(given.saturating_add(checks.len()))
}

pub(super) fn same_budget(said: &Budget, here: &Budget) -> Result<(), ReceiptError> {
    same("budget.fuel", &said.fuel, &here.fuel)?;
    same("budget.wall_ms", &said.wall_ms, &here.wall_ms)?;
    same("budget.memory_bytes", &said.memory_bytes, &here.memory_bytes)?;
    same("budget.bytes_in", &said.bytes_in, &here.bytes_in)?;
    same("budget.bytes_out", &said.bytes_out, &here.bytes_out)?;
    same("budget.rounds", &said.rounds, &here.rounds)?;
    same("budget.checks", &said.checks, &here.checks)
}

pub(super) fn same_rounds(said: &[Round], found: &[Round]) -> Result<(), ReceiptError> {
    for (n, (said, found)) in said.iter().zip(found).enumerate() {
        same(&format!("rounds[{n}].given"), &said.given, &found.given)?;
        same(&format!("rounds[{n}].asked"), &said.asked, &found.asked)?;
        same(&format!("rounds[{n}].fuel"), &said.fuel, &found.fuel)?;
    }
    same("rounds", &said.len(), &found.len())
}

pub(super) fn same_decision(said: &Decision, found: &Decision) -> Result<(), ReceiptError> {
    match (said, found) {
        (Decision::Scored(a), Decision::Scored(b)) => same_verdict(a, b),
        (Decision::Violation(a), Decision::Violation(b)) => same("decision.violation", a, b),
        (Decision::Inconclusive(a), Decision::Inconclusive(b)) => same("decision.inconclusive", a, b),
        (Decision::Failed(a), Decision::Failed(b)) => same("decision.failed", a, b),
        (a, b) => Err(ReceiptError::Differs {
            field: "decision".into(),
            said: name(a).to_owned(),
            found: name(b).to_owned(),
        }),
    }
}

const fn name(decision: &Decision) -> &'static str {
    match decision {
        Decision::Scored(_) => "scored",
        Decision::Violation(_) => "a violation",
        Decision::Inconclusive(_) => "inconclusive",
        Decision::Failed(_) => "failed",
    }
}

/// Whether two outcomes are the same, to the bits of every number.
pub(crate) fn same_outcome(a: &Outcome, b: &Outcome) -> Result<(), ReceiptError> {
    match (a, b) {
        (Outcome::Scored(a), Outcome::Scored(b)) => same_verdict(a, b),
        // Nothing else has numbers with two notations of one value.
        _ if a == b => Ok(()),
        _ => Err(differs("decision", a, b)),
    }
}

fn same_verdict(said: &Verdict, found: &Verdict) -> Result<(), ReceiptError> {
    same_bits("decision.scored.quality", said.quality, found.quality)?;
    same("decision.scored.units", &said.units, &found.units)?;
    if said.units_by_chunk != found.units_by_chunk {
        return Err(differs("decision.scored.units_by_chunk", &said.units_by_chunk, &found.units_by_chunk));
    }
    same_pairs("decision.scored.suspicions", &said.suspicions, &found.suspicions)?;
    if said.fingerprints != found.fingerprints {
        return Err(differs("decision.scored.fingerprints", &said.fingerprints, &found.fingerprints));
    }
    same_pairs("decision.scored.reasons", &said.reasons, &found.reasons)
}

fn same_pairs(field: &str, said: &[(String, f64)], found: &[(String, f64)]) -> Result<(), ReceiptError> {
    for (n, ((a, x), (b, y))) in said.iter().zip(found).enumerate() {
        same(&format!("{field}[{n}].name"), a, b)?;
        same_bits(&format!("{field}[{n}] ({a})"), *x, *y)?;
    }
    same(&format!("{field}, their number"), &said.len(), &found.len())
}

fn same_bits(field: &str, said: f64, found: f64) -> Result<(), ReceiptError> {
    if said.to_bits() == found.to_bits() { Ok(()) } else { Err(differs(field, &said, &found)) }
}
