//! `nineteen subnet`: what an owner does to a task set before it is published, and what a validator does to it after.

mod owner;
mod registry;
mod show;
mod validator;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nineteen_chain::LocalSubnet;
use nineteen_domain::meet::Chain;
use nineteen_taskset::{
    FolderSource, FollowerOptions, HttpsOptions, HttpsSource, Now, Owner, SIGNATURES_FILE, Set, Signatures,
    Source,
};

use crate::config::Config;
use crate::error::Failure;

pub(crate) use validator::{as_followed, follow, follow_at_start, run_what_is_in_force};

const MOST_FILE_BYTES: u64 = 1 << 20;

/// Own a subnet, or follow one.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Owner: make or show a key.
    #[command(subcommand)]
    Keys(owner::Keys),
    /// Owner: make the signed form of a local task set: folders become digests.
    Init(owner::Init),
    /// Owner: sign a set. Signatures gather in `taskset.sig` beside it.
    Sign(owner::Sign),
    /// Owner: hold a set and its signatures against everything that validators check.
    Verify(owner::Verify),
    /// Owner: write set, signatures and files to a folder that any web server can serve.
    Publish(owner::Publish),
    /// Show what a set would change, and what this validator's limits say to it.
    Diff(validator::Diff),
    /// Validator: look at the source once and do what is due. A running validator does it by itself.
    Look(validator::Json),
    /// Validator: let nothing new come into force until `release`.
    Hold(validator::Hold),
    /// Validator: lift the hold, or let a set in that met a limit.
    Release(validator::Release),
    /// Validator: show what is in force, what waits, and what was refused.
    Status(validator::Json),
}

pub(crate) async fn run(args: Args, config: Config) -> Result<(), Failure> {
    match args.command {
        Command::Keys(args) => owner::keys(&args),
        Command::Init(args) => owner::init(&args, &config).await,
        Command::Sign(args) => owner::sign(&args),
        Command::Verify(args) => owner::verify(&args, &config).await,
        Command::Publish(args) => owner::publish(&args, &config).await,
        Command::Diff(args) => validator::diff(&args, &config).await,
        Command::Look(args) => validator::look(&args, &config).await,
        Command::Hold(args) => validator::hold(&args, &config),
        Command::Release(args) => validator::release(&args, &config),
        Command::Status(args) => validator::status(&args, &config),
    }
}

/// The clock, and the chain's head where there is a subnet to ask.
async fn now(config: &Config) -> Now {
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let block = match LocalSubnet::open(&config.subnet.folder) {
        Ok(chain) => chain.head().await.ok().map(|head| head.number),
        Err(_) => None,
    };
    Now { unix_s, block }
}

fn trusted(config: &Config) -> Owner {
    Owner { threshold: config.subnet.threshold, keys: config.subnet.keys.clone() }
}

fn options(config: &Config) -> FollowerOptions {
    FollowerOptions {
        folder: config.subnet.followed.clone(),
        owner: trusted(config),
        name: config.subnet.name.clone(),
        limits: config.subnet.limits.clone(),
    }
}

/// The source that the configuration names.
fn source(config: &Config) -> Result<Arc<dyn Source>, Failure> {
    let named = config.subnet.source.as_deref().ok_or_else(|| {
        Failure::input("subnet.source: no source is configured: this validator runs paths.taskset as it is")
    })?;
    match named.split_once("://") {
        None => Ok(Arc::new(FolderSource::new(Path::new(named)))),
        Some(("https", _)) => {
            let options = HttpsOptions { ca_file: config.subnet.ca_file.clone(), ..HttpsOptions::default() };
            let source = HttpsSource::new(named, options);
            source
                .map(|s| Arc::new(s) as Arc<dyn Source>)
                .map_err(|e| Failure::input(format!("subnet.source: {e}")))
        }
        Some(("oci", reference)) => registry::source(reference, config),
        Some((scheme, _)) => Err(Failure::input(format!(
            "subnet.source: {scheme}:// is not followed: use a folder, https:// or oci://"
        ))),
    }
}

fn at(path: &Path) -> impl Fn(&dyn std::fmt::Display) -> Failure + '_ {
    move |why| Failure::input(format!("{}: {why}", path.display()))
}

/// A small file of ours.
fn bytes_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let long = std::fs::metadata(path).map_err(|e| at(path)(&e))?.len();
    if long > MOST_FILE_BYTES {
        return Err(at(path)(&format!("{long} bytes are too many")));
    }
    std::fs::read(path).map_err(|e| at(path)(&e))
}

fn read_set(path: &Path) -> Result<Set, Failure> {
    Set::read(&bytes_of(path)?).map_err(|e| at(path)(&e))
}

fn beside(path: &Path) -> PathBuf {
    path.with_file_name(SIGNATURES_FILE)
}

/// Signatures beside a set; none where there is no file yet.
fn read_signatures(path: &Path, set: &Set) -> Result<Signatures, Failure> {
    let file = beside(path);
    if !file.exists() {
        return Ok(Signatures::none_of(set));
    }
    Signatures::read(&bytes_of(&file)?).map_err(|e| at(&file)(&e))
}

/// Whole or not at all; never over something that is there.
fn write_new(path: &Path, text: &str, replace: bool) -> Result<(), Failure> {
    if path.exists() && !replace {
        return Err(at(path)(&"it is there already: name another file, or remove it"));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| at(folder)(&e))?;
    let temporary = tempfile::NamedTempFile::new_in(folder).map_err(|e| at(folder)(&e))?;
    std::fs::write(temporary.path(), text).map_err(|e| at(path)(&e))?;
    temporary.persist(path).map_err(|e| at(path)(&e.error))?;
    Ok(())
}
