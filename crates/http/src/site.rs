//! Which host names requests may use, and pages of which sites may send them.
//!
//! Any web page can make a browser send requests to addresses that only the browser's machine reaches. Two rules
//! protect from that. The `Host` must be one that only the server's own pages have, because the name of another
//! page may be made to resolve to this server (DNS rebinding). And a request is refused if its headers (`Origin`,
//! `Sec-Fetch-Site`) say that a page of another site sent it.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use piecework_core::{Scope, printable, scope_of};

/// The host names that are allowed besides addresses and `localhost`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteRule {
    /// Lower case, without a trailing dot.
    names: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteRefusal {
    /// The request has no `Host`, or several.
    #[error("a request needs exactly one `Host` header")]
    NoHost,
    /// The host is not allowed.
    #[error(
        "`{}` is not a name of this server: ask by address or `localhost`, or add the name to \
         `host_names` in its section of config.toml",
        printable(.0)
    )]
    Host(
        /// The host or origin, at most [`MAX_SHOWN`] characters.
        String,
    ),
    /// A page of another site sent the request.
    #[error("requests from pages of other sites are refused; this one is from `{}`", printable(.0))]
    Origin(
        /// The host or origin, at most [`MAX_SHOWN`] characters.
        String,
    ),
}

impl SiteRefusal {
    /// Returns the HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::Host(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin(_) => StatusCode::FORBIDDEN,
        }
    }
}

impl SiteRule {
    /// Returns a rule that also allows `host_names`.
    pub fn new(host_names: &[String]) -> Self {
        let names = host_names.iter().map(|name| plain_name(name).to_ascii_lowercase());
        Self { names: names.collect() }
    }

    /// Checks a request to a server that knows all its names.
    ///
    /// # Errors
    /// If the host is not allowed, or a page of another site sent the request.
    pub fn check(&self, parts: &Parts) -> Result<(), SiteRefusal> {
        let host = host(parts)?;
        if !self.allows(host.host()) {
            return Err(SiteRefusal::Host(shown(host.host().as_bytes())));
        }
        check_origin(&parts.headers, &host)?;
        check_fetch_site(&parts.headers)
    }

    /// Checks a request to a public service, which may have names that it does not know and to which pages may
    /// link. `local` is the local address of the connection.
    ///
    /// Anybody can reach a public address directly, so a name that resolves to it gives a page nothing, and any
    /// name is allowed. A private address also allows names without a dot: they are assigned in its own network,
    /// and pages from outside cannot have such a name.
    ///
    /// # Errors
    /// See [`SiteRule::check`].
    pub fn check_shared(&self, parts: &Parts, local: Option<IpAddr>) -> Result<(), SiteRefusal> {
        let host = host(parts)?;
        let name = plain_name(host.host());
        let allowed = match local.map(scope_of) {
            Some(Scope::Private | Scope::LinkLocal) => !name.contains('.') && !name.is_empty(),
            Some(Scope::Global) => true,
            Some(Scope::Loopback | Scope::Special) | None => false,
        };
        if !allowed && !self.allows(host.host()) {
            return Err(SiteRefusal::Host(shown(host.host().as_bytes())));
        }
        check_origin(&parts.headers, &host)?;
        if is_link(parts) { Ok(()) } else { check_fetch_site(&parts.headers) }
    }

    fn allows(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = plain_name(host).to_ascii_lowercase();
        bare.parse::<IpAddr>().is_ok() || name == "localhost" || self.names.contains(&name)
    }
}

/// Returns the requested host. The request target takes precedence over the header (RFC 9112, 3.2.2). A request in
/// which the two differ is refused.
fn host(parts: &Parts) -> Result<Authority, SiteRefusal> {
    let mut headers = parts.headers.get_all(HOST).iter();
    let (Some(value), None) = (headers.next(), headers.next()) else {
        return Err(SiteRefusal::NoHost);
    };
    let host: Authority = std::str::from_utf8(value.as_bytes())
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(is_plain)
        .ok_or_else(|| SiteRefusal::Host(shown(value.as_bytes())))?;
    match parts.uri.authority() {
        Some(other) if other != &host => Err(SiteRefusal::Host(shown(other.as_str().as_bytes()))),
        _ => Ok(host),
    }
}

/// Returns whether the text is a host with an optional port and nothing else. Programs disagree about text after a
/// closing bracket, so it is refused.
fn is_plain(host: &Authority) -> bool {
    let rest = host.as_str().strip_prefix(host.host());
    rest.is_some_and(|rest| {
        let port = rest.strip_prefix(':').unwrap_or(rest);
        port.bytes().all(|byte| byte.is_ascii_digit()) && (rest.is_empty() || rest != port)
    })
}

fn check_origin(headers: &HeaderMap, host: &Authority) -> Result<(), SiteRefusal> {
    let mut origins = headers.get_all(ORIGIN).iter();
    match origins.find(|origin| !is_origin_of(origin, host)) {
        Some(origin) => Err(SiteRefusal::Origin(shown(origin.as_bytes()))),
        None => Ok(()),
    }
}

