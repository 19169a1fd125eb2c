//! A daemon with many torrents of one kind, and what each part of its life costs. `daemon/tests/growth.rs`
//! tests how that grows, and `benches/growth` prints it.

use std::time::{Duration, Instant, SystemTime};

use piecework_api::State;
use piecework_control::Control;
use piecework_core::metainfo::MetainfoBuilder;
use piecework_daemon::{Daemon, NewTorrent};
use sha1::{Digest, Sha1};

use crate::allocations::{begin_peak, bytes, calls, live, peak};
use crate::daemon::{ControlClient, Home, all_fields, control_config, new_torrent};
use crate::own_tracker::{OwnTracker, TrackerBehavior};

/// The kind of all torrents of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LibraryKind {
    /// Whole, without a tracker.
    Seeds,
    /// Nothing of them is there, and no peer has them.
    Unfinished,
    /// Whole, announced and reported to our own kind of tracker.
    OwnTracker,
}

impl LibraryKind {
    pub const ALL: [Self; 3] = [Self::Seeds, Self::Unfinished, Self::OwnTracker];

    pub fn name(self) -> &'static str {
        match self {
            Self::Seeds => "seeds",
            Self::Unfinished => "unfinished",
            Self::OwnTracker => "own",
        }
    }

    /// Returns the state that its torrents reach.
    fn state(self) -> State {
        if self == Self::Unfinished { State::Downloading } else { State::Seeding }
    }
}

/// The cost of something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// The number of allocations.
    pub calls: usize,
    /// The number of bytes allocated.
    pub bytes: usize,
    /// Bytes that are allocated afterwards and were not before.
    pub kept: usize,
    /// The peak of allocated bytes, beyond those before.
    pub peak: usize,
    /// The CPU time of the process.
    pub cpu: Duration,
    pub took: Duration,
}

/// Measures costs from its beginning on.
pub struct Meter {
    calls: usize,
    bytes: usize,
    live: usize,
    cpu: Duration,
    began: Instant,
}

impl Meter {
    pub fn begin() -> Self {
        let (cpu, began) = (cpu_time(), Instant::now());
        Self { calls: calls(), bytes: bytes(), live: begin_peak(), cpu, began }
    }

    pub fn end(self) -> Cost {
        Cost {
            calls: calls() - self.calls,
            bytes: bytes() - self.bytes,
            kept: live().saturating_sub(self.live),
            peak: peak().saturating_sub(self.live),
            cpu: cpu_time() - self.cpu,
            took: self.began.elapsed(),
        }
    }
}

/// Returns the user and system time of this process.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to `time` and nowhere else, while it is called.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What each part of a daemon's life costs with a number of torrents.
#[derive(Debug, Clone, Copy, Default)]
pub struct LifeCosts {
    /// Adding all of them, one after the other, until each has its final state.
    pub adding: Cost,
    /// Adding [`MORE`] to them, each separately.
    pub more: Cost,
    /// Doing nothing for [`IDLE`].
    pub idle: Cost,
    /// `GET /status`.
    pub status: Cost,
    /// All fields of all torrents over Transmission's RPC.
    pub fields: Cost,
    /// `GET /status?since=`, when nothing has changed.
    pub since: Cost,
    /// `GET /status` of fifty torrents.
    pub page: Cost,
    pub stopping: Cost,
    /// Starting, until each torrent has its final state.
    pub starting: Cost,
}

/// How many torrents are added to the others.
pub const MORE: usize = 20;

/// How long the daemon does nothing.
pub const IDLE: Duration = Duration::from_secs(3);

/// How many torrents are added before measuring, so that everything needed once is there.
const FIRST: usize = 20;

/// Measures the life of a daemon with `torrents` torrents of a kind.
pub async fn live_with(kind: LibraryKind, torrents: usize) -> LifeCosts {
    let mut life = LifeCosts::default();
    let library = Library::new(kind, FIRST + torrents + MORE).await;
    let daemon = library.home.start_with(|config| config.tracker = library.tracker_name()).await;
    library.add(&daemon, 0..FIRST, Duration::ZERO).await;
    let meter = Meter::begin();
    library.add(&daemon, FIRST..FIRST + torrents, Duration::ZERO).await;
    life.adding = meter.end();
    let meter = Meter::begin();
    // Each is handled separately: changes gather for 100 ms.
    let pause = Duration::from_millis(150);
    library.add(&daemon, FIRST + torrents..FIRST + torrents + MORE, pause).await;
    life.more = meter.end();
    // By then, memory is released and files are closed.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let meter = Meter::begin();
    tokio::time::sleep(IDLE).await;
    life.idle = meter.end();
    library.ask(&daemon, &mut life).await;
    let meter = Meter::begin();
    daemon.shutdown().await;
    life.stopping = meter.end();
    drop(daemon);
    if let Some(tracker) = &library.tracker {
        tracker.seen.lock().taken.clear();
    }
    let meter = Meter::begin();
    let daemon = library.home.start_with(|config| config.tracker = library.tracker_name()).await;
    library.settled(&daemon, library.torrents.len()).await;
    life.starting = meter.end();
    daemon.shutdown().await;
    life
}

