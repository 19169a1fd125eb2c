//! The way from requests to verified pieces.

use piecework_core::SaturatingFrom;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::peer::{MAX_STRAYS, Peer};
use super::picker::{AbandonedPiece, EvictedRequest, PickRequest, Receipt, Trust, index_of};
use super::pipeline::{Clock, Lateness, Limits, PendingRequest};
use super::wants::Wants;
use super::{
    Action, BlockDigest, BufferId, Evidence, Giver, PeerFault, PeerIdentity, PeerKey, PieceOutcome,
    Swarm, blame,
};
use piecework_core::{BlockRef, Moment, PieceIndex, Priority, Sha1Hash};
use piecework_proto::wire::Message;

/// How good a peer's past is. The least is offered blocks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Merits {
    trust: Trust,
    missed: u32,
    /// The right pieces that it gave alone, on a logarithmic scale: one grade for twice as many.
    alone: Reverse<u32>,
}

impl Merits {
    fn of(peer: &Peer) -> Self {
        let alone = Reverse(peer.alone.saturating_add(1).ilog2());
        Self { trust: peer.pipeline.trust(), missed: peer.missed, alone }
    }
}

impl Swarm {
    pub(super) fn on_block(&mut self, key: PeerKey, block: BlockRef, buffer: BufferId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&key) else {
            self.totals.wasted += u64::from(block.len);
            return self.actions.push_back(Action::Discard { buffer });
        };
        let parting = peer.parting.is_some();
        peer.opened = true;
        peer.heard_at = now;
        peer.has_spoken = true;
        peer.given_at = Some(now);
        peer.down.add(now, u64::from(block.len));
        self.totals.downloaded += u64::from(block.len);
        let index = self.geometry.block_index(block);
        let since = now.since(self.block_at);
        self.flow += since.min(FLOW_GAP);
        self.block_at = now;
        let clock = Clock { now, flow: self.flow };
        let delivered =
            index.and_then(|index| peer.pipeline.deliver(clock, block.piece, index, block.len));
        let Some(delivered) = delivered else { return self.on_stray(key, block, buffer) };
        if delivered.was_snubbed {
            for PendingRequest { piece, index, .. } in peer.pipeline.iter() {
                self.picker.set_late(key, *piece, *index, false);
            }
        }
        let owed = delivered.owed;
        peer.used_at = Some(now);
        if !self.picker.misses(block, key) {
            self.totals.wasted += u64::from(block.len);
            self.actions.push_back(Action::Discard { buffer });
            self.tell_unused(key, block);
            if parting {
                return self.to_part.push(key);
            }
            return self.offer(key);
        }
        let Some(peer) = self.peers.get(&key) else { return };
        let receipt =
            Receipt { from: key, who: &peer.who, requested_at: owed.asked_at, received_at: now };
        let arrival = self.picker.keep(block, &receipt);
        self.actions.push_back(Action::Keep { buffer, block });
        for other in arrival.others {
            if let Some(peer) = self.peers.get_mut(&other) {
                peer.pipeline.lapse(clock, block.piece, owed.index);
            }
            self.send(other, Message::Cancel(block));
            self.offer(other);
        }
        if arrival.whole {
            let want_digests = self.blame.wants_digests(block.piece);
            self.actions.push_back(Action::Verify { piece: block.piece, want_digests });
        }
        self.offer(key);
    }

    /// Handles new piece priorities.
    pub(super) fn on_wants(&mut self, priorities: Arc<[Priority]>) {
        let wants = Wants::new(priorities, &self.geometry, &self.have);
        if wants.priorities() == self.wants.priorities() {
            return;
        }
        let was_finished = self.is_finished();
        self.wants = wants;
        self.cancel_unwanted();
        let park = |piece| self.blame.is_tried(piece);
        let (rng, selection) = (&mut self.rng, &mut self.selection);
        self.picker.set_priorities(self.wants.priorities(), park, rng, selection);
        self.carry_out_drops();
        for peer in self.peers.values_mut() {
            peer.wanted = self.wants.lacking_in(&peer.holds, &self.have);
            peer.cache.forget();
        }
        self.keys.clear();
        self.keys.extend(self.peers.keys());
        for at in 0..self.keys.len() {
            self.update_interest(self.keys[at]);
        }
        match (was_finished, self.is_finished()) {
            (false, true) => self.on_finished(),
            (true, false) if !self.config.upload_only => self.tell_upload_only(),
            _ => {}
        }
        self.dial();
        self.wake_is_stale = true;
    }

    pub(super) fn on_order(&mut self, sequential: bool) {
        if sequential != self.picker.is_sequential() {
            self.picker.set_sequential(sequential);
        }
    }

    pub(super) fn on_piece_checked(&mut self, piece: PieceIndex, outcome: PieceOutcome) {
        match outcome {
            PieceOutcome::Verified { digests } => self.on_verified(piece, &digests),
            PieceOutcome::Corrupt { digests, hash } => self.on_corrupt(piece, &digests, hash),
            PieceOutcome::StorageFailed => {
                let park = self.blame.is_tried(piece);
                if let Some(finished) = self.picker.reopen(piece, |_| park) {
                    self.totals.wasted += u64::from(self.geometry.piece_size(piece));
                    self.tell_unused_of(piece, finished.givers);
                }
            }
        }
    }

    pub(super) fn on_choke(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.chokes_us = true;
        if peer.pipeline.is_balking() {
            // So that a peer which keeps unchoking and choking us is asked little.
            peer.pipeline.refused(self.now, false);
            self.arm_peer(key);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.fast {
            // It will reject what it does not serve.
            self.picker.disown(key, &mut peer.cache, &mut self.selection);
            self.carry_out_drops();
        } else {
            self.give_up_requests(key);
        }
    }

    pub(super) fn on_unchoke(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.chokes_us = false;
        peer.cache.look_again();
        self.offer(key);
    }

    pub(super) fn on_reject(&mut self, key: PeerKey, block: BlockRef) {
        let clock = self.clock();
        let Some(index) = self.geometry.block_index(block) else { return };
        let is_only = !self.can_ask_others(key);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        // Otherwise it answers a request that was cancelled.
        if peer.pipeline.take(clock, block.piece, index).is_none() {
            peer.pipeline.forget_lapsed(block.piece, index);
            if peer.parting.is_some() {
                self.to_part.push(key);
            }
            return;
        }
        self.picker.unask(key, block.piece, index);
        peer.allowed_us.retain(|piece| *piece != block.piece);
        if !peer.chokes_us {
            peer.cache.refused(block.piece);
            peer.pipeline.refused(self.now, is_only);
            self.arm_peer(key);
        }
        // In any case, other peers must be able to go on with its pieces.
        self.disown(key);
        if self.peers.get(&key).is_some_and(|peer| peer.parting.is_some()) {
            return self.to_part.push(key);
        }
        self.check_refusals(key);
    }

    /// Treats a peer that rejects everything although it serves us like a silent one: it comes last, gives
    /// up its place if that is wanted, and is dropped in the end if others give.
    fn check_refusals(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key).filter(|peer| !peer.chokes_us) else { return };
        let Some(since) = peer.pipeline.refuses_since() else { return };
        if !peer.pipeline.is_snubbed() {
            self.snub(key);
        } else if since + self.config.request_timeout * 2 <= self.now && self.gives_anybody(since) {
            self.drop_peer(key, PeerFault::Unresponsive);
        } else {
            self.free_place(key);
        }
    }

    /// Returns whether other peers have something for us and give what they are asked for.
    fn can_ask_others(&self, key: PeerKey) -> bool {
        let gives = |(other, peer): (&PeerKey, &Peer)| {
            *other != key
                && peer.serves_us()
                && !peer.pipeline.is_snubbed()
                && !peer.pipeline.is_held(self.now)
        };
        self.peers.iter().any(gives)
    }

    /// Returns whether any peer has sent a block since then.
    fn gives_anybody(&self, since: Moment) -> bool {
        let gives = |peer: &Peer| peer.pipeline.block_at().is_some_and(|at| at > since);
        self.peers.values().any(gives)
    }

    /// Checks whether requests of a peer are late.
    pub(super) fn check_requests(&mut self, key: PeerKey, hurry: bool) {
        let clock = self.clock();
        let limits = Limits { timeout: self.config.request_timeout, extra: self.patience, hurry };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let mut late = peer.pipeline.check(clock, limits);
        while let Lateness::Request(PendingRequest { piece, index, .. }) = late {
            peer.pipeline.set_late(clock, piece, index);
            peer.missed = peer.missed.saturating_add(1);
            self.picker.set_late(key, piece, index, true);
            late = peer.pipeline.check(clock, limits);
        }
        match late {
            Lateness::Nothing | Lateness::Request(_) => {}
            Lateness::Lost(PendingRequest { piece, index, .. }) => {
                peer.pipeline.lapse(clock, piece, index);
                self.picker.unask(key, piece, index);
                self.send(key, Message::Cancel(self.geometry.block(piece, index)));
            }
            Lateness::Peer => self.snub(key),
            Lateness::Still => self.free_place(key),
            Lateness::Long => self.end_silence(key),
        }
    }

    /// Snubs a peer that owes blocks and sends none, or rejects requests: its blocks may be requested from
    /// others. Its requests stay, since there may be no other peer.
    fn snub(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.pipeline.snub();
        for PendingRequest { piece, index, .. } in peer.pipeline.iter() {
            self.picker.set_late(key, *piece, *index, true);
        }
        self.disown(key);
        self.free_place(key);
    }

    /// Drops a snubbed peer if others wait for its place, at most one a second.
    fn free_place(&mut self, key: PeerKey) {
        let may_free = self.place_freed_at.is_none_or(|at| at + FREE_PAUSE <= self.now);
        if may_free && self.are_places_wanted() {
            self.place_freed_at = Some(self.now);
            self.put_off_snubbed(key);
            self.drop_peer(key, PeerFault::Unresponsive);
        }
    }

    /// Ends a long silence of a snubbed peer. If any other peer sends blocks, it is of no use; otherwise it
    /// may have lost its requests.
    fn end_silence(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        if !peer.chokes_us && self.gives_anybody(peer.pipeline.silent_since()) {
            return self.drop_peer(key, PeerFault::Unresponsive);
        }
        let lost: Vec<PendingRequest> = peer.pipeline.iter().copied().collect();
        for PendingRequest { piece, index, .. } in lost {
            self.send(key, Message::Cancel(self.geometry.block(piece, index)));
        }
        self.give_up_requests(key);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.pipeline.start_over();
    }

    /// Gives up all requests of a peer, so that others may take them.
    pub(super) fn give_up_requests(&mut self, key: PeerKey) {
        let clock = self.clock();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        while let Some(owed) = peer.pipeline.lapse_last(clock) {
            self.picker.unask(key, owed.piece, owed.index);
        }
        self.disown(key);
    }

    /// Ends the ownership of all pieces that a peer fills.
    fn disown(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        self.picker.disown(key, &mut peer.cache, &mut self.selection);
        self.carry_out_drops();
    }

    fn clock(&self) -> Clock {
        Clock { now: self.now, flow: self.flow }
    }

    /// Requests as many blocks from a peer as it may owe.
    pub(super) fn offer(&mut self, key: PeerKey) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if !peer.serves_us() {
            return;
        }
        let want = peer.pipeline.room(now);
        if want == 0 {
            return;
        }
        let mut request = PickRequest {
            key,
            holds: &peer.holds,
            cache: &mut peer.cache,
            idle: peer.pipeline.owed() <= IDLE_BELOW,
            trust: peer.pipeline.trust(),
            pace: peer.pipeline.delivery_estimate(),
        };
        let clock = Clock { now, flow: self.flow };
        let selection = &mut self.selection;
        selection.blocks.clear();
        if peer.chokes_us {
            self.picker.pick_allowed(&mut request, &peer.allowed_us, want, now, selection);
        } else {
            self.picker.pick(&mut request, want, now, &mut self.rng, selection);
            if selection.blocks.is_empty() && peer.pipeline.owed() == 0 && request.cache.forgive() {
                self.picker.pick(&mut request, want, now, &mut self.rng, selection);
            }
        }
        for block in &selection.blocks {
            let timeout = self.config.request_timeout;
            peer.pipeline.push(clock, block.piece, index_of(*block), timeout);
            self.actions.push_back(Action::Send { peer: key, message: Message::Request(*block) });
        }
        let asked = !selection.blocks.is_empty();
        if asked {
            peer.told_at = now;
            self.arm_peer(key);
        }
        self.carry_out_evictions();
        self.carry_out_drops();
        if let Some(retry) = self.selection.retry.take()
            && !asked
            && self.retry.is_none_or(|earlier| retry < earlier)
        {
            // One look serves all peers with room. Each would otherwise schedule its own.
            let retry = retry.max(self.retried_at + RETRY_GRAIN);
            self.retry = Some(retry);
            self.arm(retry);
        }
    }

    /// Offers newly available blocks to all peers that have room for more.
    pub(super) fn offer_all(&mut self) {
        if self.paused {
            return;
        }
        self.assign_parked();
        // Each pass but the last begins or gives up a piece, so this ends.
        while self.offered != self.picker.supply() {
            self.offered = self.picker.supply();
            self.turn = self.turn.wrapping_add(1);
            let now = self.now;
            let eager =
                self.peers.iter().filter(|(_, p)| p.serves_us() && p.pipeline.room(now) > 0);
            self.eager.clear();
            self.eager.extend(eager.map(|(key, peer)| (Merits::of(peer), *key)));
            self.picker.note_eager(self.eager.len());
            // In turn among peers of the same merits.
            if !self.eager.is_empty() {
                let first = usize::saturating_from(self.turn % self.eager.len() as u64);
                self.eager.rotate_left(first);
            }
            if !self.eager.is_sorted_by_key(|(merits, _)| *merits) {
                self.eager.sort_by_key(|(merits, _)| *merits);
            }
            for at in 0..self.eager.len() {
                self.offer(self.eager[at].1);
            }
        }
    }

    /// Tells the driver about pieces that the picker has given up.
    pub(super) fn carry_out_drops(&mut self) {
        self.totals.wasted += std::mem::take(&mut self.selection.wasted);
        let clock = self.clock();
        for AbandonedPiece { piece: dropped, givers } in self.selection.dropped.drain(..) {
            self.actions.push_back(Action::DropPiece { piece: dropped });
            self.actions.extend(givers.into_iter().map(|giver| unused(dropped, giver)));
            for (key, peer) in &mut self.peers {
                for owed in peer.pipeline.lapse_where(clock, |piece| piece == dropped) {
                    let message = Message::Cancel(self.geometry.block(owed.piece, owed.index));
                    self.actions.push_back(Action::Send { peer: *key, message });
                    peer.told_at = self.now;
                }
            }
        }
    }

    /// Cancels the requests that the picker has given up for better ones.
    fn carry_out_evictions(&mut self) {
        let clock = self.clock();
        while let Some(EvictedRequest { peer, piece, index }) = self.selection.evicted.pop() {
            if let Some(peer) = self.peers.get_mut(&peer) {
                let was_owed = peer.pipeline.lapse(clock, piece, index);
                peer.missed = peer.missed.saturating_add(u32::from(was_owed));
            }
            self.send(peer, Message::Cancel(self.geometry.block(piece, index)));
            // It has room for something else now.
            self.picker.nudge();
        }
    }

    fn on_verified(&mut self, piece: PieceIndex, digests: &[BlockDigest]) {
        let Some(finished) = self.picker.hold(piece) else { return };
        self.have.insert(piece);
        self.totals.verified += u64::from(self.geometry.piece_size(piece));
        let was_wanted = self.wants.got(piece, &self.geometry);
        self.note_givers(&finished.givers);
        self.note_alone(&finished.givers);
        self.actions.push_back(Action::PieceDone { piece, givers: finished.givers });
        self.tell_have(piece);
        self.keys.clear();
        let done_with = self.peers.iter().filter(|(_, p)| p.interests_us && p.wanted == 0);
        self.keys.extend(done_with.map(|(key, _)| *key));
        for at in 0..self.keys.len() {
            self.update_interest(self.keys[at]);
        }
        for blame::Verdict { who, evidence, is_known } in self.blame.verified(piece, digests) {
            let evidence = self.evidence(piece, evidence);
            if is_known {
                let who = proved(&who);
                self.actions.push_back(Action::Proven { who, piece, evidence });
            } else {
                self.punish(piece, who, evidence);
            }
        }
        if was_wanted && self.is_finished() {
            self.on_finished();
        }
        if self.have.is_full() {
            self.on_complete();
        }
    }

    fn on_corrupt(&mut self, piece: PieceIndex, digests: &[BlockDigest], hash: Sha1Hash) {
        // If one peer gave it alone, that peer is guilty and the piece is like any other.
        let is_tried = self.blame.is_tried(piece);
        let reopened = self.picker.reopen(piece, |f| is_tried || f.givers.len() > 1);
        let Some(finished) = reopened else { return };
        self.totals.wasted += u64::from(self.geometry.piece_size(piece));
        let who: Vec<_> = finished.givers.iter().map(|giver| Arc::clone(&giver.who)).collect();
        self.actions.push_back(Action::PieceFailed { piece, givers: finished.givers, hash });
        let wrong =
            blame::CorruptPiece { piece, hash, who: &who, giver_of: &finished.giver_of, digests };
        if let Some(guilty) = self.blame.corrupt(&wrong) {
            let evidence = Evidence { block: None, hash, sent: None, right: None };
            self.punish(piece, guilty, evidence);
        }
    }

    fn punish(&mut self, piece: PieceIndex, who: Arc<PeerIdentity>, evidence: Evidence) {
        self.actions.push_back(Action::Banned { who: proved(&who), piece, evidence });
        self.ban(&who);
    }

    fn evidence(&self, piece: PieceIndex, found: blame::Difference) -> Evidence {
        let blame::Difference { index, hash, sent, right } = found;
        let block = Some(self.geometry.block(piece, index));
        Evidence { block, hash, sent: Some(sent), right: Some(right) }
    }

    /// Reports that a block of a peer was discarded.
    fn tell_unused(&mut self, key: PeerKey, block: BlockRef) {
        let Some(peer) = self.peers.get(&key) else { return };
        let (who, bytes) = (Arc::clone(&peer.who), u64::from(block.len));
        self.actions.push_back(Action::Unused { who, piece: block.piece, blocks: 1, bytes });
    }

    /// Reports that all received blocks of a piece were discarded, with nobody to blame.
    fn tell_unused_of(&mut self, piece: PieceIndex, givers: Vec<Giver>) {
        self.actions.extend(givers.into_iter().map(|giver| unused(piece, giver)));
    }

    /// The last wanted piece is held, or the last missing piece is not wanted any more.
    fn on_finished(&mut self) {
        self.actions.push_back(Action::Finished);
        self.keys.clear();
        self.keys.extend(self.peers.keys());
        for at in 0..self.keys.len() {
            self.part_if_both_complete(self.keys[at]);
        }
        if !self.config.upload_only {
            self.tell_upload_only();
        }
    }

    fn on_complete(&mut self) {
        self.actions.push_back(Action::Completed);
        self.flush();
        self.keys.clear();
        self.keys.extend(self.peers.keys());
        for at in 0..self.keys.len() {
            self.suggest(self.keys[at]);
        }
    }

    /// Cancels all requests for pieces that are not wanted any more.
    fn cancel_unwanted(&mut self) {
        let clock = self.clock();
        for (key, peer) in &mut self.peers {
            let cancelled = peer.pipeline.lapse_where(clock, |piece| !self.wants.is_wanted(piece));
            for owed in cancelled {
                let message = Message::Cancel(self.geometry.block(owed.piece, owed.index));
                self.actions.push_back(Action::Send { peer: *key, message });
                peer.told_at = self.now;
            }
        }
    }

    /// Handles a block whose bytes were not kept. It counts neither as given nor as an answer. If the
    /// driver and the swarm disagree on what was requested, the block is requested again.
    pub(super) fn on_unasked(&mut self, key: PeerKey, block: BlockRef) {
        self.totals.downloaded += u64::from(block.len);
        let Some(peer) = self.peers.get_mut(&key) else {
            self.totals.wasted += u64::from(block.len);
            return;
        };
        peer.opened = true;
        peer.heard_at = self.now;
        if peer.parting.is_some() {
            self.to_part.push(key);
        }
        if let Some(index) = self.geometry.block_index(block) {
            let clock = Clock { now: self.now, flow: self.flow };
            if peer.pipeline.take(clock, block.piece, index).is_some() {
                self.totals.wasted += u64::from(block.len);
                self.picker.unask(key, block.piece, index);
                return self.offer(key);
            }
            if peer.pipeline.forget_lapsed(block.piece, index) {
                self.totals.wasted += u64::from(block.len);
                return self.tell_unused(key, block);
            }
        }
        self.count_stray(key, block);
    }

    /// Handles a block that the peer was not asked for, or not recently.
    fn on_stray(&mut self, key: PeerKey, block: BlockRef, buffer: BufferId) {
        self.actions.push_back(Action::Discard { buffer });
        self.count_stray(key, block);
    }

    fn count_stray(&mut self, key: PeerKey, block: BlockRef) {
        self.totals.wasted += u64::from(block.len);
        if self.geometry.contains(block.piece) {
            self.tell_unused(key, block);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.strays += 1;
        if !self.geometry.is_inside(block) {
            self.drop_peer(key, PeerFault::OutOfRange);
        } else if peer.strays > MAX_STRAYS {
            self.drop_peer(key, PeerFault::Unrequested);
        }
    }
}

/// Returns the identity without the listening address that only the peer itself claims: it may be that of
/// another peer.
fn proved(who: &Arc<PeerIdentity>) -> Arc<PeerIdentity> {
    if who.is_dialled() || who.listens_at.is_none() {
        return Arc::clone(who);
    }
    Arc::new(PeerIdentity { listens_at: None, ..(**who).clone() })
}

fn unused(piece: PieceIndex, giver: Giver) -> Action {
    Action::Unused { who: giver.who, piece, blocks: giver.blocks, bytes: giver.bytes }
}

/// A peer that owes no more blocks than this may help others with theirs.
const IDLE_BELOW: usize = 2;

/// Time between two looks of all peers at blocks that others owe. Blocks become late after hundreds of
/// milliseconds.
const RETRY_GRAIN: Duration = Duration::from_millis(25);

/// Blocks are flowing if the one before came within this time.
const FLOW_GAP: Duration = Duration::from_millis(500);

/// Time between two peers that are dropped because others wait for their places, so that an outage of our
/// own line does not cost us all peers.
const FREE_PAUSE: Duration = Duration::from_secs(1);