fn check_fetch_site(headers: &HeaderMap) -> Result<(), SiteRefusal> {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    match sites.find(|site| !matches!(site.as_bytes(), b"same-origin" | b"none")) {
        Some(site) => Err(SiteRefusal::Origin(shown(site.as_bytes()))),
        None => Ok(()),
    }
}

/// Returns whether the user followed a link in a top-level window, which the other page cannot read.
fn is_link(parts: &Parts) -> bool {
    let is = |name, wanted: &str| {
        let mut values = parts.headers.get_all(name).iter();
        values.next().is_some_and(|value| value == wanted) && values.next().is_none()
    };
    parts.method == Method::GET && is(SEC_FETCH_MODE, "navigate") && is(SEC_FETCH_DEST, "document")
}

/// Returns whether `origin` is the server itself, requested as `host`.
fn is_origin_of(origin: &HeaderValue, host: &Authority) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let (rest, port) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
        (Some(rest), _) => (rest, 80),
        // A proxy adds TLS.
        (_, Some(rest)) => (rest, 443),
        _ => return false,
    };
    let Ok(origin) = rest.parse::<Authority>() else { return false };
    origin.host().eq_ignore_ascii_case(host.host())
        && origin.port_u16().unwrap_or(port) == host.port_u16().unwrap_or(port)
        && !origin.as_str().contains('@')
}

/// Returns a name without the trailing dot of a fully qualified name.
fn plain_name(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(MAX_SHOWN).collect()
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The maximum number of characters of a refused host or origin in the refusal.
pub const MAX_SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn parts(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/torrents");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn shared(local: &str, headers: &[(&str, &str)]) -> Result<(), SiteRefusal> {
        let rule = SiteRule::new(&["Tracker.example.".to_owned()]);
        rule.check_shared(&parts("POST", headers), local.parse().ok())
    }

    #[test]
    fn names_that_lead_to_an_address_are_taken_by_who_can_reach_it() {
        let asked = |local, host| shared(local, &[("host", host)]).is_ok();
        for local in ["127.0.0.1", "::1", "10.0.0.1", "100.64.0.1", "fd00::1", "192.0.2.1", ""] {
            for ours in ["tracker.example", "localhost:8000", "192.0.2.9", "[::1]:8000"] {
                assert!(asked(local, ours), "{ours} at {local}");
            }
        }
        for machine in ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1", ""] {
            assert!(!asked(machine, "evil.example") && !asked(machine, "tracker"), "{machine}");
        }
        for network in ["10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.1.1", "fe80::1"] {
            assert!(!asked(network, "evil.example:8000") && asked(network, "tracker:8000"));
            assert!(!asked(network, "evil.example.") && asked(network, "tracker."));
        }
        for all in ["192.0.2.1", "2001:db8::1", "100.128.0.1"] {
            assert!(asked(all, "any.example"), "{all}");
        }
        assert_eq!(shared("192.0.2.1", &[]), Err(SiteRefusal::NoHost));
    }

    #[test]
    fn pages_of_other_sites_are_refused_at_any_address() {
        for local in ["127.0.0.1", "10.0.0.1", "192.0.2.1"] {
            let from =
                |header, value| shared(local, &[("host", "192.0.2.1:8000"), (header, value)]);
            assert_eq!(from("origin", "http://192.0.2.1:8000"), Ok(()));
            for origin in ["http://evil.example", "http://192.0.2.1", "null", "file://", ""] {
                assert!(matches!(from("origin", origin), Err(SiteRefusal::Origin(_))), "{origin}");
            }
            assert_eq!(from("sec-fetch-site", "same-origin"), Ok(()));
            assert!(matches!(from("sec-fetch-site", "cross-site"), Err(SiteRefusal::Origin(_))));
        }
    }

    #[test]
    fn a_link_from_another_site_may_be_followed() {
        let headers = |mode, dest| {
            [
                ("host", "127.0.0.1:8000"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ]
        };
        let rule = SiteRule::default();
        let local = "127.0.0.1".parse().ok();
        let asked = |method, mode, dest| {
            rule.check_shared(&parts(method, &headers(mode, dest)), local).is_ok()
        };
        assert!(asked("GET", "navigate", "document"));
        assert!(!asked("GET", "navigate", "iframe") && !asked("GET", "no-cors", "document"));
        assert!(!asked("POST", "navigate", "document"));
        assert!(rule.check(&parts("GET", &headers("navigate", "document"))).is_err());
    }

    #[test]
    fn refusals_are_short_and_printable() {
        let long = format!("{}\u{1b}", "x".repeat(5_000));
        assert!(SiteRefusal::Host(shown(long.as_bytes())).to_string().len() < 300);
        assert!(!SiteRefusal::Origin("\u{1b}[2J".to_owned()).to_string().contains('\u{1b}'));
    }
}
