//! What was pulled before, by digest: verified on every read, bounded, and never without what is pinned.
//!
//! ```text
//! blobs/sha256/<hex>    content under its digest; its time of change is when it was last used
//! places/<hex>.json     which digest each tag of a repository had when it was last seen
//! pins.json             digests of manifests that stay, with all that they name
//! ```
//! Files are written beside and renamed. Several processes may share a cache: whatever changes more than one file
//! holds the lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nineteen_domain::Digest;
use oci_client::manifest::OciImageManifest;
use serde::{Deserialize, Serialize};

use crate::place::Place;
use crate::refusal::Refusal;

/// Tags remembered of a repository; beyond, those seen longest ago go.
const MOST_TAGS: usize = 1_000;
/// The most bytes of a file of our own.
const MOST_INDEX: u64 = 4 << 20;
/// How names of unfinished files begin.
const UNFINISHED: &str = ".unfinished-";
/// After so long an unfinished file is nobody's.
const STALE_S: u64 = 3_600;

/// A folder of blobs.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    most: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    place: String,
    tags: BTreeMap<String, SeenTag>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct SeenTag {
    digest: Digest,
    /// Seconds since 1970.
    seen_s: u64,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The bytes, verified.
    Whole(Bytes),
    /// Other bytes than the name says; they are removed.
    Damaged,
    /// Nothing.
    Missing,
}

