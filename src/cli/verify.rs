//! `torrent-verify`: checks whether the data of a torrent is complete.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;

use piecework_core::metainfo::{Metainfo, safe_name};
use piecework_core::{PieceIndex, printable};
use piecework_storage::{
    FileHandles, FileReport, Store, StoreMode, StoreOptions, content_names, may_be_called, verify,
};

use super::format::{count, counted, shown, size};
use super::progress::WorkBar;
use super::{CliError, Env, Exit, torrent_file};

/// Check whether the data of a torrent is complete.
#[derive(Parser)]
#[command(
    name = "torrent-verify",
    version,
    after_help = "Example: torrent-verify linux.torrent --data downloads\n\n\
                  Exit code 0 only if every piece and file is right."
)]
struct VerifyArgs {
    /// The torrent file.
    #[arg(value_name = "F.torrent")]
    torrent: PathBuf,
    /// The torrent's file or folder, or the folder that contains it.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

pub fn main(env: Env) -> Exit {
    env.run(|args: VerifyArgs, env| run(&args, env))
}

/// Returns the folder that contains `metainfo`'s content, given that folder or the content itself.
///
/// # Errors If there is no such content.
pub fn content_root(metainfo: &Metainfo, data: &Path, named: &Path) -> Result<PathBuf, CliError> {
    let name = metainfo.info().name();
    // It may have another name on disk.
    let names = [name, &safe_name(name)];
    if names.iter().any(|name| data.join(name).symlink_metadata().is_ok()) {
        return Ok(data.to_owned());
    }
    let found = data.symlink_metadata().map_err(|error| {
        CliError::failed(format_args!("`{}` cannot be examined: {error}", shown(named)))
            .because(error)
    })?;
    let itself = data.canonicalize().ok().filter(|full| {
        full.file_name().is_some_and(|last| may_be_called(metainfo, last))
            && found.is_file() == metainfo.info().is_single_file()
    });
    match itself.as_deref().and_then(Path::parent) {
        Some(parent) => Ok(parent.to_owned()),
        None if found.is_dir() => Ok(data.to_owned()),
        None => Err(CliError::failed(format_args!(
            "`{}` is neither `{}` nor a folder that contains it",
            shown(named),
            printable(name)
        ))),
    }
}

fn run(args: &VerifyArgs, env: &Env) -> Result<(), CliError> {
    super::exit_deadline::tidy_on_signals(env);
    env.warn_of_hashing()?;
    let metainfo = torrent_file::read(&env.path(&args.torrent), &args.torrent)?;
    let root = content_root(&metainfo, &env.path(&args.data), &args.data)?;
    let metainfo = Arc::new(metainfo);
    let handles = Arc::new(FileHandles::new(OPEN_FILES));
    let names = content_names(&metainfo, &root, false);
    let options = StoreOptions { mode: StoreMode::ReadOnly, names, ..StoreOptions::default() };
    let store = Store::with_options(&root, Arc::clone(&metainfo), handles, options)
        .map_err(CliError::failed_by)?;
    let geometry = metainfo.info().geometry();
    let bar = WorkBar::new(env, "checking", metainfo.info().name());
    let result = verify(
        &store,
        |progress| bar.at(progress.bytes_done, geometry.total_len()),
        &AtomicBool::new(false),
    );
    bar.clear();
    let (right, files) = result.map_err(CliError::failed_by)?;

    let paint = env.stdout().paint();
    let lost: BTreeSet<u32> = files
        .iter()
        .filter(|file| file.found_len != Some(file.len))
        .flat_map(|file| file.bad_pieces.iter().map(|piece| piece.0))
        .collect();
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| !file.is_whole()) {
        let fault = match kind(file, &lost) {
            UNSURE => format!(
                "{} {}: shared with a file that is missing or has another length",
                paint.yellow(UNSURE),
                describe(file)
            ),
            kind => format!("{} {}", paint.red(kind), describe(file)),
        };
        faults.push(fault);
    }
    let bad = u64::from(geometry.pieces() - right.count());
    let name = printable(metainfo.info().name()).into_owned();
    if faults.is_empty() && bad == 0 {
        env.stdout().line(format_args!(
            "{} {}: {}, {}",
            paint.green("whole"),
            paint.bold(name),
            counted(geometry.pieces().into(), "piece"),
            size(geometry.total_len())
        ))?;
        return Ok(());
    }
    let hidden = faults.len().saturating_sub(MOST_LINES);
    faults.truncate(MOST_LINES);
    env.stdout().line(faults.join("\n"))?;
    if hidden > 0 {
        env.stdout().line(format_args!("… and {}", counted(hidden as u64, "more file")))?;
    }
    let bad_files = faults.len() + hidden;
    Err(CliError::failed(format_args!(
        "`{name}` is not complete: {} of {} wrong or missing, {} of {} files",
        count(bad),
        counted(geometry.pieces().into(), "piece"),
        count(bad_files as u64),
        count(files.len() as u64),
    )))
}

