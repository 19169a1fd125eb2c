//! The catalogue of a Piecework tracker: `.torrent` files by name, and who holds which pieces.

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use super::error::{AddressError, CatalogueAnswerError, CatalogueError};
use super::{ClientOptions, Listing, http};
use piecework_core::{AnnounceKey, InfoHash, PeerId, Scope, scope_of};
use piecework_proto::announce::catalogue::{
    BatchAnswer, BatchOutcome, CatalogueEntry, CatalogueFault, CatalogueList, HoldingsBatch,
    HoldingsReport, MAX_TORRENT_LEN, RegisterOptions, Registered,
};
use piecework_proto::announce::{CatalogueUrl, Provenance, Reach};

/// The catalogue at one address. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Catalogue {
    http: http::Http,
    base: Url,
    provenance: Provenance,
    /// Where requests may go.
    reach: Reach,
}

/// Which pieces a peer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holdings<'a> {
    /// The peer.
    pub peer_id: PeerId,
    /// The port it announces.
    pub port: u16,
    /// The key it announces.
    pub key: AnnounceKey,
    /// One bit a piece, as on the wire (BEP 3).
    pub bitfield: &'a [u8],
}

impl Catalogue {
    /// Returns the catalogue at `http://host:port`, named by the user.
    ///
    /// # Errors
    /// If that is not an address.
    pub fn new(base_url: &str) -> Result<Self, CatalogueError> {
        Self::with_options(base_url, ClientOptions::default())
    }

    /// Returns the catalogue at an address that somebody named.
    ///
    /// # Errors
    /// If that is not an address.
    pub fn at(url: &CatalogueUrl) -> Result<Self, CatalogueError> {
        Self::named_by(url.provenance, &url.base, ClientOptions::default())
    }

    /// Returns the same as [`Catalogue::new`]. An answer may pause for as long as the options'
    /// timeout, and take forty times as long in all.
    ///
    /// # Errors
    /// If `base_url` is not an address.
    pub fn with_options(base_url: &str, options: ClientOptions) -> Result<Self, CatalogueError> {
        Self::named_by(Provenance::Named, base_url, options)
    }

    /// Returns the same as [`Catalogue::with_options`], at an address that was named by
    /// `provenance`.
    ///
    /// # Errors
    /// If `base_url` is not an address.
    pub fn named_by(
        provenance: Provenance,
        base_url: &str,
        options: ClientOptions,
    ) -> Result<Self, CatalogueError> {
        let base = parse(base_url)?;
        let reach = Reach::of(provenance, &base);
        let http = http::Http::new(options, options.timeout, None, reach);
        let http = http.map_err(|fault| match fault {
            http::Fault::Setup(fault) => CatalogueError::Address {
                address: base_url.to_owned(),
                fault: AddressError::Setup(fault),
            },
            fault => CatalogueError::of(fault, base_url),
        })?;
        Ok(Self::by(&http, provenance, base))
    }

    /// Returns the same as [`Catalogue::named_by`], with the clients of `http`.
    ///
    /// # Errors
    /// If `base_url` is not an address.
    pub(super) fn over(
        http: &http::Http,
        provenance: Provenance,
        base_url: &str,
    ) -> Result<Self, CatalogueError> {
        Ok(Self::by(http, provenance, parse(base_url)?))
    }

    fn by(http: &http::Http, provenance: Provenance, base: Url) -> Self {
        let http = http.with_total(http.options().timeout.saturating_mul(LONG_ANSWERS));
        let reach = Reach::of(provenance, &base);
        Self { http, base, provenance, reach }
    }

    /// Registers the `.torrent` in these bytes. Registering it again is not an error.
    ///
    /// # Errors
    /// If the tracker cannot be reached or refuses.
    pub async fn register(
        &self,
        torrent: &[u8],
        options: RegisterOptions,
    ) -> Result<Registered, CatalogueError> {
        let url = self.address_of("torrents", &options.encode_query());
        let request = self.begin(Method::POST, url)?.body(torrent.to_vec());
        let response = self.sent(request).await?;
        self.json(response, MAX_SMALL_ANSWER).await
    }

    /// Returns the listed torrents; with `name`, those of that name.
    ///
    /// # Errors
    /// If the tracker cannot be reached or refuses.
    pub async fn list(&self, name: Option<&str>) -> Result<Vec<CatalogueEntry>, CatalogueError> {
        let response = self.got(self.address_of_list(name)).await?;
        Ok(self.json::<CatalogueList>(response, MAX_LIST).await?.torrents)
    }

