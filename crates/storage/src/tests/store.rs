use std::fs;

use proptest::prelude::*;

use super::*;
use crate::write_back::WriteBackThrottle;
use crate::{StorageError, check};

#[test]
fn empty_nested_and_unicode_files_are_laid_out_beneath_the_root() {
    let files =
        [("a", 0), ("ordner/tief/ä文件🦀", 20_000), ("ordner/leer", 0), ("z ", PIECE), ("zz", 1)];
    let torrent = Fixture::folder(&files, PIECE);
    let store = torrent.prepared(true);
    store.sync().unwrap();
    let mut at = 0;
    for entry in torrent.metainfo.info().files().entries() {
        let len = entry.len as usize;
        let on_disk = fs::read(torrent.root().join(entry.relative_path())).unwrap();
        assert_eq!(on_disk, torrent.content[at..at + len], "{:?}", entry.path);
        at += len;
    }
    assert_eq!(at, torrent.content.len());
}

#[test]
fn preparing_changes_no_file_that_exists() {
    let torrent = Fixture::folder(&[("a", 10), ("b", 10)], PIECE);
    fs::create_dir(torrent.root().join("t")).unwrap();
    fs::write(torrent.path("a"), b"what a user put here").unwrap();
    torrent.prepared(false);
    assert_eq!(fs::read(torrent.path("a")).unwrap(), b"what a user put here");
    assert_eq!(fs::read(torrent.path("b")).unwrap(), b"");
}

#[test]
fn files_are_found_among_folders_that_are_missing_and_some_that_are_not() {
    let files = [
        ("a/1", 10),
        ("a/2", 10),
        ("b/1", 10),
        ("b/2", 10),
        ("b/2 too/1", 10),
        ("c/deep/1", 10),
        ("c/deep/2", 10),
        ("c/deeper/1", 10),
        ("d", 10),
    ];
    let torrent = Fixture::folder(&files, PIECE);
    let there = ["b/2", "c/deeper/1", "d"];
    for path in ["b", "c/deeper"] {
        fs::create_dir_all(torrent.path(path)).unwrap();
    }
    for path in there {
        fs::write(torrent.path(path), path).unwrap();
    }
    let store = torrent.store();
    let found = store.fingerprints().unwrap();
    for ((path, _), print) in files.iter().zip(found) {
        let len = there.contains(path).then_some(path.len() as u64);
        assert_eq!(print.map(|print| print.len), len, "{path}");
    }
    store.prepare().unwrap();
    for (path, _) in files {
        let held = if there.contains(&path) { path } else { "" };
        assert_eq!(fs::read_to_string(torrent.path(path)).unwrap(), held);
    }
    // Something else in place of a folder is reported, and does not count as missing.
    fs::remove_dir_all(torrent.path("a")).unwrap();
    fs::write(torrent.path("a"), "no folder").unwrap();
    assert!(store.fingerprints().is_err());
}

#[test]
fn a_read_only_store_makes_and_writes_nothing() {
    let torrent = Fixture::single(10, PIECE);
    let store = torrent.store_as(StoreMode::ReadOnly);
    store.prepare().unwrap();
    assert!(!torrent.root().join("t").exists());
    assert!(matches!(store.write_at(0, &[b"x"]), Err(StorageError::Denied { .. })));
}

#[test]
fn a_torrent_of_no_bytes_is_one_empty_file() {
    let torrent = Fixture::single(0, PIECE);
    let store = torrent.prepared(false);
    store.read_at(0, &mut []).unwrap();
    store.write_at(0, &[]).unwrap();
    store.sync().unwrap();
    assert_eq!(fs::metadata(torrent.root().join("t")).unwrap().len(), 0);
    assert!(check(&store, None, |_| {}, &false.into()).unwrap().is_full());
}

#[test]
fn spans_beyond_the_end_are_refused() {
    let torrent = Fixture::single(10, PIECE);
    let store = torrent.prepared(true);
    assert!(store.read_at(9, &mut [0; 2]).is_err());
    assert!(store.read_at(u64::MAX, &mut [0; 2]).is_err());
    assert!(store.read_cached(11, &mut []).is_err());
    assert!(store.write_at(9, &[b"a", b"b"]).is_err());
    assert_eq!(fs::read(torrent.root().join("t")).unwrap(), torrent.content);
}

