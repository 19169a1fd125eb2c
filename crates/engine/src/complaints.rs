//! Peers that leave right after we gave them something: it may be wrong what we give.
//!
//! A peer that finds a wrong piece bans us and says nothing. One that leaves in the middle may have
//! its reasons; several that do so right after they had a piece have one in common.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use smallvec::SmallVec;

use piecework_core::{Moment, PeerId, PieceIndex};

/// Who has left, and what it had last.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Complaints {
    left: VecDeque<Complaint>,
    /// When pieces were last looked at because of them.
    heard: Option<Moment>,
}

#[derive(Debug, PartialEq)]
struct Complaint {
    at: Moment,
    who: (IpAddr, PeerId),
    pieces: Pieces,
}

/// The pieces a peer was sent blocks of last, the latest last.
#[derive(Default)]
pub(super) struct LastSent {
    pieces: Pieces,
    at: Option<Moment>,
}

type Pieces = SmallVec<[PieceIndex; PIECES]>;

impl LastSent {
    /// Blocks of these pieces went out.
    pub fn note(&mut self, now: Moment, pieces: impl Iterator<Item = PieceIndex>) {
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

    /// What was sent, if that was just now.
    fn lately(self, now: Moment) -> Pieces {
        match self.at {
            Some(at) if now.since(at) <= AT_ONCE => self.pieces,
            _ => Pieces::new(),
        }
    }
}

impl Complaints {
    /// Whether nobody has left lately and nothing was looked at.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty() && self.heard.is_none()
    }

    /// A peer has gone of its own accord, and lacks `lacks` pieces as far as it has told. Gives the
    /// pieces that are to be looked at, if there are reasons to.
    pub fn left(
        &mut self,
        now: Moment,
        who: (IpAddr, PeerId),
        sent: LastSent,
        lacks: u32,
    ) -> Vec<PieceIndex> {
        let pieces = sent.lately(now);
        // Who has all with these has left because it was done.
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
        // Those that several had first would be best, but all are few.
        pieces.sort_unstable();
        pieces.dedup();
        pieces
    }
}

/// Pieces remembered of each peer: as many as may be under way to it while it hashes one.
const PIECES: usize = 4;
/// Peers that have to leave for it to be more than chance.
const SEVERAL: usize = 2;
/// Peers remembered, so that at most 32 pieces are looked at.
const MOST: usize = 8;
/// Within this time of the last block it is about what was sent.
const AT_ONCE: Duration = Duration::from_secs(10);
const REMEMBERED: Duration = Duration::from_secs(600);
/// What peers that come and go can have us hash.
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
