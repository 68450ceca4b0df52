//! Against the registry that Debian ships.

use std::sync::Mutex;

use nineteen_domain::Digest;
use nineteen_oci::{
    COMPONENT_MEDIA_TYPE, CONFIG_MEDIA_TYPE, Cache, Courier, Credentials, Event, Limits, Origin,
    PASSWORD_VARIABLE, Packed, Reference, Refusal, Settings, USERNAME_VARIABLE,
};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;

use crate::server::{Options, Server};
use crate::tasks::{component, files, packed};

fn quiet(_: Event) {}

fn nobody(_: &Settings, _: &str) -> Result<Option<Credentials>, Refusal> {
    Ok(None)
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn courier(settings: Settings, cache: Option<Cache>) -> Courier {
    Courier::new(settings, cache, nobody)
}

fn cache(bytes: u64) -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), bytes).unwrap();
    (folder, cache)
}

#[tokio::test]
async fn a_task_goes_there_and_comes_back_to_the_bit() {
    let server = Server::start(&Options::default());
    let courier = courier(Settings::default(), None);
    // More than one chunk of an upload.
    let sent = packed("0.3.1", 9 << 20);
    let told = Mutex::new(Vec::new());
    let tell = |event: Event| told.lock().unwrap().push(event.to_string());
    let published =
        courier.publish(&sent, &reference(&server.place("tasks/chat")), false, &tell).await.unwrap();
    assert_eq!((published.tag.as_str(), published.digest), ("0.3.1", sent.digest()));
    assert!(published.sent_bytes > 9 << 20);
    assert!(told.lock().unwrap().iter().any(|line| line.starts_with("sending task.toml: ")));
    for text in [
        server.place("tasks/chat:0.3.1"),
        server.place("tasks/chat:^0.3"),
        server.place("tasks/chat"),
        server.place(&format!("tasks/chat@{}", sent.digest())),
    ] {
        let pulled = courier.pull(&reference(&text), &tell).await.unwrap();
        assert_eq!((pulled.digest, &pulled.origin), (sent.digest(), &Origin::Registry), "{text}");
        assert_eq!(*pulled.task.files(), files("0.3.1"), "{text}");
        assert_eq!(*pulled.task.component(), component(9 << 20), "{text}");
        assert_eq!(pulled.task.component_digest(), Digest::of(&component(9 << 20)));
    }
    // A second time there is nothing to do.
    let again = courier.publish(&sent, &reference(&server.place("tasks/chat")), false, &quiet).await.unwrap();
    assert!(again.unchanged && again.sent_bytes == 0);
}

#[tokio::test]
async fn a_folder_that_was_pulled_is_the_folder_that_was_published_and_mirrors_to_the_same_digest() {
    let (here, mirror) = (Server::start(&Options::default()), Server::start(&Options::default()));
    let courier = courier(Settings::default(), None);
    let sent = packed("1.0.0", 0);
    courier.publish(&sent, &reference(&here.place("chat")), false, &quiet).await.unwrap();
    let pulled = courier.pull(&reference(&here.place("chat:1.0.0")), &quiet).await.unwrap();
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("chat");
    pulled.task.write_into(&folder).unwrap();
    assert!(folder.join("assets/words.txt").is_file() && folder.join("components.lock").is_file());
    let repacked = Packed::from_folder(&folder, parent.path(), &Limits::default()).unwrap();
    assert_eq!(repacked.digest(), sent.digest());
    let there =
        courier.publish(&repacked, &reference(&mirror.place("copies/chat")), false, &quiet).await.unwrap();
    assert_eq!(there.digest, sent.digest());
    let text = mirror.place(&format!("copies/chat@{}", sent.digest()));
    assert_eq!(courier.pull(&reference(&text), &quiet).await.unwrap().task.files(), pulled.task.files());
    // What is there already is not overwritten.
    let refused = pulled.task.write_into(&folder).unwrap_err().to_string();
    assert!(refused.contains("is not empty"), "{refused}");
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1, "nothing unfinished is left");
}

