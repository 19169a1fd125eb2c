//! The way from requests of peers to blocks sent, and which pieces a seed suggests.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::allowed_fast::{ALLOWED_FAST_COUNT, allowed_fast_set};
use super::choker::{Contender, LONGEST_GRACE};
use super::peer::Peer;
use super::super_seeding::{FEW_PIECES, Uptake, more_suggestions};
use super::{Action, ChokePolicy, PeerFault, PeerKey, Swarm};
use piecework_core::{BlockRef, Moment, PieceIndex};
use piecework_proto::wire::Message;

impl Swarm {
    pub(super) fn on_interest(&mut self, key: PeerKey, interested: bool) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.interested == interested {
            return;
        }
        peer.interested = interested;
        if !interested {
            // If it comes back it waits for its turn, since its slot is taken by then.
            if !peer.choked && self.choker.has_slots() {
                self.set_choked(key, true);
                self.slot_is_free = true;
            }
            return;
        }
        // There is something that it lacks again.
        peer.is_idle &= peer.is_returning;
        self.slot_is_free |= peer.choked;
        self.choker.wake(self.now);
        if let Some(round) = self.choker.next_round() {
            self.arm(round);
        }
    }

    pub(super) fn on_request(&mut self, key: PeerKey, block: BlockRef) -> Result<(), PeerFault> {
        self.check_request(block)?;
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        let fast = peer.fast;
        let is_allowed =
            !peer.choked || (peer.allowance > 0 && peer.allowed_it.contains(&block.piece));
        if !is_allowed || !self.have.contains(block.piece) {
            self.note_late_request(key);
            if fast {
                self.send(key, Message::Reject(block));
            }
            return Ok(());
        }
        if peer.uploads.len() >= self.config.max_requests_in {
            return Err(PeerFault::RequestFlood);
        }
        if peer.choked {
            peer.allowance -= 1;
        }
        peer.uploads.push_back(block);
        peer.told_at = self.now;
        peer.asked_at = self.now;
        peer.is_idle = false;
        self.actions.push_back(Action::Upload { peer: key, block });
        self.note_begun(key, block.piece);
        Ok(())
    }

    /// Records that a peer has requested a block of a piece that was suggested to it, and suggests the next
    /// one. If the next one waited until the peer has the piece, the peer would request others meanwhile.
    /// In a torrent of few pieces there may be more peers than pieces: there, it does wait.
    fn note_begun(&mut self, key: PeerKey, piece: PieceIndex) {
        if self.geometry.pieces() < FEW_PIECES {
            return;
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(at) = peer.suggested.iter().position(|suggested| *suggested == piece) else {
            return;
        };
        peer.suggested.remove(at);
        peer.handed_out.push(piece);
        self.suggest(key);
    }

    pub(super) fn on_cancel(&mut self, key: PeerKey, block: BlockRef) -> Result<(), PeerFault> {
        self.check_request(block)?;
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        // Otherwise it was sent already, or never queued.
        let Some(at) = peer.uploads.iter().position(|queued| *queued == block) else {
            return Ok(());
        };
        peer.uploads.remove(at);
        let is_parting = peer.parting.is_some();
        self.actions.push_back(Action::CancelUpload { peer: key, block });
        if peer.fast {
            self.send(key, Message::Reject(block));
        }
        if is_parting {
            self.to_part.push(key);
        }
        Ok(())
    }

    pub(super) fn on_uploaded(&mut self, key: PeerKey, blocks: u32, bytes: u64) {
        self.totals.uploaded += bytes;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let gone = (blocks as usize).min(peer.uploads.len());
        peer.uploads.drain(..gone);
        peer.up.add(self.now, bytes);
        peer.used_at = Some(self.now);
        peer.told_at = self.now;
        peer.asked_at = self.now;
        if peer.parting.is_some() {
            self.to_part.push(key);
        }
    }

    /// Handles a request of a choked peer. If the peer lost its slot because it requested nothing, its line
    /// is longer than the grace period was: it gets its turn again, once.
    fn note_late_request(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.choked && peer.is_idle && !peer.asks_late {
            peer.asks_late = true;
            peer.is_idle = false;
            peer.turned_at = peer.turned_before;
            self.slot_is_free = true;
        }
    }

    pub(super) fn hold_round(&mut self) {
        let now = self.now;
        let grace = self.choker.grace(self.without_slot());
        let contenders: Vec<Contender> = self
            .peers
            .iter_mut()
            .map(|(key, peer)| {
                let total = peer.down.total();
                let gave = total - peer.given_before[1];
                peer.given_before = [total, peer.given_before[0]];
                let taken_at_round = std::mem::replace(&mut peer.taken_at_round, peer.up.total());
                let is_idle = peer.idle_from(grace).is_some_and(|from| from <= now);
                Contender {
                    key: *key,
                    interested: peer.interested,
                    unchoked: !peer.choked,
                    gave,
                    snubbed: peer.pipeline.is_snubbed(),
                    took: peer.up.total() - peer.taken_before,
                    took_lately: peer.up.total() - taken_at_round,
                    turned_at: peer.turned_at,
                    is_idle: peer.is_idle || is_idle,
                    is_new: now.since(peer.connected_at) < NEWCOMER && !peer.is_returning,
                }
            })
            .collect();
        let finished = self.is_finished();
        let served = self.choker.round(now, finished, &mut self.rng, &contenders);
        // Choke first, so that there are never more unchoked peers than slots.
        let served: BTreeSet<PeerKey> = served.into_iter().collect();
        for contender in contenders.iter().filter(|c| c.unchoked && !served.contains(&c.key)) {
            if let Some(peer) = self.peers.get_mut(&contender.key) {
                peer.is_idle |= contender.is_idle;
            }
            self.set_choked(contender.key, true);
        }
        for key in served {
            self.set_choked(key, false);
        }
        self.slot_is_free = true;
    }

    /// Gives free slots to peers that wait, the longest waiting first. Takes slots back from peers that
    /// request nothing.
    pub(super) fn fill_slots(&mut self) {
        self.slot_is_free = false;
        self.idle_check = None;
        let waits = |peer: &Peer| peer.interested && peer.choked;
        let mut waiting: Vec<_> = self.peers.iter().filter(|(_, peer)| waits(peer)).collect();
        waiting.sort_by_key(|(_, peer)| (peer.is_idle, peer.turned_at));
        // Among peers that never had a slot, the one that has waited longest gets one. If some peers
        // request nothing, the one that came last is next, alternately, so that a crowd of them does not
        // keep a newcomer waiting.
        let is_new = |peer: &Peer| !peer.is_idle && peer.turned_at.is_none();
        let mut newcomers = waiting.iter().take_while(|(_, peer)| is_new(peer)).count();
        let mut waiting: VecDeque<PeerKey> = waiting.into_iter().map(|(key, _)| *key).collect();
        if waiting.is_empty() {
            return;
        }
        let in_need = self.waiting_for_slot();
        let mut served = self.peers.values().filter(|p| p.interested && !p.choked).count();
        if self.choker.has_slots() {
            served -= self.take_back_slots(served, in_need);
        }
        let some_are_idle = self.peers.values().any(|peer| peer.is_idle);
        while self.choker.serves_at_once(served) {
            let is_last = newcomers > 1 && some_are_idle && self.last_comes_next;
            let at = if is_last { newcomers - 1 } else { 0 };
            let Some(key) = waiting.remove(at) else { return };
            self.last_comes_next ^= newcomers > 1;
            newcomers = newcomers.saturating_sub(1);
            self.set_choked(key, false);
            served += 1;
        }
    }

    /// Returns how many peers are interested and have no slot, whether or not they would use it. The grace
    /// period depends on this number. If it depended on the peers that may use a slot, it would grow as
    /// they are tried, and the last of them would wait several rounds.
    fn without_slot(&self) -> usize {
        self.peers.values().filter(|peer| peer.interested && peer.choked).count()
    }

    /// Returns how many peers wait for a slot and may use it.
    fn waiting_for_slot(&self) -> usize {
        self.peers.values().filter(|peer| peer.waits_for_slot()).count()
    }

    /// Takes slots from peers that request nothing, if there are too few free ones for those `in_need`. The
    /// peer that has requested nothing for longest comes first. Returns how many slots were taken, and sets
    /// a timer if more may be taken later.
    fn take_back_slots(&mut self, served: usize, in_need: usize) -> usize {
        let now = self.now;
        let grace = self.choker.grace(self.without_slot());
        let wanted = self.choker.lacking(served, in_need);
        if wanted == 0 {
            return 0;
        }
        let mut idle: Vec<(Moment, PeerKey)> = Vec::new();
        let mut check = now + LONGEST_GRACE;
        for (key, peer) in self.peers.iter().filter(|(_, p)| p.interested && !p.choked) {
            match peer.idle_from(grace) {
                Some(from) if from <= now => idle.push((from, *key)),
                Some(from) => check = check.min(from),
                None => check = check.min(now + grace),
            }
        }
        idle.sort_unstable();
        idle.truncate(wanted);
        for (_, key) in &idle {
            if let Some(peer) = self.peers.get_mut(key) {
                peer.is_idle = true;
            }
            self.set_choked(*key, true);
        }
        // Even if it is enough for now: those that get a slot may request nothing either.
        self.idle_check = Some(check.min(now + grace));
        self.arm(check.min(now + grace));
        idle.len()
    }

    /// Suggests pieces to a peer that no other peer has, if we hold everything.
    pub(super) fn suggest(&mut self, key: PeerKey) {
        if !self.have.is_full() {
            return;
        }
        let Some(peer) = self.peers.get(&key) else { return };
        if !peer.fast || peer.choked || peer.holds.is_full() {
            return;
        }
        let uptake = Uptake {
            waiting: peer.suggested.len(),
            begun: peer.handed_out.len(),
            rate: peer.up.per_second(self.now),
            taken: peer.up.total(),
        };
        for _ in 0..more_suggestions(&self.geometry, uptake) {
            let picker = &self.picker;
            let next = self.super_seeding.next(|piece| picker.leechers_with(piece) == 0);
            let Some(piece) = next else { return };
            let Some(peer) = self.peers.get_mut(&key) else { return };
            peer.suggested.push(piece);
            self.send(key, Message::Suggest(piece));
        }
    }

    /// Tells a peer that has hardly any pieces which ones it may have while it is choked. All peers of a
    /// /24 have the same set. So a set is offered only to the first of them: otherwise every machine of a
    /// local network would get the same ten pieces from us before any other piece.
    pub(super) fn offer_allowed_fast(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        let (Some(info_hash), IpAddr::V4(ip)) =
            (self.config.info_hash, peer.who.addr.ip().to_canonical())
        else {
            return;
        };
        let has_enough = peer.holds.count() as usize >= ALLOWED_FAST_COUNT;
        if !peer.fast || has_enough || self.config.choke == ChokePolicy::Closed {
            return;
        }
        if self.has_offered_in(key, ip) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let set = allowed_fast_set(ip, info_hash, self.geometry.pieces(), ALLOWED_FAST_COUNT);
        peer.allowed_it = set.into_iter().filter(|piece| self.have.contains(*piece)).collect();
        let blocks: u32 = peer.allowed_it.iter().map(|piece| self.geometry.blocks_in(*piece)).sum();
        let most = peer.allowance_left.unwrap_or(u32::MAX);
        peer.allowance = blocks.saturating_mul(2).min(most);
        for piece in peer.allowed_it.clone() {
            self.send(key, Message::AllowedFast(piece));
        }
    }

    /// Returns whether a set was offered to a peer other than `key` in the /24 of `ip`.
    fn has_offered_in(&self, key: PeerKey, ip: Ipv4Addr) -> bool {
        let prefix = |ip: Ipv4Addr| ip.to_bits() >> 8;
        self.peers.iter().any(|(other, peer)| match peer.who.addr.ip().to_canonical() {
            IpAddr::V4(other_ip) => {
                *other != key && prefix(other_ip) == prefix(ip) && !peer.allowed_it.is_empty()
            }
            IpAddr::V6(_) => false,
        })
    }

    fn set_choked(&mut self, key: PeerKey, choked: bool) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.choked == choked {
            return;
        }
        peer.choked = choked;
        if !choked {
            peer.turned_before = peer.turned_at;
        }
        peer.turned_at = Some(now);
        peer.taken_before = peer.up.total();
        if !choked {
            // Before the unchoke, so that it requests the suggested pieces.
            self.suggest(key);
            return self.send(key, Message::Unchoke);
        }
        peer.told_at = now;
        for piece in peer.suggested.drain(..).chain(peer.handed_out.drain(..)) {
            self.super_seeding.release(piece, true);
        }
        self.actions.push_back(Action::Send { peer: key, message: Message::Choke });
        let (fast, allowed) = (peer.fast, &peer.allowed_it);
        let actions = &mut self.actions;
        peer.uploads.retain(|block| {
            if fast && allowed.contains(&block.piece) {
                return true;
            }
            actions.push_back(Action::CancelUpload { peer: key, block: *block });
            if fast {
                let message = Message::Reject(*block);
                actions.push_back(Action::Send { peer: key, message });
            }
            false
        });
        if peer.parting.is_some() {
            self.to_part.push(key);
        }
    }
}

/// How long a peer counts as new to the choker.
const NEWCOMER: Duration = Duration::from_secs(60);
