//! The client behind a proxy: `X-Forwarded-For` and `Forwarded` (RFC 7239), trusted only from configured addresses.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::FORWARDED;
use axum::http::{HeaderMap, HeaderName};

use piecework_core::printable;

/// The addresses of trusted proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Vec<Network>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    ip: IpAddr,
    /// The number of significant bits.
    prefix: u8,
}

/// A configured proxy is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` in `proxies` is neither an address nor a network such as `10.0.0.0/8`",
    printable(.0)
)]
pub struct NoProxy(
    /// The configured text.
    pub String,
);

/// Why the client behind a proxy is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForwardedError {
    /// The header does not end with an address.
    #[error("the proxy's `{0}` does not end with an address")]
    NoAddress(
        /// The header.
        &'static str,
    ),
    /// Both headers are present. One is the proxy's and the other the client's.
    #[error(
        "`X-Forwarded-For` and `Forwarded` name different clients: have the proxy remove the one that \
         it does not set"
    )]
    Disagree,
}

impl Proxies {
    /// Parses addresses and networks (`10.0.0.0/8`).
    ///
    /// # Errors
    /// If one is neither.
    pub fn parse(texts: &[String]) -> Result<Self, NoProxy> {
        let network = |text: &String| {
            let (ip, prefix) = match text.split_once('/') {
                Some((ip, prefix)) => (ip, Some(prefix.parse::<u8>().ok()?)),
                None => (text.as_str(), None),
            };
            let ip = ip.parse::<IpAddr>().ok()?.to_canonical();
            let most = if ip.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.unwrap_or(most);
            (prefix <= most).then_some(Network { ip, prefix })
        };
        let read = |text: &String| network(text).ok_or_else(|| NoProxy(text.clone()));
        Ok(Self { networks: texts.iter().map(read).collect::<Result<_, _>>()? })
    }

    /// Returns whether there is a proxy at `ip`.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(ip))
    }

    /// Returns the client of a request that came from `peer`: `peer` itself, unless it is a proxy that names
    /// another address. Of several addresses the last one that is not a proxy counts, because the client itself may
    /// have written those before it. The port is 0 if the proxy does not name it.
    ///
    /// # Errors
    /// If the proxy's headers are invalid.
    pub fn client(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
    ) -> Result<SocketAddr, ForwardedError> {
        if self.networks.is_empty() || !self.contains(peer.ip()) {
            return Ok(peer);
        }
        let listed =
            self.last(&hops(headers, X_FORWARDED_FOR, |hop| Some(hop)), "X-Forwarded-For")?;
        let standard = self.last(&hops(headers, FORWARDED, for_of), "Forwarded")?;
        match (listed, standard) {
            (Some(one), Some(other)) if one.ip() != other.ip() => Err(ForwardedError::Disagree),
            (one, other) => Ok(one.or(other).unwrap_or(peer)),
        }
    }

    /// Returns the last address that is not a proxy; the first one if all are.
    fn last(
        &self,
        hops: &[String],
        header: &'static str,
    ) -> Result<Option<SocketAddr>, ForwardedError> {
        let mut found = None;
        for hop in hops.iter().rev() {
            let addr = address(hop).ok_or(ForwardedError::NoAddress(header))?;
            found = Some(addr);
            if !self.contains(addr.ip()) {
                break;
            }
        }
        Ok(found)
    }
}

