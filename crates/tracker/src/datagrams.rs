//! The tracker's UDP socket, which answers from the address that received the request.
//!
//! A socket on `0.0.0.0` or `[::]` receives packets to any address of the host, and by default the system selects the
//! source address of an answer by its route. On a host with several addresses that is often another address, and
//! clients ignore such answers. So the socket reads the destination address of each datagram and sets the source
//! address of each answer (`IP_PKTINFO`, RFC 3542).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A socket that knows the local address of each datagram.
pub(super) struct Datagrams {
    socket: UdpSocket,
    local: SocketAddr,
}

/// The origin and destination of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReceivedDatagram {
    /// The length of the datagram.
    pub len: usize,
    pub from: SocketAddr,
    /// The local address that it was sent to, if known.
    pub to: Option<IpAddr>,
}

impl Datagrams {
    /// # Errors
    /// If the system cannot report addresses.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        match local.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
            // Covers IPv4 as well, with mapped addresses.
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
            _ => {}
        }
        Ok(Self { socket, local })
    }

    /// Waits for a datagram.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<ReceivedDatagram> {
        self.socket.async_io(Interest::READABLE, || self.try_receive(buffer)).await
    }

    /// Sends a datagram, from the local address `from` if it is known.
    pub(super) async fn send(
        &self,
        datagram: &[u8],
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<usize> {
        self.socket.async_io(Interest::WRITABLE, || self.try_send(datagram, to, from)).await
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<ReceivedDatagram> {
        let mut control = cmsg_space!(in_pktinfo, in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let from = received.address.and_then(socket_addr);
        let from = from.ok_or_else(|| io::Error::other("a datagram from no address"))?;
        let told = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::from(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                Some(IpAddr::from(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
            }
            _ => None,
        });
        let bound = (!self.local.ip().is_unspecified()).then(|| self.local.ip());
        Ok(ReceivedDatagram { len: received.bytes, from, to: told.or(bound) })
    }

    fn try_send(&self, datagram: &[u8], to: SocketAddr, from: Option<IpAddr>) -> io::Result<usize> {
        let parts = [IoSlice::new(datagram)];
        let (socket, address) = (self.socket.as_raw_fd(), SockaddrStorage::from(to));
        // A socket on one address sends from it.
        let from = from.filter(|_| self.local.ip().is_unspecified());
        let send = |messages: &[ControlMessage<'_>]| {
            sendmsg(socket, &parts, messages, MsgFlags::empty(), Some(&address))
        };
        let sent = match from {
            Some(IpAddr::V4(ip)) => {
                let ip = in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: ip, ipi_addr: ip };
                send(&[ControlMessage::Ipv4PacketInfo(&info)])
            }
            Some(IpAddr::V6(ip)) => {
                let ipi6_addr = in6_addr { s6_addr: ip.octets() };
                let info = in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                send(&[ControlMessage::Ipv6PacketInfo(&info)])
            }
            None => send(&[]),
        };
        Ok(sent?)
    }
}

fn socket_addr(storage: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|addr| SocketAddr::from(*addr));
    v4.or_else(|| storage.as_sockaddr_in6().map(|addr| SocketAddr::from(*addr)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Whether an answer from a socket on `listen` comes from the address that was asked.
    async fn answers(listen: &str, asked: &[&str]) {
        let tracker = UdpSocket::bind((listen, 0)).await.unwrap();
        let port = tracker.local_addr().unwrap().port();
        let tracker = Datagrams::new(tracker).unwrap();
        for asked in asked {
            let asked: IpAddr = asked.parse().unwrap();
            let any = if asked.is_ipv4() { "127.0.0.1" } else { "::1" };
            let client = UdpSocket::bind((any, 0)).await.unwrap();
            // Takes answers from this address alone.
            client.connect((asked, port)).await.unwrap();
            client.send(b"question").await.unwrap();
            let mut buffer = [0; 100];
            let received = tracker.receive(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..received.len], b"question");
            assert_eq!(received.to.map(|ip| ip.to_canonical()), Some(asked), "{listen}");
            tracker.send(b"answer", received.from, received.to).await.unwrap();
            let answer = timeout(Duration::from_secs(20), client.recv(&mut buffer)).await;
            assert_eq!(answer.expect("an answer").unwrap(), 6, "{asked}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn line_5_an_answer_comes_from_the_address_that_was_asked() {
        answers("0.0.0.0", &["127.0.0.1", "127.0.0.2", "127.9.8.7"]).await;
        answers("::", &["::1", "127.0.0.2", "127.0.0.3"]).await;
        answers("127.0.0.2", &["127.0.0.2"]).await;
        answers("::1", &["::1"]).await;
    }
}
