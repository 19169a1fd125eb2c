//! `torrent-tracker`: the tracker and its console.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use serde::Deserialize;

use piecework_core::printable;
use piecework_engine as session;
use piecework_tracker::{
    ConsoleReply, TrackerConfig, TrackerHandle, TrackerServer, TrackerStartError,
};

use super::completion::{Completion, begins};
use super::error::listen_advice;
use super::exit_deadline::{self, ExitDeadline};
use super::notify::Supervisor;
use super::signals::Signals;
use super::{CliError, Config, ConsoleInput, Env, Exit, LogArgs, LogConfig, Screen, logging};

/// Run a tracker, which keeps the torrents of a network and knows who holds which pieces.
#[derive(Parser)]
#[command(
    name = "torrent-tracker",
    version,
    after_help = "Example: torrent-tracker 0.0.0.0:8000\n\n\
                  While it runs, type: request logs, file_logs -all, file_logs NAME, swarm NAME, \
                  holders NAME PIECE, at_risk NAME, missing NAME PEER, without NAME PEER, \
                  observe NAME on|off, remove NAME, peers, load, stats, help, quit"
)]
struct TrackerArgs {
    /// Address to listen on, for HTTP over TCP and for UDP [default: 127.0.0.1:8000].
    #[arg(value_name = "IP:PORT")]
    listen: Option<String>,
    /// Address to listen on, instead of the one in IP:PORT.
    #[arg(long, value_name = "H")]
    host: Option<String>,
    /// Port to listen on, instead of the one in IP:PORT. 0 takes a free one.
    #[arg(long, value_name = "P")]
    port: Option<u16>,
    /// Do not connect to peers to see which pieces they hold.
    #[arg(long)]
    no_observe: bool,
    /// Read the configuration from this file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

pub fn main(env: Env) -> Exit {
    env.run(|args: TrackerArgs, env| {
        let exit_deadline = ExitDeadline::new(env);
        let (config, log) = configuration(env, &args)?;
        logging::start(env, &log.with(&args.log))?;
        // Clients and observed peers each need a file descriptor, so raise the limit as far as the
        // system allows.
        if let Err(error) = session::raise_file_limit() {
            tracing::debug!(%error, "the number of open files stays as it is");
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
                CliError::failed(format_args!("no threads can be started: {error}")).because(error)
            })?;
        let result = runtime.block_on(run(env, config, &exit_deadline));
        // What still runs waits for stdin, or had time to end.
        runtime.shutdown_background();
        result
    })
}

/// Returns the `[tracker]` section of `config`, with paths resolved from the working directory.
///
/// # Errors If it has an unknown key, or a value that is not valid.
pub fn section(env: &Env, config: &toml::Table) -> Result<TrackerConfig, CliError> {
    // The tracker itself does not know the logging options.
    let mut config = config.clone();
    config.retain(|key, _| !LOG_KEYS.contains(&key));
    let mut config: TrackerConfig = config.try_into().map_err(invalid)?;
    config.torrents = config.torrents.map(|path| env.path(path));
    config.state = config.state.map(|path| env.path(path));
    config.certificate = config.certificate.map(|path| env.path(path));
    config.certificate_key = config.certificate_key.map(|path| env.path(path));
    // A bare name is next to the state.
    let has_folder = |path: &PathBuf| path.components().count() > 1;
    let beside = |path: PathBuf| if has_folder(&path) { env.path(path) } else { path };
    config.journal = config.journal.map(beside);
    config.operator_token = config.operator_token.map(beside);
    Ok(config)
}

