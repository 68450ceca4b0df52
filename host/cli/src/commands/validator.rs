//! `nineteen validator`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nineteen_chain::LocalSubnet;
use nineteen_checking::{ExecutorConfig, Executors, Runtime, RuntimeConfig, answers_as_known, quarantined};
use nineteen_domain::meet::{Chain, Checker};
use nineteen_domain::policy::Policy;
use nineteen_domain::task::{Manifest, TaskSet};
use nineteen_domain::{MasterSeed, ModelName, TaskName};
use nineteen_miner::Operation;
use nineteen_sandbox::{Sandbox, SandboxConfig};
use nineteen_store::{Options, Retention, Store};
use nineteen_validator::registry::{self, Declared, Tasks};
use nineteen_validator::report::Reports;
use nineteen_validator::{ControlMiner, Parts, Settings, SystemClock, Validator, control_key};
use nineteen_wire::client::{Client, ClientConfig};
use nineteen_wire::keys;
use tokio_util::sync::CancellationToken;

use crate::commands::subnet;
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

pub(crate) async fn run(_: Args, mut config: Config) -> Result<(), Failure> {
    // Cheap things first: whatever is wrong with what we were given shows before a model loads.
    let listener = nineteen_gateway::bind(config.validator.listen).await.map_err(Failure::input)?;
    let keypair = Arc::new(keys::read_keyfile(&config.identity.hotkey_file).map_err(Failure::input)?);
    let followed = subnet::follow_at_start(&config).await?;
    if let Some((_, in_force)) = &followed {
        subnet::run_what_is_in_force(&mut config, in_force);
    }
    let (set, declared) = registry::read_set(&config.paths.taskset).map_err(Failure::input)?;
    let policy = policy_of(&config, &set)?;
    let chain = LocalSubnet::open(&config.subnet.folder).map_err(Failure::input)?;
    let netuid = chain.metagraph().await.map_err(Failure::input)?.netuid;
    let block_us = chain.head().await.map_err(Failure::input)?.block_us;
    let store = Store::open(&config.paths.data, store_options(&config)).map_err(Failure::input)?;
    let sandbox = sandbox(&config)?;
    let secret = store.master_seed().map_err(Failure::input)?;
    let tasks = load_tasks(&config, &sandbox, &secret).await?;
    hold_calibrations(&config, &tasks)?;
    let runtime = runtime(&config)?;
    let executors = executors(&config, runtime, models_of(&declared)).await?;
    let checker = executors.checker();
    check_kinds(&tasks, &checker.kinds())?;
    let checker = quarantined(Arc::clone(&checker), not_as_known(&tasks, checker.as_ref()).await);

    let mut client = ClientConfig::new(Arc::clone(&keypair));
    let loopback = Client::new(ClientConfig { allow_private: true, ..client.clone() });
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
    if v.control_every_s > 0 {
        run_control_miner(&mut parts, &executors, &validator, loopback, &secret, v.control_every_s, &stop)
            .await?;
    }
    if let Some((follower, _)) = followed {
        parts.spawn(subnet::follow(follower, config.clone(), stop.clone()));
    }
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

type PartsRunning = tokio::task::JoinSet<Result<(), Failure>>;

/// Serves our own miner on loopback and asks it now and then.
async fn run_control_miner(
    parts: &mut PartsRunning,
    executors: &Executors,
    validator: &Validator,
    client: Client,
    secret: &MasterSeed,
    every_s: u64,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let tasks = validator.tasks();
    let served: BTreeMap<TaskName, nineteen_miner::TaskConfig> = tasks
        .by_name
        .iter()
        .filter_map(|(name, task)| Some((name.clone(), served_by_reference(&task.manifest)?)))
        .collect();
    if served.is_empty() {
        return Ok(());
    }
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.map_err(Failure::running)?;
    let addr = listener.local_addr().map_err(Failure::running)?;
    let keypair = control_key(secret);
    let hotkey = keypair.hotkey();
    let mut config = nineteen_miner::MinerConfig::serving(addr, served);
    config.allowed_validators = Some(vec![client.hotkey()]);
    let backend = Arc::new(nineteen_miner::OnnxBackend::new(executors));
    let serving = stop.clone();
    parts.spawn(async move {
        nineteen_miner::serve(config, listener, backend, keypair, serving).await.map_err(Failure::running)
    });
    let control = ControlMiner {
        tasks,
        judge: validator.judge(),
        client,
        addr,
        hotkey,
        secret: secret.clone(),
        every: Duration::from_secs(every_s),
    };
    let asking = stop.clone();
    parts.spawn(async move { control.run(asking).await.map_err(Failure::running) });
    tracing::info!(%hotkey, every_s, "the control miner is running");
    Ok(())
}

/// How the reference miner serves a task; `None` for work that it does not do.
pub(crate) fn served_by_reference(manifest: &Manifest) -> Option<nineteen_miner::TaskConfig> {
    let operation = manifest.operation.as_str();
    let operation = Operation::ALL.into_iter().find(|o| o.as_str() == operation)?;
    let granted = |kind: &str| manifest.grants.get(kind).and_then(|models| models.first()).cloned();
    let model = match operation {
        Operation::Chat => granted("text.replay"),
        Operation::Embeddings => granted("embedding.embed"),
        Operation::Images | Operation::Avatars => granted("image.generate"),
    };
    let mut served = nineteen_miner::TaskConfig::one_at_a_time(operation, model?);
    if matches!(operation, Operation::Images | Operation::Avatars) {
        served.safety = granted("vision.classify");
    }
    if operation == Operation::Avatars {
        // The face's model comes first among those of its kind; the others describe pictures.
        (served.detect, served.identify) = (granted("vision.faces"), granted("vision.embed"));
    }
    Some(served)
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

/// Models that do not answer their golden checks, and how far they are off. A validator runs on without them.
pub(crate) async fn not_as_known(tasks: &Tasks, checker: &dyn Checker) -> BTreeMap<ModelName, String> {
    let mut wrong = BTreeMap::new();
    for task in tasks.by_name.values() {
        let Some(c) = &task.calibration else { continue };
        let Some(golden) = &c.golden else { continue };
        if let Err(why) = answers_as_known(checker, &c.model.name, golden).await {
            tracing::error!(model = %c.model.name, why, "the model is in quarantine: its tasks are inconclusive");
            wrong.insert(c.model.name.clone(), why);
        }
    }
    wrong
}

/// Every calibration is of the model that is served.
pub(crate) fn hold_calibrations(config: &Config, tasks: &Tasks) -> Result<(), Failure> {
    let models = config.paths.models();
    let identity =
        |model: &ModelName| nineteen_checking::identity(&models, model).map(|(identity, _)| identity);
    registry::hold_calibrations(tasks, identity).map_err(Failure::input)
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
