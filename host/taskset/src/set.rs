//! A task set in its signed form, as `taskset.toml` says it, and the rules it keeps by itself.
//!
//! Whether anybody may propose it now is [`crate::decide`]'s question.

use std::collections::BTreeSet;
use std::fmt;

use nineteen_domain::policy::Policy;
use nineteen_domain::task::PolicyChoice;
use nineteen_domain::{Digest, Hotkey, TaskName};
use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::refusal::Refusal;

/// Name of the set's file, in a folder and on a server.
pub const SET_FILE: &str = "taskset.toml";
/// Name of the signatures' file beside it.
pub const SIGNATURES_FILE: &str = "taskset.sig";
/// The form that this host reads.
pub(crate) const FORMAT: u32 = 1;
/// Bytes of a set's file.
pub(crate) const MOST_SET_BYTES: usize = 256 << 10;
const MOST_TASKS: usize = 64;
const MOST_KEYS: usize = 32;
/// A longer promise would lock the owner out of mending anything.
const MOST_NOTICE_S: u64 = 90 * 86_400;
const MOST_NOTICE_BLOCKS: u64 = 648_000;

/// When something holds: by the chain's block, the same for everybody, or by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// From this block on.
    #[serde(rename = "block")]
    Block(u64),
    /// From this second of the Unix epoch on.
    #[serde(rename = "unix_s")]
    UnixS(u64),
}

impl Moment {
    /// Whether it has come. A block cannot have come for one who does not know the chain's head.
    #[must_use]
    pub const fn has_come(self, now: Now) -> bool {
        match (self, now.block) {
            (Self::UnixS(at), _) => at <= now.unix_s,
            (Self::Block(at), Some(head)) => at <= head,
            (Self::Block(_), None) => false,
        }
    }

    /// How long after `earlier` it comes, in seconds or blocks; 0 if before. `None`: the two are of two kinds.
    #[must_use]
    pub const fn after(self, earlier: Self) -> Option<u64> {
        match (self, earlier) {
            (Self::Block(a), Self::Block(b)) | (Self::UnixS(a), Self::UnixS(b)) => Some(a.saturating_sub(b)),
            _ => None,
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(n) => write!(f, "block {n}"),
            Self::UnixS(s) => f.write_str(&utc(*s)),
        }
    }
}

/// `2026-11-23 14:04:12 UTC`.
#[must_use]
pub(crate) fn utc(unix_s: u64) -> String {
    let (days, rest) = (unix_s / 86_400, unix_s % 86_400);
    if days > 2_932_896 {
        return format!("second {unix_s}"); // after the year 9999
    }
    // Civil date from days, after Howard Hinnant's algorithm: years begin in March, eras have 400 of them.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The time as a validator knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Seconds of the Unix epoch.
    pub unix_s: u64,
    /// The chain's head, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
}

impl Now {
    /// As a moment of this kind; `None`: the head is not known.
    #[must_use]
    pub const fn of_kind(self, kind: Moment) -> Option<Moment> {
        match (kind, self.block) {
            (Moment::UnixS(_), _) => Some(Moment::UnixS(self.unix_s)),
            (Moment::Block(_), Some(head)) => Some(Moment::Block(head)),
            (Moment::Block(_), None) => None,
        }
    }
}

/// Who may sign: any `threshold` of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Signatures that are needed: m, at least 1.
    pub threshold: u32,
    /// Keys: n, each once, at most 32. Their order means nothing.
    pub keys: Vec<Hotkey>,
}

impl Owner {
    /// # Errors
    /// [`Refusal::Field`]: no key, a key twice, a key that is none, or a threshold outside 1 to n.
    pub fn check(&self) -> Result<(), Refusal> {
        let refuse = |field: &str, why: String| Err(Refusal::Field { field: field.into(), why });
        if self.keys.is_empty() || self.keys.len() > MOST_KEYS {
            return refuse("owner.keys", format!("{} keys: use 1 to {MOST_KEYS}", self.keys.len()));
        }
        let once: BTreeSet<&Hotkey> = self.keys.iter().collect();
        if once.len() != self.keys.len() {
            return refuse(
                "owner.keys",
                "a key is named twice: it would look like two and sign as one".into(),
            );
        }
        if self.keys.iter().any(|k| k.as_bytes() == &[0; 32]) {
            return refuse("owner.keys", "the zero key is nobody's: everybody can sign for it".into());
        }
        if self.threshold == 0 || self.threshold as usize > self.keys.len() {
            return refuse(
                "owner.threshold",
                format!("{} of {} keys cannot be: use 1 to {0}", self.threshold, self.keys.len()),
            );
        }
        Ok(())
    }

