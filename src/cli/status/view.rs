//! The texts of `torrent-status`: pure functions from the daemon's answers to text.

use piecework_core::SaturatingFrom;
use std::time::Duration;

use piecework_api::{
    FileInfo, LogEntry, Overview, PeerEncryption, PeerInfo, SeedLimit, State, Torrent,
    TorrentDetail, TrackerInfo, TrackerState,
};
use piecework_core::{Priority, Table, cut_end, printable};

use super::super::follow::{short_span, waiting_word};
use super::super::format::{
    Paint, count, counted, percent, rate, seconds, shown, size, table_text,
};

/// Returns the daemon's state, then its downloads, then its seeds.
pub(super) fn overview(overview: &Overview, width: usize, paint: Paint) -> String {
    let mut parts = vec![head(overview, paint)];
    parts.extend(tables(&overview.torrents, width, paint));
    parts.join("\n\n")
}

/// Returns the daemon's state in two lines, and its notices.
pub(super) fn head(overview: &Overview, paint: Paint) -> String {
    let listen: Vec<String> = overview.listen.iter().map(ToString::to_string).collect();
    let up = short_span(overview.uptime);
    let mut out = format!(
        "{} {}, up {up}, peers on {}\n",
        paint.bold("torrent-daemon"),
        printable(&overview.version),
        if listen.is_empty() { "no address".to_owned() } else { listen.join(" ") },
    );
    out.push_str(&format!(
        "{}  down {}  up {}",
        counted(overview.counts.all.into(), "torrent"),
        paint.cyan(rate(overview.download_rate as f64)),
        paint.cyan(rate(overview.upload_rate as f64)),
    ));
    for notice in &overview.notices {
        out.push_str(&format!("\n{} {}", paint.yellow("notice:"), printable(notice)));
    }
    out
}

/// Returns the tables of downloads and seeds, or a sentence if there are none.
pub(super) fn tables(torrents: &[Torrent], width: usize, paint: Paint) -> Vec<String> {
    let (seeding, leeching): (Vec<&Torrent>, Vec<&Torrent>) =
        torrents.iter().partition(|torrent| is_whole(torrent));
    let mut out = Vec::new();
    if torrents.is_empty() {
        out.push("no torrents: add some with torrent-seed or torrent-leech".to_owned());
    }
    if !leeching.is_empty() {
        out.push(section("leeching", &leeching, LEECHING, width, paint));
    }
    if !seeding.is_empty() {
        out.push(section("seeding", &seeding, SEEDING, width, paint));
    }
    out
}

/// Returns everything about one torrent except its files and peers.
pub(super) fn detail(detail: &TorrentDetail, paint: Paint) -> String {
    let torrent = &detail.torrent;
    let mut lines = vec![format!("{}", paint.bold(printable(&torrent.name)))];
    let mut row = |key: &str, value: String| {
        lines.push(format!("  {} {value}", paint.dim(format_args!("{key:<10}"))));
    };
    row("info-hash", torrent.info_hash.to_string());
    row("state", state_text(torrent, paint));
    // If the torrent has failed, the state includes the error.
    if let Some(error) = torrent.error.as_ref().filter(|_| torrent.state != State::Failed) {
        row("trouble", paint.red(printable(error)));
    }
    row("folder", shown(&torrent.folder));
    for (key, value) in amounts(torrent, paint) {
        row(key, value);
    }
    if let Some(eta) = torrent.eta {
        row("ETA", short_span(eta));
    }
    row(
        "peers",
        format!(
            "{}, {}, {:.2} copies within reach",
            counted(torrent.peers.into(), "peer"),
            counted(torrent.seeds.into(), "seed"),
            detail.availability
        ),
    );
    if let Some(sentence) = &detail.waiting.sentence {
        row("waiting", printable(sentence).into_owned());
    }
    row("added", moment(torrent.added_at));
    if let Some(done) = torrent.done_at {
        row("done", moment(done));
    }
    row("active", activity(torrent));
    for (key, value) in settings_rows(torrent) {
        row(key, value);
    }
    if torrent.private {
        row("private", "peers come from its trackers only".to_owned());
    }
    if let Some(comment) = &detail.comment {
        row("comment", printable(comment).into_owned());
    }
    for tracker in &detail.trackers {
        row("tracker", tracker_text(tracker, paint));
    }
    lines.join("\n")
}

