//! The web pages of daemon and tracker, embedded in the program: each file with its type, its ETag, and headers that
//! restrict the browser to what the pages need.
//!
//! The files are in `web/`: `common/` is for both pages, `daemon/` and `tracker/` are for one of them.

use std::borrow::Cow;

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use rust_embed::{EmbeddedFile, RustEmbed};

/// The pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The page of the daemon: its torrents, and who gave which piece.
    Daemon,
    /// The page of the tracker: its catalogue, and who holds which piece.
    Tracker,
}

/// A file of the pages, ready to send.
#[derive(Debug, Clone)]
struct Asset {
    kind: &'static str,
    etag: HeaderValue,
    bytes: Bytes,
}

#[derive(RustEmbed)]
#[folder = "web/"]
struct PageFiles;

/// Returns a router that serves `page` at `/ui/`, and its files below. Only `GET` and `HEAD` are allowed.
pub fn router<S: Clone + Send + Sync + 'static>(page: Page) -> Router<S> {
    let mut router = Router::new().route("/ui", get(async || redirect()));
    for name in PageFiles::iter() {
        let Some(path) = page.path_of(&name) else { continue };
        let Some(asset) = PageFiles::get(&name).and_then(|file| Asset::new(&name, file)) else {
            continue;
        };
        let serve = async move |headers: HeaderMap| asset.answer(&headers);
        router = router.route(&path, get(serve));
    }
    router
}

/// Returns whether a request for `/` comes from a browser.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.split(',').any(|kind| essence(kind) == "text/html"))
}

/// Returns a redirect to the page.
pub fn redirect() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static("/ui/"));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

impl Page {
    fn folder(self) -> &'static str {
        match self {
            Self::Daemon => "daemon/",
            Self::Tracker => "tracker/",
        }
    }

    /// Returns the path at which the file `name` is served, if it belongs to this page.
    fn path_of(self, name: &str) -> Option<String> {
        match name.strip_prefix(self.folder()) {
            Some("index.html") => Some("/ui/".to_owned()),
            Some(_) => Some(format!("/ui/{name}")),
            None => name.starts_with("common/").then(|| format!("/ui/{name}")),
        }
    }
}

impl Asset {
    /// Returns `None` for a file that is not part of a page.
    fn new(name: &str, file: EmbeddedFile) -> Option<Self> {
        let kind = kind_of(name)?;
        // The hash was computed when the program was built.
        let hash = file.metadata.sha256_hash();
        let digits = data_encoding::HEXLOWER.encode(&hash[..ETAG_BYTES]);
        let bytes = match file.data {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        };
        let etag = HeaderValue::try_from(format!("\"{digits}\"")).ok()?;
        Some(Self { kind, etag, bytes })
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let known = is_known(asked, self.etag.as_bytes());
        let body = if known { Body::empty() } else { Body::from(self.bytes.clone()) };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(ETAG, self.etag.clone());
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        }
        response
    }
}

/// Returns whether the client says that it has the file with this ETag (RFC 9110, 13.1.2).
fn is_known(asked: &HeaderMap, etag: &[u8]) -> bool {
    let mut values = asked.get_all(IF_NONE_MATCH).iter();
    values.any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|tag| {
            let tag = tag.trim_ascii();
            tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag
        })
    })
}

fn kind_of(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    KINDS.iter().find(|(known, _)| *known == ending).map(|(_, kind)| *kind)
}

