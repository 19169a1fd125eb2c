//! The tracker's UDP sockets, which receive and send in batches and answer from the address that received the request.
//!
//! A socket on `0.0.0.0` or `[::]` receives packets to any address of the host, and by default the system selects the
//! source address of an answer by its route. On a host with several addresses that is often another address, and
//! clients ignore such answers. So the socket reads the destination address of each datagram and sets the source
//! address of each answer (`IP_PKTINFO`, RFC 3542).
//!
//! Several sockets may share one address (`SO_REUSEPORT`). The system gives all datagrams of one client to the same
//! socket.

use std::array;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, Shutdown, SockaddrStorage,
    recvmmsg, sendmmsg, setsockopt, shutdown,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// A socket that knows the local address of each datagram.
#[derive(Debug)]
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

/// A batch of received datagrams. Its memory is used again for the next batch.
pub(super) struct Inbox {
    headers: MultiHeaders<SockaddrStorage>,
    bytes: Box<[u8]>,
    max_len: usize,
    received: Vec<ReceivedDatagram>,
}

/// A batch of answers. Its memory is used again for the next batch.
pub(super) struct Outbox {
    /// All answers, one behind the other.
    bytes: Vec<u8>,
    answers: Vec<OutgoingDatagram>,
    /// Headers of answers without a source address, and with one of either family.
    plain: MultiHeaders<SockaddrStorage>,
    v4: MultiHeaders<SockaddrStorage>,
    v6: MultiHeaders<SockaddrStorage>,
}

struct OutgoingDatagram {
    /// Where its bytes are.
    at: Range<usize>,
    to: SocketAddr,
    /// The local address to send it from, if it has to be set.
    from: Option<IpAddr>,
}

impl Datagrams {
    /// Binds up to `count` sockets to one address.
    ///
    /// # Errors
    /// If another socket has the address, or the system cannot report addresses.
    pub(super) fn bind(addr: SocketAddr, count: usize) -> io::Result<Vec<Self>> {
        // Without `SO_REUSEPORT`, so that it fails if another program of this user has the address.
        let first = UdpSocket::bind(addr)?;
        let addr = first.local_addr()?;
        let mut sockets = vec![Self::new(first)?];
        if count > 1
            && let Err(error) = Self::bind_more(addr, count - 1, &mut sockets)
        {
            tracing::warn!(
                "only `{}` of `{count}` UDP sockets could be opened: {error}",
                sockets.len()
            );
        }
        Ok(sockets)
    }

