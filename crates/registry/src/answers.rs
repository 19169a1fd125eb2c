//! What an announce or report asks for, and what it gets.

use std::net::{IpAddr, SocketAddr};

use piecework_core::{AnnounceKey, BitfieldError, PeerId};

/// Which peers an asker can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// How many at most.
    pub count: usize,
    /// IPv4 addresses.
    pub v4: bool,
    /// IPv6 addresses.
    pub v6: bool,
    /// Their ids too.
    pub ids: bool,
}

/// What an announce gets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// Complete peers, the asker included if it is listed.
    pub complete: u32,
    /// Others, the asker included if it is listed.
    pub incomplete: u32,
    /// Whom to talk to, complete peers first.
    pub peers: Vec<Handed>,
    /// The ids of these peers, in their order, where they are known; empty if they are not wanted.
    pub ids: Vec<Option<PeerId>>,
}

/// A peer handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handed {
    /// Its address.
    pub addr: SocketAddr,
    /// Whether it holds everything.
    pub complete: bool,
}

/// Who reports its holdings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reporter {
    /// The address the report came from.
    pub ip: IpAddr,
    /// The port it announces.
    pub port: u16,
    /// The key it announces; `None` if it did not tell.
    pub key: Option<AnnounceKey>,
}

/// Why an announce or report is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The tracker is not open, and the torrent not in its catalogue.
    #[error("this tracker serves only the torrents of its catalogue")]
    NotCatalogued,
    /// Too many peers of one torrent at one address.
    #[error("there are already `{0}` peers of this torrent at your address")]
    TooManyAtAddress(
        /// As many as there may be.
        usize,
    ),
    /// Too many torrents that one network announced first.
    #[error(
        "your address has announced `{0}` torrents here that nobody had announced before: no more"
    )]
    TooManyTorrents(
        /// As many as there may be.
        usize,
    ),
    /// No room for another peer or torrent.
    #[error("this tracker is full")]
    Full,
    /// A report of somebody who has not announced.
    #[error("no peer at `{0}` has announced this torrent")]
    UnknownPeer(
        /// The address.
        SocketAddr,
    ),
    /// A report with another key than the peer's.
    #[error("the key is not the one this peer announced")]
    WrongKey,
    /// A report with a short key from where too many wrong ones came.
    #[error(
        "too many wrong keys came from your address: wait some minutes, or announce a key of 32 digits"
    )]
    TooManyKeys,
    /// A report that is no bitfield of the torrent.
    #[error("{0}")]
    BadBitfield(#[from] BitfieldError),
}

impl Want {
    /// Peers of both families.
    pub fn any(count: usize) -> Self {
        Self { count, v4: true, v6: true, ids: false }
    }
}
