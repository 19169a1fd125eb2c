//! The queries of docs/journal.md, for a journal in which each piece was given and sent once.

use std::sync::Arc;
use std::time::Instant;

use piecework_core::metainfo::MetainfoBuilder;
use piecework_core::{PeerId, PieceIndex};
use piecework_journal::{BlockFate, Journal, JournalOptions, Record, Response, Upload};
use piecework_swarm::PeerIdentity;
use rusqlite::{Connection, StatementStatus};

use super::{Row, rows_of};
use piecework_testkit::library::Meter;

pub(crate) fn measure(pieces: usize) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let meter = Meter::begin();
    write(&path, pieces as u32);
    let mut rows = rows_of("writing it", &meter.end());
    let journal = Connection::open(&path).unwrap();
    let page = include_str!("../../docs/journal.md");
    let parts = page.split("\n```sql\n");
    for (behind, before) in parts.clone().skip(1).zip(parts) {
        let question = before.trim_end().lines().next_back().unwrap();
        let question: String = question.chars().take(28).collect();
        let mut statement = journal.prepare(behind.split("```").next().unwrap()).unwrap();
        let began = Instant::now();
        let mut found = statement.query([]).unwrap();
        while found.next().unwrap().is_some() {}
        drop(found);
        let ms = began.elapsed().as_secs_f64() * 1e3;
        rows.push(Row(question.clone(), "ms", ms));
        let steps = statement.get_status(StatementStatus::VmStep);
        rows.push(Row(question, "steps", f64::from(steps)));
    }
    rows
}

/// Fills a journal: 40 peers give and take a piece every 10 ms.
fn write(path: &std::path::Path, pieces: u32) {
    let journal = Journal::open(&JournalOptions {
        path: path.to_owned(),
        age: Journal::DEFAULT_AGE,
        size: Journal::DEFAULT_SIZE,
        program: "bench".to_owned(),
    })
    .unwrap();
    let builder = MetainfoBuilder::single_file("linux.iso", u64::from(pieces) * 16_384);
    let hashes = vec![7; pieces as usize * 20];
    let torrent = Arc::new(builder.piece_len(16_384).build(hashes).unwrap());
    let peers: Vec<Arc<PeerIdentity>> = (0..40_u8)
        .map(|number| {
            let addr = ([10, 0, 0, number], 6881).into();
            let client = "Bench 1.0".to_owned();
            let id = PeerId([number; 20]);
            Arc::new(PeerIdentity { addr, listens_at: Some(addr), id, client })
        })
        .collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let begin = now.as_millis() as i64 - i64::from(pieces) * 10;
    for piece in 0..pieces {
        let (time, who) = (begin + i64::from(piece) * 10, &peers[piece as usize % peers.len()]);
        let (torrent, at) = (&torrent, PieceIndex(piece));
        journal.record(Record::Given(Response {
            time,
            torrent: Arc::clone(torrent),
            who: Arc::clone(who),
            piece: at,
            fate: if piece % 50 == 49 { BlockFate::Unused } else { BlockFate::Verified },
            blocks: 1,
            bytes: 16_384,
            ranges: [(0, 0)].into_iter().collect(),
            asked: Some((time - 20 - i64::from(piece % 7), time)),
        }));
        journal.record(Record::Sent(Upload {
            time,
            torrent: Arc::clone(torrent),
            who: Arc::clone(who),
            piece: at,
            blocks: 1,
            bytes: 16_384,
        }));
        // Waiting records may have 16 MiB.
        if piece % 5_000 == 4_999 {
            journal.flush();
        }
    }
    journal.flush();
    assert_eq!(journal.lost() + journal.dropped(), 0);
    journal.close();
}
