//! The catalogue of a tracker: torrents by name and info-hash, and the folder of their `.torrent` files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::catalogue_torrent::{CatalogueTorrent, TorrentBody};
use super::quota::{CatalogueBounds, NetworkShares, NoRoom};
use super::store::{StoreError, StoreRow};
use piecework_core::metainfo::{Metainfo, MetainfoError, ParseLimits, TorrentBytes};
use piecework_core::{InfoHash, Unwritable, printable};
use piecework_proto::announce::catalogue::{MAX_NAME_LEN, MAX_TORRENT_LEN, MAX_UPLOAD_LEN};

/// The torrents that the tracker serves, indexed by info-hash and by name.
pub(super) struct Catalogue {
    folder: Option<PathBuf>,
    known: RwLock<CatalogueIndex>,
    /// Locked while a torrent is added or removed, so that readers never wait for a disk.
    changing: Mutex<()>,
}

#[derive(Default)]
struct CatalogueIndex {
    by_hash: BTreeMap<InfoHash, Arc<CatalogueTorrent>>,
    by_name: BTreeMap<Arc<str>, BTreeSet<InfoHash>>,
    bytes: u64,
    shares: NetworkShares,
}

/// A torrent to be added.
pub(super) struct NewEntry {
    pub metainfo: Metainfo,
    pub name: Option<String>,
    pub description: Option<String>,
    pub unlisted: bool,
    pub observe: bool,
    pub token: Option<[u8; 32]>,
    pub registrar: Option<IpAddr>,
}

/// A catalogue that was read from its folder.
pub(super) struct OpenedCatalogue {
    pub catalogue: Catalogue,
    /// All torrents, with their downloads before the restart.
    pub torrents: Vec<(Arc<CatalogueTorrent>, u32)>,
    /// Rows to write for torrents that had none.
    pub new_rows: Vec<StoreRow>,
    /// Rows of torrents whose file is gone.
    pub stale_rows: Vec<InfoHash>,
    /// Notices for the operator, for instance which files are not torrents.
    pub notices: Vec<String>,
}

impl Catalogue {
    /// Returns an empty catalogue that keeps its torrents in memory.
    pub(super) fn in_memory() -> Self {
        Self { folder: None, known: RwLock::default(), changing: Mutex::new(()) }
    }

    /// Reads the catalogue from `folder`, which is created if it does not exist. `rows` have what the files do not
    /// contain. A bad file is left out.
    ///
    /// # Errors
    /// If the folder cannot be created or read.
    pub(super) fn open(
        folder: &Path,
        rows: Vec<StoreRow>,
        max: usize,
    ) -> io::Result<OpenedCatalogue> {
        let (names, unmade) = torrents_in(folder)?;
        let mut rows: BTreeMap<InfoHash, StoreRow> =
            rows.into_iter().map(|row| (row.info_hash, row)).collect();
        let catalogue = Self { folder: Some(folder.to_owned()), ..Self::in_memory() };
        let mut found = OpenedCatalogue {
            catalogue,
            torrents: Vec::new(),
            new_rows: Vec::new(),
            stale_rows: Vec::new(),
            notices: unmade.into_iter().collect(),
        };
        for file in names {
            let shown = printable(&file.to_string_lossy()).into_owned();
            let Some(file) = file.to_str() else {
                found.notices.push(format!("`{shown}` is left out: its name is not Unicode"));
                continue;
            };
            let (metainfo, len) = match read_torrent(&folder.join(file)) {
                Ok((metainfo, torrent)) => (metainfo, torrent.len() as u64),
                Err(error) => {
                    found.notices.push(format!("`{shown}` is left out: {error}"));
                    continue;
                }
            };
            let info_hash = metainfo.info_hash();
            if found.catalogue.get(info_hash).is_some() {
                found.notices.push(format!("`{shown}` is left out: the torrent is there twice"));
                continue;
            }
            if found.torrents.len() >= max {
                found.notices.push(format!(
                    "`{shown}` and what follows is left out: there are more than `{max}` torrents"
                ));
                break;
            }
            let row = rows.remove(&info_hash);
            let downloads = row.as_ref().map_or(0, |row| row.downloads);
            let moved = row.as_ref().is_none_or(|row| row.file != file);
            let new = CatalogueTorrent::new(&metainfo, len, TorrentBody::File(file.to_owned()));
            let entry = match row {
                Some(row) => new.restored(row),
                None => new,
            };
            entry.announced();
            let entry = found.catalogue.insert(entry);
            if moved {
                found.new_rows.extend(entry.row(downloads));
            }
            found.torrents.push((entry, downloads));
        }
        found.stale_rows = rows.into_keys().collect();
        Ok(found)
    }

