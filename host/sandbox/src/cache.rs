//! Compiled components on disk.
//!
//! What is in a file is run as machine code, so a file is believed only if its keyed hash says that this
//! host wrote it: the key is drawn once per folder, is readable by its owner alone, and never leaves the
//! folder. A file that is damaged, foreign, or of another engine is compiled again, never trusted.
//!
//! A file's name is a hash of (digest of the component, engine settings, host version); its content is
//! `MAC(32) ‖ compiled`, where the MAC covers the name too, so that files cannot be exchanged.

use std::fs::{self, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nineteen_domain::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::SandboxError;

const KEY_FILE: &str = "key";
const MAC_BYTES: usize = 32;

/// Compiled components that are kept; the oldest go first.
const KEPT: usize = 64;

/// Age of an unfinished file that nobody is writing any more.
const STALE: Duration = Duration::from_secs(3600);

/// The folder and its key.
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    host: String,
    /// The largest file that is read at all.
    max_file_bytes: u64,
    unique: AtomicU64,
}

impl Cache {
    /// Opens or makes the folder (mode 0700) and its key (mode 0600).
    pub(crate) fn open(
        dir: &Path,
        host: &semver::Version,
        max_component_bytes: u64,
    ) -> Result<Self, SandboxError> {
        let refuse = |path: &Path, why: String| SandboxError::CacheDir { path: path.to_owned(), why };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| refuse(dir, e.to_string()))?;
        let path = dir.join(KEY_FILE);
        let key = match read_key(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_key(dir, &path).and_then(|()| read_key(&path))
            }
            other => other,
        }
        .map_err(|e| refuse(&path, e.to_string()))?;
        Ok(Self {
            dir: dir.to_owned(),
            key,
            host: host.to_string(),
            // Machine code is some five times the size of what it was compiled from.
            max_file_bytes: max_component_bytes.saturating_mul(32).saturating_add(1 << 20),
            unique: AtomicU64::new(0),
        })
    }

    /// The name under which this component is kept.
    pub(crate) fn name(&self, engine: &Engine, component: &Digest) -> String {
        let mut hash = Blake(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut hash);
        hash.write(&(self.host.len() as u64).to_le_bytes());
        hash.write(self.host.as_bytes());
        hash.write(component.as_bytes());
        format!("{}.cwasm", hash.0.finalize().to_hex())
    }

    /// The compiled component, if this host wrote one and it is whole.
    pub(crate) fn get(&self, engine: &Engine, name: &str) -> Option<Component> {
        let path = self.dir.join(name);
        let content = match self.read(&path) {
            Ok(content) => content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                tracing::warn!(file = %path.display(), error = %e, "a compiled component cannot be read: it is compiled again");
                return None;
            }
        };
        let believed = content.split_first_chunk::<MAC_BYTES>().and_then(|(mac, compiled)| {
            // blake3 hashes compare in constant time.
            (self.mac(name, compiled) == blake3::Hash::from_bytes(*mac)).then_some(compiled)
        });
        let Some(compiled) = believed else {
            tracing::warn!(file = %path.display(), "a compiled component was changed since it was written: it is compiled again");
            return None;
        };
        match deserialize(engine, &Authentic(compiled)) {
            Ok(component) => Some(component),
            Err(e) => {
                tracing::warn!(file = %path.display(), error = %e, "a compiled component does not fit this engine: it is compiled again");
                None
            }
        }
    }

    /// Compiles, keeps, and gives the component. A cache that cannot be written costs time, not the task.
    pub(crate) fn compile(
        &self,
        engine: &Engine,
        name: &str,
        component: &[u8],
    ) -> wasmtime::Result<Component> {
        let compiled = engine.precompile_component(component)?;
        self.keep(engine, name, &compiled)
    }

    /// Keeps what a compiler of ours gave through its pipe, and gives the component.
    pub(crate) fn keep(&self, engine: &Engine, name: &str, compiled: &[u8]) -> wasmtime::Result<Component> {
        if let Err(e) = self.put(name, compiled) {
            tracing::warn!(folder = %self.dir.display(), error = %e, "a compiled component cannot be kept: it will be compiled again");
        }
        deserialize(engine, &Authentic(compiled))
    }

    /// The most bytes of machine code.
    pub(crate) const fn most(&self) -> u64 {
        self.max_file_bytes
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = fs::File::open(path)?;
        // Room for all of it at once: growing would copy megabytes several times.
        let room = file.metadata()?.len().min(self.max_file_bytes);
        let mut content = Vec::with_capacity(usize::try_from(room).unwrap_or(0).saturating_add(1));
        file.take(self.max_file_bytes).read_to_end(&mut content)?;
        Ok(content)
    }

    fn put(&self, name: &str, compiled: &[u8]) -> io::Result<()> {
        let unique = self.unique.fetch_add(1, Ordering::Relaxed);
        let temp = self.dir.join(format!(".{name}.{}.{unique}", std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
            file.write_all(self.mac(name, compiled).as_bytes())?;
            file.write_all(compiled)?;
            file.sync_all()?;
            fs::rename(&temp, self.dir.join(name))?;
            fs::File::open(&self.dir)?.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temp);
        }
        written.and_then(|()| self.prune(name))
    }

    /// Keeps the newest files, this one among them, and removes what a crash left unfinished.
    fn prune(&self, newest: &str) -> io::Result<()> {
        let mut compiled = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let modified = entry.metadata()?.modified()?;
            if name.starts_with('.') {
                if modified.elapsed().is_ok_and(|age| age > STALE) {
                    fs::remove_file(entry.path())?;
                }
            } else if name.ends_with(".cwasm") && name != newest {
                compiled.push((modified, entry.path()));
            }
        }
        compiled.sort_by_key(|(modified, _)| std::cmp::Reverse::<SystemTime>(*modified));
        compiled.iter().skip(KEPT - 1).try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn mac(&self, name: &str, compiled: &[u8]) -> blake3::Hash {
        let mut hash = blake3::Hasher::new_keyed(&self.key);
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(compiled);
        hash.finalize()
    }
}