struct Library {
    home: Home,
    kind: LibraryKind,
    torrents: Vec<NewTorrent>,
    tracker: Option<OwnTracker>,
}

impl Library {
    /// Creates torrents, and the files of those that are whole.
    async fn new(kind: LibraryKind, torrents: usize) -> Self {
        let home = Home::new();
        let tracker = match kind {
            LibraryKind::OwnTracker => Some(OwnTracker::start(TrackerBehavior::default()).await),
            _ => None,
        };
        let url = tracker.as_ref().map(|tracker| format!("http://{}/announce", tracker.addr));
        let tiers: Vec<Vec<String>> = url.into_iter().map(|url| vec![url]).collect();
        std::fs::create_dir_all(home.downloads()).unwrap();
        let made = (0..torrents).map(|number| {
            let (name, content) = (format!("file {number}"), format!("{number:0100}"));
            if kind != LibraryKind::Unfinished {
                std::fs::write(home.downloads().join(&name), &content).unwrap();
            }
            let builder = MetainfoBuilder::single_file(name, content.len() as u64);
            let digest = Sha1::digest(content.as_bytes()).to_vec();
            new_torrent(&builder.trackers(tiers.clone()).build(digest).unwrap())
        });
        let torrents = made.collect();
        Self { home, kind, torrents, tracker }
    }

    fn tracker_name(&self) -> Option<String> {
        self.tracker.as_ref().map(|tracker| format!("http://{}", tracker.addr))
    }

    /// Adds some, with a pause after each.
    async fn add(&self, daemon: &Daemon, range: std::ops::Range<usize>, pause: Duration) {
        let all = range.end;
        for new in &self.torrents[range] {
            daemon.add(new.clone()).await.unwrap();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        self.settled(daemon, all).await;
    }

    /// Waits until `torrents` torrents have their final state and nothing is left to do.
    async fn settled(&self, daemon: &Daemon, torrents: usize) {
        let patience = Duration::from_secs(60) + Duration::from_millis(20) * torrents as u32;
        let settled = async {
            let is = |daemon: &Daemon| daemon.figures().torrents[self.kind.state() as usize];
            loop {
                let began = Instant::now();
                if is(daemon) == torrents as u64 {
                    break;
                }
                // So that looking costs little compared with what is measured.
                tokio::time::sleep(began.elapsed() * 20 + Duration::from_millis(5)).await;
            }
            if let Some(tracker) = &self.tracker {
                while tracker.seen.lock().taken.len() < torrents {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            let mut quiet = 0;
            while quiet < 2 {
                let before = calls();
                tokio::time::sleep(Duration::from_millis(250)).await;
                quiet = if calls() - before < 40 { quiet + 1 } else { 0 };
            }
        };
        tokio::time::timeout(patience, settled).await.expect("it does not come to rest");
    }

    async fn ask(&self, daemon: &Daemon, life: &mut LifeCosts) {
        let control = Control::start(control_config(), daemon.clone()).await.unwrap();
        let asker = ControlClient::new(control.addrs()[0]).await;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let since = format!("/status?since={}", now - 1);
        let fields = all_fields("");
        for (cost, method, path, body, least) in [
            (&mut life.status, "GET", "/status", "", self.torrents.len() * 100),
            (&mut life.fields, "POST", "/transmission/rpc", &*fields, self.torrents.len() * 100),
            (&mut life.since, "GET", &*since, "", 100),
            (&mut life.page, "GET", "/status?offset=20&limit=50", "", 50 * 100),
        ] {
            // The first answer pays for what is needed once.
            asker.ask(method, path, "", body, |_| {}).await;
            let meter = Meter::begin();
            let mut is_fine = false;
            let bytes = asker
                .ask(method, path, "", body, |part| is_fine |= part.starts_with(b"HTTP/1.1 200"))
                .await;
            *cost = meter.end();
            assert!(is_fine && bytes >= least, "{path}: {bytes} bytes");
        }
        control.shutdown().await;
    }
}
