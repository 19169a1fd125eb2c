//! Announces and scrapes over UDP (BEP 15).
//!
//! Each tracker address gets a connected socket of its own, so that the kernel drops what comes
//! from elsewhere and reports a closed port at once. One task for each socket hands answers to
//! their waiters, by transaction. Any number of requests may be under way.

use piecework_core::{SaturatingFrom, low_half};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{self, Instant};

use super::transport::TransportError;
use super::{ClientOptions, TrackerError};
use piecework_proto::announce::udp::{Family, Request, Response};
use piecework_proto::announce::{
    Announce, AnnounceReply, Refusal, Scrape, ScrapeReply, TrackerUrl,
};

/// All trackers that are asked over UDP.
#[derive(Debug)]
pub(super) struct UdpTrackers {
    options: ClientOptions,
    /// The network interface to ask over.
    interface: Option<String>,
    endpoints: Mutex<BTreeMap<SocketAddr, Arc<Endpoint>>>,
    transactions: Transactions,
}

/// One address of a tracker.
#[derive(Debug)]
struct Endpoint {
    exchange: Arc<Exchange>,
    connection: AsyncMutex<Option<ConnectionId>>,
    last_used: Mutex<Instant>,
    reader: JoinHandle<()>,
}

/// The part of an endpoint that its reader shares.
#[derive(Debug)]
struct Exchange {
    socket: UdpSocket,
    family: Family,
    /// The waiter for each transaction; `None` once the socket has failed.
    waiting: Mutex<Option<BTreeMap<u32, Waiter>>>,
}

type Waiter = oneshot::Sender<Result<Response, TrackerError>>;

#[derive(Debug, Clone, Copy)]
struct ConnectionId {
    id: u64,
    since: Instant,
}

/// Transaction numbers that a stranger cannot guess: a counter under a keyed hash whose key comes
/// from the operating system.
#[derive(Debug)]
struct Transactions {
    key: RandomState,
    next: AtomicU64,
}

/// How long to wait for an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Send once and wait until it would be time to send again.
    Once,
    /// Send again and again until the caller's timeout ends it.
    UntilStopped,
}

impl UdpTrackers {
    pub(super) fn new(options: ClientOptions, interface: Option<String>) -> Self {
        let transactions = Transactions { key: RandomState::new(), next: AtomicU64::new(0) };
        Self { options, interface, endpoints: Mutex::new(BTreeMap::new()), transactions }
    }

    /// Announces to the tracker at the first of `addrs` that answers.
    pub(super) async fn announce(
        &self,
        tracker: &TrackerUrl,
        addrs: &[SocketAddr],
        announce: &Announce,
    ) -> Result<AnnounceReply, TrackerError> {
        let url_data = Bytes::copy_from_slice(tracker.url_data().as_bytes());
        let request = |connection_id, transaction| Request::Announce {
            connection_id,
            transaction,
            announce: announce.clone(),
            url_data: url_data.clone(),
        };
        match self.ask(addrs, &request).await? {
            Response::Announce { reply, .. } => Ok(reply),
            other => Err(unexpected(other)),
        }
    }

    pub(super) async fn scrape(
        &self,
        addrs: &[SocketAddr],
        scrape: &Scrape,
    ) -> Result<ScrapeReply, TrackerError> {
        let request = |connection_id, transaction| Request::Scrape {
            connection_id,
            transaction,
            hashes: scrape.hashes.clone(),
        };
        match self.ask(addrs, &request).await? {
            Response::Scrape { entries, .. } if entries.len() >= scrape.hashes.len() => {
                Ok(ScrapeReply { entries: scrape.hashes.iter().copied().zip(entries).collect() })
            }
            other => Err(unexpected(other)),
        }
    }

