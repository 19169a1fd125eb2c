use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use super::*;
use crate::StorageError;
use crate::hash::Digest20;
use crate::sweep::{Sink, Sweep};
use sha_lanes::Level;

/// The results of a sweep, by piece; `None` for pieces that could not be read.
#[derive(Default)]
struct Told {
    unwanted: Vec<u32>,
    pieces: Mutex<BTreeMap<u32, Option<Digest20>>>,
}

impl Told {
    fn tell(&self, piece: PieceIndex, digest: Option<Digest20>) {
        assert_eq!(self.pieces.lock().insert(piece.0, digest), None, "{piece} came twice");
    }
}

impl Sink for Told {
    fn wants(&self, piece: PieceIndex) -> bool {
        !self.unwanted.contains(&piece.0)
    }

    fn hashed(&self, digests: &[(PieceIndex, Digest20)]) {
        digests.iter().for_each(|(piece, digest)| self.tell(*piece, Some(*digest)));
    }

    fn unreadable(&self, piece: PieceIndex, _: StorageError) -> Result<(), StorageError> {
        self.tell(piece, None);
        Ok(())
    }
}

/// Sweeps `torrent` with every level of this machine. `unreadable` and `unwanted` are pieces.
fn sweep_all(torrent: &Fixture, store: &Store, unreadable: &[u32], unwanted: &[u32]) {
    let geometry = store.geometry();
    let wanted = (0..geometry.pieces()).filter(|piece| !unwanted.contains(piece));
    let digests = digest_each((0..geometry.pieces()).map(|piece| torrent.piece(piece)));
    let expected: BTreeMap<u32, Option<Digest20>> = wanted
        .map(|piece| (piece, (!unreadable.contains(&piece)).then(|| digests[piece as usize])))
        .collect();
    for (level, threads) in Level::available().flat_map(|level| [(level, 1), (level, 3)]) {
        let told = Told { unwanted: unwanted.to_vec(), ..Told::default() };
        let (files, cancel) = (store.files(), &AtomicBool::new(false));
        Sweep { files, geometry, threads, level, cancel }.run(&told).unwrap();
        assert!(told.pieces.into_inner() == expected, "{level:?}, {threads} threads");
    }
}

#[test]
fn pieces_of_any_length_and_number_are_hashed_side_by_side() {
    // Some are read whole and many at once, some in chunks. The last piece is shorter.
    for (piece_len, pieces) in
        [(PIECE, 1), (PIECE, 33), (2 * PIECE, 17), (4 * PIECE, 20), (8 * PIECE, 5), (1 << 20, 2)]
    {
        let half = pieces * piece_len / 2;
        let torrent = Fixture::folder(&[("a", half), ("b", 1), ("c", half - 100)], piece_len);
        sweep_all(&torrent, &torrent.prepared(true), &[], &[]);
    }
}

#[test]
fn a_torrent_of_nothing_is_swept_at_once() {
    let torrent = Fixture::single(0, PIECE);
    sweep_all(&torrent, &torrent.prepared(true), &[], &[]);
}

#[test]
fn pieces_nobody_wants_are_left_out() {
    let torrent = Fixture::single(30 * PIECE, PIECE);
    let unwanted: Vec<u32> = (0..30).filter(|piece| piece % 4 == 1 || *piece > 24).collect();
    sweep_all(&torrent, &torrent.prepared(true), &[], &unwanted);
    sweep_all(&torrent, &torrent.prepared(true), &[], &(0..30).collect::<Vec<_>>());
}

#[test]
fn a_piece_that_cannot_be_read_does_no_harm_to_those_beside_it() {
    // Pieces of 16 KiB are read together, those of 64 KiB in chunks. The end of `a` is missing.
    for piece_len in [PIECE, 4 * PIECE] {
        let files = [("a", 3 * piece_len), ("b", 5 * piece_len), ("c", 9 * piece_len + 1)];
        let torrent = Fixture::folder(&files, piece_len);
        let store = torrent.prepared(true);
        let shorter = 3 * piece_len as u64 - 1;
        File::options().write(true).open(torrent.path("a")).unwrap().set_len(shorter).unwrap();
        sweep_all(&torrent, &store, &[2], &[]);
        std::fs::remove_file(torrent.path("b")).unwrap();
        store.close_files();
        sweep_all(&torrent, &store, &[2, 3, 4, 5, 6, 7], &[]);
    }
}
