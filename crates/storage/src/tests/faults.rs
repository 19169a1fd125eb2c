use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::*;
use crate::{StorageError, check, verify};

#[test]
fn a_link_planted_for_a_file_is_never_followed() {
    let torrent = Fixture::folder(&[("a", 100), ("b", 100)], PIECE);
    let store = torrent.prepared(false);
    let outside = torrent.root().join("outside");
    fs::write(&outside, vec![7; 100]).unwrap();
    fs::remove_file(torrent.path("b")).unwrap();
    symlink(&outside, torrent.path("b")).unwrap();

    let escape = |result: Result<(), StorageError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, StorageError::Escape { .. }), "{error}");
        assert_eq!(error.path(), torrent.path("b"));
    };
    escape(store.write_at(0, &[&torrent.content]));
    escape(store.read_at(150, &mut [0; 10]));
    escape(store.prepare());
    escape(check(&store, None, |_| {}, &false.into()).map(drop));
    escape(verify(&store, |_| {}, &false.into()).map(drop));
    assert_eq!(fs::read(outside).unwrap(), vec![7; 100]);
}

#[test]
fn a_link_planted_for_a_folder_is_never_followed() {
    let torrent = Fixture::folder(&[("dir/deep/a", 100), ("dir/deep/b", 100)], PIECE);
    let outside = torrent.root().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::create_dir(torrent.root().join("t")).unwrap();
    symlink(&outside, torrent.path("dir")).unwrap();

    let store = torrent.store();
    for result in [store.prepare(), store.write_at(0, &[b"x"]), store.read_at(0, &mut [0])] {
        let error = result.unwrap_err();
        assert!(matches!(error, StorageError::Escape { .. }), "{error}");
    }
    assert_eq!(fs::read_dir(outside.join("deep")).unwrap().count(), 0);

    // Also in place of the torrent's own folder.
    fs::remove_dir_all(torrent.root().join("t")).unwrap();
    symlink(&outside, torrent.root().join("t")).unwrap();
    assert!(matches!(store.prepare(), Err(StorageError::Escape { .. })));
}

#[test]
fn the_root_itself_may_be_a_link() {
    let torrent = Fixture::single(100, PIECE);
    let link = torrent.root().join("link");
    fs::create_dir(torrent.root().join("real")).unwrap();
    symlink("real", &link).unwrap();
    let handles = Arc::clone(&torrent.handles);
    let metainfo = Arc::clone(&torrent.metainfo);
    let store = Store::new(&link, metainfo, handles, StoreMode::ReadWrite).unwrap();
    store.prepare().unwrap();
    store.write_at(0, &[&torrent.content]).unwrap();
    assert_eq!(fs::read(torrent.root().join("real/t")).unwrap(), torrent.content);
}

#[test]
fn file_changed_under_us_is_reported_with_its_path() {
    let torrent = Fixture::folder(&[("a", 5_000), ("b", 5_000)], PIECE);
    let store = torrent.prepared(true);
    let mut buf = vec![0; 2_000];
    store.read_at(8_000, &mut buf).unwrap();
    File::options().write(true).open(torrent.path("b")).unwrap().set_len(4_000).unwrap();
    let error = store.read_at(8_000, &mut buf).unwrap_err();
    let path = torrent.path("b");
    assert_eq!(error, StorageError::Changed { path, len: 4_000, wanted: 5_000 });
    assert!(error.to_string().contains("ends after `4000` bytes"), "{error}");
    // The same for a read that must not wait; or it cannot tell.
    if let Err(cached) = store.read_cached(8_000, &mut buf) {
        assert_eq!(cached, error);
    }
    store.read_at(7_000, &mut buf).unwrap();
}

