//! Which announced addresses a tracker accepts, and which local addresses it has.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Returns whether a client at `asker` may announce the address `ip`. Only clients on this machine may announce
/// loopback addresses, because the observer connects to announced addresses.
pub(super) fn may_name(asker: IpAddr, ip: IpAddr) -> bool {
    asker.to_canonical().is_loopback() || !ip.to_canonical().is_loopback()
}

/// Returns the local address that packets to `ip` are sent from. Sends nothing.
pub(super) fn local_ip_towards(ip: IpAddr) -> Option<IpAddr> {
    let ip = ip.to_canonical();
    let any: SocketAddr =
        if ip.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((ip, 9)).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_announced_from_loopback_only() {
        let may = |asker: &str, ip: &str| may_name(asker.parse().unwrap(), ip.parse().unwrap());
        assert!(may("10.0.0.1", "10.0.0.2") && may("127.0.0.1", "127.0.0.2"));
        assert!(may("::ffff:127.0.0.1", "::1") && may("127.0.0.1", "10.0.0.2"));
        assert!(!may("10.0.0.1", "127.0.0.1") && !may("2001:db8::1", "::1"));
        assert!(!may("10.0.0.1", "::ffff:127.0.0.1"));
    }
}
