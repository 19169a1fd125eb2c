//! Magnet links (BEP 9, BEP 53): an info-hash, and where to find more about it.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::{PeerName, Scheme, TrackerUrl};
use piecework_core::{InfoHash, printable};

/// The parts of a magnet link that are used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Magnet {
    /// The torrent it names (`xt=urn:btih:`).
    pub info_hash: InfoHash,
    /// The name of the torrent (`dn`). It may contain any characters: show it through
    /// [`printable`].
    pub name: Option<String>,
    /// The supported trackers (`tr`), each once.
    pub trackers: Vec<TrackerUrl>,
    /// Web addresses of the `.torrent` (`xs`, `as`).
    pub sources: Vec<String>,
    /// Peers (`x.pe`), by address or by name.
    pub peers: Vec<PeerName>,
    /// The numbers of the wanted files (`so`, BEP 53), counted from 0. Empty if all are wanted.
    pub selected: Vec<RangeInclusive<u32>>,
    /// A sentence for each part that is not used. All text in them is printable.
    pub unused: Vec<String>,
}

/// Why a text is not a usable magnet link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// The text does not begin like a magnet link.
    #[error("it does not begin with `magnet:?`")]
    NotMagnet,
    /// The text is too long.
    #[error("the magnet link has `{0}` bytes, which exceeds the limit of `{MAX_LEN}`")]
    TooLong(usize),
    /// The link has no info-hash.
    #[error("the magnet link names no torrent: it has no `xt=urn:btih:` with an info-hash")]
    NoTorrent,
    /// The link has another hash than SHA-1.
    #[error(
        "the magnet link is of a version 2 torrent only (`urn:btmh:`), which is not supported yet"
    )]
    VersionTwoOnly,
    /// The info-hash is not valid.
    #[error(
        "`{0}` in the magnet link is not an info-hash, which has 40 hexadecimal digits or 32 of base32"
    )]
    BadHash(
        /// The value, safe to show.
        String,
    ),
}

