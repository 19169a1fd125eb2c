//! `torrent-peer`: shares and gets files.

mod arguments;
mod embedded_tracker;
mod get;
mod link;
mod menu;
mod node;
mod query;
mod share;
pub(super) mod tracker;
mod view;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::exit_deadline::ExitDeadline;
use super::{CliError, Config, Env, Exit, LogArgs, logging};

pub use get::GetArgs;
pub(super) use query::catalogue;
pub use share::ShareArgs;

/// Share files, and get files from other peers.
#[derive(Parser)]
#[command(
    name = "torrent-peer",
    version,
    after_help = "Example, in two terminals:\n  torrent-peer share linux.iso\n  \
                  torrent-peer get linux.iso 127.0.0.1:8000\n\n\
                  While it runs, type: request logs, status, peers, files, help, quit"
)]
struct PeerArgs {
    #[command(subcommand)]
    command: Option<PeerCommand>,
    /// Read the configuration from this file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum PeerCommand {
    Share(Box<ShareArgs>),
    Get(Box<GetArgs>),
    /// Choose what to do from a menu. In a terminal, this is the default.
    Menu,
}

pub fn main(env: Env) -> Exit {
    env.run(|args: PeerArgs, env| {
        let exit_deadline = ExitDeadline::new(env);
        let config = Config::load(env, args.config.as_deref())?;
        logging::start(env, &config.peer.log().with(&args.log))?;
        let command = match args.command {
            Some(command) => command,
            None if env.stdin_is_terminal() => PeerCommand::Menu,
            None => {
                return Err(CliError::usage(
                    "say what to do: `share` or `get`; `--help` has an example",
                ));
            }
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
                CliError::failed(format_args!("no threads can be started: {error}")).because(error)
            })?;
        let result = runtime.block_on(async {
            match command {
                PeerCommand::Share(args) => share::run(*args, env, config, &exit_deadline).await,
                PeerCommand::Get(args) => get::run(*args, env, config.peer, &exit_deadline).await,
                PeerCommand::Menu => menu::run(env, config, &exit_deadline).await,
            }
        });
        // What still runs was told to stop and had time to do so, or need not be waited for.
        runtime.shutdown_background();
        result
    })
}
