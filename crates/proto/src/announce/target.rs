//! Addresses of trackers and catalogues.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use url::{Host, Position, Url};

use super::{Provenance, Reach};
use piecework_core::printable;

/// The URL of a tracker, `http://…`, `https://…` or `udp://host:port…`, and who named it. Two values are equal if
/// their URLs are, whoever named them.
#[derive(Clone)]
pub struct TrackerUrl {
    /// Many torrents have the same few trackers: see [`TrackerUrls`].
    url: Arc<Url>,
    provenance: Provenance,
}

/// A pool of tracker URLs, which keeps each in memory once, however many torrents announce there.
#[derive(Debug, Default)]
pub struct TrackerUrls {
    known: BTreeSet<Arc<Url>>,
    /// At this number of entries, unused ones are dropped.
    enough: usize,
}

/// The URL of a catalogue, and who named it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CatalogueUrl {
    /// `http://host:port`.
    pub base: String,
    /// Who named it. A catalogue derived from a tracker in a `.torrent` is foreign.
    pub provenance: Provenance,
}

/// The protocol of a tracker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// BEP 3.
    Http,
    /// The same over TLS.
    Https,
    /// BEP 15.
    Udp,
}

/// A tracker as users name it to the programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackerTarget {
    /// Where to announce, in tiers (BEP 12).
    pub tiers: Vec<Vec<TrackerUrl>>,
    /// Where its catalogue is if it is a Piecework tracker: `http://host:port`.
    pub catalogue: Option<String>,
}

/// Why a text is not the address of a tracker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrackerUrlError {
    /// The text is too long.
    #[error("a tracker address of `{len}` bytes exceeds the limit of `{limit}`")]
    TooLong {
        /// The text's length, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The text is not a URL.
    #[error("`{text}` is not the address of a tracker: {fault}")]
    NotUrl {
        /// The given text, safe to show.
        text: String,
        /// What is wrong with it.
        fault: url::ParseError,
    },
    /// The scheme is not supported.
    #[error("`{text}` begins with `{scheme}`; trackers use `http`, `https` or `udp`")]
    Scheme {
        /// The given text, safe to show.
        text: String,
        /// The scheme.
        scheme: String,
    },
    /// The host or a required port is missing.
    #[error("`{text}` lacks a {part}")]
    Lacks {
        /// The given text, safe to show.
        text: String,
        /// The part that is missing.
        part: &'static str,
    },
    /// A short form that is not `HOST:PORT`.
    #[error("`{text}` is neither `IP:PORT` nor the URL of a tracker")]
    NotTarget {
        /// The given text, safe to show.
        text: String,
    },
}

impl TrackerUrl {
    /// Parses a URL. It counts as named by a foreign source.
    ///
    /// # Errors
    /// If it is longer than 2 KiB, not a URL, has an unsupported scheme or no host, or is a UDP URL without a port.
    pub fn parse(text: &str) -> Result<Self, TrackerUrlError> {
        check_len(text)?;
        let shown = || printable(text).into_owned();
        let url =
            Url::parse(text).map_err(|fault| TrackerUrlError::NotUrl { text: shown(), fault })?;
        let lacks = |part| Err(TrackerUrlError::Lacks { text: shown(), part });
        let Some(scheme) = scheme_of(&url) else {
            let scheme = printable(url.scheme()).into_owned();
            return Err(TrackerUrlError::Scheme { text: shown(), scheme });
        };
        if url.host_str().is_none_or(str::is_empty) {
            return lacks("host");
        }
        match url.port() {
            None if scheme == Scheme::Udp => lacks("port"),
            Some(0) => lacks("port other than 0"),
            _ => Ok(Self { url: Arc::new(url), provenance: Provenance::Foreign }),
        }
    }

    /// Returns the same URL with another provenance.
    pub fn named_by(self, provenance: Provenance) -> Self {
        Self { provenance, ..self }
    }

