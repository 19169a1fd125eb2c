//! What peers owe each other, over real sockets: who is told what, who is served, who is blamed,
//! and who may come back.

use std::collections::BTreeSet;
use std::sync::Arc;

use piecework_core::{BlockRef, PieceIndex};
use piecework_engine::TorrentEvent;
use piecework_proto::wire::{ExtendedHandshake, Message};
use piecework_swarm::{Cause, ChokePolicy};
use piecework_testkit::{
    EventRecorder, PeerMessage, RawPeer, add, content, seeded, session, session_with, stranger,
    twisted_seed, until, within,
};
use tokio::net::TcpListener;

const PIECE: u32 = 64 * 1024;

// Line 13 of issue 11: a slot is for peers that ask.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_interested_peers_do_not_keep_a_leecher_from_being_served() {
    let bytes = content(4_000_000, 3);
    let (source, metainfo) = seeded("file", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let seeder = session_with(|config| {
        config.choke = ChokePolicy::TitForTat;
        config.upload_slots = 2;
    });
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let addr = seeder.listen_addrs()[0];
    for number in 0..24 {
        let mut idle = RawPeer::connect(addr, &metainfo, stranger(number)).await.unwrap();
        idle.send(&Message::HaveNone).await.unwrap();
        idle.send(&Message::Interested).await.unwrap();
        tokio::spawn(async move { while idle.hear().await.is_some() {} });
    }
    let leecher = session(None);
    let handle = add(&leecher, &metainfo, target.path(), &[addr]);
    until(&handle, |handle| {
        let standing = handle.waited().standing;
        standing.is_some_and(|now| now.cause == Cause::Choked && now.offering == 1)
    })
    .await;
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file")).unwrap() == bytes);
}

// Line 15 of issue 11: bans follow what was proved.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attacker_at_a_seeds_address_that_names_its_port_and_shows_its_id_bans_only_itself() {
    let bytes = Arc::new(content(700_000, 4));
    let (_source, metainfo) = seeded("file", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let honest = twisted_seed(Arc::clone(&metainfo), bytes, |_, _| {}).await;
    let witness = Arc::new(EventRecorder::default());
    let leecher = session(Some(Arc::clone(&witness) as _));
    let handle = add(&leecher, &metainfo, target.path(), &[]);
    let claim = ExtendedHandshake { listen_port: Some(honest.port()), ..Default::default() };
    // The second shows the seed's id.
    for id in [b'1', b'T', b'2', b'3'] {
        let addr = leecher.listen_addrs()[0];
        let mut attacker = RawPeer::connect(addr, &metainfo, stranger(id)).await.unwrap();
        let payload = claim.encode().into();
        attacker.send(&Message::Extended { id: 0, payload }).await.unwrap();
        attacker.send(&Message::HaveAll).await.unwrap();
        attacker.send(&Message::Unchoke).await.unwrap();
        let shown = attacker.addr();
        within(async {
            while let Some(heard) = attacker.hear().await {
                if let PeerMessage::Message(Message::Request(block)) = heard {
                    // It is dropped at some time.
                    let _ = attacker.send_block(block, &vec![0; block.len as usize]).await;
                }
            }
        })
        .await;
        witness
            .saw(|event| match event {
                TorrentEvent::Banned { who, .. } => who.known_as() == shown,
                _ => false,
            })
            .await;
    }
    handle.add_peers(vec![honest]).await;
    within(handle.completed()).await.unwrap();
}

