//! Connects to peers of catalogued torrents, as a peer that requests nothing, and records in the registry which
//! pieces they show. [`Observer`] decides which peers to visit and when; this file carries it out.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::addresses::local_ip_towards;
use super::catalogue::Catalogue;
use super::observation::Observation;
use super::swarms::Swarms;
use piecework_clock::Clock;
use piecework_core::bencode;
use piecework_core::{Bitfield, BlockPool, InfoHash, PeerId, Rng};
use piecework_engine::net::{
    Batch, Claim, HandshakeError, Incoming, PeerStream, Receiver, Stream, greet, greet_encrypted,
};
use piecework_proto::encryption::Methods;
use piecework_proto::wire::{
    self, DecodeLimits, ExtendedHandshake, Handshake, METADATA_EXTENSION, METADATA_ID, Message,
};
use piecework_registry::{
    HoldingsUpdate, ObservedBitfield, Observer, ObserverAction, ObserverConfig, ObserverEvent,
    Refusal, VisitEnd, VisitKey, takes_several,
};

/// A message from a visit to the driver.
enum VisitReport {
    Opened { visit: VisitKey, local: IpAddr, several: bool },
    Ended { visit: VisitKey, end: VisitEnd },
}

/// The parts of the tracker that the observer needs.
pub(super) struct ObserverParts {
    pub clock: Clock,
    pub swarms: Arc<Swarms>,
    pub catalogue: Arc<Catalogue>,
    pub observation: Arc<Observation>,
}

/// The shared state of all visits.
struct VisitContext {
    tracker: ObserverParts,
    /// The address that the tracker listens on.
    listen: SocketAddr,
    peer_id: PeerId,
    told: mpsc::Sender<VisitReport>,
    /// Whether any peer has sent something since the last look.
    heard: AtomicBool,
    pool: BlockPool,
}

/// A visit to one peer.
struct PeerVisit {
    common: Arc<VisitContext>,
    key: VisitKey,
    info_hash: InfoHash,
    addr: SocketAddr,
}

/// Observes peers until `stop` changes.
pub(super) async fn run(
    tracker: ObserverParts,
    config: ObserverConfig,
    listen: SocketAddr,
    seed: u64,
    mut stop: watch::Receiver<bool>,
) {
    let mut rng = Rng::from_seed(seed);
    let peer_id = PeerId::generate_tracker(&mut rng);
    let mut observer = Observer::new(config, rng);
    let (told, mut hear) = mpsc::channel(TOLD);
    let heard = AtomicBool::new(false);
    // Blocks are neither requested nor accepted. One buffer is there for peers that send one anyway.
    let pool = BlockPool::new(1);
    let common = Arc::new(VisitContext { tracker, listen, peer_id, told, heard, pool });
    let tracker = &common.tracker;
    let mut visits: BTreeMap<VisitKey, JoinHandle<()>> = BTreeMap::new();
    let mut events = Vec::new();
    loop {
        let told = tokio::select! {
            told = hear.recv() => told,
            () = tracker.clock.tick(LOOK_EVERY) => None,
            _ = stop.changed() => break,
        };
        let now = tracker.clock.now();
        if common.heard.swap(false, Ordering::Relaxed) {
            observer.heard(now);
        }
        for told in told.into_iter().chain(std::iter::from_fn(|| hear.try_recv().ok())) {
            match told {
                VisitReport::Opened { visit, local, several } => {
                    observer.opened(now, visit, local, several);
                }
                VisitReport::Ended { visit, end } => {
                    visits.remove(&visit);
                    observer.ended(now, visit, end);
                }
            }
        }
        tracker.swarms.each(|registry| registry.take_observer_events(&mut events));
        for event in events.drain(..) {
            let at_itself = |addr| is_self(addr, common.listen);
            if !matches!(event, ObserverEvent::Here { addr, .. } if at_itself(addr)) {
                observer.handle(now, event);
            }
        }
        for info_hash in tracker.observation.take_left() {
            observer.leave(info_hash);
        }
        while let Some(action) = observer.poll(now) {
            carry_out(&common, &mut visits, action);
        }
        tracker.observation.set_figures(observer.figures());
    }
    visits.into_values().for_each(|task| task.abort());
}

