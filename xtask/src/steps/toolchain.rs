//! A compiler for WebAssembly, found in whichever way works here.
//!
//! In this order: the compiler on `PATH` has the target already; rustup adds it; the distribution's own compiler
//! builds the standard library for it (Debian 12's `rustc-web`, installed, or unpacked into the cache: no root
//! rights, nothing of the system changed). The choice is kept until the compiler on `PATH` changes.
//! `XTASK_GUEST=path|rustup|debian` allows one way only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{RESUMES, Site};
use crate::cache::{self, Cache};
use crate::child;
use crate::progress::Progress;
use crate::stamp::Key;

/// What guests are compiled for. Not a WASI target: a pure task imports nothing of a system.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// How long rustup may take: behind some firewalls it would wait for minutes before it fails.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// What must compile before a compiler is believed to have the target.
const PROBE: &str = "#[unsafe(no_mangle)] pub extern \"C\" fn f(x: u32) -> String { x.to_string() }";

/// Packages that hold a compiler and the sources of its standard library. Their dependencies carry version numbers
/// in their names and are asked for (see [`Packages`]).
const PACKAGES: [&str; 3] = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"];

/// The compiler that was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Guest {
    /// Which compiler on `PATH` this was decided for.
    decided_for: String,
    /// What compiles guests, to the commit: part of the key of everything that it compiles.
    pub(crate) id: String,
    /// Why this way.
    why: String,
    /// The root of the distribution's toolchain; none when the compiler on `PATH` serves.
    root: Option<PathBuf>,
}

impl Guest {
    /// `cargo build` for guests, in the environment that this way needs.
    pub(crate) fn cargo(&self, cache: &Cache) -> Command {
        let mut command = crate::cargo();
        command.args(["build", "--target", TARGET]).env("NINETEEN_CACHE", cache.root());
        // Meant for the host's code, and wrong for the guest's.
        for name in
            ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC"]
        {
            command.env_remove(name);
        }
        if let Some(root) = &self.root {
            command
                .args(["-Z", "build-std=std,panic_abort"])
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTC", root.join("usr/bin/rustc"))
                .env("LD_LIBRARY_PATH", library_path(root))
                .env_remove("RUSTC_WRAPPER");
            if let Some(linker) = wasm_ld(root) {
                command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            }
        }
        command
    }

    /// Whether what was chosen is still there.
    fn stands(&self, decided_for: &str) -> bool {
        self.decided_for == decided_for
            && match &self.root {
                Some(root) => root.join("usr/bin/rustc").is_file() && wasm_ld(root).is_some(),
                None => has_target(),
            }
    }
}

/// The folders of shared libraries below a root; none for the system's own.
fn library_path(root: &Path) -> std::ffi::OsString {
    let multiarch = fs::read_dir(root.join("usr/lib")).into_iter().flatten().flatten();
    let folders = multiarch
        .filter(|entry| entry.file_name().to_string_lossy().ends_with("-linux-gnu"))
        .map(|entry| entry.path());
    if root == Path::new("/") {
        Default::default()
    } else {
        std::env::join_paths(folders).unwrap_or_default()
    }
}

/// The distribution's linker for WebAssembly, called `wasm-ld-22` or so.
fn wasm_ld(root: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(root.join("usr/bin")).ok()?.flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.exists())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wasm-ld")))
}

/// The compiler on `PATH`, in its own words.
fn rustc_on_path() -> Result<String> {
    child::ask(Command::new("rustc").arg("-vV"))
}

/// Whether the compiler on `PATH` has a standard library for the target.
fn has_target() -> bool {
    let folder = child::ask(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]));
    folder.is_ok_and(|folder| Path::new(&folder).is_dir())
}

/// Whether the compiler on `PATH` compiles and links a module.
fn compiles(cache: &Cache) -> Result<bool> {
    if !has_target() {
        return Ok(false);
    }
    let folder = cache::unfinished(&cache.path("probe"));
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let source = folder.join("probe.rs");
    fs::write(&source, PROBE).with_context(|| format!("{} cannot be written", source.display()))?;
    let mut rustc = Command::new("rustc");
    rustc.args([
        "--edition=2024",
        "--crate-type=cdylib",
        "-Aimproper_ctypes_definitions",
        "--target",
        TARGET,
    ]);
    let built = child::ask(rustc.arg("--out-dir").arg(&folder).arg(&source));
    // Only room is lost when this fails.
    let _ = cache::remove(&folder);
    Ok(built.is_ok())
}

