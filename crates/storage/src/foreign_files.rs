//! Finds files that have the name of a torrent's file but other content.

use piecework_core::SaturatingFrom;
use std::path::PathBuf;

use rustix::fs::ftruncate;

use piecework_core::{Bitfield, PieceIndex};

use super::confined::{Access, ConfinedFolder};
use super::data_ranges::next_data;
use super::error::{Operation, StorageError};
use super::layout::Layout;
use super::names::{opened, owned};
use super::store::{Store, StoreMode};

impl Store {
    /// Returns the files to which a download of the `wanted` pieces would write and that belong to
    /// somebody else: they have their final names and contain data, none of their pieces is in
    /// `have`, and either their length is wrong or one of their pieces is complete and wrong. A
    /// small file of the right length is not returned if its only piece lacks parts of other files.
    ///
    /// With `unfinished`, files with the suffix of unfinished files are checked too: if they
    /// contain data but no right piece, another torrent with the same name has left them. This does
    /// not apply to pieces over 16 MiB, which may be there in part and unverified.
    ///
    /// # Errors
    /// If a file cannot be accessed, for instance because it is a folder or a link.
    pub fn foreign_files(
        &self,
        have: &Bitfield,
        wanted: impl Fn(PieceIndex) -> bool,
        unfinished: bool,
    ) -> Result<Vec<usize>, StorageError> {
        if self.options().mode == StoreMode::ReadOnly {
            return Ok(Vec::new());
        }
        let layout = self.layout.read();
        let Some(folder) = opened(&layout)? else { return Ok(Vec::new()) };
        let geometry = self.geometry();
        let mut strange = Vec::new();
        for (file, entry) in self.map().entries().iter().enumerate() {
            if entry.padding || entry.len == 0 {
                continue;
            }
            let pieces = || geometry.pieces_of(entry.span()).map(PieceIndex);
            let is_written = || pieces().any(|piece| !have.contains(piece) && wanted(piece));
            if pieces().any(|piece| have.contains(piece)) || !is_written() {
                continue;
            }
            let names = layout.names_of(self.map(), file);
            let Some(len) = self.data_len(&folder, &names)? else {
                let names = layout.unfinished_names_of(self.map(), file).filter(|_| unfinished);
                if let Some(names) = names.filter(|_| geometry.piece_len() <= STREAM_OVER)
                    && self.data_len(&folder, &names)?.is_some()
                {
                    strange.push(file);
                }
                continue;
            };
            let mut is_wrong = len != entry.len;
            for piece in pieces().filter(|_| len == entry.len) {
                is_wrong = is_wrong || self.is_all_there(&layout, &folder, piece)?;
            }
            if is_wrong {
                strange.push(file);
            }
        }
        Ok(strange)
    }

    /// Removes these files, so that they are created anew. The content remains if somebody has
    /// given it another name (a hard link).
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn remove_files(&self, files: &[usize]) -> Result<(), StorageError> {
        self.writable(Operation::Remove)?;
        let _altering = self.altering.lock();
        let layout = self.layout.write();
        self.close_files();
        let Some(folder) = opened(&layout)? else { return Ok(()) };
        for file in files {
            if !folder.remove_file(&layout.names_of(self.map(), *file))?
                && let Some(names) = layout.unfinished_names_of(self.map(), *file)
            {
                folder.remove_file(&names)?;
            }
        }
        Ok(())
    }

    /// Truncates files that are longer than in the torrent, if they belong to it: some of their
    /// pieces are in `have`.
    ///
    /// # Errors
    /// If one cannot be truncated.
    pub fn cut_long_files(&self, have: &Bitfield) -> Result<(), StorageError> {
        self.writable(Operation::Write)?;
        let lengths = self.files().lengths()?;
        for (file, (entry, len)) in self.map().entries().iter().zip(lengths).enumerate() {
            let mut pieces = self.geometry().pieces_of(entry.span()).map(PieceIndex);
            let is_long = !entry.padding && len.is_some_and(|len| len > entry.len);
            if !is_long || !pieces.any(|piece| have.contains(piece)) {
                continue;
            }
            let open = self.files().open(file, true)?;
            ftruncate(&open.file, entry.len)
                .map_err(|errno| StorageError::new(Operation::Write, self.path_of(file), errno))?;
        }
        Ok(())
    }

