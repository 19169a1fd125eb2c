//! Connections after their handshake.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use piecework_core::{Moment, network_of};

/// How many connections of one network stay even if others wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// For a public IPv4 address or an IPv6 /64.
    pub public: usize,
    /// For an address of this machine or of a private network, behind which there may be many peers:
    /// loopback, link-local, RFC 1918, RFC 4193, and 100.64.0.0/10 of carriers.
    pub local: usize,
}

/// A connection that has a place.
#[derive(Debug, Clone, Copy)]
pub struct Occupant<K> {
    /// The caller's key for it.
    pub key: K,
    /// The address at the other end of the connection.
    pub ip: IpAddr,
    /// When its handshake was completed.
    pub connected_at: Moment,
    /// When it last gave or took a block.
    pub used_at: Option<Moment>,
    /// Whether it has sent something since its handshake.
    pub has_spoken: bool,
}

/// How the network of an occupant relates to that of the newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// The occupant's network has more places than the newcomer's even after it gave one up.
    HasMore,
    /// They are the same network.
    Same,
    /// The occupant's network has about as many places, or fewer.
    HasNoMore,
}

impl Shares {
    /// Returns the share of the network that `ip` belongs to.
    pub fn of(&self, ip: IpAddr) -> usize {
        if is_local(ip.to_canonical()) { self.local } else { self.public }
    }
}

/// Returns which of `occupants`, which have all places, makes way for a newcomer from `newcomer`. Returns
/// `None` if the newcomer must be refused.
///
/// A connection that carried a block within the last two minutes stays, unless its network has more than
/// its share and the newcomer's has not. Among the others, those make way first whose network has the most
/// places, then those that never sent anything, then those that have been of no use for longest. How long
/// that must be depends on the networks: no time at all if the newcomer's network has fewer places, seconds
/// within one network, a minute between networks with equally many places.
pub fn who_makes_way<K: Copy>(
    now: Moment,
    shares: Shares,
    newcomer: IpAddr,
    occupants: impl Iterator<Item = Occupant<K>> + Clone,
) -> Option<K> {
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for occupant in occupants.clone() {
        *counts.entry(network_of(occupant.ip)).or_default() += 1;
    }
    let own = network_of(newcomer);
    let own_count = counts.get(&own).copied().unwrap_or(0);
    let has_room = own_count < shares.of(newcomer);
    let candidates = occupants.filter_map(|occupant| {
        let network = network_of(occupant.ip);
        let count = counts.get(&network).copied().unwrap_or(0);
        let relation = if network == own {
            Relation::Same
        } else if count >= own_count + 2 {
            Relation::HasMore
        } else {
            Relation::HasNoMore
        };
        let beyond = relation == Relation::HasMore && has_room && count > shares.of(occupant.ip);
        let in_use = occupant.is_in_use(now);
        let gives_way = beyond || (!in_use && occupant.is_useless(now, relation));
        let rank = (!in_use, count, !occupant.has_spoken, occupant.idle(now));
        gives_way.then_some((rank, occupant.key))
    });
    // The first one among equals, so that only the order of the occupants is random.
    candidates.reduce(|most, next| if next.0 > most.0 { next } else { most }).map(|(_, key)| key)
}

impl<K> Occupant<K> {
    /// Returns how long it has been of no use.
    fn idle(&self, now: Moment) -> Duration {
        now.since(self.used_at.unwrap_or(self.connected_at).max(self.connected_at))
    }

    fn is_in_use(&self, now: Moment) -> bool {
        self.used_at.is_some_and(|at| now.since(at) < IN_USE)
    }

    /// Returns whether it has been of no use for long enough.
    fn is_useless(&self, now: Moment, relation: Relation) -> bool {
        let patience = match relation {
            Relation::HasMore => Duration::ZERO,
            _ if !self.has_spoken => SILENT,
            Relation::Same => IDLE_AT_HOME,
            Relation::HasNoMore => IDLE,
        };
        self.idle(now) >= patience
    }
}

/// Returns whether many machines may share such an address, or one machine have many.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => {
            ip == Ipv6Addr::LOCALHOST || ip.is_unique_local() || ip.is_unicast_link_local()
        }
    }
}

/// A connection counts as used for this long after its last block: peers may have nothing for each other
/// for some time.
const IN_USE: Duration = Duration::from_secs(120);

/// Every client says what it holds within a second or two of the handshake.
const SILENT: Duration = Duration::from_secs(2);

/// How long a connection may be of no use if a peer of the same network wants its place.
const IDLE_AT_HOME: Duration = Duration::from_secs(10);

