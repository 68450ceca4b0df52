//! `nineteen task publish`: a task's folder to a registry.

use std::path::PathBuf;

use nineteen_oci::{
    Cache, Courier, Credentials, Descriptor, Event, Limits, Packed, Published, Reference, Refusal,
};
use serde::Serialize;

use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// Publish a task's folder, with its component, to a container registry.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The task's folder; its component is in it, or in `paths.components`.
    folder: PathBuf,
    /// Where to, e.g. `registry.example/tasks/chat`; the tag is the task's version unless one is named.
    reference: Reference,
    /// Pack and print what would be published, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Overwrite a version that is there with other content.
    #[arg(long)]
    replace: bool,
    /// Print what was published as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    task: &'a str,
    version: String,
    component_digest: String,
    manifest_digest: String,
    layers: Vec<&'a Descriptor>,
    /// Absent where nothing was sent.
    published: Option<Published>,
}

pub(crate) async fn run(args: Args, config: Config) -> Result<(), Failure> {
    let limits = Limits::default();
    let packed =
        Packed::from_folder(&args.folder, &config.paths.components(), &limits).map_err(Failure::input)?;
    let published = if args.dry_run {
        None
    } else {
        let courier = courier(&config)?;
        let sent = courier.publish(&packed, &args.reference, args.replace, &tell).await;
        Some(sent.map_err(failure)?)
    };
    let manifest = packed.manifest();
    if args.json {
        return print::json(&Report {
            task: manifest.name.as_str(),
            version: manifest.version.to_string(),
            component_digest: packed.component_digest().to_string(),
            manifest_digest: packed.digest().to_string(),
            layers: packed.layers().iter().map(|layer| &layer.descriptor).collect(),
            published,
        });
    }
    let mut table = print::table(&["file", "bytes", "media type", "digest"]);
    for layer in packed.layers() {
        let d = &layer.descriptor;
        let name = d.path.clone().unwrap_or_default();
        table.add_row([name, d.bytes.to_string(), d.media_type.clone(), d.digest.to_string()]);
    }
    print::out(&table.to_string())?;
    let place = &args.reference.place;
    match published {
        None => print::out(&format!(
            "{} {} would be {place}@{}; nothing was sent",
            manifest.name,
            manifest.version,
            packed.digest()
        )),
        Some(p) if p.unchanged => {
            print::out(&format!("{place}:{} is there already: {place}@{}", p.tag, p.digest))
        }
        Some(p) => print::out(&format!(
            "published {place}:{} as {place}@{}; the component alone is {place}:{}",
            p.tag, p.digest, p.component_tag
        )),
    }
}

/// The courier that the configuration describes.
pub(crate) fn courier(config: &Config) -> Result<Courier, Failure> {
    let cache =
        Cache::open(&config.paths.cache.join("oci"), config.oci.cache_bytes).map_err(Failure::input)?;
    Ok(Courier::new(config.oci.clone(), Some(cache), Credentials::find))
}

/// Progress, on standard error: a line per file, not per chunk.
pub(crate) fn tell(event: Event) {
    match &event {
        Event::Fetching { got, of, .. } if got < of => {}
        other => eprintln!("{other}"),
    }
}

/// Who is away or slow may be there the next time; everything else is for the user to change.
pub(crate) fn failure(refusal: Refusal) -> Failure {
    if refusal.is_away() { Failure::running(refusal) } else { Failure::input(refusal) }
}