/// Begins or ends a visit, or records what visits have shown.
fn carry_out(
    common: &Arc<VisitContext>,
    visits: &mut BTreeMap<VisitKey, JoinHandle<()>>,
    action: ObserverAction,
) {
    let swarms = &common.tracker.swarms;
    match action {
        ObserverAction::Dial { visit: key, info_hash, addr } => {
            let visit = PeerVisit { common: Arc::clone(common), key, info_hash, addr };
            visits.insert(key, tokio::spawn(visit.run()));
        }
        ObserverAction::HangUp { visit, info_hash, addr } => {
            if let Some(task) = visits.remove(&visit) {
                task.abort();
            }
            swarms.with(info_hash, |registry| registry.observed_last(info_hash, addr));
        }
        ObserverAction::Checked { info_hash, addr, reachable } => {
            swarms.with(info_hash, |registry| {
                registry.checked(info_hash, addr, reachable);
            });
        }
        ObserverAction::Gone { info_hash, addr } => {
            tracing::debug!(%addr, "a peer is gone");
            swarms.with(info_hash, |registry| {
                registry.unreachable(info_hash, addr);
            });
        }
    }
}

impl PeerVisit {
    async fn run(self) {
        let end = self.converse().await;
        let (info_hash, addr) = (self.info_hash, self.addr);
        self.common.tracker.swarms.with(info_hash, |registry| {
            registry.visit_ended(info_hash, addr, end);
        });
        // Fails only if the driver has ended.
        let _ = self.common.told.send(VisitReport::Ended { visit: self.key, end }).await;
    }

    async fn converse(&self) -> VisitEnd {
        match self.connect().await {
            Ok((stream, theirs, local)) => match self.listen(&stream, &theirs, local).await {
                Ok(never) => match never {},
                Err(end) => end,
            },
            Err(end) => end,
        }
    }

    async fn connect(&self) -> Result<(PeerStream, Handshake, IpAddr), VisitEnd> {
        let (info_hash, addr) = (self.info_hash, self.addr);
        let from = source(self.common.listen.ip(), addr.ip());
        let local = from.or_else(|| local_ip_towards(addr.ip())).ok_or(VisitEnd::Ours)?;
        let tracker = &self.common.tracker;
        let may = tracker.swarms.with(info_hash, |r| r.may_observe(info_hash, addr, local));
        // If the visit ends before the handshake, the peer does not use up a connection slot.
        let only_probes = match may {
            Err(VisitEnd::NoRoom) => Some(VisitEnd::Probed),
            Err(VisitEnd::Elsewhere) => Some(VisitEnd::Elsewhere),
            may => may.map(|()| None)?,
        };
        let tcp = connect(addr, from).await?;
        if let Some(end) = only_probes {
            return Err(end);
        }
        let ours = Handshake::ours(info_hash, self.common.peer_id);
        let greeted = match greet(&tcp, &ours, HANDSHAKE_TIMEOUT).await {
            Ok(theirs) => Ok((PeerStream::plain(tcp), theirs)),
            // A peer that requires encryption does this. The plain handshake cannot be taken back, so the
            // encrypted one needs another connection.
            Err(HandshakeError::HungUp) => {
                drop(tcp);
                let tcp = connect(addr, from).await?;
                greet_encrypted(tcp, &ours, Methods::ANY, HANDSHAKE_TIMEOUT).await
            }
            Err(error) => Err(error),
        };
        let (stream, theirs) = greeted.map_err(|error| {
            tracing::debug!(%addr, %error, "a peer refuses to be observed");
            match error {
                // The system accepted the connection, but the program does not respond.
                HandshakeError::TimedOut(_) => VisitEnd::Unanswered,
                HandshakeError::HungUp => VisitEnd::HungUp,
                _ => VisitEnd::Declined,
            }
        })?;
        let local = stream.tcp().local_addr().map_or(local, |addr| addr.ip());
        Ok((stream, theirs, local))
    }

