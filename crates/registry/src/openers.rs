//! How many torrents each network was the first to announce, on an open tracker.

use piecework_core::low_half;
use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::network_of;

/// A network, as the hash under which the table keeps it. Two networks rarely have the same hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Opener(u32);

/// The number of torrents of each network that announced them first.
pub(super) struct Openers {
    torrents: HashMap<Opener, u32, FixedState>,
    hasher: FixedState,
}

impl Openers {
    pub(super) fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self { torrents: HashMap::with_hasher(hasher.clone()), hasher }
    }

    pub(super) fn opener(&self, ip: IpAddr) -> Opener {
        Opener(low_half(std::hash::BuildHasher::hash_one(&self.hasher, network_of(ip))))
    }

    pub(super) fn of(&self, opener: Opener) -> u32 {
        self.torrents.get(&opener).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, opener: Opener) {
        *self.torrents.entry(opener).or_default() += 1;
    }

    pub(super) fn take(&mut self, opener: Opener) {
        if let Some(torrents) = self.torrents.get_mut(&opener) {
            *torrents -= 1;
            if *torrents == 0 {
                self.torrents.remove(&opener);
            }
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check(&self, openers: impl Iterator<Item = Opener>) {
        let mut torrents = HashMap::<_, u32, _>::with_hasher(self.hasher.clone());
        openers.for_each(|opener| *torrents.entry(opener).or_default() += 1);
        assert_eq!(torrents, self.torrents);
    }
}
