//! Connection ids of UDP clients (BEP 15). They prove that a client receives packets at its address.
//!
//! An id is a keyed hash of the address and the time. The tracker stores nothing for it, so that a flood from forged
//! addresses costs one hash per packet and no memory.

use std::net::IpAddr;
use std::time::Duration;

use sha1::{Digest, Sha1};

use piecework_core::{Moment, low_half};

/// Issues and checks connection ids.
pub(super) struct ConnectionIds {
    secret: [u8; 32],
}

impl ConnectionIds {
    /// Returns an issuer whose ids cannot be made without `secret`.
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// Returns an id for a client at `ip`, valid for two to three minutes.
    pub(super) fn issue(&self, now: Moment, ip: IpAddr) -> u64 {
        self.id_of(slot_of(now), ip)
    }

    /// Returns whether `id` was recently issued to `ip`.
    pub(super) fn is_valid(&self, now: Moment, ip: IpAddr, id: u64) -> bool {
        // The lowest bits say which slot it claims to be from, so that one hash is enough.
        let slot = slot_of(now);
        let age = slot.wrapping_sub(id) & SLOT_MASK;
        age <= VALID_SLOTS && slot >= age && self.id_of(slot - age, ip) == id
    }

    fn id_of(&self, slot: u64, ip: IpAddr) -> u64 {
        // The input has a fixed length and only 62 bits of the hash are visible, so that a length extension is not
        // possible. It is short enough for one block of the hash.
        let mut hash = Sha1::new();
        hash.update(self.secret);
        hash.update(low_half(slot).to_be_bytes());
        match ip.to_canonical() {
            IpAddr::V4(ip) => hash.update(ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => hash.update(ip.octets()),
        }
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 20]>::from(hash.finalize());
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) & !SLOT_MASK | slot & SLOT_MASK
    }
}

fn slot_of(now: Moment) -> u64 {
    now.since_start().as_secs() / SLOT.as_secs()
}

/// The time after which ids change.
const SLOT: Duration = Duration::from_secs(60);

/// An id is accepted in its own slot and in the next two: for two minutes, as BEP 15 requires, and the rest of the
/// first slot.
const VALID_SLOTS: u64 = 2;

const SLOT_MASK: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn an_id_is_good_for_two_minutes_and_its_own_address() {
        let ids = ConnectionIds::new([7; 32]);
        let ip: IpAddr = [10, 0, 0, 1].into();
        for start in [0, 59, 60, 1_000] {
            let id = ids.issue(at(start), ip);
            assert!(ids.is_valid(at(start), ip, id));
            assert!(ids.is_valid(at(start + 120), ip, id));
            assert!(!ids.is_valid(at(start + 180), ip, id));
            assert!(!ids.is_valid(at(start + 240), ip, id), "slots come round after four");
            assert!(!ids.is_valid(at(start), [10, 0, 0, 2].into(), id));
        }
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert!(ids.is_valid(at(0), mapped, ids.issue(at(0), ip)));
    }

    #[test]
    fn forged_connection_ids_are_refused() {
        let (ids, others) = (ConnectionIds::new([7; 32]), ConnectionIds::new([8; 32]));
        let ip: IpAddr = [10, 0, 0, 1].into();
        let id = ids.issue(at(500), ip);
        assert!(!others.is_valid(at(500), ip, id));
        assert!((0..64).all(|bit| !ids.is_valid(at(500), ip, id ^ 1 << bit)));
        assert!((0..8).all(|id| !ids.is_valid(at(500), ip, id)));
    }
}
