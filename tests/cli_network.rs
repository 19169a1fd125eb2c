//! `torrent-peer` with a tracker, as users run it.

mod support;

use std::fs;
use std::path::Path;

use piecework::cli::{Exit, peer, sim};
use piecework_tracker::{TrackerConfig, TrackerHandle, TrackerServer};
use support::{Running, bytes, run};

/// A tracker on a port that the system chose.
struct Home {
    runtime: tokio::runtime::Runtime,
    tracker: Option<TrackerHandle>,
}

impl Home {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let tracker = runtime.block_on(TrackerServer::start(TrackerConfig::in_memory())).unwrap();
        Self { runtime, tracker: Some(tracker) }
    }

    fn address(&self) -> String {
        self.tracker.as_ref().unwrap().local_addr().to_string()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(tracker) = self.tracker.take() {
            self.runtime.block_on(tracker.shutdown());
        }
    }
}

fn share(dir: &Path, args: &[&str], tracker: &str) -> Running {
    let mut all = vec!["share", args[0], tracker, "127.0.0.1:0"];
    all.extend(&args[1..]);
    let seeder = Running::start(peer::main, dir, &all);
    seeder.says("\nseeding ");
    seeder
}

fn get(dir: &Path, args: &[&str], tracker: &str) -> Running {
    let mut all = vec!["get", args[0], tracker, "127.0.0.1:0"];
    all.extend(&args[1..]);
    Running::start(peer::main, dir, &all)
}

fn info_hash(seeder: &Running) -> String {
    let said = seeder.says("info-hash ");
    said.split("info-hash ").nth(1).unwrap()[..40].to_owned()
}

#[test]
fn a_third_gets_from_the_second_when_the_first_has_left() {
    let home = Home::start();
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let content = bytes(700_000, 1);
    fs::write(dirs[0].path().join("f.bin"), &content).unwrap();
    let first = share(dirs[0].path(), &["f.bin", "--description", "a note"], &home.address());
    first.says(&format!("in another terminal: torrent-peer get f.bin {}", home.address()));
    let second = get(dirs[1].path(), &["f.bin"], &home.address());
    second.says("\nseeding f.bin\n");
    first.quits().fine();
    let third = get(dirs[2].path(), &["f.bin", "--exit"], &home.address()).ends().fine();
    assert!(third.stdout.contains("complete f.bin"), "{third:?}");
    second.quits().fine();
    for dir in &dirs[1..] {
        assert!(fs::read(dir.path().join("downloads/f.bin")).unwrap() == content);
    }
}

#[test]
fn two_files_of_one_name_are_listed_and_one_is_asked_for() {
    let home = Home::start();
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    for (seed, dir) in dirs[..2].iter().enumerate() {
        fs::write(dir.path().join("same"), bytes(20_000 + seed, seed as u64)).unwrap();
    }
    let one = share(dirs[0].path(), &["same"], &home.address());
    let two = share(dirs[1].path(), &["same"], &home.address());
    // The printed command works. It uses the name as long as the name is unique.
    one.says("torrent-peer get same ");
    two.says(&format!("torrent-peer get {} ", info_hash(&two)));
    let ran = get(dirs[2].path(), &["same"], &home.address()).ends();
    for seeder in [&one, &two] {
        assert!(ran.stdout.contains(&info_hash(seeder)), "{ran:?}");
    }
    let sentence = ran.failed();
    assert!(sentence.contains("2 files are named `same`"), "{sentence}");
    get(dirs[2].path(), &[&info_hash(&two), "--exit"], &home.address()).ends().fine();
    assert!(fs::read(dirs[2].path().join("downloads/same")).unwrap() == bytes(20_001, 1));
    one.quits().fine();
    two.quits().fine();
}

#[test]
fn a_name_that_nobody_registered_is_said_at_once() {
    let home = Home::start();
    let dir = tempfile::tempdir().unwrap();
    let sentence = get(dir.path(), &["no\x1bne"], &home.address()).ends().failed();
    assert!(sentence.starts_with("no file named `no\\x1bne` is known"), "{sentence}");
    let hash = "0123456789012345678901234567890123456789";
    let sentence = get(dir.path(), &[hash], &home.address()).ends().failed();
    assert!(sentence.contains(hash), "{sentence}");
}

