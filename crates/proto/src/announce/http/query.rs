//! The query of an announce or scrape.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::MAX_SCRAPE_HASHES;
use crate::announce::query::{
    escape, info_hash, key, pairs, peer_id, port, required, same, unescape,
};
use crate::announce::{Announce, AnnounceError, AnnounceEvent, Scrape};

/// Returns the query of an announce, without the `?`.
pub fn encode_query(announce: &Announce) -> String {
    let mut out = String::with_capacity(400);
    // Writing to a String cannot fail.
    let _ = write_query(announce, &mut out);
    out
}

/// Parses the query of an announce. Unknown keys are ignored, and so are invalid values of keys that identify
/// neither the peer nor the torrent: an unknown event counts as none. If a key is repeated, the last value counts,
/// because an announce URL may contain keys of its own.
///
/// # Errors
/// If `info_hash`, `peer_id` or `port` is missing, repeated with different values, or not valid, or `left` is not a
/// number. With the event `stopped` the port may be missing; it is 0 then.
pub fn decode_query(query: &str) -> Result<Announce, AnnounceError> {
    let mut found = Found::default();
    for (key, value) in pairs(query)? {
        found.take(key, value)?;
    }
    let info_hash = required(found.info_hash, "info_hash")?;
    let peer_id = required(found.peer_id, "peer_id")?;
    let event = found.event.unwrap_or_default();
    let port = match (event, found.port) {
        (AnnounceEvent::Stopped, None) => 0,
        (_, said) => port(required(said, "port")?)?,
    };
    let left = match (event, found.left) {
        (_, Some(left)) => left,
        (AnnounceEvent::Completed, None) => 0,
        (_, None) => Announce::LEFT_UNKNOWN,
    };
    let mut announce = Announce::new(info_hash, peer_id, port, left);
    announce.uploaded = found.uploaded.unwrap_or(0);
    announce.downloaded = found.downloaded.unwrap_or(0);
    announce.event = event;
    announce.num_want = found.num_want.flatten();
    announce.key = found.key;
    announce.ip = found.ip.flatten();
    announce.compact = found.compact.unwrap_or(true);
    announce.no_peer_id = found.no_peer_id.unwrap_or(false);
    announce.tracker_id = found.tracker_id;
    Ok(announce)
}

/// Returns the query of a scrape, without the `?`. Hashes beyond [`MAX_SCRAPE_HASHES`] are left out.
pub fn encode_scrape_query(scrape: &Scrape) -> String {
    let mut out = String::with_capacity(71 * scrape.hashes.len().min(MAX_SCRAPE_HASHES));
    for hash in scrape.hashes.iter().take(MAX_SCRAPE_HASHES) {
        let separator = if out.is_empty() { "" } else { "&" };
        // Writing to a String cannot fail.
        let _ = write!(out, "{separator}info_hash={}", escape(&hash.0));
    }
    out
}

/// Parses the query of a scrape. A scrape without hashes asks for all torrents, which the tracker may refuse.
///
/// # Errors
/// If an info-hash is not valid, or there are more than [`MAX_SCRAPE_HASHES`].
pub fn decode_scrape_query(query: &str) -> Result<Scrape, AnnounceError> {
    let mut scrape = Scrape::default();
    for (_, value) in pairs(query)?.filter(|(key, _)| *key == "info_hash") {
        if scrape.hashes.len() == MAX_SCRAPE_HASHES {
            return Err(AnnounceError::TooManyHashes { limit: MAX_SCRAPE_HASHES });
        }
        scrape.hashes.push(info_hash(value)?);
    }
    Ok(scrape)
}

fn write_query(announce: &Announce, out: &mut String) -> std::fmt::Result {
    write!(
        out,
        "info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}&compact={}",
        escape(&announce.info_hash.0),
        escape(&announce.peer_id.0),
        announce.port,
        announce.uploaded,
        announce.downloaded,
        announce.left,
        u8::from(announce.compact),
    )?;
    if announce.no_peer_id {
        out.write_str("&no_peer_id=1")?;
    }
    match announce.event {
        AnnounceEvent::None => {}
        AnnounceEvent::Started => out.write_str("&event=started")?,
        AnnounceEvent::Stopped => out.write_str("&event=stopped")?,
        AnnounceEvent::Completed => out.write_str("&event=completed")?,
    }
    if let Some(wanted) = announce.num_want {
        write!(out, "&numwant={wanted}")?;
    }
    if let Some(key) = announce.key {
        write!(out, "&key={key}")?;
    }
    if let Some(ip) = announce.ip {
        write!(out, "&ip={}", escape(ip.to_string().as_bytes()))?;
    }
    if let Some(id) = &announce.tracker_id {
        write!(out, "&trackerid={}", escape(id))?;
    }
    Ok(())
}