    fn new(socket: UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        match local.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
            // Covers IPv4 as well, with mapped addresses.
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
            _ => {}
        }
        // Room for a burst. The system may grant less.
        if let Err(error) = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER) {
            tracing::debug!(%error, "the UDP receive buffer keeps its size");
        }
        Ok(Self { socket, local })
    }

    /// Waits for datagrams and replaces those in `inbox`. If the system can receive no datagrams any more, they are
    /// empty.
    pub(super) fn receive(&self, inbox: &mut Inbox) -> io::Result<()> {
        inbox.received.clear();
        let mut places = inbox.bytes.chunks_exact_mut(inbox.max_len);
        let mut parts: [_; BATCH] =
            array::from_fn(|_| [IoSliceMut::new(places.next().unwrap_or_default())]);
        // Waits for the first one only.
        let flags = MsgFlags::MSG_WAITFORONE;
        let is_any = self.local.ip().is_unspecified();
        let mut is_whole = true;
        let received =
            recvmmsg(self.socket.as_raw_fd(), &mut inbox.headers, parts.iter_mut(), flags, None)?;
        for message in received {
            let from = message.address.as_ref().and_then(socket_addr);
            let told = match is_any {
                true => message.cmsgs().ok().and_then(|mut all| all.find_map(|one| told_by(&one))),
                false => Some(self.local.ip()),
            };
            is_whole &= told.is_some() && from.is_some();
            // One that names no sender cannot be answered.
            let from = from.unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
            inbox.received.push(ReceivedDatagram { len: message.bytes, from, to: told });
        }
        if !is_whole {
            // The system has shortened the room for addresses, which would stay so.
            inbox.headers = inbox_headers();
        }
        Ok(())
    }

    /// Sends all of `outbox` and empties it. What cannot be sent is lost, as on the network.
    pub(super) fn send(&self, outbox: &mut Outbox) {
        let mut next = 0;
        while let Some(first) = outbox.answers.get(next) {
            let from = first.from.filter(|_| self.local.ip().is_unspecified());
            let rest = outbox.answers[next..].iter().take(BATCH);
            let run = rest.take_while(|answer| answer.from == first.from).count();
            match self.send_run(outbox, next..next + run, from) {
                Ok(sent) => next += sent.max(1),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::debug!(%error, "an answer could not be sent");
                    next += 1;
                }
            }
        }
        outbox.clear();
    }

    /// Ends all waiting for datagrams, now and later.
    pub(super) fn close(&self) {
        // The system wakes who waits, although it reports that the socket is not connected.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
    }

    /// Adds `count` sockets with the same address to `sockets`.
    fn bind_more(addr: SocketAddr, count: usize, sockets: &mut Vec<Self>) -> io::Result<()> {
        for socket in sockets.iter() {
            SockRef::from(&socket.socket).set_reuse_port(true)?;
        }
        for _ in 0..count {
            let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_reuse_port(true)?;
            socket.bind(&addr.into())?;
            sockets.push(Self::new(socket.into())?);
        }
        Ok(())
    }

    /// Sends answers that have the same source address, at most [`BATCH`]. Returns how many were sent.
    fn send_run(
        &self,
        outbox: &mut Outbox,
        run: Range<usize>,
        from: Option<IpAddr>,
    ) -> nix::Result<usize> {
        let Outbox { bytes, answers, plain, v4, v6 } = outbox;
        let answers = &answers[run];
        let mut addrs = [None; BATCH];
        for (addr, answer) in addrs.iter_mut().zip(answers) {
            *addr = Some(SockaddrStorage::from(answer.to));
        }
        let addrs = &addrs[..answers.len()];
        let parts: [_; BATCH] = array::from_fn(|at| {
            let at = answers.get(at).map_or(0..0, |answer| answer.at.clone());
            [IoSlice::new(bytes.get(at).unwrap_or_default())]
        });
        let (socket, none) = (self.socket.as_raw_fd(), MsgFlags::empty());
        let sent = match from {
            Some(IpAddr::V4(ip)) => {
                let ip = in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: ip, ipi_addr: ip };
                let info = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmmsg(socket, v4, parts.iter(), addrs, info, none)?.count()
            }
            Some(IpAddr::V6(ip)) => {
                let ipi6_addr = in6_addr { s6_addr: ip.octets() };
                let info = in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                let info = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmmsg(socket, v6, parts.iter(), addrs, info, none)?.count()
            }
            None => sendmmsg(socket, plain, parts.iter(), addrs, [], none)?.count(),
        };
        Ok(sent)
    }
}

impl Inbox {
    /// Returns an empty batch of datagrams of up to `max_len` bytes. Longer ones are cut.
    pub(super) fn new(max_len: usize) -> Self {
        Self {
            headers: inbox_headers(),
            bytes: vec![0; BATCH * max_len].into(),
            max_len,
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Returns the datagrams in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], ReceivedDatagram)> {
        let places = self.bytes.chunks_exact(self.max_len);
        let bytes = |len: usize, place| <[u8]>::get(place, ..len).unwrap_or_default();
        self.received.iter().zip(places).map(move |(one, place)| (bytes(one.len, place), *one))
    }
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(BATCH * ROOM_FOR_ANSWER),
            answers: Vec::with_capacity(BATCH),
            plain: MultiHeaders::preallocate(BATCH, None),
            v4: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in_pktinfo))),
            v6: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in6_pktinfo))),
        }
    }

    /// Adds the answer to `request` that `write` appends. Adds none if `write` returns `false`.
    pub(super) fn answer(
        &mut self,
        request: &ReceivedDatagram,
        write: impl FnOnce(&mut Vec<u8>) -> bool,
    ) {
        let begin = self.end();
        self.bytes.truncate(begin);
        if write(&mut self.bytes) {
            let at = begin..self.bytes.len();
            self.answers.push(OutgoingDatagram { at, to: request.from, from: request.to });
        }
    }

    fn end(&self) -> usize {
        self.answers.last().map_or(0, |answer| answer.at.end)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.answers.clear();
    }
}

fn inbox_headers() -> MultiHeaders<SockaddrStorage> {
    MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in_pktinfo, in6_pktinfo)))
}

/// Returns the local address that a control message reports.
fn told_by(message: &ControlMessageOwned) -> Option<IpAddr> {
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::from(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::from(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
        }
        _ => None,
    }
}

fn socket_addr(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|addr| SocketAddr::from(*addr));
    v4.or_else(|| storage.as_sockaddr_in6().map(|addr| SocketAddr::from(*addr)))
}

/// The number of datagrams that are received or sent at once. More would make the first of them wait longer, and save
/// no measurable time.
pub(super) const BATCH: usize = 32;

/// 4 MiB hold some 20,000 announces.
const RECEIVE_BUFFER: usize = 4 << 20;