    /// Reads from a peer until the connection ends.
    async fn listen(
        &self,
        stream: &PeerStream,
        theirs: &Handshake,
        local: IpAddr,
    ) -> Result<std::convert::Infallible, VisitEnd> {
        let Self { info_hash, addr, .. } = *self;
        let tracker = &self.common.tracker;
        let now = tracker.clock.now();
        let there = |registry: &mut piecework_registry::Registry| {
            registry.observing(now, info_hash, addr, theirs.peer_id)
        };
        tracker.swarms.with(info_hash, there)?;
        let several = takes_several(theirs.peer_id);
        let opened = VisitReport::Opened { visit: self.key, local, several };
        self.common.told.send(opened).await.map_err(|_| VisitEnd::Closed)?;
        let pieces = tracker.catalogue.get(info_hash).ok_or(VisitEnd::Unlisted)?.pieces;
        write(stream, &greeting(theirs, addr.ip(), pieces)).await?;

        let limits = DecodeLimits {
            max_extended: MAX_EXTENDED,
            extensions: u8::MAX,
            ..DecodeLimits::new(pieces)
        };
        let mut receiver = Receiver::new(self.common.pool.clone(), limits);
        let begun_at = Instant::now();
        let mut talk = Conversation {
            bitfield: ObservedBitfield::new(pieces),
            seen: Vec::new(),
            is_transmission: is_transmission(theirs),
            flushes_with_choking: flushes_with_choking(theirs),
            interested: false,
            turned_at: begun_at,
            metadata_id: None,
            nudged_at: begun_at,
            heard_at: begun_at,
            written_at: begun_at,
        };
        loop {
            match timeout(talk.patience(), stream.readable()).await {
                Ok(ready) => {
                    ready.map_err(|_| VisitEnd::Closed)?;
                    self.read(stream, &mut receiver, &mut talk).await?;
                }
                Err(_) => receiver.rest(),
            }
            if begun_at.elapsed() >= SILENT_START {
                talk.bitfield.begin(&mut talk.seen);
            }
            if talk.heard_at.elapsed() >= FELL_SILENT {
                tracing::debug!(%addr, "a peer no longer sends anything");
                return Err(VisitEnd::Closed);
            }
            let whole = self.tell(std::mem::take(&mut talk.seen))?;
            if let Some(words) = talk.due(whole) {
                write(stream, &words).await?;
            }
        }
    }

    /// Reads once, then waits to limit the rate.
    async fn read(
        &self,
        stream: &PeerStream,
        receiver: &mut Receiver,
        talk: &mut Conversation,
    ) -> Result<(), VisitEnd> {
        let (mut read, mut again) = (0, true);
        while again {
            let mut batch = Batch::default();
            let asked = |_| Claim::Unasked;
            match receiver.fill(0, |into| stream.try_read(into), asked, &mut batch) {
                Ok(bytes) => read += bytes,
                Err(error) if error.would_block() => return Ok(()),
                Err(error) => {
                    tracing::debug!(addr = %self.addr, %error, "a peer is no longer observed");
                    return Err(VisitEnd::Closed);
                }
            }
            self.hear(stream, batch.items(), talk).await?;
            again = receiver.is_behind();
        }
        self.common.heard.store(true, Ordering::Relaxed);
        talk.heard_at = Instant::now();
        // Records the news before the wait.
        self.tell(std::mem::take(&mut talk.seen))?;
        tokio::time::sleep(Duration::from_secs_f64(read as f64 / BYTES_A_SECOND)).await;
        Ok(())
    }

    /// Handles a peer's messages, and answers them.
    async fn hear(
        &self,
        stream: &PeerStream,
        items: &[Incoming],
        talk: &mut Conversation,
    ) -> Result<(), VisitEnd> {
        for item in items {
            // Nothing was requested: a peer that sends blocks does not follow the protocol.
            let Incoming::Message(message) = item else { return Err(VisitEnd::Declined) };
            talk.bitfield.take(message, &mut talk.seen).map_err(|error| {
                tracing::debug!(addr = %self.addr, %error, "a peer is no longer observed");
                VisitEnd::Declined
            })?;
            if let Message::Extended { id, payload } = message
                && let Some(words) = talk.answer(*id, payload)
            {
                write(stream, &words).await?;
            }
        }
        Ok(())
    }

