//! `torrent-seed`: tells the daemon to share something.

use piecework_core::SaturatingFrom;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use piecework_api::client::{ApiError, Events};
use piecework_api::{Added, Event, SeedRequest, State, Torrent};
use piecework_core::{printable, text_of_name};
use piecework_proto::announce::TrackerTarget;

use super::create::{SelectionArgs, parse_piece_len};
use super::format::shown;
use super::progress::WorkBar;
use super::remote::{Remote, RemoteArgs, Tool, absolute};
use super::signals::Signals;
use super::{CliError, Env, Exit, follow, remote, torrent_file};

/// Share a file or folder. The daemon makes a torrent of it, registers it with the tracker, and
/// serves it. Ctrl-C ends the waiting, not the hashing. torrent-remove cancels the hashing.
#[derive(Parser)]
#[command(
    name = "torrent-seed",
    version,
    after_help = "Example: torrent-seed --input linux.iso --description 'as released'"
)]
struct SeedArgs {
    /// The file or folder, on the daemon's machine.
    #[arg(long, short, value_name = "PATH")]
    input: PathBuf,
    /// An existing .torrent of it. The data is checked against it.
    #[arg(long, value_name = "F.torrent", conflicts_with_all = ["private", "piece_length", "name", "description",
                                "follow_links", "exclude", "no_hidden", "source"])]
    from: Option<PathBuf>,
    /// Keep it out of catalogues. Peers come from its trackers only (BEP 27).
    #[arg(long)]
    private: bool,
    /// Bytes in a piece, a power of two from 16KiB to 64MiB. Chosen by size by default.
    #[arg(long, value_name = "N", value_parser = parse_piece_len)]
    piece_length: Option<u32>,
    /// Trackers, as URL or IP:PORT, in addition to those of --from. The daemon's tracker by
    /// default.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    trackers: Vec<String>,
    /// Announce a private .torrent of --from to --trackers too, although it does not name them, and
    /// register it there. Everybody who knows its info-hash can then get it, including its passkey.
    #[arg(long, requires_all = ["from", "trackers"])]
    publish_private: bool,
    /// Where to write the .torrent, in addition to the daemon's torrents folder.
    #[arg(long, short, value_name = "OUT")]
    torrent: Option<PathBuf>,
    /// The name to register it under, instead of the file's.
    #[arg(long, value_name = "N")]
    name: Option<String>,
    /// A comment, in the torrent and in the catalogue.
    #[arg(long, value_name = "D")]
    description: Option<String>,
    /// Label to show in lists. Separate several by commas, or repeat the option.
    #[arg(long, value_name = "L", value_delimiter = ',')]
    label: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub fn main(env: Env) -> Exit {
    remote::run(env, async |args: SeedArgs, env, remote| seed(args, env, remote).await)
}

impl Tool for SeedArgs {
    fn remote(&self) -> &RemoteArgs {
        &self.remote
    }
}

async fn seed(args: SeedArgs, env: &Env, remote: &Remote) -> Result<(), CliError> {
    let input = absolute(env, &args.input);
    // A daemon on another machine has other files. Check only if both are on one machine.
    if remote.is_local() && matches!(input.try_exists(), Ok(false)) {
        return Err(CliError::failed(format_args!("there is no `{}`", shown(&args.input))));
    }
    // JSON needs UTF-8.
    let input = PathBuf::from(&*text_of_name(input.as_os_str().as_bytes()));
    let mut trackers = Vec::new();
    for tracker in &args.trackers {
        let target = TrackerTarget::parse(tracker).map_err(CliError::usage_by)?;
        trackers.extend(
            target
                .tiers
                .iter()
                .map(|tier| tier.iter().map(|url| url.as_str().to_owned()).collect::<Vec<_>>()),
        );
    }
    let torrent = match &args.from {
        Some(path) => Some(torrent_file::read_encoded(&env.path(path), path)?),
        None => None,
    };
    let request = SeedRequest {
        input,
        torrent,
        private: args.private,
        piece_length: args.piece_length,
        trackers,
        publish_private: args.publish_private,
        torrent_out: args.torrent.as_deref().map(|path| absolute(env, path)),
        name: args.name,
        description: args.description,
        labels: args.label,
        follow_links: args.selection.follow_links,
        exclude: args.selection.exclude,
        no_hidden: args.selection.no_hidden,
        source: args.selection.source,
        wait: None,
    };
    let added = wait(env, remote, &request).await?;
    remote.warn(env, &added.warnings)?;
    let standing = match added.duplicate && !remote.json() {
        true => Some(follow::standing(remote, &added).await?),
        false => None,
    };
    remote.answer(env, &added, || {
        let name = env.stdout().paint().bold(printable(&added.name));
        let what = match &standing {
            Some(standing) => format!("was here already: {name}, {standing}"),
            None => format!("seeding {name}"),
        };
        let mut text = format!("{what}\ninfo-hash {}", added.info_hash);
        if let Some(tracker) = &added.tracker {
            text.push_str(&format!("\nin the catalogue of {}", printable(tracker)));
        }
        text
    })
}

