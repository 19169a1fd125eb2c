//! The address by which this host reaches others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::announce::udp::Family;

/// Returns this host's own address on the way to the rest of the world; `None` if there is no such
/// way. Sends nothing.
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

/// Any port does.
const DISCARD: u16 = 9;