impl Magnet {
    /// Returns the link of a torrent: its info-hash, its name, and those of `trackers` that are supported.
    pub fn new<'a>(
        info_hash: InfoHash,
        name: Option<&str>,
        trackers: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut link = Self {
            info_hash,
            name: name.map(cut),
            trackers: Vec::new(),
            sources: Vec::new(),
            peers: Vec::new(),
            selected: Vec::new(),
            unused: Vec::new(),
        };
        trackers.into_iter().for_each(|url| link.add_tracker(url));
        link.unused.clear();
        link
    }

    /// Returns whether `text` begins like a magnet link.
    pub fn is_meant(text: &str) -> bool {
        let scheme = text.trim_start().as_bytes().get(..SCHEME.len());
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME.as_bytes()))
    }

    /// Parses a link.
    ///
    /// # Errors
    /// If it is not a magnet link, is longer than 64 KiB, or has no SHA-1 info-hash.
    pub fn parse(text: &str) -> Result<Self, MagnetError> {
        let text = text.trim();
        if !Self::is_meant(text) {
            return Err(MagnetError::NotMagnet);
        }
        if text.len() > MAX_LEN {
            return Err(MagnetError::TooLong(text.len()));
        }
        let (_, query) = text.split_once('?').ok_or(MagnetError::NotMagnet)?;
        // Some sites escape `&` as in HTML.
        let query = query.replace("&amp;", "&");
        let mut hash = None;
        let mut has_version_two = false;
        let mut link = Self::new(InfoHash([0; 20]), None, []);
        let mut web_seeds = 0;
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            // Repeated keys may be numbered: `tr.1`.
            let (kind, number) = key.split_once('.').unwrap_or((&key, "0"));
            let is_numbered = number.bytes().all(|byte| byte.is_ascii_digit());
            match kind {
                "xt" if is_numbered => match urn(&value) {
                    Some(("btih", text)) if hash.is_none() => hash = Some(read_hash(text)?),
                    Some(("btmh", _)) => has_version_two = true,
                    _ => {}
                },
                "dn" if link.name.is_none() => link.name = Some(cut(&value)),
                "tr" if is_numbered => link.add_tracker(&value),
                "xs" | "as" if is_numbered => link.add_source(&value),
                "so" if is_numbered => link.add_selection(&value),
                "ws" if is_numbered => web_seeds += 1,
                "x" if number == "pe" => link.add_peer(&value),
                _ => {}
            }
        }
        if web_seeds > 0 {
            link.unused.push(format!(
                "web seeds are not supported: `{web_seeds}` in the magnet link are not used"
            ));
        }
        match hash {
            Some(info_hash) => Ok(Self { info_hash, ..link }),
            None if has_version_two => Err(MagnetError::VersionTwoOnly),
            None => Err(MagnetError::NoTorrent),
        }
    }

    /// Returns the trackers in the form of [`TrackerTarget::parse`](super::TrackerTarget::parse), so that their
    /// catalogues can be asked: one for each host and port. A UDP tracker has its catalogue on the same port.
    pub fn tracker_names(&self) -> Vec<String> {
        let mut places = Vec::new();
        let mut names = Vec::new();
        for tracker in &self.trackers {
            let place = tracker.place();
            if !places.contains(&place) {
                names.push(match tracker.scheme() {
                    Scheme::Udp => place.clone(),
                    Scheme::Http | Scheme::Https => tracker.as_str().to_owned(),
                });
                places.push(place);
            }
        }
        names
    }

    /// Returns the wanted files as people write them, counted from 1: `1,3-5`. `None` if all are wanted.
    pub fn wanted_files(&self) -> Option<String> {
        let ranges = self.selected.iter().map(|range| {
            let (first, last) = (u64::from(*range.start()) + 1, u64::from(*range.end()) + 1);
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        });
        let ranges: Vec<String> = ranges.collect();
        (!ranges.is_empty()).then(|| ranges.join(","))
    }

    /// Returns the numbers of the wanted files, counted from 0, of a torrent with `files` files. `None` if
    /// the link does not choose, or chooses no file that the torrent has.
    pub fn wanted_of(&self, files: u32) -> Option<Vec<u32>> {
        let last = files.checked_sub(1)?;
        let parts = self.selected.iter().filter(|range| *range.start() <= last);
        let mut numbers: Vec<u32> = Vec::new();
        for part in parts {
            // Ranges are sorted and do not overlap, so these are at most `files` numbers.
            numbers.extend(*part.start()..=(*part.end()).min(last));
        }
        (!numbers.is_empty()).then_some(numbers)
    }

    fn add_selection(&mut self, text: &str) {
        for part in text.split(',').filter(|part| !part.is_empty()).take(MAX_SELECTED) {
            match file_range(part) {
                Some(range) => self.selected.push(range),
                None if self.unused.len() < MAX_UNUSED => {
                    let part: String = printable(part).chars().take(MAX_SHOWN).collect();
                    self.unused.push(format!("`{part}` in `so` does not number files"));
                }
                None => {}
            }
        }
        self.selected.truncate(MAX_SELECTED);
        self.selected.sort_unstable_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u32>> = Vec::new();
        for range in std::mem::take(&mut self.selected) {
            match merged.last_mut() {
                Some(before) if *range.start() <= before.end().saturating_add(1) => {
                    *before = *before.start()..=(*before.end()).max(*range.end());
                }
                _ => merged.push(range),
            }
        }
        self.selected = merged;
    }

    fn add_tracker(&mut self, text: &str) {
        let text = text.trim();
        match text.parse::<TrackerUrl>() {
            Ok(tracker) if self.trackers.contains(&tracker) => {}
            Ok(tracker) if self.trackers.len() < MAX_TRACKERS => self.trackers.push(tracker),
            Ok(_) => {}
            Err(error) if self.unused.len() < MAX_UNUSED => {
                let text = printable(text);
                self.unused.push(format!("the tracker `{text}` is not used: {error}"));
            }
            Err(_) => {}
        }
    }

    fn add_peer(&mut self, text: &str) {
        let Ok(peer) = text.parse::<PeerName>() else { return };
        let is_named = |peer: &PeerName| peer.host.parse::<IpAddr>().is_err();
        let names = self.peers.iter().filter(|peer| is_named(peer)).count();
        let has_room = self.peers.len() < MAX_PEERS && (names < MAX_NAMES || !is_named(&peer));
        if has_room && !self.peers.contains(&peer) {
            self.peers.push(peer);
        }
    }

    fn add_source(&mut self, text: &str) {
        let is_web = Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if is_web && self.sources.len() < MAX_SOURCES {
            self.sources.push(text.to_owned());
        }
    }
}

