//! Who may ask, and how: before every route, of the native API and of Transmission's RPC alike.
//!
//! The daemon writes files and runs on machines with browsers. Any web page can make a browser send
//! requests to `127.0.0.1`, so being reachable from here alone protects from nothing. What does:
//!
//! - the `Host` must be an address, `localhost` or a name that was allowed, because a stranger's
//!   name that suddenly leads here (DNS rebinding) makes the stranger's page ours to the browser;
//! - a request that says it comes from another site (`Origin`, `Sec-Fetch-Site`) is refused;
//! - what changes something is no `GET` and says that its body is JSON, which no form and no image
//!   can send; Transmission's RPC, whose clients do not say so, has its session id instead;
//! - no answer ever allows another site anything (no CORS);
//! - and, if one is set, the password.

mod failures;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::failures::Failures;
use super::answer::fault;
use crate::base::{Moment, Secret, base64, network_of};
use crate::http_server::{Ends, SiteRefusal, SiteRule};

/// Stands before routes.
#[derive(Debug)]
pub struct Guard {
    config: GuardConfig,
    failures: Mutex<Failures>,
    started: Instant,
}

/// What a guard goes by.
#[derive(Debug, Clone)]
pub struct GuardConfig {
    /// By which names it may be asked, and pages of which sites may ask.
    sites: SiteRule,
    /// What is asked for; `None`: nothing.
    password: Option<Expected>,
}

/// What stands behind a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// The native API: what changes something must say that it is JSON.
    Native,
    /// Transmission's RPC, whose clients say anything about their JSON. Its session id, which no
    /// other site can read, does what the content type does for the native API.
    Rpc,
}

/// Why a request goes no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It asks by a name that is not known here, or a page of another site sent it.
    #[error(transparent)]
    Site(#[from] SiteRefusal),
    /// Its body could be that of a form.
    #[error("a request that changes something needs the header `Content-Type: application/json`")]
    NotJson,
    /// It has no password, and needs one.
    #[error("a password is needed: send it by Basic or Bearer authorization")]
    NoPassword,
    /// Its password is wrong.
    #[error("the user name or password is wrong")]
    WrongPassword,
    /// There were too many wrong ones from its address.
    #[error("too many wrong passwords from your address: wait `{0}` s")]
    TooMany(
        /// Seconds until the next may be tried.
        u64,
    ),
}

/// Digests of what a client must send, so that comparing takes the same time whatever it sends.
#[derive(Debug, Clone)]
struct Expected {
    basic: [u8; 32],
    bearer: [u8; 32],
}

impl Guard {
    /// A guard that goes by `config`.
    pub fn new(config: GuardConfig) -> Arc<Self> {
        Arc::new(Self { config, failures: Mutex::default(), started: Instant::now() })
    }

    /// Puts the guard before all of `router`, what it has no route for included.
    pub fn protect(self: &Arc<Self>, router: Router, surface: Surface) -> Router {
        router.layer(from_fn_with_state((Arc::clone(self), surface), stand_before))
    }

    /// Whether the request that begins with `parts`, from `peer`, may go on.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, parts: &Parts, surface: Surface, peer: IpAddr) -> Result<(), Refusal> {
        self.check_at(parts, surface, peer, Moment::from_start(self.started.elapsed()))
    }

    fn check_at(
        &self,
        parts: &Parts,
        surface: Surface,
        peer: IpAddr,
        now: Moment,
    ) -> Result<(), Refusal> {
        let from = network_of(peer);
        // Who has failed too often is not told whether the next guess was right.
        let guesses = self.config.password.is_some() && parts.headers.contains_key(AUTHORIZATION);
        if guesses && let Some(wait) = self.failures.lock().wait(from, now) {
            return Err(Refusal::TooMany(wait.as_secs().max(1)));
        }
        let decision = decide(parts, surface, &self.config);
        if decision == Err(Refusal::WrongPassword) {
            self.failures.lock().add(from, now);
        }
        decision
    }
}

impl GuardConfig {
    /// What to go by: `host_names` may be asked for; `password`, if any, must be sent, by Basic
    /// authorization together with `user`.
    pub fn new(host_names: &[String], user: &str, password: Option<&Secret>) -> Self {
        let password = password.map(|password| {
            let password = password.expose();
            let basic = base64::encode(format!("{user}:{password}").as_bytes());
            Expected { basic: digest(basic.as_bytes()), bearer: digest(password.as_bytes()) }
        });
        Self { sites: SiteRule::new(host_names), password }
    }
}

impl Refusal {
    /// Its status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Site(refusal) => refusal.status(),
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoPassword | Self::WrongPassword => StatusCode::UNAUTHORIZED,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = fault(self.status(), self.to_string()).into_response();
        match self {
            Self::NoPassword | Self::WrongPassword => {
                let challenge = HeaderValue::from_static(CHALLENGE);
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            Self::TooMany(seconds) => {
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            _ => {}
        }
        response
    }
}

/// Whether a request may go on, from what it says alone.
///
/// # Errors
/// Why it may not.
pub fn decide(parts: &Parts, surface: Surface, config: &GuardConfig) -> Result<(), Refusal> {
    config.sites.check(parts)?;
    if let Some(password) = &config.password {
        password.check(&parts.headers)?;
    }
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method);
    if surface == Surface::Native && !safe && !is_json(&parts.headers) {
        return Err(Refusal::NotJson);
    }
    Ok(())
}

/// Headers that every answer has. Only the pages' own files may be kept by a browser: they say so.
pub(super) fn finish(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn stand_before(
    State((guard, surface)): State<(Arc<Guard>, Surface)>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    // The server always says who asks; a request that it did not is from nowhere known.
    let peer = parts.extensions.get::<Ends>().map_or(UNKNOWN, |ends| ends.peer);
    let response = match guard.check(&parts, surface, peer.ip()) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refusal) => {
            tracing::debug!(%peer, %refusal, "a request was refused");
            refusal.into_response()
        }
    };
    finish(response)
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or("");
    essence.trim().eq_ignore_ascii_case("application/json")
}

impl Expected {
    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Err(Refusal::NoPassword) };
        if values.next().is_some() {
            return Err(Refusal::WrongPassword);
        }
        let value = value.as_bytes();
        let space = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
        let (scheme, token) = value.split_at(space);
        let token = digest(token.trim_ascii());
        let right = if scheme.eq_ignore_ascii_case(b"basic") {
            token.ct_eq(&self.basic)
        } else if scheme.eq_ignore_ascii_case(b"bearer") {
            token.ct_eq(&self.bearer)
        } else {
            return Err(Refusal::NoPassword);
        };
        if right.into() { Ok(()) } else { Err(Refusal::WrongPassword) }
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

const CHALLENGE: &str = "Basic realm=\"piecework\", charset=\"UTF-8\"";

const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// Wrong passwords from one address until it has to wait.
const MAX_FAILURES: u32 = 10;

/// In what time, and for how long: 14,400 guesses a day.
const FAILURE_SPAN: Duration = Duration::from_secs(60);

/// Addresses whose wrong passwords are counted at a time: some 200 KiB.
const MAX_FAILING: usize = 4096;

#[cfg(test)]
mod tests;
