//! A family of append-only segments: files `<seq, 20 digits>.seg` in one folder.
//!
//! The last segment grows; those before it are sealed and only ever removed whole. What a crash tore off
//! the end of the last one is cut when the family is opened; damage anywhere else is an error that names
//! file and offset, never something to be repaired in silence.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Result, StoreError};
use crate::folder::sync_dir;
use crate::frame::{self, At, ENTRY_HEAD, HEADER_LEN, Header};
use crate::record::Record;

/// What a segment holds. Families have their own retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Requests and exchanges, whole.
    Exchanges,
    /// Checks and their evidence.
    Evidence,
    /// Everything that scores are made of: plans, probes, samples, rows, settlements, weights.
    Ledger,
}

impl Family {
    /// All of them, in the order in which a group is written: bodies before the ledger that speaks of them.
    pub const ALL: [Self; 3] = [Self::Exchanges, Self::Evidence, Self::Ledger];

    /// Its folder in the store.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Exchanges => "exchanges",
            Self::Evidence => "evidence",
            Self::Ledger => "ledger",
        }
    }

    pub(crate) const fn id(self) -> u32 {
        match self {
            Self::Exchanges => 1,
            Self::Evidence => 2,
            Self::Ledger => 3,
        }
    }
}

/// A place in a family: a segment and an offset in it. Orders as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) offset: u64,
}

/// How long a family's segments are kept. A segment goes whole, oldest first, and never the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Bytes over all segments of the family.
    pub max_bytes: u64,
    /// Age of a segment's youngest record, in microseconds.
    pub max_age_us: u64,
}

/// A sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) seq: u64,
    bytes: u64,
    created_us: u64,
}

/// The family, open for appending.
#[derive(Debug)]
pub(crate) struct Segments {
    family: Family,
    dir: PathBuf,
    sealed: Vec<Sealed>,
    file: File,
    header: Header,
    len: u64,
}

pub(crate) fn path_of(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:020}.seg"))
}

fn corrupt(file: &Path, offset: u64, why: impl Into<String>, way_out: impl Into<String>) -> StoreError {
    StoreError::Corrupt { file: file.to_owned(), offset, why: why.into(), way_out: way_out.into() }
}

/// The way out of damage inside a segment: it works because what ends at a whole frame is a whole segment,
/// and an emptied one counts as given up.
fn cut_it(file: &Path, offset: u64) -> String {
    let view = file.parent().and_then(Path::parent).map(|d| d.join(crate::folder::VIEW)).unwrap_or_default();
    let keep = if offset < HEADER_LEN as u64 { 0 } else { offset };
    format!(
        "restore it from a backup, or give up what it holds from there on: truncate -s {keep} '{}' && rm -r '{}'",
        file.display(),
        view.display()
    )
}

/// Numbers of the segments in a folder, ascending and without a gap.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>> {
    let read = |e: &std::io::Error| StoreError::io(dir, "list the folder", e);
    let mut seqs = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| read(&e))? {
        let name = entry.map_err(|e| read(&e))?.file_name();
        let seq = name.to_str().and_then(|n| n.strip_suffix(".seg")).and_then(|n| n.parse::<u64>().ok());
        seqs.extend(seq);
    }
    seqs.sort_unstable();
    for pair in seqs.windows(2) {
        if let [a, b] = *pair
            && b != a + 1
        {
            let gone = path_of(dir, a + 1);
            let way_out = format!(
                "restore it from a backup, or accept the loss of what it held: touch '{}'",
                gone.display()
            );
            return Err(corrupt(&gone, 0, "the segment is gone", way_out));
        }
    }
    Ok(seqs)
}

fn read_header(file: &Path, family: Family, seq: u64, bytes: &[u8]) -> Result<Header> {
    let header = Header::decode(bytes).map_err(|why| corrupt(file, 0, why, cut_it(file, 0)))?;
    if header.family != family.id() || header.seq != seq {
        let why = format!("it is segment {} of family {}", header.seq, header.family);
        return Err(corrupt(file, 0, why, "put every segment back where it was".to_owned()));
    }
    Ok(header)
}

