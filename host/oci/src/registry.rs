//! One registry, one repository: a session with `oci-client` behind a gate, and its errors in our words.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::HeaderValue;
use nineteen_domain::Digest;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as OciReference, RegistryOperation};
use sha2::Digest as _;

use crate::credentials::Credentials;
use crate::gate::{Closed, Gate, Peer, words};
use crate::layout::{Descriptor, MANIFEST_MEDIA_TYPE};
use crate::pack::{Artifact, Blob};
use crate::place::Place;
use crate::refusal::{Refusal, cut};
use crate::settings::{Limits, Settings};

/// What a request may cost beside its answer's body: handshakes, heads, the words of an error.
const SLACK: u64 = 128 << 10;

/// Tags asked for at once.
const PAGE: usize = 1_000;

/// A session.
pub(crate) struct Registry {
    client: Client,
    auth: RegistryAuth,
    given: String,
    gate: Gate,
    place: Place,
    limits: Limits,
}

/// What came of a request for a manifest.
pub(crate) struct Found {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
}

impl Registry {
    /// Prepares a session. Nobody is asked yet.
    pub(crate) async fn open(
        place: &Place,
        settings: &Settings,
        credentials: Option<&Credentials>,
        limits: Limits,
    ) -> Result<Self, Refusal> {
        let plain = settings.plain(place)?;
        let mut peers = vec![Peer::new(place.registry(), !plain)];
        peers.extend(settings.also_hosts.iter().map(|host| Peer::new(host, true)));
        let local = |why: String| Refusal::Registry { registry: place.registry().to_owned(), why };
        let gate = Gate::open(peers, limits.connect, limits.idle)
            .await
            .map_err(|e| local(format!("no port on this machine to talk through: {e}")))?;
        static PROVIDER: OnceLock<()> = OnceLock::new();
        // Where another part of the program was first, its provider serves as well.
        PROVIDER.get_or_init(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: settings
                .ca_file
                .as_deref()
                .map(certificates)
                .transpose()?
                .unwrap_or_default(),
            platform_resolver: None,
            max_concurrent_upload: 1,
            max_concurrent_download: 1,
            read_timeout: Some(limits.idle),
            connect_timeout: Some(limits.connect),
            user_agent: concat!("nineteen/", env!("CARGO_PKG_VERSION")),
            http_proxy: Some(gate.url()),
            https_proxy: Some(gate.url()),
            ..ClientConfig::default()
        };
        // `Client::new` would go on without the gate where it does not like the configuration.
        let client = Client::try_from(config).map_err(|e| local(cut(&words(&e), 300)))?;
        let (auth, given) = match credentials {
            None => (RegistryAuth::Anonymous, "without credentials".to_owned()),
            Some(c) => (
                RegistryAuth::Basic(c.username().to_owned(), c.password().to_owned()),
                format!("with the credentials from {}", c.from()),
            ),
        };
        client.store_auth_if_needed(place.registry(), &auth).await;
        Ok(Self { client, auth, given, gate, place: place.clone(), limits })
    }

    fn tagged(&self, tag: &str) -> OciReference {
        OciReference::with_tag(self.place.registry().into(), self.place.repository().into(), tag.into())
    }

    fn digested(&self, digest: &Digest) -> OciReference {
        let digest = digest.to_string();
        OciReference::with_digest(self.place.registry().into(), self.place.repository().into(), digest)
    }

    /// Runs one request with its allowance of bytes and time. A panic of the library on somebody's bytes is that
    /// registry's error.
    async fn ask<T>(
        &self,
        what: &str,
        bytes: u64,
        time: Duration,
        request: impl Future<Output = Result<T, OciDistributionError>>,
    ) -> Result<T, Refusal> {
        self.gate.allow(bytes.saturating_add(bytes / 64).saturating_add(SLACK));
        match tokio::time::timeout(time, AssertUnwindSafe(request).catch_unwind()).await {
            Err(_) => Err(Refusal::TooSlow { what: what.to_owned(), seconds: time.as_secs().max(1) }),
            Ok(Err(_)) => Err(self.bad("it answered in a way that the client library cannot read".into())),
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(self.refused(what, bytes, &error)),
        }
    }

