//! Common parts of the daemon's tools: finding the daemon, requests, and errors.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use serde::Serialize;

use piecework_api::client::{ApiClient, ApiError, Events};
use piecework_api::{Event, Fault, Torrent};
use piecework_core::{Secret, printable};

use super::format::printable_json;
use super::{CliError, Config, Env, Exit, token};

/// The address of the daemon, and the form of the answer.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Daemon")]
pub(super) struct RemoteArgs {
    /// Port of the daemon's control, also PIECEWORK_PORT [default: 5000].
    #[arg(long, value_name = "P")]
    port: Option<u16>,
    /// Machine that the daemon runs on, or `https://HOST` for HTTPS, also PIECEWORK_HOST [default:
    /// this one].
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Answer with the JSON of the daemon's API, errors too.
    #[arg(long)]
    json: bool,
    /// Read the configuration from this file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The command line of a tool.
pub(super) trait Tool: Parser {
    /// Returns the options that name its daemon.
    fn remote(&self) -> &RemoteArgs;
}

/// A daemon, as its tools see it.
pub struct Remote {
    client: ApiClient,
    config: Config,
    json: bool,
    host: String,
    port: u16,
    named: bool,
    secret: Option<Secret>,
}

/// The daemon's events.
pub struct EventFollower<'a> {
    remote: &'a Remote,
    events: Events,
}

/// Runs a tool: parses its command line, finds the daemon, runs `body`, and prints errors.
pub(super) fn run<A: Tool>(
    env: Env,
    body: impl AsyncFnOnce(A, &mut Env, &Remote) -> Result<(), CliError>,
) -> Exit {
    env.run(|args: A, env| {
        let json = args.remote().json;
        let result = in_runtime(async {
            let remote = Remote::new(env, args.remote())?;
            body(args, env, &remote).await
        });
        match result {
            Err(error) if json && !error.to_string().is_empty() => {
                let fault = Fault { error: error.to_string() };
                print_json(env, &fault)?;
                Err(CliError::silent(error.exit()))
            }
            result => result,
        }
    })
}

impl Remote {
    /// Finds the daemon by the command line, the environment, or the configuration.
    ///
    /// # Errors
    /// If the configuration is not valid or the password cannot be read.
    fn new(env: &Env, args: &RemoteArgs) -> Result<Self, CliError> {
        let config = Config::load(env, args.config.as_deref())?;
        let port = args.port.unwrap_or(config.daemon.control.port());
        let host = match args.host.as_deref().or_else(|| env.var("PIECEWORK_HOST")) {
            Some(host) => host.to_owned(),
            None => reachable(config.daemon.control).ip().to_string(),
        };
        let (scheme, host) = match host.strip_prefix("https://") {
            Some(host) => ("https://", host),
            None => ("", host.strip_prefix("http://").unwrap_or(&host)),
        };
        let host = host.strip_suffix('/').unwrap_or(host).to_owned();
        let address = match host.parse::<Ipv6Addr>() {
            Ok(_) => format!("{scheme}[{host}]:{port}"),
            Err(_) => format!("{scheme}{host}:{port}"),
        };
        // The token on this machine belongs to a daemon on this machine only.
        let token = || is_local(&host).then(|| token::find(env, &config, port)).flatten();
        // A password in the environment takes precedence. Otherwise the token does, because it
        // allows more.
        let secret = match env.var("PIECEWORK_PASSWORD").is_none().then(token).flatten() {
            Some(token) => Some(token),
            None => config.daemon.password(env)?.or_else(token),
        };
        let client = ApiClient::new(&address, secret.clone()).map_err(CliError::usage_by)?;
        let named = args.port.is_some() || args.host.is_some();
        Ok(Self { client, config, json: args.json, host, port, named, secret })
    }

    /// Returns the client for its API.
    pub fn client(&self) -> &ApiClient {
        &self.client
    }

    /// Returns the configuration of this run.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns whether answers are JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Returns whether the command line names the daemon.
    pub fn is_named(&self) -> bool {
        self.named
    }

    /// Returns the machine that it runs on.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns whether it runs on this machine, judged by its address.
    pub fn is_local(&self) -> bool {
        is_local(&self.host)
    }

    /// Returns the secret that identifies the owner: the password, or the token found on this
    /// machine.
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Returns the error for a request that failed.
    pub fn fault(&self, error: &ApiError) -> CliError {
        match error {
            ApiError::NotRunning { .. } => {
                let shown = printable(&self.host);
                let start = match (self.is_local(), self.port) {
                    (true, 5000) => "start one with `torrent-daemon`".to_owned(),
                    (true, port) => format!("start one with `torrent-daemon --port {port}`"),
                    (false, _) => {
                        "is it running, and does its --control accept other machines?".to_owned()
                    }
                };
                CliError::no_daemon(format_args!(
                    "no daemon answers on {shown}:{}: {start}",
                    self.port
                ))
            }
            ApiError::Fault { status: 426, .. } => {
                let (host, port) = (printable(&self.host), self.port);
                CliError::failed(format_args!(
                    "the daemon on {host}:{port} accepts HTTPS only: use `--host https://{host}`"
                ))
            }
            // This is another server, such as our tracker, or a daemon older than this tool.
            ApiError::Fault { status: 404, error } if error.starts_with(NO_SUCH_ADDRESS) => {
                CliError::failed(format_args!(
                    "the server on {}:{} is not a daemon of this version: is the port right?",
                    printable(&self.host),
                    self.port
                ))
            }
            error @ ApiError::Protocol(_) => CliError::failed(format_args!(
                "{}; is port {} right?",
                printable(&error.to_string()),
                self.port
            )),
            error => CliError::failed(printable(&error.to_string())),
        }
    }

