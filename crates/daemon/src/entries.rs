//! The entries of the torrent table, with counts by state that are updated with every change. Reading the
//! counts does not iterate over torrents.

use std::ops::{Deref, DerefMut};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::entry::Entry;
use piecework_api::State;
use piecework_core::InfoHash;

/// The entries of the torrent table. An entry is counted again when it was changed here. For changes in the
/// engine call [`EntryMap::recount`].
#[derive(Default)]
pub(super) struct EntryMap {
    all: HashMap<InfoHash, Box<Entry>, FixedState>,
    tally: Tally,
}

/// The number of torrents in each state, and the sums of their rates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    states: [u64; State::ALL.len()],
    /// Payload received and sent in bytes a second, of torrents that transfer any.
    rates: HashMap<InfoHash, (u64, u64), FixedState>,
    download_rate: u64,
    upload_rate: u64,
}

/// Mutable access to an entry, which is counted again when this is dropped.
pub(super) struct EntryMut<'a> {
    info_hash: InfoHash,
    entry: &'a mut Entry,
    tally: &'a mut Tally,
}

impl EntryMap {
    pub(crate) fn get_mut(&mut self, info_hash: &InfoHash) -> Option<EntryMut<'_>> {
        let entry = self.all.get_mut(info_hash)?;
        Some(EntryMut { info_hash: *info_hash, entry, tally: &mut self.tally })
    }

    pub(crate) fn insert(&mut self, info_hash: InfoHash, mut entry: Box<Entry>) {
        self.remove(&info_hash);
        self.tally.count(info_hash, &mut entry);
        self.all.insert(info_hash, entry);
    }

    pub(crate) fn remove(&mut self, info_hash: &InfoHash) -> Option<Box<Entry>> {
        let mut entry = self.all.remove(info_hash)?;
        self.tally.discount(*info_hash, &mut entry);
        Some(entry)
    }

    /// Returns all entries. Call [`EntryMap::recount`] for those whose state is changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&InfoHash, &mut Entry)> {
        self.all.iter_mut().map(|(info_hash, entry)| (info_hash, &mut **entry))
    }

    /// Counts these torrents again.
    pub(crate) fn recount<'a>(&mut self, changed: impl IntoIterator<Item = &'a InfoHash>) {
        for info_hash in changed {
            // Dropping it counts it.
            drop(self.get_mut(info_hash));
        }
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl Deref for EntryMap {
    type Target = HashMap<InfoHash, Box<Entry>, FixedState>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Tally {
    /// Returns the number of torrents in each state, in the order of [`State::ALL`].
    pub(crate) fn states(&self) -> [u64; State::ALL.len()] {
        self.states
    }

    /// Returns the number of torrents that transfer payload.
    pub(crate) fn active(&self) -> usize {
        self.rates.len()
    }

    /// Returns the payload received and sent by all torrents, in bytes a second.
    pub(crate) fn rates(&self) -> (u64, u64) {
        (self.download_rate, self.upload_rate)
    }

    fn count(&mut self, info_hash: InfoHash, entry: &mut Entry) {
        let (state, down, up) = entry.summary();
        if let Some(before) = entry.counted.replace(state) {
            self.states[before as usize] -= 1;
        }
        self.states[state as usize] += 1;
        self.set_rates(info_hash, (down, up));
    }

    fn discount(&mut self, info_hash: InfoHash, entry: &mut Entry) {
        if let Some(before) = entry.counted.take() {
            self.states[before as usize] -= 1;
        }
        self.set_rates(info_hash, (0, 0));
    }

    fn set_rates(&mut self, info_hash: InfoHash, rates: (u64, u64)) {
        let before = match rates {
            (0, 0) => self.rates.remove(&info_hash),
            rates => self.rates.insert(info_hash, rates),
        };
        let (down, up) = before.unwrap_or_default();
        self.download_rate = self.download_rate - down + rates.0;
        self.upload_rate = self.upload_rate - up + rates.1;
    }
}

impl Deref for EntryMut<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        self.entry
    }
}

impl DerefMut for EntryMut<'_> {
    fn deref_mut(&mut self) -> &mut Entry {
        self.entry
    }
}

impl Drop for EntryMut<'_> {
    fn drop(&mut self) {
        self.tally.count(self.info_hash, self.entry);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::super::entry::{Body, BrokenTorrent};
    use super::super::record::TorrentRecord;
    use super::super::unhashed::UnhashedTorrent;
    use super::*;
    use crate::state::{Counters, Saved};

    fn hash(number: u8) -> InfoHash {
        InfoHash([number; 20])
    }

    fn entry(number: u8, body: Body) -> Box<Entry> {
        let saved = Saved {
            info_hash: hash(number),
            file: String::new(),
            root: "/".into(),
            added_at: 0,
            done_at: None,
            settings: String::new(),
            checkpoint: None,
            counters: Counters::default(),
        };
        Box::new(Entry::new(number.into(), &saved, TorrentRecord::default(), body, Instant::now()))
    }

    fn broken() -> Body {
        let (name, error, root) = (String::new(), "gone".into(), "/".into());
        let (metainfo, checkpoint, taken) = (None, None, None);
        Body::broken(BrokenTorrent { name, error, root, metainfo, checkpoint, taken })
    }

    /// Counts states by looking at each entry.
    fn looked_at(torrents: &EntryMap) -> [u64; State::ALL.len()] {
        let mut states = [0; State::ALL.len()];
        for entry in torrents.values() {
            states[entry.summary().0 as usize] += 1;
        }
        states
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_there_is(
            steps in proptest::collection::vec((0u8..8, 0u8..6), 1..200),
        ) {
            let mut torrents = EntryMap::default();
            for (number, step) in steps {
                match step {
                    0 => {
                        torrents.remove(&hash(number));
                    }
                    1 => torrents.insert(hash(number), entry(number, broken())),
                    2 => {
                        let making = UnhashedTorrent::new(String::new(), "/".into());
                        torrents.insert(hash(number), entry(number, Body::unhashed(making)));
                    }
                    3 => {
                        if let Some(mut entry) = torrents.get_mut(&hash(number)) {
                            entry.body = Body::unhashed(UnhashedTorrent::new(String::new(), "/".into()));
                        }
                    }
                    4 => {
                        if let Some(mut entry) = torrents.get_mut(&hash(number)) {
                            entry.body = broken();
                        }
                    }
                    _ => {
                        for (_, entry) in torrents.iter_mut() {
                            entry.body = broken();
                        }
                        let all: Vec<InfoHash> = torrents.keys().copied().collect();
                        torrents.recount(&all);
                    }
                }
                prop_assert_eq!(torrents.tally().states(), looked_at(&torrents));
            }
            let all: Vec<InfoHash> = torrents.keys().copied().collect();
            for info_hash in all {
                torrents.remove(&info_hash);
            }
            prop_assert_eq!(torrents.tally(), &Tally::default());
        }
    }

    #[test]
    fn rates_are_summed_up_and_those_without_any_are_not_active() {
        let mut tally = Tally::default();
        tally.set_rates(hash(1), (5, 0));
        tally.set_rates(hash(2), (1, 7));
        assert_eq!((tally.rates(), tally.active()), ((6, 7), 2));
        tally.set_rates(hash(2), (0, 2));
        assert_eq!((tally.rates(), tally.active()), ((5, 2), 2));
        tally.set_rates(hash(1), (0, 0));
        tally.set_rates(hash(3), (0, 0));
        assert_eq!((tally.rates(), tally.active()), ((0, 2), 1));
    }
}
