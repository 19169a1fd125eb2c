//! Tests of what is served to which peers.

use super::*;
use piecework_core::InfoHash;

fn uploads(table: &mut TestSwarm) -> Vec<(u32, BlockRef)> {
    let upload = |action: &Action| match action {
        Action::Upload { peer, block } => Some((peer.0, *block)),
        _ => None,
    };
    let uploads = table.actions.iter().filter_map(upload).collect();
    table.actions.retain(|action| upload(action).is_none());
    uploads
}

fn unchoked(table: &TestSwarm) -> Vec<u32> {
    table.swarm.peers().filter(|peer| !peer.choked).map(|peer| peer.key.0).collect()
}

#[test]
fn requests_are_served_once_unchoked_and_only_for_what_is_held() {
    let mut table = TestSwarm::new("x.", 4);
    for guest in [guest(1), guest(2).plain()] {
        let key = guest.key;
        table.join(&guest, "..");
        table.hear(key, Message::Request(block(0, 0)));
        let reject = |block| if guest.fast { vec![Message::Reject(block)] } else { vec![] };
        assert_eq!(table.said(key), reject(block(0, 0)), "choked");
        table.hear(key, Message::Interested);
        assert_eq!(table.said(key), [Message::Unchoke]);
        let odd = BlockRef { piece: PieceIndex(0), begin: 5, len: 77 };
        table.hear(key, Message::Request(odd));
        assert_eq!(uploads(&mut table), [(key, odd)]);
        table.hear(key, Message::Request(block(1, 0)));
        assert_eq!(table.said(key), reject(block(1, 0)), "not held");
        assert_eq!(uploads(&mut table), []);
    }
}

#[test]
fn cancelled_requests_leave_the_queue() {
    let mut table = TestSwarm::new("x.", 4);
    table.join(&guest(1), "..");
    table.hear(1, Message::Interested);
    table.hear(1, Message::Request(block(0, 0)));
    table.hear(1, Message::Request(block(0, 1)));
    table.take();
    table.hear(1, Message::Cancel(block(0, 1)));
    let peer = PeerKey(1);
    let reject = Action::Send { peer, message: Message::Reject(block(0, 1)) };
    assert_eq!(table.take(), [Action::CancelUpload { peer, block: block(0, 1) }, reject]);
    table.handle(Event::Uploaded { peer, blocks: 1, bytes: u64::from(BLOCK_LEN) });
    table.hear(1, Message::Cancel(block(0, 0)));
    assert_eq!(table.take(), []);
    let view = table.swarm.peers().next().unwrap();
    assert_eq!((view.uploads_queued, view.uploaded), (0, u64::from(BLOCK_LEN)));
    assert_eq!(table.swarm.progress().uploaded, u64::from(BLOCK_LEN));
}

#[test]
fn only_the_best_givers_and_one_by_chance_are_served_while_downloading() {
    let mut table = TestSwarm::with("x.....", 1, |config| config.upload_slots = 2);
    for key in 1..=5 {
        table.serve(&guest(key), "......");
        table.hear(key, Message::Interested);
    }
    assert_eq!(unchoked(&table), [1, 2]);
    // The fifth gives, so in the next round it is served.
    table.hear(5, Message::Have(PieceIndex(3)));
    let given = table.requests(5)[0];
    table.give(5, given);
    table.wait(Duration::from_secs(10));
    let served = unchoked(&table);
    assert!(served.contains(&5) && served.len() == 2, "{served:?}");
    let mut lucky = std::collections::BTreeSet::new();
    for _ in 0..40 {
        table.wait(Duration::from_secs(10));
        for key in 1..=5 {
            table.hear(key, Message::KeepAlive);
        }
        assert_eq!(unchoked(&table).len(), 2);
        lucky.extend(unchoked(&table));
    }
    assert_eq!(lucky.len(), 5, "everybody has had a chance");
}

#[test]
fn seed_serves_more_peers_than_it_has_slots_in_turns() {
    let mut table = TestSwarm::with("xx", 1, |config| config.upload_slots = 2);
    for key in 1..=6 {
        table.join(&guest(key), "..");
        table.hear(key, Message::Interested);
    }
    let mut rounds: BTreeMap<u32, u32> = BTreeMap::new();
    for _ in 0..36 {
        table.wait(Duration::from_secs(10));
        for key in 1..=6 {
            table.hear(key, Message::KeepAlive);
        }
        let served = unchoked(&table);
        assert_eq!(served.len(), 2);
        served.into_iter().for_each(|key| *rounds.entry(key).or_default() += 1);
    }
    assert_eq!(rounds.len(), 6);
    assert!(rounds.values().all(|rounds| (6..=18).contains(rounds)), "{rounds:?}");
}

