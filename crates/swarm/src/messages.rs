//! Handles messages of peers and checks them against the torrent.

use std::time::Duration;

use bytes::Bytes;

use super::peer::MAX_ALLOWED;
use super::{Action, Direction, PeerFault, PeerKey, Swarm};
use piecework_core::{BLOCK_LEN, Bitfield, BlockRef, PieceIndex};
use piecework_proto::wire::{
    EXCHANGE_EXTENSION, EXCHANGE_ID, ExtendedHandshake, METADATA_EXTENSION, METADATA_ID, Message,
};

impl Swarm {
    pub(super) fn on_message(&mut self, key: PeerKey, message: Message) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.heard_at = self.now;
        peer.has_spoken = true;
        if let Some(rival) = peer.rival.take() {
            self.prefer_over_rival(rival);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let fault = match message {
            Message::KeepAlive => {
                // It may want to know whether we are still here.
                if self.now.since(peer.told_at) >= ANSWER_AFTER {
                    self.send(key, Message::KeepAlive);
                }
                Ok(())
            }
            // Some clients send these before their bitfield.
            Message::Port(_) | Message::Unknown { .. } => Ok(()),
            Message::Extended { id, payload } => self.on_extended(key, id, &payload),
            Message::Bitfield(bits) => self.on_bitfield(key, &bits),
            Message::HaveAll => self.on_have_all(key, true),
            Message::HaveNone => self.on_have_all(key, false),
            other => {
                peer.opened = true;
                self.on_later_message(key, other)
            }
        };
        if let Err(fault) = fault {
            self.drop_peer(key, fault);
        }
    }

    /// Updates our interest in a peer, and tells it if the interest has changed.
    pub(super) fn update_interest(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let interests_us = peer.wanted > 0 && !self.config.upload_only;
        if interests_us != peer.interests_us {
            peer.interests_us = interests_us;
            let message = if interests_us { Message::Interested } else { Message::NotInterested };
            self.send(key, message);
        }
    }

    /// Drops a peer if there is nothing to exchange in either direction, whatever it holds: both sides are
    /// seeds, or hold all they want.
    pub(super) fn part_if_both_complete(&mut self, key: PeerKey) {
        let asks_nothing = self.is_upload_only();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let they_want_nothing = peer.holds.is_full() || peer.upload_only;
        if !asks_nothing || !they_want_nothing {
            peer.parting = None;
            return;
        }
        // Under BEP 6 each request is answered, even one that was given up. A peer that leaves before does
        // not know what was sent to it, and its journal would not agree with the other's.
        if peer.has_open_requests() {
            let until = peer.parting.unwrap_or(self.now + PARTING);
            if self.now < until {
                peer.parting = Some(until);
                return self.arm_peer(key);
            }
        }
        self.drop_peer(key, PeerFault::BothComplete);
    }

    fn on_later_message(&mut self, key: PeerKey, message: Message) -> Result<(), PeerFault> {
        match message {
            Message::Have(piece) => self.on_have(key, piece),
            Message::Choke => {
                self.on_choke(key);
                Ok(())
            }
            Message::Unchoke => {
                self.on_unchoke(key);
                Ok(())
            }
            Message::Interested => {
                self.on_interest(key, true);
                Ok(())
            }
            Message::NotInterested => {
                self.on_interest(key, false);
                Ok(())
            }
            Message::Request(block) => self.on_request(key, block),
            Message::Cancel(block) => self.on_cancel(key, block),
            Message::Reject(block) => {
                self.check_fast(key)?;
                self.check_request(block)?;
                self.on_reject(key, block);
                Ok(())
            }
            Message::Suggest(piece) => {
                self.check_fast(key)?;
                self.check_piece(piece)?;
                if let Some(peer) = self.peers.get_mut(&key)
                    && !self.have.contains(piece)
                {
                    peer.cache.suggest(piece);
                }
                Ok(())
            }
            Message::AllowedFast(piece) => self.on_allowed_fast(key, piece),
            // Handled by the caller.
            Message::KeepAlive
            | Message::Port(_)
            | Message::Unknown { .. }
            | Message::Extended { .. }
            | Message::Bitfield(_)
            | Message::HaveAll
            | Message::HaveNone => Ok(()),
        }
    }

