//! What is known of the exchange of peers with each peer (BEP 11).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use piecework_core::Moment;
use piecework_proto::wire::{ExchangeFlags, ExchangeMessage, ExchangedPeer};

/// What is exchanged with one peer.
#[derive(Debug)]
pub(super) struct PeerExchange {
    /// The peer's number of `ut_pex`, if it takes such messages.
    pub(super) id: Option<u8>,
    /// The addresses that it was told and that are still connected.
    pub(super) told: BTreeSet<SocketAddr>,
    /// The version of the list of peers that it knows.
    pub(super) version: u64,
    /// When it may be told something.
    pub(super) tell_from: Moment,
    /// When its next message is read.
    pub(super) hear_from: Moment,
    /// It has sent a message.
    pub(super) has_told: bool,
}

impl PeerExchange {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            id: None,
            told: BTreeSet::new(),
            version: 0,
            tell_from: now,
            hear_from: now,
            has_told: false,
        }
    }
}

/// When peers are told about others.
#[derive(Debug, Default)]
pub(super) struct ExchangePlan {
    /// Counts the changes of the list of peers.
    pub(super) version: u64,
    /// When to look for peers that do not know the newest list.
    pub(super) at: Option<Moment>,
}

/// Returns what is to be told to a peer that knows `told`.
pub(super) fn news(
    told: &BTreeSet<SocketAddr>,
    named: &BTreeMap<SocketAddr, ExchangeFlags>,
    may_know: impl Fn(SocketAddr, ExchangeFlags) -> bool,
) -> ExchangeMessage {
    let room = MOST_TOLD.saturating_sub(told.len());
    let fresh =
        named.iter().filter(|(addr, flags)| !told.contains(*addr) && may_know(**addr, **flags));
    let added = fresh.map(|(addr, flags)| ExchangedPeer { addr: *addr, flags: *flags });
    let dropped = told.iter().filter(|addr| !named.contains_key(*addr)).copied();
    ExchangeMessage {
        added: added.take(MOST_NAMED.min(room)).collect(),
        dropped: dropped.take(MOST_NAMED).collect(),
    }
}

/// BEP 11: 50 addresses of each kind in a message.
pub(super) const MOST_NAMED: usize = 50;

/// How many addresses one peer is told at a time.
const MOST_TOLD: usize = 200;
