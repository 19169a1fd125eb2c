use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::{INCOMPLETE_SUFFIX, StorageError, StoreOptions, check};

impl Fixture {
    fn store_with(&self, options: StoreOptions) -> Result<Arc<Store>, StorageError> {
        let (metainfo, handles) = (Arc::clone(&self.metainfo), Arc::clone(&self.handles));
        Store::with_options(self.root(), metainfo, handles, options).map(Arc::new)
    }

    fn suffixed(&self) -> Arc<Store> {
        let incomplete_suffix = Some(INCOMPLETE_SUFFIX.to_owned());
        self.store_with(StoreOptions { incomplete_suffix, ..Default::default() }).unwrap()
    }

    fn renamed(&self, names: &[(usize, &str)]) -> Result<Arc<Store>, StorageError> {
        let names = names.iter().map(|(file, names)| (*file, components(names)));
        self.store_with(StoreOptions { names: names.collect(), ..Default::default() })
    }

    fn has(&self, below: &str) -> bool {
        self.root().join(below).exists()
    }
}

fn is_whole(store: &Store) -> bool {
    check(store, None, |_| {}, &false.into()).unwrap().is_full()
}

fn exists<T: std::fmt::Debug>(result: Result<T, StorageError>) -> bool {
    matches!(result, Err(StorageError::Exists { .. }))
}

fn forbidden<T: std::fmt::Debug>(result: Result<T, StorageError>) -> bool {
    matches!(result, Err(StorageError::Forbidden { .. }))
}

fn two_files() -> Fixture {
    Fixture::folder(&[("a", PIECE + 5), ("d/b", PIECE), ("e", 0)], PIECE)
}

#[test]
fn an_unfinished_file_has_its_ending_until_it_is_finished() {
    let torrent = two_files();
    let store = torrent.suffixed();
    store.prepare().unwrap();
    assert!(torrent.has("t/a.part") && torrent.has("t/d/b.part") && torrent.has("t/e"));
    assert!(!torrent.has("t/a") && !torrent.has("t/e.part"));
    store.write_at(0, &[&torrent.content]).unwrap();
    let before = store.fingerprints().unwrap();
    store.finish_file(0).unwrap();
    assert!(torrent.has("t/a") && !torrent.has("t/a.part"));
    // The handle stays valid, and the file is the same.
    assert_eq!(store.fingerprints().unwrap(), before);
    store.write_at(0, &[&torrent.content]).unwrap();
    store.finish_file(0).unwrap();
    store.finish_file(2).unwrap();
    assert!(is_whole(&store));
    store.sync().unwrap();
    assert!(store.finish_file(3).is_err());
}

#[test]
fn switching_the_ending_on_and_off_loses_nothing() {
    let torrent = two_files();
    let store = torrent.prepared(true);
    for _ in 0..2 {
        let suffixed = torrent.suffixed();
        suffixed.prepare().unwrap();
        assert!(is_whole(&suffixed) && torrent.has("t/a") && !torrent.has("t/a.part"));
        fs::rename(torrent.path("a"), torrent.path("a.part")).unwrap();
        let plain = torrent.store();
        plain.prepare().unwrap();
        assert!(is_whole(&plain) && !torrent.has("t/a"));
        plain.finish_file(0).unwrap();
        assert!(is_whole(&store) && torrent.has("t/a"));
    }
}

#[test]
fn finishing_a_file_replaces_nothing() {
    let torrent = two_files();
    let store = torrent.suffixed();
    store.prepare().unwrap();
    store.write_at(0, &[&torrent.content]).unwrap();
    fs::write(torrent.path("a"), b"another").unwrap();
    assert!(exists(store.finish_file(0)));
    assert_eq!(fs::read(torrent.path("a")).unwrap(), b"another");
    assert_eq!(fs::read(torrent.path("a.part")).unwrap(), torrent.content[..PIECE + 5]);
    fs::remove_file(torrent.path("d/b.part")).unwrap();
    assert!(matches!(store.finish_file(1), Err(StorageError::Missing { .. })));
}

#[test]
fn a_name_that_another_file_has_gets_no_ending() {
    let torrent = Fixture::folder(&[("A", 5), ("a.part", 5), ("b", 5), ("b.part/c", 5)], PIECE);
    let store = torrent.suffixed();
    store.prepare().unwrap();
    store.write_at(0, &[&torrent.content]).unwrap();
    for name in ["t/A", "t/a.part.part", "t/b", "t/b.part/c.part"] {
        assert!(torrent.has(name), "{name}");
    }
    assert!(is_whole(&store) && !torrent.has("t/a.part"));
}

#[test]
fn a_name_as_long_as_can_be_gets_no_ending() {
    let name = "n".repeat(255);
    let torrent = Fixture::folder(&[(name.as_str(), 5)], PIECE);
    torrent.suffixed().prepare().unwrap();
    assert!(torrent.path(&name).exists());
}