/// Returns the `[tracker]` section of `config`, overridden by environment variables.
///
/// # Errors As in [`section`], or if a variable is not valid.
pub(super) fn program(env: &Env, config: &toml::Table) -> Result<TrackerConfig, CliError> {
    let mut config = section(env, config)?;
    if let Some(text) = env.var("PIECEWORK_TRACKER_LISTEN") {
        config.listen = parse_listen(text)
            .map_err(|error| CliError::usage(format_args!("PIECEWORK_TRACKER_LISTEN: {error}")))?;
    }
    if let Some(path) = env.var("PIECEWORK_TRACKER_TORRENTS") {
        config.torrents = Some(env.path(path));
    }
    if let Some(path) = env.var("PIECEWORK_TRACKER_STATE") {
        config.state = Some(env.path(path));
    }
    if let Some(path) = env.var("PIECEWORK_TRACKER_JOURNAL") {
        config.journal = (path != "none").then(|| path.into());
    }
    Ok(config)
}

/// Returns the logging options in the `[tracker]` section of `config`.
fn log_section(config: &toml::Table) -> Result<LogConfig, CliError> {
    let mut config = config.clone();
    config.retain(|key, _| LOG_KEYS.contains(&key));
    let LogSection { log_level, log_json, log_file } = config.try_into().map_err(invalid)?;
    Ok(LogConfig { level: log_level, json: log_json, file: log_file })
}

fn invalid(error: toml::de::Error) -> CliError {
    let error = error.to_string();
    let error = printable(error.trim()).replace("\\x0a", " ");
    CliError::usage(format_args!("`[tracker]` in the configuration is not valid: {error}"))
}

/// The logging keys of `[tracker]`.
#[derive(Deserialize)]
#[serde(default)]
struct LogSection {
    log_level: String,
    log_json: bool,
    log_file: PathBuf,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { log_level: "warn".to_owned(), log_json: false, log_file: PathBuf::new() }
    }
}

const LOG_KEYS: [&str; 3] = ["log_level", "log_json", "log_file"];

/// The command line overrides the environment, which overrides the file, which overrides defaults.
fn configuration(env: &Env, args: &TrackerArgs) -> Result<(TrackerConfig, LogConfig), CliError> {
    let file = Config::load(env, args.config.as_deref())?.tracker;
    let log = log_section(&file)?;
    let mut config = program(env, &file)?;
    if let Some(text) = &args.listen {
        config.listen = parse_listen(text).map_err(CliError::usage)?;
    }
    if let Some(host) = &args.host {
        config.listen.set_ip(parse_host(host).map_err(CliError::usage)?);
    }
    if let Some(port) = args.port {
        config.listen.set_port(port);
    }
    config.observe &= !args.no_observe;
    Ok((config, log))
}

fn start_error(error: TrackerStartError) -> CliError {
    match &error {
        TrackerStartError::Listen { error: why, .. } => {
            CliError::failed(format_args!("{error}{}", listen_advice(why)))
        }
        _ => CliError::failed(error),
    }
}

async fn run(
    env: &mut Env,
    config: TrackerConfig,
    exit_deadline: &ExitDeadline,
) -> Result<(), CliError> {
    let (mut end, mut hangup) = (Signals::end()?, Signals::hangup()?);
    let supervisor = Supervisor::from_env(env);
    let https = config.certificate.is_some();
    let tracker = Arc::new(TrackerServer::start(config).await.map_err(start_error)?);
    let (screen, mut commands) = Screen::with_console(env)?;
    for notice in tracker.notices() {
        screen.notice(format_args!("warning: {notice}"));
    }
    let weak = Arc::downgrade(&tracker);
    screen.complete(Completion::new(&COMMANDS, &NAMING, move |text| {
        weak.upgrade().map_or_else(Vec::new, |tracker| tracker.names(|name| begins(name, text)))
    }));
    let at = tracker.local_addr();
    let line = format!("tracker listening on http://{at}/announce and udp://{at}/announce");
    supervisor.ready(&line);
    match https {
        true => screen.line(format_args!("{line}, and by https on the same port")),
        false => screen.line(line),
    }
    let mut look = tokio::time::interval(LOOK_AT_PEERS);
    let mut peak = PeerPeak::default();
    loop {
        let typed = tokio::select! {
            typed = commands.next() => typed,
            _ = look.tick() => {
                if peak.is_far_above(tracker.peers()) {
                    // Runs in the background. The allocator keeps the memory of peers that have expired.
                    tokio::task::spawn_blocking(piecework_daemon::heap::give_back);
                }
                continue;
            }
            () = end.next() => break,
            () = hangup.next() => break,
        };
        let ConsoleInput::Line(line) = typed else { break };
        match answer(&tracker, line, screen.terminal_width()).await? {
            ConsoleReply::Text(text) if text.is_empty() => {}
            ConsoleReply::Text(text) => screen.line(text),
            ConsoleReply::Quit => break,
        }
    }
    exit_deadline.set(exit_deadline::TO_END, Exit::Failed);
    supervisor.stopping();
    screen.close();
    // In its own task, so that a second signal is handled whatever this waits for.
    let ending = tokio::spawn(async move {
        // All answers of the console are done, so this is the only reference.
        if let Ok(tracker) = Arc::try_unwrap(tracker) {
            tracker.shutdown().await;
        }
    });
    tokio::select! {
        ended = ending => ended
            .map_err(|panic| CliError::failed(format_args!("shutting down failed: {panic}")).because(panic)),
        () = end.next() => at_once(exit_deadline),
    }
}

