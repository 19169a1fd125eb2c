//! A BitTorrent tracker over HTTP and UDP, with a catalogue of torrents and a console.
//!
//! ```no_run
//! # async fn run() -> Result<(), piecework_tracker::TrackerStartError> {
//! use piecework_tracker::{ConsoleReply, TrackerConfig, TrackerServer};
//!
//! let tracker = TrackerServer::start(TrackerConfig::in_memory()).await?;
//! println!("announce to udp://{}", tracker.local_addr());
//! if let ConsoleReply::Text(answer) = tracker.console("stats") {
//!     println!("{answer}");
//! }
//! tracker.shutdown().await;
//! # Ok(())
//! # }
//! ```

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod access_log;
mod addresses;
mod announce_log_limit;
mod announces;
mod bittorrent_routes;
mod catalogue;
mod catalogue_torrent;
mod config;
mod connection_id;
mod console;
mod console_format;
mod context;
mod counters;
mod datagrams;
mod feeds;
mod format;
mod listing;
mod metrics;
mod observation;
mod observer;
mod operator;
mod parts;
mod peer_search;
mod peers_file;
mod persistence;
mod quota;
mod refusal;
mod registration;
mod reports;
mod routes;
mod service;
mod stats;
mod store;
mod swarm_questions;
mod swarm_routes;
mod swarm_views;
mod swarms;
mod tokens;
mod udp;
mod unlisted;
mod views;

use piecework_core::SaturatingFrom;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use piecework_core::printable_path;
use piecework_http::{self as http_server, Entrance, PlainHttp};
use piecework_journal::{Journal, RequestLog};

use catalogue::Catalogue;
use connection_id::ConnectionIds;
use datagrams::Datagrams;
use observer::ObserverParts;
use operator::OperatorToken;
use service::{Service, StartState};
use store::{StoreContents, TrackerStore};
use tokens::os_random;
use udp::UdpWorkers;

pub use store::StoreError;

pub use config::TrackerConfig;
pub use console::ConsoleReply;
pub use piecework_clock::Clock;

/// A tracker: HTTP and UDP on one port number.
pub struct TrackerServer;

/// A running tracker. Dropping the handle stops the tracker at once, without writing the changes of the last seconds;
/// use [`TrackerHandle::shutdown`] instead.
pub struct TrackerHandle {
    service: Arc<Service>,
    local_addr: SocketAddr,
    notices: Vec<String>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// `None` once it was shut down.
    udp: Option<UdpWorkers>,
}