    /// Returns the current path of the file, finished or not; the final path if it does not exist.
    pub fn present_path_of(&self, file: usize) -> PathBuf {
        let layout = self.layout.read();
        let found = opened(&layout).ok().flatten().and_then(|folder| {
            let found = layout.find(self.map(), file, &folder).ok().flatten()?;
            Some(owned(&found.names))
        });
        let names = found.unwrap_or_else(|| owned(&layout.names_of(self.map(), file)));
        layout.root.join(&names)
    }

    /// Returns the length of the file at `names`, if it contains data.
    fn data_len<S: AsRef<str>>(
        &self,
        folder: &ConfinedFolder<'_>,
        names: &[S],
    ) -> Result<Option<u64>, StorageError> {
        let len = match folder.stat(names) {
            Err(StorageError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error),
            Ok(stat) => u64::saturating_from(stat.st_size),
        };
        let is_empty = match folder.open(names, Access::Read) {
            // A program that has only reserved space leaves a single hole.
            Ok(open) => matches!(next_data(&open, 0), Ok(None)),
            // A file that cannot be read may contain anything.
            Err(_) => false,
        };
        Ok((len > 0 && !is_empty).then_some(len))
    }

    /// Returns whether all files of the piece have their final names and are long enough.
    fn is_all_there(
        &self,
        layout: &Layout,
        folder: &ConfinedFolder<'_>,
        piece: PieceIndex,
    ) -> Result<bool, StorageError> {
        let geometry = self.geometry();
        let start = geometry.piece_offset(piece);
        let end = start + u64::from(geometry.piece_size(piece));
        for slice in self.map().slices(start..end) {
            if self.map().entries()[slice.file].padding {
                continue;
            }
            match folder.stat(&layout.names_of(self.map(), slice.file)) {
                Ok(stat) if u64::saturating_from(stat.st_size) >= slice.offset + slice.len => {}
                Ok(_) | Err(StorageError::Missing { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Longer pieces are written before they are verified.
const STREAM_OVER: u32 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{FileHandles, StoreOptions};
    use piecework_core::metainfo::MetainfoBuilder;

    /// `t/a` of two pieces, `t/b` of one, `t/empty`; unfinished files end in `.part`.
    fn bench() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let path = |text: &str| vec![text.to_owned()];
        let len = 16_384;
        let files = vec![(path("a"), 2 * len), (path("b"), len), (path("empty"), 0)];
        let builder = MetainfoBuilder::folder("t", files).piece_len(len as u32);
        let metainfo = Arc::new(builder.build(vec![7; 60]).unwrap());
        let options =
            StoreOptions { incomplete_suffix: Some(".part".to_owned()), ..StoreOptions::default() };
        let handles = Arc::new(FileHandles::default());
        let store = Store::with_options(dir.path(), metainfo, handles, options).unwrap();
        std::fs::create_dir(dir.path().join("t")).unwrap();
        (dir, store)
    }

    fn strange(store: &Store, have: &[u32]) -> Vec<usize> {
        let mut held = Bitfield::empty(3);
        have.iter().for_each(|piece| {
            held.insert(PieceIndex(*piece));
        });
        store.foreign_files(&held, |_| true, false).unwrap()
    }

    #[test]
    fn a_file_is_strange_if_none_of_its_pieces_is_right() {
        let (dir, store) = bench();
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(dir.path().join("t").join(name), bytes);
        assert_eq!(strange(&store, &[]), [] as [usize; 0], "nothing is there");
        write("a.part", b"begun").unwrap();
        write("b", b"").unwrap();
        assert_eq!(strange(&store, &[]), [] as [usize; 0]);
        write("a", b"mine").unwrap();
        write("b", b"mine").unwrap();
        assert_eq!(strange(&store, &[]), [0, 1]);
        assert_eq!(strange(&store, &[1]), [1]);
        assert_eq!(strange(&store, &[0, 2]), [] as [usize; 0]);
        let none = Bitfield::empty(3);
        let only_a = store.foreign_files(&none, |piece| piece.0 < 2, false).unwrap();
        assert_eq!(only_a, [0], "what is not wanted is not written to");
    }

    #[test]
    fn an_unfinished_file_of_which_nothing_is_right_is_another_torrents() {
        let (dir, store) = bench();
        std::fs::write(dir.path().join("t/a.part"), b"of another").unwrap();
        let found = |have: &Bitfield| store.foreign_files(have, |_| true, true).unwrap();
        assert_eq!(found(&Bitfield::empty(3)), [0]);
        let mut first = Bitfield::empty(3);
        first.insert(PieceIndex(0));
        assert_eq!(found(&first), [] as [usize; 0]);
        assert!(store.present_path_of(0).ends_with("t/a.part"));
        store.remove_files(&[0]).unwrap();
        assert!(!dir.path().join("t/a.part").exists());
    }

    #[test]
    fn a_small_file_is_not_strange_because_its_neighbour_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let files = vec![(vec!["a".to_owned()], 10), (vec!["b".to_owned()], 10)];
        let metainfo = MetainfoBuilder::folder("t", files).build(vec![7; 20]).unwrap();
        let handles = Arc::new(FileHandles::default());
        let metainfo = Arc::new(metainfo);
        let store = Store::new(dir.path(), metainfo, handles, StoreMode::ReadWrite).unwrap();
        std::fs::create_dir(dir.path().join("t")).unwrap();
        let strange = || store.foreign_files(&Bitfield::empty(1), |_| true, false).unwrap();
        std::fs::write(dir.path().join("t/a"), [1; 10]).unwrap();
        assert_eq!(strange(), [] as [usize; 0]);
        std::fs::write(dir.path().join("t/b"), [1; 10]).unwrap();
        assert_eq!(strange(), [0, 1], "now the piece is all there, and wrong");
        std::fs::remove_file(dir.path().join("t/a")).unwrap();
        std::fs::write(dir.path().join("t/b"), [1; 9]).unwrap();
        assert_eq!(strange(), [1], "it has another length");
    }

    #[test]
    fn a_file_of_nothing_but_a_hole_is_not_strange() {
        let (dir, store) = bench();
        let file = std::fs::File::create(dir.path().join("t/a")).unwrap();
        file.set_len(32_768).unwrap();
        assert_eq!(strange(&store, &[]), [] as [usize; 0]);
    }

    #[test]
    fn a_folder_or_a_link_in_the_place_of_a_file_is_told_of() {
        let (dir, store) = bench();
        std::fs::create_dir(dir.path().join("t/a")).unwrap();
        let error = store.foreign_files(&Bitfield::empty(3), |_| true, false).unwrap_err();
        assert!(error.to_string().contains("it is a folder where a file should be"), "{error}");
        std::fs::remove_dir(dir.path().join("t/a")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("t/a")).unwrap();
        let error = store.foreign_files(&Bitfield::empty(3), |_| true, false).unwrap_err();
        assert!(matches!(error, StorageError::Escape { .. }), "{error}");
    }

    #[test]
    fn a_file_that_is_removed_keeps_its_content_under_its_second_name() {
        let (dir, store) = bench();
        let (name, second) = (dir.path().join("t/a"), dir.path().join("mine"));
        std::fs::write(&second, b"mine").unwrap();
        std::fs::hard_link(&second, &name).unwrap();
        store.remove_files(&[0]).unwrap();
        assert!(!name.exists());
        assert_eq!(std::fs::read(&second).unwrap(), b"mine");
    }

    #[test]
    fn what_is_behind_the_end_is_cut_off() {
        let (dir, store) = bench();
        let b = dir.path().join("t/b");
        std::fs::write(&b, vec![1; 20_000]).unwrap();
        let len = || std::fs::metadata(&b).unwrap().len();
        store.cut_long_files(&Bitfield::empty(3)).unwrap();
        assert_eq!(len(), 20_000, "it may be somebody's");
        store.cut_long_files(&Bitfield::full(3)).unwrap();
        assert_eq!(len(), 16_384);
    }
}
