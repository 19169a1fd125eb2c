//! Held pieces that are hashed while the swarm is alive.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use tokio::sync::mpsc;

use piecework_core::metainfo::Metainfo;
use piecework_core::{Bitfield, BlockRef, PieceIndex};
use piecework_storage::{HashPool, PieceResult, Store};
use piecework_swarm::PeerKey;

use super::super::doubt::files_of;

/// Held pieces that have to be hashed, and what waits for them.
///
/// After an unclean end a held piece is *unproven* if its file was written to after the last
/// checkpoint. It is hashed when it is requested for the first time, before a block of it is sent,
/// and at the latest before its file gets its final name.
pub(super) struct Proofs {
    unproven: Option<Bitfield>,
    /// Pieces that somebody waits for.
    urgent: VecDeque<PieceIndex>,
    /// Pieces of finished files. Those before `next` were begun.
    due: Option<Bitfield>,
    next: u32,
    /// The blocks that wait for each piece that is to be hashed or being hashed.
    pending: HashMap<PieceIndex, Vec<(PeerKey, BlockRef)>>,
    pub under_way: usize,
    /// Files whose pieces are all held, with the number of those that are unproven.
    files: Vec<(usize, u32)>,
    results_tx: mpsc::Sender<Proof>,
    pub results: mpsc::Receiver<Proof>,
}

/// A piece that was hashed.
pub(super) struct Proof {
    pub piece: PieceIndex,
    pub finished: PieceResult,
}

/// What follows when a piece is right.
#[derive(Default)]
pub(super) struct ProofEffects {
    /// Blocks that waited for it.
    pub blocks: Vec<(PeerKey, BlockRef)>,
    /// Files whose last unproven piece it was.
    pub files: Vec<usize>,
}

impl Proofs {
    pub(super) fn new(unproven: Option<Bitfield>) -> Self {
        let (results_tx, results) = mpsc::channel(AT_A_TIME);
        Self {
            unproven,
            urgent: VecDeque::new(),
            due: None,
            next: 0,
            pending: HashMap::new(),
            under_way: 0,
            files: Vec::new(),
            results_tx,
            results,
        }
    }

    pub(super) fn unproven(&self) -> Option<&Bitfield> {
        self.unproven.as_ref()
    }

    pub(super) fn is_unproven(&self, piece: PieceIndex) -> bool {
        self.unproven.as_ref().is_some_and(|unproven| unproven.contains(piece))
    }

    /// Returns whether a piece is being hashed or a file waits for that.
    pub(super) fn is_working(&self) -> bool {
        self.under_way > 0 || !self.urgent.is_empty() || !self.files.is_empty()
    }

    /// Returns whether a finished file waits.
    pub(super) fn is_finishing(&self) -> bool {
        !self.files.is_empty()
    }

    /// Holds a block back until its piece is proven.
    pub(super) fn hold(&mut self, peer: PeerKey, block: BlockRef) {
        self.ask(block.piece);
        self.pending.entry(block.piece).or_default().push((peer, block));
    }

    /// Removes a block that was held back. Returns whether it was there.
    pub(super) fn cancel(&mut self, peer: PeerKey, block: BlockRef) -> bool {
        let Some(waiting) = self.pending.get_mut(&block.piece) else { return false };
        let place = waiting.iter().position(|held| *held == (peer, block));
        place.is_some_and(|place| {
            waiting.remove(place);
            true
        })
    }

    /// Queues a piece to be hashed soon.
    pub(super) fn ask(&mut self, piece: PieceIndex) {
        if !self.pending.contains_key(&piece) {
            self.pending.insert(piece, Vec::new());
            self.urgent.push_back(piece);
        }
    }

    /// Takes in that all pieces of the file are held. Returns whether they are proven; if not, they
    /// will be hashed.
    pub(super) fn finish(&mut self, metainfo: &Metainfo, file: usize) -> bool {
        let Some(unproven) = &self.unproven else { return true };
        let (geometry, entry) =
            (metainfo.info().geometry(), &metainfo.info().files().entries()[file]);
        let pieces = geometry.pieces_of(entry.span()).map(PieceIndex);
        let pieces: Vec<_> = pieces.filter(|piece| unproven.contains(*piece)).collect();
        let (Some(first), Ok(count)) = (pieces.first(), u32::try_from(pieces.len())) else {
            return true;
        };
        self.next = self.due.as_ref().map_or(first.0, |_| self.next.min(first.0));
        let due = self.due.get_or_insert_with(|| Bitfield::empty(geometry.pieces()));
        for piece in pieces {
            due.insert(piece);
        }
        self.files.push((file, count));
        false
    }

