//! From a file to a [`Plugin`]: digest, size, outline, version, compile, link, describe.
//!
//! Everything that reads or compiles runs off the async runtime. A step that fails leaves what was live
//! untouched and says why, in words for the author.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nineteen_domain::Digest;
use nineteen_domain::task::Manifest;
use tokio::sync::Semaphore;
use wasmtime::component::Component;

use crate::abi::{self, Fit};
use crate::apart;
use crate::cache::Cache;
use crate::engine::{Instances, Machine, SharedMachine};
use crate::error::{LoadFault, SandboxError};
use crate::inspect::outline;
use crate::plugin::{Parts, Plugin};
use crate::state::{Assets, Shared};

/// How a sandbox is set up.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// Folder of compiled components; made if it is missing. Its key must stay on this machine.
    pub cache_dir: PathBuf,
    /// The largest component that is loaded. One from componentize-py has some 18 MB.
    pub max_component_bytes: u64,
    /// Time for one compilation, and for waiting until another one is done. 15 to 50 s are usual for
    /// interpreters on two cores; a tenth of a second for Rust.
    pub compile_timeout: Duration,
    /// Calls at a time, 1 to 1024; more of them wait. Address space is reserved for each.
    pub max_concurrent_calls: u32,
    /// Version of this host, for the manifests' requirement.
    pub host_version: semver::Version,
}

/// Where a component comes from.
#[derive(Debug, Clone)]
pub enum ComponentSource {
    /// A file.
    Path(PathBuf),
    /// What was fetched already.
    Bytes(Bytes),
}

impl ComponentSource {
    fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Bytes(_) => "given bytes".into(),
        }
    }

    /// Reads it, but never more than `cap` bytes and one.
    fn read(self, cap: u64) -> Result<Bytes, LoadFault> {
        let bytes = match self {
            Self::Bytes(bytes) => bytes,
            Self::Path(path) => read(&path, cap).map_err(|e| LoadFault::Read(e.to_string()))?.into(),
        };
        if bytes.len() as u64 > cap { Err(LoadFault::TooBig { cap }) } else { Ok(bytes) }
    }
}

