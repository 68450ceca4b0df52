//! What the store says about unfinished periods, for the schedule to go on with.

use std::collections::BTreeSet;

use nineteen_domain::ledger::ProbeClass;
use nineteen_domain::{Hotkey, PeriodId, TaskName};
use nineteen_schedule::{FinishedProbe, PeriodPlan, Resume};
use nineteen_store::Store;

use crate::error::ValidatorError;

/// Rows that are looked at for a streak: more than any policy asks for.
const MOST_ROWS: usize = 64;

/// Reads plans, departures, ends and judgements of every period that is not settled. Blocks.
///
/// A window counts as sustained from this share of its volume on.
pub(crate) fn read(store: &Store, sustained_at: f64) -> Result<Resume, ValidatorError> {
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
                took_us: finished.took_us,
            });
        }
        for window in store.windows(period)? {
            resume.windows.push(serde_json::from_value(window).map_err(|e| ValidatorError::Part {
                part: "reader of plans",
                why: format!("a window of period {period} is not one that this version understands: {e}"),
            })?);
        }
    }
    resume.streaks = streaks(store, sustained_at)?;
    resume.dispatched = dispatched;
    resume.judged = judged;
    Ok(resume)
}

/// For how many settled periods in a row every window was sustained, as the rows say.
fn streaks(store: &Store, sustained_at: f64) -> Result<Vec<(TaskName, Hotkey, u32)>, ValidatorError> {
    let mut streaks = Vec::new();
    for (task, miner) in store.pairs()? {
        // Periods without a window say nothing.
        let mut n = 0_u32;
        for row in store.rows(&miner, &task, 0)?.iter().take(MOST_ROWS) {
            match nineteen_schedule::sustained(row, sustained_at) {
                Some(true) => n += 1,
                Some(false) => break,
                None => {}
            }
        }
        if n > 0 {
            streaks.push((task, miner, n));
        }
    }
    Ok(streaks)
}