#[tokio::test]
async fn tools_that_know_only_components_get_the_component() {
    let server = Server::start(&Options::default());
    let sent = packed("0.3.1", 1_000);
    let to = reference(&server.place("tasks/chat"));
    courier(Settings::default(), None).publish(&sent, &to, false, &quiet).await.unwrap();
    let plain = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = oci_client::Client::new(plain);
    // As `wkg oci pull` does: one layer, of one media type, beside one config.
    let alone = server.place("tasks/chat:component-0.3.1").parse().unwrap();
    let got = client.pull(&alone, &RegistryAuth::Anonymous, vec![COMPONENT_MEDIA_TYPE]).await.unwrap();
    assert_eq!(got.layers.len(), 1);
    assert_eq!(got.layers[0].data, component(1_000));
    assert_eq!(got.config.media_type, CONFIG_MEDIA_TYPE);
    assert_eq!(got.digest.unwrap(), sent.component_artifact_digest().to_string());
    let config: serde_json::Value = serde_json::from_slice(&got.config.data).unwrap();
    assert_eq!(config["os"], "wasip2");
    assert_eq!(config["component"]["exports"][0], "nineteen:task/task@0.1.0");
    assert_eq!(config["component"]["imports"][0], "nineteen:task/log@0.1.0");
    // As `wkg get` does: tags that are versions, and the first layer.
    let tags = client.list_tags(&alone, &RegistryAuth::Anonymous, None, None).await.unwrap().tags;
    let versions: Vec<_> = tags.iter().filter(|tag| semver::Version::parse(tag).is_ok()).collect();
    assert_eq!(versions, ["0.3.1"]);
    let task = server.place("tasks/chat:0.3.1").parse().unwrap();
    let (manifest, ..) = client.pull_manifest_and_config(&task, &RegistryAuth::Anonymous).await.unwrap();
    assert_eq!(manifest.layers[0].digest, sent.component_digest().to_string());
}

#[tokio::test]
async fn the_highest_version_that_fits_is_taken_and_refusals_say_what_there_is() {
    let server = Server::start(&Options::default());
    let courier = courier(Settings::default(), None);
    for version in ["0.1.0", "0.2.0", "0.10.0", "1.0.0-rc.1"] {
        let to = reference(&server.place("tasks/chat"));
        courier.publish(&packed(version, 0), &to, false, &quiet).await.unwrap();
    }
    for (range, tag) in
        [("", "0.10.0"), (":<0.10", "0.2.0"), (":~0.1", "0.1.0"), (":>=1.0.0-rc.0", "1.0.0-rc.1")]
    {
        let pulled =
            courier.pull(&reference(&server.place(&format!("tasks/chat{range}"))), &quiet).await.unwrap();
        assert_eq!(pulled.tag.as_deref(), Some(tag), "{range}");
    }
    let refused = |text: String| {
        let courier = courier.clone();
        async move { courier.pull(&reference(&text), &quiet).await.unwrap_err() }
    };
    let e = refused(server.place("tasks/chat:^2")).await;
    assert!(matches!(&e, Refusal::NoVersion { .. }), "{e}");
    assert!(e.to_string().contains("there is 1.0.0-rc.1, 0.10.0, 0.2.0, 0.1.0"), "{e}");
    let e = refused(server.place("tasks/chat:0.1.1")).await;
    assert!(matches!(&e, Refusal::UnknownTag { .. }) && e.to_string().contains("0.1.0"), "{e}");
    let e = refused(server.place("tasks/nothing:^1")).await;
    assert!(e.to_string().contains("there is nothing"), "{e}");
    let e = refused(server.place(&format!("tasks/chat@{}", Digest::of(b"x")))).await;
    assert!(matches!(&e, Refusal::NotFound { .. }), "{e}");
    let e = refused(server.place("tasks/chat:component-0.1.0")).await;
    assert!(e.to_string().contains("a component by itself is no task"), "{e}");
}

#[tokio::test]
async fn a_version_that_was_published_does_not_change() {
    let server = Server::start(&Options::default());
    let courier = courier(Settings::default(), None);
    let to = reference(&server.place("tasks/chat"));
    let (first, second) = (packed("0.1.0", 0), packed("0.1.0", 10));
    courier.publish(&first, &to, false, &quiet).await.unwrap();
    let e = courier.publish(&second, &to, false, &quiet).await.unwrap_err();
    assert_eq!(e, Refusal::Taken { what: server.place("tasks/chat:0.1.0"), there: first.digest() });
    courier.publish(&second, &to, true, &quiet).await.unwrap();
    let latest = reference(&server.place("tasks/chat:latest"));
    courier.publish(&first, &latest, false, &quiet).await.unwrap();
    courier.publish(&second, &latest, false, &quiet).await.unwrap();
    assert_eq!(courier.pull(&latest, &quiet).await.unwrap().digest, second.digest());
    let e = courier
        .publish(&first, &reference(&server.place("tasks/chat:0.2.0")), false, &quiet)
        .await
        .unwrap_err();
    assert!(matches!(&e, Refusal::WrongVersion { .. }), "{e}");
}