fn random_marker() -> Result<u32> {
    getrandom::u32().map_err(|e| StoreError::Io {
        path: PathBuf::from("the operating system's randomness"),
        action: "read",
        why: e.to_string(),
    })
}

/// Creates a segment: header and folder entry are on disk when this returns.
fn create(dir: &Path, family: Family, seq: u64, now_us: u64) -> Result<(File, Header)> {
    let path = path_of(dir, seq);
    let header = Header { family: family.id(), seq, created_us: now_us, marker: random_marker()? };
    let made = OpenOptions::new()
        .read(true)
        .append(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(&header.encode())?;
            file.sync_all()?;
            Ok(file)
        })
        .map_err(|e| StoreError::io(&path, "create the segment", &e))
        .and_then(|file| sync_dir(dir).map(|()| file));
    match made {
        Ok(file) => Ok((file, header)),
        Err(e) => {
            // Half a segment would be taken for a torn one at the next start, which is harmless too.
            let _ = fs::remove_file(&path);
            Err(e)
        }
    }
}

impl Segments {
    /// Opens the family, cuts a torn tail, and starts a segment if there is none.
    ///
    /// `known` is a place up to which the view has seen the family: what lies before it was acknowledged.
    pub(crate) fn open(dir: &Path, family: Family, known: Option<Place>, now_us: u64) -> Result<Self> {
        let mut seqs = list(dir)?;
        while let Some(last) = seqs.last().copied()
            && forget_unborn(&path_of(dir, last))?
        {
            sync_dir(dir)?;
            seqs.pop();
        }
        let last = seqs.pop();
        let mut sealed = Vec::with_capacity(seqs.len());
        for seq in seqs {
            sealed.push(inspect(dir, family, seq)?);
        }
        let active = match last {
            Some(seq) => Some(reopen(dir, family, seq, known)?),
            None => None,
        };
        let end = active.as_ref().map(|(_, header, len)| Place { seq: header.seq, offset: *len });
        if let Some(known) = known.filter(|k| end.is_none_or(|e| *k > e)) {
            let file = path_of(dir, known.seq);
            let why = format!("records up to byte {} were acknowledged and are gone", known.offset);
            let view = dir.parent().unwrap_or(dir).join(crate::folder::VIEW);
            let way_out = format!("restore it from a backup, or accept the loss: rm -r '{}'", view.display());
            return Err(corrupt(
                &file,
                end.filter(|e| e.seq == known.seq).map_or(0, |e| e.offset),
                why,
                way_out,
            ));
        }
        let (file, header, len) = match active {
            Some(active) => active,
            None => {
                let (file, header) = create(dir, family, 1, now_us)?;
                (file, header, HEADER_LEN as u64)
            }
        };
        Ok(Self { family, dir: dir.to_owned(), sealed, file, header, len })
    }

    pub(crate) const fn family(&self) -> Family {
        self.family
    }

    /// Where the next frame goes.
    pub(crate) const fn end(&self) -> Place {
        Place { seq: self.header.seq, offset: self.len }
    }

    /// Appends one frame and syncs it. On `Ok` the records are on disk.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`] leave the family as it was; [`StoreError::Poisoned`]
    /// means that this cannot be said.
    pub(crate) fn append(&mut self, entries: &[&[u8]]) -> Result<Vec<Place>> {
        let (bytes, offsets) = frame::encode(self.header.marker, entries)?;
        let path = path_of(&self.dir, self.header.seq);
        if let Err(e) = self.file.write_all(&bytes) {
            let failed = StoreError::io(&path, "append to the segment", &e);
            // What was written of the frame must not stand before the next one.
            return match self.file.set_len(self.len).and_then(|()| self.file.sync_data()) {
                Ok(()) => Err(failed),
                Err(undo) => Err(StoreError::Poisoned { why: format!("{failed}; and undoing it: {undo}") }),
            };
        }
        if let Err(e) = self.file.sync_data() {
            // After a failed sync the kernel may have dropped the pages: nothing can be said about them.
            return Err(StoreError::Poisoned {
                why: StoreError::io(&path, "sync the segment", &e).to_string(),
            });
        }
        let start = self.len;
        self.len += bytes.len() as u64;
        Ok(offsets.into_iter().map(|o| Place { seq: self.header.seq, offset: start + o }).collect())
    }

