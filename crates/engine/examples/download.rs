//! Downloads a torrent: `download FILE.torrent FOLDER [PEER...]`.
//!
//! Peers come from the torrent's trackers; `PEER`, as `IP:PORT`, names some that no tracker knows.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use piecework_core::metainfo::{Metainfo, ParseLimits};
use piecework_engine::{AddTorrent, Session, SessionConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: download FILE.torrent FOLDER [PEER...]";
    let (Some(torrent_file), Some(folder)) = (args.next(), args.next()) else {
        return Err(usage.into());
    };
    let metainfo = Metainfo::parse(&std::fs::read(torrent_file)?, &ParseLimits::default())?;

    let session = Session::start(SessionConfig::default())?;
    let mut add = AddTorrent::new(Arc::new(metainfo), PathBuf::from(folder));
    add.peers = args.map(|peer| peer.parse()).collect::<Result<_, _>>()?;
    let mut torrent = session.add(add)?;

    let done = torrent.clone();
    let done = done.completed();
    tokio::pin!(done);
    loop {
        tokio::select! {
            ended = &mut done => break ended?,
            changed = torrent.changed() => changed?,
        }
        let status = torrent.status();
        println!(
            "{} of {} pieces, {:.1} MiB/s from {} peers",
            status.pieces_have,
            status.pieces_total,
            status.download_rate / (1024.0 * 1024.0),
            status.peers_giving,
        );
    }
    println!("{} is complete", torrent.status().name);
    session.shutdown().await;
    Ok(())
}
