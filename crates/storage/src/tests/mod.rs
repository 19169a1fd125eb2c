//! Tests of the whole crate, on real files.

mod check;
mod create;
mod faults;
mod gate;
mod names;
mod pool;
mod relocate;
mod renaming;
mod resume;
mod store;
mod sweep;
mod wanted;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use piecework_core::metainfo::{Metainfo, MetainfoBuilder, ParseLimits};
use piecework_core::{PieceIndex, Rng};

pub(crate) use gate::Gate;

use super::hash::digest_each;
use super::{FileHandles, Store, StoreMode};

/// A torrent of random content, and an empty folder for it.
struct Fixture {
    dir: TempDir,
    metainfo: Arc<Metainfo>,
    content: Vec<u8>,
    handles: Arc<FileHandles>,
}

const PIECE: usize = 16 << 10;

impl Fixture {
    /// A torrent `t` of files, each given by its path below `t` and its length.
    fn folder(files: &[(&str, usize)], piece_len: usize) -> Self {
        let total = files.iter().map(|(_, len)| len).sum();
        let listed = files.iter().map(|(path, len)| (components(path), *len as u64)).collect();
        Self::of(MetainfoBuilder::folder("t", listed), total, piece_len)
    }

    fn single(len: usize, piece_len: usize) -> Self {
        Self::of(MetainfoBuilder::single_file("t", len as u64), len, piece_len)
    }

    fn of(builder: MetainfoBuilder, total: usize, piece_len: usize) -> Self {
        let content = random_bytes(total, 7);
        let hashes = digest_each(content.chunks(piece_len)).concat();
        let metainfo = builder.piece_len(piece_len as u32).build(hashes).unwrap();
        Self::with(metainfo, content)
    }

    /// Three files of 5 bytes, with 16 KiB - 5 bytes of padding between the first and the second.
    fn padded() -> Self {
        let mut content = random_bytes(PIECE + 10, 7);
        content[5..PIECE].fill(0);
        let hashes: Vec<u8> = digest_each(content.chunks(PIECE)).concat();
        let mut bytes = b"d4:infod5:filesld6:lengthi5e4:pathl1:aeed4:attr1:p6:lengthi16379e4:path\
            l4:.pad5:16379eed6:lengthi5e4:pathl1:beed6:lengthi5e4:pathl1:ceee4:name1:t\
            12:piece lengthi16384e6:pieces40:"
            .to_vec();
        bytes.extend_from_slice(&hashes);
        bytes.extend_from_slice(b"ee");
        Self::with(Metainfo::parse(&bytes, &ParseLimits::default()).unwrap(), content)
    }

    fn with(metainfo: Metainfo, content: Vec<u8>) -> Self {
        let (metainfo, handles) = (Arc::new(metainfo), Arc::new(FileHandles::new(3)));
        Self { dir: tempfile::tempdir().unwrap(), metainfo, content, handles }
    }

    fn store(&self) -> Arc<Store> {
        self.store_as(StoreMode::ReadWrite)
    }

    fn store_as(&self, mode: StoreMode) -> Arc<Store> {
        let (metainfo, handles) = (Arc::clone(&self.metainfo), Arc::clone(&self.handles));
        Arc::new(Store::new(self.root(), metainfo, handles, mode).unwrap())
    }

    /// A store with all files created, and all content written if `whole`.
    fn prepared(&self, whole: bool) -> Arc<Store> {
        let store = self.store();
        store.prepare().unwrap();
        if whole {
            store.write_at(0, &[&self.content]).unwrap();
            store.close_files();
        }
        store
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the path of the file `below` the torrent's folder.
    fn path(&self, below: &str) -> PathBuf {
        self.root().join("t").join(below)
    }

    fn piece(&self, piece: u32) -> &[u8] {
        let geometry = self.metainfo.info().geometry();
        let start = geometry.piece_offset(PieceIndex(piece)) as usize;
        &self.content[start..start + geometry.piece_size(PieceIndex(piece)) as usize]
    }
}

fn components(path: &str) -> Vec<String> {
    path.split('/').map(str::to_owned).collect()
}

fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::from_seed(seed);
    let mut bytes: Vec<u8> =
        (0..len.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}
