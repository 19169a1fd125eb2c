//! Makes a torrent of a file or folder.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use piecework_core::metainfo::{FileMap, Metainfo, MetainfoBuilder, ParseLimits, torrent_names};
use piecework_core::{Geometry, PieceIndex, printable, text_of_name};

use super::collect::{Collector, FileCollection, Selection, Stamp};
use super::confined::ConfinedRoot;
use super::create_error::CreateError;
use super::error::{StorageError, shown};
use super::files::Files;
use super::handles::FileHandles;
use super::hash::{self, Digest20};
use super::layout::SharedLayout;
use super::sweep::{Sink, Sweep};

use super::collect::Omission;

/// What a torrent contains besides its content, and which files of a folder it includes. By default
/// nothing and all, with a suitable piece length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// The piece length in bytes; `None` to choose it by the length of the content.
    pub piece_len: Option<u32>,
    /// Whether peers may only come from the torrent's trackers (BEP 27).
    pub private: bool,
    /// Tracker URLs in tiers (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// A comment for people.
    pub comment: Option<String>,
    /// The name of the torrent; `None` for that of the file or folder.
    pub name: Option<String>,
    /// The program that makes the torrent.
    pub created_by: Option<String>,
    /// When the torrent is made, in Unix seconds.
    pub creation_date: Option<i64>,
    /// A word in the hashed part, which gives the same content another info-hash. Private trackers
    /// require their own.
    pub source: Option<String>,
    /// Which files of a folder are included.
    pub selection: Selection,
}

impl CreateOptions {
    /// Returns the default options of a torrent that Piecework makes at `now`, in Unix seconds.
    pub fn by_piecework(now: i64) -> Self {
        Self {
            created_by: Some(concat!("Piecework ", env!("CARGO_PKG_VERSION")).to_owned()),
            creation_date: Some(now),
            ..Self::default()
        }
    }
}

/// The progress of making a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateProgress {
    /// The number of pieces hashed so far.
    pub pieces_done: u32,
    /// The number of pieces of the torrent.
    pub pieces_total: u32,
    /// The number of bytes hashed so far.
    pub bytes_done: u64,
    /// The length of the content in bytes.
    pub bytes_total: u64,
}

/// A new torrent, and how its content lies on disk.
#[derive(Debug)]
pub struct CreatedTorrent {
    /// The torrent.
    pub metainfo: Metainfo,
    /// The folder that contains the content: a [`Store`](super::Store) with this root and `names`
    /// has it.
    pub root: PathBuf,
    /// Files with other paths beneath the root than in the torrent, for
    /// [`StoreOptions::names`](super::StoreOptions::names).
    pub names: BTreeMap<usize, Vec<String>>,
    /// What was left out although it was not excluded: links, pipes, devices.
    pub skipped: Vec<Omission>,
    /// Files whose name cannot be in a torrent, and their paths in it.
    pub renamed: Vec<(PathBuf, String)>,
    /// Whether symbolic links led to some of the files, or to the file or folder itself. These
    /// files lie elsewhere than where they were shared.
    pub through_links: bool,
}

impl CreatedTorrent {
    /// Returns sentences that say what was left out or has another name in the torrent. Long lists
    /// are shortened.
    pub fn notices(&self) -> Vec<String> {
        let mut notices: Vec<String> =
            self.skipped.iter().take(MOST_NAMED).map(Omission::to_string).collect();
        if let Some(more @ 1..) = self.skipped.len().checked_sub(MOST_NAMED) {
            notices.push(format!("left out: `{more}` more"));
        }
        for (path, name) in self.renamed.iter().take(MOST_NAMED) {
            let why = match path.to_str() {
                None => "where names are UTF-8",
                Some(_) => "which cannot have that name",
            };
            let (path, name) = (shown(path), printable(name));
            notices.push(format!("`{path}` is `{name}` in the torrent, {why}"));
        }
        if let Some(more @ 1..) = self.renamed.len().checked_sub(MOST_NAMED) {
            notices.push(format!("`{more}` more files have other names in the torrent"));
        }
        notices
    }
}

/// Makes a torrent of the file or folder at `path`, hashing with `threads` threads.
///
/// The same content gives the same info-hash: files are sorted bytewise by the components of their
/// paths. `path` may lead through symbolic links or be one; the torrent gets the given name. Links
/// inside the folder are left out unless the options say to follow them. What is neither a file nor
/// a folder is left out. Names that are not UTF-8 are replaced, and [`CreatedTorrent::names`] maps them
/// back. `progress` is called at every step, never by two threads at once and never backwards.
///
/// # Errors
/// See [`CreateError`].
pub fn create(
    path: &Path,
    options: CreateOptions,
    threads: usize,
    progress: impl Fn(CreateProgress) + Send + Sync,
    cancel: &AtomicBool,
) -> Result<CreatedTorrent, CreateError> {
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
) -> Result<CreatedTorrent, CreateError> {
    let collected = Collector::new(path, &options.selection, limits.files, cancel)?.collect()?;
    let source = Source::of(collected, options.name.clone());
    let builder = source.builder(&options).limits(limits);
    let geometry = builder.check()?;
    let map = builder.files()?;
    let layout = SharedLayout::shared(ConfinedRoot::new(&source.root), source.names.clone())?;

    let hashes = hash_all(&layout, &map, geometry, threads, &progress, cancel)?;
    if cancel.load(Ordering::Relaxed) {
        return Err(CreateError::Cancelled);
    }
    source.check_unchanged(&layout, &map)?;
    let metainfo = builder.build(hashes)?;
    let Source { root, names, skipped, renamed, through_links, .. } = source;
    Ok(CreatedTorrent { metainfo, root, names, skipped, renamed, through_links })
}

