//! Hashing files that are to be shared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::background::blocking;
use super::entry::unix_now;
use super::pending_work::PendingWork;
use super::reason::Reason;
use super::share_request::ShareInput;
use super::torrents::Torrents;
use super::{DaemonError, torrent_files, torrent_source};
use piecework_api::SeedRequest;
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, printable_path};
use piecework_engine::tracker_client::tier_texts;
use piecework_storage::{
    CheckProgress, CreateError, CreateOptions, CreateProgress, CreatedTorrent, FileHandles,
    Selection, Store, StoreMode, StoreOptions, check, content_names, create, may_be_called,
};

/// Files that were hashed, or that are what a torrent describes.
pub(super) struct HashedContent {
    pub metainfo: Arc<Metainfo>,
    pub root: PathBuf,
    /// Files that have other names on disk than in the torrent.
    pub names: BTreeMap<usize, Vec<String>>,
    /// Symbolic links led to some of them.
    pub through_links: bool,
    pub warnings: Vec<String>,
    /// The torrent was made elsewhere.
    pub is_made: bool,
}

/// Hashes files that are to be shared, with all cores.
pub(super) async fn hash(
    torrents: &Arc<Torrents>,
    roots: &[PathBuf],
    provisional: InfoHash,
    work: &Arc<PendingWork>,
    input: &ShareInput,
    request: &SeedRequest,
) -> Result<HashedContent, DaemonError> {
    let roots = roots.iter();
    let options = CreateOptions {
        piece_len: request.piece_length,
        private: request.private,
        trackers: tier_texts(&input.tiers),
        comment: request.description.clone(),
        name: input.link.clone(),
        source: request.source.clone(),
        selection: Selection {
            follow_links: request.follow_links,
            links_within: roots
                .map(|root| root.canonicalize().unwrap_or_else(|_| root.clone()))
                .collect(),
            exclude: request.exclude.clone(),
            skip_hidden: request.no_hidden,
        },
        ..CreateOptions::by_piecework(unix_now())
    };
    let (torrents, work, source) = (Arc::clone(torrents), Arc::clone(work), input.input.clone());
    let created = blocking(move || {
        let progress = |at: CreateProgress| {
            if work.at(at.bytes_done, at.bytes_total, at.pieces_total) {
                torrents.touch(provisional, false);
            }
        };
        create(&source, options, cores(), progress, work.cancellation())
    });
    let created = created.await?.map_err(|error| match error {
        CreateError::Storage(error) => DaemonError::Storage(error),
        CreateError::Cancelled => DaemonError::Ending,
        CreateError::Changed { .. } => DaemonError::conflict(Reason::of(error)),
        error => DaemonError::invalid(Reason::of(error)),
    })?;
    let warnings = created.notices();
    let CreatedTorrent { metainfo, root, names, through_links, .. } = created;
    let through_links = through_links || input.link.is_some();
    let metainfo = Arc::new(metainfo);
    Ok(HashedContent { metainfo, root, names, through_links, warnings, is_made: false })
}

/// Checks that the content of the `.torrent` file `torrent` is complete at `input`.
pub(super) async fn check_existing(
    torrents: &Arc<Torrents>,
    provisional: InfoHash,
    work: &Arc<PendingWork>,
    torrent: PathBuf,
    input: PathBuf,
) -> Result<HashedContent, DaemonError> {
    let (torrents, work) = (Arc::clone(torrents), Arc::clone(work));
    blocking(move || {
        let bytes = torrent_files::read_bounded(&torrent)
            .map_err(|error| DaemonError::conflict(Reason::of(error)))?;
        let metainfo = torrent_source::parse(&bytes)?;
        drop(bytes);
        let geometry = metainfo.info().geometry();
        let progress = |at: CheckProgress| {
            if work.at(at.bytes_done, geometry.total_len(), geometry.pieces()) {
                torrents.touch(provisional, false);
            }
        };
        verify(Arc::clone(&metainfo), &input, progress, work.cancellation())
    })
    .await?
}

/// Checks that the content of an existing torrent is complete.
fn verify(
    metainfo: Arc<Metainfo>,
    input: &Path,
    progress: impl Fn(CheckProgress) + Send + Sync,
    cancel: &AtomicBool,
) -> Result<HashedContent, DaemonError> {
    let info = metainfo.info();
    // `input` is the content itself, or the folder that contains it.
    let is_content = input.file_name().is_some_and(|name| may_be_called(&metainfo, name))
        && input.is_file() == info.is_single_file();
    let root = match input.parent() {
        Some(parent) if is_content => parent.to_owned(),
        _ => input.to_owned(),
    };
    let handles = Arc::new(FileHandles::default());
    let names = content_names(&metainfo, &root, false);
    let options = StoreOptions { mode: StoreMode::ReadOnly, names, ..StoreOptions::default() };
    let store = Store::with_options(&root, Arc::clone(&metainfo), handles, options)?;
    let have = check(&store, None, progress, cancel)?;
    if cancel.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(DaemonError::Ending);
    }
    let pieces = info.geometry().pieces();
    if have.count() < pieces {
        return Err(DaemonError::invalid(format!(
            "`{}` is not what the torrent describes: {} of {pieces} pieces are right",
            printable_path(&root.join(info.name())),
            have.count(),
        )));
    }
    let names = store.options().names;
    let warnings = Vec::new();
    Ok(HashedContent { metainfo, root, names, through_links: false, warnings, is_made: true })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
