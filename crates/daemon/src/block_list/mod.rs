//! Block lists: addresses that no connection is made to or accepted from. No I/O.
//!
//! A list has one range in each line, in one of three forms, which may be mixed:
//!
//! - `10.0.0.0/8`, `2001:db8::/32`, or a single address (CIDR, RFC 4632);
//! - `001.002.003.004 - 001.002.003.255 , 000 , a name` (eMule's `ipfilter.dat`), where a level
//!   of 128 or more means that the range is allowed and so left out;
//! - `a name:1.2.3.4-1.2.3.255` (PeerGuardian's text form, `.p2p`).
//!
//! Lines that begin with `#` are comments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ranges of addresses, sorted and merged. A lookup takes some twenty comparisons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockList {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// The result of parsing a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The list.
    pub list: BlockList,
    /// Number of lines in none of the forms, which are skipped.
    pub skipped: u64,
    /// Number of the first skipped line, from 1.
    pub first_skipped: Option<u64>,
}

/// The list has too many ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the block list has more than the allowed `{limit}` ranges")]
pub struct TooLong {
    /// Maximum number of ranges.
    pub limit: usize,
}

impl BlockList {
    /// Parses a list. Names may contain bytes that are not UTF-8.
    ///
    /// # Errors
    /// If it has more than five million ranges. Invalid lines are counted and skipped, since lists
    /// from the web have some.
    pub fn parse(text: &[u8]) -> Result<Parsed, TooLong> {
        let mut parsed = Parsed::default();
        let BlockList { v4, v6 } = &mut parsed.list;
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            match read_line(line.trim_ascii()) {
                Line::Nothing => {}
                Line::V4(first, last) => v4.push((first, last)),
                Line::V6(first, last) => v6.push((first, last)),
                Line::Nonsense => {
                    parsed.skipped += 1;
                    parsed.first_skipped.get_or_insert(number);
                }
            }
            if v4.len() + v6.len() > MOST {
                return Err(TooLong { limit: MOST });
            }
        }
        merge(v4, |last| last.checked_add(1));
        merge(v6, |last| last.checked_add(1));
        Ok(parsed)
    }

    /// Returns whether the list contains `ip`. IPv4-mapped IPv6 addresses count as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => has(&self.v4, u32::from(ip)),
            IpAddr::V6(ip) => has(&self.v6, u128::from(ip)),
        }
    }

    /// Returns the number of ranges, after merging those that touch or overlap.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

enum Line {
    Nothing,
    V4(u32, u32),
    V6(u128, u128),
    Nonsense,
}

fn read_line(line: &[u8]) -> Line {
    if line.is_empty() || line[0] == b'#' {
        return Line::Nothing;
    }
    cidr(line).or_else(|| dat(line)).or_else(|| p2p(line)).unwrap_or(Line::Nonsense)
}

fn cidr(line: &[u8]) -> Option<Line> {
    let text = std::str::from_utf8(line).ok()?;
    let (text, bits) = match text.split_once('/') {
        Some((text, bits)) => (text, Some(bits.trim().parse::<u32>().ok()?)),
        None => (text, None),
    };
    match address(text)? {
        IpAddr::V4(ip) => {
            let bits = bits.unwrap_or(32);
            let host = if bits == 0 { u32::MAX } else { u32::MAX.checked_shr(bits).unwrap_or(0) };
            let first = u32::from(ip) & !host;
            (bits <= 32).then_some(Line::V4(first, first | host))
        }
        IpAddr::V6(ip) => {
            let bits = bits.unwrap_or(128);
            let host = u128::MAX.checked_shr(bits).unwrap_or(0);
            let first = u128::from(ip) & !host;
            (bits <= 128).then_some(Line::V6(first, first | host))
        }
    }
}

fn dat(line: &[u8]) -> Option<Line> {
    let comma = line.iter().position(|byte| *byte == b',');
    let (addresses, rest) = line.split_at(comma.unwrap_or(line.len()));
    let found = range(std::str::from_utf8(addresses).ok()?)?;
    let level = rest.get(1..).unwrap_or_default().split(|byte| *byte == b',').next()?;
    let level = std::str::from_utf8(level.trim_ascii()).ok().and_then(|level| level.parse().ok());
    // eMule blocks levels below 128.
    Some(if level.unwrap_or(0_u32) >= 128 { Line::Nothing } else { found })
}

/// Names may contain colons and dashes, and IPv6 addresses contain colons. The shortest tail after a colon
/// that is a range would be wrong for `a:b::1-b::2`, so the longest is used.
fn p2p(line: &[u8]) -> Option<Line> {
    let colons = line.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    colons.take(COLONS).find_map(|at| range(std::str::from_utf8(&line[at + 1..]).ok()?))
}

