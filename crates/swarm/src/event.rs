//! Events and actions of a swarm.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::PeerSource;
use crate::admission::Shares;
use piecework_core::{BlockRef, InfoHash, Moment, PeerId, PieceIndex, Priority, Sha1Hash};
use piecework_proto::wire::Message;

/// The number of a connection. The driver assigns it and never uses it twice in one swarm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerKey(pub u32);

/// The bytes of a received block. The driver keeps them under this number until the swarm decides about
/// them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BufferId(pub u64);

/// The digest of a block. Digests are equal if the bytes are. The driver chooses the hash function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockDigest(pub [u8; 20]);

/// Who opened a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// We dialled the peer.
    Outgoing,
    /// The peer dialled us.
    Incoming,
}

/// Who a connected peer is, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerIdentity {
    /// The address of its end of the connection.
    pub addr: SocketAddr,
    /// Where the peer accepts connections, if that is known. If the peer dialled us, this is what the peer
    /// says, unless another peer is known there. The port it dialled from does not identify it. Use this
    /// only for display, and never to ban a peer.
    pub listens_at: Option<SocketAddr>,
    /// The peer id it sent in its handshake.
    pub id: PeerId,
    /// Client name and version: `v` of its extended handshake, else what its peer id says. Unescaped: show
    /// it only through [`piecework_core::printable`].
    pub client: String,
}

impl PeerIdentity {
    /// Returns the address by which people and trackers know the peer, as far as it is known.
    pub fn known_as(&self) -> SocketAddr {
        self.listens_at.unwrap_or(self.addr)
    }
}

/// How a swarm decides whom to serve.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ChokePolicy {
    /// For the internet: the peers that give most and one optimistic unchoke while downloading, round-robin
    /// while seeding.
    #[default]
    TitForTat,
    /// For machines of one owner: everybody is served, and a seed hands out different first copies.
    Closed,
}

/// The configuration of a swarm. Defaults are for a peer on the open internet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SwarmConfig {
    /// Our own peer id. A peer that sends it is ourselves.
    pub local_id: PeerId,
    /// The torrent's info-hash, from which BEP 6 computes the allowed-fast pieces. Without it, choked peers
    /// get nothing.
    pub info_hash: Option<InfoHash>,
    /// The length of the metadata that peers may request (BEP 9). `None` if they get none.
    pub metadata_size: Option<u32>,
    /// The torrent is private (BEP 27): peers come from its trackers and from the user alone.
    pub is_private: bool,
    /// Peers name other peers to each other (BEP 11), unless the torrent is private.
    pub exchange: bool,
    /// The port on which we accept peers, sent in the extended handshake. `None` if we accept none.
    pub listen_port: Option<u16>,
    /// Client name and version for `v` of the extended handshake.
    pub client: String,
    /// Whom to serve.
    pub choke: ChokePolicy,
    /// How many peers are served at a time under [`ChokePolicy::TitForTat`], including the optimistic one.
    pub upload_slots: usize,
    /// Maximum number of connections. When it is reached, a connection of no use makes way for a newcomer,
    /// see [`who_makes_way`](crate::admission::who_makes_way).
    pub max_peers: usize,
    /// How many connections one address keeps when places are short.
    pub shares: Shares,
    /// Maximum number of dials under way.
    pub max_dialing: usize,
    /// Maximum number of blocks in memory: requested, received, or being verified. One piece may always be
    /// begun, however large it is.
    pub memory_blocks: u32,
    /// How many requests a peer may have waiting with us. More are a fault. Peers are told half of it
    /// (`reqq`).
    pub max_requests_in: usize,
    /// How many requests we may have waiting with a peer, whatever its `reqq`.
    pub max_requests_out: usize,
    /// A peer is dropped after this much silence. BEP 3 clients send something every two minutes.
    pub idle_timeout: Duration,
    /// A peer that owes blocks and has sent none for this long is snubbed: its blocks may be requested from
    /// others. While others give blocks, it is snubbed earlier, after a few times its usual time for a
    /// block. After twice this time it is dropped, or its requests are given up if nobody else gives any.
    pub request_timeout: Duration,
    /// Keep what is held but request nothing. Used by seeders of partial data.
    pub upload_only: bool,
    /// The priority of each piece, as in [`Event::Wants`]. Without it, all are normal.
    pub priorities: Option<Arc<[Priority]>>,
    /// Request pieces in order, as in [`Event::Order`].
    pub sequential: bool,
}