/// Machine code that this process or a child of it compiled, or whose keyed hash it has verified.
struct Authentic<'a>(&'a [u8]);

fn deserialize(engine: &Engine, compiled: &Authentic<'_>) -> wasmtime::Result<Component> {
    // SAFETY: `Component::deserialize` requires bytes that wasmtime's own serialisation produced, unchanged.
    // `Authentic` is made in two places: around what `precompile_component` just returned, in this process or in a
    // child of the same program that gave it through a pipe (`apart`), and around bytes in memory whose MAC under this host's own key was verified after they were read.
    #[expect(unsafe_code, reason = "authenticated machine code; see SAFETY")]
    unsafe {
        Component::deserialize(engine, compiled.0)
    }
}

fn read_key(path: &Path) -> io::Result<[u8; 32]> {
    let file = fs::File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other(
            "others may read this key: chmod 600 it, or remove it (then everything is compiled again)",
        ));
    }
    let mut key = Vec::with_capacity(33);
    file.take(33).read_to_end(&mut key)?;
    key.try_into()
        .map_err(|_| io::Error::other("this key is damaged: remove it (then everything is compiled again)"))
}

/// Draws a key and puts it in place whole, unless another process was faster.
fn make_key(dir: &Path, path: &Path) -> io::Result<()> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|e| io::Error::other(format!("no randomness: {e}")))?;
    let temp = dir.join(format!(".{KEY_FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
    let linked =
        file.write_all(&key).and_then(|()| file.sync_all()).and_then(|()| match fs::hard_link(&temp, path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
    let _ = fs::remove_file(&temp);
    linked
}

/// Names an engine and its settings on this kind of processor.
pub(crate) fn fingerprint(engine: &Engine) -> String {
    let mut hash = Blake(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hash);
    let hex = hash.0.finalize().to_hex();
    format!("wasmtime-{}-{}", std::env::consts::ARCH, hex.get(..16).unwrap_or_default())
}

/// BLAKE3 where the standard library wants a `Hasher`.
struct Blake(blake3::Hasher);

impl Hasher for Blake {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        hash.as_bytes().first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_does_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), &semver::Version::new(0, 1, 0), 1 << 20).unwrap();
        for n in 0..KEPT + 9 {
            cache.put(&format!("{n}.cwasm"), b"code").unwrap();
        }
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), KEPT + 1, "compiled files and the key");
        assert!(names.iter().any(|n| *n == *format!("{}.cwasm", KEPT + 8)), "the newest is there");
    }
}
