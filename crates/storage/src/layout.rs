//! The names of a torrent's files beneath its root, which may change while the files are in use.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustix::fs::Stat;
use unicode_normalization::UnicodeNormalization;

use piecework_core::metainfo::FileMap;
use piecework_core::{BoxedDefault, name_of_text, shared_default, text_of_name};

use super::confined::{Access, ConfinedFolder, ConfinedRoot};
use super::error::StorageError;

/// A layout that many threads read when they open files, and that rarely changes.
///
/// Reading or writing an open file does not need it. A file is opened while the lock is held for
/// reading, and renamed while it is held for writing, so no thread looks for a file under a name
/// that it has just lost.
#[derive(Debug)]
pub(super) struct SharedLayout {
    layout: RwLock<Layout>,
}

#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub root: ConfinedRoot,
    pub own: BoxedDefault<OwnNames>,
    suffix: BoxedDefault<Suffix>,
}

/// Names that differ from those in the torrent and from the default suffix.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct OwnNames {
    /// The name of the torrent's folder.
    pub top: Option<Box<str>>,
    /// Files with other paths than in the torrent, as path components beneath the root.
    pub names: BTreeMap<usize, Vec<String>>,
    /// Several of these files may have the same path: they are only read.
    is_shared: bool,
    /// Files without the suffix: their name with it would belong to another file or folder of the
    /// torrent, or be too long.
    bare: BTreeSet<usize>,
}

/// The suffix of unfinished files. The default is what most torrents have.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Suffix {
    /// Empty for no suffix.
    pub text: Cow<'static, str>,
    /// Whether new files get it. If not, existing files with it are still found.
    pub in_use: bool,
}

/// A search for many files, one after the other.
///
/// If a folder is missing, so are all files in it. For a torrent that is not on disk at all, the
/// system is asked for one folder, not for two names of each file.
pub(super) struct Search<'a> {
    layout: &'a Layout,
    map: &'a FileMap,
    folder: &'a ConfinedFolder<'a>,
    /// A folder that does not exist.
    missing: Option<Vec<Cow<'a, str>>>,
    /// A folder that exists, although a file in it does not.
    there: Option<Vec<Cow<'a, str>>>,
}

/// An existing file.
pub(super) struct FoundFile<'a> {
    pub names: Vec<Cow<'a, str>>,
    pub stat: Stat,
}

impl SharedLayout {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout: RwLock::new(layout) }
    }

    /// Returns a layout with the names in the torrent, except for `names`, and without a suffix.
    /// For reading: several files may have the same path.
    pub(crate) fn shared(
        root: ConfinedRoot,
        names: BTreeMap<usize, Vec<String>>,
    ) -> Result<Self, StorageError> {
        names.values().try_for_each(|names| check_names(names))?;
        let suffix = Suffix { text: "".into(), in_use: false }.into();
        let own = OwnNames { top: None, names, is_shared: true, bare: BTreeSet::new() }.into();
        Ok(Self::new(Layout { root, own, suffix }))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Layout> {
        self.layout.read()
    }

    /// The same for a thread that already holds the lock; it must not wait for a writer.
    pub(crate) fn read_again(&self) -> RwLockReadGuard<'_, Layout> {
        self.layout.read_recursive()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Layout> {
        self.layout.write()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.layout.read().root.path().to_owned()
    }
}

impl Layout {
    /// Creates a layout in which no two files conflict, unless they are only read and so
    /// `is_shared`.
    pub(crate) fn new(
        root: ConfinedRoot,
        map: &FileMap,
        top: Option<Box<str>>,
        names: BTreeMap<usize, Vec<String>>,
        suffix: Suffix,
        is_shared: bool,
    ) -> Result<Self, StorageError> {
        let text = &suffix.text;
        if text.is_empty() || text.len() > MAX_SUFFIX || text.contains(['/', '\\', '\0']) {
            let path = PathBuf::from(text.as_ref());
            return Err(StorageError::Forbidden {
                path,
                reason: "it cannot be the suffix of a name",
            });
        }
        if let Some(top) = &top {
            check_names(std::slice::from_ref(top))?;
        }
        for (file, names) in &names {
            check_names(names)?;
            if map.entries().get(*file).is_none_or(|entry| entry.padding) {
                let path = root.join(names);
                return Err(StorageError::Forbidden {
                    path,
                    reason: "the torrent has no such file",
                });
            }
        }
        // A torrent without names of its own needs no memory for them.
        let is_shared = is_shared && !names.is_empty();
        let own = OwnNames { top, names, is_shared, bare: BTreeSet::new() };
        let mut layout = Self { root, own: own.into(), suffix: suffix.into() };
        layout.settle(map)?;
        Ok(layout)
    }

