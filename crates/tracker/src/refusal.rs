//! Why a request about the catalogue is refused.

use std::io;

use piecework_core::InfoHash;
use piecework_core::metainfo::MetainfoError;
use piecework_registry::Refusal;

use super::catalogue::{AddTorrentError, ObserveError, TorrentFileError};
use super::store::StoreError;

/// Why a request about the catalogue was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum CatalogueRefusal {
    #[error("not a valid torrent: {0}")]
    BadTorrent(#[source] MetainfoError),
    #[error("no torrent `{0}` is in the catalogue of this tracker")]
    Unknown(InfoHash),
    #[error("the token is not the one that registering this torrent gave")]
    WrongToken,
    #[error(transparent)]
    Full(AddTorrentError),
    #[error(transparent)]
    NotKept(AddTorrentError),
    #[error(transparent)]
    NotChanged(#[from] ObserveError),
    #[error(transparent)]
    NotRemoved(StoreError),
    #[error(transparent)]
    NotRead(#[from] TorrentFileError),
    #[error("the system gives no random numbers: {0}")]
    Random(#[source] io::Error),
    #[error("the bitfield is not base64")]
    BadReport,
    #[error(transparent)]
    Holdings(Refusal),
}
