//! One TOML file, environment overrides, and not a key that is silently ignored (invariant 9).
//!
//! Order, later wins: defaults, the file, variables `NINETEEN__SECTION__KEY`. An unknown key is an error
//! that names the nearest known one. Relative paths are relative to the file's folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use nineteen_checking::Provider;
use nineteen_domain::Hotkey;
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// Prefix of environment overrides: `NINETEEN__VALIDATOR__PERIOD_S=60`.
pub(crate) const ENV_PREFIX: &str = "NINETEEN__";

/// The whole configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where things are.
    pub paths: Paths,
    /// Who we are.
    pub identity: Identity,
    /// The subnet.
    pub subnet: Subnet,
    /// The executors that check.
    pub checking: Checking,
    /// The validator.
    pub validator: Validator,
    /// Registries that tasks are published to and pulled from.
    pub oci: nineteen_oci::Settings,
    /// The reference miner; needed by `nineteen miner` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miner: Option<nineteen_miner::MinerConfig>,
}

/// Where things are. Empty means: inside the cache that `cargo xtask setup` fills.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Paths {
    /// The cache; default `$NINETEEN_CACHE`, else the user's cache folder.
    pub cache: PathBuf,
    /// Components by name; default `<cache>/components`.
    pub components: Option<PathBuf>,
    /// Models by name; default `<cache>/models`.
    pub models: Option<PathBuf>,
    /// The task set.
    pub taskset: PathBuf,
    /// What the validator keeps: scores, exchanges, its seed.
    pub data: PathBuf,
    /// Where the validator keeps every version of the tasks that it ran, and the operator's token; default: the name of `data`
    /// with `-live` after it.
    pub live: Option<PathBuf>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            cache: default_cache(),
            components: None,
            models: None,
            taskset: "tasks/taskset.toml".into(),
            data: "data".into(),
            live: None,
        }
    }
}

impl Paths {
    pub(crate) fn components(&self) -> PathBuf {
        self.components.clone().unwrap_or_else(|| self.cache.join("components"))
    }
    /// Not inside of `data`: that folder is the store's alone.
    pub(crate) fn live(&self) -> PathBuf {
        self.live.clone().unwrap_or_else(|| {
            let mut name = self.data.file_name().unwrap_or("data".as_ref()).to_owned();
            name.push("-live");
            self.data.with_file_name(name)
        })
    }
    pub(crate) fn token(&self) -> PathBuf {
        self.live().join("operator.token")
    }
    pub(crate) fn models(&self) -> PathBuf {
        self.models.clone().unwrap_or_else(|| self.cache.join("models"))
    }
}

/// `$NINETEEN_CACHE`, else `$XDG_CACHE_HOME/nineteen`, else `$HOME/.cache/nineteen`; xtask has the same rule.
pub(crate) fn default_cache() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("NINETEEN_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("nineteen")))
        .or_else(|| var("HOME").map(|p| p.join(".cache/nineteen")))
        .unwrap_or_else(|| PathBuf::from(".cache/nineteen"))
}

/// Who we are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Identity {
    /// Hotkey file: 0x-hex seed, or bittensor's JSON keyfile; mode 0600.
    pub hotkey_file: PathBuf,
}

impl Default for Identity {
    fn default() -> Self {
        Self { hotkey_file: "hotkey".into() }
    }
}

/// The subnet, and how its owner's task sets are followed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Subnet {
    /// Folder of the file-backed local subnet.
    pub folder: PathBuf,
    /// Where signed task sets come from: a folder or `https://…`. Without one, `paths.taskset` is run as it is.
    pub source: Option<String>,
    /// Folder in which the follower keeps sets and what it knows; beside `paths.data`, which is the store's alone.
    pub followed: PathBuf,
    /// The subnet's name in its sets; another one is never followed.
    pub name: Option<String>,
    /// Owner keys trusted at first.
    pub keys: Vec<Hotkey>,
    /// How many of them have to sign; has to be said where there are keys.
    pub threshold: u32,
    /// Seconds between two looks at the source.
    pub poll_s: u64,
    /// Certificates (PEM) that the source's server is checked against, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What this validator does not do for any owner.
    pub limits: nineteen_taskset::Limits,
}

impl Default for Subnet {
    fn default() -> Self {
        Self {
            folder: "subnet".into(),
            source: None,
            followed: "followed".into(),
            name: None,
            keys: Vec::new(),
            threshold: 0,
            poll_s: 300,
            ca_file: None,
            limits: nineteen_taskset::Limits::default(),
        }
    }
}

/// The executors that check.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Checking {
    /// ONNX Runtime's shared library; default `ORT_DYLIB_PATH`, then the cache.
    pub library: Option<PathBuf>,
    /// Execution providers in order; one that cannot start is an error.
    pub providers: Vec<Provider>,
    /// Sessions (threads) a model.
    pub threads_per_model: usize,
    /// Threads inside one session.
    pub intra_threads: usize,
    /// Checks that may wait for one model; more wait at the caller.
    pub queue: usize,
}

