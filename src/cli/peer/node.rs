//! A running peer: its session, its log, its console, and the loop that ties them together.

use piecework_core::SaturatingFrom;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use piecework_core::{explained, printable};
use piecework_daemon::{Recorder, encryption_policy};
use piecework_engine::{
    self as session, AddError, AddTorrent, FetchedMetadata, MetadataRequest, Session,
    SessionConfig, StartError, TorrentHandle, TorrentState, TorrentStatus,
};
use piecework_journal::{Filter, Journal, PieceLog};
use piecework_proto::encryption::EncryptionPolicy;
use piecework_swarm::announcer::TrackerState;
use piecework_swarm::hang_ups;

use super::super::completion::Completion;
use super::super::console::ConsoleCommand;
use super::super::error::listen_advice;
use super::super::exit_deadline::{self, ExitDeadline};
use super::super::format::{counted, percent, seconds, shown};
use super::super::signals::Signals;
use super::super::{CliError, Commands, ConsoleInput, Env, Exit, PeerConfig, Screen};
use super::view;

/// Options of a node in addition to the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeOptions {
    /// Listen on exactly this address, instead of the configured one or the next free port.
    pub listen: Option<SocketAddr>,
    /// File for a line of JSON for every response.
    pub log: Option<PathBuf>,
}

/// A running peer.
pub(super) struct Node {
    session: Session,
    log: Arc<PieceLog>,
    /// Maximum number of responses to show.
    log_records: usize,
    raw_names: bool,
    /// Handshakes to try with peers.
    encryption: EncryptionPolicy,
    screen: Screen,
    commands: Commands,
    signals: Signals,
    torrents: Vec<NodeTorrent>,
    /// Notified when a torrent has changed.
    changed: Arc<Notify>,
    looked: Instant,
    /// Whether a signal has asked to end.
    asked: bool,
}

/// Why the loop of a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndReason {
    /// The user asked for it: `quit`, Ctrl-C, or a signal.
    Asked,
    /// The work is done.
    Done,
}

/// An event that the loop leaves to its caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The node should end.
    Over(EndReason),
    /// A typed line that is not a command of the console.
    Line(String),
}

/// The role of a torrent in a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It is complete and is shared with others.
    Share,
    /// It is downloaded, then shared.
    Get {
        /// End if no peer that has any of it appears for this time.
        nobody: Option<Duration>,
        /// How long to share it afterwards. `None` for no limit.
        seed_for: Option<Duration>,
    },
}

struct NodeTorrent {
    handle: TorrentHandle,
    role: Role,
    added: Instant,
    /// Tenths of the download that were reported.
    tenths: u64,
    /// Whether it was reported as complete.
    complete: bool,
    /// Since when it is ready to download.
    ready: Option<Instant>,
    /// Whether a peer that has some of it was seen.
    found: bool,
    /// The error that was reported.
    fault: Option<String>,
    /// When to stop sharing it.
    until: Option<Instant>,
}

impl Node {
    /// Returns whether files keep the unmodified names of the torrent.
    pub(super) fn raw_names(&self) -> bool {
        self.raw_names
    }

    /// Returns whether it takes part in the DHT.
    pub(super) fn has_dht(&self) -> bool {
        self.session.dht_figures().is_some()
    }

    /// Starts a node, which listens for peers.
    ///
    /// # Errors If no address is free or the log cannot be written.
    pub(super) fn start(
        env: &Env,
        config: &PeerConfig,
        options: &NodeOptions,
    ) -> Result<Self, CliError> {
        // Peers and files each need a file descriptor, so raise the limit as far as the system
        // allows.
        if let Err(error) = session::raise_file_limit() {
            tracing::debug!(%error, "the number of open files stays as it is");
        }
        let screen = Screen::new(env);
        let log = Arc::new(open_log(env, config, &screen));
        if let Some(path) = &options.log {
            if !is_log(&env.path(path)) {
                return Err(CliError::failed(format_args!(
                    "`{}` exists and is not a log of responses, so nothing is added to it: name \
                     another file with --log",
                    shown(path)
                )));
            }
            log.write_to(&env.path(path)).map_err(|error| {
                CliError::failed(format_args!(
                    "the log `{}` cannot be written: {error}",
                    shown(path)
                ))
                .because(error)
            })?;
        }
        let session = listen(&session_config(config, &log), config.listen, options.listen)?;
        Ok(Self {
            session,
            log,
            log_records: config.log_records,
            raw_names: config.raw_names,
            encryption: encryption_policy(config.encryption),
            screen,
            commands: Commands::none(),
            signals: Signals::end_or_hangup()?,
            torrents: Vec::new(),
            changed: Arc::new(Notify::new()),
            looked: Instant::now(),
            asked: false,
        })
    }

