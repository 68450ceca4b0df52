//! The model of `examples/file-kinds`, made by the example's own recipe.

use std::process::Command;

use anyhow::{Context, Result};

use super::{RESUMES, Site, python};
use crate::child;
use crate::progress::Progress;
use crate::stamp::{self, Key};

/// Makes the model if it is not there as the recipe would make it. Tells whether there was anything to do.
pub(crate) fn ensure(site: &Site) -> Result<bool> {
    let worked = python::ensure(site)?;
    let recipe = site.repo.join("examples/file-kinds/make_model.py");
    let key = Key::new("example/1").tree(&recipe)?.finish();
    if stamp::fresh(&site.cache, "example", &key) {
        return Ok(worked);
    }
    stamp::forget(&site.cache, "example");
    let progress = Progress::start("example: magika's graph, from its package");
    let models = site.cache.path("models");
    let mut make = Command::new(site.cache.python());
    make.arg(&recipe)
        .arg("--out")
        .arg(&models)
        .env("PIP_NO_INPUT", "1")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    child::quietly(&mut make, &progress, &site.cache.log("example"), None)
        .with_context(|| format!("the example's model could not be made; {RESUMES}"))?;
    stamp::write(&site.cache, "example", &key, &[models.join("magika-v3-3/model.toml")])?;
    progress.done("");
    Ok(true)
}