    /// Asks the tracker at each of its addresses until one answers; each gets its share of the
    /// time.
    async fn ask(
        &self,
        addrs: &[SocketAddr],
        request: &impl Fn(u64, u32) -> Request,
    ) -> Result<Response, TrackerError> {
        let started = Instant::now();
        let addrs = &addrs[..addrs.len().min(MAX_ADDRESSES)];
        let mut last = TrackerError::Unreachable(TransportError::NoAddress);
        for (place, addr) in addrs.iter().enumerate() {
            let left = self.options.timeout.saturating_sub(started.elapsed());
            let share = left / u32::saturating_from(addrs.len() - place);
            match time::timeout(share, self.ask_at(*addr, request)).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(fault)) => last = fault,
                Err(_) => last = TrackerError::Timeout,
            }
        }
        Err(last)
    }

    async fn ask_at(
        &self,
        addr: SocketAddr,
        request: &impl Fn(u64, u32) -> Request,
    ) -> Result<Response, TrackerError> {
        let endpoint = self.endpoint(addr).await?;
        if let Some(id) = endpoint.known_connection().await {
            let answer =
                self.exchange(&endpoint, |number| request(id, number), Patience::Once).await?;
            match answer {
                // It may have been restarted and not know the id any more: some trackers say so,
                // some are silent.
                None | Some(Response::Error { .. }) => endpoint.forget(id).await,
                Some(response) => return Ok(response),
            }
        }
        let id = self.connect(&endpoint).await?;
        self.insist(&endpoint, |number| request(id, number)).await
    }

    /// Returns a connection id of this tracker. Callers that ask at the same time share one.
    async fn connect(&self, endpoint: &Endpoint) -> Result<u64, TrackerError> {
        let mut connection = endpoint.connection.lock().await;
        if let Some(id) = connection.as_ref().and_then(ConnectionId::usable) {
            return Ok(id);
        }
        let answer = self.insist(endpoint, |transaction| Request::Connect { transaction }).await?;
        match answer {
            Response::Connect { connection_id: id, .. } => {
                *connection = Some(ConnectionId { id, since: Instant::now() });
                Ok(id)
            }
            other => Err(unexpected(other)),
        }
    }

    async fn insist(
        &self,
        endpoint: &Endpoint,
        request: impl Fn(u32) -> Request,
    ) -> Result<Response, TrackerError> {
        let answer = self.exchange(endpoint, request, Patience::UntilStopped).await?;
        answer.ok_or(TrackerError::Timeout)
    }

    /// Sends the request until it is answered, with doubling pauses. Returns `None` if patience ran
    /// out.
    async fn exchange(
        &self,
        endpoint: &Endpoint,
        request: impl Fn(u32) -> Request,
        patience: Patience,
    ) -> Result<Option<Response>, TrackerError> {
        let transaction = self.transactions.next();
        let mut datagram = Vec::with_capacity(128);
        request(transaction).encode(&mut datagram);
        let mut ticket = Ticket::new(&endpoint.exchange, transaction)?;
        let mut pause = self.options.first_retry;
        loop {
            endpoint.exchange.socket.send(&datagram).await.map_err(unreachable)?;
            match time::timeout(pause, &mut ticket.answer).await {
                Ok(Ok(answer)) => return answer.map(Some),
                Ok(Err(_)) => return Err(unreachable(io::ErrorKind::NotConnected.into())),
                Err(_) if patience == Patience::Once => return Ok(None),
                Err(_) => pause = pause.saturating_mul(2),
            }
        }
    }

    async fn endpoint(&self, addr: SocketAddr) -> Result<Arc<Endpoint>, TrackerError> {
        if let Some(endpoint) = self.living(addr) {
            return Ok(endpoint);
        }
        let fresh = Endpoint::open(addr, self.options.local_ip, self.interface.as_deref())
            .await
            .map_err(unreachable)?;
        // Another caller may have been as fast. The first one stays.
        if let Some(endpoint) = self.living(addr) {
            return Ok(endpoint);
        }
        let fresh = Arc::new(fresh);
        let mut endpoints = self.endpoints.lock();
        if endpoints.len() >= MAX_ENDPOINTS {
            // Those that use it keep it until they are done.
            let oldest = endpoints.iter().min_by_key(|(_, endpoint)| *endpoint.last_used.lock());
            if let Some(oldest) = oldest.map(|(addr, _)| *addr) {
                endpoints.remove(&oldest);
            }
        }
        endpoints.insert(addr, Arc::clone(&fresh));
        Ok(fresh)
    }

    /// Returns the endpoint of `addr`, if there is one that works. Closes those that were not used
    /// for long.
    fn living(&self, addr: SocketAddr) -> Option<Arc<Endpoint>> {
        let mut endpoints = self.endpoints.lock();
        let now = Instant::now();
        endpoints.retain(|_, endpoint| {
            let in_use = Arc::strong_count(endpoint) > 1;
            let fresh = now.duration_since(*endpoint.last_used.lock()) < IDLE_ENDPOINT;
            (in_use || fresh) && endpoint.is_alive()
        });
        let endpoint = endpoints.get(&addr)?;
        *endpoint.last_used.lock() = now;
        Some(Arc::clone(endpoint))
    }
}