    /// Returns the same one by one, so that a long list is never whole in memory.
    ///
    /// # Errors
    /// If the tracker cannot be reached or refuses.
    pub async fn listing(&self, name: Option<&str>) -> Result<Listing, CatalogueError> {
        let response = self.got(self.address_of_list(name)).await?;
        Ok(Listing::new(self.base.to_string(), response))
    }

    fn address_of_list(&self, name: Option<&str>) -> Url {
        let mut url = self.address_of("torrents", "");
        if let Some(name) = name {
            url.query_pairs_mut().append_pair("name", name);
        }
        url
    }

    /// Returns the `.torrent` of `info_hash`. The caller has to parse it to check whether it really
    /// is that torrent's.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`] if the tracker has none; or if it cannot be reached or refuses.
    pub async fn fetch(&self, info_hash: InfoHash) -> Result<Vec<u8>, CatalogueError> {
        self.fetch_from(info_hash).await.map(|(torrent, _)| torrent)
    }

    /// Returns the same, and the scope of the address it came from.
    ///
    /// # Errors
    /// As [`Catalogue::fetch`].
    pub async fn fetch_from(
        &self,
        info_hash: InfoHash,
    ) -> Result<(Vec<u8>, Scope), CatalogueError> {
        let url = self.address_of(&format!("torrents/{info_hash}"), "");
        let response = self.got(url).await.map_err(missing(info_hash))?;
        let from = response.remote_addr().map_or(Scope::Global, |addr| scope_of(addr.ip()));
        Ok((self.body(response, MAX_TORRENT_LEN).await?, from))
    }

    /// Removes a torrent, with the token that registering returned.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`] if the tracker has no such torrent; or if it cannot be reached
    /// or refuses.
    pub async fn remove(&self, info_hash: InfoHash, token: &str) -> Result<(), CatalogueError> {
        let url = self.address_of(&format!("torrents/{info_hash}"), "");
        let request = self.begin(Method::DELETE, url)?.bearer_auth(token);
        self.sent(request).await.map_err(missing(info_hash))?;
        Ok(())
    }

    /// Tells the tracker which pieces we hold.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`] if the tracker has no such torrent; or if it cannot be reached
    /// or refuses.
    pub async fn report_holdings(
        &self,
        info_hash: InfoHash,
        holdings: Holdings<'_>,
    ) -> Result<(), CatalogueError> {
        let Holdings { peer_id, port, key, bitfield } = holdings;
        let report = HoldingsReport { peer_id, port, key };
        let url =
            self.address_of(&format!("torrents/{info_hash}/holdings"), &report.encode_query());
        let request = self.begin(Method::POST, url)?.body(bitfield.to_vec());
        self.sent(request).await.map_err(missing(info_hash))?;
        Ok(())
    }

    /// Tells the tracker which pieces we hold of several torrents. Returns the result of each
    /// report, in their order; `None` if the tracker takes only single ones.
    ///
    /// # Errors
    /// If the tracker cannot be reached, or refuses all.
    pub async fn report_batch(
        &self,
        peer_id: PeerId,
        port: u16,
        batch: &HoldingsBatch,
    ) -> Result<Option<Vec<BatchOutcome>>, CatalogueError> {
        let query = HoldingsReport::encode_batch_query(peer_id, port);
        let body =
            serde_json::to_vec(batch).map_err(|fault| CatalogueError::BadAnswer(fault.into()))?;
        let request = self
            .begin(Method::POST, self.address_of("holdings", &query))?
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let response = match self.sent(request).await {
            // Nothing is at this address, or nothing that takes a POST.
            Err(CatalogueError::Refused { status: 404 | 405 | 501, .. }) => return Ok(None),
            response => response?,
        };
        let outcomes = self.json::<BatchAnswer>(response, MAX_BATCH_ANSWER).await?.torrents;
        let asked = batch.torrents.iter().map(|report| report.info_hash);
        if !asked.eq(outcomes.iter().map(|outcome| outcome.info_hash)) {
            return Err(CatalogueError::BadAnswer(CatalogueAnswerError::OtherTorrents));
        }
        Ok(Some(outcomes))
    }

