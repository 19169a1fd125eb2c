//! The fields of a torrent: from what the daemon tells to what Transmission tells.

use piecework_core::SaturatingFrom;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::limits::{self, IDLE, RATIO};
use super::memory::TorrentMemory;
use super::trackers;
use piecework_api::{
    FileInfo, PeerEncryption, PeerInfo, PeerSource, PieceMap, Settings, State, Torrent,
    TorrentDetail,
};
use piecework_core::{Priority, base64};

/// A field that can be asked for.
pub(super) struct Field {
    pub(super) name: &'static str,
    read: Read,
}

/// What a field is read from, and how.
enum Read {
    List(fn(&Seen) -> Value),
    Detail(fn(&Seen, &TorrentDetail) -> Value),
    Peers(fn(&[PeerInfo]) -> Value),
    Pieces(fn(&PieceMap) -> Value),
    /// A list with an element for each file.
    EachFile(fn(&Seen, &FileInfo) -> Value),
    /// All files together.
    Files(fn(Files) -> Value),
    FilesAndPieces(fn(&Torrent, Files, &PieceMap) -> Value),
    /// A list with an element for each piece, which we hold or not.
    EachPiece(fn(bool, u32) -> Value),
}

/// The files of a torrent, one by one.
pub(super) type Files<'a> = Box<dyn Iterator<Item = FileInfo> + Send + 'a>;

/// The elements of a long list, one by one.
pub(super) type Elements<'a> = Box<dyn Iterator<Item = Value> + Send + 'a>;

/// What fields are read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) detail: bool,
    pub(super) files: bool,
    pub(super) peers: bool,
    pub(super) pieces: bool,
}

/// What every field may look at.
pub(super) struct Seen<'a> {
    pub(super) torrent: &'a Torrent,
    pub(super) session: &'a Settings,
    pub(super) memory: &'a TorrentMemory,
    /// Seconds since 1970.
    pub(super) now: i64,
}

/// A torrent with all that was fetched for the fields.
pub(super) struct View<'a> {
    pub(super) seen: Seen<'a>,
    /// Without its files.
    pub(super) detail: Option<&'a TorrentDetail>,
    pub(super) files: Option<&'a (dyn Fn() -> Files<'a> + Sync)>,
    pub(super) peers: Option<&'a [PeerInfo]>,
    pub(super) pieces: Option<&'a PieceMap>,
}

impl Field {
    /// The field of this name, in today's spelling.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.name == name)
    }

    /// The field's value; `null` if what it is read from was not fetched.
    pub(super) fn value(&self, view: &View) -> Value {
        let value = match self.read {
            Read::List(read) => Some(read(&view.seen)),
            Read::Detail(read) => view.detail.map(|detail| read(&view.seen, detail)),
            Read::Peers(read) => view.peers.map(read),
            Read::Pieces(read) => view.pieces.map(read),
            Read::EachFile(_) | Read::EachPiece(_) => self.elements(view).map(Iterator::collect),
            Read::Files(read) => view.files.map(|files| read(files())),
            Read::FilesAndPieces(read) => {
                let both = view.files.zip(view.pieces);
                both.map(|(files, pieces)| read(view.seen.torrent, files(), pieces))
            }
        };
        value.unwrap_or(Value::Null)
    }

    /// The elements of the field's value, if that is a list as long as the torrent has files or
    /// pieces, and what it is read from was fetched.
    pub(super) fn elements<'b, 'a: 'b>(&self, view: &'b View<'a>) -> Option<Elements<'b>> {
        match self.read {
            Read::EachFile(read) => {
                let files = view.files?();
                Some(Box::new(files.map(move |file| read(&view.seen, &file))))
            }
            Read::EachPiece(read) => {
                let map = view.pieces?;
                let have = bitfield(map);
                let pieces = (0..map.pieces).zip(&map.availability);
                Some(Box::new(pieces.map(move |(piece, peers)| read(is_set(&have, piece), *peers))))
            }
            _ => None,
        }
    }
}

