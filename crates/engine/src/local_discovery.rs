//! Announces torrents on the local network, and hears the announcements of others (BEP 14).
//!
//! [`LocalDiscovery`] decides. Here are its sockets, one for IPv4 and one for IPv6, and the interfaces over which they
//! send. An interface is used if it knows multicast, is not the loopback device, and peers can connect to us over it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tracing::debug;

use piecework_core::Moment;
use piecework_proto::local::{
    LOCAL_GROUP_V4, LOCAL_GROUP_V6, LOCAL_PORT, LocalAnnounce, MAX_LOCAL_LEN,
};
use piecework_swarm::PeerSource;
use piecework_swarm::local_discovery::LocalDiscovery;

use super::entry::{Call, Entry};
use super::means::Means;
use super::torrents::TorrentMap;

/// The driver of [`LocalDiscovery`].
pub(super) struct LocalAnnouncer {
    means: Arc<Means>,
    torrents: Arc<TorrentMap>,
    /// Where peers can connect to us.
    listens: Vec<SocketAddr>,
    state: LocalDiscovery,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    interfaces: Vec<NetworkInterface>,
    /// When the interfaces were read.
    looked_at: Option<Moment>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NetworkInterface {
    index: u32,
    addr: IpAddr,
    mask: IpAddr,
}

impl NetworkInterface {
    /// Returns whether `ip` is in its network.
    fn has(&self, ip: IpAddr) -> bool {
        match (self.addr, self.mask, ip) {
            (IpAddr::V4(own), IpAddr::V4(mask), IpAddr::V4(ip)) => {
                own.to_bits() & mask.to_bits() == ip.to_bits() & mask.to_bits()
            }
            (IpAddr::V6(own), IpAddr::V6(mask), IpAddr::V6(ip)) => {
                own.to_bits() & mask.to_bits() == ip.to_bits() & mask.to_bits()
            }
            _ => false,
        }
    }
}

impl LocalAnnouncer {
    /// Returns the driver of a session that accepts peers at `listens`. `None` if local discovery is off, or impossible
    /// here.
    pub(crate) fn new(
        means: &Arc<Means>,
        torrents: &Arc<TorrentMap>,
        listens: &[SocketAddr],
    ) -> Option<Self> {
        let config = &means.config;
        let port = listens.first().filter(|_| config.local_discovery)?.port();
        let device = config.interface.as_deref();
        let open = |is_v4| {
            let opened = group_socket(is_v4, device);
            opened.inspect_err(|error| debug!(%error, is_v4, "no local discovery")).ok()
        };
        let has = |is_v4| listens.iter().any(|addr| addr.is_ipv4() == is_v4);
        let [v4, v6] = [true, false].map(|is_v4| if has(is_v4) { open(is_v4) } else { None });
        if v4.is_none() && v6.is_none() {
            return None;
        }
        let cookie = format!("{:016x}", means.rng().next_u64());
        Some(Self {
            means: Arc::clone(means),
            torrents: Arc::clone(torrents),
            listens: listens.to_vec(),
            state: LocalDiscovery::new(port, cookie, means.now()),
            v4,
            v6,
            interfaces: Vec::new(),
            looked_at: None,
        })
    }

    /// Runs until the session ends.
    pub(crate) async fn run(mut self) {
        let (mut in_v4, mut in_v6) = ([0; MAX_LOCAL_LEN + 1], [0; MAX_LOCAL_LEN + 1]);
        let means = Arc::clone(&self.means);
        loop {
            let deadline = self.state.deadline();
            tokio::select! {
                () = tokio::time::sleep_until(means.clock.instant(deadline)) => self.announce(),
                (len, from) = receive(self.v4.as_ref(), &mut in_v4) => {
                    self.hear(from, &in_v4[..len]);
                }
                (len, from) = receive(self.v6.as_ref(), &mut in_v6) => {
                    self.hear(from, &in_v6[..len]);
                }
                begun = means.begun.next() => {
                    for torrent in begun {
                        if self.torrents.get(torrent).is_some_and(|entry| is_public(&entry)) {
                            self.state.hurry(means.now(), torrent);
                        }
                    }
                }
            }
        }
    }

    fn announce(&mut self) {
        let torrents = &self.torrents;
        let packet = self.state.next_packet(self.means.now(), |after, most| {
            let mut known = torrents.all();
            known.retain(|entry| after.is_none_or(|after| entry.info_hash() > after));
            known.sort_unstable_by_key(|entry| entry.info_hash());
            let public = known.iter().filter(|entry| is_public(entry));
            public.take(most).map(|entry| entry.info_hash()).collect()
        });
        if let Some(packet) = packet {
            self.look();
            self.send(&packet);
        }
    }

    /// Sends a packet over every interface.
    fn send(&self, packet: &LocalAnnounce) {
        for interface in &self.interfaces {
            let (is_v4, sent) = match (interface.addr, &self.v4, &self.v6) {
                (IpAddr::V4(addr), Some(socket), _) => {
                    let chosen = SockRef::from(socket).set_multicast_if_v4(&addr);
                    let group = (LOCAL_GROUP_V4, LOCAL_PORT).into();
                    (true, chosen.and_then(|()| socket.try_send_to(&packet.encode(true), group)))
                }
                (IpAddr::V6(_), _, Some(socket)) => {
                    let chosen = SockRef::from(socket).set_multicast_if_v6(interface.index);
                    let group = (LOCAL_GROUP_V6, LOCAL_PORT).into();
                    (false, chosen.and_then(|()| socket.try_send_to(&packet.encode(false), group)))
                }
                _ => continue,
            };
            if let Err(error) = sent {
                debug!(%error, is_v4, addr = %interface.addr, "not announced on this network");
            }
        }
    }

