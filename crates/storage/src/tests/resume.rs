use std::fs::{self, File};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::{StorageError, Survey, check, survey};
use piecework_core::{Bitfield, Checkpoint};

fn bits(pieces: u32, set: &[u32]) -> Bitfield {
    let mut bits = Bitfield::empty(pieces);
    for piece in set {
        bits.insert(PieceIndex(*piece));
    }
    bits
}

fn list(bits: &Bitfield) -> Vec<u32> {
    bits.iter().map(|piece| piece.0).collect()
}

fn checkpoint(store: &Store, have: &[u32], writing: bool) -> Checkpoint {
    let files = store.fingerprints().unwrap();
    let latest = files.iter().flatten().map(|file| file.mtime_ns).max().unwrap_or(0);
    let have = bits(store.geometry().pieces(), have);
    let unchecked = None;
    Checkpoint { have, files, writing, unchecked, taken_at_ns: latest, downloaded: 0, uploaded: 0 }
}

#[test]
fn a_check_that_was_cut_short_goes_on_with_what_it_had_not_looked_at() {
    let torrent = three_files();
    let store = torrent.store();
    store.prepare().unwrap();
    store.write_at(0, &[&torrent.content]).unwrap();
    for writing in [false, true] {
        let before = checkpoint(&store, &[0, 1, 3], writing);
        let begun = Checkpoint { unchecked: Some(bits(6, &[4, 5])), ..before };
        // Piece 2 was checked and is wrong.
        assert_eq!(surveyed(&store, &begun), (vec![0, 1, 3], vec![4, 5]));
        // Pieces in a file that has changed since are checked again.
        touch(&torrent.path("b"), &begun, 5);
        assert_eq!(surveyed(&store, &begun), (vec![0, 1], vec![2, 3, 4, 5]));
        touch(&torrent.path("b"), &begun, 0);
        let mut unsure = begun.clone();
        unsure.files = store.fingerprints().unwrap();
        unsure.files[0] = Some(piecework_core::Fingerprint::UNSURE);
        let found = survey(&store, &unsure).unwrap();
        assert_eq!((list(&found.trusted), list(&found.check)), (vec![0, 1, 3], vec![4, 5]));
        assert_eq!(list(&found.doubtful), [0, 1]);
        let other = Checkpoint { unchecked: Some(bits(7, &[])), ..begun };
        assert_eq!(surveyed(&store, &other), (vec![], vec![0, 1, 2, 3, 4, 5]));
    }
}

/// Sets the time of modification, in seconds after the checkpoint.
fn touch(path: &Path, checkpoint: &Checkpoint, seconds: i64) {
    let at = checkpoint.taken_at_ns + seconds * 1_000_000_000;
    let time: SystemTime = UNIX_EPOCH + Duration::from_nanos(at as u64);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn surveyed(store: &Store, checkpoint: &Checkpoint) -> (Vec<u32>, Vec<u32>) {
    let Survey { trusted, check, .. } = survey(store, checkpoint).unwrap();
    (list(&trusted), list(&check))
}

/// Pieces 0 to 2 are in a, 2 and 3 in b, 3 to 5 in c.
fn three_files() -> Fixture {
    Fixture::folder(&[("a", 2 * PIECE + 9), ("b", PIECE), ("c", 2 * PIECE)], PIECE)
}

#[test]
fn fingerprints_are_of_what_is_there() {
    let torrent = Fixture::padded();
    let store = torrent.store();
    assert_eq!(store.fingerprints().unwrap(), [None; 4]);
    store.prepare().unwrap();
    store.write_at(0, &[&torrent.content]).unwrap();
    fs::remove_file(torrent.path("c")).unwrap();
    let prints = store.fingerprints().unwrap();
    assert_eq!(prints.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, false]);
    let modified = fs::metadata(torrent.path("a")).unwrap().modified().unwrap();
    let since = modified.duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
    assert_eq!(prints[0].unwrap(), piecework_core::Fingerprint { len: 5, mtime_ns: since });
}

