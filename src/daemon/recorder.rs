//! Writes down who gave what.

use std::sync::Arc;

use jiff::Timestamp;

use crate::journal::{PieceLog, PieceResponse, Verdict};
use crate::metainfo::Metainfo;
use crate::session::{Observer, PieceGiver, TorrentEvent};

/// Passes what torrents tell on to a [`PieceLog`].
pub struct Recorder {
    log: Arc<PieceLog>,
}

impl Recorder {
    /// Records into `log`.
    pub fn new(log: Arc<PieceLog>) -> Self {
        Self { log }
    }

    fn add_all(
        &self,
        metainfo: &Metainfo,
        piece: crate::base::PieceIndex,
        givers: &[PieceGiver],
        verdict: Verdict,
    ) {
        let time = Timestamp::now();
        for giver in givers {
            self.log.add(PieceResponse {
                time,
                info_hash: metainfo.info_hash(),
                name: metainfo.info().name(),
                piece,
                addr: giver.who.known_as(),
                client: &giver.who.client,
                blocks: giver.blocks,
                bytes: giver.bytes,
                took: giver.took,
                verdict,
            });
        }
    }
}

impl Observer for Recorder {
    fn event(&self, metainfo: &Arc<Metainfo>, event: &TorrentEvent) {
        match event {
            TorrentEvent::PieceDone { piece, givers } => {
                self.add_all(metainfo, *piece, givers, Verdict::Verified);
            }
            TorrentEvent::PieceFailed { piece, givers } => {
                self.add_all(metainfo, *piece, givers, Verdict::Failed);
            }
            TorrentEvent::Banned { who, block } => self.log.add(PieceResponse {
                time: Timestamp::now(),
                info_hash: metainfo.info_hash(),
                name: metainfo.info().name(),
                piece: block.piece,
                addr: who.known_as(),
                client: &who.client,
                blocks: 1,
                bytes: block.len.into(),
                took: std::time::Duration::ZERO,
                verdict: Verdict::Banned { block: block.begin },
            }),
            TorrentEvent::Completed | TorrentEvent::Paused { .. } => {}
        }
    }
}
