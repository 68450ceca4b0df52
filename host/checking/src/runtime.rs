//! The ONNX Runtime library: found, checked, loaded, once per process.
//!
//! For: deciding which library is used and refusing one of another line before anything in it is trusted. Not
//! for: fetching it, that is xtask's. The one idea: nothing falls back. A library or a provider that was asked
//! for and is not there is an error that says what to run.

use std::ffi::CStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use serde::{Deserialize, Serialize};

use crate::error::CheckingError;

/// The library's release that xtask fetches; any `1.31.x` is accepted.
const RELEASE: &str = "1.31.1";
/// The line that is accepted.
const LINE: &str = "1.31.";

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// ONNX Runtime's own kernels.
    Cpu,
    /// NVIDIA GPUs through CUDA.
    Cuda,
    /// NVIDIA GPUs through TensorRT.
    TensorRt,
}

impl Provider {
    /// Its name in answers and configuration: `cpu`, `cuda` or `tensorrt`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }

    fn compiled_in(self) -> ort::Result<bool> {
        match self {
            Self::Cpu => Ok(true),
            Self::Cuda => ep::CUDA::is_available(),
            Self::TensorRt => ep::TensorRT::is_available(),
        }
    }

    fn dispatch(self) -> ExecutionProviderDispatch {
        match self {
            Self::Cpu => ep::CPU::default().with_arena_allocator(true).build(),
            Self::Cuda => ep::CUDA::default().build(),
            Self::TensorRt => ep::TensorRT::default().build(),
        }
        .error_on_failure()
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where the library is and what shall compute.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// The library's file, from the configuration; comes before `ORT_DYLIB_PATH` and the cache.
    pub library: Option<PathBuf>,
    /// The cache's `onnxruntime` folder, which holds `1.31.1-cpu` or `1.31.1-gpu`.
    pub cache_onnxruntime_dir: PathBuf,
    /// In order of preference; empty means the CPU. All of them have to start.
    pub providers: Vec<Provider>,
}

/// The loaded library.
pub struct Runtime {
    environment: Environment,
    path: PathBuf,
    version: String,
    providers: Vec<Provider>,
    optimised: bool,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("path", &self.path)
            .field("version", &self.version)
            .field("providers", &self.providers)
            .finish()
    }
}

struct Loaded {
    environment: Environment,
    path: PathBuf,
    version: String,
}

/// ONNX Runtime allows one library and one environment a process, so they are kept to its end. A plain mutex:
/// it is held while a library loads, never across an await.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

