//! A validator's books, held against what the miners themselves wrote down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use nineteen_domain::ledger::{OursFault, PeriodRow, ProbeClass, Tally};
use nineteen_domain::{Digest, Hotkey, PeriodId, ProbeId, TaskName};
use nineteen_store::{Options, Store};

use crate::Result;
use crate::stage::Stage;

/// What a run came to. A promise that was broken is an error of [`run`] instead.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// Times that the validator was killed.
    pub kills: u32,
    /// Periods that were settled, each once.
    pub periods: usize,
    /// Requests that the miners wrote down.
    pub received: usize,
    /// Probes by class in the settled periods.
    pub answered: u64,
    /// Interrupted by a kill.
    pub interrupted: u64,
    /// The rest that left.
    pub others: u64,
}

/// The bodies that the miners wrote down, each with how often.
fn received(stage: &Stage) -> Result<BTreeMap<Digest, u32>> {
    let mut all = BTreeMap::new();
    for log in &stage.logs {
        for body in bodies(stage, log)? {
            *all.entry(body).or_default() += 1;
        }
    }
    Ok(all)
}

/// The bodies of the requests that one miner wrote down, in their order.
pub(crate) fn bodies(stage: &Stage, log: &str) -> Result<Vec<Digest>> {
    let text = fs::read_to_string(stage.dir.join(log)).unwrap_or_default();
    let mut bodies = Vec::new();
    // The last line may be half written while the miner runs.
    for line in text.split_inclusive('\n').filter(|l| l.ends_with('\n')) {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let body = line.get("body").and_then(|b| b.as_str()).ok_or("a line without a body")?;
        // Announcements have no body.
        if line.get("bytes").and_then(serde_json::Value::as_u64) != Some(0) {
            bodies.push(body.parse::<Digest>().map_err(|_| "a body that is no digest")?);
        }
    }
    Ok(bodies)
}

/// Holds the books against the miners' logs.
pub(crate) fn audit(stage: &Stage) -> Result<Books> {
    let store = Store::open_existing(&stage.dir.join("data"), Options::default())?;
    let damage = store.verify()?;
    if !damage.problems.is_empty() || damage.not_shown > 0 {
        return Err(format!("the store is damaged: {damage:?}").into());
    }
    let received = received(stage)?;
    if let Some((body, n)) = received.iter().find(|(_, n)| **n > 1) {
        return Err(format!("a miner got the request {body} {n} times").into());
    }
    let newest = store.latest_period()?.ok_or("no period was planned")?;
    let settled: BTreeSet<PeriodId> = store.settled_periods()?.into_iter().collect();
    let mut books = Books { periods: settled.len(), received: received.len(), ..Books::default() };
    let mut known: BTreeMap<Digest, (ProbeId, Option<ProbeClass>)> = BTreeMap::new();
    for period in (0..=newest.0).map(PeriodId) {
        // The last two may still be running or in their grace when the validator stops.
        if !settled.contains(&period) && period.0 + 2 <= newest.0 {
            return Err(format!("period {period} of {newest} was never settled").into());
        }
        let mut ends: BTreeMap<ProbeId, ProbeClass> = BTreeMap::new();
        for end in store.finished(period) {
            let end = end?;
            ends.insert(end.probe, end.class);
        }
        for sent in store.sent(period) {
            let (probe, _, request) = sent?;
            let request = request.ok_or("a probe without its request's digest")?;
            let class = ends.get(&probe).copied();
            if class.is_none() && settled.contains(&period) {
                return Err(format!("probe {probe} left, its period is settled, and it has no end").into());
            }
            if class == Some(ProbeClass::Answered) && !received.contains_key(&request) {
                return Err(format!("probe {probe} is booked as answered and no miner got it").into());
            }
            if let Some((other, _)) = known.insert(request, (probe.clone(), class)) {
                return Err(format!("probes {probe} and {other} asked the same").into());
            }
        }
        if settled.contains(&period) {
            rows_agree(&store, period, &ends, &mut books)?;
        }
    }
    for body in received.keys() {
        match known.get(body) {
            None => return Err(format!("a miner got the request {body}, which is in no book").into()),
            Some((probe, Some(ProbeClass::Ours(OursFault::HeldBack)))) => {
                return Err(format!("probe {probe} was held back and left all the same").into());
            }
            Some(_) => {}
        }
    }
    store.close()?;
    Ok(books)
}

/// The settled rows of a period count what its probes' ends say, one by one.
fn rows_agree(
    store: &Store,
    period: PeriodId,
    ends: &BTreeMap<ProbeId, ProbeClass>,
    books: &mut Books,
) -> Result<()> {
    let mut tallies: BTreeMap<(TaskName, Hotkey), Tally> = BTreeMap::new();
    for (probe, class) in ends {
        tallies.entry((probe.task.clone(), probe.miner)).or_default().book(*class, 0, 0);
        match class {
            ProbeClass::Answered => books.answered += 1,
            ProbeClass::Ours(OursFault::Interrupted) => books.interrupted += 1,
            ProbeClass::Ours(OursFault::HeldBack) => {}
            _ => books.others += 1,
        }
    }
    for (task, miner) in store.pairs()? {
        let rows = store.rows(&miner, &task, 0)?;
        let of_period: Vec<&PeriodRow> = rows.iter().filter(|r| r.period == period).collect();
        let counted = tallies.remove(&(task.clone(), miner)).unwrap_or_default();
        let row = match of_period.as_slice() {
            [row] => row.tally,
            [] if counted == Tally::default() => continue,
            other => return Err(format!("{} rows of {task} {miner} in period {period}", other.len()).into()),
        };
        let classes = |t: &Tally| (t.answered, t.rate_limited, t.failed, t.ours);
        if classes(&row) != classes(&counted) {
            return Err(
                format!("period {period}, {miner}: the row says {row:?}, its probes {counted:?}").into()
            );
        }
    }
    match tallies.into_keys().next() {
        None => Ok(()),
        Some((task, miner)) => Err(format!("no row of {task} {miner} in period {period}").into()),
    }
}
