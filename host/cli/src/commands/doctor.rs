//! `nineteen doctor`: a line for everything that the validator needs, and what to do where it is missing.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use nineteen_chain::LocalSubnet;
use nineteen_checking::answers_as_known;
use nineteen_domain::meet::{Chain, Checker};
use nineteen_domain::{MasterSeed, ModelName, TaskName};
use nineteen_store::{Store, StoreError};
use nineteen_validator::registry::{self, Tasks};
use nineteen_validator::{ControlScore, control_scores};
use serde::Serialize;

use crate::commands::validator::{
    executors, hold_calibrations, load_tasks, models_of, runtime, sandbox, store_options,
};
use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// Look whether everything the validator needs is here and works.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    part: String,
    ok: bool,
    says: String,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    lines: Vec<Line>,
}

impl Report {
    fn put(&mut self, part: &str, result: Result<String, Failure>) -> bool {
        let ok = result.is_ok();
        let says = result.unwrap_or_else(|e| e.to_string());
        self.lines.push(Line { part: part.to_owned(), ok, says });
        ok
    }
}

pub(crate) async fn run(args: Args, config: Config) -> Result<(), Failure> {
    let mut report = Report::default();
    examine(&config, &mut report).await;
    let broken = report.lines.iter().filter(|l| !l.ok).count();
    if args.json {
        print::json(&report)?;
    } else {
        for line in &report.lines {
            print::out(&format!(
                "{} {:<12} {}",
                if line.ok { "ok  " } else { "FAIL" },
                line.part,
                line.says
            ))?;
        }
    }
    if broken == 0 {
        Ok(())
    } else {
        Err(Failure::input(format!("{broken} of {} parts are not ready", report.lines.len())))
    }
}

async fn examine(config: &Config, report: &mut Report) {
    let key = nineteen_wire::keys::read_keyfile(&config.identity.hotkey_file);
    report.put("hotkey", key.map(|k| k.hotkey().to_string()).map_err(Failure::input));
    let subnet = match LocalSubnet::open(&config.subnet.folder) {
        Ok(subnet) => subnet.metagraph().await.map_err(Failure::input),
        Err(e) => Err(Failure::input(e)),
    };
    report.put(
        "subnet",
        subnet.map(|m| format!("netuid {}, {} neurons, block {}", m.netuid, m.neurons.len(), m.block)),
    );
    let store = match Store::open_existing(&config.paths.data, store_options(config)) {
        Ok(store) => store_line(&store, &config.paths.taskset),
        Err(e @ StoreError::Locked { .. }) => Ok(format!("in use: {e}")),
        Err(StoreError::Missing { dir }) => Ok(format!("{} is made at the first start", dir.display())),
        Err(e) => Err(Failure::input(e)),
    };
    report.put("store", store);
    let loaded = runtime(config);
    let words = loaded.as_ref().map(|r| {
        let providers: Vec<String> = r.providers().iter().map(ToString::to_string).collect();
        format!("{} ({}), providers {}", r.version(), r.library_path().display(), providers.join(", "))
    });
    let words = words.map_err(Failure::input);
    report.put("onnxruntime", words);
    let declared = registry::read_set(&config.paths.taskset);
    match &declared {
        Ok((set, tasks)) => {
            report.put(
                "task set",
                Ok(format!(
                    "{} {}, policy {}, {} tasks",
                    set.name,
                    set.version,
                    set.policy.name(),
                    tasks.len()
                )),
            );
        }
        Err(e) => {
            report.put("task set", Err(Failure::input(e)));
        }
    }
    let secret = MasterSeed::from_bytes([0; 32]);
    let mut live = None;
    match sandbox(config) {
        Err(e) => {
            report.put("sandbox", Err(e));
        }
        Ok(sandbox) => match load_tasks(config, &sandbox, &secret).await {
            Err(e) => {
                report.put("tasks", Err(e));
            }
            Ok(tasks) => {
                for (name, t) in &tasks.by_name {
                    let says = format!(
                        "{} {}, WIT {}, {}, about {} {} a probe",
                        t.manifest.component,
                        t.manifest.version,
                        t.plugin.wit_version(),
                        t.plugin.digest(),
                        t.expected_units,
                        t.manifest.unit
                    );
                    report.put(name.as_str(), Ok(says));
                }
                let held = hold_calibrations(config, &tasks);
                report.put("calibration", held.map(|()| calibrations(&tasks)));
                live = Some(tasks);
            }
        },
    }
    if let (Ok(runtime), Ok((_, tasks))) = (loaded, declared) {
        for model in models_of(&tasks) {
            let begun = Instant::now();
            let started = executors(config, std::sync::Arc::clone(&runtime), vec![model.clone()]).await;
            let says = match started {
                Ok(executors) => {
                    let words = model_words(&executors, &model);
                    let ready = begun.elapsed().as_secs_f64();
                    let known = golden_words(live.as_ref(), executors.checker().as_ref(), &model).await;
                    executors.stop().await;
                    known.map(|known| format!("{words}, ready in {ready:.1} s{known}"))
                }
                Err(e) => Err(e),
            };
            report.put(model.as_str(), says);
        }
    }
}

