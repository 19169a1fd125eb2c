//! Local discovery (BEP 14): when to announce which torrents on the local network, and whose announcements to believe.
//!
//! A session has one [`LocalDiscovery`]. It goes round all torrents every five minutes, 20 of them in a packet and at
//! most a packet a second. Torrents that have just come, and those that somebody else announces, come first.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecework_core::{InfoHash, Moment, is_of_one_machine};
use piecework_proto::local::{LocalAnnounce, MAX_LOCAL_TORRENTS};

/// Decides about announcements on the local network.
#[derive(Debug)]
pub struct LocalDiscovery {
    /// Where peers connect to us.
    port: u16,
    cookie: String,
    /// Torrents to announce before the others.
    first: VecDeque<InfoHash>,
    /// When torrents were announced ahead of the others.
    announced: BTreeMap<InfoHash, Moment>,
    /// The last torrent that this round has announced.
    cursor: Option<InfoHash>,
    /// When the round began or begins.
    round_at: Moment,
    is_between_rounds: bool,
    /// When the next packet may be sent.
    next_at: Moment,
    /// How many packets of each host were read since `counted_from`.
    heard: BTreeMap<IpAddr, u32>,
    counted_from: Moment,
}

impl LocalDiscovery {
    /// Creates the state of a session that accepts peers on `port`. No other program on the network has its `cookie`,
    /// of at most 64 ASCII letters and digits.
    pub fn new(port: u16, cookie: String, now: Moment) -> Self {
        Self {
            port,
            cookie,
            first: VecDeque::new(),
            announced: BTreeMap::new(),
            cursor: None,
            round_at: now,
            is_between_rounds: false,
            next_at: now,
            heard: BTreeMap::new(),
            counted_from: now,
        }
    }

    /// Returns when to call [`LocalDiscovery::next_packet`].
    pub fn deadline(&self) -> Moment {
        match self.is_between_rounds && self.first.is_empty() {
            true => self.round_at.max(self.next_at),
            false => self.next_at,
        }
    }

    /// Announces a torrent soon. Does nothing if that was done within the last minute.
    pub fn hurry(&mut self, now: Moment, torrent: InfoHash) {
        let is_recent = |at: &Moment| now.since(*at) < LEAST_PAUSE;
        if self.first.len() >= MAX_FIRST || self.first.contains(&torrent) {
            return;
        }
        if self.announced.len() >= MAX_FIRST {
            self.announced.retain(|_, at| is_recent(at));
        }
        let is_full = self.announced.len() >= MAX_FIRST;
        if !is_full && !self.announced.get(&torrent).is_some_and(is_recent) {
            self.announced.insert(torrent, now);
            self.first.push_back(torrent);
        }
    }

    /// Returns what to send to the groups now, if anything. `torrents` returns at most the given number of torrents
    /// that may be announced, in the order of their info-hashes, from those after the given one.
    pub fn next_packet(
        &mut self,
        now: Moment,
        torrents: impl FnOnce(Option<InfoHash>, usize) -> Vec<InfoHash>,
    ) -> Option<LocalAnnounce> {
        if now < self.next_at {
            return None;
        }
        let count = self.first.len().min(MAX_LOCAL_TORRENTS);
        let mut named: Vec<InfoHash> = self.first.drain(..count).collect();
        if named.is_empty() {
            if self.is_between_rounds {
                if now < self.round_at {
                    return None;
                }
                self.is_between_rounds = false;
            }
            if self.cursor.is_none() {
                self.round_at = now;
            }
            named = torrents(self.cursor, MAX_LOCAL_TORRENTS);
            named.truncate(MAX_LOCAL_TORRENTS);
            self.cursor = named.last().copied();
            if named.len() < MAX_LOCAL_TORRENTS {
                self.cursor = None;
                self.is_between_rounds = true;
                self.round_at = (self.round_at + ROUND).max(now + PACKET_PAUSE);
            }
        }
        self.next_at = now + PACKET_PAUSE;
        let cookie = Some(self.cookie.clone());
        (!named.is_empty()).then_some(LocalAnnounce { port: self.port, torrents: named, cookie })
    }

    /// Returns where a peer is and which torrents it has, if a packet is to be believed. `is_near` says whether the
    /// sender's address is of a network to which this machine is connected.
    pub fn hear(
        &mut self,
        now: Moment,
        from: IpAddr,
        is_near: bool,
        packet: &[u8],
    ) -> Option<(SocketAddr, Vec<InfoHash>)> {
        if !is_near || !is_of_one_machine(from) {
            return None;
        }
        if now.since(self.counted_from) >= COUNTING {
            self.heard.clear();
            self.counted_from = now;
        }
        let hosts = self.heard.len();
        let count = match self.heard.get_mut(&from) {
            Some(count) => count,
            None if hosts < MAX_HOSTS => self.heard.entry(from).or_default(),
            None => return None,
        };
        *count += 1;
        if *count > MAX_PACKETS {
            return None;
        }
        let announce = LocalAnnounce::decode(packet)?;
        let is_ours = announce.cookie.as_ref() == Some(&self.cookie);
        (!is_ours).then(|| (SocketAddr::new(from, announce.port), announce.torrents))
    }
}