#[test]
fn a_registered_file_that_nobody_has_any_more_is_an_error_in_time() {
    let home = Home::start();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), b"x").unwrap();
    share(dir.path(), &["x"], &home.address()).quits().fine();
    let args = ["get", "x", &home.address(), "127.0.0.1:0"];
    let ran = Running::with_env(peer::main, dir.path(), &args, |env| {
        env.with_var("PIECEWORK_NOBODY_TIMEOUT", "10ms")
    });
    let sentence = ran.ends().failed();
    assert!(sentence.contains("no peer that has `x`"), "{sentence}");
}

#[test]
fn whoever_waits_gets_it_when_somebody_comes() {
    let home = Home::start();
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    fs::write(dirs[0].path().join("x"), bytes(100_000, 3)).unwrap();
    share(dirs[0].path(), &["x"], &home.address()).quits().fine();
    let waiting = get(dirs[1].path(), &["x", "--wait", "--exit"], &home.address());
    waiting.says("getting x");
    let seeder = share(dirs[0].path(), &["x"], &home.address());
    waiting.ends().fine();
    seeder.quits().fine();
}

#[test]
fn whoever_waits_may_come_before_the_file() {
    let home = Home::start();
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    fs::write(dirs[0].path().join("x"), bytes(100_000, 3)).unwrap();
    let early = get(dirs[1].path(), &["x", "--wait", "--exit"], &home.address());
    early.complains("no file named `x` is known to the tracker");
    let seeder = share(dirs[0].path(), &["x"], &home.address());
    early.ends().fine();
    seeder.quits().fine();
}

#[test]
fn a_private_torrent_is_never_listed_and_got_by_its_info_hash() {
    let home = Home::start();
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    fs::write(dirs[0].path().join("secret"), b"secret").unwrap();
    let seeder = share(dirs[0].path(), &["secret", "--private"], &home.address());
    let hash = info_hash(&seeder);
    seeder.says(&format!("torrent-peer get {hash} "));
    get(dirs[1].path(), &["secret"], &home.address()).ends().failed();
    get(dirs[1].path(), &[&hash, "--exit"], &home.address()).ends().fine();
    seeder.quits().fine();
}

#[test]
fn a_name_for_the_catalogue_is_found_and_the_file_keeps_its_own() {
    let home = Home::start();
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    fs::write(dirs[0].path().join("x.bin"), b"x").unwrap();
    let seeder = share(dirs[0].path(), &["x.bin", "--name", "nice name"], &home.address());
    seeder.says("torrent-peer get 'nice name' ");
    get(dirs[1].path(), &["nice name", "--exit"], &home.address()).ends().fine();
    assert_eq!(fs::read(dirs[1].path().join("downloads/x.bin")).unwrap(), b"x");
    seeder.quits().fine();
}

#[test]
fn without_a_tracker_one_is_started_and_the_command_for_others_works() {
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    fs::write(dirs[0].path().join("x"), bytes(50_000, 2)).unwrap();
    let args = ["share", "x", "--listen", "127.0.0.1:0"];
    let seeder = Running::start(peer::main, dirs[0].path(), &args);
    let said = seeder.says("\nseeding x\n");
    let command = said.split("in another terminal: torrent-peer ").nth(1).unwrap();
    let words: Vec<&str> = command.lines().next().unwrap().split(' ').collect();
    let mut args = words;
    args.extend(["--exit", "--listen", "127.0.0.1:0"]);
    run(peer::main, dirs[1].path(), &args).fine();
    seeder.quits().fine();
}

#[test]
fn the_token_is_kept_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::start();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), b"x").unwrap();
    let seeder = share(dir.path(), &["x"], &home.address());
    let token = dir.path().join("torrents/x.torrent.token");
    let mode = fs::metadata(&token).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Registering again gives no new token and removes none.
    let before = fs::read(&token).unwrap();
    seeder.quits().fine();
    share(dir.path(), &["x"], &home.address()).quits().fine();
    assert_eq!(fs::read(&token).unwrap(), before);
}

