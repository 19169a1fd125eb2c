//! Views of a swarm's state.

use std::net::SocketAddr;
use std::sync::Arc;

use super::peer::Peer;
use super::{Blame, Direction, PeerIdentity, PeerKey, PeerSource, Swarm};
use piecework_core::{Bitfield, Geometry, PieceIndex};

/// The stage of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PieceStage {
    /// No block of it is here or requested.
    Missing,
    /// Blocks of it are requested or here.
    UnderWay,
    /// All of it is here and is being hashed.
    Verifying,
    /// It is verified and on disk.
    Held,
}

/// A connected peer, as it is now.
#[derive(Debug, Clone, Copy)]
pub struct PeerView<'a> {
    /// The number of its connection.
    pub key: PeerKey,
    /// Who it is.
    pub who: &'a Arc<PeerIdentity>,
    /// Who dialled.
    pub direction: Direction,
    /// Where its address was heard of.
    pub source: PeerSource,
    /// The pieces that it says it holds.
    pub holds: &'a Bitfield,
    /// We do not serve it.
    pub choked: bool,
    /// It does not serve us.
    pub chokes_us: bool,
    /// It is interested in us.
    pub interested: bool,
    /// We are interested in it.
    pub interests_us: bool,
    /// Payload bytes a second from it.
    pub download_rate: u64,
    /// Payload bytes a second to it.
    pub upload_rate: u64,
    /// Payload bytes received from it in total.
    pub downloaded: u64,
    /// Payload bytes sent to it in total.
    pub uploaded: u64,
    /// How many blocks requested from it have not arrived.
    pub blocks_owed: usize,
    /// How many blocks it may owe at a time.
    pub window: usize,
    /// How many blocks it requested that were not sent yet.
    pub uploads_queued: usize,
    /// It has owed us blocks for too long.
    pub snubbed: bool,
}

/// The progress of a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The number of pieces of the torrent.
    pub pieces: u32,
    /// How many pieces are verified and on disk.
    pub pieces_have: u32,
    /// How many bytes these pieces have.
    pub bytes_have: u64,
    /// How many bytes the wanted pieces have, held or not.
    pub bytes_wanted: u64,
    /// How many bytes the wanted and held pieces have.
    pub bytes_wanted_have: u64,
    /// How many pieces are wanted and missing.
    pub pieces_wanted_left: u32,
    /// How many blocks were received of pieces that are not verified yet.
    pub blocks_in_memory: u32,
    /// Payload bytes received since the start.
    pub downloaded: u64,
    /// Payload bytes sent since the start.
    pub uploaded: u64,
    /// Received bytes that were of no use: they came twice, unrequested, or wrong.
    pub wasted: u64,
}

/// What a swarm needs memory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryNeed {
    /// How many pieces are begun and not whole.
    pub coming: usize,
    /// Another piece could be begun if [`Event::MemoryBudget`](super::Event::MemoryBudget) had room.
    pub is_short: bool,
}

impl Swarm {
    /// Returns how many addresses accept connections and close them at our handshake, with every kind of
    /// handshake that is tried.
    pub fn hung_up(&self) -> u32 {
        self.candidates.hung_up()
    }

    /// Returns the pieces that are verified and on disk.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Returns whether all pieces are verified and on disk.
    pub fn is_complete(&self) -> bool {
        self.have.is_full()
    }

    /// Returns whether all wanted pieces are verified and on disk. True for a complete torrent whatever is
    /// wanted, and for one of which nothing is wanted.
    pub fn is_finished(&self) -> bool {
        self.wants.are_met()
    }

    /// Returns whether the swarm is paused by [`Event::Pause`](super::Event::Pause).
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Returns what it needs memory for.
    pub fn memory_need(&self) -> MemoryNeed {
        MemoryNeed { coming: self.picker.coming(), is_short: self.picker.lacks_memory() }
    }

    /// Returns how many blocks keep the lines of all giving peers busy: the rate of each times twice its
    /// round-trip time. Looks at every peer.
    pub fn blocks_in_flight(&self) -> u64 {
        let gives = |peer: &&Peer| peer.serves_us() && !peer.pipeline.is_snubbed();
        self.peers.values().filter(gives).map(|peer| peer.pipeline.window() as u64).sum()
    }

