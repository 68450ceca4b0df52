//! Follows a source: looks, decides, keeps what it accepted until its moment, and says what it did.
//!
//! Nothing that a source does stops what runs: while it is away, lies or goes back, the set in force stays in force.
//! Everything is on disk before it counts, so a restart at any point goes on where it was.

mod take;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nineteen_domain::Digest;

use self::take::{NotTaken, Seen};
use crate::decide::Standing;
use crate::event::{Event, Stamped};
use crate::files::{FileError, Kept, checkout, files_of, is_checked_out, prune};
use crate::limits::Limits;
use crate::plan::plan;
use crate::refusal::Refusal;
use crate::set::{Now, Owner, SET_FILE, Set};
use crate::source::{Source, SourceError};
use crate::state::{Away, LastRefusal, Operator, State, Stored, journal};
use crate::status::Status;

/// Why a follower cannot work. What a source does is never here: that is an [`Event`].
#[derive(Debug, thiserror::Error)]
pub enum FollowerError {
    /// Its own files.
    #[error("{0}")]
    File(#[from] FileError),
    /// Another one has the folder.
    #[error("{}: another nineteen follows in this folder: ask that one (`nineteen subnet status`), or stop it", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// What it is told contradicts itself, or what it remembers.
    #[error("{0}")]
    Setting(String),
}

/// What a follower is told.
#[derive(Debug, Clone)]
pub struct FollowerOptions {
    /// Its own folder; made if it is not there.
    pub folder: PathBuf,
    /// Whom the validator trusts at first. Changed later, it counts instead of the running set's owner until the
    /// next set is in force: that is how a subnet comes back whose owners lost their keys.
    pub owner: Owner,
    /// The subnet's name, if only that is followed.
    pub name: Option<String>,
    /// What the validator does not do for any owner.
    pub limits: Limits,
}

/// The set in force, as files that a registry reads.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The set.
    pub set: Arc<Set>,
    /// What identifies it.
    pub digest: Digest,
    /// Since when.
    pub since: Now,
    /// Its `taskset.toml` in the local form, beside its tasks' folders.
    pub taskset: PathBuf,
}

/// A follower. One per folder.
#[derive(Debug)]
pub struct Follower {
    options: FollowerOptions,
    source: Arc<dyn Source>,
    state: State,
    running: Option<Arc<Set>>,
    pending: Option<Arc<Set>>,
    kept: Kept,
    unsaid: Vec<Event>,
    /// Held for its lock, which ends with the process.
    _lock: std::fs::File,
}

impl Follower {
    /// Opens a folder, or makes it.
    ///
    /// # Errors
    /// [`FollowerError`]: somebody else has it, it is damaged, or the options contradict it.
    pub fn open(options: FollowerOptions, source: Arc<dyn Source>) -> Result<Self, FollowerError> {
        let setting = |why: String| FollowerError::Setting(format!("[subnet] {why}"));
        options.owner.check().map_err(|e| setting(e.to_string().replacen("owner.", "", 1)))?;
        options.limits.check().map_err(|(key, why)| setting(format!("{key}: {why}")))?;
        let folder = &options.folder;
        std::fs::create_dir_all(folder).map_err(FileError::io(folder))?;
        let lock = lock(folder)?;
        let mut state = State::read(folder)?.unwrap_or_else(|| State::new(options.owner.clone()));
        let mut unsaid = Vec::new();
        if !state.trusted.same(&options.owner) {
            state.trusted = options.owner.clone();
            state.retrusted = state.running.is_some();
            unsaid.push(Event::Retrusted { keys: options.owner.keys.clone() });
        }
        let kept = Kept::new(folder);
        let reread = |stored: &Option<Stored>| {
            let damaged = |e: Refusal| FileError::content(&folder.join("state.json"), e.to_string());
            stored.as_ref().map(|s| s.read().map(Arc::new).map_err(damaged)).transpose()
        };
        let (running, pending) = (reread(&state.running)?, reread(&state.pending)?);
        if let (Some(set), Some(name)) = (&running, &options.name)
            && set.name != *name
        {
            let (at, runs) = (folder.display(), &set.name);
            return Err(setting(format!(
                "name: '{name}', but '{runs}' is followed in {at}: name another folder"
            )));
        }
        for set in [&running, &pending].into_iter().flatten() {
            let into = folder_of(folder, &set.digest());
            if !is_checked_out(set, &kept, &into) {
                checkout(set, &kept, &into)?;
            }
        }
        Ok(Self { options, source, state, running, pending, kept, unsaid, _lock: lock })
    }

