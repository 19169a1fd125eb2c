//! Who gave which piece: queries of the journal, and what is new in it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::DaemonError;
use super::background::blocking;
use super::entry::Entry;
use super::journal_view as view;
use super::torrents::Torrents;
use piecework_api::{
    BadPiece, Givers, LogEntry, NewPieces, PieceState, PieceStory, SentPieces, Timeline,
};
use piecework_core::{InfoHash, PieceIndex};
use piecework_journal::{Filter, Journal, JournalError, MissingRecords, Owners, PieceLog, Reader};
use piecework_swarm::PieceStage;

/// Caches the owners of pieces for torrents that were asked about lately. Reading all responses of a torrent
/// takes some 20 ms for 100,000 pieces; reading the new ones takes hardly any time.
#[derive(Default)]
pub(super) struct OwnerCache {
    torrents: Mutex<Vec<(InfoHash, Owners, Instant)>>,
}

/// Selects responses of the log.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Maximum number.
    pub limit: usize,
    /// Responses after the one with this number, instead of the last ones.
    pub after: Option<i64>,
    /// Only responses of this peer.
    pub peer: Option<SocketAddr>,
    /// Only responses since then, in seconds since 1970.
    pub since: Option<i64>,
}

/// Answers questions about who gave which piece.
pub(super) struct JournalQueries {
    pub torrents: Arc<Torrents>,
    pub log: Arc<PieceLog>,
    pub owners: OwnerCache,
}

impl JournalQueries {
    /// Returns who gave the torrent, and who gave most of each piece.
    pub(crate) async fn givers(&self, info_hash: InfoHash) -> Result<Givers, DaemonError> {
        let (handle, pieces) = self.torrents.with(info_hash, |entry| {
            let pieces = entry.metainfo().map_or(0, |it| it.info().geometry().pieces());
            (entry.handle().cloned(), pieces)
        })?;
        let have = match &handle {
            Some(handle) => handle.have().await,
            None => None,
        };
        let mut owners = self.owners.take(info_hash, pieces);
        let (mut answer, owners) = self
            .ask(move |reader| {
                reader.follow(info_hash, &mut owners)?;
                let givers = Givers {
                    givers: reader.givers(info_hash)?.into_iter().map(view::giver).collect(),
                    takers: reader.takers(info_hash)?.into_iter().map(view::taker).collect(),
                    by_piece: Vec::new(),
                    lost: reader.lost(info_hash)?,
                    waiting: 0,
                };
                Ok((givers, owners))
            })
            .await?;
        if let Some(journal) = self.log.journal() {
            let MissingRecords { waiting, lost } = journal.unwritten(info_hash);
            answer.waiting = waiting;
            answer.lost += lost;
        }
        answer.by_piece = (0..)
            .zip(owners.by_piece())
            .map(|(piece, owner)| match &have {
                Some(have) if !have.contains(PieceIndex(piece)) => -1,
                None => -1,
                Some(_) if owner < 0 => -2,
                Some(_) => owner,
            })
            .collect();
        self.owners.put(info_hash, owners);
        Ok(answer)
    }

    /// Returns all that is known of a piece.
    pub(crate) async fn story(
        &self,
        info_hash: InfoHash,
        piece: u32,
    ) -> Result<PieceStory, DaemonError> {
        let (handle, pieces) = self.torrents.with(info_hash, |entry| {
            let pieces = entry.metainfo().map_or(0, |it| it.info().geometry().pieces());
            (entry.handle().cloned(), pieces)
        })?;
        if piece >= pieces {
            return Err(DaemonError::not_found(format!(
                "there is no piece `{piece}`: the torrent has `{pieces}`, and the first is 0"
            )));
        }
        let state = match &handle {
            Some(handle) => state_of(handle.stage(PieceIndex(piece)).await),
            None => PieceState::Missing,
        };
        let story = self.ask(move |reader| reader.story(info_hash, piece)).await?;
        let story = story.into_iter().map(view::story_entry).collect();
        Ok(PieceStory { piece, state, story })
    }

    /// Returns what was sent to whom, from the records after number `after`; with `taker`, only
    /// what was sent to that peer.
    pub(crate) async fn sent(
        &self,
        info_hash: InfoHash,
        after: i64,
        taker: Option<i64>,
    ) -> Result<SentPieces, DaemonError> {
        self.torrents.with(info_hash, |_| ())?;
        let uploads = self.ask(move |reader| reader.sent(info_hash, after, taker)).await?;
        Ok(view::sent_pieces(uploads))
    }