impl Needs {
    /// What all of `fields` together are read from.
    pub(super) fn of(fields: &[&Field]) -> Self {
        let mut needs = Self::default();
        for field in fields {
            match field.read {
                Read::List(_) => {}
                Read::Detail(_) => needs.detail = true,
                Read::Peers(_) => needs.peers = true,
                Read::Pieces(_) | Read::EachPiece(_) => needs.pieces = true,
                Read::EachFile(_) | Read::Files(_) => needs.files = true,
                Read::FilesAndPieces(_) => (needs.files, needs.pieces) = (true, true),
            }
        }
        needs
    }
}

const fn list(name: &'static str, read: fn(&Seen) -> Value) -> Field {
    Field { name, read: Read::List(read) }
}

const fn detail(name: &'static str, read: fn(&Seen, &TorrentDetail) -> Value) -> Field {
    Field { name, read: Read::Detail(read) }
}

const fn each_file(name: &'static str, read: fn(&Seen, &FileInfo) -> Value) -> Field {
    Field { name, read: Read::EachFile(read) }
}

const fn peers(name: &'static str, read: fn(&[PeerInfo]) -> Value) -> Field {
    Field { name, read: Read::Peers(read) }
}

/// Every field there is, in the specification's order.
pub(super) static FIELDS: &[Field] = &[
    list("activity_date", |seen| json!(seen.torrent.active_at.unwrap_or(0))),
    list("added_date", |seen| json!(seen.torrent.added_at)),
    // Peers that hold each piece; -1 for those we hold.
    Field {
        name: "availability",
        read: Read::EachPiece(|held, peers| if held { json!(-1) } else { json!(peers) }),
    },
    list("bandwidth_priority", |seen| priority(seen.torrent.settings.bandwidth)),
    each_file("bytes_completed", |_, file| json!(file.bytes_have)),
    detail("comment", |_, detail| json!(detail.comment.as_deref().unwrap_or_default())),
    list("corrupt_ever", |seen| json!(seen.torrent.corrupt)),
    detail("creator", |_, detail| json!(detail.created_by.as_deref().unwrap_or_default())),
    detail("date_created", |_, detail| json!(detail.created_at.unwrap_or(0))),
    Field { name: "desired_available", read: Read::FilesAndPieces(desired_available) },
    list("done_date", |seen| json!(seen.torrent.done_at.unwrap_or(0))),
    list("download_dir", |seen| path(&seen.torrent.folder)),
    list("downloaded_ever", |seen| json!(seen.torrent.downloaded)),
    list("download_limit", |seen| {
        json!(limits::rate(
            seen.torrent.settings.download_limit,
            &seen.memory.figures,
            "download_limit"
        ))
    }),
    list("download_limited", |seen| json!(seen.torrent.settings.download_limit.is_some())),
    // When a torrent was last edited is not kept.
    list("edit_date", |_| json!(0)),
    list("error", |seen| json!(error(seen.torrent))),
    list("error_string", |seen| json!(seen.torrent.error.as_deref().unwrap_or_default())),
    list("eta", |seen| json!(eta(seen.torrent, seen.session))),
    list("eta_idle", |seen| json!(eta_idle(seen))),
    list("file_count", |seen| json!(seen.torrent.files)),
    each_file("files", |_, file| {
        json!({
            "begin_piece": file.first_piece, "bytes_completed": file.bytes_have,
            "end_piece": file.end_piece, "length": file.bytes, "name": file.path,
        })
    }),
    each_file("file_stats", |seen, file| {
        json!({
            "bytes_completed": file.bytes_have, "wanted": file.priority.is_wanted(),
            "priority": file_priority(seen, file.index, file.priority),
        })
    }),
    list("group", |seen| json!(seen.torrent.settings.group.as_deref().unwrap_or_default())),
    list("hash_string", |seen| json!(seen.torrent.info_hash.to_string())),
    // A piece is held once it is verified, and not before.
    list("have_unchecked", |_| json!(0)),
    list("have_valid", |seen| json!(seen.torrent.bytes_have)),
    list("honors_session_limits", |seen| json!(seen.torrent.settings.session_limits)),
    list("id", |seen| json!(seen.torrent.id)),
    list("is_finished", |seen| json!(seen.torrent.limit_reached)),
    list("is_private", |seen| json!(seen.torrent.private)),
    list("is_stalled", |seen| json!(seen.torrent.stalled)),
    list("labels", |seen| json!(seen.torrent.settings.labels)),
    list("left_until_done", |seen| json!(left(seen.torrent))),
    detail("magnet_link", |_, detail| json!(trackers::magnet(detail))),
    // It never worked, says the specification.
    list("manual_announce_time", |_| json!(-1)),
    list("max_connected_peers", max_peers),
    // A torrent is added with all its metadata.
    list("metadata_percent_complete", |seen| json!(seen.torrent.metadata_progress)),
    list("name", |seen| json!(seen.torrent.name)),
    list("peer_limit", max_peers),
    peers("peers", |peers| peers.iter().map(peer).collect()),
    list("peers_connected", |seen| json!(seen.torrent.peers)),
    peers("peers_from", peers_from),
    list("peers_getting_from_us", |seen| json!(seen.torrent.peers_taking)),
    list("peers_sending_to_us", |seen| json!(seen.torrent.peers_giving)),
    list("percent_complete", |seen| json!(part(seen.torrent.bytes_have, seen.torrent.bytes))),
    list("percent_done", |seen| {
        json!(part(seen.torrent.bytes_wanted_have, seen.torrent.bytes_wanted))
    }),
    Field { name: "pieces", read: Read::Pieces(pieces) },
    list("piece_count", |seen| json!(seen.torrent.pieces)),
    list("piece_size", |seen| json!(seen.torrent.piece_length)),
    each_file("priorities", |seen, file| file_priority(seen, file.index, file.priority)),
    Field { name: "primary_mime_type", read: Read::Files(|files| json!(mime_type(files))) },
    list("queue_position", |seen| json!(seen.torrent.queue_position)),
    list("rate_download", |seen| json!(seen.torrent.download_rate)),
    list("rate_upload", |seen| json!(seen.torrent.upload_rate)),
    list("recheck_progress", |seen| json!(seen.torrent.check_progress)),
    list("seconds_downloading", |seen| json!(seen.torrent.seconds_downloading)),
    list("seconds_seeding", |seen| json!(seen.torrent.seconds_seeding)),
    list("seed_idle_limit", |seen| {
        json!(IDLE.figure(&seen.torrent.settings.seed_idle, &seen.memory.figures))
    }),
    list("seed_idle_mode", |seen| json!(limits::mode(&seen.torrent.settings.seed_idle))),
    list("seed_ratio_limit", |seen| {
        json!(RATIO.figure(&seen.torrent.settings.seed_ratio, &seen.memory.figures))
    }),
    list("seed_ratio_mode", |seen| json!(limits::mode(&seen.torrent.settings.seed_ratio))),
    list("sequential_download", |seen| json!(seen.torrent.settings.sequential)),
    // In order means from the first piece.
    list("sequential_download_from_piece", |_| json!(0)),
    list("size_when_done", |seen| json!(seen.torrent.bytes_wanted)),
    list("start_date", |seen| json!(seen.torrent.started_at.unwrap_or(0))),
    list("status", |seen| json!(status(seen.torrent.state))),
    detail("torrent_file", |_, detail| path(&detail.torrent_file)),
    list("total_size", |seen| json!(seen.torrent.bytes)),
    detail("trackers", |_, detail| trackers::list(&detail.trackers)),
    detail("tracker_list", |_, detail| json!(trackers::text(&detail.trackers))),
    detail("tracker_stats", |_, detail| trackers::stats(&detail.trackers)),
    list("uploaded_ever", |seen| json!(seen.torrent.uploaded)),
    list("upload_limit", |seen| {
        json!(limits::rate(
            seen.torrent.settings.upload_limit,
            &seen.memory.figures,
            "upload_limit"
        ))
    }),
    list("upload_limited", |seen| json!(seen.torrent.settings.upload_limit.is_some())),
    list("upload_ratio", |seen| json!(seen.torrent.ratio)),
    each_file("wanted", |_, file| json!(file.priority.is_wanted())),
    // Content comes from peers alone.
    list("webseeds", |_| json!([])),
    list("webseeds_ex", |_| json!([])),
    list("webseeds_sending_to_us", |_| json!(0)),
];

