//! What announces and the catalogue need of HTTP.

use std::error::Error;
use std::time::{Duration, SystemTime};

use reqwest::{Client, ClientBuilder, Response, header, redirect};

use super::ClientOptions;
use crate::announce::Retry;

/// What can go wrong below the meaning of an answer.
#[derive(Debug)]
pub(super) enum Fault {
    Setup(String),
    Timeout,
    Transport(String),
    TooLarge { limit: usize },
}

/// A client that gives a whole answer `total` to come, and the options' time-out to each part.
pub(super) fn client(options: &ClientOptions, total: Duration) -> Result<Client, Fault> {
    client_over(options, total, None)
}

/// The same over the network interface of that name alone.
pub(super) fn client_over(
    options: &ClientOptions,
    total: Duration,
    interface: Option<&str>,
) -> Result<Client, Fault> {
    // An error says that the process has a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let plan = || -> ClientBuilder {
        let builder = Client::builder();
        let builder = match interface {
            Some(interface) => builder.interface(interface),
            None => builder,
        };
        builder
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::limited(MAX_REDIRECTS))
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.timeout)
            .timeout(total)
            .local_address(options.local_ip)
            .pool_idle_timeout(IDLE_CONNECTION)
            .referer(false)
            .no_proxy()
    };
    plan().build().or_else(|fault| {
        // A bare container has no root certificates. Plain HTTP works there all the same, and
        // HTTPS fails when it is tried.
        tracing::debug!(fault = deepest(&fault), "no root certificates, so no HTTPS");
        plan().tls_certs_only([]).build().map_err(|fault| Fault::Setup(deepest(&fault)))
    })
}

/// The body of `response`, not a byte more than `limit` of it in memory.
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

/// Returns what `Retry-After` says, in seconds or as a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(response: &Response) -> Option<Retry> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            // A date that has passed asks for no pause.
            date.duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    (!pause.is_zero()).then_some(Retry::After(pause))
}

impl From<reqwest::Error> for Fault {
    fn from(fault: reqwest::Error) -> Self {
        if fault.is_timeout() { Self::Timeout } else { Self::Transport(deepest(&fault)) }
    }
}

/// What is at the bottom of an error: `connection refused` rather than five layers about it, and
/// without the address, which may hold a pass key.
fn deepest(fault: &reqwest::Error) -> String {
    let mut cause: Option<&dyn Error> = fault.source();
    while let Some(next) = cause.and_then(Error::source) {
        cause = Some(next);
    }
    cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string)
}

const USER_AGENT: &str = concat!("Piecework/", env!("CARGO_PKG_VERSION"));

/// Trackers that moved redirect once, perhaps twice.
const MAX_REDIRECTS: usize = 5;

/// Announces are minutes apart: connections are kept for the few that follow at once.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);