    /// Records in the registry what was seen and that the peer is alive. Returns whether the peer holds every piece.
    fn tell(&self, seen: Vec<HoldingsUpdate>) -> Result<bool, VisitEnd> {
        let Self { info_hash, addr, .. } = *self;
        let tracker = &self.common.tracker;
        let now = tracker.clock.now();
        tracker.swarms.with(info_hash, |registry| {
            if !registry.alive(now, info_hash, addr) {
                return Err(VisitEnd::Unlisted);
            }
            registry.observed(now, info_hash, addr, seen).map_err(|refusal| match refusal {
                Refusal::Full => VisitEnd::NoRoom,
                _ => VisitEnd::Unlisted,
            })?;
            Ok(registry.holds_everything(info_hash, addr))
        })
    }
}

/// The state of one connection after the greeting.
struct Conversation {
    bitfield: ObservedBitfield,
    /// News that is not recorded yet.
    seen: Vec<HoldingsUpdate>,
    is_transmission: bool,
    /// Whether the client sends delayed HAVEs together with a choke or unchoke.
    flushes_with_choking: bool,
    /// The interest that was last sent.
    interested: bool,
    turned_at: Instant,
    /// The client's id of metadata messages (BEP 9).
    metadata_id: Option<u8>,
    nudged_at: Instant,
    /// When the peer last sent something, and when this side did.
    heard_at: Instant,
    written_at: Instant,
}

impl Conversation {
    /// Returns the time until something has to be sent or checked.
    fn patience(&self) -> Duration {
        let left = |every: Duration, since: Instant| every.saturating_sub(since.elapsed());
        let mut patience = ALIVE_EVERY.min(left(KEEP_ALIVE_EVERY, self.written_at));
        if self.metadata_id.is_some() {
            patience = patience.min(left(NUDGE_EVERY, self.nudged_at));
        }
        if self.flushes_with_choking {
            patience = patience.min(left(self.turn_after(), self.turned_at));
        }
        patience.max(SHORTLY)
    }

    /// Returns how long the present interest lasts.
    fn turn_after(&self) -> Duration {
        if self.interested { INTERESTED_FOR } else { INTERESTED_EVERY }
    }

    /// Returns the messages to send now: a keep-alive, and for some clients more.
    ///
    /// rtorrent delays HAVEs to a peer that gives it nothing until it has another message to send. It answers a
    /// change of interest by unchoking or choking, and sends the delayed HAVEs with it. The observer is interested
    /// for one second, so that the slot is soon free again, and not more often than rtorrent unchokes.
    ///
    /// Transmission delays HAVEs for ten seconds unless it has an urgent message for the same peer. It sends a
    /// refusal within two seconds, together with the delayed HAVEs. So the observer requests a metadata piece that
    /// does not exist, until the peer holds every piece.
    fn due(&mut self, whole: bool) -> Option<BytesMut> {
        let mut out = BytesMut::new();
        if let Some(id) = self.metadata_id
            && self.nudged_at.elapsed() >= NUDGE_EVERY
        {
            // Set even if nothing is sent, or `patience` would be zero with a seed.
            self.nudged_at = Instant::now();
            if !whole {
                let payload = Bytes::from_static(b"d8:msg_typei0e5:piecei-1ee");
                wire::encode(&Message::Extended { id, payload }, &mut out);
            }
        }
        if self.flushes_with_choking && self.turned_at.elapsed() >= self.turn_after() {
            self.turned_at = Instant::now();
            if self.interested || !whole {
                self.interested = !self.interested;
                let turned = match self.interested {
                    true => Message::Interested,
                    false => Message::NotInterested,
                };
                wire::encode(&turned, &mut out);
            }
        }
        if self.written_at.elapsed() >= KEEP_ALIVE_EVERY {
            wire::encode(&Message::KeepAlive, &mut out);
        }
        if out.is_empty() {
            return None;
        }
        self.written_at = Instant::now();
        Some(out)
    }

