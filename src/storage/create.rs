//! Making a torrent of a file or folder.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::base::{Geometry, PieceIndex};
use crate::metainfo::{FileMap, Metainfo, MetainfoBuilder, MetainfoError, ParseLimits};

use super::beneath::Root;
use super::error::{Operation, StorageError, shown};
use super::files::Files;
use super::handles::FileHandles;
use super::hash::{self, Digest20};
use super::places::Places;
use super::sweep::{Sink, Sweep};

/// What a torrent says beyond its content. By default nothing, with a piece length that fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// Bytes a piece; `None` to choose by the content's length.
    pub piece_len: Option<u32>,
    /// Whether peers may come from the torrent's trackers only (BEP 27).
    pub private: bool,
    /// Tracker URLs in tiers (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// A comment for people.
    pub comment: Option<String>,
    /// A name other than that of the file or folder. A [`Store`](super::Store) then finds the
    /// content only once it bears that name.
    pub name: Option<String>,
    /// The program that makes the torrent.
    pub created_by: Option<String>,
    /// When, in Unix seconds.
    pub creation_date: Option<i64>,
}

/// How far the making of a torrent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateProgress {
    /// Number of pieces hashed so far.
    pub pieces_done: u32,
    /// Pieces of the torrent.
    pub pieces_total: u32,
    /// Bytes hashed so far.
    pub bytes_done: u64,
    /// Bytes of the torrent.
    pub bytes_total: u64,
}

/// A torrent just made.
#[derive(Debug)]
pub struct Created {
    /// The torrent that was made.
    pub metainfo: Metainfo,
    /// The folder the content lies in: a [`Store`](super::Store) with this root holds it.
    pub root: PathBuf,
    /// Symbolic links inside the folder. They are left out: what they point at may lie anywhere.
    pub skipped: Vec<PathBuf>,
}

/// Why no torrent was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There are no files in the folder.
    #[error("`{}` is a folder without any files, so there is nothing to share", shown(path))]
    EmptyFolder {
        /// The folder without files.
        path: PathBuf,
    },
    /// A name that a torrent cannot hold.
    #[error("the file name `{}` is not UTF-8, which a torrent needs; rename it", shown(path))]
    NotUtf8 {
        /// The file or folder.
        path: PathBuf,
    },
    /// A pipe, a socket, a device.
    #[error("`{}` is neither a file nor a folder", shown(path))]
    Special {
        /// What it is about.
        path: PathBuf,
    },
    /// The root folder of the file system.
    #[error("`{}` has no name that a torrent could bear", shown(path))]
    Nameless {
        /// The path.
        path: PathBuf,
    },
    /// A file is not what it was when the work began.
    #[error("`{}` was changed while it was being hashed; try again when it rests", shown(path))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A torrent may not be like that: a name, a number of files, a piece length.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
    /// The caller asked to stop.
    #[error("the work was cancelled")]
    Cancelled,
}

/// Makes a torrent of the file or folder at `path`, hashing with `threads` threads.
///
/// The same content gives the same info-hash: files are sorted by their path's components,
/// bytewise. `path` itself may lead through symbolic links, and the torrent is named after what
/// it leads to; links inside the folder are left out and listed in the answer. `progress` is told
/// at every step, never by two threads at once and never backwards.
pub fn create(
    path: &Path,
    options: CreateOptions,
    threads: usize,
    progress: impl Fn(CreateProgress) + Send + Sync,
    cancel: &AtomicBool,
) -> Result<Created, CreateError> {
    create_within(path, options, ParseLimits::default(), threads, progress, cancel)
}