fn path(path: &Path) -> Value {
    json!(path.to_string_lossy())
}

/// A part of a whole, 0 to 1; of nothing everything is there.
fn part(have: u64, all: u64) -> f64 {
    if all == 0 { 1.0 } else { have as f64 / all as f64 }
}

fn left(torrent: &Torrent) -> u64 {
    torrent.bytes_wanted.saturating_sub(torrent.bytes_wanted_have)
}

/// 0: stopped, 1 and 2: checked, 3 and 4: downloads, 5 and 6: seeds; the odd ones wait.
pub(super) fn status(state: State) -> u8 {
    match state {
        State::Paused | State::Failed => 0,
        State::QueuedCheck | State::QueuedHash => 1,
        // There is no number for data on its way to another folder. Like a check it must not be
        // touched meanwhile.
        State::Checking | State::Moving | State::Hashing => 2,
        State::QueuedDownload => 3,
        // As in Transmission, a magnet link downloads.
        State::Downloading | State::Metadata => 4,
        State::QueuedSeed => 5,
        State::Seeding => 6,
    }
}

/// 0: nothing, 2: a tracker's trouble, 3: our own.
fn error(torrent: &Torrent) -> u8 {
    match (torrent.state, &torrent.error) {
        (State::Failed, _) => 3,
        (_, Some(_)) => 2,
        (_, None) => 0,
    }
}

