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
//! - if a password is set, it or the owner's token must be shown;
//! - the token shown from this machine makes [`Caller::Local`], who may name any folder;
//! - without a password, whoever shows neither is a guest ([`Caller::Guest`]), if guests are let in;
//! - the files of the web page, which are the same for everybody, need no password: the page asks for
//!   it in a form and sends it with each request.

mod failures;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::failures::{Failures, PENALTY, Sender};
use super::answer::fault;
use piecework_core::{Moment, Secret, base64, network_of};
use piecework_daemon::Caller;
use piecework_http::web;
use piecework_http::{Ends, Senders, SiteRefusal, SiteRule};

/// Checks every request before a route sees it: host, origin, password or token, content type.
#[derive(Debug)]
pub(crate) struct Guard {
    config: GuardConfig,
    failures: Mutex<Failures>,
    started: Instant,
}

/// What a guard goes by.
#[derive(Debug, Clone)]
pub(crate) struct GuardConfig {
    /// By which names it may be asked, and pages of which sites may ask.
    sites: SiteRule,
    /// What the owner shows, either of them; none: whoever is let in is the owner.
    owner: Vec<Expected>,
    /// Whoever shows neither is let in as a guest.
    guests: bool,
}

/// What stands behind a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    /// The native API: what changes something must say that it is JSON.
    Native,
    /// Transmission's RPC, whose clients say anything about their JSON. Its session id, which no
    /// other site can read, does what the content type does for the native API.
    Rpc,
}

/// Why a request goes no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It asks by a name that is not known here, or a page of another site sent it.
    #[error(transparent)]
    Site(#[from] SiteRefusal),
    /// Its body could be that of a form.
    #[error("a request that changes something needs the header `Content-Type: application/json`")]
    NotJson,
    /// It has no password, and needs one.
    #[error(
        "a password or the owner's token is needed: send it by Basic authorization, with any user \
         name, or Bearer; tools take it from PIECEWORK_PASSWORD; `torrent-status --login` tells the \
         token"
    )]
    NoPassword,
    /// Its password is wrong.
    #[error("the password is wrong: tools take it from PIECEWORK_PASSWORD")]
    WrongPassword,
}

/// What a request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    Nothing,
    Wrong,
    /// The password.
    Password,
    /// The owner's token.
    Token,
}

/// Digests of what a client must send, so that comparing takes the same time whatever it sends.
#[derive(Debug, Clone)]
struct Expected {
    digest: [u8; 32],
    shown: Credential,
}

impl Guard {
    /// A guard that goes by `config`.
    pub(crate) fn new(config: GuardConfig) -> Arc<Self> {
        Arc::new(Self { config, failures: Mutex::default(), started: Instant::now() })
    }

    /// Puts the guard before all of `router`, what it has no route for included.
    pub(crate) fn protect(self: &Arc<Self>, router: Router, surface: Surface) -> Router {
        router.layer(from_fn_with_state((Arc::clone(self), surface), stand_before))
    }

    /// Who sends the request that begins with `parts`, from `peer`, if it may go on.
    ///
    /// A wrong password costs whoever sends it, and nobody else: a right one is looked at without a
    /// wait, unless its own sender has too many wrong ones under way.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) async fn check(
        &self,
        parts: &Parts,
        surface: Surface,
        peer: SocketAddr,
    ) -> Result<Caller, Refusal> {
        decide_origin(parts, &self.config)?;
        if surface == Surface::Native && is_page(parts) {
            return Ok(Caller::Guest);
        }
        let guesses = !self.config.guests && parts.headers.contains_key(AUTHORIZATION);
        let caller = match guesses {
            true => self.check_guess(&parts.headers, peer).await?,
            false => self.config.admit(&parts.headers)?,
        };
        decide_type(parts, surface)?;
        // Through a proxy it may come from anywhere.
        let is_forwarded = FORWARDED.iter().any(|name| parts.headers.contains_key(*name));
        let is_local = peer.ip().to_canonical().is_loopback() && !is_forwarded;
        Ok(if caller == Caller::Local && !is_local { Caller::Owner } else { caller })
    }

    async fn check_guess(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<Caller, Refusal> {
        let mut place = None;
        // Who sends it matters only then, and takes a look at all connections of the machine.
        let slowed = self.failures.lock().any(self.now());
        if slowed {
            let sender = sender(peer).await;
            let places = self.failures.lock().places(sender, self.now());
            if let Some(places) = places {
                // It is never closed.
                place = places.acquire_owned().await.ok();
            }
        }
        let decision = self.config.admit(headers);
        if decision == Err(Refusal::WrongPassword) {
            let sender = sender(peer).await;
            self.failures.lock().add(sender, self.now());
            if let Some(place) = place {
                // Whether or not its sender waits for the answer.
                let penalty = tokio::spawn(async move {
                    tokio::time::sleep(PENALTY).await;
                    drop(place);
                });
                // It does not panic; and if the runtime ends, nobody waits.
                let _ = penalty.await;
            }
        }
        decision
    }

    fn now(&self) -> Moment {
        Moment::from_start(self.started.elapsed())
    }
}

