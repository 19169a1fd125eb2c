//! A folder whose `.torrent` files, and magnet links in `.magnet` files, are added.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::add::TorrentAdder;
use super::add_request::{AddSource, NewTorrent};
use super::background::blocking;
use super::reason::Reason;
use super::torrents::Torrents;
use super::{Caller, DaemonError, torrent_files};
use piecework_api::TorrentSettings;
use piecework_core::printable_path;
use piecework_proto::announce::Magnet;

/// Length and modification time of a file. If two in a row are equal, the file is taken to be complete.
type FileStamp = (u64, Option<SystemTime>);

/// Adds the `.torrent` and `.magnet` files that are put into a folder.
pub(super) struct WatchFolder {
    torrents: Arc<Torrents>,
    adder: Arc<TorrentAdder>,
    /// The watched folder may have changed.
    changed: Notify,
}

/// Magnet links that wait for their metadata. Files do not wait for them.
#[derive(Default)]
struct WaitingLinks {
    /// Dropping it ends all.
    under_way: JoinSet<PathBuf>,
    /// When each was last tried, if it is not under way.
    tried: BTreeMap<PathBuf, Option<Instant>>,
}

impl WaitingLinks {
    /// Tries the links in these files, a few at a time, those first that were not tried for the longest time.
    fn take(&mut self, watch: &Arc<WatchFolder>, files: Vec<PathBuf>) {
        while let Some(done) = self.under_way.try_join_next() {
            // After a panic the file is left alone until the daemon starts again.
            if let Ok(path) = done {
                self.tried.insert(path, Some(Instant::now()));
            }
        }
        self.tried.retain(|path, tried| tried.is_none() || files.contains(path));
        let may_try = |path: &PathBuf| match self.tried.get(path) {
            None => true,
            Some(tried) => tried.is_some_and(|at| at.elapsed() >= TRY_AGAIN),
        };
        let mut due: Vec<PathBuf> = files.into_iter().filter(may_try).collect();
        due.sort_by_key(|path| self.tried.get(path).copied().flatten());
        for path in due.into_iter().take(LINKS_AT_A_TIME.saturating_sub(self.under_way.len())) {
            self.tried.insert(path.clone(), None);
            let watch = Arc::clone(watch);
            self.under_way.spawn(async move {
                watch.take(path.clone()).await;
                path
            });
        }
    }
}

impl WatchFolder {
    pub(crate) fn new(torrents: Arc<Torrents>, adder: Arc<TorrentAdder>) -> Self {
        Self { torrents, adder, changed: Notify::new() }
    }

    /// Makes it read again which folder is watched.
    pub(crate) fn settings_changed(&self) {
        self.changed.notify_one();
    }

    /// Scans the folder every few seconds as long as one is chosen.
    pub(crate) async fn run(self: Arc<Self>) {
        let (mut seen, mut links) = (BTreeMap::new(), WaitingLinks::default());
        loop {
            let folder = self.torrents.table().settings.watch_folder.clone();
            match folder {
                Some(folder) => {
                    self.look(&folder, &mut seen, &mut links).await;
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep(EVERY) => {}
                    }
                }
                None => {
                    seen.clear();
                    links = WaitingLinks::default();
                    self.changed.notified().await;
                }
            }
        }
    }

    async fn look(
        self: &Arc<Self>,
        folder: &Path,
        seen: &mut BTreeMap<PathBuf, FileStamp>,
        links: &mut WaitingLinks,
    ) {
        let place = folder.to_owned();
        let now = match blocking(move || list(&place)).await {
            Ok(Ok(now)) => now,
            Ok(Err(error)) => {
                let shown = printable_path(folder);
                let told = format!("the folder `{shown}` cannot be watched: {error}");
                self.torrents.table().notice(told);
                return;
            }
            Err(_) => return,
        };
        let settled = |look: &FileStamp| {
            let age = look.1.and_then(|modified| modified.elapsed().ok());
            age.is_some_and(|age| age >= SETTLED)
        };
        let resting = now
            .iter()
            .filter(|(path, look)| seen.get(*path) == Some(look) || settled(look))
            .map(|(path, _)| path.clone());
        let (with_links, resting): (Vec<PathBuf>, Vec<PathBuf>) =
            resting.partition(|path| ends_in(path, "magnet"));
        links.take(self, with_links);
        let lengths: BTreeMap<PathBuf, u64> = resting
            .iter()
            .map(|path| (path.clone(), now.get(path).map_or(0, |look| look.0)))
            .collect();
        *seen = now;
        let (mut taking, mut bytes) = (JoinSet::new(), 0_u64);
        for path in resting {
            if self.torrents.check_open().is_err() {
                break;
            }
            seen.remove(&path);
            let len = lengths.get(&path).copied().unwrap_or(0);
            // At a time: some small files, large ones up to a number of bytes, or one file alone.
            while !taking.is_empty() && (taking.len() >= AT_A_TIME || bytes + len > BYTES_AT_A_TIME)
            {
                // A panic affects only that file.
                if let Some(Ok(len)) = taking.join_next().await {
                    bytes -= len;
                }
            }
            bytes = if taking.is_empty() { len } else { bytes + len };
            let watch = Arc::clone(self);
            taking.spawn(async move {
                watch.take(path).await;
                len
            });
        }
        while taking.join_next().await.is_some() {}
    }

    async fn take(&self, path: PathBuf) {
        let (paused, sequential, delete) = {
            let settings = &self.torrents.table().settings;
            (!settings.start_added, settings.sequential, settings.watch_delete)
        };
        let read = {
            let path = path.clone();
            blocking(move || torrent_files::read_bounded(&path)).await
        };
        let added = match read {
            Ok(Ok(bytes)) => match source_of(&path, bytes) {
                Ok(source) => {
                    let settings =
                        TorrentSettings { paused, sequential, ..TorrentSettings::default() };
                    self.adder.add(NewTorrent::new(source, settings), Caller::Owner).await.map(drop)
                }
                Err(error) => Err(error),
            },
            Ok(Err(error)) => Err(DaemonError::Invalid(Reason::of(error))),
            Err(error) => Err(error),
        };
        let named = printable_path(&path);
        let end = match added {
            Ok(()) => {
                tracing::info!("`{named}` is added");
                if delete { None } else { Some("added") }
            }
            Err(DaemonError::Invalid(error)) => {
                self.torrents.table().notice(format!("`{named}` is not added: {error}"));
                Some("invalid")
            }
            Err(error) => {
                tracing::warn!("`{named}` is not added yet: {error}");
                return;
            }
        };
        let done = blocking(move || match end {
            None => std::fs::remove_file(&path),
            Some(end) => {
                let mut aside = path.clone().into_os_string();
                aside.push(format!(".{end}"));
                std::fs::rename(&path, aside)
            }
        });
        if let Ok(Err(error)) = done.await {
            self.torrents.table().notice(format!(
                "`{named}` was processed, but cannot be renamed or removed: {error}"
            ));
        }
    }
}