    /// Returns the same URL, named by the user if it is among `named`. If one of these has its host and port, it
    /// counts at least as nearby.
    pub fn named_among<'a>(self, mut named: impl Iterator<Item = &'a Self> + Clone) -> Self {
        if named.clone().any(|other| *other == self) {
            return self.named_by(Provenance::Named);
        }
        let place = (self.host(), self.port());
        match self.provenance {
            Provenance::Foreign if named.any(|other| (other.host(), other.port()) == place) => {
                self.named_by(Provenance::Nearby)
            }
            _ => self,
        }
    }

    /// Returns who named the tracker, which decides where its address may lead.
    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// Returns the scopes that requests to it may go to.
    pub fn reach(&self) -> Reach {
        Reach::of(self.provenance, &self.url)
    }

    /// Returns the protocol.
    pub fn scheme(&self) -> Scheme {
        // `parse` accepts only these three.
        scheme_of(&self.url).unwrap_or(Scheme::Http)
    }

    /// Returns the host name or IP address as in the URL: IPv6 in brackets.
    pub fn host_str(&self) -> &str {
        // `parse` accepts no URL without a host.
        self.url.host_str().unwrap_or_default()
    }

    /// Returns the host name or IP address without brackets.
    pub fn host(&self) -> String {
        match self.url.host() {
            Some(Host::Ipv6(ip)) => ip.to_string(),
            Some(host) => host.to_string(),
            None => String::new(),
        }
    }

    /// Returns the port, or the default port of the scheme.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(0)
    }

    /// Returns host and port as one text, an IPv6 address in brackets.
    pub fn place(&self) -> String {
        match self.url.host() {
            Some(host) => format!("{host}:{}", self.port()),
            None => String::new(),
        }
    }

    /// Returns the URL in the form that is shown and put into a `.torrent`.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// Returns the URL with `query` appended to its own query, if it has one.
    pub fn with_query(&self, query: &str) -> String {
        let base = self.url.as_str();
        let base = base.split_once('#').map_or(base, |(base, _)| base);
        let separator = if self.url.query().is_some() { '&' } else { '?' };
        format!("{base}{separator}{query}")
    }

    /// Returns the path and query that are sent to a UDP tracker (BEP 41); empty if there are none.
    pub fn url_data(&self) -> &str {
        match &self.url[Position::BeforePath..Position::AfterQuery] {
            "/" => "",
            url_data => url_data,
        }
    }

    /// Returns the URL for scrapes, if the tracker answers them: an HTTP tracker if its last path segment begins with
    /// `announce` (BEP 48), a UDP tracker always.
    pub fn scrape(&self) -> Option<Self> {
        if self.scheme() == Scheme::Udp {
            return Some(self.clone());
        }
        let (folder, last) = self.url.path().rsplit_once('/')?;
        let rest = last.strip_prefix("announce")?;
        let path = format!("{folder}/scrape{rest}");
        let mut url = Url::clone(&self.url);
        url.set_path(&path);
        Some(Self { url: Arc::new(url), provenance: self.provenance })
    }
}

impl TrackerTarget {
    /// Parses what users write: a URL, or a bare `IP:PORT` or `HOST:PORT`. The latter means to announce over UDP,
    /// over HTTP if that fails, and to use the catalogue over HTTP. The trackers count as named by the user.
    ///
    /// # Errors
    /// If it is neither of these.
    pub fn parse(text: &str) -> Result<Self, TrackerUrlError> {
        let text = text.trim();
        check_len(text)?;
        if text.contains("://") {
            let mut url = TrackerUrl::parse(text)?.named_by(Provenance::Named);
            // A server's root is its front page. A user who writes it means the usual announce path.
            if url.url.path() == "/" && url.url.query().is_none() {
                Arc::make_mut(&mut url.url).set_path("/announce");
            }
            let catalogue =
                (url.scheme() != Scheme::Udp).then(|| url.url.origin().ascii_serialization());
            return Ok(Self { tiers: vec![vec![url]], catalogue });
        }
        let fault = || TrackerUrlError::NotTarget { text: printable(text).into_owned() };
        let is_host = |host: &str| {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        let named = || {
            let (host, port) = text.rsplit_once(':')?;
            Some(is_host(host) && port.bytes().all(|b| b.is_ascii_digit()))
        };
        let bare = text.parse::<SocketAddr>().is_ok() || named() == Some(true);
        if !bare {
            return Err(fault());
        }
        // Parsed again as URLs, because a port must still fit 16 bits and not be 0.
        let udp = TrackerUrl::parse(&format!("udp://{text}/announce")).map_err(|_| fault())?;
        let http = TrackerUrl::parse(&format!("http://{text}/announce")).map_err(|_| fault())?;
        let catalogue = Some(format!("http://{text}"));
        let named = |url: TrackerUrl| vec![url.named_by(Provenance::Named)];
        Ok(Self { tiers: vec![named(udp), named(http)], catalogue })
    }
}

impl TrackerUrls {
    /// Makes `url` share its text with an equal URL that is still in use.
    pub fn share(&mut self, url: &mut TrackerUrl) {
        if let Some(known) = self.known.get(&url.url) {
            url.url = Arc::clone(known);
            return;
        }
        if self.known.len() >= self.enough {
            self.known.retain(|url| Arc::strong_count(url) > 1);
            self.enough = (2 * self.known.len()).max(FEW_URLS);
        }
        self.known.insert(Arc::clone(&url.url));
    }
}

impl CatalogueUrl {
    /// Returns a catalogue that the user named.
    pub fn named(base: impl Into<String>) -> Self {
        Self { base: base.into(), provenance: Provenance::Named }
    }