impl Network {
    fn contains(&self, ip: IpAddr) -> bool {
        let prefix = u32::from(self.prefix);
        match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let differ = a.to_bits() ^ b.to_bits();
                differ.checked_shr(32 - prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let differ = a.to_bits() ^ b.to_bits();
                differ.checked_shr(128 - prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Returns the elements of a list in one or more headers, in order, as parsed by `read`. An element that cannot be
/// parsed is empty, which is not an address.
fn hops(headers: &HeaderMap, name: HeaderName, read: impl Fn(&str) -> Option<&str>) -> Vec<String> {
    let mut hops = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().unwrap_or("?");
        let parts = split(text, b',').into_iter().filter(|part| !part.is_empty());
        hops.extend(parts.map(|part| read(part).unwrap_or_default().to_owned()));
    }
    hops
}

/// Returns the value of `for=` in one element of `Forwarded`.
fn for_of(part: &str) -> Option<&str> {
    split(part, b';').into_iter().find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
    })
}

/// Splits a text at separators outside of quotes, and trims the parts.
fn split(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// Parses an address with or without a port, brackets and quotes.
fn address(hop: &str) -> Option<SocketAddr> {
    let bare = hop.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(hop);
    if let Ok(addr) = bare.parse::<SocketAddr>() {
        return Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()));
    }
    let inner = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(bare);
    let ip: IpAddr = inner.parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), 0))
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(texts: &[&str]) -> Proxies {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Proxies::parse(&texts).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn client(peer: &str, pairs: &[(&'static str, &str)]) -> Result<String, ForwardedError> {
        let proxies = proxies(&["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]);
        let client = proxies.client(peer.parse().unwrap(), &headers(pairs));
        client.map(|addr| addr.to_string())
    }

    #[test]
    fn strangers_are_not_believed_and_proxies_are() {
        let xff = "x-forwarded-for";
        let said = [(xff, "192.0.2.7")];
        assert_eq!(client("198.51.100.1:4", &said).unwrap(), "198.51.100.1:4");
        assert_eq!(client("11.0.0.1:4", &said).unwrap(), "11.0.0.1:4");
        for proxy in ["127.0.0.1:4", "10.9.8.7:4", "[2001:db8::9]:4", "[::ffff:10.0.0.1]:4"] {
            assert_eq!(client(proxy, &said).unwrap(), "192.0.2.7:0", "{proxy}");
            assert_eq!(client(proxy, &[]).unwrap(), proxy, "it speaks for itself");
        }
        assert!(
            Proxies::default()
                .client("127.0.0.1:4".parse().unwrap(), &headers(&said))
                .is_ok_and(|addr| addr.to_string() == "127.0.0.1:4")
        );
    }

    #[test]
    fn the_last_address_that_is_no_proxys_counts() {
        let xff = "x-forwarded-for";
        for (lines, wanted) in [
            (vec!["6.6.6.6, 192.0.2.7"], "192.0.2.7:0"),
            (vec!["6.6.6.6", "192.0.2.7:81, 10.0.0.2,127.0.0.1"], "192.0.2.7:81"),
            (vec!["nonsense, 192.0.2.7"], "192.0.2.7:0"),
            (vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3:0"),
            (vec!["[2001:db9::1]:7"], "[2001:db9::1]:7"),
            (vec!["::ffff:192.0.2.7"], "192.0.2.7:0"),
        ] {
            let pairs: Vec<_> = lines.iter().map(|line| (xff, *line)).collect();
            assert_eq!(client("127.0.0.1:4", &pairs).unwrap(), wanted, "{lines:?}");
        }
        for line in ["unknown", "192.0.2.7, _hidden", "1.2.3", "192.0.2.7/8"] {
            let refused = ForwardedError::NoAddress("X-Forwarded-For");
            assert_eq!(client("127.0.0.1:4", &[(xff, line)]), Err(refused), "{line}");
        }
    }

    #[test]
    fn the_standard_header_is_read_with_its_quotes() {
        for (line, wanted) in [
            ("for=192.0.2.7", "192.0.2.7:0"),
            ("For=\"192.0.2.7:81\";proto=https;by=10.0.0.1", "192.0.2.7:81"),
            ("for=6.6.6.6, proto=http; for=\"[2001:db9::1]:7\"", "[2001:db9::1]:7"),
            ("by=\"a,b;c\\\"d\";for=192.0.2.7,for=10.0.0.5", "192.0.2.7:0"),
        ] {
            assert_eq!(client("127.0.0.1:4", &[("forwarded", line)]).unwrap(), wanted, "{line}");
        }
        let refused = Err(ForwardedError::NoAddress("Forwarded"));
        assert_eq!(client("127.0.0.1:4", &[("forwarded", "for=unknown")]), refused);
        assert_eq!(client("127.0.0.1:4", &[("forwarded", "proto=http")]), refused);
        // Whichever the proxy set, the other is the client's.
        let both = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(client("127.0.0.1:4", &both), Err(ForwardedError::Disagree));
        let same = [("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(client("127.0.0.1:4", &same).unwrap(), "192.0.2.7:0");
    }

    #[test]
    fn networks_are_read_and_what_is_none_is_refused() {
        assert!(proxies(&["0.0.0.0/0"]).contains([1, 2, 3, 4].into()));
        assert!(!proxies(&["10.0.0.0/9"]).contains([10, 128, 0, 1].into()));
        for wrong in ["", "10.0.0.0/33", "::/129", "proxy.example", "10.0.0.0/", "10.0.0.1:80"] {
            let error = Proxies::parse(&[wrong.to_owned()]).unwrap_err();
            assert!(error.to_string().contains(&format!("`{wrong}`")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(line in "[ -~]{0,60}") {
            let _ = client("127.0.0.1:4", &[("forwarded", &line)]);
            let _ = client("127.0.0.1:4", &[("x-forwarded-for", &line)]);
        }
    }
}