#[tokio::test]
async fn a_registry_that_asks_who_we_are_is_told_and_nobody_else() {
    let server = Server::start(&Options { user: Some(("somebody", "hunter2")), ..Options::default() });
    let (sent, to) = (packed("0.1.0", 0), reference(&server.place("chat")));
    let with = |password: &'static str| {
        Courier::new(Settings::default(), None, move |_, _| {
            Credentials::new("somebody", password, USERNAME_VARIABLE).map(Some)
        })
    };
    let right = with("hunter2");
    let e = with("hunter3").publish(&sent, &to, false, &quiet).await.unwrap_err();
    assert!(matches!(&e, Refusal::Unauthorized { .. }), "{e}");
    right.publish(&sent, &to, false, &quiet).await.unwrap();
    assert_eq!(right.pull(&to, &quiet).await.unwrap().digest, sent.digest());
    for stranger in [courier(Settings::default(), None), with("hunter3")] {
        for text in [
            server.place("chat"),
            server.place("chat:0.1.0"),
            server.place(&format!("chat@{}", sent.digest())),
        ] {
            let e = stranger.pull(&reference(&text), &quiet).await.unwrap_err();
            assert!(matches!(&e, Refusal::Unauthorized { .. }), "{text}: {e}");
            let said = e.to_string();
            assert!(said.contains(USERNAME_VARIABLE) && said.contains(PASSWORD_VARIABLE), "{said}");
            assert!(!format!("{e:?} {said} {stranger:?}").contains("hunter"), "{e:?}");
        }
    }
    assert!(!format!("{right:?}").contains("hunter2") && !server.log().contains("hunter2"));
}

/// An authority and a certificate of it for a name: authority, chain and key as PEM.
fn certificate(name: &str) -> (String, String, String) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (authority_pem, leaf.pem(), key.serialize_pem())
}

#[tokio::test]
async fn tls_is_spoken_with_who_we_trust_and_with_nobody_else() {
    let (authority, chain, key) = certificate("127.0.0.1");
    let server = Server::start(&Options { tls: Some((&chain, &key)), user: Some(("somebody", "hunter2")) });
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority).unwrap();
    let with = |ca_file: Option<std::path::PathBuf>| {
        let settings = Settings { tls: vec![server.address.to_string()], ca_file, ..Settings::default() };
        Courier::new(settings, None, |_, _| Credentials::new("somebody", "hunter2", "test").map(Some))
    };
    let (sent, to) = (packed("0.1.0", 5 << 20), reference(&server.place("chat")));
    let e = with(None).publish(&sent, &to, false, &quiet).await.unwrap_err();
    assert!(matches!(&e, Refusal::NotTrusted { .. }), "{e:?}");
    assert!(e.to_string().contains("oci.ca_file"), "{e}");
    let trusting = with(Some(ca));
    trusting.publish(&sent, &to, false, &quiet).await.unwrap();
    assert_eq!(trusting.pull(&to, &quiet).await.unwrap().digest, sent.digest());
    // Of the right authority, and of somebody else's name.
    let (authority, chain, key) = certificate("elsewhere.example");
    let other = Server::start(&Options { tls: Some((&chain, &key)), user: None });
    let ca = folder.path().join("other.pem");
    std::fs::write(&ca, authority).unwrap();
    let settings =
        Settings { tls: vec![other.address.to_string()], ca_file: Some(ca.clone()), ..Settings::default() };
    let e = courier(settings, None).pull(&reference(&other.place("chat")), &quiet).await.unwrap_err();
    assert!(matches!(&e, Refusal::NotTrusted { .. }), "{e:?}");
    // A file that is none.
    std::fs::write(&ca, "no certificate").unwrap();
    let settings =
        Settings { tls: vec![other.address.to_string()], ca_file: Some(ca), ..Settings::default() };
    let e = courier(settings, None).pull(&reference(&other.place("chat")), &quiet).await.unwrap_err();
    assert!(matches!(&e, Refusal::File { .. }) && e.to_string().contains("certificate"), "{e}");
}

#[tokio::test]
async fn tls_with_somebody_who_speaks_none_is_said_so() {
    let server = Server::start(&Options::default());
    let settings = Settings { tls: vec![server.address.to_string()], ..Settings::default() };
    let e = courier(settings, None).pull(&reference(&server.place("chat")), &quiet).await.unwrap_err();
    assert!(e.to_string().contains("oci.plain_http"), "{e:?}");
}

#[tokio::test]
async fn plain_http_does_not_leave_this_machine() {
    let e =
        courier(Settings::default(), None).pull(&reference("192.0.2.1:80/chat"), &quiet).await.unwrap_err();
    assert!(matches!(&e, Refusal::PlainHttp { .. }) && e.to_string().contains("oci.plain_http"), "{e}");
}

