//! Explains why a download is not faster, for users and programs.

use piecework_api::{Causes, Torrent, TorrentDetail, TrackerState, Waiting};
use piecework_core::figures::{count, counted, size};
use piecework_engine::Waited;
use piecework_proto::encryption::EncryptionPolicy;
use piecework_swarm::{Bottleneck, Cause, hang_ups};

/// The daemon's settings that explain why a download waits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    /// The download limit for all torrents, in bytes a second.
    pub download_limit: Option<u64>,
    /// Which handshakes peers are tried with.
    pub encryption: EncryptionPolicy,
}

/// Returns what `waited` says about the torrent that `detail` shows.
pub(super) fn of(waited: &Waited, detail: &TorrentDetail, rules: Rules) -> Waiting {
    let seconds = waited.time.map(|time| time.as_millis() as f64 / 1e3);
    Waiting {
        seconds: causes(&seconds),
        recent: causes(&waited.recent.map(|share| (share * 1e4).round() / 1e4)),
        sentence: waited.standing.map(|now| sentence(waited, &now, detail, rules)),
        closed_at_handshake: waited.standing.map_or(0, |now| now.hung_up),
    }
}

fn causes(figures: &[f64; Cause::ALL.len()]) -> Causes {
    let of = |cause: Cause| figures[cause as usize];
    Causes {
        no_peers: of(Cause::NoPeers),
        choked: of(Cause::Choked),
        nothing_offered: of(Cause::NothingOffered),
        request_window: of(Cause::RequestWindow),
        peer_upload: of(Cause::PeerUpload),
        rate_limit: of(Cause::RateLimit),
        hash: of(Cause::Hash),
        disk: of(Cause::Disk),
        moving: of(Cause::Moving),
    }
}

/// Returns the main cause of the last minute, and the current cause with its figures.
fn sentence(waited: &Waited, now: &Bottleneck, detail: &TorrentDetail, rules: Rules) -> String {
    let mut figures = figures(now, detail, rules.download_limit);
    if let Some(told) = hang_ups(now.hung_up, rules.encryption) {
        figures = format!("{figures}; {told}");
    }
    let share = |cause: &Cause| waited.recent[*cause as usize];
    // Among equal shares the current cause counts.
    let most = Cause::ALL
        .into_iter()
        .max_by(|a, b| {
            share(a).total_cmp(&share(b)).then((*a == now.cause).cmp(&(*b == now.cause)))
        })
        .unwrap_or(now.cause);
    let part = (share(&most) * 100.0).round();
    // The slices of the last minute do not add up to exactly 60 s.
    let span = match waited.counted.as_secs() {
        0 => return format!("{}: {figures}.", headline(now.cause)),
        seconds @ 1..55 => format!("{seconds} s"),
        _ => "minute".to_owned(),
    };
    let joint = if most == now.cause { ":" } else { "; now:" };
    format!("{} {part} % of the last {span}{joint} {figures}.", headline(most))
}

fn headline(cause: Cause) -> &'static str {
    match cause {
        Cause::NoPeers => "Waiting for peers",
        Cause::Choked => "Choked",
        Cause::NothingOffered => "Waiting for somebody who has what is missing",
        Cause::RequestWindow => "Waiting for room for requests",
        Cause::PeerUpload => "Waiting for peers' upload",
        Cause::RateLimit => "Held back by a download limit",
        Cause::Hash => "Waiting for pieces to be hashed",
        Cause::Disk => "Waiting for the disk",
        Cause::Moving => "Held up by nothing",
    }
}

/// Returns the figures that explain the current cause.
fn figures(now: &Bottleneck, detail: &TorrentDetail, daemon_limit: Option<u64>) -> String {
    let torrent = &detail.torrent;
    let missing = counted(now.missing.into(), "piece");
    let verifying = counted(now.verifying.into(), "piece");
    match now.cause {
        Cause::NoPeers => nobody(detail),
        Cause::Choked => choked(now),
        Cause::NothingOffered if now.serving > 0 => {
            format!("those who serve us have nothing left to give of the {missing} missing")
        }
        Cause::NothingOffered if now.offering > 0 => {
            format!("nobody who has some of the {missing} missing gives any")
        }
        Cause::NothingOffered => {
            format!("none of the {} connected has any of the {missing} missing", peers(now.peers))
        }
        Cause::RequestWindow => format!(
            "{} with {} asked for at a time, the most that is allowed; the line could hold more",
            given(now, torrent),
            counted(now.owed.into(), "block")
        ),
        Cause::PeerUpload => peer_upload(now, torrent),
        Cause::RateLimit => rate_limit(torrent, daemon_limit),
        Cause::Hash => format!("{verifying} to verify, and the processor is behind"),
        Cause::Disk if now.missing == 0 => {
            "everything is here, and its files are getting their names".to_owned()
        }
        Cause::Disk if now.verifying == 0 => "blocks wait to be written".to_owned(),
        Cause::Disk => format!("{verifying} to be written, and the disk is behind"),
        Cause::Moving => given(now, torrent),
    }
}

