//! What readers ask. Everything that an acknowledged append brought is seen; nothing else ever is.

use nineteen_domain::ledger::{PeriodRow, QualitySample};
use nineteen_domain::{Check, Digest, Evidence, Exchange, Hotkey, PeriodId, ProbeId, Request, TaskName};
use serde_json::Value;

use crate::error::{Result, StoreError};
use crate::record::{Finished, Record, WeightsSet};
use crate::segment::{self, Family};
use crate::view::{Held, Key, period_of, tag};
use crate::writer::Shared;
use crate::{Store, view};

/// The record behind what the view holds; `None` when retention has taken it.
fn load(shared: &Shared, family: Family, held: Held) -> Result<Option<Record>> {
    let dir = shared.family_dir(family);
    let bytes = match held.inline {
        Some(bytes) => Some(bytes),
        None => segment::read_entry(&dir, held.place)?,
    };
    bytes.map(|b| segment::decode(&dir, held.place, &b)).transpose()
}

impl Store {
    fn one<T>(&self, family: Family, key: &Key, take: impl FnOnce(Record) -> Option<T>) -> Result<Option<T>> {
        let shared = &self.inner.shared;
        let Some(held) = shared.view.get(key)? else { return Ok(None) };
        let Some(record) = load(shared, family, held)? else { return Ok(None) };
        take(record).map_or_else(|| Err(self.mixed_up()), |t| Ok(Some(t)))
    }

