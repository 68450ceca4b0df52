//! `nineteen receipt`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nineteen_domain::{Hotkey, PeriodId, ProbeId, TaskName};
use nineteen_sandbox::receipt::drift::{Drift, rerun};
use nineteen_sandbox::receipt::{Bodies, Decision, MOST_BYTES, Receipt, ReceiptError};
use nineteen_sandbox::{Plugin, Sandbox};
use nineteen_store::{Store, StoreError};
use nineteen_validator::receipts::{Wanted, bodies, export, find};
use nineteen_validator::registry;
use serde::Serialize;

use crate::commands::validator::{as_it_runs, executors, runtime, sandbox, store_options};
use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// Write down verdicts with all that they came from, and have them again anywhere.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write receipts of judged exchanges that the store keeps, one file each.
    Export(Export),
    /// Play receipts again and compare to the bit. Exit code 0: the same; 1: something differs; 2: no receipt,
    /// or not of a task that is here.
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Export {
    /// This exchange alone: PERIOD/TASK/MINER/SLOT, as `nineteen explain` prints it.
    #[arg(long, value_parser = probe_id, conflicts_with_all = ["task", "miner", "period"])]
    probe: Option<ProbeId>,
    /// Of this task alone.
    #[arg(long)]
    task: Option<TaskName>,
    /// Of this miner alone.
    #[arg(long, value_name = "SS58")]
    miner: Option<Hotkey>,
    /// Of this period alone.
    #[arg(long)]
    period: Option<u64>,
    /// At most so many, the newest of each miner and task first.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    most: u32,
    /// Folder that they are written to; made if it is missing.
    #[arg(long, value_name = "FOLDER", default_value = "receipts")]
    out: PathBuf,
    /// Leave request, exchange and evidence out: whoever has them can still verify.
    #[arg(long)]
    without_bodies: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// The receipts. Those without bodies are verified from this machine's store.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The component that a receipt is of, where it is not the one that runs here.
    #[arg(long, value_name = "WASM")]
    component: Option<PathBuf>,
    /// Also run the checks again on this machine's executors, and say how far the evidence moves.
    #[arg(long)]
    rerun_checks: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, config: Config) -> Result<(), Failure> {
    match args.command {
        Command::Export(args) => export_all(args, as_it_runs(config)?).await,
        Command::Verify(args) => verify_all(args, as_it_runs(config)?).await,
    }
}

fn probe_id(text: &str) -> Result<ProbeId, String> {
    let wanted = "is not like 12/chat-smollm2-135m/5F…/3 (period, task, miner, slot)";
    let mut parts = text.split('/');
    let (Some(period), Some(task), Some(miner), Some(slot), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wanted.into());
    };
    Ok(ProbeId {
        period: PeriodId(period.parse().map_err(|_| format!("{wanted}: the period is no number"))?),
        task: TaskName::new(task).map_err(|e| format!("{wanted}: {e}"))?,
        miner: miner.parse().map_err(|e| format!("{wanted}: {e}"))?,
        slot: slot.parse().map_err(|_| format!("{wanted}: the slot is no number"))?,
    })
}

/// Plugins that were needed so far.
struct Plugins<'a> {
    config: &'a Config,
    sandbox: Sandbox,
    given: Option<&'a Path>,
    loaded: BTreeMap<TaskName, Arc<Plugin>>,
}

impl<'a> Plugins<'a> {
    fn new(config: &'a Config, given: Option<&'a Path>) -> Result<Self, Failure> {
        Ok(Self { config, sandbox: sandbox(config)?, given, loaded: BTreeMap::new() })
    }

    async fn of(&mut self, task: &TaskName) -> Result<Arc<Plugin>, Failure> {
        if let Some(plugin) = self.loaded.get(task) {
            return Ok(Arc::clone(plugin));
        }
        let paths = &self.config.paths;
        let plugin =
            registry::plugin_of(&paths.taskset, task, &paths.components(), self.given, &self.sandbox)
                .await
                .map_err(Failure::input)?;
        self.loaded.insert(task.clone(), Arc::clone(&plugin));
        Ok(plugin)
    }
}

fn open(config: &Config) -> Result<Store, Failure> {
    Store::open_existing(&config.paths.data, store_options(config)).map_err(|e| match e {
        StoreError::Locked { .. } => Failure::input(format!(
            "{e}; receipts are read from a store at rest: copy the folder, or stop the validator"
        )),
        e => Failure::input(e),
    })
}

/// Runs what reads from disk or calls a plugin.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Failure::running(format!("the work on receipts failed: {e}")))
}

