//! Compares the hash of a piece on disk.

use piecework_core::{BLOCK_LEN, PieceIndex, printable};

use super::error::{Operation, StorageError};
use super::hash::{Digest20, Hasher, digest_each};
use super::store::Store;

/// The result of checking a whole piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceResult {
    /// The hash is right, and the piece is written.
    Verified {
        /// The SHA-1 of each block in order if they were wanted, otherwise empty.
        digests: Vec<[u8; 20]>,
    },
    /// The hash is wrong. A piece that was in memory has not been written.
    Corrupt {
        /// The SHA-1 of each block in order.
        digests: Vec<[u8; 20]>,
        /// The SHA-1 of the piece.
        hash: [u8; 20],
    },
    /// It could not be written or read back. The piece is still missing.
    Failed(StorageError),
}

/// Reads the piece back from the disk and compares its hash.
pub(super) fn check_on_disk(
    store: &Store,
    piece: PieceIndex,
    want_digests: bool,
) -> Result<PieceResult, StorageError> {
    let expected = expected_hash(store, piece)?;
    let (hash, digests) = hash_on_disk(store, piece, want_digests)?;
    if hash == expected {
        return Ok(PieceResult::Verified { digests });
    }
    // Blame needs the digests. Wrong pieces are rare, so reading again is cheaper than always
    // hashing everything twice.
    let digests = if want_digests { digests } else { hash_on_disk(store, piece, true)?.1 };
    Ok(PieceResult::Corrupt { digests, hash })
}

/// Returns whether the piece on disk has the right hash. It does not if its files are missing or
/// too short.
pub(super) fn is_right(store: &Store, piece: PieceIndex) -> Result<bool, StorageError> {
    let expected = expected_hash(store, piece)?;
    match hash_on_disk(store, piece, false) {
        Ok((hash, _)) => Ok(hash == expected),
        Err(StorageError::Missing { .. } | StorageError::Changed { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the SHA-1 of the piece, and of its blocks if they are wanted.
fn hash_on_disk(
    store: &Store,
    piece: PieceIndex,
    want_digests: bool,
) -> Result<(Digest20, Vec<Digest20>), StorageError> {
    let geometry = store.geometry();
    let (start, size) = (geometry.piece_offset(piece), geometry.piece_size(piece) as usize);
    let mut buf = vec![0; size.min(CHUNK)];
    let (mut hasher, mut digests) = (Hasher::default(), Vec::new());
    let mut done = 0;
    while done < size {
        let chunk = (size - done).min(CHUNK);
        let chunk = &mut buf[..chunk];
        store.read_at(start + done as u64, chunk)?;
        hasher.update(chunk);
        if want_digests {
            digests.extend(digest_each(chunk.chunks(BLOCK_LEN as usize)));
        }
        done += chunk.len();
    }
    Ok((hasher.finish(), digests))
}

/// Returns the hash that the piece should have.
pub(super) fn expected_hash(store: &Store, piece: PieceIndex) -> Result<Digest20, StorageError> {
    store.torrent()?.piece_hash(piece).map(|hash| hash.0).ok_or_else(|| {
        let name = printable(store.metainfo().info().name());
        let reason = format!("`{name}` has no piece `{piece}`");
        StorageError::other(Operation::Read, store.root().to_owned(), reason)
    })
}

/// Bytes read at a time: whole blocks, and so many that the cost of a call does not matter.
const CHUNK: usize = 64 * BLOCK_LEN as usize;
