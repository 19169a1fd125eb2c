//! `torrent-create`: make a torrent file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use tokio::sync::oneshot;

use piecework_core::metainfo::{check_piece_len, torrent_file_stem};
use piecework_core::printable;
use piecework_proto::announce::TrackerTarget;
use piecework_storage::{
    self as storage, CreateError, CreateOptions, CreateProgress, CreatedTorrent, Selection,
};

use super::format::{counted, parse_size, shown, size};
use super::progress::WorkBar;
use super::torrent_file::Existing;
use super::{CliError, Env, Exit, Output, torrent_file};

/// Make a torrent file of a file or folder.
#[derive(Parser)]
#[command(
    name = "torrent-create",
    version,
    after_help = "Example: torrent-create photos --piece-length 1MiB --tracker 10.0.0.1:8000"
)]
struct CreateArgs {
    /// The file or folder.
    path: PathBuf,
    /// Where to write the torrent. By default PATH's name with `.torrent`, in the working
    /// directory.
    #[arg(long, short, value_name = "F.torrent")]
    output: Option<PathBuf>,
    /// Overwrite the file to write to, whatever it is. Without this, only the same torrent with the
    /// same trackers is overwritten.
    #[arg(long, short)]
    force: bool,
    /// Bytes in a piece, a power of two from 16KiB to 64MiB. Chosen by size by default.
    #[arg(long, value_name = "N", value_parser = parse_piece_len)]
    piece_length: Option<u32>,
    /// A tracker, as URL or IP:PORT. Can be repeated; trackers are tried in order.
    #[arg(long, value_name = "URL", value_parser = TrackerTarget::parse)]
    tracker: Vec<TrackerTarget>,
    /// Mark it private: peers come from its trackers only (BEP 27).
    #[arg(long)]
    private: bool,
    /// A comment.
    #[arg(long, value_name = "C")]
    comment: Option<String>,
    /// A name other than that of the file or folder. The data must then have this name wherever it
    /// is shared.
    #[arg(long, value_name = "N")]
    name: Option<String>,
    #[command(flatten)]
    selection: SelectionArgs,
}

/// The files of a folder to share, and the tag of the torrent.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct SelectionArgs {
    /// Share what symbolic links inside the folder lead to, under the names of the links. Without
    /// this, links are left out.
    #[arg(long)]
    pub follow_links: bool,
    /// Leave out files and folders that match: `*.tmp` by name at any depth, `build/**/*.o` by path
    /// below the folder. Can be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Leave out files and folders whose name begins with a dot.
    #[arg(long)]
    pub no_hidden: bool,
    /// Add a word to what is hashed, which gives the same files another info-hash. Some private
    /// trackers want their own.
    #[arg(long, value_name = "TAG")]
    pub source: Option<String>,
}

impl SelectionArgs {
    /// Returns the files that these arguments select.
    pub fn selection(&self) -> Selection {
        Selection {
            follow_links: self.follow_links,
            links_within: Vec::new(),
            exclude: self.exclude.clone(),
            skip_hidden: self.no_hidden,
        }
    }
}

pub fn main(env: Env) -> Exit {
    env.run(|args: CreateArgs, env| run(args, env))
}

/// Parses a piece length for a new torrent.
pub fn parse_piece_len(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    let unusual = || format!("`{}` is not a power of two from 16KiB to 64MiB", printable(text));
    let len = u32::try_from(bytes).map_err(|_| unusual())?;
    check_piece_len(len).map_err(|_| unusual())?;
    Ok(len)
}

/// Returns the options of torrents that we make.
pub fn options() -> CreateOptions {
    CreateOptions::by_piecework(jiff::Timestamp::now().as_second())
}

/// Makes a torrent on threads of its own. Dropping it cancels the work.
pub struct HashJob {
    result: oneshot::Receiver<Result<CreatedTorrent, CreateError>>,
    bar: Arc<WorkBar>,
    cancel: Arc<AtomicBool>,
    stderr: Output,
}

impl HashJob {
    /// Begins to hash `path`, with a progress bar.
    pub fn start(env: &Env, path: &Path, options: CreateOptions) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let bar = Arc::new(WorkBar::new(env, "hashing", &name));
        let cancel = Arc::new(AtomicBool::new(false));
        let (tell, result) = oneshot::channel();
        let (path, shown_bar, cancelled) = (env.path(path), Arc::clone(&bar), Arc::clone(&cancel));
        let work = move || {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let progress = |at: CreateProgress| shown_bar.at(at.bytes_done, at.bytes_total);
            // If nobody waits for the result, the work was cancelled.
            let _ = tell.send(storage::create(&path, options, threads, progress, &cancelled));
        };
        if let Err(error) = std::thread::Builder::new().name("hashing".to_owned()).spawn(work) {
            // `finished` reports that there is no result.
            tracing::error!(%error, "no thread to hash on");
        }
        Self { result, bar, cancel, stderr: env.stderr().clone() }
    }

    /// Waits for the torrent. Says on stderr what was left out.
    ///
    /// # Errors
    /// If no torrent can be made.
    pub async fn finished(mut self) -> Result<CreatedTorrent, CliError> {
        let result = (&mut self.result).await;
        self.report(result.ok())
    }

    /// The same for callers that may block.
    ///
    /// # Errors
    /// If no torrent can be made.
    pub fn wait(mut self) -> Result<CreatedTorrent, CliError> {
        // `Drop` needs a receiver, so put a closed one back.
        let (_, closed) = oneshot::channel();
        let result = std::mem::replace(&mut self.result, closed).blocking_recv();
        self.report(result.ok())
    }

    fn report(
        &self,
        result: Option<Result<CreatedTorrent, CreateError>>,
    ) -> Result<CreatedTorrent, CliError> {
        self.bar.clear();
        let result = result.ok_or_else(|| CliError::failed("hashing ended early"))?;
        let created = result.map_err(CliError::failed_by)?;
        for notice in created.notices() {
            self.stderr.line(notice)?;
        }
        Ok(created)
    }
}

impl Drop for HashJob {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
        self.bar.clear();
    }
}

fn run(args: CreateArgs, env: &Env) -> Result<(), CliError> {
    super::exit_deadline::tidy_on_signals(env);
    env.warn_of_hashing()?;
    let mut options = options();
    options.piece_len = args.piece_length;
    options.private = args.private;
    options.comment = args.comment;
    options.name = args.name;
    options.selection = args.selection.selection();
    options.source = args.selection.source;
    options.trackers = args
        .tracker
        .iter()
        .flat_map(|target| &target.tiers)
        .map(|tier| tier.iter().map(|url| url.as_str().to_owned()).collect())
        .collect();
    let existing = Existing::forced(args.force);
    if let Some(output) = &args.output {
        torrent_file::may_write(&env.path(output), output, existing)?;
    }
    let created = HashJob::start(env, &args.path, options).wait()?;
    let metainfo = &created.metainfo;
    let info = metainfo.info();
    let output =
        args.output.unwrap_or_else(|| format!("{}.torrent", torrent_file_stem(info.name())).into());
    torrent_file::write(&env.path(&output), &output, metainfo, existing)?;
    let geometry = info.geometry();
    env.stdout().line(format_args!(
        "{}: {}, {} of {}, info-hash {}",
        env.stdout().paint().bold(shown(&output)),
        size(geometry.total_len()),
        counted(geometry.pieces().into(), "piece"),
        size(geometry.piece_len().into()),
        metainfo.info_hash()
    ))?;
    Ok(())
}
