//! `torrent-daemon`: many torrents in the background.

mod section;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tokio::time::{Instant, MissedTickBehavior};

use piecework_control::{self as control, Control, ControlConfig};
use piecework_core::printable;
use piecework_daemon::{Daemon, DaemonConfig, StartError};
use piecework_engine as session;
use piecework_proto::announce::TrackerTarget;

use super::error::listen_advice;
use super::exit_deadline::{self, ExitDeadline};
use super::notify::Supervisor;
use super::signals::Signals;
use super::token::{self, TokenFiles};
use super::{CliError, Config, Env, Exit, LogArgs, logging};

pub use section::{DaemonSection, Day, TimeOfDay, daemon_config};

/// Run many torrents in the background. torrent-seed, torrent-leech, torrent-status and others tell
/// it what to do.
#[derive(Parser)]
#[command(
    name = "torrent-daemon",
    version,
    after_help = "Example: torrent-daemon --port 5000 --listen 0.0.0.0:6881\n\n\
                  When it is ready it prints a line such as\n  \
                  control on http://127.0.0.1:5000, peers on 0.0.0.0:6881 [::]:6881\n\
                  Its log goes to stderr. SIGTERM and Ctrl-C end it, SIGHUP reloads the block \
                  list.\nThe password of its control comes from PIECEWORK_PASSWORD or from \
                  password_file in config.toml."
)]
struct DaemonArgs {
    /// Port of the control, on this machine only unless --control is given. 0 takes a free one
    /// [default: 5000].
    #[arg(long, value_name = "P")]
    port: Option<u16>,
    /// Address of the control, instead of 127.0.0.1 and --port.
    #[arg(long, value_name = "IP:PORT", conflicts_with = "port")]
    control: Option<SocketAddr>,
    /// Address to accept peers on, exactly this one [default: 0.0.0.0:6881 or the next free port].
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Port of Transmission's RPC. 0 takes a free one [default: 9091].
    #[arg(long, value_name = "P")]
    rpc_port: Option<u16>,
    /// Read the configuration from this file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The file for the daemon's state [default: see --paths].
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Folder for downloads [default: see --paths].
    #[arg(long, value_name = "DIR")]
    downloads: Option<PathBuf>,
    /// Folder for .torrent files [default: see --paths].
    #[arg(long, value_name = "DIR")]
    torrents: Option<PathBuf>,
    /// The tracker to register seeds with and to look up names, IP:PORT or URL [default:
    /// 127.0.0.1:8000].
    #[arg(long, value_name = "TRACKER")]
    tracker: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

pub fn main(env: Env) -> Exit {
    env.run(|args: DaemonArgs, env| {
        let exit_deadline = ExitDeadline::new(env);
        let config = configuration(env, &args)?;
        logging::start(env, &config.daemon.log().with(&args.log))?;
        // Peers, files and clients each need a file descriptor, so raise the limit as far as the
        // system allows.
        if let Err(error) = session::raise_file_limit() {
            tracing::debug!(%error, "the number of open files stays as it is");
        }
        piecework_daemon::heap::keep_together();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
                CliError::failed(format_args!("no threads can be started: {error}")).because(error)
            })?;
        let result = runtime.block_on(run(env, &config, &args, &exit_deadline));
        // What still runs was told to stop and had time to do so.
        runtime.shutdown_background();
        result
    })
}

