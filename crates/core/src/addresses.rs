//! What an address says about who can be reached at it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// From how far away an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The whole internet.
    Global,
    /// A private network: RFC 1918, RFC 4193, carrier-grade NAT (RFC 6598), benchmarking.
    Private,
    /// One link: 169.254.0.0/16, where clouds serve their metadata, and fe80::/10.
    LinkLocal,
    /// This machine only.
    Loopback,
    /// Not the address of one machine: unspecified, multicast, broadcast, reserved. Linux takes
    /// `0.0.0.0` and `::` for this machine.
    Special,
}

/// Returns the scope of `ip`. An IPv6 address that carries an IPv4 address (mapped, compatible,
/// NAT64, 6to4, ISATAP) has the scope of the IPv4 address, because a gateway or the system may
/// route to it.
pub fn scope_of(ip: IpAddr) -> Scope {
    match ip {
        IpAddr::V4(ip) => scope_of_v4(ip),
        IpAddr::V6(ip) => scope_of_v6(ip),
    }
}

fn scope_of_v4(ip: Ipv4Addr) -> Scope {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (127, ..) => Scope::Loopback,
        (169, 254, _) => Scope::LinkLocal,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Scope::Private,
        // RFC 6598, RFC 6890 (192.0.0.0/24) and RFC 2544.
        (100, 64..=127, _) | (192, 0, 0) | (198, 18 | 19, _) => Scope::Private,
        (0 | 224..=255, ..) => Scope::Special,
        _ => Scope::Global,
    }
}

fn scope_of_v6(ip: Ipv6Addr) -> Scope {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| {
        scope_of_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Scope::Special,
        [0, 0, 0, 0, 0, 0, 0, 1] => Scope::Loopback,
        // Mapped, SIIT's translated, and the deprecated compatible form.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        // NAT64 (RFC 6052).
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // ISATAP (RFC 5214).
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => v4(high, low),
        // NAT64 in a local network (RFC 8215), wherever the IPv4 address is in it.
        [0x64, 0xff9b, 1, ..] => Scope::Private,
        // 6to4 (RFC 3056), and Teredo (RFC 4380), which inverts the client's address.
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, 0, _, _, _, _, high, low] => v4(!high, !low),
        [0xfe80..=0xfebf, ..] => Scope::LinkLocal,
        // Unique local addresses, and their predecessors, the site-local ones.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Scope::Private,
        [0xff00..=0xffff, ..] | [0x100, 0, 0, 0, ..] => Scope::Special,
        _ => Scope::Global,
    }
}

/// Returns whether `ip` can be the address of a single machine: it is not unspecified, multicast or
/// broadcast.
pub fn is_of_one_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

/// Returns whether one can connect to `addr`: it is the address of one machine and has a port.
pub fn is_dialable(addr: SocketAddr) -> bool {
    addr.port() != 0 && is_of_one_machine(addr.ip())
}

/// Returns whether `ip`, which a host at `giver` names, means the same machine for us. Addresses that are not global mean
/// something only within their network, and nobody on the internet leads us into ours.
pub fn may_be_named(giver: IpAddr, ip: IpAddr) -> bool {
    let near = scope_of(giver.to_canonical());
    match scope_of(ip.to_canonical()) {
        Scope::Global => true,
        Scope::Private => matches!(near, Scope::Private | Scope::LinkLocal | Scope::Loopback),
        Scope::Loopback => near == Scope::Loopback,
        // A link-local address that a host of the same link names may be of another interface.
        Scope::LinkLocal | Scope::Special => false,
    }
}

/// Returns what one subscriber usually holds: an IPv4 address, or an IPv6 /64. The loopback address
/// is returned as it is.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            let [a, b, c, d, ..] = ip.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_machine_with_a_port_can_be_dialled() {
        let may = |addr: &str| is_dialable(addr.parse().unwrap());
        assert!(may("192.0.2.1:1") && may("[2001:db8::1]:6881") && may("127.0.0.1:1"));
        assert!(!may("192.0.2.1:0"));
        for nobody in ["0.0.0.0:1", "255.255.255.255:1", "224.0.0.1:1", "[::]:1", "[ff02::1]:1"] {
            assert!(!may(nobody), "{nobody}");
        }
        assert!(!may("[::ffff:255.255.255.255]:1"));
    }

    #[test]
    fn an_address_has_the_scope_of_whoever_answers_there() {
        let table = [
            (Scope::Global, "8.8.8.8 172.15.0.1 172.32.0.1 100.63.0.1 100.128.0.1 169.253.0.1"),
            (Scope::Global, "2a00::1 64:ff9b::808:808 ::ffff:8.8.8.8 2002:808:808::1 2001:db8::1"),
            (Scope::Private, "10.1.2.3 172.16.0.1 172.31.9.9 192.168.0.1 100.64.0.1 198.18.0.1"),
            (Scope::Private, "fd00::1 fc00::1 fec0::1 ::ffff:10.0.0.1 64:ff9b::a00:1 64:ff9b:1::1"),
            (
                Scope::Private,
                "2002:c0a8:101::1 ::192.168.1.1 fe80::5efe:c0a8:101 ::ffff:0:10.0.0.1",
            ),
            (Scope::LinkLocal, "169.254.169.254 fe80::1 febf::1 ::ffff:169.254.169.254"),
            (Scope::LinkLocal, "64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::"),
            (Scope::Loopback, "127.0.0.1 127.255.0.9 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1"),
            (Scope::Loopback, "2002:7f00:1::1 ::127.0.0.1 2001::80ff:fffe"),
            (
                Scope::Special,
                "0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0 255.255.255.255 224.0.0.1 240.1.1.1",
            ),
            (Scope::Special, "ff02::1 100::1 64:ff9b::"),
        ];
        for (scope, ips) in table {
            for ip in ips.split(' ') {
                assert_eq!(scope_of(ip.parse().unwrap()), scope, "{ip}");
            }
        }
    }

    #[test]
    fn an_ipv6_subscriber_is_a_64() {
        let network = |ip: &str| network_of(ip.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2::9"));
        assert_ne!(network("2001:db8:1:2::"), network("2001:db8:1:3::"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
