//! Targets of what the daemon reads: requests and answers of its two APIs, answers of web servers, block
//! lists, its own state.

use std::fmt::Debug;

use piecework_api as api;
use piecework_daemon::block_list::BlockList;
use piecework_daemon::fuzzing;
use piecework_engine as engine;
use piecework_proto::announce::catalogue;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::input::Input;

/// A block list, and addresses at the edges of its ranges.
pub(crate) fn block_list(bytes: &[u8]) {
    let parsed = BlockList::parse(bytes).expect("five million ranges do not fit an input");
    assert_eq!(parsed.skipped > 0, parsed.first_skipped.is_some());
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!(parsed.list.len() as u64 + parsed.skipped <= lines as u64);
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(ip) = std::str::from_utf8(line).ok().and_then(|text| text.trim().parse().ok()) {
            assert!(parsed.list.contains(ip), "`{ip}` is listed");
        }
    }
}

/// An answer of a web server, cut into parts of any length.
pub(crate) fn http_response(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let part_len = input.below(40) as usize + 1;
    let limit = [0, 1, 100, 10_000][input.below(4) as usize];
    engine::fuzzing::http_response(input.rest(), part_len, limit);
}

/// A checkpoint as the daemon keeps it, with a valid checksum.
pub(crate) fn resume(bytes: &[u8]) {
    fuzzing::resume(bytes);
}

/// A request body in Transmission's dialects.
pub(crate) fn rpc_json(bytes: &[u8]) {
    piecework_control::fuzzing::rpc(bytes);
}

/// A stream of events, cut into pieces of any length.
pub(crate) fn sse(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let cut = input.below(20) as usize + 1;
    let stream = input.rest();
    let whole = api::fuzzing::read_events([stream]);
    assert_eq!(api::fuzzing::read_events(stream.chunks(cut)), whole, "cut every {cut} bytes");
}

/// Bodies of the native API and of the catalogue: what is read can be written and read again.
pub(crate) fn native_json(bytes: &[u8]) {
    round_trip::<api::SeedRequest>(bytes);
    round_trip::<api::LeechRequest>(bytes);
    round_trip::<api::TorrentChange>(bytes);
    round_trip::<api::MoveRequest>(bytes);
    round_trip::<api::RenameRequest>(bytes);
    round_trip::<api::RemoveRequest>(bytes);
    round_trip::<api::QueueRequest>(bytes);
    round_trip::<api::PeersRequest>(bytes);
    round_trip::<api::InspectRequest>(bytes);
    round_trip::<api::SettingsChange>(bytes);
    round_trip::<api::Settings>(bytes);
    round_trip::<api::Torrent>(bytes);
    round_trip::<api::TorrentDetail>(bytes);
    round_trip::<api::Overview>(bytes);
    round_trip::<catalogue::CatalogueList>(bytes);
    round_trip::<catalogue::Registered>(bytes);
    round_trip::<catalogue::CatalogueFault>(bytes);
    round_trip::<catalogue::BatchAnswer>(bytes);
    round_trip::<catalogue::HoldingsBatch>(bytes);
    if let Ok(batch) = serde_json::from_slice::<catalogue::HoldingsBatch>(bytes) {
        for report in &batch.torrents {
            report.key();
            // Text that is not base64 is refused by the caller.
            let _ = report.bitfield(100);
        }
    }
}

fn round_trip<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let text = serde_json::to_string(&value).expect("what was read can be written");
    let again: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(format!("{again:?}"), format!("{value:?}"), "{text}");
}