/// Why a tracker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TrackerStartError {
    /// The tracker cannot listen on the address.
    #[error("cannot listen on `{addr}` for {what}: {error}")]
    Listen {
        /// The address that was to be listened on.
        addr: SocketAddr,
        /// The protocol that was to be served there.
        what: &'static str,
        /// The system's reason.
        #[source]
        error: io::Error,
    },
    /// The folder for torrents cannot be created or read.
    #[error("the folder `{}` cannot be used: {error}", printable_path(.path))]
    Folder {
        /// The folder of `.torrent` files.
        path: PathBuf,
        /// The system's reason.
        #[source]
        error: io::Error,
    },
    /// The database cannot be opened.
    #[error("the database `{}` cannot be used: {source}", printable_path(.path))]
    State {
        /// The database's file.
        path: PathBuf,
        /// The reason.
        source: StoreError,
    },
    /// HTTPS or the proxies cannot be served as they are configured.
    #[error(transparent)]
    Entrance(#[from] http_server::EntranceError),
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(&'static str),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(#[source] io::Error),
    /// The task that starts the tracker was cancelled or has panicked.
    #[error("the tracker was interrupted while it was starting: {0}")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl TrackerServer {
    /// Starts a tracker on the current tokio runtime.
    ///
    /// # Errors
    /// If the address, the folder or the database cannot be used.
    pub async fn start(config: TrackerConfig) -> Result<TrackerHandle, TrackerStartError> {
        Self::start_with_clock(config, Clock::system()).await
    }

    /// Starts a tracker with the given clock.
    ///
    /// # Errors
    /// See [`TrackerServer::start`].
    pub async fn start_with_clock(
        config: TrackerConfig,
        clock: Clock,
    ) -> Result<TrackerHandle, TrackerStartError> {
        if config.interval < Duration::from_secs(1) {
            return Err(TrackerStartError::Config("`interval` is less than a second"));
        }
        // The address comes first, because a second tracker must not touch the first one's folder.
        let (tcp, udp) = bind(config.listen, config.udp_workers()).await?;
        let local_addr = tcp.local_addr().map_err(|error| TrackerStartError::Listen {
            addr: config.listen,
            what: "HTTP",
            error,
        })?;
        let entrance = entrance(&config).await?;
        let seed = u64::from_be_bytes(os_random().map_err(TrackerStartError::Random)?);
        let ids = ConnectionIds::new(os_random().map_err(TrackerStartError::Random)?);
        let clock = clock.ahead_by(BEGIN);
        let (service, notices) = tokio::task::spawn_blocking(move || load(config, clock, seed))
            .await
            .map_err(TrackerStartError::Interrupted)??;
        let service = Arc::new(service);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![
            tokio::spawn(http_server::serve_quickly(
                tcp,
                entrance,
                Arc::clone(&service.connections),
                routes::router(Arc::clone(&service), stopped.clone()),
                Some(bittorrent_routes::quick(Arc::clone(&service))),
                routes::timed_out,
                stopped.clone(),
            )),
            tokio::spawn(tend(Arc::clone(&service), stopped.clone())),
        ];
        if service.observation.is_on() {
            let parts = ObserverParts {
                clock: service.clock.clone(),
                swarms: Arc::clone(&service.swarms),
                catalogue: Arc::clone(&service.catalogue),
                observation: Arc::clone(&service.observation),
            };
            let config = service.config.observer();
            tasks.push(tokio::spawn(observer::run(parts, config, local_addr, seed, stopped)));
        }
        let udp = UdpWorkers::start(udp, &service, ids, seed)
            .map_err(|error| TrackerStartError::Listen { addr: local_addr, what: "UDP", error })?;
        Ok(TrackerHandle { service, local_addr, notices, stop, tasks, udp: Some(udp) })
    }
}

impl TrackerHandle {
    /// Executes a line from the console. Takes time in proportion to the records it shows.
    pub fn console(&self, line: &str) -> ConsoleReply {
        self.console_within(line, console::WIDTH)
    }

    /// Executes a line from the console of a terminal with `width` columns.
    pub fn console_within(&self, line: &str, width: usize) -> ConsoleReply {
        console::answer(&self.service, line, width)
    }

    /// Returns the first names in the catalogue for which `wanted` returns `true`, in order.
    pub fn names(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        self.service.catalogue.names(wanted, MOST_NAMES)
    }

    /// Returns the address it listens on, with HTTP over TCP and UDP alike.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the number of peers of all torrents.
    pub fn peers(&self) -> usize {
        self.service.swarms.peer_count()
    }

    /// Returns the number of threads that answer datagrams.
    pub fn udp_workers(&self) -> usize {
        self.udp.as_ref().map_or(0, UdpWorkers::len)
    }

    /// Returns notices about the start, such as files that were left out or a damaged database. Safe to show in a
    /// terminal.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Stops listening, writes everything to disk, and waits for requests under way, for nine seconds at most.
    pub async fn shutdown(mut self) {
        // The most important data is sent to the disk before anything is waited for.
        self.service.persistence.save();
        // Fails only if all tasks have ended.
        let _ = self.stop.send(true);
        let answered = Instant::now() + LAST_ANSWERS;
        if let Some(udp) = self.udp.take() {
            let ended = tokio::task::spawn_blocking(move || udp.join());
            if timeout_at(answered, ended).await.is_err() {
                tracing::error!("a thread that answers datagrams does not end");
            }
        }
        for mut task in std::mem::take(&mut self.tasks) {
            match timeout_at(answered, &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a task of the tracker failed"),
                Err(_) => task.abort(),
            }
        }
        let service = Arc::clone(&self.service);
        let closing = tokio::task::spawn_blocking(move || service.close());
        match tokio::time::timeout(CLOSING, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the tracker's state was not written"),
            Err(_) => tracing::error!("the tracker's state was not written within {CLOSING:?}"),
        }
    }
}

impl Drop for TrackerHandle {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Opens the entrance for HTTP. Plain HTTP stays open even with a certificate, because torrents contain `http://`
/// announce URLs.
async fn entrance(config: &TrackerConfig) -> Result<Entrance, TrackerStartError> {
    let (certificate, key) = (config.certificate.clone(), config.certificate_key.clone());
    let proxies = config.proxies.clone();
    let open = move || Entrance::open(certificate, key, &proxies, PlainHttp::Everybody);
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => Ok(opened?),
        Err(error) => Err(TrackerStartError::Interrupted(error)),
    }
}

/// Binds TCP and UDP to the same port, with `workers` sockets for UDP.
async fn bind(
    addr: SocketAddr,
    workers: usize,
) -> Result<(TcpListener, Vec<Datagrams>), TrackerStartError> {
    let fault = |what, addr| move |error| TrackerStartError::Listen { addr, what, error };
    let mut attempts = if addr.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let tcp = TcpListener::bind(addr).await.map_err(fault("HTTP", addr))?;
        let chosen = tcp.local_addr().map_err(fault("HTTP", addr))?;
        match Datagrams::bind(chosen, workers) {
            Ok(udp) => return Ok((tcp, udp)),
            // A port that is free for TCP may be in use for UDP.
            Err(error) if attempts > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(fault("UDP", chosen)(error)),
        }
    }
}

