use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::{CheckProgress, StorageError, check, file_reports, verify};
use piecework_core::Bitfield;

fn right_pieces(store: &Store) -> Vec<u32> {
    let right = check(store, None, |_| {}, &false.into()).unwrap();
    right.iter().map(|piece| piece.0).collect()
}

#[test]
fn nothing_on_disk_is_no_pieces_and_no_error() {
    let torrent = Fixture::folder(&[("a", 3 * PIECE), ("b", 10)], PIECE);
    assert!(right_pieces(&torrent.store()).is_empty());
    assert!(right_pieces(&torrent.prepared(false)).is_empty());
}

#[test]
fn a_missing_or_short_file_is_missing_pieces() {
    // Pieces 0 to 2 are in a, 2 and 3 in b, 3 to 5 in c.
    let files = [("a", 2 * PIECE + 9), ("b", PIECE), ("c", 2 * PIECE)];
    let torrent = Fixture::folder(&files, PIECE);
    let store = torrent.prepared(true);
    assert_eq!(right_pieces(&store), [0, 1, 2, 3, 4, 5]);
    fs::remove_file(torrent.path("b")).unwrap();
    assert_eq!(right_pieces(&store), [0, 1, 4, 5]);
    File::options()
        .write(true)
        .open(torrent.path("c"))
        .unwrap()
        .set_len(2 * PIECE as u64 - 1)
        .unwrap();
    assert_eq!(right_pieces(&store), [0, 1, 4]);
}

#[test]
fn a_file_longer_than_the_torrent_says_is_an_error_and_is_left_alone() {
    let torrent = Fixture::folder(&[("a", 100), ("b", 100)], PIECE);
    let store = torrent.prepared(true);
    let longer = [fs::read(torrent.path("a")).unwrap(), vec![0]].concat();
    fs::write(torrent.path("a"), &longer).unwrap();
    let error = check(&store, None, |_| {}, &false.into()).unwrap_err();
    let path = torrent.path("a");
    assert_eq!(error, StorageError::TooLong { path, len: 101, wanted: 100 });
    assert!(error.to_string().contains("is longer than in the torrent"), "{error}");
    assert_eq!(fs::read(torrent.path("a")).unwrap(), longer);

    let (right, reports) = verify(&store, |_| {}, &false.into()).unwrap();
    assert!(right.is_full());
    assert_eq!((reports[0].is_whole(), reports[0].found_len), (false, Some(101)));
    assert!(reports[1].is_whole());
}

#[test]
fn damage_is_told_file_by_file() {
    let files = [("a", 2 * PIECE + 9), ("b", 9), ("c", 2 * PIECE), ("empty", 0), ("e2", 0)];
    let torrent = Fixture::folder(&files, PIECE);
    let store = torrent.prepared(true);
    store.write_at(2 * PIECE as u64, &[&[!torrent.content[2 * PIECE]]]).unwrap();
    fs::remove_file(torrent.path("empty")).unwrap();
    let (right, reports) = verify(&store, |_| {}, &false.into()).unwrap();
    assert_eq!(reports, file_reports(&store, &right).unwrap());
    let report = |name: &str| {
        let path = PathBuf::from("t").join(name);
        reports.iter().find(|report| report.path == path).unwrap()
    };
    assert_eq!(reports.len(), 5);
    for name in ["a", "b", "c"] {
        assert_eq!(report(name).bad_pieces, [PieceIndex(2)]);
        assert!(!report(name).is_whole() && !report(name).is_missing());
    }
    assert!(report("empty").is_missing() && !report("empty").is_whole());
    assert!(report("e2").is_whole());
}

#[test]
fn pieces_longer_than_what_is_read_at_a_time_are_checked_whole() {
    let torrent = Fixture::folder(&[("a", 5 << 20), ("b", (2 << 20) + 1)], 4 << 20);
    let store = torrent.prepared(true);
    assert_eq!(right_pieces(&store), [0, 1]);
    store.write_at((4 << 20) - 1, &[&[!torrent.content[(4 << 20) - 1]]]).unwrap();
    assert_eq!(right_pieces(&store), [1]);
}

#[test]
fn only_the_pieces_asked_for_are_checked() {
    let torrent = Fixture::single(10 * PIECE, PIECE);
    let store = torrent.prepared(true);
    let mut asked = Bitfield::empty(10);
    for piece in [0, 3, 4, 9] {
        asked.insert(PieceIndex(piece));
    }
    let seen = Mutex::new(Vec::new());
    let told = |at: CheckProgress| seen.lock().push(at);
    assert_eq!(check(&store, Some(&asked), told, &false.into()).unwrap(), asked);
    let last = *seen.lock().last().unwrap();
    assert_eq!((last.pieces_done, last.pieces_total), (4, 4));
    assert_eq!(last.bytes_done, 4 * PIECE as u64);
}

#[test]
fn progress_never_goes_backwards_and_ends_whole() {
    let torrent = Fixture::folder(&[("a", 100 * PIECE), ("b", 100 * PIECE)], PIECE);
    let store = torrent.prepared(true);
    fs::remove_file(torrent.path("a")).unwrap();
    let seen = Mutex::new(Vec::new());
    check(&store, None, |at| seen.lock().push(at), &false.into()).unwrap();
    let seen = seen.into_inner();
    assert_eq!(seen[0].pieces_done, 100, "what is missing is known before anything is read");
    assert!(seen.is_sorted_by_key(|at| at.pieces_done));
    let total = torrent.content.len() as u64;
    let whole = CheckProgress { pieces_done: 200, pieces_total: 200, bytes_done: total };
    assert_eq!(seen.last(), Some(&whole));
}

#[test]
fn a_cancelled_check_ends_early_with_what_it_has_found() {
    let torrent = Fixture::single(40 << 20, 1 << 20);
    let store = torrent.prepared(true);
    let cancel = AtomicBool::new(false);
    let stop_at_five = |at: CheckProgress| cancel.store(at.pieces_done >= 5, Ordering::Relaxed);
    // With many cores the other pieces may already be in progress.
    assert!(check(&store, None, stop_at_five, &cancel).unwrap().count() >= 5);
    let none = check(&store, None, |_| {}, &true.into()).unwrap();
    assert_eq!(none.count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn exactly_the_damaged_pieces_are_found(
        lens in prop::collection::vec(0_usize..40_000, 1..8),
        piece_len in prop::sample::select(vec![PIECE, 2 * PIECE, 4 * PIECE]),
        damage in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let names: Vec<String> = (0..lens.len()).map(|n| format!("d{}/{n}", n % 3)).collect();
        let files: Vec<(&str, usize)> =
            names.iter().map(String::as_str).zip(lens.iter().copied()).collect();
        let torrent = Fixture::folder(&files, piece_len);
        let store = torrent.prepared(true);
        let total = torrent.content.len();
        let mut expected = Bitfield::full(store.geometry().pieces());
        for at in damage.iter().filter(|_| total > 0).map(|at| at.index(total)) {
            store.write_at(at as u64, &[&[!torrent.content[at]]]).unwrap();
            expected.remove(PieceIndex((at / piece_len) as u32));
        }
        prop_assert_eq!(check(&store, None, |_| {}, &false.into()).unwrap(), expected);
    }
}
