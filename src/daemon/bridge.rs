//! Where the daemon asks the engine.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::announcer::TrackerStatus;
use crate::base::InfoHash;
use crate::session::{AddError, AddTorrent, Session, TorrentHandle, TorrentState, TorrentStatus};

/// The torrents whose status changed.
pub(super) struct Changes {
    hashes: mpsc::Receiver<InfoHash>,
}

/// Through which torrents tell that theirs did.
#[derive(Clone)]
pub(super) struct Feed {
    hashes: mpsc::Sender<InfoHash>,
}

pub(super) fn changes(_session: &Session) -> (Feed, Changes) {
    let (sender, hashes) = mpsc::channel(1024);
    (Feed { hashes: sender }, Changes { hashes })
}

impl Changes {
    pub async fn next(&mut self) -> Vec<InfoHash> {
        let mut all = Vec::new();
        if self.hashes.recv_many(&mut all, 1024).await == 0 {
            std::future::pending::<()>().await;
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

pub(super) async fn add(
    session: &Session,
    feed: &Feed,
    add: AddTorrent,
) -> Result<TorrentHandle, AddError> {
    let paused = add.paused;
    let handle = session.add(add)?;
    if paused {
        handle.pause().await;
    }
    let (mut watched, feed) = (handle.clone(), feed.clone());
    tokio::spawn(async move {
        let info_hash = watched.info_hash();
        loop {
            if feed.hashes.send(info_hash).await.is_err() || watched.changed().await.is_err() {
                return;
            }
        }
    });
    Ok(handle)
}

pub(super) fn set_bounds(_session: &Session, _settings: &crate::api::Settings) {}

pub(super) fn set_block_list(
    _session: &Session,
    _list: Arc<dyn Fn(std::net::IpAddr) -> bool + Send + Sync>,
) {
}

pub(super) fn status(handle: &TorrentHandle) -> TorrentStatus {
    let mut status = handle.status();
    if status.bytes_wanted == status.bytes_total {
        status.bytes_wanted_have = status.bytes_have;
    }
    if status.state == TorrentState::Seeding {
        status.bytes_wanted_have = status.bytes_wanted;
    }
    status
}

pub(super) fn trackers(handle: &TorrentHandle) -> Vec<(usize, TrackerStatus)> {
    handle.status().trackers.into_iter().map(|tracker| (0, tracker)).collect()
}

pub(super) async fn availability(handle: &TorrentHandle) -> Vec<u32> {
    vec![0; handle.metainfo().info().geometry().pieces() as usize]
}

pub(super) async fn remove_data(
    handle: &TorrentHandle,
    root: &std::path::Path,
) -> Result<(), String> {
    let (metainfo, root) = (Arc::clone(handle.metainfo()), root.to_owned());
    let work = move || {
        for file in metainfo.info().files().entries().iter().filter(|file| !file.padding) {
            let mut path = root.clone();
            path.extend(file.path.iter().map(|name| &**name));
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("`{}` cannot be deleted: {error}", path.display()));
                }
                _ => {}
            }
            while path.pop() && path != root && std::fs::remove_dir(&path).is_ok() {}
        }
        Ok(())
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

pub(super) fn unix_time(_handle: &TorrentHandle, _moment: crate::base::Moment) -> Option<i64> {
    None
}