    /// Returns the catalogue that a tracker in a `.torrent` has if it is a Piecework tracker.
    pub fn of_tracker(tracker: &TrackerUrl) -> Option<Self> {
        let base = TrackerTarget::parse(tracker.as_str()).ok()?.catalogue?;
        Some(Self { base, provenance: tracker.provenance })
    }
}

impl PartialEq for TrackerUrl {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url
    }
}

impl Eq for TrackerUrl {}

impl PartialOrd for TrackerUrl {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TrackerUrl {
    fn cmp(&self, other: &Self) -> Ordering {
        self.url.cmp(&other.url)
    }
}

impl Hash for TrackerUrl {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.url.hash(state);
    }
}

impl FromStr for TrackerUrl {
    type Err = TrackerUrlError;

    fn from_str(text: &str) -> Result<Self, TrackerUrlError> {
        Self::parse(text)
    }
}

impl FromStr for TrackerTarget {
    type Err = TrackerUrlError;

    fn from_str(text: &str) -> Result<Self, TrackerUrlError> {
        Self::parse(text)
    }
}

impl fmt::Display for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(self.as_str()))
    }
}

impl fmt::Debug for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrackerUrl({self})")
    }
}

/// Returns a sentence for each of the first unsupported trackers of a torrent (such as `wss://`).
pub fn unusable(tiers: &[Vec<String>]) -> Vec<String> {
    let told = |url: &String| {
        let error = url.parse::<TrackerUrl>().err()?;
        Some(format!("its tracker `{}` is not used: {error}", printable(url)))
    };
    tiers.iter().flatten().filter_map(told).take(MOST_UNUSABLE).collect()
}

/// The maximum number of unsupported trackers that are named.
const MOST_UNUSABLE: usize = 5;

fn scheme_of(url: &Url) -> Option<Scheme> {
    match url.scheme() {
        "http" => Some(Scheme::Http),
        "https" => Some(Scheme::Https),
        "udp" => Some(Scheme::Udp),
        _ => None,
    }
}

fn check_len(text: &str) -> Result<(), TrackerUrlError> {
    if text.len() > MAX_URL_LEN {
        return Err(TrackerUrlError::TooLong { len: text.len(), limit: MAX_URL_LEN });
    }
    Ok(())
}

/// The maximum length of a tracker's URL. URLs with pass keys have a few hundred bytes.
const MAX_URL_LEN: usize = 2 * 1024;

