//! Who listens to what changes: streams of server-sent events, bounded in number, in what waits
//! for each, and in what they cost. A torrent to which nobody listens costs nothing.

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

use super::catalogue::Entry;
use super::parts::{Part, Parts};
use super::service::Service;
use super::swarm_views::{CountsEvent, Map, changes, event};
use super::views::Request;
use piecework_core::InfoHash;
use piecework_http::{
    BEAT, Lasting, Left, STREAMS_PER_IP, StreamPlace, Streams, Teller, TooManyStreams,
    event_stream, heartbeat,
};
use piecework_journal::RequestRecord;

/// All that is listened to.
pub(super) struct Feeds {
    torrents: Mutex<BTreeMap<InfoHash, Feed>>,
    catalogue: Mutex<Option<broadcast::Sender<News>>>,
    /// Listed torrents that were removed while somebody listens to the catalogue.
    removed: Mutex<Vec<InfoHash>>,
    streams: Arc<Streams>,
}

/// What is told of a torrent, and its map.
type Feed = (broadcast::Sender<News>, Arc<Latest>);

/// What all who listen to one thing are told.
#[derive(Clone)]
enum News {
    Events(Bytes),
    /// Too much to tell: the whole is to be told anew.
    Anew,
}

/// A torrent's map as it was made last, for all who need it between two turns of its feed.
#[derive(Default)]
struct Latest {
    /// The turn of the feed, which begins after it took what has changed and before it tells that.
    turn: AtomicU64,
    /// The map, and the turn in which its making began.
    made: tokio::sync::Mutex<Option<(u64, Whole)>>,
}

/// The event `map`, empty if the torrent is gone. `None` if it is long: each reads that part by part.
type Whole = Option<Bytes>;

