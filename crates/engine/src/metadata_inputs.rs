//! What the driver of a metadata fetch hears, and which fetches there are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::net::Accepted;
use crate::tracker_client::TrackerError;
use piecework_core::InfoHash;
use piecework_core::metainfo::{Metainfo, MetainfoError};
use piecework_proto::announce::{AnnounceReply, TrackerUrl};
use piecework_proto::encryption::torrent_mark;
use piecework_proto::wire::MetadataMessage;
use piecework_swarm::{Direction, PeerKey, PeerSource};

/// Torrents whose metadata is being fetched, for connections that peers open.
#[derive(Default)]
pub(super) struct MetadataFetches(Mutex<HashMap<InfoHash, mpsc::Sender<FetchInput>>>);

impl MetadataFetches {
    /// Lists a fetch, unless there is one of that torrent, until the returned value is dropped.
    pub(super) fn list(
        self: Arc<Self>,
        info_hash: InfoHash,
        inputs: mpsc::Sender<FetchInput>,
    ) -> ListedFetch {
        self.0.lock().entry(info_hash).or_insert_with(|| inputs.clone());
        ListedFetch { fetches: self, info_hash, inputs }
    }

    /// Ends all fetches.
    pub(super) fn end(&self) {
        for to in self.0.lock().values() {
            // One that has too much to do ends with whoever waits for it.
            let _ = to.try_send(FetchInput::Ended);
        }
    }

    pub(super) fn contains(&self, info_hash: InfoHash) -> bool {
        self.0.lock().contains_key(&info_hash)
    }

    /// Returns the torrent with this mark of encrypted handshakes. There are few.
    pub(super) fn marked(&self, mark: &[u8; 20]) -> Option<InfoHash> {
        self.0.lock().keys().find(|info_hash| torrent_mark(**info_hash) == *mark).copied()
    }

    /// Hands a connection to the fetch that it is for, if there is one.
    pub(super) fn accepted(&self, accepted: Box<Accepted>) {
        let to = self.0.lock().get(&accepted.theirs.info_hash).cloned();
        if let Some(to) = to {
            // A fetch that has too much to do takes no more peers.
            let _ = to.try_send(FetchInput::Connected(accepted, Direction::Incoming));
        }
    }
}

/// An event of a fetch.
pub(super) enum FetchInput {
    Connected(Box<Accepted>, Direction),
    DialFailed {
        addr: SocketAddr,
        is_prevented: bool,
        hung_up: bool,
    },
    Peer(PeerKey, PeerSaid),
    Announced(TrackerUrl, Result<AnnounceReply, TrackerError>),
    /// Peers that were found, and where.
    Found(PeerSource, Vec<SocketAddr>),
    /// A look-up in the DHT has ended.
    LookedUp,
    Checked(u32, Result<Metainfo, CheckFault>),
    /// The session ends.
    Ended,
}

/// Why bytes are not the metadata.
pub(super) enum CheckFault {
    WrongHash,
    Unusable(MetainfoError),
}

/// What a peer said that concerns metadata.
#[derive(Debug)]
pub(super) enum PeerSaid {
    Handshake { extension: Option<u8>, size: Option<u64> },
    Metadata(MetadataMessage),
    Nonsense,
    Closed,
}

/// Takes a fetch off the list when it ends.
pub(super) struct ListedFetch {
    fetches: Arc<MetadataFetches>,
    info_hash: InfoHash,
    inputs: mpsc::Sender<FetchInput>,
}

impl Drop for ListedFetch {
    fn drop(&mut self) {
        let mut fetches = self.fetches.0.lock();
        let is_ours = fetches.get(&self.info_hash).is_some_and(|to| to.same_channel(&self.inputs));
        if is_ours {
            fetches.remove(&self.info_hash);
        }
    }
}
