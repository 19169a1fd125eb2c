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
use crate::{
    CreateError, CreateOptions, CreateProgress, CreatedTorrent, OmissionReason, Selection,
    StoreOptions, check, create,
};

fn plain(path: &Path) -> Result<CreatedTorrent, CreateError> {
    create(path, CreateOptions::default(), 2, |_| {}, &false.into())
}

fn is_whole(created: &CreatedTorrent) -> bool {
    let written = created.metainfo.bytes().unwrap();
    let metainfo = Arc::new(Metainfo::parse(&written, &ParseLimits::default()).unwrap());
    let (mode, names) = (StoreMode::ReadOnly, created.names.clone());
    let options = StoreOptions { mode, names, ..StoreOptions::default() };
    let store = Store::with_options(&created.root, metainfo, Arc::default(), options).unwrap();
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
    assert!(is_whole(&created));
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
    for (path, name) in [(torrent.root().join("t"), "t"), (link, "link")] {
        let created = plain(&path).unwrap();
        let is_same = created.metainfo.info_hash() == torrent.metainfo.info_hash();
        // A link has its own name.
        assert_eq!((created.metainfo.info().name(), is_same), (name, name == "t"));
        let skipped: Vec<_> = created.skipped.iter().map(|it| it.path.clone()).collect();
        assert_eq!(
            skipped,
            ["broken link", "dir/file link", "folder link"].map(|n| torrent.path(n))
        );
        assert!(created.skipped.iter().all(|it| it.reason == OmissionReason::Link));
        assert!(is_whole(&created));
    }
}

/// Issue 13, line 3.
#[test]
fn links_are_followed_if_asked_for_and_never_in_a_circle_or_out_of_what_is_allowed() {
    let dir = tempdir().unwrap();
    let top = dir.path().canonicalize().unwrap();
    // Model hubs store files like this: each under its hash, with links to it.
    for (name, text) in [("blobs/1", "one"), ("blobs/2", "two"), ("elsewhere/x", "far")] {
        fs::create_dir_all(top.join(name).parent().unwrap()).unwrap();
        fs::write(top.join(name), text).unwrap();
    }
    let snapshot = top.join("snapshots/main");
    fs::create_dir_all(snapshot.join("sub")).unwrap();
    let links = [
        ("model.bin", "../../blobs/1"),
        ("copy.bin", "../../blobs/1"),
        ("sub/config", "../../../blobs/2"),
        ("folder", "../../elsewhere"),
        ("sub/up", ".."),
        ("gone", "nowhere"),
        ("pipe", "/dev/null"),
    ];
    for (name, to) in links {
        symlink(to, snapshot.join(name)).unwrap();
    }
    symlink(&snapshot, top.join("elsewhere/back")).unwrap();
    let made = |within: Vec<PathBuf>| {
        let selection =
            Selection { follow_links: true, links_within: within, ..Selection::default() };
        let options = CreateOptions { selection, ..CreateOptions::default() };
        create(&snapshot, options, 2, |_| {}, &false.into()).unwrap()
    };
    let created = made(Vec::new());
    let files = created.metainfo.info().files().clone();
    let paths: Vec<_> = files.entries().iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["main/copy.bin", "main/folder/x", "main/model.bin", "main/sub/config"]);
    assert_eq!((&created.root, created.names[&0].join("/")), (&top, "blobs/1".to_owned()));
    assert!(is_whole(&created));
    let reasons: Vec<_> = created.skipped.iter().map(|it| it.reason).collect();
    use OmissionReason::*;
    assert_eq!(reasons, [LinkAbove, LinkToNothing, Special, LinkAbove]);
    // A link that has replaced a link's target is not followed when it is read.
    let within = made(vec![top.join("blobs"), top.join("snapshots")]);
    assert_eq!(within.metainfo.info().files().entries().len(), 3);
    assert!(
        within.skipped.iter().any(|it| it.reason == LinkOutside && it.path.ends_with("folder"))
    );
    // The link is named as itself.
    let created = plain(&snapshot.join("model.bin")).unwrap();
    assert_eq!(created.metainfo.info().name(), "model.bin");
    assert!(created.metainfo.info().is_single_file() && is_whole(&created));
}

