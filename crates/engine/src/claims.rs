//! Which torrent has which paths. Every path of a session has one owner, or owners that only read.
//!
//! For each torrent, a table holds a hash of each name in its folder with which its paths begin:
//! one name for a folder of files, two for a single file (its name, and that with the ending for
//! unfinished files). Few torrents share such a name, and only their paths are compared. A torrent
//! costs 16 bytes and each of its names 9 to 18. Names that differ only in case have the same hash,
//! because some disks take them for one name.

use piecework_core::{SaturatingFrom, low_half};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};

use piecework_core::text_of_name;
use piecework_storage::{FilePath, FolderIdentity};

/// The claims of a session's torrents. `T` identifies a torrent.
#[derive(Debug)]
pub(super) struct Claims<T> {
    folders: Vec<Option<ClaimedFolder>>,
    /// Unused indices of `folders`.
    free_folders: Vec<u32>,
    by_path: BTreeMap<PathBuf, u32>,
    by_inode: HashMap<(u64, u64), u32, FixedState>,
    slots: Vec<Option<TorrentClaim<T>>>,
    /// Unused indices of `slots`.
    free: Vec<u32>,
    table: HashTable<ClaimedName>,
}

/// A folder with torrents in it.
#[derive(Debug)]
struct ClaimedFolder {
    path: PathBuf,
    inode: Option<(u64, u64)>,
    torrents: u32,
}

/// The claim of one torrent.
#[derive(Debug)]
struct TorrentClaim<T> {
    owner: T,
    folder: u32,
    /// Number of its names in `table`, or `u16::MAX` for more.
    names: u16,
    /// Its files are being removed.
    leaving: bool,
}

/// A name in a folder with which a torrent's paths begin.
#[derive(Debug, Clone, Copy)]
struct ClaimedName {
    hash: u32,
    slot: u32,
}

/// The number of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClaimId(u32);

/// A torrent whose paths may meet those of the torrent that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Neighbour<T> {
    pub owner: T,
    /// Names that lead from the folder of the torrent that asks to the neighbour's, if that lies
    /// within, and the other way round.
    pub below: Vec<String>,
    pub above: Vec<String>,
    pub leaving: bool,
}

/// Two paths that cannot both exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overlap {
    /// Index of a path of the torrent that asks.
    pub ours: usize,
    /// Index of a path of the neighbour.
    pub theirs: usize,
    /// Both paths are files. Otherwise one is a folder on the way to the other.
    pub same: bool,
    /// They differ in case only: both can exist, unless the disk takes them for one.
    pub by_case: bool,
}

impl ClaimId {
    /// The inverse of [`ClaimId::to_number`]. Returns `None` for [`NO_CLAIM`].
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        (number != NO_CLAIM).then_some(Self(number))
    }

    /// Returns the number that is kept in an atomic.
    pub(crate) fn to_number(self) -> u32 {
        self.0
    }
}

impl<T> Default for Claims<T> {
    fn default() -> Self {
        Self {
            folders: Vec::new(),
            free_folders: Vec::new(),
            by_path: BTreeMap::new(),
            by_inode: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            table: HashTable::new(),
        }
    }
}

