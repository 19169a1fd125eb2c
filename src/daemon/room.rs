//! Whether what is to be downloaded fits on its disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::inner::{Inner, blocking};
use super::roots::shown;
use crate::base::InfoHash;
use crate::base::figures::{counted, size};
use crate::storage::{Room, room};

/// A torrent that is not whole.
struct Unfinished {
    info_hash: InfoHash,
    root: PathBuf,
    /// Bytes that are wanted and not held.
    left: u64,
}

impl Inner {
    /// A sentence if the disk of this torrent has less room than all unfinished torrents on it
    /// need.
    pub async fn lack_of_room(&self, info_hash: InfoHash) -> Option<String> {
        let unfinished = self.unfinished();
        let new = unfinished.iter().find(|torrent| torrent.info_hash == info_hash)?;
        let (root, on_disk) = (new.root.clone(), self.bytes_on_disk(info_hash).await);
        let left = new.left.saturating_sub(on_disk);
        let mut roots: Vec<PathBuf> =
            unfinished.iter().map(|torrent| torrent.root.clone()).collect();
        roots.sort_unstable();
        roots.dedup();
        let look = blocking(move || {
            let here = room(&root).ok()?;
            let is_same = |root: &PathBuf| room(root).is_ok_and(|it| it.device == here.device);
            let same: Vec<PathBuf> = roots.into_iter().take(ROOTS).filter(is_same).collect();
            Some((here, same))
        });
        // A disk that does not answer is no reason to keep anybody waiting.
        let (here, same) = tokio::time::timeout(LOOK, look).await.ok()?.ok()??;
        let is_other = |torrent: &&Unfinished| {
            torrent.info_hash != info_hash && same.binary_search(&torrent.root).is_ok()
        };
        let others = unfinished.iter().filter(is_other);
        let (count, more) = others.fold((0, 0), |(count, sum), it| (count + 1, sum + it.left));
        sentence(&new.root, left, (count, more), &here)
    }

    /// Torrents that something is missing of, a thousand of them at most.
    fn unfinished(&self) -> Vec<Unfinished> {
        let book = self.book.lock();
        let all = book.torrents.iter().filter(|(_, entry)| !entry.seen.complete);
        let unfinished = all.filter_map(|(info_hash, entry)| {
            let status = entry.handle()?.status();
            let left = status.bytes_wanted.saturating_sub(status.bytes_wanted_have);
            (left > 0).then(|| Unfinished { info_hash: *info_hash, root: entry.root(), left })
        });
        unfinished.take(TORRENTS).collect()
    }

    /// Bytes that lie where the torrent's files are to be, right or not.
    async fn bytes_on_disk(&self, info_hash: InfoHash) -> u64 {
        let Ok(handle) = self.live(info_hash) else { return 0 };
        let look = blocking(move || handle.bytes_on_disk());
        match tokio::time::timeout(LOOK, look).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(_)) | Err(_) => 0,
        }
    }
}

/// What is said if `left` bytes, and those of so many other torrents, do not fit.
fn sentence(root: &Path, left: u64, (others, more): (u64, u64), here: &Room) -> Option<String> {
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
        shown(root),
        size(here.free)
    ))
}

/// Torrents and folders that are looked at: beyond them the sum is a lower bound.
const TORRENTS: usize = 1_000;
const ROOTS: usize = 100;

/// How long a disk may take to say how much room it has.
const LOOK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_with_what_else_is_to_come() {
        let here = Room { free: 5 << 20, total: 9 << 20, device: 1 };
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
