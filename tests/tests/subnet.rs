//! Promise: an owner signs and publishes a task set with the commands of the book, a validator follows it with its own
//! limits, and bad input gets one line and exit code 2.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use nineteen_tests::{repository, run};
use serde_json::Value;

/// An owner's folder with three keys and a copy of the tasks, and a validator's configuration beside it.
struct Walk {
    dir: tempfile::TempDir,
    keys: Vec<String>,
}

impl Walk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut walk = Self { dir, keys: Vec::new() };
        for task in ["chat-smollm2-135m", "embed-minilm-l6"] {
            fs::create_dir_all(walk.path("tasks").join(task)).unwrap();
            for file in ["task.toml", "calibration.json"] {
                let from = repository().join("tasks").join(task).join(file);
                fs::copy(from, walk.path("tasks").join(task).join(file)).unwrap();
            }
        }
        walk.local("0.1.0", 0.6);
        fs::write(walk.path("phrase"), "correct horse\n").unwrap();
        fs::set_permissions(walk.path("phrase"), fs::Permissions::from_mode(0o600)).unwrap();
        for (name, sealed) in [("alice", false), ("bob", true), ("carol", false)] {
            let file = format!("{name}.key");
            let mut args = vec!["keys", "new", &file];
            args.extend(if sealed { ["--passphrase-file", "phrase"].as_slice() } else { &[] });
            let address = walk.says(&args);
            walk.keys.push(address.trim().to_owned());
        }
        let keys = &walk.keys;
        let config = format!(
            "[subnet]\nsource = \"public\"\nname = \"walk\"\nkeys = {keys:?}\nthreshold = 2\n\
             [subnet.limits]\nlargest_weight_change = 0.2\n"
        );
        fs::write(walk.path("validator.toml"), config).unwrap();
        walk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn local(&self, version: &str, chat: f64) {
        let embed = 1.0 - chat;
        let text = format!(
            "name = \"walk\"\nversion = \"{version}\"\npolicy = \"default\"\n\
             [[task]]\nfolder = \"chat-smollm2-135m\"\nweight = {chat:?}\n\
             [[task]]\nfolder = \"embed-minilm-l6\"\nweight = {embed:?}\n"
        );
        fs::write(self.path("tasks/taskset.toml"), text).unwrap();
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let all: Vec<&str> = ["--log", "off", "subnet"].iter().chain(args).copied().collect();
        let out = run(self.dir.path(), &all, &[]).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    }

    fn says(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {err}");
        out
    }

    fn json(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = args.iter().chain(&["--json"]).copied().collect();
        serde_json::from_str(&self.says(&all)).unwrap()
    }

    /// As the validator, whose folder it is too.
    fn validator(&self, args: &[&str]) -> Value {
        self.json(&["--config", "validator.toml"].iter().chain(args).copied().collect::<Vec<_>>())
    }

    fn refused(&self, args: &[&str]) -> String {
        let (code, _, err) = self.run(args);
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert_eq!(err.trim_end().lines().count(), 1, "{err}");
        assert!(!err.contains("panicked"), "{err}");
        err
    }

    fn release(&self, folder: &str, init: &[&str]) {
        let set = format!("{folder}/taskset.toml");
        let mut args = vec!["init", "--from", "tasks/taskset.toml", "--out", &set];
        args.extend(init);
        self.says(&args);
        self.says(&["sign", &set, "--key", "alice.key"]);
        self.says(&["sign", &set, "--key", "bob.key", "--passphrase-file", "phrase"]);
    }

    fn first(&self) {
        let [a, b, c] = &self.keys[..] else { panic!() };
        let terms = ["--owner", a, "--owner", b, "--owner", c, "--threshold", "2", "--notice", "0s"];
        self.release("one", &terms);
        self.says(&["publish", "one/taskset.toml", "--from", "tasks/taskset.toml", "--to", "public"]);
    }
}

fn names(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap()).collect()
}