#[test]
fn what_is_held_in_unchanged_files_is_trusted() {
    let torrent = three_files();
    let store = torrent.prepared(true);
    for writing in [false, true] {
        let all = checkpoint(&store, &[0, 1, 2, 3, 4, 5], writing);
        assert_eq!(surveyed(&store, &all), (vec![0, 1, 2, 3, 4, 5], vec![]));
        let some = checkpoint(&store, &[1, 3], writing);
        // Pieces that are not held may have been written while the checkpoint was taken.
        let check = if writing { vec![0, 2, 4, 5] } else { vec![] };
        assert_eq!(surveyed(&store, &some), (vec![1, 3], check));
    }
}

#[test]
fn all_pieces_that_touch_a_changed_file_are_checked() {
    let torrent = three_files();
    let store = torrent.prepared(true);
    let before = checkpoint(&store, &[0, 1, 2, 4], false);
    touch(&torrent.path("b"), &before, 1);
    assert_eq!(surveyed(&store, &before), (vec![0, 1, 4], vec![2, 3]));
    // Too late, too early, or shorter: this was not us.
    let writing = Checkpoint { writing: true, ..before.clone() };
    for seconds in [31, -1] {
        touch(&torrent.path("b"), &before, seconds);
        assert_eq!(surveyed(&store, &writing), (vec![0, 1, 4], vec![2, 3, 5]));
    }
    let c = File::options().write(true).open(torrent.path("c")).unwrap();
    c.set_len(2 * PIECE as u64 - 1).unwrap();
    touch(&torrent.path("b"), &before, 0);
    let mut same_b = writing.clone();
    same_b.files[1] = store.fingerprints().unwrap()[1];
    touch(&torrent.path("c"), &before, 1);
    // Piece 5 lacks a byte and is missing.
    assert_eq!(surveyed(&store, &same_b), (vec![0, 1, 2], vec![3, 4]));
}

#[test]
fn a_missing_file_is_missing_pieces_without_a_look() {
    let torrent = three_files();
    let store = torrent.prepared(true);
    let before = checkpoint(&store, &[0, 1, 2, 3, 4, 5], true);
    fs::remove_file(torrent.path("b")).unwrap();
    assert_eq!(surveyed(&store, &before), (vec![0, 1, 4, 5], vec![]));
    fs::remove_dir_all(torrent.path("")).unwrap();
    assert_eq!(surveyed(&store, &before), (vec![], vec![]));
}

/// The state after a download died: pieces written after the last checkpoint, and holes.
#[test]
fn what_was_written_before_the_process_died_is_checked_where_there_is_data() {
    // Pieces of 64 KiB, which are longer than the blocks of a file system.
    let piece = 4 * PIECE;
    let torrent = Fixture::folder(&[("a", 4 * piece), ("b", 4 * piece)], piece);
    let store = torrent.prepared(false);
    let write = |piece: u32| {
        let start = store.geometry().piece_offset(PieceIndex(piece));
        store.write_at(start, &[torrent.piece(piece)]).unwrap();
    };
    // The file has its full length, with holes.
    write(0);
    write(3);
    let before = checkpoint(&store, &[0, 3], true);
    write(1);
    touch(&torrent.path("a"), &before, 5);
    let (trusted, check) = surveyed(&store, &before);
    assert_eq!(trusted, [0, 3]);
    let sparse = {
        let file = File::open(torrent.path("a")).unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap() < 4 * piece as u64
    };
    assert_eq!(check, if sparse { vec![1] } else { vec![1, 2] });
    let found = check_pieces(&store, &check);
    assert_eq!(found, [1]);
    // Nobody wrote when the checkpoint was taken, so it was somebody else.
    let idle = Checkpoint { writing: false, ..before };
    assert_eq!(surveyed(&store, &idle), (vec![], vec![0, 1, 2, 3]));
}

fn check_pieces(store: &Store, pieces: &[u32]) -> Vec<u32> {
    let wanted = bits(store.geometry().pieces(), pieces);
    list(&check(store, Some(&wanted), |_| {}, &false.into()).unwrap())
}