    /// Gives the hash service as many pieces as it may have of this torrent.
    pub(super) fn begin(&mut self, hashing: &HashPool, store: &Arc<Store>) {
        while self.under_way < AT_A_TIME {
            let Some(piece) = self.urgent.pop_front().or_else(|| self.next_due()) else { return };
            self.under_way += 1;
            let results = self.results_tx.clone();
            hashing.finish_piece_on_disk(Arc::clone(store), piece, false, move |finished| {
                // The channel has room for all that are under way, and a torrent that is gone needs
                // no results.
                let _ = results.blocking_send(Proof { piece, finished });
            });
        }
    }

    /// Takes in that a piece was hashed and is right.
    pub(super) fn proven(&mut self, metainfo: &Metainfo, piece: PieceIndex) -> ProofEffects {
        let mut proven = ProofEffects {
            blocks: self.pending.remove(&piece).unwrap_or_default(),
            files: Vec::new(),
        };
        let Some(unproven) = &mut self.unproven else { return proven };
        if !unproven.remove(piece) {
            return proven;
        }
        if unproven.count() == 0 {
            self.unproven = None;
        }
        for file in files_of(metainfo, piece) {
            let Some(at) = self.files.iter().position(|(waiting, _)| *waiting == file) else {
                continue;
            };
            self.files[at].1 -= 1;
            if self.files[at].1 == 0 {
                proven.files.push(self.files.swap_remove(at).0);
            }
        }
        proven
    }

    fn next_due(&mut self) -> Option<PieceIndex> {
        while let Some(due) = self.due.as_mut().filter(|due| due.count() > 0) {
            let piece = PieceIndex(self.next);
            self.next += 1;
            if due.remove(piece) && self.is_unproven(piece) && !self.pending.contains_key(&piece) {
                self.pending.insert(piece, Vec::new());
                return Some(piece);
            }
        }
        self.due = None;
        None
    }
}

/// Pieces of a torrent that the hash service has at a time, so that downloads go on beside.
const AT_A_TIME: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    const PIECE: u64 = 16 << 10;

    /// Files of two pieces each.
    fn torrent() -> Metainfo {
        let file = |name: &str| (vec![name.to_owned()], 2 * PIECE);
        let builder = MetainfoBuilder::folder("folder", vec![file("a"), file("b")]);
        builder.piece_len(PIECE as u32).build(vec![0; 4 * 20]).unwrap()
    }

    fn proofs(unproven: &[u32]) -> Proofs {
        let mut bits = Bitfield::empty(4);
        for piece in unproven {
            bits.insert(PieceIndex(*piece));
        }
        Proofs::new(Some(bits))
    }

    fn block(piece: u32) -> BlockRef {
        BlockRef { piece: PieceIndex(piece), begin: 0, len: 1 }
    }

    #[test]
    fn a_block_waits_until_its_piece_is_proven_and_can_be_cancelled() {
        let (torrent, mut proofs) = (torrent(), proofs(&[0, 1]));
        assert!(proofs.is_unproven(PieceIndex(1)) && !proofs.is_unproven(PieceIndex(2)));
        proofs.hold(PeerKey(1), block(1));
        proofs.hold(PeerKey(2), block(1));
        assert!(proofs.is_working() && proofs.urgent.len() == 1);
        assert!(proofs.cancel(PeerKey(1), block(1)) && !proofs.cancel(PeerKey(1), block(1)));
        let proven = proofs.proven(&torrent, PieceIndex(1));
        assert_eq!(proven.blocks, [(PeerKey(2), block(1))]);
        assert!(!proofs.is_unproven(PieceIndex(1)));
    }

    #[test]
    fn a_file_waits_for_the_last_of_its_unproven_pieces() {
        let (torrent, mut proofs) = (torrent(), proofs(&[0, 1]));
        assert!(proofs.finish(&torrent, 1), "all of it is proven");
        assert!(!proofs.finish(&torrent, 0) && proofs.is_finishing());
        assert_eq!(proofs.next_due(), Some(PieceIndex(0)));
        assert_eq!(proofs.next_due(), Some(PieceIndex(1)));
        assert_eq!(proofs.next_due(), None);
        assert!(proofs.proven(&torrent, PieceIndex(1)).files.is_empty());
        assert_eq!(proofs.proven(&torrent, PieceIndex(0)).files, [0]);
        assert!(!proofs.is_finishing() && proofs.unproven().is_none());
    }
}
