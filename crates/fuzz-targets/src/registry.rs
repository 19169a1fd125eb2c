//! Sequences of events over a registry and an observer, connected as in the tracker.

use piecework_core::SaturatingFrom;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecework_core::{Bitfield, InfoHash, Moment, PeerId, PieceIndex, Rng};
use piecework_proto::announce::{Announce, AnnounceEvent};
use piecework_registry::{
    HoldingsSource, HoldingsUpdate, KeptHoldings, KeptPeer, KeptRoom, KeptScope, Observer,
    ObserverAction, ObserverConfig, PeerQuery, Registry, RegistryConfig, Reporter, VisitEnd,
    VisitKey,
};

use crate::input::Input;

pub(crate) fn events(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut tracker = Tracker::new(&mut input);
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        tracker.step(&mut input);
        tracker.observe();
        tracker.registry.check();
        tracker.observer.check();
    }
    tracker.ask_everything();
    tracker.restart();
    tracker.fall_silent();
}

struct Tracker {
    registry: Registry,
    observer: Observer,
    visits: Vec<(VisitKey, InfoHash, SocketAddr)>,
    now: Moment,
    rng: Rng,
}

impl Tracker {
    fn new(input: &mut Input<'_>) -> Self {
        let config = RegistryConfig {
            open: input.below(4) > 0,
            max_peers_per_ip: 4,
            max_torrents: 4,
            max_torrents_per_ip: 2,
            max_peers: 20,
            max_held_bytes: 600,
            observe: true,
            ..RegistryConfig::default()
        };
        let observing = ObserverConfig {
            max_connections: 6,
            max_per_torrent: 4,
            pause: Duration::from_secs(1),
        };
        let mut rng = Rng::from_seed(u64::from(input.byte()));
        Self {
            registry: Registry::new(config, 3),
            observer: Observer::new(observing, rng.fork()),
            visits: Vec::new(),
            now: Moment::START + Duration::from_secs(10_000),
            rng,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0..=3 => self.announce(input),
            4 => self.now = self.now + Duration::from_millis(1 << input.below(20)),
            5 => {
                let budget = input.below(40) as usize;
                assert!(self.registry.expire(self.now, budget).looked <= budget);
            }
            6 => self.catalogue(input),
            7 => self.report(input),
            8 => self.visit(input),
            9 => self.show(input),
            10 => self.watch(input),
            _ => self.restore(input),
        }
    }

    fn announce(&mut self, input: &mut Input<'_>) {
        let port = u16::from(input.byte()) % 8;
        let id = PeerId([input.byte() % 8; 20]);
        let left = [0, 1, 100_000, Announce::LEFT_UNKNOWN][input.below(4) as usize];
        let mut announce = Announce::new(any_hash(input), id, port, left);
        announce.event = match input.below(5) {
            0 => AnnounceEvent::Started,
            1 => AnnounceEvent::Stopped,
            2 => AnnounceEvent::Completed,
            _ => AnnounceEvent::None,
        };
        announce.downloaded = u64::from(input.byte()) << 16;
        announce.key = any_key(input);
        let want = PeerQuery {
            count: input.below(12) as usize,
            v4: input.below(8) > 0,
            v6: input.below(8) > 0,
            ids: input.flag(),
        };
        let from = any_ip(input);
        let answer = self.registry.announce(self.now, &mut self.rng, from, &announce, want);
        let Ok(answer) = answer else { return };
        assert!(answer.peers.len() <= want.count);
        assert!(!want.ids || answer.ids.len() == answer.peers.len());
        for peer in &answer.peers {
            assert!(if peer.addr.is_ipv4() { want.v4 } else { want.v6 }, "{peer:?}");
            let asker = SocketAddr::new(from.to_canonical(), port);
            assert!(peer.addr != asker, "a peer is given itself");
        }
    }

    fn catalogue(&mut self, input: &mut Input<'_>) {
        let hash = any_hash(input);
        match input.below(4) {
            0 | 1 => self.registry.catalogue(self.now, hash, PIECES, 3),
            2 => {
                self.registry.uncatalogue(hash);
                self.observer.leave(hash);
            }
            _ => {
                let observe = input.flag();
                self.registry.set_observe(hash, observe);
                if !observe {
                    self.observer.leave(hash);
                }
            }
        }
    }

