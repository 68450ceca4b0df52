//! Which tasks there are, what each weighs, and which of them rest: a generation's contents, and how a change makes the next.
//!
//! Pure: nothing here reads a file or loads a component. The one idea is the rule for weights: **the weights of all tasks sum
//! to one, and what rests or leaves gives its weight to the others in proportion to theirs**. A task that comes in takes its
//! weight from all others in proportion.

use nineteen_domain::{PeriodId, TaskName};
use serde::{Deserialize, Serialize};

/// Weights of the entries are held to a sum of one within this.
const SLACK: f64 = 1e-9;
/// Fewer than 1024 tasks in a set of this name are a mistake of nobody.
const MOST_TASKS: usize = 1_024;

/// Why a task is in the listing and not asked of anybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum Off {
    /// Somebody switched it off; it stays off.
    Operator,
    /// Its plugin failed by itself; it is tried again.
    Host {
        /// In the host's words.
        why: String,
        /// The first period for which it is tried again.
        until: PeriodId,
        /// How often in a row: the next rest is twice as long.
        times: u32,
    },
}

/// A task of a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: TaskName,
    /// Its own version.
    pub version: semver::Version,
    /// Folder of this version on the shelf, by name.
    pub folder: String,
    /// In [0, 1]; all entries sum to one, resting ones among them.
    pub weight: f64,
    /// Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<Off>,
}

/// Why there is no such change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// The name is taken.
    #[error("task '{0}' is there already: upgrade it, or remove it first")]
    There(TaskName),
    /// The name is not known.
    #[error("task '{name}' is not there; there are {known}")]
    Unknown {
        /// As asked for.
        name: TaskName,
        /// Those that are.
        known: String,
    },
    /// Outside its range.
    #[error("weight: {0} is not above 0 and below 1: say which part of the reward the task takes")]
    Weight(String),
    /// It is what is there.
    #[error("task '{name}' {already}: nothing to do")]
    Already {
        /// Which.
        name: TaskName,
        /// What it is already.
        already: &'static str,
    },
    /// An upgrade goes forward.
    #[error(
        "task '{name}' is at {runs}, and {offered} is not later with other content: raise `version` in its task.toml"
    )]
    Version {
        /// Which.
        name: TaskName,
        /// What runs.
        runs: semver::Version,
        /// What was offered.
        offered: semver::Version,
    },
    /// Somebody has to be paid for something.
    #[error("task '{0}' is the only one that runs: a validator needs one")]
    Last(TaskName),
    /// Too many.
    #[error("{MOST_TASKS} tasks are the most")]
    Full,
}

/// The tasks of a generation, by name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Listing {
    entries: Vec<Entry>,
}