#[test]
fn slot_that_becomes_free_is_given_to_who_waits_longest() {
    let mut table = TestSwarm::with("xx", 1, |config| config.upload_slots = 1);
    for key in 1..=3 {
        table.join(&guest(key), "..");
        table.hear(key, Message::Interested);
    }
    assert_eq!(unchoked(&table), [1]);
    table.handle(Event::Disconnected { peer: PeerKey(1) });
    assert_eq!(unchoked(&table), [2]);
    table.hear(2, Message::NotInterested);
    assert_eq!(unchoked(&table), [3]);
}

/// Returns one of many peers.
fn one_of_many(key: u32, ip: &str) -> TestPeer {
    let mut id = [0xcc; 20];
    id[..4].copy_from_slice(&key.to_be_bytes());
    guest(1).called(PeerId(id)).at(&format!("{ip}:{}", 1_000 + key)).numbered(key)
}

/// A seed with `idle` peers that are interested and request nothing, each at a separate address or all at
/// one.
fn besieged(idle: u32, one_address: bool) -> TestSwarm {
    let mut table = TestSwarm::with(&"x".repeat(64), 4, |config| config.max_peers = 2_000);
    for key in 1..=idle {
        let ip = match one_address {
            true => "10.7.0.1".to_owned(),
            false => format!("10.7.{}.{}", key / 200, key % 200 + 1),
        };
        table.join(&one_of_many(key, &ip), &".".repeat(64));
        table.hear(key, Message::Interested);
    }
    table.take();
    table
}

/// Lets time pass. The peers `keys` request two blocks whenever they are unchoked and have received their
/// blocks. Returns how many blocks each was sent.
fn served_blocks(table: &mut TestSwarm, keys: &[u32], seconds: u64) -> BTreeMap<u32, u32> {
    let mut served = BTreeMap::new();
    for _ in 0..seconds * 10 {
        table.wait(Duration::from_millis(100));
        for key in keys {
            let peer = PeerKey(*key);
            let view = |table: &TestSwarm| {
                table
                    .swarm
                    .peers()
                    .find(|view| view.key == peer)
                    .map(|v| (v.choked, v.uploads_queued))
            };
            if let Some((false, queued)) = view(table) {
                if queued > 0 {
                    let bytes = u64::from(BLOCK_LEN) * queued as u64;
                    table.handle(Event::Uploaded { peer, blocks: queued as u32, bytes });
                    *served.entry(*key).or_default() += queued as u32;
                }
                table.hear(*key, Message::Request(block(0, 0)));
                table.hear(*key, Message::Request(block(0, 1)));
            }
        }
        table.take();
    }
    served
}

#[test]
fn idle_interested_peers_starve_nobody() {
    for (idle, head_start, seconds) in [(72, 0, 3), (72, 60, 5), (1_000, 0, 3), (1_000, 60, 5)] {
        for one_address in [false, true] {
            let mut table = besieged(idle, one_address);
            table.wait(Duration::from_secs(head_start));
            let honest = one_of_many(5_000, if one_address { "10.7.0.1" } else { "10.9.0.1" });
            table.join(&honest, &".".repeat(64));
            table.hear(5_000, Message::Interested);
            let served = served_blocks(&mut table, &[5_000], seconds);
            assert!(
                served.contains_key(&5_000),
                "{idle} idle, {head_start} s later, {one_address}"
            );
            // From then on it has its slot for good.
            let served = served_blocks(&mut table, &[5_000], 60);
            assert!(served[&5_000] > 60 * 10, "{idle}: {served:?}");
            assert!(unchoked(&table).len() <= 8);
        }
    }
}

