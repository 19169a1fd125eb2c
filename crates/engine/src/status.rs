//! The status of torrents, and the events that observers hear.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::TorrentError;
use piecework_core::metainfo::Metainfo;
use piecework_core::{BoxedDefault, InfoHash, Moment, PieceIndex, Sha1Hash, shared_default};
use piecework_proto::encryption::Method;
use piecework_swarm::announcer::TrackerStatus;
use piecework_swarm::{
    BlockRanges, Bottleneck, Cause, Direction, Evidence, PeerIdentity, PeerSource, WaitTimes,
};

/// The status of a torrent.
#[derive(Debug, Clone)]
pub struct TorrentStatus {
    /// Its name, unescaped.
    pub name: String,
    /// Its info-hash.
    pub info_hash: InfoHash,
    /// What it is doing.
    pub state: TorrentState,
    /// Number of pieces.
    pub pieces_total: u32,
    /// Pieces verified and written.
    pub pieces_have: u32,
    /// Bytes of content.
    pub bytes_total: u64,
    /// Bytes of content verified and written.
    pub bytes_have: u64,
    /// Bytes of the pieces that are wanted, held or not.
    pub bytes_wanted: u64,
    /// Bytes of wanted pieces that are held.
    pub bytes_wanted_have: u64,
    /// Bytes received of pieces that failed their hash.
    pub corrupt: u64,
    /// Payload bytes received since it was added, including those of no use.
    pub downloaded: u64,
    /// Payload bytes sent since it was added.
    pub uploaded: u64,
    /// Payload received, bytes a second over the last seconds.
    pub download_rate: f64,
    /// Payload sent, bytes a second over the last seconds.
    pub upload_rate: f64,
    /// Connected peers.
    pub peers: usize,
    /// Connected peers that hold everything.
    pub seeds: usize,
    /// Connected peers that gave us payload lately.
    pub peers_giving: usize,
    /// Connected peers that we gave payload lately.
    pub peers_taking: usize,
    /// Time until complete at the present rate; `None` if that is unknown.
    pub eta: Option<Duration>,
    /// Its trackers.
    pub trackers: Vec<TrackerStatus>,
    /// A sentence about something that has happened and does not stop the torrent, such as lost
    /// pieces that are fetched again.
    pub trouble: Option<String>,
}

/// The part of a torrent's status that counts and sums over many torrents use. It is made without
/// an allocation, unless the torrent failed.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusSummary {
    /// What it is doing.
    pub state: TorrentState,
    /// Bytes of wanted pieces that are not held.
    pub bytes_left: u64,
    /// Payload received, bytes a second over the last seconds.
    pub download_rate: f64,
    /// Payload sent, bytes a second over the last seconds.
    pub upload_rate: f64,
}

/// The part of a status that changes. The rest comes from the metainfo and the trackers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StatusView {
    pub state: TorrentState,
    /// Why it is paused, if not because somebody asked.
    pub fault: Option<Box<TorrentError>>,
    pub pieces_have: u32,
    pub bytes_have: u64,
    pub bytes_wanted: u64,
    pub bytes_wanted_have: u64,
    pub corrupt: u64,
    pub downloaded: u64,
    pub uploaded: u64,
    pub motion: BoxedDefault<Motion>,
    pub trouble: Option<Box<str>>,
    /// What it has waited for, if it has ever downloaded here.
    pub waiting: Option<Arc<WaitTimes>>,
}

/// The same in less memory, for the many torrents that hold everything and have no peers.
pub(super) enum CompactStatus {
    /// All is there, nothing moves, nothing is wrong.
    Whole { paused: bool, downloaded: u64, uploaded: u64 },
    /// Anything else.
    Other(Box<StatusView>),
}

/// The part of a status that only torrents with peers have.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Motion {
    pub download_rate: f64,
    pub upload_rate: f64,
    pub peers: u32,
    pub seeds: u32,
    pub peers_giving: u32,
    pub peers_taking: u32,
    pub eta: Option<Duration>,
}