/// The same within `limits`.
pub(super) fn create_within(
    path: &Path,
    options: CreateOptions,
    limits: ParseLimits,
    threads: usize,
    progress: impl Fn(CreateProgress) + Send + Sync,
    cancel: &AtomicBool,
) -> Result<Created, CreateError> {
    let source = Source::find(path, limits.files, cancel)?;
    // As the files are called on disk, then as the torrent is to call them.
    let on_disk = source.builder(&source.name, &options).files()?;
    let name = options.name.clone().unwrap_or_else(|| source.name.clone());
    let builder = source.builder(&name, &options).limits(limits);
    let geometry = builder.check()?;

    let hashes = hash_all(&source.root, &on_disk, geometry, threads, &progress, cancel)?;
    if cancel.load(Ordering::Relaxed) {
        return Err(CreateError::Cancelled);
    }
    source.check_unchanged(&on_disk)?;
    let metainfo = builder.build(hashes)?;
    Ok(Created { metainfo, root: source.root.path().to_owned(), skipped: source.skipped })
}

/// The files a torrent is to be made of.
struct Source {
    /// The folder around the file or folder.
    root: Root,
    name: String,
    is_file: bool,
    /// Components below `name` and what each file was when it was found, sorted.
    files: Vec<(Vec<String>, Stamp)>,
    skipped: Vec<PathBuf>,
    /// Files beyond those that a torrent may have, which are only counted.
    more: usize,
}

