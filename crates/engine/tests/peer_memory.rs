//! What strangers can make a session remember: every byte it allocates is counted while peers send
//! what nobody asked for, or do not read what they are sent.
//!
//! `PIECEWORK_ATTACKERS=500` tries more peers than the usual ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use piecework_core::metainfo::Metainfo;
use piecework_core::{BLOCK_LEN, BlockRef, PeerId, PieceIndex};
use piecework_engine::{Session, TorrentHandle, raise_file_limit};
use piecework_proto::wire::{self, Message};
use piecework_testkit::allocations::{CountingAllocator, begin_peak, peak};
use piecework_testkit::{
    PeerMessage, RawPeer, add, content, seeded, session_with, stranger, within,
};
use tokio::sync::Barrier;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// One way to fill somebody's memory.
struct Attack {
    name: &'static str,
    /// Against a leecher that asks the attackers for blocks; against a seed otherwise.
    on_leecher: bool,
    opening: Vec<Message>,
    /// Sent over and over, `times` times in all, over new connections if need be.
    flood: Vec<u8>,
    times: usize,
}

const PIECE: u32 = 64 * 1024;
const LEN: usize = 8 << 20;
/// Of the session under attack.
const BUDGET: usize = 4 << 20;
/// What any peer may cost.
const EACH: usize = 256 << 10;
/// The torrent's inbox and the pool's first slabs, whatever the number of peers.
const BASE: usize = 4 << 20;

fn on_the_wire(messages: &[Message]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    messages.iter().for_each(|message| wire::encode(message, &mut bytes));
    bytes.to_vec()
}

fn block(piece: u32, begin: u32, len: u32) -> BlockRef {
    BlockRef { piece: PieceIndex(piece), begin, len }
}

fn piece(len: u32) -> Vec<u8> {
    [&wire::piece_header(block(0, 0, len))[..], &vec![7; len as usize]].concat()
}

/// The head of a message that claims `len` bytes behind its prefix, with `sent` of them.
fn unfinished(len: u32, id: &[u8], sent: usize) -> Vec<u8> {
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend_from_slice(id);
    bytes.resize(4 + sent, b'x');
    bytes
}

fn attacks() -> Vec<Attack> {
    let extended =
        |payload: usize| Message::Extended { id: 0, payload: vec![b'x'; payload].into() };
    let requests: Vec<Message> = (0..500)
        .map(|i| Message::Request(block(i / 4 % 128, i % 4 * BLOCK_LEN, BLOCK_LEN)))
        .collect();
    let haves: Vec<Message> = (0..128).map(|i| Message::Have(PieceIndex(i))).collect();
    let suggestions: Vec<Message> = (0..128)
        .flat_map(|i| [Message::Suggest(PieceIndex(i)), Message::AllowedFast(PieceIndex(i))])
        .collect();
    let rejects: Vec<Message> = (0..128).map(|i| Message::Reject(block(i, 0, BLOCK_LEN))).collect();
    let cancels: Vec<Message> = (0..128).map(|i| Message::Cancel(block(i, 0, BLOCK_LEN))).collect();
    let gives = || vec![Message::HaveAll, Message::Unchoke];
    let wants = || vec![Message::HaveNone, Message::Interested];
    let seed =
        |name, opening, flood, times| Attack { name, on_leecher: false, opening, flood, times };
    let leecher =
        |name, flood, times| Attack { name, on_leecher: true, opening: gives(), flood, times };
    vec![
        seed("blocks of no bytes to a seed", vec![], piece(0).repeat(100), 40),
        seed("blocks of a byte to a seed", vec![], piece(1).repeat(100), 40),
        seed("whole blocks to a seed", vec![], piece(BLOCK_LEN), 40),
        seed("keep-alives", vec![], vec![0; 16 << 10], 4),
        seed("HAVEs", wants(), on_the_wire(&haves), 20),
        seed("suggestions", wants(), on_the_wire(&suggestions), 20),
        seed("rejects", wants(), on_the_wire(&rejects), 20),
        seed("cancels", wants(), on_the_wire(&cancels), 20),
        seed("requests while choked, answers unread", vec![], on_the_wire(&requests), 40),
        seed("requests, blocks unread", wants(), on_the_wire(&requests), 1),
        seed(
            "an unfinished extended message of 1 MiB",
            vec![],
            unfinished(1 << 20, &[20, 9], 900_000),
            1,
        ),
        seed("an unfinished extended handshake", vec![], unfinished(65_000, &[20, 0], 64_000), 1),
        seed("whole extended handshakes", vec![], on_the_wire(&[extended(64_000)]), 20),
        seed("an unfinished unknown message", vec![], unfinished(16_000, &[99], 15_000), 1),
        seed("unknown messages", vec![], unfinished(5_000, &[99], 5_000), 100),
        leecher("blocks of no bytes to a leecher", piece(0).repeat(100), 40),
        leecher("whole wrong blocks to a leecher", piece(BLOCK_LEN), 40),
        leecher("an unfinished block to a leecher", piece(BLOCK_LEN)[..10_000].to_vec(), 1),
        leecher("keep-alives to a leecher", vec![0; 64 << 10], 4),
        leecher(
            "chokes and unchokes to a leecher",
            on_the_wire(&[Message::Choke, Message::Unchoke]).repeat(1_000),
            4,
        ),
    ]
}

