//! `GET` requests for announces and `.torrent` files, whose answers are read leniently.
//!
//! `hyper` refuses some of what trackers send and other clients take: chunks in an answer of
//! HTTP/1.0, folded fields, odd status lines. One such fault makes a tracker useless, so these
//! requests have a reader of their own ([`response`]). It is also what asks a server over one
//! family of addresses alone.

mod connection;
mod encoding;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod response;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use url::{Host, Position, Url};

use self::connection::{Connection, Destination, Dialer, Idle};
use self::encoding::decoded;
use self::response::Reading;
use super::ClientOptions;
use super::http::{Fault, MAX_REDIRECTS, USER_AGENT, redirected};
use super::reached::check;
use super::resolve::Resolver;
use super::transport::TransportError;
use piecework_core::{base64, scope_of};
use piecework_proto::announce::udp::Family;
use piecework_proto::announce::{Provenance, Reach};

pub use self::encoding::EncodingError;
pub(super) use self::response::HttpAnswer;
pub use self::response::ResponseError;

/// Sends `GET` requests to no other addresses than they may go to. Cheap to clone; clones share
/// connections.
#[derive(Clone)]
pub(super) struct HttpGet {
    dialer: Arc<Dialer>,
    resolver: Resolver,
    idle: Arc<Idle>,
    /// Time for a part of an answer to come.
    patience: Duration,
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Get {
    pub url: Url,
    /// Who named the address.
    pub provenance: Provenance,
    /// Where the request may go.
    pub reach: Reach,
    /// The addresses of the server if they are known, all of one family. A redirect is then
    /// followed over that family.
    pub addrs: Option<Vec<SocketAddr>>,
    /// Bytes of the answer at most, both before and after decoding.
    pub limit: usize,
}

/// An answer, and the address it came from.
#[derive(Debug)]
pub(super) struct Got {
    pub answer: HttpAnswer,
    /// The address of the server.
    pub remote: IpAddr,
}

impl HttpGet {
    pub(super) fn new(options: ClientOptions, interface: Option<&str>, resolver: Resolver) -> Self {
        let dialer = Dialer {
            timeout: options.connect_timeout,
            local_ip: options.local_ip,
            interface: interface.map(Box::from),
        };
        let (dialer, idle) = (Arc::new(dialer), Arc::default());
        Self { dialer, resolver, idle, patience: options.timeout }
    }

    /// Returns the decoded answer, which may have any status. Follows a few redirects, as far as
    /// they may lead. Takes as long as the server does.
    pub(super) async fn get(&self, get: Get) -> Result<Got, Fault> {
        let Get { mut url, provenance, mut reach, mut addrs, limit } = get;
        let family = addrs.iter().flatten().next().map(|addr| Family::of(addr.ip()));
        for _ in 0..=MAX_REDIRECTS {
            let destination = destination(&url, reach, family)?;
            let (answer, remote) = self.exchange(&url, destination, addrs.take(), limit).await?;
            let Some(next) = redirected(&url, answer.status, answer.header("location"))? else {
                let answer = undo_encoding(answer, limit).await?;
                return Ok(Got { answer, remote: remote.ip() });
            };
            (url, reach) = (next, Reach::of_redirect(provenance, scope_of(remote.ip())));
        }
        Err(TransportError::TooManyRedirects { limit: MAX_REDIRECTS }.into())
    }

    /// Makes one request, over an open connection if there is one.
    async fn exchange(
        &self,
        url: &Url,
        destination: Destination,
        addrs: Option<Vec<SocketAddr>>,
        limit: usize,
    ) -> Result<(HttpAnswer, SocketAddr), Fault> {
        let request = request(url);
        while let Some(mut connection) = self.idle.take(&destination) {
            let mut reading = Reading::new(limit);
            match self.ask(&mut connection, &request, &mut reading).await {
                // The server closed it before the request came.
                Err(_) if !reading.has_begun() => {}
                Ok(_) if !reading.has_begun() => {}
                asked => return self.finish(destination, connection, reading, asked),
            }
        }
        let addrs = match addrs {
            Some(addrs) => addrs,
            None => self.addresses(&destination).await?,
        };
        let connected = self.dialer.connect(&addrs, &destination).await;
        let mut connection = connected.map_err(TransportError::Io)?;
        let mut reading = Reading::new(limit);
        let asked = self.ask(&mut connection, &request, &mut reading).await;
        self.finish(destination, connection, reading, asked)
    }

