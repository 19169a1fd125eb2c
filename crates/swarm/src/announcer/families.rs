//! Decides over which address families to announce to a tracker (BEP 7).
//!
//! A tracker uses the source address of an announce as the address of the peer. So a peer that has both
//! IPv4 and IPv6 announces over both, to be found by peers that have only one of them, and to find those.
//! Often one family does not work: a name has an address that nothing listens on, or a route that ends
//! nowhere. That family is then left out for a while, as long as the other one works.

use std::time::Duration;

use hashbrown::HashMap;

use piecework_core::Moment;
use piecework_proto::announce::udp::Family;
use piecework_proto::announce::{AnnounceReply, MAX_PEERS};

/// Which family of which tracker does not work.
#[derive(Debug, Default)]
pub struct Families {
    /// By host, port and family.
    failing: HashMap<(String, u16, Family), FamilyOutage, foldhash::fast::FixedState>,
}

#[derive(Debug, Clone, Copy)]
struct FamilyOutage {
    /// The number of failures in a row while the other family worked.
    failures: u32,
    retry_at: Moment,
}

impl Families {
    /// Returns the families over which to announce now. `there` are the families of the tracker's
    /// addresses, and `ours` those over which peers reach us. Families in both are preferred, and among
    /// those the ones that are not known to fail.
    pub fn chosen(
        &self,
        now: Moment,
        (host, port): (&str, u16),
        there: &[Family],
        ours: &[Family],
    ) -> Vec<Family> {
        let mut those: Vec<Family> =
            there.iter().copied().filter(|family| ours.contains(family)).collect();
        if those.is_empty() {
            those = there.to_vec();
        }
        let works = |family: &Family| {
            let failing = self.failing.get(&(host.to_owned(), port, *family));
            failing.is_none_or(|failing| failing.retry_at <= now)
        };
        if those.iter().any(works) {
            those.retain(works);
        }
        those
    }

    /// Records that an announce over `family` has worked, or has not although the other family worked.
    pub fn done(&mut self, now: Moment, (host, port): (&str, u16), family: Family, worked: bool) {
        let key = (host.to_owned(), port, family);
        if worked {
            self.failing.remove(&key);
            return;
        }
        if self.failing.len() >= MOST_REMEMBERED && !self.failing.contains_key(&key) {
            // They are tried once more.
            self.failing.clear();
        }
        let failing =
            self.failing.entry(key).or_insert(FamilyOutage { failures: 0, retry_at: now });
        let pause = FIRST_PAUSE * (1 << failing.failures.min(MAX_DOUBLINGS));
        failing.failures = failing.failures.saturating_add(1);
        failing.retry_at = now + pause;
    }
}

/// Merges the answers over two families: the peers of both, and the longer intervals, since both are asked
/// at the same time.
pub fn merged_reply(mut one: AnnounceReply, other: AnnounceReply) -> AnnounceReply {
    if one.min_interval.is_some() || other.min_interval.is_some() {
        let least = |reply: &AnnounceReply| reply.min_interval.unwrap_or(reply.interval);
        one.min_interval = Some(least(&one).max(least(&other)));
    }
    one.interval = one.interval.max(other.interval);
    one.complete = one.complete.max(other.complete);
    one.incomplete = one.incomplete.max(other.incomplete);
    for peer in other.peers {
        if one.peers.len() < MAX_PEERS && !one.peers.contains(&peer) {
            one.peers.push(peer);
        }
    }
    one.external_ip = one.external_ip.or(other.external_ip);
    one.warning = one.warning.or(other.warning);
    one.tracker_id = one.tracker_id.or(other.tracker_id);
    one
}

/// The time until a family that failed while the other one worked is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// 1 min * 2^6 is an hour and four minutes.
const MAX_DOUBLINGS: u32 = 6;

/// Maximum number of families of trackers that are remembered as failing.
const MOST_REMEMBERED: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Family; 2] = [Family::V4, Family::V6];
    const TRACKER: (&str, u16) = ("tracker.example", 6_969);

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    #[test]
    fn line_5_both_families_are_announced_over() {
        let families = Families::default();
        assert_eq!(families.chosen(at(0), TRACKER, &BOTH, &BOTH), BOTH);
        assert_eq!(families.chosen(at(0), TRACKER, &[Family::V4], &BOTH), [Family::V4]);
        assert_eq!(families.chosen(at(0), TRACKER, &BOTH, &[Family::V6]), [Family::V6]);
        // A tracker with no other address is asked nevertheless.
        assert_eq!(families.chosen(at(0), TRACKER, &[Family::V6], &[Family::V4]), [Family::V6]);
    }

    #[test]
    fn a_family_that_fails_is_left_out_for_longer_and_longer_while_the_other_works() {
        let mut families = Families::default();
        let mut now = 0;
        for pause in [60, 120, 240, 480, 960, 1_920, 3_840, 3_840] {
            families.done(at(now), TRACKER, Family::V6, false);
            let chosen = |second| families.chosen(at(second), TRACKER, &BOTH, &BOTH);
            assert_eq!(chosen(now + pause - 1), [Family::V4]);
            assert_eq!(chosen(now + pause), BOTH);
            let other = ("tracker.example", 80);
            assert_eq!(families.chosen(at(now), other, &BOTH, &BOTH), BOTH);
            now += pause;
        }
        families.done(at(now), TRACKER, Family::V4, false);
        families.done(at(now), TRACKER, Family::V6, false);
        assert_eq!(families.chosen(at(now), TRACKER, &BOTH, &BOTH), BOTH, "none is known to work");
        families.done(at(now), TRACKER, Family::V6, true);
        assert_eq!(families.chosen(at(now), TRACKER, &BOTH, &BOTH), [Family::V6]);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut families = Families::default();
        for port in 0..5_000 {
            families.done(at(0), ("h", port), Family::V6, false);
            assert!(families.failing.len() <= MOST_REMEMBERED);
        }
    }

    #[test]
    fn answers_over_two_families_are_one() {
        let mut one = AnnounceReply::new(Duration::from_secs(60));
        one.peers = vec!["10.0.0.1:1".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap()];
        (one.complete, one.incomplete) = (3, 0);
        let mut other = AnnounceReply::new(Duration::from_secs(90));
        other.min_interval = Some(Duration::from_secs(20));
        other.peers = vec!["[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:1".parse().unwrap()];
        (other.complete, other.incomplete) = (1, 2);
        other.warning = Some("w".to_owned());
        let joined = merged_reply(one, other);
        assert_eq!(joined.interval, Duration::from_secs(90));
        // Over the first family nothing is announced before its interval is over.
        assert_eq!(joined.min_interval, Some(Duration::from_secs(60)));
        assert_eq!((joined.complete, joined.incomplete), (3, 2));
        assert_eq!((joined.peers.len(), joined.warning.as_deref()), (3, Some("w")));
    }
}
