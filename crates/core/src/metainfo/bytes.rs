//! The bytes of a torrent, which may not be in memory.

use std::error::Error;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{PieceIndex, Sha1Hash};

/// A whole `.torrent`, exactly as received. Cheap to clone.
#[derive(Clone)]
pub struct TorrentBytes(Arc<Held>);

/// A source from which the bytes of a torrent can be read again.
pub trait TorrentSource: Send + Sync {
    /// Reads the `.torrent` of the torrent called `name`. May block.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&self, name: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;
}

/// The bytes of a torrent, or where they can be read again.
pub(super) struct ByteStore(Mutex<Slot>);

struct Slot {
    held: Option<Arc<Held>>,
    source: Option<Arc<dyn TorrentSource>>,
}

struct Held {
    torrent: Box<[u8]>,
    /// The range of the `info` dictionary.
    info: Range<u32>,
    /// The range of the piece hashes, twenty bytes each.
    hashes: Range<u32>,
}

impl TorrentBytes {
    /// Returns the bytes of the `info` dictionary, over which the info-hash is computed.
    pub fn info(&self) -> &[u8] {
        self.part(&self.0.info)
    }

    /// Returns the hash that `piece` must have; `None` if there is no such piece.
    pub fn piece_hash(&self, piece: PieceIndex) -> Option<Sha1Hash> {
        let start = (piece.0 as usize).checked_mul(HASH_LEN)?;
        let hash = self.piece_hashes().get(start..start + HASH_LEN)?;
        Some(Sha1Hash(hash.try_into().ok()?))
    }

    /// Returns all piece hashes, twenty bytes each.
    pub fn piece_hashes(&self) -> &[u8] {
        self.part(&self.0.hashes)
    }

    fn part(&self, range: &Range<u32>) -> &[u8] {
        &self.0.torrent[range.start as usize..range.end as usize]
    }
}

impl Deref for TorrentBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.torrent
    }
}

impl AsRef<[u8]> for TorrentBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for TorrentBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of a torrent", self.len())
    }
}

impl ByteStore {
    /// Stores `torrent` with the ranges of `info` and `hashes` in it.
    pub(super) fn new(torrent: &[u8], info: Range<u32>, hashes: Range<u32>) -> Self {
        let held = Arc::new(Held { torrent: torrent.into(), info, hashes });
        Self(Mutex::new(Slot { held: Some(held), source: None }))
    }

    /// Returns the bytes if they are in memory, otherwise the source from which to read them.
    pub(super) fn held(&self) -> Result<TorrentBytes, Option<Arc<dyn TorrentSource>>> {
        let slot = self.0.lock();
        match &slot.held {
            Some(held) => Ok(TorrentBytes(Arc::clone(held))),
            None => Err(slot.source.clone()),
        }
    }

    /// Keeps bytes that were read again.
    pub(super) fn keep(&self, bytes: &TorrentBytes) {
        self.0.lock().held = Some(Arc::clone(&bytes.0));
    }

    pub(super) fn let_go(&self) {
        let mut slot = self.0.lock();
        if slot.source.is_some() {
            let held = slot.held.take();
            drop(slot);
            // Large memory is freed after the lock is released.
            drop(held);
        }
    }

    pub(super) fn set_source(&self, source: Arc<dyn TorrentSource>) {
        self.0.lock().source = Some(source);
    }
}

/// The length of a SHA-1 digest.
pub(super) const HASH_LEN: usize = 20;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::metainfo::{Metainfo, MetainfoBuilder};

    struct Source {
        bytes: Option<Vec<u8>>,
        reads: AtomicUsize,
    }

    impl TorrentSource for Source {
        fn read(&self, _: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.bytes.clone().ok_or_else(|| "`x.torrent` is gone".into())
        }
    }

    fn source(bytes: Option<&[u8]>) -> Arc<Source> {
        Arc::new(Source { bytes: bytes.map(<[u8]>::to_vec), reads: AtomicUsize::new(0) })
    }

    fn torrent(name: &str) -> Metainfo {
        MetainfoBuilder::single_file(name, 20_000)
            .piece_len(16 << 10)
            .build((0..40).collect())
            .unwrap()
    }

    #[test]
    fn what_was_let_go_of_is_read_once_more_when_it_is_needed() {
        let torrent = torrent("a");
        let before = torrent.bytes().unwrap();
        let source = source(Some(&before));
        torrent.set_source(Arc::clone(&source) as _);
        assert!(Arc::ptr_eq(&torrent.bytes().unwrap().0, &before.0));
        torrent.let_go();
        assert_eq!(source.reads.load(Ordering::Relaxed), 0);
        for _ in 0..2 {
            let again = torrent.bytes().unwrap();
            assert_eq!(again[..], before[..]);
            assert_eq!(again.info(), before.info());
            assert_eq!(again.piece_hash(PieceIndex(1)), before.piece_hash(PieceIndex(1)));
            assert_eq!(source.reads.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn without_a_source_nothing_is_let_go_of() {
        let torrent = torrent("a");
        torrent.let_go();
        assert_eq!(torrent.bytes().unwrap().piece_hashes().len(), 40);
    }

    #[test]
    fn what_cannot_be_read_again_or_is_another_torrent_is_an_error() {
        let one = torrent("a");
        let other = torrent("b").bytes().unwrap();
        let cases = [
            (source(None), "`x.torrent` is gone".to_owned()),
            (source(Some(&other)), format!("`{}` is another torrent now", one.info_hash())),
            (source(Some(b"x")), "malformed".to_owned()),
        ];
        for (source, part) in cases {
            one.set_source(source);
            one.let_go();
            let error = one.bytes().unwrap_err().to_string();
            assert!(error.contains(&part), "{error}");
        }
    }

    #[test]
    fn a_torrent_whose_trackers_were_changed_is_still_the_same() {
        let one = torrent("a");
        let bytes = one.bytes().unwrap();
        let mut changed = b"d8:announce3:abc4:info".to_vec();
        changed.extend_from_slice(bytes.info());
        changed.push(b'e');
        one.set_source(source(Some(&changed)));
        one.let_go();
        let again = one.bytes().unwrap();
        assert_eq!((again.info(), again.piece_hashes()), (bytes.info(), bytes.piece_hashes()));
    }
}
