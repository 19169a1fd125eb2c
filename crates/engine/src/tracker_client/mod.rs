//! Announces to trackers over HTTP and UDP, and talks to the catalogues of Piecework trackers.

mod catalogue;
mod error;
mod fetch;
mod get;
mod http;
mod listing;
mod named;
mod options;
#[cfg(test)]
mod packed;
mod reached;
mod resolve;
mod tls;
mod transport;
mod udp;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use piecework_core::{InfoHash, Moment};
use piecework_proto::announce::http::{
    HttpReply, HttpScrapeReply, MAX_BODY_LEN, decode_reply, decode_scrape_reply, encode_query,
    encode_scrape_query,
};
use piecework_proto::announce::udp::{Family, MAX_SCRAPE_HASHES};
use piecework_proto::announce::{
    Announce, AnnounceEvent, AnnounceReply, CatalogueUrl, PeerName, Reach, Refusal, Scheme, Scrape,
    ScrapeReply, TrackerUrl,
};
use piecework_swarm::announcer::{Families, merged_reply};

#[cfg(feature = "fuzzing")]
pub(crate) use get::fuzzing;

pub use catalogue::{Catalogue, Holdings};
pub use error::{AddressError, CatalogueAnswerError, CatalogueError, TrackerError};
pub use fetch::{FetchError, FetchFailure, fetch};
pub use get::{EncodingError, ResponseError};
pub use listing::Listing;
pub use named::{
    LookupError, NamedTracker, REGISTER_AGAIN, TrackerNameError, catalogue_of, tier_texts,
};
pub use options::{ClientOptions, ReachableOver};
pub use reached::Outside;
pub use resolve::{UnknownPeer, look_up_known_peers, look_up_peers};
pub use transport::{HttpError, TransportError};

use get::{Get, HttpAnswer, HttpGet};
use resolve::{MAX_PEER_ADDRESSES, Resolver};
use udp::UdpTrackers;

/// A client of trackers. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct TrackerClient {
    /// For catalogues.
    http: http::Http,
    get: HttpGet,
    udp: Arc<UdpTrackers>,
    resolver: Resolver,
    families: Arc<Mutex<Families>>,
    options: ClientOptions,
    /// When [`Moment`]s begin.
    start: Instant,
}

/// An announce over one family of addresses, and its outcome.
type Asking = Pin<Box<dyn Future<Output = (Family, Result<AnnounceReply, TrackerError>)> + Send>>;

impl TrackerClient {
    /// Returns a client. Sockets are opened when they are first needed, inside a tokio runtime.
    ///
    /// # Errors
    /// If HTTP cannot be set up.
    pub fn new(options: ClientOptions) -> Result<Self, TrackerError> {
        Self::over(options, None)
    }

    /// Returns a client whose sockets are all bound to the network interface of that name.
    ///
    /// # Errors
    /// If HTTP cannot be set up.
    pub fn over(options: ClientOptions, interface: Option<&str>) -> Result<Self, TrackerError> {
        Ok(Self::with_resolver(
            options,
            interface,
            http::Http::new(options, options.timeout, interface, Reach::ALL)?,
            Resolver::default(),
        ))
    }

    fn with_resolver(
        options: ClientOptions,
        interface: Option<&str>,
        http: http::Http,
        resolver: Resolver,
    ) -> Self {
        Self {
            http,
            get: HttpGet::new(options, interface, resolver.clone()),
            udp: Arc::new(UdpTrackers::new(options, interface.map(str::to_owned))),
            resolver,
            families: Arc::default(),
            options,
            start: Instant::now(),
        }
    }

    /// Returns the catalogue at `url`, asked over this client's connections.
    ///
    /// # Errors
    /// If `url` is not an address.
    pub fn catalogue(&self, url: &CatalogueUrl) -> Result<Catalogue, CatalogueError> {
        Catalogue::over(&self.http, url.provenance, &url.base)
    }

    /// Announces like [`TrackerClient::announce_and_tell`], without waiting for a later answer.
    ///
    /// # Errors
    /// If the tracker cannot be reached, gives no valid answer, or refuses.
    pub async fn announce(
        &self,
        tracker: &TrackerUrl,
        announce: &Announce,
    ) -> Result<AnnounceReply, TrackerError> {
        self.announce_and_tell(tracker, announce, |_| {}).await
    }

