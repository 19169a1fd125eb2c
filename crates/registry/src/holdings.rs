//! What peers say they hold, by report or to who observes them, and who listens to that.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::guesses::{Guesses, is_guessable};
use super::ledger::{Facts, Held, HoldingsSource, Ledger};
use super::peers::{Standing, tick_of};
use super::select::Place;
use super::view::facts_view;
use super::watch::GoneWhy;
use super::watch::{Grown, PULSE_EVERY, Pulse, SwarmChanges, Watch};
use super::{Refusal, Registry, Reporter, VisitEnd};
use piecework_core::{AnnounceKey, Bitfield, InfoHash, Moment, PeerId, PieceIndex};

/// What a peer showed to who is connected to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// It holds everything.
    Everything,
    /// It holds these, and nothing else.
    Only(Bitfield),
    /// It holds these, whatever it holds besides.
    Also(Bitfield),
    /// It holds this one too.
    Piece(PieceIndex),
}

/// News for who observes: a peer of a catalogued torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sighting {
    /// It announced.
    Here {
        /// The torrent.
        info_hash: InfoHash,
        /// Where it takes connections, by its word.
        addr: SocketAddr,
        /// Who it says it is.
        peer_id: PeerId,
        /// It says that nothing is left to get.
        complete: bool,
        /// It reports its holdings itself.
        reports: bool,
        /// It got bytes by its own word, and what it showed has not changed: it is to be looked at anew.
        stale: bool,
        /// It announced before a restart, and nothing was heard of it since; whether it was connected
        /// to then.
        restored: Option<bool>,
    },
    /// It left the list.
    Left {
        /// The torrent.
        info_hash: InfoHash,
        /// Where it was.
        addr: SocketAddr,
    },
}

impl Registry {
    /// Notes which pieces a peer says it holds.
    ///
    /// # Errors
    /// If the torrent is not catalogued, the peer has not announced, the key is another than the
    /// one announced, or the bytes are no bitfield of the torrent. A peer is known by address and
    /// port; one that announced over another address than it reports from, by its key. Where too many
    /// wrong keys came from, short ones are refused unseen.
    pub fn report(
        &mut self,
        now: Moment,
        info_hash: InfoHash,
        reporter: Reporter,
        bitfield: &[u8],
    ) -> Result<(), Refusal> {
        let slot = self.find(info_hash).ok_or(Refusal::NotCatalogued)?;
        let ledger = self.torrents[slot].ledger.as_mut().ok_or(Refusal::NotCatalogued)?;
        let from = SocketAddr::new(reporter.ip.to_canonical(), reporter.port);
        // One that was only taken in has said no key yet.
        let addr = match ledger.get(from).filter(|facts| facts.peer_id.is_some()) {
            Some(facts) => {
                if let Some(known) = facts.key {
                    let told = reporter.key.ok_or(Refusal::WrongKey)?;
                    if !self.guesses.admits(now, from.ip(), known, told) {
                        let too_many = self.guesses.are_too_many(now, from.ip());
                        return Err(match too_many && is_guessable(known, told) {
                            true => Refusal::TooManyKeys,
                            false => Refusal::WrongKey,
                        });
                    }
                }
                from
            }
            None => {
                let told = reporter.key.ok_or(Refusal::UnknownPeer(from))?;
                find_by_key(ledger, &mut self.guesses, now, from, told)
                    .ok_or(Refusal::UnknownPeer(from))?
            }
        };
        if let Some(key) = reporter.key {
            ledger.showed_key(now, addr, key);
        }
        let held = Held::of(Bitfield::from_wire(bitfield, ledger.pieces)?);
        let reported = Some(HoldingsSource::Reported);
        let is_new = ledger.get(addr).is_some_and(|facts| facts.source != reported);
        self.tell(now, slot, addr, held, HoldingsSource::Reported)?;
        let torrent = &mut self.torrents[slot];
        if let Some(place) = torrent.find(addr.ip(), addr.port(), &self.hasher)
            && let Some(standing) = match torrent.standing(place) {
                Standing::Unchecked => Some(Standing::Seen),
                Standing::Lost => Some(Standing::Refused),
                Standing::Seen | Standing::Refused => None,
            }
        {
            torrent.set_standing(place, standing, &self.hasher);
        }
        if is_new {
            // Who observes need not read from it what it tells by itself.
            self.sight_announced(slot, addr, None);
        }
        Ok(())
    }