    /// Adds a torrent: first writes its file, then calls `save` with its row, then adds the entry. If the torrent is
    /// already there, returns its entry and does nothing. Blocks.
    ///
    /// # Errors
    /// If a limit is reached, or the file or row cannot be written. [`AddTorrentError::MakesWay`] has another torrent, which
    /// the caller has to remove first.
    pub(super) fn add(
        &self,
        new: &NewEntry,
        bounds: &CatalogueBounds,
        save: impl FnOnce(StoreRow) -> Result<(), StoreError>,
    ) -> Result<AddOutcome, AddTorrentError> {
        let _changing = self.changing.lock();
        let info_hash = new.metainfo.info_hash();
        if let Some(entry) = self.get(info_hash) {
            return Ok(AddOutcome::Known(entry));
        }
        let bytes = new.metainfo.bytes().map_err(AddTorrentError::Torrent)?;
        {
            let known = self.known.read();
            let all = (known.by_hash.len(), known.bytes);
            let len = bytes.len() as u64;
            if let Some(no_room) = known.shares.obstacle(bounds, all, new.registrar, len) {
                let entries = known.by_hash.values();
                let way = known.shares.who_makes_way(bounds, no_room, new.registrar, entries);
                return Err(match (way, no_room) {
                    (Some(entry), _) => AddTorrentError::MakesWay(entry),
                    (None, NoRoom::InAll) => AddTorrentError::Full,
                    (None, NoRoom::ForNetwork) => AddTorrentError::TooMany {
                        torrents: bounds.torrents_per_network,
                        bytes: bounds.bytes_per_network,
                    },
                });
            }
        }
        let name = new.name.clone().unwrap_or_else(|| new.metainfo.info().name().to_owned());
        let body = match &self.folder {
            None => TorrentBody::Memory(Bytes::copy_from_slice(&bytes)),
            Some(folder) => {
                let file = free_name(folder, &name, info_hash);
                write_durably(folder, &file, &bytes).map_err(AddTorrentError::File)?;
                TorrentBody::File(file)
            }
        };
        let entry = CatalogueTorrent {
            name: name.into(),
            description: new.description.clone(),
            unlisted: new.unlisted || new.metainfo.info().is_private(),
            observe: new.observe.into(),
            token: new.token,
            registrar: new.registrar,
            ..CatalogueTorrent::new(&new.metainfo, bytes.len() as u64, body)
        };
        if let Some(row) = entry.row(0)
            && let Err(error) = save(row)
        {
            self.delete_file(&entry);
            return Err(AddTorrentError::Row(error));
        }
        Ok(AddOutcome::New(self.insert(entry)))
    }

    /// Removes a torrent: first calls `save`, then removes the entry, then the file. Blocks.
    ///
    /// # Errors
    /// If `save` fails. The torrent stays.
    pub(super) fn remove(
        &self,
        info_hash: InfoHash,
        save: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock();
        save()?;
        let mut known = self.known.write();
        let Some(entry) = known.by_hash.remove(&info_hash) else { return Ok(()) };
        known.bytes = known.bytes.saturating_sub(entry.len);
        known.shares.take(&entry);
        if let Some(hashes) = known.by_name.get_mut(&entry.name) {
            hashes.remove(&info_hash);
            if hashes.is_empty() {
                known.by_name.remove(&entry.name);
            }
        }
        drop(known);
        self.delete_file(&entry);
        Ok(())
    }

