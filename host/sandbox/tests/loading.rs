//! What is loaded, what is refused and in which words, and how far the cache is believed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly, like tests"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use common::{Guest, House, config, manifest};
use nineteen_domain::Digest;
use nineteen_domain::task::{Budget, Manifest};
use nineteen_sandbox::{Assets, ComponentSource, LoadFault, Sandbox, SandboxError};

async fn refusal(house: &House, bytes: Bytes, manifest: &Manifest) -> SandboxError {
    let refused = house.try_load(bytes, manifest).await.unwrap_err();
    let shown = refused.to_string();
    assert!(shown.starts_with("task echo-task: component given bytes: "), "{shown}");
    house.still_serves().await;
    refused
}

#[tokio::test]
async fn a_component_that_imports_sockets_is_refused_by_name() {
    let house = House::new();
    let guest = Guest {
        wit_imports: "import wasi:sockets/instance-network@0.2.6;",
        wat: r#"(import "wasi:sockets/instance-network@0.2.6" "instance-network" (func (result i32)))"#
            .into(),
        ..Guest::default()
    };
    let refused = refusal(&house, guest.build(), &manifest()).await;
    assert!(matches!(refused.fault(), Some(LoadFault::Import { .. })));
    assert!(
        refused
            .to_string()
            .contains("imports wasi:sockets/instance-network@0.2.6: a plugin reaches no network"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_core_module_is_not_a_component() {
    let house = House::new();
    let core = wat::parse_str(Guest::default().core()).unwrap();
    let refused = refusal(&house, core.into(), &manifest()).await;
    assert!(matches!(refused.fault(), Some(LoadFault::CoreModule)), "{refused}");
}

#[tokio::test]
async fn random_bytes_are_refused() {
    let house = House::new();
    let mut noise = vec![0; 5000];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut noise);
    let refused = refusal(&house, noise.clone().into(), &manifest()).await;
    assert!(matches!(refused.fault(), Some(LoadFault::NotWasm)), "{refused}");

    let mut headed = Guest::default().build()[..8].to_vec();
    headed.extend_from_slice(&noise);
    let refused = refusal(&house, headed.into(), &manifest()).await;
    assert!(matches!(refused.fault(), Some(LoadFault::Malformed(_))), "{refused}");
}

#[tokio::test]
async fn a_component_that_is_too_big_is_not_read() {
    let house = House::new();
    let path = house.dir.path().join("big.wasm");
    fs::write(&path, vec![0; (1 << 20) + 1]).unwrap();
    let source = ComponentSource::Path(path.clone());
    let refused = house.sandbox.load(source, None, &manifest(), Assets::none()).await.unwrap_err();
    assert!(matches!(refused.fault(), Some(LoadFault::TooBig { cap }) if *cap == 1 << 20), "{refused}");
    assert!(refused.to_string().contains("big.wasm"), "{refused}");
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let house = House::new();
    let source = ComponentSource::Path("not/here.wasm".into());
    let refused = house.sandbox.load(source, None, &manifest(), Assets::none()).await.unwrap_err();
    assert_eq!(refused.code(), "sandbox.read");
    assert!(refused.to_string().contains("component not/here.wasm: cannot be read"), "{refused}");
}

#[tokio::test]
async fn a_wrong_digest_is_refused_wherever_it_was_given() {
    let house = House::new();
    let bytes = Guest::default().build();
    let (right, wrong) = (Digest::of(&bytes), Digest::of(b"another"));
    for (expected, in_manifest) in [(Some(wrong), None), (None, Some(wrong)), (Some(right), Some(wrong))] {
        let manifest = Manifest { digest: in_manifest, ..manifest() };
        let source = ComponentSource::Bytes(bytes.clone());
        let refused = house.sandbox.load(source, expected, &manifest, Assets::none()).await.unwrap_err();
        assert!(
            matches!(refused.fault(), Some(LoadFault::Digest { found, .. }) if *found == right),
            "{refused}"
        );
    }
    let source = ComponentSource::Bytes(bytes);
    let plugin = house.sandbox.load(source, Some(right), &manifest(), Assets::none()).await.unwrap();
    assert_eq!(plugin.digest(), right);
}

#[tokio::test]
async fn a_component_of_another_version_is_told_what_to_do() {
    let house = House::new();
    let newer = Guest { version: "0.3.0", ..Guest::default() };
    let refused = refusal(&house, newer.build(), &manifest()).await;
    assert!(
        refused.to_string().ends_with(
            "was built against nineteen:task 0.3; this host serves 0.1 to 0.2: rebuild with sdk 0.2 or upgrade the host"
        ),
        "{refused}"
    );
    let patch = Guest { version: "0.1.1", ..Guest::default() };
    assert_eq!(house.load(&patch).await.wit_version().to_string(), "0.1.1", "a patch version is served");
}

#[tokio::test]
async fn a_manifest_that_does_not_fit_is_refused() {
    let house = House::new();
    let bytes = Guest::default().build();
    let unit = Manifest { unit: "pictures".into(), ..manifest() };
    let operation = Manifest { operation: "sing".into(), ..manifest() };
    let grants = Manifest { grants: Default::default(), ..manifest() };
    let host = Manifest { host: ">=2".parse().unwrap(), ..manifest() };
    let budget = Manifest { budget: Budget { wall_ms: 1 << 40, ..Budget::default() }, ..manifest() };
    for (manifest, code) in [
        (unit, "sandbox.description"),
        (operation, "sandbox.description"),
        (grants, "sandbox.not-granted"),
        (host, "sandbox.host-version"),
        (budget, "sandbox.budget"),
    ] {
        let refused = refusal(&house, bytes.clone(), &manifest).await;
        assert_eq!(refused.code(), code, "{refused}");
    }
}

#[tokio::test]
async fn a_plugin_that_refuses_its_parameters_says_why() {
    let house = House::new();
    let picky = Guest {
        description: "model: is missing".into(),
        describe: "(call $text (i32.const 1) (i32.const 4096) (global.get $said))".into(),
        ..Guest::default()
    };
    let refused = refusal(&house, picky.build(), &manifest()).await;
    assert!(refused.to_string().ends_with("refuses its parameters: model: is missing"), "{refused}");

    let rambling = Guest { description: "hello".into(), ..Guest::default() };
    let refused = refusal(&house, rambling.build(), &manifest()).await;
    assert_eq!(refused.code(), "sandbox.description", "{refused}");
    let looping = Guest { describe: "(loop $l (br $l)) (unreachable)".into(), ..Guest::default() };
    let frugal = Manifest { budget: Budget { fuel: 1_000_000, ..Budget::default() }, ..manifest() };
    let refused = refusal(&house, looping.build(), &frugal).await;
    assert_eq!(refused.code(), "sandbox.fuel", "{refused}");
}

/// The compiled files of a house.
fn compiled(house: &House) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(house.dir.path().join("compiled"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "cwasm"))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_component_is_compiled_once_also_across_restarts() {
    let house = House::new();
    house.load(&Guest::default()).await;
    house.load(&Guest::default()).await;
    assert_eq!(house.sandbox.compilations(), 1);
    assert_eq!(compiled(&house).len(), 1);

    let again = House { sandbox: Sandbox::new(config(house.dir.path())).unwrap(), dir: house.dir };
    again.still_serves().await;
    assert_eq!(again.sandbox.compilations(), 0);

    let mut upgraded = config(again.dir.path());
    upgraded.host_version = semver::Version::new(0, 2, 0);
    let upgraded = House { sandbox: Sandbox::new(upgraded).unwrap(), dir: again.dir };
    upgraded.still_serves().await;
    assert_eq!(upgraded.sandbox.compilations(), 1, "another host does not take what this one compiled");
}

#[tokio::test]
async fn a_tampered_cache_file_is_compiled_again_not_trusted() {
    let house = House::new();
    house.load(&Guest::default()).await;
    let path = compiled(&house).remove(0);
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let forged = [&[0; 32], &good[32..]].concat();
    for (n, bad) in [flipped, forged, good[..good.len() / 2].to_vec(), good[..10].to_vec(), Vec::new()]
        .into_iter()
        .enumerate()
    {
        fs::write(&path, bad).unwrap();
        house.still_serves().await;
        assert_eq!(house.sandbox.compilations(), 2 + n as u64);
        assert_eq!(fs::read(&path).unwrap(), good, "it is replaced by what was compiled again");
    }
}

#[tokio::test]
async fn a_compiled_file_does_not_pass_for_another() {
    let house = House::new();
    house.load(&Guest::default()).await;
    house.load(&Guest::scoring("(call $scored (f64.const 1) (i64.const 1))")).await;
    let [a, b] = compiled(&house).try_into().unwrap();
    fs::copy(&a, &b).unwrap();
    house.load(&Guest::default()).await;
    house.load(&Guest::scoring("(call $scored (f64.const 1) (i64.const 1))")).await;
    assert_eq!(house.sandbox.compilations(), 3);
}

#[tokio::test]
async fn a_file_of_another_hosts_key_is_compiled_again() {
    let (house, other) = (House::new(), House::new());
    house.load(&Guest::default()).await;
    let path = compiled(&house).remove(0);
    fs::copy(&path, other.dir.path().join("compiled").join(path.file_name().unwrap())).unwrap();
    other.still_serves().await;
    assert_eq!(other.sandbox.compilations(), 1);
}

#[tokio::test]
async fn the_key_is_its_owners_alone() {
    let house = House::new();
    let key = house.dir.path().join("compiled/key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = Sandbox::new(config(house.dir.path())).unwrap_err();
    assert!(refused.to_string().contains("chmod 600"), "{refused}");
    assert_eq!(refused.code(), "sandbox.cache-dir");
}