/// The ways that are allowed, and what each of those that were tried said.
struct Search {
    only: Option<String>,
    tried: Vec<String>,
}

impl Search {
    fn new() -> Result<Search> {
        let only = std::env::var("XTASK_GUEST").ok().filter(|way| !way.is_empty());
        if let Some(way) = only.as_deref().filter(|way| !["path", "rustup", "debian"].contains(way)) {
            bail!("XTASK_GUEST is {way:?}: it may be path, rustup or debian");
        }
        Ok(Search { only, tried: Vec::new() })
    }

    fn allows(&self, way: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == way)
    }
}

/// The compiler for guests, and whether there was anything to do.
pub(crate) fn ensure(site: &Site) -> Result<(Guest, bool)> {
    let mut search = Search::new()?;
    let asked = search.only.as_deref().unwrap_or("any");
    let decided_for = Key::new("toolchain/1").text(&rustc_on_path()?).text(asked).finish();
    let place = site.cache.path("stamps/toolchain.toml");
    if let Some(guest) = fs::read_to_string(&place).ok().and_then(|text| toml::from_str::<Guest>(&text).ok())
        && guest.stands(&decided_for)
    {
        return Ok((guest, false));
    }
    let progress = Progress::start("toolchain: a compiler for WebAssembly, which the task components are");
    let mut guest = choose(site, &mut search, &progress)?;
    guest.decided_for = decided_for;
    let text = toml::to_string(&guest).context("the choice cannot be written down")?;
    cache::write(&place, text.as_bytes())?;
    progress.done(&guest.why);
    Ok((guest, true))
}

fn choose(site: &Site, search: &mut Search, progress: &Progress) -> Result<Guest> {
    let here = |why: String| -> Result<Guest> {
        Ok(Guest { decided_for: String::new(), id: rustc_on_path()?, why, root: None })
    };
    if search.allows("path") {
        progress.detail("trying the compiler on PATH");
        if compiles(&site.cache)? {
            return here(format!("the compiler on PATH has {TARGET} already"));
        }
        search.tried.push(format!("the compiler on PATH lacks {TARGET}"));
    }
    if search.allows("rustup") {
        if child::on_path("rustup").is_some() {
            progress.detail("rustup target add");
            let mut rustup = Command::new("rustup");
            rustup.args(["target", "add", TARGET]).env("RUSTUP_MAX_RETRIES", "1");
            let log = site.cache.log("toolchain");
            match child::quietly(&mut rustup, progress, &log, Some(RUSTUP_LIMIT)) {
                Ok(()) if compiles(&site.cache)? => return here(format!("rustup added {TARGET}")),
                Ok(()) => search.tried.push("rustup added the target, but it does not compile".into()),
                Err(error) => search.tried.push(format!("rustup could not add the target ({error:#})")),
            }
        } else {
            search.tried.push("there is no rustup".into());
        }
    }
    if search.allows("debian") {
        match debian(site, progress) {
            Ok((root, whence)) => {
                let id = child::ask(&mut distribution_rustc(&root))?;
                let tried = search.tried.join("; ");
                let why = format!(
                    "{tried}{}Debian's rustc-web serves, {whence}",
                    if tried.is_empty() { "" } else { ": " }
                );
                return Ok(Guest { decided_for: String::new(), id, why, root: Some(root) });
            }
            Err(error) => search.tried.push(format!("Debian's rustc-web does not serve ({error:#})")),
        }
    }
    bail!(
        "nothing here compiles to {TARGET}: {}. Where rustup can fetch, `rustup target add {TARGET}` is enough; then \
         run the same command again",
        search.tried.join("; ")
    )
}

/// The first release of the compiler that the current Extism builds with.
const NATIVE: semver::Version = semver::Version::new(1, 96, 0);

/// `cargo build` for this machine with a compiler of at least [`NATIVE`]: the one on `PATH`, or the distribution's.
pub(crate) fn native(site: &Site, progress: &Progress) -> Result<Command> {
    let mut command = crate::cargo();
    command.arg("build").env_remove("CARGO_BUILD_TARGET");
    if release(&rustc_on_path()?).is_some_and(|found| found >= NATIVE) {
        return Ok(command);
    }
    let (root, _) = debian(site, progress).with_context(|| {
        format!("rustc {NATIVE} or newer is needed, and Debian's rustc-web does not serve")
    })?;
    let said = child::ask(&mut distribution_rustc(&root))?;
    if release(&said).is_none_or(|found| found < NATIVE) {
        if root.starts_with(site.cache.root()) {
            cache::remove(&root).with_context(|| format!("{} cannot be deleted", root.display()))?;
        }
        let found = said.lines().next().unwrap_or_default();
        bail!(
            "rustc {NATIVE} or newer is needed, and apt knows {found}: `apt-get update`, then the same command again"
        );
    }
    command.env("RUSTC", root.join("usr/bin/rustc")).env("LD_LIBRARY_PATH", library_path(&root));
    command.env_remove("RUSTC_WRAPPER");
    Ok(command)
}

