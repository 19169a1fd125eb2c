//! What can be known of a torrent.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::TorrentSettings;
use piecework_core::{InfoHash, Priority};

/// One torrent of the daemon, as lists show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Torrent {
    /// Its identity.
    pub info_hash: InfoHash,
    /// A number that is its own as long as this daemon runs; the first is 1.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// What is wrong, a sentence to act on; `None` if nothing is. Set whenever `state` is
    /// [`State::Failed`], and for troubles that do not stop it (a tracker that does not answer).
    pub error: Option<String>,
    /// The folder its name lies in.
    pub folder: PathBuf,
    /// Bytes of content in all.
    pub bytes: u64,
    /// Bytes verified and on disk.
    pub bytes_have: u64,
    /// Bytes of the pieces that are wanted, held or not.
    pub bytes_wanted: u64,
    /// Bytes of wanted pieces that are held.
    pub bytes_wanted_have: u64,
    /// Pieces in all.
    pub pieces: u32,
    /// Pieces verified and on disk.
    pub pieces_have: u32,
    /// Bytes a piece; the last may be shorter.
    pub piece_length: u32,
    /// Number of files, padding not counted.
    pub files: u32,
    /// Peers come from its trackers alone (BEP 27).
    pub private: bool,
    /// Payload received since it was added, over restarts.
    pub downloaded: u64,
    /// Payload sent since it was added, over restarts.
    pub uploaded: u64,
    /// Of the received bytes those of pieces that failed their hash.
    pub corrupt: u64,
    /// Payload received, bytes a second over the last seconds.
    pub download_rate: u64,
    /// Payload sent, bytes a second over the last seconds.
    pub upload_rate: u64,
    /// Connected peers.
    pub peers: u32,
    /// Those of them that hold everything.
    pub seeds: u32,
    /// Those that gave us payload lately.
    pub peers_giving: u32,
    /// Those that we gave payload lately.
    pub peers_taking: u32,
    /// Seconds until all that is wanted is there, at the present rate; `None` if there is no telling.
    pub eta: Option<u64>,
    /// Sent divided by received, or by the size of what is held where nothing was received.
    pub ratio: f64,
    /// How much of a check, a move or the hashing of what is to be shared is done, 0 to 1; 0 while
    /// none goes on.
    pub check_progress: f64,
    /// It reached its ratio, time or idle limit and stopped for that.
    pub limit_reached: bool,
    /// It should move and has not for the configured time.
    pub stalled: bool,
    /// Its place among the torrents, the first is 0: those in front start first.
    pub queue_position: u32,
    /// When it was added.
    pub added_at: i64,
    /// When it was last started.
    pub started_at: Option<i64>,
    /// When its last wanted piece came. It may be known a moment after [`Torrent::state`] says
    /// that it seeds.
    pub done_at: Option<i64>,
    /// When payload last moved.
    pub active_at: Option<i64>,
    /// Seconds spent downloading, over restarts.
    pub seconds_downloading: u64,
    /// Seconds spent seeding, over restarts.
    pub seconds_seeding: u64,
    /// What was chosen for it.
    pub settings: TorrentSettings,
}

/// What a torrent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its disk is being looked at.
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
    /// It stopped on a fault; `error` says which.
    Failed,
    /// What is to be shared is being hashed. Its info-hash is provisional until that is done.
    Hashing,
    /// It waits for its turn to be hashed.
    QueuedHash,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 11] = [
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
    ];

    /// Its name in JSON.
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
        }
    }
}