/// Returns the amounts of a torrent: what is there, received and sent.
fn amounts(torrent: &Torrent, paint: Paint) -> [(&'static str, String); 4] {
    let wanted = match torrent.bytes_wanted == torrent.bytes {
        true => String::new(),
        false => format!(", {} wanted", size(torrent.bytes_wanted)),
    };
    let pieces = format!(
        "{} of {}, {} each",
        count(torrent.pieces_have.into()),
        count(torrent.pieces.into()),
        size(torrent.piece_length.into())
    );
    let corrupt = match torrent.corrupt {
        0 => String::new(),
        bytes => paint.red(format_args!(", {} of it wrong", size(bytes))),
    };
    let (down, up) = (rate(torrent.download_rate as f64), rate(torrent.upload_rate as f64));
    let uploaded = size(torrent.uploaded);
    let known = match torrent.metadata_progress < 1.0 {
        true => "known once its metadata is here".to_owned(),
        false => format!("{} of {}{wanted}", size(torrent.bytes_have), size(torrent.bytes)),
    };
    [
        ("size", known),
        ("pieces", pieces),
        ("down", format!("{down}, {} in all{corrupt}", size(torrent.downloaded))),
        ("up", format!("{up}, {uploaded} in all, ratio {:.2}", torrent.ratio)),
    ]
}

/// Returns the connected peers.
pub(super) fn peers(peers: &[PeerInfo], width: usize, paint: Paint) -> String {
    let rows = peers.iter().map(|peer| {
        vec![
            peer.addr.to_string(),
            printable(&peer.client).into_owned(),
            direction(peer).to_owned(),
            peer.source.name().to_owned(),
            format!("{}%", u64::saturating_from(peer.progress * 100.0)),
            rate(peer.download_rate as f64),
            size(peer.downloaded),
            rate(peer.upload_rate as f64),
            size(peer.uploaded),
        ]
    });
    let head = ["peer", "client", "dir", "source", "has", "down", "got", "up", "gave"];
    let table =
        Table::new(head).right(&[4, 5, 6, 7, 8]).names(&[1]).spare(&[2, 6, 8, 3]).rows(rows);
    table_text(&table, width, paint)
}

/// Returns who dialled, and whether the whole connection is encrypted.
fn direction(peer: &PeerInfo) -> &'static str {
    match (peer.incoming, peer.encryption == Some(PeerEncryption::Rc4)) {
        (true, false) => "in",
        (true, true) => "in rc4",
        (false, false) => "out",
        (false, true) => "out rc4",
    }
}

/// Returns the files, numbered as for `--files`.
pub(super) fn files(files: &[FileInfo], width: usize, paint: Paint) -> String {
    let rows = files.iter().map(|file| {
        vec![
            count(u64::from(file.index) + 1),
            format!("{}%", percent(file.bytes_have, file.bytes)),
            size(file.bytes),
            priority_word(file.priority).to_owned(),
            printable(&file.path).into_owned(),
        ]
    });
    let table = Table::new(["no", "have", "size", "wanted", "file"]).right(&[0, 1, 2]).names(&[4]);
    table_text(&table.rows(rows), width, paint)
}

/// Returns who gave which piece.
pub(super) fn log(entries: &[LogEntry], width: usize, paint: Paint) -> String {
    if entries.is_empty() {
        return "no piece has arrived yet".to_owned();
    }
    let rows = entries.iter().map(|entry| {
        let verdict = printable(&entry.verdict);
        vec![
            local_time(&entry.time),
            count(entry.piece.into()),
            entry.peer.to_string(),
            printable(&entry.client).into_owned(),
            count(entry.blocks.into()),
            count(entry.bytes),
            format!("{} ms", count(entry.took_ms)),
            if verdict == "verified" { verdict.into_owned() } else { paint.red(verdict) },
        ]
    });
    let head = ["time", "piece", "peer", "client", "blocks", "bytes", "took", "result"];
    let table = Table::new(head).right(&[1, 4, 5, 6]).names(&[3]).spare(&[4, 5, 6]).rows(rows);
    table_text(&table, width, paint)
}

/// Returns a torrent's name and state in one line, for pipes.
pub(super) fn line(torrent: &Torrent) -> String {
    format!(
        "{} {}%: {}",
        printable(&torrent.name),
        done(torrent),
        state_text(torrent, Paint::new(false))
    )
}

