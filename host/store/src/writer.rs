//! The one writer: takes what waits as a group, writes and syncs it, shows it in the view, answers.
//!
//! A group costs one `fdatasync` per family that it touches, however many writers wait for it. Bodies are
//! written before the ledger that speaks of them. Nothing is shown before it is on disk.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Options;
use crate::error::{Result, StoreError};
use crate::folder::free_bytes;
use crate::frame::GROUP_BYTES;
use crate::queue::{Queue, Reply};
use crate::record::Record;
use crate::segment::{self, Family, Place, Segments};
use crate::view::{View, Written, identity};

/// Records after which the view is made durable and its positions move on: replay at open is no longer.
const CHECKPOINT_RECORDS: usize = 8_192;

/// Whether an append brought anything new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Booked {
    /// It did, and it is on disk.
    New,
    /// Everything in it was on disk before. Nothing was written.
    AlreadyBooked,
}

/// Records to be appended as one.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) records: Vec<(Record, Vec<u8>)>,
    pub(crate) reply: Reply<Booked>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Append(Append),
    Retain { now_us: u64, reply: Reply<u64> },
    Close { reply: Reply<()> },
}

/// What the writer shares with the readers.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) view: View,
    pub(crate) queue: Queue<Command>,
    /// Up to where each family is on disk.
    pub(crate) ends: Mutex<Vec<(Family, Place)>>,
}

impl Shared {
    pub(crate) fn family_dir(&self, family: Family) -> PathBuf {
        self.dir.join(family.folder())
    }

    pub(crate) fn ends(&self) -> Vec<(Family, Place)> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The writer's own state. Runs on its own thread until the queue is closed.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) families: Vec<Segments>,
    pub(crate) options: Options,
    /// Records applied since the last checkpoint.
    pub(crate) since: usize,
    /// Why nothing is taken any more.
    pub(crate) broken: Option<StoreError>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also when the thread unwinds: nobody may wait for an answer that never comes.
        self.shared.queue.abandon();
    }
}

impl Writer {
    pub(crate) fn run(mut self) {
        loop {
            let joins = |c: &Command| matches!(c, Command::Append(_));
            let group = self.shared.queue.pop_group(joins, GROUP_BYTES);
            if group.is_empty() {
                if let Err(e) = self.close() {
                    tracing::warn!(code = e.code(), error = %e, "the view lags; the next start brings it up to date");
                }
                return;
            }
            let mut appends = Vec::new();
            for command in group {
                match command {
                    Command::Append(append) => appends.push(append),
                    Command::Retain { now_us, reply } => reply.answer(self.retain(now_us)),
                    Command::Close { reply } => {
                        let closed = self.close();
                        self.shared.queue.close();
                        reply.answer(closed);
                    }
                }
            }
            if !appends.is_empty() {
                self.commit(appends);
            }
        }
    }

    fn commit(&mut self, appends: Vec<Append>) {
        let answers = self.write(&appends).unwrap_or_else(|e| vec![Err(e); appends.len()]);
        for (append, answer) in appends.into_iter().zip(answers) {
            append.reply.answer(answer);
        }
        if let Err(e) = self.tidy() {
            tracing::warn!(code = e.code(), error = %e, "the store could not be tidied; it goes on");
        }
    }

    /// Writes a group. The inner results are those of its appends, in order.
    fn write(&mut self, appends: &[Append]) -> Result<Vec<Result<Booked>>> {
        if let Some(broken) = &self.broken {
            return Err(StoreError::Poisoned { why: broken.to_string() });
        }
        let mut seen = HashSet::new();
        let mut fresh: Vec<Vec<&(Record, Vec<u8>)>> = Vec::with_capacity(appends.len());
        for append in appends {
            let mut news = Vec::new();
            for pair in &append.records {
                let key = identity(&pair.0);
                if self.shared.view.get(&key)?.is_none() && seen.insert(key.bytes().to_vec()) {
                    news.push(pair);
                }
            }
            fresh.push(news);
        }
        let bytes: usize = fresh.iter().flatten().map(|(_, b)| b.len()).sum();
        if bytes > 0 {
            self.require_room(bytes)?;
        }
        let mut failed: Vec<(Family, StoreError)> = Vec::new();
        for at in 0..self.families.len() {
            let Some(family) = self.families.get(at).map(Segments::family) else { continue };
            let ours: Vec<_> = fresh.iter().flatten().filter(|(r, _)| r.family() == family).collect();
            if ours.is_empty() {
                continue;
            }
            // A ledger must not speak of bodies that were not written.
            if let Some((_, e)) = failed.first() {
                failed.push((family, e.clone()));
                continue;
            }
            let entries: Vec<&[u8]> = ours.iter().map(|(_, b)| b.as_slice()).collect();
            let Some(segments) = self.families.get_mut(at) else { continue };
            match segments.append(&entries) {
                Ok(places) => self.show(&ours, &places),
                Err(e) => {
                    if matches!(e, StoreError::Poisoned { .. }) {
                        self.broken = Some(e.clone());
                    }
                    failed.push((family, e));
                }
            }
        }
        self.publish_ends();
        // A repetition of what a failed append was to bring fails with it.
        let touched = |append: &Append| {
            append.records.iter().find_map(|(r, _)| failed.iter().find(|(f, _)| *f == r.family()))
        };
        let answer = |(append, news): (&Append, &Vec<_>)| match touched(append) {
            Some((_, e)) => Err(e.clone()),
            None if news.is_empty() => Ok(Booked::AlreadyBooked),
            None => Ok(Booked::New),
        };
        Ok(appends.iter().zip(&fresh).map(answer).collect())
    }

