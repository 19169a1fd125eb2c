//! What all tools of the daemon have in common: where it is, how they ask it, how they fail.

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

/// Where the daemon is, and how to answer.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Daemon")]
pub struct RemoteArgs {
    /// Port of the daemon's control; also PIECEWORK_PORT [default: 5000].
    #[arg(long, value_name = "P")]
    port: Option<u16>,
    /// Machine that the daemon runs on, `https://HOST` to ask it by HTTPS; also PIECEWORK_HOST [default:
    /// this one].
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Answer with the JSON of the daemon's API, faults too.
    #[arg(long)]
    json: bool,
    /// Read the configuration from this file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The command line of a tool.
pub trait Tool: Parser {
    /// Where its daemon is.
    fn remote(&self) -> &RemoteArgs;
}

/// A daemon that can be asked.
pub struct Remote {
    client: ApiClient,
    config: Config,
    json: bool,
    host: String,
    port: u16,
    named: bool,
    secret: Option<Secret>,
}

/// What the daemon tells.
pub struct Follow<'a> {
    remote: &'a Remote,
    events: Events,
}

/// Runs a tool: reads its command line, finds the daemon, does `body`, says what went wrong.
pub fn run<A: Tool>(
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
    /// The daemon of the command line, the environment, or the configuration.
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
        // Only what runs on this machine can be the daemon whose token lies here.
        let token = || is_local(&host).then(|| token::find(env, &config, port)).flatten();
        // Whoever sets a password for this run means it. Else the token comes first: with it more
        // may be asked for.
        let secret = match env.var("PIECEWORK_PASSWORD").is_none().then(token).flatten() {
            Some(token) => Some(token),
            None => config.daemon.password(env)?.or_else(token),
        };
        let client = ApiClient::new(&address, secret.clone()).map_err(CliError::usage)?;
        let named = args.port.is_some() || args.host.is_some();
        Ok(Self { client, config, json: args.json, host, port, named, secret })
    }

    /// What asks it.
    pub fn client(&self) -> &ApiClient {
        &self.client
    }

    /// The configuration of this run.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether answers are JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether the command line says where it is.
    pub fn is_named(&self) -> bool {
        self.named
    }

    /// The machine it runs on.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it runs on this machine, as far as its address tells.
    pub fn is_local(&self) -> bool {
        is_local(&self.host)
    }

    /// What shows the daemon that its owner asks: the password, or the token found on this machine.
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// What to say of a question that had no answer.
    pub fn fault(&self, error: &ApiError) -> CliError {
        match error {
            ApiError::NotRunning { .. } => {
                let shown = printable(&self.host);
                let start = match (self.is_local(), self.port) {
                    (true, 5000) => "start one with `torrent-daemon`".to_owned(),
                    (true, port) => format!("start one with `torrent-daemon --port {port}`"),
                    (false, _) => "is it started, and does its --control let us in?".to_owned(),
                };
                CliError::no_daemon(format_args!(
                    "no daemon answers on {shown}:{}: {start}",
                    self.port
                ))
            }
            ApiError::Fault { status: 426, .. } => {
                let (host, port) = (printable(&self.host), self.port);
                CliError::failed(format_args!(
                    "the daemon on {host}:{port} takes HTTPS only: use `--host https://{host}`"
                ))
            }
            // Another server, such as our tracker, or a daemon older than this tool.
            ApiError::Fault { status: 404, error } if error.starts_with(NO_SUCH_ADDRESS) => {
                CliError::failed(format_args!(
                    "what answers on {}:{} is no daemon of this version: is the port right?",
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

    /// All torrents.
    ///
    /// # Errors
    /// If the daemon does not say.
    pub async fn torrents(&self) -> Result<Vec<Torrent>, CliError> {
        let overview = self.client.overview().await.map_err(|error| self.fault(&error))?;
        Ok(overview.torrents)
    }

    /// What happens from now on, beginning with every torrent there is.
    ///
    /// # Errors
    /// If the daemon does not say.
    pub async fn events(&self) -> Result<Follow<'_>, CliError> {
        let events = self.client.events().await.map_err(|error| self.fault(&error))?;
        Ok(Follow { remote: self, events })
    }

    /// Answers with `json`, or with `text` for people.
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

    /// Says on stderr what did not work on the side.
    ///
    /// # Errors
    /// If stderr cannot be written.
    pub fn warn(&self, env: &Env, warnings: &[String]) -> Result<(), CliError> {
        // In JSON they are part of the answer.
        for warning in warnings.iter().filter(|_| !self.json) {
            let label = env.stderr().paint().yellow("warning:");
            env.stderr().line(format_args!("{label} {}", printable(warning)))?;
        }
        Ok(())
    }
}

impl Follow<'_> {
    /// The next event; `None` once the daemon has ended. Cancel-safe.
    ///
    /// # Errors
    /// If what comes makes no sense.
    pub async fn next(&mut self) -> Result<Option<Event>, CliError> {
        self.events.next().await.map_err(|error| self.remote.fault(&error))
    }
}

/// `path` as the daemon is to be given it: absolute, without `.` and `..` as far as that can be
/// told from here.
pub fn absolute(env: &Env, path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in env.path(path).components() {
        match part {
            std::path::Component::CurDir => {}
            // What lies above a link is another folder than it seems: leave it to the system.
            std::path::Component::ParentDir if !out.is_symlink() => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// Writes JSON for people and programs.
///
/// # Errors
/// If the output cannot be written.
pub fn print_json(env: &Env, value: &impl Serialize) -> Result<(), CliError> {
    let text = if env.stdout().is_terminal() {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    Ok(env.stdout().line(printable_json(&text.map_err(std::io::Error::from)?))?)
}

/// Runs `work` to its end.
fn in_runtime<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format_args!("no tasks can be run: {error}")))?;
    let result = runtime.block_on(work);
    // What still runs waits for keys or names, and nobody waits for it.
    runtime.shutdown_background();
    result
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Where programs on this machine reach what listens on `addr`.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// How trackers and daemons begin to say that an address of HTTP means nothing to them.
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
            "what answers on 127.0.0.1:{port} is no daemon of this version: is the port right?"
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