#[test]
fn a_write_of_more_parts_than_one_call_takes_arrives_whole() {
    let torrent = Fixture::folder(&[("a", 1_500), ("b", 1_500)], PIECE);
    let store = torrent.prepared(false);
    let parts: Vec<&[u8]> = torrent.content.chunks(1).collect();
    store.write_at(0, &parts).unwrap();
    assert!(check(&store, None, |_| {}, &false.into()).unwrap().is_full());
}

#[test]
fn padding_is_zeros_and_never_on_disk() {
    let torrent = Fixture::padded();
    let store = torrent.prepared(true);
    let mut back = vec![1; torrent.content.len()];
    store.read_at(0, &mut back).unwrap();
    assert_eq!(back, torrent.content);
    assert!(!torrent.path(".pad").exists());
    assert_eq!(fs::read(torrent.path("b")).unwrap(), torrent.content[PIECE..PIECE + 5]);
    store.sync().unwrap();
    assert!(check(&store, None, |_| {}, &false.into()).unwrap().is_full());
}

#[test]
fn no_more_files_are_open_than_allowed_and_an_idle_torrent_has_none() {
    let names: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1_000)).collect();
    let torrent = Fixture::folder(&files, PIECE);
    let store = torrent.prepared(false);
    assert_eq!(torrent.handles.open_files(), 0);
    store.write_at(0, &[&torrent.content]).unwrap();
    assert_eq!(torrent.handles.open_files(), 3);
    let other = torrent.store();
    other.read_at(500, &mut [0; 1_000]).unwrap();
    assert_eq!(torrent.handles.open_files(), 3);
    store.sync().unwrap();
    store.close_files();
    other.close_files();
    assert_eq!(torrent.handles.open_files(), 0);
    store.read_at(0, &mut [0]).unwrap();
    assert_eq!(torrent.handles.open_files(), 1);
    drop(store);
    assert_eq!(torrent.handles.open_files(), 0);
}

#[test]
fn a_cached_read_opens_nothing_and_gives_the_same_bytes() {
    let mut torrent = Fixture::folder(&[("a", 3_000), ("b", 3_000)], PIECE);
    // In memory, nothing ever waits for a disk.
    let memory = Path::new("/dev/shm");
    let in_memory = memory.is_dir();
    if in_memory {
        torrent.dir = tempfile::tempdir_in(memory).unwrap();
    }
    let store = torrent.prepared(true);
    let mut buf = vec![0; 4_000];
    assert!(!store.read_cached(1_000, &mut buf).unwrap(), "the files are not open");
    store.read_at(1_000, &mut buf).unwrap();
    buf.fill(0);
    let cached = store.read_cached(1_000, &mut buf).unwrap();
    assert!(cached || !in_memory);
    assert!(!cached || buf == torrent.content[1_000..5_000]);
    assert!(store.read_cached(0, &mut []).unwrap());
}

