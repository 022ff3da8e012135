//! Which addresses may be dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// One entry of `--egress-allow`: a network, an address, a host name, or `*.` and a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowEntry {
    /// Addresses.
    Net(IpNet),
    /// A host, whatever its addresses.
    Host(String),
    /// All hosts below a domain.
    Below(String),
}

impl FromStr for AllowEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Net(IpNet::from(ip)));
        }
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(net));
        }
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let name = name.to_ascii_lowercase();
        let character = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(character) {
            return Err("it is no host, *.domain, address or network".to_owned());
        }
        Ok(if below {
            Self::Below(name)
        } else {
            Self::Host(name)
        })
    }
}

impl fmt::Display for AllowEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            Self::Net(net) => write!(f, "{net}"),
            Self::Host(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// All entries of `--egress-allow`.
#[derive(Debug, Clone, Default)]
pub struct Allow(pub Vec<AllowEntry>);

impl Allow {
    /// Whether an address that a host has resolved to may be dialled.
    pub fn permits(&self, host: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.lists(host, address)
    }

    /// Whether a host or address is listed.
    pub fn lists(&self, host: &str, address: IpAddr) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.0.iter().any(|entry| match entry {
            AllowEntry::Net(net) => net.contains(&address),
            AllowEntry::Host(name) => *name == host,
            AllowEntry::Below(name) => host
                .strip_suffix(name.as_str())
                .is_some_and(|rest| rest.ends_with('.')),
        })
    }
}

/// Whether an address is one of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let reserved = match (a, b, c) {
        // This network; loopback; private use; multicast and reserved.
        (0 | 10 | 127 | 224..=255, ..) => true,
        // Shared address space (RFC 6598), link-local with the metadata services, private use.
        (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _) => true,
        // Protocol assignments, documentation, 6to4 relays, benchmarks.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    };
    !reserved
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(w, x, y, z)
    };
    match [a, b, c, d, e, f] {
        // IPv4 in other clothes: compatible, mapped, translated (RFC 6052, RFC 8215), 6to4.
        [0, 0, 0, 0, 0, 0] | [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] => false,
        [0x64, 0xff9b, 0, 0, 0, 0] => is_public_v4(v4(g, h)),
        [0x64, 0xff9b, 1, ..] => false,
        [0x2002, ..] => is_public_v4(v4(b, c)),
        // Teredo and other protocol assignments; documentation.
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        [0x3fff, ..] => false,
        // Only 2000::/3 is given out as public.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permits(allow: &[&str], host: &str, address: &str) -> bool {
        let allow = Allow(allow.iter().map(|entry| entry.parse().unwrap()).collect());
        allow.permits(host, address.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_are_dialled_unasked() {
        for address in [
            "1.1.1.1",
            "192.0.1.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2001:4860::8888",
            "64:ff9b::101:101",
        ] {
            assert!(permits(&[], "example.com", address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "fec0::1",
            "3fff::1",
            "100::1",
        ] {
            assert!(!permits(&[], "example.com", address), "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_dialled() {
        let allow = ["10.0.0.0/8", "fd00::5", "idp.internal", "*.svc.cluster.local"];
        assert!(permits(&allow, "x", "10.9.9.9") && permits(&allow, "x", "::ffff:10.9.9.9"));
        assert!(permits(&allow, "x", "fd00::5") && !permits(&allow, "x", "fd00::6"));
        assert!(permits(&allow, "IdP.Internal.", "192.168.1.1"));
        assert!(permits(&allow, "a.b.svc.cluster.local", "127.0.0.1"));
        assert!(!permits(&allow, "svc.cluster.local", "127.0.0.1"));
        assert!(!permits(&allow, "evilsvc.cluster.local", "127.0.0.1"));
        for text in ["", "*.", "a b", "10.0.0.0/33", "http://x"] {
            assert!(text.parse::<AllowEntry>().is_err(), "{text}");
        }
        for text in allow {
            assert_eq!(text.parse::<AllowEntry>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn a_private_address_is_private_in_every_clothing(bits in any::<u32>()) {
            let ip = Ipv4Addr::from(bits);
            let [a, b, c, d] = ip.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let allow = Allow::default();
            let public = allow.permits("x", ip.into());
            prop_assert_eq!(allow.permits("x", ip.to_ipv6_mapped().into()), public);
            prop_assert_eq!(allow.permits("x", Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into()), public);
            prop_assert!(public || !allow.permits("x", Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into()));
        }
    }
}