#[test]
fn a_file_made_after_the_checkpoint_is_checked() {
    let torrent = three_files();
    let store = torrent.store();
    store.prepare_wanted(|file| file == 0).unwrap();
    store.write_at(0, &[torrent.piece(0)]).unwrap();
    let before = checkpoint(&store, &[0], true);
    assert_eq!(before.files[1], None);
    let start = 2 * PIECE as u64;
    store.write_at(start, &[torrent.piece(2)]).unwrap();
    touch(&torrent.path("a"), &before, 1);
    touch(&torrent.path("b"), &before, 1);
    let (trusted, check) = surveyed(&store, &before);
    assert_eq!(trusted, [0]);
    assert!(check.contains(&2) && !check.contains(&3), "{check:?}");
    assert!(check_pieces(&store, &check).contains(&2));
    // A piece that was held in a file that did not exist is not believed.
    let odd = checkpoint_with(&before, &[0, 2]);
    let (trusted, check) = surveyed(&store, &odd);
    assert!(trusted == [0] && check.contains(&2));
}

fn checkpoint_with(before: &Checkpoint, have: &[u32]) -> Checkpoint {
    Checkpoint { have: bits(before.have.len(), have), ..before.clone() }
}

#[test]
fn a_checkpoint_of_another_torrent_is_not_believed() {
    let torrent = three_files();
    let store = torrent.prepared(true);
    let good = checkpoint(&store, &[0, 1], false);
    let other_pieces = Checkpoint { have: Bitfield::full(7), ..good.clone() };
    let other_files = Checkpoint { files: good.files[..2].to_vec(), ..good };
    for other in [other_pieces, other_files] {
        let Survey { trusted, check, .. } = survey(&store, &other).unwrap();
        assert!(trusted.count() == 0 && check.is_full());
    }
}

#[test]
fn a_planted_link_is_an_error() {
    let torrent = three_files();
    let store = torrent.prepared(true);
    let before = checkpoint(&store, &[0], true);
    fs::rename(torrent.path("b"), torrent.root().join("b")).unwrap();
    std::os::unix::fs::symlink("../b", torrent.path("b")).unwrap();
    assert!(matches!(store.fingerprints(), Err(StorageError::Escape { .. })));
    assert!(matches!(survey(&store, &before), Err(StorageError::Escape { .. })));
}

#[derive(Debug, Clone, Copy)]
enum Change {
    None,
    Touch(i64),
    Remove,
    Damage,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens to the files, every trusted piece was held and is right, and a held piece
    /// on disk is trusted or checked.
    #[test]
    fn no_wrong_piece_is_trusted_and_no_held_piece_is_lost(
        lens in prop::collection::vec(1_usize..60_000, 1..5),
        have in prop::collection::vec(any::<bool>(), 16),
        writing in any::<bool>(),
        changes in prop::collection::vec(prop_oneof![
            Just(Change::None), (-40_i64..40).prop_map(Change::Touch),
            Just(Change::Remove), Just(Change::Damage),
        ], 5),
    ) {
        let names: Vec<String> = (0..lens.len()).map(|n| n.to_string()).collect();
        let files: Vec<(&str, usize)> =
            names.iter().map(String::as_str).zip(lens.iter().copied()).collect();
        let torrent = Fixture::folder(&files, PIECE);
        let store = torrent.prepared(true);
        let pieces = store.geometry().pieces();
        let held: Vec<u32> = (0..pieces).filter(|piece| have[*piece as usize]).collect();
        let before = checkpoint(&store, &held, writing);
        for (name, change) in names.iter().zip(&changes) {
            let path = torrent.path(name);
            match change {
                Change::None => {}
                Change::Touch(seconds) => touch(&path, &before, *seconds),
                Change::Remove => fs::remove_file(&path).unwrap(),
                Change::Damage => {
                    let mut bytes = fs::read(&path).unwrap();
                    bytes[0] ^= 1;
                    fs::write(&path, bytes).unwrap();
                    // Long after our process has ended.
                    touch(&path, &before, 3_600);
                }
            }
        }
        let survey = survey(&store, &before).unwrap();
        let right = check(&store, None, |_| {}, &false.into()).unwrap();
        for piece in (0..pieces).map(PieceIndex) {
            let trusted = survey.trusted.contains(piece);
            prop_assert!(!(trusted && survey.check.contains(piece)));
            prop_assert!(!trusted || (right.contains(piece) && before.have.contains(piece)));
            if right.contains(piece) && before.have.contains(piece) {
                prop_assert!(trusted || survey.check.contains(piece));
            }
        }
    }
}
