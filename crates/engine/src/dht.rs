//! The DHT: a node on the port of the listening sockets, and when it looks for peers of which torrent.
//!
//! Every public torrent that accepts peers is announced every 15 to 30 minutes, and more often while it knows nobody.
//! Private torrents are never named (BEP 27).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tracing::{debug, warn};

use piecework_core::{InfoHash, Moment, Rng};
use piecework_dht::{
    AnnounceAs, Dht, DhtAction, DhtConfig, DhtFigures, Family, LookupId, LookupReport,
};
use piecework_swarm::PeerSource;

use super::DhtOptions;
use super::entry::{Call, Entry};
use super::means::Means;
use super::metadata_inputs::FetchInput;
use super::torrents::TorrentMap;
use crate::net;

/// The node of a session.
pub(super) struct DhtDriver {
    means: Arc<Means>,
    torrents: Arc<TorrentMap>,
    bootstrap: Vec<String>,
    /// For IPv4 and IPv6.
    sockets: [Option<UdpSocket>; 2],
    /// The TCP port that is announced.
    port: u16,
    state: Mutex<DhtState>,
    /// Something was changed from outside.
    changed: Notify,
    /// A torrent was added. Not under the lock: whoever adds one has that of the torrents.
    is_scan_due: AtomicBool,
}

struct DhtState {
    dht: Dht,
    rng: Rng,
    torrents: HashMap<InfoHash, TorrentLookups, FixedState>,
    /// Torrents of which only the info-hash is known, and who waits for their peers.
    fetches: Vec<FetchLookups>,
    running: HashMap<LookupId, InfoHash, FixedState>,
    next_scan: Moment,
    /// No look-up is due before. Kept, so that a packet costs the same whatever the number of torrents.
    next_lookup: Moment,
}

/// When a torrent is looked up.
#[derive(Clone, Copy)]
struct TorrentLookups {
    due: Moment,
    /// The number of times in a row that nobody was found or told.
    failures: u8,
}

struct FetchLookups {
    info_hash: InfoHash,
    to: mpsc::Sender<FetchInput>,
    due: Moment,
}

/// What a turn wants of the driver.
struct Turn {
    packets: Vec<(SocketAddr, Vec<u8>)>,
    next: Moment,
}

impl DhtDriver {
    /// Opens a UDP socket beside each listening socket. Returns `None` if there is none.
    pub(crate) fn new(
        means: &Arc<Means>,
        torrents: &Arc<TorrentMap>,
        options: DhtOptions,
        listening: &[SocketAddr],
        secret: [u8; 32],
    ) -> Option<Arc<Self>> {
        let mut sockets = [None, None];
        let mut port = None;
        for addr in listening {
            let place = &mut sockets[usize::from(addr.is_ipv6())];
            if place.is_some() {
                continue;
            }
            match net::udp(*addr, means.config.interface.as_deref()) {
                Ok(socket) => {
                    *place = Some(socket);
                    port = port.or(Some(addr.port()));
                }
                Err(error) => warn!("the DHT does not use `{addr}` over UDP: {error}"),
            }
        }
        let port = port?;
        let mut config = DhtConfig::default();
        (config.v4, config.v6) = (sockets[0].is_some(), sockets[1].is_some());
        config.network = options.network.map(String::into_bytes);
        let now = means.now();
        let mut dht = Dht::new(config, secret, means.rng(), now);
        if options.table.is_some_and(|table| !dht.restore(&table)) {
            warn!("the kept table of the DHT is not readable; beginning without it");
        }
        let state = DhtState {
            dht,
            rng: means.rng(),
            torrents: HashMap::with_hasher(FixedState::default()),
            fetches: Vec::new(),
            running: HashMap::with_hasher(FixedState::default()),
            next_scan: now,
            next_lookup: now,
        };
        Some(Arc::new(Self {
            means: Arc::clone(means),
            torrents: Arc::clone(torrents),
            bootstrap: options.bootstrap,
            sockets,
            port,
            state: Mutex::new(state),
            changed: Notify::new(),
            is_scan_due: AtomicBool::new(false),
        }))
    }

    pub(crate) fn figures(&self) -> DhtFigures {
        self.state.lock().dht.figures()
    }

    /// Returns the known nodes, for the next session.
    pub(crate) fn table(&self) -> Vec<u8> {
        self.state.lock().dht.save()
    }