/// Tells the daemon to share a file or folder, and shows the progress of the hashing.
async fn wait(env: &Env, remote: &Remote, request: &SeedRequest) -> Result<Added, CliError> {
    // From here on, because the user may press Ctrl-C as soon as the bar is shown.
    let mut interrupt = Signals::interrupt()?;
    let mut hashing = HashProgress { env, bar: None, is_listed: false, is_queued: false };
    let provisional = request.provisional_hash();
    // Subscribed before the request, so that no event is missed. An older daemon does not support
    // this.
    let mut events = match remote.client().events_of(provisional).await {
        Ok(events) => provisional.map(|_| events),
        Err(error @ ApiError::NotRunning { .. }) => return Err(remote.fault(&error)),
        Err(_) => None,
    };
    let seeding = remote.client().seed(request);
    tokio::pin!(seeding);
    let patience = tokio::time::sleep(QUEUED_FOR);
    tokio::pin!(patience);
    let mut is_early = true;
    let outcome = loop {
        tokio::select! {
            outcome = &mut seeding => break outcome,
            () = interrupt.next() => {
                hashing.end();
                return Err(hashing.interrupted());
            }
            () = &mut patience, if is_early => {
                is_early = false;
                if hashing.is_queued {
                    env.stderr().line("others are hashed first, it waits for its turn")?;
                }
            }
            event = next(&mut events) => {
                if let Event::Torrent(torrent) = event {
                    hashing.show(&torrent);
                }
            }
        }
    };
    hashing.end();
    let error = match outcome {
        Ok(added) => return Ok(added),
        Err(error) => error,
    };
    let failed = match provisional.filter(|_| hashing.is_listed && !remote.json()) {
        Some(info_hash) => remote.client().detail(info_hash).await.ok(),
        None => None,
    };
    if failed.is_some_and(|detail| detail.torrent.state == State::Failed) {
        env.stderr().line("it stays in the list: torrent-set --resume hashes it again,")?;
        env.stderr().line("torrent-remove removes it")?;
    }
    Err(remote.fault(&error))
}

/// Waits for the next event of the torrent, forever if there is no stream. Cancel-safe.
async fn next(events: &mut Option<Events>) -> Event {
    if let Some(stream) = events
        && let Ok(Some(event)) = stream.next().await
    {
        return event;
    }
    // The answer to the request reports the end.
    *events = None;
    std::future::pending().await
}

/// The progress that is shown while the daemon hashes.
struct HashProgress<'a> {
    env: &'a Env,
    bar: Option<WorkBar>,
    /// Whether the daemon lists it.
    is_listed: bool,
    /// Whether it waits for its turn.
    is_queued: bool,
}

impl HashProgress<'_> {
    fn show(&mut self, torrent: &Torrent) {
        self.is_listed = true;
        self.is_queued = torrent.state == State::QueuedHash;
        if torrent.state == State::Hashing && torrent.bytes > 0 {
            let bar = || WorkBar::new(self.env, "hashing", &torrent.name);
            let done = torrent.check_progress * torrent.bytes as f64;
            // Back to whole bytes, whatever the fraction was rounded to.
            self.bar.get_or_insert_with(bar).at(u64::saturating_from(done.round()), torrent.bytes);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.clear();
        }
    }

    /// Says what the daemon continues to do after Ctrl-C.
    fn interrupted(&self) -> CliError {
        let stderr = self.env.stderr();
        let said = match self.is_listed {
            // Lines that fit the narrowest terminals, however long the name is.
            true => {
                stderr.line("the daemon continues to hash it, and then shares it;").and_then(|()| {
                    stderr.line("torrent-status shows progress, torrent-remove cancels it")
                })
            }
            false => stderr.line("torrent-status shows whether the daemon has begun"),
        };
        match said {
            Ok(()) => CliError::silent(Exit::Interrupted),
            Err(error) => error.into(),
        }
    }
}

/// Time after which to say that others are hashed first.
const QUEUED_FOR: Duration = Duration::from_secs(1);