    fn report(&mut self, input: &mut Input<'_>) {
        let (ip, port) = (any_ip(input), u16::from(input.byte()) % 8);
        let reporter = Reporter { ip, port, key: any_key(input) };
        let (hash, len) = (any_hash(input), input.below(4) as usize);
        // A refused report changes nothing, which `check` would see.
        let _ = self.registry.report(self.now, hash, reporter, input.take(len));
    }

    /// Passes an event of a visit of the observer.
    fn visit(&mut self, input: &mut Input<'_>) {
        if self.visits.is_empty() {
            return;
        }
        let at = input.below(u32::saturating_from(self.visits.len())) as usize;
        let (visit, hash, addr) = self.visits[at];
        if input.flag() {
            let local = IpAddr::from([192, 0, 2, 9]);
            self.observer.opened(self.now, visit, local, input.flag());
            let _ = self.registry.observing(self.now, hash, addr, PeerId([input.byte() % 8; 20]));
            return;
        }
        let ends = [
            VisitEnd::Refused,
            VisitEnd::Unanswered,
            VisitEnd::Declined,
            VisitEnd::HungUp,
            VisitEnd::Probed,
            VisitEnd::Elsewhere,
            VisitEnd::Closed,
            VisitEnd::Ours,
            VisitEnd::NoRoom,
            VisitEnd::Unlisted,
        ];
        let end = ends[input.below(u32::saturating_from(ends.len())) as usize];
        self.visits.swap_remove(at);
        self.registry.visit_ended(hash, addr, end);
        self.observer.ended(self.now, visit, end);
    }

    /// Passes what a peer shows to the observer about its pieces.
    fn show(&mut self, input: &mut Input<'_>) {
        let (hash, addr) = (any_hash(input), any_addr(input));
        let seen = (0..input.below(4)).map(|_| {
            let bits = Bitfield::from_wire(&[input.byte(), input.byte() & 0xc0], PIECES);
            let bits = bits.expect("ten bits");
            match input.below(4) {
                0 => HoldingsUpdate::Everything,
                1 => HoldingsUpdate::Only(bits),
                2 => HoldingsUpdate::Also(bits),
                _ => HoldingsUpdate::Piece(PieceIndex(input.below(PIECES))),
            }
        });
        let seen = seen.collect();
        let _ = self.registry.observed(self.now, hash, addr, seen);
        if input.flag() {
            self.observer.heard(self.now);
            self.registry.alive(self.now, hash, addr);
        }
        if input.below(8) == 0 {
            self.registry.observed_last(hash, addr);
        }
    }

    fn watch(&mut self, input: &mut Input<'_>) {
        let hash = any_hash(input);
        match input.below(5) {
            0 => _ = self.registry.watch(self.now, hash),
            1 => self.registry.unwatch(hash),
            2 => self.registry.watch_counts(input.flag()),
            3 => _ = self.registry.take_changed_counts(),
            _ => {
                let Some(changes) = self.registry.take_swarm_changes(self.now, hash) else {
                    return;
                };
                assert!(!changes.all || changes.peers.is_empty() && changes.grown.is_empty());
            }
        }
    }

    fn restore(&mut self, input: &mut Input<'_>) {
        let held = match input.below(3) {
            0 => KeptHoldings::Unknown,
            1 => KeptHoldings::Everything,
            _ => KeptHoldings::Pieces(input.take(2).to_vec()),
        };
        let source = [None, Some(HoldingsSource::Reported), Some(HoldingsSource::Observed)];
        let kept = KeptPeer {
            info_hash: any_hash(input),
            addr: any_addr(input),
            complete: input.flag(),
            silent: Duration::from_secs(u64::from(input.byte())),
            reached: input.flag(),
            peer_id: input.flag().then(|| PeerId([input.byte() % 8; 20])),
            key: any_key(input),
            left: input.flag().then(|| u64::from(input.byte())),
            held,
            source: source[input.below(3) as usize],
            held_for: Duration::from_secs(u64::from(input.number())),
        };
        self.registry.restore_peer(self.now, &mut self.rng, &kept);
    }

