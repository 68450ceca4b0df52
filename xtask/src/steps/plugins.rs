//! The task components: `plugins/` compiled to WebAssembly, turned into components and locked by digest.
//!
//! The compiler gives core modules with the contract in a custom section; `wit_component` makes components of them
//! in this process. Nothing of WASI gets in, which is what a pure task should look like. `components.lock` says
//! which bytes were built here: the validator refuses others.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wit_component::ComponentEncoder;

use super::{RESUMES, Site, toolchain};
use crate::cache;
use crate::child;
use crate::progress::Progress;
use crate::stamp::{self, Key};

/// `components.lock`: what was built, by name.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ComponentLock {
    /// `sha256:` and 64 hexadecimal digits.
    digests: BTreeMap<String, String>,
}

impl ComponentLock {
    /// Reads a lock. Anything but names of files and whole digests is refused.
    fn parse(text: &str) -> Result<ComponentLock> {
        let lock: ComponentLock = toml::from_str(text).context("components.lock cannot be parsed")?;
        for (name, digest) in &lock.digests {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            ensure!(
                !name.is_empty() && name.chars().all(plain),
                "components.lock: {name:?} is no component's name"
            );
            let whole = digest
                .strip_prefix("sha256:")
                .and_then(|d| hex::decode(d).ok())
                .is_some_and(|d| d.len() == 32);
            ensure!(whole, "components.lock: the digest of {name} is not sha256 and 64 hexadecimal digits");
        }
        Ok(lock)
    }

