//! Targets of announces and scrapes over HTTP and UDP, in both directions, and of links.

use std::str;

use piecework_proto::announce::catalogue::{HoldingsReport, RegisterOptions};
use piecework_proto::announce::http::{self, HttpReply, HttpScrapeReply};
use piecework_proto::announce::udp::{Family, Header, MAX_RESPONSE_LEN, Request, Response};
use piecework_proto::announce::{
    AnnounceReply, CatalogueUrl, MAX_NAMED_PEERS, MAX_PEERS, Magnet, PeerName, TrackerTarget,
    TrackerUrl,
};

use crate::input::Input;

/// What a tracker receives over HTTP: queries of announces, scrapes and the catalogue.
pub(crate) fn http_request(bytes: &[u8]) {
    let Ok(query) = str::from_utf8(bytes) else { return };
    if let Ok(announce) = http::decode_query(query) {
        let written = http::encode_query(&announce);
        assert_eq!(http::decode_query(&written).ok(), Some(announce), "{written}");
    }
    if let Ok(scrape) = http::decode_scrape_query(query) {
        let written = http::encode_scrape_query(&scrape);
        assert_eq!(http::decode_scrape_query(&written).ok(), Some(scrape), "{written}");
    }
    if let Ok(options) = RegisterOptions::decode_query(query) {
        let written = options.encode_query();
        assert_eq!(RegisterOptions::decode_query(&written).ok(), Some(options), "{written}");
    }
    if let Ok(report) = HoldingsReport::decode_query(query) {
        let written = report.encode_query();
        assert_eq!(HoldingsReport::decode_query(&written).ok(), Some(report), "{written}");
        let batch = HoldingsReport::encode_batch_query(report.peer_id, report.port);
        let read = HoldingsReport::decode_batch_query(&batch).ok();
        assert_eq!(read, Some((report.peer_id, report.port)), "{batch}");
    }
}

/// What a tracker answers over HTTP. A peer trusts none of it.
pub(crate) fn http_reply(bytes: &[u8]) {
    match http::decode_reply(bytes) {
        Ok(HttpReply::Reply(reply)) => {
            assert!(reply.peers.len() <= MAX_PEERS && reply.named.len() <= MAX_NAMED_PEERS);
            assert!(reply.peers.iter().all(|peer| peer.port() != 0));
            written_is_read(reply);
        }
        Ok(HttpReply::Failure(refusal)) => {
            let written = http::encode_failure(&refusal.reason);
            let read = http::decode_reply(&written);
            assert!(matches!(read, Ok(HttpReply::Failure(_))), "{read:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(HttpScrapeReply::Reply(reply)) = http::decode_scrape_reply(bytes) {
        let written = http::encode_scrape_reply(&reply);
        let read = http::decode_scrape_reply(&written);
        let HttpScrapeReply::Reply(again) = read.expect("our own answer") else {
            panic!("our own answer became a failure")
        };
        assert!(again.entries.len() <= reply.entries.len());
    }
}

/// Writes an answer as our tracker would, compact and with its peers one by one.
fn written_is_read(mut reply: AnnounceReply) {
    let mut announce = http::decode_query(ANNOUNCE).expect("an announce");
    // Names come only from other trackers. Ours knows addresses.
    reply.named.clear();
    reply.peer_ids = vec![None; reply.peers.len()];
    for compact in [true, false] {
        announce.compact = compact;
        let read = http::decode_reply(&http::encode_reply(&reply, &announce));
        let Ok(HttpReply::Reply(again)) = read else { panic!("{read:?}") };
        assert_eq!((again.complete, again.incomplete), (reply.complete, reply.incomplete));
        assert_eq!(again.peers.len(), reply.peers.len(), "compact: {compact}");
        assert_eq!(again.warning.is_some(), reply.warning.is_some());
    }
}

/// What a tracker receives over UDP.
pub(crate) fn udp_request(bytes: &[u8]) {
    let header = Header::peek(bytes);
    let Ok(request) = Request::decode(bytes) else { return };
    let header = header.expect("a request has a header");
    assert_eq!(header.transaction, request.transaction());
    let mut written = Vec::new();
    request.encode(&mut written);
    assert_eq!(Request::decode(&written).as_ref(), Ok(&request), "what is written is read");
}

/// What a tracker answers over UDP.
pub(crate) fn udp_reply(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let family = if input.flag() { Family::V6 } else { Family::V4 };
    let Ok(mut response) = Response::decode(input.rest(), family) else { return };
    if let Response::Announce { reply, .. } = &mut response {
        // An IPv4-mapped IPv6 address is read as IPv4, and does not belong into an answer over IPv6.
        reply.peers.retain(|peer| Family::of(peer.ip()) == family);
    }
    let mut written = Vec::new();
    response.encode(family, &mut written);
    assert!(written.len() <= MAX_RESPONSE_LEN);
    let again = Response::decode(&written, family).expect("our own answer");
    assert_eq!(again.transaction(), response.transaction());
    if !matches!(response, Response::Error { .. }) {
        assert_eq!(again, response, "what is written is read");
    }
}

/// Magnet links, trackers and peers as people type them.
pub(crate) fn links(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(magnet) = Magnet::parse(text) {
        assert!(Magnet::is_meant(text), "{text:?}");
        magnet.tracker_names();
        magnet.wanted_of(1000);
        let again = Magnet::parse(&magnet.to_string()).expect("our own link");
        assert_eq!(again.info_hash, magnet.info_hash);
        assert_eq!((&again.name, &again.selected), (&magnet.name, &magnet.selected));
    }
    if let Ok(url) = text.parse::<TrackerUrl>() {
        // Escapes may have made it too long to be read again.
        if let Ok(again) = TrackerUrl::parse(url.as_str()) {
            assert_eq!(again.as_str(), url.as_str());
        }
        assert!(url.port() != 0 && !url.host().is_empty());
        url.with_query("a=b");
        // Not all of them have a catalogue.
        let _ = (CatalogueUrl::of_tracker(&url), url.scrape());
    }
    if let Ok(target) = TrackerTarget::parse(text) {
        assert!(target.tiers.iter().all(|tier| !tier.is_empty()));
    }
    if let Ok(peer) = text.parse::<PeerName>() {
        assert!(peer.port != 0 && !peer.host.is_empty());
    }
}

const ANNOUNCE: &str = "info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=bbbbbbbbbbbbbbbbbbbb&port=1&left=0";
