//! `nineteen miner`: the reference miner, and the check of anybody's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use nineteen_checking::{ExecutorConfig, Executors, ModelConfig};
use nineteen_demo::Character;
use nineteen_domain::{Hotkey, ModelName};
use nineteen_miner::{Backend, MinerConfig, OnnxBackend, TaskConfig};
use nineteen_wire::keys;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::commands::validator::{asked_to_stop, runtime, start_executors};
use crate::config::Config;
use crate::error::Failure;
use crate::print;

/// Run the reference miner, or check somebody's miner.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, clap::Subcommand)]
enum Sub {
    /// Say line by line whether a miner speaks the protocol; exit code 1 if it does not.
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// The miner: `http://127.0.0.1:8091` or `127.0.0.1:8091`. A literal address, no name.
    url: String,
    /// The miner's hotkey (SS58); requests are addressed to it.
    #[arg(long, value_name = "SS58")]
    hotkey: Hotkey,
    /// Hotkey file to sign with; default: a key made for this check.
    #[arg(long, value_name = "FILE")]
    sign_with: Option<PathBuf>,
    /// Model to ask chats of.
    #[arg(long, default_value = "smollm2-135m-instruct")]
    chat_model: String,
    /// Model to ask vectors of.
    #[arg(long, default_value = "all-minilm-l6-v2")]
    embedding_model: String,
    /// Pipeline to ask images of; absent, images are not looked at.
    #[arg(long)]
    image_model: Option<String>,
    /// Pipeline to ask avatars of; absent, avatars are not looked at.
    #[arg(long)]
    avatar_model: Option<String>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run<F>(args: Args, config: F) -> Result<(), Failure>
where
    F: FnOnce() -> Result<Config, Failure>,
{
    match args.command {
        Some(Sub::Check(check)) => run_check(check).await,
        None => serve(config()?, None).await,
    }
}

/// Serves until it is asked to stop. A character stands between protocol and model only in the demo.
pub(crate) async fn serve(config: Config, character: Option<Character>) -> Result<(), Failure> {
    let Some(miner) = config.miner.clone() else {
        return Err(Failure::input(
            "the configuration has no [miner] section; docs/protocol.md and docs/operating.md show one",
        ));
    };
    miner.validate().map_err(Failure::input)?;
    let keypair = keys::read_keyfile(&config.identity.hotkey_file).map_err(Failure::input)?;
    let listener = TcpListener::bind(miner.listen).await.map_err(|e| {
        Failure::input(format!(
            "cannot listen on {}: {e}; choose another address with miner.listen",
            miner.listen
        ))
    })?;
    let executors = models(&config, &miner, character).await?;
    let honest: Arc<dyn Backend> = Arc::new(OnnxBackend::new(&executors));
    let backend = character.map_or_else(|| Arc::clone(&honest), |c| c.wrap(Arc::clone(&honest), &executors));
    tracing::info!(hotkey = %keypair.hotkey(), listen = %miner.listen, "miner is running");
    let stop = CancellationToken::new();
    let served = nineteen_miner::serve(miner, listener, backend, keypair, stop.clone());
    tokio::pin!(served);
    let result = tokio::select! {
        done = &mut served => done.map_err(Failure::running),
        asked = asked_to_stop() => {
            stop.cancel();
            let done = served.await.map_err(Failure::running);
            asked.and(done)
        }
    };
    executors.stop().await;
    result
}

async fn models(
    config: &Config,
    miner: &MinerConfig,
    character: Option<Character>,
) -> Result<Executors, Failure> {
    let mut models: Vec<ModelConfig> = Vec::new();
    for model in miner.tasks.values().flat_map(TaskConfig::models) {
        if models.iter().all(|m| m.name != *model) {
            let folder = character.and_then(|c| c.stands_in(model.as_str(), &config.paths.models()));
            let folder = folder.map(ModelName::new).transpose().map_err(Failure::input)?;
            models.push(ModelConfig { name: model.clone(), folder });
        }
    }
    let c = &config.checking;
    let wanted = ExecutorConfig {
        models_dir: config.paths.models(),
        threads_per_model: c.threads_per_model,
        intra_threads: c.intra_threads,
        queue: c.queue,
        models,
    };
    start_executors(runtime(config)?, wanted).await
}

async fn run_check(args: CheckArgs) -> Result<(), Failure> {
    let bare = args.url.strip_prefix("http://").unwrap_or(&args.url).trim_end_matches('/');
    let addr: SocketAddr = bare.parse().map_err(|_| {
        Failure::input(format!(
            "'{}' is not a miner's address; write http://IP:PORT with a literal address",
            args.url
        ))
    })?;
    let keypair = match &args.sign_with {
        Some(file) => keys::read_keyfile(file).map_err(Failure::input)?,
        None => keys::Keypair::generate(),
    };
    let report = nineteen_miner::check::run(nineteen_miner::check::Options {
        addr,
        hotkey: args.hotkey,
        keypair: Arc::new(keypair),
        chat_model: Some(args.chat_model),
        embedding_model: Some(args.embedding_model),
        image_model: args.image_model,
        avatar_model: args.avatar_model,
    })
    .await;
    if args.json {
        print::json(&report)?;
    } else {
        print::out(&report.to_string())?;
    }
    if report.passed() { Ok(()) } else { Err(Failure::running("the miner does not speak the protocol")) }
}
