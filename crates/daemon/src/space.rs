//! Whether downloads fit on their disks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::background::blocking;
use super::torrents::Torrents;
use piecework_core::figures::{counted, size};
use piecework_core::{InfoHash, printable_path};
use piecework_storage::{DiskSpace, disk_space};

/// A torrent that is not complete.
struct UnfinishedTorrent {
    root: PathBuf,
    /// Bytes that are wanted and not held.
    left: u64,
}

/// Returns a sentence if the disk of this torrent has less room than all unfinished torrents on it need.
/// Examines the others only if there is less room than all torrents together lack, on any disk.
pub(super) async fn lack_of_room(torrents: &Torrents, info_hash: InfoHash) -> Option<String> {
    let (root, left, others) = {
        let mut table = torrents.table();
        let entry = table.entries.get(&info_hash)?;
        let (root, left) = (entry.root(), entry.handle()?.summary().bytes_left);
        // The next torrent that is added has to know this, even before the first change is noticed.
        table.missing.note(info_hash, left);
        (root, left, table.missing.of_others(info_hash))
    };
    if left == 0 {
        return None;
    }
    let at = root.clone();
    let look = blocking(move || disk_space(&at).ok());
    // Nobody is kept waiting for a disk that does not answer.
    let here = tokio::time::timeout(LOOK, look).await.ok()?.ok()??;
    if left.saturating_add(others) <= here.free {
        return None;
    }
    let left = left.saturating_sub(bytes_on_disk(torrents, info_hash).await);
    let unfinished = others_unfinished(torrents, info_hash);
    let mut roots: Vec<PathBuf> = unfinished.iter().map(|torrent| torrent.root.clone()).collect();
    roots.sort_unstable();
    roots.dedup();
    let look = blocking(move || {
        let is_same = |root: &PathBuf| disk_space(root).is_ok_and(|it| it.device == here.device);
        roots.into_iter().take(ROOTS).filter(is_same).collect::<Vec<PathBuf>>()
    });
    let same = tokio::time::timeout(LOOK, look).await.ok()?.ok()?;
    let others = unfinished.iter().filter(|it| same.binary_search(&it.root).is_ok());
    let (count, more) = others.fold((0, 0), |(count, sum), it| (count + 1, sum + it.left));
    sentence(&root, left, (count, more), &here)
}

/// Returns other unfinished torrents, at most a thousand.
fn others_unfinished(torrents: &Torrents, info_hash: InfoHash) -> Vec<UnfinishedTorrent> {
    let table = torrents.table();
    let unfinished = table.missing.others(info_hash).filter_map(|(other, left)| {
        Some(UnfinishedTorrent { root: table.entries.get(&other)?.root(), left })
    });
    unfinished.take(TORRENTS).collect()
}

/// Returns the bytes on disk where the torrent's files are to be, right or not.
async fn bytes_on_disk(torrents: &Torrents, info_hash: InfoHash) -> u64 {
    let Ok(handle) = torrents.live(info_hash) else { return 0 };
    let look = blocking(move || handle.bytes_on_disk());
    match tokio::time::timeout(LOOK, look).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) | Err(_) => 0,
    }
}

/// Returns a sentence if `left` bytes, and those of the other torrents, do not fit.
fn sentence(
    root: &Path,
    left: u64,
    (others, more): (u64, u64),
    here: &DiskSpace,
) -> Option<String> {
    if left.saturating_add(more) <= here.free {
        return None;
    }
    let with_others = match others {
        0 => String::new(),
        others => {
            format!(", and {} more by {}", size(more), counted(others, "other unfinished torrent"))
        }
    };
    Some(format!(
        "it does not fit: {} are to be downloaded{with_others}, and the disk of `{}` has {} free",
        size(left),
        printable_path(root),
        size(here.free)
    ))
}

/// Maximum number of torrents and folders that are examined. With more of them the sum is a lower bound.
const TORRENTS: usize = 1_000;
const ROOTS: usize = 100;

/// How long a disk may take to answer.
const LOOK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_with_what_else_is_to_come() {
        let here = DiskSpace { free: 5 << 20, total: 9 << 20, device: 1 };
        let said = |left, others| sentence(Path::new("/d"), left, others, &here);
        assert_eq!(said(5 << 20, (0, 0)), None);
        assert_eq!(
            said(6 << 20, (0, 0)).unwrap(),
            "it does not fit: 6.0 MiB are to be downloaded, and the disk of `/d` has 5.0 MiB free"
        );
        let with_others = said(1 << 20, (1, 5 << 20)).unwrap();
        assert!(with_others.contains("and 5.0 MiB more by 1 other unfinished torrent,"));
        assert_eq!(said(1 << 20, (2, 1 << 20)), None);
    }
}
