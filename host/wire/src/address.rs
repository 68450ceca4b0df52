//! Which addresses a validator may connect to.
//!
//! A miner's address is the miner's own word (the metagraph repeats it), so it may name our router, a cloud's
//! metadata service, or our own database. The one idea: decide on the literal address, before the socket
//! exists; there are no names to resolve and no redirects to follow, so nothing can change in between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Ports on which no miner has business, whatever it says.
pub const DENIED_PORTS: [u16; 13] = [22, 23, 25, 53, 465, 587, 2375, 3306, 5432, 6379, 9200, 11211, 27017];

/// Why an address is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Loopback, private, shared or unique-local: fine in a laboratory, never on a public subnet.
    #[error(
        "the address is private ({0}): on a laboratory subnet, allow private miners; elsewhere the miner has to announce a public one"
    )]
    Private(&'static str),
    /// Never an address of a miner.
    #[error("the address is not one of a host ({0}): the miner has to announce a public unicast address")]
    Special(&'static str),
    /// On the list of ports, or zero.
    #[error("port {0} is denied: the miner has to serve elsewhere")]
    Port(u16),
    /// On the operator's own list.
    #[error("the address is on this validator's deny list")]
    Listed,
}

fn v4(ip: Ipv4Addr) -> Result<(), Denied> {
    use Denied::{Private, Special};
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (0, ..) => Err(Special("0.0.0.0/8")),
        (127, ..) => Err(Private("loopback")),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Err(Private("RFC 1918")),
        (100, 64..=127, _) => Err(Private("carrier-grade NAT")),
        (169, 254, _) => Err(Special("link-local")),
        (192, 0, 0) => Err(Special("IETF protocol assignments")),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Err(Special("documentation")),
        (192, 88, 99) => Err(Special("6to4 relay")),
        (198, 18..=19, _) => Err(Special("benchmarking")),
        (224..=239, ..) => Err(Special("multicast")),
        (240..=255, ..) => Err(Special("reserved or broadcast")),
        _ => Ok(()),
    }
}

fn v6(ip: Ipv6Addr) -> Result<(), Denied> {
    use Denied::{Private, Special};
    let [a, b, ..] = ip.segments();
    if ip == Ipv6Addr::LOCALHOST {
        return Err(Private("loopback"));
    }
    match (a, b) {
        (0xfc00..=0xfdff, _) => Err(Private("unique local")),
        // Forms that carry an IPv4 address past the rules above.
        (0, _) => Err(Special("unspecified, IPv4-compatible or IPv4-mapped")),
        (0x64, 0xff9b) => Err(Special("NAT64")),
        (0x2002, _) => Err(Special("6to4")),
        (0x2001, 0) => Err(Special("Teredo")),
        (0x2001, 1..=0x1ff) => Err(Special("IETF protocol assignments")),
        (0x2001, 0xdb8) | (0x3fff, 0..=0xfff) => Err(Special("documentation")),
        (0xfe80..=0xfebf, _) => Err(Special("link-local")),
        (0xff00..=0xffff, _) => Err(Special("multicast")),
        (0x2000..=0x3fff, _) => Ok(()),
        _ => Err(Special("outside 2000::/3")),
    }
}

/// Whether `addr` may be connected to.
///
/// # Errors
/// [`Denied`]; `allow_private` lifts [`Denied::Private`] alone, so that a cloud's metadata service stays out
/// of reach in a laboratory too.
pub fn permitted(
    addr: SocketAddr,
    allow_private: bool,
    denied_ports: &[u16],
    denied: &[IpAddr],
) -> Result<(), Denied> {
    if addr.port() == 0 || denied_ports.contains(&addr.port()) {
        return Err(Denied::Port(addr.port()));
    }
    if denied.contains(&addr.ip()) {
        return Err(Denied::Listed);
    }
    let verdict = match addr.ip() {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => v6(ip),
    };
    match verdict {
        Err(Denied::Private(_)) if allow_private => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(ip: &str, allow_private: bool) -> Result<(), Denied> {
        permitted(SocketAddr::new(ip.parse().unwrap(), 8091), allow_private, &DENIED_PORTS, &[])
    }

    #[test]
    fn no_announced_address_reaches_our_own_network() {
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "0.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.0.170",
            "198.18.0.1",
            "192.88.99.1",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "4000::1",
        ] {
            assert!(ask(ip, false).is_err(), "{ip}");
        }
        for ip in
            ["8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "2600::1", "2001:4860::1"]
        {
            assert_eq!(ask(ip, false), Ok(()), "{ip}");
        }
    }

    #[test]
    fn a_laboratory_reaches_private_addresses_but_never_the_metadata_service() {
        for ip in ["127.0.0.1", "10.0.0.1", "192.168.0.1", "::1", "fd00::1"] {
            assert_eq!(ask(ip, true), Ok(()), "{ip}");
        }
        for ip in ["169.254.169.254", "0.0.0.0", "::ffff:127.0.0.1", "2002:7f00:1::", "fe80::1", "224.0.0.1"]
        {
            assert!(ask(ip, true).is_err(), "{ip}");
        }
    }

    #[test]
    fn ports_and_the_operators_list_are_heeded() {
        let addr = |port| SocketAddr::new("8.8.8.8".parse().unwrap(), port);
        assert_eq!(permitted(addr(0), true, &[], &[]), Err(Denied::Port(0)));
        assert_eq!(permitted(addr(6379), true, &DENIED_PORTS, &[]), Err(Denied::Port(6379)));
        assert_eq!(permitted(addr(80), false, &[], &["8.8.8.8".parse().unwrap()]), Err(Denied::Listed));
    }
}