#[derive(Serialize)]
struct Exported {
    probe: ProbeId,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

async fn export_all(args: Export, config: Config) -> Result<(), Failure> {
    let store = open(&config)?;
    let done = export_from(&args, &config, &store).await;
    store.close().map_err(Failure::running)?;
    let done = done?;
    if args.json {
        return print::json(&done);
    }
    for one in &done {
        match (&one.file, &one.refused) {
            (Some(file), _) => print::out(&file.display().to_string())?,
            (None, why) => eprintln!("{}: no receipt: {}", one.probe, why.as_deref().unwrap_or_default()),
        }
    }
    let written = done.iter().filter(|one| one.file.is_some()).count();
    if written == 0 {
        return Err(Failure::input(match done.first() {
            Some(Exported { probe, refused: Some(why), .. }) => format!("no receipt of {probe}: {why}"),
            _ => "no judged exchange fits: widen --task, --miner, --period or --probe".into(),
        }));
    }
    print::out(&format!("{written} receipts in {}", args.out.display()))
}

async fn export_from(args: &Export, config: &Config, store: &Store) -> Result<Vec<Exported>, Failure> {
    let wanted = Wanted {
        task: args.task.clone(),
        miner: args.miner,
        period: args.period.map(PeriodId),
        probe: args.probe.clone(),
        most: usize::try_from(args.most).unwrap_or(usize::MAX),
    };
    let reading = store.clone();
    let samples = aside(move || find(&reading, &wanted)).await?.map_err(Failure::running)?;
    let refuse = |e: std::io::Error| {
        Failure::input(format!("--out: {}: {e}; name a folder that can be written", args.out.display()))
    };
    if !samples.is_empty() {
        std::fs::create_dir_all(&args.out).map_err(refuse)?;
    }
    let mut plugins = Plugins::new(config, None)?;
    let mut done = Vec::with_capacity(samples.len());
    for sample in samples {
        let plugin = plugins.of(&sample.probe.task).await?;
        let probe = sample.probe.clone();
        let reading = store.clone();
        let file = match aside(move || export(&reading, &plugin, &sample)).await? {
            Ok(receipt) => {
                let receipt = if args.without_bodies { receipt.without_bodies() } else { receipt };
                let bytes = receipt.to_bytes().map_err(Failure::running)?;
                let name = format!("{}-{}-{}-{}.receipt", probe.period, probe.task, probe.miner, probe.slot);
                let file = args.out.join(name);
                write_whole(&args.out, &file, &bytes).map_err(refuse)?;
                Ok(file)
            }
            Err(why) => Err(why.to_string()),
        };
        let (file, refused) = match file {
            Ok(file) => (Some(file), None),
            Err(why) => (None, Some(why)),
        };
        done.push(Exported { probe, file, refused });
    }
    Ok(done)
}

/// Beside first, so that a half-written receipt never has its name.
fn write_whole(folder: &Path, file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = tempfile::NamedTempFile::new_in(folder)?;
    beside.write_all(bytes)?;
    beside.as_file().sync_all()?;
    beside.persist(file).map(|_| ()).map_err(|e| e.error)
}

#[derive(Serialize)]
struct Verified {
    file: PathBuf,
    task: TaskName,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<ProbeId>,
    same: bool,
    /// The first field that differs, what the receipt says and what came out here.
    #[serde(skip_serializing_if = "Option::is_none")]
    differs: Option<String>,
    engine: String,
    engine_here: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rerun: Option<Rerun>,
}

/// What the checks say on this machine.
#[derive(Serialize)]
struct Rerun {
    /// By kind of check.
    drift: BTreeMap<String, Drift>,
    /// Quality from the recorded evidence and from that of this machine, where both give a verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<(f64, f64)>,
    /// Why this machine's evidence decides nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    undecided: Option<String>,
}

async fn verify_all(args: Verify, config: Config) -> Result<(), Failure> {
    let receipts: Vec<(PathBuf, Receipt)> =
        args.files.iter().map(|file| Ok((file.clone(), read(file)?))).collect::<Result<_, Failure>>()?;
    let mut plugins = Plugins::new(&config, args.component.as_deref())?;
    let kept = kept_bodies(&config, &receipts).await?;
    let mut done = Vec::with_capacity(receipts.len());
    for (n, (file, receipt)) in receipts.into_iter().enumerate() {
        let plugin = plugins.of(&receipt.task).await?;
        let engine_here = plugin.engine_fingerprint();
        let own = receipt.bodies.clone().or_else(|| kept.get(&n).cloned());
        let given = own.clone();
        let (receipt, verified) = aside(move || {
            let verified = receipt.verify(&plugin, given.as_ref());
            (receipt, verified)
        })
        .await?;
        let differs = match verified {
            Ok(()) => None,
            Err(e) if e.is_difference() => Some(e.to_string()),
            Err(e) => return Err(Failure::input(format!("{}: {e}", file.display()))),
        };
        let rerun = match own {
            Some(own) if args.rerun_checks => {
                Some(rerun_checks(&config, &plugins.of(&receipt.task).await?, &receipt.decision, own).await?)
            }
            _ => None,
        };
        let (same, engine) = (differs.is_none(), receipt.engine);
        let (task, probe) = (receipt.task, receipt.probe);
        done.push(Verified { file, task, probe, same, differs, engine, engine_here, rerun });
    }
    show(&done, args.json)
}

fn show(done: &[Verified], json: bool) -> Result<(), Failure> {
    if json {
        print::json(&done)?;
    }
    for one in done.iter().filter(|_| !json) {
        match &one.differs {
            None => print::out(&format!("{}: the same", one.file.display()))?,
            Some(why) => print::out(&format!("{}: differs: {why}", one.file.display()))?,
        }
        let Some(rerun) = &one.rerun else { continue };
        for (kind, drift) in &rerun.drift {
            let moved = drift.largest().map_or_else(
                || "no number moved".to_owned(),
                |(path, by)| format!("{path} moved most, by {by:e}"),
            );
            let others: Vec<_> = drift.differs.iter().map(|(path, n)| format!("{path} ({n})")).collect();
            let others =
                if others.is_empty() { String::new() } else { format!("; differ: {}", others.join(", ")) };
            print::out(&format!("  {kind}, {} checks: {moved}{others}", drift.checks))?;
        }
        match (&rerun.quality, &rerun.undecided) {
            (Some((was, is)), _) => {
                print::out(&format!("  quality {was}, from this machine's evidence {is}"))?
            }
            (None, Some(why)) => print::out(&format!("  this machine's evidence decides nothing: {why}"))?,
            (None, None) => {}
        }
    }
    let different = done.iter().filter(|one| !one.same).count();
    match done.iter().find(|one| !one.same) {
        None => Ok(()),
        Some(one) => Err(Failure::running(format!(
            "{different} of {} receipts differ; the first is {}: {}{}",
            done.len(),
            one.file.display(),
            one.differs.as_deref().unwrap_or_default(),
            if one.engine == one.engine_here {
                String::new()
            } else {
                format!(" (written by {}, this is {})", one.engine, one.engine_here)
            }
        ))),
    }
}

fn read(file: &Path) -> Result<Receipt, Failure> {
    let refuse = |why: String| Failure::input(format!("{}: {why}", file.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|f| f.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| refuse(format!("cannot be read: {e}")))?;
    Receipt::from_bytes(&bytes).map_err(|e| refuse(e.to_string()))
}

/// Bodies of the receipts that have none, by their place, from this machine's store.
async fn kept_bodies(
    config: &Config,
    receipts: &[(PathBuf, Receipt)],
) -> Result<BTreeMap<usize, Bodies>, Failure> {
    let bare: Vec<(usize, ProbeId)> = receipts
        .iter()
        .enumerate()
        .filter(|(_, (_, receipt))| receipt.bodies.is_none())
        .filter_map(|(n, (_, receipt))| Some((n, receipt.probe.clone()?)))
        .collect();
    if bare.is_empty() {
        return Ok(BTreeMap::new());
    }
    let store = open(config).map_err(|e| Failure::input(format!("{}; {e}", ReceiptError::NoBodies)))?;
    let reading = store.clone();
    let found = aside(move || {
        let mut found = BTreeMap::new();
        for (n, probe) in bare {
            if let Some(kept) = bodies(&reading, &probe)? {
                found.insert(n, kept);
            }
        }
        Ok::<_, StoreError>(found)
    })
    .await?;
    store.close().map_err(Failure::running)?;
    found.map_err(Failure::running)
}

async fn rerun_checks(
    config: &Config,
    plugin: &Arc<Plugin>,
    decision: &Decision,
    own: Bodies,
) -> Result<Rerun, Failure> {
    if own.evidence.is_empty() {
        return Ok(Rerun { drift: BTreeMap::new(), quality: None, undecided: None });
    }
    let mut models: Vec<_> = plugin.manifest().grants.values().flatten().cloned().collect();
    models.sort_unstable();
    models.dedup();
    let executors = executors(config, runtime(config)?, models).await?;
    let (drift, evidence) = rerun(&own.evidence, executors.checker().as_ref()).await;
    let (plugin, anew) = (Arc::clone(plugin), Bodies { evidence, ..own });
    let (quality, undecided) = match (decision, aside(move || Receipt::make(&plugin, None, anew)).await?) {
        (Decision::Scored(was), Ok(Receipt { decision: Decision::Scored(is), .. })) => {
            (Some((was.quality, is.quality)), None)
        }
        (_, Ok(Receipt { decision: Decision::Violation(why) | Decision::Inconclusive(why), .. })) => {
            (None, Some(why))
        }
        (_, Ok(_)) => (None, None),
        (_, Err(e)) => (None, Some(e.to_string())),
    };
    Ok(Rerun { drift, quality, undecided })
}