/// Seconds until it is done, or has its ratio; -1: it is neither on its way, -2: there is no telling.
fn eta(torrent: &Torrent, session: &Settings) -> i64 {
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    match torrent.state {
        State::Downloading => torrent.eta.map_or(-2, seconds),
        State::Seeding => {
            let Some(limit) = torrent.settings.seed_ratio.or_session(session.seed_ratio) else {
                return -1;
            };
            // What the ratio is counted against, as `Torrent::ratio` says.
            let base = if torrent.downloaded > 0 { torrent.downloaded } else { torrent.bytes_have };
            // From the float to the integer the cast saturates.
            let target = u64::saturating_from((limit * base as f64).ceil());
            match target.saturating_sub(torrent.uploaded) {
                0 => 0,
                _ if torrent.upload_rate == 0 => -2,
                missing => seconds(missing / torrent.upload_rate),
            }
        }
        _ => -1,
    }
}

/// Seconds until it is stopped for being idle; -1: it is not idle, or may be.
fn eta_idle(seen: &Seen) -> i64 {
    let Torrent { state, upload_rate, settings, .. } = seen.torrent;
    let limit = settings.seed_idle.or_session(seen.session.seed_idle);
    let since = seen.torrent.active_at.max(seen.torrent.started_at);
    match (limit, since) {
        (Some(limit), Some(since)) if *state == State::Seeding && *upload_rate == 0 => {
            let idle = seen.now.saturating_sub(since).max(0);
            i64::try_from(limit).unwrap_or(i64::MAX).saturating_sub(idle).max(0)
        }
        _ => -1,
    }
}

/// -1: low, 0: normal, 1: high.
fn priority(priority: Priority) -> Value {
    json!(match priority {
        Priority::Low => -1,
        Priority::Normal | Priority::Skip => 0,
        Priority::High => 1,
    })
}

/// A file's priority, which it keeps here while it is not wanted.
fn file_priority(seen: &Seen, index: u32, is: Priority) -> Value {
    let kept = seen.memory.priorities.get(&index).copied();
    priority(if is.is_wanted() { is } else { kept.unwrap_or_default() })
}

fn max_peers(seen: &Seen) -> Value {
    json!(seen.torrent.settings.max_peers.unwrap_or(seen.session.max_peers_per_torrent))
}

