//! Where everything lives that is fetched or built outside the clone, and who may change it.
//!
//! One rule finds the root: `$NINETEEN_CACHE`, else `$XDG_CACHE_HOME/nineteen`, else `$HOME/.cache/nineteen`. The
//! `nineteen` binary follows the same rule, and every child of xtask is told the answer in `NINETEEN_CACHE`, so the
//! two cannot disagree. Deleting the whole folder is always safe: the next run makes it again.
//!
//! Nothing in it is ever half-written: a file or folder is made under a name that starts with [`TEMPORARY`], then
//! renamed. What an interrupted run left behind under such names is swept by the next.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How names of unfinished things begin.
pub(crate) const TEMPORARY: &str = ".unfinished-";

/// What xtask makes under the root, and may therefore delete.
const OURS: [&str; 15] = [
    "models",
    "components",
    "onnxruntime",
    "compiled",
    "venv",
    "wheels",
    "guest-toolchain",
    "plugins-target",
    "oci",
    "registry",
    "author-python",
    "author-js",
    "tools",
    "stamps",
    "logs",
];

/// The paths under one root.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// The root, from a function that reads the environment. A relative `XDG_CACHE_HOME` is ignored, as its
/// specification asks; a relative `NINETEEN_CACHE` was said on purpose and means "from here".
fn root_from(read: impl Fn(&str) -> Option<OsString>, here: &Path) -> Result<PathBuf> {
    let set = |name: &str| read(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set("NINETEEN_CACHE") {
        return Ok(here.join(path));
    }
    if let Some(path) = set("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
        return Ok(path.join("nineteen"));
    }
    match set("HOME").or_else(|| set("USERPROFILE")).filter(|path| path.is_absolute()) {
        Some(home) => Ok(home.join(".cache").join("nineteen")),
        None => bail!("no home folder is known: set NINETEEN_CACHE to a folder that may be filled"),
    }
}

impl Cache {
    /// The cache of this user, made if it is not there.
    pub(crate) fn open() -> Result<Cache> {
        let here = std::env::current_dir().context("the current folder cannot be read")?;
        Cache::at(root_from(|name| std::env::var_os(name), &here)?)
    }

    /// A cache in a given folder.
    pub(crate) fn at(root: PathBuf) -> Result<Cache> {
        fs::create_dir_all(&root).with_context(|| {
            format!("{} cannot be made: set NINETEEN_CACHE to a folder that can", root.display())
        })?;
        Ok(Cache { root })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the root.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The interpreter that runs our recipes.
    pub(crate) fn python(&self) -> PathBuf {
        let folder = self.path("venv");
        if cfg!(windows) { folder.join("Scripts/python.exe") } else { folder.join("bin/python") }
    }

    /// Where the whole output of a step's commands goes.
    pub(crate) fn log(&self, step: &str) -> PathBuf {
        self.root.join("logs").join(format!("{step}.log"))
    }

    /// Takes the lock on the cache, waiting for another xtask that holds it. Released on drop, also by a kill.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let path = self.root.join("lock");
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(&path).with_context(
                || format!("{} cannot be opened: is the cache yours to write?", path.display()),
            )?;
        let began = Instant::now();
        let mut said = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    if began.elapsed().as_secs() >= said {
                        let mut holder = String::new();
                        file.rewind().and_then(|()| file.read_to_string(&mut holder)).unwrap_or_default();
                        let holder = holder.trim();
                        eprintln!("another xtask (process {holder}) is filling the cache: waiting for it");
                        said = began.elapsed().as_secs() + 10;
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("{} cannot be locked", path.display()));
                }
            }
        }
        // Whom to wait for; only ever read by a person.
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .with_context(|| format!("{} cannot be written: is the disk full?", path.display()))?;
        Ok(Lock { _file: file })
    }

    /// Deletes what an interrupted run left unfinished. Call with the lock held.
    pub(crate) fn sweep(&self, _lock: &Lock) {
        for folder in ["", "components", "onnxruntime", "wheels", "stamps"] {
            let Ok(entries) = fs::read_dir(self.root.join(folder)) else { continue };
            for entry in entries.flatten() {
                if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                    // Only room is lost when this fails.
                    let _ = remove(&entry.path());
                }
            }
        }
    }

    /// Deletes what xtask made, and nothing else that may lie in the same folder; with `target`, also the folder
    /// of compiled crates. Gives the paths that were there.
    pub(crate) fn clean(&self, _lock: &Lock, target: bool) -> Result<Vec<PathBuf>> {
        let mut gone = Vec::new();
        for name in OURS.iter().copied().chain(target.then_some("target")) {
            let path = self.root.join(name);
            if path.symlink_metadata().is_ok() {
                remove(&path).with_context(|| format!("{} cannot be deleted", path.display()))?;
                gone.push(path);
            }
        }
        Ok(gone)
    }
}

