//! Who listens to what changes: streams of server-sent events, bounded in number, in what waits
//! for each, and in what they cost. A torrent to which nobody listens costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use parking_lot::Mutex;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::catalogue::Entry;
use super::service::Service;
use super::swarm_views::{CountsEvent, Map, changes, event};
use super::views::Request;
use crate::base::InfoHash;
use crate::http_server::{BEAT, event_stream, heartbeat};
use crate::journal::RequestRecord;

/// All that is listened to.
pub(super) struct Feeds {
    torrents: Mutex<BTreeMap<InfoHash, broadcast::Sender<News>>>,
    catalogue: Mutex<Option<broadcast::Sender<News>>>,
    /// Listed torrents that were removed while somebody listens to the catalogue.
    removed: Mutex<Vec<InfoHash>>,
    places: Arc<Semaphore>,
}

/// What all who listen to one thing are told.
#[derive(Clone)]
enum News {
    Events(Bytes),
    /// Too much to tell: the whole is to be told anew.
    Anew,
}

impl Feeds {
    pub(super) fn new() -> Self {
        Self {
            torrents: Mutex::default(),
            catalogue: Mutex::default(),
            removed: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    /// A listed torrent was taken out of the catalogue.
    pub(super) fn removed(&self, info_hash: InfoHash) {
        if self.catalogue.lock().is_some() {
            let mut removed = self.removed.lock();
            if removed.len() < MAX_REMOVED {
                removed.push(info_hash);
            }
        }
    }

    /// A place for another stream, if there is one.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }
}

/// Tells what changes in a torrent until it is no longer catalogued, `stop` says so, or the client
/// leaves.
pub(super) fn torrent(
    service: Arc<Service>,
    entry: Arc<Entry>,
    place: OwnedSemaphorePermit,
    stop: watch::Receiver<bool>,
) -> Response {
    let (told, heard) = mpsc::channel(1);
    tokio::spawn(async move {
        // An error says that the client has left.
        let _ = tell_torrent(&service, &entry, &told, stop).await;
        drop(place);
    });
    event_stream(heard)
}

/// Tells the catalogue and what changes in it, and with `requests` who asks what.
pub(super) fn catalogue(
    service: Arc<Service>,
    requests: bool,
    place: OwnedSemaphorePermit,
    stop: watch::Receiver<bool>,
) -> Response {
    let (told, heard) = mpsc::channel(1);
    tokio::spawn(async move {
        let _ = tell_catalogue(&service, requests, &told, stop).await;
        drop(place);
    });
    event_stream(heard)
}

/// The client has left.
struct Left;

async fn send(told: &mpsc::Sender<Bytes>, chunk: impl Into<Bytes>) -> Result<(), Left> {
    send_within(READ_WITHIN, told, chunk.into()).await
}

async fn send_within(time: Duration, told: &mpsc::Sender<Bytes>, chunk: Bytes) -> Result<(), Left> {
    if chunk.is_empty() {
        return Ok(());
    }
    match timeout(time, told.send(chunk)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Left),
    }
}

async fn tell_torrent(
    service: &Arc<Service>,
    entry: &Arc<Entry>,
    told: &mpsc::Sender<Bytes>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Left> {
    // First to listen, then to look: what changes in between is told twice, which does no harm.
    let Some(mut heard) = listen(service, entry.info_hash) else { return Ok(()) };
    let mut beat = heartbeat();
    send(told, map(service, entry).await).await?;
    loop {
        tokio::select! {
            news = heard.recv() => match news {
                Ok(News::Events(events)) => send(told, events).await?,
                Ok(News::Anew) | Err(RecvError::Lagged(_)) => {
                    heard = heard.resubscribe();
                    send(told, map(service, entry).await).await?;
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = beat.tick() => send(told, BEAT).await?,
            _ = stop.changed() => return Ok(()),
            () = told.closed() => return Ok(()),
        }
    }
}

/// The event `map`; empty if the torrent is gone.
async fn map(service: &Arc<Service>, entry: &Arc<Entry>) -> String {
    let (service, entry) = (Arc::clone(service), Arc::clone(entry));
    let made = tokio::task::spawn_blocking(move || {
        let mut out = String::new();
        if let Some(swarm) = service.swarm(entry.info_hash) {
            event("map", &Map::of(&service, &entry, &swarm), &mut out);
        }
        out
    });
    made.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a map could not be made");
        String::new()
    })
}

/// What is told of a torrent from now on; `None` if it is not catalogued.
fn listen(service: &Arc<Service>, info_hash: InfoHash) -> Option<broadcast::Receiver<News>> {
    let mut torrents = service.feeds.torrents.lock();
    if let Some(sender) = torrents.get(&info_hash) {
        return Some(sender.subscribe());
    }
    let now = service.clock.now();
    if !service.with_registry(info_hash, |registry| registry.watch(now, info_hash)) {
        return None;
    }
    let (sender, receiver) = broadcast::channel(NEWS_KEPT);
    torrents.insert(info_hash, sender.clone());
    tokio::spawn(feed_torrent(Arc::clone(service), info_hash, sender));
    Some(receiver)
}

/// Looks at what has changed in a torrent, for all who listen to it, until nobody does.
async fn feed_torrent(service: Arc<Service>, info_hash: InfoHash, sender: broadcast::Sender<News>) {
    let mut counts = None;
    loop {
        service.clock.tick(TELL_EVERY).await;
        if sender.receiver_count() == 0 {
            // Looked at again with the lock, which whoever begins to listen holds.
            let mut torrents = service.feeds.torrents.lock();
            if sender.receiver_count() == 0 {
                torrents.remove(&info_hash);
                service.with_registry(info_hash, |registry| registry.unwatch(info_hash));
                return;
            }
        }
        let now = service.clock.now();
        let take =
            |registry: &mut crate::registry::Registry| registry.take_swarm_changes(now, info_hash);
        let Some(found) = service.with_registry(info_hash, take) else {
            // It is no longer catalogued. Without senders all streams of it end.
            service.feeds.torrents.lock().remove(&info_hash);
            return;
        };
        let new_counts = CountsEvent::of(&found);
        let news = if found.all {
            News::Anew
        } else {
            let mut events = changes(&service, info_hash, &found);
            // At first, too: somebody's map may be older than this look.
            if counts.as_ref() != Some(&new_counts) {
                event("counts", &new_counts, &mut events);
            }
            News::Events(events.into())
        };
        counts = Some(new_counts);
        if !matches!(&news, News::Events(events) if events.is_empty()) {
            // Nobody listening is seen at the next turn.
            let _ = sender.send(news);
        }
    }
}

async fn tell_catalogue(
    service: &Arc<Service>,
    with_requests: bool,
    told: &mpsc::Sender<Bytes>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Left> {
    let mut heard = listen_to_catalogue(service);
    let mut requests = with_requests.then(|| service.log.listen());
    let mut beat = heartbeat();
    let listed: Vec<_> =
        service.catalogue.all().into_iter().filter(|entry| !entry.unlisted).collect();
    for some in listed.chunks(TORRENTS_AT_A_TIME) {
        let mut out = String::new();
        for entry in some {
            event("torrent", &service.listed(entry), &mut out);
        }
        send(told, out).await?;
    }
    drop(listed);
    send(told, READY).await?;
    let mut turn = interval(REQUESTS_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            news = heard.recv() => match news {
                Ok(News::Events(events)) => send(told, events).await?,
                // Who has missed something must be told all anew, and forget what it knew: it
                // does both when it connects again.
                Ok(News::Anew) | Err(_) => return Ok(()),
            },
            _ = turn.tick(), if requests.is_some() => {
                if let Some(requests) = &mut requests {
                    send(told, take_requests(service, requests)).await?;
                }
            }
            _ = beat.tick() => send(told, BEAT).await?,
            _ = stop.changed() => return Ok(()),
            () = told.closed() => return Ok(()),
        }
    }
}

/// What has been asked since the last call, as events.
fn take_requests(
    service: &Service,
    requests: &mut broadcast::Receiver<Arc<RequestRecord>>,
) -> String {
    let mut out = String::new();
    let mut dropped = 0;
    for _ in 0..REQUESTS_AT_A_TIME {
        match requests.try_recv() {
            Ok(record) => {
                if let Some(request) = Request::open(service, &record) {
                    event("request", &request, &mut out);
                }
            }
            Err(TryRecvError::Lagged(missed)) => dropped += missed,
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    if dropped > 0 {
        event("dropped", &serde_json::json!({ "count": dropped }), &mut out);
    }
    out
}

/// What is told of the catalogue from now on.
fn listen_to_catalogue(service: &Arc<Service>) -> broadcast::Receiver<News> {
    let mut catalogue = service.feeds.catalogue.lock();
    if let Some(sender) = &*catalogue {
        return sender.subscribe();
    }
    service.each_registry(|registry| registry.watch_counts(true));
    service.feeds.removed.lock().clear();
    let (sender, receiver) = broadcast::channel(NEWS_KEPT);
    *catalogue = Some(sender.clone());
    tokio::spawn(feed_catalogue(Arc::clone(service), sender));
    receiver
}

async fn feed_catalogue(service: Arc<Service>, sender: broadcast::Sender<News>) {
    loop {
        service.clock.tick(LIST_EVERY).await;
        if sender.receiver_count() == 0 {
            let mut catalogue = service.feeds.catalogue.lock();
            if sender.receiver_count() == 0 {
                *catalogue = None;
                service.each_registry(|registry| registry.watch_counts(false));
                return;
            }
        }
        let mut out = String::new();
        let removed = std::mem::take(&mut *service.feeds.removed.lock());
        let too_many = removed.len() >= MAX_REMOVED;
        for info_hash in removed {
            event("removed", &info_hash, &mut out);
        }
        let mut touched = Vec::new();
        service.each_registry(|registry| touched.extend(registry.take_touched()));
        for info_hash in touched {
            let entry = service.catalogue.get(info_hash).filter(|entry| !entry.unlisted);
            if let Some(entry) = entry {
                event("torrent", &service.listed(&entry), &mut out);
            }
        }
        if too_many {
            let _ = sender.send(News::Anew);
        } else if !out.is_empty() {
            let _ = sender.send(News::Events(out.into()));
        }
    }
}

/// Who has not made room for the next words by then does not read: a map may have 22 MB, and is not
/// kept for nobody.
const READ_WITHIN: Duration = Duration::from_secs(30);

const READY: &str = "event: ready\ndata: null\n\n";

/// Streams at a time, of torrents and of the catalogue.
const MAX_STREAMS: usize = 256;

/// Turns that may wait for a slow reader: 4 s of a torrent, 8 s of the catalogue.
const NEWS_KEPT: usize = 16;

/// Time between two looks at what has changed in a torrent: a few a second look live.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Time between two looks at whose counts have changed.
const LIST_EVERY: Duration = Duration::from_millis(500);

/// Time between two batches of requests, and requests in one: 2,500 a second, more than anybody
/// reads.
const REQUESTS_EVERY: Duration = Duration::from_millis(200);
const REQUESTS_AT_A_TIME: usize = 500;

/// Torrents of the catalogue written at a time: some 30 KB.
const TORRENTS_AT_A_TIME: usize = 100;

/// Removed torrents kept until the next turn.
const MAX_REMOVED: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_read_is_no_longer_told() {
        let (told, mut heard) = mpsc::channel(1);
        let send = async || send_within(Duration::from_millis(20), &told, BEAT.into()).await;
        assert!(send().await.is_ok() && send().await.is_err());
        assert_eq!(heard.recv().await, Some(BEAT.into()));
        assert!(send().await.is_ok());
    }
}
