//! The state of torrents and of the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::TorrentSettings;
use piecework_core::{InfoHash, Priority};

/// A torrent of the daemon, with the fields that lists show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Torrent {
    /// Its info-hash.
    pub info_hash: InfoHash,
    /// A number that identifies it as long as this daemon runs. The first is 1.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: State,
    /// A sentence that says what is wrong and what to do, or `None`. Set whenever `state` is
    /// [`State::Failed`], and for problems that do not stop the torrent (a tracker that does not
    /// answer).
    pub error: Option<String>,
    /// The folder that contains it.
    pub folder: PathBuf,
    /// Bytes of the whole content.
    pub bytes: u64,
    /// Bytes verified and on disk.
    pub bytes_have: u64,
    /// Bytes of the pieces that are wanted, held or not.
    pub bytes_wanted: u64,
    /// Bytes of wanted pieces that are held.
    pub bytes_wanted_have: u64,
    /// The number of all pieces.
    pub pieces: u32,
    /// Pieces verified and on disk.
    pub pieces_have: u32,
    /// Bytes in a piece; the last may be shorter.
    pub piece_length: u32,
    /// Number of files, without padding.
    pub files: u32,
    /// Whether peers come from its trackers only (BEP 27).
    pub private: bool,
    /// Payload received since it was added, over restarts.
    pub downloaded: u64,
    /// Payload sent since it was added, over restarts.
    pub uploaded: u64,
    /// Received bytes of pieces that failed their hash.
    pub corrupt: u64,
    /// Payload received, bytes a second over the last seconds.
    pub download_rate: u64,
    /// Payload sent, bytes a second over the last seconds.
    pub upload_rate: u64,
    /// Connected peers.
    pub peers: u32,
    /// Connected peers that hold everything.
    pub seeds: u32,
    /// Connected peers that gave us payload lately.
    pub peers_giving: u32,
    /// Connected peers to which we gave payload lately.
    pub peers_taking: u32,
    /// Seconds until everything wanted is there, at the current rate; `None` if that is not known.
    pub eta: Option<u64>,
    /// Sent divided by received bytes, or by the held bytes if nothing was received.
    pub ratio: f64,
    /// Progress of a check, a move, or the hashing of a new torrent, 0 to 1; 0 while there is none.
    pub check_progress: f64,
    /// Which part of its metadata is here, 0 to 1. Less than 1 only while no more than its magnet link is known.
    #[serde(default = "whole")]
    pub metadata_progress: f64,
    /// Whether it has stopped because it reached its ratio, time or idle limit.
    pub limit_reached: bool,
    /// Whether it should transfer, but has not for the configured time.
    pub stalled: bool,
    /// Its place in the queue, the first is 0. Torrents in front start first.
    pub queue_position: u32,
    /// When it was added.
    pub added_at: i64,
    /// When it was last started.
    pub started_at: Option<i64>,
    /// When its last wanted piece arrived. It may be set a moment after [`Torrent::state`] changes
    /// to seeding.
    pub done_at: Option<i64>,
    /// When payload was last transferred.
    pub active_at: Option<i64>,
    /// Seconds spent downloading, over restarts.
    pub seconds_downloading: u64,
    /// Seconds spent seeding, over restarts.
    pub seconds_seeding: u64,
    /// Its settings.
    pub settings: TorrentSettings,
}

fn whole() -> f64 {
    1.0
}

/// The state of a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its files are being checked.
    Checking,
    /// Wanted pieces are missing.
    Downloading,
    /// Everything wanted is there, and is served.
    Seeding,
    /// It waits for its turn to be checked.
    QueuedCheck,
    /// It waits for its turn to download.
    QueuedDownload,
    /// It waits for its turn to seed.
    QueuedSeed,
    /// Its data is being moved to another folder.
    Moving,
    /// Somebody paused it, or a limit did.
    Paused,
    /// It stopped on an error, which `error` describes.
    Failed,
    /// Its data is being hashed to make a torrent. Its info-hash is provisional until then.
    Hashing,
    /// It waits for its turn to be hashed.
    QueuedHash,
    /// Only its magnet link is known, and its metadata is fetched.
    Metadata,
}

impl State {
    /// All states.
    pub const ALL: [Self; 12] = [
        Self::Checking,
        Self::Downloading,
        Self::Seeding,
        Self::QueuedCheck,
        Self::QueuedDownload,
        Self::QueuedSeed,
        Self::Moving,
        Self::Paused,
        Self::Failed,
        Self::Hashing,
        Self::QueuedHash,
        Self::Metadata,
    ];

    /// Returns its name in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Downloading => "downloading",
            Self::Seeding => "seeding",
            Self::QueuedCheck => "queued-check",
            Self::QueuedDownload => "queued-download",
            Self::QueuedSeed => "queued-seed",
            Self::Moving => "moving",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Hashing => "hashing",
            Self::QueuedHash => "queued-hash",
            Self::Metadata => "metadata",
        }
    }
}