impl Cache {
    /// Opens a cache of at most `most` bytes, and makes its folder where it is not there.
    ///
    /// # Errors
    /// [`Refusal::File`] when the folder cannot be made.
    pub fn open(root: &Path, most: u64) -> Result<Self, Refusal> {
        for folder in ["blobs/sha256", "places"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(|e| Refusal::io(&folder, &e))?;
        }
        Ok(Self { root: root.to_owned(), most })
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Reads a blob and holds it against its digest. `None`: not there, or damaged, and then it is removed.
    ///
    /// # Errors
    /// [`Refusal::File`] when the disk does not let us.
    pub fn get(&self, digest: &Digest) -> Result<Option<Bytes>, Refusal> {
        Ok(match self.read(digest)? {
            Kept::Whole(bytes) => Some(bytes),
            Kept::Damaged | Kept::Missing => None,
        })
    }

    pub(crate) fn read(&self, digest: &Digest) -> Result<Kept, Refusal> {
        let path = self.file(digest);
        let opened = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::Missing),
            opened => opened.map_err(|e| Refusal::io(&path, &e))?,
        };
        let mut bytes = Vec::new();
        opened
            .take(self.most.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|e| Refusal::io(&path, &e))?;
        if Digest::of(&bytes) != *digest {
            tracing::warn!(file = %path.display(), "a file of the cache is not what its name says: removed");
            remove(&path)?;
            return Ok(Kept::Damaged);
        }
        // Where the time cannot be set, it only goes sooner.
        let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Kept::Whole(bytes.into()))
    }

    /// Keeps bytes under their digest, and removes what was used longest ago to make room.
    ///
    /// # Errors
    /// [`Refusal::CacheFull`] when what is pinned leaves no room; [`Refusal::File`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Refusal> {
        let digest = Digest::of(bytes);
        let path = self.file(&digest);
        let length = bytes.len() as u64;
        if fs::metadata(&path).is_ok_and(|meta| meta.len() == length) {
            return Ok(digest);
        }
        let _lock = self.lock()?;
        self.make_room(length)?;
        write(&path, bytes)?;
        Ok(digest)
    }

    /// Bytes kept now.
    ///
    /// # Errors
    /// [`Refusal::File`].
    pub fn bytes(&self) -> Result<u64, Refusal> {
        Ok(self.blobs()?.iter().map(|(_, bytes, _)| bytes).sum())
    }

    /// Keeps a manifest, and all that it names, for as long as it is pinned.
    ///
    /// # Errors
    /// [`Refusal::File`].
    pub fn pin(&self, manifest: &Digest) -> Result<(), Refusal> {
        self.change_pins(|pins| pins.insert(*manifest))
    }

    /// Lets go of a manifest. It stays until room is needed.
    ///
    /// # Errors
    /// [`Refusal::File`].
    pub fn unpin(&self, manifest: &Digest) -> Result<(), Refusal> {
        self.change_pins(|pins| pins.remove(manifest))
    }

    /// The manifests that are pinned.
    ///
    /// # Errors
    /// [`Refusal::File`] when the list cannot be read: to remove on a guess would be worse than to stop.
    pub fn pinned(&self) -> Result<BTreeSet<Digest>, Refusal> {
        Ok(read_json(&self.root.join("pins.json"))?.unwrap_or_default())
    }

    fn change_pins(&self, change: impl FnOnce(&mut BTreeSet<Digest>) -> bool) -> Result<(), Refusal> {
        let _lock = self.lock()?;
        let mut pins = self.pinned()?;
        if change(&mut pins) {
            write_json(&self.root.join("pins.json"), &pins)?;
        }
        Ok(())
    }

    /// Remembers what a tag points at.
    ///
    /// # Errors
    /// [`Refusal::File`].
    pub(crate) fn saw(&self, place: &Place, tag: &str, digest: &Digest) -> Result<(), Refusal> {
        let _lock = self.lock()?;
        let file = self.place_file(place);
        // A list that is broken is begun anew: it only says what was seen.
        let mut seen: Seen = read_json(&file).unwrap_or_default().unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        seen.place = place.to_string();
        seen.tags.insert(tag.to_owned(), SeenTag { digest: *digest, seen_s: now });
        while seen.tags.len() > MOST_TAGS {
            let oldest = seen.tags.iter().min_by_key(|(_, tag)| tag.seen_s).map(|(name, _)| name.clone());
            oldest.and_then(|name| seen.tags.remove(&name));
        }
        write_json(&file, &seen)
    }

    /// The tags of a repository as they were last seen.
    ///
    /// # Errors
    /// [`Refusal::File`].
    pub fn seen(&self, place: &Place) -> Result<BTreeMap<String, Digest>, Refusal> {
        let seen: Seen = read_json(&self.place_file(place))?.unwrap_or_default();
        Ok(seen.tags.into_iter().map(|(tag, seen)| (tag, seen.digest)).collect())
    }

    fn place_file(&self, place: &Place) -> PathBuf {
        self.root.join("places").join(format!("{}.json", Digest::of(place.to_string().as_bytes()).hex()))
    }

    /// Exclusive among processes and threads until dropped.
    fn lock(&self) -> Result<File, Refusal> {
        let path = self.root.join("lock");
        let open = || -> std::io::Result<File> {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(|e| Refusal::io(&path, &e))
    }

    /// Digest, bytes and last use of every blob. Sweeps what was left unfinished.
    fn blobs(&self) -> Result<Vec<(Digest, u64, SystemTime)>, Refusal> {
        let folder = self.root.join("blobs/sha256");
        let entries = fs::read_dir(&folder).map_err(|e| Refusal::io(&folder, &e))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Refusal::io(&folder, &e))?;
            let Ok(meta) = entry.metadata() else { continue };
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let used = meta.modified().unwrap_or(UNIX_EPOCH);
            if name.starts_with(UNFINISHED) {
                if used.elapsed().is_ok_and(|age| age.as_secs() > STALE_S) {
                    remove(&entry.path())?;
                }
            } else if let Ok(digest) = format!("sha256:{name}").parse() {
                found.push((digest, meta.len(), used));
            }
        }
        Ok(found)
    }

    /// Call with the lock held.
    fn make_room(&self, bytes: u64) -> Result<(), Refusal> {
        let mut blobs = self.blobs()?;
        let mut sum: u64 = blobs.iter().map(|(_, bytes, _)| bytes).sum();
        if sum.saturating_add(bytes) <= self.most {
            return Ok(());
        }
        let mut stays = BTreeSet::new();
        for manifest in self.pinned()? {
            stays.insert(manifest);
            let Some(read) = self.get(&manifest)? else { continue };
            let Ok(read) = serde_json::from_slice::<OciImageManifest>(&read) else { continue };
            let named = read
                .layers
                .iter()
                .chain([&read.config])
                .filter_map(|blob| blob.digest.parse::<Digest>().ok());
            stays.extend(named);
        }
        blobs.retain(|(digest, ..)| !stays.contains(digest));
        let free: u64 = blobs.iter().map(|(_, bytes, _)| bytes).sum();
        // Asked first, so that nothing is thrown away in vain.
        if sum.saturating_sub(free).saturating_add(bytes) > self.most {
            return Err(Refusal::CacheFull { cache: self.root.clone(), bytes });
        }
        blobs.sort_by_key(|(digest, _, used)| (*used, *digest));
        for (digest, length, _) in blobs {
            if sum.saturating_add(bytes) <= self.most {
                break;
            }
            remove(&self.file(&digest))?;
            sum = sum.saturating_sub(length);
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), Refusal> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Refusal::io(path, &e)),
        _ => Ok(()),
    }
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Refusal> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let whole = || -> std::io::Result<()> {
        let mut made = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
        made.write_all(bytes)?;
        // Before the rename, or a power cut can leave the new name with no content.
        made.as_file().sync_all()?;
        made.persist(path).map(drop).map_err(|e| e.error)
    };
    whole().map_err(|e| Refusal::io(path, &e))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Refusal> {
    let refuse = |e: serde_json::Error| Refusal::File { file: path.to_owned(), why: e.to_string() };
    write(path, &serde_json::to_vec_pretty(value).map_err(refuse)?)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Refusal> {
    let opened = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|e| Refusal::io(path, &e))?,
    };
    let mut bytes = Vec::new();
    opened.take(MOST_INDEX).read_to_end(&mut bytes).map_err(|e| Refusal::io(path, &e))?;
    let refuse = |e: serde_json::Error| Refusal::File {
        file: path.to_owned(),
        why: format!("cannot be read ({e}): remove it, and pin anew what was pinned"),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cache(most: u64) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), most).unwrap();
        (folder, cache)
    }

    /// Makes a blob look as if it was last used so long ago.
    fn age(cache: &Cache, digest: &Digest, seconds: u64) {
        let file = File::options().write(true).open(cache.file(digest)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn what_was_put_is_got_and_nothing_else() {
        let (_folder, cache) = cache(1 << 20);
        let digest = cache.put(b"component").unwrap();
        assert_eq!(cache.get(&digest).unwrap().unwrap(), &b"component"[..]);
        assert_eq!(cache.get(&Digest::of(b"other")).unwrap(), None);
        assert_eq!(cache.bytes().unwrap(), 9);
    }

    #[test]
    fn damaged_bytes_are_never_served_and_are_removed() {
        let (_folder, cache) = cache(1 << 20);
        let digest = cache.put(b"component").unwrap();
        for bad in [&b"c0mponent"[..], b"", b"compo", &[0; 100_000]] {
            fs::write(cache.file(&digest), bad).unwrap();
            assert_eq!(cache.read(&digest).unwrap(), Kept::Damaged);
            assert_eq!(cache.read(&digest).unwrap(), Kept::Missing);
        }
        cache.put(b"component").unwrap();
        assert!(cache.get(&digest).unwrap().is_some());
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_bound_holds() {
        let (_folder, cache) = cache(300);
        let digests: Vec<Digest> = (0..3_u8).map(|n| cache.put(&[n; 100]).unwrap()).collect();
        for (digest, seconds) in digests.iter().zip([30, 20, 10]) {
            age(&cache, digest, seconds);
        }
        // Reading is using.
        cache.get(&digests[0]).unwrap().unwrap();
        let new = cache.put(&[9; 100]).unwrap();
        assert!(cache.get(&digests[1]).unwrap().is_none(), "used longest ago");
        for kept in [&digests[0], &digests[2], &new] {
            assert!(cache.get(kept).unwrap().is_some());
        }
        assert!(cache.bytes().unwrap() <= 300);
    }

    #[test]
    fn what_is_pinned_stays_with_all_that_it_names() {
        let (_folder, cache) = cache(1_000);
        let layer = cache.put(&[1; 300]).unwrap();
        let config = cache.put(&[2; 100]).unwrap();
        let named = |digest: &Digest| serde_json::json!({"mediaType": "x", "digest": digest, "size": 1});
        let manifest = serde_json::json!({
            "schemaVersion": 2, "config": named(&config), "layers": [named(&layer)]
        });
        let manifest = cache.put(manifest.to_string().as_bytes()).unwrap();
        cache.pin(&manifest).unwrap();
        for digest in [&layer, &config, &manifest] {
            age(&cache, digest, 1_000);
        }
        for n in 10..40_u8 {
            cache.put(&[n; 100]).unwrap();
            assert!(cache.bytes().unwrap() <= 1_000);
        }
        for digest in [&layer, &config, &manifest] {
            assert!(cache.get(digest).unwrap().is_some());
        }
        let full = cache.put(&[3; 600]).unwrap_err();
        assert!(matches!(full, Refusal::CacheFull { .. }), "{full}");
        cache.unpin(&manifest).unwrap();
        cache.put(&[3; 600]).unwrap();
    }

    #[test]
    fn too_much_for_the_whole_cache_removes_nothing() {
        let (_folder, cache) = cache(300);
        let small = cache.put(&[1; 100]).unwrap();
        assert!(matches!(cache.put(&[2; 301]), Err(Refusal::CacheFull { .. })));
        assert!(cache.get(&small).unwrap().is_some());
    }

    #[test]
    fn a_broken_list_of_pins_stops_removing() {
        let (folder, cache) = cache(300);
        cache.put(&[1; 200]).unwrap();
        fs::write(folder.path().join("pins.json"), "{").unwrap();
        let said = cache.put(&[2; 200]).unwrap_err().to_string();
        assert!(said.contains("pins.json"), "{said}");
    }

    #[test]
    fn tags_are_remembered_by_place() {
        let (_folder, cache) = cache(1 << 20);
        let (a, b) = (Place::new("r.example/a").unwrap(), Place::new("r.example/b").unwrap());
        cache.saw(&a, "1.0.0", &Digest::of(b"x")).unwrap();
        cache.saw(&a, "1.0.0", &Digest::of(b"y")).unwrap();
        assert_eq!(cache.seen(&a).unwrap(), BTreeMap::from([("1.0.0".to_owned(), Digest::of(b"y"))]));
        assert!(cache.seen(&b).unwrap().is_empty());
    }

    #[test]
    fn many_threads_share_one_cache() {
        let (_folder, cache) = cache(5_000);
        std::thread::scope(|scope| {
            for t in 0..4_u8 {
                let cache = cache.clone();
                scope.spawn(move || {
                    for n in 0..25_u8 {
                        let bytes = [t.wrapping_mul(50).wrapping_add(n); 200];
                        let digest = cache.put(&bytes).unwrap();
                        if let Some(got) = cache.get(&digest).unwrap() {
                            assert_eq!(got, &bytes[..]);
                        }
                    }
                });
            }
        });
        assert!(cache.bytes().unwrap() <= 5_000);
    }
}