    /// Whether every component is there with the digest that the lock names.
    fn holds(&self, folder: &Path) -> bool {
        let same = |(name, digest): (&String, &String)| {
            fs::read(folder.join(format!("{name}.wasm"))).is_ok_and(|bytes| digest_of(&bytes) == *digest)
        };
        !self.digests.is_empty() && self.digests.iter().all(same)
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// What one line of `cargo build --message-format=json` says about a module: the plugin's folder and the file.
/// Components are called as the folder is.
fn module_of(line: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if message.get("reason")?.as_str()? != "compiler-artifact" {
        return None;
    }
    let cdylib = message.get("target")?.get("crate_types")?.as_array()?.iter().any(|kind| kind == "cdylib");
    let file = message
        .get("filenames")?
        .as_array()?
        .iter()
        .filter_map(|f| f.as_str())
        .find(|f| f.ends_with(".wasm"))?;
    let folder = Path::new(message.get("manifest_path")?.as_str()?).parent()?.file_name()?;
    cdylib.then(|| (folder.to_string_lossy().into_owned(), PathBuf::from(file)))
}

/// Core module in, component out.
fn encode(name: &str, module: &[u8]) -> Result<Vec<u8>> {
    // wit-component has errors of its own kind: their words are enough.
    let component =
        ComponentEncoder::default().validate(true).module(module).and_then(|encoder| encoder.encode());
    component.map_err(|error| {
        anyhow::anyhow!(
            "{name} does not become a component ({error:#}): its wit-bindgen must be the one that wit-component 0.258 \
             reads, see plugins/Cargo.toml"
        )
    })
}

/// Builds the components if their sources or the compiler changed. Tells whether there was anything to do.
pub(crate) fn ensure(site: &Site) -> Result<bool> {
    let (guest, mut worked) = toolchain::ensure(site)?;
    let plugins = site.repo.join("plugins");
    let key = Key::new("plugins/1").text(&guest.id).tree(&plugins)?.tree(&site.repo.join("wit"))?.finish();
    let folder = site.cache.path("components");
    let place = folder.join("components.lock");
    let held =
        || ComponentLock::parse(&fs::read_to_string(&place).ok()?).ok().filter(|lock| lock.holds(&folder));
    if stamp::fresh(&site.cache, "plugins", &key) && held().is_some() {
        return Ok(worked);
    }
    worked = true;
    stamp::forget(&site.cache, "plugins");
    let progress = Progress::start("plugins: compiling the task components to WebAssembly");
    let mut build = guest.cargo(&site.cache);
    // Digests must not depend on where the clone or cargo's home lies.
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let remapped: Vec<String> = [Some((site.repo.clone(), "nineteen")), home.map(|home| (home, "cargo"))]
        .into_iter()
        .flatten()
        .map(|(from, to)| format!("'--remap-path-prefix={}={to}'", from.display()))
        .collect();
    build
        .current_dir(&plugins)
        .args(["--config", &format!("target.{}.rustflags=[{}]", toolchain::TARGET, remapped.join(","))])
        .args(["--release", "--locked", "--workspace", "--message-format=json-render-diagnostics"])
        .env("CARGO_TARGET_DIR", site.cache.path("plugins-target/wasm"));
    let lines =
        child::collect(&mut build, &progress, &site.cache.log("plugins"), None, |line| line.starts_with('{'))
            .with_context(|| {
                format!("the plugins do not compile (if something could not be fetched: {RESUMES})")
            })?;
    let modules: BTreeMap<String, PathBuf> = lines.iter().filter_map(|line| module_of(line)).collect();
    ensure!(!modules.is_empty(), "no plugin gave a module: is there a cdylib in plugins/?");

    let mut lock = ComponentLock::default();
    let mut bytes = 0;
    for (name, module) in &modules {
        progress.detail(&format!("encoding {name}"));
        let module = fs::read(module).with_context(|| format!("{} cannot be read", module.display()))?;
        let component = encode(name, &module)?;
        bytes += component.len();
        cache::write(&folder.join(format!("{name}.wasm")), &component)?;
        lock.digests.insert(name.clone(), digest_of(&component));
    }
    let text = toml::to_string(&lock).context("components.lock cannot be written")?;
    cache::write(&place, text.as_bytes())?;
    let made: Vec<PathBuf> = modules.keys().map(|name| folder.join(format!("{name}.wasm"))).collect();
    stamp::write(&site.cache, "plugins", &key, &made)?;
    let names: Vec<&str> = modules.keys().map(String::as_str).collect();
    progress.done(&format!("{} ({} kB)", names.join(", "), bytes / 1000));
    Ok(worked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_back_as_it_was_written() {
        let mut lock = ComponentLock::default();
        lock.digests.insert("text-generation".into(), digest_of(b"component"));
        let text = toml::to_string(&lock).unwrap();
        assert!(text.starts_with("[digests]\ntext-generation = \"sha256:"), "{text}");
        assert_eq!(ComponentLock::parse(&text).unwrap(), lock);
    }

    #[test]
    fn a_lock_with_anything_else_in_it_is_refused() {
        let digest = digest_of(b"x");
        for (bad, why) in [
            (format!("[digests]\n\"../evil\" = \"{digest}\""), "no component's name"),
            ("[digests]\na = \"sha256:12\"".to_owned(), "64 hexadecimal"),
            ("[digests]\na = \"md5:00\"".to_owned(), "64 hexadecimal"),
            ("[digests]\n[other]".to_owned(), "cannot be parsed"),
            ("[dig".to_owned(), "cannot be parsed"),
        ] {
            let error = format!("{:#}", ComponentLock::parse(&bad).unwrap_err());
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_component_that_was_exchanged_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.wasm");
        fs::write(&file, "component").unwrap();
        let lock = ComponentLock::parse(&format!("[digests]\na = \"{}\"", digest_of(b"component"))).unwrap();
        assert!(lock.holds(folder.path()));
        fs::write(&file, "c0mponent").unwrap();
        assert!(!lock.holds(folder.path()));
        fs::remove_file(&file).unwrap();
        assert!(!lock.holds(folder.path()));
        assert!(!ComponentLock::default().holds(folder.path()), "an empty lock holds nothing");
    }

    #[test]
    fn modules_are_found_in_what_cargo_says_and_named_as_their_folder() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/r/plugins/text-generation/Cargo.toml",
            "target":{"crate_types":["cdylib","rlib"]},"filenames":["/t/x.rlib","/t/text_generation.wasm"]}"#;
        let (name, file) = module_of(line).unwrap();
        assert_eq!((name.as_str(), file), ("text-generation", PathBuf::from("/t/text_generation.wasm")));
        assert!(module_of(&line.replace("cdylib", "bin")).is_none());
        assert!(module_of(&line.replace(".wasm", ".so")).is_none());
        assert!(module_of("{\"reason\":\"build-finished\",\"success\":true}").is_none());
        assert!(module_of("warning: unused").is_none());
    }

    #[test]
    fn bytes_that_are_no_module_are_an_error_that_names_the_plugin() {
        let error = encode("text-generation", b"\0asm but not really").unwrap_err();
        assert!(error.to_string().contains("text-generation"), "{error}");
    }
}