#[test]
fn file_removed_under_us_is_reported_with_its_path() {
    let torrent = Fixture::folder(&[("a", 5_000), ("b", 5_000)], PIECE);
    let store = torrent.prepared(true);
    store.write_at(9_000, &[&torrent.content[9_000..]]).unwrap();
    fs::remove_file(torrent.path("b")).unwrap();
    let error = store.sync().unwrap_err();
    assert!(matches!(error, StorageError::Missing { .. }), "{error}");
    store.close_files();
    for error in [
        store.sync().unwrap_err(),
        store.read_at(6_000, &mut [0]).unwrap_err(),
        store.write_at(6_000, &[b"x"]).unwrap_err(),
    ] {
        assert!(matches!(error, StorageError::Missing { .. }), "{error}");
        assert_eq!(error.path(), torrent.path("b"));
    }
    store.prepare().unwrap();
    store.sync().unwrap();
}

#[test]
fn a_folder_where_a_file_should_be_is_an_error_that_says_so() {
    let torrent = Fixture::folder(&[("a", 5_000)], PIECE);
    fs::create_dir_all(torrent.path("a")).unwrap();
    let store = torrent.store();
    for result in [store.prepare(), store.read_at(0, &mut [0]), store.write_at(0, &[b"x"])] {
        let error = result.unwrap_err();
        assert!(
            matches!(error, StorageError::Other { .. } | StorageError::System { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("folder") || error.to_string().contains("directory"));
    }
}

#[test]
fn a_file_where_a_folder_should_be_is_an_error() {
    let torrent = Fixture::folder(&[("dir/a", 5_000)], PIECE);
    fs::create_dir(torrent.root().join("t")).unwrap();
    fs::write(torrent.path("dir"), b"").unwrap();
    let store = torrent.store();
    assert!(store.prepare().is_err());
    assert!(store.write_at(0, &[b"x"]).is_err());
}

/// Makes a file unwritable until dropped, even for root; `None` if the file system cannot do that.
struct Locked(File);

impl Locked {
    fn new(path: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            fs::set_permissions(path, Permissions::from_mode(0o444)).unwrap();
        }
        let file = File::open(path).unwrap();
        if rustix::process::geteuid().is_root() {
            let flags = ioctl_getflags(&file).ok()?;
            ioctl_setflags(&file, flags | IFlags::IMMUTABLE).ok()?;
        }
        Some(Self(file))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Ok(flags) = ioctl_getflags(&self.0) {
            let _ = ioctl_setflags(&self.0, flags & !IFlags::IMMUTABLE);
        }
    }
}

#[test]
fn permission_denied_is_reported_and_reading_goes_on() {
    let torrent = Fixture::single(5_000, PIECE);
    let store = torrent.prepared(true);
    let path = torrent.root().join("t");
    let Some(_locked) = Locked::new(&path) else { return };
    store.prepare().unwrap();
    let mut back = vec![0; 5_000];
    store.read_at(0, &mut back).unwrap();
    assert_eq!(back, torrent.content);
    let error = store.write_at(0, &[&torrent.content]).unwrap_err();
    assert!(matches!(error, StorageError::Denied { .. }), "{error}");
    assert_eq!(error.path(), path);
    store.read_at(0, &mut back).unwrap();
}

/// A full disk, simulated by the largest file that a process may write: the test runs itself in a
/// shell that sets the limit.
#[test]
fn disk_full_is_reported_and_nothing_verified_is_lost() {
    const CHILD: &str = "PIECEWORK_TEST_DISK_FULL";
    const NAME: &str = "tests::faults::disk_full_is_reported_and_nothing_verified_is_lost";
    if std::env::var_os(CHILD).is_none() {
        // 64 blocks are 32 or 64 KiB, depending on the shell.
        let script = "trap '' XFSZ; ulimit -f 64; exec \"$@\"";
        let test = std::env::current_exe().unwrap();
        let output = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(test)
            .args(["--exact", NAME, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let torrent = Fixture::single(8 * PIECE, PIECE);
    let store = torrent.prepared(false);
    store.write_at(0, &[torrent.piece(0)]).unwrap();
    let error = store.write_at(PIECE as u64, &[&torrent.content[PIECE..]]).unwrap_err();
    assert!(matches!(error, StorageError::Full { .. }), "{error}");
    assert_eq!(error.path(), torrent.root().join("t"));
    store.sync().unwrap();
    let right = check(&store, None, |_| {}, &false.into()).unwrap();
    assert!(right.contains(PieceIndex(0)) && !right.is_full());
}