#[test]
fn honest_leechers_share_the_slots_whatever_the_idle_do() {
    // Idle in four ways: silent, flapping, requesting only while choked, connecting again.
    for trick in 0..4 {
        let mut table = besieged(72, true);
        let honest: Vec<u32> = (5_000..5_016).collect();
        for key in &honest {
            table.join(&one_of_many(*key, "10.9.0.1"), &".".repeat(64));
            table.hear(*key, Message::Interested);
        }
        let mut served = served_blocks(&mut table, &honest, 15);
        let mut next = 10_000;
        let mut crowd: Vec<u32> = (1..=72).collect();
        for _ in 0..120 {
            for (key, blocks) in served_blocks(&mut table, &honest, 1) {
                *served.entry(key).or_default() += blocks;
            }
            for key in &mut crowd {
                match trick {
                    1 => {
                        table.hear(*key, Message::NotInterested);
                        table.hear(*key, Message::Interested);
                    }
                    2 if !unchoked(&table).contains(key) => {
                        table.hear(*key, Message::Request(block(0, 0)));
                    }
                    3 if unchoked(&table).contains(key) => {
                        table.handle(Event::Disconnected { peer: PeerKey(*key) });
                        *key = next;
                        next += 1;
                        table.join(&one_of_many(*key, "10.7.0.1"), &".".repeat(64));
                        table.hear(*key, Message::Interested);
                    }
                    _ => {}
                }
            }
            assert!(unchoked(&table).len() <= 8, "trick {trick}");
        }
        // 135 s, 8 slots, 20 blocks a second in each: half of it goes to the honest peers, and each has its
        // share.
        let all: u32 = served.values().sum();
        assert!(all > 135 * 8 * 20 / 2, "trick {trick}: {all} blocks");
        let least = honest.iter().map(|key| served.get(key).copied().unwrap_or(0)).min().unwrap();
        assert!(least * 16 > all / 4, "trick {trick}: {served:?}");
    }
}

#[test]
fn a_peer_on_a_long_line_is_served_though_its_requests_come_late() {
    let mut table = besieged(400, false);
    // Others come after it, so that its slot is wanted when it does not request anything.
    for key in (5_000..).take(600) {
        table.join(
            &one_of_many(key, &format!("10.9.{}.{}", key / 200, key % 200 + 1)),
            &".".repeat(64),
        );
        table.hear(key, Message::Interested);
    }
    let is_unchoked = |table: &TestSwarm| unchoked(table).contains(&5_000);
    let queued = |table: &TestSwarm| {
        table.swarm.peers().find(|peer| peer.key.0 == 5_000).map(|peer| peer.uploads_queued)
    };
    for is_in_time in [false, true] {
        for _ in 0..40 * 10 {
            if !is_unchoked(&table) {
                table.wait(Duration::from_millis(100));
            }
        }
        assert!(is_unchoked(&table), "it has a turn");
        // Its request arrives 600 ms after it was unchoked.
        table.wait(Duration::from_millis(600));
        assert_eq!(is_unchoked(&table), is_in_time, "the first time it is too late");
        table.hear(5_000, Message::Request(block(0, 0)));
        assert_eq!(queued(&table), Some(usize::from(is_in_time)));
    }
}

#[test]
fn who_is_not_interested_and_back_has_no_slot_beyond_the_bound() {
    let mut table = TestSwarm::with("xx", 1, |config| config.upload_slots = 2);
    for key in 1..=6 {
        table.join(&guest(key), "..");
        table.hear(key, Message::Interested);
    }
    for round in 0..100 {
        let key = round % 6 + 1;
        table.hear(key, Message::NotInterested);
        table.hear(key, Message::Interested);
        assert_eq!(unchoked(&table).len(), 2);
    }
    table.hear(1, Message::NotInterested);
    table.hear(1, Message::Request(block(0, 0)));
    assert_eq!(uploads(&mut table), [], "who is not interested has no slot");
}

#[test]
fn a_slot_is_kept_by_who_asks_though_others_wait() {
    let mut table = TestSwarm::with(&"x".repeat(64), 4, |config| config.upload_slots = 1);
    for key in 1..=2 {
        table.join(&guest(key), &".".repeat(64));
        table.hear(key, Message::Interested);
    }
    let served = served_blocks(&mut table, &[1, 2], 9);
    assert_eq!(served.keys().copied().collect::<Vec<_>>(), [1]);
    // When it has received its blocks and requests no more, the other is served within seconds.
    let bytes = 2 * u64::from(BLOCK_LEN);
    table.handle(Event::Uploaded { peer: PeerKey(1), blocks: 2, bytes });
    let served = served_blocks(&mut table, &[2], 8);
    assert!(served.contains_key(&2));
}

