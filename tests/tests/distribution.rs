//! What docs/distribution.md says, with the component that this repository builds and the registry that Debian ships.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

use std::path::{Path, PathBuf};
use std::process::Output;

use nineteen_tests::registry::Registry;
use nineteen_tests::{cache, repository, run};

/// A cache of the test's own with the components of this machine.
fn nineteen(folder: &Path, args: &[&str]) -> Output {
    nineteen_with(folder, args, &[])
}

fn nineteen_with(folder: &Path, args: &[&str], more: &[(&str, &str)]) -> Output {
    let components = cache().join("components");
    let (own, components) = (folder.join("cache"), components.to_str().unwrap());
    let mut env = vec![
        ("NINETEEN_CACHE", own.to_str().unwrap()),
        ("NINETEEN__PATHS__COMPONENTS", components),
        ("HOME", "/nonexistent"),
    ];
    env.extend(more);
    run(folder, args, &env).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn chat() -> PathBuf {
    repository().join("tasks/chat-smollm2-135m")
}

#[test]
fn a_task_of_this_repository_is_published_pulled_and_served_offline() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path()).unwrap();
    let place = format!("{}/tasks/chat", registry.address);
    let (task, at) = (chat(), |rest: &str| format!("{place}{rest}"));
    let task = task.to_str().unwrap();

    let dry = json(&nineteen(folder.path(), &["task", "publish", task, &place, "--dry-run", "--json"]));
    assert!(dry["published"].is_null());
    assert_eq!(dry["layers"][0]["media_type"], "application/wasm");
    let missing = nineteen(folder.path(), &["task", "pull", &place]);
    assert_eq!(missing.status.code(), Some(2), "a dry run sends nothing: {}", text(&missing.stderr));
    assert!(text(&missing.stderr).contains("there is nothing"), "{}", text(&missing.stderr));

    let sent = nineteen(folder.path(), &["task", "publish", task, &place, "--json"]);
    assert!(text(&sent.stderr).contains("sending task.toml"), "{}", text(&sent.stderr));
    let sent = json(&sent);
    let digest = sent["manifest_digest"].as_str().unwrap().to_owned();
    assert_eq!(sent["manifest_digest"], dry["manifest_digest"], "what was promised is what was sent");
    assert_eq!(sent["published"]["digest"], digest);

    let into = folder.path().join("pulled");
    let pulled = json(&nineteen(
        folder.path(),
        &["task", "pull", &at(":*"), "--into", into.to_str().unwrap(), "--json"],
    ));
    assert_eq!(
        (&pulled["manifest_digest"], &pulled["origin"]["from"]),
        (&sent["manifest_digest"], &"registry".into())
    );
    for name in ["task.toml", "calibration.json"] {
        assert_eq!(std::fs::read(into.join(name)).unwrap(), std::fs::read(chat().join(name)).unwrap());
    }
    let component = std::fs::read(into.join("text-generation.wasm")).unwrap();
    assert_eq!(component, std::fs::read(cache().join("components/text-generation.wasm")).unwrap());
    assert_eq!(sent["component_digest"], nineteen_domain::Digest::of(&component).to_string());

    // What was pulled is a task's folder, and a mirror of it has the same digest.
    let copy = format!("{}/mirror/chat", registry.address);
    let mirrored =
        json(&nineteen(folder.path(), &["task", "publish", into.to_str().unwrap(), &copy, "--json"]));
    assert_eq!(mirrored["manifest_digest"], digest);

    drop(registry);
    let away = nineteen(folder.path(), &["task", "pull", &at("")]);
    assert!(text(&away.stderr).contains("served from the cache"), "{}", text(&away.stderr));
    assert!(text(&away.stdout).contains("from the cache alone"), "{}", text(&away.stdout));
    let pinned = json(&nineteen(folder.path(), &["task", "pull", &at(&format!("@{digest}")), "--json"]));
    assert_eq!(pinned["origin"]["from"], "cache");
}

#[test]
fn the_books_commands_work_in_the_order_in_which_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path()).unwrap();
    std::os::unix::fs::symlink(repository().join("tasks"), folder.path().join("tasks")).unwrap();
    let page = std::fs::read_to_string(repository().join("docs/distribution.md")).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut ran = 0;
    for line in blocks.flat_map(str::lines).filter(|line| line.contains("nineteen ")) {
        let line = line.replace("127.0.0.1:5000", &registry.address.to_string());
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "nineteen").unwrap();
        let args = words.split_off(at + 1);
        let set: Vec<(&str, &str)> = words[..at].iter().map(|word| word.split_once('=').unwrap()).collect();
        let output = nineteen_with(folder.path(), &args, &set);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        ran += 1;
    }
    assert!(ran >= 7, "{ran} commands ran");
}

#[test]
fn refusals_are_one_line_and_exit_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for (args, says) in [
        (vec!["task", "publish", ".", "r.example/tasks/chat"], "name the folder of a task"),
        (vec!["task", "pull", "chat"], "is no reference"),
        (vec!["task", "pull", "192.0.2.1:80/chat"], "oci.plain_http"),
        (vec!["task", "pull", "r.example/chat:^^1"], "neither a tag nor a range"),
    ] {
        let output = nineteen(folder.path(), &args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
    }
    let bad = folder.path().join("nineteen.toml");
    std::fs::write(&bad, "[oci]\nplain_http = [\"https://r.example\"]\n").unwrap();
    let said = text(&nineteen(folder.path(), &["task", "pull", "r.example/chat"]).stderr);
    assert!(said.contains("oci.plain_http") && said.contains("no host name"), "{said}");
}