    fn hear(&mut self, from: SocketAddr, packet: &[u8]) {
        self.look();
        let now = self.means.now();
        let is_near = self.interfaces.iter().any(|interface| interface.has(from.ip()));
        let Some((mut addr, torrents)) = self.state.hear(now, from.ip(), is_near, packet) else {
            return;
        };
        if let (SocketAddr::V6(addr), SocketAddr::V6(from)) = (&mut addr, from) {
            addr.set_scope_id(from.scope_id());
        }
        for torrent in torrents {
            let Some(entry) = self.torrents.get(torrent).filter(|entry| is_public(entry)) else {
                continue;
            };
            let is_active = |record: &super::record::Record| {
                record.is_active(&entry.metainfo, &entry.options.lock().files)
            };
            if entry.asleep(is_active) == Some(false) {
                // A seed that sleeps is not woken for a peer that may be a seed. If it is not, it will dial.
                self.state.hurry(now, torrent);
            } else {
                // Does not wait: a torrent whose channel is full needs no more peers.
                entry.try_post(Call::Found(PeerSource::Local, vec![addr]));
            }
        }
    }

    /// Reads the list of interfaces if it may have changed, and joins the groups on new ones.
    fn look(&mut self) {
        let now = self.means.now();
        if self.looked_at.is_some_and(|at| now.since(at) < LOOKING_PAUSE) {
            return;
        }
        self.looked_at = Some(now);
        let found = match interfaces(self.means.config.interface.as_deref()) {
            Ok(found) => found,
            Err(error) => return debug!(%error, "cannot list the network interfaces"),
        };
        let listens = |ip: IpAddr| {
            let is_there = |addr: &SocketAddr| {
                addr.is_ipv4() == ip.is_ipv4() && (addr.ip().is_unspecified() || addr.ip() == ip)
            };
            self.listens.iter().any(is_there)
        };
        self.interfaces = found.into_iter().filter(|one| listens(one.addr)).collect();
        for interface in &self.interfaces {
            let joined = match (interface.addr, &self.v4, &self.v6) {
                (IpAddr::V4(_), Some(socket), _) => {
                    let index = InterfaceIndexOrAddress::Index(interface.index);
                    SockRef::from(socket).join_multicast_v4_n(&LOCAL_GROUP_V4, &index)
                }
                (IpAddr::V6(_), _, Some(socket)) => {
                    SockRef::from(socket).join_multicast_v6(&LOCAL_GROUP_V6, interface.index)
                }
                _ => continue,
            };
            // It may have been joined before.
            if let Err(error) = joined.or_else(unless_joined) {
                debug!(%error, addr = %interface.addr, "cannot hear announcements on this network");
            }
        }
    }
}

/// Returns whether a torrent is announced and found: it runs, and is not private.
fn is_public(entry: &Entry) -> bool {
    !entry.metainfo.info().is_private() && entry.admits()
}

fn unless_joined(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AddrInUse { Ok(()) } else { Err(error) }
}

/// Receives a packet. Never ends without a socket. One that is too long is cut, and then too long all the same.
async fn receive(socket: Option<&UdpSocket>, into: &mut [u8]) -> (usize, SocketAddr) {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        match socket.recv_from(into).await {
            Ok(received) => return received,
            Err(error) => {
                debug!(%error, "cannot receive announcements of the local network");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Returns a socket for announcements of one family, which other programs may have as well.
fn group_socket(is_v4: bool, device: Option<&str>) -> io::Result<UdpSocket> {
    let (domain, any): (_, IpAddr) = match is_v4 {
        true => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        false => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if !is_v4 {
        socket.set_only_v6(true)?;
    }
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(any, LOCAL_PORT).into())?;
    UdpSocket::from_std(socket.into())
}

/// Returns the addresses of the interfaces that are up and know multicast, of `device` alone if it is given.
fn interfaces(device: Option<&str>) -> io::Result<Vec<NetworkInterface>> {
    let mut found = Vec::new();
    for one in getifaddrs()? {
        let is_usable = one.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST)
            && !one.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            && device.is_none_or(|device| one.interface_name == device);
        let (Some(addr), Some(mask)) = (one.address.and_then(ip_of), one.netmask.and_then(ip_of))
        else {
            continue;
        };
        if is_usable && found.len() < MAX_INTERFACES {
            let index = if_nametoindex(one.interface_name.as_str())?;
            found.push(NetworkInterface { index, addr, mask });
        }
    }
    Ok(found)
}

fn ip_of(address: nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// How old the list of interfaces may be.
const LOOKING_PAUSE: Duration = Duration::from_secs(30);

/// Time after a failed read.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// Maximum number of addresses that are announced. A host with many containers may have more.
const MAX_INTERFACES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_with_its_prefix() {
        let interface = |addr: &str, mask: &str| NetworkInterface {
            index: 1,
            addr: addr.parse().unwrap(),
            mask: mask.parse().unwrap(),
        };
        let v4 = interface("192.168.1.7", "255.255.255.0");
        let v6 = interface("fe80::1", "ffff:ffff:ffff:ffff::");
        let has = |one: &NetworkInterface, ip: &str| one.has(ip.parse().unwrap());
        assert!(has(&v4, "192.168.1.200") && !has(&v4, "192.168.2.7") && !has(&v4, "fe80::1"));
        assert!(has(&v6, "fe80::9:9") && !has(&v6, "2001:db8::1") && !has(&v6, "192.168.1.7"));
    }
}
