//! A torrent of the catalogue.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bytes::Bytes;

use super::store::{StoreRow, unix_now};
use piecework_core::InfoHash;
use piecework_core::metainfo::Metainfo;

/// A torrent of the catalogue. Its `.torrent` file stays on the disk.
#[derive(Debug)]
pub(super) struct CatalogueTorrent {
    pub info_hash: InfoHash,
    /// The name, unescaped.
    pub name: Arc<str>,
    pub size: u64,
    pub pieces: u32,
    pub piece_length: u32,
    pub files: u32,
    pub private: bool,
    /// Whether it is left out of lists, because it is private or was registered as unlisted.
    pub unlisted: bool,
    pub description: Option<String>,
    /// Whether the observer may connect to its peers.
    pub(super) observe: AtomicBool,
    /// SHA-256 of the token that may remove it; `None` if there is no token.
    pub token: Option<[u8; 32]>,
    pub registered_at: i64,
    /// The network that registered it; `None` if its file was put into the folder by hand.
    pub registrar: Option<IpAddr>,
    /// When it was last announced, in seconds since 1970; 0 if that is not known. Torrents that are there when the
    /// tracker starts count as announced then.
    pub(super) announced_at: AtomicI64,
    pub len: u64,
    pub(super) body: TorrentBody,
}

#[derive(Debug)]
pub(super) enum TorrentBody {
    /// The name of the file in the folder.
    File(String),
    Memory(Bytes),
}

impl CatalogueTorrent {
    /// Returns the entry of a torrent whose `.torrent` file has `len` bytes.
    pub(super) fn new(metainfo: &Metainfo, len: u64, body: TorrentBody) -> Self {
        let geometry = metainfo.info().geometry();
        Self {
            info_hash: metainfo.info_hash(),
            name: metainfo.info().name().into(),
            size: geometry.total_len(),
            pieces: geometry.pieces(),
            piece_length: geometry.piece_len(),
            files: u32::try_from(metainfo.info().files().entries().len()).unwrap_or(u32::MAX),
            private: metainfo.info().is_private(),
            unlisted: metainfo.info().is_private(),
            observe: true.into(),
            description: None,
            token: None,
            registered_at: unix_now(),
            registrar: None,
            announced_at: 0.into(),
            len,
            body,
        }
    }

    /// Adds what the file does not contain.
    pub(super) fn restored(self, row: StoreRow) -> Self {
        Self {
            name: row.name.into(),
            description: row.description,
            unlisted: row.unlisted || self.private,
            observe: row.observe.into(),
            token: row.token,
            registered_at: row.registered_at,
            // A torrent with a token was registered, perhaps before the database had this column.
            registrar: row.registrar.or(row.token.map(|_| Ipv4Addr::UNSPECIFIED.into())),
            ..self
        }
    }

    /// Records that it was announced now.
    pub(super) fn announced(&self) {
        self.announced_at.store(unix_now(), Ordering::Relaxed);
    }

    /// Returns whether it was announced since it was registered, as far as is known.
    pub(super) fn was_announced(&self) -> bool {
        self.announced_at.load(Ordering::Relaxed) > 0
    }

    /// Returns the seconds since it was last announced, or else since it was registered.
    pub(super) fn silence(&self, now: i64) -> i64 {
        match self.announced_at.load(Ordering::Relaxed) {
            0 => now.saturating_sub(self.registered_at),
            announced_at => now.saturating_sub(announced_at),
        }
    }

    /// Returns whether the observer may connect to its peers.
    pub(super) fn is_observed(&self) -> bool {
        self.observe.load(Ordering::Relaxed)
    }

    /// Returns its database row, if it has a file.
    pub(super) fn row(&self, downloads: u32) -> Option<StoreRow> {
        let TorrentBody::File(file) = &self.body else { return None };
        Some(StoreRow {
            info_hash: self.info_hash,
            name: self.name.to_string(),
            file: file.clone(),
            description: self.description.clone(),
            unlisted: self.unlisted,
            token: self.token,
            registered_at: self.registered_at,
            downloads,
            observe: self.is_observed(),
            registrar: self.registrar,
        })
    }
}
