//! Makes the signed form of a set from a local one: folders become digests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use nineteen_domain::task::{PolicyChoice, TaskSet};
use nineteen_domain::{Digest, calibration};

use crate::files::{
    FileError, MANIFEST_FILE, MOST_CALIBRATION_BYTES, MOST_COMPONENT_BYTES, MOST_MANIFEST_BYTES,
    check_calibration,
};
use crate::refusal::Refusal;
use crate::set::{
    Entry, FORMAT, MOST_SET_BYTES, Moment, Notice, Owner, Set, from_toml, policy_digest, text_of,
};
use crate::source::read_bounded;

/// What a local set does not say.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Its number.
    pub sequence: u64,
    /// When it is published.
    pub published: Moment,
    /// From when on it counts.
    pub effective: Moment,
    /// Until when it is taken up.
    pub expires_unix_s: u64,
    /// What the next set has to give.
    pub notice: Notice,
    /// Who may sign the next set.
    pub owner: Owner,
}

/// A set and where the files lie that it names.
#[derive(Debug, Clone)]
pub struct Composed {
    /// The set, checked.
    pub set: Set,
    /// Its files by digest.
    pub files: BTreeMap<Digest, PathBuf>,
}

/// Reads a local `taskset.toml`, its tasks' folders and their components, `<components>/<name>.wasm`.
///
/// # Errors
/// [`FileError`]: a file is missing, too long, or the set breaks its own rules.
pub fn compose(local: &Path, components: &Path, terms: Terms) -> Result<Composed, FileError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |e: Refusal| FileError::content(&path, e.to_string())
    };
    let bytes = read_bounded(local, MOST_SET_BYTES as u64)?;
    let read: TaskSet = text_of(&bytes, MOST_SET_BYTES).and_then(from_toml).map_err(at(local))?;
    let base = local.parent().unwrap_or(Path::new("."));
    let mut files = BTreeMap::new();
    let mut tasks = Vec::with_capacity(read.tasks.len());
    for t in &read.tasks {
        let folder = base.join(&t.folder);
        let mut keep = |path: PathBuf, most: u64| {
            let bytes = read_bounded(&path, most)?;
            let digest = Digest::of(&bytes);
            files.insert(digest, path);
            Ok::<_, FileError>((digest, bytes))
        };
        let file = folder.join(MANIFEST_FILE);
        let (manifest, text) = keep(file.clone(), MOST_MANIFEST_BYTES)?;
        let text = text_of(&text, text.len())
            .and_then(from_toml::<nineteen_domain::task::Manifest>)
            .map_err(at(&file))?;
        // A pulled task has its component beside it, and that is the one that a validator would run.
        let name = format!("{}.wasm", text.component);
        let own = folder.join(&name);
        let wasm = if own.is_file() { own } else { components.join(name) };
        let (component, _) = keep(wasm.clone(), MOST_COMPONENT_BYTES)?;
        if let Some(other) = text.digest.filter(|d| *d != component) {
            return Err(FileError::content(
                &file,
                format!("digest: {other}, but {} is {component}", wasm.display()),
            ));
        }
        let file = folder.join(calibration::FILE);
        let calibration = if file.exists() {
            let (digest, bytes) = keep(file.clone(), MOST_CALIBRATION_BYTES)?;
            check_calibration(&text.name, &bytes).map_err(at(&file))?;
            Some(digest)
        } else {
            None
        };
        tasks.push(Entry { name: text.name, weight: t.weight, component, manifest, calibration });
    }
    let policy = read.policy.policy();
    let policy = policy.ok_or_else(|| Refusal::UnknownPolicy { name: read.policy.name().to_owned() });
    let set = Set {
        format: FORMAT,
        name: read.name,
        version: read.version,
        sequence: terms.sequence,
        published: terms.published,
        effective: terms.effective,
        expires_unix_s: terms.expires_unix_s,
        policy_digest: policy.and_then(|p| policy_digest(&p)).map_err(at(local))?,
        share_multiplier: read.share_multiplier,
        policy: read.policy,
        notice: terms.notice,
        owner: terms.owner,
        tasks,
    };
    set.check().map_err(at(local))?;
    Ok(Composed { set, files })
}

impl Set {
    /// The set as its file has it: what every number means stands beside it.
    ///
    /// # Errors
    /// [`FileError`]: a written policy has no TOML, which no checked set has.
    pub fn text(&self) -> Result<String, FileError> {
        let mut text = String::with_capacity(4096);
        let quoted = |s: &str| serde_json::Value::from(s).to_string();
        let moment = |m: Moment| match m {
            Moment::Block(n) => format!("{{ block = {n} }}"),
            Moment::UnixS(s) => format!("{{ unix_s = {s} }}"),
        };
        let (policy, written) = match &self.policy {
            PolicyChoice::Named(name) => (format!("policy = {}\n", quoted(name)), String::new()),
            PolicyChoice::Written(policy) => {
                let no_toml =
                    |e: toml::ser::Error| FileError::content(Path::new(crate::SET_FILE), e.to_string());
                (String::new(), toml::to_string(&BTreeMap::from([("policy", policy)])).map_err(no_toml)?)
            }
        };
        let multiplier =
            self.share_multiplier.map(|m| format!("share_multiplier = {m:?}\n")).unwrap_or_default();
        let keys: String = self.owner.keys.iter().map(|k| format!("    \"{k}\",\n")).collect();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "# Which tasks the subnet runs, from when on, and who may say so. Signed by meaning: comments and layout\n\
             # may change, nothing else. Signatures lie beside it in taskset.sig.\n\
             format = {}\nname = {}\nversion = \"{}\"\nsequence = {}\n\
             published = {}      # {}\neffective = {}      # {}\n\
             expires_unix_s = {}      # {}; what runs by then runs on\n\
             {policy}policy_digest = \"{}\"\n{multiplier}{written}\n\
             # What the next set has to give between its publishing and its effect.\n\
             [notice]\nseconds = {}\nblocks = {}\n\n\
             # Who may sign the next set: so many of these keys.\n\
             [owner]\nthreshold = {}\nkeys = [\n{keys}]\n",
            self.format,
            quoted(&self.name),
            self.version,
            self.sequence,
            moment(self.published),
            self.published,
            moment(self.effective),
            self.effective,
            self.expires_unix_s,
            Moment::UnixS(self.expires_unix_s),
            self.policy_digest,
            self.notice.seconds,
            self.notice.blocks,
            self.owner.threshold,
        );
        for t in &self.tasks {
            let calibration = t.calibration.map(|c| format!("calibration = \"{c}\"\n")).unwrap_or_default();
            let _ = write!(
                text,
                "\n[[task]]\nname = \"{}\"\nweight = {:?}\ncomponent = \"{}\"\nmanifest = \"{}\"\n{calibration}",
                t.name, t.weight, t.component, t.manifest,
            );
        }
        Ok(text)
    }
}
