//! From an address to a stream behind its handshake, either way.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tracing::warn;

use piecework_core::{InfoHash, Moment, Spell};
use piecework_proto::wire::{Handshake, WireError};

use super::Stream;

/// A socket that peers connect to.
pub struct Listener {
    socket: TcpListener,
    trouble: Trouble,
}

/// What kept connections from being accepted.
struct Trouble {
    spell: Spell,
    start: Instant,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// The other end.
    pub addr: SocketAddr,
    /// What the other end said.
    pub theirs: Handshake,
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Nobody there, or the connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It did not connect or did not say anything in time.
    #[error("it did not answer within {0:?}")]
    TimedOut(Duration),
    /// It took the connection and closed it at our handshake.
    #[error(
        "it accepts a connection and closes it at our handshake: it probably demands encryption"
    )]
    HungUp,
    /// It closed the connection.
    #[error("it closed the connection before the handshake")]
    Closed,
    /// Something else than BitTorrent is there.
    #[error("it does not speak the peer protocol: {0}")]
    Wire(#[from] WireError),
    /// It wants a torrent we do not have, or another than we want.
    #[error("it asked for torrent `{0}`, which is not ours")]
    WrongInfoHash(InfoHash),
}

impl HandshakeError {
    /// Whether the peer took the connection and closed it at our handshake.
    pub fn is_hang_up(&self) -> bool {
        matches!(self, Self::HungUp)
    }
}

impl Listener {
    /// Listens on `addr`, on the network interface of that name alone if there is one. An IPv6
    /// address takes IPv6 only, so that both can have one port.
    ///
    /// # Errors
    /// If the address or the interface cannot be had.
    pub fn bind(addr: SocketAddr, interface: Option<&str>) -> io::Result<Self> {
        let socket = socket(addr, interface)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let trouble = Trouble { spell: Spell::default(), start: Instant::now() };
        Ok(Self { socket: TcpListener::from_std(socket.into())?, trouble })
    }