/// Issue 13, line 3.
#[test]
fn patterns_and_hidden_files_are_left_out_by_choice_and_a_tag_changes_the_info_hash() {
    let files =
        ["a.tmp", "b/c.tmp", "b/keep", ".hidden", ".git/config", "build/x.o", "b/build/y.o"];
    let torrent = Fixture::folder(&files.map(|name| (name, 10)), PIECE);
    torrent.prepared(true);
    let made = |exclude: &[&str], skip_hidden, source: Option<&str>| {
        let exclude = exclude.iter().map(|it| (*it).to_owned()).collect();
        let selection = Selection { exclude, skip_hidden, ..Selection::default() };
        let source = source.map(str::to_owned);
        let options = CreateOptions { selection, source, ..CreateOptions::default() };
        create(&torrent.root().join("t"), options, 2, |_| {}, &false.into())
    };
    let paths = |exclude: &[&str], skip_hidden| {
        let created = made(exclude, skip_hidden, None).unwrap();
        assert!(is_whole(&created) && created.skipped.is_empty());
        let entries = created.metainfo.info().files().entries().to_vec();
        let below = entries.iter().map(|it| it.path.as_str().strip_prefix("t/").unwrap());
        below.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(paths(&[], false).len(), 7);
    assert_eq!(paths(&[], true), ["a.tmp", "b/build/y.o", "b/c.tmp", "b/keep", "build/x.o"]);
    assert_eq!(paths(&["*.tmp", "build"], true), ["b/keep"]);
    assert_eq!(paths(&["/build/", "b/*.tmp"], true), ["a.tmp", "b/build/y.o", "b/keep"]);
    assert_eq!(paths(&["**/*.o", "{a,c}.tmp", ".*"], false), ["b/keep"]);
    assert!(matches!(made(&["*"], false, None), Err(CreateError::NothingLeft { excluded: 5, .. })));
    let bad = made(&["a["], false, None).unwrap_err().to_string();
    assert!(bad.starts_with("the pattern `a[` is invalid:"), "{bad}");
    let hash = |source| made(&[], false, source).unwrap().metainfo.info_hash();
    assert_ne!(hash(Some("TAG")), hash(None));
    assert_eq!(hash(None), torrent.metainfo.info_hash());
}

/// Issue 13, line 2.
#[test]
fn every_awkward_name_is_shared_and_what_is_no_file_is_left_out() {
    let dir = tempdir().unwrap();
    let top = dir.path().join("tree");
    fs::create_dir_all(top.join("z")).unwrap();
    let latin = OsStr::from_bytes(b"caf\xe9");
    if fs::create_dir(top.join(latin)).is_err() {
        return; // A file system that takes no such names.
    }
    let names: [&[u8]; 10] = [
        b"README",
        b"readme",
        b"Z",
        b"z/inside",
        b"system-x\\x2dy.mount",
        b"caf\xe9/\xfcber",
        "café".as_bytes(),
        b"..\\x",
        b"Stra\xdfe",
        "mark\u{10ffe9}".as_bytes(),
    ];
    for (number, name) in names.iter().enumerate() {
        fs::write(top.join(OsStr::from_bytes(name)), random_bytes(PIECE + number, number as u64))
            .unwrap();
    }
    mkfifoat(CWD, top.join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap();
    let created = plain(&top).unwrap();
    assert!(is_whole(&created));
    let skipped: Vec<_> = created.skipped.iter().map(|it| it.path.file_name().unwrap()).collect();
    assert_eq!(skipped, ["pipe", "socket"]);
    let paths: Vec<_> =
        created.metainfo.info().files().entries().iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths.len(), names.len());
    for name in
        ["README", "readme", "Z", "z/inside", "system-x\\x2dy.mount", "café.1", "café/über", "..x"]
    {
        assert!(paths.contains(&&*format!("tree/{name}")), "{name}: {paths:?}");
    }
    assert_eq!(created.renamed.len(), 5, "{:?}", created.renamed);
    let notices = created.notices().join("\n");
    assert!(notices.contains("left out: `") && notices.contains("pipe` is neither"), "{notices}");
    assert!(notices.contains("caf\\xe9/\\xfcber` is `café/über`"), "{notices}");
    // The torrent is parsed as it was made.
    let again = created.metainfo.bytes().unwrap();
    let again = Metainfo::parse(&again, &ParseLimits::default()).unwrap();
    assert_eq!(again.info().files(), created.metainfo.info().files());
    assert!(again.notices().unwrap().is_empty());
}

/// Issue 13, line 2.
#[test]
fn what_is_named_like_padding_is_left_out_because_nobody_would_write_it() {
    let padding = "_____padding_file_0_if you see this file, please update____";
    let dir = tempdir().unwrap();
    let top = dir.path().canonicalize().unwrap().join("t");
    let (one, other) = (top.join(padding), top.join("b").join(padding));
    fs::create_dir_all(&one).unwrap();
    fs::create_dir_all(top.join("b")).unwrap();
    for path in [top.join("a"), top.join("b/c"), one.join("inside"), other.clone()] {
        fs::write(path, "not zeros").unwrap();
    }
    let created = plain(&top).unwrap();
    let entries = created.metainfo.info().files().entries();
    let paths: Vec<_> = entries.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths, ["t/a", "t/b/c"]);
    assert!(is_whole(&created));
    let skipped: Vec<_> = created.skipped.iter().map(|it| (&it.path, it.reason)).collect();
    assert_eq!(skipped, [(&one, OmissionReason::Padding), (&other, OmissionReason::Padding)]);
    assert!(created.notices()[0].contains("has the name of padding"), "{:?}", created.notices());
    // If it is given itself, there is nothing else.
    for path in [&one, &other] {
        let refused = plain(path).unwrap_err().to_string();
        assert!(refused.contains("names padding, which is never written"), "{refused}");
    }
}

