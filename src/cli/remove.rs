//! `torrent-remove`: removes torrents from the daemon.

use std::io::BufRead;

use clap::Parser;
use serde::Serialize;

use piecework_api::{RemoveRequest, Torrent};
use piecework_core::{InfoHash, printable};

use super::format::{counted, size};
use super::pick::pick_all;
use super::remote::{Remote, RemoteArgs, Tool};
use super::{CliError, Env, Exit, remote};

/// Remove torrents from the daemon. Their files stay unless --delete-data is given.
#[derive(Parser)]
#[command(
    name = "torrent-remove",
    version,
    after_help = "Example: torrent-remove linux.iso --delete-data"
)]
struct RemoveArgs {
    /// Torrents: names, info-hashes, or at least the first four digits of info-hashes.
    #[arg(value_name = "NAME|HASH", required_unless_present = "all", conflicts_with = "all")]
    torrents: Vec<String>,
    /// All torrents.
    #[arg(long)]
    all: bool,
    /// Delete their files too.
    #[arg(long)]
    delete_data: bool,
    /// Remove them from the tracker's catalogue, if the daemon registered them.
    #[arg(long)]
    unregister: bool,
    /// Delete files without asking.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// The answer with `--json`.
#[derive(Serialize)]
struct RemoveAnswer {
    removed: Vec<InfoHash>,
}

pub fn main(env: Env) -> Exit {
    remote::run(env, async |args: RemoveArgs, env, remote| remove(&args, env, remote).await)
}

impl Tool for RemoveArgs {
    fn remote(&self) -> &RemoteArgs {
        &self.remote
    }
}

async fn remove(args: &RemoveArgs, env: &mut Env, remote: &Remote) -> Result<(), CliError> {
    let torrents = remote.torrents().await?;
    let meant = pick_all(&torrents, &args.torrents, args.all)?;
    if args.delete_data && !args.yes && !meant.is_empty() && !agreed(env, &meant)? {
        return Err(CliError::failed("nothing was removed"));
    }
    let request = RemoveRequest { delete_data: args.delete_data, unregister: args.unregister };
    let mut removed = Vec::new();
    let mut failed = None;
    for torrent in meant {
        match remote.client().remove(torrent.info_hash, &request).await {
            Ok(()) => {
                removed.push(torrent.info_hash);
                if !remote.json() {
                    let name = env.stdout().paint().bold(printable(&torrent.name));
                    let files = if args.delete_data { " and its files" } else { "" };
                    env.stdout().line(format_args!("removed {name}{files}"))?;
                }
            }
            // The others are removed nevertheless. The last error ends the program.
            Err(error) => {
                let error = remote.fault(&error);
                if let Some(earlier) = failed.replace(error) {
                    env.complain(&earlier);
                }
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None if remote.json() => remote::print_json(env, &RemoveAnswer { removed }),
        None if removed.is_empty() => Ok(env.stdout().line("no torrents")?),
        None => Ok(()),
    }
}

/// Asks whether the files of these torrents may be deleted.
fn agreed(env: &mut Env, torrents: &[&Torrent]) -> Result<bool, CliError> {
    if !env.stdin_is_terminal() || !env.stderr().is_terminal() {
        return Err(CliError::usage(
            "deleting files cannot be undone: say --yes where nobody can be asked",
        ));
    }
    let bytes = torrents.iter().map(|torrent| torrent.bytes_have).sum();
    for torrent in torrents.iter().take(MOST_NAMES) {
        let place = torrent.folder.join(&torrent.name);
        env.stderr().line(format_args!("  {}", super::format::shown(&place)))?;
    }
    if let Some(more @ 1..) = torrents.len().checked_sub(MOST_NAMES) {
        env.stderr().line(format_args!("  and {more} more"))?;
    }
    let what = counted(torrents.len() as u64, "torrent");
    env.stderr()
        .text(format_args!("Delete the files of {what}, {} in all? [y/N] ", size(bytes)))?;
    let mut line = String::new();
    let mut stdin = env.take_stdin().into_reader();
    std::io::Read::take(&mut stdin, MOST_ANSWER).read_line(&mut line).map_err(|error| {
        CliError::failed(format_args!("the answer cannot be read: {error}")).because(error)
    })?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// The largest number of torrents that the question names.
const MOST_NAMES: usize = 20;

/// The largest number of bytes to read as the answer.
const MOST_ANSWER: u64 = 100;