/// A torrent with everything that lists do not show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TorrentDetail {
    /// The fields that lists show.
    #[serde(flatten)]
    pub torrent: Torrent,
    /// The comment of its maker.
    pub comment: Option<String>,
    /// The program that made the torrent.
    pub created_by: Option<String>,
    /// When it was made, according to the torrent.
    pub created_at: Option<i64>,
    /// The path of its `.torrent` in the daemon's torrents folder; empty until it is hashed.
    pub torrent_file: PathBuf,
    /// Its magnet link: info-hash, name and trackers.
    #[serde(default)]
    pub magnet: String,
    /// Whole copies among connected peers and us. The fraction is the share of pieces of which
    /// there is one more.
    pub availability: f64,
    /// Its files in order, without padding.
    pub file_list: Vec<FileInfo>,
    /// Its trackers, in the order in which they are asked.
    pub trackers: Vec<TrackerInfo>,
    /// Why it is not faster.
    pub waiting: Waiting,
}

/// `GET /torrents/{info_hash}/sources`: what else its `.torrent` contains.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sources {
    /// Addresses of web seeds. They are not used.
    pub web_seeds: Vec<String>,
    /// Nodes of the DHT, `HOST:PORT`. They are not used.
    pub nodes: Vec<String>,
    /// The word that gives the same files another info-hash at some sites.
    pub source: Option<String>,
    /// Sentences on what was ignored or repaired, and on trackers that cannot be used.
    pub notices: Vec<String>,
}

/// What a download waits for. Time counts only while it downloads.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Waiting {
    /// Seconds spent on each cause since the daemon started.
    pub seconds: Causes,
    /// The share of each cause in the time counted in the last minute, 0 to 1.
    pub recent: Causes,
    /// The same as a sentence for people: what it waited for in the last minute, and what applies
    /// now. `None` if it does not download.
    pub sentence: Option<String>,
    /// Number of addresses whose peer accepts a connection and closes it at our handshake,
    /// whichever kind that the setting `encryption` allows.
    #[serde(default)]
    pub closed_at_handshake: u32,
}

/// A figure for each cause that a download may wait for. At each moment, the first cause that
/// applies counts, as docs/api.md defines them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Causes {
    /// Nobody is connected.
    pub no_peers: f64,
    /// All peers that have something for us choke us.
    pub choked: f64,
    /// No peer has anything left that we want.
    pub nothing_offered: f64,
    /// The allowed number of pending requests is too small for such a fast or long link.
    pub request_window: f64,
    /// Peers send as fast as they want.
    pub peer_upload: f64,
    /// A download limit of our own.
    pub rate_limit: f64,
    /// Pieces wait to be hashed.
    pub hash: f64,
    /// Pieces or blocks wait to be written.
    pub disk: f64,
    /// No known cause: data is being transferred.
    pub moving: f64,
}

/// A file of a torrent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its number among the visible files, from 0.
    pub index: u32,
    /// Its path below the torrent's folder, beginning with the torrent's name, separated by `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Bytes of it that are in held pieces.
    pub bytes_have: u64,
    /// Its priority.
    pub priority: Priority,
    /// The first piece that contains a part of it.
    pub first_piece: u32,
    /// One after the last piece that contains a part of it.
    pub end_piece: u32,
}

/// A tracker of a torrent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackerInfo {
    /// The peer's address.
    pub url: String,
    /// Its tier, from 0 (BEP 12).
    pub tier: u32,
    /// Its state.
    pub state: TrackerState,
    /// Why its last announce failed, or `None`.
    pub error: Option<String>,
    /// A note for people in its last answer.
    pub warning: Option<String>,
    /// When an announce last succeeded, seconds since 1970. `None` if none has since the torrent
    /// was added or the daemon started.
    pub announced_at: Option<i64>,
    /// When it will be asked again.
    pub next_announce_at: Option<i64>,
    /// Complete peers, from its last answer.
    pub seeds: Option<u32>,
    /// Incomplete peers, from its last answer.
    pub leechers: Option<u32>,
    /// Number of addresses in its last answer.
    pub peers: u32,
}

/// The state of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrackerState {
    /// Not asked yet.
    Idle,
    /// Asked, not answered yet.
    Announcing,
    /// Its last announce worked.
    Working,
    /// Its last announce failed.
    Failed,
    /// It was told that we left.
    Stopped,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// The address at which it accepts connections, or its end of this connection if that is not
    /// known.
    pub addr: SocketAddr,
    /// Client name and version.
    pub client: String,
    /// Whether it dialled us.
    pub incoming: bool,
    /// Where its address was heard of.
    #[serde(default)]
    pub source: PeerSource,
    /// `handshake` if only the handshake was encrypted, `rc4` if the whole connection is, absent if
    /// nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<PeerEncryption>,
    /// The number of pieces that it holds.
    pub pieces: u32,
    /// The share of the content that it holds, 0 to 1.
    pub progress: f64,
    /// Bytes a second from it.
    pub download_rate: u64,
    /// Bytes a second to it.
    pub upload_rate: u64,
    /// Payload that it gave us.
    pub downloaded: u64,
    /// Payload that we gave it.
    pub uploaded: u64,
    /// Whether we choke it.
    pub choked_by_us: bool,
    /// Whether it chokes us.
    pub choking_us: bool,
    /// Whether we want pieces that it has.
    pub we_are_interested: bool,
    /// Whether it wants pieces that we have.
    pub interested_in_us: bool,
    /// Number of blocks that it owes us.
    pub outstanding: u32,
}