    /// Opens the console. Until then, only signals are handled.
    ///
    /// # Errors
    /// If the terminal cannot be used.
    pub(super) fn open_console(&mut self, env: &mut Env) -> Result<(), CliError> {
        self.screen.close();
        (self.screen, self.commands) = Screen::with_console(env)?;
        self.screen.complete(Completion::new(&ConsoleCommand::NAMES, &[], |_| Vec::new()));
        for addr in self.session.listen_addrs() {
            self.screen.line(self.screen.paint().dim(format_args!("peers can connect to {addr}")));
        }
        Ok(())
    }

    /// Fetches metadata from peers. Returns `None` if a signal asks to end.
    pub(super) async fn fetch_metadata(
        &mut self,
        request: MetadataRequest,
    ) -> Option<Result<FetchedMetadata, CliError>> {
        tokio::select! {
            fetched = self.session.fetch_metadata(request, |_| {}) => {
                Some(fetched.map_err(CliError::failed_by))
            }
            () = self.signals.next() => None,
        }
    }

    /// Adds a torrent.
    ///
    /// # Errors If it is already there or its folder cannot be used.
    pub(super) fn add(&mut self, add: AddTorrent, role: Role) -> Result<(), AddError> {
        let handle = self.session.add(add)?;
        let (mut watched, changed) = (handle.clone(), Arc::clone(&self.changed));
        tokio::spawn(async move {
            while watched.changed().await.is_ok() {
                changed.notify_one();
            }
        });
        self.torrents.push(NodeTorrent {
            handle,
            role,
            added: Instant::now(),
            tenths: 0,
            complete: false,
            ready: None,
            found: false,
            fault: None,
            until: None,
        });
        self.changed.notify_one();
        Ok(())
    }

    /// Runs until the node should end, or until a line is typed that is not a command of the
    /// console.
    ///
    /// # Errors If a download cannot continue.
    pub(super) async fn turn(&mut self) -> Result<Turn, CliError> {
        loop {
            if self.asked {
                return Ok(Turn::Over(EndReason::Asked));
            }
            let look_at = self.looked + self.spacing();
            let (changed, deadline) = (Arc::clone(&self.changed), self.deadline());
            tokio::select! {
                typed = self.commands.next() => {
                    if let Some(turn) = self.typed(typed).await {
                        return Ok(turn);
                    }
                }
                () = self.signals.next() => return Ok(Turn::Over(EndReason::Asked)),
                () = async { changed.notified().await; sleep_until(look_at).await } => {}
                () = sleep_until(deadline.unwrap_or(look_at)), if deadline.is_some() => {}
            }
            if let Some(ended) = self.look().await? {
                return Ok(Turn::Over(ended));
            }
        }
    }