/// Proof that no other xtask writes to the cache.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Deletes a file, a link or a folder; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
    if meta.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// A name beside `path` for what will become it.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{TEMPORARY}{name}"))
}

/// Writes a file so that it is there whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let whole = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let temporary = unfinished(path);
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        // Before the rename, or a power cut can leave the new name with no content.
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    whole().with_context(|| format!("{} cannot be written: is the disk full?", path.display()))
}

/// Puts a finished folder in its place, where an older one may stand.
pub(crate) fn settle(made: &Path, place: &Path) -> Result<()> {
    let swap = || -> std::io::Result<()> {
        let old = place.with_file_name(format!(
            "{TEMPORARY}old-{}",
            place.file_name().unwrap_or_default().to_string_lossy()
        ));
        remove(&old)?;
        if place.symlink_metadata().is_ok() {
            fs::rename(place, &old)?;
        }
        fs::rename(made, place)?;
        remove(&old)
    };
    swap().with_context(|| format!("{} cannot be put in place", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(set: &[(&str, &str)]) -> Result<PathBuf> {
        root_from(
            |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)),
            Path::new("/here"),
        )
    }

    #[test]
    fn the_cache_is_where_the_rule_says() {
        let all = [("NINETEEN_CACHE", "/a"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(root(&all).unwrap(), Path::new("/a"));
        assert_eq!(root(&all[1..]).unwrap(), Path::new("/x/nineteen"));
        assert_eq!(root(&all[2..]).unwrap(), Path::new("/h/.cache/nineteen"));
    }

    #[test]
    fn an_empty_or_relative_setting_never_scatters_files() {
        assert_eq!(root(&[("NINETEEN_CACHE", ""), ("HOME", "/h")]).unwrap(), Path::new("/h/.cache/nineteen"));
        assert_eq!(root(&[("NINETEEN_CACHE", "c")]).unwrap(), Path::new("/here/c"));
        let relative = [("XDG_CACHE_HOME", "c"), ("HOME", "/h")];
        assert_eq!(root(&relative).unwrap(), Path::new("/h/.cache/nineteen"));
        let nowhere = root(&[("HOME", "relative")]).unwrap_err();
        assert!(nowhere.to_string().contains("NINETEEN_CACHE"), "{nowhere}");
    }

    #[test]
    fn a_second_xtask_waits_until_the_first_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned()).unwrap();
        let first = cache.lock().unwrap();
        let held = Instant::now();
        let second = std::thread::spawn({
            let cache = cache.clone();
            move || cache.lock().map(|_| Instant::now()).unwrap()
        });
        std::thread::sleep(Duration::from_millis(400));
        drop(first);
        assert!(second.join().unwrap() - held >= Duration::from_millis(400));
    }

    #[test]
    fn what_a_killed_run_left_is_swept_and_what_is_finished_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned()).unwrap();
        write(&cache.path("wheels/a.whl"), b"whole").unwrap();
        fs::write(unfinished(&cache.path("wheels/b.whl")), b"hal").unwrap();
        fs::create_dir_all(unfinished(&cache.path("onnxruntime/1")).join("deep")).unwrap();
        let lock = cache.lock().unwrap();
        cache.sweep(&lock);
        assert_eq!(fs::read_dir(cache.path("wheels")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(cache.path("onnxruntime")).unwrap().count(), 0);
    }

    #[test]
    fn cleaning_deletes_our_folders_only() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned()).unwrap();
        for name in ["models/m/model.onnx", "target/debug/x", "photographs/cat.jpg"] {
            write(&cache.path(name), b"x").unwrap();
        }
        let lock = cache.lock().unwrap();
        assert_eq!(cache.clean(&lock, false).unwrap(), [cache.path("models")]);
        assert!(cache.path("target/debug/x").exists() && cache.path("photographs/cat.jpg").exists());
    }
}