    /// Returns the answer to an extended message, if it needs one: the observer has no metadata.
    fn answer(&mut self, id: u8, payload: &[u8]) -> Option<BytesMut> {
        if !self.is_transmission {
            return None;
        }
        if id == 0 {
            if let Ok(theirs) = ExtendedHandshake::decode(payload) {
                self.metadata_id = theirs.messages.get(METADATA_EXTENSION).copied();
            }
            return None;
        }
        let theirs = self.metadata_id?;
        let scan = bencode::scan(payload, &bencode::Limits { bytes: 256, depth: 4, tokens: 32 });
        let scan = scan.ok()?;
        let int = |key: &[u8]| scan.root().get(key).and_then(|node| node.as_int());
        let piece = int(b"piece").filter(|_| int(b"msg_type") == Some(0))?;
        let payload = Bytes::from(format!("d8:msg_typei2e5:piecei{piece}ee"));
        let mut out = BytesMut::new();
        wire::encode(&Message::Extended { id: theirs, payload }, &mut out);
        Some(out)
    }
}

/// Returns whether the client is Transmission, by its peer id.
fn is_transmission(theirs: &Handshake) -> bool {
    theirs.peer_id.0.starts_with(b"-TR")
}

/// Returns whether the client is rtorrent, by its library's peer id. Other clients' ids have upper-case letters.
fn flushes_with_choking(theirs: &Handshake) -> bool {
    theirs.peer_id.0.starts_with(b"-lt")
}

/// Returns the first messages: the extended handshake, and that the observer holds nothing. It stays choking and
/// not interested, which is the initial state. A peer that holds nothing need not send a bitfield (BEP 3), but
/// rqbit sends no HAVEs to a peer that has not.
fn greeting(theirs: &Handshake, peer_ip: IpAddr, pieces: u32) -> BytesMut {
    let mut out = BytesMut::new();
    if theirs.fast() {
        wire::encode(&Message::HaveNone, &mut out);
    } else {
        let nothing = Bytes::copy_from_slice(Bitfield::empty(pieces).as_wire());
        wire::encode(&Message::Bitfield(nothing), &mut out);
    }
    if theirs.extended() {
        // Transmission's refusals need a message id, see `Conversation::due`.
        let messages = match is_transmission(theirs) {
            true => BTreeMap::from([(METADATA_EXTENSION.to_owned(), METADATA_ID)]),
            false => BTreeMap::new(),
        };
        let handshake = ExtendedHandshake {
            messages,
            client: Some(concat!("Piecework tracker ", env!("CARGO_PKG_VERSION")).to_owned()),
            your_ip: Some(peer_ip.to_canonical()),
            ..ExtendedHandshake::default()
        };
        let payload = Bytes::from(handshake.encode());
        wire::encode(&Message::Extended { id: 0, payload }, &mut out);
    }
    out
}

/// Returns the local address to connect from: the one that the tracker listens on, if it is specific, because
/// firewalls let it through. Over loopback it is an address that no other peer uses.
fn source(listen: IpAddr, to: IpAddr) -> Option<IpAddr> {
    if to.is_loopback() && to.is_ipv4() {
        return Some(LOOPBACK.into());
    }
    let fits = listen.is_ipv4() == to.is_ipv4() && listen.is_loopback() == to.is_loopback();
    (fits && !listen.is_unspecified()).then_some(listen)
}

/// Returns whether `addr` is the tracker itself.
fn is_self(addr: SocketAddr, listen: SocketAddr) -> bool {
    addr.port() == listen.port()
        && (addr.ip().is_loopback()
            || addr.ip() == listen.ip()
            || local_ip_towards(addr.ip()) == Some(addr.ip()))
}

/// Returns how a visit ends whose connection failed with `error`.
fn end_of(error: &io::Error) -> VisitEnd {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => VisitEnd::Refused,
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => VisitEnd::Unanswered,
        _ => VisitEnd::Ours,
    }
}

