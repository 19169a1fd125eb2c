//! `torrent-test`: checks everything that a transfer needs.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;

use piecework_api::{State, Torrent};
use piecework_core::{InfoHash, Table, printable};
use piecework_daemon::encryption_policy;
use piecework_engine::tracker_client::{ClientOptions, TrackerClient, TrackerError};
use piecework_proto::announce::{Scheme, TrackerTarget, TrackerUrl};
use piecework_swarm::hang_ups;

use super::format::{short_time, table_text};
use super::remote::{Remote, RemoteArgs, Tool, print_json};
use super::{CliError, Env, Exit, remote};

/// Test whether the daemon, its tracker and its peer port answer, and how fast.
#[derive(Parser)]
#[command(name = "torrent-test", version, after_help = "Example: torrent-test --port 5000")]
struct TestArgs {
    /// The tracker to test, instead of the daemon's: IP:PORT or URL.
    #[arg(long, value_name = "TRACKER")]
    tracker: Option<String>,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// The result of one test.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    ok: bool,
    /// Milliseconds.
    took_ms: f64,
    /// The address, or the error.
    detail: String,
}

pub fn main(env: Env) -> Exit {
    remote::run(env, async |args: TestArgs, env, remote| test(&args, env, remote).await)
}

impl Tool for TestArgs {
    fn remote(&self) -> &RemoteArgs {
        &self.remote
    }
}

async fn test(args: &TestArgs, env: &Env, remote: &Remote) -> Result<(), CliError> {
    let mut checks = Vec::new();
    let begun = Instant::now();
    let alive = remote.client().alive().await;
    let no_daemon = match &alive {
        Ok(alive) => {
            let text = format!(
                "{} {}, up {}",
                printable(&alive.program),
                printable(&alive.version),
                super::follow::short_span(alive.uptime)
            );
            checks.push(Check::ok("daemon", begun, text));
            None
        }
        Err(error) => {
            let error = remote.fault(error);
            checks.push(Check::failed("daemon", begun, error.to_string()));
            Some(error.exit())
        }
    };
    let tracker = match &args.tracker {
        Some(tracker) => Some(tracker.clone()),
        None => match &alive {
            Ok(alive) => {
                checks.push(catalogue(remote).await);
                alive.tracker.clone()
            }
            Err(_) => Some(remote.config().peer.tracker.clone()),
        },
    };
    if let Some(tracker) = &tracker {
        checks.extend(trackers(tracker).await?);
    }
    if let Ok(alive) = &alive {
        checks.push(peer_port(remote).await);
        checks.extend(closed_doors(remote).await);
        if !remote.is_local() {
            checks.push(reachable(remote.host(), alive.peer_port).await);
        }
    }
    let failed = checks.iter().any(|check| !check.ok);
    if remote.json() {
        print_json(env, &checks)?;
    } else {
        env.stdout().line(text(&checks, env))?;
    }
    match (no_daemon, failed) {
        (Some(exit), _) => Err(CliError::silent(exit)),
        (None, true) => Err(CliError::silent(Exit::Failed)),
        (None, false) => Ok(()),
    }
}

/// Tests the tracker's catalogue, through the daemon.
async fn catalogue(remote: &Remote) -> Check {
    let begun = Instant::now();
    match remote.client().catalogue(None, None).await {
        Ok(answer) => {
            let text = format!(
                "{} at {}",
                super::format::counted(answer.torrents.len() as u64, "torrent"),
                printable(&answer.tracker)
            );
            Check::ok("catalogue", begun, text)
        }
        Err(error) => Check::failed("catalogue", begun, remote.fault(&error).to_string()),
    }
}

/// Tests each way to the tracker with an announce for a torrent that nobody has.
async fn trackers(name: &str) -> Result<Vec<Check>, CliError> {
    let target = TrackerTarget::parse(name).map_err(CliError::usage_by)?;
    let options = ClientOptions { timeout: PATIENCE, ..ClientOptions::default() };
    let client = TrackerClient::new(options).map_err(CliError::failed_by)?;
    let mut out = Vec::new();
    for url in target.tiers.iter().flatten() {
        out.push(tracker(&client, url).await);
    }
    Ok(out)
}

async fn tracker(client: &TrackerClient, url: &TrackerUrl) -> Check {
    let what = match url.scheme() {
        Scheme::Http => "tracker HTTP",
        Scheme::Https => "tracker HTTPS",
        Scheme::Udp => "tracker UDP",
    };
    let begun = Instant::now();
    match client.scrape(url, &[InfoHash([0; 20])]).await {
        // A tracker that refuses an unknown torrent answers too.
        Ok(_) | Err(TrackerError::Refused(_)) => {
            Check::ok(what, begun, printable(url.as_str()).into_owned())
        }
        Err(error) => {
            let url = printable(url.as_str());
            Check::failed(what, begun, format!("{url}: {}", printable(&error.to_string())))
        }
    }
}

