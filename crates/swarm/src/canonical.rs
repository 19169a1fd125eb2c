//! The canonical priority of a connection (BEP 40): both ends compute the same one, so that a full swarm keeps the
//! connections that both ends prefer, and nobody chooses its neighbours.

use std::net::{IpAddr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};

/// Returns the priority of the connection between two addresses. A higher one is better. If the addresses are of
/// different families, IPv4 addresses count as mapped to IPv6.
pub(super) fn canonical_priority(one: SocketAddr, other: SocketAddr) -> u32 {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    if a == b {
        let [low, high] = sorted(one.port().to_be_bytes(), other.port().to_be_bytes());
        return CASTAGNOLI.checksum(&[low, high].concat());
    }
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let (a, b) = (a.octets(), b.octets());
            let mask = match () {
                () if a[..2] != b[..2] => [0xff, 0xff, 0x55, 0x55],
                () if a[..3] != b[..3] => [0xff, 0xff, 0xff, 0x55],
                () => [0xff; 4],
            };
            masked(a, b, mask)
        }
        (a, b) => {
            let (a, b) = (octets_v6(a), octets_v6(b));
            // The first six bytes, and one more for each further byte that is the same.
            let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
            let whole = if same < 6 { 6 } else { same + 1 };
            let mut mask = [0x55; 16];
            mask.iter_mut().take(whole).for_each(|byte| *byte = 0xff);
            masked(a, b, mask)
        }
    }
}

fn octets_v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn masked<const N: usize>(mut a: [u8; N], mut b: [u8; N], mask: [u8; N]) -> u32 {
    for at in 0..N {
        a[at] &= mask[at];
        b[at] &= mask[at];
    }
    let [low, high] = sorted(a, b);
    CASTAGNOLI.checksum(&[low, high].concat())
}

fn sorted<const N: usize>(a: [u8; N], b: [u8; N]) -> [[u8; N]; 2] {
    if a <= b { [a, b] } else { [b, a] }
}

/// CRC-32C.
const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

#[cfg(test)]
mod tests {
    use super::*;

    fn priority(one: &str, other: &str) -> u32 {
        let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
        let both = [canonical_priority(one, other), canonical_priority(other, one)];
        assert_eq!(both[0], both[1], "both ends compute the same");
        both[0]
    }

    #[test]
    fn the_examples_of_bep_40_have_their_priorities() {
        assert_eq!(priority("123.213.32.10:0", "98.76.54.32:0"), 0xec2d_7224);
        assert_eq!(priority("123.213.32.10:0", "123.213.32.234:0"), 0x9956_8189);
    }

    #[test]
    fn one_network_has_few_priorities_and_one_machine_is_told_apart_by_its_ports() {
        let own = "[2001:db8::1]:1";
        assert_eq!(
            priority(own, "[2400:1:2:0:0:0:0:1]:5"),
            priority(own, "[2400:1:2:aa00::1]:7"),
            "the upper bits of half a byte do not count"
        );
        assert_ne!(priority(own, "[2400:1:2::1]:5"), priority(own, "[2400:1:3::1]:5"));
        assert_ne!(priority("10.0.0.1:1", "10.0.0.1:2"), priority("10.0.0.1:1", "10.0.0.1:3"));
        assert_ne!(priority("10.0.0.1:1", "[2400::1]:2"), 0);
    }
}