/// The values of an announce's query that were found.
#[derive(Default)]
struct Found<'q> {
    info_hash: Option<piecework_core::InfoHash>,
    peer_id: Option<piecework_core::PeerId>,
    /// Parsed later, when it is known whether it is needed.
    port: Option<&'q str>,
    uploaded: Option<u64>,
    downloaded: Option<u64>,
    left: Option<u64>,
    event: Option<AnnounceEvent>,
    num_want: Option<Option<u32>>,
    key: Option<piecework_core::AnnounceKey>,
    ip: Option<Option<IpAddr>>,
    compact: Option<bool>,
    no_peer_id: Option<bool>,
    tracker_id: Option<Bytes>,
}

impl<'q> Found<'q> {
    fn take(&mut self, name: &str, value: &'q str) -> Result<(), AnnounceError> {
        match name {
            "info_hash" => same(&mut self.info_hash, "info_hash", info_hash(value)?)?,
            "peer_id" => same(&mut self.peer_id, "peer_id", peer_id(value)?)?,
            "port" => same(&mut self.port, "port", value)?,
            "uploaded" => self.uploaded = value.parse().ok(),
            "downloaded" => self.downloaded = value.parse().ok(),
            "left" => self.left = left(value)?,
            "event" => self.event = Some(event(value)),
            "numwant" => self.num_want = Some(num_want(value)),
            "key" if !value.is_empty() => self.key = Some(key(value)),
            "ip" => self.ip = Some(ip(value)),
            "compact" => self.compact = Some(value != "0"),
            "no_peer_id" => self.no_peer_id = Some(value != "0"),
            "trackerid" => self.tracker_id = tracker_id(value),
            _ => {}
        }
        Ok(())
    }
}

/// Parses an event. Any other text counts as a regular announce: `empty` comes from old clients, `paused` is a
/// partial seed's regular announce (BEP 21), and others may come.
fn event(value: &str) -> AnnounceEvent {
    match value {
        _ if value.eq_ignore_ascii_case("started") => AnnounceEvent::Started,
        _ if value.eq_ignore_ascii_case("stopped") => AnnounceEvent::Stopped,
        _ if value.eq_ignore_ascii_case("completed") => AnnounceEvent::Completed,
        _ => AnnounceEvent::None,
    }
}

/// Parses the bytes left. A client that does not know the torrent's length sends -1 or its largest number.
fn left(value: &str) -> Result<Option<u64>, AnnounceError> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AnnounceError::bad_value("left", value.as_bytes(), "a number of bytes"));
    }
    if value.is_empty() {
        return Ok(None);
    }
    Ok(Some(value.parse().map_or(Announce::LEFT_UNKNOWN, Announce::left_of)))
}

/// Parses the wanted number of peers. A negative or invalid number leaves it to the tracker, as in UDP announces.
fn num_want(value: &str) -> Option<u32> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| value.parse().unwrap_or(u32::MAX))
}

/// Parses the peer's address. BEP 3 also allows a DNS name, which counts as absent because it is not looked up for
/// strangers. Some clients put an IPv6 address in brackets, or add a port.
fn ip(value: &str) -> Option<IpAddr> {
    // The longest textual IPv6 address has 45 characters; with brackets and a port 53.
    let mut out = [0; 53];
    let len = unescape(value, &mut out)?;
    let text = std::str::from_utf8(&out[..len]).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|addr| addr.ip());
    bare.parse().ok().or_else(with_port)
}

/// Parses a tracker id. One that is too long is ignored, because this tracker issues none.
fn tracker_id(value: &str) -> Option<Bytes> {
    let mut out = [0; MAX_TRACKER_ID];
    unescape(value, &mut out).map(|len| Bytes::copy_from_slice(&out[..len]))
}