    /// Updates what depends on the names.
    pub(crate) fn settle(&mut self, map: &FileMap) -> Result<(), StorageError> {
        // Metainfo has checked the names in the torrent.
        if !self.own.names.is_empty() && !self.own.is_shared {
            self.check_distinct(map)?;
        }
        let bare = self.without_suffix(map);
        if bare != self.own.bare {
            self.own.bare = bare;
        }
        Ok(())
    }

    /// Returns the path components of the finished file.
    pub(crate) fn names_of<'a>(&'a self, map: &'a FileMap, file: usize) -> Vec<Cow<'a, str>> {
        if let Some(names) = self.own.names.get(&file) {
            return names.iter().map(|name| Cow::from(name.as_str())).collect();
        }
        let names = map.entries()[file].path.iter().map(Cow::from);
        let mut names: Vec<_> = names.collect();
        if let (Some(top), Some(first)) = (&self.own.top, names.first_mut()) {
            *first = Cow::from(&**top);
        }
        names
    }

    /// Returns the path components of the unfinished file, if they differ.
    pub(crate) fn unfinished_names_of<'a>(
        &'a self,
        map: &'a FileMap,
        file: usize,
    ) -> Option<Vec<Cow<'a, str>>> {
        let suffix = self.suffix()?;
        if self.own.bare.contains(&file) || map.entries()[file].len == 0 {
            return None;
        }
        let mut names = self.names_of(map, file);
        names.last_mut()?.to_mut().push_str(&suffix.text);
        Some(names)
    }

    /// Returns the path components under which the file is created.
    pub(crate) fn new_names_of<'a>(&'a self, map: &'a FileMap, file: usize) -> Vec<Cow<'a, str>> {
        let in_use = self.suffix_in_use().is_some();
        let unfinished = if in_use { self.unfinished_names_of(map, file) } else { None };
        unfinished.unwrap_or_else(|| self.names_of(map, file))
    }

    /// Returns the suffix of new files.
    pub(crate) fn suffix_in_use(&self) -> Option<&str> {
        self.suffix().filter(|suffix| suffix.in_use).map(|suffix| &*suffix.text)
    }

    /// Finds the file under either of its two names. If both exist, the finished one counts.
    pub(crate) fn find<'a>(
        &'a self,
        map: &'a FileMap,
        file: usize,
        folder: &ConfinedFolder<'_>,
    ) -> Result<Option<FoundFile<'a>>, StorageError> {
        let both = [Some(self.names_of(map, file)), self.unfinished_names_of(map, file)];
        for names in both.into_iter().flatten() {
            match folder.stat(&names) {
                Ok(stat) => return Ok(Some(FoundFile { names, stat })),
                Err(StorageError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Begins a search for many files beneath `folder`.
    pub(crate) fn search<'a>(
        &'a self,
        map: &'a FileMap,
        folder: &'a ConfinedFolder<'a>,
    ) -> Search<'a> {
        Search { layout: self, map, folder, missing: None, there: None }
    }

    /// Opens the file under either of its two names.
    pub(crate) fn open(
        &self,
        map: &FileMap,
        file: usize,
        folder: &ConfinedFolder<'_>,
        access: Access,
    ) -> Result<File, StorageError> {
        let missing = match folder.open(&self.names_of(map, file), access) {
            Err(error @ StorageError::Missing { .. }) => error,
            result => return result,
        };
        let Some(names) = self.unfinished_names_of(map, file) else { return Err(missing) };
        match folder.open(&names, access) {
            Err(StorageError::Missing { .. }) => Err(missing),
            result => result,
        }
    }

    fn suffix(&self) -> Option<&Suffix> {
        Some(&*self.suffix).filter(|suffix| !suffix.text.is_empty())
    }

    /// Returns the files whose name with the suffix is taken or too long.
    ///
    /// Only a name that ends with the suffix can conflict, and usually there is none.
    fn without_suffix(&self, map: &FileMap) -> BTreeSet<usize> {
        let Some(suffix) = self.suffix() else { return BTreeSet::new() };
        let real = || (0..map.entries().len()).filter(|file| !map.entries()[*file].padding);
        let mut taken = BTreeSet::new();
        for file in real() {
            let names = self.names_of(map, file);
            for (deep, name) in names.iter().enumerate() {
                if ends_alike(name, &suffix.text) {
                    taken.insert(fold(&names[..=deep]));
                }
            }
        }
        let is_bare = |file: &usize| {
            let mut names = self.names_of(map, *file);
            let Some(last) = names.last_mut() else { return true };
            last.to_mut().push_str(&suffix.text);
            last.len() > MAX_NAME || (!taken.is_empty() && taken.contains(&fold(&names)))
        };
        real().filter(is_bare).collect()
    }

    /// Fails if two files have the same path, or one where another needs a folder.
    fn check_distinct(&self, map: &FileMap) -> Result<(), StorageError> {
        let real = (0..map.entries().len()).filter(|file| !map.entries()[*file].padding);
        let mut folded: Vec<(String, usize)> =
            real.map(|file| (self.names_of(map, file).join("\0"), file)).collect();
        folded.sort_unstable();
        for pair in folded.windows(2) {
            let [(key, _), (next, file)] = pair else { continue };
            let rest = next.strip_prefix(key.as_str());
            // NUL separates the names and sorts before everything that they may contain.
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('\0')) {
                let path = self.root.join(&self.names_of(map, *file));
                let reason = "another file of the torrent has this name";
                return Err(StorageError::Forbidden { path, reason });
            }
        }
        Ok(())
    }
}