impl FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, MagnetError> {
        Self::parse(text)
    }
}

impl fmt::Display for Magnet {
    /// Writes the link. It can be parsed again: trackers and peers that would make it too long are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut link = format!("magnet:?xt=urn:btih:{}", self.info_hash);
        let mut put = |key: &str, value: &str| {
            let value = utf8_percent_encode(value, ESCAPED);
            let before = link.len();
            // Writing to a String cannot fail.
            let _ = write!(link, "&{key}={value}");
            if link.len() > MAX_LEN {
                link.truncate(before);
            }
        };
        if let Some(name) = &self.name {
            put("dn", name);
        }
        if !self.selected.is_empty() {
            let ranges = self.selected.iter().map(|range| match (range.start(), range.end()) {
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            });
            put("so", &ranges.collect::<Vec<String>>().join(","));
        }
        self.trackers.iter().for_each(|tracker| put("tr", tracker.as_str()));
        self.sources.iter().for_each(|source| put("xs", source));
        self.peers.iter().for_each(|peer| put("x.pe", &peer.to_string()));
        f.write_str(&link)
    }
}

/// Returns the range in `N` or `N-M`.
fn file_range(text: &str) -> Option<RangeInclusive<u32>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some(first..=last)
}

fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_NAME)].to_owned()
}

/// Returns the kind and value of `urn:KIND:VALUE`.
fn urn(text: &str) -> Option<(&str, &str)> {
    let rest = text.get(..4).filter(|urn| urn.eq_ignore_ascii_case("urn:")).map(|_| &text[4..])?;
    let (kind, value) = rest.split_once(':')?;
    ["btih", "btmh"].into_iter().find(|known| kind.eq_ignore_ascii_case(known)).map(|k| (k, value))
}

fn read_hash(text: &str) -> Result<InfoHash, MagnetError> {
    let text = text.trim();
    let hash = text.parse().ok().or_else(|| base32(text).map(InfoHash));
    hash.ok_or_else(|| {
        let shown: String = printable(text).chars().take(MAX_SHOWN).collect();
        MagnetError::BadHash(shown)
    })
}

/// Decodes twenty bytes in base32 (RFC 4648), which links used before BEP 9 required hexadecimal digits.
fn base32(text: &str) -> Option<[u8; 20]> {
    if text.len() != 32 {
        return None;
    }
    let mut bytes = [0; 20];
    for (five, digits) in bytes.chunks_exact_mut(5).zip(text.as_bytes().chunks_exact(8)) {
        let value = digits.iter().try_fold(0u64, |value, digit| {
            let digit = match digit.to_ascii_uppercase() {
                letter @ b'A'..=b'Z' => letter - b'A',
                number @ b'2'..=b'7' => number - b'2' + 26,
                _ => return None,
            };
            Some(value << 5 | u64::from(digit))
        })?;
        // 40 bits, so the first three bytes are 0.
        five.copy_from_slice(&value.to_be_bytes()[3..]);
    }
    Some(bytes)
}

const SCHEME: &str = "magnet:";

/// The maximum length of a link. A link with a hundred trackers has some 8 KiB.
const MAX_LEN: usize = 64 << 10;

/// The maximum length of a name. File systems allow 255 bytes.
const MAX_NAME: usize = 1024;

/// The maximum number of ranges of wanted files. More are ignored.
const MAX_SELECTED: usize = 1000;

/// The maximum number of trackers, of peers, and of addresses of the `.torrent` file.
const MAX_TRACKERS: usize = 50;
const MAX_PEERS: usize = 100;
const MAX_SOURCES: usize = 4;

