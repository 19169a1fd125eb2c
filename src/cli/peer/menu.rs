//! `torrent-peer` without arguments: a menu.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use piecework_core::metainfo::Metainfo;
use piecework_core::printable;

use super::super::completion::{Completion, begins};
use super::super::console::ConsoleCommand;
use super::super::exit_deadline::ExitDeadline;
use super::super::format::{counted, shown};
use super::super::pick::meant_by;
use super::super::{CliError, Config, Env, Exit, PeerConfig, torrent_file};
use super::get::{self, Target};
use super::link::{self, Found, LinkContext};
use super::node::{Node, NodeOptions, Role, Turn};
use super::query::{self, TorrentQuery};
use super::share::{self, ShareOptions};
use super::tracker::Tracker;

/// Runs the menu.
pub(super) async fn run(
    env: &mut Env,
    config: Config,
    exit_deadline: &ExitDeadline,
) -> Result<(), CliError> {
    let config = config.peer;
    let mut node = Node::start(env, &config, &NodeOptions::default())?;
    let mut menu = PeerMenu { tracker: Tracker::named(&config.tracker)?, config, question: None };
    node.open_console(env)?;
    node.screen().line(menu.text(&node));
    let result = loop {
        match node.turn().await {
            Ok(Turn::Over(_)) => break Ok(()),
            Ok(Turn::Line(line)) => {
                // In a menu an error ends the choice, not the program.
                if let Err(error) = menu.answer(env, &mut node, &line).await {
                    let text = error.to_string();
                    if !text.is_empty() {
                        let label = node.screen().live_paint().red("error:");
                        node.screen().notice(format_args!("{label} {text}"));
                    }
                }
            }
            Err(error) => env.complain(&error),
        }
    };
    match node.leave(exit_deadline).await {
        Exit::Fine => result,
        exit => Err(CliError::silent(exit)),
    }
}

struct PeerMenu {
    config: PeerConfig,
    tracker: Tracker,
    /// The question that the next line answers.
    question: Option<Question>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    WhichTracker,
    WhatToShare,
    WhatToGet,
    WhatToDelete,
}

