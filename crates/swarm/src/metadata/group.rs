//! Peers that say the same about the length of the metadata, and what they gave.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{piece_len, pieces, turn};
use crate::PeerKey;
use piecework_core::Moment;

#[derive(Debug, Default)]
pub(super) struct Group {
    /// The number of its connected peers.
    pub(super) members: usize,
    /// Its pieces are requested.
    pub(super) active: bool,
    /// When it makes way for another group.
    pub(super) until: Moment,
    /// How many turns it has begun.
    pub(super) turns: u32,
    /// Pieces of several peers were wrong together, so one peer at a time gives all of them.
    pub(super) alone: bool,
    /// The peer whose turn it is then.
    pub(super) giver: Option<PeerKey>,
    /// When another peer has its turn, if there is one.
    giver_until: Moment,
    /// How many peers have had their turn.
    givers: u32,
    /// The number of the check under way, and who gave what is checked.
    pub(super) checking: Option<(u32, Vec<PeerKey>)>,
    received: BTreeMap<u32, (Bytes, PeerKey)>,
}

impl Group {
    pub(super) fn start(&mut self, until: Moment) {
        self.active = true;
        self.until = until;
        self.turns += 1;
    }

    /// Makes way for another group, which may need the memory.
    pub(super) fn stop(&mut self) {
        self.active = false;
        self.received.clear();
        self.giver = None;
    }

    /// From now on, one peer at a time gives all pieces.
    pub(super) fn one_by_one(&mut self) {
        self.alone = true;
        self.giver = None;
        self.received.clear();
    }

    /// Takes the turn from a peer that has left or does not give. In a group that is fetched one by one, the next
    /// peer begins anew.
    pub(super) fn pass_on(&mut self, key: PeerKey) {
        if self.giver == Some(key) {
            self.giver = None;
            self.received.clear();
        }
    }

    /// Returns the peer that gives everything alone. A peer that needs too long makes way for one of `able`.
    pub(super) fn choose_giver(
        &mut self,
        now: Moment,
        size: u32,
        able: &[PeerKey],
    ) -> Option<PeerKey> {
        let other = able.iter().copied().find(|key| Some(*key) != self.giver);
        if let Some(giver) = self.giver {
            if other.is_none() || now < self.giver_until {
                return Some(giver);
            }
            self.pass_on(giver);
        }
        self.giver = Some(other.or(able.first().copied())?);
        self.giver_until = now + turn(size, self.givers);
        self.givers += 1;
        self.giver
    }

    /// Returns when the peer that gives alone makes way for another.
    pub(super) fn end_of_giver(&self, now: Moment) -> Option<Moment> {
        self.giver.map(|_| self.giver_until).filter(|until| *until > now)
    }

    /// Returns whether it can make way for another group.
    pub(super) fn may_stop(&self) -> bool {
        self.active && self.checking.is_none()
    }

    pub(super) fn has(&self, piece: u32) -> bool {
        self.received.contains_key(&piece)
    }

    /// Keeps a piece, unless it is there or nobody waits for it any more.
    pub(super) fn keep(&mut self, piece: u32, bytes: Bytes, from: PeerKey) {
        let is_wanted = self.active && self.checking.is_none();
        let is_its_turn = !self.alone || self.giver == Some(from);
        if is_wanted && is_its_turn {
            self.received.entry(piece).or_insert((bytes, from));
        }
    }

    /// Takes the whole metadata and the peers that gave it, if nothing is missing.
    pub(super) fn whole(&mut self, size: u32) -> Option<(Vec<u8>, Vec<PeerKey>)> {
        if self.received.len() != pieces(size) as usize {
            return None;
        }
        let received = std::mem::take(&mut self.received);
        let mut bytes = Vec::with_capacity(size as usize);
        let mut givers = Vec::new();
        for (piece, giver) in received.into_values() {
            bytes.extend_from_slice(&piece);
            givers.push(giver);
        }
        givers.sort_unstable();
        givers.dedup();
        Some((bytes, givers))
    }

    /// Returns how many of the `size` bytes are here.
    pub(super) fn received(&self, size: u32) -> u32 {
        if self.checking.is_some() {
            return size;
        }
        let lens = self.received.keys().map(|piece| piece_len(size, *piece));
        u32::try_from(lens.sum::<usize>()).unwrap_or(size)
    }

    pub(super) fn memory(&self) -> usize {
        self.received.values().map(|(bytes, _)| bytes.len()).sum()
    }
}
