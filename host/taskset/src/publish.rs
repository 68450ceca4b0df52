//! Writes a signed set and everything that it names to a folder that any web server can serve.
//!
//! What validators would refuse is refused here. Files come first, by digest, then the set under its number, then the
//! two files that followers look at: a reader in between sees the old set or the new one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nineteen_domain::Digest;
use serde::Serialize;

use crate::decide::{Standing, admit};
use crate::files::{FileError, Kept, files_of, write_whole};
use crate::refusal::Refusal;
use crate::set::{MOST_SET_BYTES, Now, SET_FILE, SIGNATURES_FILE, Set};
use crate::signature::Signatures;
use crate::source::{SourceError, read_bounded, set_folder};

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Published {
    /// The set.
    pub set: Digest,
    /// Its number.
    pub sequence: u64,
    /// Files that were not there yet.
    pub new_files: usize,
    /// Their bytes.
    pub new_bytes: u64,
}

/// Publishes the texts of a set and its signatures. `files` says where the files of the set lie; those that the
/// folder has already are not needed.
///
/// # Errors
/// [`FileError`]: validators would refuse it, a file is missing, or the folder cannot be written.
pub fn publish(
    set: &[u8],
    signatures: &[u8],
    files: &BTreeMap<Digest, PathBuf>,
    to: &Path,
    now: Now,
) -> Result<Published, FileError> {
    let (read, signed) = (Set::read(set)?, Signatures::read(signatures)?);
    let before = newest(to)?;
    let again = before.as_ref().is_some_and(|b| b.digest() == read.digest());
    // Published again (with more signatures, say) it follows nothing.
    let running = before.as_ref().filter(|_| !again);
    let owner = running.map_or(&read.owner, |s| &s.owner);
    let standing = Standing { running, pending: None, owner, name: None, looked: None };
    admit(&standing, &read, &signed, now)?;

    let kept = Kept::new(to);
    let mut published = Published { set: read.digest(), sequence: read.sequence, new_files: 0, new_bytes: 0 };
    for t in &read.tasks {
        for (digest, most) in files_of(t) {
            if kept.read(&digest, most).is_some() {
                continue;
            }
            let missing = || Refusal::TaskFile {
                task: t.name.clone(),
                file: "a file of it",
                why: format!("{digest} is not among the files given: name the local set it was made from"),
            };
            let path = files.get(&digest).ok_or_else(missing)?;
            let bytes = read_bounded(path, most)?;
            if kept.put(&bytes)? != digest {
                return Err(FileError::content(
                    path,
                    format!("it is not {digest} any more: make the set anew"),
                ));
            }
            published.new_files += 1;
            published.new_bytes += bytes.len() as u64;
        }
    }
    for folder in [set_folder(Some(read.sequence)), set_folder(None)] {
        let folder = to.join(folder);
        write_whole(&folder.join(SIGNATURES_FILE), signatures)?;
        write_whole(&folder.join(SET_FILE), set)?;
    }
    Ok(published)
}

fn newest(folder: &Path) -> Result<Option<Set>, FileError> {
    let path = folder.join(SET_FILE);
    match read_bounded(&path, MOST_SET_BYTES as u64) {
        Err(SourceError::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
        Ok(bytes) => Set::read(&bytes).map(Some).map_err(|e| FileError::content(&path, e.to_string())),
    }
}