/// BEP 14: every five minutes.
const ROUND: Duration = Duration::from_secs(300);

/// Time between two packets. 10,000 torrents take 500 packets, and then a round takes longer than five minutes.
const PACKET_PAUSE: Duration = Duration::from_secs(1);

/// BEP 14: no torrent more often than once a minute.
const LEAST_PAUSE: Duration = Duration::from_secs(60);

/// Maximum number of torrents that are announced ahead of the others within a minute: as many as fit in its packets.
const MAX_FIRST: usize = 1_000;

/// Limits of what is read in a minute: packets of a host, and hosts. A host with 10,000 torrents sends 500 packets in
/// five minutes.
const COUNTING: Duration = Duration::from_secs(60);
const MAX_PACKETS: u32 = 120;
const MAX_HOSTS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: &str = "ours";

    fn hash(n: u32) -> InfoHash {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        InfoHash(bytes)
    }

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    fn discovery() -> LocalDiscovery {
        LocalDiscovery::new(6881, COOKIE.to_owned(), at(0))
    }

    /// All packets until `end`, of a session with `count` torrents, with their time in seconds.
    fn packets(of: &mut LocalDiscovery, count: u32, end: u64) -> Vec<(u64, Vec<InfoHash>)> {
        let mut sent = Vec::new();
        while of.deadline() <= at(end) {
            let now = of.deadline();
            let packet = of.next_packet(now, |after, most| {
                let all = (0..count).map(hash);
                all.filter(|hash| after.is_none_or(|after| *hash > after)).take(most).collect()
            });
            let seconds = now.since(Moment::START).as_secs();
            sent.extend(packet.map(|packet| (seconds, packet.torrents)));
            assert!(of.deadline() > now, "it goes on");
        }
        sent
    }

    #[test]
    fn every_torrent_is_announced_every_five_minutes_twenty_in_a_packet() {
        let sent = packets(&mut discovery(), 45, 700);
        let times: Vec<u64> = sent.iter().map(|(time, _)| *time).collect();
        assert_eq!(times, [0, 1, 2, 300, 301, 302, 600, 601, 602]);
        let first: Vec<InfoHash> =
            sent[..3].iter().flat_map(|(_, torrents)| torrents).copied().collect();
        assert_eq!(first, (0..45).map(hash).collect::<Vec<_>>());
    }

    #[test]
    fn ten_thousand_torrents_take_a_packet_a_second() {
        let sent = packets(&mut discovery(), 10_000, 2_000);
        assert!(sent.windows(2).all(|pair| pair[1].0 > pair[0].0));
        assert_eq!(sent.iter().filter(|(_, torrents)| torrents.contains(&hash(9_999))).count(), 3);
    }

    #[test]
    fn a_session_without_torrents_sends_nothing() {
        assert!(packets(&mut discovery(), 0, 2_000).is_empty());
    }

    #[test]
    fn a_torrent_that_somebody_wants_is_announced_at_once_and_then_not_for_a_minute() {
        let mut discovery = discovery();
        packets(&mut discovery, 3, 10);
        for second in 11..100 {
            discovery.hurry(at(second), hash(7));
            let packet = discovery.next_packet(at(second), |_, _| Vec::new());
            let expected = matches!(second, 11 | 71).then(|| vec![hash(7)]);
            assert_eq!(packet.map(|packet| packet.torrents), expected, "{second}");
        }
    }

    fn heard(by: &mut LocalDiscovery, from: &str, is_near: bool, cookie: &str) -> bool {
        let announce =
            LocalAnnounce { port: 7, torrents: vec![hash(1)], cookie: Some(cookie.to_owned()) };
        let heard = by.hear(at(1), from.parse().unwrap(), is_near, &announce.encode(true));
        heard.inspect(|heard| assert_eq!(heard.0.port(), 7)).is_some()
    }

    #[test]
    fn our_own_packets_and_those_from_other_networks_are_passed_over() {
        let mut discovery = discovery();
        assert!(heard(&mut discovery, "192.168.1.9", true, "theirs"));
        assert!(!heard(&mut discovery, "192.168.1.9", true, COOKIE));
        assert!(!heard(&mut discovery, "8.8.8.8", false, "theirs"));
        assert!(!heard(&mut discovery, "0.0.0.0", true, "theirs"));
        assert!(!heard(&mut discovery, "239.192.152.143", true, "theirs"));
        assert_eq!(discovery.hear(at(1), [192, 168, 1, 9].into(), true, b"GET / HTTP/1.1"), None);
    }

    #[test]
    fn floods_of_one_host_and_of_many_are_bounded() {
        let mut discovery = discovery();
        let believed = (0..1_000).filter(|_| heard(&mut discovery, "10.0.0.1", true, "x")).count();
        assert_eq!(believed, MAX_PACKETS as usize);
        for host in 0..5_000u32 {
            let [_, _, high, low] = host.to_be_bytes();
            heard(&mut discovery, &format!("10.1.{high}.{low}"), true, "x");
        }
        assert_eq!(discovery.heard.len(), MAX_HOSTS);
        for n in 0..5_000 {
            discovery.hurry(at(2), hash(n));
        }
        assert_eq!((discovery.first.len(), discovery.announced.len()), (MAX_FIRST, MAX_FIRST));
    }
}