fn rate(bytes: u64) -> String {
    format!("{}/s", size(bytes))
}

fn peers(number: u32) -> String {
    counted(number.into(), "peer")
}

/// Returns how many peers give how much.
fn given(now: &Bottleneck, torrent: &Torrent) -> String {
    let giving = torrent.peers_giving.max(1).min(now.serving.max(1));
    let give = if giving == 1 { "gives" } else { "give" };
    format!("{} {give} {}", peers(giving), rate(torrent.download_rate))
}

fn choked(now: &Bottleneck) -> String {
    if now.silent > 0 {
        let choking = now.offering.saturating_sub(now.silent);
        let choke = if choking == 1 { "chokes" } else { "choke" };
        let take = if now.silent == 1 { "takes" } else { "take" };
        format!(
            "{} that {} what is missing {choke} us, and {} {take} requests and {} nothing",
            peers(choking),
            if choking == 1 { "has" } else { "have" },
            peers(now.silent),
            if now.silent == 1 { "sends" } else { "send" },
        )
    } else if now.offering == 1 {
        "the only peer that has what is missing chokes us".to_owned()
    } else {
        format!("all {} peers that have what is missing choke us", count(now.offering.into()))
    }
}

fn peer_upload(now: &Bottleneck, torrent: &Torrent) -> String {
    if torrent.download_rate == 0 {
        let number = if now.serving == 0 { now.silent } else { now.serving };
        let (owe, send) = if number == 1 { ("owes", "sends") } else { ("owe", "send") };
        let owed = counted(now.owed.into(), "block");
        return format!("{} {owe} us {owed} and {send} nothing", peers(number));
    }
    let given = given(now, torrent);
    if now.silent == 0 {
        return format!("{given}; we could take more");
    }
    let (other, take) = if now.silent == 1 { ("other", "takes") } else { ("others", "take") };
    let send = if now.silent == 1 { "sends" } else { "send" };
    let silent = count(now.silent.into());
    format!("{given}, and {silent} {other} {take} requests and {send} nothing; we could take more")
}

/// Returns which limit holds a download back; `daemon_limit` is that of all torrents.
fn rate_limit(torrent: &Torrent, daemon_limit: Option<u64>) -> String {
    let own = torrent.settings.download_limit;
    let shared = daemon_limit.filter(|_| torrent.settings.session_limits);
    match (own, shared) {
        (Some(own), shared) if shared.is_none_or(|shared| own <= shared) => {
            format!("its own limit is {}", rate(own))
        }
        (_, Some(shared)) => format!("the daemon's limit for all torrents is {}", rate(shared)),
        (_, None) => "the limit has just been lifted".to_owned(),
    }
}