/// What a download waits for, and has waited for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waited {
    /// Time spent on each cause since it was added to this session, in the order of [`Cause::ALL`].
    pub time: [Duration; Cause::ALL.len()],
    /// The share of each cause, 0 to 1, in what was counted of the last minute; all 0 if nothing
    /// was.
    pub recent: [f64; Cause::ALL.len()],
    /// How much of the last minute was counted.
    pub counted: Duration,
    /// What it waits for now; `None` if it does not download.
    pub standing: Option<Bottleneck>,
}

impl StatusView {
    /// Returns a status with nothing but a state.
    pub(crate) fn new(state: TorrentState) -> Self {
        Self {
            state,
            fault: None,
            pieces_have: 0,
            bytes_have: 0,
            bytes_wanted: 0,
            bytes_wanted_have: 0,
            corrupt: 0,
            downloaded: 0,
            uploaded: 0,
            motion: BoxedDefault::default(),
            trouble: None,
            waiting: None,
        }
    }

    /// Returns the status of a torrent that holds everything, wants everything, and transfers
    /// nothing.
    fn whole(metainfo: &Metainfo, paused: bool, downloaded: u64, uploaded: u64) -> Self {
        let geometry = metainfo.info().geometry();
        let bytes = geometry.total_len();
        let state = whole_state(paused);
        Self {
            pieces_have: geometry.pieces(),
            bytes_have: bytes,
            bytes_wanted: bytes,
            bytes_wanted_have: bytes,
            downloaded,
            uploaded,
            ..Self::new(state)
        }
    }

    /// Returns how many pieces are held, if the torrent takes part in its swarm. Of other torrents
    /// nothing is known (the disk is being checked), or they are not announced, so that reports
    /// would be refused.
    pub(crate) fn reportable(&self) -> Option<u32> {
        let takes_part = matches!(self.state, TorrentState::Downloading | TorrentState::Seeding);
        takes_part.then_some(self.pieces_have)
    }

    /// Returns what it has waited for up to `now`.
    pub(crate) fn waited(&self, now: Moment) -> Waited {
        let mut waiting = match &self.waiting {
            Some(waiting) => WaitTimes::clone(waiting),
            None => WaitTimes::new(now, Default::default()),
        };
        // What was seen last still holds: the torrent would have shown a change.
        waiting.note(now, waiting.bottleneck().copied());
        Waited {
            time: waiting.totals(),
            recent: waiting.recent(),
            counted: waiting.counted(),
            standing: waiting.bottleneck().copied(),
        }
    }

    /// Returns the public status.
    pub(crate) fn status(self, metainfo: &Metainfo, trackers: Vec<TrackerStatus>) -> TorrentStatus {
        let geometry = metainfo.info().geometry();
        TorrentStatus {
            name: metainfo.info().name().to_owned(),
            info_hash: metainfo.info_hash(),
            state: self.state,
            pieces_total: geometry.pieces(),
            pieces_have: self.pieces_have,
            bytes_total: geometry.total_len(),
            bytes_have: self.bytes_have,
            bytes_wanted: self.bytes_wanted,
            bytes_wanted_have: self.bytes_wanted_have,
            corrupt: self.corrupt,
            downloaded: self.downloaded,
            uploaded: self.uploaded,
            download_rate: self.motion.download_rate,
            upload_rate: self.motion.upload_rate,
            peers: self.motion.peers as usize,
            seeds: self.motion.seeds as usize,
            peers_giving: self.motion.peers_giving as usize,
            peers_taking: self.motion.peers_taking as usize,
            eta: self.motion.eta,
            trackers,
            trouble: self.trouble.map(Into::into),
        }
    }
}

/// Returns the state of a torrent that holds everything.
fn whole_state(paused: bool) -> TorrentState {
    match paused {
        true => TorrentState::Paused { reason: None },
        false => TorrentState::Seeding,
    }
}

impl CompactStatus {
    /// Packs the status of `metainfo`'s torrent.
    pub(crate) fn new(shown: StatusView, metainfo: &Metainfo) -> Self {
        let StatusView { downloaded, uploaded, .. } = shown;
        let paused = matches!(shown.state, TorrentState::Paused { .. });
        if shown == StatusView::whole(metainfo, paused, downloaded, uploaded) {
            Self::Whole { paused, downloaded, uploaded }
        } else {
            Self::Other(Box::new(shown))
        }
    }

