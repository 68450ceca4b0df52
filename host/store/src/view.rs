//! The materialised view: every record by its key, in sled. No type of sled's leaves this module.
//!
//! The view is never the only place of anything. It says where in the segments a record lies and, when the
//! record is short, holds a copy of it. It may be deleted at any time and is rebuilt by replaying.
//!
//! sled 0.34 ends a flush in `sync_file_range`, which is no durability (sled#1452); so a checkpoint syncs
//! the file `db` itself, and only then notes how far the segments have been applied. Values stay below
//! 4 KB, because longer ones become blobs, which sled has lost track of (sled#786).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io, thread};

use nineteen_domain::{Hotkey, PeriodId, ProbeId, TaskName};

use crate::error::{Result, StoreError};
use crate::record::Record;
use crate::segment::{Family, Place};

/// Bytes of a record's copy that may lie in the view; with its place it stays below 4 KB.
const INLINE_CAP: usize = 3_500;
const CACHE_BYTES: u64 = 64 << 20;
const VERSION: &[u8] = b"1";

/// Kinds of keys. Everything lies in one tree, so that one batch is atomic over all of it.
pub(crate) mod tag {
    pub(crate) const SETTLED: u8 = b'e';
    pub(crate) const FINISHED: u8 = b'f';
    pub(crate) const JUDGED: u8 = b'j';
    pub(crate) const META: u8 = b'm';
    pub(crate) const PLAN: u8 = b'p';
    pub(crate) const SAMPLE: u8 = b'q';
    pub(crate) const ROW: u8 = b'r';
    pub(crate) const SENT: u8 = b's';
    pub(crate) const EVIDENCE: u8 = b'v';
    pub(crate) const WEIGHTS: u8 = b'w';
    pub(crate) const WINDOW: u8 = b'y';
    pub(crate) const EXCHANGE: u8 = b'x';
}

/// Keys that begin with one tag, or with more of a key.
#[derive(Debug, Clone)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn tag(tag: u8) -> Self {
        Self(vec![tag])
    }

    pub(crate) fn number(mut self, n: u64) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    /// Names hold no zero byte, so a zero ends one.
    pub(crate) fn task(mut self, task: &TaskName) -> Self {
        self.0.extend_from_slice(task.as_str().as_bytes());
        self.0.push(0);
        self
    }

    pub(crate) fn miner(mut self, miner: &Hotkey) -> Self {
        self.0.extend_from_slice(miner.as_bytes());
        self
    }

    pub(crate) fn probe(self, probe: &ProbeId) -> Self {
        let mut key = self.number(probe.period.0).task(&probe.task).miner(&probe.miner);
        key.0.extend_from_slice(&probe.slot.to_be_bytes());
        key
    }

    fn meta(name: &str) -> Self {
        let mut key = Self::tag(tag::META);
        key.0.extend_from_slice(name.as_bytes());
        key
    }

    fn position(family: Family) -> Self {
        Self::meta(family.folder())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The key that makes a record what it is: a second record with the same one is a repetition.
pub(crate) fn identity(record: &Record) -> Key {
    match record {
        Record::PlanStored { period, .. } => Key::tag(tag::PLAN).number(period.0),
        Record::WindowStarted { period, task, index, .. } => {
            Key::tag(tag::WINDOW).number(period.0).task(task).number(u64::from(*index))
        }
        Record::ProbeSent { probe, .. } => Key::tag(tag::SENT).probe(probe),
        Record::ProbeFinished(f) => Key::tag(tag::FINISHED).probe(&f.probe),
        Record::Sample(s) => Key::tag(tag::JUDGED).probe(&s.probe),
        Record::Row(r) => Key::tag(tag::ROW).task(&r.task).miner(&r.miner).number(r.period.0),
        Record::Settled { period, .. } => Key::tag(tag::SETTLED).number(period.0),
        Record::WeightsSet(w) => Key::tag(tag::WEIGHTS).number(w.at_us),
        Record::ExchangeBody(b) => Key::tag(tag::EXCHANGE).probe(&b.probe),
        Record::EvidenceBody { probe, .. } => Key::tag(tag::EVIDENCE).probe(probe),
    }
}

/// A second key under which a record is looked for.
fn index(record: &Record) -> Option<Key> {
    let Record::Sample(s) = record else { return None };
    let mut key = Key::tag(tag::SAMPLE).task(&s.probe.task).miner(&s.probe.miner).number(s.at_us);
    key = key.number(s.probe.period.0);
    key.0.extend_from_slice(&s.probe.slot.to_be_bytes());
    Some(key)
}

/// What the view holds under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// Where the record lies.
    pub(crate) place: Place,
    /// Its bytes, if they are few.
    pub(crate) inline: Option<Vec<u8>>,
}

