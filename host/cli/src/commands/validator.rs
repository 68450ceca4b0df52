//! `nineteen validator`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nineteen_chain::LocalSubnet;
use nineteen_checking::{ExecutorConfig, Executors, Runtime, RuntimeConfig};
use nineteen_domain::meet::Chain;
use nineteen_domain::policy::Policy;
use nineteen_domain::task::TaskSet;
use nineteen_domain::{ModelName, TaskName};
use nineteen_sandbox::{Sandbox, SandboxConfig};
use nineteen_store::{Options, Retention, Store};
use nineteen_validator::registry::{self, Declared, Tasks};
use nineteen_validator::report::Reports;
use nineteen_validator::{Parts, Settings, SystemClock, Validator};
use nineteen_wire::client::{Client, ClientConfig};
use nineteen_wire::keys;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Failure;

/// Components from interpreters have some 18 MB.
const MOST_COMPONENT_BYTES: u64 = 64 << 20;
const COMPILE_TIMEOUT: Duration = Duration::from_secs(180);
const CALLS_AT_ONCE: u32 = 64;
const DAY_US: u64 = 86_400_000_000;

/// Run the validator until it is asked to stop.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, config: Config) -> Result<(), Failure> {
    // Cheap things first: whatever is wrong with what we were given shows before a model loads.
    let listener = nineteen_gateway::bind(config.validator.listen).await.map_err(Failure::input)?;
    let keypair = Arc::new(keys::read_keyfile(&config.identity.hotkey_file).map_err(Failure::input)?);
    let (set, declared) = registry::read_set(&config.paths.taskset).map_err(Failure::input)?;
    let policy = policy_of(&config, &set)?;
    let chain = LocalSubnet::open(&config.subnet.folder).map_err(Failure::input)?;
    let netuid = chain.metagraph().await.map_err(Failure::input)?.netuid;
    let block_us = chain.head().await.map_err(Failure::input)?.block_us;
    let store = Store::open(&config.paths.data, store_options(&config)).map_err(Failure::input)?;
    let sandbox = sandbox(&config)?;
    let secret = store.master_seed().map_err(Failure::input)?;
    let tasks = load_tasks(&config, &sandbox, &secret).await?;
    let runtime = runtime(&config)?;
    let executors = executors(&config, runtime, models_of(&declared)).await?;
    let checker = executors.checker();
    check_kinds(&tasks, &checker.kinds())?;

    let mut client = ClientConfig::new(Arc::clone(&keypair));
    client.allow_private = config.validator.allow_private_miners;
    let v = &config.validator;
    let validator = Validator::new(Parts {
        tasks,
        store: store.clone(),
        client: Client::new(client),
        chain: Arc::new(chain),
        checker,
        clock: Arc::new(SystemClock),
        policy,
        settings: Settings {
            period_s: v.period_s,
            grace_s: v.grace_s,
            max_in_flight: v.max_in_flight,
            max_in_flight_per_miner: v.max_in_flight_per_miner,
            judges: v.judges,
            max_backlog: v.max_backlog,
            netuid,
            block_us,
        },
    })
    .map_err(Failure::running)?;
    let reports = Reports::running(store.clone(), &validator.tasks(), validator.live());
    tracing::info!(hotkey = %keypair.hotkey(), listen = %v.listen, period_s = v.period_s, "validator is running");

    let stop = CancellationToken::new();
    let (loop_stop, api_stop) = (stop.clone(), stop.clone());
    let mut parts = tokio::task::JoinSet::new();
    parts.spawn(async move { validator.run(loop_stop).await.map_err(Failure::running) });
    parts.spawn(async move {
        nineteen_gateway::serve(listener, reports, api_stop).await.map_err(Failure::running)
    });
    let result = tokio::select! {
        first = parts.join_next() => flatten(first),
        asked = asked_to_stop() => asked,
    };
    stop.cancel();
    tracing::info!("stopping; what is under way may finish (ask again to stop at once)");
    let rest = async {
        let mut result = result;
        while let Some(part) = parts.join_next().await {
            result = result.and(flatten(Some(part)));
        }
        result
    };
    let result = tokio::select! {
        result = rest => result,
        _ = asked_to_stop() => Ok(()),
    };
    executors.stop().await;
    store.close().map_err(Failure::running)?;
    result
}

fn flatten(part: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Result<(), Failure> {
    match part {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(e)) => Err(Failure::running(format!("a part of the validator failed: {e}"))),
    }
}