    /// Records of the ledger under keys with this prefix.
    fn many<'a, T, F: Fn(Record) -> Option<T>>(
        &'a self,
        prefix: &Key,
        take: F,
    ) -> impl DoubleEndedIterator<Item = Result<T>> + use<'a, T, F> {
        let shared = &self.inner.shared;
        shared.view.scan(prefix).filter_map(move |item| {
            let record = item.and_then(|(_, held)| load(shared, Family::Ledger, held)).transpose()?;
            Some(record.and_then(|r| take(r).ok_or_else(|| self.mixed_up())))
        })
    }

    fn mixed_up(&self) -> StoreError {
        StoreError::View {
            dir: self.inner.shared.dir.join("view"),
            why: "a key leads to another kind of record".into(),
        }
    }

    /// The plan of a period.
    ///
    /// # Errors
    /// As all readers: [`StoreError::View`] when the view fails, [`StoreError::Corrupt`] when the segment
    /// does, and errors of the operating system.
    pub fn plan(&self, period: PeriodId) -> Result<Option<Value>> {
        self.one(Family::Ledger, &Key::tag(tag::PLAN).number(period.0), |r| match r {
            Record::PlanStored { plan, .. } => Some(plan),
            _ => None,
        })
    }

    /// The windows of a period that began at a moment which its plan did not know, by task and index.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn windows(&self, period: PeriodId) -> Result<Vec<Value>> {
        let all = self.many(&Key::tag(tag::WINDOW).number(period.0), |r| match r {
            Record::WindowStarted { window, .. } => Some(window),
            _ => None,
        });
        all.collect()
    }

    /// The latest period with a plan.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn latest_period(&self) -> Result<Option<PeriodId>> {
        self.last_number(tag::PLAN)
    }

    fn last_number(&self, tag: u8) -> Result<Option<PeriodId>> {
        let last = self.inner.shared.view.scan(&Key::tag(tag)).next_back().transpose()?;
        Ok(last.and_then(|(key, _)| period_of(&key)))
    }

    /// Periods that were planned and not settled, ascending.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn unsettled_periods(&self) -> Result<Vec<PeriodId>> {
        let view = &self.inner.shared.view;
        let mut open = Vec::new();
        for item in view.scan(&Key::tag(tag::PLAN)) {
            let Some(period) = period_of(&item?.0) else { continue };
            if view.get(&Key::tag(tag::SETTLED).number(period.0))?.is_none() {
                open.push(period);
            }
        }
        Ok(open)
    }

    /// The probes of a period that were sent, with the time of sending (microseconds of the Unix epoch) and the
    /// digest of the request's body. Read as the iterator goes.
    pub fn sent(
        &self,
        period: PeriodId,
    ) -> impl Iterator<Item = Result<(ProbeId, u64, Option<Digest>)>> + use<'_> {
        self.many(&Key::tag(tag::SENT).number(period.0), |r| match r {
            Record::ProbeSent { probe, at_us, request } => Some((probe, at_us, request)),
            _ => None,
        })
    }

    /// Probes of a period that were sent and have not finished, with the time of sending (microseconds of
    /// the Unix epoch). After a restart these were interrupted by us.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn unfinished_probes(&self, period: PeriodId) -> Result<Vec<(ProbeId, u64)>> {
        let mut unfinished = Vec::new();
        for item in self.sent(period) {
            let (probe, at_us, _) = item?;
            if self.inner.shared.view.get(&Key::tag(tag::FINISHED).probe(&probe))?.is_none() {
                unfinished.push((probe, at_us));
            }
        }
        Ok(unfinished)
    }

    /// Whether the intent to send this probe is booked.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn was_sent(&self, probe: &ProbeId) -> Result<bool> {
        Ok(self.inner.shared.view.get(&Key::tag(tag::SENT).probe(probe))?.is_some())
    }

    /// How a probe ended, if it did.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn finished_probe(&self, probe: &ProbeId) -> Result<Option<Finished>> {
        self.one(Family::Ledger, &Key::tag(tag::FINISHED).probe(probe), finished)
    }

    /// The finished probes of a period, by task, miner and slot. Read as the iterator goes.
    pub fn finished(&self, period: PeriodId) -> impl Iterator<Item = Result<Finished>> + use<'_> {
        self.many(&Key::tag(tag::FINISHED).number(period.0), finished)
    }

    /// Settled periods of a miner on a task that ended at or after `since_us`, newest first.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn rows(&self, miner: &Hotkey, task: &TaskName, since_us: u64) -> Result<Vec<PeriodRow>> {
        let rows = self.many(&Key::tag(tag::ROW).task(task).miner(miner), |r| match r {
            Record::Row(row) => Some(row),
            _ => None,
        });
        // Periods follow each other, so the first that is too old ends the search.
        rows.rev().take_while(|r| r.as_ref().map_or(true, |row| row.ended_us >= since_us)).collect()
    }

    /// Judged exchanges of a miner on a task, judged at or after `since_us`, newest first, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn samples(
        &self,
        miner: &Hotkey,
        task: &TaskName,
        since_us: u64,
        limit: usize,
    ) -> Result<Vec<QualitySample>> {
        self.many(&Key::tag(tag::SAMPLE).task(task).miner(miner), sample)
            .rev()
            .take_while(|s| s.as_ref().map_or(true, |s| s.at_us >= since_us))
            .take(limit)
            .collect()
    }

    /// The judgement on a probe, if there is one.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn sample(&self, probe: &ProbeId) -> Result<Option<QualitySample>> {
        self.one(Family::Ledger, &Key::tag(tag::JUDGED).probe(probe), sample)
    }

    /// Every (task, miner) with a row or a sample, ascending.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn pairs(&self) -> Result<Vec<(TaskName, Hotkey)>> {
        let view = &self.inner.shared.view;
        let mut pairs = view.pairs(tag::ROW)?;
        pairs.extend(view.pairs(tag::SAMPLE)?);
        pairs.sort_unstable();
        pairs.dedup();
        Ok(pairs)
    }

    /// Every task of [`Store::pairs`], ascending.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn tasks(&self) -> Result<Vec<TaskName>> {
        let mut tasks: Vec<_> = self.pairs()?.into_iter().map(|(task, _)| task).collect();
        tasks.dedup();
        Ok(tasks)
    }

    /// Every miner of [`Store::pairs`], ascending.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn miners(&self) -> Result<Vec<Hotkey>> {
        let mut miners: Vec<_> = self.pairs()?.into_iter().map(|(_, miner)| miner).collect();
        miners.sort_unstable();
        miners.dedup();
        Ok(miners)
    }

    /// The settlement of a period.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn settlement(&self, period: PeriodId) -> Result<Option<Value>> {
        self.one(Family::Ledger, &Key::tag(tag::SETTLED).number(period.0), |r| match r {
            Record::Settled { settlement, .. } => Some(settlement),
            _ => None,
        })
    }

    /// Periods that were settled, ascending.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn settled_periods(&self) -> Result<Vec<PeriodId>> {
        let keys = self.inner.shared.view.scan(&Key::tag(tag::SETTLED));
        keys.filter_map(|item| item.map(|(key, _)| period_of(&key)).transpose()).collect()
    }

    /// The settlement of the latest settled period.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn latest_settlement(&self) -> Result<Option<(PeriodId, Value)>> {
        let Some(period) = self.last_number(tag::SETTLED)? else { return Ok(None) };
        Ok(self.settlement(period)?.map(|s| (period, s)))
    }

    /// Attempts to set weights, newest first, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn weights(&self, limit: usize) -> Result<Vec<WeightsSet>> {
        let all = self.many(&Key::tag(tag::WEIGHTS), |r| match r {
            Record::WeightsSet(w) => Some(w),
            _ => None,
        });
        all.rev().take(limit).collect()
    }

    /// Request and exchange of a probe; `None` when there was none or retention has taken it.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn exchange(&self, probe: &ProbeId) -> Result<Option<(Request, Exchange)>> {
        self.one(Family::Exchanges, &Key::tag(tag::EXCHANGE).probe(probe), |r| match r {
            Record::ExchangeBody(body) => Some((body.request, body.exchange)),
            _ => None,
        })
    }

    /// Checks and evidence of a probe; `None` when there was none or retention has taken it.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub fn evidence(&self, probe: &ProbeId) -> Result<Option<Vec<(Check, Evidence)>>> {
        self.one(Family::Evidence, &Key::tag(tag::EVIDENCE).probe(probe), |r| match r {
            Record::EvidenceBody { transcript, .. } => Some(transcript),
            _ => None,
        })
    }

    /// What the view shows of a record's identity; for [`Store::verify`].
    pub(crate) fn shown(&self, record: &Record) -> Result<Option<Held>> {
        self.inner.shared.view.get(&view::identity(record))
    }
}

fn finished(record: Record) -> Option<Finished> {
    match record {
        Record::ProbeFinished(f) => Some(f),
        _ => None,
    }
}

fn sample(record: Record) -> Option<QualitySample> {
    match record {
        Record::Sample(s) => Some(s),
        _ => None,
    }
}
