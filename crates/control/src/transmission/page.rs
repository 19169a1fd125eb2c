//! Where Transmission serves its page: browsers that look there are sent to the daemon's own.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::State;
use axum::http::header::{HOST, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::super::answer::fault;
use piecework_http::web;

/// The addresses of Transmission's page on a port that serves the daemon's page as well.
pub(crate) fn here() -> Router {
    PATHS
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, get(async || web::redirect())))
}

/// The same, and `/`, on a port that serves no page: the page is served at `control`.
pub(crate) fn elsewhere(control: Option<SocketAddr>) -> Router {
    let paths = PATHS.into_iter().chain(["/"]);
    paths.fold(Router::new(), |router, path| router.route(path, get(send))).with_state(control)
}

async fn send(State(control): State<Option<SocketAddr>>, headers: HeaderMap) -> Response {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let place = control.and_then(|control| location(host, control));
    match place.and_then(|place| HeaderValue::try_from(place).ok()) {
        Some(place) => (StatusCode::SEE_OTHER, [(LOCATION, place)]).into_response(),
        None => {
            let error = "the daemon's page is served on the port of its control, which cannot be \
                         reached at this address: see `control` in section [daemon] of config.toml";
            fault(StatusCode::NOT_FOUND, error).into_response()
        }
    }
}

/// Where a browser that asked for `host` (a name or address, perhaps with a port) finds the page that is
/// served at `control`. `None` if it does not from there: `127.0.0.1` would be its own machine.
fn location(host: &str, control: SocketAddr) -> Option<String> {
    let asked: Uri = format!("http://{host}/").parse().ok()?;
    let asked = asked.host()?;
    let bare = asked.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(asked);
    let address: Option<IpAddr> = bare.parse().ok();
    let asks_loopback = match address {
        Some(address) => address.to_canonical().is_loopback(),
        None => bare.eq_ignore_ascii_case("localhost"),
    };
    let (ip, port) = (control.ip().to_canonical(), control.port());
    match (ip.is_unspecified(), ip.is_loopback()) {
        // Everything that leads to the machine leads there.
        (true, _) => Some(format!("http://{asked}:{port}/ui/")),
        (false, true) if !asks_loopback => None,
        (false, _) => Some(format!("http://{}/ui/", SocketAddr::new(ip, port))),
    }
}

/// Where browsers look for Transmission's page.
const PATHS: [&str; 5] = [
    "/transmission",
    "/transmission/",
    "/transmission/web",
    "/transmission/web/",
    "/transmission/web/index.html",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_17_a_browser_is_sent_to_the_page_if_it_can_reach_it() {
        let to = |host, control: &str| location(host, control.parse().unwrap());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(to("localhost:9091", "127.0.0.1:5000"), some("http://127.0.0.1:5000/ui/"));
        assert_eq!(to("127.0.0.1:9091", "127.0.0.1:5000"), some("http://127.0.0.1:5000/ui/"));
        assert_eq!(to("[::1]:9091", "[::1]:5000"), some("http://[::1]:5000/ui/"));
        assert_eq!(to("nas.lan:9091", "127.0.0.1:5000"), None);
        assert_eq!(to("192.0.2.7:9091", "[::1]:5000"), None);
        assert_eq!(to("nas.lan:9091", "0.0.0.0:5000"), some("http://nas.lan:5000/ui/"));
        assert_eq!(to("[2001:db8::1]:9091", "[::]:5000"), some("http://[2001:db8::1]:5000/ui/"));
        assert_eq!(to("nas.lan", "192.0.2.7:5000"), some("http://192.0.2.7:5000/ui/"));
        assert_eq!(to("a b", "0.0.0.0:5000"), None);
    }
}