    /// Returns whether nothing is lost if the swarm ends: no peer is connected and no piece is begun.
    pub fn is_at_rest(&self) -> bool {
        self.peers.is_empty() && self.picker.is_at_rest()
    }

    /// Returns whether it knows addresses that a user has named.
    pub fn has_named_peers(&self) -> bool {
        self.candidates.has_named()
    }

    /// Takes what is known against peers, or `None` if nothing is. Pass it to [`Swarm::set_blame`] of the
    /// torrent's next swarm, which must use the same clock.
    pub fn take_blame(&mut self) -> Option<Box<Blame>> {
        let blame = std::mem::take(&mut self.blame);
        (blame != Blame::default()).then(|| Box::new(blame))
    }

    /// Sets what an earlier swarm of the torrent knew against peers. Call this before any event.
    pub fn set_blame(&mut self, blame: Blame) {
        self.blame = blame;
    }

    /// Returns how the torrent is divided into pieces and blocks.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Returns how many peers can be expected to give us something: they hold what we lack, and have not
    /// choked us, or sent nothing, for long. Looks at every peer.
    pub fn useful_peers(&self) -> usize {
        self.peers.values().filter(|peer| peer.is_useful(self.now)).count()
    }

    /// Returns the connected peers in the order of their keys.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        let now = self.now;
        self.peers.iter().map(move |(key, peer)| PeerView {
            key: *key,
            who: &peer.who,
            direction: peer.direction,
            source: peer.source,
            holds: &peer.holds,
            choked: peer.choked,
            chokes_us: peer.chokes_us,
            interested: peer.interested,
            interests_us: peer.interests_us,
            download_rate: peer.down.per_second(now),
            upload_rate: peer.up.per_second(now),
            downloaded: peer.down.total(),
            uploaded: peer.up.total(),
            blocks_owed: peer.pipeline.owed(),
            window: peer.pipeline.window(),
            uploads_queued: peer.uploads.len(),
            snubbed: peer.pipeline.is_snubbed(),
        })
    }

    /// Returns the stage of a piece. A piece that does not exist is missing.
    pub fn stage(&self, piece: PieceIndex) -> PieceStage {
        match self.picker.is_verifying(piece) {
            _ if self.geometry.contains(piece) && self.have.contains(piece) => PieceStage::Held,
            Some(true) => PieceStage::Verifying,
            Some(false) => PieceStage::UnderWay,
            None => PieceStage::Missing,
        }
    }

    /// Returns who a connected peer is.
    pub fn identity(&self, key: PeerKey) -> Option<&Arc<PeerIdentity>> {
        self.peers.get(&key).map(|peer| &peer.who)
    }

    /// Returns the progress of the swarm.
    pub fn progress(&self) -> Progress {
        Progress {
            pieces: self.geometry.pieces(),
            pieces_have: self.have.count(),
            bytes_have: self.totals.verified,
            bytes_wanted: self.wants.bytes,
            bytes_wanted_have: self.wants.bytes_have,
            pieces_wanted_left: self.wants.pieces_left,
            blocks_in_memory: self.picker.blocks_kept(),
            downloaded: self.totals.downloaded,
            uploaded: self.totals.uploaded,
            wasted: self.totals.wasted,
        }
    }

    /// Returns the addresses that may be dialled at some time, or are connected.
    pub fn known_addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.candidates.iter().map(|heard| heard.addr)
    }

    /// Returns how many connected peers hold `piece`. 0 for a piece that does not exist.
    pub fn availability(&self, piece: PieceIndex) -> u32 {
        if self.geometry.contains(piece) { self.picker.availability(piece) } else { 0 }
    }

    /// Returns the number of distributed copies among the connected peers: the rarest piece's availability,
    /// plus the fraction of pieces that are less rare. 0 for a torrent without pieces. Looks at every
    /// piece.
    pub fn distributed_copies(&self) -> f64 {
        let all = || (0..self.geometry.pieces()).map(|piece| self.availability(PieceIndex(piece)));
        let Some(least) = all().min() else { return 0.0 };
        let above = all().filter(|count| *count > least).count();
        f64::from(least) + above as f64 / f64::from(self.geometry.pieces())
    }

    /// Checks that the state of the swarm is consistent. For tests and simulators: it looks at every piece,
    /// block and peer.
    ///
    /// # Panics
    /// With a sentence that names the inconsistency.
    pub fn check_invariants(&self) {
        let owed = self.peers.values().map(|peer| peer.pipeline.owed()).sum();
        let holds = self.peers.values().map(|peer| &peer.holds);
        let priorities = self.wants.priorities();
        self.picker.check(&self.have, priorities, holds, |k| self.peers.contains_key(&k), owed);
        self.candidates.check();
        assert!(self.peers.len() <= self.config.max_peers, "too many peers");
        assert!(!self.paused || self.peers.is_empty(), "peers although paused");
        let verified: u64 =
            self.have.iter().map(|piece| u64::from(self.geometry.piece_size(piece))).sum();
        assert_eq!(self.totals.verified, verified, "bytes verified");
        self.check_wants();
        for (key, peer) in &self.peers {
            let is_willing = peer.serves_us()
                && !peer.chokes_us
                && !peer.pipeline.is_snubbed()
                && peer.pipeline.room(self.now) > 0;
            let withheld = is_willing
                && self.picker.is_withheld(*key, &peer.holds, &peer.cache, peer.pipeline.trust());
            assert!(!withheld, "{key:?} has room and is not asked for what it could give");
            for owed in peer.pipeline.iter() {
                let asked = self.picker.is_asked(*key, owed.piece, owed.index);
                assert_eq!(asked, Some(owed.is_late), "{key:?}, {owed:?}: asked, and late");
                assert!(peer.holds.contains(owed.piece), "{key:?} owes what it does not hold");
            }
            let lacks = |piece: &PieceIndex| {
                !self.have.contains(*piece) && priorities.of(*piece).is_wanted()
            };
            let wanted = peer.holds.iter().filter(lacks).count();
            assert_eq!(peer.wanted as usize, wanted, "{key:?}: pieces wanted");
            let interests_us = wanted > 0 && !self.config.upload_only;
            assert_eq!(peer.interests_us, interests_us, "{key:?}: interest");
            assert!(peer.uploads.len() <= self.config.max_requests_in, "{key:?}: uploads");
            assert!(peer.due <= peer.deadline(self.config.idle_timeout), "{key:?}: late timer");
            assert!(self.timers.contains(peer.due, *key), "{key:?}: no timer");
        }
        assert_eq!(self.timers.len(), self.peers.len(), "timers of peers");
        let first = self.timers.next();
        assert!(first.is_none() || self.wake.is_some_and(|wake| Some(wake) <= first), "no timer");
        if self.peers.is_empty() && (self.paused || self.candidates.len() == 0) {
            assert_eq!(self.wake, None, "a timer although nothing can happen");
        }
    }

    fn check_wants(&self) {
        let size = |piece: PieceIndex| u64::from(self.geometry.piece_size(piece));
        let wanted = (0..self.geometry.pieces())
            .map(PieceIndex)
            .filter(|piece| self.wants.priorities().of(*piece).is_wanted());
        let (mut bytes, mut bytes_have, mut pieces_left) = (0, 0, 0);
        for piece in wanted {
            bytes += size(piece);
            let is_held = self.have.contains(piece);
            bytes_have += if is_held { size(piece) } else { 0 };
            pieces_left += u32::from(!is_held);
        }
        let Progress { bytes_wanted, bytes_wanted_have, pieces_wanted_left, .. } = self.progress();
        assert_eq!((bytes_wanted, bytes_wanted_have), (bytes, bytes_have), "bytes wanted");
        assert_eq!(pieces_wanted_left, pieces_left, "pieces wanted");
        assert!(self.is_finished() || !self.is_complete(), "complete and not finished");
        for (key, peer) in self.peers.iter().filter(|(_, peer)| !peer.holds.is_empty()) {
            let is_parting = peer.parting.is_some() && peer.has_open_requests();
            let is_of_no_use = self.is_upload_only() && peer.holds.is_full() && !is_parting;
            assert!(!is_of_no_use, "{key:?}: neither side wants anything");
        }
    }
}
