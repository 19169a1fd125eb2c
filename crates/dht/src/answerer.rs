//! Answers to other nodes: within their rates, and short as long as their address is not proved.

use std::net::SocketAddr;

use piecework_core::{InfoHash, Moment, Rng};

use super::address::{Contact, Family, is_acceptable, sender_of};
use super::krpc::{Body, MAX_SENT, PROTOCOL_ERROR, Packet, Question, Response, Want};
use super::node_id::NodeId;
use super::peer_store::{PeerStore, StoreLimits};
use super::rate::{Allowance, SenderAllowances};
use super::table::{K, Table};
use super::tokens::{ProvedAddresses, Tokens};

/// What a node keeps for others.
pub(crate) struct Answerer {
    pub(crate) store: PeerStore,
    pub(crate) tokens: Tokens,
    pub(crate) proved: ProvedAddresses,
    senders: SenderAllowances,
    total: Allowance,
    rng: Rng,
}

/// A question and who asks it.
pub(crate) struct Asked<'a> {
    pub(crate) from: SocketAddr,
    /// The length of the packet.
    pub(crate) len: usize,
    pub(crate) transaction: &'a [u8],
    pub(crate) question: Question<'a>,
}

/// The own id and nodes of a family.
pub(crate) struct Side {
    pub(crate) id: NodeId,
    pub(crate) table: Table,
}

impl Answerer {
    pub(crate) fn new(secret: [u8; 32], mut rng: Rng, per_second: u32) -> Self {
        Self {
            store: PeerStore::new(rng.next_u64(), StoreLimits::default()),
            tokens: Tokens::new(secret),
            proved: ProvedAddresses::new(rng.next_u64()),
            senders: SenderAllowances::new(OF_ONE_SENDER, BURST_OF_ONE_SENDER, rng.next_u64()),
            total: Allowance::new(per_second, per_second * 2),
            rng,
        }
    }

    /// Returns whether any answer is possible now.
    pub(crate) fn has_allowance(&self, now: Moment) -> bool {
        self.total.has(now)
    }

    /// Returns whether a question from there is answered. Counts it.
    pub(crate) fn admits(&mut self, now: Moment, from: SocketAddr) -> bool {
        self.senders.take(now, sender_of(from)) && self.total.take(now)
    }

    /// Returns the answer, if there is one that fits.
    pub(crate) fn answer(
        &mut self,
        now: Moment,
        asked: &Asked<'_>,
        sides: &[Option<Side>; 2],
        network: Option<&[u8]>,
    ) -> Option<Vec<u8>> {
        let family = Family::of(asked.from);
        let own = sides[family.index()].as_ref()?;
        let mut response = Response::new(own.id);
        let token;
        match &asked.question {
            Question::Ping => {}
            Question::FindNode { target, want } => {
                add_nodes(&mut response, *target, *want, asked.from, sides);
            }
            Question::GetPeers { info_hash, want, without_seeds, .. } => {
                add_nodes(&mut response, (*info_hash).into(), *want, asked.from, sides);
                response.values = self.values(now, *info_hash, asked.from, *without_seeds);
                // Without a token, nobody can announce (BEP 33).
                if self.store.has_room(*info_hash) || !response.values.is_empty() {
                    token = self.tokens.token(now, asked.from.ip(), *info_hash);
                    response.token = Some(&token);
                }
            }
            Question::AnnouncePeer { info_hash, port, implied_port, token, is_seed } => {
                let ip = asked.from.ip();
                if !self.tokens.is_valid(now, ip, *info_hash, token) {
                    return self.fitting(now, asked, network, Body::Error { code: PROTOCOL_ERROR });
                }
                self.proved.add(now, asked.from);
                let port = if *implied_port { asked.from.port() } else { *port };
                let peer = SocketAddr::new(ip, port);
                self.store.add(now, *info_hash, peer, *is_seed, &mut self.rng);
            }
        }
        self.fitting(now, asked, network, Body::Response(response))
    }

    fn values(
        &mut self,
        now: Moment,
        hash: InfoHash,
        from: SocketAddr,
        without_seeds: bool,
    ) -> Vec<SocketAddr> {
        let family = Family::of(from);
        let mut values =
            self.store.peers(now, hash, family, without_seeds, MOST_VALUES, &mut self.rng);
        values.retain(|peer| is_acceptable(from.ip(), *peer));
        values
    }

    /// Returns the packet with as many nodes and peers as its receiver may get.
    fn fitting(
        &self,
        now: Moment,
        asked: &Asked<'_>,
        network: Option<&[u8]>,
        body: Body<'_>,
    ) -> Option<Vec<u8>> {
        let is_proved = self.proved.contains(now, asked.from);
        let most = if is_proved { MAX_SENT } else { MAX_SENT.min(unproved(asked.len)) };
        let mut packet = Packet {
            transaction: asked.transaction,
            version: Some(VERSION),
            network,
            is_read_only: false,
            seen_at: Some(asked.from),
            body,
        };
        loop {
            let bytes = packet.encode();
            let over = bytes.len().saturating_sub(most);
            if over == 0 {
                return Some(bytes);
            }
            let Body::Response(response) = &mut packet.body else { return None };
            if !shorten(response, over) {
                return None;
            }
        }
    }
}

