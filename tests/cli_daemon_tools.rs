//! The tools of the daemon, whole programs in process, against a daemon in process.

mod support;

use std::fs;
use std::path::Path;

use piecework::cli::{
    Config, Env, Exit, Output, daemon, fetch, leech, remove, seed, set, status, test,
};
use piecework_api::{Overview, SettingsChange, State, Torrent};
use piecework_control::{Control, ControlConfig};
use piecework_daemon::Daemon;
use piecework_tracker::{TrackerConfig, TrackerHandle, TrackerServer};
use support::{Ran, Running, bytes, run};
use tempfile::TempDir;

/// A tracker and a daemon on ports that the system chose, in their own folder.
struct Home {
    dir: TempDir,
    runtime: tokio::runtime::Runtime,
    tracker: Option<TrackerHandle>,
    daemon: Daemon,
    control: Option<Control>,
    port: String,
}

impl Home {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let tracker = runtime.block_on(TrackerServer::start(TrackerConfig::in_memory())).unwrap();
        let address = tracker.local_addr().to_string();
        Self::with(runtime, Some(tracker), &address)
    }

    /// Another daemon at the same tracker.
    fn beside(other: &Self) -> Self {
        Self::with(tokio::runtime::Runtime::new().unwrap(), None, &other.tracker_address())
    }

    fn with(
        runtime: tokio::runtime::Runtime,
        tracker: Option<TrackerHandle>,
        address: &str,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (out, _) = Output::captured();
        let env = Env::new("d", Vec::<String>::new(), dir.path(), out.clone(), out);
        let mut config = Config::default();
        config.peer.tracker = address.to_owned();
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = daemon::daemon_config(&env, &config, listen);
        let (daemon, control) = runtime.block_on(async {
            let daemon = Daemon::start(config).await.unwrap();
            let control = ControlConfig {
                listen: vec![listen],
                rpc_listen: None,
                ..ControlConfig::default()
            };
            (daemon.clone(), Control::start(control, daemon).await.unwrap())
        });
        let port = control.addrs()[0].port().to_string();
        Self { dir, runtime, tracker, daemon, control: Some(control), port }
    }

    fn tracker_address(&self) -> String {
        self.tracker.as_ref().unwrap().local_addr().to_string()
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn run(&self, tool: fn(Env) -> Exit, args: &[&str]) -> Ran {
        run(tool, self.path(), &self.args(args))
    }

    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        args.iter().copied().chain(["--port", &self.port]).collect()
    }

    /// Seeds a file with this content, and returns its info-hash.
    fn seeds(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.path().join(name), content).unwrap();
        let ran = self.run(seed::main, &["--input", name]).fine();
        let shown = name.rsplit('/').next().unwrap();
        assert!(ran.stdout.contains(&format!("seeding {shown}\n")), "{ran:?}");
        ran.stdout.split("info-hash ").nth(1).unwrap()[..40].to_owned()
    }

    fn torrents(&self) -> Vec<Torrent> {
        let said = self.run(status::main, &["--json"]).fine().stdout;
        serde_json::from_str::<Overview>(&said).unwrap().torrents
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let (control, tracker) = (self.control.take(), self.tracker.take());
        self.runtime.block_on(async {
            if let Some(control) = control {
                control.shutdown().await;
            }
            self.daemon.shutdown().await;
            if let Some(tracker) = tracker {
                tracker.shutdown().await;
            }
        });
    }
}

#[test]
fn what_one_daemon_seeds_another_leeches() {
    let one = Home::start();
    let two = Home::beside(&one);
    let content = bytes(700_000, 1);
    let hash = one.seeds("f.bin", &content);
    let ran = two.run(leech::main, &["--torrent", "f.bin", "--wait"]).fine();
    assert!(ran.stdout.contains("complete f.bin: "), "{ran:?}");
    assert!(fs::read(two.path().join("downloads/f.bin")).unwrap() == content);
    let ran = two.run(status::main, &[]).fine();
    assert!(ran.stdout.contains("seeding\n") && ran.stdout.contains(&hash[..8]), "{ran:?}");
    let ran = two.run(status::main, &[&hash[..8], "--files", "--log"]).fine();
    assert!(ran.stdout.contains("verified") && ran.stdout.contains("f.bin"), "{ran:?}");
}

