//! Planning the rename of a torrent, or of a folder or file in it.

use std::collections::{BTreeMap, BTreeSet};

use super::DaemonError;
use piecework_api::{RenameRequest, TorrentSettings};
use piecework_core::metainfo::Metainfo;
use piecework_core::printable;

/// What a rename changes, and what is recorded afterwards.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RenamePlan {
    /// New paths of the files that move.
    pub changes: BTreeMap<usize, Vec<String>>,
    /// All paths that are not those of the metainfo, for
    /// [`TorrentSettings::renamed`](piecework_api::TorrentSettings::renamed).
    pub names: Vec<(u32, Vec<String>)>,
    /// The torrent's name, if that is what was renamed.
    pub name: Option<String>,
}

/// Returns the path of each file that is not padding, by its number in the metainfo.
pub(super) fn paths(metainfo: &Metainfo, chosen: &TorrentSettings) -> BTreeMap<usize, Vec<String>> {
    let renamed: BTreeMap<usize, &Vec<String>> =
        chosen.renamed.iter().map(|(file, path)| (*file as usize, path)).collect();
    let entries = metainfo.info().files().entries().iter().enumerate();
    entries
        .filter(|(_, entry)| !entry.padding)
        .map(|(file, entry)| match renamed.get(&file) {
            Some(path) => (file, (*path).clone()),
            None => (file, entry.path.iter().map(|part| part.to_string()).collect()),
        })
        .collect()
}

/// Returns the paths of a torrent's files if it is called `name`, by their numbers in the metainfo: those
/// that differ from the torrent's own.
///
/// # Errors
/// If that is not a valid file name.
pub fn names_for(
    metainfo: &Metainfo,
    name: &str,
) -> Result<BTreeMap<usize, Vec<String>>, DaemonError> {
    let own = metainfo.info().name();
    if name == own {
        return Ok(BTreeMap::new());
    }
    let request = RenameRequest { path: own.to_owned(), name: name.to_owned() };
    Ok(plan(metainfo, &TorrentSettings::default(), &request)?.changes)
}

/// Returns what a rename changes.
///
/// # Errors
/// If nothing has that path, or the name is invalid or taken.
pub(super) fn plan(
    metainfo: &Metainfo,
    chosen: &TorrentSettings,
    request: &RenameRequest,
) -> Result<RenamePlan, DaemonError> {
    let name = &request.name;
    let bad = name.is_empty() || name == "." || name == ".." || name.len() > LONGEST_NAME;
    if bad || name.contains(['/', '\\', '\0']) {
        return Err(DaemonError::invalid(format!(
            "`{}` is not a valid file name",
            printable(name)
        )));
    }
    let wanted: Vec<&str> = request.path.split('/').collect();
    let level = wanted.len() - 1;
    let mut all = paths(metainfo, chosen);
    let mut changes = BTreeMap::new();
    for (file, path) in &mut all {
        let inside = path.len() >= wanted.len() && path.iter().zip(&wanted).all(|(a, b)| a == b);
        if inside && path[level] != *name {
            path[level].clone_from(name);
            changes.insert(*file, path.clone());
        } else if inside {
            return Err(DaemonError::conflict(format!(
                "it is called `{}` already",
                printable(name)
            )));
        }
    }
    if changes.is_empty() {
        let shown = printable(&request.path);
        return Err(DaemonError::not_found(format!("nothing in the torrent is called `{shown}`")));
    }
    if let Some(taken) = clash(&all) {
        let shown = printable(&taken).into_owned();
        return Err(DaemonError::conflict(format!("the name `{shown}` is taken")));
    }
    let entries = metainfo.info().files().entries();
    let own = |file: usize| entries[file].path.iter();
    let names = all
        .into_iter()
        .filter(|(file, path)| !own(*file).eq(path.iter().map(String::as_str)))
        .filter_map(|(file, path)| Some((u32::try_from(file).ok()?, path)))
        .collect();
    Ok(RenamePlan { changes, names, name: (level == 0).then(|| name.clone()) })
}

/// Returns a path that two files have, or a file and a folder.
fn clash(all: &BTreeMap<usize, Vec<String>>) -> Option<String> {
    let mut sorted: Vec<&Vec<String>> = all.values().collect();
    sorted.sort();
    let files: BTreeSet<&[String]> = sorted.iter().map(|path| path.as_slice()).collect();
    let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].as_slice());
    let folder = || {
        let above = |path: &&Vec<String>| (1..path.len()).any(|len| files.contains(&path[..len]));
        sorted.iter().find(|path| above(path)).map(|path| path.as_slice())
    };
    twice.or_else(folder).map(|path| path.join("/"))
}

/// Maximum length of a file name in bytes.
const LONGEST_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    fn torrent() -> Metainfo {
        let path = |text: &str| text.split('/').map(str::to_owned).collect();
        let files = vec![(path("a/x"), 1), (path("a/y"), 1), (path("b"), 1)];
        MetainfoBuilder::folder("t", files).build(vec![7; 20]).unwrap()
    }

    fn request(path: &str, name: &str) -> RenameRequest {
        RenameRequest { path: path.to_owned(), name: name.to_owned() }
    }

    fn chosen(renamed: Vec<(u32, Vec<String>)>) -> TorrentSettings {
        TorrentSettings { renamed, ..TorrentSettings::default() }
    }

    fn joined(names: &[(u32, Vec<String>)]) -> Vec<String> {
        names.iter().map(|(file, path)| format!("{file} {}", path.join("/"))).collect()
    }

    #[test]
    fn a_folder_takes_its_files_along() {
        let plan_one = plan(&torrent(), &chosen(Vec::new()), &request("t/a", "c")).unwrap();
        assert_eq!(joined(&plan_one.names), ["0 t/c/x", "1 t/c/y"]);
        assert_eq!((plan_one.changes.len(), plan_one.name), (2, None));
    }

    #[test]
    fn the_torrent_itself_is_renamed_by_its_name() {
        let first = plan(&torrent(), &chosen(Vec::new()), &request("t", "u")).unwrap();
        assert_eq!(first.name.as_deref(), Some("u"));
        assert_eq!(joined(&first.names), ["0 u/a/x", "1 u/a/y", "2 u/b"]);
        // Back again: nothing is left to be kept.
        let back = plan(&torrent(), &chosen(first.names), &request("u", "t")).unwrap();
        assert_eq!((back.changes.len(), back.names), (3, Vec::new()));
    }

    #[test]
    fn names_that_are_taken_or_none_are_refused() {
        let fault = |path, name| plan(&torrent(), &chosen(Vec::new()), &request(path, name));
        assert!(matches!(fault("t/a/x", "y"), Err(DaemonError::Conflict(_))));
        assert!(matches!(fault("t/b", "a"), Err(DaemonError::Conflict(_))));
        assert!(matches!(fault("t/b", "b"), Err(DaemonError::Conflict(_))));
        assert!(matches!(fault("t/c", "d"), Err(DaemonError::NotFound(_))));
        for bad in ["", ".", "..", "a/b", "a\\b", "\0"] {
            assert!(matches!(fault("t/b", bad), Err(DaemonError::Invalid(_))), "{bad:?}");
        }
    }
}