    /// Asks the source, then does what is due. Events come in order and are in the journal by then.
    ///
    /// # Errors
    /// [`FollowerError::File`]: our own disk. What runs runs on.
    pub async fn look(&mut self, now: Now) -> Result<Vec<Stamped>, FollowerError> {
        let mut events = std::mem::take(&mut self.unsaid);
        let mut seen = Seen::default();
        match self.consider(&mut seen, now, &mut events).await {
            Ok(()) => self.back(now, &mut events),
            Err(NotTaken::Refused(refusal)) => {
                self.back(now, &mut events);
                self.refuse(&seen, &refusal, now, &mut events);
            }
            Err(NotTaken::Source(e)) => self.away(&e, now, &mut events),
            Err(NotTaken::File(e)) => return Err(e.into()),
        }
        self.settle(now, &mut events)?;
        self.save(now, events)
    }

    /// Does what is due without asking the source: brings what waits into force when its moment has come.
    ///
    /// # Errors
    /// As [`Follower::look`].
    pub fn tick(&mut self, now: Now) -> Result<Vec<Stamped>, FollowerError> {
        let mut events = std::mem::take(&mut self.unsaid);
        self.settle(now, &mut events)?;
        if events.is_empty() { Ok(Vec::new()) } else { self.save(now, events) }
    }

    /// The set in force.
    #[must_use]
    pub fn in_force(&self) -> Option<InForce> {
        let set = Arc::clone(self.running.as_ref()?);
        let digest = set.digest();
        let folder = folder_of(&self.options.folder, &digest);
        Some(InForce {
            since: self.state.running.as_ref()?.since,
            digest,
            taskset: folder.join(SET_FILE),
            set,
        })
    }

    /// The set that waits for its moment.
    #[must_use]
    pub fn pending(&self) -> Option<Arc<Set>> {
        self.pending.clone()
    }

    /// The `taskset.toml` of the set that waits for its moment, if there is one and its files are here: what can be made ready
    /// meanwhile.
    #[must_use]
    pub fn pending_taskset(&self) -> Option<PathBuf> {
        let file =
            folder_of(&self.options.folder, &self.pending.as_ref()?.digest()).join(crate::set::SET_FILE);
        file.is_file().then_some(file)
    }

    /// For people and programs.
    ///
    /// # Errors
    /// [`FollowerError::File`].
    pub fn status(&self) -> Result<Status, FollowerError> {
        Status::of(&self.options.folder, &self.state)
    }

    pub(super) fn owner(&self) -> &Owner {
        match &self.running {
            Some(set) if !self.state.retrusted => &set.owner,
            _ => &self.options.owner,
        }
    }

    pub(super) fn standing<'a>(&'a self, owner: &'a Owner) -> Standing<'a> {
        Standing {
            running: self.running.as_deref(),
            pending: self.pending.as_deref(),
            owner,
            name: self.options.name.as_deref(),
            looked: self.state.looked,
        }
    }

    fn refuse(&mut self, seen: &Seen, refusal: &Refusal, now: Now, events: &mut Vec<Event>) {
        let (code, why, bytes) = (refusal.code().to_owned(), refusal.to_string(), seen.bytes);
        if self.state.refused.as_ref().is_none_or(|r| r.bytes != bytes || r.code != code) {
            events.push(Event::Refused { set: seen.set, code: code.clone(), why: why.clone() });
            self.state.refused = Some(LastRefusal { bytes, code, why, at: now });
        }
    }