    /// Whether the two say the same.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        let sorted = |o: &Self| o.keys.iter().copied().collect::<BTreeSet<_>>();
        self.threshold == other.threshold && sorted(self) == sorted(other)
    }
}

/// How long before its moment the *next* set has to be published. A promise to miners and validators.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Notice {
    /// For sets that take effect by the clock: seconds.
    pub seconds: u64,
    /// For sets that take effect by block: blocks.
    pub blocks: u64,
}

impl Notice {
    /// What is asked of a set that takes effect at a moment of this kind.
    #[must_use]
    pub const fn for_kind(self, kind: Moment) -> u64 {
        match kind {
            Moment::UnixS(_) => self.seconds,
            Moment::Block(_) => self.blocks,
        }
    }
}

/// A task of the set, by the digests of its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name, which its manifest repeats.
    pub name: TaskName,
    /// Share of the subnet's reward, in [0, 1].
    pub weight: f64,
    /// SHA-256 of the component's file.
    pub component: Digest,
    /// SHA-256 of `task.toml`.
    pub manifest: Digest,
    /// SHA-256 of `calibration.json`; absent where the task has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Digest>,
}

/// `taskset.toml` in its signed form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// 1: this form.
    pub format: u32,
    /// The subnet's name; a set of another name never follows.
    pub name: String,
    /// Grows with every set.
    pub version: semver::Version,
    /// Grows with every set, by one where nothing was thrown away.
    pub sequence: u64,
    /// When it was published: of the same kind as `effective`.
    pub published: Moment,
    /// From when on it counts.
    pub effective: Moment,
    /// Second of the Unix epoch from which on nobody takes it up any more. What runs by then runs on.
    pub expires_unix_s: u64,
    /// Digest of the policy's numbers, so that a host whose policy of that name has others refuses it.
    pub policy_digest: Digest,
    /// Multiplies the share of capacity that the policy tests; above 0; absent is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_multiplier: Option<f64>,
    /// The policy: the name of one that ships, or one written out.
    pub policy: PolicyChoice,
    /// What the next set has to give.
    #[serde(default)]
    pub notice: Notice,
    /// Who may sign the next set.
    pub owner: Owner,
    /// The tasks; weights sum to 1 within 1e-9.
    #[serde(rename = "task")]
    pub tasks: Vec<Entry>,
}

