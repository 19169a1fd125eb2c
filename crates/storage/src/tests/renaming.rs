//! File systems that cannot rename without replacing and have no hard links.

use std::fs;

use rustix::io::Errno;

use super::*;
use crate::renaming::able::lacking;
use crate::{INCOMPLETE_SUFFIX, StorageError, StoreOptions, check, relocate};

/// The errors of such file systems: exFAT through FUSE, an old kernel in a sandbox, SMB, NFS.
const ANSWERS: [(Errno, Option<Errno>); 5] = [
    (Errno::INVAL, Some(Errno::PERM)),
    (Errno::NOSYS, Some(Errno::NOSYS)),
    (Errno::OPNOTSUPP, Some(Errno::OPNOTSUPP)),
    (Errno::PERM, Some(Errno::MLINK)),
    (Errno::INVAL, None),
];

fn on_each(work: impl Fn(&Fixture)) {
    for (rename, link) in ANSWERS {
        let torrent = Fixture::folder(&[("a", PIECE + 5), ("d/b", PIECE)], PIECE);
        lacking(rename, link, || work(&torrent));
    }
}

fn suffixed(torrent: &Fixture) -> Arc<Store> {
    let (metainfo, handles) = (Arc::clone(&torrent.metainfo), Arc::clone(&torrent.handles));
    let incomplete_suffix = Some(INCOMPLETE_SUFFIX.to_owned());
    let options = StoreOptions { incomplete_suffix, ..Default::default() };
    let store = Store::with_options(torrent.root(), metainfo, handles, options).unwrap();
    store.prepare().unwrap();
    store.write_at(0, &[&torrent.content]).unwrap();
    Arc::new(store)
}

fn is_whole(store: &Store) -> bool {
    check(store, None, |_| {}, &false.into()).unwrap().is_full()
}

fn exists<T: std::fmt::Debug>(result: Result<T, StorageError>) -> bool {
    matches!(result, Err(StorageError::Exists { .. }))
}

#[test]
fn a_finished_file_gets_its_name_and_replaces_nothing() {
    on_each(|torrent| {
        let store = suffixed(torrent);
        store.finish_file(0).unwrap();
        assert!(torrent.path("a").exists() && !torrent.path("a.part").exists());
        fs::write(torrent.path("d/b"), b"another").unwrap();
        assert!(exists(store.finish_file(1)));
        assert_eq!(fs::read(torrent.path("d/b")).unwrap(), b"another");
        fs::remove_file(torrent.path("d/b")).unwrap();
        store.finish_file(1).unwrap();
        assert!(is_whole(&store));
    });
}

#[test]
fn files_and_the_folder_of_a_torrent_get_other_names() {
    on_each(|torrent| {
        let store = torrent.prepared(true);
        store.rename_file(0, &components("t/x/y")).unwrap();
        assert!(exists(store.rename_file(1, &components("t/x/y")).map_err(|error| match error {
            StorageError::Forbidden { path, .. } => {
                StorageError::Exists { operation: crate::Operation::Move, path }
            }
            error => error,
        })));
        store.rename_top("u").unwrap();
        assert!(torrent.root().join("u/x/y").is_file() && !torrent.root().join("t").exists());
        assert!(is_whole(&store));
    });
}

#[test]
fn a_torrent_moves_to_another_folder_and_another_file_system() {
    on_each(|torrent| {
        let store = torrent.prepared(true);
        let here = tempfile::tempdir().unwrap();
        relocate(&store, here.path(), |_| {}, &false.into()).unwrap();
        assert!(is_whole(&store) && !torrent.root().join("t").exists());
        if let Ok(there) = tempfile::tempdir_in("/dev/shm") {
            relocate(&store, there.path(), |_| {}, &false.into()).unwrap();
            assert!(is_whole(&store) && !here.path().join("t").exists());
        }
    });
}
