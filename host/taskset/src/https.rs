//! A set on a web server: GET over TLS, with a limit on everything, and no way to another host.
//!
//! Not a general client: no proxy, no cookies, no compression, no credentials. The one idea: the server is where the
//! bytes happen to lie. It can keep them back; it can neither change them nor make us wait or send us elsewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery};
use http::{Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use nineteen_domain::Digest;
use nineteen_domain::meet::BoxFuture;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::set::{MOST_SET_BYTES, SET_FILE, SIGNATURES_FILE};
use crate::signature::MOST_SIGNATURE_BYTES;
use crate::source::{Fetched, Source, SourceError, blob_path, set_folder, unsigned_if_missing};

const MOST_REDIRECTS: u32 = 3;
/// Status line and headers.
const MOST_HEAD_BYTES: usize = 32 << 10;

/// How long a server may take, and whom it may be certified by.
#[derive(Debug, Clone)]
pub struct HttpsOptions {
    /// Certificates (PEM) that are trusted *instead* of the system's: for a server with a private authority.
    pub ca_file: Option<PathBuf>,
    /// From the first packet to the end of TLS's handshake.
    pub connect: Duration,
    /// For a set or its signatures, redirects included.
    pub small: Duration,
    /// For one file that a set names.
    pub large: Duration,
}

impl Default for HttpsOptions {
    fn default() -> Self {
        Self {
            ca_file: None,
            connect: Duration::from_secs(10),
            small: Duration::from_secs(30),
            large: Duration::from_secs(600),
        }
    }
}

/// A folder of a web server.
pub struct HttpsSource {
    authority: Authority,
    host: String,
    port: u16,
    /// Ends with a slash.
    folder: String,
    tls: TlsConnector,
    options: HttpsOptions,
}

impl std::fmt::Debug for HttpsSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpsSource({})", self.place())
    }
}

/// What came, or where to.
enum Answer {
    Body(Vec<u8>),
    Moved(String),
}

impl HttpsSource {
    /// Of `https://host[:port]/folder/`, or of the `taskset.toml` in it.
    ///
    /// # Errors
    /// [`SourceError::Setting`]: not https, credentials or a query in the address, or certificates that cannot be read.
    pub fn new(address: &str, options: HttpsOptions) -> Result<Self, SourceError> {
        let shown: String = address.chars().take(200).collect();
        let refuse = |why: String| SourceError::Setting { place: shown.clone(), why };
        let uri: Uri = address.parse().map_err(|e| refuse(format!("no address: {e}")))?;
        if uri.scheme_str() != Some("https") {
            return Err(refuse("only https:// is followed".into()));
        }
        let Some(authority) = uri.authority().cloned() else { return Err(refuse("no host in it".into())) };
        if authority.as_str().contains('@') {
            // Not shown: what stands before the @ is a secret.
            let why = "an address with a name or a password in it is not followed".into();
            return Err(SourceError::Setting { place: format!("https://{}", authority.host()), why });
        }
        if uri.query().is_some() {
            return Err(refuse("an address with a query is not followed: name a folder".into()));
        }
        let path = uri.path().strip_suffix(SET_FILE).unwrap_or(uri.path());
        let folder = if path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let tls = connector(&options).map_err(refuse)?;
        Ok(Self { port: authority.port_u16().unwrap_or(443), host, authority, folder, tls, options })
    }

