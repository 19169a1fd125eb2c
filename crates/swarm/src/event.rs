//! What goes into a swarm and what comes out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::admission::Shares;
use piecework_core::{BlockRef, InfoHash, Moment, PeerId, PieceIndex, Priority, Sha1Hash};
use piecework_proto::wire::Message;

/// A connection's number, given by the driver and never used twice in one swarm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerKey(pub u32);

/// A received block's bytes, kept by the driver under this number until the swarm has said what
/// is to become of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BufferId(pub u64);

/// Digest of one block's bytes, equal if the bytes are. The driver chooses how it is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockDigest(pub [u8; 20]);

/// Who opened a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// We dialled.
    Outgoing,
    /// They dialled.
    Incoming,
}

/// Where an address was heard of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// A tracker's answer.
    Tracker,
    /// The user, on the command line or in a menu.
    User,
    /// The peer connected to us.
    Incoming,
}

/// Who a connected peer is, as far as it has told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerIdentity {
    /// The address of its end of the connection.
    pub addr: SocketAddr,
    /// Where it accepts connections, once it is known: what it dialled us from is a port that
    /// tells nobody which peer it is. Of a peer that dialled us it is what it says itself, if no
    /// other peer is known there; good to show, and never a reason to ban anybody.
    pub listens_at: Option<SocketAddr>,
    /// What it called itself in the handshake.
    pub id: PeerId,
    /// Client name and version: `v` of its extended handshake, else what its peer id tells.
    /// Unescaped: show it only through [`piecework_core::printable`].
    pub client: String,
}

impl PeerIdentity {
    /// The address that people and trackers know it by, as far as it is known.
    pub fn known_as(&self) -> SocketAddr {
        self.listens_at.unwrap_or(self.addr)
    }
}

/// How a swarm decides whom to serve.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ChokePolicy {
    /// For the internet: the best givers and one optimistic unchoke while downloading,
    /// round-robin while seeding.
    #[default]
    TitForTat,
    /// For one's own machines: serve everybody; a seed hands out distinct first copies.
    Closed,
}