/// Returns a media type without its parameters.
fn essence(kind: &str) -> String {
    kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

const KINDS: [(&str, &str); 4] = [
    ("html", "text/html; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("svg", "image/svg+xml"),
];

/// The number of bytes of the SHA-256 in an ETag: 128 bits.
const ETAG_BYTES: usize = 16;

/// The headers of every file. The browser may cache it but has to revalidate it, so that page and program always
/// have the same version. It runs only scripts and styles from files of this server and connects to no other
/// server, and no other page can frame or open the page.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CACHE_CONTROL, "no-cache"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{Method, Request};
    use tower::ServiceExt;

    async fn ask(page: Page, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        router::<()>(page).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn get(page: Page, path: &str) -> (Response, Bytes) {
        let (parts, body) = ask(page, Method::GET, path, &[]).await.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (Response::from_parts(parts, Body::empty()), bytes)
    }

    #[tokio::test]
    async fn each_program_has_its_own_page_and_what_both_need() {
        for (page, other) in [(Page::Daemon, "tracker"), (Page::Tracker, "daemon")] {
            let (response, html) = get(page, "/ui/").await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
            assert!(std::str::from_utf8(&html).unwrap().contains("<!doctype html>"));
            assert_eq!(get(page, "/ui/common/style.css").await.0.status(), 200);
            assert_eq!(get(page, &format!("/ui/{other}/app.js")).await.0.status(), 404);
            for odd in ["/ui/daemon/index.html", "/ui/../Cargo.toml", "/ui/nothing.js"] {
                assert_eq!(get(page, odd).await.0.status(), 404, "{odd}");
            }
        }
    }

    #[tokio::test]
    async fn every_file_has_a_type_that_is_known_and_all_headers() {
        for name in PageFiles::iter() {
            assert!(kind_of(&name).is_some(), "what is `{name}`?");
        }
        let (response, _) = get(Page::Daemon, "/ui/").await;
        for (name, value) in HEADERS {
            assert_eq!(response.headers()[&name], value, "{name}");
        }
        assert!(!HEADERS[0].1.contains("unsafe"));
    }

    /// The policy forbids them, so a page with one would be broken.
    #[test]
    fn no_page_has_a_script_or_style_in_it() {
        for name in PageFiles::iter().filter(|name| name.ends_with(".html")) {
            let file = PageFiles::get(&name).unwrap();
            let text = String::from_utf8(file.data.into_owned()).unwrap();
            assert!(!text.contains("<style") && !text.contains(" style="), "{name}");
            assert!(!text.contains(" onclick=") && !text.contains("<script>"), "{name}");
        }
    }

    /// Text from peers must never become markup.
    #[test]
    fn no_script_makes_markup_of_text() {
        for name in PageFiles::iter().filter(|name| name.ends_with(".js")) {
            let file = PageFiles::get(&name).unwrap();
            let text = String::from_utf8(file.data.into_owned()).unwrap();
            for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(way), "`{way}` in {name}");
            }
        }
    }

    #[tokio::test]
    async fn who_has_a_file_already_does_not_get_it_again() {
        let first = ask(Page::Tracker, Method::GET, "/ui/", &[]).await;
        let etag = first.headers()[ETAG].to_str().unwrap().to_owned();
        assert!(etag.starts_with('"') && etag.len() == 2 * ETAG_BYTES + 2, "{etag}");
        let same = [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()];
        for tag in &same {
            let header = [("if-none-match", tag.as_str())];
            let response = ask(Page::Tracker, Method::GET, "/ui/", &header).await;
            assert_eq!(response.status(), 304, "{tag}");
            assert_eq!(response.headers()[ETAG], etag.as_str());
            let body = axum::body::to_bytes(response.into_body(), 1).await.unwrap();
            assert!(body.is_empty());
        }
        let header = [("if-none-match", "\"something else\"")];
        assert_eq!(ask(Page::Tracker, Method::GET, "/ui/", &header).await.status(), 200);
    }

    #[tokio::test]
    async fn only_get_and_head_are_taken() {
        let head = ask(Page::Daemon, Method::HEAD, "/ui/common/style.css", &[]).await;
        assert_eq!(head.status(), 200);
        assert_ne!(head.headers()["content-length"], "0");
        assert!(axum::body::to_bytes(head.into_body(), 1).await.unwrap().is_empty());
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert_eq!(ask(Page::Daemon, method, "/ui/", &[]).await.status(), 405);
        }
    }

    #[tokio::test]
    async fn browsers_are_led_to_the_page() {
        let accepting =
            |value: &str| HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(value).unwrap())]);
        assert!(is_wanted(&accepting("text/html,application/xhtml+xml,*/*;q=0.8")));
        assert!(is_wanted(&accepting("application/json, Text/HTML;q=0.5")));
        for other in ["*/*", "application/json", "text/htmlx"] {
            assert!(!is_wanted(&accepting(other)), "{other}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
        let response = ask(Page::Daemon, Method::GET, "/ui", &[]).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()[LOCATION]),
            (303, &"/ui/".parse().unwrap())
        );
    }
}
