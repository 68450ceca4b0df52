//! What the store says about unfinished periods, for the schedule to go on with.

use std::collections::BTreeSet;

use nineteen_domain::PeriodId;
use nineteen_domain::ledger::ProbeClass;
use nineteen_schedule::{FinishedProbe, PeriodPlan, Resume};
use nineteen_store::Store;

use crate::error::ValidatorError;

/// Reads plans, departures, ends and judgements of every period that is not settled. Blocks.
pub(crate) fn read(store: &Store) -> Result<Resume, ValidatorError> {
    let mut resume = Resume {
        next_period: store.latest_period()?.map_or(0, |p: PeriodId| p.next().0),
        ..Resume::default()
    };
    let mut dispatched = BTreeSet::new();
    let mut judged = BTreeSet::new();
    for period in store.unsettled_periods()? {
        let Some(plan) = store.plan(period)? else { continue };
        let plan: PeriodPlan = serde_json::from_value(plan).map_err(|e| ValidatorError::Part {
            part: "reader of plans",
            why: format!("the plan of period {period} is not one that this version understands: {e}"),
        })?;
        resume.plans.push(plan);
        dispatched.extend(store.unfinished_probes(period)?.into_iter().map(|(probe, _)| probe));
        for finished in store.finished(period) {
            let finished = finished?;
            dispatched.insert(finished.probe.clone());
            if finished.class == ProbeClass::Answered && store.sample(&finished.probe)?.is_some() {
                judged.insert(finished.probe.clone());
            }
            resume.finished.push(FinishedProbe {
                probe: finished.probe,
                class: finished.class,
                units: finished.units,
            });
        }
    }
    resume.dispatched = dispatched;
    resume.judged = judged;
    Ok(resume)
}
