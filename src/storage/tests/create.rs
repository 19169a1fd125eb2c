use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::tempdir;

use super::*;
use crate::storage::{CreateError, CreateOptions, CreateProgress, Created, check, create};

fn plain(path: &Path) -> Result<Created, CreateError> {
    create(path, CreateOptions::default(), 2, |_| {}, &false.into())
}

fn is_whole(created: &Created) -> bool {
    let written = created.metainfo.bytes().unwrap();
    let metainfo = Arc::new(Metainfo::parse(&written, &ParseLimits::default()).unwrap());
    let store = Store::new(&created.root, metainfo, Arc::default(), StoreMode::ReadOnly).unwrap();
    check(&store, None, |_| {}, &false.into()).unwrap().is_full()
}

#[test]
fn one_file_becomes_a_torrent_that_its_own_content_fits() {
    let torrent = Fixture::single(5 * PIECE + 1, PIECE);
    torrent.prepared(true);
    let options = CreateOptions {
        private: true,
        trackers: vec![vec!["http://127.0.0.1:8000/announce".to_owned()]],
        comment: Some("ein Kommentar".to_owned()),
        created_by: Some("a test".to_owned()),
        creation_date: Some(1_700_000_000),
        ..CreateOptions::default()
    };
    let path = torrent.root().join("t");
    let created = create(&path, options.clone(), 2, |_| {}, &false.into()).unwrap();
    let metainfo = &created.metainfo;
    assert!(metainfo.info().is_single_file() && metainfo.info().is_private());
    assert_eq!(
        metainfo.bytes().unwrap().piece_hashes(),
        torrent.metainfo.bytes().unwrap().piece_hashes()
    );
    assert_eq!(metainfo.trackers(), options.trackers);
    assert_eq!(metainfo.comment(), Some("ein Kommentar"));
    assert_eq!(metainfo.created_by(), Some("a test"));
    assert_eq!(metainfo.creation_date(), Some(1_700_000_000));
    assert!(is_whole(&created));
}

#[test]
fn files_around_one_block_and_of_no_bytes_become_torrents() {
    let dir = tempdir().unwrap();
    for len in [0, 1, PIECE - 1, PIECE, PIECE + 1] {
        let path = dir.path().join(len.to_string());
        fs::write(&path, random_bytes(len, 1)).unwrap();
        let created = plain(&path).unwrap();
        let geometry = created.metainfo.info().geometry();
        assert_eq!(geometry.total_len(), len as u64);
        assert_eq!(geometry.pieces() as usize, len.div_ceil(PIECE));
        assert!(is_whole(&created));
    }
}

#[test]
fn a_folder_keeps_empty_nested_and_unicode_files_in_bytewise_order() {
    let files = [("B/x", 9), ("a", 0), ("a-b", 3), ("b/ä/文件", 40_000), ("b/🦀", 7), ("ä", 1)];
    let torrent = Fixture::folder(&files, PIECE);
    torrent.prepared(true);
    fs::create_dir(torrent.path("empty folder")).unwrap();
    let created = plain(&torrent.root().join("t")).unwrap();
    assert_eq!(created.metainfo.info_hash(), torrent.metainfo.info_hash());
    assert_eq!(created.root, fs::canonicalize(torrent.root()).unwrap());
    assert!(created.skipped.is_empty());
    assert!(is_whole(&created));
}

#[test]
fn the_number_of_threads_does_not_show() {
    let torrent = Fixture::folder(&[("a", 3 << 20), ("b", 1 << 20), ("c", 5)], PIECE);
    torrent.prepared(true);
    let options = CreateOptions { piece_len: Some(PIECE as u32), ..CreateOptions::default() };
    for threads in [0, 1, 2, 5] {
        let path = torrent.root().join("t");
        let created = create(&path, options.clone(), threads, |_| {}, &false.into()).unwrap();
        assert_eq!(created.metainfo.info_hash(), torrent.metainfo.info_hash());
    }
}

