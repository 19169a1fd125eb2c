//! How fast a broadcast can be at best.

use std::time::Duration;

/// The minimum time in which all peers can have everything, whoever sends what to whom.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// All uplinks are equal: M pieces from one seed to N peers take M + ⌊log₂ N⌋ times as long as
    /// one piece (Mundinger, Weber and Weiss, "Optimal scheduling of peer-to-peer file
    /// dissemination", 2008).
    EqualUplinks(Duration),
    /// Any links: max{F/us, F/dmin, N·F/(us + Σu)} (Kumar and Ross, "Peer-assisted file
    /// distribution: the minimum distribution time", 2006).
    Fluid(Duration),
}

impl Bound {
    /// Returns the time.
    pub fn time(self) -> Duration {
        match self {
            Self::EqualUplinks(time) | Self::Fluid(time) => time,
        }
    }
}

/// Returns the bound for `bytes` in `pieces` pieces from seeds to leechers. Rates are bytes a second:
/// `seeds` are those of the seeds' uplinks, `leechers` those of each leecher's uplink and downlink. Returns
/// `None` if there is no seed or no leecher.
pub fn broadcast_bound(
    bytes: u64,
    pieces: u32,
    seeds: &[u64],
    leechers: &[(u64, u64)],
) -> Option<Bound> {
    let slowest = leechers.iter().map(|(_, down)| *down).min()?;
    let seeding: u64 = seeds.iter().sum();
    if seeding == 0 || slowest == 0 {
        return None;
    }
    let bytes = bytes as f64;
    let up = seeds[0];
    let is_equal = seeds.len() == 1 && leechers.iter().all(|(other, _)| *other == up);
    if is_equal && leechers.iter().all(|(_, down)| *down >= up) {
        let pieces = f64::from(pieces.max(1));
        let rounds = pieces + f64::from(leechers.len().ilog2());
        let seconds = bytes / up as f64 * rounds / pieces;
        return Some(Bound::EqualUplinks(Duration::from_secs_f64(seconds)));
    }
    let all: u64 = seeding + leechers.iter().map(|(up, _)| up).sum::<u64>();
    let seconds = (bytes / seeding as f64)
        .max(bytes / slowest as f64)
        .max(leechers.len() as f64 * bytes / all as f64);
    Some(Bound::Fluid(Duration::from_secs_f64(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_uplinks_need_a_round_for_each_piece_and_each_doubling() {
        let bound = broadcast_bound(1_000_000, 100, &[10_000], &[(10_000, 10_000); 16]).unwrap();
        assert_eq!(bound, Bound::EqualUplinks(Duration::from_secs(104)));
    }

    /// Kurose and Ross, "Computer Networking", 6th edition, chapter 2, problem 22: F = 15 Gbit,
    /// us = 30 Mbit/s, d = 2 Mbit/s. Their table of peer-to-peer distribution, in seconds.
    #[test]
    fn fluid_bound_is_the_one_of_kurose_and_ross() {
        let table = [
            (10, 300_000, 7_500),
            (10, 700_000, 7_500),
            (10, 2_000_000, 7_500),
            (100, 300_000, 25_000),
            (100, 700_000, 15_000),
            (100, 2_000_000, 7_500),
            (1_000, 300_000, 45_455),
            (1_000, 700_000, 20_548),
            (1_000, 2_000_000, 7_500),
        ];
        for (peers, up, seconds) in table {
            let leechers = vec![(up / 8, 2_000_000 / 8); peers];
            let bound = broadcast_bound(15_000_000_000 / 8, 1_000, &[30_000_000 / 8], &leechers);
            let time = bound.unwrap().time().as_secs_f64();
            assert!((time / f64::from(seconds) - 1.0).abs() < 0.002, "{peers}, {up}: {time}");
        }
    }

    #[test]
    fn without_seeds_or_leechers_there_is_no_bound() {
        assert_eq!(broadcast_bound(1, 1, &[], &[(1, 1)]), None);
        assert_eq!(broadcast_bound(1, 1, &[1], &[]), None);
    }
}