/// What a swarm is told when it is made. Defaults are for a peer on the open internet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SwarmConfig {
    /// Our own peer id: a peer that shows it is ourselves.
    pub local_id: PeerId,
    /// The torrent's info-hash, from which BEP 6 computes what a choked peer may have; without it
    /// choked peers get nothing.
    pub info_hash: Option<InfoHash>,
    /// The port we accept peers on, told in the extended handshake; `None` if we accept none.
    pub listen_port: Option<u16>,
    /// Client name and version for the extended handshake's `v`.
    pub client: String,
    /// Whom to serve.
    pub choke: ChokePolicy,
    /// Peers served at a time under [`ChokePolicy::TitForTat`], the optimistic one included.
    pub upload_slots: usize,
    /// Connections at most. When there are as many, one that is of no use makes way for a newcomer,
    /// see [`who_makes_way`](crate::admission::who_makes_way).
    pub max_peers: usize,
    /// What one address keeps of them when places are short.
    pub shares: Shares,
    /// Dials under way at most.
    pub max_dialing: usize,
    /// Blocks of pieces in memory at most: asked for, arrived, or being verified. One piece may
    /// always be begun, however large.
    pub memory_blocks: u32,
    /// Requests a peer may have waiting with us; more are a fault. It is told half of it (`reqq`).
    pub max_requests_in: usize,
    /// Requests we have waiting with a peer at most, whatever its `reqq`.
    pub max_requests_out: usize,
    /// Silence after which a peer is dropped. BEP 3 clients speak every two minutes.
    pub idle_timeout: Duration,
    /// A peer that owes blocks and has sent none for this long is snubbed: others may be asked for
    /// them. While others give blocks, that comes after a few times the time the peer usually takes.
    /// After twice this time it is dropped, or its requests are given up if nobody else gives any.
    pub request_timeout: Duration,
    /// Hold the torrent but ask for nothing (used by seeders of partial data).
    pub upload_only: bool,
    /// The priority of each piece, as in [`Event::Wants`]; without them all are normal.
    pub priorities: Option<Arc<[Priority]>>,
    /// Ask for pieces in their order, as in [`Event::Order`].
    pub sequential: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Addresses of possible peers.
    Candidates {
        /// Who told us.
        source: Source,
        /// Any number; the swarm keeps as many as it has room for.
        addrs: Vec<SocketAddr>,
    },
    /// An [`Action::Dial`] came to nothing.
    DialFailed {
        /// The address dialled.
        addr: SocketAddr,
        /// The peer took the connection and closed it at our handshake, as those do that demand
        /// encryption.
        hung_up: bool,
    },
    /// An [`Action::Dial`] was not carried out, or its connection not kept, for a bound of our own:
    /// connections, descriptors. It says nothing about the peer.
    DialPrevented {
        /// The address that was to be dialled.
        addr: SocketAddr,
    },
    /// A connection whose handshake is done, with our info-hash on both sides.
    Connected {
        /// Its number from now on.
        peer: PeerKey,
        /// Its address; for [`Direction::Outgoing`] the one dialled.
        addr: SocketAddr,
        /// Its peer id.
        id: PeerId,
        /// Who dialled.
        direction: Direction,
        /// Both sides speak the fast extension (BEP 6).
        fast: bool,
        /// Both sides speak the extension protocol (BEP 10).
        extended: bool,
    },
    /// The connection is gone. Nothing about it follows.
    Disconnected {
        /// Which.
        peer: PeerKey,
    },
    /// A message from a peer, of any type but `piece`.
    Message {
        /// From whom.
        peer: PeerKey,
        /// What it says, not checked against the torrent.
        message: Message,
    },
    /// A block came, its bytes are in `buffer`. Answered by one [`Action::Keep`] or
    /// [`Action::Discard`] of that buffer.
    Block {
        /// From whom.
        peer: PeerKey,
        /// What the peer says it is; not checked against the torrent.
        block: BlockRef,
        /// Where its bytes are.
        buffer: BufferId,
    },
    /// A block came that the driver knows the peer does not owe. Its bytes were not kept.
    Unasked {
        /// From whom.
        peer: PeerKey,
        /// What the peer says it is; not checked against the torrent.
        block: BlockRef,
    },
    /// An [`Action::Verify`] is done.
    PieceChecked {
        /// Which piece.
        piece: PieceIndex,
        /// How it went.
        outcome: PieceOutcome,
    },
    /// Blocks of an [`Action::Upload`] went out.
    Uploaded {
        /// To whom.
        peer: PeerKey,
        /// How many blocks.
        blocks: u32,
        /// Payload bytes.
        bytes: u64,
    },
    /// Stop asking and serving, drop all peers, dial nobody.
    Pause,
    /// Go on.
    Resume,
    /// The part of the memory budget that is ours has changed.
    MemoryBudget {
        /// In blocks, as [`SwarmConfig::memory_blocks`].
        blocks: u32,
    },
    /// Other pieces are wanted, or others first. What is begun of a piece that is not wanted any
    /// more is dropped, unless it is being verified: it is held if it is right.
    ///
    /// [`Swarm::handle`](super::Swarm::handle) panics if there is not one for each piece.
    Wants {
        /// Each piece's; none at all if all are normal.
        priorities: Arc<[Priority]>,
    },
    /// In which order pieces of one priority are asked for.
    Order {
        /// The first ones first, so that what is there can be used from its beginning; otherwise
        /// the rarest ones, which is better for the swarm.
        sequential: bool,
    },
    /// Other limits. If there are too many peers now, those of least use are dropped.
    Limits {
        /// As [`SwarmConfig::max_peers`].
        max_peers: usize,
        /// As [`SwarmConfig::upload_slots`].
        upload_slots: usize,
    },
    /// Peers may be silent for longer than the configuration says, because it is we who keep them
    /// waiting: under a rate limit what they have sent lies unread.
    Patience {
        /// How much longer, for [`SwarmConfig::idle_timeout`] and
        /// [`SwarmConfig::request_timeout`]; takes the place of what was said before.
        extra: Duration,
    },
    /// The moment of [`Swarm::deadline`](super::Swarm::deadline) has come.
    Timeout,
}