    /// A connection to a peer is there.
    ///
    /// # Errors
    /// How the visit ends at once: [`VisitEnd::Unlisted`] if the peer is no longer on the list,
    /// [`VisitEnd::Elsewhere`] if there is a connection to its other address.
    pub fn observing(
        &mut self,
        now: Moment,
        info_hash: InfoHash,
        addr: SocketAddr,
        peer_id: PeerId,
    ) -> Result<(), VisitEnd> {
        let facts = self.facts_mut(info_hash, addr).ok_or(VisitEnd::Unlisted)?;
        if facts.is_observed_elsewhere(addr) {
            return Err(VisitEnd::Elsewhere);
        }
        facts.observed = Some((addr, peer_id));
        facts.heard = facts.heard.max(now);
        self.set_closes(info_hash, addr, false);
        Ok(())
    }

    /// Notes whether a peer takes connections, for the choice of whom others get to know.
    pub fn checked(&mut self, info_hash: InfoHash, addr: SocketAddr, reachable: bool) {
        let Some(slot) = self.find(info_hash) else { return };
        let torrent = &mut self.torrents[slot];
        let Some(place) = torrent.find(addr.ip(), addr.port(), &self.hasher) else { return };
        let standing = if reachable { Standing::Seen } else { Standing::Lost };
        torrent.set_standing(place, standing, &self.hasher);
    }

    /// The connection to a peer is gone.
    pub fn observed_last(&mut self, info_hash: InfoHash, addr: SocketAddr) {
        if let Some(facts) = self.facts_mut(info_hash, addr) {
            facts.observed = facts.observed.filter(|(at, _)| *at != addr);
        }
    }

    /// A visit to a peer is over, and with it the connection if there was one. Keeps whether the peer
    /// closes connections at the handshake, plain and encrypted.
    pub fn visit_ended(&mut self, info_hash: InfoHash, addr: SocketAddr, end: VisitEnd) {
        self.observed_last(info_hash, addr);
        match end {
            VisitEnd::HungUp => self.set_closes(info_hash, addr, true),
            VisitEnd::Refused | VisitEnd::Unanswered | VisitEnd::Declined => {
                self.set_closes(info_hash, addr, false);
            }
            // Nothing was learnt of that, or it was noted when the connection began.
            VisitEnd::Closed
            | VisitEnd::Probed
            | VisitEnd::Elsewhere
            | VisitEnd::Ours
            | VisitEnd::NoRoom
            | VisitEnd::Unlisted => {}
        }
    }

    fn set_closes(&mut self, info_hash: InfoHash, addr: SocketAddr, closes: bool) {
        let Some(slot) = self.find(info_hash) else { return };
        let Some(ledger) = &mut self.torrents[slot].ledger else { return };
        let Some(facts) = ledger.get_mut(addr).filter(|facts| facts.closes != closes) else {
            return;
        };
        facts.closes = closes;
        if let Some(watch) = &mut ledger.watch {
            watch.row(addr);
        }
    }

    /// Notes what a peer showed over the connection to it, in order. What it reports itself goes
    /// above that: it is as fresh, and whole.
    ///
    /// # Errors
    /// If it is no longer on the list, or there is no room for its bitfield.
    pub fn observed(
        &mut self,
        now: Moment,
        info_hash: InfoHash,
        addr: SocketAddr,
        seen: Vec<Seen>,
    ) -> Result<(), Refusal> {
        let slot = self.find(info_hash).ok_or(Refusal::NotCatalogued)?;
        for seen in seen {
            let ledger = self.torrents[slot].ledger.as_mut().ok_or(Refusal::NotCatalogued)?;
            let pieces = ledger.pieces;
            let facts = ledger.get_mut(addr).ok_or(Refusal::UnknownPeer(addr))?;
            facts.heard = facts.heard.max(now);
            if facts.source == Some(HoldingsSource::Reported) {
                continue;
            }
            let held = match (seen, &facts.held) {
                (Seen::Everything, _) => Held::Everything,
                (Seen::Only(bits), _) => Held::of(bits),
                // There is nothing that this could add, whoever says that it has everything.
                (Seen::Also(_) | Seen::Piece(_), Held::Everything) => continue,
                (Seen::Also(bits), Held::Pieces(held)) => {
                    let mut all = held.clone();
                    bits.iter().for_each(|piece| _ = all.insert(piece));
                    Held::of(all)
                }
                (Seen::Piece(piece), Held::Pieces(_)) => {
                    let before = ledger.held_bytes();
                    self.revision += 1;
                    ledger.got(now, addr, piece);
                    self.held_bytes = self.held_bytes - before + ledger.held_bytes();
                    continue;
                }
                (Seen::Piece(piece), _) => {
                    let mut bits = Bitfield::empty(pieces);
                    bits.insert(piece);
                    Held::of(bits)
                }
                (Seen::Also(bits), _) => Held::of(bits),
            };
            self.tell(now, slot, addr, held, HoldingsSource::Observed)?;
        }
        Ok(())
    }

