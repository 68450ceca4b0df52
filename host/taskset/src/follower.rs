//! Follows a source: looks, decides, keeps what it accepted until its moment, and says what it did.
//!
//! Nothing that a source does stops what runs: while it is away, lies or goes back, the set in force stays in force.
//! Everything is on disk before it counts, so a restart at any point goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nineteen_domain::task::Manifest;
use nineteen_domain::{Digest, Hotkey, TaskName};
use serde::Serialize;

use crate::decide::{Decision, Proposed, Standing, admit, decide, enough};
use crate::event::{Event, Stamped};
use crate::files::{
    FileError, Kept, MOST_MANIFEST_BYTES, check_calibration, checkout, files_of, is_checked_out, manifest,
    prune,
};
use crate::limits::{Limits, Objection};
use crate::plan::plan;
use crate::refusal::{Refusal, Whose};
use crate::set::{Moment, Now, Owner, SET_FILE, Set};
use crate::signature::Signatures;
use crate::source::{Fetched, Source, SourceError};
use crate::state::{Away, HeldBack, LastRefusal, Operator, State, Stored, journal, last_events};

/// Sets that are walked through to catch up with rotated keys.
const MOST_MISSED: u64 = 64;
/// Everything that a set names, together.
const MOST_BYTES_OF_A_SET: u64 = 1 << 30;
const EVENTS_IN_STATUS: usize = 12;

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
    /// Folder of its components, with their lock.
    pub components: PathBuf,
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

/// What a look saw, as far as it came.
#[derive(Debug, Default)]
struct Seen {
    bytes: Option<Digest>,
    set: Option<Digest>,
}

/// Why a look ended without a set.
enum NotTaken {
    Refused(Refusal),
    Source(SourceError),
    File(FileError),
}

