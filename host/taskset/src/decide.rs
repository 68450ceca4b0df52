//! What becomes of a proposed set: one pure function of what runs, what is proposed, the limits and the time.
//!
//! It is asked twice: [`admit`] before anything that the set names is fetched, so that a stranger's file moves
//! nothing, and [`decide`] with the manifests in hand.

use std::collections::BTreeMap;

use nineteen_domain::task::Manifest;
use nineteen_domain::{Digest, Hotkey, TaskName};

use crate::limits::{Limits, Objection};
use crate::refusal::{Refusal, Whose};
use crate::set::{Moment, Now, Owner, Set};
use crate::signature::Signatures;

/// A clock may be off by this much.
const SKEW_S: u64 = 600;
const SKEW_BLOCKS: u64 = 50;

/// Where a validator stands when a set is proposed to it.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// The set in force; `None` before the first.
    pub running: Option<&'a Set>,
    /// The set that was accepted and waits for its moment.
    pub pending: Option<&'a Set>,
    /// Whose signatures count: the running set's owner, or the keys that the configuration trusts.
    pub owner: &'a Owner,
    /// The subnet's name that the configuration asks for.
    pub name: Option<&'a str>,
    /// When the source was last seen without the proposed set.
    pub looked: Option<Now>,
}

/// A set that is offered.
#[derive(Debug, Clone)]
pub struct Proposed {
    /// The set, as read.
    pub set: Set,
    /// Its signatures.
    pub signatures: Signatures,
    /// Its tasks' manifests, by name.
    pub manifests: BTreeMap<TaskName, Manifest>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It is the one that runs or that waits: nothing to do.
    Known,
    /// It is not taken.
    Refused(Refusal),
    /// It may be taken if the operator says so.
    Held(Vec<Objection>),
    /// It is taken.
    Accepted {
        /// From when on.
        effective: Moment,
        /// Whether that has come.
        due: bool,
        /// The owners who signed.
        signers: Vec<Hotkey>,
    },
}

/// Decides about a set. Pure; never looks at anything but its arguments.
#[must_use]
pub fn decide(standing: &Standing<'_>, proposed: &Proposed, limits: &Limits, now: Now) -> Decision {
    let digest = proposed.set.digest();
    if [standing.running, standing.pending].into_iter().flatten().any(|s| s.digest() == digest) {
        return Decision::Known;
    }
    let admitted = admit(standing, &proposed.set, &proposed.signatures, now)
        .and_then(|signers| check_files(&proposed.set, &proposed.manifests).map(|()| signers));
    let signers = match admitted {
        Ok(signers) => signers,
        Err(refusal) => return Decision::Refused(refusal),
    };
    let objections = limits.objections(standing.running, &proposed.set, &proposed.manifests, standing.looked);
    if !objections.is_empty() {
        return Decision::Held(objections);
    }
    let effective = proposed.set.effective;
    Decision::Accepted { effective, due: effective.has_come(now), signers }
}

/// Whether a set may be offered at all: its own rules, its signatures, its place in the order, its dates. Gives
/// the owners who signed.
///
/// # Errors
/// [`Refusal`].
pub fn admit(
    standing: &Standing<'_>,
    set: &Set,
    signatures: &Signatures,
    now: Now,
) -> Result<Vec<Hotkey>, Refusal> {
    set.check()?;
    let followed = standing.running.map(|s| s.name.as_str()).or(standing.name);
    if let Some(followed) = followed.filter(|name| *name != set.name) {
        return Err(Refusal::OtherName { given: set.name.clone(), followed: followed.to_owned() });
    }
    let signers = check_signatures(standing, set, signatures)?;
    check_order(standing, set)?;
    check_dates(standing, set, now)?;
    Ok(signers)
}

fn check_signatures(
    standing: &Standing<'_>,
    set: &Set,
    signatures: &Signatures,
) -> Result<Vec<Hotkey>, Refusal> {
    let whose = if standing.running.is_some() { Whose::Running } else { Whose::First };
    let digest = set.digest();
    let signers = enough(signatures, &digest, standing.owner, whose)?;
    if !set.owner.same(standing.owner) {
        // Nobody hands a subnet to keys that are not there: a slip would lock everybody out for ever.
        enough(signatures, &digest, &set.owner, Whose::Next)?;
    }
    Ok(signers)
}

