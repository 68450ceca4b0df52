//! `nineteen task pull`: a task from a registry, or from the cache when the registry is away.

use std::path::PathBuf;

use nineteen_oci::{Origin, Reference};
use serde::Serialize;

use crate::commands::publish::{courier, failure, tell};
use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// Pull a task from a container registry; what was pulled stays in the cache.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which, e.g. `registry.example/tasks/chat:1.2.3`, `…/chat:^1.2` or `…/chat@sha256:…`.
    reference: Reference,
    /// Write its files into this folder, which must not be there yet, or be empty.
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// Print what was pulled as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    task: String,
    version: String,
    tag: Option<String>,
    manifest_digest: String,
    component_digest: String,
    files: Vec<String>,
    bytes: u64,
    origin: Origin,
    folder: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, config: Config) -> Result<(), Failure> {
    let pulled = courier(&config)?.pull(&args.reference, &tell).await.map_err(failure)?;
    if let Some(folder) = &args.into {
        pulled.task.write_into(folder).map_err(Failure::input)?;
    }
    let manifest = pulled.task.manifest();
    if args.json {
        return print::json(&Report {
            task: manifest.name.to_string(),
            version: manifest.version.to_string(),
            tag: pulled.tag,
            manifest_digest: pulled.digest.to_string(),
            component_digest: pulled.task.component_digest().to_string(),
            files: pulled.task.files().keys().cloned().collect(),
            bytes: pulled.task.bytes(),
            origin: pulled.origin,
            folder: args.into,
        });
    }
    let from = match &pulled.origin {
        Origin::Registry => "from the registry".to_owned(),
        Origin::Cache => "from the cache".to_owned(),
        Origin::CacheAlone { why } => format!("from the cache alone ({why})"),
        // A new origin is at least named.
        other => format!("{other:?}"),
    };
    print::out(&format!("{} {} {from}", manifest.name, manifest.version))?;
    print::out(&format!("task       {}@{}", args.reference.place, pulled.digest))?;
    print::out(&format!("component  {}", pulled.task.component_digest()))?;
    match &args.into {
        Some(folder) => print::out(&format!("written    {}", folder.display())),
        None => print::out("in the cache; --into FOLDER writes its files"),
    }
}