    /// Unpacks the status.
    pub(crate) fn unfold(&self, metainfo: &Metainfo) -> StatusView {
        match self {
            Self::Whole { paused, downloaded, uploaded } => {
                StatusView::whole(metainfo, *paused, *downloaded, *uploaded)
            }
            Self::Other(shown) => StatusView::clone(shown),
        }
    }

    /// Returns the part that counts and sums use.
    pub(crate) fn summary(&self) -> StatusSummary {
        match self {
            Self::Whole { paused, .. } => StatusSummary {
                state: whole_state(*paused),
                bytes_left: 0,
                download_rate: 0.0,
                upload_rate: 0.0,
            },
            Self::Other(shown) => StatusSummary {
                state: shown.state.clone(),
                bytes_left: shown.bytes_wanted.saturating_sub(shown.bytes_wanted_have),
                download_rate: shown.motion.download_rate,
                upload_rate: shown.motion.upload_rate,
            },
        }
    }

    /// Returns what it has waited for, if it has.
    pub(crate) fn waiting(&self) -> Option<Arc<WaitTimes>> {
        match self {
            Self::Whole { .. } => None,
            Self::Other(shown) => shown.waiting.clone(),
        }
    }

    /// Returns whether wanted pieces are missing and downloaded.
    pub(crate) fn is_downloading(&self) -> bool {
        match self {
            Self::Whole { .. } => false,
            Self::Other(shown) => shown.state == TorrentState::Downloading,
        }
    }

    /// Returns whether connections are accepted.
    pub(crate) fn admits(&self) -> bool {
        match self {
            Self::Whole { paused, .. } => !paused,
            Self::Other(shown) => !matches!(
                shown.state,
                TorrentState::Paused { .. } | TorrentState::Waiting | TorrentState::Moving { .. }
            ),
        }
    }
}

shared_default!(Motion);

/// The state of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TorrentState {
    /// Waiting for its turn to be checked.
    Waiting,
    /// Hashing what is on disk.
    Checking {
        /// Pieces hashed.
        done: u32,
        /// Pieces to hash.
        total: u32,
    },
    /// Wanted pieces are missing.
    Downloading,
    /// Everything wanted is there.
    Seeding,
    /// Its files are being moved.
    Moving {
        /// Bytes moved.
        done: u64,
        /// Bytes to move.
        total: u64,
    },
    /// Nothing is transferred.
    Paused {
        /// Why, if not because somebody asked: a sentence to act on.
        reason: Option<String>,
    },
}

/// The status of a connected peer.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// The address at which it accepts connections, or its end of this one if that is not known.
    pub addr: SocketAddr,
    /// Client name and version, unescaped.
    pub client: String,
    /// Who dialled.
    pub direction: Direction,
    /// Where its address was heard of.
    pub source: PeerSource,
    /// The method of its encrypted handshake; `None` if it had none.
    pub encryption: Option<Method>,
    /// Pieces it holds.
    pub pieces: u32,
    /// Bytes a second it gives us.
    pub download_rate: f64,
    /// Bytes a second we give it.
    pub upload_rate: f64,
    /// Payload bytes it gave us.
    pub downloaded: u64,
    /// Payload bytes we gave it.
    pub uploaded: u64,
    /// We choke it.
    pub choked_by_us: bool,
    /// It chokes us.
    pub choking_us: bool,
    /// We want pieces it has.
    pub we_are_interested: bool,
    /// It wants pieces we have.
    pub interested_in_us: bool,
    /// Blocks it owes us.
    pub outstanding: u32,
}

