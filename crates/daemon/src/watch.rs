//! The folder whose `.torrent` files are added.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;

use super::inner::{Inner, blocking};
use super::roots::shown;
use super::{AddSource, Caller, DaemonError, NewTorrent, files};
use piecework_api::TorrentSettings;

/// What a file was like when somebody looked: two looks alike, and it is taken to be whole.
type Look = (u64, Option<SystemTime>);

/// Looks into the folder every few seconds as long as one is chosen.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut seen = BTreeMap::new();
    loop {
        let folder = inner.book.lock().settings.watch_folder.clone();
        match folder {
            Some(folder) => {
                look(&inner, &folder, &mut seen).await;
                tokio::select! {
                    () = inner.rewatch.notified() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
            None => {
                seen.clear();
                inner.rewatch.notified().await;
            }
        }
    }
}

async fn look(inner: &Arc<Inner>, folder: &Path, seen: &mut BTreeMap<PathBuf, Look>) {
    let place = folder.to_owned();
    let now = match blocking(move || list(&place)).await {
        Ok(Ok(now)) => now,
        Ok(Err(error)) => {
            let shown = shown(folder);
            let told = format!("the folder `{shown}` cannot be watched: {error}");
            inner.book.lock().notice(told);
            return;
        }
        Err(_) => return,
    };
    let settled = |look: &Look| {
        let age = look.1.and_then(|modified| modified.elapsed().ok());
        age.is_some_and(|age| age >= SETTLED)
    };
    let resting: Vec<PathBuf> = now
        .iter()
        .filter(|(path, look)| seen.get(*path) == Some(look) || settled(look))
        .map(|(path, _)| path.clone())
        .collect();
    let lengths: BTreeMap<PathBuf, u64> =
        resting.iter().map(|path| (path.clone(), now.get(path).map_or(0, |look| look.0))).collect();
    *seen = now;
    let (mut taking, mut bytes) = (JoinSet::new(), 0_u64);
    for path in resting {
        if inner.is_open().is_err() {
            break;
        }
        seen.remove(&path);
        let len = lengths.get(&path).copied().unwrap_or(0);
        // Some small ones, or large ones of some bytes together; or one alone.
        while !taking.is_empty() && (taking.len() >= AT_A_TIME || bytes + len > BYTES_AT_A_TIME) {
            // A panic there is that file's alone.
            if let Some(Ok(len)) = taking.join_next().await {
                bytes -= len;
            }
        }
        bytes = if taking.is_empty() { len } else { bytes + len };
        let inner = Arc::clone(inner);
        taking.spawn(async move {
            take(&inner, path).await;
            len
        });
    }
    while taking.join_next().await.is_some() {}
}

/// The `.torrent` files in the folder; links are passed over.
fn list(folder: &Path) -> std::io::Result<BTreeMap<PathBuf, Look>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let named = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("torrent"));
        // One that went since is none.
        let Ok(meta) = entry.metadata() else { continue };
        if named && meta.is_file() && found.len() < AT_ONCE {
            found.insert(path, (meta.len(), meta.modified().ok()));
        }
    }
    Ok(found)
}

async fn take(inner: &Arc<Inner>, path: PathBuf) {
    let (paused, sequential, delete) = {
        let settings = &inner.book.lock().settings;
        (!settings.start_added, settings.sequential, settings.watch_delete)
    };
    let read = {
        let path = path.clone();
        blocking(move || files::read_bounded(&path)).await
    };
    let added = match read {
        Ok(Ok(bytes)) => {
            let new = NewTorrent {
                source: AddSource::Bytes(bytes),
                folder: None,
                settings: TorrentSettings { paused, sequential, ..TorrentSettings::default() },
                only_files: None,
                trackers: Vec::new(),
                peers: Vec::new(),
                rename: None,
                overwrite: false,
            };
            inner.add(new, Caller::Owner).await.map(drop)
        }
        Ok(Err(error)) => Err(DaemonError::Invalid(error)),
        Err(error) => Err(error),
    };
    let named = shown(&path);
    let end = match added {
        Ok(()) => {
            tracing::info!("`{named}` is added");
            if delete { None } else { Some("added") }
        }
        Err(DaemonError::Invalid(error)) => {
            inner.book.lock().notice(format!("`{named}` is not added: {error}"));
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
        inner
            .book
            .lock()
            .notice(format!("`{named}` is dealt with, but cannot be renamed or removed: {error}"));
    }
}

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// A file that nobody has touched for so long is whole at the first look.
const SETTLED: Duration = Duration::from_secs(10);

/// Files taken in at one look; the others come later.
const AT_ONCE: usize = 10_000;

/// Bytes of files being added side by side, if there are several.
const BYTES_AT_A_TIME: u64 = 32 << 20;

/// Files being added side by side: each waits for the disk twice, and who waits together is served
/// together.
const AT_A_TIME: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torrent_files_are_found_whatever_the_case_of_their_ending() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.torrent", "b.TORRENT", "c.Torrent", "d.torrent.added", "e.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let found = list(dir.path()).unwrap();
        let names: Vec<_> = found.keys().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["a.torrent", "b.TORRENT", "c.Torrent"]);
    }
}