#[test]
fn a_set_goes_from_an_owners_folder_into_force_at_a_validator_and_no_further_than_it_lets_it() {
    let walk = Walk::new();
    walk.first();
    assert_eq!(walk.json(&["verify", "one/taskset.toml"])["signers"].as_array().unwrap().len(), 2);
    assert_eq!(names(&walk.validator(&["look"])), ["pending", "in-force"]);
    assert_eq!(walk.validator(&["status"])["running"]["sequence"], 1);

    // What other commands read is what is in force, and not a folder of files that happen to be there.
    walk.local("0.2.0", 0.5);
    let out = run(walk.dir.path(), &["--config", "validator.toml", "tasks", "--json"], &[]).unwrap();
    let tasks: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(tasks[0]["weight"], 0.6, "{}", String::from_utf8_lossy(&out.stderr));

    walk.release("two", &["--after", "one/taskset.toml"]);
    let diff = walk.json(&["diff", "two/taskset.toml", "--against", "one/taskset.toml"]);
    assert_eq!(diff["diff"]["plan"]["changes"][0]["do"], "reweigh");
    let said = walk.says(&["diff", "two/taskset.toml", "--against", "one/taskset.toml"]);
    assert!(said.contains("60.00 % → 50.00 %") && said.contains("moves 10.00 %"), "{said}");
    walk.says(&["verify", "two/taskset.toml", "--after", "one/taskset.toml"]);
    walk.says(&["publish", "two/taskset.toml", "--from", "tasks/taskset.toml", "--to", "public"]);

    walk.validator(&["hold", "--reason", "looking into it"]);
    assert_eq!(names(&walk.validator(&["look"])), ["pending", "waiting"]);
    let status = walk.validator(&["status"]);
    assert_eq!((&status["running"]["sequence"], &status["pending"]["sequence"]), (&1.into(), &2.into()));
    walk.validator(&["release"]);
    assert_eq!(names(&walk.validator(&["look"])), ["in-force"]);

    // A larger step waits for the operator's word.
    walk.local("0.3.0", 0.1);
    walk.release("three", &["--after", "two/taskset.toml"]);
    walk.says(&["publish", "three/taskset.toml", "--from", "tasks/taskset.toml", "--to", "public"]);
    let events = walk.validator(&["look"]);
    assert_eq!(names(&events), ["held"]);
    let said = walk.says(&["--config", "validator.toml", "diff"]);
    assert!(said.contains("this validator would hold it: it moves 40.0 %"), "{said}");
    walk.validator(&["release", events[0]["set"].as_str().unwrap()]);
    assert_eq!(names(&walk.validator(&["look"])), ["pending", "in-force"]);
    assert!(walk.says(&["--config", "validator.toml", "status"]).contains("in force  walk 0.3.0"));
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let walk = Walk::new();
    let [a, b, _] = &walk.keys[..] else { panic!() };
    assert!(walk.refused(&["init", "--from", "tasks/taskset.toml"]).contains("--owner"));
    let two = ["init", "--from", "tasks/taskset.toml", "--owner", a, "--owner", b];
    assert!(walk.refused(&two).contains("--threshold"));
    walk.says(&[two.as_slice(), &["--threshold", "2"]].concat());
    assert!(walk.refused(&[two.as_slice(), &["--threshold", "2"]].concat()).contains("there already"));

    let publish = ["publish", "--from", "tasks/taskset.toml", "--to", "public"];
    assert!(walk.refused(&["verify"]).contains("not signed"));
    assert!(walk.refused(&publish).contains("not signed"));
    assert!(walk.refused(&["sign", "--key", "bob.key"]).contains("--passphrase-file"));
    walk.says(&["sign", "--key", "alice.key"]);
    assert!(walk.refused(&publish).contains("1 of 2 signatures"));
    let wrong = walk.path("wrong");
    fs::write(&wrong, "wrong\n").unwrap();
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        walk.refused(&["sign", "--key", "bob.key", "--passphrase-file", "wrong"]).contains("does not open")
    );
    fs::set_permissions(walk.path("alice.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let said = walk.refused(&["sign", "--key", "alice.key"]);
    assert!(said.contains("chmod 600"), "{said}");

    // A number changed after signing.
    let text = fs::read_to_string(walk.path("taskset.toml")).unwrap();
    fs::write(walk.path("taskset.toml"), text.replace("weight = 0.6", "weight = 0.600000000001")).unwrap();
    let said = walk.refused(&["verify"]);
    assert!(said.contains("changed after signing"), "{said}");
    assert!(walk.refused(&["sign", "--key", "carol.key"]).contains("everybody sign again"));
    assert!(walk.refused(&["diff", "tasks/taskset.toml"]).contains("nineteen subnet init"));
    assert!(walk.refused(&["diff", "none.toml"]).contains("none.toml"));
    assert!(walk.refused(&["release"]).contains("nothing is held"));
    assert!(walk.refused(&["look"]).contains("subnet.source"));
    assert!(walk.refused(&["status"]).contains("nothing is followed"));
    for source in ["http://localhost/", "ftp://localhost/x", "https://me:pw@localhost/"] {
        let text = format!("[subnet]\nsource = \"{source}\"\nkeys = [\"{a}\"]\nthreshold = 1\n");
        fs::write(walk.path("bad.toml"), text).unwrap();
        let said = walk.refused(&["--config", "bad.toml", "look"]);
        assert!(said.contains("subnet.source") && !said.contains("pw@"), "{said}");
    }
}

#[test]
fn a_validator_whose_source_gives_nothing_does_not_start() {
    let walk = Walk::new();
    fs::write(walk.path("hotkey"), format!("0x{}\n", "11".repeat(32))).unwrap();
    fs::set_permissions(walk.path("hotkey"), fs::Permissions::from_mode(0o600)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let args = ["--config", "validator.toml", "--log", "off", "validator"];
    let out = run(walk.dir.path(), &args, &[("NINETEEN__VALIDATOR__LISTEN", &listen)]).unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("subnet.source") && said.contains("no set is in force"), "{said}");
}

#[test]
fn every_command_of_the_book_runs() {
    let walk = Walk::new();
    for key in ["alice.key", "bob.key", "carol.key"] {
        fs::remove_file(walk.path(key)).unwrap();
    }
    fs::copy(walk.path("phrase"), walk.path("bob.passphrase")).unwrap();
    let page = fs::read_to_string(repository().join("docs/owning-a-subnet.md")).unwrap();
    let blocks: Vec<&str> =
        page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [keys, first, next, validator] = blocks[..] else { panic!("{} blocks", blocks.len()) };
    // What the page says in words stands between its blocks.
    let script = format!(
        "{keys}\n{first}\nsed -i 's/0\\.1\\.0/0.2.0/' tasks/taskset.toml\n\
         printf '[subnet]\\nsource = \"public\"\\nthreshold = 2\\nkeys = [\"%s\", \"%s\", \"%s\"]\\n' $ALICE $BOB $CAROL > validator.toml\n\
         {next}\nSET=sha256:{}\nmv validator.toml nineteen.toml\n{validator}",
        "ab".repeat(32)
    );
    let bin = nineteen_tests::nineteen();
    let path = format!("{}:{}", bin.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let out = std::process::Command::new("sh")
        .args(["-eux", "-c", &script])
        .current_dir(walk.dir.path())
        .env("PATH", path)
        .env("NINETEEN_CACHE", nineteen_tests::cache())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{}\n{}", text(&out.stdout), text(&out.stderr));
    let said = text(&out.stdout);
    for expected in ["sequence 1 is published", "sequence 2 is published", "accepted", "pending"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
