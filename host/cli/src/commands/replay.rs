//! `nineteen replay`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nineteen_domain::policy::Policy;
use nineteen_domain::{PeriodId, TaskName};
use nineteen_store::{Store, StoreError};
use nineteen_validator::replay::{Question, Replay, replay};

use crate::commands::policy;
use crate::commands::validator::store_options;
use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// Settle recorded periods again under another policy or other weights of tasks; never writes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Policy that ships: `default` or `sn19-2025-01`. Absent: the recorded one.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Policy from a TOML file.
    #[arg(long, value_name = "FILE", conflicts_with = "policy")]
    policy_file: Option<PathBuf>,
    /// Weight of a task, as often as needed; others keep theirs.
    #[arg(long = "task-weight", value_name = "TASK=WEIGHT")]
    task_weights: Vec<String>,
    /// First period.
    #[arg(long)]
    from: Option<u64>,
    /// Last period.
    #[arg(long)]
    to: Option<u64>,
    /// Print JSON, period by period.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, config: Config) -> Result<(), Failure> {
    let question = Question {
        policy: chosen(&args)?,
        task_weights: args.task_weights.iter().map(|w| weight(w)).collect::<Result<BTreeMap<_, _>, _>>()?,
        from: args.from.map(PeriodId),
        to: args.to.map(PeriodId),
    };
    let store = Store::open_existing(&config.paths.data, store_options(&config)).map_err(|e| match e {
        StoreError::Locked { .. } => Failure::input(format!(
            "{e}; replay reads a store at rest: copy the folder, or stop the validator"
        )),
        e => Failure::input(e),
    })?;
    let (done, store) = tokio::task::spawn_blocking(move || (replay(&store, &question), store))
        .await
        .map_err(|e| Failure::running(format!("replay failed: {e}")))?;
    let result = done.map_err(Failure::input);
    store.close().map_err(Failure::running)?;
    show(&args, &result?)
}

fn chosen(args: &Args) -> Result<Option<Policy>, Failure> {
    match (&args.policy_file, &args.policy) {
        (Some(file), _) => policy::from_file(file).map(Some),
        (None, Some(name)) => policy::named(name).map(Some),
        (None, None) => Ok(None),
    }
}

fn weight(text: &str) -> Result<(TaskName, f64), Failure> {
    let refuse = || Failure::input(format!("--task-weight: '{text}' is not like chat-smollm2-135m=0.5"));
    let (task, weight) = text.split_once('=').ok_or_else(refuse)?;
    let task = TaskName::new(task).map_err(|_| refuse())?;
    let weight: f64 = weight.parse().map_err(|_| refuse())?;
    if weight.is_finite() && weight >= 0.0 { Ok((task, weight)) } else { Err(refuse()) }
}

fn show(args: &Args, replay: &Replay) -> Result<(), Failure> {
    if args.json {
        return print::json(replay);
    }
    let mut table = print::table(&["hotkey", "uid", "recorded", "replayed", "moves by"]);
    for m in &replay.miners {
        table.add_row(vec![
            m.hotkey.to_string(),
            m.uid.to_string(),
            print::number(m.recorded),
            print::number(m.replayed),
            format!("{:+.4}", m.by()),
        ]);
    }
    let mut cosines: Vec<f64> = replay.periods.iter().filter_map(|p| p.cosine).collect();
    cosines.sort_by(f64::total_cmp);
    let median = cosines.get(cosines.len() / 2).copied();
    print::out(&format!(
        "{} periods, replayed under {}; mean weights, median cosine {}\n{table}",
        replay.periods.len(),
        replay.policy,
        print::maybe(median)
    ))?;
    for note in replay.notes.iter().take(3) {
        print::out(note)?;
    }
    if replay.notes.len() > 3 {
        print::out(&format!("and {} notes more like these (--json has them all)", replay.notes.len() - 3))?;
    }
    Ok(())
}
