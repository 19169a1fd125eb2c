//! Carries out what the swarm wants done.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::io::Errno;
use tracing::{debug, info, warn};

use crate::net;
use piecework_core::{BlockRef, PieceIndex, printable};
use piecework_proto::wire::{Handshake, Message, MetadataMessage};
use piecework_swarm::{Action, Event, Giver, PeerIdentity, PeerKey};

use super::super::{PieceGiver, TorrentEvent};
use super::{DialFailure, Run};

impl Run<'_> {
    /// Carries out all of the swarm's actions.
    pub(super) fn act(&mut self) {
        let mut broken = Vec::new();
        loop {
            while let Some(action) = self.swarm.poll() {
                self.carry_out(action, &mut broken);
            }
            if broken.is_empty() {
                if self.share_memory() {
                    continue;
                }
                break;
            }
            for peer in broken.drain(..) {
                if self.links.remove(&peer).is_some() {
                    debug!(?peer, "dropped: it does not read the messages sent to it");
                    self.tell(Event::Disconnected { peer });
                }
            }
        }
        self.assembly.turn_over();
        for peer in self.unflushed.drain(..) {
            if let Some(member) = self.links.get_mut(&peer) {
                member.unflushed = false;
                member.link.outbox().flush();
            }
        }
        self.count_leeching(self.is_leeching());
    }

    fn carry_out(&mut self, action: Action, broken: &mut Vec<PeerKey>) {
        let hashing = &self.torrent.means.hashing;
        match action {
            Action::Dial { addr } => self.dial(addr),
            Action::Disconnect { peer, fault } => {
                debug!(?peer, %fault, "dropped a peer");
                self.links.remove(&peer);
                self.changed = true;
            }
            Action::Send { peer, message } => {
                let is_answered = matches!(message, Message::Reject(block)
                    if self.on_its_way.take() == Some((peer, block)));
                if !is_answered && self.send(peer, &message, broken) {
                    self.flush_later(peer);
                }
            }
            Action::SendLater { peer, message } => {
                self.send(peer, &message, broken);
            }
            Action::Flush { peer } => self.flush_later(peer),
            Action::Upload { peer, block } if self.proofs.is_unproven(block.piece) => {
                self.proofs.hold(peer, block);
            }
            Action::Upload { peer, block } => self.upload(peer, block),
            Action::GiveMetadata { peer, id, piece } => {
                self.give_metadata(peer, id, piece, broken);
            }
            Action::CancelUpload { peer, block } => self.cancel_upload(peer, block),
            Action::Keep { buffer, block } => self.assembly.keep(hashing, buffer, block),
            Action::Discard { buffer } => self.assembly.discard(buffer),
            Action::Verify { piece, want_digests } => {
                self.assembly.verify(hashing, piece, want_digests);
            }
            Action::DropPiece { piece } => self.assembly.drop_piece(piece),
            Action::PieceDone { piece, givers } => {
                self.changed = true;
                self.torrent.means.counters.verified.add(1);
                self.piece_done(piece);
                let givers = self.told(givers);
                self.observe(&TorrentEvent::PieceDone { piece, givers });
            }
            Action::PieceFailed { piece, givers, hash } => {
                self.corrupt(piece);
                let givers = self.told(givers);
                self.observe(&TorrentEvent::PieceFailed { piece, givers, hash });
            }
            Action::Banned { who, piece, evidence } => {
                self.torrent.means.counters.banned.add(1);
                self.say_banned(&who, piece);
                self.observe(&TorrentEvent::Banned { who, piece, evidence });
            }
            Action::Proven { who, piece, evidence } => {
                self.observe(&TorrentEvent::Proven { who, piece, evidence });
            }
            Action::Unused { who, piece, blocks, bytes } => {
                self.observe(&TorrentEvent::Unused { who, piece, blocks, bytes });
            }
            Action::Finished => self.finished(),
            Action::Completed => self.flushing.complete(),
        }
    }

    /// Puts a message into the peer's outbox. Returns whether that worked. A peer whose outbox is
    /// full goes to `broken`.
    fn send(&mut self, peer: PeerKey, message: &Message, broken: &mut Vec<PeerKey>) -> bool {
        let Some(member) = self.links.get_mut(&peer) else { return false };
        let is_sent = member.link.outbox().send(message).is_ok();
        if !is_sent {
            broken.push(peer);
        }
        is_sent
    }

    /// Puts a block into the peer's outbox.
    pub(super) fn upload(&mut self, peer: PeerKey, block: BlockRef) {
        if let Some(member) = self.links.get_mut(&peer) {
            member.link.outbox().upload(block);
            self.flush_later(peer);
        }
    }

    fn give_metadata(&mut self, peer: PeerKey, id: u8, piece: u32, broken: &mut Vec<PeerKey>) {
        let Some(member) = self.links.get(&peer) else { return };
        if !member.link.outbox().give_metadata(id, piece) {
            let payload = MetadataMessage::Reject { piece }.encode();
            self.send(peer, &Message::Extended { id, payload }, broken);
        }
        self.flush_later(peer);
    }

    fn cancel_upload(&mut self, peer: PeerKey, block: BlockRef) {
        if !self.proofs.cancel(peer, block)
            && let Some(member) = self.links.get(&peer)
            && !member.link.outbox().cancel(block)
        {
            // BEP 6: a request is answered once, by a block or by a rejection.
            self.on_its_way = Some((peer, block));
        }
    }

    /// Notes that the peer's send loop has something to do. It is woken when the turn ends.
    fn flush_later(&mut self, peer: PeerKey) {
        if let Some(member) = self.links.get_mut(&peer)
            && !member.unflushed
        {
            member.unflushed = true;
            self.unflushed.push(peer);
        }
    }

    fn say_banned(&self, who: &PeerIdentity, piece: PieceIndex) {
        let (addr, piece) = (who.addr, piece.0);
        if self.torrent.record().rare.user.iter().any(|heard| heard.addr == addr) {
            let name = self.torrent.entry.metainfo.info().name();
            warn!(%addr, piece, torrent = %printable(name),
                "a peer that you named sent a wrong block; it is dropped, and tried again after a \
                minute or more");
        } else {
            info!(%addr, piece, "banned a peer for a wrong block");
        }
    }

    fn dial(&mut self, addr: SocketAddr) {
        let means = Arc::clone(&self.torrent.means);
        let ours = Handshake::ours(self.torrent.entry.info_hash(), means.identity.peer_id);
        self.dialing += 1;
        let is_full = !means.connections.has_place(means.now(), addr.ip());
        let blocked = means.connections.is_blocked(addr.ip());
        let dialed = self.dialed_tx.clone();
        tokio::spawn(async move {
            let dial = async {
                if is_full {
                    debug!(%addr, "not dialled: the session has as many connections as it may");
                    let prevented = DialFailure { addr, is_prevented: true, hung_up: false };
                    // A torrent that is gone wants no connection.
                    let _ = dialed.send(Err(prevented)).await;
                    return;
                }
                // Closed only with the session, and then nobody waits for the dial.
                let Ok(_permit) = means.connections.dialing.acquire().await else { return };
                let config = &means.config;
                let outcome = if blocked {
                    Err(net::HandshakeError::Io(io::ErrorKind::PermissionDenied.into()))
                } else {
                    let options = net::DialOptions {
                        interface: config.interface.as_deref(),
                        encryption: means.connections.bounds.lock().encryption,
                        connect_timeout: config.connect_timeout,
                        handshake_timeout: config.handshake_timeout,
                    };
                    net::dial(addr, &ours, options).await
                };
                if let Err(error) = &outcome {
                    debug!(%addr, %error, "a dial failed");
                }
                // A torrent that is gone wants no connection.
                let failed = |error: net::HandshakeError| DialFailure {
                    addr,
                    is_prevented: is_ours(&error),
                    hung_up: error.is_hang_up(),
                };
                let _ = dialed.send(outcome.map_err(failed)).await;
            };
            tokio::select! {
                () = dial => {}
                () = dialed.closed() => {}
            }
        });
    }

    /// Takes in that blocks were sent. Observers hear of whole pieces at once, of parts after some
    /// time.
    pub(super) fn sent(&mut self, peer: PeerKey, pieces: &[(PieceIndex, u32, u32)]) {
        if self.torrent.means.observer().is_none() {
            return;
        }
        let (means, geometry) = (Arc::clone(&self.torrent.means), self.torrent.geometry);
        let now = means.now();
        self.tally.note(now, peer, self.swarm.identity(peer));
        for (piece, blocks, bytes) in pieces {
            let whole = geometry.blocks_in(*piece);
            if let Some(part) = self.tally.add(now, peer, (*piece, *blocks, *bytes), whole) {
                self.observe(&TorrentEvent::Sent(part.told(&means.clock)));
            }
        }
    }

    /// Tells observers of parts of pieces that were not continued; of all parts if `all`.
    pub(super) fn tell_sent(&mut self, all: bool) {
        let means = Arc::clone(&self.torrent.means);
        let links = &self.links;
        for part in self.tally.settle(means.now(), all, |peer| links.contains_key(&peer)) {
            self.observe(&TorrentEvent::Sent(part.told(&means.clock)));
        }
    }

    fn told(&self, givers: Vec<Giver>) -> Vec<PieceGiver> {
        let means = &self.torrent.means;
        let told = |giver: Giver| PieceGiver {
            took: giver.received_at.since(giver.requested_at),
            who: giver.who,
            blocks: giver.blocks,
            ranges: giver.ranges,
            bytes: giver.bytes,
            requested_at: means.clock.unix_ms(giver.requested_at),
            received_at: means.clock.unix_ms(giver.received_at),
        };
        givers.into_iter().map(told).collect()
    }

    pub(super) fn observe(&self, event: &TorrentEvent) {
        if let Some(observer) = self.torrent.means.observer() {
            observer.event(&self.torrent.entry.metainfo, event);
        }
    }
}

/// Returns whether a dial failed for a lack of our own, which says nothing about the peer.
fn is_ours(error: &net::HandshakeError) -> bool {
    let net::HandshakeError::Io(error) = error else { return false };
    let wants = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| wants.contains(&errno))
}
