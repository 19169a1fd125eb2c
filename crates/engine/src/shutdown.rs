//! The end of a session, within a bounded time: data first, then trackers.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::Session;
use super::announce_scheduler::{self, FAREWELL, Parting};
use super::entry::Entry;
use crate::tracker_client::TrackerClient;
use piecework_core::InfoHash;
use piecework_swarm::announcer::{
    Announcer, DepartingTorrent, Departures, Goodbye, MissedGoodbyes,
};

/// What was left undone when a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShutdownReport {
    /// Torrents that had not stopped and flushed their data.
    pub running: usize,
    /// Torrents whose trackers have not been told that we leave.
    pub untold: MissedGoodbyes,
}

/// The torrents of a session that is ending.
#[derive(Default)]
pub(super) struct Ending {
    /// Torrents that are stopping.
    stops: JoinSet<()>,
    /// The number of peers that were connected, for torrents that had any.
    peers: HashMap<InfoHash, usize, foldhash::fast::FixedState>,
}

impl Session {
    /// Ends all transfers: no peer and no torrent is accepted any more, data is flushed, and what
    /// is held is handed to the keeper. Trackers are told later, by [`Session::shutdown_by`].
    ///
    /// Returns the number of torrents that had not stopped at `deadline`, because a disk does not
    /// answer for instance. They go on stopping.
    pub async fn quiesce(&self, deadline: Instant) -> usize {
        let parts = &self.parts;
        // The first task announces, which is still needed.
        for accepting in self.listening.loops.lock().iter().skip(1) {
            accepting.abort();
        }
        let entries: Vec<Arc<Entry>> = parts.torrents.lock().end();
        parts.fetches.end();
        parts.discovery.scheduler.begin_end();
        parts.lifecycle.check_workers.clear();
        parts.lifecycle.check_slots.clear();
        parts.lifecycle.start_slots.clear();
        let mut ending = std::mem::take(&mut *self.listening.ending.lock());
        for entry in entries {
            if let Some(record) = entry.take_asleep() {
                // A slot that it has is handed to nobody.
                drop(record);
                if !entry.store().is_unsynced() {
                    entry.end();
                    parts.paths.give_up(&entry);
                    continue;
                }
                let paths = Arc::clone(&parts.paths);
                ending.stops.spawn_blocking(move || {
                    if let Err(error) = entry.store().sync() {
                        warn!(%error, "data could not be flushed to disk");
                    }
                    entry.end();
                    paths.give_up(&entry);
                });
            } else {
                let peers = entry.shown().motion.peers as usize;
                if peers > 0 {
                    ending.peers.insert(entry.info_hash(), peers);
                }
                let parts = Arc::clone(parts);
                ending.stops.spawn(async move { parts.stop(&entry).await });
            }
        }
        let running = ending.wait(deadline).await;
        *self.listening.ending.lock() = ending;
        running
    }

    /// Ends all transfers, flushes data, and tells trackers that we leave, those first that most
    /// peers ask. Returns at `deadline` at the latest, with what was left undone.
    pub async fn shutdown_by(&self, deadline: Instant) -> ShutdownReport {
        if !self.parts.torrents.lock().ended {
            // One torrent that cannot stop must not keep the trackers of the others waiting.
            let left = deadline.saturating_duration_since(Instant::now());
            self.quiesce(Instant::now() + left.mul_f64(QUIET)).await;
        }
        let mut ending = std::mem::take(&mut *self.listening.ending.lock());
        let scheduler = &self.parts.discovery.scheduler;
        let Parting { parted, staying } = scheduler.part();
        let telling = tell(&scheduler.trackers, parted, &ending.peers, deadline);
        let staying = async {
            for gone in staying {
                // The sender is dropped if the torrent has left.
                let _ = timeout_at(deadline, gone).await;
            }
        };
        let ((mut untold, ()), running) = tokio::join!(
            async { tokio::join!(telling, staying) },
            wait(&mut ending.stops, deadline)
        );
        scheduler.note_untold(&mut untold);
        ending.stops.detach_all();
        for announcing in std::mem::take(&mut *self.listening.loops.lock()) {
            announcing.abort();
        }
        let files = Arc::clone(&self.parts.means.files);
        if running == 0 {
            // A disk may be slow to close a file, or never do it.
            let closing = tokio::task::spawn_blocking(move || files.close_all());
            let _ = timeout_at(deadline, closing).await;
        }
        ShutdownReport { running, untold }
    }

    /// The same within eight seconds. What was left undone is logged as well.
    pub async fn shutdown(&self) -> ShutdownReport {
        let report = self.shutdown_by(Instant::now() + SHUTDOWN).await;
        report.log();
        report
    }
}

impl ShutdownReport {
    /// Logs what was left undone.
    pub fn log(&self) {
        if self.running > 0 {
            warn!(
                "`{}` torrents did not stop in time: what came last will be checked again",
                self.running
            );
        }
        if !self.untold.is_empty() {
            warn!("{}", self.untold);
        }
    }
}

impl Ending {
    /// Waits for all torrents to stop. Returns how many have not by then.
    async fn wait(&mut self, deadline: Instant) -> usize {
        wait(&mut self.stops, deadline).await
    }
}

async fn wait(stops: &mut JoinSet<()>, deadline: Instant) -> usize {
    let all = async { while stops.join_next().await.is_some() {} };
    // The number left says whether it was in time.
    let _ = timeout_at(deadline, all).await;
    stops.len()
}

/// Tells the trackers of these torrents that we leave, until `deadline`.
async fn tell(
    trackers: &TrackerClient,
    torrents: Vec<(Arc<Entry>, Announcer)>,
    peers: &HashMap<InfoHash, usize, foldhash::fast::FixedState>,
    deadline: Instant,
) -> MissedGoodbyes {
    let (entries, announcers): (Vec<_>, Vec<_>) = torrents.into_iter().unzip();
    let departing = announcers.into_iter().zip(&entries).map(|(announcer, entry)| {
        let peers = peers.get(&entry.info_hash()).copied().unwrap_or_default();
        DepartingTorrent { announcer, peers }
    });
    let mut departures = Departures::new(departing);
    let mut under_way: JoinSet<(Goodbye, bool)> = JoinSet::new();
    let telling = async {
        loop {
            while let Some(goodbye) = departures.poll() {
                let entry = &entries[goodbye.torrent];
                let request = announce_scheduler::request(entry, &goodbye.wish);
                let trackers = trackers.clone();
                under_way.spawn(async move {
                    let announce = trackers.announce(&goodbye.wish.tracker, &request);
                    let answered = match tokio::time::timeout(FAREWELL, announce).await {
                        Ok(Ok(_)) => true,
                        Ok(Err(error)) => error.is_refusal(),
                        Err(_) => false,
                    };
                    (goodbye, answered)
                });
            }
            match under_way.join_next().await {
                Some(Ok((goodbye, answered))) => departures.settle(&goodbye, answered),
                // One that panicked counts as not told.
                Some(Err(_)) => {}
                None => return,
            }
        }
    };
    // What was not told by then is counted.
    let _ = timeout_at(deadline, telling).await;
    departures.missed()
}

/// Time for [`Session::shutdown`]: programs that must end within ten seconds have other things to
/// do.
const SHUTDOWN: Duration = Duration::from_secs(8);

/// The part of the time until the deadline in which torrents stop, before trackers are told.
const QUIET: f64 = 0.4;
