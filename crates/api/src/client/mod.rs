//! The native API as typed calls, and its events as a stream.
//!
//! ```no_run
//! # async fn run() -> Result<(), piecework_api::client::ApiError> {
//! use piecework_api::client::ApiClient;
//!
//! let client = ApiClient::new("127.0.0.1:5000", None)?;
//! println!("{} torrents", client.overview().await?.counts.all);
//! let mut events = client.events().await?;
//! while let Some(event) = events.next().await? {
//!     println!("{event:?}");
//! }
//! # Ok(())
//! # }
//! ```

mod calls;
mod error;
mod events;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod sse;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::Fault;
use piecework_core::Secret;

pub use calls::LogQuery;
pub use error::{ApiError, Cause, ProtocolError};
pub use events::Events;
pub use sse::SseError;

/// A client for one daemon. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct ApiClient {
    client: Client,
    base: Url,
    addr: String,
}

impl ApiClient {
    /// Creates a client for the daemon at `addr`, `HOST:PORT` or `https://HOST:PORT`, that sends
    /// `password` with each request. Sends nothing yet. HTTPS trusts the system's root
    /// certificates.
    ///
    /// # Errors If `addr` is not an address, `password` cannot be sent, or HTTP cannot be set up.
    pub fn new(addr: &str, password: Option<Secret>) -> Result<Self, ApiError> {
        let fault = |fault: Box<dyn Error + Send + Sync>| ApiError::Setup {
            addr: addr.to_owned(),
            source: fault.into(),
        };
        let (scheme, place) = match addr.strip_prefix("https://") {
            Some(place) => ("https", place),
            None => ("http", addr),
        };
        let base =
            Url::parse(&format!("{scheme}://{place}/")).map_err(|error| fault(error.into()))?;
        if base.path() != "/" || base.query().is_some() || !base.username().is_empty() {
            return Err(fault("it is not `HOST:PORT`".into()));
        }
        let mut headers = HeaderMap::new();
        if let Some(password) = password {
            headers.insert(AUTHORIZATION, bearer(&password).map_err(|error| fault(error.into()))?);
        }
        // An error means that the process already has a provider, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIME)
            .pool_idle_timeout(IDLE_CONNECTION)
            .referer(false)
            .no_proxy();
        if scheme == "http" {
            // This allows a machine without root certificates.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| fault(error.into()))?;
        Ok(Self { client, base, addr: place.to_owned() })
    }

    /// Returns the daemon's address, `HOST:PORT`.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Returns the URL of the daemon's page.
    pub fn url(&self) -> &str {
        self.base.as_str()
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.get_with(path, &[]).await
    }

    async fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, Option<&str>)],
    ) -> Result<T, ApiError> {
        let request = self.client.get(self.at(path, query)).timeout(ANSWER_TIME);
        self.read(self.sent(request).await?).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        time: Duration,
    ) -> Result<T, ApiError> {
        let response = self.send(method, path, body, time).await?;
        self.read(response).await
    }

    /// Sends a request whose answer has no content.
    async fn act(&self, path: &str, body: &impl Serialize) -> Result<(), ApiError> {
        self.send(Method::POST, path, body, ANSWER_TIME).await.map(|_| ())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        time: Duration,
    ) -> Result<Response, ApiError> {
        let body = serde_json::to_vec(body).map_err(|error| ApiError::Setup {
            addr: self.addr.clone(),
            source: Arc::new(error),
        })?;
        let request = self.client.request(method, self.at(path, &[]));
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        self.sent(request.timeout(time)).await
    }

    /// Sends `request` and returns its answer if it is a success.
    async fn sent(&self, request: reqwest::RequestBuilder) -> Result<Response, ApiError> {
        let response = request.send().await.map_err(|error| self.fault(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response, MAX_FAULT).await?;
        Err(refused(status, &body))
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ApiError> {
        let body = self.body(response, MAX_ANSWER).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::Protocol(ProtocolError::Json(Arc::new(error))))
    }

    async fn body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, ApiError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(error))? {
            if chunk.len() > limit - body.len() {
                return Err(ApiError::Protocol(ProtocolError::TooLong { limit }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn at(&self, path: &str, query: &[(&str, Option<&str>)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        for (key, value) in query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(key, value);
            }
        }
        url
    }

    fn fault(&self, error: reqwest::Error) -> ApiError {
        let addr = self.addr.clone();
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if kind == Some(io::ErrorKind::ConnectionRefused) {
                return ApiError::NotRunning { addr };
            }
            cause = error.source();
        }
        if error.is_timeout() {
            return ApiError::Timeout { addr };
        }
        ApiError::Unreachable { addr, source: Arc::new(error) }
    }
}

/// Returns the error for a refusal. If it is not in the daemon's form, another server sent it, and
/// its page would not help anybody.
fn refused(status: StatusCode, body: &[u8]) -> ApiError {
    match serde_json::from_slice::<Fault>(body) {
        Ok(fault) => ApiError::Fault { status: status.as_u16(), error: fault.error },
        Err(_) => ApiError::Protocol(ProtocolError::Status(status)),
    }
}

fn bearer(password: &Secret) -> Result<HeaderValue, &'static str> {
    let password = password.expose();
    if password.trim() != password || password.is_empty() {
        return Err("the password is empty, or has spaces around it");
    }
    let mut value = HeaderValue::from_bytes(format!("Bearer {password}").as_bytes())
        .map_err(|_| "the password has control characters")?;
    value.set_sensitive(true);
    Ok(value)
}

