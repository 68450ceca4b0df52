//! What makes components of Python and JavaScript: componentize-py and componentize-js, of pinned versions, in folders of their
//! own in the cache.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{RESUMES, Site, python};
use crate::cache;
use crate::child;
use crate::progress::Progress;
use crate::stamp::{self, Key};

const COMPONENTIZE_PY: &str = "componentize-py==0.25.0";
/// The template's own list, so that a project and the cache have the same.
const PACKAGE_JSON: &str = "host/author/templates/js/package.json";

/// Installs both if they are not there. Tells whether there was anything to do.
pub(crate) fn ensure(site: &Site) -> Result<bool> {
    let python = ensure_python(site)?;
    Ok(ensure_js(site)? || python)
}

fn ensure_python(site: &Site) -> Result<bool> {
    let mut worked = python::ensure(site)?;
    let folder = site.cache.path("author-python");
    let program = folder.join("bin/componentize-py");
    let key = Key::new("author-python/1").text(COMPONENTIZE_PY).finish();
    if stamp::fresh(&site.cache, "author-python", &key) && program.is_file() {
        return Ok(worked);
    }
    worked = true;
    stamp::forget(&site.cache, "author-python");
    let progress = Progress::start("author: componentize-py, which makes components of Python");
    cache::remove(&folder).with_context(|| format!("{} cannot be deleted", folder.display()))?;
    let log = site.cache.log("author");
    let mut venv = Command::new(site.cache.python());
    child::quietly(venv.args(["-m", "venv"]).arg(&folder), &progress, &log, None)?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", COMPONENTIZE_PY])
        .env("PIP_NO_INPUT", "1")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    child::quietly(&mut pip, &progress, &log, None)
        .with_context(|| format!("{COMPONENTIZE_PY} could not be installed; {RESUMES}"))?;
    stamp::write(&site.cache, "author-python", &key, &[program])?;
    progress.done(COMPONENTIZE_PY);
    Ok(worked)
}

fn ensure_js(site: &Site) -> Result<bool> {
    let folder = site.cache.path("author-js");
    let wanted = fs::read_to_string(site.repo.join(PACKAGE_JSON))
        .with_context(|| format!("{PACKAGE_JSON} cannot be read"))?;
    let wanted = wanted.replace("{{name}}", "author-js");
    let made = folder.join("node_modules/@bytecodealliance/componentize-js/package.json");
    let key = Key::new("author-js/1").text(&wanted).finish();
    if stamp::fresh(&site.cache, "author-js", &key) && made.is_file() {
        return Ok(false);
    }
    for program in ["node", "npm"] {
        if child::on_path(program).is_none() {
            bail!("there is no {program}: install Node.js 20 or later (Debian: apt-get install nodejs npm)");
        }
    }
    stamp::forget(&site.cache, "author-js");
    let progress = Progress::start("author: componentize-js, which makes components of JavaScript");
    remove_and_make(&folder)?;
    fs::write(folder.join("package.json"), &wanted).context("package.json cannot be written")?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder);
    child::quietly(&mut npm, &progress, &site.cache.log("author"), None)
        .with_context(|| format!("componentize-js could not be installed; {RESUMES}"))?;
    stamp::write(&site.cache, "author-js", &key, &[made])?;
    progress.done("installed into the cache");
    Ok(true)
}

fn remove_and_make(folder: &Path) -> Result<()> {
    cache::remove(folder).with_context(|| format!("{} cannot be deleted", folder.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))
}