#[test]
fn a_cached_read_of_what_was_just_written_needs_no_disk_where_the_kernel_can_tell() {
    let torrent = Fixture::single(100_000, PIECE);
    let store = torrent.prepared(false);
    store.write_at(0, &[&torrent.content]).unwrap();
    let mut buf = vec![0; 100_000];
    // The kernel may always say that it would have to wait, but must never return other bytes.
    if store.read_cached(0, &mut buf).unwrap() {
        assert_eq!(buf, torrent.content);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_written_anywhere_is_read_back_over_all_borders(
        lens in prop::collection::vec(0_usize..3_000, 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        span in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let names: Vec<String> = (0..lens.len()).map(|n| format!("d{}/{n}", n % 3)).collect();
        let files: Vec<(&str, usize)> =
            names.iter().map(String::as_str).zip(lens.iter().copied()).collect();
        let torrent = Fixture::folder(&files, PIECE);
        let store = torrent.prepared(false);
        let total = torrent.content.len();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(total + 1)).collect();
        cuts.extend([0, total]);
        cuts.sort();
        let stretches: Vec<(usize, usize)> = cuts.windows(2).map(|w| (w[0], w[1])).collect();
        for (start, end) in stretches.into_iter().rev() {
            let parts: Vec<&[u8]> = torrent.content[start..end].chunks(701).collect();
            store.write_at(start as u64, &parts).unwrap();
        }
        let (from, to) = (span.0.index(total + 1), span.1.index(total + 1));
        let (from, to) = (from.min(to), from.max(to));
        let mut back = vec![0; to - from];
        store.read_at(from as u64, &mut back).unwrap();
        prop_assert_eq!(&back[..], &torrent.content[from..to]);
    }
}

/// Each thread writes and reads its own pieces, all with one shared handle.
#[test]
fn many_threads_share_few_handles() {
    let names: Vec<String> = (0..8).map(|n| n.to_string()).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 40_000)).collect();
    let mut torrent = Fixture::folder(&files, PIECE);
    torrent.handles = Arc::new(FileHandles::new(1));
    let store = torrent.prepared(false);
    let pieces = store.geometry().pieces();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, torrent) = (&store, &torrent);
            scope.spawn(move || {
                for piece in (0..pieces).filter(|piece| piece % 4 == thread) {
                    let start = u64::from(piece) * PIECE as u64;
                    store.write_at(start, &[torrent.piece(piece)]).unwrap();
                    let mut back = vec![0; torrent.piece(piece).len()];
                    store.read_at(start, &mut back).unwrap();
                    assert_eq!(back, torrent.piece(piece));
                    if piece % 8 == thread {
                        store.sync().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(torrent.handles.open_files(), 1);
    store.sync().unwrap();
    assert!(check(&store, None, |_| {}, &false.into()).unwrap().is_full());
}

/// A process has tens of thousands of torrents, most of them idle.
#[test]
fn a_store_is_small() {
    let size = size_of::<Store>();
    assert!(size <= 240, "{size} bytes");
    let torrent = Fixture::single(10, PIECE);
    let store = torrent.prepared(true);
    store.sync().unwrap();
    let notes = store.notes.lock();
    assert!(notes.unsynced.is_empty() && notes.folders.is_empty());
    assert_eq!(notes.made.capacity().div_ceil(usize::BITS as usize), 1);
}

/// The system reports such an error once, and has reported it before anybody asked.
#[test]
fn what_could_not_be_hurried_to_the_disk_fails_the_next_sync() {
    let torrent = Fixture::single(10, PIECE);
    let store = torrent.prepared(true);
    store.notes.lock().lost = Some((0, rustix::io::Errno::IO));
    let error = store.sync().unwrap_err().to_string();
    assert!(error.contains(&*torrent.root().join("t").to_string_lossy()), "{error}");
    store.sync().unwrap();
}

#[test]
fn more_than_a_window_of_what_was_written_is_right_and_leaves_nothing_to_hurry() {
    let len = WriteBackThrottle::WINDOW as usize + 3 * PIECE + 1;
    let torrent = Fixture::folder(&[("a", len / 2), ("b", len - len / 2)], 1 << 20);
    let store = torrent.prepared(true);
    assert_ne!(store.notes.lock().write_back, WriteBackThrottle::default());
    assert!(check(&store, None, |_| {}, &false.into()).unwrap().is_full());
    store.sync().unwrap();
    assert_eq!(store.notes.lock().write_back, WriteBackThrottle::default());
}

#[test]
fn threads_that_open_a_file_at_once_to_write_share_its_lock() {
    let mut torrent = Fixture::single(8 * PIECE, PIECE);
    torrent.prepared(false);
    for _ in 0..50 {
        torrent.handles = Arc::new(crate::FileHandles::with_locks(8));
        let (store, start) = (torrent.store(), std::sync::Barrier::new(8));
        std::thread::scope(|threads| {
            for piece in 0..8 {
                let (store, start, torrent) = (&store, &start, &torrent);
                threads.spawn(move || {
                    start.wait();
                    let offset = u64::from(piece) * PIECE as u64;
                    store.write_at(offset, &[torrent.piece(piece)]).unwrap();
                });
            }
        });
        assert!(fs::read(torrent.root().join("t")).unwrap() == torrent.content);
    }
}