#[test]
fn a_torrent_file_is_read_by_the_tool_and_waiting_says_why_it_failed() {
    let home = Home::start();
    fs::create_dir(home.path().join("elsewhere")).unwrap();
    fs::write(home.path().join("elsewhere/x.torrent"), b"no torrent").unwrap();
    let sentence = home.run(leech::main, &["--torrent", "elsewhere/x.torrent"]).failed();
    assert!(sentence.contains("`elsewhere/x.torrent`"), "{sentence}");
    let sentence = home.run(leech::main, &["--torrent", "none/y.torrent"]).failed();
    assert!(sentence.contains("there is no torrent file `none/y.torrent`"), "{sentence}");
    let sentence = home.run(leech::main, &["--torrent", "no\x1bname"]).failed();
    assert!(!sentence.contains('\x1b'), "{sentence}");
    let sentence = home.run(leech::main, &["--torrent", "magnet:?xt=urn:btih:00"]).failed();
    assert!(sentence.contains("magnet"), "{sentence}");
}

#[test]
fn one_who_waits_hears_that_it_was_taken_away() {
    let one = Home::start();
    let two = Home::beside(&one);
    one.seeds("f.bin", &bytes(100_000, 1));
    one.run(remove::main, &["f.bin"]).fine();
    let waiting =
        Running::start(leech::main, two.path(), &two.args(&["--torrent", "f.bin", "--wait"]));
    waiting.says("downloading f.bin");
    two.run(remove::main, &["--all"]).fine();
    let sentence = waiting.ends().failed();
    assert!(sentence.contains("`f.bin` was removed"), "{sentence}");
}

#[test]
fn the_catalogue_is_listed_in_a_pipe_and_a_torrent_saved_by_name() {
    let home = Home::start();
    let hash = home.seeds("f.bin", &bytes(50_000, 2));
    let ran = home.run(fetch::main, &[]).fine();
    assert!(ran.stdout.contains("f.bin") && ran.stdout.contains(&hash), "{ran:?}");
    let ran = home.run(fetch::main, &["--select", &hash[..6], "--output", "x.torrent"]).fine();
    assert!(ran.stdout.contains("saved f.bin as `x.torrent`"), "{ran:?}");
    assert!(home.path().join("x.torrent").exists());
    fs::write(home.path().join("mine"), b"precious").unwrap();
    let args = ["--select", "f.bin", "--output", "mine"];
    let sentence = home.run(fetch::main, &args).failed();
    assert!(sentence.contains("`mine` exists"), "{sentence}");
    let sentence = home.run(fetch::main, &["--select", "none"]).failed();
    assert!(sentence.contains("no file named `none`"), "{sentence}");
    // Without a daemon, from a named tracker.
    let tracker = home.tracker_address();
    let args = ["--port", "1", "--tracker", &tracker, "--select", "f.bin", "--output", "y.torrent"];
    run(fetch::main, home.path(), &args).fine();
    assert_eq!(
        fs::read(home.path().join("x.torrent")).unwrap(),
        fs::read(home.path().join("y.torrent")).unwrap()
    );
}

#[test]
fn fetching_can_start_the_download() {
    let one = Home::start();
    let two = Home::beside(&one);
    let content = bytes(100_000, 5);
    one.seeds("f.bin", &content);
    let args = ["--select", "f.bin", "--leech", "--wait", "--into", "downloads/sub"];
    let ran = two.run(fetch::main, &args).fine();
    assert!(ran.stdout.contains("complete f.bin"), "{ran:?}");
    assert!(fs::read(two.path().join("downloads/sub/f.bin")).unwrap() == content);
    assert!(two.path().join("torrents/f.bin.torrent").exists());
}

