//! A follower over days: what it takes, what it keeps, and that nobody moves it.

use std::path::Path;
use std::sync::Arc;

use nineteen_domain::task::TaskSet;
use nineteen_taskset::{
    Event, FolderSource, Follower, FollowerError, Limits, Moment, Now, Operator, Owner, Set, Stamped, Status,
};
use nineteen_wire::keys::Keypair;

use crate::common::{DAY, Files, NOW, Place, after, first_set, follower, keys, now, options, owner};

struct Subnet {
    here: tempfile::TempDir,
    place: Place,
    files: Files,
    keys: Vec<Keypair>,
    first: Set,
}

impl Subnet {
    /// Sequence 1 is published, signed by two of three.
    fn new() -> Self {
        let (mut files, keys, place) = (Files::default(), keys(1..4), Place::new());
        let first = first_set(&mut files, owner(2, &keys));
        place.put(&first, &keys[..2], &files);
        Self { here: tempfile::tempdir().unwrap(), place, files, keys, first }
    }

    fn owner(&self) -> Owner {
        owner(2, &self.keys)
    }

    fn follower(&self) -> Follower {
        follower(self.here.path(), self.owner(), &self.place).unwrap()
    }

    fn limited(&self, limits: Limits) -> Follower {
        let options = nineteen_taskset::FollowerOptions { limits, ..options(self.here.path(), self.owner()) };
        Follower::open(options, Arc::new(FolderSource::new(self.place.path()))).unwrap()
    }

    fn put(&self, set: &Set) {
        self.place.put(set, &self.keys[..2], &self.files);
    }

    fn folder(&self) -> std::path::PathBuf {
        self.here.path().join("followed")
    }
}

fn names(events: &[Stamped]) -> Vec<String> {
    let name = |e: &Stamped| serde_json::to_value(e).unwrap()["event"].as_str().unwrap().to_owned();
    events.iter().map(name).collect()
}

fn code(events: &[Stamped]) -> &str {
    match events {
        [Stamped { event: Event::Refused { code, .. } | Event::SourceAway { code, .. }, .. }] => code,
        other => panic!("{other:?}"),
    }
}

fn runs(follower: &Follower) -> u64 {
    follower.in_force().unwrap().set.sequence
}

#[tokio::test]
async fn a_set_comes_into_force_at_its_moment_and_not_before_also_across_restarts() {
    let s = Subnet::new();
    let mut f = s.follower();
    assert_eq!(names(&f.look(now(NOW)).await.unwrap()), ["pending", "in-force"]);
    assert_eq!(names(&f.look(now(NOW + 60)).await.unwrap()), [""; 0]);
    let next = after(&s.first, NOW + DAY);
    s.put(&next);
    assert_eq!(names(&f.look(now(NOW + DAY)).await.unwrap()), ["pending"]);
    drop(f);
    // The source is gone by then: what was accepted is here.
    std::fs::remove_dir_all(s.place.path()).unwrap();
    let mut f = s.follower();
    assert_eq!((runs(&f), f.pending().unwrap().sequence), (1, 2));
    assert!(f.tick(now(NOW + 2 * DAY - 1)).unwrap().is_empty());
    assert_eq!(names(&f.tick(now(NOW + 2 * DAY)).unwrap()), ["in-force"]);
    assert_eq!((runs(&f), f.pending().is_none()), (2, true));
    drop(f);
    assert_eq!(runs(&s.follower()), 2);
}

#[tokio::test]
async fn what_is_in_force_lies_as_files_that_a_registry_reads() {
    let s = Subnet::new();
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    let live = f.in_force().unwrap();
    let set: TaskSet = toml::from_str(&std::fs::read_to_string(&live.taskset).unwrap()).unwrap();
    assert_eq!((set.name.as_str(), set.tasks.len(), set.policy.name()), ("first-light", 2, "default"));
    for (task, entry) in set.tasks.iter().zip(&s.first.tasks) {
        let manifest = live.taskset.parent().unwrap().join(&task.folder).join("task.toml");
        assert_eq!(std::fs::read(manifest).unwrap(), s.files.0[&entry.manifest]);
        let folder = live.taskset.parent().unwrap().join(&task.folder);
        let component = folder.join(format!("c-{}.wasm", entry.name));
        assert_eq!(std::fs::read(component).unwrap(), s.files.0[&entry.component]);
        let lock = std::fs::read_to_string(folder.join("components.lock")).unwrap();
        assert!(lock.contains("[digests]") && lock.contains(&entry.component.to_string()), "{lock}");
    }
    assert_eq!(Status::running_file(&s.folder()).unwrap(), Some(live.taskset));
}

