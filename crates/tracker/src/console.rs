//! The commands of a tracker's console.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::catalogue::Entry;
use super::questions::{self, Question, remarks};
use super::service::Service;
use super::views::{Stats, percent, ranges};
use piecework_core::figures::{count, counted, seconds, size};
use piecework_core::{Page, Table, cut_middle, explained, printable, wrapped};
use piecework_journal::RequestRecord;
use piecework_registry::PeerView;

/// What a line typed at the console gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConsoleReply {
    /// An answer, without a line end. Safe to show.
    Text(String),
    /// The tracker is to end.
    Quit,
}

/// A command of the console, with what follows its name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Command<'a> {
    RequestLogs(Page),
    AllFiles,
    File(&'a str),
    Ask(Question, &'a str),
    Remove(&'a str),
    Peers,
    Load,
    Stats,
    Help,
    Quit,
    Nothing,
    Unknown(&'a str),
}

/// Carries out one line that was typed at the console, and returns what to print: lines of fewer
/// than `width` columns, but for sentences.
pub(super) fn answer(service: &Service, line: &str, width: usize) -> ConsoleReply {
    ConsoleReply::Text(match parse(line) {
        Command::Quit => return ConsoleReply::Quit,
        Command::Nothing => String::new(),
        Command::RequestLogs(page) => request_logs(service, page, width),
        Command::AllFiles => all_files(service, width),
        Command::File(name) => file(service, name, width),
        Command::Ask(question, rest) => questions::answer(service, question, rest, width),
        Command::Remove(name) => remove(service, name),
        Command::Peers => peers(service, width),
        Command::Load => load(service, width),
        Command::Stats => stats(service),
        Command::Help => explained(HELP, width),
        Command::Unknown(line) => {
            let shown: String = line.chars().take(60).collect();
            format!("no command `{}`; `help` lists them", printable(&shown))
        }
    })
}

/// Reads a line; `>` in front, and the case and spacing of commands, do not matter.
fn parse(line: &str) -> Command<'_> {
    let line = line.trim().trim_start_matches('>').trim();
    if let Some(rest) = strip_command(line, "file_logs") {
        return match rest {
            "" | "-all" | "--all" => Command::AllFiles,
            name => Command::File(name),
        };
    }
    if let Some(rest) = strip_command(line, "remove") {
        return Command::Remove(rest);
    }
    for (question, command) in questions::COMMANDS {
        if let Some(rest) = strip_command(line, command) {
            return Command::Ask(question, rest);
        }
    }
    let words: Vec<String> = line.split_whitespace().take(6).map(str::to_lowercase).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => Command::Nothing,
        ["request", "logs", ref page @ ..]
        | ["request", "all", "logs", ref page @ ..]
        | ["request_logs", ref page @ ..] => {
            Page::parse(page).map_or(Command::Unknown(line), Command::RequestLogs)
        }
        ["peers"] => Command::Peers,
        ["load"] => Command::Load,
        ["stats"] => Command::Stats,
        ["help" | "?"] => Command::Help,
        ["quit" | "exit" | "q"] => Command::Quit,
        _ => Command::Unknown(line),
    }
}

/// What stands behind `command` and a space or `>`, if the line begins with it.
fn strip_command<'a>(line: &'a str, command: &str) -> Option<&'a str> {
    let head = line.get(..command.len())?;
    let rest = &line[command.len()..];
    let ends = rest.is_empty() || rest.starts_with('>') || rest.starts_with(char::is_whitespace);
    (head.eq_ignore_ascii_case(command) && ends)
        .then(|| rest.trim_start().trim_start_matches('>').trim())
}