#[test]
fn files_lie_where_the_options_say() {
    let torrent = two_files();
    let store = torrent.renamed(&[(1, "elsewhere/x"), (0, "t/d/y")]).unwrap();
    store.prepare().unwrap();
    store.write_at(0, &[&torrent.content]).unwrap();
    assert!(torrent.has("elsewhere/x") && torrent.has("t/d/y") && !torrent.has("t/a"));
    assert!(is_whole(&store));
    let again = torrent.store_with(store.options()).unwrap();
    assert!(is_whole(&again));
    assert_eq!(again.options(), store.options());
    assert_eq!(store.path_of(1), torrent.root().join("elsewhere/x"));
}

#[test]
fn names_that_are_not_safe_or_taken_are_refused() {
    let torrent = two_files();
    let long = "n".repeat(256);
    for bad in ["", "..", "a/../b", "a//b", "x\0", "./x", "\u{10ffc3}\u{10ffa9}", long.as_str()] {
        assert!(forbidden(torrent.renamed(&[(0, bad)])), "{bad:?}");
        let store = torrent.store();
        assert!(forbidden(store.rename_file(0, &components(bad))), "{bad:?}");
        assert!(forbidden(store.rename_top(&bad.replace("a//b", "a/b"))), "{bad:?}");
    }
    let names: BTreeMap<usize, Vec<String>> = [(0, Vec::new())].into();
    assert!(forbidden(torrent.store_with(StoreOptions { names, ..Default::default() })));
    // The path of another file, one inside a file, and one of a folder.
    for bad in ["t/d/b", "t/e/x", "t/d"] {
        assert!(forbidden(torrent.renamed(&[(0, bad)])), "{bad}");
        assert!(forbidden(torrent.store().rename_file(0, &components(bad))), "{bad}");
    }
    assert!(forbidden(torrent.renamed(&[(9, "x")])));
    for bad in ["", "a/b", "\0"] {
        let incomplete_suffix = Some(bad.to_owned());
        let options = StoreOptions { incomplete_suffix, ..Default::default() };
        assert!(forbidden(torrent.store_with(options)), "{bad:?}");
    }
}

#[test]
fn a_file_is_renamed_on_disk_with_its_folders() {
    let torrent = two_files();
    let store = torrent.prepared(true);
    store.read_at(PIECE as u64, &mut [0; 10]).unwrap();
    store.rename_file(1, &components("t/new/deep/x")).unwrap();
    assert!(torrent.has("t/new/deep/x") && !torrent.has("t/d"));
    assert!(is_whole(&store));
    store.sync().unwrap();
    store.rename_file(1, &components("t/new/deep/x")).unwrap();
    // A file that is not on disk is only recorded.
    fs::remove_file(torrent.path("a")).unwrap();
    store.rename_file(0, &components("t/z")).unwrap();
    assert!(!torrent.has("t/z"));
    assert_eq!(store.options().names.len(), 2);
    // Its own old name is free again.
    store.rename_file(1, &components("t/a")).unwrap();
    assert!(torrent.has("t/a") && !torrent.has("t/new"));
}

#[test]
fn an_unfinished_file_keeps_its_ending_when_it_is_renamed() {
    let torrent = two_files();
    let store = torrent.suffixed();
    store.prepare().unwrap();
    store.write_at(0, &[&torrent.content]).unwrap();
    store.rename_file(0, &components("t/x")).unwrap();
    assert!(torrent.has("t/x.part") && is_whole(&store));
    store.finish_file(0).unwrap();
    store.rename_file(0, &components("t/y")).unwrap();
    assert!(torrent.has("t/y") && is_whole(&store));
}

#[test]
fn renaming_replaces_nothing_and_follows_no_link() {
    let torrent = two_files();
    let store = torrent.prepared(true);
    fs::create_dir(torrent.root().join("outside")).unwrap();
    fs::write(torrent.path("x"), b"another").unwrap();
    fs::write(torrent.path("y.part"), b"another").unwrap();
    symlink("nowhere", torrent.path("z")).unwrap();
    symlink("../outside", torrent.path("link")).unwrap();
    for taken in ["t/x", "t/y", "t/z", "t/link"] {
        assert!(exists(store.rename_file(0, &components(taken))), "{taken}");
    }
    let error = store.rename_file(0, &components("t/link/a")).unwrap_err();
    assert!(matches!(error, StorageError::Escape { .. }), "{error}");
    assert!(exists(store.rename_top("outside")));
    assert_eq!(fs::read_dir(torrent.root().join("outside")).unwrap().count(), 0);
    assert_eq!(fs::read(torrent.path("x")).unwrap(), b"another");
    assert!(is_whole(&store));
    let reader = torrent.store_as(StoreMode::ReadOnly);
    assert!(matches!(reader.rename_top("u"), Err(StorageError::Denied { .. })));
}

