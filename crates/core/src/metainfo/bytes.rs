//! The bytes of a torrent, which need not be in memory.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{PieceIndex, Sha1Hash};

use super::{HASH_LEN, Metainfo, MetainfoError, ParseLimits};

/// A whole `.torrent` exactly as it was received. Cheap to clone.
#[derive(Clone)]
pub struct TorrentBytes(Arc<Held>);

/// Where the bytes of torrents can be read that were let go of.
pub trait TorrentSource: Send + Sync {
    /// The `.torrent` of `metainfo`. May block.
    ///
    /// # Errors
    /// A sentence that says what is not there.
    fn read(&self, metainfo: &Metainfo) -> Result<Vec<u8>, String>;
}

/// The place of a torrent's bytes.
pub(super) struct Shelf(Mutex<Place>);

struct Place {
    held: Option<Arc<Held>>,
    source: Option<Arc<dyn TorrentSource>>,
}

struct Held {
    torrent: Box<[u8]>,
    /// Where in it the `info` dictionary lies.
    info: Range<u32>,
    /// Where in it the piece hashes lie, twenty bytes for each.
    hashes: Range<u32>,
}

impl TorrentBytes {
    /// The bytes of the `info` dictionary, those that the info-hash covers.
    pub fn info(&self) -> &[u8] {
        self.part(&self.0.info)
    }

    /// The hash that `piece` must have; `None` if there is no such piece.
    pub fn piece_hash(&self, piece: PieceIndex) -> Option<Sha1Hash> {
        let start = (piece.0 as usize).checked_mul(HASH_LEN)?;
        let hash = self.piece_hashes().get(start..start + HASH_LEN)?;
        Some(Sha1Hash(hash.try_into().ok()?))
    }

    /// All piece hashes, twenty bytes each.
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

impl Shelf {
    /// Holds `torrent`, in which `info` and `hashes` lie.
    pub(super) fn new(torrent: &[u8], info: Range<u32>, hashes: Range<u32>) -> Self {
        let held = Arc::new(Held { torrent: torrent.into(), info, hashes });
        Self(Mutex::new(Place { held: Some(held), source: None }))
    }

    pub(super) fn get(&self, metainfo: &Metainfo) -> Result<TorrentBytes, MetainfoError> {
        let source = {
            let place = self.0.lock();
            if let Some(held) = &place.held {
                return Ok(TorrentBytes(Arc::clone(held)));
            }
            place.source.clone()
        };
        let unreadable = |why| MetainfoError::Unreadable { why };
        // What has no source is never let go of.
        let source = source.ok_or_else(|| unreadable("the torrent is not in memory".to_owned()))?;
        // Not under the lock: it may take long, and who does not need the bytes is not to wait.
        let torrent = source.read(metainfo).map_err(unreadable)?;
        let again = Metainfo::parse(&torrent, &ParseLimits::default())?;
        if again.info_hash() != metainfo.info_hash() {
            let (wanted, got) = (metainfo.info_hash(), again.info_hash());
            return Err(unreadable(format!(
                "the file of the torrent `{wanted}` is another torrent now, `{got}`"
            )));
        }
        let bytes = again.bytes()?;
        self.0.lock().held = Some(Arc::clone(&bytes.0));
        Ok(bytes)
    }

    pub(super) fn let_go(&self) {
        let mut place = self.0.lock();
        if place.source.is_some() {
            let held = place.held.take();
            drop(place);
            // May be long, and is freed when the lock is free again.
            drop(held);
        }
    }

    pub(super) fn set_source(&self, source: Arc<dyn TorrentSource>) {
        self.0.lock().source = Some(source);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::metainfo::MetainfoBuilder;

    struct Source {
        bytes: Option<Vec<u8>>,
        reads: AtomicUsize,
    }

    impl TorrentSource for Source {
        fn read(&self, _: &Metainfo) -> Result<Vec<u8>, String> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.bytes.clone().ok_or_else(|| "`x.torrent` is gone".to_owned())
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
