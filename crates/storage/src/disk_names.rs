//! The names under which a torrent's files are looked for and created.

use piecework_core::SaturatingFrom;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{ioctl_getflags, statfs};

use piecework_core::has_byte_marks;
use piecework_core::metainfo::{FilePath, Metainfo, safe_name, torrent_names};

use super::confined::joined;
use super::create::renamed_below;
use super::layout::INCOMPLETE_SUFFIX;

/// Returns the paths of files that have other names on disk than in the torrent, for
/// [`StoreOptions::names`](super::StoreOptions::names). These are: names that are not safe
/// ([`safe_name`]), unless `raw`; names that would coincide on a disk that ignores case; and other
/// names of the files in the torrent's folder from which the torrent was made. Blocks.
///
/// If more files beneath `root` have the torrent's own names than have safe ones, all keep their
/// names: an earlier version wrote them, or the user did.
///
/// The cost does not depend on what else is in `root`, which may be the folder of all downloads.
pub fn disk_names(metainfo: &Metainfo, root: &Path, raw: bool) -> BTreeMap<usize, Vec<String>> {
    names_with(metainfo, root, raw, |_| None)
}

/// Like [`disk_names`] for content that is known to exist: if nothing beneath `root` has the
/// torrent's own name, everything there is searched for a name that became the torrent's. Blocks.
pub fn content_names(metainfo: &Metainfo, root: &Path, raw: bool) -> BTreeMap<usize, Vec<String>> {
    names_with(metainfo, root, raw, |name| {
        let found = std::fs::read_dir(root).into_iter().flatten().flatten();
        let names = found.map(|entry| entry.file_name());
        let mut tops = names.filter(|found| is_repaired_to(found, name)).map(|it| root.join(it));
        tops.find(|top| is_content_of(top, metainfo))
    })
}

/// `other_top` finds the torrent's file or folder if none has its name.
fn names_with(
    metainfo: &Metainfo,
    root: &Path,
    raw: bool,
    other_top: impl Fn(&str) -> Option<PathBuf>,
) -> BTreeMap<usize, Vec<String>> {
    let map = metainfo.info().files();
    let mut names = if raw { BTreeMap::new() } else { map.safe_names() };
    if map.entries().len() > 1 && folds_case(root) {
        for (file, path) in map.distinct_where_case_is_folded() {
            let own = path.iter().map(str::to_owned);
            let names_here = own.map(|part| if raw { part } else { safe_name(&part).into_owned() });
            names.insert(file, names_here.collect());
        }
    }
    let is_there = |names: &[&str]| {
        let path = joined(root, names);
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(INCOMPLETE_SUFFIX);
        path.symlink_metadata().is_ok() || Path::new(&unfinished).symlink_metadata().is_ok()
    };
    let raw_ones = names.keys().map(|file| map.entries()[*file].path.iter().collect());
    let safe_ones = names.values().map(|path| path.iter().map(String::as_str).collect());
    // One name may be the safe form of another in the same folder, so the majority counts.
    let raw_there = raw_ones.take(LOOKS).filter(|path: &Vec<&str>| is_there(path)).count();
    let safe_there = safe_ones.take(LOOKS).filter(|path: &Vec<&str>| is_there(path)).count();
    if raw_there > safe_there {
        names.clear();
    }
    // This comes last: where such files are says nothing about the others.
    names.extend(names_before_repair(metainfo, root, other_top));
    names
}

/// Returns whether the torrent's file or folder may be called `found` on the disk: as in the
/// torrent, by the safe form of that name, or by a name that cannot be in a torrent and became the
/// torrent's.
pub fn may_be_called(metainfo: &Metainfo, found: &OsStr) -> bool {
    let name = metainfo.info().name();
    found == name || found == safe_name(name).as_ref() || is_repaired_to(found, name)
}

fn is_repaired_to(found: &OsStr, name: &str) -> bool {
    // Nearly all other names need no repair.
    let is_odd = found.to_str().is_none_or(|it| it.contains('\\') || has_byte_marks(it));
    is_odd && torrent_names(&[[found.as_bytes()]])[0] == [name]
}

/// Returns the files beneath `root` whose names cannot be in a torrent, from which the files of
/// this torrent were made.
fn names_before_repair(
    metainfo: &Metainfo,
    root: &Path,
    other_top: impl Fn(&str) -> Option<PathBuf>,
) -> BTreeMap<usize, Vec<String>> {
    let info = metainfo.info();
    let entries = || info.files().entries().iter().enumerate().filter(|(_, it)| !it.padding);
    let is_missing = |path: &FilePath| {
        let names: Vec<&str> = path.iter().collect();
        joined(root, &names).symlink_metadata().is_err()
    };
    if !entries().any(|(_, it)| is_missing(&it.path)) {
        return BTreeMap::new();
    }
    let own_top = joined(root, &[info.name()]);
    let top = match own_top.symlink_metadata() {
        Ok(_) => Some(own_top).filter(|top| is_content_of(top, metainfo)),
        Err(_) => other_top(info.name()),
    };
    let Some(top) = top else { return BTreeMap::new() };
    let found = renamed_below(&top);
    let own = |path: &FilePath| path.iter().skip(1).map(str::to_owned).collect::<Vec<_>>();
    entries()
        .filter_map(|(file, entry)| Some((file, found.get(&own(&entry.path))?.clone())))
        .collect()
}

