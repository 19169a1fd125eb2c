//! Streams of server-sent events about changes. Their number, their queues and their cost are bounded. A torrent
//! without listeners costs nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use parking_lot::Mutex;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::access_log::AccessLog;
use super::catalogue::Catalogue;
use super::catalogue_torrent::CatalogueTorrent;
use super::format::event;
use super::listing::listed;
use super::parts::{AnswerPart, AnswerParts};
use super::swarm_views::{CountsEvent, Map, MapSource, changes};
use super::views::RequestView;
use piecework_core::InfoHash;
use piecework_http::{
    BEAT, Lasting, Left, STREAMS_PER_IP, StreamPlace, Streams, Teller, TooManyStreams,
    event_stream, heartbeat,
};
use piecework_journal::RequestRecord;

/// All feeds and their listeners.
pub(super) struct Feeds {
    maps: Arc<MapSource>,
    catalogue: Arc<Catalogue>,
    log: Arc<AccessLog>,
    torrents: Mutex<BTreeMap<InfoHash, Feed>>,
    /// The channel to the listeners of the catalogue; `None` if there are none.
    listeners: Mutex<Option<broadcast::Sender<FeedEvent>>>,
    /// Listed torrents that were removed since the last turn of the catalogue's feed.
    removed: Mutex<Vec<InfoHash>>,
    streams: Arc<Streams>,
}

/// The channel of a torrent's feed, and the torrent's map.
type Feed = (broadcast::Sender<FeedEvent>, Arc<MapCache>);

/// An event for all listeners of one feed.
#[derive(Clone)]
enum FeedEvent {
    Events(Bytes),
    /// There were too many changes: everything has to be sent again.
    Anew,
}

/// The latest map of a torrent, for all streams that need it between two turns of its feed.
#[derive(Default)]
struct MapCache {
    /// The turn of the feed. It begins after the feed has taken the changes and before it sends them.
    turn: AtomicU64,
    /// The map, and the turn in which it was begun.
    made: tokio::sync::Mutex<Option<(u64, WholeMap)>>,
}

/// The event `map`, empty if the torrent is gone. `None` if it is long; each stream then sends it part by part.
type WholeMap = Option<Bytes>;

impl Feeds {
    pub(super) fn new(
        maps: Arc<MapSource>,
        catalogue: Arc<Catalogue>,
        log: Arc<AccessLog>,
    ) -> Self {
        Self {
            maps,
            catalogue,
            log,
            torrents: Mutex::default(),
            listeners: Mutex::default(),
            removed: Mutex::default(),
            streams: Streams::new(MAX_STREAMS, STREAMS_PER_IP),
        }
    }

    /// Records that a listed torrent was removed from the catalogue.
    pub(super) fn removed(&self, info_hash: InfoHash) {
        if self.listeners.lock().is_some() {
            let mut removed = self.removed.lock();
            if removed.len() < MAX_REMOVED {
                removed.push(info_hash);
            }
        }
    }

    /// Takes a place for another stream to `peer`.
    pub(super) fn place(&self, peer: SocketAddr) -> Result<StreamPlace, TooManyStreams> {
        self.streams.take(peer)
    }
}

/// Streams the changes of a torrent until it is no longer catalogued, `stop` changes, or the client leaves.
pub(super) fn torrent(
    feeds: Arc<Feeds>,
    entry: Arc<CatalogueTorrent>,
    lasting: Lasting,
    place: StreamPlace,
    stop: watch::Receiver<bool>,
) -> Response {
    let (teller, response) = event_stream(lasting);
    tokio::spawn(async move {
        // An error means that the client has left.
        let _ = tell_torrent(&feeds, &entry, &teller, stop).await;
        drop(place);
    });
    response
}

/// Streams the catalogue and its changes, and with `requests` also the requests.
pub(super) fn catalogue(
    feeds: Arc<Feeds>,
    requests: bool,
    lasting: Lasting,
    place: StreamPlace,
    stop: watch::Receiver<bool>,
) -> Response {
    let (teller, response) = event_stream(lasting);
    tokio::spawn(async move {
        let _ = tell_catalogue(&feeds, requests, &teller, stop).await;
        drop(place);
    });
    response
}