/// Connects to a peer, from the address `from` if there is one.
async fn connect(addr: SocketAddr, from: Option<IpAddr>) -> Result<TcpStream, VisitEnd> {
    let connect = async {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(from) = from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let stream = socket.connect(addr).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        // Detects within half a minute that a machine has lost power.
        socket.set_tcp_keepalive(&KEEPALIVE)?;
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        Ok(stream)
    };
    let connected = timeout(CONNECT_TIMEOUT, connect).await;
    connected.map_err(|_| VisitEnd::Unanswered)?.map_err(|error| end_of(&error))
}

async fn write(stream: &PeerStream, mut bytes: &[u8]) -> Result<(), VisitEnd> {
    let all = async {
        while !bytes.is_empty() {
            stream.writable().await?;
            match stream.try_write(&[IoSlice::new(bytes)]) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    // A peer that does not read for so long is gone.
    match timeout(HANDSHAKE_TIMEOUT, all).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(VisitEnd::Closed),
    }
}

/// The source of connections over loopback: all of 127/8 is this machine.
const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 80, 75, 1);

/// The time between two rounds of the driver.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The time to connect. Three attempts with the pauses between them fit into half a minute.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// The time for a peer's handshake, and for sending messages.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A machine that sends nothing for 10 s is probed three times.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(10))
    .with_interval(Duration::from_secs(3))
    .with_retries(3);
const UNACKNOWLEDGED: Duration = Duration::from_secs(18);

/// Peers close a connection after two minutes of silence (BEP 3), rqbit after ten seconds.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(8);

/// A peer should send something every two minutes. After this time it may be frozen, which shows when it does not
/// answer a new handshake.
const FELL_SILENT: Duration = Duration::from_secs(150);

/// rtorrent does not unchoke a peer earlier than ten seconds after choking it.
const INTERESTED_EVERY: Duration = Duration::from_secs(11);
const INTERESTED_FOR: Duration = Duration::from_secs(1);

/// The time between two metadata requests to Transmission. With the two seconds of its answer, new pieces are known
/// within seven seconds.
const NUDGE_EVERY: Duration = Duration::from_secs(4);
const SHORTLY: Duration = Duration::from_millis(10);

/// The time between two records that a peer is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// A peer that has sent no bitfield by this time holds nothing.
const SILENT_START: Duration = Duration::from_secs(5);

/// The maximum rate of reading from one peer: half a million pieces, one HAVE each, in 18 s.
const BYTES_A_SECOND: f64 = 256.0 * 1024.0;

/// The maximum length of an extended message. The handshake has less than one KiB, and others are not accepted.
const MAX_EXTENDED: u32 = 64 * 1024;

