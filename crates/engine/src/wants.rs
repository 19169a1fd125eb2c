//! Priorities of pieces, from priorities of files.

use std::sync::Arc;

use piecework_core::metainfo::Metainfo;
use piecework_core::{Bitfield, PieceIndex, Priority};

/// Returns each piece's priority: the highest of the files that lie in it, without padding. Returns
/// nothing if all are normal. `files` are in the metainfo's order; files beyond its end are normal.
pub(super) fn of_pieces(metainfo: &Metainfo, files: &[Priority]) -> Arc<[Priority]> {
    let entries = metainfo.info().files().entries();
    let of = |file: usize| files.get(file).copied().unwrap_or_default();
    let real = || entries.iter().enumerate().filter(|(_, entry)| !entry.padding && entry.len > 0);
    if real().all(|(file, _)| of(file) == Priority::Normal) {
        return Arc::default();
    }
    let geometry = metainfo.info().geometry();
    let mut pieces = vec![Priority::Skip; geometry.pieces() as usize];
    for (file, entry) in real() {
        for piece in geometry.pieces_of(entry.span()) {
            let piece = &mut pieces[piece as usize];
            *piece = (*piece).max(of(file));
        }
    }
    pieces.into()
}

/// Returns the bytes of wanted pieces, and of those of them that are held. `None` means that all
/// are held.
pub(super) fn bytes(
    metainfo: &Metainfo,
    pieces: &[Priority],
    have: Option<&Bitfield>,
) -> (u64, u64) {
    let geometry = metainfo.info().geometry();
    let total = geometry.total_len();
    let size = |piece| u64::from(geometry.piece_size(piece));
    let wants = |piece: PieceIndex| pieces.get(piece.0 as usize).is_none_or(|p| p.is_wanted());
    let wanted = match pieces {
        [] => total,
        _ => (0..geometry.pieces()).map(PieceIndex).filter(|p| wants(*p)).map(size).sum(),
    };
    let held = match have {
        None => wanted,
        Some(have) => have.iter().filter(|piece| wants(*piece)).map(size).sum(),
    };
    (wanted, held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    const PIECE: u64 = 16 << 10;

    /// Three files: one and a half pieces, none, and half a piece.
    fn torrent() -> Metainfo {
        let file = |name: &str, len| (vec![name.to_owned()], len);
        let files = vec![file("a", PIECE * 3 / 2), file("b", 0), file("c", PIECE / 2)];
        let builder = MetainfoBuilder::folder("folder", files).piece_len(PIECE as u32);
        let pieces = builder.geometry().unwrap().pieces();
        builder.build(vec![0; pieces as usize * 20]).unwrap()
    }

    #[test]
    fn a_piece_is_wanted_as_much_as_the_most_wanted_of_its_files() {
        use Priority::{High, Low, Normal, Skip};
        let torrent = torrent();
        let of = |files: &[Priority]| of_pieces(&torrent, files).to_vec();
        assert_eq!(of(&[Skip, Normal, High]), [Skip, High]);
        assert_eq!(of(&[Low, Normal, Skip]), [Low, Low]);
        assert_eq!(of(&[Skip]), [Skip, Normal]);
        assert_eq!(of(&[Skip, High, Skip]), [Skip, Skip], "an empty file has no piece");
        assert!(of(&[Normal, Skip]).is_empty(), "all that there is is normal");
    }

    #[test]
    fn bytes_are_those_of_whole_pieces() {
        let torrent = torrent();
        let mut have = Bitfield::empty(2);
        have.insert(PieceIndex(0));
        let pieces = of_pieces(&torrent, &[Priority::Skip]);
        assert_eq!(bytes(&torrent, &pieces, Some(&have)), (PIECE, 0));
        assert_eq!(bytes(&torrent, &pieces, None), (PIECE, PIECE));
        assert_eq!(bytes(&torrent, &[], Some(&have)), (2 * PIECE, PIECE));
    }
}