/// A choice in the menu.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'a> {
    Connect(&'a str),
    Share(&'a str),
    Request(&'a str),
    Delete(&'a str),
    Unknown,
}

/// A torrent that we registered with a tracker.
struct RegisteredTorrent {
    path: PathBuf,
    token: String,
    metainfo: Metainfo,
}

impl PeerMenu {
    async fn answer(&mut self, env: &Env, node: &mut Node, line: &str) -> Result<(), CliError> {
        let line = line.trim();
        let choice = match self.question.take() {
            // Enter accepts the default in the question.
            Some(Question::WhichTracker) if line.is_empty() => {
                return self.connect(node, self.tracker.clone()).await;
            }
            _ if line.is_empty() => return Ok(()),
            Some(Question::WhichTracker) => Choice::Connect(line),
            Some(Question::WhatToShare) => Choice::Share(line),
            Some(Question::WhatToGet) => Choice::Request(line),
            Some(Question::WhatToDelete) => Choice::Delete(line),
            None => Choice::parse(line),
        };
        match choice {
            Choice::Connect("") => {
                let text = format!("which tracker? (Enter for {})", self.tracker.shown);
                self.ask(node, Question::WhichTracker, &text)
            }
            Choice::Connect(name) => self.connect(node, Tracker::named(name)?).await?,
            Choice::Share("") => {
                self.ask(node, Question::WhatToShare, "which file or folder?");
            }
            Choice::Share(path) => {
                let options = ShareOptions::default();
                let path = Path::new(path);
                let (tracker, config) = (&self.tracker, &self.config);
                let made = share::make(node, env, path, &options, tracker, config).await?;
                if let Some(ready) = made {
                    share::publish(node, env, &ready, &options, Some(tracker), config).await?;
                }
            }
            Choice::Request("") => {
                self.ask(
                    node,
                    Question::WhatToGet,
                    "which name, info-hash, magnet link or torrent file?",
                );
            }
            Choice::Request(what) => self.request(env, node, what).await?,
            Choice::Delete(which) => self.delete(env, node, which).await?,
            Choice::Unknown => node.screen().line(self.text(node)),
        }
        Ok(())
    }

    /// Begins to download what a text names.
    async fn request(&self, env: &Env, node: &mut Node, what: &str) -> Result<(), CliError> {
        let wanted = TorrentQuery::parse(env, what.as_ref())?;
        let tracker = (!matches!(wanted, TorrentQuery::File(_))).then_some(&self.tracker);
        let screen = node.screen().clone();
        let notice = |text: &dyn Display| {
            screen.notice(text);
            Ok(())
        };
        // The tracker that provided the torrent already knows it.
        let mut target = Target { publish_private: true, ..Target::of(&self.config) };
        let mut linked = Vec::new();
        let found = match &wanted {
            TorrentQuery::Link(link) => {
                link::say_what_is_unused(link, notice)?;
                target.trackers.clone_from(&link.trackers);
                linked = link::peers_of(link, notice).await?;
                let (config, options) = (&self.config, &NodeOptions::default());
                let (wanted, peers, wait) = (&wanted, linked.clone(), false);
                let context = LinkContext { env, config, options, wanted, tracker, peers, wait };
                link::follow_with(node, link, context).await?
            }
            _ => {
                let found = node.unless_ended(query::find(env, &wanted, tracker, false)).await;
                found.transpose()?.map(Found::without_peers)
            }
        };
        let Some(Found { metainfo, tracker, mut peers, .. }) = found else { return Ok(()) };
        if !metainfo.info().is_private() {
            peers.extend(linked);
        }
        get::keep(env, &self.config, &metainfo)?;
        let role = Role::Get { nobody: None, seed_for: None };
        get::begin(node, env, metainfo, tracker.as_ref(), &target, peers, role)
    }

    /// Lists the catalogue of a tracker, and uses this tracker from now on.
    async fn connect(&mut self, node: &mut Node, tracker: Tracker) -> Result<(), CliError> {
        let Some(entries) = node.unless_ended(tracker.list(None)).await else { return Ok(()) };
        let entries = entries?;
        let text = match entries.len() {
            0 => format!("the catalogue of {} is empty", tracker.shown),
            _ => {
                let screen = node.screen();
                query::catalogue(&entries, screen.answer_width(), screen.paint())
            }
        };
        self.tracker = tracker;
        let names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
        node.screen().complete(Completion::new(&ConsoleCommand::NAMES, &["r", "d"], move |text| {
            names.iter().filter(|name| begins(name, text)).take(MOST_COMPLETED).cloned().collect()
        }));
        node.screen().line(text);
        Ok(())
    }

    fn ask(&mut self, node: &Node, question: Question, text: &str) {
        self.question = Some(question);
        node.screen().line(text);
    }

    /// Deletes one or all of our entries from the tracker, or lists them and asks.
    async fn delete(&mut self, env: &Env, node: &mut Node, which: &str) -> Result<(), CliError> {
        let mine = self.mine(env)?;
        if mine.is_empty() {
            node.screen().line("none of your torrents has an entry to delete");
            return Ok(());
        }
        if which.is_empty() {
            let lines = mine.iter().enumerate().map(|(number, mine)| {
                let name = printable(mine.metainfo.info().name()).into_owned();
                format!("{:>4}  {name}  {}", number + 1, mine.metainfo.info_hash())
            });
            let text = lines.collect::<Vec<_>>().join("\n");
            let text = format!("{text}\ndelete which? A number, or `all`");
            self.ask(node, Question::WhatToDelete, &text);
            return Ok(());
        }
        let chosen: Vec<&RegisteredTorrent> = match which.parse::<usize>() {
            Ok(number) => number.checked_sub(1).and_then(|at| mine.get(at)).into_iter().collect(),
            Err(_) if which == "all" => mine.iter().collect(),
            Err(_) => meant_by(which, &mine, |mine| {
                (mine.metainfo.info_hash(), mine.metainfo.info().name())
            }),
        };
        if chosen.is_empty() {
            return Err(CliError::failed(format_args!("there is no `{}`", printable(which))));
        }
        let mut deleted = 0;
        for mine in &chosen {
            let removing = self.tracker.remove(mine.metainfo.info_hash(), &mine.token);
            let Some(removed) = node.unless_ended(removing).await else { return Ok(()) };
            removed?;
            std::fs::remove_file(&mine.path).map_err(|error| {
                CliError::failed(format_args!("`{}` stays: {error}", shown(&mine.path)))
                    .because(error)
            })?;
            deleted += 1;
        }
        let entries = counted(deleted, "entry").replace("entrys", "entries");
        node.screen().line(format_args!("{entries} deleted from {}", self.tracker.shown));
        Ok(())
    }

    /// Returns the torrents in our folder that have a token.
    fn mine(&self, env: &Env) -> Result<Vec<RegisteredTorrent>, CliError> {
        let folder = env.path(&self.config.torrents);
        let cannot = |error: std::io::Error| {
            CliError::failed(format_args!("`{}` cannot be read: {error}", shown(&folder)))
                .because(error)
        };
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(cannot(error)),
        };
        let mut mine = Vec::new();
        for entry in entries {
            let path = entry.map_err(cannot)?.path();
            if path.extension().is_none_or(|ext| ext != "token") {
                continue;
            }
            let torrent = path.with_extension("");
            let Ok(metainfo) = torrent_file::read(&torrent, &torrent) else { continue };
            let token = std::fs::read_to_string(&path).map_err(cannot)?.trim().to_owned();
            mine.push(RegisteredTorrent { path, token, metainfo });
        }
        mine.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(mine)
    }

    fn text(&self, node: &Node) -> String {
        let paint = node.screen().paint();
        let row = |key: &str, text: &str| format!("  {}  {text}", paint.bold(key));
        [
            format!("tracker {}", paint.bold(&self.tracker.shown)),
            row("c", "connect to a tracker and list its catalogue"),
            row("s", "share a file or folder"),
            row("r", "request a file"),
            row("d", "delete my entries from the tracker"),
            row("q", "quit"),
            paint.dim("  and: request logs, status, peers, files, help"),
        ]
        .join("\n")
    }
}

impl<'a> Choice<'a> {
    fn parse(line: &'a str) -> Self {
        let line = line.trim_start_matches('>').trim();
        let (key, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match key {
            "c" | "connect" => Self::Connect(rest),
            "s" | "share" => Self::Share(rest),
            "r" | "request" | "get" => Self::Request(rest),
            "d" | "delete" => Self::Delete(rest),
            _ => Self::Unknown,
        }
    }
}

/// Maximum number of names that the Tab key offers.
const MOST_COMPLETED: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_take_their_answer_along_or_ask_for_it() {
        assert_eq!(Choice::parse("c"), Choice::Connect(""));
        assert_eq!(Choice::parse("> c 10.0.0.1:8000 "), Choice::Connect("10.0.0.1:8000"));
        assert_eq!(Choice::parse("s my file.iso"), Choice::Share("my file.iso"));
        assert_eq!(Choice::parse("r x"), Choice::Request("x"));
        assert_eq!(Choice::parse("d all"), Choice::Delete("all"));
        assert_eq!(Choice::parse("zzz"), Choice::Unknown);
    }
}