    fn back(&mut self, now: Now, events: &mut Vec<Event>) {
        if let Some(away) = self.state.away.take() {
            events.push(Event::SourceBack { away_s: now.unix_s.saturating_sub(away.since.unix_s) });
        }
    }

    fn away(&mut self, e: &SourceError, now: Now, events: &mut Vec<Event>) {
        let (code, why) = (e.code().to_owned(), e.to_string());
        let since = self.state.away.as_ref().map_or(now, |a| a.since);
        if self.state.away.as_ref().is_none_or(|a| a.code != code) {
            events.push(Event::SourceAway { code: code.clone(), why: why.clone() });
        }
        self.state.away = Some(Away { since, code, why });
    }

    fn settle(&mut self, now: Now, events: &mut Vec<Event>) -> Result<(), FollowerError> {
        if let Some(set) = self.pending.clone() {
            let digest = set.digest();
            let hold = Operator::read(&self.options.folder)?.hold;
            if set.expires_unix_s <= now.unix_s {
                (self.pending, self.state.pending) = (None, None);
                events.push(Event::Lapsed { set: digest });
            } else if set.effective.has_come(now) {
                match hold {
                    Some(why) if self.state.said.insert(format!("waiting {digest}")) => {
                        events.push(Event::Waiting { set: digest, why });
                    }
                    Some(_) => {}
                    None => self.bring_in(&set, now, events),
                }
            }
        }
        if let Some(set) = &self.running {
            let digest = set.digest();
            if set.expires_unix_s <= now.unix_s && self.state.said.insert(format!("stale {digest}")) {
                events.push(Event::Stale { set: digest, expired_unix_s: set.expires_unix_s });
            }
        }
        Ok(())
    }

    fn bring_in(&mut self, set: &Arc<Set>, now: Now, events: &mut Vec<Event>) {
        let before = self.running.replace(Arc::clone(set));
        self.pending = None;
        let stored = self.state.pending.take().map(|s| Stored { since: now, ..s });
        self.state.before = std::mem::replace(&mut self.state.running, stored);
        self.state.retrusted = false;
        self.state.said.clear();
        events.push(Event::InForce {
            set: set.digest(),
            version: set.version.clone(),
            before: before.as_ref().map(|s| s.digest()),
            plan: plan(before.as_deref(), set),
        });
        if before.is_some_and(|b| !b.owner.same(&set.owner)) {
            let (keys, threshold) = (set.owner.keys.clone(), set.owner.threshold);
            events.push(Event::Rotated { keys, threshold });
        }
    }

    fn save(&self, now: Now, events: Vec<Event>) -> Result<Vec<Stamped>, FollowerError> {
        let folder = &self.options.folder;
        self.state.write(folder)?;
        let stamped: Vec<_> = events.into_iter().map(|event| Stamped { at: now, event }).collect();
        journal(folder, &stamped)?;
        // Files of sets that nobody needs any more go last: by now nothing on disk names them.
        if stamped
            .iter()
            .any(|s| matches!(s.event, Event::Pending { .. } | Event::InForce { .. } | Event::Lapsed { .. }))
        {
            let before = self.state.before.as_ref().and_then(|s| s.read().ok()).map(Arc::new);
            let needed = || [&self.running, &self.pending, &before].into_iter().flatten();
            let files = needed().flat_map(|s| &s.tasks).flat_map(files_of).map(|(d, _)| d.hex());
            self.kept.prune(&files.collect::<BTreeSet<_>>())?;
            prune(&folder.join("sets"), &needed().map(|s| s.digest().hex()).collect())?;
        }
        Ok(stamped)
    }
}

pub(crate) fn folder_of(folder: &Path, set: &Digest) -> PathBuf {
    folder.join("sets").join(set.hex())
}

fn lock(folder: &Path) -> Result<std::fs::File, FollowerError> {
    let path = folder.join("lock");
    let open = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(FileError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(FollowerError::Locked { path: folder.to_owned() }),
        Err(std::fs::TryLockError::Error(e)) => Err(FileError::io(&path)(e).into()),
    }
}
