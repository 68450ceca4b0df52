//! Projects to begin with, complete: they pass `check` as they are.
//!
//! Everything is embedded, so that an author needs this program and a compiler and nothing else. In texts and names of files
//! `{{name}}` stands for the task's name, and `{{name_snake}}` for the same with underscores.

use std::path::Path;

use nineteen_domain::TaskName;

use crate::error::AuthorError;
use crate::project::Lang;

/// Of all languages: the contract.
const WIT: &[(&str, &str)] = &[
    ("wit/0.1/task.wit", include_str!("../../../wit/0.1/task.wit")),
    ("wit/0.2/task.wit", include_str!("../../../wit/0.2/task.wit")),
];

const RUST: &[(&str, &str)] = &[
    ("author.toml", include_str!("../templates/rust/author.toml")),
    ("Cargo.toml", include_str!("../templates/rust/Cargo.toml")),
    ("README.md", include_str!("../templates/rust/README.md")),
    (".gitignore", include_str!("../templates/rust/gitignore")),
    ("src/lib.rs", include_str!("../templates/rust/src/lib.rs")),
    ("task/task.toml", include_str!("../templates/rust/task/task.toml")),
    ("task/vectors.jsonl", include_str!("../templates/rust/task/vectors.jsonl")),
    ("vendor/nineteen-sdk/Cargo.toml", include_str!("../templates/rust/vendor-Cargo.toml")),
    ("vendor/nineteen-sdk/src/calibration.rs", include_str!("../../../plugins/sdk/src/calibration.rs")),
    ("vendor/nineteen-sdk/src/checks.rs", include_str!("../../../plugins/sdk/src/checks.rs")),
    (
        "vendor/nineteen-sdk/src/checks/pictures.rs",
        include_str!("../../../plugins/sdk/src/checks/pictures.rs"),
    ),
    ("vendor/nineteen-sdk/src/checks/tensors.rs", include_str!("../../../plugins/sdk/src/checks/tensors.rs")),
    ("vendor/nineteen-sdk/src/guest.rs", include_str!("../../../plugins/sdk/src/guest.rs")),
    ("vendor/nineteen-sdk/src/hash.rs", include_str!("../../../plugins/sdk/src/hash.rs")),
    ("vendor/nineteen-sdk/src/lib.rs", include_str!("../../../plugins/sdk/src/lib.rs")),
    ("vendor/nineteen-sdk/src/memory.rs", include_str!("../../../plugins/sdk/src/memory.rs")),
    ("vendor/nineteen-sdk/src/openai.rs", include_str!("../../../plugins/sdk/src/openai.rs")),
    ("vendor/nineteen-sdk/src/rng.rs", include_str!("../../../plugins/sdk/src/rng.rs")),
    ("vendor/nineteen-sdk/src/sse.rs", include_str!("../../../plugins/sdk/src/sse.rs")),
    ("vendor/nineteen-sdk/src/task.rs", include_str!("../../../plugins/sdk/src/task.rs")),
    ("vendor/nineteen-sdk/src/types.rs", include_str!("../../../plugins/sdk/src/types.rs")),
];

const PYTHON: &[(&str, &str)] = &[
    ("author.toml", include_str!("../templates/python/author.toml")),
    ("README.md", include_str!("../templates/python/README.md")),
    (".gitignore", include_str!("../templates/rust/gitignore")),
    ("app.py", include_str!("../templates/python/app.py")),
    ("sdk.py", include_str!("../templates/python/sdk.py")),
    ("task/task.toml", include_str!("../templates/python/task/task.toml")),
    ("task/vectors.jsonl", include_str!("../templates/rust/task/vectors.jsonl")),
];

const JS: &[(&str, &str)] = &[
    ("author.toml", include_str!("../templates/js/author.toml")),
    ("README.md", include_str!("../templates/js/README.md")),
    (".gitignore", include_str!("../templates/js/gitignore")),
    ("package.json", include_str!("../templates/js/package.json")),
    ("build.mjs", include_str!("../templates/js/build.mjs")),
    ("src/app.js", include_str!("../templates/js/src/app.js")),
    ("src/sdk.js", include_str!("../templates/js/src/sdk.js")),
    ("task/task.toml", include_str!("../templates/js/task/task.toml")),
    ("task/vectors.jsonl", include_str!("../templates/rust/task/vectors.jsonl")),
];