#[test]
fn who_connects_again_goes_on_with_its_turn() {
    let mut table = TestSwarm::with("xx", 1, |config| config.upload_slots = 1);
    for key in 1..=3 {
        table.join(&guest(key), "..");
        table.hear(key, Message::Interested);
    }
    assert_eq!(unchoked(&table), [1]);
    // It had a turn, whatever its id is now. The others had none.
    for key in 11..14 {
        let again = guest(key).at(&format!("10.0.0.1:{key}"));
        table.handle(Event::Disconnected { peer: PeerKey(if key == 11 { 1 } else { key - 1 }) });
        table.join(&again, "..");
        table.hear(key, Message::Interested);
        assert_eq!(unchoked(&table), [2]);
    }
    table.handle(Event::Disconnected { peer: PeerKey(2) });
    assert_eq!(unchoked(&table), [3]);
    table.handle(Event::Disconnected { peer: PeerKey(3) });
    assert_eq!(unchoked(&table), [13]);
}

#[test]
fn closed_swarm_serves_everybody_at_once() {
    let mut table = TestSwarm::with("x.", 1, |config| {
        config.choke = ChokePolicy::Closed;
        config.upload_slots = 1;
    });
    for key in 1..=20 {
        table.join(&guest(key), "..");
        table.hear(key, Message::Interested);
    }
    assert_eq!(unchoked(&table).len(), 20);
}

#[test]
fn choke_rejects_what_a_fast_peer_waits_for_and_drops_it_for_a_plain_one() {
    for guest in [guest(1), guest(1).plain()] {
        let mut table = TestSwarm::with("xx", 1, |config| config.upload_slots = 1);
        table.join(&guest, "..");
        table.hear(1, Message::Interested);
        table.hear(1, Message::Request(block(0, 0)));
        table.join(&super::guest(2), "..");
        table.hear(2, Message::Interested);
        table.take();
        // A round in which it takes nothing.
        table.wait(Duration::from_secs(10));
        assert_eq!(unchoked(&table), [2]);
        let peer = PeerKey(1);
        assert!(table.actions.contains(&Action::CancelUpload { peer, block: block(0, 0) }));
        let mut expected = vec![Message::Choke];
        if guest.fast {
            expected.push(Message::Reject(block(0, 0)));
        }
        assert_eq!(table.said(1), expected);
    }
}