/// Returns the per cent of a torrent that is here or, while it is made, hashed.
fn done(torrent: &Torrent) -> u64 {
    match torrent.state {
        State::Hashing | State::QueuedHash => checked(torrent),
        // It could not be hashed, or there is only a magnet link, so its size is not known.
        State::Failed if torrent.bytes_wanted == 0 => 0,
        _ if torrent.metadata_progress < 1.0 => 0,
        _ => percent(torrent.bytes_wanted_have, torrent.bytes_wanted),
    }
}

/// Returns the per cent of a torrent that was checked.
fn checked(torrent: &Torrent) -> u64 {
    u64::saturating_from(torrent.check_progress * 100.0)
}

/// Returns the word for a priority.
pub(super) fn priority_word(priority: Priority) -> &'static str {
    match priority {
        Priority::Skip => "skip",
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
    }
}

/// A column of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    Hash,
    Size,
    Percent,
    Down,
    Up,
    Sent,
    Peers,
    Eta,
    Ratio,
}

/// The columns of a table, and those of them to leave out on narrow terminals, in this order.
type Columns = (&'static [Column], &'static [Column]);

const LEECHING: Columns = (
    &[
        Column::Name,
        Column::Hash,
        Column::Size,
        Column::Percent,
        Column::Down,
        Column::Up,
        Column::Peers,
        Column::Eta,
        Column::Ratio,
    ],
    &[Column::Hash, Column::Ratio, Column::Up, Column::Peers, Column::Size],
);

const SEEDING: Columns = (
    &[
        Column::Name,
        Column::Hash,
        Column::Size,
        Column::Percent,
        Column::Up,
        Column::Sent,
        Column::Peers,
        Column::Eta,
        Column::Ratio,
    ],
    &[Column::Hash, Column::Percent, Column::Sent, Column::Peers, Column::Size],
);

impl Column {
    fn title(self, seeding: bool) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Hash => "hash",
            Self::Size => "size",
            Self::Percent => "%",
            Self::Down => "down",
            Self::Up => "up",
            Self::Sent => "sent",
            Self::Peers => "peers",
            // A complete torrent has no ETA, so this column shows its state.
            Self::Eta if seeding => "state",
            Self::Eta => "eta",
            Self::Ratio => "ratio",
        }
    }

    fn is_right(self) -> bool {
        !matches!(self, Self::Name | Self::Hash)
    }

    fn text(self, torrent: &Torrent) -> String {
        match self {
            Self::Name => printable(&torrent.name).into_owned(),
            Self::Hash => torrent.info_hash.to_string()[..8].to_owned(),
            Self::Size if torrent.metadata_progress < 1.0 => "?".to_owned(),
            Self::Size => size(torrent.bytes_wanted),
            Self::Percent => match torrent.state {
                State::Checking => format!("{}%", checked(torrent)),
                _ => format!("{}%", done(torrent)),
            },
            Self::Down => rate(torrent.download_rate as f64),
            Self::Up => rate(torrent.upload_rate as f64),
            Self::Sent => size(torrent.uploaded),
            Self::Peers => count(torrent.peers.into()),
            Self::Eta => match (torrent.state, torrent.eta) {
                (State::Downloading, Some(eta)) => short_span(eta),
                (State::Downloading, None) if torrent.stalled => "stalled".to_owned(),
                (State::Downloading, None) => "–".to_owned(),
                (State::Hashing, _) => format!("hashing {}%", checked(torrent)),
                (state, _) => waiting_word(state).to_owned(),
            },
            Self::Ratio => format!("{:.2}", torrent.ratio),
        }
    }
}

/// Returns a table with its title. A torrent with an error has it below its row.
fn section(
    title: &str,
    torrents: &[&Torrent],
    (columns, dispensable): Columns,
    width: usize,
    paint: Paint,
) -> String {
    let seeding = title == "seeding";
    let at = |column: &Column| columns.iter().position(|one| one == column);
    let right: Vec<usize> = (0..columns.len()).filter(|index| columns[*index].is_right()).collect();
    let spare: Vec<usize> = dispensable.iter().filter_map(at).collect();
    let row = |torrent: &&Torrent| columns.iter().map(|column| column.text(torrent)).collect();
    let table = Table::new(columns.iter().map(|column| column.title(seeding)));
    let table = table.right(&right).names(&[0]).spare(&spare).rows(torrents.iter().map(row));
    let lines = table.lines(width);
    let mut out = vec![paint.bold(title), paint.dim(lines.head)];
    for (line, torrent) in lines.rows.iter().flatten().zip(torrents) {
        out.push(colored(line, torrent, paint));
        if let Some(trouble) = &torrent.error {
            let trouble = printable(trouble);
            let text = cut_end(&trouble, width.saturating_sub(3));
            out.push(format!("  {}", paint.red(text)));
        }
    }
    out.join("\n")
}