    fn bad(&self, why: String) -> Refusal {
        Refusal::Registry { registry: self.place.registry().to_owned(), why }
    }

    /// Why the gate closed, in a user's words.
    fn closed(&self, what: &str, most: u64) -> Option<Refusal> {
        let registry = self.place.registry().to_owned();
        Some(match self.gate.closed()? {
            Closed::Elsewhere(to) => Refusal::Elsewhere { registry, to },
            Closed::InTheClear(host) => Refusal::PlainHttp { registry: host },
            Closed::TooMuch => Refusal::TooLarge { what: what.to_owned(), most },
            Closed::Unreachable(host, why) if host == registry => Refusal::Away { registry, why },
            Closed::Unreachable(host, why) => Refusal::Away { registry, why: format!("{host}: {why}") },
        })
    }

    fn refused(&self, what: &str, most: u64, error: &OciDistributionError) -> Refusal {
        if let Some(refusal) = self.closed(what, most) {
            return refusal;
        }
        let registry = self.place.registry().to_owned();
        if let (OciDistributionError::ServerError { code: 407, .. }, Some(to)) = (error, self.gate.stray()) {
            return Refusal::Elsewhere { registry, to };
        }
        let unauthorized = || Refusal::Unauthorized { registry: registry.clone(), given: self.given.clone() };
        let not_found = || Refusal::NotFound { what: what.to_owned() };
        match error {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => unauthorized(),
            OciDistributionError::ImageManifestNotFoundError(_) => not_found(),
            OciDistributionError::ServerError { code: 401 | 403, .. } => unauthorized(),
            OciDistributionError::ServerError { code: 404, .. } => not_found(),
            OciDistributionError::ServerError { code, message, .. } => {
                self.bad(format!("it answered {code}: {}", cut(message, 200)))
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let any = |code: &[OciErrorCode]| envelope.errors.iter().any(|e| code.contains(&e.code));
                if any(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    unauthorized()
                } else if any(&[
                    OciErrorCode::ManifestUnknown,
                    OciErrorCode::NameUnknown,
                    OciErrorCode::BlobUnknown,
                    OciErrorCode::NotFound,
                ]) {
                    not_found()
                } else {
                    let said: Vec<&str> = envelope.errors.iter().map(|e| e.message.as_str()).collect();
                    self.bad(cut(&said.join("; "), 300))
                }
            }
            OciDistributionError::DigestError(e) => Refusal::DigestMismatch {
                what: what.to_owned(),
                expected: match e {
                    oci_client::errors::DigestError::VerificationError { expected, .. } => cut(expected, 100),
                    other => cut(&other.to_string(), 200),
                },
            },
            OciDistributionError::RequestError(e) => self.broken(what, e),
            other => self.bad(cut(&words(other), 300)),
        }
    }

    /// A request that came to no answer.
    fn broken(&self, what: &str, error: &(dyn std::error::Error + 'static)) -> Refusal {
        let registry = self.place.registry().to_owned();
        let said = words(error);
        let mut cause = Some(error);
        while let Some(inner) = cause {
            if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
                return tls_refusal(registry, tls);
            }
            // An I/O error keeps what it wraps to itself.
            if let Some(tls) = inner
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            {
                return tls_refusal(registry, tls);
            }
            cause = inner.source();
        }
        if said.contains("timed out") {
            return Refusal::TooSlow { what: what.to_owned(), seconds: self.limits.idle.as_secs().max(1) };
        }
        if said.contains("too many redirects") {
            return self.bad("it redirects in circles".into());
        }
        Refusal::Away { registry, why: cut(&said, 300) }
    }

