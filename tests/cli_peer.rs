//! `torrent-peer` without a tracker, as users run it: `share --torrent` and `get --peer`.

mod support;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use piecework::cli::{Exit, create, peer};
use support::{Ran, Running, bytes, run};

/// A tracker that does not run: the port is in use, and nobody listens on it.
fn no_tracker() -> &'static str {
    static NOBODY: LazyLock<(socket2::Socket, String)> = LazyLock::new(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap().to_string();
        (socket, addr)
    });
    &NOBODY.1
}

/// Makes a torrent of `name` in `dir` and shares it.
fn share(dir: &Path, name: &str) -> Running {
    run(create::main, dir, &[name, "--piece-length", "16KiB"]).fine();
    let torrent = format!("{name}.torrent");
    let args =
        ["share", "--torrent", &torrent, "--data", ".", no_tracker(), "--listen", "127.0.0.1:0"];
    let seeder = Running::start(peer::main, dir, &args);
    seeder.says(&format!("\nseeding {name}\n"));
    seeder
}

/// Gets `name` from `seeder` below `out`.
fn get(dir: &Path, name: &str, seeder: &Running, more: &[&str]) -> Running {
    let (torrent, from) = (format!("{name}.torrent"), seeder.address());
    let mut args =
        vec!["get", &torrent, no_tracker(), "127.0.0.1:0", "--peer", &from, "--output", "out"];
    args.extend(more);
    Running::start(peer::main, dir, &args)
}

fn same(a: &Path, b: &Path) {
    if a.is_dir() {
        let names = |dir: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(a), names(b), "{}", b.display());
        for name in names(a) {
            same(&a.join(&name), &b.join(&name));
        }
    } else {
        assert!(fs::read(a).unwrap() == fs::read(b).unwrap(), "{}", b.display());
    }
}

fn moves(content: impl FnOnce(&Path)) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("thing"));
    let seeder = share(dir.path(), "thing");
    let ran = get(dir.path(), "thing", &seeder, &["--exit"]).ends().fine();
    same(&dir.path().join("thing"), &dir.path().join("out/thing"));
    assert!(ran.stdout.contains("\ncomplete thing: "), "{ran:?}");
    seeder.quits().fine();
    ran
}

#[test]
fn files_around_one_block_arrive_whole() {
    for len in [0, 1, 16_383, 16_384, 16_385] {
        moves(|path| fs::write(path, bytes(len, len as u64)).unwrap());
    }
}

#[test]
fn a_folder_with_empty_nested_and_unicode_names_arrives_whole() {
    moves(|path| {
        fs::create_dir_all(path.join("deep/deeper/Ünïcode 文件")).unwrap();
        for number in 0..50 {
            fs::write(path.join(format!("deep/{number}")), bytes(number * 997, 7)).unwrap();
        }
        fs::write(path.join("deep/deeper/Ünïcode 文件/ёж 🦔"), bytes(40_000, 8)).unwrap();
        fs::write(path.join("deep/deeper/empty"), b"").unwrap();
        fs::write(path.join("a b 'c'"), b"x").unwrap();
    });
}

#[test]
fn the_end_of_a_download_says_who_gave_how_much() {
    let ran = moves(|path| fs::write(path, bytes(200_000, 1)).unwrap());
    let row = ran.stdout.lines().find(|line| line.contains("Piecework 0.1.0")).unwrap();
    let words: Vec<&str> = row.split_whitespace().skip(3).collect();
    assert_eq!(words, ["13", "13", "195.3", "KiB", "100%"], "{ran:?}");
    assert!(!ran.stdout.contains("seeding"), "{ran:?}");
}

#[test]
fn the_console_answers_on_a_pipe_and_its_end_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), bytes(40_000, 1)).unwrap();
    let mut seeder = share(dir.path(), "x");
    let getter = get(dir.path(), "x", &seeder, &["--log", "log.jsonl"]);
    getter.says("\nseeding x\n");
    getter.types("> request logs");
    let log = getter.says("verified\n");
    assert_eq!(log.lines().filter(|line| line.ends_with(" verified")).count(), 3, "{log}");
    getter.types("files");
    getter.says("100%  39.1 KiB  x");
    getter.types("status");
    getter.says("pieces   3 of 3");
    getter.types("peers");
    getter.types("nonsense\x1b");
    getter.says("there is no command `nonsense\\x1b`");
    getter.types("help");
    getter.says("leave the network and end");
    seeder.closes_stdin();
    // Its pipe is closed, but it still serves another peer.
    let third = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join("x.torrent"), third.path().join("x.torrent")).unwrap();
    get(third.path(), "x", &seeder, &["--exit"]).ends().fine();
    getter.quits().fine();
    let lines = fs::read_to_string(dir.path().join("log.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&line["verdict"], &line["client"]),
        (&"verified".into(), &"Piecework 0.1.0".into())
    );
}