    fn at(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority)
    }

    async fn get(&self, path: String, most: u64, within: Duration) -> Result<Vec<u8>, SourceError> {
        let path = format!("{}{path}", self.folder);
        let place = self.at(&path);
        let slow = SourceError::TooSlow { place, seconds: within.as_secs() };
        timeout(within, self.follow(path, most)).await.map_err(|_| slow)?
    }

    async fn follow(&self, first: String, most: u64) -> Result<Vec<u8>, SourceError> {
        let mut path = first.clone();
        for _ in 0..=MOST_REDIRECTS {
            match self.ask(&path, most).await? {
                Answer::Body(body) => return Ok(body),
                Answer::Moved(to) => path = self.moved(&path, &to)?,
            }
        }
        Err(SourceError::Circles { place: self.at(&first), most: MOST_REDIRECTS })
    }

    /// Where a redirect leads on this host.
    fn moved(&self, path: &str, to: &str) -> Result<String, SourceError> {
        let elsewhere = || SourceError::Elsewhere {
            place: self.at(path),
            to: to.chars().filter(|c| !c.is_control()).take(200).collect(),
        };
        if to.starts_with('/') && !to.starts_with("//") {
            let fits = to.parse::<PathAndQuery>().is_ok();
            return if fits { Ok(to.to_owned()) } else { Err(elsewhere()) };
        }
        let uri: Uri = to.parse().map_err(|_| elsewhere())?;
        let same = uri.scheme_str() == Some("https")
            && uri.authority().is_some_and(|a| {
                !a.as_str().contains('@')
                    && a.host().eq_ignore_ascii_case(self.authority.host())
                    && a.port_u16().unwrap_or(443) == self.port
            });
        if !same {
            return Err(elsewhere());
        }
        Ok(uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned())
    }

    async fn ask(&self, path: &str, most: u64) -> Result<Answer, SourceError> {
        let place = self.at(path);
        let away = |why: String| SourceError::Away { place: place.clone(), why };
        let stream = timeout(self.options.connect, self.connect(&place)).await.map_err(|_| {
            SourceError::TooSlow { place: place.clone(), seconds: self.options.connect.as_secs() }
        })??;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MOST_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| away(e.to_string()))?;
        let request = hyper::Request::get(path)
            .header(header::HOST, self.authority.as_str())
            .header(header::USER_AGENT, concat!("nineteen/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| away(e.to_string()))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| broken(&e, &place))?;
            let status = response.status();
            if status.is_redirection() {
                let to = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
                let to = to.ok_or(SourceError::Status { place: place.clone(), status: status.as_u16() })?;
                return Ok(Answer::Moved(to.to_owned()));
            }
            match status.as_u16() {
                200 => body(response.into_body(), &place, most).await.map(Answer::Body),
                404 | 410 => Err(SourceError::NotFound { place: place.clone() }),
                status => Err(SourceError::Status { place: place.clone(), status }),
            }
        };
        // The connection is driven here and ends with the exchange: nothing is spawned. What breaks it, the exchange
        // hears of too, unless it has all that it needs by then.
        tokio::pin!(exchange, connection);
        tokio::select! {
            done = &mut exchange => done,
            _ = &mut connection => exchange.await,
        }
    }

    async fn connect(&self, place: &str) -> Result<tokio_rustls::client::TlsStream<TcpStream>, SourceError> {
        let away = |e: std::io::Error| SourceError::Away { place: place.into(), why: e.to_string() };
        let tls = |why: String| SourceError::Tls { place: place.into(), why };
        let name = ServerName::try_from(self.host.clone()).map_err(|e| tls(e.to_string()))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(away)?;
        self.tls.connect(name, stream).await.map_err(|e| tls(e.to_string()))
    }

    async fn set(&self, sequence: Option<u64>) -> Result<Fetched, SourceError> {
        let (folder, within) = (set_folder(sequence), self.options.small);
        let set = self.get(format!("{folder}{SET_FILE}"), MOST_SET_BYTES as u64, within).await?;
        let path = format!("{folder}{SIGNATURES_FILE}");
        let signatures = self.get(path, MOST_SIGNATURE_BYTES as u64, within).await;
        Ok(Fetched { set, signatures: unsigned_if_missing(signatures)? })
    }
}

/// The body, whole or not at all. A stated length is believed only where it is too long.
async fn body(mut body: hyper::body::Incoming, place: &str, most: u64) -> Result<Vec<u8>, SourceError> {
    use hyper::body::Body as _;
    let too_long = || SourceError::TooLong { place: place.into(), most };
    if body.size_hint().lower() > most {
        return Err(too_long());
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| broken(&e, place))?;
        let Ok(data) = frame.into_data() else { continue };
        if (read.len() + data.len()) as u64 > most {
            return Err(too_long());
        }
        read.extend_from_slice(&data);
    }
    Ok(read.to_vec())
}

/// A connection that broke: early, or in the words of the innermost reason, because hyper's own name only the layer.
fn broken(e: &hyper::Error, place: &str) -> SourceError {
    let mut early = e.is_incomplete_message();
    let mut last: &dyn std::error::Error = e;
    while let Some(inner) = last.source() {
        let eof = |e: &std::io::Error| e.kind() == std::io::ErrorKind::UnexpectedEof;
        early |= inner.downcast_ref::<std::io::Error>().is_some_and(eof);
        last = inner;
    }
    match early {
        true => SourceError::Truncated { place: place.to_owned() },
        false => SourceError::Away { place: place.to_owned(), why: last.to_string() },
    }
}

fn connector(options: &HttpsOptions) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match &options.ca_file {
        Some(file) => {
            let say = |e: &dyn std::fmt::Display| format!("certificates in {}: {e}", file.display());
            let pem = crate::source::read_bounded(file, 1 << 20).map_err(|e| say(&e))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.map_err(|e| say(&e))?).map_err(|e| say(&e))?;
            }
            if roots.is_empty() {
                return Err(say(&"there is none"));
            }
        }
        None => {
            let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if added == 0 {
                return Err("this machine has no trusted certificates: install ca-certificates, or name subnet.ca_file".into());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Source for HttpsSource {
    fn place(&self) -> String {
        self.at(&self.folder)
    }

    fn fetch(&self) -> BoxFuture<'_, Result<Fetched, SourceError>> {
        Box::pin(self.set(None))
    }

    fn fetch_at(&self, sequence: u64) -> BoxFuture<'_, Result<Fetched, SourceError>> {
        Box::pin(self.set(Some(sequence)))
    }

    fn blob<'a>(&'a self, digest: &'a Digest, most: u64) -> BoxFuture<'a, Result<Vec<u8>, SourceError>> {
        Box::pin(self.get(blob_path(digest), most, self.options.large))
    }
}
