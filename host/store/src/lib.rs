//! Where the validator keeps what must not be lost.
//!
//! **The one idea:** append-only segments are the truth, sled is a view of them. A [`Record`] goes to a
//! segment, the segment is synced, sled shows the record, the append is acknowledged: in this order. So
//! what was acknowledged is on disk (invariant 4), and sled's part can be thrown away and rebuilt.
//!
//! * Many writers, one sync: appends that wait together are written and synced as one group.
//! * Nothing twice: a record with the identity of an earlier one (a probe finished before, a period settled
//!   before) is not written; its writer hears [`Booked::AlreadyBooked`].
//! * Bodies (exchanges, evidence) have segments of their own and a shorter retention; dropping them drops
//!   no score.
//! * One process at a time: a second one gets [`StoreError::Locked`] with the first one's number.
//!
//! Not for: knowing what a plan, a score or a settlement means. They are kept as their owners write them.
//!
//! ```
//! use nineteen_domain::PeriodId;
//! use nineteen_store::{Booked, Options, Record, Store};
//!
//! # fn main() -> Result<(), nineteen_store::StoreError> {
//! # let dir = std::env::temp_dir().join(format!("nineteen-store-doc-{}", std::process::id()));
//! let store = Store::open(&dir, Options::default())?;
//! let plan = || Record::PlanStored { period: PeriodId(1), plan: serde_json::json!({ "probes": [] }) };
//! assert_eq!(store.append(plan()).wait()?, Booked::New); // or: store.append(plan()).await?
//! assert_eq!(store.append(plan()).wait()?, Booked::AlreadyBooked);
//! assert_eq!(store.latest_period()?, Some(PeriodId(1)));
//! # drop(store);
//! # let _ = std::fs::remove_dir_all(&dir);
//! # Ok(())
//! # }
//! ```

mod error;
mod folder;
mod frame;
mod queue;
mod read;
mod record;
mod report;
mod segment;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nineteen_domain::MasterSeed;

pub use error::{Result, StoreError};
pub use folder::SCHEMA_VERSION;
pub use queue::Ack;
pub use record::{ExchangeBody, Finished, Record, WeightsSet};
pub use report::{Counts, FamilyReport, VerifyReport};
pub use segment::{Family, Retention};
pub use writer::Booked;

use folder::Lock;
use frame::APPEND_CAP;
use queue::{Queue, ack, answered};
use segment::{Place, Segments};
use view::{View, Written};
use writer::{Append, Command, Shared, Writer};

const HOUR_US: u64 = 3_600_000_000;
const DAY_US: u64 = 24 * HOUR_US;

/// What an operator may turn. The defaults suit one validator on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long requests and exchanges are kept: 2 days, 8 GiB.
    pub exchanges: Retention,
    /// How long evidence is kept: 7 days, 4 GiB.
    pub evidence: Retention,
    /// How long plans, probes, samples, rows and settlements are kept: 90 days, 16 GiB. Must be longer than
    /// any window that a policy looks back.
    pub ledger: Retention,
    /// A segment is sealed from this length on: 64 MiB. It is read as a whole when it is walked.
    pub segment_bytes: u64,
    /// A segment is sealed from this age on, so that retention can drop it even when little is written: 6 h.
    pub segment_age_us: u64,
    /// Appends are refused while less than this is free on the disk: 128 MiB, so that the view and the
    /// operator have room to move.
    pub min_free_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        let keep = |days, gib: u64| Retention { max_bytes: gib << 30, max_age_us: days * DAY_US };
        Self {
            exchanges: keep(2, 8),
            evidence: keep(7, 4),
            ledger: keep(90, 16),
            segment_bytes: 64 << 20,
            segment_age_us: 6 * HOUR_US,
            min_free_bytes: 128 << 20,
        }
    }
}

impl Options {
    pub(crate) const fn retention(&self, family: Family) -> Retention {
        match family {
            Family::Exchanges => self.exchanges,
            Family::Evidence => self.evidence,
            Family::Ledger => self.ledger,
        }
    }
}

/// The store. Cheap to clone; closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

// Fields are dropped in this order: the view before the lock.
#[derive(Debug)]
struct Inner {
    writer: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
    _lock: Lock,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.queue.close();
        let handle = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if handle.is_some_and(|h| h.join().is_err()) {
            tracing::error!("the store's writer panicked; the view is rebuilt where it lags");
        }
    }
}

