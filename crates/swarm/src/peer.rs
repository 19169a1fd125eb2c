//! Everything known about one connected peer.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::choker::{LONGEST_GRACE, Turn};
use super::peer_exchange::PeerExchange;
use super::picker::PickCache;
use super::pipeline::Pipeline;
use super::rate::Rate;
use super::{Direction, PeerIdentity, PeerKey, PeerSource};
use piecework_core::{Bitfield, BlockRef, Moment, PieceIndex};

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) who: Arc<PeerIdentity>,
    pub(super) direction: Direction,
    /// Where its address was heard of.
    pub(super) source: PeerSource,
    pub(super) fast: bool,
    pub(super) extended: bool,
    /// Its number of `ut_metadata`.
    pub(super) metadata_id: Option<u8>,
    /// How many pieces of the metadata it has requested.
    pub(super) metadata_asked: u32,
    /// What it and we have told each other about other peers.
    pub(super) exchange: Option<Box<PeerExchange>>,
    /// Our address as it sees it.
    pub(super) sees_us: Option<IpAddr>,
    /// Where it accepts connections: where we dialled it, or what it says.
    pub(super) listens_at: Option<SocketAddr>,
    /// It gave blocks of a right piece.
    pub(super) is_proven: bool,
    /// How many right pieces it gave alone.
    pub(super) alone: u32,
    /// How many pieces it was to give alone and lost, since it last gave one.
    pub(super) lost: u32,
    /// How many blocks were late, or requested from others because they did not come, since it last gave a
    /// right piece alone.
    pub(super) missed: u32,
    /// A connection that came in while this one was silent, and may be of the same peer.
    pub(super) rival: Option<PeerKey>,

    pub(super) holds: Bitfield,
    /// How many pieces it holds that we lack and want.
    pub(super) wanted: u32,
    /// It has sent a message that must not be followed by a bitfield.
    pub(super) opened: bool,
    /// It will request nothing (BEP 21).
    pub(super) upload_only: bool,

    /// We choke it.
    pub(super) choked: bool,
    /// It chokes us.
    pub(super) chokes_us: bool,
    /// It is interested in us.
    pub(super) interested: bool,
    /// We are interested in it.
    pub(super) interests_us: bool,

    /// Pieces it serves us even while it chokes us.
    pub(super) allowed_us: Vec<PieceIndex>,
    /// Pieces we serve it even while it is choked.
    pub(super) allowed_it: Vec<PieceIndex>,
    /// How many blocks it may still have while it is choked.
    pub(super) allowance: u32,
    /// The limit of `allowance` if a peer of its address used some of it before.
    pub(super) allowance_left: Option<u32>,
    /// Pieces that we suggested and that it has not begun to request.
    pub(super) suggested: Vec<PieceIndex>,
    /// Pieces that we suggested, that it has begun to request and does not have yet.
    pub(super) handed_out: Vec<PieceIndex>,

    pub(super) cache: PickCache,
    pub(super) pipeline: Pipeline,
    /// Blocks on their way to it.
    pub(super) uploads: VecDeque<BlockRef>,
    /// How many blocks it sent that were not requested.
    pub(super) strays: u32,
    /// There is nothing more to exchange. It is dropped when all requests are answered, or at this time.
    pub(super) parting: Option<Moment>,

    /// When it last gave us a block.
    pub(super) given_at: Option<Moment>,
    /// Payload received from it.
    pub(super) down: Rate,
    /// Payload sent to it.
    pub(super) up: Rate,
    /// Bytes it had given at the last two rounds of the choker, the last round first.
    pub(super) given_before: [u64; 2],
    /// Bytes it had taken when its turn began.
    pub(super) taken_before: u64,
    /// Bytes it had taken at the last round of the choker.
    pub(super) taken_at_round: u64,
    /// When it was last choked or unchoked. A newcomer continues the turn of a peer of its address that has
    /// left.
    pub(super) turned_at: Option<Moment>,
    /// The same before its current or last turn.
    pub(super) turned_before: Option<Moment>,
    /// When a request of it was last accepted or answered.
    pub(super) asked_at: Moment,
    /// It had a slot and requested nothing.
    pub(super) is_idle: bool,
    /// Its requests arrive later than the shortest grace period.
    pub(super) asks_late: bool,
    /// A peer of its address was here before.
    pub(super) is_returning: bool,

    pub(super) connected_at: Moment,
    pub(super) heard_at: Moment,
    /// It has sent something since its handshake.
    pub(super) has_spoken: bool,
    /// When a block was last sent in either direction.
    pub(super) used_at: Option<Moment>,
    pub(super) told_at: Moment,
    /// A message to it may still wait for the next one.
    pub(super) is_behind: bool,
    /// When it is checked next, no later than its deadline.
    pub(super) due: Moment,
}

/// A connection that was just established.
#[derive(Debug)]
pub(super) struct NewConnection {
    pub(super) who: PeerIdentity,
    pub(super) direction: Direction,
    pub(super) source: PeerSource,
    pub(super) fast: bool,
    pub(super) extended: bool,
    pub(super) listens_at: Option<SocketAddr>,
}

