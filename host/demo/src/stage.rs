//! The folder that the demo plays in: keys, subnet, task set, one configuration a process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nineteen_chain::{LocalSubnet, Rules, Subnet};
use nineteen_domain::calibration;
use nineteen_domain::meet::Neuron;
use nineteen_domain::policy::{Planning, Policy};
use nineteen_domain::{Hotkey, Uid};
use nineteen_wire::keys::create_keyfile;
use toml::{Table, Value};

use crate::cast::CAST;
use crate::play::Options;

/// Where everything is, once it is set up.
pub(crate) struct Stage {
    pub(crate) dir: PathBuf,
    pub(crate) validator_config: PathBuf,
    pub(crate) operator: SocketAddr,
    /// In the order of [`CAST`].
    pub(crate) miners: Vec<Place>,
}

/// A miner's place.
pub(crate) struct Place {
    pub(crate) config: PathBuf,
    pub(crate) addr: SocketAddr,
    pub(crate) hotkey: Hotkey,
}

/// A share of capacity that shows something within a minute: Subnet 19 tests 7 % of an hour.
const SHARE_MULTIPLIER: f64 = 6.0;

/// The longest reply: two cores serve six miners here, and a window needs more than one answer of each.
const MAX_TOKENS: u64 = 32;

pub(crate) fn set(options: &Options) -> Result<Stage> {
    let dir = options.dir.clone();
    for folder in ["keys", "subnet", "logs"] {
        std::fs::create_dir_all(dir.join(folder)).with_context(|| format!("{}", dir.display()))?;
    }
    let ports = free_ports(CAST.len() + 1)?;
    let addr = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let validator = create_keyfile(dir.join("keys/validator"))?.hotkey();
    let mut neurons =
        vec![Neuron { uid: Uid(0), hotkey: validator, axon: None, stake: 10_000.0, validator_permit: true }];
    let mut miners = Vec::with_capacity(CAST.len());
    for ((role, port), uid) in CAST.iter().zip(ports.iter().skip(1)).zip(1_u16..) {
        let hotkey = create_keyfile(dir.join("keys").join(role.kind))?.hotkey();
        let addr = addr(*port);
        neurons.push(Neuron { uid: Uid(uid), hotkey, axon: Some(addr), stake: 0.0, validator_permit: false });
        miners.push(Place { config: dir.join(format!("{}.toml", role.kind)), addr, hotkey });
    }
    // Weights of a demo are set every period, not every 20 minutes.
    let rules = Rules { weights_rate_limit: 0, ..Rules::default() };
    let subnet =
        Subnet { netuid: 19, owner: None, blocks: nineteen_chain::Blocks::default(), rules, neurons };
    LocalSubnet::create(&dir.join("subnet"), &subnet)?;
    let played = write_taskset(options, &dir)?;
    let operator = addr(*ports.first().context("no free port")?);
    let validator_config = dir.join("nineteen.toml");
    write(&validator_config, &validator_toml(options, operator))?;
    for (role, place) in CAST.iter().zip(&miners) {
        write(&place.config, &miner_toml(options, role, place.addr, validator, &played))?;
    }
    Ok(Stage { dir, validator_config, operator, miners })
}

/// How probes lie, whatever the policy: as `default` has it, with a share that shows something within a minute.
pub(crate) fn planning() -> Planning {
    Planning { share_multiplier: SHARE_MULTIPLIER, ..Policy::default_rules().planning }
}

/// The subnet's own task set with the demo's policy and short replies; tasks and weights stay as they are. Returns the
/// tasks' names.
fn write_taskset(options: &Options, dir: &Path) -> Result<Vec<String>> {
    let file = &options.taskset;
    let mut set = read(file)?;
    let mut played = Vec::new();
    let base = std::path::absolute(file)?.parent().map(Path::to_owned).unwrap_or_default();
    if let Some(Value::Array(tasks)) = set.get_mut("task") {
        for task in tasks {
            if let Some(Value::String(folder)) = task.as_table_mut().and_then(|t| t.get_mut("folder")) {
                let mut manifest = read(&base.join(&*folder).join("task.toml"))?;
                if let Some(Value::Table(params)) = manifest.get_mut("params")
                    && params.contains_key("max_tokens_cap")
                {
                    params.insert("max_tokens_cap".into(), int(MAX_TOKENS));
                    params.insert("default_max_tokens".into(), int(MAX_TOKENS));
                }
                if let Some(Value::String(name)) = manifest.get("name") {
                    played.push(name.clone());
                }
                let name = Path::new(&*folder).file_name().context("a task's folder has no name")?;
                let copy = dir.join("tasks").join(name);
                std::fs::create_dir_all(&copy).with_context(|| format!("{}", copy.display()))?;
                write(&copy.join("task.toml"), &manifest)?;
                let calibration = base.join(&*folder).join(calibration::FILE);
                if calibration.is_file() {
                    std::fs::copy(&calibration, copy.join(calibration::FILE))
                        .with_context(|| format!("{}", calibration.display()))?;
                }
                *folder = copy.display().to_string();
            }
        }
    }
    let mut policy = options.policy.clone();
    policy.planning = planning();
    set.insert("policy".into(), Value::try_from(policy)?);
    set.remove("share_multiplier");
    write(&dir.join("taskset.toml"), &set)?;
    Ok(played)
}