/// The command line overrides the environment, which overrides the file, which overrides defaults.
fn configuration(env: &Env, args: &DaemonArgs) -> Result<Config, CliError> {
    let mut config = Config::load(env, args.config.as_deref())?;
    let section = &mut config.daemon;
    if let Some(port) = args.port {
        section.control.set_port(port);
    }
    if let Some(control) = args.control {
        section.control = control;
    }
    if let Some(port) = args.rpc_port {
        let usual = DaemonSection::default().rpc;
        let mut rpc = section.rpc.or(usual).unwrap_or(section.control);
        rpc.set_port(port);
        section.rpc = Some(rpc);
    }
    let replace = |place: &mut PathBuf, path: &Option<PathBuf>| {
        if let Some(path) = path {
            place.clone_from(path);
        }
    };
    replace(&mut section.state, &args.state);
    replace(&mut config.peer.downloads, &args.downloads);
    replace(&mut config.peer.torrents, &args.torrents);
    if let Some(tracker) = &args.tracker {
        config.peer.tracker.clone_from(tracker);
    }
    if !config.peer.tracker.is_empty() {
        TrackerTarget::parse(&config.peer.tracker).map_err(CliError::usage_by)?;
    }
    Ok(config)
}

async fn run(
    env: &Env,
    config: &Config,
    args: &DaemonArgs,
    exit_deadline: &ExitDeadline,
) -> Result<(), CliError> {
    let (mut end, mut hangup) = (Signals::end()?, Signals::hangup()?);
    let supervisor = Supervisor::from_env(env);
    let password = config.daemon.password(env)?;
    warn_of_open_password(env, config);
    warn_of_programs(env, config);
    // Check this before anything is changed: the usual cause is that this daemon already runs.
    let control = free(config.daemon.control, "control")?;
    let listen = peer_address(config, args)?;
    let daemon = start(daemon_config(env, config, listen)).await?;
    let rpc = rpc_address(config, args)?;
    let token = token::generate()?;
    let control = ControlConfig {
        listen: vec![control],
        rpc_listen: rpc,
        password,
        token: Some(token.clone()),
        open_on_loopback: config.daemon.open_on_loopback,
        host_names: config.daemon.host_names.clone(),
        certificate: config.daemon.certificate.as_ref().map(|path| env.path(path)),
        certificate_key: config.daemon.certificate_key.as_ref().map(|path| env.path(path)),
        proxies: config.daemon.proxies.clone(),
        ..ControlConfig::default()
    };
    let control = match Control::start(control, daemon.clone()).await {
        Ok(control) => control,
        Err(error) => {
            daemon.shutdown().await;
            return Err(control_error(&error));
        }
    };
    let port = control.addrs().first().map_or(0, SocketAddr::port);
    // The files are removed when the daemon ends.
    let _token_files = TokenFiles::write(env, config, port, token);
    if let Some(rpc) = control.rpc_addr() {
        tracing::info!("Transmission RPC on http://{rpc}/transmission/rpc");
    }
    let ready = ready_line(&daemon, &control);
    if let Err(error) = env.stdout().line(&ready) {
        // Stdout may be a file on a full disk, or a pipe whose reader has left.
        tracing::warn!("{ready}; stdout cannot be written: {error}");
    }
    supervisor.ready(&ready);
    let result = serve(&daemon, &control, &supervisor, &mut end, &mut hangup).await;
    exit_deadline.set(exit_deadline::TO_END, Exit::Failed);
    supervisor.stopping();
    let deadline = Instant::now() + exit_deadline::TO_TIDY_UP;
    let leaving = daemon.clone();
    // In its own task, so that a second signal is handled whatever this waits for.
    let ending = tokio::spawn(async move {
        // Pending requests are told that the daemon ends.
        tokio::join!(leaving.shutdown_by(deadline), control.shutdown());
    });
    tokio::select! {
        ended = ending => match ended {
            Ok(()) => result,
            Err(panic) => Err(CliError::failed(format_args!("shutting down failed: {panic}")).because(panic)),
        },
        () = end.next() => {
            exit_deadline.set(exit_deadline::AT_ONCE, Exit::Interrupted);
            Err(CliError::silent(Exit::Interrupted))
        }
    }
}

