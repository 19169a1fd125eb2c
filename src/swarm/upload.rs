//! From requests of others to blocks sent.

use std::net::IpAddr;
use std::time::Duration;

use super::allowed_fast::{ALLOWED_FAST_COUNT, allowed_fast_set};
use super::choker::Contender;
use super::handout::suggested_at_a_time;
use super::{Action, ChokePolicy, PeerFault, PeerKey, Swarm};
use crate::base::BlockRef;
use crate::wire::Message;

impl Swarm {
    pub(super) fn on_interest(&mut self, key: PeerKey, interested: bool) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if !interested {
            self.slot_is_free |= peer.interested && !peer.choked;
            peer.interested = false;
            return;
        }
        peer.interested = true;
        self.slot_is_free |= peer.choked;
        self.choker.wake(self.now);
        if let Some(round) = self.choker.next_round() {
            self.arm(round);
        }
    }

    pub(super) fn on_request(&mut self, key: PeerKey, block: BlockRef) -> Result<(), PeerFault> {
        self.check_request(block)?;
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        let is_allowed =
            !peer.choked || (peer.allowance > 0 && peer.allowed_it.contains(&block.piece));
        if !is_allowed || !self.have.contains(block.piece) {
            if peer.fast {
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
        self.actions.push_back(Action::Upload { peer: key, block });
        Ok(())
    }

    pub(super) fn on_cancel(&mut self, key: PeerKey, block: BlockRef) -> Result<(), PeerFault> {
        self.check_request(block)?;
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        // Otherwise it has gone out, or was never queued.
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
            self.part_if_both_complete(key);
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
        if peer.parting.is_some() {
            self.part_if_both_complete(key);
        }
    }

    pub(super) fn hold_round(&mut self) {
        let now = self.now;
        let contenders: Vec<Contender> = self
            .peers
            .iter_mut()
            .map(|(key, peer)| {
                let total = peer.down.total();
                let gave = total - peer.given_before[1];
                peer.given_before = [total, peer.given_before[0]];
                Contender {
                    key: *key,
                    interested: peer.interested,
                    unchoked: !peer.choked,
                    gave,
                    snubbed: peer.pipeline.is_snubbed(),
                    took: peer.up.total() - peer.taken_before,
                    turned_at: peer.turned_at,
                    is_new: now.since(peer.connected_at) < NEWCOMER,
                }
            })
            .collect();
        let finished = self.is_finished();
        let served = self.choker.round(now, finished, &mut self.rng, &contenders);
        // First those who lose their place, so that there are never more than there are slots.
        for contender in &contenders {
            if !served.contains(&contender.key) {
                self.set_choked(contender.key, true);
            }
        }
        for key in served {
            self.set_choked(key, false);
        }
    }

    /// Serves those who wait, the longest waiting first, as far as there are slots.
    pub(super) fn fill_slots(&mut self) {
        self.slot_is_free = false;
        loop {
            let interested = self.peers.iter().filter(|(_, peer)| peer.interested);
            let served = interested.clone().filter(|(_, peer)| !peer.choked).count();
            let next = interested.filter(|(_, p)| p.choked).min_by_key(|(_, p)| p.turned_at);
            match next.map(|(key, _)| *key) {
                Some(key) if self.choker.serves_at_once(served) => self.set_choked(key, false),
                Some(_) | None => return,
            }
        }
    }

    /// Suggests to a peer what nobody has yet, if we are a closed swarm's seed.
    pub(super) fn suggest(&mut self, key: PeerKey) {
        if self.config.choke != ChokePolicy::Closed || !self.have.is_full() {
            return;
        }
        let Some(peer) = self.peers.get(&key) else { return };
        if !peer.fast || peer.choked || peer.holds.is_full() {
            return;
        }
        // In runs of half the number, so that not every piece costs a message of its own.
        let at_a_time = suggested_at_a_time(self.geometry.blocks_per_piece());
        if peer.suggested.len() > at_a_time / 2 {
            return;
        }
        loop {
            let Some(peer) = self.peers.get_mut(&key) else { return };
            if peer.suggested.len() >= at_a_time {
                return;
            }
            let picker = &self.picker;
            let next = self.handout.next(|piece| picker.leechers_with(piece) == 0);
            let Some(piece) = next else { return };
            peer.suggested.push(piece);
            self.send(key, Message::Suggest(piece));
        }
    }

    /// Tells a peer that has next to nothing what it may have while it is choked.
    pub(super) fn offer_allowed_fast(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let (Some(info_hash), IpAddr::V4(ip)) =
            (self.config.info_hash, peer.who.addr.ip().to_canonical())
        else {
            return;
        };
        let has_enough = peer.holds.count() as usize >= ALLOWED_FAST_COUNT;
        if !peer.fast || has_enough || self.config.choke == ChokePolicy::Closed {
            return;
        }
        let set = allowed_fast_set(ip, info_hash, self.geometry.pieces(), ALLOWED_FAST_COUNT);
        peer.allowed_it = set.into_iter().filter(|piece| self.have.contains(*piece)).collect();
        let blocks: u32 = peer.allowed_it.iter().map(|piece| self.geometry.blocks_in(*piece)).sum();
        peer.allowance = blocks.saturating_mul(2);
        for piece in peer.allowed_it.clone() {
            self.send(key, Message::AllowedFast(piece));
        }
    }

    fn set_choked(&mut self, key: PeerKey, choked: bool) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.choked == choked {
            return;
        }
        peer.choked = choked;
        peer.turned_at = Some(now);
        peer.taken_before = peer.up.total();
        if !choked {
            // Before it may ask, so that it asks for the right thing.
            self.suggest(key);
            return self.send(key, Message::Unchoke);
        }
        peer.told_at = now;
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
    }
}

/// How long a peer counts as new to the choker.
const NEWCOMER: Duration = Duration::from_secs(60);
