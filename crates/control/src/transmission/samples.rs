//! Torrents for tests.

use piecework_api::{
    Counts, FileInfo, Overview, PeerEncryption, PeerInfo, PeerSource, PieceMap, State, Torrent,
    TorrentDetail, TorrentSettings, TrackerInfo, TrackerState, Waiting,
};
use piecework_core::metainfo::MetainfoBuilder;
use piecework_core::{InfoHash, Priority};

/// A download of 10 pieces, of which the first two are held.
pub(super) fn torrent() -> Torrent {
    Torrent {
        info_hash: InfoHash([0xab; 20]),
        id: 1,
        name: "a b".to_owned(),
        state: State::Downloading,
        error: None,
        folder: "/downloads".into(),
        bytes: 159_744,
        bytes_have: 32_768,
        bytes_wanted: 159_744,
        bytes_wanted_have: 32_768,
        pieces: 10,
        pieces_have: 2,
        piece_length: 16_384,
        files: 2,
        private: false,
        downloaded: 40_000,
        uploaded: 20_000,
        corrupt: 16_384,
        download_rate: 1_000,
        upload_rate: 500,
        peers: 2,
        seeds: 1,
        peers_giving: 1,
        peers_taking: 1,
        eta: Some(127),
        ratio: 0.5,
        check_progress: 0.0,
        metadata_progress: 1.0,
        limit_reached: false,
        stalled: false,
        queue_position: 0,
        added_at: 1_700_000_000,
        started_at: Some(1_700_000_001),
        done_at: None,
        active_at: Some(1_700_000_100),
        seconds_downloading: 99,
        seconds_seeding: 0,
        settings: TorrentSettings::default(),
    }
}

/// The same with two files, the first of four pieces and a half.
pub(crate) fn detail() -> TorrentDetail {
    let file = |index, path: &str, bytes, bytes_have, first_piece, end_piece| FileInfo {
        index,
        path: path.to_owned(),
        bytes,
        bytes_have,
        priority: Priority::Normal,
        first_piece,
        end_piece,
    };
    TorrentDetail {
        torrent: torrent(),
        comment: Some("no comment".to_owned()),
        created_by: None,
        created_at: Some(1_600_000_000),
        torrent_file: "/torrents/a b.torrent".into(),
        magnet: String::new(),
        availability: 1.5,
        file_list: vec![
            file(0, "a b/one.mkv", 73_728, 32_768, 0, 5),
            file(1, "a b/two.txt", 86_016, 0, 4, 10),
        ],
        trackers: vec![TrackerInfo {
            url: "http://tracker.example.org:6969/announce".to_owned(),
            tier: 0,
            state: TrackerState::Working,
            error: None,
            warning: None,
            announced_at: Some(1_700_000_050),
            next_announce_at: Some(1_700_001_850),
            seeds: Some(1),
            leechers: Some(2),
            peers: 3,
        }],
        waiting: Waiting::default(),
    }
}

/// A peer that gives, and one that came and takes.
pub(super) fn peers() -> Vec<PeerInfo> {
    let peer = |addr: &str, incoming| PeerInfo {
        addr: addr.parse().unwrap(),
        client: "Other 1.0".to_owned(),
        incoming,
        source: if incoming { PeerSource::Incoming } else { PeerSource::Exchange },
        encryption: incoming.then_some(PeerEncryption::Rc4),
        pieces: 10,
        progress: 1.0,
        download_rate: if incoming { 0 } else { 1_000 },
        upload_rate: if incoming { 500 } else { 0 },
        downloaded: 40_000,
        uploaded: 20_000,
        choked_by_us: !incoming,
        choking_us: incoming,
        we_are_interested: !incoming,
        interested_in_us: incoming,
        outstanding: 0,
    };
    vec![peer("10.0.0.1:6881", false), peer("[::ffff:10.0.0.2]:50000", true)]
}

/// Of the ten pieces we hold the first two, and a peer all but the last.
pub(super) fn pieces() -> PieceMap {
    let availability = vec![1, 1, 1, 1, 1, 1, 1, 1, 1, 0];
    PieceMap { pieces: 10, pieces_have: 2, have: "c000".to_owned(), availability }
}

/// A daemon without torrents.
pub(super) fn overview() -> Overview {
    Overview {
        version: "0".to_owned(),
        time: 0,
        uptime: 0,
        listen: Vec::new(),
        download_rate: 0,
        upload_rate: 0,
        counts: Counts::default(),
        downloaded: 0,
        uploaded: 0,
        downloaded_ever: 0,
        uploaded_ever: 0,
        seconds_ever: 0,
        starts: 1,
        added_ever: 0,
        notices: Vec::new(),
        removed: None,
        torrents: Vec::new(),
    }
}

/// The bytes of a `.torrent`.
pub(super) fn torrent_file() -> Vec<u8> {
    let builder = MetainfoBuilder::single_file("sample".to_owned(), 100);
    builder.build(vec![7; 20]).unwrap().bytes().unwrap().as_ref().to_vec()
}
