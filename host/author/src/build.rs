//! From a project to a component in its task's folder, with its digest beside it.
//!
//! Rust needs a compiler for `wasm32-unknown-unknown`: the one on `PATH` if it has the target, else the one that `cargo xtask
//! setup` put into the cache. Python and JavaScript need componentize-py and componentize-js, from `PATH`, the project or the
//! cache.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nineteen_domain::Digest;
use serde::Serialize;
use wit_component::ComponentEncoder;

use crate::error::AuthorError;
use crate::project::{Lang, Project};
use crate::run::{first, on_path, run};

const TARGET: &str = "wasm32-unknown-unknown";

/// Where compilers are looked for beside `PATH`.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The cache that `cargo xtask setup` fills.
    pub cache: PathBuf,
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    /// The component.
    pub component: PathBuf,
    /// Its bytes.
    pub bytes: usize,
    /// Its digest, also in `components.lock`.
    pub digest: Digest,
    /// What compiled it.
    pub with: String,
    /// How long it took.
    pub took: Duration,
}

/// Builds a project.
///
/// # Errors
/// [`AuthorError::Program`] with the compiler's last words, or how to get one.
pub fn build(project: &Project, tools: &Tools) -> Result<Built, AuthorError> {
    let begun = Instant::now();
    let (bytes, with) = match project.lang {
        Lang::Rust => rust(project, tools)?,
        Lang::Python => python(project, tools)?,
        Lang::Js => js(project, tools)?,
    };
    let (component, digest) = (project.component(), Digest::of(&bytes));
    put(&component, &bytes)?;
    let lock = format!("[digests]\n{} = \"{digest}\"\n", project.manifest.component);
    put(&project.task.join("components.lock"), lock.as_bytes())?;
    Ok(Built { component, bytes: bytes.len(), digest, with, took: begun.elapsed() })
}

/// Whole or not at all.
fn put(file: &Path, bytes: &[u8]) -> Result<(), AuthorError> {
    use std::io::Write as _;
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut beside = tempfile::NamedTempFile::new_in(folder).map_err(AuthorError::io(folder))?;
    beside.write_all(bytes).map_err(AuthorError::io(file))?;
    beside.persist(file).map_err(|e| AuthorError::io(file)(e.error))?;
    Ok(())
}