impl Feeds {
    pub(super) fn new() -> Self {
        Self {
            torrents: Mutex::default(),
            catalogue: Mutex::default(),
            removed: Mutex::default(),
            streams: Streams::new(MAX_STREAMS, STREAMS_PER_IP),
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

    /// A place for another stream, to `peer`.
    pub(super) fn place(&self, peer: SocketAddr) -> Result<StreamPlace, TooManyStreams> {
        self.streams.take(peer)
    }
}

/// Tells what changes in a torrent until it is no longer catalogued, `stop` says so, or the client
/// leaves.
pub(super) fn torrent(
    service: Arc<Service>,
    entry: Arc<Entry>,
    lasting: Lasting,
    place: StreamPlace,
    stop: watch::Receiver<bool>,
) -> Response {
    let (teller, response) = event_stream(lasting);
    tokio::spawn(async move {
        // An error says that the client has left.
        let _ = tell_torrent(&service, &entry, &teller, stop).await;
        drop(place);
    });
    response
}

/// Tells the catalogue and what changes in it, and with `requests` who asks what.
pub(super) fn catalogue(
    service: Arc<Service>,
    requests: bool,
    lasting: Lasting,
    place: StreamPlace,
    stop: watch::Receiver<bool>,
) -> Response {
    let (teller, response) = event_stream(lasting);
    tokio::spawn(async move {
        let _ = tell_catalogue(&service, requests, &teller, stop).await;
        drop(place);
    });
    response
}

impl Latest {
    /// Something was taken that is about to be told: maps that were begun before may miss it.
    fn turn(&self) {
        self.turn.fetch_add(1, Ordering::SeqCst);
        // Who waits for the one that is being made still gets it; nobody else would.
        if let Ok(mut made) = self.made.try_lock() {
            *made = None;
        }
    }

    /// A map that has all that was told before this call: made by whoever comes first, while
    /// others wait.
    async fn map(&self, make: impl Future<Output = Whole>) -> Whole {
        let asked = self.turn.load(Ordering::SeqCst);
        let mut made = self.made.lock().await;
        if let Some((turn, map)) = &*made
            && *turn >= asked
        {
            return map.clone();
        }
        // What is taken by a later turn is told to all, and may be in the map as well.
        let turn = self.turn.load(Ordering::SeqCst);
        let map = make.await;
        *made = Some((turn, map.clone()));
        map
    }
}

async fn tell_torrent(
    service: &Arc<Service>,
    entry: &Arc<Entry>,
    teller: &Teller,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Left> {
    // First to listen, then to look: what changes in between is told twice, which does no harm.
    let Some((mut heard, latest)) = listen(service, entry.info_hash) else { return Ok(()) };
    let mut beat = heartbeat();
    tell_map(service, entry, &latest, teller).await?;
    loop {
        tokio::select! {
            news = heard.recv() => match news {
                Ok(News::Events(events)) => teller.tell(events).await?,
                Ok(News::Anew) | Err(RecvError::Lagged(_)) => {
                    heard = heard.resubscribe();
                    tell_map(service, entry, &latest, teller).await?;
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = beat.tick() => teller.tell(BEAT).await?,
            _ = stop.changed() => return Ok(()),
            () = teller.left() => return Ok(()),
        }
    }
}

/// Tells the event `map`, unless the torrent is gone.
async fn tell_map(
    service: &Arc<Service>,
    entry: &Arc<Entry>,
    latest: &Latest,
    teller: &Teller,
) -> Result<(), Left> {
    let short = async {
        match next_part(service, Map::of(Arc::clone(entry))).await {
            Some((_, part)) if !part.is_last => None,
            Some((_, part)) => Some(format!("{MAP}{}\n\n", part.text).into()),
            None => Some(Bytes::new()),
        }
    };
    if let Some(whole) = latest.map(short).await {
        return teller.tell(whole).await;
    }
    // What changes meanwhile is told afterwards, in order, so that who reads ends up with what is.
    let mut map = Map::of(Arc::clone(entry));
    teller.tell(MAP).await?;
    while let Some((rest, part)) = next_part(service, map).await {
        teller.tell(part.text).await?;
        if part.is_last {
            return teller.tell("\n\n").await;
        }
        map = rest;
    }
    // The torrent is gone: the rest of the map is not told, and the stream ends.
    Err(Left)
}

async fn next_part(service: &Arc<Service>, mut map: Map) -> Option<(Map, Part)> {
    let service = Arc::clone(service);
    let made = tokio::task::spawn_blocking(move || {
        let part = map.next(&service)?;
        Some((map, part))
    });
    made.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a map could not be made");
        None
    })
}

/// What is told of a torrent from now on; `None` if it is not catalogued.
fn listen(
    service: &Arc<Service>,
    info_hash: InfoHash,
) -> Option<(broadcast::Receiver<News>, Arc<Latest>)> {
    let mut torrents = service.feeds.torrents.lock();
    if let Some((sender, latest)) = torrents.get(&info_hash) {
        return Some((sender.subscribe(), Arc::clone(latest)));
    }
    let now = service.clock.now();
    if !service.with_registry(info_hash, |registry| registry.watch(now, info_hash)) {
        return None;
    }
    let (sender, receiver) = broadcast::channel(NEWS_KEPT);
    let latest = Arc::<Latest>::default();
    torrents.insert(info_hash, (sender.clone(), Arc::clone(&latest)));
    tokio::spawn(feed_torrent(Arc::clone(service), info_hash, sender, Arc::clone(&latest)));
    Some((receiver, latest))
}

/// Looks at what has changed in a torrent, for all who listen to it, until nobody does.
async fn feed_torrent(
    service: Arc<Service>,
    info_hash: InfoHash,
    sender: broadcast::Sender<News>,
    latest: Arc<Latest>,
) {
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
        let take = |registry: &mut piecework_registry::Registry| {
            registry.take_swarm_changes(now, info_hash)
        };
        let Some(found) = service.with_registry(info_hash, take) else {
            // It is no longer catalogued. Without senders all streams of it end.
            service.feeds.torrents.lock().remove(&info_hash);
            return;
        };
        latest.turn();
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
    teller: &Teller,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Left> {
    let mut heard = listen_to_catalogue(service);
    let mut requests = with_requests
        .then(|| Requests { heard: service.log.listen(), held_back: service.log.held_back() });
    let mut beat = heartbeat();
    let listed: Vec<_> =
        service.catalogue.all().into_iter().filter(|entry| !entry.unlisted).collect();
    for some in listed.chunks(TORRENTS_AT_A_TIME) {
        let mut out = String::new();
        for entry in some {
            event("torrent", &service.listed(entry), &mut out);
        }
        teller.tell(out).await?;
    }
    drop(listed);
    teller.tell(READY).await?;
    let mut turn = interval(REQUESTS_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            news = heard.recv() => match news {
                Ok(News::Events(events)) => teller.tell(events).await?,
                // Who has missed something must be told all anew, and forget what it knew: it
                // does both when it connects again.
                Ok(News::Anew) | Err(_) => return Ok(()),
            },
            _ = turn.tick(), if requests.is_some() => {
                if let Some(requests) = &mut requests {
                    teller.tell(take_requests(service, requests)).await?;
                }
            }
            _ = beat.tick() => teller.tell(BEAT).await?,
            _ = stop.changed() => return Ok(()),
            () = teller.left() => return Ok(()),
        }
    }
}

/// What one listener hears of the requests.
struct Requests {
    heard: broadcast::Receiver<Arc<RequestRecord>>,
    /// How many the log had held back when they were counted last.
    held_back: u64,
}

/// What has been asked since the last call, as events.
fn take_requests(service: &Service, requests: &mut Requests) -> String {
    let mut out = String::new();
    let held_back = service.log.held_back();
    let mut dropped = held_back - requests.held_back;
    requests.held_back = held_back;
    for _ in 0..REQUESTS_AT_A_TIME {
        match requests.heard.try_recv() {
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

/// What stands before a map's JSON.
const MAP: &str = "event: map\ndata: ";

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
    use std::cell::Cell;

    use super::*;

    /// A map that is made whenever `go` says so; counts how often one was begun.
    async fn make(begun: &Cell<u32>, go: &tokio::sync::Semaphore) -> Whole {
        begun.set(begun.get() + 1);
        go.acquire().await.unwrap().forget();
        Some(format!("map {}", begun.get()).into())
    }

    #[tokio::test]
    async fn a_map_is_made_once_for_all_who_need_it_and_never_too_old() {
        let (latest, begun) = (Latest::default(), Cell::new(0));
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