/// The largest number of peers since memory was last given back to the system.
#[derive(Default)]
struct PeerPeak(usize);

impl PeerPeak {
    /// Returns whether so many peers have left that their memory is worth giving back. Then `peers` is the new peak.
    fn is_far_above(&mut self, peers: usize) -> bool {
        let is_far = self.0.saturating_sub(peers) > (self.0 / 4).max(FEW_PEERS);
        self.0 = if is_far { peers } else { self.0.max(peers) };
        is_far
    }
}

/// The time between two looks at the number of peers.
const LOOK_AT_PEERS: Duration = Duration::from_secs(10);

/// This many peers take less than a MiB.
const FEW_PEERS: usize = 10_000;

/// Commands of the console without a name, and those that take a name.
const COMMANDS: [&str; 7] =
    ["file_logs -all", "help", "load", "peers", "quit", "request logs", "stats"];
const NAMING: [&str; 8] =
    ["at_risk", "file_logs", "holders", "missing", "observe", "remove", "swarm", "without"];

/// Handles a second signal: waits for nothing any more.
fn at_once(exit_deadline: &ExitDeadline) -> Result<(), CliError> {
    exit_deadline.set(exit_deadline::AT_ONCE, Exit::Interrupted);
    Err(CliError::silent(Exit::Interrupted))
}

/// Runs a command on another thread, because long answers take time and the tracker must go on.
async fn answer(
    tracker: &Arc<TrackerHandle>,
    line: String,
    width: Option<usize>,
) -> Result<ConsoleReply, CliError> {
    let tracker = Arc::clone(tracker);
    let answered = tokio::task::spawn_blocking(move || match width {
        Some(width) => tracker.console_within(&line, width),
        None => tracker.console(&line),
    })
    .await;
    answered
        .map_err(|error| CliError::failed(format_args!("a command failed: {error}")).because(error))
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let named = || text.strip_prefix("localhost:")?.parse().ok().map(localhost);
    text.parse().ok().or_else(named).ok_or_else(|| {
        format!(
            "`{}` is not an address to listen on: write IP:PORT, for instance 0.0.0.0:8000",
            printable(text)
        )
    })
}

fn parse_host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(localhost(0).ip());
    }
    text.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .map_err(|_| format!("`{}` is not an IP address to listen on", printable(text)))
}