/// More bytes than an answer with 200 peers.
const ROOM_FOR_ANSWER: usize = 1_280;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn bound(listen: &str) -> Datagrams {
        let addr = SocketAddr::new(listen.parse().unwrap(), 0);
        Datagrams::bind(addr, 1).unwrap().remove(0)
    }

    fn client(asked: IpAddr, port: u16) -> UdpSocket {
        let any = if asked.is_ipv4() { "127.0.0.1" } else { "::1" };
        let client = UdpSocket::bind((any, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // Takes answers from this address alone.
        client.connect((asked, port)).unwrap();
        client
    }

    /// Whether an answer from a socket on `listen` comes from the address that was asked.
    fn answers(listen: &str, asked: &[&str]) {
        let tracker = bound(listen);
        let (mut inbox, mut outbox) = (Inbox::new(100), Outbox::new());
        for asked in asked {
            let asked: IpAddr = asked.parse().unwrap();
            let client = client(asked, tracker.local.port());
            client.send(b"question").unwrap();
            tracker.receive(&mut inbox).unwrap();
            let all: Vec<_> = inbox.iter().collect();
            let [(b"question", received)] = all[..] else { panic!("{}", all.len()) };
            assert_eq!(received.to.map(|ip| ip.to_canonical()), Some(asked), "{listen}");
            outbox.answer(&received, |bytes| {
                bytes.extend(b"answer");
                true
            });
            tracker.send(&mut outbox);
            assert_eq!(client.recv(&mut [0; 100]).unwrap(), 6, "{asked}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn line_5_an_answer_comes_from_the_address_that_was_asked() {
        answers("0.0.0.0", &["127.0.0.1", "127.0.0.2", "127.9.8.7"]);
        answers("::", &["::1", "127.0.0.2", "127.0.0.3"]);
        answers("127.0.0.2", &["127.0.0.2"]);
        answers("::1", &["::1"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn answers_of_one_batch_come_from_the_addresses_that_were_asked() {
        let tracker = bound("0.0.0.0");
        let asked = (0..2 * BATCH).map(|n| IpAddr::from([127, 0, 0, 1 + (n / 3 % 2) as u8]));
        let clients: Vec<_> = asked.map(|asked| client(asked, tracker.local.port())).collect();
        for (number, client) in clients.iter().enumerate() {
            client.send(&[number as u8; 3]).unwrap();
        }
        let (mut inbox, mut outbox) = (Inbox::new(100), Outbox::new());
        let mut count = 0;
        while count < clients.len() {
            tracker.receive(&mut inbox).unwrap();
            for (bytes, received) in inbox.iter() {
                count += 1;
                outbox.answer(&received, |answer| {
                    answer.extend(bytes);
                    // Every fifth gets none.
                    bytes[0] % 5 > 0
                });
            }
            tracker.send(&mut outbox);
        }
        for (number, client) in clients.iter().enumerate().filter(|(number, _)| number % 5 > 0) {
            let mut answer = [0; 10];
            assert_eq!(client.recv(&mut answer).unwrap(), 3);
            assert_eq!(answer[..3], [number as u8; 3]);
        }
    }

    #[test]
    fn a_batch_has_datagrams_of_all_lengths_and_cuts_long_ones() {
        let tracker = bound("127.0.0.1");
        let client = client([127, 0, 0, 1].into(), tracker.local.port());
        let lens = [0, 1, 15, 99, 100, 101, 9_000, 0, 7];
        for len in lens {
            client.send(&vec![len as u8; len]).unwrap();
        }
        let mut inbox = Inbox::new(100);
        let mut got = Vec::new();
        while got.len() < lens.len() {
            tracker.receive(&mut inbox).unwrap();
            got.extend(inbox.iter().map(|(bytes, one)| (bytes.to_vec(), one.from)));
        }
        for ((bytes, from), len) in got.iter().zip(lens) {
            assert_eq!(
                (&bytes[..], *from),
                (&vec![len as u8; len.min(100)][..], client.local_addr().unwrap())
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn several_sockets_share_an_address_which_nobody_else_can_have() {
        let sockets = Datagrams::bind(([127, 0, 0, 1], 0).into(), 4).unwrap();
        let addr = sockets[0].local;
        assert!(sockets.len() == 4 && sockets.iter().all(|socket| socket.local == addr));
        assert!(Datagrams::bind(addr, 4).is_err(), "a second tracker");
        let waiting: Vec<_> = sockets
            .iter()
            .map(|socket| {
                let socket = Datagrams::new(socket.socket.try_clone().unwrap()).unwrap();
                std::thread::spawn(move || {
                    let mut inbox = Inbox::new(10);
                    while inbox.iter().all(|(bytes, _)| !bytes.is_empty()) {
                        socket.receive(&mut inbox).unwrap();
                    }
                })
            })
            .collect();
        sockets.iter().for_each(Datagrams::close);
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