fn range(text: &str) -> Option<Line> {
    let (first, last) = text.split_once('-')?;
    match (address(first)?, address(last)?) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            Some(Line::V4(first.into(), last.into()))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
            Some(Line::V6(first.into(), last.into()))
        }
        _ => None,
    }
}

/// Parses an address. Parts of an IPv4 address may have leading zeros, which do not make them octal.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(|ip| IpAddr::V6(ip).to_canonical());
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.len() <= 3)?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Sorts ranges and merges those that touch.
fn merge<T: Ord + Copy>(ranges: &mut Vec<(T, T)>, next: impl Fn(T) -> Option<T>) {
    ranges.sort_unstable();
    ranges.dedup_by(|later, kept| {
        let touches = next(kept.1).is_none_or(|next| later.0 <= next);
        if touches {
            kept.1 = kept.1.max(later.1);
        }
        touches
    });
    ranges.shrink_to_fit();
}

fn has<T: Ord + Copy>(ranges: &[(T, T)], value: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= value);
    behind > 0 && ranges[behind - 1].1 >= value
}

/// Maximum number of ranges. The largest lists have some hundred thousand; five million take 40 MB.
const MOST: usize = 5_000_000;

/// Maximum number of colons that are tried in a line. Names rarely contain any.
const COLONS: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> Parsed {
        BlockList::parse(text.as_bytes()).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_three_forms_are_read() {
        let text = "# comment\r\n10.0.0.0/8\n192.0.2.7\n2001:db8::/32\n\
            001.002.003.004 - 001.002.003.255 , 000 , Some-name, inc.\r\n\
            5.0.0.0 - 5.255.255.255 , 200 , allowed\n\
            evil: corp-1:6.0.0.1-6.0.0.2\nsix:2001:db9::1-2001:db9::f\n\nnonsense\n";
        let Parsed { list, skipped, first_skipped } = list(text);
        assert_eq!((list.len(), skipped, first_skipped), (6, 1, Some(10)));
        for inside in [
            "10.255.255.255",
            "192.0.2.7",
            "2001:db8:ffff::1",
            "1.2.3.4",
            "1.2.3.255",
            "6.0.0.2",
            "2001:db9::f",
            "::ffff:10.1.1.1",
        ] {
            assert!(list.contains(ip(inside)), "{inside}");
        }
        for outside in ["11.0.0.0", "192.0.2.8", "1.2.3.3", "5.1.1.1", "6.0.0.3", "2001:db9::10"] {
            assert!(!list.contains(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn what_is_no_range_is_passed_over() {
        let parsed =
            list("1.2.3\n1.2.3.4.5\n1.2.3.4/33\n9.0.0.0-8.0.0.0\n::/129\n0x1.2.3.4\n1.2.3.4-::1");
        assert_eq!((parsed.list.len(), parsed.skipped), (0, 7));
    }

    #[test]
    fn everything_can_be_blocked() {
        let parsed = list("0.0.0.0/0\n255.255.255.255\n::/0");
        assert_eq!(parsed.list.len(), 2);
        assert!(parsed.list.contains(ip("255.255.255.255")) && parsed.list.contains(ip("::")));
    }

    #[test]
    fn names_need_not_be_utf8() {
        let parsed = BlockList::parse(b"b\xff\xfe:1.0.0.0-1.0.0.1").unwrap();
        assert!(parsed.list.contains(ip("1.0.0.1")));
    }

    proptest! {
        #[test]
        fn a_look_finds_what_a_walk_finds(
            ranges in prop::collection::vec((0_u32..300, 0_u32..40), 0..30),
            looked in 0_u32..400,
        ) {
            let line = |(first, more): &(u32, u32)| {
                format!("{} - {} , 0 , x\n", Ipv4Addr::from(*first), Ipv4Addr::from(first + more))
            };
            let parsed = list(&ranges.iter().map(line).collect::<String>());
            let walked = ranges.iter().any(|(first, more)| (*first..=first + more).contains(&looked));
            prop_assert_eq!(parsed.list.contains(Ipv4Addr::from(looked).into()), walked);
            prop_assert_eq!(parsed.skipped, 0);
            let apart = |pair: &[(u32, u32)]| pair[0].1 + 1 < pair[1].0;
            prop_assert!(parsed.list.v4.windows(2).all(apart));
        }

        #[test]
        fn prefixes_hold_exactly_their_addresses(addr: u32, bits in 0_u32..=32, other: u32) {
            let parsed = list(&format!("{}/{bits}", Ipv4Addr::from(addr)));
            let same = bits == 0 || (addr ^ other) >> (32 - bits) == 0;
            prop_assert_eq!(parsed.list.contains(Ipv4Addr::from(other).into()), same);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = BlockList::parse(&bytes);
        }
    }
}