    /// All tags, at most as many as the limit says.
    pub(crate) async fn tags(&self) -> Result<Vec<String>, Refusal> {
        let what = format!("tags of {}", self.place);
        let reference = self.tagged("latest");
        let mut all: Vec<String> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let last = all.last().cloned();
            // A registry may ignore how many we ask for, so all that are allowed must fit.
            let bytes = self.limits.manifest_bytes.max(150 * self.limits.tags as u64);
            let request = self.client.list_tags(&reference, &self.auth, Some(PAGE), last.as_deref());
            let page = match self.ask(&what, bytes, self.limits.request, request).await {
                Ok(page) => page.tags,
                // No repository has no tags.
                Err(Refusal::NotFound { .. }) => return Ok(all),
                Err(refusal) => return Err(refusal),
            };
            let full = page.len() >= PAGE;
            let before = all.len();
            all.extend(
                page.into_iter().filter(|tag| crate::reference::is_tag(tag) && seen.insert(tag.clone())),
            );
            if all.len() > self.limits.tags {
                return Err(Refusal::TooManyTags { what: self.place.to_string(), most: self.limits.tags });
            }
            // Some registries give everything whatever page is asked for.
            if !full || all.len() == before {
                return Ok(all);
            }
        }
    }

    /// The manifest that a tag points at.
    pub(crate) async fn manifest_of_tag(&self, tag: &str) -> Result<Found, Refusal> {
        self.manifest(&format!("{}:{tag}", self.place), self.tagged(tag), None).await
    }

    /// The manifest with a digest.
    pub(crate) async fn manifest_of(&self, digest: &Digest) -> Result<Found, Refusal> {
        self.manifest(&format!("{}@{digest}", self.place), self.digested(digest), Some(digest)).await
    }

    async fn manifest(
        &self,
        what: &str,
        reference: OciReference,
        expected: Option<&Digest>,
    ) -> Result<Found, Refusal> {
        let request = self.client.pull_manifest_raw(&reference, &self.auth, &[MANIFEST_MEDIA_TYPE]);
        let (bytes, _) = self.ask(what, self.limits.manifest_bytes, self.limits.request, request).await?;
        if bytes.len() as u64 > self.limits.manifest_bytes {
            return Err(Refusal::TooLarge { what: what.to_owned(), most: self.limits.manifest_bytes });
        }
        // The library has compared, too, but with whatever digest the registry's header names.
        let digest = Digest::of(&bytes);
        match expected.filter(|expected| **expected != digest) {
            None => Ok(Found { bytes, digest }),
            Some(expected) => {
                Err(Refusal::DigestMismatch { what: what.to_owned(), expected: expected.to_string() })
            }
        }
    }

    /// A blob, verified. `tell` hears how many bytes came.
    pub(crate) async fn blob(
        &self,
        blob: &Descriptor,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<Bytes, Refusal> {
        let what = format!("{}: {}", self.place, blob.name());
        let reference = self.digested(&blob.digest);
        let mismatch = || Refusal::DigestMismatch { what: what.clone(), expected: blob.digest.to_string() };
        let read = async {
            let described = OciDescriptor { digest: blob.digest.to_string(), ..OciDescriptor::default() };
            let mut sized = self.client.pull_blob_stream(&reference, &described).await?;
            let mut hash = sha2::Sha256::new();
            // Not `with_capacity`: the size is a stranger's claim.
            let mut bytes = Vec::new();
            let mut verdict = None;
            while let Some(next) = sized.stream.next().await {
                match next {
                    Ok(chunk) if bytes.len() as u64 + chunk.len() as u64 > blob.bytes => {
                        verdict = Some(Refusal::TooLarge { what: what.clone(), most: blob.bytes });
                        break;
                    }
                    Ok(chunk) => {
                        hash.update(&chunk);
                        bytes.extend_from_slice(&chunk);
                        tell(bytes.len() as u64);
                    }
                    Err(e) => {
                        verdict = Some(self.interrupted(&what, blob, bytes.len() as u64, &e));
                        break;
                    }
                }
            }
            let got = bytes.len() as u64;
            Ok(match verdict {
                Some(refusal) => Err(refusal),
                None if got < blob.bytes => {
                    Err(Refusal::Truncated { what: what.clone(), got, expected: blob.bytes })
                }
                None if Digest::from_bytes(hash.finalize().into()) != blob.digest => Err(mismatch()),
                None => Ok(Bytes::from(bytes)),
            })
        };
        self.ask(&what, blob.bytes, self.limits.request, read).await?
    }

    /// Why a blob's body ended with an error.
    fn interrupted(&self, what: &str, blob: &Descriptor, got: u64, error: &std::io::Error) -> Refusal {
        if let Some(refusal) = self.closed(what, blob.bytes) {
            return refusal;
        }
        let said = words(error);
        if said.contains("timed out") {
            return Refusal::TooSlow { what: what.to_owned(), seconds: self.limits.idle.as_secs().max(1) };
        }
        if got < blob.bytes {
            return Refusal::Truncated { what: what.to_owned(), got, expected: blob.bytes };
        }
        // All bytes came, and it still complains: the library's own comparison.
        Refusal::DigestMismatch { what: what.to_owned(), expected: blob.digest.to_string() }
    }

    /// Whether the registry has a blob already.
    pub(crate) async fn has(&self, digest: &Digest) -> Result<bool, Refusal> {
        let (what, reference) = (format!("{}@{digest}", self.place), self.digested(digest));
        let text = digest.to_string();
        let request = self.client.blob_exists(&reference, &text);
        match self.ask(&what, 0, self.limits.request, request).await {
            // What a HEAD says of errors has no body: the push that follows says it in full.
            Err(Refusal::Away { .. }) if self.gate.closed().is_none() => Ok(false),
            other => other,
        }
    }

    /// Gets the right to push, where tokens are used.
    pub(crate) async fn log_in(&self) -> Result<(), Refusal> {
        let reference = self.tagged("latest");
        let request = self.client.auth(&reference, &self.auth, RegistryOperation::Push);
        self.ask(&self.place.to_string(), self.limits.manifest_bytes, self.limits.request, request)
            .await
            .map(drop)
    }

    pub(crate) async fn push_blob(&self, tag: &str, blob: &Blob) -> Result<(), Refusal> {
        let what = format!("{}: {}", self.place, blob.descriptor.name());
        let (reference, digest) = (self.tagged(tag), blob.descriptor.digest.to_string());
        let request = self.client.push_blob(&reference, blob.bytes.clone(), &digest);
        self.ask(&what, self.limits.manifest_bytes, self.limits.request, request).await.map(drop)
    }

    pub(crate) async fn push_manifest(&self, tag: &str, artifact: &Artifact) -> Result<(), Refusal> {
        let reference = self.tagged(tag);
        let media_type = HeaderValue::from_static(MANIFEST_MEDIA_TYPE);
        let request = self.client.push_manifest_raw(&reference, artifact.manifest.clone(), media_type);
        let what = format!("{}:{tag}", self.place);
        self.ask(&what, self.limits.manifest_bytes, self.limits.request, request).await.map(drop)
    }
}