/// Tests the peer port: the daemon connects to itself.
async fn peer_port(remote: &Remote) -> Check {
    let begun = Instant::now();
    let test = match remote.client().test().await {
        Ok(test) => test,
        Err(error) => {
            return Check::failed("peer port", begun, remote.fault(&error).to_string());
        }
    };
    let addr = test.addr.as_deref().map_or_else(String::new, |addr| printable(addr).into_owned());
    let detail = match &test.error {
        Some(error) => printable(error).into_owned(),
        None => addr,
    };
    Check { what: "peer port", ok: test.open, took_ms: test.took_ms, detail }
}

/// Returns a failure for each download without peers whose peers close connections at our
/// handshake.
async fn closed_doors(remote: &Remote) -> Vec<Check> {
    let begun = Instant::now();
    let mut checks = Vec::new();
    // If the daemon does not answer, the first test has reported it.
    let Ok(status) = remote.client().overview().await else { return checks };
    let Ok(settings) = remote.client().settings().await else { return checks };
    let policy = encryption_policy(settings.encryption);
    let lonely = |torrent: &&Torrent| torrent.state == State::Downloading && torrent.peers == 0;
    for torrent in status.torrents.iter().filter(lonely).take(MOST_LONELY) {
        let Ok(detail) = remote.client().detail(torrent.info_hash).await else { continue };
        if let Some(told) = hang_ups(detail.waiting.closed_at_handshake, policy) {
            let name = printable(&torrent.name);
            checks.push(Check::failed("handshakes", begun, format!("`{name}`: {told}")));
        }
    }
    checks
}

/// Tests whether this machine reaches the peer port of another one.
async fn reachable(host: &str, port: u16) -> Check {
    let what = "peer port from here";
    let begun = Instant::now();
    let named = (host.to_owned(), port);
    let found =
        tokio::task::spawn_blocking(move || named.to_socket_addrs().map(|mut addrs| addrs.next()));
    let addr: SocketAddr = match found.await {
        Ok(Ok(Some(addr))) => addr,
        _ => return Check::failed(what, begun, format!("`{}` has no address", printable(host))),
    };
    match tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(addr)).await {
        Ok(Ok(_)) => Check::ok(what, begun, addr.to_string()),
        Ok(Err(error)) => Check::failed(what, begun, format!("{addr}: {error}")),
        Err(_) => Check::failed(what, begun, format!("{addr}: no answer in time")),
    }
}

impl Check {
    fn ok(what: &'static str, begun: Instant, detail: String) -> Self {
        Self { what, ok: true, took_ms: milliseconds(begun.elapsed()), detail }
    }

    fn failed(what: &'static str, begun: Instant, detail: String) -> Self {
        Self { what, ok: false, took_ms: milliseconds(begun.elapsed()), detail }
    }
}

fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

fn text(checks: &[Check], env: &Env) -> String {
    let paint = env.stdout().paint();
    let rows = checks.iter().map(|check| {
        vec![
            check.what.to_owned(),
            if check.ok { paint.green("ok") } else { paint.red("failed") },
            short_time(Duration::from_secs_f64(check.took_ms.max(0.0) / 1e3)),
            check.detail.clone(),
        ]
    });
    let table = Table::new(["what", "is", "took", "where or why"]).right(&[2]).wraps(&[3]);
    table_text(&table.rows(rows), env.stdout().width(), paint)
}

/// Maximum number of downloads without peers to test.
const MOST_LONELY: usize = 50;

/// Maximum time for an answer of a tracker or port.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use piecework_tracker::{TrackerConfig, TrackerServer};

    use super::*;

    #[tokio::test]
    async fn a_tracker_is_asked_in_both_ways() {
        let tracker = TrackerServer::start(TrackerConfig::in_memory()).await.unwrap();
        let checks = trackers(&tracker.local_addr().to_string()).await.unwrap();
        let mut found: Vec<(&str, bool)> =
            checks.iter().map(|check| (check.what, check.ok)).collect();
        found.sort_unstable();
        assert_eq!(found, [("tracker HTTP", true), ("tracker UDP", true)], "{checks:?}");
        tracker.shutdown().await;
    }

    #[tokio::test]
    async fn what_is_not_there_fails_and_says_where() {
        // Nothing listens on port 1.
        let checks = trackers("http://127.0.0.1:1/announce").await.unwrap();
        assert_eq!(checks.len(), 1);
        assert!(!checks[0].ok && checks[0].detail.contains("127.0.0.1:1"), "{checks:?}");
        assert!(!reachable("127.0.0.1", 1).await.ok);
        assert!(trackers("no tracker at all").await.is_err());
    }
}
