//! What was begun with a torrent's files and may have been cut short.
//!
//! Files change their places before that is kept, and a process may die in between. So it is kept
//! first what is to be done, and whoever finds that at the next start looks where the files are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::kept::Kept;
use super::roots::shown;
use piecework_api::TorrentSettings;
use piecework_core::metainfo::Metainfo;
use piecework_storage::{FileHandles, StorageError, Store, StoreMode, StoreOptions, relocate};

/// Work on a torrent's files, as it is kept before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unfinished {
    /// Files get other paths.
    Rename {
        /// As [`TorrentSettings::renamed`] will be.
        names: Vec<(u32, Vec<String>)>,
        /// The torrent's name, if that is what is renamed.
        name: Option<String>,
    },
    /// All goes to this folder.
    Move { folder: String },
}

/// What is to be done with a torrent whose work was cut short, apart from what is changed already.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Nothing,
    /// Its files are where they were, and are to be moved there.
    Move(PathBuf),
}

/// Brings `root` and `kept` into line with where the files are, after a process died; `keep_to` as in
/// [`StoreOptions::keep_to`]. Blocks.
///
/// # Errors
/// If that cannot be told; nothing has changed then.
pub(super) fn settle(
    metainfo: &Arc<Metainfo>,
    root: &mut PathBuf,
    kept: &mut Kept,
    suffix: &str,
    keep_to: &Arc<Vec<PathBuf>>,
) -> Result<Rest, StorageError> {
    let Some(unfinished) = kept.rare.change(|rare| rare.unfinished.take()) else {
        return Ok(Rest::Nothing);
    };
    let files = Files { metainfo, seed: kept.seed, suffix, keep_to };
    let settled = match &*unfinished {
        Unfinished::Rename { names, name } => {
            files.renamed(root, &mut kept.settings, names, name.as_deref()).map(|()| Rest::Nothing)
        }
        Unfinished::Move { folder } => files.moved(root, &kept.settings, Path::new(folder)),
    };
    if settled.is_err() {
        kept.rare.unfinished = Some(unfinished);
    }
    settled
}

struct Files<'a> {
    metainfo: &'a Arc<Metainfo>,
    seed: bool,
    suffix: &'a str,
    keep_to: &'a Arc<Vec<PathBuf>>,
}

impl Files<'_> {
    /// Finishes a rename: every file that is still where it was follows the others.
    fn renamed(
        &self,
        root: &Path,
        settings: &mut TorrentSettings,
        names: &[(u32, Vec<String>)],
        name: Option<&str>,
    ) -> Result<(), StorageError> {
        let (old, new) = (in_a_map(&settings.renamed), in_a_map(names));
        let before = self.store(root, old.clone())?.fingerprints()?;
        let after = self.store(root, new.clone())?.fingerprints()?;
        let is_there = |file: &usize| {
            let at = |prints: &[Option<_>]| prints.get(*file).is_some_and(Option::is_some);
            at(&after) && !at(&before)
        };
        let count = self.metainfo.info().files().entries().len();
        let now = (0..count).filter_map(|file| {
            let path = if is_there(&file) { new.get(&file) } else { old.get(&file) };
            Some((file, path?.clone()))
        });
        let store = self.store(root, now.collect())?;
        let mut all = true;
        for file in (0..count).filter(|file| old.get(file) != new.get(file)) {
            let path = new.get(&file).cloned().unwrap_or_else(|| self.own_path(file));
            if let Err(error) = store.rename_file(file, &path) {
                tracing::warn!(%error, "a rename that was cut short is not finished");
                all = false;
            }
        }
        settings.renamed = store
            .options()
            .names
            .into_iter()
            .filter(|(file, path)| *path != self.own_path(*file))
            .filter_map(|(file, path)| Some((u32::try_from(file).ok()?, path)))
            .collect();
        if let Some(name) = name.filter(|_| all) {
            settings.name = Some(name.to_owned());
        }
        Ok(())
    }

    /// Finds out in which of both folders the files are.
    fn moved(
        &self,
        root: &mut PathBuf,
        settings: &TorrentSettings,
        folder: &Path,
    ) -> Result<Rest, StorageError> {
        let store = self.store(root, in_a_map(&settings.renamed))?;
        let before = store.fingerprints()?;
        let after = self.store(folder, in_a_map(&settings.renamed))?.fingerprints()?;
        let both = || before.iter().zip(&after);
        // Files go from where they were only once all are at their new place.
        if !both().any(|(here, there)| here.is_none() && there.is_some()) {
            return Ok(Rest::Move(folder.to_owned()));
        }
        if let Err(error) = relocate(&store, folder, |_| {}, &AtomicBool::new(false)) {
            let all_there = both().all(|(here, there)| here.is_none() || there.is_some());
            tracing::warn!(%error, "the move to `{}` was cut short", shown(folder));
            if !all_there {
                return Ok(Rest::Nothing);
            }
        }
        *root = folder.to_owned();
        Ok(Rest::Nothing)
    }

    fn store(
        &self,
        root: &Path,
        names: BTreeMap<usize, Vec<String>>,
    ) -> Result<Store, StorageError> {
        let options = StoreOptions {
            mode: if self.seed { StoreMode::ReadOnly } else { StoreMode::ReadWrite },
            incomplete_suffix: Some(self.suffix.to_owned()).filter(|suffix| !suffix.is_empty()),
            top_name: None,
            names,
            keep_to: Arc::clone(self.keep_to),
        };
        let handles = Arc::new(FileHandles::default());
        Store::with_options(root, Arc::clone(self.metainfo), handles, options)
    }

    fn own_path(&self, file: usize) -> Vec<String> {
        let entries = self.metainfo.info().files().entries();
        entries[file].path.iter().map(|part| part.to_string()).collect()
    }
}