/// Returns a line of a table in the colour of its torrent's state.
fn colored(line: &str, torrent: &Torrent, paint: Paint) -> String {
    match torrent.state {
        State::Failed => paint.red(line),
        State::Paused
        | State::QueuedCheck
        | State::QueuedDownload
        | State::QueuedSeed
        | State::QueuedHash => paint.dim(line),
        _ => line.to_owned(),
    }
}

/// Returns whether a torrent seeds, or would seed.
fn is_whole(torrent: &Torrent) -> bool {
    match torrent.state {
        State::Seeding | State::QueuedSeed | State::Hashing | State::QueuedHash => true,
        State::Downloading | State::QueuedDownload => false,
        _ => torrent.pieces_have > 0 && torrent.bytes_wanted_have >= torrent.bytes_wanted,
    }
}

fn state_text(torrent: &Torrent, paint: Paint) -> String {
    match torrent.state {
        State::Downloading if torrent.stalled => paint.yellow("downloading, stalled"),
        State::Downloading => paint.cyan("downloading"),
        State::Seeding => paint.green("seeding"),
        State::Checking => format!("checking, {}% done", checked(torrent)),
        State::Hashing => format!("hashing {}%, then seeding", checked(torrent)),
        State::QueuedHash => "waits for its turn to be hashed".to_owned(),
        State::Metadata if torrent.metadata_progress == 0.0 => {
            paint.cyan("looking for its metadata")
        }
        State::Metadata => {
            let done = (torrent.metadata_progress * 100.0).floor();
            paint.cyan(format!("fetching its metadata, {done}% done"))
        }
        State::QueuedCheck => "waits for its turn to be checked".to_owned(),
        State::QueuedDownload => "waits for its turn to download".to_owned(),
        State::QueuedSeed => "waits for its turn to seed".to_owned(),
        State::Moving => "its data is being moved".to_owned(),
        State::Paused if torrent.limit_reached => {
            paint.yellow("paused: it reached its seeding limit")
        }
        State::Paused => paint.yellow("paused"),
        State::Failed => {
            let why = torrent.error.as_deref().map_or("no reason known".into(), printable);
            paint.red(format_args!("failed: {why}"))
        }
    }
}

fn activity(torrent: &Torrent) -> String {
    let spans =
        [(torrent.seconds_downloading, "downloading"), (torrent.seconds_seeding, "seeding")];
    let spans = spans.map(|(span, what)| format!("{} {what}", seconds(Duration::from_secs(span))));
    spans.join(", ")
}

/// Returns the settings of a torrent that are not the default.
fn settings_rows(torrent: &Torrent) -> Vec<(&'static str, String)> {
    let settings = &torrent.settings;
    let mut out = Vec::new();
    if !settings.labels.is_empty() {
        out.push(("labels", printable(&settings.labels.join(", ")).into_owned()));
    }
    let limits = [("down", settings.download_limit), ("up", settings.upload_limit)];
    let limits: Vec<String> = limits
        .into_iter()
        .filter_map(|(way, limit)| Some(format!("{way} {}", rate(limit? as f64))))
        .collect();
    if !limits.is_empty() {
        out.push(("limits", limits.join(", ")));
    }
    let mut stop = Vec::new();
    if let SeedLimit::At(ratio) = settings.seed_ratio {
        stop.push(format!("at ratio {ratio}"));
    }
    if let SeedLimit::At(span) = settings.seed_time {
        stop.push(format!("after {}", seconds(Duration::from_secs(span))));
    }
    if let SeedLimit::At(span) = settings.seed_idle {
        stop.push(format!("after {} without a byte", seconds(Duration::from_secs(span))));
    }
    if !stop.is_empty() {
        out.push(("stops", stop.join(", ")));
    }
    if settings.sequential {
        out.push(("order", "pieces in their order".to_owned()));
    }
    if settings.bandwidth != Priority::Normal {
        out.push(("bandwidth", priority_word(settings.bandwidth).to_owned()));
    }
    out
}

