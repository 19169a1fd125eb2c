//! Connections to web servers: made, encrypted, and kept for the requests that follow at once.

use piecework_core::SaturatingFrom;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{self, Instant};
use tokio_rustls::TlsConnector;

use super::super::tls;
use piecework_proto::announce::Reach;
use piecework_proto::announce::udp::Family;

/// How connections are made.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    /// Time for one connection to be made, TLS included.
    pub timeout: Duration,
    /// The address to connect from, if the server's is of the same family.
    pub local_ip: Option<IpAddr>,
    /// The network interface to connect over.
    pub interface: Option<Box<str>>,
}

/// Where a connection leads, and which requests it may serve: those for the same server that may go
/// to the same addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    pub is_encrypted: bool,
    pub reach: Reach,
    /// The only family to connect over, if there is one.
    pub family: Option<Family>,
}

/// A connection to a web server.
pub(super) struct Connection {
    pub stream: Box<dyn Duplex>,
    /// The address of the server.
    pub remote: SocketAddr,
}

/// A stream in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connections that wait for another request.
#[derive(Default)]
pub(super) struct Idle {
    waiting: Mutex<Vec<Waiting>>,
}

struct Waiting {
    destination: Destination,
    connection: Connection,
    since: Instant,
}

impl Dialer {
    /// Connects to the first of `addrs` that answers. Each has its share of the time.
    pub(super) async fn connect(
        &self,
        addrs: &[SocketAddr],
        destination: &Destination,
    ) -> io::Result<Connection> {
        let addrs = &addrs[..addrs.len().min(MAX_ADDRESSES)];
        let begun = Instant::now();
        let mut last = io::Error::other("its name has no address");
        for (place, addr) in addrs.iter().enumerate() {
            let left = self.timeout.saturating_sub(begun.elapsed());
            let share = left / u32::saturating_from(addrs.len() - place);
            match time::timeout(share, self.connect_to(*addr, destination)).await {
                Ok(Ok(stream)) => return Ok(Connection { stream, remote: *addr }),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    async fn connect_to(
        &self,
        addr: SocketAddr,
        destination: &Destination,
    ) -> io::Result<Box<dyn Duplex>> {
        let stream = self.open(addr).await?;
        stream.set_nodelay(true)?;
        if !destination.is_encrypted {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(destination.host.clone())
            .map_err(|_| io::Error::other("its name cannot be in a certificate"))?;
        let connector = TlsConnector::from(Arc::<ClientConfig>::new(tls::settings()));
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    async fn open(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(interface) = &self.interface {
            socket2::SockRef::from(&socket).bind_device(Some(interface.as_bytes()))?;
        }
        if let Some(ip) = self.local_ip.filter(|ip| ip.is_ipv4() == addr.is_ipv4()) {
            socket.bind(SocketAddr::new(ip, 0))?;
        }
        socket.connect(addr).await
    }
}

impl Idle {
    /// Returns a connection to this destination that was not closed.
    pub(super) fn take(&self, destination: &Destination) -> Option<Connection> {
        let mut waiting = self.waiting.lock();
        loop {
            // The one used last is the least likely to be closed by now.
            let at = waiting.iter().rposition(|waiting| waiting.destination == *destination)?;
            let mut found = waiting.remove(at);
            if found.since.elapsed() < IDLE_TIME && found.connection.is_silent() {
                return Some(found.connection);
            }
        }
    }

    /// Keeps a connection for some seconds.
    pub(super) fn keep(self: &Arc<Self>, destination: Destination, connection: Connection) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_IDLE {
            waiting.remove(0);
        }
        let is_first = waiting.is_empty();
        waiting.push(Waiting { destination, connection, since: Instant::now() });
        drop(waiting);
        if is_first {
            tokio::spawn(close_idle(Arc::downgrade(self)));
        }
    }
}

/// Closes connections that nobody has taken, until there are none.
async fn close_idle(idle: Weak<Idle>) {
    loop {
        time::sleep(IDLE_TIME / 2).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut waiting = idle.waiting.lock();
        waiting.retain(|waiting| waiting.since.elapsed() < IDLE_TIME);
        if waiting.is_empty() {
            return;
        }
    }
}

impl Connection {
    /// Returns whether nothing has come, neither bytes nor the end.
    fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        let read = Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer);
        matches!(read, Poll::Pending)
    }
}

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Announces are minutes apart: connections are kept for the few that follow at once.
const IDLE_TIME: Duration = Duration::from_secs(20);

/// Connections kept at most: as many as there are announces at a time.
const MAX_IDLE: usize = 64;
