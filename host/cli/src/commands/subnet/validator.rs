//! The validator's side: what a set would change, what is in force, hold and release; and the part of `nineteen
//! validator` that follows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nineteen_domain::task::Manifest;
use nineteen_domain::{Digest, TaskName};
use nineteen_taskset::{
    Diff as Difference, Event, FolderSource, Follower, InForce, Operator, Set, Source, Stamped, Status,
};
use nineteen_validator::registrar::{Registrar, Shelf, identity};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{now, options, read_set, show, source};
use crate::commands::validator::Again;
use crate::config::Config;
use crate::error::Failure;
use crate::print;

const MOST_MANIFEST_BYTES: u64 = 256 << 10;

/// Options of a plain report.
#[derive(Debug, clap::Args)]
pub(crate) struct Json {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// The set; default: what the source offers now.
    set: Option<PathBuf>,
    /// The signed set to compare with; default: what is in force here.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn diff(args: &Diff, config: &Config) -> Result<(), Failure> {
    let (set, place): (Set, Arc<dyn Source>) = match &args.set {
        Some(file) => (read_set(file)?, Arc::new(FolderSource::new(file.parent().unwrap_or(Path::new("."))))),
        None => {
            let source = source(config)?;
            let fetched = source.fetch().await.map_err(Failure::input)?;
            let refuse = |e| Failure::input(format!("{}: {e}", source.place()));
            (Set::read(&fetched.set).map_err(refuse)?, source)
        }
    };
    let running = match &args.against {
        Some(file) => Some(read_set(file)?),
        None => Status::running_set(&config.subnet.followed).map_err(Failure::input)?,
    };
    let (manifests, missing) = manifests(&set, place.as_ref(), config).await;
    let difference = Difference::between(running.as_ref(), &set);
    // Whether it was there in time knows only who was looking.
    let followed = Status::read(&config.subnet.followed).map_err(Failure::input)?;
    let looked = followed.filter(|_| args.against.is_none()).and_then(|s| s.looked);
    let objections = config.subnet.limits.objections(running.as_ref(), &set, &manifests, looked);
    if args.json {
        return print::json(
            &json!({ "diff": difference, "objections": objections, "manifests_not_at_hand": missing }),
        );
    }
    print::out(&show::difference(&difference, &objections, &missing))
}

/// Manifests that are at hand: beside the set, or in the local task set.
async fn manifests(
    set: &Set,
    place: &dyn Source,
    config: &Config,
) -> (BTreeMap<TaskName, Manifest>, Vec<TaskName>) {
    let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
    let base = config.paths.taskset.parent().unwrap_or(Path::new("."));
    for t in &set.tasks {
        let published = place.blob(&t.manifest, MOST_MANIFEST_BYTES).await.ok();
        let local = || std::fs::read(base.join(t.name.as_str()).join("task.toml")).ok();
        let bytes = published.or_else(local).filter(|b| Digest::of(b) == t.manifest);
        let read = bytes.and_then(|b| toml::from_str(&String::from_utf8_lossy(&b)).ok());
        match read {
            Some(manifest) => drop(found.insert(t.name.clone(), manifest)),
            None => missing.push(t.name.clone()),
        }
    }
    (found, missing)
}

pub(crate) async fn look(args: &Json, config: &Config) -> Result<(), Failure> {
    let mut follower = Follower::open(options(config), source(config)?).map_err(Failure::input)?;
    let events = follower.look(now(config).await).await.map_err(Failure::running)?;
    if args.json {
        return print::json(&events);
    }
    if events.is_empty() {
        return print::out("nothing new");
    }
    print::out(&events.iter().map(show::event).collect::<Vec<_>>().join("\n"))
}

