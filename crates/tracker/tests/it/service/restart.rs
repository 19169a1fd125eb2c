//! State after a shutdown, a kill, or with a damaged file.

use super::*;

fn peers_file(dir: &Path) -> std::path::PathBuf {
    dir.join("torrents/tracker.peers")
}

#[test]
fn a_restarted_tracker_knows_its_peers_and_forgets_them_in_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let tracker = Tracker::with(on_disk(dir.path()));
    let a = torrent("a", 16);
    tracker.register(&a, "");
    for hash in [a.info_hash(), hash(1)] {
        tracker.announce_http(hash, 1001, 0, "&key=5");
    }
    tracker.clock.advance(Duration::from_secs(100));
    for hash in [a.info_hash(), hash(1)] {
        tracker.udp().announce(said(hash, 1002, 9));
    }
    tracker.stop();

    let tracker = Tracker::with(on_disk(dir.path()));
    assert_eq!(tracker.handle().notices(), [] as [&str; 0]);
    for hash in [a.info_hash(), hash(1)] {
        let http = tracker.announce_http(hash, 1003, 9, "");
        assert_eq!(http.peers(), [local(1001), local(1002)]);
        assert_eq!((http.int("complete"), http.int("incomplete")), (Some(1), Some(2)));
    }
    assert!(tracker.console("peers").contains("127.0.0.1:1001"));
    // 181 s and 81 s after they announced.
    tracker.clock.advance(Duration::from_secs(81));
    for hash in [a.info_hash(), hash(1)] {
        assert_eq!(tracker.announce_http(hash, 1003, 9, "").peers(), [local(1002)]);
    }
    tracker.until_peers(4);
    tracker.stop();
    let mode = std::os::unix::fs::MetadataExt::mode(&peers_file(dir.path()).metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600, "it has keys of peers");
}

#[test]
fn a_tracker_that_is_killed_knows_who_was_there_seconds_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut tracker = Tracker::with(on_disk(dir.path()));
    let a = torrent("a", 16);
    tracker.register(&a, "");
    for port in 1001..=1050 {
        tracker.announce_http(a.info_hash(), port, u64::from(port % 2), "");
    }
    let start = Instant::now();
    // 50 peers have 20 bytes of id alone.
    while peers_file(dir.path()).metadata().map_or(0, |file| file.len()) < 50 * 20 {
        assert!(start.elapsed() < PATIENCE, "the peers are not written");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Ends everything without writing anything.
    drop(tracker.handle.take());
    drop(tracker);
    let tracker = Tracker::with(on_disk(dir.path()));
    assert_eq!(tracker.json("/stats")["peers"], 50);
    tracker.stop();
}

#[test]
fn a_damaged_file_of_peers_is_told_and_set_aside_and_the_tracker_starts() {
    let dir = tempfile::tempdir().unwrap();
    let tracker = Tracker::with(on_disk(dir.path()));
    tracker.announce_http(hash(1), 1001, 0, "");
    tracker.stop();
    let whole = std::fs::read(peers_file(dir.path())).unwrap();
    let cases = [&whole[..whole.len() / 2], b"", &[b"x", &whole[1..]].concat()[..]];
    for (at, bytes) in (1..).zip(cases) {
        std::fs::write(peers_file(dir.path()), bytes).unwrap();
        let tracker = Tracker::with(on_disk(dir.path()));
        let told = tracker.handle().notices().join("\n");
        assert!(told.contains("was damaged") && told.contains("tracker.peers.damaged-"), "{told}");
        assert_eq!(tracker.json("/stats")["peers"], 0);
        tracker.stop();
        let aside = std::fs::read_dir(dir.path().join("torrents")).unwrap();
        let aside = aside.filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().contains("damaged")
        });
        assert_eq!(aside.count(), at, "what was there can be looked at");
    }
    // With 0 kept peers there is no file.
    std::fs::remove_file(peers_file(dir.path())).unwrap();
    let tracker = Tracker::with(TrackerConfig { kept_peers: 0, ..on_disk(dir.path()) });
    tracker.announce_http(hash(1), 1001, 0, "");
    tracker.stop();
    assert!(!peers_file(dir.path()).exists());
}
