//! Peers that leave right after they got a piece from us: the piece may be wrong.
//!
//! A peer that finds a wrong piece bans us and says nothing. One that leaves may have its own
//! reasons. Several that leave right after a piece have a reason in common.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use smallvec::SmallVec;

use piecework_core::{Moment, PeerId, PieceIndex};

/// The peers that have left, and what each had received last.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Complaints {
    left: VecDeque<Complaint>,
    /// When pieces were last checked because of them.
    heard: Option<Moment>,
}

#[derive(Debug, PartialEq)]
struct Complaint {
    at: Moment,
    who: (IpAddr, PeerId),
    pieces: Pieces,
}

/// The pieces a peer was last sent blocks of, the latest last.
#[derive(Default)]
pub(super) struct LastSent {
    pieces: Pieces,
    at: Option<Moment>,
}

type Pieces = SmallVec<[PieceIndex; PIECES]>;

impl LastSent {
    /// Notes that blocks of these pieces were sent.
    pub(crate) fn note(&mut self, now: Moment, pieces: impl Iterator<Item = PieceIndex>) {
        self.at = Some(now);
        for piece in pieces {
            if self.pieces.last() != Some(&piece) {
                self.pieces.retain(|sent| *sent != piece);
                if self.pieces.len() == PIECES {
                    self.pieces.remove(0);
                }
                self.pieces.push(piece);
            }
        }
    }

    /// Returns what was sent, if that was just now.
    fn lately(self, now: Moment) -> Pieces {
        match self.at {
            Some(at) if now.since(at) <= AT_ONCE => self.pieces,
            _ => Pieces::new(),
        }
    }
}

impl Complaints {
    /// Returns whether nobody has left lately and nothing was checked.
    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty() && self.heard.is_none()
    }

    /// Notes that a peer has left of its own accord. It lacks `lacks` pieces, as far as it has
    /// told. Returns the pieces to check, if there are reasons to.
    pub(crate) fn left(
        &mut self,
        now: Moment,
        who: (IpAddr, PeerId),
        sent: LastSent,
        lacks: u32,
    ) -> Vec<PieceIndex> {
        let pieces = sent.lately(now);
        // A peer that has everything with these pieces has left because it was done.
        if pieces.is_empty() || lacks as usize <= pieces.len() {
            return Vec::new();
        }
        while self.left.front().is_some_and(|first| now.since(first.at) > REMEMBERED) {
            self.left.pop_front();
        }
        self.left.retain(|complaint| complaint.who != who);
        if self.left.len() == MOST {
            self.left.pop_front();
        }
        self.left.push_back(Complaint { at: now, who, pieces });
        let is_quiet = self.heard.is_none_or(|heard| now.since(heard) >= NOT_OFTENER);
        if self.left.len() < SEVERAL || !is_quiet {
            return Vec::new();
        }
        self.heard = Some(now);
        let mut pieces: Vec<_> =
            self.left.drain(..).flat_map(|complaint| complaint.pieces).collect();
        // Those that several peers had would suffice, but all of them are few.
        pieces.sort_unstable();
        pieces.dedup();
        pieces
    }
}

/// Pieces remembered of each peer: as many as may be under way to it while it hashes one.
const PIECES: usize = 4;
/// Peers that have to leave before it is more than chance.
const SEVERAL: usize = 2;
/// Peers remembered, so that at most 32 pieces are checked.
const MOST: usize = 8;
/// A peer that leaves within this time of the last block may leave because of it.
const AT_ONCE: Duration = Duration::from_secs(10);
const REMEMBERED: Duration = Duration::from_secs(600);
/// Time between two checks, so that peers that come and go cannot keep us hashing.
const NOT_OFTENER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    fn who(last: u8) -> (IpAddr, PeerId) {
        (IpAddr::from([10, 0, 0, last]), PeerId([last; 20]))
    }

    fn sent(now: Moment, pieces: &[u32]) -> LastSent {
        let mut sent = LastSent::default();
        sent.note(now, pieces.iter().copied().map(PieceIndex));
        sent
    }

    fn list(pieces: Vec<PieceIndex>) -> Vec<u32> {
        pieces.into_iter().map(|piece| piece.0).collect()
    }

    #[test]
    fn what_two_peers_had_last_before_they_left_is_looked_at() {
        let mut complaints = Complaints::default();
        assert!(complaints.left(at(1), who(1), sent(at(0), &[1, 2, 3, 1, 4, 5]), 90).is_empty());
        // The same one again is no second one.
        assert!(complaints.left(at(2), who(1), sent(at(2), &[7, 8]), 90).is_empty());
        let looked_at = complaints.left(at(3), who(2), sent(at(3), &[8, 9]), 90);
        assert_eq!(list(looked_at), [7, 8, 9]);
    }

    #[test]
    fn who_is_done_or_was_served_long_ago_or_left_long_ago_does_not_count() {
        let mut complaints = Complaints::default();
        assert!(complaints.left(at(0), who(1), sent(at(0), &[1]), 90).is_empty());
        assert!(complaints.left(at(1), who(2), sent(at(1), &[1, 2]), 2).is_empty());
        assert!(complaints.left(at(20), who(3), sent(at(9), &[1]), 90).is_empty());
        assert!(complaints.left(at(700), who(4), sent(at(700), &[1]), 90).is_empty());
        assert_eq!(list(complaints.left(at(701), who(5), sent(at(701), &[2]), 90)), [1, 2]);
    }

    #[test]
    fn peers_that_come_and_go_have_few_pieces_hashed() {
        let mut complaints = Complaints::default();
        let mut hashed = 0;
        for second in 0..600 {
            let pieces: Vec<u32> = (0..100).map(|n| second as u32 * 100 + n).collect();
            let last = (second % 250) as u8;
            hashed +=
                complaints.left(at(second), who(last), sent(at(second), &pieces), 9_000).len();
        }
        assert!(hashed <= 10 * MOST * PIECES, "{hashed}");
    }
}
