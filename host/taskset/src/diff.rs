//! What a set would change, for people to read before they sign it or let it in.

use std::collections::BTreeMap;

use nineteen_domain::{Digest, Hotkey};
use serde::Serialize;
use serde_json::Value;

use crate::plan::{Plan, moved, plan};
use crate::set::{Moment, Set};

/// One field of the policy, or of the set's terms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Path with dots, e.g. `scoring.horizon`.
    pub field: String,
    /// Before; absent where it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// After; absent where it is not there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// Everything that differs between two sets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    /// Version and digest before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<(semver::Version, Digest)>,
    /// Version and digest after.
    pub to: (semver::Version, Digest),
    /// Tasks and weights.
    pub plan: Plan,
    /// Part of the reward that goes to other tasks, in [0, 1].
    pub weight_moved: f64,
    /// The policy, field by field.
    pub policy: Vec<FieldChange>,
    /// The multiplier, the notice, the threshold.
    pub terms: Vec<FieldChange>,
    /// Keys that may sign from then on.
    pub keys_added: Vec<Hotkey>,
    /// Keys that may not any more.
    pub keys_removed: Vec<Hotkey>,
    /// From when on.
    pub effective: Moment,
    /// Until when it is taken up, in seconds of the Unix epoch.
    pub expires_unix_s: u64,
}

impl Diff {
    /// Between what runs (nothing, at first) and what comes.
    #[must_use]
    pub fn between(running: Option<&Set>, next: &Set) -> Self {
        let keys = |s: Option<&Set>| s.map(|s| s.owner.keys.clone()).unwrap_or_default();
        let (before, after) = (keys(running), keys(Some(next)));
        let without = |a: &[Hotkey], b: &[Hotkey]| a.iter().filter(|k| !b.contains(k)).copied().collect();
        Self {
            from: running.map(|s| (s.version.clone(), s.digest())),
            to: (next.version.clone(), next.digest()),
            plan: plan(running, next),
            weight_moved: running.map_or(1.0, |r| moved(r, next)),
            policy: changes(running.map(policy), policy(next)),
            terms: changes(running.map(terms), terms(next)),
            keys_added: without(&after, &before),
            keys_removed: without(&before, &after),
            effective: next.effective,
            expires_unix_s: next.expires_unix_s,
        }
    }
}

fn policy(set: &Set) -> Value {
    // A set in hand was checked: its policy is known.
    set.policy().ok().and_then(|p| serde_json::to_value(p).ok()).unwrap_or_default()
}

fn terms(set: &Set) -> Value {
    serde_json::json!({
        "share_multiplier": set.share_multiplier.unwrap_or(1.0),
        "notice": set.notice,
        "owner": { "threshold": set.owner.threshold },
    })
}

/// Fields that differ, by path. Of nothing, nothing: a first set has no changes to show.
fn changes(from: Option<Value>, to: Value) -> Vec<FieldChange> {
    let Some(from) = from else { return Vec::new() };
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flatten("", from, &mut before);
    flatten("", to, &mut after);
    let fields: std::collections::BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let change = |field: String| {
        let (from, to) = (before.remove(&field), after.remove(&field));
        (from != to).then_some(FieldChange { field, from, to })
    };
    fields.into_iter().filter_map(change).collect()
}

fn flatten(path: &str, value: Value, out: &mut BTreeMap<String, Value>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.into_iter().for_each(|(k, v)| flatten(&join(&k), v, out)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.into_iter().enumerate().for_each(|(i, v)| flatten(&join(&i.to_string()), v, out));
        }
        leaf => drop(out.insert(path.to_owned(), leaf)),
    }
}