/// The maximum number of messages from visits that wait for the driver.
const TOLD: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_come_from_where_the_tracker_listens() {
        assert_eq!(source(ip("10.0.0.1"), ip("10.0.0.2")), Some(ip("10.0.0.1")));
        assert_eq!(source(ip("0.0.0.0"), ip("10.0.0.2")), None);
        assert_eq!(source(ip("10.0.0.1"), ip("127.0.0.1")), Some(LOOPBACK.into()));
        assert_eq!(source(ip("127.0.0.1"), ip("10.0.0.2")), None);
        assert_eq!(source(ip("10.0.0.1"), ip("2001:db8::1")), None);
    }

    #[test]
    fn the_tracker_does_not_connect_to_itself() {
        let listen = "0.0.0.0:8000".parse().unwrap();
        assert!(is_self("127.0.0.1:8000".parse().unwrap(), listen));
        assert!(!is_self("127.0.0.1:8001".parse().unwrap(), listen));
        assert!(!is_self("192.0.2.1:8000".parse().unwrap(), listen));
    }

    #[test]
    fn the_greeting_says_who_we_are_and_that_we_hold_nothing() {
        let all = Handshake::ours(InfoHash([1; 20]), PeerId([2; 20]));
        let said = greeting(&all, ip("10.0.0.2"), 9);
        assert_eq!(said[..5], [0, 0, 0, 1, 15]);
        assert!(said.windows(17).any(|part| part == b"Piecework tracker"));
        let plain = Handshake { reserved: [0; 8], ..all };
        let said = greeting(&plain, ip("10.0.0.2"), 9);
        assert_eq!(said[..], [0, 0, 0, 3, 5, 0, 0], "a bitfield without a piece");
    }

    fn silent_talk() -> Conversation {
        let now = Instant::now();
        Conversation {
            bitfield: ObservedBitfield::new(8),
            seen: Vec::new(),
            is_transmission: false,
            flushes_with_choking: false,
            interested: false,
            turned_at: now,
            metadata_id: None,
            nudged_at: now,
            heard_at: now,
            written_at: now,
        }
    }

    #[test]
    fn rtorrent_is_asked_for_what_it_gathered_by_a_moment_of_interest() {
        let id = |name: &[u8]| {
            let mut id = [b'x'; 20];
            id[..name.len()].copy_from_slice(name);
            flushes_with_choking(&Handshake::ours(InfoHash([1; 20]), PeerId(id)))
        };
        assert!(id(b"-lt0F60-") && !id(b"-LT20B0-") && !id(b"-TR4050-"));
        let mut talk = Conversation { flushes_with_choking: true, ..silent_talk() };
        assert_eq!(talk.due(false), None);
        talk.turned_at = Instant::now() - INTERESTED_EVERY;
        assert_eq!(talk.due(false).unwrap()[..], [0, 0, 0, 1, 2]);
        assert!(talk.due(false).is_none() && talk.patience() <= INTERESTED_FOR);
        // Also when it has become whole meanwhile, it gets its slot back.
        talk.turned_at = Instant::now() - INTERESTED_FOR;
        assert_eq!(talk.due(true).unwrap()[..], [0, 0, 0, 1, 3]);
        talk.turned_at = Instant::now() - INTERESTED_EVERY;
        assert_eq!(talk.due(true), None, "a seed has no more HAVEs to give");
        assert!(talk.patience() > INTERESTED_FOR);
    }

    #[test]
    fn who_hangs_up_after_ten_seconds_of_silence_hears_us_before() {
        let mut talk = silent_talk();
        assert!(talk.patience() <= ALIVE_EVERY);
        talk.written_at = Instant::now() - Duration::from_secs(6);
        assert!(talk.patience() <= Duration::from_secs(2));
        talk.written_at = Instant::now() - KEEP_ALIVE_EVERY;
        assert_eq!(talk.due(false).unwrap()[..], [0; 4]);
        assert!(KEEP_ALIVE_EVERY + SHORTLY < Duration::from_secs(10));
    }

    #[test]
    fn transmission_is_nudged_until_it_holds_everything_and_told_that_there_is_no_metadata() {
        let mut talk = Conversation {
            bitfield: ObservedBitfield::new(8),
            seen: Vec::new(),
            is_transmission: true,
            nudged_at: Instant::now() - NUDGE_EVERY,
            ..silent_talk()
        };
        assert_eq!((talk.due(false), talk.patience()), (None, ALIVE_EVERY));
        assert_eq!(talk.answer(0, b"d1:md11:ut_metadatai3eee"), None);
        assert_eq!(talk.due(true), None);
        assert!(talk.patience() > NUDGE_EVERY / 2, "a seed is not looked at all the time");
        talk.nudged_at = Instant::now() - NUDGE_EVERY;
        let nudge = talk.due(false).unwrap();
        assert_eq!(nudge[..6], [0, 0, 0, 28, 20, 3]);
        assert!(talk.due(false).is_none() && talk.patience() <= NUDGE_EVERY);
        let refused = talk.answer(METADATA_ID, b"d8:msg_typei0e5:piecei7ee").unwrap();
        assert!(refused.ends_with(b"d8:msg_typei2e5:piecei7ee"));
        assert_eq!(talk.answer(METADATA_ID, b"d8:msg_typei2e5:piecei-1ee"), None);
    }
}
