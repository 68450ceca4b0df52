//! `nineteen tasks | scores | explain | weights`: ask the running validator, or read the store at rest.

use nineteen_domain::ledger::{OursFault, ProbeClass};
use nineteen_gateway::{OperatorClient, OperatorError};
use nineteen_store::{Store, StoreError};
use nineteen_validator::registry;
use nineteen_validator::report::{Explanation, ReportError, Reports, Scores, Weights};
use serde::de::DeserializeOwned;

use crate::commands::validator::store_options;
use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// Options of a plain report.
#[derive(Debug, clap::Args)]
pub(crate) struct JsonArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// Uid or hotkey.
    #[arg(long)]
    miner: String,
    /// Task.
    #[arg(long)]
    task: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// From the validator that runs, else from its store.
async fn fetch<T, F>(config: &Config, path: &str, at_rest: F) -> Result<T, Failure>
where
    T: DeserializeOwned,
    F: FnOnce(&Reports) -> Result<T, ReportError>,
{
    match Store::open_existing(&config.paths.data, store_options(config)) {
        Ok(store) => {
            let (_, declared) = registry::read_set(&config.paths.taskset).map_err(Failure::input)?;
            let report = at_rest(&Reports::at_rest(store.clone(), &declared)).map_err(Failure::input);
            store.close().map_err(Failure::running)?;
            report
        }
        Err(StoreError::Locked { .. }) => {
            match OperatorClient::new(config.validator.listen).get(path).await {
                Ok(report) => Ok(report),
                Err(e @ OperatorError::Unreachable { .. }) => Err(Failure::input(format!(
                    "{e}; a validator holds {} but does not answer at validator.listen: is this its configuration?",
                    config.paths.data.display()
                ))),
                Err(e @ OperatorError::Refused(_)) => Err(Failure::input(e)),
            }
        }
        Err(e) => Err(Failure::input(e)),
    }
}

pub(crate) async fn scores(args: JsonArgs, config: Config) -> Result<(), Failure> {
    let scores: Scores = fetch(&config, "/v1/scores", Reports::scores).await?;
    if args.json {
        return print::json(&scores);
    }
    let mut table = print::table(&[
        "hotkey", "uid", "task", "capacity", "L", "P", "Q", "speed", "f", "E", "share", "weight", "u16",
    ]);
    for m in &scores.miners {
        for (task, t) in &m.tasks {
            table.add_row(vec![
                m.hotkey.to_string(),
                m.uid.to_string(),
                task.to_string(),
                t.capacity.to_string(),
                print::number(t.credit),
                print::number(t.reliability),
                print::number(t.quality),
                print::maybe(t.speed),
                print::number(t.speed_factor),
                print::number(t.effective_volume),
                print::number(t.share),
                print::number(m.weight),
                m.weight_u16.to_string(),
            ]);
        }
    }
    print::out(&format!("period {}, policy {}\n{table}", scores.period, scores.policy))
}

pub(crate) async fn weights(args: JsonArgs, config: Config) -> Result<(), Failure> {
    let weights: Weights = fetch(&config, "/v1/weights", Reports::weights).await?;
    if args.json {
        return print::json(&weights);
    }
    let mut table = print::table(&["uid", "weight (u16)"]);
    for (uid, weight) in &weights.weights {
        table.add_row(vec![uid.to_string(), weight.to_string()]);
    }
    let fate =
        weights.refused.map_or_else(|| "taken by the chain".to_owned(), |why| format!("not taken: {why}"));
    print::out(&format!("{table}\n{fate}"))
}

pub(crate) async fn explain(args: ExplainArgs, config: Config) -> Result<(), Failure> {
    let path =
        format!("/v1/explain?miner={}&task={}", plain(&args.miner, "--miner")?, plain(&args.task, "--task")?);
    let story: Explanation = fetch(&config, &path, |r| r.explain(&args.miner, &args.task)).await?;
    if args.json {
        return print::json(&story);
    }
    print::out(&format!(
        "uid {} ({}), task {}, period {}",
        story.uid, story.miner, story.task, story.period
    ))?;
    print::out(&story.words.join("\n"))?;
    let mut ends = print::table(&["probe", "class", "units", "expected", "ms"]);
    for e in &story.ends {
        ends.add_row(vec![
            format!("{}/{}", story.period, e.slot),
            class(e.class),
            e.units.0.to_string(),
            e.units.1.to_string(),
            e.took_ms.to_string(),
        ]);
    }
    print::out(&format!("\nprobes of period {}:\n{ends}", story.period))?;
    let mut table = print::table(&["probe", "quality", "units", "ms", "judged"]);
    for p in &story.probes {
        let judged = match &p.judgement {
            nineteen_domain::ledger::Judgement::Scored => p
                .reasons
                .iter()
                .take(3)
                .map(|(code, value)| format!("{code} {}", print::number(*value)))
                .collect::<Vec<_>>()
                .join(", "),
            nineteen_domain::ledger::Judgement::Violation(why) => format!("violation: {why}"),
            nineteen_domain::ledger::Judgement::Inconclusive(why) => format!("ours: {why}"),
        };
        table.add_row(vec![
            format!("{}/{}", p.probe.period, p.probe.slot),
            print::number(p.quality),
            p.units.to_string(),
            (p.response_us / 1_000).to_string(),
            judged,
        ]);
    }
    print::out(&format!("\nworst judged probes:\n{table}"))
}

fn class(class: ProbeClass) -> String {
    match class {
        ProbeClass::Answered => "answered".into(),
        ProbeClass::RateLimited => "rate-limited".into(),
        ProbeClass::Failed(why) => format!("failed: {}", why.as_str()),
        ProbeClass::Ours(OursFault::HeldBack) => "held back: too many under way to it".into(),
        ProbeClass::Ours(_) => "ours".into(),
    }
}

/// Goes into a URL as it is.
fn plain<'a>(text: &'a str, option: &str) -> Result<&'a str, Failure> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)) {
        Ok(text)
    } else {
        Err(Failure::input(format!("{option}: '{text}' is neither a uid, a hotkey nor a task's name")))
    }
}