#[test]
fn the_menu_lists_shares_requests_and_deletes() {
    let home = Home::start();
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    fs::write(dirs[0].path().join("x"), bytes(30_000, 4)).unwrap();
    let menu = |dir: &Path| {
        Running::with_env(peer::main, dir, &["menu"], |env| {
            env.with_var("PIECEWORK_TRACKER", &home.address())
                .with_var("PIECEWORK_LISTEN", "127.0.0.1:0")
        })
    };
    let (one, two) = (menu(dirs[0].path()), menu(dirs[1].path()));
    let connect = format!("c {}", home.address());
    one.types(&connect);
    one.says("is empty");
    one.types("s x");
    one.says("\nseeding x\n");
    two.types(&connect);
    two.says("INFO-HASH");
    two.types("r x");
    two.says("\nseeding x\n");
    assert!(fs::read(dirs[1].path().join("downloads/x")).unwrap() == bytes(30_000, 4));
    one.types("d");
    one.says("delete which?");
    one.types("1");
    one.says("1 entry deleted");
    two.types("c");
    two.says("which tracker?");
    // Enter accepts the default.
    two.types("");
    two.says("is empty");
    one.quits().fine();
    two.quits().fine();
}

#[test]
fn a_simulated_swarm_ends_whole_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("temp")).unwrap();
    fs::write(dir.path().join("f"), bytes(300_000, 5)).unwrap();
    let args = ["f", "--peers", "3", "--seeders", "2", "--temp", "temp"];
    let ran = run(sim::main, dir.path(), &args).fine();
    assert_eq!(ran.stdout.matches("the same").count(), 3, "{ran:?}");
    assert_eq!(fs::read_dir(dir.path().join("temp")).unwrap().count(), 0);
    assert_eq!(run(sim::main, dir.path(), &["--peers", "0"]).exit, Exit::Usage);
    run(sim::main, dir.path(), &["none", "--temp", "temp"]).failed();
    assert_eq!(fs::read_dir(dir.path().join("temp")).unwrap().count(), 0);
}

#[test]
fn a_network_in_virtual_time_gives_the_same_answer_to_the_same_seed() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--virtual", "--seeders", "1", "--peers", "3", "--size", "2MiB", "--json"];
    let ran = run(sim::main, dir.path(), &args).fine();
    let report: serde_json::Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    assert_eq!(report["completed"], 3, "{ran:?}");
    assert!(report["makespan_to_bound"].as_f64().unwrap() >= 1.0, "{ran:?}");
    assert_eq!(run(sim::main, dir.path(), &args).fine().stdout, ran.stdout);
    let traced = ["--virtual", "--peers", "2", "--size", "1MiB", "--trace", "trace"];
    let ran = run(sim::main, dir.path(), &traced).fine();
    assert!(ran.stdout.contains("BY SEEDS"), "{ran:?}");
    assert!(fs::read_to_string(dir.path().join("trace")).unwrap().contains("PieceDone"));
}

#[test]
fn a_scenario_that_makes_no_sense_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let text = include_str!("../docs/scenarios/broadcast.toml").replace("count", "number");
    fs::write(dir.path().join("typo.toml"), text).unwrap();
    let said = run(sim::main, dir.path(), &["--virtual", "typo.toml"]).failed();
    assert!(said.contains("number"), "{said}");
    let both = ["--virtual", "typo.toml", "--peers", "4"];
    assert_eq!(run(sim::main, dir.path(), &both).exit, Exit::Usage);
    assert_eq!(run(sim::main, dir.path(), &["--rounds", "2"]).exit, Exit::Usage);
    assert_eq!(run(sim::main, dir.path(), &["--peers", "201"]).exit, Exit::Usage);
}

/// Returns the environment of programs of a user with the home `home`.
fn at_home(home: &Path) -> impl Fn(piecework::cli::Env) -> piecework::cli::Env {
    let home = home.to_str().unwrap().to_owned();
    move |env| env.with_var("HOME", &home)
}