    /// Returns all torrents.
    ///
    /// # Errors If the daemon does not answer.
    pub async fn torrents(&self) -> Result<Vec<Torrent>, CliError> {
        let overview = self.client.overview().await.map_err(|error| self.fault(&error))?;
        Ok(overview.torrents)
    }

    /// Returns the events from now on, beginning with every existing torrent.
    ///
    /// # Errors If the daemon does not answer.
    pub async fn events(&self) -> Result<EventFollower<'_>, CliError> {
        let events = self.client.events().await.map_err(|error| self.fault(&error))?;
        Ok(EventFollower { remote: self, events })
    }

    /// Prints the answer: `json`, or `text` for people.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn answer<T: Display>(
        &self,
        env: &Env,
        json: &impl Serialize,
        text: impl FnOnce() -> T,
    ) -> Result<(), CliError> {
        if self.json { print_json(env, json) } else { Ok(env.stdout().line(text())?) }
    }

    /// Prints warnings to stderr.
    ///
    /// # Errors
    /// If stderr cannot be written.
    pub fn warn(&self, env: &Env, warnings: &[String]) -> Result<(), CliError> {
        // With JSON they are part of the answer.
        for warning in warnings.iter().filter(|_| !self.json) {
            let label = env.stderr().paint().yellow("warning:");
            env.stderr().line(format_args!("{label} {}", printable(warning)))?;
        }
        Ok(())
    }
}

impl EventFollower<'_> {
    /// Returns the next event, or `None` if the daemon has ended. Cancel-safe.
    ///
    /// # Errors If the stream is not valid.
    pub async fn next(&mut self) -> Result<Option<Event>, CliError> {
        self.events.next().await.map_err(|error| self.remote.fault(&error))
    }
}

/// Returns `path` as the daemon needs it: absolute, without `.` and `..` as far as that can be
/// resolved here.
pub(super) fn absolute(env: &Env, path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in env.path(path).components() {
        match part {
            std::path::Component::CurDir => {}
            // The parent of a link's target may be another folder, so the system has to resolve it.
            std::path::Component::ParentDir if !out.is_symlink() => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// Prints JSON, for people and programs.
///
/// # Errors
/// If the output cannot be written.
pub(super) fn print_json(env: &Env, value: &impl Serialize) -> Result<(), CliError> {
    let text = if env.stdout().is_terminal() {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    Ok(env.stdout().line(printable_json(&text.map_err(std::io::Error::from)?))?)
}

/// Runs `work` in a runtime of its own.
fn in_runtime<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            CliError::failed(format_args!("no tasks can be run: {error}")).because(error)
        })?;
    let result = runtime.block_on(work);
    // What still runs waits for keys or host names, and nothing depends on it.
    runtime.shutdown_background();
    result
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Returns the address by which programs on this machine reach a server on `addr`.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// The beginning of the error with which trackers and daemons refuse an unknown HTTP address.
const NO_SUCH_ADDRESS: &str = "there is nothing at this address";

#[cfg(test)]
mod tests {
    use super::super::Output;
    use super::*;

    fn env(dir: &Path) -> Env {
        let (out, _) = Output::captured();
        Env::new("test", Vec::<String>::new(), dir, out.clone(), out)
    }

    #[test]
    fn the_daemon_is_where_the_nearest_source_says() {
        let dir = tempfile::tempdir().unwrap();
        let at = |env: &Env, args: RemoteArgs| {
            let remote = Remote::new(env, &args).unwrap();
            format!("{}:{}", remote.host(), remote.port)
        };
        let none = RemoteArgs::default();
        assert_eq!(at(&env(dir.path()), none.clone()), "127.0.0.1:5000");
        let file = "[daemon]\ncontrol = \"0.0.0.0:7\"\n";
        std::fs::write(dir.path().join("config.toml"), file).unwrap();
        assert_eq!(at(&env(dir.path()), none.clone()), "127.0.0.1:7");
        let with_vars =
            || env(dir.path()).with_var("PIECEWORK_PORT", "8").with_var("PIECEWORK_HOST", "box");
        assert_eq!(at(&with_vars(), none.clone()), "box:8");
        let args = RemoteArgs { port: Some(9), host: Some("::1".to_owned()), ..none.clone() };
        assert_eq!(at(&with_vars(), args), "::1:9");
        let by_https = env(dir.path()).with_var("PIECEWORK_HOST", "https://box/");
        let remote = Remote::new(&by_https, &none).unwrap();
        assert_eq!((remote.host(), remote.client().url()), ("box", "https://box:7/"));
    }

    #[tokio::test]
    async fn a_server_that_is_no_daemon_is_called_so() {
        let config = piecework_tracker::TrackerConfig::in_memory();
        let tracker = piecework_tracker::TrackerServer::start(config).await.unwrap();
        let port = tracker.local_addr().port();
        let dir = tempfile::tempdir().unwrap();
        let args = RemoteArgs { port: Some(port), ..RemoteArgs::default() };
        let remote = Remote::new(&env(dir.path()), &args).unwrap();
        let error = remote.torrents().await.unwrap_err().to_string();
        let told = format!(
            "the server on 127.0.0.1:{port} is not a daemon of this version: is the port right?"
        );
        assert_eq!(error, told);
        tracker.shutdown().await;
    }

    #[test]
    fn paths_are_made_absolute_and_plain() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let env = env(&root);
        assert_eq!(absolute(&env, Path::new("./a/../b")), root.join("b"));
        assert_eq!(absolute(&env, Path::new("/x/./y")), Path::new("/x/y"));
        std::os::unix::fs::symlink("/tmp", root.join("link")).unwrap();
        assert_eq!(absolute(&env, Path::new("link/../b")), root.join("link/../b"));
    }
}