#[test]
fn allowed_fast_set_is_told_to_newcomers_and_served_while_choked() {
    let pieces = 40;
    let held = "x".repeat(pieces);
    let mut table = TestSwarm::with(&held, 2, |config| {
        config.info_hash = Some(InfoHash([1; 20]));
        config.upload_slots = 0;
    });
    let guest = |key: u32| guest(key).at(&format!("80.4.{key}.1:9"));
    // A torrent without peers forgets those that have left.
    table.join(&guest(4), &".".repeat(pieces));
    table.connect(&guest(1));
    table.said(1);
    table.hear(1, Message::HaveNone);
    let allowed: Vec<PieceIndex> = table
        .said(1)
        .into_iter()
        .map(|message| match message {
            Message::AllowedFast(piece) => piece,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(allowed.len(), 10);
    let refused = (0..pieces as u32).find(|piece| !allowed.contains(&PieceIndex(*piece))).unwrap();
    table.hear(1, Message::Request(block(refused, 0)));
    assert_eq!(table.said(1), [Message::Reject(block(refused, 0))]);
    // Each piece twice, not for ever.
    for _ in 0..3 {
        for piece in &allowed {
            table.hear(1, Message::Request(block(piece.0, 0)));
            table.hear(1, Message::Request(block(piece.0, 1)));
        }
    }
    assert_eq!(uploads(&mut table).len(), 40);
    // Nor again for a peer that connects again.
    table.handle(Event::Disconnected { peer: PeerKey(1) });
    table.connect(&guest(3).at("80.4.1.1:10"));
    table.hear(3, Message::HaveNone);
    table.hear(3, Message::Request(block(allowed[0].0, 0)));
    assert_eq!(uploads(&mut table), []);
    // A peer that has more already gets nothing.
    table.connect(&guest(2));
    table.said(2);
    let many = format!("{}{}", "x".repeat(10), ".".repeat(30));
    table.hear(2, Message::Bitfield(Bytes::copy_from_slice(drawn(&many).as_wire())));
    assert_eq!(table.said(2), []);
}

#[test]
fn machines_of_one_network_are_not_all_allowed_the_same_pieces() {
    let allowed = |addrs: &[&str]| -> Vec<usize> {
        let mut table = TestSwarm::with(&"x".repeat(40), 2, |config| {
            config.info_hash = Some(InfoHash([1; 20]));
            config.upload_slots = 0;
        });
        let join = |(at, addr): (usize, &&str)| {
            let key = at as u32 + 1;
            table.connect(&guest(key).at(addr));
            table.hear(key, Message::HaveNone);
            let said = table.said(key);
            said.iter().filter(|message| matches!(message, Message::AllowedFast(_))).count()
        };
        addrs.iter().enumerate().map(join).collect()
    };
    assert_eq!(allowed(&["80.4.4.1:9", "80.4.4.2:9", "80.4.5.1:9"]), [10, 0, 10]);
    assert_eq!(allowed(&["127.0.0.1:9", "127.0.0.1:10", "[::ffff:127.0.0.1]:9"]), [10, 0, 0]);
}

#[test]
fn every_piece_is_told_to_every_peer_whatever_it_holds() {
    let mut table = TestSwarm::new("..", 1);
    table.join(&guest(1), ".x");
    table.join(&guest(2), "..");
    table.serve(&guest(3), "xx");
    table.run(|_, _| true);
    let haves = |said: Vec<Message>| -> Vec<u32> {
        said.iter()
            .filter_map(|message| match message {
                Message::Have(piece) => Some(piece.0),
                _ => None,
            })
            .collect()
    };
    for key in 1..=3 {
        let mut told = haves(table.said(key));
        told.sort_unstable();
        assert_eq!(told, [0, 1], "peer {key}");
    }
}

#[test]
fn closed_seed_suggests_different_pieces_to_different_peers() {
    let mut table =
        TestSwarm::with(&"x".repeat(200), 64, |config| config.choke = ChokePolicy::Closed);
    let none = ".".repeat(200);
    let mut suggested = std::collections::BTreeSet::new();
    for key in 1..=4 {
        table.join(&guest(key), &none);
        table.hear(key, Message::Interested);
        let said = table.said(key);
        assert_eq!(said.last(), Some(&Message::Unchoke), "suggestions come first");
        for message in said {
            if let Message::Suggest(piece) = message {
                assert!(suggested.insert(piece), "{piece} was suggested twice");
            }
        }
    }
    assert_eq!(suggested.len(), 8);
    // As pieces are taken, others are suggested. Lost suggestions come back.
    for piece in 0..3 {
        table.hear(1, Message::Have(PieceIndex(piece)));
    }
    assert!(table.said(1).iter().any(|message| matches!(message, Message::Suggest(_))));
}

#[test]
fn next_piece_is_suggested_when_one_is_begun_and_lost_ones_go_to_others() {
    let mut table =
        TestSwarm::with(&"x".repeat(70), 8, |config| config.choke = ChokePolicy::Closed);
    let suggested = |table: &mut TestSwarm, key| -> Vec<u32> {
        let said = table.said(key);
        let piece = |message: &Message| match message {
            Message::Suggest(piece) => Some(piece.0),
            _ => None,
        };
        said.iter().filter_map(piece).collect()
    };
    let none = ".".repeat(70);
    table.join(&guest(1), &none);
    table.hear(1, Message::Interested);
    assert_eq!(suggested(&mut table, 1), [0, 1]);
    table.hear(1, Message::Request(block(0, 0)));
    assert_eq!(suggested(&mut table, 1), [2]);
    table.hear(1, Message::Request(block(0, 1)));
    assert_eq!(suggested(&mut table, 1), []);
    for piece in 1..=66 {
        table.hear(1, Message::Request(block(piece, 0)));
        assert_eq!(suggested(&mut table, 1), [piece + 2]);
    }
    table.join(&guest(2), &none);
    table.hear(2, Message::Interested);
    assert_eq!(suggested(&mut table, 2), [69], "nothing that the other has begun");
    table.handle(Event::Disconnected { peer: PeerKey(1) });
    table.hear(2, Message::Request(block(69, 0)));
    assert_eq!(suggested(&mut table, 2), [0, 1]);
}