fn in_a_map(names: &[(u32, Vec<String>)]) -> BTreeMap<usize, Vec<String>> {
    names.iter().map(|(file, path)| (*file as usize, path.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    /// The files `t/a/x`, `t/a/y` and `t/b` in a folder `old`.
    struct Bench {
        dir: tempfile::TempDir,
        metainfo: Arc<Metainfo>,
    }

    impl Bench {
        fn new() -> Self {
            let path = |text: &str| text.split('/').map(str::to_owned).collect();
            let files = vec![(path("a/x"), 1), (path("a/y"), 1), (path("b"), 1)];
            let metainfo = MetainfoBuilder::folder("t", files).build(vec![7; 20]).unwrap();
            Self { dir: tempfile::tempdir().unwrap(), metainfo: Arc::new(metainfo) }
        }

        fn write(&self, paths: &[&str]) {
            for path in paths {
                let path = self.dir.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "1").unwrap();
            }
        }

        fn has(&self, path: &str) -> bool {
            self.dir.path().join(path).is_file()
        }

        fn settle(&self, unfinished: Unfinished) -> (PathBuf, Kept, Rest) {
            let mut root = self.dir.path().join("old");
            let mut kept = Kept::default();
            kept.rare.unfinished = Some(Box::new(unfinished));
            let rest =
                settle(&self.metainfo, &mut root, &mut kept, ".part", &Arc::default()).unwrap();
            assert_eq!(kept.rare.unfinished, None);
            (root, kept, rest)
        }

        fn renamed(&self) -> Kept {
            let path = |text: &str| text.split('/').map(str::to_owned).collect();
            let names = vec![(0, path("u/a/x")), (1, path("u/a/y")), (2, path("u/b"))];
            let name = Some("u".to_owned());
            let (_, kept, rest) = self.settle(Unfinished::Rename { names: names.clone(), name });
            assert_eq!((rest, &kept.settings.renamed), (Rest::Nothing, &names));
            assert_eq!(kept.settings.name.as_deref(), Some("u"));
            kept
        }

        fn moved(&self) -> (PathBuf, Rest) {
            let folder = self.dir.path().join("new").to_str().unwrap().to_owned();
            let (root, _, rest) = self.settle(Unfinished::Move { folder });
            (root, rest)
        }
    }

    #[test]
    fn a_rename_is_finished_wherever_it_was_cut_short() {
        let all: [&[&str]; 3] = [
            &["old/t/a/x", "old/t/a/y.part", "old/t/b"],
            &["old/u/a/x", "old/t/a/y.part", "old/t/b"],
            &["old/u/a/x", "old/u/a/y.part", "old/u/b"],
        ];
        for paths in all {
            let bench = Bench::new();
            bench.write(paths);
            bench.renamed();
            assert!(["old/u/a/x", "old/u/a/y.part", "old/u/b"].iter().all(|path| bench.has(path)));
            assert!(!bench.dir.path().join("old/t").exists());
        }
    }

    #[test]
    fn files_that_are_not_there_yet_get_their_new_names_too() {
        Bench::new().renamed();
    }

    #[test]
    fn a_move_that_had_not_removed_anything_is_to_be_done_again() {
        let bench = Bench::new();
        bench.write(&["old/t/a/x", "old/t/b", "new/t/b"]);
        let (root, rest) = bench.moved();
        assert_eq!(root, bench.dir.path().join("old"));
        assert_eq!(rest, Rest::Move(bench.dir.path().join("new")));
    }

    #[test]
    fn a_move_that_was_done_is_known_by_its_files() {
        let bench = Bench::new();
        bench.write(&["new/t/a/x", "new/t/b.part"]);
        let (root, rest) = bench.moved();
        assert_eq!((root, rest), (bench.dir.path().join("new"), Rest::Nothing));
        std::fs::create_dir(bench.dir.path().join("old")).unwrap();
        assert_eq!(bench.moved().0, bench.dir.path().join("new"));
    }

    #[test]
    fn a_move_that_was_removing_what_was_left_goes_on() {
        let bench = Bench::new();
        bench.write(&["old/t/b", "new/t/a/x", "new/t/b"]);
        let mark = format!(".piecework-{}.moving", bench.metainfo.info_hash());
        let old = bench.dir.path().join("old");
        std::fs::write(bench.dir.path().join("new").join(mark), old.to_str().unwrap()).unwrap();
        let (root, rest) = bench.moved();
        assert_eq!((root, rest), (bench.dir.path().join("new"), Rest::Nothing));
        assert!(!bench.has("old/t/b") && bench.has("new/t/a/x") && bench.has("new/t/b"));
    }
}