impl From<Refusal> for NotTaken {
    fn from(e: Refusal) -> Self {
        Self::Refused(e)
    }
}
impl From<SourceError> for NotTaken {
    fn from(e: SourceError) -> Self {
        Self::Source(e)
    }
}
impl From<FileError> for NotTaken {
    fn from(e: FileError) -> Self {
        Self::File(e)
    }
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
        if let (Some(set), Some(name)) = (&running, &options.name) {
            if set.name != *name {
                let where_ = folder.display();
                return Err(setting(format!(
                    "name: '{name}', but {where_} follows '{}': name another data folder",
                    set.name
                )));
            }
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
            components: folder.join("components"),
            set,
        })
    }

    /// The set that waits for its moment.
    #[must_use]
    pub fn pending(&self) -> Option<Arc<Set>> {
        self.pending.clone()
    }

    /// For people and programs.
    ///
    /// # Errors
    /// [`FollowerError::File`].
    pub fn status(&self) -> Result<Status, FollowerError> {
        Status::of(&self.options.folder, &self.state)
    }

    async fn consider(&mut self, seen: &mut Seen, now: Now, events: &mut Vec<Event>) -> Result<(), NotTaken> {
        let mut fetched = self.source.fetch().await?;
        if torn(&fetched) {
            // Two files are two requests; between them the owner may have published.
            fetched = self.source.fetch().await?;
        }
        seen.bytes = Some(Digest::of(&[fetched.set.as_slice(), &fetched.signatures].concat()));
        let set = Set::read(&fetched.set)?;
        let digest = set.digest();
        seen.set = Some(digest);
        if [&self.running, &self.pending].into_iter().flatten().any(|s| s.digest() == digest) {
            (self.state.looked, self.state.refused, self.state.held) = (Some(now), None, None);
            return Ok(());
        }
        self.take(set, &fetched, now, events).await
    }

    async fn take(
        &mut self,
        set: Set,
        fetched: &Fetched,
        now: Now,
        events: &mut Vec<Event>,
    ) -> Result<(), NotTaken> {
        let signatures = Signatures::read(&fetched.signatures)?;
        let mut owner = self.owner().clone();
        let mut caught_up = None;
        // Before anything that the set names is fetched: a stranger's file moves nothing.
        if let Err(refusal) = admit(&self.standing(&owner), &set, &signatures, now) {
            let rotated = matches!(refusal, Refusal::TooFew { whose: Whose::Running, .. });
            match if rotated { self.catch_up(&set, now).await? } else { None } {
                Some((later, sequence)) => {
                    owner = later;
                    admit(&self.standing(&owner), &set, &signatures, now)?;
                    caught_up = Some(Event::CaughtUp { sequence });
                }
                None => return Err(refusal.into()),
            }
        }
        let mut manifests: BTreeMap<TaskName, Manifest> = BTreeMap::new();
        for t in &set.tasks {
            let bytes = self.fetch(&t.manifest, MOST_MANIFEST_BYTES).await?;
            manifests.insert(t.name.clone(), manifest(&t.name, &bytes)?);
        }
        let proposed = Proposed { set, signatures, manifests };
        let decision = decide(&self.standing(&owner), &proposed, &self.options.limits, now);
        let Proposed { set, signatures, .. } = proposed;
        let digest = set.digest();
        let signers = match decision {
            Decision::Known => return Ok(()),
            Decision::Refused(refusal) => return Err(refusal.into()),
            Decision::Accepted { signers, .. } => signers,
            Decision::Held(objections) => {
                if !Operator::read(&self.options.folder)?.approved.contains(&digest) {
                    self.hold_back(digest, set.version.clone(), objections, events);
                    return Ok(());
                }
                enough(&signatures, &digest, &owner, Whose::Running)?
            }
        };
        events.extend(caught_up);
        self.accept(set, fetched, signers, now, events).await
    }

    async fn accept(
        &mut self,
        set: Set,
        fetched: &Fetched,
        signers: Vec<Hotkey>,
        now: Now,
        events: &mut Vec<Event>,
    ) -> Result<(), NotTaken> {
        let mut sum: u64 = 0;
        for t in &set.tasks {
            for (digest, most) in files_of(t) {
                let bytes = self.fetch(&digest, most).await?;
                sum = sum.saturating_add(bytes.len() as u64);
                if sum > MOST_BYTES_OF_A_SET {
                    let why =
                        format!("the files of the set are more than {MOST_BYTES_OF_A_SET} bytes together");
                    return Err(Refusal::TaskFile { task: t.name.clone(), file: "component", why }.into());
                }
                if Some(digest) == t.calibration {
                    check_calibration(&t.name, &bytes)?;
                }
            }
        }
        let digest = set.digest();
        checkout(&set, &self.kept, &folder_of(&self.options.folder, &digest))?;
        events.push(Event::Pending {
            set: digest,
            version: set.version.clone(),
            effective: set.effective,
            signers: signers.clone(),
            instead_of: self.pending.as_ref().map(|s| s.digest()),
        });
        self.state.pending = Some(Stored::new(fetched, signers, now));
        self.pending = Some(Arc::new(set));
        (self.state.held, self.state.refused) = (None, None);
        Ok(())
    }

    /// A file by its digest, from here or from the source; kept either way.
    async fn fetch(&self, digest: &Digest, most: u64) -> Result<Vec<u8>, NotTaken> {
        if let Some(bytes) = self.kept.read(digest, most) {
            return Ok(bytes);
        }
        let bytes = self.source.blob(digest, most).await?;
        let found = Digest::of(&bytes);
        if found != *digest {
            let place = format!("{} {digest}", self.source.place());
            return Err(SourceError::Digest { place, found, asked: *digest }.into());
        }
        self.kept.put(&bytes)?;
        Ok(bytes)
    }

    /// Whoever was away while keys changed follows the change set by set: each is signed by the owner of the one
    /// before. Gives the owner before `newest`, if there is a way there.
    async fn catch_up(&self, newest: &Set, now: Now) -> Result<Option<(Owner, u64)>, NotTaken> {
        let Some(running) = &self.running else { return Ok(None) };
        let mut owner = self.owner().clone();
        let mut reached = None;
        let first = running.sequence.saturating_add(1);
        for sequence in first..newest.sequence.min(first.saturating_add(MOST_MISSED)) {
            let fetched = match self.source.fetch_at(sequence).await {
                Ok(fetched) => fetched,
                Err(SourceError::NotFound { .. }) => continue,
                Err(e) => return Err(e.into()),
            };
            let (Ok(set), Ok(signatures)) = (Set::read(&fetched.set), Signatures::read(&fetched.signatures))
            else {
                break;
            };
            let digest = set.digest();
            let follows = set.sequence == sequence
                && set.name == running.name
                && set.effective.has_come(now)
                && enough(&signatures, &digest, &owner, Whose::Running).is_ok()
                && enough(&signatures, &digest, &set.owner, Whose::Next).is_ok();
            if follows {
                owner = set.owner;
                reached = Some(sequence);
            }
        }
        Ok(reached.map(|sequence| (owner, sequence)))
    }

    fn owner(&self) -> &Owner {
        match &self.running {
            Some(set) if !self.state.retrusted => &set.owner,
            _ => &self.options.owner,
        }
    }

    fn standing<'a>(&'a self, owner: &'a Owner) -> Standing<'a> {
        Standing {
            running: self.running.as_deref(),
            pending: self.pending.as_deref(),
            owner,
            name: self.options.name.as_deref(),
            looked: self.state.looked,
        }
    }

    fn hold_back(
        &mut self,
        set: Digest,
        version: semver::Version,
        objections: Vec<Objection>,
        events: &mut Vec<Event>,
    ) {
        let known = self.state.held.as_ref().is_some_and(|h| h.set == set && h.objections == objections);
        if !known {
            events.push(Event::Held { set, version: version.clone(), objections: objections.clone() });
        }
        self.state.held = Some(HeldBack { set, version, objections });
        self.state.refused = None;
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

/// Whether the signatures say that they are of another set.
fn torn(fetched: &Fetched) -> bool {
    match (Set::read(&fetched.set), Signatures::read(&fetched.signatures)) {
        (Ok(set), Ok(signatures)) => set.digest() != signatures.set,
        _ => false,
    }
}

fn folder_of(folder: &Path, set: &Digest) -> PathBuf {
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

/// One set in a status.
#[derive(Debug, Clone, Serialize)]
pub struct SetLine {
    /// The subnet.
    pub name: String,
    /// Its version.
    pub version: semver::Version,
    /// Its number.
    pub sequence: u64,
    /// What identifies it.
    pub digest: Digest,
    /// Its moment.
    pub effective: Moment,
    /// Until when it is taken up.
    pub expires_unix_s: u64,
    /// Who signed it.
    pub signers: Vec<Hotkey>,
    /// Since when it runs, or waits.
    pub since: Now,
    /// Tasks and weights.
    pub tasks: BTreeMap<TaskName, f64>,
}

/// A set that waits for the operator's word.
#[derive(Debug, Clone, Serialize)]
pub struct HeldLine {
    /// Which.
    pub set: Digest,
    /// Its version.
    pub version: semver::Version,
    /// Why, in words.
    pub objections: Vec<String>,
}

/// How a follower stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// In force.
    pub running: Option<SetLine>,
    /// Accepted, waiting for its moment.
    pub pending: Option<SetLine>,
    /// Waiting for the operator's word.
    pub held: Option<HeldLine>,
    /// The operator's reason for holding everything.
    pub hold: Option<String>,
    /// Whose signatures the next set needs.
    pub owner: Owner,
    /// Since when the source does not answer, and why.
    pub away: Option<(Now, String)>,
    /// The last refusal, if nothing was taken since: when, code, line.
    pub refused: Option<(Now, String, String)>,
    /// When the source was last seen with nothing new.
    pub looked: Option<Now>,
    /// The last events, oldest first.
    pub events: Vec<Stamped>,
}

impl Status {
    /// Of a folder, also of one that a validator is following in. `None`: nothing was ever followed there.
    ///
    /// # Errors
    /// [`FollowerError::File`].
    pub fn read(folder: &Path) -> Result<Option<Self>, FollowerError> {
        State::read(folder)?.map(|state| Self::of(folder, &state)).transpose()
    }

    /// The set in force in a folder, as it was signed.
    ///
    /// # Errors
    /// As [`Status::read`].
    pub fn running_set(folder: &Path) -> Result<Option<Set>, FollowerError> {
        let state = State::read(folder)?;
        Ok(state.and_then(|s| s.running).and_then(|s| s.read().ok()))
    }

    fn of(folder: &Path, state: &State) -> Result<Self, FollowerError> {
        let line = |stored: &Option<Stored>| {
            let stored = stored.as_ref()?;
            let set = stored.read().ok()?;
            Some(SetLine {
                digest: set.digest(),
                effective: set.effective,
                expires_unix_s: set.expires_unix_s,
                sequence: set.sequence,
                signers: stored.signers.clone(),
                since: stored.since,
                tasks: set.tasks.iter().map(|t| (t.name.clone(), t.weight)).collect(),
                name: set.name,
                version: set.version,
            })
        };
        let running = state.running.as_ref().and_then(|s| s.read().ok()).filter(|_| !state.retrusted);
        Ok(Self {
            running: line(&state.running),
            pending: line(&state.pending),
            held: state.held.as_ref().map(|h| HeldLine {
                set: h.set,
                version: h.version.clone(),
                objections: h.objections.iter().map(ToString::to_string).collect(),
            }),
            hold: Operator::read(folder)?.hold,
            owner: running.map_or_else(|| state.trusted.clone(), |s| s.owner),
            away: state.away.as_ref().map(|a| (a.since, a.why.clone())),
            refused: state.refused.as_ref().map(|r| (r.at, r.code.clone(), r.why.clone())),
            looked: state.looked,
            events: last_events(folder, EVENTS_IN_STATUS),
        })
    }
}
