//! HTTP requests to catalogues. Announces are made by [`get`](super::get).

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Method, RequestBuilder, Response, header, redirect};
use tokio::net::lookup_host;
use url::{Host, Url};

use super::reached::{Outside, check};
use super::transport::{HttpError, TransportError};
use super::{ClientOptions, tls};
use piecework_core::{Scope, scope_of};
use piecework_proto::announce::{Provenance, Reach, Retry};

/// Why a request failed before its answer had a meaning.
#[derive(Debug)]
pub(super) enum Fault {
    Setup(HttpError),
    Timeout,
    Transport(TransportError),
    /// The request would go, or was redirected, where it may not go.
    Outside(Outside),
    TooLarge {
        limit: usize,
    },
}

/// Sends requests to no other addresses than they may go to. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub(super) struct Http {
    clients: Arc<Clients>,
    /// Time for a whole answer.
    total: Duration,
}

/// The HTTP clients of one set of options.
///
/// Each reach has a client of its own, whose resolver gives no address outside it. So the address
/// that was checked is the one that is connected to, and a connection that is kept open serves only
/// requests that may go there.
#[derive(Debug)]
struct Clients {
    options: ClientOptions,
    interface: Option<Box<str>>,
    by_reach: Mutex<BTreeMap<Reach, Client>>,
}

impl Http {
    /// Returns clients that give a whole answer the time `total`, and each part of it the options'
    /// timeout. They use the network interface of that name alone, and most often go to `reach`.
    pub(super) fn new(
        options: ClientOptions,
        total: Duration,
        interface: Option<&str>,
        reach: Reach,
    ) -> Result<Self, Fault> {
        let interface = interface.map(Box::from);
        let clients = Clients { options, interface, by_reach: Mutex::default() };
        // Find out at once whether HTTP can be set up at all.
        clients.of(reach)?;
        Ok(Self { clients: Arc::new(clients), total })
    }

    /// Returns the same clients and connections, with `total` for a whole answer.
    pub(super) fn with_total(&self, total: Duration) -> Self {
        Self { clients: Arc::clone(&self.clients), total }
    }

    /// Returns the options that all of these clients have.
    pub(super) fn options(&self) -> ClientOptions {
        self.clients.options
    }

    /// Returns the answer to a `GET` of `url`, which may go to `reach`. Follows a few redirects, as
    /// far as they may lead.
    pub(super) async fn get(
        &self,
        url: Url,
        provenance: Provenance,
        reach: Reach,
    ) -> Result<Response, Fault> {
        let answer = async {
            let (mut url, mut reach) = (url, reach);
            for _ in 0..=MAX_REDIRECTS {
                let response = self.begin(Method::GET, url.clone(), reach)?.send().await?;
                let location = response.headers().get(header::LOCATION);
                // What cannot be shown is not a web address.
                let location = location.map(|target| target.to_str().unwrap_or("//"));
                let next = redirected(&url, response.status().as_u16(), location)?;
                let Some(next) = next else { return Ok(response) };
                // It came over a connection, so it has an address. Without one, take it for the
                // internet's.
                let from = response.remote_addr().map_or(Scope::Global, |addr| scope_of(addr.ip()));
                (url, reach) = (next, Reach::of_redirect(provenance, from));
            }
            Err(TransportError::TooManyRedirects { limit: MAX_REDIRECTS }.into())
        };
        tokio::time::timeout(self.total, answer).await.unwrap_or(Err(Fault::Timeout))
    }

    /// Returns a request that may go to `reach`. Redirects are not followed.
    pub(super) fn begin(
        &self,
        method: Method,
        url: Url,
        reach: Reach,
    ) -> Result<RequestBuilder, Fault> {
        // A literal address is not resolved.
        let ip = match url.host() {
            Some(Host::Ipv4(ip)) => Some(ip.into()),
            Some(Host::Ipv6(ip)) => Some(ip.into()),
            Some(Host::Domain(name)) => name.parse().ok(),
            None => None,
        };
        if let Some(ip) = ip {
            check(url.host_str().unwrap_or(""), &[SocketAddr::new(ip, 0)], reach)
                .map_err(Fault::Outside)?;
        }
        Ok(self.clients.of(reach)?.request(method, url).timeout(self.total))
    }
}

impl Clients {
    fn of(&self, reach: Reach) -> Result<Client, Fault> {
        let mut clients = self.by_reach.lock();
        if let Some(client) = clients.get(&reach) {
            return Ok(client.clone());
        }
        let client = self.build(reach)?;
        clients.insert(reach, client.clone());
        Ok(client)
    }

    fn build(&self, reach: Reach) -> Result<Client, Fault> {
        let builder = Client::builder();
        let builder = match &self.interface {
            Some(interface) => builder.interface(interface),
            None => builder,
        };
        builder
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .dns_resolver(Arc::new(Checked { reach }))
            .connect_timeout(self.options.connect_timeout)
            .read_timeout(self.options.timeout)
            .local_address(self.options.local_ip)
            .pool_idle_timeout(IDLE_CONNECTION)
            .referer(false)
            .no_proxy()
            .tls_backend_preconfigured(tls::settings())
            .build()
            .map_err(|fault| Fault::Setup(HttpError::new(fault)))
    }
}

/// Resolves names to addresses within a reach. A name with one address outside is refused: it may
/// be meant to be resolved again until that address is chosen.
struct Checked {
    reach: Reach,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.reach;
        Box::pin(async move {
            // The port is the request's, whatever is given here.
            let addrs: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            check(name.as_str(), &addrs, reach)?;
            Ok(Box::new(addrs.into_iter()) as Addrs)
        })
    }
}

/// Returns where an answer with this `status` to a request for `url` redirects.
pub(super) fn redirected(
    url: &Url,
    status: u16,
    location: Option<&str>,
) -> Result<Option<Url>, Fault> {
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(target) = location else { return Ok(None) };
    match url.join(target) {
        Ok(next) if matches!(next.scheme(), "http" | "https") => Ok(Some(next)),
        _ => Err(TransportError::BadRedirect.into()),
    }
}

/// Returns the body of `response`. Never holds more than `limit` bytes of it.
pub(super) async fn read_bounded(mut response: Response, limit: usize) -> Result<Vec<u8>, Fault> {
    if response.content_length().is_some_and(|len| len > limit as u64) {
        return Err(Fault::TooLarge { limit });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if chunk.len() > limit - body.len() {
            return Err(Fault::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Parses `text`, the value of `Retry-After`: seconds or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(text: &str) -> Option<Retry> {
    let pause = match text.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text.trim()).ok()?;
            // A date that has passed asks for no pause.
            date.duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    (!pause.is_zero()).then_some(Retry::After(pause))
}

impl From<TransportError> for Fault {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl From<reqwest::Error> for Fault {
    fn from(fault: reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = fault.source();
        while let Some(next) = cause {
            if let Some(outside) = next.downcast_ref::<Outside>() {
                return Self::Outside(outside.clone());
            }
            cause = next.source();
        }
        if fault.is_timeout() {
            Self::Timeout
        } else {
            Self::Transport(HttpError::new(fault).into())
        }
    }
}

pub(super) const USER_AGENT: &str = concat!("Piecework/", env!("CARGO_PKG_VERSION"));

/// Trackers that moved redirect once, perhaps twice.
pub(super) const MAX_REDIRECTS: usize = 3;

/// Announces are minutes apart: connections are kept for the few that follow at once.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);