#[test]
fn the_top_folder_is_renamed_with_all_that_is_in_it() {
    let torrent = two_files();
    let store = torrent.renamed(&[(0, "t/moved"), (2, "apart/e")]).unwrap();
    store.prepare().unwrap();
    store.write_at(0, &[&torrent.content]).unwrap();
    store.rename_top("u").unwrap();
    assert!(torrent.has("u/moved") && torrent.has("u/d/b") && torrent.has("apart/e"));
    assert!(!torrent.has("t") && is_whole(&store));
    store.sync().unwrap();
    let again = torrent.store_with(store.options()).unwrap();
    assert!(is_whole(&again));
    store.rename_top("t").unwrap();
    assert!(torrent.has("t/moved") && is_whole(&store));
    // A link in place of the torrent's folder is not that folder.
    fs::rename(torrent.root().join("t"), torrent.root().join("real")).unwrap();
    symlink("real", torrent.root().join("t")).unwrap();
    assert!(store.rename_top("v").is_err() && !torrent.has("v"));
}

#[test]
fn a_single_file_is_renamed() {
    let torrent = Fixture::single(PIECE, PIECE);
    let store = torrent.prepared(true);
    store.rename_top("u").unwrap();
    assert!(torrent.has("u") && !torrent.has("t") && is_whole(&store));
    assert!(is_whole(&torrent.store_with(store.options()).unwrap()));
    fs::write(torrent.root().join("v"), b"").unwrap();
    assert!(exists(store.rename_top("v")));
}

/// Reading and writing go on while files and folders are renamed.
#[test]
fn reads_and_writes_go_on_while_files_are_renamed() {
    let files = [("d/a", 4 * PIECE), ("d/b", 4 * PIECE)];
    let mut torrent = Fixture::folder(&files, PIECE);
    // Handles are closed all the time, so files are opened all the time.
    torrent.handles = Arc::new(FileHandles::new(1));
    let store = torrent.suffixed();
    store.prepare().unwrap();
    store.write_at(0, &[&torrent.content]).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (store, torrent) = (&store, &torrent);
            scope.spawn(move || {
                for round in 0..200 {
                    let piece = (thread * 2 + round) % 8;
                    let start = u64::from(piece) * PIECE as u64;
                    if thread == 0 {
                        store.write_at(start, &[torrent.piece(piece)]).unwrap();
                    }
                    let mut back = vec![0; PIECE];
                    store.read_at(start, &mut back).unwrap();
                    assert!(back == torrent.piece(piece));
                }
                if thread == 0 {
                    store.sync().unwrap();
                }
            });
        }
        for round in 0..100 {
            store.rename_top(&format!("top{round}")).unwrap();
            store.rename_file(0, &components(&format!("top{round}/{round}/a"))).unwrap();
            if round == 50 {
                store.finish_file(1).unwrap();
            }
        }
    });
    assert!(is_whole(&store) && torrent.has("top99/99/a.part") && torrent.has("top99/d/b"));
}

#[test]
fn removing_takes_the_torrents_own_files_and_nothing_else() {
    let torrent = two_files();
    let store = torrent.suffixed();
    store.prepare().unwrap();
    store.finish_file(1).unwrap();
    fs::write(torrent.path("mine"), b"").unwrap();
    fs::write(torrent.root().join("other"), b"").unwrap();
    fs::write(torrent.path("d/b.part"), b"left over").unwrap();
    store.remove_data().unwrap();
    assert!(!torrent.has("t/a.part") && !torrent.has("t/d") && !torrent.has("t/e"));
    assert!(torrent.has("t/mine") && torrent.has("other"));
    fs::remove_file(torrent.path("mine")).unwrap();
    store.remove_data().unwrap();
    assert!(!torrent.has("t") && torrent.root().exists());
    // A torrent that was removed may start again.
    store.write_at(0, &[b"x"]).unwrap();
    assert!(torrent.has("t/a.part"));
}

#[test]
fn removing_follows_no_link() {
    let torrent = two_files();
    let store = torrent.prepared(true);
    let outside = torrent.root().join("outside");
    fs::rename(torrent.path("d"), &outside).unwrap();
    symlink("../outside", torrent.path("d")).unwrap();
    fs::rename(torrent.path("a"), outside.join("a")).unwrap();
    symlink("../outside/a", torrent.path("a")).unwrap();
    let error = store.remove_data().unwrap_err();
    assert!(matches!(error, StorageError::Escape { .. }), "{error}");
    assert!(outside.join("b").exists() && outside.join("a").exists());
    assert!(torrent.path("a").is_symlink() && !torrent.has("t/e"));
}

#[test]
fn what_is_only_read_is_removed_when_that_is_asked() {
    let torrent = two_files();
    torrent.prepared(true);
    assert!(torrent.has("t"));
    torrent.store_as(StoreMode::ReadOnly).remove_data().unwrap();
    assert!(!torrent.has("t") && torrent.root().exists());
}

#[test]
fn without_the_option_only_a_file_in_use_is_removed_with_an_ending() {
    let torrent = two_files();
    let store = torrent.prepared(true);
    fs::write(torrent.path("a.part"), b"not ours").unwrap();
    fs::rename(torrent.path("d/b"), torrent.path("d/b.part")).unwrap();
    store.finish_file(0).unwrap();
    store.remove_data().unwrap();
    assert!(torrent.has("t/a.part") && !torrent.has("t/a") && !torrent.has("t/d"));
}
