//! The address by which this host reaches others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use piecework_proto::announce::udp::Family;

/// Returns this host's own address on the way to the internet; `None` if there is no such way.
/// Sends nothing.
pub fn source_address(family: Family) -> Option<IpAddr> {
    // Connecting a UDP socket only asks the system for a route. Both are addresses for
    // documentation (RFC 5737, RFC 3849).
    let (any, far): (IpAddr, IpAddr) = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        Family::V6 => {
            (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
        }
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(far, DISCARD)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

/// Returns this host's own address in a network that it is connected to, for hosts without a way to
/// the internet; `None` if there is no such network. Sends nothing.
pub fn neighbouring_address() -> Option<IpAddr> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    networks(&routes).into_iter().find_map(|network| {
        let socket = UdpSocket::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)).ok()?;
        let neighbour = Ipv4Addr::from_bits(network.to_bits() | 1);
        socket.connect(SocketAddr::new(neighbour.into(), DISCARD)).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
    })
}

/// Returns the networks of `/proc/net/route` that are reached without a gateway.
fn networks(routes: &str) -> Vec<Ipv4Addr> {
    let network = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        // The kernel prints the bytes of an address as a number of this machine.
        let ip = |bits: u32| Ipv4Addr::from(bits.to_ne_bytes());
        let (network, gateway) = (ip(address(1)?), ip(address(2)?));
        let is_up = address(3)? & 1 == 1;
        let direct = gateway.is_unspecified() && !network.is_unspecified();
        (fields[0] != "lo" && is_up && direct).then_some(network)
    };
    routes.lines().skip(1).filter_map(network).collect()
}

/// Any port does.
const DISCARD: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn networks_without_a_gateway_are_found_in_the_table_of_routes() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
                      eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\n\
                      eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
                      eth1\t0000000A\t0101A8C0\t0003\t0\t0\t0\t000000FF\n\
                      down\t0000100A\t00000000\t0000\t0\t0\t0\t0000FFFF\nbroken\n";
        assert_eq!(networks(routes), [Ipv4Addr::new(192, 168, 1, 0)]);
    }
}
