//! Owners, sets and a place that publishes them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nineteen_domain::policy::Policy;
use nineteen_domain::task::{Manifest, PolicyChoice};
use nineteen_domain::{Digest, TaskName};
use nineteen_taskset::{
    Entry, FolderSource, Follower, FollowerError, FollowerOptions, Limits, Moment, Notice, Now, Owner,
    Proposed, Set, Signatures,
};
use nineteen_wire::keys::Keypair;

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const DAY: u64 = 86_400;

pub(crate) fn now(unix_s: u64) -> Now {
    Now { unix_s, block: None }
}

pub(crate) fn keys(seeds: std::ops::Range<u8>) -> Vec<Keypair> {
    seeds.map(|s| Keypair::from_seed([s; 32])).collect()
}

pub(crate) fn owner(threshold: u32, keys: &[Keypair]) -> Owner {
    Owner { threshold, keys: keys.iter().map(Keypair::hotkey).collect() }
}

/// Files of tasks, by digest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files(pub(crate) BTreeMap<Digest, Vec<u8>>);

impl Files {
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Digest {
        self.0.insert(Digest::of(bytes), bytes.to_vec());
        Digest::of(bytes)
    }

    pub(crate) fn task(&mut self, name: &str, weight: f64, revision: u32, grants: &str) -> Entry {
        let manifest = format!(
            "name = \"{name}\"\nversion = \"0.{revision}.0\"\nhost = \">=0.1\"\ncomponent = \"c-{name}\"\n\
             operation = \"x\"\npath = \"/x\"\nunit = \"tokens\"\ncap_per_hour = 10\n[grants]\n{grants}\n"
        );
        Entry {
            name: TaskName::new(name).unwrap(),
            weight,
            component: self.add(format!("component of {name}, {revision}").as_bytes()),
            manifest: self.add(manifest.as_bytes()),
            calibration: None,
        }
    }

    pub(crate) fn manifests(&self, set: &Set) -> BTreeMap<TaskName, Manifest> {
        let read = |e: &Entry| toml::from_str(std::str::from_utf8(&self.0[&e.manifest]).unwrap()).unwrap();
        set.tasks.iter().map(|e| (e.name.clone(), read(e))).collect()
    }

    pub(crate) fn proposed(&self, set: &Set, signers: &[Keypair]) -> Proposed {
        Proposed { set: set.clone(), signatures: signed(set, signers), manifests: self.manifests(set) }
    }
}

pub(crate) fn policy_digest() -> Digest {
    // What `nineteen subnet init` writes for the policy that ships as `default`.
    let folder = tempfile::tempdir().unwrap();
    let text = "name = 'x'\nversion = '1.0.0'\npolicy = 'default'\n[[task]]\nfolder = 'x'\nweight = 1.0\n";
    let mut files = Files::default();
    let task = files.task("x", 1.0, 1, "");
    for (path, bytes) in
        [("taskset.toml", text.as_bytes()), ("x/task.toml", &files.0[&task.manifest]), ("c/c-x.wasm", b"x")]
    {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let terms = nineteen_taskset::Terms {
        sequence: 1,
        published: Moment::UnixS(NOW),
        effective: Moment::UnixS(NOW),
        expires_unix_s: NOW + DAY,
        notice: Notice::default(),
        owner: owner(1, &keys(1..2)),
    };
    let made =
        nineteen_taskset::compose(&folder.path().join("taskset.toml"), &folder.path().join("c"), terms);
    made.unwrap().set.policy_digest
}

/// Sequence 1: two tasks, in force at once, the next one a day ahead.
pub(crate) fn first_set(files: &mut Files, owner: Owner) -> Set {
    static DEFAULT: std::sync::OnceLock<Digest> = std::sync::OnceLock::new();
    Set {
        format: 1,
        name: "first-light".into(),
        version: "0.1.0".parse().unwrap(),
        sequence: 1,
        published: Moment::UnixS(NOW),
        effective: Moment::UnixS(NOW),
        expires_unix_s: NOW + 90 * DAY,
        policy_digest: *DEFAULT.get_or_init(policy_digest),
        share_multiplier: None,
        policy: PolicyChoice::Named("default".into()),
        notice: Notice { seconds: DAY, blocks: 7_200 },
        owner,
        tasks: vec![
            files.task("chat", 0.6, 1, "\"text.replay\" = [\"small\"]"),
            files.task("embed", 0.4, 1, ""),
        ],
    }
}

/// The one after: published at `at`, effective a day later.
pub(crate) fn after(set: &Set, at: u64) -> Set {
    let mut next = set.clone();
    next.sequence += 1;
    next.version.minor += 1;
    next.published = Moment::UnixS(at);
    next.effective = Moment::UnixS(at + DAY);
    next.expires_unix_s = at + 90 * DAY;
    next
}

pub(crate) fn signed(set: &Set, signers: &[Keypair]) -> Signatures {
    let mut signatures = Signatures::none_of(set);
    signers.iter().for_each(|k| signatures.sign(k));
    signatures
}

/// A folder that a set is published in.
#[derive(Debug)]
pub(crate) struct Place(pub(crate) tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Without asking anybody whether it may be.
    pub(crate) fn put(&self, set: &Set, signers: &[Keypair], files: &Files) {
        for folder in [String::new(), format!("history/{}/", set.sequence)] {
            self.write(&format!("{folder}taskset.toml"), set.text().unwrap().as_bytes());
            self.write(&format!("{folder}taskset.sig"), signed(set, signers).text().as_bytes());
        }
        for (digest, bytes) in &files.0 {
            self.write(&format!("blobs/sha256/{}", digest.hex()), bytes);
        }
    }
}

pub(crate) fn options(folder: &Path, owner: Owner) -> FollowerOptions {
    FollowerOptions { folder: folder.join("followed"), owner, name: None, limits: Limits::default() }
}

pub(crate) fn follower(folder: &Path, owner: Owner, place: &Place) -> Result<Follower, FollowerError> {
    Follower::open(options(folder, owner), Arc::new(FolderSource::new(place.path())))
}

/// A policy that is written out.
pub(crate) fn written(set: &mut Set, change: impl Fn(&mut Policy)) {
    let mut policy = Policy::default_rules();
    change(&mut policy);
    set.policy = PolicyChoice::Written(Box::new(policy));
}