    /// Returns pieces that were wrong.
    pub(crate) async fn bad(&self, info_hash: InfoHash) -> Result<Vec<BadPiece>, DaemonError> {
        self.torrents.with(info_hash, |_| ())?;
        let wrong = self.ask(move |reader| reader.wrong_pieces(info_hash)).await?;
        Ok(wrong.into_iter().map(view::bad_piece).collect())
    }

    /// Returns when pieces arrived.
    pub(crate) async fn timeline(
        &self,
        info_hash: InfoHash,
        buckets: u32,
    ) -> Result<Timeline, DaemonError> {
        self.torrents.with(info_hash, |_| ())?;
        let arrivals = self.ask(move |reader| reader.arrivals(info_hash, buckets)).await?;
        Ok(view::timeline(arrivals))
    }

    /// Returns responses, oldest first.
    pub(crate) async fn log(
        &self,
        info_hash: InfoHash,
        query: LogQuery,
    ) -> Result<Vec<LogEntry>, DaemonError> {
        self.torrents.with(info_hash, |_| ())?;
        let filter = Filter {
            torrent: Some(info_hash),
            peer: query.peer,
            since: query.since.map(|seconds| seconds.saturating_mul(1_000)),
            after: query.after,
            run: None,
        };
        if self.log.journal().is_some() {
            let rows = self.ask(move |reader| reader.log(&filter, query.limit)).await?;
            return Ok(rows.into_iter().map(view::log_entry).collect());
        }
        let records = self.log.records(filter, query.limit)?;
        Ok(records.into_iter().map(view::unnumbered_log_entry).collect())
    }

    /// Returns what is new of the torrent since `owners` was updated.
    pub(crate) async fn new_pieces(
        &self,
        info_hash: InfoHash,
        mut owners: Owners,
    ) -> Result<(NewPieces, Owners), DaemonError> {
        let (new, owners) =
            self.ask(move |reader| Ok((reader.follow(info_hash, &mut owners)?, owners))).await?;
        Ok((view::new_pieces(new), owners))
    }

    /// Returns the owners of a torrent of which nobody has given anything yet; `None` if there is
    /// no journal.
    pub(crate) fn no_owners(&self, info_hash: InfoHash) -> Option<Owners> {
        self.log.journal()?;
        let pieces =
            |entry: &mut Entry| entry.metainfo().map_or(0, |it| it.info().geometry().pieces());
        self.torrents.with(info_hash, pieces).ok().map(Owners::new)
    }

    async fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Reader) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, DaemonError> {
        let journal: Arc<Journal> = self.log.journal().cloned().ok_or_else(|| {
            DaemonError::conflict(
                "this daemon keeps no journal: set `journal` in `[daemon]` of its configuration"
                    .to_owned(),
            )
        })?;
        Ok(blocking(move || journal.read(look)).await??)
    }
}

impl OwnerCache {
    /// Drops entries that were not used for a while.
    pub(crate) fn tidy(&self) {
        self.torrents.lock().retain(|(_, _, used)| used.elapsed() < KEPT);
    }

    fn take(&self, info_hash: InfoHash, pieces: u32) -> Owners {
        let mut torrents = self.torrents.lock();
        let known = torrents.iter().position(|(known, ..)| *known == info_hash);
        known.map_or_else(|| Owners::new(pieces), |at| torrents.swap_remove(at).1)
    }

    fn put(&self, info_hash: InfoHash, owners: Owners) {
        let mut torrents = self.torrents.lock();
        torrents.retain(|(known, _, used)| *known != info_hash && used.elapsed() < KEPT);
        if torrents.len() >= MOST {
            torrents.remove(0);
        }
        torrents.push((info_hash, owners, Instant::now()));
    }
}

fn state_of(stage: PieceStage) -> PieceState {
    match stage {
        PieceStage::Missing => PieceState::Missing,
        PieceStage::UnderWay => PieceState::Downloading,
        PieceStage::Verifying => PieceState::Verifying,
        PieceStage::Held => PieceState::Held,
    }
}

/// Maximum number of torrents in the cache. Each takes 400 KB with 100,000 pieces.
const MOST: usize = 16;

/// How long an unused entry is kept.
const KEPT: Duration = Duration::from_secs(300);