/// The release in what `rustc -vV` prints.
fn release(said: &str) -> Option<semver::Version> {
    let release = said.lines().find_map(|line| line.strip_prefix("release: "))?;
    // A nightly of a release has what the release has, or nearly.
    semver::Version::parse(release.split('-').next()?).ok()
}

fn distribution_rustc(root: &Path) -> Command {
    let mut rustc = Command::new(root.join("usr/bin/rustc"));
    rustc.arg("-vV").env("LD_LIBRARY_PATH", library_path(root));
    rustc
}

/// Whether a root holds all that is needed: a compiler that starts, the sources of its library, a linker that starts.
fn whole(root: &Path) -> Result<()> {
    child::ask(&mut distribution_rustc(root))?;
    let sources = root.join("usr/lib/rustlib/src/rust/library/std/Cargo.toml");
    if !sources.is_file() {
        bail!("the sources of the standard library are not there (package rust-web-src)");
    }
    let Some(linker) = wasm_ld(root) else { bail!("there is no wasm-ld (package lld)") };
    child::ask(Command::new(linker).arg("--version").env("LD_LIBRARY_PATH", library_path(root)))?;
    Ok(())
}

/// Debian's toolchain: the root it lies in, and how it came there.
fn debian(site: &Site, progress: &Progress) -> Result<(PathBuf, &'static str)> {
    let system = Path::new("/");
    if whole(system).is_ok() {
        return Ok((system.to_owned(), "as installed on this system"));
    }
    let folder = site.cache.path("guest-toolchain");
    let root = folder.join("root");
    if root.is_dir() && whole(&root).is_ok() {
        return Ok((root, "as unpacked before"));
    }
    for program in ["apt-get", "apt-cache", "dpkg", "dpkg-query"] {
        if child::on_path(program).is_none() {
            bail!("this is no Debian: there is no {program}");
        }
    }
    let packages = Packages::ask().context(
        "its packages are not known to apt: rustc-web 1.96 comes from bookworm-security; try `apt-get update`",
    )?;
    let log = site.cache.log("toolchain");

    // A folder for this very set of versions: what an interrupted run fetched is used, what is outdated is not.
    let mut uris = Command::new("apt-get");
    let set = child::ask(uris.args(["download", "--print-uris"]).args(&packages.names))?;
    let set = Key::new("debs/1").text(&set).finish();
    let debs = folder.join(format!("debs-{}", set.get(..12).unwrap_or(&set)));
    fs::create_dir_all(&debs).with_context(|| format!("{} cannot be made", debs.display()))?;
    progress.detail(&format!("fetching {} Debian packages, about 150 MB", packages.names.len()));
    let mut download = Command::new("apt-get");
    download.args(["download", "-q"]).args(&packages.names).current_dir(&debs);
    child::quietly(&mut download, progress, &log, None).with_context(|| {
        format!("the Debian packages {} could not be fetched; {RESUMES}", packages.names.join(" "))
    })?;

    let made = cache::unfinished(&root);
    cache::remove(&made).with_context(|| format!("{} cannot be deleted", made.display()))?;
    fs::create_dir_all(&made).with_context(|| format!("{} cannot be made", made.display()))?;
    let entries = fs::read_dir(&debs).with_context(|| format!("{} cannot be read", debs.display()))?;
    for deb in entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
    {
        progress.detail(&format!("unpacking {}", deb.file_name().unwrap_or_default().to_string_lossy()));
        child::quietly(Command::new("dpkg").arg("-x").arg(&deb).arg(&made), progress, &log, None)?;
    }
    whole(&made).context("what was unpacked does not work")?;
    cache::settle(&made, &root)?;
    // Only room is lost when this fails.
    let _ = cache::remove(&debs);
    Ok((root, "unpacked into the cache, nothing installed"))
}

