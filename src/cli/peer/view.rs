//! The texts that a running peer shows: pure functions from its state to text.

use std::time::Duration;

use jiff::tz::TimeZone;

use piecework_core::metainfo::Metainfo;
use piecework_core::{Bitfield, PieceIndex, Table, columns, cut_middle, printable};
use piecework_engine::{PeerStatus, TorrentState, TorrentStatus};
use piecework_journal::{GiverTotal, PieceRecord, Verdict};
use piecework_proto::encryption::Method;
use piecework_swarm::Direction;

use super::super::format::{
    Paint, bar_line, count, counted, percent, rate, seconds, short_time, size, table_text,
};

/// Returns the live line for these torrents, not wider than `width`.
pub(super) fn live_line(torrents: &[TorrentStatus], width: usize, paint: Paint) -> String {
    let active = torrents.iter().find(|status| !is_seeding(status));
    match (torrents, active) {
        ([], _) => String::new(),
        ([only], _) => one_line(only, width, paint),
        (all, Some(active)) => {
            let rest = paint.dim(format_args!("  (+{} more)", all.len() - 1));
            let room = width.saturating_sub(columns(&rest));
            format!("{}{rest}", one_line(active, room, paint))
        }
        (all, None) => {
            let what =
                paint.green(format_args!("seeding {}", counted(all.len() as u64, "torrent")));
            let upload: f64 = all.iter().map(|status| status.upload_rate).sum();
            let sent: u64 = all.iter().map(|status| status.uploaded).sum();
            let peers: usize = all.iter().map(|status| status.peers).sum();
            format!("{what}  {}", sending(upload, sent, peers))
        }
    }
}