/// Who is at the other end.
async fn sender(peer: SocketAddr) -> Sender {
    let network = network_of(peer.ip());
    let user = match network.is_loopback() {
        // If the thread fails, the users of this machine are counted together.
        true => tokio::task::spawn_blocking(move || Senders::now().user_of(peer))
            .await
            .unwrap_or_default(),
        false => None,
    };
    Sender { network, user }
}

impl GuardConfig {
    /// What to go by: `host_names` may be asked for; the owner shows `password` or `token`, by Basic
    /// authorization together with any user name; whoever does not is a guest if there is no password and
    /// `guests`.
    pub(crate) fn new(
        host_names: &[String],
        password: Option<&Secret>,
        token: Option<&Secret>,
        guests: bool,
    ) -> Self {
        let expected = |secret: &Secret, shown: Credential| Expected {
            digest: digest(secret.expose().as_bytes()),
            shown,
        };
        let guests = password.is_none() && (guests || token.is_none());
        let password = password.map(|password| expected(password, Credential::Password));
        let token = token.map(|token| expected(token, Credential::Token));
        let owner = password.into_iter().chain(token).collect();
        Self { sites: SiteRule::new(host_names), owner, guests }
    }

    /// Who sends a request with these headers from this machine, if such may go on.
    fn admit(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        match self.shown(headers) {
            _ if self.owner.is_empty() => Ok(Caller::Owner),
            Credential::Password => Ok(Caller::Owner),
            Credential::Token => Ok(Caller::Local),
            // Remotes that send some password to every daemon are let in as before.
            Credential::Nothing | Credential::Wrong if self.guests => Ok(Caller::Guest),
            Credential::Nothing => Err(Refusal::NoPassword),
            Credential::Wrong => Err(Refusal::WrongPassword),
        }
    }

    fn shown(&self, headers: &HeaderMap) -> Credential {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Credential::Nothing };
        if values.next().is_some() {
            return Credential::Wrong;
        }
        let value = value.as_bytes();
        let space = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
        let (scheme, secret) = value.split_at(space);
        let secret = secret.trim_ascii();
        let is_basic = scheme.eq_ignore_ascii_case(b"basic");
        if !is_basic && !scheme.eq_ignore_ascii_case(b"bearer") {
            return Credential::Nothing;
        }
        // The password stands behind the first colon; whatever the user is called.
        let basic = match is_basic {
            true => str::from_utf8(secret).ok().and_then(base64::decode).unwrap_or_default(),
            false => Vec::new(),
        };
        let secret = match is_basic {
            true => basic.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default(),
            false => secret,
        };
        let secret = digest(secret);
        let is = |expected: &Expected| secret.ct_eq(&expected.digest);
        // All of them are looked at, whichever it is.
        self.owner.iter().fold(Credential::Wrong, |shown, one| match bool::from(is(one)) {
            true => one.shown,
            false => shown,
        })
    }
}

impl Refusal {
    /// Returns the HTTP status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Site(refusal) => refusal.status(),
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoPassword | Self::WrongPassword => StatusCode::UNAUTHORIZED,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        fault(self.status(), self.to_string()).into_response()
    }
}

/// Whether a request asks for this daemon and comes from no page of another site.
///
/// # Errors
/// Why it may not go on.
pub(crate) fn decide_origin(parts: &Parts, config: &GuardConfig) -> Result<(), Refusal> {
    Ok(config.sites.check(parts)?)
}

/// Whether no form of a page could send the request.
fn decide_type(parts: &Parts, surface: Surface) -> Result<(), Refusal> {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method);
    if surface == Surface::Native && !safe && !is_json(&parts.headers) {
        return Err(Refusal::NotJson);
    }
    Ok(())
}

/// Returns whether it asks for a file of the web page, or is a browser that is to be led there. These
/// tell nothing about the daemon.
fn is_page(parts: &Parts) -> bool {
    let path = parts.uri.path();
    let reads = [Method::GET, Method::HEAD].contains(&parts.method);
    let is_file = path == "/ui" || path.starts_with("/ui/");
    reads && (is_file || path == "/" && web::is_wanted(&parts.headers))
}

/// Returns whether the daemon's page sent it, which shows a form of its own where a password is
/// needed.
fn is_from_page(headers: &HeaderMap) -> bool {
    headers.contains_key(REQUESTED_WITH)
}

/// Adds the headers that every answer has. One that asks for a password says how it is sent if it is
/// `challenged`, so that browsers ask for it. Only the pages' own files may be kept by a browser:
/// they say so.
pub(super) fn finish(mut response: Response, challenged: bool) -> Response {
    let challenged = challenged && response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    if challenged {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn stand_before(
    State((guard, surface)): State<(Arc<Guard>, Surface)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    // The server always says who asks; a request that it did not is from nowhere known.
    let peer = parts.extensions.get::<Ends>().map_or(UNKNOWN, |ends| ends.peer);
    let challenged = !is_from_page(&parts.headers);
    let response = match guard.check(&parts, surface, peer).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => {
            tracing::debug!(%peer, %refusal, "a request was refused");
            refusal.into_response()
        }
    };
    finish(response, challenged)
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or("");
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// What the page adds to its requests, so that the browser does not ask for a password by itself.
const REQUESTED_WITH: &str = "x-requested-with";

/// Headers that proxies add.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

const CHALLENGE: &str = "Basic realm=\"piecework\", charset=\"UTF-8\"";

const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

#[cfg(test)]
mod tests;