/// The files of the torrent to be made, under their names in it.
struct Source {
    root: PathBuf,
    name: String,
    is_file: bool,
    /// Sorted by their path components below `name`.
    files: Vec<SourceFile>,
    names: BTreeMap<usize, Vec<String>>,
    skipped: Vec<Omission>,
    renamed: Vec<(PathBuf, String)>,
    through_links: bool,
}

struct SourceFile {
    below: Vec<String>,
    stamp: Stamp,
    executable: bool,
}

impl Source {
    fn of(collected: FileCollection, name: Option<String>) -> Self {
        let FileCollection { path, name: own, files, is_file, skipped, through_links } = collected;
        let mut renamed = Vec::new();
        let name = name.unwrap_or_else(|| {
            let names = torrent_names(&[[own.as_bytes()]]).into_iter().flatten().next();
            let name = names.unwrap_or_default();
            if name.as_bytes() != own.as_bytes() {
                renamed.push((path.clone(), name.clone()));
            }
            name
        });
        let parts: Vec<Vec<&[u8]>> = files
            .iter()
            .map(|file| file.below.iter().map(|part| part.as_bytes()).collect())
            .collect();
        let below = match is_file {
            true => vec![Vec::new()],
            false => torrent_names(&parts),
        };
        for (file, (below, parts)) in files.iter().zip(below.iter().zip(&parts)) {
            if !below.iter().map(String::as_bytes).eq(parts.iter().copied()) {
                renamed.push((file.shown.clone(), below.join("/")));
            }
        }
        let mut sorted: Vec<_> = files.into_iter().zip(below).collect();
        sorted.sort_by(|a, b| a.1.cmp(&b.1));

        // The nearest common folder of all files: followed links may lead far away.
        let mut root = path.parent().unwrap_or(&path).to_owned();
        while !sorted.iter().all(|(file, _)| file.real.starts_with(&root)) && root.pop() {}
        let mut names = BTreeMap::new();
        for (number, (file, below)) in sorted.iter().enumerate() {
            let beneath = file.real.strip_prefix(&root).unwrap_or(&file.real);
            let parts = beneath.components().map(|part| part.as_os_str().as_bytes());
            let on_disk: Vec<String> = parts.map(|part| text_of_name(part).into_owned()).collect();
            if !on_disk.iter().eq(std::iter::once(&name).chain(below)) {
                names.insert(number, on_disk);
            }
        }
        let files = sorted
            .into_iter()
            .map(|(file, below)| SourceFile {
                below,
                stamp: file.stamp,
                executable: file.executable,
            })
            .collect();
        Self { root, name, is_file, files, names, skipped, renamed, through_links }
    }

    fn builder(&self, options: &CreateOptions) -> MetainfoBuilder {
        let mut builder = match self.files.first() {
            Some(file) if self.is_file => MetainfoBuilder::single_file(&self.name, file.stamp.len),
            _ => {
                let files = self.files.iter().map(|file| (file.below.clone(), file.stamp.len));
                MetainfoBuilder::folder(&self.name, files.collect())
            }
        };
        let executables = self.files.iter().enumerate().filter(|(_, file)| file.executable);
        builder = builder
            .private(options.private)
            .trackers(options.trackers.clone())
            .executables(executables.map(|(number, _)| number).collect());
        if let Some(piece_len) = options.piece_len {
            builder = builder.piece_len(piece_len);
        }
        if let Some(comment) = &options.comment {
            builder = builder.comment(comment);
        }
        if let Some(source) = &options.source {
            builder = builder.source(source);
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
    fn check_unchanged(&self, shared: &SharedLayout, map: &FileMap) -> Result<(), CreateError> {
        let layout = shared.read();
        let folder = layout.root.open()?;
        for (number, file) in self.files.iter().enumerate() {
            let names = layout.names_of(map, number);
            let now = match folder.stat(&names) {
                Ok(stat) => Some(Stamp::of_stat(&stat)),
                Err(StorageError::Missing { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            if now != Some(file.stamp) {
                return Err(CreateError::Changed { path: layout.root.join(&names) });
            }
        }
        Ok(())
    }
}

/// Returns the files in the folder `top` (or `top` itself if it is a file) whose names would differ
/// in a torrent: their path in the torrent below the folder, and their path on disk from its parent
/// folder. Blocks.
pub(super) fn renamed_below(top: &Path) -> BTreeMap<Vec<String>, Vec<String>> {
    let (selection, goes_on) = (Selection::default(), AtomicBool::new(false));
    let most = ParseLimits::default().files;
    let collected = Collector::new(top, &selection, most, &goes_on).and_then(Collector::collect);
    // Looking for the files will report what is wrong with the folder.
    let Ok(collected) = collected else { return BTreeMap::new() };
    let mut source = Source::of(collected, None);
    let names = std::mem::take(&mut source.names).into_iter();
    names.map(|(number, on_disk)| (source.files[number].below.clone(), on_disk)).collect()
}

/// Returns the concatenated piece hashes; incomplete if `cancel` was set.
fn hash_all(
    layout: &SharedLayout,
    map: &FileMap,
    geometry: Geometry,
    threads: usize,
    progress: &(impl Fn(CreateProgress) + Send + Sync),
    cancel: &AtomicBool,
) -> Result<Vec<u8>, CreateError> {
    let handles = FileHandles::default();
    let files = Files { layout, map, handles: &handles, store: handles.register() };
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
        // Called under the lock, so that progress never goes backwards.
        (self.progress)(*progress);
    }

    fn unreadable(&self, _: PieceIndex, error: StorageError) -> Result<(), StorageError> {
        Err(error)
    }
}

/// Files that are listed one by one.
const MOST_NAMED: usize = 20;