fn read(file: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    text.parse().with_context(|| format!("{}", file.display()))
}

fn validator_toml(options: &Options, operator: SocketAddr) -> Table {
    let mut root = common(options, "keys/validator");
    let mut v = Table::new();
    v.insert("period_s".into(), int(options.period_s));
    v.insert("grace_s".into(), int(options.period_s));
    v.insert("listen".into(), operator.to_string().into());
    // All miners share this machine with the validator: more at once would measure the others' work.
    v.insert("max_in_flight".into(), int(8));
    v.insert("max_in_flight_per_miner".into(), int(2));
    v.insert("judges".into(), int(1));
    v.insert("allow_private_miners".into(), true.into());
    root.insert("validator".into(), v.into());
    root
}

fn miner_toml(
    options: &Options,
    role: &crate::cast::Role,
    addr: SocketAddr,
    validator: Hotkey,
    played: &[String],
) -> Table {
    let mut root = common(options, &format!("keys/{}", role.kind));
    let mut chat = Table::new();
    chat.insert("operation".into(), "chat.completions".into());
    chat.insert("model".into(), "smollm2-135m-instruct".into());
    chat.insert("capacity_per_hour".into(), f64::from(role.chat_per_hour).into());
    if let Some(pace) = role.pace {
        chat.insert("pace_tokens_per_s".into(), f64::from(pace).into());
    }
    let mut vectors = Table::new();
    vectors.insert("operation".into(), "embeddings".into());
    vectors.insert("model".into(), "all-minilm-l6-v2".into());
    vectors.insert("capacity_per_hour".into(), f64::from(role.vectors_per_hour).into());
    let mut images = Table::new();
    images.insert("operation".into(), "images.generations".into());
    images.insert("model".into(), "world-scenes".into());
    images.insert("safety".into(), "world-safety".into());
    images.insert("capacity_per_hour".into(), f64::from(role.steps_per_hour).into());
    let mut avatars = images.clone();
    avatars.insert("operation".into(), "avatars".into());
    avatars.insert("model".into(), "world-portraits".into());
    avatars.insert("detect".into(), "world-faces".into());
    avatars.insert("identify".into(), "world-identity".into());
    if let Some(pace) = role.pace {
        for pictures in [&mut images, &mut avatars] {
            pictures.insert("pace_tokens_per_s".into(), f64::from(pace).into());
        }
    }
    let mut tasks = Table::new();
    let served = [
        ("chat-smollm2-135m", chat),
        ("embed-minilm-l6", vectors),
        ("image-world-scenes", images),
        ("avatar-world-portraits", avatars),
    ];
    // What the set does not name is not announced, and its models are not loaded.
    for (name, mut task) in served.into_iter().filter(|(name, _)| played.iter().any(|p| p == name)) {
        if let Some(most) = role.requests_per_minute {
            task.insert("requests_per_minute".into(), f64::from(most).into());
            // A whole period is a minute here: what was saved up between windows would fill one.
            task.insert("burst_s".into(), int(1));
        }
        tasks.insert(name.into(), task.into());
    }
    let mut miner = Table::new();
    miner.insert("listen".into(), addr.to_string().into());
    miner.insert("allowed_validators".into(), Value::Array(vec![validator.to_string().into()]));
    miner.insert("tasks".into(), tasks.into());
    root.insert("miner".into(), miner.into());
    root
}

fn common(options: &Options, key: &str) -> Table {
    let text = |p: &Path| Value::from(p.display().to_string());
    let mut paths = Table::new();
    paths.insert("cache".into(), text(&options.cache));
    paths.insert("taskset".into(), "taskset.toml".into());
    paths.insert("data".into(), "data".into());
    let mut identity = Table::new();
    identity.insert("hotkey_file".into(), key.into());
    let mut subnet = Table::new();
    subnet.insert("folder".into(), "subnet".into());
    let mut root = Table::new();
    root.insert("paths".into(), paths.into());
    root.insert("identity".into(), identity.into());
    root.insert("subnet".into(), subnet.into());
    root
}

fn int(n: u64) -> Value {
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

fn write(file: &Path, table: &Table) -> Result<()> {
    std::fs::write(file, toml::to_string(table)?).with_context(|| format!("{}", file.display()))
}

/// Ports that are free now. All are held until all are known, so that none is given twice.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    Ok(held.iter().map(|l| l.local_addr().map(|a| a.port())).collect::<Result<_, _>>()?)
}
