use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ID: NodeId = NodeId(*b"abcdefghij0123456789");
const HASH: InfoHash = InfoHash(*b"mnopqrstuvwxyz123456");

fn query(question: Question<'static>) -> Packet<'static> {
    packet(Body::Query { id: ID, question })
}

fn packet(body: Body<'static>) -> Packet<'static> {
    Packet {
        transaction: b"aa",
        version: None,
        network: None,
        is_read_only: false,
        seen_at: None,
        body,
    }
}

fn both_ways(bytes: &[u8], packet: &Packet<'_>) {
    assert_eq!(Packet::decode(bytes).as_ref(), Ok(packet));
    assert_eq!(packet.encode(), bytes, "{}", String::from_utf8_lossy(&packet.encode()));
}

/// The examples of BEP 5.
#[test]
fn packets_of_the_specification_are_read_and_written() {
    both_ways(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", &query(Question::Ping));
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
        &query(Question::FindNode { target: NodeId(HASH.0), want: Want::default() }),
    );
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe",
        &query(Question::GetPeers {
            info_hash: HASH,
            want: Want::default(),
            without_seeds: false,
            scrape: false,
        }),
    );
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe\
          1:q13:announce_peer1:t2:aa1:y1:qe",
        &query(Question::AnnouncePeer {
            info_hash: HASH,
            port: 6881,
            implied_port: false,
            token: b"aoeusnth",
            is_seed: false,
        }),
    );
    let mut response = Response::new(ID);
    response.token = Some(b"aoeusnth");
    response.values = vec![addr_of("axje.u"), addr_of("idhtnm")];
    both_ways(
        b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
        &packet(Body::Response(response)),
    );
    assert_eq!(
        Packet::decode(b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee"),
        Ok(packet(Body::Error { code: 201 }))
    );
}

fn addr_of(text: &str) -> SocketAddr {
    crate::address::addr_of(text.as_bytes()).unwrap()
}

/// BEP 32, 42 and 43.
#[test]
fn extensions_are_read_and_written() {
    let mut both = query(Question::FindNode { target: ID, want: Want { v4: true, v6: true } });
    both.is_read_only = true;
    both.version = Some(b"PW\0\x01");
    both.network = Some(b"mine");
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567896:target20:abcdefghij01234567894:wantl2:n42:n6ee3:net4:mine\
          1:q9:find_node2:roi1e1:t2:aa1:v4:PW\0\x011:y1:qe",
        &both,
    );
    let mut response = Response::new(ID);
    response.nodes6 = Some(vec![Contact { id: ID, addr: "[2001:db8::1]:6881".parse().unwrap() }]);
    let mut seen = packet(Body::Response(response));
    seen.seen_at = Some("192.0.2.1:80".parse().unwrap());
    assert_eq!(Packet::decode(&seen.encode()), Ok(seen));
}

#[test]
fn an_implied_port_replaces_the_port() {
    let implied = b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti0e\
        5:token1:xe1:q13:announce_peer1:t2:aa1:y1:qe";
    let Body::Query { question: Question::AnnouncePeer { port, implied_port, .. }, .. } =
        Packet::decode(implied).unwrap().body
    else {
        panic!("not an announce")
    };
    assert!(implied_port && port == 0);
}

#[test]
fn questions_with_faults_are_told_from_packets_without_meaning() {
    let bad = |bytes: &[u8]| match Packet::decode(bytes) {
        Err(PacketError::BadQuery { code, transaction }) => {
            assert_eq!(transaction, b"aa");
            code
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(bad(b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe"), 204);
    for fault in [
        &b"d1:ad2:id19:abcdefghij012345678e1:q4:ping1:t2:aa1:y1:qe"[..],
        b"d1:ade1:q4:ping1:t2:aa1:y1:qe",
        b"d1:ai7e1:q4:ping1:t2:aa1:y1:qe",
        b"d1:q4:ping1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:qi4e1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q9:get_peers1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti0e5:token1:xe\
          1:q13:announce_peer1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti65536e5:token1:xe\
          1:q13:announce_peer1:t2:aa1:y1:qe",
    ] {
        assert_eq!(bad(fault), 203, "{}", String::from_utf8_lossy(fault));
    }
    let long =
        [b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t17:".as_slice(), &[7; 17], b"1:y1:qe"];
    for nothing in [
        &b""[..],
        b"de",
        b"le",
        b"i1e",
        b"d1:t2:aa1:y1:xe",
        b"d1:t2:aa1:y1:re",
        b"d1:t0:1:y1:qe",
        b"d1:y1:qe",
        b"d1:rd2:id19:abcdefghij012345678e1:t2:aa1:y1:re",
        b"d1:rd2:id20:abcdefghij01234567895:nodes25:1234567890123456789012345e1:t2:aa1:y1:re",
        b"d1:rd2:id20:abcdefghij01234567896:values6:axje.ue1:t2:aa1:y1:re",
        b"d1:rd2:id20:abcdefghij01234567896:valuesl5:axje.ee1:t2:aa1:y1:re",
        b"d1:rd2:id20:abcdefghij01234567895:token0:e1:t2:aa1:y1:re",
        b"d1:ee1:t2:aa1:y1:ee",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:q",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qex",
        b"d1:allllllllllleeeeeeeeeee1:q4:ping1:t2:aa1:y1:qe",
        &long.concat(),
        &[b'l'; 1501],
    ] {
        let text = String::from_utf8_lossy(nothing);
        assert_eq!(Packet::decode(nothing), Err(PacketError::Unusable), "{text}");
    }
}

fn addrs() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from),
    ]
}

fn contacts(v6: bool) -> impl Strategy<Value = Option<Vec<Contact>>> {
    let one =
        (any::<[u8; 20]>(), any::<[u8; 16]>(), any::<u16>()).prop_map(move |(id, ip, port)| {
            let v4 = [ip[0], ip[1], ip[2], ip[3]];
            let addr = if v6 { SocketAddr::from((ip, port)) } else { SocketAddr::from((v4, port)) };
            Contact { id: NodeId(id), addr }
        });
    prop::option::of(vec(one, 0..9))
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..1600)) {
        let _ = Packet::decode(&bytes);
    }

    /// Packets with a fault anywhere.
    #[test]
    fn damaged_packets_are_read_without_a_panic(at in 0_usize..120, byte: u8, cut in 0_usize..120) {
        let question = Question::GetPeers {
            info_hash: HASH,
            want: Want { v4: true, v6: true },
            without_seeds: true,
            scrape: true,
        };
        let mut bytes = query(question).encode();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let _ = Packet::decode(&bytes);
        bytes.truncate(cut);
        let _ = Packet::decode(&bytes);
    }

    #[test]
    fn answers_read_back(
        id: [u8; 20],
        nodes in contacts(false),
        nodes6 in contacts(true),
        token in prop::option::of(vec(any::<u8>(), 1..64)),
        values in vec(addrs(), 0..20),
        transaction in vec(any::<u8>(), 1..16),
        seen_at in prop::option::of(addrs()),
    ) {
        let token = token.as_deref();
        let body = Body::Response(Response { id: NodeId(id), nodes, nodes6, token, values });
        let packet = Packet { transaction: &transaction, seen_at, ..packet(Body::Error { code: 0 }) };
        let packet = Packet { body, ..packet };
        let bytes = packet.encode();
        prop_assert_eq!(Packet::decode(&bytes), Ok(packet));
    }
}
