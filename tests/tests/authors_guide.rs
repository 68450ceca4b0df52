//! What docs/authors-guide.md says an author does, as it stands there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails is meant to panic")]

use nineteen_tests::{repository, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_guides_commands_work_in_the_order_in_which_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let page = std::fs::read_to_string(repository().join("docs/authors-guide.md")).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut ran = 0;
    for line in blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("nineteen ")) {
        let args: Vec<&str> = line.split_whitespace().collect();
        let output = run(folder.path(), &args, &[]).unwrap();
        assert!(output.status.success(), "{line}: {}{}", text(&output.stderr), text(&output.stdout));
        ran += 1;
    }
    assert!(ran >= 5, "{ran} commands ran");
    // What was packed is a task as `tasks add` and `task publish` take it.
    for file in ["task.toml", "vectors.jsonl", "my-task.wasm", "components.lock"] {
        assert!(folder.path().join("packed").join(file).is_file(), "{file}");
    }
}

#[test]
fn the_example_of_a_vector_in_the_guide_is_one() {
    let page = std::fs::read_to_string(repository().join("docs/authors-guide.md")).unwrap();
    let example = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let line = example.lines().map(str::trim).collect::<String>();
    let read = nineteen_sandbox::vectors::Vectors::read(line.as_bytes()).unwrap();
    assert_eq!(read.all().len(), 1);
}

#[test]
fn a_task_that_breaks_its_promises_is_told_which() {
    let folder = tempfile::tempdir().unwrap();
    let says = |args: &[&str]| run(folder.path(), &[&["--log", "off"], args].concat(), &[]).unwrap();
    assert!(says(&["task", "new", "broken"]).status.success());
    let lib = folder.path().join("broken/src/lib.rs");
    let source = std::fs::read_to_string(&lib).unwrap();
    // Worth more for garbage, the same request for every seed, and a panic on what is no JSON.
    let worse = source
        .replace("let op = *rng.pick(&[Op::Reverse, Op::Upper, Op::SortWords]).ok_or(\"no operation\")?;", "let op = Op::Upper;")
        .replace("let count = 1 + rng.below(p.max_texts as u64);", "let count = 1; *rng = Rng::new(&[7; 32]);")
        .replace(
            "let reply: Reply = serde_json::from_slice(&exchange.body())\n            .map_err(|e| Stop::violation(\"reply.shape\", e.to_string()))?;",
            "let reply: Reply = serde_json::from_slice(&exchange.body()).unwrap();",
        );
    assert_ne!(worse, source);
    std::fs::write(&lib, worse).unwrap();
    let built = says(&["task", "build", "broken"]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    let checked = says(&["task", "check", "broken", "--json"]);
    assert_eq!(checked.status.code(), Some(1), "{}", text(&checked.stderr));
    let report: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    let findings = report.get("findings").unwrap().as_array().unwrap();
    let broken: Vec<&str> = findings
        .iter()
        .filter(|f| f.get("kept").unwrap() == false)
        .map(|f| f.get("promise").unwrap().as_str().unwrap())
        .collect();
    for promise in ["synthetic requests vary", "vectors come out as meant", "garbage never makes it fail"] {
        assert!(broken.contains(&promise), "{promise}: {broken:?}");
    }
    assert!(!broken.contains(&"loads"), "{broken:?}");
}

#[test]
fn slips_of_authors_are_one_line_and_exit_with_2() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    std::fs::create_dir_all(folder.path().join("odd")).unwrap();
    std::fs::write(folder.path().join("odd/author.toml"), "lang = \"cobol\"\ntask = \"task\"\nwatch = []\n")
        .unwrap();
    std::fs::create_dir_all(folder.path().join("out")).unwrap();
    std::fs::write(
        folder.path().join("out/author.toml"),
        "lang = \"rust\"\ntask = \"../task\"\nwatch = []\n",
    )
    .unwrap();
    for (args, word) in [
        (vec!["task", "build", "nowhere"], "author.toml"),
        (vec!["task", "check", "nowhere"], "nineteen task new"),
        (vec!["task", "build", "odd"], "cobol"),
        (vec!["task", "build", "out"], "not inside the project"),
        (vec!["task", "new", "Not A Name"], "Not A Name"),
        (vec!["task", "new", "x", "--dir", "odd"], "is not empty"),
        (vec!["task", "bench", "."], "author.toml"),
    ] {
        let output = run(folder.path(), &[&["--log", "off"], args.as_slice()].concat(), &[]).unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(word) && !said.contains("panicked"), "{args:?}: {said}");
    }
}

#[test]
fn what_compiles_too_long_is_killed_and_said_so() {
    use nineteen_sandbox::{Assets, ComponentSource, Sandbox, SandboxConfig};
    let folder = tempfile::tempdir().unwrap();
    // A program that takes its bytes and never answers, in place of a compiler.
    let slow = folder.path().join("slow");
    std::fs::write(&slow, "#!/bin/sh\ncat > /dev/null\nexec sleep 600\n").unwrap();
    std::fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let component = nineteen_tests::cache().join("components/embeddings.wasm");
    let manifest = repository().join("tasks/embed-minilm-l6/task.toml");
    let manifest = toml::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
    let load = |name: &str, program: std::path::PathBuf, seconds: u64| {
        let config = SandboxConfig {
            cache_dir: folder.path().join(name),
            max_component_bytes: 64 << 20,
            compile_timeout: std::time::Duration::from_secs(seconds),
            max_concurrent_calls: 4,
            host_version: semver::Version::new(0, 1, 0),
        };
        let sandbox = Sandbox::new(config).unwrap().with_compiler(program);
        let source = ComponentSource::Path(component.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(sandbox.load(source, None, &manifest, Assets::none()))
    };
    let refused = load("one", slow, 2).unwrap_err().to_string();
    assert!(refused.contains("2 s"), "{refused}");
    let crashed = load("two", "/bin/false".into(), 20).unwrap_err().to_string();
    assert!(crashed.contains("compiler ended"), "{crashed}");
    // The program itself is the compiler, and what it gives runs here.
    let plugin = load("three", nineteen_tests::nineteen(), 120).unwrap();
    assert!(plugin.load_steps().iter().any(|(step, _)| *step == "compile"));
}
