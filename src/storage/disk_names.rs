//! Under which names a torrent's files are looked for and made.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{ioctl_getflags, statfs};

use crate::metainfo::{FilePath, Metainfo, safe_name, torrent_names};

use super::beneath::joined;
use super::create::names_of_bytes;
use super::store::INCOMPLETE_SUFFIX;

/// The paths of those files that have other names on disk than the torrent gives them, for
/// [`StoreOptions::names`](super::StoreOptions::names): those that are not safe ([`safe_name`]), unless
/// `raw`, and those that would be one where the disk does not tell case apart. Blocks.
///
/// Files that are beneath `root` already under the torrent's own names, and not under the others, are
/// left their names: an earlier version wrote them, or the user did.
pub fn disk_names(metainfo: &Metainfo, root: &Path, raw: bool) -> BTreeMap<usize, Vec<String>> {
    let map = metainfo.info().files();
    let mut names = if raw { BTreeMap::new() } else { map.safe_names() };
    if map.entries().len() > 1 && folds_case(root) {
        for (file, path) in map.distinct_where_case_is_folded() {
            let own = path.iter().map(str::to_owned);
            let names_here = own.map(|part| if raw { part } else { safe_name(&part).into_owned() });
            names.insert(file, names_here.collect());
        }
    }
    names.extend(names_not_in_utf8(metainfo, root));
    let is_there = |names: Vec<&str>| {
        let path = joined(root, &names);
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(INCOMPLETE_SUFFIX);
        path.symlink_metadata().is_ok() || Path::new(&unfinished).symlink_metadata().is_ok()
    };
    let mut raw_ones = names.keys().take(LOOKS);
    let mut safe_ones = names.values().take(LOOKS);
    let has_raw = raw_ones.any(|file| is_there(map.entries()[*file].path.iter().collect()));
    if has_raw && !safe_ones.any(|path| is_there(path.iter().map(String::as_str).collect())) {
        return BTreeMap::new();
    }
    names
}

/// Files of the torrent that lie beneath `root` under names that are not UTF-8, from which those in the
/// torrent were made.
fn names_not_in_utf8(metainfo: &Metainfo, root: &Path) -> BTreeMap<usize, Vec<String>> {
    let info = metainfo.info();
    let entries = || info.files().entries().iter().enumerate().filter(|(_, it)| !it.padding);
    // Bytes that are no UTF-8 have become letters beyond ASCII, or this one.
    let mut suspects =
        entries().filter(|(_, it)| !it.path.as_str().is_ascii() || it.path.as_str().contains('_'));
    let is_missing = |path: &FilePath| {
        let names: Vec<&str> = path.iter().collect();
        joined(root, &names).symlink_metadata().is_err()
    };
    if !suspects.any(|(_, it)| is_missing(&it.path)) {
        return BTreeMap::new();
    }
    let mut tops = vec![joined(root, &[info.name()])];
    if tops[0].symlink_metadata().is_err() {
        let found = std::fs::read_dir(root).into_iter().flatten().flatten();
        let names = found.map(|entry| entry.file_name()).filter(|name| name.to_str().is_none());
        let ours = names.filter(|name| torrent_names(&[[name.as_bytes()]])[0] == [info.name()]);
        tops = ours.map(|name| root.join(name)).collect();
    }
    // A link in the place of the folder would lead elsewhere.
    let is_ours = |top: &&PathBuf| {
        let kind = top.symlink_metadata().map(|meta| meta.file_type());
        kind.is_ok_and(|kind| if info.is_single_file() { kind.is_file() } else { kind.is_dir() })
    };
    let Some(top) = tops.iter().find(is_ours) else { return BTreeMap::new() };
    let found = names_of_bytes(top);
    let own = |path: &FilePath| path.iter().skip(1).map(str::to_owned).collect::<Vec<_>>();
    entries()
        .filter_map(|(file, entry)| Some((file, found.get(&own(&entry.path))?.clone())))
        .collect()
}

/// Whether names that differ in case only are one name in `folder`, or would be: of what is not there the
/// nearest folder above it counts.
fn folds_case(folder: &Path) -> bool {
    let Some(folder) = folder.ancestors().find_map(|above| above.canonicalize().ok()) else {
        return false;
    };
    let by_kind = statfs(&folder).is_ok_and(|found| FOLDING.contains(&(found.f_type as u32)));
    // ext4 and f2fs fold case in folders that are marked so.
    by_kind
        || std::fs::File::open(&folder)
            .and_then(|opened| Ok(ioctl_getflags(&opened)?))
            .is_ok_and(|flags| flags.bits() & CASEFOLD != 0)
}

/// `FS_CASEFOLD_FL` of Linux.
const CASEFOLD: u32 = 0x4000_0000;

/// File systems that take names for the same which differ in case: FAT, exFAT, NTFS, HFS, HFS+, and
/// those of other machines over SMB.
const FOLDING: [u32; 7] =
    [0x4d44, 0x2011_bab0, 0x7366_746e, 0x4244, 0x482b, 0xff53_4d42, 0xfe53_4d42];

/// Files that are looked for: what was written once has the first of them.
const LOOKS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::MetainfoBuilder;

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
        let tops = [name(b"plain"), name(b"caf\xe9"), name(b"file\xe9")];
        for top in &tops[..2] {
            if std::fs::create_dir(root.join(top)).is_err() {
                return; // A file system that takes no such names.
            }
            std::fs::write(root.join(top).join(name(b"cr\xe8me")), "1").unwrap();
            std::fs::write(root.join(top).join("other"), "2").unwrap();
        }
        std::fs::write(root.join(&tops[2]), "3").unwrap();
        for top in &tops {
            let made = crate::storage::create(
                &root.join(top),
                Default::default(),
                1,
                |_| {},
                &false.into(),
            );
            let made = made.unwrap();
            let found = disk_names(&made.metainfo, &root, false);
            let marked = |names: &[String]| names.iter().any(|it| crate::base::has_byte_marks(it));
            assert!(!found.is_empty() && found == made.names, "{found:?} {:?}", made.names);
            assert!(found.values().all(|names| marked(names)));
        }
    }

    #[test]
    fn a_torrent_of_harmless_names_has_them() {
        let torrent = MetainfoBuilder::single_file("a-b 100%", 1).build(vec![7; 20]).unwrap();
        assert!(disk_names(&torrent, Path::new("/"), false).is_empty());
    }
}
