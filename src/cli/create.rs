//! `torrent-create`: make a torrent file.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use clap::Parser;

use crate::announce::TrackerTarget;
use crate::base::printable;
use crate::metainfo::check_piece_len;
use crate::storage::{self, CreateOptions, Created};

use super::format::{counted, parse_size, shown, size};
use super::progress::WorkBar;
use super::{CliError, Env, Exit, torrent_file};

/// Make a torrent file of a file or folder.
#[derive(Parser)]
#[command(
    name = "torrent-create",
    version,
    after_help = "Example: torrent-create photos --piece-length 1MiB --tracker 10.0.0.1:8000"
)]
struct Args {
    /// The file or folder.
    path: PathBuf,
    /// Where to write the torrent; PATH's name and `.torrent` in the working directory if not
    /// given.
    #[arg(long, short, value_name = "F.torrent")]
    output: Option<PathBuf>,
    /// Bytes a piece, a power of two from 16KiB to 64MiB; chosen by size if not given.
    #[arg(long, value_name = "N", value_parser = parse_piece_len)]
    piece_length: Option<u32>,
    /// A tracker, as URL or IP:PORT; several are tried in order.
    #[arg(long, value_name = "URL", value_parser = TrackerTarget::parse)]
    tracker: Vec<TrackerTarget>,
    /// Peers may come from its trackers only (BEP 27).
    #[arg(long)]
    private: bool,
    /// A comment for people.
    #[arg(long, value_name = "C")]
    comment: Option<String>,
    /// A name other than that of the file or folder, which must then bear it wherever it is
    /// shared from.
    #[arg(long, value_name = "N")]
    name: Option<String>,
}

/// Runs the program.
pub fn main(env: Env) -> Exit {
    env.run(|args: Args, env| run(args, env))
}

/// Reads a piece length that a torrent may be made with.
pub fn parse_piece_len(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    let unusual = || format!("`{}` is not a power of two from 16KiB to 64MiB", printable(text));
    let len = u32::try_from(bytes).map_err(|_| unusual())?;
    check_piece_len(len).map_err(|_| unusual())?;
    Ok(len)
}

/// What a torrent of ours says about its making.
pub fn options() -> CreateOptions {
    CreateOptions {
        created_by: Some(concat!("Piecework ", env!("CARGO_PKG_VERSION")).to_owned()),
        creation_date: Some(jiff::Timestamp::now().as_second()),
        ..CreateOptions::default()
    }
}

/// Hashes `path` with a progress bar; says on stderr which links were left out.
///
/// # Errors
/// If no torrent can be made of it.
pub fn hash(env: &Env, path: &Path, options: CreateOptions) -> Result<Created, CliError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let name = path.file_name().map_or_else(|| shown(path), |name| name.to_string_lossy().into());
    let bar = WorkBar::new(env, "hashing", &name);
    let result = storage::create(
        &env.path(path),
        options,
        threads,
        |progress| bar.at(progress.bytes_done, progress.bytes_total),
        &AtomicBool::new(false),
    );
    bar.clear();
    let created = result.map_err(CliError::failed)?;
    for link in created.skipped.iter().take(MOST_LINKS) {
        let label = env.stderr().paint().yellow("left out:");
        env.stderr().line(format_args!("{label} `{}` is a symbolic link", shown(link)))?;
    }
    if let Some(more @ 1..) = created.skipped.len().checked_sub(MOST_LINKS) {
        env.stderr().line(format_args!("left out: {}", counted(more as u64, "more link")))?;
    }
    Ok(created)
}

fn run(args: Args, env: &Env) -> Result<(), CliError> {
    let mut options = options();
    options.piece_len = args.piece_length;
    options.private = args.private;
    options.comment = args.comment;
    options.name = args.name;
    options.trackers = args
        .tracker
        .iter()
        .flat_map(|target| &target.tiers)
        .map(|tier| tier.iter().map(|url| url.as_str().to_owned()).collect())
        .collect();
    let created = hash(env, &args.path, options)?;
    let metainfo = &created.metainfo;
    let info = metainfo.info();
    let output = args.output.unwrap_or_else(|| format!("{}.torrent", info.name()).into());
    let full = env.path(&output);
    // A slip of the hand must not cost the data itself.
    if full.exists() && torrent_file::read(&full, &output).is_err() {
        return Err(CliError::failed(format_args!(
            "`{}` exists and is no torrent file, so it is not overwritten",
            shown(&output)
        )));
    }
    torrent_file::write(&full, &output, metainfo.as_bytes())?;
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

/// Links that are named one by one.
const MOST_LINKS: usize = 20;
