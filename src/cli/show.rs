//! `torrent-show`: shows the content of a torrent file.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Parser;
use serde::Serialize;

use piecework_core::metainfo::{Metainfo, OtherSources, ParseReport};
use piecework_core::{InfoHash, Table, printable};
use piecework_proto::announce::{self, Magnet, PeerName, TrackerUrl};

use super::format::{Paint, count, counted, printable_json, size, table_text};
use super::{CliError, Env, Exit, torrent_file};

/// Show the content of a torrent file.
#[derive(Parser)]
#[command(
    name = "torrent-show",
    version,
    after_help = "Example: torrent-show linux.torrent --json"
)]
struct ShowArgs {
    /// The torrent file, or a magnet link.
    #[arg(value_name = "F.torrent|LINK")]
    torrent: PathBuf,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    /// Print only a magnet link of it.
    #[arg(long)]
    magnet: bool,
}

pub fn main(env: Env) -> Exit {
    env.run(|args: ShowArgs, env| {
        if let Some(text) = args.torrent.to_str().filter(|text| Magnet::is_meant(text)) {
            let link = Magnet::parse(text).map_err(CliError::usage_by)?;
            return if args.magnet {
                show_magnet(env, &link, args.json)
            } else {
                show_link(env, &link, args.json)
            };
        }
        let path = env.path(&args.torrent);
        let (metainfo, report) = torrent_file::read_reported(&path, &args.torrent)?;
        if args.magnet {
            let urls = metainfo.trackers().iter().flatten().map(String::as_str);
            let link = Magnet::new(metainfo.info_hash(), Some(metainfo.info().name()), urls);
            return show_magnet(env, &link, args.json);
        }
        let sources = metainfo.other_sources().map_err(CliError::failed_by)?;
        let shown = TorrentSummary::of(&metainfo, &report, &sources);
        if args.json {
            let text = serde_json::to_string_pretty(&shown).map_err(std::io::Error::from)?;
            env.stdout().line(printable_json(&text))?;
        } else {
            env.stdout().text(shown.text(env.stdout().width(), env.stdout().paint()))?;
        }
        Ok(())
    })
}

/// Prints the link itself.
fn show_magnet(env: &Env, link: &Magnet, json: bool) -> Result<(), CliError> {
    let link = link.to_string();
    if json {
        let text = serde_json::json!({ "magnet": link }).to_string();
        return Ok(env.stdout().line(printable_json(&text))?);
    }
    Ok(env.stdout().line(link)?)
}

/// Shows a magnet link. Of the torrent it has only the info-hash.
fn show_link(env: &Env, link: &Magnet, json: bool) -> Result<(), CliError> {
    let trackers: Vec<&str> = link.trackers.iter().map(TrackerUrl::as_str).collect();
    let peers: Vec<String> = link.peers.iter().map(PeerName::to_string).collect();
    let note = "a magnet link has no files and pieces: torrent-leech --torrent LINK or \
                torrent-peer get LINK asks its trackers and peers for them";
    if json {
        let value = serde_json::json!({
            "name": link.name, "info_hash": link.info_hash, "trackers": trackers,
            "peers": peers, "files": link.wanted_files(), "notices": link.unused,
        });
        let text = serde_json::to_string_pretty(&value).map_err(std::io::Error::from)?;
        return Ok(env.stdout().line(printable_json(&text))?);
    }
    let paint = env.stdout().paint();
    let mut rows = vec![("name", link.name.as_deref().map_or("none".into(), printable))];
    rows.push(("info-hash", link.info_hash.to_string().into()));
    rows.extend(trackers.iter().map(|url| ("tracker", printable(url))));
    rows.extend(peers.iter().map(|peer| ("peer", printable(peer))));
    rows.extend(link.wanted_files().map(|files| ("only files", files.into())));
    rows.extend(link.unused.iter().map(|notice| ("notice", notice.into())));
    rows.push(("notice", note.into()));
    for (key, value) in rows {
        env.stdout().line(format_args!("{} {value}", paint.dim(format_args!("{key:<13}"))))?;
    }
    Ok(())
}

/// The content, in the order in which it is shown.
#[derive(Serialize)]
struct TorrentSummary<'a> {
    name: &'a str,
    /// The name in the torrent, if a file cannot have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_in_torrent: Option<&'a str>,
    info_hash: InfoHash,
    size: u64,
    piece_length: u32,
    pieces: u32,
    private: bool,
    trackers: &'a [Vec<String>],
    created_by: Option<&'a str>,
    /// Unix seconds.
    creation_date: Option<i64>,
    comment: Option<&'a str>,
    /// The word that gives the same files another info-hash at some sites.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    /// Addresses of web seeds. They are not used.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    web_seeds: &'a [String],
    /// Nodes of the DHT. They are not used.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    nodes: &'a [String],
    /// Sentences on what was ignored or repaired.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<String>,
    files: Vec<FileSummary<'a>>,
}