impl<T: Clone> Claims<T> {
    /// Adds a claim: the paths of `owner` in `folder` begin with `names`.
    pub(crate) fn insert(
        &mut self,
        owner: T,
        folder: &FolderIdentity,
        names: &BTreeSet<String>,
    ) -> ClaimId {
        let folder = self.folder(folder);
        if let Some(Some(known)) = self.folders.get_mut(folder as usize) {
            known.torrents += 1;
        }
        let count = u16::try_from(names.len()).unwrap_or(u16::MAX);
        let new = Some(TorrentClaim { owner, folder, names: count, leaving: false });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = new;
                slot
            }
            None => {
                self.slots.push(new);
                u32::saturating_from(self.slots.len() - 1)
            }
        };
        for name in names {
            let hash = hash_of(folder, name);
            self.table
                .insert_unique(spread(hash), ClaimedName { hash, slot }, |it| spread(it.hash));
        }
        ClaimId(slot)
    }

    /// Removes a claim. `names` are those it was made with.
    pub(crate) fn remove(&mut self, id: ClaimId, names: &BTreeSet<String>) {
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::take) else { return };
        let mut left = slot.names;
        for name in names {
            let hash = hash_of(slot.folder, name);
            let ours = |it: &ClaimedName| it.hash == hash && it.slot == id.0;
            if let Ok(found) = self.table.find_entry(spread(hash), ours) {
                found.remove();
                left = left.saturating_sub(1);
            }
        }
        if left > 0 || slot.names == u16::MAX {
            // Its names have changed meanwhile. That is rare, and a scan finds them.
            self.table.retain(|it| it.slot != id.0);
        }
        self.free.push(id.0);
        self.leave_folder(slot.folder);
    }

    /// Notes that the files of this claim are being removed.
    pub(crate) fn set_leaving(&mut self, id: ClaimId) {
        if let Some(Some(slot)) = self.slots.get_mut(id.0 as usize) {
            slot.leaving = true;
        }
    }

    /// Returns the folder of a claim.
    pub(crate) fn folder_of(&self, id: ClaimId) -> Option<FolderIdentity> {
        let slot = self.slots.get(id.0 as usize)?.as_ref()?;
        let known = self.folders.get(slot.folder as usize)?.as_ref()?;
        Some(FolderIdentity { path: known.path.clone(), inode: known.inode, mount: None })
    }

    /// Returns the torrents with paths that may meet those that begin with `names` in `folder`.
    pub(crate) fn neighbours(
        &mut self,
        folder: &FolderIdentity,
        names: &BTreeSet<String>,
    ) -> Vec<Neighbour<T>> {
        let known = self.known(folder);
        let mut found = Vec::new();
        if let Some(known) = known {
            for slot in names.iter().flat_map(|name| self.having(known, name)) {
                found.push((slot, Vec::new(), Vec::new()));
            }
        }
        let path = known
            .and_then(|known| self.folders[known as usize].as_ref())
            .map_or(folder.path.as_path(), |known| known.path.as_path());
        // Torrents in the folders above, with a name on the way to this one.
        for above in path.ancestors().skip(1) {
            let (Some(folder), Ok(rest)) = (self.by_path.get(above), path.strip_prefix(above))
            else {
                continue;
            };
            let Some(way) = texts(rest) else { continue };
            for slot in self.having(*folder, &way[0]) {
                found.push((slot, Vec::new(), way.clone()));
            }
        }
        // Torrents in folders below one of our names.
        for name in names {
            let within = path.join(name);
            let range = (Bound::Included(within.clone()), Bound::Unbounded);
            let inside = self.by_path.range(range).take_while(|(at, _)| at.starts_with(&within));
            for (at, folder) in inside {
                let Some(way) = at.strip_prefix(path).ok().and_then(texts) else { continue };
                let all = self.slots.iter().enumerate();
                let here = all
                    .filter(|(_, slot)| slot.as_ref().is_some_and(|slot| slot.folder == *folder));
                found.extend(
                    here.map(|(slot, _)| (u32::saturating_from(slot), way.clone(), Vec::new())),
                );
            }
        }
        let mut seen = BTreeSet::new();
        found.retain(|(slot, ..)| seen.insert(*slot));
        let neighbour = |(slot, below, above): (u32, _, _)| {
            let slot = self.slots[slot as usize].as_ref()?;
            let (owner, leaving) = (slot.owner.clone(), slot.leaving);
            Some(Neighbour { owner, below, above, leaving })
        };
        found.into_iter().filter_map(neighbour).collect()
    }

    /// Returns the number of claims.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Returns the claims that have this name in the folder.
    fn having(&self, folder: u32, name: &str) -> impl Iterator<Item = u32> + use<'_, T> {
        let hash = hash_of(folder, name);
        self.table.iter_hash(spread(hash)).filter(move |it| it.hash == hash).map(|it| it.slot)
    }

    /// Returns the index of a folder, which is added if it is new.
    fn folder(&mut self, folder: &FolderIdentity) -> u32 {
        if let Some(known) = self.known(folder) {
            return known;
        }
        let new =
            Some(ClaimedFolder { path: folder.path.clone(), inode: folder.inode, torrents: 0 });
        let index = match self.free_folders.pop() {
            Some(index) => {
                self.folders[index as usize] = new;
                index
            }
            None => {
                self.folders.push(new);
                u32::saturating_from(self.folders.len() - 1)
            }
        };
        self.by_path.insert(folder.path.clone(), index);
        if let Some(inode) = folder.inode {
            self.by_inode.insert(inode, index);
        }
        index
    }

    /// Returns the index of a folder that torrents lie in, by whatever path it is known.
    fn known(&mut self, folder: &FolderIdentity) -> Option<u32> {
        if let Some(index) = self.by_path.get(&folder.path).copied() {
            if let (Some(Some(known)), Some(inode)) =
                (self.folders.get_mut(index as usize), folder.inode)
                && known.inode.is_none()
            {
                // The folder has been created since it was looked up.
                known.inode = Some(inode);
                self.by_inode.entry(inode).or_insert(index);
            }
            return Some(index);
        }
        self.by_inode.get(&folder.inode?).copied()
    }

    fn leave_folder(&mut self, folder: u32) {
        let Some(place) = self.folders.get_mut(folder as usize) else { return };
        let Some(known) = place else { return };
        known.torrents = known.torrents.saturating_sub(1);
        if known.torrents == 0 {
            self.by_path.remove(&known.path);
            if let Some(inode) = known.inode {
                self.by_inode.remove(&inode);
            }
            *place = None;
            self.free_folders.push(folder);
        }
    }
}