/// Reads the saved state. Blocks.
fn load(
    config: TrackerConfig,
    clock: Clock,
    seed: u64,
) -> Result<(Service, Vec<String>), TrackerStartError> {
    let (store, saved) = match &config.state {
        None => (None, StoreContents::default()),
        Some(path) => {
            let (store, saved) = TrackerStore::open(path)
                .map_err(|source| TrackerStartError::State { path: path.clone(), source })?;
            (Some(store), saved)
        }
    };
    let mut notices: Vec<String> = saved.notice.into_iter().collect();
    if let Some(trouble) = store.as_ref().and_then(TrackerStore::trouble) {
        notices.push(format!("{trouble}; until then nothing can be registered or removed"));
    }
    let log = request_log(&config, &mut notices);
    let operator = config.operator_token().and_then(|path| {
        OperatorToken::open(&path).map_err(|error| notices.push(error.to_string())).ok()
    });
    let Some(folder) = config.torrents.clone() else {
        let kept = StartState { catalogue: Catalogue::in_memory(), store, log, operator };
        let service = Service::new(config, clock, kept, seed);
        notices.extend(service.persistence.restore_peers());
        return Ok((service, notices));
    };
    let found = Catalogue::open(&folder, saved.rows, config.max_catalogue)
        .map_err(|error| TrackerStartError::Folder { path: folder, error })?;
    notices.extend(found.notices);
    if let Some(store) = &store {
        // Writes that fail now are tried again; stale rows may stay until the next start.
        let written = store.put_later(found.new_rows).and_then(|()| {
            if store.trouble().is_some() {
                return Ok(());
            }
            found.stale_rows.into_iter().try_for_each(|hash| store.remove(hash))
        });
        if let Err(error) = written {
            notices.push(format!("the database could not be brought up to date: {error}"));
        }
    }
    let kept = StartState { catalogue: found.catalogue, store, log, operator };
    let service = Service::new(config, clock, kept, seed);
    service.persistence.restore(&found.torrents, &saved.load);
    notices.extend(service.persistence.restore_peers());
    Ok((service, notices))
}

/// Opens the request log, with its journal if there is one. The tracker starts even if the journal cannot be opened.
fn request_log(config: &TrackerConfig, notices: &mut Vec<String>) -> RequestLog {
    let Some(options) = config.journal() else { return RequestLog::new(config.log_records) };
    let opened = Journal::open(&options).and_then(|journal| {
        notices.extend(journal.notice().map(str::to_owned));
        notices.extend(journal.notices());
        RequestLog::with_journal(config.log_records, Arc::new(journal))
    });
    opened.unwrap_or_else(|error| {
        notices.push(format!("{error}; requests are remembered in memory only"));
        RequestLog::new(config.log_records)
    })
}

/// Removes expired peers and saves changes, a little at a time, until `stop` changes.
async fn tend(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let mut since_save = 0;
    let mut peers = SavingPeers { under_way: None, next: Instant::now() + SAVE_PEERS_EVERY };
    loop {
        tokio::select! {
            () = service.clock.tick(TEND_EVERY) => {}
            _ = stop.changed() => return,
        }
        since_save += 1;
        peers.go_on(&service);
        // A panic in one round must not end all rounds.
        let tended = catch_unwind(AssertUnwindSafe(|| {
            if since_save >= SAVE_EVERY {
                since_save = 0;
                service.persistence.save();
            }
            service.swarms.expire();
        }));
        if tended.is_err() {
            tracing::error!("a round of removing expired peers failed");
        }
    }
}

/// The schedule for saving the peers for a restart.
struct SavingPeers {
    under_way: Option<JoinHandle<()>>,
    next: Instant,
}

impl SavingPeers {
    /// Starts to save if it is time and the last save has ended. Does not block.
    fn go_on(&mut self, service: &Arc<Service>) {
        match &self.under_way {
            Some(task) if !task.is_finished() => {
                // Leaves the disk to others most of the time.
                self.next += SAVE_PEERS_PAUSE * u32::saturating_from(TEND_EVERY.as_millis());
                return;
            }
            Some(_) => self.under_way = None,
            None => {}
        }
        if Instant::now() >= self.next && service.persistence.keeps_peers() {
            self.next = Instant::now() + SAVE_PEERS_EVERY;
            let persistence = Arc::clone(&service.persistence);
            self.under_way = Some(tokio::task::spawn_blocking(move || persistence.save_peers()));
        }
    }
}

/// The number of ports that are tried to find one that is free for both protocols.
const PORT_ATTEMPTS: usize = 32;

/// The time for requests under way when the tracker shuts down.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// The time to write everything to disk when the tracker shuts down.
const CLOSING: Duration = Duration::from_secs(6);

/// The time between two rounds of removing expired peers.
const TEND_EVERY: Duration = Duration::from_millis(100);

/// The time between two saves of the peers, and the additional pause for each round that a save takes.
const SAVE_PEERS_EVERY: Duration = Duration::from_secs(3);
const SAVE_PEERS_PAUSE: Duration = Duration::from_millis(30);

/// The number of rounds between two saves of load and downloads: 10 s.
const SAVE_EVERY: u32 = 100;
/// What the clock shows at the start, so that peers can be restored that were last seen before the tracker started.
const BEGIN: Duration = Duration::from_secs(24 * 3600);

/// The maximum number of names that [`TrackerHandle::names`] returns.
const MOST_NAMES: usize = 100;