    /// Sets whether the observer may connect to a torrent's peers: first calls `save` with its row, which contains
    /// `downloads`, then changes the entry. Blocks.
    ///
    /// # Errors
    /// If `save` fails. Nothing changes then.
    pub(super) fn set_observe(
        &self,
        entry: &CatalogueTorrent,
        observe: bool,
        downloads: u32,
        save: impl FnOnce(StoreRow) -> Result<(), StoreError>,
    ) -> Result<(), ObserveError> {
        let _changing = self.changing.lock();
        if self.get(entry.info_hash).is_none() {
            return Err(ObserveError::Removed);
        }
        if let Some(row) = entry.row(downloads) {
            save(StoreRow { observe, ..row })?;
        }
        entry.observe.store(observe, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the torrent's entry, if it is catalogued.
    pub(super) fn get(&self, info_hash: InfoHash) -> Option<Arc<CatalogueTorrent>> {
        self.known.read().by_hash.get(&info_hash).cloned()
    }

    /// Returns all torrents with this name.
    pub(super) fn named(&self, name: &str) -> Vec<Arc<CatalogueTorrent>> {
        let known = self.known.read();
        let hashes = known.by_name.get(name).into_iter().flatten();
        hashes.filter_map(|hash| known.by_hash.get(hash).cloned()).collect()
    }

    /// Returns all torrents with this name, or else the one with this info-hash.
    pub(super) fn lookup(&self, text: &str) -> Vec<Arc<CatalogueTorrent>> {
        let named = self.named(text);
        if !named.is_empty() {
            return named;
        }
        text.parse().ok().and_then(|hash| self.get(hash)).into_iter().collect()
    }

    /// Returns the torrents that the operator means by `text`, which is a name, with or without quotes, or at least
    /// the first four digits of an info-hash.
    pub(super) fn meant(&self, text: &str) -> Vec<Arc<CatalogueTorrent>> {
        let bare = unquoted(text);
        for text in [text, bare] {
            let found = self.lookup(text);
            if !found.is_empty() {
                return found;
            }
        }
        let digits = bare.to_ascii_lowercase();
        if digits.len() < LEAST_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Vec::new();
        }
        let known = self.known.read();
        let begins =
            |entry: &&Arc<CatalogueTorrent>| entry.info_hash.to_string().starts_with(&digits);
        let mut found: Vec<Arc<CatalogueTorrent>> =
            known.by_hash.values().filter(begins).cloned().collect();
        found.sort_by_key(|it| it.info_hash);
        found
    }

    /// Returns all torrents, ordered by name.
    pub(super) fn all(&self) -> Vec<Arc<CatalogueTorrent>> {
        let known = self.known.read();
        let hashes = known.by_name.values().flatten();
        hashes.filter_map(|hash| known.by_hash.get(hash).cloned()).collect()
    }

    /// Returns the first `most` names for which `wanted` returns `true`.
    pub(super) fn names(&self, wanted: impl Fn(&str) -> bool, most: usize) -> Vec<String> {
        let known = self.known.read();
        let names = known.by_name.keys().filter(|name| wanted(name));
        names.take(most).map(ToString::to_string).collect()
    }

    /// Returns the number of catalogued torrents.
    pub(super) fn len(&self) -> usize {
        self.known.read().by_hash.len()
    }

    /// Returns a torrent's `.torrent` file. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read or contains another torrent now.
    pub(super) fn bytes(&self, entry: &CatalogueTorrent) -> Result<Bytes, TorrentFileError> {
        match (&entry.body, &self.folder) {
            (TorrentBody::Memory(bytes), _) => Ok(bytes.clone()),
            (TorrentBody::File(file), Some(folder)) => {
                let (metainfo, torrent) = read_torrent(&folder.join(file))?;
                if metainfo.info_hash() != entry.info_hash {
                    return Err(TorrentFileError::Changed);
                }
                Ok(Bytes::copy_from_slice(&torrent))
            }
            (TorrentBody::File(_), None) => Err(TorrentFileError::NoFolder),
        }
    }

    fn insert(&self, entry: CatalogueTorrent) -> Arc<CatalogueTorrent> {
        let entry = Arc::new(entry);
        let mut known = self.known.write();
        known.bytes += entry.len;
        known.shares.add(&entry);
        known.by_name.entry(Arc::clone(&entry.name)).or_default().insert(entry.info_hash);
        known.by_hash.insert(entry.info_hash, Arc::clone(&entry));
        entry
    }

    fn delete_file(&self, entry: &CatalogueTorrent) {
        if let (TorrentBody::File(file), Some(folder)) = (&entry.body, &self.folder) {
            match fs::remove_file(folder.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let file = printable(file);
                    tracing::warn!(%error, "`{file}` could not be deleted; its torrent comes back at the next start");
                }
                _ => {}
            }
        }
    }
}

