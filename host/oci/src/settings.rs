//! What an operator may set about registries, and the limits that nobody sets.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::place::{Place, is_authority};
use crate::refusal::Refusal;

/// Section `[oci]` of the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Registries (`host` or `host:port`) that are spoken to without TLS. Those on this machine need no mention
    /// unless they do speak TLS: see `tls`.
    pub plain_http: Vec<String>,
    /// Registries on this machine (`localhost:5000`) that do speak TLS; all others do anyway.
    pub tls: Vec<String>,
    /// Hosts beside the registry that it may send us to, over TLS: where it keeps its files, or gives out tokens.
    pub also_hosts: Vec<String>,
    /// PEM file with certificates of authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// As whom we log in; the variable `NINETEEN_OCI_USERNAME` comes first.
    pub username: Option<String>,
    /// File with the password alone, readable by its owner only; the variable `NINETEEN_OCI_PASSWORD` comes first.
    pub password_file: Option<PathBuf>,
    /// The most bytes that the cache keeps.
    pub cache_bytes: u64,
    /// Ask no registry: the cache serves or nobody does.
    pub offline: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            plain_http: Vec::new(),
            tls: Vec::new(),
            also_hosts: Vec::new(),
            ca_file: None,
            username: None,
            password_file: None,
            cache_bytes: 2 << 30,
            offline: false,
        }
    }
}

impl Settings {
    /// The first key with a value that cannot be meant, and why.
    #[must_use]
    pub fn slip(&self) -> Option<(&'static str, String)> {
        for (key, hosts) in [
            ("oci.plain_http", &self.plain_http),
            ("oci.tls", &self.tls),
            ("oci.also_hosts", &self.also_hosts),
        ] {
            if let Some(bad) = hosts.iter().find(|host| !is_authority(host)) {
                return Some((key, format!("'{bad}' is no host name with or without port")));
            }
        }
        if let Some(both) = self.plain_http.iter().find(|host| self.tls.contains(host)) {
            return Some(("oci.plain_http", format!("'{both}' is in oci.tls, too: remove one")));
        }
        if self.cache_bytes < 1 << 20 {
            return Some(("oci.cache_bytes", "use at least 1048576".into()));
        }
        None
    }

    /// Whether a registry is spoken to without TLS.
    ///
    /// # Errors
    /// [`Refusal::PlainHttp`] where port 80 of another machine is named without having been allowed.
    pub fn plain(&self, place: &Place) -> Result<bool, Refusal> {
        let named = |list: &[String]| list.iter().any(|host| host.eq_ignore_ascii_case(place.registry()));
        if named(&self.plain_http) {
            return Ok(true);
        }
        if place.is_loopback() {
            return Ok(!named(&self.tls));
        }
        if place.registry().ends_with(":80") {
            return Err(Refusal::PlainHttp { registry: place.registry().to_owned() });
        }
        Ok(false)
    }
}

/// What one registry may cost us. Fixed in operation; tests make them small.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a manifest, of a config and of an answer that is no file.
    pub manifest_bytes: u64,
    /// Bytes of one file of a task, its component among them.
    pub layer_bytes: u64,
    /// Bytes of a task, all files together.
    pub task_bytes: u64,
    /// Files of a task.
    pub layers: usize,
    /// Tags that are read.
    pub tags: usize,
    /// Until a connection stands.
    pub connect: Duration,
    /// Between two reads.
    pub idle: Duration,
    /// Of one request, body included.
    pub request: Duration,
    /// Of publishing or pulling a task, all requests together.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 1 << 20,
            layer_bytes: 64 << 20,
            task_bytes: 256 << 20,
            layers: 64,
            tags: 10_000,
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            request: Duration::from_secs(300),
            total: Duration::from_secs(900),
        }
    }
}
