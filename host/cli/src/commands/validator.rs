//! `nineteen validator`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nineteen_chain::LocalSubnet;
use nineteen_checking::{
    ExecutorConfig, Executors, Fleet, Runtime, RuntimeConfig, answers_as_known, quarantined,
};
use nineteen_domain::meet::{BoxFuture, Chain, Checker};
use nineteen_domain::policy::Policy;
use nineteen_domain::task::{Manifest, TaskSet};
use nineteen_domain::{Digest, MasterSeed, ModelName, TaskName};
use nineteen_gateway::{Api, Token};
use nineteen_miner::Operation;
use nineteen_sandbox::{Sandbox, SandboxConfig};
use nineteen_store::{Options, Retention, Store};
use nineteen_validator::registrar::{Generation, Ground, Registrar, Setup, Shelf, identity};
use nineteen_validator::registry::{self, Declared, Tasks};
use nineteen_validator::report::Reports;
use nineteen_validator::{
    ControlMiner, Parts, Settings, SystemClock, Validator, ValidatorError, control_key,
};
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
    let configured = (config.paths.taskset.clone(), config.paths.components());
    let shelf = Shelf::new(config.paths.live());
    let base = identity(&configured.0, &configured.1).map_err(Failure::input)?;
    let generation = run_what_is_live(&mut config, &shelf, &base)?;
    let (set, declared) = registry::read_set(&config.paths.taskset).map_err(Failure::input)?;
    let policy = policy_of(&config, &set)?;
    let chain = LocalSubnet::open(&config.subnet.folder).map_err(Failure::input)?;
    // Whoever reaches the port while models load finds the token, and waits for the answer.
    let token = Token::create(&config.paths.token()).map_err(Failure::input)?;
    let netuid = chain.metagraph().await.map_err(Failure::input)?.netuid;
    let block_us = chain.head().await.map_err(Failure::input)?.block_us;
    let store = Store::open(&config.paths.data, store_options(&config)).map_err(Failure::input)?;
    let sandbox = Arc::new(sandbox(&config)?);
    let secret = store.master_seed().map_err(Failure::input)?;
    let tasks = load_tasks(&config, &sandbox, &secret).await?;
    hold_calibrations(&config, &tasks)?;
    let runtime = runtime(&config)?;
    let models = models_of(&declared);
    let executors = executors(&config, Arc::clone(&runtime), models.clone()).await?;
    let checker = executors.checker();
    check_kinds(&tasks, &checker.kinds()).map_err(Failure::input)?;
    let checker = quarantined(Arc::clone(&checker), not_as_known(&tasks, checker.as_ref()).await);
    let backend = Arc::new(nineteen_miner::OnnxBackend::new(&executors));
    let fleet = Arc::new(Fleet::new(executors, checker, models.into_iter().collect()));

    let mut client = ClientConfig::new(Arc::clone(&keypair));
    let loopback = Client::new(ClientConfig { allow_private: true, ..client.clone() });
    client.allow_private = config.validator.allow_private_miners;
    let v = &config.validator;
    let validator = Validator::new(Parts {
        tasks,
        store: store.clone(),
        client: Client::new(client),
        chain: Arc::new(chain),
        checker: Arc::clone(&fleet) as Arc<dyn Checker>,
        clock: Arc::new(SystemClock),
        policy: policy.clone(),
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
    let board = validator.board();
    let reports = Reports::running(store.clone(), Arc::clone(&board), validator.live());
    let again = Again { policy: policy.clone(), asked: Arc::default() };
    let ground = Standing { config: config.clone(), runtime, fleet: Arc::clone(&fleet), policy };
    let setup = Setup {
        board,
        sandbox,
        secret: secret.clone(),
        ground: Arc::new(ground),
        clock: Arc::new(SystemClock),
        shelf,
        components: configured.1,
        follows: config.subnet.source.clone(),
    };
    let started =
        tokio::task::spawn_blocking(move || Registrar::start(setup, generation, base, &configured.0));
    let registrar = started.await.map_err(Failure::running)?.map_err(Failure::input)?;
    let registrar = Arc::new(registrar);
    let api = Api { reports, registrar: Arc::clone(&registrar), token: Arc::new(token) };
    tracing::info!(hotkey = %keypair.hotkey(), listen = %v.listen, period_s = v.period_s, "validator is running");

    let stop = CancellationToken::new();
    let (loop_stop, api_stop) = (stop.clone(), stop.clone());
    let mut parts = tokio::task::JoinSet::new();
    if v.control_every_s > 0 {
        run_control_miner(&mut parts, backend, &validator, loopback, &secret, v.control_every_s, &stop)
            .await?;
    }
    if let Some((follower, _)) = followed {
        let (config, registrar) = (config.clone(), Arc::clone(&registrar));
        parts.spawn(subnet::follow(follower, config, registrar, again.clone(), stop.clone()));
    }
    if let Some(health) = validator.health(registrar) {
        let watching = stop.clone();
        parts.spawn(async move { health.run(watching).await.map_err(Failure::running) });
    }
    parts.spawn(async move { validator.run(loop_stop).await.map_err(Failure::running) });
    parts.spawn(
        async move { nineteen_gateway::serve(listener, api, api_stop).await.map_err(Failure::running) },
    );
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
    fleet.stop().await;
    store.close().map_err(Failure::running)?;
    result?;
    if again.asked.load(Ordering::Relaxed) { Err(start_again()) } else { Ok(()) }
}

/// Whether this process is to begin anew once it has stopped, because a set with another policy is in force.
#[derive(Clone)]
pub(crate) struct Again {
    policy: Policy,
    asked: Arc<AtomicBool>,
}

impl Again {
    /// Asks for it if the set that this configuration names has another policy than the one that runs; says whether it did.
    pub(crate) fn asked_by(&self, config: &Config) -> bool {
        let wanted =
            registry::read_set(&config.paths.taskset).ok().and_then(|(set, _)| policy_of(config, &set).ok());
        let other = wanted.is_some_and(|policy| policy != self.policy);
        if other {
            self.asked.store(true, Ordering::Relaxed);
        }
        other
    }
}

/// Becomes the same program with the same arguments: a policy is in everything that a validator computes, so it is taken up
/// whole, by the same way as after a crash. Comes back only with an error; whoever watches the process starts it then.
fn start_again() -> Failure {
    use std::os::unix::process::CommandExt as _;
    let mut arguments = std::env::args_os();
    let called = arguments.next();
    let program = std::env::current_exe().ok().filter(|exe| exe.is_file());
    let Some(program) = program.map(std::path::PathBuf::into_os_string).or(called) else {
        return Failure::running("cannot start again by itself: start it, to settle under the new policy");
    };
    let error = std::process::Command::new(program).args(arguments).exec();
    Failure::running(format!(
        "cannot start again by itself ({error}): start it, to settle under the new policy"
    ))
}

/// Puts the live generation in place of the tasks of this identity that are configured, where one was made of them.
fn run_what_is_live(
    config: &mut Config,
    shelf: &Shelf,
    base: &Digest,
) -> Result<Option<Generation>, Failure> {
    let generation = shelf.current_of(base).map_err(Failure::input)?;
    if let Some(g) = &generation {
        config.paths.taskset = shelf.taskset(g.number);
    }
    Ok(generation)
}

/// The configuration with the tasks as the validator runs them, or ran them last.
pub(crate) fn as_it_runs(mut config: Config) -> Result<Config, Failure> {
    let shelf = Shelf::new(config.paths.live());
    if config.paths.taskset.is_file() {
        let base = identity(&config.paths.taskset, &config.paths.components()).map_err(Failure::input)?;
        run_what_is_live(&mut config, &shelf, &base)?;
    }
    Ok(config)
}

/// What tasks stand on in this process: models, and the policy that it settles under.
struct Standing {
    config: Config,
    runtime: Arc<Runtime>,
    fleet: Arc<Fleet>,
    policy: Policy,
}

impl Standing {
    /// Loads models that are not served yet. One that does not answer as its task knows it is not taken in.
    async fn serve(&self, tasks: &Tasks) -> Result<(), ValidatorError> {
        let wanted = granted(tasks);
        let served = self.fleet.models();
        let missing: Vec<ModelName> = wanted.difference(&served).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let asking = |model: &ModelName| {
            tasks.by_name.values().find(|t| t.manifest.grants.values().flatten().any(|m| m == model))
        };
        let of = |model: Option<&ModelName>, why: String| match model.and_then(asking) {
            Some(task) => ValidatorError::Checks { task: task.manifest.name.clone(), why },
            None => ValidatorError::Part { part: "executors", why },
        };
        tracing::info!(models = ?missing.iter().map(ModelName::as_str).collect::<Vec<_>>(), "loading models");
        let started = executors(&self.config, Arc::clone(&self.runtime), missing.clone()).await;
        let executors = started.map_err(|e| of(missing.first(), e.to_string()))?;
        let checker = executors.checker();
        let wrong = not_as_known(tasks, checker.as_ref()).await;
        if let Some((model, why)) = wrong.into_iter().find(|(model, _)| missing.contains(model)) {
            executors.stop().await;
            return Err(of(
                Some(&model),
                format!("the model '{model}' does not answer as it should here: {why}"),
            ));
        }
        self.fleet.join(executors, checker, missing.into_iter().collect());
        Ok(())
    }
}

impl Ground for Standing {
    fn prepare<'a>(&'a self, tasks: &'a Tasks) -> BoxFuture<'a, Result<(), ValidatorError>> {
        Box::pin(async move {
            let policy = policy_of(&self.config, &tasks.set)
                .map_err(|e| ValidatorError::Part { part: "policy", why: e.to_string() })?;
            if policy != self.policy {
                let why = "it has another policy: start the validator again to settle under it".into();
                return Err(ValidatorError::Part { part: "change of tasks", why });
            }
            let models = self.config.paths.models();
            registry::hold_calibrations(tasks, |model| {
                nineteen_checking::identity(&models, model).map(|(identity, _)| identity)
            })?;
            self.serve(tasks).await?;
            check_kinds(tasks, &self.fleet.kinds())
        })
    }

    fn let_go(&self, still_asked: &[Arc<Tasks>]) {
        let wanted = still_asked.iter().flat_map(|tasks| granted(tasks)).collect();
        let fleet = Arc::clone(&self.fleet);
        // It waits for passes under way; nobody waits for it, and the process ends without it.
        let gone = move || {
            for model in fleet.let_go(&wanted) {
                tracing::info!(%model, "the model is not asked for any more");
            }
        };
        drop(tokio::task::spawn_blocking(gone));
    }
}

/// Models that the tasks are granted.
fn granted(tasks: &Tasks) -> BTreeSet<ModelName> {
    tasks.by_name.values().flat_map(|t| t.manifest.grants.values().flatten().cloned()).collect()
}

type PartsRunning = tokio::task::JoinSet<Result<(), Failure>>;

/// Serves our own miner on loopback and asks it now and then.
async fn run_control_miner(
    parts: &mut PartsRunning,
    backend: Arc<nineteen_miner::OnnxBackend>,
    validator: &Validator,
    client: Client,
    secret: &MasterSeed,
    every_s: u64,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let board = validator.board();
    let tasks = board.now();
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
    let serving = stop.clone();
    parts.spawn(async move {
        nineteen_miner::serve(config, listener, backend, keypair, serving).await.map_err(Failure::running)
    });
    let control = ControlMiner {
        tasks: board,
        serves: tasks,
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
    let sandbox = Sandbox::new(sandbox_config(config)).map_err(Failure::input)?;
    // A program that does not know where it lies compiles by itself.
    Ok(match std::env::current_exe() {
        Ok(program) => sandbox.with_compiler(program),
        Err(_) => sandbox,
    })
}

pub(crate) fn sandbox_config(config: &Config) -> SandboxConfig {
    SandboxConfig {
        cache_dir: config.paths.cache.join("compiled"),
        max_component_bytes: MOST_COMPONENT_BYTES,
        compile_timeout: COMPILE_TIMEOUT,
        max_concurrent_calls: CALLS_AT_ONCE,
        host_version: registry::host_version(),
    }
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
fn check_kinds(tasks: &Tasks, served: &[(String, Vec<String>)]) -> Result<(), ValidatorError> {
    for (name, task) in &tasks.by_name {
        task.plugin
            .hold_checks(served)
            .map_err(|e| ValidatorError::Checks { task: name.clone(), why: e.to_string() })?;
    }
    Ok(())
}
