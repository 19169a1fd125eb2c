//! The parameters and the results of announces and reports.

use std::net::{IpAddr, SocketAddr};

use piecework_core::{AnnounceKey, BitfieldError, PeerId};

/// Which peers an announce asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerQuery {
    /// The maximum number of peers.
    pub count: usize,
    /// Whether IPv4 addresses are wanted.
    pub v4: bool,
    /// Whether IPv6 addresses are wanted.
    pub v6: bool,
    /// Whether peer ids are wanted.
    pub ids: bool,
}

/// The answer to an announce.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AnnounceAnswer {
    /// The number of complete peers. Includes the announcing peer if it is listed.
    pub complete: u32,
    /// The number of incomplete peers. Includes the announcing peer if it is listed.
    pub incomplete: u32,
    /// The selected peers, complete ones first.
    pub peers: Vec<HandedPeer>,
    /// The ids of these peers, in the same order, where known. Empty if no ids are wanted.
    pub ids: Vec<Option<PeerId>>,
    /// Whether the torrent is in the catalogue.
    pub catalogued: bool,
    /// Whether it is the first announce of a catalogued torrent in this second. Announces that a peer stops do not
    /// count.
    pub first_in_second: bool,
}

/// A peer that an answer contains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandedPeer {
    /// The peer's address.
    pub addr: SocketAddr,
    /// Whether the peer holds every piece.
    pub complete: bool,
}

/// The sender of a report of holdings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reporter {
    /// The address the report came from.
    pub ip: IpAddr,
    /// The port that the peer announces.
    pub port: u16,
    /// The key that the peer announces; `None` if the report has no key.
    pub key: Option<AnnounceKey>,
}

/// Why an announce or report is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The tracker is not open, and the torrent is not in its catalogue.
    #[error("this tracker serves only the torrents of its catalogue")]
    NotCatalogued,
    /// Too many peers of one torrent at one address.
    #[error("there are already `{0}` peers of this torrent at your address")]
    TooManyAtAddress(
        /// The limit.
        usize,
    ),
    /// Too many torrents that one network announced first.
    #[error("your address was the first to announce `{0}` torrents here, which is the limit")]
    TooManyTorrents(
        /// The limit.
        usize,
    ),
    /// The limit of peers, torrents or bitfield bytes is reached.
    #[error("this tracker is full")]
    Full,
    /// The reporting peer has not announced the torrent.
    #[error("no peer at `{0}` has announced this torrent")]
    UnknownPeer(
        /// The address of the report.
        SocketAddr,
    ),
    /// The key of the report differs from the key of the peer.
    #[error("the key is not the one this peer announced")]
    WrongKey,
    /// The report has a short key, and its network has sent too many wrong keys.
    #[error(
        "too many wrong keys came from your address: wait some minutes, or announce a key of 32 digits"
    )]
    TooManyKeys,
    /// The report is not a valid bitfield of the torrent.
    #[error("{0}")]
    BadBitfield(#[from] BitfieldError),
}

impl AnnounceAnswer {
    /// Empties the answer. Keeps the memory of its lists.
    pub(super) fn clear(&mut self) {
        let Self { complete, incomplete, peers, ids, catalogued, first_in_second } = self;
        (*complete, *incomplete, *catalogued, *first_in_second) = (0, 0, false, false);
        peers.clear();
        ids.clear();
    }
}

impl PeerQuery {
    /// Returns a query for up to `count` peers of both address families, without ids.
    pub fn any(count: usize) -> Self {
        Self { count, v4: true, v6: true, ids: false }
    }
}