/// Whether the model answers as its calibration knows it to; nothing where no calibration says.
async fn golden_words(
    tasks: Option<&Tasks>,
    checker: &dyn Checker,
    model: &ModelName,
) -> Result<String, Failure> {
    let calibrations =
        tasks.into_iter().flat_map(|t| t.by_name.values()).filter_map(|t| t.calibration.as_ref());
    let golden = calibrations.filter(|c| c.model.name == *model).find_map(|c| c.golden.as_ref());
    match golden {
        None => Ok(String::new()),
        Some(golden) => match answers_as_known(checker, model, golden).await {
            Ok(()) => Ok(", golden numbers right".to_owned()),
            Err(why) => Err(Failure::input(format!(
                "{why}: it would be in quarantine; run `cargo xtask setup` again, or use another provider"
            ))),
        },
    }
}

/// Which tasks can accuse anybody.
fn calibrations(tasks: &Tasks) -> String {
    let (with, without): (Vec<_>, Vec<_>) = tasks.by_name.iter().partition(|(_, t)| t.calibration.is_some());
    let mut says: Vec<String> = with
        .iter()
        .filter_map(|(name, t)| t.calibration.as_ref().map(|c| (name, c)))
        .map(|(name, c)| {
            let suspects: BTreeSet<&String> = c.classes.values().flat_map(|c| c.suspects.keys()).collect();
            format!("{name}: {} suspects in {} classes", suspects.len(), c.classes.len())
        })
        .collect();
    says.extend(without.iter().map(|(name, _)| {
        format!("{name}: none, so quality is parametric and honesty 1 (nineteen task calibrate {name})")
    }));
    says.join("; ")
}

fn model_words(executors: &nineteen_checking::Executors, model: &ModelName) -> String {
    if let Some(text) = executors.text(model.as_str()) {
        return format!("text, {}, {}, context {}", text.precision(), text.provider(), text.context());
    }
    executors
        .embedding(model.as_str())
        .map_or_else(|| "served".to_owned(), |e| format!("embedding, {}, {}", e.precision(), e.provider()))
}

fn store_line(store: &Store, taskset: &Path) -> Result<String, Failure> {
    let verified = store.verify().map_err(Failure::input)?;
    let settled = store.latest_settlement().map_err(Failure::input)?;
    // A set that cannot be read has a line of its own.
    let tasks = registry::read_set(taskset).map(|(_, tasks)| tasks).unwrap_or_default();
    let control = control_scores(store, tasks.iter().map(|t| &t.manifest.name)).map_err(Failure::input)?;
    store.close().map_err(Failure::running)?;
    if !verified.is_sound() {
        return Err(Failure::input(format!("{}: damaged: {verified:?}", store.dir().display())));
    }
    let last = settled
        .map_or_else(|| "no period settled yet".to_owned(), |(p, _)| format!("last settled period {p}"));
    let control: String = control.iter().map(|(task, score)| control_words(task, score)).collect();
    Ok(format!("sound, {last}{control}"))
}

/// How often our own honest miner was blamed.
fn control_words(task: &TaskName, s: &ControlScore) -> String {
    let evidence = s.evidence.map_or(String::new(), |e| format!(", evidence e^{e:.1}"));
    format!(
        "; control miner in {task}: {} judged, {} violations, {} false accusations{evidence}",
        s.judged, s.violations, s.accused
    )
}