fn peer(peer: &PeerInfo) -> Value {
    let giving = !peer.choking_us && peer.we_are_interested;
    let taking = !peer.choked_by_us && peer.interested_in_us;
    let mut flags = String::new();
    // Capitals: it happens. Small: it is wanted and not granted. `I`: it came to us.
    flags.push_str(match (peer.download_rate > 0, peer.we_are_interested, giving) {
        (true, _, _) | (_, _, true) => "D",
        (_, true, _) => "d",
        _ => "",
    });
    flags.push_str(match (peer.upload_rate > 0, peer.interested_in_us, taking) {
        (true, _, _) | (_, _, true) => "U",
        (_, true, _) => "u",
        _ => "",
    });
    if !peer.choking_us && !peer.we_are_interested {
        flags.push('K');
    }
    if !peer.choked_by_us && !peer.interested_in_us {
        flags.push('?');
    }
    if peer.encryption == Some(PeerEncryption::Rc4) {
        flags.push('E');
    }
    if peer.incoming {
        flags.push('I');
    }
    json!({
        "address": peer.addr.ip().to_canonical().to_string(),
        "bytes_to_client": peer.downloaded,
        "bytes_to_peer": peer.uploaded,
        "client_is_choked": peer.choking_us,
        "client_is_interested": peer.we_are_interested,
        "client_name": peer.client,
        "flag_str": flags,
        "is_downloading_from": peer.download_rate > 0,
        // As in Transmission: the whole connection.
        "is_encrypted": peer.encryption == Some(PeerEncryption::Rc4),
        "is_incoming": peer.incoming,
        "is_uploading_to": peer.upload_rate > 0,
        "is_utp": false,
        // Its twenty bytes are not kept once its client is known by them.
        "peer_id": "",
        "peer_is_choked": peer.choked_by_us,
        "peer_is_interested": peer.interested_in_us,
        "port": peer.addr.port(),
        "progress": peer.progress,
        "rate_to_client": peer.download_rate,
        "rate_to_peer": peer.upload_rate,
    })
}

/// Peers that came to us, and those we dialled, whose addresses trackers (or people) gave.
fn peers_from(peers: &[PeerInfo]) -> Value {
    let from = |source| peers.iter().filter(|peer| peer.source == source).count();
    let named = from(PeerSource::Magnet) + from(PeerSource::User);
    json!({
        // What a user has named is kept.
        "from_cache": named,
        "from_dht": from(PeerSource::Dht),
        "from_incoming": from(PeerSource::Incoming),
        "from_lpd": from(PeerSource::Local),
        // Peers tell their own port in the handshake, and no other address.
        "from_ltep": 0,
        "from_pex": from(PeerSource::Exchange),
        "from_tracker": from(PeerSource::Tracker) + from(PeerSource::Unknown),
    })
}

/// The bytes of a bitfield that is written in hexadecimal.
fn bitfield(map: &PieceMap) -> Vec<u8> {
    let digits = map.have.as_bytes().chunks_exact(2);
    let digit = |byte: u8| u8::saturating_from(char::from(byte).to_digit(16).unwrap_or(0));
    digits.map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn is_set(bitfield: &[u8], piece: u32) -> bool {
    bitfield.get((piece / 8) as usize).is_some_and(|byte| byte & (0x80 >> (piece % 8)) != 0)
}

fn pieces(map: &PieceMap) -> Value {
    json!(base64::encode(&bitfield(map)))
}

/// Bytes of pieces we want, lack, and could get from the peers that are connected.
fn desired_available(torrent: &Torrent, files: Files, map: &PieceMap) -> Value {
    let have = bitfield(map);
    let length = u64::from(torrent.piece_length);
    let mut bytes = 0;
    // The first piece that no file has counted yet: neighbours share pieces.
    let mut uncounted = 0;
    for file in files.filter(|file| file.priority.is_wanted()) {
        for piece in file.first_piece.max(uncounted)..file.end_piece.min(map.pieces) {
            let offered = map.availability.get(piece as usize).is_some_and(|peers| *peers > 0);
            if offered && !is_set(&have, piece) {
                let start = u64::from(piece) * length;
                bytes += length.min(torrent.bytes.saturating_sub(start));
            }
        }
        uncounted = uncounted.max(file.end_piece);
    }
    json!(bytes)
}

/// The type of which there are most bytes, by the names' endings.
fn mime_type(files: Files) -> &'static str {
    let mut types = Map::new();
    for file in files {
        let ending = file.path.rsplit_once('.').map_or("", |(_, ending)| ending);
        let known = MIME_TYPES.iter().find(|(endings, _)| {
            endings.split(' ').any(|known| known.eq_ignore_ascii_case(ending))
        });
        let name = known.map_or(ANY_TYPE, |(_, name)| name);
        let sum = types.get(name).and_then(Value::as_u64).unwrap_or(0);
        types.insert(name.to_owned(), json!(sum.saturating_add(file.bytes)));
    }
    let most = types.iter().max_by_key(|(_, bytes)| bytes.as_u64());
    let most = most.map_or(ANY_TYPE, |(name, _)| name.as_str());
    MIME_TYPES.iter().find(|(_, name)| *name == most).map_or(ANY_TYPE, |(_, name)| name)
}