    /// Looks at the torrents soon: one was added.
    pub(crate) fn torrents_changed(&self) {
        self.is_scan_due.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Looks for peers of a torrent whose metadata is fetched, until `to` is closed.
    pub(crate) fn find_for_fetch(&self, info_hash: InfoHash, to: mpsc::Sender<FetchInput>) {
        let due = self.means.now();
        let mut state = self.state.lock();
        state.fetches.push(FetchLookups { info_hash, to, due });
        state.next_lookup = due;
        drop(state);
        self.changed.notify_one();
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::join!(self.pump(), self.begin_at_nodes());
    }

    async fn pump(&self) {
        let mut buffers = [vec![0; BUFFER], vec![0; BUFFER]];
        loop {
            let Turn { packets, next } = self.turn();
            for (to, bytes) in packets {
                let Some(socket) = &self.sockets[usize::from(to.is_ipv6())] else { continue };
                // A packet that cannot be sent is lost like any other.
                if let Err(error) = socket.send_to(&bytes, to).await {
                    debug!(%to, %error, "a packet of the DHT was not sent");
                }
            }
            let [v4, v6] = &mut buffers;
            let at = self.means.clock.instant(next);
            tokio::select! {
                received = receive(self.sockets[0].as_ref(), v4) => self.take(received, v4, 0),
                received = receive(self.sockets[1].as_ref(), v6) => self.take(received, v6, 1),
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            }
        }
    }

    /// Takes in a packet, and others that have come too.
    fn take(&self, first: (usize, SocketAddr), buffer: &mut [u8], socket: usize) {
        let mut state = self.state.lock();
        let now = self.means.now();
        let mut received = Some(first);
        for _ in 0..PACKETS_AT_ONCE {
            let Some((len, from)) = received else { return };
            if !self.means.connections.is_blocked(from.ip()) {
                state.dht.handle_packet(now, from, &buffer[..len]);
            }
            let socket = self.sockets[socket].as_ref();
            received = socket.and_then(|socket| socket.try_recv_from(buffer).ok());
        }
    }

    /// Gives the node addresses to begin at as long as it knows few nodes.
    async fn begin_at_nodes(&self) {
        let mut pause = BOOTSTRAP_PAUSE;
        loop {
            let families: Vec<Family> = {
                let dht = &self.state.lock().dht;
                dht.families().filter(|family| dht.needs_nodes(*family)).collect()
            };
            if families.is_empty() {
                pause = BOOTSTRAP_PAUSE;
            } else {
                for name in &self.bootstrap {
                    match tokio::net::lookup_host(name.as_str()).await {
                        Ok(addrs) => {
                            let mut state = self.state.lock();
                            for addr in addrs.filter(|addr| families.contains(&Family::of(*addr))) {
                                state.dht.add_node(addr);
                            }
                        }
                        Err(error) => debug!(name, %error, "a node of the DHT was not found"),
                    }
                }
                self.changed.notify_one();
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BOOTSTRAP_PAUSE_MOST);
        }
    }

    /// Does everything that is due.
    fn turn(&self) -> Turn {
        let mut state = self.state.lock();
        let now = self.means.now();
        let is_scan_due = self.is_scan_due.swap(false, Ordering::AcqRel);
        if is_scan_due || now >= state.next_scan {
            state.next_scan = now + SCAN_EVERY;
            self.scan(now, &mut state);
        }
        if now >= state.next_lookup {
            self.begin_due(now, &mut state);
        }
        state.dht.handle_timeout(now);
        let mut packets = Vec::new();
        while let Some(action) = state.dht.poll() {
            match action {
                DhtAction::Send { to, bytes } => packets.push((to, bytes)),
                DhtAction::Peers { lookup, peers } => self.found(&state, lookup, peers),
                DhtAction::Ended { lookup, report } => {
                    self.ended(now, &mut state, lookup, &report);
                }
            }
        }
        let next = state.dht.deadline().min(state.next_scan).min(state.next_lookup);
        Turn { packets, next: next.max(now) }
    }

    /// Compares the torrents of the session with those that are looked up.
    fn scan(&self, now: Moment, state: &mut DhtState) {
        let mut wanted = Vec::new();
        for entry in self.torrents.all() {
            if !entry.metainfo.info().is_private() && entry.admits() {
                wanted.push(entry.info_hash());
            }
        }
        let is_wanted: hashbrown::HashSet<InfoHash, FixedState> = wanted.iter().copied().collect();
        state.torrents.retain(|info_hash, _| is_wanted.contains(info_hash));
        let new: Vec<InfoHash> =
            wanted.into_iter().filter(|it| !state.torrents.contains_key(it)).collect();
        // Many that come together are spread.
        let spread = SPREAD * u32::try_from(new.len()).unwrap_or(u32::MAX);
        if !new.is_empty() {
            state.next_lookup = now;
        }
        for (n, info_hash) in new.into_iter().enumerate() {
            let wait = if n < AT_ONCE { Duration::ZERO } else { state.wait(spread.min(LONGEST)) };
            state.torrents.insert(info_hash, TorrentLookups { due: now + wait, failures: 0 });
        }
    }

    /// Begins look-ups that are due, and determines when the next one is.
    fn begin_due(&self, now: Moment, state: &mut DhtState) {
        state.fetches.retain(|fetch| !fetch.to.is_closed());
        let mut due: Vec<InfoHash> = Vec::new();
        for fetch in state.fetches.iter_mut().filter(|fetch| fetch.due <= now) {
            fetch.due = now + FETCH_EVERY;
            due.push(fetch.info_hash);
        }
        let room = AT_ONCE.saturating_sub(state.running.len());
        let late = state.torrents.iter().filter(|(_, lookups)| lookups.due <= now);
        due.extend(late.map(|(info_hash, _)| *info_hash).take(room));
        for info_hash in due {
            let is_seed = self.torrents.get(info_hash).is_some_and(|it| !it.is_downloading());
            let announce = AnnounceAs { port: self.port, implied_port: false, is_seed };
            let families: Vec<Family> = state.dht.families().collect();
            for family in families {
                let begun = state.dht.find_peers(now, family, info_hash, Some(announce));
                state.running.extend(begun.map(|lookup| (lookup, info_hash)));
            }
            // Until its end is known.
            let due = now + state.wait(LONGEST / 2) + LONGEST / 2;
            if let Some(lookups) = state.torrents.get_mut(&info_hash) {
                lookups.due = due;
            }
        }
        let fetches = state.fetches.iter().map(|fetch| fetch.due);
        // When there is no room, the end of a look-up is awaited.
        let has_room = state.running.len() < AT_ONCE;
        let torrents = state.torrents.values().map(|lookups| lookups.due).filter(|_| has_room);
        state.next_lookup = fetches.chain(torrents).min().unwrap_or(state.next_scan);
    }

    fn found(&self, state: &DhtState, lookup: LookupId, peers: Vec<SocketAddr>) {
        let Some(info_hash) = state.running.get(&lookup) else { return };
        for fetch in state.fetches.iter().filter(|fetch| fetch.info_hash == *info_hash) {
            // A fetch that has too much to do needs no more peers.
            let _ = fetch.to.try_send(FetchInput::Found(PeerSource::Dht, peers.clone()));
        }
        if let Some(entry) = self.torrents.get(*info_hash) {
            hand_over(&entry, peers);
        }
    }

    fn ended(&self, now: Moment, state: &mut DhtState, lookup: LookupId, report: &LookupReport) {
        let Some(info_hash) = state.running.remove(&lookup) else { return };
        // There is room for another one.
        state.next_lookup = now;
        debug!(%info_hash, ?report, "looked for peers in the DHT");
        let is_alone = report.peers == 0
            && self.torrents.get(info_hash).is_some_and(|entry| entry.is_downloading());
        let failed = report.announced_to == 0 || is_alone;
        for fetch in state.fetches.iter().filter(|fetch| fetch.info_hash == info_hash) {
            let _ = fetch.to.try_send(FetchInput::LookedUp);
        }
        let usual = LONGEST / 2 + state.wait(LONGEST / 2);
        let Some(lookups) = state.torrents.get_mut(&info_hash) else { return };
        lookups.failures = if failed { lookups.failures.saturating_add(1) } else { 0 };
        let again = RETRY * (1 << lookups.failures.saturating_sub(1).min(6));
        lookups.due = now + if failed { again.min(usual) } else { usual };
    }
}

impl DhtState {
    /// Returns a random time.
    fn wait(&mut self, most: Duration) -> Duration {
        let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.rng.below(millis))
    }
}

