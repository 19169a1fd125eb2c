//! What follows when held pieces have been hashed, or cannot be read.

use tracing::{debug, warn};

use piecework_storage::{PieceResult, StorageError};

use super::super::TorrentError;
use super::super::doubt::{Doubt, about, files_of};
use super::proofs::{Proof, ProofEffects};
use super::{Reason, Run};

impl Run<'_> {
    /// Takes in that a held piece was hashed.
    pub(super) fn proof(&mut self, proof: Proof) {
        let Proof { piece, finished } = proof;
        self.proofs.under_way = self.proofs.under_way.saturating_sub(1);
        match finished {
            PieceResult::Verified { .. } => {
                let proven = self.proofs.proven(&self.torrent.entry.metainfo, piece);
                self.release(proven);
            }
            PieceResult::Corrupt { .. } => {
                let ours = self.proofs.is_unproven(piece);
                let file = files_of(&self.torrent.entry.metainfo, piece).next().unwrap_or(0);
                let path = self.source.store.path_of(file);
                let why = match ours {
                    true => about(&path, "is not as it was before the program ended unexpectedly"),
                    false => about(&path, "is damaged"),
                };
                let watch = &self.source.watch;
                let files = files_of(&self.torrent.entry.metainfo, piece);
                let files = files.map(|file| (file, ours || watch.is_unfinished(file))).collect();
                self.doubt(Doubt { files, why });
            }
            PieceResult::Failed(error) => self.unreadable(&error),
        }
        self.changed = true;
    }

    /// Sends the blocks that waited for a piece, and names the files that waited.
    pub(super) fn release(&mut self, proven: ProofEffects) {
        for (peer, block) in proven.blocks {
            self.upload(peer, block);
        }
        for file in proven.files {
            self.flushing.finish(file);
        }
    }

    /// Takes in that held content could not be read.
    pub(super) fn unreadable(&mut self, error: &StorageError) {
        debug!(%error, "content cannot be read");
        let doubtful = matches!(error, StorageError::Changed { .. } | StorageError::Altered { .. });
        let file = self.source.store.file_at(error.path());
        match (file.filter(|_| doubtful), error) {
            (Some(file), _) => {
                let ours = self.source.watch.is_unfinished(file);
                self.doubt(Doubt { files: [(file, ours)].into(), why: error.to_string() });
            }
            (None, StorageError::Missing { .. }) => {
                self.fail(TorrentError::Missing(error.clone()));
            }
            (None, error) => self.fail(error.clone().into()),
        }
    }

    /// Ends the swarm, because files may not hold any more what they held. They are checked next.
    pub(super) fn doubt(&mut self, doubt: Doubt) {
        warn!(
            torrent = %self.torrent.entry.info_hash(),
            "{}; what is held of it is checked", doubt.why
        );
        match &mut self.doubt {
            Some(before) => before.merge(doubt),
            None => self.doubt = Some(doubt),
        }
        if !self.ending && self.reason.is_none() {
            self.reason = Some(Reason::Doubt);
        }
    }
}
