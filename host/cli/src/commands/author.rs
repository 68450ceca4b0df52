//! `nineteen task new | build | check | bench | pack | watch`: for people who write tasks.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nineteen_author::{AuthorError, Lang, Project, Tools};
use nineteen_domain::TaskName;
use nineteen_gateway::{Asked, OperatorClient, Token};
use nineteen_oci::{Limits, Packed};
use nineteen_sandbox::SandboxConfig;
use nineteen_validator::registrar::Changed;

use crate::commands::validator::sandbox_config;
use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// Between two looks at the watched files.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Language {
    /// With the SDK: tens of kilobytes, the fastest.
    Rust,
    /// Through componentize-py.
    Python,
    /// Through componentize-js.
    Js,
}

#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// The task's name: lower case, digits and hyphens.
    name: TaskName,
    /// What it is written in.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// The folder to make; default: the name.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// The project.
    #[arg(default_value = ".")]
    project: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The project, or the folder of a task.
    #[arg(default_value = ".")]
    task: PathBuf,
    /// Another component than the one in the task's folder.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// The project, or the folder of a task.
    #[arg(default_value = ".")]
    task: PathBuf,
    /// Another component than the one in the task's folder.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Milliseconds for each function.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    each_ms: u64,
    /// Write where the time goes as a picture (SVG); figures are worse meanwhile.
    #[arg(long, value_name = "FILE")]
    flamegraph: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pack {
    /// The project, or the folder of a task.
    #[arg(default_value = ".")]
    task: PathBuf,
    /// The folder to write, which must not be there yet: everything of the task in one place, as `task pull --into` gives it.
    #[arg(long, short, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// The project.
    #[arg(default_value = ".")]
    project: PathBuf,
    /// Build and check only; no validator is asked to take it.
    #[arg(long)]
    dry: bool,
    /// End after so many builds; 0: never.
    #[arg(long, default_value_t = 0)]
    builds: u64,
}

/// A compiler that fails or a file that is wrong is for the author to change.
fn failure(e: AuthorError) -> Failure {
    Failure::input(e)
}

pub(crate) fn new(args: &New) -> Result<(), Failure> {
    let lang = match args.lang {
        Language::Rust => Lang::Rust,
        Language::Python => Lang::Python,
        Language::Js => Lang::Js,
    };
    let into = args.dir.clone().unwrap_or_else(|| PathBuf::from(args.name.as_str()));
    nineteen_author::scaffold(&args.name, lang, &into).map_err(failure)?;
    let at = into.display();
    print::out(&format!("{at}\nnext: nineteen task build {at} && nineteen task check {at}"))
}

fn tools(config: &Config) -> Tools {
    Tools { cache: config.paths.cache.clone() }
}

pub(crate) fn build(args: &Build, config: &Config) -> Result<(), Failure> {
    let project = Project::read(&args.project).map_err(failure)?;
    eprintln!("building {} ({:?})", project.manifest.name, project.lang);
    let built = nineteen_author::build(&project, &tools(config)).map_err(failure)?;
    if args.json {
        return print::json(&built);
    }
    print::out(&format!(
        "{}\n{} bytes in {:.1} s, by {}\n{}",
        built.component.display(),
        built.bytes,
        built.took.as_secs_f64(),
        built.with,
        built.digest
    ))
}

/// The task's folder of a project, or the folder itself.
pub(crate) fn task_of(folder: &Path) -> Result<PathBuf, Failure> {
    if folder.join("task.toml").is_file() {
        return Ok(folder.to_owned());
    }
    Project::read(folder).map(|p| p.task).map_err(failure)
}

/// The component that was named, or the task's own, or the one of the components' folder.
fn component_of(task: &Path, named: Option<&PathBuf>, config: &Config) -> Result<Option<PathBuf>, Failure> {
    if named.is_some() {
        return Ok(named.cloned());
    }
    let name = nineteen_validator::registry::read_manifest(task).map_err(Failure::input)?.component + ".wasm";
    let shared = config.paths.components().join(&name);
    Ok((!task.join(&name).is_file() && shared.is_file()).then_some(shared))
}

fn config_of(config: &Config) -> SandboxConfig {
    sandbox_config(config)
}

pub(crate) async fn check(args: &Check, config: &Config) -> Result<(), Failure> {
    let task = task_of(&args.task)?;
    let component = component_of(&task, args.component.as_ref(), config)?;
    let report =
        nineteen_author::check(&task, component.as_deref(), config_of(config)).await.map_err(failure)?;
    if args.json {
        print::json(&report)?;
    } else {
        for f in &report.findings {
            let mark = if f.kept { "ok    " } else { "BROKEN" };
            print::out(&format!("{mark}  {}: {}", f.promise, f.words))?;
        }
    }
    let broken = report.findings.iter().filter(|f| !f.kept).count();
    if broken == 0 { Ok(()) } else { Err(Failure::running(format!("{broken} promises are broken"))) }
}