impl Listing {
    /// Of these tasks, whose weights are scaled to sum to one.
    #[must_use]
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut this = Self { entries };
        this.normalise();
        this
    }

    /// All of them, by name.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &TaskName) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == *name)
    }

    /// Those that run, with the weights that they run with: they sum to one.
    #[must_use]
    pub fn running(&self) -> Vec<(&Entry, f64)> {
        let on = || self.entries.iter().filter(|e| e.off.is_none());
        let sum: f64 = on().map(|e| e.weight).sum();
        on().map(|e| (e, if sum > 0.0 { e.weight / sum } else { 0.0 })).collect()
    }

    /// With one more, which takes `entry.weight` of the whole.
    ///
    /// # Errors
    /// [`ListingError::There`], [`ListingError::Weight`], [`ListingError::Full`].
    pub fn add(&self, entry: Entry) -> Result<Self, ListingError> {
        if self.get(&entry.name).is_some() {
            return Err(ListingError::There(entry.name));
        }
        if !(entry.weight > 0.0 && entry.weight < 1.0) {
            return Err(ListingError::Weight(entry.weight.to_string()));
        }
        if self.entries.len() >= MOST_TASKS {
            return Err(ListingError::Full);
        }
        let rest = 1.0 - entry.weight;
        let scaled = self.entries.iter().map(|e| Entry { weight: e.weight * rest, ..e.clone() });
        Ok(Self::new(scaled.chain([entry]).collect()))
    }

    /// With another version of a task; its weight stays, and if it rested it runs.
    ///
    /// # Errors
    /// [`ListingError::Unknown`]; [`ListingError::Already`]; [`ListingError::Version`] for one that is not later.
    pub fn upgrade(
        &self,
        name: &TaskName,
        version: semver::Version,
        folder: String,
    ) -> Result<Self, ListingError> {
        let runs = self.known(name)?;
        if runs.folder == folder && runs.off.is_none() {
            return Err(ListingError::Already { name: name.clone(), already: "runs exactly this" });
        }
        if runs.folder != folder && version <= runs.version {
            let (runs, name) = (runs.version.clone(), name.clone());
            return Err(ListingError::Version { name, runs, offered: version });
        }
        self.with(name, |e| Entry { version, folder, off: None, ..e })
    }

    /// With a task as it was in another generation, whatever its version; its weight stays.
    ///
    /// # Errors
    /// [`ListingError::Unknown`]; [`ListingError::Already`].
    pub fn put_back(&self, was: &Entry) -> Result<Self, ListingError> {
        let runs = self.known(&was.name)?;
        if runs.folder == was.folder && runs.off.is_none() {
            let already = "runs what it ran before";
            return Err(ListingError::Already { name: was.name.clone(), already });
        }
        self.with(&was.name, |e| Entry {
            version: was.version.clone(),
            folder: was.folder.clone(),
            off: None,
            ..e
        })
    }

    /// With a task that rests.
    ///
    /// # Errors
    /// [`ListingError::Unknown`]; [`ListingError::Already`]; [`ListingError::Last`].
    pub fn off(&self, name: &TaskName, off: Off) -> Result<Self, ListingError> {
        if self.known(name)?.off.as_ref() == Some(&off) {
            return Err(ListingError::Already { name: name.clone(), already: "is off" });
        }
        if self.running().iter().all(|(e, _)| e.name == *name) {
            return Err(ListingError::Last(name.clone()));
        }
        self.with(name, |e| Entry { off: Some(off), ..e })
    }

    /// With a task that runs again.
    ///
    /// # Errors
    /// [`ListingError::Unknown`]; [`ListingError::Already`].
    pub fn on(&self, name: &TaskName) -> Result<Self, ListingError> {
        if self.known(name)?.off.is_none() {
            return Err(ListingError::Already { name: name.clone(), already: "runs" });
        }
        self.with(name, |e| Entry { off: None, ..e })
    }

    /// Without a task.
    ///
    /// # Errors
    /// [`ListingError::Unknown`]; [`ListingError::Last`].
    pub fn remove(&self, name: &TaskName) -> Result<Self, ListingError> {
        self.known(name)?;
        if self.running().iter().all(|(e, _)| e.name == *name) {
            return Err(ListingError::Last(name.clone()));
        }
        Ok(Self::new(self.entries.iter().filter(|e| e.name != *name).cloned().collect()))
    }

    fn known(&self, name: &TaskName) -> Result<&Entry, ListingError> {
        self.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.entries.iter().map(|e| e.name.as_str()).collect();
            ListingError::Unknown { name: name.clone(), known: known.join(", ") }
        })
    }

    fn with(&self, name: &TaskName, change: impl FnOnce(Entry) -> Entry) -> Result<Self, ListingError> {
        let changed = change(self.known(name)?.clone());
        let others = self.entries.iter().filter(|e| e.name != *name).cloned();
        Ok(Self::new(others.chain([changed]).collect()))
    }

    fn normalise(&mut self) {
        let sum: f64 = self.entries.iter().map(|e| e.weight).sum();
        if sum > 0.0 && (sum - 1.0).abs() > SLACK {
            self.entries.iter_mut().for_each(|e| e.weight /= sum);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails is meant to panic")]
mod tests {
    use super::*;

    fn name(n: &str) -> TaskName {
        TaskName::new(n).unwrap()
    }

    fn entry(n: &str, version: &str, weight: f64) -> Entry {
        let folder = format!("{n}-{version}");
        Entry { name: name(n), version: version.parse().unwrap(), folder, weight, off: None }
    }

    fn three() -> Listing {
        Listing::new(vec![entry("a", "1.0.0", 0.5), entry("b", "1.0.0", 0.3), entry("c", "1.0.0", 0.2)])
    }

    fn weights(of: &Listing) -> Vec<(String, f64)> {
        of.running().iter().map(|(e, w)| (e.name.to_string(), (w * 1e6).round() / 1e6)).collect()
    }

    #[test]
    fn what_leaves_or_rests_gives_its_weight_to_the_others_in_proportion() {
        let rest = vec![("b".to_owned(), 0.6), ("c".to_owned(), 0.4)];
        assert_eq!(weights(&three().remove(&name("a")).unwrap()), rest);
        let off = three().off(&name("a"), Off::Operator).unwrap();
        assert_eq!(weights(&off), rest);
        // It comes back with what it had.
        assert_eq!(weights(&off.on(&name("a")).unwrap()), weights(&three()));
    }

    #[test]
    fn what_comes_in_takes_its_weight_from_all_in_proportion() {
        let four = three().add(entry("d", "0.1.0", 0.2)).unwrap();
        let said = [("a", 0.4), ("b", 0.24), ("c", 0.16), ("d", 0.2)];
        assert_eq!(weights(&four), said.map(|(n, w)| (n.to_owned(), w)));
        for weight in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(three().add(entry("d", "0.1.0", weight)), Err(ListingError::Weight(_))));
        }
        assert!(matches!(three().add(entry("a", "2.0.0", 0.1)), Err(ListingError::There(_))));
    }

    #[test]
    fn an_upgrade_goes_forward_and_a_rollback_back() {
        let newer = three().upgrade(&name("a"), "1.1.0".parse().unwrap(), "a-1.1.0".into()).unwrap();
        assert_eq!(newer.get(&name("a")).unwrap().folder, "a-1.1.0");
        assert_eq!(weights(&newer), weights(&three()));
        for version in ["1.1.0", "1.0.9"] {
            let other = newer.upgrade(&name("a"), version.parse().unwrap(), "a-other".into());
            assert!(matches!(other, Err(ListingError::Version { .. })));
        }
        let back = newer.put_back(three().get(&name("a")).unwrap()).unwrap();
        assert_eq!(back, three());
        assert!(matches!(back.put_back(three().get(&name("a")).unwrap()), Err(ListingError::Already { .. })));
    }

    #[test]
    fn the_last_task_that_runs_stays() {
        let one = three().off(&name("b"), Off::Operator).unwrap().off(&name("c"), Off::Operator).unwrap();
        assert!(matches!(one.off(&name("a"), Off::Operator), Err(ListingError::Last(_))));
        assert!(matches!(one.remove(&name("a")), Err(ListingError::Last(_))));
        assert!(matches!(one.remove(&name("x")), Err(ListingError::Unknown { .. })));
        assert_eq!(one.remove(&name("b")).unwrap().entries().len(), 2);
    }
}
