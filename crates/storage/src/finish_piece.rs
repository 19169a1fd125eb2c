//! A piece in memory: its hash is checked, then it is written to disk.

use std::fmt;
use std::sync::Arc;

use piecework_core::{BlockBuf, PieceIndex};

use super::error::{Operation, StorageError};
use super::hash::{Digest20, digest_each};
use super::piece_check::{PieceResult, expected_hash};
use super::store::Store;

/// A piece in memory that is to be hashed and written.
pub struct FinishPiece {
    /// The store to write it to.
    pub store: Arc<Store>,
    /// The number of the piece.
    pub piece: PieceIndex,
    /// The whole piece, block by block in order.
    pub blocks: Vec<BlockBuf>,
    /// Whether the digests of the blocks are wanted even if the piece is right.
    pub want_digests: bool,
    /// Called with the result, after the blocks were dropped.
    pub done: Box<dyn FnOnce(PieceResult) + Send>,
}

impl FinishPiece {
    /// Drops the blocks, then reports the result.
    pub(super) fn answer(self, conclude: impl FnOnce(&Self) -> Result<PieceResult, StorageError>) {
        let result = conclude(&self);
        let Self { store, blocks, done, .. } = self;
        drop((blocks, store));
        done(result.unwrap_or_else(PieceResult::Failed));
    }

    /// Writes the piece if `digest` is right.
    pub(super) fn conclude(&self, digest: Digest20) -> Result<PieceResult, StorageError> {
        let parts = self.parts();
        let digests = || digest_each(parts.iter().copied());
        if digest != expected_hash(&self.store, self.piece)? {
            return Ok(PieceResult::Corrupt { digests: digests(), hash: digest });
        }
        self.store.write_at(self.store.geometry().piece_offset(self.piece), &parts)?;
        Ok(PieceResult::Verified {
            digests: if self.want_digests { digests() } else { Vec::new() },
        })
    }

    pub(super) fn check_len(&self) -> Result<(), StorageError> {
        let Self { store, piece, .. } = self;
        expected_hash(store, *piece)?;
        let size = store.geometry().piece_size(*piece) as usize;
        let got = self.len();
        if size == got {
            return Ok(());
        }
        // Not the fault of a peer, but of the code that passed it on: nobody is to blame.
        let reason = format!("piece `{piece}` has `{got}` bytes instead of `{size}`");
        Err(StorageError::other(Operation::Write, store.root().to_owned(), reason))
    }

    /// Returns the length of all blocks in bytes.
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