#[test]
fn what_the_engine_warns_of_is_on_stderr_and_in_the_log_file() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), bytes(40_000, 1)).unwrap();
    let len = || fs::metadata(dir.path().join("peer.log")).map_or(0, |file| file.len());
    // That its tracker does not run gives a line at some level.
    let said = |more: &[&str], logs: bool| {
        let before = len();
        let mut peer = Command::new(env!("CARGO_BIN_EXE_torrent-peer"))
            .args(["share", "x", no_tracker(), "127.0.0.1:0", "--log-file", "peer.log"])
            .args(more)
            .current_dir(dir.path())
            .env_remove("HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(peer.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "seeding x"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while logs && len() == before {
            assert!(Instant::now() < deadline, "nothing is logged");
            std::thread::sleep(Duration::from_millis(20));
        }
        writeln!(peer.stdin.take().unwrap(), "quit").unwrap();
        let mut stderr = String::new();
        peer.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(peer.wait().unwrap().success(), "{stderr}");
        (stderr, fs::read_to_string(dir.path().join("peer.log")).unwrap())
    };
    let (stderr, log) = said(&["--log-level", "piecework=trace"], true);
    // Each has a time of its own.
    let first = log.lines().next().expect("something is logged");
    let (_, event) = first.split_once(' ').unwrap();
    assert!(stderr.contains(event), "{event} in {stderr}");
    // The log is appended to, and contains nothing beyond the chosen level.
    let (stderr, again) = said(&[], false);
    assert_eq!(again, log, "{stderr}");
    let (_, json) = said(&["--log-level", "piecework=trace", "--log-json"], true);
    let line = json.strip_prefix(&log).unwrap().lines().next().unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(line).unwrap()["level"].is_string());
}

#[test]
fn a_log_of_responses_is_added_to_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), bytes(40_000, 1)).unwrap();
    let args = ["share", "x", no_tracker(), "--log", "x"];
    let sentence = run(peer::main, dir.path(), &args).failed();
    assert!(sentence.contains("is not a log of responses"), "{sentence}");
    assert_eq!(fs::read(dir.path().join("x")).unwrap(), bytes(40_000, 1));
}

#[test]
fn what_was_got_is_not_got_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), bytes(40_000, 1)).unwrap();
    let seeder = share(dir.path(), "x");
    get(dir.path(), "x", &seeder, &["--exit"]).ends().fine();
    let again = get(dir.path(), "x", &seeder, &["--exit"]).ends().fine();
    assert!(again.stdout.contains("all here already"), "{again:?}");
}

#[test]
fn seed_for_ends_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), b"x").unwrap();
    let seeder = share(dir.path(), "x");
    let ran = get(dir.path(), "x", &seeder, &["--seed-for", "1ms"]).ends().fine();
    assert!(ran.stdout.ends_with("\nseeding x\n"), "{ran:?}");
}

#[test]
fn a_file_nobody_has_is_an_error_in_time() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), b"x").unwrap();
    run(create::main, dir.path(), &["x"]).fine();
    let args = ["get", "x.torrent", no_tracker(), "127.0.0.1:0"];
    let getter = Running::with_env(peer::main, dir.path(), &args, |env| {
        env.with_var("PIECEWORK_NOBODY_TIMEOUT", "10ms")
    });
    let sentence = getter.ends().failed();
    assert!(sentence.contains("no peer that has `x` appeared"), "{sentence}");
}

#[test]
fn whoever_leaves_early_is_told_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), bytes(40_000, 1)).unwrap();
    run(create::main, dir.path(), &["x", "--piece-length", "16KiB"]).fine();
    let args = ["get", "x.torrent", no_tracker(), "127.0.0.1:0", "--wait"];
    let getter = Running::start(peer::main, dir.path(), &args);
    getter.says("getting x");
    let sentence = getter.quits().failed();
    assert!(sentence.contains("ended before `x` was complete: 0 of 3 pieces"), "{sentence}");
}