    /// Waits for `work` unless a signal asks to end first. The next [`Node::turn`] then returns
    /// too.
    pub(super) async fn unless_ended<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        if self.asked {
            return None;
        }
        tokio::select! {
            value = work => Some(value),
            () = self.signals.next() => {
                self.asked = true;
                None
            }
        }
    }

    /// Leaves all swarms and tells trackers, within ten seconds. A second signal ends this at once.
    pub(super) async fn leave(mut self, exit_deadline: &ExitDeadline) -> Exit {
        exit_deadline.set(exit_deadline::TO_END, Exit::Failed);
        self.screen.close();
        if self.screen.is_live() {
            let note = "leaving the network; Ctrl-C again leaves at once";
            self.screen.notice(self.screen.live_paint().dim(note));
        }
        let (session, log) = (self.session.clone(), Arc::clone(&self.log));
        // In its own task, so that a second signal is handled whatever this waits for.
        let leaving = tokio::spawn(async move {
            session.shutdown_by(Instant::now() + LEAVING).await.log();
            tokio::task::spawn_blocking(move || log.close()).await
        });
        let closed = tokio::select! {
            left = leaving => left.flatten(),
            () = self.signals.next() => {
                exit_deadline.set(exit_deadline::AT_ONCE, Exit::Interrupted);
                return Exit::Interrupted;
            }
        };
        let summary = match closed {
            Ok(summary) => summary,
            Err(panic) => {
                self.screen.notice(format_args!("shutting down failed: {panic}"));
                return Exit::Failed;
            }
        };
        if let Some(summary) = summary {
            if let Some(error) = summary.error {
                self.screen.notice(format_args!("the log could not be written: {error}"));
            }
            if summary.dropped > 0 {
                let lines = counted(summary.dropped, "line");
                self.screen.notice(format_args!("{lines} of the log were dropped"));
            }
        }
        Exit::Fine
    }

    pub(super) fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Returns the status of torrents that are not complete.
    pub(super) fn unfinished(&self) -> Vec<TorrentStatus> {
        let getting =
            |torrent: &&NodeTorrent| matches!(torrent.role, Role::Get { .. }) && !torrent.complete;
        self.torrents.iter().filter(getting).map(|torrent| torrent.handle.status()).collect()
    }

    async fn typed(&mut self, typed: ConsoleInput) -> Option<Turn> {
        let line = match typed {
            ConsoleInput::Interrupt | ConsoleInput::End => {
                return Some(Turn::Over(EndReason::Asked));
            }
            ConsoleInput::Line(line) => line,
        };
        let command = match ConsoleCommand::parse(&line) {
            Ok(command) => command,
            Err(_) => return Some(Turn::Line(line)),
        };
        let (width, paint) = (self.screen.answer_width(), self.screen.paint());
        let answer = match command {
            // An empty line may answer a question.
            ConsoleCommand::Nothing => return Some(Turn::Line(line)),
            ConsoleCommand::Quit => return Some(Turn::Over(EndReason::Asked)),
            ConsoleCommand::Help => explained(ConsoleCommand::HELP, width),
            ConsoleCommand::Status => view::status(&self.statuses(), paint),
            ConsoleCommand::Peers => {
                let mut torrents = Vec::with_capacity(self.torrents.len());
                for torrent in &self.torrents {
                    torrents.push((torrent.handle.status(), torrent.handle.peers().await));
                }
                view::peers(&torrents, width, paint)
            }
            ConsoleCommand::Files => {
                let mut torrents = Vec::with_capacity(self.torrents.len());
                for NodeTorrent { handle, .. } in &self.torrents {
                    if let Some(have) = handle.have().await {
                        torrents.push((handle.status(), handle.metainfo().as_ref(), have));
                    }
                }
                view::files(&torrents, width, paint)
            }
            ConsoleCommand::RequestLogs(page) => {
                let (log, limit) = (Arc::clone(&self.log), self.log_records);
                let dropped = self.log.dropped();
                let read = move || log.records(Filter::default(), limit);
                match tokio::task::spawn_blocking(read).await {
                    Ok(Ok(records)) => {
                        let shown = &records[page.range(records.len())];
                        let mut text = view::request_log(shown, dropped, width, paint);
                        if let Some(note) = page.note(records.len(), "request logs") {
                            text.push_str(&format!("\n{note}"));
                        }
                        text
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => format!("the journal could not be read: {error}"),
                }
            }
        };
        self.screen.line(answer);
        None
    }

    /// Checks every torrent, reports news, and returns whether the node should end.
    async fn look(&mut self) -> Result<Option<EndReason>, CliError> {
        self.looked = Instant::now();
        let statuses = self.statuses();
        let live = self.screen.is_live();
        if live {
            let line = view::live_line(&statuses, self.screen.width(), self.screen.live_paint());
            self.screen.live(&line);
        }
        let mut ended = None;
        for (torrent, status) in self.torrents.iter_mut().zip(&statuses) {
            torrent.tell(status, &self.screen, &self.log)?;
            if !live {
                torrent.tell_tenths(status, &self.screen);
            }
            if torrent.is_lonely(status).await {
                let now = torrent.handle.waited().standing;
                let hung_up = now.map_or(0, |now| now.hung_up);
                let doors = hang_ups(hung_up, self.encryption);
                return Err(nobody(status, torrent.added.elapsed(), doors));
            }
            if torrent.until.is_some_and(|until| until <= Instant::now()) {
                ended = Some(EndReason::Done);
            }
        }
        Ok(ended)
    }

    fn statuses(&self) -> Vec<TorrentStatus> {
        self.torrents.iter().map(|torrent| torrent.handle.status()).collect()
    }

    fn deadline(&self) -> Option<Instant> {
        self.torrents.iter().filter_map(NodeTorrent::deadline).min()
    }

    /// Returns the time between two checks, which grows with the number of torrents.
    fn spacing(&self) -> Duration {
        Duration::from_millis(100) * (1 + u32::saturating_from(self.torrents.len()) / 100)
    }
}