/// Returns the answer to `status`.
pub(super) fn status(torrents: &[TorrentStatus], paint: Paint) -> String {
    if torrents.is_empty() {
        return "no torrents".to_owned();
    }
    let blocks = torrents.iter().map(|status| {
        let mut lines =
            vec![format!("{}  {}", paint.bold(printable(&status.name)), status.info_hash)];
        let mut row = |key: &str, value: String| {
            lines.push(format!("  {} {value}", paint.dim(format_args!("{key:<8}"))));
        };
        row("state", state(status));
        row(
            "pieces",
            format!(
                "{} of {}",
                count(status.pieces_have.into()),
                count(status.pieces_total.into())
            ),
        );
        row("size", format!("{} of {}", size(status.bytes_have), size(status.bytes_total)));
        row("down", format!("{}, {} in all", rate(status.download_rate), size(status.downloaded)));
        row("up", format!("{}, {} in all", rate(status.upload_rate), size(status.uploaded)));
        row("peers", format!("{}, {}", status.peers, counted(status.seeds as u64, "seed")));
        for tracker in &status.trackers {
            row("tracker", super::tracker::describe(tracker));
        }
        lines.join("\n")
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

/// Returns the answer to `peers`. If there are several torrents, each part begins with the
/// torrent's name.
pub(super) fn peers(
    torrents: &[(TorrentStatus, Vec<PeerStatus>)],
    width: usize,
    paint: Paint,
) -> String {
    sections(torrents, paint, |(status, peers)| {
        let rows = peers.iter().map(|peer| {
            vec![
                peer.addr.to_string(),
                printable(&peer.client).into_owned(),
                match (peer.direction, peer.encryption == Some(Method::Rc4)) {
                    (Direction::Outgoing, false) => "out".to_owned(),
                    (Direction::Outgoing, true) => "out rc4".to_owned(),
                    (Direction::Incoming, false) => "in".to_owned(),
                    (Direction::Incoming, true) => "in rc4".to_owned(),
                },
                peer.source.name().to_owned(),
                format!("{}%", percent(peer.pieces.into(), status.pieces_total.into())),
                rate(peer.download_rate),
                size(peer.downloaded),
                rate(peer.upload_rate),
                size(peer.uploaded),
            ]
        });
        if peers.is_empty() {
            return (status, "no peers".to_owned());
        }
        let head = ["peer", "client", "dir", "source", "has", "down", "got", "up", "gave"];
        let table = Table::new(head).right(&[4, 5, 6, 7, 8]).names(&[1]).spare(&[2, 6, 8, 3]);
        (status, table_text(&table.rows(rows), width, paint))
    })
}

/// Returns the answer to `files`.
pub(super) fn files(
    torrents: &[(TorrentStatus, &Metainfo, Bitfield)],
    width: usize,
    paint: Paint,
) -> String {
    sections(torrents, paint, |(status, metainfo, have)| {
        let geometry = metainfo.info().geometry();
        let entries = metainfo.info().files().entries();
        let rows = entries.iter().filter(|entry| !entry.padding).map(|entry| {
            let pieces = geometry.pieces_of(entry.span());
            let (mut held, mut all) = (0_u64, 0_u64);
            for piece in pieces {
                all += 1;
                held += u64::from(have.contains(PieceIndex(piece)));
            }
            let path = printable(entry.path.as_str()).into_owned();
            vec![format!("{}%", percent(held, all)), size(entry.len), path]
        });
        let table = Table::new(["have", "size", "file"]).right(&[0, 1]).names(&[2]).rows(rows);
        (status, table_text(&table, width, paint))
    })
}

/// Returns the answer to `request logs`: every response, oldest first.
pub(super) fn request_log(
    records: &[PieceRecord],
    dropped: u64,
    width: usize,
    paint: Paint,
) -> String {
    if records.is_empty() {
        return "no piece has arrived yet".to_owned();
    }
    let several = records.iter().any(|record| record.torrent != records[0].torrent);
    let zone = TimeZone::system();
    let (first, last) = (records[0].time, records[records.len() - 1].time);
    let day = |time: jiff::Timestamp| time.to_zoned(zone.clone()).date();
    // Leave out the date if all entries are from today.
    let today = day(first) == day(last) && day(last) == day(jiff::Timestamp::now());
    let time_format = if today { "%H:%M:%S%.3f" } else { "%Y-%m-%d %H:%M:%S%.3f" };
    let rows = records.iter().map(|record| {
        let result = match record.verdict {
            Verdict::Verified => "verified".to_owned(),
            Verdict::Failed => paint.red("failed"),
            Verdict::Banned { block: Some(block) } => {
                paint.red(format_args!("banned for block at {block}"))
            }
            Verdict::Banned { block: None } => paint.red("banned"),
        };
        let mut row = vec![
            record.time.to_zoned(zone.clone()).strftime(time_format).to_string(),
            record.piece.0.to_string(),
            record.giver.addr.to_string(),
            cut_middle(&printable(&record.giver.client), MOST_CLIENT).into_owned(),
            record.blocks.to_string(),
            count(record.bytes.into()),
            short_time(record.took),
            result,
        ];
        if several {
            row.push(printable(&record.torrent.name).into_owned());
        }
        row
    });
    let mut head = vec!["time", "piece", "peer", "client", "blocks", "bytes", "took", "result"];
    let names: &[usize] = if several { &[3, 8] } else { &[3] };
    head.extend(several.then_some("torrent"));
    let table = Table::new(head).right(&[1, 4, 5, 6]).names(names).spare(&[4, 5, 6, 3]);
    let lines = table.rows(rows).lines(width);
    let mut out = vec![paint.dim(lines.head)];
    if dropped > 0 {
        out.push(format!("({} dropped)", counted(dropped, "older response")));
    }
    out.extend(lines.rows.into_iter().flatten());
    out.join("\n")
}

/// Returns a table of who gave how many pieces.
pub(super) fn givers(totals: &[GiverTotal], unlisted: u64, width: usize, paint: Paint) -> String {
    let all: u64 = totals.iter().map(|total| total.bytes).sum();
    let given = totals.iter().filter(|total| total.pieces > 0);
    let rows = given.map(|total| {
        vec![
            total.giver.addr.to_string(),
            printable(&total.giver.client).into_owned(),
            count(total.pieces),
            count(total.blocks),
            size(total.bytes),
            // Rounded to the nearest, because rounding down would lose up to one per cent for each
            // peer.
            format!("{}%", percent(total.bytes.saturating_mul(2) + all / 100, all * 2)),
        ]
    });
    let head = ["peer", "client", "pieces", "blocks", "bytes", "share"];
    let table = Table::new(head).right(&[2, 3, 4, 5]).names(&[1]).spare(&[3]).rows(rows);
    let mut out = table_text(&table, width, paint);
    if unlisted > 0 {
        out.push_str(&format!("\nand {} of further peers", counted(unlisted, "part")));
    }
    out
}

/// Returns the line for a tenth of a download, printed where there is no bar.
pub(super) fn tenth_line(status: &TorrentStatus) -> String {
    let eta = status.eta.map_or(String::new(), |eta| format!(", ETA {}", seconds(eta)));
    format!(
        "{} {}%: {} of {} pieces, {}, {}{eta}",
        printable(&status.name),
        percent(status.pieces_have.into(), status.pieces_total.into()) / 10 * 10,
        count(status.pieces_have.into()),
        count(status.pieces_total.into()),
        rate(status.download_rate),
        counted(status.peers as u64, "peer"),
    )
}

/// Returns the line that ends a download.
pub(super) fn complete_line(status: &TorrentStatus, took: Duration, paint: Paint) -> String {
    let name = paint.bold(printable(&status.name));
    let pieces = counted(status.pieces_total.into(), "piece");
    let size = size(status.bytes_total);
    let done = paint.green("complete");
    if status.downloaded == 0 && status.bytes_total > 0 {
        return format!("{done} {name}: {size}, {pieces} verified, all here already");
    }
    // After a restart only a part was downloaded.
    let came = status.downloaded.min(status.bytes_total);
    let speed = rate(came as f64 / took.as_secs_f64().max(1e-3));
    format!("{done} {name}: {size}, {pieces} verified, in {} at {speed}", short_time(took))
}

fn sections<'a, T>(
    torrents: &'a [T],
    paint: Paint,
    body: impl Fn(&'a T) -> (&'a TorrentStatus, String),
) -> String {
    if torrents.is_empty() {
        return "no torrents".to_owned();
    }
    let parts = torrents.iter().map(|torrent| {
        let (status, text) = body(torrent);
        if torrents.len() == 1 {
            text
        } else {
            format!("{}\n{text}", paint.bold(printable(&status.name)))
        }
    });
    parts.collect::<Vec<_>>().join("\n\n")
}

fn one_line(status: &TorrentStatus, width: usize, paint: Paint) -> String {
    let name = printable(&status.name);
    // The state of a torrent is more important than the rest of its name.
    let named = |others: usize| {
        let room = width.saturating_sub(others + 1).clamp(LEAST_NAME, MOST_NAME);
        paint.bold(cut_middle(&name, room))
    };
    let peers = counted(status.peers as u64, "peer");
    match &status.state {
        TorrentState::Checking { done, total } => {
            let pieces = format!("{}/{}", count((*done).into()), count((*total).into()));
            let tails = [format!("checking  {pieces}"), "checking".to_owned()];
            bar_line(&status.name, (*done).into(), (*total).into(), &tails, width, paint)
        }
        TorrentState::Downloading => {
            let (have, total) = (status.pieces_have.into(), status.pieces_total.into());
            let pieces = format!("{}/{}", count(have), count(total));
            let speed = paint.cyan(rate(status.download_rate));
            let eta =
                status.eta.map_or("ETA –".to_owned(), |eta| format!("ETA {}", seconds(eta)));
            let tails = [
                format!("{pieces} pieces  {speed}  {eta}  {peers}"),
                format!("{pieces}  {speed}  {eta}"),
                format!("{speed}  {eta}"),
                speed,
            ];
            bar_line(&status.name, have, total, &tails, width, paint)
        }
        TorrentState::Seeding => {
            let what = paint.green("seeding");
            let tail = sending(status.upload_rate, status.uploaded, status.peers);
            let name = named("seeding   ".len() + columns(&tail));
            format!("{what} {name}  {tail}")
        }
        TorrentState::Waiting | TorrentState::Moving { .. } | TorrentState::Paused { .. } => {
            let tail = paint.yellow(state(status));
            let name = named(2 + columns(&tail));
            format!("{name}  {tail}")
        }
    }
}

fn sending(upload_rate: f64, sent: u64, peers: usize) -> String {
    format!("up {}  sent {}  {}", rate(upload_rate), size(sent), counted(peers as u64, "peer"))
}

fn state(status: &TorrentStatus) -> String {
    match &status.state {
        TorrentState::Checking { done, total } => {
            format!("checking, {} of {}", count((*done).into()), counted((*total).into(), "piece"))
        }
        TorrentState::Downloading => match status.eta {
            Some(eta) => format!("downloading, {} left", seconds(eta)),
            None => "downloading".to_owned(),
        },
        TorrentState::Seeding => "seeding".to_owned(),
        TorrentState::Waiting => "waiting to be checked".to_owned(),
        TorrentState::Moving { done, total } => {
            format!("moving, {} of {}", size(*done), size(*total))
        }
        TorrentState::Paused { reason: None } => "paused".to_owned(),
        TorrentState::Paused { reason: Some(reason) } => format!("paused: {}", printable(reason)),
    }
}

fn is_seeding(status: &TorrentStatus) -> bool {
    status.state == TorrentState::Seeding
}

/// Least and most columns of a name on a live line without a bar.
const LEAST_NAME: usize = 6;
const MOST_NAME: usize = 40;

/// Maximum columns of a client's name.
const MOST_CLIENT: usize = 30;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use piecework_core::InfoHash;
    use piecework_journal::{Giver, TorrentName};

    use super::*;

    const PLAIN: fn() -> Paint = || Paint::new(false);

    fn a_status(state: TorrentState) -> TorrentStatus {
        TorrentStatus {
            name: "big\x1b.iso".to_owned(),
            info_hash: InfoHash([1; 20]),
            state,
            pieces_total: 2_000,
            pieces_have: 860,
            bytes_total: 2_000 << 20,
            bytes_have: 860 << 20,
            bytes_wanted: 2_000 << 20,
            bytes_wanted_have: 860 << 20,
            corrupt: 0,
            downloaded: 861 << 20,
            uploaded: 0,
            download_rate: 110.0 * 1024.0 * 1024.0,
            upload_rate: 0.0,
            peers: 4,
            seeds: 2,
            peers_giving: 2,
            peers_taking: 0,
            eta: Some(Duration::from_secs(12)),
            trackers: Vec::new(),
            trouble: None,
        }
    }

    #[test]
    fn the_live_line_says_pieces_speed_eta_and_peers() {
        let line = live_line(&[a_status(TorrentState::Downloading)], 100, PLAIN());
        assert!(line.starts_with("big\\x1b.iso ━━━"), "{line}");
        assert!(line.ends_with(" 43%  860/2,000 pieces  110.0 MiB/s  ETA 12s  4 peers"), "{line}");
    }

    #[test]
    fn the_live_line_fits_its_terminal() {
        for state in [
            TorrentState::Downloading,
            TorrentState::Seeding,
            TorrentState::Checking { done: 1, total: 2_000 },
        ] {
            for width in [60, 80, 100, 200] {
                for paint in [Paint::new(false), Paint::new(true)] {
                    let mut one = a_status(state.clone());
                    one.name = "文".repeat(40);
                    let line = live_line(std::slice::from_ref(&one), width, paint);
                    assert!(columns(&line) < width, "{width}: {line}");
                    let line = live_line(&[one.clone(), one], width, paint);
                    assert!(columns(&line) < width, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn the_log_shows_every_field_and_no_escape() {
        let record = PieceRecord {
            time: jiff::Timestamp::UNIX_EPOCH,
            torrent: Arc::new(TorrentName { info_hash: InfoHash([1; 20]), name: "x".to_owned() }),
            piece: PieceIndex(17),
            giver: Arc::new(Giver {
                addr: SocketAddr::from(([10, 0, 0, 1], 6881)),
                client: "evil\x1b[2J".to_owned(),
            }),
            blocks: 64,
            bytes: 1 << 20,
            took: Duration::from_millis(12),
            verdict: Verdict::Verified,
        };
        let banned =
            PieceRecord { verdict: Verdict::Banned { block: Some(16_384) }, ..record.clone() };
        let text = request_log(&[record, banned], 3, usize::MAX, PLAIN());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "(3 older responses dropped)");
        let words: Vec<&str> = lines[2].split_whitespace().skip(2).collect();
        assert_eq!(
            words,
            ["17", "10.0.0.1:6881", "evil\\x1b[2J", "64", "1,048,576", "12.0", "ms", "verified"]
        );
        assert!(lines[3].ends_with("banned for block at 16384"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn the_table_of_givers_leaves_out_who_gave_nothing() {
        let giver = |port| {
            let addr = SocketAddr::from(([10, 0, 0, 1], port));
            Arc::new(Giver { addr, client: "c".to_owned() })
        };
        let totals = [
            GiverTotal { giver: giver(1), pieces: 3, blocks: 12, bytes: 3 << 16 },
            GiverTotal { giver: giver(2), pieces: 1, blocks: 4, bytes: 1 << 16 },
            GiverTotal { giver: giver(3), pieces: 0, blocks: 0, bytes: 0 },
        ];
        let text = givers(&totals, 0, usize::MAX, PLAIN());
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().nth(1).unwrap().ends_with("75%"), "{text}");
        let thirds = |port| GiverTotal { giver: giver(port), pieces: 1, blocks: 1, bytes: 334 };
        let text = givers(&[thirds(1), thirds(2), thirds(3)], 0, usize::MAX, PLAIN());
        assert!(text.lines().skip(1).all(|line| line.ends_with("33%")), "{text}");
        let uneven = |port, bytes| GiverTotal { bytes, ..thirds(port) };
        let text = givers(&[uneven(1, 246), uneven(2, 754)], 0, usize::MAX, PLAIN());
        assert!(text.contains("25%") && text.contains("75%"), "{text}");
    }
}
