//! Against a registry that lies: every lie has its refusal, soon, and at the cost of few bytes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nineteen_oci::{Cache, Courier, Credentials, Limits, Packed, Reference, Refusal, Settings};
use serde_json::json;

use crate::lies::{Liar, Reply, changed};
use crate::tasks::packed;

const VERSION: &str = "0.3.1";

fn limits() -> Limits {
    Limits {
        manifest_bytes: 64 << 10,
        layer_bytes: 1 << 20,
        task_bytes: 2 << 20,
        layers: 8,
        tags: 100,
        connect: Duration::from_millis(500),
        idle: Duration::from_millis(500),
        request: Duration::from_secs(2),
        total: Duration::from_secs(4),
    }
}

fn courier() -> Courier {
    Courier::new(Settings::default(), None, |_, _| Ok(None)).with_limits(limits())
}

fn task() -> Packed {
    packed(VERSION, 100_000)
}

/// Pulls from a liar; the refusal, and that it came in time, in one line, and without megabytes.
async fn pull(rest: &str, lie: impl Fn(&str, &str) -> Option<Reply> + Send + Sync + 'static) -> Refusal {
    let liar = Liar::start(&task(), lie).await;
    pull_from(&liar, rest, &courier()).await
}

async fn pull_from(liar: &Liar, rest: &str, courier: &Courier) -> Refusal {
    let reference: Reference = liar.place(rest).parse().unwrap();
    let began = Instant::now();
    let refusal = courier.pull(&reference, &|_| {}).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(6), "{refusal} came after {:?}", began.elapsed());
    let said = refusal.to_string();
    assert!(!said.contains('\n') && said.len() < 1_000, "{said}");
    let sent = liar.sent.load(Ordering::Relaxed);
    // What was sent and not read lies in the buffers of sockets: some megabytes a question.
    assert!(sent < 64 << 20, "{refusal}: {sent} bytes were sent");
    refusal
}

fn is_blob(path: &str) -> bool {
    path.contains("/blobs/")
}

fn is_manifest(path: &str) -> bool {
    path.contains("/manifests/")
}

fn component_path() -> String {
    format!("/blobs/{}", task().component_digest())
}

#[tokio::test]
async fn the_truth_is_taken() {
    let liar = Liar::start(&task(), |_, _| None).await;
    for rest in ["", ":0.3.1", ":^0.3"] {
        let reference: Reference = liar.place(rest).parse().unwrap();
        assert_eq!(courier().pull(&reference, &|_| {}).await.unwrap().digest, task().digest());
    }
}

#[tokio::test]
async fn other_bytes_under_a_digest_are_refused() {
    let component = component_path();
    let lie = move |_: &str, path: &str| {
        path.ends_with(&component).then(|| {
            let mut bytes = task().layers()[0].bytes.to_vec();
            bytes[500] ^= 1;
            Reply::ok(bytes)
        })
    };
    let e = pull(":0.3.1", lie).await;
    assert!(matches!(&e, Refusal::DigestMismatch { what, .. } if what.contains(".wasm")), "{e:?}");
    // A header that says what the registry would like us to compare with.
    let lie = |_: &str, path: &str| {
        let other = changed(&task(), |m| m["annotations"]["x"] = json!("y"));
        let header = format!("Docker-Content-Digest: {}", nineteen_domain::Digest::of(&other));
        is_manifest(path).then(|| Reply::Whole("200 OK", vec![header], other))
    };
    let e = pull(&format!("@{}", task().digest()), lie).await;
    assert!(
        matches!(&e, Refusal::DigestMismatch { expected, .. } if *expected == task().digest().to_string()),
        "{e:?}"
    );
    let lie = |_: &str, path: &str| {
        let header = format!("Docker-Content-Digest: {}", nineteen_domain::Digest::of(b"something"));
        is_manifest(path).then(|| Reply::Whole("200 OK", vec![header], task().manifest_bytes().to_vec()))
    };
    let e = pull(":0.3.1", lie).await;
    assert!(matches!(&e, Refusal::DigestMismatch { .. }), "{e:?}");
}