/// Adds the closest nodes of the families that are wanted.
fn add_nodes(
    response: &mut Response<'_>,
    target: NodeId,
    want: Want,
    from: SocketAddr,
    sides: &[Option<Side>; 2],
) {
    let default = want == Want::default();
    let closest = |family: Family, wanted: bool| {
        let is_default = default && Family::of(from) == family;
        if !wanted && !is_default {
            return None;
        }
        let side = sides[family.index()].as_ref()?;
        let mut contacts: Vec<Contact> = side.table.closest(target, K);
        contacts.retain(|it| it.addr != from && is_acceptable(from.ip(), it.addr));
        Some(contacts)
    };
    response.nodes = closest(Family::V4, want.v4);
    response.nodes6 = closest(Family::V6, want.v6);
}

/// Removes about `over` bytes: peers or nodes, whatever takes more space. Returns whether there was something.
fn shorten(response: &mut Response<'_>, over: usize) -> bool {
    let value_len = |addr: &SocketAddr| Family::of(*addr).addr_len() + 3;
    let values: usize = response.values.iter().map(value_len).sum();
    let (v4, v6) = (response.nodes.as_mut(), response.nodes6.as_mut());
    let len = |nodes: Option<&Vec<Contact>>, each: usize| nodes.map_or(0, |it| it.len() * each);
    let (len4, len6) = (len(v4.as_deref(), 26), len(v6.as_deref(), 38));
    if values > len4 + len6 {
        let each = response.values.first().map_or(1, value_len);
        let left = response.values.len().saturating_sub((over / each).clamp(1, 4));
        response.values.truncate(left);
        return true;
    }
    let longer = if len6 >= len4 { v6.or(v4) } else { v4 };
    longer.is_some_and(|nodes| nodes.pop().is_some())
}

/// Returns the length of the longest answer to a question of `len` bytes from an address that may be forged. Headers
/// count on both sides.
fn unproved(len: usize) -> usize {
    (len + HEADERS) * UNPROVED_FACTOR - HEADERS
}

/// Our client code and the version of the node (BEP 20 codes).
pub(crate) const VERSION: &[u8] = b"PW\0\x01";

/// An answer to an address that may be forged has at most this factor of the question's length, as in QUIC (RFC 9000,
/// 8.1). So a question for nodes gets eight, and nobody gains much by asking in the name of a victim.
const UNPROVED_FACTOR: usize = 3;

/// Of UDP and IPv4; those of IPv6 are longer.
const HEADERS: usize = 28;

/// Peers in an answer. 1,024 bytes have room for about as many.
const MOST_VALUES: usize = 100;