/// An event of a torrent.
#[derive(Debug, Clone)]
pub enum TorrentEvent {
    /// A piece was verified and written.
    PieceDone {
        /// The piece.
        piece: PieceIndex,
        /// The peers that gave parts of it.
        givers: Vec<PieceGiver>,
    },
    /// A piece was received whole, and its hash was wrong.
    PieceFailed {
        /// The piece.
        piece: PieceIndex,
        /// The peers that gave parts of it.
        givers: Vec<PieceGiver>,
        /// The hash it had.
        hash: Sha1Hash,
    },
    /// A peer is known to have sent a wrong block, and is banned.
    Banned {
        /// The peer.
        who: Arc<PeerIdentity>,
        /// The piece with the wrong block.
        piece: PieceIndex,
        /// What proves it.
        evidence: Evidence,
    },
    /// A peer was banned because it gave a wrong piece alone. Now it is known which of its blocks
    /// was wrong.
    Proven {
        /// The peer.
        who: Arc<PeerIdentity>,
        /// The piece with the wrong block.
        piece: PieceIndex,
        /// What proves it.
        evidence: Evidence,
    },
    /// Blocks were received and dropped: duplicates, late or unrequested ones, or those of a piece
    /// that was given up.
    Unused {
        /// The peer that sent them.
        who: Arc<PeerIdentity>,
        /// Their piece.
        piece: PieceIndex,
        /// Number of blocks.
        blocks: u32,
        /// Payload bytes.
        bytes: u64,
    },
    /// Blocks of a piece were sent. A piece that is sent slowly is reported in parts.
    Sent(SentPart),
    /// Every piece is there, and every file has its final name.
    Completed,
    /// The torrent stopped on a fault.
    Paused {
        /// The fault.
        error: TorrentError,
    },
}

/// A peer's part in a piece that was received.
#[derive(Debug, Clone)]
pub struct PieceGiver {
    /// The peer.
    pub who: Arc<PeerIdentity>,
    /// Number of blocks.
    pub blocks: u32,
    /// The first and the last block of each run.
    pub ranges: BlockRanges,
    /// Payload bytes.
    pub bytes: u64,
    /// When the first block was requested, in milliseconds since 1970.
    pub requested_at: i64,
    /// When the last block was received, in milliseconds since 1970.
    pub received_at: i64,
    /// From the first request to the last block.
    pub took: Duration,
}

/// What a peer was sent of a piece.
#[derive(Debug, Clone)]
pub struct SentPart {
    /// The peer.
    pub who: Arc<PeerIdentity>,
    /// The piece.
    pub piece: PieceIndex,
    /// Number of blocks.
    pub blocks: u32,
    /// Payload bytes.
    pub bytes: u64,
    /// When the first block was sent, in milliseconds since 1970.
    pub first_at: i64,
    /// When the last block was sent, in milliseconds since 1970.
    pub last_at: i64,
}

/// Hears every event of every torrent of a session. It is called on the torrent's own task, so it
/// must return at once and never block.
pub trait Observer: Send + Sync {
    /// Called right after `event` has happened to `metainfo`'s torrent.
    fn event(&self, metainfo: &Arc<Metainfo>, event: &TorrentEvent);
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    #[test]
    fn what_is_folded_is_unfolded_and_small_if_all_is_well() {
        let builder = MetainfoBuilder::single_file("file".to_owned(), 100_000);
        let pieces = builder.geometry().unwrap().pieces() as usize;
        let metainfo = builder.build(vec![0; pieces * 20]).unwrap();
        let whole = StatusView::whole(&metainfo, false, 1, 2);
        let paused = StatusView::whole(&metainfo, true, 0, u64::MAX);
        let mut moving = whole.clone();
        moving.motion.peers = 1;
        let mut still = whole.clone();
        still.motion.peers = 0;
        let mut failed = paused.clone();
        failed.fault = Some(Box::new(TorrentError::Removed));
        failed.state = TorrentState::Paused { reason: Some("gone".to_owned()) };
        let others = [
            moving,
            failed,
            StatusView { pieces_have: 0, ..whole.clone() },
            StatusView { bytes_wanted: 0, bytes_wanted_have: 0, ..whole.clone() },
            StatusView { corrupt: 1, ..whole.clone() },
            StatusView { state: TorrentState::Downloading, ..whole.clone() },
            StatusView {
                waiting: Some(Arc::new(WaitTimes::new(Moment::START, Default::default()))),
                ..whole.clone()
            },
        ];
        for (shown, is_whole) in
            [whole, paused, still].map(|s| (s, true)).into_iter().chain(others.map(|s| (s, false)))
        {
            let folded = CompactStatus::new(shown.clone(), &metainfo);
            assert_eq!(matches!(folded, CompactStatus::Whole { .. }), is_whole, "{shown:?}");
            assert_eq!(folded.unfold(&metainfo), shown);
            let quiet = matches!(shown.state, TorrentState::Paused { .. });
            assert_eq!(folded.admits(), !quiet);
        }
    }
}
