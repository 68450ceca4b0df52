//! From what a source offers to what is accepted: read, admit, fetch the manifests, decide, fetch the rest.
//!
//! In this order, so that nothing is fetched for a stranger and nothing large for a set that is not taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use nineteen_domain::task::Manifest;
use nineteen_domain::{Digest, Hotkey, TaskName};

use super::{Follower, folder_of};
use crate::decide::{Decision, Proposed, admit, decide, enough};
use crate::event::Event;
use crate::files::{FileError, MOST_MANIFEST_BYTES, check_calibration, checkout, files_of, manifest};
use crate::limits::Objection;
use crate::refusal::{Refusal, Whose};
use crate::set::{Now, Owner, Set};
use crate::signature::Signatures;
use crate::source::{Fetched, SourceError};
use crate::state::{HeldBack, Operator, Stored};

/// Sets that are walked through to catch up with rotated keys.
const MOST_MISSED: u64 = 64;
/// Everything that a set names, together.
const MOST_BYTES_OF_A_SET: u64 = 1 << 30;

/// What a look saw, as far as it came.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) bytes: Option<Digest>,
    pub(super) set: Option<Digest>,
}

/// Why a look ended without a set.
pub(super) enum NotTaken {
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
    pub(super) async fn consider(
        &mut self,
        seen: &mut Seen,
        now: Now,
        events: &mut Vec<Event>,
    ) -> Result<(), NotTaken> {
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
            let way = if rotated { self.catch_up(&set, now).await? } else { None };
            match way {
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
        let before = events.len();
        self.accept(set, fetched, signers, now, events).await?;
        events.splice(before..before, caught_up);
        Ok(())
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
}

/// Whether the signatures say that they are of another set.
fn torn(fetched: &Fetched) -> bool {
    match (Set::read(&fetched.set), Signatures::read(&fetched.signatures)) {
        (Ok(set), Ok(signatures)) => set.digest() != signatures.set,
        _ => false,
    }
}