/// The owners who signed, if they are enough.
pub(crate) fn enough(
    signatures: &Signatures,
    set: &Digest,
    owner: &Owner,
    whose: Whose,
) -> Result<Vec<Hotkey>, Refusal> {
    let tally = signatures.tally(set, owner)?;
    let have = u32::try_from(tally.signers.len()).unwrap_or(u32::MAX);
    if have >= owner.threshold.max(1) {
        return Ok(tally.signers);
    }
    let (strangers, broken) = (tally.strangers, tally.broken);
    Err(Refusal::TooFew { whose, have, need: owner.threshold, strangers, broken })
}

fn check_order(standing: &Standing<'_>, set: &Set) -> Result<(), Refusal> {
    // What waits for its moment was accepted too: going back behind it would be going back.
    for accepted in [standing.running, standing.pending].into_iter().flatten() {
        if set.sequence < accepted.sequence {
            return Err(Refusal::Older { given: set.sequence, accepted: accepted.sequence });
        }
        if set.sequence == accepted.sequence {
            let (accepted, given) = (accepted.digest(), set.digest());
            if accepted == given {
                continue;
            }
            return Err(Refusal::Twice { sequence: set.sequence, accepted, given });
        }
        if set.version <= accepted.version {
            return Err(Refusal::Version { given: set.version.clone(), accepted: accepted.version.clone() });
        }
    }
    Ok(())
}

fn check_dates(standing: &Standing<'_>, set: &Set, now: Now) -> Result<(), Refusal> {
    if set.expires_unix_s <= now.unix_s {
        return Err(Refusal::Expired { expired_unix_s: set.expires_unix_s });
    }
    let (skew, unit) = match set.published {
        Moment::UnixS(_) => (SKEW_S, "seconds"),
        Moment::Block(_) => (SKEW_BLOCKS, "blocks"),
    };
    let ahead = now.of_kind(set.published).and_then(|now| set.published.after(now));
    if ahead.is_some_and(|ahead| ahead > skew) {
        return Err(Refusal::FromTheFuture { published: set.published });
    }
    // By the set's own dates, so that every validator comes to the same answer whenever it looks.
    let promised = standing.running.map_or(0, |s| s.notice.for_kind(set.effective));
    let given = set.effective.after(set.published).unwrap_or(0);
    if given < promised {
        return Err(Refusal::ShortNotice { given, promised, unit });
    }
    Ok(())
}

/// Manifests have to be those of their tasks, and to ask for a host like this one.
fn check_files(set: &Set, manifests: &BTreeMap<TaskName, Manifest>) -> Result<(), Refusal> {
    let host = semver::Version::parse(env!("CARGO_PKG_VERSION")).unwrap_or(semver::Version::new(0, 0, 0));
    let mut components: BTreeMap<&str, Digest> = BTreeMap::new();
    for t in &set.tasks {
        let refuse = |why: String| Refusal::TaskFile { task: t.name.clone(), file: "task.toml", why };
        let m = manifests.get(&t.name).ok_or_else(|| refuse("it is missing".into()))?;
        if m.name != t.name {
            return Err(refuse(format!("it is of '{}'", m.name)));
        }
        if m.digest.is_some_and(|d| d != t.component) {
            return Err(refuse(format!("digest: it names another component than the set ({})", t.component)));
        }
        if m.component.is_empty() || m.component.len() > 128 || m.component.contains(['/', '\\', '.', '\0']) {
            return Err(refuse("component: a name without folder and ending is needed".into()));
        }
        if !m.host.matches(&host) {
            return Err(refuse(format!("host: it asks for nineteen {}, this is {host}", m.host)));
        }
        if *components.entry(&m.component).or_insert(t.component) != t.component {
            return Err(refuse(format!("component: '{}' stands for two digests in the set", m.component)));
        }
    }
    Ok(())
}
