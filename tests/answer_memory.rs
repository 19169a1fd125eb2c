//! Memory of long answers. Every byte is counted, so the result does not depend on the machine.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use piecework::cli::{Env, Exit, Output, log};
use piecework_api::TorrentSettings;
use piecework_core::metainfo::MetainfoBuilder;
use piecework_daemon::{AddSource, NewTorrent};
use piecework_journal::{Journal, JournalOptions};
use piecework_testkit::allocations::{CountingAllocator, ONE_AT_A_TIME, begin_peak, live, peak};
use piecework_testkit::daemon::{ControlClient, Home, all_fields, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// The maximum of live bytes since then, beyond `rest`.
fn peak_above(rest: usize) -> usize {
    peak().saturating_sub(rest)
}

/// Counts lines, and checks that the times at their beginnings ascend.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    count: usize,
    /// The time at the beginning of the last line.
    last: Vec<u8>,
    line: Vec<u8>,
    unordered: bool,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut told = self.0.lock().unwrap();
        let Told { count, last, line, unordered } = &mut *told;
        for byte in bytes {
            if *byte != b'\n' {
                line.push(*byte);
                continue;
            }
            *count += 1;
            // The head has no time.
            *unordered |= line[..line.len().min(19)] < last[..] && line[0].is_ascii_digit();
            if line[0].is_ascii_digit() {
                last.clear();
                last.extend_from_slice(&line[..line.len().min(19)]);
            }
            line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Makes a journal in which one peer gave two torrents `rows` pieces in turn and was banned once,
/// and one of a tracker with as many requests.
fn journals(home: &Path, rows: u32) {
    for (name, is_tracker) in [("journal.sqlite", false), ("tracker.sqlite", true)] {
        let path = home.join(name);
        drop(
            Journal::open(&JournalOptions {
                path: path.clone(),
                age: Journal::DEFAULT_AGE,
                size: Journal::DEFAULT_SIZE,
                program: "test".to_owned(),
            })
            .unwrap(),
        );
        let mut journal = rusqlite::Connection::open(&path).unwrap();
        let write = journal.transaction().unwrap();
        write
            .execute_batch(
                "INSERT INTO torrents VALUES (1, zeroblob(20), 'a', 1000000, 100, 16384), \
                 (2, randomblob(20), 'b', 1000000, 100, 16384); \
                 INSERT INTO peers VALUES (1, '10.0.0.1:7', 'Test 1.0');",
            )
            .unwrap();
        let sql = match is_tracker {
            true => {
                "INSERT INTO request_rows (run, time, event, via, torrent, name, peer, returned, \
                 complete) VALUES (1, 1700000000000 + ?1, 0, 0, 1, NULL, '10.0.0.1:7', 0, 0)"
            }
            false => {
                "INSERT INTO given_rows (run, time, torrent, piece, peer, verdict, blocks, bytes) \
                 VALUES (1, 1700000000000 + ?1, 1 + ?1 % 2, 3, 1, 0, 1, 16384)"
            }
        };
        for row in 0..rows {
            write.prepare_cached(sql).unwrap().execute([row]).unwrap();
        }
        if !is_tracker {
            let spans = "INSERT INTO spans VALUES (1, 1, ?1), (2, 1, ?1)";
            write.execute(spans, [rows]).unwrap();
            let bad = "INSERT INTO bad_rows (run, time, torrent, piece, givers, expected, got, peer, \
                       block) VALUES (1, 1700000000001, 1, 3, 1, zeroblob(20), randomblob(20), 1, \
                       2)";
            write.execute(bad, []).unwrap();
        }
        write.commit().unwrap();
    }
}

/// Returns the lines that `torrent-log` wrote, and the memory that it took.
fn said(home: &Path, args: &[&str]) -> (usize, usize) {
    let lines = Lines::default();
    let out = Output::new(lines.clone(), false, false);
    let (stderr, complained) = Output::captured();
    let rest = begin_peak();
    let exit = std::thread::scope(|scope| {
        let env = Env::new("torrent-log", args, home, out, stderr);
        scope.spawn(|| log::main(env)).join().unwrap()
    });
    let peak = peak_above(rest);
    assert_eq!(exit, Exit::Fine, "{}", complained.text());
    let told = lines.0.lock().unwrap();
    assert!(!told.unordered, "{args:?}: not in the order of time");
    (told.count, peak)
}

#[tokio::test]
async fn long_logs_are_told_whole_in_order_and_in_the_same_memory_however_long() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (few, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    journals(few.path(), 12_000);
    journals(many.path(), 120_000);
    let csv = ["--peer", "10.0.0.1:7", "--csv", "--journal", "journal.sqlite"];
    let asked = ["--csv", "--journal", "tracker.sqlite"];
    for (args, besides) in [(&csv[..], 2), (&asked[..], 1)] {
        let (lines, before) = said(few.path(), args);
        assert_eq!(lines, 12_000 + besides, "{args:?}");
        let (lines, after) = said(many.path(), args);
        assert_eq!(lines, 120_000 + besides, "{args:?}");
        // SQLite's own pages, 2 MiB at most, are not allocated here.
        assert!(after < before + (1 << 20), "{args:?}: {before} bytes, then {after}");
        assert!(after < 8 << 20, "{args:?}: {after} bytes");
    }
    // JSON is one line, and sums read everything too.
    let json = ["--peer", "10.0.0.1:7", "--json", "--journal", "journal.sqlite"];
    let sums = ["a", "--since", "9999d", "--csv", "--journal", "journal.sqlite"];
    for (args, lines) in [(&json[..], 1), (&sums[..], 2)] {
        let (told, peak) = said(many.path(), args);
        assert_eq!(told, lines, "{args:?}");
        assert!(peak < 64 << 20, "{args:?}: {peak} bytes");
    }
}

/// Waits until `daemon` has this many torrents.
async fn has(daemon: &piecework_daemon::Daemon, torrents: usize) {
    within(async {
        while daemon.torrents().len() < torrents {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torrents_added_by_the_watch_folder_take_what_they_take_after_a_restart() {
    const TORRENTS: u32 = 1_000;
    let _alone = ONE_AT_A_TIME.lock().await;
    let home = Home::new();
    let watched = home.downloads().join("watched");
    std::fs::create_dir_all(&watched).unwrap();
    for n in 0..TORRENTS {
        let piecework_daemon::AddSource::Bytes(bytes) = home.tiny(n).source else { panic!() };
        let path = watched.join(format!("{n}.torrent"));
        std::fs::write(&path, bytes).unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(60);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    }
    let daemon = home.start().await;
    let empty = live();
    let change = serde_json::json!({"watch_folder": watched, "start_added": false});
    daemon.change_settings(serde_json::from_value(change).unwrap()).await.unwrap();
    has(&daemon, TORRENTS as usize).await;
    // After some seconds the driver is quiet and has freed its memory for the many torrents.
    let settled = async || {
        let mut before = live();
        within(async {
            loop {
                tokio::time::sleep(Duration::from_secs(3)).await;
                let now = live();
                if now.abs_diff(before) < 64 << 10 {
                    return now;
                }
                before = now;
            }
        })
        .await
    };
    let added = settled().await.saturating_sub(empty) / TORRENTS as usize;
    daemon.shutdown().await;
    drop(daemon);
    let again = home.start().await;
    has(&again, TORRENTS as usize).await;
    let restarted = settled().await.saturating_sub(empty) / TORRENTS as usize;
    again.shutdown().await;
    println!("{added} bytes each when added, {restarted} after a restart");
    assert!(added < restarted + 256, "{added} bytes each when added, {restarted} after a restart");
}

/// A daemon that is served.
struct Served {
    _home: Home,
    daemon: piecework_daemon::Daemon,
    control: piecework_control::Control,
    asker: ControlClient,
}

impl Served {
    async fn start() -> Self {
        let home = Home::new();
        let daemon = home.start().await;
        let config = piecework_testkit::daemon::control_config();
        let control = piecework_control::Control::start(config, daemon.clone()).await.unwrap();
        let asker = ControlClient::new(control.addrs()[0]).await;
        Self { _home: home, daemon, control, asker }
    }

    /// Returns the bytes of an answer, and the maximum memory that it took beyond what was in use
    /// before. Other work of the daemon counts too, so the best of several attempts is used.
    async fn measure(&self, (method, path, headers, body): Question<'_>) -> (usize, usize) {
        let (mut bytes, mut least) = (0, usize::MAX);
        for _ in 0..4 {
            let rest = begin_peak();
            let mut is_fine = false;
            bytes = self
                .asker
                .ask(method, path, headers, body, |part| {
                    is_fine |= part.starts_with(b"HTTP/1.1 200");
                })
                .await;
            assert!(is_fine, "{method} {path} {body}");
            least = least.min(peak_above(rest));
        }
        (bytes, least)
    }
}

/// A method, an address, headers, a body.
type Question<'a> = (&'a str, &'a str, &'a str, &'a str);

/// Memory beyond what is in use at rest: buffers of the connection, one part, the list of
/// info-hashes.
const MOST: usize = 2 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_torrents_are_answered_in_the_same_memory_however_many_there_are() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let served = Served::start().await;
    let mut added = 0;
    let (plain, table) = (all_fields(""), all_fields("\"format\":\"table\","));
    let questions: [Question<'_>; 4] = [
        ("GET", "/status", "", ""),
        ("GET", "/status", "Accept-Encoding: gzip\r\n", ""),
        ("POST", "/transmission/rpc", "", &plain),
        ("POST", "/transmission/rpc", "", &table),
    ];
    let mut answers = Vec::new();
    for torrents in [200, 2_000] {
        while added < torrents {
            let new = piecework_daemon::NewTorrent {
                settings: piecework_api::TorrentSettings { paused: true, ..Default::default() },
                ..served._home.tiny(added)
            };
            served.daemon.add(new).await.unwrap();
            added += 1;
        }
        // Memory that the last ones used temporarily is freed.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut measured = Vec::new();
        for question in questions {
            measured.push(served.measure(question).await);
        }
        answers.push(measured);
    }
    for (question, (few, many)) in questions.iter().zip(answers[0].iter().zip(&answers[1])) {
        println!("{} {}: {few:?}, then {many:?}", question.0, question.1);
        assert!(many.1 < MOST, "{question:?}: {many:?}");
        if question.2.is_empty() {
            assert!(many.0 > few.0 * 9 && many.0 > 1_000_000, "{question:?}: {many:?}");
        } else {
            assert!(many.0 * 4 < answers[1][0].0, "{many:?} is packed");
        }
    }
    served.control.shutdown().await;
    served.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torrents_of_many_files_and_pieces_are_answered_in_little_memory() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let served = Served::start().await;
    let files: Vec<(Vec<String>, u64)> = (0..40_000)
        .map(|n| (vec![format!("folder {}", n % 100), format!("{n}.txt")], 16_384))
        .collect();
    let builder =
        piecework_core::metainfo::MetainfoBuilder::folder("many", files).piece_len(16_384);
    let metainfo = builder.build(vec![7; 40_000 * 20]).unwrap();
    let info_hash = metainfo.info_hash();
    let new = piecework_daemon::NewTorrent {
        source: piecework_daemon::AddSource::Bytes(metainfo.bytes().unwrap().as_ref().to_vec()),
        settings: piecework_api::TorrentSettings { paused: true, ..Default::default() },
        ..served._home.tiny(0)
    };
    drop(metainfo);
    served.daemon.add(new).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (one, files) = (format!("/torrents/{info_hash}"), format!("/torrents/{info_hash}/files"));
    let few = format!("{one}?fields=state,bytes_have");
    let part = format!("{files}?offset=39990&limit=10");
    let rpc = all_fields("");
    for (question, least) in [
        (("GET", &*one, "", ""), 4_000_000),
        (("GET", &*files, "", ""), 4_000_000),
        (("GET", &*part, "", ""), 1_000),
        (("GET", &*few, "", ""), 0),
        (("POST", "/transmission/rpc", "", &*rpc), 6_000_000),
    ] {
        let (bytes, peak) = served.measure(question).await;
        println!("{} {}: {bytes} bytes, {peak} of memory", question.0, question.1);
        assert!(bytes > least && peak < MOST, "{question:?}: {bytes} bytes took {peak}");
        assert!(least > 1_000 || bytes < 3_000, "{question:?}: {bytes} bytes");
    }
    served.control.shutdown().await;
    served.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torrent_of_many_pieces_is_told_in_little_memory_whatever_is_asked_of_it() {
    const PIECES: u32 = 2_000_000;
    let _alone = ONE_AT_A_TIME.lock().await;
    let served = Served::start().await;
    let builder = MetainfoBuilder::single_file("long", u64::from(PIECES) << 14).piece_len(1 << 14);
    let metainfo = builder.build(vec![7; PIECES as usize * 20]).unwrap();
    let info_hash = metainfo.info_hash();
    let new = NewTorrent {
        source: AddSource::Bytes(metainfo.bytes().unwrap().as_ref().to_vec()),
        settings: TorrentSettings { paused: true, ..Default::default() },
        ..served._home.tiny(0)
    };
    let bytes = metainfo.bytes().unwrap().len();
    drop(metainfo);
    served.daemon.add(new).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let of = |part: &str| format!("/torrents/{info_hash}{part}");
    let [torrent, pieces, givers] = ["/torrent", "/pieces", "/givers"].map(of);
    let others =
        ["", "/files", "/peers", "/trackers", "/log", "/pieces/5", "/bad", "/timeline"].map(of);
    let rpc = all_fields("");
    let large = [
        (&*torrent, bytes, MOST),
        (&*pieces, 4_000_000, 32 << 20),
        (&*givers, 4_000_000, 32 << 20),
    ];
    for (path, least, most) in large {
        let (bytes, peak) = served.measure(("GET", path, "", "")).await;
        println!("{path}: {bytes} bytes, {peak} of memory");
        assert!(bytes > least && peak < most, "{path}: {bytes} bytes took {peak}");
    }
    for path in &others {
        let (bytes, peak) = served.measure(("GET", path, "", "")).await;
        println!("{path}: {bytes} bytes, {peak} of memory");
        assert!(peak < 32 << 20, "{path}: {bytes} bytes took {peak}");
    }
    let (bytes, peak) = served.measure(("POST", "/transmission/rpc", "", &rpc)).await;
    println!("RPC: {bytes} bytes, {peak} of memory");
    assert!(peak < 32 << 20, "the RPC: {bytes} bytes took {peak}");
    served.control.shutdown().await;
    served.daemon.shutdown().await;
}

/// A tracker whose catalogue has this many torrents. Asked for a name it breaks off after a quarter
/// of it, and asked for `other` it answers something else.
async fn long_catalogue(torrents: u32) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            use std::fmt::Write;
            let begin = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
            let mut text = begin.to_owned();
            if head.contains("name=other") {
                stream.write_all(format!("{begin}{{\"cats\": []}}").as_bytes()).await.unwrap();
                continue;
            }
            text.push_str("{\"torrents\":[");
            let told = if head.contains("name=") { torrents / 4 } else { torrents };
            for n in 0..told {
                let comma = if n > 0 { "," } else { "" };
                let name = format!("a torrent with a name of usual length, number {n}");
                write!(
                    text,
                    "{comma}{{\"info_hash\":\"{n:040x}\",\"name\":\"{name}\",\"size\":1,\
                     \"pieces\":1,\"piece_length\":16384,\"files\":1,\"private\":false,\"description\":null,\"complete\":0,\"incomplete\":0,\
                     \"registered_at\":1}}"
                )
                .unwrap();
                if text.len() > 10_000 {
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        break;
                    }
                    text.clear();
                }
            }
            if told == torrents {
                text.push_str("]}");
            }
            // A client that has left needs no more.
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_of_a_tracker_is_passed_on_in_the_same_memory_however_long_it_is() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let served = Served::start().await;
    let (short, long) = (long_catalogue(3).await, long_catalogue(60_000).await);
    let path = |tracker: std::net::SocketAddr| format!("/torrents?tracker={tracker}");
    let (few, _) = served.measure(("GET", &path(short), "", "")).await;
    let (many, peak) = served.measure(("GET", &path(long), "", "")).await;
    println!("{few} bytes, then {many} in {peak} of memory");
    assert!(many > few * 5_000 && many > 10_000_000 && peak < MOST, "{many} bytes took {peak}");
    let (packed, peak) =
        served.measure(("GET", &path(long), "Accept-Encoding: gzip\r\n", "")).await;
    assert!(packed * 4 < many && peak < MOST, "{packed} bytes took {peak}");
    // The complete list.
    let told = body(&served, &path(short)).await;
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    let names: Vec<_> = told["torrents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!((names.len(), told["tracker"].as_str()), (3, Some(&*short.to_string())));
    assert!(names[2].ends_with("number 2"), "{names:?}");
    // An answer that is not a list is an error, and one that breaks off does not count as complete.
    let other = body(&served, &format!("{}&name=other", path(short))).await;
    assert!(String::from_utf8(other).unwrap().contains("is not that of a catalogue"));
    let cut = body(&served, &format!("{}&name=x", path(short))).await;
    assert!(String::from_utf8(cut).unwrap().contains("it ends before its list of torrents does"));
    let cut = body(&served, &format!("{}&name=x", path(long))).await;
    let cut = String::from_utf8(cut).unwrap();
    assert!(cut.contains("number 10000") && !cut.contains("]}"), "{} bytes", cut.len());
    served.control.shutdown().await;
    served.daemon.shutdown().await;
}

/// Returns the body of the answer.
async fn body(served: &Served, path: &str) -> Vec<u8> {
    let mut all = Vec::new();
    served.asker.ask("GET", path, "", "", |part| all.extend_from_slice(part)).await;
    let head = all.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
    all.split_off(head)
}