/// How the check of a whole piece went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceOutcome {
    /// Right, and on disk.
    Verified {
        /// Each block's digest in order, if [`Action::Verify`] asked for them, else empty.
        digests: Vec<BlockDigest>,
    },
    /// The hash is wrong. Nothing was written.
    Corrupt {
        /// Each block's digest in order.
        digests: Vec<BlockDigest>,
        /// The hash it has.
        hash: Sha1Hash,
    },
    /// It could not be written or read back. Nobody's fault but the disk's: the driver pauses
    /// the torrent, the piece is missing as before.
    StorageFailed,
}

/// Something to be done by the driver.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Open a connection. Answered by [`Event::Connected`], [`Event::DialFailed`] or
    /// [`Event::DialPrevented`].
    Dial {
        /// Whither.
        addr: SocketAddr,
    },
    /// Close a connection. [`Event::Disconnected`] may or may not follow; the swarm has already
    /// forgotten the peer.
    Disconnect {
        /// Which.
        peer: PeerKey,
        /// Why.
        fault: PeerFault,
    },
    /// Send a message.
    Send {
        /// To whom.
        peer: PeerKey,
        /// What.
        message: Message,
    },
    /// Send a message that is not urgent: after those before it, and together with the next
    /// [`Action::Send`], [`Action::Upload`] or [`Action::Flush`] to the same peer.
    SendLater {
        /// To whom.
        peer: PeerKey,
        /// What.
        message: Message,
    },
    /// Send what [`Action::SendLater`] has left waiting.
    Flush {
        /// To whom.
        peer: PeerKey,
    },
    /// Send a block we hold; queued behind the peer's earlier ones.
    Upload {
        /// To whom.
        peer: PeerKey,
        /// Which; inside its piece, at most 16 KiB, not necessarily aligned.
        block: BlockRef,
    },
    /// Take a block out of the peer's upload queue if it has not gone out yet.
    CancelUpload {
        /// Whose queue.
        peer: PeerKey,
        /// Which.
        block: BlockRef,
    },
    /// Put a received buffer in its place in the piece under assembly.
    Keep {
        /// Where the bytes are.
        buffer: BufferId,
        /// What they are: exactly one of the piece's blocks.
        block: BlockRef,
    },
    /// Throw a received buffer away.
    Discard {
        /// Where the bytes are.
        buffer: BufferId,
    },
    /// All blocks of the piece are kept: hash them, write them if they are right, and forget the
    /// assembly either way. Answered by [`Event::PieceChecked`].
    Verify {
        /// Which piece.
        piece: PieceIndex,
        /// Whether digests of the blocks are wanted even if the piece is right.
        want_digests: bool,
    },
    /// Throw away what has been kept of a piece.
    DropPiece {
        /// Which.
        piece: PieceIndex,
    },
    /// For the journal: a piece was verified and written; who gave it. One giver for each peer
    /// that gave at least a block.
    PieceDone {
        /// Which piece.
        piece: PieceIndex,
        /// Who gave which part.
        givers: Vec<Giver>,
    },
    /// For the journal: a piece came whole and was wrong.
    PieceFailed {
        /// Which piece.
        piece: PieceIndex,
        /// Who gave which part.
        givers: Vec<Giver>,
        /// The hash it had.
        hash: Sha1Hash,
    },
    /// For the journal: this peer is known to have sent a wrong block, and is banned. Its
    /// connection, if there is one, is closed by a [`Action::Disconnect`] of its own. `listens_at` is
    /// `None` unless we dialled it.
    Banned {
        /// Who.
        who: Arc<PeerIdentity>,
        /// Of which piece.
        piece: PieceIndex,
        /// What is known of the block.
        evidence: Evidence,
    },
    /// For the journal: which block of the piece it was that a peer sent wrong, which is banned
    /// already because it gave that piece alone. Known once somebody gave the piece right.
    Proven {
        /// Who.
        who: Arc<PeerIdentity>,
        /// Of which piece.
        piece: PieceIndex,
        /// What is known of the block.
        evidence: Evidence,
    },
    /// For the journal: blocks that came and were thrown away: twice, too late, never asked for,
    /// or of a piece that was given up.
    Unused {
        /// Who sent them.
        who: Arc<PeerIdentity>,
        /// Of which piece it said they are.
        piece: PieceIndex,
        /// How many.
        blocks: u32,
        /// Bytes.
        bytes: u64,
    },
    /// Nothing that is wanted is missing any more: the last wanted piece is in place, or what was
    /// missing is not wanted any more. Comes again if more is wanted later and that is there too.
    /// Does not come for a swarm that wants nothing from its start.
    Finished,
    /// The last missing piece is in place. Comes once, behind [`Action::Finished`] if that piece
    /// was wanted.
    Completed,
}

