//! Finishes work on a torrent's files that a crash interrupted.
//!
//! Files change their places before the state says so, and the process may die in between. So the state says
//! first what is about to be done. If that is found at the next start, the files are looked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::record::{FileWork, TorrentRecord};
use piecework_api::TorrentSettings;
use piecework_core::metainfo::Metainfo;
use piecework_core::printable_path;
use piecework_storage::{FileHandles, StorageError, Store, StoreMode, StoreOptions, relocate};

/// What is still to be done for a torrent whose work was interrupted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RemainingWork {
    Nothing,
    /// Its files are where they were, and are to be moved to this folder.
    Move(PathBuf),
}

/// Updates `root` and `record` to where the files are after a crash. `keep_to` is [`StoreOptions::keep_to`].
/// Blocks.
///
/// # Errors
/// If that cannot be determined. Nothing has changed then.
pub(super) fn settle(
    metainfo: &Arc<Metainfo>,
    root: &mut PathBuf,
    record: &mut TorrentRecord,
    suffix: &str,
    keep_to: &Arc<Vec<PathBuf>>,
) -> Result<RemainingWork, StorageError> {
    let Some(unfinished) = record.common.change(|common| common.unfinished.take()) else {
        return Ok(RemainingWork::Nothing);
    };
    let recovery = Recovery { metainfo, seed: record.seed, suffix, keep_to };
    let settled = match &*unfinished {
        FileWork::Rename { names, name } => recovery
            .finish_rename(root, &mut record.settings, names, name.as_deref())
            .map(|()| RemainingWork::Nothing),
        FileWork::Move { folder } => {
            recovery.finish_move(root, &record.settings, Path::new(folder))
        }
    };
    if settled.is_err() {
        record.common.unfinished = Some(unfinished);
    }
    settled
}

struct Recovery<'a> {
    metainfo: &'a Arc<Metainfo>,
    seed: bool,
    suffix: &'a str,
    keep_to: &'a Arc<Vec<PathBuf>>,
}

impl Recovery<'_> {
    /// Finishes a rename: files that still have their old names are renamed like the others.
    fn finish_rename(
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
                tracing::warn!(%error, "could not finish an interrupted rename");
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

    /// Determines in which of both folders the files are.
    fn finish_move(
        &self,
        root: &mut PathBuf,
        settings: &TorrentSettings,
        folder: &Path,
    ) -> Result<RemainingWork, StorageError> {
        let store = self.store(root, in_a_map(&settings.renamed))?;
        let before = store.fingerprints()?;
        let after = self.store(folder, in_a_map(&settings.renamed))?.fingerprints()?;
        let both = || before.iter().zip(&after);
        // Files are removed from the old folder only once all are in the new one.
        if !both().any(|(here, there)| here.is_none() && there.is_some()) {
            return Ok(RemainingWork::Move(folder.to_owned()));
        }
        if let Err(error) = relocate(&store, folder, |_| {}, &AtomicBool::new(false)) {
            let all_there = both().all(|(here, there)| here.is_none() || there.is_some());
            tracing::warn!(%error, "could not finish an interrupted move to `{}`", printable_path(folder));
            if !all_there {
                return Ok(RemainingWork::Nothing);
            }
        }
        *root = folder.to_owned();
        Ok(RemainingWork::Nothing)
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

        fn settle(&self, unfinished: FileWork) -> (PathBuf, TorrentRecord, RemainingWork) {
            let mut root = self.dir.path().join("old");
            let mut record = TorrentRecord::default();
            record.common.unfinished = Some(Box::new(unfinished));
            let rest =
                settle(&self.metainfo, &mut root, &mut record, ".part", &Arc::default()).unwrap();
            assert_eq!(record.common.unfinished, None);
            (root, record, rest)
        }

        fn finish_rename(&self) -> TorrentRecord {
            let path = |text: &str| text.split('/').map(str::to_owned).collect();
            let names = vec![(0, path("u/a/x")), (1, path("u/a/y")), (2, path("u/b"))];
            let name = Some("u".to_owned());
            let (_, record, rest) = self.settle(FileWork::Rename { names: names.clone(), name });
            assert_eq!((rest, &record.settings.renamed), (RemainingWork::Nothing, &names));
            assert_eq!(record.settings.name.as_deref(), Some("u"));
            record
        }

        fn finish_move(&self) -> (PathBuf, RemainingWork) {
            let folder = self.dir.path().join("new").to_str().unwrap().to_owned();
            let (root, _, rest) = self.settle(FileWork::Move { folder });
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
            bench.finish_rename();
            assert!(["old/u/a/x", "old/u/a/y.part", "old/u/b"].iter().all(|path| bench.has(path)));
            assert!(!bench.dir.path().join("old/t").exists());
        }
    }

    #[test]
    fn files_that_are_not_there_yet_get_their_new_names_too() {
        Bench::new().finish_rename();
    }

    #[test]
    fn a_move_that_had_not_removed_anything_is_to_be_done_again() {
        let bench = Bench::new();
        bench.write(&["old/t/a/x", "old/t/b", "new/t/b"]);
        let (root, rest) = bench.finish_move();
        assert_eq!(root, bench.dir.path().join("old"));
        assert_eq!(rest, RemainingWork::Move(bench.dir.path().join("new")));
    }

    #[test]
    fn a_move_that_was_done_is_known_by_its_files() {
        let bench = Bench::new();
        bench.write(&["new/t/a/x", "new/t/b.part"]);
        let (root, rest) = bench.finish_move();
        assert_eq!((root, rest), (bench.dir.path().join("new"), RemainingWork::Nothing));
        std::fs::create_dir(bench.dir.path().join("old")).unwrap();
        assert_eq!(bench.finish_move().0, bench.dir.path().join("new"));
    }

    #[test]
    fn a_move_that_was_removing_what_was_left_goes_on() {
        let bench = Bench::new();
        bench.write(&["old/t/b", "new/t/a/x", "new/t/b"]);
        let mark = format!(".piecework-{}.moving", bench.metainfo.info_hash());
        let old = bench.dir.path().join("old");
        std::fs::write(bench.dir.path().join("new").join(mark), old.to_str().unwrap()).unwrap();
        let (root, rest) = bench.finish_move();
        assert_eq!((root, rest), (bench.dir.path().join("new"), RemainingWork::Nothing));
        assert!(!bench.has("old/t/b") && bench.has("new/t/a/x") && bench.has("new/t/b"));
    }
}
