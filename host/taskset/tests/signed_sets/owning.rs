//! The owner's side: keys that stay secret, sets made from folders, and nothing published that would be refused.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nineteen_domain::Digest;
use nineteen_taskset::{
    Composed, FileError, FolderSource, Follower, Moment, Notice, OwnerKeyError, Passphrase, Terms, compose,
    create_owner_key, publish, read_owner_key,
};

use crate::common::{DAY, Files, NOW, after, keys, now, options, owner, signed};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_sealed_key_opens_with_its_passphrase_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("owner.key");
    let right = Passphrase::new("correct horse".into()).unwrap();
    let wrong = Passphrase::new("correct hors".into()).unwrap();
    let made = create_owner_key(&file, Some(&right)).unwrap();
    assert_eq!(mode(&file), 0o600);
    assert_eq!(read_owner_key(&file, Some(&right)).unwrap().hotkey(), made.hotkey());
    assert!(matches!(read_owner_key(&file, Some(&wrong)), Err(OwnerKeyError::Passphrase { .. })));
    assert!(matches!(read_owner_key(&file, None), Err(OwnerKeyError::Sealed { .. })));
    assert_eq!(format!("{right:?}"), "Passphrase(secret)");
    // Nothing is overwritten.
    assert!(create_owner_key(&file, Some(&right)).is_err());
    let text = std::fs::read_to_string(&file).unwrap();
    // A file cannot show one address and hold another key, nor make us work for hours.
    let other = text.replace(&made.hotkey().ss58(), &keys(9..10)[0].hotkey().ss58());
    let costly = text.replace("\"passes\": 3", "\"passes\": 4000000000");
    for (text, expected) in [(other, "this passphrase does not open it"), (costly, "more work")] {
        std::fs::write(&file, text).unwrap();
        let words = read_owner_key(&file, Some(&right)).unwrap_err().to_string();
        assert!(words.contains(expected), "{words}");
    }
}

#[test]
fn a_plain_key_is_a_keyfile_and_nobody_else_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("owner.key");
    let made = create_owner_key(&file, None).unwrap();
    assert_eq!(mode(&file), 0o600);
    assert_eq!(read_owner_key(&file, None).unwrap().hotkey(), made.hotkey());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(read_owner_key(&file, None), Err(OwnerKeyError::Permissions { mode: 0o640, .. })));
    std::fs::write(dir.path().join("phrase"), "x\n").unwrap();
    assert!(matches!(Passphrase::read(&dir.path().join("phrase")), Err(OwnerKeyError::Permissions { .. })));
}

/// A local set with one task, its components, and terms for it.
struct Local {
    dir: tempfile::TempDir,
}

impl Local {
    fn new() -> Self {
        let local = Self { dir: tempfile::tempdir().unwrap() };
        let mut files = Files::default();
        let task = files.task("chat", 1.0, 1, "");
        local.write(
            "taskset.toml",
            b"name = 's'\nversion = '1.0.0'\npolicy = 'default'\n[[task]]\nfolder = 'chat'\nweight = 1.0\n",
        );
        local.write("chat/task.toml", &files.0[&task.manifest]);
        local.write("components/c-chat.wasm", &files.0[&task.component]);
        local
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn compose(&self) -> Result<Composed, FileError> {
        let terms = Terms {
            sequence: 1,
            published: Moment::UnixS(NOW),
            effective: Moment::UnixS(NOW),
            expires_unix_s: NOW + 90 * DAY,
            notice: Notice { seconds: DAY, blocks: 0 },
            owner: owner(2, &keys(1..4)),
        };
        compose(&self.path("taskset.toml"), &self.path("components"), terms)
    }
}

#[test]
fn a_local_set_becomes_one_of_digests() {
    let local = Local::new();
    let made = local.compose().unwrap();
    let component = std::fs::read(local.path("components/c-chat.wasm")).unwrap();
    assert_eq!(made.set.tasks[0].component, Digest::of(&component));
    assert_eq!(made.files.len(), 2);
    std::fs::remove_file(local.path("components/c-chat.wasm")).unwrap();
    assert!(local.compose().unwrap_err().to_string().contains("c-chat.wasm"));
    local.write("components/c-chat.wasm", &component);
    local.write("chat/calibration.json", b"{");
    let words = local.compose().unwrap_err().to_string();
    assert!(words.contains("calibration.json") && !words.contains('\n'), "{words}");
}

#[tokio::test]
async fn what_is_published_is_what_a_follower_takes() {
    let (local, keys) = (Local::new(), keys(1..4));
    let Composed { set, files } = local.compose().unwrap();
    let to = local.path("public");
    let publish = |set: &nineteen_taskset::Set, signers: &[_], files: &BTreeMap<_, _>, at| {
        let (text, signatures) = (set.text().unwrap(), signed(set, signers).text());
        publish(text.as_bytes(), signatures.as_bytes(), files, &to, now(at))
    };
    let refused = |result: Result<_, FileError>| match result {
        Err(FileError::Refused(refusal)) => refusal.code(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(publish(&set, &keys[..1], &files, NOW)), "taskset.too-few-signatures");
    assert_eq!(refused(publish(&set, &keys, &BTreeMap::new(), NOW)), "taskset.task-file");
    assert!(!to.join("taskset.toml").exists(), "what is refused is not there");
    assert_eq!(publish(&set, &keys[..2], &files, NOW).unwrap().new_files, 2);
    assert_eq!(publish(&set, &keys, &files, NOW).unwrap().new_files, 0, "again, with one more signature");

    let source = Arc::new(FolderSource::new(&to));
    let mut follower = Follower::open(options(local.dir.path(), owner(2, &keys)), source).unwrap();
    assert_eq!(follower.look(now(NOW)).await.unwrap().len(), 2);
    let next = after(&set, NOW + DAY);
    publish(&next, &keys[1..], &BTreeMap::new(), NOW + DAY).unwrap();
    assert_eq!(follower.look(now(NOW + DAY)).await.unwrap().len(), 1);
    assert_eq!(refused(publish(&set, &keys, &files, NOW + DAY)), "taskset.older");
    let mut hasty = after(&next, NOW + DAY);
    hasty.effective = Moment::UnixS(NOW + DAY + 60);
    assert_eq!(refused(publish(&hasty, &keys, &files, NOW + DAY)), "taskset.short-notice");
    assert!(to.join("history/1/taskset.toml").exists() && to.join("history/2/taskset.sig").exists());
}

#[test]
fn a_file_that_changed_since_it_was_signed_is_not_published() {
    let (local, keys) = (Local::new(), keys(1..4));
    let Composed { set, files } = local.compose().unwrap();
    local.write("components/c-chat.wasm", b"rebuilt meanwhile");
    let (text, signatures) = (set.text().unwrap(), signed(&set, &keys).text());
    let result = publish(text.as_bytes(), signatures.as_bytes(), &files, &local.path("public"), now(NOW));
    let words = result.unwrap_err().to_string();
    assert!(words.contains("c-chat.wasm") && words.contains("any more"), "{words}");
    assert!(!local.path("public/taskset.toml").exists());
}
