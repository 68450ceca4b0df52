//! A repository on a registry, and whether TLS is spoken with it.

use std::fmt;
use std::net::IpAddr;

use crate::refusal::{Refusal, cut};

/// `registry/repository`, e.g. `registry.example:5000/tasks/chat`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    registry: String,
    repository: String,
}

impl Place {
    /// Parses `registry/repository`. The registry is always named: a default that belongs to one company is none.
    ///
    /// # Errors
    /// [`Refusal::Reference`] with the rule that it breaks.
    pub fn new(given: &str) -> Result<Self, Refusal> {
        let refuse = |why: &str| Refusal::Reference { given: cut(given, 200), why: why.to_owned() };
        if given.contains("://") {
            return Err(refuse("it begins without https:// or oci://"));
        }
        let (registry, repository) = given.split_once('/').ok_or_else(|| refuse("it names no repository"))?;
        let named = registry.contains(['.', ':']) || registry == "localhost";
        if !named || !is_authority(registry) {
            return Err(refuse("it begins with the registry's host name, and a port if it has one"));
        }
        if repository.len() > 200 || !repository.split('/').all(is_part) {
            return Err(refuse(
                "a repository is made of a-z, 0-9 and single '.', '_', '-' between them, with '/'",
            ));
        }
        Ok(Self { registry: registry.to_ascii_lowercase(), repository: repository.to_owned() })
    }

    /// Host and port, as written.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository on it.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Whether the registry is on this machine, by an address or name that cannot be anything else.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let (host, _) = split_authority(&self.registry, 443);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

/// Host (without brackets) and port of `host`, `host:port` or `[v6]:port`.
pub(crate) fn split_authority(authority: &str, default: u16) -> (String, u16) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, port.parse().unwrap_or(default))
        }
        _ => (authority, default),
    };
    (host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase(), port)
}

/// `host`, `host:port`, or an IPv6 address in brackets.
pub(crate) fn is_authority(given: &str) -> bool {
    let (host, port) = match given.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, rest)) => {
            let port = if rest.is_empty() { Some(None) } else { rest.strip_prefix(':').map(Some) };
            match (v6.parse::<std::net::Ipv6Addr>(), port) {
                (Ok(_), Some(port)) => ("v6", port),
                _ => return false,
            }
        }
        None => match given.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (given, None),
        },
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let port_ok = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|n| n > 0) && !p.starts_with('+'));
    (1..=253).contains(&host.len())
        && host.bytes().all(plain)
        && !host.starts_with(['-', '.'])
        && !host.contains("..")
        && port_ok
}

/// The distribution specification's `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_part(part: &str) -> bool {
    let mut separator = String::new();
    let mut seen = false;
    for c in part.chars() {
        match c {
            'a'..='z' | '0'..='9' => {
                let fits = separator.is_empty()
                    || matches!(separator.as_str(), "." | "_" | "__")
                    || separator.chars().all(|s| s == '-');
                if !fits {
                    return false;
                }
                separator.clear();
                seen = true;
            }
            '.' | '_' | '-' if seen => separator.push(c),
            _ => return false,
        }
    }
    seen && separator.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_its_registry() {
        for good in ["localhost/a", "127.0.0.1:5000/tasks/chat", "[::1]:5000/a", "r.example/a/b__c/d--e"] {
            assert_eq!(Place::new(good).unwrap().to_string(), good);
        }
        for bad in [
            "chat",
            "tasks/chat",
            "https://r.example/a",
            "r.example/",
            "r.example/A",
            "r.example/a//b",
            "r.example/a..b",
            "r.example/../a",
            "r.example:0/a",
            "r.example:99999/a",
            "u:p@r.example/a",
            "r.ex ample/a",
            "[::1/a",
            "r.example/a___b",
        ] {
            assert!(Place::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_cannot_leave_this_machine_is_loopback() {
        for (text, loopback) in [
            ("localhost:5000/a", true),
            ("127.0.0.1:1/a", true),
            ("127.8.9.1/a", true),
            ("[::1]:1/a", true),
            ("10.0.0.1:1/a", false),
            ("localhost.example/a", false),
            ("127.0.0.1.example/a", false),
        ] {
            assert_eq!(Place::new(text).unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