fn ready_line(daemon: &Daemon, control: &Control) -> String {
    let peers: Vec<String> = daemon.listen_addrs().iter().map(ToString::to_string).collect();
    let scheme = control.scheme();
    let at: Vec<String> = control.addrs().iter().map(|addr| format!("{scheme}://{addr}")).collect();
    format!("control on {}, peers on {}", at.join(" "), peers.join(" "))
}

/// Waits until a signal or a request asks to end.
async fn serve(
    daemon: &Daemon,
    control: &Control,
    supervisor: &Supervisor,
    end: &mut Signals,
    hangup: &mut Signals,
) -> Result<(), CliError> {
    let mut beat = tokio::time::interval(supervisor.beat().unwrap_or(Duration::from_secs(3600)));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = end.next() => return Ok(()),
            () = hangup.next() => reload(daemon).await,
            () = control.shutdown_asked() => {
                tracing::info!("a request asked to end");
                return Ok(());
            }
            _ = beat.tick(), if supervisor.beat().is_some() => {
                // If the daemon hangs in one of its locks, this does not return.
                let asked = daemon.clone();
                if tokio::task::spawn_blocking(move || asked.torrents().len()).await.is_ok() {
                    supervisor.alive();
                }
            }
        }
    }
}

async fn reload(daemon: &Daemon) {
    match daemon.reload_block_list().await {
        Ok(ranges) => tracing::info!(ranges, "the block list was reloaded"),
        Err(error) => tracing::warn!("the block list: {}", printable(&error.to_string())),
    }
}

async fn start(config: DaemonConfig) -> Result<Daemon, CliError> {
    Daemon::start(config).await.map_err(|error| {
        let advice = match &error {
            StartError::Session(session::StartError::Listen { error, .. }) => listen_advice(error),
            _ => "",
        };
        CliError::failed(format_args!("{error}{advice}"))
    })
}

/// Returns the address to accept peers on: exactly the one on the command line, else the configured
/// one with its port or the next free port.
fn peer_address(config: &Config, args: &DaemonArgs) -> Result<SocketAddr, CliError> {
    if let Some(addr) = args.listen {
        return Ok(addr);
    }
    let usual = config.peer.listen;
    let mut addr = usual;
    for _ in 0..PORTS_TRIED {
        match TcpListener::bind(addr) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && addr.port() < u16::MAX =>
            {
                addr.set_port(addr.port() + 1);
            }
            // The engine reports other errors.
            _ => break,
        }
    }
    if addr != usual {
        tracing::warn!("`{usual}` is in use: peers are accepted on port {}", addr.port());
    }
    Ok(addr)
}

/// Returns the address of Transmission's RPC. Its usual port may be in use by Transmission itself.
/// This is an error only if the port was given explicitly.
fn rpc_address(config: &Config, args: &DaemonArgs) -> Result<Option<SocketAddr>, CliError> {
    let Some(rpc) = config.daemon.rpc else { return Ok(None) };
    let asked = args.rpc_port.is_some() || config.daemon.rpc != DaemonSection::default().rpc;
    match free(rpc, "Transmission RPC") {
        Ok(rpc) => Ok(Some(rpc)),
        Err(error) if asked => Err(error),
        Err(error) => {
            tracing::warn!("Transmission's RPC is not served: {error}");
            Ok(None)
        }
    }
}

/// Returns `addr` if it can be listened on now.
fn free(addr: SocketAddr, what: &str) -> Result<SocketAddr, CliError> {
    match TcpListener::bind(addr) {
        Ok(_) => Ok(addr),
        Err(error) => Err(CliError::failed(format_args!(
            "cannot listen for {what} on `{addr}`: {error}{}",
            listen_advice(&error)
        ))
        .because(error)),
    }
}

fn control_error(error: &control::ControlError) -> CliError {
    match error {
        control::ControlError::Listen { error: why, .. } => {
            CliError::failed(format_args!("{error}{}", listen_advice(why)))
        }
        error => CliError::usage(error),
    }
}