impl NodeTorrent {
    /// Reports changes of the torrent, each of them once.
    fn tell(
        &mut self,
        status: &TorrentStatus,
        screen: &Screen,
        log: &PieceLog,
    ) -> Result<(), CliError> {
        let name = printable(&status.name);
        let checked =
            !matches!(status.state, TorrentState::Waiting | TorrentState::Checking { .. });
        if checked && self.ready.is_none() {
            self.ready = Some(Instant::now());
            if self.role == Role::Share && status.state == TorrentState::Downloading {
                let have = counted(status.pieces_have.into(), "piece");
                let note = format!("{name}: only {have} of {} are here", status.pieces_total);
                screen.notice(screen.live_paint().yellow(note));
                screen.line(format_args!("seeding {name}"));
            }
        }
        match &status.state {
            TorrentState::Seeding if !self.complete => {
                self.complete = true;
                self.fault = None;
                if let Role::Get { seed_for, .. } = self.role {
                    self.until = seed_for.map(|time| Instant::now() + time);
                    let paint = screen.paint();
                    screen.line(view::complete_line(status, self.added.elapsed(), paint));
                    let totals = log.totals(status.info_hash);
                    if totals.iter().any(|total| total.pieces > 0) {
                        let unlisted = log.unlisted(status.info_hash);
                        let width = screen.answer_width();
                        screen.line(view::givers(&totals, unlisted, width, paint));
                    }
                    if seed_for == Some(Duration::ZERO) {
                        return Ok(());
                    }
                }
                screen.line(format_args!("seeding {name}"));
            }
            TorrentState::Paused { reason: Some(reason) }
                if self.fault.as_ref() != Some(reason) =>
            {
                self.fault = Some(reason.clone());
                let sentence = format!("`{name}` stopped: {}", printable(reason));
                if let Role::Get { nobody: _, .. } = self.role
                    && !self.complete
                {
                    return Err(CliError::failed(format_args!(
                        "{sentence}; verified pieces are kept: when this is fixed, the same command \
                         continues with it"
                    )));
                }
                screen.notice(format_args!("{} {sentence}", screen.live_paint().red("error:")));
            }
            _ => {}
        }
        Ok(())
    }

    fn tell_tenths(&mut self, status: &TorrentStatus, screen: &Screen) {
        let getting = matches!(self.role, Role::Get { .. });
        if !getting || status.state != TorrentState::Downloading {
            return;
        }
        let tenths = percent(status.pieces_have.into(), status.pieces_total.into()) / 10;
        if tenths > self.tenths {
            self.tenths = tenths;
            screen.notice(view::tenth_line(status));
        }
    }

    /// Returns whether no peer that has any of it appeared in time.
    async fn is_lonely(&mut self, status: &TorrentStatus) -> bool {
        if self.found || self.complete {
            return false;
        }
        if status.downloaded > 0 {
            self.found = true;
        } else if status.peers > 0 {
            self.found = self.handle.peers().await.iter().any(|peer| peer.pieces > 0);
        }
        !self.found && self.lonely_at().is_some_and(|end| end <= Instant::now())
    }

    fn lonely_at(&self) -> Option<Instant> {
        let Role::Get { nobody: Some(patience), .. } = self.role else { return None };
        (!self.found && !self.complete).then_some(self.ready? + patience)
    }

    fn deadline(&self) -> Option<Instant> {
        [self.lonely_at(), self.until].into_iter().flatten().min()
    }
}

/// Opens the log of pieces, with its journal if there is one. If the journal cannot be opened, the
/// node starts without it.
fn open_log(env: &Env, config: &PeerConfig, screen: &Screen) -> PieceLog {
    let journal = config.journal(env, &config.journal, &config.torrents, "torrent-peer");
    let Some(options) = journal else { return PieceLog::new(config.log_records) };
    let warn = |text: &dyn std::fmt::Display| {
        screen.notice(format_args!("{} {text}", screen.live_paint().yellow("warning:")));
    };
    match Journal::open(&options) {
        Ok(journal) => {
            if let Some(notice) = journal.notice() {
                warn(&notice);
            }
            PieceLog::with_journal(Arc::new(journal), true)
        }
        Err(error) => {
            warn(&format_args!("{error}; responses are remembered in memory only"));
            PieceLog::new(config.log_records)
        }
    }
}

fn session_config(config: &PeerConfig, log: &Arc<PieceLog>) -> SessionConfig {
    SessionConfig { observer: Some(Arc::new(Recorder::new(Arc::clone(log)))), ..config.session() }
}