/// SIGINT or SIGTERM.
pub(crate) async fn asked_to_stop() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Failure::running(format!("signals cannot be heard: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.map_err(failed),
        _ = term.recv() => Ok(()),
    }
}

/// The set's policy with its multiplier.
fn policy_of(config: &Config, set: &TaskSet) -> Result<Policy, Failure> {
    let mut policy = set.policy.policy().ok_or_else(|| {
        let (file, name) = (config.paths.taskset.clone(), set.policy.name().to_owned());
        Failure::input(nineteen_validator::ValidatorError::Policy { file, name })
    })?;
    policy.planning.share_multiplier = set.share_multiplier.unwrap_or(policy.planning.share_multiplier);
    Ok(policy)
}

pub(crate) fn store_options(config: &Config) -> Options {
    let defaults = Options::default();
    let keep = |r: Retention| Retention {
        max_age_us: config.validator.keep_exchanges_days.saturating_mul(DAY_US),
        ..r
    };
    Options { exchanges: keep(defaults.exchanges), evidence: keep(defaults.evidence), ..defaults }
}

pub(crate) fn sandbox(config: &Config) -> Result<Sandbox, Failure> {
    Sandbox::new(SandboxConfig {
        cache_dir: config.paths.cache.join("compiled"),
        max_component_bytes: MOST_COMPONENT_BYTES,
        compile_timeout: COMPILE_TIMEOUT,
        max_concurrent_calls: CALLS_AT_ONCE,
        host_version: registry::host_version(),
    })
    .map_err(Failure::input)
}

pub(crate) async fn load_tasks(
    config: &Config,
    sandbox: &Sandbox,
    secret: &nineteen_domain::MasterSeed,
) -> Result<Tasks, Failure> {
    registry::load(&config.paths.taskset, &config.paths.components(), sandbox, secret)
        .await
        .map_err(Failure::input)
}

pub(crate) fn runtime(config: &Config) -> Result<Arc<Runtime>, Failure> {
    Runtime::load(&RuntimeConfig {
        library: config.checking.library.clone(),
        cache_onnxruntime_dir: config.paths.cache.join("onnxruntime"),
        providers: config.checking.providers.clone(),
    })
    .map_err(Failure::input)
}

/// Models that the tasks are granted, each once.
pub(crate) fn models_of(declared: &[Declared]) -> Vec<ModelName> {
    let all: BTreeSet<&ModelName> =
        declared.iter().flat_map(|d| d.manifest.grants.values().flatten()).collect();
    all.into_iter().cloned().collect()
}

/// Loads the models, off the async runtime: it takes seconds.
pub(crate) async fn executors(
    config: &Config,
    runtime: Arc<Runtime>,
    models: Vec<ModelName>,
) -> Result<Executors, Failure> {
    let c = &config.checking;
    let wanted = ExecutorConfig {
        models_dir: config.paths.models(),
        threads_per_model: c.threads_per_model,
        intra_threads: c.intra_threads,
        queue: c.queue,
        models: models.into_iter().map(Into::into).collect(),
    };
    start_executors(runtime, wanted).await
}

/// The same, for whoever makes the configuration.
pub(crate) async fn start_executors(
    runtime: Arc<Runtime>,
    wanted: ExecutorConfig,
) -> Result<Executors, Failure> {
    tokio::task::spawn_blocking(move || Executors::start(runtime, wanted))
        .await
        .map_err(|e| Failure::running(format!("the models' thread failed: {e}")))?
        .map_err(Failure::input)
}

/// Every check that a task may ask for is one that this host serves.
fn check_kinds(tasks: &Tasks, served: &[(String, Vec<String>)]) -> Result<(), Failure> {
    let refuse = |task: &TaskName, why: String| {
        Failure::input(nineteen_validator::ValidatorError::Checks { task: task.clone(), why })
    };
    for (name, task) in &tasks.by_name {
        for (kind, models) in &task.manifest.grants {
            let Some((_, known)) = served.iter().find(|(k, _)| k == kind) else {
                return Err(refuse(name, format!("check kind {kind} is not known here")));
            };
            if let Some(missing) = models.iter().find(|m| !known.iter().any(|k| k == m.as_str())) {
                return Err(refuse(name, format!("model {missing} does not answer {kind} here")));
            }
        }
    }
    Ok(())
}