const ANY_TYPE: &str = "application/octet-stream";

/// Endings of names, and what such files are (IANA's registry): what people share most.
const MIME_TYPES: &[(&str, &str)] = &[
    ("mkv", "video/x-matroska"),
    ("mp4 m4v", "video/mp4"),
    ("avi", "video/x-msvideo"),
    ("mov", "video/quicktime"),
    ("webm", "video/webm"),
    ("mpg mpeg", "video/mpeg"),
    ("ts m2ts", "video/mp2t"),
    ("mp3", "audio/mpeg"),
    ("flac", "audio/flac"),
    ("ogg opus", "audio/ogg"),
    ("m4a", "audio/mp4"),
    ("wav", "audio/x-wav"),
    ("jpg jpeg", "image/jpeg"),
    ("png", "image/png"),
    ("gif", "image/gif"),
    ("svg", "image/svg+xml"),
    ("pdf", "application/pdf"),
    ("epub", "application/epub+zip"),
    ("txt nfo md log", "text/plain"),
    ("html htm", "text/html"),
    ("csv", "text/csv"),
    ("json", "application/json"),
    ("xml", "application/xml"),
    ("srt", "application/x-subrip"),
    ("iso", "application/x-iso9660-image"),
    ("zip", "application/zip"),
    ("gz tgz", "application/gzip"),
    ("xz", "application/x-xz"),
    ("bz2", "application/x-bzip2"),
    ("zst", "application/zstd"),
    ("7z", "application/x-7z-compressed"),
    ("rar", "application/vnd.rar"),
    ("tar", "application/x-tar"),
    ("deb", "application/vnd.debian.binary-package"),
    ("rpm", "application/x-rpm"),
    ("apk", "application/vnd.android.package-archive"),
    ("exe", "application/x-msdownload"),
];

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    /// A field of the sample after `change`.
    fn told(name: &str, change: impl FnOnce(&mut TorrentDetail)) -> Value {
        let mut sample = samples::detail();
        change(&mut sample);
        let (peers, pieces) = (samples::peers(), samples::pieces());
        let view = View {
            seen: Seen {
                torrent: &sample.torrent,
                session: &Settings::default(),
                memory: &TorrentMemory::default(),
                now: 1_700_000_400,
            },
            detail: Some(&sample),
            files: Some(&|| Box::new(sample.file_list.iter().cloned())),
            peers: Some(&peers),
            pieces: Some(&pieces),
        };
        Field::named(name).unwrap().value(&view)
    }

    fn plain(name: &str) -> Value {
        told(name, |_| {})
    }

    #[test]
    fn names_are_told_once() {
        for (index, field) in FIELDS.iter().enumerate() {
            assert!(
                !FIELDS[..index].iter().any(|other| other.name == field.name),
                "{}",
                field.name
            );
            assert!(!plain(field.name).is_null(), "{}", field.name);
        }
    }

    #[test]
    fn what_is_done_and_what_is_left_is_told() {
        assert_eq!(plain("left_until_done"), 126_976);
        assert_eq!(plain("size_when_done"), 159_744);
        assert_eq!(plain("percent_done"), json!(32_768.0 / 159_744.0));
        assert_eq!(told("percent_done", |sample| sample.torrent.bytes_wanted = 0), json!(1.0));
        assert_eq!(plain("have_valid"), 32_768);
        assert_eq!(plain("done_date"), 0);
        assert_eq!(plain("eta"), 127);
        assert_eq!(told("eta", |sample| sample.torrent.eta = None), -2);
        assert_eq!(told("eta", |sample| sample.torrent.state = State::Paused), -1);
    }

    #[test]
    fn a_seeds_eta_is_that_of_its_ratio() {
        let seeding = |limit, rate| {
            told("eta", |sample| {
                sample.torrent.state = State::Seeding;
                sample.torrent.upload_rate = rate;
                sample.torrent.settings.seed_ratio = limit;
            })
        };
        use piecework_api::SeedLimit::{At, Session};
        assert_eq!(seeding(Session, 500), -1);
        assert_eq!(seeding(At(2.0), 500), 120);
        assert_eq!(seeding(At(2.0), 0), -2);
        assert_eq!(seeding(At(0.1), 0), 0);
        let idle = told("eta_idle", |sample| {
            sample.torrent.state = State::Seeding;
            sample.torrent.upload_rate = 0;
            sample.torrent.settings.seed_idle = At(1_000);
        });
        assert_eq!(idle, 700);
        assert_eq!(plain("eta_idle"), -1);
    }

    #[test]
    fn states_and_errors_have_their_numbers() {
        let with = |name, state, error: Option<&str>| {
            told(name, |sample| {
                sample.torrent.state = state;
                sample.torrent.error = error.map(str::to_owned);
            })
        };
        assert_eq!(with("status", State::Downloading, None), 4);
        assert_eq!(with("status", State::Failed, Some("x")), 0);
        assert_eq!(with("error", State::Failed, Some("x")), 3);
        assert_eq!(with("error", State::Seeding, Some("x")), 2);
        assert_eq!(with("error", State::Seeding, None), 0);
        assert_eq!(with("error_string", State::Seeding, Some("x")), "x");
    }

    #[test]
    fn pieces_and_who_has_them_are_told() {
        assert_eq!(plain("pieces"), "wAA=");
        assert_eq!(plain("availability"), json!([-1, -1, 1, 1, 1, 1, 1, 1, 1, 0]));
        // Seven whole pieces: the last, which is shorter, nobody has.
        assert_eq!(plain("desired_available"), 7 * 16_384);
        let half = |sample: &mut TorrentDetail| sample.file_list[1].priority = Priority::Skip;
        assert_eq!(told("desired_available", half), 3 * 16_384);
    }

    #[test]
    fn files_are_told_with_what_is_wanted_of_them() {
        let skip = |sample: &mut TorrentDetail| {
            sample.file_list[0].priority = Priority::Skip;
            sample.file_list[1].priority = Priority::High;
        };
        assert_eq!(told("wanted", skip), json!([false, true]));
        assert_eq!(told("priorities", skip), json!([0, 1]));
        assert_eq!(
            told("file_stats", skip)[1],
            json!({"bytes_completed": 0, "wanted": true, "priority": 1})
        );
        assert_eq!(
            plain("files")[0],
            json!({"begin_piece": 0, "bytes_completed": 32_768, "end_piece": 5,
                   "length": 73_728, "name": "a b/one.mkv"})
        );
        assert_eq!(plain("bytes_completed"), json!([32_768, 0]));
    }

    #[test]
    fn peers_are_told_with_their_flags() {
        let peers = plain("peers");
        assert_eq!((&peers[0]["flag_str"], &peers[1]["flag_str"]), (&json!("D"), &json!("UEI")));
        let encrypted = [0, 1].map(|at| peers[at]["is_encrypted"].clone());
        assert_eq!(encrypted, [json!(false), json!(true)]);
        assert_eq!((&peers[1]["address"], &peers[1]["port"]), (&json!("10.0.0.2"), &json!(50_000)));
        assert_eq!(plain("peers_from")["from_incoming"], 1);
        assert_eq!(plain("peers_from")["from_pex"], 1);
        assert_eq!(plain("peers_from")["from_tracker"], 0);
    }

    #[test]
    fn the_type_is_that_of_most_bytes() {
        assert_eq!(plain("primary_mime_type"), "text/plain");
        let movie = |sample: &mut TorrentDetail| sample.file_list[0].bytes = 1_000_000;
        assert_eq!(told("primary_mime_type", movie), "video/x-matroska");
        let none = |sample: &mut TorrentDetail| sample.file_list = Vec::<FileInfo>::new();
        assert_eq!(told("primary_mime_type", none), ANY_TYPE);
    }

    #[test]
    fn a_magnet_link_is_escaped() {
        let link = plain("magnet_link");
        assert_eq!(
            link.as_str().unwrap(),
            format!(
                "magnet:?xt=urn:btih:{}&dn=a%20b&tr=http%3A%2F%2Ftracker.example.org%3A6969%2Fannounce",
                "ab".repeat(20)
            )
        );
    }
}