#[test]
fn a_torrent_is_changed_and_its_choices_are_shown() {
    let home = Home::start();
    home.seeds("f.bin", &bytes(100_000, 3));
    let ran = home.run(set::main, &["f.bin", "--pause"]).fine();
    assert!(ran.stdout.contains("f.bin 100%: paused"), "{ran:?}");
    let args = [
        "f.bin",
        "--download-limit",
        "1MiB",
        "--label",
        "a,b",
        "--seed-ratio",
        "2.5",
        "--priority",
        "high:1",
        "--sequential",
    ];
    home.run(set::main, &args).fine();
    let settings = home.torrents()[0].settings.clone();
    assert_eq!(settings.download_limit, Some(1 << 20));
    assert_eq!(settings.labels, ["a", "b"]);
    assert!(settings.sequential && settings.paused);
    let ran = home.run(status::main, &["f.bin"]).fine();
    for word in ["a, b", "down 1.0 MiB/s", "at ratio 2.5", "paused"] {
        assert!(ran.stdout.contains(word), "{word}: {ran:?}");
    }
    home.run(set::main, &["--all", "--resume"]).fine();
    assert!(!home.torrents()[0].settings.paused);
    let ran = home.run(set::main, &["f.bin", "--priority", "high:2"]);
    assert_eq!(ran.exit, Exit::Usage, "{ran:?}");
    assert_eq!(home.run(set::main, &["f.bin"]).exit, Exit::Usage);
    let sentence = home.run(set::main, &["none", "--pause"]).failed();
    assert!(sentence.contains("no torrent `none`"), "{sentence}");
}

#[test]
fn the_daemons_settings_are_shown_and_changed() {
    let home = Home::start();
    let ran = home.run(set::main, &["--daemon", "upload_limit=2MiB"]).fine();
    assert!(ran.stdout.starts_with("upload_limit") && ran.stdout.contains("2.0 MiB/s"), "{ran:?}");
    assert_eq!(home.daemon.settings().upload_limit, Some(2 << 20));
    let ran = home.run(set::main, &["--daemon"]).fine();
    assert!(ran.stdout.contains("seed_ratio"), "{ran:?}");
    let ran = home.run(set::main, &["--daemon", "nothing=1"]);
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.stderr.contains("`nothing`"), "{ran:?}");
    let ran = home.run(set::main, &["--daemon", "seed_ratio=2", "--json"]).fine();
    let settings: SettingsChange = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(settings.0["seed_ratio"], 2.0);
}

#[test]
fn files_are_deleted_only_when_that_is_said_twice() {
    let home = Home::start();
    let hash = home.seeds("f.bin", &bytes(100_000, 4));
    let ran = home.run(remove::main, &["f.bin", "--delete-data"]);
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.stderr.contains("--yes"), "{ran:?}");
    assert_eq!(home.torrents().len(), 1);
    let ran = home.run(remove::main, &[&hash[..5], "--json"]).fine();
    let removed: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(removed["removed"][0], hash.as_str());
    assert!(home.path().join("f.bin").exists() && home.torrents().is_empty());
    // Data outside the download folders is never deleted.
    home.seeds("f.bin", &bytes(100_000, 4));
    let sentence = home.run(remove::main, &["f.bin", "--delete-data", "--yes"]).failed();
    assert!(sentence.contains("allowed"), "{sentence}");
    assert!(home.path().join("f.bin").exists());
    fs::create_dir_all(home.path().join("downloads")).unwrap();
    home.seeds("downloads/g.bin", &bytes(100_000, 5));
    let ran = home.run(remove::main, &["g.bin", "--delete-data", "--yes"]).fine();
    assert!(ran.stdout.contains("removed g.bin and its files"), "{ran:?}");
    assert!(!home.path().join("downloads/g.bin").exists());
}