#[test]
fn pieces_longer_than_what_is_read_at_a_time_are_hashed_whole() {
    let torrent = Fixture::single((5 << 20) + 1, 4 << 20);
    torrent.prepared(true);
    let options = CreateOptions { piece_len: Some(4 << 20), ..CreateOptions::default() };
    let path = torrent.root().join("t");
    let created = create(&path, options, 2, |_| {}, &false.into()).unwrap();
    assert_eq!(created.metainfo.info_hash(), torrent.metainfo.info_hash());
}

#[test]
fn another_name_renames_the_torrent_only() {
    let torrent = Fixture::folder(&[("a", 100), ("b", 100)], PIECE);
    torrent.prepared(true);
    let options = CreateOptions { name: Some("other".to_owned()), ..CreateOptions::default() };
    let path = torrent.root().join("t");
    let created = create(&path, options, 2, |_| {}, &false.into()).unwrap();
    assert_eq!(created.metainfo.info().name(), "other");
    assert_eq!(
        created.metainfo.bytes().unwrap().piece_hashes(),
        torrent.metainfo.bytes().unwrap().piece_hashes()
    );
    let bad = CreateOptions { name: Some("../x".to_owned()), ..CreateOptions::default() };
    let result = create(&path, bad, 2, |_| panic!("nothing is to be hashed"), &false.into());
    assert!(matches!(result, Err(CreateError::Metainfo(_))));
}

#[test]
fn links_inside_are_left_out_and_named_but_the_path_itself_may_be_one() {
    let torrent = Fixture::folder(&[("a", 100), ("dir/b", 100)], PIECE);
    torrent.prepared(true);
    let (outside, link) = (torrent.root().join("outside"), torrent.root().join("link"));
    fs::write(&outside, b"secret").unwrap();
    symlink(&outside, torrent.path("dir/file link")).unwrap();
    symlink(torrent.root(), torrent.path("folder link")).unwrap();
    symlink("nowhere", torrent.path("broken link")).unwrap();
    symlink("t", &link).unwrap();
    for path in [torrent.root().join("t"), link] {
        let created = plain(&path).unwrap();
        assert_eq!(created.metainfo.info_hash(), torrent.metainfo.info_hash());
        let skipped = ["broken link", "dir/file link", "folder link"].map(|n| torrent.path(n));
        assert_eq!(created.skipped, skipped);
    }
}

#[test]
fn a_folder_without_files_and_a_missing_path_are_errors_that_name_it() {
    let dir = tempdir().unwrap();
    fs::create_dir_all(dir.path().join("empty/deeper")).unwrap();
    let error = plain(&dir.path().join("empty")).unwrap_err();
    assert!(matches!(error, CreateError::EmptyFolder { .. }));
    assert!(error.to_string().contains("empty` is a folder without any files"), "{error}");
    let error = plain(&dir.path().join("absent")).unwrap_err();
    assert!(error.to_string().contains("absent`: it does not exist"), "{error}");
    assert!(matches!(plain(Path::new("/")), Err(CreateError::Nameless { .. })));
}

#[test]
fn special_files_are_refused_without_being_opened() {
    let dir = tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    mkfifoat(CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
    for path in [&pipe, dir.path(), Path::new("/dev/null")] {
        assert!(matches!(plain(path), Err(CreateError::Special { .. })), "{path:?}");
    }
}

#[test]
fn names_that_are_not_utf8_are_refused_and_shown_safely() {
    let dir = tempdir().unwrap();
    let path = dir.path().join(OsStr::from_bytes(b"bad\xff\x1b"));
    if fs::write(&path, b"x").is_err() {
        return; // A file system that takes no such names.
    }
    for path in [&path, dir.path()] {
        let error = plain(path).unwrap_err();
        assert!(matches!(error, CreateError::NotUtf8 { .. }));
        assert!(error.to_string().contains(r"bad\xff\x1b"), "{error}");
    }
}

#[test]
fn names_that_metainfo_refuses_are_refused_before_hashing() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("name"), b"x").unwrap();
    fs::write(dir.path().join("NAME"), b"x").unwrap();
    let result = create(
        dir.path(),
        CreateOptions::default(),
        1,
        |_| panic!("nothing is to be hashed"),
        &false.into(),
    );
    assert!(matches!(result, Err(CreateError::Metainfo(_))));
    let options = CreateOptions { piece_len: Some(10_000), ..CreateOptions::default() };
    let file = dir.path().join("name");
    let result = create(&file, options, 1, |_| panic!("nothing is to be hashed"), &false.into());
    assert!(matches!(result, Err(CreateError::Metainfo(_))));
}