const USER_AGENT: &str = concat!("Piecework/", env!("CARGO_PKG_VERSION"));

/// Maximum time to connect: the daemon is on this machine or near it.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Maximum time for a whole answer. The daemon may have to ask a tracker for it.
const ANSWER_TIME: Duration = Duration::from_secs(90);

/// Maximum time for adding: data to share is hashed before the answer.
const ADD_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A daemon closes connections that are idle for 10 s, so they are not used for that long.
const IDLE_CONNECTION: Duration = Duration::from_secs(5);

/// Maximum bytes of an answer: 50,000 torrents.
const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// Maximum bytes of an error: a sentence.
const MAX_FAULT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for addr in ["127.0.0.1:5000", "[::1]:5000", "seedbox.lan:80", "localhost"] {
            assert_eq!(ApiClient::new(addr, None).unwrap().addr(), addr);
        }
        for addr in ["", "a b", "host:99999", "host/path", "user@host", "host?x", "http://host"] {
            let error = ApiClient::new(addr, None).unwrap_err();
            assert!(matches!(error, ApiError::Setup { .. }), "{addr}");
        }
    }

    #[test]
    fn a_password_is_sent_as_it_is_and_shown_to_nobody() {
        let value = bearer(&Secret::from("größer: 1 2")).unwrap();
        assert_eq!(value.as_bytes(), "Bearer größer: 1 2".as_bytes());
        assert!(value.is_sensitive());
        let client = ApiClient::new("localhost:1", Some(Secret::from("sesame"))).unwrap();
        assert!(!format!("{client:?}").contains("sesame"));
        for bad in ["", " x", "x ", "a\nb"] {
            assert!(bearer(&Secret::from(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn refusals_are_told_from_what_others_answer() {
        let ours = refused(StatusCode::CONFLICT, br#"{"error": "it is being moved"}"#);
        assert_eq!(ours.to_string(), "it is being moved");
        let theirs = refused(StatusCode::BAD_GATEWAY, b"<h1>nginx\x1b</h1>\n");
        assert_eq!(
            theirs.to_string(),
            "the answer is not that of a Piecework daemon: HTTP status `502 Bad Gateway`"
        );
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_told_from_one_that_refuses() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap().to_string();
        drop(free);
        let client = ApiClient::new(&addr, None).unwrap();
        let error = client.alive().await.unwrap_err();
        assert!(matches!(error, ApiError::NotRunning { .. }), "{error:?}");
        let sentence = format!("no daemon answers at `{addr}`; start one with `torrent-daemon`");
        assert_eq!(error.to_string(), sentence);
    }
}