    /// Seals the segment and starts the next, if it is long or old enough. Says whether it did.
    pub(crate) fn roll(&mut self, max_bytes: u64, max_age_us: u64, now_us: u64) -> Result<bool> {
        let old = now_us.saturating_sub(self.header.created_us) >= max_age_us;
        let used = self.len > HEADER_LEN as u64;
        if !(used && (self.len >= max_bytes || old)) {
            return Ok(false);
        }
        let (file, header) = create(&self.dir, self.family, self.header.seq + 1, now_us)?;
        self.sealed.push(Sealed {
            seq: self.header.seq,
            bytes: self.len,
            created_us: self.header.created_us,
        });
        (self.file, self.header, self.len) = (file, header, HEADER_LEN as u64);
        Ok(true)
    }

    /// The oldest sealed segment, if retention wants it gone.
    pub(crate) fn overdue(&self, keep: Retention, now_us: u64) -> Option<Sealed> {
        let oldest = *self.sealed.first()?;
        // A segment's youngest record is at most as young as the next segment.
        let ended_us = self.sealed.get(1).map_or(self.header.created_us, |next| next.created_us);
        let total = self.sealed.iter().map(|s| s.bytes).sum::<u64>() + self.len;
        let too_old = now_us.saturating_sub(ended_us) > keep.max_age_us;
        (too_old || total > keep.max_bytes).then_some(oldest)
    }

    /// Removes the oldest sealed segment.
    pub(crate) fn remove_oldest(&mut self) -> Result<()> {
        let Some(oldest) = self.sealed.first().copied() else { return Ok(()) };
        let path = path_of(&self.dir, oldest.seq);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io(&path, "remove the segment", &e));
            }
            _ => {}
        }
        self.sealed.remove(0);
        sync_dir(&self.dir)
    }
}

/// Removes a last segment whose creation was interrupted before it could hold anything.
fn forget_unborn(path: &Path) -> Result<bool> {
    let bytes = read_up_to(path, HEADER_LEN as u64 + 1)?;
    if bytes.len() > HEADER_LEN || (bytes.len() == HEADER_LEN && Header::decode(&bytes).is_ok()) {
        return Ok(false);
    }
    tracing::warn!(file = %path.display(), "removed a segment whose creation was interrupted");
    fs::remove_file(path).map_err(|e| StoreError::io(path, "remove the segment", &e))?;
    Ok(true)
}

fn inspect(dir: &Path, family: Family, seq: u64) -> Result<Sealed> {
    let path = path_of(dir, seq);
    let bytes = fs::metadata(&path).map_err(|e| StoreError::io(&path, "look at the segment", &e))?.len();
    if bytes == 0 {
        return Ok(Sealed { seq, bytes, created_us: 0 });
    }
    let header = read_header(&path, family, seq, &read_up_to(&path, HEADER_LEN as u64)?)?;
    Ok(Sealed { seq, bytes, created_us: header.created_us })
}

fn read_up_to(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|f| f.take(most).read_to_end(&mut bytes))
        .map_err(|e| StoreError::io(path, "read the segment", &e))?;
    Ok(bytes)
}