impl Default for Checking {
    fn default() -> Self {
        Self {
            library: None,
            providers: vec![Provider::Cpu],
            threads_per_model: 1,
            intra_threads: 1,
            queue: 64,
        }
    }
}

/// The validator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Validator {
    /// Length of a scoring period in seconds, 10 to 86,400.
    pub period_s: u64,
    /// Seconds after a period's end in which its probes may still finish and be judged.
    pub grace_s: u64,
    /// Where the operator's API listens; loopback only.
    pub listen: SocketAddr,
    /// Probes under way at once.
    pub max_in_flight: usize,
    /// Probes under way at once to one miner in one task.
    pub max_in_flight_per_miner: usize,
    /// Exchanges judged at once.
    pub judges: usize,
    /// Answers that wait for a judgement at most; beyond it, those of whoever has most waiting go unchecked.
    pub max_backlog: usize,
    /// Whether miners may have private and loopback addresses. For subnets on one machine.
    pub allow_private_miners: bool,
    /// Days that exchanges and evidence are kept.
    pub keep_exchanges_days: u64,
    /// Seconds between two rounds in which the validator asks its own control miner every task; 0 runs none.
    pub control_every_s: u64,
}

impl Default for Validator {
    fn default() -> Self {
        Self {
            period_s: 3_600,
            grace_s: 120,
            listen: SocketAddr::from(([127, 0, 0, 1], 9119)),
            max_in_flight: 256,
            // A window at the announced rate needs as many as a reply takes intervals.
            max_in_flight_per_miner: 16,
            judges: 4,
            max_backlog: 4_096,
            allow_private_miners: false,
            keep_exchanges_days: 7,
            control_every_s: 900,
        }
    }
}

impl Config {
    /// Reads `file` (if given, it must exist; else `nineteen.toml` if there is one) and the environment.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, Failure> {
        let default = Path::new("nineteen.toml");
        let file = match file {
            Some(f) if !f.is_file() => {
                return Err(Failure::input(format!(
                    "{}: no such configuration file; name one that exists with --config",
                    f.display()
                )));
            }
            Some(f) => Some(f),
            None => Some(default).filter(|f| f.is_file()),
        };
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(f) = file {
            figment = figment.merge(Toml::file_exact(f));
        }
        let read: Result<Self, _> = figment.merge(Env::prefixed(ENV_PREFIX).split("__")).extract();
        let mut config = read.map_err(|e| Failure::input(explain(&e, file)))?;
        let base =
            file.and_then(Path::parent).filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        config.rebase(base);
        config.validate(file.unwrap_or(default))?;
        Ok(config)
    }

    fn rebase(&mut self, base: &Path) {
        let fix = |p: &mut PathBuf| {
            if p.is_relative() {
                *p = base.join(&*p);
            }
        };
        fix(&mut self.paths.cache);
        self.paths.components.as_mut().map(fix);
        self.paths.models.as_mut().map(fix);
        fix(&mut self.paths.taskset);
        fix(&mut self.paths.data);
        self.paths.live.as_mut().map(fix);
        fix(&mut self.identity.hotkey_file);
        fix(&mut self.subnet.folder);
        fix(&mut self.subnet.followed);
        self.subnet.ca_file.as_mut().map(fix);
        if let Some(source) = self.subnet.source.as_mut().filter(|s| !s.contains("://")) {
            *source = base.join(&*source).display().to_string();
        }
        self.checking.library.as_mut().map(fix);
        self.oci.ca_file.as_mut().map(fix);
        self.oci.password_file.as_mut().map(fix);
        self.miner.as_mut().and_then(|m| m.access_log.as_mut()).map(fix);
    }

    fn validate(&self, file: &Path) -> Result<(), Failure> {
        let at = file.display();
        let refuse = |key: &str, why: &str| Err(Failure::input(format!("{at}: {key}: {why}")));
        let v = &self.validator;
        if !(10..=86_400).contains(&v.period_s) {
            return refuse("validator.period_s", "a period lasts 10 to 86400 seconds");
        }
        if v.grace_s > v.period_s {
            return refuse("validator.grace_s", "the grace cannot be longer than the period");
        }
        if !v.listen.ip().is_loopback() {
            return refuse(
                "validator.listen",
                "the operator's API has no login yet: use a loopback address, e.g. 127.0.0.1:9119",
            );
        }
        for (key, n) in [
            ("validator.max_in_flight", v.max_in_flight),
            ("validator.max_in_flight_per_miner", v.max_in_flight_per_miner),
            ("validator.judges", v.judges),
            ("validator.max_backlog", v.max_backlog),
            ("checking.threads_per_model", self.checking.threads_per_model),
            ("checking.intra_threads", self.checking.intra_threads),
            ("checking.queue", self.checking.queue),
        ] {
            if !(1..=65_536).contains(&n) {
                return refuse(key, "use 1 to 65536");
            }
        }
        if let Err((key, why)) = self.subnet.limits.check() {
            return refuse(&format!("subnet.limits.{key}"), &why);
        }
        if !(10..=86_400).contains(&self.subnet.poll_s) {
            return refuse("subnet.poll_s", "use 10 to 86400 seconds");
        }
        if self.subnet.source.is_some() && self.subnet.keys.is_empty() {
            return refuse(
                "subnet.keys",
                "name the owner's keys: a source is only as good as its signatures",
            );
        }
        let keys = u32::try_from(self.subnet.keys.len()).unwrap_or(u32::MAX);
        if keys > 0 && !(1..=keys).contains(&self.subnet.threshold) {
            return refuse(
                "subnet.threshold",
                &format!("say how many of the keys have to sign: 1 to {keys}"),
            );
        }
        if let Some((key, why)) = self.oci.slip() {
            return refuse(key, &why);
        }
        if self.checking.providers.is_empty() {
            return refuse("checking.providers", "name at least one of cpu, cuda, tensorrt");
        }
        Ok(())
    }
}

