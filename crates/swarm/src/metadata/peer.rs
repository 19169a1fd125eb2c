//! A peer that may give metadata.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{MAX_REQUESTS, MetadataFault};
use crate::Direction;
use piecework_core::Moment;

#[derive(Debug)]
pub(super) struct FetchPeer {
    pub(super) addr: SocketAddr,
    pub(super) ip: IpAddr,
    pub(super) direction: Direction,
    /// The number by which it knows the extension.
    pub(super) extension: Option<u8>,
    /// The length of the metadata, as it says.
    pub(super) size: Option<u32>,
    /// Not asked before this.
    pub(super) paused_until: Option<Moment>,
    /// How many requests it has rejected since it last gave a piece.
    pub(super) rejects: u32,
    /// How many pieces it sent without being asked.
    pub(super) strays: u32,
    connected_at: Moment,
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    piece: u32,
    at: Moment,
    /// It is late, so others are asked for the piece.
    late: bool,
}

impl FetchPeer {
    pub(super) fn new(now: Moment, addr: SocketAddr, direction: Direction) -> Self {
        Self {
            addr,
            ip: addr.ip().to_canonical(),
            direction,
            extension: None,
            size: None,
            paused_until: None,
            rejects: 0,
            strays: 0,
            connected_at: now,
            requests: Vec::new(),
        }
    }

    /// Returns whether it may be asked for another piece.
    pub(super) fn may_be_asked(&self, now: Moment) -> bool {
        let is_paused = self.paused_until.is_some_and(|until| until > now);
        let is_late = self.requests.iter().any(|request| request.late);
        !is_paused && !is_late && self.requests.len() < MAX_REQUESTS
    }

    /// Returns whether it has not answered a request for `piece`.
    pub(super) fn was_asked(&self, piece: u32) -> bool {
        self.requests.iter().any(|request| request.piece == piece)
    }

    /// Returns the pieces that it is expected to give soon.
    pub(super) fn expected(&self) -> impl Iterator<Item = u32> + '_ {
        self.requests.iter().filter(|request| !request.late).map(|request| request.piece)
    }

    pub(super) fn ask(&mut self, now: Moment, piece: u32) {
        self.requests.push(Request { piece, at: now, late: false });
    }

    /// Removes the request for `piece`, which was answered.
    pub(super) fn take(&mut self, piece: u32) -> Option<()> {
        let at = self.requests.iter().position(|request| request.piece == piece)?;
        self.requests.remove(at);
        Some(())
    }

    /// Marks late requests. Returns why the peer is dropped, if it is.
    pub(super) fn check(&mut self, now: Moment) -> Option<MetadataFault> {
        for request in &mut self.requests {
            request.late |= request.at + LATE <= now;
        }
        if self.requests.iter().any(|request| request.at + SILENT <= now) {
            return Some(MetadataFault::Silent);
        }
        let is_useless = self.size.is_none() && self.connected_at + USELESS <= now;
        is_useless.then_some(MetadataFault::NotOffered)
    }

    /// Returns when [`FetchPeer::check`] or [`FetchPeer::may_be_asked`] will return something else.
    pub(super) fn deadline(&self, now: Moment) -> Option<Moment> {
        let requests = self.requests.iter().map(|request| match request.late {
            true => request.at + SILENT,
            false => request.at + LATE,
        });
        let useless = self.size.is_none().then(|| self.connected_at + USELESS);
        requests.chain(useless).chain(self.paused_until.filter(|until| *until > now)).min()
    }
}

/// A request that was not answered for this long is made to another peer too.
const LATE: Duration = Duration::from_secs(6);

/// A peer that does not answer a request for this long is dropped.
const SILENT: Duration = Duration::from_secs(30);

/// A peer that does not say how long the metadata is, is dropped after this time: it has none.
const USELESS: Duration = Duration::from_secs(60);