#[tokio::test]
async fn while_the_source_is_away_what_runs_runs_on_and_it_is_said_once() {
    let s = Subnet::new();
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    let aside = s.here.path().join("aside");
    std::fs::rename(s.place.path(), &aside).unwrap();
    assert_eq!(code(&f.look(now(NOW + 60)).await.unwrap()), "source.not-found");
    assert!(f.look(now(NOW + 120)).await.unwrap().is_empty());
    assert_eq!(runs(&f), 1);
    std::fs::rename(&aside, s.place.path()).unwrap();
    let events = f.look(now(NOW + 180)).await.unwrap();
    assert_eq!(events[0].event, Event::SourceBack { away_s: 120 });
}

#[tokio::test]
async fn a_source_that_goes_back_or_lies_moves_nothing() {
    let s = Subnet::new();
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    let next = after(&s.first, NOW + DAY);
    s.put(&next);
    f.look(now(NOW + DAY)).await.unwrap();
    f.tick(now(NOW + 2 * DAY)).unwrap();
    s.put(&s.first);
    assert_eq!(code(&f.look(now(NOW + 3 * DAY)).await.unwrap()), "taskset.older");
    assert!(f.look(now(NOW + 3 * DAY)).await.unwrap().is_empty(), "it is said once");
    let third = after(&next, NOW + 3 * DAY);
    let text = third.text().unwrap();
    let signatures = crate::common::signed(&third, &s.keys[..2]).text();
    type Lie = (&'static str, String, String);
    let lies: [Lie; 6] = [
        ("taskset.unsigned", text.clone(), String::new()),
        ("taskset.other-bytes", text.replace("weight = 0.6", "weight = 0.60000000001"), signatures.clone()),
        ("taskset.weights", text.replace("weight = 0.6", "weight = 0.7"), signatures.clone()),
        ("taskset.toml", text.replace("sequence", "sequence = "), signatures.clone()),
        ("taskset.signature-file", text.clone(), "set = 1".into()),
        ("taskset.too-few-signatures", text.clone(), crate::common::signed(&third, &keys(40..43)).text()),
    ];
    for (expected, set, signatures) in lies {
        s.place.write("taskset.toml", set.as_bytes());
        s.place.write("taskset.sig", signatures.as_bytes());
        assert_eq!(code(&f.look(now(NOW + 3 * DAY)).await.unwrap()), expected);
        assert_eq!((runs(&f), f.pending().is_none()), (2, true));
    }
    s.place.write("taskset.toml", text.as_bytes());
    s.place.write("taskset.sig", signatures.as_bytes());
    assert_eq!(names(&f.look(now(NOW + 3 * DAY)).await.unwrap()), ["pending"]);
}

#[tokio::test]
async fn a_stranger_makes_a_follower_fetch_nothing() {
    let s = Subnet::new();
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    let mut files = s.files.clone();
    let mut evil = after(&s.first, NOW + DAY);
    evil.tasks[0] = files.task("chat", 0.6, 66, "");
    s.place.put(&evil, &keys(40..43), &files);
    f.look(now(NOW + DAY)).await.unwrap();
    let kept = s.folder().join("blobs/sha256").join(evil.tasks[0].manifest.hex());
    assert!(!kept.exists());
}

#[tokio::test]
async fn a_file_that_is_not_what_its_digest_says_is_not_taken() {
    let mut s = Subnet::new();
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    let mut next = after(&s.first, NOW + DAY);
    next.tasks[0] = s.files.task("chat", 0.6, 2, "");
    s.put(&next);
    let blob = format!("blobs/sha256/{}", next.tasks[0].component.hex());
    s.place.write(&blob, b"another component");
    assert_eq!(code(&f.look(now(NOW + DAY)).await.unwrap()), "source.digest");
    assert!(f.pending().is_none());
    s.place.write(&blob, &s.files.0[&next.tasks[0].component].clone());
    assert_eq!(names(&f.look(now(NOW + DAY)).await.unwrap()), ["pending", "source-back"]);
}

#[tokio::test]
async fn a_hold_stops_everything_new_and_a_release_lets_it_in() {
    let s = Subnet::new();
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    s.put(&after(&s.first, NOW + DAY));
    let hold = Operator { hold: Some("holidays".into()), ..Operator::default() };
    hold.write(&s.folder()).unwrap();
    assert_eq!(names(&f.look(now(NOW + DAY)).await.unwrap()), ["pending"]);
    assert_eq!(names(&f.tick(now(NOW + 2 * DAY)).unwrap()), ["waiting"]);
    assert!(f.tick(now(NOW + 3 * DAY)).unwrap().is_empty());
    assert_eq!(runs(&f), 1);
    Operator::default().write(&s.folder()).unwrap();
    assert_eq!(names(&f.tick(now(NOW + 3 * DAY)).unwrap()), ["in-force"]);
}

#[tokio::test]
async fn a_hold_that_cannot_be_read_holds() {
    let s = Subnet::new();
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    s.put(&after(&s.first, NOW + DAY));
    f.look(now(NOW + DAY)).await.unwrap();
    std::fs::write(s.folder().join("operator.json"), "{").unwrap();
    assert!(f.tick(now(NOW + 2 * DAY)).unwrap_err().to_string().contains("operator.json"));
    assert_eq!(runs(&f), 1);
}

#[tokio::test]
async fn a_set_that_meets_a_limit_waits_for_the_operators_word() {
    let mut s = Subnet::new();
    let mut f = s.limited(Limits { largest_weight_change: 0.05, ..Limits::default() });
    f.look(now(NOW)).await.unwrap();
    let mut next = after(&s.first, NOW + DAY);
    next.tasks[0] = s.files.task("chat", 0.5, 2, "");
    next.tasks[1].weight = 0.5;
    s.put(&next);
    assert_eq!(names(&f.look(now(NOW + DAY)).await.unwrap()), ["held"]);
    assert!(f.look(now(NOW + 3 * DAY)).await.unwrap().is_empty());
    let status = Status::read(&s.folder()).unwrap().unwrap();
    assert!(status.held.unwrap().objections[0].contains("10.0 % of the reward"));
    let mut operator = Operator::default();
    operator.approve(next.digest());
    operator.write(&s.folder()).unwrap();
    assert_eq!(names(&f.look(now(NOW + 3 * DAY)).await.unwrap()), ["pending", "in-force"]);
    assert_eq!(runs(&f), 2);
}

#[tokio::test]
async fn keys_rotate_and_the_old_ones_are_worth_nothing_afterwards() {
    let s = Subnet::new();
    let heirs = keys(10..12);
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    let mut second = after(&s.first, NOW + DAY);
    second.owner = owner(2, &heirs);
    s.place.put(&second, &[&s.keys[..2], &heirs[..]].concat(), &s.files);
    f.look(now(NOW + DAY)).await.unwrap();
    assert_eq!(names(&f.tick(now(NOW + 2 * DAY)).unwrap()), ["in-force", "rotated"]);
    let third = after(&second, NOW + 2 * DAY);
    s.place.put(&third, &s.keys, &s.files);
    assert_eq!(code(&f.look(now(NOW + 2 * DAY)).await.unwrap()), "taskset.too-few-signatures");
    s.place.put(&third, &heirs, &s.files);
    assert_eq!(names(&f.look(now(NOW + 2 * DAY)).await.unwrap()), ["pending"]);
}

/// Sequence 2 hands over to other keys, 3 follows; a validator slept through both.
async fn slept(s: &Subnet) -> (Follower, Set, Vec<Keypair>) {
    let heirs = keys(10..12);
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    let mut second = after(&s.first, NOW + DAY);
    second.owner = owner(2, &heirs);
    s.place.put(&second, &[&s.keys[..2], &heirs[..]].concat(), &s.files);
    let third = after(&second, NOW + 3 * DAY);
    s.place.put(&third, &heirs, &s.files);
    (f, third, heirs)
}

#[tokio::test]
async fn who_slept_through_a_rotation_catches_up_set_by_set() {
    let s = Subnet::new();
    let (mut f, _, heirs) = slept(&s).await;
    let events = f.look(now(NOW + 5 * DAY)).await.unwrap();
    assert_eq!(names(&events), ["caught-up", "pending", "in-force", "rotated"]);
    assert_eq!((runs(&f), f.status().unwrap().owner), (3, owner(2, &heirs)));
}

#[tokio::test]
async fn without_the_sets_between_nobody_is_believed() {
    let s = Subnet::new();
    let (mut f, third, heirs) = slept(&s).await;
    std::fs::remove_dir_all(s.place.path().join("history/2")).unwrap();
    assert_eq!(code(&f.look(now(NOW + 5 * DAY)).await.unwrap()), "taskset.too-few-signatures");
    // A history of their own makes strangers no owners.
    let mut fake = after(&s.first, NOW + DAY);
    fake.owner = owner(2, &heirs);
    s.place.put(&fake, &heirs, &s.files);
    s.place.put(&third, &heirs, &s.files);
    assert_eq!(code(&f.look(now(NOW + 5 * DAY)).await.unwrap()), "taskset.too-few-signatures");
    assert_eq!(runs(&f), 1);
}

#[tokio::test]
async fn a_rotation_that_has_not_come_into_force_hands_nothing_over() {
    let s = Subnet::new();
    let (mut f, ..) = slept(&s).await;
    // Both sets are published, the handing over is a day ahead.
    assert_eq!(code(&f.look(now(NOW + 2 * DAY - 1)).await.unwrap()), "taskset.too-few-signatures");
}

#[tokio::test]
async fn owners_who_lost_their_keys_come_back_by_every_operators_own_hand() {
    let s = Subnet::new();
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    drop(f);
    let fresh = keys(20..22);
    let mut next = after(&s.first, NOW + DAY);
    next.owner = owner(2, &fresh);
    s.place.put(&next, &fresh, &s.files);
    let mut f = s.follower();
    assert_eq!(code(&f.look(now(NOW + DAY)).await.unwrap()), "taskset.too-few-signatures");
    drop(f);
    let mut f = follower(s.here.path(), owner(2, &fresh), &s.place).unwrap();
    assert_eq!(names(&f.look(now(NOW + DAY)).await.unwrap()), ["retrusted", "pending"]);
    assert_eq!(runs(&f), 1);
    f.tick(now(NOW + 2 * DAY)).unwrap();
    drop(f);
    // From then on the running set's owner counts again, and the same configuration changes nothing.
    let mut f = follower(s.here.path(), owner(2, &fresh), &s.place).unwrap();
    assert_eq!((runs(&f), f.look(now(NOW + 2 * DAY)).await.unwrap().len()), (2, 0));
}

#[tokio::test]
async fn a_set_that_waits_too_long_lapses_and_one_that_runs_runs_on() {
    let s = Subnet::new();
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    let mut next = after(&s.first, NOW + DAY);
    (next.published, next.effective) = (Moment::Block(10), Moment::Block(8_000));
    s.put(&next);
    let at = |unix_s, block| Now { unix_s, block: Some(block) };
    assert_eq!(names(&f.look(at(NOW + DAY, 10)).await.unwrap()), ["pending"]);
    assert_eq!(names(&f.tick(at(NOW + 90 * DAY, 20)).unwrap()), ["stale"]);
    assert_eq!(names(&f.tick(at(NOW + 91 * DAY, 20)).unwrap()), ["lapsed"]);
    assert_eq!((runs(&f), f.pending().is_none()), (1, true));
    // It is refused when it is offered again.
    assert_eq!(code(&f.look(at(NOW + 92 * DAY, 8_000)).await.unwrap()), "taskset.expired");
}

#[tokio::test]
async fn two_never_follow_in_one_folder() {
    let s = Subnet::new();
    let f = s.follower();
    let second = follower(s.here.path(), s.owner(), &s.place);
    assert!(matches!(second, Err(FollowerError::Locked { .. })));
    drop(f);
    s.follower();
}

#[tokio::test]
async fn damage_is_named_and_what_can_be_made_again_is() {
    let s = Subnet::new();
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    let live = f.in_force().unwrap();
    drop(f);
    std::fs::write(&live.taskset, "half a fi").unwrap();
    assert_eq!(runs(&s.follower()), 1);
    assert!(std::fs::read_to_string(&live.taskset).unwrap().contains("first-light"));
    let state = s.folder().join("state.json");
    let text = std::fs::read_to_string(&state).unwrap();
    for bad in [text[..text.len() / 2].to_owned(), text.replace("\"version\": 1", "\"version\": 9")] {
        std::fs::write(&state, bad).unwrap();
        let words = follower(s.here.path(), s.owner(), &s.place).unwrap_err().to_string();
        assert!(words.contains("state.json") && !words.contains('\n'), "{words}");
    }
}

#[tokio::test]
async fn files_that_no_set_needs_any_more_are_removed() {
    let mut s = Subnet::new();
    let mut f = s.follower();
    f.look(now(NOW)).await.unwrap();
    let mut set = s.first.clone();
    for day in 1..5 {
        set = after(&set, NOW + day * DAY);
        set.tasks[0] = s.files.task("chat", 0.6, 1 + u32::try_from(day).unwrap(), "");
        s.put(&set);
        f.look(now(NOW + day * DAY)).await.unwrap();
        f.tick(now(NOW + (day + 1) * DAY)).unwrap();
    }
    assert_eq!(runs(&f), 5);
    let count = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    // The running set and the one before: a task that stayed, and two generations of the other.
    assert_eq!((count(&s.folder().join("sets")), count(&s.folder().join("blobs/sha256"))), (2, 6));
}

#[tokio::test]
async fn events_are_kept_and_a_cut_line_spoils_none() {
    let s = Subnet::new();
    let mut f = s.follower();
    let said = f.look(now(NOW)).await.unwrap();
    let journal = s.folder().join("events.jsonl");
    let mut text = std::fs::read_to_string(&journal).unwrap();
    text.push_str("{\"event\":\"in-fo");
    std::fs::write(&journal, text).unwrap();
    assert_eq!(f.status().unwrap().events, said);
}