/// The maximum number of peers by host name, because each needs a DNS query.
const MAX_NAMES: usize = 8;

/// The maximum number of unsupported trackers that are named in sentences.
const MAX_UNUSED: usize = 5;

/// The maximum number of characters of an invalid hash in an error.
const MAX_SHOWN: usize = 80;

/// What is escaped in a link. Programs that take links apart at `&` and `=` alone must understand it too.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b',');

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::announce::Provenance;

    const HEX: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn line_11_a_link_is_read_as_sites_write_it() {
        let link = Magnet::parse(&format!(
            "magnet:?xt=urn:btih:{HEX}&dn=a+b%20c&tr=http%3A%2F%2F10.0.0.1%3A8000%2Fannounce\
             &tr.1=udp://t.org:1337&tr=udp://t.org:1337&tr=http://t.org:1337/x&x.pe=10.0.0.2:6881&x.pe=[::1]:5&x.pe=no\
             &x.pe=peer.example:6881&x.pe=10.0.0.2:6881&x.pe=a_b:0&x.pe=no name:1\
             &xs=http://t.org/a.torrent&xs=urn:x&ws=http://t.org/f&tr=wss://w.org&xl=5"
        ));
        let link = link.unwrap();
        assert_eq!(link.info_hash.to_string(), HEX);
        assert_eq!(link.name.as_deref(), Some("a b c"));
        let trackers: Vec<&str> = link.trackers.iter().map(TrackerUrl::as_str).collect();
        assert_eq!(trackers[..2], ["http://10.0.0.1:8000/announce", "udp://t.org:1337"]);
        assert_eq!(trackers.len(), 3);
        assert!(link.trackers.iter().all(|it| it.provenance() == Provenance::Foreign));
        assert_eq!(link.tracker_names(), ["http://10.0.0.1:8000/announce", "t.org:1337"]);
        let peers: Vec<String> = link.peers.iter().map(PeerName::to_string).collect();
        assert_eq!(peers, ["10.0.0.2:6881", "[::1]:5", "peer.example:6881"]);
        assert_eq!(link.sources, ["http://t.org/a.torrent"]);
        assert!(link.unused[0].contains("`wss://w.org`"), "{:?}", link.unused);
        assert!(link.unused[1].contains("web seeds"), "{:?}", link.unused);
    }

    #[test]
    fn line_11_few_peers_by_name_are_taken_of_a_link_and_more_by_address() {
        let peers =
            (0..500).map(|n| format!("&x.pe=p{n}.example:1&x.pe=10.0.{}.{}:1", n / 250, n % 250));
        let link = format!("magnet:?xt=urn:btih:{HEX}{}", peers.collect::<String>());
        let peers = Magnet::parse(&link).unwrap().peers;
        let named = peers.iter().filter(|peer| peer.host.contains("example")).count();
        assert_eq!((named, peers.len()), (MAX_NAMES, MAX_PEERS));
    }

    #[test]
    fn an_info_hash_may_be_in_base32_and_stand_beside_that_of_version_two() {
        let base32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let hash = "00443214c74254b635cf84653a56d7c675be77df";
        for text in [
            format!("magnet:?xt=urn:btih:{base32}"),
            format!("MAGNET:?xt=URN:BTIH:{}", base32.to_lowercase()),
            format!("magnet:?xt=urn:btmh:1220aa&amp;xt=urn:btih:{hash}"),
            format!(" magnet:?dn=x&xt.1=urn:btih:{} \n", hash.to_uppercase()),
        ] {
            assert_eq!(Magnet::parse(&text).unwrap().info_hash.to_string(), hash, "{text}");
        }
    }

    #[test]
    fn what_is_no_link_says_why() {
        let fault = |text: &str| Magnet::parse(text).unwrap_err();
        assert_eq!(fault("http://x"), MagnetError::NotMagnet);
        assert_eq!(fault("magnet:"), MagnetError::NotMagnet);
        assert_eq!(fault("magnet:?dn=x"), MagnetError::NoTorrent);
        assert_eq!(fault("magnet:?xt=urn:sha1:abc"), MagnetError::NoTorrent);
        assert_eq!(fault("magnet:?xt=urn:btmh:1220aa"), MagnetError::VersionTwoOnly);
        let bad = fault("magnet:?xt=urn:btih:ab%1bcd").to_string();
        assert!(bad.contains("`ab\\x1bcd`"), "{bad}");
        let long = format!("magnet:?xt=urn:btih:{HEX}&dn={}", "x".repeat(MAX_LEN));
        assert!(matches!(fault(&long), MagnetError::TooLong(_)));
        assert!(Magnet::is_meant("Magnet:x") && !Magnet::is_meant("magne"));
        assert!(!Magnet::is_meant("magnéét:"));
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "(magnet:\\?)?(xt=urn:btih:|&tr=|&|=|%|\\PC){0,40}") {
            let _ = Magnet::parse(&text).map(|link| link.tracker_names());
        }

        #[test]
        fn what_is_written_is_read(hash in any::<[u8; 20]>(), name in "\\PC{0,20}") {
            let hash = InfoHash(hash);
            let escaped: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
            let link = Magnet::parse(&format!("magnet:?xt=urn:btih:{hash}&dn={escaped}")).unwrap();
            prop_assert_eq!(link.info_hash, hash);
            prop_assert_eq!(link.name, Some(name));
        }

        #[test]
        fn what_is_printed_is_parsed(
            hash in any::<[u8; 20]>(),
            text in "(&(tr=(http|udp)://[a-z]{1,9}(:[1-9]{1,3})?/[a-z&?=%]{0,9}|so=[0-9,-]{0,9}|dn=\\PC{0,9}\
                     |x.pe=(\\[[a-f0-9]{1,4}::1\\]|[1-9]\\.2\\.3\\.4|[a-z]{1,9}):[0-9]{1,5}|xs=http://[a-z]{1,9}\
                     |ws=x)){0,80}",
        ) {
            let link = Magnet::parse(&format!("magnet:?xt=urn:btih:{}{text}", InfoHash(hash))).unwrap();
            let printed = link.to_string();
            let again = Magnet::parse(&printed).unwrap();
            prop_assert_eq!(&again, &Magnet { unused: Vec::new(), ..link });
            prop_assert_eq!(again.to_string(), printed);
        }
    }

    #[test]
    fn a_link_chooses_files() {
        let of = |so: &str| Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}&so={so}")).unwrap();
        let link = of("8,0,2-4,3-6,,x,9-7,-1,1-");
        assert_eq!(link.selected, [0..=0, 2..=6, 8..=8]);
        assert_eq!(link.wanted_files().as_deref(), Some("1,3-7,9"));
        assert_eq!(link.unused.len(), 4, "{:?}", link.unused);
        assert_eq!(link.wanted_of(4), Some(vec![0, 2, 3]));
        assert_eq!(
            (of("5").wanted_of(5), of("").wanted_of(5), of("0").wanted_of(0)),
            (None, None, None)
        );
        let all = of("0-4294967295");
        assert_eq!(all.wanted_of(2), Some(vec![0, 1]));
        assert_eq!(all.wanted_files().as_deref(), Some("1-4294967296"));
        let many: Vec<String> = (0..2 * MAX_SELECTED).map(|n| (2 * n).to_string()).collect();
        assert_eq!(of(&many.join(",")).selected.len(), MAX_SELECTED);
    }

    #[test]
    fn a_printed_link_is_never_too_long() {
        let trackers: Vec<String> =
            (0..60).map(|n| format!("http://t{n}.example/{}", "%".repeat(1500))).collect();
        let name = "é".repeat(2000);
        let link = Magnet::new(InfoHash([1; 20]), Some(&name), trackers.iter().map(String::as_str));
        assert_eq!(link.name.as_ref().unwrap().len(), MAX_NAME);
        let printed = link.to_string();
        let again = Magnet::parse(&printed).unwrap();
        assert!(again.trackers.len() < link.trackers.len() && !again.trackers.is_empty());
        assert!(link.trackers.starts_with(&again.trackers));
    }
}