/// Starts a session that listens on exactly `wanted`, or else on `usual` or the next free port.
fn listen(
    config: &SessionConfig,
    usual: SocketAddr,
    wanted: Option<SocketAddr>,
) -> Result<Session, CliError> {
    let mut addr = wanted.unwrap_or(usual);
    let mut tries = if wanted.is_some() || usual.port() == 0 { 1 } else { PORTS_TRIED };
    loop {
        match Session::start(SessionConfig { listen: vec![addr], ..config.clone() }) {
            Ok(session) => return Ok(session),
            Err(StartError::Listen { error, .. })
                if error.kind() == std::io::ErrorKind::AddrInUse
                    && tries > 1
                    && addr.port() < u16::MAX =>
            {
                tries -= 1;
                addr.set_port(addr.port() + 1);
            }
            Err(error) => {
                let advice = match &error {
                    StartError::Listen { error, .. } => listen_advice(error),
                    _ => "",
                };
                return Err(CliError::failed(format_args!("{error}{advice}")));
            }
        }
    }
}

/// Returns whether a log may be appended to the file at `path`: it does not exist, is empty, or
/// begins like a line of JSON. Anything but a regular file, such as a pipe, is accepted.
fn is_log(path: &Path) -> bool {
    let mut first = [0];
    match path.metadata() {
        Ok(metadata) if metadata.is_file() && metadata.len() > 0 => File::open(path)
            .and_then(|mut file| file.read_exact(&mut first))
            .is_ok_and(|()| first == *b"{"),
        _ => true,
    }
}

/// Returns the error when no peer appears. `doors` describes peers that close connections at our
/// handshake.
fn nobody(status: &TorrentStatus, waited: Duration, doors: Option<String>) -> CliError {
    let trackers: Vec<String> = status
        .trackers
        .iter()
        .filter(|tracker| {
            let silent = tracker.state == TrackerState::Announcing && tracker.seeds.is_none();
            silent || tracker.last_error.is_some()
        })
        .map(super::tracker::describe)
        .chain(doors)
        .collect();
    let because = match trackers.is_empty() {
        true => String::new(),
        false => format!(" ({})", trackers.join("; ")),
    };
    CliError::failed(format_args!(
        "no peer that has `{}` appeared within {}{because}; `--wait` waits longer",
        printable(&status.name),
        seconds(waited.max(Duration::from_secs(1))),
    ))
}

/// Ports to try, one after the other, when the usual one is in use by other peers on this machine.
const PORTS_TRIED: u16 = 100;

/// Time to leave the swarms. The rest of ten seconds is for the log and for a tracker in this
/// process.
const LEAVING: Duration = Duration::from_secs(7);

#[cfg(test)]
mod tests {
    use piecework_core::InfoHash;
    use piecework_proto::announce::TrackerUrl;
    use piecework_swarm::announcer::TrackerStatus;

    use super::*;

    #[test]
    fn a_log_is_added_to_no_file_that_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(is_log(&path) && is_log(Path::new("/dev/null")));
        for (content, is) in [("", true), ("{\"time\":1}\n", true), ("my notes\n", false)] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(is_log(&path), is, "{content}");
        }
    }

    #[test]
    fn whoever_finds_nobody_is_told_which_trackers_were_no_help() {
        let tracker = |port, state, last_error: Option<&str>, seeds| TrackerStatus {
            url: TrackerUrl::parse(&format!("udp://10.0.0.1:{port}")).unwrap(),
            state,
            last_error: last_error.map(str::to_owned),
            warning: None,
            last_announce: None,
            next_announce: None,
            seeds,
            leechers: seeds,
            peers: 0,
        };
        let status = TorrentStatus {
            name: "x\x1b".to_owned(),
            info_hash: InfoHash([1; 20]),
            state: TorrentState::Downloading,
            pieces_total: 1,
            pieces_have: 0,
            bytes_total: 1,
            bytes_have: 0,
            bytes_wanted: 1,
            bytes_wanted_have: 0,
            corrupt: 0,
            downloaded: 0,
            uploaded: 0,
            download_rate: 0.0,
            upload_rate: 0.0,
            peers: 0,
            seeds: 0,
            peers_giving: 0,
            peers_taking: 0,
            eta: None,
            trackers: vec![
                tracker(1, TrackerState::Announcing, None, None),
                tracker(2, TrackerState::Failed, Some("it is\x1b down"), None),
                tracker(3, TrackerState::Working, None, Some(0)),
                tracker(4, TrackerState::Idle, None, None),
            ],
            trouble: None,
        };
        assert_eq!(
            nobody(&status, Duration::from_secs(12), None).to_string(),
            "no peer that has `x\\x1b` appeared within 12s (udp://10.0.0.1:1: asked, no answer yet; \
             udp://10.0.0.1:2: it is\\x1b down); `--wait` waits longer"
        );
        let doors = hang_ups(1, EncryptionPolicy::Plain);
        let told = nobody(&status, Duration::from_secs(12), doors).to_string();
        assert!(
            told.contains("closes it at our handshake: it probably demands encryption"),
            "{told}"
        );
    }
}