    /// Announces over both families of addresses if the tracker has both and peers reach us over
    /// both (BEP 7). Returns the first answer, together with the other one if that follows at once.
    /// Otherwise `later` is called with the other one when it comes.
    ///
    /// # Errors
    /// If the tracker cannot be reached, gives no valid answer, or refuses, over every family.
    pub async fn announce_and_tell(
        &self,
        tracker: &TrackerUrl,
        announce: &Announce,
        later: impl FnOnce(AnnounceReply) + Send + 'static,
    ) -> Result<AnnounceReply, TrackerError> {
        let addrs = self.in_time(self.addresses(tracker)).await?;
        let mut asking = self.over_families(tracker, announce, addrs).into_iter();
        let Some(mut one) = asking.next() else {
            return Err(TrackerError::Unreachable(TransportError::NoAddress));
        };
        let Some(mut other) = asking.next() else { return one.await.1 };
        let (first, mut rest) = tokio::select! {
            first = &mut one => (first, other),
            first = &mut other => (first, one),
        };
        // A session that ends has no time for a later answer.
        let patience = match (&first.1, announce.event) {
            (Err(_), _) | (Ok(_), AnnounceEvent::Stopped) => self.options.timeout * 2,
            (Ok(_), _) => OTHER_FAMILY,
        };
        let second = match time::timeout(patience, &mut rest).await {
            Ok(second) => second,
            Err(_) => {
                let (client, tracker, worked) = (self.clone(), tracker.clone(), first.0);
                tokio::spawn(async move {
                    let (family, outcome) = rest.await;
                    client.note_families(&tracker, &[(worked, true), (family, outcome.is_ok())]);
                    if let Ok(reply) = outcome {
                        later(reply);
                    }
                });
                return first.1;
            }
        };
        self.note_families(tracker, &[(first.0, first.1.is_ok()), (second.0, second.1.is_ok())]);
        match (first.1, second.1) {
            (Ok(first), Ok(second)) => Ok(merged_reply(first, second)),
            (Ok(reply), Err(_)) | (Err(_), Ok(reply)) => Ok(reply),
            // A refusal says more than a failure to reach the tracker.
            (Err(first), Err(second)) => {
                Err(if second.is_refusal() && !first.is_refusal() { second } else { first })
            }
        }
    }

    /// Returns one announce for each family to announce over.
    fn over_families(
        &self,
        tracker: &TrackerUrl,
        announce: &Announce,
        addrs: Vec<SocketAddr>,
    ) -> Vec<Asking> {
        let mut there: Vec<Family> = Vec::new();
        for family in addrs.iter().map(|addr| Family::of(addr.ip())) {
            if !there.contains(&family) {
                there.push(family);
            }
        }
        let (host, now) = (tracker.host(), Moment::from_start(self.start.elapsed()));
        let ours = self.options.reachable_over.families();
        let place = (host.as_str(), tracker.port());
        let chosen = self.families.lock().chosen(now, place, &there, ours);
        let asking = chosen.into_iter().map(|family| -> Asking {
            let (client, tracker, announce) = (self.clone(), tracker.clone(), announce.clone());
            let mut addrs = addrs.clone();
            addrs.retain(|addr| Family::of(addr.ip()) == family);
            Box::pin(async move {
                let answer = client.announce_at(&tracker, addrs, &announce);
                (family, client.in_time(answer).await)
            })
        });
        asking.collect()
    }

    /// Remembers which families worked. A tracker that does not answer at all says nothing about
    /// families.
    fn note_families(&self, tracker: &TrackerUrl, outcomes: &[(Family, bool)]) {
        if outcomes.iter().any(|(_, worked)| *worked) {
            let (host, now) = (tracker.host(), Moment::from_start(self.start.elapsed()));
            let mut families = self.families.lock();
            for (family, worked) in outcomes {
                families.done(now, (&host, tracker.port()), *family, *worked);
            }
        }
    }

    /// Announces to the tracker at these of its addresses, all of one family.
    async fn announce_at(
        &self,
        tracker: &TrackerUrl,
        addrs: Vec<SocketAddr>,
        announce: &Announce,
    ) -> Result<AnnounceReply, TrackerError> {
        if tracker.scheme() == Scheme::Udp {
            return self.udp.announce(tracker, &addrs, announce).await;
        }
        let url = tracker.with_query(&encode_query(announce));
        let answer = self.got(&url, tracker, addrs).await?;
        let status = status(&answer);
        match (decode_reply(&answer.body), status) {
            // Trackers refuse with all kinds of status codes.
            (Ok(HttpReply::Failure(mut refusal)), status) => {
                // The body is about announces, the header about any request.
                refusal.retry = refusal.retry.or(status.err().and_then(|e| e.retry()));
                Err(TrackerError::Refused(refusal))
            }
            (Ok(HttpReply::Reply(mut reply)), Ok(())) => {
                let named = std::mem::take(&mut reply.named);
                reply.peers.extend(self.look_up(named).await);
                Ok(reply)
            }
            (_, Err(fault)) => Err(fault),
            (Err(_), Ok(())) if !answer.is_whole => Err(broken_off()),
            (Err(fault), Ok(())) => Err(fault.into()),
        }
    }