#[tokio::test]
async fn a_layer_that_ends_early_is_refused() {
    let component = component_path();
    let short = component.clone();
    let e = pull(":0.3.1", move |_, path| {
        path.ends_with(&short).then(|| Reply::Short(task().layers()[0].bytes.to_vec(), 10))
    })
    .await;
    let all = task().layers()[0].bytes.len() as u64;
    assert!(
        matches!(&e, Refusal::Truncated { got, expected, .. } if *got <= all - 10 && *expected == all),
        "{e:?}"
    );
    // The same with a length that is true of what is sent.
    let e = pull(":0.3.1", move |_, path| {
        path.ends_with(&component).then(|| Reply::ok(task().layers()[0].bytes[..1_000].to_vec()))
    })
    .await;
    assert!(matches!(&e, Refusal::Truncated { got: 1_000, .. } | Refusal::DigestMismatch { .. }), "{e:?}");
}

#[tokio::test]
async fn bodies_without_end_are_cut() {
    for stated in [false, true] {
        let e = pull(":0.3.1", move |_, path| is_blob(path).then_some(Reply::Endless(stated))).await;
        assert!(matches!(&e, Refusal::TooLarge { .. }), "{e:?}");
        let e = pull(":0.3.1", move |_, path| is_manifest(path).then_some(Reply::Endless(stated))).await;
        assert!(matches!(&e, Refusal::TooLarge { .. }), "{e:?}");
        let e = pull(":^0.3", move |_, path| path.contains("/tags/").then_some(Reply::Endless(stated))).await;
        assert!(matches!(&e, Refusal::TooLarge { .. }), "{e:?}");
        // The first question that the library asks is its own.
        let e =
            pull(":0.3.1", move |_, path| (path == "/v2/").then_some(Reply::Endless(stated))).await.code();
        assert!(["oci.too-large", "oci.registry"].contains(&e) || e == "oci.too-slow", "{e}");
    }
}

#[tokio::test]
async fn heads_without_end_and_noise_are_cut() {
    for reply in [Reply::EndlessHead, Reply::Noise] {
        let e = pull(":0.3.1", move |_, path| is_manifest(path).then(|| reply.clone())).await;
        assert!(
            matches!(&e, Refusal::Away { .. } | Refusal::Registry { .. } | Refusal::TooLarge { .. }),
            "{e:?}"
        );
    }
}

#[tokio::test]
async fn who_hangs_is_not_waited_for() {
    for reply in [
        Reply::Hang,
        Reply::HangInBody(b"{".to_vec()),
        Reply::Drip(vec![b' '; 5_000], Duration::from_millis(100)),
    ] {
        let (a, b) = (reply.clone(), reply);
        let e = pull(":0.3.1", move |_, path| is_manifest(path).then(|| a.clone())).await;
        assert!(e.is_away(), "{e:?}");
        let e = pull(":0.3.1", move |_, path| is_blob(path).then(|| b.clone())).await;
        assert!(e.is_away() || matches!(&e, Refusal::Truncated { .. }), "{e:?}");
    }
}

#[tokio::test]
async fn nobody_is_sent_to_another_host() {
    let elsewhere = Liar::start(&task(), |_, _| None).await;
    let away = elsewhere.address;
    type Told = fn(&str) -> bool;
    for told in [is_blob as Told, is_manifest, |path| path.contains("/tags/")] {
        let e = pull("", move |_, path| told(path).then(|| Reply::redirect(format!("http://{away}{path}"))))
            .await;
        assert!(
            matches!(&e, Refusal::PlainHttp { registry } if registry.contains(&away.port().to_string()))
                || matches!(&e, Refusal::Elsewhere { to, .. } if *to == away.to_string()),
            "{e:?}"
        );
        let e = pull("", move |_, path| told(path).then(|| Reply::redirect("https://files.example/x"))).await;
        assert!(matches!(&e, Refusal::Elsewhere { to, .. } if to.contains("files.example")), "{e:?}");
        assert!(e.to_string().contains("oci.also_hosts"), "{e}");
    }
    assert!(elsewhere.heard.lock().unwrap().is_empty(), "it was never asked");
}