/// Issue 13, line 3.
#[test]
fn bits_of_executables_go_into_the_torrent_and_come_out_when_a_file_is_finished() {
    use std::os::unix::fs::PermissionsExt;
    let torrent = Fixture::folder(&[("run", PIECE), ("text", PIECE), ("touch", 0)], PIECE);
    torrent.prepared(true);
    for name in ["run", "touch"] {
        fs::set_permissions(torrent.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let created = plain(&torrent.root().join("t")).unwrap();
    let bits: Vec<_> =
        created.metainfo.info().files().entries().iter().map(|it| it.executable).collect();
    assert_eq!(bits, [true, false, true]);
    let metainfo = Arc::new(created.metainfo);
    for suffix in [Some(".part".to_owned()), None] {
        let target = tempdir().unwrap();
        let options = StoreOptions { incomplete_suffix: suffix.clone(), ..Default::default() };
        let store =
            Store::with_options(target.path(), Arc::clone(&metainfo), Arc::default(), options);
        let store = store.unwrap();
        store.prepare().unwrap();
        store.write_at(0, &[&torrent.content]).unwrap();
        let runs = |name: &str| {
            let path = target.path().join("t").join(name);
            path.metadata().unwrap().permissions().mode() & 0o111 != 0
        };
        if suffix.is_some() {
            assert!(!runs("run.part"));
            (0..2).for_each(|file| store.finish_file(file).unwrap());
        } else {
            (0..2).for_each(|file| store.make_executable(file).unwrap());
        }
        assert_eq!([runs("run"), runs("text"), runs("touch")], [true, false, true]);
    }
    let single = plain(&torrent.path("run")).unwrap();
    assert!(single.metainfo.info().files().entries()[0].executable);
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
    for path in [&pipe, Path::new("/dev/null")] {
        assert!(matches!(plain(path), Err(CreateError::Special { .. })), "{path:?}");
    }
    let nothing = plain(dir.path()).unwrap_err();
    assert!(matches!(nothing, CreateError::NothingLeft { left_out: 1, .. }), "{nothing}");
}

#[test]
fn a_name_that_is_not_utf8_is_shared_under_one_that_is_and_shown_safely() {
    let dir = tempdir().unwrap();
    let path = dir.path().join(OsStr::from_bytes(b"bad\xff\x1b"));
    if fs::write(&path, b"x").is_err() {
        return; // A file system that takes no such names.
    }
    for path in [&path, dir.path()] {
        let created = plain(path).unwrap();
        assert!(is_whole(&created));
        let notices = created.notices();
        assert!(notices[0].contains(r"bad\xff\x1b` is `"), "{notices:?}");
        assert!(!notices[0].contains('\u{1b}'), "{notices:?}");
    }
}

#[test]
fn a_piece_length_that_metainfo_refuses_is_refused_before_hashing() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("name");
    fs::write(&file, b"x").unwrap();
    let options = CreateOptions { piece_len: Some(10_000), ..CreateOptions::default() };
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
        // The first report of progress comes before anything is read.
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
        crate::create::create_within(
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
