//! A container registry for the tests: Debian's `docker-registry`, installed, or unpacked into the cache.
//!
//! What carries tasks is proved against the registry that people run, and not against one of our own. It needs no
//! root rights: the package is one program, and tests give it a folder and a port.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{RESUMES, Site};
use crate::cache;
use crate::child;
use crate::progress::Progress;

const PACKAGE: &str = "docker-registry";

/// The program below a root.
fn program(root: &Path) -> PathBuf {
    root.join("usr/bin/docker-registry")
}

/// Whether the program below a root starts.
fn starts(root: &Path) -> bool {
    let program = program(root);
    program.is_file() && child::ask(Command::new(program).arg("--version")).is_ok()
}

/// Unpacks the registry if it is not there. Tells whether there was anything to do.
pub(crate) fn ensure(site: &Site) -> Result<bool> {
    let folder = site.cache.path("registry");
    let root = folder.join("root");
    if starts(Path::new("/")) || starts(&root) {
        return Ok(false);
    }
    for program in ["apt-get", "dpkg"] {
        if child::on_path(program).is_none() {
            bail!(
                "this is no Debian: there is no {program}; install {PACKAGE} (2.8 or later) as /usr/bin/{PACKAGE}"
            );
        }
    }
    let progress = Progress::start("registry: fetching Debian's docker-registry, about 5 MB");
    let log = site.cache.log("registry");
    let debs = cache::unfinished(&folder.join("debs"));
    cache::remove(&debs).with_context(|| format!("{} cannot be deleted", debs.display()))?;
    fs::create_dir_all(&debs).with_context(|| format!("{} cannot be made", debs.display()))?;
    let mut download = Command::new("apt-get");
    download.args(["download", "-q", PACKAGE]).current_dir(&debs);
    child::quietly(&mut download, &progress, &log, None).with_context(|| {
        format!("the Debian package {PACKAGE} could not be fetched (try `apt-get update`); {RESUMES}")
    })?;
    let entries = fs::read_dir(&debs).with_context(|| format!("{} cannot be read", debs.display()))?;
    let deb =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "deb"));
    let deb = deb.with_context(|| format!("apt-get fetched {PACKAGE} and left no file"))?;
    let made = cache::unfinished(&root);
    cache::remove(&made).with_context(|| format!("{} cannot be deleted", made.display()))?;
    fs::create_dir_all(&made).with_context(|| format!("{} cannot be made", made.display()))?;
    child::quietly(Command::new("dpkg").arg("-x").arg(&deb).arg(&made), &progress, &log, None)?;
    if !starts(&made) {
        bail!("what was unpacked does not start: {}", program(&made).display());
    }
    cache::settle(&made, &root)?;
    // Only room is lost when this fails.
    let _ = cache::remove(&debs);
    progress.done("unpacked into the cache, nothing installed");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_folder_and_a_file_that_does_not_run_are_no_registry() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!starts(folder.path()));
        let file = program(folder.path());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "no program").unwrap();
        assert!(!starts(folder.path()));
    }
}