#[test]
fn two_torrents_of_one_name_are_listed_and_named_by_their_info_hash() {
    let home = Home::start();
    let one = home.seeds("f.bin", &bytes(50_000, 1));
    fs::create_dir(home.path().join("b")).unwrap();
    fs::write(home.path().join("b/f.bin"), bytes(60_000, 2)).unwrap();
    home.run(seed::main, &["--input", "b/f.bin", "--private"]).fine();
    let ran = home.run(set::main, &["f.bin", "--pause"]);
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.stderr.contains("2 torrents") && ran.stderr.contains(&one), "{ran:?}");
    home.run(set::main, &[&one, "--pause"]).fine();
    let paused: Vec<Torrent> =
        home.torrents().into_iter().filter(|torrent| torrent.settings.paused).collect();
    assert_eq!(paused.len(), 1);
    assert_eq!(paused[0].info_hash.to_string(), one);
}

#[test]
fn every_way_is_tested_and_what_is_missing_fails() {
    let home = Home::start();
    let ran = home.run(test::main, &[]).fine();
    for what in ["daemon", "catalogue", "tracker HTTP", "tracker UDP", "peer port"] {
        let line = ran.stdout.lines().find(|line| line.starts_with(what));
        assert!(line.is_some_and(|line| line.contains("ok")), "{what}: {ran:?}");
    }
    // Nothing listens on port 1.
    let ran = home.run(test::main, &["--tracker", "127.0.0.1:1", "--json"]);
    assert_eq!(ran.exit, Exit::Failed);
    let checks: Vec<serde_json::Value> = serde_json::from_str(&ran.stdout).unwrap();
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| check["ok"] == false)
        .map(|check| check["what"].as_str().unwrap())
        .collect();
    assert!(failed.contains(&"tracker HTTP") && !failed.contains(&"daemon"), "{ran:?}");
}

#[test]
fn watching_in_a_pipe_gives_a_line_for_each_change() {
    let home = Home::start();
    home.seeds("f.bin", &bytes(100_000, 7));
    let watching = Running::start(status::main, home.path(), &home.args(&["--watch"]));
    let events = Running::start(status::main, home.path(), &home.args(&["--watch", "--json"]));
    watching.says("f.bin 100%: seeding\n");
    events.says("\"ready\"");
    home.run(set::main, &["f.bin", "--pause"]).fine();
    watching.says("f.bin 100%: paused\n");
    let hash = home.torrents()[0].info_hash;
    assert_eq!(home.torrents()[0].state, State::Paused);
    home.run(remove::main, &["f.bin"]).fine();
    watching.says(&format!("{hash}: removed\n"));
    events.says("\"removed\"");
    drop(home);
    assert!(watching.ends().failed().contains("the daemon has ended"));
    assert!(events.ends().stdout.lines().last().unwrap().contains("the daemon has ended"));
}

/// Returns a magnet link of this info-hash with these trackers.
fn link(info_hash: &str, trackers: &[&str]) -> String {
    let trackers = trackers.iter().map(|tracker| format!("&tr={tracker}"));
    format!("magnet:?xt=urn:btih:{info_hash}&dn=some{}", trackers.collect::<String>())
}

#[test]
fn a_magnet_link_is_enough_if_it_leads_to_a_peer() {
    let one = Home::start();
    let content = bytes(100_000, 8);
    let hash = one.seeds("p.bin", &content);
    let peer = one.daemon.listen_addrs()[0];
    // Its tracker does not answer, and the link names none. All files are numbered from 0.
    let two = Home::with(tokio::runtime::Runtime::new().unwrap(), None, "127.0.0.1:1");
    let link = format!("magnet:?xt=urn:btih:{hash}&x.pe={peer}&so=0");
    two.run(leech::main, &["--torrent", &link, "--wait"]).fine();
    assert!(fs::read(two.path().join("downloads/p.bin")).unwrap() == content);
    // It goes on as if it had been added with its `.torrent`.
    let shown = two.run(status::main, &["p.bin", "--json"]).fine().stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(Path::new(shown["torrent_file"].as_str().unwrap()).is_file(), "{shown}");
}

