//! What stands behind the `?` of an announce or scrape.

use std::fmt::Write;
use std::net::IpAddr;

use bytes::Bytes;

use super::MAX_SCRAPE_HASHES;
use crate::announce::query::{
    bytes, escape, info_hash, key, once, pairs, peer_id, port, required, unescape,
};
use crate::announce::{Announce, AnnounceError, AnnounceEvent, Scrape};

/// The query of an announce, without the `?`.
pub fn encode_query(announce: &Announce) -> String {
    let mut out = String::with_capacity(400);
    // Writing to a String cannot fail.
    let _ = write_query(announce, &mut out);
    out
}

/// Reads the query of an announce. Keys we do not know are passed over.
///
/// # Errors
/// If a key is missing or there twice, or its value is not what it should be.
pub fn decode_query(query: &str) -> Result<Announce, AnnounceError> {
    let mut found = Found::default();
    for (key, value) in pairs(query)? {
        found.take(key, value)?;
    }
    let mut announce = Announce::new(
        required(found.info_hash, "info_hash")?,
        required(found.peer_id, "peer_id")?,
        required(found.port, "port")?,
        required(found.left, "left")?,
    );
    announce.uploaded = found.uploaded.unwrap_or(0);
    announce.downloaded = found.downloaded.unwrap_or(0);
    announce.event = found.event.unwrap_or_default();
    announce.num_want = found.num_want.flatten();
    announce.key = found.key;
    announce.ip = found.ip.flatten();
    announce.compact = found.compact.unwrap_or(true);
    announce.no_peer_id = found.no_peer_id.unwrap_or(false);
    announce.tracker_id = found.tracker_id;
    Ok(announce)
}

/// The query of a scrape, without the `?`. Hashes beyond [`MAX_SCRAPE_HASHES`] are left out.
pub fn encode_scrape_query(scrape: &Scrape) -> String {
    let mut out = String::with_capacity(71 * scrape.hashes.len().min(MAX_SCRAPE_HASHES));
    for hash in scrape.hashes.iter().take(MAX_SCRAPE_HASHES) {
        let separator = if out.is_empty() { "" } else { "&" };
        // Writing to a String cannot fail.
        let _ = write!(out, "{separator}info_hash={}", escape(&hash.0));
    }
    out
}

/// Reads the query of a scrape. One that names no torrent asks for all of them; whether it gets
/// them is for the tracker to say.
///
/// # Errors
/// If an info-hash is not one, or there are more than [`MAX_SCRAPE_HASHES`].
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

/// The keys of an announce that have been seen.
#[derive(Default)]
struct Found {
    info_hash: Option<crate::base::InfoHash>,
    peer_id: Option<crate::base::PeerId>,
    port: Option<u16>,
    uploaded: Option<u64>,
    downloaded: Option<u64>,
    left: Option<u64>,
    event: Option<AnnounceEvent>,
    num_want: Option<Option<u32>>,
    key: Option<crate::base::AnnounceKey>,
    ip: Option<Option<IpAddr>>,
    compact: Option<bool>,
    no_peer_id: Option<bool>,
    tracker_id: Option<Bytes>,
}

impl Found {
    fn take(&mut self, name: &str, value: &str) -> Result<(), AnnounceError> {
        match name {
            "info_hash" => once(&mut self.info_hash, "info_hash", info_hash(value)?),
            "peer_id" => once(&mut self.peer_id, "peer_id", peer_id(value)?),
            "port" => once(&mut self.port, "port", port(value)?),
            "uploaded" => once(&mut self.uploaded, "uploaded", bytes("uploaded", value)?),
            "downloaded" => once(&mut self.downloaded, "downloaded", bytes("downloaded", value)?),
            "left" => once(&mut self.left, "left", bytes("left", value)?),
            "event" => once(&mut self.event, "event", event(value)?),
            "numwant" => once(&mut self.num_want, "numwant", num_want(value)?),
            "key" => once(&mut self.key, "key", key(value)),
            "ip" => once(&mut self.ip, "ip", ip(value)),
            "compact" => once(&mut self.compact, "compact", value != "0"),
            "no_peer_id" => once(&mut self.no_peer_id, "no_peer_id", value != "0"),
            "trackerid" => once(&mut self.tracker_id, "trackerid", tracker_id(value)?),
            _ => Ok(()),
        }
    }
}

