//! Obtaining a `.torrent`: parsing, decoding, downloading.

use std::sync::Arc;
use std::time::Duration;

use super::catalogue::CatalogueTracker;
use super::reason::Reason;
use super::{Caller, DaemonError};
use piecework_core::metainfo::{Metainfo, ParseLimits};
use piecework_core::{Scope, base64};
use piecework_engine::tracker_client::{FetchError, fetch};
use piecework_proto::announce::Magnet;
use piecework_proto::announce::catalogue::{MAX_TORRENT_LEN, MAX_UPLOAD_LEN};
use piecework_swarm::HeardAddress;

/// A `.torrent` that was read or fetched, and where it came from.
pub(super) struct FetchedTorrent {
    pub metainfo: Arc<Metainfo>,
    /// The tracker whose catalogue has it.
    pub tracker: Option<CatalogueTracker>,
    /// It came from a private network or this machine.
    pub nearby: bool,
    /// The magnet link that led to it.
    pub magnet: Option<Magnet>,
    /// Addresses where peers may be.
    pub peers: Vec<HeardAddress>,
}

impl FetchedTorrent {
    pub(crate) fn new(
        metainfo: Arc<Metainfo>,
        tracker: Option<CatalogueTracker>,
        nearby: bool,
    ) -> Self {
        Self { metainfo, tracker, nearby, magnet: None, peers: Vec::new() }
    }
}

/// Returns whether an address of that scope is in our own network.
pub(super) fn is_near(scope: Scope) -> bool {
    matches!(scope, Scope::Private | Scope::Loopback)
}

/// Downloads a `.torrent`. Returns its bytes and the scope of the server's address.
pub(super) async fn download(url: &str, caller: Caller) -> Result<(Vec<u8>, Scope), DaemonError> {
    // A guest's may be as long as an upload of a guest.
    let (limit, time) = match caller {
        Caller::Local | Caller::Owner => (MAX_TORRENT_LEN, FETCH),
        Caller::Guest => (MAX_UPLOAD_LEN, FETCH / 4),
    };
    let fetched = fetch(url, caller.provenance(), limit, time).await;
    fetched.map_err(|error| match error {
        FetchError::Address { .. } => DaemonError::invalid(Reason::of(error)),
        FetchError::Outside { .. } => DaemonError::forbidden(Reason::of(error)),
        FetchError::Failed { .. } => DaemonError::upstream(Reason::of(error)),
    })
}

/// Returns the torrent in these bytes.
pub(super) fn parse(bytes: &[u8]) -> Result<Arc<Metainfo>, DaemonError> {
    Metainfo::parse(bytes, &ParseLimits::default())
        .map(Arc::new)
        .map_err(|error| DaemonError::invalid(Reason::of(error)))
}

/// Returns the bytes that `text` has in base64.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, DaemonError> {
    if text.len() / 4 * 3 > MAX_TORRENT_LEN + 3 {
        return Err(DaemonError::invalid(format!(
            "the torrent has some `{}` bytes, more than the allowed `{MAX_TORRENT_LEN}`",
            text.len() / 4 * 3
        )));
    }
    base64::decode(text).ok_or_else(|| DaemonError::invalid("the torrent is not base64".to_owned()))
}

/// Time limit for downloading a `.torrent`: 100 MiB at 900 KB/s. Guests have a quarter of it.
const FETCH: Duration = Duration::from_secs(120);