    /// A peer was seen to be alive: it does not expire for now, even if its announce is late, but
    /// not for ever. Says whether it is on the list.
    pub fn alive(&mut self, now: Moment, info_hash: InfoHash, addr: SocketAddr) -> bool {
        let most = self.config.expire_after.saturating_mul(KEPT_ALIVE);
        let Some(slot) = self.find(info_hash) else { return false };
        let torrent = &mut self.torrents[slot];
        let Some(place) = torrent.find(addr.ip(), addr.port(), &self.hasher) else { return false };
        let Some(facts) = torrent.ledger.as_mut().and_then(|ledger| ledger.get_mut(addr)) else {
            return false;
        };
        facts.heard = facts.heard.max(now);
        if now.since(facts.announced) > most {
            return true;
        }
        let tick = tick_of(now);
        match place {
            Place::V4(at) => {
                let peer = torrent.v4.get_mut(at as usize);
                peer.seen = peer.seen.max(tick);
            }
            Place::V6(at) => {
                let peer = torrent.v6.get_mut(at as usize);
                peer.seen = peer.seen.max(tick);
            }
        }
        true
    }

    /// Whether a peer of a catalogued torrent is on the list.
    pub fn is_listed(&self, info_hash: InfoHash, addr: SocketAddr) -> bool {
        self.catalogued(info_hash).is_some_and(|(_, ledger)| ledger.get(addr).is_some())
    }

    /// Whether a peer is known to hold everything.
    pub fn holds_everything(&self, info_hash: InfoHash, addr: SocketAddr) -> bool {
        let ledger = self.catalogued(info_hash).map(|(_, ledger)| ledger);
        ledger.and_then(|ledger| ledger.get(addr)).is_some_and(|f| f.held == Held::Everything)
    }

    /// A peer that was observed refuses connections: it is taken off the list. Says whether it was
    /// on it.
    pub fn unreachable(&mut self, info_hash: InfoHash, addr: SocketAddr) -> bool {
        let Some(slot) = self.find(info_hash) else { return false };
        let place = self.torrents[slot].find(addr.ip(), addr.port(), &self.hasher);
        if let Some(place) = place {
            self.remove(slot, place, GoneWhy::Unreachable);
            self.drop_if_idle(slot);
            self.unreachable += 1;
        }
        place.is_some()
    }

    /// Whether a peer may be connected to from our address `from` without being in the way: many
    /// clients take one connection from an address, so that we would keep away the other peers of
    /// the torrent that are there.
    ///
    /// # Errors
    /// How the visit ends at once: [`VisitEnd::Unlisted`] if nobody is to be observed there, which
    /// does not change by waiting, [`VisitEnd::Elsewhere`] if we are connected to its other address, and
    /// [`VisitEnd::NoRoom`] if we would be in the way for now.
    pub fn may_observe(
        &self,
        info_hash: InfoHash,
        addr: SocketAddr,
        from: IpAddr,
    ) -> Result<(), VisitEnd> {
        let slot = self.find(info_hash).ok_or(VisitEnd::Unlisted)?;
        let torrent = &self.torrents[slot];
        let ledger = torrent.ledger.as_ref().filter(|ledger| ledger.observe);
        let facts = ledger.and_then(|ledger| ledger.get(addr)).ok_or(VisitEnd::Unlisted)?;
        if facts.is_observed_elsewhere(addr) {
            return Err(VisitEnd::Elsewhere);
        }
        if facts.peer_id.is_some_and(takes_several) {
            return Ok(());
        }
        let from = from.to_canonical();
        // At its own address a peer is not another.
        let port = (addr.ip() == from).then_some(addr.port());
        let in_way = match from {
            IpAddr::V4(ip) => torrent.v4.has_at(ip.octets(), port, &self.hasher),
            IpAddr::V6(ip) => torrent.v6.has_at(ip.octets(), port, &self.hasher),
        };
        if in_way { Err(VisitEnd::NoRoom) } else { Ok(()) }
    }

    /// Whether the torrent's peers may be connected to.
    pub fn set_observe(&mut self, info_hash: InfoHash, observe: bool) {
        let Some(slot) = self.find(info_hash) else { return };
        if let Some(ledger) = &mut self.torrents[slot].ledger {
            ledger.observe = observe;
        }
    }

    /// Whether the torrent's peers may be connected to; `false` if it is not catalogued.
    pub fn is_observed(&self, info_hash: InfoHash) -> bool {
        self.catalogued(info_hash).is_some_and(|(_, ledger)| ledger.observe)
    }