fn event(value: &str) -> Result<AnnounceEvent, AnnounceError> {
    match value {
        // `empty` is in old clients; `paused` is a partial seed's regular announce (BEP 21).
        "" | "empty" | "paused" => Ok(AnnounceEvent::None),
        "started" => Ok(AnnounceEvent::Started),
        "stopped" => Ok(AnnounceEvent::Stopped),
        "completed" => Ok(AnnounceEvent::Completed),
        _ => Err(AnnounceError::bad_value("event", value.as_bytes(), "an event of an announce")),
    }
}

/// A negative number leaves it to the tracker, as in UDP announces.
fn num_want(value: &str) -> Result<Option<u32>, AnnounceError> {
    let wanted: i64 = value
        .parse()
        .map_err(|_| AnnounceError::bad_value("numwant", value.as_bytes(), "a number of peers"))?;
    Ok((wanted >= 0).then(|| u32::try_from(wanted).unwrap_or(u32::MAX)))
}

/// BEP 3 allows a DNS name here too; we look up none for strangers, so it counts as not given.
fn ip(value: &str) -> Option<IpAddr> {
    // The longest textual IPv6 address has 45 characters.
    let mut out = [0; 45];
    let len = unescape(value, &mut out)?;
    std::str::from_utf8(&out[..len]).ok()?.parse().ok()
}

fn tracker_id(value: &str) -> Result<Bytes, AnnounceError> {
    let mut out = [0; MAX_TRACKER_ID];
    match unescape(value, &mut out) {
        Some(len) => Ok(Bytes::copy_from_slice(&out[..len])),
        None => Err(AnnounceError::bad_value("trackerid", value.as_bytes(), "a tracker's id")),
    }
}

/// Bytes of a tracker's id: those one meets are shorter than 64.
pub(super) const MAX_TRACKER_ID: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::announce::model::tests::any_announce;
    use crate::base::{InfoHash, PeerId};

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
        for key in ["info_hash", "peer_id", "port", "left"] {
            let without: Vec<_> = GOOD.split('&').filter(|part| !part.starts_with(key)).collect();
            assert_eq!(fault(&without.join("&")), format!("`{key}` is missing"));
        }
    }

    #[test]
    fn duplicate_keys_are_refused() {
        assert_eq!(fault(&format!("{GOOD}&port=1")), "`port` is there twice");
        assert_eq!(fault(&format!("{GOOD}&left=1")), "`left` is there twice");
    }

    #[test]
    fn wrong_values_are_refused_with_the_value() {
        let with = |key: &str, value: &str| {
            let parts = GOOD.split('&').filter(|part| !part.starts_with(key));
            let query: Vec<_> =
                parts.map(str::to_owned).chain([format!("{key}={value}")]).collect();
            fault(&query.join("&"))
        };
        assert_eq!(with("port", "0"), "`port` is `0`, not a port from 1 to 65535");
        assert_eq!(with("port", "65536"), "`port` is `65536`, not a port from 1 to 65535");
        assert_eq!(with("info_hash", "abc%00"), "`info_hash` is `abc%00`, not twenty bytes");
        let long = "b".repeat(21);
        assert_eq!(with("peer_id", &long), format!("`peer_id` is `{long}`, not twenty bytes"));
        assert_eq!(with("left", "-1"), "`left` is `-1`, not a number of bytes");
        assert_eq!(with("event", "\x1b[2J"), "`event` is `\\x1b[2J`, not an event of an announce");
        assert!(with("numwant", &"9".repeat(4_000)).len() < 120, "errors stay short");
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