pub(crate) async fn bench(args: &Bench, config: &Config) -> Result<(), Failure> {
    let task = task_of(&args.task)?;
    let component = component_of(&task, args.component.as_ref(), config)?;
    let each = Duration::from_millis(args.each_ms);
    let bench = nineteen_author::bench(
        &task,
        component.as_deref(),
        config_of(config),
        each,
        args.flamegraph.is_some(),
    );
    let bench = bench.await.map_err(failure)?;
    if let Some(file) = &args.flamegraph {
        std::fs::write(file, nineteen_author::flamegraph(&bench.stacks))
            .map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
    }
    if args.json {
        return print::json(&bench);
    }
    let load = bench.load_us.iter().map(|(step, us)| format!("{step} {:.1} ms", us / 1e3));
    print::out(&format!(
        "{}: {} kB; loaded in {}",
        bench.task,
        bench.component_bytes / 1000,
        load.collect::<Vec<_>>().join(", ")
    ))?;
    let mut table = print::table(&[
        "call",
        "calls",
        "fuel",
        "fuel, most",
        "us, median",
        "us, p99",
        "KiB",
        "room",
        "tightest",
    ]);
    for l in &bench.lines {
        table.add_row(vec![
            l.call.clone(),
            l.calls.to_string(),
            l.fuel.to_string(),
            l.most_fuel.to_string(),
            format!("{:.1}", l.median_us),
            format!("{:.1}", l.p99_us),
            (l.memory >> 10).to_string(),
            format!("{:.1} %", l.room * 100.0),
            l.tightest.to_owned(),
        ]);
    }
    print::out(&table.to_string())
}

pub(crate) fn pack(args: &Pack, config: &Config) -> Result<(), Failure> {
    let task = task_of(&args.task)?;
    let packed =
        Packed::from_folder(&task, &config.paths.components(), &Limits::default()).map_err(Failure::input)?;
    if let Some(out) = &args.out {
        packed.write_into(out).map_err(Failure::input)?;
    }
    let m = packed.manifest();
    if args.json {
        let files: Vec<_> = packed.layers().iter().map(|l| &l.descriptor).collect();
        return print::json(&serde_json::json!({
            "task": m.name, "version": m.version, "digest": packed.digest(), "component": packed.component_digest(),
            "files": files, "folder": args.out,
        }));
    }
    print::out(&format!("{} {}\n{}", m.name, m.version, packed.digest()))?;
    for layer in packed.layers() {
        let d = &layer.descriptor;
        print::out(&format!("  {:>9}  {}", d.bytes, d.path.as_deref().unwrap_or("")))?;
    }
    match &args.out {
        Some(out) => print::out(&format!("written to {}", out.display())),
        None => print::out("--out FOLDER writes it; `nineteen task publish` sends it"),
    }
}

/// The newest moment at which one of these was changed.
fn newest(paths: &[PathBuf]) -> Option<SystemTime> {
    let mut newest = None;
    let mut left: Vec<PathBuf> = paths.to_vec();
    while let Some(path) = left.pop() {
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if meta.is_dir() {
            left.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()));
        } else if let Ok(at) = meta.modified() {
            newest = newest.max(Some(at));
        }
    }
    newest
}

pub(crate) async fn watch(args: &Watch, config: &Config) -> Result<(), Failure> {
    let mut seen = None;
    let mut builds = 0;
    loop {
        let project = Project::read(&args.project).map_err(failure)?;
        let now = newest(&project.watch);
        if now == seen {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => continue,
                asked = tokio::signal::ctrl_c() => return asked.map_err(|e| Failure::running(e.to_string())),
            }
        }
        seen = now;
        match once(&project, args.dry, config).await {
            Ok(words) => print::out(&words)?,
            // What is wrong now is mended with the next change.
            Err(e) => eprintln!("{e}"),
        }
        builds += 1;
        if args.builds > 0 && builds >= args.builds {
            return Ok(());
        }
    }
}

/// Builds, and hands what was built to the validator under a version of its own.
async fn once(project: &Project, dry: bool, config: &Config) -> Result<String, Failure> {
    let begun = std::time::Instant::now();
    let (of, with) = (project.clone(), tools(config));
    let built = tokio::task::spawn_blocking(move || nineteen_author::build(&of, &with));
    let built = built.await.map_err(Failure::running)?.map_err(failure)?;
    let compiled = begun.elapsed();
    if dry {
        return Ok(format!("built in {:.2} s, {} bytes", compiled.as_secs_f64(), built.bytes));
    }
    let packed = Packed::from_folder(&project.task, &config.paths.components(), &Limits::default())
        .map_err(Failure::input)?;
    let staged = tempfile::tempdir().map_err(|e| Failure::running(e.to_string()))?;
    let folder = staged.path().join("task");
    packed.write_into(&folder).map_err(Failure::input)?;
    // Later than what it will be released as is not: `0.1.1-dev.5` comes before 0.1.1, and after 0.1.0.
    let mut version = project.manifest.version.clone();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    version.patch = version.patch.saturating_add(1);
    version.pre = format!("dev.{}", since.as_millis()).parse().map_err(Failure::running)?;
    let file = folder.join("task.toml");
    let text = std::fs::read_to_string(&file).map_err(Failure::running)?;
    let was = format!("version = \"{}\"", project.manifest.version);
    let text = text.replacen(&was, &format!("version = \"{version}\""), 1);
    std::fs::write(&file, text).map_err(Failure::running)?;
    let token = Token::read(&config.paths.token()).map_err(Failure::input)?;
    let asked = Asked { folder: Some(folder), weight: None };
    let path = format!("/v1/tasks/{}/upgrade", project.manifest.name);
    let changed: Changed = OperatorClient::new(config.validator.listen)
        .post(&path, &token, &asked)
        .await
        .map_err(Failure::input)?;
    Ok(format!(
        "generation {} after {:.2} s ({:.2} s to build): {}",
        changed.generation,
        begun.elapsed().as_secs_f64(),
        compiled.as_secs_f64(),
        changed.what
    ))
}