impl<'a> Search<'a> {
    /// Like [`Layout::find`]. Fastest if files are searched in order, because neighbours usually
    /// share a folder.
    pub(crate) fn find(&mut self, file: usize) -> Result<Option<FoundFile<'a>>, StorageError> {
        let mut parents = self.layout.names_of(self.map, file);
        parents.pop();
        if self.missing.as_ref().is_some_and(|missing| parents.starts_with(missing)) {
            return Ok(None);
        }
        let found = self.layout.find(self.map, file, self.folder)?;
        if found.is_none() && self.there.as_ref() != Some(&parents) {
            self.missing = self.first_missing(&parents);
            self.there = self.missing.is_none().then_some(parents);
        }
        Ok(found)
    }

    /// Returns the path of the first folder on the way that does not exist.
    fn first_missing(&self, parents: &[Cow<'a, str>]) -> Option<Vec<Cow<'a, str>>> {
        let mut ways = (1..=parents.len()).map(|deep| &parents[..deep]);
        ways.find(|way| self.folder.lacks(way)).map(<[_]>::to_vec)
    }
}

shared_default!(Suffix);

impl Default for Suffix {
    fn default() -> Self {
        Self { text: INCOMPLETE_SUFFIX.into(), in_use: true }
    }
}

shared_default!(OwnNames);

/// Refuses names that are not safe to store, by the same rules as metainfo.
pub(super) fn check_names<S: AsRef<str>>(names: &[S]) -> Result<(), StorageError> {
    let reason = if names.is_empty() {
        "it has no name"
    } else if names.len() > MAX_DEPTH {
        "it lies in too many folders"
    } else {
        let fault = names.iter().find_map(|name| match name.as_ref() {
            "" => Some("a part of it is empty"),
            "." | ".." => Some("a part of it is `.` or `..`"),
            name if name.contains('/') => Some("a part of it contains a separator"),
            name if name.contains('\0') => Some("a part of it contains a zero byte"),
            name if name_of_text(name).len() > MAX_NAME => {
                Some("a part of it is longer than 255 bytes")
            }
            // Two texts for one name could be taken for two files.
            name if text_of_name(&name_of_text(name)) != name => {
                Some("a part of it is not the canonical text of a file name")
            }
            _ => None,
        });
        let Some(fault) = fault else { return Ok(()) };
        fault
    };
    let path = names.iter().map(AsRef::as_ref).collect();
    Err(StorageError::Forbidden { path, reason })
}

/// Lower-cased and composed (NFC), joined by NUL.
fn fold<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<String> = names.iter().map(|name| fold_name(name.as_ref())).collect();
    names.join("\0")
}

fn fold_name(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.nfc().flat_map(char::to_lowercase).nfc().collect()
}

fn ends_alike(name: &str, suffix: &str) -> bool {
    if !name.is_ascii() || !suffix.is_ascii() {
        return fold_name(name).ends_with(&fold_name(suffix));
    }
    let start = name.len().checked_sub(suffix.len());
    start.is_some_and(|start| name[start..].eq_ignore_ascii_case(suffix))
}

/// The longest name in bytes on Linux file systems.
const MAX_NAME: usize = 255;

/// The same limit as for paths in a torrent.
const MAX_DEPTH: usize = 100;

/// Leaves most of the bytes of a name to the name.
const MAX_SUFFIX: usize = 32;

/// The default suffix of unfinished files. Browsers and other BitTorrent programs use it too.
pub const INCOMPLETE_SUFFIX: &str = ".part";