    /// Asks the tracker a question. Returns its JSON answer at `path` beneath its address, with
    /// this query.
    ///
    /// # Errors
    /// If the tracker cannot be reached or refuses.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, CatalogueError> {
        let mut url = self.address_of(path, "");
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let response = self.got(url).await?;
        self.json(response, MAX_LIST).await
    }

    /// Returns its address: `http://host:port/`.
    pub fn address(&self) -> &str {
        self.base.as_str()
    }

    /// Returns its host, IPv6 without brackets, and port.
    pub fn place(&self) -> (String, u16) {
        let host = match self.base.host() {
            Some(url::Host::Ipv6(ip)) => ip.to_string(),
            Some(host) => host.to_string(),
            None => String::new(),
        };
        (host, self.base.port_or_known_default().unwrap_or(0))
    }

    fn address_of(&self, path: &str, query: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        if !query.is_empty() {
            url.set_query(Some(query));
        }
        url
    }

    fn begin(&self, method: Method, url: Url) -> Result<reqwest::RequestBuilder, CatalogueError> {
        self.http.begin(method, url, self.reach).map_err(|fault| self.fault(fault))
    }

    /// Returns the answer at `url`, if it is a success.
    async fn got(&self, url: Url) -> Result<Response, CatalogueError> {
        let got = self.http.get(url, self.provenance, self.reach).await;
        self.successful(got.map_err(|fault| self.fault(fault))?).await
    }

    /// Returns the answer to `request`, if it is a success.
    async fn sent(&self, request: reqwest::RequestBuilder) -> Result<Response, CatalogueError> {
        let response = request.send().await.map_err(|fault| self.fault(fault.into()))?;
        self.successful(response).await
    }

    async fn successful(&self, response: Response) -> Result<Response, CatalogueError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response, MAX_SMALL_ANSWER).await?;
        let reason = match serde_json::from_slice::<CatalogueFault>(&body) {
            Ok(fault) => fault.error,
            Err(_) => String::from_utf8_lossy(&body).trim().chars().take(MAX_REASON).collect(),
        };
        Err(CatalogueError::Refused { status: status.as_u16(), reason })
    }

    async fn json<T: DeserializeOwned>(
        &self,
        response: Response,
        limit: usize,
    ) -> Result<T, CatalogueError> {
        let body = self.body(response, limit).await?;
        serde_json::from_slice(&body).map_err(|fault| CatalogueError::BadAnswer(fault.into()))
    }

    async fn body(&self, response: Response, limit: usize) -> Result<Vec<u8>, CatalogueError> {
        http::read_bounded(response, limit).await.map_err(|fault| self.fault(fault))
    }

    fn fault(&self, fault: http::Fault) -> CatalogueError {
        CatalogueError::of(fault, self.base.as_str())
    }
}

/// Returns the base address that others are joined to.
fn parse(base_url: &str) -> Result<Url, CatalogueError> {
    let bad = |fault| CatalogueError::Address { address: base_url.to_owned(), fault };
    let mut base = Url::parse(base_url).map_err(|fault| bad(fault.into()))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(bad(AddressError::Scheme));
    }
    // A base without a slash at its end would lose its last segment when joined.
    if !base.path().ends_with('/') {
        let path = format!("{}/", base.path());
        base.set_path(&path);
    }
    base.set_query(None);
    base.set_fragment(None);
    Ok(base)
}

/// A status of 404 on a torrent's own address means that there is no such torrent.
fn missing(info_hash: InfoHash) -> impl Fn(CatalogueError) -> CatalogueError {
    move |fault| match fault {
        CatalogueError::Refused { status, .. } if status == StatusCode::NOT_FOUND.as_u16() => {
            CatalogueError::NotFound(info_hash)
        }
        other => other,
    }
}

/// How much longer than its first byte a `.torrent` or list may take: 100 MiB in ten minutes are 175
/// KB/s.
const LONG_ANSWERS: u32 = 40;

/// Bytes of answers with a sentence, a name and a token.
const MAX_SMALL_ANSWER: usize = 64 * 1024;

/// Bytes of an answer to 500 reports, with a sentence of 200 bytes for each.
const MAX_BATCH_ANSWER: usize = 256 * 1024;

/// Bytes of a list of 20,000 torrents with long names, or of 100,000 with usual ones.
const MAX_LIST: usize = 32 * 1024 * 1024;

/// Characters kept of a reason that is not in our form.
const MAX_REASON: usize = 200;
