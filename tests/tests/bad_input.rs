//! Promise: bad input gets one clear line that names the file, the field and the way out, and exit code 2.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nineteen_tests::{cache, repository, run};

/// A validator's folder in which everything is right, on a port of its own.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(at("hotkey"), format!("0x{}\n", "11".repeat(32))).unwrap();
        fs::set_permissions(at("hotkey"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(at("subnet")).unwrap();
        fs::write(
            at("subnet/subnet.toml"),
            "netuid = 19\n[[neurons]]\nuid = 0\nhotkey = \"5Fxune7f71ZbpP2FoY3mhYcmM596Erhv1gRue4nsPwkxMR4n\"\nstake = 1.0\nvalidator_permit = true\n",
        )
        .unwrap();
        fs::write(
            at("nineteen.toml"),
            format!(
                "[paths]\ntaskset = {:?}\n[validator]\nlisten = \"127.0.0.1:{port}\"\n",
                repository().join("tasks/taskset.toml")
            ),
        )
        .unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, text: &str) {
        let file = self.path("nineteen.toml");
        let before = fs::read_to_string(&file).unwrap();
        fs::write(&file, before + text).unwrap();
    }

    /// Exit code 2, one line, no backtrace; the line.
    fn refused(&self, command: &str, env: &[(&str, &str)]) -> String {
        let out = run(self.dir.path(), &[command, "--config", "nineteen.toml", "--log", "off"], env).unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        assert!(!said.contains("backtrace") && !said.contains("panicked"), "{said}");
        said
    }
}

fn link(from: &Path, to: &Path) {
    std::os::unix::fs::symlink(from, to).unwrap();
}

#[test]
fn a_missing_configuration_is_named() {
    let place = Place::new();
    fs::remove_file(place.path("nineteen.toml")).unwrap();
    let said = place.refused("validator", &[]);
    assert!(said.contains("nineteen.toml") && said.contains("--config"), "{said}");
}

#[test]
fn an_unparsable_configuration_is_one_line() {
    let place = Place::new();
    place.append("[validator\n");
    assert!(place.refused("validator", &[]).contains("nineteen.toml"));
}

#[test]
fn an_unknown_key_names_the_nearest_known_one_also_from_the_environment() {
    let place = Place::new();
    let said = place.refused("validator", &[("NINETEEN__VALIDATOR__PERIODS_S", "60")]);
    assert!(said.contains("period_s"), "{said}");
}

#[test]
fn a_port_in_use_is_said_at_once() {
    let place = Place::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = held.local_addr().unwrap().to_string();
    let said = place.refused("validator", &[("NINETEEN__VALIDATOR__LISTEN", &addr)]);
    assert!(said.contains(&addr) && said.contains("validator.listen"), "{said}");
    assert!(!place.path("data").exists(), "nothing is half-written");
}

#[test]
fn a_library_that_is_not_there_names_the_command_that_fetches_it() {
    let place = Place::new();
    let said = place.refused("validator", &[("ORT_DYLIB_PATH", "/nonexistent/libonnxruntime.so")]);
    assert!(said.contains("/nonexistent/libonnxruntime.so") && said.contains("cargo xtask setup"), "{said}");
}

#[test]
fn a_library_that_is_none_is_refused() {
    let place = Place::new();
    fs::write(place.path("lib.so"), b"not a library").unwrap();
    let lib = place.path("lib.so").display().to_string();
    let said = place.refused("validator", &[("ORT_DYLIB_PATH", &lib)]);
    assert!(said.contains("lib.so"), "{said}");
}

#[test]
fn a_missing_model_file_is_named() {
    let place = Place::new();
    let models = place.path("models");
    fs::create_dir(&models).unwrap();
    for model in fs::read_dir(cache().join("models")).unwrap().map(|m| m.unwrap()) {
        if model.file_name() != "smollm2-135m-instruct" {
            link(&model.path(), &models.join(model.file_name()));
        }
    }
    place.append("[identity]\nhotkey_file = \"hotkey\"\n");
    let said = place.refused("validator", &[("NINETEEN__PATHS__MODELS", models.to_str().unwrap())]);
    assert!(said.contains("smollm2-135m-instruct") && said.contains("cargo xtask setup"), "{said}");
}