/// The maximum length of a tracker id. Those in use are shorter than 64 bytes.
pub(super) const MAX_TRACKER_ID: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::announce::model::tests::any_announce;
    use piecework_core::{InfoHash, PeerId};

    const GOOD: &str = "info_hash=%01%02aaaaaaaaaaaaaaaaaa&peer_id=-PW0100-abcdefghijkl&port=6881\
                        &uploaded=1&downloaded=2&left=3";

    fn fault(query: &str) -> String {
        decode_query(query).unwrap_err().to_string()
    }

    proptest! {
        #[test]
        fn announces_round_trip(announce in any_announce()) {
            prop_assert_eq!(decode_query(&encode_query(&announce)).unwrap(), announce);
        }

        #[test]
        fn scrapes_round_trip(
            hashes in proptest::collection::vec(any::<[u8; 20]>(), 0..=MAX_SCRAPE_HASHES),
        ) {
            let scrape = Scrape { hashes: hashes.into_iter().map(InfoHash).collect() };
            prop_assert_eq!(decode_scrape_query(&encode_scrape_query(&scrape)).unwrap(), scrape);
        }

        #[test]
        fn arbitrary_queries_never_panic(query in "\\PC*", tail in "[%&=a-f0-9_hinosprt]{0,80}") {
            let _ = decode_query(&query);
            let _ = decode_query(&tail);
            let _ = decode_query(&format!("{GOOD}&info_hash={tail}"));
            let _ = decode_scrape_query(&format!("info_hash={tail}"));
        }
    }

    #[test]
    fn a_query_of_another_client_is_read() {
        let announce = decode_query(
            "info_hash=%124Vx%9a%bc%de%f1%23Eg%89%ab%cd%ef%124Vx%9a&peer_id=-TR3000-iu0ftlz2w1lo\
             &port=51413&uploaded=0&downloaded=0&left=0&numwant=80&key=5bb5ac81&compact=1\
             &supportcrypto=1&requirecrypto=0&event=started&ipv6=%3A%3A1&corrupt=0",
        )
        .unwrap();
        assert_eq!(announce.info_hash.to_string(), "123456789abcdef123456789abcdef123456789a");
        assert_eq!(announce.peer_id, PeerId(*b"-TR3000-iu0ftlz2w1lo"));
        assert_eq!((announce.port, announce.left), (51_413, 0));
        assert_eq!(announce.event, AnnounceEvent::Started);
        assert_eq!((announce.num_want, announce.key), (Some(80), Some(0x5bb5_ac81.into())));
        assert!(announce.compact && !announce.no_peer_id);
    }

    #[test]
    fn each_required_key_is_asked_for() {
        assert!(decode_query(GOOD).is_ok());
        for key in ["info_hash", "peer_id", "port"] {
            let without: Vec<_> = GOOD.split('&').filter(|part| !part.starts_with(key)).collect();
            assert_eq!(fault(&without.join("&")), format!("`{key}` is missing"));
        }
    }

    #[test]
    fn of_doubled_keys_the_last_counts_but_for_those_that_say_who_announces_what() {
        let twice = "`port` is repeated with different values";
        assert_eq!(fault(&format!("{GOOD}&port=1")), twice);
        let other = format!("{GOOD}&info_hash={}", "b".repeat(20));
        assert_eq!(fault(&other), "`info_hash` is repeated with different values");
        let same = format!("key=pass&{GOOD}&port=6881&left=1&key=ff&numwant=5&numwant=7");
        let announce = decode_query(&same).unwrap();
        assert_eq!((announce.left, announce.key), (1, Some(255.into())));
        assert_eq!(announce.num_want, Some(7));
    }

    #[test]
    fn what_clients_send_beside_who_they_are_is_taken_in_any_form() {
        let with = |more: &str| {
            let keep = |part: &&str| !part.starts_with("left") && !part.starts_with("port");
            let parts: Vec<_> = GOOD.split('&').filter(keep).collect();
            decode_query(&format!("{}{more}", parts.join("&")))
        };
        for event in ["paused", "exploded", "4", "", "%00"] {
            let announce = with(&format!("&port=1&left=3&event={event}")).unwrap();
            assert_eq!(announce.event, AnnounceEvent::None, "{event}");
        }
        assert_eq!(with("&port=1&left=3&event=Started").unwrap().event, AnnounceEvent::Started);
        for left in ["-1", "9223372036854775807", "18446744073709551616", ""] {
            let announce = with(&format!("&port=1&left={left}")).unwrap();
            assert_eq!(announce.left, Announce::LEFT_UNKNOWN, "{left}");
        }
        assert_eq!(with("&port=1").unwrap().left, Announce::LEFT_UNKNOWN);
        assert_eq!(with("&port=1&event=completed").unwrap().left, 0);
        for (wanted, num_want) in
            [("-2", None), ("many", None), ("99999999999999999999", Some(u32::MAX)), ("", None)]
        {
            assert_eq!(with(&format!("&port=1&numwant={wanted}")).unwrap().num_want, num_want);
        }
        assert_eq!(with("&event=stopped").unwrap().port, 0, "who leaves needs no port");
        assert_eq!(with("&event=stopped&port=0").unwrap().port, 0);
        assert_eq!(with("&event=started&port=0").unwrap().port, 0, "it takes no connections");
        assert!(with("&event=stopped&port=x").is_err() && with("&event=started").is_err());
        assert!(with("&port=1&uploaded=-5&downloaded=1e9&key=").unwrap().key.is_none());
        for text in ["2001:db8::1", "[2001:db8::1]", "%5B2001:DB8::1%5D:6881"] {
            let said = with(&format!("&port=1&ip={text}")).unwrap().ip;
            assert_eq!(said, "2001:db8::1".parse().ok(), "{text}");
        }
    }

    #[test]
    fn info_hashes_come_in_any_escaping_and_as_forty_digits() {
        let hash = InfoHash(*b"\x01\xab\xcd +-aaaaaaaaaaaaaa");
        for said in [
            "%01%ab%CD%20%2b-aaaaaaaaaaaaaa",
            "%01%AB%cd+%2B%2daaaaaaaaaaaaaa",
            &hash.to_string(),
            &hash.to_string().to_uppercase(),
        ] {
            let query = format!("info_hash={said}&peer_id=-PW0100-abcdefghijkl&port=1&left=0");
            assert_eq!(decode_query(&query).unwrap().info_hash, hash, "{said}");
            let after = format!("passkey=1?{query}");
            assert_eq!(decode_query(&after).unwrap().info_hash, hash, "{said}");
        }
    }

    #[test]
    fn wrong_values_are_refused_with_the_value() {
        let with = |key: &str, value: &str| {
            let parts = GOOD.split('&').filter(|part| !part.starts_with(key));
            let query: Vec<_> =
                parts.map(str::to_owned).chain([format!("{key}={value}")]).collect();
            fault(&query.join("&"))
        };
        assert_eq!(with("port", "-1"), "`port` is `-1`, not a port from 0 to 65535");
        assert_eq!(with("port", "65536"), "`port` is `65536`, not a port from 0 to 65535");
        assert_eq!(with("info_hash", "abc%00"), "`info_hash` is `abc%00`, not twenty bytes");
        let long = "b".repeat(21);
        assert_eq!(with("peer_id", &long), format!("`peer_id` is `{long}`, not twenty bytes"));
        assert_eq!(with("left", "\x1b[2J"), "`left` is `\\x1b[2J`, not a number of bytes");
        assert!(with("left", &"x".repeat(4_000)).len() < 120, "errors stay short");
    }

    #[test]
    fn a_negative_number_wanted_leaves_it_to_the_tracker() {
        assert_eq!(decode_query(&format!("{GOOD}&numwant=-1")).unwrap().num_want, None);
    }

    #[test]
    fn a_name_in_place_of_an_address_is_not_looked_up() {
        assert_eq!(decode_query(&format!("{GOOD}&ip=localhost")).unwrap().ip, None);
    }

    #[test]
    fn a_scrape_of_too_many_torrents_is_refused() {
        let query = "info_hash=aaaaaaaaaaaaaaaaaaaa&".repeat(MAX_SCRAPE_HASHES + 1);
        assert!(matches!(
            decode_scrape_query(&query),
            Err(AnnounceError::TooManyHashes { limit: MAX_SCRAPE_HASHES })
        ));
        assert_eq!(decode_scrape_query("").unwrap(), Scrape::default());
    }
}
