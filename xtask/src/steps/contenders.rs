//! What the sandbox is measured against and with: the templates' tasks in three languages, and Extism with the same function.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{RESUMES, Site, author, toolchain};
use crate::cache;
use crate::child;
use crate::progress::Progress;
use crate::stamp::{self, Key};

/// Languages of the templates.
const LANGUAGES: [&str; 3] = ["rust", "python", "js"];

/// Where they lie.
pub(crate) fn folder(site: &Site) -> PathBuf {
    site.cache.path("contenders")
}

/// Makes what is not there; `nineteen` is the program that makes tasks. Tells whether there was anything to do.
pub(crate) fn ensure(site: &Site, nineteen: &Path) -> Result<bool> {
    let mut worked = author::ensure(site)?;
    fs::create_dir_all(folder(site)).with_context(|| format!("{} cannot be made", folder(site).display()))?;
    for lang in LANGUAGES {
        worked |= ensure_task(site, nineteen, lang)?;
    }
    worked |= ensure_plugin(site)?;
    Ok(ensure_host(site)? || worked)
}

/// The template's task of a language, as its author would get and build it.
fn ensure_task(site: &Site, nineteen: &Path, lang: &str) -> Result<bool> {
    let (step, project) = (format!("contender-{lang}"), folder(site).join(lang));
    let key = Key::new("contender/1")
        .tree(&site.repo.join("host/author"))?
        .tree(&site.repo.join("plugins/sdk"))?
        .tree(&site.repo.join("wit"))?
        .finish();
    let made = project.join(format!("task/bench-{lang}.wasm"));
    if stamp::fresh(&site.cache, &step, &key) && made.is_file() {
        return Ok(false);
    }
    stamp::forget(&site.cache, &step);
    let progress = Progress::start(format!("contenders: the template's task in {lang}"));
    cache::remove(&project).with_context(|| format!("{} cannot be deleted", project.display()))?;
    let log = site.cache.log("contenders");
    let name = format!("bench-{lang}");
    let task = |args: &[&str]| {
        let mut command = Command::new(nineteen);
        command.arg("task").args(args).env("NINETEEN_CACHE", site.cache.root()).current_dir(folder(site));
        command
    };
    child::quietly(&mut task(&["new", &name, "--lang", lang, "--dir", lang]), &progress, &log, None)?;
    child::quietly(&mut task(&["build", lang]), &progress, &log, None)?;
    stamp::write(&site.cache, &step, &key, &[made])?;
    progress.done("");
    Ok(true)
}

/// The function as an Extism plugin, by the compiler that makes the components.
fn ensure_plugin(site: &Site) -> Result<bool> {
    let (guest, worked) = toolchain::ensure(site)?;
    let source = site.repo.join("benches/sandbox");
    let key = Key::new("extism-plugin/1")
        .text(&guest.id)
        .tree(&source.join("plugin"))?
        .tree(&source.join("work.rs"))?
        .finish();
    let made = folder(site).join("extism.wasm");
    if stamp::fresh(&site.cache, "extism-plugin", &key) && made.is_file() {
        return Ok(worked);
    }
    stamp::forget(&site.cache, "extism-plugin");
    let progress = Progress::start("contenders: the function as an Extism plugin");
    let target = site.cache.path("plugins-target/extism");
    let mut build = guest.cargo(&site.cache);
    build.current_dir(source.join("plugin")).args(["--release", "--locked"]).env("CARGO_TARGET_DIR", &target);
    child::quietly(&mut build, &progress, &site.cache.log("contenders"), None).with_context(|| {
        format!("the plugin does not compile (if something could not be fetched: {RESUMES})")
    })?;
    let module = target.join(toolchain::TARGET).join("release/nineteen_bench_extism_plugin.wasm");
    fs::copy(&module, &made).with_context(|| format!("{} cannot be copied", module.display()))?;
    stamp::write(&site.cache, "extism-plugin", &key, &[made])?;
    progress.done("");
    Ok(true)
}

/// The program that runs it, by a compiler that is new enough for Extism.
fn ensure_host(site: &Site) -> Result<bool> {
    let source = site.repo.join("benches/sandbox/extism");
    let made = folder(site).join("nineteen-bench-extism");
    let key = Key::new("extism-host/1").tree(&source)?.finish();
    if stamp::fresh(&site.cache, "extism-host", &key) && made.is_file() {
        return Ok(false);
    }
    stamp::forget(&site.cache, "extism-host");
    let progress = Progress::start("contenders: Extism, compiled once, ten minutes or more");
    let mut build = toolchain::native(site, &progress)?;
    let target = site.cache.path("target-extism");
    build.current_dir(&source).args(["--release", "--locked"]).env("CARGO_TARGET_DIR", &target);
    child::quietly(&mut build, &progress, &site.cache.log("contenders"), None)
        .with_context(|| format!("Extism does not compile (if something could not be fetched: {RESUMES})"))?;
    let program = target.join("release/nineteen-bench-extism");
    if !program.is_file() {
        bail!("{} was not made", program.display());
    }
    fs::copy(&program, &made).with_context(|| format!("{} cannot be copied", program.display()))?;
    stamp::write(&site.cache, "extism-host", &key, &[made])?;
    progress.done("");
    Ok(true)
}