#[test]
fn line_11_a_magnet_link_is_resolved_by_a_catalogue() {
    let one = Home::start();
    let content = bytes(100_000, 7);
    let hash = one.seeds("m.bin", &content);
    // The daemon's own tracker has it.
    let two = Home::beside(&one);
    two.run(leech::main, &["--torrent", &link(&hash, &[]), "--wait"]).fine();
    assert!(fs::read(two.path().join("downloads/m.bin")).unwrap() == content);
    // A link names a torrent wherever a name does.
    let shown = two.run(status::main, &[&link(&hash, &[])]).fine().stdout;
    assert!(shown.contains("m.bin"), "{shown}");
    let printed = two.run(status::main, &["m.bin", "--magnet"]).fine().stdout;
    let start = format!("magnet:?xt=urn:btih:{hash}&dn=m.bin&tr=");
    assert!(printed.starts_with(&start), "{printed}");
    let again = two.run(leech::main, &["--torrent", printed.trim()]).fine();
    assert!(again.stdout.contains("is here already: m.bin"), "{again:?}");

    // The link's second tracker has it, and another one is not a tracker.
    let three = Home::with(tokio::runtime::Runtime::new().unwrap(), None, "127.0.0.1:1");
    let tracker = format!("http%3A%2F%2F{}%2Fannounce", one.tracker_address());
    let trackers = ["udp://127.0.0.1:1", tracker.as_str(), "wss://127.0.0.1:2/announce"];
    let ran = three.run(leech::main, &["--torrent", &link(&hash, &trackers), "--wait"]).fine();
    assert!(fs::read(three.path().join("downloads/m.bin")).unwrap() == content);
    assert!(ran.stderr.contains("`wss://127.0.0.1:2/announce` is not used"), "{ran:?}");

    // Nobody has it now, so it waits, and the warning says what is missing.
    let other = link(&"ab".repeat(20), &[&tracker]);
    let ran = two.run(leech::main, &["--torrent", &other]).fine();
    for part in ["its metadata is not here yet", "the tracker knows no torrent", "no peer"] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
    let shown = two.run(status::main, &["some"]).fine().stdout;
    assert!(shown.contains("looking for its metadata"), "{shown}");
    let printed = two.run(status::main, &["some", "--magnet"]).fine().stdout;
    assert_eq!(printed.trim(), other);
    two.run(remove::main, &["some"]).fine();
    // It leads to no tracker and no peer, and the error says what is missing.
    let nowhere = link(&"cd".repeat(20), &[]);
    let sentence = two.run(leech::main, &["--torrent", &nowhere]).failed();
    for part in ["`some`", "leads to no .torrent", "catalogue", "give the .torrent file"] {
        assert!(sentence.contains(part), "{part}: {sentence}");
    }
    let sentence = two.run(leech::main, &["--torrent", "magnet:?dn=x"]).failed();
    assert!(sentence.contains("names no torrent"), "{sentence}");
}

#[test]
fn line_11_a_peer_that_closes_at_our_handshake_is_told_with_what_was_tried() {
    use std::io::Read;

    let one = Home::start();
    // The connection is accepted and closed at our handshake.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // The connection is closed in any case.
            let _ = stream.read(&mut [0; 68]);
        }
    });
    let source = one.path().join("e.bin");
    fs::write(&source, bytes(50_000, 9)).unwrap();
    let args = ["e.bin", "--tracker", "127.0.0.1:1"];
    run(piecework::cli::create::main, one.path(), &args).fine();
    one.run(leech::main, &["--torrent", "e.bin.torrent", "--peer", &peer]).fine();
    for (policy, told) in [
        (
            "plain",
            "1 peer accepts a connection and closes it at our handshake: it probably demands encryption",
        ),
        (
            "allow",
            "1 peer accepts a connection and closes it at our handshake, plain and encrypted",
        ),
    ] {
        one.run(set::main, &["--daemon", &format!("encryption={policy}")]).fine();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !one.run(status::main, &["e.bin"]).fine().stdout.replace("\n", " ").contains(told) {
            assert!(std::time::Instant::now() < deadline, "it is not told");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let tested = one.run(test::main, &[]);
        assert_eq!(tested.exit, Exit::Failed, "{tested:?}");
        assert!(
            tested.stdout.contains("`e.bin`")
                && tested.stdout.contains("closes it at our handshake"),
            "{tested:?}"
        );
    }
}
