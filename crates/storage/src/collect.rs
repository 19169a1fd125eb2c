//! Finds the files of a folder that are shared.

use piecework_core::SaturatingFrom;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::Stat;
use rustix::io::Errno;

use piecework_core::metainfo::{MetainfoError, is_padding_name};

use super::create_error::CreateError;
use super::error::{Operation, StorageError, shown};

/// Which files of a folder are shared. By default all that are not reached through symbolic links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Whether to share the targets of symbolic links inside the folder, under the names of the
    /// links.
    pub follow_links: bool,
    /// Links are followed only to targets in one of these folders. Empty for any target.
    pub links_within: Vec<PathBuf>,
    /// Patterns of files and folders to leave out, with `*`, `**`, `?`, `[a-z]` and `{a,b}`. A
    /// pattern without `/` is compared with names, others with paths below the folder.
    pub exclude: Vec<String>,
    /// Whether to leave out files and folders whose name begins with a dot.
    pub skip_hidden: bool,
}

/// Something in the folder that is not shared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Omission {
    /// The path.
    pub path: PathBuf,
    /// Why it is left out.
    pub reason: OmissionReason,
}

/// Why something is not shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OmissionReason {
    /// It is a symbolic link, and links are not followed.
    Link,
    /// It is a link whose target does not exist.
    LinkToNothing,
    /// It is a link to a folder that contains it.
    LinkAbove,
    /// It is a link to a target outside of the folders that may be shared.
    LinkOutside,
    /// It is a pipe, a socket or a device.
    Special,
    /// Its name would make it padding for every reader of the torrent.
    Padding,
}

impl fmt::Display for Omission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.reason {
            OmissionReason::Link => "is a symbolic link",
            OmissionReason::LinkToNothing => "is a symbolic link to nothing",
            OmissionReason::LinkAbove => "is a symbolic link to a folder that contains it",
            OmissionReason::LinkOutside => {
                "is a symbolic link out of the folders that may be shared"
            }
            OmissionReason::Special => "is neither a file nor a folder",
            OmissionReason::Padding => "has the name of padding, which clients never write to disk",
        };
        write!(f, "left out: `{}` {what}", shown(&self.path))
    }
}

/// The metadata of a file when it was found, to detect changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    pub len: u64,
    inode: u64,
    modified: (i64, i64),
}

/// The files that are shared.
pub(super) struct FileCollection {
    /// The path of the file or folder, with links resolved.
    pub path: PathBuf,
    /// The name as given: that of the link, if it is one.
    pub name: OsString,
    /// In no particular order.
    pub files: Vec<CollectionFile>,
    /// Whether `path` is a file.
    pub is_file: bool,
    pub skipped: Vec<Omission>,
    /// Whether some of the files were found through links.
    pub through_links: bool,
}

/// A file that is shared.
pub(super) struct CollectionFile {
    /// The path components below the folder.
    pub below: Vec<OsString>,
    /// The path, with links resolved.
    pub real: PathBuf,
    /// The path where it was found.
    pub shown: PathBuf,
    pub stamp: Stamp,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// A walk through a folder.
pub(super) struct Collector<'a> {
    selection: &'a Selection,
    names: GlobSet,
    paths: GlobSet,
    most: usize,
    cancel: &'a AtomicBool,
    found: FileCollection,
    /// The number of files beyond the limit, which are only counted.
    more: usize,
    excluded: usize,
    to_visit: Vec<PendingFolder>,
}

/// A folder that has to be read.
struct PendingFolder {
    real: PathBuf,
    shown: PathBuf,
    below: Vec<OsString>,
    /// The folders that contain it, including those reached through links.
    above: Arc<[PathBuf]>,
}

impl<'a> Collector<'a> {
    /// Prepares a walk that takes up to `most` files and counts the others.
    pub(crate) fn new(
        path: &Path,
        selection: &'a Selection,
        most: usize,
        cancel: &'a AtomicBool,
    ) -> Result<Self, CreateError> {
        let real = fs::canonicalize(path).map_err(|error| fault(path, error))?;
        let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        let given = path.file_name().filter(|_| is_link).or_else(|| real.file_name());
        let Some(name) = given.map(OsStr::to_owned).filter(|_| real.parent().is_some()) else {
            return Err(CreateError::Nameless { path: path.to_owned() });
        };
        let (by_path, by_name): (Vec<_>, Vec<_>) = selection
            .exclude
            .iter()
            .partition(|pattern| pattern.trim_end_matches('/').contains('/'));
        let found = FileCollection {
            path: real,
            name,
            files: Vec::new(),
            is_file: false,
            skipped: Vec::new(),
            through_links: is_link,
        };
        Ok(Self {
            selection,
            names: patterns(&by_name)?,
            paths: patterns(&by_path)?,
            most,
            cancel,
            found,
            more: 0,
            excluded: 0,
            to_visit: Vec::new(),
        })
    }

    /// Finds the files.
    pub(crate) fn collect(mut self) -> Result<FileCollection, CreateError> {
        let path = self.found.path.clone();
        let meta = fs::metadata(&path).map_err(|error| fault(&path, error))?;
        if meta.is_file() {
            self.found.is_file = true;
            self.file(Vec::new(), path.clone(), path, &meta);
            return Ok(self.found);
        }
        if !meta.is_dir() {
            return Err(CreateError::Special { path });
        }
        let above = Arc::from([path.clone()]);
        self.to_visit.push(PendingFolder {
            real: path.clone(),
            shown: path.clone(),
            below: Vec::new(),
            above,
        });
        let mut visited = 0;
        while let Some(folder) = self.to_visit.pop() {
            // Links to folders of links multiply, without any file in them.
            visited += 1;
            if visited > MOST_FOLDERS {
                let (files, limit) = (visited, MOST_FOLDERS);
                return Err(MetainfoError::TooManyFiles { files, limit }.into());
            }
            self.visit(&folder)?;
        }
        if self.more > 0 {
            let (files, limit) = (self.found.files.len() + self.more, self.found.files.len());
            return Err(MetainfoError::TooManyFiles { files, limit }.into());
        }
        if self.found.files.is_empty() {
            let (excluded, left_out) = (self.excluded, self.found.skipped.len());
            return Err(match excluded + left_out {
                0 => CreateError::EmptyFolder { path },
                _ => CreateError::NothingLeft { path, excluded, left_out },
            });
        }
        self.found.skipped.sort();
        Ok(self.found)
    }