    fn on_bitfield(&mut self, key: PeerKey, bits: &Bytes) -> Result<(), PeerFault> {
        let holds = Bitfield::from_wire(bits, self.geometry.pieces())
            .map_err(|_| PeerFault::BadBitfield)?;
        self.set_holds(key, holds)
    }

    fn on_have_all(&mut self, key: PeerKey, all: bool) -> Result<(), PeerFault> {
        self.check_fast(key)?;
        let pieces = self.geometry.pieces();
        self.set_holds(key, if all { Bitfield::full(pieces) } else { Bitfield::empty(pieces) })
    }

    fn set_holds(&mut self, key: PeerKey, holds: Bitfield) -> Result<(), PeerFault> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        if peer.opened {
            return self.add_holds(key, &holds);
        }
        peer.opened = true;
        self.picker.remove_peer(&peer.holds);
        self.picker.add_peer(&holds);
        peer.wanted = self.wants.lacking_in(&holds, &self.have);
        peer.cache.forget();
        peer.holds = holds;
        self.note_if_complete(key);
        self.update_interest(key);
        self.offer_allowed_fast(key);
        self.part_if_both_complete(key);
        Ok(())
    }

    /// BEP 3 allows a bitfield only as the first message, but aria2 sends one in place of twenty HAVEs or
    /// more, and have-all once it is complete. New pieces count; a removed piece is a fault.
    fn add_holds(&mut self, key: PeerKey, holds: &Bitfield) -> Result<(), PeerFault> {
        let Some(peer) = self.peers.get(&key) else { return Ok(()) };
        if peer.holds.has_beyond(holds) || holds.count() == 0 {
            return Err(PeerFault::LateBitfield);
        }
        let fresh: Vec<PieceIndex> =
            holds.iter().filter(|piece| !peer.holds.contains(*piece)).collect();
        fresh.into_iter().try_for_each(|piece| self.on_have(key, piece))
    }

    fn on_have(&mut self, key: PeerKey, piece: PieceIndex) -> Result<(), PeerFault> {
        self.check_piece(piece)?;
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        if !peer.holds.insert(piece) {
            return Ok(());
        }
        let full = peer.holds.is_full();
        self.picker.peer_got(piece, full);
        for list in [&mut peer.suggested, &mut peer.handed_out] {
            if let Some(at) = list.iter().position(|suggested| *suggested == piece) {
                list.remove(at);
                self.super_seeding.release(piece, false);
            }
        }
        if !self.have.contains(piece) && self.wants.is_wanted(piece) {
            peer.wanted += 1;
            self.picker.update_cache(&mut peer.cache, piece);
        }
        if full {
            self.note_if_complete(key);
        }
        self.update_interest(key);
        self.offer(key);
        self.suggest(key);
        if full {
            self.part_if_both_complete(key);
        }
        Ok(())
    }

    fn on_allowed_fast(&mut self, key: PeerKey, piece: PieceIndex) -> Result<(), PeerFault> {
        self.check_fast(key)?;
        self.check_piece(piece)?;
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        if peer.allowed_us.len() < MAX_ALLOWED
            && !peer.allowed_us.contains(&piece)
            && !self.have.contains(piece)
        {
            peer.allowed_us.push(piece);
            peer.cache.look_again();
            self.offer(key);
        }
        Ok(())
    }

    fn on_extended(&mut self, key: PeerKey, id: u8, payload: &Bytes) -> Result<(), PeerFault> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        if id == METADATA_ID && peer.extended && self.config.metadata_size.is_some() {
            return self.on_metadata(key, payload);
        }
        if id == EXCHANGE_ID && peer.extended && self.exchanges() {
            return self.on_exchange(key, payload);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        // Other numbers are for extensions that we do not have.
        if id != 0 || !peer.extended {
            return Ok(());
        }
        let handshake = ExtendedHandshake::decode(payload).map_err(|_| PeerFault::BadExtended)?;
        peer.metadata_id = handshake.messages.get(METADATA_EXTENSION).copied().or(peer.metadata_id);
        peer.sees_us = handshake.your_ip.map(|ip| ip.to_canonical()).or(peer.sees_us);
        if let Some(reqq) = handshake.reqq {
            let ceiling = (reqq as usize).clamp(MIN_REQQ, MAX_REQQ);
            peer.pipeline.set_ceiling(ceiling.min(self.config.max_requests_out));
        }
        if let Some(client) = handshake.client.filter(|client| !client.is_empty()) {
            let mut who = (*peer.who).clone();
            who.client = client;
            peer.who = who.into();
        }
        peer.upload_only = handshake.upload_only.unwrap_or(peer.upload_only);
        if let Some(port) = handshake.listen_port {
            self.learn_port(key, port);
        }
        if let Some(id) = handshake.messages.get(EXCHANGE_EXTENSION) {
            self.on_exchange_offer(key, *id);
        }
        self.part_if_both_complete(key);
        Ok(())
    }

    fn note_if_complete(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        if let (true, Some(addr)) = (peer.holds.is_full(), peer.listens_at) {
            self.candidates.note_disinterest(addr, peer.direction == Direction::Outgoing);
        }
    }

    fn check_fast(&self, key: PeerKey) -> Result<(), PeerFault> {
        match self.peers.get(&key) {
            Some(peer) if !peer.fast => Err(PeerFault::NotFast),
            Some(_) | None => Ok(()),
        }
    }

    fn check_piece(&self, piece: PieceIndex) -> Result<(), PeerFault> {
        if self.geometry.contains(piece) { Ok(()) } else { Err(PeerFault::OutOfRange) }
    }

    /// Checks that a request may be served: it is inside a piece and not longer than a block.
    pub(super) fn check_request(&self, block: BlockRef) -> Result<(), PeerFault> {
        let fits = self.geometry.is_inside(block) && block.len <= BLOCK_LEN;
        if fits { Ok(()) } else { Err(PeerFault::OutOfRange) }
    }

    /// Tells every peer that we hold a piece. Peers that hold it too are told as well: otherwise a complete
    /// peer would not learn that we are complete, and nobody how many copies there are. They have no use
    /// for the message now, so it waits for the next message to them: a HAVE by itself costs both sides a
    /// system call.
    pub(super) fn tell_have(&mut self, piece: PieceIndex) {
        let was_wanted = u32::from(self.wants.is_wanted(piece));
        let mut waits = false;
        for (key, peer) in &mut self.peers {
            let (key, message) = (*key, Message::Have(piece));
            peer.allowed_us.retain(|allowed| *allowed != piece);
            peer.told_at = self.now;
            if peer.holds.contains(piece) {
                peer.wanted -= was_wanted;
                peer.is_behind = true;
                waits = true;
                self.actions.push_back(Action::SendLater { peer: key, message });
            } else {
                self.actions.push_back(Action::Send { peer: key, message });
            }
        }
        if waits && self.flush_at.is_none() {
            let at = self.now + LONGEST_WAIT;
            self.flush_at = Some(at);
            self.arm(at);
        }
    }

    /// Sends the HAVEs that wait for other messages.
    pub(super) fn flush(&mut self) {
        self.flush_at = None;
        for (key, peer) in &mut self.peers {
            if std::mem::take(&mut peer.is_behind) {
                self.actions.push_back(Action::Flush { peer: *key });
            }
        }
    }
}

/// How long a peer with nothing more to exchange may take to answer earlier requests.
const PARTING: Duration = Duration::from_secs(5);

/// A keep-alive is answered if we have sent nothing for this long. So two peers do not answer each other
/// for ever.
const ANSWER_AFTER: Duration = Duration::from_secs(10);

/// How long a HAVE waits for another message to the same peer, if the peer holds the piece.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The range in which `reqq` is believed.
const MIN_REQQ: usize = 1;
const MAX_REQQ: usize = 1 << 16;
