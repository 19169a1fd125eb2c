//! `torrent-status`: shows what the daemon is doing.

mod live;
mod view;

use clap::Parser;

use piecework_api::{LogEntry, PeerInfo, Torrent, TorrentDetail};
use serde::Serialize;

use super::pick::pick;
use super::remote::{Remote, RemoteArgs, Tool};
use super::{CliError, Env, Exit, remote};

/// Show what the daemon is doing, or everything about one torrent.
#[derive(Parser)]
#[command(
    name = "torrent-status",
    version,
    after_help = "Examples:\n  torrent-status --watch\n  torrent-status linux.iso --files --log"
)]
struct StatusArgs {
    /// A torrent: its name, its info-hash, or at least the first four digits of its info-hash.
    #[arg(value_name = "NAME|HASH")]
    torrent: Option<String>,
    /// Keep the tables up to date until Ctrl-C. In a pipe, print a line for each change.
    #[arg(long, short)]
    watch: bool,
    /// Show the torrent's files, with their numbers.
    #[arg(long, requires = "torrent", conflicts_with = "watch")]
    files: bool,
    /// Show which peers gave which pieces: the last responses, oldest first.
    #[arg(long, requires = "torrent", conflicts_with = "watch")]
    log: bool,
    /// Print only a magnet link of the torrent.
    #[arg(long, requires = "torrent", conflicts_with_all = ["watch", "files", "log"])]
    magnet: bool,
    /// Show how a browser logs in as the daemon's owner: its address, a user name, and a password
    /// that is valid until the daemon ends. Keep it secret.
    #[arg(long, conflicts_with_all = ["torrent", "watch"])]
    login: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// The login for a browser.
#[derive(Serialize)]
struct Login<'a> {
    url: &'a str,
    user: &'a str,
    password: &'a str,
}

/// Everything about one torrent, for `--json`.
#[derive(Serialize)]
struct TorrentReport {
    #[serde(flatten)]
    detail: TorrentDetail,
    peer_list: Vec<PeerInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Vec<LogEntry>>,
}

pub fn main(env: Env) -> Exit {
    remote::run(env, async |args: StatusArgs, env, remote| match (&args.torrent, args.watch) {
        _ if args.login => login(env, remote).await,
        (torrent, true) => live::watch(env, remote, torrent.as_deref()).await,
        (None, false) => overview(env, remote).await,
        (Some(torrent), false) => one(env, remote, torrent, &args).await,
    })
}

/// Returns a torrent in one line.
pub fn line(torrent: &Torrent) -> String {
    view::line(torrent)
}

impl Tool for StatusArgs {
    fn remote(&self) -> &RemoteArgs {
        &self.remote
    }
}

async fn login(env: &Env, remote: &Remote) -> Result<(), CliError> {
    remote.client().alive().await.map_err(|error| remote.fault(&error))?;
    let Some(secret) = remote.secret() else {
        return Err(CliError::failed(
            "there is no token of this daemon that you may read: ask as the user that runs it, or \
             set PIECEWORK_PASSWORD",
        ));
    };
    let url = remote.client().url();
    let login = Login { url, user: "piecework", password: secret.expose() };
    remote.answer(env, &login, || {
        format!(
            "open {}\nuser name: {}\npassword:  {}\nA browser asks for these when they are needed.",
            login.url, login.user, login.password
        )
    })
}

async fn overview(env: &Env, remote: &Remote) -> Result<(), CliError> {
    let overview = remote.client().overview().await.map_err(|error| remote.fault(&error))?;
    let out = env.stdout();
    remote.answer(env, &overview, || view::overview(&overview, out.width(), out.paint()))
}

async fn one(env: &Env, remote: &Remote, text: &str, args: &StatusArgs) -> Result<(), CliError> {
    let torrents = remote.torrents().await?;
    let info_hash = pick(&torrents, text)?.info_hash;
    let fault = |error| remote.fault(&error);
    let client = remote.client();
    let detail = client.detail(info_hash).await.map_err(fault)?;
    if args.magnet {
        let link = serde_json::json!({ "magnet": detail.magnet });
        return remote.answer(env, &link, || detail.magnet.clone());
    }
    let peer_list = client.peers(info_hash).await.map_err(fault)?;
    let log = match args.log {
        true => Some(client.log(info_hash, MOST_LOG).await.map_err(fault)?),
        false => None,
    };
    let whole = TorrentReport { detail, peer_list, log };
    let (width, paint) = (env.stdout().width(), env.stdout().paint());
    remote.answer(env, &whole, || {
        let mut parts = vec![view::detail(&whole.detail, paint)];
        if !whole.peer_list.is_empty() {
            parts.push(view::peers(&whole.peer_list, width, paint));
        }
        if args.files {
            parts.push(view::files(&whole.detail.file_list, width, paint));
        }
        if let Some(log) = &whole.log {
            parts.push(view::log(log, width, paint));
        }
        parts.join("\n\n")
    })
}

/// Maximum number of responses that `--log` shows.
const MOST_LOG: usize = 10_000;

#[cfg(test)]
#[expect(missing_docs, reason = "it is for tests")]
pub mod tests {
    use piecework_api::{State, Torrent, TorrentSettings};
    use piecework_core::InfoHash;

    /// Returns a torrent of which half is there.
    pub fn a_torrent(state: State) -> Torrent {
        Torrent {
            info_hash: InfoHash([0xab; 20]),
            id: 1,
            name: "big\x1b.iso".to_owned(),
            state,
            error: None,
            folder: "/data".into(),
            bytes: 4 << 30,
            bytes_have: 2 << 30,
            bytes_wanted: 4 << 30,
            bytes_wanted_have: 2 << 30,
            pieces: 4096,
            pieces_have: 2048,
            piece_length: 1 << 20,
            files: 1,
            private: false,
            downloaded: 2 << 30,
            uploaded: 1 << 30,
            corrupt: 0,
            download_rate: 10 << 20,
            upload_rate: 1 << 20,
            peers: 12,
            seeds: 3,
            peers_giving: 2,
            peers_taking: 1,
            eta: Some(205),
            ratio: 0.5,
            check_progress: 0.25,
            metadata_progress: 1.0,
            limit_reached: false,
            stalled: false,
            queue_position: 0,
            added_at: 1_700_000_000,
            started_at: Some(1_700_000_000),
            done_at: None,
            active_at: Some(1_700_000_000),
            seconds_downloading: 60,
            seconds_seeding: 0,
            settings: TorrentSettings::default(),
        }
    }
}
