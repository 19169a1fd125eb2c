//! Whether what is to be downloaded fits on its disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::inner::{Inner, blocking};
use super::roots::shown;
use piecework_core::InfoHash;
use piecework_core::figures::{counted, size};
use piecework_storage::{DiskSpace, disk_space};

/// A torrent that is not whole.
struct Unfinished {
    root: PathBuf,
    /// Bytes that are wanted and not held.
    left: u64,
}

/// Bytes that unfinished torrents lack, as far as they were noted, and their sum.
#[derive(Default)]
pub(super) struct Lacking {
    of: HashMap<InfoHash, u64, FixedState>,
    sum: u64,
}

impl Lacking {
    /// A torrent lacks so many.
    pub fn note(&mut self, info_hash: InfoHash, bytes: u64) {
        let before = match bytes {
            0 => self.of.remove(&info_hash),
            bytes => self.of.insert(info_hash, bytes),
        };
        // A torrent may say that it has any length.
        let others = self.sum.saturating_sub(before.unwrap_or(0));
        self.sum = others.saturating_add(bytes);
    }

    /// What all but this one lack.
    fn of_others(&self, info_hash: InfoHash) -> u64 {
        self.sum.saturating_sub(self.of.get(&info_hash).copied().unwrap_or(0))
    }
}

impl Inner {
    /// A sentence if the disk of this torrent has less room than all unfinished torrents on it
    /// need. Looks at the others only if the room is less than what all lack, on whatever disk.
    pub async fn lack_of_room(&self, info_hash: InfoHash) -> Option<String> {
        let (root, left, others) = {
            let mut book = self.book.lock();
            let entry = book.torrents.get(&info_hash)?;
            let (root, left) = (entry.root(), entry.handle()?.summary().bytes_left);
            // So that who is added next knows of it, whenever the first change is heard of.
            book.lacking.note(info_hash, left);
            (root, left, book.lacking.of_others(info_hash))
        };
        if left == 0 {
            return None;
        }
        let at = root.clone();
        let look = blocking(move || disk_space(&at).ok());
        // A disk that does not answer is no reason to keep anybody waiting.
        let here = tokio::time::timeout(LOOK, look).await.ok()?.ok()??;
        if left.saturating_add(others) <= here.free {
            return None;
        }
        let left = left.saturating_sub(self.bytes_on_disk(info_hash).await);
        let unfinished = self.others_unfinished(info_hash);
        let mut roots: Vec<PathBuf> =
            unfinished.iter().map(|torrent| torrent.root.clone()).collect();
        roots.sort_unstable();
        roots.dedup();
        let look = blocking(move || {
            let is_same =
                |root: &PathBuf| disk_space(root).is_ok_and(|it| it.device == here.device);
            roots.into_iter().take(ROOTS).filter(is_same).collect::<Vec<PathBuf>>()
        });
        let same = tokio::time::timeout(LOOK, look).await.ok()?.ok()?;
        let others = unfinished.iter().filter(|it| same.binary_search(&it.root).is_ok());
        let (count, more) = others.fold((0, 0), |(count, sum), it| (count + 1, sum + it.left));
        sentence(&root, left, (count, more), &here)
    }

    /// Other torrents that something is missing of, a thousand of them at most.
    fn others_unfinished(&self, info_hash: InfoHash) -> Vec<Unfinished> {
        let book = self.book.lock();
        let others = book.lacking.of.iter().filter(|(hash, _)| **hash != info_hash);
        let unfinished = others.filter_map(|(info_hash, left)| {
            Some(Unfinished { root: book.torrents.get(info_hash)?.root(), left: *left })
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
    fn what_is_lacking_is_summed_up_as_it_changes() {
        let (one, other) = (InfoHash([1; 20]), InfoHash([2; 20]));
        let mut lacking = Lacking::default();
        lacking.note(one, 5);
        lacking.note(other, 7);
        lacking.note(one, 3);
        assert_eq!((lacking.of_others(one), lacking.of_others(other)), (7, 3));
        lacking.note(one, 0);
        lacking.note(one, 0);
        assert_eq!((lacking.of_others(other), lacking.of_others(InfoHash([3; 20]))), (0, 7));
        assert_eq!(lacking.of.len(), 1);
    }

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