impl Endpoint {
    async fn open(
        addr: SocketAddr,
        local_ip: Option<IpAddr>,
        interface: Option<&str>,
    ) -> io::Result<Self> {
        let any = match addr {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let local = local_ip.filter(|ip| ip.is_ipv4() == addr.is_ipv4()).unwrap_or(any);
        let socket = UdpSocket::bind((local, 0)).await?;
        if let Some(interface) = interface {
            socket2::SockRef::from(&socket).bind_device(Some(interface.as_bytes()))?;
        }
        socket.connect(addr).await?;
        let exchange = Arc::new(Exchange {
            socket,
            family: Family::of(addr.ip()),
            waiting: Mutex::new(Some(BTreeMap::new())),
        });
        let reader = tokio::spawn(Arc::clone(&exchange).read());
        let last_used = Mutex::new(Instant::now());
        Ok(Self { exchange, connection: AsyncMutex::new(None), last_used, reader })
    }

    async fn known_connection(&self) -> Option<u64> {
        self.connection.lock().await.as_ref().and_then(ConnectionId::usable)
    }

    async fn forget(&self, id: u64) {
        let mut connection = self.connection.lock().await;
        connection.take_if(|connection| connection.id == id);
    }

    fn is_alive(&self) -> bool {
        self.exchange.waiting.lock().is_some()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Exchange {
    /// Hands out answers until the socket fails, which ends every wait.
    async fn read(self: Arc<Self>) {
        let mut datagram = vec![0; RECEIVE_LEN];
        let fault = loop {
            match self.socket.recv(&mut datagram).await {
                Ok(len) => self.hand_out(&datagram[..len]),
                Err(fault) => break fault,
            }
        };
        for (_, waiter) in self.waiting.lock().take().into_iter().flatten() {
            // The waiter may be gone.
            let _ = waiter.send(Err(unreachable(copy_of(&fault))));
        }
    }

    /// Hands an answer to its waiter. An answer to no question is ignored.
    fn hand_out(&self, datagram: &[u8]) {
        let transaction = datagram.get(4..).and_then(<[u8]>::first_chunk::<4>);
        let Some(transaction) = transaction.copied().map(u32::from_be_bytes) else { return };
        let waiter = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&transaction));
        if let Some(waiter) = waiter {
            let answer = Response::decode(datagram, self.family).map_err(TrackerError::from);
            // The waiter may be gone.
            let _ = waiter.send(answer);
        }
    }
}

/// A place among the waiters, given up when dropped.
struct Ticket<'a> {
    exchange: &'a Exchange,
    transaction: u32,
    answer: oneshot::Receiver<Result<Response, TrackerError>>,
}

impl<'a> Ticket<'a> {
    fn new(exchange: &'a Exchange, transaction: u32) -> Result<Self, TrackerError> {
        let (waiter, answer) = oneshot::channel();
        match exchange.waiting.lock().as_mut() {
            Some(waiting) => waiting.insert(transaction, waiter),
            None => return Err(unreachable(io::ErrorKind::NotConnected.into())),
        };
        Ok(Self { exchange, transaction, answer })
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.exchange.waiting.lock().as_mut() {
            waiting.remove(&self.transaction);
        }
    }
}

impl ConnectionId {
    fn usable(&self) -> Option<u64> {
        (self.since.elapsed() < CONNECTION_LIFE).then_some(self.id)
    }
}

impl Transactions {
    fn next(&self) -> u32 {
        low_half(self.key.hash_one(self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

fn unreachable(fault: io::Error) -> TrackerError {
    TrackerError::Unreachable(fault.into())
}

/// Returns the same error once more, for each of several requests that it ends.
fn copy_of(fault: &io::Error) -> io::Error {
    match fault.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(fault.kind(), fault.to_string()),
    }
}

/// Returns the error that an unwanted response stands for.
fn unexpected(response: Response) -> TrackerError {
    match response {
        Response::Error { message, .. } => {
            TrackerError::Refused(Refusal { reason: message, retry: None })
        }
        _ => TrackerError::WrongAnswer,
    }
}

/// Time that a client may use a connection id (BEP 15).
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// Time without use after which a socket is closed. Its connection id has expired by then.
const IDLE_ENDPOINT: Duration = Duration::from_secs(120);

/// Sockets kept open at most: more trackers than any sensible set of torrents has.
const MAX_ENDPOINTS: usize = 256;

/// Bytes of an answer that are read: more than 2,000 IPv4 peers, or 900 IPv6 peers, where trackers
/// give 50 to 200.
const RECEIVE_LEN: usize = 16 * 1024;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;