    /// Sends the request and reads until the answer is complete or nothing more comes. Returns
    /// whether the connection ended as it should, if it ended.
    async fn ask(
        &self,
        connection: &mut Connection,
        request: &[u8],
        reading: &mut Reading,
    ) -> Result<bool, Fault> {
        let written = timeout(self.patience, connection.stream.write_all(request)).await;
        written.map_err(|_| Fault::Timeout)?.map_err(TransportError::Io)?;
        let mut part = vec![0; 16 * 1024];
        loop {
            let read = timeout(self.patience, connection.stream.read(&mut part)).await;
            match read.map_err(|_| Fault::Timeout)? {
                Ok(0) => return Ok(true),
                Ok(len) if reading.take(&part[..len])? => return Ok(true),
                Ok(_) => {}
                // It was reset with the answer under way, or TLS ended without its last message.
                Err(_) if reading.has_begun() => return Ok(false),
                Err(error) => return Err(TransportError::Io(error).into()),
            }
        }
    }

    fn finish(
        &self,
        destination: Destination,
        connection: Connection,
        reading: Reading,
        asked: Result<bool, Fault>,
    ) -> Result<(HttpAnswer, SocketAddr), Fault> {
        let (properly, remote) = (asked?, connection.remote);
        if reading.persists() {
            self.idle.keep(destination, connection);
        }
        Ok((reading.end(properly)?, remote))
    }

    /// Returns the addresses of the server, all within its reach.
    async fn addresses(&self, to: &Destination) -> Result<Vec<SocketAddr>, Fault> {
        let found = self.resolver.addresses(&to.host, to.port).await;
        let mut addrs = found.map_err(TransportError::Io)?;
        // A name with one address outside is refused: it may be meant to be resolved again until
        // that address is chosen.
        check(&to.host, &addrs, to.reach).map_err(Fault::Outside)?;
        if let Some(family) = to.family {
            addrs.retain(|addr| Family::of(addr.ip()) == family);
        }
        Ok(addrs)
    }
}

impl fmt::Debug for HttpGet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpGet").field("dialer", &self.dialer).finish_non_exhaustive()
    }
}

impl From<ResponseError> for Fault {
    fn from(error: ResponseError) -> Self {
        match error {
            ResponseError::TooLarge { limit } => Self::TooLarge { limit },
            other => Self::Transport(TransportError::Response(other)),
        }
    }
}

fn destination(url: &Url, reach: Reach, family: Option<Family>) -> Result<Destination, Fault> {
    let host = match url.host() {
        Some(Host::Ipv6(ip)) => ip.to_string(),
        Some(host) => host.to_string(),
        None => return Err(TransportError::NoHost.into()),
    };
    let port = url.port_or_known_default().unwrap_or(80);
    Ok(Destination { host, port, is_encrypted: url.scheme() == "https", reach, family })
}

/// Returns the request for `url`. Nothing in a URL can end a line.
fn request(url: &Url) -> Vec<u8> {
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let host = &url[Position::BeforeHost..Position::AfterPort];
    let mut text = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n"
    );
    if !url.username().is_empty() || url.password().is_some() {
        let mut login: Vec<u8> = percent_decode_str(url.username()).collect();
        login.push(b':');
        login.extend(percent_decode_str(url.password().unwrap_or_default()));
        text.push_str(&format!("Authorization: Basic {}\r\n", base64::encode(&login)));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Returns the encodings of a body in the order in which they were applied.
fn encodings(answer: &HttpAnswer) -> Vec<String> {
    let fields = ["content-encoding", "transfer-encoding"];
    fields.into_iter().flat_map(|name| answer.tokens(name)).collect()
}

/// Undoes the encodings of a body.
async fn undo_encoding(mut answer: HttpAnswer, limit: usize) -> Result<HttpAnswer, Fault> {
    let encodings = encodings(&answer);
    let body = std::mem::take(&mut answer.body);
    let work = move || decoded(body, &encodings, limit);
    // The work grows with the decoded size.
    let done = if limit > SMALL {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(TransportError::Decoding)?
    } else {
        work()
    };
    let (body, all) = done.map_err(|error| match error {
        EncodingError::TooLarge { limit } => Fault::TooLarge { limit },
        other => TransportError::Encoding(other).into(),
    })?;
    (answer.body, answer.is_whole) = (body, answer.is_whole && all);
    Ok(answer)
}

/// Bytes that are decoded within milliseconds.
const SMALL: usize = 1 << 20;