fn tls_refusal(registry: String, error: &rustls::Error) -> Refusal {
    match error {
        rustls::Error::InvalidMessage(_) => Refusal::Registry {
            registry,
            why: "it does not speak TLS: add it to oci.plain_http if that is meant".into(),
        },
        other => Refusal::NotTrusted { registry, why: cut(&other.to_string(), 200) },
    }
}

/// The certificates in a PEM file, one by one.
fn certificates(file: &Path) -> Result<Vec<Certificate>, Refusal> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let refuse = |why: String| Refusal::File { file: file.to_owned(), why };
    let length = std::fs::metadata(file).map_err(|e| Refusal::io(file, &e))?.len();
    if length > 4 << 20 {
        return Err(refuse(format!("{length} bytes are no list of certificates")));
    }
    let bytes = std::fs::read(file).map_err(|e| Refusal::io(file, &e))?;
    let read: Result<Vec<Certificate>, _> = CertificateDer::pem_slice_iter(&bytes)
        .map(|der| Ok(Certificate { encoding: CertificateEncoding::Der, data: der?.to_vec() }))
        .collect();
    let read = read.map_err(|e: rustls::pki_types::pem::Error| refuse(format!("is no PEM file: {e}")))?;
    if read.is_empty() {
        return Err(refuse("holds no certificate (BEGIN CERTIFICATE)".into()));
    }
    Ok(read)
}