#[test]
fn part_of_the_data_is_shared_as_far_as_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), bytes(40_000, 1)).unwrap();
    run(create::main, dir.path(), &["x", "--piece-length", "16KiB"]).fine();
    let mut damaged = bytes(40_000, 1);
    damaged[0] ^= 1;
    fs::write(dir.path().join("x"), &damaged).unwrap();
    let args =
        ["share", "--torrent", "x.torrent", "--data", "x", no_tracker(), "--listen", "127.0.0.1:0"];
    let seeder = Running::start(peer::main, dir.path(), &args);
    seeder.says("\nseeding x\n");
    seeder.complains("x: only 2 pieces of 3 are here");
    seeder.quits().fine();
    assert_eq!(fs::read(dir.path().join("x")).unwrap(), damaged);
}

#[test]
fn a_download_that_cannot_be_written_says_why() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), b"x").unwrap();
    let seeder = share(dir.path(), "x");
    fs::write(dir.path().join("out"), b"a file, not a folder").unwrap();
    let sentence = get(dir.path(), "x", &seeder, &["--exit"]).ends().failed();
    assert!(sentence.contains("out"), "{sentence}");
}

#[test]
fn a_tracker_that_is_down_is_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let sentence = run(peer::main, dir.path(), &["get", "x", no_tracker()]).failed();
    assert!(sentence.contains(no_tracker()), "{sentence}");
    // A sharing peer continues.
    fs::write(dir.path().join("x"), b"x").unwrap();
    let args = ["share", "x", no_tracker(), "127.0.0.1:0"];
    let seeder = Running::start(peer::main, dir.path(), &args);
    seeder.says("\nseeding x\n");
    seeder.complains("trying again");
    seeder.quits().fine();
    assert!(dir.path().join("torrents/x.torrent").is_file());
}

#[test]
fn each_shares_every_file_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("set/inner")).unwrap();
    for name in ["a", "b", "inner/c"] {
        fs::write(dir.path().join("set").join(name), name).unwrap();
    }
    let args = ["share", "set", no_tracker(), "127.0.0.1:0", "--each"];
    let seeder = Running::start(peer::main, dir.path(), &args);
    seeder.says("\nseeding a\n");
    seeder.says("\nseeding b\n");
    let ran = seeder.quits().fine();
    assert!(!ran.stdout.contains("seeding c"), "{ran:?}");
}

#[test]
fn a_listen_address_that_is_taken_is_an_error_only_if_it_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), b"x").unwrap();
    let first = share(dir.path(), "x");
    let address = first.address();
    let ran = run(peer::main, dir.path(), &["share", "x", no_tracker(), &address]);
    assert!(ran.failed().contains(&address));
    let args = ["share", "x", no_tracker()];
    let second = Running::with_env(peer::main, dir.path(), &args, |env| {
        env.with_var("PIECEWORK_LISTEN", &address)
    });
    assert_ne!(second.address(), address);
    second.quits().fine();
    first.quits().fine();
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &[][..],
        &["share"],
        &["get"],
        &["get", "x", "nonsense"],
        &["get", "x", "127.0.0.1:1", "nonsense"],
        &["get", "x", "--exit", "--seed-for", "1m"],
        &["share", "x", "127.0.0.1:1", "127.0.0.1:1", "more"],
        &["share", "--torrent", "x.torrent"],
        &["get", "x", "--download-limit", "fast"],
        &["get", "x", "--config", "none.toml"],
    ] {
        assert_eq!(run(peer::main, dir.path(), args).exit, Exit::Usage, "{args:?}");
    }
    for args in [&["--help"][..], &["share", "--help"], &["get", "--help"]] {
        let help = run(peer::main, dir.path(), args).fine().stdout;
        assert!(help.contains("Example"), "{help}");
    }
    run(peer::main, dir.path(), &["get", "folder/none.torrent"]).failed();
}

#[test]
fn a_menu_asks_for_what_a_choice_lacks() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), b"x").unwrap();
    let menu = Running::with_env(peer::main, dir.path(), &["menu"], |env| {
        env.with_var("PIECEWORK_TRACKER", no_tracker()).with_var("PIECEWORK_LISTEN", "127.0.0.1:0")
    });
    menu.says("delete my entries");
    menu.types("c");
    menu.says(&format!("which tracker? (Enter for {})", no_tracker()));
    menu.types(no_tracker());
    menu.complains(&format!("asking the tracker `{}` failed", no_tracker()));
    menu.types("s");
    menu.says("which file or folder?");
    menu.types("x");
    menu.says("\nseeding x\n");
    menu.types("d");
    menu.says("none of your torrents");
    menu.types("r nothing");
    menu.types("status");
    menu.says("state    seeding");
    menu.types("q");
    menu.ends().fine();
}

