//! Who has how much of an open tracker's table: torrents that are not in the catalogue, by the network
//! that announced them first.

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{GoneWhy, Refusal, Registry};
use piecework_core::{InfoHash, Rng, network_of};

/// A network, as the hash that the table keeps of it: two networks seldom have the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Opener(u32);

/// Torrents by the network that announced them first.
pub(super) struct Shares {
    torrents: HashMap<Opener, u32, FixedState>,
    hasher: FixedState,
}

impl Shares {
    pub(super) fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self { torrents: HashMap::with_hasher(hasher.clone()), hasher }
    }

    fn opener(&self, ip: IpAddr) -> Opener {
        Opener(std::hash::BuildHasher::hash_one(&self.hasher, network_of(ip)) as u32)
    }

    fn of(&self, opener: Opener) -> u32 {
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

impl Registry {
    /// Finds room for a torrent that `from` is the first to announce. When there is none, a small torrent
    /// of a network that has more of them makes way.
    ///
    /// # Errors
    /// If the network has as many as it may have, or no other has more.
    pub(super) fn open_torrent(&mut self, rng: &mut Rng, from: IpAddr) -> Result<Opener, Refusal> {
        let opener = self.shares.opener(from);
        let here = self.shares.of(opener);
        let most = self.config.max_torrents_per_ip;
        // Whoever runs the tracker may run what they like beside it.
        if here as usize >= most && !from.is_loopback() {
            return Err(Refusal::TooManyTorrents(most));
        }
        if self.torrents.len() >= self.config.max_torrents && !self.make_way(rng, opener, here) {
            return Err(Refusal::Full);
        }
        Ok(opener)
    }

    /// Forgets a torrent that is not in the catalogue, with all its peers. Returns whether there was one.
    pub fn forget(&mut self, info_hash: InfoHash) -> bool {
        let Some(slot) = self.find(info_hash) else { return false };
        if self.torrents[slot].ledger.is_some() {
            return false;
        }
        self.clear(slot);
        true
    }

    /// Looks at some torrents, and forgets the one of the network that has the most, if that is
    /// another one with more than `asker`, or this one.
    fn make_way(&mut self, rng: &mut Rng, asker: Opener, here: u32) -> bool {
        let slots = self.torrents.capacity() as u64;
        let looked = (0..LOOKS).filter_map(|_| {
            let slot = rng.below(slots) as usize;
            let torrent = self.torrents.get(slot)?;
            // Where more meet, it is no longer one network's.
            let opener = torrent.opener?;
            let small = torrent.v4.len() + torrent.v6.len() <= SMALL;
            let torrents = self.shares.of(opener);
            (small && (torrents > here || opener == asker)).then_some((torrents, slot))
        });
        let Some((_, slot)) = looked.max() else { return false };
        self.clear(slot);
        true
    }

    fn clear(&mut self, slot: usize) {
        while let Some(place) = self.torrents[slot].last_place() {
            self.remove(slot, place, GoneWhy::Expired);
        }
        self.drop_if_idle(slot);
    }
}

/// Torrents looked at to find one that makes way. Of a table of which a network has a quarter, it finds one
/// 99 times out of 100.
const LOOKS: usize = 16;

/// Peers of a torrent that may make way, at most.
const SMALL: usize = 8;
