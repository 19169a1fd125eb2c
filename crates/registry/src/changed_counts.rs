//! Which torrents' counts have changed, recorded only while somebody watches.

use std::collections::BTreeSet;

use piecework_core::InfoHash;

use super::torrent::Torrent;

/// The catalogued torrents whose counts have changed; `None` while nobody watches.
#[derive(Default)]
pub(super) struct ChangedCounts(Option<BTreeSet<InfoHash>>);

impl ChangedCounts {
    /// Turns the recording on or off.
    pub(super) fn watch(&mut self, on: bool) {
        self.0 = on.then(|| self.0.take().unwrap_or_default());
    }

    /// Returns the torrents since the last call.
    pub(super) fn take(&mut self) -> BTreeSet<InfoHash> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Records that a peer of the torrent came, left, or became complete.
    pub(super) fn add(&mut self, torrent: &Torrent) {
        if let Some(touched) = &mut self.0
            && torrent.ledger.is_some()
        {
            touched.insert(torrent.info_hash);
        }
    }
}