#[derive(Serialize)]
struct FileSummary<'a> {
    path: &'a str,
    /// The path in the torrent, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_torrent: Option<&'a str>,
    /// The path on disk unless `raw_names` is set, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_disk: Option<String>,
    size: u64,
    /// Whether it will be executable.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    executable: bool,
}

impl<'a> TorrentSummary<'a> {
    fn of(metainfo: &'a Metainfo, report: &'a ParseReport, sources: &'a OtherSources) -> Self {
        let info = metainfo.info();
        let safe = info.files().safe_names();
        let entries = info.files().entries().iter().enumerate();
        let real = entries.filter(|(_, entry)| !entry.padding);
        Self {
            name: info.name(),
            name_in_torrent: report.name.as_deref(),
            info_hash: metainfo.info_hash(),
            size: info.geometry().total_len(),
            piece_length: info.geometry().piece_len(),
            pieces: info.geometry().pieces(),
            private: info.is_private(),
            trackers: metainfo.trackers(),
            created_by: metainfo.created_by(),
            creation_date: metainfo.creation_date(),
            comment: metainfo.comment(),
            source: sources.source.as_deref(),
            web_seeds: &sources.web_seeds,
            nodes: &sources.nodes,
            notices: [announce::unusable(metainfo.trackers()), report.notices()].concat(),
            files: real
                .map(|(file, entry)| FileSummary {
                    path: entry.path.as_str(),
                    in_torrent: report.paths.get(&file).map(String::as_str),
                    executable: entry.executable,
                    on_disk: safe.get(&file).map(|path| path.join("/")),
                    size: entry.len,
                })
                .collect(),
        }
    }

    fn text(&self, width: usize, paint: Paint) -> String {
        let mut out = String::new();
        let mut row = |key: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{} {value}", paint.dim(format_args!("{key:<13}")));
        };
        row("name", &paint.bold(printable(self.name)));
        row("info-hash", &self.info_hash.to_string());
        let bytes = if self.size < 1024 { String::new() } else { exact(self.size) };
        row("size", &format!("{}{bytes}", size(self.size)));
        row("pieces", &count(self.pieces.into()));
        row("piece length", &size(self.piece_length.into()));
        row("private", if self.private { "yes" } else { "no" });
        for (tier, urls) in self.trackers.iter().enumerate() {
            let urls: Vec<_> = urls.iter().map(|url| printable(url)).collect();
            row(if tier == 0 { "trackers" } else { "" }, &urls.join(", "));
        }
        if self.trackers.is_empty() {
            row("trackers", "none");
        }
        if let Some(creator) = self.created_by {
            row("created by", &printable(creator));
        }
        if let Some(seconds) = self.creation_date {
            // A torrent may claim any number. Those beyond the year 9999 are shown as numbers.
            let date = jiff::Timestamp::from_second(seconds);
            row("created", &date.map_or_else(|_| seconds.to_string(), |date| date.to_string()));
        }
        if let Some(comment) = self.comment {
            row("comment", &printable(comment));
        }
        if let Some(source) = self.source {
            row("source", source);
        }
        for (key, all) in [("web seeds", self.web_seeds), ("nodes", self.nodes)] {
            for (at, one) in all.iter().enumerate() {
                row(if at == 0 { key } else { "" }, one);
            }
        }
        row("files", &count(self.files.len() as u64));
        for (at, notice) in self.notices.iter().enumerate() {
            row(if at == 0 { "notices" } else { "" }, notice);
        }
        let any = |of: fn(&FileSummary<'a>) -> bool| self.files.iter().any(of);
        // Both names of a file are shown if they differ.
        let (raw, disk) = (any(|it| it.in_torrent.is_some()), any(|it| it.on_disk.is_some()));
        let rows = self.files.iter().map(|file| {
            let path = || printable(file.path).into_owned();
            let on_disk = || file.on_disk.clone().unwrap_or_else(path);
            let in_torrent = || file.in_torrent.map_or_else(path, str::to_owned);
            [size(file.size), path()]
                .into_iter()
                .chain(disk.then(on_disk))
                .chain(raw.then(in_torrent))
                .collect::<Vec<String>>()
        });
        let columns = [
            Some("size"),
            Some("file"),
            disk.then_some("on disk"),
            raw.then_some("in the torrent"),
        ];
        let columns: Vec<&str> = columns.into_iter().flatten().collect();
        let names: Vec<usize> = (1..columns.len()).collect();
        let table = Table::new(columns).right(&[0]).names(&names).rows(rows);
        let _ = writeln!(out, "\n{}", table_text(&table, width, paint));
        out
    }
}

fn exact(bytes: u64) -> String {
    format!(" ({})", counted(bytes, "byte"))
}