/// One torrent with everything that is not in lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TorrentDetail {
    /// What lists show.
    #[serde(flatten)]
    pub torrent: Torrent,
    /// The maker's comment.
    pub comment: Option<String>,
    /// The program that made it.
    pub created_by: Option<String>,
    /// When it says it was made.
    pub created_at: Option<i64>,
    /// Its `.torrent` in the daemon's torrents folder; empty until it is hashed.
    pub torrent_file: PathBuf,
    /// Whole copies among connected peers and us; the fraction is the part of the pieces of which
    /// there is one more.
    pub availability: f64,
    /// Its files in order, padding left out.
    pub file_list: Vec<FileInfo>,
    /// Its trackers, in the order in which they are asked.
    pub trackers: Vec<TrackerInfo>,
    /// Why it is not faster.
    pub waiting: Waiting,
}

/// `GET /torrents/{info_hash}/sources`: what its `.torrent` says besides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sources {
    /// Addresses of web seeds, which are not used.
    pub web_seeds: Vec<String>,
    /// Nodes of the DHT, `HOST:PORT`, which are not used.
    pub nodes: Vec<String>,
    /// The word by which a site gives the same files an info-hash of their own.
    pub source: Option<String>,
    /// What was passed over or repaired when it was read, and which trackers cannot be asked: sentences.
    pub notices: Vec<String>,
}

/// What a download waits for. Time counts only while it downloads.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Waiting {
    /// Seconds spent on each cause since the daemon started.
    pub seconds: Causes,
    /// The share of each, 0 to 1, in what was counted of the last minute.
    pub recent: Causes,
    /// The same for people: what it waited for in the last minute, and what holds now; `None` if it
    /// does not download.
    pub sentence: Option<String>,
    /// Addresses whose peer accepts a connection and closes it at our handshake, of each kind that
    /// the setting `encryption` allows.
    #[serde(default)]
    pub closed_at_handshake: u32,
}

/// A figure for each thing that a download may wait for; at each moment the first that holds
/// counts, as docs/api.md defines them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Causes {
    /// Nobody is connected.
    pub no_peers: f64,
    /// All peers that have something for us choke us.
    pub choked: f64,
    /// No peer has, or has left, anything that we want.
    pub nothing_offered: f64,
    /// Too few requests may be under way for so fast or so long a line.
    pub request_window: f64,
    /// Peers send as fast as they will.
    pub peer_upload: f64,
    /// A download limit of our own.
    pub rate_limit: f64,
    /// Pieces wait to be hashed.
    pub hash: f64,
    /// Pieces or blocks wait to be written.
    pub disk: f64,
    /// Nothing that is known: data moves.
    pub moving: f64,
}

/// A file of a torrent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its number among the files shown, from 0.
    pub index: u32,
    /// Its path beneath the torrent's folder, the torrent's own name first, `/` between.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Bytes of it that are in held pieces.
    pub bytes_have: u64,
    /// How much it is wanted.
    pub priority: Priority,
    /// The first piece it touches.
    pub first_piece: u32,
    /// One behind the last piece it touches.
    pub end_piece: u32,
}

/// A tracker of a torrent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackerInfo {
    /// Its address.
    pub url: String,
    /// Its tier, from 0 (BEP 12).
    pub tier: u32,
    /// What it is doing.
    pub state: TrackerState,
    /// Why its last announce failed, if it did.
    pub error: Option<String>,
    /// A note for people in its last answer.
    pub warning: Option<String>,
    /// When it answered an announce last that it took, seconds since 1970; `None` if it has not since the
    /// torrent was added or the daemon was started.
    pub announced_at: Option<i64>,
    /// When it will be asked again.
    pub next_announce_at: Option<i64>,
    /// Complete peers by its last answer.
    pub seeds: Option<u32>,
    /// Incomplete peers by its last answer.
    pub leechers: Option<u32>,
    /// Addresses its last answer gave.
    pub peers: u32,
}