    /// Moves the sightings since the last call to `out`. There are some only if the configuration
    /// asks for them, and no more than a bounded number between two calls.
    pub fn take_sightings(&mut self, out: &mut Vec<Sighting>) {
        out.append(&mut self.sightings);
    }

    /// From now on the changes of a catalogued torrent are kept for [`Registry::take_swarm_changes`].
    /// Says whether it is catalogued.
    pub fn watch(&mut self, now: Moment, info_hash: InfoHash) -> bool {
        let Some(slot) = self.find(info_hash) else { return false };
        let Some(ledger) = &mut self.torrents[slot].ledger else { return false };
        ledger.watch.get_or_insert_with(|| Box::new(Watch::new(now)));
        true
    }

    /// No longer.
    pub fn unwatch(&mut self, info_hash: InfoHash) {
        let Some(slot) = self.find(info_hash) else { return };
        if let Some(ledger) = &mut self.torrents[slot].ledger {
            ledger.watch = None;
        }
    }

    /// What has changed since the last call; `None` if the torrent is not watched. Takes time for
    /// what has changed, and every few seconds for each peer.
    pub fn take_swarm_changes(&mut self, now: Moment, info_hash: InfoHash) -> Option<SwarmChanges> {
        let slot = self.find(info_hash)?;
        let torrent = &mut self.torrents[slot];
        let mut watch = torrent.ledger.as_mut()?.watch.take()?;
        let torrent = &self.torrents[slot];
        let ledger = torrent.ledger.as_ref()?;
        let (complete, incomplete) = torrent.counts();
        let mut changes = SwarmChanges {
            all: watch.all,
            gone: std::mem::take(&mut watch.gone),
            complete,
            incomplete,
            downloads: torrent.downloads,
            copies: ledger.copies(),
            ..SwarmChanges::default()
        };
        // Rows bring whole bitfields: of many, the whole torrent is the better form.
        let row_bytes = watch.rows.len() * (ledger.pieces as usize).div_ceil(8);
        if row_bytes > MAX_ROW_BYTES && watch.rows.len() > 1 {
            changes = SwarmChanges { all: true, gone: Vec::new(), ..changes };
        }
        if !changes.all {
            let rows =
                watch.rows.iter().filter_map(|addr| facts_view(torrent, *addr, &self.hasher, now));
            changes.peers = rows.collect();
            let grown = watch.grown.iter_mut().filter(|(addr, _)| !watch.rows.contains(addr));
            for (addr, pieces) in grown {
                let Some(facts) = ledger.get(*addr) else { continue };
                pieces.sort_unstable();
                changes.grown.push(Grown {
                    id: facts.id,
                    pieces: std::mem::take(pieces),
                    held: facts.held.count(ledger.pieces).unwrap_or(0),
                    source: facts.source,
                    sure: facts.is_sure(),
                    pulse: pulse(facts, ledger.pieces, now),
                });
            }
        }
        if now.since(watch.pulse_at) >= PULSE_EVERY {
            let mut moving = BTreeSet::new();
            for (_, facts) in ledger.iter() {
                let pulse = pulse(facts, ledger.pieces, now);
                let moves = pulse.rate.is_some_and(|rate| rate > 0.0);
                if moves {
                    moving.insert(facts.id);
                }
                if moves || watch.moving.contains(&facts.id) || facts.heard > watch.pulse_at {
                    changes.pulses.push(pulse);
                }
            }
            changes.pulses.sort_unstable_by_key(|pulse| pulse.id);
            (watch.moving, watch.pulse_at) = (moving, now);
        }
        watch.reset();
        if let Some(ledger) = &mut self.torrents[slot].ledger {
            ledger.watch = Some(watch);
        }
        Some(changes)
    }

    /// From now on, or no longer, it is kept which catalogued torrents' counts change.
    pub fn watch_counts(&mut self, on: bool) {
        self.touched = on.then(|| self.touched.take().unwrap_or_default());
    }

    /// The catalogued torrents whose counts have changed since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<InfoHash> {
        self.touched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Puts what a peer holds by its own word in its place, if there is room.
    fn tell(
        &mut self,
        now: Moment,
        slot: usize,
        addr: SocketAddr,
        held: Held,
        source: HoldingsSource,
    ) -> Result<(), Refusal> {
        let most = self.config.max_held_bytes;
        let ledger = self.torrents[slot].ledger.as_mut().ok_or(Refusal::NotCatalogued)?;
        let more = ledger.bytes_for(addr, &held);
        if more > 0 && self.held_bytes + more > most {
            return Err(Refusal::Full);
        }
        let before = ledger.held_bytes();
        self.revision += 1;
        ledger.told(now, addr, held, source);
        self.held_bytes = self.held_bytes - before + ledger.held_bytes();
        Ok(())
    }

