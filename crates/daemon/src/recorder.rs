//! Records who gave what.

use piecework_core::SaturatingFrom;
use std::sync::Arc;

use jiff::Timestamp;

use piecework_core::metainfo::Metainfo;
use piecework_core::{BLOCK_LEN, PieceIndex};
use piecework_engine::{Observer, PieceGiver, TorrentEvent};
use piecework_journal::{
    Blame, BlockFate, HashFailure, Journal, PieceLog, PieceResponse, Record, Response, Upload,
    Verdict,
};
use piecework_swarm::{Evidence, PeerIdentity};

/// Passes the events of torrents to a [`PieceLog`] and its journal.
pub struct Recorder {
    log: Arc<PieceLog>,
    journal: Option<Arc<Journal>>,
}

impl Recorder {
    /// Records into `log`, and its journal if it has one.
    pub fn new(log: Arc<PieceLog>) -> Self {
        let journal = log.journal().cloned();
        Self { log, journal }
    }

    fn add_all(
        &self,
        torrent: &Arc<Metainfo>,
        piece: PieceIndex,
        givers: &[PieceGiver],
        fate: BlockFate,
    ) {
        let time = Timestamp::now();
        for giver in givers {
            self.log.add(PieceResponse {
                time,
                info_hash: torrent.info_hash(),
                name: torrent.info().name(),
                piece,
                addr: giver.who.known_as(),
                client: &giver.who.client,
                blocks: giver.blocks,
                bytes: giver.bytes,
                took: giver.took,
                verdict: if fate == BlockFate::Verified {
                    Verdict::Verified
                } else {
                    Verdict::Failed
                },
            });
            self.record(|| {
                Record::Given(Response {
                    time: time.as_millisecond(),
                    torrent: Arc::clone(torrent),
                    who: Arc::clone(&giver.who),
                    piece,
                    fate,
                    blocks: giver.blocks,
                    bytes: giver.bytes,
                    ranges: giver.ranges.clone(),
                    asked: Some((giver.requested_at, giver.received_at)),
                })
            });
        }
    }

    fn judge(
        &self,
        torrent: &Arc<Metainfo>,
        who: &Arc<PeerIdentity>,
        piece: PieceIndex,
        evidence: &Evidence,
    ) {
        self.record(|| {
            Record::Judged(Box::new(Blame {
                time: Timestamp::now().as_millisecond(),
                torrent: Arc::clone(torrent),
                who: Arc::clone(who),
                piece,
                got: evidence.hash,
                block: evidence.block.map(|block| block.begin / BLOCK_LEN),
                sent: evidence.sent,
                right: evidence.right,
            }))
        });
    }

    fn record(&self, record: impl FnOnce() -> Record) {
        if let Some(journal) = &self.journal {
            journal.record(record());
        }
    }
}

impl Observer for Recorder {
    fn event(&self, torrent: &Arc<Metainfo>, event: &TorrentEvent) {
        let now = || Timestamp::now().as_millisecond();
        match event {
            TorrentEvent::PieceDone { piece, givers } => {
                self.add_all(torrent, *piece, givers, BlockFate::Verified);
            }
            TorrentEvent::PieceFailed { piece, givers, hash } => {
                self.add_all(torrent, *piece, givers, BlockFate::Failed);
                self.record(|| {
                    Record::Failed(HashFailure {
                        time: now(),
                        torrent: Arc::clone(torrent),
                        piece: *piece,
                        givers: u32::saturating_from(givers.len()),
                        got: *hash,
                    })
                });
            }
            TorrentEvent::Banned { who, piece, evidence } => {
                self.log.add(PieceResponse {
                    time: Timestamp::now(),
                    info_hash: torrent.info_hash(),
                    name: torrent.info().name(),
                    piece: *piece,
                    addr: who.known_as(),
                    client: &who.client,
                    blocks: 1,
                    bytes: evidence.block.map_or(0, |block| block.len.into()),
                    took: std::time::Duration::ZERO,
                    verdict: Verdict::Banned { block: evidence.block.map(|block| block.begin) },
                });
                self.judge(torrent, who, *piece, evidence);
            }
            TorrentEvent::Proven { who, piece, evidence } => {
                self.judge(torrent, who, *piece, evidence);
            }
            TorrentEvent::Unused { who, piece, blocks, bytes } => self.record(|| {
                Record::Given(Response {
                    time: now(),
                    torrent: Arc::clone(torrent),
                    who: Arc::clone(who),
                    piece: *piece,
                    fate: BlockFate::Unused,
                    blocks: *blocks,
                    bytes: *bytes,
                    ranges: Default::default(),
                    asked: None,
                })
            }),
            TorrentEvent::Sent(part) => self.record(|| {
                Record::Sent(Upload {
                    time: part.last_at,
                    torrent: Arc::clone(torrent),
                    who: Arc::clone(&part.who),
                    piece: part.piece,
                    blocks: part.blocks,
                    bytes: part.bytes,
                })
            }),
            TorrentEvent::Completed | TorrentEvent::Paused { .. } => {}
        }
    }
}