impl Set {
    /// Reads a set and holds it against its own rules.
    ///
    /// # Errors
    /// [`Refusal`]: what is wrong with it, whoever proposed it.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Peek {
            format: Option<u32>,
        }
        let text = text_of(bytes, MOST_SET_BYTES)?;
        // The form first: of a newer one we would only say that a key is unknown.
        match from_toml::<Peek>(text)?.format {
            None => return Err(Refusal::Local),
            Some(FORMAT) => {}
            Some(other) => return Err(Refusal::Format { given: other, known: FORMAT }),
        }
        let set: Self = from_toml(text)?;
        set.check()?;
        Ok(set)
    }

    /// Holds a set against its own rules.
    ///
    /// # Errors
    /// As [`Set::read`].
    pub fn check(&self) -> Result<(), Refusal> {
        let field = |field: &str, why: String| Err(Refusal::Field { field: field.into(), why });
        if self.format != FORMAT {
            return Err(Refusal::Format { given: self.format, known: FORMAT });
        }
        TaskName::new(self.name.clone()).map_err(|_| Refusal::Field {
            field: "name".into(),
            why: "use 1 to 64 of a-z, 0-9, '-' and '.'".into(),
        })?;
        self.check_tasks()?;
        self.owner.check()?;
        if self.share_multiplier.is_some_and(|m| !(m.is_finite() && m > 0.0)) {
            return field("share_multiplier", "use a number above 0".into());
        }
        let policy = self.policy()?;
        let ours = policy_digest(&policy)?;
        if ours != self.policy_digest {
            let name = self.policy.name().to_owned();
            return Err(Refusal::OtherPolicy { name, signed: self.policy_digest, ours });
        }
        if self.effective.after(self.published).is_none() {
            return field(
                "published",
                "it is of another kind than 'effective': use block, or unix_s, for both".into(),
            );
        }
        if self.published.after(self.effective).is_some_and(|late| late > 0) {
            return field("effective", format!("{} is before it was published", self.effective));
        }
        let starts = [self.published, self.effective].into_iter();
        if starts.filter_map(unix_s).any(|s| s >= self.expires_unix_s) {
            return field("expires_unix_s", "it expires before it takes effect".into());
        }
        if self.notice.seconds > MOST_NOTICE_S || self.notice.blocks > MOST_NOTICE_BLOCKS {
            return field(
                "notice",
                format!("at most {MOST_NOTICE_S} seconds and {MOST_NOTICE_BLOCKS} blocks"),
            );
        }
        canonical::bytes(self).map(drop)
    }

    fn check_tasks(&self) -> Result<(), Refusal> {
        if self.tasks.is_empty() {
            return Err(Refusal::NoTasks);
        }
        let field = |why: String| Err(Refusal::Field { field: "task".into(), why });
        if self.tasks.len() > MOST_TASKS {
            return field(format!("{} tasks: use at most {MOST_TASKS}", self.tasks.len()));
        }
        let mut seen = BTreeSet::new();
        for t in &self.tasks {
            if !seen.insert(&t.name) {
                return field(format!("'{}' is in the set twice", t.name));
            }
            if !(0.0..=1.0).contains(&t.weight) {
                return field(format!("'{}': weight {} is outside 0 to 1", t.name, t.weight));
            }
        }
        let sum: f64 = self.tasks.iter().map(|t| t.weight).sum();
        if (sum - 1.0).abs() > 1e-9 { Err(Refusal::Weights { sum }) } else { Ok(()) }
    }

    /// The policy's numbers, as this host has them.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`].
    pub fn policy(&self) -> Result<Policy, Refusal> {
        self.policy.policy().ok_or_else(|| Refusal::UnknownPolicy { name: self.policy.name().to_owned() })
    }

    /// What identifies its meaning: the digest of its canonical bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        // A set that was read or checked has canonical bytes; any other has the digest of nothing, which
        // nobody signs.
        canonical::bytes(self).map_or_else(|_| Digest::from_bytes([0; 32]), |b| Digest::of(&b))
    }

    /// The task of this name.
    #[must_use]
    pub fn task(&self, name: &TaskName) -> Option<&Entry> {
        self.tasks.iter().find(|t| t.name == *name)
    }
}

/// Digest of a policy's numbers.
///
/// # Errors
/// [`Refusal::Field`]: one of them is not a number.
pub(crate) fn policy_digest(policy: &Policy) -> Result<Digest, Refusal> {
    canonical::of("nineteen-policy-v1", policy).map(|b| Digest::of(&b))
}

const fn unix_s(moment: Moment) -> Option<u64> {
    match moment {
        Moment::UnixS(s) => Some(s),
        Moment::Block(_) => None,
    }
}

/// Text of at most so many bytes.
pub(crate) fn text_of(bytes: &[u8], most: usize) -> Result<&str, Refusal> {
    if bytes.len() > most {
        return Err(Refusal::TooLong { bytes: bytes.len(), most });
    }
    std::str::from_utf8(bytes).map_err(|_| Refusal::Toml { line: 1, why: "it is not UTF-8".into() })
}

/// TOML with the line in the refusal.
pub(crate) fn from_toml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Refusal> {
    toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |s| text.get(..s.start).map_or(1, |t| t.matches('\n').count() + 1));
        // An author's text may be anything, and a refusal is one line.
        let why: String =
            e.message().split_whitespace().collect::<Vec<_>>().join(" ").chars().take(240).collect();
        Refusal::Toml { line, why }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_read_as_dates() {
        for (s, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_442_652, "2026-11-23 14:04:12 UTC"),
            (253_402_300_799, "9999-12-31 23:59:59 UTC"),
            (u64::MAX, "second 18446744073709551615"),
        ] {
            assert_eq!(utc(s), text);
        }
    }
}