#[tokio::test]
async fn a_redirect_within_the_registry_is_followed_and_circles_are_not() {
    let liar = Liar::start(&task(), |_, path| {
        let moved = path.strip_prefix("/moved").map(str::to_owned);
        match moved {
            Some(_) => None,
            None => {
                (is_blob(path) && !path.contains("?again")).then(|| Reply::redirect(format!("{path}?again")))
            }
        }
    })
    .await;
    let reference: Reference = liar.place(":0.3.1").parse().unwrap();
    // The truth knows no query: it is the answer to the second question that counts.
    let e = courier().pull(&reference, &|_| {}).await.unwrap_err();
    assert!(matches!(&e, Refusal::NotFound { .. }), "{e:?}");
    let e = pull(":0.3.1", |_, path| is_blob(path).then(|| Reply::redirect(path))).await;
    assert!(e.to_string().contains("in circles"), "{e:?}");
}

#[tokio::test]
async fn credentials_go_to_nobody_else() {
    let thief = Liar::start(&task(), |_, _| None).await;
    let realm = thief.address;
    let liar = Liar::start(&task(), move |_, path| {
        let header = format!("WWW-Authenticate: Bearer realm=\"http://{realm}/token\",service=\"x\"");
        (path == "/v2/" || is_manifest(path))
            .then(|| Reply::Whole("401 Unauthorized", vec![header], Vec::new()))
    })
    .await;
    let courier = Courier::new(Settings::default(), None, |_, _| {
        Credentials::new("somebody", "hunter2", "test").map(Some)
    })
    .with_limits(limits());
    let e = pull_from(&liar, ":0.3.1", &courier).await;
    assert!(matches!(&e, Refusal::PlainHttp { .. } | Refusal::Elsewhere { .. }), "{e:?}");
    assert!(thief.heard.lock().unwrap().is_empty(), "the thief was never asked");
    // Nor does the gate's own password leave the process.
    assert!(!liar.heard.lock().unwrap().iter().any(|head| head.to_lowercase().contains("proxy-")));
}