impl Runtime {
    /// Finds the library (configuration, then `ORT_DYLIB_PATH`, then the cache), checks its version, loads it,
    /// and checks that it has the providers. Blocks for as long as the loader takes.
    ///
    /// # Errors
    /// The `Library…` variants and [`CheckingError::Provider`].
    pub fn load(config: &RuntimeConfig) -> Result<Arc<Self>, CheckingError> {
        let providers =
            if config.providers.is_empty() { vec![Provider::Cpu] } else { config.providers.clone() };
        let path = locate(config, std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from), &providers)?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let (environment, path, version) = match &*loaded {
            Some(have) if have.path == path => {
                (have.environment.clone(), have.path.clone(), have.version.clone())
            }
            Some(have) => {
                return Err(CheckingError::LibraryOther { loaded: have.path.clone(), asked: path });
            }
            None => {
                let version = stated_version(&path)?;
                if !version.starts_with(LINE) {
                    return Err(CheckingError::LibraryVersion { path, found: version });
                }
                let unusable =
                    |why: String| CheckingError::LibraryUnusable { path: path.clone(), why: one_line(&why) };
                let environment = ort::init_from(&path)
                    .map_err(|e| unusable(e.to_string()))?
                    .with_name("nineteen")
                    .with_telemetry(false)
                    .build()
                    .map_err(|e| unusable(e.to_string()))?;
                // The binding asks for everything down to per-node chatter; formatting it costs a tenth of a run.
                environment.set_log_level(LogLevel::Warning);
                *loaded = Some(Loaded {
                    environment: environment.clone(),
                    path: path.clone(),
                    version: version.clone(),
                });
                (environment, path, version)
            }
        };
        drop(loaded);
        for provider in &providers {
            let refuse =
                |why: String| CheckingError::Provider { provider: provider.name(), why: one_line(&why) };
            if !provider.compiled_in().map_err(|e| refuse(e.to_string()))? {
                return Err(refuse(format!("{} was built without it", path.display())));
            }
        }
        let runtime = Self { environment, path, version, providers, optimised: true };
        // Registers every provider once, so that a missing CUDA shows here and not at the first model.
        runtime.session_builder(1)?;
        Ok(Arc::new(runtime))
    }

    /// The file that was loaded.
    #[must_use]
    pub fn library_path(&self) -> &Path {
        &self.path
    }

    /// The version that the library states, e.g. `1.31.1`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What computes, in order of preference; never empty.
    #[must_use]
    pub fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// The same library, which runs graphs as they are written: what is fused and folded otherwise rounds otherwise, as it
    /// does between devices.
    #[must_use]
    pub fn unoptimised(&self) -> Self {
        Self {
            environment: self.environment.clone(),
            path: self.path.clone(),
            version: self.version.clone(),
            providers: self.providers.clone(),
            optimised: false,
        }
    }

    /// The provider that answers carry: the first, which sessions refuse to start without.
    pub(crate) fn provider(&self) -> Provider {
        self.providers.first().copied().unwrap_or(Provider::Cpu)
    }

    /// A session's options: providers in order, intra-op threads that do not spin, no memory patterns (they are
    /// kept per input shape, and shapes here never repeat).
    pub(crate) fn session_builder(&self, intra_threads: usize) -> Result<SessionBuilder, CheckingError> {
        let refuse = |why: &dyn fmt::Display| CheckingError::Provider {
            provider: self.provider().name(),
            why: one_line(&why.to_string()),
        };
        let mut builder = ort::session::Session::builder(&self.environment).map_err(|e| refuse(&e))?;
        for provider in &self.providers {
            builder = builder.with_execution_providers([provider.dispatch()]).map_err(|e| {
                CheckingError::Provider { provider: provider.name(), why: one_line(&e.to_string()) }
            })?;
        }
        let builder = builder
            .with_auto_device(ort::session::builder::AutoDevicePolicy::PreferCPU)
            .map_err(|e| refuse(&e))?;
        let level =
            if self.optimised { GraphOptimizationLevel::All } else { GraphOptimizationLevel::Disable };
        let builder = builder.with_optimization_level(level).map_err(|e| refuse(&e))?;
        let builder = builder.with_intra_threads(intra_threads.max(1)).map_err(|e| refuse(&e))?;
        let builder = builder.with_inter_threads(1).map_err(|e| refuse(&e))?;
        let builder = builder.with_intra_op_spinning(false).map_err(|e| refuse(&e))?;
        let builder = builder.with_inter_op_spinning(false).map_err(|e| refuse(&e))?;
        let builder = builder.with_memory_pattern(false).map_err(|e| refuse(&e))?;
        builder.with_log_level(LogLevel::Warning).map_err(|e| refuse(&e))
    }
}

/// Runtimes answer in paragraphs; a log wants a line.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(400) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

/// The file to load, absolute.
fn locate(
    config: &RuntimeConfig,
    environment: Option<PathBuf>,
    providers: &[Provider],
) -> Result<PathBuf, CheckingError> {
    let (path, source_of_path) = if let Some(path) = &config.library {
        (path.clone(), "configuration")
    } else if let Some(path) = environment.filter(|p| !p.as_os_str().is_empty()) {
        (path, "ORT_DYLIB_PATH")
    } else {
        let file = |build: &str| {
            config
                .cache_onnxruntime_dir
                .join(format!("{RELEASE}-{build}"))
                .join(format!("libonnxruntime.so.{RELEASE}"))
        };
        let wants_gpu = providers.iter().any(|p| *p != Provider::Cpu);
        let (first, second) = if wants_gpu { ("gpu", "gpu") } else { ("cpu", "gpu") };
        let path = if file(first).is_file() || !file(second).is_file() { file(first) } else { file(second) };
        // A cpu library cannot serve a provider that was asked for, so it is not fallen back to (invariant 9).
        (path, if wants_gpu { "cache; cuda and tensorrt need `cargo xtask setup --gpu`" } else { "cache" })
    };
    if !path.is_file() {
        return Err(CheckingError::LibraryMissing { path, source_of_path });
    }
    path.canonicalize().map_err(|e| CheckingError::LibraryUnusable { path, why: e.to_string() })
}