fn rust(project: &Project, tools: &Tools) -> Result<(Vec<u8>, String), AuthorError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(&project.folder)
        .args(["build", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"])
        // A folder of the project's own: an author's other settings are for other targets.
        .env(
            "CARGO_TARGET_DIR",
            project.folder.canonicalize().map_err(AuthorError::io(&project.folder))?.join("target"),
        );
    for name in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC"]
    {
        command.env_remove(name);
    }
    // Digests must not depend on where the project or cargo's home lies.
    let folder = std::path::absolute(&project.folder).map_err(AuthorError::io(&project.folder))?;
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let remapped = [Some((folder, "project")), home.map(|home| (home, "cargo"))].into_iter().flatten();
    let remapped = remapped.map(|(from, to)| format!("'--remap-path-prefix={}={to}'", from.display()));
    let remapped = remapped.collect::<Vec<_>>().join(",");
    command.args(["--config", &format!("target.{TARGET}.rustflags=[{remapped}]")]);
    let with = if has_target() {
        format!("the compiler on PATH for {TARGET}")
    } else {
        let root = tools.cache.join("guest-toolchain/root");
        let root = if root.is_dir() { root } else { PathBuf::from("/") };
        let rustc = root.join("usr/bin/rustc");
        let (Some(linker), true) = (wasm_ld(&root), rustc.is_file()) else {
            return Err(AuthorError::Program {
                program: "rustc".into(),
                why: format!(
                    "has no {TARGET}: `rustup target add {TARGET}`, or run `cargo xtask setup --only plugins` in a clone \
                     of nineteen, which finds another way"
                ),
            });
        };
        command
            .args(["-Z", "build-std=std,panic_abort"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", &rustc)
            .env("LD_LIBRARY_PATH", library_path(&root))
            .env_remove("RUSTC_WRAPPER")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        format!("{} for {TARGET}, with its own standard library", rustc.display())
    };
    let printed = run(&mut command, "cargo build", "install Rust from https://rustup.rs")?;
    let module = printed.lines().filter_map(module_of).next_back();
    let module = module.ok_or_else(|| {
        AuthorError::file(
            &project.folder.join("Cargo.toml"),
            "lib.crate-type: no cdylib was built: add \"cdylib\"",
        )
    })?;
    let core = std::fs::read(&module).map_err(AuthorError::io(&module))?;
    let component =
        ComponentEncoder::default().validate(true).module(&core).and_then(|encoder| encoder.encode());
    let component = component.map_err(|e| AuthorError::Program {
        program: "wit-component".into(),
        why: format!("{e:#}; wit-bindgen has to be of the line that the template names"),
    })?;
    Ok((component, with))
}

/// The module that a line of cargo's speaks of.
fn module_of(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    (message.get("reason")?.as_str()? == "compiler-artifact").then_some(())?;
    let kinds = message.get("target")?.get("crate_types")?.as_array()?;
    kinds.iter().any(|kind| kind == "cdylib").then_some(())?;
    let files = message.get("filenames")?.as_array()?;
    files.iter().filter_map(|f| f.as_str()).find(|f| f.ends_with(".wasm")).map(PathBuf::from)
}

fn has_target() -> bool {
    let out = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    out.is_ok_and(|out| {
        Path::new(String::from_utf8_lossy(&out.stdout).trim()).is_dir() && out.status.success()
    })
}

fn wasm_ld(root: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(root.join("usr/bin")).ok()?.flatten();
    let named = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("wasm-ld"));
    entries.map(|e| e.path()).find(|p| p.exists() && named(p))
}

fn library_path(root: &Path) -> std::ffi::OsString {
    if root == Path::new("/") {
        return Default::default();
    }
    let entries = std::fs::read_dir(root.join("usr/lib")).into_iter().flatten().flatten();
    let folders = entries.map(|e| e.path()).filter(|p| p.to_string_lossy().ends_with("-linux-gnu"));
    std::env::join_paths(folders).unwrap_or_default()
}

fn python(project: &Project, tools: &Tools) -> Result<(Vec<u8>, String), AuthorError> {
    let cached = tools.cache.join("author-python/bin/componentize-py");
    let own = project.folder.join(".venv/bin/componentize-py");
    let found = first([own.as_path(), cached.as_path()]).map(Path::to_owned);
    let program = found.unwrap_or_else(|| "componentize-py".into());
    let out = tempfile::tempdir_in(&project.folder).map_err(AuthorError::io(&project.folder))?;
    let made = out.path().join("component.wasm");
    let full = made.canonicalize().unwrap_or_else(|_| made.clone());
    let full = std::path::absolute(full).map_err(AuthorError::io(&project.folder))?;
    let mut command = Command::new(&program);
    command
        .current_dir(&project.folder)
        .args(["-d", "wit/0.2", "-w", "plugin", "componentize", "--stub-wasi", "app", "-o"])
        .arg(&full)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    run(
        &mut command,
        "componentize-py",
        "`pip install componentize-py==0.25.0`, or `cargo xtask setup --only author-python` in a clone of nineteen",
    )?;
    let bytes = std::fs::read(&made).map_err(AuthorError::io(&made))?;
    Ok((bytes, program.display().to_string()))
}

fn js(project: &Project, tools: &Tools) -> Result<(Vec<u8>, String), AuthorError> {
    let modules = project.folder.join("node_modules");
    let cached = tools.cache.join("author-js/node_modules");
    if !modules.is_dir() && cached.is_dir() {
        #[cfg(unix)]
        std::os::unix::fs::symlink(&cached, &modules).map_err(AuthorError::io(&modules))?;
    }
    let node = "install Node.js 20 or later";
    if !modules.is_dir() {
        if !on_path("npm") {
            return Err(AuthorError::Program { program: "npm".into(), why: format!("not found: {node}") });
        }
        run(
            Command::new("npm").current_dir(&project.folder).args(["install", "--no-audit", "--no-fund"]),
            "npm",
            node,
        )?;
    }
    let out = tempfile::tempdir_in(&project.folder).map_err(AuthorError::io(&project.folder))?;
    let made =
        std::path::absolute(out.path().join("component.wasm")).map_err(AuthorError::io(&project.folder))?;
    run(
        Command::new("node").current_dir(&project.folder).arg("build.mjs").arg(&made),
        "node build.mjs",
        node,
    )?;
    let bytes = std::fs::read(&made).map_err(AuthorError::io(&made))?;
    Ok((bytes, "componentize-js".into()))
}
