//! A real server with a certificate of its own, and servers that mean no good.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use nineteen_domain::Digest;
use nineteen_taskset::{Follower, HttpsOptions, HttpsSource, Source, SourceError};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::common::{DAY, Files, NOW, Place, after, first_set, keys, now, options, owner};

/// How a server answers.
#[derive(Debug, Clone)]
enum Manner {
    /// Files of a folder.
    Files(PathBuf),
    /// These bytes, whatever is asked.
    Says(Vec<u8>),
    /// These bytes, then nothing for ever.
    SaysAndHangs(Vec<u8>),
    /// A head, then zeros for ever.
    Endless(&'static str),
    /// A byte now and then.
    Drips,
    /// Files at `/real/`, redirects from everywhere else.
    Redirects(PathBuf),
    /// No TLS.
    Plain,
}

struct Server {
    address: String,
    ca_file: PathBuf,
    _dir: tempfile::TempDir,
    /// Ends with it.
    _serving: JoinSet<()>,
}

impl Server {
    async fn new(manner: Manner) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        let body = base64::engine::general_purpose::STANDARD.encode(made.cert.der());
        std::fs::write(&ca_file, format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"))
            .unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://localhost:{}/subnet/", listener.local_addr().unwrap().port());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut calls = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, manner) = (acceptor.clone(), manner.clone());
                calls.spawn(async move {
                    // A client that goes away is what many of these tests are about.
                    let _ = answer(stream, acceptor, manner).await;
                });
            }
        });
        Self { address, ca_file, _dir: dir, _serving: serving }
    }

    fn source(&self) -> HttpsSource {
        let options = HttpsOptions {
            ca_file: Some(self.ca_file.clone()),
            connect: Duration::from_secs(20),
            small: Duration::from_secs(3),
            large: Duration::from_secs(3),
        };
        HttpsSource::new(&self.address, options).unwrap()
    }

    async fn error(&self) -> SourceError {
        self.source().fetch().await.unwrap_err()
    }
}

async fn answer(mut stream: TcpStream, acceptor: TlsAcceptor, manner: Manner) -> std::io::Result<()> {
    if matches!(manner, Manner::Plain) {
        return stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    }
    let mut stream = acceptor.accept(stream).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split_whitespace().nth(1).unwrap().to_owned();
    match manner {
        Manner::Files(folder) => {
            let text = file(&folder, path.strip_prefix("/subnet/").unwrap_or("none"));
            stream.write_all(&text).await?;
        }
        Manner::Redirects(folder) => {
            let text = match path.strip_prefix("/real/") {
                Some(rest) => file(&folder, rest),
                None => {
                    let to = path.replace("/subnet/", "/real/");
                    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes()
                }
            };
            stream.write_all(&text).await?;
        }
        Manner::Says(bytes) => stream.write_all(&bytes).await?,
        Manner::SaysAndHangs(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            std::future::pending::<()>().await;
        }
        Manner::Endless(head) => {
            stream.write_all(head.as_bytes()).await?;
            let piece = if head.contains("chunked") {
                [b"10000\r\n".as_slice(), &[b'#'; 65_536], b"\r\n"].concat()
            } else {
                vec![b'#'; 65_536]
            };
            loop {
                stream.write_all(&piece).await?;
            }
        }
        Manner::Drips => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
            loop {
                stream.write_all(b"#").await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Manner::Plain => {}
    }
    stream.shutdown().await
}

fn file(folder: &std::path::Path, path: &str) -> Vec<u8> {
    match std::fs::read(folder.join(path)) {
        Ok(body) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            [head.into_bytes(), body].concat()
        }
        Err(_) => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
    }
}

