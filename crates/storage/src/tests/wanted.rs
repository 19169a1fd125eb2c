use std::fs;

use super::*;
use crate::{StorageError, check};

#[test]
fn files_nobody_wants_are_not_made() {
    let torrent =
        Fixture::folder(&[("a", 100), ("d/b", 100), ("e", 0), ("f/g", 0), ("h", 10)], PIECE);
    let store = torrent.store();
    store.prepare_wanted(|file| [0, 2].contains(&file)).unwrap();
    let made = |name: &str| torrent.path(name).exists();
    assert!(made("a") && made("e") && !made("d") && !made("f") && !made("h"));
    store.prepare_wanted(|file| file == 3).unwrap();
    assert!(made("f/g") && !made("h"));
    store.prepare().unwrap();
    assert!(made("d/b") && made("h"));
}

#[test]
fn a_piece_over_the_border_makes_the_unwanted_file_with_its_folders() {
    let torrent = Fixture::folder(&[("a", 100), ("b/c/d", 100), ("e", PIECE)], PIECE);
    let store = torrent.store();
    store.prepare_wanted(|file| file == 0).unwrap();
    store.write_at(0, &[&torrent.content[..150]]).unwrap();
    assert_eq!(fs::read(torrent.path("b/c/d")).unwrap(), torrent.content[100..150]);
    assert!(!torrent.path("e").exists());
    store.sync().unwrap();
    store.write_at(150, &[&torrent.content[150..]]).unwrap();
    assert!(check(&store, None, |_| {}, &false.into()).unwrap().is_full());
}

#[test]
fn many_threads_may_meet_at_a_file_that_is_not_there() {
    let torrent = Fixture::folder(&[("d/a", 64 * 100), ("e", 1)], PIECE);
    let store = torrent.store();
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let (store, content) = (&store, &torrent.content);
            scope.spawn(move || {
                for part in (0..64).filter(|part| part % 8 == thread) {
                    store.write_at(part as u64 * 100, &[&content[part * 100..][..100]]).unwrap();
                }
            });
        }
    });
    assert!(fs::read(torrent.path("d/a")).unwrap() == torrent.content[..6_400]);
}

#[test]
fn a_file_that_was_there_is_not_begun_anew_when_it_is_removed() {
    let torrent = Fixture::folder(&[("a", 100), ("b", 100)], PIECE);
    let store = torrent.store();
    fs::create_dir(torrent.path("")).unwrap();
    fs::write(torrent.path("b"), b"x").unwrap();
    store.prepare_wanted(|_| false).unwrap();
    fs::remove_file(torrent.path("b")).unwrap();
    store.close_files();
    let error = store.write_at(150, &[b"x"]).unwrap_err();
    assert!(matches!(error, StorageError::Missing { .. }), "{error}");
    store.write_at(50, &[b"x"]).unwrap();
}
