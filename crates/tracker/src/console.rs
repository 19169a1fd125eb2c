//! The commands of a tracker's console.

use piecework_core::SaturatingFrom;
use std::sync::Arc;
use std::time::Duration;

use super::catalogue_torrent::CatalogueTorrent;
use super::console_format::{as_of, text, time_of_day};
use super::format::{percent, ranges};
use super::service::Service;
use super::stats::Stats;
use super::swarm_questions::{self, SwarmQuestion, remarks};
use super::swarms::Swarms;
use piecework_core::figures::{count, counted, seconds, size};
use piecework_core::{Page, Table, cut_middle, explained, printable, wrapped};
use piecework_journal::RequestRecord;
use piecework_registry::PeerView;

/// The reply to a line at the console.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConsoleReply {
    /// A text without a line end. Safe to show in a terminal.
    Text(String),
    /// The tracker should shut down.
    Quit,
}

/// A command of the console with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ConsoleCommand<'a> {
    RequestLogs(Page),
    AllFiles,
    File(&'a str),
    Ask(SwarmQuestion, &'a str),
    Remove(&'a str),
    Peers,
    Load,
    Stats,
    Help,
    Quit,
    Nothing,
    Unknown(&'a str),
}

/// Executes one line from the console and returns the text to print. Its lines have fewer than `width` columns,
/// except for sentences.
pub(super) fn answer(service: &Service, line: &str, width: usize) -> ConsoleReply {
    ConsoleReply::Text(match parse(line) {
        ConsoleCommand::Quit => return ConsoleReply::Quit,
        ConsoleCommand::Nothing => String::new(),
        ConsoleCommand::RequestLogs(page) => request_logs(service, page, width),
        ConsoleCommand::AllFiles => all_files(service, width),
        ConsoleCommand::File(name) => file(service, name, width),
        ConsoleCommand::Ask(question, rest) => {
            swarm_questions::answer(service, question, rest, width)
        }
        ConsoleCommand::Remove(name) => remove(service, name),
        ConsoleCommand::Peers => peers(service, width),
        ConsoleCommand::Load => load(service, width),
        ConsoleCommand::Stats => stats(service),
        ConsoleCommand::Help => explained(HELP, width),
        ConsoleCommand::Unknown(line) => {
            let shown: String = line.chars().take(60).collect();
            format!("there is no command `{}`; `help` lists them", printable(&shown))
        }
    })
}

/// Parses a line. A leading `>` and the case and spacing of commands are ignored.
fn parse(line: &str) -> ConsoleCommand<'_> {
    let line = line.trim().trim_start_matches('>').trim();
    if let Some(rest) = strip_command(line, "file_logs") {
        return match rest {
            "" | "-all" | "--all" => ConsoleCommand::AllFiles,
            name => ConsoleCommand::File(name),
        };
    }
    if let Some(rest) = strip_command(line, "remove") {
        return ConsoleCommand::Remove(rest);
    }
    for (question, command) in swarm_questions::COMMANDS {
        if let Some(rest) = strip_command(line, command) {
            return ConsoleCommand::Ask(question, rest);
        }
    }
    let words: Vec<String> = line.split_whitespace().take(6).map(str::to_lowercase).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => ConsoleCommand::Nothing,
        ["request", "logs", ref page @ ..]
        | ["request", "all", "logs", ref page @ ..]
        | ["request_logs", ref page @ ..] => {
            Page::parse(page).map_or(ConsoleCommand::Unknown(line), ConsoleCommand::RequestLogs)
        }
        ["peers"] => ConsoleCommand::Peers,
        ["load"] => ConsoleCommand::Load,
        ["stats"] => ConsoleCommand::Stats,
        ["help" | "?"] => ConsoleCommand::Help,
        ["quit" | "exit" | "q"] => ConsoleCommand::Quit,
        _ => ConsoleCommand::Unknown(line),
    }
}

/// Returns what follows `command` and a space or `>`, if the line begins with it.
fn strip_command<'a>(line: &'a str, command: &str) -> Option<&'a str> {
    let head = line.get(..command.len())?;
    let rest = &line[command.len()..];
    let ends = rest.is_empty() || rest.starts_with('>') || rest.starts_with(char::is_whitespace);
    (head.eq_ignore_ascii_case(command) && ends)
        .then(|| rest.trim_start().trim_start_matches('>').trim())
}