#[derive(Debug, clap::Args)]
pub(crate) struct Hold {
    /// Why: shown by `status` and in the events.
    #[arg(long, default_value = "the operator holds")]
    reason: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn hold(args: &Hold, config: &Config) -> Result<(), Failure> {
    let folder = &config.subnet.followed;
    let mut operator = Operator::read(folder).map_err(Failure::input)?;
    operator.hold = Some(args.reason.chars().filter(|c| !c.is_control()).take(200).collect());
    operator.write(folder).map_err(Failure::input)?;
    said(args.json, &operator, "held: what runs runs on until `nineteen subnet release`")
}

#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    /// A set that met a limit: let it in. Without it, the hold is lifted.
    set: Option<Digest>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn release(args: &Release, config: &Config) -> Result<(), Failure> {
    let folder = &config.subnet.followed;
    let mut operator = Operator::read(folder).map_err(Failure::input)?;
    let words = match args.set {
        Some(set) => {
            operator.approve(set);
            format!("{set} may come in at the next look")
        }
        None if operator.hold.take().is_some() => "released: what is due comes into force".into(),
        None => {
            return Err(Failure::input("nothing is held; to let a set in that met a limit, name its digest"));
        }
    };
    operator.write(folder).map_err(Failure::input)?;
    said(args.json, &operator, &words)
}

fn said(as_json: bool, operator: &Operator, words: &str) -> Result<(), Failure> {
    if as_json { print::json(operator) } else { print::out(words) }
}

pub(crate) fn status(args: &Json, config: &Config) -> Result<(), Failure> {
    let folder = &config.subnet.followed;
    let status = Status::read(folder).map_err(Failure::input)?;
    let none = || {
        Failure::input(format!("{}: nothing is followed here yet (`nineteen subnet look`)", folder.display()))
    };
    let status = status.ok_or_else(none)?;
    if args.json { print::json(&status) } else { print::out(&show::status(&status)) }
}

/// The configuration as the validator has it that runs, or ran last: for commands that read what it runs.
pub(crate) fn as_followed(mut config: Config) -> Result<Config, Failure> {
    if config.subnet.source.is_some()
        && let Some(taskset) = Status::running_file(&config.subnet.followed).map_err(Failure::input)?
    {
        config.paths.taskset = taskset;
    }
    let shelf = Shelf::new(config.paths.live());
    if let Some(current) = shelf.current().map_err(Failure::input)?
        && identity(&config.paths.taskset, &config.paths.components()).is_ok_and(|base| base == current.base)
    {
        config.paths.taskset = shelf.taskset(current.number);
    }
    Ok(config)
}

/// Looks once and gives what a validator has to run. Without a source, nothing.
pub(crate) async fn follow_at_start(config: &Config) -> Result<Option<(Follower, InForce)>, Failure> {
    if config.subnet.source.is_none() {
        return Ok(None);
    }
    let mut follower = Follower::open(options(config), source(config)?).map_err(Failure::input)?;
    let events = follower.look(now(config).await).await.map_err(Failure::input)?;
    events.iter().for_each(log);
    let Some(in_force) = follower.in_force() else {
        let last =
            events.last().map(show::event).unwrap_or_else(|| "`nineteen subnet status` says why".into());
        return Err(Failure::input(format!("subnet.source: no set is in force yet: {last}")));
    };
    Ok(Some((follower, in_force)))
}

/// The configuration with the task set in force in place of `paths.taskset`.
pub(crate) fn run_what_is_in_force(config: &mut Config, in_force: &InForce) {
    config.paths.taskset.clone_from(&in_force.taskset);
}

/// Looks every `subnet.poll_s`, and every few seconds whether something is due, until it is asked to stop.
pub(crate) async fn follow(
    mut follower: Follower,
    mut config: Config,
    registrar: Arc<Registrar>,
    again: Again,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let mut looks = tokio::time::interval(Duration::from_secs(config.subnet.poll_s));
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    for timer in [&mut looks, &mut ticks] {
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    looks.tick().await;
    // Dropped with this function: what compiles then ends by itself.
    let mut warming = tokio::task::JoinSet::new();
    let mut warmed = None;
    loop {
        if let Some(waits) = follower.pending_taskset().filter(|waits| warmed.as_ref() != Some(waits)) {
            let registrar = Arc::clone(&registrar);
            warmed = Some(waits.clone());
            warming.spawn(async move {
                if let Err(e) = registrar.warm(&waits).await {
                    tracing::warn!(error = %e, "the set that waits cannot be made ready");
                }
            });
        }
        let asks = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = warming.join_next() => continue,
            _ = looks.tick() => true,
            _ = ticks.tick() => false,
        };
        let now = now(&config).await;
        // Dropped in the middle, a look leaves nothing behind: what counts is written at its end.
        let done = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            done = async { if asks { follower.look(now).await } else { follower.tick(now) } } => done,
        };
        match done {
            Ok(events) => {
                events.iter().for_each(log);
                let due = events.iter().any(|e| matches!(e.event, Event::InForce { .. }));
                if let Some(in_force) = follower.in_force().filter(|_| due) {
                    run_what_is_in_force(&mut config, &in_force);
                    if again.asked_by(&config) {
                        tracing::info!(
                            "the set in force has another policy: starting again, to settle under it"
                        );
                        return Ok(());
                    }
                    // What it says, it says itself: in the log, and in `nineteen tasks events`.
                    if registrar.take_up(&config.paths.taskset, &config.paths.components()).await.is_ok() {
                        tracing::info!("the next period is planned with the tasks of the set in force");
                    }
                }
            }
            // A full disk stops no validator: the next look tries again.
            Err(e) => tracing::error!(%e, "following the subnet's task set failed; what runs runs on"),
        }
    }
}

fn log(stamped: &Stamped) {
    let words = show::words(&stamped.event);
    match &stamped.event {
        Event::SourceAway { .. } | Event::Refused { .. } | Event::Held { .. } | Event::Stale { .. } => {
            tracing::warn!("{words}");
        }
        _ => tracing::info!("{words}"),
    }
}
