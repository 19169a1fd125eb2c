//! `GET /metrics` of the daemon and of the tracker, over real sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use piecework_api::{RemoveRequest, State};
use piecework_control::Control;
use piecework_core::Secret;
use piecework_daemon::{AddSource, Daemon};
use piecework_http::metrics::families::{DAEMON, PROCESS, TRACKER};
use piecework_http::metrics::{Family, Kind};
use piecework_swarm::Cause;
use piecework_testkit::daemon::{Home, control_config, until, within};
use piecework_tracker::{TrackerConfig, TrackerServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn get(addr: SocketAddr, path: &str, headers: &str) -> (String, String) {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{headers}\r\n");
    within(async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    })
    .await
}

/// The samples of a page, by name and label, after a look at its form.
fn samples(head: &str, body: &str, families: &[&[Family]]) -> BTreeMap<String, f64> {
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let expected: BTreeMap<&str, &Family> =
        families.iter().copied().flatten().map(|family| (family.name, family)).collect();
    let (mut found, mut current) = (BTreeMap::new(), "");
    let mut seen = Vec::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let family = expected.get(name).unwrap_or_else(|| panic!("{name} is not declared"));
            assert_eq!(kind == "counter", family.kind == Kind::Counter, "{name}");
            current = name;
            seen.push(name);
        } else if !line.starts_with("# HELP ") {
            let (key, value) = line.rsplit_once(' ').unwrap();
            let name = key.split('{').next().unwrap();
            assert_eq!(name, current, "a sample stands below another family");
            assert_eq!(key.contains('{'), expected[name].label.is_some(), "{key}");
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0 && found.insert(key.to_owned(), value).is_none(), "{line}");
        }
    }
    assert!(body.ends_with('\n'));
    let missing: Vec<_> = expected.keys().filter(|name| !seen.contains(name)).collect();
    let here = cfg!(target_os = "linux");
    assert!(missing.is_empty() || !here, "{missing:?} are not told");
    seen.sort_unstable();
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "a family stands twice");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_tells_every_figure_of_a_download() {
    let (here, there) = (Home::new(), Home::new());
    let (seeder, leecher) = (here.start().await, there.start().await);
    let seed = seeder.seed(here.seed_request("file", 300_000)).await.unwrap();
    until(&seeder, seed.info_hash, |torrent| torrent.state == State::Seeding).await;
    let mut new = here.torrent_of("shared/file");
    new.source = AddSource::Bytes(seeder.torrent_bytes(seed.info_hash).await.unwrap());
    let control = Control::start(control_config(), leecher.clone()).await.unwrap();
    let addr = control.addrs()[0];

    new.peers = vec![SocketAddr::from(([127, 0, 0, 1], seeder.peer_port()))];
    let added = leecher.add(new).await.unwrap();
    until(&leecher, added.info_hash, |torrent| torrent.state == State::Seeding).await;
    let detail = leecher.detail(added.info_hash).await.unwrap();
    assert_eq!(detail.waiting.sentence, None);

    let (head, body) = get(addr, "/metrics", "").await;
    let figures = samples(&head, &body, &[DAEMON, PROCESS]);
    let of = |name: &str| figures[name];
    assert_eq!(of("piecework_torrents{state=\"seeding\"}"), 1.0);
    assert_eq!(of("piecework_torrents{state=\"failed\"}"), 0.0);
    let received = of("piecework_payload_received_bytes_total");
    assert_eq!(received - of("piecework_payload_wasted_bytes_total"), 300_000.0);
    assert_eq!(of("piecework_pieces_failed_total"), 0.0);
    assert_eq!(of("piecework_pieces_verified_total"), f64::from(detail.torrent.pieces));
    let causes = Cause::ALL
        .map(|cause| of(&format!("piecework_waiting_seconds_total{{cause=\"{}\"}}", cause.word())));
    assert!(causes.iter().sum::<f64>() > 0.0, "{causes:?}");
    assert!(of("process_resident_memory_bytes") > 1e6 && of("process_open_fds") > 3.0);
    control.shutdown().await;
    leecher.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_waits_says_what_for() {
    let home = Home::new();
    let daemon = home.start().await;
    let added = daemon.add(home.new_torrent("alone", 100_000)).await.unwrap();
    until(&daemon, added.info_hash, |torrent| torrent.state == State::Downloading).await;
    let waiting = within(async {
        loop {
            let waiting = daemon.detail(added.info_hash).await.unwrap().waiting;
            if waiting.seconds.no_peers > 0.0 {
                return waiting;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let sentence = waiting.sentence.unwrap();
    assert!(sentence.contains("it has no tracker; name a tracker or a peer"), "{sentence}");
    assert_eq!((waiting.recent.no_peers, waiting.recent.choked), (1.0, 0.0));
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemons_figures_stand_behind_its_guard() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut config = control_config();
    config.password = Some(Secret::from("secret"));
    let control = Control::start(config, daemon.clone()).await.unwrap();
    let addr = control.addrs()[0];
    assert!(get(addr, "/metrics", "").await.0.starts_with("http/1.1 401"));
    let (head, body) = get(addr, "/metrics", "Authorization: Bearer secret\r\n").await;
    samples(&head, &body, &[DAEMON, PROCESS]);
    control.shutdown().await;
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tracker_tells_every_figure() {
    let tracker = TrackerServer::start(TrackerConfig::in_memory()).await.unwrap();
    let addr = tracker.local_addr();
    let hash = "%07".repeat(20);
    let announce = |port: u16, left: u32| {
        format!(
            "/announce?info_hash={hash}&peer_id=-XX0001-abcdefghijk{port}&port={port}&uploaded=0\
             &downloaded=0&left={left}&compact=1"
        )
    };
    for (port, left) in [(1, 0), (2, 5), (2, 5)] {
        assert!(get(addr, &announce(port, left), "").await.0.starts_with("http/1.1 200"));
    }
    get(addr, &format!("/scrape?info_hash={hash}"), "").await;
    get(addr, "/announce?port=1", "").await;
    let (head, body) = get(addr, "/metrics", "").await;
    let figures = samples(&head, &body, &[TRACKER, PROCESS]);
    let of = |name: &str| figures[name];
    assert_eq!(of("piecework_tracker_announces_total{transport=\"http\"}"), 3.0);
    assert_eq!(of("piecework_tracker_announces_total{transport=\"udp\"}"), 0.0);
    assert_eq!((of("piecework_tracker_peers"), of("piecework_tracker_torrents")), (2.0, 1.0));
    assert_eq!(of("piecework_tracker_scrapes_total"), 1.0);
    assert!(of("piecework_tracker_requests_refused_total") >= 1.0);
    assert!(of("piecework_tracker_http_connections") >= 1.0);
    tracker.shutdown().await;
}

/// Waits until the counts are those of the torrents in the list.
async fn counted(daemon: &Daemon) {
    let differs = |daemon: &Daemon| {
        let listed = daemon.overview().torrents;
        let all = State::ALL.map(|state| listed.iter().filter(|it| it.state == state).count());
        let counted = daemon.figures().torrents;
        let rates: u64 = listed.iter().map(|it| it.download_rate + it.upload_rate).sum();
        let figures = daemon.figures();
        all.map(|count| count as u64) != counted
            || rates != figures.download_rate + figures.upload_rate
            || daemon.summary().counts.all as usize != listed.len()
    };
    within(async {
        while differs(daemon) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Waits until so many are counted that download, and so many that are paused.
async fn until_counted(daemon: &Daemon, downloading: u64, paused: u64) {
    let of = |state: State| daemon.figures().torrents[state as usize];
    within(async {
        while (of(State::Downloading), of(State::Paused)) != (downloading, paused) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torrents_are_counted_by_what_they_do_as_they_change() {
    let (here, there) = (Home::new(), Home::new());
    let (seeder, daemon) = (here.start().await, there.start().await);
    let seed = seeder.seed(here.seed_request("file", 300_000)).await.unwrap();
    until(&seeder, seed.info_hash, |torrent| torrent.state == State::Seeding).await;
    let mut all = Vec::new();
    for number in 0..8 {
        let mut new = there.tiny(number);
        new.settings.paused = number % 3 == 0;
        all.push(daemon.add(new).await.unwrap().info_hash);
    }
    counted(&daemon).await;
    until_counted(&daemon, 5, 3).await;
    for info_hash in &all[..4] {
        daemon.pause(*info_hash).await.unwrap();
    }
    daemon.start_torrent(all[6], false).await.unwrap();
    let delete = RemoveRequest { delete_data: true, unregister: false };
    daemon.remove(all[7], delete).await.unwrap();
    until_counted(&daemon, 3, 4).await;
    counted(&daemon).await;
    let mut new = here.torrent_of("shared/file");
    new.source = AddSource::Bytes(seeder.torrent_bytes(seed.info_hash).await.unwrap());
    new.peers = vec![SocketAddr::from(([127, 0, 0, 1], seeder.peer_port()))];
    let added = daemon.add(new).await.unwrap();
    until(&daemon, added.info_hash, |torrent| torrent.state == State::Seeding).await;
    counted(&daemon).await;
    daemon.recheck(added.info_hash).await.unwrap();
    counted(&daemon).await;
    until(&daemon, added.info_hash, |torrent| torrent.state == State::Seeding).await;
    counted(&daemon).await;
    daemon.shutdown().await;
    let daemon = there.start().await;
    until_counted(&daemon, 3, 4).await;
    counted(&daemon).await;
    daemon.shutdown().await;
    seeder.shutdown().await;
}