/// Two lines or more a request: when, what, who, which file and how it went; below, who it says it
/// is and which peers it was given.
fn request_logs(service: &Service, page: Page, width: usize) -> String {
    let all = service.log.last(usize::MAX);
    let records = &all[page.range(all.len())];
    if all.is_empty() {
        return "no requests yet".to_owned();
    }
    let rows = records.iter().map(|record| {
        let file = match (&record.name, record.info_hash) {
            (Some(name), _) => printable(name).into_owned(),
            (None, Some(hash)) => hash.to_string(),
            (None, None) => "-".to_owned(),
        };
        vec![
            time_of_day(record.time),
            record.event.word().to_owned(),
            record.peer.to_string(),
            if record.outcome.is_ok() { "ok" } else { "failed" }.to_owned(),
            file,
        ]
    });
    let table =
        Table::new(["time", "event", "peer", "outcome", "file"]).names(&[4]).spare(&[3]).rows(rows);
    let table = table.lines(width);
    let mut out = table.head;
    for (record, lines) in records.iter().zip(table.rows) {
        for line in lines {
            out.push_str(&format!("\n{line}"));
        }
        for line in wrapped(&request_details(record), width.saturating_sub(INDENT + 1)) {
            out.push_str(&format!("\n{:INDENT$}{line}", ""));
        }
    }
    match page.note(all.len(), "request logs") {
        Some(note) => out.push_str(&format!("\n{note}")),
        None => out.push_str(&format!("\n{} shown", counted(records.len() as u64, "request"))),
    }
    let dropped = service.log.dropped();
    if dropped > 0 {
        out.push_str(&format!(", {} older ones no longer kept", count(dropped)));
    }
    out
}

fn request_details(record: &RequestRecord) -> String {
    let mut text = match record.peer_id {
        Some(id) => format!("{} over {}", id.client_name(), record.via.word()),
        None => format!("over {}", record.via.word()),
    };
    if record.unlisted {
        text.push_str("; unlisted");
    }
    if let Err(reason) = &record.outcome {
        text.push_str(&format!("; failed: {}", printable(reason)));
    }
    if let Some(note) = record.note() {
        text.push_str(&format!("; {note}"));
    }
    let whole: Vec<_> = record.handed.iter().filter(|peer| peer.complete).collect();
    let part: Vec<_> = record.handed.iter().filter(|peer| !peer.complete).collect();
    for (what, peers) in [("had by", whole), ("in part or not yet by", part)] {
        let named: Vec<String> =
            peers.iter().take(PEERS_NAMED).map(|peer| peer.addr.to_string()).collect();
        if named.is_empty() {
            continue;
        }
        text.push_str(&format!("; {what} {}", named.join(", ")));
        if peers.len() > named.len() {
            text.push_str(&format!(" and {} more", peers.len() - named.len()));
        }
    }
    text
}

fn all_files(service: &Service, width: usize) -> String {
    let all = service.catalogue.all();
    let mut sections: Vec<String> =
        all.iter().map(|entry| file_section(service, entry, width)).collect();
    let mut unnamed: Vec<_> =
        service.torrents().into_iter().filter(|torrent| !torrent.catalogued).collect();
    if sections.is_empty() && unnamed.is_empty() {
        return "no files yet".to_owned();
    }
    let more = unnamed.len().saturating_sub(UNNAMED_SHOWN);
    unnamed.truncate(UNNAMED_SHOWN);
    for torrent in unnamed {
        let head = format!("{}  (not in the catalogue)", torrent.info_hash);
        let rows = service.peers(torrent.info_hash);
        sections.push(format!("{head}\n{}", holders(service, &rows, None, width)));
    }
    if more > 0 {
        sections.push(format!(
            "and {} that are not in the catalogue",
            counted(more as u64, "more torrent")
        ));
    }
    sections.join("\n\n")
}

fn file(service: &Service, name: &str, width: usize) -> String {
    let entries = service.catalogue.meant(name);
    if entries.is_empty() {
        return format!("no file named `{}` is known to this tracker", printable(name));
    }
    let sections: Vec<String> =
        entries.iter().map(|entry| file_section(service, entry, width)).collect();
    sections.join("\n\n")
}

