//! Under which names a torrent's files are looked for and made.

use std::collections::BTreeMap;
use std::path::Path;

use crate::metainfo::Metainfo;

use super::store::INCOMPLETE_SUFFIX;

/// The paths of those files that have other names on disk than the torrent gives them
/// ([`safe_name`](crate::metainfo::safe_name)), for
/// [`StoreOptions::names`](super::StoreOptions::names): none if `raw`. Blocks.
///
/// Files that are beneath `root` already under the torrent's own names, and not under the others, are
/// left their names: an earlier version wrote them, or the user did.
pub fn disk_names(metainfo: &Metainfo, root: &Path, raw: bool) -> BTreeMap<usize, Vec<String>> {
    let map = metainfo.info().files();
    let names = if raw { BTreeMap::new() } else { map.safe_names() };
    let is_there = |names: Vec<&str>| {
        let path = root.join(names.iter().collect::<std::path::PathBuf>());
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
    fn a_torrent_of_harmless_names_has_them() {
        let torrent = MetainfoBuilder::single_file("a-b 100%", 1).build(vec![7; 20]).unwrap();
        assert!(disk_names(&torrent, Path::new("/"), false).is_empty());
    }
}