// Line 18 of issue 11: complete peers learn of each other.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_hold_everything_part() {
    let (source, metainfo) = seeded("file", &content(2_000_000, 1), PIECE);
    let targets = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let seeder = session(None);
    let seed = add(&seeder, &metainfo, source.path(), &[]);
    within(seed.completed()).await.unwrap();
    let leechers = [session(None), session(None)];
    let first = add(&leechers[0], &metainfo, targets[0].path(), seeder.listen_addrs());
    let others = [seeder.listen_addrs()[0], leechers[0].listen_addrs()[0]];
    let second = add(&leechers[1], &metainfo, targets[1].path(), &others);
    within(first.completed()).await.unwrap();
    within(second.completed()).await.unwrap();
    for handle in [&seed, &first, &second] {
        until(handle, |handle| handle.status().peers == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_another_kind_sees_every_piece_arrive_and_that_we_are_complete() {
    let bytes = Arc::new(content(700_000, 2));
    let (_source, metainfo) = seeded("file", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let pieces = metainfo.info().geometry().pieces();
    let leecher = session(None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let handle = add(&leecher, &metainfo, target.path(), &[addr]);
    // It holds all but one, and gives nothing.
    let mut peer = within(RawPeer::accept(&listener, &metainfo, stranger(b'1'))).await.unwrap();
    peer.send(&Message::HaveNone).await.unwrap();
    for piece in 1..pieces {
        peer.send(&Message::Have(PieceIndex(piece))).await.unwrap();
    }
    until(&handle, |handle| handle.waited().standing.is_some_and(|now| now.offering == 1)).await;
    let seed = twisted_seed(Arc::clone(&metainfo), bytes, |_, _| {}).await;
    handle.add_peers(vec![seed]).await;
    let mut told = BTreeSet::new();
    let mut upload_only = None;
    within(async {
        while upload_only != Some(true) {
            match peer.hear().await.expect("it lacks a piece, so it is not dropped") {
                PeerMessage::Message(Message::Have(piece)) => drop(told.insert(piece.0)),
                PeerMessage::Message(Message::Extended { id: 0, payload }) => {
                    upload_only = ExtendedHandshake::decode(&payload).unwrap().upload_only;
                }
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(told, (0..pieces).collect());
    peer.send(&Message::Have(PieceIndex(0))).await.unwrap();
    peer.dropped().await;
}

// Line 19 of issue 11: who may come back.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_connection_died_silently_is_let_in_at_once_and_the_other_stays_if_it_lives() {
    let bytes = content(700_000, 5);
    let (source, metainfo) = seeded("file", &bytes, PIECE);
    let seeder = session(None);
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let addr = seeder.listen_addrs()[0];
    // Of the first, nobody knows whether it is dead, or the second an attacker that shows its id.
    let mut peers = Vec::new();
    for _ in 0..2 {
        let mut peer = RawPeer::connect(addr, &metainfo, stranger(b'1')).await.unwrap();
        peer.send(&Message::HaveNone).await.unwrap();
        peers.push(peer);
    }
    for peer in &mut peers {
        peer.send(&Message::Interested).await.unwrap();
        let block = BlockRef { piece: PieceIndex(3), begin: 0, len: 16_384 };
        within(async {
            while !matches!(peer.hear().await, Some(PeerMessage::Message(Message::Unchoke))) {}
            peer.send(&Message::Request(block)).await.unwrap();
            loop {
                if let Some(PeerMessage::Block(sent, _)) = peer.hear().await {
                    return assert_eq!(sent, block);
                }
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_that_the_sessions_bound_prevents_is_made_up_for_as_soon_as_there_is_room() {
    let bytes = Arc::new(content(700_000, 6));
    let (_source, metainfo) = seeded("file", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let honest = twisted_seed(Arc::clone(&metainfo), bytes, |_, _| {}).await;
    let leecher = session_with(|config| config.max_connections = 1);
    let handle = add(&leecher, &metainfo, target.path(), &[]);
    let addr = leecher.listen_addrs()[0];
    let useless = RawPeer::connect(addr, &metainfo, stranger(b'1')).await.unwrap();
    until(&handle, |handle| handle.status().peers == 1).await;
    handle.add_peers(vec![honest]).await;
    // It is answered behind the addresses, so the dial has been tried when it comes.
    assert_eq!(handle.peers().await.len(), 1);
    drop(useless);
    within(handle.completed()).await.unwrap();
}
