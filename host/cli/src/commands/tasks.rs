//! `nineteen tasks`: what the validator runs, and changes of it while it runs.

use std::path::{Path, PathBuf};

use nineteen_domain::TaskName;
use nineteen_gateway::{Asked, OperatorClient, OperatorError, Token};
use nineteen_oci::Reference;
use nineteen_validator::registrar::{Changed, Event, Off, Registered};
use nineteen_validator::registry;
use nineteen_validator::report::{TaskLine, TaskReport, declared_lines};

use crate::commands::publish::{courier, failure, tell};
use crate::commands::reports::JsonArgs;
use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// List the tasks, or change them while the validator runs.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: JsonArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Tasks with weights, versions and components; those that rest too, while a validator runs.
    List(JsonArgs),
    /// One task that runs: what it is, what loading it took, and what its calls used of their budgets.
    Show {
        /// Which.
        task: TaskName,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Take a task in. It takes part from the next period on.
    Add {
        /// Its folder, or where a registry has it: `registry.example/tasks/chat:^1.2`, `…@sha256:…`.
        task: String,
        /// What part of the whole it takes, above 0 and below 1; all others give in proportion.
        #[arg(long)]
        weight: f64,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Replace a task by a later version; its weight stays.
    Upgrade {
        /// The folder, or where a registry has it.
        task: String,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Ask nobody for a task until it is enabled again; its weight goes to the others in proportion.
    Disable(Named),
    /// Ask for it again, with the weight that it had.
    Enable(Named),
    /// Remove a task; its weight goes to the others in proportion.
    Remove(Named),
    /// Go back to what ran before the last change; once more, to what ran before that.
    Rollback {
        /// This task alone; absent, all of them.
        task: Option<TaskName>,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// What was done to the tasks, the newest first, with the duration of every step.
    Events(JsonArgs),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Which.
    task: TaskName,
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) async fn run(args: Args, config: Config) -> Result<(), Failure> {
    let command = args.command.unwrap_or(Command::List(args.list));
    let client = OperatorClient::new(config.validator.listen);
    match command {
        Command::List(json) => list(&json, &config, client).await,
        Command::Show { task, json } => {
            let report = client.get(&format!("/v1/tasks/{task}")).await.map_err(Failure::input)?;
            show(&report, json.json)
        }
        Command::Events(json) => {
            let events: Vec<Event> = client.get("/v1/tasks/events").await.map_err(Failure::input)?;
            if json.json { print::json(&events) } else { print::out(&told(&events)) }
        }
        Command::Add { task, weight, json } => {
            let fetched = Fetched::of(&task, &config).await?;
            let asked = Asked { folder: Some(fetched.folder.clone()), weight: Some(weight) };
            change(&client, &config, &format!("/v1/tasks/{}/add", fetched.name), &asked, &json).await
        }
        Command::Upgrade { task, json } => {
            let fetched = Fetched::of(&task, &config).await?;
            let asked = Asked { folder: Some(fetched.folder.clone()), weight: None };
            change(&client, &config, &format!("/v1/tasks/{}/upgrade", fetched.name), &asked, &json).await
        }
        Command::Disable(n) => named(&client, &config, &n, "disable").await,
        Command::Enable(n) => named(&client, &config, &n, "enable").await,
        Command::Remove(n) => named(&client, &config, &n, "remove").await,
        Command::Rollback { task, json } => {
            let path = match task {
                Some(task) => format!("/v1/tasks/{task}/rollback"),
                None => "/v1/rollback".into(),
            };
            change(&client, &config, &path, &Asked::default(), &json).await
        }
    }
}

/// A task's folder; one that was pulled lies in a folder that goes with this.
struct Fetched {
    name: TaskName,
    folder: PathBuf,
    _pulled: Option<tempfile::TempDir>,
}

impl Fetched {
    async fn of(task: &str, config: &Config) -> Result<Self, Failure> {
        let folder = Path::new(task);
        if folder.join("task.toml").is_file() {
            let folder = folder.canonicalize().map_err(|e| Failure::input(format!("{task}: {e}")))?;
            let name = registry::read_manifest(&folder).map_err(Failure::input)?.name;
            return Ok(Self { name, folder, _pulled: None });
        }
        let reference: Reference = task.parse().map_err(|e| {
            Failure::input(format!("{task}: no folder with a task.toml, and no registry's reference: {e}"))
        })?;
        let pulled = courier(config)?.pull(&reference, &tell).await.map_err(failure)?;
        let kept =
            tempfile::tempdir().map_err(|e| Failure::running(format!("no folder to pull into: {e}")))?;
        let folder = kept.path().join("task");
        pulled.task.write_into(&folder).map_err(Failure::input)?;
        Ok(Self { name: pulled.task.manifest().name.clone(), folder, _pulled: Some(kept) })
    }
}

async fn named(client: &OperatorClient, config: &Config, of: &Named, verb: &str) -> Result<(), Failure> {
    change(client, config, &format!("/v1/tasks/{}/{verb}", of.task), &Asked::default(), &of.json).await
}

async fn change(
    client: &OperatorClient,
    config: &Config,
    path: &str,
    asked: &Asked,
    json: &JsonArgs,
) -> Result<(), Failure> {
    let token = Token::read(&config.paths.token()).map_err(Failure::input)?;
    let changed: Changed = client.post(path, &token, asked).await.map_err(|e| match e {
        OperatorError::Unreachable { .. } => Failure::input(format!(
            "{e}: tasks are changed while a validator runs; one that does not run takes paths.taskset at its start"
        )),
        OperatorError::Refused(_) => Failure::input(e),
    })?;
    if json.json {
        return print::json(&changed);
    }
    print::out(&format!("generation {}: {}", changed.generation, changed.what))?;
    for step in &changed.steps {
        let task = step.task.as_ref().map(|t| format!(" {t}")).unwrap_or_default();
        print::out(&format!("  {:<9}{:>9.1} ms{task}", step.step, millis(step.micros)))?;
    }
    let weights = changed.running.iter().map(|(task, weight)| format!("{task} {}", print::number(*weight)));
    print::out(&format!("from the next period on: {}", weights.collect::<Vec<_>>().join(", ")))
}

#[expect(clippy::cast_precision_loss, reason = "a duration for people")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn told(events: &[Event]) -> String {
    if events.is_empty() {
        return "nothing was changed yet".into();
    }
    let mut lines = Vec::new();
    for e in events {
        let took: u64 = e.steps.iter().map(|s| s.micros).sum();
        let end = match (&e.generation, &e.refused) {
            (Some(g), _) => format!("generation {g}, {:.1} ms", millis(took)),
            (None, why) => format!("refused: {}", why.as_deref().unwrap_or("")),
        };
        lines.push(format!("{}  {}: {end}", print::ago(e.at_us), e.what));
        lines.extend(e.steps.iter().map(|s| {
            let task = s.task.as_ref().map(|t| format!(" {t}")).unwrap_or_default();
            format!("    {:<9}{:>9.1} ms{task}", s.step, millis(s.micros))
        }));
    }
    lines.join("\n")
}

async fn list(json: &JsonArgs, config: &Config, client: OperatorClient) -> Result<(), Failure> {
    let lines = match client.get::<Vec<TaskLine>>("/v1/tasks").await {
        Ok(lines) => lines,
        Err(_) => declared_lines(&registry::read_set(&config.paths.taskset).map_err(Failure::input)?.1),
    };
    if json.json {
        return print::json(&lines);
    }
    let mut table = print::table(&["task", "version", "weight", "unit", "cap/hour", "component", "digest"]);
    for t in lines {
        let digest = t.digest.as_deref().map_or("(not running)", |d| d.get(..19).unwrap_or(d)).to_owned();
        table.add_row(vec![
            t.name.to_string(),
            t.version,
            print::number(t.weight),
            t.unit,
            t.cap_per_hour.to_string(),
            t.component,
            digest,
        ]);
    }
    print::out(&table.to_string())?;
    let Ok(registered) = client.get::<Registered>("/v1/registry").await else { return Ok(()) };
    let g = &registered.generation;
    print::out(&format!("generation {}: {}", g.number, g.what))?;
    for entry in g.tasks.entries() {
        match &entry.off {
            None => {}
            Some(Off::Operator) => print::out(&format!("{} {} is switched off", entry.name, entry.version))?,
            Some(Off::Host { why, until, .. }) => {
                print::out(&format!("{} {} rests until period {until}: {why}", entry.name, entry.version))?;
            }
        }
    }
    for (number, at_us, what) in registered.before.iter().take(5) {
        print::out(&format!("  before: {number}, {}: {what}", print::ago(*at_us)))?;
    }
    Ok(())
}

fn show(report: &TaskReport, json: bool) -> Result<(), Failure> {
    if json {
        return print::json(report);
    }
    let (line, b) = (&report.line, &report.manifest.budget);
    let mut out = vec![
        format!("{} {} weighs {}", line.name, line.version, print::number(line.weight)),
        format!("  serves     {} at {}", report.manifest.operation, line.path),
        format!("  component  {} {}", line.component, line.digest.as_deref().unwrap_or("")),
        format!("  wit        {}", line.wit.as_deref().unwrap_or("")),
        format!("  epoch      {}", report.epoch),
        format!(
            "  volume     {} {} an hour at most; a probe takes {}",
            line.cap_per_hour,
            line.unit,
            line.expected_units.unwrap_or(0)
        ),
        format!("  calibrated {}", if report.calibrated { "yes" } else { "no: nobody is accused" }),
        format!("  files      {}", report.folder.display()),
    ];
    out.extend(
        line.grants.iter().map(|(kind, models)| format!("  may ask    {kind} of {}", models.join(", "))),
    );
    let loaded = report.loaded.iter().map(|(step, took)| format!("{step} {:.1} ms", millis(*took)));
    out.push(format!("  loaded in  {}", loaded.collect::<Vec<_>>().join(", ")));
    let mut table = print::table(&[
        "call",
        "calls",
        "failed",
        "fuel, mean",
        "fuel, most",
        "ms, mean",
        "ms, most",
        "MiB, most",
        "KiB in, most",
    ]);
    for (call, s) in &report.spent {
        let calls = s.calls.max(1);
        table.add_row(vec![
            call.clone(),
            s.calls.to_string(),
            s.failed.to_string(),
            (s.fuel / calls).to_string(),
            percent(s.most_fuel, b.fuel),
            format!("{:.3}", millis(s.micros / calls)),
            format!(
                "{:.1} ({:.1} %)",
                millis(s.most_micros),
                millis(s.most_micros) / millis(b.wall_ms * 1_000).max(1e-9) * 100.0
            ),
            percent(s.most_memory >> 20, b.memory_bytes >> 20),
            percent(s.most_bytes_in >> 10, b.bytes_in >> 10),
        ]);
    }
    out.push(table.to_string());
    out.push("% of the budget".into());
    print::out(&out.join("\n"))
}

#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn percent(of: u64, budget: u64) -> String {
    format!("{of} ({:.1} %)", of as f64 / (budget.max(1)) as f64 * 100.0)
}
