//! The torrents of a session, found by info-hash or by the mark of an encrypted handshake.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::{Equivalent, HashSet};
use parking_lot::{Mutex, MutexGuard};

use piecework_core::InfoHash;
use piecework_proto::encryption::torrent_mark;

use super::entry::Entry;

/// All torrents of a session.
#[derive(Default)]
pub(super) struct TorrentMap(Mutex<LockedTorrents>);

/// A torrent, found by its info-hash. A set of these is as large as a set of pointers.
struct ByInfoHash(Arc<Entry>);

/// A torrent, found by the mark of encrypted handshakes. The mark is computed from the info-hash
/// when it is needed, so that a torrent costs no more than a pointer here.
struct ByMark(Arc<Entry>);

/// The mark of a torrent in an encrypted handshake.
struct HandshakeMark([u8; 20]);

/// The torrents while nobody else may add or remove one.
#[derive(Default)]
pub(super) struct LockedTorrents {
    map: HashSet<ByInfoHash, foldhash::fast::FixedState>,
    marked: HashSet<ByMark, foldhash::fast::FixedState>,
    /// The session takes no torrents any more.
    pub ended: bool,
}

impl TorrentMap {
    /// Keeps others from adding and removing torrents.
    pub(crate) fn lock(&self) -> MutexGuard<'_, LockedTorrents> {
        self.0.lock()
    }

    /// Returns the torrent with this info-hash.
    pub(crate) fn get(&self, info_hash: InfoHash) -> Option<Arc<Entry>> {
        self.0.lock().map.get(&info_hash).map(|known| Arc::clone(&known.0))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.0.lock().map.iter().map(|known| Arc::clone(&known.0)).collect()
    }
}

impl Borrow<InfoHash> for ByInfoHash {
    fn borrow(&self) -> &InfoHash {
        self.0.metainfo.info_hash_ref()
    }
}

impl PartialEq for ByInfoHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.info_hash() == other.0.info_hash()
    }
}

impl Eq for ByInfoHash {}

impl LockedTorrents {
    pub(crate) fn contains(&self, info_hash: InfoHash) -> bool {
        self.map.contains(&info_hash)
    }

    /// Adds a torrent that is not in the session.
    pub(crate) fn insert(&mut self, entry: &Arc<Entry>) {
        self.map.insert(ByInfoHash(Arc::clone(entry)));
        self.marked.insert(ByMark(Arc::clone(entry)));
    }

    /// Removes a torrent.
    pub(crate) fn take(&mut self, info_hash: &InfoHash) -> Option<Arc<Entry>> {
        let ByInfoHash(entry) = self.map.take(info_hash)?;
        self.marked.remove(&HandshakeMark(torrent_mark(*info_hash)));
        Some(entry)
    }

    /// Removes all torrents, and lets no more in.
    pub(crate) fn end(&mut self) -> Vec<Arc<Entry>> {
        self.ended = true;
        self.marked.clear();
        self.map.drain().map(|ByInfoHash(entry)| entry).collect()
    }

    /// Returns the torrent with this mark.
    pub(crate) fn marked(&self, mark: &[u8; 20]) -> Option<InfoHash> {
        self.marked.get(&HandshakeMark(*mark)).map(|ByMark(entry)| entry.info_hash())
    }
}

impl HandshakeMark {
    fn of(entry: &Entry) -> Self {
        Self(torrent_mark(entry.info_hash()))
    }
}

impl Equivalent<ByMark> for HandshakeMark {
    fn equivalent(&self, marked: &ByMark) -> bool {
        self.0 == HandshakeMark::of(&marked.0).0
    }
}

impl Hash for HandshakeMark {
    // The mark is a hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl Hash for ByMark {
    fn hash<H: Hasher>(&self, state: &mut H) {
        HandshakeMark::of(&self.0).hash(state);
    }
}

impl PartialEq for ByMark {
    fn eq(&self, other: &Self) -> bool {
        self.0.info_hash() == other.0.info_hash()
    }
}

impl Eq for ByMark {}

impl Hash for ByInfoHash {
    // `Borrow` requires the hash of the info-hash.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.info_hash().hash(state);
    }
}