/// The number of entries up to which unused ones are not searched for.
const FEW_URLS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> TrackerUrl {
        TrackerUrl::parse(text).unwrap()
    }

    #[test]
    fn equal_addresses_are_in_memory_once_and_those_that_nobody_has_are_dropped() {
        let url = |number: usize| -> TrackerUrl {
            format!("http://tracker{number}.example/announce").parse().unwrap()
        };
        let mut urls = TrackerUrls::default();
        let [mut one, mut two, mut other] = [url(1), url(1).named_by(Provenance::Named), url(2)];
        for url in [&mut one, &mut two, &mut other] {
            urls.share(url);
        }
        assert!(Arc::ptr_eq(&one.url, &two.url) && !Arc::ptr_eq(&one.url, &other.url));
        assert_eq!((one.provenance(), two.provenance()), (Provenance::Foreign, Provenance::Named));
        for number in 0..1_000 {
            urls.share(&mut url(number));
        }
        assert!(urls.known.len() <= 2 * FEW_URLS, "{}", urls.known.len());
        let mut again = url(1);
        urls.share(&mut again);
        assert!(Arc::ptr_eq(&one.url, &again.url));
    }

    #[test]
    fn the_three_kinds_of_tracker_are_read() {
        let http = url("http://tracker.example/announce?pass=1");
        assert_eq!((http.scheme(), http.port()), (Scheme::Http, 80));
        assert_eq!(http.host(), "tracker.example");
        assert_eq!(http.with_query("a=1"), "http://tracker.example/announce?pass=1&a=1");
        let udp = url("udp://[::1]:6969");
        assert_eq!((udp.scheme(), udp.host().as_str(), udp.port()), (Scheme::Udp, "::1", 6_969));
        let https = url("HTTPS://t.example:8443/x/announce.php#top");
        assert_eq!((https.scheme(), https.port()), (Scheme::Https, 8_443));
        assert_eq!(https.with_query("a=1"), "https://t.example:8443/x/announce.php?a=1");
    }

    #[test]
    fn scrape_addresses_follow_the_convention() {
        let scrape = |text| url(text).scrape().map(|url| url.to_string());
        assert_eq!(scrape("http://t/a/announce?k=1").unwrap(), "http://t/a/scrape?k=1");
        assert_eq!(scrape("http://t/announce.php").unwrap(), "http://t/scrape.php");
        assert_eq!(scrape("http://t/x"), None);
        assert_eq!(scrape("http://t/announce/x"), None);
        assert_eq!(scrape("udp://t:1/x").unwrap(), "udp://t:1/x");
    }

    #[test]
    fn what_is_no_tracker_is_refused_with_a_reason() {
        let fault = |text: &str| TrackerUrl::parse(text).unwrap_err();
        assert!(matches!(fault("wss://t/announce"), TrackerUrlError::Scheme { .. }));
        assert!(matches!(fault("file:///etc/passwd"), TrackerUrlError::Scheme { .. }));
        assert_eq!(fault("udp://t/announce").to_string(), "`udp://t/announce` lacks a port");
        assert!(fault("udp://:80").to_string().contains("udp://:80"));
        assert_eq!(fault("http://t:0/").to_string(), "`http://t:0/` lacks a port other than 0");
        assert!(matches!(fault("no\x1burl"), TrackerUrlError::NotUrl { .. }));
        assert!(!fault("no\x1burl").to_string().contains('\x1b'));
        let long = format!("http://t/{}", "a".repeat(MAX_URL_LEN));
        assert!(matches!(fault(&long), TrackerUrlError::TooLong { .. }));
    }

    #[test]
    fn a_bare_address_means_udp_then_http_and_a_catalogue() {
        let target = TrackerTarget::parse("127.0.0.1:8000").unwrap();
        assert_eq!(
            target.tiers,
            [[url("udp://127.0.0.1:8000/announce")], [url("http://127.0.0.1:8000/announce")],]
        );
        assert_eq!(target.catalogue.as_deref(), Some("http://127.0.0.1:8000"));
        let target = TrackerTarget::parse("[::1]:8000").unwrap();
        assert_eq!(target.tiers[0], [url("udp://[::1]:8000/announce")]);
        assert_eq!(target.catalogue.as_deref(), Some("http://[::1]:8000"));
        assert!(TrackerTarget::parse("localhost:8000").is_ok());
    }

    #[test]
    fn a_url_is_announced_to_as_it_stands() {
        let target = TrackerTarget::parse("http://t.example:8000/announce").unwrap();
        assert_eq!(target.tiers, [[url("http://t.example:8000/announce")]]);
        assert_eq!(target.catalogue.as_deref(), Some("http://t.example:8000"));
        let target = TrackerTarget::parse("udp://t.example:8000").unwrap();
        assert_eq!(target.tiers, [[url("udp://t.example:8000")]]);
        assert_eq!(target.catalogue, None);
    }

    #[test]
    fn a_url_without_a_path_is_announced_to_at_the_usual_one() {
        for text in ["http://t.example:8000", "http://t.example:8000/"] {
            let target = TrackerTarget::parse(text).unwrap();
            assert_eq!(target.tiers, [[url("http://t.example:8000/announce")]]);
            assert_eq!(target.catalogue.as_deref(), Some("http://t.example:8000"));
        }
        let target = TrackerTarget::parse("http://t.example/?key=1").unwrap();
        assert_eq!(target.tiers, [[url("http://t.example/?key=1")]]);
    }

    #[test]
    fn what_the_user_named_is_known_among_what_others_name() {
        let named = TrackerTarget::parse("10.0.0.1:8000").unwrap().tiers.concat();
        let of = |text: &str| url(text).named_among(named.iter()).provenance();
        assert_eq!(of("http://10.0.0.1:8000/announce"), Provenance::Named);
        assert_eq!(of("http://10.0.0.1:8000/reboot"), Provenance::Nearby);
        assert_eq!(of("http://10.0.0.1:80/announce"), Provenance::Foreign);
        assert_eq!(of("http://10.0.0.2:8000/announce"), Provenance::Foreign);
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["", "127.0.0.1", ":8000", "host:", "host:0", "host:65536", "a b:1", "::1:80x"]
        {
            assert!(
                matches!(TrackerTarget::parse(text), Err(TrackerUrlError::NotTarget { .. })),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,60}", tail in "[\\[\\]:/0-9a-z.@?#%]{0,30}") {
            let _ = TrackerTarget::parse(&text);
            for scheme in ["", "udp://", "http://"] {
                if let Ok(url) = TrackerUrl::parse(&format!("{scheme}{tail}")) {
                    prop_assert_eq!(&TrackerUrl::parse(url.as_str()).unwrap(), &url);
                    let _ = (url.host(), url.port(), url.scrape(), url.with_query("a=1"));
                }
            }
        }
    }
}
