//! Counts wrong keys by network, so that nobody can find a short key by trying all of them.

use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::{AnnounceKey, Moment, network_of};

/// The networks that recently sent wrong keys.
pub(super) struct Guesses {
    networks: HashMap<IpAddr, GuessCount, FixedState>,
}

#[derive(Clone, Copy)]
struct GuessCount {
    /// When all counted wrong keys are forgotten. Each takes [`FORGOTTEN`].
    until: Moment,
}

impl Guesses {
    /// Compares the key `told` that came from `ip` with the `known` key of the peer, and counts it if it is wrong.
    /// If the network has sent too many wrong keys, a short key is not compared but counts as wrong.
    pub(super) fn admits(
        &mut self,
        now: Moment,
        ip: IpAddr,
        known: AnnounceKey,
        told: AnnounceKey,
    ) -> bool {
        let guessable = is_guessable(known, told);
        if guessable && self.are_too_many(now, ip) {
            return false;
        }
        let right = known.is_same(told);
        // Two different long keys mean that the peer was restarted.
        if !right && guessable {
            self.add(now, ip);
        }
        right
    }

    /// Returns whether the network of `ip` has sent so many wrong keys that short ones are not compared.
    pub(super) fn are_too_many(&self, now: Moment, ip: IpAddr) -> bool {
        let guessed = self.networks.get(&network_of(ip));
        guessed.is_some_and(|guessed| guessed.until.since(now) > FORGOTTEN * (MOST - 1))
    }

    /// Counts a wrong key from `ip`.
    pub(super) fn add(&mut self, now: Moment, ip: IpAddr) {
        let network = network_of(ip);
        if self.networks.len() >= MAX_NETWORKS && !self.networks.contains_key(&network) {
            self.networks.retain(|_, guessed| guessed.until > now);
            let least = self.networks.iter().min_by_key(|(_, guessed)| guessed.until);
            if self.networks.len() >= MAX_NETWORKS
                && let Some(network) = least.map(|(network, _)| *network)
            {
                self.networks.remove(&network);
            }
        }
        let guessed = self.networks.entry(network).or_insert(GuessCount { until: now });
        let until = guessed.until.max(now) + FORGOTTEN;
        guessed.until = until.min(now + FORGOTTEN * MOST);
    }
}

/// Returns whether a key could be found by trying all: unless both keys are long, only their short forms are
/// compared.
pub(super) fn is_guessable(known: AnnounceKey, told: AnnounceKey) -> bool {
    !(known.is_long() && told.is_long())
}

impl Default for Guesses {
    fn default() -> Self {
        Self { networks: HashMap::with_hasher(FixedState::with_seed(0)) }
    }
}

/// The maximum number of wrong keys counted for a network, and how long each counts. At this rate 2^31 guesses
/// take 680 years.
const MOST: u32 = 60;
const FORGOTTEN: Duration = Duration::from_secs(10);

/// The maximum number of networks: some 200 KiB.
const MAX_NETWORKS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_start(Duration::from_secs(seconds))
    }

    fn ip(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn short_keys_are_compared_some_times_and_long_ones_always() {
        let mut guesses = Guesses::default();
        let (short, long) = (AnnounceKey::Short(7), AnnounceKey::Long([7; 16]));
        for guess in 1_000..1_000 + MOST {
            assert!(!guesses.are_too_many(at(0), ip(1)));
            assert!(!guesses.admits(at(0), ip(1), short, guess.into()));
        }
        assert!(guesses.are_too_many(at(0), ip(1)));
        assert!(!guesses.admits(at(0), ip(1), short, short), "nobody learns that it is right");
        assert!(!guesses.admits(at(0), ip(1), long, long.short().into()));
        assert!(guesses.admits(at(0), ip(1), long, long), "this one cannot be guessed");
        assert!(guesses.admits(at(0), ip(2), short, short));
        for _ in 0..MOST {
            assert!(!guesses.admits(at(0), ip(3), long, AnnounceKey::Long([8; 16])));
        }
        assert!(!guesses.are_too_many(at(0), ip(3)), "a long key that is another is no guess");
        assert!(guesses.admits(at(11), ip(1), short, short));
        for _ in 0..10 * MOST {
            guesses.add(at(20), ip(1));
        }
        assert!(guesses.admits(at(31), ip(1), short, short), "waiting is bounded");
    }

    #[test]
    fn networks_remembered_are_bounded() {
        let mut guesses = Guesses::default();
        for n in 0..2 * MAX_NETWORKS as u32 {
            guesses.add(at(u64::from(n) / 1_000), ip(n));
        }
        assert_eq!(guesses.networks.len(), MAX_NETWORKS);
    }
}