    fn visit(&mut self, folder: &PendingFolder) -> Result<(), CreateError> {
        for entry in fs::read_dir(&folder.real).map_err(|error| fault(&folder.shown, error))? {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(CreateError::Cancelled);
            }
            let entry = entry.map_err(|error| fault(&folder.shown, error))?;
            let name = entry.file_name();
            let shown = folder.shown.join(&name);
            let real = folder.real.join(&name);
            let mut below = folder.below.clone();
            below.push(name);
            if self.is_excluded(&below) {
                self.excluded += 1;
                continue;
            }
            if below.last().is_some_and(|name| is_padding_name(name.as_bytes())) {
                self.leave_out(shown, OmissionReason::Padding);
                continue;
            }
            let kind = entry.file_type().map_err(|error| fault(&shown, error))?;
            if kind.is_symlink() {
                self.link(folder, below, real, shown)?;
            } else if kind.is_dir() {
                let above = Arc::clone(&folder.above);
                self.to_visit.push(PendingFolder { real, shown, below, above });
            } else if kind.is_file() {
                let meta = entry.metadata().map_err(|error| fault(&shown, error))?;
                self.file(below, real, shown, &meta);
            } else {
                self.leave_out(shown, OmissionReason::Special);
            }
        }
        Ok(())
    }

    /// A link is resolved once: later reads use its target of now, whatever it links to by then.
    fn link(
        &mut self,
        folder: &PendingFolder,
        below: Vec<OsString>,
        link: PathBuf,
        shown: PathBuf,
    ) -> Result<(), CreateError> {
        if !self.selection.follow_links {
            self.leave_out(shown, OmissionReason::Link);
            return Ok(());
        }
        let Ok(real) = link.canonicalize() else {
            self.leave_out(shown, OmissionReason::LinkToNothing);
            return Ok(());
        };
        let within = &self.selection.links_within;
        if !within.is_empty() && !within.iter().any(|root| real.starts_with(root)) {
            self.leave_out(shown, OmissionReason::LinkOutside);
            return Ok(());
        }
        let meta = fs::symlink_metadata(&real).map_err(|error| fault(&shown, error))?;
        if meta.is_file() {
            self.found.through_links = true;
            self.file(below, real, shown, &meta);
        } else if !meta.is_dir() {
            self.leave_out(shown, OmissionReason::Special);
        } else if folder.real.starts_with(&real)
            || folder.above.iter().any(|above| above.starts_with(&real))
        {
            self.leave_out(shown, OmissionReason::LinkAbove);
        } else {
            let above = folder.above.iter().cloned().chain([folder.real.clone(), real.clone()]);
            self.found.through_links = true;
            self.to_visit.push(PendingFolder { real, shown, below, above: above.collect() });
        }
        Ok(())
    }

    fn file(&mut self, below: Vec<OsString>, real: PathBuf, shown: PathBuf, meta: &Metadata) {
        if self.found.files.len() >= self.most {
            self.more += 1;
            return;
        }
        let (stamp, executable) = (Stamp::of(meta), meta.mode() & OWNER_RUNS != 0);
        self.found.files.push(CollectionFile { below, real, shown, stamp, executable });
    }

    fn leave_out(&mut self, path: PathBuf, reason: OmissionReason) {
        self.found.skipped.push(Omission { path, reason });
    }

    fn is_excluded(&self, below: &[OsString]) -> bool {
        let Some(name) = below.last() else { return false };
        (self.selection.skip_hidden && name.as_bytes().starts_with(b"."))
            || self.names.is_match(name)
            || (!self.paths.is_empty() && self.paths.is_match(below.iter().collect::<PathBuf>()))
    }
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self { len: meta.len(), inode: meta.ino(), modified: (meta.mtime(), meta.mtime_nsec()) }
    }

    pub(crate) fn of_stat(stat: &Stat) -> Self {
        Self {
            len: u64::saturating_from(stat.st_size),
            inode: stat.st_ino,
            modified: (stat.st_mtime, i64::saturating_from(stat.st_mtime_nsec)),
        }
    }
}

fn patterns(patterns: &[&String]) -> Result<GlobSet, CreateError> {
    let bad = |pattern: &str, source: globset::Error| CreateError::Pattern {
        pattern: pattern.to_owned(),
        source,
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        // As in .gitignore, a slash at the beginning means the folder itself, and one at the end a
        // folder.
        let text = pattern.trim_end_matches('/');
        let text = text.strip_prefix('/').or_else(|| text.strip_prefix("./")).unwrap_or(text);
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        set.add(glob.map_err(|error| bad(pattern, error))?);
    }
    set.build()
        .map_err(|error| bad(&patterns.iter().map(|p| p.as_str()).collect::<String>(), error))
}

fn fault(path: &Path, error: std::io::Error) -> CreateError {
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
    StorageError::new(Operation::Read, path.to_owned(), errno).into()
}

/// The mode bit that allows the owner to execute a file.
const OWNER_RUNS: u32 = 0o100;

/// The most folders that are read.
const MOST_FOLDERS: usize = 500_000;
