//! One torrent's announces, carried out one after the other on a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, info};

use crate::announce::{Announce, AnnounceEvent};
use crate::announcer::{Announcer, TrackerStatus, Wish};
use crate::base::InfoHash;

use super::shared::Shared;

/// What announces tell of a torrent, kept by the torrent.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Payload bytes sent.
    pub uploaded: AtomicU64,
    /// Payload bytes received.
    pub downloaded: AtomicU64,
    /// Bytes missing.
    pub left: AtomicU64,
}

/// What the torrent tells its announcing task.
pub(super) enum Tell {
    /// The last piece came.
    Complete,
    /// There are too few peers.
    MorePeers,
    /// Leave; answered when the trackers have been told or have had their time.
    Stop(oneshot::Sender<()>),
}

pub(super) struct AnnounceTask {
    pub shared: Arc<Shared>,
    pub info_hash: InfoHash,
    pub announcer: Announcer,
    pub counters: Arc<Counters>,
    /// Port told to trackers.
    pub port: u16,
    pub key: u32,
    pub tells: mpsc::Receiver<Tell>,
    /// Addresses the trackers gave.
    pub found: mpsc::Sender<Vec<SocketAddr>>,
    pub statuses: watch::Sender<Vec<TrackerStatus>>,
}

impl AnnounceTask {
    /// Announces until told to stop.
    pub async fn run(mut self) {
        loop {
            let now = self.shared.now();
            if let Some(wish) = self.announcer.poll(now) {
                // Its answer may be long in coming: until then, that it is asked.
                self.publish();
                if let Some(stop) = self.announce(&wish).await {
                    return self.leave(stop).await;
                }
                self.publish();
                continue;
            }
            let deadline = self.announcer.deadline().map(|moment| self.shared.instant(moment));
            let told = tokio::select! {
                told = self.tells.recv() => told,
                () = sleep_until(deadline) => continue,
            };
            match told {
                Some(Tell::Stop(stop)) => return self.leave(Some(stop)).await,
                None => return self.leave(None).await,
                Some(tell) => self.hear(&tell),
            }
        }
    }

    /// Carries out one wish. Gives the answer to a stop that came meanwhile.
    async fn announce(&mut self, wish: &Wish) -> Option<Option<oneshot::Sender<()>>> {
        let request = self.request(wish);
        let shared = Arc::clone(&self.shared);
        let announce = shared.trackers.announce(&wish.tracker, &request);
        tokio::pin!(announce);
        let mut stop = None;
        let outcome = loop {
            let told = tokio::select! {
                outcome = &mut announce => break Some(outcome),
                told = self.tells.recv() => told,
            };
            match told {
                Some(Tell::Stop(reply)) => stop = Some(Some(reply)),
                None => stop = Some(None),
                Some(tell) => {
                    self.hear(&tell);
                    continue;
                }
            }
            // A tracker may know of us already: only its answer says that it must hear that we go.
            break tokio::time::timeout(LAST_ANSWER, &mut announce).await.ok();
        };
        let now = self.shared.now();
        match outcome {
            Some(Ok(reply)) => {
                debug!(tracker = %wish.tracker, peers = reply.peers.len(), "announced");
                self.announcer.on_reply(now, &wish.tracker, &reply);
                // Never waits: a torrent that has answers enough waiting, or is gone, needs none.
                let _ = self.found.try_send(reply.peers);
            }
            Some(Err(error)) => {
                info!(tracker = %wish.tracker, %error, "the tracker did not answer the announce");
                self.announcer.on_failure(now, &wish.tracker, error.to_string());
            }
            None => self.announcer.on_failure(now, &wish.tracker, "given up".to_owned()),
        }
        stop
    }

    /// Tells trackers that know of us that we go, all at once, within [`FAREWELL`].
    async fn leave(mut self, stop: Option<oneshot::Sender<()>>) {
        self.announcer.stop();
        let mut farewells = JoinSet::new();
        while let Some(wish) = self.announcer.poll(self.shared.now()) {
            let (shared, request) = (Arc::clone(&self.shared), self.request(&wish));
            farewells.spawn(async move {
                if let Err(error) = shared.trackers.announce(&wish.tracker, &request).await {
                    debug!(tracker = %wish.tracker, %error, "the tracker did not hear that we go");
                }
            });
        }
        let all = async { while farewells.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, all).await.is_err() {
            debug!("a tracker could not be told in time that we leave");
        }
        if let Some(stop) = stop {
            // Whoever asked may have gone too.
            let _ = stop.send(());
        }
    }

    fn hear(&mut self, tell: &Tell) {
        match tell {
            Tell::Complete => self.announcer.complete(),
            Tell::MorePeers => self.announcer.request_more_peers(self.shared.now()),
            Tell::Stop(_) => {}
        }
    }

    fn publish(&self) {
        self.statuses.send_replace(self.announcer.statuses());
    }

    fn request(&self, wish: &Wish) -> Announce {
        let event = wish.event;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Announce {
            info_hash: self.info_hash,
            peer_id: self.shared.peer_id,
            port: self.port,
            uploaded: read(&self.counters.uploaded),
            downloaded: read(&self.counters.downloaded),
            left: read(&self.counters.left),
            event,
            num_want: (event == AnnounceEvent::Stopped).then_some(0),
            key: Some(self.key),
            ip: None,
            compact: true,
            no_peer_id: true,
            tracker_id: wish.tracker_id.clone(),
        }
    }
}

/// Never, if there is no deadline.
async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What an announce that is under way has left when we are told to go.
const LAST_ANSWER: Duration = Duration::from_secs(1);
const FAREWELL: Duration = Duration::from_secs(3);