fn remove(service: &Service, name: &str) -> String {
    let entries = service.catalogue.meant(name);
    let shown = printable(name);
    match &entries[..] {
        [entry] => match service.take_out(entry) {
            Ok(()) => format!("removed `{}`, {}", printable(&entry.name), entry.info_hash),
            Err(error) => format!("`{}` could not be removed: {error}", printable(&entry.name)),
        },
        [] => match name.parse() {
            Ok(info_hash) if service.forget(info_hash) => {
                format!("removed `{shown}`, which was not in the catalogue")
            }
            _ => format!("no file named `{shown}` is known to this tracker"),
        },
        several => {
            let hashes: Vec<String> =
                several.iter().map(|entry| format!("\n  {}", entry.info_hash)).collect();
            format!("several files are named `{shown}`; say which:{}", hashes.concat())
        }
    }
}

fn file_section(service: &Service, entry: &Arc<Entry>, width: usize) -> String {
    let counts = service.counts(entry.info_hash);
    let description = match &entry.description {
        Some(text) => format!("\n  {}", printable(text)),
        None => String::new(),
    };
    let unlisted = if entry.unlisted { ", unlisted" } else { "" };
    format!(
        "{}\n  {}, {} of {}{unlisted}, {} complete, {} incomplete, {}\n  {}{description}\n{}",
        printable(&entry.name),
        size(entry.size),
        counted(u64::from(entry.pieces), "piece"),
        size(u64::from(entry.piece_length)),
        count(u64::from(counts.complete)),
        count(u64::from(counts.incomplete)),
        counted(u64::from(counts.downloaded), "download"),
        entry.info_hash,
        holders(service, &service.peers(entry.info_hash), Some(entry), width)
    )
}

/// Who holds what. The number of pieces is known of catalogued torrents only.
fn holders(service: &Service, peers: &[PeerView], entry: Option<&Entry>, width: usize) -> String {
    if peers.is_empty() {
        return "  no peers".to_owned();
    }
    let rows = peers.iter().map(|peer| {
        let client = peer.peer_id.map_or_else(|| "-".to_owned(), |id| id.client_name());
        let (pieces, share) = match entry {
            Some(entry) => match peer.held.count(entry.pieces) {
                Some(held) => (
                    ranges(&peer.held, entry.pieces, RANGES_SHOWN),
                    format!("{} %", percent(held, entry.pieces)),
                ),
                None => {
                    let left = peer.left.unwrap_or(entry.size).min(entry.size);
                    // By its own account; which pieces these are it does not tell.
                    ("unknown".to_owned(), format!("{} %", share_of(entry.size - left, entry.size)))
                }
            },
            None if peer.complete => ("all".to_owned(), "100 %".to_owned()),
            None => ("unknown".to_owned(), "-".to_owned()),
        };
        let source = match peer.source {
            // A super-seeder shows us less than it has.
            Some(source) if !peer.sure => format!("{}, may hold more", source.word()),
            Some(source) => source.word().to_owned(),
            None if peer.left.is_some() => "only how much".to_owned(),
            None => "-".to_owned(),
        };
        vec![peer.addr.to_string(), client, pieces, share, source, as_of(service, peer)]
    });
    let table = Table::new(["peer", "client", "pieces", "held", "known from", "as of"]);
    let table = table.right(&[3]).names(&[1]).wraps(&[2]).spare(&[4, 5]).rows(rows);
    text(&table, width) + &remarks(peers)
}

fn peers(service: &Service, width: usize) -> String {
    let mut rows = Vec::new();
    let mut more = 0;
    for torrent in service.torrents() {
        let entry = service.catalogue.get(torrent.info_hash);
        let file = match &entry {
            Some(entry) => cut_middle(&printable(&entry.name), FILE_SHOWN).into_owned(),
            None => torrent.info_hash.to_string(),
        };
        for peer in service.peers(torrent.info_hash) {
            if rows.len() >= PEERS_SHOWN {
                more += 1;
                continue;
            }
            rows.push(vec![
                peer.addr.to_string(),
                peer.peer_id.map_or_else(|| "-".to_owned(), |id| id.client_name()),
                if peer.complete { "all" } else { "part" }.to_owned(),
                count(peer.assigned.total),
                count(u64::from(peer.assigned.recent)),
                seconds(peer.silent),
                file.clone(),
            ]);
        }
    }
    if rows.is_empty() {
        return "no peers".to_owned();
    }
    let head = ["peer", "client", "holds", "given", "lately", "silent", "file"];
    let table = Table::new(head).right(&[3, 4, 5]).names(&[1, 6]).spare(&[2, 4, 1]).rows(rows);
    let mut out = text(&table, width);
    if more > 0 {
        out.push_str(&format!("\nand {}", counted(more, "more peer")));
    }
    out
}