#[test]
fn with_the_tracker_gone_the_same_command_goes_on_with_the_kept_torrent() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thing"), bytes(100_000, 1)).unwrap();
    let seeder = share(dir.path(), "thing");
    let from = seeder.address();
    // Begun without peers, so it is unfinished, and its file name shows that.
    let begin = ["get", "thing.torrent", no_tracker(), "127.0.0.1:0", "--output", "out", "--wait"];
    let getter = Running::start(peer::main, dir.path(), &begin);
    getter.says("getting thing");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !dir.path().join("out/thing.part").exists() {
        assert!(std::time::Instant::now() < deadline, "no unfinished file was made");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!dir.path().join("out/thing").exists());
    getter.quits();
    // By its name, without a tracker and without a file.
    let by_name = |more: &[&str]| {
        let mut args = vec!["get", "thing", no_tracker(), "127.0.0.1:0", "--output", "out"];
        args.extend(more);
        run(peer::main, dir.path(), &args)
    };
    let ran = by_name(&["--peer", &from, "--exit"]).fine();
    assert!(ran.stderr.contains("continuing with `torrents/thing.torrent`"), "{ran:?}");
    same(&dir.path().join("thing"), &dir.path().join("out/thing"));
    assert!(!dir.path().join("out/thing.part").exists());
    // With another torrent of that name, the error asks which one is meant.
    let kept = dir.path().join("torrents/thing.torrent");
    fs::rename(&kept, dir.path().join("torrents/thing.other.torrent")).unwrap();
    let args = ["thing", "--piece-length", "32KiB", "--output", "torrents/thing.torrent"];
    run(create::main, dir.path(), &args).fine();
    let ran = by_name(&["--exit"]);
    assert!(ran.stderr.contains("ask for one by its info-hash"), "{ran:?}");
    seeder.quits().fine();
}

#[test]
fn a_file_of_that_name_is_replaced_or_passed_by_only_if_one_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thing"), bytes(100_000, 1)).unwrap();
    let seeder = share(dir.path(), "thing");
    fs::create_dir(dir.path().join("out")).unwrap();
    let own = dir.path().join("out/thing");
    fs::write(&own, b"my notes").unwrap();
    let ran = get(dir.path(), "thing", &seeder, &["--exit"]).ends();
    assert!(ran.stderr.contains("out/thing` exists already"), "{ran:?}");
    assert!(ran.stderr.contains("--overwrite") && ran.exit == Exit::Failed, "{ran:?}");
    assert_eq!(fs::read(&own).unwrap(), b"my notes");
    get(dir.path(), "thing", &seeder, &["--exit", "--rename", "new"]).ends().fine();
    same(&dir.path().join("thing"), &dir.path().join("out/new"));
    assert_eq!(fs::read(&own).unwrap(), b"my notes");
    get(dir.path(), "thing", &seeder, &["--exit", "--overwrite"]).ends().fine();
    same(&dir.path().join("thing"), &own);
    seeder.quits().fine();
}

#[test]
fn a_private_torrent_is_announced_to_another_tracker_only_if_one_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thing"), bytes(40_000, 4)).unwrap();
    let own = "http://127.0.0.1:9/announce?passkey=secret";
    run(create::main, dir.path(), &["thing", "--private", "--tracker", own]).fine();
    let share = ["share", "--torrent", "thing.torrent", "--data", ".", no_tracker()];
    let get = ["get", "thing.torrent", no_tracker(), "--output", "out"];
    for args in [&share[..], &get[..]] {
        let ran = run(peer::main, dir.path(), args);
        assert_eq!(ran.exit, Exit::Usage, "{ran:?}");
        assert!(ran.stderr.contains("--publish-private"), "{ran:?}");
    }
    // Without another tracker there is nothing to ask about.
    let args = ["share", "--torrent", "thing.torrent", "--data", ".", "--listen", "127.0.0.1:0"];
    let seeder = Running::start(peer::main, dir.path(), &args);
    seeder.says("\nseeding thing\n");
    let ran = seeder.quits().fine();
    assert!(!ran.stdout.contains("runs in this process"), "no tracker is started: {ran:?}");
}
