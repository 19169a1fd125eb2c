//! Packets between nodes (BEP 5, 32, 33, 42, 43) and their bytes.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use piecework_core::InfoHash;

use super::address::Contact;
use super::node_id::NodeId;

pub use decode::PacketError;

/// A packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// The number of the question, which its answer repeats.
    pub transaction: &'a [u8],
    /// The client and its version.
    pub version: Option<&'a [u8]>,
    /// The name of a network that is separate from the public one. Not part of any BEP.
    pub network: Option<&'a [u8]>,
    /// The sender answers no questions (BEP 43).
    pub is_read_only: bool,
    /// The address at which the sender of an answer saw who asked (BEP 42).
    pub seen_at: Option<SocketAddr>,
    /// What it says.
    pub body: Body<'a>,
}

/// What a packet says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// A question.
    Query {
        /// The id of the node that asks.
        id: NodeId,
        /// What it asks.
        question: Question<'a>,
    },
    /// An answer.
    Response(Response<'a>),
    /// A refusal.
    Error {
        /// 201 to 204.
        code: i64,
    },
}

/// A question to a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question<'a> {
    /// Are you there?
    Ping,
    /// Which nodes are closest to this id?
    FindNode {
        /// The id.
        target: NodeId,
        /// The families of the nodes.
        want: Want,
    },
    /// Who is in the swarm of this torrent, and which nodes are closest to it?
    GetPeers {
        /// The torrent.
        info_hash: InfoHash,
        /// The families of the nodes.
        want: Want,
        /// Seeds are of no use (BEP 33).
        without_seeds: bool,
        /// An estimate of the swarm's size is wanted too (BEP 33).
        scrape: bool,
    },
    /// I am in the swarm of this torrent.
    AnnouncePeer {
        /// The torrent.
        info_hash: InfoHash,
        /// The TCP port. 0 only if it is the port that the packet comes from.
        port: u16,
        /// The TCP port is the one that the packet comes from, whatever `port` says.
        implied_port: bool,
        /// From the answer to [`Self::GetPeers`].
        token: &'a [u8],
        /// The peer is a seed (BEP 33).
        is_seed: bool,
    },
}

/// Which nodes an answer should contain (BEP 32).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Want {
    /// Nodes with IPv4 addresses.
    pub v4: bool,
    /// Nodes with IPv6 addresses.
    pub v6: bool,
}

/// An answer. It does not say to which kind of question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response<'a> {
    /// The id of the node that answers.
    pub id: NodeId,
    /// Nodes with IPv4 addresses; `None` if they were not wanted.
    pub nodes: Option<Vec<Contact>>,
    /// Nodes with IPv6 addresses.
    pub nodes6: Option<Vec<Contact>>,
    /// Permission to announce.
    pub token: Option<&'a [u8]>,
    /// Peers of the torrent.
    pub values: Vec<SocketAddr>,
}

impl<'a> Response<'a> {
    /// Returns an answer that says no more than `id`.
    pub fn new(id: NodeId) -> Self {
        Self { id, nodes: None, nodes6: None, token: None, values: Vec::new() }
    }

    /// Returns all nodes.
    pub fn contacts(&self) -> impl Iterator<Item = Contact> + '_ {
        self.nodes.iter().chain(&self.nodes6).flatten().copied()
    }
}

/// A protocol error: a malformed packet or a bad token.
pub(crate) const PROTOCOL_ERROR: i64 = 203;

/// An unknown kind of question.
pub(crate) const METHOD_UNKNOWN: i64 = 204;

/// The longest packet that is sent (BEP 32).
pub(crate) const MAX_SENT: usize = 1024;

/// The longest packet that is read: what fits an Ethernet frame.
pub const MAX_RECEIVED: usize = 1500;

/// The longest transaction number: two to four bytes are usual. Each costs its length in an answer.
const MAX_TRANSACTION: usize = 16;

/// The longest token that is kept and sent back: up to 20 bytes are usual.
const MAX_TOKEN: usize = 64;
