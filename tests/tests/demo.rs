//! Promise: one command runs a small subnet; cheats earn less than the slower honest miner; a `kill -9` of the
//! validator in the middle changes nothing of that.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nineteen_tests::{cache, nineteen, repository, run};
use serde_json::Value;

const TASKS: [&str; 4] =
    ["chat-smollm2-135m", "embed-minilm-l6", "image-world-scenes", "avatar-world-portraits"];

fn miner<'a>(report: &'a Value, kind: &str) -> &'a Value {
    report["miners"].as_array().unwrap().iter().find(|m| m["kind"] == kind).unwrap()
}

fn weight(report: &Value, kind: &str) -> f64 {
    miner(report, kind)["weight"].as_f64().unwrap()
}

#[test]
fn cheats_end_below_the_slower_honest_miner_also_when_the_validator_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("demo.json");
    let dir = folder.path().join("play");
    let mut demo = Command::new(nineteen())
        .args(["demo", "--period-s", "60", "--periods", "2", "--json"])
        .arg(&json)
        .arg("--dir")
        .arg(&dir)
        .arg("--taskset")
        .arg(repository().join("tasks/taskset.toml"))
        .env("NINETEEN_CACHE", cache())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(demo.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    for line in lines {
        if let Some(rest) = line.split("(process ").nth(1) {
            // In the middle of the first period: probes are under way.
            std::thread::sleep(Duration::from_secs(35));
            let pid = rest.split(';').next().unwrap();
            assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
        }
        said.push(line);
    }
    let out = demo.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", said.join("\n"));
    assert!(said.iter().any(|l| l.contains("starting it again")), "{}", said.join("\n"));

    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let slow = weight(&report, "honest-slow");
    for cheat in ["int8", "impostor"] {
        assert!(weight(&report, cheat) < slow, "{cheat}: {report:#}");
    }
    let fast = weight(&report, "honest-fast");
    assert!(weight(&report, "flaky") < fast, "{report:#}");
    // The boaster has the fast one's machine and announces four times as much: what the truth earns, it misses by far.
    assert!(weight(&report, "boaster") < slow, "{report:#}");
    for m in report["miners"].as_array().unwrap() {
        for task in TASKS {
            let t = &m["tasks"][task];
            for field in
                ["capacity", "probes", "period_scores", "quality", "speed", "effective_volume", "share"]
            {
                assert!(t.get(field).is_some(), "{field} of {task}: {m:#}");
            }
        }
        assert!(m["weight_u16"].is_u64() && m["uid"].is_u64() && m["hotkey"].is_string(), "{m:#}");
    }
    // In every task an honest miner is on top.
    for task in TASKS {
        let earned = |kind: &str| miner(&report, kind)["tasks"][task]["effective_volume"].as_f64().unwrap();
        let honest = earned("honest-fast").max(earned("honest-slow"));
        for cheat in ["int8", "impostor", "boaster"] {
            assert!(earned(cheat) < honest, "{cheat} in {task}: {report:#}");
        }
    }
    // One may look at the pictures: everybody's, and the checker's beside them.
    let gallery = std::fs::read_to_string(dir.join("gallery.html")).unwrap();
    for shown in
        ["impostor", "honest-fast", "data:image/png;base64,", "image-world-scenes", "avatar-world-portraits"]
    {
        assert!(gallery.contains(shown), "{shown}");
    }
    // What the same answers earn under the other policy stands beside.
    let beside = &report["beside"];
    assert_eq!(beside["policy"], "sn19-2025-01");
    let replayed = beside["miners"].as_array().unwrap();
    assert!(replayed.len() == 6 && beside["periods"][0]["cosine"].is_f64(), "{beside:#}");
    let honest = &miner(&report, "honest-fast")["tasks"]["chat-smollm2-135m"];
    assert!(honest["quality_mean"].as_f64().unwrap() > 0.99, "{honest:#}");

    // Afterwards the store opens, and says why.
    let config = dir.join("nineteen.toml").display().to_string();
    let uid = miner(&report, "int8")["uid"].to_string();
    let why = run(
        folder.path(),
        &["explain", "--config", &config, "--miner", &uid, "--task", "chat-smollm2-135m"],
        &[],
    );
    let why = why.unwrap();
    let words = String::from_utf8_lossy(&why.stdout);
    assert!(why.status.success(), "{}", String::from_utf8_lossy(&why.stderr));
    assert!(words.contains("quality Q") && words.contains("margin"), "{words}");
    // The task's calibration is played with.
    assert!(words.contains("honesty π") && words.contains("exchanges tested"), "{words}");
}
