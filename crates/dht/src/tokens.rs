//! Numbers that others cannot guess: the tokens with which they may announce, and the numbers of our own questions.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use sha1::{Digest, Sha1};

use piecework_core::{InfoHash, Moment};

/// Makes numbers out of a secret.
#[derive(Clone)]
pub(crate) struct Tokens {
    secret: [u8; 32],
    drawn: u64,
}

impl Tokens {
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self { secret, drawn: 0 }
    }

    /// Returns the token with which `ip` may announce the torrent now, and for at least one more period.
    pub(crate) fn token(&self, now: Moment, ip: IpAddr, hash: InfoHash) -> [u8; TOKEN_LEN] {
        self.token_of(period_of(now), ip, hash)
    }

    /// Returns whether `token` is one that [`Self::token`] returned not long ago.
    pub(crate) fn is_valid(&self, now: Moment, ip: IpAddr, hash: InfoHash, token: &[u8]) -> bool {
        let period = period_of(now);
        let valid = |period: u64| token == self.token_of(period, ip, hash);
        valid(period) || period.checked_sub(1).is_some_and(valid)
    }

    /// Returns an unpredictable number for a question.
    pub(crate) fn draw(&mut self) -> u32 {
        self.drawn += 1;
        let [a, b, c, d, ..] = self.hash(&[b"question", &self.drawn.to_be_bytes()]);
        u32::from_be_bytes([a, b, c, d])
    }

    fn token_of(&self, period: u64, ip: IpAddr, hash: InfoHash) -> [u8; TOKEN_LEN] {
        let period = period.to_be_bytes();
        let whole = match ip {
            IpAddr::V4(ip) => self.hash(&[b"token", &period, &hash.0, &ip.octets()]),
            IpAddr::V6(ip) => self.hash(&[b"token", &period, &hash.0, &ip.octets()]),
        };
        let mut token = [0; TOKEN_LEN];
        token.copy_from_slice(&whole[..TOKEN_LEN]);
        token
    }

    /// What is hashed cannot be extended: only the beginning of the digest is given away.
    fn hash(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut hasher = Sha1::new_with_prefix(self.secret);
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize().into()
    }
}

fn period_of(now: Moment) -> u64 {
    now.since_start().as_secs() / PERIOD.as_secs()
}

/// The addresses from which packets came that only somebody who receives our packets can send. To others, answers are
/// short.
pub(crate) struct ProvedAddresses {
    until: HashMap<SocketAddr, Moment, FixedState>,
    swept: Moment,
}

impl ProvedAddresses {
    pub(crate) fn new(seed: u64) -> Self {
        Self { until: HashMap::with_hasher(FixedState::with_seed(seed)), swept: Moment::START }
    }

    pub(crate) fn add(&mut self, now: Moment, addr: SocketAddr) {
        let full = self.until.len() >= MAX_PROVED;
        if full && now.since(self.swept) >= PROVED_SWEPT_EVERY {
            self.swept = now;
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() < MAX_PROVED || self.until.contains_key(&addr) {
            self.until.insert(addr, now + PROVED_FOR);
        }
    }

    pub(crate) fn contains(&self, now: Moment, addr: SocketAddr) -> bool {
        self.until.get(&addr).is_some_and(|until| *until > now)
    }
}

/// Long enough that it cannot be guessed within its time: the answers are limited.
const TOKEN_LEN: usize = 8;

/// A token is good for one to two periods: 5 to 10 minutes (BEP 5).
const PERIOD: Duration = Duration::from_secs(300);

/// As long as a node that answered is good (BEP 5).
const PROVED_FOR: Duration = Duration::from_secs(15 * 60);

/// About 400 kB. What does not fit gets short answers.
const MAX_PROVED: usize = 4096;

/// A sweep visits all addresses, so it is rare.
const PROVED_SWEPT_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: InfoHash = InfoHash([7; 20]);

    #[test]
    fn a_token_is_good_for_its_address_and_torrent_for_some_minutes() {
        let tokens = Tokens::new([1; 32]);
        let (ip, other) = (IpAddr::from([9, 9, 9, 9]), IpAddr::from([9, 9, 9, 8]));
        let now = Moment::from_secs(1_000);
        let token = tokens.token(now, ip, HASH);
        assert!(tokens.is_valid(now, ip, HASH, &token));
        assert!(tokens.is_valid(now + PERIOD, ip, HASH, &token));
        assert!(!tokens.is_valid(now + PERIOD * 2, ip, HASH, &token));
        assert!(!tokens.is_valid(now, other, HASH, &token));
        assert!(!tokens.is_valid(now, ip, InfoHash([8; 20]), &token));
        assert!(!tokens.is_valid(now, ip, HASH, &token[..7]));
        assert!(!Tokens::new([2; 32]).is_valid(now, ip, HASH, &token));
    }

    #[test]
    fn proofs_expire_and_take_bounded_memory() {
        let mut proved = ProvedAddresses::new(3);
        let addr = |n: u32| SocketAddr::new(std::net::Ipv4Addr::from(n).into(), 1);
        let now = Moment::from_secs(60);
        (0..10_000).for_each(|n| proved.add(now, addr(n)));
        assert_eq!(proved.until.len(), MAX_PROVED);
        assert!(proved.contains(now, addr(0)) && !proved.contains(now, addr(9_999)));
        let later = now + PROVED_FOR;
        assert!(!proved.contains(later, addr(0)));
        proved.add(later, addr(9_999));
        assert!(proved.contains(later, addr(9_999)));
        assert_eq!(proved.until.len(), 1);
    }
}