/// Which Debian packages make a whole toolchain on this machine.
struct Packages {
    names: Vec<String>,
}

impl Packages {
    fn ask() -> Result<Packages> {
        let depends = |package: &str| child::ask(Command::new("apt-cache").args(["depends", package]));
        let std =
            dependency(&depends("libstd-rust-web-dev")?, "libstd-rust-web-").context("no libstd-rust-web")?;
        let llvm = dependency(&depends(&std)?, "libllvm").context("no libllvm")?;
        let lld = format!("lld-{}", llvm.trim_start_matches("libllvm"));

        // The compiler's own shared libraries need others; a normal system has most of them.
        let mut closure = Command::new("apt-cache");
        closure.args([
            "depends",
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
        ]);
        closure.args(["--no-replaces", "--no-enhances", &llvm, &lld]);
        let mut names: BTreeSet<String> = PACKAGES.map(str::to_owned).into();
        names.extend([std, llvm.clone(), lld.clone()]);
        for name in recursed(&child::ask(&mut closure)?) {
            if name.starts_with("lib") && !installed(&name) {
                names.insert(name);
            }
        }
        Ok(Packages { names: names.into_iter().collect() })
    }
}

fn installed(package: &str) -> bool {
    let status = child::ask(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]));
    status.is_ok_and(|status| status.ends_with("ok installed"))
}

/// The first dependency with a name that begins so, in what `apt-cache depends` prints.
fn dependency(answer: &str, begins: &str) -> Option<String> {
    let names = answer.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.map(str::trim).find(|name| name.starts_with(begins)).map(str::to_owned)
}

/// The packages in what `apt-cache depends --recurse` prints: the lines that are not indented. Virtual ones (`<…>`)
/// have no file.
fn recursed(answer: &str) -> Vec<String> {
    let plain = |line: &&str| !line.starts_with([' ', '|', '<']) && !line.trim().is_empty();
    answer
        .lines()
        .filter(plain)
        .map(|line| line.trim().split(':').next().unwrap_or_default().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_numbers_in_package_names_are_asked_for_not_written_down() {
        let dev = "libstd-rust-web-dev\n  Depends: libstd-rust-web-1.96\n  Conflicts: <rustup>\n";
        assert_eq!(dependency(dev, "libstd-rust-web-").unwrap(), "libstd-rust-web-1.96");
        let std = "libstd-rust-web-1.96\n  Depends: libc6\n  Depends: libllvm22\n  Conflicts: libllvm19\n";
        assert_eq!(dependency(std, "libllvm").unwrap(), "libllvm22");
        assert_eq!(dependency(std, "libz3"), None);
    }

    #[test]
    fn a_closure_is_the_lines_that_are_not_indented() {
        let answer =
            "libllvm22\n  Depends: libc6\n |Depends: libedit2\nlibedit2\n<libc-virtual>\nlibz3-4:amd64\n\n";
        assert_eq!(recursed(answer), ["libllvm22", "libedit2", "libz3-4"]);
    }

    #[test]
    fn a_compiler_says_its_release() {
        let said = "rustc 1.97.0-nightly (a b)\nbinary: rustc\nrelease: 1.97.0-nightly\nLLVM version: 22.1.2";
        assert!(release(said).unwrap() >= NATIVE);
        assert!(release(&said.replace("1.97", "1.95")).unwrap() < NATIVE);
        assert_eq!(release("rustc"), None);
    }

    #[test]
    fn an_empty_folder_is_no_toolchain() {
        let folder = tempfile::tempdir().unwrap();
        assert!(whole(folder.path()).is_err());
        assert!(wasm_ld(folder.path()).is_none());
    }

    #[test]
    fn a_choice_falls_with_the_compiler_it_was_made_for() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("usr/bin");
        fs::create_dir_all(&bin).unwrap();
        for name in ["rustc", "wasm-ld-22"] {
            fs::write(bin.join(name), "").unwrap();
        }
        let guest = Guest {
            decided_for: "1.95".into(),
            id: "rustc 1.96".into(),
            why: "because".into(),
            root: Some(folder.path().to_owned()),
        };
        let again: Guest = toml::from_str(&toml::to_string(&guest).unwrap()).unwrap();
        assert_eq!(again, guest);
        assert!(guest.stands("1.95"));
        assert!(!guest.stands("1.97"), "the compiler on PATH is another");
        fs::remove_file(bin.join("wasm-ld-22")).unwrap();
        assert!(!guest.stands("1.95"), "the linker is gone");
    }
}