#[test]
fn line_15_a_user_shares_and_gets_in_any_folder_and_finds_all_at_home() {
    let tracker = Home::start();
    let homes: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let work = tempfile::tempdir().unwrap();
    let content = bytes(60_000, 8);
    fs::write(work.path().join("h.bin"), &content).unwrap();
    let address = tracker.address();
    let args = ["share", "h.bin", &address, "127.0.0.1:0"];
    let seeder = Running::with_env(peer::main, work.path(), &args, at_home(homes[0].path()));
    seeder.says("\nseeding ");
    let args = ["get", "h.bin", &address, "127.0.0.1:0", "--exit"];
    let getter = Running::with_env(peer::main, work.path(), &args, at_home(homes[1].path()));
    getter.ends().fine();
    seeder.quits().fine();
    for home in &homes {
        let torrents = home.path().join(".local/share/piecework/torrents");
        assert!(torrents.join("h.bin.torrent").exists());
    }
    assert!(fs::read(homes[1].path().join("Downloads/h.bin")).unwrap() == content);
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 1, "nothing else lies here");
}

#[test]
fn get_asks_peers_for_the_metadata_of_a_magnet_link() {
    let home = Home::start();
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let content = bytes(60_000, 7);
    fs::write(dirs[0].path().join("p.bin"), &content).unwrap();
    let seeder = share(dirs[0].path(), &["p.bin"], &home.address());
    let (hash, peer) = (info_hash(&seeder), seeder.address());
    // No catalogue is at that address, and only the link says where a peer is.
    let link = format!("magnet:?xt=urn:btih:{hash}&x.pe={peer}");
    let args = ["get", &link, "127.0.0.1:1", "127.0.0.1:0", "--exit"];
    let ran = run(peer::main, dirs[1].path(), &args).fine();
    assert!(ran.stderr.contains("asking peers for its metadata"), "{ran:?}");
    assert!(fs::read(dirs[1].path().join("downloads/p.bin")).unwrap() == content);
    seeder.quits().fine();
}

#[test]
fn the_menu_asks_the_peers_of_a_magnet_link_and_says_which_are_unknown() {
    let home = Home::start();
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let content = bytes(60_000, 9);
    fs::write(dirs[0].path().join("m.bin"), &content).unwrap();
    let seeder = share(dirs[0].path(), &["m.bin"], &home.address());
    let (hash, peer) = (info_hash(&seeder), seeder.address());
    let menu = Running::with_env(peer::main, dirs[1].path(), &["menu"], |env| {
        env.with_var("PIECEWORK_TRACKER", "127.0.0.1:1").with_var("PIECEWORK_LISTEN", "127.0.0.1:0")
    });
    menu.types(&format!("r magnet:?xt=urn:btih:{hash}&x.pe=no-such-host.invalid:1&x.pe={peer}"));
    menu.complains("no-such-host.invalid");
    menu.complains("asking peers for its metadata");
    menu.says("\nseeding m.bin\n");
    assert!(fs::read(dirs[1].path().join("downloads/m.bin")).unwrap() == content);
    menu.quits().fine();
    seeder.quits().fine();
}

#[test]
fn line_11_get_follows_a_magnet_link_to_a_tracker_of_it() {
    let home = Home::start();
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let content = bytes(60_000, 6);
    fs::write(dirs[0].path().join("l.bin"), &content).unwrap();
    let seeder = share(dirs[0].path(), &["l.bin"], &home.address());
    let hash = info_hash(&seeder);
    let link = format!(
        "magnet:?xt=urn:btih:{hash}&tr=http%3A%2F%2F{}%2Fannounce&ws=http://x.example/",
        home.address()
    );
    let args = ["get", &link, "127.0.0.1:1", "127.0.0.1:0", "--exit"];
    let ran = run(peer::main, dirs[1].path(), &args).fine();
    assert!(ran.stderr.contains("web seeds are not supported"), "{ran:?}");
    assert!(fs::read(dirs[1].path().join("downloads/l.bin")).unwrap() == content);
    // It is kept, so that the same command continues without a tracker that has it.
    let again = format!("magnet:?xt=urn:btih:{hash}");
    let args = ["get", &again, "127.0.0.1:1", "127.0.0.1:0", "--exit"];
    let ran = run(peer::main, dirs[1].path(), &args).fine();
    assert!(ran.stderr.contains("cannot be resolved"), "{ran:?}");
    let nobody = format!("magnet:?xt=urn:btih:{}", "cd".repeat(20));
    let sentence = run(peer::main, dirs[1].path(), &["get", &nobody, "127.0.0.1:1"]).failed();
    assert!(sentence.contains("give the .torrent file"), "{sentence}");
    seeder.quits().fine();
}