/// The result of adding a torrent.
pub(super) enum AddOutcome {
    /// The torrent was added.
    New(Arc<CatalogueTorrent>),
    /// The torrent was in the catalogue already.
    Known(Arc<CatalogueTorrent>),
}

/// Why a torrent was not added.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddTorrentError {
    #[error("the catalogue is full")]
    Full,
    #[error(
        "your address has reached its limit of `{torrents}` torrents or `{bytes}` bytes of \
         .torrent files"
    )]
    TooMany { torrents: usize, bytes: u64 },
    #[error("the catalogue is full; `{}` has to be removed first", .0.info_hash)]
    MakesWay(Arc<CatalogueTorrent>),
    #[error("the torrent could not be saved: {0}")]
    Torrent(#[source] MetainfoError),
    #[error("the torrent could not be saved: {0}")]
    File(#[source] io::Error),
    #[error("the torrent could not be saved: {0}")]
    Row(#[source] StoreError),
}

/// Why it could not be changed whether a torrent is observed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ObserveError {
    #[error("the torrent was just removed")]
    Removed,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a torrent's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TorrentFileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is not a regular file")]
    NotFile,
    #[error("it has more than `{MAX_TORRENT_LEN}` bytes")]
    TooLong,
    #[error(transparent)]
    Torrent(#[from] MetainfoError),
    #[error("its file has been changed into another torrent")]
    Changed,
    #[error("there is no folder")]
    NoFolder,
}

/// Returns the limits for `.torrent` files of the operator or of anybody else.
pub(super) fn parse_limits(is_operators: bool) -> ParseLimits {
    match is_operators {
        true => ParseLimits { bytes: MAX_TORRENT_LEN, ..ParseLimits::default() },
        // Half as many values, because sixteen may be read at a time.
        false => ParseLimits { bytes: MAX_UPLOAD_LEN, tokens: 3_000_000, ..ParseLimits::default() },
    }
}

/// Reads a `.torrent` file. Returns the torrent and its bytes.
fn read_torrent(path: &Path) -> Result<(Metainfo, TorrentBytes), TorrentFileError> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(TorrentFileError::NotFile);
    }
    if metadata.len() > MAX_TORRENT_LEN as u64 {
        return Err(TorrentFileError::TooLong);
    }
    let metainfo = Metainfo::parse(&fs::read(path)?, &parse_limits(true))?;
    let bytes = metainfo.bytes()?;
    Ok((metainfo, bytes))
}