/// Sends the flood, over a new connection whenever one breaks, and then holds the last one until it
/// is told to let go. Against a leecher it waits for a request first, if one comes.
async fn attack(
    attack: Arc<Attack>,
    target: SocketAddr,
    metainfo: Arc<Metainfo>,
    id: PeerId,
    all: Arc<Barrier>,
) {
    let mut left = attack.times;
    let mut connections = 0;
    let mut held = None;
    while left > 0 && connections < 20 {
        connections += 1;
        let flood = async {
            let mut peer = RawPeer::connect(target, &metainfo, id).await?;
            for message in &attack.opening {
                peer.send(message).await?;
            }
            if attack.on_leecher {
                let asked = async {
                    while let Some(heard) = peer.hear().await {
                        if matches!(heard, PeerMessage::Message(Message::Request(_))) {
                            break;
                        }
                    }
                };
                // There is not room in its memory to ask everybody.
                let _ = tokio::time::timeout(Duration::from_millis(300), asked).await;
            }
            while left > 0 {
                left -= 1;
                peer.send_raw(&attack.flood).await?;
            }
            std::io::Result::Ok(peer)
        };
        // Who is not read from any more has done what can be done.
        match tokio::time::timeout(Duration::from_secs(2), flood).await {
            Ok(Ok(peer)) => held = Some(peer),
            Ok(Err(_)) => {}
            Err(_) => break,
        }
    }
    all.wait().await;
    all.wait().await;
    drop(held);
}

/// The most that was live at a time while `attackers` did their worst, beyond what there was before.
async fn measure(
    what: Attack,
    attackers: usize,
    (target, handle): &(Session, TorrentHandle),
    metainfo: &Arc<Metainfo>,
) -> usize {
    let addr = target.listen_addrs()[0];
    let all = Arc::new(Barrier::new(attackers + 1));
    let what = Arc::new(what);
    let before = begin_peak();
    for number in 0..attackers {
        let mut id = stranger(b'M');
        id.0[8..12].copy_from_slice(&(number as u32).to_be_bytes());
        let (what, metainfo, all) = (Arc::clone(&what), Arc::clone(metainfo), Arc::clone(&all));
        tokio::spawn(attack(what, addr, metainfo, id, all));
    }
    tokio::time::timeout(4 * piecework_testkit::PATIENCE, all.wait())
        .await
        .expect("an attacker hangs");
    // What was sent is on its way to the session still. The longer it is watched, the more is seen;
    // the bound holds in any case.
    let mut quiet = 0;
    while quiet < 3 {
        let seen = peak();
        tokio::time::sleep(Duration::from_millis(30)).await;
        quiet = if peak() == seen { quiet + 1 } else { 0 };
    }
    let peak = peak();
    all.wait().await;
    // All are gone before the next attack begins.
    piecework_testkit::until(handle, |handle| handle.status().peers == 0).await;
    peak.saturating_sub(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_peer_costs_more_than_256_kib_whatever_it_sends_and_whether_it_reads() {
    // Both ends of each connection are ours.
    raise_file_limit().unwrap();
    let bytes = content(LEN, 12);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    drop(bytes);
    let target = tempfile::tempdir().unwrap();
    let more = std::env::var("PIECEWORK_ATTACKERS").ok().and_then(|n| n.parse().ok());
    let counts = [Some(1), Some(79), more.or(Some(300))];
    let attackers = counts.iter().flatten().copied().max().unwrap();
    let roomy = || {
        session_with(|config| {
            config.max_peers_per_torrent = 2 * attackers;
            config.max_connections = 2 * attackers;
            config.max_half_open = 2 * attackers;
            config.memory_budget = BUDGET as u64;
        })
    };
    let (seeder, leecher) = (roomy(), roomy());
    let handle = add(&seeder, &metainfo, source.path(), &[]);
    within(handle.completed()).await.unwrap();
    let seed = (seeder, handle);
    let handle = add(&leecher, &metainfo, target.path(), &[]);
    let leecher = (leecher, handle);

    let mut faults = Vec::new();
    for count in counts.into_iter().flatten() {
        for attack in attacks() {
            let name = attack.name;
            let bound = count * EACH + BUDGET + BASE;
            let start = std::time::Instant::now();
            let target = if attack.on_leecher { &leecher } else { &seed };
            let peak = measure(attack, count, target, &metainfo).await;
            println!(
                "{count:4} peers, {name}: {} KiB of {} KiB, {:.1?}",
                peak >> 10,
                bound >> 10,
                start.elapsed()
            );
            if peak > bound {
                faults.push(format!("{count} peers, {name}: {} KiB", peak >> 10));
            }
        }
    }
    assert!(faults.is_empty(), "more than the bound: {faults:#?}");
}