impl Held {
    fn encode(place: Place, inline: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + inline.map_or(0, <[u8]>::len));
        out.extend_from_slice(&place.seq.to_be_bytes());
        out.extend_from_slice(&place.offset.to_be_bytes());
        out.extend_from_slice(inline.unwrap_or_default());
        out
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (seq, rest) = value.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let place = Place { seq: u64::from_be_bytes(*seq), offset: u64::from_be_bytes(*offset) };
        // No record is empty, so nothing behind the place means that the copy is left out.
        Some(Self { place, inline: (!rest.is_empty()).then(|| rest.to_vec()) })
    }
}

/// A record that has just been written, for the view to show.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    pub(crate) place: Place,
    pub(crate) record: &'a Record,
    pub(crate) bytes: &'a [u8],
}

/// The view.
#[derive(Debug)]
pub(crate) struct View {
    db: sled::Db,
    dir: PathBuf,
}

fn open_sled(dir: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::new()
        .path(dir)
        .mode(sled::Mode::LowSpace)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    // The store's lock is ours, so whoever holds sled's is an earlier opener of this process, whose
    // background threads are about to let go of it. An error that is only this must not cost the view.
    let mut patience = 100;
    loop {
        match config.open() {
            Err(e) if is_held(&e) && patience > 0 => {
                patience -= 1;
                thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn is_held(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(e) if e.to_string().contains("could not acquire lock"))
}

/// Whether an error of sled's is the machine's: then rebuilding would not help.
fn is_the_machines(error: &sled::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let machine = |e: &io::Error| {
        matches!(e.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
    };
    is_held(error) || matches!(error, sled::Error::Io(e) if machine(e))
}

impl View {
    /// Opens the view. One that cannot be read is put aside as `view.damaged` and started anew, empty.
    pub(crate) fn open(store: &Path) -> Result<Self> {
        let dir = store.join(crate::folder::VIEW);
        let failed = |why: String| StoreError::View { dir: dir.clone(), why };
        // sled panics on some damage instead of returning it.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = open_sled(&dir)?;
            let version = db.get(Key::meta("version").bytes())?;
            if version.as_deref() == Some(VERSION) || (version.is_none() && db.is_empty()) {
                Ok(db)
            } else {
                Err(sled::Error::Unsupported("it has another version".into()))
            }
        }));
        let why = match opened {
            Ok(Ok(db)) => return Self { db, dir: dir.clone() }.stamped(),
            Ok(Err(e)) if is_the_machines(&e) => return Err(failed(e.to_string())),
            Ok(Err(e)) => e.to_string(),
            Err(_) => "it panicked".to_owned(),
        };
        tracing::warn!(dir = %dir.display(), why, "the view cannot be read and is rebuilt from the segments");
        let aside = store.join("view.damaged");
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(|e| StoreError::io(&aside, "remove the folder", &e))?;
        }
        fs::rename(&dir, &aside).map_err(|e| StoreError::io(&dir, "put the view aside", &e))?;
        let db = open_sled(&dir).map_err(|e| failed(e.to_string()))?;
        Self { db, dir: dir.clone() }.stamped()
    }

    fn stamped(self) -> Result<Self> {
        self.db.insert(Key::meta("version").bytes(), VERSION).map_err(|e| self.failed(&e))?;
        Ok(self)
    }

    fn failed(&self, error: &sled::Error) -> StoreError {
        StoreError::View { dir: self.dir.clone(), why: error.to_string() }
    }

    fn odd(&self, why: &str) -> StoreError {
        StoreError::View { dir: self.dir.clone(), why: why.to_owned() }
    }

    /// How far a family is known to have been applied.
    pub(crate) fn position(&self, family: Family) -> Result<Option<Place>> {
        Ok(self.get(&Key::position(family))?.map(|held| held.place))
    }

    /// Shows records. Of two with the same identity the earlier stays.
    pub(crate) fn apply(&self, written: &[Written<'_>]) -> Result<()> {
        let mut batch = sled::Batch::default();
        for w in written {
            let key = identity(w.record);
            if self.get(&key)?.is_some_and(|held| held.place < w.place) {
                continue;
            }
            let body = matches!(w.record, Record::ExchangeBody(_) | Record::EvidenceBody { .. });
            let inline = (!body && w.bytes.len() <= INLINE_CAP).then_some(w.bytes);
            match index(w.record) {
                Some(second) => {
                    batch.insert(key.bytes(), Held::encode(w.place, None));
                    batch.insert(second.bytes(), Held::encode(w.place, inline));
                }
                None => batch.insert(key.bytes(), Held::encode(w.place, inline)),
            }
        }
        self.db.apply_batch(batch).map_err(|e| self.failed(&e))
    }

    /// Forgets a record whose segment is about to go, unless another one stands in its place.
    pub(crate) fn forget(&self, place: Place, record: &Record) -> Result<()> {
        let mut batch = sled::Batch::default();
        for key in [Some(identity(record)), index(record)].into_iter().flatten() {
            if self.get(&key)?.is_some_and(|held| held.place == place) {
                batch.remove(key.bytes());
            }
        }
        self.db.apply_batch(batch).map_err(|e| self.failed(&e))
    }

    /// Makes everything applied so far durable and notes the places up to which that is.
    pub(crate) fn checkpoint(&self, ends: &[(Family, Place)]) -> Result<()> {
        self.flush()?;
        for (family, end) in ends {
            self.db
                .insert(Key::position(*family).bytes(), Held::encode(*end, None))
                .map_err(|e| self.failed(&e))?;
        }
        Ok(())
    }

    pub(crate) fn flush(&self) -> Result<()> {
        self.db.flush().map_err(|e| self.failed(&e))?;
        let file = self.dir.join("db");
        fs::File::open(&file)
            .and_then(|f| f.sync_data())
            .map_err(|e| StoreError::io(&file, "sync the view", &e))
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Held>> {
        let value = self.db.get(key.bytes()).map_err(|e| self.failed(&e))?;
        value.map(|v| Held::decode(&v).ok_or_else(|| self.odd("a value is cut short"))).transpose()
    }

    /// What lies under keys with this prefix, in the order of the keys.
    pub(crate) fn scan(
        &self,
        prefix: &Key,
    ) -> impl DoubleEndedIterator<Item = Result<(Vec<u8>, Held)>> + use<> {
        let dir = self.dir.clone();
        self.db.scan_prefix(prefix.bytes()).map(move |item| {
            let failed = |why: String| StoreError::View { dir: dir.clone(), why };
            let (key, value) = item.map_err(|e| failed(e.to_string()))?;
            let held = Held::decode(&value).ok_or_else(|| failed("a value is cut short".into()))?;
            Ok((key.to_vec(), held))
        })
    }

    /// (task, miner) of all keys of this kind, without reading them all: one seek per pair.
    pub(crate) fn pairs(&self, tag: u8) -> Result<Vec<(TaskName, Hotkey)>> {
        let (mut pairs, mut from) = (Vec::new(), vec![tag]);
        while let Some(item) = self.db.range(from.clone()..vec![tag + 1]).next() {
            let (key, _) = item.map_err(|e| self.failed(&e))?;
            let (task, miner) = pair_of(&key).ok_or_else(|| self.odd("a key is malformed"))?;
            from = Key::tag(tag).task(&task).miner(&miner).0;
            // What follows in a key of this kind is shorter than this.
            from.extend_from_slice(&[u8::MAX; 32]);
            pairs.push((task, miner));
        }
        Ok(pairs)
    }

    /// Drops a key, as a crash would.
    #[cfg(test)]
    pub(crate) fn lose(&self, key: &[u8]) {
        self.db.remove(key).unwrap();
    }

    /// Every key and value but the view's own notes, for comparing two views.
    #[cfg(test)]
    pub(crate) fn dump(&self) -> Vec<(Vec<u8>, Held)> {
        let all = self.db.iter().map(|kv| kv.unwrap()).filter(|(k, _)| k[0] != tag::META);
        all.map(|(k, v)| (k.to_vec(), Held::decode(&v).unwrap())).collect()
    }
}

fn pair_of(key: &[u8]) -> Option<(TaskName, Hotkey)> {
    let rest = key.get(1..)?;
    let end = rest.iter().position(|b| *b == 0)?;
    let task = TaskName::new(std::str::from_utf8(rest.get(..end)?).ok()?).ok()?;
    let (miner, _) = rest.get(end + 1..)?.split_first_chunk::<32>()?;
    Some((task, Hotkey::from_bytes(*miner)))
}

/// The period behind a tag.
pub(crate) fn period_of(key: &[u8]) -> Option<PeriodId> {
    let (period, _) = key.get(1..)?.split_first_chunk::<8>()?;
    Some(PeriodId(u64::from_be_bytes(*period)))
}