fn load(service: &Service, width: usize) -> String {
    let mut load = service.load();
    if load.is_empty() {
        return "no peer of a catalogued file has been given to anybody yet".to_owned();
    }
    load.sort_unstable_by_key(|entry| (std::cmp::Reverse(entry.assigned.total), entry.peer));
    let all: u64 = load.iter().map(|entry| entry.assigned.total).sum();
    let shown = load.iter().take(PEERS_SHOWN);
    let rows = shown.map(|entry| {
        let file = service.catalogue.get(entry.info_hash).map_or_else(
            || entry.info_hash.to_string(),
            |found| cut_middle(&printable(&found.name), LOAD_FILE_SHOWN).into_owned(),
        );
        vec![
            entry.peer.to_string(),
            count(entry.assigned.total),
            count(u64::from(entry.assigned.recent)),
            format!("{} %", share_of(entry.assigned.total, all)),
            if entry.present { "here" } else { "gone" }.to_owned(),
            file,
        ]
    });
    let head = ["peer", "times given", "lately", "share", "now", "file"];
    let selection = match service.config.selection {
        piecework_registry::Selection::Balanced => {
            "whoever asks is given those first that were given least lately"
        }
        piecework_registry::Selection::Random => "whoever asks is given peers chosen by chance",
    };
    let table = Table::new(head).right(&[1, 2, 3]).names(&[5]).spare(&[3, 2]).rows(rows);
    format!("{}\n{selection}", text(&table, width))
}

fn stats(service: &Service) -> String {
    let stats = Stats::of(service);
    let rows = [
        ("version", stats.version.to_owned()),
        ("up", seconds(Duration::from_secs(stats.uptime_seconds))),
        ("files in the catalogue", count(stats.catalogued as u64)),
        ("torrents", count(stats.torrents as u64)),
        ("peers", format!("{} in {}", count(stats.peers as u64), size(stats.peer_bytes as u64))),
        ("peers expired", count(stats.expired)),
        ("peers found unreachable", count(stats.unreachable)),
        ("announces over HTTP", count(stats.announces_http)),
        ("announces over UDP", count(stats.announces_udp)),
        ("scrapes", count(stats.scrapes)),
        ("requests refused", count(stats.refused)),
        ("datagrams rejected", count(stats.udp_rejected)),
        ("HTTP connections", count(stats.http_connections)),
        ("HTTP connections rejected", count(stats.http_rejected)),
        ("answers to be read", size(stats.http_answer_bytes as u64)),
        (
            "requests in the log",
            format!(
                "{}, {} dropped, {} not in the journal",
                count(stats.requests_logged as u64),
                count(stats.requests_dropped),
                count(stats.requests_held_back)
            ),
        ),
    ];
    let mut lines: Vec<String> =
        rows.iter().map(|(what, value)| format!("{what:<26}{value}")).collect();
    lines.extend(service.notices(true));
    lines.join("\n")
}

/// Returns the lines of a table in `width` columns.
pub(super) fn text(table: &Table, width: usize) -> String {
    let lines = table.lines(width);
    let rows = lines.rows.into_iter().flatten();
    std::iter::once(lines.head).chain(rows).collect::<Vec<_>>().join("\n")
}

