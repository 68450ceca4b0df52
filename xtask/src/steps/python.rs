//! A Python of our own: the recipes in `tasks/models` need packages of pinned versions, and nobody's system Python
//! shall be changed for it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{RESUMES, Site};
use crate::cache;
use crate::child;
use crate::progress::Progress;
use crate::stamp::{self, Key};

/// Oldest Python that the pinned packages run on.
const OLDEST: (u32, u32) = (3, 11);

/// Versions for which every pinned package has a wheel at the time of writing: taken before others that will do.
const WELL_SERVED: std::ops::RangeInclusive<(u32, u32)> = (3, 11)..=(3, 13);

/// Asked in this order; the first that is well served is taken, else the first that is new enough.
const CANDIDATES: [&str; 6] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"];

/// Says which version it is, and whether it can make environments.
const PROBE: &str = "import sys, importlib.util as u; \
    print(*sys.version_info[:2], int(all(map(u.find_spec, ('venv', 'ensurepip')))), sys.executable)";

/// An interpreter found on this machine.
struct Interpreter {
    version: (u32, u32),
    path: PathBuf,
}

/// What a probe said: version, whether it can make environments, path.
fn parse(answer: &str) -> Option<((u32, u32), bool, PathBuf)> {
    let mut words = answer.splitn(4, ' ');
    let version = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let whole = words.next()? == "1";
    Some((version, whole, PathBuf::from(words.next()?)))
}

fn find() -> Result<Interpreter> {
    let mut without_venv = None;
    let mut second_choice = None;
    for candidate in CANDIDATES {
        let Ok(answer) = child::ask(Command::new(candidate).args(["-I", "-c", PROBE])) else { continue };
        match parse(&answer) {
            Some((version, true, path)) if WELL_SERVED.contains(&version) => {
                return Ok(Interpreter { version, path });
            }
            Some((version, true, path)) if version >= OLDEST => {
                second_choice.get_or_insert(Interpreter { version, path });
            }
            Some((version, false, path)) if version >= OLDEST => without_venv = Some(path),
            _ => {}
        }
    }
    if let Some(found) = second_choice {
        return Ok(found);
    }
    match without_venv {
        Some(path) => bail!(
            "{} cannot make environments: install its venv module (Debian, Ubuntu: apt-get install python3-venv)",
            path.display()
        ),
        None => bail!(
            "no Python {}.{} or newer was found on PATH: install one (Debian, Ubuntu: apt-get install python3 \
             python3-venv)",
            OLDEST.0,
            OLDEST.1
        ),
    }
}

/// `python -m pip`, told not to ask and not to chat.
pub(crate) fn pip(site: &Site) -> Command {
    let mut command = Command::new(site.cache.python());
    command.args(["-m", "pip"]).env("PIP_NO_INPUT", "1").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    // An environment of our own is not the place for a user's defaults on where to install.
    for name in ["PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONPATH", "PYTHONHOME"] {
        command.env_remove(name);
    }
    command
}

/// Makes the environment if it is not there as the requirements ask. Tells whether there was anything to do.
pub(crate) fn ensure(site: &Site) -> Result<bool> {
    let requirements = site.repo.join("tasks/models/requirements.txt");
    let key = Key::new("python/1").tree(&requirements)?.finish();
    if stamp::fresh(&site.cache, "python", &key) {
        return Ok(false);
    }
    let found = find()?;
    stamp::forget(&site.cache, "python");
    let log = site.cache.log("python");
    let (major, minor) = found.version;
    let progress = Progress::start(format!(
        "python {major}.{minor}: an environment for the model recipes, packages from your package index"
    ));

    // An environment cannot be moved, so it is made in place: what makes it count is the stamp, written last.
    let venv = site.cache.path("venv");
    cache::remove(&venv).with_context(|| format!("{} cannot be deleted", venv.display()))?;
    progress.detail("making the environment");
    child::quietly(Command::new(&found.path).args(["-I", "-m", "venv"]).arg(&venv), &progress, &log, None)?;

    // Two moves, so that an interrupted run keeps the files it has downloaded.
    let wheels = site.cache.path("wheels");
    std::fs::create_dir_all(&wheels).with_context(|| format!("{} cannot be made", wheels.display()))?;
    child::quietly(
        pip(site)
            .args(["download", "--only-binary=:all:", "--progress-bar=off", "-r"])
            .arg(&requirements)
            .arg("-d")
            .arg(&wheels),
        &progress,
        &log,
        None,
    )
    .with_context(|| {
        format!("the packages of tasks/models/requirements.txt could not be fetched; {RESUMES}")
    })?;
    child::quietly(
        pip(site).args(["install", "--no-index", "-r"]).arg(&requirements).arg("--find-links").arg(&wheels),
        &progress,
        &log,
        None,
    )?;
    stamp::write(&site.cache, "python", &key, &[site.cache.python()])?;
    progress.done("");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_tells_version_modules_and_path_even_with_spaces() {
        let (version, whole, path) = parse("3 11 1 /opt/my python/bin/python3").unwrap();
        assert_eq!((version, whole), ((3, 11), true));
        assert_eq!(path, PathBuf::from("/opt/my python/bin/python3"));
        assert!(!parse("3 12 0 /usr/bin/python3").unwrap().1);
        assert!(parse("Python 2.7.18").is_none());
    }

    #[test]
    fn three_eleven_is_newer_than_three_nine() {
        assert!(parse("3 11 1 p").unwrap().0 >= OLDEST && parse("3 9 1 p").unwrap().0 < OLDEST);
        assert!(
            WELL_SERVED.contains(&(3, 12))
                && !WELL_SERVED.contains(&(3, 9))
                && !WELL_SERVED.contains(&(3, 14))
        );
    }
}