/// Writes a project into a folder that is not there yet, or empty.
///
/// # Errors
/// [`AuthorError::File`]; then nothing is left behind.
pub fn scaffold(name: &TaskName, lang: Lang, into: &Path) -> Result<(), AuthorError> {
    if into.read_dir().is_ok_and(|mut entries| entries.next().is_some()) || into.is_file() {
        return Err(AuthorError::file(into, "is not empty: name a folder that is not there yet"));
    }
    let files = match lang {
        Lang::Rust => RUST,
        Lang::Python => PYTHON,
        Lang::Js => JS,
    };
    let snake = name.as_str().replace(['-', '.'], "_");
    let fill = |text: &str| text.replace("{{name}}", name.as_str()).replace("{{name_snake}}", &snake);
    let parent = into.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(AuthorError::io(parent))?;
    let made =
        tempfile::Builder::new().prefix(".new-task-").tempdir_in(parent).map_err(AuthorError::io(parent))?;
    for (path, text) in WIT.iter().chain(files) {
        let file = made.path().join(fill(path));
        let folder = file.parent().unwrap_or(made.path());
        std::fs::create_dir_all(folder).map_err(AuthorError::io(folder))?;
        // The contract is copied as it is.
        let text = if path.starts_with("wit/") || path.starts_with("vendor/") {
            (*text).to_owned()
        } else {
            fill(text)
        };
        std::fs::write(&file, text).map_err(AuthorError::io(&file))?;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // A temporary folder is for us alone, and a project is no secret.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(made.path(), open).map_err(AuthorError::io(made.path()))?;
    }
    std::fs::rename(made.path(), into).map_err(AuthorError::io(into))?;
    // It has another name now: there is nothing to delete.
    let _ = made.keep();
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails is meant to panic")]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_sdk_is_in_the_template() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/sdk");
        let mut missing = Vec::new();
        let mut folders = vec![sdk.join("src")];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().unwrap().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let path = entry.path().strip_prefix(&sdk).unwrap().display().to_string();
                if !RUST.iter().any(|(to, _)| *to == format!("vendor/nineteen-sdk/{path}")) {
                    missing.push(path);
                }
            }
        }
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn the_sdk_of_the_template_has_the_dependencies_of_the_sdk() {
        let read = |path: &str| -> toml::Table {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let all = read("../../plugins/Cargo.toml");
        let ours = read("templates/rust/vendor-Cargo.toml");
        let of = |t: &toml::Table| t.get("workspace").unwrap().get("dependencies").unwrap().clone();
        let all = of(&all);
        let wasm = ours
            .get("target")
            .unwrap()
            .as_table()
            .unwrap()
            .values()
            .next()
            .unwrap()
            .get("dependencies")
            .unwrap();
        let both =
            ours.get("dependencies").unwrap().as_table().unwrap().iter().chain(wasm.as_table().unwrap());
        for (name, declared) in both {
            assert_eq!(all.get(name), Some(declared), "{name}");
        }
    }

    #[test]
    fn a_project_has_its_name_everywhere_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        for (n, lang) in [Lang::Rust, Lang::Python, Lang::Js].into_iter().enumerate() {
            let into = dir.path().join(n.to_string());
            scaffold(&TaskName::new("my-task").unwrap(), lang, &into).unwrap();
            let project = crate::Project::read(&into).unwrap();
            assert_eq!((project.manifest.name.as_str(), project.lang), ("my-task", lang));
            let mut folders = vec![into.clone()];
            while let Some(folder) = folders.pop() {
                for entry in folder.read_dir().unwrap().flatten() {
                    if entry.path().is_dir() {
                        folders.push(entry.path());
                    } else if !entry.path().starts_with(into.join("vendor")) {
                        assert!(!std::fs::read_to_string(entry.path()).unwrap().contains("{{name"));
                    }
                }
            }
            let again = scaffold(&TaskName::new("other").unwrap(), lang, &into).unwrap_err().to_string();
            assert!(again.contains("is not empty"), "{again}");
        }
    }
}