/// Returns whether `top` is of the same kind as in the torrent, a file or a folder. A link would
/// lead elsewhere.
fn is_content_of(top: &Path, metainfo: &Metainfo) -> bool {
    let is_file = metainfo.info().is_single_file();
    let kind = top.symlink_metadata().map(|meta| meta.file_type());
    kind.is_ok_and(|kind| if is_file { kind.is_file() } else { kind.is_dir() })
}

/// Returns whether names that differ only in case are the same name in `folder`. If it does not
/// exist, its nearest existing parent counts.
fn folds_case(folder: &Path) -> bool {
    let Some(folder) = folder.ancestors().find_map(|above| above.canonicalize().ok()) else {
        return false;
    };
    let by_kind =
        statfs(&folder).is_ok_and(|found| FOLDING.contains(&u32::saturating_from(found.f_type)));
    // ext4 and f2fs ignore case in folders with this flag.
    by_kind
        || std::fs::File::open(&folder)
            .and_then(|opened| Ok(ioctl_getflags(&opened)?))
            .is_ok_and(|flags| flags.bits() & CASEFOLD != 0)
}

/// `FS_CASEFOLD_FL` of Linux.
const CASEFOLD: u32 = 0x4000_0000;

/// File systems that ignore case: FAT, exFAT, NTFS, HFS, HFS+, and those of other machines over
/// SMB.
const FOLDING: [u32; 7] =
    [0x4d44, 0x2011_bab0, 0x7366_746e, 0x4244, 0x482b, 0xff53_4d42, 0xfe53_4d42];

/// The number of files that are looked for: content written at once has the first of them.
const LOOKS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    #[test]
    fn files_are_found_under_whichever_names_they_have() {
        let torrent = MetainfoBuilder::single_file("-\u{1b}x", 1).build(vec![7; 20]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let safe = || BTreeMap::from([(0, vec!["%2D%1Bx".to_owned()])]);
        let names = |raw| disk_names(&torrent, dir.path(), raw);
        assert_eq!((names(false), names(true)), (safe(), BTreeMap::new()));
        std::fs::write(dir.path().join("-\u{1b}x.part"), "").unwrap();
        assert_eq!(names(false), BTreeMap::new());
        std::fs::write(dir.path().join("%2D%1Bx"), "").unwrap();
        assert_eq!((names(false), names(true)), (safe(), BTreeMap::new()));
    }

    #[test]
    fn files_whose_names_are_not_utf8_are_found_by_the_torrent_that_was_made_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let name = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).to_owned();
        let tops = [name(b"plain"), name(b"caf\xe9"), name(b"file\xe9"), name(b"..\\up")];
        for top in &tops[..2] {
            if std::fs::create_dir(root.join(top)).is_err() {
                return; // A file system that takes no such names.
            }
            std::fs::write(root.join(top).join(name(b"cr\xe8me")), "1").unwrap();
            std::fs::write(root.join(top).join("other"), "2").unwrap();
        }
        std::fs::write(root.join(&tops[2]), "3").unwrap();
        std::fs::write(root.join(&tops[3]), "4").unwrap();
        for top in &tops {
            let made = crate::create(&root.join(top), Default::default(), 1, |_| {}, &false.into());
            let made = made.unwrap();
            let found = content_names(&made.metainfo, &root, false);
            assert!(!found.is_empty() && found == made.names, "{found:?} {:?}", made.names);
            let odd = |name: &String| name.contains('\\') || has_byte_marks(name);
            assert!(found.values().all(|names| names.iter().any(odd)));
            assert!(may_be_called(&made.metainfo, top));
            assert!(!may_be_called(&made.metainfo, OsStr::new("other")));
        }
    }

    /// Issue 13, line 2.
    #[test]
    fn a_folder_with_unsafe_names_beside_some_that_no_torrent_can_have_is_found_by_its_torrent() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let names: [&[u8]; 7] = [
            b"bell\x07",
            b"-rf",
            b"%2Drf",
            b"caf\xe9",
            b"..\\up",
            b"\\root",
            "mark\u{10ffe9}".as_bytes(),
        ];
        std::fs::create_dir(root.join("set")).unwrap();
        for name in names {
            let path = root.join("set").join(std::ffi::OsStr::from_bytes(name));
            if std::fs::write(path, name).is_err() {
                return; // A file system that takes no such names.
            }
        }
        let made = crate::create(&root.join("set"), Default::default(), 1, |_| {}, &false.into());
        let made = made.unwrap();
        assert_eq!(made.names.len(), 4);
        assert_eq!(disk_names(&made.metainfo, &root, false), made.names);
        // With nothing but plain names in it, beside one that only lost its backslash.
        for name in &names[..5] {
            let path = root.join("set").join(std::ffi::OsStr::from_bytes(name));
            std::fs::remove_file(path).unwrap();
        }
        assert_eq!(disk_names(&made.metainfo, &root, true).len(), 2);
        // Where it was downloaded, names are safe and what no torrent can have is not there.
        let other = tempfile::tempdir().unwrap();
        let safe = made.metainfo.info().files().safe_names();
        assert_eq!((disk_names(&made.metainfo, other.path(), false), safe.len()), (safe, 3));
    }

    #[test]
    fn a_torrent_of_harmless_names_has_them() {
        let torrent = MetainfoBuilder::single_file("a-b 100%", 1).build(vec![7; 20]).unwrap();
        assert!(disk_names(&torrent, Path::new("/"), false).is_empty());
    }
}