/// Returns two or more lines for each request: time, event, address, outcome and file, and below these the client and
/// the peers that it was given.
fn request_logs(service: &Service, page: Page, width: usize) -> String {
    let all = service.log.records().last(usize::MAX);
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
    let dropped = service.log.records().dropped();
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
        service.swarms.torrents().into_iter().filter(|torrent| !torrent.catalogued).collect();
    if sections.is_empty() && unnamed.is_empty() {
        return "no files yet".to_owned();
    }
    let more = unnamed.len().saturating_sub(UNNAMED_SHOWN);
    unnamed.truncate(UNNAMED_SHOWN);
    for torrent in unnamed {
        let head = format!("{}  (not in the catalogue)", torrent.info_hash);
        let rows = service.swarms.peers(torrent.info_hash);
        sections.push(format!("{head}\n{}", holders(&service.swarms, &rows, None, width)));
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
        [entry] => match service.registration.take_out(entry) {
            Ok(()) => format!("removed `{}`, {}", printable(&entry.name), entry.info_hash),
            Err(error) => format!("`{}` could not be removed: {error}", printable(&entry.name)),
        },
        [] => match name.parse() {
            Ok(info_hash) if service.swarms.forget(info_hash) => {
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

fn file_section(service: &Service, entry: &Arc<CatalogueTorrent>, width: usize) -> String {
    let counts = service.swarms.counts(entry.info_hash);
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
        holders(&service.swarms, &service.swarms.peers(entry.info_hash), Some(entry), width)
    )
}

/// Returns a table of who holds what. The number of pieces is known only for catalogued torrents.
fn holders(
    swarms: &Swarms,
    peers: &[PeerView],
    entry: Option<&CatalogueTorrent>,
    width: usize,
) -> String {
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
                    // Computed from the announced number of missing bytes. Which pieces these are is not known.
                    ("unknown".to_owned(), format!("{} %", share_of(entry.size - left, entry.size)))
                }
            },
            None if peer.complete => ("all".to_owned(), "100 %".to_owned()),
            None => ("unknown".to_owned(), "-".to_owned()),
        };
        let source = match peer.source {
            // A super-seeder shows fewer pieces than it has.
            Some(source) if !peer.sure => format!("{}, may hold more", source.word()),
            Some(source) => source.word().to_owned(),
            None if peer.left.is_some() => "only how much".to_owned(),
            None => "-".to_owned(),
        };
        vec![peer.addr.to_string(), client, pieces, share, source, as_of(swarms, peer)]
    });
    let table = Table::new(["peer", "client", "pieces", "held", "known from", "as of"]);
    let table = table.right(&[3]).names(&[1]).wraps(&[2]).spare(&[4, 5]).rows(rows);
    text(&table, width) + &remarks(peers)
}

fn peers(service: &Service, width: usize) -> String {
    let mut rows = Vec::new();
    let mut more = 0;
    for torrent in service.swarms.torrents() {
        let entry = service.catalogue.get(torrent.info_hash);
        let file = match &entry {
            Some(entry) => cut_middle(&printable(&entry.name), FILE_SHOWN).into_owned(),
            None => torrent.info_hash.to_string(),
        };
        for peer in service.swarms.peers(torrent.info_hash) {
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
    let mut load = service.swarms.load();
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

/// Returns a share in per cent, rounded down; 100 if `whole` is 0.
fn share_of(part: u64, whole: u64) -> u64 {
    if whole == 0 { 100 } else { u64::saturating_from(u128::from(part) * 100 / u128::from(whole)) }
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

/// The number of columns for answers where there is no terminal.
pub(super) const WIDTH: usize = 101;

/// The indentation of the lines below a request.
const INDENT: usize = 16;

/// The maximum number of peers of each kind that `request logs` names for one request. The JSON names all.
const PEERS_NAMED: usize = 10;

/// The maximum number of columns of a file name in `peers` and in `load`.
const FILE_SHOWN: usize = 28;
const LOAD_FILE_SHOWN: usize = 40;

/// The maximum number of piece ranges in a row of `file_logs`. The JSON has a thousand.
const RANGES_SHOWN: usize = 12;

/// The maximum number of peers in `peers` and `load`.
const PEERS_SHOWN: usize = 10_000;

/// The maximum number of torrents without a name in `file_logs -all`.
const UNNAMED_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_and_without_a_leading_mark() {
        assert_eq!(parse("request logs"), ConsoleCommand::RequestLogs(Page::default()));
        assert_eq!(parse("> request  ALL logs "), ConsoleCommand::RequestLogs(Page::default()));
        let page = Page::parse(&["20", "2"]).unwrap();
        assert_eq!(parse("request logs 20 2"), ConsoleCommand::RequestLogs(page));
        assert_eq!(parse("request logs 0"), ConsoleCommand::Unknown("request logs 0"));
        assert_eq!(parse("file_logs -all"), ConsoleCommand::AllFiles);
        assert_eq!(parse(">file_logs -all"), ConsoleCommand::AllFiles);
        assert_eq!(parse("file_logs"), ConsoleCommand::AllFiles);
        assert_eq!(parse("file_logs My File.iso"), ConsoleCommand::File("My File.iso"));
        assert_eq!(parse("file_logs>My File.iso"), ConsoleCommand::File("My File.iso"));
        assert_eq!(parse(">file_logs > a"), ConsoleCommand::File("a"));
        assert_eq!(parse("file_logsx"), ConsoleCommand::Unknown("file_logsx"));
        assert_eq!(parse(" Peers"), ConsoleCommand::Peers);
        assert_eq!(parse(">load"), ConsoleCommand::Load);
        assert_eq!(parse("stats"), ConsoleCommand::Stats);
        assert_eq!(parse("> Remove > My File"), ConsoleCommand::Remove("My File"));
        assert_eq!(parse("removed"), ConsoleCommand::Unknown("removed"));
        assert_eq!(parse("quit"), ConsoleCommand::Quit);
        assert_eq!(parse(">"), ConsoleCommand::Nothing);
        assert_eq!(parse("ünknown"), ConsoleCommand::Unknown("ünknown"));
    }
}
