//! The cost of the tracker's registry alone: announces to one large swarm, and to many small ones.
//!
//! The figure is the time for an announce of a peer that is known, with 50 peers in the answer.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use piecework_core::{InfoHash, Moment, PeerId, Rng};
use piecework_proto::announce::Announce;
use piecework_registry::{PeerQuery, Registry, RegistryConfig};

/// A registry in which each of `torrents` has `each` peers, a quarter of them complete.
struct Tracker {
    registry: Registry,
    rng: Rng,
    torrents: u32,
    each: u32,
}

impl Tracker {
    fn new(torrents: u32, each: u32) -> Self {
        let config =
            RegistryConfig { max_torrents_per_ip: usize::MAX, ..RegistryConfig::default() };
        let (registry, rng) = (Registry::new(config, 1), Rng::from_seed(1));
        let mut tracker = Self { registry, rng, torrents, each };
        for number in 0..torrents * each {
            tracker.announce(number, 0);
        }
        tracker
    }

    /// Announces the peer with this number, and returns how many peers the answer has.
    fn announce(&mut self, number: u32, want: usize) -> usize {
        let (torrent, peer) = (number % self.torrents, number / self.torrents);
        let mut info_hash = InfoHash([0; 20]);
        info_hash.0[..4].copy_from_slice(&torrent.wrapping_mul(0x9e37_79b9).to_be_bytes());
        // Addresses are spread over all networks.
        let ip = Ipv4Addr::from(number.wrapping_mul(0x85eb_ca6b) | 0x0100_0000);
        let left = if peer % 4 == 0 { 0 } else { 1 };
        let said = Announce::new(info_hash, PeerId([7; 20]), 6_881, left);
        let now = Moment::START + Duration::from_secs(1);
        let want = PeerQuery::any(want);
        let answer = self.registry.announce(now, &mut self.rng, IpAddr::V4(ip), &said, want);
        answer.map_or(0, |answer| answer.peers.len())
    }
}

fn announces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("announce");
    group.throughput(Throughput::Elements(1));
    for (name, torrents, each) in [
        ("one torrent of 50,000 peers", 1, 50_000),
        ("100,000 torrents of 10 peers", 100_000, 10),
        ("1,000 torrents of 300 peers", 1_000, 300),
    ] {
        let mut tracker = Tracker::new(torrents, each);
        let mut number = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                number = (number + 7_919) % (tracker.torrents * tracker.each);
                black_box(tracker.announce(number, 50))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, announces);
criterion_main!(benches);