fn tracker_text(tracker: &TrackerInfo, paint: Paint) -> String {
    let mut text = format!("{}: ", printable(&tracker.url));
    match (&tracker.error, tracker.state) {
        (Some(error), _) => text.push_str(&paint.red(printable(error))),
        (None, TrackerState::Idle) => text.push_str("not asked yet"),
        (None, TrackerState::Announcing) => text.push_str("asked, no answer yet"),
        (None, TrackerState::Working) => text.push_str("working"),
        (None, TrackerState::Failed) => text.push_str("failed"),
        (None, TrackerState::Stopped) => text.push_str("left"),
    }
    if let (Some(seeds), Some(leechers)) = (tracker.seeds, tracker.leechers) {
        let seeds = counted(seeds.into(), "seed");
        text.push_str(&format!(", {seeds}, {}", counted(leechers.into(), "leecher")));
    }
    if let Some(warning) = &tracker.warning {
        text.push_str(&format!(", says: {}", printable(warning)));
    }
    text
}

fn moment(unix: i64) -> String {
    match jiff::Timestamp::from_second(unix) {
        Ok(time) => {
            time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => unix.to_string(),
    }
}

/// Returns an RFC 3339 time as local time.
fn local_time(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => {
            let time = time.to_zoned(jiff::tz::TimeZone::system());
            time.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
        }
        Err(_) => printable(text).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::a_torrent;
    use super::*;

    const PLAIN: Paint = Paint::new(false);

    fn all_states() -> Vec<Torrent> {
        let states = [
            State::Checking,
            State::Downloading,
            State::Seeding,
            State::QueuedCheck,
            State::QueuedDownload,
            State::QueuedSeed,
            State::Moving,
            State::Paused,
            State::Failed,
            State::Hashing,
            State::QueuedHash,
            State::Metadata,
        ];
        let mut torrents: Vec<Torrent> = states.map(a_torrent).into();
        for (index, torrent) in torrents.iter_mut().enumerate() {
            torrent.name = format!("{index} {}\u{202e}", "文".repeat(30));
            torrent.error = (torrent.state == State::Failed).then(|| "no\x07 ".repeat(60));
        }
        torrents
    }

    #[test]
    fn tables_fit_their_terminal_and_obey_no_name() {
        for width in [40, 60, 80, 120, 200] {
            for paint in [PLAIN, Paint::new(true)] {
                let text = tables(&all_states(), width, paint).join("\n");
                for line in text.lines() {
                    assert!(piecework_core::columns(line) < width, "{width}: {line}");
                }
                assert!(!text.contains(['\u{202e}', '\x07']));
            }
        }
    }

    #[test]
    fn a_pipe_gets_names_as_long_as_they_are() {
        let text = tables(&all_states(), usize::MAX, PLAIN).join("\n");
        assert!(text.contains(&format!("8 {}", "文".repeat(30))));
        assert!(!text.contains('…') && text.contains("abababab"));
    }

    #[test]
    fn what_is_whole_is_seeded_and_the_rest_is_leeched() {
        let mut paused = a_torrent(State::Paused);
        let text = tables(std::slice::from_ref(&paused), 80, PLAIN).join("\n");
        assert!(text.starts_with("leeching\n") && text.contains("50%  "), "{text}");
        assert!(text.contains("paused"), "{text}");
        paused.bytes_wanted_have = paused.bytes_wanted;
        let text = tables(&[paused], 80, PLAIN).join("\n");
        assert!(text.starts_with("seeding\n") && text.contains("paused"), "{text}");
        assert!(tables(&[], 80, PLAIN)[0].starts_with("no torrents"));
    }

    #[test]
    fn a_failed_torrent_says_why_below_its_line() {
        let mut failed = a_torrent(State::Failed);
        failed.error = Some("the disk is full".to_owned());
        let text = tables(&[failed], 80, PLAIN).join("\n");
        assert!(text.ends_with("\n  the disk is full"), "{text}");
    }

    #[test]
    fn eighty_columns_show_what_matters_of_a_download() {
        let text = tables(&[a_torrent(State::Downloading)], 80, PLAIN).join("\n");
        for word in ["big\\x1b.iso", "4.0 GiB", "50%", "10.0 MiB/s", "1.0 MiB/s", "12", "3m 25s"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
