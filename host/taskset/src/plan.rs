//! What a registry of live tasks has to do to get from one set to the next. Pure; the swap itself is the registry's.

use std::collections::BTreeSet;

use nineteen_domain::{Digest, TaskName};
use serde::{Deserialize, Serialize};

use crate::set::{Entry, Set};

/// The files of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// The component's.
    pub component: Digest,
    /// The manifest's.
    pub manifest: Digest,
    /// The calibration's, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Digest>,
}

impl From<&Entry> for Pins {
    fn from(e: &Entry) -> Self {
        Self { component: e.component, manifest: e.manifest, calibration: e.calibration }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Change {
    /// Load a task and give it weight.
    Add {
        /// Which.
        task: TaskName,
        /// Its files.
        files: Pins,
        /// Its weight.
        weight: f64,
    },
    /// Load another generation of a task in place of the one that runs.
    Upgrade {
        /// Which.
        task: TaskName,
        /// What runs.
        from: Pins,
        /// What comes.
        to: Pins,
        /// Weight before.
        old_weight: f64,
        /// Weight after.
        weight: f64,
    },
    /// Give a task another weight; its files stay.
    Reweigh {
        /// Which.
        task: TaskName,
        /// Before.
        old_weight: f64,
        /// After.
        weight: f64,
    },
    /// Let a task finish and take it out.
    Remove {
        /// Which.
        task: TaskName,
        /// The weight that it leaves to the others.
        old_weight: f64,
    },
}

/// Everything to do, to be applied as one swap: all of it loaded first, then one new snapshot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Additions, upgrades, weights, removals, each by name.
    pub changes: Vec<Change>,
    /// Whether the policy's numbers change.
    pub policy: bool,
    /// Whether the multiplier of the tested share changes.
    pub share_multiplier: bool,
}

impl Plan {
    /// Whether nothing is to be done.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.policy && !self.share_multiplier
    }
}

/// What takes a registry from `running` (nothing, at first) to `next`.
#[must_use]
pub fn plan(running: Option<&Set>, next: &Set) -> Plan {
    let (mut adds, mut upgrades, mut weights, mut removals) = (vec![], vec![], vec![], vec![]);
    for name in names(running, next) {
        let task = name.clone();
        match (running.and_then(|s| s.task(name)), next.task(name)) {
            (None, Some(n)) => adds.push(Change::Add { task, files: n.into(), weight: n.weight }),
            (Some(r), None) => removals.push(Change::Remove { task, old_weight: r.weight }),
            (Some(r), Some(n)) => {
                let (from, to, old_weight, weight) = (Pins::from(r), Pins::from(n), r.weight, n.weight);
                if from != to {
                    upgrades.push(Change::Upgrade { task, from, to, old_weight, weight });
                } else if old_weight.to_bits() != weight.to_bits() {
                    weights.push(Change::Reweigh { task, old_weight, weight });
                }
            }
            (None, None) => {}
        }
    }
    let changes = [adds, upgrades, weights, removals].concat();
    let multiplier = |s: &Set| s.share_multiplier.unwrap_or(1.0).to_bits();
    Plan {
        changes,
        policy: running.is_none_or(|r| r.policy_digest != next.policy_digest),
        share_multiplier: running.map_or(1.0_f64.to_bits(), multiplier) != multiplier(next),
    }
}

/// Part of the reward that goes to other tasks than before, in [0, 1].
#[must_use]
pub(crate) fn moved(running: &Set, next: &Set) -> f64 {
    let weight = |s: &Set, name: &TaskName| s.task(name).map_or(0.0, |t| t.weight);
    names(Some(running), next).into_iter().map(|n| (weight(running, n) - weight(next, n)).abs()).sum::<f64>()
        / 2.0
}

fn names<'a>(running: Option<&'a Set>, next: &'a Set) -> BTreeSet<&'a TaskName> {
    running.into_iter().chain([next]).flat_map(|s| &s.tasks).map(|t| &t.name).collect()
}
