//! A torrent of many pieces of 16 KiB: making it, checking it, and checking it with an interruption.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use piecework_core::metainfo::Metainfo;
use piecework_core::{Checkpoint, InfoHash, Rng};
use piecework_engine::{AddTorrent, Keeper, Session, TorrentState};
use piecework_storage::{CreateOptions, create};

use super::{Row, rows_of};
use piecework_testkit::library::{Cost, Meter};
use piecework_testkit::session_with;

const PIECE: u32 = 16 << 10;

/// Keeps the last checkpoint, and counts checkpoints.
#[derive(Default)]
struct Kept(Mutex<(usize, Option<Checkpoint>)>);

impl Keeper for Kept {
    fn keep(&self, _: InfoHash, checkpoint: Checkpoint) {
        let mut kept = self.0.lock();
        kept.0 += 1;
        kept.1 = Some(checkpoint);
    }
}

pub(crate) async fn measure(pieces: usize) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("content");
    fill(&path, pieces as u64 * u64::from(PIECE));
    let meter = Meter::begin();
    let options = CreateOptions { piece_len: Some(PIECE), ..CreateOptions::default() };
    let created = create(&path, options, 2, |_| {}, &Default::default()).unwrap();
    let mut rows = rows_of("making it", &meter.end());
    let metainfo = Arc::new(created.metainfo);
    let kept = Arc::new(Kept::default());
    let whole = check(&metainfo, folder.path(), &kept, 1.0).await;
    rows.extend(rows_of("checking it", &whole));
    rows.push(Row("checking it".to_owned(), "times kept", kept.0.lock().0 as f64));
    let kept = Arc::new(Kept::default());
    let first = check(&metainfo, folder.path(), &kept, 0.3).await;
    let rest = check(&metainfo, folder.path(), &kept, 1.0).await;
    let cpu = (first.cpu + rest.cpu).as_secs_f64() * 1e3;
    let calls = (first.calls + rest.calls) as f64;
    for (unit, value) in [("ms of CPU", cpu), ("allocations", calls)] {
        rows.push(Row("checking it, interrupted".to_owned(), unit, value));
    }
    rows
}

/// Checks what is not verified, until this part of it is done, and ends.
async fn check(metainfo: &Arc<Metainfo>, root: &Path, kept: &Arc<Kept>, part: f64) -> Cost {
    let meter = Meter::begin();
    let session: Session = session_with(|config| config.keeper = Some(Arc::clone(kept) as _));
    let mut add = AddTorrent::new(Arc::clone(metainfo), root);
    add.checkpoint = kept.0.lock().1.take();
    let mut handle = session.add(add).unwrap();
    loop {
        match handle.status().state {
            TorrentState::Seeding => break,
            TorrentState::Checking { done, total }
                if f64::from(done) >= f64::from(total) * part =>
            {
                break;
            }
            TorrentState::Waiting | TorrentState::Checking { .. } => {}
            other => panic!("{other:?}"),
        }
        handle.changed().await.unwrap();
    }
    session.shutdown().await;
    meter.end()
}

fn fill(path: &Path, len: u64) {
    let mut rng = Rng::from_seed(1);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for _ in 0..len / 8 {
        file.write_all(&rng.next_u64().to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}