    /// Tells the observer which peers there are, and carries out its actions.
    fn observe(&mut self) {
        let mut sightings = Vec::new();
        self.registry.take_observer_events(&mut sightings);
        for sighting in sightings {
            self.observer.handle(self.now, sighting);
        }
        while let Some(action) = self.observer.poll(self.now) {
            match action {
                ObserverAction::Dial { visit, info_hash, addr } => {
                    self.visits.push((visit, info_hash, addr));
                }
                ObserverAction::HangUp { visit, .. } => {
                    self.visits.retain(|(open, _, _)| *open != visit);
                }
                ObserverAction::Checked { info_hash, addr, reachable } => {
                    self.registry.checked(info_hash, addr, reachable);
                }
                ObserverAction::Gone { info_hash, addr } => {
                    self.registry.unreachable(info_hash, addr);
                }
            }
        }
        assert!(self.visits.len() <= 6, "more connections than there may be");
    }

    /// Checks that the answers to all questions agree with each other.
    fn ask_everything(&mut self) {
        let mut peers = 0;
        for torrent in self.registry.torrents() {
            let hash = torrent.info_hash;
            let views = self.registry.peers(self.now, hash);
            peers += views.len();
            let scraped = self.registry.scrape(hash).expect("it is listed");
            assert_eq!(
                (scraped.complete, scraped.incomplete),
                (torrent.complete, torrent.incomplete)
            );
            let Some(swarm) = self.registry.swarm(self.now, hash) else {
                assert!(!torrent.catalogued);
                continue;
            };
            let counts = self.registry.availability(hash);
            for piece in (0..PIECES).map(PieceIndex) {
                let holders = self.registry.holders(hash, piece);
                assert_eq!(u32::saturating_from(holders.len()), counts[piece.0 as usize]);
                assert_eq!(
                    swarm.counts()[piece.0 as usize],
                    u32::saturating_from(swarm.holders(piece).len())
                );
            }
            let all: Vec<SocketAddr> = swarm.peers.iter().map(|peer| peer.addr).collect();
            assert_eq!(swarm.without(&all).lost.count(), PIECES, "nobody is left");
            assert_eq!(swarm.at_risk(u32::MAX).pieces.count(), PIECES);
            all.iter().for_each(|addr| _ = swarm.missing(*addr));
        }
        // A peer that has been silent for too long is counted until it is swept, and not shown.
        assert!(peers <= self.registry.peer_count());
    }

    /// Checks that what is kept can be restored.
    fn restart(&mut self) {
        let mut kept = Vec::new();
        for of in [KeptScope::Catalogue, KeptScope::Others] {
            let mut room = KeptRoom { peers: 100, bytes: 100 };
            let mut from = Some(0);
            while let Some(at) = from {
                from = self.registry.kept_peers(self.now, at, of, &mut room, &mut kept);
            }
        }
        let mut again = Registry::new(self.registry.config().clone(), 4);
        for torrent in self.registry.torrents().iter().filter(|torrent| torrent.catalogued) {
            again.catalogue(self.now, torrent.info_hash, PIECES, torrent.downloads);
        }
        for peer in &kept {
            again.restore_peer(self.now, &mut self.rng, peer);
            again.check();
        }
        for entry in self.registry.load() {
            again.restore_load(&entry);
        }
        again.take_changed();
        again.check();
    }

    /// Checks that no peer is left once all are silent.
    fn fall_silent(&mut self) {
        self.now = self.now + Duration::from_secs(100_000);
        let mut rounds = 0;
        while rounds < 2 {
            rounds += u32::from(self.registry.expire(self.now, 100).round_done);
        }
        assert_eq!(self.registry.peer_count(), 0);
        self.observe();
        self.registry.check();
        self.observer.check();
    }
}

fn any_hash(input: &mut Input<'_>) -> InfoHash {
    InfoHash([input.byte() % 6; 20])
}

fn any_ip(input: &mut Input<'_>) -> IpAddr {
    let host = input.byte() % 8;
    match host % 4 {
        3 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)]),
        2 => IpAddr::from([127, 0, 0, host]),
        _ => IpAddr::from([10, 0, 0, host]),
    }
}

fn any_addr(input: &mut Input<'_>) -> SocketAddr {
    SocketAddr::new(any_ip(input), u16::from(input.byte() % 8))
}

fn any_key(input: &mut Input<'_>) -> Option<piecework_core::AnnounceKey> {
    let key = input.below(5);
    (key > 0).then(|| key.into())
}

const PIECES: u32 = 10;

const MOST_STEPS: usize = 400;
