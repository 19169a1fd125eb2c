//! Carries out the actions of swarms.

use piecework_core::SaturatingFrom;
use std::time::Duration;

use piecework_core::{BlockRef, PieceIndex, Sha1Hash};
use piecework_proto::wire::Message;
use piecework_swarm::{Action, BufferId, Event, PeerKey, PieceOutcome};

use super::{SimEvent, World};
use crate::connection::BlockContent;
use crate::node::Assembly;
use crate::oracle::Violation;
use crate::scenario::Leave;

impl World {
    pub(super) fn act(&mut self, at: usize, action: Action) {
        match action {
            Action::Dial { addr } => {
                // A round trip for the connection, and half of one for the handshake.
                let delay = self.nodes[at].delay * 3;
                let delay =
                    delay + self.by_addr.get(&addr).map_or(delay, |n| self.nodes[*n].delay * 3);
                self.events.push(self.now + delay, SimEvent::Dialled { by: at, addr });
            }
            Action::Disconnect { peer, .. } => self.close(at, peer),
            Action::Send { peer, message } => self.send(at, peer, message),
            Action::SendLater { peer, message } => self.send_later(at, peer, message),
            Action::Flush { peer } => self.flush(at, peer),
            Action::Upload { peer, block } => {
                if !self.nodes[at].swarm.have().contains(block.piece) {
                    self.violated(at, Violation::ServedUnverified(block));
                }
                self.queue_block(at, peer, block);
            }
            // Everybody in this network has the metadata.
            Action::GiveMetadata { .. } => {}
            Action::CancelUpload { peer, block } => self.cancel_block(at, peer, block),
            Action::Keep { block, .. } => self.keep(at, block),
            Action::Discard { .. } => self.nodes[at].arrived = None,
            Action::Verify { piece, want_digests } => self.verify(at, piece, want_digests),
            Action::DropPiece { piece } => {
                if let Some(assembly) = self.nodes[at].assemblies.remove(&piece) {
                    self.nodes[at].blocks_in_memory -= assembly.kept();
                }
            }
            Action::PieceDone { piece, .. } => {
                if !self.nodes[at].right.contains(piece) {
                    self.violated(at, Violation::HoldsWrongPiece(piece));
                }
            }
            Action::Banned { who, .. } => {
                self.nodes[at].banned.insert(who.id);
                let banned = self.by_id.get(&who.id).copied();
                if let Some(banned) = banned
                    && self.nodes[banned].wrong_blocks_sent == 0
                {
                    let name = self.name_of(banned);
                    self.violated(at, Violation::BannedHonest(name));
                }
            }
            Action::Completed => self.complete(at),
            Action::PieceFailed { .. }
            | Action::Proven { .. }
            | Action::Unused { .. }
            | Action::Finished => {}
        }
    }

    /// Handles the arrival of a block.
    pub(super) fn deliver(&mut self, at: usize, key: PeerKey, block: BlockRef, mark: BlockContent) {
        self.nodes[at].arrived = Some((block, mark));
        // There is never more than one buffer, so one number is enough.
        self.tell(at, Event::Block { peer: key, block, buffer: BufferId(0) });
        if let Some((block, _)) = self.nodes[at].arrived.take() {
            self.violated(at, Violation::ForgotBlock(block));
        }
    }

    /// Checks that a request may be sent.
    pub(super) fn check_request(&mut self, at: usize, to: usize, message: &Message) {
        let Message::Request(block) = message else { return };
        if self.geometry.block_index(*block).is_none() {
            self.violated(at, Violation::AskedOutside(*block));
        } else if !self.nodes[to].swarm.have().contains(block.piece) {
            self.violated(at, Violation::AskedForMissing(*block));
        }
    }

    fn keep(&mut self, at: usize, block: BlockRef) {
        let blocks = self.geometry.blocks_in(block.piece);
        let most = self.memory_of(at);
        let node = &mut self.nodes[at];
        let Some((arrived, mark)) = node.arrived.take() else {
            return self.violated(at, Violation::KeptTwice(block));
        };
        let index = self.geometry.block_index(block).filter(|_| arrived == block);
        let assembly = node.assemblies.entry(block.piece).or_insert_with(|| Assembly::new(blocks));
        if !index.is_some_and(|index| assembly.keep(index, mark)) {
            return self.violated(at, Violation::KeptTwice(block));
        }
        node.blocks_in_memory += 1;
        let blocks = node.blocks_in_memory;
        if blocks > most {
            self.violated(at, Violation::OverMemory { blocks, most });
        }
    }

    /// Returns how many blocks a peer may have in memory. At least one piece is allowed.
    fn memory_of(&self, at: usize) -> u32 {
        let bytes = self.scenario.peers[self.nodes[at].group].memory;
        let blocks = u32::try_from(bytes / u64::from(piecework_core::BLOCK_LEN));
        blocks.unwrap_or(u32::MAX).max(self.geometry.blocks_per_piece())
    }

    fn verify(&mut self, at: usize, piece: PieceIndex, want_digests: bool) {
        let blocks = self.geometry.blocks_in(piece);
        let assembly = self.nodes[at].assemblies.remove(&piece);
        let Some(assembly) = assembly.filter(|assembly| assembly.kept() == blocks) else {
            return self.violated(at, Violation::VerifiedIncomplete(piece));
        };
        let digests = if want_digests || !assembly.is_right() {
            assembly.digests(blocks)
        } else {
            Vec::new()
        };
        let outcome = match assembly.is_right() {
            true => PieceOutcome::Verified { digests },
            false => PieceOutcome::Corrupt { digests, hash: WRONG },
        };
        let bytes = u64::from(self.geometry.piece_size(piece));
        let takes = bytes as f64 / self.scenario.hash_rate as f64;
        let done = self.now + Duration::from_nanos(u64::saturating_from(takes * 1e9));
        let outcome = Box::new(outcome);
        self.events.push(done, SimEvent::Checked { node: at, piece, blocks, outcome });
    }

    fn complete(&mut self, at: usize) {
        if !self.nodes[at].right.is_full() {
            let missing = self.nodes[at].right.missing().next().unwrap_or(PieceIndex(0));
            self.violated(at, Violation::HoldsWrongPiece(missing));
        }
        self.nodes[at].completed_at = Some(self.now);
        self.unfinished -= 1;
        self.nodes[at].announcer.complete();
        self.announce(at);
        if self.scenario.peers[self.nodes[at].group].leave == Leave::WhenComplete {
            self.events.push(self.now, SimEvent::Leaves(at));
        }
    }
}

/// The hash of any wrong piece.
const WRONG: Sha1Hash = Sha1Hash([0xbd; 20]);
