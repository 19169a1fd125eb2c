//! The pieces that a peer may have while it is choked (BEP 6).

use std::net::Ipv4Addr;

use sha1::{Digest, Sha1};

use piecework_core::{InfoHash, PieceIndex};

/// Returns the allowed-fast set of BEP 6 for a peer at `ip`: `count` pieces, or all if there are fewer. It
/// is the same for everybody who computes it, so that a peer cannot collect pieces by connecting again.
pub(super) fn allowed_fast_set(
    ip: Ipv4Addr,
    info_hash: InfoHash,
    pieces: u32,
    count: usize,
) -> Vec<PieceIndex> {
    let count = count.min(pieces as usize);
    let mut set = Vec::with_capacity(count);
    let [a, b, c, _] = ip.octets();
    let mut hash = [0; 20];
    let mut seed = Sha1::new();
    seed.update([a, b, c, 0]);
    seed.update(info_hash.0);
    hash.copy_from_slice(&seed.finalize());
    while set.len() < count {
        for word in hash.chunks_exact(4) {
            let number = word.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
            let piece = PieceIndex(number % pieces);
            if set.len() < count && !set.contains(&piece) {
                set.push(piece);
            }
        }
        let next = Sha1::digest(hash);
        hash.copy_from_slice(&next);
    }
    set
}

/// The number of pieces in the set: `k` of BEP 6.
pub(super) const ALLOWED_FAST_COUNT: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_is_the_one_of_the_specification() {
        // BEP 6, "Canonical allowed fast set generation algorithm", example output.
        let set = |count| -> Vec<u32> {
            allowed_fast_set([80, 4, 4, 200].into(), InfoHash([0xaa; 20]), 1313, count)
                .into_iter()
                .map(|piece| piece.0)
                .collect()
        };
        assert_eq!(set(7), [1059, 431, 808, 1217, 287, 376, 1188]);
        assert_eq!(set(9), [1059, 431, 808, 1217, 287, 376, 1188, 353, 508]);
    }

    #[test]
    fn small_torrents_are_allowed_whole() {
        let set = allowed_fast_set([1, 2, 3, 4].into(), InfoHash([1; 20]), 3, 10);
        assert_eq!(set.len(), 3);
        assert!(allowed_fast_set([1, 2, 3, 4].into(), InfoHash([1; 20]), 0, 10).is_empty());
    }
}