#[tokio::test]
async fn the_registry_away_the_cache_serves_and_says_so() {
    let server = Server::start(&Options::default());
    let (_folder, cache) = cache(64 << 20);
    let (old, new) = (packed("0.1.0", 0), packed("0.2.0", 0));
    let sender = courier(Settings::default(), None);
    for task in [&old, &new] {
        sender.publish(task, &reference(&server.place("chat")), false, &quiet).await.unwrap();
    }
    let keeper = courier(Settings::default(), Some(cache.clone()));
    let by_digest = server.place(&format!("chat@{}", old.digest()));
    assert_eq!(
        keeper.pull(&reference(&server.place("chat:^0.1")), &quiet).await.unwrap().origin,
        Origin::Registry
    );
    assert_eq!(keeper.pull(&reference(&by_digest), &quiet).await.unwrap().origin, Origin::Cache);
    let (range, unseen) = (server.place("chat:^0.1"), server.place("chat:0.2.0"));
    server.stop();

    let told = Mutex::new(Vec::new());
    let tell = |event: Event| told.lock().unwrap().push(event.to_string());
    let pulled = keeper.pull(&reference(&range), &tell).await.unwrap();
    assert_eq!((pulled.digest, pulled.tag.as_deref()), (old.digest(), Some("0.1.0")));
    assert!(
        matches!(&pulled.origin, Origin::CacheAlone { why } if why.contains("no answer")),
        "{:?}",
        pulled.origin
    );
    assert!(told.lock().unwrap().iter().any(|line| line.contains("served from the cache")));
    assert_eq!(*pulled.task.files(), files("0.1.0"));
    assert_eq!(keeper.pull(&reference(&by_digest), &quiet).await.unwrap().origin, Origin::Cache);
    let e = keeper.pull(&reference(&unseen), &quiet).await.unwrap_err();
    assert!(e.is_away(), "{e}");

    let offline = courier(Settings { offline: true, ..Settings::default() }, Some(cache.clone()));
    let pulled = offline.pull(&reference(&range), &quiet).await.unwrap();
    assert!(matches!(&pulled.origin, Origin::CacheAlone { why } if why.contains("oci.offline")));
    let e = offline.pull(&reference(&unseen), &quiet).await.unwrap_err();
    assert!(matches!(&e, Refusal::NotCached { .. }), "{e}");
    assert!(offline.publish(&old, &reference(&range), false, &quiet).await.is_err());

    // One byte of the cache changes: that file is as good as gone.
    let component = cache.root().join("blobs/sha256").join(old.component_digest().hex());
    let mut bytes = std::fs::read(&component).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&component, bytes).unwrap();
    let e = keeper.pull(&reference(&by_digest), &tell).await.unwrap_err();
    assert!(e.is_away(), "{e}");
    assert!(told.lock().unwrap().iter().any(|line| line.contains("damaged in the cache")));
}

#[tokio::test]
async fn what_is_damaged_in_the_cache_is_fetched_again() {
    let server = Server::start(&Options::default());
    let (_folder, cache) = cache(64 << 20);
    let sent = packed("0.1.0", 0);
    let keeper = courier(Settings::default(), Some(cache.clone()));
    let to = reference(&server.place("chat"));
    keeper.publish(&sent, &to, false, &quiet).await.unwrap();
    keeper.pull(&to, &quiet).await.unwrap();
    std::fs::write(cache.root().join("blobs/sha256").join(sent.component_digest().hex()), b"short").unwrap();
    let pulled =
        keeper.pull(&reference(&server.place(&format!("chat@{}", sent.digest()))), &quiet).await.unwrap();
    assert_eq!((pulled.origin, pulled.task.component()), (Origin::Registry, &component(0)));
    assert!(cache.get(&sent.component_digest()).unwrap().is_some());
}

#[tokio::test]
async fn a_full_cache_costs_keeping_and_not_the_task() {
    let server = Server::start(&Options::default());
    let (_folder, cache) = cache(200_000);
    let sent = packed("0.1.0", 1 << 20);
    let keeper = courier(Settings::default(), Some(cache.clone()));
    let to = reference(&server.place("chat"));
    keeper.publish(&sent, &to, false, &quiet).await.unwrap();
    let told = Mutex::new(Vec::new());
    let pulled = keeper.pull(&to, &|event| told.lock().unwrap().push(event.to_string())).await.unwrap();
    assert_eq!(pulled.digest, sent.digest());
    assert!(told.lock().unwrap().iter().any(|line| line.starts_with("not kept in the cache: ")));
    assert!(cache.bytes().unwrap() <= 200_000);
}

#[tokio::test]
async fn two_pull_at_once() {
    let server = Server::start(&Options::default());
    let (_folder, cache) = cache(64 << 20);
    let sent = packed("0.1.0", 3 << 20);
    let keeper = courier(Settings::default(), Some(cache));
    let to = reference(&server.place("chat"));
    keeper.publish(&sent, &to, false, &quiet).await.unwrap();
    let pulls: Vec<_> = (0..8).map(|_| keeper.pull(&to, &quiet)).collect();
    for pulled in futures_util::future::join_all(pulls).await {
        assert_eq!(pulled.unwrap().digest, sent.digest());
    }
}
