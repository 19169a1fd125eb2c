//! Torrents whose tracker does not answer, next to 100 whose tracker does.

use std::sync::atomic::Ordering;
use std::time::Duration;

use piecework_engine::{AddTorrent, TorrentState};
use piecework_proto::announce::{TrackerTarget, TrackerUrl};

use super::{Row, rows_of};
use piecework_testkit::library::Meter;
use piecework_testkit::own_tracker::{OwnTracker, TrackerBehavior};
use piecework_testkit::{one_piece, session_with, silent_tracker};

const LIVE: usize = 100;

pub(crate) async fn measure(torrents: usize) -> Vec<Row> {
    let (dead_url, asked) = silent_tracker().await;
    let live = OwnTracker::start(TrackerBehavior::default()).await;
    let target = TrackerTarget::parse(&format!("http://{}", live.addr)).unwrap();
    let root = tempfile::tempdir().unwrap();
    let session = session_with(|_| {});
    let add = |number, tiers: Vec<Vec<TrackerUrl>>| {
        let mut add = AddTorrent::new(one_piece(number), root.path());
        add.trackers = Some(tiers);
        session.add(add).unwrap()
    };
    let dead: Vec<_> =
        (0..torrents).map(|number| add(number, vec![vec![dead_url.clone()]])).collect();
    for mut handle in dead {
        while handle.status().state != TorrentState::Downloading {
            handle.changed().await.unwrap();
        }
    }
    // The first announces have been sent.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let meter = Meter::begin();
    for number in torrents..torrents + LIVE {
        add(number, target.tiers.clone());
    }
    while live.seen.lock().started.len() < LIVE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let cost = meter.end();
    let what = "100 torrents of a live tracker";
    let mut rows = rows_of(what, &cost);
    rows.push(Row(what.to_owned(), "ms until announced", cost.took.as_secs_f64() * 1e3));
    let asked = asked.load(Ordering::Relaxed) as f64;
    rows.push(Row("the dead tracker".to_owned(), "connections", asked));
    session.shutdown().await;
    rows
}