/// An event, which the driver passes to [`Swarm::handle`](super::Swarm::handle).
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Addresses of possible peers.
    Candidates {
        /// Where the addresses come from.
        source: PeerSource,
        /// Any number. The swarm keeps as many as it has room for.
        addrs: Vec<SocketAddr>,
    },
    /// An [`Action::Dial`] failed.
    DialFailed {
        /// The address that was dialled.
        addr: SocketAddr,
        /// The peer accepted the connection and closed it at our handshake, as peers do that require
        /// encryption.
        hung_up: bool,
    },
    /// An [`Action::Dial`] was not carried out, or its connection not kept, because of a limit on our side
    /// such as connections or descriptors. It says nothing about the peer.
    DialPrevented {
        /// The address that was to be dialled.
        addr: SocketAddr,
    },
    /// A connection has completed its handshake, with our info-hash on both sides.
    Connected {
        /// The number of the connection from now on.
        peer: PeerKey,
        /// The address of the peer. For [`Direction::Outgoing`] it is the one that was dialled.
        addr: SocketAddr,
        /// The peer id.
        id: PeerId,
        /// Who dialled.
        direction: Direction,
        /// Both sides support the fast extension (BEP 6).
        fast: bool,
        /// Both sides support the extension protocol (BEP 10).
        extended: bool,
    },
    /// The connection has ended. No more events of it follow.
    Disconnected {
        /// The connection that ended.
        peer: PeerKey,
    },
    /// A peer sent a message of any type but `piece`.
    Message {
        /// The peer that sent it.
        peer: PeerKey,
        /// The message, not checked against the torrent.
        message: Message,
    },
    /// A block was received. Answered by exactly one [`Action::Keep`] or [`Action::Discard`] of its buffer.
    Block {
        /// The peer that sent it.
        peer: PeerKey,
        /// The block as the peer describes it, not checked against the torrent.
        block: BlockRef,
        /// The buffer with its bytes.
        buffer: BufferId,
    },
    /// A block was received that the driver knows the peer does not owe. Its bytes were not kept.
    Unasked {
        /// The peer that sent it.
        peer: PeerKey,
        /// The block as the peer describes it, not checked against the torrent.
        block: BlockRef,
    },
    /// An [`Action::Verify`] is done.
    PieceChecked {
        /// The piece that was checked.
        piece: PieceIndex,
        /// The result of the check.
        outcome: PieceOutcome,
    },
    /// Blocks of an [`Action::Upload`] were sent.
    Uploaded {
        /// The peer that they were sent to.
        peer: PeerKey,
        /// The number of blocks.
        blocks: u32,
        /// The number of payload bytes.
        bytes: u64,
    },
    /// Stop requesting and serving, drop all peers, and dial nobody.
    Pause,
    /// Continue after [`Event::Pause`].
    Resume,
    /// Our share of the memory budget has changed.
    MemoryBudget {
        /// The share in blocks, as in [`SwarmConfig::memory_blocks`].
        blocks: u32,
    },
    /// Piece priorities have changed. Begun pieces that are not wanted any more are dropped. A piece that
    /// is being verified is kept if it is right.
    ///
    /// [`Swarm::handle`](super::Swarm::handle) panics if the number of priorities is neither 0 nor the
    /// number of pieces.
    Wants {
        /// The priority of each piece. Empty if all are normal.
        priorities: Arc<[Priority]>,
    },
    /// The order in which pieces of the same priority are requested.
    Order {
        /// Whether to request pieces in order, so that the content can be used from its beginning.
        /// Otherwise the rarest pieces come first, which is better for the swarm.
        sequential: bool,
    },
    /// Limits have changed. If there are too many peers now, the least useful ones are dropped.
    Limits {
        /// As in [`SwarmConfig::max_peers`].
        max_peers: usize,
        /// As in [`SwarmConfig::upload_slots`].
        upload_slots: usize,
    },
    /// Peers may be silent for longer than configured, because we keep them waiting: under a rate limit,
    /// what they have sent lies unread.
    Patience {
        /// How much longer than [`SwarmConfig::idle_timeout`] and [`SwarmConfig::request_timeout`].
        /// Replaces the previous value.
        extra: Duration,
    },
    /// The moment of [`Swarm::deadline`](super::Swarm::deadline) has come.
    Timeout,
}