/// The same if another peer wants it. A peer that waits for its turn to be served has this long.
const IDLE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const SHARES: Shares = Shares { public: 8, local: 64 };

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(198, 51, 100, last).into()
    }

    /// Connected at 0, has spoken, never used.
    fn idle(key: usize, ip: IpAddr) -> Occupant<usize> {
        Occupant { key, ip, connected_at: at(0), used_at: None, has_spoken: true }
    }

    fn choose(now: u64, newcomer: IpAddr, occupants: &[Occupant<usize>]) -> Option<usize> {
        who_makes_way(at(now), SHARES, newcomer, occupants.iter().copied())
    }

    #[test]
    fn idle_peers_of_one_address_make_way_at_once_for_another_address() {
        let mut occupants: Vec<_> = (0..80).map(|key| idle(key, ip(1))).collect();
        occupants[17].connected_at = at(0);
        for (key, occupant) in occupants.iter_mut().enumerate().filter(|(key, _)| *key != 17) {
            occupant.connected_at = at(0) + Duration::from_millis(1 + key as u64);
        }
        assert_eq!(choose(1, ip(2), &occupants), Some(17));
        // A connection that has never sent anything goes first.
        occupants[40].has_spoken = false;
        assert_eq!(choose(1, ip(2), &occupants), Some(40));
    }

    #[test]
    fn of_one_address_the_silent_make_way_after_seconds_and_the_idle_a_little_later() {
        let home: IpAddr = Ipv4Addr::LOCALHOST.into();
        let mut occupants: Vec<_> = (0..80).map(|key| idle(key, home)).collect();
        assert_eq!(choose(9, home, &occupants), None);
        assert_eq!(choose(10, home, &occupants), Some(0));
        occupants[3].has_spoken = false;
        assert_eq!(choose(1, home, &occupants), None);
        assert_eq!(choose(2, home, &occupants), Some(3));
    }

    #[test]
    fn who_waits_for_a_turn_has_a_minute_before_a_stranger_takes_the_place() {
        let occupants: Vec<_> = (0..80).map(|key| idle(key, ip(key as u8))).collect();
        assert_eq!(choose(59, ip(200), &occupants), None);
        assert_eq!(choose(60, ip(200), &occupants), Some(0));
    }

    #[test]
    fn an_address_beyond_its_share_gives_up_even_what_it_uses() {
        let used = |key, ip, seconds| Occupant { used_at: Some(at(seconds)), ..idle(key, ip) };
        let mut occupants: Vec<_> = (0..10).map(|key| used(key, ip(1), 100)).collect();
        occupants[6].used_at = Some(at(90));
        assert_eq!(choose(101, ip(2), &occupants), Some(6));
        // The newcomer's own address has reached its share.
        occupants.extend((10..18).map(|key| used(key, ip(2), 100)));
        assert_eq!(choose(101, ip(2), &occupants), None);
        // Within the share, no useful connection makes way.
        occupants.truncate(8);
        assert_eq!(choose(101, ip(2), &occupants), None);
    }

    #[test]
    fn private_networks_have_a_larger_share() {
        for local in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(SHARES.of(local.parse().unwrap()), 64, "{local}");
        }
        for public in ["198.51.100.1", "100.128.0.1", "172.32.0.1", "2001:db8::1"] {
            assert_eq!(SHARES.of(public.parse().unwrap()), 8, "{public}");
        }
    }

    fn any_occupant() -> impl Strategy<Value = Occupant<usize>> {
        (0..5u8, 0..300u64, prop::option::of(0..300u64), any::<bool>()).prop_map(
            |(from, connected, used, has_spoken)| Occupant {
                key: 0,
                ip: ip(from),
                connected_at: at(connected),
                used_at: used.map(at),
                has_spoken,
            },
        )
    }

    proptest! {
        #[test]
        fn the_rules_hold_for_any_crowd(
            mut occupants in prop::collection::vec(any_occupant(), 1..60),
            newcomer in 0..6u8,
        ) {
            for (key, occupant) in occupants.iter_mut().enumerate() {
                occupant.key = key;
            }
            let count = |of: IpAddr| occupants.iter().filter(|other| other.ip == of).count();
            let own = count(ip(newcomer));
            let chosen = choose(300, ip(newcomer), &occupants);
            if let Some(key) = chosen {
                let victim = occupants[key];
                if victim.is_in_use(at(300)) {
                    // Only beyond a share, and never while there is a useless one.
                    prop_assert!(count(victim.ip) > SHARES.public && own < SHARES.public);
                    prop_assert!(count(victim.ip) >= own + 2);
                    let more_and_idle = |o: &Occupant<usize>| {
                        count(o.ip) >= own + 2 && o.ip != ip(newcomer) && !o.is_in_use(at(300))
                    };
                    prop_assert!(!occupants.iter().any(more_and_idle));
                }
            } else {
                // No idle connection of a network with more places keeps a newcomer out.
                let stays = |o: &Occupant<usize>| {
                    o.is_in_use(at(300)) || o.ip == ip(newcomer) || count(o.ip) < own + 2
                };
                prop_assert!(occupants.iter().all(stays));
            }
        }

        /// A flood from one address, against peers that each have their own address and exchange blocks.
        #[test]
        fn a_flood_never_displaces_peers_that_are_of_use(
            places in 4..40usize,
            steps in prop::collection::vec(any::<bool>(), 1..300),
        ) {
            let mut occupants: Vec<Occupant<usize>> = Vec::new();
            let (mut honest, mut now) = (0u8, 0);
            for (key, is_honest) in steps.into_iter().enumerate() {
                now += 1;
                let is_honest = is_honest && usize::from(honest) < places - 2;
                let from = if is_honest { ip(2 + honest) } else { ip(1) };
                let newcomer = Occupant {
                    used_at: is_honest.then(|| at(now)),
                    connected_at: at(now),
                    ..idle(key, from)
                };
                for occupant in occupants.iter_mut().filter(|o| o.used_at.is_some()) {
                    occupant.used_at = Some(at(now));
                }
                if occupants.len() == places {
                    let Some(key) = choose(now, from, &occupants) else {
                        prop_assert!(!is_honest, "an honest peer was refused");
                        continue;
                    };
                    let gone = occupants.iter().position(|o| o.key == key).unwrap();
                    prop_assert!(occupants[gone].used_at.is_none());
                    occupants.remove(gone);
                }
                honest += u8::from(is_honest);
                occupants.push(newcomer);
            }
        }
    }
}