    /// Returns the addresses of these peers, as far as they are found soon.
    async fn look_up(&self, names: Vec<PeerName>) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        let mut under_way = JoinSet::new();
        for PeerName { host, port } in names {
            let resolver = self.resolver.clone();
            under_way.spawn(async move { resolver.addresses(&host, port).await });
        }
        let looking = async {
            while let Some(done) = under_way.join_next().await {
                // A peer whose name is not known is left out.
                if let Ok(Ok(addrs)) = done {
                    found.extend(addrs.into_iter().take(MAX_PEER_ADDRESSES));
                }
            }
        };
        // Peers that are not found by then are left out.
        let _ = time::timeout(LOOK_UP, looking).await;
        found
    }

    /// Returns the addresses of a tracker, all within its reach.
    async fn addresses(&self, tracker: &TrackerUrl) -> Result<Vec<SocketAddr>, TrackerError> {
        let host = tracker.host();
        let found = self.resolver.addresses(&host, tracker.port()).await;
        let addrs = found.map_err(|fault| TrackerError::Unknown { host: host.clone(), fault })?;
        // A name with one address outside is refused: it may be meant to be resolved again until
        // that address is chosen.
        reached::check(&host, &addrs, tracker.reach())?;
        Ok(addrs)
    }

    /// Asks for the counts of these torrents, in as many requests as that takes. The client's
    /// timeout applies to all of them together.
    ///
    /// # Errors
    /// As [`TrackerClient::announce`], and if the tracker's address has no form for scrapes.
    pub async fn scrape(
        &self,
        tracker: &TrackerUrl,
        hashes: &[InfoHash],
    ) -> Result<ScrapeReply, TrackerError> {
        let target = tracker.scrape().ok_or(TrackerError::NoScrape)?;
        self.in_time(async {
            let addrs = self.addresses(&target).await?;
            let mut all = ScrapeReply::default();
            for hashes in hashes.chunks(MAX_SCRAPE_HASHES) {
                let scrape = Scrape { hashes: hashes.to_vec() };
                let reply = match target.scheme() {
                    Scheme::Udp => self.udp.scrape(&addrs, &scrape).await?,
                    Scheme::Http | Scheme::Https => {
                        self.scrape_http(&target, addrs.clone(), &scrape).await?
                    }
                };
                all.entries.extend(reply.entries);
            }
            Ok(all)
        })
        .await
    }

    async fn scrape_http(
        &self,
        target: &TrackerUrl,
        addrs: Vec<SocketAddr>,
        scrape: &Scrape,
    ) -> Result<ScrapeReply, TrackerError> {
        let url = target.with_query(&encode_scrape_query(scrape));
        let answer = self.got(&url, target, addrs).await?;
        match (decode_scrape_reply(&answer.body), status(&answer)) {
            (Ok(HttpScrapeReply::Failure(reason)), _) => {
                Err(TrackerError::Refused(Refusal { reason, retry: None }))
            }
            (Ok(HttpScrapeReply::Reply(reply)), Ok(())) => Ok(reply),
            (_, Err(fault)) => Err(fault),
            (Err(_), Ok(())) if !answer.is_whole => Err(broken_off()),
            (Err(fault), Ok(())) => Err(fault.into()),
        }
    }

    /// Returns the answer at `url`, an address of `tracker`, which is found at `addrs`.
    async fn got(
        &self,
        url: &str,
        tracker: &TrackerUrl,
        addrs: Vec<SocketAddr>,
    ) -> Result<HttpAnswer, TrackerError> {
        let url = url
            .parse()
            .map_err(|fault: url::ParseError| TrackerError::Unreachable(fault.into()))?;
        let (provenance, reach) = (tracker.provenance(), tracker.reach());
        let get = Get { url, provenance, reach, addrs: Some(addrs), limit: MAX_BODY_LEN };
        Ok(self.get.get(get).await?.answer)
    }

    async fn in_time<T>(
        &self,
        question: impl Future<Output = Result<T, TrackerError>>,
    ) -> Result<T, TrackerError> {
        match time::timeout(self.options.timeout, question).await {
            Ok(answer) => answer,
            Err(_) => Err(TrackerError::Timeout),
        }
    }
}

/// Fails unless the answer is a success.
fn status(answer: &HttpAnswer) -> Result<(), TrackerError> {
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    let retry = answer.header("retry-after").and_then(http::retry_after);
    Err(TrackerError::Status { status: answer.status, retry })
}

fn broken_off() -> TrackerError {
    TrackerError::Unreachable(TransportError::BrokenOff)
}

/// Time that an answer waits for the one over the other family, so that they can be merged.
const OTHER_FAMILY: Duration = Duration::from_millis(300);

/// Time to look up peers that a tracker gives by name.
const LOOK_UP: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