/// The result of checking a whole piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceOutcome {
    /// The piece is right and on disk.
    Verified {
        /// The digest of each block in order if [`Action::Verify`] asked for them, else empty.
        digests: Vec<BlockDigest>,
    },
    /// The hash is wrong. Nothing was written.
    Corrupt {
        /// The digest of each block in order.
        digests: Vec<BlockDigest>,
        /// The hash that the received piece has.
        hash: Sha1Hash,
    },
    /// The piece could not be written or read back. No peer is to blame: the driver pauses the torrent, and
    /// the piece is missing as before.
    StorageFailed,
}

/// An action for the driver to carry out.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Open a connection. Answered by [`Event::Connected`], [`Event::DialFailed`] or
    /// [`Event::DialPrevented`].
    Dial {
        /// The address to dial.
        addr: SocketAddr,
    },
    /// Close a connection. [`Event::Disconnected`] may or may not follow. The swarm has already forgotten
    /// the peer.
    Disconnect {
        /// The connection to close.
        peer: PeerKey,
        /// The reason.
        fault: PeerFault,
    },
    /// Send a message.
    Send {
        /// The peer to send it to.
        peer: PeerKey,
        /// The message.
        message: Message,
    },
    /// Send a message that is not urgent. It is sent after earlier messages, together with the next
    /// [`Action::Send`], [`Action::Upload`] or [`Action::Flush`] to the same peer.
    SendLater {
        /// The peer to send it to.
        peer: PeerKey,
        /// The message.
        message: Message,
    },
    /// Send the messages of [`Action::SendLater`] that still wait.
    Flush {
        /// The peer to send them to.
        peer: PeerKey,
    },
    /// Send a block that we hold, after the earlier ones for that peer.
    Upload {
        /// The peer to send it to.
        peer: PeerKey,
        /// The block: inside its piece, at most 16 KiB, not necessarily aligned.
        block: BlockRef,
    },
    /// Send a piece of the metadata, or a rejection if too many requests of the peer wait or the metadata cannot be
    /// read.
    GiveMetadata {
        /// The peer to send it to.
        peer: PeerKey,
        /// The peer's number of `ut_metadata`.
        id: u8,
        /// The piece of the metadata.
        piece: u32,
    },
    /// Remove a block from the peer's upload queue if it was not sent yet.
    CancelUpload {
        /// The peer whose queue it is in.
        peer: PeerKey,
        /// The block to remove.
        block: BlockRef,
    },
    /// Put a received buffer into the piece it belongs to.
    Keep {
        /// The buffer with the bytes.
        buffer: BufferId,
        /// The block that the bytes are, which is exactly one of the piece's blocks.
        block: BlockRef,
    },
    /// Discard a received buffer.
    Discard {
        /// The buffer to discard.
        buffer: BufferId,
    },
    /// All blocks of the piece are kept. Hash them, write them if they are right, and forget them either
    /// way. Answered by [`Event::PieceChecked`].
    Verify {
        /// The piece to verify.
        piece: PieceIndex,
        /// Whether digests of the blocks are wanted even if the piece is right.
        want_digests: bool,
    },
    /// Discard the blocks that were kept of a piece.
    DropPiece {
        /// The piece to discard.
        piece: PieceIndex,
    },
    /// For the journal: a piece was verified and written. There is one giver for each peer that gave at
    /// least one block.
    PieceDone {
        /// The piece.
        piece: PieceIndex,
        /// Who gave which blocks.
        givers: Vec<Giver>,
    },
    /// For the journal: a piece was received whole and was wrong.
    PieceFailed {
        /// The piece.
        piece: PieceIndex,
        /// Who gave which blocks.
        givers: Vec<Giver>,
        /// The hash that it had.
        hash: Sha1Hash,
    },
    /// For the journal: this peer is known to have sent a wrong block, and is banned. A separate
    /// [`Action::Disconnect`] closes its connection, if there is one. `listens_at` is `None` unless we
    /// dialled the peer.
    Banned {
        /// The banned peer.
        who: Arc<PeerIdentity>,
        /// The piece that the block belongs to.
        piece: PieceIndex,
        /// What is known about the block.
        evidence: Evidence,
    },
    /// For the journal: which block of a piece a peer sent wrong. The peer is banned already, because it
    /// gave that piece alone. Known once another peer gave the piece right.
    Proven {
        /// The peer that sent it.
        who: Arc<PeerIdentity>,
        /// The piece that the block belongs to.
        piece: PieceIndex,
        /// What is known about the block.
        evidence: Evidence,
    },
    /// For the journal: blocks that were received and discarded: duplicate, too late, never requested, or
    /// part of a piece that was given up.
    Unused {
        /// The peer that sent them.
        who: Arc<PeerIdentity>,
        /// The piece that they belong to, as the peer said.
        piece: PieceIndex,
        /// The number of blocks.
        blocks: u32,
        /// The number of bytes.
        bytes: u64,
    },
    /// Nothing that is wanted is missing any more: the last wanted piece is held, or the missing pieces are
    /// not wanted any more. Returned again if more is wanted later and then held too. Not returned for a
    /// swarm that wants nothing from its start.
    Finished,
    /// The last missing piece is held. Returned once, after [`Action::Finished`] if that piece was wanted.
    Completed,
}