/// Returns the names of the `.torrent` files in `folder`, in order, and a notice if the folder cannot be created now.
/// The folder is created if it does not exist.
///
/// # Errors
/// If the folder cannot be read, or cannot be created for another reason than a full or read-only disk.
fn torrents_in(folder: &Path) -> io::Result<(Vec<OsString>, Option<String>)> {
    if let Err(error) = fs::create_dir_all(folder) {
        let Some(why) = Unwritable::of(&error) else { return Err(error) };
        let notice = format!(
            "the folder `{}` could not be made, because {why}: it is made with the first torrent",
            printable(&folder.to_string_lossy())
        );
        return Ok((Vec::new(), Some(notice)));
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if Path::new(&name).extension().is_some_and(|end| end == "torrent") {
            names.push(name);
        }
    }
    // The system returns them in no particular order.
    names.sort();
    Ok((names, None))
}

/// Returns an unused file name for a torrent. The caller holds the catalogue's lock, so that nobody else takes the
/// name.
fn free_name(folder: &Path, name: &str, info_hash: InfoHash) -> String {
    let stem = file_stem(name).unwrap_or_else(|| info_hash.to_string());
    let plain = format!("{stem}.torrent");
    if !folder.join(&plain).exists() {
        return plain;
    }
    let hash = info_hash.to_string();
    let short = format!("{stem}-{}.torrent", &hash[..8]);
    if folder.join(&short).exists() { format!("{hash}.torrent") } else { short }
}

/// Returns `name` in a form that every system accepts in a file name; `None` if nothing is left of it.
fn file_stem(name: &str) -> Option<String> {
    let name = name.strip_suffix(".torrent").unwrap_or(name);
    let mut stem = String::new();
    for c in name.chars() {
        let safe = match c {
            '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => '_',
            c if printable(c.encode_utf8(&mut [0; 4])).len() != c.len_utf8() => '_',
            c => c,
        };
        if stem.len() + safe.len_utf8() > MAX_STEM {
            break;
        }
        stem.push(safe);
    }
    let stem = stem.trim_matches(|c| c == '.' || c == ' ');
    (!stem.is_empty()).then(|| stem.to_owned())
}

/// Writes a file so that it is complete and on disk before it gets its name.
fn write_durably(folder: &Path, file: &str, bytes: &[u8]) -> io::Result<()> {
    // The folder could not be created if the disk was full when the tracker started.
    fs::create_dir_all(folder)?;
    // The name does not end in `.torrent`, so that a file left behind by a crash is not catalogued.
    let part = folder.join(".registering.part");
    let written = File::create(&part).and_then(|mut out| {
        out.write_all(bytes)?;
        out.sync_all()
    });
    written
        .and_then(|()| fs::rename(&part, folder.join(file)))
        .inspect_err(|_| drop(fs::remove_file(&part)))?;
    File::open(folder)?.sync_all()
}

/// The maximum number of bytes of the torrent's name in the file name. With a short hash and `.torrent` the file name
/// stays below the 255 bytes that file systems allow.
const MAX_STEM: usize = 200;

const _: () = assert!(MAX_STEM + 40 + ".torrent".len() <= MAX_NAME_LEN);

/// Returns `text` without the quotes around it.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let within = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(text)
}

