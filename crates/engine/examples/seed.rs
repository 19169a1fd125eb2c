//! Shares a file or folder until Ctrl-C: `seed PATH [TRACKER]`.
//!
//! Writes `PATH.torrent` and prints the address at which peers can connect.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use piecework_engine::{AddTorrent, Session, SessionConfig};
use piecework_storage::{CreateOptions, create};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = PathBuf::from(args.next().ok_or("usage: seed PATH [TRACKER]")?).canonicalize()?;
    let trackers: Vec<Vec<String>> = args.map(|tracker| vec![tracker]).collect();

    // Hashing blocks, so it has a thread of its own.
    let shared = path.clone();
    let options = CreateOptions { trackers, ..CreateOptions::default() };
    let created = tokio::task::spawn_blocking(move || {
        create(&shared, options, 2, |_| {}, &AtomicBool::new(false))
    })
    .await??;
    let torrent_file = PathBuf::from(format!("{}.torrent", path.display()));
    std::fs::write(&torrent_file, &*created.metainfo.bytes()?)?;

    let listen = vec!["127.0.0.1:0".parse()?];
    let session = Session::start(SessionConfig { listen, ..SessionConfig::default() })?;
    let mut add = AddTorrent::new(Arc::new(created.metainfo), created.root);
    add.names = created.names;
    // It was hashed a moment ago: no second check.
    add.assume_complete = true;
    let torrent = session.add(add)?;
    torrent.completed().await?;
    println!("seeding {} at {}", torrent_file.display(), session.listen_addrs()[0]);

    tokio::signal::ctrl_c().await?;
    // Tells the trackers, and waits until they have heard it.
    session.shutdown().await;
    Ok(())
}