impl<T> Neighbour<T> {
    /// Returns the pairs of paths that cannot both exist, `ours` of the torrent that asks and
    /// `theirs` of this one: one file twice, a file where the other has a folder, or two files
    /// whose paths differ in case only. There is one pair for each of `ours` at most.
    pub(crate) fn overlaps(&self, ours: &[FilePath], theirs: &[FilePath]) -> Vec<Overlap> {
        let of = |way: &[String], path: &FilePath| -> Vec<String> {
            way.iter().chain(&path.names).cloned().collect()
        };
        let mut files: HashMap<Vec<String>, usize, FixedState> = HashMap::default();
        let mut folders: HashMap<Vec<String>, usize, FixedState> = HashMap::default();
        let mut folded: HashMap<Vec<String>, usize, FixedState> = HashMap::default();
        let fold = |names: &[String]| names.iter().map(|name| name.to_lowercase()).collect();
        for (index, path) in theirs.iter().enumerate() {
            let names = of(&self.below, path);
            for deep in 1..names.len() {
                folders.entry(names[..deep].to_vec()).or_insert(index);
            }
            folded.entry(fold(&names)).or_insert(index);
            files.entry(names).or_insert(index);
        }
        let overlap = |(ours, path): (usize, &FilePath)| {
            let names = of(&self.above, path);
            if let Some(theirs) = files.get(&names) {
                return Some(Overlap { ours, theirs: *theirs, same: true, by_case: false });
            }
            let above = (1..names.len()).find_map(|deep| files.get(&names[..deep]));
            if let Some(theirs) = above.or_else(|| folders.get(&names)) {
                return Some(Overlap { ours, theirs: *theirs, same: false, by_case: false });
            }
            let theirs = folded.get(&fold(&names))?;
            Some(Overlap { ours, theirs: *theirs, same: true, by_case: true })
        };
        ours.iter().enumerate().filter_map(overlap).collect()
    }
}

/// Returns the names of a path's components.
fn texts(path: &Path) -> Option<Vec<String>> {
    let names = path.components().map(|component| match component {
        Component::Normal(name) => Some(text_of_name(name.as_bytes()).into_owned()),
        _ => None,
    });
    names.collect::<Option<Vec<_>>>().filter(|names| !names.is_empty())
}

fn hash_of(folder: u32, name: &str) -> u32 {
    use std::hash::BuildHasher as _;
    low_half(FixedState::default().hash_one((folder, name.to_lowercase())))
}

