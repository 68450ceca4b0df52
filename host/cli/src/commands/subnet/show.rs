//! Differences, events and a follower's status in words.

use std::fmt::Write as _;

use nineteen_domain::{Digest, TaskName};
use nineteen_taskset::{Change, Diff, Event, FieldChange, Moment, Objection, Pins, SetLine, Stamped, Status};
use serde_json::Value;

fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(19).collect()
}

fn percent(weight: f64) -> String {
    format!("{:.2} %", weight * 100.0)
}

/// What a set would change.
pub(super) fn difference(d: &Diff, objections: &[Objection], missing: &[TaskName]) -> String {
    let mut text = match &d.from {
        Some((version, digest)) => format!("from  {version}  {digest}\n"),
        None => "from  nothing\n".to_owned(),
    };
    let (version, digest) = &d.to;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "to    {version}  {digest}");
    let _ = writeln!(text, "takes effect at {}, expires at {}", d.effective, Moment::UnixS(d.expires_unix_s));
    for change in &d.plan.changes {
        let _ = writeln!(text, "{}", one(change));
    }
    if d.from.is_some() {
        let _ = writeln!(text, "moves {} of the reward", percent(d.weight_moved));
    }
    for c in d.policy.iter().map(|c| ("policy", c)).chain(d.terms.iter().map(|c| ("terms", c))) {
        let _ = writeln!(text, "{} {}", c.0, field(c.1));
    }
    for key in &d.keys_added {
        let _ = writeln!(text, "key   + {key}");
    }
    for key in &d.keys_removed {
        let _ = writeln!(text, "key   − {key}");
    }
    if d.from.is_some() && d.plan.is_empty() && d.policy.is_empty() && d.terms.is_empty() {
        let _ = writeln!(text, "tasks, weights, policy and terms stay");
    }
    for o in objections {
        let _ = writeln!(text, "this validator would hold it: {o}");
    }
    for task in missing {
        let _ =
            writeln!(text, "task '{task}': its manifest is not at hand, so its grants were not looked at");
    }
    text.trim_end().to_owned()
}

fn one(change: &Change) -> String {
    match change {
        Change::Add { task, files, weight } => {
            format!("task  + {task}: {}, component {}", percent(*weight), short(&files.component))
        }
        Change::Remove { task, old_weight } => format!("task  − {task}: leaves {}", percent(*old_weight)),
        Change::Reweigh { task, old_weight, weight } => {
            format!("task  = {task}: {} → {}", percent(*old_weight), percent(*weight))
        }
        Change::Upgrade { task, from, to, old_weight, weight } => {
            format!("task  ↑ {task}: {}; {} → {}", files(from, to), percent(*old_weight), percent(*weight))
        }
    }
}

fn files(from: &Pins, to: &Pins) -> String {
    let maybe = |d: Option<Digest>| d.map_or_else(|| "none".to_owned(), |d| short(&d));
    [
        ("component", Some(from.component), Some(to.component)),
        ("manifest", Some(from.manifest), Some(to.manifest)),
        ("calibration", from.calibration, to.calibration),
    ]
    .into_iter()
    .filter(|(_, from, to)| from != to)
    .map(|(what, from, to)| format!("{what} {} → {}", maybe(from), maybe(to)))
    .collect::<Vec<_>>()
    .join(", ")
}

fn field(c: &FieldChange) -> String {
    let value = |v: &Option<Value>| v.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
    format!("{}: {} → {}", c.field, value(&c.from), value(&c.to))
}

/// One line, with its time.
pub(super) fn event(stamped: &Stamped) -> String {
    format!("{}  {}", Moment::UnixS(stamped.at.unix_s), words(&stamped.event))
}

/// One line.
pub(super) fn words(event: &Event) -> String {
    match event {
        Event::SourceAway { why, .. } => format!("source away: {why}; what runs runs on"),
        Event::SourceBack { away_s } => format!("source back after {away_s} s"),
        Event::Refused { why, .. } => format!("refused: {why}"),
        Event::Held { set, version, objections } => {
            let why: Vec<String> = objections.iter().map(ToString::to_string).collect();
            format!("held: {version}: {}; to let it in: nineteen subnet release {set}", why.join("; "))
        }
        Event::Pending { version, effective, signers, .. } => {
            format!("accepted: {version}, signed by {}, takes effect at {effective}", signers.len())
        }
        Event::Waiting { set, why } => format!("due but held by the operator ({why}): {}", short(set)),
        Event::Lapsed { set } => format!("lapsed before it took effect: {}", short(set)),
        Event::InForce { set, version, plan, .. } => {
            format!("in force: {version} {}, {} changes", short(set), plan.changes.len())
        }
        Event::Rotated { keys, threshold } => {
            format!("keys rotated: {threshold} of {} sign from now on", keys.len())
        }
        Event::CaughtUp { sequence } => format!("caught up with rotated keys, up to sequence {sequence}"),
        Event::Retrusted { keys } => format!("the configuration trusts other keys now: {}", keys.len()),
        Event::Stale { set, expired_unix_s } => format!(
            "the set in force expired at {} and nothing newer came; it runs on: {}",
            Moment::UnixS(*expired_unix_s),
            short(set)
        ),
    }
}

/// How a follower stands.
pub(super) fn status(s: &Status) -> String {
    let mut lines = Vec::new();
    let line = |what: &str, set: &SetLine| {
        let tasks: Vec<String> = set.tasks.iter().map(|(t, w)| format!("{t} {}", percent(*w))).collect();
        format!(
            "{what:<9} {} {} (sequence {}), {}, signed by {}\n          {}\n          {}",
            set.name,
            set.version,
            set.sequence,
            set.effective,
            set.signers.len(),
            set.digest,
            tasks.join(", ")
        )
    };
    lines.push(s.running.as_ref().map_or_else(|| "in force  nothing".into(), |set| line("in force", set)));
    lines.extend(s.pending.as_ref().map(|set| line("pending", set)));
    if let Some(h) = &s.held {
        lines.push(format!("held      {} {}: {}", h.version, h.set, h.objections.join("; ")));
    }
    lines.extend(s.hold.as_ref().map(|why| format!("hold      nothing new comes into force: {why}")));
    lines.push(format!("owner     {} of {} keys sign the next set", s.owner.threshold, s.owner.keys.len()));
    if let Some((since, why)) = &s.away {
        lines.push(format!("source    away since {}: {why}", Moment::UnixS(since.unix_s)));
    }
    if let Some((_, _, why)) = &s.refused {
        lines.push(format!("refused   {why}"));
    }
    lines.extend(s.events.iter().map(event));
    lines.join("\n")
}