/// A peer's part in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Giver {
    /// Who gave.
    pub who: Arc<PeerIdentity>,
    /// Blocks.
    pub blocks: u32,
    /// Which: first and last of each run, by their number in the piece, in order. Empty for a
    /// piece that was given up before it was whole.
    pub ranges: BlockRanges,
    /// Bytes.
    pub bytes: u64,
    /// When the first of these blocks was asked for.
    pub requested_at: Moment,
    /// When the last of them came.
    pub received_at: Moment,
}

/// Runs of blocks of one piece, the first and the last of each. Most often one peer gives all.
pub type BlockRanges = SmallVec<[(u32, u32); 1]>;

/// What shows that a peer sent a wrong block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The block. `None` while it is only known that the peer gave the whole piece, and that it is
    /// wrong.
    pub block: Option<BlockRef>,
    /// The hash of the piece with that block in it.
    pub hash: Sha1Hash,
    /// The digest of the block it sent.
    pub sent: Option<BlockDigest>,
    /// The digest of the right block.
    pub right: Option<BlockDigest>,
}

/// Why a peer is dropped. It loses only itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// It showed our own peer id.
    #[error("it is ourselves")]
    Ourselves,
    /// It is connected already.
    #[error("it is connected already")]
    Duplicate,
    /// It is banned.
    #[error("it is banned for sending wrong data")]
    Banned,
    /// It was of no use, and another peer wanted its place.
    #[error("it made way for another peer")]
    MadeWay,
    /// We have as many peers as we may.
    #[error("there is no room for more peers")]
    TooManyPeers,
    /// Its bitfield is not one of this torrent.
    #[error("its bitfield does not fit the torrent")]
    BadBitfield,
    /// A later bitfield or have-none without pieces it had before.
    #[error("it sent a bitfield that takes back pieces it had")]
    LateBitfield,
    /// It names a piece or block that does not exist.
    #[error("it named a piece or block that does not exist")]
    OutOfRange,
    /// It sent a message of the fast extension without having offered it.
    #[error("it used the fast extension without offering it")]
    NotFast,
    /// Its extended handshake is not one.
    #[error("its extended handshake is not valid")]
    BadExtended,
    /// It sent too many blocks that nobody had asked for.
    #[error("it sent blocks that were not asked for")]
    Unrequested,
    /// It has more requests waiting than we said we take.
    #[error("it flooded us with requests")]
    RequestFlood,
    /// It was silent for too long.
    #[error("it was silent for too long")]
    Idle,
    /// It took requests and sent nothing for them, while others did.
    #[error("it took requests and sent nothing")]
    Unresponsive,
    /// It sent a wrong block.
    #[error("it sent a wrong block")]
    Corrupt,
    /// There is nothing to exchange: both sides hold everything that they want.
    #[error("both sides hold everything they want")]
    BothComplete,
    /// The torrent is paused.
    #[error("the torrent is paused")]
    Paused,
}
