//! Which torrents' counts have changed, while somebody wants to know.

use std::collections::BTreeSet;

use piecework_core::InfoHash;

use super::torrent::Torrent;

/// Catalogued torrents whose counts have changed; `None` while nobody wants to know.
#[derive(Default)]
pub(super) struct Touched(Option<BTreeSet<InfoHash>>);

impl Touched {
    /// From now on, or no longer.
    pub(super) fn watch(&mut self, on: bool) {
        self.0 = on.then(|| self.0.take().unwrap_or_default());
    }

    /// Those since the last call.
    pub(super) fn take(&mut self) -> BTreeSet<InfoHash> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A peer came or left, or became complete.
    pub(super) fn add(&mut self, torrent: &Torrent) {
        if let Some(touched) = &mut self.0
            && torrent.ledger.is_some()
        {
            touched.insert(torrent.info_hash);
        }
    }
}