/// When a peer last told or showed what it holds, in the local time zone, with the date if that is half a
/// day ago or more; `-` if that is not known.
pub(super) fn as_of(service: &Service, peer: &PeerView) -> String {
    let Some(at) = peer.held_at else { return "-".to_owned() };
    let date_and_time = time_of_day(service.time_of(at));
    let is_today = service.clock.now().since(at) < Duration::from_secs(12 * 3600);
    let time = date_and_time.split_once(' ').map(|(_, time)| time.to_owned());
    time.filter(|_| is_today).unwrap_or(date_and_time)
}

/// Date and time in the local time zone, without the year.
fn time_of_day(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%m-%d %H:%M:%S").to_string()
}

/// In per cent, rounded down; 100 of nothing.
fn share_of(part: u64, whole: u64) -> u64 {
    if whole == 0 { 100 } else { (u128::from(part) * 100 / u128::from(whole)) as u64 }
}

const HELP: &str = "\
request logs     every request: when, who, what for, which file, which peers had it, how it went
request logs N [PAGE]     the last N of them, or the N before these (PAGE 2), and so on
file_logs -all   every file, its peers, and which pieces each of them holds
file_logs NAME   the same for one file, by its name, its info-hash, or four digits of that or more
swarm NAME       how each peer of a file gets on, copies there are, and who has gone silent
holders NAME PIECE        who holds a piece
at_risk NAME [K]          pieces that K peers or fewer hold (1 if it is not said), and which peers
missing NAME PEER         what a peer (IP:PORT) still misses
without NAME PEER PEER…   whether the others could complete the file if these left
observe NAME on|off       whether the tracker connects to peers of a file to see what they hold
remove NAME      takes a file out of the catalogue, by its name or info-hash
peers            every peer: what it holds, how often it was given to others
load             how often each peer was given to others, and lately; the busiest first
stats            counts
help             this
quit             end the tracker";

/// Columns that answers fit where there is no terminal to say how many it has.
pub(super) const WIDTH: usize = 101;

/// Columns of the space in front of what stands below a request.
const INDENT: usize = 16;

/// Peers of either kind that `request logs` names of one request; the JSON names all.
const PEERS_NAMED: usize = 10;

/// Columns of a file's name in `peers`, and in `load`.
const FILE_SHOWN: usize = 28;
const LOAD_FILE_SHOWN: usize = 40;

/// Runs of pieces that a row of `file_logs` names; the JSON names a thousand.
const RANGES_SHOWN: usize = 12;

/// Peers that `peers` and `load` name.
const PEERS_SHOWN: usize = 10_000;

/// Torrents without a name that `file_logs -all` names.
const UNNAMED_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_and_without_a_leading_mark() {
        assert_eq!(parse("request logs"), Command::RequestLogs(Page::default()));
        assert_eq!(parse("> request  ALL logs "), Command::RequestLogs(Page::default()));
        let page = Page::parse(&["20", "2"]).unwrap();
        assert_eq!(parse("request logs 20 2"), Command::RequestLogs(page));
        assert_eq!(parse("request logs 0"), Command::Unknown("request logs 0"));
        assert_eq!(parse("file_logs -all"), Command::AllFiles);
        assert_eq!(parse(">file_logs -all"), Command::AllFiles);
        assert_eq!(parse("file_logs"), Command::AllFiles);
        assert_eq!(parse("file_logs My File.iso"), Command::File("My File.iso"));
        assert_eq!(parse("file_logs>My File.iso"), Command::File("My File.iso"));
        assert_eq!(parse(">file_logs > a"), Command::File("a"));
        assert_eq!(parse("file_logsx"), Command::Unknown("file_logsx"));
        assert_eq!(parse(" Peers"), Command::Peers);
        assert_eq!(parse(">load"), Command::Load);
        assert_eq!(parse("stats"), Command::Stats);
        assert_eq!(parse("> Remove > My File"), Command::Remove("My File"));
        assert_eq!(parse("removed"), Command::Unknown("removed"));
        assert_eq!(parse("quit"), Command::Quit);
        assert_eq!(parse(">"), Command::Nothing);
        assert_eq!(parse("ünknown"), Command::Unknown("ünknown"));
    }
}