/// What the library says of itself, asked before anything else of it is used.
fn stated_version(path: &Path) -> Result<String, CheckingError> {
    let unusable =
        |why: String| CheckingError::LibraryUnusable { path: path.to_path_buf(), why: one_line(&why) };
    // A loader that meets a text file or a cut download says so in words nobody understands.
    let mut magic = [0_u8; 4];
    std::fs::File::open(path)
        .and_then(|mut f| std::io::Read::read_exact(&mut f, &mut magic))
        .map_err(|e| unusable(e.to_string()))?;
    if cfg!(target_os = "linux") && magic != *b"\x7fELF" {
        return Err(unusable("it is not a shared library".into()));
    }
    #[expect(unsafe_code, reason = "loading a library and calling its one exported function needs it")]
    // SAFETY: the operator named this file as the runtime to execute. `OrtGetApiBase` takes nothing and returns a
    // pointer to a static table whose layout is frozen (two function pointers) in every release of ONNX Runtime,
    // or null; `GetVersionString` returns a static string that ends in zero. The library stays loaded while the
    // string is copied.
    unsafe {
        let library = libloading::Library::new(path).map_err(|e| unusable(e.to_string()))?;
        let base = library
            .get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0")
            .map_err(|_| unusable("it does not export OrtGetApiBase".into()))?();
        if base.is_null() {
            return Err(unusable("OrtGetApiBase gave nothing".into()));
        }
        let text = ((*base).GetVersionString)();
        if text.is_null() {
            return Err(unusable("it states no version".into()));
        }
        Ok(one_line(&CStr::from_ptr(text).to_string_lossy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(library: Option<PathBuf>, cache: &Path) -> RuntimeConfig {
        RuntimeConfig { library, cache_onnxruntime_dir: cache.to_path_buf(), providers: vec![Provider::Cpu] }
    }

    #[test]
    fn configuration_comes_before_the_environment_and_that_before_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let cached = root.join("1.31.1-cpu/libonnxruntime.so.1.31.1");
        std::fs::create_dir_all(cached.parent().unwrap()).unwrap();
        let (a, b) = (root.join("a.so"), root.join("b.so"));
        for file in [&cached, &a, &b] {
            std::fs::write(file, b"x").unwrap();
        }
        let cpu = [Provider::Cpu];
        assert_eq!(locate(&config(Some(a.clone()), &root), Some(b.clone()), &cpu).unwrap(), a);
        assert_eq!(locate(&config(None, &root), Some(b.clone()), &cpu).unwrap(), b);
        assert_eq!(locate(&config(None, &root), Some(PathBuf::new()), &cpu).unwrap(), cached);
        assert_eq!(locate(&config(None, &root), None, &cpu).unwrap(), cached);
    }

    #[test]
    fn a_named_library_that_is_missing_is_an_error_even_if_the_cache_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let cached = dir.path().join("1.31.1-cpu/libonnxruntime.so.1.31.1");
        std::fs::create_dir_all(cached.parent().unwrap()).unwrap();
        std::fs::write(&cached, b"x").unwrap();
        let err =
            locate(&config(Some("/no/such.so".into()), dir.path()), None, &[Provider::Cpu]).unwrap_err();
        assert_eq!(err.code(), "checking.library.missing");
        assert!(err.to_string().contains("cargo xtask setup"), "{err}");
        let gpu = locate(&config(None, dir.path()), None, &[Provider::Cuda, Provider::Cpu]).unwrap_err();
        assert!(gpu.to_string().contains("1.31.1-gpu"), "{gpu}");
    }

    #[test]
    fn a_text_file_is_no_library() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libonnxruntime.so");
        std::fs::write(&file, "not found\n").unwrap();
        let err = Runtime::load(&config(Some(file), dir.path())).unwrap_err();
        assert_eq!(err.code(), "checking.library.unusable");
    }

    #[test]
    fn a_library_of_another_line_is_refused_and_its_version_named() {
        let dir = tempfile::tempdir().unwrap();
        let (source, library) = (dir.path().join("v.c"), dir.path().join("libonnxruntime.so"));
        std::fs::write(
            &source,
            "static const char *v(void) { return \"1.22.0\"; }\n\
             static struct { void *api; const char *(*version)(void); } base = { 0, v };\n\
             void *OrtGetApiBase(void) { return &base; }\n",
        )
        .unwrap();
        let built = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status()
            .expect("a C compiler, which building this workspace needs anyway");
        assert!(built.success());
        let err = Runtime::load(&config(Some(library), dir.path())).unwrap_err();
        assert!(matches!(&err, CheckingError::LibraryVersion { found, .. } if found == "1.22.0"), "{err}");
    }
}
