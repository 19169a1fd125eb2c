//! What the addresses of peers and clients say about who is behind them.

use std::net::{IpAddr, SocketAddr};

/// Whether it can be the address of one machine: neither of none, nor of many.
pub fn is_of_one_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

/// Whether one can connect to it: an address of one machine, with a port.
pub fn is_dialable(addr: SocketAddr) -> bool {
    addr.port() != 0 && is_of_one_machine(addr.ip())
}

/// What one subscriber holds: an IPv4 address, or an IPv6 /64. Loopback is itself.
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
    fn an_ipv6_subscriber_is_a_64() {
        let network = |ip: &str| network_of(ip.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2::9"));
        assert_ne!(network("2001:db8:1:2::"), network("2001:db8:1:3::"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
