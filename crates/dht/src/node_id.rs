//! Ids of nodes, and how they are tied to addresses (BEP 42).

use std::fmt;
use std::net::IpAddr;

use crc::{CRC_32_ISCSI, Crc};

use piecework_core::{InfoHash, Rng, SaturatingFrom, Scope, scope_of};

/// The id of a node, or another point in the same space, such as an info-hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 20]);

/// How far two ids are from each other: their XOR, as a number (BEP 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Distance(u128, u32);

impl NodeId {
    /// Returns a random id, for a node whose address is not known.
    pub fn random(rng: &mut Rng) -> Self {
        let mut id = [0; 20];
        for part in id.chunks_mut(8) {
            part.copy_from_slice(&rng.next_u64().to_be_bytes()[..part.len()]);
        }
        Self(id)
    }

    /// Returns a random id for a node that others see at `ip`.
    pub fn for_ip(ip: IpAddr, rng: &mut Rng) -> Self {
        let mut id = Self::random(rng);
        let prefix = prefix_of(ip, id.0[19]);
        id.0[0] = prefix[0];
        id.0[1] = prefix[1];
        id.0[2] = prefix[2] & LAST_TIED_BITS | id.0[2] & !LAST_TIED_BITS;
        id
    }

    /// Returns whether a node at `ip` may have this id. Nodes in private networks may have any.
    pub fn fits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if scope_of(ip) != Scope::Global {
            return true;
        }
        let prefix = prefix_of(ip, self.0[19]);
        self.0[..2] == prefix[..2] && (self.0[2] ^ prefix[2]) & LAST_TIED_BITS == 0
    }

    /// Returns the distance between two ids.
    pub fn distance(&self, other: &Self) -> Distance {
        let ((a, b), (c, d)) = (self.halves(), other.halves());
        Distance(a ^ c, b ^ d)
    }

    /// Returns how many bits the beginnings of two ids share, at most 160.
    pub fn shared_bits(&self, other: &Self) -> usize {
        let Distance(high, low) = self.distance(other);
        let equal = if high == 0 { 128 + low.leading_zeros() } else { high.leading_zeros() };
        usize::saturating_from(u64::from(equal))
    }

    fn halves(&self) -> (u128, u32) {
        let mut high = [0; 16];
        let mut low = [0; 4];
        high.copy_from_slice(&self.0[..16]);
        low.copy_from_slice(&self.0[16..]);
        (u128::from_be_bytes(high), u32::from_be_bytes(low))
    }

    /// Returns a random id that shares exactly the first `bits` bits with this one.
    pub(crate) fn random_at(&self, bits: usize, rng: &mut Rng) -> Self {
        let mut id = Self::random(rng);
        for bit in 0..=bits.min(159) {
            let mask = 0x80 >> (bit % 8);
            let own = self.0[bit / 8] & mask;
            let wanted = if bit == bits { own ^ mask } else { own };
            id.0[bit / 8] = id.0[bit / 8] & !mask | wanted;
        }
        id
    }
}

impl From<InfoHash> for NodeId {
    fn from(hash: InfoHash) -> Self {
        Self(hash.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// Returns the beginning of the ids whose last byte is `last` of nodes at `ip`. 21 bits of it count.
fn prefix_of(ip: IpAddr, last: u8) -> [u8; 3] {
    let mut masked = [0_u8; 8];
    let len = match ip {
        IpAddr::V4(ip) => {
            let pairs = ip.octets().into_iter().zip([0x03, 0x0f, 0x3f, 0xff]);
            masked.iter_mut().zip(pairs).for_each(|(byte, (octet, mask))| *byte = octet & mask);
            4
        }
        IpAddr::V6(ip) => {
            let masks = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];
            let pairs = ip.octets().into_iter().zip(masks);
            masked.iter_mut().zip(pairs).for_each(|(byte, (octet, mask))| *byte = octet & mask);
            8
        }
    };
    masked[0] |= (last & 7) << 5;
    let [a, b, c, _] = CASTAGNOLI.checksum(&masked[..len]).to_be_bytes();
    [a, b, c]
}

/// CRC-32C.
const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The bits of the third byte that depend on the address.
const LAST_TIED_BITS: u8 = 0xf8;

#[cfg(test)]
mod tests {
    use piecework_core::Rng;
    use proptest::prelude::*;

    use super::*;

    /// The test vectors of BEP 42.
    #[test]
    fn an_id_begins_with_the_checksum_of_its_address() {
        let table = [
            ("124.31.75.21", 1, [0x5f, 0xbf, 0xbf]),
            ("21.75.31.124", 86, [0x5a, 0x3c, 0xe9]),
            ("65.23.51.170", 22, [0xa5, 0xd4, 0x32]),
            ("84.124.73.14", 65, [0x1b, 0x03, 0x21]),
            ("43.213.53.83", 90, [0xe5, 0x6f, 0x6c]),
        ];
        for (ip, last, start) in table {
            let mut id = NodeId([0; 20]);
            id.0[..3].copy_from_slice(&start);
            id.0[19] = last;
            let ip: IpAddr = ip.parse().unwrap();
            assert!(id.fits(ip), "{ip}");
            id.0[1] ^= 1;
            assert!(!id.fits(ip), "{ip}");
        }
    }

    #[test]
    fn nodes_of_private_networks_may_have_any_id() {
        for ip in ["10.0.0.1", "127.0.0.1", "192.168.3.4", "fd00::1", "::1", "::ffff:10.0.0.1"] {
            assert!(NodeId([7; 20]).fits(ip.parse().unwrap()), "{ip}");
        }
    }

    proptest! {
        #[test]
        fn a_made_id_fits_its_address_and_few_others(v4: u32, v6: u128, seed: u64) {
            let mut rng = Rng::from_seed(seed);
            for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                prop_assert!(NodeId::for_ip(ip, &mut rng).fits(ip));
            }
        }

        #[test]
        fn a_random_id_shares_as_many_bits_as_asked(seed: u64, bits in 0_usize..160) {
            let mut rng = Rng::from_seed(seed);
            let own = NodeId::random(&mut rng);
            prop_assert_eq!(own.shared_bits(&own.random_at(bits, &mut rng)), bits);
            prop_assert_eq!(own.shared_bits(&own), 160);
        }

        #[test]
        fn more_shared_bits_are_closer(seed: u64, near in 1_usize..160) {
            let mut rng = Rng::from_seed(seed);
            let own = NodeId::random(&mut rng);
            let (close, far) = (own.random_at(near, &mut rng), own.random_at(near - 1, &mut rng));
            prop_assert!(own.distance(&close) < own.distance(&far));
        }
    }
}