/// One line: file, key, what is wrong, the way out.
fn explain(error: &figment::Error, file: Option<&Path>) -> String {
    use figment::error::Kind;
    let Some(first) = error.clone().into_iter().next() else { return error.to_string() };
    let place = first
        .metadata
        .as_ref()
        .and_then(|m| m.source.as_ref().map(|s| s.to_string()).or_else(|| Some(m.name.to_string())))
        .or_else(|| file.map(|f| f.display().to_string()))
        .unwrap_or_else(|| "configuration".into());
    let path = first.path.join(".");
    match &first.kind {
        Kind::UnknownField(name, known) => {
            let near = known
                .iter()
                .map(|k| (strsim::jaro_winkler(name, k), *k))
                .filter(|(score, _)| *score > 0.7)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = near.map_or_else(
                || format!("known keys: {}", known.join(", ")),
                |(_, k)| format!("did you mean '{k}'?"),
            );
            let section = path.strip_suffix(name.as_str()).unwrap_or(&path).trim_end_matches('.');
            let within = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
            format!("{place}: unknown key '{name}'{within}: {hint}")
        }
        kind => {
            let what = kind.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            if path.is_empty() { format!("{place}: {what}") } else { format!("{place}: {path}: {what}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nineteen.toml");
        std::fs::write(&file, text).unwrap();
        Config::read(Some(&file)).map_err(|e| e.to_string())
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let e = read("[validator]\nperiods_s = 60\n").unwrap_err();
        assert!(e.contains("unknown key 'periods_s'") && e.contains("did you mean 'period_s'?"), "{e}");
        assert!(!e.contains('\n'), "{e}");
        let e = read("[valdator]\nperiod_s = 60\n").unwrap_err();
        assert!(e.contains("did you mean 'validator'?"), "{e}");
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        let e = read("[validator]\nperiod_s = \"long\"\n").unwrap_err();
        assert!(e.contains("validator.period_s"), "{e}");
    }

    #[test]
    fn unparsable_toml_is_one_line() {
        let e = read("[validator\n").unwrap_err();
        assert!(e.contains("nineteen.toml") && !e.contains('\n'), "{e}");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert!(read("[validator]\nperiod_s = 1\n").unwrap_err().contains("10 to 86400"));
        assert!(read("[validator]\nlisten = \"0.0.0.0:9119\"\n").unwrap_err().contains("loopback"));
    }

    #[test]
    fn a_source_without_keys_is_refused_and_limits_are_checked() {
        assert!(read("[subnet]\nsource = \"x\"\n").unwrap_err().contains("subnet.keys"));
        let e = read("[subnet.limits]\nlargest_weight_change = 2.0\n").unwrap_err();
        assert!(e.contains("subnet.limits.largest_weight_change"), "{e}");
        let keys = "keys = [\"5Fxune7f71ZbpP2FoY3mhYcmM596Erhv1gRue4nsPwkxMR4n\"]";
        assert!(read(&format!("[subnet]\n{keys}\n")).unwrap_err().contains("subnet.threshold"));
        assert!(read(&format!("[subnet]\n{keys}\nthreshold = 1\n")).is_ok());
        assert!(read("[subnet]\npoll_s = 1\n").unwrap_err().contains("subnet.poll_s"));
    }

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let c = read("[paths]\ndata = \"here\"\n").unwrap();
        assert!(c.paths.data.is_absolute() && c.paths.data.ends_with("here"));
    }
}
