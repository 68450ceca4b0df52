//! The store's folder: its layout, the lock against a second process, the schema and its ladder, the
//! master seed.
//!
//! ```text
//! <store>/lock         flock and the holder's process id
//! <store>/schema       version of this layout
//! <store>/seed         the master seed: 32 bytes, mode 0600, in no journal
//! <store>/ledger/  exchanges/  evidence/     segments
//! <store>/view/        sled's part: rebuilt from the segments whenever it is missing or unreadable
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nineteen_domain::MasterSeed;
use rustix::fs::FlockOperation;
use zeroize::Zeroizing;

use crate::error::{Result, StoreError};
use crate::segment::Family;

/// Name of the view's folder.
pub(crate) const VIEW: &str = "view";
const LOCK: &str = "lock";
const SCHEMA: &str = "schema";
const SEED: &str = "seed";
const SEED_LEN: usize = 32;

/// Makes the entries of a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| StoreError::io(dir, "sync the folder", &e))
}

/// The lock; given back when dropped, also by the kernel when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK);
        let failed = |action| {
            let path = path.clone();
            move |e: std::io::Error| StoreError::io(&path, action, &e)
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open the lock"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = file.take(32).read_to_string(&mut text);
                return Err(StoreError::Locked { dir: dir.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(e) => return Err(StoreError::io(&path, "lock the store", &e.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed("write the lock"))?;
        Ok(Self { _file: file })
    }
}

/// Writes a small file so that it is there whole or not at all.
fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temp = path.with_extension("new");
    match fs::remove_file(&temp) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::io(&temp, "remove the file", &e));
        }
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temp)
        .and_then(|mut f| {
            f.write_all(bytes)?;
            f.sync_all()
        })
        .and_then(|()| fs::rename(&temp, path))
        .map_err(|e| StoreError::io(path, "write the file", &e))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// One step of the ladder: from the schema below to this one. A rung may be climbed twice, when a crash
/// fell between its work and the writing of the number.
struct Rung {
    to: u32,
    climb: fn(&Path) -> Result<()>,
}

/// The ladder. A new schema is a new rung at the end; the last number is the one this program writes.
const LADDER: [Rung; 1] = [Rung { to: SCHEMA_VERSION, climb: make_folders }];

/// The schema that this program writes.
pub const SCHEMA_VERSION: u32 = 1;

fn make_folders(dir: &Path) -> Result<()> {
    for family in Family::ALL {
        let path = dir.join(family.folder());
        fs::create_dir_all(&path).map_err(|e| StoreError::io(&path, "create the folder", &e))?;
    }
    sync_dir(dir)
}

/// Whether a store has been created here.
pub(crate) fn exists(dir: &Path) -> bool {
    dir.join(SCHEMA).is_file()
}

/// Brings the folder to the newest schema.
pub(crate) fn migrate(dir: &Path) -> Result<()> {
    let file = dir.join(SCHEMA);
    let found: u32 = match fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().map_err(|_| StoreError::NotAStore {
            file: file.clone(),
            why: "it does not hold the number of a schema".into(),
        })?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            refuse_strangers(dir, &file)?;
            0
        }
        Err(e) => return Err(StoreError::io(&file, "read the schema", &e)),
    };
    if found > SCHEMA_VERSION {
        return Err(StoreError::SchemaNewer { dir: dir.to_owned(), found, known: SCHEMA_VERSION });
    }
    for rung in LADDER.iter().filter(|r| r.to > found) {
        (rung.climb)(dir)?;
        write_atomically(&file, format!("{}\n", rung.to).as_bytes(), 0o644)?;
        tracing::info!(dir = %dir.display(), schema = rung.to, "the store's schema is up to date");
    }
    // A backup may have left out an empty folder.
    make_folders(dir)
}

