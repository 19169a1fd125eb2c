//! Layer 3: carries the wishes of an announcer to trackers over HTTP and UDP, and talks to our
//! catalogue.

mod catalogue;
mod error;
mod fetch;
mod http;
mod listing;
mod reached;
mod tls;
mod udp;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use crate::announce::http::{
    HttpReply, HttpScrapeReply, MAX_BODY_LEN, decode_reply, decode_scrape_reply, encode_query,
    encode_scrape_query,
};
use crate::announce::udp::MAX_SCRAPE_HASHES;
use crate::announce::{
    Announce, AnnounceReply, CatalogueUrl, Reach, Refusal, Scheme, Scrape, ScrapeReply, TrackerUrl,
};
use crate::base::InfoHash;

pub use catalogue::{Catalogue, CatalogueError, Holdings};
pub use error::TrackerError;
pub use fetch::{FetchError, fetch};
pub use listing::Listing;
pub use reached::Outside;

use udp::UdpTrackers;

/// Asks trackers. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct TrackerClient {
    http: http::Http,
    udp: Arc<UdpTrackers>,
    timeout: Duration,
}

/// How long to wait, and from where to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientOptions {
    /// Time for one question in all.
    pub timeout: Duration,
    /// Time for a connection to be made.
    pub connect_timeout: Duration,
    /// Pause after which a datagram is sent again; it doubles each time. BEP 15 says 15 s, which
    /// is right for a tracker with millions of clients and wrong for people who wait.
    pub first_retry: Duration,
    /// The address to ask from, where the host has several.
    pub local_ip: Option<IpAddr>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            first_retry: Duration::from_secs(1),
            local_ip: None,
        }
    }
}

impl TrackerClient {
    /// A client. Sockets are opened when they are first needed, inside a tokio runtime.
    ///
    /// # Errors
    /// If HTTP cannot be set up.
    pub fn new(options: ClientOptions) -> Result<Self, TrackerError> {
        Self::over(options, None)
    }

    /// The same, all its sockets bound to the network interface of that name.
    ///
    /// # Errors
    /// If HTTP cannot be set up.
    pub fn over(options: ClientOptions, interface: Option<&str>) -> Result<Self, TrackerError> {
        Ok(Self {
            http: http::Http::new(options, options.timeout, interface, Reach::ALL)?,
            udp: Arc::new(UdpTrackers::new(options, interface.map(str::to_owned))),
            timeout: options.timeout,
        })
    }

    /// Returns the catalogue at `url`, asked over this client's connections.
    ///
    /// # Errors
    /// If `url` is no address.
    pub fn catalogue(&self, url: &CatalogueUrl) -> Result<Catalogue, CatalogueError> {
        Catalogue::over(&self.http, url.provenance, &url.base)
    }

    /// Announces.
    ///
    /// # Errors
    /// If the tracker is not there, answers nothing that makes sense, or refuses.
    pub async fn announce(
        &self,
        tracker: &TrackerUrl,
        announce: &Announce,
    ) -> Result<AnnounceReply, TrackerError> {
        self.in_time(async {
            match tracker.scheme() {
                Scheme::Udp => self.udp.announce(tracker, announce).await,
                Scheme::Http | Scheme::Https => {
                    let url = tracker.with_query(&encode_query(announce));
                    let (ok, body) = self.get(&url, tracker).await?;
                    match (decode_reply(&body), ok) {
                        // Trackers refuse with all kinds of status codes.
                        (Ok(HttpReply::Failure(mut refusal)), ok) => {
                            // What the body says is about announces, the header about any request.
                            refusal.retry = refusal.retry.or(ok.err().and_then(|e| e.retry()));
                            Err(TrackerError::Refused(refusal))
                        }
                        (Ok(HttpReply::Reply(reply)), Ok(())) => Ok(reply),
                        (_, Err(fault)) => Err(fault),
                        (Err(fault), Ok(())) => Err(fault.into()),
                    }
                }
            }
        })
        .await
    }

    /// Asks for the counts of these torrents, in as many questions as that takes; the client's
    /// time-out is for all of them.
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
            let mut all = ScrapeReply::default();
            for hashes in hashes.chunks(MAX_SCRAPE_HASHES) {
                let scrape = Scrape { hashes: hashes.to_vec() };
                let reply = match target.scheme() {
                    Scheme::Udp => self.udp.scrape(&target, &scrape).await?,
                    Scheme::Http | Scheme::Https => self.scrape_http(&target, &scrape).await?,
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
        scrape: &Scrape,
    ) -> Result<ScrapeReply, TrackerError> {
        let url = target.with_query(&encode_scrape_query(scrape));
        let (ok, body) = self.get(&url, target).await?;
        match (decode_scrape_reply(&body), ok) {
            (Ok(HttpScrapeReply::Failure(reason)), _) => {
                Err(TrackerError::Refused(Refusal { reason, retry: None }))
            }
            (Ok(HttpScrapeReply::Reply(reply)), Ok(())) => Ok(reply),
            (_, Err(fault)) => Err(fault),
            (Err(fault), Ok(())) => Err(fault.into()),
        }
    }

    /// The body at `url`, an address of `tracker`, and whether its status is one of success.
    async fn get(
        &self,
        url: &str,
        tracker: &TrackerUrl,
    ) -> Result<(Result<(), TrackerError>, Vec<u8>), TrackerError> {
        let url = url.parse().map_err(|fault: url::ParseError| {
            TrackerError::Unreachable(format!("its address with the question is none: {fault}"))
        })?;
        let response = self.http.get(url, tracker.provenance(), tracker.reach()).await?;
        let status = response.status();
        let retry = http::retry_after(&response);
        let body = http::read_bounded(response, MAX_BODY_LEN).await?;
        let status = if status.is_success() {
            Ok(())
        } else {
            Err(TrackerError::Status { status: status.as_u16(), retry })
        };
        Ok((status, body))
    }

    async fn in_time<T>(
        &self,
        question: impl Future<Output = Result<T, TrackerError>>,
    ) -> Result<T, TrackerError> {
        match time::timeout(self.timeout, question).await {
            Ok(answer) => answer,
            Err(_) => Err(TrackerError::Timeout),
        }
    }
}

#[cfg(test)]
mod tests;