/// A peer's share of one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Giver {
    /// The peer that gave it.
    pub who: Arc<PeerIdentity>,
    /// The number of blocks.
    pub blocks: u32,
    /// The numbers of the blocks in the piece: first and last of each run, in order. Empty for a piece that
    /// was given up before it was whole.
    pub ranges: BlockRanges,
    /// The number of bytes.
    pub bytes: u64,
    /// When the first of these blocks was requested.
    pub requested_at: Moment,
    /// When the last of them was received.
    pub received_at: Moment,
}

/// Runs of blocks of one piece, the first and the last of each. Usually one peer gives all blocks.
pub type BlockRanges = SmallVec<[(u32, u32); 1]>;

/// Evidence that a peer sent a wrong block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The block. `None` while it is only known that the peer gave the whole piece and that the piece is
    /// wrong.
    pub block: Option<BlockRef>,
    /// The hash of the piece with that block in it.
    pub hash: Sha1Hash,
    /// The digest of the block that the peer sent.
    pub sent: Option<BlockDigest>,
    /// The digest of the right block.
    pub right: Option<BlockDigest>,
}

/// Why a peer is dropped. A fault affects only that peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// It sent our own peer id.
    #[error("it is ourselves")]
    Ourselves,
    /// It is connected already.
    #[error("it is connected already")]
    Duplicate,
    /// It is banned.
    #[error("it is banned for sending wrong data")]
    Banned,
    /// It was of no use, and another peer took its place.
    #[error("it made way for another peer")]
    MadeWay,
    /// We have the maximum number of peers.
    #[error("there is no room for more peers")]
    TooManyPeers,
    /// Its bitfield does not fit this torrent.
    #[error("its bitfield does not fit the torrent")]
    BadBitfield,
    /// It sent a later bitfield or have-none that lacks pieces it had before.
    #[error("it sent a bitfield that takes back pieces it had")]
    LateBitfield,
    /// It names a piece or block that does not exist.
    #[error("it named a piece or block that does not exist")]
    OutOfRange,
    /// It sent a message of the fast extension without having offered it.
    #[error("it used the fast extension without offering it")]
    NotFast,
    /// It sends metadata that was not requested, or a `ut_metadata` message that is invalid.
    #[error("its message about metadata is not valid")]
    BadMetadata,
    /// It sends a `ut_pex` message that is invalid.
    #[error("its message about other peers is not valid")]
    BadExchange,
    /// Its extended handshake is invalid.
    #[error("its extended handshake is not valid")]
    BadExtended,
    /// It sent too many blocks that were not requested.
    #[error("it sent blocks that were not asked for")]
    Unrequested,
    /// It has more requests waiting than we allow.
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