/// Without a schema, the folder may hold only what an interrupted creation leaves.
fn refuse_strangers(dir: &Path, schema: &Path) -> Result<()> {
    let failed = |e: &std::io::Error| StoreError::io(dir, "list the folder", e);
    for entry in fs::read_dir(dir).map_err(|e| failed(&e))? {
        let entry = entry.map_err(|e| failed(&e))?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|n| n == LOCK || n == "schema.new" || n == "lost+found");
        let empty_family = Family::ALL.iter().any(|f| name == f.folder())
            && fs::read_dir(entry.path()).is_ok_and(|mut d| d.next().is_none());
        if !(ours || empty_family) {
            let why = format!("it is missing, and the folder holds '{}'", name.to_string_lossy());
            return Err(StoreError::NotAStore { file: schema.to_owned(), why });
        }
    }
    Ok(())
}

/// The master seed: read, or drawn and written when there is none yet and none is missed.
pub(crate) fn master_seed(dir: &Path, plans_exist: bool) -> Result<MasterSeed> {
    let path = dir.join(SEED);
    let unfit = |why: String| StoreError::SeedUnfit { file: path.clone(), why };
    match File::open(&path) {
        Ok(file) => {
            let mode = file
                .metadata()
                .map_err(|e| StoreError::io(&path, "look at the seed", &e))?
                .permissions()
                .mode();
            if mode & 0o077 != 0 {
                let why = format!("others may read the seed (mode {:o}): chmod 600 it", mode & 0o777);
                return Err(unfit(why));
            }
            let mut raw = Zeroizing::new(Vec::with_capacity(SEED_LEN + 1));
            file.take(SEED_LEN as u64 + 1)
                .read_to_end(&mut raw)
                .map_err(|e| StoreError::io(&path, "read the seed", &e))?;
            let seed: Zeroizing<[u8; SEED_LEN]> =
                Zeroizing::new(raw.as_slice().try_into().map_err(|_| {
                    unfit(format!(
                        "a seed has {SEED_LEN} bytes, this file has another length: restore it from a backup"
                    ))
                })?);
            Ok(MasterSeed::from_bytes(*seed))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && plans_exist => {
            Err(StoreError::SeedMissing { file: path })
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut seed = Zeroizing::new([0; SEED_LEN]);
            getrandom::fill(seed.as_mut_slice())
                .map_err(|e| unfit(format!("no randomness to draw a seed from: {e}")))?;
            write_atomically(&path, seed.as_slice(), 0o600)?;
            Ok(MasterSeed::from_bytes(*seed))
        }
        Err(e) => Err(StoreError::io(&path, "open the seed", &e)),
    }
}

/// Bytes that may still be written to the disk that holds `dir`.
pub(crate) fn free_bytes(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| StoreError::io(dir, "ask for free space", &e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A folder as an absolute path, for messages that are copied into a shell.
pub(crate) fn absolute(dir: &Path) -> Result<PathBuf> {
    fs::canonicalize(dir).map_err(|e| StoreError::io(dir, "find the folder", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_ascends_to_the_schema_that_is_written() {
        assert!(LADDER.iter().map(|r| r.to).eq(1..=SCHEMA_VERSION));
    }

    #[test]
    fn a_folder_of_other_things_is_not_made_a_store() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let err = migrate(dir.path()).unwrap_err();
        assert_eq!(err.code(), "store.not-a-store");
        assert!(err.to_string().contains("thesis.tex"), "{err}");
    }

    #[test]
    fn an_interrupted_creation_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("ledger")).unwrap();
        fs::write(dir.path().join("schema.new"), "").unwrap();
        migrate(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("schema")).unwrap(), "1\n");
    }

    #[test]
    fn the_seed_is_drawn_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = *master_seed(dir.path(), false).unwrap().expose();
        assert_ne!(first, [0; 32]);
        assert_eq!(*master_seed(dir.path(), true).unwrap().expose(), first);
        let path = dir.path().join(SEED);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let err = master_seed(dir.path(), true).unwrap_err();
        assert!(err.to_string().contains("chmod 600"), "{err}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, [1; 33]).unwrap();
        assert_eq!(master_seed(dir.path(), true).unwrap_err().code(), "store.seed-unfit");
    }

    #[test]
    fn a_lost_seed_is_not_replaced_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(master_seed(dir.path(), true).unwrap_err().code(), "store.seed-missing");
    }
}