fn warn_of_open_password(env: &Env, config: &Config) {
    if env.var("PIECEWORK_PASSWORD").is_none()
        && let Some(path) = &config.daemon.password_file
        && section::is_open_to_others(&env.path(path))
    {
        let path = super::format::shown(path);
        tracing::warn!("others can read the password in `{path}`: chmod 600 it");
    }
}

/// Warns of programs that cannot be run, before the first torrent is done.
fn warn_of_programs(env: &Env, config: &Config) {
    let section = &config.daemon;
    let programs = [
        ("on_added", &section.on_added),
        ("on_done", &section.on_done),
        ("on_seeded", &section.on_seeded),
    ];
    for (key, path) in programs {
        if let Some(path) = path
            && let Some(why) = section::why_not_run(&env.path(path))
        {
            tracing::warn!(
                "`{}`, which is `{key}`, cannot be run: {why}",
                super::format::shown(path)
            );
        }
    }
}

/// Ports to try, one after the other, when the usual one for peers is in use.
const PORTS_TRIED: u16 = 100;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Captured, Output};
    use super::*;

    fn env(dir: &Path, args: &[&str]) -> (Env, Captured, Captured) {
        let (out, said) = Output::captured();
        let (err, complained) = Output::captured();
        (Env::new("torrent-daemon", args, dir, out, err), said, complained)
    }

    fn configured(args: &[&str]) -> DaemonSection {
        let dir = tempfile::tempdir().unwrap();
        let (env, _, _) = env(dir.path(), args);
        let args =
            DaemonArgs::try_parse_from(std::iter::once("d").chain(args.iter().copied())).unwrap();
        configuration(&env, &args).unwrap().daemon
    }

    #[test]
    fn addresses_come_from_the_command_line() {
        let control = |args: &[&str]| configured(args).control.to_string();
        assert_eq!(control(&[]), "127.0.0.1:5000");
        assert_eq!(control(&["--port", "0"]), "127.0.0.1:0");
        assert_eq!(control(&["--control", "0.0.0.0:7"]), "0.0.0.0:7");
        assert_eq!(configured(&["--rpc-port", "8"]).rpc.unwrap().to_string(), "127.0.0.1:8");
        assert!(DaemonArgs::try_parse_from(["d", "--port", "1", "--control", "[::]:2"]).is_err());
    }

    #[test]
    fn a_control_that_is_taken_is_one_sentence_and_nothing_is_touched() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        let dir = tempfile::tempdir().unwrap();
        let (env, said, complained) = env(dir.path(), &["--port", &port]);
        assert_eq!(main(env), Exit::Failed);
        let text = complained.text();
        assert!(text.contains("another program listens there, choose another port"), "{text}");
        assert!(text.contains(&format!("`127.0.0.1:{port}`")), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(said.text(), "");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn peers_are_accepted_on_the_next_free_port_unless_one_was_asked_for() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let mut config = Config::default();
        config.peer.listen = addr;
        let free = |args: &[&str]| {
            let args = std::iter::once("d").chain(args.iter().copied());
            peer_address(&config, &DaemonArgs::try_parse_from(args).unwrap()).unwrap()
        };
        let chosen = free(&[]);
        assert_eq!(chosen.ip(), addr.ip());
        assert!(chosen.port() > addr.port() || addr.port() == u16::MAX);
        assert_eq!(free(&["--listen", &addr.to_string()]), addr);
    }

    #[test]
    fn wrong_arguments_and_configurations_are_wrong_usage() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("wrong.toml");
        std::fs::write(&config, "[daemon]\ncontroll = \"127.0.0.1:1\"\n").unwrap();
        let named = config.to_str().unwrap();
        for args in [&["--log-level", "loud"][..], &["--config", named], &["--port", "-1"]] {
            let (env, _, complained) = env(dir.path(), args);
            assert_eq!(main(env), Exit::Usage, "{args:?}: {}", complained.text());
        }
    }
}
