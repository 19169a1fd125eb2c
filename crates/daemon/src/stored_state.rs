//! What an earlier run of the daemon has stored: the state and the `.torrent` files.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::entry::unix_now;
use super::provisional::sweep;
use super::reason::Reason;
use super::record::TorrentRecord;
use super::torrent_files::TorrentFile;
use super::{DaemonConfig, StartError, torrent_files};
use crate::state::{Counters, Loaded, Saved, State};
use piecework_api::TorrentSettings;
use piecework_core::metainfo::Metainfo;
use piecework_core::{Unwritable, printable_path};
use piecework_storage::content_names;

/// The open state and its contents.
pub(super) struct StoredState {
    pub state: State,
    pub loaded: Loaded,
    pub found: Vec<StoredTorrent>,
    /// Why the folder of `.torrent` files could not be created, if its disk cannot be written now.
    pub unmade: Option<String>,
}

/// A saved torrent, its record, and its `.torrent`, if they can be read.
pub(super) struct StoredTorrent {
    pub saved: Saved,
    pub record: Result<TorrentRecord, serde_json::Error>,
    pub metainfo: Result<Arc<Metainfo>, Reason>,
}

/// Opens the state and reads the torrents. Blocks.
pub(super) fn open(config: &DaemonConfig) -> Result<StoredState, StartError> {
    let folder = &config.torrents;
    let unmade = match std::fs::create_dir_all(folder) {
        Ok(()) => None,
        Err(error) => {
            let Some(why) = Unwritable::of(&error) else {
                return Err(StartError::Folder { path: folder.clone(), source: error });
            };
            let folder = printable_path(folder);
            Some(format!(
                "the folder `{folder}` cannot be created: {why}; it is tried again every few seconds"
            ))
        }
    };
    let (state, mut loaded) = State::open(&config.state)?;
    let mut torrents = std::mem::take(&mut loaded.torrents);
    if !loaded.incomplete {
        let known = torrents.iter().map(|saved| saved.file.as_str()).collect();
        match sweep(folder, &known) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, "could not remove what requests left in the torrents folder");
            }
            _ => {}
        }
    }
    let anew = match loaded.incomplete {
        true => find_again(config, &torrents),
        false => Vec::new(),
    };
    let rebuilt = anew.len();
    if rebuilt > 0 {
        match state.put_many(anew.clone()).wait() {
            Err(error) if error.is_unwritable() => state.put_later(anew.clone()),
            written => written?,
        }
        torrents.extend(anew);
        let notice = loaded.notice.get_or_insert_with(|| {
            format!("there was no database `{}`", printable_path(&config.state))
        });
        notice.push_str(&format!(
            "; `{rebuilt}` torrents were found again in `{}` and are checked: those that are \
             not whole in `{}` stay paused until they are started or told where their files are",
            printable_path(&config.torrents),
            printable_path(&config.settings.downloads),
        ));
    }
    let found = read_all(&config.torrents, torrents);
    Ok(StoredState { state, loaded, found, unmade })
}

/// Returns the torrents in the folder that are not in the state.
fn find_again(config: &DaemonConfig, known: &[Saved]) -> Vec<Saved> {
    let files: BTreeSet<&str> = known.iter().map(|saved| saved.file.as_str()).collect();
    let mut hashes: BTreeSet<_> = known.iter().map(|saved| saved.info_hash).collect();
    let mut names: Vec<String> = match std::fs::read_dir(&config.torrents) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".torrent") && !name.starts_with('.'))
            .filter(|name| !files.contains(name.as_str()))
            .collect(),
        // The folder could not be created.
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::error!(%error, "the folder of torrents cannot be read");
            Vec::new()
        }
    };
    names.sort();
    let read =
        side_by_side(&names, |name| torrent_files::read_torrent(&config.torrents.join(name)));
    let mut again = Vec::new();
    for (name, metainfo) in names.into_iter().zip(read) {
        let Ok(metainfo) = metainfo else { continue };
        if !hashes.insert(metainfo.info_hash()) {
            continue;
        }
        let rank = i64::try_from(again.len()).unwrap_or(i64::MAX);
        let mut record = TorrentRecord { rank, rebuilt: true, ..TorrentRecord::default() };
        let names = content_names(&metainfo, &config.settings.downloads, config.session.raw_names);
        if !names.is_empty() {
            let mut settings = TorrentSettings::default();
            settings.name_anew(metainfo.info().name(), names);
            record.settings = settings.into();
        }
        let suffix = config.settings.incomplete_suffix.clone();
        record.common.change(|common| common.suffix = Some(suffix.into()));
        again.push(Saved {
            info_hash: metainfo.info_hash(),
            file: name,
            root: config.settings.downloads.clone(),
            added_at: unix_now(),
            done_at: None,
            settings: record.to_text(),
            checkpoint: None,
            counters: Counters::default(),
        });
    }
    again
}

/// Reads every `.torrent`. One that is gone or damaged does not affect the others.
fn read_all(folder: &Path, mut torrents: Vec<Saved>) -> Vec<StoredTorrent> {
    // Parsed before anything that stays is allocated, so that the memory of the texts is reused and
    // leaves no holes.
    let records: Vec<_> = torrents
        .iter_mut()
        .map(|saved| TorrentRecord::from_text(&std::mem::take(&mut saved.settings)))
        .collect();
    let torrent_files = Arc::new(TorrentFile::usual(folder));
    let items: Vec<_> = torrents.iter().zip(&records).collect();
    let read = side_by_side(&items, |(saved, record)| {
        if record.as_ref().is_ok_and(|record| record.common.to_hash.is_some()) {
            return Err(Reason::from("its files are not hashed yet"));
        }
        if record.as_ref().is_ok_and(|record| record.common.to_fetch.is_some()) {
            return Err(Reason::from("its metadata is not here yet"));
        }
        let metainfo = torrent_files::read_known(&folder.join(&saved.file), saved.info_hash)
            .map_err(Reason::of)?;
        // Few of them will ever be verified. Freed now, their memory is reused for what stays.
        torrent_files.keeps(&metainfo, &saved.file);
        metainfo.let_go();
        Ok(Arc::new(metainfo))
    });
    drop(items);
    let found = torrents.into_iter().zip(records).zip(read);
    found.map(|((saved, record), metainfo)| StoredTorrent { saved, record, metainfo }).collect()
}

/// Runs `work` for each of `items` on a few threads. Returns the results in order.
fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, READERS);
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let reader = || {
            let mut mine = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { return mine };
                mine.push((at, work(item)));
            }
        };
        let threads: Vec<_> = (0..threads.min(items.len())).map(|_| scope.spawn(reader)).collect();
        threads
            .into_iter()
            .flat_map(|thread| match thread.join() {
                Ok(mine) => mine,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Maximum number of threads that read `.torrent` files: enough to keep a disk busy.
const READERS: usize = 8;