/// Where the address of a peer was heard of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerSource {
    /// From a tracker.
    Tracker,
    /// From the DHT.
    Dht,
    /// From another peer.
    Exchange,
    /// From the peer itself, on the local network.
    Local,
    /// From a magnet link.
    Magnet,
    /// From a user.
    User,
    /// It dialled us.
    Incoming,
    /// The daemon is of another version, and says nothing or a word that is not known here.
    #[default]
    #[serde(other)]
    Unknown,
}

impl PeerSource {
    /// Returns the word for it in JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracker => "tracker",
            Self::Dht => "dht",
            Self::Exchange => "exchange",
            Self::Local => "local",
            Self::Magnet => "magnet",
            Self::User => "user",
            Self::Incoming => "incoming",
            Self::Unknown => "unknown",
        }
    }
}

/// The part of a connection that is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerEncryption {
    /// Only the handshake.
    Handshake,
    /// Everything.
    Rc4,
}

/// The pieces that are held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceMap {
    /// The number of all pieces.
    pub pieces: u32,
    /// The number of held pieces.
    pub pieces_have: u32,
    /// The bitfield as on the wire (BEP 3: the first piece is the highest bit of the first byte),
    /// in lower-case hexadecimal.
    pub have: String,
    /// For each piece the number of connected peers that hold it.
    pub availability: Vec<u32>,
}

/// A peer's contribution to a piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The entry's number in the journal; 0 for bans, and if there is no journal.
    pub id: i64,
    /// When the piece was verified or found wrong, RFC 3339.
    pub time: String,
    /// The piece's number, from 0.
    pub piece: u32,
    /// The giver's address.
    pub peer: SocketAddr,
    /// The giver's client.
    pub client: String,
    /// Blocks that it gave of this piece.
    pub blocks: u32,
    /// Bytes that it gave of this piece.
    pub bytes: u64,
    /// Milliseconds from the first request to the last of its blocks.
    pub took_ms: u64,
    /// `verified`, `failed`, or `banned`.
    pub verdict: String,
    /// The number of the wrong block in the piece, if the peer was banned for one.
    pub block: Option<u32>,
    /// The torrent's info-hash.
    pub info_hash: InfoHash,
    /// Its name.
    pub torrent: String,
}

/// The daemon as a whole: `GET /status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The version of the program.
    pub version: String,
    /// The time of this answer, seconds since 1970 by the daemon's clock: the value for the next
    /// `since`.
    #[serde(default)]
    pub time: i64,
    /// Seconds since it started.
    pub uptime: u64,
    /// Addresses to which peers can connect.
    pub listen: Vec<SocketAddr>,
    /// Payload received by all torrents, bytes a second.
    pub download_rate: u64,
    /// Payload sent by all torrents, bytes a second.
    pub upload_rate: u64,
    /// Numbers of torrents by state.
    pub counts: Counts,
    /// Payload received since this daemon started.
    pub downloaded: u64,
    /// Payload sent since this daemon started.
    pub uploaded: u64,
    /// Payload received over all its runs.
    pub downloaded_ever: u64,
    /// Payload sent over all its runs.
    pub uploaded_ever: u64,
    /// Seconds that it ran, over all its runs.
    pub seconds_ever: u64,
    /// Times it was started.
    pub starts: u64,
    /// Torrents added over all its runs.
    pub added_ever: u64,
    /// Sentences that users should know: a damaged database that was rebuilt, a disk that refuses
    /// writes.
    pub notices: Vec<String>,
    /// Removed torrents, if the request has `since`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Vec<InfoHash>>,
    /// The torrents, in the order of the queue.
    pub torrents: Vec<Torrent>,
}

/// Numbers of torrents by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// All torrents.
    pub all: u32,
    /// Torrents that download.
    pub downloading: u32,
    /// Torrents that seed.
    pub seeding: u32,
    /// Torrents that are checked, moved or hashed.
    pub checking: u32,
    /// Torrents that wait for their turn.
    pub queued: u32,
    /// Paused torrents.
    pub paused: u32,
    /// Torrents that stopped on an error.
    pub failed: u32,
    /// Torrents that transferred payload in the last seconds.
    pub active: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_stand_in_their_order_and_have_their_names() {
        for (place, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, place);
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
        }
    }
}