/// What changes when a file does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    len: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Source {
    /// Finds them, `most` at most; others are counted.
    fn find(path: &Path, most: usize, cancel: &AtomicBool) -> Result<Self, CreateError> {
        let real = fs::canonicalize(path).map_err(|error| fault(path, error))?;
        let meta = fs::metadata(&real).map_err(|error| fault(&real, error))?;
        let (Some(root), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(CreateError::Nameless { path: path.to_owned() });
        };
        let Some(name) = name.to_str().map(str::to_owned) else {
            return Err(CreateError::NotUtf8 { path: real });
        };
        let (root, is_file) = (Root::new(root), meta.is_file());
        let mut source =
            Self { root, name, is_file, files: Vec::new(), skipped: Vec::new(), more: 0 };
        if is_file {
            source.files.push((Vec::new(), Stamp::of(&meta)));
        } else if meta.is_dir() {
            source.walk(&real, most, cancel)?;
            if source.more > 0 {
                let (files, limit) = (source.files.len() + source.more, source.files.len());
                return Err(MetainfoError::TooManyFiles { files, limit }.into());
            }
            if source.files.is_empty() {
                return Err(CreateError::EmptyFolder { path: path.to_owned() });
            }
        } else {
            return Err(CreateError::Special { path: real });
        }
        Ok(source)
    }

    fn walk(&mut self, top: &Path, most: usize, cancel: &AtomicBool) -> Result<(), CreateError> {
        let mut folders: Vec<Vec<String>> = vec![Vec::new()];
        while let Some(below) = folders.pop() {
            let mut folder = top.to_owned();
            folder.extend(&below);
            for entry in fs::read_dir(&folder).map_err(|error| fault(&folder, error))? {
                if cancel.load(Ordering::Relaxed) {
                    return Err(CreateError::Cancelled);
                }
                let entry = entry.map_err(|error| fault(&folder, error))?;
                let path = entry.path();
                let kind = entry.file_type().map_err(|error| fault(&path, error))?;
                if kind.is_symlink() {
                    self.skipped.push(path);
                    continue;
                }
                let Ok(name) = entry.file_name().into_string() else {
                    return Err(CreateError::NotUtf8 { path });
                };
                let mut components = below.clone();
                components.push(name);
                if kind.is_dir() {
                    folders.push(components);
                } else if kind.is_file() && self.files.len() >= most {
                    self.more += 1;
                } else if kind.is_file() {
                    let meta = entry.metadata().map_err(|error| fault(&path, error))?;
                    self.files.push((components, Stamp::of(&meta)));
                } else {
                    return Err(CreateError::Special { path });
                }
            }
        }
        self.files.sort();
        self.skipped.sort();
        Ok(())
    }

    fn builder(&self, name: &str, options: &CreateOptions) -> MetainfoBuilder {
        let mut builder = match self.files.first() {
            Some((_, stamp)) if self.is_file => MetainfoBuilder::single_file(name, stamp.len),
            _ => {
                let files = self.files.iter().map(|(path, stamp)| (path.clone(), stamp.len));
                MetainfoBuilder::folder(name, files.collect())
            }
        };
        builder = builder.private(options.private).trackers(options.trackers.clone());
        if let Some(piece_len) = options.piece_len {
            builder = builder.piece_len(piece_len);
        }
        if let Some(comment) = &options.comment {
            builder = builder.comment(comment);
        }
        if let Some(created_by) = &options.created_by {
            builder = builder.created_by(created_by);
        }
        if let Some(date) = options.creation_date {
            builder = builder.creation_date(date);
        }
        builder
    }

    /// `map` has the same files in the same order.
    fn check_unchanged(&self, map: &FileMap) -> Result<(), CreateError> {
        let folder = self.root.open()?;
        for (entry, (_, stamp)) in map.entries().iter().zip(&self.files) {
            let names: Vec<&str> = entry.path.iter().collect();
            let now = match folder.stat(&names) {
                Ok(stat) => Some(Stamp {
                    len: stat.st_size as u64,
                    inode: stat.st_ino,
                    modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
                }),
                Err(StorageError::Missing { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            if now != Some(*stamp) {
                return Err(CreateError::Changed { path: self.root.join(&names) });
            }
        }
        Ok(())
    }
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self { len: meta.len(), inode: meta.ino(), modified: (meta.mtime(), meta.mtime_nsec()) }
    }
}

/// Piece hashes one behind the other; incomplete if `cancel` was set.
fn hash_all(
    root: &Root,
    map: &FileMap,
    geometry: Geometry,
    threads: usize,
    progress: &(impl Fn(CreateProgress) + Send + Sync),
    cancel: &AtomicBool,
) -> Result<Vec<u8>, CreateError> {
    let handles = FileHandles::default();
    let places = Places::plain(Root::new(root.path()));
    let files = Files { places: &places, map, handles: &handles, store: handles.register() };
    let start = CreateProgress {
        pieces_done: 0,
        pieces_total: geometry.pieces(),
        bytes_done: 0,
        bytes_total: geometry.total_len(),
    };
    progress(start);
    let hashes = vec![0; geometry.pieces() as usize * size_of::<Digest20>()];
    let sink = CreateSink { geometry, made: Mutex::new((hashes, start)), progress };
    match (Sweep { files, geometry, threads, level: hash::level(), cancel }).run(&sink) {
        Ok(()) => Ok(sink.made.into_inner().0),
        Err(StorageError::Changed { path, .. } | StorageError::Missing { path, .. }) => {
            Err(CreateError::Changed { path })
        }
        Err(error) => Err(error.into()),
    }
}

struct CreateSink<'a, P> {
    geometry: Geometry,
    made: Mutex<(Vec<u8>, CreateProgress)>,
    progress: &'a P,
}

impl<P: Fn(CreateProgress) + Send + Sync> Sink for CreateSink<'_, P> {
    fn wants(&self, _: PieceIndex) -> bool {
        true
    }

    fn hashed(&self, digests: &[(PieceIndex, Digest20)]) {
        let mut made = self.made.lock();
        let (hashes, progress) = &mut *made;
        for (piece, digest) in digests {
            let at = piece.0 as usize * digest.len();
            hashes[at..at + digest.len()].copy_from_slice(digest);
            progress.pieces_done += 1;
            progress.bytes_done += u64::from(self.geometry.piece_size(*piece));
        }
        // Under the lock, so that what is told never goes backwards.
        (self.progress)(*progress);
    }

    fn unreadable(&self, _: PieceIndex, error: StorageError) -> Result<(), StorageError> {
        Err(error)
    }
}

fn fault(path: &Path, error: std::io::Error) -> CreateError {
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
    StorageError::new(Operation::Read, path.to_owned(), errno).into()
}