    fn show(&mut self, records: &[&&(Record, Vec<u8>)], places: &[Place]) {
        let written: Vec<Written<'_>> = records
            .iter()
            .zip(places)
            .map(|((record, bytes), place)| Written { place: *place, record, bytes })
            .collect();
        self.since += written.len();
        // The records are on disk, so they are acknowledged; but without a view that shows them no further
        // ones can be told from repetitions.
        if let Err(e) = self.shared.view.apply(&written) {
            tracing::error!(error = %e, "the view failed: no more records are taken");
            self.broken = Some(e);
        }
    }

    fn require_room(&self, bytes: usize) -> Result<()> {
        let (free, least) = (free_bytes(&self.shared.dir)?, self.options.min_free_bytes);
        if free < least.saturating_add(bytes as u64) {
            let why = format!("{free} bytes are free on its disk, and {least} are kept in reserve");
            return Err(StoreError::Full { file: self.shared.dir.clone(), why });
        }
        Ok(())
    }

    fn publish_ends(&self) {
        let ends = self.families.iter().map(|s| (s.family(), s.end())).collect();
        *self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }

    fn tidy(&mut self) -> Result<()> {
        let (now, mut rolled) = (now_us(), false);
        for segments in &mut self.families {
            rolled |= segments.roll(self.options.segment_bytes, self.options.segment_age_us, now)?;
        }
        if rolled {
            self.publish_ends();
            self.retain(now)?;
        }
        if self.since >= CHECKPOINT_RECORDS {
            self.checkpoint()?;
        }
        Ok(())
    }

    pub(crate) fn checkpoint(&mut self) -> Result<()> {
        // A view that missed a record must be replayed from before it.
        if self.broken.is_none() {
            self.publish_ends();
            self.shared.view.checkpoint(&self.shared.ends())?;
            self.since = 0;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.checkpoint()?;
        self.shared.view.flush()
    }

    /// Drops the segments that retention no longer keeps; says how many.
    fn retain(&mut self, now_us: u64) -> Result<u64> {
        let mut dropped = 0;
        for at in 0..self.families.len() {
            while let Some((family, seq)) = self.families.get(at).and_then(|s| {
                let keep = self.options.retention(s.family());
                s.overdue(keep, now_us).map(|old| (s.family(), old.seq))
            }) {
                // First out of the view, durably, then off the disk: a view never points to what is gone, and
                // after a crash in between the segment goes the next time.
                if dropped == 0 {
                    self.checkpoint()?;
                }
                let from = Place { seq, offset: 0 };
                let view = &self.shared.view;
                let forgotten =
                    segment::walk(&self.shared.family_dir(family), family, from, None, |records| {
                        records
                            .iter()
                            .try_for_each(|(place, bytes)| view.forget(*place, &Record::decode(bytes)?))
                    });
                match forgotten {
                    // A damaged segment goes too; what the view still says of it reads as gone.
                    Err(e @ (StoreError::Corrupt { .. } | StoreError::Codec { .. })) => {
                        tracing::warn!(error = %e, "a damaged segment is dropped");
                    }
                    other => other?,
                }
                view.flush()?;
                if let Some(segments) = self.families.get_mut(at) {
                    segments.remove_oldest()?;
                }
                tracing::info!(family = family.folder(), segment = seq, "dropped a segment by retention");
                dropped += 1;
            }
        }
        Ok(dropped)
    }
}