impl Peer {
    pub(super) fn new(
        now: Moment,
        connection: NewConnection,
        pieces: u32,
        max_requests: usize,
    ) -> Self {
        Self {
            who: Arc::new(connection.who),
            direction: connection.direction,
            source: connection.source,
            fast: connection.fast,
            extended: connection.extended,
            metadata_id: None,
            metadata_asked: 0,
            exchange: None,
            sees_us: None,
            listens_at: connection.listens_at,
            is_proven: false,
            alone: 0,
            lost: 0,
            missed: 0,
            rival: None,
            given_at: None,
            holds: Bitfield::empty(pieces),
            wanted: 0,
            opened: false,
            upload_only: false,
            choked: true,
            chokes_us: true,
            interested: false,
            interests_us: false,
            allowed_us: Vec::new(),
            allowed_it: Vec::new(),
            allowance: 0,
            allowance_left: None,
            suggested: Vec::new(),
            handed_out: Vec::new(),
            cache: PickCache::default(),
            pipeline: Pipeline::new(now, max_requests.min(DEFAULT_REQQ)),
            uploads: VecDeque::new(),
            strays: 0,
            parting: None,
            down: Rate::new(now),
            up: Rate::new(now),
            given_before: [0; 2],
            taken_before: 0,
            taken_at_round: 0,
            turned_at: None,
            turned_before: None,
            asked_at: now,
            is_idle: false,
            asks_late: false,
            is_returning: false,
            connected_at: now,
            heard_at: now,
            has_spoken: false,
            used_at: None,
            told_at: now,
            is_behind: false,
            due: now,
        }
    }

    /// Returns whether it can be expected to give us something: it holds what we lack, and gives, or has
    /// not had time to.
    pub(super) fn is_useful(&self, now: Moment) -> bool {
        let is_recent = |at: Moment| now.since(at) < USELESS_AFTER;
        let serves = !self.chokes_us && !self.pipeline.is_snubbed();
        let gives = self.given_at.is_some_and(is_recent) || is_recent(self.connected_at);
        let refuses = self.pipeline.owed() == 0 && self.pipeline.is_held(now);
        self.interests_us && (serves && !refuses || gives)
    }

    /// Returns whether a request of either side is unanswered. Ours do not count without BEP 6: there a
    /// cancelled request may never be answered.
    pub(super) fn has_open_requests(&self) -> bool {
        self.fast && self.pipeline.has_unanswered() || !self.uploads.is_empty()
    }

    /// Returns when it will count as idle if it keeps its slot and requests nothing. `None` while it has
    /// requests waiting.
    pub(super) fn idle_from(&self, grace: Duration) -> Option<Moment> {
        let grace = if self.asks_late { LONGEST_GRACE } else { grace };
        let since = self.turned_at.map_or(self.asked_at, |turned_at| turned_at.max(self.asked_at));
        (!self.choked && self.uploads.is_empty()).then(|| since + grace)
    }

    /// Returns whether it waits for a slot and is not one of the peers that do not use theirs.
    pub(super) fn waits_for_slot(&self) -> bool {
        self.interested && self.choked && !self.is_idle
    }

    /// Returns its position in the order of turns if it leaves now.
    pub(super) fn turn(&self, now: Moment) -> Turn {
        let asked_nothing = !self.choked && self.turned_at.is_some_and(|at| self.asked_at < at);
        Turn {
            is_idle: self.is_idle || asked_nothing,
            ended_at: if self.choked { self.turned_at } else { Some(now) },
            allowance: (!self.allowed_it.is_empty()).then_some(self.allowance),
        }
    }

    /// Continues the turn of a peer that has left.
    pub(super) fn take_turn(&mut self, turn: Turn) {
        self.is_idle = turn.is_idle;
        self.turned_at = turn.ended_at;
        self.turned_before = turn.ended_at;
        self.allowance_left = turn.allowance;
        self.is_returning = true;
    }

    /// Returns whether it serves us anything.
    pub(super) fn serves_us(&self) -> bool {
        self.interests_us && (!self.chokes_us || !self.allowed_us.is_empty())
    }

    /// Returns whether it could be asked for something now and is asked for nothing.
    pub(super) fn waits(&self, now: Moment) -> bool {
        self.serves_us()
            && !self.chokes_us
            && self.pipeline.owed() == 0
            && !self.pipeline.is_snubbed()
            && !self.pipeline.is_held(now)
    }

    /// Returns when something must be done if it stays silent.
    pub(super) fn deadline(&self, idle: Duration) -> Moment {
        let silent = (self.heard_at + idle).min(self.told_at + KEEP_ALIVE);
        let silent = self.parting.map_or(silent, |until| until.min(silent));
        self.pipeline.deadline().map_or(silent, |late| late.min(silent))
    }
}

/// How many requests a peer takes that does not say: the smallest default of libtorrent and Transmission.
pub(super) const DEFAULT_REQQ: usize = 250;

/// BEP 3 closes silent connections after two minutes.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(100);

/// A peer that chokes us, or owes us blocks and sends none, for longer than this is of no use.
const USELESS_AFTER: Duration = Duration::from_secs(60);

/// After more than this many unrequested blocks, a peer is dropped. A few are normal: they cross with a
/// cancel or choke that was forgotten since.
pub(super) const MAX_STRAYS: u32 = 64;

/// How many allowed-fast pieces of a peer are remembered.
pub(super) const MAX_ALLOWED: usize = 64;
