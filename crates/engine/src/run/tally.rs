//! Counts what is sent to whom, piece by piece. Single blocks are too many to report, and people
//! ask about pieces.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::super::SentPart;
use piecework_clock::Clock;
use piecework_core::{Moment, PieceIndex};
use piecework_swarm::{PeerIdentity, PeerKey};

/// Pieces that are being sent.
#[derive(Default)]
pub(super) struct Tally {
    peers: HashMap<PeerKey, Peer>,
    /// No part has to be reported before this.
    due: Option<Moment>,
}

/// What a peer was sent of a piece.
pub(super) struct Part {
    who: Arc<PeerIdentity>,
    piece: PieceIndex,
    blocks: u32,
    bytes: u64,
    first_at: Moment,
    last_at: Moment,
}

struct Peer {
    who: Arc<PeerIdentity>,
    /// Few, because a peer is sent one piece after the other.
    parts: Vec<Part>,
    seen_at: Moment,
}

impl Tally {
    /// Notes the identity of a peer. A peer that is gone keeps the one it had.
    pub(super) fn note(&mut self, now: Moment, key: PeerKey, who: Option<&Arc<PeerIdentity>>) {
        let Some(who) = who else { return };
        let due = &mut self.due;
        let peer = self.peers.entry(key).or_insert_with(|| {
            due.get_or_insert(now + FORGET);
            Peer { who: Arc::clone(who), parts: Vec::new(), seen_at: now }
        });
        if !Arc::ptr_eq(&peer.who, who) {
            peer.who = Arc::clone(who);
        }
    }

    /// Counts blocks of a piece: which piece, how many, and their bytes. Returns the whole piece
    /// once its `whole` blocks were sent.
    pub(super) fn add(
        &mut self,
        now: Moment,
        key: PeerKey,
        (piece, blocks, bytes): (PieceIndex, u32, u32),
        whole: u32,
    ) -> Option<Part> {
        let peer = self.peers.get_mut(&key)?;
        peer.seen_at = now;
        let at = peer.parts.iter().position(|part| part.piece == piece).unwrap_or_else(|| {
            let who = Arc::clone(&peer.who);
            peer.parts.push(Part { who, piece, blocks: 0, bytes: 0, first_at: now, last_at: now });
            peer.parts.len() - 1
        });
        let part = &mut peer.parts[at];
        part.blocks += blocks;
        part.bytes += u64::from(bytes);
        part.last_at = now;
        if part.blocks >= whole || peer.parts.len() > PARTS {
            return Some(peer.parts.swap_remove(at));
        }
        self.due = Some(self.due.map_or(now + LULL, |due| due.min(now + LULL)));
        None
    }

    /// Returns parts that nothing was added to for a while; all parts if `all`. Forgets peers that
    /// `is_here` does not know, once everything they were sent must have been counted.
    pub(super) fn settle(
        &mut self,
        now: Moment,
        all: bool,
        is_here: impl Fn(PeerKey) -> bool,
    ) -> Vec<Part> {
        let mut told = Vec::new();
        if !all && self.due.is_none_or(|due| now < due) {
            return told;
        }
        let mut due: Option<Moment> = None;
        self.peers.retain(|key, peer| {
            told.extend(peer.parts.extract_if(.., |part| all || part.last_at + LULL <= now));
            let next = peer.parts.iter().map(|part| part.last_at + LULL).min();
            let gone = (!is_here(*key)).then(|| peer.seen_at + FORGET);
            due = [due, next, gone.filter(|gone| *gone > now)].into_iter().flatten().min();
            next.is_some() || gone.is_none_or(|gone| gone > now)
        });
        self.due = due;
        told
    }

    /// Returns when [`Tally::settle`] has something to do.
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }
}

impl Part {
    /// Returns the part as observers hear it.
    pub(super) fn told(self, clock: &Clock) -> SentPart {
        SentPart {
            who: self.who,
            piece: self.piece,
            blocks: self.blocks,
            bytes: self.bytes,
            first_at: clock.unix_ms(self.first_at),
            last_at: clock.unix_ms(self.last_at),
        }
    }
}

/// Time without another block after which a part of a piece is reported.
const LULL: Duration = Duration::from_secs(1);

/// Time that a peer is remembered after it has gone: its send loop has two seconds to end.
const FORGET: Duration = Duration::from_secs(5);

/// Pieces of one peer that may be under way. A peer that mixes more is reported in smaller parts.
const PARTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::PeerId;

    fn who() -> Arc<PeerIdentity> {
        let addr = "10.0.0.1:5".parse().unwrap();
        Arc::new(PeerIdentity { addr, listens_at: None, id: PeerId([1; 20]), client: "c".into() })
    }

    #[test]
    fn a_whole_piece_is_told_at_once_and_a_part_after_a_lull() {
        let (mut tally, who, key) = (Tally::default(), who(), PeerKey(1));
        let at = |seconds| Moment::START + Duration::from_secs(seconds);
        tally.note(at(1), key, Some(&who));
        assert!(tally.add(at(1), key, (PieceIndex(3), 4, 4), 8).is_none());
        let whole = tally.add(at(1), key, (PieceIndex(3), 4, 4), 8).unwrap();
        assert_eq!((whole.blocks, whole.bytes), (8, 8));
        assert!(tally.add(at(2), key, (PieceIndex(4), 1, 1), 8).is_none());
        assert!(tally.settle(at(2), false, |_| true).is_empty());
        assert_eq!(tally.settle(at(3), false, |_| true).len(), 1);
        // Its last words come when it has gone.
        assert!(tally.add(at(3), key, (PieceIndex(5), 2, 2), 8).is_none());
        assert_eq!(tally.settle(at(3), true, |_| false).len(), 1);
        assert!(tally.add(at(4), key, (PieceIndex(5), 2, 2), 8).is_none());
        assert_eq!(tally.settle(at(20), false, |_| false).len(), 1);
        assert!(tally.peers.is_empty());
        assert_eq!(tally.due(), None);
    }
}
