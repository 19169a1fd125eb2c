//! Giving metadata to peers that have only a magnet link.

use bytes::Bytes;

use super::*;
use piecework_proto::wire::{ExtendedHandshake, METADATA_ID, MetadataMessage};

/// Returns a table whose torrent has metadata of this length, and a peer with the number 3 for the extension.
fn table_with(size: Option<u32>) -> TestSwarm {
    let mut table = TestSwarm::with("xxxx", 64, |config| config.metadata_size = size);
    table.connect(&guest(1).extended());
    let messages = [("ut_metadata".to_owned(), 3)].into();
    let handshake = ExtendedHandshake { messages, ..ExtendedHandshake::default() };
    table.hear(1, Message::Extended { id: 0, payload: handshake.encode().into() });
    table
}

fn ask(piece: u32) -> Message {
    Message::Extended { id: METADATA_ID, payload: MetadataMessage::Request { piece }.encode() }
}

fn rejection(piece: u32) -> Message {
    Message::Extended { id: 3, payload: MetadataMessage::Reject { piece }.encode() }
}

/// Takes the pieces that are given. Other actions stay.
fn given(table: &mut TestSwarm) -> Vec<(u8, u32)> {
    let mut given = Vec::new();
    table.actions.retain(|action| match *action {
        Action::GiveMetadata { peer: PeerKey(1), id, piece } => {
            given.push((id, piece));
            false
        }
        _ => true,
    });
    given
}

#[test]
fn metadata_is_offered_and_given() {
    let mut table = table_with(Some(40_000));
    let said = table.said(1);
    let offer = said.iter().find_map(|message| match message {
        Message::Extended { id: 0, payload } => Some(ExtendedHandshake::decode(payload).unwrap()),
        _ => None,
    });
    let offer = offer.unwrap();
    assert_eq!(offer.metadata_size, Some(40_000));
    assert_eq!(offer.messages.get("ut_metadata"), Some(&METADATA_ID));
    for piece in [2, 0, 1] {
        table.hear(1, ask(piece));
    }
    assert_eq!(given(&mut table), [(3, 2), (3, 0), (3, 1)]);
    assert_eq!(table.said(1), []);
}

#[test]
fn what_is_too_much_or_does_not_exist_is_rejected() {
    let mut table = table_with(Some(40_000));
    table.said(1);
    for piece in [3, u32::MAX] {
        table.hear(1, ask(piece));
        assert_eq!(table.said(1), [rejection(piece)]);
    }
    for _ in 0..100 {
        table.hear(1, ask(0));
    }
    assert_eq!(given(&mut table).len(), 4 * 3 - 2);
    assert_eq!(table.said(1).len(), 100 - (4 * 3 - 2));
    assert!(table.faults().is_empty());
}

#[test]
fn a_torrent_that_keeps_its_metadata_says_nothing_of_it() {
    let mut table = table_with(None);
    let said = table.said(1);
    assert!(said.iter().all(|message| match message {
        Message::Extended { id: 0, payload } => {
            let offer = ExtendedHandshake::decode(payload).unwrap();
            offer.metadata_size.is_none() && offer.messages.is_empty()
        }
        _ => true,
    }));
    table.hear(1, ask(0));
    assert!(given(&mut table).is_empty() && table.said(1).is_empty() && table.faults().is_empty());
}

#[test]
fn a_wrong_message_about_metadata_costs_the_connection() {
    let bytes = Bytes::from_static(b"x");
    let data = MetadataMessage::Data { piece: 0, total_size: Some(40_000), bytes }.encode();
    for payload in [data, Bytes::from_static(b"le"), Bytes::from_static(b"d8:msg_typei0ee")] {
        let mut table = table_with(Some(40_000));
        table.hear(1, Message::Extended { id: METADATA_ID, payload });
        assert_eq!(table.faults().get(&1), Some(&PeerFault::BadMetadata));
    }
}