/// Returns what is wrong with a file. `lost` are the bad pieces of files that are missing or have
/// another length.
fn kind(file: &FileReport, lost: &BTreeSet<u32>) -> &'static str {
    match file.found_len {
        None => "missing",
        // Such a piece is bad whether this file is bad or not, so its hash says nothing about this
        // file.
        Some(len)
            if len == file.len && file.bad_pieces.iter().all(|piece| lost.contains(&piece.0)) =>
        {
            UNSURE
        }
        Some(_) => "damaged",
    }
}

fn describe(file: &FileReport) -> String {
    let mut text = shown(&file.path);
    match file.found_len {
        Some(len) if len != file.len => {
            text.push_str(&format!(": {} bytes instead of {}", count(len), count(file.len)));
        }
        _ => {}
    }
    if !file.bad_pieces.is_empty() {
        let plural = if file.bad_pieces.len() == 1 { "" } else { "s" };
        text.push_str(&format!(", piece{plural} {}", ranges(&file.bad_pieces)));
    }
    text
}

/// Returns runs of pieces such as `3, 7-9`, twelve at most.
fn ranges(pieces: &[PieceIndex]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == piece.0 => *end = piece.0,
            _ => runs.push((piece.0, piece.0)),
        }
    }
    let text = |(start, end): &(u32, u32)| {
        if start == end { start.to_string() } else { format!("{start}-{end}") }
    };
    let mut out = runs.iter().take(MOST_RUNS).map(text).collect::<Vec<_>>().join(", ");
    if runs.len() > MOST_RUNS {
        out.push_str(&format!(", … ({} in all)", count(pieces.len() as u64)));
    }
    out
}

/// The word for a file that may be complete.
const UNSURE: &str = "unsure";

/// Maximum open files. Each hashing thread needs one.
const OPEN_FILES: usize = 64;

/// Maximum number of damaged files to list.
const MOST_LINES: usize = 1_000;

/// Maximum number of runs of damaged pieces to list for a file.
const MOST_RUNS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_not_called_damaged_for_what_its_neighbour_lacks() {
        let file = |found_len, bad: &[u32]| FileReport {
            path: "f".into(),
            len: 10,
            found_len,
            bad_pieces: bad.iter().copied().map(PieceIndex).collect(),
        };
        let lost = BTreeSet::from([3, 4]);
        assert_eq!(kind(&file(None, &[3, 4]), &lost), "missing");
        assert_eq!(kind(&file(Some(9), &[4]), &lost), "damaged");
        assert_eq!(kind(&file(Some(10), &[3]), &lost), "unsure");
        assert_eq!(kind(&file(Some(10), &[2, 3]), &lost), "damaged");
    }

    #[test]
    fn runs_of_pieces_are_joined_and_cut() {
        let pieces = |numbers: &[u32]| numbers.iter().copied().map(PieceIndex).collect::<Vec<_>>();
        assert_eq!(ranges(&pieces(&[3])), "3");
        assert_eq!(ranges(&pieces(&[0, 1, 2, 7, 9, 10])), "0-2, 7, 9-10");
        let odd: Vec<u32> = (0..40).map(|n| n * 2 + 1).collect();
        assert!(ranges(&pieces(&odd)).ends_with("23, … (40 in all)"));
    }
}