/// Spreads a hash over 64 bits, for a table that looks at the upper and the lower ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The number that stands for no claim.
pub(super) const NO_CLAIM: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, inode: Option<u64>) -> FolderIdentity {
        FolderIdentity { path: path.into(), inode: inode.map(|inode| (1, inode)), mount: None }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn paths(paths: &[&str]) -> Vec<FilePath> {
        let path = |text: &&str| FilePath {
            names: text.split('/').map(str::to_owned).collect(),
            len: 1,
            unfinished: false,
        };
        paths.iter().map(path).collect()
    }

    fn owners(found: &[Neighbour<u32>]) -> Vec<u32> {
        found.iter().map(|neighbour| neighbour.owner).collect()
    }

    #[test]
    fn who_has_a_name_in_the_same_folder_is_found_until_it_goes() {
        let mut claims = Claims::default();
        let folder = at("/d", None);
        let one = claims.insert(1, &folder, &names(&["a", "a.part"]));
        claims.insert(2, &at("/e", None), &names(&["a"]));
        assert_eq!(owners(&claims.neighbours(&folder, &names(&["a"]))), [1]);
        assert_eq!(owners(&claims.neighbours(&folder, &names(&["a.part", "a"]))), [1]);
        assert!(claims.neighbours(&folder, &names(&["b"])).is_empty());
        claims.set_leaving(one);
        assert!(claims.neighbours(&folder, &names(&["a"]))[0].leaving);
        claims.remove(one, &names(&["a", "a.part"]));
        assert!(claims.neighbours(&folder, &names(&["a"])).is_empty());
        assert_eq!(claims.len(), 1);
    }

    #[test]
    fn names_that_differ_in_case_only_are_told_apart_from_equal_ones() {
        let mut claims = Claims::default();
        let folder = at("/d", None);
        claims.insert(1, &folder, &names(&["Films"]));
        let found = claims.neighbours(&folder, &names(&["films"]));
        let theirs = paths(&["Films/a", "Films/b"]);
        let overlaps = found[0].overlaps(&paths(&["films/A", "films/c", "Films/b"]), &theirs);
        let told: Vec<_> = overlaps.iter().map(|it| (it.ours, it.theirs, it.by_case)).collect();
        assert_eq!(told, [(0, 0, true), (2, 1, false)]);
        assert!(overlaps.iter().all(|it| it.same));
    }

    #[test]
    fn a_folder_mounted_twice_is_one_folder() {
        let mut claims = Claims::default();
        claims.insert(1, &at("/d", Some(7)), &names(&["a"]));
        assert_eq!(owners(&claims.neighbours(&at("/mnt", Some(7)), &names(&["a"]))), [1]);
        assert!(claims.neighbours(&at("/mnt", Some(8)), &names(&["a"])).is_empty());
        // One that was made after it had been claimed.
        claims.insert(2, &at("/new", None), &names(&["b"]));
        claims.insert(3, &at("/new", Some(9)), &names(&["c"]));
        assert_eq!(owners(&claims.neighbours(&at("/again", Some(9)), &names(&["b"]))), [2]);
    }

    #[test]
    fn a_claim_is_forgotten_whatever_names_it_is_said_to_have() {
        let mut claims = Claims::default();
        let folder = at("/d", None);
        let one = claims.insert(1, &folder, &names(&["a", "b"]));
        claims.remove(one, &names(&["other"]));
        assert!(claims.neighbours(&folder, &names(&["a", "b"])).is_empty());
        assert_eq!((claims.table.len(), claims.by_path.len()), (0, 0));
        let again = claims.insert(2, &folder, &names(&["a"]));
        assert_eq!(again, one);
    }

    #[test]
    fn folders_within_each_other_are_compared_both_ways() {
        let mut claims = Claims::default();
        claims.insert(1, &at("/d", None), &names(&["t"]));
        let inner = claims.neighbours(&at("/d/t/sub", None), &names(&["x"]));
        assert_eq!(owners(&inner), [1]);
        assert_eq!(inner[0].above, ["t", "sub"]);
        let theirs = paths(&["t/sub/x", "t/y"]);
        assert!(inner[0].overlaps(&paths(&["x"]), &theirs)[0].same);
        assert!(!inner[0].overlaps(&paths(&["x/deep"]), &theirs)[0].same);
        assert!(inner[0].overlaps(&paths(&["y"]), &theirs).is_empty());
        // Their file stands where our folder is to be.
        assert_eq!(inner[0].overlaps(&paths(&["x"]), &paths(&["t/sub"])).len(), 1);

        claims.insert(2, &at("/e/t/sub", None), &names(&["x"]));
        let outer = claims.neighbours(&at("/e", None), &names(&["t"]));
        assert_eq!((owners(&outer), outer[0].below.join("/")), (vec![2], "t/sub".to_owned()));
        assert!(outer[0].overlaps(&paths(&["t/sub/x"]), &paths(&["x"]))[0].same);
        assert!(outer[0].overlaps(&paths(&["t/y"]), &paths(&["x"])).is_empty());
        assert!(!outer[0].overlaps(&paths(&["t"]), &paths(&["x"]))[0].same);
        assert!(claims.neighbours(&at("/e", None), &names(&["u"])).is_empty());
    }

    #[test]
    fn a_file_where_another_has_a_folder_is_an_overlap() {
        let mut claims = Claims::default();
        claims.insert(1, &at("/d", None), &names(&["t"]));
        let found = claims.neighbours(&at("/d", None), &names(&["t"]));
        let overlaps = |ours: &[&str], theirs: &[&str]| -> Vec<bool> {
            found[0].overlaps(&paths(ours), &paths(theirs)).iter().map(|it| it.same).collect()
        };
        let none: Vec<bool> = Vec::new();
        assert_eq!(overlaps(&["t"], &["t/a"]), [false]);
        assert_eq!(overlaps(&["t/a/b"], &["t/a"]), [false]);
        assert_eq!(overlaps(&["t/a", "t/b"], &["t/b", "t/c"]), [true]);
        assert_eq!(overlaps(&["t/a"], &["t/b"]), none);
    }

    #[test]
    fn a_hundred_thousand_claims_are_small_and_found() {
        let mut claims = Claims::default();
        let folder = at("/d", None);
        for torrent in 0..100_000_u32 {
            let name = format!("file {torrent}");
            claims.insert(torrent, &folder, &names(&[&name, &format!("{name}.part")]));
        }
        for torrent in (0..100_000).step_by(997) {
            let found = claims.neighbours(&folder, &names(&[&format!("file {torrent}")]));
            assert!(owners(&found).contains(&torrent) && found.len() < 3);
        }
        assert!(
            size_of::<ClaimedName>() == 8
                && size_of::<Option<TorrentClaim<std::sync::Arc<()>>>>() == 16
        );
    }
}
