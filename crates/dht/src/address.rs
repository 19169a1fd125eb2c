//! Addresses of nodes and peers: their compact form, and which of them are believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use piecework_core::{Scope, is_dialable, may_be_named, network_of, scope_of};

use super::node_id::NodeId;

/// A version of IP. Each has a network of nodes of its own (BEP 32).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A node: its id, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Contact {
    /// Its id.
    pub id: NodeId,
    /// Its UDP address.
    pub addr: SocketAddr,
}

impl Family {
    /// Both families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the family of `addr`.
    pub fn of(addr: SocketAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
        }
    }

    /// Returns the length of a compact address: IP and port.
    pub(crate) fn addr_len(self) -> usize {
        match self {
            Self::V4 => 6,
            Self::V6 => 18,
        }
    }
}

/// Appends IP and port in network byte order.
pub(crate) fn put_addr(addr: SocketAddr, out: &mut Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(addr.port().to_be_bytes());
}

/// Reads IP and port; `None` if `bytes` has another length.
pub(crate) fn addr_of(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_at_checked(bytes.len().checked_sub(2)?)?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    let ip = match ip.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Returns `addr` as IPv4 if it is an IPv4 address that is mapped to IPv6.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Returns whether `addr`, which a node at `giver` named, may be sent to or passed on.
pub(crate) fn is_acceptable(giver: IpAddr, addr: SocketAddr) -> bool {
    is_dialable(addr) && addr.ip().to_canonical() == addr.ip() && may_be_named(giver, addr.ip())
}

/// Returns the network of which few nodes are believed: a /24 of IPv4 or a /64 of IPv6. In private networks all nodes
/// belong to somebody who is trusted, and may share a machine: `None`.
pub(crate) fn subnet_of(ip: IpAddr) -> Option<IpAddr> {
    let ip = ip.to_canonical();
    if scope_of(ip) != Scope::Global {
        return None;
    }
    Some(match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(_) => network_of(ip),
    })
}

/// Returns for whom packets are counted: a subscriber, or a program in a private network.
pub(crate) fn sender_of(addr: SocketAddr) -> SocketAddr {
    let is_global = scope_of(addr.ip()) == Scope::Global;
    if is_global { SocketAddr::new(network_of(addr.ip()), 0) } else { addr }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_internet_names_no_private_addresses() {
        let named =
            |giver: &str, addr: &str| is_acceptable(giver.parse().unwrap(), addr.parse().unwrap());
        assert!(named("8.8.8.8", "9.9.9.9:1") && named("10.0.0.1", "9.9.9.9:1"));
        assert!(named("10.0.0.1", "192.168.0.1:1") && named("127.0.0.1", "127.0.0.1:9"));
        for addr in [
            "10.0.0.1:1",
            "127.0.0.1:1",
            "169.254.169.254:80",
            "224.0.0.1:1",
            "0.0.0.0:1",
            "9.9.9.9:0",
            "[::1]:1",
            "[fe80::1]:1",
            "[::ffff:9.9.9.9]:1",
        ] {
            assert!(!named("8.8.8.8", addr), "{addr}");
        }
        assert!(!named("10.0.0.1", "127.0.0.1:1"));
    }

    proptest! {
        #[test]
        fn compact_addresses_read_back(v4: u32, v6: u128, port: u16) {
            for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let addr = SocketAddr::new(ip, port);
                let mut bytes = Vec::new();
                put_addr(addr, &mut bytes);
                prop_assert_eq!(bytes.len(), Family::of(addr).addr_len());
                prop_assert_eq!(addr_of(&bytes), Some(addr));
            }
        }

        #[test]
        fn other_lengths_are_no_addresses(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(addr_of(&bytes).is_some(), matches!(bytes.len(), 6 | 18));
        }
    }
}
