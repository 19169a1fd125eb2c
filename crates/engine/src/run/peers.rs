//! Peers of a torrent at work: they connect, are dialled, and leave, and trackers are asked for
//! more.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use crate::net::{Accepted, Link, LinkOptions};
use piecework_swarm::{Direction, Event, PeerKey};

use super::super::announce_scheduler::Alone;
use super::super::complaints::LastSent;
use super::{DialFailure, DialResult, PeerLink, Run};

impl Run<'_> {
    /// Takes in that a peer has left by itself: what it was sent may be wrong.
    pub(super) fn left(&mut self, peer: PeerKey, sent: LastSent) {
        let now = self.torrent.means.now();
        let Some(view) = self.swarm.peers().find(|view| view.key == peer) else { return };
        let who = (view.who.addr.ip(), view.who.id);
        let lacks = view.holds.len() - view.holds.count();
        for piece in self.complaints.left(now, who, sent, lacks) {
            if self.swarm.have().contains(piece) {
                self.proofs.ask(piece);
            }
        }
    }

    pub(super) fn connected(&mut self, connection: Accepted, direction: Direction) {
        let means = &self.torrent.means;
        let Accepted { stream, addr, theirs } = connection;
        // Asked first, so that nobody loses a place in the session for a peer that is refused.
        if direction == Direction::Incoming
            && !self.swarm.has_place_for(means.now(), addr, theirs.peer_id)
        {
            debug!(%addr, "refused: the torrent has as many connections as it may");
            return;
        }
        let encryption = stream.method();
        let stream = Arc::new(stream);
        let Some(place) = means.connections.take_place(means.now(), addr.ip(), &stream) else {
            debug!(%addr, "refused: the session has as many connections as it may");
            if direction == Direction::Outgoing {
                self.tell(Event::DialPrevented { addr });
            }
            return;
        };
        let record = self.torrent.record_mut();
        let peer = PeerKey(record.next_peer);
        record.next_peer += 1;
        let means = &self.torrent.means;
        let link = Link::start(
            stream,
            LinkOptions {
                peer,
                geometry: self.torrent.geometry,
                pool: means.pool.clone(),
                source: Arc::clone(&self.source) as _,
                runs: means.runs.clone(),
                upload: self.torrent.upload.clone(),
                download: self.torrent.download.clone(),
                inputs: self.inputs_tx.clone(),
            },
        );
        let sent = LastSent::default();
        let member = PeerLink { link, addr, unflushed: false, sent, encryption, place };
        self.links.insert(peer, member);
        self.had_peers = true;
        self.tell(Event::Connected {
            peer,
            addr,
            id: theirs.peer_id,
            direction,
            fast: theirs.fast(),
            extended: theirs.extended(),
        });
        self.changed = true;
    }

    pub(super) fn dialed(&mut self, dialed: DialResult) {
        self.dialing = self.dialing.saturating_sub(1);
        match dialed {
            Ok(connection) => self.connected(connection, Direction::Outgoing),
            Err(DialFailure { addr, is_prevented: true, .. }) => {
                self.tell(Event::DialPrevented { addr });
            }
            Err(DialFailure { addr, hung_up, .. }) => {
                self.tell(Event::DialFailed { addr, hung_up })
            }
        }
    }

    /// Asks trackers for more peers, as often as they allow, for a download whose peers give
    /// nothing or are about to, and for a seed without peers: a peer may be unable to connect to us
    /// and wait for our connection.
    pub(super) fn ask_for_peers(&mut self) {
        let means = &self.torrent.means;
        let (now, info_hash) = (means.now(), self.torrent.entry.info_hash());
        let has_nobody = self.links.is_empty() && self.dialing == 0;
        self.alone_since = has_nobody.then(|| self.alone_since.unwrap_or(now));
        let alone = match (has_nobody, self.leeching) {
            (false, _) => Alone::No,
            (true, true) => Alone::Downloading,
            (true, false) => Alone::Seeding,
        };
        if self.told_alone != Some(alone) {
            self.told_alone = Some(alone);
            self.torrent.scheduler.set_alone(now, info_hash, alone);
        }
        if !self.leeching || alone != Alone::No || now.since(self.asked_for_peers) < LONELY {
            return;
        }
        self.asked_for_peers = now;
        if self.swarm.useful_peers() == 0 {
            self.torrent.scheduler.more_peers(now, info_hash);
        }
    }
}

/// Time between two looks whether a download has a useful peer.
pub(super) const LONELY: Duration = Duration::from_secs(5);
