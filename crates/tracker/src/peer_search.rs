//! A search for peers over all torrents of the catalogue.

use std::net::SocketAddr;

use serde::Serialize;

use super::catalogue::Catalogue;
use super::swarms::Swarms;
use piecework_core::InfoHash;

/// Answer to `GET /peers?find=TEXT`.
#[derive(Serialize)]
pub(super) struct PeerSearchAnswer {
    pub peers: Vec<PeerSearchRow>,
    /// Whether there are more results, or not all peers were examined.
    pub more: bool,
}

#[derive(Serialize)]
pub(super) struct PeerSearchRow {
    info_hash: InfoHash,
    name: String,
    peer: SocketAddr,
    also_at: Option<SocketAddr>,
    client: Option<String>,
    /// The number of pieces that the peer holds; `null` if that is not known.
    held: Option<u32>,
    pieces: u32,
}

impl PeerSearchAnswer {
    /// Returns the peers of listed torrents whose address or client name contains `text`, ignoring case. Takes time
    /// in proportion to the peers of the catalogue, up to a limit.
    pub(super) fn of(catalogue: &Catalogue, swarms: &Swarms, text: &str) -> Self {
        let text = text.to_lowercase();
        let mut found = Self { peers: Vec::new(), more: false };
        let mut looked = 0;
        let fits = |addr: SocketAddr, client: &str| {
            addr.to_string().contains(&text) || client.to_lowercase().contains(&text)
        };
        for entry in catalogue.all().iter().filter(|entry| !entry.unlisted) {
            let room = MAX_FOUND - found.peers.len();
            if room == 0 || looked >= MAX_LOOKED_AT {
                found.more = true;
                break;
            }
            let peers = swarms.with(entry.info_hash, |registry| {
                registry.find_peers(entry.info_hash, room + 1, &mut looked, fits)
            });
            found.more |= peers.len() > room;
            found.peers.extend(peers.into_iter().take(room).map(|peer| PeerSearchRow {
                info_hash: entry.info_hash,
                name: entry.name.to_string(),
                peer: peer.addr,
                also_at: peer.also,
                client: peer.peer_id.map(|id| id.client_name()),
                held: peer.held,
                pieces: entry.pieces,
            }));
            if found.more {
                break;
            }
        }
        found
    }
}

/// The maximum number of peers in an answer.
const MAX_FOUND: usize = 100;

/// The maximum number of peers examined for an answer: some 100 ms.
const MAX_LOOKED_AT: usize = 300_000;
