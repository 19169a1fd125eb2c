//! Downloads a torrent and says who gave which piece: `who_gave_what FILE.torrent FOLDER PEER...`.
//!
//! An [`Observer`] hears every event of every torrent. It is called on the torrent's own task, so it only
//! counts and sends lines on.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use piecework_core::metainfo::{Metainfo, ParseLimits};
use piecework_core::printable;
use piecework_engine::{AddTorrent, Observer, Session, SessionConfig, TorrentEvent};

/// Pieces and bytes by who gave them. A piece of two givers counts for both.
#[derive(Default)]
struct Givers(Mutex<BTreeMap<SocketAddr, (u32, u64)>>);

impl Observer for Givers {
    fn event(&self, _metainfo: &Arc<Metainfo>, event: &TorrentEvent) {
        match event {
            TorrentEvent::PieceDone { piece, givers } => {
                let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                for giver in givers {
                    let addr = giver.who.known_as();
                    // A name that a peer gives itself is not shown as it is.
                    let client = printable(&giver.who.client);
                    println!("piece {}: {} bytes from {addr} ({client})", piece.0, giver.bytes);
                    let (pieces, bytes) = sums.entry(addr).or_default();
                    *pieces += 1;
                    *bytes += giver.bytes;
                }
            }
            TorrentEvent::Banned { who, piece, .. } => {
                println!("{} sent a wrong block of piece {}", who.known_as(), piece.0);
            }
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: who_gave_what FILE.torrent FOLDER PEER...";
    let (Some(torrent_file), Some(folder)) = (args.next(), args.next()) else {
        return Err(usage.into());
    };
    let metainfo = Metainfo::parse(&std::fs::read(torrent_file)?, &ParseLimits::default())?;

    let givers = Arc::new(Givers::default());
    let observer: Arc<dyn Observer> = Arc::clone(&givers) as _;
    let session =
        Session::start(SessionConfig { observer: Some(observer), ..SessionConfig::default() })?;
    let mut add = AddTorrent::new(Arc::new(metainfo), PathBuf::from(folder));
    add.peers = args.map(|peer| peer.parse()).collect::<Result<_, _>>()?;
    session.add(add)?.completed().await?;
    session.shutdown().await;

    for (addr, (pieces, bytes)) in &*givers.0.lock().unwrap_or_else(PoisonError::into_inner) {
        println!("{addr} gave {pieces} pieces, {bytes} bytes");
    }
    Ok(())
}