/// Gives a torrent the peers that were found.
fn hand_over(entry: &Arc<Entry>, peers: Vec<SocketAddr>) {
    // A seed that sleeps is found by those who need it.
    let is_idle =
        entry.asleep(|record| !record.is_active(&entry.metainfo, &entry.options.lock().files));
    if !is_idle.unwrap_or(false) {
        // Does not wait: a torrent whose channel is full needs no more peers.
        entry.try_post(Call::Found(PeerSource::Dht, peers));
    }
}

/// Waits for a packet; for ever if there is no socket.
async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> (usize, SocketAddr) {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        match socket.recv_from(buffer).await {
            Ok(received) => return received,
            Err(error) => {
                debug!(%error, "the socket of the DHT failed");
                tokio::time::sleep(SOCKET_PAUSE).await;
            }
        }
    }
}

/// Longer packets are cut off, and so not read.
const BUFFER: usize = 2_048;

/// Packets that are taken in before others may have the lock.
const PACKETS_AT_ONCE: usize = 64;

/// A socket that fails may fail again at once.
const SOCKET_PAUSE: Duration = Duration::from_millis(100);

/// Look-ups of torrents at a time, of both families.
const AT_ONCE: usize = 32;

/// Announces are repeated after half of this time to all of it. Nodes forget them after 45 minutes.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// The time over which torrents that come together are spread, for each.
const SPREAD: Duration = Duration::from_millis(180);

/// The first pause after a look-up that found nobody, or told nobody. It doubles.
const RETRY: Duration = Duration::from_secs(15);

/// Whoever has no metadata waits for peers alone.
const FETCH_EVERY: Duration = Duration::from_secs(20);

/// Torrents that were paused, resumed or removed are noticed after this time; new ones at once.
const SCAN_EVERY: Duration = Duration::from_secs(10);

const BOOTSTRAP_PAUSE: Duration = Duration::from_secs(5);
const BOOTSTRAP_PAUSE_MOST: Duration = Duration::from_secs(5 * 60);
