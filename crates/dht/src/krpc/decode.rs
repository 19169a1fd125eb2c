//! Bytes to packets.

use std::net::SocketAddr;

use piecework_core::InfoHash;
use piecework_core::bencode::{Kind, Limits, Node, scan};

use super::{
    Body, MAX_RECEIVED, MAX_TOKEN, MAX_TRANSACTION, METHOD_UNKNOWN, PROTOCOL_ERROR, Packet,
    Question, Response, Want,
};
use crate::address::{Contact, Family, addr_of};
use crate::node_id::NodeId;

/// Why a packet is of no use.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PacketError {
    /// It is not a packet of this protocol, or an answer with a fault. It gets no answer.
    #[error("not a packet of the DHT")]
    Unusable,
    /// A question with a fault, which is answered with an error.
    #[error("a question with a fault (error `{code}`)")]
    BadQuery {
        /// The number of the question.
        transaction: Vec<u8>,
        /// The code of the error: 203 or 204.
        code: i64,
    },
}

impl<'a> Packet<'a> {
    /// Reads a packet. It has to be canonical bencode, except for the order of its keys. Unknown keys are ignored.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let scan = scan(bytes, &LIMITS).map_err(|_| PacketError::Unusable)?;
        let root = scan.root();
        let transaction = text(root, b"t").ok_or(PacketError::Unusable)?;
        if !(1..=MAX_TRANSACTION).contains(&transaction.len()) {
            return Err(PacketError::Unusable);
        }
        let body = match text(root, b"y") {
            Some(b"q") => query(root).map_err(|code| PacketError::BadQuery {
                transaction: transaction.to_vec(),
                code,
            })?,
            Some(b"r") => response(root).ok_or(PacketError::Unusable)?,
            Some(b"e") => error(root).ok_or(PacketError::Unusable)?,
            _ => return Err(PacketError::Unusable),
        };
        Ok(Self {
            transaction,
            version: text(root, b"v"),
            network: text(root, b"net"),
            is_read_only: flag(root, b"ro"),
            seen_at: text(root, b"ip").and_then(addr_of),
            body,
        })
    }
}

fn query<'a>(root: Node<'_, 'a>) -> Result<Body<'a>, i64> {
    let method = text(root, b"q").ok_or(PROTOCOL_ERROR)?;
    let args = root.get(b"a").filter(|args| args.kind() == Kind::Dict).ok_or(PROTOCOL_ERROR)?;
    let id = id(args, b"id").ok_or(PROTOCOL_ERROR)?;
    let info_hash = || Some(InfoHash(self::id(args, b"info_hash")?.0));
    let question = match method {
        b"ping" => Question::Ping,
        b"find_node" => {
            let target = self::id(args, b"target").ok_or(PROTOCOL_ERROR)?;
            Question::FindNode { target, want: want(args) }
        }
        b"get_peers" => Question::GetPeers {
            info_hash: info_hash().ok_or(PROTOCOL_ERROR)?,
            want: want(args),
            without_seeds: flag(args, b"noseed"),
            scrape: flag(args, b"scrape"),
        },
        b"announce_peer" => {
            let implied_port = flag(args, b"implied_port");
            let port = args.get(b"port").and_then(Node::as_int).map(u16::try_from);
            let port = port.and_then(Result::ok).unwrap_or(0);
            if port == 0 && !implied_port {
                return Err(PROTOCOL_ERROR);
            }
            Question::AnnouncePeer {
                info_hash: info_hash().ok_or(PROTOCOL_ERROR)?,
                port,
                implied_port,
                token: token(args).ok_or(PROTOCOL_ERROR)?,
                is_seed: flag(args, b"seed"),
            }
        }
        _ => return Err(METHOD_UNKNOWN),
    };
    Ok(Body::Query { id, question })
}

fn response<'a>(root: Node<'_, 'a>) -> Option<Body<'a>> {
    let values = root.get(b"r").filter(|values| values.kind() == Kind::Dict)?;
    let mut response = Response::new(id(values, b"id")?);
    response.nodes = contacts(values, b"nodes", Family::V4)?;
    response.nodes6 = contacts(values, b"nodes6", Family::V6)?;
    if values.get(b"token").is_some() {
        response.token = Some(token(values)?);
    }
    if let Some(peers) = values.get(b"values") {
        if peers.kind() != Kind::List {
            return None;
        }
        let peers = peers.items().map(|peer| addr_of(peer.as_bytes()?));
        response.values = peers.collect::<Option<Vec<SocketAddr>>>()?;
    }
    Some(Body::Response(response))
}

fn error<'a>(root: Node<'_, 'a>) -> Option<Body<'a>> {
    let code = root.get(b"e")?.items().next()?.as_int()?;
    Some(Body::Error { code })
}

/// Returns the nodes at `key`: `Some(None)` if there is no such key, `None` if they are malformed.
fn contacts(dict: Node<'_, '_>, key: &[u8], family: Family) -> Option<Option<Vec<Contact>>> {
    let Some(node) = dict.get(key) else { return Some(None) };
    let bytes = node.as_bytes()?;
    let contacts = bytes.chunks_exact(20 + family.addr_len());
    if !contacts.remainder().is_empty() {
        return None;
    }
    let contact = |bytes: &[u8]| {
        let (id, addr) = bytes.split_at_checked(20)?;
        Some(Contact { id: NodeId(id.try_into().ok()?), addr: addr_of(addr)? })
    };
    Some(Some(contacts.map(contact).collect::<Option<Vec<Contact>>>()?))
}

fn text<'a>(dict: Node<'_, 'a>, key: &[u8]) -> Option<&'a [u8]> {
    dict.get(key)?.as_bytes()
}

fn id(dict: Node<'_, '_>, key: &[u8]) -> Option<NodeId> {
    Some(NodeId(text(dict, key)?.try_into().ok()?))
}

fn token<'a>(dict: Node<'_, 'a>) -> Option<&'a [u8]> {
    text(dict, b"token").filter(|token| (1..=MAX_TOKEN).contains(&token.len()))
}

fn flag(dict: Node<'_, '_>, key: &[u8]) -> bool {
    dict.get(key).and_then(Node::as_int).is_some_and(|value| value != 0)
}

fn want(args: Node<'_, '_>) -> Want {
    let mut want = Want::default();
    for item in args.get(b"want").into_iter().flat_map(|want| want.items()) {
        want.v4 |= item.as_bytes() == Some(b"n4");
        want.v6 |= item.as_bytes() == Some(b"n6");
    }
    want
}

/// A packet nests three deep. A token takes at least two bytes, so a packet has at most 750: what is scanned takes up
/// to 9 kB.
const LIMITS: Limits = Limits { bytes: MAX_RECEIVED, depth: 8, tokens: 750 };