#[test]
fn a_corrupt_component_is_refused_and_nothing_of_it_runs() {
    let place = Place::new();
    let components = place.path("components");
    fs::create_dir(&components).unwrap();
    for name in ["text-generation.wasm", "embeddings.wasm", "components.lock"] {
        fs::copy(cache().join("components").join(name), components.join(name)).unwrap();
    }
    let file = components.join("text-generation.wasm");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let said = place.refused("validator", &[("NINETEEN__PATHS__COMPONENTS", components.to_str().unwrap())]);
    assert!(said.contains("chat-smollm2-135m") && said.contains("text-generation.wasm"), "{said}");
}

#[test]
fn a_hotkey_that_others_may_read_is_refused() {
    let place = Place::new();
    fs::set_permissions(place.path("hotkey"), fs::Permissions::from_mode(0o644)).unwrap();
    let said = place.refused("validator", &[]);
    assert!(said.contains("hotkey") && !said.contains("1111"), "{said}");
}

#[test]
fn scores_without_a_store_say_so() {
    let said = Place::new().refused("scores", &[]);
    assert!(said.contains("data"), "{said}");
}

#[test]
fn a_provider_that_is_not_there_is_an_error_and_not_a_fallback() {
    let place = Place::new();
    let said = place.refused("validator", &[("NINETEEN__CHECKING__PROVIDERS", "[\"cuda\"]")]);
    assert!(said.contains("cuda"), "{said}");
}

#[test]
fn doctor_finds_everything_that_setup_made() {
    let place = Place::new();
    let out = run(place.dir.path(), &["doctor", "--config", "nineteen.toml", "--json"], &[]).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0), "{report:#}");
    let parts: Vec<&str> =
        report["lines"].as_array().unwrap().iter().map(|l| l["part"].as_str().unwrap()).collect();
    for part in ["hotkey", "subnet", "onnxruntime", "chat-smollm2-135m", "smollm2-135m-instruct"] {
        assert!(parts.contains(&part), "{parts:?}");
    }
}

/// The task set with the chat's calibration changed.
fn with_calibration(place: &Place, change: impl Fn(&str) -> String) {
    let task = "chat-smollm2-135m";
    fs::create_dir_all(place.path("tasks").join(task)).unwrap();
    for file in ["task.toml", "calibration.json"] {
        fs::copy(repository().join("tasks").join(task).join(file), place.path("tasks").join(task).join(file))
            .unwrap();
    }
    fs::write(
        place.path("tasks/taskset.toml"),
        format!("name = \"t\"\nversion = \"1.0.0\"\npolicy = \"default\"\n[[task]]\nfolder = \"{task}\"\nweight = 1.0\n"),
    )
    .unwrap();
    let file = place.path("tasks").join(task).join("calibration.json");
    let before = fs::read_to_string(&file).unwrap();
    let after = change(&before);
    assert_ne!(before, after);
    fs::write(&file, after).unwrap();
}

fn doctors_line(place: &Place, part: &str) -> (bool, String) {
    let taskset = place.path("tasks/taskset.toml").display().to_string();
    let env = [("NINETEEN__PATHS__TASKSET", taskset.as_str())];
    let out = run(place.dir.path(), &["doctor", "--config", "nineteen.toml", "--json"], &env).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let line = report["lines"].as_array().unwrap().iter().find(|l| l["part"] == part).unwrap().clone();
    (line["ok"].as_bool().unwrap(), line["says"].as_str().unwrap().to_owned())
}

#[test]
fn a_calibration_of_another_model_starts_nothing() {
    let place = Place::new();
    let at = "\"identity\": \"sha256:";
    with_calibration(&place, |text| {
        let (before, after) = text.split_once(at).unwrap();
        let digit = if after.starts_with('0') { '1' } else { '0' };
        format!("{before}{at}{digit}{}", &after[1..])
    });
    let taskset = place.path("tasks/taskset.toml").display().to_string();
    let said = place.refused("validator", &[("NINETEEN__PATHS__TASKSET", &taskset)]);
    for words in ["calibration.json", "model.identity", "smollm2-135m-instruct", "nineteen task calibrate"] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_model_that_answers_otherwise_than_its_golden_numbers_is_named_by_doctor() {
    let place = Place::new();
    with_calibration(&place, |text| {
        let (before, after) = text.split_once("\"expects\": [").unwrap();
        let (_, rest) = after.split_once(',').unwrap();
        format!("{before}\"expects\": [ 1.0,{rest}")
    });
    let (ok, says) = doctors_line(&place, "smollm2-135m-instruct");
    assert!(!ok && says.contains("golden numbers are off") && says.contains("quarantine"), "{says}");
}