/// Returns the torrent or the magnet link in the file `path`.
fn source_of(path: &Path, bytes: Vec<u8>) -> Result<AddSource, DaemonError> {
    if !ends_in(path, "magnet") {
        return Ok(AddSource::Bytes(bytes));
    }
    let text = String::from_utf8_lossy(&bytes);
    // Nothing but a link: an address of a `.torrent` would be downloaded.
    match Magnet::parse(&text) {
        Ok(_) => Ok(AddSource::Url(text.trim().to_owned())),
        Err(error) => Err(DaemonError::invalid(Reason::of(error))),
    }
}

fn ends_in(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case(ending))
}

/// Returns the `.torrent` and `.magnet` files in the folder, without symbolic links.
fn list(folder: &Path) -> std::io::Result<BTreeMap<PathBuf, FileStamp>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let named = ends_in(&path, "torrent") || ends_in(&path, "magnet");
        // A file may have been removed since.
        let Ok(meta) = entry.metadata() else { continue };
        if named && meta.is_file() && found.len() < AT_ONCE {
            found.insert(path, (meta.len(), meta.modified().ok()));
        }
    }
    Ok(found)
}

/// Time between two scans.
const EVERY: Duration = Duration::from_secs(5);

/// A file that was not modified for so long is taken to be complete at the first scan.
const SETTLED: Duration = Duration::from_secs(10);

/// Maximum number of files in one scan. The others follow later.
const AT_ONCE: usize = 10_000;

/// Maximum number of bytes of files that are added at the same time, if there are several.
const BYTES_AT_A_TIME: u64 = 32 << 20;

/// Maximum number of files that are added at the same time. Each waits for the disk twice, and writes that
/// wait together are done together.
const AT_A_TIME: usize = 16;

/// Maximum number of magnet links that are tried at the same time: fewer than the places for torrents of the owner.
const LINKS_AT_A_TIME: usize = 4;

/// Time after which a magnet link that led nowhere is tried again. Its trackers are announced to each time.
const TRY_AGAIN: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torrent_files_are_found_whatever_the_case_of_their_ending() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.torrent", "b.TORRENT", "c.Torrent", "d.torrent.added", "e.txt", "f.Magnet"]
        {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let found = list(dir.path()).unwrap();
        let names: Vec<_> = found.keys().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["a.torrent", "b.TORRENT", "c.Torrent", "f.Magnet"]);
    }

    #[test]
    fn a_magnet_file_contains_a_magnet_link_and_nothing_else() {
        let of = |text: &str| source_of(Path::new("a.magnet"), text.as_bytes().to_vec());
        let link = format!("magnet:?xt=urn:btih:{}", "ab".repeat(20));
        assert!(matches!(of(&format!("{link}\n")), Ok(AddSource::Url(text)) if text == link));
        for text in ["", "http://example.org/a.torrent", "magnet:?dn=x", &format!("{link}\n{link}")]
        {
            assert!(matches!(of(text), Err(DaemonError::Invalid(_))), "{text}");
        }
    }
}