impl MapCache {
    /// Begins a turn: changes were taken and are about to be sent. Maps that were begun before may miss them.
    fn turn(&self) {
        self.turn.fetch_add(1, Ordering::SeqCst);
        // Streams that wait for the map being made still get it; no other stream would.
        if let Ok(mut made) = self.made.try_lock() {
            *made = None;
        }
    }

    /// Returns a map that contains everything that was sent before this call. The first caller makes it while the
    /// others wait.
    async fn map(&self, make: impl Future<Output = WholeMap>) -> WholeMap {
        let asked = self.turn.load(Ordering::SeqCst);
        let mut made = self.made.lock().await;
        if let Some((turn, map)) = &*made
            && *turn >= asked
        {
            return map.clone();
        }
        // Changes taken by a later turn are sent to all, and may be in the map as well.
        let turn = self.turn.load(Ordering::SeqCst);
        let map = make.await;
        *made = Some((turn, map.clone()));
        map
    }
}

async fn tell_torrent(
    feeds: &Arc<Feeds>,
    entry: &Arc<CatalogueTorrent>,
    teller: &Teller,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Left> {
    // Subscribes before it reads the map. Changes in between are sent twice, which does no harm.
    let Some((mut heard, latest)) = listen(feeds, entry) else { return Ok(()) };
    let mut beat = heartbeat();
    tell_map(feeds, entry, &latest, teller).await?;
    loop {
        tokio::select! {
            news = heard.recv() => match news {
                Ok(FeedEvent::Events(events)) => teller.tell(events).await?,
                Ok(FeedEvent::Anew) | Err(RecvError::Lagged(_)) => {
                    heard = heard.resubscribe();
                    tell_map(feeds, entry, &latest, teller).await?;
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = beat.tick() => teller.tell(BEAT).await?,
            _ = stop.changed() => return Ok(()),
            () = teller.left() => return Ok(()),
        }
    }
}

/// Sends the event `map`, unless the torrent is gone.
async fn tell_map(
    feeds: &Arc<Feeds>,
    entry: &Arc<CatalogueTorrent>,
    latest: &MapCache,
    teller: &Teller,
) -> Result<(), Left> {
    let short = async {
        match next_part(Map::of(Arc::clone(&feeds.maps), Arc::clone(entry))).await {
            Some((_, part)) if !part.is_last => None,
            Some((_, part)) => Some(format!("{MAP}{}\n\n", part.text).into()),
            None => Some(Bytes::new()),
        }
    };
    if let Some(whole) = latest.map(short).await {
        return teller.tell(whole).await;
    }
    // Changes in the meantime are sent afterwards, in order, so that the client ends up with the present state.
    let mut map = Map::of(Arc::clone(&feeds.maps), Arc::clone(entry));
    teller.tell(MAP).await?;
    while let Some((rest, part)) = next_part(map).await {
        teller.tell(part.text).await?;
        if part.is_last {
            return teller.tell("\n\n").await;
        }
        map = rest;
    }
    // The torrent is gone: the rest of the map is not sent, and the stream ends.
    Err(Left)
}

async fn next_part(mut map: Map) -> Option<(Map, AnswerPart)> {
    let made = tokio::task::spawn_blocking(move || {
        let part = map.next()?;
        Some((map, part))
    });
    made.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a map could not be made");
        None
    })
}

/// Subscribes to a torrent's feed, which is started if necessary; `None` if the torrent is not catalogued.
fn listen(
    feeds: &Arc<Feeds>,
    entry: &Arc<CatalogueTorrent>,
) -> Option<(broadcast::Receiver<FeedEvent>, Arc<MapCache>)> {
    let info_hash = entry.info_hash;
    let mut torrents = feeds.torrents.lock();
    if let Some((sender, latest)) = torrents.get(&info_hash) {
        return Some((sender.subscribe(), Arc::clone(latest)));
    }
    let swarms = &feeds.maps.swarms;
    let now = swarms.clock().now();
    if !swarms.with(info_hash, |registry| registry.watch(now, info_hash)) {
        return None;
    }
    let (sender, receiver) = broadcast::channel(NEWS_KEPT);
    let latest = Arc::<MapCache>::default();
    torrents.insert(info_hash, (sender.clone(), Arc::clone(&latest)));
    tokio::spawn(feed_torrent(Arc::clone(feeds), Arc::clone(entry), sender, Arc::clone(&latest)));
    Some((receiver, latest))
}

/// Sends the changes of a torrent to all listeners until there are none.
async fn feed_torrent(
    feeds: Arc<Feeds>,
    entry: Arc<CatalogueTorrent>,
    sender: broadcast::Sender<FeedEvent>,
    latest: Arc<MapCache>,
) {
    let (swarms, info_hash) = (&feeds.maps.swarms, entry.info_hash);
    let mut counts = None;
    loop {
        swarms.clock().tick(TELL_EVERY).await;
        if sender.receiver_count() == 0 {
            // Checked again with the lock, which new listeners hold while they subscribe.
            let mut torrents = feeds.torrents.lock();
            if sender.receiver_count() == 0 {
                torrents.remove(&info_hash);
                swarms.with(info_hash, |registry| registry.unwatch(info_hash));
                return;
            }
        }
        let now = swarms.clock().now();
        let take = |registry: &mut piecework_registry::Registry| {
            registry.take_swarm_changes(now, info_hash)
        };
        let Some(found) = swarms.with(info_hash, take) else {
            // The torrent is no longer catalogued. Its streams end without a sender.
            feeds.torrents.lock().remove(&info_hash);
            return;
        };
        latest.turn();
        let new_counts = CountsEvent::of(&found);
        let news = if found.all {
            FeedEvent::Anew
        } else {
            let mut events = changes(swarms, &entry, &found);
            // In the first turn too, because a map may be older than these counts.
            if counts.as_ref() != Some(&new_counts) {
                event("counts", &new_counts, &mut events);
            }
            FeedEvent::Events(events.into())
        };
        counts = Some(new_counts);
        if !matches!(&news, FeedEvent::Events(events) if events.is_empty()) {
            // Without listeners this fails, which the next turn handles.
            let _ = sender.send(news);
        }
    }
}

async fn tell_catalogue(
    feeds: &Arc<Feeds>,
    with_requests: bool,
    teller: &Teller,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Left> {
    let mut heard = listen_to_catalogue(feeds);
    let mut requests = with_requests.then(|| RequestFeed {
        heard: feeds.log.listen(),
        held_back: feeds.log.records().held_back(),
    });
    let mut beat = heartbeat();
    let shown: Vec<_> = feeds.catalogue.all().into_iter().filter(|entry| !entry.unlisted).collect();
    for some in shown.chunks(TORRENTS_AT_A_TIME) {
        let mut out = String::new();
        for entry in some {
            event("torrent", &listed(&feeds.maps.swarms, entry), &mut out);
        }
        teller.tell(out).await?;
    }
    drop(shown);
    teller.tell(READY).await?;
    let mut turn = interval(REQUESTS_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            news = heard.recv() => match news {
                Ok(FeedEvent::Events(events)) => teller.tell(events).await?,
                // A client that has missed something needs everything again and has to discard what it knew. It does
                // both when it reconnects.
                Ok(FeedEvent::Anew) | Err(_) => return Ok(()),
            },
            _ = turn.tick(), if requests.is_some() => {
                if let Some(requests) = &mut requests {
                    teller.tell(take_requests(&feeds.log, requests)).await?;
                }
            }
            _ = beat.tick() => teller.tell(BEAT).await?,
            _ = stop.changed() => return Ok(()),
            () = teller.left() => return Ok(()),
        }
    }
}

/// One listener's stream of requests.
struct RequestFeed {
    heard: broadcast::Receiver<Arc<RequestRecord>>,
    /// The number of requests that the log had held back at the last count.
    held_back: u64,
}

/// Returns the requests since the last call as events.
fn take_requests(log: &AccessLog, requests: &mut RequestFeed) -> String {
    let mut out = String::new();
    let held_back = log.records().held_back();
    let mut dropped = held_back - requests.held_back;
    requests.held_back = held_back;
    for _ in 0..REQUESTS_AT_A_TIME {
        match requests.heard.try_recv() {
            Ok(record) => {
                if let Some(request) = RequestView::open(log, &record) {
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

/// Subscribes to the catalogue's feed, which is started if necessary.
fn listen_to_catalogue(feeds: &Arc<Feeds>) -> broadcast::Receiver<FeedEvent> {
    let mut listeners = feeds.listeners.lock();
    if let Some(sender) = &*listeners {
        return sender.subscribe();
    }
    feeds.maps.swarms.each(|registry| registry.watch_counts(true));
    feeds.removed.lock().clear();
    let (sender, receiver) = broadcast::channel(NEWS_KEPT);
    *listeners = Some(sender.clone());
    tokio::spawn(feed_catalogue(Arc::clone(feeds), sender));
    receiver
}

async fn feed_catalogue(feeds: Arc<Feeds>, sender: broadcast::Sender<FeedEvent>) {
    let swarms = &feeds.maps.swarms;
    loop {
        swarms.clock().tick(LIST_EVERY).await;
        if sender.receiver_count() == 0 {
            let mut listeners = feeds.listeners.lock();
            if sender.receiver_count() == 0 {
                *listeners = None;
                swarms.each(|registry| registry.watch_counts(false));
                return;
            }
        }
        let mut out = String::new();
        let removed = std::mem::take(&mut *feeds.removed.lock());
        let too_many = removed.len() >= MAX_REMOVED;
        for info_hash in removed {
            event("removed", &info_hash, &mut out);
        }
        let mut touched = Vec::new();
        swarms.each(|registry| touched.extend(registry.take_changed_counts()));
        for info_hash in touched {
            let entry = feeds.catalogue.get(info_hash).filter(|entry| !entry.unlisted);
            if let Some(entry) = entry {
                event("torrent", &listed(swarms, &entry), &mut out);
            }
        }
        if too_many {
            let _ = sender.send(FeedEvent::Anew);
        } else if !out.is_empty() {
            let _ = sender.send(FeedEvent::Events(out.into()));
        }
    }
}

/// The beginning of the event `map`, before the JSON.
const MAP: &str = "event: map\ndata: ";

const READY: &str = "event: ready\ndata: null\n\n";

/// The maximum number of streams, of torrents and of the catalogue together.
const MAX_STREAMS: usize = 256;

/// The number of turns that may wait for a slow reader: 4 s of a torrent, 8 s of the catalogue.
const NEWS_KEPT: usize = 16;

/// The time between two turns of a torrent's feed. A few turns per second look live.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// The time between two turns of the catalogue's feed.
const LIST_EVERY: Duration = Duration::from_millis(500);

/// The time between two batches of requests, and the maximum number of requests in a batch: 2,500 per second, more
/// than anybody reads.
const REQUESTS_EVERY: Duration = Duration::from_millis(200);
const REQUESTS_AT_A_TIME: usize = 500;

/// The number of torrents of the catalogue that are written at a time: some 30 KB.
const TORRENTS_AT_A_TIME: usize = 100;

/// The maximum number of removed torrents kept until the next turn.
const MAX_REMOVED: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A map that is made whenever `go` says so; counts how often one was begun.
    async fn make(begun: &Cell<u32>, go: &tokio::sync::Semaphore) -> WholeMap {
        begun.set(begun.get() + 1);
        go.acquire().await.unwrap().forget();
        Some(format!("map {}", begun.get()).into())
    }

    #[tokio::test]
    async fn a_map_is_made_once_for_all_who_need_it_and_never_too_old() {
        let (latest, begun) = (MapCache::default(), Cell::new(0));
        let go = tokio::sync::Semaphore::new(0);
        let ask = || latest.map(make(&begun, &go));
        latest.turn();
        let three = async { tokio::join!(ask(), ask(), ask()) };
        let next_turn = async {
            // They wait for the first one's map; who asks after the turn needs another.
            latest.turn();
            go.add_permits(1);
        };
        let ((first, second, third), ()) = tokio::join!(three, next_turn);
        assert_eq!((&first, &second, &third), (&Some("map 1".into()), &first, &first));
        assert_eq!(begun.get(), 1);

        go.add_permits(1);
        assert_eq!(ask().await, Some("map 2".into()));
        assert_eq!(ask().await, Some("map 2".into()), "nothing was taken meanwhile");
        latest.turn();
        assert!(latest.made.lock().await.is_none(), "it is not kept for nobody");
    }
}