#[test]
fn a_file_that_changes_while_it_is_hashed_is_an_error_that_names_it() {
    let torrent = Fixture::folder(&[("a", 100), ("b", 3 * PIECE)], PIECE);
    torrent.prepared(true);
    let path = torrent.path("b");
    let changes: [&(dyn Fn() + Sync); 4] = [
        &|| File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap(),
        &|| File::options().write(true).open(&path).unwrap().set_len(10).unwrap(),
        &|| {
            // Same length, other content, written in place of the old file.
            let other = torrent.root().join("other");
            fs::write(&other, vec![0; 3 * PIECE]).unwrap();
            fs::rename(&other, &path).unwrap();
        },
        &|| fs::remove_file(&path).unwrap(),
    ];
    for change in changes {
        fs::write(&path, &torrent.content[100..]).unwrap();
        // The first word on progress comes before anything is read.
        let begun = |at: CreateProgress| {
            if at.pieces_done == 0 {
                change();
            }
        };
        let options = CreateOptions::default();
        let error =
            create(&torrent.root().join("t"), options, 2, begun, &false.into()).unwrap_err();
        assert!(
            matches!(&error, CreateError::Changed { path: p } if p.ends_with("t/b")),
            "{error}"
        );
    }
}

#[test]
fn progress_ends_whole_and_a_cancel_ends_the_work() {
    let torrent = Fixture::single(40 << 20, 1 << 20);
    torrent.prepared(true);
    let path = torrent.root().join("t");
    let seen = Mutex::new(Vec::new());
    let told = |at: CreateProgress| seen.lock().push(at);
    create(&path, CreateOptions::default(), 2, told, &false.into()).unwrap();
    let seen = seen.into_inner();
    assert!(seen.is_sorted_by_key(|at| at.bytes_done));
    let last = seen.last().unwrap();
    assert_eq!((last.pieces_done, last.bytes_done), (last.pieces_total, last.bytes_total));

    let cancel = AtomicBool::new(false);
    let stop = |at: CreateProgress| cancel.store(at.pieces_done > 0, Ordering::Relaxed);
    let result = create(&path, CreateOptions::default(), 2, stop, &cancel);
    assert!(matches!(result, Err(CreateError::Cancelled)));
}

#[test]
fn how_many_files_there_are_is_known_before_anything_is_hashed() {
    let dir = tempdir().unwrap();
    for n in 0..5 {
        let folder = dir.path().join(format!("set/{}", n % 2));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{n}")), "content").unwrap();
    }
    let hashed = Mutex::new(0);
    let make = |files| {
        crate::storage::create::create_within(
            &dir.path().join("set"),
            CreateOptions::default(),
            ParseLimits { files, ..ParseLimits::default() },
            1,
            |progress| *hashed.lock() = progress.bytes_done,
            &AtomicBool::new(false),
        )
    };
    let refused = make(3).unwrap_err().to_string();
    assert!(refused.contains("`5` files") && refused.contains("`3`"), "{refused}");
    assert_eq!(*hashed.lock(), 0);
    assert_eq!(make(5).unwrap().metainfo.info().files().entries().len(), 5);
}