fn redirect(to: &str) -> Manner {
    Manner::Says(format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

#[tokio::test]
async fn a_set_is_followed_over_https_and_an_older_one_is_not() {
    let (mut files, keys, place) = (Files::default(), keys(1..4), Place::new());
    let first = first_set(&mut files, owner(2, &keys));
    place.put(&first, &keys[..2], &files);
    for manner in [Manner::Files(place.path().to_owned()), Manner::Redirects(place.path().to_owned())] {
        place.put(&first, &keys[..2], &files);
        let here = tempfile::tempdir().unwrap();
        let server = Server::new(manner).await;
        let source = Arc::new(server.source());
        let mut follower = Follower::open(options(here.path(), owner(2, &keys)), source).unwrap();
        let events = follower.look(now(NOW)).await.unwrap();
        assert_eq!(follower.in_force().unwrap().set.sequence, 1, "{events:?}");
        place.put(&after(&first, NOW + DAY), &keys[..2], &files);
        follower.look(now(NOW + DAY)).await.unwrap();
        follower.tick(now(NOW + 2 * DAY)).unwrap();
        assert_eq!(follower.in_force().unwrap().set.sequence, 2);
        place.put(&first, &keys[..2], &files);
        let events = follower.look(now(NOW + 3 * DAY)).await.unwrap();
        assert!(format!("{events:?}").contains("taskset.older"), "{events:?}");
        drop(server);
        let events = follower.look(now(NOW + 3 * DAY)).await.unwrap();
        assert!(format!("{events:?}").contains("SourceAway"), "{events:?}");
        assert_eq!(follower.in_force().unwrap().set.sequence, 2);
    }
}

#[tokio::test]
async fn a_server_that_keeps_us_waiting_is_left() {
    let begin = Instant::now();
    for manner in [
        Manner::SaysAndHangs(Vec::new()),
        Manner::SaysAndHangs(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec()),
        Manner::Drips,
    ] {
        let e = Server::new(manner.clone()).await.error().await;
        assert_eq!(e.code(), "source.too-slow", "{manner:?}: {e}");
    }
    assert!(begin.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_body_without_end_is_cut_at_the_limit() {
    for head in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
    ] {
        let e = Server::new(Manner::Endless(head)).await.error().await;
        assert_eq!(e.code(), "source.too-long", "{head}: {e}");
    }
    // Headers without end are no head at all.
    let e = Server::new(Manner::Endless("HTTP/1.1 200 OK\r\nx: ")).await.error().await;
    assert_eq!(e.code(), "source.away", "{e}");
}

#[tokio::test]
async fn a_server_that_lies_about_its_length_gives_nothing() {
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nformat = 1".to_vec();
    assert_eq!(Server::new(Manner::Says(short)).await.error().await.code(), "source.truncated");
    let cut = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40\r\nformat".to_vec();
    assert_eq!(Server::new(Manner::Says(cut)).await.error().await.code(), "source.truncated");
    // What comes after the stated length is not read: what was read is no set.
    let long = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nformat = 1\nand more".to_vec();
    let fetched = Server::new(Manner::Says(long)).await.source().fetch().await.unwrap();
    assert_eq!(fetched.set, b"format");
    let both = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\nformat".to_vec();
    assert_eq!(Server::new(Manner::Says(both)).await.error().await.code(), "source.away");
}

#[tokio::test]
async fn nobody_is_sent_to_another_host_or_in_circles() {
    for to in [
        "https://evil.example/subnet/",
        "//evil.example/subnet/",
        "http://localhost/subnet/",
        "https://localhost:1/subnet/",
        "https://me:secret@localhost/",
        "file:///etc/passwd",
        "taskset.toml",
    ] {
        let e = Server::new(redirect(to)).await.error().await;
        assert_eq!(e.code(), "source.elsewhere", "{to}: {e}");
    }
    let e = Server::new(redirect("/again/")).await.error().await;
    assert_eq!(e.code(), "source.circles", "{e}");
    let nowhere = Manner::Says(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_vec());
    assert_eq!(Server::new(nowhere).await.error().await.code(), "source.status");
}

#[tokio::test]
async fn other_answers_are_named() {
    for (text, code) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "source.not-found"),
        ("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", "source.status"),
        ("HTTP/1.1 204 No Content\r\n\r\n", "source.status"),
        ("SSH-2.0-OpenSSH\r\n", "source.away"),
        ("", "source.truncated"),
    ] {
        let e = Server::new(Manner::Says(text.into())).await.error().await;
        assert_eq!(e.code(), code, "{text}: {e}");
        assert!(!e.to_string().contains('\n') && e.to_string().contains("https://localhost:"), "{e}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_it() {
    let server = Server::new(Manner::Plain).await;
    assert_eq!(server.error().await.code(), "source.tls");
    let (one, other) = (Server::new(Manner::Says(Vec::new())).await, Server::new(Manner::Plain).await);
    let wrong = HttpsOptions { ca_file: Some(other.ca_file.clone()), ..HttpsOptions::default() };
    let e = HttpsSource::new(&one.address, wrong).unwrap().fetch().await.unwrap_err();
    assert_eq!(e.code(), "source.tls", "{e}");
    // The right certificate, another name.
    let named = one.address.replace("localhost", "127.0.0.1");
    let right = HttpsOptions { ca_file: Some(one.ca_file.clone()), ..HttpsOptions::default() };
    let e = HttpsSource::new(&named, right).unwrap().fetch().await.unwrap_err();
    assert_eq!(e.code(), "source.tls", "{e}");
}

#[tokio::test]
async fn a_file_is_asked_for_by_its_digest_and_no_longer_than_allowed() {
    let place = Place::new();
    let digest = Digest::of(b"a component");
    place.write(&format!("blobs/sha256/{}", digest.hex()), b"a component");
    let server = Server::new(Manner::Files(place.path().to_owned())).await;
    assert_eq!(server.source().blob(&digest, 11).await.unwrap(), b"a component");
    assert_eq!(server.source().blob(&digest, 10).await.unwrap_err().code(), "source.too-long");
    let other = Digest::of(b"another");
    assert_eq!(server.source().blob(&other, 10).await.unwrap_err().code(), "source.not-found");
}

#[test]
fn only_plain_https_addresses_are_sources() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("none.pem"), "no certificate").unwrap();
    let refused = |address: &str, ca_file: Option<PathBuf>| {
        let e = HttpsSource::new(address, HttpsOptions { ca_file, ..HttpsOptions::default() }).unwrap_err();
        assert_eq!(e.code(), "source.setting");
        e.to_string()
    };
    for bad in [
        "http://example.org/",
        "ftp://example.org/",
        "/folder",
        "https://",
        "https://example.org/?x=1",
        "https://exa mple.org/",
    ] {
        refused(bad, None);
    }
    let words = refused("https://me:hunter2@example.org/", None);
    assert!(!words.contains("hunter2"), "{words}");
    assert!(refused("https://example.org/", Some(dir.path().join("none.pem"))).contains("none.pem"));
}
