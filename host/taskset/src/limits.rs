//! What a validator does not do for any owner, and what it says when a set asks for it.
//!
//! A set that meets a limit is *held*: it waits for the operator's word (`nineteen subnet release`), and what runs
//! runs on. An owner proposes; a validator is never remote-controlled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nineteen_domain::task::Manifest;
use nineteen_domain::{Digest, TaskName};
use serde::{Deserialize, Serialize};

use crate::plan::moved;
use crate::set::{Moment, Now, Set};

/// A set that is seen this long after it was published is still seen in time: pollings, caches, clocks.
const SLACK_S: u64 = 900;
const SLACK_BLOCKS: u64 = 75;

/// The validator's own limits. The default allows what a subnet does in peace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Grants that it does not give: a check kind (`tensors.run`), or one of one model (`text.replay:big-model`).
    pub refuse_grants: BTreeSet<String>,
    /// Components that it does not run.
    pub refuse_components: BTreeSet<Digest>,
    /// Tasks that it does not run.
    pub refuse_tasks: BTreeSet<TaskName>,
    /// The largest part of the reward that one set may move between tasks, in [0, 1].
    pub largest_weight_change: f64,
    /// Notice that it wants, in seconds, beside what the set that runs promised.
    pub least_notice_s: u64,
    /// The same for sets that take effect by block.
    pub least_notice_blocks: u64,
    /// Whether another policy waits for the operator's word.
    pub hold_policy_changes: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            refuse_grants: BTreeSet::new(),
            refuse_components: BTreeSet::new(),
            refuse_tasks: BTreeSet::new(),
            largest_weight_change: 0.5,
            least_notice_s: 0,
            least_notice_blocks: 0,
            hold_policy_changes: false,
        }
    }
}

/// Why a set waits for the operator's word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Objection {
    /// The task asks for a grant that is not given.
    Grant {
        /// Its name.
        task: TaskName,
        /// As the limit names it.
        grant: String,
    },
    /// The task runs a component that is refused.
    Component {
        /// Its name.
        task: TaskName,
        /// The component.
        component: Digest,
    },
    /// The task is refused by its name.
    Task {
        /// Its name.
        task: TaskName,
    },
    /// The set moves more of the reward than is allowed.
    Weights {
        /// Part that it moves, in [0, 1].
        moved: f64,
        /// The most.
        most: f64,
    },
    /// This validator looked, and the set was not there, less than the notice before it takes effect.
    Notice {
        /// From when it was not yet there to when it takes effect.
        given: u64,
        /// What is due.
        due: u64,
        /// `seconds` or `blocks`.
        unit: String,
    },
    /// The policy changes.
    Policy {
        /// Name of the new one.
        name: String,
    },
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant { task, grant } => {
                write!(f, "task '{task}' asks for '{grant}' (subnet.limits.refuse_grants)")
            }
            Self::Component { task, component } => {
                write!(f, "task '{task}' runs {component} (subnet.limits.refuse_components)")
            }
            Self::Task { task } => write!(f, "task '{task}' (subnet.limits.refuse_tasks)"),
            Self::Weights { moved, most } => write!(
                f,
                "it moves {:.1} % of the reward, more than {:.1} % (subnet.limits.largest_weight_change)",
                moved * 100.0,
                most * 100.0
            ),
            Self::Notice { given, due, unit } => {
                write!(f, "it takes effect {given} {unit} after it was not yet there; {due} are due")
            }
            Self::Policy { name } => {
                write!(f, "another policy, '{name}' (subnet.limits.hold_policy_changes)")
            }
        }
    }
}

impl Limits {
    /// # Errors
    /// Key and rule of the first value that cannot be meant.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(0.0..=1.0).contains(&self.largest_weight_change) {
            return Err(("largest_weight_change", "use 0 to 1".into()));
        }
        let named = |g: &&String| {
            let (kind, model) = g.split_once(':').unwrap_or((g.as_str(), "x"));
            kind.is_empty() || model.is_empty() || g.chars().any(char::is_whitespace)
        };
        match self.refuse_grants.iter().find(named) {
            Some(g) => Err(("refuse_grants", format!("'{g}': use a check kind, or kind:model"))),
            None => Ok(()),
        }
    }

    /// Everything in a set that waits for the operator's word. `looked` is when the source was last seen without it.
    #[must_use]
    pub fn objections(
        &self,
        running: Option<&Set>,
        proposed: &Set,
        manifests: &BTreeMap<TaskName, Manifest>,
        looked: Option<Now>,
    ) -> Vec<Objection> {
        let mut found = Vec::new();
        for t in &proposed.tasks {
            if self.refuse_tasks.contains(&t.name) {
                found.push(Objection::Task { task: t.name.clone() });
            }
            if self.refuse_components.contains(&t.component) {
                found.push(Objection::Component { task: t.name.clone(), component: t.component });
            }
            let grants = manifests.get(&t.name).map(|m| self.refused_grants(m)).unwrap_or_default();
            found.extend(grants.into_iter().map(|grant| Objection::Grant { task: t.name.clone(), grant }));
        }
        let Some(running) = running else { return found };
        let moved = moved(running, proposed);
        if moved > self.largest_weight_change + 1e-9 {
            found.push(Objection::Weights { moved, most: self.largest_weight_change });
        }
        if self.hold_policy_changes && running.policy_digest != proposed.policy_digest {
            found.push(Objection::Policy { name: proposed.policy.name().to_owned() });
        }
        found.extend(self.too_late(running, proposed, looked));
        found
    }

    fn refused_grants(&self, manifest: &Manifest) -> Vec<String> {
        let asked = |g: &&String| match g.split_once(':') {
            Some((kind, model)) => manifest.grants(kind, Some(model)),
            None => manifest.grants.contains_key(g.as_str()),
        };
        self.refuse_grants.iter().filter(asked).cloned().collect()
    }

    /// An owner can write any date of publishing; a validator that was looking knows better.
    fn too_late(&self, running: &Set, proposed: &Set, looked: Option<Now>) -> Option<Objection> {
        let (least, slack, unit) = match proposed.effective {
            Moment::UnixS(_) => (self.least_notice_s, SLACK_S, "seconds"),
            Moment::Block(_) => (self.least_notice_blocks, SLACK_BLOCKS, "blocks"),
        };
        let due = running.notice.for_kind(proposed.effective).max(least);
        let given = proposed.effective.after(looked?.of_kind(proposed.effective)?)?;
        (given.saturating_add(slack) < due).then(|| Objection::Notice { given, due, unit: unit.into() })
    }
}