/// Returns why nobody may be connected.
fn nobody(detail: &TorrentDetail) -> String {
    let trackers = &detail.trackers;
    let addresses: u64 = trackers.iter().map(|tracker| u64::from(tracker.peers)).sum();
    if trackers.is_empty() {
        "nobody is connected, and it has no tracker; name a tracker or a peer".to_owned()
    } else if trackers.iter().all(|tracker| tracker.state == TrackerState::Failed) {
        "nobody is connected, and no tracker answers".to_owned()
    } else if addresses > 0 {
        let told = if addresses == 1 { "address" } else { "addresses" };
        format!("the trackers told us {} {told}, and nobody there is connected", count(addresses))
    } else if trackers.iter().any(|tracker| tracker.state == TrackerState::Working) {
        "nobody is connected, and the trackers know of nobody else".to_owned()
    } else {
        "nobody is connected, and no tracker has answered yet".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use piecework_api::{State, Torrent, TorrentSettings, TrackerInfo};
    use piecework_core::InfoHash;

    fn detail() -> TorrentDetail {
        let settings = TorrentSettings { session_limits: true, ..TorrentSettings::default() };
        let torrent = Torrent {
            info_hash: InfoHash([7; 20]),
            id: 1,
            name: String::new(),
            state: State::Downloading,
            error: None,
            folder: "/".into(),
            bytes: 0,
            bytes_have: 0,
            bytes_wanted: 0,
            bytes_wanted_have: 0,
            pieces: 0,
            pieces_have: 0,
            piece_length: 0,
            files: 0,
            private: false,
            downloaded: 0,
            uploaded: 0,
            corrupt: 0,
            download_rate: 4_299_162,
            upload_rate: 0,
            peers: 5,
            seeds: 0,
            peers_giving: 3,
            peers_taking: 0,
            eta: None,
            ratio: 0.0,
            metadata_progress: 1.0,
            check_progress: 0.0,
            limit_reached: false,
            stalled: false,
            queue_position: 0,
            added_at: 0,
            started_at: None,
            done_at: None,
            active_at: None,
            seconds_downloading: 0,
            seconds_seeding: 0,
            settings,
        };
        TorrentDetail {
            torrent,
            comment: None,
            created_by: None,
            created_at: None,
            torrent_file: "/".into(),
            magnet: String::new(),
            availability: 0.0,
            file_list: Vec::new(),
            trackers: Vec::new(),
            waiting: Waiting::default(),
        }
    }

    fn standing(cause: Cause) -> Bottleneck {
        let (peers, offering, serving, silent, owed) = (5, 5, 3, 0, 12);
        let (missing, verifying, hung_up) = (14, 2, 0);
        Bottleneck { cause, peers, offering, serving, silent, owed, missing, verifying, hung_up }
    }

    fn waited(now: Bottleneck, most: Cause, share: f64, seconds: u64) -> Waited {
        let mut recent = [0.0; 9];
        recent[most as usize] = share;
        let rest = if most == Cause::Moving { Cause::Disk } else { Cause::Moving };
        recent[rest as usize] = 1.0 - share;
        let counted = Duration::from_secs(seconds);
        Waited { time: [Duration::from_millis(1_500); 9], recent, counted, standing: Some(now) }
    }

    const RULES: Rules = Rules { download_limit: None, encryption: EncryptionPolicy::Allow };

    fn said(now: Bottleneck, detail: &TorrentDetail, daemon_limit: Option<u64>) -> String {
        of(
            &waited(now, now.cause, 0.92, 60),
            detail,
            Rules { download_limit: daemon_limit, ..RULES },
        )
        .sentence
        .unwrap()
    }

    #[test]
    fn a_sentence_names_the_share_of_the_last_minute_and_the_figures_of_now() {
        let detail = detail();
        assert_eq!(
            said(standing(Cause::PeerUpload), &detail, None),
            "Waiting for peers' upload 92 % of the last minute: 3 peers give 4.1 MiB/s; we could \
             take more."
        );
        let young = waited(standing(Cause::Choked), Cause::Choked, 1.0, 7);
        assert_eq!(
            of(&young, &detail, RULES).sentence.unwrap(),
            "Choked 100 % of the last 7 s: all 5 peers that have what is missing choke us."
        );
        let over = waited(standing(Cause::PeerUpload), Cause::Hash, 0.7, 60);
        assert_eq!(
            of(&over, &detail, RULES).sentence.unwrap(),
            "Waiting for pieces to be hashed 70 % of the last minute; now: 3 peers give 4.1 MiB/s; \
             we could take more."
        );
        let new =
            Waited { recent: [0.0; 9], ..waited(standing(Cause::Moving), Cause::Hash, 0.0, 0) };
        let sentence = of(&new, &detail, RULES).sentence.unwrap();
        assert_eq!(sentence, "Held up by nothing: 3 peers give 4.1 MiB/s.");
    }

    #[test]
    fn peers_that_take_requests_and_send_nothing_are_told_apart_from_the_others() {
        let mut detail = detail();
        let of = |cause, serving, silent, detail: &TorrentDetail| {
            said(Bottleneck { serving, silent, ..standing(cause) }, detail, None)
        };
        let sentence = of(Cause::PeerUpload, 1, 4, &detail);
        let named = "1 peer gives 4.1 MiB/s, and 4 others take requests and send nothing; we could";
        assert!(sentence.contains(named), "{sentence}");
        let sentence = of(Cause::Choked, 0, 4, &detail);
        let named = "1 peer that has what is missing chokes us, and 4 peers take requests";
        assert!(sentence.contains(named), "{sentence}");
        detail.torrent.download_rate = 0;
        let sentence = of(Cause::PeerUpload, 0, 5, &detail);
        assert!(sentence.contains("5 peers owe us 12 blocks and send nothing"), "{sentence}");
        let sentence = of(Cause::PeerUpload, 0, 1, &detail);
        assert!(sentence.contains("1 peer owes us 12 blocks and sends nothing"), "{sentence}");
    }

    #[test]
    fn line_11_peers_that_close_at_the_handshake_are_told_with_what_was_tried() {
        use EncryptionPolicy::{Allow, Plain, Prefer, Require};
        let told = |hung_up, encryption| {
            let now = Bottleneck { hung_up, ..standing(Cause::NoPeers) };
            let rules = Rules { encryption, ..RULES };
            let told = of(&waited(now, Cause::NoPeers, 1.0, 60), &detail(), rules);
            assert_eq!(told.closed_at_handshake, hung_up);
            told.sentence.unwrap()
        };
        for (policy, one, two) in [
            (
                Plain,
                "; 1 peer accepts a connection and closes it at our handshake: it probably demands \
                 encryption, which `encryption = \"plain\"` rules out",
                "; 2 peers accept a connection and close it at our handshake: they probably demand \
                 encryption, which `encryption = \"plain\"` rules out",
            ),
            (
                Allow,
                "; 1 peer accepts a connection and closes it at our handshake, plain and encrypted",
                "; 2 peers accept a connection and close it at our handshake, plain and encrypted",
            ),
            (
                Require,
                "; 1 peer accepts a connection and closes it at our encrypted handshake: it probably \
                 takes only plain ones, which `encryption = \"require\"` rules out",
                "; 2 peers accept a connection and close it at our encrypted handshake: they probably \
                 take only plain ones, which `encryption = \"require\"` rules out",
            ),
        ] {
            assert!(told(1, policy).contains(one), "{}", told(1, policy));
            assert!(told(2, policy).contains(two), "{}", told(2, policy));
            assert!(!told(0, policy).contains("handshake"));
        }
        assert_eq!(told(2, Prefer), told(2, Allow));
    }

    #[test]
    fn the_limit_that_binds_is_named() {
        let mut detail = detail();
        let now = standing(Cause::RateLimit);
        assert!(said(now, &detail, Some(1 << 20)).contains("the daemon's limit for all torrents"));
        detail.torrent.settings.download_limit = Some(512 << 10);
        assert!(said(now, &detail, Some(1 << 20)).ends_with("its own limit is 512.0 KiB/s."));
        assert!(said(now, &detail, Some(1 << 10)).ends_with("torrents is 1.0 KiB/s."));
        detail.torrent.settings.session_limits = false;
        assert!(said(now, &detail, Some(1 << 10)).ends_with("its own limit is 512.0 KiB/s."));
    }

    #[test]
    fn every_cause_says_what_it_is_about() {
        let mut detail = detail();
        let of = |cause, change: fn(&mut Bottleneck)| {
            let mut now = standing(cause);
            change(&mut now);
            now
        };
        let cases = [
            (of(Cause::NothingOffered, |now| (now.offering, now.serving) = (0, 0)), "5 peers"),
            (of(Cause::NothingOffered, |_| {}), "14 pieces missing"),
            (of(Cause::RequestWindow, |_| {}), "12 blocks asked for"),
            (of(Cause::Hash, |_| {}), "2 pieces to verify"),
            (of(Cause::Disk, |_| {}), "2 pieces to be written"),
            (of(Cause::Disk, |now| now.missing = 0), "its files are getting their names"),
            (of(Cause::Choked, |now| now.offering = 1), "the only peer"),
            (of(Cause::NoPeers, |_| {}), "name a tracker or a peer"),
        ];
        for (now, part) in cases {
            let sentence = said(now, &detail, None);
            assert!(sentence.contains(part) && sentence.ends_with('.'), "{sentence}");
        }
        detail.torrent.download_rate = 0;
        assert!(said(standing(Cause::PeerUpload), &detail, None).contains("owe us 12 blocks"));
    }

    #[test]
    fn trackers_say_why_there_may_be_nobody() {
        let mut detail = detail();
        let tracker = |state, peers| TrackerInfo {
            url: String::new(),
            tier: 0,
            state,
            error: None,
            warning: None,
            announced_at: None,
            next_announce_at: None,
            seeds: None,
            leechers: None,
            peers,
        };
        for (state, peers, part) in [
            (TrackerState::Failed, 0, "no tracker answers"),
            (TrackerState::Working, 0, "know of nobody else"),
            (TrackerState::Working, 1, "told us 1 address, and"),
            (TrackerState::Announcing, 0, "no tracker has answered yet"),
        ] {
            detail.trackers = vec![tracker(state, peers)];
            let sentence = said(standing(Cause::NoPeers), &detail, None);
            assert!(sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn who_does_not_download_waits_for_nothing() {
        let mut nothing = waited(standing(Cause::Moving), Cause::Moving, 0.5, 60);
        nothing.standing = None;
        let told = of(&nothing, &detail(), RULES);
        assert_eq!((told.sentence, told.seconds.choked, told.recent.disk), (None, 1.5, 0.5));
    }
}