impl Store {
    /// Opens the store in this folder, creating both where they are missing. Blocking; recovery reads what
    /// was appended since the last checkpoint, and everything when the view has to be rebuilt.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it, [`StoreError::SchemaNewer`],
    /// [`StoreError::NotAStore`], [`StoreError::Corrupt`] for damage that no crash explains, and errors of
    /// the operating system.
    pub fn open(dir: &Path, options: Options) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| StoreError::io(dir, "create the folder", &e))?;
        let dir = folder::absolute(dir)?;
        if !folder::exists(&dir)
            && let Some(parent) = dir.parent()
        {
            // A parent that may be entered but not read cannot be synced; the store works all the same.
            if let Err(e) = folder::sync_dir(parent) {
                tracing::warn!(error = %e, "the new store's own entry may not survive a power cut");
            }
        }
        let lock = Lock::take(&dir)?;
        folder::migrate(&dir)?;
        let view = View::open(&dir)?;
        let mut families = Vec::new();
        for family in Family::ALL {
            let path = dir.join(family.folder());
            let known = view.position(family)?;
            let segments = Segments::open(&path, family, known, writer::now_us())?;
            replay(&path, family, known, &view)?;
            families.push(segments);
        }
        let shared = Arc::new(Shared { dir, view, queue: Queue::new(), ends: Mutex::default() });
        let mut writer = Writer { shared: Arc::clone(&shared), families, options, since: 0, broken: None };
        writer.checkpoint()?;
        let handle = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|e| StoreError::io(&shared.dir, "start the writer of the store", &e))?;
        Ok(Self { inner: Arc::new(Inner { writer: Mutex::new(Some(handle)), shared, _lock: lock }) })
    }

    /// Opens a store that exists; for tools, which should not create one by a mistyped path.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none, else as [`Store::open`]. On [`StoreError::Locked`] a
    /// validator is running: ask it.
    pub fn open_existing(dir: &Path, options: Options) -> Result<Self> {
        if !folder::exists(dir) {
            return Err(StoreError::Missing { dir: dir.to_owned() });
        }
        Self::open(dir, options)
    }

    /// The store's folder, absolute.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.shared.dir
    }

    /// The validator's own secret. Drawn from the operating system's randomness the first time and kept in
    /// the file `seed`, mode 0600; in no journal.
    ///
    /// # Errors
    /// [`StoreError::SeedMissing`] if plans were made with a seed that is gone, [`StoreError::SeedUnfit`]
    /// if others may read it or its length is wrong, and errors of the operating system.
    pub fn master_seed(&self) -> Result<MasterSeed> {
        folder::master_seed(&self.inner.shared.dir, self.latest_period()?.is_some())
    }

    /// Appends a record. See [`Store::append_all`].
    pub fn append(&self, record: Record) -> Ack<Booked> {
        self.append_all(vec![record])
    }

    /// Appends records as one: those of one family are on disk all or none. Returns at once unless the
    /// queue is full (4,096 appends or 64 MiB waiting); then it waits for room.
    ///
    /// When the [`Ack`] says `Ok`, everything is on disk and every reader sees it. Records whose identity
    /// was booked before are left out.
    ///
    /// # Errors
    /// The ack answers [`StoreError::TooLarge`] above 48 MiB, [`StoreError::Full`] when there is no room
    /// (nothing was kept, try again later), [`StoreError::Poisoned`] when the disk failed in a way that only a
    /// restart clears up, [`StoreError::Closed`] when it may or may not have been written.
    pub fn append_all(&self, records: Vec<Record>) -> Ack<Booked> {
        let mut pairs = Vec::with_capacity(records.len());
        let mut bytes = 0_usize;
        for record in records {
            match record.encode() {
                Ok(encoded) => {
                    bytes = bytes.saturating_add(encoded.len() + frame::ENTRY_HEAD);
                    pairs.push((record, encoded));
                }
                Err(e) => return answered(Err(e)),
            }
        }
        if bytes > APPEND_CAP {
            return answered(Err(StoreError::TooLarge { bytes, cap: APPEND_CAP }));
        }
        let (reply, waiting) = ack();
        self.inner.shared.queue.push(Command::Append(Append { records: pairs, reply }), bytes);
        waiting
    }

    /// Drops the segments that retention no longer keeps at this time (microseconds of the Unix epoch) and
    /// says how many. Happens by itself whenever a segment is sealed; call it now and then all the same,
    /// because a quiet store seals none.
    pub fn retain(&self, now_us: u64) -> Ack<u64> {
        let (reply, waiting) = ack();
        self.inner.shared.queue.push(Command::Retain { now_us, reply }, 0);
        waiting
    }

    /// Writes what waits, makes the view durable and takes no more. The lock is kept until the last clone is
    /// dropped. Dropping does the same, without saying how it went.
    ///
    /// # Errors
    /// Those of the disk. Closing twice is no error.
    pub fn close(&self) -> Result<()> {
        let (reply, waiting) = ack();
        self.inner.shared.queue.push(Command::Close { reply }, 0);
        match waiting.wait() {
            Err(StoreError::Closed) => Ok(()),
            other => other,
        }
    }
}

/// Shows the view what was appended since its last checkpoint, or everything.
fn replay(dir: &Path, family: Family, known: Option<Place>, view: &View) -> Result<()> {
    let from = known.unwrap_or(Place { seq: 0, offset: 0 });
    let mut count = 0_usize;
    for seq in segment::list(dir)?.into_iter().filter(|s| *s >= from.seq) {
        let start = if seq == from.seq { from } else { Place { seq, offset: 0 } };
        segment::walk(dir, family, start, None, |frame| {
            let records = frame
                .iter()
                .map(|(place, bytes)| segment::decode(dir, *place, bytes))
                .collect::<Result<Vec<_>>>()?;
            let written: Vec<_> = frame
                .iter()
                .zip(&records)
                .map(|((place, bytes), record)| Written { place: *place, record, bytes })
                .collect();
            count += written.len();
            view.apply(&written)
        })?;
    }
    if count > 0 {
        tracing::info!(family = family.folder(), records = count, "brought the view up to date");
    }
    Ok(())
}
