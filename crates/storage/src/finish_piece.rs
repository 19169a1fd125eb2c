//! A piece in memory, from its blocks to its place on the disk.

use std::fmt;
use std::sync::Arc;

use piecework_core::{BlockBuf, PieceIndex};

use super::error::{Operation, StorageError};
use super::hash::{Digest20, digest_each};
use super::piece_check::{Finished, expected_hash};
use super::store::Store;

/// A piece in memory, to be hashed and written.
pub struct FinishPiece {
    /// Where it is to be written.
    pub store: Arc<Store>,
    /// The piece that was verified.
    pub piece: PieceIndex,
    /// All of it, block by block in order.
    pub blocks: Vec<BlockBuf>,
    /// Whether the blocks' digests are wanted even if the piece is right.
    pub want_digests: bool,
    /// Told how it went, after the blocks were dropped.
    pub done: Box<dyn FnOnce(Finished) + Send>,
}

impl FinishPiece {
    /// Gives the blocks back, then tells what came of it.
    pub(super) fn answer(self, conclude: impl FnOnce(&Self) -> Result<Finished, StorageError>) {
        let result = conclude(&self);
        let Self { store, blocks, done, .. } = self;
        drop((blocks, store));
        done(result.unwrap_or_else(Finished::Failed));
    }

    /// Writes the piece if `digest` is what it should be.
    pub(super) fn conclude(&self, digest: Digest20) -> Result<Finished, StorageError> {
        let parts = self.parts();
        let digests = || digest_each(parts.iter().copied());
        if digest != expected_hash(&self.store, self.piece)? {
            return Ok(Finished::Corrupt { digests: digests(), hash: digest });
        }
        self.store.write_at(self.store.geometry().piece_offset(self.piece), &parts)?;
        Ok(Finished::Verified { digests: if self.want_digests { digests() } else { Vec::new() } })
    }

    pub(super) fn check_len(&self) -> Result<(), StorageError> {
        let Self { store, piece, .. } = self;
        expected_hash(store, *piece)?;
        let size = store.geometry().piece_size(*piece) as usize;
        let got = self.len();
        if size == got {
            return Ok(());
        }
        // Not what peers sent, but what was handed on of it: nobody is to blame.
        let reason = format!("piece `{piece}` came in `{got}` bytes instead of `{size}`");
        Err(StorageError::other(Operation::Write, store.root().to_owned(), reason))
    }

    /// Bytes of its blocks.
    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum()
    }

    pub(super) fn parts(&self) -> Vec<&[u8]> {
        self.blocks.iter().map(|block| &block[..]).collect()
    }
}

impl fmt::Debug for FinishPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinishPiece")
            .field("piece", &self.piece)
            .field("blocks", &self.blocks.len())
            .finish_non_exhaustive()
    }
}