/// The minimum number of digits that may stand for an info-hash. Fewer are more likely words.
const LEAST_DIGITS: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::store::unix_now;
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    fn torrent(name: &str) -> Metainfo {
        MetainfoBuilder::single_file(name, 5).build(vec![7; 20]).unwrap()
    }

    fn new(name: &str, alias: Option<&str>) -> NewEntry {
        NewEntry {
            metainfo: torrent(name),
            name: alias.map(str::to_owned),
            description: None,
            unlisted: false,
            observe: true,
            token: None,
            registrar: None,
        }
    }

    /// Returns limits of so many torrents and bytes.
    fn room(torrents: usize, bytes: u64) -> CatalogueBounds {
        CatalogueBounds {
            torrents,
            bytes,
            torrents_per_network: 3,
            bytes_per_network: 1 << 20,
            idle_after: 86_400,
            gone_after: 180,
            now: unix_now(),
        }
    }

    #[test]
    fn the_operator_means_a_torrent_by_name_in_quotes_or_by_digits() {
        let catalogue = Catalogue::in_memory();
        let bounds = room(10, 1 << 30);
        for name in ["my file", "abcd"] {
            catalogue.add(&new(name, None), &bounds, |_| Ok(())).unwrap();
        }
        let hash = |name: &str| torrent(name).info_hash();
        let meant = |text: &str| -> Vec<InfoHash> {
            catalogue.meant(text).iter().map(|entry| entry.info_hash).collect()
        };
        for text in ["my file", "\"my file\"", "'my file'"] {
            assert_eq!(meant(text), [hash("my file")], "{text}");
        }
        let digits = hash("my file").to_string();
        assert_eq!(meant(&digits[..8].to_uppercase()), [hash("my file")]);
        assert_eq!(meant(&digits[..4]), [hash("my file")]);
        assert_eq!(meant("abcd"), [hash("abcd")], "a name goes above digits");
        assert!(meant(&digits[..3]).is_empty() && meant("my").is_empty());
    }

    #[test]
    fn file_names_are_safe_on_any_system() {
        assert_eq!(file_stem("../../etc/passwd").unwrap(), "_.._etc_passwd");
        assert_eq!(file_stem("a\x1b[2Jb\u{202e}c").unwrap(), "a_[2Jb_c");
        assert_eq!(file_stem("debian.torrent").unwrap(), "debian");
        assert_eq!(file_stem("..."), None);
        assert!(file_stem(&"ü".repeat(255)).unwrap().len() <= MAX_STEM);
    }

    #[test]
    fn two_torrents_of_one_name_get_files_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let found = Catalogue::open(&dir.path().join("new"), Vec::new(), 10).unwrap();
        let mut rows = Vec::new();
        for name in ["a", "b", "c"] {
            let added = found.catalogue.add(&new(name, Some("same")), &room(10, 1 << 20), |row| {
                rows.push(row);
                Ok(())
            });
            assert!(matches!(added, Ok(AddOutcome::New(_))));
        }
        assert_eq!(found.catalogue.named("same").len(), 3);
        for entry in found.catalogue.all() {
            let bytes = found.catalogue.bytes(&entry).unwrap();
            assert_eq!(
                Metainfo::parse(&bytes, &parse_limits(false)).unwrap().info_hash(),
                entry.info_hash
            );
        }
        let again = Catalogue::open(&dir.path().join("new"), rows, 10).unwrap();
        assert_eq!((again.torrents.len(), again.new_rows.len()), (3, 0));
        assert_eq!(again.catalogue.named("same").len(), 3);
    }

    #[test]
    fn bad_files_lose_only_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("good.torrent"), torrent("good").bytes().unwrap().as_ref()).unwrap();
        fs::write(path("twin.torrent"), torrent("good").bytes().unwrap().as_ref()).unwrap();
        fs::write(path("bad\x07.torrent"), b"l".repeat(100_000)).unwrap();
        fs::write(path("notes.txt"), b"hello").unwrap();
        fs::create_dir(path("dir.torrent")).unwrap();
        let found = Catalogue::open(dir.path(), Vec::new(), 10).unwrap();
        assert_eq!(found.torrents.len(), 1);
        assert_eq!(found.new_rows.len(), 1);
        assert_eq!(found.notices.len(), 3, "{:?}", found.notices);
        assert!(found.notices[0].starts_with("`bad\\x07.torrent` is left out"));
    }

    #[test]
    fn a_torrent_whose_row_fails_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let found = Catalogue::open(dir.path(), Vec::new(), 10).unwrap();
        let added =
            found.catalogue.add(&new("a", None), &room(10, 1 << 20), |_| Err(StoreError::Ended));
        assert!(matches!(added, Err(AddTorrentError::Row(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(found.catalogue.len(), 0);
    }

    #[test]
    fn the_catalogue_is_bounded() {
        let catalogue = Catalogue::in_memory();
        let add = |name, bytes| catalogue.add(&new(name, None), &room(1, bytes), |_| Ok(()));
        assert!(matches!(add("a", 10), Err(AddTorrentError::Full)));
        assert!(matches!(add("a", 1_000), Ok(AddOutcome::New(_))));
        assert!(matches!(add("a", 1_000), Ok(AddOutcome::Known(_))));
        assert!(matches!(add("b", 1_000), Err(AddTorrentError::Full)));
        let hash = torrent("a").info_hash();
        catalogue.remove(hash, || Ok(())).unwrap();
        assert!(catalogue.named("a").is_empty());
        assert!(matches!(add("b", 1_000), Ok(AddOutcome::New(_))));
    }

    /// Registers as `network` at `after` seconds from now. Returns the name of the torrent that was removed.
    fn register(
        catalogue: &Catalogue,
        name: &str,
        network: &str,
        torrents: usize,
        after: i64,
    ) -> Result<Option<String>, AddTorrentError> {
        let new = NewEntry { registrar: Some(network.parse().unwrap()), ..new(name, None) };
        let bounds = room(torrents, 1 << 20);
        let bounds = CatalogueBounds { now: bounds.now + after, ..bounds };
        match catalogue.add(&new, &bounds, |_| Ok(())) {
            Err(AddTorrentError::MakesWay(entry)) => {
                catalogue.remove(entry.info_hash, || Ok(())).unwrap();
                assert!(matches!(catalogue.add(&new, &bounds, |_| Ok(())), Ok(AddOutcome::New(_))));
                Ok(Some(entry.name.to_string()))
            }
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[test]
    fn a_network_has_its_share_of_the_catalogue() {
        let catalogue = Catalogue::in_memory();
        let add = |name, network, after| register(&catalogue, name, network, 100, after);
        for name in ["a", "b", "c"] {
            assert_eq!(add(name, "192.0.2.1", 0).unwrap(), None);
        }
        assert!(matches!(
            add("d", "192.0.2.1", 0),
            Err(AddTorrentError::TooMany { torrents: 3, .. })
        ));
        for name in ["e", "f", "g", "h", "i"] {
            assert_eq!(add(name, "127.0.0.1", 0).unwrap(), None, "loopback is not counted");
        }
        assert_eq!(add("j", "192.0.2.2", 0).unwrap(), None);
        catalogue.named("a")[0].announced();
        // `b` and `c` were never announced, `a` not for a day.
        let made_way = add("d", "192.0.2.1", 700).unwrap().unwrap();
        assert!(made_way == "b" || made_way == "c", "{made_way}");
        add("k", "192.0.2.1", 700).unwrap().unwrap();
        assert_eq!(catalogue.named("a").len(), 1);
    }

    #[test]
    fn whoever_fills_the_catalogue_makes_way_for_others() {
        let catalogue = Catalogue::in_memory();
        let add = |name: &str, network, after| register(&catalogue, name, network, 10, after);
        // Torrents that were put there by hand, announced ones, and one of a network with few.
        catalogue.add(&new("own", None), &room(10, 1 << 20), |_| Ok(())).map(drop).unwrap();
        add("live", "127.0.0.1", 0).unwrap();
        catalogue.named("live")[0].announced();
        add("little", "192.0.2.9", 0).unwrap();
        for n in 0..7 {
            add(&format!("junk {n}"), "127.0.0.1", 0).unwrap();
        }
        assert!(
            matches!(add("x", "192.0.2.1", 1), Err(AddTorrentError::Full)),
            "they may be announced yet"
        );
        for (n, network) in ["192.0.2.1", "192.0.2.2", "127.0.0.1"].into_iter().enumerate() {
            let made_way = add(&format!("new {n}"), network, 20).unwrap().unwrap();
            assert!(made_way.starts_with("junk"), "{made_way}");
        }
        // No network has more, and the rest may still announce.
        for name in ["own", "live", "little"] {
            assert_eq!(catalogue.named(name).len(), 1, "{name}");
        }
        assert_eq!(catalogue.len(), 10);
    }
}
