//! How many peers hold each piece of one torrent. Updated with every change, so that no query has to count
//! hundreds of bitfields.
//!
//! Invariant: `counts[p]` is the number of partial holders of `p`, and `tally[n]` the number of
//! pieces that `n` of them hold; both are empty while there is no partial holder.

use super::holdings::Holdings;
use piecework_core::SaturatingFrom;
use piecework_core::{Bitfield, PieceIndex};

/// Distributed copies: how often the torrent could be assembled from the peers' pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copies {
    /// Whole copies: the number of holders of the rarest piece.
    pub whole: u32,
    /// The number of pieces with more holders than that.
    pub more: u32,
    /// The number of pieces of the torrent.
    pub pieces: u32,
}

/// The number of holders of each piece.
pub(super) struct Availability {
    pieces: u32,
    /// The number of peers that hold every piece.
    everywhere: u32,
    /// The number of peers that are known by a bitfield.
    partial: u32,
    counts: Vec<u32>,
    tally: Vec<u32>,
}

impl Copies {
    /// Returns the copies for the holders of each piece in `counts`, and `everywhere` further peers that hold every
    /// piece.
    pub(super) fn of(counts: &[u32], everywhere: u32) -> Self {
        let least = counts.iter().copied().min().unwrap_or(0);
        let more = counts.iter().filter(|count| **count > least).count();
        Self {
            whole: everywhere + least,
            more: u32::saturating_from(more),
            pieces: u32::saturating_from(counts.len()),
        }
    }

    /// Returns the number as BitTorrent clients show it: the whole copies plus the share of pieces that have more.
    pub fn fraction(&self) -> f64 {
        f64::from(self.whole) + f64::from(self.more) / f64::from(self.pieces.max(1))
    }
}

impl Availability {
    pub(super) fn new(pieces: u32) -> Self {
        Self { pieces, everywhere: 0, partial: 0, counts: Vec::new(), tally: Vec::new() }
    }

    /// Replaces the holdings of one peer.
    pub(super) fn replace(&mut self, old: &Holdings, new: &Holdings) {
        match (old, new) {
            (Holdings::Pieces(old), Holdings::Pieces(new)) => {
                for (piece, is_new) in differences(old, new) {
                    if is_new { self.add(piece) } else { self.take(piece) }
                }
            }
            // Adds before it removes, so that the counts are not dropped in between.
            _ => {
                self.put(new);
                self.remove(old);
            }
        }
    }

    /// Adds a piece to a peer that is known by its bitfield.
    pub(super) fn add(&mut self, piece: PieceIndex) {
        let count = &mut self.counts[piece.0 as usize];
        self.tally[*count as usize] -= 1;
        *count += 1;
        let at = *count as usize;
        if self.tally.len() <= at {
            self.tally.resize(at + 1, 0);
        }
        self.tally[at] += 1;
    }

    /// Returns the distributed copies.
    pub(super) fn copies(&self) -> Copies {
        let pieces = self.pieces;
        if self.counts.is_empty() {
            return Copies { whole: self.everywhere, more: 0, pieces };
        }
        let least = self.tally.iter().position(|pieces| *pieces > 0).unwrap_or(0);
        Copies {
            whole: self.everywhere + u32::saturating_from(least),
            more: pieces - self.tally.get(least).copied().unwrap_or(pieces),
            pieces,
        }
    }

    /// Returns how many peers hold each piece.
    pub(super) fn counts(&self) -> Vec<u32> {
        if self.counts.is_empty() {
            return vec![self.everywhere; self.pieces as usize];
        }
        self.counts.iter().map(|count| count + self.everywhere).collect()
    }

    /// Returns the number of heap bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        // The tally is not counted: it has at most one entry for each peer.
        self.counts.len() * size_of::<u32>()
    }

    /// Returns the number of heap bytes once a peer is known by its bitfield.
    pub(super) fn full_heap_bytes(&self) -> usize {
        self.pieces as usize * size_of::<u32>()
    }

    fn put(&mut self, held: &Holdings) {
        match held {
            Holdings::Unknown => {}
            Holdings::Everything => self.everywhere += 1,
            Holdings::Pieces(held) => {
                if self.partial == 0 {
                    self.counts = vec![0; self.pieces as usize];
                    self.tally = vec![self.pieces];
                }
                self.partial += 1;
                held.iter().for_each(|piece| self.add(piece));
            }
        }
    }

    fn remove(&mut self, held: &Holdings) {
        match held {
            Holdings::Unknown => {}
            Holdings::Everything => self.everywhere -= 1,
            Holdings::Pieces(held) => {
                self.partial -= 1;
                if self.partial == 0 {
                    (self.counts, self.tally) = (Vec::new(), Vec::new());
                } else {
                    held.iter().for_each(|piece| self.take(piece));
                }
            }
        }
    }

    fn take(&mut self, piece: PieceIndex) {
        let count = &mut self.counts[piece.0 as usize];
        self.tally[*count as usize] -= 1;
        *count -= 1;
        self.tally[*count as usize] += 1;
        while self.tally.len() > 1 && self.tally.last() == Some(&0) {
            self.tally.pop();
        }
    }
}

/// Returns the pieces in which two bitfields of one torrent differ, in order, and whether `new` has them.
pub(super) fn differences<'a>(
    old: &'a Bitfield,
    new: &'a Bitfield,
) -> impl Iterator<Item = (PieceIndex, bool)> + 'a {
    let bytes = old.as_wire().iter().zip(new.as_wire()).enumerate();
    bytes.filter(|(_, (old, new))| old != new).flat_map(|(at, (old, new))| {
        (0..8).filter(move |bit| (old ^ new) & (0x80 >> bit) != 0).map(move |bit| {
            (PieceIndex(u32::saturating_from(at) * 8 + bit), new & (0x80 >> bit) != 0)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(kind: u8, bits: [u8; 2]) -> Holdings {
        match kind {
            0 => Holdings::Unknown,
            1 => Holdings::Everything,
            _ => Holdings::Pieces(Bitfield::from_wire(&[bits[0], bits[1] & 0xe0], 11).unwrap()),
        }
    }

    proptest! {
        #[test]
        fn counts_agree_with_counting(
            changes in proptest::collection::vec((0..6usize, 0..4u8, any::<[u8; 2]>()), 0..60)
        ) {
            let mut kept = Availability::new(11);
            let mut peers: Vec<Holdings> = vec![Holdings::Unknown; 6];
            for (peer, kind, bits) in changes {
                let new = held(kind, bits);
                kept.replace(&peers[peer], &new);
                peers[peer] = new;
                let counts: Vec<u32> = (0..11)
                    .map(|p| peers.iter().filter(|held| held.contains(PieceIndex(p))).count() as u32)
                    .collect();
                prop_assert_eq!(kept.counts(), counts.clone());
                prop_assert_eq!(kept.copies(), Copies::of(&counts, 0));
            }
        }
    }

    #[test]
    fn copies_are_what_clients_show() {
        let mut kept = Availability::new(11);
        assert_eq!(kept.copies().fraction(), 0.0);
        kept.replace(&Holdings::Unknown, &Holdings::Everything);
        assert_eq!(kept.copies().fraction(), 1.0);
        kept.replace(&Holdings::Unknown, &held(2, [0b1010_0000, 0]));
        assert_eq!(kept.copies(), Copies { whole: 1, more: 2, pieces: 11 });
        assert_eq!(Availability::new(0).copies().fraction(), 0.0);
    }
}
