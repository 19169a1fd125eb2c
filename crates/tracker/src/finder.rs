//! A search for peers over all torrents of the catalogue.

use std::net::SocketAddr;

use serde::Serialize;

use super::service::Service;
use piecework_core::InfoHash;

/// Answer to `GET /peers?find=TEXT`.
#[derive(Serialize)]
pub(super) struct FoundPeers {
    pub peers: Vec<FoundRow>,
    /// There are more, or not all were looked at.
    pub more: bool,
}

#[derive(Serialize)]
pub(super) struct FoundRow {
    info_hash: InfoHash,
    name: String,
    peer: SocketAddr,
    also_at: Option<SocketAddr>,
    client: Option<String>,
    /// Pieces it holds; `null` if that is not known.
    held: Option<u32>,
    pieces: u32,
}

impl FoundPeers {
    /// The peers of listed torrents whose address or client's name has `text` in it, whatever its case.
    /// Takes time for each peer of the catalogue, up to a bound.
    pub(super) fn of(service: &Service, text: &str) -> Self {
        let text = text.to_lowercase();
        let mut found = Self { peers: Vec::new(), more: false };
        let mut looked = 0;
        let fits = |addr: SocketAddr, client: &str| {
            addr.to_string().contains(&text) || client.to_lowercase().contains(&text)
        };
        for entry in service.catalogue.all().iter().filter(|entry| !entry.unlisted) {
            let room = MAX_FOUND - found.peers.len();
            if room == 0 || looked >= MAX_LOOKED_AT {
                found.more = true;
                break;
            }
            let peers = service.with_registry(entry.info_hash, |registry| {
                registry.find_peers(entry.info_hash, room + 1, &mut looked, fits)
            });
            found.more |= peers.len() > room;
            found.peers.extend(peers.into_iter().take(room).map(|peer| FoundRow {
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

/// Peers in an answer.
const MAX_FOUND: usize = 100;

/// Peers looked at for one: some 100 ms.
const MAX_LOOKED_AT: usize = 300_000;
