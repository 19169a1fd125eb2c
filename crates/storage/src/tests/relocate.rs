use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::{TempDir, tempdir, tempdir_in};

use super::*;
use crate::relocate::relocate_by;
use crate::{MoveProgress, StorageError, check, free_space, relocate};

/// Folders to move to: one on the same file system, and one on another if this machine has one.
fn targets(torrent: &Fixture) -> Vec<(TempDir, bool)> {
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    let mut targets = vec![(tempdir().unwrap(), true)];
    let memory = Path::new("/dev/shm");
    if memory.is_dir() && device(memory) != device(torrent.root()) {
        targets.push((tempdir_in(memory).unwrap(), false));
    }
    targets
}

fn three_files() -> Fixture {
    Fixture::folder(&[("a", 3 * PIECE + 5), ("d/b", PIECE), ("d/e/c", 100)], PIECE)
}

fn is_whole(store: &Store) -> bool {
    check(store, None, |_| {}, &false.into()).unwrap().is_full()
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn move_to(store: &Store, root: &Path) -> Result<(), StorageError> {
    relocate(store, root, |_| {}, &false.into())
}

fn marker(torrent: &Fixture) -> String {
    format!(".piecework-{}.moving", torrent.metainfo.info_hash())
}

#[test]
fn all_files_are_at_the_new_place_and_nothing_is_left_at_the_old() {
    let shape = three_files();
    for (target, same) in targets(&shape) {
        let torrent = three_files();
        let store = torrent.prepared(true);
        store.read_at(0, &mut [0; 10]).unwrap();
        let inode = fs::metadata(torrent.path("a")).unwrap().ino();
        let before = store.fingerprints().unwrap();
        let told = parking_lot::Mutex::new(Vec::new());
        let root = target.path().join("deep/new");
        relocate(&store, &root, |at| told.lock().push(at), &false.into()).unwrap();

        assert_eq!(store.root(), root);
        assert!(is_whole(&store));
        assert_eq!(store.fingerprints().unwrap(), before);
        assert_eq!(names_in(torrent.root()), [""; 0]);
        assert_eq!(names_in(&root), ["t"]);
        let moved = fs::metadata(root.join("t/a")).unwrap();
        assert_eq!(
            same,
            moved.ino() == inode && moved.dev() == fs::metadata(torrent.root()).unwrap().dev()
        );
        assert_eq!(moved.nlink(), 1);
        let told = told.into_inner();
        let len = torrent.content.len() as u64;
        let end = MoveProgress { files_done: 3, files_total: 3, bytes_done: len, bytes_total: len };
        assert_eq!(told.last(), Some(&end));
        assert!(told.windows(2).all(|pair| pair[0].bytes_done <= pair[1].bytes_done));
        // To its own folder: nothing to do.
        move_to(&store, &root).unwrap();
        assert!(is_whole(&store));
    }
}

#[test]
fn holes_and_unfinished_names_are_kept() {
    let len = 64 * PIECE;
    let shape = Fixture::single(len, PIECE);
    for (target, _) in targets(&shape) {
        let torrent = Fixture::single(len, PIECE);
        let store = torrent.prepared(false);
        let path = torrent.root().join("t");
        store.write_at((len - PIECE) as u64, &[&torrent.content[len - PIECE..]]).unwrap();
        fs::rename(&path, torrent.root().join("t.part")).unwrap();
        let blocks = fs::metadata(torrent.root().join("t.part")).unwrap().blocks();
        move_to(&store, target.path()).unwrap();
        let moved = fs::metadata(target.path().join("t.part")).unwrap();
        assert_eq!(moved.len(), len as u64);
        // Blocks of 512 bytes. A file system may need one more here or there.
        assert!(moved.blocks() <= blocks + 128, "{} of {blocks}", moved.blocks());
        let mut back = vec![0; PIECE];
        store.read_at((len - PIECE) as u64, &mut back).unwrap();
        assert!(back == torrent.content[len - PIECE..]);
    }
}

#[test]
fn another_file_in_the_way_is_told_before_anything_is_done() {
    for (target, _) in targets(&three_files()) {
        let torrent = three_files();
        let store = torrent.prepared(true);
        fs::create_dir_all(target.path().join("t/d")).unwrap();
        for name in ["t/d/b", "t/d/b.part"] {
            let other = target.path().join(name);
            fs::write(&other, vec![0; PIECE]).unwrap();
            let error = move_to(&store, target.path()).unwrap_err();
            assert!(matches!(error, StorageError::Exists { .. }), "{error}");
            assert_eq!(error.path(), other);
            assert_eq!(names_in(target.path()), ["t"]);
            assert_eq!(names_in(&target.path().join("t")), ["d"]);
            assert!(is_whole(&store) && store.root() == torrent.root());
            fs::remove_file(other).unwrap();
        }
        // A file with the same content is used.
        let same = target.path().join("t/d/b");
        fs::copy(torrent.path("d/b"), &same).unwrap();
        let before = store.fingerprints().unwrap();
        move_to(&store, target.path()).unwrap();
        assert!(is_whole(&store));
        assert_eq!(store.fingerprints().unwrap(), before);
    }
}

#[test]
fn a_stranger_where_we_have_no_file_is_not_taken_over() {
    for (target, _) in targets(&three_files()) {
        let torrent = three_files();
        let store = torrent.prepared(true);
        fs::remove_file(torrent.path("a")).unwrap();
        store.close_files();
        store.sync().unwrap_err();
        let store = torrent.store();
        fs::create_dir(target.path().join("t")).unwrap();
        fs::write(target.path().join("t/a"), b"a stranger's").unwrap();
        for _ in 0..2 {
            assert!(matches!(move_to(&store, target.path()), Err(StorageError::Exists { .. })));
            // Neither may exist if nothing is here.
            fs::remove_dir_all(torrent.path("")).unwrap_or_default();
        }
        assert_eq!(fs::read(target.path().join("t/a")).unwrap(), b"a stranger's");
    }
}

#[test]
fn a_cancel_leaves_everything_where_it_was() {
    for (target, _) in targets(&three_files()) {
        let torrent = three_files();
        let store = torrent.prepared(true);
        let root = target.path().join("new");
        for stop_at in 0..=3 {
            let cancel = AtomicBool::new(false);
            let progress = |at: MoveProgress| {
                if at.files_done == stop_at {
                    cancel.store(true, Ordering::Relaxed);
                }
            };
            let error = relocate(&store, &root, progress, &cancel).unwrap_err();
            assert!(matches!(error, StorageError::Cancelled { .. }), "{error}");
            assert!(!root.exists());
            assert!(is_whole(&store) && store.root() == torrent.root());
        }
        assert_eq!(names_in(torrent.root()), ["t"]);
    }
}

#[test]
fn a_failure_half_way_leaves_everything_where_it_was() {
    for (target, _) in targets(&three_files()) {
        let torrent = three_files();
        let store = torrent.prepared(true);
        // Somebody creates a file where the second is about to go.
        let other = target.path().join("t/d/b");
        let progress = |at: MoveProgress| {
            if at.files_done == 1 {
                fs::create_dir_all(other.parent().unwrap()).unwrap();
                fs::write(&other, b"another").unwrap();
            }
        };
        let error = relocate(&store, target.path(), progress, &false.into()).unwrap_err();
        assert!(matches!(error, StorageError::Exists { .. }), "{error}");
        assert!(is_whole(&store) && store.root() == torrent.root());
        assert_eq!(names_in(target.path()), ["t"]);
        assert_eq!(names_in(&target.path().join("t")), ["d"]);
        assert_eq!(names_in(&target.path().join("t/d")), ["b"]);
        assert_eq!(fs::read(&other).unwrap(), b"another");
    }
}

#[test]
fn a_file_that_is_written_to_while_it_is_copied_is_not_moved() {
    for (target, same) in targets(&three_files()).into_iter().filter(|(_, same)| !same) {
        assert!(!same);
        let torrent = three_files();
        let store = torrent.prepared(true);
        let progress = |at: MoveProgress| {
            if at.bytes_done > 0 {
                let file = File::options().write(true).open(torrent.path("a")).unwrap();
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
            }
        };
        let error = relocate(&store, target.path(), progress, &false.into()).unwrap_err();
        assert!(error.to_string().contains("was written to"), "{error}");
        assert_eq!(names_in(target.path()), [""; 0]);
        assert!(is_whole(&store));
    }
}

/// The process dies at each of the relevant moments, and the next one calls it again.
#[test]
fn a_move_that_was_cut_short_is_completed_by_calling_again() {
    for (target, _) in targets(&three_files()) {
        for died in ["while copying", "before removing", "while removing", "after removing"] {
            let torrent = three_files();
            let store = torrent.prepared(true);
            let root = target.path().join(died);
            fs::create_dir_all(root.join("t/d/e")).unwrap();
            fs::write(root.join(marker(&torrent)), torrent.root().to_str().unwrap()).unwrap();
            fs::copy(torrent.path("a"), root.join("t/a")).unwrap();
            let hash = torrent.metainfo.info_hash();
            let temporary = format!("t/d/.piecework-{hash}-1.moving");
            if died == "while copying" {
                fs::write(root.join(temporary), b"a part").unwrap();
            } else {
                fs::copy(torrent.path("d/b"), root.join("t/d/b")).unwrap();
                fs::copy(torrent.path("d/e/c"), root.join("t/d/e/c")).unwrap();
            }
            if died == "while removing" {
                fs::remove_file(torrent.path("a")).unwrap();
            }
            if died == "after removing" {
                fs::remove_dir_all(torrent.path("")).unwrap();
            }
            drop(store);
            let store = torrent.store();
            let cancelled = relocate(&store, &root, |_| {}, &true.into());
            if died == "while removing" || died == "before removing" {
                // Remains of the old set must not make the new files look foreign.
                assert!(matches!(cancelled, Err(StorageError::Cancelled { .. })), "{died}");
            }
            move_to(&store, &root).unwrap();
            assert!(is_whole(&store), "{died}");
            assert_eq!(names_in(&root), ["t"], "{died}");
            assert_eq!(names_in(&root.join("t/d")), ["b", "e"], "{died}");
            assert_eq!(names_in(torrent.root()), [""; 0], "{died}");
        }
    }
}

#[test]
fn what_is_not_the_torrents_stays_and_links_are_not_followed() {
    for (target, _) in targets(&three_files()) {
        let torrent = three_files();
        let store = torrent.prepared(true);
        fs::write(torrent.path("d/mine"), b"mine").unwrap();
        let outside = target.path().join("outside");
        fs::create_dir_all(&outside).unwrap();
        let root = target.path().join("new");
        fs::create_dir_all(root.join("t")).unwrap();
        symlink(&outside, root.join("t/d")).unwrap();
        let error = move_to(&store, &root).unwrap_err();
        assert!(matches!(error, StorageError::Escape { .. }), "{error}");
        assert_eq!(names_in(&outside), [""; 0]);
        assert!(is_whole(&store));
        fs::remove_file(root.join("t/d")).unwrap();
        move_to(&store, &root).unwrap();
        assert!(is_whole(&store));
        assert_eq!(names_in(&torrent.path("d")), ["mine"]);
        assert_eq!(names_in(&torrent.path("")), ["d"]);
    }
}

#[test]
fn the_same_folder_by_another_way_loses_nothing() {
    let torrent = three_files();
    let store = torrent.prepared(true);
    let link = torrent.root().join("link");
    symlink(".", &link).unwrap();
    move_to(&store, &link).unwrap();
    assert!(store.root() == link && is_whole(&store));
}

#[test]
fn free_space_is_that_of_the_nearest_folder_above() {
    let dir = tempdir().unwrap();
    let (_, total) = free_space(dir.path()).unwrap();
    let (free, same_total) = free_space(&dir.path().join("not/there/yet")).unwrap();
    assert!(total == same_total && free <= total && total > 0);
    assert!(free_space(Path::new("a\0b")).is_err());
}

#[test]
fn where_files_have_one_name_only_they_are_renamed_all_or_none() {
    for (target, same) in targets(&three_files()) {
        let torrent = three_files();
        let store = torrent.prepared(true);
        let root = target.path().join("new");
        let other = root.join("t/d/e/c");
        // The last file is in the way of another when the first two are already renamed.
        let progress = |at: MoveProgress| {
            if at.files_done == 3 {
                fs::write(&other, b"another").unwrap();
            }
        };
        if same {
            let moved = relocate_by(&store, &root, false, progress, &false.into());
            assert!(matches!(moved, Err(StorageError::Exists { .. })), "{moved:?}");
            assert!(is_whole(&store) && store.root() == torrent.root());
            assert_eq!(names_in(&root.join("t/d")), ["e"]);
            assert_eq!(fs::read(&other).unwrap(), b"another");
            fs::remove_dir_all(&root).unwrap();
        }

        // A rename does not reach another file system, so the file is copied.
        relocate_by(&store, &root, false, |_| {}, &false.into()).unwrap();
        assert!(is_whole(&store) && store.root() == root);
        assert!(!torrent.path("").exists());
    }
}

#[test]
fn a_move_of_which_the_old_root_is_gone_is_completed() {
    let torrent = three_files();
    let target = tempdir().unwrap();
    let old = torrent.root().join("old");
    let handles = Arc::clone(&torrent.handles);
    let metainfo = Arc::clone(&torrent.metainfo);
    let store = Store::new(&old, metainfo, handles, StoreMode::ReadWrite).unwrap();
    store.prepare().unwrap();
    store.write_at(0, &[&torrent.content]).unwrap();
    store.sync().unwrap();
    fs::rename(old.join("t"), target.path().join("t")).unwrap();
    fs::remove_dir(&old).unwrap();
    assert!(matches!(move_to(&store, target.path()), Err(StorageError::Exists { .. })));
    fs::write(target.path().join(marker(&torrent)), old.to_str().unwrap()).unwrap();
    move_to(&store, target.path()).unwrap();
    assert!(is_whole(&store));
    assert_eq!(names_in(target.path()), ["t"]);
}