    /// The next connection. As long as none can be had, because too many files are open or memory
    /// is short, it calls `make_room`, which may close something, and tries again ten times a
    /// second; connections wait in the system's queue.
    pub async fn next(&mut self, make_room: impl Fn()) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok(connection) => return connection,
                Err(error) => {
                    make_room();
                    self.trouble.pass(&error).await;
                }
            }
        }
    }

    /// The address, with the port the system chose.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Trouble {
    /// Waits until it may be over. Says it, but for what was said a moment ago.
    async fn pass(&mut self, error: &io::Error) {
        // Somebody who changed his mind.
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        if self.spell.happened(Moment::from_start(self.start.elapsed())) {
            warn!(%error, "cannot accept connections of peers at the moment; trying on");
        }
        // The connection that could not be taken is still there: without a pause this would spin.
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Connects to `addr`, over the network interface of that name if one is given, and exchanges
/// handshakes.
///
/// # Errors
/// If either takes too long or fails, or the other side has another torrent.
pub async fn dial(
    addr: SocketAddr,
    interface: Option<&str>,
    ours: &Handshake,
    connect_timeout: Duration,
    handshake_timeout: Duration,
) -> Result<Accepted, HandshakeError> {
    let connect = async {
        let socket = socket(addr, interface)?;
        socket.set_nonblocking(true)?;
        TcpSocket::from_std_stream(socket.into()).connect(addr).await
    };
    let stream = tokio::time::timeout(connect_timeout, connect)
        .await
        .map_err(|_| HandshakeError::TimedOut(connect_timeout))??;
    let theirs = greet(&stream, ours, handshake_timeout).await?;
    Ok(Accepted { stream, addr, theirs })
}

/// Exchanges handshakes over a connection that we made.
///
/// # Errors
/// If that takes too long or fails, or the other side has another torrent.
pub async fn greet(
    stream: &TcpStream,
    ours: &Handshake,
    handshake_timeout: Duration,
) -> Result<Handshake, HandshakeError> {
    let exchange = async {
        stream.set_nodelay(true)?;
        write_all(stream, &ours.encode()).await?;
        let theirs = read_handshake(stream, handshake_timeout).await?;
        if theirs.info_hash != ours.info_hash {
            return Err(HandshakeError::WrongInfoHash(theirs.info_hash));
        }
        Ok(theirs)
    };
    let exchange = async {
        exchange.await.map_err(|error| match error {
            HandshakeError::Closed => HandshakeError::HungUp,
            HandshakeError::Io(error) if is_closed(&error) => HandshakeError::HungUp,
            error => error,
        })
    };
    tokio::time::timeout(handshake_timeout, exchange)
        .await
        .map_err(|_| HandshakeError::TimedOut(handshake_timeout))?
}

/// Exchanges handshakes with a peer that dialled us. `answer` gives ours for the torrent it asks
/// for, `None` if we do not have it. The first byte must come within [`FIRST_BYTE`]: who dials
/// speaks first.
///
/// # Errors
/// If it takes too long, fails, or we do not have the torrent.
pub async fn accept(
    stream: TcpStream,
    addr: SocketAddr,
    handshake_timeout: Duration,
    answer: impl FnOnce(InfoHash) -> Option<Handshake> + Send,
) -> Result<Accepted, HandshakeError> {
    let exchange = async {
        stream.set_nodelay(true)?;
        let theirs = read_handshake(&stream, FIRST_BYTE.min(handshake_timeout)).await?;
        let ours =
            answer(theirs.info_hash).ok_or(HandshakeError::WrongInfoHash(theirs.info_hash))?;
        write_all(&stream, &ours.encode()).await?;
        Ok(theirs)
    };
    let theirs = tokio::time::timeout(handshake_timeout, exchange)
        .await
        .map_err(|_| HandshakeError::TimedOut(handshake_timeout))
        .and_then(|done| done)?;
    Ok(Accepted { stream, addr, theirs })
}

/// Whether the other end has closed a connection, with or without having read what we sent.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Whether sockets can be bound to the network interface of that name.
///
/// # Errors
/// If there is none, or this process may not.
pub fn check_interface(interface: &str) -> io::Result<()> {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    socket(any, Some(interface)).map(drop)
}

fn socket(addr: SocketAddr, interface: Option<&str>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    Ok(socket)
}

/// Reads not a byte more than the handshake, and stops at the first byte that is not one. The first
/// byte must come within `first_byte`.
async fn read_handshake<S: Stream>(
    stream: &S,
    first_byte: Duration,
) -> Result<Handshake, HandshakeError> {
    let mut bytes = [0; Handshake::LEN];
    let mut have = 0;
    let deadline = tokio::time::Instant::now() + first_byte;
    while have < bytes.len() {
        match stream.try_read(&mut [IoSliceMut::new(&mut bytes[have..])]) {
            Ok(0) => return Err(HandshakeError::Closed),
            Ok(read) => {
                have += read;
                Handshake::check_prefix(&bytes[..have])?;
            }
            // It may seem readable and not be.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && have == 0 => {
                tokio::time::timeout_at(deadline, stream.readable())
                    .await
                    .map_err(|_| HandshakeError::TimedOut(first_byte))??;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Handshake::decode(&bytes)?)
}

async fn write_all<S: Stream>(stream: &S, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(&[IoSlice::new(bytes)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Ends a connection from outside its link: both loops find it closed.
pub fn hang_up(stream: &TcpStream) {
    // Fails only if the other side has ended it already.
    let _ = SockRef::from(stream).shutdown(Shutdown::Both);
}

/// Connections the system holds until we accept them, as far as its own bound allows.
const BACKLOG: i32 = 4096;

/// A packet may be lost and sent again twice within it.
const FIRST_BYTE: Duration = Duration::from_secs(4);

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::super::fake::FakeStream;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_of_a_handshake_must_come_soon_and_the_others_have_more_time() {
        let start = tokio::time::Instant::now();
        let silent = read_handshake(&FakeStream::default(), FIRST_BYTE).await;
        assert!(matches!(silent, Err(HandshakeError::TimedOut(FIRST_BYTE))));
        assert_eq!(start.elapsed(), FIRST_BYTE);
        let stream = FakeStream::default();
        let whole = Handshake::ours(InfoHash([7; 20]), piecework_core::PeerId([1; 20])).encode();
        stream.send(&whole[..1]);
        let late = async {
            tokio::time::sleep(2 * FIRST_BYTE).await;
            stream.send(&whole[1..]);
        };
        let (read, ()) = tokio::join!(read_handshake(&stream, FIRST_BYTE), late);
        assert_eq!(read.unwrap().encode(), whole);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_out_of_descriptors_pauses_each_time_and_who_lost_a_caller_does_not() {
        let mut trouble = Trouble { spell: Spell::default(), start: Instant::now() };
        let start = tokio::time::Instant::now();
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].repeat(10) {
            trouble.pass(&errno.into()).await;
        }
        assert_eq!(start.elapsed(), 40 * ACCEPT_PAUSE);
        trouble.pass(&Errno::CONNABORTED.into()).await;
        assert_eq!(start.elapsed(), 40 * ACCEPT_PAUSE);
        // It has been said, and is not said again.
        assert!(!trouble.spell.happened(Moment::from_start(trouble.start.elapsed())));
    }
}