#[tokio::test]
async fn a_token_that_is_none_is_an_error_and_no_crash() {
    let at = std::sync::Arc::new(std::sync::OnceLock::new());
    let own = std::sync::Arc::clone(&at);
    let liar = Liar::start(&task(), move |_, path| {
        if path.starts_with("/token") {
            return Some(Reply::ok(r#"{"token":"a\nb\u0000"}"#));
        }
        let header = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"x\"", own.get()?);
        (path == "/v2/").then(|| Reply::Whole("401 Unauthorized", vec![header], Vec::new()))
    })
    .await;
    at.set(liar.address).unwrap();
    let e = pull_from(&liar, ":0.3.1", &courier()).await;
    assert!(matches!(&e, Refusal::Registry { .. }), "{e:?}");
}

#[tokio::test]
async fn wrong_media_types_are_named() {
    type Change = fn(&mut serde_json::Value);
    let table: [(Change, &str); 5] = [
        (|m| m["mediaType"] = json!("application/vnd.oci.image.index.v1+json"), "manifest"),
        (|m| m["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json"), "manifest"),
        (|m| m["config"]["mediaType"] = json!("application/vnd.oci.image.config.v1+json"), "config"),
        (|m| m["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip"), "layer 1"),
        (|m| m["layers"][1]["mediaType"] = json!("application/wasm"), "assets/words.txt"),
    ];
    for (change, part) in table {
        let e = pull(":0.3.1", move |_, path| {
            is_manifest(path).then(|| Reply::manifest(changed(&task(), change)))
        })
        .await;
        assert!(matches!(&e, Refusal::MediaType { what, .. } if what.ends_with(part)), "{part}: {e:?}");
    }
}

#[tokio::test]
async fn absurd_manifests_are_refused() {
    type Change = fn(&mut serde_json::Value);
    let changes: [(Change, &str); 15] = [
        (|m| m["layers"] = json!([]), "it has no layers"),
        (|m| m["layers"] = json!(vec![m["layers"][0].clone(); 9]), "9 layers"),
        (|m| m["layers"][1]["annotations"] = json!({}), "has no path"),
        (
            |m| m["layers"][1]["annotations"]["org.opencontainers.image.title"] = json!("../../x"),
            "no path inside",
        ),
        (
            |m| m["layers"][1]["annotations"]["org.opencontainers.image.title"] = json!("/etc/x"),
            "no path inside",
        ),
        (|m| m["layers"][1] = m["layers"][2].clone(), "is in it twice"),
        (
            |m| {
                m["layers"].as_array_mut().unwrap().pop();
            },
            "is no task",
        ),
        (|m| m["layers"][1]["size"] = json!(-1), "is below 0"),
        (|m| m["layers"][0]["size"] = json!(1_u64 << 40), "more than 1048576 bytes"),
        (|m| m["config"]["size"] = json!(i64::MAX), "more than 65536 bytes"),
        (|m| m["layers"][1]["digest"] = json!("md5:00"), "is not a digest"),
        (|m| m["layers"][1]["digest"] = json!("sha256:../../../etc/passwd"), "is not a digest"),
        (|m| m["layers"][1]["urls"] = json!(["http://192.0.2.1/x"]), "somewhere else"),
        (|m| m["schemaVersion"] = json!(1), "schemaVersion"),
        (|m| *m = json!({"schemaVersion": 2, "manifests": []}), "cannot be read"),
    ];
    for (change, why) in changes {
        let e = pull(":0.3.1", move |_, path| {
            is_manifest(path).then(|| Reply::manifest(changed(&task(), change)))
        })
        .await;
        assert!(e.to_string().contains(why), "{why}: {e}");
    }
    let deep = |open: &str, close: &str| (open.repeat(20_000) + &close.repeat(20_000)).into_bytes();
    let texts: [Vec<u8>; 7] = [
        deep("[", "]"),
        [br#"{"schemaVersion":2,"x":"#.to_vec(), deep("[", "]"), b"}".to_vec()].concat(),
        deep(r#"{"layers":"#, "}"),
        Vec::new(),
        vec![0xff; 1_000],
        b"null".to_vec(),
        b"<html>sign in</html>".to_vec(),
    ];
    for text in texts {
        let begins = String::from_utf8_lossy(&text[..text.len().min(20)]).into_owned();
        let e = pull(":0.3.1", move |_, path| is_manifest(path).then(|| Reply::manifest(text.clone()))).await;
        assert!(matches!(&e, Refusal::Artifact { .. } | Refusal::TooLarge { .. }), "{begins}: {e:?}");
    }
}

#[tokio::test]
async fn a_size_that_is_not_that_of_the_bytes_is_refused() {
    for (by, code) in [(-1_i64, "oci.too-large"), (1, "oci.truncated")] {
        let e = pull(":0.3.1", move |_, path| {
            is_manifest(path).then(|| {
                Reply::manifest(changed(&task(), |m| {
                    m["layers"][0]["size"] = json!(m["layers"][0]["size"].as_i64().unwrap() + by);
                }))
            })
        })
        .await;
        assert_eq!(e.code(), code, "{e}");
    }
}

#[tokio::test]
async fn tags_that_are_no_tags_lead_nowhere() {
    let names = |tags: serde_json::Value| {
        move |_: &str, path: &str| {
            path.contains("/tags/").then(|| Reply::ok(json!({"name": "x", "tags": tags}).to_string()))
        }
    };
    let e = pull("", names(json!(["../../x", "1.0.0\r\nX: y", "", "9.9.9 ", "latest"]))).await;
    assert!(matches!(&e, Refusal::NoVersion { there, .. } if there == "latest"), "{e:?}");
    let e = pull("", names(json!(null))).await;
    assert!(matches!(&e, Refusal::NoVersion { there, .. } if there == "nothing"), "{e:?}");
    let many: Vec<String> = (0..1_000).map(|n| format!("0.0.{n}")).collect();
    let e = pull("", names(json!(many))).await;
    assert!(matches!(&e, Refusal::TooManyTags { .. }), "{e:?}");
    // The tag says one version, the task another.
    let e = pull("", |_, path| {
        let tags = path.contains("/tags/").then(|| Reply::ok(r#"{"name":"x","tags":["9.0.0"]}"#));
        tags.or_else(|| path.ends_with("/9.0.0").then(|| Reply::manifest(task().manifest_bytes().to_vec())))
    })
    .await;
    assert!(matches!(&e, Refusal::WrongVersion { tag, .. } if tag == "9.0.0"), "{e:?}");
}

#[tokio::test]
async fn errors_of_the_registry_are_one_line_whatever_they_say() {
    for (status, body) in [
        ("500 Internal Server Error", "a\nb\x1b[31m".repeat(2_000)),
        (
            "429 Too Many Requests",
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\ndown"}]}"#.to_owned(),
        ),
        ("418 I'm a teapot", String::new()),
        ("204 No Content", String::new()),
    ] {
        let e = pull(":0.3.1", move |_, path| {
            is_manifest(path).then(|| Reply::Whole(status, Vec::new(), body.clone().into_bytes()))
        })
        .await;
        assert!(matches!(&e, Refusal::Registry { .. }), "{status}: {e:?}");
        assert!(!e.to_string().contains('\x1b'), "{e}");
    }
}

#[tokio::test]
async fn a_lie_is_not_kept_and_the_cache_does_not_speak_for_a_liar() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 64 << 20).unwrap();
    let keeper =
        Courier::new(Settings::default(), Some(cache.clone()), |_, _| Ok(None)).with_limits(limits());
    let honest = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let now = std::sync::Arc::clone(&honest);
    let component = component_path();
    let liar = Liar::start(&task(), move |_, path| {
        (!now.load(Ordering::Relaxed) && path.ends_with(&component)).then(|| Reply::ok("evil"))
    })
    .await;
    honest.store(false, Ordering::Relaxed);
    pull_from(&liar, ":0.3.1", &keeper).await;
    assert!(cache.get(&task().component_digest()).unwrap().is_none());
    assert!(cache.seen(&"127.0.0.1:1/x".parse::<Reference>().unwrap().place).unwrap().is_empty());
    honest.store(true, Ordering::Relaxed);
    let reference: Reference = liar.place(":0.3.1").parse().unwrap();
    keeper.pull(&reference, &|_| {}).await.unwrap();
    // Seen, cached, and now the registry answers badly: that is for a person to see, not to paper over.
    let bad = Liar::start(&task(), |_, path| is_manifest(path).then(|| Reply::ok("{}"))).await;
    let e = pull_from(&bad, ":0.3.1", &keeper).await;
    assert!(matches!(&e, Refusal::Artifact { .. }), "{e:?}");
}

#[tokio::test]
async fn publishing_to_a_liar_ends_too() {
    for reply in
        [Reply::Hang, Reply::Endless(false), Reply::Noise, Reply::redirect("https://files.example/upload")]
    {
        let liar =
            Liar::start(&packed("9.9.9", 0), move |method, _| (method != "GET").then(|| reply.clone())).await;
        let to: Reference = liar.place("").parse().unwrap();
        let began = Instant::now();
        let e = courier().publish(&task(), &to, false, &|_| {}).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(6), "{e} after {:?}", began.elapsed());
        assert!(!e.to_string().contains('\n'), "{e}");
    }
    // An upload that is sent elsewhere.
    let liar = Liar::start(&packed("9.9.9", 0), |method, _| {
        (method == "POST").then(|| {
            Reply::Whole("202 Accepted", vec!["Location: https://files.example/upload".into()], Vec::new())
        })
    })
    .await;
    let to: Reference = liar.place("").parse().unwrap();
    let e = courier().publish(&task(), &to, false, &|_| {}).await.unwrap_err();
    assert!(matches!(&e, Refusal::Elsewhere { .. }), "{e:?}");
}