/// What a tracker is doing.
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
    /// Where it accepts connections, or its end of this one if that is not known.
    pub addr: SocketAddr,
    /// Client name and version.
    pub client: String,
    /// It dialled us.
    pub incoming: bool,
    /// `handshake` if only the handshake was encrypted, `rc4` if all is; absent if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<PeerEncryption>,
    /// Pieces it holds.
    pub pieces: u32,
    /// The part of the content it holds, 0 to 1.
    pub progress: f64,
    /// Bytes a second it gives us.
    pub download_rate: u64,
    /// Bytes a second we give it.
    pub upload_rate: u64,
    /// Payload it gave us.
    pub downloaded: u64,
    /// Payload we gave it.
    pub uploaded: u64,
    /// We do not serve it.
    pub choked_by_us: bool,
    /// It does not serve us.
    pub choking_us: bool,
    /// We want pieces it has.
    pub we_are_interested: bool,
    /// It wants pieces we have.
    pub interested_in_us: bool,
    /// Blocks it owes us.
    pub outstanding: u32,
}

/// How much of a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerEncryption {
    /// Only the handshake.
    Handshake,
    /// Everything.
    Rc4,
}

/// Which pieces are held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceMap {
    /// Pieces in all.
    pub pieces: u32,
    /// Pieces held.
    pub pieces_have: u32,
    /// The bitfield as on the wire (BEP 3: the first piece is the highest bit of the first byte),
    /// in lower-case hexadecimal.
    pub have: String,
    /// Connected peers that hold each piece.
    pub availability: Vec<u32>,
}

/// A peer's part in a piece: which piece is in whose hands, and who gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number in the journal; 0 for bans, and where no journal is kept.
    pub id: i64,
    /// When the piece was verified or found wrong, RFC 3339.
    pub time: String,
    /// Which piece, from 0.
    pub piece: u32,
    /// The giver's address.
    pub peer: SocketAddr,
    /// The giver's client.
    pub client: String,
    /// Blocks it gave of this piece.
    pub blocks: u32,
    /// Bytes it gave of this piece.
    pub bytes: u64,
    /// Milliseconds from the first request to the last of its blocks.
    pub took_ms: u64,
    /// `verified`, `failed`, or `banned`.
    pub verdict: String,
    /// The number of the wrong block in the piece, of those who are banned for one.
    pub block: Option<u32>,
    /// Of which torrent.
    pub info_hash: InfoHash,
    /// Its name.
    pub torrent: String,
}

/// The daemon as a whole: `GET /status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// Its program's version.
    pub version: String,
    /// When this was told, seconds since 1970 by the daemon's clock: what `since` is to be next.
    #[serde(default)]
    pub time: i64,
    /// Seconds since it started.
    pub uptime: u64,
    /// Where peers can connect.
    pub listen: Vec<SocketAddr>,
    /// Payload received by all torrents, bytes a second.
    pub download_rate: u64,
    /// Payload sent by all torrents, bytes a second.
    pub upload_rate: u64,
    /// How many torrents there are.
    pub counts: Counts,
    /// Payload received and sent since this daemon started.
    pub downloaded: u64,
    /// Payload sent since this daemon started.
    pub uploaded: u64,
    /// The same over all its runs.
    pub downloaded_ever: u64,
    /// Payload sent over all its runs.
    pub uploaded_ever: u64,
    /// Seconds it ran, over all its runs.
    pub seconds_ever: u64,
    /// Times it was started.
    pub starts: u64,
    /// Torrents added over all its runs.
    pub added_ever: u64,
    /// What people should know: a damaged database that was rebuilt, a disk that refuses.
    pub notices: Vec<String>,
    /// Those that went, if it was asked for what changed since some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Vec<InfoHash>>,
    /// The torrents, in the order of the queue.
    pub torrents: Vec<Torrent>,
}

/// Torrents by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// All.
    pub all: u32,
    /// That download.
    pub downloading: u32,
    /// That seed.
    pub seeding: u32,
    /// That are checked, moved or hashed.
    pub checking: u32,
    /// That wait for their turn.
    pub queued: u32,
    /// That are paused.
    pub paused: u32,
    /// That stopped on a fault.
    pub failed: u32,
    /// That moved payload in the last seconds.
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