fn localhost(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Input, Output};
    use super::*;

    fn env(dir: &Path, args: &[&str], stdin: &str) -> (Env, super::super::Captured) {
        let (out, text) = Output::captured();
        let stdin = Input::new(std::io::Cursor::new(stdin.to_owned()), false);
        (Env::new("torrent-tracker", args, dir, out.clone(), out).with_stdin(stdin), text)
    }

    fn listen_of(dir: &Path, var: Option<&str>, args: &[&str]) -> Result<SocketAddr, String> {
        let (mut env, _) = env(dir, args, "");
        if let Some(var) = var {
            env = env.with_var("PIECEWORK_TRACKER_LISTEN", var);
        }
        let args =
            TrackerArgs::try_parse_from(std::iter::once("t").chain(args.iter().copied())).unwrap();
        configuration(&env, &args)
            .map(|(config, _)| config.listen)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn memory_is_given_back_after_a_quarter_of_many_peers_has_left() {
        let mut peak = PeerPeak::default();
        let peers = [0, 9_000, 100, 100_000, 90_001, 74_999, 60_000, 40_000, 41_000, 0, 0];
        let given = peers.map(|peers| peak.is_far_above(peers));
        let wanted = [false, false, false, false, false, true, false, true, false, true, false];
        assert_eq!(given, wanted);
    }

    #[test]
    fn where_to_listen_is_taken_from_the_nearest_source() {
        let dir = tempfile::tempdir().unwrap();
        let listen = |var, args: &[&str]| listen_of(dir.path(), var, args);
        assert_eq!(listen(None, &[]), Ok("127.0.0.1:8000".parse().unwrap()));
        std::fs::write(dir.path().join("config.toml"), "[tracker]\nlisten = \"10.0.0.1:1\"\n")
            .unwrap();
        assert_eq!(listen(None, &[]), Ok("10.0.0.1:1".parse().unwrap()));
        assert_eq!(listen(Some("10.0.0.2:2"), &[]), Ok("10.0.0.2:2".parse().unwrap()));
        assert_eq!(listen(Some("10.0.0.2:2"), &["[::]:3"]), Ok("[::]:3".parse().unwrap()));
        assert_eq!(listen(None, &["--port", "4"]), Ok("10.0.0.1:4".parse().unwrap()));
        assert_eq!(listen(None, &["--host", "::1"]), Ok("[::1]:1".parse().unwrap()));
        assert_eq!(listen(None, &["localhost:9"]), Ok("127.0.0.1:9".parse().unwrap()));
        let observe = |args: &[&str]| {
            let (env, _) = env(dir.path(), args, "");
            let args =
                TrackerArgs::try_parse_from(std::iter::once("t").chain(args.iter().copied()));
            configuration(&env, &args.unwrap()).unwrap().0.observe
        };
        assert!(observe(&[]) && !observe(&["--no-observe"]));
        assert!(listen(None, &["example"]).unwrap_err().contains("`example`"));
        assert!(listen(None, &["--host", "h\x1b"]).unwrap_err().contains("`h\\x1b`"));
        std::fs::write(dir.path().join("config.toml"), "[tracker]\nlisten = 5\n").unwrap();
        assert!(listen(None, &[]).unwrap_err().contains("[tracker]"));
    }

    #[test]
    fn the_program_answers_commands_from_a_pipe_and_quits() {
        let dir = tempfile::tempdir().unwrap();
        let (env, text) = env(
            dir.path(),
            &["127.0.0.1:0"],
            "file_logs>no such\x07file\n>request logs\nnonsense\nquit\n",
        );
        assert_eq!(main(env), Exit::Fine);
        let text = text.text();
        assert!(text.starts_with("tracker listening on http://127.0.0.1:"), "{text}");
        assert!(text.contains("\nno file named `no such\\x07file` is known to this tracker\n"));
        assert!(text.contains("\nno requests yet\n"));
        assert!(text.contains("\nthere is no command `nonsense`; `help` lists them\n"));
        assert!(dir.path().join("torrents/tracker.sqlite").exists());
    }

    #[test]
    fn an_address_in_use_is_one_sentence() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap().to_string();
        let dir = tempfile::tempdir().unwrap();
        let (env, text) = env(dir.path(), &[&addr], "");
        assert_eq!(main(env), Exit::Failed);
        let text = text.text();
        assert!(text.starts_with(&format!("error: cannot listen on `{addr}`")), "{text}");
        assert!(text.contains("another program listens there, choose another port"), "{text}");
        assert_eq!(text.lines().count(), 1);
        assert!(!dir.path().join("torrents").exists(), "nothing is touched");
    }
}