fn read(path: &Path, cap: u64) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let room = file.metadata()?.len().min(cap);
    let mut bytes = Vec::with_capacity(usize::try_from(room).unwrap_or(0).saturating_add(1));
    file.take(cap.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Loads components. One per process: it holds the engine, the pool of instances and the cache.
pub struct Sandbox {
    config: SandboxConfig,
    machine: SharedMachine,
    cache: Arc<Cache>,
    /// One compilation at a time: each uses all cores, and this bounds what runs on after a timeout.
    compiling: Arc<Semaphore>,
    compiled: Arc<AtomicU64>,
    /// The program that compiles in a process of its own; without one, this process does.
    compiler: Option<PathBuf>,
}

/// What was found in a file, before it is compiled.
struct Verified {
    bytes: Bytes,
    digest: Digest,
    fit: Fit,
    /// Its name in the cache.
    name: String,
}

impl Sandbox {
    /// Starts the engine and opens the cache.
    ///
    /// # Errors
    /// [`SandboxError::CacheDir`] and [`SandboxError::Engine`].
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        Self::start(config, Instances::Pooled)
    }

    /// The same without a pool of instances: every call is several times dearer, and no address space is
    /// reserved. For machines that limit address space; results are the same to the bit.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub fn without_pool(config: SandboxConfig) -> Result<Self, SandboxError> {
        Self::start(config, Instances::Mapped)
    }

    fn start(config: SandboxConfig, instances: Instances) -> Result<Self, SandboxError> {
        let cache = Cache::open(&config.cache_dir, &config.host_version, config.max_component_bytes)?;
        let machine = Machine::start(config.max_concurrent_calls, instances)?;
        Ok(Self {
            config,
            machine: Arc::new(machine),
            cache: Arc::new(cache),
            compiling: Arc::new(Semaphore::new(1)),
            compiled: Arc::default(),
            compiler: None,
        })
    }

    /// Compiles in processes of their own, which can be killed and may have only so much memory: this program, asked with
    /// [`crate::apart::ARGUMENT`], calls [`crate::apart::compile`].
    #[must_use]
    pub fn with_compiler(self, program: PathBuf) -> Self {
        Self { compiler: Some(program), ..self }
    }

    /// Components compiled since the start; what the cache gave is not among them.
    #[must_use]
    pub fn compilations(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// The engine, for measuring bare wasmtime under the same settings.
    #[doc(hidden)]
    #[must_use]
    pub fn engine(&self) -> &wasmtime::Engine {
        &self.machine.engine
    }

    /// Verifies digest, size, imports and version; compiles into the cache if it must; lets the component
    /// describe itself, and holds that against the manifest's unit, operation and grants.
    ///
    /// `expected` and the manifest's own digest are both checked where they are given.
    ///
    /// # Errors
    /// [`SandboxError::Load`], which names the task and the component.
    pub async fn load(
        &self,
        source: ComponentSource,
        expected: Option<Digest>,
        manifest: &Manifest,
        assets: Assets,
    ) -> Result<Arc<Plugin>, SandboxError> {
        let component = source.name();
        self.try_load(source, expected, manifest, assets).await.map(Arc::new).map_err(|fault| {
            SandboxError::Load { task: manifest.name.clone(), component, fault: Box::new(fault) }
        })
    }

    async fn try_load(
        &self,
        source: ComponentSource,
        expected: Option<Digest>,
        manifest: &Manifest,
        assets: Assets,
    ) -> Result<Plugin, LoadFault> {
        let host = &self.config.host_version;
        if !manifest.host.matches(host) {
            return Err(LoadFault::HostVersion { requires: manifest.host.clone(), host: host.clone() });
        }
        if let Some((field, asked, cap)) = manifest.budget.excess() {
            return Err(LoadFault::Budget { field, asked, cap });
        }

        let begun = Instant::now();
        let expected = [expected, manifest.digest];
        let cap = self.config.max_component_bytes;
        let (machine, cache, manifest) = (self.machine.clone(), self.cache.clone(), manifest.clone());
        // One way to a blocking thread and back where the cache has it.
        let found = blocking(move || {
            let verified = verify(source, expected, cap, &machine, &cache)?;
            let verifying = begun.elapsed();
            match cache.get(&machine.engine, &verified.name) {
                Some(component) => {
                    let Verified { digest, fit, .. } = verified;
                    let steps =
                        vec![("verify", verifying), ("cache", begun.elapsed().saturating_sub(verifying))];
                    let ready = Ready { component, digest, fit, manifest, assets, steps };
                    ready.describe(machine).map(Found::Here)
                }
                None => Ok(Found::Missing(Box::new(Cold { verified, verifying, manifest, assets }))),
            }
        })
        .await?;
        let Cold { verified, verifying, manifest, assets } = match found {
            Found::Here(plugin) => return Ok(*plugin),
            Found::Missing(cold) => *cold,
        };
        let Verified { bytes, digest, fit, name } = verified;
        let component = self.compile(name, bytes).await?;
        let steps = vec![("verify", verifying), ("compile", begun.elapsed().saturating_sub(verifying))];
        let machine = self.machine.clone();
        let ready = Ready { component, digest, fit, manifest, assets, steps };
        blocking(move || ready.describe(machine)).await.map(|plugin| *plugin)
    }

    /// Compiles one component. In a process of its own it is killed at the limit. In this one wasmtime cannot be interrupted:
    /// past the limit we stop waiting, the work goes on, holds the only permit until it ends, and its result serves the next
    /// try.
    async fn compile(&self, name: String, bytes: Bytes) -> Result<Component, LoadFault> {
        let limit = self.config.compile_timeout;
        let late = |_| LoadFault::CompileTimeout { seconds: limit.as_secs() };
        let permit = tokio::time::timeout(limit, self.compiling.clone().acquire_owned())
            .await
            .map_err(late)?
            .map_err(|e| LoadFault::Host(e.to_string()))?;
        let (machine, cache, compiled) = (self.machine.clone(), self.cache.clone(), self.compiled.clone());
        let (apart, calls) = (self.compiler.clone(), self.config.max_concurrent_calls);
        let work = blocking(move || {
            let _permit = permit;
            // Somebody else may have compiled it while we waited.
            if let Some(component) = cache.get(&machine.engine, &name) {
                return Ok(component);
            }
            compiled.fetch_add(1, Ordering::Relaxed);
            if let Some(program) = apart {
                let code = apart::ask(&program, calls, &bytes, limit, cache.most())?;
                return cache
                    .keep(&machine.engine, &name, &code)
                    .map_err(|e| LoadFault::Compile(format!("{e:#}")));
            }
            cache.compile(&machine.engine, &name, &bytes).map_err(|e| LoadFault::Compile(format!("{e:#}")))
        });
        // A child is killed at the limit, and said so by whoever killed it.
        let patience =
            if self.compiler.is_some() { limit.saturating_add(Duration::from_secs(5)) } else { limit };
        tokio::time::timeout(patience, work).await.map_err(late)?
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What the cache said.
enum Found {
    Here(Box<Plugin>),
    Missing(Box<Cold>),
}

/// A component that must be compiled.
struct Cold {
    verified: Verified,
    verifying: Duration,
    manifest: Manifest,
    assets: Assets,
}

/// A component that is machine code.
struct Ready {
    component: Component,
    digest: Digest,
    fit: Fit,
    manifest: Manifest,
    assets: Assets,
    /// What it took so far.
    steps: Vec<(&'static str, Duration)>,
}

impl Ready {
    /// Links it and lets it describe itself.
    fn describe(self, machine: SharedMachine) -> Result<Box<Plugin>, LoadFault> {
        let describing = Instant::now();
        let Self { component, digest, fit, manifest, assets, mut steps } = self;
        let guest = abi::link(&machine.engine, &component, &fit)?;
        let shared = Shared { task: manifest.name.clone(), budget: manifest.budget, assets };
        let Fit { version: wit_version, wasi, .. } = fit;
        let mut plugin =
            Plugin::describe(Parts { manifest, digest, wit_version, wasi, shared, guest, machine })?;
        steps.push(("describe", describing.elapsed()));
        plugin.took(steps);
        Ok(Box::new(plugin))
    }
}

fn verify(
    source: ComponentSource,
    expected: [Option<Digest>; 2],
    cap: u64,
    machine: &Machine,
    cache: &Cache,
) -> Result<Verified, LoadFault> {
    let bytes = source.read(cap)?;
    let found = Digest::of(&bytes);
    if let Some(expected) = expected.into_iter().flatten().find(|expected| *expected != found) {
        return Err(LoadFault::Digest { expected, found });
    }
    let fit = abi::ladder(&outline(&bytes)?)?;
    let name = cache.name(&machine.engine, &found);
    Ok(Verified { bytes, digest: found, fit, name })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadFault> + Send + 'static,
) -> Result<T, LoadFault> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(LoadFault::Host(e.to_string())))
}