    /// A peer came or left, or became complete.
    pub(super) fn touch_counts(&mut self, slot: usize) {
        if let Some(touched) = &mut self.touched
            && self.torrents[slot].ledger.is_some()
        {
            touched.insert(self.torrents[slot].info_hash);
        }
    }

    /// Tells who observes of a peer, if there is room.
    pub(super) fn sight(&mut self, sighting: Sighting) {
        if self.config.observe && self.sightings.len() < MAX_SIGHTINGS {
            self.sightings.push(sighting);
        }
    }

    /// The same of one that has announced, now or before a restart.
    pub(super) fn sight_announced(
        &mut self,
        slot: usize,
        addr: SocketAddr,
        restored: Option<bool>,
    ) {
        let is_news = |facts: &Facts| {
            facts.observed.is_none() || facts.is_observed_elsewhere(addr) || facts.stale
        };
        self.sight_if(slot, addr, restored, is_news);
    }

    /// The same of one that was perhaps not looked at because of its other address, at which it no longer is.
    pub(super) fn sight_again(&mut self, slot: usize, addr: SocketAddr) {
        let is_news = |facts: &Facts| facts.observed.is_none();
        if let Some(Sighting::Here { stale, .. }) = self.sight_if(slot, addr, None, is_news) {
            *stale = true;
        }
    }

    fn sight_if(
        &mut self,
        slot: usize,
        addr: SocketAddr,
        restored: Option<bool>,
        is_news: impl Fn(&Facts) -> bool,
    ) -> Option<&mut Sighting> {
        if !self.config.observe || self.sightings.len() >= MAX_SIGHTINGS {
            return None;
        }
        let torrent = &self.torrents[slot];
        let ledger = torrent.ledger.as_ref().filter(|ledger| ledger.observe)?;
        let facts = ledger.get(addr).filter(|facts| is_news(facts))?;
        self.sightings.push(Sighting::Here {
            info_hash: torrent.info_hash,
            // What it shows is old: that is seen where we are connected to it.
            addr: facts.observed.filter(|_| facts.stale).map_or(addr, |(at, _)| at),
            peer_id: facts.peer_id?,
            complete: facts.left == Some(0),
            reports: facts.source == Some(HoldingsSource::Reported),
            stale: facts.stale,
            restored,
        });
        self.sightings.last_mut()
    }

    fn facts_mut(&mut self, info_hash: InfoHash, addr: SocketAddr) -> Option<&mut Facts> {
        let slot = self.find(info_hash)?;
        self.torrents[slot].ledger.as_mut()?.get_mut(addr)
    }
}

/// The only peer that announces the port of `from` with `key`, though at another address.
fn find_by_key(
    ledger: &Ledger,
    guesses: &mut Guesses,
    now: Moment,
    from: SocketAddr,
    key: AnnounceKey,
) -> Option<SocketAddr> {
    let too_many = guesses.are_too_many(now, from.ip());
    let (mut found, mut guessed) = (Vec::new(), false);
    for (addr, known) in ledger.keys_at_port(from.port()) {
        let guessable = is_guessable(known, key);
        if too_many && guessable {
            continue;
        }
        guessed |= guessable;
        if known.is_same(key) {
            found.push(addr);
        }
    }
    if found.is_empty() && guessed {
        guesses.add(now, from.ip());
    }
    match found[..] {
        [addr] => Some(addr),
        // None, or some that cannot be told apart.
        _ => None,
    }
}

/// Clients of which we know that they take several connections from one address.
pub fn takes_several(id: PeerId) -> bool {
    id.0.starts_with(b"-PW") || id.0.starts_with(b"A2-")
}

pub(super) fn pulse(facts: &Facts, pieces: u32, now: Moment) -> Pulse {
    let held = facts.held.count(pieces);
    Pulse {
        id: facts.id,
        rate: held.map(|_| facts.growth.per_second(now)),
        eta: held.and_then(|held| facts.growth.time_for(now, pieces - held)),
        silent: now.since(facts.heard),
        held_at: facts.source.map(|_| facts.held_at),
    }
}

/// Times of silence for which a peer may be kept alive without an announce.
const KEPT_ALIVE: u32 = 10;

/// Sightings kept until somebody takes them, ten times a second: what is lost comes again with the
/// peer's next announce.
const MAX_SIGHTINGS: usize = 4_096;

/// Bytes of bitfields in the rows that are told at a time.
const MAX_ROW_BYTES: usize = 256 << 10;