/// Opens the last segment and cuts a torn tail.
fn reopen(dir: &Path, family: Family, seq: u64, known: Option<Place>) -> Result<(File, Header, u64)> {
    let path = path_of(dir, seq);
    let bytes = read_up_to(&path, u64::MAX)?;
    let header = read_header(&path, family, seq, &bytes)?;
    let mut at = HEADER_LEN;
    let damage = loop {
        match frame::frame_at(&bytes, at, header.marker) {
            At::Frame { next, .. } => at = next,
            At::End => break None,
            At::Damaged(why) => break Some(why),
        }
    };
    let len = at as u64;
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .open(&path)
        .map_err(|e| StoreError::io(&path, "open the segment", &e))?;
    if let Some(why) = damage {
        let seen = known.is_some_and(|k| k > Place { seq, offset: len });
        if seen || frame::whole_frame_behind(&bytes, at, header.marker) {
            return Err(corrupt(&path, len, why, cut_it(&path, len)));
        }
        tracing::warn!(file = %path.display(), from = len, bytes = bytes.len() - at, "cut a torn tail");
        file.set_len(len)
            .and_then(|()| file.sync_data())
            .map_err(|e| StoreError::io(&path, "cut the torn tail", &e))?;
    }
    Ok((file, header, len))
}

/// One record's bytes, by its place. `None` when retention has taken the segment.
pub(crate) fn read_entry(dir: &Path, place: Place) -> Result<Option<Vec<u8>>> {
    let path = path_of(dir, place.seq);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io(&path, "open the segment", &e)),
    };
    let damaged = |why: &str| corrupt(&path, place.offset, why, cut_it(&path, place.offset));
    let read = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => damaged("it ends within a record"),
        _ => StoreError::io(&path, "read the segment", &e),
    };
    let mut bytes = vec![0; ENTRY_HEAD];
    file.seek(SeekFrom::Start(place.offset)).map_err(read)?;
    file.read_exact(&mut bytes).map_err(read)?;
    let len = frame::entry_len(&bytes).ok_or_else(|| damaged("a record's length is out of range"))?;
    let got = file.take(len as u64).read_to_end(&mut bytes).map_err(read)?;
    if got < len {
        return Err(damaged("it ends within a record"));
    }
    frame::entry_at(&bytes, 0).map_err(damaged)?;
    Ok(Some(bytes.split_off(ENTRY_HEAD)))
}

/// The record in an entry whose checksum is right.
pub(crate) fn decode(dir: &Path, place: Place, bytes: &[u8]) -> Result<Record> {
    Record::decode(bytes).map_err(|e| {
        let way_out = "run the version of the program that wrote it";
        corrupt(&path_of(dir, place.seq), place.offset, e.to_string(), way_out)
    })
}

/// Walks one segment from an offset to its end (or to `until`), frame by frame. `visit` gets the records of
/// a frame with their places.
pub(crate) fn walk(
    dir: &Path,
    family: Family,
    from: Place,
    until: Option<u64>,
    mut visit: impl FnMut(&[(Place, &[u8])]) -> Result<()>,
) -> Result<()> {
    let path = path_of(dir, from.seq);
    let bytes = match read_up_to(&path, until.unwrap_or(u64::MAX)) {
        Ok(bytes) => bytes,
        // Retention took it in the meantime.
        Err(_) if !path.exists() => return Ok(()),
        Err(e) => return Err(e),
    };
    if bytes.is_empty() {
        tracing::warn!(file = %path.display(), "an emptied segment is taken as given up");
        return Ok(());
    }
    let header = read_header(&path, family, from.seq, &bytes)?;
    let damaged = |at: usize, why: &str| corrupt(&path, at as u64, why, cut_it(&path, at as u64));
    let mut at = usize::try_from(from.offset).unwrap_or(usize::MAX).max(HEADER_LEN);
    loop {
        let (entries, next) = match frame::frame_at(&bytes, at, header.marker) {
            At::Frame { entries, next } => (entries, next),
            At::End => return Ok(()),
            At::Damaged(why) => return Err(damaged(at, why)),
        };
        let (mut records, mut within) = (Vec::new(), 0);
        while let Some((payload, after)) = frame::entry_at(entries, within).map_err(|why| damaged(at, why))? {
            let offset = (at + frame::FRAME_HEAD + within) as u64;
            records.push((Place { seq: from.seq, offset }, payload));
            within = after;
        }
        visit(&records)?;
        at = next;
    }
}
