//! `nineteen doctor`: a line for everything that the validator needs, and what to do where it is missing.

use std::time::Instant;

use nineteen_chain::LocalSubnet;
use nineteen_domain::meet::Chain;
use nineteen_domain::{MasterSeed, ModelName};
use nineteen_store::{Store, StoreError};
use nineteen_validator::registry;
use serde::Serialize;

use crate::commands::validator::{executors, load_tasks, models_of, runtime, sandbox, store_options};
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
        Ok(store) => store_line(&store),
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
            report.put("calibration", Ok("none of the tasks has one: quality is parametric".to_owned()));
        }
        Err(e) => {
            report.put("task set", Err(Failure::input(e)));
        }
    }
    let secret = MasterSeed::from_bytes([0; 32]);
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
                    executors.stop().await;
                    Ok(format!("{words}, ready in {:.1} s", begun.elapsed().as_secs_f64()))
                }
                Err(e) => Err(e),
            };
            report.put(model.as_str(), says);
        }
    }
}

fn model_words(executors: &nineteen_checking::Executors, model: &ModelName) -> String {
    if let Some(text) = executors.text(model.as_str()) {
        return format!("text, {}, {}, context {}", text.precision(), text.provider(), text.context());
    }
    executors
        .embedding(model.as_str())
        .map_or_else(|| "served".to_owned(), |e| format!("embedding, {}, {}", e.precision(), e.provider()))
}

fn store_line(store: &Store) -> Result<String, Failure> {
    let verified = store.verify().map_err(Failure::input)?;
    let settled = store.latest_settlement().map_err(Failure::input)?;
    store.close().map_err(Failure::running)?;
    if !verified.is_sound() {
        return Err(Failure::input(format!("{}: damaged: {verified:?}", store.dir().display())));
    }
    let last = settled
        .map_or_else(|| "no period settled yet".to_owned(), |(p, _)| format!("last settled period {p}"));
    Ok(format!("sound, {last}"))
}
