//! `nineteen gallery`.

use std::path::PathBuf;

use nineteen_domain::{Hotkey, TaskName};
use nineteen_store::{Store, StoreError};
use nineteen_validator::gallery::{Wanted, html, shots};

use crate::commands::validator::store_options;
use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// Show pictures that were judged: what was asked, the miner's, the checker's, and the verdict.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the page is written.
    #[arg(long, value_name = "HTML", default_value = "gallery.html")]
    out: PathBuf,
    /// Of this task alone.
    #[arg(long)]
    task: Option<TaskName>,
    /// Of this miner alone.
    #[arg(long, value_name = "SS58")]
    miner: Option<Hotkey>,
    /// Pictures a miner and task, the newest first.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1000))]
    each: u16,
    /// Print the same as JSON instead of writing a page.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, config: Config) -> Result<(), Failure> {
    let store = Store::open_existing(&config.paths.data, store_options(&config)).map_err(|e| match e {
        StoreError::Locked { .. } => Failure::input(format!(
            "{e}; the gallery reads a store at rest: copy the folder, or stop the validator"
        )),
        e => Failure::input(e),
    })?;
    let wanted = Wanted { task: args.task, miner: args.miner, each: args.each.into() };
    let (found, store) = tokio::task::spawn_blocking(move || (shots(&store, &wanted), store))
        .await
        .map_err(|e| Failure::running(format!("the gallery failed: {e}")))?;
    let found = found.map_err(Failure::running);
    store.close().map_err(Failure::running)?;
    let found = found?;
    if args.json {
        return print::json(&found);
    }
    std::fs::write(&args.out, html(&found, &|_| None)).map_err(|e| {
        Failure::input(format!("--out: {}: {e}; name a file that can be written", args.out.display()))
    })?;
    print::out(&format!("{} pictures: {}", found.len(), args.out.display()))
}