/// A second, from one subscriber. A look-up asks a node once, and 10,000 torrents in a network of few nodes ten times
/// a second.
const OF_ONE_SENDER: u32 = 20;
const BURST_OF_ONE_SENDER: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_secs(9);
    const HASH: InfoHash = InfoHash([7; 20]);

    fn sides() -> [Option<Side>; 2] {
        let mut rng = Rng::from_seed(1);
        let id = NodeId::random(&mut rng);
        let (mut v4, mut v6) = (Table::new(id), Table::new(id));
        for n in 0..100 {
            let id = NodeId::random(&mut rng);
            v4.answered(NOW, Contact { id, addr: ([9, n, 0, 1], 1).into() });
            let mut ip = [n; 16];
            ip[0] = 0x2a;
            v6.answered(NOW, Contact { id, addr: (ip, 1).into() });
        }
        [Some(Side { id, table: v4 }), Some(Side { id, table: v6 })]
    }

    fn answerer() -> Answerer {
        Answerer::new([1; 32], Rng::from_seed(1), 1_000)
    }

    fn asker() -> SocketAddr {
        ([8, 8, 8, 8], 6881).into()
    }

    fn asked(question: Question<'_>) -> Asked<'_> {
        let body = Body::Query { id: NodeId([3; 20]), question: question.clone() };
        let packet = Packet {
            transaction: b"aa",
            version: None,
            network: None,
            is_read_only: false,
            seen_at: None,
            body,
        };
        Asked { from: asker(), len: packet.encode().len(), transaction: b"aa", question }
    }

    fn get_peers(want: Want) -> Question<'static> {
        Question::GetPeers { info_hash: HASH, want, without_seeds: false, scrape: false }
    }

    fn response(bytes: &[u8]) -> Response<'_> {
        match Packet::decode(bytes).unwrap().body {
            Body::Response(response) => response,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_for_nodes_gets_eight() {
        let mut answerer = answerer();
        let question = Question::FindNode { target: NodeId([1; 20]), want: Want::default() };
        let bytes = answerer.answer(NOW, &asked(question), &sides(), None).unwrap();
        let response = response(&bytes);
        assert_eq!((response.nodes.unwrap().len(), response.nodes6), (K, None));
        assert_eq!(Packet::decode(&bytes).unwrap().seen_at, Some(asker()));
        let both = Want { v4: true, v6: true };
        answerer.proved.add(NOW, asker());
        let bytes = answerer.answer(NOW, &asked(get_peers(both)), &sides(), None).unwrap();
        let response = self::response(&bytes);
        assert_eq!((response.nodes.unwrap().len(), response.nodes6.unwrap().len()), (K, K));
    }

    #[test]
    fn an_answer_to_a_forged_address_is_at_most_three_times_the_question() {
        let mut answerer = answerer();
        let mut rng = Rng::from_seed(1);
        for n in 0..200 {
            answerer.store.add(NOW, HASH, ([7, 7, n, 1], 1).into(), false, &mut rng);
        }
        for want in [Want::default(), Want { v4: true, v6: true }] {
            let asked = asked(get_peers(want));
            let bytes = answerer.answer(NOW, &asked, &sides(), None).unwrap();
            assert!(bytes.len() + 28 <= 3 * (asked.len + 28), "{}", bytes.len());
            let few = response(&bytes);
            assert!(few.values.len() >= 5 && few.nodes.unwrap().len() >= 2, "{}", few.values.len());
            assert!(few.token.is_some());
            answerer.proved.add(NOW, asker());
            let bytes = answerer.answer(NOW, &asked, &sides(), None).unwrap();
            assert!((900..=MAX_SENT).contains(&bytes.len()), "{}", bytes.len());
            answerer.proved = ProvedAddresses::new(1);
        }
    }

    #[test]
    fn an_announce_needs_the_token_of_its_address() {
        let mut answerer = answerer();
        let (peers, sides) = (get_peers(Want::default()), sides());
        let bytes = answerer.answer(NOW, &asked(peers.clone()), &sides, None).unwrap();
        let token = response(&bytes).token.unwrap().to_vec();
        let announce = |token| Question::AnnouncePeer {
            info_hash: HASH,
            port: 9,
            implied_port: false,
            token,
            is_seed: false,
        };
        let refused = answerer.answer(NOW, &asked(announce(b"x")), &sides, None).unwrap();
        assert_eq!(Packet::decode(&refused).unwrap().body, Body::Error { code: 203 });
        let mut other = asked(announce(&token));
        other.from = ([8, 8, 8, 9], 6881).into();
        let refused = answerer.answer(NOW, &other, &sides, None).unwrap();
        assert_eq!(Packet::decode(&refused).unwrap().body, Body::Error { code: 203 });
        assert_eq!(answerer.store.len(), (0, 0));
        answerer.answer(NOW, &asked(announce(&token)), &sides, None).unwrap();
        let mut third = asked(peers);
        third.from = ([8, 8, 4, 4], 1).into();
        let bytes = answerer.answer(NOW, &third, &sides, None).unwrap();
        assert_eq!(response(&bytes).values, [SocketAddr::from(([8, 8, 8, 8], 9))]);
    }

    #[test]
    fn the_internet_is_not_told_private_addresses() {
        let mut answerer = answerer();
        let mut sides = sides();
        let private = Contact { id: NodeId(HASH.0), addr: ([10, 0, 0, 1], 1).into() };
        sides[0].as_mut().unwrap().table.answered(NOW, private);
        let mut rng = Rng::from_seed(1);
        answerer.store.add(NOW, HASH, private.addr, false, &mut rng);
        let bytes = answerer.answer(NOW, &asked(get_peers(Want::default())), &sides, None).unwrap();
        let global = response(&bytes);
        assert!(global.values.is_empty() && !global.nodes.unwrap().contains(&private));
        let mut near = asked(get_peers(Want::default()));
        near.from = ([10, 0, 0, 2], 1).into();
        let bytes = answerer.answer(NOW, &near, &sides, None).unwrap();
        assert_eq!(response(&bytes).values, [private.addr]);
    }

    #[test]
    fn a_flood_gets_few_answers() {
        let mut answerer = answerer();
        let of_one = (0..100_000).filter(|_| answerer.admits(NOW, asker())).count();
        assert_eq!(of_one, BURST_OF_ONE_SENDER as usize);
        let from = |n: u32| SocketAddr::new(std::net::Ipv4Addr::from(0x0900_0000 + n).into(), 1);
        let of_many = (0..100_000).filter(|n| answerer.admits(NOW, from(*n))).count();
        assert!(of_many <= 2_000, "{of_many}");
    }
}
